"""Softmax losses of extreme logits, weights, temperatures and upstream gradients, against mpmath.

Whatever leaves the range of a dtype on the way, and not in the result, must not show: weights, upstream gradients,
temperatures and divisors enter before a result is rounded, once. The oracle is the formula with numbers of fifty
digits whose exponents have no bounds. A random search over the whole range is slow; what it once found stands
in `test_known`.
"""

import itertools

import ml_dtypes
import numpy as np
import pytest
from helpers import finfo, wide
from mpmath import mp, mpf

import xent

DTYPES = [np.dtype("f8"), np.dtype("f4"), np.dtype("f2"), np.dtype(ml_dtypes.bfloat16)]
LARGE = 2.0**1000  # of a number that is nearly infinite: what differs beyond it may overflow or not


def exact(x):
    return mpf(float(x))


def oracle_row(x, t, y, options, vector=None):
    """Loss, gradient, diagonal of the Hessian and Hessian times vector of a position, by the logits."""
    classes = range(len(x))
    temperature, cap = exact(options.get("temperature", 1.0)), options.get("logit_cap")
    w = [exact(v) for v in options.get("weight", [1.0] * len(x))]
    prior = options.get("prior")
    u, du, d2u = [], [], []
    for c in classes:
        v, slope, bend = exact(x[c]) / temperature, 1 / temperature, mpf(0)
        if cap is not None:
            k = exact(cap)
            z = v / k
            # mpmath's tanh and sech of huge arguments
            tanh = mp.sign(z) if abs(z) > 10**7 else mp.tanh(z)
            slope = mpf(0) if abs(z) > 10**7 else mp.sech(z) ** 2 / temperature
            v, bend = k * tanh, -2 * tanh / k / temperature * slope
        u.append(v + (mp.log(exact(prior[c])) if prior is not None else 0))
        du.append(slope), d2u.append(bend)
    most = max(u)
    far = -(10**8)  # e^far is 0 next to any product of five doubles
    e = [mp.exp(v - most) if v - most > far else mpf(0) for v in u]
    total = mp.fsum(e)
    p = [v / total for v in e]
    lse = most + mp.log(total)
    q = [mp.fsum(p[:c] + p[c + 1 :]) for c in classes]
    top = u.index(most)
    nll = [lse - v if c != top else mp.log1p(mp.fsum(e[:c] + e[c + 1 :])) for c, v in enumerate(u)]
    s = exact(options.get("label_smoothing", 0.0))
    a = [w[c] * ((1 - s) * t[c] + s / len(x)) for c in classes]
    gamma, z_loss = exact(options.get("gamma", 0.0)), exact(options.get("z_loss", 0.0))
    factor, bend_factor = mpf(1), mpf(0)
    loss = mp.fsum(a[c] * nll[c] for c in classes if a[c] != 0)
    if gamma:
        power = q[y] ** gamma
        ratio = p[y] * nll[y] / q[y] if q[y] else mpf(1)
        loss *= power
        factor = power * (1 + gamma * ratio)
        if q[y]:
            bend_factor = gamma * q[y] ** (gamma - 1) * (nll[y] - 2 - (gamma - 1) * ratio) * p[y]
    loss += z_loss * lse**2
    mass = mp.fsum(a)
    g = [
        factor * (p[c] * mp.fsum(a[:c] + a[c + 1 :]) - a[c] * q[c]) + 2 * z_loss * lse * p[c] for c in classes
    ]
    diagonal = [mass * p[c] * q[c] * du[c] ** 2 for c in classes]
    product = None
    if vector is not None:
        v = [exact(vector[c]) * du[c] for c in classes]
        mean = mp.fsum(p[c] * v[c] for c in classes)
        # v_c - p.v, to the last digit
        deviation = [mp.fsum(p[k] * (v[c] - v[k]) for k in classes) for c in classes]
        product = []
        for c in classes:
            h = factor * mass * p[c] * deviation[c]
            if gamma:
                h += mass * bend_factor * deviation[y] * (p[c] if c != y else -q[c])
            h += 2 * z_loss * (mean * p[c] + lse * p[c] * deviation[c])
            product.append(du[c] * h + g[c] * d2u[c] * exact(vector[c]))
    return loss, [g[c] * du[c] for c in classes], diagonal, product


def oracle(x, target, options, grad_output=None, vector=None):
    """Reduced loss, gradient, second derivatives and product of (N, C) logits."""
    x, n = wide(x), len(x)
    labels = np.ndim(target) == 1
    sample = options.get("sample_weight", np.ones(n))
    w, rows, shares = options.get("weight", np.ones(x.shape[1])), [], []
    with mp.workdps(340):  # 1e308 + 1e-17
        for i in range(n):
            t = [mpf(int(c == target[i])) for c in range(x.shape[1])] if labels else list(map(exact, wide(target[i])))
            rows.append(oracle_row(x[i], t, int(target[i]) if labels else None, options, None if vector is None else vector[i]))
            shares.append(exact(sample[i]) * (exact(w[target[i]]) if labels else 1))
        reduction = options.get("reduction", "mean")
        divisor = mp.fsum(shares) if reduction == "mean" else mpf(1 if reduction in ("none", "sum") else n)
        up = [exact(1.0 if grad_output is None else np.ravel(grad_output)[i % np.size(grad_output)]) for i in range(n)]
        losses = [rows[i][0] * exact(sample[i]) for i in range(n)]
        loss = losses if reduction == "none" else [mp.fsum(losses) / divisor]
        scale = [exact(sample[i]) / divisor for i in range(n)]
        grad, hess = ([[v * scale[i] for v in rows[i][k]] for i in range(n)] for k in (1, 2))
        grad = [[v * up[i] for v in grad[i]] for i in range(n)]
        product = None if vector is None else [[v * scale[i] for v in rows[i][3]] for i in range(n)]
        largest = max((abs(v) for v in losses), default=mpf(0))
    return loss, grad, hess, product, largest


def off(result, expected, dtype, slack=mpf(0)):
    """How many ulp of its own value, or of slack's, a result is off; infinite results where they overflow are fine."""
    limits, worst = finfo(dtype), 0.0
    flat = np.ravel(wide(result))
    values = [v for row in expected for v in (row if isinstance(row, list) else [row])]
    assert len(flat) == len(values)
    for got, right in zip(flat, values, strict=True):
        if abs(right) > exact(limits.max):
            if not (np.isinf(got) and got * right > 0) and abs(right) > exact(limits.max) * (1 + 8 * exact(limits.eps)):
                return np.inf
            continue
        if not np.isfinite(got):
            if abs(right) * (1 + 8 * exact(limits.eps)) < exact(limits.max):
                return np.inf
            continue
        size = max(abs(right), abs(slack), exact(limits.tiny))
        ulp = mp.ldexp(1, int(mp.floor(mp.log(size, 2)))) * exact(limits.eps)
        worst = max(worst, float(abs(exact(got) - right) / ulp))
    return worst
