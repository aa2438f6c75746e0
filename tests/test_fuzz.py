"""Calls at random of every public function, each held against the reference: tests/fuzz says how."""

import pytest
from fuzz.calls import FUNCTIONS
from fuzz.judge import fuzz

import xent

CALLS = 40  # of each function: a few seconds; more of them with python -m tests.fuzz


def test_every_function_is_fuzzed():
    controls = {
        "Comparison", "Evaluation", "PreparedWeight", "SequenceEvaluation", "__version__", "get_num_threads",
        "num_threads", "reference", "set_num_threads", "set_result_cache", "show_config",
    }  # fmt: skip
    assert set(FUNCTIONS) == set(xent.__all__) - controls


@pytest.mark.parametrize("name", FUNCTIONS)
def test_random_calls(name):
    judged = [fuzz(0, number, name, number == CALLS - 1) for number in range(CALLS)]
    assert len(judged) - judged.count("refused") > CALLS // 4
