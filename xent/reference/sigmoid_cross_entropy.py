"""Cross-entropy of independent classes (sigmoid cross-entropy), plain and focal."""

from typing import NamedTuple

import numpy as np

from ._common import as_float64, deliver, loss_dtype, plain, result_dtype, times
from .sigmoid import log_sigmoid, sigmoid


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
    """w alpha_t (1 - p_t)^gamma [-c t log p - (1 - t) log(1 - p)] per element, p = sigmoid(logits), reduced.

    c is `pos_weight`; label smoothing e replaces t by (1 - e) t + e / 2; p_t = p t + (1 - p)(1 - t) and
    alpha_t = alpha t + (1 - alpha)(1 - t), or 1 without alpha. 0 log 0 is 0; where w is 0
    the element is not there.
    """
    options = weight, pos_weight, label_smoothing, gamma, alpha, ignore_index, reduction
    return _sigmoid_cross_entropy(logits, target, *options).loss


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
    """Gradient of `sigmoid_cross_entropy` by the logits, times `grad_output`."""
    options = weight, pos_weight, label_smoothing, gamma, alpha, ignore_index, reduction
    grad = _sigmoid_cross_entropy(logits, target, *options, grad_output).grad
    return deliver(grad, out, result_dtype(logits))


def sigmoid_cross_entropy_grad_hess(
    logits,
    target,
    *,
    hessian="diagonal",
    out=None,
    weight=None,
    pos_weight=None,
    label_smoothing=0.0,
    gamma=0.0,
    alpha=None,
    ignore_index=None,
    reduction="mean",
):
    """Gradient of `sigmoid_cross_entropy`, and its second derivative by each logit, scaled alike.

    "diagonal": the exact one; "gauss_newton": what of it is never negative; "absolute": abs(gradient).
    """
    options = weight, pos_weight, label_smoothing, gamma, alpha, ignore_index, reduction
    result = _sigmoid_cross_entropy(logits, target, *options)
    hess = {"diagonal": result.hess, "gauss_newton": result.part, "absolute": np.abs(result.grad)}[hessian]
    outs = (None, None) if out is None else out
    pair = zip((result.grad, hess), outs, strict=True)
    return tuple(deliver(array, place, result_dtype(logits)) for array, place in pair)


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
    """`sigmoid_cross_entropy` and `sigmoid_cross_entropy_grad` of the same arguments, as a pair."""
    options = weight, pos_weight, label_smoothing, gamma, alpha, ignore_index, reduction
    result = _sigmoid_cross_entropy(logits, target, *options)
    return result.loss, deliver(result.grad, out, result_dtype(logits))


# With p' = p (1 - p), u = 1 - p_t = t (1 - p) + (1 - t) p and B = -c t log p - (1 - t) log(1 - p),
#
#     u' = ((1 - t) - t) p (1 - p)
#     B' = (1 - t) p - c t (1 - p)
#     g  = w alpha_t (gamma u^(gamma - 1) u' B + u^gamma B')
#
# p (1 - p) B tends to 0 where p does to 0 or 1, and so does u^(gamma - 1) u' B where u does to 0. With
# q = p (1 - p) / u, d = (1 - t) - t, so that u' = u d q and u'' = u d q (1 - 2 p):
#
#     B'' = (c t + 1 - t) p (1 - p)
#     h   = w alpha_t u^gamma [B'' + gamma q ((gamma - 1) d^2 q B + 2 d B' + d (1 - 2 p) B)]


class Result(NamedTuple):
    loss: np.ndarray  # reduced
    grad: np.ndarray
    hess: np.ndarray
    part: np.ndarray  # of it, w alpha_t u^gamma (B'' + gamma q^2 d^2 B)


def _sigmoid_cross_entropy(
    logits,
    target,
    weight,
    pos_weight,
    smoothing,
    gamma,
    alpha,
    ignore_index,
    reduction,
    grad_output=None,
):
    """Return the reduced loss, the gradient and second derivatives."""
    x = as_float64(logits)
    given, counted = _zeros_and_ones(target, x.shape, ignore_index)
    t, s = (1 - smoothing) * given + smoothing / 2, (1 - smoothing) * (1 - given) + smoothing / 2
    w = 1.0 if weight is None else as_float64(weight)
    c = 1.0 if pos_weight is None else as_float64(pos_weight)
    alpha_t = 1.0 if alpha is None else alpha * t + (1 - alpha) * s
    with np.errstate(all="ignore"):
        p, q = sigmoid(x), sigmoid(-x)
        b = times(c * t, -log_sigmoid(x)) + times(s, -log_sigmoid(-x))
        u = t * q + s * p
        focus = u**gamma if gamma else 1.0
        loss = times(w * alpha_t, focus * b)
        pull = gamma * u ** (gamma - 1) * (s - t) * times(p * q, b) if gamma else 0.0
        pull = np.where(u == 0, 0.0, pull)
        slope = s * p - c * t * q
        grad = w * alpha_t * (pull + focus * slope)
        part = (c * t + s) * p * q
        k, d = np.where(u == 0, 1.0, p * q / u), s - t
        bend = times(k * d * ((gamma - 1) * d * k + q - p), b) + 2 * k * d * slope
        push = gamma * times((d * k) ** 2, b)
        hess, part = (w * alpha_t * times(focus, a) for a in (part + gamma * bend, part + push))
    there = counted & (w != 0)
    loss, grad, hess, part = (np.where(np.isnan(x), x, a) for a in (loss, grad, hess, part))
    loss = np.where(there, loss, 0.0)
    upstream = np.float64(1.0) if grad_output is None else as_float64(grad_output)
    divisor = _divisor(reduction, counted)
    with np.errstate(all="ignore"):
        if reduction != "none":
            loss = loss.sum() / divisor if divisor else np.zeros(())
        scaled = (
            np.asarray(np.where(there & bool(divisor), a * upstream / (divisor or 1), 0.0))
            for a in (grad, hess, part)
        )
        return Result(deliver(np.asarray(loss), dtype=loss_dtype(logits)), *scaled)


def _zeros_and_ones(target, shape, ignore_index):
    """Return the targets as float64, and which elements count."""
    target = plain(target)
    if target.shape != shape:
        raise ValueError(f"target has shape {target.shape}, expected {shape}")
    if target.dtype.kind in "iub":
        counted = np.ones(shape, bool) if ignore_index is None else target != ignore_index
        t, good = np.where(counted, target, 0).astype(np.float64), (target == 0) | (target == 1)
    else:
        if ignore_index is not None:
            raise ValueError("ignore_index goes with integer targets")
        t, counted = as_float64(target), np.ones(shape, bool)
        good = (t >= 0) & (t <= 1)
    if not np.all(good | ~counted):
        raise ValueError("an element of target is outside [0, 1]")
    return t, counted


def _divisor(reduction, counted):
    """Return what the sum of the losses is divided by; 0 for a mean over nothing."""
    if reduction in ("none", "sum"):
        return 1
    if reduction in ("mean", "mean_valid"):
        return int(counted.sum())
    if reduction == "mean_full":
        return counted.size
    if reduction != "mean_batch":
        raise ValueError(f"reduction is {reduction!r}")
    if counted.ndim == 0:
        raise ValueError("reduction 'mean_batch' needs a batch axis")
    return counted.shape[0]
