"""Losses of probabilities, entropy and distillation, as means, in the words of each library's users."""

import functools

import numpy as np

import xent

from . import adapters
from .libraries import functional, jax, special, torch

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


class Probabilities:
    """Probabilities and what else a loss is made of, from logits; the labels are not used."""

    def __init__(self, x, y, axis):
        self.x, self.axis = x, axis

    def arguments(self, operator):
        """Return data and target of a loss, or probabilities alone."""
        x, t = self.x, _second(self.x.shape).astype(self.x.dtype)
        if operator == "entropy":
            return (xent.softmax(x, self.axis),)
        if operator.startswith(("mse_loss", "distillation_loss")):
            return x, t
        if operator.startswith("binary_cross_entropy"):
            return xent.sigmoid(x), (t > 0).astype(x.dtype)
        if operator.startswith("kl_div"):
            return xent.log_softmax(x, self.axis), xent.softmax(t, self.axis)
        return xent.softmax(x, self.axis), xent.softmax(t, self.axis)


class Xent(Probabilities, adapters.Xent):
    def entropy(self, p):
        return xent.entropy(p, axis=self.axis)

    def mse_loss(self, x, t):
        return xent.mse_loss(x, t)

    def mse_loss_value_and_grad(self, x, t):
        return xent.mse_loss_value_and_grad(x, t)

    def binary_cross_entropy(self, p, t):
        return xent.binary_cross_entropy(p, t)

    def binary_cross_entropy_value_and_grad(self, p, t):
        return xent.binary_cross_entropy_value_and_grad(p, t)

    def cross_entropy_probs(self, p, t):
        return xent.cross_entropy_probs(p, t, axis=self.axis)

    def cross_entropy_probs_value_and_grad(self, p, t):
        return xent.cross_entropy_probs_value_and_grad(p, t, axis=self.axis)

    def kl_div(self, log_p, t):
        return xent.kl_div(log_p, t, axis=self.axis)

    def kl_div_value_and_grad(self, log_p, t):
        return xent.kl_div_value_and_grad(log_p, t, axis=self.axis)

    def distillation_loss(self, student, teacher):
        return xent.distillation_loss(student, teacher, axis=self.axis, temperature=TEMPERATURE)

    def distillation_loss_value_and_grad(self, student, teacher):
        return xent.distillation_loss_value_and_grad(
            student, teacher, axis=self.axis, temperature=TEMPERATURE
        )


class Torch(Probabilities, adapters.Torch):
    def entropy(self, p):
        return torch.special.entr(p).sum(self.axis)

    mse_loss = staticmethod(functional and functional.mse_loss)
    binary_cross_entropy = staticmethod(functional and functional.binary_cross_entropy)

    def cross_entropy_probs(self, p, t):
        return -(t * p.log()).sum(self.axis).mean()

    def kl_div(self, log_p, t):
        return functional.kl_div(log_p, t, reduction="sum") / (log_p.numel() // log_p.shape[self.axis])

    def distillation_loss(self, student, teacher):
        log_p = functional.log_softmax(student / TEMPERATURE, self.axis)
        return TEMPERATURE**2 * self.kl_div(log_p, functional.softmax(teacher / TEMPERATURE, self.axis))


class Jax(Probabilities, adapters.Jax):
    def entropy(self, p):
        return jax.scipy.special.entr(p).sum(self.axis)

    def mse_loss(self, x, t):
        return ((x - t) ** 2).mean()

    def binary_cross_entropy(self, p, t):
        return -(t * jax.numpy.log(p) + (1 - t) * jax.numpy.log1p(-p)).mean()

    def cross_entropy_probs(self, p, t):
        return -(t * jax.numpy.log(p)).sum(self.axis).mean()

    def kl_div(self, log_p, t):
        return jax.numpy.where(t > 0, t * (jax.numpy.log(t) - log_p), 0.0).sum(self.axis).mean()

    def distillation_loss(self, student, teacher):
        log_p = jax.nn.log_softmax(student / TEMPERATURE, self.axis)
        log_t = jax.nn.log_softmax(teacher / TEMPERATURE, self.axis)
        return TEMPERATURE**2 * (jax.numpy.exp(log_t) * (log_t - log_p)).sum(self.axis).mean()


class SciPy(Probabilities, adapters.SciPy):
    def entropy(self, p):
        return special.entr(p).sum(self.axis)

    def binary_cross_entropy(self, p, t):
        return -(special.xlogy(t, p) + special.xlog1py(1 - t, -p)).mean()

    def cross_entropy_probs(self, p, t):
        return -special.xlogy(t, p).sum(self.axis).mean()

    def kl_div(self, log_p, t):
        return (special.xlogy(t, t) - t * log_p).sum(self.axis).mean()


class NumPy(Probabilities, adapters.NumPy):
    def entropy(self, p):
        return -(p * np.log(p)).sum(self.axis)

    def mse_loss(self, x, t):
        return ((x - t) ** 2).mean()

    def binary_cross_entropy(self, p, t):
        return -(t * np.log(p) + (1 - t) * np.log1p(-p)).mean()

    def cross_entropy_probs(self, p, t):
        return -(t * np.log(p)).sum(self.axis).mean()

    def kl_div(self, log_p, t):
        return (t * (np.log(t) - log_p)).sum(self.axis).mean()


PEERS = [Xent, Torch, Jax, SciPy, NumPy]
