"""Maximum and average pooling (NCHW) and their gradients, as loops over the cells of a window."""

import numpy as np

from ._common import as_float64, deliver, pair, plain, window_offsets
from .conv import _border


def max_pool2d(
    x, kernel_size, *, stride=None, padding=0, dilation=1, ceil_mode=False, return_places=False, out=None
):
    """The largest value of each window; padding counts as -inf, a NaN wins over everything.

    With `return_places` also the number of its cell, in scan order: the first of several, never the padding.
    """
    x = as_float64(x)
    border, size, offsets = _windows(x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    padded, inside = _pad(x, border, -np.inf), _pad(np.ones(x.shape, bool), border, False)
    windows = [cells for _, _, cells in offsets]
    largest = np.max([padded[cells] for cells in windows], axis=0)
    y = deliver(largest, out)
    if not return_places:
        return y
    candidates = [((padded[cells] == largest) | np.isnan(padded[cells])) & inside[cells] for cells in windows]
    kernel = pair(kernel_size)
    cells = kernel[0] * kernel[1]
    dtype = np.uint8 if cells <= 2**8 else np.uint16 if cells <= 2**16 else np.int32
    return y, np.argmax(candidates, axis=0).astype(dtype)


# y = x at the window's first maximum in scan order, so that the window's gradient goes there, whole.


def max_pool2d_backward(
    grad, x, kernel_size, *, stride=None, padding=0, dilation=1, ceil_mode=False, places=None, out=None
):
    """Gradient of sum(grad * max_pool2d(x)): each window's goes to its first maximum in scan order.

    That is its first NaN if there is one, and never the padding; or the cell that `places` says.
    """
    grad, x = as_float64(grad), as_float64(x)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil_mode}
    border, size, offsets = _windows(x.shape, kernel_size, *options.values())
    _check_grad(grad, (*x.shape[:2], *size))
    if places is None:
        places = max_pool2d(x, kernel_size, **options, return_places=True)[1]
    places = plain(places)
    result = np.zeros(_pad(x, border, 0.0).shape)
    with np.errstate(all="ignore"):
        for number, (_, _, cells) in enumerate(offsets):
            result[cells] += np.where(places == number, grad, 0.0)
    return deliver(_crop(result, border, x.shape), out)


def avg_pool2d(
    x,
    kernel_size,
    *,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
    out=None,
):
    """The sum of each window divided by its number of cells; zero padding counts if `count_include_pad`.

    Cells that only `ceil_mode` adds, beyond the padding, never count. Or divided by `divisor_override`.
    """
    x = as_float64(x)
    options = stride, padding, ceil_mode, count_include_pad, divisor_override
    border, size, offsets = _windows(x.shape, kernel_size, stride, padding, 1, ceil_mode)
    padded = _pad(x, border, 0.0)
    result = np.zeros((*x.shape[:2], *size))
    with np.errstate(all="ignore"):
        for _, _, cells in offsets:
            result += padded[cells]
        return deliver(result / _counts(x.shape, kernel_size, *options), out)


# y = sum of the window / count, so that every cell of the window gets grad / count.


def avg_pool2d_backward(
    grad,
    x,
    kernel_size,
    *,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
    out=None,
):
    """Gradient of sum(grad * avg_pool2d(x)): each window hands grad / count to every one of its cells."""
    grad, x = as_float64(grad), as_float64(x)
    options = stride, padding, ceil_mode, count_include_pad, divisor_override
    border, size, offsets = _windows(x.shape, kernel_size, stride, padding, 1, ceil_mode)
    _check_grad(grad, (*x.shape[:2], *size))
    result = np.zeros(_pad(x, border, 0.0).shape)
    with np.errstate(all="ignore"):
        share = grad / _counts(x.shape, kernel_size, *options)
        for _, _, cells in offsets:
            result[cells] += share
    return deliver(_crop(result, border, x.shape), out)


def _counts(shape, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor):
    """Return the number of counted cells of each window, (out_h, out_w), or the divisor instead of it."""
    border, size, offsets = _windows(shape, kernel_size, stride, padding, 1, ceil_mode)
    if divisor is not None:
        return np.full(size, float(divisor))
    cell_counts = _pad(np.ones((1, 1, *shape[2:])), border, 0.0)
    if count_include_pad:
        (top, bottom), (left, right) = _padding(shape, kernel_size, stride, padding, 1)
        cell_counts[:, :, : top + shape[2] + bottom, : left + shape[3] + right] = 1.0
    counts = np.zeros(size)
    for _, _, cells in offsets:
        counts += cell_counts[cells][0, 0]
    return counts


def _padding(shape, kernel_size, stride, padding, dilation):
    """Return ((top, bottom), (left, right))."""
    kernel, dilation = pair(kernel_size), pair(dilation)
    stride = kernel if stride is None else pair(stride)
    return [_border(padding, k, shape[2 + k], kernel[k], stride[k], dilation[k]) for k in (0, 1)]


def _windows(shape, kernel_size, stride, padding, dilation, ceil_mode):
    """Return the border ((top, bottom), (left, right)), the output size and the offsets of the window.

    The border is the padding, and what the last windows of `ceil_mode` see behind it.
    """
    kernel, steps = pair(kernel_size), pair(dilation)
    strides = kernel if stride is None else pair(stride)
    padding = _padding(shape, kernel, strides, padding, steps)
    sizes, border = [], []
    for n, k, s, (before, after), d in zip(shape[2:], kernel, strides, padding, steps, strict=True):
        extent = (k - 1) * d + 1
        free = n + before + after - extent
        size = (-(-free // s) if ceil_mode else free // s) + 1
        if ceil_mode and (size - 1) * s >= n + before:  # the last window must not start behind the image
            size -= 1
        cells = np.arange(size)[:, None] * s - before + np.arange(k) * d
        if size < 1 or not ((cells >= 0) & (cells < n)).any(1).all():
            raise ValueError(f"kernel_size {kernel}, image {tuple(shape[2:])}: a window has no pixel")
        sizes.append(size)
        border.append((before, max(after, (size - 1) * s + extent - n - before)))
    return border, tuple(sizes), list(window_offsets(kernel, strides, steps, sizes))


def _check_grad(grad, expected):
    """Raise unless `grad` has the shape of the forward result."""
    if grad.shape != expected:
        raise ValueError(f"grad has shape {grad.shape}, expected {expected}")


def _pad(x, border, value):
    """Return the image with a border of `value`."""
    return np.pad(x, [(0, 0), (0, 0), *border], constant_values=value)


def _crop(padded, border, shape):
    """Return the image of a shape inside a border."""
    (top, _), (left, _) = border
    return padded[:, :, top : top + shape[2], left : left + shape[3]].copy()
