"""Evaluation of logits against labels, in one pass."""

import numpy as np

from . import _check, _kernels
from ._call import call
from ._docs import documented
from ._evaluation import Evaluation
from ._softmax_loss import Options, checked, counted_labels, in_two
from ._threads import WORTH_A_THREAD, threads_for


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
        One factor per position, not negative, in every mean.
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
    plain = sample_weight is None and prior is None and base is None
    if plain and type(top_k) is tuple and top_k == (1,) and type(top_k[0]) is int:
        quick = _kernels.quick_evaluate(logits, target, WORTH_A_THREAD, axis, ignore_index)
        if quick is not None:
            count, (loss, squares, entropy, first), label_weights = quick
            return Evaluation(
                count, float(count), loss, first, top_k, (first,), squares, entropy, label_weights
            )
    x = _check.floats(logits, "logits")
    options = checked(Options(axis, None, sample_weight, ignore_index, prior=prior), x)
    top_k = _top_k(top_k)
    if base is not None:
        base = _check.real(base, "base", 1.0, open_low=True)
    axis, sample, ignore_index = options.axis, options.sample_weight, options.ignore_index
    labels = _check.labels_of(target, x, axis, ignore_index)
    label_weights = np.zeros(x.shape[axis])
    count, mass = counted_labels(options, x.shape, labels, label_weights)
    most = min(max(top_k, default=1), max(x.shape[axis], 1))
    rank = np.empty(labels.shape, np.int64) if most > 1 else None
    loss, squares, entropy, first = call(
        _kernels.evaluate,
        (x,),
        (None,),
        axis,
        labels,
        ignore_index,
        in_two(options.prior, _check.loss_dtype(x.dtype)),
        sample,
        rank,
        most,
        threads_for(x.size),
    )
    hits = [first]
    if rank is not None:  # of the ranks 0 to most - 1; ignored positions have `most`
        weights = None if sample is None else sample.reshape(-1)
        hits = np.bincount(rank.reshape(-1), weights, most + 1)[:most].cumsum()
    return Evaluation(
        count=count,
        total_weight=float(mass),
        loss_sum=loss,
        correct_sum=first,
        top_k=top_k,
        top_k_sums=tuple(float(hits[min(k, most) - 1]) for k in top_k),
        squared_error_sum=squares,
        entropy_sum=entropy,
        label_weights=label_weights,
        base=base,
    )


def _top_k(top_k):
    """Return a tuple of ints."""
    if not isinstance(top_k, (tuple, list, np.ndarray)):
        top_k = (top_k,)
    return tuple(_check.integer(k, "top_k", 1) for k in top_k)
