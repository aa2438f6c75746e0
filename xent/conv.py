"""Convolution of images (NCHW) and signals (NCL), its gradients and transpose, and the im2col matrix."""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import _check, _kernels
from ._docs import documented
from ._out import checked_room, copy, delivered, in_c_order, room
from ._prepared import PreparedWeight, unpacked
from ._window import line_window, pair, phases, sliding_window, transposed_window, window_of

GRADIENTS = "x", "weight", "bias"  # of a layer
COPIED = 1 << 15  # numbers that are copied in less than the 20 microseconds that planning twice takes


class _Axes(NamedTuple):
    """What a convolution slides over."""

    x: str
    weight: str
    window: Callable


PLANE = _Axes("(N, C, H, W)", "(O, C / groups, kh, kw)", sliding_window)
LINE = _Axes("(N, C, L)", "(O, C / groups, k)", line_window)
TRANSPOSED = _Axes("(N, C, H, W)", "(C, O / groups, kh, kw)", transposed_window)


@documented
def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None, out=None):
    """
    Two-dimensional cross-correlation, which every framework calls convolution.

    .. math::
        y_{n,o,h,w} = b_o + \\sum_{c,i,j} W_{o,c,i,j} \\, x_{n,c,\\; h s_h - p_t + i d_h,\\; w s_w - p_l + j
        d_w}

    with x = 0 outside the image, and c running over the channels of o's group.

    Parameters
    ----------
    <x of images>
    weight : array_like of float, shape (O, C / groups, kh, kw), or PreparedWeight
        <kernels>
    <bias of channels>
    <stride, dilation>
    <padding>
    <groups>
        Of a `PreparedWeight` it may be left out.
    activation : {None, "relu"}, optional
        Applied to the result on its way to memory. The ReLU of a NaN is NaN.
    <out of images>

    Returns
    -------
    ndarray, shape (N, O, OH, OW)
        With ``OH = (H + top + bottom - (kh - 1) * dilation - 1) // stride + 1``.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers or a size is no integer.
    ValueError
        If shapes do not fit, `groups` does not divide the channels or is not that of a `PreparedWeight`, the
        kernel is larger than the padded image, an option is outside its range, or `out` does not fit.

    See Also
    --------
    conv2d_backward, prepare_conv2d, im2col

    Notes
    -----
    A matrix product over the im2col matrix [1]_, which never exists: its elements are read where they lie, in
    a padded copy of a part of the images that fits the cache. Beside the result there are at most 4 MiB a
    thread and one packed copy of the weights. The terms of an output are always added in the same order,
    whatever the number of threads.

    References
    ----------
    .. [1] K. Chellapilla, S. Puri, P. Simard, "High performance convolutional neural networks for document
       processing", 10th International Workshop on Frontiers in Handwriting Recognition, 2006,
       hal:inria-00112631.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> xent.conv2d(x, np.ones((1, 1, 3, 3)), stride=2, padding=1)[0, 0]
    array([[10., 24.],
           [51., 90.]])
    """
    return _forward(PLANE, x, weight, bias, stride, padding, dilation, groups, activation, out)


@documented
def conv2d_backward(
    grad, x, weight, *, stride=1, padding=0, dilation=1, groups=1, needs=(True, True, True), out=None
):
    """
    Gradients of `conv2d` with respect to the images, the kernels and the bias.

    .. math::
        g^x = \\mathrm{col2im}(W^T G), \\qquad g^W = \\sum_n G \\, \\mathrm{im2col}(x)^T, \\qquad g^b =
        \\sum_{n,h,w} G

    Parameters
    ----------
    grad : array_like of float, shape (N, O, OH, OW)
        Gradient of a scalar with respect to the output G. (After a ReLU: first set to 0 where the output is
        0.)
    <x of the forward pass>
    weight : array_like of float, shape (O, C / groups, kh, kw)
        The kernels of the forward pass.
    <stride, dilation>
    <padding>
    <groups>
    <needs>
    <out of gradients>

    Returns
    -------
    grad_x, grad_weight, grad_bias : ndarray or None
        Of the shapes of `x`, `weight` and the bias; None where `needs` says False.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`; also if `grad` does not have the shape of the output, or `needs` is not three bools.

    See Also
    --------
    conv2d

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> gx, gw, gb = xent.conv2d_backward(np.ones((1, 1, 2, 2)), x, np.ones((1, 1, 2, 2)))
    >>> gx[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    >>> gw[0, 0]
    array([[ 8., 12.],
           [20., 24.]])
    >>> gb
    array([4.])
    """
    return _backward(PLANE, grad, x, weight, (stride, padding, dilation), groups, needs, out)


@documented
def conv1d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None, out=None):
    """
    One-dimensional cross-correlation, of signals: `conv2d` of images with one row.

    .. math::
        y_{n,o,l} = b_o + \\sum_{c,j} W_{o,c,j} \\, x_{n,c,\\; l s - p + j d}

    with x = 0 outside the signal, and c running over the channels of o's group.

    Parameters
    ----------
    <x of signals>
    weight : array_like of float, shape (O, C / groups, k), or PreparedWeight
        <kernels>
    <bias of channels>
    <options of signals>
    <groups>
        Of a `PreparedWeight` it may be left out.
    activation : {None, "relu"}, optional
        Applied to the result on its way to memory. The ReLU of a NaN is NaN.
    <out of images>

    Returns
    -------
    ndarray, shape (N, O, OL)
        With ``OL = (L + left + right - (k - 1) * dilation - 1) // stride + 1``.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    See Also
    --------
    conv1d_backward, conv2d

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> xent.conv1d(np.arange(6.0).reshape(1, 1, 6), [[[1.0, 2.0, 1.0]]], padding=(2, 0))
    array([[[ 0.,  1.,  4.,  8., 12., 16.]]])
    """
    return _forward(LINE, x, weight, bias, stride, padding, dilation, groups, activation, out)


@documented
def conv1d_backward(
    grad, x, weight, *, stride=1, padding=0, dilation=1, groups=1, needs=(True, True, True), out=None
):
    """
    Gradients of `conv1d` with respect to the signals, the kernels and the bias.

    Parameters
    ----------
    grad : array_like of float, shape (N, O, OL)
        Gradient of a scalar with respect to the output. (After a ReLU: first set to 0 where the output is 0.)
    x : array_like of float, shape (N, C, L)
        The signals of the forward pass.
    weight : array_like of float, shape (O, C / groups, k)
        The kernels of the forward pass.
    <options of signals>
    <groups>
    <needs>
    <out of gradients>

    Returns
    -------
    grad_x, grad_weight, grad_bias : ndarray or None
        Of the shapes of `x`, `weight` and the bias; None where `needs` says False.

    Raises
    ------
    TypeError, ValueError
        As `conv2d_backward`.

    See Also
    --------
    conv1d, conv2d_backward

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> gx, gw, gb = xent.conv1d_backward(np.ones((1, 1, 3)), np.arange(4.0).reshape(1, 1, 4), [[[1.0, 2.0]]])
    >>> gx, gw, gb
    (array([[[1., 3., 3., 2.]]]), array([[[3., 6.]]]), array([3.]))
    """
    return _backward(LINE, grad, x, weight, (stride, padding, dilation), groups, needs, out)


@documented
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
    """
    Transposed convolution: what `conv2d_backward` gives for the images, as a layer of its own.

    .. math::
        y_{n,o,p,q} = b_o + \\sum_{c,i,j} W_{c,o,i,j} \\, x_{n,c,h,w}
        \\quad\\text{over all } h s_h - p_t + i d_h = p, \\; w s_w - p_l + j d_w = q

    Parameters
    ----------
    <x of images>
    weight : array_like of float, shape (C, O / groups, kh, kw)
        <kernels>
    <bias of channels>
    <options of a transpose>
    <out of images>

    Returns
    -------
    ndarray, shape (N, O, OH, OW)
        With ``OH = (H - 1) * stride - top - bottom + (kh - 1) * dilation + output_padding + 1``.

    Raises
    ------
    TypeError
        If an argument does not hold real numbers or a size is no integer.
    ValueError
        If shapes do not fit, `groups` does not divide the channels, nothing of the output is left, the
        output cannot have that size, an option is outside its range, or `out` does not fit.

    See Also
    --------
    conv_transpose2d_backward, conv2d

    Notes
    -----
    Computed as one ordinary convolution for each phase of the stride, without zeros between the pixels [1]_.
    Weights with infinities or NaNs take a slower way through the im2col matrix of one image and channel, so
    that no zero of the padding meets them.

    References
    ----------
    .. [1] W. Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016,
       arXiv:1609.07009.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> xent.conv_transpose2d(np.arange(4.0).reshape(1, 1, 2, 2), np.ones((1, 1, 2, 2)), stride=2)[0, 0]
    array([[0., 0., 1., 1.],
           [0., 0., 1., 1.],
           [2., 2., 3., 3.],
           [2., 2., 3., 3.]])
    """
    x, weight, bias = _check.with_bias(x, weight, bias)
    groups = _check_transposed_shapes(x, weight, groups)
    options = stride, padding, output_padding, output_size, dilation
    window = window_of(transposed_window, (x.shape[2:], weight.shape[2:]), *options)
    shape = (len(x), groups * weight.shape[1], window.height, window.width)
    if bias is not None:
        _check.same_shape(bias, shape[1:2], "bias", "the output channels")
    if out is not None:
        _check.output(out, shape, x.dtype, [(x, "x"), (weight, "weight"), (bias, "bias")])
    (result,) = _rooms([out], [True], [shape], x.dtype)

    def write(reserve):
        _transpose(x, weight, bias, result, window, groups, reserve)

    _write_all_or_nothing(write, [result], [out])
    return delivered(result, out)


@documented
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
    """
    Gradients of `conv_transpose2d` with respect to the images, the kernels and the bias.

    .. math::
        g^x_{n,c,h,w} = \\sum_{o,i,j} W_{c,o,i,j} \\, G_{n,o,p,q}, \\qquad
        g^W_{c,o,i,j} = \\sum_{n,h,w} x_{n,c,h,w} \\, G_{n,o,p,q}, \\qquad
        g^b_o = \\sum_{n,p,q} G_{n,o,p,q}

    with p = h s_h - p_t + i d_h, q = w s_w - p_l + j d_w, and G = 0 outside the output.

    Parameters
    ----------
    grad : array_like of float, shape (N, O, OH, OW)
        Gradient of a scalar with respect to the output G.
    <x of the forward pass>
    weight : array_like of float, shape (C, O / groups, kh, kw)
        The kernels of the forward pass.
    <options of a transpose>
    <needs>
    <out of gradients>

    Returns
    -------
    grad_x, grad_weight, grad_bias : ndarray or None
        Of the shapes of `x`, `weight` and the bias; None where `needs` says False.

    Raises
    ------
    TypeError, ValueError
        As `conv_transpose2d`; also if `grad` does not have the shape of the output, or `needs` is not three
        bools.

    See Also
    --------
    conv_transpose2d, conv2d_backward

    Notes
    -----
    `conv2d` of G, and its gradient by the weights with the roles of images and gradient exchanged.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> x, weight = np.arange(4.0).reshape(1, 1, 2, 2), np.ones((1, 1, 2, 2))
    >>> grad = np.arange(16.0).reshape(1, 1, 4, 4)  # of xent.conv_transpose2d(x, weight, stride=2)
    >>> gx, gw, gb = xent.conv_transpose2d_backward(grad, x, weight, stride=2)
    >>> gx[0, 0]
    array([[10., 18.],
           [42., 50.]])
    >>> gw[0, 0]
    array([[48., 54.],
           [72., 78.]])
    >>> gb
    array([120.])
    """
    x, weight, grad = _check.common_floats((x, "x"), (weight, "weight"), (grad, "grad"))
    groups = _check_transposed_shapes(x, weight, groups)
    options = stride, padding, output_padding, output_size, dilation
    window = window_of(transposed_window, (x.shape[2:], weight.shape[2:]), *options)
    shape = len(x), groups * weight.shape[1], window.height, window.width
    _check.same_shape(grad, shape, "grad", "the output")
    needs = _check.needs(needs, GRADIENTS)
    shapes = x.shape, weight.shape, shape[1:2]
    out = _check.outputs(out, needs, shapes, x.dtype, [(x, "x"), (weight, "weight"), (grad, "grad")])
    results = _rooms(out, needs, shapes, x.dtype)
    x, weight, grad = map(in_c_order, (x, weight, grad))

    def write(reserve):
        if needs[0]:
            _convolve(grad, weight, None, results[0], window, groups, reserve=reserve)
        if needs[1]:
            _kernels.conv2d_grad_weight(x, grad, results[1], window, groups, reserve)

    _write_all_or_nothing(write, results, out)
    if needs[2]:
        _kernels.conv2d_grad_bias(grad, results[2])
    return tuple(map(delivered, results, out))


@documented
def prepare_conv2d(weight, *, groups=1):
    """
    Pack weights once, for many calls of `conv2d` or `conv1d` that take the result as their `weight`.

    A call over many pixels packs its weights anew; over few ones it reads them where they lie. Results
    are the same to the last bit.

    Parameters
    ----------
    weight : array_like of float, shape (O, C / groups, kh, kw) or (O, C / groups, k)
        <kernels>
        They are copied.
    <groups>

    Returns
    -------
    PreparedWeight
        It has `shape`, `dtype`, `groups` and `nbytes`, and can be pickled. Give it the dtype of the images:
        weights of another are converted in each call, by the same rules as plain ones.

    Raises
    ------
    TypeError
        If `weight` does not hold real numbers or `groups` is no integer.
    ValueError
        If `weight` has not 3 or 4 dimensions, has no taps, or `groups` does not divide its outputs.

    See Also
    --------
    conv2d, conv1d, PreparedWeight

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> weight = xent.prepare_conv2d(np.ones((2, 1, 3, 3)), groups=2)
    >>> for x in np.arange(36.0).reshape(2, 1, 2, 3, 3):
    ...     print(xent.conv2d(x, weight)[0, :, 0, 0])
    [ 36. 117.]
    [198. 279.]
    """
    return PreparedWeight(weight, groups)


@documented
def im2col(x, kernel_size, *, stride=1, padding=0, dilation=1, out=None):
    """
    Write every window of every image as a column of a matrix.

    Parameters
    ----------
    <x of images>
    <kernel_size>
    <stride, dilation>
    <padding>
    <out of images>

    Returns
    -------
    ndarray, shape (N, C * kh * kw, L)
        Row ``(c * kh + i) * kw + j`` holds what the window's element (i, j) sees of channel c; column l
        belongs to output pixel l, in C order. PyTorch calls this ``unfold``.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    See Also
    --------
    col2im, conv2d

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> xent.im2col(np.arange(9.0).reshape(1, 1, 3, 3), 2)[0]
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """
    x = _check.images(_check.floats(x, "x"), "x")
    kernel = pair(kernel_size, "kernel_size", 1)
    window = sliding_window(x.shape[2:], kernel, stride, padding, dilation)
    n, c = x.shape[:2]
    shape = n, c * kernel[0] * kernel[1], window.out_h * window.out_w
    result = checked_room(out, shape, x.dtype, (x, "x"))
    _kernels.im2col(in_c_order(x), result, n * c, window)
    return delivered(result, out)


@documented
def col2im(cols, output_size, kernel_size, *, stride=1, padding=0, dilation=1, out=None):
    """
    Add every column of an im2col matrix back to the pixels that it came from: the transpose of `im2col`.

    Parameters
    ----------
    cols : array_like of float, shape (N, C * kh * kw, L)
        Integers and bools become float64.
    output_size : (int, int)
        Height and width of the images.
    <kernel_size>
    <stride, dilation>
    <padding>
    <out of images>

    Returns
    -------
    ndarray, shape (N, C, H, W)
        PyTorch calls this ``fold``.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`; also if the shape of `cols` does not fit the sizes.

    See Also
    --------
    im2col

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> xent.col2im(np.ones((1, 4, 4)), (3, 3), 2)[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    cols = _check.floats(cols, "cols")
    size = pair(output_size, "output_size", 1)
    kernel = pair(kernel_size, "kernel_size", 1)
    window = sliding_window(size, kernel, stride, padding, dilation)
    offsets, pixels = kernel[0] * kernel[1], window.out_h * window.out_w
    if cols.ndim != 3 or cols.shape[1] % offsets or cols.shape[2] != pixels:
        raise ValueError(f"cols must have shape (N, C * {offsets}, {pixels}), got {cols.shape}")
    n, c = cols.shape[0], cols.shape[1] // offsets
    result = checked_room(out, (n, c, *size), cols.dtype, (cols, "cols"))
    _kernels.col2im(in_c_order(cols), result, n * c, window)
    return delivered(result, out)


def _forward(axes, x, weight, bias, stride, padding, dilation, groups, activation, out):
    """`conv2d` and `conv1d`."""
    weight, groups, packed = unpacked(weight, groups)
    x, weight, bias = _check.with_bias(x, weight, bias)
    groups = _check_shapes(axes, x, weight, groups)
    window = window_of(axes.window, (x.shape[2:], weight.shape[2:]), stride, padding, dilation)
    if activation is not None and not (isinstance(activation, str) and activation == "relu"):
        raise ValueError(f'activation must be None or "relu", got {activation!r}')
    if bias is not None:
        _check.same_shape(bias, weight.shape[:1], "bias", "the output channels")
    shape = (len(x), len(weight), *_outputs(x, window))
    result = checked_room(out, shape, x.dtype, (x, "x"), (weight, "weight"), (bias, "bias"))
    x, weight = map(_as_images, (x, weight))
    _convolve(x, weight, bias, _as_images(result), window, groups, activation == "relu", packed)
    return delivered(result, out)


def _backward(axes, grad, x, weight, steps, groups, needs, out):
    """`conv2d_backward` and `conv1d_backward`; `steps` are stride, padding and dilation."""
    x, weight, grad = _check.common_floats((x, "x"), (weight, "weight"), (grad, "grad"))
    groups = _check_shapes(axes, x, weight, groups)
    window = window_of(axes.window, (x.shape[2:], weight.shape[2:]), *steps)
    _check.same_shape(grad, (len(x), len(weight), *_outputs(x, window)), "grad", "the output")
    needs = _check.needs(needs, GRADIENTS)
    shapes = x.shape, weight.shape, weight.shape[:1]
    out = _check.outputs(out, needs, shapes, x.dtype, [(x, "x"), (weight, "weight"), (grad, "grad")])
    results = _rooms(out, needs, shapes, x.dtype)
    x, weight, grad = (in_c_order(_as_images(a)) for a in (x, weight, grad))

    def write(reserve):
        if needs[0]:
            _transpose(grad, weight, None, _as_images(results[0]), window, groups, reserve)
        if needs[1]:
            _kernels.conv2d_grad_weight(grad, x, _as_images(results[1]), window, groups, reserve)

    _write_all_or_nothing(write, results, out)
    if needs[2]:
        _kernels.conv2d_grad_bias(grad, results[2])
    return tuple(map(delivered, results, out))


def _check_ranks(axes, x, weight, groups):
    """Return `groups` as an int; raise unless images and weights have these axes."""
    _check.images(x, "x", axes.x)
    if weight.ndim != x.ndim:
        raise ValueError(f"weight must have {x.ndim} dimensions, {axes.weight}, got shape {weight.shape}")
    _check.taps(weight)
    return _check.integer(groups, "groups", 1)


def _check_shapes(axes, x, weight, groups):
    """Return `groups` as an int; raise unless images, kernels and groups fit each other."""
    groups = _check_ranks(axes, x, weight, groups)
    if x.shape[1] % groups or weight.shape[0] % groups:
        raise ValueError(
            f"groups must divide the channels of x, {x.shape[1]}, and of the output, {weight.shape[0]}, "
            f"got {groups}"
        )
    if weight.shape[1] != x.shape[1] // groups:
        raise ValueError(
            f"weight must have C / groups = {x.shape[1]} / {groups} input channels, got shape {weight.shape}"
        )
    return groups


def _check_transposed_shapes(x, weight, groups):
    """Return `groups` as an int; raise unless the shapes of a transposed convolution fit each other."""
    groups = _check_ranks(TRANSPOSED, x, weight, groups)
    if weight.shape[0] != x.shape[1]:
        raise ValueError(f"weight must have C = {x.shape[1]} input channels, got shape {weight.shape}")
    if x.shape[1] % groups:
        raise ValueError(f"groups must divide the channels of x, {x.shape[1]}, got {groups}")
    return groups


def _rooms(out, needs, shapes, dtype):
    """Return arrays for several results, None where `needs` says so.

    Small ones are new: to copy them takes less time than to plan twice, as `_write_all_or_nothing` does.
    """
    small = any(o is not None for o in out) and sum(map(math.prod, shapes)) <= COPIED
    each = zip(out, needs, shapes, strict=True)
    return [room(None if small else o, shape, dtype) if needed else None for o, needed, shape in each]


def _outputs(x, window):
    """Return the size of the output, without batch and channels."""
    return (window.out_h, window.out_w)[4 - x.ndim :]


def _as_images(array):
    """Return images as they are, and signals as images of one row."""
    return array if array.ndim == 4 else array[:, :, np.newaxis]


def _all_finite(array):
    """Whether all numbers are finite; in one pass, without another array, for nearly all arrays that are."""
    if array.dtype.itemsize == 2:  # exponents of ones are those of infinities and NaNs
        infinity = np.array(np.inf, array.dtype).view(np.uint16)
        return int((array.view(np.uint16) & np.uint16(0x7FFF)).max()) < int(infinity)
    with np.errstate(all="ignore"):
        finite = math.isfinite(array.sum())  # a sum may overflow though all terms are finite
    return finite or bool(np.isfinite(array).all())


def _in_precision(bias):
    """Return a bias in C order and in the dtype that is computed with, or None."""
    return None if bias is None else np.ascontiguousarray(bias, _check.loss_dtype(bias.dtype))


def _only_bias(bias, result, relu=False, reserve=None):
    """Fill a result to which nothing but the bias is added."""
    if reserve is not None and reserve.open:
        return
    bias = np.zeros(1, result.dtype) if bias is None else bias
    result[...] = (np.maximum(bias, 0) if relu else bias)[:, None, None]


def _write_all_or_nothing(write, results, out):
    """Call ``write(reserve)``. If it writes where the caller said, all that it runs has its memory before
    anything is written."""
    reserve = None
    if any(place is not None and place is result for place, result in zip(out, results, strict=True)):
        reserve = _kernels.Reserve()
        write(reserve)
        reserve.open = False
    write(reserve)


def _convolve(x, weight, bias, result, window, groups, relu=False, packed=None, reserve=None):
    """Put the convolution of x into `result`; `packed` are forms of the weights that are kept."""
    if x.size == 0 or weight.size == 0:
        _only_bias(bias, result, relu, reserve)
        return
    outputs, channels, height, width = weight.shape
    taps = height * width
    order = 0, outputs // groups * channels * taps, channels * taps, taps, width, 1
    _kernels.conv2d(
        in_c_order(x),
        in_c_order(weight),
        _in_precision(bias),
        result,
        window,
        groups,
        relu,
        (0, window.out_w, 1),
        order,
        packed,
        reserve,
    )


def _transpose(y, weight, bias, result, window, groups, reserve=None):
    """Put the transpose of a convolution, whose outputs are like y, applied to y, into `result`."""
    if y.size == 0 or weight.size == 0:
        _only_bias(bias, result, reserve=reserve)
        return
    y, weight = in_c_order(y), in_c_order(weight)
    bias = _in_precision(bias)
    if not _all_finite(weight):
        if reserve is None:
            _transpose_by_columns(y, weight, bias, result, window, groups)
        elif reserve.open:
            reserve.made = _kernels.empty(result.shape, result.dtype)
            _transpose_by_columns(y, weight, bias, reserve.made, window, groups)
        else:
            copy(reserve.made, result)
        return
    _, channels, kernel_h, kernel_w = weight.shape
    taps, outputs = kernel_h * kernel_w, weight.shape[0] // groups
    rows = list(phases(window.height, kernel_h, window.stride_h, window.dilation_h, window.top))
    columns = list(phases(window.width, kernel_w, window.stride_w, window.dilation_w, window.left))
    if sum(r.pixels for r in rows) < window.height or sum(c.pixels for c in columns) < window.width:
        _only_bias(bias, result, reserve=reserve)  # no tap reaches some pixels
    for r, c in itertools.product(rows, columns):
        phase = (y.shape[2], y.shape[3], r.taps, c.taps, 1, 1, r.dilation, c.dilation, r.before, c.before)
        place = r.first * window.width + c.first, window.stride_h * window.width, window.stride_w
        last = r.start + (r.taps - 1) * r.period, c.start + (c.taps - 1) * c.period
        order = (
            last[0] * kernel_w + last[1],  # where the weights lie: see xent_conv_args in table.h
            outputs * channels * taps,
            taps,
            channels * taps,
            -r.period * kernel_w,
            -c.period,
        )
        outs = r.pixels, c.pixels
        _kernels.conv2d(y, weight, bias, result, phase + outs, groups, False, place, order, None, reserve)


def _transpose_by_columns(y, weight, bias, result, window, groups):
    """The same through the im2col matrix, a channel at a time: no zero of the padding meets an infinite
    weight there."""
    _, channels, kernel_h, kernel_w = weight.shape
    taps, pixels, dtype = kernel_h * kernel_w, window.out_h * window.out_w, _check.loss_dtype(y.dtype)
    plane = np.empty(result.shape[2:], dtype)
    by_group = y.reshape(len(y), groups, y.shape[1] // groups, window.out_h, window.out_w)
    by_tap = weight.reshape(groups, -1, channels, taps)
    for n, g, c in itertools.product(range(len(y)), range(groups), range(channels)):
        x, w = by_group[n : n + 1, g].astype(dtype), by_tap[g, :, c].T[:, :, None, None].astype(dtype)
        _kernels.col2im(conv2d(x, w).reshape(taps, pixels), plane, 1, window)
        with np.errstate(all="ignore"):
            result[n, g * channels + c] = plane if bias is None else plane + bias[g * channels + c]
