"""Thread scaling, and calls at once from several threads of Python.

Scaling is measured on logits that a last-level cache may hold, for calls of milliseconds: neither memory nor
the time to wake a thread (some 50 microseconds where it sleeps between calls) should be the limit.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from peers.libraries import THREADS

import xent

SHAPE = (4096, 1000)  # float32: 16 MB
# All numbers up to 4, then half and whole powers of two, and what the machine has.
COUNTS = sorted({n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128) if n < THREADS} | {THREADS})


def on_threads(n, call):
    def limited():
        with xent.num_threads(n):
            return call()

    return limited


def calls(operator):
    """Return name -> call for each number of threads."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(SHAPE, dtype=np.float32), rng.integers(0, SHAPE[1], SHAPE[0])
    out = np.zeros_like(x)
    operators = {
        "softmax": lambda: xent.softmax(x, out=out),
        "cross_entropy": lambda: xent.cross_entropy(x, y),
        "cross_entropy_value_and_grad": lambda: xent.cross_entropy_value_and_grad(x, y, out=out),
    }
    return {f"{n} threads": on_threads(n, operators[operator]) for n in COUNTS}


@pytest.mark.parametrize("threads", COUNTS)
@pytest.mark.parametrize("operator", ["softmax", "cross_entropy", "cross_entropy_value_and_grad"])
def test_threads(compare, operator, threads):
    group, name = f"threads {operator}", f"{threads} threads"
    compare(group, name, lambda: calls(operator), operator=operator, threads=threads)


CALLERS = 8  # threads of Python
CALLS = 40  # softmax of half as many positions


def python_threads():
    """Return name -> the same calls one after the other, and from a pool."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((CALLERS, SHAPE[0] // 2, SHAPE[1]), dtype=np.float32)
    out = np.zeros_like(x)
    pool = ThreadPoolExecutor(CALLERS)

    def call(i):
        xent.softmax(x[i % CALLERS], out=out[i % CALLERS])

    return {
        "one after the other": lambda: [call(i) for i in range(CALLS)],
        f"{CALLERS} at once": lambda: list(pool.map(call, range(CALLS))),
    }


@pytest.mark.parametrize("name", ["one after the other", f"{CALLERS} at once"])
def test_python_threads(compare, name):
    compare("Python threads", name, python_threads, operator="softmax", threads=THREADS)
