"""Mean cross-entropy of labels, alone and with its gradient."""

import cases
import peers

CASES, PEERS = cases.LOGITS, peers.PEERS
OPERATORS = ["cross_entropy", "cross_entropy_value_and_grad"]


def test_cross_entropy(compare_case, operator, case, name):
    compare_case(operator, case, name)
