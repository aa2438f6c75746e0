"""Two-dimensional convolution (cross-correlation, NCHW), its gradients, its transpose, im2col and col2im.

Each is a sum over the offsets (i, j) of the kernel; at one offset all output pixels see a strided slice of
the padded image.
"""

import numpy as np

from ._common import as_float64, deliver, pair, plain, result_dtype, window_offsets


class PreparedWeight:
    """A weight and its groups: what the compiled code packs is kept as it is."""

    def __init__(self, weight, groups):
        if len(weight) % groups:
            raise ValueError(f"weight {weight.shape} does not fit with groups={groups}")
        self.weight, self.groups, self.shape, self.dtype = weight, groups, weight.shape, weight.dtype

    def __array__(self, dtype=None, copy=None):
        return self.weight.astype(self.dtype if dtype is None else dtype, copy=bool(copy))


def prepare_conv2d(weight, *, groups=1):
    """What `conv2d` and `conv1d` take as `weight` and `groups` in one."""
    return PreparedWeight(plain(weight).copy(), groups)


def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None, out=None):
    """y[n,o,r,s] = bias[o] + sum_{c,i,j} weight[o,c,i,j] padded[n, c, r*stride + i*dil, s*stride + j*dil].

    c runs over the channels of o's group. activation "relu" takes the maximum with 0 at the end.
    """
    groups = _groups(weight, groups)
    dtype, x, weight = result_dtype(x, weight), as_float64(x), as_float64(weight)
    padded, _, size, offsets = _windows(x, weight.shape[2:], stride, padding, dilation)
    if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ValueError(f"x {x.shape} and weight {weight.shape} do not fit with groups={groups}")
    if activation not in (None, "relu"):
        raise ValueError(f"activation is {activation!r}, expected None or 'relu'")
    by_group, w = _split_channels(padded, groups), _split_outputs(weight, groups)
    result = np.zeros((len(x), groups, len(weight) // groups, *size))
    with np.errstate(all="ignore"):
        for i, j, cells in offsets:
            result += np.einsum("ngchw,goc->ngohw", by_group[cells], w[..., i, j])
        result = result.reshape(len(x), len(weight), *size)
        if bias is not None:
            result = result + as_float64(bias)[:, None, None]
        if activation == "relu":
            result = np.maximum(result, 0.0)
    return deliver(result, out, dtype)


# y is linear in x and in weight. Collecting in the sum above all terms with one x, or with one weight:
#
#     grad_padded[n, c, r*stride + i*dil, s*stride + j*dil] += sum_o grad[n,o,r,s] weight[o,c,i,j]
#     grad_weight[o,c,i,j] = sum_{n,r,s} grad[n,o,r,s] padded[n, c, r*stride + i*dil, s*stride + j*dil]
#     grad_bias[o]         = sum_{n,r,s} grad[n,o,r,s]
#
# and grad_x is grad_padded without its border.


def conv2d_backward(
    grad, x, weight, *, stride=1, padding=0, dilation=1, groups=1, needs=(True, True, True), out=None
):
    """Gradients (grad_x, grad_weight, grad_bias) of sum(grad * conv2d); None where `needs` says False."""
    dtype = result_dtype(grad, x, weight)
    grad, x, weight = as_float64(grad), as_float64(x), as_float64(weight)
    padded, border, size, offsets = _windows(x, weight.shape[2:], stride, padding, dilation)
    if grad.shape != (len(x), len(weight), *size):
        raise ValueError(f"grad has shape {grad.shape}, expected {(len(x), len(weight), *size)}")
    by_group, w, g = (
        _split_channels(padded, groups),
        _split_outputs(weight, groups),
        _split_channels(grad, groups),
    )
    grad_padded, grad_w = np.zeros(by_group.shape), np.zeros(w.shape)
    with np.errstate(all="ignore"):
        for i, j, cells in offsets:
            grad_padded[cells] += np.einsum("ngohw,goc->ngchw", g, w[..., i, j])
            grad_w[..., i, j] = np.einsum("ngohw,ngchw->goc", g, by_group[cells])
        grad_x = _crop(grad_padded.reshape(padded.shape), border)
        results = grad_x, grad_w.reshape(weight.shape), grad.sum(axis=(0, 2, 3))
    return _deliver_each(results, needs, out, dtype)


# A signal is an image of one row.


def conv1d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None, out=None):
    """y[n,o,r] = bias[o] + sum_{c,j} weight[o,c,j] padded[n, c, r*stride + j*dil]."""
    options, groups = _of_one_row(stride, padding, dilation), _groups(weight, groups)
    result = conv2d(_one_row(x), _one_row(weight), bias, groups=groups, activation=activation, **options)
    return deliver(result[:, :, 0], out, result_dtype(x, weight))


def conv1d_backward(
    grad, x, weight, *, stride=1, padding=0, dilation=1, groups=1, needs=(True, True, True), out=None
):
    """Gradients (grad_x, grad_weight, grad_bias) of sum(grad * conv1d); None where `needs` says False."""
    options = _of_one_row(stride, padding, dilation)
    grad_x, grad_weight, grad_bias = conv2d_backward(
        *map(_one_row, (grad, x, weight)), groups=groups, **options
    )
    return _deliver_each(
        (grad_x[:, :, 0], grad_weight[:, :, 0], grad_bias), needs, out, result_dtype(grad, x, weight)
    )


# With a weight of shape (C, O / groups, kh, kw) that same grad_x, for any x instead of a gradient, is the
# transposed convolution: each pixel of x adds its multiple of the kernel to the image. An output that no
# window of conv2d reaches (its windows leave a rest where the stride does not divide) stays at the bias;
# output_padding says how many such rows and columns there are at the end, before the padding is cut off.


def conv_transpose2d(
    x,
    weight,
    bias=None,
    *,
    stride=1,
    padding=0,
    output_padding=0,
    output_size=None,
    dilation=1,
    groups=1,
    out=None,
):
    """y[n,o,p,q] = bias[o] + sum of x[n,c,r,s] weight[c,o,i,j] where r*stride + i*dil = p + top, and so on.

    c runs over the channels of o's group. The adjoint of `conv2d` in its images.
    """
    dtype, x, weight = result_dtype(x, weight), as_float64(x), as_float64(weight)
    stride, dilation, size = pair(stride), pair(dilation), x.shape[2:]
    if x.shape[1] != len(weight) or x.shape[1] % groups:
        raise ValueError(f"x {x.shape} and weight {weight.shape} do not fit with groups={groups}")
    kernel = weight.shape[2:]
    border, full = _transposed_size(size, kernel, stride, padding, output_padding, output_size, dilation)
    by_group, w = _split_channels(x, groups), _split_outputs(weight, groups)
    result = np.zeros((len(x), groups, weight.shape[1], *full))
    with np.errstate(all="ignore"):
        for i, j, cells in window_offsets(kernel, stride, dilation, size):
            result[cells] += np.einsum("ngchw,gco->ngohw", by_group, w[..., i, j])
        result = _crop(result.reshape(len(x), groups * weight.shape[1], *full), border)
        return deliver(result if bias is None else result + as_float64(bias)[:, None, None], out, dtype)


# y is linear in x and in weight, with padded outputs P of which y is the inner part:
#
#     grad_x[n,c,r,s]      = sum_{o,i,j} weight[c,o,i,j] P[n, o, r*stride + i*dil, s*stride + j*dil]
#     grad_weight[c,o,i,j] = sum_{n,r,s} x[n,c,r,s] P[n, o, r*stride + i*dil, s*stride + j*dil]
#
# where P is grad with a border of zeros, of the size that was cut off.


def conv_transpose2d_backward(
    grad,
    x,
    weight,
    *,
    stride=1,
    padding=0,
    output_padding=0,
    output_size=None,
    dilation=1,
    groups=1,
    needs=(True, True, True),
    out=None,
):
    """Gradients (grad_x, grad_weight, grad_bias) of sum(grad * conv_transpose2d); None where not needed."""
    dtype = result_dtype(grad, x, weight)
    grad, x, weight = as_float64(grad), as_float64(x), as_float64(weight)
    stride, dilation, size, kernel = pair(stride), pair(dilation), x.shape[2:], weight.shape[2:]
    border, full = _transposed_size(size, kernel, stride, padding, output_padding, output_size, dilation)
    padded = np.pad(grad, [(0, 0), (0, 0), *border])
    if padded.shape != (len(x), groups * weight.shape[1], *full):
        raise ValueError(f"grad has shape {grad.shape}, which is not that of the output")
    by_group, g, w = (
        _split_channels(x, groups),
        _split_channels(padded, groups),
        _split_outputs(weight, groups),
    )
    grad_x, grad_w = np.zeros(by_group.shape), np.zeros(w.shape)
    with np.errstate(all="ignore"):
        for i, j, cells in window_offsets(kernel, stride, dilation, size):
            grad_x += np.einsum("ngohw,gco->ngchw", g[cells], w[..., i, j])
            grad_w[..., i, j] = np.einsum("ngchw,ngohw->gco", by_group, g[cells])
        results = grad_x.reshape(x.shape), grad_w.reshape(weight.shape), grad.sum(axis=(0, 2, 3))
    return _deliver_each(results, needs, out, dtype)


def im2col(x, kernel_size, *, stride=1, padding=0, dilation=1, out=None):
    """Columns (N, C*kh*kw, L): the window of each of the L output pixels, unrolled in the order c, i, j."""
    dtype, x = result_dtype(x), as_float64(x)
    kernel = pair(kernel_size)
    padded, _, size, offsets = _windows(x, kernel, stride, padding, dilation)
    cols = np.zeros((*x.shape[:2], *kernel, *size))
    for i, j, cells in offsets:
        cols[:, :, i, j] = padded[cells]
    return deliver(cols.reshape(len(x), x.shape[1] * kernel[0] * kernel[1], size[0] * size[1]), out, dtype)


def col2im(cols, output_size, kernel_size, *, stride=1, padding=0, dilation=1, out=None):
    """The adjoint of `im2col`: add every column back to the pixels it came from, (N, C) + output_size."""
    dtype, cols = result_dtype(cols), as_float64(cols)
    kernel = pair(kernel_size)
    channels, left_over = divmod(cols.shape[1], kernel[0] * kernel[1])
    image = np.zeros((len(cols), channels, *pair(output_size)))
    padded, border, size, offsets = _windows(image, kernel, stride, padding, dilation)
    if left_over or cols.shape[2] != size[0] * size[1]:
        raise ValueError(f"cols {cols.shape} does not fit kernel_size {kernel} and {size} windows")
    cols = cols.reshape(len(cols), channels, *kernel, *size)
    with np.errstate(all="ignore"):
        for i, j, cells in offsets:
            padded[cells] += cols[:, :, i, j]
    return deliver(_crop(padded, border), out, dtype)


def _groups(weight, groups):
    """Return the groups of a prepared weight, or those that were given."""
    own = getattr(weight, "groups", groups)
    if groups not in (1, own):
        raise ValueError(f"groups is {groups}, the weight is prepared for {own}")
    return own


def _transposed_size(size, kernel, stride, padding, output_padding, output_size, dilation):
    """Return the border that a transposed convolution cuts off, and the size with it."""
    extra = pair(output_padding)
    full = [(size[k] - 1) * stride[k] + (kernel[k] - 1) * dilation[k] + 1 for k in (0, 1)]
    if output_size is not None:  # as the convolution that has outputs of that `size` sees it
        wanted = pair(output_size)
        border = [_border(padding, k, wanted[k], kernel[k], stride[k], dilation[k]) for k in (0, 1)]
        more = [wanted[k] + sum(border[k]) - full[k] for k in (0, 1)]
        if any(extra) or any(not 0 <= more[k] < stride[k] for k in (0, 1)):
            raise ValueError(f"output_size is {output_size!r}, which no output_padding gives")
        return border, [full[k] + more[k] for k in (0, 1)]
    if isinstance(padding, str) and padding == "same":
        raise ValueError("padding is 'same', from which the size of the output cannot be told")
    if any(not 0 <= extra[k] < max(stride[k], dilation[k]) for k in (0, 1)):
        raise ValueError(f"output_padding is {output_padding!r}, expected less than stride or dilation")
    border = [_border(padding, k, size[k], kernel[k], stride[k], dilation[k]) for k in (0, 1)]
    full = [full[k] + extra[k] for k in (0, 1)]
    if any(full[k] <= sum(border[k]) for k in (0, 1)):
        raise ValueError(f"padding is {padding!r}, which leaves nothing of an output of {full}")
    return border, full


def _deliver_each(results, needs, out, dtype):
    """Return the results, where `needs` says so, written into the arrays of `out`."""
    out = (None,) * len(results) if out is None else out
    return tuple(
        deliver(result, o, dtype) if needed else None
        for result, needed, o in zip(results, needs, out, strict=True)
    )


def _one_row(signals):
    """Return (N, C, L) as (N, C, 1, L)."""
    return as_float64(signals)[:, :, np.newaxis]


def _of_one_row(stride, padding, dilation):
    """Return the options of a signal as those of an image of one row."""
    padding = padding if isinstance(padding, str) else ((0, 0), pair(padding))
    return {"stride": (1, int(stride)), "padding": padding, "dilation": (1, int(dilation))}


def _windows(x, kernel, stride, padding, dilation):
    """Return the padded image, its border, the output size and the offsets of the kernel."""
    stride, dilation = pair(stride), pair(dilation)
    border = [_border(padding, k, x.shape[2 + k], kernel[k], stride[k], dilation[k]) for k in (0, 1)]
    padded = np.pad(x, [(0, 0), (0, 0), *border])
    size = [(padded.shape[2 + k] - (kernel[k] - 1) * dilation[k] - 1) // stride[k] + 1 for k in (0, 1)]
    if min(size) < 1:
        raise ValueError(f"kernel {tuple(kernel)} is larger than the padded image {padded.shape[2:]}")
    return padded, border, size, window_offsets(kernel, stride, dilation, size)


def _border(padding, k, n, kernel, stride, dilation):
    """Return how many zeros go before and after spatial axis k, which has n pixels."""
    if isinstance(padding, str):
        if padding == "valid":
            return 0, 0
        if padding == "same":  # ceil(n / stride) outputs, the odd zero at the end
            total = max((-(-n // stride) - 1) * stride + (kernel - 1) * dilation + 1 - n, 0)
            return total // 2, total - total // 2
        raise ValueError(f"padding is {padding!r}, expected 'valid', 'same' or numbers")
    low, high = pair(padding if np.ndim(padding) == 0 else padding[k])
    if min(low, high) < 0:
        raise ValueError(f"padding is {padding!r}, expected no negative number")
    return low, high


def _crop(padded, border):
    """Return the image inside a border."""
    (top, bottom), (left, right) = border
    return padded[:, :, top : padded.shape[2] - bottom, left : padded.shape[3] - right].copy()


def _split_channels(x, groups):
    """Return (N, C, H, W) as (N, groups, C / groups, H, W)."""
    return x.reshape(len(x), groups, x.shape[1] // groups, *x.shape[2:])


def _split_outputs(weight, groups):
    """Return a weight (A, B, kh, kw) as (groups, A / groups, B, kh, kw)."""
    return weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
