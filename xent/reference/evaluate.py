"""Evaluation of logits against labels: sums over the positions, from which the numbers follow."""

import operator

import numpy as np

from .._evaluation import Evaluation
from ._common import classes_last
from .cross_entropy import Options, read_target, transformed
from .softmax import log_probabilities, probabilities


def evaluate(
    logits,
    target,
    *,
    axis=-1,
    ignore_index=-100,
    sample_weight=None,
    top_k=(1,),
    prior=None,
    base=None,
):
    """Return an Evaluation of p = softmax(u) and of the order of u = logits + log(prior) against labels.

    Every sum but the count is weighted with sample_weight. A label is among the top k if fewer than k classes
    have a larger u, or an equal u and a smaller index; with a NaN among the logits it never is.
    """
    top_k = tuple(operator.index(k) for k in top_k)
    if any(k < 1 for k in top_k):
        raise ValueError(f"top_k is {top_k}, expected numbers of at least 1")
    if base is not None and not 1 < base < np.inf:
        raise ValueError(f"base is {base}, expected None or a finite number above 1")
    if np.asarray(target).dtype.kind not in "iu":
        raise TypeError(f"target has dtype {np.asarray(target).dtype}, expected integer labels")
    options = Options(axis=axis, ignore_index=ignore_index, sample_weight=sample_weight, prior=prior)
    x = classes_last(logits, axis)
    t = read_target(target, logits, x, options)
    x, label, weight = x[t.counted], t.label[t.counted], t.sample_weight[t.counted]
    with np.errstate(all="ignore"):
        u, _, _ = transformed(x, options)
        p, one_minus_p = probabilities(u)
        log_p = log_probabilities(u)
        rank = _rank(u, label)
        return Evaluation(
            count=len(x),
            total_weight=float(weight.sum()),
            loss_sum=_sum(weight, 0.0 - np.where(label, log_p, 0.0).sum(axis=-1)),
            correct_sum=_sum(weight, rank < 1),
            top_k=top_k,
            top_k_sums=tuple(_sum(weight, rank < k) for k in top_k),
            squared_error_sum=_sum(weight, (np.where(label, one_minus_p, p) ** 2).sum(axis=-1)),
            entropy_sum=_sum(weight, 0.0 - np.where(p == 0, 0.0, p * log_p).sum(axis=-1)),
            label_weights=np.where(label, weight[:, None], 0.0).sum(axis=0),
            base=None if base is None else float(base),
        )


def _rank(u, label):
    """Return how many classes come before the label: infinitely many if one of the logits is NaN."""
    index = np.arange(u.shape[-1])
    own = np.where(label, u, 0.0).sum(axis=-1, keepdims=True)
    place = np.where(label, index, 0).sum(axis=-1, keepdims=True)
    before = ((u > own) | ((u == own) & (index < place))).sum(axis=-1)
    return np.where(np.isnan(u).any(axis=-1), np.inf, before)


def _sum(weight, values):
    """Return the weighted sum; without weight an infinite value counts 0, and NaN stays NaN."""
    return float(np.where((weight == 0) & np.isinf(values), 0.0, weight * values).sum())
