"""float16 and bfloat16: every value is read exactly, computed with in float32 and rounded once.

The oracle is the reference in float64 on the same values, exact as far as 16 bits go. Losses and log-sum-exps
stay float32 and are held to the bounds of float32.
"""

import itertools

import ml_dtypes
import numpy as np
import pytest
from helpers import (
    ZOO,
    assert_same_bits,
    assert_ulp,
    exact_cross_entropy,
    exact_cross_entropy_grad,
    exact_log_softmax,
    exact_logsumexp,
    exact_softmax,
    finfo,
    hard_rows,
    of_zoo,
    peak_bytes,
    raises,
    random_labels,
    random_logits,
    random_probabilities,
    random_weights,
    reference,
    run_python,
    targets,
    terms,
    ulp,
    wide,
)
from hypothesis import given
from hypothesis import strategies as st
from tolerances import ROUNDED, bound, temperature_error

import xent
from xent import _check

INF, NAN = np.inf, np.nan
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
FLOATS = [*(np.dtype(name) for name in ["float16", "float32", "float64"]), np.dtype(ml_dtypes.bfloat16)]
CLASS_COUNTS = [1, 2, 3, 7, 8, 10, 16, 17, 33, 64, 65, 100, 1000, 5000]
REDUCTIONS = ["none", "sum", "mean", "mean_valid", "mean_full", "mean_batch"]
KINDS = ["labels", "own dtype", "float32", "float64"]
SHAPES = [((9, 5), -1), ((2, 300), -1), ((4, 6, 9), 1), ((65, 5), 0)]


@pytest.fixture(params=["float16", "bfloat16"])
def dtype(request):
    """The dtypes of 16 bits, in place of those that are computed in as they come."""
    return np.dtype(request.param)


def patterns(dtype):
    """All 65536 numbers of a dtype: both zeros, subnormals, infinities and every NaN."""
    return np.arange(2**16, dtype=np.uint16).view(dtype)


def largest(dtype):
    return float(finfo(dtype).max)


def probabilities_of(shape, dtype, axis=-1, seed=0):
    """softmax outputs that do not depend on what is under test."""
    return reference("softmax", random_logits(shape, F64, seed), axis).astype(dtype)


def log_probabilities_of(shape, dtype, axis=-1, seed=0):
    return reference("log_softmax", random_logits(shape, F64, seed), axis).astype(dtype)


def target_of(kind, shape, axis, dtype, **options):
    """Labels, some of them ignored, or probabilities of the logits' dtype or one with more bits."""
    if kind == "labels":
        return targets("labels", shape, axis, dtype, **options)
    return random_probabilities(shape, dtype if kind == "own dtype" else np.dtype(kind), axis)


def both_layouts(x, *more):
    """Yield (x, ..., axis): classes on contiguous rows, and the same numbers as columns."""
    yield (x, *more, -1)
    yield (*(np.ascontiguousarray(a.T) for a in (x, *more)), 0)


# Assertions -------------------------------------------------------------------------------------------------


def float32_slack(name, scale):
    """What the float32 computation may add to the rounding, where terms of this size cancel."""
    return bound(name, F32) * ulp(scale, F32)


def assert_forward(x, axis=-1, given=None, what=""):
    """Assert softmax, log_softmax and logsumexp of x, or of the same values given in another layout."""
    given = x if given is None else given
    for name in ["softmax", "log_softmax"]:
        result, expected = getattr(xent, name)(given, axis), reference(name, wide(x), axis)
        assert_ulp(result, expected, ROUNDED, dtype=x.dtype, what=f"{name} {what}")
    assert_logsumexp(x, axis, given, what=what)


def assert_logsumexp(x, axis=-1, given=None, what="", **options):
    result = xent.logsumexp(x if given is None else given, axis, **options)
    expected = np.asarray(reference("logsumexp", wide(x), axis, **options))
    with np.errstate(invalid="ignore"):
        top = np.abs(wide(x).max(axis, keepdims=options.get("keepdims", False), initial=-INF))
    scale = np.maximum(np.abs(expected), np.where(np.isfinite(top), top, 0))
    limit = bound("logsumexp", F32)
    assert_ulp(result, expected, limit, dtype=F32, scale=scale, what=f"logsumexp {what}")


def assert_backward(result, name, g, y, axis=-1, what=""):
    """Assert a vector-Jacobian product; at the scale of what it adds up, before the rounding to 16 bits."""
    g64, y64 = np.abs(wide(g)), wide(y)
    if name == "softmax_backward":
        scale = y64 * (g64 + (g64 * y64).sum(axis, keepdims=True))
    else:
        scale = g64 + np.exp(y64) * g64.sum(axis, keepdims=True)
    expected, slack = reference(name, wide(g), y64, axis), float32_slack("backward", scale)
    assert_ulp(result, expected, ROUNDED, dtype=y.dtype, slack=slack, what=f"{name} {what}")


def assert_losses(results, logits, target, narrowed=0, what="", **options):
    """Assert float32 losses. Each of the `narrowed` float64 inputs may be rounded to float32 before use."""
    expected = reference("cross_entropy", wide(logits), target, **options)
    for result in results:
        assert_ulp(result, expected, bound("loss", F32) + narrowed, dtype=F32, what=f"loss {what}")


def assert_gradients(results, logits, target, narrowed=0, factor=1.0, what="", **options):
    """Assert gradients of the logits' dtype, scaled by |grad_output| = factor (with the class axis)."""
    expected = reference("cross_entropy_grad", wide(logits), target, **options)
    options.pop("grad_output", None)
    plain = options.get("weight") is None and not options.get("label_smoothing")
    plain = plain and np.shape(target) != logits.shape
    scale = factor * terms(logits, target, **options)[1]
    slack = narrowed * ulp(scale, F32) + (0.0 if plain else float32_slack("affine_gradient", scale))
    for result in results:
        assert_ulp(result, expected, ROUNDED, dtype=logits.dtype, slack=slack, what=f"gradient {what}")


def assert_cross_entropy(logits, target, given=None, what="", **options):
    """Assert the three functions; `given` are the same values in other layouts."""
    given = given or (logits, target)
    floating = [np.asarray(a).dtype for a in (target, options.get("weight")) if a is not None]
    narrowed = floating.count(F64)
    exact_target = target if np.asarray(target).dtype.kind in "iu" else wide(target)
    loss, grad = xent.cross_entropy_value_and_grad(*given, **options)
    losses = [xent.cross_entropy(*given, **options), loss]
    assert_losses(losses, logits, exact_target, narrowed, what, **options)
    gradients = [xent.cross_entropy_grad(*given, **options), grad]
    assert_gradients(gradients, logits, exact_target, narrowed, what=what, **options)


# The oracle and the reference -------------------------------------------------------------------------------


def hard_cases(dtype):
    """(name, row) of hard_rows that are finite, or masked with -inf, in this dtype."""
    for name, row in hard_rows(dtype):
        with np.errstate(over="ignore"):
            row = np.asarray(row, F64).astype(dtype)
        if not np.isposinf(wide(row)).any() and np.isfinite(wide(row)).any():
            yield name, row


def test_the_oracle_agrees_with_mpmath(dtype):
    for name, row in hard_cases(dtype):
        x, labels = wide(row)[np.newaxis], np.array([row.size // 2])
        pairs = [
            ("softmax", reference("softmax", x), exact_softmax(x)),
            ("log_softmax", reference("log_softmax", x), exact_log_softmax(x)),
            ("logsumexp", reference("logsumexp", x), exact_logsumexp(x)),
            ("loss", reference("cross_entropy", x, labels, reduction="none"), exact_cross_entropy(x, labels)),
            ("gradient", reference("cross_entropy_grad", x, labels), exact_cross_entropy_grad(x, labels)),
        ]
        for function, result, (expected, _) in pairs:
            # a hundred thousand times closer than the float32 results that it judges
            room = 1e-12 * np.abs(x[np.isfinite(x)]).max() if function == "logsumexp" else 1e-30
            assert np.allclose(result, expected, rtol=1e-12, atol=room), f"{function} of {name}"


def twins(dtype):
    """Yield (name, arguments, options) of a call of each function that takes 16 bits."""
    shape, labels = (6, 9), random_labels((6,), 9, ignored=0.2)
    x, g = random_logits(shape, dtype), random_logits(shape, dtype, seed=1)
    y, logp = probabilities_of(shape, dtype), log_probabilities_of(shape, dtype)
    for name in ["softmax", "log_softmax", "logsumexp", "sigmoid", "log_sigmoid"]:
        yield name, (x,), {}
    yield "softmax_backward", (g, y), {}
    yield "log_softmax_backward", (g, logp), {}
    yield "softmax_jacobian", (y,), {}
    for reduction in ["none", "mean"]:
        for part in ["", "_grad", "_value_and_grad"]:
            yield f"cross_entropy{part}", (x, labels), {"reduction": reduction}
            yield f"cross_entropy{part}", (x, y), {"reduction": reduction}
            yield f"nll_loss{part}", (logp, labels), {"reduction": reduction}
            yield f"sigmoid_cross_entropy{part}", (x, y), {"reduction": reduction}


def is_loss(name):
    return name in ("logsumexp", "cross_entropy", "nll_loss", "sigmoid_cross_entropy")


@pytest.mark.parametrize("module", [xent, xent.reference], ids=["compiled", "reference"])
def test_dtypes_of_results(module, dtype):
    for name, args, options in twins(dtype):
        result = getattr(module, name)(*args, **options)
        expected = (F32 if is_loss(name) else dtype,)
        if name.endswith("value_and_grad"):
            expected = (F32, dtype)
        results = result if isinstance(result, tuple) else (result,)
        assert tuple(r.dtype for r in results) == expected, name


def test_the_reference_rounds_its_float64_results(dtype):
    for name, args, options in twins(dtype):
        results = reference(name, *args, **options)
        exact_args = [a if a.dtype.kind == "i" else wide(a) for a in args]
        expected = reference(name, *exact_args, **options)
        if not isinstance(results, tuple):
            results, expected = (results,), (expected,)
        for result, value in zip(results, expected, strict=True):
            # ml_dtypes rounds float64 to float32 before it rounds to bfloat16
            assert_ulp(result, value, 0.5 + 2**-16, dtype=result.dtype, what=name)
        if name.endswith(("softmax", "sigmoid", "backward")):
            out = np.zeros(results[0].shape, dtype)
            assert reference(name, *args, out=out) is out
            assert_same_bits(out, results[0], name)


def test_the_reference_takes_16_bit_targets_and_factors(dtype):
    x, t = random_logits((6, 9), F64), random_probabilities((6, 9), dtype)
    g = np.arange(6.0)
    for function in ["cross_entropy", "cross_entropy_grad"]:
        expected = reference(function, x, wide(t), weight=np.arange(9.0))
        assert_same_bits(reference(function, x, t, weight=np.arange(9.0).astype(dtype)), expected)
    options = {"reduction": "none"}
    expected = reference("cross_entropy_grad", x, t, grad_output=g, **options)
    assert_same_bits(reference("cross_entropy_grad", x, t, grad_output=g.astype(dtype), **options), expected)


# Every number -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sigmoid", "log_sigmoid"])
def test_elementwise_of_every_number(name, dtype):
    x = patterns(dtype)
    result = getattr(xent, name)(x)
    assert_ulp(result, reference(name, wide(x)), ROUNDED, dtype=dtype)
    for size in [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 1000]:
        # from the middle, where numbers are neither tiny nor NaN
        part = slice(0x4000 - size // 2, 0x4000 - size // 2 + size)
        assert_same_bits(getattr(xent, name)(x[part]), result[part], f"{size} numbers")


def test_softmax_of_every_number_and_zero(dtype):
    x = np.zeros((2**16, 2), dtype)
    x[:, 0] = patterns(dtype)
    for values, axis in both_layouts(x):
        assert_forward(values, axis)


def test_cross_entropy_of_every_finite_number_and_zero(dtype):
    # the target is the number, then the zero; in columns, then in rows
    finite = patterns(dtype)[np.isfinite(wide(patterns(dtype)))]
    x = np.stack([finite, np.zeros_like(finite)])
    assert_cross_entropy(x, np.zeros(finite.size, int), axis=0, reduction="none")
    assert_cross_entropy(np.ascontiguousarray(x.T), np.ones(finite.size, int), reduction="none")


@pytest.mark.parametrize("classes", [1, 8, 40])
def test_every_number_is_read_exactly(classes, dtype):
    # whichever lane it falls into: all other classes have probability 0
    x = np.full((2**16, classes), -INF, dtype)
    rows = np.arange(2**16)
    x[rows, rows % classes] = patterns(dtype)
    expected = wide(patterns(dtype))
    for values, axis in both_layouts(x):
        result = xent.logsumexp(values, axis)
        assert_ulp(result, expected, bound("logsumexp", F32), dtype=F32, what=f"axis {axis}")


def between(dtype):
    """Yield (float32 numbers, what each must become): around every midpoint of neighbours of a dtype.

    A midpoint goes to the neighbour whose last bit is 0, the largest one and beyond to infinity.
    """
    lower = np.arange(np.array(INF, dtype).view(np.uint16), dtype=np.uint16)
    # infinity counts as the number after the largest
    values = [wide(p.view(dtype)) for p in (lower, lower + np.uint16(1))]
    values[1][-1] = values[0][-1] + float(ulp(values[0][-1], dtype))
    middle = ((values[0] + values[1]) / 2).astype(np.float32)
    yield middle, (lower + lower % 2).view(dtype)
    yield np.nextafter(middle, F32.type(0)), lower.view(dtype)
    yield np.nextafter(middle, F32.type(INF)), (lower + np.uint16(1)).view(dtype)


@pytest.mark.parametrize("classes, step", [(2, 1), (17, 7), (70, 31)])
def test_gradients_round_to_the_nearest_and_ties_to_even(classes, step, dtype):
    """With probabilities of exactly 0 and 1 the gradient is the upstream gradient and its negative."""
    for upstream, expected in between(dtype):
        upstream, expected = upstream[::step], expected[::step]
        x = np.full((upstream.size, classes), -INF, dtype)
        x[:, 0] = 0
        labels = np.full(upstream.size, classes - 1)
        for values, axis in both_layouts(x):
            for given_upstream in [upstream, upstream.astype(F64)]:
                options = {"axis": axis, "reduction": "none", "grad_output": given_upstream}
                grad = np.moveaxis(xent.cross_entropy_grad(values, labels, **options), axis, -1)
                assert_same_bits(grad[:, 0].copy(), expected, f"axis {axis}")
                assert_same_bits(grad[:, -1].copy(), -expected, f"axis {axis}")
                assert not grad[:, 1:-1].any()


def test_nll_gradients_round_to_the_nearest_and_ties_to_even(dtype):
    for upstream, expected in between(dtype):
        labels = np.arange(upstream.size) % 3
        x = np.zeros((upstream.size, 3), dtype)
        grad = xent.nll_loss_grad(x, labels, reduction="none", grad_output=upstream)
        assert_same_bits(grad[np.arange(len(x)), labels], -expected)


def test_log_probabilities_beyond_the_range(dtype):
    top = largest(dtype)
    half = float(ulp(top, dtype)) / 2
    for low, expected in [(-half / 2, -top), (-half, -INF), (-2 * half, -INF), (-top, -INF)]:
        for copies in [1, 17]:
            x = np.tile(np.array([top, low], dtype), (copies, 1))
            for values, axis in both_layouts(x):
                result = np.moveaxis(xent.log_softmax(values, axis), axis, -1)
                assert_ulp(result, np.tile([0, expected], (copies, 1)), 0, dtype=dtype)


def test_probabilities_down_to_the_smallest_subnormal(dtype):
    smallest = np.log(float(finfo(dtype).smallest_subnormal))
    row = np.linspace(0, smallest - 2, 113).astype(dtype)
    p = reference("softmax", wide(row))
    assert ((p > 0) & (p < float(finfo(dtype).tiny))).sum() > 5
    for values, axis in both_layouts(np.tile(row, (5, 1))):
        assert_forward(values, axis)


def test_means_over_many_positions_are_rounded_once(dtype):
    # 1 / (2 positions) is subnormal in float16
    for positions in [70_001, 2**17]:
        x, labels = np.zeros((positions, 2), dtype), np.zeros(positions, int)
        loss, grad = xent.cross_entropy_value_and_grad(x, labels)
        expected = np.tile([-0.5 / positions, 0.5 / positions], (positions, 1))
        assert_ulp(grad, expected, ROUNDED, dtype=dtype)
        assert_ulp(loss, np.log(2), bound("loss", F32), dtype=F32)


# Shapes and options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_forward(classes, dtype):
    for positions in [0, 1, 8, 33] if classes <= 100 else [1, 9]:
        x = random_logits((positions, classes), dtype)
        for values, axis in both_layouts(x):
            assert_forward(values, axis, what=f"of {values.shape}")


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_backward(classes, dtype):
    for positions in [1, 8, 33] if classes <= 100 else [1, 9]:
        shape = (positions, classes)
        g = random_logits(shape, dtype, seed=5)
        for name, make in [
            ("softmax_backward", probabilities_of),
            ("log_softmax_backward", log_probabilities_of),
        ]:
            for upstream, y, axis in both_layouts(g, make(shape, dtype)):
                result = getattr(xent, name)(upstream, y, axis)
                assert_backward(result, name, upstream, y, axis, f"of {shape}")


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_losses(classes, dtype):
    for positions in [1, 8, 33] if classes <= 100 else [3]:
        for shape, axis in [((positions, classes), -1), ((classes, positions), 0)]:
            logits = random_logits(shape, dtype)
            for kind in KINDS[:3]:
                target = target_of(kind, shape, axis, dtype)
                assert_cross_entropy(logits, target, axis=axis, what=f"of {shape}, {kind}")


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("kind", KINDS[:3])
def test_every_option(kind, weighted, smoothing, dtype):
    for (shape, axis), reduction in itertools.product(SHAPES[1:], REDUCTIONS):
        if axis == 0 and reduction == "mean_batch":
            continue
        assert_cross_entropy(
            random_logits(shape, dtype),
            target_of(kind, shape, axis, dtype),
            axis=axis,
            weight=random_weights(shape[axis], F32) if weighted else None,
            label_smoothing=smoothing,
            reduction=reduction,
            what=f"of {shape} {reduction}",
        )


@pytest.mark.parametrize("name", [name for name, _ in hard_rows(F64)])
def test_hard_rows(name, dtype):
    rows = dict(hard_cases(dtype))
    if name not in rows:
        pytest.skip(f"beyond the range of {dtype}")
    for copies in [1, 17]:
        x = np.tile(rows[name], (copies, 1))
        labels = np.arange(copies) % x.shape[1]
        for values, axis in both_layouts(x):
            assert_forward(values, axis)
            if np.isfinite(wide(x)).all():
                assert_cross_entropy(values, labels, axis=axis, reduction="none")


@given(data=st.data())
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_any_shape_and_options(name, data):
    dtype = np.dtype(name)
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    logits = random_logits(shape, dtype, scale=data.draw(st.floats(0, 20)))
    assert_forward(logits, axis)
    ignore_index = data.draw(st.sampled_from([-100, -1, 0, 2]))
    options = {"ignored": data.draw(st.floats(0, 1)), "ignore_index": ignore_index}
    assert_cross_entropy(
        logits,
        target_of(data.draw(st.sampled_from(KINDS)), shape, axis, dtype, **options),
        axis=axis,
        ignore_index=ignore_index,
        weight=random_weights(shape[axis], F32) if data.draw(st.booleans()) else None,
        label_smoothing=data.draw(st.sampled_from([0.0, 1e-3, 0.1, 1.0])),
        reduction=data.draw(st.sampled_from(REDUCTIONS if axis % len(shape) else REDUCTIONS[:-1])),
    )


@pytest.mark.parametrize("reduction", REDUCTIONS[:3])
@pytest.mark.parametrize("kind", KINDS)
def test_grad_output(kind, reduction, dtype):
    for shape, axis in SHAPES:
        logits, target = random_logits(shape, dtype), target_of(kind, shape, axis, dtype)
        result_shape = tuple(np.delete(shape, axis)) if reduction == "none" else ()
        for upstream_dtype in [F32, F64]:
            upstream = np.asarray(random_logits(result_shape, upstream_dtype, seed=9))
            factor = np.expand_dims(np.abs(wide(upstream)), axis) if reduction == "none" else abs(upstream)
            options = {"axis": axis, "reduction": reduction, "grad_output": upstream}
            result = xent.cross_entropy_grad(logits, target, **options)
            exact_target = target if kind == "labels" else wide(target)
            # the factor and a float64 target are each rounded to float32
            assert_gradients([result], logits, exact_target, 2, factor=factor, **options)


def test_factors_and_targets_of_every_float_dtype(dtype):
    """What is not the logits is used with all its bits, and 16 bits of it mean the same as float32."""
    labels = random_labels((9,), 6)
    for logits_dtype in {dtype, F32, F64}:
        x = random_logits((9, 6), logits_dtype)
        logp = log_probabilities_of((9, 6), logits_dtype)
        for other in FLOATS:
            weight, t = random_weights(6, other), random_probabilities((9, 6), other)
            upstream = random_logits((9,), other)
            same = weight.astype(F32), t.astype(F32), upstream.astype(F32)
            if other == F64:
                same = weight, t, upstream
            calls = [
                lambda w, t, g, x=x: xent.cross_entropy_value_and_grad(x, labels, weight=w),
                lambda w, t, g, x=x: xent.cross_entropy_value_and_grad(x, t),
                lambda w, t, g, x=x: (xent.cross_entropy_grad(x, t, grad_output=g, reduction="none"),),
                lambda w, t, g, y=logp: xent.nll_loss_value_and_grad(y, labels, weight=w),
                lambda w, t, g, y=logp: (xent.nll_loss_grad(y, labels, grad_output=g, reduction="none"),),
            ]
            for call in calls:
                assert_same_bits(call(weight, t, upstream), call(*same), f"{other} with {logits_dtype}")


@pytest.mark.parametrize("other", ["float32", "float64"])
def test_weights_keep_their_bits(other, dtype):
    x, weight = random_logits((30, 6), dtype), random_weights(6, np.dtype(other))
    assert (wide(weight.astype(dtype)) != weight).any()
    for reduction in ["none", "sum", "mean"]:
        assert_cross_entropy(x, random_labels((30,), 6), weight=weight, reduction=reduction)


@pytest.mark.parametrize("temperature", [0.25, 2.0, 0.7, 30.0])
def test_temperature(temperature, dtype):
    x = random_logits((20, 13), dtype)
    error = temperature_error(wide(x) / temperature, -1, F32)
    for name in ["softmax", "log_softmax"]:
        expected = reference(name, wide(x), temperature=temperature)
        slack = error * expected if name == "softmax" else error
        result = getattr(xent, name)(x, temperature=temperature)
        assert_ulp(result, expected, ROUNDED, dtype=dtype, slack=slack, what=name)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (0, 1, 2), ()])
def test_logsumexp_axes(axis, keepdims, dtype):
    assert_logsumexp(random_logits((4, 3, 11), dtype), axis, keepdims=keepdims)


def test_logsumexp_factors(dtype):
    x = random_logits((5, 9), dtype)
    for other in [dtype, F32, F64]:
        b = np.abs(random_logits((9,), other, seed=4))
        expected = reference("logsumexp", wide(x), b=wide(b))
        scale = np.maximum(np.abs(expected), np.abs(wide(x)).max(-1))
        assert_ulp(xent.logsumexp(x, b=b), expected, bound("logsumexp_b", F32), dtype=F32, scale=scale)


@pytest.mark.parametrize("shape, axis", [((5,), -1), ((2, 3, 4), 1), ((3, 65), -1), ((0, 3), -1)])
def test_jacobian(shape, axis, dtype):
    y = probabilities_of(shape, dtype, axis)
    last = np.moveaxis(wide(y), axis, -1)
    scale = last[..., np.newaxis] * np.eye(shape[axis]) + last[..., :, np.newaxis] * last[..., np.newaxis, :]
    expected, slack = reference("softmax_jacobian", wide(y), axis), float32_slack("jacobian", scale)
    assert_ulp(xent.softmax_jacobian(y, axis), expected, ROUNDED, dtype=dtype, slack=slack)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_nll(weighted, reduction, dtype):
    for shape, axis in [((9, 5), -1), ((300, 3), 1), ((3, 17, 5), 1)]:
        logp = log_probabilities_of(shape, dtype, axis)
        target = target_of("labels", shape, axis, dtype)
        weight = random_weights(shape[axis], F32) if weighted else None
        options = {"axis": axis, "weight": weight, "reduction": reduction}
        loss = reference("nll_loss", wide(logp), target, **options)
        grad = reference("nll_loss_grad", wide(logp), target, **options)
        both = xent.nll_loss_value_and_grad(logp, target, **options)
        for result in [xent.nll_loss(logp, target, **options), both[0]]:
            assert_ulp(result, loss, bound("loss", F32), dtype=F32)
        for result in [xent.nll_loss_grad(logp, target, **options), both[1]]:
            assert_ulp(result, grad, ROUNDED, dtype=dtype)


def test_backward_of_two_dtypes(dtype):
    """The common dtype of NumPy: the one with more bits."""
    g, y = random_logits((6, 9), dtype), probabilities_of((6, 9), dtype)
    for name in ["softmax_backward", "log_softmax_backward"]:
        function = getattr(xent, name)
        for other in [F32, F64]:
            expected = function(g.astype(other), y.astype(other))
            assert_same_bits(function(g, y.astype(other)), expected)
            assert_same_bits(function(g.astype(other), y), expected)


# Memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ZOO)
@pytest.mark.parametrize("shape, axis", [((3, 70), -1), ((4, 6, 9), 1), ((11, 4), 0)])
def test_every_memory_layout(variant, shape, axis, dtype):
    x = random_logits(shape, dtype)
    layout = of_zoo(variant, x)
    assert_forward(x, axis, layout)
    for name in ["sigmoid", "log_sigmoid"]:
        result = getattr(xent, name)(layout)
        assert_ulp(result, reference(name, wide(x)), ROUNDED, dtype=dtype, what=name)
    y, logp = probabilities_of(shape, dtype, axis), log_probabilities_of(shape, dtype, axis)
    for name, value in [("softmax_backward", y), ("log_softmax_backward", logp)]:
        result = getattr(xent, name)(layout, of_zoo(variant, value), axis)
        assert_backward(result, name, x, value, axis)
    for target in [target_of("labels", shape, axis, dtype), y]:
        assert_cross_entropy(x, target, (layout, of_zoo(variant, target)), axis=axis)
    labels = target_of("labels", shape, axis, dtype)
    expected = xent.nll_loss_value_and_grad(logp, labels, axis=axis)
    assert_same_bits(xent.nll_loss_value_and_grad(of_zoo(variant, logp), labels, axis=axis), expected)


OUT_LAYOUTS = ["contiguous", "every second element", "negative strides", "Fortran order", "unaligned"]


@pytest.mark.parametrize("shape, axis", SHAPES)
def test_out(shape, axis, dtype):
    x, g = random_logits(shape, dtype), random_logits(shape, dtype, seed=1)
    y, labels = probabilities_of(shape, dtype, axis), target_of("labels", shape, axis, dtype)
    kept = x.copy()
    calls = {
        "softmax": lambda **o: xent.softmax(x, axis, **o),
        "log_softmax": lambda **o: xent.log_softmax(x, axis, **o),
        "softmax_backward": lambda **o: xent.softmax_backward(g, y, axis, **o),
        "log_softmax_backward": lambda **o: xent.log_softmax_backward(g, y, axis, **o),
        "sigmoid": lambda **o: xent.sigmoid(x, **o),
        "log_sigmoid": lambda **o: xent.log_sigmoid(x, **o),
        "cross_entropy_grad": lambda **o: xent.cross_entropy_grad(x, labels, axis=axis, **o),
        "nll_loss_grad": lambda **o: xent.nll_loss_grad(x, labels, axis=axis, **o),
    }
    for name, call in calls.items():
        expected = call()
        for variant in OUT_LAYOUTS:
            out = of_zoo(variant, np.full(shape, 7, dtype))
            assert call(out=out) is out
            # half an ulp up and half an ulp down, where a layout is computed in another order
            assert_ulp(out, wide(expected), 1, dtype=dtype, what=f"{name} into {variant}")
    assert_same_bits(x, kept)


@pytest.mark.parametrize("shape, axis", SHAPES)
def test_in_place(shape, axis, dtype):
    x, labels = random_logits(shape, dtype), target_of("labels", shape, axis, dtype)
    calls = {
        "softmax": lambda x, **o: xent.softmax(x, axis, **o),
        "log_softmax": lambda x, **o: xent.log_softmax(x, axis, **o),
        "sigmoid": xent.sigmoid,
        "log_sigmoid": xent.log_sigmoid,
        "cross_entropy_grad": lambda x, **o: xent.cross_entropy_grad(x, labels, axis=axis, **o),
        "nll_loss_grad": lambda x, **o: xent.nll_loss_grad(x, labels, axis=axis, **o),
    }
    for name, call in calls.items():
        expected, overwritten = call(x), x.copy()
        assert call(overwritten, out=overwritten) is overwritten
        assert_ulp(overwritten, wide(expected), 0, dtype=dtype, what=name)
    for target in [labels, random_probabilities(shape, dtype, axis)]:
        expected, overwritten = xent.cross_entropy_value_and_grad(x, target, axis=axis), x.copy()
        loss, grad = xent.cross_entropy_value_and_grad(overwritten, target, axis=axis, out=overwritten)
        assert grad is overwritten
        assert_same_bits((loss, grad), expected)


def test_logsumexp_out_is_float32(dtype):
    x = random_logits((4, 6), dtype)
    out = np.zeros(4, np.float32)
    assert xent.logsumexp(x, out=out) is out
    assert_same_bits(out, xent.logsumexp(x))


# what users slice and transpose: shape, view, class axis
VIEWS = {
    "(N, T, V)[:, :-1]": ((8, 17, 250), lambda a: a[:, :-1], -1),
    "(N, T, V)[:, 1:]": ((8, 17, 250), lambda a: a[:, 1:], -1),
    "(N, C, H, W) crop": ((4, 21, 24, 28), lambda a: a[:, :, 3:19, 5:25], 1),
    "(N, H, W, C) moved": ((4, 20, 20, 21), lambda a: np.moveaxis(a, -1, 1), 1),
    "(V, N).T": ((250, 8192), np.transpose, -1),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_cost_no_copy_of_the_logits(name, dtype):
    shape, view, axis = VIEWS[name]
    whole = random_logits(shape, dtype)
    kept, x = whole.copy(), view(whole)
    labels = target_of("labels", x.shape, axis, dtype)
    expected, out = xent.cross_entropy_grad(x, labels, axis=axis), np.empty_like(x)
    for call in [
        lambda: xent.cross_entropy(x, labels, axis=axis),
        lambda: xent.cross_entropy_grad(x, labels, axis=axis, out=out),
        lambda: xent.softmax(x, axis, out=out),
        lambda: xent.logsumexp(x, axis),
    ]:
        call()  # what is made once does not count
        # scratch may be a little of each thread's, but neither 16 nor 32 bits of every logit
        assert peak_bytes(call) < x.size / 2
    assert_same_bits(whole, kept)
    # in place, and nowhere else
    assert peak_bytes(lambda: xent.cross_entropy_grad(x, labels, axis=axis, out=x)) < x.size / 2
    assert_ulp(x, wide(expected), 0, dtype=dtype)
    inside = np.zeros(shape, bool)
    view(inside)[...] = True
    assert_same_bits(whole[~inside], kept[~inside])


@pytest.mark.parametrize("name", VIEWS)
def test_views(name, dtype):
    shape, view, axis = VIEWS[name]
    x = view(random_logits(shape, dtype))
    assert_forward(x, axis)
    assert_cross_entropy(x, target_of("labels", x.shape, axis, dtype), axis=axis)


# Special values ---------------------------------------------------------------------------------------------


def special_rows(dtype):
    """(name, row); the reference says what each gives, and test_special_values.py that it says so rightly."""
    top = largest(dtype)
    return {
        "inf among finite": [INF, 0],
        "two inf": [INF, INF, 1],
        "only inf": [INF],
        "only -inf": [-INF, -INF],
        "one -inf alone": [-INF],
        "-inf among finite": [0, -INF, 0],
        "all but one -inf": [-INF, 3, -INF],
        "NaN among finite": [1, NAN, 2],
        "NaN and inf": [INF, NAN, 2],
        "huge": [top, -top, 0],
        "huge ties": [top, top],
        "huge and negative": [-top / 2, -top / 2, -top],
        "1e38": [1e38, 0, -1e38] if top > 1e38 else [65504, 65472, 0],
        "smallest": [float(finfo(dtype).smallest_subnormal), 0],
        "ties": [2, 5, 5, 1, 5],
        "masked with the lowest": [1, -top, 2],
        "one class": [1e4],
    }


@pytest.mark.parametrize("name", special_rows("float16"))
def test_special_rows(name, dtype):
    row = np.array(special_rows(dtype)[name]).astype(dtype)
    # one row, several, and rows long enough for every vector: what is added has probability 0
    for copies, padding in [(1, 0), (17, 0), (3, 40), (3, 300)]:
        x = np.full((copies, row.size + padding), -INF, dtype)
        x[:, : row.size] = row
        for values, axis in both_layouts(x):
            assert_forward(values, axis, what=f"{copies} x {row.size + padding}")


@pytest.mark.parametrize("label", [0, 1, 2])
def test_losses_of_special_rows(label, dtype):
    for name, row in special_rows(dtype).items():
        if len(row) <= label:
            continue
        x = np.tile(np.array(row).astype(dtype), (9, 1))
        labels = np.full(9, label)
        loss = reference("cross_entropy", wide(x), labels, reduction="none")
        grad = reference("cross_entropy_grad", wide(x), labels, reduction="none")
        for values, axis in both_layouts(x):
            options = {"axis": axis, "reduction": "none"}
            result = xent.cross_entropy_value_and_grad(values, labels, **options)
            assert_ulp(result[0], loss, bound("loss", F32), dtype=F32, what=name)
            assert_ulp(np.moveaxis(result[1], axis, -1), grad, ROUNDED, dtype=dtype, what=name)


def test_ignored_positions_are_zero_whatever_their_logits(dtype):
    for shape, axis in SHAPES:
        logits, labels = random_logits(shape, dtype), targets("labels", shape, axis, dtype, ignored=0.0)
        labels[1::2] = -100
        clean = xent.cross_entropy_value_and_grad(logits, labels, axis=axis, reduction="none")
        average = xent.cross_entropy(logits, labels, axis=axis)
        for spoiler in [NAN, INF, -INF]:
            spoiled = logits.copy()
            np.moveaxis(spoiled, axis, -1)[1::2] = spoiler
            loss, grad = xent.cross_entropy_value_and_grad(spoiled, labels, axis=axis, reduction="none")
            assert not loss[1::2].any()
            assert not np.moveaxis(wide(grad), axis, -1)[1::2].any()
            assert_same_bits((loss, grad), clean)
            assert_same_bits(xent.cross_entropy(spoiled, labels, axis=axis), average)


@pytest.mark.parametrize("shape, axis", SHAPES)
def test_nan_spoils_its_own_position_only(shape, axis, dtype):
    clean = random_logits(shape, dtype)
    spoiled = clean.copy()
    np.moveaxis(spoiled, axis, -1)[1, ..., -1] = NAN
    labels = np.zeros(np.delete(shape, axis), int)
    for call in [
        lambda x: np.moveaxis(xent.softmax(x, axis), axis, -1),
        lambda x: xent.logsumexp(x, axis),
        lambda x: xent.cross_entropy(x, labels, axis=axis, reduction="none"),
        lambda x: np.moveaxis(xent.cross_entropy_grad(x, labels, axis=axis, reduction="sum"), axis, -1),
    ]:
        with_nan, without = call(spoiled), call(clean)
        assert np.isnan(wide(with_nan[1])).all()
        others = np.arange(len(without)) != 1
        assert_ulp(with_nan[others], wide(without[others]), 1, dtype=without.dtype)


def test_one_position_gives_a_scalar(dtype):
    logits = random_logits((5,), dtype)
    for target in [3, np.int8(3), np.eye(5)[3].astype(dtype)]:
        for reduction in ["none", "sum", "mean"]:
            result = xent.cross_entropy(logits, target, reduction=reduction)
            assert isinstance(result, np.float32)
            assert_ulp(result, -reference("log_softmax", wide(logits))[3], bound("loss", F32), dtype=F32)
    assert isinstance(xent.logsumexp(logits), np.float32)
    assert isinstance(xent.nll_loss(logits, 3), np.float32)
    for function in [xent.sigmoid, xent.log_sigmoid]:
        result = function(logits[0])
        assert isinstance(result, dtype.type)
        assert_ulp(result, reference(function.__name__, wide(logits[0])), ROUNDED, dtype=dtype)


def test_empty_arrays(dtype):
    for shape in [(0, 5), (3, 0), (2, 0, 4), (0,)]:
        x = np.zeros(shape, dtype)
        for axis in range(len(shape)):
            for function in [xent.softmax, xent.log_softmax]:
                assert_same_bits(function(x, axis), x)
            assert_logsumexp(x, axis)
        assert_same_bits(xent.sigmoid(x), x)
        assert_same_bits(xent.softmax_backward(x, x), x)


@pytest.mark.parametrize("reduction", ["mean", "mean_valid", "mean_full", "mean_batch"])
def test_means_over_nothing_are_zero(reduction, dtype):
    logits = random_logits((4, 3), dtype)
    for values, target in [
        (logits, np.full(4, -100)),
        (logits[:0], np.zeros(0, int)),
        (logits[:0], np.zeros((0, 3), dtype)),
        (np.zeros((2, 0), dtype), np.full(2, -100)),
    ]:
        loss, grad = xent.cross_entropy_value_and_grad(values, target, reduction=reduction)
        assert_same_bits(loss, np.float32(0))
        assert_same_bits(grad, np.zeros(values.shape, dtype))


# Errors -----------------------------------------------------------------------------------------------------

WITH_OUT = [
    *["softmax", "log_softmax", "softmax_backward", "log_softmax_backward", "sigmoid", "log_sigmoid"],
    *["cross_entropy_grad", "cross_entropy_value_and_grad", "nll_loss_grad", "nll_loss_value_and_grad"],
]


@pytest.mark.parametrize("name", [*WITH_OUT, "logsumexp"])
def test_dtype_of_out(name, dtype):
    args = next(args for other, args, _ in twins(dtype) if other == name)
    right, shape = (F32, (6,)) if name == "logsumexp" else (dtype, (6, 9))
    wrong = [other for other in FLOATS if other != right]
    for other in [*wrong, np.dtype(">f2"), np.dtype(np.uint16), np.dtype("V2")]:
        out = np.zeros(shape, other)
        with raises(ValueError, "out", right.name, other):
            getattr(xent, name)(*args, out=out)
        assert not any(out.tobytes())


def test_out_that_overlaps_in_part(dtype):
    buffer = np.zeros(61, dtype)
    x, shifted = buffer[:60].reshape(6, 10), buffer[1:].reshape(6, 10)
    for call in [
        lambda: xent.softmax(x, out=shifted),
        lambda: xent.sigmoid(x, out=shifted),
        lambda: xent.softmax_backward(x, np.zeros((6, 10), dtype), out=shifted),
        lambda: xent.cross_entropy_grad(x, np.zeros(6, int), out=shifted),
        lambda: xent.cross_entropy_grad(np.zeros((6, 10), dtype), x, out=shifted),
        lambda: xent.logsumexp(x, out=buffer[:12].view(np.float32)),
    ]:
        with raises(ValueError, "out", "overlap"):
            call()
    assert not wide(buffer).any()


def test_nothing_is_written_before_an_error(dtype):
    x, out = np.zeros((3, 5), dtype), np.full((3, 5), 7, dtype)
    with raises(ValueError, "target[2] is 5"):
        xent.cross_entropy_grad(x, [0, 1, 5], out=out)
    with raises(ValueError, "target[2] is 5"):
        xent.nll_loss_grad(x, [0, 1, 5], out=out)
    assert (wide(out) == 7).all()


def test_labels_are_not_floats(dtype):
    for function in [xent.cross_entropy, xent.nll_loss]:
        with raises(TypeError, "target", dtype.name):
            function(np.zeros((3, 5)), np.zeros(3, dtype))
        with raises(TypeError, "target", dtype.name):
            function(np.zeros((3, 5), dtype), np.zeros(3, dtype))


WITHOUT_ML_DTYPES = """
import sys
sys.modules["ml_dtypes"] = None  # an import of it is an ImportError
import numpy as np
import xent, xent.reference
x = np.array([[0, 1], [2, 5]], np.float16)
print(xent.softmax(x).dtype, xent.cross_entropy(x, [0, 1]).dtype, xent.reference.softmax(x).dtype)
"""


def test_ml_dtypes_need_not_be_installed():
    done = run_python("-c", WITHOUT_ML_DTYPES)
    assert done.stdout.split() == ["float16", "float32", "float16"], done.stderr


@pytest.mark.parametrize("wide_dtype", [np.float32, np.float64])
def test_what_becomes_of_numbers_that_float16_has_as_subnormals(wide_dtype):
    """The same as NumPy makes of them, which takes 0.1 us for each: gradients of means are full of them."""
    steps = np.arange(5000) * wide_dtype(2.0**-25)  # each of them, each half between two, and beyond the last
    beside = [np.nextafter(steps, wide_dtype(end)) for end in (-1, 1)]
    others = [0.0, np.inf, np.nan, 65504.0, 65519.9, 65520.0, 1e-40, 5e-324, 3.4e38, 2.0**-14, 1.0]
    numbers = np.concatenate([steps, *beside, np.array(others, wide_dtype)])
    for array in [numbers, -numbers, np.stack([numbers, -numbers])[:, ::3]]:
        with np.errstate(all="ignore"):
            expected = array.astype(np.float16)
        with np.errstate(all="raise"):
            result = _check.narrowed(array, np.dtype(np.float16))
        there = ~np.isnan(expected)
        np.testing.assert_array_equal(result.view(np.uint16)[there], expected.view(np.uint16)[there])
        assert np.isnan(result[~there]).all()
