"""Sliding windows over images: their geometry, checked, and the phases of a transposed one."""

import functools
import math
from typing import NamedTuple

import numpy as np

from . import _check

# Largest number that describes an image or a window: the product of two of them fits into 64 bits.
LARGEST = 2**31 - 1


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


# What an error says for a field that is no name of an argument.
ARGUMENTS = {name: f"padding: {name}" for name in ("top", "left", "bottom", "right")}
for _way in ("height", "width"):
    ARGUMENTS[f"kernel_{_way[0]}"] = f"kernel_size: {_way}"
    ARGUMENTS[f"stride_{_way[0]}"], ARGUMENTS[f"dilation_{_way[0]}"] = f"stride: {_way}", f"dilation: {_way}"


# Types of options that say all by their type and value, and cannot change.
PLAIN = {int, bool, str, type(None)}


def window_of(make, sizes, *options):
    """Return the Window that `make` returns, a function of some sizes, which are tuples of integers, and of
    options; small calls would take twice as long if it were not remembered."""
    if PLAIN.issuperset(map(type, options)):
        return _remembered(make, *sizes, *options)
    return make(*sizes, *options)


@functools.lru_cache(maxsize=1024, typed=True)  # typed: True is not 1
def _remembered(make, *arguments):
    return make(*arguments)


def pair(value, name, low):
    """Return two ints, at least `low`, from an int or a pair."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(f"{name} must be an integer or a pair, got {len(value)} numbers: {value}")
        return tuple(_check.integer(v, name, low) for v in value)
    return (_check.integer(value, name, low),) * 2


def _padding(padding, size, kernel, stride, dilation):
    """Return ((top, bottom), (left, right)) for `padding` in any of its forms."""
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding != "same":
            raise ValueError(
                f'padding must be "valid", "same", an integer, a pair or two pairs, got {padding!r}'
            )
        both = []
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
            total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            both.append((total // 2, total - total // 2))
        return tuple(both)
    if isinstance(padding, np.ndarray):
        padding = padding.tolist()
    if isinstance(padding, (tuple, list)) and any(isinstance(p, (tuple, list)) for p in padding):
        if len(padding) != 2 or not all(isinstance(p, (tuple, list)) for p in padding):
            raise ValueError(f"padding must be ((top, bottom), (left, right)), got {padding}")
        return pair(padding[0], "padding", 0), pair(padding[1], "padding", 0)
    if isinstance(padding, (tuple, list)) and len(padding) == 4:  # in an order that differs between libraries
        raise ValueError(f"padding of four sides must be ((top, bottom), (left, right)), got {padding}")
    vertical, horizontal = pair(padding, "padding", 0)
    return (vertical, vertical), (horizontal, horizontal)


def pooling_window(size, kernel, stride, padding, dilation, ceil_mode):
    """Return the Window of a pool, whose windows all hold a pixel; raise if there is none or one does not.

    Without a stride they touch.
    """
    stride = kernel if stride is None else stride
    window = sliding_window(size, kernel, stride, padding, dilation, ceil_mode)
    for axis, name in enumerate(("height", "width")):
        size, kernel, stride, dilation, before, outputs = window[axis:12:2]
        if not _all_hold_a_pixel(size, kernel, stride, dilation, before, outputs):
            raise ValueError(
                f"padding must leave a pixel in every window: {name} {size}, kernel_size {kernel}, stride "
                f"{stride}, dilation {dilation}, padding {before} + {(window.bottom, window.right)[axis]}"
            )
    return window


def _all_hold_a_pixel(size, kernel, stride, dilation, before, outputs):
    """Whether each window of an axis has an element in [0, size)."""
    if before > (kernel - 1) * dilation or (outputs - 1) * stride - before >= size:
        return False
    if dilation <= size:
        return True
    # A window that begins in the padding may step over the image. Its first element behind the padding is at
    # (o stride - before) mod dilation, which repeats.
    period = dilation // math.gcd(stride, dilation)
    starts = range(-before, 0, stride)[: min(outputs, period)]
    return all(start % dilation < size for start in starts)


def sliding_window(size, kernel, stride, padding, dilation, ceil_mode=False, names=("height", "width")):
    """Return the Window over an image of `size` (height, width); raise if no output is left."""
    stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    padding = _padding(padding, size, kernel, stride, dilation)
    out = []
    for axis, name in enumerate(names):
        before, after = padding[axis]
        free = size[axis] + before + after - ((kernel[axis] - 1) * dilation[axis] + 1)
        n = (free + (stride[axis] - 1 if ceil_mode else 0)) // stride[axis] + 1
        # ceil_mode keeps a last window only if it starts inside the input or the padding before it.
        if ceil_mode and (n - 1) * stride[axis] >= size[axis] + before:
            n -= 1
        if n < 1 or size[axis] < 1:
            raise ValueError(
                f"the kernel is larger than the padded input: {name} {size[axis]}, padding {before} + "
                f"{after}, kernel {kernel[axis]} with dilation {dilation[axis]}"
            )
        out.append(n)
    (top, bottom), (left, right) = padding
    return _bounded(Window(*size, *kernel, *stride, *dilation, top, left, *out, bottom, right))


def line_window(size, kernel, stride, padding, dilation):
    """Return the Window over a signal of `size` (length,), which is an image of one row."""
    stride, dilation = _check.integer(stride, "stride", 1), _check.integer(dilation, "dilation", 1)
    if not isinstance(padding, str):
        padding = (0, 0), pair(padding, "padding", 0)
    names = "rows", "length"
    return sliding_window((1, *size), (1, *kernel), (1, stride), padding, (1, dilation), names=names)


def _bounded(window):
    """Return a Window; raise if one of its numbers could overflow in the kernels."""
    for field, value in window._asdict().items():
        if value > LARGEST:
            name = ARGUMENTS.get(field, field)
            raise ValueError(f"{name} is {value}, more than the largest that is supported, {LARGEST}")
    return window


def transposed_window(outputs, kernel, stride, padding, output_padding, output_size, dilation):
    """Return the Window of the convolution that has `outputs` (height, width) and is transposed."""
    stride, dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
    extra = pair(output_padding, "output_padding", 0)
    if output_size is not None:
        if extra != (0, 0):
            raise ValueError(f"output_padding must be 0 with an output_size, got {output_padding}")
        output_size = pair(output_size, "output_size", 1)
        padding = _padding(padding, output_size, kernel, stride, dilation)
        extra = _extra(output_size, outputs, kernel, stride, padding, dilation)
    elif isinstance(padding, str) and padding == "same":
        raise ValueError('padding must not be "same" without an output_size: several sizes are possible')
    else:
        padding = _padding(padding, outputs, kernel, stride, dilation)
    size = []
    for axis, name in enumerate(("height", "width")):
        before, after = padding[axis]
        if extra[axis] >= max(stride[axis], dilation[axis]):
            raise ValueError(
                f"output_padding must be smaller than stride or dilation, got {extra[axis]} with stride "
                f"{stride[axis]} and dilation {dilation[axis]}"
            )
        whole = (outputs[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1 + extra[axis]
        if whole <= before + after or outputs[axis] < 1:
            raise ValueError(
                f"padding must leave some of the output: {name} {max(whole, 0)}, padding {before} + {after}"
            )
        size.append(whole - before - after)
    (top, bottom), (left, right) = padding
    return _bounded(Window(*size, *kernel, *stride, *dilation, top, left, *outputs, bottom, right))


def _extra(output_size, outputs, kernel, stride, padding, dilation):
    """Return the output_padding that gives the output of a transposed convolution a size."""
    extra = []
    for axis, name in enumerate(("height", "width")):
        whole = (outputs[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1
        least = whole - sum(padding[axis])
        if not 0 <= output_size[axis] - least < stride[axis]:
            raise ValueError(
                f"output_size must be reachable: {name} {max(least, 1)} to {least + stride[axis] - 1}, "
                f"got {output_size[axis]}"
            )
        extra.append(output_size[axis] - least)
    return tuple(extra)


# The transpose of a convolution. An input pixel y receives weight i from the output pixel o with
#
#     o stride - before + i dilation = y.
#
# With period = stride / gcd and step = dilation / gcd, the taps that reach the pixels y = first + q stride of
# one phase are i = start + m period, and they come from
#
#     o = (first + before - start dilation) / stride + q - m step,
#
# which is an ordinary convolution of stride 1 and dilation `step` over the outputs, with the taps in reverse
# order.


class Phase(NamedTuple):
    """The pixels first, first + stride, ... of one axis, and the convolution that gives them."""

    first: int
    pixels: int
    start: int
    period: int
    taps: int
    before: int
    dilation: int


def phases(size, kernel, stride, dilation, before):
    """Yield the phases of an axis that any tap reaches."""
    common = math.gcd(stride, dilation)
    period, step = stride // common, dilation // common
    for start in range(min(kernel, period)):
        first = (start * dilation - before) % stride
        if first < size:
            taps = -(-(kernel - start) // period)
            nearest = (first + before - start * dilation) // stride
            yield Phase(
                first, -(-(size - first) // stride), start, period, taps, (taps - 1) * step - nearest, step
            )
