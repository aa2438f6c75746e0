"""A random search for the worst errors, against mpmath: what the README promises is asserted here.

Rows of a few classes at every scale from 0.1 to 400, some far from 0, in both layouts; a slow-marked run
searches for minutes.
"""

import mpmath
import numpy as np
import pytest
from tolerances import bound

import xent

SCALES = [0.1, 0.5, 1, 3, 10, 30, 400]
OFFSETS = [0, 0, 0, -700, 1500, 1e5, -3000]
SMALLEST = 1e-290  # results above it are normal numbers in float64


class Worst:
    """The largest error seen of each quantity, in ulp of the exact value or of a larger scale."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.ulp = {}
        self.tiny = max(SMALLEST, float(np.finfo(dtype).tiny))

    def see(self, name, actual, exact, scale=None):
        scale = abs(exact) if scale is None else scale
        if scale < self.tiny:
            return
        ulp = mpmath.mpf(float(np.spacing(self.dtype.type(float(scale)))))
        error = float(abs(mpmath.mpf(float(actual)) - exact) / ulp)
        self.ulp[name] = max(self.ulp.get(name, 0.0), error)


def search(dtype, axis, rng, batches):
    worst = Worst(dtype)
    with mpmath.workprec(200):
        for _ in range(batches):
            classes = int(rng.choice([2, 3, 4, 5, 8, 13, 70]))
            x = (rng.standard_normal((4, classes)) * rng.choice(SCALES) + rng.choice(OFFSETS)).astype(dtype)
            y = rng.integers(0, classes, 4)
            given = x if axis == 1 else np.asfortranarray(x)
            results = [
                xent.softmax(given),
                xent.log_softmax(given),
                xent.cross_entropy_grad(given, y, reduction="none"),
            ]
            lse, loss = xent.logsumexp(given), xent.cross_entropy(given, y, reduction="none")
            for i in range(4):
                row = [mpmath.mpf(float(v)) for v in x[i]]
                top = max(row)
                e = [mpmath.exp(v - top) for v in row]
                total = sum(e)
                worst.see("logsumexp", lse[i], top + mpmath.log(total), max(abs(lse[i]), abs(top)))
                for c in range(classes):
                    others = sum(e[:c] + e[c + 1 :])
                    worst.see("probability", results[0][i, c], e[c] / total)
                    worst.see("log_probability", results[1][i, c], -mpmath.log1p(others / e[c]))
                    gradient = e[c] / total if c != y[i] else -others / total
                    worst.see("gradient", results[2][i, c], gradient)
                    if c == y[i]:
                        worst.see("loss", loss[i], mpmath.log1p(others / e[c]))
    return worst.ulp


@pytest.mark.parametrize("axis", [1, 0], ids=["rows", "columns"])
@pytest.mark.parametrize("batches", [40, pytest.param(4000, marks=pytest.mark.slow)])
def test_worst_errors(dtype, axis, batches, rng):
    for name, error in search(dtype, axis, rng, batches).items():
        assert error <= bound(name, dtype), name


def test_a_sum_survives_a_much_larger_logit(dtype):
    """The running sum is rescaled by more than the range of a double: what it holds must not vanish."""
    x = np.full(70, -3000 if dtype == np.float64 else -250, dtype)
    x[[7, 39, 43, 61]] = [478.7, 663.9, 682.7, 1292.5] if dtype == np.float64 else [10, 100.5, 120.5, 200]
    worst = Worst(dtype)
    with mpmath.workprec(200):
        row = [mpmath.mpf(float(v)) for v in x]
        others = sum(mpmath.exp(v - row[61]) for k, v in enumerate(row) if k != 61)
        worst.see("loss", xent.cross_entropy(x, 61, reduction="none"), mpmath.log1p(others))
    assert worst.ulp["loss"] <= bound("loss", dtype)


def test_confident_probability_target(dtype):
    """The gradient at a one-hot target is that of the label, to the last bits."""
    for x in ([[40.0, 0.0]], [[3.0, 0.5, -20.0]], [[0.0, 90.0, 1.0]]):
        logits = np.array(x, dtype)
        label = int(logits.argmax())
        onehot = np.eye(logits.shape[1], dtype=dtype)[[label]]
        for given, target in [(logits, onehot), (np.asfortranarray(logits), np.asfortranarray(onehot))]:
            np.testing.assert_allclose(
                xent.cross_entropy_grad(given, target),
                xent.cross_entropy_grad(logits, [label]),
                rtol=4 * np.finfo(dtype).eps,
            )


def test_sum_of_many_weights():
    labels = np.zeros(300_000, np.int64)
    loss = xent.cross_entropy(np.zeros((labels.size, 2)), labels, weight=[0.1, 0.1])
    assert loss == pytest.approx(np.log(2), rel=1e-15)


def test_weights_outside_the_range_of_float32():
    logits = np.zeros((3, 4), np.float32)
    for scale in (1e-50, 1e39):
        loss = xent.cross_entropy(logits, [0, 1, 2], weight=np.full(4, scale))
        assert loss == pytest.approx(np.log(4), rel=1e-6)


def test_extreme_temperatures():
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(xent.softmax(np.array([1, 2], dtype), temperature=1e-50), [0, 1])
        np.testing.assert_array_equal(xent.softmax(np.array([1, 2], dtype), temperature=1e300), [0.5, 0.5])
    np.testing.assert_array_equal(xent.softmax([1e308, 1.1e308], temperature=1e-5), [0, 1])
