"""Convolution on layers of well-known networks: forward, and forward with its three gradients."""

import layers
import machine
import memory
from peers import conv

CASES, PEERS = layers.CONVOLUTIONS, conv.PEERS
OPERATORS = ["conv2d", "conv2d forward+backward"]


def test_conv2d(compare_case, operator, case, name):
    extra = {}
    if name == "xent":
        extra["extra_memory"] = memory.beside(conv.Xent(*case.data()).call(operator))
    if name.endswith("product"):
        extra["flops"] = machine.product_flops()
    compare_case(operator, case, name, **extra)
