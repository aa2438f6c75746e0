"""Every implementation of the softmax family: one class each, one method for each operator that it has.

A class is made from logits, labels and the class axis, which it converts once to what its library likes best.
A method prepares one operator and returns the call that is timed. `PEERS` is the table of all; `prepare`
returns the calls of one operator, from this table or another (conv_peers.py).

How each is at its best:

- softmax, log_softmax and logsumexp write to an output that is reused, wherever a library can do that.
- The losses are means over positions. scikit-learn's gradient is that of the sum: it saves the division.
- SciPy and scikit-learn have no full set of losses; what is composed here is what their users compose.
- PyTorch's forward operators run in inference mode, without a record for a gradient.
"""

import re

import numpy as np
from libraries import THREADS, jax, onnx, onnxruntime, sklearn_loss, special, torch

import xent


class Peer:
    """One implementation, given its data."""

    library = True  # the module, None where it is not installed

    def __init__(self, x, y, axis):
        self.x, self.y, self.axis = x, y, axis

    def array(self, result):
        """Return a result as a NumPy array."""
        return np.asarray(result)


class Xent(Peer):
    """The functions of this package."""

    name = "xent"

    def softmax(self):
        out = np.empty_like(self.x)
        return lambda: xent.softmax(self.x, self.axis, out=out)

    def log_softmax(self):
        out = np.empty_like(self.x)
        return lambda: xent.log_softmax(self.x, self.axis, out=out)

    def logsumexp(self):
        out = xent.logsumexp(self.x, self.axis)  # float32 for 16-bit logits
        return lambda: xent.logsumexp(self.x, self.axis, out=out)

    def cross_entropy(self):
        return lambda: xent.cross_entropy(self.x, self.y, axis=self.axis)

    def cross_entropy_value_and_grad(self):
        return lambda: xent.cross_entropy_value_and_grad(self.x, self.y, axis=self.axis)


class Restored:
    """A call that overwrites its input, and how to put the input back before it is timed."""

    def __init__(self, call, restore):
        self.call, self.restore = call, restore

    def __call__(self):
        return self.call()


class XentInPlace(Peer):
    """xent with the gradient in the logits' place.

    The logits are put back, untimed, before each turn. Where a turn is several calls, all but the first take
    the gradient of a gradient: finite numbers within [-1, 1], for which the kernels do the same work.
    """

    name = "xent in place"

    def cross_entropy_value_and_grad(self):
        x = self.x.copy()
        call = lambda: xent.cross_entropy_value_and_grad(x, self.y, axis=self.axis, out=x)  # noqa: E731
        return Restored(call, lambda: np.copyto(x, self.x))


class NumPy(Peer):
    """The formulas as one would write them with NumPy."""

    name = "numpy"

    def softmax(self):
        return self._softmax

    def _softmax(self):
        e = np.exp(self.x - self.x.max(self.axis, keepdims=True))
        e /= e.sum(self.axis, keepdims=True)
        return e

    def log_softmax(self):
        return self._log_softmax

    def _log_softmax(self):
        shifted = self.x - self.x.max(self.axis, keepdims=True)
        shifted -= np.log(np.exp(shifted).sum(self.axis, keepdims=True))
        return shifted

    def logsumexp(self):
        return self._logsumexp

    def _logsumexp(self):
        top = self.x.max(self.axis, keepdims=True)
        return np.log(np.exp(self.x - top).sum(self.axis)) + top.squeeze(self.axis)

    def cross_entropy(self):
        labels = np.expand_dims(self.y, self.axis)
        return lambda: (
            self._logsumexp() - np.take_along_axis(self.x, labels, self.axis).squeeze(self.axis)
        ).mean()

    def cross_entropy_value_and_grad(self):
        labels = np.expand_dims(self.y, self.axis)

        def value_and_grad():
            p = self._softmax()
            of_labels = np.take_along_axis(p, labels, self.axis)
            np.put_along_axis(p, labels, of_labels - 1, self.axis)
            p /= labels.size
            return -np.log(of_labels).mean(), p

        return value_and_grad


class SciPy(Peer):
    """scipy.special, and the loss that is composed from its log_softmax."""

    name = "scipy"
    library = special

    def softmax(self):
        return lambda: special.softmax(self.x, self.axis)

    def log_softmax(self):
        return lambda: special.log_softmax(self.x, self.axis)

    def logsumexp(self):
        return lambda: special.logsumexp(self.x, self.axis)

    def cross_entropy(self):
        labels = np.expand_dims(self.y, self.axis)
        return lambda: -np.take_along_axis(special.log_softmax(self.x, self.axis), labels, self.axis).mean()


class ScikitLearn(Peer):
    """The loss of LogisticRegression and HistGradientBoostingClassifier, for matrices of rows."""

    name = "scikit-learn"
    library = sklearn_loss

    def __init__(self, x, y, axis):
        if x.ndim != 2 or axis != -1:
            raise TypeError("takes logits of shape (n, classes) only")
        super().__init__(x, y.astype(x.dtype), axis)
        self.model = sklearn_loss.HalfMultinomialLoss(n_classes=x.shape[1])
        self.loss = np.empty(len(x), x.dtype)

    def cross_entropy(self):
        return lambda: self.model.loss(self.y, self.x, loss_out=self.loss, n_threads=THREADS).mean()

    def cross_entropy_value_and_grad(self):
        grad = np.empty_like(self.x)

        def value_and_grad():
            self.model.loss_gradient(self.y, self.x, loss_out=self.loss, gradient_out=grad, n_threads=THREADS)
            return self.loss.mean(), grad

        return value_and_grad


class Torch(Peer):
    """PyTorch, eager."""

    name = "torch"
    library = torch

    def __init__(self, x, y, axis):
        if x.dtype.name == "bfloat16":  # from_numpy knows no bfloat16: the same bits under another name
            tensor = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(x)
        super().__init__(tensor, torch.from_numpy(y), 1 if axis == -1 and x.ndim == 2 else axis)

    def array(self, result):
        return result.detach().numpy()

    def _forward(self, function, *args):
        def call():
            with torch.inference_mode():
                return function(*args)

        return call

    def softmax(self):
        out = torch.empty_like(self.x)
        return self._forward(lambda x: torch.softmax(x, self.axis, out=out), self.x)

    def log_softmax(self):
        out = torch.empty_like(self.x)
        return self._forward(lambda x: torch.log_softmax(x, self.axis, out=out), self.x)

    def logsumexp(self):
        out = torch.empty_like(self.x.select(self.axis, 0))
        return self._forward(lambda x: torch.logsumexp(x, self.axis, out=out), self.x)

    def cross_entropy(self):
        return self._forward(torch.nn.functional.cross_entropy, self.x, self.y)

    def cross_entropy_value_and_grad(self):
        x = self.x.detach().requires_grad_()

        def value_and_grad():
            loss = torch.nn.functional.cross_entropy(x, self.y)
            return loss, torch.autograd.grad(loss, x)[0]

        return value_and_grad


class TorchCompiled(Torch):
    """torch.compile of the same, for exactly this shape; outputs are fresh."""

    name = "torch compiled"

    def __init__(self, x, y, axis):
        super().__init__(x, y, axis)
        torch._dynamo.reset()  # or it would generalise over the shapes seen before, and give up after eight

    def _compiled(self, function, *args):
        return self._forward(torch.compile(function, dynamic=False), *args)

    def softmax(self):
        return self._compiled(lambda x: torch.softmax(x, self.axis), self.x)

    def log_softmax(self):
        return self._compiled(lambda x: torch.log_softmax(x, self.axis), self.x)

    def logsumexp(self):
        return self._compiled(lambda x: torch.logsumexp(x, self.axis), self.x)

    def cross_entropy(self):
        return self._compiled(torch.nn.functional.cross_entropy, self.x, self.y)

    def cross_entropy_value_and_grad(self):
        # One graph for loss and gradient: the autograd engine alone costs more than a small batch.
        both = torch.compile(torch.func.grad_and_value(torch.nn.functional.cross_entropy), dynamic=False)
        return lambda: both(self.x, self.y)[::-1]


class Jax(Peer):
    """JAX, jitted, on arrays that are on the device already; labels are int32, which it indexes faster."""

    name = "jax"
    library = jax

    def __init__(self, x, y, axis):
        super().__init__(jax.numpy.asarray(x), jax.numpy.asarray(y.astype(np.int32)), axis)

    def _jitted(self, function, *args):
        jitted = jax.jit(function)
        return lambda: jax.block_until_ready(jitted(*args))

    def softmax(self):
        return self._jitted(lambda x: jax.nn.softmax(x, self.axis), self.x)

    def log_softmax(self):
        return self._jitted(lambda x: jax.nn.log_softmax(x, self.axis), self.x)

    def logsumexp(self):
        return self._jitted(lambda x: jax.nn.logsumexp(x, self.axis), self.x)

    def _loss(self, x, y):
        # Through logsumexp: XLA makes faster code of it than of log_softmax.
        target = jax.numpy.take_along_axis(x, jax.numpy.expand_dims(y, self.axis), self.axis)
        return (jax.nn.logsumexp(x, self.axis) - target.squeeze(self.axis)).mean()

    def cross_entropy(self):
        return self._jitted(self._loss, self.x, self.y)

    def cross_entropy_value_and_grad(self):
        return self._jitted(jax.value_and_grad(self._loss), self.x, self.y)


def bound_call(operator, x, out, constants=None, **attributes):
    """Return a call of an ONNX Runtime model of one node, bound to x and out: nothing is copied."""
    helper, constants = onnx.helper, constants or {}
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    node = helper.make_node(operator, ["x", *constants], ["out"], **attributes)
    x_info, out_info = (
        helper.make_tensor_value_info(*i) for i in [("x", kind, x.shape), ("out", kind, out.shape)]
    )
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    # Opset 13 is the first whose Softmax works on one axis; format 10 is old enough for every runtime.
    model = helper.make_model(
        helper.make_graph([node], operator, [x_info], [out_info], weights),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=10,
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # an operator that it lacks is reported once, as our own exception
    options.intra_op_num_threads = THREADS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, kind, x.shape, x.ctypes.data)
    binding.bind_output("out", "cpu", 0, kind, out.shape, out.ctypes.data)

    def call(x=x):  # the model holds addresses only: keep the input alive
        session.run_with_iobinding(binding)
        return out

    return call


class OnnxRuntime(Peer):
    """ONNX Runtime: a model of one node, bound to the arrays themselves, so that nothing is copied."""

    name = "onnxruntime"
    library = onnxruntime and onnx

    def softmax(self):
        return bound_call("Softmax", self.x, np.empty_like(self.x), axis=self.axis)

    def log_softmax(self):
        return bound_call("LogSoftmax", self.x, np.empty_like(self.x), axis=self.axis)


PEERS = [Xent, XentInPlace, Torch, TorchCompiled, Jax, OnnxRuntime, SciPy, ScikitLearn, NumPy]


def method(peer, operator):
    """Return the method of an implementation that prepares an operator, or None."""
    return getattr(peer, re.sub(r"\W+", "_", operator), None)


def names(peers, operator):
    """Return the names of the implementations that have an operator."""
    return [peer.name for peer in peers if method(peer, operator)]


def prepare(peers, operator, data, chosen):
    """Return name -> call for the `chosen` names, and name -> reason for those that cannot do it here.

    `data` is what each implementation is made from. Each call has run once: a library may refuse a dtype, or
    fail to compile, only then.
    """
    calls, reasons = {}, {}
    for peer in peers:
        if peer.name not in chosen:
            continue
        if not peer.library:
            reasons[peer.name] = "not installed"
            continue
        try:
            call = method(peer(*data), operator)()
            call()
            calls[peer.name] = call
        except Exception as error:  # whatever a library raises is its reason
            reasons[peer.name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100]}"
    return calls, reasons
