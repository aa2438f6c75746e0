"""The sigmoid and its logarithm: exp only ever sees -|x| and cannot overflow."""

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
    """log(sigmoid(x)) = min(x, 0) - log(1 + exp(-|x|))."""
    dtype, x = result_dtype(x), as_float64(x)
    with np.errstate(all="ignore"):
        result = np.asarray(np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x))))
    return deliver(result, out, dtype)
