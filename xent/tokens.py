"""Log-probabilities of some classes of each position: what language models report of their tokens."""

from . import _check, _kernels
from ._docs import documented


@documented
def token_log_probs(logits, ids, *, axis=-1, temperature=1.0, logit_cap=None, prior=None, ranks=False):
    """
    Log-probabilities of some classes of each position, and their ranks, from one reading pass of the logits.

    With u the logits after temperature, cap and prior, as in `cross_entropy`, each class y of `ids` has

    .. math:: \\log p_y = u_y - \\log \\sum_c \\exp(u_c), \\qquad \\mathrm{rank}_y = \\#\\{c : u_c > u_y\\}

    Parameters
    ----------
    <logits>
    <ids>
    <axis>
    <temperature>
    <logit_cap>
    <prior>
    <ranks>

    Returns
    -------
    log_probs : scalar or ndarray
        Log-probabilities in nats, of the shape of `ids`: float64 for float64 logits, else float32. Each is
        within 4 ulp of its own value, those next to 0 included.
    places : int or ndarray of int64
        With `ranks` only, of the shape of `ids`: how many classes have a larger logit, 0 for the largest.
        Classes with equal logits have equal ranks. The number of classes where the log-probability is NaN.

    Raises
    ------
    TypeError
        If `logits` does not hold real numbers, `ids` does not hold integers, or `ranks` is no bool.
    ValueError
        If a shape does not fit, one of `ids` is out of range (negative ones are), or an option is outside its
        range.

    See Also
    --------
    linear_token_log_probs, log_softmax, cross_entropy

    Notes
    -----
    Temperature and cap keep the order of the logits, so ranks are counted among the logits themselves. With a
    prior they are counted among the u, as they are computed with: those that differ by less than a rounding
    are equal. Servers of language models report the rank of each token in this way, from 1 on [1]_.

    The result is (u_y - m) - log1p(R), with m the largest u and R the sum of exp(u_c - m) over all other
    classes: both terms have one sign, and nothing cancels [2]_. Ranks cost little for classes that are among
    the largest, as those that a model predicts are; for 8 classes drawn at random about half as much again.

    References
    ----------
    .. [1] W. Kwon et al., "Efficient memory management for large language model serving with PagedAttention",
       SOSP 2023, doi:10.1145/3600006.3613165 (vLLM).
    .. [2] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA Journal of Numerical Analysis 41 (2021), doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import xent
    >>> logits = [[1.0, 2.0, 3.0], [30.0, 0.0, 0.0]]
    >>> xent.token_log_probs(logits, [2, 0])
    array([-4.07605964e-01, -1.87152459e-13])
    >>> log_probs, places = xent.token_log_probs(logits, [[2, 0], [0, 1]], ranks=True)
    >>> log_probs.round(3)
    array([[ -0.408,  -2.408],
           [ -0.   , -30.   ]])
    >>> places
    array([[0, 2],
           [0, 1]])
    """
    if type(ranks) is not bool:
        ranks = _check.flag(ranks, "ranks")
    log_probs, places, _ = _kernels.token_log_probs(
        logits, ids, axis, temperature, logit_cap, prior, ranks, False
    )
    return (log_probs, places) if ranks else log_probs
