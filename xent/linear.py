"""A linear layer with the cross-entropy or log-probabilities of its logits, never holding all of these."""

from . import _check
from ._docs import documented
from ._linear import loss_and_grad, token_log_probs
from ._options import Options


@documented
def linear_cross_entropy(
    x,
    weight,
    target,
    bias=None,
    *,
    class_weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    gamma=0.0,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    reduction="mean",
    chunk_bytes=None,
):
    """
    Cross-entropy of the logits of a linear layer, without ever holding all of the logits.

    .. math:: \\mathrm{cross\\_entropy}(x W^T + b, \\mathrm{target})

    Parameters
    ----------
    <x of a layer>
        <read in parts>
    <weight of a layer>
    <target of a layer>
    <bias of a layer>
    <class_weight>
    <options of a layer>
    <chunk_bytes>

    Returns
    -------
    <loss of a layer>

    Raises
    ------
    TypeError
        If an array does not hold real numbers or `target` holds neither labels nor probabilities.
    ValueError
        If a shape does not fit, a label is out of range, or an option is outside its range.

    See Also
    --------
    linear_cross_entropy_value_and_grad, cross_entropy, sampled_softmax_cross_entropy

    Notes
    -----
    The logits are products in float64 if any of the three arrays is float64 (as integers become), else in
    float32, 16-bit numbers included; the loss is exact for these logits, as `cross_entropy` is. A product of
    D features has a rounding error of about ``sqrt(D)`` units in the last place of ``sum_d |x_d W_cd|``.

    How the work is cut depends on shapes and `chunk_bytes` alone, never on the number of threads. The matrix
    products are NumPy's, however: whether its BLAS gives the same last bits for another number of its own
    threads (`OPENBLAS_NUM_THREADS`, ``threadpoolctl``) is its own affair, and OpenBLAS does not promise it.

    *Contrastive learning.* The InfoNCE loss [1]_ of queries and keys is this function with the keys as
    `weight`: for query n, key n is the label and all other keys are negatives. See the example.

    References
    ----------
    .. [1] A. van den Oord, Y. Li, O. Vinyals, "Representation learning with contrastive predictive coding",
       2018, arXiv:1807.03748.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> x = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> weight = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    >>> print(xent.linear_cross_entropy(x, weight, [0, 1]).round(4))
    0.2753

    InfoNCE, with keys that are noisy queries:

    >>> rng = np.random.default_rng(0)
    >>> queries = rng.standard_normal((8, 16))
    >>> keys = queries + 0.5 * rng.standard_normal((8, 16))
    >>> queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    >>> keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    >>> matching = xent.linear_cross_entropy(queries, keys, np.arange(8), temperature=0.1)
    >>> reversed_keys = xent.linear_cross_entropy(queries, keys[::-1], np.arange(8), temperature=0.1)
    >>> bool(matching < 0.1 < np.log(8) < reversed_keys)
    True
    """
    options = Options(
        -1, class_weight, sample_weight, ignore_index, label_smoothing,
        z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip
    return loss_and_grad(x, weight, target, bias, options, chunk_bytes)[0]


@documented
def linear_cross_entropy_value_and_grad(
    x,
    weight,
    target,
    bias=None,
    *,
    class_weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    gamma=0.0,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    reduction="mean",
    chunk_bytes=None,
    grad_output=None,
    needs=(True, True, True),
):
    """
    `linear_cross_entropy` and its gradients, without ever holding all of the logits.

    .. math:: \\nabla_x = G W, \\qquad \\nabla_W = G^T x, \\qquad \\nabla_b = \\sum_n g_n

    with G the gradient of `cross_entropy` by the logits.

    Parameters
    ----------
    <x of a layer>
        <read in parts>
    <weight of a layer>
    <target of a layer>
    <bias of a layer>
    <class_weight>
    <options of a layer>
    <chunk_bytes>
    grad_output : array_like of float, optional
        Upstream gradient, which multiplies the gradients and not the loss: with ``reduction="none"`` one
        number of either sign for each position, else one number. None means 1. In a policy gradient it is the
        advantage of each token.
    <needs>

    Returns
    -------
    loss : scalar or ndarray
        As `linear_cross_entropy`.
    <grads of a layer>
        One that `needs` leaves out is None and costs nothing. Positions that are ignored or have a weight or
        an upstream gradient of 0 take no part in them: their rows of `x` may hold anything.

    Raises
    ------
    TypeError, ValueError
        As `linear_cross_entropy`; also if `grad_output` does not have the shape of the loss, or `needs` is
        anything but three bools.

    See Also
    --------
    linear_cross_entropy, linear_token_log_probs, cross_entropy_value_and_grad

    Notes
    -----
    With the probabilities pi and advantages A, what REINFORCE [1]_ descends is
    :math:`-\\sum_n A_n \\log \\pi_n(y_n)`, and its gradients are these with ``reduction="none"`` and
    ``grad_output=A``.

    The gradient of 16-bit weights is summed in float32 and rounded once. Where the sums of all classes do not
    fit into half of `chunk_bytes`, the logits are computed once more for each part of the classes that does.

    References
    ----------
    .. [1] R. J. Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
       learning", Machine Learning 8 (1992), doi:10.1007/BF00992696.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> x = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> weight = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    >>> loss, (grad_x, grad_weight, grad_bias) = xent.linear_cross_entropy_value_and_grad(x, weight, [0, 1])
    >>> print(loss.round(4))
    0.2753
    >>> grad_weight.round(3)
    array([[-0.167,  0.117],
           [ 0.122, -0.133],
           [ 0.045,  0.016]])

    A policy gradient: the first token was better than expected, the second worse. The head stays as it is.

    >>> _, (grad_x, _, _) = xent.linear_cross_entropy_value_and_grad(
    ...     x, weight, [0, 1], reduction="none", grad_output=[1.5, -0.5], needs=(True, False, False)
    ... )
    >>> grad_x.round(3)
    array([[-0.637,  0.232],
           [-0.051,  0.075]])
    """
    needs = _check.needs(needs, ("grad_x", "grad_weight", "grad_bias"))
    options = Options(
        -1, class_weight, sample_weight, ignore_index, label_smoothing,
        z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip
    return loss_and_grad(x, weight, target, bias, options, chunk_bytes, needs, grad_output)


@documented
def linear_token_log_probs(
    x,
    weight,
    ids,
    bias=None,
    *,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    ranks=False,
    entropy=False,
    chunk_bytes=None,
):
    """
    Log-probabilities of some classes of a linear layer, without ever holding all of the logits.

    With u the logits x W^T + b after temperature, cap and prior, as in `cross_entropy`, each class y of `ids`
    has

    .. math:: \\log p_y = u_y - \\log \\sum_c \\exp(u_c), \\qquad \\mathrm{rank}_y = \\#\\{c : u_c > u_y\\},
        \\qquad H = -\\sum_c p_c \\log p_c

    Parameters
    ----------
    <x of a layer>
        <read in parts>
    <weight of a layer>
    ids : array_like of int
        Numbers of classes, in ``[0, C)``: one for each position, in the shape of the positions, or K of them,
        (..., K).
    <bias of a layer>
    <temperature>
    <logit_cap>
    <prior>
    <ranks>
    entropy : bool, optional
        Whether the entropy of each prediction is wanted too.
    <chunk_bytes>

    Returns
    -------
    log_probs : scalar or ndarray
        Log-probabilities in nats, of the shape of `ids`: float64 if any of `x`, `weight` and `bias` is, else
        float32.
    places : int or ndarray of int64
        With `ranks` only: how many classes have a larger logit, as of `token_log_probs`.
    entropies : scalar or ndarray
        With `entropy` only: H of each position in nats, of the same dtype.

    Raises
    ------
    TypeError
        If an array does not hold real numbers, `ids` does not hold integers, or `ranks` or `entropy` is no
        bool.
    ValueError
        If a shape does not fit, one of `ids` is out of range (negative ones are), or an option is outside its
        range.

    See Also
    --------
    token_log_probs, linear_cross_entropy, linear_cross_entropy_value_and_grad

    Notes
    -----
    What policy gradients, preference losses and speculative decoding ask of a language model. The results are
    exact for the logits as they were computed; these are rounded as those of `linear_cross_entropy`, whose
    notes hold here too: among logits that differ by less than a rounding, ranks may be others in chunks of
    another size. The entropy is the sum of p_c (m - u_c), with m the largest u, and log1p(R) [1]_: no term is
    negative.

    References
    ----------
    .. [1] P. Blanchard, D. J. Higham, N. J. Higham, "Accurately computing the log-sum-exp and softmax
       functions", IMA Journal of Numerical Analysis 41 (2021), doi:10.1093/imanum/draa038.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> x = np.array([[1.0, 0.0], [0.0, 2.0]])
    >>> weight = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    >>> log_probs, entropies = xent.linear_token_log_probs(x, weight, [[0, 2], [1, 0]], entropy=True)
    >>> log_probs.round(3)
    array([[-0.408, -2.408],
           [-0.143, -2.143]])
    >>> entropies.round(3)
    array([0.832, 0.441])
    """
    if type(ranks) is not bool:
        ranks = _check.flag(ranks, "ranks")
    if type(entropy) is not bool:
        entropy = _check.flag(entropy, "entropy")
    options = Options(temperature=temperature, logit_cap=logit_cap, prior=prior)
    found = token_log_probs(x, weight, ids, bias, options, ranks, entropy, chunk_bytes)
    return tuple(k for k in found if k is not None) if ranks or entropy else found[0]
