"""A linear layer and the cross-entropy of its logits, with every logit in memory."""

import numpy as np

from ._common import as_float64, deliver, is_sixteen_bits, loss_dtype, result_dtype
from .cross_entropy import cross_entropy, cross_entropy_grad


def linear_cross_entropy(x, weight, target, bias=None, *, class_weight=None, chunk_bytes=None, **options):
    """`cross_entropy` of the logits x @ weight.T + bias, classes last; `options` are those of it.

    chunk_bytes changes no result.
    """
    loss = np.asarray(cross_entropy(_logits(x, weight, bias), target, weight=class_weight, **options))
    return deliver(loss, dtype=_loss_dtype(x, weight, bias))


def linear_cross_entropy_value_and_grad(
    x, weight, target, bias=None, *, class_weight=None, chunk_bytes=None, **options
):
    """`linear_cross_entropy` and the gradients of its sum by x, weight and bias (None without a bias)."""
    logits = _logits(x, weight, bias)
    loss = np.asarray(cross_entropy(logits, target, weight=class_weight, **options))
    g = cross_entropy_grad(logits, target, weight=class_weight, grad_output=np.ones(loss.shape), **options)
    return deliver(loss, dtype=_loss_dtype(x, weight, bias)), _backward(g, x, weight, bias)


def _logits(x, weight, bias):
    with np.errstate(all="ignore"):
        logits = as_float64(x) @ as_float64(weight).T
        return logits if bias is None else logits + as_float64(bias)


# logits_nc = sum_d x_nd W_cd + b_c. With g_nc the derivative of the loss by logits_nc, by the chain rule
#
#     dloss / dx_nd = sum_c g_nc W_cd        dloss / dW_cd = sum_n g_nc x_nd        dloss / db_c = sum_n g_nc


def _backward(g, x, weight, bias):
    """Return the three gradients. A position whose g is all 0, an ignored one for one, takes no part."""
    rows = g.reshape(-1, g.shape[-1])
    x_rows, w = as_float64(x).reshape(len(rows), -1 if np.size(x) else np.shape(x)[-1]), as_float64(weight)
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
