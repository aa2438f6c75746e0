"""Cross-entropy from logits (the softmax loss) with its gradient.

Inside this file the class axis is last. Logits x become u = x / T, then u = cap tanh(u / cap), then
u + log(prior). A target, of either kind, becomes masses a_c = w_c t_c, one per class; the loss of a position
is then -sum_c a_c (1 - p_c)^gamma log p_c with p = softmax(u) (gamma > 0: focal loss), plus z lse(u)^2
(z-loss), and all of it times the position's sample weight.
"""

from typing import NamedTuple

import numpy as np

from ._common import (
    as_float64,
    classes_last,
    deliver,
    is_sixteen_bits,
    loss_dtype,
    plain,
    result_dtype,
    sum_of_others,
    times,
)
from .softmax import log_probabilities, logsumexp, probabilities


class Options(NamedTuple):
    """The options that the functions share, with the defaults that API.md gives them."""

    axis: int = -1
    weight: object = None
    sample_weight: object = None
    ignore_index: int | tuple[int, ...] = -100
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    gamma: float = 0.0
    temperature: float = 1.0
    logit_cap: float | None = None
    prior: object = None
    reduction: str = "mean"


def cross_entropy(
    logits,
    target,
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
    """s (-sum_c w_c t_c q_c^gamma log p_c + z_loss lse^2) per position, reduced; see the top of this file.

    t is one-hot(target) for index targets, the target itself if it holds probabilities. Label smoothing e
    replaces t by (1 - e) t + e / C. 0 log 0 is 0. q = 1 - p. Ignored positions are 0, z-loss included.
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
    return _cross_entropy(logits, target, options)[0]


def cross_entropy_grad(
    logits,
    target,
    *,
    grad_output=None,
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
    """Gradient of `cross_entropy` by the logits, times `grad_output`; derived below."""
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
    _, grad = _cross_entropy(logits, target, options, grad_output)
    return deliver(grad, out, result_dtype(logits))


def cross_entropy_value_and_grad(
    logits,
    target,
    *,
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
    """`cross_entropy` and `cross_entropy_grad` of the same arguments, as a pair."""
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
    loss, grad = _cross_entropy(logits, target, options)
    return loss, deliver(grad, out, result_dtype(logits))


# With a_k = w_k t_k and dlog p_k / du_c = [k = c] - p_c,
#
#     loss = -sum_k a_k log p_k
#     g_c  = -sum_k a_k ([k = c] - p_c)
#          = p_c sum_k a_k - a_c
#          = p_c (sum_k a_k - a_c) - a_c (1 - p_c)
#
# The last line is the one computed: for a one-hot target y it is p_c w_y where c != y, and at the target
# -w_y (1 - p_y), without the cancellation of p_y w_y - w_y.
#
# Focal loss, with q_k = 1 - p_k, l_k = -log p_k and dp_k / du_c = p_k ([k = c] - p_c):
#
#     loss = sum_k a_k q_k^gamma l_k
#     g_c  = sum_k a_k (-gamma q_k^(gamma - 1) l_k - q_k^gamma / p_k) p_k ([k = c] - p_c)
#          = sum_k a_k F_k (p_c - [k = c]),    F_k = q_k^gamma (1 + gamma p_k l_k / q_k)
#
# that is, the gradient from above with a_k F_k in the place of a_k. p l / q lies between 0 (p -> 0) and 1
# (q -> 0).
#
# z-loss: dlse / du_c = p_c, so z lse^2 adds 2 z lse p_c.
#
# The logits: with v = x / T and e = exp(-2 |v / cap|),
#
#     du_c / dx_c = sech(v_c / cap)^2 / T,    sech^2 = 4 e / (1 + e)^2
#
# which keeps its digits where 1 - tanh^2 has none left. log(prior) is a constant.


def _cross_entropy(logits, target, options, grad_output=None):
    """Return the reduced loss and the gradient."""
    x = classes_last(logits, options.axis)
    t = read_target(target, logits, x, options)
    with np.errstate(all="ignore"):
        u, du, _ = transformed(x, options)
        p, one_minus_p = probabilities(u)
        log_p = log_probabilities(u)
        mass, each = t.mass, times(t.mass, log_p)
        if options.gamma:
            each = times(t.mass, one_minus_p**options.gamma * log_p)
            mass = times(t.mass, focal(p, one_minus_p, log_p, options.gamma).factor)
            each, mass = (np.where(t.mass == 0, 0.0, a) for a in (each, mass))
        there = (t.mass != 0).any(axis=-1, keepdims=True)  # else there is nothing of the position
        loss = 0.0 - np.where(t.used & t.there & there, each, 0.0).sum(axis=-1)
        grad = first_derivative(mass, p, one_minus_p)
        if options.z_loss:
            lse = np.asarray(logsumexp(u))
            loss = loss + options.z_loss * lse**2
            grad = grad + 2.0 * options.z_loss * lse[..., None] * p
        loss = np.where(t.sample_weight == 0, 0.0, t.sample_weight * loss)
        grad = np.where(
            t.sample_weight[..., None] == 0,
            0.0,
            t.sample_weight[..., None] * np.where(grad == 0, 0.0, grad * du),
        )
    return reduce(loss, grad, logits, options.axis, t.counted, t.share, options.reduction, grad_output)


class Target(NamedTuple):
    """A target of either kind as the formulas take it, with the classes last."""

    mass: np.ndarray  # a_c = w_c t_c, smoothed
    used: np.ndarray  # where the loss reads a log-probability
    there: np.ndarray  # classes with a weight other than 0
    label: np.ndarray | None  # mask of the label; None for probabilities
    counted: np.ndarray  # positions that are not ignored
    sample_weight: np.ndarray  # of the positions
    share: np.ndarray  # of the positions: what they add to the divisor of "mean"


def read_target(target, logits, x, options):
    """Return a Target for logits that are `x` with the classes last."""
    classes, smoothing = x.shape[-1], options.label_smoothing
    w = np.ones(classes) if options.weight is None else as_float64(options.weight)
    sample_weight = _sample_weight(options.sample_weight, x.shape[:-1])
    target = plain(target)
    floating = target.dtype.kind == "f" or is_sixteen_bits(target.dtype)
    if floating and target.shape == np.shape(logits):
        t, label = classes_last(target, options.axis), None
        used = np.ones(t.shape, bool)
        counted = np.ones(t.shape[:-1], bool)
        share = sample_weight
        if classes == 0 and counted.size:
            raise ValueError("logits have no classes")
    else:
        t, counted, label_weight = one_hot(target, x.shape, w, options.ignore_index)
        used = t | (smoothing > 0)  # without smoothing the loss is -w[y] log p[y]: no other entry is read
        share, label = label_weight * sample_weight, t
    _number(options.gamma, "gamma")
    _number(options.z_loss, "z_loss")
    with np.errstate(all="ignore"):
        mass = np.where(w == 0, 0.0, w * ((1.0 - smoothing) * t + smoothing / max(classes, 1)))
    return Target(mass, used, w != 0, label, counted, sample_weight, share)


def transformed(x, options):
    """Return u of logits with the classes last, and its first and second derivative by x.

    With r = v / cap, d sech(r)^2 / dr = -2 tanh(r) sech(r)^2: the second is that over cap T^2.
    """
    temperature = _number(options.temperature, "temperature", above=True)
    u, du, d2u = x / temperature, np.full(x.shape, 1.0 / temperature), np.zeros(x.shape)
    if options.logit_cap is not None:
        cap = _number(options.logit_cap, "logit_cap", above=True)
        ratio = u / cap
        e = np.exp(-2.0 * np.abs(ratio))
        u = cap * np.tanh(ratio)
        du = 4.0 * e / (1.0 + e) ** 2 / temperature
        d2u = -2.0 * np.tanh(ratio) / cap * du / temperature
    if options.prior is not None:
        u = u + np.log(_prior(options.prior, x.shape[-1]))
    return u, du, d2u


class Focal(NamedTuple):
    """Numbers of the focal loss, one per class."""

    ratio: np.ndarray  # p l / q
    factor: np.ndarray  # F


def focal(p, q, log_p, gamma):
    """Return the Focal of all classes; p l / q takes its limits 0 at p = 0 and 1 at q = 0."""
    ratio = np.where(q == 0, 1.0, np.where(p == 0, 0.0, -p * log_p / q))
    return Focal(ratio, q**gamma * (1.0 + gamma * ratio))


def first_derivative(mass, p, one_minus_p):
    """Return p_c (sum_k a_k - a_c) - a_c (1 - p_c); 0 where no class has a mass, of whatever p."""
    gradient = p * sum_of_others(mass) - mass * one_minus_p
    return np.where((mass != 0).any(axis=-1, keepdims=True), gradient, 0.0)


def one_hot(target, shape, w, ignore_index):
    """Return the one-hot mask (positions, classes) of labels, which positions count, and their w[y].

    `ignore_index` is one label or a tuple of them.
    """
    if target.dtype.kind not in "iu":
        raise TypeError(
            f"target has dtype {target.dtype}, expected integers, or probabilities of the logits' shape"
        )
    if target.shape != shape[:-1]:
        raise ValueError(f"target has shape {target.shape}, expected {shape[:-1]}")
    counted = np.ones(target.shape, bool)
    for label in ignore_index if isinstance(ignore_index, tuple) else (ignore_index,):
        counted &= target != label  # np.isin makes floats of unsigned labels, with NumPy 1
    if np.any(counted & ((target < 0) | (target >= shape[-1]))):
        raise ValueError(f"a label of target is outside 0 <= label < {shape[-1]}")
    is_label = np.arange(shape[-1]) == target[..., None]
    return is_label, counted, np.where(is_label, w, 0.0).sum(axis=-1)


def _sample_weight(sample_weight, shape):
    """Return one weight per position."""
    s = np.ones(shape) if sample_weight is None else as_float64(sample_weight)
    if s.shape != shape:
        raise ValueError(f"sample_weight has shape {s.shape}, expected that of the positions, {shape}")
    if not np.all(np.isfinite(s)):
        raise ValueError("sample_weight must be finite")
    return s


def _prior(prior, classes):
    """Return one positive frequency per class."""
    prior = as_float64(prior)
    if prior.shape != (classes,):
        raise ValueError(f"prior has shape {prior.shape}, expected one number per class, ({classes},)")
    if not np.all(np.isfinite(prior) & (prior > 0)):
        raise ValueError("prior must be finite and positive")
    return prior


def _number(value, name, above=False):
    """Return a finite number that is not negative; `above`: not 0 either."""
    number = float(value)
    if not (np.isfinite(number) and (number > 0 if above else number >= 0)):
        raise ValueError(f"{name} is {value}, expected a finite number {'>' if above else '>='} 0")
    return number


def reduce(loss, grad, logits, axis, counted, share, reduction, grad_output):
    """Zero the ignored positions, reduce the loss, scale the gradient and move its class axis back."""
    loss = np.where(counted, loss, 0.0)
    divisor = divisor_of(reduction, logits, axis, counted, share)
    upstream = np.float64(1.0) if grad_output is None else as_float64(grad_output)
    if reduction == "none":
        upstream = np.broadcast_to(upstream, loss.shape)[..., None]
    with np.errstate(all="ignore"):
        if reduction != "none":
            loss = loss.sum() / divisor if divisor is not None else np.zeros(())
        grad = np.where(grad == 0, 0.0, grad * upstream)
        grad = divided(grad, axis, counted, divisor)
    return deliver(np.asarray(loss), dtype=loss_dtype(logits)), grad


def divisor_of(reduction, logits, axis, counted, share):
    """Return what the sum of the losses is divided by; None for a mean over nothing."""
    divisor = _divisor_of(reduction, logits, axis, counted, share)
    nothing = divisor == 0 and not (reduction == "mean" and np.any(share[counted] != 0))
    return None if nothing else np.float64(divisor)


def _divisor_of(reduction, logits, axis, counted, share):
    if reduction in ("none", "sum"):
        return 1.0
    if reduction == "mean":
        return np.where(counted, share, 0.0).sum()
    if reduction == "mean_valid":
        return counted.sum()
    if reduction == "mean_full":
        return counted.size
    if reduction == "mean_batch":
        if axis % np.ndim(logits) == 0:
            raise ValueError("reduction 'mean_batch' needs a batch axis before the class axis")
        return np.shape(logits)[0]
    raise ValueError(f"reduction is {reduction!r}")


def divided(derivative, axis, counted, divisor):
    """Return derivatives of the reduced loss from those of the positions, the class axis moved back.

    loss = sum_n loss_n / divisor, so each is divided by that too; ignored positions, and all positions of a
    mean over nothing, have 0.
    """
    used = counted[..., None] & (divisor is not None)
    with np.errstate(all="ignore"):
        return np.moveaxis(np.where(used, derivative / (1.0 if divisor is None else divisor), 0.0), -1, axis)
