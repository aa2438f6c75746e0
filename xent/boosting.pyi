"""Types of xent.boosting. Data sets are of LightGBM or XGBoost, which are not imported."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Binary", "Focal", "MultiLabel", "Softmax"]

class _DataSet(Protocol):
    def get_label(self) -> object: ...
    def get_weight(self) -> object: ...

_Floats: TypeAlias = NDArray[np.float64 | np.float32]
_Metric: TypeAlias = tuple[str, float, bool] | tuple[str, float] | float

@dataclass(kw_only=True, eq=False)
class _Objective:
    label_smoothing: float = 0.0
    targets: ArrayLike | None = None
    class_weight: ArrayLike | None = None
    def __post_init__(self) -> None: ...
    def __call__(
        self, first: ArrayLike, second: ArrayLike | _DataSet, sample_weight: ArrayLike | None = None
    ) -> tuple[_Floats, _Floats]: ...
    def metric(
        self, first: ArrayLike, second: ArrayLike | _DataSet, sample_weight: ArrayLike | None = None
    ) -> _Metric: ...
    def init_score(
        self, labels: ArrayLike, sample_weight: ArrayLike | None = None, *, classes: int | None = None,
        rows: int | None = None,
    ) -> NDArray[np.float64]: ...  # fmt: skip
    def catboost(self) -> object: ...
    def calc_ders_multi(
        self, approxes: ArrayLike, target: ArrayLike, weight: float | None
    ) -> tuple[list[float], list[list[float]]]: ...
    def evaluate(
        self, approxes: Sequence[_Floats], target: _Floats | tuple[_Floats, ...], weight: ArrayLike | None
    ) -> tuple[float, float]: ...
    def get_final_error(self, error: float, weight: float) -> float: ...
    def is_max_optimal(self) -> bool: ...

@dataclass(kw_only=True, eq=False)
class Softmax(_Objective):
    prior: ArrayLike | None = None
    hessian: Literal["diagonal", "upper", "friedman", "absolute"] | None = None

@dataclass(kw_only=True, eq=False)
class _Sigmoid(_Objective):
    pos_weight: ArrayLike | None = None
    def calc_ders_range(
        self, approxes: ArrayLike, targets: ArrayLike, weights: ArrayLike | None
    ) -> list[tuple[float, float]]: ...

@dataclass(kw_only=True, eq=False)
class Binary(_Sigmoid): ...

@dataclass(kw_only=True, eq=False)
class MultiLabel(_Sigmoid): ...

@dataclass(kw_only=True, eq=False)
class Focal(_Sigmoid):
    gamma: float = 2.0
    alpha: float | None = None
