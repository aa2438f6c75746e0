"""Convolution, pooling and im2col, of a case of layers.py.

All images are NCHW in C order and float32 or float64, weights and bias included; results are fresh arrays,
except ONNX Runtime's.

- PyTorch's forward and backward convolution is measured through autograd, and as "torch aten" without it: the
  function that autograd calls, by itself. channels_last, another order of inputs and outputs, would be
  another problem.
- Max pooling's backward pass gets what the forward pass saved: PyTorch's indices, xent's places.
- ONNX Runtime's weights are constants of the model, which it may rearrange before the first call. "xent
  prepared" is what to compare it with: its weights come from `prepare_conv2d`.
- NumPy is the idiom of its users: a view of all windows, one copy of it, one matrix product.
"""

from functools import cached_property

import machine
import numpy as np

import xent

from . import adapters
from .base import Peer
from .libraries import functional, torch


class Images:
    """A case, its images and, for a convolution, weight and bias."""

    gradients = 3

    def __init__(self, case, x, weight=None, bias=None):
        self.case, self.x, self.weight, self.bias = case, x, weight, bias
        self.kernel, self.options, self.size = case.kernel, case.options, case.shape[2:]

    def arguments(self, operator):
        if operator == "col2im":
            return (columns(self.case, self.x),)
        if operator == "conv2d":
            return self.x, self.weight, self.bias
        if operator == "conv2d forward+backward":
            return self.x, self.weight, self.bias, self.upstream(len(self.weight))
        if operator == "max_pool2d forward+backward":
            return self.x, self.upstream(self.case.shape[1])
        if operator.endswith("_backward"):
            return self.upstream(self.case.shape[1]), self.x
        return (self.x,)

    def upstream(self, channels):
        """Return a gradient for an output with so many channels."""
        shape = self.case.shape[0], channels, *self.case.out_size
        return np.random.default_rng(3).standard_normal(shape, dtype=np.float32).astype(self.case.dtype)

    def pairs(self, *values):
        """Return kernel, stride, padding and so on as lists of two, which libraries want inside."""
        return [[value, value] for value in (self.kernel, self.case.stride, self.case.padding, *values)]


def columns(case, x):
    """Return the im2col matrix (N, C kh kw, OH OW) of images: a view of all windows, and a copy of it."""
    p, stride = case.padding, case.stride
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p))) if p else x
    reach = (case.kernel - 1) * case.dilation + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (reach, reach), axis=(2, 3))
    windows = windows[..., :: case.dilation, :: case.dilation]
    n, c, height, width = case.shape[:2] + case.out_size
    windows = windows[:, :, ::stride, ::stride].transpose(0, 1, 4, 5, 2, 3)
    return windows.reshape(n, c * case.kernel**2, height * width)


class Xent(Images, adapters.Xent):
    def conv2d(self, x, weight, bias):
        return xent.conv2d(x, weight, bias, **self.options)

    def conv2d_forward_backward(self, x, weight, bias, grad):
        y = xent.conv2d(x, weight, bias, **self.options)
        return y, *xent.conv2d_backward(grad, x, weight, **self.options)

    def max_pool2d(self, x):
        return xent.max_pool2d(x, self.kernel, **self.options)

    @cached_property
    def places(self):
        """What the forward pass of max pooling saves."""
        return xent.max_pool2d(self.x, self.kernel, return_places=True, **self.options)[1]

    def max_pool2d_backward(self, grad, x):
        return xent.max_pool2d_backward(grad, x, self.kernel, places=self.places, **self.options)

    def max_pool2d_forward_backward(self, x, grad):
        y, places = xent.max_pool2d(x, self.kernel, return_places=True, **self.options)
        return y, xent.max_pool2d_backward(grad, x, self.kernel, places=places, **self.options)

    def avg_pool2d(self, x):
        return xent.avg_pool2d(x, self.kernel, **self.options)

    def avg_pool2d_backward(self, grad, x):
        return xent.avg_pool2d_backward(grad, x, self.kernel, **self.options)

    def im2col(self, x):
        return xent.im2col(x, self.kernel, **self.options)

    def col2im(self, columns):
        return xent.col2im(columns, self.size, self.kernel, **self.options)


class XentPrepared(Images, adapters.Xent):
    """The forward pass with weights that were packed before."""

    name = "xent prepared"

    def conv2d(self, x, weight, bias):
        return xent.conv2d(x, weight, bias, **self.options)

    def convert(self, array):
        return xent.prepare_conv2d(array, groups=self.case.groups) if array is self.weight else array


class Torch(Images, adapters.Torch):
    def value_and_grad(self, function, *arrays):
        *inputs, grad = arrays
        return super().value_and_grad(function, *inputs, upstream=grad)

    def conv2d(self, x, weight, bias):
        return functional.conv2d(x, weight, bias, **self.options)

    def max_pool2d(self, x):
        return functional.max_pool2d(x, self.kernel, **self.options)

    @cached_property
    def indices(self):
        """What the forward pass of max pooling saves."""
        x = self.convert(self.x)
        return functional.max_pool2d(x, self.kernel, **self.options, return_indices=True)[1]

    def max_pool2d_backward(self, grad, x):
        return self.scattered(grad, x, self.indices)

    def max_pool2d_forward_backward(self, x, grad):
        y, indices = functional.max_pool2d(x, self.kernel, **self.options, return_indices=True)
        return y, self.scattered(grad, x, indices)

    def scattered(self, grad, x, indices):
        function = torch.ops.aten.max_pool2d_with_indices_backward
        return function(grad, x, *self.pairs(1), False, indices)

    def avg_pool2d(self, x):
        return functional.avg_pool2d(x, self.kernel, **self.options)

    def avg_pool2d_backward(self, grad, x):
        return torch.ops.aten.avg_pool2d_backward(grad, x, *self.pairs(), False, True, None)

    def im2col(self, x):
        return functional.unfold(x, self.kernel, **self.options)

    def col2im(self, columns):
        return functional.fold(columns, self.size, self.kernel, **self.options)


class TorchAten(Images, adapters.Torch):
    """PyTorch's own function for the three gradients, which saves autograd's time."""

    name = "torch aten"

    def conv2d_forward_backward(self, x, weight, bias, grad):
        _, *window = self.pairs(self.case.dilation)  # stride, padding, dilation
        rest = False, [0, 0], self.case.groups, [True, True, True]
        y = functional.conv2d(x, weight, bias, **self.options)
        return y, *torch.ops.aten.convolution_backward(grad, x, weight, [len(weight)], *window, *rest)


class OnnxRuntime(Images, adapters.OnnxRuntime):
    def conv2d(self, x, weight, bias):
        _, stride, padding, dilation = self.pairs(self.case.dilation)
        attributes = {"strides": stride, "pads": 2 * padding, "dilations": dilation}
        attributes["group"] = self.case.groups
        return adapters.Node("Conv", (len(x), len(weight), *self.case.out_size), attributes)


class NumPy(Images, adapters.NumPy):
    """What is written with NumPy alone; for convolution, of one group only."""

    def conv2d(self, x, weight, bias):
        if self.case.groups != 1:
            raise TypeError("the idiom is for one group")
        product = weight.reshape(len(weight), -1) @ columns(self.case, x)
        return (product + bias[:, None]).reshape(len(x), -1, *self.case.out_size)

    def im2col(self, x):
        return columns(self.case, x)

    def col2im(self, columns):
        (n, c, height, width), (rows, across) = self.case.shape, self.case.out_size
        kernel, stride, p = self.kernel, self.case.stride, self.case.padding
        windows = columns.reshape(n, c, kernel, kernel, rows, across)
        out = np.zeros((n, c, height + 2 * p, width + 2 * p), columns.dtype)
        for i, j in np.ndindex(kernel, kernel):
            target = out[:, :, i : i + stride * rows : stride, j : j + stride * across : stride]
            target += windows[:, :, i, j]
        return out[:, :, p : p + height, p : p + width]


class Product(Peer):
    """No peer: the machine's peak, measured in turns with the convolutions that are judged by it.

    A product is of matrices of its own. The faster of the two libraries' counts.
    """

    def __init__(self, *data):
        pass

    @classmethod
    def has(cls, operator):
        return operator.startswith("conv2d")


class NumPyProduct(Product):
    name = "numpy product"

    def call(self, operator):
        return machine.numpy_product()


class TorchProduct(Product):
    name = "torch product"
    library = torch

    def call(self, operator):
        return machine.torch_product()


PEERS = [Xent, XentPrepared, Torch, TorchAten, OnnxRuntime, NumPy, NumPyProduct, TorchProduct]
