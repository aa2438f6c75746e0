"""Second derivatives of the cross-entropy: one per class for boosting, and Hessian-vector products."""

import numpy as np

from . import _check, _exact, _kernels
from ._docs import documented
from ._options import Options, check_options, divisor_of
from .cross_entropy import cross_entropy
from .softmax import logsumexp, softmax

_BLOCK = 2**16  # elements of the float64 arrays that a Hessian-vector product works on: half a MiB each


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
    temperature=1.0,
    prior=None,
    reduction="mean",
):
    """
    Gradient of `cross_entropy` and one second derivative per class, for gradient boosting.

    .. math:: g_j = s \\, (U p_j - u_j) / T, \\qquad h_j = k \\, s \\, U p_j (1 - p_j) / T^2, \\qquad
       U = \\sum_c u_c

    with u the target as a distribution times the class weights, and s the reduction's factor times
    `sample_weight`. Boosting libraries add the gradients of their samples up: give them ``reduction="sum"``.

    Parameters
    ----------
    <logits>
        Row-major (N, C) or, with ``axis=0`` or in Fortran order, class-major: the results lie in memory as
        the logits do.
    <target>
    hessian : {"diagonal", "upper", "friedman", "absolute"}, optional
        The rule. "diagonal": k = 1, the diagonal of the Hessian. "upper": k = 2, a bound of the whole Hessian
        [1]_. "friedman": k = C / (C - 1) [2]_. "absolute": h is ``abs(g)``.
    out : pair of ndarray, optional
        Where to put gradient and second derivatives: the shape of `logits` and the dtype of the result. The
        first may be `logits` itself.
    <axis>
    <weight of classes>
    <sample_weight>
    <ignore_index>
    <label_smoothing>
    <temperature>
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
    """
    return _kernels.cross_entropy_grad_hess(
        logits, target, out, hessian, axis, weight, sample_weight, ignore_index, label_smoothing,
        temperature, prior, reduction,
    )  # fmt: skip


# With p.v = sum_c p_c v_c and the derivative p_c (v_c - p.v) of p_c along v, the product of a position is, by
# the transformed logits u,
#
#     cross-entropy   U p_c (v_c - p.v)                      from g_c = U p_c - u_c
#     focal           w F p_c (v_c - p.v) + w F' p_y (v_y - p.v) (p_c - [c == y])
#                                                            from g_c = w F (p_c - [c == y])
#                     F  = q^gamma (1 + gamma p l / q)       p = p_y, q = 1 - p, l = -log p
#                     F' = gamma q^(gamma - 1) (l - 2 - (gamma - 1) p l / q)      by p
#     z-loss          2 z ((p.v) p_c + L p_c (v_c - p.v))    from g_c = 2 z L p_c, L = logsumexp
#
# and by the logits x, of which u_c depends on x_c alone, with r = x / (T cap), u' = sech^2(r) / T and
# u'' = -2 tanh(r) / (T cap) u':
#
#     (H v)_c = u'_c (H_u (u' v))_c + g_c u''_c / u'_c v_c   g: the gradient by x


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
    given = Options(
        axis, weight, sample_weight, ignore_index, label_smoothing,
        z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip
    x = _check.floats(logits, "logits")
    options = check_options(given, x.shape)
    v = _check.floats(vector, "vector")
    _check.same_shape(v, x.shape, "vector", "logits")
    axis, classes = options.axis, x.shape[options.axis]
    labels, probs = _check.target_of(target, x.shape, x.dtype, axis, options.ignore_index)
    if labels is not None:
        labels = labels.copy()  # then checked: NumPy ends the process where another thread changes an index
    divisor, _ = divisor_of(options, x.shape, labels)
    if x.size == 0:
        return np.zeros(x.shape, x.dtype)
    if divisor == 0 or _exact.is_needed(x, v, options, divisor):
        return _exact.products(x, v, labels, probs, options, divisor)
    # by rows of classes; a label or sample weight is one number of a row
    rows = [None if a is None else np.moveaxis(a, axis, -1).reshape(-1, classes) for a in (x, v, probs)]
    rows += [None if a is None else a.reshape(-1) for a in (labels, options.sample_weight)]
    products = _kernels.empty(rows[0].shape, x.dtype)
    step = max(_BLOCK // classes, 1)
    with np.errstate(all="ignore"):
        for begin in range(0, len(products), step):
            block = [None if a is None else a[begin : begin + step] for a in rows]
            products[begin : begin + step] = _products(options, *block) / divisor
    return np.moveaxis(products.reshape(np.moveaxis(x, axis, -1).shape), -1, axis)


def _products(options, x, v, probs, labels, sample_weight):
    """Return H v of each row, of the sum of the losses."""
    x, v = x.astype(np.float64), v.astype(np.float64)
    u, du, d2u_over_du = _transformed(options, x)
    mass = _mass(options, probs, labels, x.shape[1])
    result = du * _products_by_u(options, u, du * v, mass, labels)
    if d2u_over_du is not None:
        plain = options._replace(axis=-1, sample_weight=None, reduction="sum")
        target = probs.astype(np.float64) if labels is None else labels
        result += _kernels.cross_entropy(x, target, None, None, _kernels.want_grad, *plain) * d2u_over_du * v
    if sample_weight is not None:
        result *= sample_weight[:, None]
    return result if labels is None else np.where(labels[:, None] == options.ignore_index, 0.0, result)


def _transformed(options, x):
    """Return u, its derivative by x, and u'' / u' (None for 0)."""
    t, cap = options.temperature, options.logit_cap
    u, du, d2u_over_du = x / t, 1.0 / t, None
    if cap is not None:
        e, slope = np.exp(-2.0 * np.abs(u / cap)), np.tanh(u / cap)
        # where t cap is 0, all logits are 0 or at the cap, and there is no u''
        d2u_over_du = np.where((slope == 0.0) | (e == 0.0), 0.0, np.divide(-2.0, t * cap) * slope)
        u, du = cap * np.tanh(u / cap), 4.0 * e / (1.0 + e) ** 2 / t
    return u if options.prior is None else u + np.log(options.prior), du, d2u_over_du


def _mass(options, probs, labels, classes):
    """Return U of each row, as a column."""
    w = np.ones(classes) if options.weight is None else options.weight
    e, rest = options.label_smoothing, options.label_smoothing * w.mean()
    if labels is None:
        return ((1.0 - e) * (probs * w).sum(axis=1, dtype=np.float64) + rest)[:, None]
    return ((1.0 - e) * w[np.where(labels == options.ignore_index, 0, labels)] + rest)[:, None]


def _products_by_u(options, u, v, mass, labels):
    """Return the product with the Hessian by u: the lines of the table above."""
    p = softmax(u)
    # v_c - p.v as a sum of differences to the most probable class, for which p.v is nearly v_c
    top = np.take_along_axis(v, p.argmax(axis=1)[:, None], axis=1)
    mean, deviation = (
        (p * v).sum(axis=1, keepdims=True),
        (v - top) - (p * (v - top)).sum(axis=1, keepdims=True),
    )
    if options.gamma == 0.0:
        product = mass * p * deviation
    else:
        counted = labels != options.ignore_index
        own = np.arange(len(u)), np.where(counted, labels, 0)
        first, second = _focal(cross_entropy(u, own[1], reduction="none"), options.gamma)
        pull = p.copy()
        pull[own] = np.expm1(-cross_entropy(u, own[1], reduction="none"))
        product = mass * (first[:, None] * p * deviation + (second * deviation[own])[:, None] * pull)
    if options.z_loss != 0.0:
        log_sum = logsumexp(u, keepdims=True)
        product += 2.0 * options.z_loss * (mean * p + log_sum * p * deviation)
    return product


def _focal(loss, gamma):
    """Return F, and F' p, of labels with these losses l.

    p l is q times p l / q: no 0 * inf. F' p is 0 at q = 0: what it is multiplied with goes there faster.
    """
    p, q = np.exp(-loss), -np.expm1(-loss)
    ratio = np.where(q == 0.0, 1.0, np.where(p == 0.0, 0.0, p * loss / q))
    factor = q**gamma * (1.0 + gamma * ratio)
    derivative = gamma * q ** (gamma - 1.0) * (q * ratio - 2.0 * p - (gamma - 1.0) * p * ratio)
    return factor, np.where(q == 0.0, 0.0, derivative)
