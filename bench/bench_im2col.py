"""The im2col matrix of images, and its transpose."""

import conv_peers
import layers

CASES, PEERS = layers.IM2COL, conv_peers.PEERS
OPERATORS = ["im2col", "col2im"]


def test_im2col(compare_case, operator, case, name):
    compare_case(operator, case, name)
