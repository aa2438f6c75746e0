"""softmax, log_softmax, logsumexp, backward passes and Jacobian, against the reference and mpmath."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from helpers import (
    CLASS_COUNTS,
    ZOO,
    assert_ulp,
    differences,
    exact,
    exact_log_softmax,
    exact_logsumexp,
    exact_rows,
    exact_softmax,
    hard_rows,
    of_zoo,
    position_counts,
    random_logits,
    random_weights,
    reference,
)
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from tolerances import DIFFERENCES, EPS64, bound, reference_error, temperature_error

import xent

BACKWARD = ["softmax_backward", "log_softmax_backward"]


def assert_result(name, result, x, axis=-1, *, rounding=0.0, what="", **options):
    """Assert that result is softmax or log_softmax of x; rounding is an error of the logits to allow."""
    expected = reference(name, x, axis, **options)
    error = reference_error(x.astype(np.float64) / options.get("temperature", 1), axis) + rounding
    kind = {"softmax": "probability", "log_softmax": "log_probability"}[name]
    slack = error * expected if name == "softmax" else error
    assert_ulp(result, expected, bound(kind, x.dtype), dtype=x.dtype, slack=slack, what=f"{name} {what}")


def assert_softmax(x, axis=-1, given=None, what=""):
    """Assert all three functions along axis of x, or of the same values given in another way."""
    given = x if given is None else given
    for name in ["softmax", "log_softmax"]:
        assert_result(name, getattr(xent, name)(given, axis), x, axis, what=what)
    assert_logsumexp(x, axis, given, what=what)


def assert_logsumexp(x, axis=-1, given=None, *, keepdims=False, what=""):
    result = np.asarray(xent.logsumexp(x if given is None else given, axis, keepdims=keepdims))
    expected = np.asarray(reference("logsumexp", x, axis, keepdims=keepdims))
    largest = np.abs(x.max(axis, keepdims=keepdims, initial=-np.inf)).astype(np.float64)
    scale = np.maximum(np.abs(expected), np.where(np.isfinite(largest), largest, 0))
    assert_ulp(
        result,
        expected,
        bound("logsumexp", x.dtype),
        dtype=x.dtype,
        scale=scale,
        slack=4 * EPS64 * scale,
        what=f"logsumexp {what}",
    )


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_every_number_of_classes_and_positions(classes, dtype):
    for positions in position_counts(classes):
        assert_softmax(random_logits((positions, classes), dtype), what=f"of {positions} x {classes}")


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_every_number_of_classes_on_the_first_axis(classes, dtype):
    for positions in position_counts(classes):
        assert_softmax(
            random_logits((classes, positions), dtype), 0, what=f"of {classes} x {positions} on axis 0"
        )


@pytest.mark.parametrize("shape", [(13,), (3, 5, 4, 7), (2, 10, 9, 17), (1, 3, 1, 2, 5), (2, 65, 3)])
def test_every_axis(shape, dtype):
    for axis in range(-len(shape), len(shape)):
        assert_softmax(random_logits(shape, dtype), axis, what=f"axis {axis} of {shape}")


@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_last_digits(classes, dtype):
    x = random_logits((3, classes), dtype, seed=1, scale=8.0 if classes < 300 else 2.0)
    assert_exact(x)


@pytest.mark.parametrize("name", [name for name, _ in hard_rows(np.float64)])
def test_last_digits_of_hard_rows(name, dtype):
    rows = dict(hard_rows(dtype))
    if name not in rows:
        pytest.skip(f"beyond the range of {dtype}")
    # one row, and enough equal rows for the kernel that takes several positions at once
    row = np.asarray(rows[name]).astype(dtype)
    assert_exact(row[np.newaxis])
    assert_exact(np.tile(row, (17, 1)))


@pytest.mark.parametrize("positions", [1, 7, 8, 9, 16])
def test_last_digits_of_neighbours_of_different_size(positions, dtype):
    """Positions side by side in a vector, whose exponentials lie in different octaves and far apart."""
    gaps = np.linspace(0, 115, 211).astype(dtype)
    x = np.stack([gaps, np.zeros_like(gaps)], 1)
    for first in range(0, len(x), positions):
        assert_exact(x[first : first + positions])


def test_last_digits_of_many_classes(dtype):
    assert_exact(random_logits((1, 20_000), dtype, seed=2, scale=1.0))
    p = xent.softmax(np.zeros((1, 20_000), dtype))
    assert_ulp(p, np.full(p.shape, 1 / 20_000), bound("probability", dtype), dtype=dtype)


def test_last_digits_down_to_the_smallest_subnormal(dtype):
    smallest = np.log(np.finfo(dtype).smallest_subnormal.astype(np.float64))
    row = np.linspace(0, smallest - 2, 113).astype(dtype)
    assert_ulp(
        xent.softmax(row[np.newaxis]),
        exact_softmax(row[np.newaxis]),
        bound("probability", dtype),
        dtype=dtype,
    )


def assert_exact(x):
    """Assert all three functions of the rows of x, and of the columns of its transpose, against mpmath."""
    p, logp, lse = exact_softmax(x), exact_log_softmax(x), exact_logsumexp(x)
    scale = np.maximum(np.abs(lse[0]), np.abs(x.max(-1)))
    for layout, values, axis in [("rows", x, -1), ("columns", x.T.copy(), 0)]:
        swap = np.transpose if axis == 0 else np.asarray
        assert_ulp(
            swap(xent.softmax(values, axis)),
            p,
            bound("probability", x.dtype),
            dtype=x.dtype,
            what=f"softmax of {layout}",
        )
        assert_ulp(
            swap(xent.log_softmax(values, axis)),
            logp,
            bound("log_probability", x.dtype),
            dtype=x.dtype,
            what=f"log_softmax of {layout}",
        )
        assert_ulp(
            xent.logsumexp(values, axis),
            lse,
            bound("logsumexp", x.dtype),
            dtype=x.dtype,
            scale=scale,
            what=f"logsumexp of {layout}",
        )


def test_the_reference_agrees_with_mpmath():
    for seed in range(3):
        x = random_logits((5, 30), np.float64, seed=seed)
        relative = reference_error(x)
        for name, expected in [("softmax", exact_softmax(x)), ("log_softmax", exact_log_softmax(x))]:
            slack = relative * (np.abs(expected[0]) if name == "softmax" else 1)
            assert_ulp(reference(name, x), expected, 4, dtype=np.float64, slack=slack, what=name)
        assert_ulp(reference("logsumexp", x), exact_logsumexp(x), 4, dtype=np.float64)


@pytest.mark.parametrize("variant", ZOO)
def test_every_memory_layout(variant, dtype):
    for shape, axis in [((7, 5), -1), ((3, 40), -1), ((4, 6, 9), 1), ((11, 4), 0)]:
        x = random_logits(shape, dtype)
        given_x = of_zoo(variant, x)
        assert_softmax(x, axis, given_x, f"of {shape} axis {axis}")
        for name in BACKWARD:
            y = getattr(xent, name.removesuffix("_backward"))(x, axis)
            g = random_logits(shape, dtype, seed=3)
            result = getattr(xent, name)(of_zoo(variant, g), of_zoo(variant, y), axis)
            assert_backward(result, name, g, y, axis)


def test_broadcast_rows(dtype):
    row = random_logits((19,), dtype)
    x = np.broadcast_to(row, (6, 19))
    assert_softmax(x, -1)
    assert_softmax(x.T, 0)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_integer_and_bool_data_become_float64(name):
    function = getattr(xent, name)
    values = [[1, 2, 3], [0, 1, 1]]
    expected = function(np.array(values, np.float64))
    for data in [values, np.array(values, np.int8), np.array(values, np.uint64)]:
        assert_ulp(function(data), expected, 0, dtype=np.float64)
    flags = np.array(values) > 1
    assert_ulp(function(flags), function(flags.astype(np.float64)), 0, dtype=np.float64)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("shape, axis", [((9, 5), -1), ((2, 33), -1), ((3, 6, 7), 1)])
def test_out(name, shape, axis, dtype):
    function = getattr(xent, name)
    x = random_logits(shape, dtype)
    kept = x.copy()
    assert not np.shares_memory(function(x, axis), x)
    for variant in ["contiguous", "every second element", "negative strides", "Fortran order", "unaligned"]:
        out = of_zoo(variant, np.zeros(shape, dtype))
        assert function(x, axis, out=out) is out, variant
        assert_result(name, out, x, axis, what=variant)
    assert np.array_equal(x, kept)
    assert function(x, axis, out=x) is x
    assert_result(name, x, kept, axis, what="in place")


@pytest.mark.parametrize(
    "shape, axis", [((9, 1000), -1), ((50, 10), -1), ((3, 30, 40), 1), ((2, 300, 5), 1), ((3, 5000), 1)]
)
@pytest.mark.parametrize("temperature", [0.5, 2.0, 2.0**20])
def test_temperature_that_divides_exactly(temperature, shape, axis, dtype):
    """The bits of logits that were divided before: a power of two is no reason to round twice."""
    x = random_logits(shape, np.float64).astype(dtype)
    y = np.random.default_rng(0).integers(0, shape[axis], np.delete(shape, axis))
    divided = (x / np.asarray(temperature, x.dtype)).astype(dtype)
    for name in ["softmax", "log_softmax"]:
        result = getattr(xent, name)(x, axis, temperature=temperature)
        if np.dtype(dtype).itemsize > 2:
            np.testing.assert_array_equal(result, getattr(xent, name)(divided, axis), err_msg=name)
    assert xent.cross_entropy(x, y, axis=axis, temperature=temperature) == pytest.approx(
        xent.cross_entropy(divided, y, axis=axis), rel=1e-6
    )


@pytest.mark.parametrize("temperature", [2.0**-30, 0.5, 2.0, 2.0**30])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_temperature_that_would_divide_exactly_but_for_the_range(name, temperature):
    """Quotients of some rows overflow, or are subnormal; those of others are as they are by themselves."""
    x = random_logits((6, 300), np.float32)
    x[1] *= np.float32(1e37)
    x[3] *= np.float32(1e-44)
    x[4, ::3] = -np.inf
    for view in (x, np.ascontiguousarray(x.T).T):
        result = getattr(xent, name)(view, temperature=temperature)
        with np.errstate(all="ignore"):
            expected = getattr(xent.reference, name)(x, temperature=temperature).astype(np.float32)
        assert not np.isnan(result).any()
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-44)


@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp_out(keepdims, dtype):
    x = random_logits((4, 6), dtype)
    expected = xent.logsumexp(x, keepdims=keepdims)
    out = np.zeros(expected.shape, dtype)
    assert xent.logsumexp(x, keepdims=keepdims, out=out) is out
    assert_ulp(out, expected, 0, dtype=dtype)


def test_out_that_interleaves_with_the_input_is_no_overlap(dtype):
    both = np.zeros((5, 2, 7), dtype)
    both[:, 0] = random_logits((5, 7), dtype)
    expected = xent.softmax(both[:, 0].copy())
    xent.softmax(both[:, 0], out=both[:, 1])
    assert_ulp(both[:, 1], expected, 0, dtype=dtype)


@pytest.mark.parametrize("temperature", [0.25, 2.0, 0.7, 3.0, 1e-3, 1e3])
def test_temperature(temperature, dtype):
    x = random_logits((20, 13), dtype)
    rounding = temperature_error(x.astype(np.float64) / temperature, -1, np.float64)  # of the reference
    for name in ["softmax", "log_softmax"]:
        result = getattr(xent, name)(x, temperature=temperature)
        assert_result(name, result, x, rounding=rounding, temperature=temperature)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 1), (2, 0), (-1, -2), (0, 1, 2), ()])
def test_logsumexp_axes(axis, keepdims, dtype):
    assert_logsumexp(random_logits((4, 3, 11), dtype), axis, keepdims=keepdims, what=f"axis {axis}")


def test_logsumexp_of_everything_is_a_scalar_of_the_dtype(dtype):
    x = random_logits((4, 3), dtype)
    for result in [xent.logsumexp(x, None), xent.logsumexp(x[0]), xent.logsumexp(x, (0, 1))]:
        assert isinstance(result, dtype.type)
    kept = xent.logsumexp(x, None, keepdims=True)
    assert (kept.shape, kept.dtype) == ((1, 1), dtype)


@pytest.mark.parametrize("b_shape", [(), (9,), (5, 1), (5, 9), (1, 9)])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_logsumexp_factors(b_shape, axis, dtype):
    x = random_logits((5, 9), dtype)
    b = random_logits(b_shape, dtype, seed=4, scale=1.0)
    for factors in [np.abs(b), np.where(b > 1, b, np.abs(b) + (b > 0))]:
        terms = factors.astype(np.float64) * np.exp(x.astype(np.float64))
        expected = np.asarray(reference("logsumexp", x, axis, b=factors))
        cancellation = np.abs(terms).sum(axis) / np.abs(terms.sum(axis))
        scale = np.maximum(np.maximum(np.abs(expected), np.abs(x).max(axis)), cancellation)
        result = np.asarray(xent.logsumexp(x, axis, b=factors))
        assert_ulp(
            result,
            expected,
            bound("logsumexp_b", dtype, x.size),
            dtype=dtype,
            scale=scale,
            slack=8 * EPS64 * scale,
        )


def test_logsumexp_factors_as_in_scipy(dtype):
    x = np.array([np.inf, 0, 1], dtype)
    zero_out = xent.logsumexp(x, b=np.array([0, 2, 1], dtype))
    assert_ulp(zero_out, np.log(2 + np.e), bound("logsumexp_b", dtype), dtype=dtype)
    assert np.isnan(xent.logsumexp(x[1:], b=np.array([1, -1], dtype)))  # the logarithm of 1 - e
    assert xent.logsumexp(x, b=np.zeros(3, dtype)) == -np.inf


def assert_backward(result, name, g, y, axis=-1, what=""):
    """Assert a vector-Jacobian product against the reference, at the scale of what it adds up."""
    g64, y64 = np.abs(g.astype(np.float64)), y.astype(np.float64)
    if name == "softmax_backward":
        scale = y64 * (g64 + (g64 * y64).sum(axis, keepdims=True))
    else:
        scale = g64 + np.exp(y64) * g64.sum(axis, keepdims=True)
    assert_ulp(
        result,
        reference(name, g, y, axis),
        bound("backward", y.dtype, y.shape[axis]),
        dtype=y.dtype,
        scale=scale,
        slack=EPS64 * (4 + y.shape[axis] ** 0.5) * scale,
        what=f"{name} {what}",
    )


@pytest.mark.parametrize("name", BACKWARD)
@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_backward(name, classes, dtype):
    forward = getattr(xent, name.removesuffix("_backward"))
    for positions in position_counts(classes):
        for shape, axis in [((positions, classes), -1), ((classes, positions), 0)]:
            y = forward(random_logits(shape, dtype), axis)
            g = random_logits(shape, dtype, seed=5)
            assert_backward(getattr(xent, name)(g, y, axis), name, g, y, axis, f"of {shape}")


def test_backward_of_gradients_whose_sum_leaves_the_range_on_the_way():
    """Rows are added up in pieces, of which each is beyond the largest float32; their sum is 0."""
    g = np.repeat(np.float32([3e38, -3e38]), 512)[np.newaxis]
    y = np.full_like(g, -np.log(1024))
    assert np.array_equal(xent.log_softmax_backward(g, y), g)
    for neighbours in (3, 20):
        few = np.ascontiguousarray(np.stack([g, 2e-3 * g, g] + [g] * (neighbours - 3), axis=2))
        assert np.array_equal(xent.log_softmax_backward(few, np.stack([y] * neighbours, axis=2), 1), few)
    columns = np.float32([3e38, 3e38, -3e38, -3e38, 0, 0, 0, 0])[:, np.newaxis] * np.ones(40, np.float32)
    zeros = np.full_like(columns, -np.log(8))
    assert np.array_equal(xent.log_softmax_backward(columns, zeros, 0), columns)


@pytest.mark.parametrize("name", BACKWARD)
def test_backward_is_the_derivative(name):
    x = random_logits((3, 6, 2), np.float64, scale=1.0)
    g = random_logits(x.shape, np.float64, seed=6, scale=1.0)
    forward = name.removesuffix("_backward")
    for axis in range(3):
        expected = differences(lambda v, axis=axis: np.sum(g * reference(forward, v, axis)), x)
        y = reference(forward, x, axis)
        assert np.allclose(reference(name, g, y, axis), expected, rtol=0, atol=10 * DIFFERENCES)
        assert np.allclose(getattr(xent, name)(g, y, axis), expected, rtol=0, atol=10 * DIFFERENCES)


@pytest.mark.parametrize("name", BACKWARD)
@pytest.mark.parametrize("which", ["grad", "y", "new"])
def test_backward_out(name, which, dtype):
    x, g = random_logits((6, 9), dtype), random_logits((6, 9), dtype, seed=7)
    y = getattr(xent, name.removesuffix("_backward"))(x)
    kept_g, kept_y = g.copy(), y.copy()
    out = {"grad": g, "y": y, "new": np.zeros_like(y)}[which]
    assert getattr(xent, name)(g, y, out=out) is out
    assert_backward(out, name, kept_g, kept_y)


@pytest.mark.parametrize(
    "shape, axis", [((5,), -1), ((2, 3, 4), -1), ((2, 3, 4), 1), ((3, 2), 0), ((0, 3), -1)]
)
def test_jacobian(shape, axis, dtype):
    y = xent.softmax(random_logits(shape, dtype), axis)
    last = np.moveaxis(y, axis, -1).astype(np.float64)
    diagonal = last[..., np.newaxis] * np.eye(shape[axis])
    product = last[..., :, np.newaxis] * last[..., np.newaxis, :]
    jacobian = xent.softmax_jacobian(y, axis)
    assert_ulp(
        jacobian,
        diagonal - product,
        bound("jacobian", dtype),
        dtype=dtype,
        scale=diagonal + product,
        slack=EPS64 * (diagonal + product),
    )
    assert np.allclose(reference("softmax_jacobian", y, axis), diagonal - product, rtol=0, atol=2 * EPS64)


@given(
    x=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=1, max_dims=4, max_side=9),
        elements=st.floats(-80, 80, width=32) | st.sampled_from([0.0, 1.0, -1e9]),
    ),
    single=st.booleans(),
    data=st.data(),
)
def test_any_shape_and_axis(x, single, data):
    x = x.astype(np.float32) if single else x
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    assert_softmax(x, axis)
    sums = xent.softmax(x, axis).astype(np.float64).sum(axis)
    assert np.allclose(sums, 1, rtol=0, atol=4 * float(np.finfo(x.dtype).eps) * x.shape[axis])


@given(
    logits=hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e4, 1e4, width=32)),
    single=st.booleans(),
)
def test_last_digits_of_any_row(logits, single):
    x = logits.astype(np.float32 if single else np.float64)[np.newaxis]
    p, logp = exact_softmax(x), exact_log_softmax(x)
    assert_ulp(xent.softmax(x), p, bound("probability", x.dtype), dtype=x.dtype)
    assert_ulp(xent.log_softmax(x), logp, bound("log_probability", x.dtype), dtype=x.dtype)


@pytest.mark.parametrize("weights", ["positive", "mixed"])
def test_logsumexp_factors_last_digits(weights, dtype):
    x = random_logits((4, 21), dtype, seed=8)
    b = random_weights(21, dtype, seed=8)
    if weights == "mixed":
        b[np.argsort(x.max(0))[:5]] *= -1  # small terms, so that every sum stays positive
    values, scales = [], []
    with mp.workprec(160):
        for row in exact_rows(x):
            terms = [mp.mpf(float(f)) * t for f, t in zip(b, row.terms, strict=True)]
            total = mp.fsum(terms)
            values.append(row.maximum + mp.log(total))
            scales.append(max(abs(row.maximum), mp.fsum(abs(t) for t in terms) / abs(total)))
    expected = exact(values, (4,))
    assert_ulp(
        xent.logsumexp(x, b=b),
        expected,
        bound("logsumexp_b", dtype),
        dtype=dtype,
        scale=np.maximum(np.abs(expected[0]), np.array(scales, np.float64)),
    )


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_rows_do_not_know_of_each_other(name, dtype):
    """Rows of large logits are taken relative to their largest, which is looked for after others of them."""
    scales = [1, 300, 300, 3e3, 1, 1e4, np.inf, 1e4, np.nan, 3e4, 400, 1]
    x = random_logits((len(scales), 300), np.float64)
    with np.errstate(all="ignore"):
        x = (np.sign(x) * np.abs(x * np.array(scales)[:, None])).astype(dtype)
        x[3] = -np.abs(x[3]) - 2000
        x[6, 7], x[8, 7] = np.inf, np.nan
    function = getattr(xent, name)
    together = function(x)
    for k, row in enumerate(x):
        np.testing.assert_array_equal(together[k], function(row), err_msg=f"scale {scales[k]}")
