"""What every test file shares: dtypes, thread counts and hypothesis settings."""

import gc
import os

# Before NumPy is loaded: threads that wait for each other by spinning, as those of OpenBLAS and OpenMP do,
# take the processors from the other workers of pytest-xdist.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from compiled import Edge  # noqa: E402

import xent  # noqa: E402

hypothesis.settings.register_profile(
    "xent", deadline=None, derandomize=True, database=None, max_examples=50, print_blob=False
)
hypothesis.settings.load_profile("xent")


@hypothesis.given(hypothesis.strategies.booleans())
def start_hypothesis(_):
    """Its generator of random numbers is there before anything is frozen: it asks who refers to that, which
    on CPython 3.14 nothing frozen does, and warns."""


def pytest_collection_finish():
    """The tests are no garbage: to look through thousands of them takes a sixth of a second each time."""
    start_hypothesis()
    gc.freeze()


@pytest.fixture(params=["float32", "float64"], scope="session")
def dtype(request):
    """The dtypes that are computed in as they come."""
    return np.dtype(request.param)


@pytest.fixture
def threads():
    """Run the test on two threads: that any other number gives the same bits is shown in test_threads.py."""
    with xent.num_threads(2):
        yield 2


@pytest.fixture
def rng():
    """The same random numbers in every run."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def edge():
    """Memory for C code, at whose end it must stop."""
    if os.name == "nt":
        pytest.skip("protects memory as POSIX systems do")
    memory = Edge(1 << 26)
    yield memory
    memory.protect(3)
