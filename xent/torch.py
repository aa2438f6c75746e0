"""Losses of xent for PyTorch: tensors in and out, value and gradient from one pass, tensors on the CPU alone.

Names and order of what PyTorch has too are PyTorch's; what it has not is called as in xent, and means the
same. `import xent` does not import this module.

Here are the public functions and modules. How they compute and are differentiated: `_torch_losses`.
"""

from ._docs import documented

try:
    import torch  # type: ignore[import-not-found,unused-ignore]
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError('xent.torch needs PyTorch: pip install "xent-kernels[torch]"') from error

from . import _torch_losses as _losses
from ._torch_operators import TOKENS as _TOKENS
from ._torch_tensors import check as _check
from ._torch_tensors import is_traced as _is_traced

__all__ = [
    "CrossEntropyLoss",
    "LinearCrossEntropyLoss",
    "SigmoidCrossEntropyLoss",
    "cross_entropy",
    "distillation_loss",
    "linear_cross_entropy",
    "sigmoid_cross_entropy",
    "sparse_distillation_loss",
    "token_log_probs",
]


# ---- functions ----


@documented
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
    input : Tensor of float
        Logits (C,), (N, C) or (N, C, d1, ...): float64, float32, bfloat16 or float16.
    <target>
    <weight of classes>
    dim : int, optional
        Where the classes are: -1 for logits (batch, time, classes) of language models, which PyTorch's
        function wants transposed.
    <sample_weight>
    <ignore_index>
    <reduction of cross_entropy>
    <label_smoothing>
    <z_loss>
    <gamma>
    <temperature>
    <logit_cap>
    <prior>

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
    _check(_losses.CROSS_ENTROPY, tensors)
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
    return _losses.call(_losses.CROSS_ENTROPY, tensors, options)


@documented
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
    input : Tensor of float, shape (..., D)
        What goes into the layer: D features for each position.
    linear_weight : Tensor of float, shape (C, D)
        The weights of the layer, with the same or another dtype.
    <target of a layer>
    linear_bias : Tensor of float, shape (C,), optional
        Added to ``input @ linear_weight.T``.
    <weight of classes>
    <options of a layer>
    <chunk_bytes>

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
    _check(_losses.LINEAR, tensors)
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
    return _losses.call(_losses.LINEAR, tensors, options)


@documented
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
    input : Tensor of float
        Logits of any shape: float64, float32, bfloat16 or float16.
    <target of sigmoid_cross_entropy>
    <weight of elements>
    <pos_weight>
    <ignore_index of elements>
    <reduction of sigmoid_cross_entropy>
    <label_smoothing of elements>
    <gamma of elements>
    <alpha>

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
    _check(_losses.SIGMOID, tensors)
    options = {
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "gamma": gamma,
        "alpha": alpha,
        "reduction": reduction,
    }
    return _losses.call(_losses.SIGMOID, tensors, options)


@documented
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
    <student_logits>
    <teacher_logits>
    dim : int, optional
        Where the classes are; for one or two dimensions the last by default.
    <temperature>
    <reduction of positions>

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
    _check(_losses.DISTILLATION, tensors)
    if dim is None and student_logits.dim() > 2:
        raise ValueError("dim must say where the classes are: -1 for (batch, time, classes), 1 for images")
    options = {"axis": -1 if dim is None else dim, "temperature": temperature, "reduction": reduction}
    return _losses.call(_losses.DISTILLATION, tensors, options)


@documented
def sparse_distillation_loss(
    student_logits: torch.Tensor,
    teacher_ids: torch.Tensor,
    teacher_log_probs: torch.Tensor,
    *,
    temperature: float = 1.0,
    tail: str = "bucket",
    sample_weight: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """
    Divergence of a student's softmax from the k largest probabilities of a teacher.

    PyTorch has it in parts, of which the first holds all log-probabilities: for `tail="drop"`,
    ``F.kl_div(log_softmax(student_logits, -1).gather(-1, teacher_ids), teacher_log_probs, log_target=True)``
    with a sum over the k. Classes are along the last dimension. The teacher gets no gradient.

    Parameters
    ----------
    <student_logits of sparse>
    <teacher_ids>
    <teacher_log_probs>
    <temperature of sparse>
    <tail>
    <sample_weight of any sign>
    <reduction of positions>

    Returns
    -------
    Tensor
        The loss. There are no second derivatives.

    Raises
    ------
    TypeError
        As `cross_entropy`.
    ValueError
        As `xent.sparse_distillation_loss`.

    Examples
    --------
    >>> import torch
    >>> import xent.torch
    >>> student = torch.tensor([[2.0, 1.0, 0.0, 0.0]], requires_grad=True)
    >>> ids, log_probs = torch.tensor([[1, 0]]), torch.tensor([[0.6, 0.3]]).log()
    >>> loss = xent.torch.sparse_distillation_loss(student, ids, log_probs)
    >>> loss.backward()
    >>> print(round(loss.item(), 4), student.grad.numpy().round(3))
    0.3266 [[ 0.31  -0.375  0.033  0.033]]
    """
    tensors = student_logits, teacher_ids, teacher_log_probs, sample_weight
    _check(_losses.SPARSE_DISTILLATION, tensors)
    options = {"temperature": temperature, "tail": tail, "reduction": reduction}
    return _losses.call(_losses.SPARSE_DISTILLATION, tensors, options)


@documented
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
    input : Tensor of float
        Logits: float64, float32, bfloat16 or float16.
    <ids>
    dim : int, optional
        Where the classes are.
    <temperature>
    <logit_cap>
    <prior>
    <ranks>

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
        found = _TOKENS.value(*args)
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
