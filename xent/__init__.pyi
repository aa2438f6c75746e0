"""Types of the public functions; their docstrings are in the modules."""

from contextlib import AbstractContextManager
from typing import Literal, Protocol, TypeAlias, TypedDict, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import reference as reference
from ._evaluation import Comparison as Comparison
from ._evaluation import Evaluation as Evaluation
from ._evaluation import SequenceEvaluation as SequenceEvaluation
from ._prepared import PreparedWeight as PreparedWeight

__all__ = [
    "Comparison", "Evaluation", "PreparedWeight", "SequenceEvaluation", "__version__", "avg_pool2d",
    "avg_pool2d_backward", "compare", "evaluate_sequences",
    "binary_cross_entropy", "binary_cross_entropy_grad", "binary_cross_entropy_value_and_grad",
    "col2im", "conv1d", "conv1d_backward", "conv2d", "conv2d_backward", "conv_transpose2d",
    "conv_transpose2d_backward", "cross_entropy", "cross_entropy_grad", "cross_entropy_grad_hess",
    "cross_entropy_hvp", "cross_entropy_probs", "cross_entropy_probs_grad",
    "cross_entropy_probs_value_and_grad", "cross_entropy_value_and_grad", "distillation_loss",
    "distillation_loss_grad", "distillation_loss_value_and_grad", "entropy", "evaluate",
    "get_num_threads", "im2col", "kl_div", "kl_div_grad", "kl_div_value_and_grad",
    "linear_cross_entropy", "linear_cross_entropy_value_and_grad", "linear_token_log_probs", "log_sigmoid",
    "log_sigmoid_backward", "log_softmax", "log_softmax_backward", "logsumexp", "logsumexp_backward",
    "max_pool2d", "max_pool2d_backward", "mse_loss", "mse_loss_grad", "mse_loss_value_and_grad", "nce_loss",
    "nce_loss_value_and_grad", "nll_loss",
    "nll_loss_grad", "nll_loss_value_and_grad", "num_threads", "prepare_conv2d", "reference",
    "sampled_softmax_cross_entropy", "sampled_softmax_cross_entropy_value_and_grad", "set_num_threads",
    "set_result_cache", "show_config", "sigmoid", "sigmoid_backward", "sigmoid_cross_entropy",
    "sigmoid_cross_entropy_grad", "sigmoid_cross_entropy_grad_hess",
    "sigmoid_cross_entropy_value_and_grad", "softmax", "softmax_backward", "softmax_jacobian",
    "sparse_distillation_loss", "sparse_distillation_loss_grad", "sparse_distillation_loss_value_and_grad",
    "token_log_probs",
]  # fmt: skip
__version__: str

class _Exports(Protocol):
    """What exports its memory through DLPack."""

    def __dlpack__(self) -> object: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class _Config(TypedDict):
    version: str
    path: str
    python: str
    platform: str
    processor: str
    processors: int
    cpu_quota: float | None
    numpy: str
    blas: str
    compiler: str
    flags: str
    isa: str
    isa_built: list[str]
    isa_usable: list[str]
    openmp: bool
    result_cache: int
    cache_held: int
    scratch_held: int
    openmp_runtimes: list[str] | None
    threads: int
    thread_limit: int
    environment: dict[str, str]

# Of bfloat16, which is no type of NumPy's, results are called float16. One position alone, of logits of shape
# (C,), has a scalar loss where the types say that there is an array of losses.
_Float: TypeAlias = np.float64 | np.float32 | np.float16
_Array: TypeAlias = NDArray[_Float]
_Loss: TypeAlias = np.float64 | np.float32
_Losses: TypeAlias = NDArray[_Loss]
_Ranks: TypeAlias = NDArray[np.int64]
_Places: TypeAlias = NDArray[np.uint8 | np.uint16 | np.int32]

_Data: TypeAlias = ArrayLike | _Exports
_Number: TypeAlias = float | _Float
_Out: TypeAlias = NDArray[np.generic]
_Ints: TypeAlias = int | tuple[int, int]
_Axes: TypeAlias = int | tuple[int, ...] | None
_Labels: TypeAlias = int | tuple[int, ...]
_Padding: TypeAlias = _Ints | tuple[tuple[int, int], tuple[int, int]] | Literal["valid", "same"]
_Tail: TypeAlias = Literal["bucket", "renormalize", "drop"]
_Reduced: TypeAlias = Literal["sum", "mean", "mean_valid", "mean_full", "mean_batch"]
_Reduction: TypeAlias = Literal["none", "sum", "mean", "mean_valid", "mean_full", "mean_batch"]

_LayerGradients: TypeAlias = tuple[_Array, _Array, _Array | None]  # by x, weight and bias
_Gradients: TypeAlias = tuple[_Array | None, _Array | None, _Array | None]  # None where not needed
_AllGradients: TypeAlias = tuple[_Array, _Array, _Array]
_All: TypeAlias = tuple[Literal[True], Literal[True], Literal[True]]
_Outs: TypeAlias = tuple[_Out | None, _Out | None, _Out | None]

def softmax(x: _Data, axis: _Axes = -1, *, temperature: float = 1.0, out: _Out | None = None) -> _Array: ...
def log_softmax(
    x: _Data, axis: _Axes = -1, *, temperature: float = 1.0, out: _Out | None = None
) -> _Array: ...
@overload
def logsumexp(
    x: _Data, axis: None, *, b: _Data | None = None, keepdims: Literal[False] = False,
    return_sign: Literal[False] = False, out: _Out | None = None,
) -> _Loss: ...  # fmt: skip
@overload
def logsumexp(
    x: _Data, axis: None, *, b: _Data | None = None, keepdims: Literal[True],
    return_sign: Literal[False] = False, out: _Out | None = None,
) -> _Losses: ...  # fmt: skip
@overload
def logsumexp(
    x: _Data, axis: int | tuple[int, ...] = -1, *, b: _Data | None = None, keepdims: bool = False,
    return_sign: Literal[False] = False, out: _Out | None = None,
) -> _Losses: ...  # fmt: skip
@overload
def logsumexp(
    x: _Data, axis: None, *, b: _Data | None = None, keepdims: Literal[False] = False,
    return_sign: Literal[True], out: _Out | None = None,
) -> tuple[_Loss, _Loss]: ...  # fmt: skip
@overload
def logsumexp(
    x: _Data, axis: None, *, b: _Data | None = None, keepdims: Literal[True],
    return_sign: Literal[True], out: _Out | None = None,
) -> tuple[_Losses, _Losses]: ...  # fmt: skip
@overload
def logsumexp(
    x: _Data, axis: int | tuple[int, ...] = -1, *, b: _Data | None = None, keepdims: bool = False,
    return_sign: Literal[True], out: _Out | None = None,
) -> tuple[_Losses, _Losses]: ...  # fmt: skip
def logsumexp_backward(
    grad: _Data, x: _Data, y: _Data, axis: _Axes = -1, *, out: _Out | None = None
) -> _Array: ...
def softmax_backward(grad: _Data, y: _Data, axis: _Axes = -1, *, out: _Out | None = None) -> _Array: ...
def log_softmax_backward(grad: _Data, y: _Data, axis: _Axes = -1, *, out: _Out | None = None) -> _Array: ...
def softmax_jacobian(y: _Data, axis: _Axes = -1) -> _Array: ...
@overload
def token_log_probs(
    logits: _Data, ids: _Data, *, axis: int = -1, temperature: float = 1.0, logit_cap: float | None = None,
    prior: _Data | None = None, ranks: Literal[False] = False,
) -> _Losses: ...  # fmt: skip
@overload
def token_log_probs(
    logits: _Data, ids: _Data, *, axis: int = -1, temperature: float = 1.0, logit_cap: float | None = None,
    prior: _Data | None = None, ranks: Literal[True],
) -> tuple[_Losses, _Ranks]: ...  # fmt: skip
@overload
def sigmoid(x: _Number, *, out: _Out | None = None) -> _Float: ...
@overload
def sigmoid(x: _Data, *, out: _Out | None = None) -> _Array: ...
@overload
def log_sigmoid(x: _Number, *, out: _Out | None = None) -> _Float: ...
@overload
def log_sigmoid(x: _Data, *, out: _Out | None = None) -> _Array: ...
@overload
def sigmoid_backward(grad: _Number, y: _Number, *, out: _Out | None = None) -> _Float: ...
@overload
def sigmoid_backward(grad: _Data, y: _Data, *, out: _Out | None = None) -> _Array: ...
@overload
def log_sigmoid_backward(grad: _Number, y: _Number, *, out: _Out | None = None) -> _Float: ...
@overload
def log_sigmoid_backward(grad: _Data, y: _Data, *, out: _Out | None = None) -> _Array: ...
@overload
def sigmoid_cross_entropy(
    logits: _Data, target: _Data, *, weight: _Data | None = None, pos_weight: _Data | None = None,
    label_smoothing: float = 0.0, gamma: float = 0.0, alpha: float | None = None,
    ignore_index: int | None = None, reduction: Literal["none"],
) -> _Losses: ...  # fmt: skip
@overload
def sigmoid_cross_entropy(
    logits: _Data, target: _Data, *, weight: _Data | None = None, pos_weight: _Data | None = None,
    label_smoothing: float = 0.0, gamma: float = 0.0, alpha: float | None = None,
    ignore_index: int | None = None, reduction: _Reduced = "mean",
) -> _Loss: ...  # fmt: skip
def sigmoid_cross_entropy_grad(
    logits: _Data, target: _Data, *, grad_output: _Data | None = None, out: _Out | None = None,
    weight: _Data | None = None, pos_weight: _Data | None = None, label_smoothing: float = 0.0,
    gamma: float = 0.0, alpha: float | None = None, ignore_index: int | None = None,
    reduction: _Reduction = "mean",
) -> _Array: ...  # fmt: skip
def sigmoid_cross_entropy_grad_hess(
    logits: _Data, target: _Data, *, hessian: Literal["diagonal", "gauss_newton", "absolute"] = "diagonal",
    out: tuple[_Out | None, _Out | None] | None = None, weight: _Data | None = None,
    pos_weight: _Data | None = None, label_smoothing: float = 0.0, gamma: float = 0.0,
    alpha: float | None = None, ignore_index: int | None = None, reduction: _Reduction = "mean",
) -> tuple[_Array, _Array]: ...  # fmt: skip
@overload
def sigmoid_cross_entropy_value_and_grad(
    logits: _Data, target: _Data, *, out: _Out | None = None, weight: _Data | None = None,
    pos_weight: _Data | None = None, label_smoothing: float = 0.0, gamma: float = 0.0,
    alpha: float | None = None, ignore_index: int | None = None, reduction: Literal["none"],
) -> tuple[_Losses, _Array]: ...  # fmt: skip
@overload
def sigmoid_cross_entropy_value_and_grad(
    logits: _Data, target: _Data, *, out: _Out | None = None, weight: _Data | None = None,
    pos_weight: _Data | None = None, label_smoothing: float = 0.0, gamma: float = 0.0,
    alpha: float | None = None, ignore_index: int | None = None, reduction: _Reduced = "mean",
) -> tuple[_Loss, _Array]: ...  # fmt: skip
@overload
def cross_entropy(
    logits: _Data, target: _Data, *, axis: int = -1, weight: _Data | None = None,
    sample_weight: _Data | None = None, ignore_index: _Labels = -100, label_smoothing: float = 0.0,
    z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0, logit_cap: float | None = None,
    prior: _Data | None = None, reduction: Literal["none"],
) -> _Losses: ...  # fmt: skip
@overload
def cross_entropy(
    logits: _Data, target: _Data, *, axis: int = -1, weight: _Data | None = None,
    sample_weight: _Data | None = None, ignore_index: _Labels = -100, label_smoothing: float = 0.0,
    z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0, logit_cap: float | None = None,
    prior: _Data | None = None, reduction: _Reduced = "mean",
) -> _Loss: ...  # fmt: skip
def cross_entropy_grad(
    logits: _Data, target: _Data, *, grad_output: _Data | None = None, out: _Out | None = None,
    axis: int = -1, weight: _Data | None = None, sample_weight: _Data | None = None,
    ignore_index: _Labels = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0,
    temperature: float = 1.0, logit_cap: float | None = None, prior: _Data | None = None,
    reduction: _Reduction = "mean",
) -> _Array: ...  # fmt: skip
@overload
def cross_entropy_value_and_grad(
    logits: _Data, target: _Data, *, out: _Out | None = None, axis: int = -1,
    weight: _Data | None = None, sample_weight: _Data | None = None, ignore_index: _Labels = -100,
    label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0,
    logit_cap: float | None = None, prior: _Data | None = None, reduction: Literal["none"],
) -> tuple[_Losses, _Array]: ...  # fmt: skip
@overload
def cross_entropy_value_and_grad(
    logits: _Data, target: _Data, *, out: _Out | None = None, axis: int = -1,
    weight: _Data | None = None, sample_weight: _Data | None = None, ignore_index: _Labels = -100,
    label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0,
    logit_cap: float | None = None, prior: _Data | None = None, reduction: _Reduced = "mean",
) -> tuple[_Loss, _Array]: ...  # fmt: skip
def cross_entropy_grad_hess(
    logits: _Data, target: _Data, *,
    hessian: Literal["diagonal", "gauss_newton", "upper", "friedman", "absolute"] = "diagonal",
    out: tuple[_Out | None, _Out | None] | None = None, axis: int = -1, weight: _Data | None = None,
    sample_weight: _Data | None = None, ignore_index: _Labels = -100, label_smoothing: float = 0.0,
    z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0, logit_cap: float | None = None,
    prior: _Data | None = None, reduction: _Reduction = "mean",
) -> tuple[_Array, _Array]: ...  # fmt: skip
def cross_entropy_hvp(
    logits: _Data, target: _Data, vector: _Data, *, axis: int = -1, weight: _Data | None = None,
    sample_weight: _Data | None = None, ignore_index: _Labels = -100, label_smoothing: float = 0.0,
    z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0, logit_cap: float | None = None,
    prior: _Data | None = None, reduction: _Reduction = "mean",
) -> _Array: ...  # fmt: skip
def evaluate(
    logits: _Data, target: _Data, *, axis: int = -1, ignore_index: _Labels = -100,
    sample_weight: _Data | None = None, top_k: int | tuple[int, ...] = (1,), prior: _Data | None = None,
    base: float | None = None, temperature: float = 1.0, calibration_bins: int | None = None,
    confusion: bool | Literal["per_class"] = False,
) -> Evaluation: ...  # fmt: skip
def evaluate_sequences(
    logits: _Data, target: _Data, groups: _Data, *, axis: int = -1,
    ignore_index: _Labels = -100, prior: _Data | None = None, base: float | None = None,
    temperature: float = 1.0,
) -> SequenceEvaluation: ...  # fmt: skip
def compare(
    logits_a: _Data, logits_b: _Data, target: _Data | None = None, *, axis: int = -1,
    ignore_index: _Labels = -100, base: float | None = None, temperature: float = 1.0,
) -> Comparison: ...  # fmt: skip
@overload
def nll_loss(
    log_probs: _Data, target: _Data, *, axis: int = -1, weight: _Data | None = None,
    ignore_index: _Labels = -100, reduction: Literal["none"],
) -> _Losses: ...  # fmt: skip
@overload
def nll_loss(
    log_probs: _Data, target: _Data, *, axis: int = -1, weight: _Data | None = None,
    ignore_index: _Labels = -100, reduction: _Reduced = "mean",
) -> _Loss: ...  # fmt: skip
def nll_loss_grad(
    log_probs: _Data, target: _Data, *, grad_output: _Data | None = None, out: _Out | None = None,
    axis: int = -1, weight: _Data | None = None, ignore_index: _Labels = -100,
    reduction: _Reduction = "mean",
) -> _Array: ...  # fmt: skip
@overload
def nll_loss_value_and_grad(
    log_probs: _Data, target: _Data, *, out: _Out | None = None, axis: int = -1,
    weight: _Data | None = None, ignore_index: _Labels = -100, reduction: Literal["none"],
) -> tuple[_Losses, _Array]: ...  # fmt: skip
@overload
def nll_loss_value_and_grad(
    log_probs: _Data, target: _Data, *, out: _Out | None = None, axis: int = -1,
    weight: _Data | None = None, ignore_index: _Labels = -100, reduction: _Reduced = "mean",
) -> tuple[_Loss, _Array]: ...  # fmt: skip
@overload
def cross_entropy_probs(
    probs: _Data, target: _Data, *, axis: int = -1, clip: float | None = None,
    base: float | None = None, reduction: Literal["none"],
) -> _Losses: ...  # fmt: skip
@overload
def cross_entropy_probs(
    probs: _Data, target: _Data, *, axis: int = -1, clip: float | None = None,
    base: float | None = None, reduction: _Reduced = "mean",
) -> _Loss: ...  # fmt: skip
def cross_entropy_probs_grad(
    probs: _Data, target: _Data, *, grad_output: _Data | None = None, out: _Out | None = None,
    axis: int = -1, clip: float | None = None, base: float | None = None,
    reduction: _Reduction = "mean",
) -> _Array: ...  # fmt: skip
@overload
def cross_entropy_probs_value_and_grad(
    probs: _Data, target: _Data, *, out: _Out | None = None, axis: int = -1, clip: float | None = None,
    base: float | None = None, reduction: Literal["none"],
) -> tuple[_Losses, _Array]: ...  # fmt: skip
@overload
def cross_entropy_probs_value_and_grad(
    probs: _Data, target: _Data, *, out: _Out | None = None, axis: int = -1, clip: float | None = None,
    base: float | None = None, reduction: _Reduced = "mean",
) -> tuple[_Loss, _Array]: ...  # fmt: skip
@overload
def binary_cross_entropy(
    probs: _Data, target: _Data, *, weight: _Data | None = None, clip: float | None = None,
    base: float | None = None, reduction: Literal["none"],
) -> _Losses: ...  # fmt: skip
@overload
def binary_cross_entropy(
    probs: _Data, target: _Data, *, weight: _Data | None = None, clip: float | None = None,
    base: float | None = None, reduction: _Reduced = "mean",
) -> _Loss: ...  # fmt: skip
def binary_cross_entropy_grad(
    probs: _Data, target: _Data, *, grad_output: _Data | None = None, out: _Out | None = None,
    weight: _Data | None = None, clip: float | None = None, base: float | None = None,
    reduction: _Reduction = "mean",
) -> _Array: ...  # fmt: skip
@overload
def binary_cross_entropy_value_and_grad(
    probs: _Data, target: _Data, *, out: _Out | None = None, weight: _Data | None = None,
    clip: float | None = None, base: float | None = None, reduction: Literal["none"],
) -> tuple[_Losses, _Array]: ...  # fmt: skip
@overload
def binary_cross_entropy_value_and_grad(
    probs: _Data, target: _Data, *, out: _Out | None = None, weight: _Data | None = None,
    clip: float | None = None, base: float | None = None, reduction: _Reduced = "mean",
) -> tuple[_Loss, _Array]: ...  # fmt: skip
@overload
def kl_div(
    log_probs: _Data, target: _Data, *, axis: int | None = -1, log_target: bool = False,
    base: float | None = None, reduction: Literal["none"],
) -> _Losses: ...  # fmt: skip
@overload
def kl_div(
    log_probs: _Data, target: _Data, *, axis: int | None = -1, log_target: bool = False,
    base: float | None = None, reduction: _Reduced = "mean",
) -> _Loss: ...  # fmt: skip
def kl_div_grad(
    log_probs: _Data, target: _Data, *, grad_output: _Data | None = None, out: _Out | None = None,
    axis: int | None = -1, log_target: bool = False, base: float | None = None,
    reduction: _Reduction = "mean",
) -> _Array: ...  # fmt: skip
@overload
def kl_div_value_and_grad(
    log_probs: _Data, target: _Data, *, out: _Out | None = None, axis: int | None = -1,
    log_target: bool = False, base: float | None = None, reduction: Literal["none"],
) -> tuple[_Losses, _Array]: ...  # fmt: skip
@overload
def kl_div_value_and_grad(
    log_probs: _Data, target: _Data, *, out: _Out | None = None, axis: int | None = -1,
    log_target: bool = False, base: float | None = None, reduction: _Reduced = "mean",
) -> tuple[_Loss, _Array]: ...  # fmt: skip
@overload
def distillation_loss(
    student_logits: _Data, teacher_logits: _Data, *, axis: int = -1, temperature: float = 1.0,
    reduction: Literal["none"],
) -> _Losses: ...  # fmt: skip
@overload
def distillation_loss(
    student_logits: _Data, teacher_logits: _Data, *, axis: int = -1, temperature: float = 1.0,
    reduction: _Reduced = "mean",
) -> _Loss: ...  # fmt: skip
def distillation_loss_grad(
    student_logits: _Data, teacher_logits: _Data, *, grad_output: _Data | None = None,
    out: _Out | None = None, axis: int = -1, temperature: float = 1.0, reduction: _Reduction = "mean",
) -> _Array: ...  # fmt: skip
@overload
def distillation_loss_value_and_grad(
    student_logits: _Data, teacher_logits: _Data, *, out: _Out | None = None, axis: int = -1,
    temperature: float = 1.0, reduction: Literal["none"],
) -> tuple[_Losses, _Array]: ...  # fmt: skip
@overload
def distillation_loss_value_and_grad(
    student_logits: _Data, teacher_logits: _Data, *, out: _Out | None = None, axis: int = -1,
    temperature: float = 1.0, reduction: _Reduced = "mean",
) -> tuple[_Loss, _Array]: ...  # fmt: skip
@overload
def sparse_distillation_loss(
    student_logits: _Data, teacher_ids: _Data, teacher_log_probs: _Data, *,
    temperature: float = 1.0, tail: _Tail = "bucket", sample_weight: _Data | None = None,
    reduction: Literal["none"],
) -> _Losses: ...  # fmt: skip
@overload
def sparse_distillation_loss(
    student_logits: _Data, teacher_ids: _Data, teacher_log_probs: _Data, *,
    temperature: float = 1.0, tail: _Tail = "bucket", sample_weight: _Data | None = None,
    reduction: _Reduced = "mean",
) -> _Loss: ...  # fmt: skip
def sparse_distillation_loss_grad(
    student_logits: _Data, teacher_ids: _Data, teacher_log_probs: _Data, *,
    grad_output: _Data | None = None, out: _Out | None = None,
    temperature: float = 1.0, tail: _Tail = "bucket", sample_weight: _Data | None = None,
    reduction: _Reduction = "mean",
) -> _Array: ...  # fmt: skip
@overload
def sparse_distillation_loss_value_and_grad(
    student_logits: _Data, teacher_ids: _Data, teacher_log_probs: _Data, *,
    out: _Out | None = None,
    temperature: float = 1.0, tail: _Tail = "bucket", sample_weight: _Data | None = None,
    reduction: Literal["none"],
) -> tuple[_Losses, _Array]: ...  # fmt: skip
@overload
def sparse_distillation_loss_value_and_grad(
    student_logits: _Data, teacher_ids: _Data, teacher_log_probs: _Data, *,
    out: _Out | None = None,
    temperature: float = 1.0, tail: _Tail = "bucket", sample_weight: _Data | None = None,
    reduction: _Reduced = "mean",
) -> tuple[_Loss, _Array]: ...  # fmt: skip
def entropy(probs: _Data, *, axis: int = -1, base: float | None = None) -> _Losses: ...
@overload
def mse_loss(pred: _Data, target: _Data, *, reduction: Literal["none"]) -> _Losses: ...
@overload
def mse_loss(pred: _Data, target: _Data, *, reduction: _Reduced = "mean") -> _Loss: ...
def mse_loss_grad(
    pred: _Data, target: _Data, *, grad_output: _Data | None = None, out: _Out | None = None,
    reduction: _Reduction = "mean",
) -> _Array: ...  # fmt: skip
@overload
def mse_loss_value_and_grad(
    pred: _Data, target: _Data, *, out: _Out | None = None, reduction: Literal["none"]
) -> tuple[_Losses, _Array]: ...
@overload
def mse_loss_value_and_grad(
    pred: _Data, target: _Data, *, out: _Out | None = None, reduction: _Reduced = "mean"
) -> tuple[_Loss, _Array]: ...
@overload
def linear_cross_entropy(
    x: _Data, weight: _Data, target: _Data, bias: _Data | None = None, *,
    class_weight: _Data | None = None, sample_weight: _Data | None = None, ignore_index: _Labels = -100,
    label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0,
    logit_cap: float | None = None, prior: _Data | None = None, reduction: Literal["none"],
    chunk_bytes: int | None = None,
) -> _Losses: ...  # fmt: skip
@overload
def linear_cross_entropy(
    x: _Data, weight: _Data, target: _Data, bias: _Data | None = None, *,
    class_weight: _Data | None = None, sample_weight: _Data | None = None, ignore_index: _Labels = -100,
    label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0,
    logit_cap: float | None = None, prior: _Data | None = None, reduction: _Reduced = "mean",
    chunk_bytes: int | None = None,
) -> _Loss: ...  # fmt: skip
@overload
def linear_cross_entropy_value_and_grad(
    x: _Data, weight: _Data, target: _Data, bias: _Data | None = None, *,
    class_weight: _Data | None = None, sample_weight: _Data | None = None, ignore_index: _Labels = -100,
    label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0,
    logit_cap: float | None = None, prior: _Data | None = None, reduction: Literal["none"],
    chunk_bytes: int | None = None, grad_output: _Data | None = None, needs: _All = (True, True, True),
) -> tuple[_Losses, _LayerGradients]: ...  # fmt: skip
@overload
def linear_cross_entropy_value_and_grad(
    x: _Data, weight: _Data, target: _Data, bias: _Data | None = None, *,
    class_weight: _Data | None = None, sample_weight: _Data | None = None, ignore_index: _Labels = -100,
    label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0,
    logit_cap: float | None = None, prior: _Data | None = None, reduction: Literal["none"],
    chunk_bytes: int | None = None, grad_output: _Data | None = None, needs: tuple[bool, bool, bool],
) -> tuple[_Losses, _Gradients]: ...  # fmt: skip
@overload
def linear_cross_entropy_value_and_grad(
    x: _Data, weight: _Data, target: _Data, bias: _Data | None = None, *,
    class_weight: _Data | None = None, sample_weight: _Data | None = None, ignore_index: _Labels = -100,
    label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0,
    logit_cap: float | None = None, prior: _Data | None = None, reduction: _Reduced = "mean",
    chunk_bytes: int | None = None, grad_output: _Data | None = None, needs: _All = (True, True, True),
) -> tuple[_Loss, _LayerGradients]: ...  # fmt: skip
@overload
def linear_cross_entropy_value_and_grad(
    x: _Data, weight: _Data, target: _Data, bias: _Data | None = None, *,
    class_weight: _Data | None = None, sample_weight: _Data | None = None, ignore_index: _Labels = -100,
    label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0,
    logit_cap: float | None = None, prior: _Data | None = None, reduction: _Reduced = "mean",
    chunk_bytes: int | None = None, grad_output: _Data | None = None, needs: tuple[bool, bool, bool],
) -> tuple[_Loss, _Gradients]: ...  # fmt: skip
@overload
def linear_token_log_probs(
    x: _Data, weight: _Data, ids: _Data, bias: _Data | None = None, *, temperature: float = 1.0,
    logit_cap: float | None = None, prior: _Data | None = None,
    ranks: Literal[False] = False, entropy: Literal[False] = False, chunk_bytes: int | None = None,
) -> _Losses: ...  # fmt: skip
@overload
def linear_token_log_probs(
    x: _Data, weight: _Data, ids: _Data, bias: _Data | None = None, *, temperature: float = 1.0,
    logit_cap: float | None = None, prior: _Data | None = None,
    ranks: Literal[False] = False, entropy: Literal[True], chunk_bytes: int | None = None,
) -> tuple[_Losses, _Losses]: ...  # fmt: skip
@overload
def linear_token_log_probs(
    x: _Data, weight: _Data, ids: _Data, bias: _Data | None = None, *, temperature: float = 1.0,
    logit_cap: float | None = None, prior: _Data | None = None,
    ranks: Literal[True], entropy: Literal[False] = False, chunk_bytes: int | None = None,
) -> tuple[_Losses, _Ranks]: ...  # fmt: skip
@overload
def linear_token_log_probs(
    x: _Data, weight: _Data, ids: _Data, bias: _Data | None = None, *, temperature: float = 1.0,
    logit_cap: float | None = None, prior: _Data | None = None,
    ranks: Literal[True], entropy: Literal[True], chunk_bytes: int | None = None,
) -> tuple[_Losses, _Ranks, _Losses]: ...  # fmt: skip
@overload
def nce_loss(
    x: _Data, weight: _Data, target: _Data, noise: _Data, noise_log_prob: _Data,
    bias: _Data | None = None, *, reduction: Literal["none"],
) -> _Losses: ...  # fmt: skip
@overload
def nce_loss(
    x: _Data, weight: _Data, target: _Data, noise: _Data, noise_log_prob: _Data,
    bias: _Data | None = None, *, reduction: _Reduced = "mean",
) -> _Loss: ...  # fmt: skip
@overload
def nce_loss_value_and_grad(
    x: _Data, weight: _Data, target: _Data, noise: _Data, noise_log_prob: _Data,
    bias: _Data | None = None, *, reduction: Literal["none"],
) -> tuple[_Losses, _LayerGradients]: ...  # fmt: skip
@overload
def nce_loss_value_and_grad(
    x: _Data, weight: _Data, target: _Data, noise: _Data, noise_log_prob: _Data,
    bias: _Data | None = None, *, reduction: _Reduced = "mean",
) -> tuple[_Loss, _LayerGradients]: ...  # fmt: skip
@overload
def sampled_softmax_cross_entropy(
    x: _Data, weight: _Data, target: _Data, sampled: _Data, sampled_log_prob: _Data,
    bias: _Data | None = None, *, reduction: Literal["none"],
) -> _Losses: ...  # fmt: skip
@overload
def sampled_softmax_cross_entropy(
    x: _Data, weight: _Data, target: _Data, sampled: _Data, sampled_log_prob: _Data,
    bias: _Data | None = None, *, reduction: _Reduced = "mean",
) -> _Loss: ...  # fmt: skip
@overload
def sampled_softmax_cross_entropy_value_and_grad(
    x: _Data, weight: _Data, target: _Data, sampled: _Data, sampled_log_prob: _Data,
    bias: _Data | None = None, *, reduction: Literal["none"],
) -> tuple[_Losses, _LayerGradients]: ...  # fmt: skip
@overload
def sampled_softmax_cross_entropy_value_and_grad(
    x: _Data, weight: _Data, target: _Data, sampled: _Data, sampled_log_prob: _Data,
    bias: _Data | None = None, *, reduction: _Reduced = "mean",
) -> tuple[_Loss, _LayerGradients]: ...  # fmt: skip
def conv2d(
    x: _Data, weight: _Data, bias: _Data | None = None, *, stride: _Ints = 1, padding: _Padding = 0,
    dilation: _Ints = 1, groups: int = 1, activation: Literal["relu"] | None = None,
    out: _Out | None = None,
) -> _Array: ...  # fmt: skip
def prepare_conv2d(weight: _Data, *, groups: int = 1) -> PreparedWeight: ...
@overload
def conv2d_backward(
    grad: _Data, x: _Data, weight: _Data, *, stride: _Ints = 1, padding: _Padding = 0,
    dilation: _Ints = 1, groups: int = 1, needs: _All = ..., out: _Outs | None = None,
) -> _AllGradients: ...  # fmt: skip
@overload
def conv2d_backward(
    grad: _Data, x: _Data, weight: _Data, *, stride: _Ints = 1, padding: _Padding = 0,
    dilation: _Ints = 1, groups: int = 1, needs: tuple[bool, bool, bool], out: _Outs | None = None,
) -> _Gradients: ...  # fmt: skip
def conv1d(
    x: _Data, weight: _Data, bias: _Data | None = None, *, stride: int = 1,
    padding: _Ints | Literal["valid", "same"] = 0, dilation: int = 1, groups: int = 1,
    activation: Literal["relu"] | None = None, out: _Out | None = None,
) -> _Array: ...  # fmt: skip
@overload
def conv1d_backward(
    grad: _Data, x: _Data, weight: _Data, *, stride: int = 1,
    padding: _Ints | Literal["valid", "same"] = 0, dilation: int = 1, groups: int = 1,
    needs: _All = ..., out: _Outs | None = None,
) -> _AllGradients: ...  # fmt: skip
@overload
def conv1d_backward(
    grad: _Data, x: _Data, weight: _Data, *, stride: int = 1,
    padding: _Ints | Literal["valid", "same"] = 0, dilation: int = 1, groups: int = 1,
    needs: tuple[bool, bool, bool], out: _Outs | None = None,
) -> _Gradients: ...  # fmt: skip
def conv_transpose2d(
    x: _Data, weight: _Data, bias: _Data | None = None, *, stride: _Ints = 1, padding: _Padding = 0,
    output_padding: _Ints = 0, output_size: _Ints | None = None, dilation: _Ints = 1, groups: int = 1,
    out: _Out | None = None,
) -> _Array: ...  # fmt: skip
@overload
def conv_transpose2d_backward(
    grad: _Data, x: _Data, weight: _Data, *, stride: _Ints = 1, padding: _Padding = 0,
    output_padding: _Ints = 0, output_size: _Ints | None = None, dilation: _Ints = 1, groups: int = 1,
    needs: _All = ..., out: _Outs | None = None,
) -> _AllGradients: ...  # fmt: skip
@overload
def conv_transpose2d_backward(
    grad: _Data, x: _Data, weight: _Data, *, stride: _Ints = 1, padding: _Padding = 0,
    output_padding: _Ints = 0, output_size: _Ints | None = None, dilation: _Ints = 1, groups: int = 1,
    needs: tuple[bool, bool, bool], out: _Outs | None = None,
) -> _Gradients: ...  # fmt: skip
def im2col(
    x: _Data, kernel_size: _Ints, *, stride: _Ints = 1, padding: _Padding = 0, dilation: _Ints = 1,
    out: _Out | None = None,
) -> _Array: ...  # fmt: skip
def col2im(
    cols: _Data, output_size: _Ints, kernel_size: _Ints, *, stride: _Ints = 1, padding: _Padding = 0,
    dilation: _Ints = 1, out: _Out | None = None,
) -> _Array: ...  # fmt: skip
@overload
def max_pool2d(
    x: _Data, kernel_size: _Ints, *, stride: _Ints | None = None, padding: _Padding = 0,
    dilation: _Ints = 1, ceil_mode: bool = False, return_places: Literal[False] = False,
    out: _Out | None = None,
) -> _Array: ...  # fmt: skip
@overload
def max_pool2d(
    x: _Data, kernel_size: _Ints, *, stride: _Ints | None = None, padding: _Padding = 0,
    dilation: _Ints = 1, ceil_mode: bool = False, return_places: Literal[True], out: _Out | None = None,
) -> tuple[_Array, _Places]: ...  # fmt: skip
def max_pool2d_backward(
    grad: _Data, x: _Data, kernel_size: _Ints, *, stride: _Ints | None = None, padding: _Padding = 0,
    dilation: _Ints = 1, ceil_mode: bool = False, places: _Data | None = None, out: _Out | None = None,
) -> _Array: ...  # fmt: skip
def avg_pool2d(
    x: _Data, kernel_size: _Ints, *, stride: _Ints | None = None, padding: _Padding = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
    out: _Out | None = None,
) -> _Array: ...  # fmt: skip
def avg_pool2d_backward(
    grad: _Data, x: _Data, kernel_size: _Ints, *, stride: _Ints | None = None, padding: _Padding = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
    out: _Out | None = None,
) -> _Array: ...  # fmt: skip
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def num_threads(n: int) -> AbstractContextManager[None]: ...
def set_result_cache(max_bytes: int | None) -> None: ...
@overload
def show_config(mode: Literal["stdout"] = "stdout") -> None: ...
@overload
def show_config(mode: Literal["dicts"]) -> _Config: ...
