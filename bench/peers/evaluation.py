"""`evaluate` and second derivatives.

No library has either in one function. What is timed of the others is what their users compose: mean loss,
accuracy, mean squared error of the probabilities and mean entropy; gradient and diagonal Hessian of the sum.
`xent cross_entropy` is the mean loss alone, by which evaluate is measured: it is no peer.
"""

import numpy as np

import xent

from . import adapters
from .cross_entropy import LabelledLogits
from .libraries import jax, special, torch


class Xent(LabelledLogits, adapters.Xent):
    def evaluate(self, x, y):
        return xent.evaluate(x, y, axis=self.axis)

    def cross_entropy_grad_hess(self, x, y):
        return xent.cross_entropy_grad_hess(x, y, axis=self.axis, reduction="sum")


class XentLoss(LabelledLogits, adapters.Xent):
    """The loss alone."""

    name = "xent cross_entropy"

    def evaluate(self, x, y):
        return xent.cross_entropy(x, y, axis=self.axis)


class Torch(LabelledLogits, adapters.Torch):
    def evaluate(self, x, y):
        log_p = torch.log_softmax(x, self.axis)
        p, place = log_p.exp(), y.unsqueeze(self.axis)
        p_y = p.gather(self.axis, place)
        square = (p * p).sum() + ((1 - p_y) ** 2 - p_y * p_y).sum()
        hits = (x.argmax(self.axis) == y).float().mean()
        entropy = -(p * log_p).sum(self.axis).mean()
        return -log_p.gather(self.axis, place).mean(), hits, square / x.numel(), entropy

    def cross_entropy_grad_hess(self, x, y):
        p, place = torch.softmax(x, self.axis), y.unsqueeze(self.axis)
        return p.scatter_add(self.axis, place, torch.full_like(place, -1, dtype=p.dtype)), p * (1 - p)


class TorchCompiled(adapters.TorchCompiled, Torch):
    pass


class Jax(LabelledLogits, adapters.Jax):
    def evaluate(self, x, y):
        log_p = jax.nn.log_softmax(x, self.axis)
        p, onehot = jax.numpy.exp(log_p), jax.nn.one_hot(y, x.shape[self.axis], axis=self.axis)
        place = jax.numpy.expand_dims(y, self.axis)
        loss = -jax.numpy.take_along_axis(log_p, place, self.axis).mean()
        hits = (x.argmax(self.axis) == y).mean()
        return loss, hits, ((p - onehot) ** 2).mean(), -(p * log_p).sum(self.axis).mean()

    def cross_entropy_grad_hess(self, x, y):
        p = jax.nn.softmax(x, self.axis)
        return p - jax.nn.one_hot(y, x.shape[self.axis], axis=self.axis, dtype=p.dtype), p * (1 - p)


class NumPy(LabelledLogits, adapters.NumPy):
    """NumPy, with SciPy's log-softmax and softmax."""

    library = special

    def __init__(self, x, y, axis):
        super().__init__(x, y, axis)
        self.place, self.onehot = np.expand_dims(y, axis), np.zeros_like(x)
        np.put_along_axis(self.onehot, self.place, 1, axis)

    def evaluate(self, x, y):
        log_p = special.log_softmax(x, self.axis)
        p = np.exp(log_p)
        loss = -np.take_along_axis(log_p, self.place, self.axis).mean()
        hits = (x.argmax(self.axis) == y).mean()
        return loss, hits, ((p - self.onehot) ** 2).mean(), -(p * log_p).sum(self.axis).mean()

    def cross_entropy_grad_hess(self, x, y):
        p = special.softmax(x, self.axis)
        return p - self.onehot, p * (1 - p)


PEERS = [Xent, XentLoss, Torch, TorchCompiled, Jax, NumPy]
