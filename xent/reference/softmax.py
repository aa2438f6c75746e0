"""The softmax family: softmax, log_softmax, logsumexp, their vector-Jacobian products and the Jacobian.

The largest entry is subtracted first, so that nothing overflows, and one maximal entry is kept out of the sum
of exponentials: log1p(rest) and rest / (1 + rest) stay accurate where log(1 + rest) and 1 - p round to 0.
"""

import math

import numpy as np

from ._common import as_float64, axes_of, classes_back, classes_last, deliver, loss_dtype, result_dtype


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
    """Probabilities p_c = exp(u_c) / sum_k exp(u_k) with u = x / temperature; k over one axis or more."""
    p, _ = probabilities(classes_last(x, axis), float(temperature))
    return deliver(classes_back(p, np.shape(x), axis), out, result_dtype(x))


def log_softmax(x, axis=-1, *, temperature=1.0, out=None):
    """Log-probabilities u_c - log(sum_k exp(u_k)) with u = x / temperature."""
    log_p = log_probabilities(classes_last(x, axis), float(temperature))
    return deliver(classes_back(log_p, np.shape(x), axis), out, result_dtype(x))


def logsumexp(x, axis=-1, *, b=None, keepdims=False, return_sign=False, out=None):
    """log(sum_k b_k exp(x_k)) over an axis, several axes or all; NaN where the sum is negative.

    A term with b = 0 is left out, whatever its x, as in SciPy. With `return_sign`, the logarithm of the sum's
    size and its sign.
    """
    dtype = loss_dtype(x)
    x, b = np.broadcast_arrays(as_float64(x), 1.0 if b is None else as_float64(b))
    result, sign = _log_of_sum(classes_last(np.where(b == 0, -np.inf, x), axis), classes_last(b, axis))
    if not return_sign:
        result = np.where(sign < 0, np.nan, result)
    if keepdims:
        axes = [k % x.ndim for k in axes_of(axis, x.ndim)]
        kept = [1 if k in axes else n for k, n in enumerate(x.shape)]
        result, sign = result.reshape(kept), sign.reshape(kept)
    result = deliver(result, out, dtype)
    return (result, deliver(sign, dtype=dtype)) if return_sign else result


def _log_of_sum(x, b):
    """Return log(abs(sum(b * exp(x)))) and the sign of the sum, over the last axis."""
    if x.shape[-1] == 0:
        return np.full(x.shape[:-1], -np.inf), np.zeros(x.shape[:-1])
    with np.errstate(all="ignore"):
        # a power of two for each position, so that no sum overflows
        _, exponent = np.frexp(np.where(np.isfinite(b), np.abs(b), 0.0).max(axis=-1))
        exponent = np.where(abs(exponent) > 512, exponent, 0)
        b = np.ldexp(b, -exponent[..., None])
        top, is_top, _, exponentials, _ = _terms(x)
        b_top = np.where(is_top, b, 0.0).sum(axis=-1)
        rest = np.where(is_top, 0.0, b * exponentials).sum(axis=-1)
        total = b_top + rest
        near_1 = (abs(total - 1.0) < 0.5) & (exponent == 0)
        log_total = np.where(near_1, np.log1p((b_top - 1.0) + rest), np.log(abs(total)))
        top = top[..., 0]
        empty = top == -np.inf  # each exponential is 0
        result = np.where(empty & ~np.isnan(total), -np.inf, top + (log_total + exponent * math.log(2.0)))
        return result, np.where(empty & ~np.isnan(total), 0.0, np.sign(total))


# y = logsumexp(x):  dy / dx_c = exp(x_c) / sum_k exp(x_k) = exp(x_c - y)


def logsumexp_backward(grad, x, y, axis=-1, *, out=None):
    """Vector-Jacobian product grad exp(x_c - y) of y = logsumexp(x); NaN where y is infinite, as softmax."""
    classes = classes_last(x, axis)
    grad, y = (as_float64(a).reshape(classes.shape[:-1])[..., None] for a in (grad, y))
    with np.errstate(all="ignore"):
        # the exponential of a rounded difference, and what rounding left of it
        difference, lost = _exponent(classes, y, 1.0)
        exponentials = np.exp(difference)
        exponentials = np.where(np.isinf(exponentials), exponentials, exponentials + exponentials * lost)
        result = grad * exponentials
        result = np.where(np.isinf(y), np.nan, np.where(grad == 0, 0.0 * y, result))
    return deliver(classes_back(result, np.shape(x), axis), out, result_dtype(x))


# softmax:      dp_k / dx_c = p_k ([k = c] - p_c)
#               g_c = sum_k grad_k dp_k / dx_c = p_c (grad_c - sum_k grad_k p_k)
# log_softmax:  dlog p_k / dx_c = [k = c] - p_c
#               g_c = grad_c - p_c sum_k grad_k


def softmax_backward(grad, y, axis=-1, *, out=None):
    """Vector-Jacobian product y_c (grad_c - sum_k grad_k y_k) of y = softmax(x)."""
    dtype = result_dtype(grad, y)
    shape, grad, y = np.shape(y), classes_last(grad, axis), classes_last(y, axis)
    with np.errstate(all="ignore"):
        result = y * (grad - (grad * y).sum(axis=-1, keepdims=True))
    return deliver(classes_back(result, shape, axis), out, dtype)


def log_softmax_backward(grad, y, axis=-1, *, out=None):
    """Vector-Jacobian product grad_c - exp(y_c) sum_k grad_k of y = log_softmax(x)."""
    dtype = result_dtype(grad, y)
    shape, grad, y = np.shape(y), classes_last(grad, axis), classes_last(y, axis)
    with np.errstate(all="ignore"):
        result = grad - np.exp(y) * grad.sum(axis=-1, keepdims=True)
    return deliver(classes_back(result, shape, axis), out, dtype)


def softmax_jacobian(y, axis=-1):
    """Jacobian diag(y) - y y^T, y_c ([c = k] - y_k), of y = softmax(x): (C, C) at the end.

    C counts the elements of all axes of the softmax, in the order of `axis`.
    """
    p = classes_last(y, axis)
    with np.errstate(all="ignore"):
        result = p[..., :, None] * (np.eye(p.shape[-1]) - p[..., None, :])
    return deliver(result, dtype=result_dtype(y))
