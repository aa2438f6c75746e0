"""Negative log-likelihood: the cross-entropy of labels from log-probabilities."""

from . import _kernels
from ._docs import documented


@documented
def nll_loss(log_probs, target, *, axis=-1, weight=None, ignore_index=-100, reduction="mean"):
    """
    Negative log-likelihood of labels, from log-probabilities.

    .. math:: -w_y \\, \\mathrm{log\\_probs}_y

    Parameters
    ----------
    <log_probs>
    <target of labels>
    <axis>
    <weight of labels>
    <ignore_index>
    <reduction of nll_loss>

    Returns
    -------
    scalar or ndarray
        The loss in nats: float64 for float64 input, else float32. Where weights have both signs, losses may
        cancel, and the bound on errors is at the scale of their magnitudes.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    See Also
    --------
    cross_entropy, nll_loss_grad, nll_loss_value_and_grad

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> print(xent.nll_loss(np.log([[0.1, 0.3, 0.6], [0.2, 0.6, 0.2]]), [2, 1]).round(2))
    0.51
    """
    return _kernels.nll_loss(
        log_probs, target, None, None, _kernels.want_value, axis, weight, ignore_index, reduction
    )


@documented
def nll_loss_grad(
    log_probs,
    target,
    *,
    grad_output=None,
    out=None,
    axis=-1,
    weight=None,
    ignore_index=-100,
    reduction="mean",
):
    """
    Gradient of `nll_loss` with respect to the log-probabilities: ``-w[y] s`` at the label, 0 elsewhere.

    Parameters
    ----------
    <log_probs>
    <target of labels>
    <grad_output>
    <out>
    <axis>
    <weight of labels>
    <ignore_index>
    <reduction of nll_loss>

    Returns
    -------
    ndarray
        Of the shape and dtype of `log_probs`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy_grad`.

    See Also
    --------
    nll_loss

    Examples
    --------
    >>> import xent
    >>> xent.nll_loss_grad([[-1.0, -0.5], [-0.1, -2.4]], [0, 1])
    array([[-0.5,  0. ],
           [ 0. , -0.5]])
    """
    return _kernels.nll_loss(
        log_probs, target, out, grad_output, _kernels.want_grad, axis, weight, ignore_index, reduction
    )


@documented
def nll_loss_value_and_grad(
    log_probs, target, *, out=None, axis=-1, weight=None, ignore_index=-100, reduction="mean"
):
    """
    `nll_loss` and its gradient.

    Parameters
    ----------
    <log_probs>
    <target of labels>
    <out>
    <axis>
    <weight of labels>
    <ignore_index>
    <reduction of nll_loss>

    Returns
    -------
    loss : scalar or ndarray
        As `nll_loss`.
    grad : ndarray
        As `nll_loss_grad`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy_value_and_grad`.

    See Also
    --------
    nll_loss, nll_loss_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.nll_loss_value_and_grad([[-1.0, -0.5]], [1])
    >>> print(loss)
    0.5
    """
    return _kernels.nll_loss(
        log_probs, target, out, None, _kernels.want_value_and_grad, axis, weight, ignore_index, reduction
    )
