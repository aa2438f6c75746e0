"""Softmax, log-softmax and log-sum-exp, with outputs that are reused."""

import cases
import peers

CASES, PEERS = cases.LOGITS, peers.PEERS
OPERATORS = ["softmax", "log_softmax", "logsumexp"]


def test_softmax(compare_case, operator, case, name):
    compare_case(operator, case, name)
