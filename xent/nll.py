"""Negative log-likelihood: the cross-entropy of labels from log-probabilities."""

import numpy as np

from . import _check
from ._docs import documented
from ._softmax_loss import Options, divisor_of, numpy_scalar


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
    <weight of classes>
    <ignore_index>
    <reduction of nll_loss>

    Returns
    -------
    scalar or ndarray
        The loss in nats: float64 for float64 input, else float32.

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
    return _nll(log_probs, target, None, None, False, axis, weight, ignore_index, reduction)[0]


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
    <weight of classes>
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
    return _nll(log_probs, target, out, grad_output, True, axis, weight, ignore_index, reduction)[1]


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
    <weight of classes>
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
    return _nll(log_probs, target, out, None, True, axis, weight, ignore_index, reduction)


def _nll(log_probs, target, out, grad_output, want_grad, axis, weight, ignore_index, reduction):
    """Gather and scatter: NumPy is as good as a kernel at these. Returns (loss, gradient or None)."""
    x = _check.floats(log_probs, "log_probs")
    axis = _check.axis_of(axis, x.ndim)
    ignore_index = _check.label_value(ignore_index, "ignore_index")
    weight = None if weight is None else _check.per_class(weight, x.shape[axis], "weight")
    labels = _check.labels_of(target, x, axis, ignore_index)
    divisor = divisor_of(Options(axis, weight, None, ignore_index, reduction=reduction), x.shape, labels)
    factor, upstream = _check.upstream(grad_output, labels.shape if divisor is None else ())
    if want_grad:
        inputs = [(x, "log_probs"), (labels, "target"), (weight, "weight"), (upstream, "grad_output")]
        out = _check.output_like(out, inputs)

    # From here on only the counted positions: the 0-d mask of a single position works like any other.
    valid = labels != ignore_index
    index = valid, labels[valid]
    weights = np.ones(()) if weight is None else weight[labels[valid]]
    losses = np.zeros(labels.shape)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        picked = np.moveaxis(x, axis, -1)[index].astype(np.float64)
        terms = 0.0 - weights * picked
        losses[valid] = np.where((weights == 0) & np.isinf(picked), 0.0, terms)
        if want_grad:
            factor = factor if divisor is None else factor / divisor if divisor else 0.0
            out[...] = 0
            entries = 0.0 - weights * factor * (1.0 if upstream is None else upstream[valid])
            np.moveaxis(out, axis, -1)[index] = _check.narrowed(entries, out.dtype)
    if divisor is None:
        return _check.narrowed(losses, _check.loss_dtype(x.dtype))[()], out
    return numpy_scalar(_check.loss_dtype(x.dtype), losses.sum() / divisor if divisor else 0.0), out
