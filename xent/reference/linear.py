"""A linear layer with the cross-entropy or log-probabilities of its logits, with every logit in memory."""

import math

import numpy as np

from ._common import as_float64, deliver, is_sixteen_bits, loss_dtype, plain, result_dtype
from .cross_entropy import Options, cross_entropy, cross_entropy_grad, transformed
from .softmax import log_probabilities
from .tokens import of_ids


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
    """`cross_entropy` of the logits x @ weight.T + bias, classes last; its options are those of it.

    chunk_bytes changes no result.
    """
    of_layer = class_weight, sample_weight, ignore_index, label_smoothing, z_loss, gamma, temperature
    options = Options(-1, *of_layer, logit_cap, prior, reduction)._asdict()
    loss = np.asarray(cross_entropy(_logits(x, weight, bias), target, **options))
    return deliver(loss, dtype=_loss_dtype(x, weight, bias))


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
    """`linear_cross_entropy` and the gradients of it, times `grad_output`, by x, weight and bias.

    Without reduction those of the sum of the losses, each times its number of `grad_output`: a position whose
    number is 0 takes no part. A gradient that `needs` leaves out is None, and that by a bias without one.
    """
    of_layer = class_weight, sample_weight, ignore_index, label_smoothing, z_loss, gamma, temperature
    options = Options(-1, *of_layer, logit_cap, prior, reduction)._asdict()
    logits = _logits(x, weight, bias)
    loss = np.asarray(cross_entropy(logits, target, **options))
    upstream = np.ones(loss.shape) if grad_output is None else as_float64(grad_output)
    g = cross_entropy_grad(logits, target, grad_output=upstream, **options)
    g = np.where((np.broadcast_to(upstream, logits.shape[:-1]) == 0)[..., None], 0.0, g)
    grads = (
        grad if needed else None for grad, needed in zip(_backward(g, x, weight, bias), needs, strict=True)
    )
    return deliver(loss, dtype=_loss_dtype(x, weight, bias)), tuple(grads)


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
    """`token_log_probs` of x @ weight.T + bias, and the entropy -sum_c p_c log p_c of each position.

    chunk_bytes changes no result.
    """
    logits, dtype = _logits(x, weight, bias), _loss_dtype(x, weight, bias)
    options = Options(temperature=temperature, logit_cap=logit_cap, prior=prior)
    with np.errstate(all="ignore"):
        u, _, _ = transformed(logits, options)
        log_p = log_probabilities(u)
        terms = np.where(log_p == -np.inf, 0.0, np.exp(log_p) * log_p)
    found, places = of_ids(log_p, logits if prior is None else u, plain(ids))
    results = [deliver(found, dtype=dtype)]
    if ranks:
        results.append(places[()])
    if entropy:
        results.append(deliver(0.0 - terms.sum(axis=-1), dtype=dtype))
    return tuple(results) if len(results) > 1 else results[0]


def _logits(x, weight, bias):
    with np.errstate(all="ignore"):
        logits = as_float64(x) @ as_float64(weight).T
        return logits if bias is None else logits + as_float64(bias)


# logits_nc = sum_d x_nd W_cd + b_c. With g_nc the derivative of the loss by logits_nc, by the chain rule
#
#     dloss / dx_nd = sum_c g_nc W_cd        dloss / dW_cd = sum_n g_nc x_nd        dloss / db_c = sum_n g_nc


def _backward(g, x, weight, bias):
    """Return the three gradients. A position whose g is all 0, an ignored one for one, takes no part."""
    positions = math.prod(g.shape[:-1])  # -1 would not do where there are no classes or no features
    rows, w = g.reshape(positions, g.shape[-1]), as_float64(weight)
    x_rows = as_float64(x).reshape(positions, np.shape(x)[-1])
    used = (rows != 0).any(axis=-1)
    grad_x = np.zeros(x_rows.shape)
    with np.errstate(all="ignore"):
        grad_x[used] = rows[used] @ w
        grad_w = rows[used].T @ x_rows[used]
    grad_x = deliver(grad_x.reshape(np.shape(x)), dtype=result_dtype(x))
    grad_b = None if bias is None else deliver(rows.sum(axis=0), dtype=result_dtype(bias))
    return grad_x, deliver(grad_w, dtype=result_dtype(weight)), grad_b


def _loss_dtype(*arrays):
    """float32 if all of the arrays (or None) have 16 bits, else float64."""
    sixteen = all(a is None or is_sixteen_bits(np.asarray(a).dtype) for a in arrays)
    return loss_dtype(arrays[0]) if sixteen else np.dtype(np.float64)
