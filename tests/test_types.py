"""The types of the stubs are those of the results."""

import importlib.resources
import runpy
import types
import typing

import numpy as np
import pytest
from helpers import ROOT

import xent


def meaning(expected):
    """What an alias stands for, as NDArray is one in NumPy 2.5."""
    alias, arguments = typing.get_origin(expected) or expected, typing.get_args(expected)
    if not hasattr(alias, "__value__"):
        return expected
    return meaning(alias.__value__[arguments] if arguments else alias.__value__)


def is_of(value, expected):
    """Whether a value has a type, as far as types say something about values."""
    expected = meaning(expected)
    origin, parts = typing.get_origin(expected), typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        return any(is_of(value, part) for part in parts)
    if origin is np.ndarray:
        (scalars,) = typing.get_args(parts[1])  # of np.dtype
        return type(value) is np.ndarray and value.dtype.type in (typing.get_args(scalars) or (scalars,))
    if origin is tuple:
        return type(value) is tuple and len(value) == len(parts) and all(map(is_of, value, parts))
    return isinstance(value, origin or expected)


def test_results_have_their_types(monkeypatch):
    checked = []

    def assert_type(value, expected):
        assert is_of(value, expected), f"{value!r} is not of type {expected}, after {len(checked)} others"
        checked.append(expected)
        return value

    monkeypatch.setattr(typing, "assert_type", assert_type)
    runpy.run_path(str(ROOT / "tests" / "typed_calls.py"))
    assert len(checked) > 40


@pytest.mark.parametrize("loss", ["cross_entropy", "nll_loss", "mse_loss", "kl_div", "sigmoid_cross_entropy"])
@pytest.mark.parametrize("kind, expected", [("f8", np.float64), ("f4", np.float32), ("f2", np.float32)])
def test_scalars(loss, kind, expected):
    x = np.full((2, 3), 0.25, kind)
    target = np.array([0, 1]) if loss in ("cross_entropy", "nll_loss") else x
    for reduction in ["sum", "mean", "mean_batch"]:
        assert type(getattr(xent, loss)(x, target, reduction=reduction)) is expected
        assert type(getattr(xent, f"{loss}_value_and_grad")(x, target, reduction=reduction)[0]) is expected
    assert type(getattr(xent, loss)(x, target, reduction="none")) is np.ndarray


def test_the_stub_says_nothing_of_any():
    for stub in ["__init__.pyi", "_evaluation.pyi", "_prepared.pyi", "reference/__init__.pyi"]:
        assert "Any" not in importlib.resources.files("xent").joinpath(stub).read_text()
