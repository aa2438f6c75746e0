"""Every implementation of the losses of probabilities; see peers.py for how each is at its best.

A table of each library says how its users write a loss of two arrays, as a mean; where the library has
gradients, the operator ..._value_and_grad is made of the same.
"""

import functools

import numpy as np
import peers
from libraries import jax, special, torch

import xent

TEMPERATURE = 2.0
OPERATORS = [
    "mse_loss",
    "binary_cross_entropy",
    "cross_entropy_probs",
    "kl_div",
    "distillation_loss",
]


@functools.lru_cache(maxsize=2)
def _second(shape):
    return np.random.default_rng(2).standard_normal(shape, dtype=np.float32)


def arrays(operator, x, axis):
    """Return data and target of a loss, from logits."""
    t = _second(x.shape).astype(x.dtype)
    if operator in ("mse_loss", "distillation_loss"):
        return x, t
    if operator == "binary_cross_entropy":
        return xent.sigmoid(x), (t > 0).astype(x.dtype)
    if operator == "kl_div":
        return xent.log_softmax(x, axis), xent.softmax(t, axis)
    return xent.softmax(x, axis), xent.softmax(t, axis)


class Losses(peers.Peer):
    """What the libraries share: an operator is prepared from its entry in `table`."""

    table = {}

    def __init_subclass__(cls):
        for operator in [*OPERATORS, "entropy"]:
            if operator in cls.table:
                setattr(cls, operator, functools.partialmethod(cls.value, operator))
            if operator in cls.table and operator != "entropy" and hasattr(cls, "value_and_grad"):
                method = functools.partialmethod(cls.value_and_grad, operator)
                setattr(cls, f"{operator}_value_and_grad", method)

    def arrays(self, operator):
        return arrays(operator, self.x, self.axis)

    def value(self, operator):
        a, b = self.arrays(operator)
        return lambda: self.table[operator](a, b, self.axis)


class Xent(Losses):
    """The functions of this package."""

    name = "xent"
    table = dict.fromkeys([*OPERATORS, "entropy"], None)

    def _options(self, operator):
        options = {"axis": self.axis} if operator not in ("mse_loss", "binary_cross_entropy") else {}
        return options | ({"temperature": TEMPERATURE} if operator == "distillation_loss" else {})

    def value(self, operator):
        (a, b), options = self.arrays(operator), self._options(operator)
        if operator == "entropy":
            return lambda: xent.entropy(a, **options)
        return lambda: getattr(xent, operator)(a, b, **options)

    def value_and_grad(self, operator):
        (a, b), options = self.arrays(operator), self._options(operator)
        return lambda: getattr(xent, f"{operator}_value_and_grad")(a, b, **options)


def _torch_distillation(a, b, axis):
    f = torch.nn.functional
    student, teacher = f.log_softmax(a / TEMPERATURE, axis), f.softmax(b / TEMPERATURE, axis)
    return TEMPERATURE**2 * f.kl_div(student, teacher, reduction="sum") / (a.numel() // a.shape[axis])


class Torch(Losses):
    """PyTorch, eager."""

    name = "torch"
    library = torch
    table = torch and {
        "mse_loss": lambda a, b, axis: torch.nn.functional.mse_loss(a, b),
        "binary_cross_entropy": lambda a, b, axis: torch.nn.functional.binary_cross_entropy(a, b),
        "cross_entropy_probs": lambda a, b, axis: -(b * a.log()).sum(axis).mean(),
        "kl_div": lambda a, b, axis: (
            torch.nn.functional.kl_div(a, b, reduction="sum") / (a.numel() // a.shape[axis])
        ),
        "distillation_loss": _torch_distillation,
        "entropy": lambda a, b, axis: torch.special.entr(a).sum(axis),
    }

    def arrays(self, operator):
        return [torch.from_numpy(a) for a in super().arrays(operator)]

    def value(self, operator):
        call = super().value(operator)

        def without_graph():
            with torch.inference_mode():
                return call()

        return without_graph

    def value_and_grad(self, operator):
        a, b = self.arrays(operator)
        a = a.clone().requires_grad_()

        def both():
            loss = self.table[operator](a, b, self.axis)
            return loss, torch.autograd.grad(loss, a)[0]

        return both


def _jax_kl(a, b, axis):
    return jax.numpy.where(b > 0, b * (jax.numpy.log(b) - a), 0.0).sum(axis).mean()


def _jax_distillation(a, b, axis):
    student = jax.nn.log_softmax(a / TEMPERATURE, axis)
    teacher = jax.nn.log_softmax(b / TEMPERATURE, axis)
    return TEMPERATURE**2 * (jax.numpy.exp(teacher) * (teacher - student)).sum(axis).mean()


class Jax(Losses):
    """JAX, jitted, on arrays that are on the device already."""

    name = "jax"
    library = jax
    table = jax and {
        "mse_loss": lambda a, b, axis: ((a - b) ** 2).mean(),
        "binary_cross_entropy": lambda a, b, axis: (
            -(b * jax.numpy.log(a) + (1 - b) * jax.numpy.log1p(-a)).mean()
        ),
        "cross_entropy_probs": lambda a, b, axis: -(b * jax.numpy.log(a)).sum(axis).mean(),
        "kl_div": _jax_kl,
        "distillation_loss": _jax_distillation,
        "entropy": lambda a, b, axis: jax.scipy.special.entr(a).sum(axis),
    }

    def _jitted(self, function, operator):
        a, b = (jax.numpy.asarray(v) for v in self.arrays(operator))
        jitted = jax.jit(function)
        return lambda: jax.block_until_ready(jitted(a, b))

    def value(self, operator):
        return self._jitted(lambda a, b: self.table[operator](a, b, self.axis), operator)

    def value_and_grad(self, operator):
        both = jax.value_and_grad(lambda a, b: self.table[operator](a, b, self.axis)) if jax else None
        return self._jitted(both, operator)


class SciPy(Losses):
    """scipy.special."""

    name = "scipy"
    library = special
    table = {
        "binary_cross_entropy": lambda a, b, axis: -(special.xlogy(b, a) + special.xlog1py(1 - b, -a)).mean(),
        "cross_entropy_probs": lambda a, b, axis: -special.xlogy(b, a).sum(axis).mean(),
        "kl_div": lambda a, b, axis: (special.xlogy(b, b) - b * a).sum(axis).mean(),
        "entropy": lambda a, b, axis: special.entr(a).sum(axis),
    }


class NumPy(Losses):
    """The formulas as one would write them with NumPy."""

    name = "numpy"
    table = {
        "mse_loss": lambda a, b, axis: ((a - b) ** 2).mean(),
        "binary_cross_entropy": lambda a, b, axis: -(b * np.log(a) + (1 - b) * np.log1p(-a)).mean(),
        "cross_entropy_probs": lambda a, b, axis: -(b * np.log(a)).sum(axis).mean(),
        "kl_div": lambda a, b, axis: (b * (np.log(b) - a)).sum(axis).mean(),
        "entropy": lambda a, b, axis: -(a * np.log(a)).sum(axis),
    }


PEERS = [Xent, Torch, Jax, SciPy, NumPy]
