"""Maximum and average pooling (NCHW) and their gradients, as loops over the cells of a window."""

import numpy as np

from ._common import as_float64, pair, window_offsets


def max_pool2d(x, kernel_size, *, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The largest value of each window; padding counts as -inf, a NaN wins over everything."""
    x = as_float64(x)
    border, _, offsets = _windows(x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    padded = _pad(x, border, -np.inf)
    return np.max([padded[cells] for _, _, cells in offsets], axis=0)


# y = x at the window's first maximum in scan order, so that the window's gradient goes there, whole.


def max_pool2d_backward(grad, x, kernel_size, *, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Gradient of sum(grad * max_pool2d(x)): each window's goes to its first maximum in scan order.

    That is its first NaN if there is one, and never the padding.
    """
    grad, x = as_float64(grad), as_float64(x)
    border, size, offsets = _windows(x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    _check_grad(grad, (*x.shape[:2], *size))
    padded, inside = _pad(x, border, -np.inf), _pad(np.ones(x.shape, bool), border, False)
    windows = [cells for _, _, cells in offsets]
    largest = np.max([padded[cells] for cells in windows], axis=0)
    result, taken = np.zeros(padded.shape), np.zeros(grad.shape, bool)
    with np.errstate(all="ignore"):
        for cells in windows:
            is_largest = (padded[cells] == largest) | np.isnan(padded[cells])
            first = is_largest & inside[cells] & ~taken
            result[cells] += np.where(first, grad, 0.0)
            taken |= first
    return _crop(result, border, x.shape)


def avg_pool2d(x, kernel_size, *, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """The sum of each window divided by its number of cells; zero padding counts if `count_include_pad`.

    Cells that only `ceil_mode` adds, beyond the padding, never count.
    """
    x = as_float64(x)
    border, size, offsets = _windows(x.shape, kernel_size, stride, padding, 1, ceil_mode)
    padded = _pad(x, border, 0.0)
    result = np.zeros((*x.shape[:2], *size))
    with np.errstate(all="ignore"):
        for _, _, cells in offsets:
            result += padded[cells]
        return result / _counts(x.shape, kernel_size, stride, padding, ceil_mode, count_include_pad)


# y = sum of the window / count, so that every cell of the window gets grad / count.


def avg_pool2d_backward(
    grad, x, kernel_size, *, stride=None, padding=0, ceil_mode=False, count_include_pad=True
):
    """Gradient of sum(grad * avg_pool2d(x)): each window hands grad / count to every one of its cells."""
    grad, x = as_float64(grad), as_float64(x)
    border, size, offsets = _windows(x.shape, kernel_size, stride, padding, 1, ceil_mode)
    _check_grad(grad, (*x.shape[:2], *size))
    result = np.zeros(_pad(x, border, 0.0).shape)
    with np.errstate(all="ignore"):
        share = grad / _counts(x.shape, kernel_size, stride, padding, ceil_mode, count_include_pad)
        for _, _, cells in offsets:
            result[cells] += share
    return _crop(result, border, x.shape)


def _counts(shape, kernel_size, stride, padding, ceil_mode, count_include_pad):
    """Return the number of counted cells of each window, (out_h, out_w)."""
    border, size, offsets = _windows(shape, kernel_size, stride, padding, 1, ceil_mode)
    cell_counts = _pad(np.ones((1, 1, *shape[2:])), border, 0.0)
    if count_include_pad:
        ph, pw = pair(padding)
        cell_counts[:, :, : shape[2] + 2 * ph, : shape[3] + 2 * pw] = 1.0
    counts = np.zeros(size)
    for _, _, cells in offsets:
        counts += cell_counts[cells][0, 0]
    return counts


def _windows(shape, kernel_size, stride, padding, dilation, ceil_mode):
    """Return the border ((top, bottom), (left, right)), the output size and the offsets of the window."""
    kernel, padding, dilation = pair(kernel_size), pair(padding), pair(dilation)
    stride = kernel if stride is None else pair(stride)
    if any(p < 0 or p > k // 2 for p, k in zip(padding, kernel, strict=True)):
        raise ValueError(f"padding is {padding}, expected at most half of kernel_size {kernel}")
    sizes, border = [], []
    for n, k, s, p, d in zip(shape[2:], kernel, stride, padding, dilation, strict=True):
        extent = (k - 1) * d + 1
        steps = n + 2 * p - extent
        size = (-(-steps // s) if ceil_mode else steps // s) + 1
        if ceil_mode and (size - 1) * s >= n + p:  # the last window must not start in the padding at the end
            size -= 1
        if size < 1:
            raise ValueError(f"kernel_size {kernel} is larger than the padded image {tuple(shape[2:])}")
        sizes.append(size)
        border.append((p, max(p, (size - 1) * s + extent - n - p)))
    return border, sizes, window_offsets(kernel, stride, dilation, sizes)


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
