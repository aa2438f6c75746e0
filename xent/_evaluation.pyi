"""Types of what `evaluate` returns; its docstrings are in the module."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

class Evaluation:
    count: Final[int]
    total_weight: Final[float]
    loss_sum: Final[float]
    correct_sum: Final[float]
    top_k: Final[tuple[int, ...]]
    top_k_sums: Final[tuple[float, ...]]
    squared_error_sum: Final[float]
    entropy_sum: Final[float]
    label_weights: Final[NDArray[np.float64]]
    base: Final[float | None]
    def __init__(
        self,
        count: int,
        total_weight: float,
        loss_sum: float,
        correct_sum: float,
        top_k: tuple[int, ...],
        top_k_sums: tuple[float, ...],
        squared_error_sum: float,
        entropy_sum: float,
        label_weights: NDArray[np.float64],
        base: float | None = None,
    ) -> None: ...
    @property
    def loss(self) -> float: ...
    @property
    def perplexity(self) -> float: ...
    @property
    def accuracy(self) -> float: ...
    @property
    def top_k_accuracy(self) -> dict[int, float]: ...
    @property
    def classification_error(self) -> float: ...
    @property
    def mse(self) -> float: ...
    @property
    def entropy(self) -> float: ...
    @property
    def label_entropy(self) -> float: ...
    @property
    def mutual_information(self) -> float: ...
    def __add__(self, other: Evaluation) -> Evaluation: ...
    def __radd__(self, other: int) -> Evaluation: ...
    def __eq__(self, other: object) -> bool: ...
    def __setattr__(self, name: str, value: object) -> None: ...
    def __delattr__(self, name: str) -> None: ...
