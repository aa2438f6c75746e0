"""Losses that look at a few sampled classes instead of all: noise-contrastive estimation, sampled softmax.

Design: the scores of a position are those of its label and of its samples. Samples that all positions share
are one matrix product; labels, and samples of each position, gather rows of the weights, in blocks of
positions. Each loss turns the scores into their gradient in place; then the way back is the same for both.
"""

import math
from typing import NamedTuple

import numpy as np

from . import _check, _kernels, _reduction
from ._docs import documented
from ._linear import BLOCK_BYTES, check_layer
from ._options import Options
from .sigmoid import log_sigmoid, sigmoid

_ADDED_AT_ONCE = 64  # rows: for each class of 4096, 128 roundings at most


@documented
def nce_loss(x, weight, target, noise, noise_log_prob, bias=None, *, reduction="mean"):
    """
    Noise-contrastive estimation: tells the label from K samples of noise.

    .. math:: -\\log \\sigma(s_y) - \\sum_k \\log \\sigma(-s_{n_k}), \\qquad
       s_c = x \\cdot W_c + b_c - \\log K - \\log q_c

    for the label y, the noise n and its distribution q.

    Parameters
    ----------
    <x of a layer>
    <weight of a layer>
        <rows in use>
    <target of samples>
    <noise>
    <bias of a layer>
    <reduction of positions>

    Returns
    -------
    <loss of a layer>

    Raises
    ------
    TypeError
        If an array does not hold real numbers, or `target` or `noise` no integers.
    ValueError
        If a shape does not fit, a label or sample is out of range, the log-probability of one of them is NaN
        or infinite, or there is no noise.

    See Also
    --------
    nce_loss_value_and_grad, sampled_softmax_cross_entropy, linear_cross_entropy

    Notes
    -----
    The minimum over all functions s is the logarithm of the data's distribution, normalised by itself [1]_,
    [2]_; the more noise, the closer the gradient is to that of maximum likelihood. Products are in float64 if
    any of the three arrays is float64, else in float32.

    References
    ----------
    .. [1] M. U. Gutmann, A. Hyvarinen, "Noise-contrastive estimation of unnormalized statistical models",
       Journal of Machine Learning Research 13 (2012), 307-361.
    .. [2] A. Mnih, Y. W. Teh, "A fast and simple algorithm for training neural probabilistic language
       models", ICML 2012, arXiv:1206.6426.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> x, weight = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    >>> q = np.log([0.2, 0.2, 0.6])
    >>> print(xent.nce_loss(x, weight, [0, 1], noise=[2, 0, 2], noise_log_prob=q).round(4))
    1.7428
    """
    samples = _Samples("noise", noise, "noise_log_prob", noise_log_prob)
    return _loss_and_grad(x, weight, target, bias, samples, reduction, _nce, False)[0]


@documented
def nce_loss_value_and_grad(x, weight, target, noise, noise_log_prob, bias=None, *, reduction="mean"):
    """
    `nce_loss` and its gradients.

    Parameters
    ----------
    <x of a layer>
    <weight of a layer>
        <rows in use>
    <target of samples>
    <noise>
    <bias of a layer>
    <reduction of positions>

    Returns
    -------
    loss : scalar or ndarray
        As `nce_loss`.
    <grads of a layer>
        <rows of zeros>

    Raises
    ------
    TypeError, ValueError
        As `nce_loss`.

    See Also
    --------
    nce_loss

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> x, weight = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    >>> q = np.log([0.2, 0.2, 0.6])
    >>> loss, (grad_x, grad_weight, grad_bias) = xent.nce_loss_value_and_grad(x, weight, [0], [2, 2], q)
    >>> print(loss.round(4))
    0.6721
    >>> grad_weight.round(3)
    array([[-0.128,  0.   ],
           [ 0.   ,  0.   ],
           [ 0.469,  0.   ]])
    """
    samples = _Samples("noise", noise, "noise_log_prob", noise_log_prob)
    return _loss_and_grad(x, weight, target, bias, samples, reduction, _nce, True)


@documented
def sampled_softmax_cross_entropy(
    x, weight, target, sampled, sampled_log_prob, bias=None, *, reduction="mean"
):
    """
    Cross-entropy of a linear layer over the label and sampled classes only.

    .. math:: -\\log \\frac{\\exp s_y}{\\exp s_y + \\sum_{k: n_k \\ne y} \\exp s_{n_k}}, \\qquad
       s_c = x \\cdot W_c + b_c - \\log q_c

    for the label y, the samples n and their distribution q.

    Parameters
    ----------
    <x of a layer>
    <weight of a layer>
        <rows in use>
    <target of samples>
    <sampled>
    <bias of a layer>
    <reduction of positions>

    Returns
    -------
    <loss of a layer>

    Raises
    ------
    TypeError
        If an array does not hold real numbers, or `target` or `sampled` no integers.
    ValueError
        If a shape does not fit, a label or sample is out of range, the log-probability of one of them is NaN
        or infinite, or there are no samples.

    See Also
    --------
    sampled_softmax_cross_entropy_value_and_grad, nce_loss, linear_cross_entropy

    Notes
    -----
    The correction by log q makes the sum over the samples stand for the sum over all classes: the gradient
    approaches that of the full softmax as samples are added [1]_, [2]_. With every class sampled once and q
    uniform it is the full softmax. Products are in float64 if any of the three arrays is float64, else in
    float32.

    References
    ----------
    .. [1] S. Jean, K. Cho, R. Memisevic, Y. Bengio, "On using very large target vocabulary for neural machine
       translation", ACL 2015, arXiv:1412.2007.
    .. [2] Y. Bengio, J.-S. Senecal, "Adaptive importance sampling to accelerate training of a neural
       probabilistic language model", IEEE Transactions on Neural Networks 19 (2008),
       doi:10.1109/TNN.2007.912312.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> x, weight = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    >>> uniform = np.zeros(3)
    >>> print(xent.sampled_softmax_cross_entropy(x, weight, [0, 1], [0, 1, 2], uniform).round(4))
    0.2753
    >>> print(xent.linear_cross_entropy(x, weight, [0, 1]).round(4))
    0.2753
    """
    samples = _Samples("sampled", sampled, "sampled_log_prob", sampled_log_prob)
    return _loss_and_grad(x, weight, target, bias, samples, reduction, _sampled_softmax, False)[0]


@documented
def sampled_softmax_cross_entropy_value_and_grad(
    x, weight, target, sampled, sampled_log_prob, bias=None, *, reduction="mean"
):
    """
    `sampled_softmax_cross_entropy` and its gradients.

    Parameters
    ----------
    <x of a layer>
    <weight of a layer>
        <rows in use>
    <target of samples>
    <sampled>
    <bias of a layer>
    <reduction of positions>

    Returns
    -------
    loss : scalar or ndarray
        As `sampled_softmax_cross_entropy`.
    <grads of a layer>
        <rows of zeros>

    Raises
    ------
    TypeError, ValueError
        As `sampled_softmax_cross_entropy`.

    See Also
    --------
    sampled_softmax_cross_entropy

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> x, weight = np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    >>> loss, (grad_x, grad_weight, grad_bias) = xent.sampled_softmax_cross_entropy_value_and_grad(
    ...     x, weight, [0], [0, 2, 2], np.log([0.2, 0.2, 0.6])
    ... )
    >>> print(loss.round(4))
    0.0864
    >>> grad_weight.round(3)
    array([[-0.083,  0.   ],
           [ 0.   ,  0.   ],
           [ 0.083,  0.   ]])
    """
    samples = _Samples("sampled", sampled, "sampled_log_prob", sampled_log_prob)
    return _loss_and_grad(x, weight, target, bias, samples, reduction, _sampled_softmax, True)


class _Samples(NamedTuple):
    """Samples and their log-probabilities, with the names that the user knows them by."""

    name: str
    classes: object
    log_prob_name: str
    log_prob: object


class _LayerCall(NamedTuple):
    """Arguments that were checked; positions are one axis."""

    x: np.ndarray  # (N, D), of the dtype in which is computed
    weight: np.ndarray  # (C, D), as it came
    own: np.ndarray  # (N, J): the classes that a position gathers, its label first
    shared: np.ndarray  # (K,): the samples of all positions; else empty
    offset: np.ndarray  # (C,), float64: what is added to the product x . W_c


def _loss_and_grad(x, weight, target, bias, samples, reduction, head, want_grad):
    """What the four functions share. `head` turns scores into losses, and into their gradients in place."""
    x, weight, bias, dtype, (x_dtype, w_dtype, b_dtype) = check_layer(x, weight, bias)
    positions, classes = x.shape[:-1], len(weight)
    labels = _check.classes_of(target, "target", [positions], classes)
    drawn, log_prob = _drawn(samples, labels, positions, classes)
    reduction = _reduction.name(reduction)
    divisor = _reduction.divisor(reduction, (*positions, classes), len(positions), labels.size, labels.size)

    offset = 0.0 - log_prob if bias is None else bias.astype(np.float64) - log_prob
    own, shared = labels.reshape(-1, 1), drawn
    if drawn.ndim > 1:
        own = np.concatenate([own, drawn.reshape(len(own), drawn.shape[-1])], axis=1)
        shared = drawn.ravel()[:0]
    rows = np.asarray(x, dtype, order="C").reshape(len(own), x.shape[-1])
    p = _LayerCall(rows, weight, own, shared, offset)
    with np.errstate(all="ignore"):
        scores = _scores(p)
        losses = head(p, scores, (1.0 / divisor if divisor else 1.0) if want_grad else None)
        grads = None
        if want_grad:
            grad_x, grad_weight, grad_bias = _backward(p, scores, w_dtype)
            grad_x = _check.narrowed(grad_x.reshape(x.shape), x_dtype)
            grads = grad_x, grad_weight, None if bias is None else _check.narrowed(grad_bias, b_dtype)
        if reduction == "none":
            return losses.astype(dtype).reshape(positions)[()], grads
        return _reduction.scalar(dtype, losses.sum(), divisor), grads


def _drawn(samples, labels, positions, classes):
    """Check the samples and the log-probabilities of all classes in use; return both."""
    count = _check.as_array(samples.classes, samples.name).shape[-1:] or ("K",)
    drawn = _check.classes_of(samples.classes, samples.name, [count, positions + count], classes)
    if count == (0,):
        raise ValueError(f"{samples.name} must hold one class or more, got shape {drawn.shape}")
    log_prob = np.asarray(_check.floats(samples.log_prob, samples.log_prob_name), np.float64, order="C")
    _check.one_per_class(log_prob, classes, samples.log_prob_name)
    if not np.isfinite(log_prob).all():
        for used in (labels, drawn):
            _check.finite_at(log_prob, used, samples.log_prob_name)
    return drawn, log_prob


# ---- scores, and the way back ----
# s_nc = x_n . W_c + offset_c, hence with g_nc the derivative by s_nc, summed over the classes of a position
#
#     dloss / dx_n = sum_c g_nc W_c       dloss / dW_c = sum_n g_nc x_n       dloss / doffset_c = sum_n g_nc


def _blocks(p):
    """Yield slices of positions, of which the gathered rows of the weights are a few MiB."""
    step = max(1, BLOCK_BYTES // max(1, p.own.shape[1] * p.x.shape[1] * p.x.itemsize))
    for start in range(0, len(p.x), step):
        yield slice(start, start + step)


def _rows(p, classes):
    """Return the rows of the weights of some classes, in the dtype in which is computed."""
    return p.weight[classes].astype(p.x.dtype, copy=False)


def _scores(p):
    """Return the scores (N, J + K) of each position's own classes and of the shared ones."""
    own = p.own.shape[1]
    scores = np.empty((len(p.x), own + len(p.shared)), p.x.dtype)
    for block in _blocks(p):
        rows = _rows(p, p.own[block])
        scores[block, :own] = np.matmul(rows, p.x[block, :, np.newaxis])[..., 0]
    scores[:, :own] += p.offset[p.own].astype(p.x.dtype, copy=False)
    if len(p.shared):
        np.matmul(p.x, _rows(p, p.shared).T, out=scores[:, own:])
        scores[:, own:] += p.offset[p.shared].astype(p.x.dtype, copy=False)
    return scores


def _backward(p, g, dtype):
    """Return the gradients by x, by the weights (of `dtype`) and by the bias, from those by the scores."""
    own, classes = p.own.shape[1], len(p.weight)
    grad_x = np.empty_like(p.x)
    grad_weight = np.zeros(p.weight.shape, p.x.dtype)
    for block in _blocks(p):
        part = g[block, :own]
        grad_x[block] = np.matmul(part[:, np.newaxis], _rows(p, p.own[block]))[:, 0]
        # One row g x for each class of each position, in the order of the classes.
        flat = p.own[block].ravel()
        order = np.argsort(flat, kind="stable")
        terms = p.x[block][order // own]
        terms *= part.ravel()[order, np.newaxis]
        _add_rows(grad_weight, flat[order], terms)
    grad_bias = np.zeros(classes)
    grad_bias += _kernels.sums_at(p.own, g[:, :own], classes)
    if len(p.shared):
        rest = g[:, own:]
        grad_x += rest @ _rows(p, p.shared)
        order = np.argsort(p.shared, kind="stable")
        _add_rows(grad_weight, p.shared[order], (rest.T @ p.x)[order])
        grad_bias += _kernels.sums_at(p.shared, rest.sum(axis=0, dtype=np.float64), classes)
    return grad_x, _check.narrowed(grad_weight, dtype), grad_bias


def _add_rows(total, classes, rows):
    """Add rows to total[classes]; classes are sorted, and one that is there twice gets both of its rows.

    Of many rows groups are added up first: rows one after the other, as NumPy adds them, lose a digit of a
    hundred equal ones.
    """
    while True:
        starts = np.flatnonzero(np.concatenate([classes[:1] == classes[:1], classes[1:] != classes[:-1]]))
        if len(starts) == len(classes):
            break
        place = np.arange(len(classes)) - np.repeat(starts, np.diff(starts, append=len(classes)))
        groups = np.flatnonzero(place % _ADDED_AT_ONCE == 0)
        classes, rows = classes[groups], np.add.reduceat(rows, groups, axis=0)
    total[classes] += rows


# ---- the two losses ----
# With the sign turned for the noise, v = s(y), -s(n_1), ..., -s(n_K), the loss is -sum log sigmoid(v), and
# its derivative by v is -sigmoid(-v).


def _nce(p, scores, scale):
    """Return the losses; the derivatives by the scores times `scale`, if that is given, in their place."""
    scores -= math.log(p.own.shape[1] - 1 + len(p.shared))
    scores[:, 1:] *= -1.0
    losses = 0.0 - log_sigmoid(scores).sum(axis=1, dtype=np.float64)
    if scale is not None:
        np.negative(scores, out=scores)
        sigmoid(scores, out=scores)
        scores[:, 0] *= -scale
        scores[:, 1:] *= scale
    return losses


def _sampled_softmax(p, scores, scale):
    """As `_nce`."""
    label, own = p.own[:, :1], p.own.shape[1]
    scores[:, 1:own][p.own[:, 1:] == label] = -np.inf
    scores[:, own:][p.shared == label] = -np.inf
    labels, options = np.zeros(len(scores), np.int64), Options(reduction="none")
    if scale is None:
        losses = _kernels.cross_entropy(scores, labels, None, None, _kernels.want_value, *options)
    else:
        upstream, wants = np.full(len(scores), scale), _kernels.want_value_and_grad
        losses, _ = _kernels.cross_entropy(scores, labels, scores, upstream, wants, *options)
    return losses.astype(np.float64)
