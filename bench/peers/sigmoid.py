"""The mean sigmoid cross-entropy over the elements, alone and with its gradient; weighted, and focal.

Also gradient and second derivatives of the sum, as objectives of gradient boosting compose them.

Targets are 0 and 1 in floats of the logits' dtype, which is what PyTorch takes. PyTorch has no focal loss of
its own; that of torchvision is composed here of the same calls. JAX has the formulas of optax; `jax softplus`
is what XLA makes the fastest code of, at the price of the last digits of tiny losses.
"""

import numpy as np

import xent

from . import adapters
from .libraries import functional, jax, special, torch


class Elements:
    """Logits and targets, and the positive weights of the classes for the option that takes them."""

    compared = True

    def __init__(self, x, y, pos_weight):
        self.x, self.y, self.pos_weight = x, y, pos_weight

    def arguments(self, operator):
        weighted = operator.endswith(" weighted")
        return (self.x, self.y, self.pos_weight) if weighted else (self.x, self.y)


class Xent(Elements, adapters.Xent):
    def sigmoid_cross_entropy(self, x, y):
        return xent.sigmoid_cross_entropy(x, y)

    def sigmoid_cross_entropy_value_and_grad(self, x, y):
        return xent.sigmoid_cross_entropy_value_and_grad(x, y)

    def sigmoid_cross_entropy_value_and_grad_weighted(self, x, y, pos_weight):
        return xent.sigmoid_cross_entropy_value_and_grad(x, y, pos_weight=pos_weight)

    def sigmoid_cross_entropy_value_and_grad_focal(self, x, y):
        return xent.sigmoid_cross_entropy_value_and_grad(x, y, gamma=2.0, alpha=0.25)

    def sigmoid_cross_entropy_grad_hess(self, x, y):
        return xent.sigmoid_cross_entropy_grad_hess(x, y, reduction="sum")


class XentInPlace(Elements, adapters.XentInPlace):
    def sigmoid_cross_entropy_value_and_grad(self, x, y, out):
        return xent.sigmoid_cross_entropy_value_and_grad(x, y, out=out)


class XentLabels(Elements, adapters.Xent):
    """xent with int64 targets, which cost it more memory to read."""

    name = "xent int64"
    sigmoid_cross_entropy = Xent.sigmoid_cross_entropy
    sigmoid_cross_entropy_value_and_grad = Xent.sigmoid_cross_entropy_value_and_grad
    sigmoid_cross_entropy_grad_hess = Xent.sigmoid_cross_entropy_grad_hess

    def __init__(self, x, y, pos_weight):
        super().__init__(x, y.astype(np.int64), pos_weight)


def focal(p, y, loss):
    """Return the mean focal loss of probabilities and their losses, PyTorch's or JAX's."""
    miss = p * (1 - y) + (1 - p) * y
    return ((0.25 * y + 0.75 * (1 - y)) * miss**2 * loss).mean()


class Torch(Elements, adapters.Torch):
    sigmoid_cross_entropy = staticmethod(functional and functional.binary_cross_entropy_with_logits)

    def sigmoid_cross_entropy_weighted(self, x, y, pos_weight):
        return functional.binary_cross_entropy_with_logits(x, y, pos_weight=pos_weight)

    def sigmoid_cross_entropy_focal(self, x, y):
        loss = functional.binary_cross_entropy_with_logits(x, y, reduction="none")
        return focal(torch.sigmoid(x), y, loss)

    def sigmoid_cross_entropy_grad_hess(self, x, y):
        p = torch.sigmoid(x)
        return p - y, p * (1 - p)


class TorchCompiled(adapters.TorchCompiled, Torch):
    pass


class JaxLosses(Elements, adapters.Jax):
    """JAX, jitted, with the losses of the elements by one formula or another."""

    def sigmoid_cross_entropy(self, x, y):
        return self._losses(x, y).mean()

    def sigmoid_cross_entropy_weighted(self, x, y, pos_weight):
        return self._losses(x, y, pos_weight).mean()

    def sigmoid_cross_entropy_focal(self, x, y):
        return focal(jax.nn.sigmoid(x), y, self._losses(x, y))


class Jax(JaxLosses):
    """The formula of optax.sigmoid_binary_cross_entropy and optax.sigmoid_focal_loss."""

    def _losses(self, x, y, pos_weight=1):
        return -pos_weight * y * jax.nn.log_sigmoid(x) - (1 - y) * jax.nn.log_sigmoid(-x)

    def sigmoid_cross_entropy_grad_hess(self, x, y):
        p = jax.nn.sigmoid(x)
        return p - y, p * (1 - p)


class JaxSoftplus(JaxLosses):
    """JAX with softplus(x) - x y, whose terms cancel where a prediction is confident and right."""

    name = "jax softplus"

    def _losses(self, x, y, pos_weight=1):
        rest = jax.numpy.log1p(jax.numpy.exp(-abs(x)))
        if isinstance(pos_weight, int):
            return jax.numpy.maximum(x, 0) - x * y + rest
        return (1 - y) * x + (1 + (pos_weight - 1) * y) * (rest + jax.numpy.maximum(-x, 0))


class SciPy(Elements, adapters.SciPy):
    def sigmoid_cross_entropy_grad_hess(self, x, y):
        p = special.expit(x)
        return p - y, p * (1 - p)


class NumPy(Elements, adapters.NumPy):
    def sigmoid_cross_entropy(self, x, y):
        return (np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x)))).mean()

    def sigmoid_cross_entropy_value_and_grad(self, x, y):
        return self.sigmoid_cross_entropy(x, y), (1 / (1 + np.exp(-x)) - y) / x.size

    def sigmoid_cross_entropy_grad_hess(self, x, y):
        p = 1 / (1 + np.exp(-x))
        return p - y, p * (1 - p)


PEERS = [Xent, XentInPlace, XentLabels, Torch, TorchCompiled, Jax, JaxSoftplus, SciPy, NumPy]
