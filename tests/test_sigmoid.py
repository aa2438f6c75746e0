"""sigmoid and log_sigmoid, against mpmath and, over the whole range of float32, the reference."""

import functools

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from helpers import ZOO, assert_ulp, exact, of_zoo, random_logits, reference
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from tolerances import EPS64, bound

import xent

NAMES = ["sigmoid", "log_sigmoid"]


@functools.cache
def spots(dtype):
    """Points where the formulas change shape, from tiny ones to where exp underflows and beyond."""
    ladder = np.exp2(np.arange(-40, 12, 0.37))
    edges = np.array(
        [0.0, 1e-30, 16.6, 17.4, 36.7, 37.5, 87.3, 88.8, 103.9, 104.1, 709.7, 745.1, 745.2, 1e30]
    )
    points = np.concatenate([ladder, edges, np.random.default_rng(0).uniform(0, 20, 400)])
    return np.concatenate([points, -points]).astype(dtype)


def exact_values(name, x):
    def sigmoid(v):
        return 1 / (1 + mp.exp(-v))

    def log_sigmoid(v):
        return -mp.log1p(mp.exp(-v)) if v > 0 else v - mp.log1p(mp.exp(v))

    function = {"sigmoid": sigmoid, "log_sigmoid": log_sigmoid}[name]
    with mp.workprec(160):
        return exact([function(mp.mpf(float(v))) for v in x.ravel()], x.shape)


@pytest.mark.parametrize("name", NAMES)
def test_last_digits(name, dtype):
    x = spots(dtype)
    assert_ulp(getattr(xent, name)(x), exact_values(name, x), bound(name, dtype), dtype=dtype)


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_agrees_with_mpmath(name):
    x = spots(np.dtype(np.float64))
    x = x[np.abs(x) < 700]
    expected = exact_values(name, x)
    assert_ulp(reference(name, x), expected, 4, dtype=np.float64, slack=4 * EPS64 * np.abs(expected[0]))


@pytest.mark.parametrize("name", NAMES)
def test_float32_over_its_whole_range(name, threads):
    # every 4099th bit pattern, both signs, inf and NaN included
    x = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    expected = reference(name, x)
    assert_ulp(getattr(xent, name)(x), expected, bound(name, np.float32), dtype=np.float32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65, 1000, 70_001])
def test_every_size(name, size, dtype):
    x = random_logits((size,), dtype)
    expected = reference(name, x)
    assert_ulp(
        getattr(xent, name)(x), expected, bound(name, dtype), dtype=dtype, slack=4 * EPS64 * np.abs(expected)
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", ZOO)
@pytest.mark.parametrize("shape", [(13,), (4, 5, 6)])
def test_every_memory_layout(name, variant, shape, dtype):
    x = random_logits(shape, dtype)
    expected = reference(name, x)
    result = getattr(xent, name)(of_zoo(variant, x))
    assert_ulp(result, expected, bound(name, dtype), dtype=dtype, slack=4 * EPS64 * np.abs(expected))


@pytest.mark.parametrize("name", NAMES)
def test_out(name, dtype):
    function = getattr(xent, name)
    x = random_logits((5, 7), dtype)
    expected = function(x)
    assert not np.shares_memory(expected, x)
    for variant in ["contiguous", "every second element", "negative strides", "Fortran order", "unaligned"]:
        out = of_zoo(variant, np.zeros(x.shape, dtype))
        assert function(x, out=out) is out
        assert_ulp(out, reference(name, x), bound(name, dtype), dtype=dtype, what=variant)
    assert function(x, out=x) is x
    assert_ulp(x, expected, 0, dtype=dtype, what="in place")


@pytest.mark.parametrize("name", NAMES)
def test_scalars_and_integers(name):
    function = getattr(xent, name)
    assert isinstance(function(1), np.float64)
    assert isinstance(function(np.float32(1)), np.float32)
    expected = function(np.array([-1.0, 0.0, 1.0]))
    for data in [[-1, 0, 1], np.array([-1, 0, 1], np.int8)]:
        assert_ulp(function(data), expected, 0, dtype=np.float64)


@pytest.mark.parametrize("name", NAMES)
@given(
    x=hnp.arrays(
        st.sampled_from([np.dtype("f4"), np.dtype("f8")]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=20),
        elements=st.floats(-200, 200, width=32),
    )
)
def test_any_array(name, x):
    result = np.asarray(getattr(xent, name)(x))
    assert_ulp(result, exact_values(name, x), bound(name, x.dtype), dtype=x.dtype)


def test_symmetry(dtype):
    x = random_logits((1000,), dtype)
    total = xent.sigmoid(x).astype(np.float64) + xent.sigmoid(-x)
    assert np.abs(total - 1).max() <= 4 * np.finfo(dtype).eps
    assert_ulp(xent.log_sigmoid(x) - xent.log_sigmoid(-x), x, 8, dtype=dtype, scale=np.abs(x) + 2)
