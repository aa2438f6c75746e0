"""Losses of probabilities and the distillation loss, alone and with their gradients."""

import cases
from peers import probabilities

CASES, PEERS = cases.LOGITS, probabilities.PEERS
OPERATORS = ["entropy"]
OPERATORS += [f"{name}{part}" for name in probabilities.OPERATORS for part in ["", "_value_and_grad"]]


def test_probabilities(compare_case, operator, case, name):
    compare_case(operator, case, name)
