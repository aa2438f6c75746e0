"""A random search for the worst errors, against mpmath: what the README promises is asserted here.

Rows of a few classes at every scale from 0.1 to 400, some far from 0, in both layouts; a slow-marked run
searches for minutes. Then cases in which formulas are known to fail: very many classes, tiny probabilities
and confident predictions, with class counts around those at which another path may be taken.
"""

import itertools
import math

import mpmath
import numpy as np
import pytest
from helpers import assert_ulp, exact, exact_softmax, ulp
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


def search(dtype, axis, rng, batches, transformed=False):
    worst = Worst(dtype)
    with mpmath.workprec(200):
        counts = itertools.cycle([2, 3, 4, 5, 8, 13, 70, *([130] if transformed else [])])
        for classes in itertools.islice(counts, batches):
            x = (rng.standard_normal((4, classes)) * rng.choice(SCALES) + rng.choice(OFFSETS)).astype(dtype)
            t = float(rng.choice([0.05, 0.3, 2, 7.7])) if transformed else 1.0
            x *= dtype.type(t)  # the quotients are of all those sizes
            y = rng.integers(0, classes, 4)
            given = x if axis == 1 else np.asfortranarray(x)
            p, log_p = xent.softmax(given, temperature=t), xent.log_softmax(given, temperature=t)
            loss = xent.cross_entropy(given, y, temperature=t, reduction="none")
            grad = xent.cross_entropy_grad(given, y, temperature=t, reduction="none")
            lse = xent.logsumexp(given)
            for i in range(4):
                row = [mpmath.mpf(float(v)) / mpmath.mpf(t) for v in x[i]]
                top = max(row)
                e = [mpmath.exp(v - top) for v in row]
                total = sum(e)
                if not transformed:
                    worst.see("logsumexp", lse[i], top + mpmath.log(total), max(abs(lse[i]), abs(top)))
                for c in range(classes):
                    others = sum(e[:c] + e[c + 1 :])
                    worst.see("probability", p[i, c], e[c] / total)
                    worst.see("log_probability", log_p[i, c], -mpmath.log1p(others / e[c]))
                    gradient = e[c] / total if c != y[i] else -others / total
                    worst.see("gradient", grad[i, c], gradient / mpmath.mpf(t))
                    if c == y[i]:
                        worst.see("loss", loss[i], mpmath.log1p(others / e[c]))
    return worst.ulp


@pytest.mark.parametrize("axis", [1, 0], ids=["rows", "columns"])
@pytest.mark.parametrize("batches", [16, pytest.param(4000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("transformed", [False, True], ids=["logits", "temperatures"])
def test_worst_errors(dtype, axis, transformed, batches, rng):
    """A temperature costs no accuracy: quotients are not rounded before their exponentials are taken."""
    for name, error in search(dtype, axis, rng, batches, transformed).items():
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


# Many classes -----------------------------------------------------------------------------------------------

# where a kernel may go from registers to blocks, and from one pass to several
SIDES = [2, 63, 64, 65, 4095, 4096, 4097]


def both_layouts(x):
    """Yield (x, axis): classes on contiguous rows, and the same numbers as columns."""
    yield x, -1
    yield np.ascontiguousarray(x.T), 0


def logsumexp_of_row(row):
    """log(sum(exp(row))) as mpmath's number, from float64 exponentials.

    mpmath would take seconds for a million of them. The differences to the maximum are used with what
    rounding takes from them (Knuth's two-sum), and fsum rounds once: what is left is the rounding of each
    exponential, a relative 2^-53 or so at random, which averages out over the classes and is an absolute
    error of the logarithm. Even if it did not, it would be an eighth of an ulp where the result is 8 or more.
    """
    row = row.astype(np.float64)
    top = row.max()
    u = row - top
    back = u - row
    lost = (row - (u - back)) - (top + back)
    e = np.exp(u)
    with mpmath.workprec(160):
        return mpmath.mpf(float(top)) + mpmath.log(mpmath.mpf(math.fsum(e + e * lost)))


def assert_logsumexp(x):
    with mpmath.workprec(160):
        expected = exact([logsumexp_of_row(row) for row in x], (len(x),))
    scale = np.maximum(np.abs(expected[0]), np.abs(x.max(-1)))
    for values, axis in both_layouts(x):
        result = xent.logsumexp(values, axis)
        limit = bound("logsumexp", x.dtype)
        assert_ulp(result, expected, limit, dtype=x.dtype, scale=scale, what=f"axis {axis}")


@pytest.mark.parametrize("scale, offset", [(1, 0), (10, 0), (0.1, -20), (3, 1e4)])
@pytest.mark.parametrize("classes", [1000, 4095, 4096, 4097, 70_000])
def test_logsumexp_of_many_classes(classes, scale, offset, dtype, rng):
    assert_logsumexp((scale * rng.standard_normal((3, classes)) + offset).astype(dtype))


@pytest.mark.parametrize("seed", [0, 1])
def test_logsumexp_of_a_million_classes(seed, dtype):
    rng = np.random.default_rng(seed)
    assert_logsumexp((rng.standard_normal((1, 1_000_000)) * (1 + 2 * seed)).astype(dtype))


def test_logsumexp_of_a_million_equal_or_rising_classes(dtype):
    # all errors of one sign, and a maximum that grows with every class
    with mpmath.workprec(160):
        expected = exact([mpmath.log(1_000_000)], (1,))
    x = np.zeros((1, 1_000_000), dtype)
    assert_ulp(xent.logsumexp(x), expected, bound("logsumexp", dtype), dtype=dtype)
    assert_logsumexp(np.sort(np.random.default_rng(2).standard_normal((1, 1_000_000)).astype(dtype)))


def test_the_oracle_of_many_classes_agrees_with_mpmath(rng):
    for spread in [1, 10]:
        row = spread * rng.standard_normal(3000)
        with mpmath.workprec(160):
            expected = mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(float(v))) for v in row))
            error = float(abs(logsumexp_of_row(row) - expected))
        assert error < 0.1 * ulp(float(expected), np.float64)


# Tiny probabilities and confident predictions ---------------------------------------------------------------


@pytest.mark.parametrize("classes", SIDES)
def test_tiny_probabilities(classes, dtype):
    """From 1e-20 down to 1e-45, the smallest number of float32, next to one that is almost 1."""
    rng = np.random.default_rng(classes)
    x = rng.uniform(np.log(1e-45), np.log(1e-20), (1, classes)).astype(dtype)
    x[0, rng.choice([0, classes // 2, -1])] = 0
    p = exact_softmax(x)
    assert p[0].min() < 1e-40 or classes == 2
    for values, axis in both_layouts(x):
        result = np.moveaxis(xent.softmax(values, axis), axis, -1)
        assert_ulp(result, p, bound("probability", dtype), dtype=dtype, what=f"axis {axis}")


@pytest.mark.parametrize("positions", [1, 17])
def test_a_probability_of_1e_30(positions, dtype):
    for classes in SIDES:
        x = np.full((positions, classes), -np.inf, dtype)
        x[:, 0], x[:, -1] = 0, np.log(1e-30)
        with mpmath.workprec(160):
            e = mpmath.exp(mpmath.mpf(float(x[0, -1])))
            expected = exact([e / (1 + e)] * positions, (positions,))
        for values, axis in both_layouts(x):
            result = np.moveaxis(xent.softmax(values, axis), axis, -1)[:, -1]
            assert_ulp(result, expected, bound("probability", dtype), dtype=dtype, what=f"axis {axis}")


def confident_rows(classes, margin, others, dtype):
    """17 rows with one logit at margin, in the first class or the last, one at 0 and the rest at others.

    Returns them with their labels, the confident class, and R, the sum of the other exponentials relative to
    its own.
    """
    x = np.full((17, classes), others, dtype)
    labels = np.where(np.arange(17) % 2, classes - 1, 0)
    rows = np.arange(17)
    x[rows, labels], x[rows, classes - 1 - labels] = margin, 0
    rest = mpmath.exp(-mpmath.mpf(margin)) * (1 + (classes - 2) * mpmath.exp(mpmath.mpf(others)))
    return x, labels, rest


MARGINS = [20, 30, 80, 100, 700]


@pytest.mark.parametrize("others", [0, -np.inf], ids=["among equals", "among impossible"])
@pytest.mark.parametrize("classes", SIDES)
def test_confident_predictions(classes, others, dtype):
    """The loss is log1p(R), its gradient at the label -R / (1 + R): no difference of larger numbers."""
    for margin in MARGINS if dtype == np.float64 else MARGINS[:-1]:  # exp(-700) is 0 in float32
        assert_confident(margin, classes, others, dtype)


def assert_confident(margin, classes, others, dtype):
    with mpmath.workprec(160):
        x, labels, rest = confident_rows(classes, margin, others, dtype)
        loss = exact([mpmath.log1p(rest)] * 17, (17,))
        at_label = exact([-rest / (1 + rest)] * 17, (17,))
        at_second = exact([mpmath.exp(-margin) / (1 + rest)] * 17, (17,))
    for values, axis in both_layouts(x):
        options = {"axis": axis, "reduction": "none"}
        both = xent.cross_entropy_value_and_grad(values, labels, **options)
        for result in [xent.cross_entropy(values, labels, **options), both[0]]:
            assert_ulp(result, loss, bound("loss", dtype), dtype=dtype, what=f"loss, axis {axis}")
        for result in [xent.cross_entropy_grad(values, labels, **options), both[1]]:
            result = np.moveaxis(result, axis, -1)
            for at, expected in [(labels, at_label), (classes - 1 - labels, at_second)]:
                picked = result[np.arange(17), at]
                assert_ulp(picked, expected, bound("gradient", dtype), dtype=dtype, what=f"axis {axis}")


def test_confidence_by_20_in_float32():
    logits = np.array([[20, 0]], np.float32)
    expected = np.float64(2.0611536203e-09)  # log1p(exp(-20))
    for reduction in ["sum", "mean"]:
        loss = xent.cross_entropy(logits, [0], reduction=reduction)
        assert_ulp(loss, expected, bound("loss", np.float32), dtype=np.float32)
