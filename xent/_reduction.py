"""The six reductions of losses: by what a sum is divided, and the scalar that comes out."""

import math

import numpy as np

REDUCTIONS = ("none", "sum", "mean", "mean_valid", "mean_full", "mean_batch")


def name(reduction):
    """Return the name of a reduction that exists, as a plain str."""
    if not isinstance(reduction, str):
        raise TypeError(f"reduction must be a string, got {type(reduction).__name__}")
    reduction = str.__str__(reduction)
    if reduction not in REDUCTIONS:
        hint = '; PyTorch\'s "batchmean" is "mean_batch"' if reduction == "batchmean" else ""
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}{hint}")
    return reduction


def divisor(reduction, shape, axis, mass, counted):
    """Return what the sum of the losses is divided by: 1 where it is not, 0 for a mean over nothing.

    `reduction` is a `name`, `shape` that of the data and `axis` its class axis, or None where every element
    has a loss; `mass` is the sum of the weights of what counts, and `counted` the number of it.
    """
    if reduction == "mean":
        return mass
    if reduction == "mean_valid":
        return counted
    if reduction == "mean_full":
        return math.prod(n for k, n in enumerate(shape) if k != axis)
    if reduction in ("none", "sum"):
        return 1.0
    if axis == 0 or not shape:
        why = "axis 0 is the class axis" if shape else "there is no axis"
        raise ValueError(f'reduction="mean_batch" needs a batch axis in front, but {why}')
    return shape[0]


def scalar(dtype, total, divisor):
    """Return a sum divided by the divisor, as a NumPy scalar; 0 for a mean over nothing."""
    value = total / divisor if divisor else 0.0
    if dtype == np.float64 or -3e38 < value < 3e38:  # anything fits
        return dtype.type(value)
    with np.errstate(over="ignore"):
        return np.float64(value).astype(dtype)
