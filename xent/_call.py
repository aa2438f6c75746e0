"""Kernels walk arrays as they lie in memory, in the layouts that they know; any other is copied here."""

import numpy as np


def call(kernel, arrays, out, *rest):
    """Call ``kernel(*arrays, out, *rest)``; if it does not know the layouts (a false result), call it on
    copies in C order.

    Returns what the kernel returns. `arrays` and `out` may contain None.
    """
    result = kernel(*arrays, out, *rest)
    if result is not None and result is not False:
        return result
    arrays = [None if a is None else np.asarray(a, order="C") for a in arrays]
    result = kernel(*arrays, out, *rest)  # it may have been the inputs alone
    if result is not None and result is not False:
        return result
    dense = None if out is None else np.empty(out.shape, out.dtype)
    result = kernel(*arrays, dense, *rest)
    if result is None or result is False:
        raise RuntimeError(f"{kernel.__name__} refused arrays in C order: a bug in xent, please report it")
    if out is not None:
        out[...] = dense
    return result
