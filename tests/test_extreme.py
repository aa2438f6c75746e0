"""Softmax losses of extreme logits, weights, temperatures and upstream gradients, against mpmath.

What leaves the range of a dtype on the way, and not in the result, must not show: weights, upstream gradients,
temperatures and divisors enter before a result is rounded, once. The oracle is the formula in numbers of many digits,
whose exponents have no bounds. A random search over the whole range is slow; the worst that it found, and what
others reported, stands in `KNOWN`.
"""

import ml_dtypes
import numpy as np
import pytest
from helpers import finfo, wide
from mpmath import mp, mpf

import xent

DTYPES = [np.dtype("f8"), np.dtype("f4"), np.dtype("f2"), np.dtype(ml_dtypes.bfloat16)]
FAR = -(10**8)  # e^FAR is 0 beside any product of a dozen doubles
DIGITS = 340  # of 1e308 + 1e-17

# Ulp of the sum of magnitudes of the terms: those of tolerances.py, the roundings of a dozen factors, and of a
# loss in float64 a walk over its classes.
LIMIT = 12


def exact(x):
    return mpf(float(x))


class Row:
    """A position: its terms as (value, sum of magnitudes) of loss, gradient, diagonal of the Hessian, H v."""

    def __init__(self, x, t, y, options, vector):
        self.classes, self.t, self.y = range(len(x)), t, y
        self.z_loss, self.gamma = (exact(options.get(name, 0.0)) for name in ("z_loss", "gamma"))
        self.transform(x, exact(options.get("temperature", 1.0)), options.get("logit_cap"), options.get("prior"))
        s, w = exact(options.get("label_smoothing", 0.0)), options.get("weight", np.ones(len(x)))
        self.a = [exact(w[c]) * ((1 - s) * t[c] + s / len(x)) for c in self.classes]
        self.softmax()
        self.first_order()
        self.diagonal = [(sum(self.a) * self.p[c] * self.q[c] * self.du[c] ** 2,) * 2 for c in self.classes]
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
            size = self.p[c] * mp.fsum(map(abs, self.a)) + abs(self.a[c]) * (self.q[c] if len(set(self.t)) < 3 else 1)
            self.grad.append((self.g[c] * self.du[c], (self.factor * size + abs(pull)) * self.du[c]))

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
    """(value, magnitude) of the reduced loss, gradient, second derivatives and product of logits (N, C); the blur."""
    x, n, labels = wide(x), len(x), np.ndim(target) == 1
    sample, weight = options.get("sample_weight", np.ones(n)), options.get("weight", np.ones(x.shape[1]))
    reduction = options.get("reduction", "mean")
    with mp.workdps(DIGITS):
        rows = []
        for i in range(n):
            t = [mpf(int(c == target[i])) for c in range(x.shape[1])] if labels else [exact(v) for v in wide(target)[i]]
            v = None if vector is None else wide(vector)[i]
            rows.append(Row(x[i], t, int(target[i]) if labels else None, options, v))
        shares = [exact(sample[i]) * (exact(weight[target[i]]) if labels else 1) for i in range(n)]
        divisor = mp.fsum(shares) if reduction == "mean" else mpf(1 if reduction in ("none", "sum") else n)
        scale = [exact(sample[i]) / divisor for i in range(n)]
        up = [exact(1.0 if grad_output is None else np.ravel(grad_output)[i % np.size(grad_output)]) for i in range(n)]
        loss = [(row.loss[0] * s, row.loss[1] * abs(s)) for row, s in zip(rows, scale, strict=True)]
        if reduction != "none":
            loss = [(mp.fsum(v for v, _ in loss), mp.fsum(m for _, m in loss))]
        times = lambda pairs, s: [(v * s, m * abs(s)) for v, m in pairs]
        grad = [pair for row, s, k in zip(rows, scale, up, strict=True) for pair in times(row.grad, s * k)]
        hess = [pair for row, s in zip(rows, scale, strict=True) for pair in times(row.diagonal, s)]
        product = [p for row, s in zip(rows, scale, strict=True) for p in times(row.product, s)] if vector is not None else []
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
            assert (right + slack if got > 0 else slack - right) > most, f"{got} where {mp.nstr(right)} is right"
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
        found = {"value": (xent.cross_entropy(x, target, **options), loss, single), "value of both": (value, loss, single)}
        result = xent.cross_entropy_grad(x, target, grad_output=grad_output, **options)
        found["gradient"] = result, grad, dtype
        if grad_output is None:
            found["gradient of both"] = both, grad, dtype
        if not options.keys() & {"gamma", "z_loss", "logit_cap"} and grad_output is None:
            pair = xent.cross_entropy_grad_hess(x, target, **options)
            found["gradient of three"], found["hessian"] = (pair[0], grad, dtype), (pair[1], hess, dtype)
        if vector is not None and reduction != "none":
            found["product"] = xent.cross_entropy_hvp(x, target, vector, **options), product, dtype
    for name, (result, expected, kind) in found.items():
        focal = 1 + float(options.get("gamma", 0.0))
        allowed = limit * focal * (4 if name == "product" else 1)
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
        x = np.clip(rng.standard_normal((n, classes)) * scale, float(finfo(dtype).min), float(finfo(dtype).max)).astype(dtype)
    any_size = np.dtype("f8") if rng.random() < 0.5 else np.dtype("f4")
    options = {"reduction": str(rng.choice(["none", "sum", "mean", "mean_valid"]))}
    if rng.random() < 0.5:
        options["temperature"] = number(rng, any_size) if rng.random() < 0.5 else float(rng.choice([0.5, 0.7, 3.0]))
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
    up = None if rng.random() < 0.5 else np.array([number(rng, any_size) for _ in range(n)][: n if shape else 1]).reshape(shape)
    vector = rng.standard_normal((n, classes)).astype(dtype)
    return x, target, options, up, vector


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("seed", range(100))
def test_random_search(dtype, seed):
    rng = np.random.default_rng([seed, dtype.itemsize])
    for _ in range(10):
        check(*random_call(rng, dtype))
