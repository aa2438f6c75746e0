"""Max and average pooling and their backward passes."""

import layers
from peers import conv

CASES, PEERS = layers.POOLING, conv.PEERS
OPERATORS = ["max_pool2d", "max_pool2d_backward", "max_pool2d forward+backward", "avg_pool2d"]
OPERATORS += ["avg_pool2d_backward"]


def test_pool(compare_case, operator, case, name):
    compare_case(operator, case, name)
