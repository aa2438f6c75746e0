"""Evaluation of logits against labels, in one pass."""

from . import _kernels
from ._docs import documented
from ._evaluation import Evaluation


@documented
def evaluate(
    logits,
    target,
    *,
    axis=-1,
    ignore_index=-100,
    sample_weight=None,
    top_k=(1,),
    prior=None,
    base=None,
):
    """
    Evaluate logits against labels: loss, accuracy and what else follows from one pass over the logits.

    With p = softmax(u), u = logits + log(prior) and y the label, each position gives

    .. math:: -\\log p_y, \\quad \\sum_c (p_c - [c = y])^2, \\quad -\\sum_c p_c \\log p_c, \\quad
       \\#\\{c : u_c > u_y \\text{ or } u_c = u_y, c < y\\}

    Parameters
    ----------
    <logits>
    <target of labels>
    <axis>
    ignore_index : int, optional
        Positions with this label are not counted.
    sample_weight : array_like of float, optional
        One factor per position, of either sign, in every mean.
    top_k : int or tuple of int, optional
        The k, each at least 1, of `Evaluation.top_k_accuracy`.
    <prior>
    base : float, optional
        Base, greater than 1, of the logarithms: 2 for bits, 10 for dits, None for nats.

    Returns
    -------
    Evaluation
        Its attributes are count, loss, perplexity, accuracy, top_k_accuracy, classification_error, mse,
        entropy (of the predictions), label_entropy (H) and mutual_information (H - loss). Evaluations of
        chunks add up with ``+`` or ``sum``.

    Raises
    ------
    TypeError
        If `logits` does not hold real numbers or `target` does not hold integers.
    ValueError
        If a shape does not fit, a label is out of range, or an option is outside its range.

    See Also
    --------
    cross_entropy

    Notes
    -----
    The loss estimates the entropy of the labels given the input, from above, so that H - loss estimates the
    information that the input has about the label, from below [1]_. Sums are accumulated in float64.

    References
    ----------
    .. [1] C. E. Shannon, "A mathematical theory of communication", Bell System Technical Journal 27 (1948),
       doi:10.1002/j.1538-7305.1948.tb01338.x.

    Examples
    --------
    >>> import xent
    >>> logits = [[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0]]
    >>> result = xent.evaluate(logits, [0, 1, 2], top_k=(1, 3), base=2)
    >>> result.count, round(result.accuracy, 4), round(result.loss, 4), result.top_k_accuracy[3]
    (3, 0.6667, 0.9878, 1.0)
    >>> first, rest = xent.evaluate(logits[:1], [0]), xent.evaluate(logits[1:], [1, 2])
    >>> round((first + rest).accuracy, 4)
    0.6667
    """
    return Evaluation(
        *_kernels.evaluate(logits, target, axis, ignore_index, sample_weight, top_k, prior, base)
    )
