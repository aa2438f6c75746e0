"""Cross-entropy with its options, as peers.py has it without: mean loss and gradient, with one option each.

PyTorch has label smoothing as an option; its other losses are composed as its users compose them, and those
of JAX as optax has them. `OPTIONS` names the options and how xent is given them.
"""

from functools import partialmethod

import numpy as np
from libraries import jax, torch
from peers import Jax, Peer, Torch, TorchCompiled

import xent

TEMPERATURE, CAP, Z_LOSS, SMOOTHING = 2.5, 30.0, 1e-4, 0.1  # cap and z-loss of language models in use


def prior(classes):
    """Return frequencies of the classes as long tails have them."""
    weights = 1 / np.arange(1, classes + 1)
    return weights / weights.sum()


OPTIONS = {
    "temperature": lambda classes: {"temperature": TEMPERATURE},
    "prior": lambda classes: {"prior": prior(classes)},
    "logit cap": lambda classes: {"logit_cap": CAP},
    "z-loss": lambda classes: {"z_loss": Z_LOSS},
    "label smoothing": lambda classes: {"label_smoothing": SMOOTHING},
    "focal": lambda classes: {"gamma": 2.0},
}


class XentOptions(Peer):
    """The functions of this package."""

    name = "xent"

    def prepare(self, option):
        options = OPTIONS[option](self.x.shape[self.axis])
        return lambda: xent.cross_entropy_value_and_grad(self.x, self.y, axis=self.axis, **options)


class TorchOptions(Torch):
    """PyTorch, eager."""

    def _loss_with(self, option):
        functional, axis = torch.nn.functional, self.axis
        log_prior = torch.from_numpy(np.log(prior(self.x.shape[axis]))).to(self.x.dtype)

        def focal(x, y):
            loss = functional.cross_entropy(x, y, reduction="none")
            return ((1 - torch.exp(-loss)) ** 2 * loss).mean()

        return {
            "temperature": lambda x, y: functional.cross_entropy(x / TEMPERATURE, y),
            "prior": lambda x, y: functional.cross_entropy(x + log_prior, y),
            "logit cap": lambda x, y: functional.cross_entropy(CAP * torch.tanh(x / CAP), y),
            "z-loss": lambda x, y: (
                functional.cross_entropy(x, y) + Z_LOSS * (torch.logsumexp(x, axis) ** 2).mean()
            ),
            "label smoothing": lambda x, y: functional.cross_entropy(x, y, label_smoothing=SMOOTHING),
            "focal": focal,
        }[option]

    def prepare(self, option):
        function, x = self._loss_with(option), self.x.detach().requires_grad_()

        def value_and_grad():
            loss = function(x, self.y)
            return loss, torch.autograd.grad(loss, x)[0]

        return value_and_grad


class TorchCompiledOptions(TorchOptions, TorchCompiled):
    """torch.compile of the same, for exactly this shape."""

    def prepare(self, option):
        both = torch.compile(torch.func.grad_and_value(self._loss_with(option)), dynamic=False)
        return lambda: both(self.x, self.y)[::-1]


class JaxOptions(Jax):
    """JAX, jitted."""

    def _loss_with(self, option):
        axis, log_prior = self.axis, jax.numpy.log(prior(self.x.shape[self.axis])).astype(self.x.dtype)

        def losses(x, y):
            own = jax.numpy.take_along_axis(x, jax.numpy.expand_dims(y, axis), axis).squeeze(axis)
            return jax.nn.logsumexp(x, axis) - own

        def z_loss(x, y):
            return losses(x, y).mean() + Z_LOSS * (jax.nn.logsumexp(x, axis) ** 2).mean()

        def smoothed(x, y):
            lse, own = jax.nn.logsumexp(x, axis), jax.numpy.take_along_axis(x, y[:, None], axis)[:, 0]
            return (lse - (1 - SMOOTHING) * own - SMOOTHING * x.mean(axis)).mean()

        def focal(x, y):
            loss = losses(x, y)
            return ((1 - jax.numpy.exp(-loss)) ** 2 * loss).mean()

        return {
            "temperature": lambda x, y: losses(x / TEMPERATURE, y).mean(),
            "prior": lambda x, y: losses(x + log_prior, y).mean(),
            "logit cap": lambda x, y: losses(CAP * jax.numpy.tanh(x / CAP), y).mean(),
            "z-loss": z_loss,
            "label smoothing": smoothed,
            "focal": focal,
        }[option]

    def prepare(self, option):
        return self._jitted(jax.value_and_grad(self._loss_with(option)), self.x, self.y)


PEERS = [XentOptions, TorchOptions, TorchCompiledOptions, JaxOptions]
OPERATORS = [f"cross_entropy_value_and_grad {option}" for option in OPTIONS]
for _peer in PEERS:
    for _option, _operator in zip(OPTIONS, OPERATORS, strict=True):
        _name = _operator.replace(" ", "_").replace("-", "_")
        setattr(_peer, _name, partialmethod(_peer.prepare, _option))
