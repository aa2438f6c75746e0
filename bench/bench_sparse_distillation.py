"""Distillation from the 64 largest probabilities of a teacher, alone and with its gradient."""

from cases import Case
from peers import sparse_distillation

FULL = [Case((4096, 1000)), Case((512, 32000)), Case((256, 128256)), Case((512, 32000), "bfloat16")]
CASES, PEERS = (FULL, [Case((4096, 1000))]), sparse_distillation.PEERS
OPERATORS = [f"sparse_distillation_loss{part}" for part in ["", "_value_and_grad"]]


def test_sparse_distillation(compare_case, operator, case, name):
    compare_case(operator, case, name)
