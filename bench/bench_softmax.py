"""Softmax, log-softmax and log-sum-exp, with outputs that are reused."""

OPERATORS = ["softmax", "log_softmax", "logsumexp"]


def test_softmax(compare_case, operator, case, name):
    compare_case(operator, case, name)
