"""The softmax loss behind `cross_entropy`, its second order and `linear_cross_entropy`: check, call."""

import math
from typing import NamedTuple

import numpy as np

from . import _check, _kernels
from ._call import call
from ._threads import threads_for


class Options(NamedTuple):
    """The options of a softmax loss, in the order and with the defaults of the public functions."""

    axis: int = -1
    weight: object = None
    sample_weight: object = None
    ignore_index: int = -100
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    gamma: float = 0.0
    temperature: float = 1.0
    logit_cap: float | None = None
    prior: object = None
    reduction: str = "mean"


def solve(logits, target, options, want_grad, out=None, grad_output=None):
    """Return (loss, gradient or None)."""
    x = _check.floats(logits, "logits")
    options = checked(options, x)
    goal = _goal(x, target, options, grad_output)
    if want_grad:
        out = _check.output_like(out, goal.inputs)
    if goal.divisor == 0:  # a mean over nothing
        if want_grad:
            out[...] = 0
        return goal.dtype.type(0), out
    mixed = goal.probs is not None and goal.probs.dtype != x.dtype  # 16-bit logits, float32 probabilities
    wide = x.astype(goal.probs.dtype) if mixed else x
    loss = _run(goal, options, wide, wide if mixed and want_grad else out)
    if mixed and want_grad:
        out[...] = _check.narrowed(wide, out.dtype)
    return loss, out


def solve_twice(logits, target, options, out, curvature):
    """Return (gradient, second derivatives): `curvature` mass p (1 - p), or the size of the gradient if 0."""
    x = _check.floats(logits, "logits")
    options = checked(options, x)
    goal = _goal(x, target, options, None)
    if out is None:
        out = None, None
    elif not isinstance(out, tuple) or len(out) != 2:
        raise TypeError(f"out must be a pair of arrays, got {type(out).__name__}")
    grad = _check.output_like(out[0], goal.inputs)
    hess = out[1] if out[1] is not None else _check.output_like(None, goal.inputs)
    _check.output(hess, x.shape, x.dtype, [*goal.inputs, (grad, "the gradient in out")])
    if goal.divisor == 0:
        grad[...] = 0
        hess[...] = 0
        return grad, hess
    mixed = goal.probs is not None and goal.probs.dtype != x.dtype
    arrays = [a.astype(goal.probs.dtype) for a in (x, grad, hess)] if mixed else [x, grad, hess]
    _run(goal, options, *arrays, curvature=curvature / options.temperature)
    if mixed:
        grad[...], hess[...] = (_check.narrowed(a, x.dtype) for a in arrays[1:])
    return grad, hess


def checked(options, x):
    """Return Options with every option in the form that the kernels take; a prior becomes its logarithm."""
    axis = _check.axis_of(options[0], x.ndim)
    _, weight, sample, ignore_index, smoothing, z_loss, gamma, temperature, cap, prior, reduction = options
    classes = x.shape[axis]
    if type(ignore_index) is not int or ignore_index != -100:
        ignore_index = _check.label_value(ignore_index, "ignore_index")
    if type(smoothing) is not float or smoothing != 0.0:
        smoothing = _check.real(smoothing, "label_smoothing", 0.0, 1.0)
    if type(z_loss) is not float or z_loss != 0.0:
        z_loss = _check.real(z_loss, "z_loss", 0.0)
    if type(gamma) is not float or gamma != 0.0:
        gamma = _check.real(gamma, "gamma", 0.0)
    if type(temperature) is not float or temperature != 1.0:
        temperature = _check.real(temperature, "temperature", 0.0, open_low=True)
    if cap is not None:
        cap = _check.real(cap, "logit_cap", 0.0, open_low=True)
    if weight is not None:
        weight = _check.per_class(weight, classes, "weight")
    if sample is not None:
        sample = _check.sample_weights(sample, x.shape[:axis] + x.shape[axis + 1 :])
    if prior is not None:
        prior = np.log(_check.per_class(prior, classes, "prior", positive=True))
    return Options(
        axis, weight, sample, ignore_index, smoothing, z_loss, gamma, temperature, cap, prior, reduction
    )


class _Goal(NamedTuple):
    """What is to be computed of which arrays, after all checks but those of the results."""

    dtype: np.dtype  # of the loss
    labels: np.ndarray | None
    probs: np.ndarray | None
    divisor: float | None  # of the sum of the losses: None for no reduction, 0 for a mean over nothing
    losses: np.ndarray | None  # one per position, without reduction
    factor: float  # of the gradient
    upstream: np.ndarray | None
    inputs: list  # (array, name) pairs that a result must not overlap


def _goal(x, target, options, grad_output):
    axis, dtype = options.axis, _check.loss_dtype(x.dtype)
    labels, probs = _check.target_of(target, x, axis, options.ignore_index)
    check_gamma(options, labels)
    divisor = divisor_of(options, x.shape, labels)
    losses = None if divisor is not None else np.empty(x.shape[:axis] + x.shape[axis + 1 :], dtype)
    factor, upstream = _check.upstream(grad_output, () if losses is None else losses.shape)
    given = target if isinstance(target, np.ndarray) else labels if probs is None else probs
    inputs = [(x, "logits"), (given, "target"), (options.weight, "weight"), (upstream, "grad_output")]
    inputs.append((options.sample_weight, "sample_weight"))
    return _Goal(dtype, labels, probs, divisor, losses, factor, upstream, inputs)


def _run(goal, options, x, out, second=None, curvature=0.0):
    """Fill in the gradient `out` and the second derivatives `second` (or None); return the reduced loss."""
    # The target of a position is u_c = w_c (mix t_c + base) for all classes, and peak * w_y at the label.
    classes, e = x.shape[options.axis], options.label_smoothing
    base = e / classes if classes else 0.0
    mix, peak = (0.0, 1.0 - e) if goal.probs is None else (1.0 - e, 0.0)
    t, cap, weight = options.temperature, options.logit_cap, options.weight
    dense_weight = _check.narrowed(weight, goal.dtype) if weight is not None and (mix or base) else None
    factor = goal.factor if goal.divisor is None else goal.factor / goal.divisor
    total = call(
        _kernels.cross_entropy,
        (x, goal.probs),
        (out, second),
        options.axis,
        goal.labels,
        options.ignore_index,
        dense_weight,
        weight,
        mix,
        base,
        peak,
        options.z_loss,
        options.gamma,
        t,
        cap or 0.0,
        in_two(options.prior, goal.dtype),
        options.sample_weight,
        factor / t,
        curvature,
        goal.upstream,
        goal.losses,
        threads_for(x.size),
    )
    return goal.losses[()] if goal.divisor is None else numpy_scalar(goal.dtype, total / goal.divisor)


def in_two(numbers, dtype):
    """Return float64 numbers (or None) as rows of the dtype: the numbers, and what rounding left of them."""
    if numbers is None:
        return None
    both = np.empty((2, *numbers.shape), dtype)
    both[0] = numbers
    both[1] = numbers - both[0]
    return both


def check_gamma(options, labels):
    """Raise for a focal loss of anything but labels."""
    if options.gamma != 0.0 and (labels is None or options.label_smoothing != 0.0):
        what = "probabilities as the target" if labels is None else "label_smoothing"
        raise ValueError(f"gamma must be 0 with {what}: (1 - p[y])**gamma is defined for one label y")


def divisor_of(options, shape, labels):
    """Return what the sum of the losses is divided by; None for no reduction, 0 for a mean over nothing.

    Checks the labels on the way: the pass that counts them is the one that looks at each.
    """
    axis, reduction, sample = options.axis, options.reduction, options.sample_weight
    _check.reduction_name(reduction)
    if labels is None:
        counted = mass = math.prod(shape[:axis] + shape[axis + 1 :])
        if sample is not None:
            mass = float(sample.sum())
    else:
        counted, mass = counted_labels(options, shape, labels)
    if reduction == "mean":
        return mass
    if reduction == "none":
        return None
    if reduction == "sum":
        return 1.0
    if reduction == "mean_valid":
        return counted
    if reduction == "mean_full":
        return math.prod(shape[:axis] + shape[axis + 1 :])
    if axis == 0:
        raise ValueError('reduction="mean_batch" needs a batch axis in front, but axis 0 is the class axis')
    return shape[0]


def counted_labels(options, shape, labels, per_label=None):
    """Return how many labels are not ignored, and the sum of their weights; raise for the first bad one.

    To `per_label`, zeros, the sum of the sample weights of each label is added.
    """
    classes = shape[options.axis]
    bad, counted, mass = _kernels.scan_labels(
        labels, classes, options.ignore_index, options.weight, options.sample_weight, per_label
    )
    if bad >= 0:
        raise _check.bad_label(labels, bad, classes, options.ignore_index)
    return counted, mass


def numpy_scalar(dtype, value):
    """Return a NumPy scalar."""
    if -3e38 < value < 3e38 or dtype == np.float64:  # anything fits
        return dtype.type(value)
    return _check.narrowed(np.array(value), dtype)[()]
