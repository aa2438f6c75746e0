"""conv2d, conv2d_backward, im2col and col2im, against the reference, whole numbers and differences."""

import itertools
import math

import numpy as np
import pytest
from helpers import ZOO, assert_same_bits, assert_ulp, differences, of_zoo, peak_bytes, reference
from hypothesis import given
from hypothesis import strategies as st
from tolerances import DIFFERENCES, convolution

import xent

# (x shape, weight shape, options): every option alone, then together, with sizes that no tile divides
CASES = {
    "1x1": ((2, 3, 5, 7), (4, 3, 1, 1), {}),
    "1x1, one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    "1x1, many channels": ((1, 70, 9, 5), (33, 70, 1, 1), {}),
    "1x1, few outputs of large planes": ((2, 70, 37, 47), (3, 70, 1, 1), {}),
    "1x1, few outputs, several tiles": ((1, 133, 64, 81), (6, 133, 1, 1), {}),
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

# Around the multiples of every vector and of every block of output channels that a kernel may have.
OUTPUTS = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 20, 21, 23, 24, 25, 27, 28, 29, 31, 32, 33, 35,
    36, 39, 40, 41, 47, 48, 49, 55, 56, 57, 63, 64, 65, 67, 70,
]  # fmt: skip
CHANNELS = [1, 2, 3, 31, 33, 129, 300]
SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 24, 28, 31, 32, 33, 48, 56, 63, 64, 65, 70]
BATCHES = range(1, 10)
MULTIPLIERS = [1, 2, 3, 4, 5]


def sweeps():
    """Yield (name, case): one size at a time through everything that blocks, packs and tiles may get wrong.

    Sizes that do not matter are small, so that every case takes milliseconds.
    """
    for o in OUTPUTS:
        yield f"{o} outputs, 1x1", ((3, 17, 7, 7), (o, 17, 1, 1), {})
        yield f"{o} outputs, 3x3", ((2, 5, 9, 10), (o, 5, 3, 3), {"padding": 1})
        yield f"{o} outputs, stride 2", ((2, 3, 13, 12), (o, 3, 3, 3), {"padding": 1, "stride": 2})
        yield f"{o} outputs, one pixel", ((1, 6, 3, 4), (o, 6, 3, 4), {})
    for c in CHANNELS:
        yield f"{c} channels, 1x1", ((2, c, 9, 8), (10, c, 1, 1), {})
        yield f"{c} channels, 1x1, stride 2", ((2, c, 9, 8), (18, c, 1, 1), {"stride": 2})
        yield f"{c} channels, 3x3", ((1, c, 8, 9), (19, c, 3, 3), {"padding": 1})
        yield f"{c} channels, 5x5", ((1, c, 10, 9), (6, c, 5, 5), {"padding": 2, "stride": 2})
    for n in SIZES:
        wide, padded = 71 - n, {"padding": 1}
        yield f"{n} x {n}, 1x1", ((2, 3, n, n), (5, 3, 1, 1), {})
        yield f"{n} x {n}, 3x3", ((1, 3, n, n), (17, 3, 3, 3), padded)
        yield f"{n} x {wide}, 3x3", ((1, 2, n, wide), (3, 2, 3, 3), padded)
        yield f"{n} x {wide}, stride 2", ((1, 2, n, wide), (9, 2, 3, 3), padded | {"stride": 2})
        yield f"{n} x {n}, depthwise", ((1, 3, n, n), (3, 1, 3, 3), padded | {"groups": 3})
    for n in BATCHES:
        yield f"{n} images of 1 x 1", ((n, 9, 1, 1), (17, 9, 1, 1), {})
        yield f"{n} images of 2 x 3", ((n, 4, 2, 3), (6, 4, 3, 3), {"padding": 1})
        yield f"{n} images of 7 x 7, 1x1", ((n, 9, 7, 7), (33, 9, 1, 1), {})
        yield f"{n} images of 7 x 7, 3x3", ((n, 6, 7, 7), (18, 6, 3, 3), {"padding": 1})
        yield f"{n} images of 7 x 7, stride 2", ((n, 6, 7, 7), (18, 6, 3, 3), {"padding": 1, "stride": 2})
        yield f"{n} images of 14 x 14, 1x1", ((n, 5, 14, 14), (9, 5, 1, 1), {})
        yield f"{n} images of 14 x 14, 3x3", ((n, 3, 14, 14), (34, 3, 3, 3), {"padding": 1})
        yield f"{n} images of 14 x 14, depthwise", ((n, 5, 14, 14), (5, 1, 3, 3), {"padding": 1, "groups": 5})
    for k in range(1, 12):
        yield f"{k}x{k}", ((1, 3, 13, 14), (9, 3, k, k), {"padding": k // 2})
        yield f"1x{k}", ((2, 3, 4, 18), (9, 3, 1, k), {"padding": (0, k // 2)})
        yield f"{k}x1", ((2, 3, 18, 4), (9, 3, k, 1), {"padding": (k // 2, 0)})
        yield f"{k}x{k}, depthwise", ((1, 4, 13, 14), (4, 1, k, k), {"padding": k // 2, "groups": 4})
        yield f"{k}x{k}, stride 3", ((1, 3, 16, 15), (9, 3, k, k), {"padding": k // 2, "stride": 3})
    for s in [2, 3]:
        for padding in [0, 1, 2]:
            options = {"stride": s, "padding": padding}
            yield f"1x1, stride {s}, padding {padding}", ((2, 19, 14, 13), (33, 19, 1, 1), options)
            yield f"2x2, stride {s}, padding {padding}", ((2, 5, 14, 13), (18, 5, 2, 2), options)
            yield (
                f"1x1, stride {s} down, padding {padding}",
                ((1, 19, 14, 13), (9, 19, 1, 1), {"stride": (s, 1), "padding": padding}),
            )
    for m in MULTIPLIERS:
        yield f"groups of {m} outputs", ((2, 12, 11, 10), (4 * m, 3, 3, 3), {"groups": 4, "padding": 1})
        yield f"groups of {m} outputs, 1x1", ((2, 12, 7, 7), (3 * m, 4, 1, 1), {"groups": 3})
        yield (
            f"groups of {m} outputs, stride 2",
            ((2, 12, 11, 10), (2 * m, 6, 5, 3), {"groups": 2, "padding": 1, "stride": 2}),
        )
        for s, d in itertools.product([1, 2, 3], [1, 2, 3]):
            yield (
                f"depthwise times {m}, stride {s}, dilation {d}",
                ((2, 7, 14, 13), (7 * m, 1, 3, 3), {"groups": 7, "padding": d, "stride": s, "dilation": d}),
            )


SWEEPS = dict(sweeps())

# Everything that one number at a time does not reach: cache blocks in each direction, reductions of many
# blocks, and shapes far from those that kernels are made for.
LARGE = {
    "70 x 70": ((2, 16, 70, 70), (24, 16, 3, 3), {"padding": 1}),
    "224 x 223, stride 2": ((1, 3, 224, 223), (8, 3, 3, 3), {"padding": 1, "stride": 2}),
    "300 x 301, one channel": ((1, 1, 300, 301), (1, 1, 3, 3), {}),
    "1 x 5000": ((1, 3, 1, 5000), (9, 3, 1, 9), {"padding": (0, 4)}),
    "1 x 5000, 1x1": ((1, 5, 1, 5000), (17, 5, 1, 1), {}),
    "3 x 5000": ((1, 2, 3, 5000), (7, 2, 3, 3), {"padding": 1}),
    "3 x 5000, stride 2": ((1, 2, 3, 5000), (7, 2, 3, 3), {"padding": 1, "stride": (1, 2)}),
    "2 x 5000, depthwise": ((1, 3, 2, 5000), (3, 1, 3, 3), {"padding": 1, "groups": 3}),
    "5000 x 1": ((1, 3, 5000, 1), (9, 3, 9, 1), {"padding": (4, 0)}),
    "5000 x 3": ((1, 2, 5000, 3), (7, 2, 3, 3), {"padding": 1}),
    "5000 x 2, depthwise, stride 2": ((1, 3, 5000, 2), (3, 1, 3, 3),
                                      {"padding": 1, "groups": 3, "stride": 2}),
    "7x7, stride 2": ((2, 3, 70, 69), (33, 3, 7, 7), {"padding": 3, "stride": 2}),
    "11x11, stride 4": ((2, 3, 67, 70), (20, 3, 11, 11), {"padding": 2, "stride": 4}),
    "31x31": ((1, 2, 40, 40), (3, 2, 31, 31), {}),
    "31x31, padded": ((1, 1, 40, 40), (2, 1, 31, 31), {"padding": 15}),
    "31x31, depthwise": ((1, 2, 40, 40), (2, 1, 31, 31), {"padding": 3, "groups": 2}),
    "1x300": ((1, 2, 3, 400), (5, 2, 1, 300), {}),
    "300x1": ((1, 2, 400, 3), (5, 2, 300, 1), {"padding": ((7, 300), (0, 0))}),
    "dilation 50, wide": ((1, 2, 2, 3000), (5, 2, 1, 31), {"dilation": (1, 50)}),
    "dilation 50, tall": ((1, 2, 3000, 2), (5, 2, 31, 1), {"dilation": (50, 1)}),
    "dilation 50, depthwise": ((1, 3, 1, 2000), (6, 1, 1, 7),
                               {"dilation": (1, 50), "groups": 3, "padding": (0, 150)}),
    "dilation in both directions": ((1, 3, 70, 66), (17, 3, 3, 3),
                                    {"dilation": (30, 20), "padding": (25, 7)}),
    "stride 40": ((1, 3, 200, 300), (9, 3, 3, 3), {"stride": 40}),
    "stride 40, 1x1": ((2, 3, 200, 300), (9, 3, 1, 1), {"stride": 40}),
    "stride 40, wide": ((2, 3, 2, 3000), (9, 3, 2, 5), {"stride": (1, 40), "padding": (1, 7)}),
    "stride 40, depthwise": ((1, 3, 200, 300), (3, 1, 3, 3), {"stride": (40, 7), "groups": 3}),
    "300 channels": ((1, 300, 14, 14), (35, 300, 3, 3), {"padding": 1}),
    "300 channels, 1x1": ((2, 300, 28, 27), (33, 300, 1, 1), {}),
    "129 channels, stride 2": ((2, 129, 14, 15), (65, 129, 3, 3), {"padding": 1, "stride": 2}),
    "700 channels": ((1, 700, 7, 7), (9, 700, 3, 3), {"padding": 1}),
    "1300 channels": ((1, 1300, 14, 15), (7, 1300, 3, 3), {"padding": 1}),
    "700 channels, one pixel": ((2, 700, 3, 3), (18, 700, 3, 3), {}),
    "700 channels, 1x1": ((3, 700, 7, 7), (70, 700, 1, 1), {}),
    "600 outputs": ((1, 9, 6, 5), (600, 9, 3, 3), {"padding": 1}),
    "600 outputs, 1x1": ((2, 20, 7, 7), (600, 20, 1, 1), {}),
    "9 images of 14 x 14": ((9, 16, 14, 14), (70, 16, 3, 3), {"padding": 1}),
    "9 images of 7 x 7": ((9, 65, 7, 7), (49, 65, 3, 3), {"padding": 1}),
    "70 images of 3 x 3": ((70, 3, 3, 3), (5, 3, 3, 3), {"padding": 1}),
    "300 images of one pixel": ((300, 33, 1, 1), (34, 33, 1, 1), {}),
    "300 images, one output each": ((300, 2, 3, 4), (17, 2, 3, 4), {}),
    "kernel of one image": ((9, 6, 8, 8), (70, 6, 8, 8), {}),
    "padding of one pixel": ((2, 3, 1, 1), (9, 3, 3, 3), {"padding": 20}),
    "padding of 7": ((2, 3, 5, 6), (9, 3, 3, 2), {"padding": 7}),
    "padding beyond the kernel, stride": ((2, 3, 5, 6), (9, 3, 3, 2),
                                          {"padding": ((9, 0), (1, 11)), "stride": 3}),
    "padding beyond the kernel, depthwise": ((2, 3, 5, 6), (3, 1, 3, 3),
                                             {"padding": ((9, 1), (0, 11)), "groups": 3, "stride": (1, 2)}),
    "padding of 1x1": ((2, 3, 5, 6), (17, 3, 1, 1), {"padding": ((3, 0), (0, 4))}),
    "padding of a dilated kernel": ((1, 2, 3, 4), (9, 2, 3, 3), {"padding": 19, "dilation": 9, "stride": 2}),
    "groups of 17 outputs": ((2, 9, 20, 21), (51, 3, 3, 3), {"groups": 3, "padding": 1}),
    "groups of 33 channels": ((1, 99, 12, 13), (12, 33, 3, 3), {"groups": 3, "padding": 1}),
    "many groups": ((2, 64, 15, 14), (64, 2, 3, 3), {"groups": 32, "padding": 1}),
    "depthwise, 33 channels": ((3, 33, 30, 31), (33, 1, 3, 3), {"groups": 33, "padding": 1}),
    "depthwise, several tiles": ((2, 3, 70, 121), (6, 1, 3, 3), {"groups": 3, "padding": ((2, 1), (0, 3))}),
    "depthwise, several tiles, stride 2": ((2, 18, 90, 131), (18, 1, 3, 3),
                                           {"groups": 18, "padding": ((0, 1), (2, 0)), "stride": 2}),
    **{
        f"depthwise, {h} x {w}": ((2, 18, h, w), (36, 1, 3, 3), {"padding": 1, "groups": 18})
        for h, w in [(1, 8), (2, 3), (7, 7), (8, 6), (8, 8), (15, 7), (14, 14), (16, 13), (16, 16), (17, 14)]
    },
    "depthwise, 7 x 7, two groups": ((3, 2, 7, 7), (2, 1, 3, 3), {"padding": 1, "groups": 2}),
    "depthwise, 56 x 56": ((2, 20, 56, 56), (20, 1, 3, 3), {"groups": 20, "padding": 1, "stride": 2}),
    "depthwise, 7x7": ((2, 17, 28, 27), (17, 1, 7, 7), {"groups": 17, "padding": 3}),
    "depthwise, 1x1": ((2, 17, 28, 27), (17, 1, 1, 1), {"groups": 17}),
    # Pixels that are read where they lie, with one or two behind the last whole vector, and their borders
    "a pixel is left, 1x1": ((2, 70, 7, 7), (19, 70, 1, 1), {}),
    "two pixels are left, 1x1": ((1, 65, 5, 10), (7, 65, 1, 1), {}),
    "three pixels are left, 1x1": ((1, 65, 3, 17), (7, 65, 1, 1), {}),
    "a pixel is left, 63 channels": ((1, 63, 7, 7), (7, 63, 1, 1), {}),
    "a pixel is left, many terms": ((1, 2100, 7, 7), (5, 2100, 1, 1), {}),
    "a pixel is left, groups": ((2, 130, 7, 7), (26, 65, 1, 1), {"groups": 2}),
    "a row in pieces, 1x1": ((1, 900, 15, 17), (21, 900, 1, 1), {}),
    "a row in pieces, one left": ((1, 1100, 257, 1), (7, 1100, 1, 1), {}),
    "4096 channels, 1x1": ((1, 4096, 7, 7), (3, 4096, 1, 1), {}),
    "4097 channels, 1x1": ((1, 4097, 7, 7), (3, 4097, 1, 1), {}),
    "pages of their own, 1x1": ((2, 8, 64, 64), (65, 8, 1, 1), {}),
    # Images of a tile without gaps, and im2col matrices where rows are short
    "5 images of 5 x 5, 1x1": ((5, 70, 5, 5), (20, 70, 1, 1), {}),
    "a pixel of 13 images is left": ((13, 64, 1, 5), (20, 64, 1, 1), {}),
    "1x1, stride 2 to 7 x 7": ((3, 66, 14, 14), (34, 66, 1, 1), {"stride": 2}),
    "1x1, stride 2 to 7 x 7, one image": ((1, 66, 14, 13), (34, 66, 1, 1), {"stride": 2}),
    "16 images of 4 x 4": ((16, 13, 4, 4), (40, 13, 3, 3), {"padding": 1}),
    "60 images of 4 x 4": ((60, 13, 4, 4), (40, 13, 3, 3), {"padding": 1}),
    "4 x 4, dilation": ((9, 13, 4, 4), (40, 13, 3, 3), {"padding": 2, "dilation": 2}),
    "4 x 4, stride 2": ((9, 13, 8, 8), (40, 13, 3, 3), {"padding": 1, "stride": 2}),
    "4 x 4, groups": ((9, 26, 4, 4), (80, 13, 3, 3), {"padding": 1, "groups": 2}),
    "7 x 7, many outputs": ((1, 65, 7, 7), (300, 65, 3, 3), {"padding": 1}),
    # A row whose channels do not fit beside each other, and what a tile sees through a kernel far too large
    "1 x 500, 512 channels": ((1, 512, 1, 500), (96, 512, 1, 1), {}),
    "9x9, dilation 7": ((1, 8, 64, 64), (64, 8, 9, 9), {"dilation": 7}),
}  # fmt: skip
# Cases of every path that a kernel may take, for tests of one property.
PATHS = CASES | LARGE
SAMPLE = [
    "1x1", "3x3, padded", "7x7, stride 2", "dilation", "groups", "depthwise", "depthwise, two each",
    "stride longer than kernel", "padding of 7", "all together", "9 images of 7 x 7",
    "1 x 5000", "stride 40", "31x31", "129 channels, stride 2", "padding of 1x1", "kernel of one image",
    "a pixel is left, 1x1", "16 images of 4 x 4",
]  # fmt: skip
# dtype and number of threads: test_threads.py shows that their number changes no bit
FEW = [("float32", 2), ("float64", 1)]


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


@pytest.mark.parametrize("name", CASES)
def test_conv2d(name, dtype, threads):
    x_shape, w_shape, options = CASES[name]
    x, weight, bias = arrays(x_shape, w_shape, dtype)
    for b, activation in itertools.product([None, bias], [None, "relu"]):
        given = options | {"activation": activation}
        assert_conv2d(xent.conv2d(x, weight, b, **given), x, weight, b, **given)


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


def integers(shape, dtype, seed):
    return np.random.default_rng([seed, *shape]).integers(-4, 5, shape).astype(dtype)


def in_whole_numbers(name):
    """x, weight, bias, grad, the output, and the three gradients of a case, all in float64."""
    x_shape, w_shape, options = (SWEEPS | LARGE)[name]
    x, weight, bias = arrays(x_shape, w_shape, np.float64, whole=True)
    y = reference("conv2d", x, weight, bias, **options)
    grad = integers(y.shape, np.float64, 9)
    return x, weight, bias, grad, y, reference("conv2d_backward", grad, x, weight, **options)


@pytest.mark.parametrize("name", [*SWEEPS, *LARGE])
def test_shapes_in_whole_numbers(name):
    options = (SWEEPS | LARGE)[name][2]
    *inputs, y, gradients = in_whole_numbers(name)
    for kind, n_threads in FEW:
        dtype = np.dtype(kind)
        x, weight, bias, grad = (a.astype(dtype) for a in inputs)
        with xent.num_threads(n_threads):
            for activation, expected in [(None, y), ("relu", np.maximum(y, 0))]:
                result = xent.conv2d(x, weight, bias, activation=activation, **options)
                assert_ulp(result, expected, 0, dtype=dtype, what=f"conv2d, {activation}")
            results = xent.conv2d_backward(grad, x, weight, **options)
        for argument, result, expected in zip(["x", "weight", "bias"], results, gradients, strict=True):
            assert_ulp(result, expected, 0, dtype=dtype, what=f"grad_{argument}")


@pytest.mark.parametrize("name", LARGE)
def test_large_shapes_in_normal_numbers(name):
    x_shape, w_shape, options = LARGE[name]
    for dtype, n_threads in [(np.float32, 2), (np.float64, 1)]:
        x, weight, bias = arrays(x_shape, w_shape, dtype)
        with xent.num_threads(n_threads):
            y = xent.conv2d(x, weight, bias, **options)
            assert_conv2d(y, x, weight, bias, **options)
            grad = np.random.default_rng(10).standard_normal(y.shape).astype(dtype)
            assert_backward(xent.conv2d_backward(grad, x, weight, **options), grad, x, weight, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("name", PATHS)
def test_nothing_is_read_behind_the_end(edge, name, dtype):
    """Each operand in turn ends where memory does."""
    x_shape, w_shape, options = PATHS[name]
    rng = np.random.default_rng(0)
    x, weight = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape))
    expected = xent.conv2d(x, weight, **options)
    assert_same_bits(xent.conv2d(edge.last(x), weight, **options), expected)
    assert_same_bits(xent.conv2d(x, edge.last(weight), **options), expected)
    out = edge.last(np.zeros_like(expected))
    assert_same_bits(xent.conv2d(x, weight, out=out, **options), expected)
    grad = edge.last(np.ones_like(expected))
    xent.conv2d_backward(grad, x, weight, **options)
    xent.conv2d_backward(grad.copy(), edge.last(x), weight, **options)


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


@pytest.mark.parametrize("size", [1, 5, 8])
def test_same_padding(size, dtype):
    for kernel, stride, dilation in itertools.product([1, 2, 3, 4], [1, 2, 3], [1, 2]):
        outputs = -(-size // stride)
        total = max((outputs - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        low = total // 2
        x, weight, _ = arrays((1, 2, size, 4), (3, 2, kernel, 1), dtype, whole=True)
        steps = {"stride": (stride, 1), "dilation": (dilation, 1)}
        result = xent.conv2d(x, weight, padding="same", **steps)
        what = f"kernel {kernel} {steps}"
        assert result.shape == (1, 3, outputs, 4), what
        expected = reference("conv2d", x, weight, padding=((low, total - low), (0, 0)), **steps)
        assert_ulp(result, expected, 0, dtype=dtype, what=what)


@pytest.mark.parametrize("variant", ZOO)
def test_every_memory_layout(variant, dtype):
    for name in ["3x3, padded", "1x1", "7x7, stride 2", "groups", "depthwise", "all together"]:
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


@pytest.mark.parametrize(
    "variant", ["contiguous", "every second element", "Fortran order", "negative strides"]
)
def test_out_of_gradients(variant, dtype):
    for name in ["3x3, padded", "1x1", "groups", "all together"]:
        x_shape, w_shape, options = CASES[name]
        x, weight, _ = arrays(x_shape, w_shape, dtype, whole=True)
        grad = integers(reference("conv2d", x, weight, **options).shape, dtype, 20)
        expected = reference("conv2d_backward", grad, x, weight, **options)
        for wanted in itertools.product([False, True], repeat=3):
            out = tuple(
                of_zoo(variant, np.full(a.shape, np.nan, dtype)) if want else None
                for a, want in zip(expected, wanted, strict=True)
            )
            results = xent.conv2d_backward(grad, x, weight, out=out, **options)
            for result, o, value in zip(results, out, expected, strict=True):
                assert o is None or result is o
                assert_ulp(result, value, 0, dtype=dtype, what=name)


@pytest.mark.parametrize("variant", ["contiguous", "every second element", "Fortran order"])
def test_out_of_columns_and_images(variant, dtype):
    x, _, _ = arrays((2, 3, 9, 8), (1, 1, 1, 1), dtype, whole=True)
    columns = reference("im2col", x, 3, stride=2)
    out = of_zoo(variant, np.full(columns.shape, np.nan, dtype))
    assert xent.im2col(x, 3, stride=2, out=out) is out
    assert_ulp(out, columns, 0, dtype=dtype)
    image = reference("col2im", columns, (9, 8), 3, stride=2)
    out = of_zoo(variant, np.full(image.shape, np.nan, dtype))
    assert xent.col2im(columns.astype(dtype), (9, 8), 3, stride=2, out=out) is out
    assert_ulp(out, image, 0, dtype=dtype)


# (x shape, weight shape) of convolutions without images, channels or outputs
NOTHING = [
    ((0, 4, 5, 6), (6, 2, 3, 3)),
    ((2, 0, 5, 6), (6, 0, 3, 3)),
    ((2, 4, 5, 6), (0, 2, 3, 3)),
    ((0, 0, 5, 6), (0, 0, 3, 3)),
]


@pytest.mark.parametrize("x_shape, w_shape", NOTHING)
def test_nothing_to_add_up(x_shape, w_shape, dtype):
    x, weight, bias = arrays(x_shape, w_shape, dtype, whole=True)
    for b, activation in itertools.product([None, bias], [None, "relu"]):
        result = xent.conv2d(x, weight, b, padding=1, groups=2, activation=activation)
        expected = reference("conv2d", x, weight, b, padding=1, groups=2, activation=activation)
        assert_ulp(result, expected, 0, dtype=dtype)
    grad = integers(expected.shape, dtype, 21)
    values = reference("conv2d_backward", grad, x, weight, padding=1, groups=2)
    for out in [None, tuple(np.full(a.shape, np.nan, dtype) for a in values)]:
        results = xent.conv2d_backward(grad, x, weight, padding=1, groups=2, out=out)
        for result, value in zip(results, values, strict=True):
            assert_ulp(result, value, 0, dtype=dtype)
    columns = xent.im2col(x, 3)
    assert_ulp(columns, reference("im2col", x, 3), 0, dtype=dtype)
    assert_ulp(xent.col2im(columns, (5, 6), 3), reference("col2im", columns, (5, 6), 3), 0, dtype=dtype)


@pytest.mark.parametrize("function", ["conv2d", "conv_transpose2d"])
def test_a_bias_of_python_numbers_has_no_precision(function, dtype):
    x, weight, _ = arrays((2, 3, 6, 6), (3, 3, 3, 3), dtype, whole=True)
    for bias in [[0.5, -1, 2], (1, 2, 3), [True, False, True]]:
        result = getattr(xent, function)(x, weight, bias)
        assert_ulp(result, reference(function, x, weight, bias), 0, dtype=dtype)
    wide = getattr(xent, function)(x, weight, np.array([0.5, -1, 2]))
    assert wide.dtype == np.float64


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


def test_what_is_not_finite_meets_padding_in_depthwise_layers(dtype):
    """Taps on the padding are not left out then: 0 times inf is NaN, as in any sum of products."""
    x, weight = np.ones((2, 40, 5, 6), dtype), np.ones((40, 1, 3, 3), dtype)
    weight[3, 0, 0, 0] = np.inf  # meets padding in the first row and column
    y = xent.conv2d(x, weight, padding=1, groups=40)
    assert np.isnan(y[:, 3, 0]).all()
    assert np.isnan(y[:, 3, :, 0]).all()
    assert (y[:, 3, 1:, 1:] == np.inf).all()
    assert np.isfinite(np.delete(y, 3, 1)).all()
    grad = np.ones_like(y)
    grad[1, 17, 0, 0] = -np.inf
    _, by_weight, _ = xent.conv2d_backward(
        grad, x, np.ones_like(weight), padding=1, groups=40, needs=(False, True, False)
    )
    assert np.isnan(by_weight[17, 0, 0]).all()
    assert np.isnan(by_weight[17, 0, :, 0]).all()
    assert (by_weight[17, 0, 1:, 1:] == -np.inf).all()
    assert np.isfinite(np.delete(by_weight, 17, 0)).all()


@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (1, 2)])
def test_what_is_not_finite_meets_padding_where_lanes_are_channels(stride, dilation, dtype, threads):
    """As above, in layers of so many channels and pixels that taps on the padding are left out otherwise."""
    x, weight, _ = arrays((8, 40, 7, 7), (70, 40, 3, 3), dtype, whole=True)
    options = {"padding": dilation, "stride": stride, "dilation": dilation}
    expected = reference("conv2d", x, weight, **options)
    assert_ulp(xent.conv2d(x, weight, **options), expected, 0, dtype=dtype)
    x = np.ones_like(x)
    weight[67, 21, 0, 0] = np.inf  # meets padding in the first rows and columns
    y = xent.conv2d(x, weight, **options)
    edge = -(-dilation // stride)
    assert np.isnan(y[:, 67, :edge]).all()
    assert np.isnan(y[:, 67, :, :edge]).all()
    assert (y[:, 67, edge:, edge:] == np.inf).all()
    assert np.isfinite(np.delete(y, 67, 1)).all()


@pytest.mark.parametrize("padding", [0, 3, 6])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_images_in_order_and_in_place(padding, stride, dtype, threads):
    """Lanes are channels: without padding images are read where they lie, with it as they lie."""
    for shape, kernel, dilation in [((9, 20, 8, 11), 3, 3), ((3, 5, 35, 35), 4, 1), ((2, 70, 7, 9), 2, 2)]:
        x, weight, bias = arrays(shape, (72, shape[1], kernel, kernel), dtype, whole=True)
        options = {"padding": padding, "stride": stride, "dilation": dilation}
        expected = reference("conv2d", x, weight, bias, **options)
        assert_ulp(xent.conv2d(x, weight, bias, **options), expected, 0, dtype=dtype)
        grad = integers(expected.shape, dtype, 5)
        assert_backward(xent.conv2d_backward(grad, x, weight, **options), grad, x, weight, **options)


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


@pytest.mark.parametrize("far", [2**10, 2**16 + 1, 2**30])
def test_steps_and_padding_far_beyond_the_image(far, dtype, threads):
    # the output is small, so neither time nor memory may grow with the padding; the reference would pad
    x, weight, _ = arrays((2, 3, 2, 4), (5, 3, 3, 3), dtype, whole=True)
    corner = weight[:, :, :1, :1]
    grad = integers((2, 5, 3, 3), dtype, 18)
    options = {"stride": far, "padding": far}
    y = np.zeros((2, 5, 3, 3))
    y[:, :, 1:2, 1:2] = reference("conv2d", x[:, :, :1, :1], corner)  # the only window that meets the image
    assert_ulp(xent.conv2d(x, corner, **options), y, 0, dtype=dtype)
    one = grad[:, :, 1:2, 1:2]
    expected = [np.zeros(x.shape), None, grad.sum((0, 2, 3))]
    expected[0][:, :, :1, :1], expected[1], _ = reference("conv2d_backward", one, x[:, :, :1, :1], corner)
    for result, value in zip(xent.conv2d_backward(grad, x, corner, **options), expected, strict=True):
        assert_ulp(result, np.asarray(value), 0, dtype=dtype)

    options = {"dilation": far, "padding": far}
    middle = weight[:, :, 1:2, 1:2]  # the only cell that meets it
    assert_ulp(xent.conv2d(x, weight, **options), reference("conv2d", x, middle), 0, dtype=dtype)
    grad = integers((2, 5, 2, 4), dtype, 19)
    grad_x, grad_w, grad_b = reference("conv2d_backward", grad, x, middle)
    grad_w = np.pad(grad_w, [(0, 0), (0, 0), (1, 1), (1, 1)])
    results = xent.conv2d_backward(grad, x, weight, **options)
    for result, value in zip(results, (grad_x, grad_w, grad_b), strict=True):
        assert_ulp(result, value, 0, dtype=dtype)


def test_a_part_of_the_gradients_has_the_same_bits(dtype):
    for name in SAMPLE:
        x_shape, w_shape, options = PATHS[name]
        x, weight, bias = arrays(x_shape, w_shape, dtype)
        grad = (
            np.random.default_rng(11).standard_normal(xent.conv2d(x, weight, **options).shape).astype(dtype)
        )
        everything = xent.conv2d_backward(grad, x, weight, **options)
        for which in range(3):
            needs = tuple(k == which for k in range(3))
            results = xent.conv2d_backward(grad, x, weight, needs=needs, **options)
            assert_same_bits(results[which], everything[which], f"{name}, {needs}")


# Memory -----------------------------------------------------------------------------------------------------


def guarded(array, poison, offset):
    """A contiguous copy of array in the middle of a buffer full of poison; and that buffer and its middle."""
    buffer = np.full(array.size + 2 * 4096, poison, array.dtype)
    middle = slice(4096 + offset, 4096 + offset + array.size)
    buffer[middle] = array.ravel()
    return buffer[middle].reshape(array.shape), buffer, middle


@pytest.mark.parametrize("name", SAMPLE)
def test_nothing_but_the_arrays_is_read_or_written(name, dtype, threads):
    # and where in memory they start does not matter to a single bit
    x_shape, w_shape, options = PATHS[name]
    inputs = arrays(x_shape, w_shape, dtype)
    y = xent.conv2d(*inputs, **options)
    inputs.append(np.random.default_rng(12).standard_normal(y.shape).astype(dtype))
    gradients = xent.conv2d_backward(inputs[3], *inputs[:2], **options)
    for offset in [0, 1, 3]:
        copies = [guarded(a, np.nan, offset) for a in inputs]
        out, buffer, middle = guarded(np.full(y.shape, np.nan, dtype), 7, offset)
        x, weight, bias, grad = (copy for copy, _, _ in copies)
        assert xent.conv2d(x, weight, bias, out=out, **options) is out
        assert_same_bits(out, y, "conv2d")
        buffer[middle] = 7
        assert (buffer == 7).all(), "written beside out"
        assert_same_bits(xent.conv2d_backward(grad, x, weight, **options), gradients, "conv2d_backward")
        assert_same_bits(tuple(copy for copy, _, _ in copies), tuple(inputs), "the inputs")
        for _, around, inside in copies:
            around[inside] = np.nan
            assert np.isnan(around).all(), "written beside an input"


@pytest.mark.parametrize("name", SAMPLE)
def test_read_only_inputs(name, dtype):
    x_shape, w_shape, options = PATHS[name]
    x, weight, bias = (of_zoo("read-only", a) for a in arrays(x_shape, w_shape, dtype))
    y = xent.conv2d(x, weight, bias, **options)
    xent.conv2d_backward(of_zoo("read-only", y), x, weight, **options)


@pytest.mark.parametrize("name", SAMPLE)
def test_out_in_the_middle_of_an_array(name, dtype, threads):
    x_shape, w_shape, options = PATHS[name]
    x, weight, bias = arrays(x_shape, w_shape, dtype, whole=True)
    expected = reference("conv2d", x, weight, bias, **options)
    around = np.full([n + 4 for n in expected.shape], 7, dtype)
    out = around[2:-2, 2:-2, 2:-2, 2:-2]
    assert xent.conv2d(x, weight, bias, out=out, **options) is out
    assert_ulp(out, expected, 0, dtype=dtype)
    out[...] = 7
    assert (around == 7).all()


def test_nothing_stays_from_the_call_before(dtype, threads):
    # scratch that is used again must not show: first NaN through every path, then whole numbers
    for name, after in itertools.product(SAMPLE, ["1x1", "3x3", "depthwise", "stride leaves a rest"]):
        x_shape, w_shape, options = PATHS[name]
        x, weight, bias = (np.full(shape, np.nan, dtype) for shape in (x_shape, w_shape, w_shape[:1]))
        y = xent.conv2d(x, weight, bias, **options)
        assert np.isnan(y).all()
        xent.conv2d_backward(y, x, weight, **options)
        x_shape, w_shape, options = CASES[after]
        x, weight, bias = arrays(x_shape, w_shape, dtype, whole=True)
        expected = reference("conv2d", x, weight, bias, **options)
        result = xent.conv2d(x, weight, bias, **options)
        assert_ulp(result, expected, 0, dtype=dtype, what=f"{after} after {name}")
        results = xent.conv2d_backward(result, x, weight, **options)
        values = reference("conv2d_backward", expected, x, weight, **options)
        for result, value in zip(results, values, strict=True):
            assert_ulp(result, value, 0, dtype=dtype, what=f"{after} after {name}")


# Special values ---------------------------------------------------------------------------------------------


def never_padding(x_shape, w_shape, options):
    """A pixel of the output whose window lies in the image, and an element of the kernel that always does.

    Where there is none, None. The product of inf with a zero of the padding is outside these tests.
    """
    ones = np.ones((1, w_shape[1] * options.get("groups", 1), *x_shape[2:])), np.ones(w_shape)
    inside = reference("conv2d", *ones, **options)[0, 0]
    pixels = np.argwhere(inside == ones[1][0].size)
    grad = np.ones((1, len(ones[1]), *inside.shape))
    counts = reference("conv2d_backward", grad, *ones, **options)[1][0, 0]
    cells = np.argwhere(counts == inside.size)
    return [tuple(found[len(found) // 2].tolist()) if len(found) else None for found in (pixels, cells)]


# beside SAMPLE
TOUCHED = ["3x3, odd tiles", "5x3", "same, stride", "valid", "dilation in both directions", "depthwise, 1x1"]


@pytest.mark.parametrize("which", ["x", "weight", "grad"])
@pytest.mark.parametrize("name", [*SAMPLE, *TOUCHED, "groups of 17 outputs"])
def test_special_values_reach_what_they_touch(name, which, dtype):
    x_shape, w_shape, options = PATHS[name]
    x, weight, bias = arrays(x_shape, w_shape, dtype, whole=True)
    grad = integers(reference("conv2d", x, weight, **options).shape, dtype, 13)
    for a in (x, weight, grad):
        a[a == 0] = 1
    pixel, cell = never_padding(x_shape, w_shape, options)
    if (which == "weight" and cell is None) or (which == "grad" and pixel is None):
        pytest.skip("every window meets the padding")
    places = {
        "x": [tuple(n // 2 for n in x.shape), (-1, -1, -1, -1)],
        "weight": [(k, k, *(cell or ())) for k in (0, -1)],
        "grad": [(k, k, *(pixel or ())) for k in (0, -1)],
    }
    # each value at each place, in one of the dtypes
    found = [np.nan, -np.inf] if dtype == np.float32 else [-np.inf, np.nan]
    for place, value in zip(places[which], found, strict=True):
        values = {"x": x.copy(), "weight": weight.copy(), "grad": grad.copy()}
        values[which][place] = value
        what = f"{value} at {place} of {which}"
        if which != "grad":
            y = reference("conv2d", values["x"], values["weight"], bias, **options)
            result = xent.conv2d(values["x"], values["weight"], bias, **options)
            assert_ulp(result, y, 0, dtype=dtype, what=what)
        expected = reference("conv2d_backward", values["grad"], values["x"], values["weight"], **options)
        results = xent.conv2d_backward(values["grad"], values["x"], values["weight"], **options)
        for argument, result, wanted in zip(["x", "weight", "bias"], results, expected, strict=True):
            assert_ulp(result, wanted, 0, dtype=dtype, what=f"grad_{argument}, {what}")


@pytest.mark.parametrize("name", SAMPLE)
def test_an_image_full_of_nan_leaves_the_others_alone(name, dtype, threads):
    x_shape, w_shape, options = PATHS[name]
    x, weight, bias = arrays((5, *x_shape[1:]), w_shape, dtype, whole=True)
    y = reference("conv2d", x, weight, bias, **options)
    grad = integers(y.shape, dtype, 14)
    grad_x, _, _ = reference("conv2d_backward", grad, x, weight, **options)
    x[[0, 3]] = grad[[0, 3]] = np.nan
    result = xent.conv2d(x, weight, bias, **options)
    results = xent.conv2d_backward(grad, x, weight, **options)
    others = [1, 2, 4]
    assert_ulp(result[others], y[others], 0, dtype=dtype)
    assert_ulp(results[0][others], grad_x[others], 0, dtype=dtype)
    assert np.isnan(results[1]).all()
    assert np.isnan(results[2]).all()


@pytest.mark.parametrize("name", ["1x1", "3x3, padded", "depthwise", "groups", "7x7, stride 2"])
def test_a_channel_full_of_nan_leaves_other_groups_alone(name, dtype):
    x_shape, w_shape, options = CASES[name]
    for groups in [2, 5]:
        shape, options = (groups * 3, 2, *w_shape[2:]), options | {"groups": groups}
        x, weight, bias = arrays((2, 2 * groups, *x_shape[2:]), shape, dtype, whole=True)
        y = reference("conv2d", x, weight, bias, **options)
        x[:, 2:4] = np.nan  # of the second group
        weight[3:6] = np.nan
        result = xent.conv2d(x, weight, bias, **options)
        others = np.delete(np.arange(groups * 3), [3, 4, 5])
        assert_ulp(result[:, others], y[:, others], 0, dtype=dtype)
        assert np.isnan(result[:, 3:6]).all()


@pytest.mark.parametrize("name", SAMPLE)
def test_subnormal_numbers(name, dtype, threads):
    x_shape, w_shape, options = PATHS[name]
    x, weight, bias = arrays(x_shape, w_shape, dtype, whole=True)
    # whole numbers times the smallest: multiples of it, exact in any order and in the reference as well
    tiny = np.finfo(dtype).smallest_subnormal
    y = reference("conv2d", x, weight, bias, **options)
    assert_ulp(xent.conv2d(x * tiny, weight, bias * tiny, **options), y * tiny, 0, dtype=dtype)
    grad = integers(y.shape, dtype, 15)
    grad_x, grad_weight, grad_bias = reference("conv2d_backward", grad, x, weight, **options)
    for small, expected in [
        ((grad * tiny, x, weight), (grad_x * tiny, grad_weight * tiny, grad_bias * tiny)),
        ((grad, x * tiny, weight), (grad_x, grad_weight * tiny, grad_bias)),
        ((grad, x, weight * tiny), (grad_x * tiny, grad_weight, grad_bias)),
    ]:
        for result, wanted in zip(xent.conv2d_backward(*small, **options), expected, strict=True):
            assert_ulp(result, wanted, 0, dtype=dtype)


@pytest.mark.parametrize("name", SAMPLE)
def test_negative_zeros_are_zeros(name, dtype):
    x_shape, w_shape, options = PATHS[name]
    x, weight, bias = arrays(x_shape, w_shape, dtype, whole=True)
    y = reference("conv2d", x, weight, bias, **options)
    grad = integers(y.shape, dtype, 16)
    expected = reference("conv2d_backward", grad, x, weight, **options)
    for a in (x, weight, bias, grad):
        a[a == 0] = -0.0
    assert_ulp(xent.conv2d(x, weight, bias, **options), y, 0, dtype=dtype)
    for result, wanted in zip(xent.conv2d_backward(grad, x, weight, **options), expected, strict=True):
        assert_ulp(result, wanted, 0, dtype=dtype)
    nothing = xent.conv2d(np.full_like(x, -0.0), weight, activation="relu", **options)
    assert (nothing == 0).all()


def test_results_beyond_the_range_are_infinite(dtype):
    largest = np.finfo(dtype).max
    for name in ["1x1", "3x3, padded", "depthwise"]:
        x_shape, w_shape, options = CASES[name]
        x, weight = np.full(x_shape, largest, dtype), np.full(w_shape, 2, dtype)
        assert (xent.conv2d(x, weight, **options) == np.inf).all()
        assert (xent.conv2d(-x, weight, **options) == -np.inf).all()
        assert (xent.conv2d(-x, weight, activation="relu", **options) == 0).all()


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


# Signals ----------------------------------------------------------------------------------------------------

LINES = {
    "one tap": ((2, 3, 7), (4, 3, 1), {}),
    "padded": ((2, 5, 33), (6, 5, 3), {"padding": 1}),
    "padding of each side": ((1, 2, 6), (3, 2, 4), {"padding": (3, 0), "stride": 2}),
    "same": ((1, 2, 11), (3, 2, 4), {"padding": "same", "stride": 3}),
    "valid": ((3, 2, 9), (3, 2, 3), {"padding": "valid"}),
    "dilation": ((2, 3, 40), (4, 3, 5), {"dilation": 4, "padding": 8}),
    "groups": ((2, 6, 50), (9, 2, 3), {"groups": 3, "padding": (1, 2)}),
    "depthwise": ((2, 16, 101), (16, 1, 7), {"groups": 16, "padding": "same"}),
    "long": ((2, 3, 5000), (17, 3, 25), {"stride": 5, "padding": 12}),
    "no channels": ((2, 0, 9), (3, 0, 3), {}),
    "empty batch": ((0, 2, 9), (3, 2, 3), {}),
}


def line_arrays(name, dtype):
    """x, weight, bias and grad of a case, in whole numbers."""
    x_shape, w_shape, options = LINES[name]
    x, weight, bias = arrays(x_shape, w_shape, dtype, whole=True)
    return x, weight, bias, integers(reference("conv1d", x, weight, **options).shape, dtype, 22)


@pytest.mark.parametrize("name", LINES)
def test_conv1d(name, dtype, threads):
    options = LINES[name][2]
    x, weight, bias, grad = line_arrays(name, dtype)
    for b, activation in itertools.product([None, bias, bias.tolist()], [None, "relu"]):
        expected = reference("conv1d", x, weight, b, activation=activation, **options)
        result = xent.conv1d(x, weight, b, activation=activation, **options)
        assert_ulp(result, expected, 0, dtype=dtype)
        assert result.base is None
    values = reference("conv1d_backward", grad, x, weight, **options)
    for needs in itertools.product([False, True], repeat=3):
        results = xent.conv1d_backward(grad, x, weight, needs=needs, **options)
        for needed, result, value in zip(needs, results, values, strict=True):
            if needed:
                assert_ulp(result, value, 0, dtype=dtype)
            else:
                assert result is None


@pytest.mark.parametrize("variant", ZOO)
def test_signals_in_every_memory_layout(variant, dtype):
    x, weight, bias, grad = line_arrays("groups", dtype)
    options = LINES["groups"][2]
    expected = reference("conv1d", x, weight, bias, **options)
    values = reference("conv1d_backward", grad, x, weight, **options)
    layouts = [of_zoo(variant, a) for a in (x, weight, bias)]
    assert_ulp(xent.conv1d(*layouts, **options), expected, 0, dtype=dtype)
    results = xent.conv1d_backward(of_zoo(variant, grad), *layouts[:2], **options)
    for result, value in zip(results, values, strict=True):
        assert_ulp(result, value, 0, dtype=dtype)
    if variant in ("contiguous", "every second element", "Fortran order"):
        out = of_zoo(variant, np.full(expected.shape, np.nan, dtype))
        assert xent.conv1d(x, weight, bias, out=out, **options) is out
        assert_ulp(out, expected, 0, dtype=dtype)
        places = tuple(of_zoo(variant, np.full(a.shape, np.nan, dtype)) for a in values)
        results = xent.conv1d_backward(grad, x, weight, out=places, **options)
        for result, place, value in zip(results, places, values, strict=True):
            assert result is place
            assert_ulp(result, value, 0, dtype=dtype)


def test_a_signal_is_read_and_written_where_it_lies():
    x, weight = np.ones((1, 4, 100_000), np.float32), np.ones((4, 1, 3), np.float32)
    out = np.empty((1, 4, 100_000), np.float32)
    with xent.num_threads(1):
        assert peak_bytes(lambda: xent.conv1d(x, weight, groups=4, padding=1, out=out)) < x.nbytes / 2


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


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int64])
def test_groups_of_any_integer_type(kind):
    # products of sizes must not be computed in the type of `groups`
    x, weight, _ = arrays((2, 64, 6, 6), (64, 32, 3, 3), np.float32, whole=True)
    expected = xent.conv2d(x, weight, groups=2, padding=1)
    assert_same_bits(xent.conv2d(x, weight, groups=kind(2), padding=1), expected)
    for result, value in zip(
        xent.conv2d_backward(expected, x, weight, groups=kind(2), padding=1),
        xent.conv2d_backward(expected, x, weight, groups=2, padding=1),
        strict=True,
    ):
        assert_same_bits(result, value)


def test_infinite_weights_with_bias_give_no_warning():
    weight = np.zeros((2, 3, 3, 3), np.float32)
    weight[0, 0, 0, :2] = np.inf, -np.inf
    bias = np.array([-np.inf, 0, 0], np.float32)
    x = np.ones((1, 2, 4, 4), np.float32)
    result = xent.conv_transpose2d(x, weight, bias, padding=1)
    assert_ulp(result, reference("conv_transpose2d", x, weight, bias, padding=1), 0, dtype=np.float32)


def test_large_weights_whose_sum_overflows():
    weight = np.full((2, 3, 3, 3), 2.0**125, np.float32)
    x = np.full((1, 2, 5, 5), 2.0**-120, np.float32)
    result = xent.conv_transpose2d(x, weight, padding=1)
    assert_ulp(result, reference("conv_transpose2d", x, weight, padding=1), 0, dtype=np.float32)


# Equal numbers, whose roundings all go one way --------------------------------------------------------------

EQUAL = {
    "many channels": ((1, 1000, 4, 4), (3, 1000, 1, 1), {}),
    "many channels, as lanes": ((8, 1000, 8, 8), (64, 1000, 1, 1), {}),
    "3x3": ((2, 64, 12, 12), (40, 64, 3, 3), {}),
    "few outputs, one kernel": ((1, 70, 30, 40), (1, 70, 9, 9), {"stride": 3}),
    "many images": ((300, 2, 20, 3), (3, 2, 1, 1), {}),
    "many pixels": ((6, 1, 60, 90), (9, 1, 2, 2), {}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EQUAL)
def test_sums_of_equal_numbers(name, dtype):
    """Errors stay within a bound that holds for all numbers: not the square root of the number of terms."""
    x_shape, w_shape, options = EQUAL[name]
    x, weight = np.full(x_shape, 0.1, dtype), np.full(w_shape, 0.7, dtype)
    y = xent.conv2d(x, weight, **options)
    grad = np.full(y.shape, 0.3, dtype)
    gx, gw, _ = xent.conv2d_backward(grad, x, weight, **options)
    of_x, of_weight, of_grad = (np.longdouble(a.flat[0]) for a in (x, weight, grad))
    reached = xent.conv2d_backward(np.ones_like(grad), x, np.ones_like(weight), **options)[0]
    sums = [
        (y, math.prod(w_shape[1:]), of_x * of_weight),
        (gw, y.size // w_shape[0], of_x * of_grad),
        (gx, reached.astype(np.longdouble), of_weight * of_grad),
    ]
    for actual, terms, each in sums:
        assert (np.abs(actual - terms * each) <= convolution(terms, terms * each, dtype)).all()


@pytest.mark.parametrize(
    "x_shape, w_shape, options",
    [
        ((1, 3, 129, 28), (228, 3, 5, 2), {"stride": (2, 1), "dilation": (29, 1), "padding": (38, 4)}),
        ((21, 1, 138, 57), (211, 1, 6, 5), {"stride": 2, "dilation": (1, 33), "padding": (34, 39)}),
    ],
)
def test_tiles_that_see_more_than_panels_are_copied_from(x_shape, w_shape, options):
    rng = np.random.default_rng(3)
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in (x_shape, w_shape))
    y, expected = xent.conv2d(x, weight, **options), reference("conv2d", x, weight, **options)
    terms = reference("conv2d", np.abs(x), np.abs(weight), **options)
    assert (np.abs(y - expected) <= convolution(math.prod(w_shape[1:]), terms, np.float32)).all()
