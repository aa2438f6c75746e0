"""What the plots of a report need of each position; it adds up as evaluations and comparisons do."""

import numpy as np

import xent

BLOCK = 1 << 22  # logits whose largest are looked for at a time, in numbers of 4 or 8 bytes


def is_ignored(labels, values):
    """Return which labels are one of these values. With NumPy 1, np.isin makes floats of unsigned labels."""
    mask = np.zeros(labels.shape, bool)
    for value in values:
        mask |= labels == value
    return mask


def _losses(logits, labels, axis, ignore_index, temperature, prior=None):
    """Return the losses of the positions that are not ignored, and which these are."""
    losses = xent.cross_entropy(
        logits,
        labels,
        axis=axis,
        ignore_index=ignore_index,
        temperature=temperature,
        prior=prior,
        reduction="none",
    )
    counted = ~is_ignored(labels, ignore_index)
    return losses[counted].astype(np.float32), counted


class Predictions:
    """The loss of each position, and how often each pair of label and prediction occurs."""

    def __init__(self, losses, pairs, counts):
        self.losses, self.pairs, self.counts = losses, pairs, counts

    @classmethod
    def of(cls, logits, labels, *, axis, ignore_index, temperature, prior):
        losses, counted = _losses(logits, labels, axis, ignore_index, temperature, prior)
        shift = None if prior is None else temperature * np.log(prior)
        predicted = _largest(np.moveaxis(logits, axis, -1), shift)[counted]
        codes, counts = np.unique(
            labels[counted].astype(np.int64) * logits.shape[axis] + predicted, return_counts=True
        )
        return cls(losses, codes, counts)

    def __add__(self, other):
        pairs, place = np.unique(np.concatenate([self.pairs, other.pairs]), return_inverse=True)
        counts = np.zeros(len(pairs), np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return Predictions(np.concatenate([self.losses, other.losses]), pairs, counts)

    def worst(self, classes, most):
        """Return labels with the most mistakes, what is predicted for them most often, and how often.

        The last column of counts is that of all other predictions.
        """
        labels, predicted = np.divmod(self.pairs, classes)
        mistakes = np.bincount(labels, self.counts * (labels != predicted), minlength=1)
        rows = np.argsort(-mistakes, kind="stable")[:most]
        rows = np.sort(rows[mistakes[rows] > 0])
        among = np.isin(labels, rows)
        labels, predicted, counts = labels[among], predicted[among], self.counts[among]
        named, at = np.unique(predicted, return_inverse=True)
        often = np.argsort(-np.bincount(at, counts, minlength=1), kind="stable")[:most] if len(named) else []
        columns = np.sort(named[often])
        table = np.zeros((len(rows), len(columns) + 1), np.int64)
        column = np.searchsorted(columns, predicted)
        shown = np.isin(predicted, columns)
        np.add.at(table, (np.searchsorted(rows, labels), np.where(shown, column, len(columns))), counts)
        return rows, columns, table


def _largest(logits, shift):
    """Return the class of the largest logit, of equal ones the first."""
    flat = logits.reshape(-1, logits.shape[-1])
    if (
        logits.dtype.itemsize == 2
        and logits.dtype.kind not in "iu"
        and logits.dtype.isnative
        and shift is None
    ):
        # Floats above 0 are in the order of their bits, and all others below them: integers are much faster
        bits = flat.view(np.int16)
        largest = bits.argmax(axis=-1)
        others = np.flatnonzero(np.take_along_axis(bits, largest[:, None], axis=-1)[:, 0] <= 0)
        largest[others] = _largest_of_floats(flat[others], 0.0)
    else:
        largest = _largest_of_floats(flat, 0.0 if shift is None else shift)
    return largest.reshape(logits.shape[:-1])


def _largest_of_floats(flat, shift):
    """The same of rows to which the shift is added, in blocks of wider numbers."""
    wide = np.float64 if flat.dtype.kind in "iu" else np.promote_types(np.float32, flat.dtype)
    largest, rows = np.empty(len(flat), np.int64), max(1, BLOCK // max(1, flat.shape[-1]))
    for start in range(0, len(flat), rows):
        block = flat[start : start + rows].astype(wide)
        largest[start : start + rows] = (block + shift).argmax(axis=-1)
    return largest


class Changes:
    """The probability of each position's label by a, and by b."""

    def __init__(self, a, b):
        self.a, self.b = a, b

    @classmethod
    def of(cls, a, b, labels, *, axis, ignore_index, temperature):
        return cls(*(np.exp(-_losses(x, labels, axis, ignore_index, temperature)[0]) for x in (a, b)))

    def __add__(self, other):
        return Changes(np.concatenate([self.a, other.a]), np.concatenate([self.b, other.b]))
