"""Softmax, log-softmax and log-sum-exp, with outputs that are reused."""

import cases
from peers import softmax

CASES, PEERS = cases.LOGITS, softmax.PEERS
OPERATORS = ["softmax", "log_softmax", "logsumexp"]


def test_softmax(compare_case, operator, case, name):
    compare_case(operator, case, name)
