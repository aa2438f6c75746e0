"""Softmax, log-softmax and log-sum-exp, with outputs that are reused wherever a library can do that."""

import numpy as np

import xent

from . import adapters
from .libraries import jax, special, torch


class Logits:
    """Logits, labels, and the class axis; the operators of this family do without the labels."""

    def __init__(self, x, y, axis):
        self.x, self.y, self.axis = x, y, axis

    def arguments(self, operator):
        return (self.x,)


class Xent(Logits, adapters.Xent):
    def softmax(self, x, out=None):
        return xent.softmax(x, self.axis, out=out)

    def log_softmax(self, x, out=None):
        return xent.log_softmax(x, self.axis, out=out)

    def logsumexp(self, x, out=None):
        return xent.logsumexp(x, self.axis, out=out)


class Torch(Logits, adapters.Torch):
    def softmax(self, x, out=None):
        return torch.softmax(x, self.axis, out=out)

    def log_softmax(self, x, out=None):
        return torch.log_softmax(x, self.axis, out=out)

    def logsumexp(self, x, out=None):
        return torch.logsumexp(x, self.axis, out=out)


class TorchCompiled(adapters.TorchCompiled, Torch):
    pass


class Jax(Logits, adapters.Jax):
    def softmax(self, x):
        return jax.nn.softmax(x, self.axis)

    def log_softmax(self, x):
        return jax.nn.log_softmax(x, self.axis)

    def logsumexp(self, x):
        return jax.nn.logsumexp(x, self.axis)


class OnnxRuntime(Logits, adapters.OnnxRuntime):
    def softmax(self, x):
        return adapters.Node("Softmax", x.shape, {"axis": self.axis})

    def log_softmax(self, x):
        return adapters.Node("LogSoftmax", x.shape, {"axis": self.axis})


class SciPy(Logits, adapters.SciPy):
    def softmax(self, x):
        return special.softmax(x, self.axis)

    def log_softmax(self, x):
        return special.log_softmax(x, self.axis)

    def logsumexp(self, x):
        return special.logsumexp(x, self.axis)


class NumPy(Logits, adapters.NumPy):
    def softmax(self, x):
        e = np.exp(x - x.max(self.axis, keepdims=True))
        e /= e.sum(self.axis, keepdims=True)
        return e

    def log_softmax(self, x):
        shifted = x - x.max(self.axis, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(self.axis, keepdims=True))
        return shifted

    def logsumexp(self, x):
        max_logit = x.max(self.axis, keepdims=True)
        return np.log(np.exp(x - max_logit).sum(self.axis)) + max_logit.squeeze(self.axis)


PEERS = [Xent, Torch, TorchCompiled, Jax, OnnxRuntime, SciPy, NumPy]
