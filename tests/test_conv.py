"""conv2d, conv2d_backward, im2col and col2im, against the reference, whole numbers and differences."""

import itertools

import numpy as np
import pytest
from helpers import ZOO, assert_ulp, differences, of_zoo, reference
from hypothesis import given
from hypothesis import strategies as st
from tolerances import DIFFERENCES, convolution

import xent

# (x shape, weight shape, options): every option alone, then together, with sizes that no tile divides
CASES = {
    "1x1": ((2, 3, 5, 7), (4, 3, 1, 1), {}),
    "1x1, one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "1x1, many channels": ((1, 70, 9, 5), (33, 70, 1, 1), {}),
    "3x3": ((2, 3, 8, 9), (5, 3, 3, 3), {}),
    "3x3, padded": ((2, 16, 14, 14), (24, 16, 3, 3), {"padding": 1}),
    "3x3, odd tiles": ((1, 13, 17, 19), (29, 13, 3, 3), {"padding": 1}),
    "5x3": ((1, 2, 9, 6), (7, 2, 5, 3), {"padding": (2, 1)}),
    "1x7": ((2, 3, 4, 11), (2, 3, 1, 7), {"padding": (0, 3)}),
    "7x7, stride 2": ((1, 3, 23, 20), (8, 3, 7, 7), {"stride": 2, "padding": 3}),
    "11x11, stride 4": ((1, 3, 35, 31), (6, 3, 11, 11), {"stride": 4, "padding": 2}),
    "one padding for each side": ((1, 2, 6, 5), (3, 2, 3, 3), {"padding": ((0, 2), (3, 1))}),
    "valid": ((1, 2, 6, 5), (3, 2, 3, 2), {"padding": "valid", "stride": (2, 1)}),
    "same": ((1, 2, 6, 5), (3, 2, 4, 3), {"padding": "same"}),
    "same, stride": ((2, 2, 10, 7), (3, 2, 4, 3), {"padding": "same", "stride": (3, 2)}),
    "same, stride longer than kernel": ((1, 2, 10, 7), (3, 2, 1, 1), {"padding": "same", "stride": 3}),
    "same, dilation": ((1, 2, 10, 9), (3, 2, 3, 2), {"padding": "same", "dilation": (2, 3), "stride": 2}),
    "dilation": ((2, 3, 11, 12), (4, 3, 3, 3), {"dilation": (2, 3)}),
    "stride leaves a rest": ((1, 2, 10, 11), (3, 2, 3, 3), {"stride": (3, 4)}),
    "stride longer than kernel": ((1, 2, 11, 13), (3, 2, 2, 2), {"stride": (3, 5)}),
    "groups": ((2, 6, 7, 8), (9, 2, 3, 3), {"groups": 3, "padding": 1}),
    "depthwise": ((2, 10, 9, 8), (10, 1, 3, 3), {"groups": 10, "padding": 1}),
    "depthwise, two each": ((1, 5, 9, 8), (10, 1, 3, 3), {"groups": 5, "stride": 2}),
    "kernel as large as the image": ((3, 4, 5, 6), (7, 4, 5, 6), {}),
    "kernel larger than the image": ((1, 2, 3, 3), (2, 2, 5, 5), {"padding": 2}),
    "padding beyond the kernel": ((1, 2, 3, 4), (2, 2, 2, 2), {"padding": 4}),
    "empty batch": ((0, 3, 5, 5), (4, 3, 3, 3), {"padding": 1}),
    "all together": ((2, 4, 15, 13), (6, 2, 3, 2),
                     {"stride": (2, 1), "padding": ((2, 1), (0, 3)), "dilation": (3, 2), "groups": 2}),
    "deep sum": ((1, 300, 6, 6), (3, 300, 3, 3), {"padding": 1}),
}  # fmt: skip


def arrays(x_shape, w_shape, dtype, *, whole=False, seed=0):
    """x, weight and bias; whole numbers give exact sums in any order."""
    rng = np.random.default_rng([seed, *x_shape, *w_shape])
    shapes = [x_shape, w_shape, w_shape[:1]]
    if whole:
        return [rng.integers(-4, 5, shape).astype(dtype) for shape in shapes]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def assert_within(result, expected, terms, magnitude, dtype, what=""):
    assert_ulp(result, expected, 0, dtype=dtype, slack=convolution(terms, magnitude, dtype), what=what)


def assert_conv2d(result, x, weight, bias, **options):
    size = [
        np.abs(np.asarray(a, np.float64))
        for a in (x, weight, np.zeros(weight.shape[0]) if bias is None else bias)
    ]
    linear = {k: v for k, v in options.items() if k != "activation"}
    magnitude = reference("conv2d", *size, **linear)
    expected = reference("conv2d", x, weight, bias, **options)
    assert_within(result, expected, weight[0].size, magnitude, np.result_type(x, weight), "conv2d")


def assert_backward(results, grad, x, weight, **options):
    expected = reference("conv2d_backward", grad, x, weight, **options)
    sizes = reference("conv2d_backward", np.abs(grad), np.abs(x), np.abs(weight), **options)
    pixels = grad[:, 0].size
    terms = [weight[:, 0].size, pixels, pixels]
    for name, result, value, number, size in zip(
        ["x", "weight", "bias"], results, expected, terms, sizes, strict=True
    ):
        assert_within(result, value, number, size, np.result_type(x, weight), f"grad_{name}")


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_conv2d(name, biased, activation, dtype, threads):
    x_shape, w_shape, options = CASES[name]
    x, weight, bias = arrays(x_shape, w_shape, dtype)
    bias = bias if biased else None
    options = options | {"activation": activation}
    assert_conv2d(xent.conv2d(x, weight, bias, **options), x, weight, bias, **options)


@pytest.mark.parametrize("name", CASES)
def test_conv2d_backward(name, dtype, threads):
    x_shape, w_shape, options = CASES[name]
    x, weight, _ = arrays(x_shape, w_shape, dtype)
    shape = reference("conv2d", x, weight, **options).shape
    grad = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    assert_backward(xent.conv2d_backward(grad, x, weight, **options), grad, x, weight, **options)


@pytest.mark.parametrize("name", CASES)
def test_whole_numbers_are_exact(name, dtype, threads):
    x_shape, w_shape, options = CASES[name]
    x, weight, bias = arrays(x_shape, w_shape, dtype, whole=True)
    y = reference("conv2d", x, weight, bias, **options)
    assert_ulp(xent.conv2d(x, weight, bias, **options), y, 0, dtype=dtype)
    grad = np.random.default_rng(2).integers(-4, 5, y.shape).astype(dtype)
    expected = reference("conv2d_backward", grad, x, weight, **options)
    for result, value in zip(xent.conv2d_backward(grad, x, weight, **options), expected, strict=True):
        assert_ulp(result, value, 0, dtype=dtype)


@pytest.mark.parametrize("name", [name for name, (x, w, _) in CASES.items() if np.prod(x) + np.prod(w) < 700])
def test_backward_is_the_derivative(name):
    x_shape, w_shape, options = CASES[name]
    x, weight, bias = arrays(x_shape, w_shape, np.float64)
    grad = np.random.default_rng(3).standard_normal(reference("conv2d", x, weight, **options).shape)

    def loss(x, weight, bias):
        return np.sum(grad * reference("conv2d", x, weight, bias, **options))

    expected = [
        differences(lambda v: loss(v, weight, bias), x, step=1.0),  # linear: no step is too long
        differences(lambda v: loss(x, v, bias), weight, step=1.0),
        differences(lambda v: loss(x, weight, v), bias, step=1.0),
    ]
    for function in [xent.conv2d_backward, xent.reference.conv2d_backward]:
        for result, value in zip(function(grad, x, weight, **options), expected, strict=True):
            assert np.allclose(result, value, rtol=0, atol=100 * DIFFERENCES)


def test_the_reference_by_hand():
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    weight = np.array([[[[1.0, 2], [3, 4]]]])
    # 0*1 + 1*2 + 3*3 + 4*4 = 27 and so on: cross-correlation, the kernel is not flipped
    assert reference("conv2d", x, weight).tolist() == [[[[27, 37], [57, 67]]]]
    padded = reference("conv2d", x, weight, [1.0], stride=2, padding=((1, 0), (1, 0)))
    assert padded.tolist() == [[[[1, 12], [31, 68]]]]
    assert reference("conv2d", x, weight, [-40.0], activation="relu").tolist() == [[[[0, 0], [17, 27]]]]
    assert reference("im2col", x, 2).tolist() == [[[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]]]
    assert reference("col2im", np.ones((1, 4, 4)), (3, 3), 2).tolist() == [
        [[[1, 2, 1], [2, 4, 2], [1, 2, 1]]]
    ]


@pytest.mark.parametrize("size, kernel, stride, dilation", [
    (size, kernel, stride, dilation)
    for size, kernel, stride, dilation in itertools.product([1, 5, 8], [1, 2, 3, 4], [1, 2, 3], [1, 2])
])  # fmt: skip
def test_same_padding(size, kernel, stride, dilation, dtype):
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    low = total // 2
    x, weight, _ = arrays((1, 2, size, 4), (3, 2, kernel, 1), dtype, whole=True)
    result = xent.conv2d(x, weight, padding="same", stride=(stride, 1), dilation=(dilation, 1))
    assert result.shape == (1, 3, outputs, 4)
    explicit = {"padding": ((low, total - low), (0, 0)), "stride": (stride, 1), "dilation": (dilation, 1)}
    assert_ulp(result, reference("conv2d", x, weight, **explicit), 0, dtype=dtype)


@pytest.mark.parametrize("variant", ZOO)
def test_every_memory_layout(variant, dtype):
    for name in ["3x3, padded", "1x1", "groups", "all together"]:
        x_shape, w_shape, options = CASES[name]
        x, weight, bias = arrays(x_shape, w_shape, dtype, whole=True)
        layouts = [of_zoo(variant, a) for a in (x, weight, bias)]
        y = reference("conv2d", x, weight, bias, **options)
        assert_ulp(xent.conv2d(*layouts, **options), y, 0, dtype=dtype, what=name)
        grad = np.random.default_rng(4).integers(-4, 5, y.shape).astype(dtype)
        expected = reference("conv2d_backward", grad, x, weight, **options)
        results = xent.conv2d_backward(of_zoo(variant, grad), *layouts[:2], **options)
        for result, value in zip(results, expected, strict=True):
            assert_ulp(result, value, 0, dtype=dtype, what=name)
        columns = reference("im2col", x, 2)
        assert_ulp(xent.im2col(layouts[0], 2), columns, 0, dtype=dtype, what=name)
        image = reference("col2im", columns, x_shape[2:], 2)
        result = xent.col2im(of_zoo(variant, columns.astype(dtype)), x_shape[2:], 2)
        assert_ulp(result, image, 0, dtype=dtype, what=name)


@pytest.mark.parametrize("needs", list(itertools.product([False, True], repeat=3)))
def test_needs(needs, dtype):
    x, weight, _ = arrays((2, 4, 6, 5), (6, 2, 3, 3), dtype, whole=True)
    grad = np.random.default_rng(5).integers(-4, 5, (2, 6, 4, 3)).astype(dtype)
    results = xent.conv2d_backward(grad, x, weight, groups=2, needs=needs)
    everything = reference("conv2d_backward", grad, x, weight, groups=2)
    for need, result, value in zip(needs, results, everything, strict=True):
        if need:
            assert_ulp(result, value, 0, dtype=dtype)
        else:
            assert result is None


@pytest.mark.parametrize(
    "variant", ["contiguous", "every second element", "Fortran order", "negative strides"]
)
def test_conv2d_out(variant, dtype):
    for name in ["3x3, padded", "1x1", "groups", "all together"]:
        x_shape, w_shape, options = CASES[name]
        x, weight, bias = arrays(x_shape, w_shape, dtype, whole=True)
        expected = reference("conv2d", x, weight, bias, **options)
        out = of_zoo(variant, np.full(expected.shape, np.nan, dtype))
        assert xent.conv2d(x, weight, bias, out=out, **options) is out
        assert_ulp(out, expected, 0, dtype=dtype, what=name)


def test_precisions_are_promoted():
    x, weight, bias = arrays((2, 3, 6, 6), (4, 3, 3, 3), np.float64)
    for kinds in itertools.product(["f4", "f8"], repeat=2):
        narrow_x, narrow_w = x.astype(kinds[0]), weight.astype(kinds[1])
        result = xent.conv2d(narrow_x, narrow_w, bias.astype(np.float32))
        assert_conv2d(result, narrow_x, narrow_w, bias.astype(np.float32))
        grad = np.ones(result.shape, result.dtype)
        assert_backward(xent.conv2d_backward(grad, narrow_x, narrow_w), grad, narrow_x, narrow_w)
    whole = np.arange(16).reshape(1, 1, 4, 4)
    result = xent.conv2d(whole, np.ones((1, 1, 2, 2), np.int8))
    assert_ulp(result, reference("conv2d", whole, np.ones((1, 1, 2, 2))), 0, dtype=np.float64)


def test_relu_keeps_nan(dtype):
    x, weight, bias = arrays((1, 2, 9, 10), (3, 2, 3, 3), dtype, whole=True)
    x[0, 1, 4, 5] = np.nan
    for activation in [None, "relu"]:
        result = xent.conv2d(x, weight, bias, padding=1, activation=activation)
        touched = np.zeros((9, 10), bool)
        touched[3:6, 4:7] = True
        assert np.isnan(result[..., touched]).all()
        expected = reference("conv2d", x, weight, bias, padding=1, activation=activation)
        assert_ulp(result, expected, 0, dtype=dtype)  # elsewhere as if there were no NaN
        assert not np.isnan(expected[..., ~touched]).any()


def test_infinities_meet_only_what_lies_under_the_kernel(dtype):
    x, weight, _ = arrays((1, 1, 6, 7), (2, 1, 3, 3), dtype, whole=True)
    weight[weight == 0] = 1
    x[0, 0, 0, 0] = np.inf
    assert_ulp(xent.conv2d(x, weight, padding=1), reference("conv2d", x, weight, padding=1), 0, dtype=dtype)


WINDOWS = [
    ((2, 3, 6, 7), 2, {}),
    ((1, 1, 1, 1), 1, {}),
    ((2, 3, 6, 7), (3, 2), {"stride": (2, 1)}),
    ((1, 2, 9, 8), 3, {"padding": 1}),
    ((1, 2, 9, 8), (1, 4), {"padding": ((0, 0), (2, 1)), "stride": 3}),
    ((2, 1, 9, 8), (3, 2), {"dilation": (2, 3), "padding": (1, 2)}),
    ((1, 2, 5, 5), 2, {"stride": 3}),
    ((1, 2, 7, 6), 3, {"padding": "same", "stride": 2}),
    ((1, 2, 7, 6), 3, {"padding": "valid"}),
    ((0, 2, 7, 6), 3, {}),
    ((2, 2, 40, 50), 5, {"padding": 2}),
    ((1, 2, 9, 83), 3, {"padding": 1, "stride": 2}),
    *(((1, 1, 3, width), (2, 3), {"padding": (0, 1), "stride": (1, 2)}) for width in range(30, 35)),
    *(((1, 1, 3, width), 2, {}) for width in range(15, 35)),
]


@pytest.mark.parametrize("shape, kernel_size, options", WINDOWS)
def test_im2col_and_its_adjoint(shape, kernel_size, options, dtype, threads):
    x, _, _ = arrays(shape, (1, 1, 1, 1), dtype)
    columns = xent.im2col(x, kernel_size, **options)
    assert_ulp(columns, reference("im2col", x, kernel_size, **options), 0, dtype=dtype)  # copies: no rounding

    cols = np.random.default_rng(6).integers(-4, 5, columns.shape).astype(dtype)
    image = xent.col2im(cols, shape[2:], kernel_size, **options)
    assert_ulp(image, reference("col2im", cols, shape[2:], kernel_size, **options), 0, dtype=dtype)
    # <im2col(x), cols> = <x, col2im(cols)>
    sides = [np.vdot(columns.astype(np.float64), cols), np.vdot(x.astype(np.float64), image)]
    assert np.isclose(*sides, rtol=0, atol=1e-9 * (1 + columns.size))


def test_conv2d_is_im2col_times_weights(dtype):
    x, weight, _ = arrays((2, 3, 8, 9), (5, 3, 3, 2), dtype, whole=True)
    options = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}
    columns = xent.im2col(x, (3, 2), **options)
    product = weight.reshape(5, -1) @ columns
    result = xent.conv2d(x, weight, **options)
    assert_ulp(result.reshape(product.shape), product, 0, dtype=dtype)


@given(data=st.data())
def test_any_shape_and_options(data):
    dtype = np.dtype(data.draw(st.sampled_from(["f4", "f8"])))
    groups = data.draw(st.integers(1, 3))
    n, c, o = (data.draw(st.integers(1, 4)) for _ in range(3))
    kernel = [data.draw(st.integers(1, 4)) for _ in range(2)]
    dilation = tuple(data.draw(st.integers(1, 3)) for _ in range(2))
    stride = tuple(data.draw(st.integers(1, 3)) for _ in range(2))
    padding = tuple(tuple(data.draw(st.integers(0, 3)) for _ in range(2)) for _ in range(2))
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = [
        data.draw(st.integers(max(1, e - low - high), e + 12))
        for e, (low, high) in zip(extent, padding, strict=True)
    ]
    x, weight, bias = arrays((n, c * groups, *size), (o * groups, c, *kernel), dtype, whole=True)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    expected = reference("conv2d", x, weight, bias, **options)
    assert_ulp(xent.conv2d(x, weight, bias, **options), expected, 0, dtype=dtype)
    grad = np.random.default_rng(7).integers(-4, 5, expected.shape).astype(dtype)
    values = reference("conv2d_backward", grad, x, weight, **options)
    for result, value in zip(xent.conv2d_backward(grad, x, weight, **options), values, strict=True):
        assert_ulp(result, value, 0, dtype=dtype)
