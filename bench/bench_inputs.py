"""Targets of other types than the data's, and data in other orders, beside what needs no conversion."""

import numpy as np
import pytest

import xent

SHAPE = (512, 512)
TARGETS = {
    "float32": lambda t: t.astype(np.float32),
    "float64": lambda t: t,
    "int64": lambda t: (t > 0.5).astype(np.int64),
    "bool": lambda t: t > 0.5,
}
ORDERS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "every other": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "short rows": lambda x: np.pad(x.reshape(-1, 8), [(0, 0), (0, 3)])[:, :-3],
}


def target_calls(operator, dtype):
    """Return name -> call for each type of target beside data of a dtype; the gradient is reused."""
    rng = np.random.default_rng(0)
    x, t = rng.random(SHAPE).astype(dtype), rng.random(SHAPE)
    out, function = np.zeros_like(x), getattr(xent, operator)
    targets = {name: make(t) for name, make in TARGETS.items()}
    return {name: lambda t=t: function(x, t, out=out) for name, t in targets.items()}


def order_calls(operator):
    """Return name -> call for each order of the data in memory; what comes beside it lies in C order."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(SHAPE, dtype=np.float32)
    function = getattr(xent, operator)
    calls = {}
    for name, make in ORDERS.items():
        data = make(x)
        labels = rng.integers(0, data.shape[1], len(data))
        second = labels if operator == "nll_loss" else xent.softmax(x).reshape(data.shape)
        calls[name] = lambda data=data, second=second: function(data, second)
    return calls


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("operator", ["mse_loss_value_and_grad", "sigmoid_cross_entropy_value_and_grad"])
def test_targets(compare, operator, dtype, name):
    group = f"targets beside {dtype} {operator}"
    compare(group, name, lambda: target_calls(operator, dtype), operator=operator, dtype=dtype)


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("operator", ["nll_loss", "cross_entropy", "softmax_backward", "mse_loss"])
def test_orders(compare, operator, name):
    compare(f"orders {operator}", name, lambda: order_calls(operator), operator=operator)
