"""max_pool2d, avg_pool2d and their backward passes, against the reference and examples by hand."""

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from helpers import ZOO, assert_same_bits, assert_ulp, differences, of_zoo, peak_bytes, reference
from hypothesis import given
from hypothesis import strategies as st
from tolerances import DIFFERENCES, EPS64, bound

import xent

CASES = [
    ((2, 3, 8, 6), 2, {}),
    ((2, 3, 9, 7), 2, {}),
    ((2, 3, 9, 7), 2, {"ceil_mode": True}),
    ((1, 1, 1, 1), 1, {}),
    ((1, 2, 7, 9), 3, {"stride": 2}),
    ((1, 2, 7, 10), 3, {"stride": 2, "padding": 1}),
    ((1, 2, 8, 10), 3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    ((3, 1, 7, 9), (3, 2), {"stride": (1, 3), "padding": (1, 0)}),
    ((1, 3, 5, 6), 3, {"stride": 1, "padding": 1}),
    ((1, 2, 6, 5), (6, 5), {}),
    ((1, 2, 11, 13), 2, {"stride": 5}),
    ((1, 2, 11, 13), 2, {"stride": 5, "ceil_mode": True}),
    ((1, 2, 10, 9), (4, 5), {"stride": 3, "padding": 2, "ceil_mode": True}),
    ((0, 2, 6, 6), 2, {}),
    ((2, 0, 6, 6), 2, {}),
    ((2, 17, 33, 35), 3, {"stride": 2, "padding": 1}),
    ((1, 2, 20, 20), 7, {"stride": 1, "padding": 3}),
]
PADDED = [
    ((2, 2, 8, 9), 3, {"stride": 1, "padding": "same"}),
    ((2, 2, 8, 9), (2, 4), {"stride": (3, 2), "padding": "same", "ceil_mode": True}),
    ((1, 2, 9, 8), 2, {"padding": "valid"}),
    ((1, 2, 7, 35), (3, 2), {"stride": (1, 2), "padding": ((1, 0), (0, 1))}),
    ((1, 2, 7, 35), 3, {"stride": 2, "padding": ((0, 1), (0, 1))}),
    ((1, 2, 9, 8), 3, {"stride": 2, "padding": [[2, 0], [1, 2]], "ceil_mode": True}),
    ((2, 2, 6, 20), (3, 5), {"stride": (2, 1), "padding": (2, 4)}),
    ((1, 1, 3, 3), 5, {"stride": 3, "padding": ((4, 4), (4, 0))}),
    ((1, 2, 16, 16), 16, {}),
    ((2, 3, 3, 5), (6, 9), {"padding": ((1, 2), (4, 0))}),
    ((1, 2, 20, 21), 9, {"stride": 3, "padding": 4}),
    ((1, 2, 30, 31), (12, 10), {"stride": 1}),
    ((1, 2, 30, 31), (11, 10), {"stride": (2, 1), "padding": (5, 0), "ceil_mode": True}),
]
DILATED = [
    ((1, 2, 9, 11), 2, {"dilation": 2}),
    ((2, 2, 12, 11), (2, 3), {"dilation": (3, 2), "padding": 1, "stride": 2}),
    ((1, 2, 10, 12), 3, {"dilation": 2, "stride": 2, "ceil_mode": True}),
    ((1, 2, 12, 12), 3, {"dilation": 2, "stride": 1, "padding": "same"}),
    ((1, 2, 12, 30), 3, {"dilation": (1, 2), "stride": (1, 4), "padding": ((2, 0), (3, 4))}),
    ((1, 2, 12, 30), (3, 4), {"dilation": (6, 6), "stride": (4, 4), "padding": 8}),
    ((1, 2, 24, 9), (5, 3), {"dilation": (2, 1), "stride": (2, 1), "padding": 1}),
    ((1, 2, 13, 40), 2, {"dilation": (2, 3), "stride": (4, 5), "padding": 1, "ceil_mode": True}),
]


def image(shape, dtype, kind="random", seed=0):
    """An image of random numbers, or of few whole numbers, so that there are ties."""
    rng = np.random.default_rng([seed, *shape])
    return (rng.standard_normal(shape) if kind == "random" else rng.integers(-2, 3, shape)).astype(dtype)


def assert_average(name, result, *arrays, **options):
    """Assert avg_pool2d or its backward pass; sums may cancel, so at the scale of the magnitudes."""
    sizes = [np.abs(arrays[0].astype(np.float64)), *arrays[1:]]
    scale = reference(name, *sizes, **options)
    expected = reference(name, *arrays, **options)
    dtype = arrays[0].dtype
    assert_ulp(result, expected, bound("average", dtype), dtype=dtype, scale=scale, slack=4 * EPS64 * scale)


@pytest.mark.parametrize("kind", ["random", "ties"])
@pytest.mark.parametrize("shape, kernel_size, options", CASES + PADDED + DILATED)
def test_max_pool2d(shape, kernel_size, options, kind, dtype, threads):
    x = image(shape, dtype, kind)
    y = reference("max_pool2d", x, kernel_size, **options)
    assert_ulp(xent.max_pool2d(x, kernel_size, **options), y, 0, dtype=dtype)
    grad = image(y.shape, dtype, "whole", seed=1)
    expected = reference("max_pool2d_backward", grad, x, kernel_size, **options)
    assert_ulp(xent.max_pool2d_backward(grad, x, kernel_size, **options), expected, 0, dtype=dtype)
    again, places = xent.max_pool2d(x, kernel_size, return_places=True, **options)
    assert_ulp(again, y, 0, dtype=dtype)
    right = xent.reference.max_pool2d(x, kernel_size, return_places=True, **options)[1]
    assert places.dtype == right.dtype == np.uint8
    np.testing.assert_array_equal(places, right)
    result = xent.max_pool2d_backward(grad, x, kernel_size, places=places, **options)
    assert_ulp(result, expected, 0, dtype=dtype)


@pytest.mark.parametrize("divisor", [{}, {"count_include_pad": False}, {"divisor_override": 3}])
@pytest.mark.parametrize("shape, kernel_size, options", CASES + PADDED)
def test_avg_pool2d(shape, kernel_size, options, divisor, dtype, threads):
    x = image(shape, dtype)
    options = options | divisor
    y = xent.avg_pool2d(x, kernel_size, **options)
    assert_average("avg_pool2d", y, x, kernel_size, **options)
    grad = image(y.shape, dtype, seed=1)
    result = xent.avg_pool2d_backward(grad, x, kernel_size, **options)
    assert_average("avg_pool2d_backward", result, grad, x, kernel_size, **options)


# Every length of what is left of a row after whole vectors, for the kernels that have loops of their own and
# for some that do not.
KERNELS = [
    (2, {}),
    (2, {"stride": 1}),
    (2, {"stride": 2, "padding": 1}),
    (3, {"stride": 2}),
    (3, {"stride": 2, "padding": 1}),
    (3, {"stride": 1, "padding": 1}),
    (3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    (3, {}),
    ((2, 3), {"stride": (1, 3), "padding": 1}),
    (5, {"stride": 2, "padding": 2}),
    ((6, 3), {"stride": (1, 2), "padding": (3, 0)}),
]


@pytest.mark.parametrize("kernel_size, options", KERNELS)
def test_every_width(kernel_size, options, dtype):
    for width in [*range(5, 41), 79, 129]:
        for kind in ["ties", "specials"]:
            x = image((2, 1, 6, width), dtype, "ties", seed=width)
            if kind == "specials":  # rows with and without NaN
                x[0, 0, 2, width // 2 :: 7] = np.nan
                x[0, 0, 4, ::3] = [-np.inf, np.inf][width % 2]
                x[1] = -np.inf
                x[1, 0, 3, -1] = np.nan
            y = reference("max_pool2d", x, kernel_size, **options)
            assert_ulp(xent.max_pool2d(x, kernel_size, **options), y, 0, dtype=dtype)
            grad = image(y.shape, dtype, "whole", seed=8)
            expected = reference("max_pool2d_backward", grad, x, kernel_size, **options)
            assert_ulp(xent.max_pool2d_backward(grad, x, kernel_size, **options), expected, 0, dtype=dtype)
        x = image((2, 1, 6, width), dtype, "ties", seed=width)
        assert_average("avg_pool2d", xent.avg_pool2d(x, kernel_size, **options), x, kernel_size, **options)
        result = xent.avg_pool2d_backward(grad, x, kernel_size, **options)
        assert_average("avg_pool2d_backward", result, grad, x, kernel_size, **options)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8])
def test_many_tiny_planes(size, dtype, threads):
    x = image((3, 300, size, size), dtype)
    for kernel_size, options in [(1, {}), (2, {"ceil_mode": True, "padding": 1}), (size, {})]:
        y = reference("max_pool2d", x, kernel_size, **options)
        assert_ulp(xent.max_pool2d(x, kernel_size, **options), y, 0, dtype=dtype)
        grad = image(y.shape, dtype, "whole", seed=9)
        expected = reference("max_pool2d_backward", grad, x, kernel_size, **options)
        assert_ulp(xent.max_pool2d_backward(grad, x, kernel_size, **options), expected, 0, dtype=dtype)
        assert_average("avg_pool2d", xent.avg_pool2d(x, kernel_size, **options), x, kernel_size, **options)


def test_kernels_far_larger_than_the_image(dtype):
    x = image((1, 2, 3, 5), dtype)
    options = {"stride": (20, 1), "padding": (1000, 50000)}
    y = xent.max_pool2d(x, (2000, 100001), **options)
    assert (y == x.max((2, 3), keepdims=True)).all()
    grad = xent.max_pool2d_backward(np.ones_like(y), x, (2000, 100001), **options)
    assert_ulp(grad, np.where(x == x.max((2, 3), keepdims=True), y[0, 0].size, 0), 0, dtype=dtype)


# Sums -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape, kernel_size", [
    ((1, 2, 16, 16), 16), ((1, 1, 64, 64), 64), ((1, 1, 65, 80), 64), ((1, 1, 300, 20), (300, 3)),
    ((1, 1, 3, 5000), (2, 4999)), ((1, 1, 9, 70), (4, 65)), ((1, 1, 8, 8), (5, 3)), ((1, 1, 90, 90), (8, 80)),
])  # fmt: skip
def test_means_of_equal_numbers(shape, kernel_size, dtype):
    # all roundings go one way where each sum is a little too small or too large
    for value in [0.1, 0.9, 1 / 3]:
        value = dtype.type(value)
        x = np.full(shape, value)
        for stride in [1, 2, 3]:
            y = xent.avg_pool2d(x, kernel_size, stride=stride)
            assert_ulp(y, np.full(y.shape, value, np.float64), 4, dtype=dtype)
            y = xent.avg_pool2d(x, kernel_size, stride=stride, divisor_override=7)
            cells = np.prod(np.broadcast_to(kernel_size, 2))
            expected = float(Fraction(float(value)) * int(cells) / 7)
            assert_ulp(y, np.full(y.shape, expected), 4, dtype=dtype)


@pytest.mark.slow
def test_a_mean_of_more_numbers_than_floats_count():
    assert xent.avg_pool2d(np.ones((1, 1, 1, 2**25), np.float32), (1, 2**25)) == 1


@pytest.mark.parametrize("kernel_size, stride", [
    (1, 1), (2, 1), (2, 2), (3, 1), (3, 2), ((3, 4), 1), ((4, 3), 1), ((4, 2), 2), (4, 1), (5, 1),
    ((2, 30), 1), (7, 2), (8, 3), (16, 16), ((9, 3), 2),
])  # fmt: skip
def test_the_bound_of_means_holds_where_roundings_add_up(kernel_size, stride, dtype):
    rows, columns = np.broadcast_to(kernel_size, 2)
    rng = np.random.default_rng(11)
    half = np.finfo(dtype).eps / 2  # what a sum from 1 on loses
    choice = np.array([1, half, half * 1.5, half / 2, half * 0.999, 0.0625 + half / 16, 0.5 + half / 2])
    for weights in [[1, 9, 3, 1, 1, 0, 0], [1, 3, 1, 1, 1, 3, 3], [1] * 7]:
        p = np.divide(weights, np.sum(weights))
        x = rng.choice(choice, (1, 1, rows + 3 * stride, columns + 16 * stride), p=p).astype(dtype)
        y = xent.avg_pool2d(x, kernel_size, stride=stride)
        grad = rng.choice(choice, y.shape, p=p).astype(dtype)
        back = xent.avg_pool2d_backward(grad, x, kernel_size, stride=stride)
        through = max_gradient(grad, x.shape, kernel_size, stride)
        exact, shares = np.zeros(y.shape), np.zeros(x.shape)
        for r, c in np.ndindex(y.shape[2:]):
            seen = (0, 0, slice(r * stride, r * stride + rows), slice(c * stride, c * stride + columns))
            exact[0, 0, r, c] = Fraction(math.fsum(x[seen].ravel())) / int(rows * columns)
        for r, c in np.ndindex(x.shape[2:]):
            low = [max(0, -(-(at - k + 1) // stride)) for at, k in ((r, rows), (c, columns))]
            seen = (0, 0, slice(low[0], r // stride + 1), slice(low[1], c // stride + 1))
            shares[0, 0, r, c] = Fraction(math.fsum(grad[seen].ravel())) / int(rows * columns)
        assert_ulp(y, exact, 4, dtype=dtype, slack=EPS64 * exact)
        assert_ulp(back, shares, 4, dtype=dtype, slack=EPS64 * shares)
        assert_ulp(through[0], through[1], 4, dtype=dtype)


def max_gradient(grad, shape, kernel_size, stride):
    """What a pixel gets that is the largest of all, and what is right."""
    _, _, height, width = shape
    y, x = height // 2, width // 2
    pixels = np.zeros(shape, grad.dtype)
    pixels[0, 0, y, x] = 1
    result = xent.max_pool2d_backward(grad, pixels, kernel_size, stride=stride)[0, 0, y, x]
    seen = xent.reference.max_pool2d(pixels, kernel_size, stride=stride) == 1
    return result, np.float64(math.fsum(grad[seen]))


def test_infinite_sums(dtype):
    large = np.finfo(dtype).max
    for size in [2, 3, 6]:
        x = np.full((1, 1, size, size + 20), 1, dtype)
        x[0, 0, 0, 5], x[0, 0, 1, 11] = np.inf, -np.inf
        for stride in [1, 2]:
            y = xent.avg_pool2d(x, size, stride=stride)
            np.testing.assert_allclose(y, reference("avg_pool2d", x, size, stride=stride), rtol=1e-6)
            grad = xent.avg_pool2d_backward(y, x, size, stride=stride)
            expected = reference("avg_pool2d_backward", y, x, size, stride=stride)
            np.testing.assert_allclose(grad, expected, rtol=1e-6)
        x[:] = large
        assert not np.isnan(xent.avg_pool2d(x, size)).any()


# Padding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {"kernel_size": 2, "padding": 2}, {"kernel_size": 1, "padding": 1}, {"kernel_size": 3, "padding": (0, 3)},
    {"kernel_size": 2, "padding": ((0, 2), (0, 0))}, {"kernel_size": (4, 2), "padding": (0, 2)},
    {"kernel_size": 2, "stride": 1, "padding": 1, "dilation": 7},  # a window that steps over the image
    {"kernel_size": (2, 1), "stride": 3, "padding": (8, 0), "dilation": (8, 1)},
])  # fmt: skip
def test_every_window_holds_a_pixel(options):
    x = np.ones((1, 1, 6, 7))
    for name in ["max_pool2d", "avg_pool2d"][: 1 if "dilation" in options else 2]:
        for module in [xent, xent.reference]:
            with pytest.raises(ValueError):
                getattr(module, name)(x, **options)
    with pytest.raises(ValueError, match="padding must leave a pixel in every window|larger than the padded"):
        xent.max_pool2d(x, **options)


def test_a_dilated_window_larger_than_the_padded_image():
    options = {"stride": 6, "padding": 1, "dilation": 2, "ceil_mode": True}
    with pytest.raises(ValueError, match="height 1"):
        xent.max_pool2d(np.ones((1, 1, 1, 224)), 3, **options)


def test_padding_as_wide_as_a_dilated_window(dtype):
    x = image((1, 1, 4, 5), dtype)
    options = {"stride": (1, 7), "padding": ((70, 0), (63, 3)), "dilation": (70, 7)}
    y = reference("max_pool2d", x, (2, 10), **options)
    assert_ulp(xent.max_pool2d(x, (2, 10), **options), y, 0, dtype=dtype)


def test_a_dilation_that_nobody_sees(dtype):
    x = image((1, 2, 64, 64), dtype)
    for dilation in [10**7, 2**31 - 1]:
        assert peak_bytes(lambda d=dilation: xent.max_pool2d(x, 1, dilation=d)) < 2**20
        np.testing.assert_array_equal(xent.max_pool2d(x, 1, dilation=dilation), x)
        np.testing.assert_array_equal(xent.max_pool2d_backward(x, x, 1, dilation=dilation), x)
    options = {"padding": (0, 5 * 10**4), "dilation": (1, 5 * 10**4), "stride": (1, 5 * 10**4)}
    np.testing.assert_array_equal(
        xent.max_pool2d(x[..., :1], (1, 2), **options), np.concatenate([x[..., :1]] * 2, -1)
    )


# Places -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel_size, kind", [
    (16, np.uint8), ((1, 257), np.uint16), ((256, 256), np.uint16),
    pytest.param((1, 65537), np.int32, marks=pytest.mark.slow),
])  # fmt: skip
def test_places_of_large_windows(kernel_size, kind, dtype):
    rows, columns = np.broadcast_to(kernel_size, 2)
    x = image((1, 2, rows + 2, columns + 3), dtype)
    y, places = xent.max_pool2d(x, kernel_size, stride=1, return_places=True)
    assert places.dtype == kind
    windows = np.lib.stride_tricks.sliding_window_view(x, (rows, columns), (2, 3)).reshape(*y.shape, -1)
    np.testing.assert_array_equal(places, windows.argmax(-1))
    grad = image(y.shape, dtype, "whole", seed=1)
    result = xent.max_pool2d_backward(grad, x, kernel_size, stride=1, places=places)
    np.testing.assert_array_equal(result, xent.max_pool2d_backward(grad, x, kernel_size, stride=1))
    with pytest.raises(TypeError, match=f"places must have dtype {places.dtype}"):
        xent.max_pool2d_backward(grad, x, kernel_size, stride=1, places=places.astype(np.int64))


def test_places_of_nans(dtype):
    x = image((1, 2, 9, 40), dtype, "ties")
    x[0, :, ::4, ::3] = np.nan
    x[0, 1, 5:] = -np.inf
    for kernel_size, options in KERNELS:
        y, places = xent.max_pool2d(x, kernel_size, return_places=True, **options)
        expected = xent.reference.max_pool2d(x, kernel_size, return_places=True, **options)
        np.testing.assert_array_equal(y, expected[0])
        np.testing.assert_array_equal(places, expected[1])


def test_any_places_are_safe(dtype):
    rng = np.random.default_rng(12)
    for shape, kernel_size, options in CASES + PADDED + DILATED:
        x = image(shape, dtype)
        y, places = xent.max_pool2d(x, kernel_size, return_places=True, **options)
        places = rng.integers(0, 256, places.shape, np.uint8)
        grad = image(y.shape, dtype, "whole", seed=2)
        result = xent.max_pool2d_backward(grad, x, kernel_size, places=places, **options)
        expected = reference("max_pool2d_backward", grad, x, kernel_size, places=places, **options)
        assert_ulp(result, expected, 0, dtype=dtype)
    x = np.ones((1, 1, 2, 70_000), dtype)
    for place in [-1, -(2**31), 2**31 - 1, 69_000]:
        places = np.full((1, 1, 2, 1), place, np.int32)
        result = xent.max_pool2d_backward(np.ones(places.shape), x, (1, 70_000), places=places)
        assert result.sum() == (2 if place == 69_000 else 0)


@pytest.mark.parametrize("shape, kernel_size, options", [
    ((3, 5, 14, 14), 2, {}),  # short rows of pairs, of many planes
    ((2, 2, 12, 70), 2, {}),  # long ones
    ((2, 3, 7, 9), 2, {}),  # with a column and a row that no window sees
    ((1, 2, 9, 67), 2, {}),
    ((1, 3, 17, 34), 2, {"stride": (5, 2)}),
    ((2, 3, 22, 25), 3, {}),
    ((1, 2, 16, 41), (3, 2), {"stride": (4, 5)}),
    ((1, 2, 33, 40), (3, 2), {"stride": (7, 5), "dilation": (2, 3)}),
])  # fmt: skip
def test_windows_apart(shape, kernel_size, options, dtype, threads):
    """Windows that share no pixel: gradients go straight to the places that are told, and nowhere else."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    y, places = xent.max_pool2d(x, kernel_size, **options, return_places=True)
    grad = rng.standard_normal(y.shape).astype(dtype)
    room = np.full(x.size + 64, 7, dtype)
    told = xent.max_pool2d_backward(
        grad, x, kernel_size, **options, places=places, out=room[32:-32].reshape(shape)
    )
    assert_same_bits(told, xent.max_pool2d_backward(grad, x, kernel_size, **options))
    assert (room[:32] == 7).all()
    assert (room[-32:] == 7).all()
    wrong = np.full_like(places, 255)
    assert not xent.max_pool2d_backward(grad, x, kernel_size, **options, places=wrong).any()


@pytest.mark.parametrize("shape", [(3, 5, 14, 14), (2, 2, 9, 71)])
def test_pairs_give_no_negative_zeros(shape, dtype):
    """As where gradients are added up, to a 0."""
    x = np.ones(shape, dtype)
    y, places = xent.max_pool2d(x, 2, return_places=True)
    grad = np.full_like(y, -0.0)
    assert_same_bits(
        xent.max_pool2d_backward(grad, x, 2, places=places), xent.max_pool2d_backward(grad, x, 2)
    )


def test_shape_of_places():
    x = np.ones((1, 1, 4, 4))
    y, places = xent.max_pool2d(x, 2, return_places=True)
    for bad in [places[..., :1], places[0], np.zeros((0,), np.uint8)]:
        with pytest.raises(ValueError, match="places must have the shape of the output"):
            xent.max_pool2d_backward(y, x, 2, places=bad)
    for bad in ["first", places.astype(bool), places.astype(float)]:
        with pytest.raises(TypeError, match="places must have dtype uint8"):
            xent.max_pool2d_backward(y, x, 2, places=bad)


# Results and options ----------------------------------------------------------------------------------------

CALLS = {
    "max_pool2d": lambda x, grad, **options: xent.max_pool2d(x, 2, **options),
    "avg_pool2d": lambda x, grad, **options: xent.avg_pool2d(x, 2, **options),
    "max_pool2d_backward": lambda x, grad, **options: xent.max_pool2d_backward(grad, x, 2, **options),
    "avg_pool2d_backward": lambda x, grad, **options: xent.avg_pool2d_backward(grad, x, 2, **options),
}


@pytest.mark.parametrize("name", CALLS)
def test_out(name, dtype, threads):
    x, grad = image((2, 3, 8, 10), dtype), image((2, 3, 4, 5), dtype)
    call = CALLS[name]
    expected = call(x, grad)
    out = np.full_like(expected, np.nan)
    assert call(x, grad, out=out) is out
    np.testing.assert_array_equal(out, expected)
    spread = np.full((*out.shape[:3], 2 * out.shape[3]), np.nan, dtype)[..., ::2]
    assert call(x, grad, out=spread) is spread
    np.testing.assert_array_equal(spread, expected)
    read_only = np.zeros_like(expected)
    read_only.flags.writeable = False
    for bad, error, words in [
        (out.tolist(), TypeError, "out must be a NumPy array"),
        (out[:1], ValueError, "out must have shape"),
        (out.astype("f2"), ValueError, "out must have dtype"),
        (read_only, ValueError, "writeable"),
        (np.broadcast_to(out[:1], out.shape), ValueError, "writeable|repeat"),
    ]:
        with pytest.raises(error, match=words):
            call(x, grad, out=bad)
    memory = np.zeros(x.size + grad.size, dtype)
    x, other = memory[: x.size].reshape(x.shape), memory[x.size :].reshape(grad.shape)
    inside = memory[-expected.size - 1 : -1].reshape(expected.shape) if "back" in name else memory[7:127]
    with pytest.raises(ValueError, match="out overlaps"):
        call(x, other, out=inside.reshape(expected.shape))


def test_out_of_places():
    x, grad = np.ones((1, 1, 4, 4)), np.ones((1, 1, 2, 2))
    out = np.zeros_like(grad)
    y, places = xent.max_pool2d(x, 2, return_places=True, out=out)
    assert y is out and (y == 1).all() and (places == 0).all()
    memory = np.zeros(16)
    places = memory.view(np.uint8)[:4].reshape(1, 1, 2, 2)
    with pytest.raises(ValueError, match="out overlaps places"):
        xent.max_pool2d_backward(grad, x, 2, places=places, out=memory.reshape(x.shape))


@pytest.mark.parametrize("value", ["no", "floor", 1, 0.0, None, np.ones(1, bool)])
def test_flags_are_bools(value):
    x = np.ones((1, 1, 4, 4))
    for name, call in CALLS.items():
        with pytest.raises(TypeError, match="ceil_mode must be True or False"):
            call(x, x[..., :2, :2], ceil_mode=value)
        if "avg" in name:
            with pytest.raises(TypeError, match="count_include_pad must be True or False"):
                call(x, x[..., :2, :2], count_include_pad=value)
    with pytest.raises(TypeError, match="return_places must be True or False"):
        xent.max_pool2d(x, 2, return_places=value)
    assert xent.max_pool2d(x, 2, ceil_mode=np.True_, return_places=np.False_).shape == (1, 1, 2, 2)


def test_divisor_override():
    x = np.ones((1, 1, 4, 4))
    for value, error in [
        (0, ValueError),
        (-4, ValueError),
        (2**31, ValueError),
        (2.0, TypeError),
        (True, TypeError),
    ]:
        for call in [CALLS["avg_pool2d"], CALLS["avg_pool2d_backward"]]:
            with pytest.raises(error, match="divisor_override"):
                call(x, x[..., :2, :2], divisor_override=value)
    for divisor in [2**24 + 1, 2**31 - 1]:  # the first is no float
        y = xent.avg_pool2d(x.astype("f4"), 2, divisor_override=divisor)
        assert_ulp(y, np.full(y.shape, 4 / divisor), 1, dtype=np.dtype("f4"))


@pytest.mark.parametrize("shape", [(0, 2, 6, 6), (2, 0, 6, 6), (0, 0, 1, 2**40)])
def test_nothing_to_pool(shape):
    for name, call in CALLS.items():
        pooled = (*shape[:2], *(n // 2 for n in shape[2:])) if shape[2] > 1 else None
        if pooled is None:
            continue
        expected = shape if "backward" in name else pooled
        assert call(np.zeros(shape, "f4"), np.zeros(pooled, "f4")).shape == expected
    y, places = xent.max_pool2d(np.zeros(shape, "f4"), 1, return_places=True) if shape[2] > 1 else (0, 0)
    assert np.shape(y) == np.shape(places)


# Ways of the gradients of maxima ----------------------------------------------------------------------------
# By bands of rows where windows are the usual ones, else scattered.


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "kernel_size, padding", [(2, 0), (3, 1), ((1, 3), 0), ((3, 2), ((1, 0), (0, 1))), ((2, 5), (1, 2))]
)
def test_narrow_images_have_the_bits_of_wide_ones(kernel_size, padding, stride, dtype, threads):
    """On either side of each border: a wide image whose other outputs give nothing.

    But of 3x3/2, whose gradients are added up in another order where rows are narrow.
    """
    rng = np.random.default_rng(4)
    options = {"stride": stride, "padding": padding}
    for width in [5, 6, 9, 16, *range(26, 37), *range(60, 69)]:
        x = np.round(rng.standard_normal((3, 5, 7, width + 100)), 1).astype(dtype)
        x[..., width : width + 5] = -9  # never a maximum beside the narrow image
        narrow = np.ascontiguousarray(x[..., :width])
        shape = xent.max_pool2d(narrow, kernel_size, **options).shape
        grad = (rng.standard_normal(shape) * 10.0 ** rng.integers(-4, 5, shape)).astype(dtype)
        wide_grad = np.zeros(xent.max_pool2d(x, kernel_size, **options).shape, dtype)
        wide_grad[..., : shape[-1]] = grad
        places = xent.max_pool2d(narrow, kernel_size, return_places=True, **options)[1]
        expected = xent.max_pool2d_backward(wide_grad, x, kernel_size, **options)[..., :width]
        for given_places in [None, places]:
            result = xent.max_pool2d_backward(grad, narrow, kernel_size, places=given_places, **options)
            if (kernel_size, stride) == (3, 2):
                scale = reference("max_pool2d_backward", abs(grad), narrow, kernel_size, **options)
                assert_ulp(result, expected, 4, dtype=dtype, scale=scale, what=f"{width}")
            else:
                assert_same_bits(result, expected, f"{width}")


@pytest.mark.parametrize(
    "kernel_size, stride", [(3, 1), (5, 2), (5, 3), ((2, 4), 1), ((1, 9), 1), (5, 1), (7, 2)]
)
def test_gradients_of_pixels_in_many_windows(kernel_size, stride, dtype, threads):
    """Few terms are added one after the other, many in more bits: within 4 ulp of the sum of magnitudes."""
    rng = np.random.default_rng(5)
    for shape, padding in [((2, 3, 23, 31), "valid"), ((3, 2, 40, 9), "same"), ((40, 5, 9, 9), "same")]:
        x = np.where(rng.random(shape) < 0.1, 1, 0).astype(dtype)  # few maxima, each of many windows
        y, places = xent.max_pool2d(x, kernel_size, stride=stride, padding=padding, return_places=True)
        grad = (rng.standard_normal(y.shape) * 2.0 ** rng.integers(-4, 5, y.shape)).astype(dtype)
        options = {"stride": stride, "padding": padding}
        exact = reference("max_pool2d_backward", grad, x, kernel_size, **options)
        scale = reference("max_pool2d_backward", abs(grad), x, kernel_size, **options)
        for given_places in [None, places]:
            found = xent.max_pool2d_backward(grad, x, kernel_size, places=given_places, **options)
            assert_ulp(found, exact, 4, dtype=dtype, scale=scale, slack=4 * EPS64 * scale)
            wrong = None if given_places is None else places.copy()
            if wrong is not None:  # the last output's place is no pixel: its gradient alone is missing
                wrong[-1, -1, -1, -1] = 255
                without = grad.copy()
                without[-1, -1, -1, -1] = 0
                expected = xent.max_pool2d_backward(without, x, kernel_size, places=places, **options)
                found = xent.max_pool2d_backward(grad, x, kernel_size, places=wrong, **options)
                assert_ulp(found, expected, 0, dtype=dtype)


@pytest.mark.parametrize(
    "shape", [(2, 2, 700, 5), (40, 3, 150, 3), (1, 2, 70, 300), (1, 1, 5, 9000), (3, 1, 600, 33)]
)
@pytest.mark.parametrize("kernel_size, options", [
    (2, {"stride": 1}),
    (3, {"stride": 1, "padding": 1}),
    (3, {"stride": 2, "padding": 1}),
    (2, {"stride": 2, "ceil_mode": True}),
    (4, {"stride": 2, "padding": ((2, 1), (1, 2))}),
    ((5, 2), {"stride": (1, 2), "padding": (1, 0)}),
    ((2, 3), {"stride": (7, 1), "padding": (0, 1)}),
    ((3, 2), {"stride": (2, 1), "dilation": (2, 1)}),
])  # fmt: skip
def test_images_whose_gradients_are_worked_on_in_parts(shape, kernel_size, options, dtype, threads):
    x = image(shape, dtype)
    y, places = xent.max_pool2d(x, kernel_size, return_places=True, **options)
    grad = image(y.shape, dtype, "whole", seed=1)
    expected = reference("max_pool2d_backward", grad, x, kernel_size, **options)
    for given_places in (None, places):
        result = xent.max_pool2d_backward(grad, x, kernel_size, places=given_places, **options)
        assert_ulp(result, expected, 0, dtype=dtype)


@pytest.mark.parametrize("shape", [(40, 33), (7, 5), (150, 70), (1, 2000), (900, 1)])
@pytest.mark.parametrize("kernel_size", [5, 17, (1, 300)])
def test_gradients_that_many_windows_give_to_one_pixel(shape, kernel_size, dtype):
    rng = np.random.default_rng(3)
    x = np.zeros((2, 3, *shape), dtype)
    x[:, :, shape[0] // 2, shape[1] // 2] = 1
    options = {"stride": 1, "padding": "same"}
    y, places = xent.max_pool2d(x, kernel_size, return_places=True, **options)
    grad = (rng.standard_normal(y.shape) * 10.0 ** rng.integers(-6, 6, y.shape)).astype(dtype)
    expected = reference("max_pool2d_backward", grad, x, kernel_size, **options)
    magnitudes = reference("max_pool2d_backward", np.abs(grad), x, kernel_size, **options)
    found = xent.max_pool2d_backward(grad, x, kernel_size, places=places, **options)
    assert np.all(np.abs(found - expected) <= 4 * np.finfo(dtype).eps * magnitudes)
    assert_same_bits(found, xent.max_pool2d_backward(grad, x, kernel_size, **options))


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 7), (4, 40), (1, 500), (33, 1), (120, 2)])
def test_windows_that_are_the_image(size, dtype):
    for padding in [0, ((1, 0), (0, 1))]:
        kernel = size if padding == 0 else (size[0] + 1, size[1] + 1)
        options = {"stride": 1, "padding": padding}
        x = image((3, 4, *size), dtype, "ties")
        x[0, 1] = -np.inf
        x[1, 2, -1, size[1] // 2 :] = np.nan
        x[2, 3] = 0.0
        x[2, 3, ::2, ::2] = -0.0
        y, right = reference("max_pool2d", x, kernel, return_places=True, **options)
        found, places = xent.max_pool2d(x, kernel, return_places=True, **options)
        np.testing.assert_array_equal(found, y)
        np.testing.assert_array_equal(places, right)
        np.testing.assert_array_equal(xent.max_pool2d(x, kernel, **options), y)
        grad = image(y.shape, dtype, seed=5)
        expected = reference("max_pool2d_backward", grad, x, kernel, places=right, **options)
        for given_places in [None, places]:
            result = xent.max_pool2d_backward(grad, x, kernel, places=given_places, **options)
            np.testing.assert_array_equal(result, expected)
        result = xent.avg_pool2d_backward(grad, x, kernel, **options)
        assert_average("avg_pool2d_backward", result, grad, x, kernel, **options)


def drawn_pool(rng):
    """A shape, kernel and options: small planes or one long axis; windows that overlap or lie apart."""
    kernel = rng.integers(1, 1 + rng.choice([3, 5, 12]), 2)
    stride = np.where(rng.random(2) < 0.5, kernel, rng.integers(1, 1 + rng.choice([2, 4, 9]), 2))
    dilation = rng.integers(1, 4, 2) if rng.random() < 0.2 else np.ones(2, int)
    padding = [[int(rng.integers(0, k)) for _ in range(2)] if rng.random() < 0.4 else [0, 0] for k in kernel]
    dilation[np.sum(padding, axis=1) > 0] = 1  # windows of padding alone are errors
    room = np.maximum(1, (kernel - 1) * dilation + 1 - np.sum(padding, axis=1))
    size = room + rng.integers(0, [(20, 20), (40, 70), (1, 200), (200, 1)][rng.integers(4)])
    planes = rng.integers(1, [4, 60] if size.prod() < 300 else [3, 4])
    kernel, stride, dilation = (tuple(map(int, pair)) for pair in (kernel, stride, dilation))
    options = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": bool(rng.random() < 0.3),
    }
    return (*planes.tolist(), *size.tolist()), kernel, options


def test_drawn_pools(dtype, threads):
    rng = np.random.default_rng(21)
    for _ in range(150):
        shape, kernel, options = drawn_pool(rng)
        what = f"{shape} {kernel} {options}"
        x = image(shape, dtype, "ties")
        y, right = reference("max_pool2d", x, kernel, return_places=True, **options)
        _, places = xent.max_pool2d(x, kernel, return_places=True, **options)
        np.testing.assert_array_equal(places, right, what)
        grad = image(y.shape, dtype, "whole", seed=6)
        expected = reference("max_pool2d_backward", grad, x, kernel, places=right, **options)
        for given_places in [None, places]:
            result = xent.max_pool2d_backward(grad, x, kernel, places=given_places, **options)
            assert_ulp(result, expected, 0, dtype=dtype, what=what)
        if options.pop("dilation") != (1, 1):
            continue
        y = xent.avg_pool2d(x, kernel, **options)
        assert_average("avg_pool2d", y, x, kernel, **options)
        result = xent.avg_pool2d_backward(grad, x, kernel, **options)
        assert_average("avg_pool2d_backward", result, grad, x, kernel, **options)


# 16-bit floats ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bits_are_floats_rounded_once(half, threads):
    half = np.dtype(half)
    for shape, kernel_size, options in CASES + PADDED + DILATED:
        x = image(shape, half)
        single = x.astype("f4")
        y, places = xent.max_pool2d(x, kernel_size, return_places=True, **options)
        right, single_places = xent.max_pool2d(single, kernel_size, return_places=True, **options)
        assert y.dtype == half
        np.testing.assert_array_equal(y, right.astype(half))
        np.testing.assert_array_equal(xent.max_pool2d(x, kernel_size, **options), y)
        np.testing.assert_array_equal(places, single_places)
        grad = image(y.shape, half, seed=3)
        calls = [("max_pool2d_backward", options), ("max_pool2d_backward", options | {"places": places})]
        if "dilation" not in options:
            mean = xent.avg_pool2d(x, kernel_size, **options)
            assert mean.dtype == half
            np.testing.assert_array_equal(mean, xent.avg_pool2d(single, kernel_size, **options).astype(half))
            calls.append(("avg_pool2d_backward", options))
        for name, chosen in calls:
            result = getattr(xent, name)(grad, x, kernel_size, **chosen)
            assert result.dtype == half
            right = getattr(xent, name)(grad.astype("f4"), single, kernel_size, **chosen)
            np.testing.assert_array_equal(result, right.astype(half))


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
@pytest.mark.parametrize("shape, kernel_size, options", [case for case in CASES if np.prod(case[0]) < 300])
def test_backward_is_the_derivative(name, shape, kernel_size, options):
    x = np.random.default_rng(2).permutation(np.prod(shape)).reshape(shape) / 7.0  # no ties
    grad = image(reference(name, x, kernel_size, **options).shape, np.float64, seed=3)
    expected = differences(lambda v: np.sum(grad * reference(name, v, kernel_size, **options)), x, step=0.05)
    for module in [xent, xent.reference]:
        result = getattr(module, f"{name}_backward")(grad, x, kernel_size, **options)
        assert np.allclose(result, expected, rtol=0, atol=DIFFERENCES)


def test_by_hand(dtype):
    x = np.arange(25, dtype=dtype).reshape(1, 1, 5, 5)
    for module in [xent, xent.reference]:
        # windows that stick out at the end count in ceil_mode only
        assert module.max_pool2d(x, 2).tolist() == [[[[6, 8], [16, 18]]]]
        assert module.max_pool2d(x, 2, ceil_mode=True).tolist() == [[[[6, 8, 9], [16, 18, 19], [21, 23, 24]]]]
        assert module.avg_pool2d(x, 2).tolist() == [[[[3, 5], [13, 15]]]]
        # the last window must start inside the image or its upper left padding: no third row here
        assert module.max_pool2d(x[:, :, :4, :4], 2, stride=2, padding=1, ceil_mode=True).shape == (
            1,
            1,
            3,
            3,
        )
        assert module.max_pool2d(x, 2, stride=3, padding=1, ceil_mode=True).shape == (1, 1, 2, 2)
        assert module.max_pool2d(x[:, :, :4, :4], 1, stride=4, ceil_mode=True).shape == (1, 1, 1, 1)
        # a cell beyond the padded image is never counted, a padded one only if asked for
        ones = np.ones((1, 1, 3, 3), dtype)
        options = {"stride": 2, "padding": 1, "ceil_mode": True}
        counted = module.avg_pool2d(ones, 2, **options)
        assert counted.tolist() == [[[[0.25, 0.5], [0.5, 1]]]]
        assert module.avg_pool2d(ones, 2, count_include_pad=False, **options).tolist() == [[[[1, 1], [1, 1]]]]
        wide = module.avg_pool2d(np.ones((1, 1, 4, 4), dtype), 3, stride=2, ceil_mode=True)
        assert wide.tolist() == [[[[1, 1], [1, 1]]]]
        wide = module.avg_pool2d(np.ones((1, 1, 4, 4), dtype), 3, stride=3, padding=1, ceil_mode=True)
        assert np.allclose(wide, [[[[4 / 9, 4 / 9], [4 / 9, 4 / 9]]]], rtol=0, atol=1e-7)


def test_padding_never_wins(dtype):
    x = np.full((1, 2, 4, 4), -np.inf, dtype)
    x[0, 0] = -7
    result = xent.max_pool2d(x, 3, stride=2, padding=1)
    assert (result[0, 0] == -7).all()
    assert (result[0, 1] == -np.inf).all()
    # the gradient of a window of only -inf goes to its first cell inside the image
    grad = xent.max_pool2d_backward(np.ones((1, 2, 2, 2), dtype), x, 3, stride=2, padding=1)
    assert_ulp(
        grad,
        reference("max_pool2d_backward", np.ones((1, 2, 2, 2)), x, 3, stride=2, padding=1),
        0,
        dtype=dtype,
    )
    assert grad.sum() == 8


@pytest.mark.parametrize("width", [2, 3, 5, 9, 17, 40])
def test_first_maximum_takes_the_gradient(width, dtype):
    x = np.zeros((1, 1, 4, 2 * width), dtype)
    grad = np.arange(1, 2 * width + 1, dtype=dtype).reshape(1, 1, 2, width)
    expected = np.zeros_like(x)
    expected[:, :, ::2, ::2] = grad
    assert_ulp(xent.max_pool2d_backward(grad, x, 2), expected, 0, dtype=dtype)
    # +0 and -0 are a tie as well
    x[:, :, ::2, ::2] = -0.0
    assert_ulp(xent.max_pool2d_backward(grad, x, 2), expected, 0, dtype=dtype)


@pytest.mark.parametrize("place", [(0, 0), (3, 5), (7, 9), (4, 4)])
def test_nan_propagates_and_takes_the_gradient(place, dtype):
    x = image((1, 1, 8, 10), dtype)
    x[0, 0, 5, 5] = np.inf
    x[0, 0][place] = np.nan
    x[0, 0, 7, 9] = np.nan  # a second one: the first in a window counts
    for options in [{"kernel_size": 2}, {"kernel_size": 3, "stride": 2, "padding": 1}]:
        y = reference("max_pool2d", x, **options)
        assert np.isnan(y).sum() >= 1
        assert_ulp(xent.max_pool2d(x, **options), y, 0, dtype=dtype)
        grad = image(y.shape, dtype, "whole", seed=4) + dtype.type(3)
        expected = reference("max_pool2d_backward", grad, x, **options)
        assert_ulp(xent.max_pool2d_backward(grad, x, **options), expected, 0, dtype=dtype)
        assert expected[0, 0][place] != 0
        average = xent.avg_pool2d(x, **options)
        assert np.array_equal(np.isnan(average), np.isnan(reference("avg_pool2d", x, **options)))


@pytest.mark.parametrize("variant", ZOO)
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_every_memory_layout(name, variant, dtype):
    for shape, kernel_size, options in [CASES[0], CASES[6], CASES[7]]:
        x = image(shape, dtype)
        y = reference(name, x, kernel_size, **options)
        result = getattr(xent, name)(of_zoo(variant, x), kernel_size, **options)
        assert_ulp(result, y, 8, dtype=dtype, scale=np.ones(y.shape))
        grad = image(y.shape, dtype, seed=5)
        expected = reference(f"{name}_backward", grad, x, kernel_size, **options)
        result = getattr(xent, f"{name}_backward")(
            of_zoo(variant, grad), of_zoo(variant, x), kernel_size, **options
        )
        assert_ulp(result, expected, 8, dtype=dtype, scale=np.ones(shape))


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_integer_data_becomes_float64(name):
    x = np.arange(36, dtype=np.int16).reshape(1, 1, 6, 6)
    assert_ulp(getattr(xent, name)(x, 2), reference(name, x, 2), 0, dtype=np.float64)


@given(data=st.data())
def test_any_shape_and_options(data):
    dtype = np.dtype(data.draw(st.sampled_from(["f4", "f8"])))
    kernel = tuple(data.draw(st.integers(1, 6)) for _ in range(2))
    stride = data.draw(st.none() | st.tuples(st.integers(1, 5), st.integers(1, 5)))
    dilation = tuple(data.draw(st.integers(1, 3)) for _ in range(2))
    sides = [data.draw(st.integers(0, k - 1)) for k in kernel for _ in range(2)]
    padding = data.draw(
        st.sampled_from([((sides[0], sides[1]), (sides[2], sides[3])), (sides[0], sides[2]), "same"])
    )
    options = {"stride": stride, "padding": padding, "ceil_mode": data.draw(st.booleans())}
    size = [data.draw(st.integers((k - 1) * d + 1, 24)) for k, d in zip(kernel, dilation, strict=True)]
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)), *size)
    x = image(shape, dtype, "ties")
    y, right = xent.reference.max_pool2d(x, kernel, dilation=dilation, return_places=True, **options)
    assert_ulp(xent.max_pool2d(x, kernel, dilation=dilation, **options), y, 0, dtype=dtype)
    again, places = xent.max_pool2d(x, kernel, dilation=dilation, return_places=True, **options)
    assert_ulp(again, y, 0, dtype=dtype)
    np.testing.assert_array_equal(places, right)
    grad = image(y.shape, dtype, "whole", seed=6)
    expected = reference("max_pool2d_backward", grad, x, kernel, dilation=dilation, **options)
    for given_places in [None, places]:
        result = xent.max_pool2d_backward(grad, x, kernel, dilation=dilation, places=given_places, **options)
        assert_ulp(result, expected, 0, dtype=dtype)
    options["count_include_pad"] = data.draw(st.booleans())
    options["divisor_override"] = data.draw(st.none() | st.integers(1, 9))
    y = xent.avg_pool2d(x, kernel, **options)
    assert_average("avg_pool2d", y, x, kernel, **options)
    grad = image(y.shape, dtype, seed=7)
    result = xent.avg_pool2d_backward(grad, x, kernel, **options)
    assert_average("avg_pool2d_backward", result, grad, x, kernel, **options)


@pytest.mark.parametrize("kernel", [4, 5, 6, (6, 2)])
def test_ceil_mode_with_kernels_larger_than_the_image(kernel):
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    np.testing.assert_array_equal(
        xent.max_pool2d(x, kernel, ceil_mode=True), xent.reference.max_pool2d(x, kernel, ceil_mode=True)
    )
    np.testing.assert_allclose(
        xent.avg_pool2d(x, kernel, ceil_mode=True), xent.reference.avg_pool2d(x, kernel, ceil_mode=True)
    )
