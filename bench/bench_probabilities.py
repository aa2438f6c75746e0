"""Losses of probabilities and the distillation loss, alone and with their gradients."""

import cases
import probability_peers

CASES, PEERS = cases.LOGITS, probability_peers.PEERS
OPERATORS = ["entropy"]
OPERATORS += [f"{name}{part}" for name in probability_peers.OPERATORS for part in ["", "_value_and_grad"]]


def test_probabilities(compare_case, operator, case, name):
    compare_case(operator, case, name)
