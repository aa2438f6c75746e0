"""Log-probabilities of 8 classes a position, and their ranks, beside the log-sum-exp alone."""

from dataclasses import dataclass

import cases
import numpy as np
from peers import tokens

IDS = 8


@dataclass(frozen=True)
class Tokens(cases.Case):
    """Logits and ids: of the largest logits, which servers of language models ask for, or drawn at random."""

    ids: str = "random"

    def __str__(self):
        return f"{super().__str__()} {self.ids} ids"

    def data(self):
        """Return what an implementation is made from."""
        x, classes = self.logits(), self.shape[-1]
        if self.ids == "top":
            order = np.argpartition(x.astype(np.float32), classes - IDS, axis=-1)
            return x, order[..., classes - IDS :].copy()
        return x, np.random.default_rng(1).integers(0, classes, (*self.shape[:-1], IDS))


SHAPES = [((4096, 1000), "float32"), ((512, 32000), "float32"), ((512, 128256), "bfloat16")]
FULL = [Tokens(shape, dtype, ids=ids) for shape, dtype in SHAPES for ids in ("top", "random")]
CASES, PEERS = (FULL, FULL[:1]), tokens.PEERS
OPERATORS = ["token_log_probs", "token_log_probs ranks"]


def test_tokens(compare_case, operator, case, name):
    compare_case(operator, case, name)
