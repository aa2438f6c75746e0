"""Convolutions of geometries drawn at random, in whole numbers, which every order of a sum adds up exactly.

The oracle is one matrix product in float64 over an im2col matrix that NumPy's indexing makes: unlike the
reference it takes no turn through the offsets of the kernel, so that a hundred geometries take a second. A
geometry is known by its number: `check(number)` repeats it.
"""

import ml_dtypes
import numpy as np
import pytest

import xent

TOGETHER = 100  # geometries of a test
NUMBERS = [range(first, first + TOGETHER) for first in range(0, 6000, TOGETHER)]
USUAL = 4  # tests of the usual suite
LARGEST, MOST_PRODUCTS = 100_000, 5_000_000  # numbers of an array, products of a convolution: milliseconds
KINDS = ["float32", "float32", "float32", "float64", "float16", np.dtype(ml_dtypes.bfloat16)]


class Geometry:
    """Sizes of images and kernels, and options, drawn at random."""

    def __init__(self, number):
        self.rng = rng = np.random.default_rng([18, number])
        square, dilated, strided, grouped = rng.random(4) < (0.5, 0.5, 0.5, 0.3)
        self.free = -1, -1
        while min(self.free) < 0:  # until there are outputs
            self.kernel = self.pair(9, square)
            self.stride = self.pair(5, square) if strided else (1, 1)
            self.dilation = self.pair(5, square) if dilated else (1, 1)
            border = rng.integers(0, self.size(1, 9), 4).tolist()
            self.padding = tuple(border[:2]), tuple(border[2:])
            self.size_in = self.pair(150, square)
            extent = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
            self.free = [n + sum(p) - e for n, p, e in zip(self.size_in, self.padding, extent, strict=True)]
        self.size_out = tuple(f // s + 1 for f, s in zip(self.free, self.stride, strict=True))
        self.images, self.groups = self.size(1, 60), self.size(2, 60) if grouped else 1
        self.channels, self.outputs = (self.size(1, 300 // self.groups) for _ in range(2))
        if number % 4 == 0:  # depthwise layers, and nearly
            self.groups = self.size(4, 100)
            self.channels, self.outputs = (self.size(1, 4) for _ in range(2))
        while self.is_too_large:
            name = rng.choice(["images", "groups", "channels", "outputs"])
            setattr(self, name, (getattr(self, name) + 1) // 2)

    def size(self, low, high):
        """A whole number, spread evenly over its logarithm: small and large are as likely as each other."""
        return int(np.exp(self.rng.uniform(np.log(low), np.log(high + 1))))

    def pair(self, most, square):
        first = self.size(1, most)
        return first, first if square else self.size(1, most)

    @property
    def x_shape(self):
        return self.images, self.groups * self.channels, *self.size_in

    @property
    def w_shape(self):
        return self.groups * self.outputs, self.channels, *self.kernel

    @property
    def y_shape(self):
        return self.images, self.groups * self.outputs, *self.size_out

    @property
    def is_too_large(self):
        largest = max(np.prod(shape) for shape in (self.x_shape, self.w_shape, self.y_shape))
        products = np.prod(self.w_shape) * self.images * np.prod(self.size_out)
        return largest > LARGEST or products > MOST_PRODUCTS

    def whole(self, shape):
        return self.rng.integers(-3, 4, shape).astype(np.float64)

    def padded(self, x):
        return np.pad(x, [(0, 0), (0, 0), *self.padding])

    def columns(self, x):
        """The im2col matrices (groups, C kh kw, N OH OW) of images."""
        taps = np.ix_(*(np.arange(k) * d for k, d in zip(self.kernel, self.dilation, strict=True)))
        firsts = np.ix_(*(np.arange(n) * s for n, s in zip(self.size_out, self.stride, strict=True)))
        rows, columns = (t[..., None, None] + f for t, f in zip(taps, firsts, strict=True))
        seen = self.padded(x).transpose(1, 0, 2, 3)[:, :, rows, columns]  # (groups C, N, kh, kw, OH, OW)
        return seen.transpose(0, 2, 3, 1, 4, 5).reshape(self.groups, -1, self.images * np.prod(self.size_out))

    def by_output(self, y):
        """Outputs as matrices (groups, O, N OH OW)."""
        return y.transpose(1, 0, 2, 3).reshape(self.groups, self.outputs, -1)

    def by_tap(self, weight):
        """Weights as matrices (groups, O, C kh kw)."""
        return weight.reshape(self.groups, self.outputs, -1)

    def forward(self, x, weight):
        y = (self.by_tap(weight) @ self.columns(x)).reshape(-1, self.images, *self.size_out)
        return y.transpose(1, 0, 2, 3)

    def by_weight(self, grad, x):
        return (self.by_output(grad) @ self.columns(x).transpose(0, 2, 1)).reshape(self.w_shape)

    def by_images(self, grad, weight):
        """Each product goes to the pixel from which `columns` takes its number; 0 is the padding."""
        pixels = np.arange(1.0, 1 + np.prod(self.x_shape)).reshape(self.x_shape)
        products = self.by_tap(weight).transpose(0, 2, 1) @ self.by_output(grad)
        sums = np.bincount(self.columns(pixels).ravel().astype(np.intp), products.ravel(), 1 + pixels.size)
        return sums[1:].reshape(self.x_shape)

    def lying(self, array, kind):
        """The array in a dtype, and sometimes with its channels last."""
        array = array.astype(kind)
        if self.rng.random() < 0.7:
            return array
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def check(number):
    """Compare all convolutions of a geometry, and their gradients, with the oracle."""
    g = Geometry(number)
    kind = np.dtype(KINDS[g.rng.integers(len(KINDS))])
    x, weight, grad = g.whole(g.x_shape), g.whole(g.w_shape), g.whole(g.y_shape)
    bias, other_bias = g.whole(g.y_shape[1]), g.whole(g.x_shape[1])
    y, by_weight, by_images = g.forward(x, weight), g.by_weight(grad, x), g.by_images(grad, weight)
    a, w, d, b, c = (
        g.lying(v, kind) if v.ndim == 4 else v.astype(kind) for v in (x, weight, grad, bias, other_bias)
    )
    options = {"stride": g.stride, "padding": g.padding, "dilation": g.dilation, "groups": g.groups}
    back = {**options, "output_size": g.size_in}
    prepared = xent.prepare_conv2d(w, groups=g.groups)
    out = g.lying(np.zeros(g.y_shape), kind)
    with xent.num_threads(int(g.rng.integers(1, 3))):
        results = [
            (xent.conv2d(a, w, b, **options), y + bias[:, None, None]),
            (xent.conv2d(a, w, activation="relu", out=out, **options), np.maximum(y, 0)),
            (xent.conv2d(-a, prepared, **options), -y),
            (xent.conv2d(a, prepared, **options), y),
            *zip(
                xent.conv2d_backward(d, a, w, **options),
                (by_images, by_weight, grad.sum((0, 2, 3))),
                strict=True,
            ),
            (xent.conv_transpose2d(d, w, c, **back), by_images + other_bias[:, None, None]),
            *zip(
                xent.conv_transpose2d_backward(a, d, w, **back), (y, by_weight, x.sum((0, 2, 3))), strict=True
            ),
        ]
    for k, (result, expected) in enumerate(results):
        with np.errstate(over="ignore"):
            expected = expected.astype(kind)
        assert result.dtype == kind
        assert np.array_equal(result, expected), f"geometry {number}, result {k}: {vars(g)}"


@pytest.mark.parametrize(
    "numbers",
    [pytest.param(n, marks=[pytest.mark.slow] * (k >= USUAL), id=f"{n}") for k, n in enumerate(NUMBERS)],
)
def test_geometries_at_random(numbers):
    for number in numbers:
        check(number)


def test_what_is_drawn():
    """Small and large numbers, what is one and what is not, all occur often."""
    drawn = [Geometry(number) for number in range(USUAL * TOGETHER)]
    assert sum(g.groups > 1 for g in drawn) > 80
    assert sum(g.groups > 1 and g.channels == 1 for g in drawn) > 20
    assert sum(max(g.dilation) > 1 for g in drawn) > 80
    assert sum(max(g.stride) > 1 for g in drawn) > 100
    assert sum(max(g.channels, g.outputs) > 64 for g in drawn) > 50
    assert sum(min(g.channels, g.outputs) == 1 for g in drawn) > 80
    assert sum(min(g.size_out) >= 20 for g in drawn) > 40
