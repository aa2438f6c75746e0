"""Cross-entropy of independent classes (sigmoid cross-entropy, multi-label), and its derivatives."""

from . import _kernels
from ._docs import documented


@documented
def sigmoid_cross_entropy(
    logits,
    target,
    *,
    weight=None,
    pos_weight=None,
    label_smoothing=0.0,
    gamma=0.0,
    alpha=None,
    ignore_index=None,
    reduction="mean",
):
    """
    Cross-entropy between targets and the sigmoids of logits: every element is a class of its own.

    .. math:: w \\, \\alpha_t (1 - p_t)^\\gamma \\, [-c \\, t \\log p - (1 - t) \\log(1 - p)], \\qquad
        p = \\mathrm{sigmoid}(\\mathrm{logits})

    with the weight w, the positive weight c, and :math:`p_t = p \\, t + (1 - p)(1 - t)`.

    Parameters
    ----------
    <logits of elements>
    <target of sigmoid_cross_entropy>
    <weight of elements>
    <pos_weight>
    <label_smoothing of elements>
    <gamma of elements>
    <alpha>
    <ignore_index of elements>
    <reduction of sigmoid_cross_entropy>

    Returns
    -------
    scalar or ndarray
        The loss in nats: float64 for float64 logits, else float32. Each element is within 4 ulp of its own
        value, also where the prediction is confident and the loss tiny. Weights add 2 ulp, and `gamma` adds
        1 + 3 gamma, as a power multiplies the relative error of its base. Sums are accumulated in float64.
        Where weights have both signs, losses may cancel, and the bound is at the scale of their magnitudes.

    Raises
    ------
    TypeError
        If `logits`, `target` or the weights do not hold real numbers.
    ValueError
        If a shape does not fit, a target is outside [0, 1], or an option is outside its range.

    See Also
    --------
    sigmoid_cross_entropy_grad, sigmoid_cross_entropy_value_and_grad, sigmoid_cross_entropy_grad_hess,
    cross_entropy, sigmoid

    Notes
    -----
    ``-log p = max(-z, 0) + log1p(exp(-|z|))`` for a logit z: both terms are non-negative, and nothing
    cancels. 1 - p_t is made of p and 1 - p, each accurate by itself. The focal factor is that of [1]_, with
    alpha as in ``torchvision.ops.sigmoid_focal_loss``. A probability of 0 for a target of 1 gives an infinite
    loss; 0 log 0 counts as 0.

    Weights, upstream gradients and divisors of any size enter before a loss or gradient is rounded: e^-104
    vanishes in float32, but not its product with a weight of 1e20. An element whose weight is 0 is not there:
    nothing of it, NaN and infinity included, reaches a result.

    References
    ----------
    .. [1] T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollar, "Focal loss for dense object detection", ICCV
       2017, doi:10.1109/ICCV.2017.324.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> logits = np.array([[2.0, -1.0, 0.0], [0.0, 3.0, -3.0]])
    >>> xent.sigmoid_cross_entropy(logits, [[1, 0, 0], [0, 1, 1]], reduction="none").round(4)
    array([[0.1269, 0.3133, 0.6931],
           [0.6931, 0.0486, 3.0486]])
    >>> print(xent.sigmoid_cross_entropy(logits, [[1, 0, 0], [0, 1, 1]], gamma=2.0, alpha=0.25).round(4))
    0.1615
    >>> print(xent.sigmoid_cross_entropy(np.float32([20]), [1]))
    2.0611537e-09
    """
    return _kernels.sigmoid_cross_entropy(
        logits, target, None, None, _kernels.want_value, weight, pos_weight,
        label_smoothing, gamma, alpha, ignore_index, reduction,
    )  # fmt: skip


@documented
def sigmoid_cross_entropy_grad(
    logits,
    target,
    *,
    grad_output=None,
    out=None,
    weight=None,
    pos_weight=None,
    label_smoothing=0.0,
    gamma=0.0,
    alpha=None,
    ignore_index=None,
    reduction="mean",
):
    """
    Gradient of `sigmoid_cross_entropy` with respect to the logits.

    .. math:: s \\, w \\, [(1 - t) \\, p - c \\, t \\, (1 - p)]

    without a focal factor; s is the reduction's factor times `grad_output`.

    Parameters
    ----------
    <logits of elements>
    <target of sigmoid_cross_entropy>
    <grad_output>
    <out>
    <weight of elements>
    <pos_weight>
    <label_smoothing of elements>
    <gamma of elements>
    <alpha>
    <ignore_index of elements>
    <reduction of sigmoid_cross_entropy>

    Returns
    -------
    ndarray
        Of the shape and dtype of `logits`. For targets of 0 and 1 each entry is within 4 ulp of its own
        value, tiny ones included; weights and `gamma` add what they add to the loss. For other targets two
        terms may cancel, and the bound is at the scale of their magnitudes.

    Raises
    ------
    TypeError, ValueError
        As `sigmoid_cross_entropy`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    sigmoid_cross_entropy, sigmoid_cross_entropy_value_and_grad

    Examples
    --------
    >>> import xent
    >>> xent.sigmoid_cross_entropy_grad([-1.0, 2.0, 3.0], [0, 1, 0], reduction="sum").round(2)
    array([ 0.27, -0.12,  0.95])
    """
    return _kernels.sigmoid_cross_entropy(
        logits, target, out, grad_output, _kernels.want_grad, weight, pos_weight,
        label_smoothing, gamma, alpha, ignore_index, reduction,
    )  # fmt: skip


@documented
def sigmoid_cross_entropy_value_and_grad(
    logits,
    target,
    *,
    out=None,
    weight=None,
    pos_weight=None,
    label_smoothing=0.0,
    gamma=0.0,
    alpha=None,
    ignore_index=None,
    reduction="mean",
):
    """
    `sigmoid_cross_entropy` and its gradient from one pass over the logits.

    Parameters
    ----------
    <logits of elements>
    <target of sigmoid_cross_entropy>
    <out>
    <weight of elements>
    <pos_weight>
    <label_smoothing of elements>
    <gamma of elements>
    <alpha>
    <ignore_index of elements>
    <reduction of sigmoid_cross_entropy>

    Returns
    -------
    loss : scalar or ndarray
        As `sigmoid_cross_entropy`.
    grad : ndarray
        As `sigmoid_cross_entropy_grad`.

    Raises
    ------
    TypeError, ValueError
        As `sigmoid_cross_entropy`; also if `out` does not fit.

    See Also
    --------
    sigmoid_cross_entropy, sigmoid_cross_entropy_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.sigmoid_cross_entropy_value_and_grad([[-1.0, 2.0, 3.0]], [[0, 1, 0]])
    >>> print(loss.round(4))
    1.1629
    >>> grad.round(2)
    array([[ 0.09, -0.04,  0.32]])
    """
    return _kernels.sigmoid_cross_entropy(
        logits, target, out, None, _kernels.want_value_and_grad, weight, pos_weight,
        label_smoothing, gamma, alpha, ignore_index, reduction,
    )  # fmt: skip


@documented
def sigmoid_cross_entropy_grad_hess(
    logits,
    target,
    *,
    hessian="diagonal",
    out=None,
    weight=None,
    pos_weight=None,
    label_smoothing=0.0,
    gamma=0.0,
    alpha=None,
    ignore_index=None,
    reduction="mean",
):
    """
    Gradient of `sigmoid_cross_entropy` and the second derivative of each element, for gradient boosting.

    .. math:: h = s \\, w \\, [c \\, t + (1 - t)] \\, p \\, (1 - p)

    without a focal factor; s is the reduction's factor. Boosting libraries add the gradients of their samples
    up: give them ``reduction="sum"``.

    Parameters
    ----------
    <logits of elements>
    <target of sigmoid_cross_entropy>
    hessian : {"diagonal", "gauss_newton", "absolute"}, optional
        The rule. "diagonal": the exact second derivative; that of a focal loss may be negative.
        "gauss_newton": what of it is not negative, unless weights are; without `gamma` the same as
        "diagonal". "absolute": ``abs(gradient)``.
    out : pair of ndarray, optional
        Where to put gradient and second derivatives: the shape of `logits` and the dtype of the result. The
        first may be `logits` itself.
    <weight of elements>
    <pos_weight>
    <label_smoothing of elements>
    <gamma of elements>
    <alpha>
    <ignore_index of elements>
    <reduction of sigmoid_cross_entropy>

    Returns
    -------
    grad, hess : ndarray
        Of the shape and dtype of `logits`, from one pass. Without `gamma` each second derivative is within
        9 ulp of its own value, 1 - p next to 0 included; weights and `gamma` add what they add to the loss,
        and with `gamma` the terms of "diagonal" may cancel: the bound is at the scale of their magnitudes.

    Raises
    ------
    TypeError, ValueError
        As `sigmoid_cross_entropy`; also if `hessian` is none of these or `out` does not fit.

    See Also
    --------
    sigmoid_cross_entropy_grad, cross_entropy_grad_hess

    Notes
    -----
    The classes are independent: the Hessian is diagonal, and steps along it are Newton's. A focal loss is not
    convex; where its second derivative is negative such a step goes uphill, and boosting libraries that
    divide by a sum of second derivatives want "gauss_newton" or "absolute". With q = p (1 - p) / u,
    u = 1 - p_t, d = (1 - t) - t, the loss B without focal factor and its derivative B', the exact one is
    ``u**gamma * (B'' + gamma * q * ((gamma - 1) * d**2 * q * B + 2 * d * B' + d * (1 - 2 * p) * B))``, and
    "gauss_newton" is ``u**gamma * (B'' + gamma * q**2 * d**2 * B)``: for targets of 0 and 1 the loss as a
    function of -log(p_t) without its curvature, as in `cross_entropy_grad_hess`.

    References
    ----------
    .. [1] C. Wang, C. Deng, S. Wang, "Imbalance-XGBoost: leveraging weighted and focal losses for binary
       label-imbalanced classification with XGBoost", Pattern Recognition Letters 136 (2020),
       doi:10.1016/j.patrec.2020.05.035.

    Examples
    --------
    >>> import xent
    >>> logits, target = [-1.0, 2.0, 3.0], [0, 1, 0]
    >>> grad, hess = xent.sigmoid_cross_entropy_grad_hess(logits, target, reduction="sum")
    >>> grad.round(2), hess.round(2)
    (array([ 0.27, -0.12,  0.95]), array([0.2 , 0.1 , 0.05]))
    >>> options = {"gamma": 2.0, "reduction": "sum"}
    >>> xent.sigmoid_cross_entropy_grad_hess(logits, target, **options)[1].round(3)
    array([ 0.111,  0.013, -0.02 ])
    >>> xent.sigmoid_cross_entropy_grad_hess(logits, target, hessian="gauss_newton", **options)[1].round(3)
    array([0.038, 0.004, 0.053])
    """
    return _kernels.sigmoid_cross_entropy_grad_hess(
        logits, target, out, hessian, weight, pos_weight,
        label_smoothing, gamma, alpha, ignore_index, reduction,
    )  # fmt: skip
