"""The im2col matrix of images, and its transpose."""

import layers
from peers import conv

CASES, PEERS = layers.IM2COL, conv.PEERS
OPERATORS = ["im2col", "col2im"]


def test_im2col(compare_case, operator, case, name):
    compare_case(operator, case, name)
