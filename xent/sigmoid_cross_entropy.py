"""Cross-entropy of independent classes (sigmoid cross-entropy, multi-label), plain and focal."""

import math

import numpy as np

from . import _check, _kernels
from ._docs import documented
from ._softmax_loss import numpy_scalar
from ._threads import WORTH_A_THREAD, threads_for


@documented
def sigmoid_cross_entropy(
    logits,
    target,
    *,
    weight=None,
    pos_weight=None,
    label_smoothing=0.0,
    gamma=0.0,
    alpha=None,
    ignore_index=None,
    reduction="mean",
):
    """
    Cross-entropy between targets and the sigmoids of logits: every element is a class of its own.

    .. math:: w \\, \\alpha_t (1 - p_t)^\\gamma \\, [-c \\, t \\log p - (1 - t) \\log(1 - p)], \\qquad
        p = \\mathrm{sigmoid}(\\mathrm{logits})

    with the weight w, the positive weight c, and :math:`p_t = p \\, t + (1 - p)(1 - t)`.

    Parameters
    ----------
    <logits of elements>
    <target of sigmoid_cross_entropy>
    <weight of elements>
    <pos_weight>
    <label_smoothing of elements>
    <gamma of elements>
    <alpha>
    <ignore_index of elements>
    <reduction of sigmoid_cross_entropy>

    Returns
    -------
    scalar or ndarray
        The loss in nats: float64 for float64 logits, else float32. Each element is within 4 ulp of its own
        value, also where the prediction is confident and the loss tiny. Weights add 2 ulp, and `gamma` adds
        1 + 3 gamma, as a power multiplies the relative error of its base. Sums are accumulated in float64.

    Raises
    ------
    TypeError
        If `logits`, `target` or the weights do not hold real numbers.
    ValueError
        If a shape does not fit, a target is outside [0, 1], or an option is outside its range.

    See Also
    --------
    sigmoid_cross_entropy_grad, sigmoid_cross_entropy_value_and_grad, cross_entropy, sigmoid

    Notes
    -----
    ``-log p = max(-z, 0) + log1p(exp(-|z|))`` for a logit z: both terms are non-negative, and nothing
    cancels. 1 - p_t is made of p and 1 - p, each accurate by itself. The focal factor is that of [1]_, with
    alpha as in ``torchvision.ops.sigmoid_focal_loss``. A probability of 0 for a target of 1 gives an infinite
    loss; 0 log 0 counts as 0.

    References
    ----------
    .. [1] T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollar, "Focal loss for dense object detection", ICCV
       2017, doi:10.1109/ICCV.2017.324.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> logits = np.array([[2.0, -1.0, 0.0], [0.0, 3.0, -3.0]])
    >>> xent.sigmoid_cross_entropy(logits, [[1, 0, 0], [0, 1, 1]], reduction="none").round(4)
    array([[0.1269, 0.3133, 0.6931],
           [0.6931, 0.0486, 3.0486]])
    >>> print(xent.sigmoid_cross_entropy(logits, [[1, 0, 0], [0, 1, 1]], gamma=2.0, alpha=0.25).round(4))
    0.1615
    >>> print(xent.sigmoid_cross_entropy(np.float32([20]), [1]))
    2.0611537e-09
    """
    options = weight, pos_weight, label_smoothing, gamma, alpha, ignore_index, reduction
    return _solve(logits, target, options, True, False, None, None)[0]


@documented
def sigmoid_cross_entropy_grad(
    logits,
    target,
    *,
    grad_output=None,
    out=None,
    weight=None,
    pos_weight=None,
    label_smoothing=0.0,
    gamma=0.0,
    alpha=None,
    ignore_index=None,
    reduction="mean",
):
    """
    Gradient of `sigmoid_cross_entropy` with respect to the logits.

    .. math:: s \\, w \\, [(1 - t) \\, p - c \\, t \\, (1 - p)]

    without a focal factor; s is the reduction's factor times `grad_output`.

    Parameters
    ----------
    <logits of elements>
    <target of sigmoid_cross_entropy>
    <grad_output>
    <out>
    <weight of elements>
    <pos_weight>
    <label_smoothing of elements>
    <gamma of elements>
    <alpha>
    <ignore_index of elements>
    <reduction of sigmoid_cross_entropy>

    Returns
    -------
    ndarray
        Of the shape and dtype of `logits`. For targets of 0 and 1 each entry is within 4 ulp of its own
        value, tiny ones included; weights and `gamma` add what they add to the loss. For other targets two
        terms may cancel, and the bound is at the scale of their magnitudes.

    Raises
    ------
    TypeError, ValueError
        As `sigmoid_cross_entropy`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    sigmoid_cross_entropy, sigmoid_cross_entropy_value_and_grad

    Examples
    --------
    >>> import xent
    >>> xent.sigmoid_cross_entropy_grad([-1.0, 2.0, 3.0], [0, 1, 0], reduction="sum").round(2)
    array([ 0.27, -0.12,  0.95])
    """
    options = weight, pos_weight, label_smoothing, gamma, alpha, ignore_index, reduction
    return _solve(logits, target, options, False, True, out, grad_output)[1]


@documented
def sigmoid_cross_entropy_value_and_grad(
    logits,
    target,
    *,
    out=None,
    weight=None,
    pos_weight=None,
    label_smoothing=0.0,
    gamma=0.0,
    alpha=None,
    ignore_index=None,
    reduction="mean",
):
    """
    `sigmoid_cross_entropy` and its gradient from one pass over the logits.

    Parameters
    ----------
    <logits of elements>
    <target of sigmoid_cross_entropy>
    <out>
    <weight of elements>
    <pos_weight>
    <label_smoothing of elements>
    <gamma of elements>
    <alpha>
    <ignore_index of elements>
    <reduction of sigmoid_cross_entropy>

    Returns
    -------
    loss : scalar or ndarray
        As `sigmoid_cross_entropy`.
    grad : ndarray
        As `sigmoid_cross_entropy_grad`.

    Raises
    ------
    TypeError, ValueError
        As `sigmoid_cross_entropy`; also if `out` does not fit.

    See Also
    --------
    sigmoid_cross_entropy, sigmoid_cross_entropy_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.sigmoid_cross_entropy_value_and_grad([[-1.0, 2.0, 3.0]], [[0, 1, 0]])
    >>> print(loss.round(4))
    1.1629
    >>> grad.round(2)
    array([[ 0.09, -0.04,  0.32]])
    """
    options = weight, pos_weight, label_smoothing, gamma, alpha, ignore_index, reduction
    return _solve(logits, target, options, True, True, out, None)


def _solve(logits, target, options, want_value, want_grad, out, grad_output):
    """Check everything, then compute: what the three functions share. Returns (loss, gradient), None for what
    is not wanted."""
    weight, pos_weight, label_smoothing, gamma, alpha, ignore_index, reduction = options
    if weight is None and pos_weight is None and ignore_index is None and grad_output is None:
        quick = _kernels.quick_sigmoid_cross_entropy(
            logits,
            target,
            label_smoothing,
            gamma,
            alpha,
            reduction,
            out,
            want_value,
            want_grad,
            WORTH_A_THREAD,
        )
        if quick is not None:
            return quick
    x = _check.floats(logits, "logits")
    given, ignored = _check.binary_target(target, x, ignore_index)
    weight = None if weight is None else _check.factors(weight, "weight", x)
    pos_weight = None if pos_weight is None else _check.factors(pos_weight, "pos_weight", x)
    if type(label_smoothing) is not float or label_smoothing != 0.0:
        label_smoothing = _check.real(label_smoothing, "label_smoothing", 0.0, 1.0)
    if type(gamma) is not float or gamma != 0.0:
        gamma = _check.real(gamma, "gamma", 0.0)
    alpha = None if alpha is None else _check.real(alpha, "alpha", 0.0, 1.0)
    divisor = _divisor(reduction, x)
    scalar = _check.loss_dtype(x.dtype)
    factor, upstream = _check.upstream(grad_output, x.shape if reduction == "none" else (), scalar, "K")
    result = None
    if want_grad:
        inputs = [(x, "logits"), (given, "target"), (weight, "weight"), (pos_weight, "pos_weight")]
        result = _check.output_like(out, [*inputs, (upstream, "grad_output")])

    # The kernel walks contiguous arrays that all lie in the order of the logits.
    flip = x.flags.f_contiguous and not x.flags.c_contiguous
    dense, t = _arranged(x, flip), _arranged(given, flip)
    losses = np.empty(dense.shape, scalar) if want_value and reduction == "none" else None
    patterns = [_pattern(factors, x.shape, flip) for factors in (weight, pos_weight)]
    rest = None if upstream is None else _arranged(upstream, flip), label_smoothing, gamma, alpha, ignored
    place = (result.T if flip else result) if want_grad else None
    grad = place if place is None or place.flags.carray else np.empty(dense.shape, dense.dtype)
    threads = threads_for(x.size)

    # The targets are checked on the way, unless something that the caller can see is overwritten, or the
    # gradient needs to know how many count.
    count, checked = x.size, want_grad and (out is not None or (divisor is None and ignored is not None))
    if checked:
        _, count = _kernels.sigmoid_cross_entropy(
            dense, t, None, None, False, *patterns, *rest, factor, threads
        )
        if count < 0:
            raise _check.bad_binary(given, ignored)
    scale = factor / ((count if divisor is None else divisor) or 1)
    total, count = _kernels.sigmoid_cross_entropy(
        dense, t, grad, losses, want_value, *patterns, *rest, scale, threads
    )
    if count < 0 and not checked:
        raise _check.bad_binary(given, ignored)

    if grad is not place:
        place[...] = grad
    if want_grad and out is None:
        result = result[()]  # a NumPy scalar for 0-d
    if losses is not None:
        return (losses.T if flip else losses)[()], result
    divisor = count if divisor is None else divisor
    return numpy_scalar(scalar, total / divisor if divisor else 0.0), result


def _arranged(array, flip):
    """Return an array as a contiguous one in C order, or its transpose."""
    return np.asarray(array.T if flip else array, order="C")


def _divisor(reduction, x):
    """Return what the sum of the losses is divided by; None for the number of elements that count."""
    divisor = _check.mean_divisor(reduction, x.shape, x.shape)
    if reduction in ("mean", "mean_valid"):
        return None
    return 1.0 if divisor is None else divisor


def _pattern(factors, shape, flip):
    """Return (array, repeat, count) such that the factor of element i is array.flat[i // repeat % count]."""
    if factors is None:
        return None
    own = (1,) * (len(shape) - factors.ndim) + factors.shape
    factors = factors.reshape(own)
    if flip:
        factors, own, shape = factors.T, own[::-1], shape[::-1]
    varied = [k for k, n in enumerate(own) if n != 1]
    if not varied:
        return _arranged(factors, False), 1, 1
    first, last = varied[0], varied[-1]
    if own[first : last + 1] != shape[first : last + 1]:  # varies with some axes, but not with one between
        factors, first, last = np.broadcast_to(factors, shape), 0, len(shape) - 1
    return _arranged(factors, False), math.prod(shape[last + 1 :]), math.prod(shape[first : last + 1])
