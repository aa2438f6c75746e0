"""Max and average pooling (NCHW) with their backward passes."""

import numpy as np

from . import _check, _kernels
from ._docs import documented
from ._out import checked_room, delivered, in_c_order
from ._window import LARGEST, pair, pooling_window, window_of


@documented
def max_pool2d(
    x, kernel_size, *, stride=None, padding=0, dilation=1, ceil_mode=False, return_places=False, out=None
):
    """
    Largest element of every window.

    .. math:: y_{n,c,h,w} = \\max_{i,j} x_{n,c,\\; h s_h - p_t + i d_h,\\; w s_w - p_l + j d_w}

    Parameters
    ----------
    <x of images>
        Padding counts as -inf; a NaN in a window makes its result NaN.
    <kernel_size>
    <stride of pooling>
    <padding of pooling>
    <dilation of pooling>
    <ceil_mode>
    return_places : bool, optional
        Whether to return also where the maxima are, for `max_pool2d_backward`.
    <out of images>

    Returns
    -------
    y : ndarray, shape (N, C, OH, OW)
        Of the dtype of `x`.
    places : ndarray of uint8, uint16 or int32, shape (N, C, OH, OW)
        Only with `return_places`: the number ``i * kw + j`` of the first largest element of each window, or
        of its first NaN. A byte where a window has at most 256 elements, two where it has at most 65536.

    Raises
    ------
    TypeError
        If `x` does not hold real numbers, a size is no integer or a flag no bool.
    ValueError
        If `x` is not 4-dimensional, no window fits into the padded image, a window would see nothing but
        padding, an option is outside its range, or `out` does not fit.

    See Also
    --------
    max_pool2d_backward, avg_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> xent.max_pool2d(x, 2)[0, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    >>> y, places = xent.max_pool2d(-x, 3, stride=1, padding="same", return_places=True)
    >>> places[0, 0]
    array([[4, 3, 3, 3],
           [1, 0, 0, 0],
           [1, 0, 0, 0],
           [1, 0, 0, 0]], dtype=uint8)
    """
    x, window = _arguments(x, kernel_size, stride, padding, dilation, ceil_mode)
    return_places = _check.flag(return_places, "return_places")
    shape = _shape(x, window)
    places = _kernels.empty(shape, _place_dtype(window)) if return_places else None
    result = checked_room(out, shape, x.dtype, (x, "x"))
    _kernels.max_pool2d(in_c_order(x), result, places, window)
    y = delivered(result, out)
    return (y, places) if return_places else y


@documented
def max_pool2d_backward(
    grad, x, kernel_size, *, stride=None, padding=0, dilation=1, ceil_mode=False, places=None, out=None
):
    """
    Gradient of `max_pool2d`: each output's gradient goes to the first maximum of its window.

    Parameters
    ----------
    <grad of images>
    <x of the forward pass>
        In a window with NaNs the first NaN is the maximum. Only their shape and dtype matter with `places`.
    <kernel_size>
    <stride of pooling>
    <padding of pooling>
    <dilation of pooling>
    <ceil_mode>
    places : ndarray of uint8, uint16 or int32, shape (N, C, OH, OW), optional
        What `max_pool2d` with the same options returned; without it, the maxima are looked for again. A
        gradient whose place is no pixel of its window goes nowhere.
    <out of images>

    Returns
    -------
    ndarray, shape (N, C, H, W)
        Of the dtype of `x`.

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d`; also if `grad` or `places` does not have the shape of the output, or `places` another
        dtype than `max_pool2d` gives it.

    See Also
    --------
    max_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> x = np.array([[[[1.0, 3.0], [3.0, 2.0]]]])
    >>> xent.max_pool2d_backward([[[[10.0]]]], x, 2)[0, 0]
    array([[ 0., 10.],
           [ 0.,  0.]])
    >>> y, places = xent.max_pool2d(x, 2, return_places=True)
    >>> xent.max_pool2d_backward([[[[10.0]]]], x, 2, places=places)[0, 0]
    array([[ 0., 10.],
           [ 0.,  0.]])
    """
    x, window = _arguments(x, kernel_size, stride, padding, dilation, ceil_mode)
    x, grad = _gradient(grad, x, window)
    if places is None:
        x = in_c_order(x)
    else:
        places = _places(places, x, window)
    result = checked_room(out, x.shape, x.dtype, (x, "x"), (grad, "grad"), (places, "places"))
    _kernels.max_pool2d_backward(in_c_order(grad), x, result, places, window)
    return delivered(result, out)


@documented
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
    """
    Mean of every window.

    Parameters
    ----------
    <x of images>
        Padding counts as 0.
    <kernel_size>
    <stride of pooling>
    <padding of pooling>
    <ceil_mode>
    <count_include_pad>
    <divisor_override>
    <out of images>

    Returns
    -------
    ndarray, shape (N, C, OH, OW)
        Of the dtype of `x`.

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d`.

    See Also
    --------
    avg_pool2d_backward, max_pool2d

    Notes
    -----
    Within 4 units in the last place of the mean of magnitudes, for windows of any size whose sum of
    magnitudes is finite: where a sum in the type computed with could lose more, it is made in more bits.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> xent.avg_pool2d(x, 2)[0, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    >>> xent.avg_pool2d(x, 2, divisor_override=1, padding=((0, 0), (1, 1)))[0, 0]
    array([[ 4., 14., 10.],
           [20., 46., 26.]])
    """
    x, window = _arguments(x, kernel_size, stride, padding, 1, ceil_mode)
    include, divisor = _divisor(count_include_pad, divisor_override)
    result = checked_room(out, _shape(x, window), x.dtype, (x, "x"))
    _kernels.avg_pool2d(in_c_order(x), result, window, include, divisor)
    return delivered(result, out)


@documented
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
    """
    Gradient of `avg_pool2d`: each output's gradient is spread evenly over its window.

    Parameters
    ----------
    <grad of images>
    <x of the forward pass>
        Only their shape and dtype matter.
    <kernel_size>
    <stride of pooling>
    <padding of pooling>
    <ceil_mode>
    <count_include_pad>
    <divisor_override>
    <out of images>

    Returns
    -------
    ndarray, shape (N, C, H, W)
        Of the dtype of `x`.

    Raises
    ------
    TypeError, ValueError
        As `avg_pool2d`; also if `grad` does not have the shape of the output.

    See Also
    --------
    avg_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> xent.avg_pool2d_backward([[[[4.0]]]], np.zeros((1, 1, 2, 2)), 2)[0, 0]
    array([[1., 1.],
           [1., 1.]])
    """
    x, window = _arguments(x, kernel_size, stride, padding, 1, ceil_mode)
    include, divisor = _divisor(count_include_pad, divisor_override)
    x, grad = _gradient(grad, x, window)
    result = checked_room(out, x.shape, x.dtype, (x, "x"), (grad, "grad"))
    _kernels.avg_pool2d_backward(in_c_order(grad), x, result, window, include, divisor)
    return delivered(result, out)


# ---- arguments ----


def _arguments(x, kernel_size, stride, padding, dilation, ceil_mode):
    """Return the images and the window."""
    x = _check.images(_check.floats(x, "x"), "x")
    return x, window_of(_window, (x.shape[2:],), kernel_size, stride, padding, dilation, ceil_mode)


def _window(size, kernel_size, stride, padding, dilation, ceil_mode):
    kernel = pair(kernel_size, "kernel_size", 1)
    ceil_mode = _check.flag(ceil_mode, "ceil_mode")
    return pooling_window(size, kernel, stride, padding, dilation, ceil_mode)


def _divisor(count_include_pad, divisor_override):
    """Return whether padding counts, and the divisor, 0 for the number of cells."""
    include = _check.flag(count_include_pad, "count_include_pad")
    if divisor_override is None:
        return include, 0
    divisor = _check.integer(divisor_override, "divisor_override", 1)
    if divisor > LARGEST:
        raise ValueError(f"divisor_override must be at most {LARGEST}, got {divisor}")
    return include, divisor


def _shape(x, window):
    images, channels = x.shape[:2]
    return images, channels, window.out_h, window.out_w


def _gradient(grad, x, window):
    """Return the images and the incoming gradient in their common dtype."""
    grad = _check.floats(grad, "grad")
    if grad.dtype is not x.dtype:
        x, grad = _check.common_floats((x, "x"), (grad, "grad"))
    _check.same_shape(grad, _shape(x, window), "grad", "the output")
    return x, grad


# ---- places ----

U8, U16, I32 = np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int32)


def _place_dtype(window):
    """Return the smallest dtype that kernels know for numbers of the cells of a window."""
    cells = window.kernel_h * window.kernel_w
    if cells > 2**31:
        raise ValueError(f"kernel_size must be of at most 2**31 elements for places, got {cells}")
    return U8 if cells <= 2**8 else U16 if cells <= 2**16 else I32


def _places(places, x, window):
    """Return places in C order. The kernels compare them with those that there are: any number is safe."""
    places, dtype = _check.as_array(places, "places"), _place_dtype(window)
    if places.dtype != dtype:
        raise TypeError(
            f"places must have dtype {dtype}, as max_pool2d returns them for a window of {window.kernel_h} x "
            f"{window.kernel_w}, got {places.dtype}"
        )
    _check.same_shape(places, _shape(x, window), "places", "the output")
    flags = places.flags
    return places if flags.c_contiguous and flags.aligned else np.require(places, requirements="CA")
