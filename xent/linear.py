"""A linear layer and the cross-entropy of its logits in one, without ever holding all of the logits."""

from ._docs import documented
from ._linear import loss_and_grad
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
    return loss_and_grad(x, weight, target, bias, options, chunk_bytes, False)[0]


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

    Returns
    -------
    loss : scalar or ndarray
        As `linear_cross_entropy`.
    <grads of a layer>
        Ignored positions take no part: their rows of `x` may hold anything.

    Raises
    ------
    TypeError, ValueError
        As `linear_cross_entropy`.

    See Also
    --------
    linear_cross_entropy, cross_entropy_value_and_grad

    Notes
    -----
    The gradient of 16-bit weights is summed in float32 and rounded once. Where the sums of all classes do not
    fit into half of `chunk_bytes`, the logits are computed once more for each part of the classes that does.

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
    """
    options = Options(
        -1, class_weight, sample_weight, ignore_index, label_smoothing,
        z_loss, gamma, temperature, logit_cap, prior, reduction,
    )  # fmt: skip
    return loss_and_grad(x, weight, target, bias, options, chunk_bytes, True)
