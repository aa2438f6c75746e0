"""Max and average pooling (NCHW) with their backward passes."""

import numpy as np

from . import _check, _kernels
from ._docs import documented
from ._window import pair, sliding_window


@documented
def max_pool2d(x, kernel_size, *, stride=None, padding=0, dilation=1, ceil_mode=False):
    """
    Largest element of every window.

    .. math:: y_{n,c,h,w} = \\max_{i,j} x_{n,c,\\; h s_h - p_h + i d_h,\\; w s_w - p_w + j d_w}

    Parameters
    ----------
    <x of images>
        Padding counts as -inf; a NaN in a window makes its result NaN.
    <kernel_size>
    <stride of pooling>
    <padding of pooling>
    <dilation of pooling>
    <ceil_mode>

    Returns
    -------
    ndarray, shape (N, C, OH, OW)
        Of the dtype of `x`.

    Raises
    ------
    TypeError
        If `x` does not hold real numbers or a size is no integer.
    ValueError
        If `x` is not 4-dimensional, the window is larger than the padded image, or an option is outside its
        range.

    See Also
    --------
    max_pool2d_backward, avg_pool2d

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> xent.max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 0]
    array([[ 5.,  7.],
           [13., 15.]])
    """
    x, window = _arguments(x, kernel_size, stride, padding, dilation, ceil_mode)
    return _kernels.max_pool2d(x, window)


@documented
def max_pool2d_backward(grad, x, kernel_size, *, stride=None, padding=0, dilation=1, ceil_mode=False):
    """
    Gradient of `max_pool2d`: each output's gradient goes to the first maximum of its window.

    Parameters
    ----------
    <grad of images>
    <x of the forward pass>
        In a window with NaNs the first NaN is the maximum.
    <kernel_size>
    <stride of pooling>
    <padding of pooling>
    <dilation of pooling>
    <ceil_mode>

    Returns
    -------
    ndarray, shape (N, C, H, W)
        Of the dtype of `x`.

    Raises
    ------
    TypeError, ValueError
        As `max_pool2d`; also if `grad` does not have the shape of the output.

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
    """
    x, window = _arguments(x, kernel_size, stride, padding, dilation, ceil_mode)
    x, grad = _gradient(grad, x, window)
    return _kernels.max_pool2d_backward(grad, x, window)


@documented
def avg_pool2d(x, kernel_size, *, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
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

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> xent.avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)[0, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]])
    """
    x, window = _arguments(x, kernel_size, stride, padding, 1, ceil_mode)
    return _kernels.avg_pool2d(x, window, bool(count_include_pad))


@documented
def avg_pool2d_backward(
    grad, x, kernel_size, *, stride=None, padding=0, ceil_mode=False, count_include_pad=True
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
    x, grad = _gradient(grad, x, window)
    return _kernels.avg_pool2d_backward(grad, x, window, bool(count_include_pad))


def _arguments(x, kernel_size, stride, padding, dilation, ceil_mode):
    """Return the images in C order and the window."""
    x = np.ascontiguousarray(_check.images(_check.floats(x, "x", half=False), "x"))
    kernel = pair(kernel_size, "kernel_size", 1)
    padding = pair(padding, "padding", 0)
    if 2 * padding[0] > kernel[0] or 2 * padding[1] > kernel[1]:
        raise ValueError(f"padding must be at most half of kernel_size {kernel}, got {padding}")
    stride = kernel if stride is None else stride
    return x, sliding_window(x.shape[2:], kernel, stride, padding, dilation, bool(ceil_mode))


def _shape(x, window):
    return (*x.shape[:2], window.out_h, window.out_w)


def _gradient(grad, x, window):
    """Return the images and the incoming gradient in their common dtype, in C order."""
    x, grad = _check.common_floats((x, "x"), (grad, "grad"), half=False)
    _check.same_shape(grad, _shape(x, window), "grad", "the output")
    return x, np.ascontiguousarray(grad)
