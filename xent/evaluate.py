"""Evaluation of logits against labels, and comparison of logits with others, in one pass."""

from . import _kernels
from ._docs import documented
from ._evaluation import Comparison, Evaluation, SequenceEvaluation


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
    temperature=1.0,
    calibration_bins=None,
    confusion=False,
):
    """
    Evaluate logits against labels: loss, accuracy and what else follows from one pass over the logits.

    With p = softmax(u), u = logits / temperature + log(prior) and y the label, each position gives

    .. math:: -\\log p_y, \\quad \\sum_c (p_c - [c = y])^2, \\quad -\\sum_c p_c \\log p_c, \\quad
       \\#\\{c : u_c > u_y \\text{ or } u_c = u_y, c < y\\}

    Parameters
    ----------
    <logits>
    <target of labels>
    <axis>
    <ignore_index of evaluations>
    sample_weight : array_like of float, optional
        One factor per position, of either sign, in every mean.
    top_k : int or tuple of int, optional
        The k, each at least 1, of `Evaluation.top_k_accuracy`.
    <prior>
    <base of evaluations>
    <temperature>
    calibration_bins : int, optional
        The number of bins of equal width for `Evaluation.expected_calibration_error` and
        `Evaluation.reliability`; 15 is usual. None: neither is there.
    confusion : bool or "per_class", optional
        True: count each pair of label and prediction for `Evaluation.confusion_matrix`, C x C numbers.
        "per_class": for each class alone, for `Evaluation.per_class`, which True gives too.

    Returns
    -------
    Evaluation
        Its attributes are count, loss, loss_standard_error, perplexity, accuracy, accuracy_standard_error,
        top_k_accuracy, classification_error, mse, entropy (of the predictions), label_entropy (H) and
        mutual_information (H - loss); where asked for, expected_calibration_error, reliability,
        confusion_matrix and per_class. ``bits_per(n_bytes)`` gives bits per byte, and ``as_dict()`` all
        numbers. Evaluations of chunks add up with ``+`` or ``sum``.

    Raises
    ------
    TypeError
        If `logits` does not hold real numbers or `target` does not hold integers.
    ValueError
        If a shape does not fit, a label is out of range, or an option is outside its range.

    See Also
    --------
    cross_entropy, evaluate_sequences, compare

    Notes
    -----
    The loss estimates the entropy of the labels given the input, from above, so that H - loss estimates the
    information that the input has about the label, from below [1]_. Sums are accumulated in float64.

    The expected calibration error [2]_ is the mean over the positions of the distance between accuracy and
    mean confidence in their bin. A position that holds a NaN, or nothing but -inf, is never right, and no
    class is predicted there.

    References
    ----------
    .. [1] C. E. Shannon, "A mathematical theory of communication", Bell System Technical Journal 27 (1948),
       doi:10.1002/j.1538-7305.1948.tb01338.x.
    .. [2] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML
       (2017), arXiv:1706.04599.

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
    >>> xent.evaluate(logits, [0, 1, 2], confusion=True).confusion_matrix
    array([[1, 0, 0],
           [0, 1, 0],
           [1, 0, 0]])
    """
    return Evaluation(
        *_kernels.evaluate(
            logits,
            target,
            axis,
            ignore_index,
            sample_weight,
            top_k,
            prior,
            base,
            temperature,
            calibration_bins,
            confusion,
        )
    )


@documented
def evaluate_sequences(
    logits, target, groups, *, axis=-1, ignore_index=-100, prior=None, base=None, temperature=1.0
):
    """
    Evaluate sequences of labels: for each group of positions, how probable all of its labels are.

    With p as in `evaluate`, the group g has

    .. math:: \\sum_{n \\in g} \\log p_{n, y_n}

    This is how benchmarks of language models score a completion: by the logarithm of its probability, and by
    whether greedy decoding would have written it.

    Parameters
    ----------
    <logits>
    <target of labels>
    groups : array_like of int
        Which group each position belongs to, in any order: of the shape of the positions.
    <axis>
    <ignore_index of evaluations>
    <prior>
    <base of evaluations>
    <temperature>

    Returns
    -------
    SequenceEvaluation
        Its attributes are arrays of a number per group: groups (ascending), log_prob, tokens, greedy (whether
        each label has the largest logit), mean_log_prob and perplexity; ``result[g]`` is what there is of the
        group g. Groups add up with ``+`` or ``sum``: those of the same number become one.

    Raises
    ------
    TypeError
        If `logits` does not hold real numbers, or `target` or `groups` does not hold integers.
    ValueError
        If a shape does not fit, a label is out of range, or an option is outside its range.

    See Also
    --------
    evaluate

    Notes
    -----
    Positions whose label is `ignore_index`, such as those of prompts and padding, count for nothing, but
    their groups are there: without any other position with log_prob 0, no tokens, and greedy. A position that
    holds a NaN, or nothing but -inf, is never greedy.

    Examples
    --------
    Two completions, of two tokens and of one, after a prompt:

    >>> import xent
    >>> logits = [[9.0, 9.0, 9.0], [2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0]]
    >>> result = xent.evaluate_sequences(logits, [-100, 0, 1, 2], [0, 0, 0, 1])
    >>> result.log_prob.round(4), result.tokens, result.greedy
    (array([-0.5025, -1.5514]), array([2, 1]), array([ True, False]))
    >>> result[1].greedy
    False
    """
    return SequenceEvaluation(
        *_kernels.evaluate_sequences(logits, target, groups, axis, ignore_index, prior, base, temperature)
    )


@documented
def compare(logits_a, logits_b, target=None, *, axis=-1, ignore_index=-100, base=None, temperature=1.0):
    """
    Compare logits, such as those of a quantised model (b), with others (a), in one pass over both.

    With a = softmax(logits_a / temperature) and b likewise, each position gives

    .. math:: KL(a \\| b) = \\sum_c a_c (\\log a_c - \\log b_c)

    and whether both have the same class with the largest logit; with labels y also -log a_y, -log b_y and the
    change b_y - a_y.

    Parameters
    ----------
    logits_a : array_like of float, shape (..., C, ...)
        Unnormalised log-probabilities, of the model that the other is measured by.
    logits_b : array_like of float
        The other's, of the shape of `logits_a`. Of two dtypes both take the wider one.
    target : array_like of int, optional
        Labels, of the shape of the positions, in ``[0, C)`` or `ignore_index`.
    <axis>
    <ignore_index of evaluations>
    <base of evaluations>
    <temperature>

    Returns
    -------
    Comparison
        Its attributes are count, kl (the mean), kl_standard_error, ``kl_quantile(q)``, same_top (a share) and
        same_top_standard_error; with a target loss_a, loss_b, loss_ratio, perplexity_a, perplexity_b,
        perplexity_ratio, perplexity_ratio_standard_error, probability_change (the mean) and
        rms_probability_change. ``as_dict()`` gives all numbers. Comparisons of chunks add up with ``+`` or
        ``sum``; for exact quantiles they keep 4 bytes a position (8 for float64 logits).

    Raises
    ------
    TypeError
        If the logits do not hold real numbers or `target` does not hold integers.
    ValueError
        If a shape does not fit, a label is out of range, or an option is outside its range.

    See Also
    --------
    distillation_loss : the same divergence, as a loss with a gradient.
    evaluate

    Notes
    -----
    The divergence [1]_ is added up from terms that are never negative, so that it is accurate where b is
    nearly a. It is infinite where b has no probability and a has. Positions that hold a NaN, or nothing but
    -inf, never have the same largest class.

    References
    ----------
    .. [1] S. Kullback, R. A. Leibler, "On information and sufficiency", Annals of Mathematical Statistics 22
       (1951), doi:10.1214/aoms/1177729694.

    Examples
    --------
    >>> import xent
    >>> a = [[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0]]
    >>> b = [[2.0, 1.5, 0.0], [0.0, 2.5, 0.0], [0.0, 1.0, 0.0]]
    >>> result = xent.compare(a, b, [0, 1, 2])
    >>> result
    Comparison(count=3, kl=0.1337 nats, median=0.02499, 99%=0.3574, same_top=0.6667, loss_a=0.6847, \
loss_b=0.7528, perplexity_ratio=1.071)
    >>> result.kl_quantile([0.5, 0.95]).round(4)
    array([0.025 , 0.3303])
    """
    return Comparison(*_kernels.compare(logits_a, logits_b, target, axis, ignore_index, base, temperature))
