"""Cross-entropy from logits (the softmax loss) and the negative log-likelihood, with their gradients.

Inside this file the class axis is last. A target, of either kind, becomes coefficients a_c = w_c t_c, one per
class; the loss of a position is then -sum_c a_c log p_c.
"""

import numpy as np

from ._common import as_float64, classes_last, deliver, is_sixteen_bits, loss_dtype, result_dtype
from .softmax import log_probabilities, probabilities


def cross_entropy(
    logits, target, *, axis=-1, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"
):
    """-sum_c w_c t_c log p_c per position, p = softmax(logits), reduced.

    t is one-hot(target) for index targets, the target itself if it holds probabilities. Label smoothing e
    replaces t by (1 - e) t + e / C. 0 log 0 is 0.
    """
    loss, _ = _cross_entropy(logits, target, axis, weight, ignore_index, label_smoothing, reduction)
    return loss


def cross_entropy_grad(
    logits,
    target,
    *,
    grad_output=None,
    out=None,
    axis=-1,
    weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    reduction="mean",
):
    """Gradient p_c sum_k w_k t_k - w_c t_c of `cross_entropy` by the logits, times `grad_output`."""
    _, grad = _cross_entropy(
        logits, target, axis, weight, ignore_index, label_smoothing, reduction, grad_output
    )
    return deliver(grad, out, result_dtype(logits))


def cross_entropy_value_and_grad(
    logits,
    target,
    *,
    out=None,
    axis=-1,
    weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    reduction="mean",
):
    """`cross_entropy` and `cross_entropy_grad` of the same arguments, as a pair."""
    loss, grad = _cross_entropy(logits, target, axis, weight, ignore_index, label_smoothing, reduction)
    return loss, deliver(grad, out, result_dtype(logits))


def nll_loss(log_probs, target, *, axis=-1, weight=None, ignore_index=-100, reduction="mean"):
    """-w[y] log_probs[y] per position, y = target, reduced."""
    loss, _ = _nll(log_probs, target, axis, weight, ignore_index, reduction)
    return loss


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
    """Gradient -w[y] [c = y] of `nll_loss` by the log-probabilities, times `grad_output`."""
    _, grad = _nll(log_probs, target, axis, weight, ignore_index, reduction, grad_output)
    return deliver(grad, out, result_dtype(log_probs))


def nll_loss_value_and_grad(
    log_probs, target, *, out=None, axis=-1, weight=None, ignore_index=-100, reduction="mean"
):
    """`nll_loss` and `nll_loss_grad` of the same arguments, as a pair."""
    loss, grad = _nll(log_probs, target, axis, weight, ignore_index, reduction)
    return loss, deliver(grad, out, result_dtype(log_probs))


# With a_k = w_k t_k and dlog p_k / dx_c = [k = c] - p_c,
#
#     loss = -sum_k a_k log p_k
#     g_c  = -sum_k a_k ([k = c] - p_c)
#          = p_c sum_k a_k - a_c
#          = p_c (sum_k a_k - a_c) - a_c (1 - p_c)
#
# The last line is the one computed: for a one-hot target y it is p_c w_y where c != y, and at the target
# -w_y (1 - p_y), without the cancellation of p_y w_y - w_y.


def _cross_entropy(logits, target, axis, weight, ignore_index, smoothing, reduction, grad_output=None):
    """Return the reduced loss and the gradient."""
    x = classes_last(logits, axis)
    classes = x.shape[-1]
    w = np.ones(classes) if weight is None else as_float64(weight)
    target = np.asarray(target)
    floating = target.dtype.kind == "f" or is_sixteen_bits(target.dtype)
    if floating and target.shape == np.shape(logits):
        t = classes_last(target, axis)
        used = np.ones(t.shape, bool)
        counted = np.ones(t.shape[:-1], bool)
        mean_weight = np.ones(t.shape[:-1])
        if classes == 0 and counted.size:
            raise ValueError("logits have no classes")
    else:
        t, counted, mean_weight = _one_hot(target, x.shape, w, ignore_index)
        used = t | (smoothing > 0)  # without smoothing the loss is -w[y] log p[y]: no other entry is read
    with np.errstate(all="ignore"):
        a = w * ((1.0 - smoothing) * t + smoothing / max(classes, 1))
        terms = np.where(used, _times(a, log_probabilities(x)), 0.0)
        p, one_minus_p = probabilities(x)
        loss = 0.0 - terms.sum(axis=-1)
        grad = p * (a.sum(axis=-1, keepdims=True) - a) - a * one_minus_p
    return _reduce(loss, grad, logits, axis, counted, mean_weight, reduction, grad_output)


# loss = -w_y x_y is linear in the log-probabilities x: g_c = -w_y [c = y].


def _nll(log_probs, target, axis, weight, ignore_index, reduction, grad_output=None):
    """Return the reduced loss and the gradient."""
    x = classes_last(log_probs, axis)
    w = np.ones(x.shape[-1]) if weight is None else as_float64(weight)
    one_hot, counted, mean_weight = _one_hot(np.asarray(target), x.shape, w, ignore_index)
    with np.errstate(all="ignore"):
        loss = 0.0 - np.where(one_hot, _times(w, x), 0.0).sum(axis=-1)
    grad = np.where(one_hot, -w, 0.0)
    return _reduce(loss, grad, log_probs, axis, counted, mean_weight, reduction, grad_output)


def _one_hot(target, shape, w, ignore_index):
    """Return the one-hot mask (positions, classes) of labels, which positions count, and their w[y]."""
    if target.dtype.kind not in "iu":
        raise TypeError(
            f"target has dtype {target.dtype}, expected integers, or probabilities of the logits' shape"
        )
    if target.shape != shape[:-1]:
        raise ValueError(f"target has shape {target.shape}, expected {shape[:-1]}")
    counted = target != ignore_index
    if np.any(counted & ((target < 0) | (target >= shape[-1]))):
        raise ValueError(f"a label of target is outside 0 <= label < {shape[-1]}")
    one_hot = np.arange(shape[-1]) == target[..., None]
    return one_hot, counted, np.where(one_hot, w, 0.0).sum(axis=-1)


def _times(a, log_p):
    """Return a * log_p with 0 log 0 = 0; 0 * NaN stays NaN."""
    return np.where((a == 0) & (log_p == -np.inf), 0.0, a * log_p)


def _reduce(loss, grad, logits, axis, counted, mean_weight, reduction, grad_output):
    """Zero the ignored positions, reduce the loss, scale the gradient and move its class axis back.

    loss = sum_n loss_n / divisor, so every position's gradient is divided by that too. A divisor of 0 means
    a mean over nothing: 0 with gradient 0.
    """
    loss = np.where(counted, loss, 0.0)
    upstream = np.float64(1.0) if grad_output is None else as_float64(grad_output)
    if reduction == "none":
        divisor = 1.0
        upstream = np.broadcast_to(upstream, loss.shape)[..., None]
    elif reduction == "sum":
        divisor = 1.0
    elif reduction == "mean":
        divisor = np.where(counted, mean_weight, 0.0).sum()
    elif reduction == "mean_valid":
        divisor = counted.sum()
    elif reduction == "mean_full":
        divisor = counted.size
    elif reduction == "mean_batch":
        if axis % np.ndim(logits) == 0:
            raise ValueError("reduction 'mean_batch' needs a batch axis before the class axis")
        divisor = np.shape(logits)[0]
    else:
        raise ValueError(f"reduction is {reduction!r}")

    with np.errstate(all="ignore"):
        if reduction != "none":
            loss = loss.sum() / divisor if divisor else np.zeros(())
        used = counted[..., None] & bool(divisor)
        grad = np.where(used, grad * upstream / (divisor or 1.0), 0.0)
    return deliver(np.asarray(loss), dtype=loss_dtype(logits)), np.moveaxis(grad, -1, axis)
