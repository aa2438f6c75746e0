"""
Softmax regression
==================

Softmax regression on handwritten digits: `xent.sklearn.SoftmaxRegression`, beside scikit-learn's own.

::

    pip install ".[demo]"
    python examples/softmax_regression.py

Softmax regression is also called multinomial logistic regression or a maximum entropy model: logits W x + b,
and an L2 penalty on W. scikit-learn's `LogisticRegression` minimises the same objective with the same solver,
SciPy's L-BFGS, from the same start to the same tolerance, so coefficients and times can be compared. Fits
take turns.

Then some classes of the training set are thinned, and `prior=` tells the loss how frequent each class is. The
model then learns what tells the classes apart and leaves their frequencies to the loss. That is what counts
where all classes matter equally: the test set stays balanced, and prediction takes no prior. This is "logit
adjustment", A. K. Menon et al., "Long-tail learning via logit adjustment", 2021, arXiv:2007.07314.

Fails if a coefficient differs from scikit-learn's by more than 1e-4.
"""

import argparse
import statistics
import sys
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

import xent
from xent.sklearn import SoftmaxRegression

CLASSES = 10
C = 1.0  # scikit-learn's name of the inverse strength of the penalty, and its default
# Of the largest element of the gradient. The penalty curves the objective by 1 / (C N) at least, 6e-4 with
# all digits: a weight is known to about 2e-5 then. scikit-learn's default of 1e-4 leaves a tenth or two open.
GTOL = 1e-8
MAX_ITER = 1000
TOLERANCE = 1e-4  # of the coefficients
RARE = slice(0, CLASSES, 2)  # the even digits
KEPT = 0.05  # of their images


def fit(x, labels, **options):
    """Return (W, b) that minimise, over N images, mean cross-entropy + |W|^2 / (2 C N)."""
    model = SoftmaxRegression(C=C, tol=GTOL, max_iter=MAX_ITER, **options).fit(x, labels)
    return model.coef_, model.intercept_


def fit_sklearn(x, labels):
    model = LogisticRegression(C=C, tol=GTOL, max_iter=MAX_ITER).fit(x, labels)
    return model.coef_, model.intercept_


def centred(weight, bias):
    """All parameters, up to what the softmax does not see: the same added to all classes."""
    params = np.column_stack([weight, bias])
    return params - params.mean(axis=0)


def compare(x, labels, repeats):
    """Print the times of both; return the largest difference of a coefficient."""
    fits = {"xent": fit, "scikit-learn": fit_sklearn}
    times, difference = {name: [] for name in fits}, 0.0
    for _ in range(repeats):
        params = []
        for name, call in fits.items():
            start = time.perf_counter()
            params.append(centred(*call(x, labels)))
            times[name].append(time.perf_counter() - start)
        difference = max(difference, np.abs(params[0] - params[1]).max())
    print(f"{len(x)} digits, threads: {xent.get_num_threads()}")
    print(f"a fit, minimum / median of {repeats}, taken in turns:")
    for name, spent in times.items():
        print(f"{name:15}{1e3 * min(spent):.0f} / {1e3 * statistics.median(spent):.0f} ms")
    print(f"largest difference of a coefficient: {difference:.1e}\n")
    return difference


def thinned(labels, rng):
    """Indices of all images of the frequent classes, and of a few of each rare one."""
    keep = [np.flatnonzero(labels == k) for k in range(CLASSES)]
    for k in range(CLASSES)[RARE]:
        keep[k] = rng.choice(keep[k], round(KEPT * len(keep[k])), replace=False)
    return np.concatenate(keep)


def adjust(x, labels, splits):
    """Print the balanced accuracy of training on thinned classes, without and with their frequencies."""
    scores = {"without prior": [], "with prior": []}
    for seed in range(splits):
        x_train, x_test, y_train, y_test = train_test_split(
            x, labels, test_size=0.5, stratify=labels, random_state=seed
        )
        keep = thinned(y_train, np.random.default_rng(seed))
        frequencies = np.bincount(y_train[keep]) / len(keep)
        for name, prior in zip(scores, (None, frequencies), strict=True):
            weight, bias = fit(x_train[keep], y_train[keep], prior=prior)
            guesses = (x_test @ weight.T + bias).argmax(axis=1)
            scores[name].append(balanced_accuracy_score(y_test, guesses))
    print(f"{KEPT:.0%} of the even digits; balanced accuracy on the test set, mean of {splits} splits")
    for name, values in scores.items():
        print(f"{name:15}{statistics.mean(values):.4f}")


def main():
    parser = argparse.ArgumentParser(description="Softmax regression on digits, with xent.")
    parser.add_argument("--repeats", type=int, default=7, help="fits that are timed (default 7)")
    parser.add_argument("--threads", type=int, default=1, help="of both (default 1: the digits are few)")
    parser.add_argument("--splits", type=int, default=10, help="of the thinned digits (default 10)")
    args = parser.parse_args()
    pixels, labels = load_digits(return_X_y=True)
    x = pixels / pixels.max()
    with threadpool_limits(args.threads), xent.num_threads(args.threads):
        difference = compare(x, labels, args.repeats)
        adjust(x, labels, args.splits)
    return 0 if difference <= TOLERANCE else 1


if __name__ == "__main__" and main():
    sys.exit(1)
