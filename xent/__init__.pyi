"""Types of the public functions; their docstrings are in the modules."""

from contextlib import AbstractContextManager
from typing import Any, Literal, TypeAlias, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import reference as reference
from ._evaluation import Evaluation as Evaluation
from ._prepared import PreparedWeight as PreparedWeight

__all__ = [
    "Evaluation", "PreparedWeight", "__version__", "avg_pool2d", "avg_pool2d_backward",
    "binary_cross_entropy", "binary_cross_entropy_grad", "binary_cross_entropy_value_and_grad",
    "col2im", "conv1d", "conv1d_backward", "conv2d", "conv2d_backward", "conv_transpose2d",
    "conv_transpose2d_backward", "cross_entropy", "cross_entropy_grad", "cross_entropy_grad_hess",
    "cross_entropy_hvp", "cross_entropy_probs", "cross_entropy_probs_grad",
    "cross_entropy_probs_value_and_grad", "cross_entropy_value_and_grad", "distillation_loss",
    "distillation_loss_grad", "distillation_loss_value_and_grad", "entropy", "evaluate",
    "get_num_threads", "im2col", "kl_div", "kl_div_grad", "kl_div_value_and_grad",
    "linear_cross_entropy", "linear_cross_entropy_value_and_grad", "log_sigmoid", "log_softmax",
    "log_softmax_backward", "logsumexp", "max_pool2d", "max_pool2d_backward", "mse_loss",
    "mse_loss_grad", "mse_loss_value_and_grad", "nce_loss", "nce_loss_value_and_grad", "nll_loss",
    "nll_loss_grad", "nll_loss_value_and_grad", "num_threads", "prepare_conv2d", "reference",
    "sampled_softmax_cross_entropy", "sampled_softmax_cross_entropy_value_and_grad", "set_num_threads",
    "set_result_cache", "show_config", "sigmoid", "sigmoid_cross_entropy", "sigmoid_cross_entropy_grad",
    "sigmoid_cross_entropy_value_and_grad", "softmax", "softmax_backward", "softmax_jacobian",
]  # fmt: skip
__version__: str

_Array: TypeAlias = NDArray[np.floating[Any]]
_Result: TypeAlias = Any  # a NumPy scalar or an array, by the shape of the input and the reduction
_Ints: TypeAlias = int | tuple[int, int]
_Padding: TypeAlias = _Ints | tuple[tuple[int, int], tuple[int, int]] | Literal["valid", "same"]
_Gradients: TypeAlias = tuple[_Array | None, _Array | None, _Array | None]  # None where not needed
_LayerGradients: TypeAlias = tuple[_Array, _Array, _Array | None]  # by x, weight and bias
_Reduction: TypeAlias = Literal["none", "sum", "mean", "mean_valid", "mean_full", "mean_batch"]

def softmax(
    x: ArrayLike, axis: int = -1, *, temperature: float = 1.0, out: _Array | None = None
) -> _Array: ...
def log_softmax(
    x: ArrayLike, axis: int = -1, *, temperature: float = 1.0, out: _Array | None = None
) -> _Array: ...
def logsumexp(
    x: ArrayLike,
    axis: int | tuple[int, ...] | None = -1,
    *,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    out: _Array | None = None,
) -> _Result: ...
def softmax_backward(
    grad: ArrayLike, y: ArrayLike, axis: int = -1, *, out: _Array | None = None
) -> _Array: ...
def log_softmax_backward(
    grad: ArrayLike, y: ArrayLike, axis: int = -1, *, out: _Array | None = None
) -> _Array: ...
def softmax_jacobian(y: ArrayLike, axis: int = -1) -> _Array: ...
def sigmoid(x: ArrayLike, *, out: _Array | None = None) -> _Result: ...
def log_sigmoid(x: ArrayLike, *, out: _Array | None = None) -> _Result: ...
def sigmoid_cross_entropy(
    logits: ArrayLike, target: ArrayLike, *, weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None, label_smoothing: float = 0.0, gamma: float = 0.0,
    alpha: float | None = None, ignore_index: int | None = None, reduction: _Reduction = "mean",
) -> _Result: ...  # fmt: skip
def sigmoid_cross_entropy_grad(
    logits: ArrayLike, target: ArrayLike, *, grad_output: ArrayLike | None = None,
    out: _Array | None = None, weight: ArrayLike | None = None, pos_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0, gamma: float = 0.0, alpha: float | None = None,
    ignore_index: int | None = None, reduction: _Reduction = "mean",
) -> _Array: ...  # fmt: skip
def sigmoid_cross_entropy_value_and_grad(
    logits: ArrayLike, target: ArrayLike, *, out: _Array | None = None,
    weight: ArrayLike | None = None, pos_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0, gamma: float = 0.0, alpha: float | None = None,
    ignore_index: int | None = None, reduction: _Reduction = "mean",
) -> tuple[_Result, _Array]: ...  # fmt: skip
def cross_entropy(
    logits: ArrayLike, target: ArrayLike, *, axis: int = -1, weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None, ignore_index: int = -100, label_smoothing: float = 0.0,
    z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0,
    logit_cap: float | None = None, prior: ArrayLike | None = None, reduction: _Reduction = "mean",
) -> _Result: ...  # fmt: skip
def cross_entropy_grad(
    logits: ArrayLike, target: ArrayLike, *, grad_output: ArrayLike | None = None,
    out: _Array | None = None, axis: int = -1, weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None, ignore_index: int = -100, label_smoothing: float = 0.0,
    z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0,
    logit_cap: float | None = None, prior: ArrayLike | None = None, reduction: _Reduction = "mean",
) -> _Array: ...  # fmt: skip
def cross_entropy_value_and_grad(
    logits: ArrayLike, target: ArrayLike, *, out: _Array | None = None, axis: int = -1,
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    ignore_index: int = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0,
    temperature: float = 1.0, logit_cap: float | None = None, prior: ArrayLike | None = None,
    reduction: _Reduction = "mean",
) -> tuple[_Result, _Array]: ...  # fmt: skip
def cross_entropy_grad_hess(
    logits: ArrayLike, target: ArrayLike, *,
    hessian: Literal["diagonal", "upper", "friedman", "absolute"] = "diagonal",
    out: tuple[_Array | None, _Array | None] | None = None, axis: int = -1,
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    ignore_index: int = -100, label_smoothing: float = 0.0, temperature: float = 1.0,
    prior: ArrayLike | None = None, reduction: _Reduction = "mean",
) -> tuple[_Array, _Array]: ...  # fmt: skip
def cross_entropy_hvp(
    logits: ArrayLike, target: ArrayLike, vector: ArrayLike, *, axis: int = -1,
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    ignore_index: int = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0,
    temperature: float = 1.0, logit_cap: float | None = None, prior: ArrayLike | None = None,
    reduction: _Reduction = "mean",
) -> _Array: ...  # fmt: skip
def evaluate(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    ignore_index: int = -100,
    sample_weight: ArrayLike | None = None,
    top_k: int | tuple[int, ...] = (1,),
    prior: ArrayLike | None = None,
    base: float | None = None,
) -> Evaluation: ...
def nll_loss(
    log_probs: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: _Reduction = "mean",
) -> _Result: ...
def nll_loss_grad(
    log_probs: ArrayLike,
    target: ArrayLike,
    *,
    grad_output: ArrayLike | None = None,
    out: _Array | None = None,
    axis: int = -1,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: _Reduction = "mean",
) -> _Array: ...
def nll_loss_value_and_grad(
    log_probs: ArrayLike,
    target: ArrayLike,
    *,
    out: _Array | None = None,
    axis: int = -1,
    weight: ArrayLike | None = None,
    ignore_index: int = -100,
    reduction: _Reduction = "mean",
) -> tuple[_Result, _Array]: ...
def cross_entropy_probs(
    probs: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    clip: float | None = None,
    base: float | None = None,
    reduction: _Reduction = "mean",
) -> _Result: ...
def cross_entropy_probs_grad(
    probs: ArrayLike,
    target: ArrayLike,
    *,
    grad_output: ArrayLike | None = None,
    out: _Array | None = None,
    axis: int = -1,
    clip: float | None = None,
    base: float | None = None,
    reduction: _Reduction = "mean",
) -> _Array: ...
def cross_entropy_probs_value_and_grad(
    probs: ArrayLike,
    target: ArrayLike,
    *,
    out: _Array | None = None,
    axis: int = -1,
    clip: float | None = None,
    base: float | None = None,
    reduction: _Reduction = "mean",
) -> tuple[_Result, _Array]: ...
def binary_cross_entropy(
    probs: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    clip: float | None = None,
    base: float | None = None,
    reduction: _Reduction = "mean",
) -> _Result: ...
def binary_cross_entropy_grad(
    probs: ArrayLike,
    target: ArrayLike,
    *,
    grad_output: ArrayLike | None = None,
    out: _Array | None = None,
    weight: ArrayLike | None = None,
    clip: float | None = None,
    base: float | None = None,
    reduction: _Reduction = "mean",
) -> _Array: ...
def binary_cross_entropy_value_and_grad(
    probs: ArrayLike,
    target: ArrayLike,
    *,
    out: _Array | None = None,
    weight: ArrayLike | None = None,
    clip: float | None = None,
    base: float | None = None,
    reduction: _Reduction = "mean",
) -> tuple[_Result, _Array]: ...
def kl_div(
    log_probs: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    log_target: bool = False,
    base: float | None = None,
    reduction: _Reduction = "mean",
) -> _Result: ...
def kl_div_grad(
    log_probs: ArrayLike,
    target: ArrayLike,
    *,
    grad_output: ArrayLike | None = None,
    out: _Array | None = None,
    axis: int = -1,
    log_target: bool = False,
    base: float | None = None,
    reduction: _Reduction = "mean",
) -> _Array: ...
def kl_div_value_and_grad(
    log_probs: ArrayLike,
    target: ArrayLike,
    *,
    out: _Array | None = None,
    axis: int = -1,
    log_target: bool = False,
    base: float | None = None,
    reduction: _Reduction = "mean",
) -> tuple[_Result, _Array]: ...
def distillation_loss(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    reduction: _Reduction = "mean",
) -> _Result: ...
def distillation_loss_grad(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    grad_output: ArrayLike | None = None,
    out: _Array | None = None,
    axis: int = -1,
    temperature: float = 1.0,
    reduction: _Reduction = "mean",
) -> _Array: ...
def distillation_loss_value_and_grad(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    out: _Array | None = None,
    axis: int = -1,
    temperature: float = 1.0,
    reduction: _Reduction = "mean",
) -> tuple[_Result, _Array]: ...
def entropy(probs: ArrayLike, *, axis: int = -1, base: float | None = None) -> _Result: ...
def mse_loss(pred: ArrayLike, target: ArrayLike, *, reduction: _Reduction = "mean") -> _Result: ...
def mse_loss_grad(
    pred: ArrayLike,
    target: ArrayLike,
    *,
    grad_output: ArrayLike | None = None,
    out: _Array | None = None,
    reduction: _Reduction = "mean",
) -> _Array: ...
def mse_loss_value_and_grad(
    pred: ArrayLike, target: ArrayLike, *, out: _Array | None = None, reduction: _Reduction = "mean"
) -> tuple[_Result, _Array]: ...
def linear_cross_entropy(
    x: ArrayLike, weight: ArrayLike, target: ArrayLike, bias: ArrayLike | None = None, *,
    class_weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    ignore_index: int = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0,
    temperature: float = 1.0, logit_cap: float | None = None, prior: ArrayLike | None = None,
    reduction: _Reduction = "mean", chunk_bytes: int | None = None,
) -> _Result: ...  # fmt: skip
def linear_cross_entropy_value_and_grad(
    x: ArrayLike, weight: ArrayLike, target: ArrayLike, bias: ArrayLike | None = None, *,
    class_weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    ignore_index: int = -100, label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0,
    temperature: float = 1.0, logit_cap: float | None = None, prior: ArrayLike | None = None,
    reduction: _Reduction = "mean", chunk_bytes: int | None = None,
) -> tuple[_Result, _LayerGradients]: ...  # fmt: skip
def nce_loss(
    x: ArrayLike,
    weight: ArrayLike,
    target: ArrayLike,
    noise: ArrayLike,
    noise_log_prob: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    reduction: _Reduction = "mean",
) -> _Result: ...
def nce_loss_value_and_grad(
    x: ArrayLike,
    weight: ArrayLike,
    target: ArrayLike,
    noise: ArrayLike,
    noise_log_prob: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    reduction: _Reduction = "mean",
) -> tuple[_Result, _LayerGradients]: ...
def sampled_softmax_cross_entropy(
    x: ArrayLike,
    weight: ArrayLike,
    target: ArrayLike,
    sampled: ArrayLike,
    sampled_log_prob: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    reduction: _Reduction = "mean",
) -> _Result: ...
def sampled_softmax_cross_entropy_value_and_grad(
    x: ArrayLike,
    weight: ArrayLike,
    target: ArrayLike,
    sampled: ArrayLike,
    sampled_log_prob: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    reduction: _Reduction = "mean",
) -> tuple[_Result, _LayerGradients]: ...
def conv2d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: _Ints = 1,
    padding: _Padding = 0, dilation: _Ints = 1, groups: int = 1,
    activation: Literal["relu"] | None = None, out: _Array | None = None,
) -> _Array: ...  # fmt: skip
def prepare_conv2d(weight: ArrayLike, *, groups: int = 1) -> PreparedWeight: ...
def conv2d_backward(
    grad: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    stride: _Ints = 1,
    padding: _Padding = 0,
    dilation: _Ints = 1,
    groups: int = 1,
    needs: tuple[bool, bool, bool] = (True, True, True),
    out: _Gradients | None = None,
) -> _Gradients: ...
def conv1d(
    x: ArrayLike, weight: ArrayLike, bias: ArrayLike | None = None, *, stride: int = 1,
    padding: _Ints | Literal["valid", "same"] = 0, dilation: int = 1, groups: int = 1,
    activation: Literal["relu"] | None = None, out: _Array | None = None,
) -> _Array: ...  # fmt: skip
def conv1d_backward(
    grad: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    stride: int = 1,
    padding: _Ints | Literal["valid", "same"] = 0,
    dilation: int = 1,
    groups: int = 1,
    needs: tuple[bool, bool, bool] = (True, True, True),
    out: _Gradients | None = None,
) -> _Gradients: ...
def conv_transpose2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    stride: _Ints = 1,
    padding: _Padding = 0,
    output_padding: _Ints = 0,
    output_size: _Ints | None = None,
    dilation: _Ints = 1,
    groups: int = 1,
    out: _Array | None = None,
) -> _Array: ...
def conv_transpose2d_backward(
    grad: ArrayLike,
    x: ArrayLike,
    weight: ArrayLike,
    *,
    stride: _Ints = 1,
    padding: _Padding = 0,
    output_padding: _Ints = 0,
    output_size: _Ints | None = None,
    dilation: _Ints = 1,
    groups: int = 1,
    needs: tuple[bool, bool, bool] = (True, True, True),
    out: _Gradients | None = None,
) -> _Gradients: ...
def im2col(
    x: ArrayLike,
    kernel_size: _Ints,
    *,
    stride: _Ints = 1,
    padding: _Padding = 0,
    dilation: _Ints = 1,
    out: _Array | None = None,
) -> _Array: ...
def col2im(
    cols: ArrayLike,
    output_size: _Ints,
    kernel_size: _Ints,
    *,
    stride: _Ints = 1,
    padding: _Padding = 0,
    dilation: _Ints = 1,
    out: _Array | None = None,
) -> _Array: ...
@overload
def max_pool2d(
    x: ArrayLike,
    kernel_size: _Ints,
    *,
    stride: _Ints | None = None,
    padding: _Padding = 0,
    dilation: _Ints = 1,
    ceil_mode: bool = False,
    return_places: Literal[False] = False,
    out: _Array | None = None,
) -> _Array: ...
@overload
def max_pool2d(
    x: ArrayLike,
    kernel_size: _Ints,
    *,
    stride: _Ints | None = None,
    padding: _Padding = 0,
    dilation: _Ints = 1,
    ceil_mode: bool = False,
    return_places: Literal[True],
    out: _Array | None = None,
) -> tuple[_Array, NDArray[np.integer[Any]]]: ...
def max_pool2d_backward(
    grad: ArrayLike,
    x: ArrayLike,
    kernel_size: _Ints,
    *,
    stride: _Ints | None = None,
    padding: _Padding = 0,
    dilation: _Ints = 1,
    ceil_mode: bool = False,
    places: ArrayLike | None = None,
    out: _Array | None = None,
) -> _Array: ...
def avg_pool2d(
    x: ArrayLike,
    kernel_size: _Ints,
    *,
    stride: _Ints | None = None,
    padding: _Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    out: _Array | None = None,
) -> _Array: ...
def avg_pool2d_backward(
    grad: ArrayLike,
    x: ArrayLike,
    kernel_size: _Ints,
    *,
    stride: _Ints | None = None,
    padding: _Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    out: _Array | None = None,
) -> _Array: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def num_threads(n: int) -> AbstractContextManager[None]: ...
def set_result_cache(max_bytes: int | None) -> None: ...
def show_config(mode: Literal["stdout", "dicts"] = "stdout") -> dict[str, Any] | None: ...
