"""The log-probability of sequences of labels, and whether all of their labels have the largest logit.

No library has both in one function. What is timed of the others is what their users compose:
log-probabilities of the labels as in tokens.py, the largest logits, and sums by group. The others are told
how many groups there are, numbered from 0. `xent cross_entropy` is the mean loss alone, by which
evaluate_sequences is measured: it is no peer.
"""

import numpy as np

import xent

from . import adapters, tokens
from .libraries import jax, torch


class Sequences:
    """Logits with the classes last, labels, and the group of each position."""

    compared = True

    def __init__(self, x, y, groups):
        self.arrays, self.count = (x, y, groups), int(groups.max()) + 1

    def arguments(self, operator):
        return self.arrays


class Xent(Sequences, adapters.Xent):
    def evaluate_sequences(self, x, y, groups):
        return xent.evaluate_sequences(x, y, groups)

    def numbers(self, result):
        return [result.log_prob, result.tokens, result.greedy]


class XentLoss(Sequences, adapters.Xent):
    """The loss alone."""

    name = "xent cross_entropy"
    compared = False

    def evaluate_sequences(self, x, y, groups):
        return xent.cross_entropy(x, y)


class Torch(Sequences, tokens.Torch):
    def evaluate_sequences(self, x, y, groups):
        log_probs = self.token_log_probs(x, y[:, None])[:, 0]
        misses = (x.argmax(-1) != y).to(log_probs.dtype)
        terms = torch.stack([log_probs, torch.ones_like(log_probs), misses])
        log_prob, count, missed = terms.new_zeros(3, self.count).index_add_(1, groups, terms)
        return log_prob, count, missed == 0


class TorchLogsumexp(Torch):
    """PyTorch without a log-probability of every class; confident predictions cancel."""

    name = tokens.TorchLogsumexp.name
    token_log_probs = tokens.TorchLogsumexp.token_log_probs


class TorchCompiled(adapters.TorchCompiled, Torch):
    pass


class Jax(Sequences, tokens.Jax):
    def evaluate_sequences(self, x, y, groups):
        log_probs = self.token_log_probs(x, y[:, None])[:, 0]
        terms = jax.numpy.stack([log_probs, jax.numpy.ones_like(log_probs), x.argmax(-1) != y], -1)
        log_prob, count, missed = jax.ops.segment_sum(terms, groups, self.count).T
        return log_prob, count, missed == 0


class NumPy(Sequences, tokens.NumPy):
    def evaluate_sequences(self, x, y, groups):
        log_probs = self.token_log_probs(x, y[:, None])[:, 0]
        missed = np.bincount(groups, x.argmax(-1) != y, self.count)
        return np.bincount(groups, log_probs, self.count), np.bincount(groups), missed == 0


PEERS = [Xent, XentLoss, Torch, TorchLogsumexp, TorchCompiled, Jax, NumPy]
