"""Log-probabilities of some classes of each position, and how many logits are larger.

Others compose them: log-softmax and a gather, and for ranks a comparison with each id in turn, as vLLM counts
them. `xent logsumexp` reads the logits once, by which the others are measured: it is no peer.
"""

import numpy as np

import xent

from . import adapters
from .libraries import jax, torch


class Tokens:
    """Logits with the classes last, and ids (..., K)."""

    def __init__(self, x, ids):
        self.x, self.ids = x, ids

    def arguments(self, operator):
        return self.x, self.ids


class Xent(Tokens, adapters.Xent):
    def token_log_probs(self, x, ids):
        return xent.token_log_probs(x, ids)

    def token_log_probs_ranks(self, x, ids):
        return xent.token_log_probs(x, ids, ranks=True)


class XentLogsumexp(Tokens, adapters.Xent):
    """The log-sum-exp alone."""

    name = "xent logsumexp"

    def token_log_probs(self, x, ids):
        return xent.logsumexp(x)

    token_log_probs_ranks = token_log_probs


class Torch(Tokens, adapters.Torch):
    def token_log_probs(self, x, ids):
        return torch.log_softmax(x, -1, dtype=torch.float32).gather(-1, ids)

    def token_log_probs_ranks(self, x, ids):
        chosen = x.gather(-1, ids)
        ranks = [(x > chosen[..., k : k + 1]).sum(-1) for k in range(ids.shape[-1])]
        return self.token_log_probs(x, ids), torch.stack(ranks, -1)


class TorchLogsumexp(Torch):
    """PyTorch without a log-probability of every class; confident predictions cancel."""

    name = "torch gather, logsumexp"

    def token_log_probs(self, x, ids):
        return x.gather(-1, ids).float() - torch.logsumexp(x.float(), -1, keepdim=True)


class TorchCompiled(adapters.TorchCompiled, Torch):
    pass


class Jax(Tokens, adapters.Jax):
    def token_log_probs(self, x, ids):
        return jax.numpy.take_along_axis(jax.nn.log_softmax(x.astype("float32"), -1), ids, -1)

    def token_log_probs_ranks(self, x, ids):
        chosen = jax.numpy.take_along_axis(x, ids, -1)
        ranks = [(x > chosen[..., k : k + 1]).sum(-1) for k in range(ids.shape[-1])]
        return self.token_log_probs(x, ids), jax.numpy.stack(ranks, -1)


class NumPy(Tokens, adapters.NumPy):
    def token_log_probs(self, x, ids):
        shifted = x.astype(np.float32) - x.max(-1, keepdims=True).astype(np.float32)
        return np.take_along_axis(shifted, ids, -1) - np.log(np.exp(shifted).sum(-1, keepdims=True))


PEERS = [Xent, XentLogsumexp, Torch, TorchLogsumexp, TorchCompiled, Jax, NumPy]
