"""The layers that convolution, pooling and im2col are measured on."""

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

    def __str__(self):
        padded = f" pad {self.padding}" if self.padding else ""
        return f"{self.kernel}x{self.kernel}/{self.stride}{padded} {self.shape}"

    @property
    def options(self):
        return {"stride": self.stride, "padding": self.padding}

    @property
    def out_size(self):
        return tuple((size + 2 * self.padding - self.kernel) // self.stride + 1 for size in self.shape[2:])

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
        return {**super().options, "groups": self.groups}

    @property
    def weight_shape(self):
        return (self.outputs, self.shape[1] // self.groups, self.kernel, self.kernel)

    def data(self):
        weight = normal(self.weight_shape, self.dtype, 1)
        weight /= np.sqrt(np.prod(self.weight_shape[1:]))
        return self, self.images(), weight, normal(self.outputs, self.dtype, 2)

    def about(self, operator):
        """Multiplications and additions count as one operation each, padding included, the bias left out."""
        products = self.shape[0] * np.prod(self.out_size) * np.prod(self.weight_shape)
        # Two gradients, each as much work as the output.
        passes = 3 if operator == "conv2d forward+backward" else 1
        size = np.dtype(self.dtype).itemsize
        return {
            **super().about(operator),
            "flops": int(2 * products * passes),
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
# One layer of each kind: many channels, pointwise, few channels.
QUICK_NAMES = ["resnet 3x3 128", "pointwise 256-64", "LeNet 5x5 6-16"]
CONVOLUTIONS = LAYERS + DOUBLE, [each for each in LAYERS if each.name in QUICK_NAMES]

# 2x2/2 halves an image (LeNet, VGG), 3x3/2 with padding follows ResNet's stem.
POOLS = [Window((8, 64, size, size), *window) for size in (112, 56) for window in [(2, 2, 0), (3, 2, 1)]]
POOLING = POOLS, POOLS[2:]

COLUMNS = [
    Window((8, 64, 56, 56), 3, 1, 1),
    Window((64, 6, 14, 14), 5, 1, 0),
    Window((8, 128, 56, 56), 3, 2, 1),
    Window((8, 64, 56, 56), 2, 2, 0),
]
IM2COL = COLUMNS, COLUMNS[1:2]
