"""Losses of probabilities: cross-entropy, binary cross-entropy, entropy.

Inside this file the class axis is last.
"""

import numpy as np

from ._common import (
    as_float64,
    classes_last,
    deliver,
    is_sixteen_bits,
    loss_dtype,
    plain,
    result_dtype,
    times,
)
from ._reduction import reduce_elements, reduce_positions, unit


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
    """-w (t log p + (1 - t) log(1 - p)) of each element, reduced; w = 0 is as if it were not there.

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


def entropy(probs, *, axis=-1, base=None):
    """-sum_c p_c log p_c per position; 0 log 0 is 0."""
    p = classes_last(probs, axis)
    with np.errstate(all="ignore"):
        result = (0.0 - times(p, np.log(p)).sum(axis=-1)) / unit(base)
    return deliver(np.asarray(result), dtype=loss_dtype(probs))


# loss = -sum_c t_c log clip(p_c, e, 1) / ln b:  g_c = -t_c / (p_c ln b) for p_c in [e, 1], else 0.


def _cross_entropy_probs(probs, target, axis, clip, base, reduction, grad_output=None):
    """Return the reduced loss and the gradient."""
    p = classes_last(probs, axis)
    target = plain(target)
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
        loss = 0.0 - np.where(used, times(t, log_p), 0.0).sum(axis=-1)
        grad = np.where(inside & used & ((t != 0) | np.isnan(p)), -t / (p + 0.0), 0.0)
    return reduce_positions(loss, grad, probs, axis, base, reduction, grad_output)


# With p = clip(x, e, 1 - e):
#
#     loss = -w [t log p + (1 - t) log(1 - p)]
#     g    = w [-t / p + (1 - t) / (1 - p)] = w (p - t) / (p (1 - p))      for x in [e, 1 - e], else 0
#
# For t = 1 that is -w / p, for t = 0 it is w / (1 - p), also at p = 0 and p = 1.


def _binary_cross_entropy(probs, target, weight, clip, base, reduction, grad_output=None):
    """Return the reduced loss and the gradient."""
    p, t = as_float64(probs), as_float64(target)
    if not np.all((t >= 0) & (t <= 1)):
        raise ValueError("an element of target is outside [0, 1]")
    w = np.broadcast_to(1.0 if weight is None else as_float64(weight), p.shape)
    e = -np.inf if clip is None else clip
    below, above = p < e, 1.0 - p < e
    with np.errstate(all="ignore"):
        log_p = np.where(below, np.log(e), np.where(above, np.log1p(-e), np.log(p)))
        log_q = np.where(above, np.log(e), np.where(below, np.log1p(-e), np.log1p(-p)))
        loss = 0.0 - np.where(w == 0, 0.0, w * (times(t, log_p) + times(1.0 - t, log_q)))
        grad = (p - t) / (p * (1.0 - p))
        grad = np.where(t == 1, -1.0 / (p + 0.0), np.where(t == 0, 1.0 / (1.0 - p), grad))
        grad = np.where(w == 0, 0.0, w * np.where(below | above, 0.0, grad))
    return reduce_elements(loss, grad, probs, base, reduction, grad_output)
