"""Several axes at once in the softmax family; logsumexp with signs, and its vector-Jacobian product."""

import itertools
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from helpers import assert_ulp, differences, peak_bytes, raises, random_logits, reference
from mpmath import mp
from tolerances import ROUNDED, bound

import xent

KINDS = [np.dtype(kind) for kind in ["f8", "f4", "f2", ml_dtypes.bfloat16]]
SHAPE = 3, 4, 2, 5
AXES = [None, (), *(axes for n in (1, 2, 3, 4) for axes in itertools.permutations(range(4), n))]
PLAIN = {
    "softmax": lambda x, axis, **o: xent.softmax(x, axis, temperature=2.0, **o),
    "log_softmax": xent.log_softmax,
    "softmax_backward": lambda x, axis, **o: xent.softmax_backward(np.flip(x), x, axis, **o),
    "log_softmax_backward": lambda x, axis, **o: xent.log_softmax_backward(np.flip(x), x, axis, **o),
}


def layouts(x):
    """The same numbers, lying in memory in other ways."""
    yield "C", x
    yield "Fortran", np.asfortranarray(x)
    yield "swapped", np.ascontiguousarray(x.transpose(1, 0, 3, 2)).transpose(1, 0, 3, 2)
    yield "reversed", np.flip(np.flip(x).copy())
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    yield "gaps", wide[..., ::2]


def as_one(function, x, axes):
    """What a function of one axis gives where the axes were made one by a copy."""
    axes = tuple(range(x.ndim)) if axes is None else axes
    kept = [k for k in range(x.ndim) if k not in axes]
    order = [*kept, *axes]
    moved = x.transpose(order)
    flat = moved.reshape(*(x.shape[k] for k in kept), -1)
    return function(flat, -1).reshape(moved.shape).transpose(np.argsort(order))


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("axes", AXES)
def test_axes_are_one_axis(name, axes):
    function = PLAIN[name]
    for kind in KINDS:
        x = -np.abs(random_logits(SHAPE, np.dtype("f8"))).astype(kind)
        expected = as_one(function, x, axes).astype("f8")
        single = np.dtype("f8") if kind == np.float64 else np.dtype("f4")
        limit = bound("backward", single, 120) if kind.itemsize > 2 else 1  # sums in another order
        for what, given in layouts(x):
            scale = np.maximum(np.abs(expected), np.abs(expected).max())
            result = function(given, axes)
            assert result.dtype == kind and result.shape == x.shape
            assert_ulp(result, expected, limit, dtype=kind, scale=scale, what=what)
            out = np.zeros_like(given)
            assert function(given, axes, out=out) is out
            np.testing.assert_array_equal(out, result)
        np.testing.assert_array_equal(given, x)


@pytest.mark.parametrize("axes", [None, (), (1, 2), (3, 0), (-1, -2), (0, 1, 2, 3)])
def test_the_reference(axes):
    x, g = random_logits(SHAPE, np.dtype("f8")), random_logits(SHAPE, np.dtype("f8"), 1)
    for name in ["softmax", "log_softmax", "logsumexp", "softmax_jacobian"]:
        result, expected = getattr(xent, name)(x, axes), getattr(xent.reference, name)(x, axes)
        np.testing.assert_allclose(result, expected, rtol=1e-14, atol=1e-15)
    y = xent.softmax(x, axes)
    for name, of in [("softmax_backward", y), ("log_softmax_backward", np.log(y))]:
        result, expected = getattr(xent, name)(g, of, axes), getattr(xent.reference, name)(g, of, axes)
        np.testing.assert_allclose(result, expected, rtol=1e-13, atol=1e-14)


def test_numbers_and_nothing():
    for axes in [None, ()]:
        assert xent.softmax(3.0, axes) == 1
        assert xent.log_softmax(3.0, axes) == 0
        assert xent.softmax_backward(2.0, 1.0, axes) == 0
        assert xent.softmax_jacobian(0.25, axes).tolist() == [[0.1875]]
    empty = np.zeros((2, 0, 3))
    for axes in [None, (0, 1), (0, 2), ()]:
        assert xent.softmax(empty, axes).shape == empty.shape
        assert xent.softmax_backward(empty, empty, axes, out=empty) is empty


def test_in_place():
    """`out` may be an input, also where the axes are no view."""
    for axes, make in itertools.product([None, (0, 2), (1, 2)], [np.array, np.asfortranarray]):
        x = make(random_logits(SHAPE, np.dtype("f4")))
        expected = xent.softmax(x, axes)
        assert xent.softmax(x, axes, out=x) is x
        np.testing.assert_array_equal(x, expected)
        g = make(random_logits(SHAPE, np.dtype("f4"), 1))
        expected = xent.softmax_backward(g, x, axes)
        assert xent.softmax_backward(g, x, axes, out=g) is g
        np.testing.assert_array_equal(g, expected)


def test_one_copy_at_most():
    x = random_logits((64, 256, 64), np.dtype("f4"))  # more than exponentials of a row that are kept
    for axes, copies in [(None, 1), ((0, 1), 1), ((2, 1), 1), ((0, 2), 1)]:
        with xent.num_threads(1):  # and 1 MiB of exponentials of columns
            assert peak_bytes(lambda axes=axes: xent.softmax(x, axes)) < (copies + 0.2) * x.nbytes + 2**20
    assert xent.softmax(x, (1, 2)).flags.c_contiguous
    out = np.empty_like(x)
    assert peak_bytes(lambda: xent.softmax(x, None, out=out)) < 0.2 * x.nbytes


def test_axes_that_are_none():
    x = np.zeros((2, 3))
    for name in PLAIN:
        with raises(ValueError, "axis must not name an axis twice"):
            PLAIN[name](x, (0, -2))
        with raises(np.exceptions.AxisError, "axis 2 is out of bounds"):
            PLAIN[name](x, (0, 2))
        with raises(TypeError, "axis must be an integer"):
            PLAIN[name](x, (0.0,))
        with raises(TypeError, "axis must be an integer"):
            PLAIN[name](x, [0, 1])


def test_the_jacobian_of_several_axes():
    y = xent.softmax(random_logits((2, 3, 4), np.dtype("f8")), (2, 0))
    jacobian = xent.softmax_jacobian(y, (2, 0))
    assert jacobian.shape == (3, 8, 8)
    g = random_logits((2, 3, 4), np.dtype("f8"), 1)
    product = np.einsum("pij,pj->pi", jacobian, g.transpose(1, 2, 0).reshape(3, 8))
    expected = xent.softmax_backward(g, y, (2, 0)).transpose(1, 2, 0).reshape(3, 8)
    np.testing.assert_allclose(product, expected, rtol=0, atol=4e-15)


# logsumexp --------------------------------------------------------------------------------------------------

SIGNED = [
    ([1.0, 1.0], [1.0, -1.0]), ([1.0, 2.0], [1.0, -1.0]), ([1.0, 2.0], [0.0, 0.0]),
    ([np.nan, 1.0], [0.0, 1.0]), ([np.nan, 1.0], [1.0, 1.0]), ([np.inf, 1.0], [0.0, 1.0]),
    ([np.inf, 1.0], [-1.0, 1.0]), ([-np.inf, -np.inf], [1.0, -1.0]), ([0.0, 0.0], [np.inf, 1.0]),
    ([0.0, -1e9], [-np.inf, 1.0]), ([700.0, 710.0], [-3.0, 1e-3]), ([-1e5, -1e5 + 1], [2.0, 5.0]),
]  # fmt: skip


@pytest.mark.parametrize("x, b", SIGNED)
def test_signs_are_those_of_scipy(x, b):
    special = pytest.importorskip("scipy.special")
    with np.errstate(all="ignore"):
        expected = special.logsumexp(x, b=b, return_sign=True)
        alone = special.logsumexp(x, b=b)
    result = xent.logsumexp(x, b=b, return_sign=True)
    np.testing.assert_allclose(result, expected, rtol=1e-14)
    np.testing.assert_allclose(xent.reference.logsumexp(x, b=b, return_sign=True), expected, rtol=1e-14)
    np.testing.assert_allclose(xent.logsumexp(x, b=b), alone, rtol=1e-14)


@pytest.mark.parametrize(
    "shape, axis", [((9, 5), -1), ((4, 300), -1), ((40, 9), 0), ((2, 7, 5, 3), 1), ((3, 4099), -1)]
)
def test_factors_wherever_the_terms_lie(shape, axis):
    """By the kernel, and where it leaves positions: larger logits without a factor, infinities, NaN."""
    rng = np.random.default_rng(3)
    x, b = rng.standard_normal(shape), rng.standard_normal(shape)
    x, b = np.moveaxis(x, axis, -1), np.moveaxis(b, axis, -1)
    for k, (logit, factor) in enumerate(
        [(1e3, 0.0), (np.nan, 0.0), (np.inf, 0.0), (np.inf, 2.0), (np.nan, 1.0)]
    ):
        x[k % len(x)].flat[k], b[k % len(b)].flat[k] = logit, factor
    b[-1, ..., :2] = 0.0
    x, b = np.moveaxis(x, -1, axis), np.moveaxis(b, -1, axis)
    expected = xent.reference.logsumexp(x, axis, b=b, return_sign=True)
    for layout in (np.ascontiguousarray, np.asfortranarray):
        for dtype, rtol in [(np.float64, 1e-12), (np.float32, 1e-3)]:
            result = xent.logsumexp(
                layout(x).astype(dtype), axis, b=layout(b).astype(dtype), return_sign=True
            )
            assert result[0].dtype == result[1].dtype == dtype
            np.testing.assert_allclose(result[0], expected[0], rtol=rtol, atol=rtol)
            np.testing.assert_array_equal(result[1], expected[1])
    negative = xent.logsumexp(x, axis, b=b)
    np.testing.assert_array_equal(np.isnan(negative), np.isnan(expected[0]) | (expected[1] < 0))


def test_factors_that_repeat_themselves():
    x, b = np.arange(12.0).reshape(3, 4), np.array([1.0, 0.5, -0.25, 2.0])
    expected = np.log((b * np.exp(x)).sum(1))
    np.testing.assert_allclose(xent.logsumexp(x, 1, b=b), expected, rtol=1e-14)
    np.testing.assert_allclose(xent.logsumexp(x.T, 0, b=b[:, None]), expected, rtol=1e-14)
    np.testing.assert_allclose(xent.logsumexp(x, None, b=2.0), np.log(2.0 * np.exp(x).sum()), rtol=1e-14)


def test_factors_of_any_size():
    for b in [[1e308, 1e308], [1e308, -1e307], [1e-310, 3e-310], [-1e-320, 1e-322], [1e300, 1e-300]]:
        x = [0.5, 0.25]
        with mp.workdps(60):
            total = sum(mp.mpf(f) * mp.exp(mp.mpf(v)) for f, v in zip(b, x, strict=True))
            expected = float(mp.log(abs(total)))
        for module in [xent, xent.reference]:
            size, sign = module.logsumexp(x, b=b, return_sign=True)
            assert abs(size - expected) <= 4 * np.spacing(abs(expected))
            assert sign == np.sign(float(total * mp.mpf(10) ** 300))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_signs_of_every_dtype_and_axis(kind):
    """Also of 16 bits beside a list, for which NumPy 1.26 has no common dtype."""
    x = random_logits((3, 4, 5), np.dtype("f8")).astype(kind)
    b = np.linspace(-1, 1, 5).tolist()
    for axis, keepdims in itertools.product([-1, 1, (0, 2), None, (2, 1)], [False, True]):
        result = xent.logsumexp(x, axis, b=b, keepdims=keepdims, return_sign=True)
        expected = reference("logsumexp", x, axis, b=b, keepdims=keepdims, return_sign=True)
        out = np.zeros_like(result[0])
        assert result[0].dtype == result[1].dtype == (np.float64 if kind == np.float64 else np.float32)
        np.testing.assert_allclose(result, expected, rtol=1e-13 if kind == np.float64 else 1e-6, atol=1e-6)
        if isinstance(out, np.ndarray):
            again = xent.logsumexp(x, axis, b=b, keepdims=keepdims, return_sign=True, out=out)
            assert again[0] is out
            np.testing.assert_array_equal(again, result)
    assert np.isfinite(xent.logsumexp(x, b=[1.0] * 5)).all()


def test_signs_without_factors():
    x = np.array([[0.0, 1.0], [-np.inf, -np.inf], [np.nan, 0.0], [np.inf, 0.0]])
    size, sign = xent.logsumexp(x, return_sign=True)
    np.testing.assert_array_equal(size, xent.logsumexp(x))
    np.testing.assert_array_equal(sign, [1, 0, np.nan, 1])
    np.testing.assert_array_equal(xent.reference.logsumexp(x, return_sign=True)[1], sign)
    assert xent.logsumexp([0.0, 1.0], return_sign=True)[1] == 1.0
    size, sign = xent.logsumexp(np.zeros((2, 0)), return_sign=True)
    assert (size == -np.inf).all() and (sign == 0).all()
    with raises(TypeError, "return_sign must be True or False"):
        xent.logsumexp(x, return_sign=1)


# its vector-Jacobian product --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (17, 3), (5, 40), (3, 1000), (2, 5000), (70, 17)])
def test_backward(kind, shape):
    single = np.dtype("f8") if kind == np.float64 else np.dtype("f4")
    for scale in [3.0, 300.0]:
        x = random_logits(shape, np.dtype("f8"), scale=scale).astype(kind)
        g = random_logits(shape[:1], single, 1)
        y = xent.logsumexp(x)
        expected = reference("logsumexp_backward", g, x, y)
        limit = bound("logsumexp_backward", single) if kind.itemsize > 2 else ROUNDED
        for axis, given in [(-1, x), (0, np.ascontiguousarray(x.T))]:
            result = xent.logsumexp_backward(g, given, y, axis)
            assert result.dtype == kind
            assert_ulp(result if axis else result, expected if axis else expected.T, limit, dtype=kind)
            out = given.copy()
            assert xent.logsumexp_backward(g, out, y, axis, out=out) is out
            np.testing.assert_array_equal(out, result)


def test_backward_by_finite_differences():
    x, g = random_logits((2, 3, 4), np.dtype("f8")), random_logits((3,), np.dtype("f8"), 1)
    loss = lambda x: float((g * reference("logsumexp", x, (0, 2))).sum())  # noqa: E731
    y = xent.logsumexp(x, (0, 2))
    expected = xent.reference.logsumexp_backward(g, x, y, (0, 2))
    np.testing.assert_allclose(expected, differences(loss, x), rtol=1e-7, atol=1e-9)
    result = xent.logsumexp_backward(g, x, y, (2, 0))
    np.testing.assert_allclose(result, expected, rtol=1e-14)
    kept = xent.logsumexp(x, (0, 2), keepdims=True)
    np.testing.assert_array_equal(xent.logsumexp_backward(g.reshape(1, 3, 1), x, kept, (0, 2)), result)
    assert xent.logsumexp_backward(2.0, 3.0, 3.0, None) == 2.0
    assert xent.logsumexp_backward(2.0, [3.0], 3.0) == [2.0]


def test_backward_is_the_softmax():
    for kind in KINDS[:2]:
        x = random_logits((40, 100), kind, scale=1.0)
        y = xent.logsumexp(x)
        scale = np.spacing(np.abs(y).max())  # y is rounded
        np.testing.assert_allclose(
            xent.logsumexp_backward(np.ones(40), x, y), xent.softmax(x), rtol=4 * scale
        )


def test_backward_in_parts(dtype):
    """y of all classes, x a part of them; also a part that is all -inf."""
    x = random_logits((6, 30), dtype)
    x[2, 10:] = -np.inf
    x[4, :10] = 100
    y, g = xent.logsumexp(x), np.arange(6, dtype=dtype)
    parts = [xent.logsumexp_backward(g, x[:, a : a + 10], y) for a in (0, 10, 20)]
    limit = bound("logsumexp_backward", dtype)
    assert_ulp(np.hstack(parts), reference("logsumexp_backward", g, x, y), limit, dtype=dtype)
    assert (parts[1][2] == 0).all()


def test_backward_at_the_edges(dtype):
    inf, nan = np.inf, np.nan
    x = np.array([[-inf, -inf], [inf, 0], [nan, 0], [-inf, 0], [0, 0]], dtype)
    y, g = xent.logsumexp(x), np.ones(5, dtype)
    expected = [[nan, nan], [nan, nan], [nan, nan], [0, 1], [0.5, 0.5]]
    for module in [xent, xent.reference]:
        np.testing.assert_allclose(module.logsumexp_backward(g, x, y), expected, rtol=1e-6)
    for factor in [1e-30, 1e30, -1e30, 0.0]:  # factors before rounding
        gap = 100 if dtype == np.float32 else 700
        x = np.array([[0.0, -gap, -1.0]], dtype)
        g, y = np.array([factor], dtype), xent.logsumexp(x)
        expected = reference("logsumexp_backward", g, x, y)
        limit = bound("logsumexp_backward", dtype)
        assert_ulp(xent.logsumexp_backward(g, x, y), expected, limit, dtype=dtype)
    x = np.array([[300.0, 0.0, -300.0]], dtype)
    for y in [300.0, 310.0, 1e4, 1e30]:
        with np.errstate(over="ignore", under="ignore"):
            expected = reference("logsumexp_backward", [1.0], x, [y]).astype(dtype)
        assert_ulp(xent.logsumexp_backward([1.0], x, [y]), expected, 4, dtype=dtype)


def test_backward_errors():
    x = np.zeros((2, 3))
    with raises(ValueError, "grad must have the shape of the positions, (2,), got (3,)"):
        xent.logsumexp_backward(np.zeros(3), x, np.zeros(2))
    with raises(ValueError, "y must have the shape of the positions, (3,), got (2,)"):
        xent.logsumexp_backward(np.zeros(3), x, np.zeros(2), 0)
    with raises(TypeError, "y must be real numbers, got None"):
        xent.logsumexp_backward(np.zeros(2), x, None)
    with raises(ValueError, "out must have shape"):
        xent.logsumexp_backward(np.zeros(2), x, np.zeros(2), out=np.zeros(3))
    y = np.zeros(6)
    with raises(ValueError, "out overlaps y in memory"):
        xent.logsumexp_backward(np.zeros(2), x, y[:2], out=y.reshape(2, 3))


def test_a_log_sum_exp_with_factors_is_the_first_call():
    """bfloat16 has no number of its own in NumPy: the first call learns it."""
    code = "import numpy, ml_dtypes, xent; x = numpy.ones((3, 4), ml_dtypes.bfloat16); xent.logsumexp(x, b=x)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
