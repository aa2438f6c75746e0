"""Log-probability and greediness of sequences of 16 labels, beside the loss alone."""

from dataclasses import dataclass

import cases
import numpy as np
from peers import sequences

LENGTH = 16  # as short as the answers of benchmarks of language models


@dataclass(frozen=True)
class Sequences(cases.Case):
    """Logits, labels of which all in the even sequences have the largest logit, and the sequences."""

    def data(self):
        """Return what an implementation is made from."""
        x, groups = self.logits(), np.arange(self.shape[0]) // LENGTH
        return x, np.where(groups % 2, self.labels(), x.argmax(-1)), groups


FULL = [Sequences((4096, 1000)), Sequences((512, 32000)), Sequences((512, 32000), "bfloat16")]
CASES, PEERS = (FULL, FULL[:1]), sequences.PEERS
OPERATORS = ["evaluate_sequences"]


def test_sequences(compare_case, operator, case, name):
    compare_case(operator, case, name)
