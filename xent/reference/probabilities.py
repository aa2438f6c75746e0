"""Losses of probabilities: cross-entropy, Kullback-Leibler divergence, distillation, entropy, squared error.

Inside this file the class axis is last.
"""

import math

import numpy as np

from ._common import as_float64, classes_last, deliver, is_sixteen_bits, loss_dtype, result_dtype
from .softmax import log_probabilities, probabilities


def cross_entropy_probs(probs, target, *, axis=-1, clip=None, base=None, reduction="mean"):
    """-sum_c t_c log p_c per position, reduced; t is one-hot(target) for index targets. 0 log 0 is 0.

    With clip = e the probabilities are bounded to [e, 1]; with a base the loss is divided by its logarithm.
    """
    return _cross_entropy_probs(probs, target, axis, clip, base, reduction)[0]


def cross_entropy_probs_grad(
    probs, target, *, grad_output=None, out=None, axis=-1, clip=None, base=None, reduction="mean"
):
    """Gradient -t_c / p_c of `cross_entropy_probs` (0 where clipped), times `grad_output`."""
    grad = _cross_entropy_probs(probs, target, axis, clip, base, reduction, grad_output)[1]
    return deliver(grad, out, result_dtype(probs))


def cross_entropy_probs_value_and_grad(
    probs, target, *, out=None, axis=-1, clip=None, base=None, reduction="mean"
):
    """`cross_entropy_probs` and `cross_entropy_probs_grad` of the same arguments, as a pair."""
    loss, grad = _cross_entropy_probs(probs, target, axis, clip, base, reduction)
    return loss, deliver(grad, out, result_dtype(probs))


def binary_cross_entropy(probs, target, *, weight=None, clip=None, base=None, reduction="mean"):
    """-w (t log p + (1 - t) log(1 - p)) of each element, reduced.

    With clip = e the probabilities are bounded to [e, 1 - e].
    """
    return _binary_cross_entropy(probs, target, weight, clip, base, reduction)[0]


def binary_cross_entropy_grad(
    probs, target, *, grad_output=None, out=None, weight=None, clip=None, base=None, reduction="mean"
):
    """Gradient w (p - t) / (p (1 - p)) of `binary_cross_entropy` (0 where clipped), times `grad_output`."""
    grad = _binary_cross_entropy(probs, target, weight, clip, base, reduction, grad_output)[1]
    return deliver(grad, out, result_dtype(probs))


def binary_cross_entropy_value_and_grad(
    probs, target, *, out=None, weight=None, clip=None, base=None, reduction="mean"
):
    """`binary_cross_entropy` and `binary_cross_entropy_grad` of the same arguments, as a pair."""
    loss, grad = _binary_cross_entropy(probs, target, weight, clip, base, reduction)
    return loss, deliver(grad, out, result_dtype(probs))


def kl_div(log_probs, target, *, axis=-1, log_target=False, base=None, reduction="mean"):
    """sum_c t_c (log t_c - log_probs_c) per position, reduced; `log_target`: target holds log t."""
    return _kl_div(log_probs, target, axis, log_target, base, reduction)[0]


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
    """Gradient -t_c of `kl_div` by the log-probabilities, times `grad_output`."""
    grad = _kl_div(log_probs, target, axis, log_target, base, reduction, grad_output)[1]
    return deliver(grad, out, result_dtype(log_probs))


def kl_div_value_and_grad(
    log_probs, target, *, out=None, axis=-1, log_target=False, base=None, reduction="mean"
):
    """`kl_div` and `kl_div_grad` of the same arguments, as a pair."""
    loss, grad = _kl_div(log_probs, target, axis, log_target, base, reduction)
    return loss, deliver(grad, out, result_dtype(log_probs))


def distillation_loss(student_logits, teacher_logits, *, axis=-1, temperature=1.0, reduction="mean"):
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) per position, reduced."""
    return _distillation(student_logits, teacher_logits, axis, temperature, reduction)[0]


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
    """Gradient T (p_student - p_teacher) of `distillation_loss` by the student, times `grad_output`."""
    grad = _distillation(student_logits, teacher_logits, axis, temperature, reduction, grad_output)[1]
    return deliver(grad, out, result_dtype(student_logits))


def distillation_loss_value_and_grad(
    student_logits, teacher_logits, *, out=None, axis=-1, temperature=1.0, reduction="mean"
):
    """`distillation_loss` and `distillation_loss_grad` of the same arguments, as a pair."""
    loss, grad = _distillation(student_logits, teacher_logits, axis, temperature, reduction)
    return loss, deliver(grad, out, result_dtype(student_logits))


def entropy(probs, *, axis=-1, base=None):
    """-sum_c p_c log p_c per position; 0 log 0 is 0."""
    p = classes_last(probs, axis)
    with np.errstate(all="ignore"):
        result = (0.0 - _times(p, np.log(p)).sum(axis=-1)) / _unit(base)
    return deliver(np.asarray(result), dtype=loss_dtype(probs))


def mse_loss(pred, target, *, reduction="mean"):
    """(pred - target)^2 of each element, reduced."""
    return _mse(pred, target, reduction)[0]


def mse_loss_grad(pred, target, *, grad_output=None, out=None, reduction="mean"):
    """Gradient 2 (pred - target) of `mse_loss`, times `grad_output`."""
    return deliver(_mse(pred, target, reduction, grad_output)[1], out, result_dtype(pred))


def mse_loss_value_and_grad(pred, target, *, out=None, reduction="mean"):
    """`mse_loss` and `mse_loss_grad` of the same arguments, as a pair."""
    loss, grad = _mse(pred, target, reduction)
    return loss, deliver(grad, out, result_dtype(pred))


# loss = -sum_c t_c log clip(p_c, e, 1) / ln b:  g_c = -t_c / (p_c ln b) for p_c in [e, 1], else 0.


def _cross_entropy_probs(probs, target, axis, clip, base, reduction, grad_output=None):
    """Return the reduced loss and the gradient."""
    p = classes_last(probs, axis)
    target = np.asarray(target)
    floating = target.dtype.kind == "f" or is_sixteen_bits(target.dtype)
    if floating and target.shape == np.shape(probs):
        t = classes_last(target, axis)
        used = np.ones(t.shape, bool)
    else:
        if target.size and (target.min() < 0 or target.max() >= p.shape[-1]):
            raise ValueError(f"a label of target is outside 0 <= label < {p.shape[-1]}")
        used = np.arange(p.shape[-1]) == target[..., None]
        t = used.astype(np.float64)
    inside = np.ones(p.shape, bool) if clip is None else ~((p < clip) | (p > 1.0))
    with np.errstate(all="ignore"):
        log_p = np.log(p if clip is None else np.clip(p, clip, 1.0))
        loss = 0.0 - np.where(used, _times(t, log_p), 0.0).sum(axis=-1)
        grad = np.where(inside & used & ((t != 0) | np.isnan(p)), -t / (p + 0.0), 0.0)
    return _reduce_positions(loss, grad, probs, axis, base, reduction, grad_output)


# With p = clip(x, e, 1 - e):
#
#     loss = -w [t log p + (1 - t) log(1 - p)]
#     g    = w [-t / p + (1 - t) / (1 - p)] = w (p - t) / (p (1 - p))      for x in [e, 1 - e], else 0
#
# For t = 1 that is -w / p, for t = 0 it is w / (1 - p), also at p = 0 and p = 1.


def _binary_cross_entropy(probs, target, weight, clip, base, reduction, grad_output=None):
    """Return the reduced loss and the gradient."""
    p, t = as_float64(probs), as_float64(target)
    w = np.broadcast_to(1.0 if weight is None else as_float64(weight), p.shape)
    e = -np.inf if clip is None else clip
    below, above = p < e, 1.0 - p < e
    with np.errstate(all="ignore"):
        log_p = np.where(below, np.log(e), np.where(above, np.log1p(-e), np.log(p)))
        log_q = np.where(above, np.log(e), np.where(below, np.log1p(-e), np.log1p(-p)))
        loss = 0.0 - _times(w, _times(t, log_p) + _times(1.0 - t, log_q))
        grad = (p - t) / (p * (1.0 - p))
        grad = np.where(t == 1, -1.0 / (p + 0.0), np.where(t == 0, 1.0 / (1.0 - p), grad))
        grad = _times(w, np.where(below | above, 0.0, grad))
    return _reduce_elements(loss, grad, probs, base, reduction, grad_output)


# loss = sum_c t_c (log t_c - x_c) is linear in the log-probabilities x:  g_c = -t_c.


def _kl_div(log_probs, target, axis, log_target, base, reduction, grad_output=None):
    """Return the reduced loss and the gradient."""
    x, t = classes_last(log_probs, axis), classes_last(target, axis)
    with np.errstate(all="ignore"):
        t, log_t = (np.exp(t), t) if log_target else (t, np.log(t))
        terms = np.where((t == 0) & ~np.isnan(x), 0.0, t * (log_t - x))
    return _reduce_positions(terms.sum(axis=-1), -t, log_probs, axis, base, reduction, grad_output)


# With p = softmax(student / T) and q = softmax(teacher / T), dlog p_k / dx_c = ([k = c] - p_c) / T:
#
#     loss = T^2 sum_k q_k (log q_k - log p_k)
#     g_c  = -T sum_k q_k ([k = c] - p_c) = T (p_c - q_c)


def _distillation(student, teacher, axis, temperature, reduction, grad_output=None):
    """Return the reduced loss and the gradient."""
    s, t = classes_last(student, axis), classes_last(teacher, axis)
    temperature = float(temperature)
    p, q = probabilities(s, temperature)[0], probabilities(t, temperature)[0]
    with np.errstate(all="ignore"):
        difference = log_probabilities(t, temperature) - log_probabilities(s, temperature)
        terms = np.where((q == 0) & ~np.isnan(p), 0.0, q * difference)
        loss = temperature**2 * terms.sum(axis=-1)
    return _reduce_positions(loss, temperature * (p - q), student, axis, None, reduction, grad_output)


# loss = (x - t)^2:  g = 2 (x - t).


def _mse(pred, target, reduction, grad_output=None):
    """Return the reduced loss and the gradient."""
    with np.errstate(all="ignore"):
        difference = as_float64(pred) - as_float64(target)
        loss, grad = difference**2, 2.0 * difference
    return _reduce_elements(loss, grad, pred, None, reduction, grad_output)


def _times(a, b):
    """Return a * b with 0 * infinity = 0; 0 * NaN stays NaN."""
    return np.where((a == 0) & np.isinf(b), 0.0, a * b)


def _unit(base):
    """Return the nats of one unit of the result."""
    return 1.0 if base is None else math.log(base)


def _divisor(reduction, count, shape, has_batch):
    """Return what the sum of the losses is divided by."""
    if reduction in ("none", "sum"):
        return 1.0
    if reduction in ("mean", "mean_valid", "mean_full"):
        return count
    if reduction != "mean_batch":
        raise ValueError(f"reduction is {reduction!r}")
    if not has_batch:
        raise ValueError("reduction 'mean_batch' needs a batch axis in front")
    return shape[0]


def _reduce(loss, grad, upstream, divisor, dtype, reduction):
    """Reduce the loss and scale the gradient; a divisor of 0 means a mean over nothing: 0 with gradient 0."""
    with np.errstate(all="ignore"):
        if reduction != "none":
            loss = loss.sum() / divisor if divisor else np.zeros(())
        grad = grad * upstream / divisor if divisor else np.zeros(grad.shape)
    return deliver(np.asarray(loss), dtype=dtype), np.asarray(grad)


def _reduce_elements(loss, grad, x, base, reduction, grad_output):
    upstream = 1.0 if grad_output is None else as_float64(grad_output)
    divisor = _divisor(reduction, loss.size, loss.shape, loss.ndim > 0)
    unit = _unit(base)
    return _reduce(loss / unit, grad / unit, upstream, divisor, loss_dtype(x), reduction)


def _reduce_positions(loss, grad, x, axis, base, reduction, grad_output):
    upstream = np.asarray(1.0 if grad_output is None else as_float64(grad_output))
    if upstream.ndim:
        upstream = upstream[..., None]
    divisor = _divisor(reduction, loss.size, np.shape(x), axis % np.ndim(x) != 0)
    unit = _unit(base)
    loss, grad = _reduce(loss / unit, grad / unit, upstream, divisor, loss_dtype(x), reduction)
    return loss, np.moveaxis(grad, -1, axis)
