"""NumPy's functions on as many threads as xent has, and threads that sleep while others work.

Import this module before NumPy, xent and all other libraries: the settings are read when those are loaded.
"""

import os
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle OpenMP threads sleep instead of spinning
# OpenBLAS, which multiplies matrices for NumPy, has threads of its own: these too sleep, after 2**4 clock
# cycles instead of 2**26. While they spun, the call after a product took twice as long.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

import numpy as np  # noqa: E402

import xent  # noqa: E402

THREADS = xent.get_num_threads()

_pool = ThreadPoolExecutor(THREADS)


def in_parts(function, *arrays):
    """Return a call that runs function on equal parts of the arrays, one part for each thread."""
    parts = list(zip(*(np.array_split(a.reshape(-1), THREADS) for a in arrays), strict=True))
    return lambda: list(_pool.map(lambda part: function(*part), parts))
