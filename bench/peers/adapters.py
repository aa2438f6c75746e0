"""How each library is used at its best: what it is given, and what is timed of its functions.

- Every one of them gets its input as it likes it best, before the timing.
- A function that takes an `out` writes to an output that is reused.
- PyTorch's forward operators run in inference mode, without a record for a gradient.
- What is compiled is compiled for exactly the shape at hand, with loss and gradients in one graph.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from .base import Peer, with_output
from .libraries import THREADS, jax, onnx, onnxruntime, sklearn_loss, special, torch


class Xent(Peer):
    """The functions of this package."""

    name = "xent"


class Restored:
    """A call that overwrites its input, and how to put the input back before it is timed."""

    def __init__(self, call, restore):
        self.call, self.restore = call, restore

    def __call__(self):
        return self.call()


class XentInPlace(Peer):
    """xent with the gradient in the place of the first array.

    The array is put back, untimed, before each turn. Where a turn is several calls, all but the first take
    the gradient of a gradient: finite numbers within [-1, 1], for which the kernels do the same work.
    """

    name = "xent in place"

    def value(self, function, x, *arrays):
        out = x.copy()
        return Restored(partial(function, out, *arrays, out), lambda: np.copyto(out, x))


class NumPy(Peer):
    """The formulas as one would write them with NumPy."""

    name = "numpy"


class SciPy(Peer):
    """scipy.special, and what its users compose of that."""

    name = "scipy"
    library = special


class ScikitLearn(Peer):
    """The losses of scikit-learn's own estimators."""

    name = "scikit-learn"
    library = sklearn_loss


class Torch(Peer):
    """PyTorch, eager."""

    name = "torch"
    library = torch

    def convert(self, array):
        if array.dtype.name == "bfloat16":  # from_numpy knows no bfloat16: the same bits under another name
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)

    def value(self, function, *arrays):
        return self.without_record(function, *with_output(function, arrays))

    def without_record(self, function, *arrays):
        def call():
            with torch.inference_mode():
                return function(*arrays)

        return call

    def value_and_grad(self, function, *arrays, upstream=None):
        inputs = [array.detach().requires_grad_() for array in arrays[: self.gradients]]
        arrays = *inputs, *arrays[self.gradients :]

        def call():
            value = function(*arrays)
            return value, *torch.autograd.grad(value, inputs, upstream)

        return call

    def result(self, result):
        result = result.detach()
        return (result.float() if result.dtype == torch.bfloat16 else result).numpy()


class TorchCompiled(Torch):
    """torch.compile of the same, for exactly this shape; outputs are fresh."""

    name = "torch compiled"

    def __init__(self, *data):
        super().__init__(*data)
        torch._dynamo.reset()  # or it would generalise over the shapes seen before, and give up after eight

    def value(self, function, *arrays):
        return self.without_record(torch.compile(function, dynamic=False), *arrays)

    def value_and_grad(self, function, *arrays):
        # One graph for loss and gradient: the autograd engine alone costs more than a small batch.
        both = torch.compile(torch.func.grad_and_value(function), dynamic=False)
        return lambda: both(*arrays)[::-1]


class Jax(Peer):
    """JAX, jitted, on arrays that are on the device already; labels are int32, which it indexes faster."""

    name = "jax"
    library = jax

    def convert(self, array):
        return jax.numpy.asarray(array.astype(np.int32) if array.dtype == np.int64 else array)

    def value(self, function, *arrays):
        jitted = jax.jit(function)
        return lambda: jax.block_until_ready(jitted(*arrays))

    def value_and_grad(self, function, *arrays):
        by = tuple(range(self.gradients)) if self.gradients > 1 else 0
        return self.value(jax.value_and_grad(function, by), *arrays)


class Node(NamedTuple):
    """The one node of a model of ONNX Runtime; all arrays but the first are constants."""

    operator: str
    out_shape: tuple
    attributes: dict


class OnnxRuntime(Peer):
    """ONNX Runtime: a model of one node, bound to the arrays themselves, so that nothing is copied."""

    name = "onnxruntime"
    library = onnxruntime and onnx

    def value(self, function, x, *constants):
        node = function(x, *constants)
        out = np.empty(node.out_shape, x.dtype)
        binding, session = _bound_session(node, x, out, constants)

        def call(x=x):  # the model holds addresses only: keep the input alive
            session.run_with_iobinding(binding)
            return out

        return call


def _bound_session(node, x, out, constants):
    """Return a binding to x and out, and the session of a model of one node."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # an operator that it lacks is reported once, as our own exception
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    model = _model(node, x, out, constants).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding, kind = session.io_binding(), onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    binding.bind_input("x", "cpu", 0, kind, x.shape, x.ctypes.data)
    binding.bind_output("out", "cpu", 0, kind, out.shape, out.ctypes.data)
    return binding, session


def _model(node, x, out, constants):
    """Return the model of one node."""
    helper = onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    weights = [onnx.numpy_helper.from_array(array, f"constant {i}") for i, array in enumerate(constants)]
    inputs = ["x", *(weight.name for weight in weights)]
    graph = helper.make_graph(
        [helper.make_node(node.operator, inputs, ["out"], **node.attributes)],
        node.operator,
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("out", kind, out.shape)],
        weights,
    )
    # Opset 13 is the first whose Softmax works on one axis; format 10 is old enough for every runtime.
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
