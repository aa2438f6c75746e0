"""sigmoid and log_sigmoid, against mpmath and, over the whole range of float32, the reference."""

import functools

import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pytest
from helpers import ZOO, assert_ulp, exact, finfo, of_zoo, random_logits, reference, wide
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from tolerances import DIFFERENCES, EPS64, bound

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


# Products with the derivatives ------------------------------------------------------------------------------


def exact_products(name, grad, y):
    def product(g, v):
        g, v = mp.mpf(float(g)), mp.mpf(float(v))
        return g * v * (1 - v) if name == "sigmoid_backward" else -g * mp.expm1(v)

    with mp.workprec(200):
        return exact([product(*row) for row in zip(grad.ravel(), y.ravel(), strict=True)], y.shape)


@pytest.mark.parametrize("name", ["sigmoid_backward", "log_sigmoid_backward"])
def test_products_to_the_last_digit(name, dtype):
    x = spots(dtype)
    y = getattr(xent, name.removesuffix("_backward"))(x)
    grad = np.random.default_rng(5).normal(size=x.size).astype(dtype)
    for g in (grad, grad * dtype.type(2.0**100)):
        got = getattr(xent, name)(g, y)
        assert got.dtype == dtype
        assert_ulp(got, exact_products(name, g, y), bound("sigmoid", dtype), dtype=dtype)
        tiny = float(finfo(dtype).smallest_normal)
        np.testing.assert_allclose(got, reference(name, g, y), rtol=4 * float(finfo(dtype).eps), atol=tiny)


@pytest.mark.parametrize("name", ["sigmoid_backward", "log_sigmoid_backward"])
def test_products_are_those_of_differences(name):
    x, grad, step = np.linspace(-9, 9, 50), np.linspace(-1, 2, 50), 1e-5
    forward = getattr(xent, name.removesuffix("_backward"))
    difference = grad * (forward(x + step) - forward(x - step)) / (2 * step)
    np.testing.assert_allclose(getattr(xent, name)(grad, forward(x)), difference, rtol=0, atol=DIFFERENCES)


@pytest.mark.parametrize("name", ["sigmoid_backward", "log_sigmoid_backward"])
def test_products_in_any_order_type_and_place(name):
    y = -np.random.default_rng(6).random((9, 40))
    y = -y if name == "sigmoid_backward" else y
    grad = np.random.default_rng(7).normal(size=(9, 40))
    backward = getattr(xent, name)
    for dtype in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16):
        g, v = grad.astype(dtype), y.astype(dtype)
        expected = backward(g, v)
        right = reference(name, wide(g), wide(v))
        np.testing.assert_allclose(wide(expected), right, rtol=3 * float(finfo(dtype).eps))
        for a, b in [(np.asfortranarray(g), v), (g, np.asfortranarray(v)), (g[::-1], v[::-1])]:
            np.testing.assert_array_equal(
                wide(backward(a, b)), wide(expected[::-1] if a.strides[0] < 0 else expected)
            )
        for place in (0, 1):
            both = [g.copy(), v.copy()]
            assert backward(*both, out=both[place]) is both[place]
            np.testing.assert_array_equal(wide(both[place]), wide(expected))
    assert isinstance(backward(1.0, y[0, 0]), np.float64)
    assert backward(grad.astype(np.float32), y).dtype == np.float64
    assert backward(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0, 3)
