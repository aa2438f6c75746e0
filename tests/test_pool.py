"""max_pool2d, avg_pool2d and their backward passes, against the reference and examples by hand."""

import numpy as np
import pytest
from helpers import ZOO, assert_ulp, differences, of_zoo, reference
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
DILATED = [
    ((1, 2, 9, 11), 2, {"dilation": 2}),
    ((2, 2, 12, 11), (2, 3), {"dilation": (3, 2), "padding": 1, "stride": 2}),
    ((1, 2, 10, 12), 3, {"dilation": 2, "stride": 2, "ceil_mode": True}),
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
@pytest.mark.parametrize("shape, kernel_size, options", CASES + DILATED)
def test_max_pool2d(shape, kernel_size, options, kind, dtype, threads):
    x = image(shape, dtype, kind)
    y = reference("max_pool2d", x, kernel_size, **options)
    assert_ulp(xent.max_pool2d(x, kernel_size, **options), y, 0, dtype=dtype)
    grad = image(y.shape, dtype, "whole", seed=1)
    expected = reference("max_pool2d_backward", grad, x, kernel_size, **options)
    assert_ulp(xent.max_pool2d_backward(grad, x, kernel_size, **options), expected, 0, dtype=dtype)


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("shape, kernel_size, options", CASES)
def test_avg_pool2d(shape, kernel_size, options, count_include_pad, dtype, threads):
    x = image(shape, dtype)
    options = options | {"count_include_pad": count_include_pad}
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
    # of windows that step over the image, those without a cell of it
    x = -np.ones((1, 1, 1, 3), dtype)
    dilated = {"stride": 1, "padding": (0, 1), "dilation": (1, 4)}
    expected = reference("max_pool2d", x, (1, 2), **dilated)
    assert_ulp(xent.max_pool2d(x, (1, 2), **dilated), expected, 0, dtype=dtype)
    grad = np.ones_like(expected, dtype)
    expected = reference("max_pool2d_backward", grad, x, (1, 2), **dilated)
    assert_ulp(xent.max_pool2d_backward(grad, x, (1, 2), **dilated), expected, 0, dtype=dtype)


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
    kernel = tuple(data.draw(st.integers(1, 4)) for _ in range(2))
    stride = data.draw(st.none() | st.tuples(st.integers(1, 5), st.integers(1, 5)))
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    options = {"stride": stride, "padding": padding, "ceil_mode": data.draw(st.booleans())}
    dilation = tuple(data.draw(st.integers(1, 3)) for _ in range(2))
    size = [
        data.draw(st.integers(max(1, (k - 1) * d + 1 - 2 * p), 20))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    ]
    shape = (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)), *size)
    x = image(shape, dtype, "ties")
    y = reference("max_pool2d", x, kernel, dilation=dilation, **options)
    assert_ulp(xent.max_pool2d(x, kernel, dilation=dilation, **options), y, 0, dtype=dtype)
    grad = image(y.shape, dtype, "whole", seed=6)
    expected = reference("max_pool2d_backward", grad, x, kernel, dilation=dilation, **options)
    assert_ulp(
        xent.max_pool2d_backward(grad, x, kernel, dilation=dilation, **options), expected, 0, dtype=dtype
    )
    options["count_include_pad"] = data.draw(st.booleans())
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
