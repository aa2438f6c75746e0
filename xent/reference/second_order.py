"""Second derivatives of the cross-entropy: one per class for boosting, and the Hessian times a vector."""

import numpy as np

from ._common import as_float64, classes_last, deliver, result_dtype, sum_of_others, times
from .cross_entropy import (
    Options,
    divided,
    divisor_of,
    first_derivative,
    focal,
    read_target,
    transformed,
)
from .softmax import log_probabilities, logsumexp, probabilities

# With a_c = w_c t_c and U = sum_c a_c, the gradient of a position by u is U p_c - a_c, and
# dp_c / du_c = p_c (1 - p_c) = p_c q_c:
#
#     d2 loss / du_c^2 = U p_c q_c
#
# Focal loss: g_c = B p_c - b_c with b_k = a_k F_k and B = sum_k b_k (cross_entropy.py), and with
# dp_k / du_c = p_k ([k = c] - p_c) and K_k = a_k F'(p_k) p_k (F' is given below),
#
#     db_k / du_c      = K_k ([k = c] - p_c)
#     d2 loss / du_c^2 = B p_c q_c + p_c sum_k K_k ([k = c] - p_c) - K_c q_c
#                      = B p_c q_c - K_c q_c^2 - p_c^2 sum_{k != c} K_k
#
# z-loss: d2 (z lse^2) / du_c^2 = 2 z (p_c^2 + lse p_c q_c).
#
# By the logits, with g and h those by u:
#
#     d2 loss / dx_c^2 = u_c'^2 h_c + u_c'' g_c            "diagonal"
#
# Of this B p q, z p^2, z lse p q if lse > 0, and their factors u'^2 are never negative: "gauss_newton".
#
# Newton steps along the diagonal alone can be too long, as the classes depend on each other. The Hessian
# diag(p) - p p^T is at most twice its diagonal (its row c has the off-diagonal magnitudes
# p_c sum_{k != c} p_k = p_c (1 - p_c), so Gershgorin bounds diag(2 p (1 - p)) - H): "upper". Friedman's
# multi-class boosting divides by (C - 1) / C instead: "friedman". "absolute" takes |gradient|.


def cross_entropy_grad_hess(
    logits,
    target,
    *,
    hessian="diagonal",
    out=None,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    gamma=0.0,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    reduction="mean",
):
    """Gradient of `cross_entropy`, and its derivative by the same logit, per class.

    "diagonal" is the diagonal of the Hessian, "gauss_newton" what of it is never negative, "upper" 2 and
    "friedman" C / (C - 1) times that, "absolute" the magnitude of the gradient.
    """
    options = Options(
        axis,
        weight,
        sample_weight,
        ignore_index,
        label_smoothing,
        z_loss,
        gamma,
        temperature,
        logit_cap,
        prior,
        reduction,
    )
    x = classes_last(logits, axis)
    t = read_target(target, logits, x, options)
    divisor = divisor_of(reduction, logits, axis, t.counted, t.share)
    with np.errstate(all="ignore"):
        u, du, d2u = transformed(x, options)
        p, one_minus_p = probabilities(u)
        grad, never_negative, others = _diagonal(u, p, one_minus_p, t, options)
        if hessian == "diagonal":
            hess = du**2 * (never_negative + others) + d2u * grad
        elif hessian == "absolute":
            hess = grad * du
        else:
            hess = _hessian_factor(hessian, x.shape[-1]) * du**2 * never_negative
        there = (t.mass != 0).any(axis=-1, keepdims=True) | (options.z_loss > 0)
        weight = np.where(there, t.sample_weight[..., None], 0.0)
        grad, hess = (np.where(weight == 0, 0.0, weight * d) for d in (grad * du, hess))
    grad, hess = (divided(d, axis, t.counted, divisor) for d in (grad, hess))
    hess = np.abs(hess) if hessian == "absolute" else hess  # a divisor of weights may be negative
    out_grad, out_hess = (None, None) if out is None else out
    dtype = result_dtype(logits)
    return deliver(grad, out_grad, dtype), deliver(hess, out_hess, dtype)


def _diagonal(u, p, q, t, options):
    """Return by u the gradient, and the diagonal of the Hessian: what is never negative, and the rest."""
    mass, others = t.mass, np.zeros(p.shape)
    if options.gamma:
        f, k = _focal(p, q, log_probabilities(u), t.mass, options.gamma)
        mass, others = f, others - k * q**2 - p**2 * sum_of_others(k)
    grad = first_derivative(mass, p, q)
    never_negative = mass.sum(axis=-1, keepdims=True) * p * q
    there = (t.mass != 0).any(axis=-1, keepdims=True)
    never_negative, others = np.where(there, never_negative, 0.0), np.where(there, others, 0.0)
    if options.z_loss:
        z, lse = 2.0 * options.z_loss, np.asarray(logsumexp(u))[..., None]
        grad = grad + z * lse * p
        never_negative = never_negative + z * (p**2 + np.maximum(lse, 0.0) * p * q)
        others = others + z * np.minimum(lse, 0.0) * p * q
    return grad, never_negative, others


def _focal(p, q, log_p, mass, gamma):
    """Return a F and K of each class; classes without mass have none."""
    f = focal(p, q, log_p, gamma)
    parts = f.factor, _focal_curvature(p, q, f.ratio, gamma)
    return (np.where(mass == 0, 0.0, times(mass, part)) for part in parts)


def _hessian_factor(hessian, classes):
    """Return the multiple of what is never negative."""
    if hessian == "gauss_newton":
        return 1.0
    if hessian == "upper":
        return 2.0
    if hessian != "friedman":
        raise ValueError(f"hessian is {hessian!r}, which is no rule")
    if classes == 1:
        raise ValueError("hessian 'friedman' needs more than one class")
    return classes / (classes - 1.0) if classes else 1.0


# The gradient by u is g_c = A p_c - a_c, with A = U. Differentiating along v, with
#
#     (dp . v)_c = p_c (v_c - p.v),    p.v = sum_k p_k v_k
#
# gives the product H v of one position:
#
#     cross-entropy:  A p_c (v_c - p.v)
#     focal:          g_c = B p_c - b_c, b_k = a_k F(p_k), so with db_k = K_k (v_k - p.v)
#                     B p_c (v_c - p.v) + p_c sum_k K_k (v_k - p.v) - K_c (v_c - p.v)
#                     K = a F'(p) p, F' = gamma q^(gamma - 1) (l - 2 - (gamma - 1) p l / q)
#     z-loss:         g_c = 2 z lse p_c, so with lse' = p.v
#                     2 z ((p.v) p_c + lse p_c (v_c - p.v))
#
# F' by p = 1 - q, l = -log p:
#
#     F   = q^gamma + gamma p l q^(gamma - 1)
#     F'  = -gamma q^(gamma - 1) + gamma ((l - 1) q^(gamma - 1) - (gamma - 1) p l q^(gamma - 2))
#         = gamma q^(gamma - 1) (l - 2 - (gamma - 1) p l / q)
#
# The logits: x enters through u_c(x_c) alone, so H_x = D H_u D + diag(g_u u''), D = diag(u'):
#
#     (H_x v)_c = u_c' (H_u (u' v))_c + g_c u_c'' v_c


def cross_entropy_hvp(
    logits,
    target,
    vector,
    *,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    gamma=0.0,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    reduction="mean",
):
    """Hessian of the reduced `cross_entropy` by the logits, times `vector` of their shape.

    For reduction "none" it is that of the sum: no position depends on another's logits.
    """
    options = Options(
        axis,
        weight,
        sample_weight,
        ignore_index,
        label_smoothing,
        z_loss,
        gamma,
        temperature,
        logit_cap,
        prior,
        reduction,
    )
    if np.shape(vector) != np.shape(logits):
        raise ValueError(f"vector has shape {np.shape(vector)}, expected that of logits, {np.shape(logits)}")
    x, v = classes_last(logits, axis), classes_last(as_float64(vector), axis)
    t = read_target(target, logits, x, options)
    divisor = divisor_of(reduction, logits, axis, t.counted, t.share)
    with np.errstate(all="ignore"):
        u, du, d2u = transformed(x, options)
        grad, product = _derivatives(u, du * v, t, options)
        result = t.sample_weight[..., None] * (du * product + grad * d2u * v)
        result = np.where(t.sample_weight[..., None] == 0, 0.0, result)
    result = divided(result, axis, t.counted, divisor)
    return deliver(result, dtype=result_dtype(logits))


def _derivatives(u, v, t, options):
    """Return the gradient and the Hessian times v of each position, by u."""
    p, one_minus_p = probabilities(u)
    mean, deviation = _centred(p, v)
    mass = t.mass
    if options.gamma:
        mass, k = _focal(p, one_minus_p, log_probabilities(u), t.mass, options.gamma)
        bent = k * deviation
    grad = first_derivative(mass, p, one_minus_p)
    product = mass.sum(axis=-1, keepdims=True) * p * deviation
    if options.gamma:
        product = product + p * sum_of_others(bent) - bent * one_minus_p
    product = np.where((t.mass != 0).any(axis=-1, keepdims=True), product, 0.0)
    if options.z_loss:
        lse = np.asarray(logsumexp(u))[..., None]
        grad = grad + 2.0 * options.z_loss * lse * p
        product = product + 2.0 * options.z_loss * (mean * p + lse * p * deviation)
    return grad, product


def _centred(p, v):
    """Return p.v and v - p.v.

    With m the most probable class, v_c - p.v = (v_c - v_m) - sum_k p_k (v_k - v_m): for c = m, the one whose
    p.v is nearly v_m, only the other classes are left in it.
    """
    if p.shape[-1] == 0:
        return np.zeros((*p.shape[:-1], 1)), v
    top = np.take_along_axis(v, p.argmax(axis=-1)[..., None], axis=-1)
    return (p * v).sum(axis=-1, keepdims=True), (v - top) - (p * (v - top)).sum(axis=-1, keepdims=True)


def _focal_curvature(p, q, ratio, gamma):
    """Return F'(p) p; p l is written as q (p l / q), so that 0 * inf does not arise.

    At q = 0 it is multiplied by v - p.v = 0, which is of the order of q, and so is the p_c - [c = y] that
    follows: for every gamma > 0 the product goes to 0.
    """
    bracket = q * ratio - 2.0 * p - (gamma - 1.0) * p * ratio
    return np.where(q == 0, 0.0, gamma * q ** (gamma - 1.0) * bracket)
