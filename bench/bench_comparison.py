"""How far the predictions of a model are from another's, without labels and with them."""

from dataclasses import dataclass

import cases
import numpy as np
from peers import comparison

NOISE = 0.1  # what the second model's logits differ by, in standard deviations of the first's


@dataclass(frozen=True)
class Models(cases.Case):
    """Logits of a model and of one that is a little off, such as a quantised one, and labels."""

    def data(self):
        """Return what an implementation is made from."""
        a = self.logits()
        noise = np.random.default_rng(2).standard_normal(self.shape, dtype=np.float32)
        return a, (a + NOISE * noise).astype(a.dtype), self.labels()


FULL = [Models((4096, 1000)), Models((512, 32000)), Models((512, 32000), "bfloat16")]
CASES, PEERS = (FULL, FULL[:1]), comparison.PEERS
OPERATORS = ["compare", "compare labels"]


def test_comparison(compare_case, operator, case, name):
    compare_case(operator, case, name)
