"""The logistic sigmoid and its logarithm, elementwise, and their vector-Jacobian products."""

from . import _kernels
from ._docs import documented


@documented
def sigmoid(x, *, out=None):
    """
    Logistic sigmoid.

    .. math:: y = 1 / (1 + \\exp(-x))

    Parameters
    ----------
    <x>
    <out of results>

    Returns
    -------
    ndarray or scalar
        Within 4 ulp of its own value, tiny values included; of the shape and dtype of `x`. NaN stays NaN.

    Raises
    ------
    TypeError
        If `x` does not hold real numbers or `out` is no array.
    ValueError
        If `out` has the wrong shape or dtype, is read-only or overlaps a part of `x`.

    See Also
    --------
    log_sigmoid, sigmoid_backward, softmax

    Notes
    -----
    Computed from exp(-abs(x)), which cannot overflow. It is the softmax of the two logits (x, 0).

    Examples
    --------
    >>> import xent
    >>> xent.sigmoid([-100.0, 0.0, 2.0])
    array([3.72007598e-44, 5.00000000e-01, 8.80797078e-01])
    """
    return _kernels.sigmoid(x, out)


@documented
def log_sigmoid(x, *, out=None):
    """
    Logarithm of the logistic sigmoid.

    .. math:: y = -\\log(1 + \\exp(-x)) = \\min(x, 0) - \\log(1 + \\exp(-|x|))

    Parameters
    ----------
    <x>
    <out of results>

    Returns
    -------
    ndarray or scalar
        In nats, within 4 ulp of its own value; of the shape and dtype of `x`. NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        As `sigmoid`.

    See Also
    --------
    sigmoid, log_sigmoid_backward, log_softmax

    References
    ----------
    .. [1] M. Maechler, "Accurately computing log(1 - exp(-\\|a\\|))", 2012, vignette of the R package Rmpfr.

    Examples
    --------
    >>> import xent
    >>> xent.log_sigmoid([-1000.0, 0.0, 40.0])
    array([-1.00000000e+03, -6.93147181e-01, -4.24835426e-18])
    """
    return _kernels.log_sigmoid(x, out)


@documented
def sigmoid_backward(grad, y, *, out=None):
    """
    Vector-Jacobian product of the sigmoid: the gradient with respect to its input.

    .. math:: g = \\mathrm{grad} \\, y \\, (1 - y)

    Parameters
    ----------
    <grad of y>
    y : array_like of float
        ``sigmoid(x)``.
    <out of y>

    Returns
    -------
    ndarray or scalar
        Gradient with respect to ``x``, of the shape of `y`, within 4 ulp of its own value for the y that is
        given. Next to 1 the difference 1 - y has only the digits that rounding left of y: where these matter,
        ``grad * sigmoid(x) * sigmoid(-x)`` keeps all.

    Raises
    ------
    TypeError, ValueError
        As `sigmoid`; also if the shapes differ.

    See Also
    --------
    sigmoid, log_sigmoid_backward, softmax_backward

    Examples
    --------
    >>> import xent
    >>> y = xent.sigmoid([-2.0, 0.0, 3.0])
    >>> xent.sigmoid_backward([1.0, 1.0, 2.0], y).round(3)
    array([0.105, 0.25 , 0.09 ])
    """
    return _kernels.sigmoid_backward(grad, y, out)


@documented
def log_sigmoid_backward(grad, y, *, out=None):
    """
    Vector-Jacobian product of the log-sigmoid: the gradient with respect to its input.

    .. math:: g = \\mathrm{grad} \\, (1 - \\exp(y))

    Parameters
    ----------
    <grad of y>
    y : array_like of float
        ``log_sigmoid(x)``.
    <out of y>

    Returns
    -------
    ndarray or scalar
        Gradient with respect to ``x``, of the shape of `y`, within 4 ulp of its own value: next to 0, where
        1 - exp(y) cancels, too.

    Raises
    ------
    TypeError, ValueError
        As `sigmoid`; also if the shapes differ.

    See Also
    --------
    log_sigmoid, sigmoid_backward, log_softmax_backward

    Examples
    --------
    >>> import xent
    >>> y = xent.log_sigmoid([-2.0, 0.0, 40.0])
    >>> xent.log_sigmoid_backward([1.0, 1.0, 1.0], y)
    array([8.80797078e-01, 5.00000000e-01, 4.24835426e-18])
    """
    return _kernels.log_sigmoid_backward(grad, y, out)
