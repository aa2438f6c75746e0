"""Cross-entropy from logits (softmax loss), and from log-probabilities (negative log-likelihood)."""

import numpy as np

from . import _check
from ._docs import documented
from ._kernels import quick_cross_entropy
from ._softmax_loss import Options, divisor_of, numpy_scalar, solve
from ._threads import WORTH_A_THREAD

TARGET = """target : array_like
        Labels: integers of any integer dtype, of the shape of the positions, in ``[0, C)`` or
        `ignore_index`. Or probabilities: floats, of the shape of `logits`; they are not normalised."""

OPTIONS = """axis : int, optional
        The class axis. Every other axis is a position.
    weight : array_like of float, shape (C,), optional
        w: one factor per class, not negative.
    sample_weight : array_like of float, optional
        One factor per position, not negative; multiplies the whole loss of the position.
    ignore_index : int, optional
        Positions with this label count for nothing: loss 0, gradient 0. (Index targets only.)
    label_smoothing : float, optional
        e in [0, 1]: mixes the uniform distribution into the target, ``t = (1 - e) * onehot + e / C``, class
        weights included.
    z_loss : float, optional
        Factor, at least 0, of the square of the log-sum-exp that is added to the loss of each position.
    gamma : float, optional
        Exponent, at least 0, of the focal loss: ``(1 - p[y])**gamma`` multiplies the loss of a label y.
        (Index targets without label smoothing only.)
    temperature : float, optional
        T, greater than 0: the logits are divided by it.
    logit_cap : float, optional
        c, greater than 0: logits u, after the temperature, become ``c * tanh(u / c)``.
    prior : array_like of float, shape (C,), optional
        One positive class frequency per class; its logarithm is added to the logits, after the cap.
    reduction : {"mean", "sum", "none", "mean_valid", "mean_full", "mean_batch"}, optional
        "none": one loss per position. "sum": their sum. "mean": the sum over the sum of the weights
        ``w[y] * sample_weight`` of counted positions (probability targets: over that of the sample weights).
        "mean_valid": over the number of counted positions. "mean_full": over the number of all positions.
        "mean_batch": over ``logits.shape[0]``. A mean over nothing is 0."""

_documented = documented(target=TARGET, options=OPTIONS)


@_documented
def cross_entropy(
    logits,
    target,
    *,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    gamma=0.0,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    reduction="mean",
):
    """
    Cross-entropy between a target and the softmax of logits.

    .. math:: -w_y \\log p_y  \\quad\\text{or}\\quad  -\\sum_c w_c t_c \\log p_c, \\qquad p =
    \\mathrm{softmax}(\\mathrm{logits})

    for an index target y or a probability target t.

    Parameters
    ----------
    logits : array_like of float, shape (..., C, ...)
        Unnormalised log-probabilities. Integers and bools become float64.
    <target>
    <options>

    Returns
    -------
    scalar or ndarray
        The loss in nats: float64 for float64 logits, else float32. With index targets and no smoothing each
        position's loss is within 4 ulp of its own value, also where the prediction is confident and the loss
        tiny. Sums are accumulated in float64.

    Raises
    ------
    TypeError
        If `logits` or `weight` do not hold real numbers or `target` holds neither labels nor probabilities.
    ValueError
        If a shape does not fit, a label is out of range, or an option is outside its range.

    See Also
    --------
    cross_entropy_grad, cross_entropy_value_and_grad, nll_loss

    Notes
    -----
    With m the largest logit and R the sum of exp(x_c - m) over all classes but one that attains it,
    ``-log p_y = (m - x_y) + log1p(R)``: both terms are non-negative, and nothing cancels [1]_. A target logit
    of -inf gives an infinite loss; 0 log 0 counts as 0 in probability targets. Label smoothing is that of
    [2]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA Journal of Numerical Analysis 41 (2021), doi:10.1093/imanum/draa038.
    .. [2] C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016,
       doi:10.1109/CVPR.2016.308.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    >>> xent.cross_entropy(logits, [0, 2], reduction="none").round(4)
    array([0.4076, 1.0986])
    >>> print(xent.cross_entropy(logits, [0, 2]).round(4))
    0.7531
    >>> print(xent.cross_entropy(np.float32([20, 0]), 0))
    2.0611537e-09
    """
    # A tuple of the options, made and taken apart, would cost a small call a tenth of its time.
    quick = quick_cross_entropy(
        logits, target, None, False, WORTH_A_THREAD, axis, weight, sample_weight, ignore_index,
        label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip
    if quick is not None:
        return quick[0]
    options = (
        axis, weight, sample_weight, ignore_index, label_smoothing,
        z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip
    return solve(logits, target, options, False)[0]


@_documented
def cross_entropy_grad(
    logits,
    target,
    *,
    grad_output=None,
    out=None,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    gamma=0.0,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    reduction="mean",
):
    """
    Gradient of `cross_entropy` with respect to the logits.

    .. math:: g_j = s \\, (U p_j - u_j), \\qquad u_c = w_c t_c, \\quad U = \\sum_c u_c

    with t the target as a distribution and s the reduction's factor times `grad_output`.

    Parameters
    ----------
    logits : array_like of float, shape (..., C, ...)
        Unnormalised log-probabilities. Integers and bools become float64.
    <target>
    grad_output : array_like of float, optional
        Upstream gradient, of the shape of the loss; None means 1.
    out : ndarray, optional
        Where to put the gradient: the shape of `logits` and the dtype of the result. It may be `logits`
        itself.
    <options>

    Returns
    -------
    ndarray
        Of the shape and dtype of `logits`. With index targets and no smoothing each entry is within 4 ulp of
        its own value, also the target entry of a confident prediction (-R / (1 + R) instead of p - 1).

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    cross_entropy, cross_entropy_value_and_grad

    Examples
    --------
    >>> import xent
    >>> xent.cross_entropy_grad([1.0, 2.0, 3.0], 0).round(2)
    array([-0.91,  0.24,  0.67])
    """
    quick = grad_output is None and quick_cross_entropy(
        logits, target, out, True, WORTH_A_THREAD, axis, weight, sample_weight, ignore_index,
        label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip
    if quick:
        return quick[1]
    options = (
        axis, weight, sample_weight, ignore_index, label_smoothing,
        z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip
    return solve(logits, target, options, True, out, grad_output)[1]


@_documented
def cross_entropy_value_and_grad(
    logits,
    target,
    *,
    out=None,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    gamma=0.0,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    reduction="mean",
):
    """
    `cross_entropy` and its gradient from one pass over the logits.

    Parameters
    ----------
    logits : array_like of float, shape (..., C, ...)
        Unnormalised log-probabilities. Integers and bools become float64.
    <target>
    out : ndarray, optional
        Where to put the gradient: the shape of `logits` and the dtype of the result. ``out=logits``
        overwrites the logits.
    <options>

    Returns
    -------
    loss : scalar or ndarray
        As `cross_entropy`.
    grad : ndarray
        As `cross_entropy_grad`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`; also if `out` does not fit.

    See Also
    --------
    cross_entropy, cross_entropy_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.cross_entropy_value_and_grad([[1.0, 2.0, 3.0]], [2])
    >>> print(loss.round(4))
    0.4076
    >>> grad.round(2)
    array([[ 0.09,  0.24, -0.33]])
    """
    quick = quick_cross_entropy(
        logits, target, out, True, WORTH_A_THREAD, axis, weight, sample_weight, ignore_index,
        label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip
    if quick is not None:
        return quick
    options = (
        axis, weight, sample_weight, ignore_index, label_smoothing,
        z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip
    return solve(logits, target, options, True, out)


# ---- negative log-likelihood ----


def nll_loss(log_probs, target, *, axis=-1, weight=None, ignore_index=-100, reduction="mean"):
    """
    Negative log-likelihood of labels, from log-probabilities.

    .. math:: -w_y \\, \\mathrm{log\\_probs}_y

    Parameters
    ----------
    log_probs : array_like of float, shape (..., C, ...)
        Log-probabilities in nats, such as `log_softmax` returns. Integers and bools become float64.
    target : array_like of int
        Labels, of the shape of the positions, in ``[0, C)`` or `ignore_index`.
    axis, weight, ignore_index, reduction
        As in `cross_entropy`.

    Returns
    -------
    scalar or ndarray
        The loss in nats: float64 for float64 input, else float32.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    See Also
    --------
    cross_entropy, nll_loss_grad, nll_loss_value_and_grad

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> print(xent.nll_loss(np.log([[0.1, 0.3, 0.6], [0.2, 0.6, 0.2]]), [2, 1]).round(2))
    0.51
    """
    return _nll(log_probs, target, None, None, False, axis, weight, ignore_index, reduction)[0]


def nll_loss_grad(
    log_probs,
    target,
    *,
    grad_output=None,
    out=None,
    axis=-1,
    weight=None,
    ignore_index=-100,
    reduction="mean",
):
    """
    Gradient of `nll_loss` with respect to the log-probabilities: ``-w[y] s`` at the label, 0 elsewhere.

    Parameters
    ----------
    log_probs : array_like of float, shape (..., C, ...)
        Log-probabilities in nats.
    target : array_like of int
        Labels, of the shape of the positions, in ``[0, C)`` or `ignore_index`.
    grad_output : array_like of float, optional
        Upstream gradient, of the shape of the loss; None means 1.
    out : ndarray, optional
        Where to put the gradient: the shape of `log_probs` and the dtype of the result. It may be `log_probs`
        itself.
    axis, weight, ignore_index, reduction
        As in `cross_entropy`.

    Returns
    -------
    ndarray
        Of the shape and dtype of `log_probs`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy_grad`.

    See Also
    --------
    nll_loss

    Examples
    --------
    >>> import xent
    >>> xent.nll_loss_grad([[-1.0, -0.5], [-0.1, -2.4]], [0, 1])
    array([[-0.5,  0. ],
           [ 0. , -0.5]])
    """
    return _nll(log_probs, target, out, grad_output, True, axis, weight, ignore_index, reduction)[1]


def nll_loss_value_and_grad(
    log_probs, target, *, out=None, axis=-1, weight=None, ignore_index=-100, reduction="mean"
):
    """
    `nll_loss` and its gradient.

    Parameters
    ----------
    log_probs : array_like of float, shape (..., C, ...)
        Log-probabilities in nats.
    target : array_like of int
        Labels, of the shape of the positions, in ``[0, C)`` or `ignore_index`.
    out : ndarray, optional
        Where to put the gradient, as in `nll_loss_grad`.
    axis, weight, ignore_index, reduction
        As in `cross_entropy`.

    Returns
    -------
    loss : scalar or ndarray
        As `nll_loss`.
    grad : ndarray
        As `nll_loss_grad`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy_value_and_grad`.

    See Also
    --------
    nll_loss, nll_loss_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.nll_loss_value_and_grad([[-1.0, -0.5]], [1])
    >>> print(loss)
    0.5
    """
    return _nll(log_probs, target, out, None, True, axis, weight, ignore_index, reduction)


def _nll(log_probs, target, out, grad_output, want_grad, axis, weight, ignore_index, reduction):
    """Gather and scatter: NumPy is as good as a kernel at these. Returns (loss, gradient or None)."""
    x = _check.floats(log_probs, "log_probs")
    axis = _check.axis_of(axis, x.ndim)
    ignore_index = _check.label_value(ignore_index, "ignore_index")
    weight = None if weight is None else _check.per_class(weight, x.shape[axis], "weight")
    labels = _check.labels_of(target, x, axis, ignore_index)
    divisor = divisor_of(Options(axis, weight, None, ignore_index, reduction=reduction), x.shape, labels)
    factor, upstream = _check.upstream(grad_output, labels.shape if divisor is None else ())
    if want_grad:
        inputs = [(x, "log_probs"), (labels, "target"), (weight, "weight"), (upstream, "grad_output")]
        out = _check.output_like(out, inputs)

    # From here on only the counted positions: the 0-d mask of a single position works like any other.
    valid = labels != ignore_index
    index = valid, labels[valid]
    weights = np.ones(()) if weight is None else weight[labels[valid]]
    losses = np.zeros(labels.shape)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        picked = np.moveaxis(x, axis, -1)[index].astype(np.float64)
        terms = 0.0 - weights * picked
        losses[valid] = np.where((weights == 0) & np.isinf(picked), 0.0, terms)
        if want_grad:
            factor = factor if divisor is None else factor / divisor if divisor else 0.0
            out[...] = 0
            entries = 0.0 - weights * factor * (1.0 if upstream is None else upstream[valid])
            np.moveaxis(out, axis, -1)[index] = _check.narrowed(entries, out.dtype)
    if divisor is None:
        return _check.narrowed(losses, _check.loss_dtype(x.dtype))[()], out
    return numpy_scalar(_check.loss_dtype(x.dtype), losses.sum() / divisor if divisor else 0.0), out
