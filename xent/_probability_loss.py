"""What the losses of probabilities, divergences and squared errors share: one call and its results."""

import math

import numpy as np

from . import _check, _kernels
from ._call import call
from ._threads import threads_for

# Beyond these temperatures float32 quotients could overflow or vanish where their differences do not.
_PLAIN_TEMPERATURES = 2.0**-10, 2.0**10


class LossCall:
    """One call: its arrays, checked, and what becomes of the losses.

    `axis` is the class axis, None for losses of elements. Beside 16-bit data, a target of another dtype is
    float32: then a float32 copy of the data is worked on, and the gradient rounded in the end.
    """

    def __init__(self, x, name, target, base, reduction, axis=None):
        self.x, self.name, self.target, self.axis = x, name, target, axis
        self.unit = 1.0 if base is None else math.log(_check.base(base))
        self.shape = x.shape if axis is None else x.shape[:axis] + x.shape[axis + 1 :]
        self.divisor = _check.mean_divisor(reduction, self.shape, x.shape, axis)
        self.dtype = _check.loss_dtype(x.dtype)

    def prepare(self, want_grad, out, grad_output, given=None, weight=None, target_name="target"):
        """Check grad_output and out, and make room for the results. `given` is the target as it came."""
        self.losses = np.empty(self.shape, self.dtype) if self.divisor is None else None
        dtype = self.dtype if self.axis is None else np.dtype(np.float64)
        factor, self.upstream = _check.upstream(
            grad_output, self.shape if self.divisor is None else (), dtype
        )
        self.factor = factor / (self.unit * (self.divisor or 1.0))
        self.out = None
        if want_grad:
            given = given if isinstance(given, np.ndarray) else self.target
            inputs = [(self.x, self.name), (given, target_name), (weight, "weight")]
            self.out = _check.output_like(out, [*inputs, (self.upstream, "grad_output")])

    def upstream_or_one(self):
        return 1.0 if self.upstream is None else self.upstream

    def result(self, total):
        """Return (loss, gradient) from the sum of the losses in nats."""
        if self.divisor is None:
            return self.losses[()], self.out
        if self.divisor == 0:  # a mean over nothing
            if self.out is not None:
                self.out[...] = 0
            return self.dtype.type(0), self.out
        with np.errstate(over="ignore", under="ignore"):
            return np.float64(total / self.unit / self.divisor).astype(self.dtype), self.out

    def _widened(self):
        """Return the data and the gradient as the kernels take them: of the dtype of the target."""
        if self.target is None or self.x.dtype == self.target.dtype:
            return self.x, self.out
        x = self.x.astype(self.target.dtype)
        return x, None if self.out is None else x

    def _narrow(self, out):
        if out is not None and out is not self.out:
            self.out[...] = _check.narrowed(out, self.out.dtype)

    def sum_over_elements(self, loss, clip, weight=None):
        """Return (loss, gradient) of a loss of elements, or one whose sum is asked for."""
        value = self.losses is not None or self.out is None or self.upstream is None
        x, out = self._widened()
        arrays = [x, self.target, weight, self.upstream, out, self.losses]
        if not x.flags.c_contiguous:
            order = sorted(range(x.ndim), key=lambda k: -abs(x.strides[k]))
            arrays = [None if a is None else a.transpose(order) for a in arrays]
            if self.losses is not None:
                arrays[5] = np.empty(arrays[5].shape, self.dtype)
        total = call(
            _kernels.element_losses,
            arrays[:4],
            (arrays[4],),
            arrays[5],
            loss,
            self.unit,
            clip,
            self.factor,
            value,
            threads_for(x.size),
        )
        if arrays[5] is not None and arrays[5].shape and arrays[5] is not self.losses:
            self.losses = arrays[5].transpose(np.argsort(order))
        self._narrow(out)
        return self.result(total)

    def sum_over_classes(self, loss, clip):
        """Return (loss, gradient) of a sum over classes; over all elements at once, if they are reduced."""
        if self.losses is None:
            return self.sum_over_elements(loss, clip)
        return self.losses_of_positions(loss, clip)

    def losses_of_positions(self, loss, clip):
        x, out = self._widened()
        if x.size == 0:
            self.losses[...] = 0
            return self.result(0.0)
        call(
            _kernels.position_losses,
            (x, self.target),
            (out,),
            self.axis,
            self.losses,
            self.upstream,
            loss,
            self.unit,
            clip,
            self.factor,
            threads_for(x.size),
        )
        self._narrow(out)
        return self.result(0.0)

    def distil(self, temperature):
        """Return (loss, gradient) of the distillation loss."""
        x, out = self._widened()
        teacher, gradient_scale = self.target, self.factor * temperature
        squared = temperature * temperature  # infinite, where a power would raise
        if x.size == 0:
            return self.result(0.0)
        if not _PLAIN_TEMPERATURES[0] <= temperature <= _PLAIN_TEMPERATURES[1]:
            x, teacher = _cooled(x, self.axis, temperature), _cooled(teacher, self.axis, temperature)
            out, temperature = None if out is None else x, 1.0
        losses = self.losses if self.losses is None or x.dtype != np.float64 else np.empty(self.shape)
        total = call(
            _kernels.distillation,
            (x, teacher),
            (out,),
            self.axis,
            losses,
            self.upstream,
            temperature,
            squared,
            gradient_scale,
            threads_for(x.size),
        )
        self._narrow(out)
        if losses is not self.losses:
            self.losses = _check.narrowed(losses, self.dtype)
        return self.result(total)


def _cooled(x, axis, temperature):
    """Return (x - max x) / temperature in float64, in which no temperature overflows."""
    with np.errstate(all="ignore"):
        scaled = x.astype(np.float64)
        top = scaled.max(axis=axis, keepdims=True)
        return (scaled - np.where(np.isfinite(top), top, 0.0)) / temperature
