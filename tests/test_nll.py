"""nll_loss, its gradient and the pair of both, against the reference."""

import numpy as np
import pytest
from helpers import (
    ZOO,
    assert_ulp,
    differences,
    of_zoo,
    random_labels,
    random_logits,
    random_weights,
    reference,
    wide,
)
from hypothesis import given
from hypothesis import strategies as st
from tolerances import DIFFERENCES, EPS64, bound

import xent

REDUCTIONS = ["none", "sum", "mean", "mean_valid", "mean_full", "mean_batch"]
SHAPES = [((1, 1), -1), ((9, 5), -1), ((300, 3), 1), ((2, 7, 40), -1), ((3, 17, 5, 7), 1), ((4, 2, 65), -2)]


def case(shape, axis, dtype, seed=0, ignored=0.2):
    """Log-probabilities and labels of which some are ignored."""
    log_probs = xent.log_softmax(random_logits(shape, dtype, seed), axis)
    positions = np.delete(shape, axis)
    return log_probs, random_labels(tuple(positions), shape[axis], seed, ignored)


def assert_nll(log_probs, target, given=None, what="", **options):
    """Assert the three functions against the reference; `given` are the same values in other layouts."""
    given = given or (log_probs, target)
    dtype = log_probs.dtype
    positions = max(np.size(target), 1)
    loss = reference("nll_loss", log_probs, target, **options)
    grad = reference("nll_loss_grad", log_probs, target, **options)
    both = xent.nll_loss_value_and_grad(*given, **options)
    loss_bound, grad_bound = bound("loss", dtype, positions), bound("gradient", dtype, positions)
    for result in [xent.nll_loss(*given, **options), both[0]]:
        assert_ulp(
            result, loss, loss_bound, dtype=dtype, slack=positions**0.5 * EPS64 * np.abs(loss), what=what
        )
    for result in [xent.nll_loss_grad(*given, **options), both[1]]:
        assert_ulp(
            result, grad, grad_bound, dtype=dtype, slack=positions**0.5 * EPS64 * np.abs(grad), what=what
        )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape, axis", SHAPES)
def test_against_the_reference(shape, axis, weighted, dtype):
    log_probs, target = case(shape, axis, dtype)
    weight = random_weights(shape[axis], dtype) if weighted else None
    for reduction in REDUCTIONS:
        assert_nll(log_probs, target, what=reduction, axis=axis, weight=weight, reduction=reduction)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_no_positions(reduction, dtype):
    assert_nll(np.zeros((0, 4), dtype), np.zeros(0, int), reduction=reduction)


def test_one_position_gives_a_scalar(dtype):
    log_probs = xent.log_softmax(random_logits((5,), dtype))
    for reduction in ["none", "sum", "mean"]:
        result = xent.nll_loss(log_probs, 3, reduction=reduction)
        assert isinstance(result, dtype.type)
        assert result == -log_probs[3]


@pytest.mark.parametrize("variant", ZOO)
def test_every_memory_layout(variant, dtype):
    log_probs, target = case((3, 5, 4), 1, dtype)
    weight = random_weights(5, dtype)
    given = (of_zoo(variant, log_probs), of_zoo(variant, target))
    assert_nll(log_probs, target, given, axis=1, weight=weight)
    loss = xent.nll_loss(*given, axis=1, weight=of_zoo(variant, weight))
    assert_ulp(loss, xent.nll_loss(*given, axis=1, weight=weight), 0, dtype=dtype)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_grad_output(reduction, dtype):
    log_probs, target = case((6, 5, 3), 1, dtype)
    options = {"axis": 1, "reduction": reduction, "weight": random_weights(5, dtype)}
    shape = target.shape if reduction == "none" else ()
    upstream = np.asarray(random_logits(shape, dtype, seed=9))
    expected = reference("nll_loss_grad", log_probs, target, grad_output=upstream, **options)
    result = xent.nll_loss_grad(log_probs, target, grad_output=upstream, **options)
    assert_ulp(
        result, expected, bound("gradient", dtype, target.size), dtype=dtype, slack=8 * EPS64 * abs(expected)
    )
    ones = xent.nll_loss_grad(log_probs, target, grad_output=np.ones(shape, dtype), **options)
    assert_ulp(ones, xent.nll_loss_grad(log_probs, target, **options), 0, dtype=dtype)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
def test_gradient_is_the_derivative(reduction, weighted):
    log_probs, target = case((3, 4, 2), 1, np.dtype(np.float64))
    upstream = random_logits(target.shape if reduction == "none" else (), np.float64, seed=1, scale=1.0)
    options = {
        "axis": 1,
        "reduction": reduction,
        "weight": random_weights(4, np.float64) if weighted else None,
    }
    expected = differences(
        lambda v: np.sum(upstream * reference("nll_loss", v, target, **options)), log_probs
    )
    for function in [xent.nll_loss_grad, xent.reference.nll_loss_grad]:
        grad = function(log_probs, target, grad_output=upstream, **options)
        assert np.allclose(grad, expected, rtol=0, atol=30 * DIFFERENCES)


def test_out(dtype):
    log_probs, target = case((6, 5), -1, dtype)
    expected = xent.nll_loss_grad(log_probs, target)
    for function in [xent.nll_loss_grad, lambda *a, **o: xent.nll_loss_value_and_grad(*a, **o)[1]]:
        for out in [np.full(log_probs.shape, 7, dtype), np.full((5, 6), 7, dtype).T, log_probs.copy()]:
            assert function(log_probs, target, out=out) is out
            assert_ulp(out, expected, 0, dtype=dtype)
    overwritten = log_probs.copy()
    loss, grad = xent.nll_loss_value_and_grad(overwritten, target, out=overwritten)
    assert grad is overwritten
    assert_ulp(grad, expected, 0, dtype=dtype)
    assert_ulp(loss, xent.nll_loss(log_probs, target), 0, dtype=dtype)


def test_means_over_nothing_are_zero(dtype):
    log_probs, _ = case((4, 3), -1, dtype)
    ignored = np.full(4, -100)
    nothing = [
        (log_probs, ignored, {}),
        (log_probs[:0], ignored[:0], {}),
        (log_probs, np.zeros(4, int), {"weight": np.array([0, 1, 1], dtype)}),
    ]
    for values, target, options in nothing:
        for reduction in ["mean", "mean_valid", "mean_full", "mean_batch"]:
            loss, grad = xent.nll_loss_value_and_grad(values, target, reduction=reduction, **options)
            assert loss == 0
            assert not grad.any()


@given(data=st.data())
def test_any_shape_and_options(data):
    dtype = np.dtype(data.draw(st.sampled_from(["f4", "f8"])))
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    reductions = REDUCTIONS if axis % len(shape) else REDUCTIONS[:-1]
    ignore_index = data.draw(st.sampled_from([-100, -1, 0, 2, 255]))
    log_probs = xent.log_softmax(random_logits(shape, dtype), axis)
    positions = tuple(int(n) for n in np.delete(shape, axis))
    target = random_labels(positions, shape[axis], 1, data.draw(st.floats(0, 1)), ignore_index)
    assert_nll(
        log_probs,
        target,
        axis=axis,
        ignore_index=ignore_index,
        weight=random_weights(shape[axis], dtype) if data.draw(st.booleans()) else None,
        reduction=data.draw(st.sampled_from(reductions)),
    )


def test_weights_of_either_sign(dtype):
    x, y = -np.abs(random_logits((60, 7), dtype)), np.arange(60) % 7
    weight = np.array([1.5, -0.75, 0, 2, -3, 0.5, 1])
    grad = xent.nll_loss_grad(x, y, weight=weight)
    for reduction in ("none", "sum", "mean", "mean_valid"):
        loss = xent.nll_loss(x, y, weight=weight, reduction=reduction)
        expected = reference("nll_loss", x, y, weight=weight, reduction=reduction)
        scale = np.abs(reference("nll_loss", x, y, weight=weight, reduction="none")).sum()
        assert_ulp(loss, expected, 8, dtype=dtype, scale=scale if reduction != "none" else None)
    np.testing.assert_allclose(grad, reference("nll_loss_grad", x, y, weight=weight), rtol=1e-6)
    for bad in (np.nan, np.inf, -np.inf):  # label 2 is not there
        x[y == 2] = bad
        np.testing.assert_array_equal(xent.nll_loss_grad(x, y, weight=weight), grad)
        assert np.isfinite(xent.nll_loss(x, y, weight=weight))


@pytest.mark.parametrize("size", [1.0, 1e-310, 1e308, -1e300, 5e-324])
def test_means_over_weights_of_any_size(size, dtype):
    x, y = np.array([[-1, -2], [-0.5, -4]], dtype), [1, 0]
    loss, grad = xent.nll_loss_value_and_grad(x, y, weight=[size, size])
    assert loss == 1.25
    np.testing.assert_array_equal(grad, [[0, -0.5], [-0.5, 0]])
    loss = xent.nll_loss(x.astype(np.float64) * 2, y, weight=[size / 4, size / 4], reduction="mean_full")
    np.testing.assert_allclose(loss, size / 4 * 2.5, rtol=1e-15, atol=1e-323)


@pytest.mark.parametrize("axis", [-1, 0])
def test_weights_that_cancel_divide_by_0(axis, dtype):
    """As in IEEE arithmetic: x / 0 is infinite, 0 / 0 NaN. What is ignored is 0, and all of weights of 0."""
    log_probs, _ = case((5, 3), -1, dtype, ignored=0.0)
    target = np.array([0, 1, -100, 2, 0])
    with np.errstate(all="raise"):
        for weight in [[1, -2, 0], [1e300, -2e300, 0], [1e-300, -2e-300, 0], [1, -2, -5], [0, 0, 0]]:
            for options in [{}, {"grad_output": -3.0}, {"grad_output": 0.0}]:
                options = {"weight": weight, "axis": axis, **options}
                x = np.moveaxis(log_probs, -1, axis)
                grad = xent.nll_loss_grad(x, target, **options)
                with np.errstate(all="ignore"):
                    expected = xent.reference.nll_loss_grad(wide(x), target, **options)
                np.testing.assert_allclose(wide(grad), expected, rtol=1e-2)
                options.pop("grad_output", None)
                with np.errstate(all="ignore"):
                    expected = xent.reference.nll_loss(wide(x), target, **options)
                loss, again = xent.nll_loss_value_and_grad(x, target, **options)
                assert loss.dtype == xent.nll_loss(x, target, axis=axis).dtype
                np.testing.assert_allclose(
                    [loss, xent.nll_loss(x, target, **options)], [expected] * 2, rtol=1e-2
                )
    assert not np.isfinite(xent.nll_loss(log_probs, target, weight=[1, -2, 0]))
    assert not wide(again).any()
