"""Losses of elements of numbers and factors from one end of their types to the other, against mpmath.

Weights, upstream gradients and divisors enter before a result is rounded: what leaves the range of a type on
the way does not leave the result. The bounds are those of ordinary numbers. The search that is marked slow
goes on where the cases here end.
"""

import math

import ml_dtypes
import mpmath
import numpy as np
import pytest
from helpers import finfo, wide
from mpmath import mp, mpf

import xent

MEAN_OF_ALL = {"axis": None, "reduction": "mean"}
INF, NAN = np.inf, np.nan

BF16 = ml_dtypes.bfloat16
DTYPES = [np.float64, np.float32, np.float16, BF16]


# ---- what is compared ----


@pytest.fixture(autouse=True)
def digits():
    """A probability of 1 - 1e-300 is not 1."""
    with mp.workdps(340):
        yield


def real(dtype):
    """The type that is computed with."""
    return np.float64 if dtype == np.float64 else np.float32


def spacing(size, dtype):
    """The distance of numbers of a type at a size, which may be beyond all of them."""
    info = finfo(dtype)
    lowest = round(math.log2(float(info.smallest_normal)))
    exponent = mp.frexp(size)[1] - 1 if size else lowest
    return mp.ldexp(1, int(max(exponent, lowest)) - info.nmant)


def assert_near(got, expected, ulps, dtype, what, scales=None):
    """Whether each number is within so many ulp, or infinite where that bound passes the largest one."""
    if real(dtype) != dtype:  # made in float32, and rounded once
        ulps = 0.51 + ulps * 2.0 ** (finfo(dtype).nmant - 23)
    most = float(finfo(dtype).max)
    scales = [0] * len(expected) if scales is None else scales
    for i, (g, e, scale) in enumerate(zip(wide(got).ravel(), expected, scales, strict=True)):
        slack = ulps * spacing(max(abs(e), scale), dtype)
        good = abs(e) + slack >= most and g * e > 0 if np.isinf(g) else abs(mpf(float(g)) - e) <= slack
        assert good, f"{what}[{i}]: got {g!r}, expected {mpmath.nstr(e, 20)} within {mpmath.nstr(slack, 3)}"


# ---- losses of an element: loss, gradient, the size of the terms of the loss ----


def squared_error(x, t):
    return (x - t) ** 2, 2 * (x - t), 0


def cross_entropy(p, t):
    return (-t * mp.log(p), -t / p, 0) if t else (mpf(0), mpf(0), 0)


def divergence(x, t):
    return (t * (mp.log(t) - x), -t, t * (abs(mp.log(t)) + abs(x))) if t else (mpf(0), mpf(0), 0)


def divergence_of_logs(x, log_t):
    t = mp.exp(log_t)
    return t * (log_t - x), -t, t * (abs(log_t) + abs(x))


def binary(p, t):
    q = 1 - p
    loss = (-t * mp.log(p) if t else 0) + (-(1 - t) * mp.log(q) if t != 1 else 0)
    return mpf(loss), -1 / p if t == 1 else 1 / q if t == 0 else (p - t) / (p * q), 0


def sigmoid(z, t, c=1, alpha=None, gamma=0, smoothing=0):
    """Loss, gradient, the size of its terms, the second derivative, Gauss-Newton's, and the size of all."""
    t, s = (1 - smoothing) * t + smoothing / 2, (1 - smoothing) * (1 - t) + smoothing / 2
    e = mp.exp(-abs(z))
    larger, smaller = 1 / (1 + e), e / (1 + e)
    p, r = (larger, smaller) if z >= 0 else (smaller, larger)
    b = c * t * (max(-z, 0) + mp.log1p(e)) + s * (max(z, 0) + mp.log1p(e))
    u = t * r + s * p
    q, lean, slope = p * r / u, s - t, s * p - c * t * r
    power = u**gamma * (1 if alpha is None else alpha * t + (1 - alpha) * s)
    pull = gamma * q * lean * b
    bends = [
        (c * t + s) * p * r,
        pull * (gamma - 1) * lean * q,
        2 * gamma * q * lean * slope,
        pull * r,
        -pull * p,
    ]
    size = power * (s * p + c * t * r + abs(pull))
    size_of_bends = power * (sum(map(abs, bends)) + abs(2 * gamma * q * lean) * (s * p + c * t * r))
    return (
        power * b,
        power * (slope + pull),
        size,
        power * sum(bends),
        power * (bends[0] + gamma * (q * lean) ** 2 * b),
        size_of_bends,
    )


# ---- inputs ----


def sizes(rng, n, low, high):
    """Numbers of any size between two powers of two."""
    return np.exp2(rng.uniform(low, high, n))


def signed(rng, numbers):
    return np.where(rng.random(len(numbers)) < 0.5, numbers, -numbers)


def any_numbers(rng, n, dtype):
    """Some of them 0."""
    info = finfo(dtype)
    low, high = (math.log2(float(v)) for v in (info.smallest_subnormal, info.max))
    return (signed(rng, sizes(rng, n, low, high)) * (rng.random(n) > 0.05)).astype(dtype)


def any_probs(rng, n, dtype, hard=0.3):
    """Next to 0, next to 1, and both."""
    low = math.log2(float(finfo(dtype).smallest_subnormal))
    p = np.where(rng.random(n) < 0.5, sizes(rng, n, low, 0), 1 - sizes(rng, n, -finfo(dtype).nmant, 0))
    return np.where(rng.random(n) < hard, rng.integers(0, 2, n), p).astype(dtype)


def any_factors(rng, n, odd=0.5):
    """From 1e-300 to 1e300, some of them ordinary, of both signs, some 0."""
    w = np.where(rng.random(n) < odd, sizes(rng, n, -996, 996), sizes(rng, n, -2, 2))
    return signed(rng, w) * (rng.random(n) > 0.1)


def exactly(numbers):
    return [mpf(float(v)) for v in numbers]


def check(name, args, made, dtype, rng, weight=None, **options):
    """A loss of elements, each a position: one by one, summed up and as a mean, with any upstream gradient.

    `made` are (loss, gradient, size of the terms of the loss). 4 ulp, and one for each factor.
    """
    n, ulps = len(args[0]), 4
    if weight is not None:
        options["weight"], ulps = weight, 6
        made = [
            [mpf(w) * m if w else mpf(0) for m in of] for w, of in zip(exactly(weight), made, strict=True)
        ]
    losses, grads, scales = zip(*made, strict=True)
    scales = [abs(s) for s in scales]
    what = f"{name} {[a.ravel() for a in args]} {options} "
    with np.errstate(all="raise"):
        each = getattr(xent, name)(*args, reduction="none", **options)
        assert_near(each, losses, ulps, real(dtype), what + "losses", scales)
        upstream = any_factors(rng, n).reshape(each.shape)
        for scale, reduction, divisor in [(upstream, "none", 1), (None, "sum", 1), (None, "mean", n)] + [
            (float(any_factors(rng, 1)[0]), reduction, divisor)
            for reduction, divisor in [("sum", 1), ("mean", n)]
        ]:
            got = getattr(xent, f"{name}_grad")(*args, reduction=reduction, grad_output=scale, **options)
            factors = exactly(np.broadcast_to(1.0 if scale is None else scale, each.shape).ravel())
            expected = [f * g / divisor for f, g in zip(factors, grads, strict=True)]
            assert_near(got, expected, ulps + 2, dtype, what + f"gradient {reduction} {scale}")
        for reduction, divisor in [("sum", 1), ("mean", n)]:
            got = getattr(xent, name)(*args, reduction=reduction, **options)
            scale = mp.fsum(map(abs, [*losses, *scales])) / divisor
            assert_near([got], [mp.fsum(losses) / divisor], ulps + 2, real(dtype), what + reduction, [scale])


def search_pairs(seed, dtype, n=8):
    """One draw of every loss of two numbers."""
    rng = np.random.default_rng(seed)
    x, y = any_numbers(rng, n, dtype), any_numbers(rng, n, dtype)
    check(
        "mse_loss",
        (x, y),
        [squared_error(*row) for row in zip(exactly(x), exactly(y), strict=True)],
        dtype,
        rng,
    )
    p, t = any_probs(rng, n, dtype, hard=0), any_probs(rng, n, dtype)
    p = np.where((p == 0) | (p == 1), 0.5, wide(p)).astype(dtype)  # no infinite losses
    log_p, log_t = -np.abs(any_numbers(rng, n, dtype)), -np.abs(any_numbers(rng, n, dtype))
    for base in (None, 2, 1.25):
        unit = 1 if base is None else mp.log(base)

        def made(point, *args, unit=unit):
            return [[v / unit for v in point(*row)] for row in zip(*map(exactly, args), strict=True)]

        rows = made(binary, p, t)
        check("binary_cross_entropy", (p, t), rows, dtype, rng, base=base)
        for odd in (0, 0.5):
            weight = any_factors(rng, n, odd)
            weight = weight if odd else weight.astype(real(dtype))
            check("binary_cross_entropy", (p, t), rows, dtype, rng, weight, base=base)
        cases = [("cross_entropy_probs", (p, t), cross_entropy, {}), ("kl_div", (log_p, t), divergence, {})]
        cases += [("kl_div", (log_p, log_t), divergence_of_logs, {"log_target": True})]
        for name, args, point, options in cases:
            rows = made(point, *args)
            columns = tuple(a[:, None] for a in args)
            check(name, columns, rows, dtype, rng, base=base, **options)
            if name == "kl_div":
                check(name, args, rows, dtype, rng, base=base, axis=None, **options)


def search_sigmoid(seed, dtype, n=8):
    """One draw of the sigmoid cross-entropy with its options."""
    rng = np.random.default_rng(seed)
    z = np.where(
        rng.random(n) < 0.5, any_numbers(rng, n, dtype), signed(rng, rng.uniform(0, 1200, n))
    ).astype(dtype)
    t = any_probs(rng, n, real(dtype))
    odd = rng.choice([0, 0.5])
    weight, positive = any_factors(rng, n, odd), np.abs(any_factors(rng, n, odd))
    if not odd:
        weight, positive = weight.astype(real(dtype)), positive.astype(real(dtype))
    options = {
        "gamma": float(rng.choice([0, 0.5, 1, 2, 5.25])),
        "label_smoothing": float(rng.choice([0, 0.1])),
    }
    options["alpha"] = [None, 0.25, 1e-30][rng.integers(3)]
    terms = mpf(options["gamma"]), mpf(options["label_smoothing"])
    alpha = None if options["alpha"] is None else mpf(options["alpha"])
    made = [
        [
            m if w == 0 and k == 99 else mpf(w) * m if w else mpf(0)
            for k, m in enumerate(sigmoid(*row, alpha, *terms))
        ]
        for w, row in zip(exactly(weight), zip(*map(exactly, (z, t, positive)), strict=True), strict=True)
    ]
    losses, grads, size, hess, part, size_of_hess = zip(*made, strict=True)
    ulps = 6 + 1 + 3 * options["gamma"]
    options |= {"weight": weight, "pos_weight": positive}
    what = f"{z} {t} {options} "
    with np.errstate(all="raise"):
        got = xent.sigmoid_cross_entropy(z, t, reduction="none", **options)
        assert_near(got, losses, ulps, real(dtype), what + "losses")
        upstream = any_factors(rng, n)
        got = xent.sigmoid_cross_entropy_grad(z, t, reduction="none", grad_output=upstream, **options)
        u = exactly(upstream)
        expected, scale = ([a * b for a, b in zip(of, u, strict=True)] for of in (grads, size))
        assert_near(got, expected, ulps + 2, dtype, what + f"gradient {upstream}", list(map(abs, scale)))
        factor = float(any_factors(rng, 1)[0])
        got = xent.sigmoid_cross_entropy_grad(z, t, grad_output=factor, **options)
        expected, scale = ([a * mpf(factor) / n for a in of] for of in (grads, size))
        assert_near(
            got, expected, ulps + 2, dtype, what + f"gradient of the mean {factor}", list(map(abs, scale))
        )
        got = xent.sigmoid_cross_entropy(z, t, **options)
        size_of_loss = mp.fsum(map(abs, losses)) / n
        assert_near([got], [mp.fsum(losses) / n], ulps + 2, real(dtype), what + "mean", [size_of_loss])
        for rule, exact in [("diagonal", hess), ("gauss_newton", part), ("absolute", list(map(abs, grads)))]:
            got = xent.sigmoid_cross_entropy_grad_hess(z, t, hessian=rule, reduction="sum", **options)[1]
            scale = size if rule == "absolute" else size_of_hess if rule == "diagonal" else part
            assert_near(got, exact, ulps + 9, dtype, what + rule, list(map(abs, scale)))


# ---- what was found once ----


def f32(*numbers):
    return np.array(numbers, np.float32)


@pytest.mark.parametrize(
    ("name", "args", "options", "expected"),
    [
        ("sigmoid_cross_entropy", (f32(104), [1]), {"weight": 1e20}, np.exp(-104.0) * 1e20),
        ("sigmoid_cross_entropy_grad", (f32(104), [1]), {"grad_output": 1e20}, -np.exp(-104.0) * 1e20),
        ("sigmoid_cross_entropy", (f32(*[100] * 8), [1] * 8), {"reduction": "sum"}, 8 * np.exp(-100.0)),
        (
            "sigmoid_cross_entropy",
            (np.array([800.0]), [1]),
            {"weight": 1e300},
            float(mp.exp(-800) * mpf(1e300)),
        ),
        ("sigmoid_cross_entropy", (f32(3e38), [0]), {"weight": 1e-300}, 3e38 * 1e-300),
        ("binary_cross_entropy_grad", (f32(1e-39), [1.0]), {"weight": 1e-3}, -1e-3 / float(f32(1e-39)[0])),
        (
            "binary_cross_entropy_grad",
            (f32(1e-39), [1.0]),
            {"grad_output": 1e-3},
            -1e-3 / float(f32(1e-39)[0]),
        ),
        ("binary_cross_entropy_grad", (f32(1e-39), [1.0]), {"base": 1e300}, -1e39 / np.log(1e300)),
        (
            "cross_entropy_probs_grad",
            (f32(1e-39), f32(1)),
            {"grad_output": 1e-3},
            -1e-3 / float(f32(1e-39)[0]),
        ),
        ("cross_entropy_probs_grad", (f32(1e-20), f32(1e-38)), {"grad_output": 1e-12}, -1e-30),
        (
            "kl_div_grad",
            (f32(-1), f32(-100)),
            {"log_target": True, "grad_output": 1e20},
            -np.exp(-100.0) * 1e20,
        ),
        ("mse_loss_grad", (f32(1), f32(1)), {"grad_output": 1e39}, 0),
        ("mse_loss_grad", (f32(3e38), f32(-3e38)), {"grad_output": 1e-3}, 1.2e36),
        ("mse_loss", (f32(*[0] * 9, 2.4e19), f32(*[0] * 10)), {"reduction": "mean"}, 5.76e37),
        ("mse_loss", (np.full(10, 1e154), np.zeros(10)), {"reduction": "mean"}, 1e308),
        ("mse_loss_grad", (np.array([1.7e308]), np.array([-1.7e308])), {"grad_output": 1e-300}, 6.8e8),
        ("kl_div", (np.array([0.0] * 99 + [-1.7e308]), np.array([0.0] * 99 + [50])), MEAN_OF_ALL, 8.5e307),
        ("kl_div", (np.full(10, -1e308), np.ones(10)), MEAN_OF_ALL, 1e308),
        (
            "kl_div",
            (np.full(100, -1e6), np.array([-1e300] * 99 + [700.0])),
            MEAN_OF_ALL | {"log_target": True},
            np.exp(700.0) / 100 * (1e6 + 700),
        ),
        ("nll_loss", (np.full((10, 1), -1e308), np.zeros(10, int)), {"reduction": "mean"}, 1e308),
        (
            "nll_loss",
            (np.full((10, 2), -1e300), np.arange(10) % 2),
            {"reduction": "mean", "weight": [1e200, 1e-200]},
            1e300,
        ),
        (
            "nll_loss",
            (np.full((9, 1), -1e308), np.zeros(9, int)),
            {"reduction": "sum", "weight": [0.1]},
            9e307,
        ),
        (
            "nll_loss",
            (np.full((3, 1), -1.7e308), np.zeros(3, int)),
            {"reduction": "sum", "weight": [1e-142]},
            5.1e166,
        ),
        (
            "nll_loss",
            (np.array([[-2.0, 0]]), [0]),
            {"reduction": "none", "weight": [1e-140, 1.5e241]},
            2e-140,
        ),
        ("nll_loss_grad", (np.array([[-2.0]]), [0]), {"reduction": "sum", "weight": [1e-300]}, -1e-300),
        (
            "nll_loss_grad",
            (f32(-1), 0),
            {"grad_output": 1e-30, "weight": [1e-30], "reduction": "sum"},
            -1e-60,
        ),
        (
            "nll_loss_grad",
            (np.array([-1.0]), 0),
            {"grad_output": 1e-200, "weight": [1e-200], "reduction": "sum"},
            -0.0,
        ),
    ],
)
@pytest.mark.parametrize("reduction", ["sum", "mean", "mean_full"])
def test_factors_before_rounding(name, args, options, expected, reduction):
    with np.errstate(all="raise"):
        got = getattr(xent, name)(*args, **{"reduction": reduction} | options)
    np.testing.assert_allclose(np.ravel(got)[-1], args[0].dtype.type(expected), rtol=2e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_warning_leaks(dtype):
    """Neither of infinite losses nor of 0 times infinity."""
    edges = np.array([[INF, 0], [-INF, 0], [0, INF], [NAN, 1], [1, 0], [-0.0, 1e-30]]).astype(dtype)
    labels, hard = np.array([0, 0, 1, 0, 1, 1]), np.array([[0, 1]] * 6)
    calls = [
        ("nll_loss", (edges, labels), {"weight": np.array([1.0, 0.0])}),
        ("cross_entropy_probs", (np.abs(edges), labels), {}),
        ("cross_entropy_probs", (np.abs(edges), np.abs(edges)), {"clip": 1e-3}),
        ("kl_div", (edges, np.abs(edges)), {}),
        ("kl_div", (edges, edges), {"log_target": True, "axis": None}),
        ("binary_cross_entropy", (np.clip(np.abs(edges), 0, 1), hard), {"weight": -1.0}),
        ("mse_loss", (edges, edges[::-1]), {}),
        ("sigmoid_cross_entropy", (edges, hard), {"gamma": 2.0, "weight": 1e300}),
    ]
    for name, args, options in calls:
        for reduction in ("none", "sum", "mean"):
            for part in ("", "_grad", "_value_and_grad"):
                with np.errstate(all="raise"):
                    getattr(xent, name + part)(*args, reduction=reduction, **options)
    with np.errstate(all="raise"):
        for function in (xent.sigmoid, xent.log_sigmoid):
            function(edges)
        xent.entropy(np.abs(edges))
        xent.sigmoid_backward(edges, xent.sigmoid(edges))
        xent.log_sigmoid_backward(edges, xent.log_sigmoid(edges))
        xent.sigmoid_cross_entropy_grad_hess(edges, hard, gamma=1.5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(2))
def test_losses_of_two_numbers(seed, dtype):
    search_pairs(seed, dtype, 5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(3))
def test_sigmoid_cross_entropy(seed, dtype):
    search_sigmoid(seed, dtype, 6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(100, 160))
def test_search(seed, dtype):
    search_pairs(seed, dtype)
    for k in range(5):
        search_sigmoid((seed, k), dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["f8", "f4"])
@pytest.mark.parametrize("alpha", [1e-40, 1e-310, 5e-324])
@pytest.mark.parametrize("gamma", [0.0, 2.0, 1.5])
def test_a_tiny_alpha_writes_nothing_behind_the_results(gamma, alpha, dtype):
    """Every logit is odd then, and none is behind the last."""
    rng = np.random.default_rng(0)
    for n in [*range(1, 35), 512, 523, 1037]:
        logits, target = rng.standard_normal(n).astype(dtype), rng.integers(0, 2, n)
        options = {"alpha": alpha, "gamma": gamma, "reduction": "sum"}
        room = np.full((2, n + 40), 7.0, dtype)
        grad, hess = room[0, :n], room[1, :n]
        xent.sigmoid_cross_entropy_grad_hess(logits, target, out=(grad, hess), **options)
        assert (room[:, n:] == 7).all(), n
        expected = xent.reference.sigmoid_cross_entropy_grad(wide(logits), target, **options).astype(dtype)
        np.testing.assert_allclose(grad, expected, 1e-5, np.finfo(dtype).smallest_subnormal)
        xent.sigmoid_cross_entropy_grad(logits, target, out=grad, **options)
        assert (room[0, n:] == 7).all(), n
        np.testing.assert_allclose(grad, expected, 1e-5, np.finfo(dtype).smallest_subnormal)
