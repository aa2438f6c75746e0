"""The result of `evaluate`: sums over positions, and the numbers that follow from them."""

import math
import operator

import numpy as np


class Evaluation:
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
        )

    def __setattr__(self, name, value):
        raise AttributeError(f"an Evaluation cannot be changed, and so its {name} cannot")

    def __delattr__(self, name):
        raise AttributeError(f"an Evaluation cannot be changed, and so its {name} cannot be deleted")

    @property
    def loss(self):
        """Mean of -log p_y, the cross-entropy, in units of `base`."""
        return self._in_units(self._mean(self.loss_sum))

    @property
    def perplexity(self):
        """exp of the loss in nats, whatever the base; 1 over nothing."""
        loss = self._mean(self.loss_sum)
        return math.inf if loss > _LARGEST_EXPONENT else math.exp(loss)

    @property
    def accuracy(self):
        """Share of positions whose label has the largest logit; of equal logits the first class has it."""
        return self._mean(self.correct_sum)

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
        frequencies = self.label_weights[self.label_weights > 0] / self.total_weight
        return self._in_units(0.0 - float((frequencies * np.log(frequencies)).sum()))

    @property
    def mutual_information(self):
        """label_entropy - loss: what the predictions tell about the labels, in units of `base`.

        Negative where they do worse than the frequencies of the labels.
        """
        return self.label_entropy - self.loss

    def __add__(self, other):
        """Return the evaluation of the positions of both."""
        if not isinstance(other, Evaluation):
            return NotImplemented
        self._check_like(other)
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
        )

    def __radd__(self, other):
        """Return this evaluation for the 0 that ``sum`` starts from."""
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __eq__(self, other):
        if not isinstance(other, Evaluation):
            return NotImplemented
        return self._sums() == other._sums() and np.array_equal(self.label_weights, other.label_weights)

    def __repr__(self):
        unit = {None: "nats", 2.0: "bits", 10.0: "dits"}.get(self.base, f"base {self.base}")
        top = "".join(f", top_{k}_accuracy={v:.4g}" for k, v in self.top_k_accuracy.items() if k != 1)
        return (
            f"Evaluation(count={self.count}, loss={self.loss:.4g} {unit}, perplexity={self.perplexity:.4g}, "
            f"accuracy={self.accuracy:.4g}{top}, mse={self.mse:.4g}, entropy={self.entropy:.4g} {unit}, "
            f"mutual_information={self.mutual_information:.4g} {unit})"
        )

    def _mean(self, total):
        """Return a sum divided by the weights; 0 where there are none."""
        return float(total / self.total_weight) if self.total_weight else 0.0

    def _in_units(self, nats):
        return nats if self.base is None else nats / math.log(self.base)

    def _sums(self):
        """Return every field but the array."""
        return tuple(v for name, v in vars(self).items() if name != "label_weights")

    def _check_like(self, other):
        """Raise unless both say the same about the same classes."""
        for name, mine, theirs in [
            ("classes", len(self.label_weights), len(other.label_weights)),
            ("top_k", self.top_k, other.top_k),
            ("base", self.base, other.base),
        ]:
            if mine != theirs:
                raise ValueError(f"evaluations of different {name} cannot be added: {mine} and {theirs}")


# exp of more than this is infinite, and math.exp an error.
_LARGEST_EXPONENT = math.log(np.finfo(np.float64).max)
