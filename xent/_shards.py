"""A softmax over classes in several shards: states of some classes, which merge, and what is made of them.

With z the logits of a position, T the temperature, m the largest of some classes and j the first class that
has it, their state holds

    max      m
    rest     R = sum_{c != j} exp((z_c - m) / T)
    cost     S = sum_c a_c (m - z_c) / T,  with a_c = w_c t_c the mass of the target (for a label one-hot)
    mass     A = sum_c a_c

so that the loss -sum_c a_c log p_c is S + A log1p(R): no term is negative where no weight is, and nothing
cancels. States of other classes are first taken to the larger m, by D = (m - m_i) / T >= 0:

    1 + R  <-  exp(-D) (1 + R)         S  <-  S + A D

and then added, but for the 1 of the state that has m, which stays apart. For an evaluation there are also

    first    j
    spread   E = sum_c e_c (m - z_c) / T,  with e_c = exp((z_c - m) / T)
    squares  Q = sum_c e_c^2 without the label
    own      the label's logit
    before   how many classes come before the label
    largest  the k largest logits, the largest first

With 1 + R for the sum of all e_c, the entropy is E / (1 + R) + log1p(R), and

    E  <-  exp(-D) (E + D (1 + R))     Q  <-  exp(-2 D) Q

A class of another state comes before the label if its logit is larger, or if it is as large and the state is
one of earlier classes. The k largest say whether these are fewer than k.

With a cap or a prior, z are the logits after temperature, cap and prior, and T is 1.
"""

import numpy as np

import xent
from xent import _exact, _kernels

# Numbers that are worked on at a time in float64, 8 MiB: temporary arrays are no larger, whatever the chunk.
_PIECE = 2**20

LOSS = np.dtype([(name, np.float64) for name in ("max", "rest", "cost", "mass")])


def fields(top_k):
    """Return the fields of a state for an evaluation."""
    more = [("first", np.int64), ("spread", np.float64), ("squares", np.float64), ("own", np.float64)]
    more += [("before", np.int64), ("largest", np.float64, (max(top_k, default=1),))]
    return np.dtype(LOSS.descr + more)


def pieces(rows, columns, numbers=_PIECE):
    """Cut rows into slices of at most so many numbers, or a row."""
    step = max(1, numbers // max(columns, 1))
    return [slice(k, min(k + step, rows)) for k in range(0, rows, step)]


def times(factor, values):
    """Return products, 0 where the factor is."""
    return np.where(factor == 0, 0.0, factor * values)


class Shard:
    """Some classes of a chunk of positions: what their states and gradients are made of.

    The target is one of labels, a row of numbers, or of probabilities, a matrix of the classes that are here.
    A label that is not here, because it is ignored, say, has no mass.
    """

    def __init__(
        self, target, begin, classes, all_classes, *, weight=None, label_smoothing=0.0, z_loss=0.0, gamma=0.0,
        temperature=1.0, logit_cap=None, prior=None,
    ):  # fmt: skip
        self.begin, self.classes, self.all_classes = begin, classes, all_classes
        self.smoothing, self.z_loss, self.gamma = label_smoothing, z_loss, gamma
        self.temperature, self.logit_cap = temperature, logit_cap
        part = slice(begin, begin + classes)
        self.weight = np.ones(classes) if weight is None else np.asarray(weight, np.float64)[part]
        self.log_prior = None if prior is None else np.log(np.asarray(prior, np.float64)[part])
        self.plain = logit_cap is None and prior is None
        self.after = temperature if self.plain else 1.0  # what is left of the temperature after `logits`
        self.labels = target.ndim == 1
        self.target = target
        if self.labels:
            here = (target >= begin) & (target < begin + classes)
            self.target = np.where(here, target.astype(np.int64) - begin, -1)

    def logits(self, z):
        """Return logits in float64, and their derivative."""
        z = z.astype(np.float64)
        if self.plain:
            return z, 1.0 / self.temperature
        u, du = z / self.temperature, 1.0 / self.temperature
        if self.logit_cap is not None:
            ratio, e = u / self.logit_cap, _exact.cap_exponential(z, self.temperature, self.logit_cap)
            u, du = self.logit_cap * np.tanh(ratio), 4.0 * e / (1.0 + e) ** 2 * du
        return u if self.log_prior is None else u + self.log_prior, du

    def masses(self, rows):
        """Return a_c of some positions."""
        t = self.target[rows]
        if self.labels:
            t = t[:, np.newaxis] == np.arange(self.classes)
        t = (1.0 - self.smoothing) * t + self.smoothing / self.all_classes
        return np.where(self.weight == 0, 0.0, self.weight * t)

    def state(self, z, rows, dtype):
        """Return the state of some positions."""
        z, _ = self.logits(z)
        state = np.zeros(len(z), dtype)
        state["max"] = -np.inf
        if dtype != LOSS:
            state["largest"] = state["own"] = np.nan
        if not self.classes:
            return state
        first = z.argmax(axis=1)
        largest = np.take_along_axis(z, first[:, np.newaxis], axis=1)
        rest = np.expm1(-xent.token_log_probs(z, first, temperature=self.after))
        state["max"] = largest[:, 0]
        state["rest"] = np.where(np.isneginf(state["max"]), 0.0, rest)
        if dtype != LOSS or self.smoothing or not self.labels:
            distance = np.where(np.isneginf(z), np.inf, (largest - z) / self.after)
        if self.labels and not self.smoothing:
            (at,) = np.nonzero(self.target[rows] >= 0)
            label = self.target[rows][at]
            own = z[at, label]
            far = np.where(np.isneginf(own), np.inf, (state["max"][at] - own) / self.after)
            state["mass"][at] = self.weight[label]
            state["cost"][at] = times(self.weight[label], far)
        else:
            masses = self.masses(rows)
            state["mass"], state["cost"] = masses.sum(axis=1), times(masses, distance).sum(axis=1)
        if dtype != LOSS:
            self._evaluate(state, z, first, distance, at, label, own)
        return state

    def _evaluate(self, state, z, first, distance, at, label, own):
        """Put what an evaluation needs besides into a state; the positions `at` have their label here."""
        state["first"] = self.begin + first
        e = np.exp(-distance)
        state["spread"] = times(e, distance).sum(axis=1)
        ahead = (z[at] > own[:, np.newaxis]) | (
            (z[at] == own[:, np.newaxis]) & (np.arange(self.classes) < label[:, np.newaxis])
        )
        state["own"][at], state["before"][at] = own, ahead.sum(axis=1)
        e[at, label] = 0.0
        state["squares"] = np.einsum("nc,nc->n", e, e)
        k = min(state["largest"].shape[1], self.classes)
        if k == 1:
            state["largest"][:, 0] = state["max"]
        else:
            state["largest"][:, :k] = np.partition(z, self.classes - k, axis=1)[:, self.classes - k :]

    def grad(self, z, state, rows, scale):
        """Return the gradient by the logits, of some positions with their state of all classes.

        With l = -log p_y, the focal loss of a label has the gradient of the plain one times
        (1 - p)^gamma (1 + gamma p l / (1 - p)): see xent/reference/cross_entropy.py.
        """
        z, du = self.logits(z)
        mass, masses = state["mass"], self.masses(rows)
        log_total = np.log1p(state["rest"])
        log_p = (z - state["max"][:, np.newaxis]) / self.after - log_total[:, np.newaxis]
        p = np.exp(log_p)
        if self.gamma:
            loss = state["cost"] / mass + log_total
            wrong = -np.expm1(-loss)
            ratio = np.where(wrong == 0, 1.0, np.exp(-loss) * loss / wrong)
            focal = wrong**self.gamma * (1.0 + self.gamma * np.where(np.isinf(loss), 0.0, ratio))
            mass, masses = times(mass, focal), times(masses, focal[:, np.newaxis])
        grad = times(mass[:, np.newaxis] - masses, p) + times(masses, np.expm1(log_p))
        if self.z_loss:
            lse = state["max"] / self.after + log_total
            grad += 2.0 * self.z_loss * lse[:, np.newaxis] * p
        return times(scale[:, np.newaxis], times(grad, du))


def merged(states, axis, after):
    """Return states merged along an axis, in whose order their classes are."""
    s = np.moveaxis(states, axis, -1)
    with np.errstate(all="ignore"):
        winner = s["max"].argmax(axis=-1)[..., np.newaxis]
        largest = np.take_along_axis(s["max"], winner, axis=-1)
        distance = np.where(s["max"] == largest, 0.0, (largest - s["max"]) / after)
        scale, is_winner = np.exp(-distance), np.arange(s.shape[-1]) == winner
        result = np.empty(s.shape[:-1], s.dtype)
        result["max"] = largest[..., 0]
        result["rest"] = np.where(is_winner, s["rest"], times(scale, 1.0 + s["rest"])).sum(axis=-1)
        result["cost"] = (s["cost"] + times(s["mass"], distance)).sum(axis=-1)
        result["mass"] = s["mass"].sum(axis=-1)
        if s.dtype != LOSS:
            _merge_evaluations(result, s, winner, distance, scale)
    return np.expand_dims(result, axis)


def _merge_evaluations(result, s, winner, distance, scale):
    """Put what an evaluation needs besides into merged states."""
    result["first"] = np.take_along_axis(s["first"], winner, axis=-1)[..., 0]
    result["spread"] = times(scale, s["spread"] + distance * (1.0 + s["rest"])).sum(axis=-1)
    result["squares"] = times(scale, scale * s["squares"]).sum(axis=-1)
    has_label = s["mass"] != 0
    place = has_label.argmax(axis=-1)[..., np.newaxis]
    own = np.take_along_axis(np.where(has_label, s["own"], np.nan), place, axis=-1)
    ahead = s["largest"] > own[..., np.newaxis]
    as_large = (s["largest"] == own[..., np.newaxis]) & (np.arange(s.shape[-1]) < place)[..., np.newaxis]
    ahead = np.where(has_label, s["before"], (ahead | as_large).sum(axis=-1))
    result["own"], result["before"] = own[..., 0], ahead.sum(axis=-1)
    k = s["largest"].shape[-1]
    every = s["largest"].reshape(*s.shape[:-1], s.shape[-1] * k)
    result["largest"] = -np.sort(-every, axis=-1)[..., :k]  # NaN, which stands for none, is sorted to the end


def losses(states, z_loss, gamma, after):
    """Return the losses of states of all classes."""
    loss = _plain_losses(states)
    if gamma:
        each = loss / states["mass"]
        loss = times(states["mass"], (-np.expm1(-each)) ** gamma * each)
    if z_loss:
        loss = loss + z_loss * (states["max"] / after + np.log1p(states["rest"])) ** 2
    return loss


def _plain_losses(states):
    """Return S + A log1p(R); NaN where all logits are -infinity."""
    log_total = np.where(np.isinf(states["cost"]), 0.0, np.log1p(states["rest"]))
    loss = states["cost"] + times(states["mass"], log_total)
    return np.where(np.isneginf(states["max"]), times(states["mass"], np.nan), loss)


def evaluation(s, labels, weights, *, classes, top_k, base, calibration_bins, confusion):
    """Return the Evaluation of states of all classes: xent/reference/evaluate.py has the formulas."""
    weight = np.ones(len(s)) if weights is None else weights
    loss = _plain_losses(s)
    ranked = ~np.isnan(s["max"]) & ~np.isneginf(s["max"])
    rank = np.where(ranked, s["before"], np.inf)
    total = np.where(np.isneginf(s["max"]), np.nan, 1.0 + s["rest"])
    squared_error = s["squares"] / total**2 + np.expm1(-loss) ** 2
    product = times(weight, loss)
    bins = None
    if calibration_bins is not None:
        bins = _bin_sums(1.0 / total, rank < 1, weight, calibration_bins)
    return xent.Evaluation(
        count=len(s),
        total_weight=float(weight.sum()),
        loss_sum=float(product.sum()),
        correct_sum=_weighted(weight, rank < 1),
        top_k=top_k,
        top_k_sums=tuple(_weighted(weight, rank < k) for k in top_k),
        squared_error_sum=_weighted(weight, squared_error),
        entropy_sum=_weighted(weight, s["spread"] / total + np.log(total)),
        label_weights=_kernels.sums_at(labels, weight, classes),
        base=base,
        second_sums=(
            float(np.count_nonzero(weight)),
            float((weight**2).sum()),
            float((weight * product).sum()),
            float((product**2).sum()),
            _weighted(weight**2, rank < 1),
        ),
        bin_sums=bins,
        **_counts(s["first"], ranked, labels, weight, weights is not None, classes, confusion),
    )


def _weighted(weight, values):
    return float(times(weight, values).sum())


def _bin_sums(confidence, right, weight, bins):
    """Return sums of weights, confidences and what is right for each bin; NaN is in the first."""
    place = np.ceil(np.where(np.isnan(confidence), 0.0, confidence) * bins) - 1
    place = np.clip(place, 0, bins - 1).astype(np.int64)
    values = np.ones(len(weight)), confidence, right
    return np.array([_kernels.sums_at(place, times(weight, v), bins) for v in values])


def _counts(predicted, ranked, labels, weight, weighted, classes, confusion):
    """Return the confusion matrix, or its sums for each class: integers where there are no weights."""
    if not confusion:
        return {}
    there = ranked & (weight != 0)
    predicted, labels, weight = predicted[there], labels[there], weight[there] if weighted else None

    def counted(places, where=slice(None), length=classes):
        return _kernels.sums_at(places[where], None if weight is None else weight[where], length)

    if confusion == "per_class":
        return {"class_sums": np.array([counted(predicted), counted(predicted, predicted == labels)])}
    matrix = counted(labels * classes + predicted, length=classes**2)
    return {"confusion": matrix.reshape(classes, classes)}
