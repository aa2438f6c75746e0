"""A linear layer and the cross-entropy of its logits: loss and all gradients, beside its three products."""

from dataclasses import dataclass

import memory
import numpy as np
from peers import linear


@dataclass(frozen=True)
class Layer:
    """Positions, features and classes of a layer."""

    positions: int
    features: int
    classes: int

    def __str__(self):
        return f"({self.positions}, {self.features}, {self.classes})"

    def data(self):
        """Return x, weights and labels, for logits of order one; the seed is fixed."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.positions, self.features), dtype=np.float32)
        weight = rng.standard_normal((self.classes, self.features), dtype=np.float32)
        weight *= np.float32(self.features**-0.5)
        return x, weight, rng.integers(0, self.classes, self.positions)

    def about(self, operator):
        """What the results say of this case."""
        sizes = self.positions, self.features, self.classes
        return {"shape": sizes, "dtype": "float32", "bytes": 4 * self.positions * self.classes}


# A small classifier, a word model, and the output layer of Llama 3 for one sequence.
SMALL = [Layer(256, 64, 1000), Layer(1024, 256, 32_000)]
CASES = [*SMALL, Layer(2048, 1024, 128_256)], SMALL[:1]
PEERS = linear.PEERS
OPERATORS = ["linear_cross_entropy", "linear_cross_entropy_value_and_grad"]


def test_linear(compare_case, operator, case, name):
    extra = {}
    if name == "xent":
        extra["extra_memory"] = memory.beside(linear.Xent(*case.data()).call(operator))
        print(f"{operator} {case}: {extra['extra_memory'] / 2**20:.1f} MiB of extra memory")
    compare_case(operator, case, name, **extra)
