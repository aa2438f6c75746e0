"""The layers that convolution, pooling and im2col are measured on."""

import itertools
from collections import Counter
from dataclasses import dataclass

import numpy as np


def normal(shape, dtype="float32", seed=0):
    """Standard normal values; the seed is fixed, so every implementation and every run sees the same."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32).astype(dtype, copy=False)


@dataclass(frozen=True)
class Window:
    """Square windows that slide over images of shape (N, C, H, W)."""

    shape: tuple
    kernel: int
    stride: int
    padding: int
    dtype: str = "float32"
    dilation: int = 1  # of convolutions

    def __str__(self):
        padded = f" pad {self.padding}" if self.padding else ""
        return f"{self.kernel}x{self.kernel}/{self.stride}{padded} {self.shape}"

    @property
    def options(self):
        return {"stride": self.stride, "padding": self.padding}

    @property
    def out_size(self):
        reach = (self.kernel - 1) * self.dilation + 1
        return tuple((size + 2 * self.padding - reach) // self.stride + 1 for size in self.shape[2:])

    def images(self):
        return normal(self.shape, self.dtype)

    def data(self):
        """Return what an implementation is made from."""
        return self, self.images()

    def about(self, operator):
        """What the results say of this case."""
        return {"shape": self.shape, "dtype": self.dtype}


@dataclass(frozen=True)
class Layer(Window):
    """A convolution with bias. Weights are so small that outputs are as large as inputs."""

    name: str = ""
    outputs: int = 1
    groups: int = 1

    def __str__(self):
        return self.name if self.dtype == "float32" else f"{self.name} {self.dtype}"

    @property
    def options(self):
        return {**super().options, "dilation": self.dilation, "groups": self.groups}

    @property
    def products(self):
        """Multiplications of the forward pass, padding included."""
        return int(self.shape[0] * np.prod(self.out_size) * np.prod(self.weight_shape))

    @property
    def weight_shape(self):
        return (self.outputs, self.shape[1] // self.groups, self.kernel, self.kernel)

    @property
    def is_bounded(self):
        """Whether there are outputs, and they cost neither too much nor next to nothing."""
        if min(self.out_size) < 1:
            return False
        outputs = self.shape[0] * self.outputs * np.prod(self.out_size)
        numbers = np.prod(self.shape) + outputs + np.prod(self.weight_shape)
        return self.products in DRAWN_PRODUCTS and 4 * numbers <= DRAWN_BYTES

    def data(self):
        weight = normal(self.weight_shape, self.dtype, 1)
        weight /= np.sqrt(np.prod(self.weight_shape[1:]))
        return self, self.images(), weight, normal(self.outputs, self.dtype, 2)

    def about(self, operator):
        """Multiplications and additions count as one operation each, padding included, the bias left out."""
        # Two gradients, each as much work as the output.
        passes = 3 if operator == "conv2d forward+backward" else 1
        size = np.dtype(self.dtype).itemsize
        return {
            **super().about(operator),
            "flops": 2 * self.products * passes,
            "weight_bytes": int(np.prod(self.weight_shape)) * size,
        }


def layer(name, n, channels, size, outputs, kernel, stride, padding, **options):
    return Layer((n, channels, size, size), kernel, stride, padding, name=name, outputs=outputs, **options)


LAYERS = [
    # ResNet-50's, on 224 x 224 images
    layer("resnet 3x3 64", 8, 64, 56, 64, 3, 1, 1),
    layer("resnet 3x3 128", 8, 128, 28, 128, 3, 1, 1),
    layer("resnet 3x3 256", 8, 256, 14, 256, 3, 1, 1),
    layer("resnet 3x3 512", 8, 512, 7, 512, 3, 1, 1),
    layer("downsampling 3x3", 8, 128, 56, 128, 3, 2, 1),
    layer("pointwise 256-64", 8, 256, 56, 64, 1, 1, 0),
    layer("pointwise 64-256", 8, 64, 56, 256, 1, 1, 0),
    layer("head 256-2", 8, 256, 56, 2, 1, 1, 0),
    layer("stem 7x7", 8, 3, 224, 64, 7, 2, 3),
    layer("depthwise 3x3", 8, 128, 56, 128, 3, 1, 1, groups=128),
    layer("LeNet 5x5 1-6", 64, 1, 28, 6, 5, 1, 2),
    layer("LeNet 5x5 6-16", 64, 6, 14, 16, 5, 1, 0),
    layer("CIFAR 3x3 3-32", 64, 3, 32, 32, 3, 1, 1),
    layer("CIFAR 3x3 32-64", 64, 32, 16, 64, 3, 1, 1),
    layer("digits 3x3", 256, 1, 8, 16, 3, 1, 1),
]
DOUBLE = [
    layer("resnet 3x3 64", 8, 64, 56, 64, 3, 1, 1, dtype="float64"),
    layer("LeNet 5x5 6-16", 64, 6, 14, 16, 5, 1, 0, dtype="float64"),
]


def pieces(name, size, *convolutions):
    """Yield layers of a batch of one that follow each other: (channels, outputs, kernel, stride, groups)."""
    for channels, outputs, kernel, stride, groups in convolutions:
        form = "depthwise" if groups > 1 else f"{channels}-{outputs}"
        step = f"/{stride}" if stride > 1 else ""
        said = f"{name} {kernel}x{kernel}{step} {form} @{size}"
        if groups > 1:
            said += f" {channels}"
        yield layer(said, 1, channels, size, outputs, kernel, stride, kernel // 2, groups=groups)
        size = -(-size // stride)


def resnet_50():
    """The convolutions of ResNet-50, with the stride in the 3x3 layers as libraries have it."""
    yield from pieces("ResNet-50", 224, (3, 64, 7, 2, 1))
    channels, size = 64, 56
    for width, blocks, stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        yield from pieces("ResNet-50", size, (channels, 4 * width, 1, stride, 1))
        for _ in range(blocks):
            block = (channels, width, 1, 1, 1), (width, width, 3, stride, 1), (width, 4 * width, 1, 1, 1)
            yield from pieces("ResNet-50", size, *block)
            channels, size, stride = 4 * width, size // stride, 1


def mobilenet_v2():
    """The convolutions of MobileNet-v2: thin layers, and depthwise ones on six times as many channels."""
    yield from pieces("MobileNet-v2", 224, (3, 32, 3, 2, 1), (32, 32, 3, 1, 32), (32, 16, 1, 1, 1))
    channels, size = 16, 112
    for outputs, blocks, stride in [(24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)]:
        for _ in range(blocks):
            wide = 6 * channels
            block = (channels, wide, 1, 1, 1), (wide, wide, 3, stride, wide), (wide, outputs, 1, 1, 1)
            yield from pieces("MobileNet-v2", size, *block)
            channels, size, stride = outputs, size // stride, 1
    yield from pieces("MobileNet-v2", 7, (320, 1280, 1, 1, 1))


def vgg_16():
    """The convolutions of VGG-16."""
    widths = [(224, 3, 64, 64), (112, 64, 128, 128), (56, 128, 256, 256, 256), (28, 256, 512, 512, 512)]
    for size, *channels in [*widths, (14, 512, 512, 512, 512)]:
        for each, outputs in itertools.pairwise(channels):
            yield from pieces("VGG-16", size, (each, outputs, 3, 1, 1))


# Of whole networks for one image: how often each layer occurs.
NETWORKS = {
    "ResNet-50": Counter(resnet_50()),
    "MobileNet-v2": Counter(mobilenet_v2()),
    "VGG-16": Counter(vgg_16()),
}

DRAWN_PRODUCTS = range(2**23, 2**30)  # the most are 2 GFLOP, the least some 100 us: longer than a call
DRAWN_BYTES = 64 * 2**20  # of images, weights and results together


def drawn(number, seed):
    """Yield layers drawn at random: what nobody tunes for. Sizes are spread evenly over their logarithms."""
    rng = np.random.default_rng(seed)

    def size(low, high):
        return int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))

    while number:
        images, channels, outputs, side = size(1, 256), size(1, 1024), size(1, 1024), size(4, 224)
        kernel, stride, dilation = (int(rng.integers(1, most + 1)) for most in (7, 3, 3))
        groups = int(rng.choice([1, 1, size(1, 8), channels]))
        channels, outputs = (-(-each // groups) * groups for each in (channels, outputs))
        dilation = dilation if kernel > 1 and rng.random() < 0.5 else 1
        padding = int(rng.integers(0, (kernel - 1) * dilation // 2 + 1))
        name = f"drawn {images} x {channels}-{outputs} @{side} {kernel}x{kernel}/{stride}"
        name += f" pad {padding} dilation {dilation} groups {groups}"
        window = {"dilation": dilation, "groups": groups}
        one = layer(name, images, channels, side, outputs, kernel, stride, padding, **window)
        if channels % 16 and outputs % 16 and channels <= 1024 >= outputs and one.is_bounded:
            yield one
            number -= 1


DRAWN = list(drawn(20, seed=15))

# One layer of each kind: many channels, pointwise, few channels.
QUICK_NAMES = ["resnet 3x3 128", "pointwise 256-64", "LeNet 5x5 6-16"]
BESIDE = [*DRAWN, *itertools.chain(*NETWORKS.values())]  # in tables, but not in charts
CONVOLUTIONS = [*LAYERS, *DOUBLE, *BESIDE], [each for each in LAYERS if each.name in QUICK_NAMES]

# 2x2/2 halves an image (LeNet, VGG), 3x3/2 with padding follows ResNet's stem.
POOLS = [Window((8, 64, size, size), *window) for size in (112, 56) for window in [(2, 2, 0), (3, 2, 1)]]
# Rows that do not fill vectors.
NARROW_POOLS = [
    Window((32, 64, 14, 14), 3, 1, 1),
    Window((64, 64, 7, 7), 3, 2, 1),
    Window((32, 64, 14, 14), 2, 2, 0),
]
# Windows that overlap by more, and strides that vectors do not have.
WIDE_POOLS = [
    Window((4, 64, 56, 56), 5, 2, 2),
    Window((4, 32, 60, 60), 5, 3, 0),
    Window((4, 32, 60, 60), 4, 3, 1),
]
POOLING = POOLS + NARROW_POOLS + WIDE_POOLS, POOLS[2:]

COLUMNS = [
    Window((8, 64, 56, 56), 3, 1, 1),
    Window((64, 6, 14, 14), 5, 1, 0),
    Window((8, 128, 56, 56), 3, 2, 1),
    Window((8, 64, 56, 56), 2, 2, 0),
]
IM2COL = COLUMNS, COLUMNS[1:2]
