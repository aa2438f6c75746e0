"""The ways back through softmax, log-softmax and log-sum-exp, with outputs that are reused."""

import cases
from cases import Case
from peers import softmax_backward

FULL = [Case((4096, 1000)), Case((512, 32000)), Case((4096, 1000), "bfloat16")]
FULL += [Case((65536, 64)), Case((128, 1000)), Case((2, 150, 128, 128), axis=1)]
# Few positions that are neighbours, and as many classes and positions as rows.
FULL += [Case(cases.FEW, axis=1), Case((32, 2000, 3), axis=1), Case((96, 2000))]
# Positions that are neighbours in short stretches, and a class axis that lies last in memory but one.
FULL += [
    Case(shape, dtype, axis=1)
    for dtype in ["float32", "float64", "bfloat16"]
    for shape in [(124, 168, 72), (64, 100, 17)]
]
CASES, PEERS = (FULL, FULL[:1]), softmax_backward.PEERS
OPERATORS = ["softmax_backward", "log_softmax_backward", "logsumexp_backward"]


def test_softmax_backward(compare_case, operator, case, name):
    compare_case(operator, case, name)
