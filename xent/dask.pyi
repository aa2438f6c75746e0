"""Types of xent.dask. Of arrays and what is delayed no more is said than what they are: Dask has no types."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from dask.array import Array
from dask.delayed import Delayed
from numpy.typing import ArrayLike

__all__ = ["cross_entropy", "cross_entropy_value_and_grad", "evaluate", "linear_cross_entropy_value_and_grad"]

_Reduction: TypeAlias = Literal["none", "sum", "mean", "mean_valid", "mean_full", "mean_batch"]
_Beside: TypeAlias = ArrayLike | Array  # a column of dask.dataframe has no type that could be named here

def cross_entropy(
    logits: Array, target: _Beside, *, axis: int = -1, weight: ArrayLike | None = None,
    sample_weight: _Beside | None = None, ignore_index: int | tuple[int, ...] = -100,
    label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0,
    logit_cap: float | None = None, prior: ArrayLike | None = None, reduction: _Reduction = "mean",
    split_every: int | None = None,
) -> Array: ...  # fmt: skip
def cross_entropy_value_and_grad(
    logits: Array, target: _Beside, *, axis: int = -1, weight: ArrayLike | None = None,
    sample_weight: _Beside | None = None, ignore_index: int | tuple[int, ...] = -100,
    label_smoothing: float = 0.0, z_loss: float = 0.0, gamma: float = 0.0, temperature: float = 1.0,
    logit_cap: float | None = None, prior: ArrayLike | None = None, reduction: _Reduction = "mean",
    split_every: int | None = None,
) -> tuple[Array, Array]: ...  # fmt: skip
def evaluate(
    logits: Array, target: _Beside, *, axis: int = -1, ignore_index: int | tuple[int, ...] = -100,
    sample_weight: _Beside | None = None, top_k: int | Sequence[int] = (1,), prior: ArrayLike | None = None,
    base: float | None = None, temperature: float = 1.0, calibration_bins: int | None = None,
    confusion: bool | Literal["per_class"] = False, split_every: int | None = None,
) -> Delayed: ...  # fmt: skip
def linear_cross_entropy_value_and_grad(
    x: Array, weight: ArrayLike | Array, target: _Beside, bias: ArrayLike | Array | None = None, *,
    class_weight: ArrayLike | None = None, sample_weight: _Beside | None = None,
    ignore_index: int | tuple[int, ...] = -100, label_smoothing: float = 0.0, z_loss: float = 0.0,
    gamma: float = 0.0, temperature: float = 1.0, logit_cap: float | None = None,
    prior: ArrayLike | None = None, reduction: _Reduction = "mean", chunk_bytes: int | None = None,
    grad_output: float | _Beside | None = None, needs: tuple[bool, bool, bool] = (True, True, True),
    split_every: int | None = None,
) -> tuple[Array, tuple[Array | None, Array | None, Array | None]]: ...  # fmt: skip
