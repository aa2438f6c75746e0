"""Losses of probabilities: cross-entropy, binary cross-entropy, entropy."""

import numpy as np

from . import _check, _kernels
from ._docs import documented
from ._probability_loss import LossCall


@documented
def cross_entropy_probs(probs, target, *, axis=-1, clip=None, base=None, reduction="mean"):
    """
    Cross-entropy between a target and probabilities.

    .. math:: -\\log p_y  \\quad\\text{or}\\quad  -\\sum_c t_c \\log p_c

    for an index target y or a probability target t.

    Parameters
    ----------
    <probs>
    <target of probs>
    <axis>
    <clip>
    <base>
    <reduction of positions>

    Returns
    -------
    scalar or ndarray
        The loss: float64 for float64 `probs`, else float32. Each position's loss is within 4 ulp of its own
        value where all terms have one sign, as those of probabilities do.

    Raises
    ------
    TypeError
        If `probs` does not hold real numbers or `target` holds neither labels nor probabilities.
    ValueError
        If a shape does not fit, a label is out of range, or an option is outside its range.

    See Also
    --------
    cross_entropy, cross_entropy_probs_grad, cross_entropy_probs_value_and_grad, entropy

    Notes
    -----
    From logits, `cross_entropy` is faster and more accurate: 1 - p is lost once p is rounded. 0 log 0 is 0,
    and a target of probability 0 has an infinite loss, unless `clip` bounds it [1]_. Numbers that are no
    probabilities are not looked for: one that is negative or NaN gives its position NaN (with labels, that of
    the label does).

    References
    ----------
    .. [1] T. M. Cover, J. A. Thomas, "Elements of Information Theory", 2nd edition, Wiley 2006,
       doi:10.1002/047174882X.

    Examples
    --------
    >>> import xent
    >>> probs = [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]
    >>> xent.cross_entropy_probs(probs, [1, 1], base=2, reduction="none")
    array([2., 0.])
    >>> print(xent.cross_entropy_probs(probs, [1, 0], clip=1e-10).round(4))
    12.2061
    """
    options = axis, clip, base, reduction
    return _cross_entropy_probs(probs, target, options, False, None, None)[0]


@documented
def cross_entropy_probs_grad(
    probs, target, *, grad_output=None, out=None, axis=-1, clip=None, base=None, reduction="mean"
):
    """
    Gradient of `cross_entropy_probs` with respect to the probabilities.

    .. math:: g_c = -s \\, t_c / p_c

    with s the reduction's factor times `grad_output`; 0 where p_c is clipped.

    Parameters
    ----------
    <probs>
    <target of probs>
    <grad_output>
    <out>
    <axis>
    <clip>
    <base>
    <reduction of positions>

    Returns
    -------
    ndarray
        Of the shape and dtype of `probs`, each entry within 4 ulp of its own value.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy_probs`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    cross_entropy_probs

    Examples
    --------
    >>> import xent
    >>> xent.cross_entropy_probs_grad([0.5, 0.25, 0.25], 1)
    array([ 0., -4.,  0.])
    """
    options = axis, clip, base, reduction
    return _cross_entropy_probs(probs, target, options, True, out, grad_output)[1]


@documented
def cross_entropy_probs_value_and_grad(
    probs, target, *, out=None, axis=-1, clip=None, base=None, reduction="mean"
):
    """
    `cross_entropy_probs` and its gradient from one pass over the probabilities.

    Parameters
    ----------
    <probs>
    <target of probs>
    <out>
    <axis>
    <clip>
    <base>
    <reduction of positions>

    Returns
    -------
    loss : scalar or ndarray
        As `cross_entropy_probs`.
    grad : ndarray
        As `cross_entropy_probs_grad`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy_probs`; also if `out` does not fit.

    See Also
    --------
    cross_entropy_probs, cross_entropy_probs_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.cross_entropy_probs_value_and_grad([[0.5, 0.5]], [[1.0, 0.0]])
    >>> print(loss.round(4))
    0.6931
    >>> grad
    array([[-2.,  0.]])
    """
    options = axis, clip, base, reduction
    return _cross_entropy_probs(probs, target, options, True, out, None)


def _cross_entropy_probs(probs, target, options, want_grad, out, grad_output):
    """Check everything, then compute: what the three functions share. Returns (loss, gradient or None)."""
    axis, clip, base, reduction = options
    x = _check.floats(probs, "probs")
    axis = _check.axis_of(axis, x.ndim)
    labels, t = _check.target_of(target, x, axis, None, "probs")
    if labels is not None:
        _check.labels_in_range(labels, x.shape[axis])
    clip = 0.0 if clip is None else _check.inside(clip, "clip", 1.0)
    task = LossCall(x, "probs", labels if t is None else t, base, reduction, axis)
    task.prepare(want_grad, out, grad_output, given=target)
    if t is None:
        return _of_labels(task, labels, clip)
    return task.sum_over_classes(_kernels.CROSS_ENTROPY, clip)


def _of_labels(task, labels, clip):
    """Gather and scatter: NumPy is as good as a kernel at these."""
    index = np.expand_dims(labels, task.axis)
    with np.errstate(all="ignore"):
        p = np.take_along_axis(task.x, index, task.axis).squeeze(task.axis).astype(np.float64)
        inside = ~((p < clip) | (p > 1.0)) if clip else np.ones((), bool)
        log_p = np.log(np.clip(p, clip, 1.0) if clip else p)
        if task.out is not None:
            entries = np.where(inside, -task.factor * task.upstream_or_one() / (p + 0.0), 0.0)
            task.out[...] = 0
            entries = np.expand_dims(_check.narrowed(entries, task.out.dtype), task.axis)
            np.put_along_axis(task.out, index, entries, task.axis)
        losses = 0.0 - log_p
    if task.losses is None:
        return task.result(losses.sum())
    task.losses[...] = _check.narrowed(losses / task.unit, task.losses.dtype)
    return task.result(0.0)


@documented
def binary_cross_entropy(probs, target, *, weight=None, clip=None, base=None, reduction="mean"):
    """
    Binary cross-entropy between targets and probabilities, elementwise.

    .. math:: -w \\, (t \\log p + (1 - t) \\log(1 - p))

    Parameters
    ----------
    <probs of elements>
    <target of elements>
    <weight of probs>
    <clip of elements>
    <base>
    <reduction of elements>

    Returns
    -------
    scalar or ndarray
        The loss: float64 for float64 `probs`, else float32. Each element's loss is within 4 ulp of its own
        value, also for p next to 0 or 1.

    Raises
    ------
    TypeError
        If `probs`, `target` or `weight` do not hold real numbers.
    ValueError
        If a shape does not fit or an option is outside its range.

    See Also
    --------
    binary_cross_entropy_grad, binary_cross_entropy_value_and_grad, cross_entropy_probs

    Notes
    -----
    0 log 0 is 0, and infinite losses stay infinite unless `clip` bounds the probabilities. (PyTorch bounds
    the logarithms by -100.) Next to 1 the bound is on 1 - p, so that it holds also where 1 - e rounds to 1. A
    weight of 0 gives the loss 0. A probability that is NaN gives its element NaN.
    Others outside [0, 1] are not looked for: they give NaN or, with a target of 0 or 1, a loss that may be
    negative.

    References
    ----------
    .. [1] I. J. Good, "Rational Decisions", Journal of the Royal Statistical Society B 14 (1952),
       doi:10.1111/j.2517-6161.1952.tb00104.x.

    Examples
    --------
    >>> import xent
    >>> xent.binary_cross_entropy([0.5, 0.25, 1.0], [1, 0, 1], base=2, reduction="none").round(4)
    array([1.   , 0.415, 0.   ])
    """
    options = weight, clip, base, reduction
    return _binary_cross_entropy(probs, target, options, False, None, None)[0]


@documented
def binary_cross_entropy_grad(
    probs, target, *, grad_output=None, out=None, weight=None, clip=None, base=None, reduction="mean"
):
    """
    Gradient of `binary_cross_entropy` with respect to the probabilities.

    .. math:: g = s w \\, (p - t) / (p \\, (1 - p))

    with s the reduction's factor times `grad_output`; 0 where p is clipped.

    Parameters
    ----------
    <probs of elements>
    <target of elements>
    <grad_output>
    <out>
    <weight of probs>
    <clip of elements>
    <base>
    <reduction of elements>

    Returns
    -------
    ndarray
        Of the shape and dtype of `probs`, each entry within 4 ulp of its own value: -s w / p for t = 1 and
        s w / (1 - p) for t = 0.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    binary_cross_entropy

    Examples
    --------
    >>> import xent
    >>> xent.binary_cross_entropy_grad([0.5, 0.75], [1, 0], reduction="sum")
    array([-2.,  4.])
    """
    options = weight, clip, base, reduction
    return _binary_cross_entropy(probs, target, options, True, out, grad_output)[1]


@documented
def binary_cross_entropy_value_and_grad(
    probs, target, *, out=None, weight=None, clip=None, base=None, reduction="mean"
):
    """
    `binary_cross_entropy` and its gradient from one pass over the probabilities.

    Parameters
    ----------
    <probs of elements>
    <target of elements>
    <out>
    <weight of probs>
    <clip of elements>
    <base>
    <reduction of elements>

    Returns
    -------
    loss : scalar or ndarray
        As `binary_cross_entropy`.
    grad : ndarray
        As `binary_cross_entropy_grad`.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy`; also if `out` does not fit.

    See Also
    --------
    binary_cross_entropy, binary_cross_entropy_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.binary_cross_entropy_value_and_grad([0.5, 0.5], [1, 0])
    >>> print(loss.round(4), grad)
    0.6931 [-1.  1.]
    """
    options = weight, clip, base, reduction
    return _binary_cross_entropy(probs, target, options, True, out, None)


def _binary_cross_entropy(probs, target, options, want_grad, out, grad_output):
    """Check everything, then compute: what the three functions share. Returns (loss, gradient or None)."""
    weight, clip, base, reduction = options
    x = _check.floats(probs, "probs")
    t = _check.target_like(target, x, "probs")
    if weight is not None:
        weight = _check.broadcast(weight, "weight", x, "probs")
    clip = 0.0 if clip is None else _check.inside(clip, "clip", 0.5)
    task = LossCall(x, "probs", t, base, reduction)
    task.prepare(want_grad, out, grad_output, given=target, weight=weight)
    return task.sum_over_elements(_kernels.BINARY_CROSS_ENTROPY, clip, weight)


@documented
def entropy(probs, *, axis=-1, base=None):
    """
    Shannon entropy of probabilities.

    .. math:: -\\sum_c p_c \\log p_c

    Parameters
    ----------
    <probs>
    <axis>
    <base>

    Returns
    -------
    scalar or ndarray
        One entropy per position: float64 for float64 `probs`, else float32, within 4 ulp of its own value. 0
        for no classes.

    Raises
    ------
    TypeError
        If `probs` does not hold real numbers.
    ValueError
        If `axis` is out of bounds or `base` out of range.

    See Also
    --------
    cross_entropy_probs, kl_div

    Notes
    -----
    0 log 0 is 0. A probability that is negative or NaN gives its position NaN. (``scipy.stats.entropy``
    normalises, and ``scipy.special.entr`` gives -inf for negative numbers.)

    References
    ----------
    .. [1] C. E. Shannon, "A Mathematical Theory of Communication", Bell System Technical Journal 27 (1948),
       doi:10.1002/j.1538-7305.1948.tb01338.x.

    Examples
    --------
    >>> import xent
    >>> print(xent.entropy([0.5, 0.25, 0.25], base=2))
    1.5
    """
    x = _check.floats(probs, "probs")
    axis = _check.axis_of(axis, x.ndim)
    task = LossCall(x, "probs", None, base, "none", axis)
    task.prepare(False, None, None)
    return task.losses_of_positions(_kernels.ENTROPY, 0.0)[0]
