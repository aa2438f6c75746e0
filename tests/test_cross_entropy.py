"""cross_entropy, its gradient and the pair of both, against the reference, mpmath and finite differences."""

import itertools

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from helpers import (
    CLASS_COUNTS,
    ZOO,
    assert_ulp,
    differences,
    exact,
    exact_cross_entropy,
    exact_cross_entropy_grad,
    exact_rows,
    hard_rows,
    of_zoo,
    position_counts,
    random_labels,
    random_logits,
    random_probabilities,
    random_weights,
    reference,
    targets,
    terms,
)
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from tolerances import DIFFERENCES, EPS64, bound, reference_error

import xent

REDUCTIONS = ["none", "sum", "mean", "mean_valid", "mean_full", "mean_batch"]
KINDS = ["labels", "probabilities"]


def assert_cross_entropy(logits, target, given=None, what="", **options):
    """Assert the three functions against the reference; `given` are the same values in other layouts."""
    given = given or (logits, target)
    dtype, axis = logits.dtype, options.get("axis", -1)
    plain = options.get("weight") is None and np.shape(target) != logits.shape
    plain = plain and not options.get("label_smoothing")
    error = reference_error(logits, axis)
    a, magnitude = terms(logits, target, **options)
    positions = max(a.size, 1)

    loss = reference("cross_entropy", logits, target, **options)
    slack = a * np.squeeze(error, axis) if np.ndim(error) else a * error
    if np.ndim(loss) == 0:
        slack = slack.sum()
    summed = (1 if np.ndim(loss) else positions) + (0 if plain else logits.shape[axis])
    both = xent.cross_entropy_value_and_grad(*given, **options)
    for result in [xent.cross_entropy(*given, **options), both[0]]:
        assert_ulp(result, loss, bound("loss", dtype, summed), dtype=dtype, slack=slack, what=f"loss {what}")

    grad = reference("cross_entropy_grad", logits, target, **options)
    if plain:
        limits = {"bound": bound("gradient", dtype)}
    else:
        summed = logits.shape[axis] if options.get("reduction") in ("none", "sum") else positions
        limits = {"bound": bound("affine_gradient", dtype, summed), "scale": magnitude}
    for result in [xent.cross_entropy_grad(*given, **options), both[1]]:
        assert_ulp(result, grad, dtype=dtype, slack=error * magnitude, what=f"gradient {what}", **limits)


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_every_number_of_classes_and_positions(classes, dtype):
    for positions in position_counts(classes):
        for shape, axis in [((positions, classes), -1), ((classes, positions), 0)]:
            assert_cross_entropy(
                random_logits(shape, dtype),
                targets("labels", shape, axis, dtype),
                axis=axis,
                reduction="none" if positions % 2 else "mean",
                what=f"of {shape} axis {axis}",
            )


# (logits' shape, class axis): few classes and many, on the last axis and on others
SHAPES = [
    ((9, 5), -1), ((70, 3), 1), ((2, 7, 40), -1), ((3, 17, 5, 7), 1), ((4, 2, 65), -2), ((3, 300), -1),
    ((1, 1), 1), ((1, 9), 1),
]  # fmt: skip


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_option(kind, weighted, smoothing, dtype):
    for (shape, axis), reduction in itertools.product(SHAPES, REDUCTIONS):
        assert_cross_entropy(
            random_logits(shape, dtype),
            targets(kind, shape, axis, dtype),
            axis=axis,
            weight=random_weights(shape[axis], dtype) if weighted else None,
            label_smoothing=smoothing,
            reduction=reduction,
            what=f"of {shape} axis {axis} {reduction}",
        )


@pytest.mark.parametrize("kind", KINDS)
def test_options_for_every_number_of_classes(kind, dtype):
    for classes in CLASS_COUNTS:
        for shape, axis in [((18, classes), -1), ((classes, 18), 0)]:
            assert_cross_entropy(
                random_logits(shape, dtype),
                targets(kind, shape, axis, dtype),
                axis=axis,
                weight=random_weights(classes, dtype),
                label_smoothing=0.125,
                what=f"of {shape} axis {axis}",
            )


def assert_exact(x, labels):
    """Assert losses and gradients of the rows of x, and of the columns of its transpose, against mpmath."""
    loss, grad = exact_cross_entropy(x, labels), exact_cross_entropy_grad(x, labels)
    for values, axis in [(x, -1), (x.T.copy(), 0)]:
        options = {"axis": axis, "reduction": "none"}
        both = xent.cross_entropy_value_and_grad(values, labels, **options)
        for result in [xent.cross_entropy(values, labels, **options), both[0]]:
            assert_ulp(result, loss, bound("loss", x.dtype), dtype=x.dtype, what=f"loss, axis {axis}")
        for result in [xent.cross_entropy_grad(values, labels, **options), both[1]]:
            result = np.moveaxis(result, axis, -1)
            assert_ulp(result, grad, bound("gradient", x.dtype), dtype=x.dtype, what=f"gradient, axis {axis}")


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_last_digits(classes, dtype):
    x = random_logits((3, classes), dtype, seed=1, scale=8.0 if classes < 300 else 2.0)
    assert_exact(x, np.array([classes // 2, int(x[1].argmax()), int(x[2].argmin())]))


@pytest.mark.parametrize("name", [name for name, _ in hard_rows(np.float64)])
def test_last_digits_of_hard_rows(name, dtype):
    rows = dict(hard_rows(dtype))
    if name not in rows:
        pytest.skip(f"beyond the range of {dtype}")
    row = np.asarray(rows[name]).astype(dtype)
    labels = np.arange(row.size)
    assert_exact(np.tile(row, (row.size, 1)), labels)  # every class is a target once
    assert_exact(row[np.newaxis], labels[:1])


def test_last_digits_of_many_classes(dtype):
    x = random_logits((1, 20_000), dtype, seed=2, scale=1.0)
    assert_exact(x, np.array([12_345]))
    x[0, 777] = 30  # confident in spite of 20,000 others
    assert_exact(x, np.array([777]))


def test_confident_prediction(dtype):
    loss, grad = xent.cross_entropy_value_and_grad(np.array([[20, 0]], dtype), [0])
    assert abs(loss / 2.061153620314381e-09 - 1) < 4 * np.finfo(dtype).eps
    assert_ulp(grad, np.array([[-2.0611536181902037e-09, 2.0611536181902037e-09]]), 4, dtype=dtype)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_last_digits_of_reduced_losses(reduction, dtype):
    x = random_logits((64, 10), dtype, seed=3, scale=6.0)
    labels = random_labels((64,), 10, seed=3)
    with mp.workprec(160):
        total = -mp.fsum(row.log_probability(y) for row, y in zip(exact_rows(x), labels, strict=True))
        expected = exact([total / (64 if reduction == "mean" else 1)], ())
    result = xent.cross_entropy(x, labels, reduction=reduction)
    assert_ulp(result, expected, bound("loss", dtype, 64), dtype=dtype)


@pytest.mark.parametrize("offset", [0.0, 256.0, -1e4, 1e7])
def test_last_digits_of_smoothed_losses(offset, dtype):
    # terms of one sign: nothing may be lost to cancellation however far the logits are from 0
    x = (random_logits((6, 37), dtype, seed=4) + dtype.type(offset)).astype(dtype)
    labels = random_labels((6,), 37, seed=4)
    weight = random_weights(37, dtype, seed=4)
    e = 0.125
    losses = []
    with mp.workprec(160):
        w = [mp.mpf(float(v)) for v in weight]
        for row, y in zip(exact_rows(x), labels, strict=True):
            logp = [row.log_probability(c) for c in range(37)]
            uniform = mp.fsum(a * b for a, b in zip(w, logp, strict=True)) * e / 37
            losses.append(-(1 - mp.mpf(e)) * w[y] * logp[y] - uniform)
        expected = exact(losses, (6,))
    result = xent.cross_entropy(x, labels, weight=weight, label_smoothing=e, reduction="none")
    assert_ulp(result, expected, bound("loss", dtype, 37), dtype=dtype, what="labels")
    soft = (1 - e) * np.eye(37)[labels] + e / 37
    expected = reference("cross_entropy", x, soft, weight=weight, reduction="none")
    result = xent.cross_entropy(x, soft.astype(dtype), weight=weight, reduction="none")
    rounded = np.finfo(dtype).eps * expected  # of the targets to the dtype
    slack = rounded + reference_error(x)[:, 0] * weight.max()
    assert_ulp(result, expected, bound("loss", dtype, 37), dtype=dtype, slack=slack, what="probabilities")


def test_the_reference_agrees_with_mpmath():
    x = random_logits((40, 30), np.float64)
    labels = random_labels((40,), 30)
    error = reference_error(x)
    assert_ulp(
        reference("cross_entropy", x, labels, reduction="none"),
        exact_cross_entropy(x, labels),
        4,
        dtype=np.float64,
        slack=error[:, 0],
    )
    assert_ulp(
        reference("cross_entropy_grad", x, labels, reduction="sum"),
        exact_cross_entropy_grad(x, labels),
        4,
        dtype=np.float64,
        slack=error,
    )


@pytest.mark.parametrize("variant", ZOO)
@pytest.mark.parametrize("kind", KINDS)
def test_every_memory_layout(kind, variant, dtype):
    for shape, axis in [((7, 5), -1), ((3, 40), -1), ((4, 6, 9), 1), ((11, 4), 0)]:
        logits, what = random_logits(shape, dtype), f"of {shape} axis {axis}"
        target = targets(kind, shape, axis, dtype)
        weight = random_weights(shape[axis], dtype)
        layouts = (of_zoo(variant, logits), of_zoo(variant, target))
        assert_cross_entropy(logits, target, layouts, what, axis=axis, label_smoothing=0.1)
        assert_cross_entropy(logits, target, (layouts[0], target), what, axis=axis, weight=weight)
        result = xent.cross_entropy(logits, target, axis=axis, weight=of_zoo(variant, weight))
        expected = xent.cross_entropy(logits, target, axis=axis, weight=weight)
        assert_ulp(result, expected, 0, dtype=dtype, what=what)


@pytest.mark.parametrize("code", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", ">u8"])
def test_every_label_dtype(code, dtype):
    logits = random_logits((50, 7), dtype)
    labels = random_labels((50,), 7)
    expected = xent.cross_entropy_grad(logits, labels, ignore_index=3)
    assert_ulp(xent.cross_entropy_grad(logits, labels.astype(code), ignore_index=3), expected, 0, dtype=dtype)


@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 4, 255, 10**12])
def test_ignore_index(ignore_index, dtype):
    logits = random_logits((30, 5), dtype)
    labels = random_labels((30,), 5, ignored=0.4, ignore_index=ignore_index)
    kept = labels != ignore_index
    assert 0 < kept.sum() < 30
    options = {"ignore_index": ignore_index, "label_smoothing": 0.1}
    assert_cross_entropy(logits, labels, **options)
    for reduction in ["none", "sum"]:
        loss, grad = xent.cross_entropy_value_and_grad(logits, labels, reduction=reduction, **options)
        alone, alone_grad = xent.cross_entropy_value_and_grad(
            logits[kept], labels[kept], reduction=reduction, label_smoothing=0.1, ignore_index=-100
        )
        if reduction == "none":
            assert not loss[~kept].any()
            loss = loss[kept]
        assert_ulp(loss, alone, bound("loss", dtype, 30), dtype=dtype)
        assert_ulp(grad[kept], alone_grad, 8, dtype=dtype, scale=np.ones(alone_grad.shape))
        assert not grad[~kept].any()


def test_ignored_positions_are_zero_whatever_their_logits(dtype):
    for shape, axis in [((20, 6), -1), ((2, 300), -1), ((6, 20), 0)]:
        logits = random_logits(shape, dtype)
        labels = targets("labels", shape, axis, dtype, ignored=0.0)
        labels[1::2] = -100
        clean = xent.cross_entropy_value_and_grad(logits, labels, axis=axis, reduction="none")
        for spoiler in [np.nan, np.inf, -np.inf]:
            spoiled = logits.copy()
            np.moveaxis(spoiled, axis, -1)[1::2] = spoiler
            loss, grad = xent.cross_entropy_value_and_grad(spoiled, labels, axis=axis, reduction="none")
            assert not loss[1::2].any()
            assert not np.moveaxis(grad, axis, -1)[1::2].any()
            assert_ulp(loss, clean[0], 0, dtype=dtype)
            assert_ulp(grad, clean[1], 0, dtype=dtype)
            assert xent.cross_entropy(spoiled, labels, axis=axis) == xent.cross_entropy(
                logits, labels, axis=axis
            )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_grad_output(kind, reduction, dtype):
    for shape, axis in [((6, 5), -1), ((4, 5, 9), 1), ((2, 300), -1)]:
        logits = random_logits(shape, dtype)
        target = targets(kind, shape, axis, dtype)
        options = {"axis": axis, "reduction": reduction, "label_smoothing": 0.1}
        result_shape = tuple(np.delete(shape, axis)) if reduction == "none" else ()
        upstream = np.asarray(random_logits(result_shape, dtype, seed=9))
        expected = reference("cross_entropy_grad", logits, target, grad_output=upstream, **options)
        result = xent.cross_entropy_grad(logits, target, grad_output=upstream, **options)
        _, magnitude = terms(logits, target, **options)
        magnitude *= np.expand_dims(np.abs(upstream), axis) if reduction == "none" else np.abs(upstream)
        assert_ulp(
            result,
            expected,
            bound("affine_gradient", dtype, logits.size),
            dtype=dtype,
            scale=magnitude,
            slack=reference_error(logits, axis) * magnitude,
        )
        ones = xent.cross_entropy_grad(logits, target, grad_output=np.ones(result_shape, dtype), **options)
        assert_ulp(ones, xent.cross_entropy_grad(logits, target, **options), 0, dtype=dtype)
    if reduction != "none":
        doubled = xent.cross_entropy_grad(logits, target, grad_output=2.0, **options)
        assert_ulp(
            doubled,
            2.0 * xent.cross_entropy_grad(logits, target, **options).astype(np.float64),
            0,
            dtype=dtype,
        )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_derivative(kind, weighted, smoothing, reduction):
    logits = random_logits((3, 4, 2), np.float64, scale=1.0)
    target = targets(kind, (3, 4, 2), 1, np.float64)
    options = {
        "axis": 1,
        "weight": random_weights(4, np.float64) if weighted else None,
        "label_smoothing": smoothing,
        "reduction": reduction,
    }
    upstream = random_logits((3, 2) if reduction == "none" else (), np.float64, seed=1, scale=1.0)
    expected = differences(
        lambda v: np.sum(upstream * reference("cross_entropy", v, target, **options)), logits
    )
    for function in [xent.cross_entropy_grad, xent.reference.cross_entropy_grad]:
        grad = function(logits, target, grad_output=upstream, **options)
        assert np.allclose(grad, expected, rtol=0, atol=30 * DIFFERENCES)


def test_out(dtype):
    for shape, axis in [((6, 5), -1), ((4, 5, 9), 1), ((2, 300), -1)]:
        logits = random_logits(shape, dtype)
        kept = logits.copy()
        target = targets("labels", shape, axis, dtype)
        loss, expected = xent.cross_entropy_value_and_grad(logits, target, axis=axis)
        assert not np.shares_memory(logits, expected)
        for variant in [
            "contiguous",
            "every second element",
            "negative strides",
            "Fortran order",
            "unaligned",
        ]:
            out = of_zoo(variant, np.full(shape, 7, dtype))
            assert xent.cross_entropy_grad(logits, target, out=out, axis=axis) is out
            assert_ulp(out, expected, 8, dtype=dtype, what=variant)
            out[...] = 7
            value, grad = xent.cross_entropy_value_and_grad(logits, target, out=out, axis=axis)
            assert grad is out
            assert_ulp(out, expected, 8, dtype=dtype, what=variant)
            assert_ulp(value, loss, bound("loss", dtype, logits.size), dtype=dtype, what=variant)
        assert np.array_equal(logits, kept)
        value, grad = xent.cross_entropy_value_and_grad(logits, target, out=logits, axis=axis)
        assert grad is logits
        assert_ulp(grad, expected, 0, dtype=dtype, what="in place")
        assert_ulp(value, loss, 0, dtype=dtype, what="in place")
        assert xent.cross_entropy_grad(kept, target, out=kept, axis=axis) is kept
        assert_ulp(kept, expected, 8, dtype=dtype, what="in place")


@pytest.mark.parametrize("shape, axis", [((6, 5), -1), ((4, 5, 9), 1), ((2, 300), -1)])
def test_in_place_with_probability_targets(shape, axis, dtype):
    logits, target = random_logits(shape, dtype), random_probabilities(shape, dtype, axis)
    loss, expected = xent.cross_entropy_value_and_grad(logits, target, axis=axis)
    value, grad = xent.cross_entropy_value_and_grad(logits, target, axis=axis, out=logits)
    assert grad is logits
    assert_ulp(grad, expected, 0, dtype=dtype)
    assert_ulp(value, loss, 0, dtype=dtype)


@pytest.mark.parametrize("reduction", ["mean", "mean_valid", "mean_full", "mean_batch"])
def test_means_over_nothing_are_zero(reduction, dtype):
    logits = random_logits((4, 3), dtype)
    nothing = [
        (logits, np.full(4, -100), {}),
        (logits[:0], np.zeros(0, int), {}),
        (logits[:0], np.zeros((0, 3), dtype), {}),
        (np.zeros((0, 3, 5), dtype), np.zeros((0, 5), int), {"axis": 1}),
        (np.zeros((2, 0), dtype), np.full(2, -100), {}),
    ]
    if reduction == "mean":
        nothing.append(
            (logits, np.zeros(4, int), {"weight": np.array([0, 1, 1], dtype), "label_smoothing": 0.1})
        )
    for values, target, options in nothing:
        loss, grad = xent.cross_entropy_value_and_grad(values, target, reduction=reduction, **options)
        assert isinstance(loss, dtype.type)
        assert loss == 0
        assert grad.shape == values.shape
        assert not grad.any()


def test_reductions_divide_by_what_they_say(dtype):
    logits = random_logits((4, 3, 5), dtype)
    target = random_labels((4, 5), 3)
    target[0, :2] = -100
    weight = np.array([0.5, 1, 2], dtype)
    options = {"axis": 1, "weight": weight}
    total = float(xent.cross_entropy(logits, target, reduction="sum", **options))
    factors = weight[target[target >= 0]].sum()
    for reduction, divisor in [("mean", factors), ("mean_valid", 18), ("mean_full", 20), ("mean_batch", 4)]:
        result = xent.cross_entropy(logits, target, reduction=reduction, **options)
        assert abs(result / (total / divisor) - 1) < 8 * np.finfo(dtype).eps, reduction
    soft = random_probabilities((4, 3, 5), dtype, 1)
    total = float(xent.cross_entropy(logits, soft, reduction="sum", **options))
    for reduction, divisor in [("mean", 20), ("mean_valid", 20), ("mean_full", 20), ("mean_batch", 4)]:
        result = xent.cross_entropy(logits, soft, reduction=reduction, **options)
        assert abs(result / (total / divisor) - 1) < 8 * np.finfo(dtype).eps, reduction


def test_one_position_gives_a_scalar(dtype):
    logits = random_logits((5,), dtype)
    for target in [3, np.int8(3), np.array(3), np.eye(5, dtype=dtype)[3]]:
        for reduction in ["none", "sum", "mean"]:
            result = xent.cross_entropy(logits, target, reduction=reduction)
            assert isinstance(result, dtype.type)
            assert_ulp(result, -xent.log_softmax(logits)[3].astype(np.float64), 8, dtype=dtype)


def test_integer_data_becomes_float64():
    logits = [[1, 2, 3], [4, 0, -1]]
    expected = xent.cross_entropy_value_and_grad(np.array(logits, np.float64), [0, 2])
    for data in [logits, np.array(logits, np.int16)]:
        loss, grad = xent.cross_entropy_value_and_grad(data, [0, 2])
        assert isinstance(loss, np.float64)
        assert_ulp(loss, expected[0], 0, dtype=np.float64)
        assert_ulp(grad, expected[1], 0, dtype=np.float64)


def test_one_hot_targets_are_labels(dtype):
    logits = random_logits((40, 6), dtype)
    labels = random_labels((40,), 6)
    one_hot = np.eye(6, dtype=dtype)[labels]
    for smoothing in [0.0, 0.2]:
        options = {"label_smoothing": smoothing, "reduction": "none"}
        expected = xent.cross_entropy_value_and_grad(logits, labels, **options)
        loss, grad = xent.cross_entropy_value_and_grad(logits, one_hot, **options)
        assert_ulp(loss, expected[0], 2 * bound("loss", dtype, 6), dtype=dtype)
        assert_ulp(grad, expected[1], 8, dtype=dtype, scale=np.ones(grad.shape))


def test_probability_targets_of_another_precision(dtype):
    other = np.dtype("f8" if dtype == np.float32 else "f4")
    logits = random_logits((9, 6), dtype)
    target = random_probabilities((9, 6), np.float32).astype(other)
    assert_cross_entropy(logits, target, weight=random_weights(6, other))


@given(data=st.data())
def test_any_shape_and_options(data):
    dtype = np.dtype(data.draw(st.sampled_from(["f4", "f8"])))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=9))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    ignore_index = data.draw(st.sampled_from([-100, -1, 0, 2, 255]))
    target = targets(
        data.draw(st.sampled_from(KINDS)), shape, axis, dtype, 1, data.draw(st.floats(0, 1)), ignore_index
    )
    assert_cross_entropy(
        random_logits(shape, dtype, scale=data.draw(st.floats(0, 20))),
        target,
        axis=axis,
        ignore_index=ignore_index,
        weight=random_weights(shape[axis], dtype) if data.draw(st.booleans()) else None,
        label_smoothing=data.draw(st.sampled_from([0.0, 1e-3, 0.1, 0.9, 1.0])),
        reduction=data.draw(st.sampled_from(REDUCTIONS if axis % len(shape) else REDUCTIONS[:-1])),
    )


@given(
    row=hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(-600, 600, width=32)),
    single=st.booleans(),
)
def test_last_digits_of_any_row(row, single):
    x = np.tile(row.astype(np.float32 if single else np.float64), (row.size, 1))
    assert_exact(x, np.arange(row.size))


def test_the_gradient_of_a_mean_sums_to_zero_over_the_classes(dtype):
    logits = random_logits((50, 11), dtype)
    grad = xent.cross_entropy_grad(logits, random_labels((50,), 11, ignored=0.3), label_smoothing=0.1)
    assert np.abs(grad.astype(np.float64).sum(-1)).max() < 11 * EPS64 * 2 ** (
        29 if dtype == np.float32 else 0
    )
