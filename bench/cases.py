"""The shapes and dtypes that every operator of the softmax family is measured on."""

import math
from dataclasses import dataclass

import numpy as np
from peers.libraries import ml_dtypes


@dataclass(frozen=True)
class Case:
    """Logits of one shape and dtype, with their class axis."""

    shape: tuple
    dtype: str = "float32"
    axis: int = -1
    scale: float = 1  # of the logits

    def __str__(self):
        axis = f" axis {self.axis}" if self.axis != -1 else ""
        return f"{self.shape} {self.dtype}{axis}" + (f" times {self.scale:g}" if self.scale != 1 else "")

    @property
    def bytes(self):
        return math.prod(self.shape) * {"float64": 8, "float32": 4}.get(self.dtype, 2)

    def logits(self):
        """Normal logits of this scale; the seed is fixed: every implementation and run sees the same."""
        values = np.random.default_rng(0).standard_normal(self.shape, dtype=np.float32)
        values *= np.float32(self.scale)
        if self.dtype == "bfloat16" and ml_dtypes is None:
            raise ImportError("NumPy has bfloat16 only with ml_dtypes")
        return values.astype(ml_dtypes.bfloat16 if self.dtype == "bfloat16" else self.dtype, copy=False)

    def labels(self):
        """One label for each position."""
        positions = list(self.shape)
        classes = positions.pop(self.axis)
        return np.random.default_rng(1).integers(0, classes, positions)

    def data(self):
        """Return what an implementation is made from."""
        return self.logits(), self.labels(), self.axis

    def about(self, operator):
        """What the results say of this case."""
        return {"shape": self.shape, "dtype": self.dtype, "axis": self.axis, "bytes": self.bytes}


# From a batch of digits (10 classes) over ImageNet (1000) to vocabularies (32000: Llama 2, 128256: Llama 3).
ROWS = [(32, 10), (256, 10), (4096, 10), (65536, 64), (128, 1000), (4096, 1000), (512, 32000), (256, 128256)]
OTHER_DTYPES = ["float64", "float16", "bfloat16"]
# Pixels with 21 classes (Pascal VOC) and 150 (ADE20K); the classes lie on axis 1.
IMAGES = [(8, 21, 256, 256), (2, 150, 128, 128)]
# Few positions that are neighbours, of many classes on axis 1.
FEW = (512, 1000, 7)

FULL = [Case(shape) for shape in ROWS]
FULL += [Case(shape, dtype) for dtype in OTHER_DTYPES for shape in [(4096, 1000), (512, 32000)]]
FULL += [Case(shape, axis=1) for shape in [*IMAGES, FEW]]

# One small call, one that fills the threads, one in 16 bits and one with the classes on axis 1.
QUICK = [Case((32, 10)), Case((4096, 1000)), Case((4096, 1000), "bfloat16"), Case((2, 150, 128, 128), axis=1)]
LOGITS = FULL, QUICK
# Each compilation takes seconds.
QUICK_COMPILED = [Case((4096, 1000))]
