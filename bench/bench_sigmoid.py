"""Mean sigmoid cross-entropy, alone and with its gradient; weighted, and focal; second derivatives."""

from dataclasses import dataclass

import cases
import numpy as np
from peers import sigmoid


@dataclass(frozen=True)
class Case(cases.Case):
    """Logits of one shape and dtype with targets of 0 and 1, and a positive weight for each class."""

    def data(self):
        """Return what an implementation is made from."""
        x, rng = self.logits(), np.random.default_rng(1)
        return (
            x,
            rng.integers(0, 2, self.shape).astype(x.dtype),
            rng.uniform(1, 5, self.shape[1]).astype(x.dtype),
        )


SHAPES = [(32, 10), (4096, 1000), (512, 32000)]
FULL = [Case(shape, dtype) for dtype in ("float32", "float64") for shape in SHAPES]
FULL += [Case((4096, 1000), scale=100.0)]  # most exponentials are no normal floats
QUICK = [Case((32, 10)), Case((4096, 1000))]
CASES, PEERS = (FULL, QUICK), sigmoid.PEERS
OPERATORS = [
    "sigmoid_cross_entropy",
    "sigmoid_cross_entropy_value_and_grad",
    "sigmoid_cross_entropy_value_and_grad weighted",
    "sigmoid_cross_entropy_value_and_grad focal",
    "sigmoid_cross_entropy_grad_hess",
]


def test_sigmoid_cross_entropy(compare_case, operator, case, name):
    compare_case(operator, case, name)
