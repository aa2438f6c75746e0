"""The options of the softmax loss: their one list, and their checks where Python has to know them."""

import math
from typing import NamedTuple

import numpy as np

from . import _check, _kernels, _reduction


class Options(NamedTuple):
    """In the order and with the defaults of `cross_entropy`."""

    axis: int = -1
    weight: object = None
    sample_weight: object = None
    ignore_index: int | tuple = -100
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    gamma: float = 0.0
    temperature: float = 1.0
    logit_cap: float | None = None
    prior: object = None
    reduction: str = "mean"


def check_options(options, shape, weight_name="weight"):
    """Return Options that were checked, for logits of a shape."""
    axis = _check.axis_of(options.axis, len(shape))
    classes, positions = shape[axis], _check.positions_of(shape, axis)
    weight, sample, prior, cap = options.weight, options.sample_weight, options.prior, options.logit_cap
    return Options(
        axis,
        ignore_index=_check.ignored(options.ignore_index),
        label_smoothing=_check.real(options.label_smoothing, "label_smoothing", 0.0, 1.0),
        z_loss=_check.real(options.z_loss, "z_loss", 0.0),
        gamma=_check.real(options.gamma, "gamma", 0.0),
        temperature=_check.real(options.temperature, "temperature", 0.0, open_low=True),
        logit_cap=None if cap is None else _check.real(cap, "logit_cap", 0.0, open_low=True),
        weight=None if weight is None else _check.per_class(weight, classes, weight_name),
        sample_weight=None if sample is None else _check.sample_weights(sample, positions),
        prior=None if prior is None else _check.per_class(prior, classes, "prior", positive=True),
        reduction=_reduction.name(options.reduction),
    )


def divisor_of(options, shape, labels):
    """Return what the sum of the losses is divided by, and how many positions count.

    The labels (None: the target holds probabilities) are checked on the way.
    """
    axis, sample = options.axis, options.sample_weight
    if labels is None:
        counted = math.prod(_check.positions_of(shape, axis))
        with np.errstate(all="ignore"):
            mass = counted if sample is None else float(sample.sum())
    else:
        counted, mass = _kernels.scan_labels(
            labels, shape[axis], options.ignore_index, options.weight, sample
        )
    return _reduction.divisor(options.reduction, shape, axis, mass, counted), counted
