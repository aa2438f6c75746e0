"""The softmax loss in float64 NumPy, some rows of classes at a time: what has no kernel.

That is the focal loss of a distribution, whose powers cost more than all else; second derivatives that are no
multiple of p (1 - p); and products with the Hessian. The class axis is last.
"""

from typing import NamedTuple

import numpy as np

from . import _check, _exact, _kernels

BLOCK = 2**14  # elements of the arrays of one step: 128 KiB each
ARRAYS = 16  # that are held at a time, at most


class Terms(NamedTuple):
    """What the loss of each row and its derivatives by u are made of."""

    p: np.ndarray
    q: np.ndarray  # 1 - p
    log_loss: np.ndarray  # -log p
    weighed: np.ndarray  # masses a of the classes, weight times target, times q^gamma
    b: np.ndarray  # masses times F
    k: np.ndarray | float  # a F'(p) p
    log_sum: np.ndarray | None  # L, with z-loss alone

    @property
    def total(self):
        """Sum of b over the classes."""
        return self.b.sum(axis=1, keepdims=True)

    @property
    def there(self):
        """Whether any class has a mass."""
        return self.b.any(axis=1, keepdims=True)


# The loss of a row is sum_c a_c q_c^gamma l_c + z L^2 with p = softmax(u), q = 1 - p, l = -log p and
# L = logsumexp(u). With dp_c / du_j = p_c ([j == c] - p_j),
#
#     d(q_c^gamma l_c) / du_j = F_c (p_j - [j == c]),    F = q^gamma (1 + gamma p l / q)
#     g_j = p_j B - b_j                                  b_c = a_c F_c,  B = sum_c b_c
#         = p_j (B - b_j) - b_j q_j                      where nothing cancels
#
# and along a vector v, with dev_c = v_c - p.v and dp_c = p_c dev_c, and k_c = a_c F'(p_c) p_c,
#
#     db_c     = k_c dev_c
#     (H v)_j  = B p_j dev_j + p_j sum_c k_c dev_c - k_j dev_j
#     H_jj     = B p_j q_j - k_j q_j^2 - p_j^2 sum_{c != j} k_c          v = e_j: dev_c = [c == j] - p_j
#     F'       = gamma q^(gamma - 1) (l - 2 - (gamma - 1) p l / q)
#
# The first term of H_jj is not negative ("gauss_newton": the loss as a function of the l_c without its
# curvature). The z-loss adds 2 z L p_j to g_j, 2 z ((p.v) p_j + L p_j dev_j) to (H v)_j and
# 2 z (p_j^2 + L p_j q_j) to H_jj, of which L may be negative.
#
# By the logits x, of which u_c depends on x_c alone, with r = x / (T cap), u' = sech^2(r) / T and
# u'' = -2 tanh(r) / (T cap) u':
#
#     g_x = g u'        (H_x v)_j = u'_j (H (u' v))_j + g_j u''_j v_j        H_x,jj = u'_j^2 H_jj + g_j u''_j


def run(x, labels, probs, options, upstream, scale, rule, losses, grad, hess):
    """Fill in losses, gradient and second derivatives (None: not wanted); return the sum of the losses.

    `options` were checked. The derivatives are those of the loss times `scale`, and times `upstream` of each
    position unless that is None. `rule` is the name of the second derivatives and their factor.
    """
    axis, classes = options.axis, x.shape[options.axis]
    if x.size == 0:
        if losses is not None:
            losses[...] = 0
        return 0.0
    rows, targets = rows_of(x, axis), None if probs is None else rows_of(probs, axis)
    made = [None if a is None else _room(a, axis) for a in (grad, hess)]
    flat = [None if a is None else a.reshape(-1) for a in (labels, options.sample_weight, upstream)]
    each = np.empty(len(rows))
    with np.errstate(all="ignore"):
        for step in steps(len(rows), classes):
            here = [None if a is None else a[step] for a in flat]
            target = None if targets is None else targets[step]
            each[step], *derivatives = _block(
                options, rows[step], target, *here, scale, rule, hess is not None
            )
            for room, values in zip(made, derivatives, strict=True):
                if room is not None:
                    room[step] = _check.narrowed(values, room.dtype)
        for array, room in zip((grad, hess), made, strict=True):
            if array is not None and not np.may_share_memory(array, room):
                array[...] = rows_back(room, array.shape, axis)
        if losses is not None:
            losses[...] = each.reshape(losses.shape)
        return float(each.sum())


def steps(rows, classes):
    """Yield slices of the rows that are worked on at a time."""
    step = max(BLOCK // max(classes, 1), 1)
    for begin in range(0, rows, step):
        yield slice(begin, begin + step)


def scratch(classes):
    """Return the bytes that a call needs."""
    return ARRAYS * 8 * max(BLOCK, classes)


def rows_of(array, axis):
    """Return the classes of each position as a row."""
    if axis != array.ndim - 1:
        array = np.moveaxis(array, axis, -1)
    return array.reshape(-1, array.shape[-1])


def rows_back(rows, shape, axis):
    """Return rows as an array of a shape."""
    if axis == len(shape) - 1:
        return rows.reshape(shape)
    positions = shape[:axis] + shape[axis + 1 :]
    return np.moveaxis(rows.reshape(*positions, shape[axis]), -1, axis)


def _room(array, axis):
    """Return rows to write to: those of an array, or, where they are no view, new ones."""
    rows = rows_of(array, axis)
    return rows if np.may_share_memory(rows, array) else np.empty(rows.shape, array.dtype)


def _block(options, x, probs, labels, sample_weight, upstream, scale, rule, want_hess):
    """Return loss, gradient and second derivatives (or None) of some rows."""
    x = x.astype(np.float64)
    u, du, d2u_over_du = transformed(options, x)
    t = terms(options, x, u, masses(options, probs, labels, x.shape[1]), want_hess)
    factor, used = _factors(options, len(x), labels, sample_weight)
    if not options.z_loss:
        used = used & t.there[:, 0]
    loss = np.where(used, factor * loss_of(options, t), 0.0)
    factor = (factor * scale if upstream is None else factor * scale * upstream)[:, None]
    used = used[:, None]
    grad = gradient(options, t) * du
    hess = None
    if want_hess:
        sizes = rule[0] == "absolute"
        second = grad if sizes else _second(options, t, grad, du, d2u_over_du, rule)
        hess = np.where(used, np.abs(factor * second) if sizes else factor * second, 0.0)
    return loss, np.where(used, factor * grad, 0.0), hess


def _factors(options, rows, labels, sample_weight):
    """Return the weight of each row, 0 where it is ignored; and where it is not 0.

    A row of the weight 0 is not there, whatever its logits are.
    """
    factor = np.ones(rows) if sample_weight is None else sample_weight
    if labels is not None:
        factor = np.where(labels == options.ignore_index, 0.0, factor)
    return factor, factor != 0.0


def _second(options, t, grad, du, d2u_over_du, rule):
    """Return the second derivatives by a rule, one per class."""
    name, factor = rule
    result = np.where(t.there, t.total * t.p * t.q, 0.0)
    z, log_sum = 2.0 * options.z_loss, t.log_sum
    if name != "diagonal":
        if z:
            result = result + z * (t.p**2 + np.maximum(log_sum, 0.0) * t.p * t.q)
        return _by_logits(factor * result, du)
    if options.gamma:
        result = result - np.where(t.there, t.k * t.q**2 + t.p**2 * others(t.k), 0.0)
    if z:
        result = result + z * (t.p**2 + log_sum * t.p * t.q)
    result = _by_logits(result, du)
    return result if d2u_over_du is None else result + grad * d2u_over_du


def _by_logits(second, du):
    """Second derivatives by u times the square of du, which may be infinite where they are 0."""
    return np.where(second == 0.0, 0.0, second * du * du)


def transformed(options, x):
    """Return u, its derivative by x, and u'' / u' (None for 0)."""
    t, cap = options.temperature, options.logit_cap
    u, du, d2u_over_du = x / t, 1.0 / t, None
    if cap is not None:
        e, slope = _exact.cap_exponential(x, t, cap), np.tanh(u / cap)
        # where t cap is 0, all logits are 0 or at the cap, and there is no u''
        d2u_over_du = np.where((slope == 0.0) | (e == 0.0), 0.0, np.divide(-2.0, t * cap) * slope)
        u, du = cap * np.tanh(u / cap), 4.0 * e / (1.0 + e) ** 2 / t
    return u if options.prior is None else u + np.log(options.prior), du, d2u_over_du


def masses(options, probs, labels, classes):
    """Return a of each row: the target as a distribution, smoothed, times the class weights."""
    w = np.ones(classes) if options.weight is None else options.weight
    e = options.label_smoothing
    if labels is None:
        return w * ((1.0 - e) * probs.astype(np.float64) + e / classes)
    a = np.tile(w * (e / classes), (len(labels), 1))
    label = np.where(labels == options.ignore_index, 0, labels)
    a[np.arange(len(labels)), label] += (1.0 - e) * w[label]
    return a


def terms(options, x, u, a, second):
    """Return the Terms of rows x, of which u is made, with masses a; `second`: for second derivatives too.

    Where u is a quotient of x alone, the kernels keep it in two numbers: rounded, it would make errors of
    |u| / 2 ulp in each probability.
    """
    bare = options.logit_cap is None and options.prior is None
    logits, t = (x, options.temperature) if bare else (u, 1.0)
    p = _kernels.softmax(logits, -1, t, None)
    log_loss = -_kernels.log_softmax(logits, -1, t, None)
    q = -np.expm1(-log_loss)
    log_sum = _kernels.logsumexp(u, -1, True, None) if options.z_loss else None
    if not options.gamma:
        return Terms(p, q, log_loss, a, a, 0.0, log_sum)
    used = np.flatnonzero(a)  # of labels, one in a row
    if len(used) == a.size:
        used = slice(None)
    mass, *here = (array.reshape(-1)[used] for array in (a, p, q, log_loss))
    parts = []
    for factor in focal(*here, options.gamma, second):
        parts.append(np.zeros(a.shape))
        parts[-1].reshape(-1)[used] = mass * factor
    return Terms(p, q, log_loss, *parts, *([0.0] * (not second)), log_sum)


def focal(p, q, log_loss, gamma, second):
    """Return q^gamma, F, and F' p if `second`.

    p l is q times p l / q: no 0 * inf. F' p is 0 at q = 0: what it is multiplied with goes there faster.
    """
    power, ratio = q**gamma, p * log_loss / q
    ratio[q == 0.0], ratio[p == 0.0] = 1.0, 0.0
    factor = power * (1.0 + gamma * ratio)
    if not second:
        return power, factor
    derivative = gamma * q ** (gamma - 1.0) * (q * ratio - 2.0 * p - (gamma - 1.0) * p * ratio)
    derivative[q == 0.0] = 0.0
    return power, factor, derivative


def others(a):
    """Return for each class the sum of all others of its row.

    That of the largest is added up by itself: the difference to the total would be what rounding left of it.
    """
    top = np.abs(a).argmax(axis=1)[:, None]
    rest, without = a.sum(axis=1, keepdims=True) - a, a.copy()
    np.put_along_axis(without, top, 0.0, axis=1)
    np.put_along_axis(rest, top, without.sum(axis=1, keepdims=True), axis=1)
    return rest


def loss_of(options, t):
    """Return the loss of each row."""
    loss = np.where(t.weighed == 0.0, 0.0, t.weighed * t.log_loss).sum(axis=1)
    return loss + options.z_loss * t.log_sum[:, 0] ** 2 if options.z_loss else loss


def gradient(options, t):
    """Return the gradient by u; 0 where no class has a mass, of whatever logits."""
    grad = np.where(t.there, t.p * others(t.b) - t.b * t.q, 0.0)
    return grad + 2.0 * options.z_loss * t.log_sum * t.p if options.z_loss else grad


def products_by_u(options, t, v):
    """Return H v by u of each row."""
    # v_c - p.v as a sum of differences to the most probable class, for which p.v is nearly v_c
    top = np.take_along_axis(v, t.p.argmax(axis=1)[:, None], axis=1)
    deviation = (v - top) - (t.p * (v - top)).sum(axis=1, keepdims=True)
    product = t.total * t.p * deviation
    if options.gamma:
        bent = t.k * deviation
        product += t.p * others(bent) - bent * t.q
    product = np.where(t.there, product, 0.0)
    if options.z_loss:
        mean = (t.p * v).sum(axis=1, keepdims=True)
        product += 2.0 * options.z_loss * (mean * t.p + t.log_sum * t.p * deviation)
    return product


def products(options, x, v, probs, labels, sample_weight):
    """Return H v by the logits of each row, of the sum of the losses."""
    x, v = x.astype(np.float64), v.astype(np.float64)
    u, du, d2u_over_du = transformed(options, x)
    t = terms(options, x, u, masses(options, probs, labels, x.shape[1]), True)
    result = du * products_by_u(options, t, du * v)
    if d2u_over_du is not None:
        result += gradient(options, t) * du * d2u_over_du * v
    factor, used = _factors(options, len(x), labels, sample_weight)
    if not options.z_loss:
        used = used & t.there[:, 0]
    return np.where(used[:, None], factor[:, None] * result, 0.0)


# Without a focal factor, a z-loss and a cap, (H v)_j = B p_j dev_j is the vector-Jacobian product of softmax
# with B v, which has a kernel.


def is_plain(options):
    """Whether the Hessian of a row is a multiple of that of its log-sum-exp, and no sum that may cancel."""
    if options.gamma or options.z_loss or options.logit_cap is not None:
        return False
    return options.weight is None or bool((options.weight > 0.0).all())


def plain_products(options, x, v, probs, labels, sample_weight, divisor):
    """Return H v by the logits of each row, of the losses over `divisor`, where that `is_plain`."""
    x, t = x.astype(np.float64), options.temperature
    bare = options.prior is None
    p = _kernels.softmax(x if bare else x / t + np.log(options.prior), -1, t if bare else 1.0, None)
    mass = _total_masses(options, probs, labels)
    factor, used = _factors(options, len(x), labels, sample_weight)
    used = used & (mass != 0.0)
    # v_c - p.v as a sum of differences to the most probable class, for which p.v is nearly v_c
    top = v.reshape(-1)[np.arange(0, v.size, x.shape[1]) + p.argmax(axis=1)]
    g = np.subtract(v, top[:, None], dtype=np.float64)
    g *= (factor * mass / divisor / t / t)[:, None]
    product = _kernels.softmax_backward(g, p, -1, g)
    return product if used.all() else np.where(used[:, None], product, 0.0)


def _total_masses(options, probs, labels):
    """Return the sum of `masses` of each row, or of all."""
    w, e = options.weight, options.label_smoothing
    if labels is None:
        own = probs.sum(axis=1, dtype=np.float64) if w is None else probs.astype(np.float64) @ w
    else:
        own = np.ones(()) if w is None else w[np.where(labels == options.ignore_index, 0, labels)]
    return own if e == 0.0 else (1.0 - e) * own + e * (1.0 if w is None else w.mean())
