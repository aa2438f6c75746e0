"""Second derivatives of the cross-entropy: one per class for boosting, and Hessian-vector products."""

from . import _kernels
from ._docs import documented


@documented
def cross_entropy_grad_hess(
    logits,
    target,
    *,
    hessian="diagonal",
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
    Gradient of `cross_entropy` and one second derivative per class, for gradient boosting.

    .. math:: g_j = s \\, (U p_j - u_j) / T, \\qquad h_j = k \\, s \\, U p_j (1 - p_j) / T^2, \\qquad
       U = \\sum_c u_c

    with u the target as a distribution times the class weights, and s the reduction's factor times
    `sample_weight`; gamma, logit_cap and z_loss change them as their formulas say. Boosting libraries add the
    gradients of their samples up: give them ``reduction="sum"``.

    Parameters
    ----------
    <logits>
        Row-major (N, C) or, with ``axis=0`` or in Fortran order, class-major: the results lie in memory as
        the logits do.
    <target>
    hessian : {"diagonal", "gauss_newton", "upper", "friedman", "absolute"}, optional
        The rule. "diagonal": k = 1, the diagonal of the Hessian, which may be negative with `gamma`,
        `logit_cap` or `z_loss`. "gauss_newton": the same without the terms that may be. "upper": k = 2 times
        that, a bound of the whole Hessian [1]_. "friedman": k = C / (C - 1) times that [2]_. "absolute": h is
        ``abs(g)``.
    out : pair of ndarray, optional
        Where to put gradient and second derivatives: the shape of `logits` and the dtype of the result. The
        first may be `logits` itself.
    <axis>
    <weight of classes>
    <sample_weight>
    <ignore_index>
    <label_smoothing>
    <z_loss>
    <gamma>
    <temperature>
    <logit_cap>
    <prior>
    <reduction of cross_entropy>

    Returns
    -------
    grad, hess : ndarray
        Of the shape and dtype of `logits`, from one pass. Entries next to 0 are as exact as others: in the
        largest logit, 1 - p is the sum of the other probabilities.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`; also if `hessian` is none of these, or "friedman" is asked for a single class.

    See Also
    --------
    cross_entropy_grad, cross_entropy_hvp

    Notes
    -----
    The matrix diag(p) - p p^T has the off-diagonal magnitudes p_c (1 - p_c) in row c, as much as stands on
    its diagonal: twice the diagonal is an upper bound of it (Gershgorin), and steps along the diagonal alone
    can be too long. XGBoost and LightGBM use "upper" and "friedman", with factors that have changed with
    their versions.

    A focal loss of p = softmax(u), with q = 1 - p, masses ``a_c = w_c t_c`` and
    ``F_c = q_c**gamma (1 + gamma p_c l_c / q_c)`` where ``l_c = -log(p_c)``, has the derivatives

    .. math:: g_j = p_j B - a_j F_j, \\qquad h_j = B p_j q_j - k_j q_j^2 - p_j^2 \\sum_{c \\ne j} k_c,
       \\qquad B = \\sum_c a_c F_c, \\quad k_c = a_c p_c \\, dF_c/dp_c

    by u, of which "gauss_newton" keeps B p q. With a cap u depends on the logits x by a curve, and
    ``h_x = u'**2 h + u'' g``, of which it keeps the first.

    References
    ----------
    .. [1] D. Boehning, "Multinomial logistic regression algorithm", Annals of the Institute of Statistical
       Mathematics 44 (1992), doi:10.1007/BF00048682.
    .. [2] J. H. Friedman, "Greedy function approximation: a gradient boosting machine", Annals of Statistics
       29 (2001), doi:10.1214/aos/1013203451.

    Examples
    --------
    >>> import xent
    >>> grad, hess = xent.cross_entropy_grad_hess([[1.0, 2.0, 3.0]], [2], reduction="sum")
    >>> grad.round(2), hess.round(2)
    (array([[ 0.09,  0.24, -0.33]]), array([[0.08, 0.18, 0.22]]))
    >>> xent.cross_entropy_grad_hess([[0.0, 3.0]], [1], gamma=2.0, hessian="gauss_newton")[1].round(5)
    array([[0.0003, 0.0003]])
    """
    return _kernels.cross_entropy_grad_hess(
        logits, target, out, hessian, axis, weight, sample_weight, ignore_index, label_smoothing,
        z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip


@documented
def cross_entropy_hvp(
    logits,
    target,
    vector,
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
    Product of the Hessian of `cross_entropy` with a vector.

    .. math:: (H v)_j = s \\, U p_j (v_j - \\sum_c p_c v_c)

    for logits as they are; every option changes it as its formula says. The matrix never exists.

    Parameters
    ----------
    <logits>
    <target>
    vector : array_like of float
        v, of the shape of `logits`.
    <options of cross_entropy>

    Returns
    -------
    ndarray
        H v, of the shape and dtype of `logits`. Computed in float64. With ``reduction="none"``, that of the
        sum of the losses: no position depends on the logits of another.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`; also if `vector` does not have the shape of `logits`.

    See Also
    --------
    cross_entropy_grad, cross_entropy_grad_hess, softmax_jacobian

    References
    ----------
    .. [1] B. A. Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994),
       doi:10.1162/neco.1994.6.1.147.

    Examples
    --------
    >>> import xent
    >>> xent.cross_entropy_hvp([[1.0, 2.0, 3.0]], [2], [[1.0, 0.0, 0.0]]).round(3)
    array([[ 0.082, -0.022, -0.06 ]])
    """
    return _kernels.cross_entropy_hvp(
        logits, target, vector, axis, weight, sample_weight, ignore_index, label_smoothing, z_loss, gamma,
        temperature, logit_cap, prior, reduction,
    )  # fmt: skip
