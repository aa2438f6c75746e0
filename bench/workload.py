"""Runs one kind of call many times on one thread: what profile_kernels.py puts under a profiler.

The environment variable XENT_PROFILE_START holds the shell command that switches the profiler on, so that
neither Python's start nor the making of the data is counted.
"""

import os
import subprocess
import sys
import time

import numpy as np

import xent

# name: (shape, what is called): more than second-level caches hold, and a small batch
WORKLOADS = {
    "cross_entropy": ((1024, 1000), lambda x, y, out: xent.cross_entropy(x, y)),
    "cross_entropy_value_and_grad": (
        (1024, 1000),
        lambda x, y, out: xent.cross_entropy_value_and_grad(x, y, out=out),
    ),
    "softmax": ((1024, 1000), lambda x, y, out: xent.softmax(x, out=out)),
    "few classes": ((65536, 10), lambda x, y, out: xent.cross_entropy_value_and_grad(x, y, out=out)),
    "small call": ((32, 10), lambda x, y, out: xent.cross_entropy_value_and_grad(x, y)),
}


def run(name, seconds, calls):
    """Call for some seconds or a number of times, whichever ends first."""
    shape, call = WORKLOADS[name]
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(shape, dtype=np.float32), rng.integers(0, shape[1], shape[0])
    out = np.zeros_like(x)
    with xent.num_threads(1):
        call(x, y, out)
        subprocess.run(os.environ["XENT_PROFILE_START"].format(pid=os.getpid()), shell=True, check=True)
        deadline = time.perf_counter() + seconds
        for _ in range(calls):
            call(x, y, out)
            if time.perf_counter() > deadline:
                break


if __name__ == "__main__":
    run(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
    os._exit(0)  # the interpreter's own end is not part of the profile
