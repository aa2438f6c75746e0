"""Cross-entropy and softmax over a range of batch sizes and class counts."""

import numpy as np
import peers
import pytest

SHAPES = [(32, 10), (4096, 10), (65536, 64), (4096, 1000), (512, 32000)]
OPERATORS = {
    "softmax": (lambda x, y: peers.softmax(x)),
    "cross_entropy": peers.cross_entropy,
    "cross_entropy_value_and_grad": peers.cross_entropy_value_and_grad,
}
NAMES = ["xent", "numpy", "scipy", "torch"]


def data(shape):
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape, dtype=np.float32), rng.integers(0, shape[1], shape[0])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("name", NAMES)
def test_loss(compare, operator, shape, name):
    x, y = data(shape)
    if name not in OPERATORS[operator](x[:1], y[:1]):
        pytest.skip(f"{name} has no {operator} here")
    compare(f"{operator} {shape}", name, lambda: OPERATORS[operator](x, y), shape=shape)
