"""Mean cross-entropy of labels, alone and with its gradient."""

import cases
from peers import cross_entropy

CASES, PEERS = cases.LOGITS, cross_entropy.PEERS
OPERATORS = ["cross_entropy", "cross_entropy_value_and_grad"]


def test_cross_entropy(compare_case, operator, case, name):
    compare_case(operator, case, name)
