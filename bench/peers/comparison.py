"""How far the predictions of a model are from another's.

No library has this in one function. What is timed of the others is what their users compose: both
log-softmaxes, the divergence of each position, from which quantiles are taken, its mean, and how often both
have the same class with the largest logit; with labels also both losses, and the mean and the mean square of
the change of the label's probability.
"""

import numpy as np

import xent

from . import adapters
from .libraries import functional, jax, special, torch


class Models:
    """Logits of two models with the classes last, and labels for the option that takes them."""

    compared = True

    def __init__(self, a, b, y):
        self.a, self.b, self.y = a, b, y

    def arguments(self, operator):
        return (self.a, self.b, self.y) if operator.endswith(" labels") else (self.a, self.b)


class Xent(Models, adapters.Xent):
    def compare(self, a, b):
        return xent.compare(a, b)

    def compare_labels(self, a, b, y):
        return xent.compare(a, b, y)

    def numbers(self, result):
        numbers = [result.kl_values, result.kl, result.same_top]
        if result.target_sums is not None:
            numbers += [result.loss_a, result.loss_b]
            numbers += [result.probability_change, result.rms_probability_change**2]
        return [np.asarray(number) for number in numbers]


class Torch(Models, adapters.Torch):
    def log_probs(self, a, b):
        return [torch.log_softmax(x, -1, dtype=torch.float32) for x in (a, b)]

    def of_all(self, a, b, log_a, log_b):
        """Return what needs no labels."""
        kl = functional.kl_div(log_b, log_a, log_target=True, reduction="none").sum(-1)
        return kl, kl.mean(), (a.argmax(-1) == b.argmax(-1)).float().mean()

    def compare(self, a, b):
        return self.of_all(a, b, *self.log_probs(a, b))

    def compare_labels(self, a, b, y):
        log_a, log_b = self.log_probs(a, b)
        a_y, b_y = (log_p.gather(-1, y[:, None]) for log_p in (log_a, log_b))
        change = b_y.exp() - a_y.exp()
        losses = -a_y.mean(), -b_y.mean()
        return *self.of_all(a, b, log_a, log_b), *losses, change.mean(), (change * change).mean()


class TorchCompiled(adapters.TorchCompiled, Torch):
    pass


class Jax(Models, adapters.Jax):
    def log_probs(self, a, b):
        return [jax.nn.log_softmax(x.astype("float32"), -1) for x in (a, b)]

    def of_all(self, a, b, log_a, log_b):
        """Return what needs no labels."""
        kl = (jax.numpy.exp(log_a) * (log_a - log_b)).sum(-1)
        return kl, kl.mean(), (a.argmax(-1) == b.argmax(-1)).mean()

    def compare(self, a, b):
        return self.of_all(a, b, *self.log_probs(a, b))

    def compare_labels(self, a, b, y):
        log_a, log_b = self.log_probs(a, b)
        a_y, b_y = (jax.numpy.take_along_axis(log_p, y[:, None], -1) for log_p in (log_a, log_b))
        change = jax.numpy.exp(b_y) - jax.numpy.exp(a_y)
        losses = -a_y.mean(), -b_y.mean()
        return *self.of_all(a, b, log_a, log_b), *losses, change.mean(), (change * change).mean()


class SciPy(Models, adapters.SciPy):
    def compare(self, a, b):
        p, q = (special.softmax(x.astype(np.float32, copy=False), -1) for x in (a, b))
        kl = special.rel_entr(p, q).sum(-1)
        return kl, kl.mean(), (a.argmax(-1) == b.argmax(-1)).mean()


class NumPy(Models, adapters.NumPy):
    def log_probs(self, a, b):
        for x in (a, b):
            shifted = x.astype(np.float32) - x.max(-1, keepdims=True).astype(np.float32)
            yield shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))

    def of_all(self, a, b, log_a, log_b):
        """Return what needs no labels."""
        kl = (np.exp(log_a) * (log_a - log_b)).sum(-1)
        return kl, kl.mean(), (a.argmax(-1) == b.argmax(-1)).mean()

    def compare(self, a, b):
        return self.of_all(a, b, *self.log_probs(a, b))

    def compare_labels(self, a, b, y):
        log_a, log_b = self.log_probs(a, b)
        a_y, b_y = (np.take_along_axis(log_p, y[:, None], -1) for log_p in (log_a, log_b))
        change = np.exp(b_y) - np.exp(a_y)
        losses = -a_y.mean(), -b_y.mean()
        return *self.of_all(a, b, log_a, log_b), *losses, change.mean(), (change * change).mean()


PEERS = [Xent, Torch, TorchCompiled, Jax, SciPy, NumPy]
