"""A linear layer with cross-entropy. Gradients are those by x and by the weights, as fresh arrays.

PyTorch is measured with all logits in memory and, as "torch chunked", with the chunks that it chooses itself.
The matrix products alone, by NumPy, are no peer: they are what the time is judged by.
"""

import xent

from . import adapters
from .libraries import functional, jax, torch


class Layer:
    """The input of a layer, its weights, and labels."""

    gradients = 2

    def __init__(self, x, weight, labels):
        self.arrays = x, weight, labels

    def arguments(self, operator):
        return self.arrays


class Xent(Layer, adapters.Xent):
    def linear_cross_entropy(self, x, weight, labels):
        return xent.linear_cross_entropy(x, weight, labels)

    def linear_cross_entropy_value_and_grad(self, x, weight, labels):
        return xent.linear_cross_entropy_value_and_grad(x, weight, labels)


class Torch(Layer, adapters.Torch):
    """PyTorch, eager, with all logits in memory."""

    options = None

    def linear_cross_entropy(self, x, weight, labels):
        return functional.linear_cross_entropy(x, weight, labels, options=self.options)


class TorchChunked(Torch):
    """PyTorch in chunks of positions."""

    name = "torch chunked"

    def __init__(self, *arrays):
        super().__init__(*arrays)
        self.options = torch.nn.LinearCrossEntropyOptions()


class Jax(Layer, adapters.Jax):
    def linear_cross_entropy(self, x, weight, labels):
        logits = x @ weight.T
        target = jax.numpy.take_along_axis(logits, labels[:, None], 1)[:, 0]
        return (jax.nn.logsumexp(logits, 1) - target).mean()


class Products(Layer, adapters.NumPy):
    """The matrix products alone, of whole matrices."""

    name = "numpy products"

    def linear_cross_entropy(self, x, weight, labels):
        return x @ weight.T

    def linear_cross_entropy_value_and_grad(self, x, weight, labels):
        logits = x @ weight.T
        return logits @ weight, logits.T @ x


PEERS = [Xent, Torch, TorchChunked, Jax, Products]
