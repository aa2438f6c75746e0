"""Divergences between distributions: Kullback-Leibler from log-probabilities, distillation from logits."""

from . import _kernels
from ._docs import documented


@documented
def kl_div(log_probs, target, *, axis=-1, log_target=False, base=None, reduction="mean"):
    """
    Kullback-Leibler divergence of probabilities from log-probabilities.

    .. math:: \\sum_c t_c \\, (\\log t_c - \\mathrm{log\\_probs}_c)

    Parameters
    ----------
    <log_probs>
    <target of kl_div>
    <axis or None>
    <log_target>
    <base>
    <reduction of kl_div>

    Returns
    -------
    scalar or ndarray
        The divergence: float64 for float64 `log_probs`, else float32. The terms may cancel, and do where the
        distributions are nearly equal: it is within 4 ulp of the sum of t_c (abs(log t_c) +
        abs(log_probs_c)). `distillation_loss` avoids that, from logits.

    Raises
    ------
    TypeError
        If `log_probs` or `target` do not hold real numbers.
    ValueError
        If a shape does not fit or an option is outside its range.

    See Also
    --------
    kl_div_grad, kl_div_value_and_grad, distillation_loss, cross_entropy_probs, entropy

    Notes
    -----
    Entries with t = 0 count for nothing. "mean" is over the positions, which PyTorch calls "batchmean" (for
    matrices); with ``axis=None`` it is over the elements, as PyTorch's "mean" is, and "none" gives the terms
    one by one, as ``scipy.special.rel_entr`` does from probabilities (``scipy.special.kl_div`` adds the
    difference of the probabilities to each). A target that is NaN or negative gives its position NaN; it is
    not normalised, and may be counts.

    References
    ----------
    .. [1] S. Kullback, R. A. Leibler, "On Information and Sufficiency", Annals of Mathematical Statistics 22
       (1951), doi:10.1214/aoms/1177729694.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> print(xent.kl_div(np.log([[0.5, 0.5]]), [[1.0, 0.0]], base=2))
    1.0
    >>> xent.kl_div(np.log([[0.5, 0.5]]), [[0.75, 0.25]], axis=None, reduction="none").round(3)
    array([[ 0.304, -0.173]])
    """
    return _kernels.kl_div(
        log_probs, target, None, None, _kernels.want_value, axis, log_target, base, reduction
    )


@documented
def kl_div_grad(
    log_probs,
    target,
    *,
    grad_output=None,
    out=None,
    axis=-1,
    log_target=False,
    base=None,
    reduction="mean",
):
    """
    Gradient of `kl_div` with respect to the log-probabilities: ``-t s``.

    s is the reduction's factor times `grad_output`, t the target as probabilities.

    Parameters
    ----------
    <log_probs>
    <target of kl_div>
    <grad_output>
    <out>
    <axis or None>
    <log_target>
    <base>
    <reduction of kl_div>

    Returns
    -------
    ndarray
        Of the shape and dtype of `log_probs`, each entry within 4 ulp of its own value.

    Raises
    ------
    TypeError, ValueError
        As `kl_div`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    kl_div

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> xent.kl_div_grad(np.log([[0.5, 0.5]]), [[0.75, 0.25]])
    array([[-0.75, -0.25]])
    """
    return _kernels.kl_div(
        log_probs, target, out, grad_output, _kernels.want_grad, axis, log_target, base, reduction
    )


@documented
def kl_div_value_and_grad(
    log_probs, target, *, out=None, axis=-1, log_target=False, base=None, reduction="mean"
):
    """
    `kl_div` and its gradient from one pass over the log-probabilities.

    Parameters
    ----------
    <log_probs>
    <target of kl_div>
    <out>
    <axis or None>
    <log_target>
    <base>
    <reduction of kl_div>

    Returns
    -------
    loss : scalar or ndarray
        As `kl_div`.
    grad : ndarray
        As `kl_div_grad`.

    Raises
    ------
    TypeError, ValueError
        As `kl_div`; also if `out` does not fit.

    See Also
    --------
    kl_div, kl_div_grad

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> loss, grad = xent.kl_div_value_and_grad(np.log([[0.5, 0.5]]), [[1.0, 0.0]])
    >>> print(loss.round(4), grad[0, 0])
    0.6931 -1.0
    """
    return _kernels.kl_div(
        log_probs, target, out, None, _kernels.want_value_and_grad, axis, log_target, base, reduction
    )


# ---- distillation ----


@documented
def distillation_loss(student_logits, teacher_logits, *, axis=-1, temperature=1.0, reduction="mean"):
    """
    Divergence of a student's softmax from a teacher's, both at a temperature.

    .. math:: T^2 \\sum_c q_c \\, (\\log q_c - \\log p_c), \\qquad
        p = \\mathrm{softmax}(\\mathrm{student} / T), \\quad q = \\mathrm{softmax}(\\mathrm{teacher} / T)

    Parameters
    ----------
    <student_logits>
    <teacher_logits>
    <axis>
    <temperature>
    <reduction of positions>

    Returns
    -------
    scalar or ndarray
        The loss in nats: float64 for float64 `student_logits`, else float32. Never negative, and accurate to
        the last digits also where the student is nearly the teacher and the loss tiny.

    Raises
    ------
    TypeError
        If the logits do not hold real numbers.
    ValueError
        If a shape does not fit, there is no class, or an option is outside its range.

    See Also
    --------
    distillation_loss_grad, distillation_loss_value_and_grad, kl_div, cross_entropy

    Notes
    -----
    The factor T^2 keeps the gradient's size independent of the temperature [1]_. The sum is taken of
    ``q_c (d_c + exp(-d_c) - 1)``, ``d_c = log q_c - log p_c``, which is the same as both distributions add up
    to 1: no term is negative, and nothing cancels. Where both logits are -inf, both probabilities are 0, and
    so is the gradient.

    References
    ----------
    .. [1] G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015,
       arXiv:1503.02531, doi:10.48550/arXiv.1503.02531.

    Examples
    --------
    >>> import xent
    >>> print(xent.distillation_loss([[1.0, 2.0, 3.0]], [[1.0, 2.0, 4.0]], temperature=2.0).round(4))
    0.1207
    """
    return _kernels.distillation_loss(
        student_logits, teacher_logits, None, None, _kernels.want_value, axis, temperature, reduction
    )


@documented
def distillation_loss_grad(
    student_logits,
    teacher_logits,
    *,
    grad_output=None,
    out=None,
    axis=-1,
    temperature=1.0,
    reduction="mean",
):
    """
    Gradient of `distillation_loss` with respect to the student's logits.

    .. math:: g_c = s \\, T (p_c - q_c)

    with s the reduction's factor times `grad_output`.

    Parameters
    ----------
    <student_logits>
    <teacher_logits>
    <grad_output>
    <out>
    <axis>
    <temperature>
    <reduction of positions>

    Returns
    -------
    ndarray
        Of the shape and dtype of `student_logits`; accurate also where the two probabilities are nearly
        equal.

    Raises
    ------
    TypeError, ValueError
        As `distillation_loss`; also if `grad_output` or `out` do not fit.

    See Also
    --------
    distillation_loss

    Examples
    --------
    >>> import xent
    >>> xent.distillation_loss_grad([[1.0, 2.0, 3.0]], [[1.0, 2.0, 4.0]]).round(3)
    array([[ 0.048,  0.131, -0.179]])
    """
    return _kernels.distillation_loss(
        student_logits, teacher_logits, out, grad_output, _kernels.want_grad, axis, temperature, reduction
    )


@documented
def distillation_loss_value_and_grad(
    student_logits, teacher_logits, *, out=None, axis=-1, temperature=1.0, reduction="mean"
):
    """
    `distillation_loss` and its gradient from one pass over both logits.

    Parameters
    ----------
    <student_logits>
    <teacher_logits>
    <out>
    <axis>
    <temperature>
    <reduction of positions>

    Returns
    -------
    loss : scalar or ndarray
        As `distillation_loss`.
    grad : ndarray
        As `distillation_loss_grad`.

    Raises
    ------
    TypeError, ValueError
        As `distillation_loss`; also if `out` does not fit.

    See Also
    --------
    distillation_loss, distillation_loss_grad

    Examples
    --------
    >>> import xent
    >>> loss, grad = xent.distillation_loss_value_and_grad([[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]])
    >>> print(loss, grad)
    0.0 [[0. 0. 0.]]
    """
    return _kernels.distillation_loss(
        student_logits, teacher_logits, out, None, _kernels.want_value_and_grad, axis, temperature, reduction
    )
