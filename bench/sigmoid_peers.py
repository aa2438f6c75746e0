"""Every implementation of the sigmoid cross-entropy, as peers.py has those of the softmax family.

A class is made from logits, targets of 0 and 1 (floats of the logits' dtype, which is what PyTorch takes),
and the positive weights of the classes. The losses are means over the elements. PyTorch has no focal loss of
its own; that of torchvision is composed here of the same calls. JAX has the formulas of optax; `jax softplus`
is what XLA makes the fastest code of, at the price of the last digits of tiny losses.
"""

import numpy as np
from libraries import jax, torch
from peers import Jax, Peer, Restored, Torch, TorchCompiled

import xent


class Sigmoid(Peer):
    """Logits, targets, and weights."""

    def __init__(self, x, y, pos_weight):
        self.x, self.y, self.pos_weight = x, y, pos_weight


class XentSigmoid(Sigmoid):
    """The functions of this package."""

    name = "xent"

    def sigmoid_cross_entropy(self):
        return lambda: xent.sigmoid_cross_entropy(self.x, self.y)

    def sigmoid_cross_entropy_value_and_grad(self):
        return lambda: xent.sigmoid_cross_entropy_value_and_grad(self.x, self.y)

    def sigmoid_cross_entropy_value_and_grad_weighted(self):
        return lambda: xent.sigmoid_cross_entropy_value_and_grad(self.x, self.y, pos_weight=self.pos_weight)

    def sigmoid_cross_entropy_value_and_grad_focal(self):
        return lambda: xent.sigmoid_cross_entropy_value_and_grad(self.x, self.y, gamma=2.0, alpha=0.25)


class XentSigmoidInPlace(Sigmoid):
    """xent with the gradient in the logits' place, which are put back, untimed, before each turn."""

    name = "xent in place"

    def sigmoid_cross_entropy_value_and_grad(self):
        x = self.x.copy()
        call = lambda: xent.sigmoid_cross_entropy_value_and_grad(x, self.y, out=x)  # noqa: E731
        return Restored(call, lambda: np.copyto(x, self.x))


class XentSigmoidLabels(Sigmoid):
    """xent with int64 targets, which cost it more memory to read."""

    name = "xent int64"

    def __init__(self, x, y, pos_weight):
        super().__init__(x, y.astype(np.int64), pos_weight)

    sigmoid_cross_entropy = XentSigmoid.sigmoid_cross_entropy
    sigmoid_cross_entropy_value_and_grad = XentSigmoid.sigmoid_cross_entropy_value_and_grad


class NumPySigmoid(Sigmoid):
    """The formulas as one would write them with NumPy."""

    name = "numpy"

    def sigmoid_cross_entropy(self):
        x, y = self.x, self.y
        return lambda: (np.maximum(x, 0) - x * y + np.log1p(np.exp(-np.abs(x)))).mean()

    def sigmoid_cross_entropy_value_and_grad(self):
        x, y, value = self.x, self.y, self.sigmoid_cross_entropy()
        return lambda: (value(), (1 / (1 + np.exp(-x)) - y) / x.size)


def _torch_focal(x, y):
    p = torch.sigmoid(x)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(x, y, reduction="none")
    miss = p * (1 - y) + (1 - p) * y
    return ((0.25 * y + 0.75 * (1 - y)) * miss**2 * loss).mean()


class TorchSigmoid(Sigmoid):
    """PyTorch, eager."""

    name = "torch"
    library = torch
    array, _forward = Torch.array, Torch._forward

    def __init__(self, x, y, pos_weight):
        super().__init__(*(torch.from_numpy(a) for a in (x, y, pos_weight)))

    def _weighted(self, x, y):
        return torch.nn.functional.binary_cross_entropy_with_logits(x, y, pos_weight=self.pos_weight)

    def _both(self, function):
        x = self.x.detach().requires_grad_()

        def value_and_grad():
            loss = function(x, self.y)
            return loss, torch.autograd.grad(loss, x)[0]

        return value_and_grad

    def sigmoid_cross_entropy(self):
        return self._forward(torch.nn.functional.binary_cross_entropy_with_logits, self.x, self.y)

    def sigmoid_cross_entropy_value_and_grad(self):
        return self._both(torch.nn.functional.binary_cross_entropy_with_logits)

    def sigmoid_cross_entropy_value_and_grad_weighted(self):
        return self._both(self._weighted)

    def sigmoid_cross_entropy_value_and_grad_focal(self):
        return self._both(_torch_focal)


class TorchCompiledSigmoid(TorchSigmoid):
    """torch.compile of the same, for exactly this shape; loss and gradient are one graph."""

    name = "torch compiled"
    _compiled = TorchCompiled._compiled

    def __init__(self, x, y, pos_weight):
        super().__init__(x, y, pos_weight)
        torch._dynamo.reset()

    def sigmoid_cross_entropy(self):
        return self._compiled(torch.nn.functional.binary_cross_entropy_with_logits, self.x, self.y)

    def _both(self, function):
        both = torch.compile(torch.func.grad_and_value(function), dynamic=False)
        return lambda: both(self.x, self.y)[::-1]


class JaxSigmoid(Sigmoid):
    """JAX, jitted, with the formula of optax.sigmoid_binary_cross_entropy and optax.sigmoid_focal_loss."""

    name = "jax"
    library = jax
    _jitted = Jax._jitted

    def __init__(self, x, y, pos_weight):
        super().__init__(*(jax.numpy.asarray(a) for a in (x, y, pos_weight)))

    def _each(self, x, y, pos_weight=1):
        return -pos_weight * y * jax.nn.log_sigmoid(x) - (1 - y) * jax.nn.log_sigmoid(-x)

    def _focal(self, x, y):
        p = jax.nn.sigmoid(x)
        miss = p * (1 - y) + (1 - p) * y
        return ((0.25 * y + 0.75 * (1 - y)) * miss**2 * self._each(x, y)).mean()

    def sigmoid_cross_entropy(self):
        return self._jitted(lambda x, y: self._each(x, y).mean(), self.x, self.y)

    def sigmoid_cross_entropy_value_and_grad(self):
        return self._jitted(jax.value_and_grad(lambda x, y: self._each(x, y).mean()), self.x, self.y)

    def sigmoid_cross_entropy_value_and_grad_weighted(self):
        loss = lambda x, y, w: self._each(x, y, w).mean()  # noqa: E731
        return self._jitted(jax.value_and_grad(loss), self.x, self.y, self.pos_weight)

    def sigmoid_cross_entropy_value_and_grad_focal(self):
        return self._jitted(jax.value_and_grad(self._focal), self.x, self.y)


class JaxSoftplus(JaxSigmoid):
    """JAX with softplus(x) - x y, whose terms cancel where a prediction is confident and right."""

    name = "jax softplus"

    def _each(self, x, y, pos_weight=1):
        rest = jax.numpy.log1p(jax.numpy.exp(-abs(x)))
        if isinstance(pos_weight, int):
            return jax.numpy.maximum(x, 0) - x * y + rest
        return (1 - y) * x + (1 + (pos_weight - 1) * y) * (rest + jax.numpy.maximum(-x, 0))


PEERS = [
    XentSigmoid, XentSigmoidInPlace, XentSigmoidLabels, TorchSigmoid, TorchCompiledSigmoid, JaxSigmoid,
    JaxSoftplus, NumPySigmoid,
]  # fmt: skip
