"""Negative log-likelihood of labels from log-probabilities, with its gradient.

Inside this file the class axis is last.
"""

import numpy as np

from ._common import as_float64, classes_last, deliver, plain, result_dtype
from .cross_entropy import one_hot, reduce


def nll_loss(log_probs, target, *, axis=-1, weight=None, ignore_index=-100, reduction="mean"):
    """-w[y] log_probs[y] per position, y = target, reduced; w = 0 is as if the position were not there."""
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


# loss = -w_y x_y is linear in the log-probabilities x: g_c = -w_y [c = y].


def _nll(log_probs, target, axis, weight, ignore_index, reduction, grad_output=None):
    """Return the reduced loss and the gradient."""
    x = classes_last(log_probs, axis)
    w = np.ones(x.shape[-1]) if weight is None else as_float64(weight)
    is_label, counted, mean_weight = one_hot(plain(target), x.shape, w, ignore_index)
    with np.errstate(all="ignore"):
        loss = 0.0 - np.where(is_label & (w != 0), w * x, 0.0).sum(axis=-1)
    grad = np.where(is_label, -w, 0.0)
    return reduce(loss, grad, log_probs, axis, counted, mean_weight, reduction, grad_output)
