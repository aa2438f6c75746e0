"""Convolutions of float16 and bfloat16: read exactly, computed in float32 and rounded once.

So every result is that of float32, which is held to its own bounds elsewhere, rounded; and that of the
reference, in whole numbers exactly.
"""

import itertools

import ml_dtypes
import numpy as np
import pytest
import test_conv
import test_conv_transpose
from compiled import Edge
from helpers import ZOO, assert_same_bits, assert_ulp, of_zoo, peak_bytes, reference, wide
from tolerances import ROUNDED, convolution

import xent

F32 = np.dtype(np.float32)
# every path that a kernel may take, and sums of many blocks and of many partial sums
OTHERS = [
    "700 channels", "70 x 70", "many groups", "300 images of one pixel", "depthwise, 56 x 56",
    "two pixels are left, 1x1", "a pixel is left, many terms", "a row in pieces, one left",
    "a pixel of 13 images is left", "1x1, stride 2 to 7 x 7", "4 x 4, groups", "4097 channels, 1x1",
]  # fmt: skip
CONVOLUTIONS = test_conv.CASES | {name: test_conv.PATHS[name] for name in [*test_conv.SAMPLE, *OTHERS]}
TRANSPOSED = test_conv_transpose.CASES
SIMPLE = ["3x3, padded", "1x1", "7x7, stride 2", "depthwise", "all together"]


@pytest.fixture(params=["float16", "bfloat16"])
def dtype(request):
    """The dtypes of 16 bits, in place of those that are computed in as they come."""
    return np.dtype(request.param if request.param == "float16" else ml_dtypes.bfloat16)


def narrowed(array, dtype):
    with np.errstate(all="ignore"):
        return np.asarray(array).astype(dtype)


def case(name, dtype, whole=False):
    """x, weight, bias and grad of a convolution, and its options."""
    x_shape, w_shape, options = CONVOLUTIONS[name]
    x, weight, bias = (a.astype(dtype) for a in test_conv.arrays(x_shape, w_shape, F32, whole=whole))
    shape = xent.conv2d(x, weight, **options).shape
    rng = np.random.default_rng(3)
    grad = rng.integers(-4, 5, shape) if whole else rng.standard_normal(shape)
    return x, weight, bias, grad.astype(dtype), options


def transposed_case(name, dtype, whole=False):
    """The same of a transposed one."""
    x_shape, w_shape, options = TRANSPOSED[name]
    arrays = test_conv_transpose.arrays(x_shape, w_shape, options, F32, whole=whole)
    x, weight, bias = (a.astype(dtype) for a in arrays)
    shape = xent.conv_transpose2d(x, weight, **options).shape
    rng = np.random.default_rng(4)
    grad = rng.integers(-4, 5, shape) if whole else rng.standard_normal(shape)
    return x, weight, bias, grad.astype(dtype), options


def assert_rounded(results, expected, dtype, what=""):
    """The results of float32, rounded once."""
    assert_same_bits(tuple(results), tuple(narrowed(value, dtype) for value in expected), what)


def as_float32(*arrays):
    return [a.astype(F32) for a in arrays]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_conv2d_is_that_of_float32(name, dtype, threads):
    x, weight, bias, grad, options = case(name, dtype)
    for activation in [None, "relu"]:
        result = xent.conv2d(x, weight, bias, activation=activation, **options)
        expected = xent.conv2d(*as_float32(x, weight, bias), activation=activation, **options)
        assert_rounded([result], [expected], dtype)
    results = xent.conv2d_backward(grad, x, weight, **options)
    assert_rounded(results, xent.conv2d_backward(*as_float32(grad, x, weight), **options), dtype)


@pytest.mark.parametrize("name", TRANSPOSED)
def test_conv_transpose2d_is_that_of_float32(name, dtype, threads):
    x, weight, bias, grad, options = transposed_case(name, dtype)
    for b in [None, bias]:
        result = xent.conv_transpose2d(x, weight, b, **options)
        expected = xent.conv_transpose2d(
            *as_float32(x, weight), None if b is None else b.astype(F32), **options
        )
        assert_rounded([result], [expected], dtype)
    results = xent.conv_transpose2d_backward(grad, x, weight, **options)
    assert_rounded(results, xent.conv_transpose2d_backward(*as_float32(grad, x, weight), **options), dtype)


@pytest.mark.parametrize("name", test_conv.LINES)
def test_conv1d_is_that_of_float32(name, dtype):
    options = test_conv.LINES[name][2]
    x, weight, bias, grad = (a.astype(dtype) for a in test_conv.line_arrays(name, F32))
    wide_x, wide_weight, wide_bias, wide_grad = as_float32(x, weight, bias, grad)
    result = xent.conv1d(x, weight, bias, **options)
    assert_rounded([result], [xent.conv1d(wide_x, wide_weight, wide_bias, **options)], dtype)
    results = xent.conv1d_backward(grad, x, weight, **options)
    assert_rounded(results, xent.conv1d_backward(wide_grad, wide_x, wide_weight, **options), dtype)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_against_the_reference(name, dtype):
    x, weight, bias, grad, options = case(name, dtype)
    exact, sizes = [wide(a) for a in (x, weight, bias)], [np.abs(wide(a)) for a in (x, weight, bias)]
    expected, size = reference("conv2d", *exact, **options), reference("conv2d", *sizes, **options)
    result = xent.conv2d(x, weight, bias, **options)
    slack = convolution(weight[0].size, size, F32)
    assert_ulp(result, expected, ROUNDED, dtype=dtype, slack=slack)
    expected = reference("conv2d_backward", wide(grad), *exact[:2], **options)
    sizes = reference("conv2d_backward", np.abs(wide(grad)), *sizes[:2], **options)
    terms = [weight[:, 0].size, grad[:, 0].size, grad[:, 0].size]
    for result, value, size, n in zip(
        xent.conv2d_backward(grad, x, weight, **options), expected, sizes, terms, strict=True
    ):
        assert_ulp(result, value, ROUNDED, dtype=dtype, slack=convolution(n, size, F32))


@pytest.mark.parametrize("name", SIMPLE)
def test_whole_numbers_are_rounded_once(name, dtype):
    x, weight, bias, grad, options = case(name, dtype, whole=True)
    exact = [wide(a) for a in (x, weight, bias)]
    result = xent.conv2d(x, weight, bias, **options)
    assert_rounded([result], [reference("conv2d", *exact, **options)], dtype)
    expected = reference("conv2d_backward", wide(grad), *exact[:2], **options)
    assert_rounded(xent.conv2d_backward(grad, x, weight, **options), expected, dtype)


@pytest.mark.parametrize("name", test_conv_transpose.SIMPLE)
def test_whole_numbers_of_transposed_ones_are_rounded_once(name, dtype):
    x, weight, bias, grad, options = transposed_case(name, dtype, whole=True)
    exact = [wide(a) for a in (x, weight, bias)]
    result = xent.conv_transpose2d(x, weight, bias, **options)
    assert_rounded([result], [reference("conv_transpose2d", *exact, **options)], dtype)
    expected = reference("conv_transpose2d_backward", wide(grad), *exact[:2], **options)
    assert_rounded(xent.conv_transpose2d_backward(grad, x, weight, **options), expected, dtype)


@pytest.mark.parametrize("shape, kernel_size, options", test_conv.WINDOWS)
def test_columns(shape, kernel_size, options, dtype, threads):
    x = test_conv.arrays(shape, (1, 1, 1, 1), F32)[0].astype(dtype)
    columns = xent.im2col(x, kernel_size, **options)
    assert_rounded([columns], [reference("im2col", wide(x), kernel_size, **options)], dtype)
    image = xent.col2im(columns, shape[2:], kernel_size, **options)
    expected = xent.col2im(columns.astype(F32), shape[2:], kernel_size, **options)
    assert_rounded([image], [expected], dtype)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_columns_are_copies_of_every_number(stride, dtype):
    # signalling NaNs too
    x = np.arange(2**16, dtype=np.uint16).view(dtype).reshape(1, 1, 256, 256)
    columns = xent.im2col(x, 3, stride=stride).view(np.uint16)
    expected = xent.im2col(np.arange(65536.0).reshape(x.shape), 3, stride=stride)
    assert np.array_equal(columns, expected)


# Sums -------------------------------------------------------------------------------------------------------


def test_sums_are_rounded_once(dtype):
    # a sum that is kept in 16 bits stands still at 2048 or 256, of ones
    ones = np.ones((70, 1, 60, 60), dtype)
    pixels = narrowed(70 * 60 * 60 / 4, dtype)
    gradients = xent.conv2d_backward(ones, ones, np.ones((1, 1, 1, 1), dtype))
    assert_ulp(gradients[1], np.full((1, 1, 1, 1), 252_000.0), 0.5, dtype=dtype)
    assert_ulp(gradients[2], np.full(1, 252_000.0), 0.5, dtype=dtype)
    quarters = narrowed(ones / 4, dtype)
    assert xent.conv2d_backward(quarters, ones, np.ones((1, 1, 1, 1), dtype))[2][0] == pixels
    image = xent.col2im(np.ones((1, 51 * 51, 50 * 50), dtype), (100, 100), 51)
    assert_rounded([image], [reference("col2im", np.ones((1, 51 * 51, 50 * 50)), (100, 100), 51)], dtype)
    deep = xent.conv2d(np.ones((1, 5000, 1, 1), dtype), np.ones((1, 5000, 1, 1), dtype))
    assert deep[0, 0, 0, 0] == narrowed(5000, dtype)


def test_factors_are_rounded_with_the_sum(dtype):
    # the bias and the ReLU come before the rounding
    tiny = float(ml_dtypes.finfo(dtype).eps) / 4
    x, weight = np.ones((1, 2, 9, 40), dtype), narrowed(np.array([1, tiny]), dtype).reshape(1, 2, 1, 1)
    result = xent.conv2d(x, weight, narrowed([-1], dtype), activation="relu")
    assert (result == narrowed(tiny, dtype)).all()


def test_beyond_the_range(dtype):
    largest = float(ml_dtypes.finfo(dtype).max)
    for x_shape, w_shape in [((1, 2, 9, 40), (3, 2, 3, 3)), ((2, 16, 7, 7), (20, 16, 1, 1))]:
        x, weight = narrowed(np.full(x_shape, largest), dtype), np.ones(w_shape, dtype)
        assert (xent.conv2d(x, weight) == np.inf).all()
        assert (xent.conv2d(-x, weight) == -np.inf).all()
        assert (xent.conv_transpose2d(-x, np.ones((x_shape[1], 3, 1, 1), dtype)) == -np.inf).all()
    # what leaves the range on the way, but not in the end: float32 has room for it
    x = narrowed(np.array([largest, largest, -largest, -largest]), dtype).reshape(1, 4, 1, 1)
    if dtype == np.float16:
        assert xent.conv2d(x, np.ones((1, 4, 1, 1), dtype))[0, 0, 0, 0] == 0


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_weights_that_are_not_finite(value, dtype):
    for name in test_conv_transpose.SIMPLE:
        x, weight, bias, _, options = transposed_case(name, dtype, whole=True)
        x[x == 0] = 1
        weight[weight == 0] = 1
        weight[tuple(n // 2 for n in weight.shape)] = value
        expected = reference("conv_transpose2d", wide(x), wide(weight), wide(bias), **options)
        result = xent.conv_transpose2d(x, weight, bias, **options)
        assert_ulp(result, expected, 0.5, dtype=dtype, what=name)


def test_subnormal_numbers(dtype):
    tiny = float(ml_dtypes.finfo(dtype).smallest_subnormal)
    x, weight, bias, _, options = case("3x3, padded", dtype, whole=True)
    expected = tiny * reference("conv2d", wide(x), wide(weight), wide(bias), **options)
    small, offset = narrowed(wide(x) * tiny, dtype), narrowed(wide(bias) * tiny, dtype)
    assert_rounded([xent.conv2d(small, weight, offset, **options)], [expected], dtype)


# Arguments --------------------------------------------------------------------------------------------------


def test_precisions_are_promoted(dtype):
    x, weight, bias, grad, options = case("3x3, padded", dtype)
    other = np.dtype(np.float16 if dtype != np.float16 else ml_dtypes.bfloat16)
    for kind, common in [
        (dtype, dtype),
        (other, F32),
        (F32, F32),
        (np.dtype(np.float64), np.dtype(np.float64)),
    ]:
        w = narrowed(weight, kind)
        expected = xent.conv2d(x.astype(common), w.astype(common), bias.astype(common), **options)
        assert_same_bits(xent.conv2d(x, w, bias, **options), expected)
        results = xent.conv2d_backward(grad, x, w, **options)
        assert all(result.dtype == common for result in results)
    assert_same_bits(
        xent.conv2d(x, weight, bias.tolist(), **options), xent.conv2d(x, weight, bias, **options)
    )
    assert xent.conv_transpose2d(x, weight.swapaxes(0, 1), bias.tolist(), **options).dtype == dtype


@pytest.mark.parametrize("variant", ZOO)
def test_every_memory_layout(variant, dtype):
    x, weight, bias, grad, options = case("all together", dtype)
    layouts = [of_zoo(variant, a) for a in (x, weight, bias)]
    assert_same_bits(xent.conv2d(*layouts, **options), xent.conv2d(x, weight, bias, **options))
    results = xent.conv2d_backward(of_zoo(variant, grad), *layouts[:2], **options)
    assert_same_bits(results, xent.conv2d_backward(grad, x, weight, **options))
    assert_same_bits(xent.im2col(layouts[0], 2), xent.im2col(x, 2))


@pytest.mark.parametrize("variant", ["contiguous", "every second element", "Fortran order"])
def test_out(variant, dtype):
    for name in SIMPLE:
        x, weight, bias, grad, options = case(name, dtype)
        expected = xent.conv2d(x, weight, bias, **options)
        out = of_zoo(variant, narrowed(np.full(expected.shape, np.nan), dtype))
        assert xent.conv2d(x, weight, bias, out=out, **options) is out
        assert_same_bits(out.copy(), expected, name)
        values = xent.conv2d_backward(grad, x, weight, **options)
        places = tuple(of_zoo(variant, narrowed(np.full(a.shape, np.nan), dtype)) for a in values)
        results = xent.conv2d_backward(grad, x, weight, out=places, **options)
        for result, place, value in zip(results, places, values, strict=True):
            assert result is place
            assert_same_bits(place.copy(), value, name)


@pytest.mark.parametrize("name", test_conv.SAMPLE)
def test_nothing_but_the_arrays_is_read_or_written(name, dtype):
    x, weight, bias, grad, options = case(name, dtype)
    y = xent.conv2d(x, weight, bias, **options)
    gradients = xent.conv2d_backward(grad, x, weight, **options)
    for offset in [0, 1, 3]:
        copies = [test_conv.guarded(a, np.nan, offset)[0] for a in (x, weight, bias, grad)]
        out, buffer, middle = test_conv.guarded(y, 7, offset)
        assert xent.conv2d(*copies[:3], out=out, **options) is out
        assert_same_bits(out, y)
        buffer[middle] = 7
        assert (buffer == 7).all(), "written beside out"
        assert_same_bits(xent.conv2d_backward(copies[3], *copies[:2], **options), gradients)
        outs = [test_conv.guarded(g, 7, offset) for g in gradients]
        xent.conv2d_backward(grad, x, weight, out=tuple(o for o, _, _ in outs), **options)
        for _, around, inside in outs:
            around[inside] = 7
            assert (around == 7).all(), "written beside a gradient"


def test_there_is_no_copy_of_the_images(dtype):
    x, weight = np.ones((8, 16, 100, 100), dtype), np.ones((16, 16, 3, 3), dtype)
    out = xent.conv2d(x, weight, padding=1)
    with xent.num_threads(1):
        assert peak_bytes(lambda: xent.conv2d(x, weight, padding=1, out=out)) < x.nbytes / 2
        gradients = xent.conv2d_backward(out, x, weight, padding=1)
        assert (
            peak_bytes(lambda: xent.conv2d_backward(out, x, weight, padding=1, out=gradients)) < 2 * x.nbytes
        )


def test_the_reference_returns_16_bits(dtype):
    x, weight, bias, grad, options = case("3x3, padded", dtype)
    for result in [
        xent.reference.conv2d(x, weight, bias, **options),
        *xent.reference.conv2d_backward(grad, x, weight, **options),
        xent.reference.im2col(x, 3),
        xent.reference.conv_transpose2d(x, weight.swapaxes(0, 1), **options),
    ]:
        assert result.dtype == dtype


@pytest.mark.parametrize("needs", list(itertools.product([False, True], repeat=3)))
def test_needs(needs, dtype):
    x, weight, _, grad, options = case("groups", dtype)
    everything = xent.conv2d_backward(grad, x, weight, **options)
    for need, result, value in zip(
        needs, xent.conv2d_backward(grad, x, weight, needs=needs, **options), everything, strict=True
    ):
        if need:
            assert_same_bits(result, value)
        else:
            assert result is None


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [16, 32])
@pytest.mark.parametrize("padding", [((0, 0), (0, 3000)), ((4, 4), (0, 3000)), ((0, 0), (3000, 9000))])
def test_tiles_of_padding_alone_read_nothing(padding, groups, stride, name):
    """Rows of outputs so long that they are cut: some pieces see no image, behind which memory ends."""
    x = Edge(1 << 16).last(np.ones((1, groups, 1, 3), np.dtype(name)))
    weight = np.ones((groups, 1, 1, 2), np.dtype(name))
    y = xent.conv2d(x, weight, groups=groups, padding=padding, stride=stride)
    expected = xent.conv2d(x.astype("f4"), weight.astype("f4"), groups=groups, padding=padding, stride=stride)
    np.testing.assert_array_equal(y.astype("f4"), expected)
