"""conv_transpose2d and its gradients, against the reference, whole numbers and the convolution it is of."""

import itertools

import numpy as np
import pytest
from helpers import ZOO, assert_same_bits, assert_ulp, differences, of_zoo, raises, reference
from hypothesis import given
from hypothesis import strategies as st
from tolerances import convolution

import xent

# (x shape, weight shape, options); weight is (C, O / groups, kh, kw)
CASES = {
    "1x1": ((2, 3, 5, 7), (3, 4, 1, 1), {}),
    "1x1, one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "1x1, many channels": ((1, 70, 9, 5), (70, 33, 1, 1), {}),
    "1x1, stride": ((2, 3, 5, 7), (3, 4, 1, 1), {"stride": (2, 3)}),
    "3x3": ((2, 3, 8, 9), (3, 5, 3, 3), {}),
    "3x3, padded": ((2, 16, 14, 14), (16, 24, 3, 3), {"padding": 1}),
    "3x3, odd tiles": ((1, 13, 17, 19), (13, 29, 3, 3), {"padding": 1}),
    "kernel of one pixel's image": ((3, 5, 1, 1), (5, 4, 4, 3), {}),
    "5x3": ((1, 2, 9, 6), (2, 7, 5, 3), {"padding": (2, 1)}),
    "2x2, stride 2": ((2, 17, 7, 7), (17, 9, 2, 2), {"stride": 2}),
    "4x4, stride 2": ((2, 8, 7, 9), (8, 6, 4, 4), {"stride": 2, "padding": 1}),
    "3x3, stride 2": ((9, 12, 7, 7), (12, 20, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    "7x7, stride 4": ((1, 3, 9, 8), (3, 8, 7, 7), {"stride": 4, "padding": 3}),
    "11x11, stride 3": ((1, 2, 6, 5), (2, 3, 11, 11), {"stride": 3, "padding": 2}),
    "one stride for each axis": ((1, 3, 6, 5), (3, 4, 3, 4), {"stride": (1, 3)}),
    "one padding for each side": ((1, 2, 6, 5), (2, 3, 3, 3), {"padding": ((0, 2), (1, 3))}),
    "valid": ((1, 2, 6, 5), (2, 3, 3, 2), {"padding": "valid", "stride": (2, 1)}),
    "stride longer than kernel": ((1, 2, 4, 5), (2, 3, 2, 2), {"stride": (3, 5)}),
    "much longer": ((2, 3, 3, 2), (3, 2, 2, 1), {"stride": (17, 40), "padding": (1, 0)}),
    "longer, padded beyond the kernel": ((1, 2, 4, 5), (2, 3, 2, 2), {"stride": 7, "padding": (4, 6)}),
    "dilation": ((2, 3, 6, 7), (3, 4, 3, 3), {"dilation": (2, 3)}),
    "dilation equals stride": ((2, 3, 6, 7), (3, 4, 3, 3), {"dilation": (2, 3), "stride": (2, 3)}),
    "dilation is a multiple of stride": ((1, 3, 6, 7), (3, 4, 3, 2), {"dilation": (4, 6), "stride": (2, 3)}),
    "stride is a multiple of dilation": ((1, 3, 6, 5), (3, 4, 3, 2), {"dilation": (2, 3), "stride": (4, 6)}),
    "a common factor": ((1, 3, 6, 5), (3, 4, 3, 4), {"dilation": (4, 6), "stride": (6, 4), "padding": 3}),
    "no common factor": ((1, 3, 6, 5), (3, 4, 4, 3), {"dilation": (3, 2), "stride": (2, 5)}),
    "dilation beyond the image": ((1, 2, 3, 2), (2, 3, 2, 3), {"dilation": (9, 50), "stride": 2}),
    "output_padding": ((2, 3, 5, 4), (3, 4, 3, 3), {"stride": (3, 4), "output_padding": (2, 3)}),
    "output_padding that sees the kernel": ((2, 3, 5, 4), (3, 4, 5, 5),
                                            {"stride": 2, "padding": 2, "output_padding": 1}),
    "output_padding beyond the stride": ((1, 2, 4, 3), (2, 3, 3, 2),
                                         {"stride": 2, "dilation": (4, 3), "output_padding": (3, 2)}),
    "output_padding and stride beyond the kernel": ((1, 2, 4, 3), (2, 3, 2, 2),
                                                    {"stride": 6, "output_padding": 5}),
    "output_padding and no padding behind": ((1, 2, 4, 3), (2, 3, 3, 3),
                                             {"stride": 2, "output_padding": 1, "padding": ((2, 0), (0, 1))}),
    "padding cuts whole windows": ((1, 2, 8, 9), (2, 3, 3, 3), {"padding": 4}),
    "padding leaves one pixel": ((2, 2, 4, 5), (2, 3, 3, 2), {"padding": ((3, 2), (0, 5))}),
    "groups": ((2, 6, 7, 8), (6, 3, 3, 3), {"groups": 3, "padding": 1}),
    "groups, stride": ((2, 8, 5, 4), (8, 5, 3, 2), {"groups": 4, "stride": 2, "output_padding": 1}),
    "one channel each": ((2, 10, 9, 8), (10, 1, 3, 3), {"groups": 10, "padding": 1}),
    "one channel each, stride": ((2, 10, 9, 8), (10, 1, 4, 4), {"groups": 10, "padding": 1, "stride": 2}),
    "one channel makes three": ((1, 5, 9, 8), (5, 3, 3, 3), {"groups": 5, "stride": 2, "dilation": 2}),
    "empty batch": ((0, 3, 5, 5), (3, 4, 3, 3), {"padding": 1, "stride": 2, "output_padding": 1}),
    "all together": ((2, 4, 7, 6), (4, 3, 3, 2),
                     {"stride": (2, 3), "padding": ((2, 1), (0, 3)), "dilation": (3, 2), "groups": 2,
                      "output_padding": (1, 2)}),
    "deep sum": ((1, 300, 6, 6), (300, 3, 3, 3), {"padding": 1}),
    "wide": ((1, 3, 1, 2000), (3, 5, 1, 5), {"stride": (1, 2), "padding": (0, 2)}),
    "tall": ((1, 3, 2000, 1), (3, 5, 5, 1), {"stride": (2, 1), "padding": (2, 0)}),
    "hundreds of taps": ((1, 2, 12, 11), (2, 3, 25, 23), {"padding": 10, "stride": 2}),
    "many outputs": ((2, 5, 9, 8), (5, 70, 3, 3), {"stride": 2, "padding": 1}),
    "large enough for threads": ((2, 32, 28, 28), (32, 33, 4, 4), {"stride": 2, "padding": 1}),
    "depthwise for threads": ((3, 40, 41, 43), (40, 1, 3, 3), {"stride": 2, "padding": 1, "groups": 40}),
    "many images": ((9, 4, 3, 3), (4, 18, 3, 3), {"padding": 1}),
}  # fmt: skip
SIMPLE = ["3x3, padded", "1x1", "4x4, stride 2", "groups, stride", "all together"]


def arrays(x_shape, w_shape, options, dtype, *, whole=False):
    """x, weight and bias; whole numbers give exact sums in any order."""
    rng = np.random.default_rng([7, *x_shape, *w_shape])
    shapes = [x_shape, w_shape, (w_shape[1] * options.get("groups", 1),)]
    if whole:
        return [rng.integers(-4, 5, shape).astype(dtype) for shape in shapes]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def conv_options(options):
    """The options of the conv2d whose transpose this is."""
    return {name: value for name, value in options.items() if name != "output_padding"}


@pytest.mark.parametrize("name", CASES)
def test_conv_transpose2d(name, dtype, threads):
    x_shape, w_shape, options = CASES[name]
    x, weight, bias = arrays(x_shape, w_shape, options, dtype)
    terms = weight[:, 0].size // options.get("groups", 1)
    for b in [None, bias]:
        expected = reference("conv_transpose2d", x, weight, b, **options)
        sizes = [None if a is None else np.abs(a) for a in (x, weight, b)]
        magnitude = reference("conv_transpose2d", *sizes, **options)
        result = xent.conv_transpose2d(x, weight, b, **options)
        assert_ulp(result, expected, 0, dtype=dtype, slack=convolution(terms, magnitude, dtype))


@pytest.mark.parametrize("name", CASES)
def test_whole_numbers_are_exact(name, dtype, threads):
    x_shape, w_shape, options = CASES[name]
    x, weight, bias = arrays(x_shape, w_shape, options, dtype, whole=True)
    for given_bias in [None, bias]:
        expected = reference("conv_transpose2d", x, weight, given_bias, **options)
        assert_ulp(xent.conv_transpose2d(x, weight, given_bias, **options), expected, 0, dtype=dtype)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("implementation", [xent.reference, xent], ids=["reference", "xent"])
def test_it_is_the_adjoint_of_conv2d(implementation, name):
    # <conv2d(image, weight), x> = <image, conv_transpose2d(x, weight)>, exactly in whole numbers; where
    # output_padding exceeds the stride, conv2d has windows that x knows nothing of
    x_shape, w_shape, options = CASES[name]
    x, weight, _ = arrays(x_shape, w_shape, options, np.float64, whole=True)
    result = implementation.conv_transpose2d(x, weight, **options)
    image = np.random.default_rng(8).integers(-4, 5, result.shape).astype(np.float64)
    forward = implementation.conv2d(image, weight, **conv_options(options))
    assert np.vdot(forward[..., : x.shape[2], : x.shape[3]], x) == np.vdot(image, result)


@pytest.mark.parametrize("name", [name for name, (_, _, o) in CASES.items() if "output_padding" not in o])
def test_it_is_the_backward_pass_of_conv2d(name, dtype):
    x_shape, w_shape, options = CASES[name]
    x, weight, _ = arrays(x_shape, w_shape, options, dtype, whole=True)
    result = xent.conv_transpose2d(x, weight, **options)
    image = np.zeros(result.shape, dtype)
    grad_x, _, _ = xent.conv2d_backward(x, image, weight, **options, needs=(True, False, False))
    assert_ulp(result, grad_x, 0, dtype=dtype)


@pytest.mark.parametrize("name", CASES)
def test_backward(name, dtype, threads):
    x_shape, w_shape, options = CASES[name]
    x, weight, bias = arrays(x_shape, w_shape, options, dtype, whole=True)
    shape = reference("conv_transpose2d", x, weight, **options).shape
    grad = np.random.default_rng(9).integers(-4, 5, shape).astype(dtype)
    values = reference("conv_transpose2d_backward", grad, x, weight, **options)
    for needs in [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]:
        out = tuple(
            np.full(a.shape, np.nan, dtype) if needed else None
            for a, needed in zip(values, needs, strict=True)
        )
        for given_out in [None, out]:
            results = xent.conv_transpose2d_backward(grad, x, weight, needs=needs, out=given_out, **options)
            for needed, result, o, value in zip(needs, results, out, values, strict=True):
                if not needed:
                    assert result is None
                    continue
                assert given_out is None or result is o
                assert_ulp(result, value, 0, dtype=dtype)


@pytest.mark.parametrize("name", [n for n, (x, w, _) in CASES.items() if 0 < np.prod(x) + np.prod(w) < 700])
def test_backward_is_the_derivative(name):
    # y is linear in each argument: <grad, y(x)> = <x, grad_x>, and differences of any step are exact
    x_shape, w_shape, options = CASES[name]
    x, weight, bias = arrays(x_shape, w_shape, options, np.float64, whole=True)
    y = reference("conv_transpose2d", x, weight, **options)
    grad = np.random.default_rng(10).integers(-4, 5, y.shape).astype(np.float64)

    def loss(x, weight, bias):
        return np.sum(grad * reference("conv_transpose2d", x, weight, bias, **options))

    expected = [
        differences(lambda v: loss(v, weight, bias), x, step=1.0),
        differences(lambda v: loss(x, v, bias), weight, step=1.0),
        differences(lambda v: loss(x, weight, v), bias, step=1.0),
    ]
    for function in [xent.conv_transpose2d_backward, xent.reference.conv_transpose2d_backward]:
        for result, value in zip(function(grad, x, weight, **options), expected, strict=True):
            assert np.array_equal(result, value)


@pytest.mark.parametrize("name", SIMPLE)
def test_backward_in_normal_numbers(name, dtype, threads):
    x_shape, w_shape, options = CASES[name]
    x, weight, _ = arrays(x_shape, w_shape, options, dtype)
    shape = reference("conv_transpose2d", x, weight, **options).shape
    grad = np.random.default_rng(11).standard_normal(shape).astype(dtype)
    expected = reference("conv_transpose2d_backward", grad, x, weight, **options)
    sizes = reference("conv_transpose2d_backward", *map(np.abs, (grad, x, weight)), **options)
    terms = [weight[0].size, x[:, 0].size, grad[:, 0].size]
    results = xent.conv_transpose2d_backward(grad, x, weight, **options)
    for result, value, size, n in zip(results, expected, sizes, terms, strict=True):
        assert_ulp(result, value, 0, dtype=dtype, slack=convolution(n, size, dtype))


@pytest.mark.parametrize("variant", ZOO)
def test_backward_in_every_memory_layout(variant, dtype):
    x_shape, w_shape, options = CASES["all together"]
    x, weight, _ = arrays(x_shape, w_shape, options, dtype, whole=True)
    grad = xent.conv_transpose2d(x, weight, **options)
    expected = reference("conv_transpose2d_backward", grad, x, weight, **options)
    results = xent.conv_transpose2d_backward(*[of_zoo(variant, a) for a in (grad, x, weight)], **options)
    for result, value in zip(results, expected, strict=True):
        assert_ulp(result, value, 0, dtype=dtype)


def test_backward_of_a_size(dtype):
    x, weight, _ = arrays((2, 4, 5, 6), (4, 3, 3, 3), {}, dtype, whole=True)
    for size in [(9, 11), (10, 12), (10, 11)]:
        options = {"stride": 2, "padding": 1, "output_size": size}
        grad = xent.conv_transpose2d(x, weight, **options)
        expected = reference("conv_transpose2d_backward", grad, x, weight, **options)
        for result, value in zip(
            xent.conv_transpose2d_backward(grad, x, weight, **options), expected, strict=True
        ):
            assert_ulp(result, value, 0, dtype=dtype)


def test_the_reference_by_hand():
    x = np.array([[[[1.0, 2], [3, 4]]]])
    weight = np.array([[[[1.0, 10], [100, 1000]]]])
    assert reference("conv_transpose2d", x, weight).tolist() == [
        [[[1, 12, 20], [103, 1234, 2040], [300, 3400, 4000]]]
    ]
    apart = reference("conv_transpose2d", x, weight, [0.5], stride=2, padding=((1, 0), (0, 2)))
    assert apart.tolist() == [[[[100.5, 1000.5], [3.5, 30.5], [300.5, 3000.5]]]]
    longer = reference("conv_transpose2d", x, weight, stride=(1, 3), padding=(1, 1), output_padding=(0, 2))
    assert longer.tolist() == [[[[1030, 0, 204, 2040, 0]]]]
    two_outputs = np.array([[[[1.0]], [[10.0]]], [[[2.0]], [[20.0]]]])  # two channels, two groups of two
    both = reference("conv_transpose2d", np.ones((1, 2, 1, 1)), two_outputs, groups=2)
    assert both.ravel().tolist() == [1, 10, 2, 20]


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_size_of_the_output(size, kernel, dtype):
    shapes = (1, 2, size, 3), (2, 3, kernel, 2)
    for stride, dilation, extra, padding in itertools.product(
        [1, 2, 3, 4], [1, 2, 3], range(4), [(0, 0), (1, 0), (0, 2), (2, 1)]
    ):
        if extra >= max(stride, dilation):
            continue
        length = (size - 1) * stride - sum(padding) + dilation * (kernel - 1) + extra + 1
        options = {"stride": (stride, 1), "dilation": (dilation, 1), "output_padding": (extra, 0)}
        options["padding"] = padding, (0, 0)
        x, weight, _ = arrays(*shapes, options, dtype, whole=True)
        if length < 1:
            with raises(ValueError, "padding"):
                xent.conv_transpose2d(x, weight, **options)
            continue
        result = xent.conv_transpose2d(x, weight, **options)
        assert result.shape == (1, 3, length, 4)
        assert_ulp(result, reference("conv_transpose2d", x, weight, **options), 0, dtype=dtype)


def test_the_output_has_the_size_that_was_asked_for(dtype):
    for size, kernel, stride, dilation, padding in itertools.product(
        [1, 4], [1, 3], [1, 2, 3], [1, 2], [(0, 0), (0, 1), "same"]
    ):
        options = {"stride": (stride, 2), "dilation": (dilation, 1)}
        options["padding"] = padding if padding == "same" else (padding, (1, 0))
        x, weight, bias = arrays((1, 2, size, 3), (2, 3, kernel, 2), options, dtype, whole=True)
        for height, width in itertools.product(range(1, 20), range(4, 8)):
            # reachable: the convolution makes the size of x of it
            image = np.zeros((1, 3, height, width))
            try:
                reachable = xent.conv2d(image, weight.astype(np.float64), **options).shape == x.shape
            except ValueError:
                reachable = False
            given = options | {"output_size": (height, width)}
            if not reachable:
                with raises(ValueError, "output_size"):
                    xent.conv_transpose2d(x, weight, **given)
                continue
            result = xent.conv_transpose2d(x, weight, bias, **given)
            assert result.shape == image.shape
            assert_ulp(result, reference("conv_transpose2d", x, weight, bias, **given), 0, dtype=dtype)
            image[...] = arrays(image.shape, (1, 1, 1, 1), {}, np.float64, whole=True)[0]
            forward = xent.conv2d(image, weight.astype(np.float64), **options)
            assert np.vdot(forward, x) == np.vdot(image, result - bias[:, None, None])


def test_one_number_is_the_size_of_both_axes():
    x, weight, _ = arrays((1, 2, 4, 4), (2, 3, 3, 3), {}, np.float64, whole=True)
    expected = xent.conv_transpose2d(x, weight, stride=2, padding=1, output_padding=1)
    assert_same_bits(xent.conv_transpose2d(x, weight, stride=2, padding=1, output_size=8), expected)


@pytest.mark.parametrize("variant", ["contiguous", "every second element", "Fortran order"])
@pytest.mark.parametrize("name", [*SIMPLE, "stride longer than kernel"])
def test_out(name, variant, dtype):
    x_shape, w_shape, options = CASES[name]
    x, weight, bias = arrays(x_shape, w_shape, options, dtype, whole=True)
    for w in [weight, np.where(weight == weight.max(), np.inf, weight).astype(dtype)]:
        x[x == 0] = 1
        expected = reference("conv_transpose2d", x, w, bias, **options)
        out = of_zoo(variant, np.full(expected.shape, np.nan, dtype))
        assert xent.conv_transpose2d(x, w, bias, out=out, **options) is out
        assert_ulp(out, expected, 0, dtype=dtype)


@pytest.mark.parametrize(
    "x_shape, w_shape",
    [((0, 4, 5, 6), (4, 3, 3, 3)), ((2, 0, 5, 6), (0, 3, 3, 3)), ((2, 4, 5, 6), (4, 0, 3, 3))],
)
def test_nothing_to_add_up(x_shape, w_shape, dtype):
    options = {"stride": 2, "groups": 2}
    x, weight, bias = arrays(x_shape, w_shape, options, dtype, whole=True)
    for b in [None, bias]:
        expected = reference("conv_transpose2d", x, weight, b, **options)
        assert_ulp(xent.conv_transpose2d(x, weight, b, **options), expected, 0, dtype=dtype)
    grad = np.ones(expected.shape, dtype)
    values = reference("conv_transpose2d_backward", grad, x, weight, **options)
    for result, value in zip(xent.conv_transpose2d_backward(grad, x, weight, **options), values, strict=True):
        assert_ulp(result, value, 0, dtype=dtype)


@pytest.mark.parametrize("far", [2**10, 2**16 + 1, 2**29])
def test_steps_and_padding_far_beyond_the_output(far, dtype, threads):
    x, weight, bias = arrays((2, 3, 3, 3), (3, 5, 1, 1), {}, dtype, whole=True)
    result = xent.conv_transpose2d(x, weight, bias, stride=far, padding=far)
    expected = reference("conv_transpose2d", x[:, :, 1:2, 1:2], weight, bias)
    assert_ulp(result, expected, 0, dtype=dtype)
    x, weight, bias = arrays((2, 3, 2, 4), (3, 5, 3, 3), {}, dtype, whole=True)
    result = xent.conv_transpose2d(x, weight, bias, dilation=far, padding=far)
    expected = reference("conv_transpose2d", x, weight[:, :, 1:2, 1:2], bias)
    assert_ulp(result, expected, 0, dtype=dtype)


@pytest.mark.parametrize("variant", ZOO)
def test_every_memory_layout(variant, dtype):
    for name in SIMPLE:
        x_shape, w_shape, options = CASES[name]
        x, weight, bias = arrays(x_shape, w_shape, options, dtype, whole=True)
        expected = reference("conv_transpose2d", x, weight, bias, **options)
        result = xent.conv_transpose2d(*[of_zoo(variant, a) for a in (x, weight, bias)], **options)
        assert_ulp(result, expected, 0, dtype=dtype, what=name)


def test_forms_of_padding():
    x, weight, _ = arrays((1, 2, 6, 5), (2, 3, 3, 3), {}, np.float64, whole=True)
    for first, second in [
        (1, (1, 1)),
        ((1, 2), ((1, 1), (2, 2))),
        ("valid", 0),
        (np.array([[1, 0], [2, 1]]), ((1, 0), (2, 1))),
        ([np.int64(1), np.uint8(0)], (1, 0)),
    ]:
        results = [xent.conv_transpose2d(x, weight, padding=padding, stride=2) for padding in (first, second)]
        assert_same_bits(*results)


def test_precisions_are_promoted():
    x, weight, bias = arrays((2, 3, 6, 6), (3, 4, 3, 3), {}, np.float64, whole=True)
    expected = reference("conv_transpose2d", x, weight, bias, stride=2)
    for kinds in itertools.product(["f4", "f8", "i1", "?"], ["f4", "f8", "i8"], ["f4", "f8"]):
        narrow = [a.astype(kind) for a, kind in zip((x, weight, bias), kinds, strict=True)]
        dtype = np.dtype("f4" if set(kinds) == {"f4"} else "f8")
        value = expected if "?" not in kinds else reference("conv_transpose2d", *narrow, stride=2)
        assert_ulp(xent.conv_transpose2d(*narrow, stride=2), value, 0, dtype=dtype)


@pytest.mark.parametrize("name", SIMPLE)
def test_special_values_reach_what_they_touch(name, dtype, threads):
    x_shape, w_shape, options = CASES[name]
    for which, value in itertools.product([0, 1], [np.nan, np.inf, -np.inf]):
        values = arrays(x_shape, w_shape, options, dtype, whole=True)
        for a in values[:2]:
            a[a == 0] = 1  # 0 times inf is tested elsewhere
        values[which][tuple(n // 2 for n in values[which].shape)] = value
        assert_ulp(
            xent.conv_transpose2d(*values, **options),
            reference("conv_transpose2d", *values, **options),
            0,
            dtype=dtype,
        )


def test_between_the_windows_there_is_only_the_bias(dtype):
    x, weight = np.full((1, 2, 3, 3), np.inf, dtype), np.full((2, 3, 2, 2), np.nan, dtype)
    bias = np.array([1, -2, 3], dtype)
    result = xent.conv_transpose2d(x, weight, bias, stride=4, output_padding=1)
    touched = np.zeros(11, bool)
    touched[[0, 1, 4, 5, 8, 9]] = True
    touched = touched[:, None] & touched
    assert np.isnan(result[..., touched]).all()
    assert (result[..., ~touched] == bias[:, None]).all()


def test_subnormal_numbers(dtype):
    x_shape, w_shape, options = CASES["all together"]
    x, weight, bias = arrays(x_shape, w_shape, options, dtype, whole=True)
    tiny = np.finfo(dtype).smallest_subnormal
    x, bias = x * tiny, bias * tiny
    expected = reference("conv_transpose2d", x, weight, bias, **options)
    assert_ulp(xent.conv_transpose2d(x, weight, bias, **options), expected, 0, dtype=dtype)


@pytest.mark.parametrize("name", SIMPLE)
def test_inputs_stay_as_they_are(name, dtype):
    x_shape, w_shape, options = CASES[name]
    values = arrays(x_shape, w_shape, options, dtype)
    copies = tuple(a.copy() for a in values)
    xent.conv_transpose2d(*values, **options)
    assert_same_bits(tuple(values), copies)


@given(data=st.data())
def test_any_shape_and_options(data):
    dtype = np.dtype(data.draw(st.sampled_from(["f4", "f8"])))
    groups = data.draw(st.integers(1, 3))
    n, c = (data.draw(st.integers(1, 5)) for _ in range(2))
    o = data.draw(st.integers(1, 19))
    kernel, dilation, stride, size = (
        tuple(data.draw(st.integers(1, largest)) for _ in range(2)) for largest in (5, 4, 6, 12)
    )
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    full = [
        (m - 1) * s + (k - 1) * d + 1 + e
        for m, k, s, d, e in zip(size, kernel, stride, dilation, extra, strict=True)
    ]
    padding = []
    for length in full:
        low = data.draw(st.integers(0, min(6, length - 1)))
        padding.append((low, data.draw(st.integers(0, min(6, length - 1 - low)))))
    options = {"stride": stride, "padding": tuple(padding), "dilation": dilation, "groups": groups}
    options["output_padding"] = extra
    x, weight, bias = arrays((n, c * groups, *size), (c * groups, o, *kernel), options, dtype, whole=True)
    expected = reference("conv_transpose2d", x, weight, bias, **options)
    with xent.num_threads(data.draw(st.integers(1, 2))):
        assert_ulp(xent.conv_transpose2d(x, weight, bias, **options), expected, 0, dtype=dtype)


# Errors -----------------------------------------------------------------------------------------------------

X, WEIGHT = np.zeros((2, 4, 5, 6)), np.zeros((4, 3, 3, 3))


def test_same_padding_has_no_transpose():
    with raises(ValueError, "padding", "same"):
        xent.conv_transpose2d(X, WEIGHT, padding="same")


@pytest.mark.parametrize("options", [
    {"output_padding": 1},
    {"output_padding": 2, "stride": 2},
    {"output_padding": 2, "dilation": 2},
    {"output_padding": (1, 2), "stride": 2},
    {"output_padding": (2, 1), "stride": 2},
    {"output_padding": (0, 2), "stride": (3, 2)},
    {"output_padding": (2, 0), "stride": (2, 3)},
    {"output_padding": 3, "stride": 2, "dilation": 3},
    {"output_padding": 10**30},
    {"output_padding": -1},
    {"output_padding": (0, -1), "stride": 2},
    {"output_padding": (0, 0, 0)},
    {"output_padding": ()},
    {"output_padding": ((0, 1), (0, 1)), "stride": 2},
])  # fmt: skip
def test_output_padding_is_refused(options):
    with pytest.raises((ValueError, TypeError), match="output_padding"):
        xent.conv_transpose2d(X, WEIGHT, **options)


def test_output_padding_is_an_integer():
    for value in [0.0, (0, 0.0), None, "valid", True]:
        with raises(TypeError, "output_padding"):
            xent.conv_transpose2d(X, WEIGHT, output_padding=value)


@pytest.mark.parametrize("size", [6, (7, 7), (7, 9), (8, 8), 0, -1, (7, 8, 1), (2, 3, 7, 8), 2**40])
def test_output_size_is_refused(size):
    with raises(ValueError, "output_size"):
        xent.conv_transpose2d(X, WEIGHT, output_size=size)


def test_output_size_excludes_output_padding():
    with raises(ValueError, "output_padding", "output_size"):
        xent.conv_transpose2d(X, WEIGHT, stride=2, output_size=(12, 14), output_padding=1)
    for value in [7.0, (7, 8.0), "same", True]:
        with raises(TypeError, "output_size"):
            xent.conv_transpose2d(X, WEIGHT, output_size=value)


def test_output_padding_is_less_than_stride_or_dilation():
    for options in [{"stride": 2}, {"dilation": 2}]:
        assert xent.conv_transpose2d(X, WEIGHT, output_padding=1, **options).size


def test_shapes_that_do_not_fit():
    for shape in [(3, 3, 3, 3), (5, 3, 3, 3), (1, 3, 3, 3)]:
        with raises(ValueError, "weight", 4, shape):
            xent.conv_transpose2d(X, np.zeros(shape))
    for shape in [(4, 3, 0, 3), (4, 3, 3, 0), (4, 3, 3), (4, 3, 3, 3, 1)]:
        with raises(ValueError, "weight", shape):
            xent.conv_transpose2d(X, np.zeros(shape))
    for shape in [(4, 5, 6), (1, 2, 4, 5, 6), (2, 4, 0, 6), (2, 4, 5, 0)]:
        with pytest.raises(ValueError):
            xent.conv_transpose2d(np.zeros(shape), WEIGHT)


def test_groups():
    with raises(ValueError, "groups", 3, 4):
        xent.conv_transpose2d(X, WEIGHT, groups=3)
    for groups in [0, -1, 8, 2**70]:
        with raises(ValueError, "groups", groups):
            xent.conv_transpose2d(X, WEIGHT, groups=groups)
    for groups in [1.0, None, True]:
        with raises(TypeError, "groups"):
            xent.conv_transpose2d(X, WEIGHT, groups=groups)


def test_bias():
    for bias, outputs, groups in [(np.zeros(4), 3, 1), (np.zeros(3), 6, 2), (np.zeros((3, 1)), 3, 1)]:
        with raises(ValueError, "bias", bias.shape, outputs):
            xent.conv_transpose2d(X, WEIGHT, bias, groups=groups)


@pytest.mark.parametrize("padding", [4, (4, 3), (3, 4), ((7, 0), (0, 0)), ((3, 4), (0, 0)), (0, (8, 0))])
def test_padding_beyond_the_output(padding):
    # the full output is 7 by 8, and the last padding is no pair of pairs
    with raises(ValueError, "padding"):
        xent.conv_transpose2d(X, WEIGHT, padding=padding)


def test_one_pixel_may_be_left():
    assert xent.conv_transpose2d(X, WEIGHT, padding=((3, 3), (0, 7))).shape == (2, 3, 1, 1)
