"""Losses of probabilities: cross-entropy, binary cross-entropy, entropy."""

from . import _kernels
from ._docs import documented


@documented
def cross_entropy_probs(probs, target, *, axis=-1, clip=None, base=None, reduction="mean"):
    """
    Cross-entropy between a target and probabilities.

    .. math:: -\\log p_y  \\quad\\text{or}\\quad  -\\sum_c t_c \\log p_c

    for an index target y or a probability target t.

    Parameters
    ----------
    <probs>
    <target of probs>
    <axis>
    <clip>
    <base>
    <reduction of positions>

    Returns
    -------
    scalar or ndarray
        The loss: float64 for float64 `probs`, else float32. Each position's loss is within 4 ulp of its own
        value where all terms have one sign, as those of probabilities do.

    Raises
    ------
    TypeError
        If `probs` does not hold real numbers or `target` holds neither labels nor probabilities.
    ValueError
        If a shape does not fit, a label is out of range, or an option is outside its range.

    See Also
    --------
    cross_entropy, cross_entropy_probs_grad, cross_entropy_probs_value_and_grad, entropy

    Notes
    -----
    From logits, `cross_entropy` is faster and more accurate: 1 - p is lost once p is rounded. 0 log 0 is 0,
    and a target of probability 0 has an infinite loss, unless `clip` bounds it [1]_. Numbers that are no
    probabilities are not looked for: one that is negative or NaN gives its position NaN (with labels, that of
    the label does).

    References
    ----------
    .. [1] T. M. Cover, J. A. Thomas, "Elements of Information Theory", 2nd edition, Wiley 2006,
       doi:10.1002/047174882X.

    Examples
    --------
    >>> import xent
    >>> probs = [[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]
    >>> xent.cross_entropy_probs(probs, [1, 1], base=2, reduction="none")
    array([2., 0.])
    >>> print(xent.cross_entropy_probs(probs, [1, 0], clip=1e-10).round(4))
    12.2061
    """
    return _kernels.cross_entropy_probs(
        probs, target, None, None, _kernels.want_value, axis, clip, base, reduction
    )


@documented
def cross_entropy_probs_grad(
    probs, target, *, grad_output=None, out=None, axis=-1, clip=None, base=None, reduction="mean"
):
    """
    Gradient of `cross_entropy_probs` with respect to the probabilities.

    .. math:: g_c = -s \\, t_c / p_c

    with s the reduction's factor times `grad_output`; 0 where p_c is clipped.

    Parameters
    ----------
    <probs>
    <target of probs>
    <grad_output>
    <out>
    <axis>
    <clip>
    <base>
    <reduction of positions>

    Returns
    -------
    ndarray
        Of the shape and dtype of `probs`, each entry within 4 ulp of its own value.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy_probs`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    cross_entropy_probs

    Examples
    --------
    >>> import xent
    >>> xent.cross_entropy_probs_grad([0.5, 0.25, 0.25], 1)
    array([ 0., -4.,  0.])
    """
    return _kernels.cross_entropy_probs(
        probs, target, out, grad_output, _kernels.want_grad, axis, clip, base, reduction
    )


@documented
def cross_entropy_probs_value_and_grad(
    probs, target, *, out=None, axis=-1, clip=None, base=None, reduction="mean"
):
    """
    `cross_entropy_probs` and its gradient from one pass over the probabilities.

    Parameters
    ----------
    <probs>
    <target of probs>
    <out>
    <axis>
    <clip>
    <base>
    <reduction of positions>

    Returns
    -------
    loss : scalar or ndarray
        As `cross_entropy_probs`.
    grad : ndarray
        As `cross_entropy_probs_grad`.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy_probs`; also if `out` does not fit.

    See Also
    --------
    cross_entropy_probs, cross_entropy_probs_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.cross_entropy_probs_value_and_grad([[0.5, 0.5]], [[1.0, 0.0]])
    >>> print(loss.round(4))
    0.6931
    >>> grad
    array([[-2.,  0.]])
    """
    return _kernels.cross_entropy_probs(
        probs, target, out, None, _kernels.want_value_and_grad, axis, clip, base, reduction
    )


@documented
def binary_cross_entropy(probs, target, *, weight=None, clip=None, base=None, reduction="mean"):
    """
    Binary cross-entropy between targets and probabilities, elementwise.

    .. math:: -w \\, (t \\log p + (1 - t) \\log(1 - p))

    Parameters
    ----------
    <probs of elements>
    <target of elements>
    <weight of elements>
    <clip of elements>
    <base>
    <reduction of elements>

    Returns
    -------
    scalar or ndarray
        The loss: float64 for float64 `probs`, else float32. Each element's loss is within 4 ulp of its own
        value, also for p next to 0 or 1. Where weights have both signs, the bound of a sum is at the scale of
        the magnitudes.

    Raises
    ------
    TypeError
        If `probs`, `target` or `weight` do not hold real numbers.
    ValueError
        If a shape does not fit, a target is outside [0, 1], or an option is outside its range.

    See Also
    --------
    binary_cross_entropy_grad, binary_cross_entropy_value_and_grad, cross_entropy_probs

    Notes
    -----
    0 log 0 is 0, and infinite losses stay infinite unless `clip` bounds the probabilities. (PyTorch bounds
    the logarithms by -100.) Next to 1 the bound is on 1 - p, so that it holds also where 1 - e rounds to 1. A
    probability that is NaN gives its element NaN, unless its weight is 0. Factors of any size enter before a
    loss or gradient is rounded.
    Others outside [0, 1] are not looked for: they give NaN or, with a target of 0 or 1, a loss that may be
    negative.

    References
    ----------
    .. [1] I. J. Good, "Rational Decisions", Journal of the Royal Statistical Society B 14 (1952),
       doi:10.1111/j.2517-6161.1952.tb00104.x.

    Examples
    --------
    >>> import xent
    >>> xent.binary_cross_entropy([0.5, 0.25, 1.0], [1, 0, 1], base=2, reduction="none").round(4)
    array([1.   , 0.415, 0.   ])
    """
    return _kernels.binary_cross_entropy(
        probs, target, None, None, _kernels.want_value, weight, clip, base, reduction
    )


@documented
def binary_cross_entropy_grad(
    probs, target, *, grad_output=None, out=None, weight=None, clip=None, base=None, reduction="mean"
):
    """
    Gradient of `binary_cross_entropy` with respect to the probabilities.

    .. math:: g = s w \\, (p - t) / (p \\, (1 - p))

    with s the reduction's factor times `grad_output`; 0 where p is clipped.

    Parameters
    ----------
    <probs of elements>
    <target of elements>
    <grad_output>
    <out>
    <weight of elements>
    <clip of elements>
    <base>
    <reduction of elements>

    Returns
    -------
    ndarray
        Of the shape and dtype of `probs`, each entry within 4 ulp of its own value: -s w / p for t = 1 and
        s w / (1 - p) for t = 0.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    binary_cross_entropy

    Examples
    --------
    >>> import xent
    >>> xent.binary_cross_entropy_grad([0.5, 0.75], [1, 0], reduction="sum")
    array([-2.,  4.])
    """
    return _kernels.binary_cross_entropy(
        probs, target, out, grad_output, _kernels.want_grad, weight, clip, base, reduction
    )


@documented
def binary_cross_entropy_value_and_grad(
    probs, target, *, out=None, weight=None, clip=None, base=None, reduction="mean"
):
    """
    `binary_cross_entropy` and its gradient from one pass over the probabilities.

    Parameters
    ----------
    <probs of elements>
    <target of elements>
    <out>
    <weight of elements>
    <clip of elements>
    <base>
    <reduction of elements>

    Returns
    -------
    loss : scalar or ndarray
        As `binary_cross_entropy`.
    grad : ndarray
        As `binary_cross_entropy_grad`.

    Raises
    ------
    TypeError, ValueError
        As `binary_cross_entropy`; also if `out` does not fit.

    See Also
    --------
    binary_cross_entropy, binary_cross_entropy_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.binary_cross_entropy_value_and_grad([0.5, 0.5], [1, 0])
    >>> print(loss.round(4), grad)
    0.6931 [-1.  1.]
    """
    return _kernels.binary_cross_entropy(
        probs, target, out, None, _kernels.want_value_and_grad, weight, clip, base, reduction
    )


@documented
def entropy(probs, *, axis=-1, base=None):
    """
    Shannon entropy of probabilities.

    .. math:: -\\sum_c p_c \\log p_c

    Parameters
    ----------
    <probs>
    <axis>
    <base>

    Returns
    -------
    scalar or ndarray
        One entropy per position: float64 for float64 `probs`, else float32, within 4 ulp of its own value. 0
        for no classes.

    Raises
    ------
    TypeError
        If `probs` does not hold real numbers.
    ValueError
        If `axis` is out of bounds or `base` out of range.

    See Also
    --------
    cross_entropy_probs, kl_div

    Notes
    -----
    0 log 0 is 0. A probability that is negative or NaN gives its position NaN. (``scipy.stats.entropy``
    normalises, and ``scipy.special.entr`` gives -inf for negative numbers.)

    References
    ----------
    .. [1] C. E. Shannon, "A Mathematical Theory of Communication", Bell System Technical Journal 27 (1948),
       doi:10.1002/j.1538-7305.1948.tb01338.x.

    Examples
    --------
    >>> import xent
    >>> print(xent.entropy([0.5, 0.25, 0.25], base=2))
    1.5
    """
    return _kernels.entropy(probs, axis, base)
