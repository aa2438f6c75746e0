"""Losses of xent for PyTorch: tensors in and out, value and gradient from one pass, tensors on the CPU alone.

Names and order of what PyTorch has too are PyTorch's; what it has not is called as in xent, and means the
same. `import xent` does not import this module.

A call takes one of two ways. Plain tensors go through `_Eager`, an autograd.Function: the quickest that
PyTorch has. What traces or transforms (torch.compile, torch.export, torch.func, modes, subclasses of tensors)
goes through operators of torch.library, which it knows by their shapes. Both read tensors where they lie.
"""

import math

import numpy as np

import xent

from ._tokens import log_probs_grad

try:
    import torch  # type: ignore[import-not-found,unused-ignore]
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError('xent.torch needs PyTorch: pip install "xent-kernels[torch]"') from error

__all__ = [
    "CrossEntropyLoss",
    "LinearCrossEntropyLoss",
    "SigmoidCrossEntropyLoss",
    "cross_entropy",
    "distillation_loss",
    "linear_cross_entropy",
    "sigmoid_cross_entropy",
    "token_log_probs",
]

_PLAIN = {torch.Tensor, torch.nn.Parameter, type(None)}
_EMPTY = (0,)  # shape of a gradient that is not needed, where an operator has to return one


# ---- functions ----


def cross_entropy(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    dim: int | None = None,
    sample_weight: torch.Tensor | None = None,
    ignore_index: int | tuple[int, ...] = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    gamma: float = 0.0,
    temperature: float = 1.0,
    logit_cap: float | None = None,
    prior: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Cross-entropy of logits, as torch.nn.functional.cross_entropy, with the options of xent.cross_entropy.

    Unlike PyTorch's: losses of 16-bit logits are float32; a mean over nothing is 0 and not NaN; a label out
    of range is a ValueError; labels have any integer dtype; probability targets get no gradient. As in
    PyTorch, and unlike xent.cross_entropy, classes are along dimension 1 (0 for a single position) unless
    `dim` says where.

    Parameters
    ----------
    input : Tensor
        Logits (C,), (N, C) or (N, C, d1, ...): float64, float32, bfloat16 or float16.
    target : Tensor
        Labels, of the shape of `input` without its classes, or probabilities, of its shape.
    weight : Tensor, optional
        One factor per class.
    dim : int, optional
        Where the classes are: -1 for logits (batch, time, classes) of language models, which PyTorch's
        function wants transposed.
    sample_weight : Tensor, optional
        One factor per position.
    ignore_index, reduction, label_smoothing : optional
        As in PyTorch; `reduction` may be any of xent's.
    z_loss, gamma, temperature, logit_cap, prior : optional
        See `xent.cross_entropy`.

    Returns
    -------
    Tensor
        The loss. Value and gradient come from one pass where a gradient is needed, the value alone otherwise.
        It can be differentiated twice.

    Raises
    ------
    TypeError
        If an argument is no tensor, is not on the CPU, or records gradients that this loss does not give.
    ValueError
        As `xent.cross_entropy`, whose `logits` are `input`.

    Examples
    --------
    >>> import torch
    >>> import xent.torch
    >>> logits = torch.tensor([[2.0, 1.0, 0.0]], requires_grad=True)
    >>> loss = xent.torch.cross_entropy(logits, torch.tensor([0]))
    >>> loss.backward()
    >>> print(round(loss.item(), 4), logits.grad.numpy().round(4))
    0.4076 [[-0.3348  0.2447  0.09  ]]
    """
    tensors = input, target, weight, sample_weight, prior
    _check(_CROSS_ENTROPY, tensors)
    options = {
        "axis": (1 if input.dim() > 1 else 0) if dim is None else dim,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "z_loss": z_loss,
        "gamma": gamma,
        "temperature": temperature,
        "logit_cap": logit_cap,
        "reduction": reduction,
    }
    return _call(_CROSS_ENTROPY, tensors, options)


def linear_cross_entropy(
    input: torch.Tensor,
    linear_weight: torch.Tensor,
    target: torch.Tensor,
    *,
    linear_bias: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    sample_weight: torch.Tensor | None = None,
    ignore_index: int | tuple[int, ...] = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    gamma: float = 0.0,
    temperature: float = 1.0,
    logit_cap: float | None = None,
    prior: torch.Tensor | None = None,
    chunk_bytes: int | None = None,
) -> torch.Tensor:
    """
    Cross-entropy of a linear layer that never holds all logits: torch.nn.functional.linear_cross_entropy.

    Unlike PyTorch's, memory is bounded always, by `chunk_bytes` in place of its options; `input` may have any
    number of dimensions, (..., D), with a target (...), classes last; `linear_weight` is (C, D) and no more.
    What `cross_entropy` says of dtypes and labels holds here. In xent.linear_cross_entropy and its messages
    `input` is x, `linear_weight` weight, `linear_bias` bias, and `weight` class_weight.

    Parameters
    ----------
    input : Tensor
        (..., D).
    linear_weight : Tensor
        (C, D), with the same or another dtype.
    target : Tensor
        Labels (...) or probabilities (..., C).
    linear_bias : Tensor, optional
        (C,).
    weight : Tensor, optional
        One factor per class.
    sample_weight, ignore_index, reduction, label_smoothing, z_loss, gamma, temperature, logit_cap, prior :
    optional
        As in `cross_entropy`.
    chunk_bytes : int, optional
        Most extra memory. See `xent.linear_cross_entropy`.

    Returns
    -------
    Tensor
        The loss. Its gradients, of those of `input`, `linear_weight` and `linear_bias` that need one, are
        taken in the forward pass; with ``reduction="none"`` or float16, in the backward pass. There are no
        second derivatives.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> import xent.torch
    >>> hidden, head = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.eye(2, requires_grad=True)
    >>> loss = xent.torch.linear_cross_entropy(hidden, head, torch.tensor([0, 1]))
    >>> loss.backward()
    >>> print(round(loss.item(), 4), head.grad[0].numpy().round(4))
    0.2201 [-0.1345  0.1192]
    """
    tensors = input, linear_weight, linear_bias, target, weight, sample_weight, prior
    _check(_LINEAR, tensors)
    options = {
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "z_loss": z_loss,
        "gamma": gamma,
        "temperature": temperature,
        "logit_cap": logit_cap,
        "reduction": reduction,
        "chunk_bytes": chunk_bytes,
    }
    return _call(_LINEAR, tensors, options)


def sigmoid_cross_entropy(
    input: torch.Tensor,
    target: torch.Tensor,
    weight: torch.Tensor | None = None,
    *,
    pos_weight: torch.Tensor | None = None,
    ignore_index: int | tuple[int, ...] | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    gamma: float = 0.0,
    alpha: float | None = None,
) -> torch.Tensor:
    """
    Sigmoid cross-entropy of logits: torch.nn.functional.binary_cross_entropy_with_logits, and focal loss.

    Unlike PyTorch's: targets may be integers or bools; losses of 16-bit logits are float32; targets outside
    [0, 1] are a ValueError and get no gradient. With `gamma` and `alpha` it is torchvision's
    sigmoid_focal_loss, whose reduction is "none" by default.

    Parameters
    ----------
    input : Tensor
        Logits of any shape.
    target : Tensor
        Of the same shape: 0 or 1, or probabilities.
    weight, pos_weight : Tensor, optional
        Factors of elements, and of positive ones, of shapes that broadcast to that of `input`.
    ignore_index : int, optional
        Elements with this integer target count for nothing.
    reduction, label_smoothing, gamma, alpha : optional
        See `xent.sigmoid_cross_entropy`.

    Returns
    -------
    Tensor
        The loss. There are no second derivatives.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Examples
    --------
    >>> import torch
    >>> import xent.torch
    >>> print(xent.torch.sigmoid_cross_entropy(torch.tensor([20.0]), torch.tensor([1])))
    tensor(2.0612e-09)
    """
    tensors = input, target, weight, pos_weight
    _check(_SIGMOID, tensors)
    options = {
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "gamma": gamma,
        "alpha": alpha,
        "reduction": reduction,
    }
    return _call(_SIGMOID, tensors, options)


def distillation_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    *,
    dim: int | None = None,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> torch.Tensor:
    """
    Divergence of a student's softmax from a teacher's, both at a temperature T, times T squared.

    PyTorch has it in parts: ``T**2 * kl_div(log_softmax(student / T), softmax(teacher / T), "batchmean")``
    for matrices. "mean" is over positions, never over elements. Logits of more than two dimensions have their
    classes where `dim` says, which must be given: -1 for language models, 1 for images. The teacher gets no
    gradient.

    Parameters
    ----------
    student_logits, teacher_logits : Tensor
        Of the same shape.
    dim : int, optional
        Where the classes are; for one or two dimensions the last by default.
    temperature, reduction : optional
        See `xent.distillation_loss`.

    Returns
    -------
    Tensor
        The loss. There are no second derivatives.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`; also if `dim` is missing.

    Examples
    --------
    >>> import torch
    >>> import xent.torch
    >>> student, teacher = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 2.0, 4.0]])
    >>> print(xent.torch.distillation_loss(student, teacher, temperature=2.0))
    tensor(0.1207)
    """
    tensors = student_logits, teacher_logits
    _check(_DISTILLATION, tensors)
    if dim is None and student_logits.dim() > 2:
        raise ValueError("dim must say where the classes are: -1 for (batch, time, classes), 1 for images")
    options = {"axis": -1 if dim is None else dim, "temperature": temperature, "reduction": reduction}
    return _call(_DISTILLATION, tensors, options)


def token_log_probs(
    input: torch.Tensor,
    ids: torch.Tensor,
    *,
    dim: int = -1,
    temperature: float = 1.0,
    logit_cap: float | None = None,
    prior: torch.Tensor | None = None,
    ranks: bool = False,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    """
    Log-probabilities of some classes of each position, and their ranks, from one reading pass of the logits.

    PyTorch has it in parts: ``log_softmax(input, -1).gather(-1, ids)``, which holds all log-probabilities.
    Classes are along the last dimension unless `dim` says where.

    Parameters
    ----------
    input : Tensor
        Logits: float64, float32, bfloat16 or float16.
    ids : Tensor
        Classes, of any integer dtype: one for each position, in the shape of `input` without its classes; or
        K of them, in the shape of `input` with K in the place of the classes.
    dim : int, optional
        Where the classes are.
    temperature, logit_cap, prior, ranks : optional
        See `xent.token_log_probs`.

    Returns
    -------
    log_probs : Tensor
        Of the shape of `ids`: float64 for float64 logits, else float32. Their gradient by `input` is taken in
        the backward pass, from another pass over the logits. There are no second derivatives.
    places : Tensor of int64
        With `ranks` only: how many classes have a larger logit.

    Raises
    ------
    TypeError
        As `cross_entropy`.
    ValueError
        As `xent.token_log_probs`, whose `logits` are `input`.

    Examples
    --------
    >>> import torch
    >>> import xent.torch
    >>> logits = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    >>> log_probs, places = xent.torch.token_log_probs(logits, torch.tensor([[2, 0]]), ranks=True)
    >>> print(log_probs.detach().numpy().round(3), places)
    [[-0.408 -2.408]] tensor([[0, 2]])
    >>> log_probs.sum().backward()
    >>> print(logits.grad.numpy().round(3))
    [[ 0.82  -0.489 -0.33 ]]
    """
    tensors = input, ids, prior
    _check(_TOKENS, tensors)
    if type(ranks) is not bool:
        raise TypeError(f"ranks must be True or False, got {ranks!r}")
    args = *tensors, dim, temperature, logit_cap, ranks
    if _is_traced(tensors) or (input.requires_grad and torch.is_grad_enabled()):
        found = _TOKENS.op(*args)
    else:
        found = _TOKENS.compute(*args)
    return found if ranks else found[0]


# ---- modules ----


class _Module(torch.nn.Module):
    """A loss whose options are attributes, tensors among them buffers, which move and are saved with it."""

    def __init__(self, buffers, options):
        super().__init__()
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor)
        self._buffer_names, self._option_names = tuple(buffers), tuple(options)
        for name, value in options.items():
            setattr(self, name, value)

    def _keywords(self):
        return {name: getattr(self, name) for name in (*self._buffer_names, *self._option_names)}

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in self._option_names)


class CrossEntropyLoss(_Module):
    """
    `cross_entropy` as a module: torch.nn.CrossEntropyLoss, with more options and the same differences.

    Examples
    --------
    >>> import torch
    >>> import xent.torch
    >>> loss = xent.torch.CrossEntropyLoss(label_smoothing=0.1)
    >>> print(loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([0])))
    tensor(0.5076)
    """

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        *,
        dim: int | None = None,
        ignore_index: int | tuple[int, ...] = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        gamma: float = 0.0,
        temperature: float = 1.0,
        logit_cap: float | None = None,
        prior: torch.Tensor | None = None,
    ) -> None:
        options = {
            "dim": dim,
            "ignore_index": ignore_index,
            "reduction": reduction,
            "label_smoothing": label_smoothing,
            "z_loss": z_loss,
            "gamma": gamma,
            "temperature": temperature,
            "logit_cap": logit_cap,
        }
        super().__init__({"weight": weight, "prior": prior}, options)

    def forward(
        self, input: torch.Tensor, target: torch.Tensor, sample_weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        return cross_entropy(input, target, sample_weight=sample_weight, **self._keywords())


class LinearCrossEntropyLoss(_Module):
    """
    A head and its loss in one, `linear_cross_entropy`: torch.nn.LinearCrossEntropyLoss.

    The layer is ``loss.linear``, a torch.nn.Linear(in_features, num_classes), without a bias unless asked
    for, as in PyTorch, and named as there in a state_dict; ``loss.linear.weight = embedding.weight`` ties it.

    Examples
    --------
    >>> import torch
    >>> import xent.torch
    >>> loss = xent.torch.LinearCrossEntropyLoss(4, 10)
    >>> loss(torch.zeros(3, 4), torch.tensor([0, 1, 2])).backward()
    >>> loss.linear.weight.grad.shape
    torch.Size([10, 4])
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        weight: torch.Tensor | None = None,
        ignore_index: int | tuple[int, ...] = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
        gamma: float = 0.0,
        temperature: float = 1.0,
        logit_cap: float | None = None,
        prior: torch.Tensor | None = None,
        chunk_bytes: int | None = None,
    ) -> None:
        options = {
            "ignore_index": ignore_index,
            "reduction": reduction,
            "label_smoothing": label_smoothing,
            "z_loss": z_loss,
            "gamma": gamma,
            "temperature": temperature,
            "logit_cap": logit_cap,
            "chunk_bytes": chunk_bytes,
        }
        super().__init__({"weight": weight, "prior": prior}, options)
        self.linear = torch.nn.Linear(in_features, num_classes, bias=bias, device=device, dtype=dtype)

    def forward(
        self, input: torch.Tensor, target: torch.Tensor, sample_weight: torch.Tensor | None = None
    ) -> torch.Tensor:
        return linear_cross_entropy(
            input,
            self.linear.weight,
            target,
            linear_bias=self.linear.bias,
            sample_weight=sample_weight,
            **self._keywords(),
        )


class SigmoidCrossEntropyLoss(_Module):
    """
    `sigmoid_cross_entropy` as a module: torch.nn.BCEWithLogitsLoss, with the same differences.

    Examples
    --------
    >>> import torch
    >>> import xent.torch
    >>> loss = xent.torch.SigmoidCrossEntropyLoss(gamma=2.0, alpha=0.25)
    >>> print(loss(torch.tensor([0.0]), torch.tensor([1])))
    tensor(0.0433)
    """

    def __init__(
        self,
        weight: torch.Tensor | None = None,
        *,
        pos_weight: torch.Tensor | None = None,
        ignore_index: int | tuple[int, ...] | None = None,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        gamma: float = 0.0,
        alpha: float | None = None,
    ) -> None:
        options = {
            "ignore_index": ignore_index,
            "reduction": reduction,
            "label_smoothing": label_smoothing,
            "gamma": gamma,
            "alpha": alpha,
        }
        super().__init__({"weight": weight, "pos_weight": pos_weight}, options)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return sigmoid_cross_entropy(input, target, **self._keywords())


# ---- tensors and arrays ----


def _check(loss, tensors):
    """Raise for what is no tensor, is not on the CPU, or records gradients that would be lost."""
    recording = torch.is_grad_enabled()
    for k, tensor in enumerate(tensors):
        if tensor is None and loss.optional[k]:
            continue
        name = loss.given_as[k]
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(
                f"{name} must be a torch.Tensor, got {type(tensor).__name__}: xent without torch takes arrays"
            )
        if not tensor.is_cpu:
            raise TypeError(
                f"{name} is on device {tensor.device}, and xent computes on the CPU: give {name}.cpu()"
            )
        if recording and k >= loss.inputs and tensor.requires_grad:
            raise TypeError(f"{name} records gradients, which this loss does not give: give {name}.detach()")


def _array(tensor):
    """The memory of a tensor as an ndarray, or a copy with the right sign of one that is negated lazily."""
    if tensor.dtype is torch.bfloat16:
        return tensor.detach().resolve_neg().view(torch.int16).numpy().view(_bfloat16())
    return tensor.numpy(force=True)


def _tensor(array):
    """The memory of an ndarray, or a scalar of NumPy, as a tensor."""
    array = np.asarray(array)
    if array.dtype.kind == "V":  # bfloat16: its name takes microseconds
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _bfloat16():
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise ImportError(
            'bfloat16 in xent.torch needs ml_dtypes: pip install "xent-kernels[torch]"'
        ) from None
    return bfloat16


# ---- losses, as autograd sees them ----


class _Loss:
    """A loss of xent: its tensors, of which the first `inputs` have gradients, and how these are computed.

    `tensors` are pairs of names, PyTorch's (with a "?" if it may be left out) and xent's; `options` the types
    of the other arguments, in the language of schemas.
    """

    def __init__(self, name, inputs, tensors, options, second_order=False):
        self.name, self.inputs, self.options = name, inputs, options
        self.given_as = [given.rstrip("?") for given, _ in tensors]
        self.optional = [given.endswith("?") for given, _ in tensors]
        self.names = [own for _, own in tensors]
        self.value, self.both = getattr(xent, name), getattr(xent, f"{name}_value_and_grad")
        self.grad = getattr(xent, f"{name}_grad", None)
        self.hvp = getattr(xent, f"{name}_hvp") if second_order else None
        self.op = self.op_grad = self.op_hvp = None  # see _register

    def arguments(self, tensors, options):
        arrays = [None if tensor is None else _array(tensor) for tensor in tensors]
        return dict(zip(self.names, arrays, strict=True), **options)

    def value_and_grads(self, tensors, options, needs):
        """The loss and its gradients, None where not needed, from one pass."""
        given = self.arguments(tensors, options)
        if self.inputs > 1:
            value, grads = self.both(**given, needs=needs)
            return _tensor(value), [None if grad is None else _tensor(grad) for grad in grads]
        value, grad = self.both(**given)
        return _tensor(value), [_tensor(grad)]

    def grads(self, upstream, tensors, options, needs):
        """The gradients, with the upstream one in them before they are rounded."""
        given = self.arguments(tensors, options)
        given["grad_output"] = _array(upstream)
        if self.inputs > 1:
            return [None if grad is None else _tensor(grad) for grad in self.both(**given, needs=needs)[1]]
        return [_tensor(self.grad(**given))]

    def product(self, vector, tensors, options):
        """The Hessian of the sum of the losses times a vector."""
        return _tensor(self.hvp(**self.arguments(tensors, options), vector=_array(vector)))

    def is_deferred(self, tensors, options, needs):
        """Whether gradients wait for the upstream one.

        In float16 they could vanish before a loss scale reaches them. Those of a layer are sums over
        positions.
        """
        if self.inputs == 1:
            return needs[0] and tensors[0].dtype is torch.float16
        if options["reduction"] == "none":
            return True
        return any(need and t.dtype is torch.float16 for need, t in zip(needs, tensors, strict=False))

    def spread(self, upstream, options):
        """The upstream gradient in a shape that broadcasts to that of the input."""
        if options["reduction"] != "none" or "axis" not in options:
            return upstream
        return upstream.unsqueeze(options["axis"])

    def no_second_order(self):
        return NotImplementedError(f"xent.torch.{self.name} has no second derivatives")


def _call(loss, tensors, options):
    """The loss of tensors that were checked."""
    if _is_traced(tensors):
        return _traced(loss, tensors, options)
    if torch.is_grad_enabled():
        tensors = [None if tensor is None else _unwrapped(tensor) for tensor in tensors]
        needs = [tensor is not None and tensor.requires_grad for tensor in tensors[: loss.inputs]]
        if True in needs:
            return _apply_eager((loss, options, needs), *tensors)
    return _tensor(loss.value(**loss.arguments(tensors, options)))


def _is_traced(tensors):
    """Whether a call has to be an operator: it is traced or transformed, or tensors are not plain ones."""
    return torch.compiler.is_compiling() or _is_transformed() or not _are_plain(tensors)


def _is_transformed():
    """Whether a transform of torch.func or a mode is active, for which a call has to be an operator."""
    return torch._C._are_functorch_transforms_active() or torch._C._len_torch_dispatch_stack() > 0


def _are_plain(tensors):
    return _PLAIN.issuperset(map(type, tensors))


class _Eager(torch.autograd.Function):
    """One pass for value and gradients. The first backward pass takes these; another computes them again."""

    @staticmethod
    def forward(ctx, call, *tensors):
        ctx.call = loss, options, needs = call
        ctx.save_for_backward(*tensors)
        if loss.is_deferred(tensors, options, needs):
            return _tensor(loss.value(**loss.arguments(tensors, options)))
        value, ctx.gradients = loss.value_and_grads(tensors, options, needs)
        return value

    @staticmethod
    def backward(ctx, upstream):
        loss, options, needs = ctx.call
        if torch._C._functorch.is_legacy_batchedtensor(upstream):  # is_grads_batched, vectorize
            raise NotImplementedError(
                f"xent.torch.{loss.name} takes upstream gradients in batches by torch.func alone"
            )
        if torch._C._are_functorch_transforms_active():
            grads = loss.op_grad(upstream, *ctx.saved_tensors, *_packed(options), needs)
            grads = grads if loss.inputs > 1 else [grads]
            grads = [grad if need else None for grad, need in zip(grads, needs, strict=True)]
        elif torch.is_grad_enabled():  # create_graph=True
            grads = _Gradients.apply(loss, options, needs, upstream, *ctx.saved_tensors)
            grads = grads if loss.inputs > 1 else [grads]
        else:
            grads = _scaled(ctx.__dict__.pop("gradients", None), upstream, loss, options)
            if grads is None:
                grads = loss.grads(upstream, ctx.saved_tensors, options, needs)
        return None, *grads, *[None] * (len(loss.names) - loss.inputs)


# Function.apply asks what is known here already, for two microseconds, and unwraps tensors of transforms that
# are over, as _call does
_apply_eager = super(torch.autograd.Function, _Eager).apply
_unwrapped = torch._C._functorch.unwrap_if_dead


def _scaled(grads, upstream, loss, options):
    """The gradients times the upstream one, in place, as nobody else has them; None: compute them."""
    if upstream.dim() and upstream.numel() and not any(upstream.stride()):  # one number, as of loss.sum()
        upstream = upstream[(0,) * upstream.dim()]
    total = upstream.item() if upstream.dim() == 0 else upstream.sum().item()
    # an infinite factor must not reach what is ignored: 0 * inf
    if grads is None or not math.isfinite(total):
        return None
    if upstream.dim() or total != 1.0:
        factor = loss.spread(upstream, options) if upstream.dim() else upstream
        for grad in grads:
            if grad is not None:
                grad.mul_(factor)
    return grads


class _Gradients(torch.autograd.Function):
    """The gradients as a function of the upstream one and the tensors: for a graph of the backward pass."""

    @staticmethod
    def forward(ctx, loss, options, needs, upstream, *tensors):
        ctx.loss, ctx.options = loss, options
        ctx.save_for_backward(upstream, *tensors)
        grads = loss.grads(upstream, tensors, options, needs)
        return tuple(grads) if loss.inputs > 1 else grads[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *vectors):
        loss, options, (upstream, *tensors) = ctx.loss, ctx.options, ctx.saved_tensors
        if loss.hvp is None:
            raise loss.no_second_order()
        vector, by_upstream, by_input = vectors[0], None, None
        if ctx.needs_input_grad[3]:
            grad = loss.grads(torch.ones_like(upstream), tensors, options, [True])[0]
            by_upstream = _summed(vector * grad, upstream, options)
        if ctx.needs_input_grad[4]:
            by_input = loss.product(vector * loss.spread(upstream, options), tensors, options)
        return None, None, None, by_upstream, by_input, *[None] * (len(tensors) - 1)


def _summed(products, upstream, options):
    """Sums over what each entry of the upstream gradient was spread to."""
    if upstream.dim() == 0:
        return products.sum().to(upstream.dtype)
    return products.sum(dim=options["axis"]).to(upstream.dtype)


# ---- operators ----


def _traced(loss, tensors, options):
    """The loss through operators of torch.library."""
    needs = [t is not None and t.requires_grad for t in tensors[: loss.inputs]]
    # within a vmap a tensor does not know that a grad around it asks for its gradient
    if not torch.compiler.is_compiling():
        needs = [t is not None and t.is_floating_point() for t in tensors[: loss.inputs]]
    if not torch.is_grad_enabled() or loss.is_deferred(tensors, options, needs):
        needs = [False] * loss.inputs
    return loss.op(*tensors, *_packed(options), needs)[0]


def _packed(options):
    """The options as the schemas have them."""
    return [[v] if name == "ignore_index" and isinstance(v, int) else v for name, v in options.items()]


def _register(loss):
    """Make the operators of a loss: value and gradients; deferred gradients; Hessian-vector product."""
    given = ", ".join(
        f"Tensor{'?' if optional else ''} {name}"
        for name, optional in zip(loss.given_as, loss.optional, strict=True)
    )
    given += "".join(f", {kind} {name}" for name, kind in loss.options.items())
    grads = ", ".join(["Tensor"] * loss.inputs)
    count = len(loss.names)

    def split(args):
        options = dict(zip(loss.options, args[count : count + len(loss.options)], strict=True))
        ignored = options.get("ignore_index")
        if ignored is not None:
            options["ignore_index"] = ignored[0] if len(ignored) == 1 else tuple(ignored)
        return args[:count], options

    def filled(grads, tensors, needs):
        """The gradients as `shapes` promises them."""
        return [
            torch.empty(_EMPTY) if not need else _laid_out(grad, t, loss.inputs > 1)
            for grad, t, need in zip(grads, tensors, needs, strict=False)
        ]

    def shapes(tensors, needs):
        return [
            torch.empty(_EMPTY) if not need else _room(t, loss.inputs > 1)
            for t, need in zip(tensors, needs, strict=False)
        ]

    def forward(*args):
        (tensors, options), needs = split(args), args[-1]
        if not any(needs):
            value = _tensor(loss.value(**loss.arguments(tensors, options)))
            return value, *filled(needs, tensors, needs)
        value, grads = loss.value_and_grads(tensors, options, tuple(needs))
        return value, *filled(grads, tensors, needs)

    def fake_forward(*args):
        (tensors, options), needs = split(args), args[-1]
        return _value_room(loss, tensors, options), *shapes(tensors, needs)

    def setup(ctx, inputs, output):
        ctx.given, ctx.computed = inputs[count:-1], inputs[-1]
        ctx.needs = list(ctx.needs_input_grad[: loss.inputs])
        ctx.save_for_backward(*inputs[:count], *output[1:])
        ctx.set_materialize_grads(False)
        if loss.hvp is None:
            ctx.mark_non_differentiable(*output[1:])

    def backward(ctx, upstream, *vectors):
        tensors, grads = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        _, options = split((*tensors, *ctx.given))
        result = [None] * (len(ctx.given) + count + 1)
        if upstream is not None:
            if any(ctx.computed):
                factor = loss.spread(upstream, options)
                grads = [(grad * factor).to(grad.dtype) for grad in grads]
                if loss.hvp is None and torch.is_grad_enabled():
                    grads = [_FirstOrder.apply(loss, grad, tensors[0]) for grad in grads]
            else:
                grads = loss.op_grad(upstream, *tensors, *ctx.given, ctx.needs)
                grads = grads if loss.inputs > 1 else [grads]
            for k in range(loss.inputs):
                result[k] = grads[k] if ctx.needs[k] else None
        if any(vector is not None for vector in vectors):
            product = loss.op_hvp(vectors[0], *tensors, *ctx.given)
            result[0] = product if result[0] is None else result[0] + product
        return tuple(result)

    def gradients(upstream, *args):
        (tensors, options), needs = split(args), args[-1]
        grads = filled(loss.grads(upstream, tensors, options, tuple(needs)), tensors, needs)
        return tuple(grads) if loss.inputs > 1 else grads[0]

    def fake_gradients(upstream, *args):
        grads = shapes(args[:count], args[-1])
        return tuple(grads) if loss.inputs > 1 else grads[0]

    def product(vector, *args):
        tensors, options = split(args)
        return _laid_out(loss.product(vector, tensors, options), tensors[0], False)

    def no_further(ctx, *vectors):
        if loss.hvp is None:
            raise loss.no_second_order()
        raise NotImplementedError(
            f"xent.torch.{loss.name} has no third derivatives here, nor second ones of float16 or of a batch"
        )

    schema = f"({given}, bool[] needs) -> (Tensor, {grads})"
    loss.op = _Operator(loss.name, schema, forward, fake_forward, backward, setup)
    schema = f"(Tensor upstream, {given}, bool[] needs) -> ({grads})"
    loss.op_grad = _Operator(f"{loss.name}_grad", schema, gradients, fake_gradients, no_further)
    if loss.hvp is not None:
        schema = f"(Tensor vector, {given}) -> Tensor"
        name = f"{loss.name}_hvp"
        loss.op_hvp = _Operator(
            name, schema, product, lambda vector, *args: _room(args[0], False), no_further
        )


class _FirstOrder(torch.autograd.Function):
    """A gradient that cannot be differentiated again: else its derivative would be 0 without a word."""

    generate_vmap_rule = True

    @staticmethod
    def forward(loss, grad, input):
        return grad.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.loss = inputs[0]

    @staticmethod
    def backward(ctx, *vectors):
        raise ctx.loss.no_second_order()


class _Operator:
    """An operator of torch.library, and an autograd.Function of the same formulas for torch.func."""

    def __init__(self, name, schema, compute, fake, backward, setup=lambda ctx, inputs, output: None):
        self.op = torch.library.custom_op(
            f"xent::{name}", compute, mutates_args=(), device_types="cpu", schema=schema
        )
        self.op.register_fake(fake)
        self.op.register_autograd(backward, setup_context=setup)
        self.op.register_vmap(_looped(self.op))
        methods = {"forward": compute, "setup_context": setup, "backward": backward}
        methods["vmap"] = _looped(self)
        self.function = type(
            name, (torch.autograd.Function,), {k: staticmethod(m) for k, m in methods.items()}
        )

    def __call__(self, *args):
        if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
            return self.function.apply(*args)
        return self.op(*args)


def _room(tensor, in_order, device=None):
    """A tensor for the gradient by this one: in C order, or laid out like it."""
    layout = torch.contiguous_format if in_order else torch.preserve_format
    return torch.empty_like(tensor, memory_format=layout, device=device, requires_grad=False)


def _laid_out(grad, tensor, in_order):
    """The gradient in the layout of `_room`, in which most are already."""
    if grad.stride() == _room(tensor, in_order, "meta").stride():
        return grad
    return _room(tensor, in_order).copy_(grad)


def _value_room(loss, tensors, options):
    """A tensor for the value."""
    x, wide = tensors[0], {torch.float16, torch.bfloat16, torch.float32}
    layer = [t for t in tensors[: loss.inputs] if t is not None]
    dtype = torch.float32 if all(t.dtype in wide for t in layer) else torch.float64
    shape = []
    if options["reduction"] == "none":
        shape = list(x.shape)
        if loss.inputs > 1 or "axis" in options:
            del shape[options.get("axis", -1)]
    return torch.empty(shape, dtype=dtype, device=x.device)


def _looped(op):
    """The rule of torch.func.vmap: a call for each entry of the batch, with its own mean."""

    def rule(info, in_dims, *args):
        results = []
        for k in range(info.batch_size):
            pairs = zip(args, in_dims, strict=True)
            results.append(op(*[a.select(d, k) if isinstance(d, int) else a for a, d in pairs]))
        if isinstance(results[0], torch.Tensor):
            return torch.stack(results), 0
        return tuple(map(torch.stack, zip(*results, strict=True))), (0,) * len(results[0])

    return rule


_TERMS = {
    "ignore_index": "int[]",
    "label_smoothing": "float",
    "z_loss": "float",
    "gamma": "float",
    "temperature": "float",
    "logit_cap": "float?",
    "reduction": "str",
}
_CROSS_ENTROPY = _Loss(
    "cross_entropy",
    1,
    [
        ("input", "logits"),
        ("target", "target"),
        ("weight?", "weight"),
        ("sample_weight?", "sample_weight"),
        ("prior?", "prior"),
    ],
    {"axis": "int", **_TERMS},
    second_order=True,
)
_LINEAR = _Loss(
    "linear_cross_entropy",
    3,
    [
        ("input", "x"),
        ("linear_weight", "weight"),
        ("linear_bias?", "bias"),
        ("target", "target"),
        ("weight?", "class_weight"),
        ("sample_weight?", "sample_weight"),
        ("prior?", "prior"),
    ],
    {**_TERMS, "chunk_bytes": "int?"},
)
_SIGMOID = _Loss(
    "sigmoid_cross_entropy",
    1,
    [("input", "logits"), ("target", "target"), ("weight?", "weight"), ("pos_weight?", "pos_weight")],
    {
        "ignore_index": "int[]?",
        "label_smoothing": "float",
        "gamma": "float",
        "alpha": "float?",
        "reduction": "str",
    },
)
_DISTILLATION = _Loss(
    "distillation_loss",
    1,
    [("student_logits", "student_logits"), ("teacher_logits", "teacher_logits")],
    {"axis": "int", "temperature": "float", "reduction": "str"},
)


class _Tokens:
    """`token_log_probs` as operators. What it returns is no loss: there is no reduction, and no one pass
    for value and gradient, as one position may have several upstream gradients."""

    name, inputs = "token_log_probs", 1
    given_as, optional = ["input", "ids", "prior"], [False, False, True]

    def __init__(self):
        given = "Tensor input, Tensor ids, Tensor? prior, int dim, float temperature, float? logit_cap"
        self.op = _Operator(
            self.name,
            f"({given}, bool ranks) -> (Tensor, Tensor)",
            self.compute,
            self.room,
            self.backward,
            self.setup,
        )
        self.op_grad = _Operator(
            f"{self.name}_grad",
            f"(Tensor upstream, {given}) -> Tensor",
            self.gradient,
            lambda upstream, input, *args: _room(input, False),
            self.no_second_order,
        )

    @staticmethod
    def compute(input, ids, prior, dim, temperature, logit_cap, ranks):
        given = {"axis": dim, "temperature": temperature, "logit_cap": logit_cap, "ranks": ranks}
        given["prior"] = None if prior is None else _array(prior)
        found = xent.token_log_probs(_array(input), _array(ids), **given)
        log_probs, places = found if ranks else (found, np.empty(_EMPTY, np.int64))
        return _tensor(log_probs), _tensor(places)

    @staticmethod
    def room(input, ids, prior, dim, temperature, logit_cap, ranks):
        dtype = torch.float64 if input.dtype is torch.float64 else torch.float32
        places = torch.empty(ids.shape if ranks else _EMPTY, dtype=torch.int64, device=input.device)
        return torch.empty(ids.shape, dtype=dtype, device=input.device), places

    @staticmethod
    def gradient(upstream, input, ids, prior, dim, temperature, logit_cap):
        given = {"axis": dim, "temperature": temperature, "logit_cap": logit_cap}
        given["prior"] = None if prior is None else _array(prior)
        grad = log_probs_grad(_array(input), _array(ids), _array(upstream), **given)
        return _laid_out(_tensor(grad), input, False)

    @staticmethod
    def setup(ctx, inputs, output):
        ctx.options = inputs[3:6]
        ctx.save_for_backward(*inputs[:3])
        ctx.mark_non_differentiable(output[1])

    def backward(self, ctx, upstream, _):
        return self.op_grad(upstream, *ctx.saved_tensors, *ctx.options), *[None] * 6

    def no_second_order(self, ctx, *vectors):
        raise NotImplementedError(f"xent.torch.{self.name} has no second derivatives")


_TOKENS = _Tokens()
for _loss in (_CROSS_ENTROPY, _LINEAR, _SIGMOID, _DISTILLATION):
    _register(_loss)
