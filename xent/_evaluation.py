"""What the functions of evaluate.py return: sums over positions, and the numbers that follow from them."""

import math
import operator
from typing import NamedTuple

import numpy as np

from . import _check


class _Result:
    """What results have in common: they do not change, and ``sum`` adds them up."""

    def __setattr__(self, name, value):
        raise AttributeError(f"{self._called} cannot be changed, and so its {name} cannot")

    def __delattr__(self, name):
        raise AttributeError(f"{self._called} cannot be changed, and so its {name} cannot be deleted")

    def __radd__(self, other):
        """Return this for the 0 that ``sum`` starts from."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __eq__(self, other):
        if not isinstance(other, type(self)):
            return NotImplemented
        return all(map(_same, vars(self).values(), vars(other).values()))

    def _in_units(self, nats):
        """Return nats, or an array of them, in units of `base`."""
        return nats if self.base is None else nats / math.log(self.base)

    def _unit(self):
        """Return what the unit of `base` is called."""
        return {None: "nats", 2.0: "bits", 10.0: "dits"}.get(self.base, f"base {self.base}")

    def _check_like(self, other, **fields):
        """Raise unless both say the same about the same things."""
        for called, name in fields.items():
            mine, theirs = _outline(getattr(self, name)), _outline(getattr(other, name))
            if mine != theirs:
                what = called.replace("_", " ") if called != name else name
                raise ValueError(f"{self._several} of different {what} cannot be added: {mine} and {theirs}")


def _same(mine, theirs):
    """Whether two fields are equal."""
    if isinstance(mine, np.ndarray) or isinstance(theirs, np.ndarray):
        return np.array_equal(mine, theirs)
    return mine == theirs


def _outline(field):
    """Return what has to agree where results are added: of arrays the length of their last axis."""
    return field.shape[-1] if isinstance(field, np.ndarray) else field


def _sum(mine, theirs):
    """Add two fields that may both be None."""
    return None if mine is None else mine + theirs


def _ratio(part, whole):
    """Return a quotient of arrays, NaN where it is one by 0."""
    with np.errstate(all="ignore"):
        return np.where(whole == 0, np.nan, np.divide(part, whole))


def _standard_error(squares, count, total_weight):
    """Return the standard error of a mean, from the sum of the squares of weights times distances from it."""
    if count < 2 or not total_weight or math.isnan(squares):
        return math.nan
    # rounding may have made a sum of squares negative that is all but 0
    return math.sqrt(max(squares, 0.0) * count / (count - 1)) / abs(total_weight)


def _exp(nats):
    """Return exp, infinite where it is too large."""
    return math.inf if nats > _LARGEST_EXPONENT else math.exp(nats)


class Reliability(NamedTuple):
    """How often predictions are right, by their confidence: arrays of a number per bin.

    Bin k holds the positions whose confidence, the largest probability, lies in ``(edges[k], edges[k + 1]]``.
    Confidence and accuracy are means over them, and NaN in a bin that holds none.
    """

    edges: np.ndarray
    weight: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


class PerClass(NamedTuple):
    """For each class, the weight of the positions with that label, with that prediction and with both.

    precision is correct / predicted, and recall correct / labels: NaN where that divides by 0.
    """

    labels: np.ndarray
    predicted: np.ndarray
    correct: np.ndarray
    precision: np.ndarray
    recall: np.ndarray


class Evaluation(_Result):
    """
    How well logits predict labels: what `evaluate` returns.

    Sums are kept inside and divided when a number is asked for, so that the evaluations of chunks, files and
    workers add up with ``+``, or with ``sum``, to that of the whole. A mean over nothing is 0.

    Parameters
    ----------
    count : int
        Number of counted positions: those whose label is not ignored.
    total_weight : float
        Sum of their sample weights; the number of them without sample weights.
    loss_sum : float
        Weighted sum of -log p_y, in nats.
    correct_sum : float
        Sum of the weights of positions whose label has the largest logit.
    top_k : tuple of int
        The k of `top_k_sums`.
    top_k_sums : tuple of float
        For each k, the sum of the weights of positions whose label is among the k largest logits.
    squared_error_sum : float
        Weighted sum over positions and classes of (p_c - [c = y])^2.
    entropy_sum : float
        Weighted sum of the entropies -sum_c p_c log p_c of the predictions, in nats.
    label_weights : ndarray of float64, shape (C,)
        For each class, the sum of the weights of the positions with that label.
    base : float or None
        Base of the logarithm of `loss`, `entropy`, `label_entropy` and `mutual_information`: 2 for bits, 10
        for dits, None for nats.
    second_sums : tuple of float
        What standard errors are made of: the number of positions whose weight v is not 0, and the sums of
        v^2, v^2 times the loss, (v times the loss)^2, and v^2 of the positions that `correct_sum` counts.
    bin_sums : ndarray of float64, shape (3, bins), or None
        For each bin of confidence the sums of the weights, of the confidences times these, and of the weights
        of positions that `correct_sum` counts.
    class_sums : ndarray, shape (2, C), or None
        For each class the sum of the weights of positions where it has the largest logit, and of those of
        them whose label it is.
    confusion : ndarray, shape (C, C), or None
        The same for each label (row) and class with the largest logit (column).

    See Also
    --------
    evaluate

    Notes
    -----
    Two evaluations are equal if their sums are. Adding rounds, so that chunks that are added up in another
    order may differ in the last digits.

    Examples
    --------
    >>> import xent.reference
    >>> first = xent.reference.evaluate([[2.0, 1.0, 0.0]], [0])
    >>> second = xent.reference.evaluate([[0.0, 3.0, 0.0], [1.0, 0.0, 0.0]], [1, 2])
    >>> both = first + second
    >>> both.count, round(both.accuracy, 4), round(both.loss, 4)
    (3, 0.6667, 0.6847)
    >>> sum([first, second]) == both
    True
    """

    _called, _several = "an Evaluation", "evaluations"

    def __init__(
        self,
        count,
        total_weight,
        loss_sum,
        correct_sum,
        top_k,
        top_k_sums,
        squared_error_sum,
        entropy_sum,
        label_weights,
        base=None,
        second_sums=(0.0, 0.0, 0.0, 0.0, 0.0),
        bin_sums=None,
        class_sums=None,
        confusion=None,
    ):
        vars(self).update(
            count=count,
            total_weight=total_weight,
            loss_sum=loss_sum,
            correct_sum=correct_sum,
            top_k=top_k,
            top_k_sums=top_k_sums,
            squared_error_sum=squared_error_sum,
            entropy_sum=entropy_sum,
            label_weights=label_weights,
            base=base,
            second_sums=second_sums,
            bin_sums=bin_sums,
            class_sums=class_sums,
            confusion=confusion,
        )

    @property
    def loss(self):
        """Mean of -log p_y, the cross-entropy, in units of `base`."""
        return self._in_units(self._mean(self.loss_sum))

    @property
    def loss_standard_error(self):
        """Standard error of `loss`, in units of `base`; NaN for fewer than two positions."""
        _, squares, losses, squared_losses, _ = self.second_sums
        mean = self._mean(self.loss_sum)
        return self._in_units(self._standard_error(squared_losses - mean * (2 * losses - mean * squares)))

    @property
    def perplexity(self):
        """exp of the loss in nats, whatever the base; 1 over nothing."""
        return _exp(self._mean(self.loss_sum))

    @property
    def accuracy(self):
        """Share of positions whose label has the largest logit; of equal logits the first class has it."""
        return self._mean(self.correct_sum)

    @property
    def accuracy_standard_error(self):
        """Standard error of `accuracy`; NaN for fewer than two positions."""
        _, squares, _, _, correct = self.second_sums
        mean = self.accuracy
        return self._standard_error(correct * (1 - mean) ** 2 + (squares - correct) * mean**2)

    @property
    def top_k_accuracy(self):
        """For each k, the share of positions with fewer than k classes before the label.

        Classes with a larger logit come before it, and those with an equal logit and a smaller index.
        """
        return {k: self._mean(v) for k, v in zip(self.top_k, self.top_k_sums, strict=True)}

    @property
    def classification_error(self):
        """1 - accuracy; 0 over nothing."""
        return self._mean(self.total_weight - self.correct_sum)

    @property
    def mse(self):
        """Mean of (p_c - [c = y])^2 over positions and classes."""
        return self._mean(self.squared_error_sum) / max(len(self.label_weights), 1)

    @property
    def entropy(self):
        """Mean entropy -sum_c p_c log p_c of the predictions, in units of `base`."""
        return self._in_units(self._mean(self.entropy_sum))

    @property
    def label_entropy(self):
        """Entropy of the weighted frequencies of the labels, in units of `base`."""
        if not self.total_weight:
            return 0.0
        with np.errstate(over="ignore"):  # weights that nearly cancel
            frequencies = self.label_weights / self.total_weight
        frequencies = frequencies[frequencies > 0]
        return self._in_units(0.0 - float((frequencies * np.log(frequencies)).sum()))

    @property
    def mutual_information(self):
        """label_entropy - loss: what the predictions tell about the labels, in units of `base`.

        Negative where they do worse than the frequencies of the labels.
        """
        return self.label_entropy - self.loss

    def bits_per(self, n_bytes):
        """Sum of the losses in bits, whatever the base, divided by a number > 0: bits per byte of so many."""
        n_bytes = _check.real(n_bytes, "n_bytes", 0.0, open_low=True)
        return float(self.loss_sum / math.log(2) / n_bytes)

    @property
    def expected_calibration_error(self):
        """Mean over the positions of ``|accuracy - confidence|`` of their bin. (Of `calibration_bins`.)"""
        weight, confidence, correct = self._asked("bin_sums", "calibration_bins=15")
        return self._mean(float(np.abs(correct - confidence).sum()))

    @property
    def reliability(self):
        """Weight, mean confidence and accuracy of each bin, a `Reliability`. (Of `calibration_bins`.)"""
        weight, confidence, correct = self._asked("bin_sums", "calibration_bins=15")
        edges = np.arange(len(weight) + 1) / len(weight)
        return Reliability(edges, weight.copy(), _ratio(confidence, weight), _ratio(correct, weight))

    @property
    def confusion_matrix(self):
        """Weight of the positions with each label (row) and prediction (column). (Of ``confusion=True``.)"""
        return self._asked("confusion", "confusion=True")

    @property
    def per_class(self):
        """Weights, precision and recall of each class, a `PerClass`. (Of `confusion`.)"""
        if self.confusion is not None:
            predicted, correct = self.confusion.sum(axis=0), self.confusion.diagonal().copy()
        else:
            predicted, correct = self._asked("class_sums", "confusion='per_class'").copy()
        labels = self.label_weights.astype(predicted.dtype)
        return PerClass(labels, predicted, correct, _ratio(correct, predicted), _ratio(correct, labels))

    def as_dict(self):
        """Return all numbers by their names, as what JSON knows: numbers, lists and dicts."""
        result = {
            name: getattr(self, name)
            for name in [
                "count",
                "total_weight",
                "base",
                "loss",
                "loss_standard_error",
                "perplexity",
                "accuracy",
            ]
            + ["accuracy_standard_error", "top_k_accuracy", "classification_error", "mse", "entropy"]
            + ["label_entropy", "mutual_information"]
        }
        if self.bin_sums is not None:
            result["expected_calibration_error"] = self.expected_calibration_error
            result["reliability"] = {k: v.tolist() for k, v in self.reliability._asdict().items()}
        if self.class_sums is not None or self.confusion is not None:
            result["per_class"] = {k: v.tolist() for k, v in self.per_class._asdict().items()}
        if self.confusion is not None:
            result["confusion_matrix"] = self.confusion.tolist()
        return result

    def __add__(self, other):
        """Return the evaluation of the positions of both."""
        if not isinstance(other, Evaluation):
            return NotImplemented
        self._check_like(
            other,
            classes="label_weights",
            top_k="top_k",
            base="base",
            calibration_bins="bin_sums",
            confusion="confusion",
            classes_counted="class_sums",
        )
        return Evaluation(
            count=self.count + other.count,
            total_weight=self.total_weight + other.total_weight,
            loss_sum=self.loss_sum + other.loss_sum,
            correct_sum=self.correct_sum + other.correct_sum,
            top_k=self.top_k,
            top_k_sums=tuple(map(operator.add, self.top_k_sums, other.top_k_sums)),
            squared_error_sum=self.squared_error_sum + other.squared_error_sum,
            entropy_sum=self.entropy_sum + other.entropy_sum,
            label_weights=self.label_weights + other.label_weights,
            base=self.base,
            second_sums=tuple(map(operator.add, self.second_sums, other.second_sums)),
            bin_sums=_sum(self.bin_sums, other.bin_sums),
            class_sums=_sum(self.class_sums, other.class_sums),
            confusion=_sum(self.confusion, other.confusion),
        )

    def __repr__(self):
        unit = self._unit()
        top = "".join(f", top_{k}_accuracy={v:.4g}" for k, v in self.top_k_accuracy.items() if k != 1)
        calibration = ""
        if self.bin_sums is not None:
            calibration = f", expected_calibration_error={self.expected_calibration_error:.4g}"
        return (
            f"Evaluation(count={self.count}, loss={self.loss:.4g} {unit}, perplexity={self.perplexity:.4g}, "
            f"accuracy={self.accuracy:.4g}{top}, mse={self.mse:.4g}, entropy={self.entropy:.4g} {unit}, "
            f"mutual_information={self.mutual_information:.4g} {unit}{calibration})"
        )

    def _mean(self, total):
        """Return a sum over the weights; 0 where nothing has one, and as IEEE says where they cancel."""
        if self.total_weight:
            return float(total / self.total_weight)
        with np.errstate(all="ignore"):
            return float(np.divide(total, 0.0)) if self.second_sums[0] else 0.0

    def _standard_error(self, squares):
        """Return the standard error of a mean, from the sum of v^2 times the squared distance from it."""
        return _standard_error(squares, self.second_sums[0], self.total_weight)

    def _asked(self, name, option):
        """Return a field that there is only where it was asked for."""
        field = getattr(self, name)
        if field is None:
            raise AttributeError(f"this Evaluation has none of it: ask for it with evaluate(..., {option})")
        return field


class Sequence(NamedTuple):
    """A group of a `SequenceEvaluation`."""

    log_prob: float
    tokens: int
    greedy: bool


class SequenceEvaluation(_Result):
    """
    How probable sequences of labels are: what `evaluate_sequences` returns.

    Evaluations add up with ``+`` or ``sum``: groups of the same number become one, others stand side by side.

    Parameters
    ----------
    groups : ndarray of int64, shape (G,)
        The numbers of the groups, ascending.
    log_prob_sums : ndarray of float64, shape (G,)
        For each, the sum of log p_y over its positions, in nats.
    tokens : ndarray of int64, shape (G,)
        The number of its positions whose label is not ignored.
    greedy : ndarray of bool, shape (G,)
        Whether all of these have the label with the largest logit. (True where there are none.)
    base : float or None
        Base of the logarithm of `log_prob`: 2 for bits, 10 for dits, None for nats.

    See Also
    --------
    evaluate_sequences

    Examples
    --------
    >>> import xent.reference
    >>> logits = [[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0]]
    >>> result = xent.reference.evaluate_sequences(logits, [0, 1, 2], [7, 7, 8])
    >>> result
    SequenceEvaluation(groups=2, tokens=3, log_prob=-2.054 nats, greedy=1)
    >>> result[7].tokens, round(result[7].log_prob, 4), result[7].greedy
    (2, -0.5025, True)
    """

    _called, _several = "a SequenceEvaluation", "evaluations of sequences"

    def __init__(self, groups, log_prob_sums, tokens, greedy, base=None):
        vars(self).update(groups=groups, log_prob_sums=log_prob_sums, tokens=tokens, greedy=greedy, base=base)

    @property
    def log_prob(self):
        """For each group the sum of log p_y, in units of `base`."""
        return self._in_units(self.log_prob_sums)

    @property
    def mean_log_prob(self):
        """For each group the mean of log p_y, in units of `base`; 0 where there is no token."""
        return self.log_prob / np.maximum(self.tokens, 1)

    @property
    def perplexity(self):
        """For each group exp of the mean of -log p_y in nats, whatever the base."""
        with np.errstate(over="ignore"):
            return np.exp(-self.log_prob_sums / np.maximum(self.tokens, 1))

    def as_dict(self):
        """Return a list for each of groups, log_prob, tokens, greedy: columns, as data frames take them."""
        return {name: getattr(self, name).tolist() for name in ["groups", "log_prob", "tokens", "greedy"]}

    def __len__(self):
        return len(self.groups)

    def __getitem__(self, group):
        """Return the `Sequence` of the group of this number."""
        place = int(np.searchsorted(self.groups, group))
        if place == len(self.groups) or self.groups[place] != group:
            raise KeyError(group)
        log_prob = self._in_units(float(self.log_prob_sums[place]))
        return Sequence(log_prob, int(self.tokens[place]), bool(self.greedy[place]))

    def __iter__(self):
        """Yield the numbers of the groups."""
        return iter(self.groups.tolist())

    def __add__(self, other):
        """Return the evaluation of the groups of both."""
        if not isinstance(other, SequenceEvaluation):
            return NotImplemented
        self._check_like(other, base="base")
        groups, place = np.unique(np.concatenate([self.groups, other.groups]), return_inverse=True)
        mine, theirs = place[: len(self)], place[len(self) :]
        log_prob_sums, tokens = np.zeros(len(groups)), np.zeros(len(groups), np.int64)
        greedy = np.ones(len(groups), bool)
        for part, at in [(self, mine), (other, theirs)]:  # no group is twice in one of them
            log_prob_sums[at] += part.log_prob_sums
            tokens[at] += part.tokens
            greedy[at] &= part.greedy
        return SequenceEvaluation(groups, log_prob_sums, tokens, greedy, self.base)

    def __repr__(self):
        total = float(self.log_prob.sum())
        return (
            f"SequenceEvaluation(groups={len(self)}, tokens={int(self.tokens.sum())}, "
            f"log_prob={total:.4g} {self._unit()}, greedy={int(self.greedy.sum())})"
        )


class Comparison(_Result):
    """
    How far predictions b are from predictions a: what `compare` returns.

    Comparisons of chunks, files and workers add up with ``+``, or with ``sum``, to that of the whole. For
    exact quantiles each keeps the divergence of every position: 4 bytes (8 for float64 logits).

    Parameters
    ----------
    kl_values : ndarray of float, shape (N,)
        KL(a || b) of each counted position, in nats.
    same_count : int
        Number of positions where both have the same class with the largest logit.
    base : float or None
        Base of the logarithm of divergences and losses: 2 for bits, 10 for dits, None for nats.
    target_sums : tuple of float or None
        With labels y, sums of -log a_y, of -log b_y, of the square of their difference, of b_y - a_y and of
        its square.

    See Also
    --------
    compare

    Examples
    --------
    >>> import xent.reference
    >>> a = [[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0]]
    >>> b = [[2.0, 1.5, 0.0], [0.0, 2.5, 0.0], [0.0, 1.0, 0.0]]
    >>> result = xent.reference.compare(a, b)
    >>> result.count, round(result.kl, 4), round(result.kl_quantile(0.5), 4), round(result.same_top, 4)
    (3, 0.1337, 0.025, 0.6667)
    """

    _called, _several = "a Comparison", "comparisons"

    def __init__(self, kl_values, same_count, base=None, target_sums=None):
        vars(self).update(kl_values=kl_values, same_count=same_count, base=base, target_sums=target_sums)

    @property
    def count(self):
        """Number of counted positions."""
        return len(self.kl_values)

    @property
    def kl(self):
        """Mean of KL(a || b), in units of `base`."""
        return self._in_units(self._mean(self.kl_values.sum(dtype=np.float64)))

    @property
    def kl_standard_error(self):
        """Standard error of `kl`, in units of `base`; NaN for fewer than two positions."""
        with np.errstate(invalid="ignore"):  # infinite divergences
            gaps = self.kl_values.astype(np.float64) - self._mean(self.kl_values.sum(dtype=np.float64))
            return self._in_units(self._standard_error(float((gaps * gaps).sum(dtype=np.float64))))

    def kl_quantile(self, q):
        """Quantiles of KL(a || b), in units of `base`, interpolated as by ``np.quantile``.

        A float for a number q, an array for several; NaN over nothing.
        """
        q, values = _check.floats(q, "q").astype(np.float64), self.kl_values.astype(np.float64)
        if not ((q >= 0.0) & (q <= 1.0)).all():
            raise ValueError(f"q must be between 0 and 1, got {q}")
        if not len(values):
            found = np.full(q.shape, np.nan)
        else:
            with np.errstate(invalid="ignore"):
                found, low, high = (np.quantile(values, q, method=m) for m in ["linear", "lower", "higher"])
            found = np.where(low == high, low, found)  # between two infinities too
        found = self._in_units(found)
        return float(found) if q.ndim == 0 else found

    @property
    def same_top(self):
        """Share of positions where both have the same class with the largest logit."""
        return self._mean(self.same_count)

    @property
    def same_top_standard_error(self):
        """Standard error of `same_top`; NaN for fewer than two positions."""
        return self._standard_error(self.count * self.same_top * (1 - self.same_top))

    @property
    def loss_a(self):
        """Mean of -log a_y, in units of `base`. (With a target.)"""
        return self._in_units(self._mean(self._of_target(0)))

    @property
    def loss_b(self):
        """Mean of -log b_y, in units of `base`. (With a target.)"""
        return self._in_units(self._mean(self._of_target(1)))

    @property
    def loss_ratio(self):
        """loss_b / loss_a; NaN where both are 0. (With a target.)"""
        a, b = self._of_target(0), self._of_target(1)
        return b / a if a else (math.inf if b else math.nan)

    @property
    def perplexity_a(self):
        """exp of the loss of a in nats. (With a target.)"""
        return _exp(self._mean(self._of_target(0)))

    @property
    def perplexity_b(self):
        """exp of the loss of b in nats. (With a target.)"""
        return _exp(self._mean(self._of_target(1)))

    @property
    def perplexity_ratio(self):
        """perplexity_b / perplexity_a. (With a target.)"""
        return _exp(self._mean(self._of_target(1) - self._of_target(0)))

    @property
    def perplexity_ratio_standard_error(self):
        """Standard error of `perplexity_ratio`: by the differences of the losses. (With a target.)"""
        gap, squares = self._of_target(1) - self._of_target(0), self._of_target(2)
        return self.perplexity_ratio * self._standard_error(squares - gap * self._mean(gap))

    @property
    def probability_change(self):
        """Mean of b_y - a_y, the change of the probability of the label. (With a target.)"""
        return self._mean(self._of_target(3))

    @property
    def rms_probability_change(self):
        """Root of the mean of (b_y - a_y)^2. (With a target.)"""
        return math.sqrt(self._mean(self._of_target(4)))

    def as_dict(self):
        """Return all numbers by their names, as what JSON knows; quantiles from "kl_min" to "kl_max"."""
        names = ["count", "base", "kl", "kl_standard_error"]
        result = {name: getattr(self, name) for name in names}
        result |= zip(_QUANTILES, self.kl_quantile(list(_QUANTILES.values())).tolist(), strict=True)
        names = ["same_top", "same_top_standard_error"]
        if self.target_sums is not None:
            names += ["loss_a", "loss_b", "loss_ratio", "perplexity_a", "perplexity_b", "perplexity_ratio"]
            names += ["perplexity_ratio_standard_error", "probability_change", "rms_probability_change"]
        return result | {name: getattr(self, name) for name in names}

    def __add__(self, other):
        """Return the comparison of the positions of both."""
        if not isinstance(other, Comparison):
            return NotImplemented
        self._check_like(other, base="base")
        if (self.target_sums is None) != (other.target_sums is None):
            raise ValueError("comparisons with and without a target cannot be added")
        sums = self.target_sums
        if sums is not None:
            sums = tuple(map(operator.add, sums, other.target_sums))
        values = np.concatenate([self.kl_values, other.kl_values])
        return Comparison(values, self.same_count + other.same_count, self.base, sums)

    def __repr__(self):
        median, most = self.kl_quantile([0.5, 0.99])
        losses = ""
        if self.target_sums is not None:
            losses = f", loss_a={self.loss_a:.4g}, loss_b={self.loss_b:.4g}"
            losses += f", perplexity_ratio={self.perplexity_ratio:.4g}"
        return (
            f"Comparison(count={self.count}, kl={self.kl:.4g} {self._unit()}, median={median:.4g}, "
            f"99%={most:.4g}, same_top={self.same_top:.4g}{losses})"
        )

    def _mean(self, total):
        return float(total / self.count) if self.count else 0.0

    def _standard_error(self, squares):
        """Return the standard error of a mean, from the sum of the squared distances from it."""
        return _standard_error(squares, self.count, self.count)

    def _of_target(self, k):
        """Return one of the sums that there are only with a target."""
        if self.target_sums is None:
            raise AttributeError("this Comparison has no losses: give the labels with compare(a, b, target)")
        return self.target_sums[k]


# Quantiles that studies of quantised models report.
_QUANTILES = {"kl_min": 0.0, "kl_median": 0.5, "kl_95": 0.95, "kl_99": 0.99, "kl_99_9": 0.999, "kl_max": 1.0}

# exp of more than this is infinite, and math.exp an error.
_LARGEST_EXPONENT = math.log(np.finfo(np.float64).max)
