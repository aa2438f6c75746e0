"""Distillation from the k largest probabilities of a teacher, which is what is kept of one on disk."""

from . import _kernels
from ._docs import documented


@documented
def sparse_distillation_loss(
    student_logits,
    teacher_ids,
    teacher_log_probs,
    *,
    temperature=1.0,
    tail="bucket",
    sample_weight=None,
    reduction="mean",
):
    """
    Divergence of a student's softmax from the k largest probabilities of a teacher.

    .. math:: \\sum_{j=1}^k q_j \\, (\\log q_j - \\log p_{i_j}) + t \\, (\\log t - \\log S), \\qquad
        q_j = \\exp(\\mathrm{teacher\\_log\\_probs}_j), \\quad p = \\mathrm{softmax}(\\mathrm{student} / T)

    with the classes i of the teacher, t what is left of its mass, and S that of the student in all other
    classes. This is `tail="bucket"`; see below for the others.

    Parameters
    ----------
    <student_logits of sparse>
    <teacher_ids>
    <teacher_log_probs>
    <temperature of sparse>
    <tail>
    <sample_weight of any sign>
    <reduction of positions>

    Returns
    -------
    scalar or ndarray
        The loss in nats: float64 for float64 `student_logits`, else float32. With "renormalize" it is within
        4 ulp (6 of float64) of its own value, tiny ones included; with "bucket" of that and ``abs(S - t)``,
        as S is a sum of rounded numbers; with "drop", whose terms may cancel, of ``Q (KL + abs(log Q))``
        where Q is the sum of q and KL the divergence of q / Q. Of float64, Q and t are known to half an ulp
        of 1.

    Raises
    ------
    TypeError
        If the logits or log-probabilities do not hold real numbers, or `teacher_ids` no integers.
    ValueError
        If a shape does not fit, there is no class, an id is no class or stands twice at its position, or an
        option is outside its range.

    See Also
    --------
    sparse_distillation_loss_grad, sparse_distillation_loss_value_and_grad, distillation_loss, cross_entropy

    Notes
    -----
    The rules for the mass that the k leave:

    - "bucket": all other classes count as one more, on both sides: t = max(0, 1 - sum of q), and 0 where
      the k are all classes. So the student learns how much mass lies elsewhere, but not where.
    - "renormalize": the k alone, on both sides: q is divided by its sum, p the softmax of the k logits [2]_.
      Nothing is learnt of other classes: their gradient is 0. What is added to all log-probabilities of a
      position makes no difference: they may be logits.
    - "drop": t = 0. The k, as they are, against the student's whole softmax: a loss that is least where
      p = q / sum of q, with nothing in other classes [3]_, and that may be negative.

    `temperature` divides the student's logits alone: the log-probabilities are given, and those of a teacher
    at the same temperature are ``log_softmax(teacher_logits / T)``. With all classes of that as the k,
    "renormalize" (and the others, but for rounding) is ``distillation_loss / T**2``, which has the factor
    ``T**2`` [1]_ so that the temperature does not change the size of its gradient.

    An id with log-probability -inf has no mass, but is none of the other classes. Where the student has
    none either, it counts for nothing; where the teacher has some alone, the loss is infinite. The
    log-probabilities are not checked: with a sum above 1, as rounding makes, "bucket" has t = 0.

    References
    ----------
    .. [1] G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015,
       arXiv:1503.02531, doi:10.48550/arXiv.1503.02531.
    .. [2] X. Tan, Y. Ren, D. He, T. Qin, Z. Zhao, T.-Y. Liu, "Multilingual Neural Machine Translation with
       Knowledge Distillation", 2019, arXiv:1902.10461.
    .. [3] Anshumann, M. A. Zaidi, A. Kedia et al., "Sparse Logit Sampling: Accelerating Knowledge
       Distillation in LLMs", 2025, arXiv:2503.16870, doi:10.18653/v1/2025.acl-long.885.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> student = np.array([[2.0, 1.0, 0.0, 0.0]])
    >>> ids, log_probs = [[1, 0]], np.log([[0.6, 0.3]])
    >>> for tail in ["bucket", "renormalize", "drop"]:
    ...     print(tail, xent.sparse_distillation_loss(student, ids, log_probs, tail=tail).round(4))
    bucket 0.3266
    renormalize 0.3434
    drop 0.3767
    """
    return _kernels.sparse_distillation_loss(
        *(student_logits, teacher_ids, teacher_log_probs, None, None, _kernels.want_value),
        *(temperature, tail, sample_weight, reduction),
    )


@documented
def sparse_distillation_loss_grad(
    student_logits,
    teacher_ids,
    teacher_log_probs,
    *,
    grad_output=None,
    out=None,
    temperature=1.0,
    tail="bucket",
    sample_weight=None,
    reduction="mean",
):
    """
    Gradient of `sparse_distillation_loss` with respect to the student's logits.

    .. math:: g_{i_j} = \\frac{s}{T} (W p_{i_j} - q_j), \\qquad
        g_c = \\frac{s}{T} (W S - t) \\frac{p_c}{S} \\text{ elsewhere}, \\qquad W = t + \\sum_j q_j

    with s the reduction's factor times the sample weight times `grad_output`; t = 0 for `tail="drop"`. For
    "renormalize" q and p are those of the k alone, and the gradient elsewhere is 0.

    Parameters
    ----------
    <student_logits of sparse>
    <teacher_ids>
    <teacher_log_probs>
    <grad_output>
    <out>
    <temperature of sparse>
    <tail>
    <sample_weight of any sign>
    <reduction of positions>

    Returns
    -------
    ndarray
        Of the shape and dtype of `student_logits`. Each entry is within 4 ulp (6 of float64) of the sum of
        its terms' sizes; accurate also where both probabilities are nearly equal.

    Raises
    ------
    TypeError, ValueError
        As `sparse_distillation_loss`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    sparse_distillation_loss

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> student = np.array([[2.0, 1.0, 0.0, 0.0]])
    >>> xent.sparse_distillation_loss_grad(student, [[1, 0]], np.log([[0.6, 0.3]])).round(3)
    array([[ 0.31 , -0.375,  0.033,  0.033]])
    """
    return _kernels.sparse_distillation_loss(
        *(student_logits, teacher_ids, teacher_log_probs, out, grad_output, _kernels.want_grad),
        *(temperature, tail, sample_weight, reduction),
    )


@documented
def sparse_distillation_loss_value_and_grad(
    student_logits,
    teacher_ids,
    teacher_log_probs,
    *,
    out=None,
    temperature=1.0,
    tail="bucket",
    sample_weight=None,
    reduction="mean",
):
    """
    `sparse_distillation_loss` and its gradient from one pass over the logits.

    Parameters
    ----------
    <student_logits of sparse>
    <teacher_ids>
    <teacher_log_probs>
    <out>
    <temperature of sparse>
    <tail>
    <sample_weight of any sign>
    <reduction of positions>

    Returns
    -------
    loss : scalar or ndarray
        As `sparse_distillation_loss`.
    grad : ndarray
        As `sparse_distillation_loss_grad`.

    Raises
    ------
    TypeError, ValueError
        As `sparse_distillation_loss`; also if `out` does not fit.

    See Also
    --------
    sparse_distillation_loss, sparse_distillation_loss_grad

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> student = np.array([[2.0, 1.0, 0.0]])
    >>> log_probs = xent.log_softmax(student)
    >>> loss, grad = xent.sparse_distillation_loss_value_and_grad(student, [[0, 1]], log_probs[:, :2])
    >>> print(loss.round(15), abs(grad).max() < 1e-15)
    0.0 True
    """
    return _kernels.sparse_distillation_loss(
        *(student_logits, teacher_ids, teacher_log_probs, out, None, _kernels.want_value_and_grad),
        *(temperature, tail, sample_weight, reduction),
    )
