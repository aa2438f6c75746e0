"""Log-probabilities of some classes of each position, and how many logits are larger than theirs."""

import numpy as np

from ._common import classes_last, deliver, loss_dtype, plain
from .cross_entropy import Options, transformed
from .softmax import log_probabilities


def token_log_probs(logits, ids, *, axis=-1, temperature=1.0, logit_cap=None, prior=None, ranks=False):
    """log_softmax(u)[y] for each y of `ids`, u as in `cross_entropy`; with `ranks` also #{c : u_c > u_y}.

    `ids` have the shape of the positions, or that of the logits with K in the place of all classes. Without a
    prior the ranks are those of the logits themselves: what comes before it is strictly increasing. Where the
    log-probability is NaN the rank is the number of classes, as if every other came before.
    """
    x = classes_last(logits, axis)
    options = Options(axis=axis, temperature=temperature, logit_cap=logit_cap, prior=prior)
    with np.errstate(all="ignore"):
        u, _, _ = transformed(x, options)
        log_p = log_probabilities(u)
    ids = plain(ids)
    several = ids.ndim == x.ndim
    found, places = of_ids(log_p, x if prior is None else u, np.moveaxis(ids, axis, -1) if several else ids)
    if several:
        found, places = np.moveaxis(found, -1, axis), np.moveaxis(places, -1, axis)
    found = deliver(found, dtype=loss_dtype(logits))
    return (found, places[()]) if ranks else found


def of_ids(log_p, key, ids):
    """Return the log-probabilities of `ids`, (...) or (..., K), and how many classes have a larger key."""
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids have dtype {ids.dtype}, expected integers")
    several = ids if ids.ndim == log_p.ndim else ids[..., None]
    if several.shape[:-1] != log_p.shape[:-1]:
        raise ValueError(f"ids have shape {ids.shape}, which does not fit logits of shape {log_p.shape}")
    classes = log_p.shape[-1]
    if np.any((several < 0) | (several >= classes)):
        raise ValueError(f"one of ids is outside 0 <= id < {classes}")
    several = several.astype(np.int64)
    found = np.take_along_axis(log_p, several, axis=-1)
    places = np.empty(several.shape, np.int64)
    for k in range(several.shape[-1]):
        places[..., k] = (key > np.take_along_axis(key, several[..., k : k + 1], axis=-1)).sum(axis=-1)
    places = np.where(np.isnan(found), classes, places)
    return found.reshape(ids.shape), places.reshape(ids.shape)
