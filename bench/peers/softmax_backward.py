"""The ways back through softmax, log-softmax and log-sum-exp, from what the way forth has left.

The way forth is not timed. PyTorch is measured with autograd, whose graph is kept, and as `torch aten` with
what autograd calls; JAX with the function that jax.vjp returns. Both have a way forth of their own. Outputs
are reused wherever a library can do that.
"""

import numpy as np

import xent

from . import adapters
from .libraries import jax, torch


class Gradient:
    """The gradient by a result, and what is left of the way forth; the labels are not used."""

    compared = True

    def __init__(self, x, y, axis):
        self.x, self.axis = x, axis

    def arguments(self, operator):
        """Return gradient and result; for the log-sum-exp its input between them."""
        y = getattr(xent, operator.removesuffix("_backward"))(self.x, self.axis)
        grad = np.random.default_rng(2).standard_normal(y.shape, dtype=np.float32).astype(self.x.dtype)
        return (grad, self.x, y) if operator == "logsumexp_backward" else (grad, y)


class Derived(Gradient):
    """The same for a library that derives the way back: the gradient, and the input of the way forth.

    A method is the way forth; `value` times the way back.
    """

    def arguments(self, operator):
        return super().arguments(operator)[0], self.x


class Xent(Gradient, adapters.Xent):
    def softmax_backward(self, grad, y, out=None):
        return xent.softmax_backward(grad, y, self.axis, out=out)

    def log_softmax_backward(self, grad, y, out=None):
        return xent.log_softmax_backward(grad, y, self.axis, out=out)

    def logsumexp_backward(self, grad, x, y, out=None):
        return xent.logsumexp_backward(grad, x, y, self.axis, out=out)


class Torch(Derived, adapters.Torch):
    """PyTorch's autograd."""

    def value(self, function, grad, x):
        x.requires_grad_()
        y = function(x)
        return lambda: torch.autograd.grad(y, x, grad, retain_graph=True)[0]

    def softmax_backward(self, x):
        return torch.softmax(x, self.axis)

    def log_softmax_backward(self, x):
        return torch.log_softmax(x, self.axis)

    def logsumexp_backward(self, x):
        return torch.logsumexp(x, self.axis)


class TorchAten(Gradient, adapters.Torch):
    """PyTorch without autograd."""

    name = "torch aten"

    def softmax_backward(self, grad, y, out=None):
        return torch._softmax_backward_data(grad, y, self.axis, y.dtype, grad_input=out)

    def log_softmax_backward(self, grad, y, out=None):
        return torch._log_softmax_backward_data(grad, y, self.axis, y.dtype, out=out)

    def logsumexp_backward(self, grad, x, y, out=None):
        e = torch.sub(x, y.unsqueeze(self.axis), out=out).exp_()
        return e.mul_(grad.unsqueeze(self.axis))


class TorchCompiled(Gradient, adapters.TorchCompiled):
    """torch.compile of the formulas."""

    def softmax_backward(self, grad, y):
        return y * (grad - (grad * y).sum(self.axis, keepdim=True))

    def log_softmax_backward(self, grad, y):
        return grad - y.exp() * grad.sum(self.axis, keepdim=True)

    def logsumexp_backward(self, grad, x, y):
        return grad.unsqueeze(self.axis) * (x - y.unsqueeze(self.axis)).exp()


class Jax(Derived, adapters.Jax):
    def value(self, function, grad, x):
        _, back = jax.vjp(function, x)
        jitted = jax.jit(lambda back, grad: back(grad)[0])  # what the way forth has left is an argument
        return lambda: jax.block_until_ready(jitted(back, grad))

    def softmax_backward(self, x):
        return jax.nn.softmax(x, self.axis)

    def log_softmax_backward(self, x):
        return jax.nn.log_softmax(x, self.axis)

    def logsumexp_backward(self, x):
        return jax.nn.logsumexp(x, self.axis)


class NumPy(Gradient, adapters.NumPy):
    def convert(self, array):
        """Return 16 bits as float32: NumPy adds them up in 16."""
        return array.astype(np.float32) if array.dtype.itemsize == 2 else array

    def softmax_backward(self, grad, y):
        g = grad - (grad * y).sum(self.axis, keepdims=True)
        g *= y
        return g

    def log_softmax_backward(self, grad, y):
        g = np.exp(y)
        g *= -grad.sum(self.axis, keepdims=True)
        g += grad
        return g

    def logsumexp_backward(self, grad, x, y):
        g = x - np.expand_dims(y, self.axis)
        np.exp(g, out=g)
        g *= np.expand_dims(grad, self.axis)
        return g


PEERS = [Xent, Torch, TorchAten, TorchCompiled, Jax, NumPy]
