"""Every implementation of a linear layer with cross-entropy: one class each, as in peers.py.

A class is made from x, weights and labels. Gradients are those by x and by the weights, as fresh arrays.

How each is at its best: PyTorch is measured with all logits in memory and, as "torch chunked", with the
chunks that it chooses itself; JAX is jitted, loss and gradients in one. The matrix products alone, by NumPy,
are no peer: they are what the time is judged by.
"""

import numpy as np
from libraries import jax, torch

import xent


class Layer:
    """One implementation, given its data."""

    library = True

    def __init__(self, x, weight, labels):
        self.x, self.weight, self.labels = x, weight, labels


class Xent(Layer):
    """The functions of this package."""

    name = "xent"

    def linear_cross_entropy(self):
        return lambda: xent.linear_cross_entropy(self.x, self.weight, self.labels)

    def linear_cross_entropy_value_and_grad(self):
        return lambda: xent.linear_cross_entropy_value_and_grad(self.x, self.weight, self.labels)


class Torch(Layer):
    """PyTorch, eager, with all logits in memory."""

    name = "torch"
    library = torch

    def __init__(self, *arrays):
        super().__init__(*map(torch.from_numpy, arrays))
        self.options = None

    def linear_cross_entropy(self):
        def call():
            with torch.inference_mode():
                return self._loss(self.x, self.weight)

        return call

    def linear_cross_entropy_value_and_grad(self):
        x, weight = self.x.detach().requires_grad_(), self.weight.detach().requires_grad_()

        def value_and_grad():
            loss = self._loss(x, weight)
            return loss, torch.autograd.grad(loss, (x, weight))

        return value_and_grad

    def _loss(self, x, weight):
        function = torch.nn.functional.linear_cross_entropy
        return function(x, weight, self.labels, options=self.options)


class TorchChunked(Torch):
    """PyTorch in chunks of positions."""

    name = "torch chunked"

    def __init__(self, *arrays):
        super().__init__(*arrays)
        self.options = torch.nn.LinearCrossEntropyOptions()


class Jax(Layer):
    """JAX, jitted, on arrays that are on the device already."""

    name = "jax"
    library = jax

    def __init__(self, x, weight, labels):
        super().__init__(*map(jax.numpy.asarray, (x, weight, labels.astype(np.int32))))

    def _loss(self, x, weight):
        logits = x @ weight.T
        target = jax.numpy.take_along_axis(logits, self.labels[:, None], 1)[:, 0]
        return (jax.nn.logsumexp(logits, 1) - target).mean()

    def _jitted(self, function):
        jitted = jax.jit(function)
        return lambda: jax.block_until_ready(jitted(self.x, self.weight))

    def linear_cross_entropy(self):
        return self._jitted(self._loss)

    def linear_cross_entropy_value_and_grad(self):
        return self._jitted(jax.value_and_grad(self._loss, (0, 1)))


class Products(Layer):
    """The matrix products alone, of whole matrices."""

    name = "numpy products"

    def linear_cross_entropy(self):
        return lambda: self.x @ self.weight.T

    def linear_cross_entropy_value_and_grad(self):
        def products():
            logits = self.x @ self.weight.T
            return logits @ self.weight, logits.T @ self.x

        return products


PEERS = [Xent, Torch, TorchChunked, Jax, Products]


def prepared(operator, case):
    """Return the call of xent for a case."""
    return getattr(Xent(*case.data()), operator)()
