"""Squared error, elementwise."""

from . import _kernels
from ._docs import documented


@documented
def mse_loss(pred, target, *, reduction="mean"):
    """
    Squared error, elementwise.

    .. math:: (\\mathrm{pred} - \\mathrm{target})^2

    Parameters
    ----------
    <pred>
    <target of mse_loss>
    <reduction of elements>

    Returns
    -------
    scalar or ndarray
        The loss: float64 for float64 `pred`, else float32, within 4 ulp of its own value. Sums are
        accumulated in float64.

    Raises
    ------
    TypeError
        If `pred` or `target` do not hold real numbers.
    ValueError
        If the shapes differ or `reduction` does not exist.

    See Also
    --------
    mse_loss_grad, mse_loss_value_and_grad

    References
    ----------
    .. [1] G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review
       78 (1950), doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.

    Examples
    --------
    >>> import xent
    >>> print(xent.mse_loss([0.0, 0.5, 2.0], [0.0, 1.0, 1.0], reduction="sum"))
    1.25
    """
    return _kernels.mse_loss(pred, target, None, None, _kernels.want_value, reduction)


@documented
def mse_loss_grad(pred, target, *, grad_output=None, out=None, reduction="mean"):
    """
    Gradient of `mse_loss` with respect to the predictions: ``2 (pred - target) s``.

    s is the reduction's factor times `grad_output`.

    Parameters
    ----------
    <pred>
    <target of mse_loss>
    <grad_output>
    <out>
    <reduction of elements>

    Returns
    -------
    ndarray
        Of the shape and dtype of `pred`, each entry within 4 ulp of its own value.

    Raises
    ------
    TypeError, ValueError
        As `mse_loss`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    mse_loss

    Examples
    --------
    >>> import xent
    >>> xent.mse_loss_grad([0.0, 0.5, 2.0], [0.0, 1.0, 1.0], reduction="sum")
    array([ 0., -1.,  2.])
    """
    return _kernels.mse_loss(pred, target, out, grad_output, _kernels.want_grad, reduction)


@documented
def mse_loss_value_and_grad(pred, target, *, out=None, reduction="mean"):
    """
    `mse_loss` and its gradient from one pass over the predictions.

    Parameters
    ----------
    <pred>
    <target of mse_loss>
    <out>
    <reduction of elements>

    Returns
    -------
    loss : scalar or ndarray
        As `mse_loss`.
    grad : ndarray
        As `mse_loss_grad`.

    Raises
    ------
    TypeError, ValueError
        As `mse_loss`; also if `out` does not fit.

    See Also
    --------
    mse_loss, mse_loss_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.mse_loss_value_and_grad([0.0, 3.0], [0.0, 1.0])
    >>> print(loss, grad)
    2.0 [0. 2.]
    """
    return _kernels.mse_loss(pred, target, out, None, _kernels.want_value_and_grad, reduction)
