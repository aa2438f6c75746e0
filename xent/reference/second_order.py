"""Second derivatives of the cross-entropy: one per class for boosting, and the Hessian times a vector."""

import numpy as np

from ._common import as_float64, classes_last, deliver, result_dtype
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

# With a_c = w_c t_c and U = sum_c a_c, the gradient of a position by u = x / T + log(prior) is U p_c - a_c,
# and dp_c / du_c = p_c (1 - p_c):
#
#     d2 loss / dx_c^2 = U p_c (1 - p_c) / T^2        "diagonal"
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
    temperature=1.0,
    prior=None,
    reduction="mean",
):
    """Gradient of `cross_entropy`, and U h_c / T^2 scaled alike, per class.

    h is p (1 - p) for "diagonal", 2 p (1 - p) for "upper", C / (C - 1) p (1 - p) for "friedman"; "absolute"
    is |U p_c - a_c| / T, the magnitude of the gradient.
    """
    options = Options(
        axis,
        weight,
        sample_weight,
        ignore_index,
        label_smoothing,
        temperature=temperature,
        prior=prior,
        reduction=reduction,
    )
    x = classes_last(logits, axis)
    t = read_target(target, logits, x, options)
    divisor = divisor_of(reduction, logits, axis, t.counted, t.share)
    with np.errstate(all="ignore"):
        u, du, _ = transformed(x, options)
        p, one_minus_p = probabilities(u)
        grad = t.sample_weight[..., None] * first_derivative(t.mass, p, one_minus_p) * du
        if hessian == "absolute":
            hess = np.abs(grad)
        else:
            h = _hessian_factor(hessian, x.shape[-1]) * p * one_minus_p
            mass = t.mass.sum(axis=-1, keepdims=True)
            hess = t.sample_weight[..., None] * np.where(mass == 0, 0.0, mass * h) * du**2
        grad, hess = (np.where(t.sample_weight[..., None] == 0, 0.0, d) for d in (grad, hess))
    grad, hess = (divided(d, axis, t.counted, divisor) for d in (grad, hess))
    out_grad, out_hess = (None, None) if out is None else out
    dtype = result_dtype(logits)
    return deliver(grad, out_grad, dtype), deliver(hess, out_hess, dtype)


def _hessian_factor(hessian, classes):
    """Return h / (p (1 - p))."""
    if hessian == "diagonal":
        return 1.0
    if hessian == "upper":
        return 2.0
    if hessian != "friedman":
        raise ValueError(f"hessian is {hessian!r}, expected 'diagonal', 'upper', 'friedman' or 'absolute'")
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
#     focal:          g_c = w F(p_y) (p_c - [c = y]), so with p_y' = p_y (v_y - p.v)
#                     w F p_c (v_c - p.v) + w F'(p_y) p_y (v_y - p.v) (p_c - [c = y])
#                     F' = gamma q^(gamma - 1) (l - 2 - (gamma - 1) p l / q)
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
    mass, curvature = t.mass, 0.0
    if options.gamma:
        f = focal(t.label, p, one_minus_p, log_probabilities(u), options.gamma)
        w = mass.sum(axis=-1, keepdims=True)
        step = np.where(t.label, deviation, 0.0).sum(axis=-1)
        curvature = w * (_focal_curvature(f, options.gamma) * step)[..., None]
        mass = f.factor[..., None] * mass
    grad = first_derivative(mass, p, one_minus_p)
    product = mass.sum(axis=-1, keepdims=True) * p * deviation
    if options.gamma:
        product = product + curvature * np.where(t.label, -one_minus_p, p)
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


def _focal_curvature(f, gamma):
    """Return F'(p_y) p_y; p l is written as q (p l / q), so that 0 * inf does not arise.

    At q = 0 it is multiplied by v_y - p.v = 0, which is of the order of q, and so is the p_c - [c = y] that
    follows: for every gamma > 0 the product goes to 0.
    """
    bracket = f.q * f.ratio - 2.0 * f.p - (gamma - 1.0) * f.p * f.ratio
    return np.where(f.q == 0, 0.0, gamma * f.q ** (gamma - 1.0) * bracket)
