"""Squared error, elementwise."""

import numpy as np

from ._common import as_float64, deliver, result_dtype
from ._reduction import reduce_elements


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


# loss = (x - t)^2:  g = 2 (x - t).


def _mse(pred, target, reduction, grad_output=None):
    """Return the reduced loss and the gradient."""
    with np.errstate(all="ignore"):
        difference = as_float64(pred) - as_float64(target)
        loss, grad = difference**2, 2.0 * difference
    return reduce_elements(loss, grad, pred, None, reduction, grad_output)
