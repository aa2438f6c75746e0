"""All that evaluate gives, beside the loss alone; gradient and second derivatives of the loss."""

import cases
from peers import evaluation

CASES, PEERS = cases.LOGITS, evaluation.PEERS
OPERATORS = ["evaluate", "cross_entropy_grad_hess"]


def test_evaluation(compare_case, operator, case, name):
    compare_case(operator, case, name)
