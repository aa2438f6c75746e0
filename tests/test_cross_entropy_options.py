"""Sample weights, z-loss, focal loss, temperature, logit cap and prior in cross_entropy and its gradient."""

import itertools

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from helpers import (
    ZOO,
    assert_same_bits,
    assert_ulp,
    differences,
    finfo,
    of_zoo,
    raises,
    random_labels,
    random_logits,
    random_weights,
    reference,
    targets,
    wide,
)
from hypothesis import given
from hypothesis import strategies as st
from loss_options import (
    KINDS,
    NAMES,
    REDUCTIONS,
    Terms,
    assert_grad,
    assert_loss,
    combinations,
    make,
    positions_of,
    random_prior,
    result_dtypes,
    widened,
)
from mpmath import mp
from tolerances import (
    DIFFERENCES,
    EPS64,
)

import xent

INF, NAN = np.inf, np.nan
FUNCTIONS = ["cross_entropy", "cross_entropy_grad", "cross_entropy_value_and_grad"]
SHAPES = [((9, 5), -1), ((70, 3), 1), ((2, 7, 40), -1), ((3, 17, 5, 7), 1), ((65, 4, 2), 0), ((3, 300), -1)]
VALUES = [
    *[("z_loss", v) for v in [1e-4, 3.0]],
    *[("gamma", v) for v in [0.5, 1, 1.5, 5.0]],
    *[("temperature", v) for v in [0.5, 2, 3.3, 0.05]],
    *[("logit_cap", v) for v in [0.5, 3, 30.0, 1e6]],
]


@pytest.fixture(params=["float16", "bfloat16", "float32", "float64"], scope="module")
def dtype(request):
    """Every dtype: options must not depend on it."""
    return np.dtype(request.param)


def assert_options(logits, target, given=None, what="", given_options=None, **options):
    """Assert the three functions against the reference; `given`, `given_options`: in other layouts."""
    given = given or (logits, target)
    given_options = {**options, **(given_options or {})}
    dtype = logits.dtype
    labels = np.shape(target) != logits.shape
    exact = (wide(logits), target if labels else wide(target))
    known = widened(options)
    terms = Terms(*exact, dtype, **known)
    gamma = options.get("gamma", 0.0)
    own = labels and not options.get("label_smoothing") and not options.get("z_loss")
    classes = logits.shape[options.get("axis", -1)]
    loss = reference("cross_entropy", *exact, **known)
    grad = reference("cross_entropy_grad", *exact, **known)
    both = xent.cross_entropy_value_and_grad(*given, **given_options)
    for result in [xent.cross_entropy(*given, **given_options), both[0]]:
        assert_loss(result, loss, terms, dtype, gamma, classes, what)
    for result in [xent.cross_entropy_grad(*given, **given_options), both[1]]:
        assert_grad(result, grad, terms, dtype, gamma, own, what)


# Against the reference --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_each_option(name, kind, dtype):
    for (shape, axis), reduction in itertools.product(SHAPES, REDUCTIONS):
        if reduction == "mean_batch" and axis == 0:
            continue
        assert_options(
            random_logits(shape, dtype),
            targets(kind, shape, axis, dtype),
            axis=axis,
            reduction=reduction,
            what=f"of {shape} axis {axis} {reduction}",
            **make([name], shape, axis, dtype),
        )


@pytest.mark.parametrize("kind", KINDS)
def test_every_combination(kind, dtype):
    cases = itertools.cycle(itertools.product([((9, 5), -1), ((4, 6, 9), 1), ((11, 4), 0)], REDUCTIONS[:-1]))
    for names in combinations():
        (shape, axis), reduction = next(cases)
        assert_options(
            random_logits(shape, dtype),
            targets(kind, shape, axis, dtype),
            axis=axis,
            reduction=reduction,
            what=f"of {shape} axis {axis} {reduction} {names}",
            **make(names, shape, axis, dtype),
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, axis", [(s, a) for s, a in SHAPES if a])
def test_all_options_at_once(shape, axis, kind, dtype):
    names = ["weight", *NAMES] if kind == "labels" else ["weight", "label_smoothing", *NAMES]
    for reduction in REDUCTIONS:
        assert_options(
            random_logits(shape, dtype),
            targets(kind, shape, axis, dtype),
            axis=axis,
            reduction=reduction,
            what=reduction,
            **make(names, shape, axis, dtype),
        )


@pytest.mark.parametrize("name, value", VALUES)
def test_values_of_options(name, value, dtype):
    # as far apart as float64 takes without subnormal probabilities, of which temperature 0.05 makes multiples
    for classes, scale in [(2, 3.0), (10, 6.0), (33, 1.0), (100, 3.0)]:
        for shape, axis in [((12, classes), -1), ((classes, 12), 0)]:
            assert_options(
                random_logits(shape, dtype, scale=scale),
                targets("labels", shape, axis, dtype),
                axis=axis,
                reduction="none",
                what=f"of {shape} axis {axis}",
                **{name: value},
            )


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_classes(name, dtype):
    for classes in [1, 2, 3, 5, 7, 8, 9, 16, 17, 31, 33, 64, 65, 257, 1000, 4099]:
        for shape, axis in [((9, classes), -1), ((classes, 9), 0), ((2, classes, 5), 1)]:
            assert_options(
                random_logits(shape, dtype),
                targets("labels", shape, axis, dtype),
                axis=axis,
                what=f"of {shape} axis {axis}",
                **make([name], shape, axis, dtype),
            )


@pytest.mark.parametrize("shape, axis", [((2, 40_000), -1), ((40_000, 3), 0)])
def test_many_classes(shape, axis, dtype):
    for kind in KINDS:
        names = NAMES
        assert_options(
            random_logits(shape, dtype),
            targets(kind, shape, axis, dtype, ignored=0.0),
            axis=axis,
            **make(names, shape, axis, dtype),
        )


@given(data=st.data())
def test_any_shape_and_options(data):
    dtype = np.dtype(data.draw(st.sampled_from(["f4", "f8"])))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=9))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    kind = data.draw(st.sampled_from(KINDS))
    names = data.draw(st.sampled_from(list(combinations())))
    assert_options(
        random_logits(shape, dtype, scale=data.draw(st.floats(0, 20))),
        targets(kind, shape, axis, dtype, 1, data.draw(st.floats(0, 1))),
        axis=axis,
        reduction=data.draw(st.sampled_from(REDUCTIONS if axis % len(shape) else REDUCTIONS[:-1])),
        **make(names, shape, axis, dtype, data.draw(st.integers(0, 3))),
    )


def test_probabilities_that_are_labels(dtype):
    shape = (40, 6)
    logits, labels = random_logits(shape, dtype), random_labels((40,), 6)
    options = make(NAMES, shape, -1, dtype)
    expected = xent.cross_entropy(logits, labels, reduction="sum", **options)
    result = xent.cross_entropy(logits, np.eye(6, dtype=dtype)[labels], reduction="sum", **options)
    assert abs(result / expected - 1) < 1e-5


# Last digits ------------------------------------------------------------------------------------------------


def exact_options(row, label, gamma=0.0, z_loss=0.0, temperature=1.0, logit_cap=None, prior=None):
    """Loss and gradient of one row in mpmath, with digits to spare for every cancellation."""
    with mp.workprec(1100):  # exp(-600) beside 1
        v = [mp.mpf(float(x)) / mp.mpf(float(temperature)) for x in row]
        slope = [1 / mp.mpf(float(temperature))] * len(v)
        if logit_cap is not None:
            cap = mp.mpf(float(logit_cap))
            slope = [s / mp.cosh(x / cap) ** 2 for s, x in zip(slope, v, strict=True)]
            v = [cap * mp.tanh(x / cap) for x in v]
        if prior is not None:
            v = [x + mp.log(mp.mpf(float(q))) for x, q in zip(v, prior, strict=True)]
        lse = mp.log(mp.fsum(mp.exp(x) for x in v))
        p = [mp.exp(x - lse) for x in v]
        own, q = lse - v[label], 1 - p[label]
        gamma = mp.mpf(float(gamma))
        factor = q**gamma * (1 + gamma * p[label] * own / q) if gamma else mp.mpf(1)
        loss = (q**gamma if gamma else 1) * own + z_loss * lse**2
        grad = [
            s * (factor * (pc - (c == label)) + 2 * z_loss * lse * pc)
            for c, (s, pc) in enumerate(zip(slope, p, strict=True))
        ]
        return float(loss), [float(g) for g in grad]


HARD = {
    "confident": [20, 0, 1],
    "very confident": [80, 0, 1, 2],
    "confident beyond an ulp of 1": [600, 0, 1],
    "hopeless": [-90, 0, 1],
    "near 256": [256, 256.5, 255.25],
    "close": [0.5, 0.25, 0.375],
    "wide": [-30, 30, 0, 10, -10],
}
SETTINGS = [
    *[{"gamma": g} for g in [0.5, 1.0, 2.0, 3.5]],
    *[{"logit_cap": c} for c in [10.0, 30.0, 100.0]],
    {"temperature": 0.25},
    {"temperature": 2.7},
    {"z_loss": 0.5},
    {"temperature": 1.9, "logit_cap": 30.0, "gamma": 2.0},
]


@pytest.mark.parametrize("name", HARD)
def test_last_digits(name, dtype):
    for settings in SETTINGS:
        assert_last_digits(np.array(HARD[name]).astype(dtype), settings, dtype)


def assert_last_digits(row, settings, dtype):
    """Assert the losses and gradients of a row, each class once its label, against mpmath."""
    logits, labels = np.tile(row, (row.size, 1)), np.arange(row.size)
    exact = [exact_options(wide(row), y, **settings) for y in labels]
    loss, grad = np.array([e[0] for e in exact]), np.array([e[1] for e in exact])
    options = {"reduction": "none", **settings}
    terms = Terms(wide(logits), labels, dtype, **options)
    gamma, own = settings.get("gamma", 0.0), "z_loss" not in settings
    for values, axis in [(logits, -1), (logits.T.copy(), 0)]:
        result = xent.cross_entropy_value_and_grad(values, labels, axis=axis, **options)
        what = f"{settings} axis {axis}"
        assert_loss(result[0], loss, terms, dtype, gamma, what=what)
        assert_grad(np.moveaxis(result[1], axis, -1), grad, terms, dtype, gamma, own, what)
    expected = [reference(f, wide(logits), labels, **options) for f in FUNCTIONS[:2]]
    double = np.dtype(np.float64)
    terms = Terms(wide(logits), labels, double, **options)
    assert_loss(expected[0], loss, terms, double, gamma, what=f"reference {settings}")
    assert_grad(expected[1], grad, terms, double, gamma, own, f"reference {settings}")


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.5])
def test_focal_loss_of_a_distribution(gamma, dtype):
    """Loss, gradient and diagonal of the Hessian against mpmath, which takes derivatives by itself."""
    rows = [[0.5, -1.0, 2.0], [9.0, 0.0, 1.0], [0.0, 0.0, -20.0], [3.0, 3.0, 3.0]]
    target = [[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.125, 0.0, 0.5], [0.0, 0.0, 0.0]]
    x, t = np.array(rows, dtype), np.array(target, dtype)
    loss, grad = xent.cross_entropy_value_and_grad(x, t, gamma=gamma, reduction="none")
    _, hess = xent.cross_entropy_grad_hess(x, t, gamma=gamma, reduction="none")
    limit = 8 * float(finfo(dtype).eps) if dtype.itemsize > 2 else float(finfo(dtype).eps) / 1.9
    with mp.workdps(50):
        for row, masses, *results in zip(wide(x), wide(t), wide(loss), wide(grad), wide(hess), strict=True):

            def value(*u, masses=masses):
                total = mp.fsum(mp.exp(v) for v in u)
                p = [mp.exp(v) / total for v in u]
                return mp.fsum(
                    mp.mpf(float(m)) * (1 - q) ** gamma * -mp.log(q) for m, q in zip(masses, p, strict=True)
                )

            u = [mp.mpf(float(v)) for v in row]
            exact = float(value(*u))
            assert abs(results[0] - exact) <= limit * (1 + gamma) * abs(exact)
            for c in range(3):
                for order, result in [(1, results[1][c]), (2, results[2][c])]:
                    exact = float(mp.diff(value, tuple(u), tuple(order * (k == c) for k in range(3))))
                    assert abs(result - exact) <= limit * (1 + gamma) * max(masses.sum(), abs(exact))


@pytest.mark.parametrize("options", [{"gamma": 2.0}, {"gamma": 0.5, "z_loss": 0.5}, {"z_loss": 0.5}], ids=str)
def test_a_temperature_costs_no_digits_in_numpy_either(options):
    """What has no kernel, for a class without a target, whose derivatives are p times others that are exact.

    30 / 0.1 is 300 - 1.7e-14, which rounds to 300 and would be 75 ulp of exp(-315).
    """
    x, t, temperature = np.array([[30.0, 0.25, -1.5]]), np.array([[0.5, 0.5, 0.0]]), 0.1
    gamma, z_loss = (mp.mpf(options.get(name, 0.0)) for name in ("gamma", "z_loss"))
    with mp.workdps(400):
        u = [mp.mpf(v) / mp.mpf(temperature) for v in x[0]]
        lse = mp.log(mp.fsum(map(mp.exp, u)))
        p = [mp.exp(v - lse) for v in u]
        bent = [(1 - q) ** gamma * (1 - gamma * q * mp.log(q) / (1 - q)) for q in p[:2]]
        slope = mp.fsum(bent) / 2 + 2 * z_loss * lse
        grad = slope * p[2] / mp.mpf(temperature)
        if gamma:
            k = [
                gamma
                * (1 - q) ** (gamma - 1)
                * (-mp.log(q) - 2 + (gamma - 1) * q * mp.log(q) / (1 - q))
                * q
                / 2
                for q in p[:2]
            ]
            slope -= p[2] * mp.fsum(k) + p[2] * slope
        hess = slope * p[2] / mp.mpf(temperature) ** 2
    how = {"temperature": temperature, "reduction": "sum", **options}
    results = xent.cross_entropy_grad_hess(x, t, **how)
    np.testing.assert_allclose([r[0, 2] for r in results], [float(grad), float(hess)], rtol=24 * EPS64)
    product = xent.cross_entropy_hvp(x, t, np.array([[0.0, 0.0, 1.0]]), **how)
    np.testing.assert_allclose(product[0, 2], float(hess), rtol=24 * EPS64)


@pytest.mark.parametrize("module", [xent, xent.reference], ids=["xent", "reference"])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_second_derivatives_of_a_confident_focal_loss(gamma, module):
    """Of the class that has nearly all mass too: what the others add is no difference to the sum over all."""
    x, t = np.array([[27.0, -26.0, 0.0, -1.0]]), np.array([[0.75, 0.5, 0.25, 0.0]])
    with mp.workdps(120):

        def value(*u):
            total = mp.fsum(mp.exp(v) for v in u)
            p = [mp.exp(v) / total for v in u]
            return mp.fsum(mp.mpf(m) * (1 - q) ** gamma * -mp.log(q) for m, q in zip(t[0], p, strict=True))

        u = [mp.mpf(v) for v in x[0]]
        exact = [float(mp.diff(value, tuple(u), tuple(2 * (k == c) for k in range(4)))) for c in range(4)]
    _, hess = module.cross_entropy_grad_hess(x, t, gamma=gamma, reduction="sum")
    np.testing.assert_allclose(hess[0], exact, rtol=1e-13)
    for c, v in enumerate(np.eye(4)):
        product = module.cross_entropy_hvp(x, t, v[None], gamma=gamma, reduction="sum")
        np.testing.assert_allclose(product[0, c], exact[c], rtol=1e-13)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_of_a_confident_prediction(gamma):
    # 1 - p = exp(-20) / (1 + exp(-20)); a loss made of 1 - p rounded would have few digits
    loss, grad = xent.cross_entropy_value_and_grad(np.array([[20.0, 0.0]]), [0], gamma=gamma)
    q = np.exp(-20) / (1 + np.exp(-20))
    assert loss == pytest.approx(q**gamma * np.log1p(np.exp(-20)), rel=1e-14)
    factor = q**gamma * (1 + gamma * (1 - q) * np.log1p(np.exp(-20)) / q)
    np.testing.assert_allclose(grad, [[-factor * q, factor * q]], rtol=1e-14)
    loss, grad = xent.cross_entropy_value_and_grad(np.array([[2000.0, 0.0]]), [0], gamma=gamma)
    assert loss == 0
    assert not grad.any()


@pytest.mark.parametrize("axis", [0, 1])
def test_a_cap_looks_at_no_neighbours(axis, dtype, rng):
    # up to half the cap there is a shorter way: whether a logit takes it is its own business
    small = rng.uniform(-4, 4, (70, 70)).astype(dtype)
    mixed = small.copy()
    mixed[1::2] *= 8
    labels = rng.integers(0, 70, 70)
    if axis == 0:
        small, mixed = small.T, mixed.T
    results = []
    for x in (small, mixed):
        loss, grad = xent.cross_entropy_value_and_grad(x, labels, axis=axis, logit_cap=10, reduction="none")
        results.append((loss[::2], np.moveaxis(grad, axis, -1)[::2]))
    for of_small, of_mixed in zip(*results, strict=True):
        np.testing.assert_array_equal(of_small, of_mixed)


@pytest.mark.parametrize(
    "temperature, cap", [(1.0, 2.0), (1.0, 0.3), (0.7, 1.1), (3e-5, 7e4), (1.1e50, 3.3e-50)]
)
@pytest.mark.parametrize("ratio", [0.3, 3.0, 40.0, 170.0, 350.0, 371.0, 420.0])
def test_gradient_far_beyond_the_cap(ratio, temperature, cap, dtype):
    """sech^2 of 420 is 4 e^-840: what the upstream gradient makes of it has its digits."""
    x = np.array([[ratio * temperature * cap, 0.0, -0.1 * temperature * cap]] * 3).astype(dtype)
    if not np.isfinite(wide(x)).all() or wide(x)[0, 0] == 0:
        pytest.skip("no such logits")
    up = 2.0**150 if dtype == np.float64 and ratio > 300 else 1.0
    with mp.workdps(60):
        t, k = mp.mpf(temperature), mp.mpf(cap)
        z = [mp.mpf(float(v)) / t / k for v in wide(x)[0]]
        u = [k * mp.tanh(v) for v in z]
        e = [mp.exp(v - max(u)) for v in u]
        p = e[0] / mp.fsum(e)
        expected = float(mp.sech(z[0]) ** 2 / t * p * up)
    options = {"temperature": temperature, "logit_cap": cap, "reduction": "sum"}
    results = [xent.cross_entropy_grad(a, [1] * 3, grad_output=up, axis=axis, **options) for a, axis in [
        (x, 1), (np.ascontiguousarray(x.T), 0)]]  # fmt: skip
    limits = finfo(dtype)
    blur = 5 * EPS64 * min(cap, ratio * cap)  # of the capped logits, and the exponentials of them
    for result, axis in zip(results, (1, 0), strict=True):
        entry = float(wide(np.moveaxis(result, axis, 1))[0, 0])
        room = (8 * float(limits.eps) + 2 * blur) * abs(expected) + float(limits.smallest_subnormal)
        assert abs(entry - expected) <= room, (entry, expected)
    product = xent.cross_entropy_hvp(x, [1] * 3, np.full(x.shape, 1.0, dtype), **options)
    assert np.isfinite(wide(product)).all()


# Derivatives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_derivative(kind, reduction):
    shape = (3, 4, 2)
    logits = random_logits(shape, np.float64, scale=1.0)
    target = targets(kind, shape, 1, np.float64)
    upstream = random_logits((3, 2) if reduction == "none" else (), np.float64, seed=1, scale=1.0)
    for names in list(combinations())[::7]:
        options = {"axis": 1, "reduction": reduction, **make(names, shape, 1, np.float64)}
        expected = differences(
            lambda v, o=options: np.sum(upstream * reference("cross_entropy", v, target, **o)), logits
        )
        for function in [xent.cross_entropy_grad, xent.reference.cross_entropy_grad]:
            grad = function(logits, target, grad_output=upstream, **options)
            room = 100 * DIFFERENCES * max(1, np.abs(expected).max())
            assert np.allclose(grad, expected, rtol=0, atol=room), names


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_grad_output(kind, reduction, dtype):
    for shape, axis in [((6, 5), -1), ((4, 5, 9), 1), ((2, 300), -1)]:
        logits, target = random_logits(shape, dtype), targets(kind, shape, axis, dtype)
        names = NAMES
        options = {"axis": axis, "reduction": reduction, **make(names, shape, axis, dtype)}
        result_shape = positions_of(shape, axis) if reduction == "none" else ()
        upstream = np.asarray(random_logits(result_shape, dtype, seed=9))
        exact = (wide(logits), target if kind == "labels" else wide(target))
        known = widened(options)
        expected = reference("cross_entropy_grad", *exact, grad_output=wide(upstream), **known)
        factor = np.abs(np.expand_dims(wide(upstream), axis) if reduction == "none" else wide(upstream))
        assert_grad(
            xent.cross_entropy_grad(logits, target, grad_output=upstream, **options),
            expected,
            Terms(*exact, dtype, **known),
            dtype,
            options.get("gamma", 0.0),
            upstream=factor,
        )
        ones = np.ones(result_shape, dtype)
        assert_same_bits(
            xent.cross_entropy_grad(logits, target, grad_output=ones, **options),
            xent.cross_entropy_grad(logits, target, **options),
        )


# What the options mean --------------------------------------------------------------------------------------


def neutral_options():
    """Options that change nothing."""
    yield {"sample_weight": None, "z_loss": 0.0, "gamma": 0.0, "temperature": 1.0}
    yield {"logit_cap": None, "prior": None}
    yield {"z_loss": 0, "gamma": 0, "temperature": 1}
    yield {"z_loss": np.float32(0), "gamma": np.int64(0), "temperature": np.float64(1)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, axis", SHAPES)
def test_defaults_change_no_bit(shape, axis, kind, dtype):
    logits, target = random_logits(shape, dtype), targets(kind, shape, axis, dtype)
    for common in [{}, make(["weight", "label_smoothing"], shape, axis, dtype), {"reduction": "none"}]:
        expected = xent.cross_entropy_value_and_grad(logits, target, axis=axis, **common)
        for options in neutral_options():
            result = xent.cross_entropy_value_and_grad(logits, target, axis=axis, **common, **options)
            assert_same_bits(result, expected, f"{options}")


def test_equal_sample_weights_and_priors_do_not_matter_in_means(dtype):
    logits, labels = random_logits((30, 6), dtype), random_labels((30,), 6, ignored=0.2)
    expected = xent.cross_entropy(logits, labels)
    for options in [{"sample_weight": np.full(30, 0.25)}, {"prior": np.full(6, 1 / 6)}]:
        result = xent.cross_entropy(logits, labels, **options)
        assert abs(result / expected - 1) < 8 * float(finfo(expected.dtype).eps)


def test_a_sample_weight_of_two_is_a_position_twice():
    logits, labels = random_logits((8, 5), np.float64), random_labels((8,), 5)
    count = np.array([1, 2, 0, 3, 1, 1, 2, 5])
    for options in [{}, {"weight": random_weights(5, np.float64)}, {"z_loss": 0.1}]:
        expected = xent.cross_entropy(logits.repeat(count, 0), labels.repeat(count), **options)
        assert xent.cross_entropy(logits, labels, sample_weight=count, **options) == pytest.approx(
            expected, rel=1e-14
        )


def test_reductions_divide_by_what_they_say(dtype):
    logits = random_logits((4, 3, 5), dtype)
    labels = random_labels((4, 5), 3)
    labels[0, :2] = -100
    weight, sample = np.array([0.5, 1, 2]), np.arange(20).reshape(4, 5) / 4
    options = {"axis": 1, "weight": weight, "sample_weight": sample, "z_loss": 0.125}
    total = float(xent.cross_entropy(logits, labels, reduction="sum", **options))
    used = labels >= 0
    mass = (weight[labels[used]] * sample[used]).sum()
    for reduction, divisor in [("mean", mass), ("mean_valid", 18), ("mean_full", 20), ("mean_batch", 4)]:
        result = xent.cross_entropy(logits, labels, reduction=reduction, **options)
        assert abs(result / (total / divisor) - 1) < 1e-6, reduction
    soft = targets("probabilities", (4, 3, 5), 1, dtype)
    total = float(xent.cross_entropy(logits, soft, reduction="sum", **options))
    mass = sample.sum()
    for reduction, divisor in [("mean", mass), ("mean_valid", 20), ("mean_full", 20), ("mean_batch", 4)]:
        result = xent.cross_entropy(logits, soft, reduction=reduction, **options)
        assert abs(result / (total / divisor) - 1) < 1e-6, reduction


def test_z_loss_has_no_class_weight_but_a_sample_weight():
    logits, labels = random_logits((6, 4), np.float64), random_labels((6,), 4)
    weight, sample = random_weights(4, np.float64), random_weights(6, np.float64)
    common = {"weight": weight, "sample_weight": sample, "reduction": "none"}
    extra = xent.cross_entropy(logits, labels, z_loss=0.5, **common) - xent.cross_entropy(
        logits, labels, **common
    )
    np.testing.assert_allclose(extra, sample * 0.5 * xent.logsumexp(logits) ** 2, rtol=1e-12, atol=1e-14)


def test_z_loss_sees_the_transformed_logits():
    logits, prior = random_logits((6, 4), np.float64), random_prior(4)
    u = 3 * np.tanh(logits / 2 / 3) + np.log(prior)
    common = {"temperature": 2.0, "logit_cap": 3.0, "prior": prior, "reduction": "none"}
    labels = random_labels((6,), 4)
    extra = xent.cross_entropy(logits, labels, z_loss=0.5, **common) - xent.cross_entropy(
        logits, labels, **common
    )
    np.testing.assert_allclose(extra, 0.5 * xent.logsumexp(u) ** 2, rtol=1e-12, atol=1e-14)


def test_temperature_is_that_of_softmax(dtype):
    logits, labels = random_logits((20, 7), dtype), random_labels((20,), 7)
    loss = xent.cross_entropy(logits, labels, temperature=0.3, reduction="none")
    log_p = reference("log_softmax", wide(logits), temperature=0.3)
    np.testing.assert_allclose(loss, -log_p[np.arange(20), labels], rtol=1e-6)


def test_prior_need_not_add_up_to_one():
    logits, labels = random_logits((20, 7), np.float64), random_labels((20,), 7)
    prior = random_prior(7)
    expected = xent.cross_entropy(logits, labels, prior=prior)
    assert xent.cross_entropy(logits, labels, prior=1000 * prior) == pytest.approx(expected, rel=1e-14)
    probabilities = prior * np.exp(logits)
    own = probabilities[np.arange(20), labels] / probabilities.sum(-1)
    assert expected == pytest.approx(-np.log(own).mean(), rel=1e-13)
    with_integers = xent.cross_entropy(logits, labels, prior=np.arange(1, 8))
    assert with_integers == xent.cross_entropy(logits, labels, prior=np.arange(1.0, 8.0))


def test_integer_data_and_lists():
    expected = xent.cross_entropy_value_and_grad(
        np.array([[1.0, 2.0, 3.0], [4.0, 0.0, -1.0]]),
        np.array([0, 2]),
        sample_weight=np.array([1.0, 3.0]),
        prior=np.array([1.0, 2.0, 3.0]),
        logit_cap=2.0,
    )
    result = xent.cross_entropy_value_and_grad(
        [[1, 2, 3], [4, 0, -1]], [0, 2], sample_weight=[1, 3], prior=[1, 2, 3], logit_cap=2
    )
    assert_same_bits(result, expected)


def test_one_position_gives_a_scalar(dtype):
    logits = random_logits((5,), dtype)
    for name in NAMES:
        for reduction in REDUCTIONS[:-1]:
            result = xent.cross_entropy(logits, 3, reduction=reduction, **make([name], (5,), 0, dtype))
            assert isinstance(result, result_dtypes(dtype)[0].type), name


# Special values ---------------------------------------------------------------------------------------------

ROWS = {
    "-inf among finite": [0, -INF, 1],
    "inf among finite": [INF, 0, 1],
    "inf and -inf": [INF, -INF, 1],
    "only -inf": [-INF, -INF, -INF],
    "all but one -inf": [-INF, 3, -INF],
    "NaN": [1, NAN, 2],
    "huge": [3e4, -3e4, 0],
}


def assert_same_specials(actual, expected, what):
    """NaN and infinities where the reference has them, and close to it elsewhere."""
    actual, expected = wide(actual), wide(expected)
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected), what)
    np.testing.assert_allclose(actual, expected, rtol=2e-2, atol=1e-6, err_msg=what)


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("name", ROWS)
def test_special_rows(name, axis, dtype):
    row = np.array(ROWS[name]).astype(dtype)
    for names in [[n] for n in NAMES] + [["temperature", "prior"], ["logit_cap", "gamma"], NAMES]:
        for copies, padding in [(3, 0), (3, 6), (3, 40)]:
            tail = np.zeros(padding, dtype)
            x = np.tile(np.concatenate([row, tail]), (copies, 1))
            options = {**make(names, x.shape, -1, dtype), "reduction": "none"}
            labels = np.arange(copies)
            expected = reference("cross_entropy_value_and_grad", wide(x), labels, **widened(options))
            values = x if axis == -1 else x.T.copy()
            loss, grad = xent.cross_entropy_value_and_grad(values, labels, axis=axis, **options)
            assert_same_specials(loss, expected[0], f"loss {names} {padding}")
            assert_same_specials(np.moveaxis(grad, axis, -1), expected[1], f"gradient {names} {padding}")


def test_target_of_probability_zero(dtype):
    logits = np.array([[-INF, 0, 0]]).astype(dtype)
    for options in [
        {"gamma": 2.0},
        {"gamma": 0.5},
        {"prior": [1, 1, 1]},
        {"z_loss": 0.1},
        {"temperature": 3},
    ]:
        loss, grad = xent.cross_entropy_value_and_grad(logits, [0], **options)
        assert loss == INF
        assert np.isfinite(wide(grad)).all()
        assert float(grad[0, 0]) == pytest.approx(-1 / options.get("temperature", 1), rel=1e-2)
    # a cap makes the impossible possible
    loss, grad = xent.cross_entropy_value_and_grad(logits, [0], logit_cap=2.0)
    assert loss == pytest.approx(2 + np.log(2 + np.exp(-2)), rel=1e-6)
    assert grad[0, 0] == 0


def test_zero_weights_and_infinite_losses(dtype):
    logits = np.array([[-INF, 0, 1], [0, 0, 0]]).astype(dtype)
    for options in [{}, {"gamma": 2.0}, {"z_loss": 0.25}, {"prior": [1, 2, 3]}]:
        for reduction in REDUCTIONS:
            common = {"reduction": reduction, **options}
            loss, grad = xent.cross_entropy_value_and_grad(logits, [0, 1], sample_weight=[0, 1], **common)
            alone = xent.cross_entropy(logits[1:], [1], **{**common, "reduction": "sum"})
            assert np.isfinite(loss).all()
            if reduction in ("sum", "mean"):
                assert loss == pytest.approx(alone, rel=1e-6)
            assert not wide(grad)[0].any()
        loss, grad = xent.cross_entropy_value_and_grad(
            logits[:1], [0], weight=[0, 1, 1], reduction="none", **options
        )
        lse = np.log(np.exp(wide(logits[0])) @ options.get("prior", [1, 1, 1]))
        assert loss[0] == pytest.approx(options.get("z_loss", 0) * lse**2, rel=1e-6)


@pytest.mark.parametrize("classes", [3, 40, 300])
def test_nothing_is_there_without_weight(classes, dtype):
    """Neither of a position nor of a class: the results are those of the rest."""
    clean = random_logits((20, classes), dtype)
    spoiled, sample, weight = clean.copy(), np.ones(20), np.ones(classes)
    spoiled[3], spoiled[4], spoiled[5] = NAN, INF, -INF
    sample[3:6] = 0
    probs, bad = np.full(clean.shape, 0.25, dtype), np.full(clean.shape, 0.25, dtype)
    bad[3:6], bad[7, 1], bad[8, 1] = NAN, NAN, INF
    few, labels = sample != 0, np.arange(20) % 3
    for options in [
        {},
        {"z_loss": 0.5},
        {"label_smoothing": 0.125},
        {"temperature": 0.7},
        {"logit_cap": 5.0},
        {"gamma": 2.0},
    ]:
        for target, dirty in [(labels, labels), (probs, bad)]:
            if "gamma" in options and target is probs:
                continue
            weight[1] = 1.0 if target is labels else 0.0  # of class 1, whose targets are no numbers
            more = {"weight": weight, "sample_weight": sample, **options}
            for reduction in ["none", "mean", "sum"]:
                rest = {"reduction": reduction, **options, "weight": weight}
                expected = xent.cross_entropy_value_and_grad(clean[few], target[few], **rest)
                for axis, x, t in [
                    (-1, spoiled, dirty),
                    (0, spoiled.T.copy(), dirty if dirty.ndim == 1 else dirty.T.copy()),
                ]:
                    loss, grad = xent.cross_entropy_value_and_grad(
                        x, t, axis=axis, reduction=reduction, **more
                    )
                    grad = wide(np.moveaxis(grad, axis, -1))
                    assert not grad[~few].any()
                    np.testing.assert_allclose(
                        grad[few], wide(expected[1]), rtol=1e-2 if dtype.itemsize == 2 else 1e-5, atol=1e-7
                    )
                    if reduction == "none":
                        assert not loss[~few].any()
                        loss = loss[few]
                    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
                right = xent.reference.cross_entropy(
                    wide(spoiled), wide(dirty) if dirty.ndim > 1 else dirty, reduction=reduction, **more
                )
                np.testing.assert_allclose(
                    right[few] if reduction == "none" else right, expected[0], rtol=1e-5
                )


@pytest.mark.parametrize("classes", [3, 40, 300])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"temperature": 0.7}, {"temperature": 1e-200}, {"logit_cap": 5.0}, {"gamma": 2.0},
        {"prior": True},
        {"weight": [0, 1]}, {"weight": [0, -1], "logit_cap": 5.0},
    ],
    ids=str,
)  # fmt: skip
def test_a_position_without_mass_is_not_there(options, classes, dtype):
    """Where all of a target is 0, or has the weight 0, loss and derivatives are, of whatever logits."""
    clean = random_logits((20, classes), dtype)
    spoiled, probs = clean.copy(), np.full(clean.shape, 1 / 4, dtype)
    probs[:, 1] = 1.0  # balances the other classes where weights have both signs
    gone = np.arange(20) % 5 == 2
    spoiled[2, :2], spoiled[7, 1], spoiled[12], spoiled[17, 0] = NAN, INF, -INF, NAN
    options = dict(options)
    if "prior" in options:
        options["prior"] = np.full(classes, 1 / classes)
    if "weight" in options:  # which is all that leaves no mass
        options["weight"] = np.where(np.arange(classes) < classes - 1, *options["weight"][::-1])
        probs[gone, :-1] = 0.0
    else:
        probs[gone] = 0.0
    v = random_logits(clean.shape, dtype, seed=1)
    for axis in (-1, 0):
        x, same, t, vector = (
            np.ascontiguousarray(np.moveaxis(a, -1, axis)) for a in (spoiled, clean, probs, v)
        )
        for reduction in ("none", "mean"):
            rest = {"axis": axis, "reduction": reduction, **options}
            results = [xent.cross_entropy(x, t, **rest), *xent.cross_entropy_value_and_grad(x, t, **rest)]
            results += xent.cross_entropy_grad_hess(x, t, **rest)
            results += [xent.cross_entropy_hvp(x, t, vector, **rest)]
            expected = [
                xent.cross_entropy(same, t, **rest),
                *xent.cross_entropy_value_and_grad(same, t, **rest),
            ]
            expected += xent.cross_entropy_grad_hess(same, t, **rest)
            expected += [xent.cross_entropy_hvp(same, t, vector, **rest)]
            for result, right in zip(results, expected, strict=True):
                np.testing.assert_allclose(wide(result), wide(right), rtol=1e-6, atol=0)
            for result in results[2:]:
                assert not wide(np.moveaxis(result, axis, -1))[gone].any()
            twin = xent.reference.cross_entropy_value_and_grad(wide(x), wide(t), **rest)
            assert np.isfinite(twin[0]).all() and not np.moveaxis(twin[1], axis, -1)[gone].any()
    with_more = xent.cross_entropy(spoiled, probs, reduction="none", z_loss=0.5, **options)
    assert np.isnan(with_more[2])  # a z-loss is there


def test_masses_that_cancel_are_there(dtype):
    """Of weights of both signs."""
    x, t = np.array([[1.0, NAN, 2.0], [1.0, 0.0, 2.0]]).astype(dtype), np.array([[0.5, 0.0, 0.5]] * 2, dtype)
    loss, grad = xent.cross_entropy_value_and_grad(x, t, weight=[1.0, 1.0, -1.0], reduction="none")
    assert np.isnan(loss[0]) and np.isnan(wide(grad[0])).any()
    np.testing.assert_allclose(loss[1], 0.5, rtol=1e-6)


def test_classes_without_weight(dtype):
    """The label's term of one is not there: of a loss that has no other, nothing is."""
    x = np.array([[NAN, 0, 1], [0, 0, 0], [-INF, 1, 1]]).astype(dtype)
    weight, labels = [0.0, 1.0, 2.0], [0, 1, 0]
    loss, grad = xent.cross_entropy_value_and_grad(x, labels, weight=weight, reduction="none")
    assert loss[0] == loss[2] == 0 and not wide(grad)[[0, 2]].any() and wide(grad)[1].all()
    grad, hess = xent.cross_entropy_grad_hess(x, labels, weight=weight)
    assert not wide(grad)[[0, 2]].any() and not wide(hess)[[0, 2]].any() and wide(hess)[1].all()
    product = wide(xent.cross_entropy_hvp(x, labels, np.eye(3, dtype=dtype), weight=weight))
    assert not product[[0, 2]].any() and np.isfinite(product[1]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_negative_weights(kind, dtype):
    """The loss is linear in the weights, of whatever sign."""
    shape = (30, 7)
    x, target = random_logits(shape, dtype), targets(kind, shape, -1, dtype)
    weight, sample = np.array([1.0, -2, 3, 0, -0.5, 1, 1]), np.linspace(-1, 1.5, 30)
    options = {"weight": weight, "sample_weight": sample, "label_smoothing": 0.25}
    each, grads = xent.cross_entropy_value_and_grad(
        x, target, weight=weight, label_smoothing=0.25, reduction="none"
    )
    for reduction in ["none", "sum", "mean"]:
        loss, grad = xent.cross_entropy_value_and_grad(x, target, reduction=reduction, **options)
        divisor = 1.0
        if reduction == "mean":
            counted = target != -100 if kind == "labels" else None
            divisor = sample.sum() if kind != "labels" else (weight[target * counted] * sample)[counted].sum()
        expected = each * sample if reduction == "none" else (wide(each) * sample).sum() / divisor
        np.testing.assert_allclose(loss, expected, rtol=1e-4 if dtype != np.float64 else 1e-12, atol=1e-6)
        tolerance = 2e-2 if dtype.itemsize == 2 else 1e-5
        np.testing.assert_allclose(
            wide(grad), wide(grads) * sample[:, None] / divisor, rtol=tolerance, atol=tolerance
        )
        twin = xent.reference.cross_entropy_value_and_grad(
            wide(x), target if kind == "labels" else wide(target), reduction=reduction, **options
        )
        np.testing.assert_allclose(loss, twin[0], rtol=1e-4 if dtype != np.float64 else 1e-11, atol=1e-6)
        np.testing.assert_allclose(wide(grad), twin[1], rtol=tolerance, atol=tolerance)
        grad, hess = xent.cross_entropy_grad_hess(x, target, reduction=reduction, **options)
        twin = xent.reference.cross_entropy_grad_hess(
            wide(x), target if kind == "labels" else wide(target), reduction=reduction, **options
        )
        np.testing.assert_allclose(wide(hess), twin[1], rtol=tolerance, atol=tolerance)


def test_weights_that_cancel(dtype):
    """Their sum divides, as in IEEE arithmetic; weights that are all 0 leave nothing."""
    x = np.array([[1, 2, 3], [3, 2, 2]]).astype(dtype)
    for module in [xent, xent.reference]:
        loss, grad = module.cross_entropy_value_and_grad(
            wide(x) if module is not xent else x, [0, 1], sample_weight=[1, -1]
        )
        assert loss == INF and not np.isfinite(wide(grad)).any()
        loss, grad = module.cross_entropy_value_and_grad(
            wide(x) if module is not xent else x, [0, 1], weight=[0, 0, 1]
        )
        assert loss == 0 and not wide(grad).any()
        loss, grad = module.cross_entropy_value_and_grad(
            wide(x) if module is not xent else x, [0, 1], sample_weight=[0, 0]
        )
        assert loss == 0 and not wide(grad).any()


@pytest.mark.parametrize("name", NAMES)
def test_nan_spoils_its_own_position_only(name, dtype):
    for shape, axis in [((20, 6), -1), ((20, 300), -1), ((6, 20), 0)]:
        clean = random_logits(shape, dtype)
        labels = np.zeros(20, int)
        options = {"axis": axis, "reduction": "none", **make([name], shape, axis, dtype)}
        expected = xent.cross_entropy_value_and_grad(clean, labels, **options)
        for place in [0, 7, 19]:
            spoiled = clean.copy()
            np.moveaxis(spoiled, axis, -1)[place, -1] = NAN
            loss, grad = xent.cross_entropy_value_and_grad(spoiled, labels, **options)
            others = np.arange(20) != place
            assert np.isnan(loss[place])
            assert np.isnan(wide(np.moveaxis(grad, axis, -1)[place])).all()
            np.testing.assert_allclose(loss[others], expected[0][others], rtol=1e-6)
            assert np.isfinite(wide(np.moveaxis(grad, axis, -1)[others])).all()


@pytest.mark.parametrize("spoiler", [NAN, INF, -INF])
def test_ignored_positions_are_zero_whatever_their_logits(spoiler, dtype):
    for shape, axis in [((20, 6), -1), ((2, 300), -1), ((6, 20), 0)]:
        logits, labels = random_logits(shape, dtype), targets("labels", shape, axis, dtype, ignored=0.0)
        labels[1::2] = -100
        spoiled = logits.copy()
        np.moveaxis(spoiled, axis, -1)[1::2] = spoiler
        for names in [[n] for n in NAMES] + [NAMES]:
            options = {"axis": axis, **make(names, shape, axis, dtype)}
            for reduction in ["none", "mean"]:
                clean = xent.cross_entropy_value_and_grad(logits, labels, reduction=reduction, **options)
                loss, grad = xent.cross_entropy_value_and_grad(
                    spoiled, labels, reduction=reduction, **options
                )
                assert_same_bits(loss, clean[0], f"{names}")
                assert_same_bits(grad, clean[1], f"{names}")
                assert not wide(np.moveaxis(grad, axis, -1)[1::2]).any()
                assert reduction == "mean" or not loss[1::2].any()


@pytest.mark.parametrize("reduction", ["mean", "mean_valid", "mean_full", "mean_batch"])
def test_means_over_nothing_are_zero(reduction, dtype):
    logits = random_logits((4, 3), dtype)
    full = make(NAMES, (4, 3), -1, dtype)
    nothing = [
        (logits, np.full(4, -100), full),
        (logits[:0], np.zeros(0, int), {**full, "sample_weight": np.zeros(0)}),
        (logits[:0], np.zeros((0, 3), dtype), {"z_loss": 0.1, "sample_weight": np.zeros(0)}),
        (np.zeros((2, 0), dtype), np.full(2, -100), {"z_loss": 0.1, "prior": np.zeros(0)}),
        (logits, np.zeros(4, int), {**full, "sample_weight": np.zeros(4)}),
        (logits, random_logits((4, 3), dtype), {"z_loss": 0.1, "sample_weight": np.zeros(4)}),
    ]
    for values, target, options in nothing:
        loss, grad = xent.cross_entropy_value_and_grad(values, target, reduction=reduction, **options)
        assert isinstance(loss, result_dtypes(dtype)[0].type)
        assert loss == 0
        assert grad.shape == values.shape
        assert not wide(grad).any()


def test_no_positions_without_reduction(dtype):
    loss, grad = xent.cross_entropy_value_and_grad(
        np.zeros((0, 3), dtype), np.zeros(0, int), reduction="none", **make(NAMES, (0, 3), -1, dtype)
    )
    assert loss.shape == (0,)
    assert grad.shape == (0, 3)


# Memory and threads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ZOO)
@pytest.mark.parametrize("kind", KINDS)
def test_every_memory_layout(kind, variant, dtype):
    names = NAMES
    for shape, axis in [((7, 5), -1), ((3, 40), -1), ((4, 6, 9), 1), ((11, 4), 0)]:
        logits, target = random_logits(shape, dtype), targets(kind, shape, axis, dtype)
        options, what = make(names, shape, axis, dtype), f"of {shape} axis {axis}"
        layouts = (of_zoo(variant, logits), of_zoo(variant, target))
        assert_options(logits, target, layouts, what, axis=axis, **options)
        moved = {n: of_zoo(variant, options[n]) for n in ["sample_weight", "prior"]}
        assert_options(logits, target, None, what, given_options=moved, axis=axis, **options)


@pytest.mark.parametrize("name", [*NAMES, "all"])
def test_out(name, dtype):
    for shape, axis in [((6, 5), -1), ((4, 5, 9), 1), ((2, 300), -1), ((40, 6), 0)]:
        options = {"axis": axis, **make(NAMES if name == "all" else [name], shape, axis, dtype)}
        logits, target = random_logits(shape, dtype), targets("labels", shape, axis, dtype)
        kept = logits.copy()
        loss, expected = xent.cross_entropy_value_and_grad(logits, target, **options)
        terms = Terms(wide(logits), target, dtype, **widened(options))
        for variant in ["contiguous", "every second element", "Fortran order", "unaligned"]:
            out = of_zoo(variant, np.full(shape, 7, dtype))
            assert xent.cross_entropy_grad(logits, target, out=out, **options) is out
            gamma = options.get("gamma", 0.0)
            if dtype.itemsize == 2:
                assert_ulp(out, wide(expected), 1, dtype=dtype, scale=np.abs(wide(expected)) + 1e-6)
            else:
                assert_grad(out, wide(expected), terms, dtype, gamma, what=variant)
        assert np.array_equal(wide(logits), wide(kept))
        value, grad = xent.cross_entropy_value_and_grad(logits, target, out=logits, **options)
        assert grad is logits
        assert_same_bits((value, grad), (loss, expected), "in place")


# (positions, classes) and axis that are cut in different ways, all of more than 2^17 elements
LARGE = [((30_001, 9), -1), ((503, 500), -1), ((3, 70_001), -1), ((3, 11, 90, 97), 1), ((40_000, 5), 0)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, axis", LARGE)
def test_threads_give_the_same_bits(shape, axis, kind, dtype):
    logits, target = random_logits(shape, dtype), targets(kind, shape, axis, dtype)
    names = ["weight", *NAMES]
    options = {"axis": axis, **make(names, shape, axis, dtype)}
    for reduction in ["mean", "none"]:
        with xent.num_threads(1):
            expected = xent.cross_entropy_value_and_grad(logits, target, reduction=reduction, **options)
            loss = xent.cross_entropy(logits, target, reduction=reduction, **options)
        for n in [2, 3]:
            with xent.num_threads(n):
                result = xent.cross_entropy_value_and_grad(logits, target, reduction=reduction, **options)
                assert_same_bits(result, expected, f"{n} threads")
                assert_same_bits(
                    xent.cross_entropy(logits, target, reduction=reduction, **options), loss, f"{n} threads"
                )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape, axis", [LARGE[0], LARGE[3]])
def test_large_arrays(shape, axis, kind, dtype):
    names = ["weight", *NAMES]
    assert_options(
        random_logits(shape, dtype),
        targets(kind, shape, axis, dtype),
        axis=axis,
        **make(names, shape, axis, dtype),
    )


# Errors -----------------------------------------------------------------------------------------------------

X = np.zeros((3, 5))
LABELS = np.array([0, 4, 2])


def call(name, *args, **options):
    return getattr(xent, name)(*args, **options)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("option", ["z_loss", "gamma", "temperature", "logit_cap"])
def test_numbers_out_of_range(option, name):
    for bad in [-0.5, -1, NAN, INF, -INF, *([0.0] if option in ("temperature", "logit_cap") else [])]:
        with raises(ValueError, option, float(bad)):
            call(name, X, LABELS, **{option: bad})
    for bad in ["warm", 1j, [1.0, 2.0], *([None] if option != "logit_cap" else [])]:
        with raises(TypeError, option):
            call(name, X, LABELS, **{option: bad})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_sample_weight(name):
    for bad in [np.ones(4), np.ones((3, 1)), np.ones((3, 5)), np.ones(5), np.float64(1)]:
        with raises(ValueError, "sample_weight", np.shape(bad), (3,)):
            call(name, X, LABELS, sample_weight=bad)
    with raises(ValueError, "sample_weight", (2, 5), (2, 3)):
        call(name, np.zeros((2, 5, 3)), np.zeros((2, 3), int), axis=1, sample_weight=np.ones((2, 5)))
    for bad in [-INF, NAN, INF]:
        with raises(ValueError, "sample_weight", "finite", bad):
            call(name, X, LABELS, sample_weight=[1, bad, 1])
        with raises(ValueError, "sample_weight"):
            call(name, X, [0, -100, 1], sample_weight=[1, bad, 1])
    for bad in [np.ones(3, complex), np.array(list("abc")), np.ones(3, object)]:
        with raises(TypeError, "sample_weight"):
            call(name, X, LABELS, sample_weight=bad)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_prior(name):
    for bad in [np.ones(4), np.ones(3), np.ones((1, 5)), np.ones((3, 5)), np.float64(1)]:
        with raises(ValueError, "prior", np.shape(bad), 5):
            call(name, X, LABELS, prior=bad)
    for bad in [0.0, -1.0, NAN, INF]:
        prior = np.ones(5)
        prior[3] = bad
        with raises(ValueError, "prior", "finite", "positive"):
            call(name, X, LABELS, prior=prior)
    for bad in [np.ones(5, complex), np.array(list("abcde")), np.ones(5, object)]:
        with raises(TypeError, "prior"):
            call(name, X, LABELS, prior=bad)


@pytest.mark.parametrize("name", FUNCTIONS[1:])
def test_nothing_is_written_before_an_error(name):
    out = np.full((3, 5), 7.0)
    for options in [
        {"sample_weight": [1, NAN, 1]},
        {"prior": np.zeros(5)},
        {"z_loss": -1},
        {"gamma": NAN},
        {"temperature": 0},
        {"logit_cap": 0},
    ]:
        with pytest.raises(ValueError):
            call(name, X, LABELS, out=out, **options)
    assert (out == 7).all()


@pytest.mark.parametrize("name", FUNCTIONS[1:])
def test_out_overlaps_an_option(name):
    buffer = np.ones(15)
    out = buffer.reshape(3, 5)
    with raises(ValueError, "out", "overlap"):
        call(name, X, LABELS, out=out, sample_weight=buffer[:3])
    assert (buffer == 1).all()


def test_errors_of_the_reference():
    for options in [
        *({o: v} for o in ["z_loss", "gamma"] for v in [-1.0, NAN, INF]),
        *({o: v} for o in ["temperature", "logit_cap"] for v in [0.0, -1.0, NAN, INF]),
        {"sample_weight": np.ones(4)},
        {"sample_weight": [1, NAN, 1]},
        {"prior": np.ones(4)},
        {"prior": np.zeros(5)},
    ]:
        with raises(ValueError, next(iter(options))):
            xent.reference.cross_entropy(X, LABELS, **options)


def test_sums_of_weights_of_very_different_sizes():
    logits = random_logits((5000, 3), np.float64)
    labels = random_labels((5000,), 3)
    sample = np.exp2(np.random.default_rng(0).uniform(-20, 20, 5000))
    losses = xent.cross_entropy(logits, labels, reduction="none")
    with mp.workprec(160):
        terms = [mp.mpf(float(s)) * mp.mpf(float(v)) for s, v in zip(sample, losses, strict=True)]
        expected = float(mp.fsum(terms) / mp.fsum(mp.mpf(float(s)) for s in sample))
    result = xent.cross_entropy(logits, labels, sample_weight=sample)
    assert abs(result / expected - 1) < 8 * EPS64


@pytest.mark.parametrize(
    ["shape", "axis"], [((40, 3), -1), ((9, 700), -1), ((2, 5, 64), 1), ((3, 400, 5), 1)]
)
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_a_weighted_target_of_one_class_that_is_nearly_certain(shape, axis, dtype, rng):
    """Its derivative is u (p - 1), of which p - 1 is tiny: of the other terms, where
    u = weight target is rounded, nothing must be left.
    """
    x = np.moveaxis(rng.standard_normal(shape).astype(dtype), axis, -1)
    x[..., 1] += {"float32": 30, "float64": 60, "float16": 8}[dtype]
    target, weight = np.zeros(x.shape, dtype), rng.uniform(0.5, 3, x.shape[-1])
    target[..., 1] = rng.uniform(0.1, 1, x.shape[:-1])
    wide = x.astype(np.longdouble)
    others = np.exp(np.delete(wide, 1, -1) - wide[..., 1:2]).sum(-1)
    expected = -weight[1] * target[..., 1].astype("f8") * others / (1 + others)
    x, target = (np.ascontiguousarray(np.moveaxis(a, -1, axis)) for a in (x, target))
    found = xent.cross_entropy_grad(x, target, weight=weight, axis=axis, reduction="none")
    np.testing.assert_allclose(np.moveaxis(found, axis, -1)[..., 1], expected, rtol=8 * finfo(dtype).eps)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"temperature": 0.07, "logit_cap": 50.0}])
def test_a_single_class_has_no_derivative(options, dtype, rng):
    x, target = (rng.random((50, 1)).astype(dtype) for _ in range(2))
    assert not xent.cross_entropy_grad(x, target, weight=[2.318176116830694], **options).any()
