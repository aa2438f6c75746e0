"""The examples run and reach what they promise."""

import re

import pytest
from helpers import ROOT, run_python


def test_iris():
    pytest.importorskip("sklearn")
    done = run_python(str(ROOT / "examples" / "iris.py"), MPLBACKEND="Agg")
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"test accuracy[: ]+(\d\.\d+)", done.stdout)
    assert accuracy, done.stdout
    assert float(accuracy[1]) >= 0.96
