"""Instruction sets: each that this machine has passes the numeric tests; others are refused at import."""

import pytest
from helpers import ROOT, run_python

import xent

CONFIG = xent.show_config(mode="dicts")
KNOWN = ["baseline", "avx2", "avx512", "neon"]
OTHERS = [isa for isa in CONFIG["isa_usable"] if isa != CONFIG["isa"]]
# Files that run in one process each, of some 20 seconds. Whatever has the same bits on all instruction sets
# is compared by its digests; the fuzzer of CI holds every function against the reference on each.
NUMERIC = [
    "vmath same_bits conv_random pool",
    "accuracy sixteen_bits conv_sixteen_bits special_values",
    pytest.param("conv conv_prepared", marks=pytest.mark.slow),
    pytest.param("softmax softmax_axes tokens cross_entropy nll evaluate sigmoid", marks=pytest.mark.slow),
    pytest.param("cross_entropy_options second_order extreme", marks=pytest.mark.slow),
    pytest.param(
        "sigmoid_cross_entropy probabilities sparse_distillation linear extreme_elements",
        marks=pytest.mark.slow,
    ),
]
# Parts of names of tests that say no more here: finite differences are differences of the reference, with
# which all results are compared; shapes at random come after every shape in order; and the exact answers of
# the longest rows take longest, while `logsumexp_of_many_classes` has a quick oracle for them.
ELSEWHERE = "large or derivative or any_shape or any_row or any_array or subnormal_numbers or digits_of_many"

WHICH = "import xent; print(xent.show_config(mode='dicts')['isa'])"


def test_what_is_in_use_can_be_used_and_what_can_be_used_was_built():
    assert CONFIG["isa"] in CONFIG["isa_usable"]
    assert set(CONFIG["isa_usable"]) <= set(CONFIG["isa_built"]) <= set(KNOWN)
    assert CONFIG["isa_usable"][0] == CONFIG["isa_built"][0], "the plainest runs everywhere"


@pytest.mark.parametrize("isa", CONFIG["isa_usable"])
def test_the_variable_decides(isa):
    done = run_python("-c", WHICH, XENT_ISA=isa)
    assert done.stdout.strip() == isa, done.stderr


def on_others():
    """Each group on each instruction set. The baseline, which few machines need, has one that is not slow."""
    for group in NUMERIC:
        for isa in OTHERS:
            names, marks = (group.values[0], group.marks) if hasattr(group, "marks") else (group, ())
            usual = isa != "baseline" or names.startswith("vmath")
            yield pytest.param(isa, names, marks=marks or (() if usual else pytest.mark.slow))


@pytest.mark.parametrize("isa, names", list(on_others()))
def test_numeric_tests_on(isa, names):
    files = [str(ROOT / "tests" / f"test_{name}.py") for name in names.split()]
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", "-k", f"not ({ELSEWHERE})"]
    done = run_python("-m", "pytest", *options, *files, timeout=600, XENT_ISA=isa)
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize(
    "isa", ["sse9", "AVX2", "avx", "native", *(k for k in KNOWN if k not in CONFIG["isa_usable"])]
)
def test_refused_at_import(isa):
    done = run_python("-c", "import xent", XENT_ISA=isa)
    assert done.returncode != 0
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("ImportError: ")
    for part in ["XENT_ISA", isa, *CONFIG["isa_usable"]]:
        assert part in message
