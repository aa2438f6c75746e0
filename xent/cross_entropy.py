"""Cross-entropy from logits (softmax loss)."""

from . import _kernels
from ._docs import documented
from ._kernels import want_grad, want_value, want_value_and_grad


@documented
def cross_entropy(
    logits,
    target,
    *,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    gamma=0.0,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    reduction="mean",
):
    """
    Cross-entropy between a target and the softmax of logits.

    .. math:: -w_y \\log p_y  \\quad\\text{or}\\quad  -\\sum_c w_c t_c \\log p_c, \\qquad p =
        \\mathrm{softmax}(\\mathrm{logits})

    for an index target y or a probability target t.

    Parameters
    ----------
    <logits>
    <target>
    <options of cross_entropy>

    Returns
    -------
    scalar or ndarray
        The loss in nats: float64 for float64 logits, else float32. With index targets and no smoothing each
        position's loss is within 4 ulp of its own value, also where the prediction is confident and the loss
        tiny. Sums are accumulated in float64.

    Raises
    ------
    TypeError
        If `logits` or `weight` do not hold real numbers or `target` holds neither labels nor probabilities.
    ValueError
        If a shape does not fit, a label is out of range, or an option is outside its range.

    See Also
    --------
    cross_entropy_grad, cross_entropy_value_and_grad, nll_loss

    Notes
    -----
    With m the largest logit and R the sum of exp(x_c - m) over all classes but one that attains it,
    ``-log p_y = (m - x_y) + log1p(R)``: both terms are non-negative, and nothing cancels [1]_. A target logit
    of -inf gives an infinite loss; 0 log 0 counts as 0 in probability targets. Label smoothing is that of
    [2]_.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA Journal of Numerical Analysis 41 (2021), doi:10.1093/imanum/draa038.
    .. [2] C. Szegedy et al., "Rethinking the Inception architecture for computer vision", CVPR 2016,
       doi:10.1109/CVPR.2016.308.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    >>> xent.cross_entropy(logits, [0, 2], reduction="none").round(4)
    array([0.4076, 1.0986])
    >>> print(xent.cross_entropy(logits, [0, 2]).round(4))
    0.7531
    >>> print(xent.cross_entropy(np.float32([20, 0]), 0))
    2.0611537e-09
    """
    return _kernels.cross_entropy(
        logits, target, None, None, want_value, axis, weight, sample_weight, ignore_index,
        label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip


@documented
def cross_entropy_grad(
    logits,
    target,
    *,
    grad_output=None,
    out=None,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    gamma=0.0,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    reduction="mean",
):
    """
    Gradient of `cross_entropy` with respect to the logits.

    .. math:: g_j = s \\, (U p_j - u_j), \\qquad u_c = w_c t_c, \\quad U = \\sum_c u_c

    with t the target as a distribution and s the reduction's factor times `grad_output`.

    Parameters
    ----------
    <logits>
    <target>
    <grad_output>
    <out>
    <options of cross_entropy>

    Returns
    -------
    ndarray
        Of the shape and dtype of `logits`. With index targets and no smoothing each entry is within 4 ulp of
        its own value, also the target entry of a confident prediction (-R / (1 + R) instead of p - 1).

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    cross_entropy, cross_entropy_value_and_grad

    Examples
    --------
    >>> import xent
    >>> xent.cross_entropy_grad([1.0, 2.0, 3.0], 0).round(2)
    array([-0.91,  0.24,  0.67])
    """
    return _kernels.cross_entropy(
        logits, target, out, grad_output, want_grad, axis, weight, sample_weight, ignore_index,
        label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip


@documented
def cross_entropy_value_and_grad(
    logits,
    target,
    *,
    out=None,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    gamma=0.0,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    reduction="mean",
):
    """
    `cross_entropy` and its gradient from one pass over the logits.

    Parameters
    ----------
    <logits>
    <target>
    <out>
    <options of cross_entropy>

    Returns
    -------
    loss : scalar or ndarray
        As `cross_entropy`.
    grad : ndarray
        As `cross_entropy_grad`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`; also if `out` does not fit.

    See Also
    --------
    cross_entropy, cross_entropy_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.cross_entropy_value_and_grad([[1.0, 2.0, 3.0]], [2])
    >>> print(loss.round(4))
    0.4076
    >>> grad.round(2)
    array([[ 0.09,  0.24, -0.33]])
    """
    return _kernels.cross_entropy(
        logits, target, out, None, want_value_and_grad, axis, weight, sample_weight, ignore_index,
        label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip
