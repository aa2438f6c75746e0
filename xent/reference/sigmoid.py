"""The sigmoid and its logarithm, and products with their derivatives: exp only ever sees -|x|."""

import numpy as np

from ._common import as_float64, deliver, result_dtype


def sigmoid(x, *, out=None):
    """1 / (1 + exp(-x)), which is exp(x) / (1 + exp(x)) for negative x."""
    dtype, x = result_dtype(x), as_float64(x)
    with np.errstate(all="ignore"):
        z = np.exp(-np.abs(x))
        result = np.asarray(np.where(x < 0, z, 1.0) / (1.0 + z))
    return deliver(result, out, dtype)


def log_sigmoid(x, *, out=None):
    """``log(sigmoid(x)) = min(x, 0) - log(1 + exp(-|x|))``."""
    dtype, x = result_dtype(x), as_float64(x)
    with np.errstate(all="ignore"):
        result = np.asarray(np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x))))
    return deliver(result, out, dtype)


def sigmoid_backward(grad, y, *, out=None):
    """grad y (1 - y), as d sigmoid(x) / dx = y (1 - y)."""
    dtype, grad, y = result_dtype(grad, y), as_float64(grad), as_float64(y)
    with np.errstate(all="ignore"):
        result = np.asarray(grad * y * (1.0 - y))
    return deliver(result, out, dtype)


def log_sigmoid_backward(grad, y, *, out=None):
    """grad (1 - exp(y)), as d log_sigmoid(x) / dx = 1 - sigmoid(x)."""
    dtype, grad, y = result_dtype(grad, y), as_float64(grad), as_float64(y)
    with np.errstate(all="ignore"):
        result = np.asarray(grad * -np.expm1(y))
    return deliver(result, out, dtype)
