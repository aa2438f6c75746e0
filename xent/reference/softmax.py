"""The softmax family: softmax, log_softmax, logsumexp, their vector-Jacobian products and the Jacobian.

The largest entry is subtracted first, so that nothing overflows, and one maximal entry is kept out of the sum
of exponentials: log1p(rest) and rest / (1 + rest) stay accurate where log(1 + rest) and 1 - p round to 0.
"""

import math

import numpy as np

from ._common import as_float64, classes_last, deliver, loss_dtype, result_dtype


def _exponent(x, top, temperature):
    """Return u = (x - top) / temperature, and what rounding took from it.

    exp turns an absolute error of its argument into a relative one: rounding u = -700 alone can cost hundreds
    of ulp. Knuth's two-sum gives the error of the difference, Dekker's product that of the quotient.
    """
    difference = x - top
    back = difference - x
    lost = (x - (difference - back)) - (top + back)
    u = difference / temperature
    (u_high, u_low), (t_high, t_low) = _halves(u), _halves(temperature)
    lost += ((difference - u_high * t_high) - u_high * t_low - u_low * t_high) - u_low * t_low
    lost /= temperature
    return u, np.where(np.isfinite(lost), lost, 0.0)


def _halves(a):
    """Return a = high + low with at most 26 significant bits in each (Veltkamp)."""
    scaled = a * 134217729.0
    high = scaled - (scaled - a)
    return high, a - high


def _terms(x, temperature=1.0):
    """Return top, a mask of one maximal entry, u, exp(u), and its sum without that entry."""
    is_top = np.arange(x.shape[-1]) == x.argmax(axis=-1)[..., None]
    top = x.max(axis=-1, keepdims=True)
    u, lost = _exponent(x, top, temperature)
    exponentials = np.exp(u)
    exponentials = np.where(x == top, 1.0, exponentials + exponentials * lost)
    rest = np.where(is_top, 0.0, exponentials).sum(axis=-1, keepdims=True)
    return top, is_top, u, exponentials, rest


def probabilities(x, temperature=1.0):
    """Return p = softmax(x) and 1 - p, both accurate however close to 0, for classes on the last axis."""
    if x.shape[-1] == 0:
        return x, x
    with np.errstate(all="ignore"):
        top, is_top, _, exponentials, rest = _terms(x, temperature)
        rest = np.where(np.isinf(top), np.nan, rest)
        p = exponentials / (1.0 + rest)
        return p, np.where(is_top, rest / (1.0 + rest), 1.0 - p)


def log_probabilities(x, temperature=1.0):
    """Return log_softmax(x) for classes on the last axis."""
    if x.shape[-1] == 0:
        return x
    with np.errstate(all="ignore"):
        _, _, u, _, rest = _terms(x, temperature)
        return u - np.log1p(rest)


def softmax(x, axis=-1, *, temperature=1.0, out=None):
    """Probabilities p_c = exp(u_c) / sum_k exp(u_k) with u = x / temperature."""
    p, _ = probabilities(classes_last(x, axis), float(temperature))
    return deliver(np.moveaxis(p, -1, axis), out, result_dtype(x))


def log_softmax(x, axis=-1, *, temperature=1.0, out=None):
    """Log-probabilities u_c - log(sum_k exp(u_k)) with u = x / temperature."""
    log_p = log_probabilities(classes_last(x, axis), float(temperature))
    return deliver(np.moveaxis(log_p, -1, axis), out, result_dtype(x))


def logsumexp(x, axis=-1, *, b=None, keepdims=False, out=None):
    """log(sum_k b_k exp(x_k)) over an axis, several axes or all; NaN where the sum is negative.

    A term with b = 0 is left out, whatever its x, as in SciPy.
    """
    dtype = loss_dtype(x)
    x, b = np.broadcast_arrays(as_float64(x), 1.0 if b is None else as_float64(b))
    x = np.where(b == 0, -np.inf, x)
    axes = tuple(range(x.ndim)) if axis is None else tuple(np.atleast_1d(axis).tolist())
    last = tuple(range(-len(axes), 0))
    x, b = np.moveaxis(x, axes, last), np.moveaxis(b, axes, last)
    positions, summed = x.shape[: x.ndim - len(axes)], x.shape[x.ndim - len(axes) :]
    flat = (*positions, math.prod(summed))
    result = _log_of_sum(x.reshape(flat), b.reshape(flat))
    if keepdims:
        result = np.moveaxis(result.reshape(*positions, *(1 for _ in axes)), last, axes)
    return deliver(result, out, dtype)


def _log_of_sum(x, b):
    """Return log(sum(b * exp(x))) over the last axis."""
    if x.shape[-1] == 0:
        return np.full(x.shape[:-1], -np.inf)
    with np.errstate(all="ignore"):
        top, is_top, _, exponentials, _ = _terms(x)
        b_top = np.where(is_top, b, 0.0).sum(axis=-1)
        rest = np.where(is_top, 0.0, b * exponentials).sum(axis=-1)
        total = b_top + rest
        log_total = np.where(abs(total - 1.0) < 0.5, np.log1p((b_top - 1.0) + rest), np.log(total))
        top = top[..., 0]
        return np.where(top == -np.inf, -np.inf, top + log_total)


# softmax:      dp_k / dx_c = p_k ([k = c] - p_c)
#               g_c = sum_k grad_k dp_k / dx_c = p_c (grad_c - sum_k grad_k p_k)
# log_softmax:  dlog p_k / dx_c = [k = c] - p_c
#               g_c = grad_c - p_c sum_k grad_k


def softmax_backward(grad, y, axis=-1, *, out=None):
    """Vector-Jacobian product y_c (grad_c - sum_k grad_k y_k) of y = softmax(x)."""
    dtype = result_dtype(grad, y)
    grad, y = classes_last(grad, axis), classes_last(y, axis)
    with np.errstate(all="ignore"):
        result = y * (grad - (grad * y).sum(axis=-1, keepdims=True))
    return deliver(np.moveaxis(result, -1, axis), out, dtype)


def log_softmax_backward(grad, y, axis=-1, *, out=None):
    """Vector-Jacobian product grad_c - exp(y_c) sum_k grad_k of y = log_softmax(x)."""
    dtype = result_dtype(grad, y)
    grad, y = classes_last(grad, axis), classes_last(y, axis)
    with np.errstate(all="ignore"):
        result = grad - np.exp(y) * grad.sum(axis=-1, keepdims=True)
    return deliver(np.moveaxis(result, -1, axis), out, dtype)


def softmax_jacobian(y, axis=-1):
    """Jacobian diag(y) - y y^T, y_c ([c = k] - y_k), of y = softmax(x): (C, C) at the end."""
    p = classes_last(y, axis)
    with np.errstate(all="ignore"):
        result = p[..., :, None] * (np.eye(p.shape[-1]) - p[..., None, :])
    return deliver(result, dtype=result_dtype(y))
