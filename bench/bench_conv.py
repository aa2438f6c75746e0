"""Convolution on layers of well-known networks: forward, and forward with its three gradients."""

import conv_peers
import layers
import machine
import memory

CASES, PEERS = layers.CONVOLUTIONS, conv_peers.PEERS
OPERATORS = ["conv2d", "conv2d forward+backward"]


def test_conv2d(compare_case, operator, case, name):
    extra = {}
    if name == "xent":
        extra["extra_memory"] = memory.beside_results(operator, case)
    if name.endswith("product"):
        extra["flops"] = machine.product_flops()
    compare_case(operator, case, name, **extra)
