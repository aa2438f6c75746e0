"""What every test file shares: dtypes, thread counts and hypothesis settings."""

import hypothesis
import numpy as np
import pytest
from compiled import Edge

import xent

hypothesis.settings.register_profile(
    "xent", deadline=None, derandomize=True, database=None, max_examples=50, print_blob=False
)
hypothesis.settings.load_profile("xent")


@pytest.fixture(params=["float32", "float64"], scope="session")
def dtype(request):
    """The dtypes that are computed in as they come."""
    return np.dtype(request.param)


@pytest.fixture(params=[1, 2], ids=["1thread", "2threads"])
def threads(request):
    """Run the test on this many threads, and restore the number afterwards."""
    with xent.num_threads(request.param):
        yield request.param


@pytest.fixture
def rng():
    """The same random numbers in every run."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def edge():
    """Memory for C code, at whose end it must stop."""
    memory = Edge(1 << 26)
    yield memory
    memory.protect(3)
