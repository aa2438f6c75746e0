"""The options of the cross-entropy family: values for them, and how far off a result may be.

The bounds themselves are in tolerances.py; here stand the magnitudes that they apply to.
"""

import itertools

import numpy as np
from helpers import assert_ulp, random_weights, reference, ulp, wide
from tolerances import (
    ROUNDED,
    UNFUSED,
    bound,
    focal,
    lse_error,
    reference_error,
    slope_error,
    transform_error,
)

REDUCTIONS = ["none", "sum", "mean", "mean_valid", "mean_full", "mean_batch"]
KINDS = ["labels", "probabilities"]
NAMES = ["sample_weight", "z_loss", "gamma", "temperature", "logit_cap", "prior"]
NUMBERS = {"z_loss": 0.01, "gamma": 2.0, "temperature": 0.7, "logit_cap": 5.0, "label_smoothing": 0.1}


def positions_of(shape, axis):
    return tuple(int(n) for n in np.delete(shape, axis))


def random_prior(classes, seed=0):
    """Frequencies of classes, some of them rare."""
    values = np.random.default_rng([seed, classes]).gamma(0.5, size=classes) + 1e-4
    return values / values.sum()


def make(names, shape, axis, dtype, seed=0):
    """The options of these names, for logits of this shape."""
    random = {
        "sample_weight": lambda: random_weights(int(np.prod(positions_of(shape, axis))), dtype, seed).reshape(
            positions_of(shape, axis)
        ),
        "weight": lambda: random_weights(shape[axis], dtype, seed + 1),
        "prior": lambda: random_prior(shape[axis], seed),
    }
    return {name: random[name]() if name in random else NUMBERS[name] for name in names}


def widened(options):
    """Options whose arrays are in float64, as the reference gets them."""
    return {k: wide(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}


def result_dtypes(dtype):
    """The dtypes of losses and gradients."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32), dtype


class Terms:
    """The magnitudes that a loss, a gradient and a Hessian product are made of, and how far off they may be.

    All is in float64 with the class axis last, but for the *_scale and *_slack of arrays like the logits.
    """

    def __init__(
        self,
        logits,
        target,
        dtype,
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
        self.axis, self.gamma, self.z_loss = axis, gamma, z_loss
        x = np.moveaxis(logits, axis, -1)
        classes, positions = x.shape[-1], x.shape[:-1]
        w = np.ones(classes) if weight is None else weight
        s = np.ones(positions) if sample_weight is None else sample_weight
        if np.shape(target) == logits.shape:
            t, counted, share = np.moveaxis(target, axis, -1), np.ones(positions, bool), s
        else:
            counted = ~np.isin(target, ignore_index)
            t = (np.arange(classes) == np.where(counted, target, 0)[..., None]).astype(float)
            share = (t * w).sum(-1) * s * counted
        divisor = {
            "none": 1,
            "sum": 1,
            "mean": share.sum(),
            "mean_valid": counted.sum(),
            "mean_full": counted.size,
            "mean_batch": logits.shape[0],
        }[reduction]
        self.positions = max(counted.size, 1)
        self.factor = s * counted / (divisor or 1)

        self._transform(x, temperature, logit_cap, prior)
        error = reference_error(logits, axis) + transform_error(logits, axis, temperature, logit_cap, prior)
        self.error = np.moveaxis(np.broadcast_to(error, logits.shape), axis, -1)
        self.steep = slope_error(x, temperature, logit_cap)
        pulls = w * ((1 - label_smoothing) * t + label_smoothing / classes)
        self._probabilities(pulls, t)
        off = lse_error(self.lse, self.u.max(-1), dtype)
        self.off = np.where(np.isfinite(off), off, 0.0)
        self._first_derivative(reduction)

    def _transform(self, x, temperature, logit_cap, prior):
        """Transformed logits with their first and second derivative."""
        with np.errstate(all="ignore"):
            u = x / temperature
            self.slope, self.bend = np.full(x.shape, 1 / temperature), np.zeros(x.shape)
            if logit_cap is not None:
                ratio = u / logit_cap
                self.slope = self.slope / np.cosh(ratio) ** 2
                self.bend = 2 * self.slope * np.abs(np.tanh(ratio)) / logit_cap / temperature
                u = logit_cap * np.tanh(ratio)
            self.u = u if prior is None else u + np.log(prior)

    def _probabilities(self, pulls, t):
        """The masses a_c, for focal loss with its factor and the magnitude of F' p_y."""
        gamma = self.gamma
        self.p, log_p, lse = (reference(f, self.u) for f in ("softmax", "log_softmax", "logsumexp"))
        self.lse = np.where(np.isfinite(lse), np.abs(lse), 0.0)
        with np.errstate(all="ignore"):
            own = np.where(pulls == 0, 0.0, pulls * -log_p).sum(-1)
            self.own = np.where(np.isfinite(own), own, 0.0)
            q = -np.expm1(log_p)
            ratio = np.where(q == 0, 1.0, np.where(self.p == 0, 0.0, -log_p * self.p / q))
            factor = q**gamma * (1 + gamma * ratio) if gamma else np.ones(q.shape)
            bends = gamma * q ** (gamma - 1) * (2 * self.p + abs(gamma - 1) * self.p * ratio + q * ratio)
            bends = np.where((q == 0) | (gamma == 0) | (pulls == 0), 0.0, bends)
        self.t, self.q = t, q
        self.bends = pulls * bends
        self.pulls = np.where(pulls == 0, 0.0, pulls * factor)
        self.mass = self.pulls.sum(-1)

    def _first_derivative(self, reduction):
        """Scale and slack of loss and gradient."""
        off, z_loss = self.off, self.z_loss
        slack = self.error.max(-1, initial=0.0) * (self.mass + self.gamma * self.own)
        slack = self.factor * (slack + z_loss * off * (2 * self.lse + off))
        self.loss_slack = slack if reduction == "none" else slack.sum()
        self.pull = self.mass[..., None] * self.p + self.pulls + 2 * z_loss * self.lse[..., None] * self.p
        scale = self.factor[..., None] * self.slope * self.pull
        extra = self.factor[..., None] * self.slope * 2 * z_loss * off[..., None] * self.p
        slack = (self.steep + (1 + self.gamma) * self.error) * scale + extra
        self.grad_scale, self.grad_slack = self._back(scale), self._back(slack)

    def product(self, vector):
        """Scale and slack of the Hessian times a vector."""
        v = np.abs(np.moveaxis(vector, self.axis, -1))
        moved, p, z = self.slope * v, self.p, 2 * self.z_loss
        mean = (p * moved).sum(-1, keepdims=True)
        spread = p * (moved + mean)
        bent = self.bends * (moved + mean)
        curved = p * (bent.sum(-1, keepdims=True) - bent) + self.q * bent if self.gamma else 0.0
        inner = self.mass[..., None] * spread + curved + z * (mean * p + self.lse[..., None] * spread)
        scale = self.factor[..., None] * (self.slope * inner + self.pull * self.bend * v)
        extra = self.off[..., None] * (self.slope * spread + p * self.bend * v)
        slack = 2 * (self.steep + (2 + self.gamma) * self.error) * scale
        slack = slack + self.factor[..., None] * z * extra
        return self._back(scale), self._back(slack)

    def diagonal(self):
        """Scale and slack of the diagonal of the Hessian."""
        p, q, z = self.p, self.q, 2 * self.z_loss
        inner = self.mass[..., None] * p * q + z * (p**2 + self.lse[..., None] * p * q)
        inner = inner + self.bends * q**2 + p**2 * (self.bends.sum(-1, keepdims=True) - self.bends)
        scale = self.factor[..., None] * (self.slope**2 * inner + self.bend * self.pull)
        extra = self.factor[..., None] * z * self.off[..., None] * (self.slope**2 * p * q + self.bend * p)
        slack = 2 * (2 * self.steep + (2 + self.gamma) * self.error) * scale + extra
        return self._back(scale), self._back(slack)

    def _back(self, values):
        return np.moveaxis(values, -1, self.axis)


def assert_loss(result, expected, terms, dtype, gamma=0.0, classes=1, what=""):
    summed = (1 if np.ndim(expected) else terms.positions) + classes
    limit = focal(bound("loss", dtype if dtype == np.float64 else np.dtype("f4"), summed), gamma)
    assert_ulp(
        result, expected, limit, dtype=result_dtypes(dtype)[0], slack=terms.loss_slack, what=f"loss {what}"
    )


def assert_grad(result, expected, terms, dtype, gamma=0.0, own=False, what="", upstream=1.0):
    """`own`: nothing cancels, so each entry is held to its own value."""
    single = dtype if dtype == np.float64 else np.dtype("f4")
    limit = focal(bound("gradient" if own else "affine_gradient", single, terms.positions), gamma)
    limit += 0.0 if own else UNFUSED
    scale = np.abs(expected) if own else terms.grad_scale * upstream
    slack = terms.grad_slack * upstream
    if dtype.itemsize == 2:  # computed in float32, then rounded once
        slack, scale, limit = slack + limit * ulp(scale, np.float32), np.abs(expected), ROUNDED
    assert_ulp(result, expected, limit, dtype=dtype, scale=scale, slack=slack, what=f"gradient {what}")


def combinations():
    """Every set of options."""
    names = ["weight", "label_smoothing", *NAMES]
    for flags in itertools.product([False, True], repeat=len(names)):
        yield [name for name, flag in zip(names, flags, strict=True) if flag]
