"""What a call allocates beside its results."""

import tracemalloc

import conv_peers
import peers


def beside_results(operator, case):
    """Return the largest number of bytes that a call of xent holds at a time, less those of its results.

    Traced are Python's and NumPy's allocations, and scratch memory that comes from PyMem_Malloc. What is
    freed before the last result is allocated may hide behind that.
    """
    call = peers.method(conv_peers.Xent(*case.data()), operator)()
    call()  # what is made once does not count
    tracemalloc.start()
    try:
        results = call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    arrays = results if isinstance(results, tuple) else (results,)
    return max(0, peak - sum(array.nbytes for array in arrays))
