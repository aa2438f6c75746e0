"""Max and average pooling and their backward passes."""

import conv_peers
import layers

CASES, PEERS = layers.POOLING, conv_peers.PEERS
OPERATORS = ["max_pool2d", "max_pool2d_backward", "avg_pool2d", "avg_pool2d_backward"]


def test_pool(compare_case, operator, case, name):
    compare_case(operator, case, name)
