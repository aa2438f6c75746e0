"""The examples run and reach what they promise."""

import re

import pytest
from helpers import ROOT, run_python


def output(example, *args):
    """What an example prints."""
    pytest.importorskip("sklearn")
    # convnet.py lies beside the examples that import it, where a safe path does not look.
    done = run_python(str(ROOT / "examples" / example), *args, MPLBACKEND="Agg", PYTHONSAFEPATH="")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "example, args, expected",
    [("iris.py", [], 0.96), ("lenet.py", ["--steps", "40"], 0.8), ("cifar.py", ["--steps", "3"], 0)],
)
def test_accuracy(example, args, expected):
    printed = output(example, *args)
    accuracy = re.search(r"test accuracy[: ]+(\d\.\d+)", printed)
    assert accuracy, printed
    assert float(accuracy[1]) >= expected


@pytest.mark.parametrize("example", ["lenet.py", "cifar.py"])
def test_comparison(example):
    """Times xent; where PyTorch is installed, also checks that it computes the same losses."""
    assert re.search(r"^xent +\d+\.\d\d / \d+\.\d\d ms$", output(example, "--compare", "--rounds", "1"), re.M)


def test_resnet():
    """Two steps, the second on other images; where PyTorch is installed, --compare checks the losses."""
    printed = output("resnet.py", "--steps", "2", "--batch", "4")
    assert re.findall(r"^step (\d): training loss \d\.\d{4}$", printed, re.M) == ["1", "2"]


def test_boosting():
    """The trees of xent's objective are those of the libraries' own; two rounds of each."""
    pytest.importorskip("lightgbm")
    pytest.importorskip("xgboost")
    printed = output("boosting.py", "--rounds", "2", "--repeats", "1")
    assert re.findall(r'^(\w+) .* the rule "(\w+)"', printed, re.M) == [
        ("LightGBM", "friedman"),
        ("XGBoost", "upper"),
    ]
    assert len(re.findall(r"^xent .* 20 of 20 trees", printed, re.M)) == 2


def test_softmax_regression():
    """The coefficients are scikit-learn's, and the frequencies of the classes help the rare ones."""
    printed = output("softmax_regression.py", "--repeats", "1", "--splits", "1")
    difference = re.search(r"difference of a coefficient: (\d\.\de-\d+)$", printed, re.M)
    assert float(difference[1]) <= 1e-4
    without, adjusted = (float(value) for value in re.findall(r"prior +(0\.\d{4})$", printed, re.M))
    assert adjusted >= without + 0.1


@pytest.mark.slow
def test_dask_regression():
    """More data than the workers have memory, and the weights are found."""
    pytest.importorskip("distributed")
    printed = output("dask_regression.py", "--mb", "1200", "--iterations", "4")
    found, best = re.search(r"^accuracy (0\.\d+), .* from (0\.\d+)$", printed, re.M).groups()
    assert float(found) >= 0.98 * float(best)
