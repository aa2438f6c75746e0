"""Reductions of losses of elements and of positions, without weights."""

import math

import numpy as np

from ._common import as_float64, deliver, loss_dtype


def unit(base):
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


def reduce_elements(loss, grad, x, base, reduction, grad_output):
    upstream = 1.0 if grad_output is None else as_float64(grad_output)
    divisor = _divisor(reduction, loss.size, loss.shape, loss.ndim > 0)
    nats = unit(base)
    return _reduce(loss / nats, grad / nats, upstream, divisor, loss_dtype(x), reduction)


def reduce_positions(loss, grad, x, axis, base, reduction, grad_output, mass=None):
    """`mass` is the sum of the weights, where there are some: the divisor of "mean"."""
    upstream = np.asarray(1.0 if grad_output is None else as_float64(grad_output))
    if upstream.ndim:
        upstream = upstream[..., None]
    divisor = _divisor(reduction, loss.size, np.shape(x), axis % np.ndim(x) != 0)
    if reduction == "mean" and mass is not None:
        divisor = mass
    nats = unit(base)
    loss, grad = _reduce(loss / nats, grad / nats, upstream, divisor, loss_dtype(x), reduction)
    return loss, np.moveaxis(grad, -1, axis)
