"""Distillation from the largest probabilities of a teacher, as a mean, as users of each library spell it."""

import numpy as np

import xent

from . import adapters
from .libraries import functional, jax

K = 64  # as many as are kept of a vocabulary


class Sparse:
    """A student's logits, and the k largest of a teacher that is a step away; the labels are not used."""

    def __init__(self, x, y, axis):
        teacher = np.random.default_rng(2).standard_normal(x.shape, dtype=np.float32)
        teacher += x.astype(np.float32)
        self.ids = np.argpartition(-teacher, K, -1)[..., :K]
        self.log_probs = np.take_along_axis(xent.log_softmax(teacher), self.ids, -1)
        self.x = x

    def arguments(self, operator):
        return self.x, self.ids, self.log_probs


class Xent(Sparse, adapters.Xent):
    def sparse_distillation_loss(self, x, ids, log_probs):
        return xent.sparse_distillation_loss(x, ids, log_probs)

    def sparse_distillation_loss_value_and_grad(self, x, ids, log_probs):
        return xent.sparse_distillation_loss_value_and_grad(x, ids, log_probs)


class Torch(Sparse, adapters.Torch):
    def sparse_distillation_loss(self, x, ids, log_probs):
        of_k, q = functional.log_softmax(x.float(), -1).gather(-1, ids), log_probs.exp()
        left, tail = 1 - q.sum(-1), 1 - of_k.exp().sum(-1)
        return ((q * (log_probs - of_k)).sum(-1) + left * (left.log() - tail.log())).mean()


class TorchCompiled(adapters.TorchCompiled, Torch):
    """The same, compiled."""


class Jax(Sparse, adapters.Jax):
    def sparse_distillation_loss(self, x, ids, log_probs):
        log_p, q = jax.nn.log_softmax(x.astype("float32"), -1), jax.numpy.exp(log_probs)
        of_k = jax.numpy.take_along_axis(log_p, ids, -1)
        left, tail = 1 - q.sum(-1), 1 - jax.numpy.exp(of_k).sum(-1)
        terms = left * (jax.numpy.log(left) - jax.numpy.log(tail))
        return ((q * (log_probs - of_k)).sum(-1) + terms).mean()


class NumPy(Sparse, adapters.NumPy):
    def sparse_distillation_loss(self, x, ids, log_probs):
        x = x.astype(np.float32)
        shifted = x - x.max(-1, keepdims=True)
        of_k = np.take_along_axis(shifted, ids, -1) - np.log(np.exp(shifted).sum(-1, keepdims=True))
        q = np.exp(log_probs)
        left, tail = 1 - q.sum(-1), 1 - np.exp(of_k).sum(-1)
        return ((q * (log_probs - of_k)).sum(-1) + left * (np.log(left) - np.log(tail))).mean()


PEERS = [Xent, Torch, TorchCompiled, Jax, NumPy]
