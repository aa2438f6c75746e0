"""All that evaluate gives, beside the loss alone; gradient and second derivatives of the loss."""

import cases
import evaluation_peers

CASES, PEERS = cases.LOGITS, evaluation_peers.PEERS
OPERATORS = ["evaluate", "cross_entropy_grad_hess"]


def test_evaluation(compare_case, operator, case, name):
    compare_case(operator, case, name)
