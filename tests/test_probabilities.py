"""Losses of probabilities, against the reference, SciPy and, where digits are easily lost, mpmath."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from helpers import (
    ZOO,
    ExactRow,
    assert_same_bits,
    assert_ulp,
    differences,
    exact,
    finfo,
    of_zoo,
    raises,
    random_labels,
    random_logits,
    random_probabilities,
    random_weights,
    reference,
    wide,
)
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from scipy import special
from tolerances import DIFFERENCES, EPS64, ROUNDED, bound

import xent

INF, NAN = np.inf, np.nan
SIXTEEN = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
DTYPES = [np.dtype(np.float32), np.dtype(np.float64), *SIXTEEN]
NAMES = ["cross_entropy_probs", "binary_cross_entropy", "kl_div", "distillation_loss", "mse_loss"]
REDUCTIONS = ["none", "sum", "mean", "mean_valid", "mean_full", "mean_batch"]
# rows of a few classes and of many, several blocks of them; columns, few and many; strided positions
SHAPES = [
    ((1, 1), -1), ((9, 5), -1), ((300, 3), 1), ((130, 17), -1), ((5, 257), 1), ((3, 5000), -1),
    ((2, 9000), -1), ((2, 7, 40), -1), ((3, 17, 5, 7), 1), ((2, 5, 19, 17), 1), ((4, 2, 65), -2),
    ((4, 600, 9), 1), ((2, 100, 19, 17), 1),
]  # fmt: skip


def class_axis(name):
    """Whether a loss sums over a class axis."""
    return name not in ("binary_cross_entropy", "mse_loss")


def arguments(name, shape, dtype, axis=-1, seed=0, kind="probabilities"):
    """(data, target) of a loss."""
    if name == "distillation_loss":
        return random_logits(shape, dtype, seed), random_logits(shape, dtype, seed + 1)
    if name == "mse_loss":
        return random_logits(shape, dtype, seed), random_logits(shape, dtype, seed + 1)
    probs = random_probabilities(shape, np.float64, axis, seed)
    target = random_probabilities(shape, dtype, axis, seed + 1)
    if name == "kl_div":
        return np.log(np.maximum(probs, 1e-7)).astype(dtype), target
    if kind == "labels" and name == "binary_cross_entropy":
        return probs.astype(dtype), random_labels(shape, 2, seed)
    if kind == "labels":
        return probs.astype(dtype), random_labels(tuple(np.delete(shape, axis)), shape[axis], seed)
    return probs.astype(dtype), target


def as_wide(a):
    return a if np.asarray(a).dtype.kind in "iub" else wide(a)


def scales(name, args, axis, log_target=False, temperature=1.0):
    """(of each position's or element's loss, of each entry of the gradient): sums of magnitudes."""
    x, t = (wide(a) for a in args)
    if name == "kl_div":
        log_t = t if log_target else np.log(np.maximum(t, 1e-300))
        t = np.exp(t) if log_target else t
        return (t * (np.abs(log_t) + np.abs(x))).sum(axis), np.abs(t)
    u, v = x / temperature, t / temperature
    p, q = reference("softmax", u, axis), reference("softmax", v, axis)
    sizes = 1 + np.abs(u).max(axis, keepdims=True) + np.abs(v).max(axis, keepdims=True)
    return temperature**2 * (q * sizes).sum(axis), temperature * (p + q) * sizes


def assert_close(name, args, given=None, what="", grad_output=None, **options):
    """Assert the three functions against the reference; `given` are the same values in other layouts."""
    given = args if given is None else given
    dtype, exacts = args[0].dtype, [as_wide(a) for a in args]
    single = dtype == np.float64 and np.float64 or np.float32
    axis = options.get("axis", -1)
    loss = np.asarray(reference(name, *exacts, **options))
    grad = reference(f"{name}_grad", *exacts, grad_output=grad_output, **options)
    loss_scale, grad_scale = np.abs(loss), np.abs(grad)
    if name in ("kl_div", "distillation_loss"):
        extra = {k: v for k, v in options.items() if k in ("log_target", "temperature")}
        of_loss, of_grad = scales(name, args, axis, **extra)
        positions = max(of_loss.size, 1)
        divisor = {"none": 1, "sum": 1, "mean_batch": args[0].shape[0]}.get(
            options.get("reduction", "mean"), positions
        )
        unit = 1.0 if options.get("base") is None else abs(np.log(options["base"]))
        none = options.get("reduction") == "none"
        loss_scale = (of_loss if none else of_loss.sum()) / divisor / unit
        upstream = 1.0 if grad_output is None else np.abs(np.asarray(grad_output, np.float64))
        if none and np.ndim(upstream):
            upstream = np.expand_dims(upstream, axis)
        if name == "distillation_loss":
            grad_scale = of_grad / divisor / unit * upstream
    terms = loss.size and args[0].size // loss.size
    slack = EPS64 * loss_scale * max(terms, 1) ** 0.5
    both = getattr(xent, f"{name}_value_and_grad")(*given, **options)
    limit = bound("loss", np.dtype(single), max(terms, 1))
    for result in [getattr(xent, name)(*given, **options), both[0]]:
        assert_ulp(
            np.asarray(result),
            loss,
            limit,
            dtype=single,
            scale=loss_scale,
            slack=slack,
            what=f"{name} {what}",
        )
    grads = [getattr(xent, f"{name}_grad")(*given, grad_output=grad_output, **options)]
    if grad_output is None:
        grads.append(both[1])
    for result in grads:
        if dtype in SIXTEEN:
            slack32 = 8 * float(finfo(np.float32).eps) * grad_scale
            assert_ulp(result, grad, ROUNDED, dtype=dtype, slack=slack32, what=f"{name}_grad {what}")
        else:
            limit = bound("gradient", dtype)
            slack64 = 8 * EPS64 * grad_scale
            assert_ulp(
                result, grad, limit, dtype=dtype, scale=grad_scale, slack=slack64, what=f"{name}_grad {what}"
            )


def with_axis(name, axis, **options):
    return options | ({"axis": axis} if class_axis(name) else {})


# Against the reference --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape, axis", SHAPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_against_the_reference(name, shape, axis, dtype):
    args = arguments(name, shape, dtype, axis)
    for reduction in ["none", "sum", "mean"]:
        assert_close(name, args, what=reduction, **with_axis(name, axis, reduction=reduction))


@pytest.mark.parametrize("shape, axis", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_entropy_against_the_reference(shape, axis, dtype):
    p = random_probabilities(shape, dtype, axis)
    expected = np.asarray(reference("entropy", wide(p), axis=axis))
    single = np.float64 if dtype == np.float64 else np.float32
    result = np.asarray(xent.entropy(p, axis=axis))
    assert_ulp(result, expected, bound("loss", dtype, shape[axis]), dtype=single)
    bits = np.asarray(xent.entropy(p, axis=axis, base=2))
    assert_ulp(bits, expected / np.log(2), bound("loss", dtype, shape[axis]), dtype=single)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_reductions_and_upstream_gradients(name, reduction, dtype):
    args = arguments(name, (6, 5, 3), dtype, 1)
    options = with_axis(name, 1, reduction=reduction)
    assert_close(name, args, **options)
    shape = () if reduction != "none" else (6, 3) if class_axis(name) else (6, 5, 3)
    upstream = np.asarray(random_logits(shape, dtype, seed=9))
    assert_close(name, args, grad_output=upstream, **options)


@pytest.mark.parametrize("kind", ["probabilities", "labels"])
@pytest.mark.parametrize("name", ["cross_entropy_probs", "binary_cross_entropy"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_clip_and_base(name, kind, dtype):
    args = arguments(name, (40, 7), dtype, kind=kind)
    for options in [{"clip": 0.02}, {"base": 2}, {"clip": 1e-10, "base": 0.5}]:
        for reduction in ["none", "mean"]:
            assert_close(name, args, what=f"{options} {reduction}", reduction=reduction, **options)


@pytest.mark.parametrize("options", [{"log_target": True}, {"base": 10}])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_options_of_kl_div(options, reduction, dtype):
    x, t = arguments("kl_div", (40, 7), dtype)
    if "log_target" in options:
        t = np.log(np.maximum(t, 1e-6)).astype(dtype)
    assert_close("kl_div", (x, t), reduction=reduction, **options)


@pytest.mark.parametrize("temperature", [0.5, 2, 3.0, 20.0])
@pytest.mark.parametrize("shape, axis", [((40, 7), -1), ((6, 300), -1), ((3, 20, 50), 1)])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_temperatures(temperature, shape, axis, dtype):
    args = arguments("distillation_loss", shape, dtype, axis)
    for reduction in ["none", "mean"]:
        assert_close("distillation_loss", args, axis=axis, temperature=temperature, reduction=reduction)


@pytest.mark.parametrize("temperature", [1e-15, 1e-5, 1e5])
def test_extreme_temperatures(temperature, dtype):
    x, t = arguments("distillation_loss", (4, 5), dtype)
    x, t = x * dtype.type(temperature), t * dtype.type(temperature)
    expected = reference("distillation_loss", wide(x), wide(t), temperature=temperature, reduction="none")
    result = xent.distillation_loss(x, t, temperature=temperature, reduction="none")
    assert np.allclose(result / temperature**2, expected / temperature**2, rtol=1e-5)
    grad = xent.distillation_loss_grad(x, t, temperature=temperature)
    assert np.allclose(
        grad / temperature, reference("distillation_loss_grad", wide(x), wide(t), temperature=temperature)
        / temperature, atol=1e-6,
    )  # fmt: skip


WEIGHTS = [(), (1,), (7,), (40, 1), (40, 7)]


@pytest.mark.parametrize("shape", WEIGHTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_weights_broadcast(shape, dtype):
    args = arguments("binary_cross_entropy", (40, 7), dtype)
    weight = np.asarray(random_weights(int(np.prod(shape)), np.float32)).reshape(shape)
    for reduction in ["none", "mean"]:
        assert_close("binary_cross_entropy", args, weight=weight, reduction=reduction)


@pytest.mark.parametrize("variant", ZOO)
@pytest.mark.parametrize("name", NAMES)
def test_every_memory_layout(name, variant, dtype):
    for shape, axis in [((3, 5, 4), 1), ((3, 4, 5), -1)]:
        args = arguments(name, shape, dtype, axis)
        given = [of_zoo(variant, a) for a in args]
        for reduction in ["none", "mean"]:
            assert_close(name, args, given, axis_note(shape), **with_axis(name, axis, reduction=reduction))


def axis_note(shape):
    return f"shape {shape}"


@pytest.mark.parametrize("name", NAMES)
def test_transposed_arrays(name, dtype):
    for order in [(2, 0, 1, 3), (3, 2, 1, 0), (0, 3, 1, 2)]:
        args = [a.transpose(order) for a in arguments(name, (4, 5, 6, 7), dtype, -1)]
        for reduction in ["none", "sum"]:
            assert_close(name, args, **with_axis(name, 1, reduction=reduction))
    upstream = random_logits((6, 5), dtype, seed=5) if not class_axis(name) else random_logits((6,), dtype)
    args = [a.T for a in arguments(name, (5, 6), dtype, 0)]
    assert_close(name, args, grad_output=upstream, reduction="none")


@pytest.mark.parametrize("name", NAMES)
def test_targets_of_other_dtypes(name):
    x, t = arguments(name, (8, 5), np.dtype(np.float64))
    for dtype in DTYPES:
        for other in DTYPES:
            a, b = x.astype(dtype), t.astype(other)
            rounds = name == "cross_entropy_probs" and dtype != np.float64  # others take float64 as it is
            seen = b.astype(dtype if dtype == other else np.float32 if rounds else np.float64)
            for reduction in ["none", "mean"]:
                assert_close(name, (a, seen), (a, b), f"{dtype} {other}", reduction=reduction)


def test_integer_and_bool_targets():
    probs = random_probabilities((6, 4), np.float64)
    labels = random_labels((6, 4), 2)
    for dtype in DTYPES:
        p = probs.astype(dtype)
        expected = xent.binary_cross_entropy_value_and_grad(p, labels.astype(dtype))
        for target in [labels, labels.astype(bool), labels.astype(np.uint8), labels.tolist()]:
            assert_same_bits(xent.binary_cross_entropy_value_and_grad(p, target), expected)
    assert xent.mse_loss([1, 2], [True, False]) == 2.0


@given(data=st.data())
def test_any_shape_and_options(data):
    name = data.draw(st.sampled_from(NAMES))
    dtype = np.dtype(data.draw(st.sampled_from(["f4", "f8"])))
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    reductions = REDUCTIONS if axis % len(shape) or not class_axis(name) else REDUCTIONS[:-1]
    args = arguments(name, shape, dtype, axis, kind=data.draw(st.sampled_from(["labels", "probabilities"])))
    assert_close(name, args, **with_axis(name, axis, reduction=data.draw(st.sampled_from(reductions))))


# Exact values -----------------------------------------------------------------------------------------------

HARD = [1e-300, 1e-45, 1e-38, 1e-20, 1e-7, 0.1, 0.3, 0.5, 0.6, 0.9, 1 - 2**-11, 1 - 2**-24, 1 - 2**-53, 1.0]


def hard_probabilities(dtype):
    p = np.array(HARD).astype(dtype)
    return p[p > 0]


def test_last_digits_of_binary_cross_entropy(dtype):
    p = hard_probabilities(dtype)
    for t in [0.0, 1.0, 0.25, 0.75]:
        target = np.full(p.shape, t, dtype)
        with mp.workprec(2400):
            values, slopes = [], []
            for v in p:
                v = mp.mpf(float(v))
                q = 1 - v
                logs = (t * mp.log(v) if t else 0) + ((1 - t) * (mp.log(q) if q else -mp.inf) if t < 1 else 0)
                values.append(-logs)
                slope = (-t / v if t else mp.mpf(0)) + (((1 - t) / q if q else mp.inf) if t < 1 else 0)
                slopes.append(slope)
            expected, grads = exact(values, p.shape), exact(slopes, p.shape)
        loss, grad = xent.binary_cross_entropy_value_and_grad(p, target, reduction="none")
        assert_ulp(loss, expected, bound("loss", dtype), dtype=dtype, what=f"t = {t}")
        with np.errstate(over="ignore"):
            fits = np.isfinite(grads[0].astype(dtype))
        assert_ulp(grad[fits], (grads[0][fits], grads[1][fits]), bound("gradient", dtype), dtype=dtype)
        if t in (0, 1):  # a vector of labels alone, and one beside other targets
            mixed = np.append(p, dtype.type(0.5))
            other = xent.binary_cross_entropy(mixed, np.append(target, dtype.type(0.5)), reduction="none")
            assert_ulp(other[:-1], expected, bound("loss", dtype), dtype=dtype)


def test_last_digits_of_cross_entropy_and_entropy(dtype):
    p = hard_probabilities(dtype)
    rows = np.stack([p, p[::-1]], 1)
    with mp.workprec(2400):
        logs = [[mp.log(mp.mpf(float(v))) for v in row] for row in rows]
        entropies = [-sum(mp.mpf(float(v)) * w for v, w in zip(r, g, strict=True)) for r, g in zip(rows, logs, strict=True)]  # fmt: skip  # noqa: E501
        firsts = [-g[0] for g in logs]
        expected, of_first = exact(entropies, (len(p),)), exact(firsts, (len(p),))
    assert_ulp(xent.entropy(rows), expected, bound("loss", dtype), dtype=dtype)
    for target in [np.zeros(len(p), int), np.tile(np.array([1, 0], dtype), (len(p), 1))]:
        loss = xent.cross_entropy_probs(rows, target, reduction="none")
        assert_ulp(loss, of_first, bound("loss", dtype), dtype=dtype)


def exact_distillation(student, teacher, temperature=1.0):
    """Losses and gradients of rows."""
    losses, grads = [], []
    for s, t in zip(student, teacher, strict=True):
        p, q, n = ExactRow(s, temperature), ExactRow(t, temperature), range(len(s))
        with mp.workprec(200):
            heat = mp.mpf(temperature)
            gaps = [heat * (p.probability(c) - q.probability(c)) for c in n]
            logs = [q.log_probability(c) - p.log_probability(c) if q.probability(c) else mp.mpf(0) for c in n]
            losses.append(heat**2 * mp.fsum(q.probability(c) * logs[c] for c in n))
            grads += gaps
    return exact(losses, (len(losses),)), exact(grads, student.shape)


@pytest.mark.parametrize("distance", [3.0, 0.3, 1e-2, 1e-4, 1e-7])
@pytest.mark.parametrize("classes", [3, 10, 100, 700])
def test_nearly_equal_students(distance, classes, dtype):
    teacher = random_logits((5, classes), dtype)
    student = teacher + (distance * random_logits((5, classes), dtype, seed=1, scale=1.0)).astype(dtype)
    expected, grads = exact_distillation(student, teacher)
    for axis in [-1, 0]:
        args = [student, teacher] if axis else [np.ascontiguousarray(a.T) for a in (student, teacher)]
        loss, grad = xent.distillation_loss_value_and_grad(*args, axis=axis, reduction="none")
        what = f"axis {axis}"
        assert_ulp(loss, expected, bound("distillation", dtype, classes), dtype=dtype, what=what)
        grad = grad if axis else grad.T
        # d is the difference of the logits less that of their log-sum-exps, which may cancel; of an error of
        # eps in the latter, what its correction cannot see is left
        s, t, eps = wide(student), wide(teacher), float(finfo(dtype).eps)
        tops = t.max(-1, keepdims=True) - s.max(-1, keepdims=True)
        sums = (reference("logsumexp", t) - reference("logsumexp", s))[:, None]
        terms = np.abs(t - s - tops) + np.abs(sums - tops) + eps
        scale = np.abs(grads[0]) + reference("softmax", t, -1) * np.minimum(terms, 1)
        assert_ulp(grad, grads, bound("distillation", dtype), dtype=dtype, scale=scale, what=what)


@pytest.mark.parametrize("temperature", [0.1, 0.7, 3.0, 20.0, 1e4])
@pytest.mark.parametrize("classes, distance", [(3, 1e-2), (3, 3.0), (40, 1e-4), (40, 1.0), (300, 0.1)])
def test_quotients_are_not_rounded(classes, distance, temperature, dtype):
    """Logits of 30 and more at a temperature that is no power of two: differences are taken first."""
    size = max(10.0, 10.0 * temperature)
    teacher = random_logits((6, classes), dtype, scale=size)
    teacher[:2] += dtype.type(16 * size)
    noise = random_logits((6, classes), dtype, seed=1, scale=1.0)
    student = teacher + (distance * temperature * noise).astype(dtype)
    expected, grads = exact_distillation(student, teacher, temperature)
    options = {"temperature": temperature, "reduction": "none"}
    for axis in [-1, 0]:
        args = [student, teacher] if axis else [np.ascontiguousarray(a.T) for a in (student, teacher)]
        loss, grad = xent.distillation_loss_value_and_grad(*args, axis=axis, **options)
        what = f"axis {axis}"
        assert_ulp(loss, expected, bound("distillation", dtype, classes), dtype=dtype, what=what)
        s, t = (wide(a) / temperature for a in (student, teacher))
        tops = t.max(-1, keepdims=True) - s.max(-1, keepdims=True)
        sums = (reference("logsumexp", t) - reference("logsumexp", s))[:, None]
        terms = np.abs(t - s - tops) + np.abs(sums - tops) + float(finfo(dtype).eps)
        scale = np.abs(grads[0]) + temperature * reference("softmax", t, -1) * np.minimum(terms, 1)
        limit = bound("distillation", dtype)
        assert_ulp(grad if axis else grad.T, grads, limit, dtype=dtype, scale=scale, what=what)
        kl = xent.compare(args[1], args[0], axis=axis, temperature=temperature).kl_values
        of_kl = tuple(part / temperature**2 for part in expected)
        assert_ulp(kl, of_kl, bound("comparison", dtype, classes), dtype=dtype, what=f"compare {what}")


def test_equal_students(dtype):
    logits = random_logits((9, 50), dtype)
    for x in [logits, logits[:, :4], 1e6 * logits]:
        for temperature in (0.3, 7.0):
            loss = xent.distillation_loss(x, x.copy(), temperature=temperature, reduction="none")
            assert not loss.any()
            assert xent.compare(x, x.copy(), temperature=temperature).kl == 0
        loss, grad = xent.distillation_loss_value_and_grad(x, x.copy(), reduction="none")
        assert not loss.any()
        assert not grad.any()
        shifted = xent.distillation_loss(x, x + dtype.type(64), reduction="none")
        assert (shifted >= 0).all()


def test_large_offsets(dtype):
    student = np.array([[1e6, 1e6 - 1, 1e6 - 30], [-1e6, -1e6 - 2, -1e6]], dtype)
    teacher = np.array([[0, -2, -1], [1e6, 1e6 - 2, 1e6 - 0.5]], dtype)
    expected, grads = exact_distillation(student, teacher)
    loss, grad = xent.distillation_loss_value_and_grad(student, teacher, reduction="none")
    assert_ulp(loss, expected, bound("distillation", dtype), dtype=dtype)
    assert_ulp(grad, grads, bound("distillation", dtype), dtype=dtype)


def test_scipy_agrees(rng):
    p, q = rng.random((2, 30, 8))
    p[:, 0] = 0
    q[:, 1] = 0
    with np.errstate(divide="ignore"):
        log_q, log_p = np.log(q), np.log(p)
    entropies = special.entr(p).sum(-1)
    assert np.allclose(xent.entropy(p), entropies, rtol=1e-14)
    divergences = special.rel_entr(p, q)
    divergences[:, 1] = INF
    assert np.allclose(xent.kl_div(log_q[:, 2:], p[:, 2:], reduction="none"), divergences[:, 2:].sum(-1))
    assert np.all(xent.kl_div(log_q, p, reduction="none") == INF)
    assert np.allclose(xent.kl_div(log_p, log_p, log_target=True, reduction="none"), 0)
    crosses = -special.xlogy(q[:, 1:], p[:, 1:]).sum(-1)
    assert np.allclose(xent.cross_entropy_probs(p[:, 1:], q[:, 1:], reduction="none"), crosses, rtol=1e-14)
    both = -special.xlogy(q, p) - special.xlog1py(1 - q, -p)
    assert np.allclose(xent.binary_cross_entropy(p, q, reduction="none"), both, rtol=1e-14)


# Special values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_log_zero(dtype):
    p = np.array([[0, 1, 0], [1, 0, 0], [0.5, 0.5, 0]], dtype)
    assert np.array_equal(xent.entropy(p, base=2), [0, 0, 1])
    assert np.array_equal(xent.cross_entropy_probs(p, p, base=2, reduction="none"), [0, 0, 1])
    grad = xent.cross_entropy_probs_grad(p, p, reduction="sum")
    assert np.array_equal(wide(grad), -(wide(p) > 0).astype(float))
    log_p = np.full(p.shape, -INF).astype(dtype)
    log_p[p > 0] = 0
    divergence = xent.kl_div(log_p, np.array([[0, 1, 0], [0, 1, 0], [1, 0, 0]], dtype), reduction="none")
    assert np.array_equal(divergence, [0, INF, 0])
    logs = xent.kl_div(log_p[:2], log_p[:2], log_target=True, reduction="none")
    assert np.array_equal(logs, [0, 0])
    loss, grad = xent.binary_cross_entropy_value_and_grad(p, p == 1, reduction="none")
    assert np.array_equal(loss[:2], np.zeros((2, 3)))
    assert np.array_equal(wide(grad[:2]), np.where(wide(p[:2]) == 1, -1.0, 1.0))


@pytest.mark.parametrize("name", NAMES)
def test_nan_spoils_its_own_position_only(name, dtype):
    shape = (37, 9)
    for index in range(1 if name == "binary_cross_entropy" else 2):
        args = list(arguments(name, shape, dtype))
        clean = getattr(xent, f"{name}_value_and_grad")(*args, reduction="none")
        args[index] = args[index].copy()
        args[index][5, 3] = NAN
        loss, grad = getattr(xent, f"{name}_value_and_grad")(*args, reduction="none")
        spoiled = np.zeros(loss.shape, bool)
        spoiled[(5,) if class_axis(name) else (5, 3)] = True
        assert np.array_equal(np.isnan(loss), spoiled)
        assert np.array_equal(loss[~spoiled], clean[0][~spoiled])
        others = np.arange(37) != 5
        assert np.array_equal(grad[others], clean[1][others])
        assert np.isnan(getattr(xent, name)(*args))
        for lone in [args, [a[5:6] for a in args]]:
            assert np.isnan(getattr(xent, name)(*lone, reduction="sum"))


def test_numbers_that_are_no_probabilities(dtype):
    p = np.array([[0.5, 0.5], [-0.5, 0.5], [NAN, 0.5]], dtype)
    expected = [False, True, True]
    assert np.array_equal(np.isnan(xent.entropy(p)), expected)
    assert np.array_equal(np.isnan(xent.cross_entropy_probs(p, [0, 0, 0], reduction="none")), expected)
    assert np.array_equal(np.isnan(xent.cross_entropy_probs(p, np.ones_like(p), reduction="none")), expected)
    assert np.array_equal(
        np.isnan(xent.binary_cross_entropy(p, np.ones_like(p), reduction="none")[:, 0]), expected
    )
    assert np.isnan(xent.binary_cross_entropy(dtype.type(1.5), 0))


def test_infinite_losses(dtype):
    p = np.array([[0, 1], [1, 0]], dtype)
    loss, grad = xent.cross_entropy_probs_value_and_grad(p, [0, 0], reduction="none")
    assert np.array_equal(loss, [INF, 0])
    assert np.array_equal(grad, [[-INF, 0], [-1, 0]])
    assert np.array_equal(xent.cross_entropy_probs(p, p[::-1], reduction="none"), [INF, INF])
    loss, grad = xent.binary_cross_entropy_value_and_grad(p[0], p[1], reduction="none")
    assert np.array_equal(loss, [INF, INF])
    assert np.array_equal(grad, [-INF, INF])
    loss, grad = xent.binary_cross_entropy_value_and_grad(p[0], p[1], weight=[0, 0], reduction="none")
    assert not loss.any()
    assert not grad.any()


def test_clip_next_to_one(dtype):
    # 1 - 1e-10 is 1 in float32
    p, t = np.array([0, 1, 0, 1], dtype), np.array([0, 1, 1, 0], dtype)
    loss, grad = xent.binary_cross_entropy_value_and_grad(p, t, clip=1e-10, reduction="none")
    expected = np.array([-np.log1p(-1e-10)] * 2 + [-np.log(1e-10)] * 2)
    assert_ulp(loss, expected, 1, dtype=dtype)
    assert not grad.any()
    loss = xent.cross_entropy_probs(p[:2], 0, clip=1e-60)
    assert_ulp(np.asarray(loss), np.asarray(-np.log(1e-60)), 1, dtype=dtype)


def test_masked_logits(dtype):
    student = np.array([[1, -INF, 2], [1, -INF, 2], [1, 0, 2], [-INF] * 3, [INF, 0, 0]], dtype)
    teacher = np.array([[1, -INF, 3], [1, 0, 3], [1, -INF, 3], [1, 2, 3], [1, 2, 3]], dtype)
    loss, grad = xent.distillation_loss_value_and_grad(student, teacher, reduction="none")
    expected, grads = exact_distillation(student[[0, 2]], teacher[[0, 2]])
    assert_ulp(loss[[0, 2]], expected, 4, dtype=dtype)
    assert_ulp(grad[[0, 2]], grads, bound("distillation", dtype), dtype=dtype)
    assert loss[1] == INF
    assert np.isfinite(grad[1]).all()
    assert np.isnan(loss[3:]).all()


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_no_element_depends_on_its_neighbours(dtype, rng):
    numbers = np.array([0.0, -0.0, 1.0, 0.3, -0.2, 1.5, 1e-30, INF, -INF, NAN], dtype)
    p, t = (part.ravel() for part in np.meshgrid(numbers, np.array([0, 1, 0.4], dtype)))
    order = rng.permutation(p.size)
    for clip in (None, 0.01):
        whole = xent.binary_cross_entropy(p[order], t[order], clip=clip, reduction="none")
        grad = xent.binary_cross_entropy_grad(p[order], t[order], clip=clip, reduction="sum")
        for k, i in enumerate(order):
            one = xent.binary_cross_entropy(p[i : i + 1], t[i : i + 1], clip=clip, reduction="none")
            np.testing.assert_array_equal(one, whole[k : k + 1])
            one = xent.binary_cross_entropy_grad(p[i : i + 1], t[i : i + 1], clip=clip, reduction="sum")
            np.testing.assert_array_equal(one, grad[k : k + 1])


@pytest.mark.parametrize("size", [1e-23, 1e-30, 3e-20])
def test_products_smaller_than_any_float_are_added_up(size):
    x, zeros = np.full((3, 50_000), size, np.float32), np.zeros((3, 50_000), np.float32)
    ulps = {"bound": bound("loss", x.dtype), "dtype": x.dtype}
    assert_ulp(xent.mse_loss(x, zeros, reduction="sum"), (x.astype(np.float64) ** 2).sum(), **ulps)
    p = np.full((3, 1000), np.float32(0.3))
    exact_losses = -(x[:, :1000].astype(np.float64) * np.log(p.astype(np.float64))).sum(-1)
    losses = xent.cross_entropy_probs(p, x[:, :1000], reduction="none")
    assert_ulp(losses, exact_losses, **ulps)


def test_squares_that_overflow_alone():
    x = np.zeros(10**4, np.float32)
    x[7] = 1e20
    assert np.isclose(xent.mse_loss(x, np.zeros_like(x)), 1e36)
    assert xent.mse_loss(x, np.zeros_like(x), reduction="sum") == INF


@pytest.mark.parametrize("axis", [0, 1])
def test_means_of_log_targets_with_one_loss_that_overflows(axis):
    dtype, log_target, x = "float32", 80, -3e4
    shape = (1000, 70) if axis else (70, 1000)
    log_probs, target = np.zeros(shape, dtype), np.full(shape, -5, dtype)
    log_probs[3, 7], target[3, 7] = x, log_target
    loss, grad = xent.kl_div_value_and_grad(log_probs, target, axis=axis, log_target=True)
    with mp.workprec(200):
        odd = mp.exp(log_target) * (log_target - mp.mpf(float(log_probs[3, 7]))) / 1000
        slope = -mp.exp(log_target) / 1000
    assert np.isfinite(loss)
    np.testing.assert_allclose(float(loss), float(odd), rtol=4 * np.finfo(dtype).eps)
    np.testing.assert_allclose(float(grad[3, 7]), float(slope), rtol=4 * np.finfo(dtype).eps)
    with np.errstate(over="ignore"):
        losses = xent.kl_div(log_probs, target, axis=axis, log_target=True, reduction="none")
    assert np.isposinf(losses).sum() == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(0, 4), (3, 0, 4), (0,)])
def test_nothing(name, shape, dtype):
    empty = np.zeros(shape, dtype)
    axis = len(shape) - 1
    if class_axis(name) and shape == (0,):
        return
    for reduction in REDUCTIONS:
        if reduction == "mean_batch" and class_axis(name) and axis == 0:
            continue
        options = with_axis(name, axis, reduction=reduction)
        loss, grad = getattr(xent, f"{name}_value_and_grad")(empty, empty, **options)
        assert grad.shape == shape
        if reduction == "none":
            assert loss.size == 0
        else:
            assert loss == 0
            assert loss.dtype == dtype
    assert xent.entropy(empty).shape == shape[:-1]


def test_no_classes(dtype):
    empty = np.zeros((3, 0), dtype)
    assert np.array_equal(xent.entropy(empty), np.zeros(3))
    assert np.array_equal(xent.kl_div(empty, empty, reduction="none"), np.zeros(3))
    assert xent.mse_loss(empty, empty) == 0
    for name in ["cross_entropy_probs", "distillation_loss"]:
        with raises(ValueError, "at least one class"):
            getattr(xent, name)(empty, empty)


def test_scalars():
    assert isinstance(xent.mse_loss(1.0, 2.0, reduction="none"), np.float64)
    assert isinstance(xent.binary_cross_entropy(np.float32(0.5), 1), np.float32)
    assert isinstance(xent.entropy(np.float32([0.5, 0.5])), np.float32)
    assert isinstance(xent.kl_div([-1.0, -1.0], [0.5, 0.5]), np.float64)
    assert xent.mse_loss_grad(3.0, 1.0).shape == ()


# Gradients --------------------------------------------------------------------------------------------------

OPTIONS = {
    "cross_entropy_probs": [{}, {"clip": 0.3}, {"base": 3}],
    "binary_cross_entropy": [{}, {"clip": 0.2, "base": 2}, {"weight": np.arange(1.0, 4.0)}],
    "kl_div": [{}, {"log_target": True, "base": 2}],
    "distillation_loss": [{}, {"temperature": 3.0}],
    "mse_loss": [{}],
}


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_derivative(name, reduction, rng):
    x, t = rng.uniform(0.1, 0.9, (2, 4, 5, 3))
    for options in OPTIONS[name]:
        options = with_axis(name, 1, reduction=reduction, **options)
        shape = () if reduction != "none" else (4, 3) if class_axis(name) else (4, 5, 3)
        upstream = rng.standard_normal(shape)
        expected = differences(
            lambda v, o=options, u=upstream: np.sum(u * reference(name, v, t, **o)), x, step=1e-6
        )
        for module in [xent, xent.reference]:
            grad = getattr(module, f"{name}_grad")(x, t, grad_output=upstream, **options)
            assert np.allclose(grad, expected, rtol=0, atol=300 * DIFFERENCES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_out(name, dtype):
    for shape, axis in [((6, 5), -1), ((3, 5, 40), 1), ((2, 700), -1)]:
        args = arguments(name, shape, dtype, axis)
        for reduction in ["none", "mean"]:
            options = with_axis(name, axis, reduction=reduction)
            expected = getattr(xent, f"{name}_grad")(*args, **options)
            for part in ["_grad", "_value_and_grad"]:
                function = getattr(xent, f"{name}{part}")
                outs = [np.full(shape, 7, dtype), np.full(shape[::-1], 7, dtype).T, args[0].copy()]
                for k, out in enumerate(outs):
                    given = (out, args[1]) if k == 2 else args
                    result = function(*given, out=out, **options)
                    result = result[1] if part != "_grad" else result
                    assert result is out
                    assert_same_bits(result, np.asarray(expected), f"{part} {k}")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_out_in_place_beside_a_wide_target(name, dtype):
    x, t = arguments(name, (6, 5), np.dtype(np.float64))
    x = x.astype(dtype)
    expected = getattr(xent, f"{name}_grad")(x, t)
    result = getattr(xent, f"{name}_grad")(x, t, out=x)
    assert result is x
    assert_same_bits(x, expected)


# Errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_errors_come_before_effects(name):
    args = arguments(name, (6, 5), np.dtype(np.float64))
    out = np.full((6, 5), 7.0)
    function = getattr(xent, f"{name}_grad")
    target = "teacher_logits" if name == "distillation_loss" else "target"
    bad = [
        (ValueError, "reduction", {"reduction": "average"}),
        (TypeError, "reduction", {"reduction": None}),
        (ValueError, "grad_output", {"grad_output": np.ones(3)}),
    ]
    if name in ("cross_entropy_probs", "binary_cross_entropy"):
        bad += [(ValueError, "clip", {"clip": v}) for v in [0.0, 1.0, -1e-3, NAN]]
        bad += [(TypeError, "clip", {"clip": "small"})]
    if name not in ("mse_loss", "distillation_loss"):
        bad += [(ValueError, "base", {"base": v}) for v in [1, 0, -2, INF]]
    if name == "binary_cross_entropy":
        bad += [(ValueError, "weight", {"weight": np.ones(4)}), (TypeError, "weight", {"weight": ["a"]})]
        bad += [(ValueError, "clip", {"clip": 0.5})]
    if name == "kl_div":
        bad += [(TypeError, "log_target", {"log_target": 1})]
    if name == "distillation_loss":
        bad += [(ValueError, "temperature", {"temperature": v}) for v in [0.0, -1.0, INF, NAN]]
    if class_axis(name):
        bad += [(np.exceptions.AxisError, "axis", {"axis": 2}), (TypeError, "axis", {"axis": 0.0})]
        bad += [(ValueError, "mean_batch", {"axis": 0, "reduction": "mean_batch"})]
    for error, word, options in bad:
        with raises(error, word):
            function(*args, out=out, **options)
    with raises(TypeError if name == "cross_entropy_probs" else ValueError, target):
        function(args[0], args[1][:, :3], out=out)
    with raises(TypeError, target):
        function(args[0], args[1].astype(complex), out=out)
    assert (out == 7).all()
    for wrong in [np.zeros((5, 6)), np.zeros((6, 5), np.float32), np.zeros((6, 10))[:, ::2][:, :4]]:
        with raises(ValueError, "out"):
            function(*args, out=wrong)
    with raises(ValueError, "out", target):
        function(*args, out=args[1])
    memory = np.ones(31)
    with raises(ValueError, "overlaps"):
        function(memory[:30].reshape(6, 5), args[1], out=memory[1:].reshape(6, 5))


def test_bad_labels():
    probs = np.full((3, 4, 2), 0.25)
    labels = np.zeros((3, 2), int)
    for value in [4, -1, -100, 2**40]:
        labels[1, 1] = value
        with raises(ValueError, f"target[1, 1] is {value}", "0 <= label < 4"):
            xent.cross_entropy_probs(probs, labels, axis=1)
    with raises(ValueError, "target"):
        xent.cross_entropy_probs(probs, np.full((3, 2), 2**63, np.uint64), axis=1)
    with raises(TypeError, "target"):
        xent.cross_entropy_probs(probs, np.zeros((3, 2)), axis=1)
    with raises(ValueError, "mean_batch"):
        xent.mse_loss(1.0, 2.0, reduction="mean_batch")


# Threads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape, axis", [((60_001, 9), -1), ((7, 70_001), -1), ((3, 11, 130, 97), 1)])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_bits_for_any_number_of_threads(name, shape, axis, dtype):
    args = arguments(name, shape, dtype, axis)
    for reduction in ["none", "mean"]:
        options = with_axis(name, axis, reduction=reduction)
        with xent.num_threads(1):
            expected = getattr(xent, f"{name}_value_and_grad")(*args, **options)
        for n in [2, 3]:
            with xent.num_threads(n):
                result = getattr(xent, f"{name}_value_and_grad")(*args, **options)
                assert_same_bits(result, expected, f"{n} threads")


@pytest.mark.slow
@pytest.mark.parametrize("shape, axis", [((60_001, 9), -1), ((7, 70_001), -1), ((3, 11, 130, 97), 1)])
@pytest.mark.parametrize("name", NAMES)
def test_large_arrays(name, shape, axis, dtype, threads):
    args = arguments(name, shape, dtype, axis)
    for reduction in ["none", "mean"]:
        assert_close(name, args, **with_axis(name, axis, reduction=reduction))


# Targets that are no probabilities --------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["", "_grad", "_value_and_grad"])
@pytest.mark.parametrize("size", [1, 5, 17, 40_000])
def test_targets_of_binary_cross_entropy(size, part):
    function, place = getattr(xent, f"binary_cross_entropy{part}"), size - 1
    for dtype in DTYPES:
        p = np.full(size, 0.5, dtype)
        for bad in [255, 1.5, -0.25, 1 + 2.0**-7, NAN, INF]:
            target = np.ones(size, dtype)
            target[place] = bad
            with raises(ValueError, f"target[{place}] is {target[place]}", "between 0 and 1"):
                function(p, target)
        for mask in [np.uint8, np.int64]:
            target = np.zeros(size, mask)
            target[place] = 255
            with raises(ValueError, f"target[{place}] is 255", "0 or 1"):
                function(p, target)
        for good in [0.0, -0.0, 1.0, 0.5]:
            function(p, np.full(size, good, dtype))


def test_targets_of_binary_cross_entropy_are_checked_before_anything_is_written():
    for dtype in DTYPES:
        p, target = np.full((40, 1000), 0.5, dtype), np.ones((40, 1000), dtype)
        for good in [0.0, -0.0, 1.0, 0.5]:
            target[39, 998] = good
            xent.binary_cross_entropy_grad(p.copy(), target, out=np.empty_like(p))
        for bad in [1 + 2.0**-7, -1e-3, NAN]:
            target[39, 999] = bad
            for place, kept in [(p, target), (p.T, target.T), (p[:, ::-1], target[:, ::-1])]:
                before = place.copy()
                with raises(ValueError, "target[", "between 0 and 1"):
                    xent.binary_cross_entropy_value_and_grad(place, kept, out=place)
                np.testing.assert_array_equal(wide(place), wide(before))


# Weights of either sign -------------------------------------------------------------------------------------


def test_weights_of_either_sign_for_binary_cross_entropy(rng):
    for dtype in DTYPES:
        p, t = random_probabilities((40, 9), dtype), random_probabilities((40, 9), dtype, seed=1)
        weight = rng.normal(size=(40, 9)).astype(np.float32)
        weight[::3, 2] = 0
        parts = weight, np.maximum(weight, 0), np.maximum(-weight, 0)
        of = [xent.binary_cross_entropy_value_and_grad(p, t, weight=w, reduction="none") for w in parts]
        for result, plus, minus in zip(*of, strict=True):
            np.testing.assert_array_equal(wide(result), wide(plus) - wide(minus))
        losses = wide(of[0][0])
        total = xent.binary_cross_entropy(p, t, weight=weight, reduction="sum")
        assert_ulp(total, losses.sum(), 6, dtype=total.dtype, scale=np.abs(losses).sum())


def test_what_has_no_weight_is_not_there(rng):
    for dtype in DTYPES:
        p, y = random_probabilities((50, 3), dtype), random_labels((50, 3), 2)
        weight = np.where(np.arange(50) % 4 == 0, 0.0, -1.5)[:, None]
        p[::4] = 0.5
        clean = xent.binary_cross_entropy_value_and_grad(p, y, weight=weight)
        for bad in (NAN, INF, -INF, 0, 1):
            p[::4] = bad
            spoiled = xent.binary_cross_entropy_value_and_grad(p, y, weight=weight)
            for result, expected in zip(spoiled, clean, strict=True):
                np.testing.assert_array_equal(result, expected)


# Every element a position -----------------------------------------------------------------------------------


@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_kl_div_without_an_axis(reduction, log_target):
    for dtype in DTYPES:
        x, t = arguments("kl_div", (7, 33), dtype)
        t = np.log(np.maximum(wide(t), 1e-4)).astype(dtype) if log_target else np.maximum(t, dtype.type(1e-4))
        p = np.exp(wide(t)) if log_target else wide(t)
        size = p * (np.abs(np.log(p)) + np.abs(wide(x))) / np.log(2)
        options = {"axis": None, "log_target": log_target, "base": 2, "reduction": reduction}
        for data in (x, np.asfortranarray(x), x[::-1]):
            loss, grad = xent.kl_div_value_and_grad(data, t, **options)
            expected, slopes = reference("kl_div_value_and_grad", wide(data), wide(t), **options)
            assert loss.dtype == (np.float64 if dtype == np.float64 else np.float32)
            assert_ulp(
                loss,
                expected,
                8,
                dtype=loss.dtype,
                scale=size[::-1] + size if reduction == "none" else size.sum(),
            )
            ulps = 4 if dtype not in SIXTEEN else ROUNDED
            assert_ulp(grad, slopes, ulps, dtype=dtype, slack=2.0**-21 * np.abs(slopes))
        if reduction == "none":
            upstream = np.linspace(-1, 2, x.size).reshape(x.shape)
            got = xent.kl_div_grad(x, t, grad_output=upstream, **options)
            expected, tiny = -p / np.log(2) * upstream, float(finfo(dtype).smallest_subnormal)
            np.testing.assert_allclose(wide(got), expected, rtol=2 * float(finfo(dtype).eps), atol=tiny)


def test_kl_div_without_an_axis_is_scipys_relative_entropy():
    p, t = random_probabilities((5, 9), np.float64), random_probabilities((5, 9), np.float64, seed=1)
    t[0, 0] = 0
    each = xent.kl_div(np.log(p), t, axis=None, reduction="none")
    np.testing.assert_allclose(each, special.rel_entr(t, p), rtol=1e-12, atol=1e-15)
    assert xent.kl_div(np.log(p), t, axis=None) == pytest.approx(each.mean())
    assert xent.kl_div(-1.0, 0.5, axis=None) == 0.5 * (np.log(0.5) + 1)
    assert xent.kl_div(np.zeros((0, 3)), np.zeros((0, 3)), axis=None) == 0
    out = np.log(p)
    assert xent.kl_div_grad(out, t, axis=None, out=out) is out
    np.testing.assert_allclose(out, -t / t.size, rtol=1e-15)
    step = 1e-5
    up, down = (xent.kl_div(np.log(p) + s, t, axis=None, reduction="none") for s in (step, -step))
    np.testing.assert_allclose((up - down) / (2 * step), -t, atol=DIFFERENCES)


@pytest.mark.parametrize(
    "name", ["mse_loss", "binary_cross_entropy", "kl_div", "kl_div of elements", "distillation_loss"]
)
def test_a_target_that_a_smaller_dtype_would_round(name, dtype):
    """It is taken as it is, and results are rounded: x - t of a rounded t may have few digits."""
    name, _, elements = name.partition(" of ")
    options = {"axis": None} if elements else {}
    options |= {"weight": np.array([0.5, -1.0, 2.0, 0.25, 3.0])} if name == "binary_cross_entropy" else {}
    x = random_probabilities((7, 5), dtype, -1, 0)
    target = np.clip(wide(x) * (1 + 2.0**-30), 0.0, 1.0)
    assert dtype == np.float64 or (target.astype(np.float32) != target).any()
    for reduction in ["mean", "sum", "none", "mean_batch"]:
        for order in ["C", "F"]:
            args = np.asarray(x, order=order), np.asarray(target, order=order)
            exact = getattr(xent, f"{name}_value_and_grad")(wide(x), target, reduction=reduction, **options)
            result = getattr(xent, f"{name}_value_and_grad")(*args, reduction=reduction, **options)
            loss = np.asarray(exact[0]).astype(np.asarray(result[0]).dtype)
            np.testing.assert_array_equal(result[0], loss)
            np.testing.assert_array_equal(wide(result[1]), wide(exact[1].astype(dtype)))
            np.testing.assert_array_equal(getattr(xent, name)(*args, reduction=reduction, **options), loss)
    with xent.num_threads(2):
        out = np.empty_like(x)
        assert getattr(xent, f"{name}_grad")(x, target, out=out, **options) is out
    kept = target.astype(np.float32).astype(np.float64)  # of which float32 loses nothing
    results = [getattr(xent, name)(x, t, **options) for t in (kept, kept.astype(np.float32))]
    assert dtype == np.float64 or results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("base", [10, 1000, 1e-3])
@pytest.mark.parametrize("axis", [-1, 0])
def test_divergences_that_fit_in_their_unit_are_finite(axis, base, log_target):
    """In nats they leave float64: in one term, in the sum of several, or between terms that cancel."""
    far = 1.5e308
    x = np.array([[-far, -1, -1], [-far / 4, -far / 4, -far], [-far, far, -3]])
    t = np.array([[1.5, 0.5, 0.25], [1, 1, 0.75], [1.5, 1.5, 0.25]])
    log_t = np.log(t)
    t = np.exp(log_t)
    terms = [[Fraction(float(v)) for v in row] for row in (t * 2.0**-600 * (log_t - x))]
    expected = [float(sum(row) / Fraction(np.log(base)) * 2**600) for row in terms]
    given, target = (a if axis == -1 else np.ascontiguousarray(a.T) for a in (x, log_t if log_target else t))
    options = {"axis": axis, "log_target": log_target, "base": base, "reduction": "none"}
    for losses in (
        xent.kl_div(given, target, **options),
        xent.kl_div_value_and_grad(given, target, **options)[0],
    ):
        np.testing.assert_allclose(losses[:2], expected[:2], rtol=1e-15)
        assert np.isfinite(losses[2])


@pytest.mark.parametrize("base", [10, 1000, 1e-3])
@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_elements_that_fit_in_their_unit_are_finite(dtype, log_target, base):
    """In nats they leave the range of floats."""
    t = np.repeat(np.array([9e36, 2e36, 1e36, 0.5, 3e38]), 13)
    x = np.repeat(np.array([-1.2, -2, 3, -1, -80]), 13).astype(dtype)
    target = (np.log(t) if log_target else t).astype(dtype)
    how = {"axis": None, "log_target": log_target, "base": base, "reduction": "none"}
    with np.errstate(over="ignore"):
        exact = xent.kl_div(x.astype("f8"), target.astype("f8"), **how).astype(np.float32)
    assert np.isfinite(exact[:52]).all()
    for losses in (xent.kl_div(x, target, **how), xent.kl_div_value_and_grad(x, target, **how)[0]):
        np.testing.assert_allclose(losses, exact, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_elements_that_floats_lose_are_made_in_doubles(dtype):
    """Targets whose exponentials are subnormal, beside each other: as float64 has them, rounded once."""
    rng = np.random.default_rng(6)
    for size in [5, 64, 65, 500, 3000]:
        log_t = np.where(rng.random(size) < 0.6, rng.uniform(-310, -70, size), -1.0).astype(dtype)
        x = -rng.gamma(3.0, 5.0, size).astype(dtype)
        how = {"axis": None, "log_target": True, "reduction": "none"}
        loss, grad = xent.kl_div_value_and_grad(x, log_t, **how)
        wide_loss, wide_grad = xent.kl_div_value_and_grad(x.astype("f8"), log_t.astype("f8"), **how)
        np.testing.assert_array_max_ulp(loss, wide_loss.astype("f4"), 2)
        np.testing.assert_array_max_ulp(grad, wide_grad.astype(dtype), 2)
