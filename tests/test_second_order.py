"""Second derivatives of the cross-entropy: the diagonals for boosting, and the Hessian times a vector."""

import itertools

import numpy as np
import pytest
from helpers import (
    ZOO,
    assert_same_bits,
    assert_ulp,
    of_zoo,
    raises,
    random_labels,
    random_logits,
    random_weights,
    reference,
    targets,
    ulp,
    wide,
)
from loss_options import (
    KINDS,
    REDUCTIONS,
    Terms,
    assert_grad,
    combinations,
    make,
    widened,
)
from mpmath import mp
from tolerances import DIFFERENCES, ROUNDED, bound

import xent

INF, NAN = np.inf, np.nan
HESSIANS = ["diagonal", "gauss_newton", "upper", "friedman", "absolute"]
SHAPES = [((9, 5), -1), ((70, 3), 1), ((2, 7, 40), -1), ((3, 17, 5, 7), 1), ((65, 4, 2), 0), ((3, 300), -1)]
BOOSTING = ["weight", "label_smoothing", "sample_weight", "temperature", "prior"]
BENT = ["z_loss", "gamma", "logit_cap"]  # the diagonal may be negative with these


@pytest.fixture(params=["float16", "bfloat16", "float32", "float64"], scope="module")
def dtype(request):
    """Every dtype."""
    return np.dtype(request.param)


def single(dtype):
    """The dtype that is computed in."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def in_double(logits, target):
    """The same in float64; labels stay labels."""
    return wide(logits), target if np.shape(target) != logits.shape else wide(target)


def assert_rounded(result, expected, limit, scale, slack, dtype, what=""):
    """As assert_ulp; 16 bits are computed in float32 and rounded once."""
    if dtype.itemsize == 2:
        slack, scale, limit = slack + limit * ulp(scale, np.float32), np.abs(expected), ROUNDED
    assert_ulp(result, expected, limit, dtype=dtype, scale=scale, slack=slack, what=what)


def cancels(target, logits, options):
    """Whether U p_c - a_c may cancel."""
    return np.shape(target) == logits.shape or bool(options.get("label_smoothing"))


def assert_grad_hess(logits, target, given=None, what="", given_options=None, **options):
    """Assert gradient and Hessian against the reference."""
    dtype = logits.dtype
    known = widened(options)
    hessian = known.pop("hessian", "diagonal")
    exact = in_double(logits, target)
    terms = Terms(*exact, dtype, **known)
    own = not cancels(target, logits, options)
    expected = reference("cross_entropy_grad_hess", *exact, hessian=hessian, **known)
    grad, hess = xent.cross_entropy_grad_hess(
        *(given or (logits, target)), **{**options, **(given_options or {})}
    )
    assert_grad(grad, expected[0], terms, dtype, own=own, what=what)
    if hessian == "absolute":
        assert_grad(hess, expected[1], terms, dtype, own=own, what=f"hessian {what}")
        return
    axis = options.get("axis", -1)
    summed = terms.positions + (0 if own else logits.shape[axis])
    error = terms.error.max(-1, keepdims=True, initial=0.0)
    assert_rounded(
        hess,
        expected[1],
        bound("hessian", single(dtype), summed),
        np.abs(expected[1]),
        2 * np.moveaxis(error, -1, axis) * np.abs(expected[1]),
        dtype,
        f"hessian {what}",
    )


# Gradient and Hessian diagonal ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hessian", HESSIANS)
def test_against_the_reference(hessian, kind, dtype):
    for (shape, axis), reduction in itertools.product(SHAPES, REDUCTIONS):
        if reduction == "mean_batch" and axis == 0:
            continue
        for names in [[], BOOSTING]:
            assert_grad_hess(
                random_logits(shape, dtype),
                targets(kind, shape, axis, dtype),
                hessian=hessian,
                axis=axis,
                reduction=reduction,
                what=f"of {shape} axis {axis} {reduction} {names}",
                **make(names, shape, axis, dtype),
            )


def sets(names):
    """Every subset."""
    return itertools.chain.from_iterable(itertools.combinations(names, n) for n in range(len(names) + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_every_combination(kind, dtype):
    cases = itertools.cycle(itertools.product([((9, 5), -1), ((4, 6, 9), 1), ((11, 4), 0)], HESSIANS))
    for names in sets(BOOSTING):
        (shape, axis), hessian = next(cases)
        assert_grad_hess(
            random_logits(shape, dtype),
            targets(kind, shape, axis, dtype),
            hessian=hessian,
            axis=axis,
            what=f"of {shape} axis {axis} {hessian} {names}",
            **make(names, shape, axis, dtype),
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hessian", HESSIANS)
def test_options_that_bend(hessian, kind, dtype):
    """At the scale of the terms, which may cancel."""
    cases = itertools.cycle([((9, 5), -1), ((4, 6, 9), 1), ((11, 4), 0), ((3, 70), -1), ((5,), 0)])
    for names in sets(BENT):
        for more in [[], BOOSTING, BOOSTING[2:]]:
            shape, axis = next(cases)
            logits, target = random_logits(shape, dtype), targets(kind, shape, axis, dtype)
            options = {"axis": axis, **make([*names, *more], shape, axis, dtype)}
            what = f"of {shape} axis {axis} {options.keys()}"
            result = xent.cross_entropy_grad_hess(logits, target, hessian=hessian, **options)
            exact, known = in_double(logits, target), widened(options)
            expected = reference("cross_entropy_grad_hess", *exact, hessian=hessian, **known)
            terms, gamma = Terms(*exact, dtype, **known), options.get("gamma", 0.0)
            own = not cancels(target, logits, options) and "z_loss" not in options
            assert_grad(result[0], expected[0], terms, dtype, gamma, own=own, what=what)
            if hessian == "absolute":
                assert_grad(result[1], expected[1], terms, dtype, gamma, own=own, what=f"hessian {what}")
                continue
            scale, slack = (2 * part for part in terms.diagonal())
            limit = (1 + gamma) * bound("hessian", single(dtype), terms.positions + shape[axis])
            assert_rounded(result[1], expected[1], limit, scale, slack, dtype, f"hessian {what}")
            assert hessian == "diagonal" or (wide(result[1]) >= 0).all()


LAYOUTS = [
    ((3, 17, 5, 7), 1),
    ((2, 40, 3), 1),
    ((5, 300), -1),
    ((300, 33), 0),
    ((2, 4099), -1),
    ((130, 7), -1),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, axis", [*LAYOUTS, ((1, 40_000), -1)])
def test_options_that_bend_wherever_classes_lie(shape, axis, kind, dtype):
    """Rows of all lengths, columns, and columns in runs; with powers that are products, and others."""
    logits, target = random_logits(shape, dtype), targets(kind, shape, axis, dtype)
    vector = random_logits(shape, dtype, seed=3)
    exact = in_double(logits, target)
    for gamma, more in [(2.0, {}), (2.5, {"label_smoothing": 0.1}), (0.5, {"logit_cap": 5.0, "prior": None})]:
        options = {"axis": axis, "gamma": gamma, "reduction": "sum", **more}
        terms = Terms(*exact, dtype, **options)
        expected = reference("cross_entropy_grad_hess", *exact, **options)
        result = xent.cross_entropy_grad_hess(logits, target, **options)
        assert_grad(result[0], expected[0], terms, dtype, gamma, what=f"gamma {gamma}")
        summed = terms.positions + shape[axis]
        scale, slack = (2 * part for part in terms.diagonal())
        limit = (1 + gamma) * bound("hessian", single(dtype), summed)
        assert_rounded(result[1], expected[1], limit, scale, slack, dtype, f"hessian, gamma {gamma}")
        product = xent.cross_entropy_hvp(logits, target, vector, **options)
        expected = reference("cross_entropy_hvp", *exact, wide(vector), **options)
        scale, slack = terms.product(wide(vector))
        limit = (1 + gamma) * bound("hessian_vector", single(dtype), summed)
        assert_rounded(product, expected, limit, scale, slack, dtype, f"product, gamma {gamma}")


def test_a_confident_focal_loss_keeps_its_last_digits(dtype):
    """The derivatives next to 0 of a distribution, and powers of a complement that is no normal float."""
    for gap in [9, 30, 60]:
        logits, target = np.array([[gap, 0]], dtype), np.array([[1, 0]], dtype)
        exact = np.array([[gap, 0]], np.float64)
        for gamma in [0.5, 1.0, 1.75, 2.0]:
            for options in [{"gamma": gamma}, {"gamma": gamma, "logit_cap": 200.0}]:
                expected = reference("cross_entropy_grad_hess", exact, wide(target), **options)
                for soft in (target, [0]):  # the distribution of a label, and the label
                    result = xent.cross_entropy_grad_hess(logits, soft, **options)
                    for got, right in zip(result, expected, strict=True):
                        slack = 2.0**-44 * np.abs(right)  # of the reference, whose logits are rounded
                        assert_rounded(got, right, 9 * (1 + gamma), np.abs(right), slack, dtype)


def test_a_name_of_another_kind_of_string():
    x = random_logits((3, 4), np.dtype("f8"))
    for hessian in HESSIANS:
        expected = xent.cross_entropy_grad_hess(x, [0, 1, 2], hessian=hessian, gamma=2.0)
        result = xent.cross_entropy_grad_hess(x, [0, 1, 2], hessian=np.str_(hessian), gamma=2.0)
        assert_same_bits(result, expected)


def test_nothing_bends(dtype):
    for shape, labels in [((0, 5), np.zeros(0, int)), ((2, 0), np.full(2, -100)), ((0, 0), np.zeros(0, int))]:
        x = np.zeros(shape, dtype)
        for reduction in ["none", "sum", "mean_full"]:
            options = {"gamma": 2.0, "label_smoothing": 0.1, "reduction": reduction}
            loss, grad = xent.cross_entropy_value_and_grad(x, labels, **options)
            assert not loss.any()
            assert grad.shape == shape
            for result in xent.cross_entropy_grad_hess(x, labels, **options):
                assert result.shape == shape


def test_a_position_without_weight_is_not_there(dtype):
    x = np.array([[NAN, 1, 2], [0, 1, 2]], dtype)
    options = {"gamma": 2.0, "logit_cap": 5.0, "sample_weight": [0.0, 1.0], "label_smoothing": 0.1}
    for result in [
        *xent.cross_entropy_grad_hess(x, [0, 1], **options),
        xent.cross_entropy_grad(x, [0, 1], **options),
        xent.cross_entropy_hvp(x, [0, 1], np.ones_like(x), **options),
    ]:
        assert not wide(result[0]).any()
        assert np.isfinite(wide(result)).all()
    assert np.isfinite(xent.cross_entropy(x, [0, 1], **options))


def test_weights_of_either_sign_and_classes_that_are_not_there(dtype):
    """With every rule, by kernels and without."""
    x = np.array([[NAN, 1, 2], [0, 1, 2], [3, 1, 2]], dtype)
    weights = {"weight": [0.0, 2.0, -1.0], "sample_weight": [1.0, -3.0, 2.0], "reduction": "sum"}
    for options in [{}, {"gamma": 2.0}, {"gamma": 2.0, "logit_cap": 5.0}, {"logit_cap": 5.0}]:
        for hessian in HESSIANS:
            known = {"hessian": hessian, **options, **weights}
            result = xent.cross_entropy_grad_hess(x, [0, 1, 2], **known)
            expected = reference("cross_entropy_grad_hess", wide(x), [0, 1, 2], **known)
            for r, e in zip(result, expected, strict=True):
                assert not wide(r[0]).any()
                np.testing.assert_allclose(wide(r), e, rtol=1e-2, atol=1e-3)
            assert hessian != "absolute" or (wide(result[1]) >= 0).all()


def test_a_diagonal_that_is_negative():
    logits = np.array([[-4.0, -3.0, -9.0]])
    for label, options in [(2, {"gamma": 2.0}), (0, {"logit_cap": 0.5}), (0, {"z_loss": 1.0})]:
        for module in [xent, xent.reference]:
            _, hess = module.cross_entropy_grad_hess(logits, [label], **options)
            assert (hess < 0).any()
            _, hess = module.cross_entropy_grad_hess(logits, [label], hessian="gauss_newton", **options)
            assert (hess >= 0).all()


@pytest.mark.parametrize("hessian", HESSIANS)
def test_every_number_of_classes(hessian, dtype):
    for classes in [2, 3, 5, 7, 8, 9, 16, 17, 31, 33, 64, 65, 257, 1000, 4099]:
        for shape, axis in [((9, classes), -1), ((classes, 9), 0), ((2, classes, 5), 1)]:
            assert_grad_hess(
                random_logits(shape, dtype),
                targets("labels", shape, axis, dtype),
                hessian=hessian,
                axis=axis,
                reduction="none",
                what=f"of {shape} axis {axis}",
            )


@pytest.mark.parametrize("shape, axis", [((2, 40_000), -1), ((40_000, 3), 0), ((30_001, 9), -1)])
def test_large_arrays(shape, axis, dtype):
    assert_grad_hess(
        random_logits(shape, dtype),
        targets("labels", shape, axis, dtype),
        axis=axis,
        **make(["weight", "sample_weight", "temperature"], shape, axis, dtype),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_diagonal_is_the_derivative_of_the_gradient(kind):
    shape, step = (3, 4, 2), 1e-5
    logits, target = random_logits(shape, np.float64, scale=1.0), targets(kind, shape, 1, np.float64)
    for names in [*sets(BOOSTING), *sets(BENT), [*BOOSTING, *BENT]]:
        options = {"axis": 1, **make(names, shape, 1, np.float64)}
        expected = np.zeros(shape)
        for place in np.ndindex(shape):
            ends = []
            for sign in [1, -1]:
                moved = logits.copy()
                moved[place] += sign * step
                ends.append(reference("cross_entropy_grad", moved, target, **options)[place])
            expected[place] = (ends[0] - ends[1]) / (2 * step)
        for function in [xent.cross_entropy_grad_hess, xent.reference.cross_entropy_grad_hess]:
            _, hess = function(logits, target, **options)
            assert np.allclose(hess, expected, rtol=0, atol=100 * DIFFERENCES), names


@pytest.mark.parametrize("kind", KINDS)
def test_the_diagonal_is_that_of_the_hessian_vector_product(kind, dtype):
    shape = (6, 5)
    logits, target = random_logits(shape, dtype), targets(kind, shape, -1, dtype)
    options = {**make(BOOSTING, shape, -1, dtype), "reduction": "sum"}
    _, hess = xent.cross_entropy_grad_hess(logits, target, **options)
    for c in range(5):
        unit = np.zeros(shape, dtype)
        unit[:, c] = 1
        product = xent.cross_entropy_hvp(logits, target, unit, **options)
        np.testing.assert_allclose(wide(product[:, c]), wide(hess[:, c]), rtol=2e-2, atol=1e-6)


def test_the_kinds_of_hessian_are_multiples(dtype):
    logits, labels = random_logits((7, 5), dtype), random_labels((7,), 5)
    results = {h: xent.cross_entropy_grad_hess(logits, labels, hessian=h) for h in HESSIANS}
    diagonal = wide(results["diagonal"][1])
    rtol = 2.0**-6 if dtype.itemsize == 2 else 1e-6
    np.testing.assert_allclose(wide(results["upper"][1]), 2 * diagonal, rtol=rtol)
    np.testing.assert_allclose(wide(results["friedman"][1]), 5 / 4 * diagonal, rtol=rtol)
    assert_same_bits(results["gauss_newton"], results["diagonal"])
    for h in HESSIANS:
        assert_same_bits(results[h][0], results["diagonal"][0])
    assert_same_bits(results["absolute"][1], np.abs(results["absolute"][0]))
    assert_same_bits(xent.cross_entropy_grad_hess(logits, labels), results["diagonal"])


def test_absolute_where_weights_are_negative():
    for module in (xent, xent.reference):
        grad, hess = module.cross_entropy_grad_hess(
            [1.0, 2.0, 4.0], 1, hessian="absolute", weight=[-0.9] * 3, sample_weight=1.5
        )
        assert (hess == np.abs(grad)).all()


def test_upper_is_a_bound():
    rng = np.random.default_rng(0)
    logits, labels = random_logits((200, 4), np.float64), random_labels((200,), 4)
    _, upper = xent.cross_entropy_grad_hess(logits, labels, hessian="upper", reduction="sum")
    for _ in range(20):
        v = rng.standard_normal((200, 4))
        product = xent.cross_entropy_hvp(logits, labels, v, reduction="sum")
        assert ((v * product).sum(-1) <= (v * upper * v).sum(-1) + 1e-15).all()


def test_worked_numbers():
    # p = (1/2, 1/4, 1/4); the label is class 1
    logits = np.log([[2.0, 1.0, 1.0]])
    for hessian, expected in [
        ("diagonal", [1 / 4, 3 / 16, 3 / 16]),
        ("upper", [1 / 2, 3 / 8, 3 / 8]),
        ("friedman", [3 / 8, 9 / 32, 9 / 32]),
        ("absolute", [1 / 2, 3 / 4, 1 / 4]),
    ]:
        grad, hess = xent.cross_entropy_grad_hess(logits, [1], hessian=hessian)
        np.testing.assert_allclose(grad, [[1 / 2, -3 / 4, 1 / 4]], rtol=1e-15)
        np.testing.assert_allclose(hess, [expected], rtol=1e-15)
    _, hess = xent.cross_entropy_grad_hess(logits, [1], weight=[1, 8, 1], temperature=1.0, reduction="sum")
    np.testing.assert_allclose(hess, [[2, 3 / 2, 3 / 2]], rtol=1e-15)
    # u_c = w_c t_c with t = (1/12, 10/12, 1/12) of smoothing 1/4: U = (1 + 80 + 1) / 12
    _, hess = xent.cross_entropy_grad_hess(
        logits, [1], weight=[1, 8, 1], label_smoothing=0.25, reduction="sum"
    )
    np.testing.assert_allclose(hess, 82 / 12 * np.array([[1 / 4, 3 / 16, 3 / 16]]), rtol=1e-15)


def test_confident_predictions_keep_their_curvature(dtype):
    for gap in [9, 20, 60]:
        logits = np.array([[gap, 0]]).astype(dtype)
        q = np.exp(-float(gap)) / (1 + np.exp(-float(gap)))
        _, hess = xent.cross_entropy_grad_hess(logits, [0])
        if dtype == np.float16 and q < 1e-8:
            assert not wide(hess).any()
            continue
        expected = np.full((1, 2), q * (1 - q))
        assert_rounded(hess, expected, bound("hessian", single(dtype)), expected, 0.0, dtype)


# Its special values, memory, threads ------------------------------------------------------------------------


@pytest.mark.parametrize("hessian", HESSIANS)
def test_special_rows(hessian, dtype):
    for row in [[0, -INF, 1], [INF, 0, 1], [-INF, -INF, -INF], [-INF, 3, -INF], [1, NAN, 2], [3e4, -3e4, 0]]:
        for padding in [0, 6, 40]:
            x = np.tile(np.concatenate([row, np.zeros(padding)]).astype(dtype), (3, 1))
            options = {"hessian": hessian, "reduction": "none"}
            expected = reference("cross_entropy_grad_hess", wide(x), np.arange(3), **options)
            for values, axis in [(x, -1), (x.T.copy(), 0)]:
                result = xent.cross_entropy_grad_hess(values, np.arange(3), axis=axis, **options)
                for r, e in zip(result, expected, strict=True):
                    np.testing.assert_allclose(
                        wide(np.moveaxis(r, axis, -1)), e, rtol=2e-2, atol=1e-6, err_msg=f"{row}"
                    )


def test_ignored_positions_and_means_over_nothing(dtype):
    logits, labels = random_logits((6, 4), dtype), random_labels((6,), 4)
    labels[::2] = -100
    logits[::2] = NAN
    for hessian in HESSIANS:
        for result in xent.cross_entropy_grad_hess(logits, labels, hessian=hessian):
            assert not wide(result[::2]).any()
            assert np.isfinite(wide(result)).all()
            assert wide(result[1::2]).any()
    for values, target, options in [
        (logits, np.full(6, -100), {}),
        (logits[:0], labels[:0], {}),
        (np.zeros((6, 4), dtype), labels, {"sample_weight": np.zeros(6)}),
        (np.zeros((2, 0), dtype), np.full(2, -100), {}),
    ]:
        for result in xent.cross_entropy_grad_hess(values, target, **options):
            assert result.shape == values.shape
            assert result.dtype == dtype
            assert not wide(result).any()


@pytest.mark.parametrize("variant", ZOO)
@pytest.mark.parametrize("kind", KINDS)
def test_every_memory_layout(kind, variant, dtype):
    for shape, axis in [((7, 5), -1), ((3, 40), -1), ((4, 6, 9), 1), ((11, 4), 0)]:
        logits, target = random_logits(shape, dtype), targets(kind, shape, axis, dtype)
        options, what = make(BOOSTING, shape, axis, dtype), f"of {shape} axis {axis}"
        moved = {n: of_zoo(variant, options[n]) for n in ["sample_weight", "prior", "weight"]}
        layouts = (of_zoo(variant, logits), of_zoo(variant, target))
        assert_grad_hess(logits, target, layouts, what, axis=axis, given_options=moved, **options)


def test_out(dtype):
    for shape, axis in [((6, 5), -1), ((4, 5, 9), 1), ((2, 300), -1), ((40, 6), 0)]:
        logits, target = random_logits(shape, dtype), targets("labels", shape, axis, dtype)
        for hessian in HESSIANS:
            options = {"axis": axis, "hessian": hessian}
            expected = xent.cross_entropy_grad_hess(logits, target, **options)
            assert not any(np.shares_memory(logits, e) for e in expected)
            for variant in ["contiguous", "every second element", "Fortran order", "unaligned"]:
                out = tuple(of_zoo(variant, np.full(shape, 7, dtype)) for _ in range(2))
                result = xent.cross_entropy_grad_hess(logits, target, out=out, **options)
                assert result[0] is out[0]
                assert result[1] is out[1]
                for r, e in zip(result, expected, strict=True):
                    np.testing.assert_allclose(wide(r), wide(e), rtol=2.0**-6, atol=1e-7)
            overwritten, other = logits.copy(), np.empty_like(logits)
            result = xent.cross_entropy_grad_hess(overwritten, target, out=(overwritten, other), **options)
            assert result[0] is overwritten
            assert_same_bits(result, expected, "in place")
        bent = {"axis": axis, "gamma": 2.0, "logit_cap": 5.0}
        expected = xent.cross_entropy_grad_hess(logits, target, **bent)
        for variant in ["contiguous", "Fortran order"]:
            out = tuple(of_zoo(variant, np.full(shape, 7, dtype)) for _ in range(2))
            assert_same_bits(xent.cross_entropy_grad_hess(logits, target, out=out, **bent), expected)
            assert_same_bits(out, expected)
        out = logits.copy(), np.empty_like(logits)
        assert xent.cross_entropy_grad_hess(out[0], target, out=out, **bent)[0] is out[0]
        assert_same_bits(out, expected, "in place")


@pytest.mark.parametrize("shape, axis", [((30_001, 9), -1), ((3, 70_001), -1), ((3, 11, 90, 97), 1)])
def test_threads_give_the_same_bits(shape, axis, dtype):
    logits, target = random_logits(shape, dtype), targets("labels", shape, axis, dtype)
    vector = random_logits(shape, dtype, seed=5)
    options = {"axis": axis, **make(BOOSTING, shape, axis, dtype)}
    every = {
        "axis": axis,
        **make(["weight", "sample_weight", "z_loss", "gamma", "logit_cap"], shape, axis, dtype),
    }
    results = []
    for n in [1, 2, 3]:
        with xent.num_threads(n):
            grad, hess = xent.cross_entropy_grad_hess(logits, target, **options)
            results.append((grad, hess, xent.cross_entropy_hvp(logits, target, vector, **every)))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


# Hessian times vector ---------------------------------------------------------------------------------------


def assert_product(logits, target, vector, given=None, what="", **options):
    """Assert the Hessian-vector product against the reference."""
    dtype = logits.dtype
    known = widened(options)
    exact = in_double(logits, target)
    scale, slack = Terms(*exact, dtype, **known).product(wide(vector))
    expected = reference("cross_entropy_hvp", *exact, wide(vector), **known)
    result = xent.cross_entropy_hvp(*(given or (logits, target, vector)), **options)
    classes = logits.shape[options.get("axis", -1)]
    limit = bound("hessian_vector", single(dtype), classes + wide(scale).size)
    limit = limit * (1 + options.get("gamma", 0.0))
    assert_rounded(result, expected, limit, scale, slack, dtype, f"product {what}")


@pytest.mark.parametrize("kind", KINDS)
def test_products_of_every_combination(kind, dtype):
    cases = itertools.cycle(itertools.product([((9, 5), -1), ((4, 6, 9), 1), ((11, 4), 0)], REDUCTIONS[:-1]))
    for names in combinations():
        (shape, axis), reduction = next(cases)
        assert_product(
            random_logits(shape, dtype),
            targets(kind, shape, axis, dtype),
            random_logits(shape, dtype, seed=5, scale=1.0),
            axis=axis,
            reduction=reduction,
            what=f"of {shape} axis {axis} {reduction} {names}",
            **make(names, shape, axis, dtype),
        )


@pytest.mark.slow
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, axis", [(s, a) for s, a in SHAPES if a])
def test_products_of_every_reduction(shape, axis, kind, reduction, dtype):
    for names in list(combinations())[:: 61 if kind == "labels" else 13]:
        assert_product(
            random_logits(shape, dtype),
            targets(kind, shape, axis, dtype),
            random_logits(shape, dtype, seed=5, scale=1.0),
            axis=axis,
            reduction=reduction,
            what=f"{names}",
            **make(names, shape, axis, dtype),
        )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
def test_products_of_every_number_of_classes(gamma, dtype):
    for classes in [1, 2, 3, 5, 7, 8, 9, 16, 17, 31, 33, 64, 65, 257, 1000, 4099]:
        for shape, axis in [((9, classes), -1), ((classes, 9), 0)]:
            assert_product(
                random_logits(shape, dtype),
                targets("labels", shape, axis, dtype),
                random_logits(shape, dtype, seed=5, scale=1.0),
                axis=axis,
                gamma=gamma,
                what=f"of {shape} axis {axis}",
            )


@pytest.mark.parametrize("shape, axis", [((2, 40_000), -1), ((40_000, 3), 0), ((30_001, 9), -1)])
def test_products_of_large_arrays(shape, axis, dtype):
    names = ["weight", "sample_weight", "z_loss", "gamma", "temperature", "logit_cap", "prior"]
    assert_product(
        random_logits(shape, dtype),
        targets("labels", shape, axis, dtype),
        random_logits(shape, dtype, seed=5),
        axis=axis,
        **make(names, shape, axis, dtype),
    )


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_derivatives_of_the_gradient(kind, reduction):
    shape, step = (3, 4, 2), 1e-5
    logits, target = random_logits(shape, np.float64, scale=1.0), targets(kind, shape, 1, np.float64)
    vector = random_logits(shape, np.float64, seed=5, scale=1.0)
    for names in combinations():
        for gamma in [0.5, 1.0, 2.0, 3.5] if "gamma" in names else [0.0]:
            options = {"axis": 1, "reduction": reduction, **make(names, shape, 1, np.float64), "gamma": gamma}
            ends = [
                reference("cross_entropy_grad", logits + s * vector, target, **options) for s in [step, -step]
            ]
            expected = (ends[0] - ends[1]) / (2 * step)
            for function in [xent.cross_entropy_hvp, xent.reference.cross_entropy_hvp]:
                result = function(logits, target, vector, **options)
                room = 100 * DIFFERENCES * max(1, np.abs(expected).max())
                assert np.allclose(result, expected, rtol=0, atol=room), (names, gamma)


@pytest.mark.parametrize("kind", KINDS)
def test_powers_whose_square_is_beyond_all_floats(kind, dtype):
    """gamma^2 multiplies a power that is 0."""
    for shape, axis in [((3, 5), 1), ((2, 200, 3), 1)]:
        logits, target = random_logits(shape, dtype, scale=0.1), targets(kind, shape, axis, dtype)
        for gamma in (1e30, 1e160, 1.7e308):
            options = {"axis": axis, "gamma": gamma}
            for result in [
                *xent.cross_entropy_grad_hess(logits, target, **options),
                xent.cross_entropy_hvp(logits, target, logits, **options),
            ]:
                np.testing.assert_array_equal(result, 0, err_msg=f"{gamma} {shape}")


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5])
def test_a_rest_whose_inverse_is_beyond_all_floats(gamma):
    """1 - p below all normal numbers, and a target that has another class too."""
    for classes in (3, 70):
        logits = np.full((2, classes), -730.0)
        logits[:, :2] = [0.0, -712.0]
        target = np.zeros(logits.shape)
        target[:, :2] = [0.9999, 1e-4]
        vector = np.sin(np.arange(target.size)).reshape(target.shape)
        options = {"gamma": gamma, "reduction": "sum"}
        for name, arrays in [("cross_entropy_grad_hess", ()), ("cross_entropy_hvp", (vector,))]:
            for axis in (1, 0):
                turned = [a if axis else a.T for a in (logits, target, *arrays)]
                result = getattr(xent, name)(*turned, axis=axis, **options)
                expected = getattr(xent.reference, name)(*turned, axis=axis, **options)
                np.testing.assert_allclose(np.array(result), np.array(expected), rtol=1e-12, atol=1e-15)


def exact_product(row, label, vector, gamma):
    """The Hessian of the focal loss of one row times a vector, in mpmath."""
    with mp.workprec(1100):  # exp(-600) beside 1
        x, v = ([mp.mpf(float(a)) for a in values] for values in (row, vector))
        lse = mp.log(mp.fsum(mp.exp(a) for a in x))
        p = [mp.exp(a - lse) for a in x]
        mean = mp.fsum(a * b for a, b in zip(p, v, strict=True))
        p_y, own = p[label], lse - x[label]
        q, gamma = 1 - p_y, mp.mpf(float(gamma))
        factor = q**gamma * (1 + gamma * p_y * own / q)
        slope = gamma * q ** (gamma - 1) * (own - 2 - (gamma - 1) * p_y * own / q)
        step = slope * p_y * (v[label] - mean)
        both = enumerate(zip(p, v, strict=True))
        return [float(factor * pc * (vc - mean) + step * (pc - (c == label))) for c, (pc, vc) in both]


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    "row", [[20, 0, 1], [80, 0, 1, 2], [600, 0, 1], [-90, 0, 1], [0.5, 0.25, 0.375]], ids=str
)
def test_products_to_the_last_digits(row, gamma, dtype):
    logits = np.tile(np.array(row).astype(dtype), (len(row), 1))
    labels = np.arange(len(row))
    vector = random_logits(logits.shape, dtype, seed=5, scale=1.0)
    expected = np.array(
        [exact_product(wide(r), y, wide(v), gamma) for r, y, v in zip(logits, labels, vector, strict=True)]
    )
    options = {"gamma": gamma, "reduction": "sum"}
    for function, kind in [
        (xent.cross_entropy_hvp, dtype),
        (xent.reference.cross_entropy_hvp, np.dtype("f8")),
    ]:
        x, v = (a if kind == dtype else wide(a) for a in (logits, vector))
        scale, slack = Terms(wide(logits), labels, kind, **options).product(wide(vector))
        limit = bound("hessian_vector", single(kind), 3) * (1 + gamma)
        assert_rounded(function(x, labels, v, **options), expected, limit, scale, slack, kind, f"{kind}")


def test_products_of_softmax_are_those_of_its_jacobian():
    logits, vector = random_logits((6, 5), np.float64), random_logits((6, 5), np.float64, seed=1)
    result = xent.cross_entropy_hvp(logits, random_labels((6,), 5), vector, reduction="sum")
    jacobian = xent.softmax_jacobian(xent.softmax(logits))
    np.testing.assert_allclose(result, np.einsum("nij,nj->ni", jacobian, vector), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_products_are_symmetric_and_linear(kind):
    shape = (6, 5)
    logits, target = random_logits(shape, np.float64), targets(kind, shape, -1, np.float64)
    v, w = (random_logits(shape, np.float64, seed=s) for s in (1, 2))
    for names in combinations():
        options = make(names, shape, -1, np.float64)
        hv, hw = (xent.cross_entropy_hvp(logits, target, a, **options) for a in (v, w))
        room = 1e-12 * max(np.abs(hv).max(), np.abs(hw).max(), 1) * 100
        assert abs((w * hv).sum() - (v * hw).sum()) < room
        both = xent.cross_entropy_hvp(logits, target, 2 * v - w, **options)
        assert np.allclose(both, 2 * hv - hw, rtol=0, atol=room)


def test_products_with_a_constant_vanish(dtype):
    # the loss does not change if all logits of a position do
    logits, labels = random_logits((6, 5), dtype), random_labels((6,), 5)
    for options in [{}, {"gamma": 2.0}, {"temperature": 0.5}, {"label_smoothing": 0.1}]:
        product = xent.cross_entropy_hvp(logits, labels, np.full((6, 5), 3, dtype), **options)
        assert np.abs(wide(product)).max() < 1e-5
    # of the z-loss 2 z p is left: (p.v) p + lse p (v - p.v) with v = 1
    product = xent.cross_entropy_hvp(logits, labels, np.ones((6, 5), dtype), z_loss=0.5, reduction="sum")
    np.testing.assert_allclose(wide(product), reference("softmax", wide(logits)), rtol=2e-2, atol=1e-5)


def test_products_of_none_are_those_of_the_sum(dtype):
    logits, labels = random_logits((6, 5), dtype), random_labels((6,), 5)
    vector = random_logits((6, 5), dtype, seed=1)
    results = [xent.cross_entropy_hvp(logits, labels, vector, reduction=r) for r in ["none", "sum"]]
    assert_same_bits(results[0], results[1])


def test_products_with_vectors_of_other_dtypes(dtype):
    logits, labels = random_logits((6, 5), dtype), random_labels((6,), 5)
    vector = np.arange(30).reshape(6, 5) % 7 - 3
    expected = xent.cross_entropy_hvp(logits, labels, vector.astype(dtype))
    assert expected.dtype == dtype
    for other in [vector, vector.tolist(), vector.astype("f4"), vector.astype("f8"), vector.astype("f2")]:
        result = xent.cross_entropy_hvp(logits, labels, other)
        assert result.dtype == dtype
        np.testing.assert_allclose(wide(result), wide(expected), rtol=2.0**-7, atol=1e-7)


def test_special_rows_in_products(dtype):
    vector = np.array([[1, 2, -1]]).astype(dtype)
    for row in [[0, -INF, 1], [INF, 0, 1], [-INF, -INF, -INF], [-INF, 3, -INF], [1, NAN, 2], [3e4, -3e4, 0]]:
        x = np.array([row]).astype(dtype)
        for label in range(3):
            for options in [
                {},
                {"gamma": 0.5},
                {"gamma": 2.0},
                {"z_loss": 0.5},
                {"logit_cap": 4.0},
                {"prior": [1, 2, 3]},
            ]:
                expected = reference("cross_entropy_hvp", wide(x), [label], wide(vector), **options)
                for values, axis in [(x, -1), (x.T.copy(), 0)]:
                    v = np.moveaxis(vector, -1, axis).copy()
                    result = xent.cross_entropy_hvp(values, [label], v, axis=axis, **options)
                    np.testing.assert_allclose(
                        wide(np.moveaxis(result, axis, -1)),
                        expected,
                        rtol=2e-2,
                        atol=1e-5,
                        err_msg=f"{row} {options}",
                    )


def test_zero_weights_and_impossible_targets_in_products(dtype):
    logits = np.array([[-INF, 0, 1], [0, 0, 0], [NAN, 0, 0]]).astype(dtype)
    vector = np.ones((3, 3), dtype)
    vector[:, 0] = 2
    product = xent.cross_entropy_hvp(logits, [0, 1, 1], vector, sample_weight=[0, 1, 0], reduction="sum")
    assert not wide(product[0]).any()
    assert np.isfinite(wide(product[1])).all()
    assert not wide(product[2]).any(), "without weight it is not there"
    spoiled = vector.copy()
    spoiled[1, 0] = NAN
    product = xent.cross_entropy_hvp(np.zeros((3, 3), dtype), [0, 1, 2], spoiled)
    assert np.isnan(wide(product[1])).all()
    assert np.isfinite(wide(product[::2])).all()


def test_ignored_positions_and_means_over_nothing_in_products(dtype):
    logits, labels = random_logits((6, 4), dtype), random_labels((6,), 4)
    vector = random_logits((6, 4), dtype, seed=1)
    labels[::2] = -100
    logits[::2] = NAN
    vector[2] = INF
    for options in [{}, {"gamma": 2.0}, {"z_loss": 0.5}, {"logit_cap": 3.0}]:
        product = xent.cross_entropy_hvp(logits, labels, vector, **options)
        assert not wide(product[::2]).any()
        assert np.isfinite(wide(product)).all()
        nothing = xent.cross_entropy_hvp(logits, np.full(6, -100), vector, **options)
        assert nothing.dtype == dtype
        assert not wide(nothing).any()
    for shape in [(0, 4), (2, 0)]:
        empty = np.zeros(shape, dtype)
        assert xent.cross_entropy_hvp(empty, np.full(shape[0], -100), empty).shape == shape


@pytest.mark.parametrize("variant", ZOO)
@pytest.mark.parametrize("kind", KINDS)
def test_every_memory_layout_in_products(kind, variant, dtype):
    for shape, axis in [((7, 5), -1), ((3, 40), -1), ((4, 6, 9), 1), ((11, 4), 0)]:
        logits, target = random_logits(shape, dtype), targets(kind, shape, axis, dtype)
        vector = random_logits(shape, dtype, seed=5)
        layouts = tuple(of_zoo(variant, a) for a in (logits, target, vector))
        options, what = {"axis": axis, "z_loss": 0.1, "logit_cap": 5.0}, f"of {shape} axis {axis}"
        assert_product(logits, target, vector, layouts, what, **options)
        assert_product(logits, target, vector, (logits, target, layouts[2]), what, **options)


# Errors -----------------------------------------------------------------------------------------------------

X = np.zeros((3, 5))
LABELS = np.array([0, 4, 2])
CALLS = {
    "cross_entropy_grad_hess": lambda logits, target, **o: xent.cross_entropy_grad_hess(logits, target, **o),
    "cross_entropy_hvp": lambda logits, target, **o: xent.cross_entropy_hvp(
        logits, target, np.zeros(np.shape(logits)), **o
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_errors_of_the_loss(name):
    call = CALLS[name]
    for option, bad in [
        *[("sample_weight", b) for b in [np.ones(4), [1, INF, 1], [1, NAN, 1]]],
        *[("prior", b) for b in [np.ones(4), np.zeros(5), np.full(5, INF)]],
        *[("weight", b) for b in [np.ones(4), np.full(5, -INF)]],
        *[("temperature", b) for b in [0.0, -1.0, NAN]],
        *[("label_smoothing", b) for b in [-0.1, 1.1]],
        ("reduction", "average"),
    ]:
        with raises(ValueError, option):
            call(X, LABELS, **{option: bad})
    with raises(ValueError, "target[1] is 5"):
        call(X, [0, 5, 1])
    with raises(ValueError, "target", (2,), (3,)):
        call(X, [0, 1])
    with raises(TypeError, "target"):
        call(X, LABELS.astype(float))
    with raises(TypeError, "logits"):
        call(X.astype(complex), LABELS)
    with raises(np.exceptions.AxisError, 2):
        call(X, LABELS, axis=2)


def test_errors_of_hessian():
    for bad in ["full", "", "DIAGONAL"]:
        with raises(ValueError, "hessian", repr(bad), "friedman"):
            xent.cross_entropy_grad_hess(X, LABELS, hessian=bad)
    with raises(ValueError, "friedman"):
        xent.cross_entropy_grad_hess(np.zeros((3, 1)), np.zeros(3, int), hessian="friedman")
    for option, bad in [("z_loss", -1.0), ("gamma", -1.0), ("logit_cap", 0.0)]:
        with raises(ValueError, option):
            xent.cross_entropy_grad_hess(X, LABELS, **{option: bad})


def test_errors_of_out():
    good = [np.full((3, 5), 7.0) for _ in range(2)]
    for bad in [np.zeros((3, 4)), np.zeros((3, 5), "f4")]:
        for pair in [(good[0], bad), (bad, good[1])]:
            with raises(ValueError, "out"):
                xent.cross_entropy_grad_hess(X, LABELS, out=pair)
    with raises(ValueError, "out", "overlap"):
        xent.cross_entropy_grad_hess(X, LABELS, out=(good[0], good[0]))
    with pytest.raises((TypeError, ValueError), match="out"):
        xent.cross_entropy_grad_hess(X, LABELS, out=good[0])
    with raises(ValueError, "target"):
        xent.cross_entropy_grad_hess(X, [0, 1, 5], out=tuple(good))
    assert all((g == 7).all() for g in good)


def test_errors_of_products():
    for bad in [np.zeros((3, 4)), np.zeros(5), np.zeros((1, 5)), 1.0]:
        with raises(ValueError, "vector", np.shape(bad), (3, 5)):
            xent.cross_entropy_hvp(X, LABELS, bad)
    for kind in [complex, object, "U1"]:
        with raises(TypeError, "vector"):
            xent.cross_entropy_hvp(X, LABELS, np.zeros((3, 5), kind))
    for option, bad in [("z_loss", -1.0), ("gamma", -1.0), ("logit_cap", 0.0)]:
        with raises(ValueError, option):
            xent.cross_entropy_hvp(X, LABELS, X, **{option: bad})


def test_weights_of_classes_scale_the_hessian():
    logits, labels = random_logits((20, 5), np.float64), random_labels((20,), 5)
    weight = random_weights(5, np.float64)
    plain = xent.cross_entropy_grad_hess(logits, labels, reduction="sum")
    weighted = xent.cross_entropy_grad_hess(logits, labels, weight=weight, reduction="sum")
    for a, b in zip(weighted, plain, strict=True):
        np.testing.assert_allclose(a, b * weight[labels][:, None], rtol=1e-14)


def test_second_derivatives_do_not_take_the_place_of_the_logits():
    # the gradient may; these are written while the logits are still read
    logits = np.zeros((3, 4))
    with raises(ValueError, "out", "logits", "overlap"):
        xent.cross_entropy_grad_hess(logits, [0, 1, 2], out=(np.empty((3, 4)), logits))
    assert (logits == 0).all()


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 3.0}, {"label_smoothing": 0.1}, {"prior": [0.1] * 5 + [0.5]}]
)
def test_products_of_confident_floats(options):
    """Beyond the distances that float64 holds all digits of: what is lost there is 0 in float32."""
    rng = np.random.default_rng(7)
    for scale in [30.0, 300.0, 1e4]:
        x = (scale * rng.standard_normal((40, 6))).astype("f4")
        x[3:6] = x[3:6].round(-3)  # ties
        v = np.exp2(rng.uniform(-140, 10, x.shape)).astype("f4")
        y = rng.integers(0, 6, 40)
        product = xent.cross_entropy_hvp(x, y, v, reduction="sum", **options)
        wide_x, wide_v = x.astype("f8"), v.astype("f8")
        expected = xent.cross_entropy_hvp(wide_x, y, wide_v, reduction="sum", **options)
        assert_ulp(
            product, expected, 4, dtype=np.dtype("f4"), scale=np.abs(expected), slack=1e-9 * np.abs(expected)
        )


@pytest.mark.parametrize(("shape", "axis"), [((40, 6), -1), ((9, 300), -1), ((6, 40), 0), ((2, 70, 5), 1)])
def test_products_of_floats_that_the_kernels_leave(shape, axis):
    """Some positions are beyond the arithmetic of the kernels, which leave these between others."""
    rng = np.random.default_rng(8)
    x, v = rng.standard_normal((2, *shape)).astype("f4")
    places = tuple(n for k, n in enumerate(shape) if k != axis % len(shape))
    y = rng.integers(0, shape[axis], places)
    x *= np.where(rng.random(places) < 0.3, np.float32(1e38), np.float32(1)).reshape(
        np.expand_dims(y, axis).shape
    )
    options = {"axis": axis, "z_loss": 1e25, "reduction": "sum"}
    product = xent.cross_entropy_hvp(x, y, v, **options)
    expected = xent.cross_entropy_hvp(x.astype("f8"), y, v.astype("f8"), **options)
    assert_ulp(
        product, expected, 4, dtype=np.dtype("f4"), scale=np.abs(expected), slack=1e-9 * np.abs(expected)
    )


@pytest.mark.parametrize(
    "options", [{"gamma": 0.5}, {"gamma": 2.0}, {"logit_cap": 30.0, "z_loss": 0.1}, {}], ids=str
)
@pytest.mark.parametrize(("shape", "axis"), [((5, 9), -1), ((5, 60), -1), ((5, 9, 3), 1), ((2, 200, 3), 1)])
def test_what_memory_held_before_does_not_matter(shape, axis, options, dtype):
    """A vector may have lanes without a position, which hold what another call has left."""
    places = tuple(n for k, n in enumerate(shape) if k != axis % len(shape))
    x, target = random_logits(shape, dtype), random_labels(places, shape[axis])
    options = options | {"axis": axis}
    calls = [
        lambda: xent.cross_entropy_value_and_grad(x, target, label_smoothing=0.25, **options),
        lambda: xent.cross_entropy_grad_hess(x, target, **options),
        lambda: (xent.cross_entropy_hvp(x, target, x, **options),),
        lambda: xent.logsumexp(x, axis, b=x, return_sign=True),
    ]
    before = [call() for call in calls]
    for odd in (NAN, -INF, 0.0, 300.0):
        more = np.full([n if k == axis % len(shape) else 4 * n for k, n in enumerate(shape)], odd, dtype)
        for call, expected in zip(calls, before, strict=True):
            xent.cross_entropy_grad_hess(more, np.zeros_like(more.take(0, axis), np.int64), **options)
            for found, first in zip(call(), expected, strict=True):
                assert_same_bits(found, first)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("weight", [1e300, -1e300, 1e-310, 1.7e308])
@pytest.mark.parametrize("options", [{}, {"temperature": 1e-200}, {"gamma": 2.0}, {"z_loss": 1e200}])
def test_sizes_of_gradients_beyond_the_range(dtype, weight, options):
    """The rule "absolute" holds where exact arithmetic makes the gradients."""
    logits = np.random.default_rng(0).standard_normal((4, 5)).astype(dtype)
    grad, hess = xent.cross_entropy_grad_hess(
        logits, [0, 1, 2, 3], hessian="absolute", sample_weight=np.full(4, weight), reduction="sum", **options
    )
    np.testing.assert_array_equal(hess, np.abs(grad))


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize(
    "options",
    [
        {"label_smoothing": 0.1, "z_loss": 1e-3},
        {"label_smoothing": 0.1, "logit_cap": 20.0},
        {"gamma": 1.0},
        {"gamma": 2.5},
        {"gamma": 1.5, "z_loss": 0.1},
    ],
)
@pytest.mark.parametrize("far", [None, -60.0, -14.0, -7.0])
def test_two_classes_of_one_half(far, options, axis, dtype):
    """Equal logits, both of which a rounding makes more than 1/2, and others that are `far` below."""
    rng = np.random.default_rng(4)
    x = np.repeat(rng.uniform(-9, 9, (400, 1)), 2 if far is None else 5, axis=1)
    if far is not None:
        x[:, [0, 2, 3]] += far
    x = x.astype(dtype)
    t = (
        rng.integers(0, 2, 400)
        if "label_smoothing" in options
        else rng.dirichlet(np.ones(x.shape[1]), 400).astype(dtype)
    )
    v = rng.standard_normal(x.shape).astype(dtype)
    expected = reference("cross_entropy_grad_hess", *in_double(x, t), reduction="sum", **options)
    product = reference("cross_entropy_hvp", *in_double(x, t), wide(v), reduction="sum", **options)
    given = [np.ascontiguousarray(a.T) if axis == 0 and a.ndim == 2 else a for a in (x, t, v)]
    results = xent.cross_entropy_grad_hess(*given[:2], axis=axis, reduction="sum", **options)
    results += (xent.cross_entropy_hvp(*given, axis=axis, reduction="sum", **options),)
    results += xent.cross_entropy_value_and_grad(*given[:2], axis=axis, reduction="sum", **options)[1:]
    eps = 2.0 ** {"float64": -50, "float32": -21, "float16": -10, "bfloat16": -7}[dtype.name]
    for result, exact in zip(results, (*expected, product, expected[0]), strict=True):
        result = wide(result if axis == -1 else result.T)
        np.testing.assert_allclose(result, exact, rtol=0, atol=eps * max(1, np.abs(exact).max()))
