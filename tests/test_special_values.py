"""NaN, infinities, masks, ties, huge and tiny numbers: what each gives, in every layout and many sizes."""

import numpy as np
import pytest
from helpers import assert_same_bits, assert_ulp, reference
from tolerances import bound

import xent

INF, NAN = np.inf, np.nan
LAYOUTS = [-1, 0]

# logits, softmax, log_softmax, logsumexp
ROWS = {
    "inf among finite": ([INF, 0], [NAN, NAN], [NAN, -INF], INF),
    "two inf": ([INF, INF, 1], [NAN, NAN, NAN], [NAN, NAN, -INF], INF),
    "only inf": ([INF], [NAN], [NAN], INF),
    "only -inf": ([-INF, -INF], [NAN, NAN], [NAN, NAN], -INF),
    "one -inf alone": ([-INF], [NAN], [NAN], -INF),
    "-inf among finite": ([0, -INF, 0], [0.5, 0, 0.5], [-np.log(2), -INF, -np.log(2)], np.log(2)),
    "all but one -inf": ([-INF, 3, -INF], [0, 1, 0], [-INF, 0, -INF], 3),
    "NaN among finite": ([1, NAN, 2], [NAN, NAN, NAN], [NAN, NAN, NAN], NAN),
    "NaN and inf": ([INF, NAN, 2], [NAN, NAN, NAN], [NAN, NAN, NAN], NAN),
    "NaN and -inf": ([-INF, NAN, -INF], [NAN, NAN, NAN], [NAN, NAN, NAN], NAN),
    "huge": ([1e38, -1e38, 0], [1, 0, 0], [0, -2e38, -1e38], 1e38),
    "huge ties": ([3e38, 3e38], [0.5, 0.5], [-np.log(2), -np.log(2)], 3e38),
    "huge and negative": ([-1e30, -1e30, -2e30], [0.5, 0.5, 0], [-np.log(2), -np.log(2), -1e30], -1e30),
    "tiny": ([1e-38, -1e-38], [0.5, 0.5], [-np.log(2), -np.log(2)], np.log(2)),
    "subnormal": ([1e-42, -1e-42], [0.5, 0.5], [-np.log(2), -np.log(2)], np.log(2)),
    "one class": ([1e4], [1], [0], 1e4),
}


def masks(dtype):
    """Rows whose second half is masked with a large negative number; the rest is log(1), log(2), ..."""
    for mask in [-1e9, -1e30, np.finfo(dtype).min, -INF]:
        for half in [1, 2, 5, 8, 40, 300]:
            weights = np.arange(1, half + 1.0)
            yield mask, weights, np.concatenate([np.log(weights), np.full(half, mask)]).astype(dtype)


@pytest.mark.parametrize("axis", LAYOUTS)
@pytest.mark.parametrize("name", ROWS)
def test_softmax_of_special_rows(name, axis, dtype):
    row, p, logp, lse = ROWS[name]
    for function, expected in [("softmax", p), ("log_softmax", logp), ("logsumexp", lse)]:
        result = reference(function, np.array(row, dtype))
        assert np.allclose(result, expected, rtol=1e-6, equal_nan=True), f"reference.{function}"
    for copies in [1, 3, 17]:
        x = np.tile(np.array(row, dtype), (copies, 1))
        x = x if axis == -1 else x.T.copy()
        orient = (lambda a: a) if axis == -1 else np.transpose
        for function, expected in [(xent.softmax, p), (xent.log_softmax, logp)]:
            expected = np.tile(np.array(expected, np.float64), (copies, 1))
            assert_ulp(orient(function(x, axis)), expected, 4, dtype=dtype, what=function.__name__)
        assert_ulp(xent.logsumexp(x, axis), np.full(copies, lse, np.float64), 2, dtype=dtype)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 16, 31, 64, 100, 257, 1000, 5000])
def test_special_values_anywhere_in_a_row(size, dtype):
    # one special value at the start, in the middle or at the end must be seen, whichever lane it falls into
    for place in {0, size // 2, size - 1}:
        for value, lse in [(NAN, NAN), (INF, INF)]:
            x = np.zeros((3, size), dtype)
            x[1, place] = value
            for axis, values in [(-1, x), (0, x.T.copy())]:
                result = xent.logsumexp(values, axis)
                assert_ulp(result, np.array([np.log(size), lse, np.log(size)]), 2, dtype=dtype)
                p = np.moveaxis(xent.softmax(values, axis), axis, -1)
                assert np.isnan(p[1]).all()
                assert_ulp(p[::2], np.full((2, size), 1 / size), bound("probability", dtype), dtype=dtype)
        x = np.full((1, size), -INF, dtype)
        x[0, place] = -3
        assert_ulp(xent.softmax(x), (np.arange(size) == place)[np.newaxis].astype(float), 0, dtype=dtype)
        assert xent.logsumexp(x)[0] == -3


@pytest.mark.parametrize("value", [0.0, -0.0, 1e4, -1e4, 1e30, -1e30, "largest", "lowest", 1e-30])
def test_all_equal(value, dtype):
    value = {"largest": np.finfo(dtype).max, "lowest": np.finfo(dtype).min}.get(value, value)
    for size in [1, 2, 3, 8, 10, 17, 64, 100, 1000]:
        x, what = np.full((5, size), value, dtype), f"of {size} classes"
        for axis, values in [(-1, x), (0, x.T.copy())]:
            p = np.full(values.shape, 1 / size)
            assert_ulp(xent.softmax(values, axis), p, bound("probability", dtype), dtype=dtype, what=what)
            logs = np.full(p.shape, -np.log(size))
            assert_ulp(xent.log_softmax(values, axis), logs, 4, dtype=dtype, what=what)


def test_masked_classes_do_not_count(dtype):
    for mask, weights, row in masks(dtype):
        half = weights.size
        p = xent.softmax(np.tile(row, (3, 1)))
        assert not p[:, half:].any()
        # the logits are rounded logarithms: an error of half an ulp of the largest for each probability
        expected = np.tile(weights / weights.sum(), (3, 1))
        slack = expected * np.finfo(dtype).eps * np.log(weights[-1] + 1)
        assert_ulp(
            p[:, :half], expected, bound("probability", dtype), dtype=dtype, slack=slack, what=f"{mask}"
        )
        loss, grad = xent.cross_entropy_value_and_grad(row[np.newaxis], [half], reduction="none")
        # -(masked logit) + lse; grad is p, but for -1 at the target
        assert_ulp(
            loss, reference("cross_entropy", row[np.newaxis], [half], reduction="none"), 4, dtype=dtype
        )
        assert grad[0, half] == -1
        assert_ulp(grad[0, :half], p[0, :half], 4, dtype=dtype)
        assert not grad[0, half + 1 :].any()


def test_target_of_probability_zero(dtype):
    for size in [2, 9, 33, 300]:
        logits = np.zeros((4, size), dtype)
        logits[:, 1] = -INF
        target = np.array([1, 0, 1, 0])
        for axis, values in [(-1, logits), (0, logits.T.copy())]:
            loss, grad = xent.cross_entropy_value_and_grad(values, target, axis=axis, reduction="none")
            grad = np.moveaxis(grad, axis, -1)
            finite = np.log(size - 1)
            assert_ulp(loss, np.array([INF, finite, INF, finite]), 4, dtype=dtype)
            expected = np.full((4, size), 1 / (size - 1))
            expected[:, 1] = 0
            expected[np.arange(4), target] -= 1
            assert_ulp(grad, expected, 4, dtype=dtype, scale=np.ones(expected.shape))
            assert xent.cross_entropy(values, target, axis=axis) == INF
            assert (grad[::2, 1] == -1).all()


def test_zero_times_log_zero_is_zero_in_targets(dtype):
    for size in [2, 9, 300]:
        logits = np.zeros((1, size), dtype)
        logits[0, 1] = -INF
        target = np.zeros((1, size), dtype)
        target[0, 0] = 1
        loss, grad = xent.cross_entropy_value_and_grad(logits, target)
        assert_ulp(loss, np.log(size - 1), 4, dtype=dtype)
        assert np.isfinite(grad).all()
        target[0, :2] = 0.5
        assert xent.cross_entropy(logits, target) == INF
        logits[0, 1] = NAN
        target[0, :2] = [1, 0]
        assert np.isnan(xent.cross_entropy(logits, target))  # 0 * NaN
    assert xent.cross_entropy(np.array([[0, -INF]], dtype), np.array([[1, 0]], dtype)) == 0
    # smoothing gives the impossible class a share
    assert xent.cross_entropy(np.array([[0, -INF]], dtype), [0], label_smoothing=0.1) == INF


@pytest.mark.parametrize(
    "shape, axis", [((20, 1), -1), ((20, 6), -1), ((20, 300), -1), ((6, 20), 0), ((300, 20), 0)]
)
@pytest.mark.parametrize("place", [0, 7, 8, 19])
def test_nan_spoils_its_own_position_only(place, shape, axis, dtype):
    rng = np.random.default_rng(0)
    clean = rng.standard_normal(shape).astype(dtype)
    spoiled = clean.copy()
    np.moveaxis(spoiled, axis, -1)[place, -1] = NAN
    labels = np.zeros(20, int)
    others = np.arange(20) != place

    def results(x):
        yield np.moveaxis(xent.softmax(x, axis), axis, -1)
        yield np.moveaxis(xent.log_softmax(x, axis), axis, -1)
        yield xent.logsumexp(x, axis)
        for options in [{}, {"label_smoothing": 0.1}]:
            loss, grad = xent.cross_entropy_value_and_grad(x, labels, axis=axis, reduction="none", **options)
            yield loss
            yield np.moveaxis(grad, axis, -1)
        yield np.moveaxis(xent.softmax_backward(clean, x, axis), axis, -1)
        yield np.moveaxis(xent.log_softmax_backward(clean, x, axis), axis, -1)

    for with_nan, without in zip(results(spoiled), results(clean), strict=True):
        room = 8 * np.finfo(dtype).eps * np.abs(without).max()
        assert np.allclose(with_nan[others], without[others], rtol=0, atol=room)
        assert np.isnan(with_nan[place]).any()
    assert np.isnan(xent.softmax(spoiled, axis)).sum() == shape[axis]
    assert np.isnan(xent.cross_entropy_grad(spoiled, labels, axis=axis, reduction="sum")).sum() == shape[axis]
    for reduction in ["sum", "mean", "mean_valid", "mean_full"]:
        assert np.isnan(xent.cross_entropy(spoiled, labels, axis=axis, reduction=reduction))


def test_sigmoid(dtype):
    special = np.array([INF, -INF, NAN, 0, -0.0, 1e30, -1e30, 800, -800], dtype)
    assert_ulp(xent.sigmoid(special), np.array([1, 0, NAN, 0.5, 0.5, 1, 0, 1, 0]), 0, dtype=dtype)
    log_half = np.log(0.5)
    expected = np.array([0, -INF, NAN, log_half, log_half, 0, float(dtype.type(-1e30)), 0, -800])
    assert_ulp(xent.log_sigmoid(special), expected, 1, dtype=dtype)
    # each in every lane
    for function in [xent.sigmoid, xent.log_sigmoid]:
        for value in special:
            for place in range(20):
                x = np.ones(20, dtype)
                x[place] = value
                assert_ulp(function(x)[place : place + 1], function(np.array([value])), 0, dtype=dtype)


def test_nll_of_probability_zero(dtype):
    log_probs = np.array([[0, -INF], [-1, NAN]], dtype)
    assert xent.nll_loss(log_probs, [1, 0], reduction="none").tolist() == [INF, 1]
    assert xent.nll_loss(log_probs, [0, -100], reduction="sum") == 0
    assert np.isnan(xent.nll_loss(log_probs, [0, 1]))
    assert xent.nll_loss_grad(log_probs, [1, 1], reduction="sum").tolist() == [[0, -1], [0, -1]]


def test_empty_arrays(dtype):
    for shape in [(0, 5), (3, 0), (0, 0), (2, 0, 4), (0,)]:
        x = np.zeros(shape, dtype)
        for axis in range(len(shape)):
            for function in [xent.softmax, xent.log_softmax]:
                assert_same_bits(function(x, axis), x)
            positions = np.delete(shape, axis)
            lowest = xent.logsumexp(x, axis)
            assert np.asarray(lowest).dtype == dtype
            assert np.shape(lowest) == tuple(positions)
            assert np.all(lowest == -INF)
        assert xent.logsumexp(x, None) == -INF
        assert_same_bits(xent.sigmoid(x), x)
        assert_same_bits(xent.softmax_backward(x, x), x)


def test_rounding_does_not_produce_negative_losses(dtype):
    logits = np.random.default_rng(1).normal(0, 200, (1000, 9)).astype(dtype)
    loss, grad = xent.cross_entropy_value_and_grad(logits, logits.argmax(1), reduction="none")
    assert (loss >= 0).all()
    assert (grad[np.arange(1000), logits.argmax(1)] <= 0).all()
    assert (np.delete(grad, 0, axis=1).max(1) >= 0).all()


# A weight of 0 means that there is nothing, as with an ignored position, or a mean over nothing -------


@pytest.mark.parametrize("classes", [2, 100])
@pytest.mark.parametrize("order", ["C", "F"])
def test_nan_under_zero_weight(classes, order, dtype):
    x = np.zeros((2, classes), dtype, order=order)
    x[0, 1] = np.nan
    weight = np.ones(classes)
    weight[0] = 0
    loss, grad = xent.cross_entropy_value_and_grad(x, [0, 1], weight=weight, reduction="none")
    assert loss[0] == 0 and (grad[0] == 0).all()
    assert np.isfinite(loss[1]) and np.isfinite(grad[1]).all()
    assert np.isnan(xent.cross_entropy_grad(x, [0, 1], grad_output=0.0)[0]).all()
    assert not xent.cross_entropy_grad(x, np.zeros_like(x)).any()
    loss, grad = xent.cross_entropy_value_and_grad(x, [-100, -100])
    assert loss == 0 and not grad.any()


def test_infinite_loss_without_weight():
    x = [[-np.inf, 0.0]]
    for function in (xent.cross_entropy, xent.nll_loss):
        assert function(x, [0], weight=[0, 1.0], reduction="sum") == 0


def test_losses_beyond_float32():
    x = np.array([[3e38, -3e38]], np.float32)
    assert xent.cross_entropy(x, [1]) == np.inf
    np.testing.assert_array_equal(xent.cross_entropy(x, [1], reduction="none"), [np.inf])
    assert xent.logsumexp([np.inf, 1000.0], b=[1, 1]) == np.inf
