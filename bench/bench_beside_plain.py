"""Gradients and second derivatives with an option beside the call without, of labels and of soft targets."""

import numpy as np
import pytest

import xent

SHAPES = [(64, 1000), (1024, 1000), (4096, 10)]
OPTIONS = {
    "plain": {},
    "temperature 2": {"temperature": 2.0},  # quotients by a power of two are exact, by others rounded
    "temperature 2.5": {"temperature": 2.5},
    "gamma 2": {"gamma": 2.0},
    "gamma 1.5": {"gamma": 1.5},  # a power that no products are
    "logit cap": {"logit_cap": 30.0},
    "z-loss": {"z_loss": 1e-4},
}


def calls(operator, target, shape, dtype):
    """Return name -> call with each option; outputs are reused where the function takes some."""
    rng = np.random.default_rng(0)
    x, vector = rng.standard_normal((2, *shape)).astype(dtype)
    given = [x, rng.integers(0, shape[1], shape[0]) if target == "labels" else xent.softmax(vector)]
    if operator == "cross_entropy_hvp":
        given.append(vector)
    outputs = {
        "cross_entropy_value_and_grad": {"out": np.zeros_like(x)},
        "cross_entropy_grad_hess": {"out": (np.zeros_like(x), np.zeros_like(x))},
    }
    function, out = getattr(xent, operator), outputs.get(operator, {})
    return {name: lambda o=options: function(*given, **out, **o) for name, options in OPTIONS.items()}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("target", ["labels", "soft targets"])
@pytest.mark.parametrize(
    "operator", ["cross_entropy_value_and_grad", "cross_entropy_grad_hess", "cross_entropy_hvp"]
)
def test_options_beside_plain(compare, operator, target, shape, dtype, name):
    group = f"options of {operator} {target} {shape} {dtype}"
    compare(group, name, lambda: calls(operator, target, shape, dtype), operator=operator, dtype=dtype)
