"""Every implementation of convolution, pooling and im2col: one class each, as in peers.py.

A class is made from what a case of layers.py says `data` is. All images are NCHW in C order and float32 or
float64, weights and bias included; results are fresh arrays, except ONNX Runtime's.

How each is at its best:

- PyTorch's forward operators run in inference mode. Forward and backward are measured through autograd, and
  as "torch aten" without it: the function that autograd calls, by itself. channels_last, another order of
  inputs and outputs, would be another problem.
- Max pooling's backward pass gets the indices that PyTorch saved in the forward pass; xent finds them again.
- ONNX Runtime's weights are constants of the model, which it may rearrange before the first call.
- NumPy is the idiom of its users: a view of all windows, one copy of it, one matrix product.
"""

import machine
import numpy as np
from libraries import onnx, onnxruntime, torch
from peers import Peer, bound_call

import xent

functional = torch and torch.nn.functional


class Images(Peer):
    """One implementation, given a case, its images and, for a convolution, weight and bias."""

    def __init__(self, case, x, weight=None, bias=None):
        self.case, self.x, self.weight, self.bias = case, x, weight, bias
        self.kernel, self.options = case.kernel, case.options

    def grad(self, channels=None):
        """An upstream gradient for an output with so many channels, the input's by default."""
        n, c, *_ = self.case.shape
        shape = (n, channels or c, *self.case.out_size)
        return np.random.default_rng(3).standard_normal(shape, dtype=np.float32).astype(self.case.dtype)


class Xent(Images):
    """The functions of this package."""

    name = "xent"

    def conv2d(self):
        return lambda: xent.conv2d(self.x, self.weight, self.bias, **self.options)

    def conv2d_forward_backward(self):
        grad = self.grad(len(self.weight))

        def both():
            y = xent.conv2d(self.x, self.weight, self.bias, **self.options)
            return y, *xent.conv2d_backward(grad, self.x, self.weight, **self.options)

        return both

    def max_pool2d(self):
        return lambda: xent.max_pool2d(self.x, self.kernel, **self.options)

    def max_pool2d_backward(self):
        grad = self.grad()
        return lambda: xent.max_pool2d_backward(grad, self.x, self.kernel, **self.options)

    def avg_pool2d(self):
        return lambda: xent.avg_pool2d(self.x, self.kernel, **self.options)

    def avg_pool2d_backward(self):
        grad = self.grad()
        return lambda: xent.avg_pool2d_backward(grad, self.x, self.kernel, **self.options)

    def im2col(self):
        return lambda: xent.im2col(self.x, self.kernel, **self.options)

    def col2im(self):
        columns = xent.im2col(self.x, self.kernel, **self.options)
        return lambda: xent.col2im(columns, self.case.shape[2:], self.kernel, **self.options)


class TorchImages(Images):
    """Tensors on the same memory, and calls that leave no record for a gradient."""

    library = torch

    def __init__(self, case, *arrays):
        super().__init__(case, *map(torch.from_numpy, arrays))

    def tensor_grad(self, channels=None):
        return torch.from_numpy(self.grad(channels))

    def pairs(self, *values):
        """The arguments that PyTorch's own functions want as lists of two."""
        return [[value, value] for value in (self.kernel, self.case.stride, self.case.padding, *values)]

    def without_record(self, function, *args, **options):
        def call():
            with torch.inference_mode():
                return function(*args, **options)

        return call


class Torch(TorchImages):
    """PyTorch, eager."""

    name = "torch"

    def conv2d(self):
        return self.without_record(functional.conv2d, self.x, self.weight, self.bias, **self.options)

    def conv2d_forward_backward(self):
        grad = self.tensor_grad(len(self.weight))
        inputs = [tensor.detach().requires_grad_() for tensor in (self.x, self.weight, self.bias)]

        def both():
            y = functional.conv2d(*inputs, **self.options)
            return y, *torch.autograd.grad(y, inputs, grad)

        return both

    def max_pool2d(self):
        return self.without_record(functional.max_pool2d, self.x, self.kernel, **self.options)

    def max_pool2d_backward(self):
        _, indices = functional.max_pool2d(self.x, self.kernel, **self.options, return_indices=True)
        function = torch.ops.aten.max_pool2d_with_indices_backward
        return self.without_record(function, self.tensor_grad(), self.x, *self.pairs(1), False, indices)

    def avg_pool2d(self):
        return self.without_record(functional.avg_pool2d, self.x, self.kernel, **self.options)

    def avg_pool2d_backward(self):
        function = torch.ops.aten.avg_pool2d_backward
        return self.without_record(function, self.tensor_grad(), self.x, *self.pairs(), False, True, None)

    def im2col(self):
        return self.without_record(functional.unfold, self.x, self.kernel, **self.options)

    def col2im(self):
        columns = functional.unfold(self.x, self.kernel, **self.options)
        size = self.case.shape[2:]
        return self.without_record(functional.fold, columns, size, self.kernel, **self.options)


class TorchAten(TorchImages):
    """PyTorch's own function for the three gradients, which saves autograd's time."""

    name = "torch aten"

    def conv2d_forward_backward(self):
        grad = self.tensor_grad(len(self.weight))
        _, stride, padding, dilation = self.pairs(1)
        outputs, groups = [len(self.weight)], self.case.groups

        def both(x, weight, bias):
            y = functional.conv2d(x, weight, bias, **self.options)
            return y, *torch.ops.aten.convolution_backward(
                grad, x, weight, outputs, stride, padding, dilation, False, [0, 0], groups, [True] * 3
            )

        return self.without_record(both, self.x, self.weight, self.bias)


class OnnxRuntime(Images):
    """ONNX Runtime: a model of one node, bound to the arrays themselves."""

    name = "onnxruntime"
    library = onnxruntime and onnx

    def conv2d(self):
        out = np.empty((self.case.shape[0], self.case.outputs, *self.case.out_size), self.x.dtype)
        _, stride, padding = ([value, value] for value in (self.kernel, self.case.stride, self.case.padding))
        return bound_call(
            "Conv",
            self.x,
            out,
            {"weight": self.weight, "bias": self.bias},
            strides=stride,
            pads=2 * padding,
            group=self.case.groups,
        )


class NumPy(Images):
    """What is written with NumPy alone; for convolution, of one group only."""

    name = "numpy"

    def _columns(self):
        """The im2col matrix (N, C kh kw, OH OW) of the images."""
        p, stride = self.case.padding, self.case.stride
        padded = np.pad(self.x, ((0, 0), (0, 0), (p, p), (p, p))) if p else self.x
        windows = np.lib.stride_tricks.sliding_window_view(padded, (self.kernel, self.kernel), axis=(2, 3))
        n, c, height, width = self.case.shape[:2] + self.case.out_size
        windows = windows[:, :, ::stride, ::stride].transpose(0, 1, 4, 5, 2, 3)
        return windows.reshape(n, c * self.kernel**2, height * width)

    def conv2d(self):
        if self.case.groups != 1:
            raise TypeError("the idiom is for one group")
        n, size = self.case.shape[0], self.case.out_size
        rows = self.weight.reshape(len(self.weight), -1)
        return lambda: (rows @ self._columns() + self.bias[:, None]).reshape(n, -1, *size)

    def im2col(self):
        return self._columns

    def col2im(self):
        columns = self._columns()
        (n, c, height, width), (rows, across) = self.case.shape, self.case.out_size
        kernel, stride, p = self.kernel, self.case.stride, self.case.padding
        windows = columns.reshape(n, c, kernel, kernel, rows, across)

        def add():
            out = np.zeros((n, c, height + 2 * p, width + 2 * p), columns.dtype)
            for i, j in np.ndindex(kernel, kernel):
                target = out[:, :, i : i + stride * rows : stride, j : j + stride * across : stride]
                target += windows[:, :, i, j]
            return out[:, :, p : p + height, p : p + width]

        return add


class NumPyProduct(Images):
    """No peer: the machine's peak, measured in turns with the convolutions that are judged by it."""

    name = "numpy product"

    def conv2d(self):
        return machine.numpy_product()

    conv2d_forward_backward = conv2d


class TorchProduct(Images):
    """The same by PyTorch's BLAS: the faster of the two counts."""

    name = "torch product"
    library = torch

    def conv2d(self):
        return machine.torch_product()

    conv2d_forward_backward = conv2d


PRODUCTS = [NumPyProduct, TorchProduct]
PEERS = [Xent, Torch, TorchAten, OnnxRuntime, NumPy, *PRODUCTS]
