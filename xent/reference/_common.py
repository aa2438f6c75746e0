"""What several reference files share: moving the class axis, products, handing out results, windows."""

import math

import numpy as np

from .._arrays import as_array


def plain(x):
    """Return `x` as an array; masks and whatever else the compiled functions refuse are refused alike."""
    return as_array(x, "an argument")


def as_float64(x):
    """Return `x` as a float64 array; complex numbers, objects and strings have no place in the formulas."""
    x = plain(x)
    if x.dtype.kind in "cOSUMm":
        raise TypeError(f"expected real numbers, got dtype {x.dtype}")
    return x.astype(np.float64)


def axes_of(axis, ndim):
    """Return a tuple of axes; None means all."""
    return tuple(range(ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)


def classes_last(x, axis):
    """Return `x` in float64 with the class axis last, contiguous so that NumPy sums pairwise along it.

    Several axes become one, in their order.
    """
    x = as_float64(x)
    axes = axes_of(axis, x.ndim)
    kept = x.ndim - len(axes)
    moved = np.moveaxis(x, axes, tuple(range(kept, x.ndim)))
    return np.ascontiguousarray(moved.reshape(*moved.shape[:kept], math.prod(moved.shape[kept:])))


def classes_back(result, shape, axis):
    """Return an array like that of `classes_last` with the axes of a shape."""
    axes = axes_of(axis, len(shape))
    last = tuple(range(result.ndim - 1, len(shape)))
    axes_last = result.reshape(*result.shape[:-1], *(shape[k] for k in axes))
    return np.moveaxis(axes_last, last, axes)


def is_sixteen_bits(dtype):
    """Whether results go back into a dtype of 16 bits; by name, as ml_dtypes need not be there."""
    return dtype.name in ("float16", "bfloat16")


def result_dtype(*inputs):
    """Return the dtype of an elementwise result: that of the inputs if it has 16 bits, else float64."""
    dtypes = {np.asarray(x).dtype.newbyteorder("=") for x in inputs}
    return dtypes.pop() if len(dtypes) == 1 and all(map(is_sixteen_bits, dtypes)) else np.dtype(np.float64)


def loss_dtype(x):
    """Return the dtype of a loss or log-sum-exp: float32 for input of 16 bits, else float64."""
    return np.dtype(np.float32 if is_sixteen_bits(np.asarray(x).dtype) else np.float64)


def deliver(result, out=None, dtype=np.float64):
    """Return `result` in `dtype` (a scalar if it is 0-d), or write it into `out`, cast to its dtype."""
    if out is None:
        with np.errstate(all="ignore"):
            result = result.astype(dtype, copy=False)
        return result[()] if result.ndim == 0 else result
    if out.shape != result.shape:
        raise ValueError(f"out has shape {out.shape}, expected {result.shape}")
    with np.errstate(all="ignore"):
        np.copyto(out, result, casting="unsafe")
    return out


def sum_of_others(a):
    """Return for each class the sum of all others; for the largest no difference, which would cancel."""
    if a.shape[-1] == 0:
        return a
    top = np.abs(a).argmax(axis=-1)[..., None]
    without = a.copy()
    np.put_along_axis(without, top, 0.0, axis=-1)
    rest = a.sum(axis=-1, keepdims=True) - a
    np.put_along_axis(rest, top, without.sum(axis=-1, keepdims=True), axis=-1)
    return rest


def times(a, b):
    """Return a * b with 0 * infinity = 0; 0 * NaN stays NaN."""
    return np.where((a == 0) & np.isinf(b), 0.0, a * b)


def pair(value):
    """Return (value, value) for an int, and a pair of ints as it is."""
    if np.ndim(value) == 0:
        return int(value), int(value)
    first, second = value
    return int(first), int(second)


def window_offsets(kernel_size, stride, dilation, out_size):
    """Yield (i, j, cells) for each cell of a window.

    `padded[cells]` is what the cell (i, j) of every window sees: row `r * stride + i * dilation` for output
    row r, and the same for columns.
    """
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + (out_size[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(left, left + (out_size[1] - 1) * stride[1] + 1, stride[1])
            yield i, j, (Ellipsis, rows, columns)
