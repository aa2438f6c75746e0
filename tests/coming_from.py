"""The lines of docs/coming_from.md, what their names mean, and formulas of libraries that are not there."""

import re
import types

import numpy as np
from helpers import ROOT, random_labels, random_logits, random_probabilities, random_weights

import xent

PAGE = ROOT / "docs" / "coming_from.md"
N, C = 13, 7


def lines(library):
    """The pairs of calls in the table under the heading of a library."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""  # beside an installed test suite
    section = text.partition(f"\n## {library}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| [^|]*\|$", section, re.M)


def inputs(convert=lambda array: array):
    """What the names on the page stand for, each as the library wants its arrays."""
    p = random_probabilities((N, C), np.float64, seed=1) * 0.9 + 0.1 / C
    labels = random_labels((N,), C)
    labels[:C] = range(C)  # each class is there
    arrays = {
        "x": random_logits((N, C), np.float64),
        "u": random_logits((N, C), np.float64, seed=1),
        "maps": random_logits((2, C, 3, 4), np.float64),
        "y": labels,
        "labels": random_labels((2, 3, 4), C),
        "some": np.where(np.arange(N) % 4 == 1, -100, labels),
        "none": np.full(N, -100),
        "p": p,
        "t": random_probabilities((N, C), np.float64) * 0.9 + 0.1 / C,
        "log_p": np.log(p),
        "w": random_weights(C, np.float64),
        "v": random_weights(N, np.float64),
        "z": random_logits((N, C), np.float64, seed=2),
        "b": (random_probabilities((N, C), np.float64) > 0.15).astype(np.float64),
        "q": xent.sigmoid(random_logits((N, C), np.float64, seed=3)),
        "c": random_weights(C, np.float64, seed=1),
        "h": random_logits((N, 5), np.float64, scale=1.0),
        "W": random_logits((C, 5), np.float64, scale=1.0),
        "a": random_logits((2, 4, 9, 8), np.float64),
        "k": random_logits((6, 4, 3, 3), np.float64),
        "k2": random_logits((4, 6, 3, 3), np.float64, seed=1),
    }
    return {name: convert(array) for name, array in arrays.items()}


def check(line, names, rtol=1e-10):
    """Both calls of a line give the same numbers."""
    theirs, ours = (eval(call, {"np": np, "xent": xent, **names}) for call in line)
    if isinstance(ours, tuple):
        assert len(ours) == len(theirs)
    else:
        ours, theirs = [ours], [theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert np.shape(mine) == np.shape(other)
        np.testing.assert_allclose(np.asarray(mine), np.asarray(other), rtol=rtol, atol=rtol / 100)


# ---- Keras: keras.io/api/losses ----------------------------------------------------------------------------

EPSILON = 1e-7  # keras.config.epsilon()


class _Loss:
    """The mean over positions of what `of` returns, times the sample weights: "sum_over_batch_size"."""

    def __init__(self, from_logits=False, label_smoothing=0.0, gamma=2.0):
        self.from_logits, self.label_smoothing, self.gamma = from_logits, label_smoothing, gamma

    def __call__(self, target, pred, sample_weight=1.0):
        return np.mean(self.of(np.asarray(target), np.asarray(pred)) * sample_weight)

    def log_probs(self, pred):
        if self.from_logits:
            return pred - np.log(np.exp(pred).sum(axis=-1, keepdims=True))
        return np.log(np.clip(pred / pred.sum(axis=-1, keepdims=True), EPSILON, 1 - EPSILON))

    def probs(self, pred):
        return 1 / (1 + np.exp(-pred)) if self.from_logits else np.clip(pred, EPSILON, 1 - EPSILON)


class _Categorical(_Loss):
    def of(self, target, pred):
        target = target * (1 - self.label_smoothing) + self.label_smoothing / pred.shape[-1]
        return -(target * self.log_probs(pred)).sum(axis=-1)


class _Sparse(_Categorical):
    def of(self, target, pred):
        return super().of(np.eye(pred.shape[-1])[target], pred)


class _Binary(_Loss):
    def of(self, target, pred):
        p = self.probs(pred)
        return self.terms(target, p).mean(axis=-1)

    def terms(self, target, p):
        return -(target * np.log(p) + (1 - target) * np.log(1 - p))


class _BinaryFocal(_Binary):
    def terms(self, target, p):
        right = target * p + (1 - target) * (1 - p)
        return (1 - right) ** self.gamma * super().terms(target, p)


class _Divergence(_Loss):
    def of(self, target, pred):
        target, pred = np.clip(target, EPSILON, 1), np.clip(pred, EPSILON, 1)
        return (target * np.log(target / pred)).sum(axis=-1)


class _Squared(_Loss):
    def of(self, target, pred):
        return ((target - pred) ** 2).mean(axis=-1)


KERAS = types.SimpleNamespace(
    SparseCategoricalCrossentropy=_Sparse,
    CategoricalCrossentropy=_Categorical,
    BinaryCrossentropy=_Binary,
    BinaryFocalCrossentropy=_BinaryFocal,
    KLDivergence=_Divergence,
    MeanSquaredError=_Squared,
)


# ---- Caffe: caffe.berkeleyvision.org/tutorial/layers -------------------------------------------------------


def softmax_with_loss(scores, labels, ignore_label=None, normalization="VALID"):
    scores = np.moveaxis(scores, 1, -1).reshape(-1, scores.shape[1])
    counted = np.ones(labels.size, bool) if ignore_label is None else labels.ravel() != ignore_label
    probs = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    chosen = probs[counted, labels.ravel()[counted]]
    divisors = {"VALID": counted.sum(), "FULL": labels.size, "BATCH_SIZE": len(labels), "NONE": 1}
    return -np.log(chosen).sum() / divisors[normalization]


def sigmoid_cross_entropy_loss(scores, targets):
    p = 1 / (1 + np.exp(-scores))
    return -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).sum() / len(scores)


def infogain_loss(probs, labels, infogain):
    return -(infogain[labels] * np.log(np.maximum(probs, 1e-20))).sum() / len(probs)


def multinomial_logistic_loss(probs, labels):
    return infogain_loss(probs, labels, np.eye(probs.shape[1]))


def euclidean_loss(pred, target):
    return ((pred - target) ** 2).sum() / (2 * len(pred))


def pooling(images, pool, kernel_size, stride, pad=0):
    """Sizes are rounded up; a mean divides by what of the window lies in the padded image."""
    height, width = images.shape[2:]
    sizes = [-(-(size + 2 * pad - kernel_size) // stride) + 1 for size in (height, width)]
    if pad:  # the last window starts inside the image
        sizes = [n - ((n - 1) * stride >= size + pad) for n, size in zip(sizes, (height, width), strict=True)]
    result = np.empty((*images.shape[:2], *sizes))
    for i, j in np.ndindex(*sizes):
        top, left = i * stride - pad, j * stride - pad
        bottom, right = min(top + kernel_size, height + pad), min(left + kernel_size, width + pad)
        window = images[:, :, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
        area = (bottom - top) * (right - left)
        result[:, :, i, j] = window.max(axis=(2, 3)) if pool == "MAX" else window.sum(axis=(2, 3)) / area
    return result


CAFFE = {
    "SoftmaxWithLoss": softmax_with_loss,
    "SigmoidCrossEntropyLoss": sigmoid_cross_entropy_loss,
    "MultinomialLogisticLoss": multinomial_logistic_loss,
    "InfogainLoss": infogain_loss,
    "EuclideanLoss": euclidean_loss,
    "Pooling": pooling,
}
