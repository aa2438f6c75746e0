"""Losses of probabilities: cross-entropy, KL divergence, distillation, entropy, squared error."""

import math

import numpy as np

from . import _check, _kernels
from ._call import call
from ._docs import documented
from ._threads import threads_for

_CLIP = """clip : float, optional
        e in (0, {below}): probabilities are bounded to [e, {above}] before the logarithm."""
_BASE = """base : float, optional
        Base of the logarithm, greater than 0 and not 1: 2 for bits, 10 for dits; None for nats."""
_ELEMENTS = """reduction : {"mean", "sum", "none", "mean_valid", "mean_full", "mean_batch"}, optional
        "none": one loss per element. "sum": their sum. "mean", "mean_valid" and "mean_full": over the number
        of elements. "mean_batch": over the length of the first axis. A mean over nothing is 0."""
_POSITIONS = """reduction : {"mean", "sum", "none", "mean_valid", "mean_full", "mean_batch"}, optional
        "none": one loss per position. "sum": their sum. "mean", "mean_valid" and "mean_full": over the number
        of positions. "mean_batch": over the length of the first axis. A mean over nothing is 0."""
_AXIS = """axis : int, optional
        The class axis. Every other axis is a position."""

_documented = documented(
    ce_target="""target : array_like
        Labels: integers of any integer dtype, of the shape of the positions, in ``[0, C)``. Or probabilities:
        floats, of the shape of `probs`; they are not normalised.""",
    ce_options="\n    ".join(
        [_AXIS, _CLIP.replace("{below}", "1").replace("{above}", "1"), _BASE, _POSITIONS]
    ),
    bce_target="""target : array_like
        Probabilities or labels 0 and 1, of the shape of `probs`. They are converted to the dtype of `probs`
        (float32 if that has 16 bits).""",
    bce_options="\n    ".join(
        [
            "weight : array_like of float, optional\n        Factors of the losses, broadcast with `probs`.",
            _CLIP.replace("{below}", "0.5").replace("{above}", "1 - e"),
            _BASE,
            _ELEMENTS,
        ]
    ),
    kl_target="""target : array_like of float
        Probabilities, or with `log_target` their logarithms in nats, of the shape of `log_probs`.""",
    kl_options="\n    ".join(
        [_AXIS, "log_target : bool, optional\n        Whether `target` holds logarithms.", _BASE, _POSITIONS]
    ),
    teacher="""teacher_logits : array_like of float
        Logits of the teacher, of the shape of `student_logits`; no gradient is taken by them.""",
    kd_options="\n    ".join(
        [_AXIS, "temperature : float, optional\n        T, greater than 0: divides both logits.", _POSITIONS]
    ),
    mse_target="""target : array_like of float
        Of the shape of `pred`, and converted to its dtype (float32 if that has 16 bits).""",
    mse_options=_ELEMENTS,
)


# ---- cross-entropy ----


@_documented
def cross_entropy_probs(probs, target, *, axis=-1, clip=None, base=None, reduction="mean"):
    """
    Cross-entropy between a target and probabilities.

    .. math:: -\\log p_y  \\quad\\text{or}\\quad  -\\sum_c t_c \\log p_c

    for an index target y or a probability target t.

    Parameters
    ----------
    probs : array_like of float, shape (..., C, ...)
        Probabilities, such as `softmax` returns. They are not normalised. Integers and bools become float64.
    <ce_target>
    <ce_options>

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


@_documented
def cross_entropy_probs_grad(
    probs, target, *, grad_output=None, out=None, axis=-1, clip=None, base=None, reduction="mean"
):
    """
    Gradient of `cross_entropy_probs` with respect to the probabilities.

    .. math:: g_c = -s \\, t_c / p_c

    with s the reduction's factor times `grad_output`; 0 where p_c is clipped.

    Parameters
    ----------
    probs : array_like of float, shape (..., C, ...)
        Probabilities. Integers and bools become float64.
    <ce_target>
    grad_output : array_like of float, optional
        Upstream gradient, of the shape of the loss; None means 1.
    out : ndarray, optional
        Where to put the gradient: the shape of `probs` and the dtype of the result. It may be `probs` itself.
    <ce_options>

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


@_documented
def cross_entropy_probs_value_and_grad(
    probs, target, *, out=None, axis=-1, clip=None, base=None, reduction="mean"
):
    """
    `cross_entropy_probs` and its gradient from one pass over the probabilities.

    Parameters
    ----------
    probs : array_like of float, shape (..., C, ...)
        Probabilities. Integers and bools become float64.
    <ce_target>
    out : ndarray, optional
        Where to put the gradient, as in `cross_entropy_probs_grad`.
    <ce_options>

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
    task = _Task(x, "probs", labels if t is None else t, base, reduction, axis)
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


@_documented
def binary_cross_entropy(probs, target, *, weight=None, clip=None, base=None, reduction="mean"):
    """
    Binary cross-entropy between targets and probabilities, elementwise.

    .. math:: -w \\, (t \\log p + (1 - t) \\log(1 - p))

    Parameters
    ----------
    probs : array_like of float
        Probabilities, such as `sigmoid` returns. Integers and bools become float64.
    <bce_target>
    <bce_options>

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


@_documented
def binary_cross_entropy_grad(
    probs, target, *, grad_output=None, out=None, weight=None, clip=None, base=None, reduction="mean"
):
    """
    Gradient of `binary_cross_entropy` with respect to the probabilities.

    .. math:: g = s w \\, (p - t) / (p \\, (1 - p))

    with s the reduction's factor times `grad_output`; 0 where p is clipped.

    Parameters
    ----------
    probs : array_like of float
        Probabilities. Integers and bools become float64.
    <bce_target>
    grad_output : array_like of float, optional
        Upstream gradient, of the shape of the loss; None means 1.
    out : ndarray, optional
        Where to put the gradient: the shape of `probs` and the dtype of the result. It may be `probs` itself.
    <bce_options>

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


@_documented
def binary_cross_entropy_value_and_grad(
    probs, target, *, out=None, weight=None, clip=None, base=None, reduction="mean"
):
    """
    `binary_cross_entropy` and its gradient from one pass over the probabilities.

    Parameters
    ----------
    probs : array_like of float
        Probabilities. Integers and bools become float64.
    <bce_target>
    out : ndarray, optional
        Where to put the gradient, as in `binary_cross_entropy_grad`.
    <bce_options>

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
    task = _Task(x, "probs", t, base, reduction)
    task.prepare(want_grad, out, grad_output, given=target, weight=weight)
    return task.sum_over_elements(_kernels.BINARY_CROSS_ENTROPY, clip, weight)


# ---- Kullback-Leibler divergence ----


@_documented
def kl_div(log_probs, target, *, axis=-1, log_target=False, base=None, reduction="mean"):
    """
    Kullback-Leibler divergence of probabilities from log-probabilities.

    .. math:: \\sum_c t_c \\, (\\log t_c - \\mathrm{log\\_probs}_c)

    Parameters
    ----------
    log_probs : array_like of float, shape (..., C, ...)
        Log-probabilities in nats, such as `log_softmax` returns. Integers and bools become float64.
    <kl_target>
    <kl_options>

    Returns
    -------
    scalar or ndarray
        The divergence: float64 for float64 `log_probs`, else float32. The terms may cancel, and do where the
        distributions are nearly equal: it is within 4 ulp of the sum of t_c (abs(log t_c) +
        abs(log_probs_c)). `distillation_loss` avoids that, from logits.

    Raises
    ------
    TypeError
        If `log_probs` or `target` do not hold real numbers.
    ValueError
        If a shape does not fit or an option is outside its range.

    See Also
    --------
    kl_div_grad, kl_div_value_and_grad, distillation_loss, cross_entropy_probs, entropy

    Notes
    -----
    Entries with t = 0 count for nothing. "mean" is over the positions, which PyTorch calls "batchmean" (for
    matrices), while its "mean" is over the elements. A target that is NaN or negative gives its position NaN.

    References
    ----------
    .. [1] S. Kullback, R. A. Leibler, "On Information and Sufficiency", Annals of Mathematical Statistics 22
       (1951), doi:10.1214/aoms/1177729694.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> print(xent.kl_div(np.log([[0.5, 0.5]]), [[1.0, 0.0]], base=2))
    1.0
    """
    options = axis, log_target, base, reduction
    return _kl_div(log_probs, target, options, False, None, None)[0]


@_documented
def kl_div_grad(
    log_probs,
    target,
    *,
    grad_output=None,
    out=None,
    axis=-1,
    log_target=False,
    base=None,
    reduction="mean",
):
    """
    Gradient of `kl_div` with respect to the log-probabilities: ``-t s``.

    s is the reduction's factor times `grad_output`, t the target as probabilities.

    Parameters
    ----------
    log_probs : array_like of float, shape (..., C, ...)
        Log-probabilities in nats. Integers and bools become float64.
    <kl_target>
    grad_output : array_like of float, optional
        Upstream gradient, of the shape of the loss; None means 1.
    out : ndarray, optional
        Where to put the gradient: the shape of `log_probs` and the dtype of the result. It may be `log_probs`
        itself.
    <kl_options>

    Returns
    -------
    ndarray
        Of the shape and dtype of `log_probs`, each entry within 4 ulp of its own value.

    Raises
    ------
    TypeError, ValueError
        As `kl_div`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    kl_div

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> xent.kl_div_grad(np.log([[0.5, 0.5]]), [[0.75, 0.25]])
    array([[-0.75, -0.25]])
    """
    options = axis, log_target, base, reduction
    return _kl_div(log_probs, target, options, True, out, grad_output)[1]


@_documented
def kl_div_value_and_grad(
    log_probs, target, *, out=None, axis=-1, log_target=False, base=None, reduction="mean"
):
    """
    `kl_div` and its gradient from one pass over the log-probabilities.

    Parameters
    ----------
    log_probs : array_like of float, shape (..., C, ...)
        Log-probabilities in nats. Integers and bools become float64.
    <kl_target>
    out : ndarray, optional
        Where to put the gradient, as in `kl_div_grad`.
    <kl_options>

    Returns
    -------
    loss : scalar or ndarray
        As `kl_div`.
    grad : ndarray
        As `kl_div_grad`.

    Raises
    ------
    TypeError, ValueError
        As `kl_div`; also if `out` does not fit.

    See Also
    --------
    kl_div, kl_div_grad

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> loss, grad = xent.kl_div_value_and_grad(np.log([[0.5, 0.5]]), [[1.0, 0.0]])
    >>> print(loss.round(4), grad[0, 0])
    0.6931 -1.0
    """
    options = axis, log_target, base, reduction
    return _kl_div(log_probs, target, options, True, out, None)


def _kl_div(log_probs, target, options, want_grad, out, grad_output):
    """Check everything, then compute: what the three functions share. Returns (loss, gradient or None)."""
    axis, log_target, base, reduction = options
    x = _check.floats(log_probs, "log_probs")
    axis = _check.axis_of(axis, x.ndim)
    t = _check.target_like(target, x, "log_probs")
    loss = _kernels.KL_DIV_LOG if _check.flag(log_target, "log_target") else _kernels.KL_DIV
    task = _Task(x, "log_probs", t, base, reduction, axis)
    task.prepare(want_grad, out, grad_output, given=target)
    return task.sum_over_classes(loss, 0.0)


# ---- distillation ----


@_documented
def distillation_loss(student_logits, teacher_logits, *, axis=-1, temperature=1.0, reduction="mean"):
    """
    Divergence of a student's softmax from a teacher's, both at a temperature.

    .. math:: T^2 \\sum_c q_c \\, (\\log q_c - \\log p_c), \\qquad
        p = \\mathrm{softmax}(\\mathrm{student} / T), \\quad q = \\mathrm{softmax}(\\mathrm{teacher} / T)

    Parameters
    ----------
    student_logits : array_like of float, shape (..., C, ...)
        Logits of the student. Integers and bools become float64.
    <teacher>
    <kd_options>

    Returns
    -------
    scalar or ndarray
        The loss in nats: float64 for float64 `student_logits`, else float32. Never negative, and accurate to
        the last digits also where the student is nearly the teacher and the loss tiny. With a temperature
        that is no power of two the quotients are rounded.

    Raises
    ------
    TypeError
        If the logits do not hold real numbers.
    ValueError
        If a shape does not fit, there is no class, or an option is outside its range.

    See Also
    --------
    distillation_loss_grad, distillation_loss_value_and_grad, kl_div, cross_entropy

    Notes
    -----
    The factor T^2 keeps the gradient's size independent of the temperature [1]_. The sum is taken of
    ``q_c (d_c + exp(-d_c) - 1)``, ``d_c = log q_c - log p_c``, which is the same as both distributions add up
    to 1: no term is negative, and nothing cancels. Where both logits are -inf, both probabilities are 0, and
    so is the gradient.

    References
    ----------
    .. [1] G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015,
       arXiv:1503.02531, doi:10.48550/arXiv.1503.02531.

    Examples
    --------
    >>> import xent
    >>> print(xent.distillation_loss([[1.0, 2.0, 3.0]], [[1.0, 2.0, 4.0]], temperature=2.0).round(4))
    0.1207
    """
    options = axis, temperature, reduction
    return _distillation(student_logits, teacher_logits, options, False, None, None)[0]


@_documented
def distillation_loss_grad(
    student_logits,
    teacher_logits,
    *,
    grad_output=None,
    out=None,
    axis=-1,
    temperature=1.0,
    reduction="mean",
):
    """
    Gradient of `distillation_loss` with respect to the student's logits.

    .. math:: g_c = s \\, T (p_c - q_c)

    with s the reduction's factor times `grad_output`.

    Parameters
    ----------
    student_logits : array_like of float, shape (..., C, ...)
        Logits of the student. Integers and bools become float64.
    <teacher>
    grad_output : array_like of float, optional
        Upstream gradient, of the shape of the loss; None means 1.
    out : ndarray, optional
        Where to put the gradient: the shape of `student_logits` and the dtype of the result. It may be
        `student_logits` itself.
    <kd_options>

    Returns
    -------
    ndarray
        Of the shape and dtype of `student_logits`; accurate also where the two probabilities are nearly
        equal.

    Raises
    ------
    TypeError, ValueError
        As `distillation_loss`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    distillation_loss

    Examples
    --------
    >>> import xent
    >>> xent.distillation_loss_grad([[1.0, 2.0, 3.0]], [[1.0, 2.0, 4.0]]).round(3)
    array([[ 0.048,  0.131, -0.179]])
    """
    options = axis, temperature, reduction
    return _distillation(student_logits, teacher_logits, options, True, out, grad_output)[1]


@_documented
def distillation_loss_value_and_grad(
    student_logits, teacher_logits, *, out=None, axis=-1, temperature=1.0, reduction="mean"
):
    """
    `distillation_loss` and its gradient from one pass over both logits.

    Parameters
    ----------
    student_logits : array_like of float, shape (..., C, ...)
        Logits of the student. Integers and bools become float64.
    <teacher>
    out : ndarray, optional
        Where to put the gradient, as in `distillation_loss_grad`.
    <kd_options>

    Returns
    -------
    loss : scalar or ndarray
        As `distillation_loss`.
    grad : ndarray
        As `distillation_loss_grad`.

    Raises
    ------
    TypeError, ValueError
        As `distillation_loss`; also if `out` does not fit.

    See Also
    --------
    distillation_loss, distillation_loss_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.distillation_loss_value_and_grad([[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]])
    >>> print(loss, grad)
    0.0 [[0. 0. 0.]]
    """
    options = axis, temperature, reduction
    return _distillation(student_logits, teacher_logits, options, True, out, None)


# Beyond these temperatures float32 quotients could overflow or vanish where their differences do not.
_PLAIN_TEMPERATURES = 2.0**-10, 2.0**10


def _distillation(student, teacher, options, want_grad, out, grad_output):
    """Check everything, then compute: what the three functions share. Returns (loss, gradient or None)."""
    axis, temperature, reduction = options
    x = _check.floats(student, "student_logits")
    axis = _check.axis_of(axis, x.ndim)
    t = _check.target_like(teacher, x, "student_logits", "teacher_logits")
    if x.shape[axis] == 0 and math.prod(x.shape[:axis] + x.shape[axis + 1 :]):
        raise ValueError(f"student_logits must have at least one class, got shape {x.shape}")
    temperature = _check.real(temperature, "temperature", low=0.0, open_low=True)
    task = _Task(x, "student_logits", t, None, reduction, axis)
    task.prepare(want_grad, out, grad_output, given=teacher, target_name="teacher_logits")
    return task.distil(temperature)


# ---- entropy ----


def entropy(probs, *, axis=-1, base=None):
    """
    Shannon entropy of probabilities.

    .. math:: -\\sum_c p_c \\log p_c

    Parameters
    ----------
    probs : array_like of float, shape (..., C, ...)
        Probabilities. They are not normalised. Integers and bools become float64.
    axis : int, optional
        The class axis. Every other axis is a position.
    base : float, optional
        Base of the logarithm, greater than 0 and not 1: 2 for bits, 10 for dits; None for nats.

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
    task = _Task(x, "probs", None, base, "none", axis)
    task.prepare(False, None, None)
    return task.losses_of_positions(_kernels.ENTROPY, 0.0)[0]


# ---- squared error ----


@_documented
def mse_loss(pred, target, *, reduction="mean"):
    """
    Squared error, elementwise.

    .. math:: (\\mathrm{pred} - \\mathrm{target})^2

    Parameters
    ----------
    pred : array_like of float
        Predictions. Integers and bools become float64.
    <mse_target>
    <mse_options>

    Returns
    -------
    scalar or ndarray
        The loss: float64 for float64 `pred`, else float32, within 4 ulp of its own value. Sums are
        accumulated in float64.

    Raises
    ------
    TypeError
        If `pred` or `target` do not hold real numbers.
    ValueError
        If the shapes differ or `reduction` does not exist.

    See Also
    --------
    mse_loss_grad, mse_loss_value_and_grad

    References
    ----------
    .. [1] G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review
       78 (1950), doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.

    Examples
    --------
    >>> import xent
    >>> print(xent.mse_loss([0.0, 0.5, 2.0], [0.0, 1.0, 1.0], reduction="sum"))
    1.25
    """
    return _mse(pred, target, reduction, False, None, None)[0]


@_documented
def mse_loss_grad(pred, target, *, grad_output=None, out=None, reduction="mean"):
    """
    Gradient of `mse_loss` with respect to the predictions: ``2 (pred - target) s``.

    s is the reduction's factor times `grad_output`.

    Parameters
    ----------
    pred : array_like of float
        Predictions. Integers and bools become float64.
    <mse_target>
    grad_output : array_like of float, optional
        Upstream gradient, of the shape of the loss; None means 1.
    out : ndarray, optional
        Where to put the gradient: the shape of `pred` and the dtype of the result. It may be `pred` itself.
    <mse_options>

    Returns
    -------
    ndarray
        Of the shape and dtype of `pred`, each entry within 4 ulp of its own value.

    Raises
    ------
    TypeError, ValueError
        As `mse_loss`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    mse_loss

    Examples
    --------
    >>> import xent
    >>> xent.mse_loss_grad([0.0, 0.5, 2.0], [0.0, 1.0, 1.0], reduction="sum")
    array([ 0., -1.,  2.])
    """
    return _mse(pred, target, reduction, True, out, grad_output)[1]


@_documented
def mse_loss_value_and_grad(pred, target, *, out=None, reduction="mean"):
    """
    `mse_loss` and its gradient from one pass over the predictions.

    Parameters
    ----------
    pred : array_like of float
        Predictions. Integers and bools become float64.
    <mse_target>
    out : ndarray, optional
        Where to put the gradient, as in `mse_loss_grad`.
    <mse_options>

    Returns
    -------
    loss : scalar or ndarray
        As `mse_loss`.
    grad : ndarray
        As `mse_loss_grad`.

    Raises
    ------
    TypeError, ValueError
        As `mse_loss`; also if `out` does not fit.

    See Also
    --------
    mse_loss, mse_loss_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.mse_loss_value_and_grad([0.0, 3.0], [0.0, 1.0])
    >>> print(loss, grad)
    2.0 [0. 2.]
    """
    return _mse(pred, target, reduction, True, out, None)


def _mse(pred, target, reduction, want_grad, out, grad_output):
    """Check everything, then compute: what the three functions share. Returns (loss, gradient or None)."""
    x = _check.floats(pred, "pred")
    t = _check.target_like(target, x, "pred")
    task = _Task(x, "pred", t, None, reduction)
    task.prepare(want_grad, out, grad_output, given=target)
    return task.sum_over_elements(_kernels.MSE, 0.0)


# ---- what they share ----


class _Task:
    """One call: its arrays, checked, and what becomes of the losses.

    `axis` is the class axis, None for losses of elements. Beside 16-bit data, a target of another dtype is
    float32: then a float32 copy of the data is worked on, and the gradient rounded in the end.
    """

    def __init__(self, x, name, target, base, reduction, axis=None):
        self.x, self.name, self.target, self.axis = x, name, target, axis
        self.unit = 1.0 if base is None else math.log(_check.base(base))
        self.shape = x.shape if axis is None else x.shape[:axis] + x.shape[axis + 1 :]
        self.divisor = _check.mean_divisor(reduction, self.shape, x.shape, axis)
        self.dtype = _check.loss_dtype(x.dtype)

    def prepare(self, want_grad, out, grad_output, given=None, weight=None, target_name="target"):
        """Check grad_output and out, and make room for the results. `given` is the target as it came."""
        self.losses = np.empty(self.shape, self.dtype) if self.divisor is None else None
        dtype = self.dtype if self.axis is None else np.dtype(np.float64)
        factor, self.upstream = _check.upstream(
            grad_output, self.shape if self.divisor is None else (), dtype
        )
        self.factor = factor / (self.unit * (self.divisor or 1.0))
        self.out = None
        if want_grad:
            given = given if isinstance(given, np.ndarray) else self.target
            inputs = [(self.x, self.name), (given, target_name), (weight, "weight")]
            self.out = _check.output_like(out, [*inputs, (self.upstream, "grad_output")])

    def upstream_or_one(self):
        return 1.0 if self.upstream is None else self.upstream

    def result(self, total):
        """Return (loss, gradient) from the sum of the losses in nats."""
        if self.divisor is None:
            return self.losses[()], self.out
        if self.divisor == 0:  # a mean over nothing
            if self.out is not None:
                self.out[...] = 0
            return self.dtype.type(0), self.out
        with np.errstate(over="ignore", under="ignore"):
            return np.float64(total / self.unit / self.divisor).astype(self.dtype), self.out

    def _widened(self):
        """Return the data and the gradient as the kernels take them: of the dtype of the target."""
        if self.target is None or self.x.dtype == self.target.dtype:
            return self.x, self.out
        x = self.x.astype(self.target.dtype)
        return x, None if self.out is None else x

    def _narrow(self, out):
        if out is not None and out is not self.out:
            self.out[...] = _check.narrowed(out, self.out.dtype)

    def sum_over_elements(self, loss, clip, weight=None):
        """Return (loss, gradient) of a loss of elements, or one whose sum is asked for."""
        value = self.losses is not None or self.out is None or self.upstream is None
        x, out = self._widened()
        arrays = [x, self.target, weight, self.upstream, out, self.losses]
        if not x.flags.c_contiguous:
            order = sorted(range(x.ndim), key=lambda k: -abs(x.strides[k]))
            arrays = [None if a is None else a.transpose(order) for a in arrays]
            if self.losses is not None:
                arrays[5] = np.empty(arrays[5].shape, self.dtype)
        total = call(
            _kernels.element_losses,
            arrays[:4],
            (arrays[4],),
            arrays[5],
            loss,
            self.unit,
            clip,
            self.factor,
            value,
            threads_for(x.size),
        )
        if arrays[5] is not None and arrays[5].shape and arrays[5] is not self.losses:
            self.losses = arrays[5].transpose(np.argsort(order))
        self._narrow(out)
        return self.result(total)

    def sum_over_classes(self, loss, clip):
        """Return (loss, gradient) of a sum over classes; over all elements at once, if they are reduced."""
        if self.losses is None:
            return self.sum_over_elements(loss, clip)
        return self.losses_of_positions(loss, clip)

    def losses_of_positions(self, loss, clip):
        x, out = self._widened()
        if x.size == 0:
            self.losses[...] = 0
            return self.result(0.0)
        call(
            _kernels.position_losses,
            (x, self.target),
            (out,),
            self.axis,
            self.losses,
            self.upstream,
            loss,
            self.unit,
            clip,
            self.factor,
            threads_for(x.size),
        )
        self._narrow(out)
        return self.result(0.0)

    def distil(self, temperature):
        """Return (loss, gradient) of the distillation loss."""
        x, out = self._widened()
        teacher, gradient_scale = self.target, self.factor * temperature
        squared = temperature * temperature  # infinite, where a power would raise
        if x.size == 0:
            return self.result(0.0)
        if not _PLAIN_TEMPERATURES[0] <= temperature <= _PLAIN_TEMPERATURES[1]:
            x, teacher = _cooled(x, self.axis, temperature), _cooled(teacher, self.axis, temperature)
            out, temperature = None if out is None else x, 1.0
        losses = self.losses if self.losses is None or x.dtype != np.float64 else np.empty(self.shape)
        total = call(
            _kernels.distillation,
            (x, teacher),
            (out,),
            self.axis,
            losses,
            self.upstream,
            temperature,
            squared,
            gradient_scale,
            threads_for(x.size),
        )
        self._narrow(out)
        if losses is not self.losses:
            self.losses = _check.narrowed(losses, self.dtype)
        return self.result(total)


def _cooled(x, axis, temperature):
    """Return (x - max x) / temperature in float64, in which no temperature overflows."""
    with np.errstate(all="ignore"):
        scaled = x.astype(np.float64)
        top = scaled.max(axis=axis, keepdims=True)
        return (scaled - np.where(np.isfinite(top), top, 0.0)) / temperature
