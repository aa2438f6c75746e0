"""Evaluation of logits against labels, and comparison with others: sums over the positions."""

import operator

import numpy as np

from .._evaluation import Comparison, Evaluation, SequenceEvaluation
from ._common import classes_last, plain
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
    temperature=1.0,
    calibration_bins=None,
    confusion=False,
):
    """Return an Evaluation of p = softmax(u) and of the order of u = logits / temperature + log(prior).

    Every sum but the count is weighted with sample_weight. A label is among the top k if fewer than k classes
    have a larger u, or an equal u and a smaller index; where a logit is NaN, or all are -infinity, it never
    is, and no class is predicted. Bins are those of Guo et al. (2017): (k / bins, (k + 1) / bins].
    """
    top_k = tuple(operator.index(k) for k in np.atleast_1d(top_k))
    if any(k < 1 for k in top_k):
        raise ValueError(f"top_k is {top_k}, expected numbers of at least 1")
    x, t, options = _read(logits, target, axis, ignore_index, base, sample_weight, prior, temperature)
    x, label, weight = x[t.counted], t.label[t.counted], t.sample_weight[t.counted]
    with np.errstate(all="ignore"):
        u, _, _ = transformed(x, options)
        p, one_minus_p = probabilities(u)
        log_p = log_probabilities(u)
        loss, rank = 0.0 - np.where(label, log_p, 0.0).sum(axis=-1), _rank(u, label)
        product = np.where(weight == 0, 0.0, weight * loss)
        there = weight != 0
        return Evaluation(
            count=len(x),
            total_weight=float(weight.sum()),
            loss_sum=_sum(weight, loss),
            correct_sum=_sum(weight, rank < 1),
            top_k=top_k,
            top_k_sums=tuple(_sum(weight, rank < k) for k in top_k),
            squared_error_sum=_sum(weight, (np.where(label, one_minus_p, p) ** 2).sum(axis=-1)),
            entropy_sum=_sum(weight, 0.0 - np.where(p == 0, 0.0, p * log_p).sum(axis=-1)),
            label_weights=np.where(label, weight[:, None], 0.0).sum(axis=0),
            base=_base(base),
            second_sums=(
                float(there.sum()),
                float((weight**2).sum()),
                float((weight * product).sum()),
                float((product**2).sum()),
                float((weight**2 * (rank < 1)).sum()),
            ),
            bin_sums=None
            if calibration_bins is None
            else _bin_sums(p[there], rank[there] < 1, weight[there], calibration_bins),
            **_counts(u[there], label[there], weight[there], sample_weight is not None, confusion),
        )


def evaluate_sequences(
    logits, target, groups, *, axis=-1, ignore_index=-100, prior=None, base=None, temperature=1.0
):
    """Return a SequenceEvaluation: for each group the sum of log p_y, and whether each label has rank 0."""
    x, t, options = _read(logits, target, axis, ignore_index, base, None, prior, temperature)
    groups = plain(groups)
    if groups.dtype.kind not in "iu":
        raise TypeError(f"groups has dtype {groups.dtype}, expected integers")
    if groups.shape != x.shape[:-1]:
        raise ValueError(f"groups has shape {groups.shape}, expected that of the positions, {x.shape[:-1]}")
    with np.errstate(all="ignore"):
        u, _, _ = transformed(x, options)
        log_p = np.where(t.label, log_probabilities(u), 0.0).sum(axis=-1)
        first = _rank(u, t.label) < 1
    names = np.unique(groups)
    members = [(groups == name) & t.counted for name in names]
    return SequenceEvaluation(
        names.astype(np.int64),
        np.array([log_p[here].sum() for here in members], np.float64),
        np.array([here.sum() for here in members], np.int64),
        np.array([first[here].all() for here in members], bool),
        _base(base),
    )


def compare(logits_a, logits_b, target=None, *, axis=-1, ignore_index=-100, base=None, temperature=1.0):
    """Return a Comparison of a = softmax(logits_a / temperature) and b: sum_c a_c (log a_c - log b_c)."""
    options = Options(axis=axis, temperature=temperature)
    a, b = classes_last(logits_a, axis), classes_last(logits_b, axis)
    if a.shape != b.shape:
        raise ValueError(f"logits_b has shape {np.shape(logits_b)}, expected {np.shape(logits_a)}")
    counted = np.ones(a.shape[:-1], bool)
    if target is not None:
        _, t, _ = _read(logits_a, target, axis, ignore_index, base, None, None, temperature)
        counted, label = t.counted, t.label[t.counted]
    a, b = a[counted], b[counted]
    with np.errstate(all="ignore"):
        a, b = transformed(a, options)[0], transformed(b, options)[0]
        log_a, log_b = log_probabilities(a), log_probabilities(b)
        (p_a, rest_a), (p_b, rest_b) = probabilities(a), probabilities(b)
        terms = np.where((p_a == 0) & ~np.isnan(p_b), 0.0, p_a * (log_a - log_b))
        kl = terms.sum(axis=-1)
        same = (_predicted(a) == _predicted(b)) & (_predicted(a) >= 0)
        sums = None
        if target is not None:
            loss_a, loss_b = (0.0 - np.where(label, log, 0.0).sum(axis=-1) for log in (log_a, log_b))
            # of two probabilities next to 1 the rests have the digits
            change = np.where((p_a > 0.5) & (p_b > 0.5), rest_a - rest_b, p_b - p_a)
            change = np.where(label, change, 0.0).sum(axis=-1)
            each = loss_a, loss_b, (loss_b - loss_a) ** 2, change, change**2
            sums = tuple(float(numbers.sum()) for numbers in each)
    return Comparison(kl, int(same.sum()), _base(base), sums)


def _read(logits, target, axis, ignore_index, base, sample_weight, prior, temperature):
    """Return logits with the classes last, the target, and the options of cross_entropy."""
    _base(base)
    target = plain(target)
    if target.dtype.kind not in "iu":
        raise TypeError(f"target has dtype {target.dtype}, expected integer labels")
    options = Options(
        axis=axis,
        ignore_index=ignore_index,
        sample_weight=sample_weight,
        prior=prior,
        temperature=temperature,
    )
    x = classes_last(logits, axis)
    return x, read_target(target, logits, x, options), options


def _base(base):
    """Return the base of a logarithm, or None."""
    if base is not None and not 1 < base < np.inf:
        raise ValueError(f"base is {base}, expected None or a finite number above 1")
    return None if base is None else float(base)


def _is_ranked(u):
    """Return where there is a largest logit: none is NaN, and not all are -infinity."""
    return ~np.isnan(u).any(axis=-1) & ~np.isneginf(u).all(axis=-1)


def _rank(u, label):
    """Return how many classes come before the label: infinitely many where nothing is ranked."""
    index = np.arange(u.shape[-1])
    own = np.where(label, u, 0.0).sum(axis=-1, keepdims=True)
    place = np.where(label, index, 0).sum(axis=-1, keepdims=True)
    before = ((u > own) | ((u == own) & (index < place))).sum(axis=-1)
    return np.where(_is_ranked(u), before, np.inf)


def _predicted(u):
    """Return the first class with the largest logit; -1 where nothing is ranked."""
    if u.shape[-1] == 0:
        return np.full(u.shape[:-1], -1)
    return np.where(_is_ranked(u), u.argmax(axis=-1), -1)


def _sum(weight, values):
    """Return the weighted sum; what has no weight is not there."""
    return float(np.where(weight == 0, 0.0, weight * values).sum())


def _bin_sums(p, right, weight, bins):
    """Return sums of weights, confidences and what is right for each bin; NaN is in the first."""
    confidence = p.max(axis=-1, initial=0.0)
    place = np.ceil(np.where(np.isnan(confidence), 0.0, confidence) * bins) - 1
    at = np.arange(bins)[:, None] == np.clip(place, 0, bins - 1)
    return np.array(
        [(np.where(at, weight * v, 0.0)).sum(axis=-1) for v in (np.ones(len(p)), confidence, right)]
    )


def _counts(u, label, weight, weighted, confusion):
    """Return the confusion matrix, or its sums for each class: integers where there are no weights."""
    predicted = _predicted(u)[:, None] == np.arange(u.shape[-1])
    weight = weight[:, None] if weighted else np.ones((len(u), 1), np.int64)
    if confusion == "per_class":
        return {
            "class_sums": np.array([(weight * mask).sum(axis=0) for mask in (predicted, predicted & label)])
        }
    return {"confusion": (weight * label).T @ predicted.astype(weight.dtype)} if confusion else {}
