"""Divergences between distributions: Kullback-Leibler from log-probabilities, distillation from logits.

Inside this file the class axis is last.
"""

import numpy as np

from ._common import as_float64, classes_last, deliver, result_dtype
from ._reduction import reduce_elements, reduce_positions
from .softmax import log_probabilities, probabilities


def kl_div(log_probs, target, *, axis=-1, log_target=False, base=None, reduction="mean"):
    """sum_c t_c (log t_c - log_probs_c) per position, reduced; `log_target`: target holds log t.

    axis=None: every element is a position of one class.
    """
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


# loss = sum_c t_c (log t_c - x_c) is linear in the log-probabilities x:  g_c = -t_c.


def _kl_div(log_probs, target, axis, log_target, base, reduction, grad_output=None):
    """Return the reduced loss and the gradient."""
    x, t = (as_float64(a) if axis is None else classes_last(a, axis) for a in (log_probs, target))
    with np.errstate(all="ignore"):
        t, log_t = (np.exp(t), t) if log_target else (t, np.log(t))
        terms = np.where((t == 0) & ~np.isnan(x), 0.0, t * (log_t - x))
    if axis is None:
        return reduce_elements(terms, -t, log_probs, base, reduction, grad_output)
    return reduce_positions(terms.sum(axis=-1), -t, log_probs, axis, base, reduction, grad_output)


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
        loss = temperature * (temperature * terms.sum(axis=-1))
    return reduce_positions(loss, temperature * (p - q), student, axis, None, reduction, grad_output)
