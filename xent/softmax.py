"""Softmax, log-softmax, log-sum-exp and their derivatives."""

import math

import numpy as np

from . import _check, _kernels
from ._docs import documented


@documented
def softmax(x, axis=-1, *, temperature=1.0, out=None):
    """
    Softmax along one axis.

    .. math:: y_c = \\exp(x_c / T) / \\sum_k \\exp(x_k / T)

    Parameters
    ----------
    <x of softmax>
    <axis of softmax>
    <temperature>
        Larger values give flatter distributions.
    <out of results>

    Returns
    -------
    ndarray
        Probabilities, of the shape and dtype of `x`. Each is within 4 ulp of its own value, however small.

    Raises
    ------
    TypeError
        If `x` does not hold real numbers or `out` is no array.
    ValueError
        If an axis is out of bounds or named twice, `temperature` is not positive, or `out` has the wrong
        shape or dtype, is read-only or overlaps a part of `x`.

    See Also
    --------
    log_softmax, logsumexp, softmax_backward

    Notes
    -----
    A logit of -inf has probability 0. A position that holds a NaN or +inf, or nothing but -inf, is NaN
    throughout; others are not touched by it. Exponentials are summed relative to a power of two instead of
    the largest exponential, so that no rounding enters their arguments [1]_. Several axes that lie side by
    side in memory are taken as one; others cost a copy, and the result lies in memory as that.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA Journal of Numerical Analysis 41 (2021), doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import xent
    >>> xent.softmax([1.0, 2.0, 3.0]).round(2)
    array([0.09, 0.24, 0.67])
    >>> xent.softmax([[1.0, 2.0], [3.0, 4.0]], axis=None).round(2)
    array([[0.03, 0.09],
           [0.24, 0.64]])
    """
    return _kernels.softmax(x, axis, temperature, out)


@documented
def log_softmax(x, axis=-1, *, temperature=1.0, out=None):
    """
    Logarithm of the softmax along one axis.

    .. math:: y_c = x_c / T - \\log \\sum_k \\exp(x_k / T)

    Parameters
    ----------
    <x of softmax>
    <axis of softmax>
    <temperature>
    <out of results>

    Returns
    -------
    ndarray
        Log-probabilities in nats, of the shape and dtype of `x`. Each is within 4 ulp of its own value, those
        next to 0 included.

    Raises
    ------
    TypeError, ValueError
        As `softmax`.

    See Also
    --------
    softmax, logsumexp, log_softmax_backward

    Notes
    -----
    With m the largest logit and R the sum of exp(x_k - m) over all classes but one that attains it, the
    result is (x_c - m) - log1p(R): both terms have one sign, and nothing cancels [1]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA Journal of Numerical Analysis 41 (2021), doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import xent
    >>> xent.log_softmax([20.0, 0.0])
    array([-2.06115362e-09, -2.00000000e+01])
    """
    return _kernels.log_softmax(x, axis, temperature, out)


@documented
def logsumexp(x, axis=-1, *, b=None, keepdims=False, return_sign=False, out=None):
    """
    Logarithm of the sum of exponentials along one or more axes.

    .. math:: \\log \\sum_c b_c \\exp(x_c)

    Parameters
    ----------
    <x>
    axis : int, tuple of int or None, optional
        The axis or axes to sum over; None means all of them.
    b : array_like of float, optional
        Factors of the exponentials, broadcast with `x`; they may be negative or 0. A NaN comes out where the
        sum is negative, unless its sign is asked for. Summed in float64.
    keepdims : bool, optional
        Keep the axes summed over, with length 1.
    return_sign : bool, optional
        Whether to return the sign of the sum too, and the logarithm of its size.
    out : ndarray, optional
        Where to put the logarithm: its shape and dtype.

    Returns
    -------
    result : ndarray or scalar
        In nats, of the dtype of `x`, within 2 ulp of the larger of its own size and that of the largest
        element of `x`. The sum over no elements is -inf; a +inf in `x` gives +inf; a NaN gives NaN. With `b`
        a sum that cancels is as exact as a sum of floats can be.
    sign : ndarray or scalar
        Only with `return_sign`: 1, 0, -1 or NaN, of the shape and dtype of `result`.

    Raises
    ------
    TypeError
        If `x` or `b` do not hold real numbers or `out` is no array.
    ValueError
        If an axis is out of bounds or named twice, `b` does not broadcast, or `out` does not fit.

    See Also
    --------
    logsumexp_backward, softmax, log_softmax

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA Journal of Numerical Analysis 41 (2021), doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> print(xent.logsumexp([1000.0, 1000.0]).round(4))
    1000.6931
    >>> xent.logsumexp(np.zeros((2, 3)), axis=None, keepdims=True).round(4)
    array([[1.7918]])
    >>> size, sign = xent.logsumexp([0.0, 1.0], b=[1.0, -1.0], return_sign=True)
    >>> print(size.round(4), sign)  # 1 - e
    0.5413 -1.0
    """
    if type(keepdims) is not bool:
        keepdims = _check.flag(keepdims, "keepdims")
    if type(return_sign) is not bool:
        return_sign = _check.flag(return_sign, "return_sign")
    if b is None and not return_sign:
        return _kernels.logsumexp(x, axis, keepdims, out)
    if b is None:
        return _logsumexp_and_sign(_check.floats(x, "x"), axis, keepdims, out)
    result, sign = _weighted_logsumexp(x, b, axis, keepdims, return_sign, out)
    result = result[()] if out is None else result
    return (result, sign[()]) if return_sign else result


def _logsumexp_and_sign(x, axis, keepdims, out):
    """Both are there before `out` is written to, as memory may run out."""
    result = _kernels.logsumexp(x, axis, keepdims, None)
    if out is not None:
        _check.output(out, np.shape(result), result.dtype, [(x, "x")])
    with np.errstate(invalid="ignore"):
        sign = np.where(np.isnan(result), result, result != -np.inf).astype(result.dtype)[()]
    if out is None:
        return result, sign
    out[...] = result
    return out, sign


def _weighted_logsumexp(x, b, axis, keepdims, return_sign, out):
    """The sum with factors and its sign, or None if that is not wanted."""
    x, b = _check.floats(x, "x"), _check.floats(b, "b")
    dtype, (x, b) = _check.loss_dtype(x.dtype), _broadcast(x, b)
    axes = _check.axes_of(axis, x.ndim)
    shape = tuple(1 if k in axes else n for k, n in enumerate(x.shape) if keepdims or k not in axes)
    if out is not None:
        _check.output(out, shape, dtype, [(x, "x"), (b, "b")])
    if x.dtype != b.dtype:
        # float64 at once: before NumPy 2, a bfloat16 has no common dtype with a Python float.
        x, b = x.astype(np.float64), b.astype(np.float64)
    size, sign, left = _kernels.weighted_logsumexp(x, b, axes, bool(return_sign))
    if left is not None:
        _put_left(x, b, axes, left, size, sign)
    size, sign = (None if a is None else _check.narrowed(a.reshape(shape), dtype) for a in (size, sign))
    if out is None:
        return size, sign
    out[...] = size
    return out, sign


def _put_left(x, b, axes, left, size, sign):
    """Fill in positions that a kernel has left, in float64."""
    kept = [k for k in range(x.ndim) if k not in axes]
    index = np.unravel_index(left, size.shape) if kept else ()
    x, b = (a.transpose(*kept, *axes)[index].reshape(len(left), -1).astype(np.float64) for a in (x, b))
    x = np.where(b != 0, x, -np.inf)  # a term with b = 0 is no term, as in SciPy
    with np.errstate(all="ignore"):
        b, exponent = _scaled(b)
        most = x.max(axis=1, initial=-np.inf)
        most = np.where(np.isfinite(most), most, 0.0)
        exps = _kernels.vmath("exp", np.ascontiguousarray(x - most[:, None]))
        sums = np.sum(b * exps, axis=1)
        logs = _kernels.vmath("log", np.ascontiguousarray(sums if sign is None else np.abs(sums)))
        logs = logs + exponent * math.log(2.0) + most
        for part, made in ((size, logs), (sign, np.sign(sums))):
            if part is not None:
                part[index] = made.astype(part.dtype).reshape(part[index].shape)


# Beyond 2^512 the sum of many factors could overflow, and below 2^-512 their product with an exponential be
# no normal number: these are taken relative to a power of two.
_PLAIN_EXPONENT = 512


def _scaled(b):
    """Return rows of factors over 2^n, and n of each, 0 for most."""
    sizes = np.where(np.isfinite(b), np.abs(b), 0.0)
    _, exponent = np.frexp(sizes.max(axis=1, initial=0.0))
    exponent = np.where(np.abs(exponent) > _PLAIN_EXPONENT, exponent, 0)
    return np.ldexp(b, -exponent[:, None]), exponent


def _broadcast(x, b):
    if x.shape == b.shape:
        return x, b
    try:
        return np.broadcast_arrays(x, b)
    except ValueError:
        raise ValueError(f"b must broadcast with x, of shape {x.shape}, got shape {b.shape}") from None


@documented
def logsumexp_backward(grad, x, y, axis=-1, *, out=None):
    """
    Vector-Jacobian product of the log-sum-exp: the gradient with respect to its input.

    .. math:: g_c = \\mathrm{grad} \\, \\exp(x_c - y)

    Parameters
    ----------
    grad : array_like of float
        Gradient of a scalar with respect to ``y``, of its shape.
    <x>
    y : array_like of float
        ``logsumexp(x, axis)``: one number for each position; the axes summed over may have been kept. Where
        the classes of a position lie in several arrays, it is that of all of them; it is never less than the
        largest element of `x`, but for rounding.
    axis : int, tuple of int or None, optional
        The axis or axes that were summed over; None means all of them.
    out : ndarray, optional
        Where to put the result: the shape and dtype of `x`. It may be `x` itself.

    Returns
    -------
    ndarray
        Gradient with respect to `x`, of its shape and dtype. Each element is within 4 ulp of its own value.

    Raises
    ------
    TypeError, ValueError
        As `logsumexp`; also if `grad` or `y` do not have the shape of the positions.

    See Also
    --------
    logsumexp, softmax

    Notes
    -----
    With grad = 1 and y = logsumexp(x) this is the softmax, and where `y` is infinite it is NaN throughout as
    that is: where `x` holds a +inf, or nothing but -inf. A `y` that was rounded is off by up to half an ulp
    of its own size, and all elements by the exponential of that: `softmax` has no such limit.

    Examples
    --------
    >>> import xent
    >>> x = [1.0, 2.0, 3.0]
    >>> xent.logsumexp_backward(2.0, x, xent.logsumexp(x)).round(2)
    array([0.18, 0.49, 1.33])
    """
    return _kernels.logsumexp_backward(grad, x, y, axis, out)


@documented
def softmax_backward(grad, y, axis=-1, *, out=None):
    """
    Vector-Jacobian product of the softmax: the gradient with respect to its input.

    .. math:: g_j = y_j (\\mathrm{grad}_j - \\sum_c \\mathrm{grad}_c y_c)

    Parameters
    ----------
    <grad of y>
    <y of softmax>
    <axis of softmax>
    <out of y>

    Returns
    -------
    ndarray
        Gradient with respect to ``x``, of the shape of `y`. (For a temperature T divide it by T.)

    Raises
    ------
    TypeError, ValueError
        As `softmax`; also if the shapes differ.

    See Also
    --------
    softmax, softmax_jacobian

    Notes
    -----
    An infinite gradient of a class makes its own result NaN and those of all other classes infinite, as IEEE
    arithmetic does with the formula, and as in PyTorch.

    Examples
    --------
    >>> import xent
    >>> y = xent.softmax([1.0, 2.0, 3.0])
    >>> xent.softmax_backward([1.0, 0.0, 0.0], y).round(3)
    array([ 0.082, -0.022, -0.06 ])
    """
    return _kernels.softmax_backward(grad, y, axis, out)


@documented
def log_softmax_backward(grad, y, axis=-1, *, out=None):
    """
    Vector-Jacobian product of the log-softmax: the gradient with respect to its input.

    .. math:: g_j = \\mathrm{grad}_j - \\exp(y_j) \\sum_c \\mathrm{grad}_c

    Parameters
    ----------
    <grad of y>
    y : array_like of float, shape (..., C, ...)
        ``log_softmax(x)``.
    <axis of softmax>
    <out of y>

    Returns
    -------
    ndarray
        Gradient with respect to ``x``, of the shape of `y`. (For a temperature T divide it by T.)

    Raises
    ------
    TypeError, ValueError
        As `softmax`; also if the shapes differ.

    See Also
    --------
    log_softmax

    Notes
    -----
    An infinite gradient of a class makes its own result NaN and those of all other classes infinite, as IEEE
    arithmetic does with the formula, and as in PyTorch.

    Examples
    --------
    >>> import xent
    >>> y = xent.log_softmax([1.0, 2.0, 3.0])
    >>> xent.log_softmax_backward([-1.0, 0.0, 0.0], y).round(2)
    array([-0.91,  0.24,  0.67])
    """
    return _kernels.log_softmax_backward(grad, y, axis, out)


@documented
def softmax_jacobian(y, axis=-1):
    """
    Jacobian matrices of the softmax.

    .. math:: J_{jk} = y_j ([j = k] - y_k)

    Parameters
    ----------
    <y of softmax>
    <axis of softmax>

    Returns
    -------
    ndarray, shape (..., C, C)
        One symmetric matrix for each position, in the two last axes. C counts the elements of all axes of the
        softmax, in the order in which `axis` names them, the last the fastest. To multiply with it,
        `softmax_backward` needs no matrix.

    Raises
    ------
    TypeError, ValueError
        If `y` does not hold real numbers or `axis` is out of bounds.

    See Also
    --------
    softmax_backward

    Examples
    --------
    >>> import xent
    >>> xent.softmax_jacobian([0.25, 0.75])
    array([[ 0.1875, -0.1875],
           [-0.1875,  0.1875]])
    """
    y = _check.floats(y, "y")
    axes, dtype = _check.axes_of(axis, y.ndim), y.dtype
    kept = y.ndim - len(axes)
    y = np.moveaxis(y, axes, range(kept, y.ndim))
    y = y.reshape(*y.shape[:kept], math.prod(y.shape[kept:]))
    y = y.astype(_check.loss_dtype(dtype), copy=False)  # 16-bit floats are computed with in float32
    with np.errstate(all="ignore"):
        jacobian = y[..., :, None] * (np.eye(y.shape[-1], dtype=y.dtype) - y[..., None, :])
        return jacobian.astype(dtype, copy=False)
