"""Distillation from k probabilities of a teacher. The class axis is the last."""

import numpy as np

from ._common import as_float64, deliver, plain, result_dtype
from ._reduction import reduce_positions
from .softmax import log_probabilities, logsumexp, probabilities


def sparse_distillation_loss(
    student_logits,
    teacher_ids,
    teacher_log_probs,
    *,
    temperature=1.0,
    tail="bucket",
    sample_weight=None,
    reduction="mean",
):
    """Divergence of softmax(student / T) from the k log-probabilities of a teacher per position, reduced."""
    return _sparse(
        student_logits, teacher_ids, teacher_log_probs, temperature, tail, sample_weight, reduction
    )[0]


def sparse_distillation_loss_grad(
    student_logits,
    teacher_ids,
    teacher_log_probs,
    *,
    grad_output=None,
    out=None,
    temperature=1.0,
    tail="bucket",
    sample_weight=None,
    reduction="mean",
):
    """Gradient of `sparse_distillation_loss` by the student, times `grad_output`."""
    grad = _sparse(
        student_logits,
        teacher_ids,
        teacher_log_probs,
        temperature,
        tail,
        sample_weight,
        reduction,
        grad_output,
    )[1]
    return deliver(grad, out, result_dtype(student_logits))


def sparse_distillation_loss_value_and_grad(
    student_logits,
    teacher_ids,
    teacher_log_probs,
    *,
    out=None,
    temperature=1.0,
    tail="bucket",
    sample_weight=None,
    reduction="mean",
):
    """`sparse_distillation_loss` and `sparse_distillation_loss_grad` of the same arguments, as a pair."""
    loss, grad = _sparse(
        student_logits, teacher_ids, teacher_log_probs, temperature, tail, sample_weight, reduction
    )
    return loss, deliver(grad, out, result_dtype(student_logits))


# With the classes i_1 ... i_k of a position, q_j = exp(log_prob_j), Q = sum_j q_j, p = softmax(student / T),
# and the other classes, the tail, in which lie 1 - Q of the teacher's mass and S = 1 - sum_j p_(i_j) of the
# student's:
#
#     drop          loss = sum_j q_j (log q_j - log p_(i_j))
#     bucket        loss = the same + t (log t - log S),  t = max(0, 1 - Q), and t = 0 where there is no tail
#     renormalize   loss = sum_j q'_j (log q'_j - log p'_j),  q' = q / Q,  p' = softmax(student_(i_j) / T)
#
# T dlog p_(i_j) / dx_c = [c = i_j] - p_c, and S is a sum: T dlog S / dx_c = [c in tail] p_c / S - p_c. So
#
#     drop          T g_c = Q p_c - q_j [c = i_j]
#     bucket        T g_c = (Q + t) p_c - q_j [c = i_j] - t p_c / S [c in tail]
#     renormalize   T g_c = p'_j - q'_j where c = i_j, else 0


def _sparse(student, ids, log_probs, temperature, tail, sample_weight, reduction, grad_output=None):
    """Return the reduced loss and the gradient."""
    x, log_q, ids = as_float64(student), as_float64(log_probs), plain(ids).astype(np.int64)
    rule = {"bucket": _bucket, "drop": _drop, "renormalize": _renormalize}[tail]
    weight = np.ones(x.shape[:-1]) if sample_weight is None else as_float64(sample_weight)
    with np.errstate(all="ignore"):
        loss, grad = rule(x, ids, log_q, float(temperature))
        loss = np.where(weight == 0, 0.0, weight * loss)
        grad = np.where(weight[..., None] == 0, 0.0, weight[..., None] * grad / float(temperature))
    mass = weight.sum() if reduction == "mean" else loss.size
    return reduce_positions(loss, grad, student, -1, None, reduction, grad_output, mass)


def _drop(x, ids, log_q, temperature):
    """Return the losses, and T times the gradient by the rule "drop"."""
    p, log_p = probabilities(x, temperature)[0], log_probabilities(x, temperature)
    q = np.exp(log_q)
    loss = _terms(q, log_q, np.take_along_axis(log_p, ids, -1)).sum(axis=-1)
    return loss, _minus(q.sum(axis=-1, keepdims=True) * p, ids, q)


def _bucket(x, ids, log_q, temperature):
    loss, grad = _drop(x, ids, log_q, temperature)
    p, log_p = probabilities(x, temperature)[0], log_probabilities(x, temperature)
    left = np.maximum(1.0 - np.exp(log_q).sum(axis=-1, keepdims=True), 0.0)
    if ids.shape[-1] == x.shape[-1]:
        left = np.zeros(left.shape)
    np.put_along_axis(log_p, ids, -np.inf, -1)
    log_tail = logsumexp(log_p, axis=-1, keepdims=True)
    share = np.exp(log_p - np.where(log_tail == -np.inf, 0.0, log_tail))
    return loss + _terms(left, np.log(left), log_tail)[..., 0], grad + left * p - left * share


def _renormalize(x, ids, log_q, temperature):
    some = np.take_along_axis(x, ids, -1)
    q, p = probabilities(log_q)[0], probabilities(some, temperature)[0]
    loss = _terms(q, log_probabilities(log_q), log_probabilities(some, temperature)).sum(axis=-1)
    return loss, _minus(np.zeros(x.shape), ids, q - p)


def _terms(q, log_q, log_p):
    """Return q (log q - log p), where 0 log 0 = 0."""
    return np.where((q == 0) & ~np.isnan(log_p), 0.0, q * (log_q - log_p))


def _minus(of_classes, ids, of_ids):
    """Return numbers of all classes, less those of some."""
    np.put_along_axis(of_classes, ids, np.take_along_axis(of_classes, ids, -1) - of_ids, -1)
    return of_classes
