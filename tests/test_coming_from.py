"""Each line of docs/coming_from.md is true: SciPy, scikit-learn, and the formulas of Keras and Caffe.

PyTorch and JAX are in tests/peers.
"""

import re

import pytest
from coming_from import CAFFE, KERAS, PAGE, check, inputs, lines

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="there is no docs/ beside an installed test suite")


def test_every_line_is_read():
    """No line of a table of calls is written in a way that the tests do not see."""
    text = PAGE.read_text(encoding="utf-8")
    libraries = re.findall(r"^## (.*)$", text, re.M)
    assert libraries == ["PyTorch", "SciPy", "scikit-learn", "JAX and optax", "Keras", "Caffe"]
    calls = re.findall(r"^\| .*[.(].* \| .*[.(].* \| .*\|$", text, re.M)
    assert sum(len(lines(library)) for library in libraries) == len(calls)


@pytest.mark.parametrize("line", lines("SciPy"), ids=" = ".join)
def test_scipy(line):
    from scipy import signal, special, stats

    check(line, {"special": special, "stats": stats, "signal": signal, **inputs()})


@pytest.mark.parametrize("line", lines("scikit-learn"), ids=" = ".join)
def test_sklearn(line):
    sklearn = pytest.importorskip("sklearn")
    from sklearn import linear_model, metrics
    from sklearn.utils import extmath  # noqa: F401

    from xent.sklearn import SoftmaxRegression

    models = {"LogisticRegression": linear_model.LogisticRegression, "SoftmaxRegression": SoftmaxRegression}
    rtol = 1e-4 if ".fit(" in line[0] else 1e-10  # two minimisers stop at two points
    check(line, {"sklearn": sklearn, "metrics": metrics, **models, **inputs()}, rtol)


@pytest.mark.parametrize("line", lines("Keras"), ids=" = ".join)
def test_keras_formulas(line):
    check(line, {"losses": KERAS, **inputs()}, rtol=1e-6)  # what 1e-7 bounds


@pytest.mark.parametrize("line", lines("Caffe"), ids=" = ".join)
def test_caffe_formulas(line):
    check(line, {**CAFFE, **inputs()})
