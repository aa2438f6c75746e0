"""Between the API layer and the kernels: arrays that lie in memory in a way that a kernel does not know."""

import numpy as np


def result_array(out, shape, dtype):
    """Return `out` if a kernel that writes in C order can write to it, else a new array; see `deliver`."""
    return out if out is not None and out.flags.carray else np.empty(shape, dtype)


def deliver(result, out):
    """Return `out` with the result in it, wherever the kernel wrote it; the result if that is None."""
    if out is None:
        return result[()]  # a NumPy scalar for 0-d
    if result is not out:
        out[...] = result
    return out


def call(kernel, arrays, outs, *rest):
    """Call ``kernel(*arrays, *outs, *rest)``; if it does not know the layouts (a false result), call it on
    copies in C order.

    Returns what the kernel returns. `arrays` and `outs` are tuples that may contain None.
    """
    result = kernel(*arrays, *outs, *rest)
    if result is not None and result is not False:
        return result
    arrays = [None if a is None else np.asarray(a, order="C") for a in arrays]
    result = kernel(*arrays, *outs, *rest)  # it may have been the inputs alone
    if result is not None and result is not False:
        return result
    dense = [None if out is None else np.empty(out.shape, out.dtype) for out in outs]
    result = kernel(*arrays, *dense, *rest)
    if result is None or result is False:
        raise RuntimeError(f"{kernel.__name__} refused arrays in C order: a bug in xent, please report it")
    for out, copy in zip(outs, dense, strict=True):
        if out is not None:
            out[...] = copy
    return result
