"""Losses over a few sampled classes instead of all of them: each score is one literal sum."""

import math

import numpy as np

from ._common import as_float64, deliver, is_sixteen_bits, plain, result_dtype


def nce_loss(x, weight, target, noise, noise_log_prob, bias=None, *, reduction="mean"):
    """-log sigmoid(s(y)) - sum_k log sigmoid(-s(noise_k)); s(c) = x.W_c + b_c - log(K noise_prob_c)."""
    return _nce(x, weight, target, noise, noise_log_prob, bias, reduction)[0]


def nce_loss_value_and_grad(x, weight, target, noise, noise_log_prob, bias=None, *, reduction="mean"):
    """`nce_loss` and the gradients of its sum by x, weight and bias (None without a bias)."""
    return _nce(x, weight, target, noise, noise_log_prob, bias, reduction)


def sampled_softmax_cross_entropy(
    x, weight, target, sampled, sampled_log_prob, bias=None, *, reduction="mean"
):
    """-log of the softmax at y of s(c) = x . W_c + b_c - sampled_log_prob_c over y and the sampled c != y."""
    return _sampled_softmax(x, weight, target, sampled, sampled_log_prob, bias, reduction)[0]


def sampled_softmax_cross_entropy_value_and_grad(
    x, weight, target, sampled, sampled_log_prob, bias=None, *, reduction="mean"
):
    """`sampled_softmax_cross_entropy` and the gradients of its sum by x, weight and bias (or None)."""
    return _sampled_softmax(x, weight, target, sampled, sampled_log_prob, bias, reduction)


# With d log sigmoid(s) / ds = sigmoid(-s), the derivatives of a position's loss by its scores are
#
#     -sigmoid(-s(y))    by s(y)          sigmoid(s(noise_k))    by s(noise_k)


def _nce(x, weight, target, noise, noise_log_prob, bias, reduction):
    classes, rows, positions = _classes(x, target, noise)
    shift = as_float64(noise_log_prob) + math.log(classes.shape[-1] - 1)
    sign = np.where(np.arange(classes.shape[-1]) == 0, 1.0, -1.0)
    with np.errstate(all="ignore"):
        s = sign * _scores(rows, weight, bias, classes, shift)
        loss = np.logaddexp(0.0, -s).sum(axis=-1)
        g = -sign * np.exp(-np.logaddexp(0.0, s))
    return _finish(loss, g, classes, x, weight, bias, positions, reduction)


# p_k - [k = 0], as for every softmax loss; a sample that hits the label has p = 0


def _sampled_softmax(x, weight, target, sampled, sampled_log_prob, bias, reduction):
    classes, rows, positions = _classes(x, target, sampled)
    s = _scores(rows, weight, bias, classes, as_float64(sampled_log_prob))
    s[:, 1:][classes[:, 1:] == classes[:, :1]] = -np.inf
    with np.errstate(all="ignore"):
        e = np.exp(s - s.max(axis=-1, keepdims=True))
        rest = e[:, 1:].sum(axis=-1)
        loss = s.max(axis=-1) - s[:, 0] + np.log(e.sum(axis=-1))
        confident = s[:, 0] == s.max(axis=-1)  # log1p keeps the digits of a tiny loss
        loss = np.where(confident, np.log1p(rest), loss)
        g = e / e.sum(axis=-1, keepdims=True)
        g[:, 0] = -rest / e.sum(axis=-1)
    return _finish(loss, g, classes, x, weight, bias, positions, reduction)


def _classes(x, target, samples):
    """Return the classes (positions, 1 + K), the label first; x as rows; and the shape of the positions."""
    positions = np.shape(x)[:-1]
    samples = plain(samples)
    samples = np.broadcast_to(samples, (*positions, np.shape(samples)[-1]))
    classes = np.concatenate([plain(target)[..., np.newaxis], samples], axis=-1).astype(np.int64)
    count = math.prod(positions)
    return classes.reshape(count, classes.shape[-1]), as_float64(x).reshape(count, np.shape(x)[-1]), positions


def _scores(rows, weight, bias, classes, shift):
    """x . W_c + b_c - shift_c for the classes of each position."""
    with np.errstate(all="ignore"):
        s = (as_float64(weight)[classes] * rows[:, np.newaxis]).sum(axis=-1) - shift[classes]
        return s if bias is None else s + as_float64(bias)[classes]


def _finish(loss, g, classes, x, weight, bias, positions, reduction):
    """Return the reduced loss and (grad_x, grad_weight, grad_bias), from the losses and their derivatives g
    by the scores of `classes`.
    """
    divisor = {
        "none": 1, "sum": 1, "mean": loss.size, "mean_valid": loss.size, "mean_full": loss.size,
        "mean_batch": (positions or (1,))[0],
    }[reduction]  # fmt: skip
    g = g / (divisor or 1)
    rows, w = as_float64(x).reshape(len(g), np.shape(x)[-1]), as_float64(weight)
    grad_x, grad_w, grad_b = np.zeros(rows.shape), np.zeros(w.shape), np.zeros(len(w))
    with np.errstate(all="ignore"):
        for n, k in np.ndindex(classes.shape):
            grad_x[n] += g[n, k] * w[classes[n, k]]
            grad_w[classes[n, k]] += g[n, k] * rows[n]
            grad_b[classes[n, k]] += g[n, k]
        loss = loss.reshape(positions) if reduction == "none" else np.asarray(loss.sum() / (divisor or 1))
    sixteen = all(a is None or is_sixteen_bits(np.asarray(a).dtype) for a in (x, weight, bias))
    grads = [(grad_x.reshape(np.shape(x)), x), (grad_w, weight), (grad_b, bias)]
    delivered = (None if like is None else deliver(g, dtype=result_dtype(like)) for g, like in grads)
    return deliver(loss, dtype=np.dtype(np.float32 if sixteen else np.float64)), tuple(delivered)
