"""Instruction sets: each that this machine has passes the numeric tests; others are refused at import."""

import pytest
from helpers import ROOT, run_python

import xent

CONFIG = xent.show_config(mode="dicts")
KNOWN = ["baseline", "avx2", "avx512", "neon"]
OTHERS = [isa for isa in CONFIG["isa_usable"] if isa != CONFIG["isa"]]
NUMERIC = [
    "test_vmath.py",
    "test_accuracy.py",
    "test_layout.py",
    "test_softmax.py",
    "test_sigmoid.py",
    "test_cross_entropy.py",
    "test_nll.py",
    "test_evaluate.py",
    "test_sixteen_bits.py",
    "test_conv.py",
    "test_pool.py",
    "test_special_values.py",
    pytest.param("test_cross_entropy_options.py", marks=pytest.mark.slow),
    pytest.param("test_second_order.py", marks=pytest.mark.slow),
    pytest.param("test_sigmoid_cross_entropy.py", marks=pytest.mark.slow),
    pytest.param("test_probabilities.py", marks=pytest.mark.slow),
    pytest.param("test_linear.py", marks=pytest.mark.slow),
]

WHICH = "import xent; print(xent.show_config(mode='dicts')['isa'])"


def test_what_is_in_use_can_be_used_and_what_can_be_used_was_built():
    assert CONFIG["isa"] in CONFIG["isa_usable"]
    assert set(CONFIG["isa_usable"]) <= set(CONFIG["isa_built"]) <= set(KNOWN)
    assert CONFIG["isa_usable"][0] == CONFIG["isa_built"][0], "the plainest runs everywhere"


@pytest.mark.parametrize("isa", CONFIG["isa_usable"])
def test_the_variable_decides(isa):
    done = run_python("-c", WHICH, XENT_ISA=isa)
    assert done.stdout.strip() == isa, done.stderr


@pytest.mark.parametrize("isa", OTHERS)
@pytest.mark.parametrize("name", NUMERIC)
def test_numeric_tests_on(isa, name):
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", "-k", "not large"]
    done = run_python("-m", "pytest", *options, str(ROOT / "tests" / name), timeout=300, XENT_ISA=isa)
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
