"""Convolution and pooling on layers of well-known networks."""

import conv_peers
import numpy as np
import pytest

# images, input channels, size, output channels, kernel, stride, padding
LAYERS = {
    "resnet 3x3": (8, 64, 56, 64, 3, 1, 1),
    "pointwise": (8, 256, 56, 64, 1, 1, 0),
    "LeNet 5x5": (64, 6, 14, 16, 5, 1, 0),
    "digits 3x3": (256, 1, 8, 16, 3, 1, 1),
}


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", conv_peers.NAMES)
@pytest.mark.parametrize("layer", LAYERS)
def test_conv2d(compare, layer, name):
    n, c, size, o, k, stride, padding = LAYERS[layer]
    x, weight = normal(n, c, size, size), normal(o, c, k, k)
    group = f"conv2d {layer}"
    compare(
        group, name, lambda: conv_peers.conv2d(x, weight, stride=stride, padding=padding), operator="conv2d"
    )


@pytest.mark.parametrize("name", conv_peers.NAMES)
@pytest.mark.parametrize("size", [112, 56])
def test_max_pool2d(compare, size, name):
    x = normal(8, 64, size, size)
    group = f"max_pool2d 2x2 of {size}"
    compare(group, name, lambda: conv_peers.max_pool2d(x, 2), operator="max_pool2d")
