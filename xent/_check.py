"""Every error that a user can see is raised here, before anything is computed or written.

A check returns what it checked in the form that the kernels take. Messages name the argument, what was
expected, what came.
"""

import math
import operator
from typing import NamedTuple

import numpy as np
from numpy.exceptions import AxisError

from . import _kernels

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
_LARGEST = (
    2**31 - 1
)  # of one size of an image or a window, so that no product of a few of them overflows 64 bits
REDUCTIONS = ("none", "sum", "mean", "mean_valid", "mean_full", "mean_batch")


# ---- data ----


def floats(value, name):
    """Return an aligned array of native float32 or float64; integers and bools become float64."""
    if _kernels.are_floats(value):
        return value
    array = np.asarray(value)
    if _kernels.are_floats(array):
        return array
    return array.astype(_compute_dtype(array.dtype, name))


def _compute_dtype(dtype, name):
    native = dtype.newbyteorder("=")
    if native == F32 or native == F64:
        return native
    if dtype.kind in "iub":
        return F64
    if dtype.itemsize == 2 and (dtype.kind == "f" or dtype.name == "bfloat16"):
        raise TypeError(f"{name} has dtype {dtype}, which is not supported yet; convert it to float32")
    raise TypeError(f"{name} must be real numbers (float32, float64, integers or bools), got dtype {dtype}")


def same_floats(first, second, names):
    """Return both arrays in their common floating dtype."""
    first, second = floats(first, names[0]), floats(second, names[1])
    if first.dtype is not second.dtype:
        common = np.result_type(first, second)
        first, second = first.astype(common, copy=False), second.astype(common, copy=False)
    return first, second


def same_shape(array, shape, name, of):
    """Raise unless `array` has the shape of `of`."""
    if array.shape != shape:
        raise ValueError(f"{name} must have the shape of {of}, {shape}, got {array.shape}")


def output(out, shape, dtype, inputs, in_place=1):
    """Raise unless `out` can take the result.

    `inputs` are (array, name) pairs; `out` may be one of the first `in_place` of them.
    """
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    if out.dtype != dtype:
        raise ValueError(f"out must have dtype {dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    for index, (array, name) in enumerate(inputs):
        allowed = index < in_place
        if not isinstance(array, np.ndarray) or (allowed and _is_same_memory(out, array)):
            continue
        if _share_memory(out, array):
            hint = f" or be {name} itself" if allowed else ""
            raise ValueError(f"out overlaps {name} in memory: it must lie apart from it{hint}")
    return out


def _is_same_memory(a, b):
    return a is b or (a.shape == b.shape and a.strides == b.strides and a.ctypes.data == b.ctypes.data)


def _share_memory(a, b):
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=100_000)
    except np.exceptions.TooHardError:  # strides so odd that the question is hard: take it for an overlap
        return True


# ---- options ----


def axis_of(axis, ndim, name="axis"):
    """Return `axis` counted from the front."""
    if type(axis) is int and -ndim <= axis < ndim:
        return axis + ndim if axis < 0 else axis
    try:
        index = operator.index(axis)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(axis).__name__}") from None
    if not -ndim <= index < ndim:
        raise AxisError(f"{name} {index} is out of bounds for an array of {ndim} dimensions")
    return index + ndim if index < 0 else index


def axes_of(axis, ndim):
    """Return a tuple of axes counted from the front; None means all."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(axis_of(a, ndim) for a in axis) if isinstance(axis, tuple) else (axis_of(axis, ndim),)
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis must not name an axis twice, got {axis}")
    return axes


def real(value, name, low=-math.inf, high=math.inf, open_low=False):
    """Return a finite float in [low, high], or (low, high] with `open_low`."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}") from None
    inside = low < number <= high if open_low else low <= number <= high
    if not inside or not math.isfinite(number):
        bounds = (
            f"{'>' if open_low else '>='} {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        )
        raise ValueError(f"{name} must be a finite number {bounds}, got {value}")
    return number


def integer(value, name, low=None):
    """Return an int, at least `low`."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got a bool")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None
    if low is not None and number < low:
        raise ValueError(f"{name} must be at least {low}, got {number}")
    return number


def reduction_name(reduction):
    """Raise unless `reduction` is one that exists."""
    if not isinstance(reduction, str):
        raise TypeError(f"reduction must be a string, got {type(reduction).__name__}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")


def class_weights(weight, classes):
    """Return the weights as a contiguous float64 array of one non-negative number per class."""
    weight = np.asarray(floats(weight, "weight"), dtype=F64, order="C")
    if weight.shape != (classes,):
        raise ValueError(f"weight must have one number per class, shape ({classes},), got {weight.shape}")
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        index = int(bad.argmax())
        raise ValueError(f"weight must be finite and not negative, got weight[{index}] = {weight[index]}")
    return weight


def upstream(grad_output, shape):
    """Return (factor, None) for a scalar loss, (1, float64 per position) for unreduced losses."""
    if grad_output is None:
        return 1.0, None
    array = floats(grad_output, "grad_output")
    if array.shape != shape:
        raise ValueError(f"grad_output must have the shape of the loss, {shape}, got {array.shape}")
    if shape == ():
        return float(array), None
    return 1.0, np.asarray(array, dtype=F64, order="C")


# ---- sliding windows ----


class Window(NamedTuple):
    """The geometry of a sliding window: the fields of the kernels' xent_window, then the padding behind."""

    height: int
    width: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int
    top: int
    left: int
    out_h: int
    out_w: int
    bottom: int
    right: int


def pair(value, name, low):
    """Return two ints, at least `low`, from an int or a pair."""
    if isinstance(value, (tuple, list, np.ndarray)):
        if len(value) != 2:
            raise ValueError(f"{name} must be an integer or a pair, got {len(value)} numbers: {value}")
        return tuple(integer(v, name, low) for v in value)
    return (integer(value, name, low),) * 2


def _padding_of_axis(padding, axis, size, kernel, stride, dilation):
    """Return (before, after) of one axis, for `padding` in any of its forms."""
    if isinstance(padding, str):
        if padding == "valid":
            return 0, 0
        if padding != "same":
            raise ValueError(
                f'padding must be "valid", "same", an integer, a pair or two pairs, got {padding!r}'
            )
        total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        return total // 2, total - total // 2
    if isinstance(padding, (tuple, list)) and len(padding) == 2 and isinstance(padding[0], (tuple, list)):
        return pair(padding[axis], "padding", 0)
    return (pair(padding, "padding", 0)[axis],) * 2


def window(size, kernel, stride, padding, dilation, ceil_mode=False):
    """Return the Window over an image of `size` (height, width); raise if no output is left."""
    stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    before, after, out = [0, 0], [0, 0], [0, 0]
    for axis in range(2):
        before[axis], after[axis] = _padding_of_axis(
            padding, axis, size[axis], kernel[axis], stride[axis], dilation[axis]
        )
        extent = (kernel[axis] - 1) * dilation[axis] + 1
        free = size[axis] + before[axis] + after[axis] - extent
        if free < 0 or size[axis] < 1:
            raise ValueError(
                f"the kernel is larger than the padded input: {('height', 'width')[axis]} {size[axis]}, "
                f"padding {before[axis]} + {after[axis]}, kernel {kernel[axis]} of dilation {dilation[axis]}"
            )
        out[axis] = free // stride[axis] + 1
        # ceil_mode: one more window if it starts inside the input or the padding before it.
        if ceil_mode and free % stride[axis] and out[axis] * stride[axis] < size[axis] + before[axis]:
            out[axis] += 1
    result = Window(*size, *kernel, *stride, *dilation, *before, *out, *after)
    if max(result) > _LARGEST or result.out_h * result.out_w > _LARGEST or kernel[0] * kernel[1] > _LARGEST:
        raise ValueError(f"sizes too large to be addressed: {result}")
    return result


def images(array, name):
    """Raise unless an array is (N, C, H, W)."""
    if array.ndim != 4:
        raise ValueError(f"{name} must have 4 dimensions, (N, C, H, W), got shape {array.shape}")
    return array


# ---- targets ----


def labels_of(target, positions, classes, ignore_index, logits_shape=None):
    """Return labels as an int64 array in C order, of the positions' shape.

    `logits_shape` is given where a floating target of that shape would mean probabilities: the messages then
    say so.
    """
    array = np.asarray(target)
    if array.dtype.kind not in "iu" and not (array.size == 0 and not isinstance(target, np.ndarray)):
        hint = (
            ""
            if logits_shape is None
            else f"; probabilities must have the shape of the logits, {logits_shape}"
        )
        raise TypeError(
            f"target must hold integer labels, got dtype {array.dtype} of shape {array.shape}{hint}"
        )
    if array.shape != positions:
        hint = "; one-hot targets must be floating-point" if array.shape == logits_shape else ""
        raise ValueError(f"target must have the shape of the positions, {positions}, got {array.shape}{hint}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise bad_label(array, int(array.argmax()), classes, ignore_index)
    return np.asarray(array, dtype=np.int64, order="C")


def bad_label(labels, where, classes, ignore_index):
    """Return the error for the label at flat position `where`."""
    value = labels.reshape(-1)[where]
    expected = f"0 <= label < {classes} or ignore_index={ignore_index}"
    return ValueError(f"target{_at(where, labels.shape)} is {value}, expected {expected}")


def _at(where, shape):
    """Return the index of a flat position as it is written in Python; nothing for a 0-d array."""
    index = np.unravel_index(where, shape)
    return f"[{', '.join(str(int(i)) for i in index)}]" if index else ""
