"""What a call allocates beside its results."""

import tracemalloc


def beside(call):
    """Return the largest number of bytes that a call holds at a time, less those of its results.

    Traced are Python's and NumPy's allocations, and scratch memory that comes from PyMem_Malloc. What is
    freed before the last result is allocated may hide behind that.
    """
    call()  # what is made once does not count
    tracemalloc.start()
    try:
        results = call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return max(0, peak - _bytes(results))


def _bytes(results):
    """Return the bytes of an array, or of all arrays in nested tuples."""
    if isinstance(results, tuple):
        return sum(map(_bytes, results))
    return 0 if results is None else results.nbytes
