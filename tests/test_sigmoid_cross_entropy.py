"""sigmoid_cross_entropy, its gradient and the pair of both, against the reference, mpmath and differences."""

import itertools

import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pytest
from helpers import (
    ZOO,
    assert_same_bits,
    assert_ulp,
    differences,
    exact,
    finfo,
    of_zoo,
    peak_bytes,
    raises,
    random_logits,
    reference,
    wide,
)
from hypothesis import given as hypothesis_given
from hypothesis import strategies as st
from mpmath import mp
from tolerances import DIFFERENCES, EPS64, ROUNDED, bound

import xent

INF, NAN = np.inf, np.nan
F32 = np.dtype(np.float32)
REDUCTIONS = ["none", "sum", "mean", "mean_valid", "mean_full", "mean_batch"]
KINDS = ["integers", "bools", "probabilities"]
FUNCTIONS = ["sigmoid_cross_entropy", "sigmoid_cross_entropy_grad", "sigmoid_cross_entropy_value_and_grad"]
GAMMAS = [0.0, 1.0, 2.0, 0.5, 3.7]
# Shorter than, equal to and longer than a vector, a block of the kernel, and a chunk of work.
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 255, 511, 512, 513, 1023, 1025, 16384, 16385, 40_000]
SHAPE = (6, 5, 7)
BROADCASTS = [(), (1,), (7,), (5, 7), (5, 1), (1, 1), (6, 1, 1), (6, 5, 1), (1, 5, 1), (6, 1, 7), SHAPE]


def targets(kind, shape, dtype, seed=0, ignored=0.0, ignore_index=-100):
    """0 and 1, of which a share is ignore_index, or probabilities with many of both among them."""
    rng = np.random.default_rng([seed, 5, *shape])
    if kind == "probabilities":
        return np.clip(rng.uniform(-0.5, 1.5, shape), 0, 1).astype(dtype)
    values = rng.integers(0, 2, shape)
    if kind == "bools":
        return values.astype(bool)
    return np.where(rng.random(shape) < ignored, ignore_index, values)


def factors(shape, dtype, seed=0):
    """Weights between 1/4 and 4, some of them 0."""
    rng = np.random.default_rng([seed, 6, *shape])
    return np.where(rng.random(shape) < 0.1, 0, np.exp2(rng.uniform(-2, 2, shape))).astype(dtype)


def magnitude(logits, target, weight=1.0, pos_weight=1.0, label_smoothing=0.0, gamma=0.0, alpha=None):
    """The sum of the magnitudes of the terms of each element's gradient."""
    x, given = wide(logits), wide(target)
    t, s = (((1 - label_smoothing) * v + label_smoothing / 2) for v in (given, 1 - given))
    p, q = reference("sigmoid", x), reference("sigmoid", -x)
    focus = 1.0 if alpha is None else alpha * t + (1 - alpha) * s
    a = wide(pos_weight) * t
    result = s * p + a * q
    if gamma:
        u = t * q + s * p
        with np.errstate(all="ignore"):
            loss = -a * reference("log_sigmoid", x) - s * reference("log_sigmoid", -x)
            pull = gamma * u ** (gamma - 1) * p * q * np.abs(s - t) * loss
            result = u**gamma * result + np.where(u > 0, pull, 0)
    return wide(weight) * focus * result


def assert_close(results, expected, limit, dtype, scale=None, summed=1, slack=0.0, what=""):
    """`expected` is the reference's, which rounds as well, some 16 times as finely as the bound."""
    scale = np.abs(expected) if scale is None else scale
    if dtype == np.float64:
        slack = slack + (limit + 0.5 * summed**0.5) * EPS64 * scale
    for result in results:
        assert_ulp(result, expected, limit, dtype=dtype, scale=scale, slack=slack, what=what)


def assert_sigmoid(logits, target, given=None, what="", **options):
    """Assert the three functions against the reference; `given` are the same values in other layouts."""
    given = given or (logits, target)
    dtype, gamma = logits.dtype, options.get("gamma", 0.0)
    extra = 1 + bound("sigmoid_focus", dtype) * gamma if gamma else 0
    if any(options.get(name) is not None for name in ("weight", "pos_weight", "alpha")):
        extra += bound("sigmoid_weights", dtype)
    both = xent.sigmoid_cross_entropy_value_and_grad(*given, **options)
    loss = reference("sigmoid_cross_entropy", logits, target, **options)
    summed = 1 if np.ndim(loss) else max(logits.size, 1)
    losses = [xent.sigmoid_cross_entropy(*given, **options), both[0]]
    limit = bound("sigmoid_loss", dtype) + extra
    assert_close(losses, loss, limit, dtype, summed=summed, what=f"loss {what}")

    grad = reference("sigmoid_cross_entropy_grad", logits, target, **options)
    each = {k: v for k, v in options.items() if k not in ("reduction", "ignore_index") and v is not None}
    counted = np.asarray(target) != options.get("ignore_index")
    scale = np.where(counted, magnitude(logits, np.where(counted, target, 0), **each), 0)
    divisor = {
        "none": 1,
        "sum": 1,
        "mean_full": logits.size,
        "mean_batch": logits.shape[0] if logits.ndim else 1,
    }.get(options.get("reduction", "mean"), counted.sum())
    gradients = [xent.sigmoid_cross_entropy_grad(*given, **options), both[1]]
    limit = bound("sigmoid_gradient", dtype) + extra
    assert_close(gradients, grad, limit, dtype, scale / (divisor or 1), what=f"gradient {what}")


# Values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_every_size(size, dtype):
    logits = random_logits((size,), dtype)
    for kind, gamma in itertools.product(KINDS, GAMMAS):
        target, what = targets(kind, (size,), dtype), f"{kind} gamma {gamma}"
        assert_sigmoid(logits, target, gamma=gamma, reduction="none", what=what)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_every_option(smoothing, gamma, kind, dtype):
    logits, target = random_logits(SHAPE, dtype), targets(kind, SHAPE, dtype)
    options = {"label_smoothing": smoothing, "gamma": gamma}
    for reduction, (weight, pos_weight, alpha) in itertools.product(
        REDUCTIONS, [(None, None, None), (SHAPE, None, 0.25), (None, (7,), None), ((5, 7), (), 1.0)]
    ):
        assert_sigmoid(
            logits,
            target,
            weight=None if weight is None else factors(weight, dtype),
            pos_weight=None if pos_weight is None else factors(pos_weight, dtype, seed=1),
            alpha=alpha,
            reduction=reduction,
            what=f"{reduction} {weight} {pos_weight}",
            **options,
        )


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("weight", BROADCASTS, ids=str)
def test_every_broadcast(weight, order, dtype):
    logits, target = random_logits(SHAPE, dtype), targets("integers", SHAPE, np.float32)
    given = np.asarray(logits, order=order), np.asarray(target, order=order)
    for pos_weight in BROADCASTS:
        assert_sigmoid(
            logits,
            target,
            given,
            weight=factors(weight, dtype),
            pos_weight=factors(pos_weight, dtype, seed=1),
            reduction="none",
            what=f"{weight} {pos_weight}",
        )


@pytest.mark.parametrize("classes", [1, 3, 10, 511, 512, 513, 700])
def test_broadcasts_beside_blocks(classes, dtype):
    for shape, weight in [
        ((40_000 // classes, classes), (classes,)),
        ((40_000 // classes, classes), (40_000 // classes, 1)),
        ((3, classes, 40), (classes, 1)),
    ]:
        logits, target = random_logits(shape, dtype), targets("probabilities", shape, dtype)
        weight = factors(weight, dtype)
        assert_sigmoid(logits, target, weight=weight, pos_weight=weight, reduction="none", what=f"{shape}")


def exact_losses(x, y):
    """softplus(-x) for targets of 1, softplus(x) for 0, and the derivatives, in mpmath."""
    with mp.workprec(200):
        signed = [mp.mpf(float(v)) * (-1 if t else 1) for v, t in zip(x, y, strict=True)]
        losses = [mp.log1p(mp.exp(v)) if v < 0 else v + mp.log1p(mp.exp(-v)) for v in signed]
        slopes = [(-1 if t else 1) / (1 + mp.exp(-v)) for v, t in zip(signed, y, strict=True)]
        return exact(losses, x.shape), exact(slopes, x.shape), losses, slopes


def spots(dtype):
    """Logits where the formulas change shape, from tiny ones to where exp underflows."""
    ladder = np.exp2(np.arange(-40, 6.4, 0.37))
    edges = np.array([0.0, 1e-30, np.log(2), 16.6, 17.4, 36.7, 37.5, 80, 87.3])
    points = np.concatenate([ladder, edges, np.random.default_rng(0).uniform(0, 3, 300)])
    points = np.append(points, [] if dtype == np.float32 else [500, 708])
    return np.concatenate([points, -points]).astype(dtype)


@pytest.mark.parametrize("y", [0, 1])
def test_last_digits(y, dtype):
    x = spots(dtype)
    target = np.full(x.shape, y)
    loss, slope, _, _ = exact_losses(x, target)
    for kind in [int, bool, dtype, np.float16]:
        value, grad = xent.sigmoid_cross_entropy_value_and_grad(x, target.astype(kind), reduction="none")
        assert_ulp(value, loss, bound("sigmoid_loss", dtype), dtype=dtype, what="loss")
        assert_ulp(grad, slope, bound("sigmoid_gradient", dtype), dtype=dtype, what="gradient")


@pytest.mark.parametrize("gamma", [0.3, 1, 2, 2.5, 5.1])
@pytest.mark.parametrize("y", [0, 1])
def test_last_digits_of_focal_losses(y, gamma, dtype):
    x = spots(dtype)
    x = x[np.abs(x) * (gamma + 1) < (85 if dtype == np.float32 else 700)]
    target = np.full(x.shape, y)
    _, _, losses, slopes = exact_losses(x, target)
    with mp.workprec(200):
        g, sign = mp.mpf(float(gamma)), -1 if y else 1
        u = [sign * v for v in slopes]
        value = exact([b * v**g for v, b in zip(u, losses, strict=True)], x.shape)
        slope = exact(
            [sign * (g * v**g * (1 - v) * b + v ** (g + 1)) for v, b in zip(u, losses, strict=True)], x.shape
        )
    loss, grad = xent.sigmoid_cross_entropy_value_and_grad(x, target, gamma=gamma, reduction="none")
    extra = 1 + bound("sigmoid_focus", dtype) * gamma
    assert_ulp(loss, value, bound("sigmoid_loss", dtype) + extra, dtype=dtype, what="loss")
    assert_ulp(grad, slope, bound("sigmoid_gradient", dtype) + extra, dtype=dtype, what="gradient")


@pytest.mark.parametrize("gamma", [0.0, 2.0, 2.5])
def test_float32_over_its_whole_range(gamma):
    x = np.arange(0, 2**32, 16_411, dtype=np.uint64).astype(np.uint32).view(np.float32)
    for y in [0, 1]:
        target = np.full(x.shape, y, np.int8)
        # the reference multiplies by 0 what float32 cannot tell from it
        keep = np.isfinite(x) & (np.abs(x) < 1e30)
        loss, grad = xent.sigmoid_cross_entropy_value_and_grad(x, target, gamma=gamma, reduction="none")
        expected = reference("sigmoid_cross_entropy_value_and_grad", x, target, gamma=gamma, reduction="none")
        tiny = float(finfo(np.float32).tiny)  # powers of subnormal numbers have few bits
        limit = 5 + 3 * gamma
        for result, value in zip((loss, grad), expected, strict=True):
            slack = np.where(np.abs(value[keep]) < 1e4 * tiny, tiny if gamma else 0, 0)
            assert_ulp(result[keep], value[keep], limit, dtype=np.float32, slack=slack, what=f"{y}")


def test_the_gradient_is_the_derivative():
    logits = random_logits((3, 4), np.float64, scale=1.5)
    upstream = random_logits((3, 4), np.float64, seed=1)
    for kind in KINDS:
        target = targets(kind, (3, 4), np.float64)
        for gamma in GAMMAS:
            options = {
                "weight": factors((4,), np.float64),
                "pos_weight": factors((3, 1), np.float64),
                "alpha": 0.3,
                "gamma": gamma,
                "label_smoothing": 0.1,
                "reduction": "none",
            }
            expected = differences(
                lambda v, t=target, o=options: np.sum(
                    upstream * reference("sigmoid_cross_entropy", v, t, **o)
                ),
                logits,
            )
            for module in [xent, xent.reference]:
                grad = module.sigmoid_cross_entropy_grad(logits, target, grad_output=upstream, **options)
                assert np.allclose(grad, expected, rtol=0, atol=100 * DIFFERENCES)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_grad_output(reduction, dtype):
    logits, target = random_logits(SHAPE, dtype), targets("integers", SHAPE, dtype, ignored=0.2)
    shape = SHAPE if reduction == "none" else ()
    upstream = np.asarray(random_logits(shape, dtype, seed=9))
    options = {"reduction": reduction, "ignore_index": -100}
    expected = reference("sigmoid_cross_entropy_grad", logits, target, grad_output=upstream, **options)
    for order in "CF":
        given = [np.asarray(a, order=order) for a in (logits, target, upstream)]
        result = xent.sigmoid_cross_entropy_grad(*given[:2], grad_output=given[2], **options)
        assert_close([result], expected, 4, dtype)
        assert result.flags[f"{order}_CONTIGUOUS"]


def test_plain_is_the_two_class_softmax(dtype):
    logits, target = random_logits((50,), dtype), targets("integers", (50,), dtype)
    pair = np.stack([np.zeros_like(logits), logits], 1)
    expected = xent.cross_entropy(pair, target, reduction="none")
    assert_ulp(xent.sigmoid_cross_entropy(logits, target, reduction="none"), wide(expected), 8, dtype=dtype)


# Inputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ZOO)
@pytest.mark.parametrize("kind", ["integers", "probabilities"])
def test_every_memory_layout(kind, variant, dtype):
    for shape in [(13,), (4, 5, 6), (3, 700)]:
        logits, target = random_logits(shape, dtype), targets(kind, shape, dtype)
        weight = factors(shape, dtype)
        given = of_zoo(variant, logits), of_zoo(variant, target)
        assert_sigmoid(logits, target, given, f"{shape}", weight=weight, gamma=2.0)
        assert_sigmoid(logits, target, (given[0], target), f"{shape}", reduction="none")
        assert_sigmoid(logits, target, (logits, given[1]), f"{shape}", label_smoothing=0.1)
        expected = xent.sigmoid_cross_entropy_value_and_grad(logits, target, weight=weight, pos_weight=weight)
        weight = of_zoo(variant, weight)
        result = xent.sigmoid_cross_entropy_value_and_grad(logits, target, weight=weight, pos_weight=weight)
        assert_same_bits(result, expected, f"{shape}")


@pytest.mark.parametrize("code", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4", ">u8"])
def test_every_dtype_of_targets(code, dtype):
    for size in [5, 300, 5000]:
        logits, target = random_logits((size,), dtype), targets("integers", (size,), dtype)
        expected = xent.sigmoid_cross_entropy_value_and_grad(logits, target, reduction="none")
        given = target.astype(code)
        assert_same_bits(xent.sigmoid_cross_entropy_value_and_grad(logits, given, reduction="none"), expected)
        if code != "?":
            ignored = np.where(np.arange(size) % 3 == 1, 7, given).astype(code)
            loss, grad = xent.sigmoid_cross_entropy_value_and_grad(
                logits, ignored, ignore_index=7, reduction="none"
            )
            for result, value in [(loss, expected[0]), (grad, expected[1])]:
                assert_same_bits(result, np.where(ignored == 7, dtype.type(0), value))


@pytest.mark.parametrize("of_target", ["float16", "float32", "float64", "bfloat16"])
@pytest.mark.parametrize("of_logits", ["float16", "float32", "float64", "bfloat16"])
def test_every_dtype(of_logits, of_target):
    of_logits, of_target = np.dtype(of_logits), np.dtype(of_target)
    for size in [5, 300, 1500]:
        logits, target = (
            random_logits((size,), of_logits),
            targets("probabilities", (size,), F32).astype(of_target),
        )
        weight = factors((size,), F32).astype(of_target)
        options = {"weight": wide(weight).astype(of_target), "reduction": "none"}
        expected = reference(
            "sigmoid_cross_entropy_value_and_grad",
            wide(logits),
            wide(target),
            weight=wide(weight),
            reduction="none",
        )
        loss, grad = xent.sigmoid_cross_entropy_value_and_grad(logits, target, **options)
        narrow = np.dtype(np.float64 if of_logits == np.float64 else np.float32)
        assert_ulp(loss, expected[0], 7, dtype=narrow)
        limit = bound("sigmoid_gradient", narrow) if of_logits == narrow else ROUNDED
        scale = magnitude(logits, target, weight=weight)
        slack = 4 * float(finfo(narrow).eps) * scale  # where the two terms of a probability cancel
        assert_ulp(grad, expected[1], limit, dtype=of_logits, slack=slack)


def test_the_reference_rounds_to_16_bits():
    for dtype in [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]:
        logits, target = random_logits((9,), dtype), targets("integers", (9,), dtype)
        for module in [xent, xent.reference]:
            loss, grad = module.sigmoid_cross_entropy_value_and_grad(logits, target)
            assert (loss.dtype, grad.dtype) == (np.float32, dtype)


def test_scalars_and_lists():
    loss, grad = xent.sigmoid_cross_entropy_value_and_grad(0, 1, reduction="none")
    assert isinstance(loss, np.float64) and isinstance(grad, np.float64)
    assert (round(loss, 6), grad) == (0.693147, -0.5)
    for reduction in ["sum", "mean", "mean_full"]:
        assert xent.sigmoid_cross_entropy(0.0, 0.5, reduction=reduction) == loss
    assert xent.sigmoid_cross_entropy([[0, 0]], [[1, 0]]) == loss
    assert xent.sigmoid_cross_entropy(np.float32([0]), [True]).dtype == np.float32


@pytest.mark.parametrize("ignore_index", [-100, -1, 0, 1, 2, 255, 2**40])
def test_ignore_index(ignore_index, dtype):
    logits = random_logits(SHAPE, dtype)
    target = targets("integers", SHAPE, dtype, ignored=0.3, ignore_index=ignore_index)
    spoiled = np.where(target == ignore_index, dtype.type(NAN), logits)
    for reduction in REDUCTIONS:
        options = {"ignore_index": ignore_index, "reduction": reduction}
        assert_sigmoid(logits, target, what=reduction, gamma=2.0, **options)
        for o in [{}, {"gamma": 1.5, "weight": factors((7,), dtype)}]:
            expected = xent.sigmoid_cross_entropy_value_and_grad(logits, target, **o, **options)
            result = xent.sigmoid_cross_entropy_value_and_grad(spoiled, target, **o, **options)
            assert_same_bits(result, expected, reduction)
            grad = xent.sigmoid_cross_entropy_grad(spoiled, target, **o, **options)
            assert_same_bits(grad, expected[1], reduction)


def test_an_ignore_index_that_the_dtype_cannot_hold_ignores_nothing():
    target = np.array([0, 1, 1], np.uint8)
    expected = xent.sigmoid_cross_entropy([1.0, 2, 3], target)
    assert xent.sigmoid_cross_entropy([1.0, 2, 3], target, ignore_index=-100) == expected
    assert xent.sigmoid_cross_entropy([1.0, 2, 3], target == 1, ignore_index=-100) == expected
    with raises(ValueError, "target[2] is 156"):
        xent.sigmoid_cross_entropy([1.0, 2, 3], np.array([0, 1, 156], np.uint8), ignore_index=-100)


# Results ----------------------------------------------------------------------------------------------------


def test_out(dtype):
    for shape in [(5, 7), (3, 700)]:
        logits, target = random_logits(shape, dtype), targets("integers", shape, dtype)
        kept, weight = logits.copy(), factors((shape[1],), dtype)
        for options in [{}, {"weight": weight}]:
            loss, expected = xent.sigmoid_cross_entropy_value_and_grad(logits, target, **options)
            for variant in [
                "contiguous",
                "every second element",
                "negative strides",
                "Fortran order",
                "unaligned",
            ]:
                out = of_zoo(variant, np.full(shape, 7, dtype))
                assert xent.sigmoid_cross_entropy_grad(logits, target, out=out, **options) is out
                assert_ulp(out, wide(expected), 0, dtype=dtype, what=variant)
                out[...] = 7
                value, grad = xent.sigmoid_cross_entropy_value_and_grad(logits, target, out=out, **options)
                assert grad is out
                assert value == loss
                assert_ulp(out, wide(expected), 0, dtype=dtype, what=variant)
            for order in "CF":
                place = np.array(logits, order=order)
                value, grad = xent.sigmoid_cross_entropy_value_and_grad(place, target, out=place, **options)
                assert grad is place
                assert_ulp(grad, wide(expected), 0, dtype=dtype, what="in place")
        assert np.array_equal(logits, kept)


@pytest.mark.parametrize("reduction", ["sum", "mean", "mean_valid", "mean_full", "mean_batch"])
def test_means_over_nothing_are_zero(reduction, dtype):
    for logits, target, options in [
        (np.full((2, 3), NAN, dtype), np.full((2, 3), -1), {"ignore_index": -1}),
        (np.zeros((0, 3), dtype), np.zeros((0, 3), dtype), {}),
        (np.zeros((4, 0), dtype), np.zeros((4, 0), int), {"weight": np.zeros(0)}),
    ]:
        loss, grad = xent.sigmoid_cross_entropy_value_and_grad(logits, target, reduction=reduction, **options)
        assert isinstance(loss, dtype.type)
        assert loss == 0
        assert grad.shape == logits.shape
        assert not grad.any()
        assert xent.sigmoid_cross_entropy(logits, target, reduction=reduction, **options) == 0


def test_reductions_divide_by_what_they_say(dtype):
    logits, target = random_logits((4, 6), dtype), targets("integers", (4, 6), dtype)
    target[0, :3] = -1
    options = {"weight": factors((6,), dtype), "ignore_index": -1}
    total = float(xent.sigmoid_cross_entropy(logits, target, reduction="sum", **options))
    for reduction, divisor in [("mean", 21), ("mean_valid", 21), ("mean_full", 24), ("mean_batch", 4)]:
        result = xent.sigmoid_cross_entropy(logits, target, reduction=reduction, **options)
        assert abs(result / (total / divisor) - 1) < 4 * np.finfo(dtype).eps


def test_the_same_bits_for_any_number_of_threads(dtype):
    shape = (700, 301)
    logits, weight = random_logits(shape, dtype), factors((301,), dtype)
    for kind in KINDS:
        target = targets(kind, shape, dtype)
        for options in [{}, {"gamma": 2.0, "weight": weight}, {"reduction": "none", "gamma": 0.7}]:
            for name in FUNCTIONS:
                results = []
                for n in [1, 2, 3]:
                    with xent.num_threads(n):
                        results.append(getattr(xent, name)(logits, target, **options))
                for result in results[1:]:
                    assert_same_bits(result, results[0], name)


def test_nothing_of_the_size_of_the_data_is_allocated(dtype):
    shape = (500, 2000)
    logits, weight = random_logits(shape, dtype), factors(shape, dtype)
    for kind, code in [("probabilities", dtype), ("integers", np.int64), ("integers", np.uint8)]:
        target, out = targets(kind, shape, dtype).astype(code), np.empty_like(logits)
        for options in [
            {},
            {"weight": weight, "gamma": 2.0},
            {"pos_weight": weight[0], "weight": weight[:, :1]},
        ]:
            for function in [
                lambda t=target, o=options: xent.sigmoid_cross_entropy(logits, t, **o),
                lambda t=target, o=options, g=out: xent.sigmoid_cross_entropy_grad(logits, t, out=g, **o),
            ]:
                assert peak_bytes(function) < 2**16


# Special values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", GAMMAS)
def test_infinite_logits(gamma, dtype):
    x = np.array([-INF, -INF, INF, INF], dtype)
    for t in [np.array([0, 1, 0, 1]), np.array([0, 1, 0, 1], dtype)]:
        for size in [1, 5]:
            logits, target = np.tile(x, size), np.tile(t, size)
            for module in [xent, xent.reference]:
                with np.errstate(all="ignore"):
                    loss, grad = module.sigmoid_cross_entropy_value_and_grad(
                        logits, target, gamma=gamma, reduction="none"
                    )
                assert loss.tolist() == [0, INF, INF, 0] * size
                assert grad.tolist() == [0, -1, 1, 0] * size
    for module in [xent, xent.reference]:
        assert (
            module.sigmoid_cross_entropy(x, [1, 1, 0, 0], weight=[0, 1, 0, 0], pos_weight=0, reduction="sum")
            == 0
        )


def test_huge_gamma(dtype):
    for gamma in [1e4, 1e38, 1e300]:
        loss, grad = xent.sigmoid_cross_entropy_value_and_grad(
            np.array([-1, 0, 1], dtype), [1, 0, 0], gamma=gamma, reduction="none"
        )
        assert not loss.any() and not grad.any()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_huge_logits(gamma, dtype):
    for huge in [200.0, 1e4, 1e30, float(np.finfo(dtype).max)]:
        x = np.array([-huge, -huge, huge, huge], dtype)
        loss, grad = xent.sigmoid_cross_entropy_value_and_grad(x, [0, 1, 0, 1], gamma=gamma, reduction="none")
        assert_ulp(loss[1:3], np.abs(wide(x[1:3])), 4, dtype=dtype)
        assert (loss[[0, 3]] <= np.exp(-200.0)).all()
        assert np.allclose(grad, [0, -1, 1, 0], rtol=0, atol=1e-30)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("size", [1, 5, 20])
def test_nan_spoils_its_own_element_only(size, gamma, dtype):
    for place in range(size):
        logits, target = random_logits((size,), dtype), targets("integers", (size,), dtype)
        options = {"gamma": gamma, "reduction": "none", "pos_weight": 0.0}
        clean = xent.sigmoid_cross_entropy_value_and_grad(logits, target, **options)
        logits[place] = NAN
        spoiled = xent.sigmoid_cross_entropy_value_and_grad(logits, target, **options)
        for result, expected in zip(spoiled, clean, strict=True):
            expected[place] = NAN
            np.testing.assert_array_equal(result, expected)
        loss, grad = xent.sigmoid_cross_entropy_value_and_grad(logits, target, gamma=gamma, weight=0.0)
        assert loss == 0
        assert not grad.any()
        for o in [{"alpha": 1.0}, {"label_smoothing": 1.0}]:
            assert np.isnan(xent.sigmoid_cross_entropy(logits, target, gamma=gamma, **o))


def test_rounding_does_not_produce_negative_losses(dtype):
    logits = np.random.default_rng(1).normal(0, 100, 3000).astype(dtype)
    for gamma in GAMMAS:
        loss, grad = xent.sigmoid_cross_entropy_value_and_grad(
            logits, logits > 0, gamma=gamma, reduction="none"
        )
        assert (loss >= 0).all()
        assert (grad[logits > 0] <= 0).all() and (grad[logits < 0] >= 0).all()


# Errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("size", [2, 700, 70_001])
def test_bad_targets(size, name, dtype):
    function, logits = getattr(xent, name), np.zeros((size, 2), dtype)
    for code, bad in [
        (int, 2),
        (int, -100),
        (np.uint8, 255),
        (np.int16, -1),
        (np.int32, 2**30),
        (np.uint64, 2**63),
    ]:
        target = np.zeros((size, 2), code)
        target[-1, 1] = bad
        with raises(ValueError, f"target[{size - 1}, 1] is {bad}", "0 or 1"):
            function(logits, target)
        with raises(ValueError, f"target[{size - 1}, 1] is {bad}", "ignore_index=9"):
            function(logits, target, ignore_index=9)
    for code in [np.float32, np.float64, np.float16]:
        for bad in [-0.5, 1.5, NAN, INF, -INF]:
            target = np.zeros((size, 2), code)
            target[-1, 0] = bad
            with raises(ValueError, f"target[{size - 1}, 0] is {bad}", "between 0 and 1"):
                function(logits, target)
    with raises(ValueError, "target is 3"):
        function(0.0, 3)


@pytest.mark.parametrize("gamma", [0.0, 2.0, 1.5])
def test_a_target_that_a_smaller_dtype_would_round(gamma, dtype):
    """It is taken as it is, and results are rounded: p - t of a rounded t may have few digits."""
    x = random_logits((7, 5), dtype)
    target = np.clip(reference("sigmoid", wide(x)) * (1 + 2.0**-30), 0.0, 1.0)
    target[0, :3] = 2.0**-130 * 1.5, 2.0**-160, 1.0 - 2.0**-40
    options = {"gamma": gamma, "weight": np.array([0.5, -1.0, 2.0, 0.25, 3.0]), "pos_weight": 2.0}
    for reduction in ["mean", "sum", "none", "mean_batch"]:
        for order in ["C", "F"]:
            args = np.asarray(x, order=order), np.asarray(target, order=order)
            exact = xent.sigmoid_cross_entropy_value_and_grad(
                wide(args[0]), args[1], reduction=reduction, **options
            )
            result = xent.sigmoid_cross_entropy_value_and_grad(*args, reduction=reduction, **options)
            loss = np.asarray(exact[0]).astype(np.asarray(result[0]).dtype)
            np.testing.assert_array_equal(result[0], loss)
            np.testing.assert_array_equal(wide(result[1]), wide(exact[1].astype(dtype)))
            np.testing.assert_array_equal(
                xent.sigmoid_cross_entropy(*args, reduction=reduction, **options), loss
            )
            pair = xent.sigmoid_cross_entropy_grad_hess(*args, reduction=reduction, **options)
            right = xent.sigmoid_cross_entropy_grad_hess(
                wide(args[0]), args[1], reduction=reduction, **options
            )
            for r, e in zip(pair, right, strict=True):
                np.testing.assert_array_equal(wide(r), wide(e.astype(dtype)))
    over = x.copy()
    grad = xent.sigmoid_cross_entropy_grad(x, target, **options)
    assert_same_bits(xent.sigmoid_cross_entropy_grad(over, target, out=over, **options), grad)
    kept = target.astype(np.float32).astype(np.float64)  # of which float32 loses nothing
    kept[0, :2] = 0.0
    results = [xent.sigmoid_cross_entropy(x, t, **options) for t in (kept, kept.astype(np.float32))]
    assert dtype == np.float64 or results[0].tobytes() == results[1].tobytes()


def test_float64_targets_beside_float32_are_checked_before_they_are_rounded():
    with raises(ValueError, "target[0] is 1.0000000001"):
        xent.sigmoid_cross_entropy(np.float32([0]), [1.0000000001])


def test_nothing_is_written_before_an_error(dtype):
    for size in [5, 3000]:
        logits = random_logits((size,), dtype)
        kept, out = logits.copy(), np.full(size, 7, dtype)
        for target in [np.full(size, 2), np.full(size, 2, dtype), np.full(size, NAN)]:
            for place in [logits, out]:
                with raises(ValueError, "target[0]"):
                    xent.sigmoid_cross_entropy_value_and_grad(logits, target, out=place)
        assert_same_bits(logits, kept)
        assert (out == 7).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_arguments(name):
    function, x, y = getattr(xent, name), np.zeros((3, 5)), np.zeros((3, 5), int)
    for shape in [(5,), (3, 1), (3, 4), (1, 3, 5), ()]:
        with raises(ValueError, "target must have the shape of logits", shape, "(3, 5)"):
            function(x, np.zeros(shape))
    for option in ["weight", "pos_weight"]:
        for shape in [(3,), (4, 5), (1, 3, 5), (5, 3), (0,)]:
            with raises(ValueError, option, "broadcast", shape, "(3, 5)"):
                function(x, y, **{option: np.ones(shape)})
        for bad in [-1.0, NAN, INF][option == "weight" :]:
            factor = np.ones((3, 1))
            factor[1] = bad
            with raises(ValueError, f"{option}[1, 0] = {bad}"):
                function(x, y, **{option: factor})
        with raises(TypeError, option):
            function(x, y, **{option: "many"})
    for option, bad in [
        ("label_smoothing", 1.1),
        ("gamma", -0.5),
        ("alpha", 2.0),
        ("gamma", INF),
        ("alpha", NAN),
    ]:
        with raises(ValueError, option, bad):
            function(x, y, **{option: bad})
        with raises(TypeError, option):
            function(x, y, **{option: "some"})
    with raises(ValueError, "ignore_index", "float64", "probabilities"):
        function(x, np.zeros((3, 5)), ignore_index=-100)
    for bad in [1.0, "1", True]:
        with raises(TypeError, "ignore_index"):
            function(x, y, ignore_index=bad)
    with raises(ValueError, "reduction", "'average'"):
        function(x, y, reduction="average")
    with raises(TypeError, "reduction"):
        function(x, y, reduction=None)
    with raises(ValueError, "mean_batch", "axis"):
        function(0.0, 1, reduction="mean_batch")
    for bad in [np.zeros(3, complex), np.array(["a"]), np.zeros(3, object)]:
        with raises(TypeError, "logits"):
            function(bad, np.zeros(3))
        with raises(TypeError, "target"):
            function(np.zeros(bad.shape), bad)


def test_factors_beyond_float32():
    x = np.array([0, 100], np.float32)
    loss, grad = xent.sigmoid_cross_entropy_value_and_grad(x, [0, 1], weight=[0.0, 1e60], reduction="sum")
    assert loss == np.float32(np.exp(-100.0) * 1e60)
    assert grad.tolist() == [0.0, -loss]
    assert xent.sigmoid_cross_entropy(np.zeros(2), [0, 1], weight=[1.0, 1e39]) > 1e38


# Weights of either sign -------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 2.0, 1.5])
def test_weights_of_either_sign(gamma, dtype):
    x, t = random_logits((40, 9), dtype), targets("probabilities", (40, 9), dtype)
    weight = np.random.default_rng(3).normal(size=(40, 9)).astype(dtype)
    weight[::3, 2] = 0
    options = {"gamma": gamma, "pos_weight": 2.5, "reduction": "none"}
    loss, grad = xent.sigmoid_cross_entropy_value_and_grad(x, t, weight=weight, **options)
    up, down = (
        xent.sigmoid_cross_entropy_value_and_grad(x, t, weight=np.maximum(part, 0), **options)
        for part in (weight, -weight)
    )
    for result, plus, minus in zip((loss, grad), up, down, strict=True):
        np.testing.assert_array_equal(wide(result), wide(plus) - wide(minus))
    expected = reference(
        "sigmoid_cross_entropy", wide(x), wide(t), **options | {"weight": weight, "reduction": "sum"}
    )
    total = xent.sigmoid_cross_entropy(x, t, **options | {"weight": weight, "reduction": "sum"})
    assert_ulp(total, expected, 4 + 2 + 1 + 3 * gamma + 1, dtype=loss.dtype, scale=np.abs(wide(loss)).sum())


def test_what_has_no_weight_is_not_there(dtype):
    x, y = random_logits((50,), dtype), targets("integers", (50,), dtype)
    weight = np.where(np.arange(50) % 4 == 0, 0.0, -1.5)
    clean = xent.sigmoid_cross_entropy_value_and_grad(x, y, weight=weight)
    for bad in (NAN, INF, -INF):
        x[::4] = bad
        for gamma in (0.0, 2.0, 0.5):
            xent.sigmoid_cross_entropy_value_and_grad(x, y, weight=weight, gamma=gamma)
        spoiled = xent.sigmoid_cross_entropy_value_and_grad(x, y, weight=weight)
        for result, expected in zip(spoiled, clean, strict=True):
            np.testing.assert_array_equal(result, expected)
        grad, hess = xent.sigmoid_cross_entropy_grad_hess(x, y, weight=weight, gamma=2.0)
        assert not grad[::4].any()
        assert not hess[::4].any()
        assert np.isfinite(wide(hess)).all()


# Second derivatives -----------------------------------------------------------------------------------------

RULES = ["diagonal", "gauss_newton", "absolute"]


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 0.5, 3.7])
@pytest.mark.parametrize("rule", RULES)
def test_second_derivatives(rule, gamma, dtype):
    shape = (13, 41)
    x = random_logits(shape, dtype)
    weight = np.random.default_rng(4).normal(size=41).astype(dtype)
    for kind, smoothing in [("integers", 0.0), ("probabilities", 0.1)]:
        t = targets(kind, shape, dtype)
        options = {"weight": weight, "pos_weight": 2.5, "alpha": 0.25, "gamma": gamma}
        options |= {"label_smoothing": smoothing, "reduction": "sum"}
        grad, hess = xent.sigmoid_cross_entropy_grad_hess(x, t, hessian=rule, **options)
        np.testing.assert_array_equal(grad, xent.sigmoid_cross_entropy_grad(x, t, **options))
        given = t if kind == "integers" else wide(t)
        expected = reference("sigmoid_cross_entropy_grad_hess", wide(x), given, hessian=rule, **options)[1]
        size = np.abs(weight) * (1 + gamma) ** 2  # p (1 - p) and the terms of a focal loss are no larger
        ulps = bound("hessian", dtype) + bound("sigmoid_weights", dtype) + 1 + 3 * gamma
        assert_ulp(hess, expected, ulps, dtype=dtype, scale=np.maximum(np.abs(expected), size))
        if rule == "absolute":
            np.testing.assert_array_equal(hess, np.abs(grad))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 0.5])
def test_second_derivatives_are_differences_of_gradients(gamma):
    x = np.linspace(-6, 6, 60)
    t = np.tile([0.0, 1.0, 0.3], 20)
    options = {"gamma": gamma, "pos_weight": 1.7, "reduction": "sum", "weight": -0.7}
    step = 1e-5
    up, down = (reference("sigmoid_cross_entropy_grad", x + s, t, **options) for s in (step, -step))
    hess = xent.sigmoid_cross_entropy_grad_hess(x, t, **options)[1]
    np.testing.assert_allclose(hess, (up - down) / (2 * step), rtol=0, atol=DIFFERENCES)


def test_confident_second_derivatives_keep_their_digits(dtype):
    x = np.array([-80, -20, 20, 80], dtype)
    with mp.workdps(60):
        e = [mp.exp(-abs(mp.mpf(float(v)))) for v in x]
        expected = exact([v / (1 + v) ** 2 for v in e], x.shape)
    hess = xent.sigmoid_cross_entropy_grad_hess(x, [0, 1, 1, 0], reduction="sum")[1]
    assert_ulp(hess, expected, bound("hessian", dtype), dtype=dtype)


@pytest.mark.parametrize("rule", RULES)
def test_second_derivatives_where_gradients_end(rule):
    x = np.array([INF, -INF, INF, -INF, NAN])
    for gamma in (0.0, 0.5, 1.0, 2.0):
        for weight in (1.0, -1.0):
            hess = xent.sigmoid_cross_entropy_grad_hess(
                x, [0, 0, 1, 1, 1], hessian=rule, gamma=gamma, weight=weight, reduction="sum"
            )[1]
            if rule != "absolute":
                assert not hess[:4].any()
            assert np.isnan(hess[4])


def test_second_derivatives_in_any_order_and_in_place():
    x, y = np.asfortranarray(random_logits((30, 7), np.float32)), targets("integers", (30, 7), np.float32)
    expected = xent.sigmoid_cross_entropy_grad_hess(np.ascontiguousarray(x), y, gamma=2.0)
    for result, right in zip(xent.sigmoid_cross_entropy_grad_hess(x, y, gamma=2.0), expected, strict=True):
        np.testing.assert_array_equal(result, right)
    place, other = x.copy(), np.empty((7, 60), np.float32)[:, ::2].T
    grad, hess = xent.sigmoid_cross_entropy_grad_hess(place, y, gamma=2.0, out=(place, other))
    assert grad is place
    assert hess is other
    np.testing.assert_array_equal(grad, expected[0])
    np.testing.assert_array_equal(hess, expected[1])
    for value in xent.sigmoid_cross_entropy_grad_hess(0.5, 1):
        assert np.ndim(value) == 0


def test_wrong_second_derivatives():
    x, y = np.zeros(3), [0, 1, 1]
    with raises(ValueError, "hessian", "gauss_newton", "'upper'"):
        xent.sigmoid_cross_entropy_grad_hess(x, y, hessian="upper")
    with raises(TypeError, "hessian"):
        xent.sigmoid_cross_entropy_grad_hess(x, y, hessian=None)
    with raises(TypeError, "out", "pair"):
        xent.sigmoid_cross_entropy_grad_hess(x, y, out=x)
    with raises(ValueError, "overlap"):
        xent.sigmoid_cross_entropy_grad_hess(x, y, out=(None, x))
    out = np.full(3, 7.0), np.full(3, 7.0)
    with raises(ValueError, "target[1] is 2"):
        xent.sigmoid_cross_entropy_grad_hess(x, [0, 2, 1], out=out)
    assert (np.array(out) == 7).all()


def test_wrong_outputs():
    x, y = np.zeros((3, 5)), np.zeros((3, 5), np.float64)
    weight = np.ones((3, 5))
    both = np.zeros(30)
    for out, parts in [
        (np.zeros((5, 3)), ["shape"]),
        (np.zeros((3, 5), np.float32), ["dtype"]),
        (np.broadcast_to(np.zeros(5), (3, 5)), ["writeable"]),
        (y, ["overlaps target"]),
        (weight, ["overlaps weight"]),
    ]:
        for function in [xent.sigmoid_cross_entropy_grad, xent.sigmoid_cross_entropy_value_and_grad]:
            with raises(ValueError, "out", *parts):
                function(x, y, weight=weight, out=out)
    with raises(ValueError, "out overlaps logits"):
        xent.sigmoid_cross_entropy_grad(both[:15], y.ravel(), out=both[1:16])
    with raises(TypeError, "out"):
        xent.sigmoid_cross_entropy_grad(x, y, out=[0.0])
    for shape, reduction in [((3, 5), "mean"), ((), "none"), ((5,), "none")]:
        with raises(ValueError, "grad_output", shape):
            xent.sigmoid_cross_entropy_grad(x, y, grad_output=np.ones(shape), reduction=reduction)


@hypothesis_given(data=st.data())
def test_any_shape_and_options(data):
    dtype = np.dtype(data.draw(st.sampled_from(["f4", "f8"])))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=9))
    kind = data.draw(st.sampled_from(KINDS))

    def drawn(seed):
        cut = data.draw(st.integers(0, len(shape)))
        own = tuple(n if data.draw(st.booleans()) else 1 for n in shape[cut:])
        return data.draw(st.sampled_from([None, factors(own, dtype, seed)]))

    assert_sigmoid(
        random_logits(shape, dtype, scale=data.draw(st.floats(0, 10))),
        targets(kind, shape, dtype, 1, data.draw(st.floats(0, 1))),
        weight=drawn(1),
        pos_weight=drawn(2),
        label_smoothing=data.draw(st.sampled_from([0.0, 1e-3, 0.1, 1.0])),
        gamma=data.draw(st.sampled_from(GAMMAS)),
        alpha=data.draw(st.sampled_from([None, 0.0, 0.25, 1.0])),
        ignore_index=-100 if kind == "integers" else None,
        reduction=data.draw(st.sampled_from(REDUCTIONS)),
    )


@pytest.mark.parametrize("gamma", [0.0, 2.0, 1.7])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_beyond_the_exponentials_of_floats(kind, gamma, dtype):
    """Floats lose digits of e^-|z| from 87 on, and doubles make these elements: many, few, mixed."""
    rng = np.random.default_rng(5)
    for share, size in [(1.0, 700), (0.5, 1300), (0.01, 1300), (0.1, 63)]:
        far = np.where(rng.random(size) < share, rng.uniform(80, 300, size), 1.0)
        logits = (far * np.sign(rng.standard_normal(size))).astype(dtype)
        logits[::50] = -np.inf
        target = targets(kind, (size,), dtype)
        weight, finite = factors((size,), dtype), np.isfinite(logits)
        here, there, what = logits[finite], target[finite], f"{share} of {size}"
        each = {"gamma": gamma, "weight": weight[finite], "reduction": "none"}
        assert_sigmoid(here, there, what=what, **each)
        assert_sigmoid(here, there, gamma=gamma, alpha=0.25, reduction="mean", what=what)
        all_of_them = xent.sigmoid_cross_entropy_value_and_grad(logits, target, **(each | {"weight": weight}))
        alone = xent.sigmoid_cross_entropy_value_and_grad(here, there, **each)
        for mixed, expected in zip(all_of_them, alone, strict=True):  # whatever stands beside them
            np.testing.assert_array_equal(mixed[finite], expected)


@pytest.mark.parametrize("gamma", [900.0, 2000.0, 1e6])
def test_powers_that_no_weight_brings_back(gamma):
    """(1 - p)^gamma is 2^-18000 and less: losses and derivatives are 0 whatever the weight."""
    options = {"weight": 1e300, "gamma": gamma, "reduction": "none"}
    loss, grad = xent.sigmoid_cross_entropy_value_and_grad([14.0], [1.0], **options)
    assert loss == 0 and grad == 0
    grad, hess = xent.sigmoid_cross_entropy_grad_hess([14.0], [1.0], **options)
    assert grad == 0 and hess == 0
