"""Softmax losses of extreme logits, weights, temperatures and upstream gradients, against mpmath.

What leaves the range of a dtype on the way, and not in the result, must not show: weights, upstream
gradients, temperatures and divisors enter before a result is rounded, once. The oracle is the formula in
numbers of many digits, whose exponents have no bounds. A random search over the whole range is slow; what was
wrong once, and the worst that it found, stands in `KNOWN`.
"""

import itertools

import ml_dtypes
import numpy as np
import pytest
from helpers import finfo, wide
from mpmath import mp, mpf

import xent

DTYPES = [np.dtype("f8"), np.dtype("f4"), np.dtype("f2"), np.dtype(ml_dtypes.bfloat16)]
FAR = -(10**8)  # e^FAR is 0 beside any product of a dozen doubles
DIGITS = 340  # of 1e308 + 1e-17; twice that of a divergence, of which squares are left
# Ulp of the magnitude: those of tolerances.py, and the roundings of a dozen factors.
LIMIT = 12


def exact(x):
    return mpf(float(x))


class Row:
    """A position: its terms as (value, sum of magnitudes) of loss, gradient, diagonal of the Hessian, H v."""

    def __init__(self, x, t, y, options, vector):
        self.classes, self.t, self.y = range(len(x)), t, y
        self.z_loss, self.gamma = (exact(options.get(name, 0.0)) for name in ("z_loss", "gamma"))
        self.transform(
            x, exact(options.get("temperature", 1.0)), options.get("logit_cap"), options.get("prior")
        )
        s, w = exact(options.get("label_smoothing", 0.0)), options.get("weight", np.ones(len(x)))
        self.a = [exact(w[c]) * ((1 - s) * t[c] + s / len(x)) for c in self.classes]
        self.softmax()
        self.first_order()
        self.diagonal = [self.second_derivative(c) for c in self.classes]
        self.product = None if vector is None else self.second_order([exact(v) for v in vector])

    def transform(self, x, temperature, cap, prior):
        self.u, self.du, self.d2u, self.blur = [], [], [], mpf(1)
        for c in self.classes:
            v, slope, bend = exact(x[c]) / temperature, 1 / temperature, mpf(0)
            if cap is not None:
                k = exact(cap)
                flat = abs(v / k) > -FAR
                tanh = mp.sign(v) if flat else mp.tanh(v / k)
                slope = mpf(0) if flat else mp.sech(v / k) ** 2 / temperature
                self.blur = max(self.blur, 1 + 5 * min(abs(v), k), 1 + 2 * min(abs(v / k), 2000))
                v, bend = k * tanh, -2 * tanh / k / temperature * slope
            if prior is not None:
                log = mp.log(exact(prior[c]))
                self.blur = max(self.blur, 1 + 2 * (abs(log) + (min(abs(v), 2000))))
                v += log
            self.u.append(v), self.du.append(slope), self.d2u.append(bend)

    def softmax(self):
        most = max(self.u)
        e = [mp.exp(v - most) if v - most > FAR else mpf(0) for v in self.u]
        total, top = mp.fsum(e), self.u.index(most)
        self.p = [v / total for v in e]
        self.q = [mp.fsum(self.p[:c] + self.p[c + 1 :]) for c in self.classes]
        self.lse = most + mp.log(total)
        self.nll = [self.lse - v for v in self.u]
        self.nll[top] = mp.log1p(mp.fsum(e[:top] + e[top + 1 :]))

    def first_order(self):
        terms = [self.a[c] * self.nll[c] if self.a[c] else mpf(0) for c in self.classes]
        power = self.factor = mpf(1)
        self.bend = mpf(0)
        if self.gamma:
            p, q, loss = self.p[self.y], self.q[self.y], self.nll[self.y]
            ratio = p * loss / q if q else mpf(1)
            power = q**self.gamma
            self.factor = power * (1 + self.gamma * ratio)
            if q:
                self.bend = self.gamma * q ** (self.gamma - 1) * (loss - 2 - (self.gamma - 1) * ratio) * p
        z = self.z_loss * self.lse**2
        self.loss = power * mp.fsum(terms) + z, power * mp.fsum(map(abs, terms)) + z
        self.g, self.grad = [], []
        for c in self.classes:
            others = mp.fsum(self.a[:c] + self.a[c + 1 :])
            pull = 2 * self.z_loss * self.lse * self.p[c]
            self.g.append(self.factor * (self.p[c] * others - self.a[c] * self.q[c]) + pull)
            size = self.p[c] * mp.fsum(map(abs, self.a)) + abs(self.a[c]) * (
                self.q[c] if len(set(self.t)) < 3 else 1
            )
            self.grad.append((self.g[c] * self.du[c], (self.factor * size + abs(pull)) * self.du[c]))

    def second_derivative(self, c):
        mass, size, z = mp.fsum(self.a), mp.fsum(map(abs, self.a)), 2 * self.z_loss
        p, q, du = self.p[c], self.q[c], self.du[c]
        own = mass * self.bend * (q if c == self.y else p) ** 2
        h = self.factor * mass * p * q + z * (p**2 + self.lse * p * q) - own
        size = self.factor * size * p * q + z * (p**2 + abs(self.lse) * p * q) + (2 + self.gamma) * abs(own)
        bent = self.g[c] * self.d2u[c]
        return h * du**2 + bent, size * du**2 + abs(bent)

    def second_order(self, vector):
        v = [vector[c] * self.du[c] for c in self.classes]
        mass, z, p = mp.fsum(self.a), 2 * self.z_loss, self.p
        mean = mp.fsum(p[c] * v[c] for c in self.classes)
        spread = mp.fsum(p[c] * abs(v[c]) for c in self.classes)
        apart = [mp.fsum(p[k] * (v[c] - v[k]) for k in self.classes) for c in self.classes]
        product = []
        for c in self.classes:
            h = self.factor * mass * p[c] * apart[c] + z * (mean * p[c] + self.lse * p[c] * apart[c])
            size = (self.factor * abs(mass) + z * (1 + abs(self.lse))) * p[c] * (abs(v[c]) + spread)
            if self.gamma:
                h += mass * self.bend * apart[self.y] * (p[c] if c != self.y else -self.q[c])
                near = (abs(v[self.y]) + spread) * (p[c] if c != self.y else self.q[c])
                size += abs(mass * self.bend) * near * (2 + self.gamma)
            bent = self.g[c] * self.d2u[c] * vector[c]
            product.append((self.du[c] * h + bent, self.du[c] * size + abs(bent)))
        return product


def oracle(x, target, options, grad_output=None, vector=None):
    """(value, magnitude) of loss, gradient, second derivatives and product of logits (N, C); the blur."""
    x, n, labels = wide(x), len(x), np.ndim(target) == 1
    sample, weight = options.get("sample_weight", np.ones(n)), options.get("weight", np.ones(x.shape[1]))
    reduction = options.get("reduction", "mean")
    with mp.workdps(DIGITS):
        rows = []
        for i in range(n):
            t = (
                [mpf(int(c == target[i])) for c in range(x.shape[1])]
                if labels
                else [exact(v) for v in wide(target)[i]]
            )
            v = None if vector is None else wide(vector)[i]
            rows.append(Row(x[i], t, int(target[i]) if labels else None, options, v))
        shares = [exact(sample[i]) * (exact(weight[target[i]]) if labels else 1) for i in range(n)]
        divisor = mp.fsum(shares) if reduction == "mean" else mpf(1 if reduction in ("none", "sum") else n)
        scale = [exact(sample[i]) / divisor for i in range(n)]
        up = [
            exact(1.0 if grad_output is None else np.ravel(grad_output)[i % np.size(grad_output)])
            for i in range(n)
        ]
        loss = [(row.loss[0] * s, row.loss[1] * abs(s)) for row, s in zip(rows, scale, strict=True)]
        if reduction != "none":
            loss = [(mp.fsum(v for v, _ in loss), mp.fsum(m for _, m in loss))]

        def times(pairs, s):
            return [(v * s, m * abs(s)) for v, m in pairs]

        grad = [pair for row, s, k in zip(rows, scale, up, strict=True) for pair in times(row.grad, s * k)]
        hess = [pair for row, s in zip(rows, scale, strict=True) for pair in times(row.diagonal, s)]
        product = (
            [p for row, s in zip(rows, scale, strict=True) for p in times(row.product, s)]
            if vector is not None
            else []
        )
        return loss, grad, hess, product, max(row.blur for row in rows)


def off(result, expected, dtype, blur=1):
    """How many ulp of its magnitude a result is off at most; what overflows may be infinite."""
    limits, worst = finfo(dtype), 0.0
    eps, most = exact(limits.eps), exact(limits.max)
    least = exact(limits.tiny)
    blur = 1 + (blur - 1) * exact(2.0**-52) / eps
    flat = np.ravel(wide(result))
    assert len(flat) == len(expected)
    for got, (right, size) in zip(flat, expected, strict=True):
        slack = 8 * blur * eps * size
        if not np.isfinite(got):
            assert not np.isnan(got), f"NaN where {mp.nstr(right)} is right"
            assert (right + slack if got > 0 else slack - right) > most, (
                f"{got} where {mp.nstr(right)} is right"
            )
            continue
        ulp = max(mp.ldexp(1, int(mp.floor(mp.log(max(size, least), 2)))) * eps * blur, least * eps)
        worst = max(worst, float(abs(exact(got) - right) / ulp))
    return worst


def check(x, target, options, grad_output=None, vector=None, limit=LIMIT):
    """All functions of the family on one call."""
    dtype, reduction = x.dtype, options.get("reduction", "mean")
    single = np.dtype("f8" if dtype == np.float64 else "f4")
    loss, grad, hess, product, blur = oracle(x, target, options, grad_output, vector)
    with np.errstate(all="raise"):
        value, both = xent.cross_entropy_value_and_grad(x, target, **options)
        found = {
            "value": (xent.cross_entropy(x, target, **options), loss, single),
            "value of both": (value, loss, single),
        }
        result = xent.cross_entropy_grad(x, target, grad_output=grad_output, **options)
        found["gradient"] = result, grad, dtype
        if grad_output is None:
            found["gradient of both"] = both, grad, dtype
        if grad_output is None:
            pair = xent.cross_entropy_grad_hess(x, target, **options)
            found["gradient of three"], found["hessian"] = (pair[0], grad, dtype), (pair[1], hess, dtype)
        if vector is not None and reduction != "none":
            found["product"] = xent.cross_entropy_hvp(x, target, vector, **options), product, dtype
    for name, (result, expected, kind) in found.items():
        focal = 1 + float(options.get("gamma", 0.0))
        allowed = limit * focal
        if name in ("product", "hessian"):  # more terms, and the square of a slope
            allowed *= 2
        assert off(result, expected, kind, blur) <= allowed, f"{name} of {dtype} {x.shape}: {result}"
    return found


def number(rng, dtype, low=None, high=None):
    """A number whose exponent is anything."""
    limits = finfo(dtype)
    low = float(np.log2(float(limits.tiny))) if low is None else low
    high = float(np.log2(float(limits.max))) - 1 if high is None else high
    return float(2.0 ** rng.uniform(low, high))


def random_call(rng, dtype):
    """Arguments of `check`."""
    n, classes = int(rng.integers(1, 5)), int(rng.choice([1, 2, 3, 5, 40]))
    scale = rng.choice([1.0, 100.0, float(finfo(dtype).max) / 8, number(rng, dtype)])
    with np.errstate(all="ignore"):
        x = np.clip(
            rng.standard_normal((n, classes)) * scale, float(finfo(dtype).min), float(finfo(dtype).max)
        ).astype(dtype)
    any_size = np.dtype("f8") if rng.random() < 0.5 else np.dtype("f4")
    options = {"reduction": str(rng.choice(["none", "sum", "mean", "mean_valid"]))}
    if rng.random() < 0.5:
        options["temperature"] = (
            number(rng, any_size) if rng.random() < 0.5 else float(rng.choice([0.5, 0.7, 3.0]))
        )
    for name, count in (("weight", classes), ("sample_weight", n)):
        if rng.random() < 0.4:
            options[name] = np.array([number(rng, any_size) for _ in range(count)])
            if rng.random() < 0.3:
                options[name] *= rng.choice([-1, 1], count)
    if rng.random() < 0.2:
        options["z_loss"] = number(rng, any_size)
    if rng.random() < 0.2:
        options["logit_cap"] = number(rng, any_size) if rng.random() < 0.5 else 5.0
    if rng.random() < 0.2:
        options["prior"] = rng.random(classes) + 1e-3
    if rng.random() < 0.4:
        target = (lambda p: p / p.sum(1, keepdims=True))(rng.random((n, classes))).astype(dtype)
    else:
        target = rng.integers(0, classes, n)
        if rng.random() < 0.3 and "weight" not in options:
            options["gamma"] = float(rng.choice([0.5, 1.0, 2.0]))
    if "gamma" not in options and rng.random() < 0.3:
        options["label_smoothing"] = 0.125
    shape = (n,) if options["reduction"] == "none" else ()
    up = (
        None
        if rng.random() < 0.5
        else np.array([number(rng, any_size) for _ in range(n)][: n if shape else 1]).reshape(shape)
    )
    vector = rng.standard_normal((n, classes)).astype(dtype)
    return x, target, options, up, vector


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("seed", range(100))
def test_random_search(dtype, seed):
    rng = np.random.default_rng([seed, dtype.itemsize])
    for _ in range(10):
        check(*random_call(rng, dtype))


# What was wrong once, or might be: (logits, target, options, grad_output).
FEW = np.array([[1.0, 2, 3], [3, 2, 1]])
ONE_LARGE = np.zeros((10, 2))
ONE_LARGE[0] = 3e38, -3e38
KNOWN = {
    "difference before the temperature": ([[3e38, -3e38, 0]], [1], {"temperature": 3e38}, None),
    "a difference, and a small temperature": (
        [[2e38, -3e38, 0]], [1], {"temperature": 1e-3, "sample_weight": [1e-9], "reduction": "sum"}, None,
    ),
    "scaled after it was 0": ([[0.0, -104]], [0], {}, 1e10),
    "scaled after it was subnormal": ([[0.0, -100]], [0], {"reduction": "sum"}, 65536.0),
    "weighed after it was 0": ([[0.0, -104]], [0], {"weight": [1e20, 1], "reduction": "sum"}, None),
    "weighed after it was subnormal": (
        [[0.0, -100], [0, -90]], [0, 0], {"weight": [64.0, 1], "reduction": "none"}, None,
    ),
    "tiny weights": (FEW, [0, 2], {"sample_weight": [1e-310, 1e-310]}, None),
    "large weights": (FEW, [0, 2], {"sample_weight": [1.7e308, 1.7e308]}, None),
    "weights whose products vanish": (
        FEW, [0, 2], {"weight": [1e-300] * 3, "sample_weight": [1e-300, 2e-300]}, None,
    ),
    "weights whose products overflow": (
        FEW, FEW / 6, {"weight": [1e300] * 3, "sample_weight": [1e300, 2e300]}, None,
    ),
    "class weights too large for float32": (
        FEW, [0, 2], {"weight": [1e39] * 3, "label_smoothing": 0.125}, None,
    ),
    "class weights too small for float32": (
        FEW, [0, 2], {"weight": [1e-60] * 3, "label_smoothing": 0.125}, None,
    ),
    "class weights of all sizes": (
        FEW, [0, 2], {"weight": [1e-250, 1, 1e250], "label_smoothing": 0.125}, None,
    ),
    "one loss beyond float32": (ONE_LARGE, [1] + [0] * 9, {}, None),
    "one loss beyond float32, smoothed": (ONE_LARGE, [1] + [0] * 9, {"label_smoothing": 0.5}, None),
    "one loss beyond float32, at a temperature": (ONE_LARGE, [1] + [0] * 9, {"temperature": 1.5}, None),
    "0 times a factor beyond float32": ([[5.0, 0]], [0], {"temperature": 1e-20}, None),
    "a subnormal temperature": (
        [[5e-324, 0.0]], [0], {"temperature": 5e-324, "reduction": "none"}, np.array([1e-320]),
    ),
    "a large temperature": (FEW, [0, 2], {"temperature": 1e300}, 1e300),
    "a large z-loss": (FEW * 1e30, [0, 2], {"z_loss": 1e-60, "reduction": "sum"}, None),
    "negative weights": (FEW, [0, 2], {"weight": [1.0, -2, 3], "sample_weight": [2.0, -1]}, None),
    "a small cap and temperature": (FEW, [0, 2], {"temperature": 1e-300, "logit_cap": 1e-30}, None),
    "a capped loss with weights whose products vanish": (
        FEW, [0, 2],
        {"logit_cap": 5.0, "weight": [1e-300] * 3, "sample_weight": [1e-300, 2e-300]}, None,
    ),
    "a focal loss with weights whose products overflow": (
        FEW, [0, 2], {"gamma": 2.0, "weight": [1e300] * 3, "sample_weight": [1e300, 2e300]}, None,
    ),
    "a z-loss at a small temperature": (
        FEW * 2.0**-100, [0, 2],
        {"z_loss": 0.01, "temperature": 2.0**-540, "sample_weight": [2.0**-1000] * 2, "reduction": "sum"},
        None,
    ),
    "a power whose parts overflow": (
        [[-0.8713, 0], [0.0, 0]], [0, 1], {"gamma": 2100.0, "sample_weight": [1e300] * 2, "reduction": "sum"},
        None,
    ),
    "a focal loss of a certain label": (
        [[100.0, 0]], [0], {"gamma": 0.5, "weight": [1e30, 1], "reduction": "sum"}, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", KNOWN)
def test_known(case, dtype):
    x, target, options, up = KNOWN[case]
    x, target = np.array(x), np.array(target)
    if np.abs(x).max() > float(finfo(dtype).max):
        pytest.skip("no such logits")
    options = {k: np.array(v) if isinstance(v, list) else v for k, v in options.items()}
    target = target.astype(dtype) if target.ndim > 1 else target
    check(x.astype(dtype), target, options, up, np.ones(x.shape, dtype))


@pytest.mark.parametrize("temperature", [1e-160, 1e-300])
@pytest.mark.parametrize(
    "options", [{"gamma": 1.0}, {"gamma": 0.5}, {"z_loss": 1.0}, {"logit_cap": 5.0}], ids=str
)
def test_second_derivatives_at_the_smallest_temperatures(options, temperature, dtype):
    """1 / T^2 is beyond all floats, and what it multiplies is 0."""
    x, labels = np.array([[1, 2, 3], [3, 2, 1]], dtype), np.array([2, 0])
    for rule in ("diagonal", "gauss_newton"):
        grad, hess = xent.cross_entropy_grad_hess(x, labels, hessian=rule, temperature=temperature, **options)
        expected = np.zeros(x.shape)
        if "z_loss" in options:
            expected[[0, 1], [2, 0]] = np.inf
        np.testing.assert_array_equal(hess, expected)


def test_one_loss_beyond_float64():
    x = ONE_LARGE * 5e269
    check(x, np.array([1] + [0] * 9), {}, None)
    check(x, np.array([1] + [0] * 9), {"temperature": 1.5}, None)


def huge_rows(classes, dtype):
    """Ordinary logits, of which some rows have a loss beyond the dtype."""
    x = np.random.default_rng(classes).standard_normal((200, classes))
    x[[3, 4, 150], 0], x[[3, 4, 150], 1] = float(finfo(dtype).max) / 1.25, -float(finfo(dtype).max) / 1.25
    return x.astype(dtype), np.full(200, 1)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.25}, {"label_smoothing": 0.125}], ids=str)
@pytest.mark.parametrize("classes", [3, 40, 300])
@pytest.mark.parametrize("dtype", [np.dtype("f8"), np.dtype("f4"), DTYPES[3]], ids=str)
def test_huge_logits_leave_others_alone(dtype, classes, options):
    """In every layout; others have the same bits; the logits may be overwritten."""
    x, y = huge_rows(classes, dtype)
    others = np.delete(np.arange(200), [3, 4, 150])
    loss, grad = xent.cross_entropy_value_and_grad(x, y, reduction="none", **options)
    few = xent.cross_entropy_value_and_grad(x[others], y[others], reduction="none", **options)
    np.testing.assert_array_equal(loss[others], few[0])
    np.testing.assert_array_equal(grad[others], few[1])
    mean = xent.cross_entropy(x, y, **options)
    assert np.isfinite(mean)
    if "label_smoothing" not in options:
        right = 3 * 1.6 * (float(finfo(dtype).max) / 200) / options.get("temperature", 1.0)
        assert abs(float(mean) / right - 1) < (1e-2 if dtype.itemsize == 2 else 1e-6)
    columns = xent.cross_entropy_value_and_grad(np.asfortranarray(x), y, reduction="none", **options)
    apart = xent.cross_entropy_value_and_grad(np.repeat(x, 2, axis=1)[:, ::2], y, reduction="none", **options)
    close = {"rtol": 1e-2 if dtype.itemsize == 2 else 1e-5, "atol": 1e-6}
    for result, again in zip((loss, wide(grad)), columns, strict=True):
        np.testing.assert_allclose(wide(again), result, **close)
    for result, again in zip((loss, grad), apart, strict=True):
        np.testing.assert_array_equal(again, result)
    over = x.copy()
    assert xent.cross_entropy_value_and_grad(over, y, out=over, **options)[0] == mean
    np.testing.assert_array_equal(over, xent.cross_entropy_grad(x, y, **options))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_softmax_of_differences_beyond_the_dtype(dtype):
    most = float(finfo(dtype).max)
    for n, classes in [(1, 3), (20, 3), (3, 300)]:
        x = np.zeros((n, classes))
        x[:, 0], x[:, 1] = most, -most
        x = x.astype(dtype)
        for temperature in [most, 2.5, 1e-3, 1e300]:
            u = [exact(v) / exact(temperature) for v in wide(x)[0, :3]]
            e = [mp.exp(v - u[0]) if v - u[0] > FAR else mpf(0) for v in u]
            rest = e[1] + (classes - 2) * e[2]
            right = {
                "softmax": [v / (1 + rest) for v in e],
                "log_softmax": [v - u[0] - mp.log1p(rest) for v in u],
            }
            for (name, expected), axis in itertools.product(right.items(), [1, 0]):
                laid = np.ascontiguousarray(np.moveaxis(x, 1, axis))
                result = np.moveaxis(getattr(xent, name)(laid, axis, temperature=temperature), axis, 1)
                assert off(result[0, :3], [(v, abs(v)) for v in expected], dtype) <= 4
                assert (result == result[0]).all() and (result[:, 2:] == result[0, 2]).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-155, 1e-100, 1e-30, 1e-19, 1e19, 1e38, 1e200])
def test_quotients_that_stay_in_the_range(dtype, temperature):
    """Whatever the temperature is: no product on the way may leave the range. Labels and prior included."""
    limits = finfo(dtype)
    least, most = (exact(v) for v in (limits.smallest_subnormal, limits.max))
    t, prior = exact(temperature), np.array([0.5, 0.25, 0.125])
    for size in [mpf(1), mpf(2) ** -60 / t, 5 * t, 1000 * t, most / 8 * t, least * 8]:
        if not 4 * least <= size <= most / 2:
            continue
        x = (np.array([3.0, 0.0, -1.0]) * float(size)).astype(dtype)
        u = [exact(v) / t for v in wide(x)]
        rest = mp.fsum(mp.exp(v - u[0]) if v - u[0] > FAR else mpf(0) for v in u[1:])
        expected = [v - u[0] - mp.log1p(rest) for v in u]
        for n in (1, 20):
            rows = np.tile(x, (n, 1))
            for axis, laid in [(1, rows), (0, np.ascontiguousarray(rows.T))]:
                result = np.moveaxis(xent.log_softmax(laid, axis, temperature=temperature), axis, 1)
                assert off(result[0], [(v, abs(v)) for v in expected], dtype) <= 4, (size, n, axis)
                assert (result == result[0]).all()
        single = np.dtype("f8" if dtype == np.float64 else "f4")
        losses = [xent.cross_entropy(x, y, temperature=temperature) for y in range(3)]
        assert off(losses, [(-v, abs(v)) for v in expected], single) <= 4, size
        tokens = xent.token_log_probs(x, np.arange(3), temperature=temperature)
        assert off(tokens, [(v, abs(v)) for v in expected], single) <= 4, size
        if max(abs(v) for v in expected) < exact(finfo(single).max):
            found = xent.evaluate(x[None], [2], temperature=temperature).loss
            assert off([found], [(-expected[2], abs(expected[2]))], single) <= 4, size
            shifted = [v + mp.log(exact(p)) for v, p in zip(u, prior, strict=True)]
            lse = shifted[0] + mp.log1p(mp.fsum(mp.exp(max(v - shifted[0], mpf(FAR))) for v in shifted[1:]))
            tokens = xent.token_log_probs(x, np.arange(3), temperature=temperature, prior=prior)
            assert off(tokens, [(v - lse, 3 + abs(v - lse)) for v in shifted], single) <= 4, size


# Distillation -----------------------------------------------------------------------------------------------


def distilled(student, teacher, temperature, up, reduction):
    """(value, magnitude) of the loss and of the gradient."""
    n = len(student)
    with mp.workdps(2 * DIGITS):
        t, losses, grad = exact(temperature), [], []
        divisor = mpf(n if reduction == "mean" else 1)
        for i in range(n):
            s, q = (
                Row(wide(x)[i], [mpf(0)] * x.shape[1], None, {"temperature": temperature}, None)
                for x in (student, teacher)
            )
            each = [a * (c - b) for a, b, c in zip(q.p, q.nll, s.nll, strict=True) if a]
            losses.append(t**2 * mp.fsum(each))
            grad += [
                (t * (a - b) * exact(up) / divisor, t * max(a, b) * exact(up) / divisor)
                for a, b in zip(s.p, q.p, strict=True)
            ]
        return [(v, v) for v in ([mp.fsum(losses) / divisor] if reduction != "none" else losses)], grad


def check_distillation(student, teacher, temperature, up, reduction="mean"):
    dtype = student.dtype
    loss, grad = distilled(student, teacher, temperature, up, reduction)
    single = np.dtype("f8" if dtype == np.float64 else "f4")
    options = {"temperature": temperature, "reduction": reduction}
    with np.errstate(all="raise"):
        value, _ = xent.distillation_loss_value_and_grad(student, teacher, **options)
        np.testing.assert_array_equal(xent.distillation_loss(student, teacher, **options), value)
        up = np.full(np.shape(value), up)
        result = xent.distillation_loss_grad(student, teacher, grad_output=up, **options)
    assert off(value, loss, single) <= 24
    assert off(result, grad, dtype) <= 24


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_distillation(dtype):
    student, teacher = np.array([[1.0, 2, 0.5]], dtype), np.array([[2.0, 1, 0.25]], dtype)
    for temperature in [2.0**500, 2.0**1000, 2.0**-500, 2.0**-30, 2.0**30, 3.0, 0.1, 1e-5, 1e5]:
        check_distillation(student, teacher, temperature, 1.0)
        check_distillation(student, teacher, temperature, 2.0 ** (-np.log2(temperature) / 2))
    check_distillation(student, teacher, 1e155, 1.0)
    check_distillation(student, teacher, 1e300, 1.0)
    check_distillation(np.array([[0.0, -104]], dtype), np.array([[0.0, -103]], dtype), 1.0, 1e10)
    if dtype != np.float16:
        large = float(finfo(dtype).max) / 1.5
        x = np.zeros((10, 2))
        x[0] = large, -large
        for temperature in [1.0, 2.0, 0.5]:
            check_distillation(-x.astype(dtype), x.astype(dtype), temperature, 1.0)


@pytest.mark.parametrize("dtype", ["float32", np.dtype(ml_dtypes.bfloat16)], ids=str)
def test_tiny_gradients_of_distillation_have_all_digits(dtype):
    """Exponentials are of distances from a number that depends on the positions before: it does not show."""
    student = np.array([[0.0, 60.0], [2.0**-132, 0.0], [-3.171875, 10.9375]], dtype)
    teacher = np.array([[0.0, 60.0], [1e-31, 9e-25], [-1.7e7, 7.6e21]], dtype)
    options = {"temperature": 0.5, "reduction": "sum"}
    exact = xent.distillation_loss_grad(student.astype(np.float64), teacher.astype(np.float64), **options)
    for repeats in [1, 40]:
        pair = (np.repeat(a, repeats, axis=0) for a in (student, teacher))
        grad = xent.distillation_loss_grad(*pair, **options).astype(np.float64)
        bound = 4 * float(finfo(np.dtype(dtype)).eps)
        np.testing.assert_allclose(grad[repeats:], np.repeat(exact, repeats, axis=0)[repeats:], rtol=bound)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("seed", range(20))
def test_random_distillation(dtype, seed):
    rng = np.random.default_rng([seed, dtype.itemsize])
    for _ in range(10):
        n, classes = int(rng.integers(1, 4)), int(rng.choice([2, 3, 5, 40]))
        scale = rng.choice([1.0, 20.0, float(finfo(dtype).max) / 8])
        student, teacher = (rng.standard_normal((n, classes)) * scale for _ in range(2))
        limits = float(finfo(dtype).min), float(finfo(dtype).max)
        temperature = 2.0 ** int(rng.integers(-1000, 1000) if rng.random() < 0.5 else rng.integers(-12, 12))
        temperature *= rng.choice([1.0, rng.uniform(1.0, 2.0)])
        up = 1.0 if rng.random() < 0.5 else number(rng, np.dtype("f8"), -500, 500)
        pair = (np.clip(a, *limits).astype(dtype) for a in (student, teacher))
        check_distillation(
            *pair, temperature, up, str(rng.choice(["mean", "sum", "none"])) if up == 1.0 else "mean"
        )


# Evaluation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [xent.evaluate, xent.reference.evaluate])
def test_evaluation_of_what_has_no_weight(function):
    logits = np.array([[np.nan, 1, 0], [-np.inf, 0, 1], [0, 1, 2]])
    some = function(logits, [0, 0, 2], sample_weight=[0, 0, 2], top_k=(1, 2))
    alone = function(logits[2:], [2], sample_weight=[2], top_k=(1, 2))
    for name in ["loss", "accuracy", "mse", "entropy", "mutual_information", "perplexity", "top_k_accuracy"]:
        assert getattr(some, name) == getattr(alone, name), name


@pytest.mark.parametrize("function", [xent.evaluate, xent.reference.evaluate])
def test_evaluation_with_weights_that_cancel(function):
    result = function([[1.0, 2], [2, 1]], [0, 0], sample_weight=[1, -1])
    assert result.loss == np.inf
    assert result.accuracy == -np.inf


def test_evaluation_of_one_loss_beyond_the_type():
    logits = np.zeros((10, 2), np.float32)
    logits[0] = 3e38, -3e38
    assert np.isclose(xent.evaluate(logits, [1] * 10).loss, 6e37)
