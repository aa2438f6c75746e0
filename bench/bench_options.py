"""Mean cross-entropy with its gradient, with one of its options at a time."""

import options_peers
from cases import Case

QUICK = [Case((32, 10)), Case((4096, 1000))]
FULL = [*QUICK, Case((4096, 10)), Case((512, 32000)), Case((4096, 1000), "float64")]
CASES, PEERS, OPERATORS = (FULL, QUICK), options_peers.PEERS, options_peers.OPERATORS


def test_options(compare_case, operator, case, name):
    compare_case(operator, case, name)
