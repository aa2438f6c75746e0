"""Softmax losses whose options or logits leave the range in which the kernels are right, by NumPy.

A weight of 1e-300 times an upstream gradient of 1e300, a temperature of 5e-324, a loss of 1e308 that is one
of ten in a mean: intermediate numbers overflow or vanish, and the results do not. Here numbers have exponents
of their own (`Scaled`), and distances of logits low words, until a result is narrowed once. It takes some
three hundred times as long as the kernels, which do all that is ordinary; the bridge decides, and says for
which positions. The formulas are those of `xent.reference`.
"""

import math
from typing import NamedTuple

import numpy as np

from . import _kernels

_ZERO, _INFINITE = -(2**40), 2**40  # exponents of what has none: out of the way of all others
_BLOCK = 2**14  # elements of the arrays that are worked on: some twenty of them, within a cache
_SPLITTER = 2.0**27 + 1  # Veltkamp's, for double precision
# ln 2 in two parts, of which the first has 32 bits: times an integer below 2^21 it is exact
_LN2_HEAD = float.fromhex("0x1.62E42FEEp-1")
_LN2_TAIL = float.fromhex("0x1.A39EF35793C76p-33")
_FARTHEST = -(2.0**20)  # of an exponential that counts: five factors of 2^1074 are far from it
_SMALL = -60  # exponent below which log1p x, tanh x and x are the same number


def _shifted(m, e):
    """m 2^e, where e may be far out of the range of an exponent."""
    return np.ldexp(m, np.clip(e, -4000, 4000).astype(np.int32))


def _sums(m):
    """Sums along the last axis, which stays, rounded once: NumPy's order of additions has no part in them."""
    rows = m.reshape(math.prod(m.shape[:-1]), m.shape[-1])
    finite = np.isfinite(rows).all(axis=1)
    sums = [math.fsum(row.tolist()) if good else row.sum() for row, good in zip(rows, finite, strict=True)]
    return np.array(sums, np.float64).reshape(*m.shape[:-1], 1)


class Scaled:
    """Numbers m 2^e with integers e of 64 bits: products and quotients neither overflow nor vanish."""

    __slots__ = ("e", "m")

    def __init__(self, m, e=0):
        self.m, shift = np.frexp(np.asarray(m, np.float64))
        e = np.where(np.isfinite(self.m), e + shift.astype(np.int64), _INFINITE)
        self.e = np.where(self.m == 0, _ZERO, e)

    def __getitem__(self, index):
        return Scaled(self.m[index], self.e[index])

    def __neg__(self):
        return Scaled(-self.m, self.e)

    def __abs__(self):
        return Scaled(np.abs(self.m), self.e)

    def __mul__(self, other):
        other = scaled(other)
        return Scaled(self.m * other.m, self.e + other.e)

    def __truediv__(self, other):
        other = scaled(other)
        return Scaled(self.m / other.m, self.e - other.e)

    def __add__(self, other):
        other = scaled(other)
        e = np.maximum(self.e, other.e)
        return Scaled(_shifted(self.m, self.e - e) + _shifted(other.m, other.e - e), e)

    def __sub__(self, other):
        return self + -scaled(other)

    def sum(self):
        """The sum along the last axis, which stays."""
        e = self.e.max(axis=-1, keepdims=True, initial=_ZERO)
        return Scaled(_sums(_shifted(self.m, self.e - e)), e)

    def value(self):
        """As floats, rounded once."""
        return _shifted(self.m, self.e)

    def power(self, exponent):
        """To a power, of numbers that are not negative."""
        low = self.m < math.sqrt(
            0.5
        )  # from there to twice that: no power goes farther than one of 2 beside it
        m, e = np.where(low, 2 * self.m, self.m), self.e - low
        high = e * exponent
        whole = np.rint(np.clip(high, -(2.0**50), 2.0**50))
        rest = (high - whole) + _product_error(e.astype(np.float64), exponent, high)
        rest = np.exp2(np.where(np.isfinite(rest), rest, 0.0))
        result = _power_near_1(m, exponent) * Scaled(rest, whole.astype(np.int64))
        return where(self.m == 0, float(exponent == 0), result)


_LARGE_POWER = 512  # of a number between sqrt(1/2) and sqrt(2) is a normal number still, and so is its square


def _power_near_1(m, exponent):
    """m to a power of any size: that of one that floats hold, squared and multiplied."""
    times = max(math.ceil(abs(exponent) / _LARGE_POWER), 1)
    base, result = Scaled(m ** (exponent / times)), Scaled(1.0)
    while times:
        if times & 1:
            result = _within_reach(result * base)
        base, times = _within_reach(base * base), times >> 1
    return result


def _within_reach(a):
    """Scaled whose exponents are far beyond what counts, and little beside what `power` adds to them."""
    return Scaled(a.m, np.clip(a.e, -(2**48), 2**48))


def scaled(a):
    """Floats, or Scaled already, as Scaled."""
    return a if isinstance(a, Scaled) else Scaled(a)


def where(condition, a, b):
    """numpy.where of Scaled."""
    a, b = scaled(a), scaled(b)
    return Scaled(np.where(condition, a.m, b.m), np.where(condition, a.e, b.e))


def _elementwise(name, x):
    """A function of the kernels, whose bits are the same on every machine."""
    return _kernels.vmath(name, np.array(x, np.float64, order="C", ndmin=1)).reshape(np.shape(x))


def _product_error(a, b, p):
    """What rounding left of a b = p (Dekker)."""
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    return ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(a):
    high = _SPLITTER * a - (_SPLITTER * a - a)
    return high, a - high


class _Pair(NamedTuple):
    """Numbers (m + low) 2^e."""

    m: np.ndarray
    low: np.ndarray
    e: np.ndarray

    def __neg__(self):
        return _Pair(-self.m, -self.low, self.e)

    def add(self, other):
        e = np.maximum(self.e, other.e)
        a, b = _shifted(self.m, self.e - e), _shifted(other.m, other.e - e)
        high = a + b
        back = high - a
        low = (a - (high - back)) + (b - back)
        return _pair(high, low + (_shifted(self.low, self.e - e) + _shifted(other.low, other.e - e)), e)

    def scaled(self):
        return Scaled(self.m, self.e)

    def exp(self):
        """The exponential, of numbers that are hardly above 0, as Scaled."""
        high = _shifted(self.m, self.e)
        far, high = high < _FARTHEST, np.maximum(high, _FARTHEST)
        n = np.rint(high / math.log(2.0))
        head, tail = high - n * _LN2_HEAD, _shifted(self.low, self.e) - n * _LN2_TAIL
        r = head + tail
        rest = np.where(np.isfinite(tail), (head - r) + tail, 0.0)
        e = Scaled(_elementwise("exp", r) * (1.0 + rest), np.where(np.isfinite(n), n, 0.0).astype(np.int64))
        return where(far, 0.0, e)


def _pair(high, low, e):
    """A _Pair whose first word is the rounded number, with its exponent."""
    low = np.where(np.isfinite(high) & np.isfinite(low), low, 0.0)
    whole = high + low
    first = Scaled(whole, e)
    shift = e - first.e
    return _Pair(first.m, np.where(whole == 0, 0.0, _shifted((high - whole) + low, shift)), first.e)


def _single(a):
    """Scaled as a _Pair without low words."""
    return _Pair(a.m, np.zeros(np.shape(a.m)), a.e)


class _Logits:
    """Rows of transformed logits u: distances from the largest, exponentials, probabilities."""

    def __init__(self, x, temperature=1.0, cap=None, log_prior=None):
        largest = x.argmax(axis=-1)[:, None]
        self.ratio, self.slope = None, Scaled(1.0) / temperature  # x / (T cap), and du / dx
        if cap is None:
            base = np.take_along_axis(x, largest, axis=-1)
            distance = _quotient(_single(Scaled(x)).add(_single(Scaled(-base))), temperature)
            self.most = Scaled(base) / temperature
        else:
            self.ratio = Scaled(x) / (Scaled(temperature) * cap)
            u = _tanh(self.ratio) * cap
            self.most = _take(u, largest)
            distance = _single(u).add(-_single(self.most))
            e = (-_quotient(_quotient(_single(Scaled(np.abs(x)) * 2.0), temperature), cap)).exp()
            self.slope = e * 4.0 / ((e + 1.0) * (e + 1.0)) / temperature
        if log_prior is not None:
            distance = distance.add(_single(Scaled(np.broadcast_to(log_prior, x.shape))))
            largest = _shifted(distance.m, distance.e).argmax(axis=-1)[:, None]
            base = _Pair(*(np.take_along_axis(a, largest, axis=-1) for a in distance))
            distance, self.most = distance.add(-base), self.most + base.scaled()
        self.distance, self.largest = distance, largest
        self.is_largest = np.arange(x.shape[-1]) == largest
        spoiled = ~np.isfinite(_take(Scaled(x), largest).m)
        exps = where(self.is_largest, 1.0, distance.exp())
        rest = where(self.is_largest, 0.0, exps).sum()
        total = rest + 1.0
        self.p = where(spoiled, np.nan, exps / total)
        self.q = where(self.is_largest, where(spoiled, np.nan, rest / total), Scaled(1.0) - self.p)
        rest_is_small = rest.e < _SMALL
        self.log_total = where(
            rest_is_small, rest, _elementwise("log1p", np.where(rest_is_small, 0.0, rest.value()))
        )
        self.loss = self.log_total - distance.scaled()  # -log p: both terms have one sign
        self.log_sum = self.most + self.log_total


def _quotient(pair, divisor):
    """A _Pair divided by a float."""
    by = Scaled(divisor)
    high = pair.m / by.m
    product = high * by.m
    low = (pair.m - product) - _product_error(high, by.m, product)
    return _pair(high, (low + pair.low) / by.m, pair.e - by.e)


def _tanh(ratio):
    z = ratio.value()
    return where(ratio.e < _SMALL // 2, ratio, np.tanh(z))


def capped(x, temperature, cap):
    """Logits cap tanh(x / T / cap) as floats: where the ratio is small, x / T, which is rounded once."""
    quotient = Scaled(x) / temperature
    ratio = quotient / cap
    # below 2^-28 the next term of the tanh, a third of the ratio's cube, is less than half an ulp
    return where(ratio.e < -27, quotient, cap * np.tanh(ratio.value())).value()


def cap_exponential(x, temperature, cap):
    """exp(-2 |x / T / cap|) as floats, of an argument of two numbers: its error is a relative one."""
    size = 2.0 * np.abs(x)
    z, bend = size / temperature / cap, np.float64(temperature) * cap
    if not 1e-280 < bend < 1e280:  # whose parts might not be there
        return np.exp(-z)
    z = size / bend
    product = z * bend
    low = (size - product) - _product_error(z, bend, product)
    low = (low - z * _product_error(np.float64(temperature), np.float64(cap), bend)) / bend
    return np.exp(-z) * (1.0 - np.where(np.isfinite(low), low, 0.0))


def _take(a, index):
    return Scaled(np.take_along_axis(a.m, index, axis=-1), np.take_along_axis(a.e, index, axis=-1))


class Target(NamedTuple):
    """What the losses of some rows are made of."""

    mass: Scaled  # a_c = w_c t_c, smoothed
    weight: np.ndarray  # of the classes
    own: np.ndarray | None  # mask of the label, or None
    labels_alone: bool  # nothing but the label's term
    counted: np.ndarray  # rows that are there, as a column
    sample_weight: np.ndarray  # a column


def _target(options, labels, probs, ignore_index, sample_weight, shape):
    """The target of rows of a shape; labels (a column) or probs are those of the rows."""
    rows, classes = shape
    weight = np.ones(classes) if options.weight is None else options.weight
    s = np.ones((rows, 1)) if sample_weight is None else sample_weight
    own, counted, smoothing = None, s != 0, options.label_smoothing
    if labels is None:
        t = probs
    else:
        counted = counted & (labels >= 0) & (labels < classes) & (labels != ignore_index)
        own = t = np.arange(classes) == labels
    mass = Scaled(t) * (1.0 - smoothing) + Scaled(smoothing) / max(classes, 1)
    mass = where(np.broadcast_to(weight == 0, shape), 0.0, mass * weight)
    return Target(mass, weight, own, own is not None and smoothing == 0, counted, s)


def _focal(u, gamma):
    """Factors of the loss and of the gradient of each class, and F' p: see `second_order`."""
    p, q, loss = u.p, u.q, u.loss
    ratio = where(q.m == 0, 1.0, where(p.m == 0, 0.0, p * loss / q))
    power = q.power(gamma)
    bracket = q * ratio - p * 2.0 - p * ratio * (gamma - 1.0)
    curvature = where(q.m == 0, 0.0, q.power(gamma - 1.0) * gamma * bracket)
    return power, power * (ratio * gamma + 1.0), curvature


def _pulls(u, mass, t, options, absent):
    """The gradient by u: p (U - a_c) - a_c q, with the z-loss."""
    pulls = where(absent, 0.0, u.p * _others(u, mass) - mass * u.q)
    if options.z_loss:
        pulls = pulls + u.log_sum * u.p * options.z_loss * 2.0
    return pulls


class Derivatives(NamedTuple):
    """Of some rows, before they are divided; None where not wanted."""

    loss: Scaled
    grad: Scaled | None
    hess: Scaled | None
    product: Scaled | None


def _derivatives(x, t, options, curvature, exact, vector, grad):
    """Loss, gradient, second derivatives (`_diagonal` times `curvature`; 0: the gradient's size), H v."""
    log_prior = None if options.prior is None else _elementwise("log", options.prior)
    u = _Logits(x, options.temperature, options.logit_cap, log_prior)
    absent = (t.mass.m == 0).all(axis=1)[:, None]  # no class has a mass: there are no terms
    there = t.counted if options.z_loss else t.counted & ~absent
    terms = t.mass * u.loss
    if t.labels_alone:
        terms = where(t.own, terms, 0.0)
    terms = where(absent | (t.weight == 0) | ((t.mass.m == 0) & np.isinf(u.loss.m)), 0.0, terms)
    mass, bent = t.mass, None
    if options.gamma:
        terms, mass, bent = (
            where(t.mass.m == 0, 0.0, f * a)
            for f, a in zip(_focal(u, options.gamma), (terms, mass, mass), strict=True)
        )
    loss = terms.sum()
    if options.z_loss:
        loss = loss + u.log_sum * u.log_sum * options.z_loss
    sample = where(there, t.sample_weight, 0.0)
    results = [where(there, loss * sample, 0.0), None, None, None]
    if grad or curvature is not None or vector is not None:
        pulls = _pulls(u, mass, t, options, absent)
        results[1] = where(there, pulls * u.slope * sample, 0.0)
    if curvature == 0:
        results[2] = abs(results[1])
    elif curvature is not None:
        hess = _diagonal(u, mass, bent, pulls, absent, options, exact) * curvature
        results[2] = where(there, hess * sample, 0.0)
    if vector is not None:
        product = u.slope * _product(u, u.slope * vector, mass, bent, absent, options)
        if u.ratio is not None:
            bend = _bend(u, options)
            product = product + where(bend.m == 0, 0.0, pulls * bend * vector)
        results[3] = where(there, product * sample, 0.0)
    return Derivatives(*results)


def _others(u, a):
    """The sum of the other classes' numbers; that of the most probable one is added up by itself."""
    return where(u.is_largest, where(u.is_largest, 0.0, a).sum(), a.sum() - a)


def _bend(u, options):
    """The second derivative of the capped logits."""
    return _tanh(u.ratio) * -2.0 / (Scaled(options.temperature) * options.logit_cap) * u.slope


def _diagonal(u, mass, bent, pulls, absent, options, exact):
    """The diagonal of the Hessian; unless `exact`, what of it is never negative."""
    hess = mass.sum() * u.p * u.q
    if exact and bent is not None:
        hess = hess - bent * u.q * u.q - u.p * u.p * _others(u, bent)
    hess = where(absent, 0.0, hess)
    if options.z_loss:
        log_sum = u.log_sum if exact else where(u.log_sum.m > 0, u.log_sum, u.log_sum * 0.0)
        hess = hess + (u.p * u.p + log_sum * u.p * u.q) * options.z_loss * 2.0
    hess = hess * u.slope * u.slope
    if exact and u.ratio is not None:
        bend = _bend(u, options)
        hess = hess + where(bend.m == 0, 0.0, pulls * bend)
    return hess


def _product(u, v, mass, bent, absent, options):
    """The product with the Hessian by u, as in `second_order`."""
    apart = v - _take(v, u.largest)
    deviation = apart - (u.p * apart).sum()
    product = mass.sum() * u.p * deviation
    if bent is not None:
        bent = bent * deviation
        product = product + u.p * _others(u, bent) - bent * u.q
    product = where(absent, 0.0, product)
    if options.z_loss:
        mean = (u.p * v).sum()
        product = product + (mean * u.p + u.log_sum * u.p * deviation) * options.z_loss * 2.0
    return product


# ---- arrays of a call ----


def _rows_of(array, axis, positions):
    """A view of an array whose classes are last, and the index of some positions."""
    moved = np.moveaxis(array, axis, -1)
    moved = moved[None] if moved.ndim == 1 else moved
    return moved, np.unravel_index(positions, moved.shape[:-1])


def _read(array, axis, positions):
    """Positions as rows of float64, or None."""
    if array is None:
        return None
    moved, index = _rows_of(array, axis, positions)
    return moved[index].astype(np.float64)


def _write(array, axis, positions, rows):
    """Put rows of Scaled where positions belong."""
    if array is not None:
        moved, index = _rows_of(array, axis, positions)
        moved[index] = rows.value().astype(array.dtype)


def _part(numbers, positions):
    """Numbers of some positions, as a column, or None."""
    return None if numbers is None else numbers.reshape(-1)[positions][:, None]


def _put_losses(losses, positions, loss):
    if losses is not None:
        losses.reshape(-1)[positions] = loss.value()[:, 0].astype(losses.dtype)


def _blocks(positions, classes):
    step = max(_BLOCK // max(classes, 1), 1)
    return [positions[k : k + step] for k in range(0, len(positions), step)]


def _total(losses):
    """The sum of a column, as one number."""
    return Scaled(losses.m[:, 0], losses.e[:, 0]).sum()[0]


def added(total, more):
    """The sum of the losses of some positions and of others, as Scaled."""
    with np.errstate(all="ignore"):
        return total + more


def mean(total, divisor):
    """A sum of losses over the divisor, as a float."""
    with np.errstate(all="ignore"):
        return float((scaled(total) / divisor).value().reshape(()))


def weights_of(options, labels):
    """The sum of the weights of positions that count, as Scaled, and whether any is not 0."""
    s, w = options.sample_weight, options.weight
    with np.errstate(all="ignore"):
        if labels is None:
            shares = Scaled(s.reshape(-1))
        else:
            labels = labels.reshape(-1)
            counted = labels != options.ignore_index
            shares = Scaled(np.ones(labels.shape) if s is None else s.reshape(-1))
            if w is not None:
                shares = shares * w[np.where(counted, labels, 0)]
            shares = shares[counted]
        return shares.sum()[0], bool((shares.m != 0).any())


def softmax_losses(
    x,
    labels,
    probs,
    options,
    ignore_index,
    upstream,
    factor,
    divisor,
    losses,
    grad,
    hess,
    curvature,
    exact,
    vector,
    positions,
):
    """Work on some positions: their losses, gradients and second derivatives go to arrays (or None).

    Returns the sum of the losses, as Scaled. `upstream` and `factor` multiply the gradients, `divisor`
    divides all but the losses. The options were checked, and so were the labels. With a `vector` the Hessian
    times it is in the place of the gradient.
    """
    total, axis = Scaled(0.0), options.axis
    with np.errstate(all="ignore"):
        scale = Scaled(factor) / divisor
        for some in _blocks(positions, x.shape[axis]):
            rows = _read(x, axis, some)
            t = _target(
                options, _part(labels, some), _read(probs, axis, some), ignore_index,
                _part(options.sample_weight, some), rows.shape,
            )  # fmt: skip
            d = _derivatives(
                rows, t, options, curvature if hess is not None else None, exact, _read(vector, axis, some),
                grad is not None and vector is None,
            )  # fmt: skip
            total = total + _total(d.loss)
            _put_losses(losses, some, d.loss)
            pulls = scale if upstream is None else scale * _part(upstream, some)
            if grad is not None:
                made = d.grad if vector is None else d.product
                _write(grad, axis, some, where(t.counted, made * pulls, 0.0))
            if hess is not None:
                _write(hess, axis, some, where(t.counted, d.hess * scale, 0.0))
    return total


# ---- distillation: see csrc/softmax/distillation.h ----


def _divergence(student, teacher, temperature):
    """KL(teacher || student) of rows, and p - q."""
    s, t = _Logits(student, temperature), _Logits(teacher, temperature)
    d = t.distance.add(-s.distance).add(_single(s.log_total - t.log_total)).scaled()
    d = d + _terms(d, s.p, t.p)[0].sum()  # which would be 0 but for the rounding of the log-sum-exps
    gap, term = _terms(d, s.p, t.p)
    return where(term.m < 0, 0.0, term).sum(), gap


def _terms(d, p, q):
    """p - q = q (e^-d - 1), and q (d + e^-d - 1), of no cancelling terms where d is small; p where q is 0."""
    small = np.abs(d.value()) <= 1.0
    x = np.where(small, d.value(), 0.0)
    series = np.zeros(x.shape)
    for k in range(22, 1, -1):  # sum of (-x)^(k - 2) / k!: what follows is below 2^-53 of it
        series = series * -x + 1.0 / math.factorial(k)
    beyond = d * d * series
    gap = where(q.m == 0, p, where(small, q * (beyond - d), p - q))
    return gap, where(q.m == 0, p, where(small, q * beyond, q * (d - 1.0) + p))


def distillation(student, teacher, axis, temperature, upstream, factor, divisor, losses, grad, positions):
    """Work on some positions, as `softmax_losses` does."""
    total = Scaled(0.0)
    with np.errstate(all="ignore"):
        square = Scaled(temperature) * temperature
        scale = Scaled(factor) * temperature / divisor
        for some in _blocks(positions, student.shape[axis]):
            loss, gap = _divergence(_read(student, axis, some), _read(teacher, axis, some), temperature)
            loss = loss * square
            total = total + _total(loss)
            _put_losses(losses, some, loss)
            if grad is not None:
                _write(grad, axis, some, gap * (scale if upstream is None else scale * _part(upstream, some)))
    return total
