"""The logistic sigmoid and its logarithm, elementwise."""

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
    log_sigmoid, softmax

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
    sigmoid, log_softmax

    References
    ----------
    .. [1] M. Maechler, "Accurately computing log(1 - exp(-|a|))", 2012, vignette of the R package Rmpfr.

    Examples
    --------
    >>> import xent
    >>> xent.log_sigmoid([-1000.0, 0.0, 40.0])
    array([-1.00000000e+03, -6.93147181e-01, -4.24835426e-18])
    """
    return _kernels.log_sigmoid(x, out)
