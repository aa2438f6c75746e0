"""Implementations of `evaluate` and of second derivatives, as peers.py has those of the softmax family.

No library has either in one function. What is timed of the others is what their users compose: mean loss,
accuracy, mean squared error of the probabilities and mean entropy; gradient and diagonal Hessian of the sum.
`xent cross_entropy` is the mean loss alone, by which evaluate is measured: it is no peer.
"""

import numpy as np
from libraries import jax, special, torch
from peers import Jax, Peer, Torch, TorchCompiled

import xent


class XentEvaluation(Peer):
    """The functions of this package."""

    name = "xent"

    def evaluate(self):
        return lambda: xent.evaluate(self.x, self.y, axis=self.axis)

    def cross_entropy_grad_hess(self):
        return lambda: xent.cross_entropy_grad_hess(self.x, self.y, axis=self.axis, reduction="sum")


class XentLoss(Peer):
    """The loss alone."""

    name = "xent cross_entropy"

    def evaluate(self):
        return lambda: xent.cross_entropy(self.x, self.y, axis=self.axis)


class NumPyEvaluation(Peer):
    """NumPy, with SciPy's log-softmax and softmax."""

    name = "numpy"
    library = special

    def _onehot(self):
        place = np.expand_dims(self.y, self.axis)
        onehot = np.zeros_like(self.x)
        np.put_along_axis(onehot, place, 1, self.axis)
        return place, onehot

    def evaluate(self):
        place, onehot = self._onehot()

        def call():
            log_p = special.log_softmax(self.x, self.axis)
            p = np.exp(log_p)
            loss = -np.take_along_axis(log_p, place, self.axis).mean()
            hits = (self.x.argmax(self.axis) == self.y).mean()
            return loss, hits, ((p - onehot) ** 2).mean(), -(p * log_p).sum(self.axis).mean()

        return call

    def cross_entropy_grad_hess(self):
        onehot = self._onehot()[1]

        def call():
            p = special.softmax(self.x, self.axis)
            return p - onehot, p * (1 - p)

        return call


class TorchEvaluation(Torch):
    """PyTorch, eager."""

    def _evaluate(self, x, y):
        log_p = torch.log_softmax(x, self.axis)
        p, place = log_p.exp(), y.unsqueeze(self.axis)
        p_y = p.gather(self.axis, place)
        square = (p * p).sum() + ((1 - p_y) ** 2 - p_y * p_y).sum()
        hits = (x.argmax(self.axis) == y).float().mean()
        entropy = -(p * log_p).sum(self.axis).mean()
        return -log_p.gather(self.axis, place).mean(), hits, square / x.numel(), entropy

    def _grad_hess(self, x, y):
        p, place = torch.softmax(x, self.axis), y.unsqueeze(self.axis)
        return p.scatter_add(self.axis, place, torch.full_like(place, -1, dtype=p.dtype)), p * (1 - p)

    def evaluate(self):
        return self._forward(self._evaluate, self.x, self.y)

    def cross_entropy_grad_hess(self):
        return self._forward(self._grad_hess, self.x, self.y)


class TorchCompiledEvaluation(TorchEvaluation, TorchCompiled):
    """torch.compile of the same, for exactly this shape."""

    def evaluate(self):
        return self._compiled(self._evaluate, self.x, self.y)

    def cross_entropy_grad_hess(self):
        return self._compiled(self._grad_hess, self.x, self.y)


class JaxEvaluation(Jax):
    """JAX, jitted."""

    def evaluate(self):
        def evaluate(x, y):
            log_p = jax.nn.log_softmax(x, self.axis)
            p, onehot = jax.numpy.exp(log_p), jax.nn.one_hot(y, x.shape[self.axis], axis=self.axis)
            place = jax.numpy.expand_dims(y, self.axis)
            loss = -jax.numpy.take_along_axis(log_p, place, self.axis).mean()
            hits = (x.argmax(self.axis) == y).mean()
            return loss, hits, ((p - onehot) ** 2).mean(), -(p * log_p).sum(self.axis).mean()

        return self._jitted(evaluate, self.x, self.y)

    def cross_entropy_grad_hess(self):
        def grad_hess(x, y):
            p = jax.nn.softmax(x, self.axis)
            return p - jax.nn.one_hot(y, x.shape[self.axis], axis=self.axis, dtype=p.dtype), p * (1 - p)

        return self._jitted(grad_hess, self.x, self.y)


PEERS = [
    XentEvaluation, XentLoss, TorchEvaluation, TorchCompiledEvaluation, JaxEvaluation, NumPyEvaluation,
]  # fmt: skip
