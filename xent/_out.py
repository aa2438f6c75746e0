"""Where results of the operators on images go: a caller's `out`, or a new array. Copies in another order."""

import numpy as np

from . import _check, _kernels


def room(out, shape, dtype):
    """Return an array for a result: `out` if the kernels can write it as it lies."""
    if out is not None and np.ndarray.view(out, np.ndarray).flags.carray:
        return out
    return _kernels.empty(shape, dtype)


def checked_room(out, shape, dtype, *inputs):
    """Return `room`; raise unless `out` can take the result. `inputs` are (array or None, name) pairs."""
    if out is not None:
        _check.output(out, shape, dtype, inputs)
    return room(out, shape, dtype)


def delivered(result, out):
    """Return `out` with the result in it, or the result if there is no `out`."""
    if out is not None and result is not out:
        copy(result, np.ndarray.view(out, np.ndarray))
    return result if out is None else out


def in_c_order(array):
    """Return an array in C order."""
    if array.flags.c_contiguous:
        return array
    result = _kernels.empty(array.shape, array.dtype)
    copy(array, result)
    return result


def copy(source, target):
    """Copy to an array of the same shape and dtype elsewhere: faster than NumPy where axes change places."""
    if not _kernels.reorder(source, target):
        target[...] = source
