"""Mean cross-entropy with its gradient, with one of its options at a time."""

from cases import Case
from peers import cross_entropy

QUICK = [Case((32, 10)), Case((4096, 1000))]
FULL = [*QUICK, Case((4096, 10)), Case((512, 32000)), Case((4096, 1000), "float64")]
FULL += [Case((4096, 1000), scale=300.0)]  # beyond 256, where rows are taken relative to their largest logit
CASES, PEERS = (FULL, QUICK), cross_entropy.PEERS
OPERATORS = [f"cross_entropy_value_and_grad {option}" for option in cross_entropy.OPTIONS]


def test_options(compare_case, operator, case, name):
    compare_case(operator, case, name)
