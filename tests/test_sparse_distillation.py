"""Distillation from the k largest probabilities of a teacher, against mpmath and the reference."""

import itertools

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
    raises,
    random_logits,
    reference,
    wide,
)
from mpmath import mp
from tolerances import DIFFERENCES, EPS64, ROUNDED, bound, sparse_distillation

import xent

INF, NAN = np.inf, np.nan
NAME = "sparse_distillation_loss"
DTYPES = [np.dtype(np.float32), np.dtype(np.float64)]
SIXTEEN = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
TAILS = ["bucket", "renormalize", "drop"]
REDUCTIONS = ["none", "sum", "mean", "mean_valid", "mean_full", "mean_batch"]


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


def teacher_of(logits, k, dtype, seed=0):
    """(ids, log-probabilities) of the k largest of float64 logits, in any order."""
    ids = np.argsort(-logits, axis=-1)[..., :k]
    ids = np.random.default_rng(seed).permuted(ids, axis=-1)
    return ids, np.take_along_axis(reference("log_softmax", logits), ids, -1).astype(dtype)


def case(shape, k, dtype, distance=1.0, seed=0, temperature=1.0):
    """(student, ids, log-probabilities) at some distance from a teacher."""
    logits = random_logits(shape, np.float64, seed)
    student = (logits + distance * random_logits(shape, np.float64, seed + 1, scale=1.0)).astype(dtype)
    return student, *teacher_of(logits / temperature, k, dtype if dtype in DTYPES else np.float32, seed)


# Exact answers ----------------------------------------------------------------------------------------------


def exact_position(x, ids, log_q, temperature, tail):
    """Loss, gradient, size of its terms, the tail's mass, what the teacher leaves of 1, and W, in mpmath."""
    numbers = [mp.mpf(float(v)) / mp.mpf(float(temperature)) for v in x]
    others = sorted(set(range(len(x))) - {int(i) for i in ids})
    seen = range(len(x)) if tail != "renormalize" else [int(i) for i in ids]
    top = max(numbers[c] for c in seen)
    e = {c: mp.exp(numbers[c] - top) for c in seen}
    total = mp.fsum(e.values())
    q, p = [mp.exp(mp.mpf(float(v))) for v in log_q], [e[int(i)] / total for i in ids]
    mass, left, of_tail = mp.fsum(q), mp.mpf(0), mp.mpf(0)
    if tail == "renormalize":
        q = [v / mass for v in q]
    else:
        of_tail = mp.fsum(e[c] for c in others) / total
    if tail == "bucket" and others:
        left = max(mp.mpf(0), 1 - mass)
    entries = [*zip(q, p, strict=True), (left, of_tail)]
    loss = mp.fsum(a * (mp.log(a) - mp.log(b)) if b else mp.inf for a, b in entries if a)
    weight = mp.mpf(1) if tail == "renormalize" else mass + left
    grad, size = [mp.mpf(0)] * len(x), [mp.mpf(0)] * len(x)
    for i, a, b in zip(ids, q, p, strict=True):
        grad[i], size[i] = (weight * b - a) / temperature, (weight * b + a) / temperature
    for c in others if of_tail else ():
        share = e[c] / total / of_tail / temperature
        grad[c], size[c] = (weight * of_tail - left) * share, (weight * of_tail + left) * share
    return loss, grad, size, of_tail, left, weight


def assert_exact(student, ids, log_probs, what="", **options):
    """Assert losses and gradients of rows against mpmath."""
    tail, temperature = options.get("tail", "bucket"), options.get("temperature", 1.0)
    single = np.dtype(np.float64 if student.dtype == np.float64 else np.float32)
    with mp.workprec(300):
        rows = [
            exact_position(wide(x), some, log_q, temperature, tail)
            for x, some, log_q in zip(student, ids, log_probs, strict=True)
        ]
        losses = exact([r[0] for r in rows], (len(rows),))
        grads = exact([g for r in rows for g in r[1]], student.shape)
        sizes = exact([g for r in rows for g in r[2]], student.shape)[0]
        of_tail, left, mass = (np.array([float(r[k]) for r in rows]) for k in (3, 4, 5))
    loss, grad = getattr(xent, f"{NAME}_value_and_grad")(student, ids, log_probs, reduction="none", **options)
    what = f"{what} {tail} T={temperature}"
    scale, slack = sparse_distillation(losses[0], of_tail, left, None if tail == "renormalize" else mass)
    limit = bound("sparse_distillation", single)
    assert_ulp(loss, losses, limit, dtype=single, scale=scale, slack=slack, what=what)
    if student.dtype in DTYPES:
        assert_ulp(grad, grads, limit, dtype=single, scale=sizes, what=f"gradient {what}")
    else:
        slack = limit * float(finfo(np.float32).eps) * sizes
        assert_ulp(grad, grads, ROUNDED, dtype=student.dtype, slack=slack, what=f"gradient {what}")
    assert_same_bits(getattr(xent, NAME)(student, ids, log_probs, reduction="none", **options), loss)
    assert_same_bits(
        getattr(xent, f"{NAME}_grad")(student, ids, log_probs, reduction="none", **options), grad
    )


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("distance", [3.0, 1e-2, 1e-6])
@pytest.mark.parametrize("classes, k", [(2, 1), (9, 9), (40, 5), (300, 40)])
def test_exact(classes, k, distance, temperature, dtype):
    given = case((3, classes), k, dtype, distance, temperature=temperature)
    for tail in TAILS:
        assert_exact(*given, tail=tail, temperature=temperature)


@pytest.mark.parametrize("kind", SIXTEEN, ids=str)
def test_exact_of_sixteen_bits(kind):
    for classes, k in [(7, 3), (300, 20)]:
        given = case((3, classes), k, kind)
        for tail, temperature in itertools.product(TAILS, [1.0, 3.0]):
            assert_exact(*given, tail=tail, temperature=temperature)


def test_renormalized_students_that_are_nearly_the_teacher(dtype):
    """Within an ulp of the loss itself, however small it is."""
    for distance, k in itertools.product([1e-3, 1e-5, 1e-7], [50, 7]):
        assert_exact(*case((4, 50), k, dtype, distance), tail="renormalize")


LOG = np.log
HARD = {
    "no mass elsewhere": ([0, -200, -200.5], [0], LOG([0.5])),
    "next to no mass elsewhere": ([0, -90, -92.5], [0], LOG([0.5])),
    "the tail alone": ([-200, 0, 3], [0], LOG([0.5])),
    "far logits": ([1e6, 1e6 - 1, 1e6 - 2, 1e6 - 3], [1, 0], LOG([0.3, 0.5])),
    "far below": ([-1e4, -1e4 - 300, -1e4 - 302, -1e4 - 303], [1, 0], LOG([0.3, 0.5])),
    "one hot": ([1, 2, 3, 4], [3], [0.0]),
    "one hot, and no mass": ([1, 2, 3, 4], [3, 1], [0.0, -INF]),
    "nothing": ([1, 2, 3, 4], [3, 2], [-INF, -INF]),
    "tiny": ([5, 2, 3, 3], [1, 0], [-100.0, -101.0]),
    "nearly all": ([5, 2, 3, 3], [1, 0], [LOG(1e-7), -1.1e-7]),
    "a little more than all": ([5, 2, 3, 3], [1, 0], LOG([0.25, 0.7501])),
    "masked for both": ([1, 2, -INF, 4], [3, 2], [-0.1, -INF]),
    "masked elsewhere": ([1, 2, -INF, 4], [3, 0], [-0.3, -4]),
    "masked for the student": ([1, 2, -INF, 4], [3, 2], [-0.2, -3]),
    "ties": ([5, 5, 5, 5], [2, 0], LOG([0.3, 0.3])),
    "one class": ([5.0], [0], [0.0]),
}


@pytest.mark.parametrize("name", HARD)
def test_hard_positions(name, dtype):
    x, ids, log_probs = HARD[name]
    given = np.array([x], dtype), np.array([ids]), np.array([log_probs], dtype)
    for tail, temperature in itertools.product(TAILS, [1.0, 0.5, 3.0]):
        if name == "nothing" and tail == "renormalize":
            assert np.isnan(xent.sparse_distillation_loss(*given, tail=tail))
        else:
            assert_exact(*given, tail=tail, temperature=temperature, what=name)


def test_long_tails_of_next_to_no_mass(dtype):
    """Several blocks of classes, some of the k in each, and a tail that its exponentials cannot tell."""
    far = 300 if dtype == np.float32 else 1000
    student = random_logits((1, 2500), dtype, scale=2.0)
    ids = np.random.default_rng(0).permuted(np.arange(0, 2500, 45)[None], axis=-1)
    np.put_along_axis(student, ids, np.take_along_axis(student, ids, -1) + dtype.type(far), -1)
    log_probs = np.full(ids.shape, np.log(0.9 / ids.shape[1]), dtype)
    for temperature in [1.0, 0.75]:
        assert_exact(student, ids, log_probs, temperature=temperature)


def test_extreme_temperatures(dtype):
    x, ids, log_probs = np.array([[1, 2, 3, 4.0]], dtype), np.array([[1, 3]]), np.log([[0.3, 0.5]])
    for tail, temperature in itertools.product(TAILS, [1e-30, 1e-3, 1e30]):
        assert_exact(x, ids, log_probs.astype(dtype), tail=tail, temperature=temperature)
    largest = dtype.type(finfo(dtype).max / 2)
    assert_exact(np.array([[1, -1, 0, 0.5]], dtype) * largest, ids, log_probs, temperature=float(largest))


def test_nan_and_infinity(dtype):
    log_probs = np.array([[-0.2, -3]] * 4, dtype)
    student = np.array([[1, 2, NAN, 4], [INF, 1, 2, 3], [-INF] * 4, [1, 2, 3, 4]], dtype)
    for tail in ["bucket", "drop"]:
        loss, grad = xent.sparse_distillation_loss_value_and_grad(
            student, [[0, 1]] * 4, log_probs, tail=tail, reduction="none"
        )
        assert np.isnan(loss[:3]).all()
        assert np.isnan(grad[:3]).all()
        assert np.isfinite(loss[3])
        assert np.isfinite(grad[3]).all()
    loss, grad = xent.sparse_distillation_loss_value_and_grad(
        student, [[0, 1]] * 4, log_probs, tail="renormalize", reduction="none"
    )
    assert np.isnan(loss).tolist() == [False, True, True, False]
    assert (grad[:, 2:] == 0).all()
    log_probs[0, 0] = NAN
    assert np.isnan(xent.sparse_distillation_loss(student[3:], [[0, 1]], log_probs[:1], tail="drop"))


# Meaning ----------------------------------------------------------------------------------------------------


def test_all_classes_make_the_distillation_loss(dtype):
    student, teacher = random_logits((6, 30), dtype), random_logits((6, 30), dtype, seed=1)
    for temperature in [1.0, 2.0]:
        ids, log_probs = teacher_of(wide(teacher) / temperature, 30, np.float64)
        loss, grad = xent.distillation_loss_value_and_grad(student, teacher, temperature=temperature)
        for tail in TAILS:
            sparse = xent.sparse_distillation_loss_value_and_grad(
                student, ids, log_probs, temperature=temperature, tail=tail
            )
            eps = 30 * float(finfo(dtype).eps)
            assert np.allclose(sparse[0] * temperature**2, loss, rtol=eps)
            assert np.allclose(sparse[1] * temperature**2, grad, rtol=eps, atol=eps / 10)


def test_renormalizing_takes_logits():
    student, logits = random_logits((5, 40), np.float32), random_logits((5, 40), np.float64, seed=1)
    ids, log_probs = teacher_of(logits, 8, np.float64)
    for shift in [0, 30, 5000, -5000]:
        loss = xent.sparse_distillation_loss(student, ids, log_probs + shift, tail="renormalize")
        expected = xent.sparse_distillation_loss(student, ids, log_probs, tail="renormalize")
        assert np.allclose(loss, expected, rtol=1e-6)


def test_the_order_of_the_classes_says_nothing(dtype):
    student, ids, log_probs = case((4, 5000), 300, dtype)
    order = np.random.default_rng(1).permutation(300)
    for tail in TAILS:
        one = xent.sparse_distillation_loss_grad(student, ids, log_probs, tail=tail)
        other = xent.sparse_distillation_loss_grad(student, ids[:, order], log_probs[:, order], tail=tail)
        assert np.allclose(one, other, rtol=8 * float(finfo(dtype).eps), atol=1e-9)


def test_weights(dtype):
    given = case((5, 12), 4, dtype)
    weight = np.array([1.5, -2.0, 0.0, 1e-3, 4.0])
    spoilt = [a.copy() for a in given]
    spoilt[0][2], spoilt[2][2] = NAN, INF
    for tail in TAILS:
        losses, grads = xent.sparse_distillation_loss_value_and_grad(*given, tail=tail, reduction="none")
        each, grad = xent.sparse_distillation_loss_value_and_grad(
            *spoilt, tail=tail, sample_weight=weight, reduction="none"
        )
        eps = 4 * float(finfo(dtype).eps)
        assert np.allclose(each, weight * losses, rtol=eps)
        assert np.allclose(grad, weight[:, None] * grads, rtol=eps, atol=eps)
        assert each[2] == 0
        assert not grad[2].any()
        for reduction, divisor in [("sum", 1), ("mean", weight.sum()), ("mean_full", 5), ("mean_batch", 5)]:
            options = {"tail": tail, "sample_weight": weight, "reduction": reduction}
            loss, grad = xent.sparse_distillation_loss_value_and_grad(*spoilt, **options)
            assert np.allclose(loss, (wide(losses) * weight).sum() / divisor, rtol=eps, atol=eps)
            assert np.allclose(grad, weight[:, None] * grads / divisor, rtol=2 * eps, atol=eps)
        nothing = xent.sparse_distillation_loss_value_and_grad(*given, tail=tail, sample_weight=0 * weight)
        assert nothing[0] == 0
        assert not nothing[1].any()


def test_factors_before_rounding():
    """A gradient that is tiny by itself, and not with its weight."""
    given = np.array([[0, -104.0, -105.0]], "f4"), [[0, 1]], np.array([[0.0, -INF]], "f4")
    for tail in ["bucket", "drop"]:
        expected = xent.sparse_distillation_loss_grad(wide(given[0]), *given[1:], tail=tail)
        for options in [{"grad_output": 1e10}, {"sample_weight": [1e10], "reduction": "sum"}]:
            grad = xent.sparse_distillation_loss_grad(*given, tail=tail, **options)
            assert np.allclose(wide(grad) / 1e10, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradient_is_the_derivative(reduction, rng):
    logits = rng.uniform(-1, 1, (2, 3, 6))
    ids, log_probs = teacher_of(rng.uniform(-1, 1, (2, 3, 6)), 3, np.float64)
    weight = rng.uniform(-1, 2, (2, 3))
    upstream = rng.standard_normal((2, 3) if reduction == "none" else ())
    for tail, temperature in itertools.product(TAILS, [1.0, 1.7]):
        options = {"tail": tail, "temperature": temperature, "sample_weight": weight, "reduction": reduction}
        expected = differences(
            lambda v, o=options: np.sum(upstream * reference(NAME, v, ids, log_probs, **o)), logits, step=1e-6
        )
        for module in [xent, xent.reference]:
            grad = getattr(module, f"{NAME}_grad")(logits, ids, log_probs, grad_output=upstream, **options)
            assert np.allclose(grad, expected, rtol=0, atol=300 * DIFFERENCES)


# Shapes and memory ------------------------------------------------------------------------------------------


def assert_close(student, ids, log_probs, given=None, what="", **options):
    """Assert the three functions against the reference; `given` are the same values in other layouts."""
    dtype, single = student.dtype, np.float64 if student.dtype == np.float64 else np.float32
    given = (student, ids, log_probs) if given is None else given
    loss = np.asarray(reference(NAME, wide(student), ids, wide(log_probs), **options))
    grad = reference(f"{NAME}_grad", wide(student), ids, wide(log_probs), **options)
    eps = float(finfo(dtype).eps)
    both = getattr(xent, f"{NAME}_value_and_grad")(*given, **options)
    for result in [getattr(xent, NAME)(*given, **options), both[0]]:
        assert np.asarray(result).dtype == single, what
        assert np.allclose(
            result, loss, rtol=64 * float(finfo(single).eps), atol=64 * float(finfo(single).eps)
        ), what
    for result in [getattr(xent, f"{NAME}_grad")(*given, **options), both[1]]:
        assert result.dtype == dtype, what
        assert np.allclose(
            wide(result), grad, rtol=8 * eps, atol=64 * EPS64 if single == np.float64 else 4e-7
        ), what


@pytest.mark.parametrize(
    "shape, k",
    [
        ((1,), 1),
        ((3, 1), 1),
        ((9, 5), 2),
        ((70, 17), 4),
        ((2, 3, 130), 7),
        ((2, 9000), 40),
        ((3, 2, 8193), 30),
    ],
)
@pytest.mark.parametrize("kind", [*DTYPES, *SIXTEEN], ids=str)
def test_shapes(shape, k, kind):
    given = case(shape, k, kind)
    for tail, temperature in itertools.product(TAILS, [1.0, 3.0]):
        for reduction in ["none", "mean"]:
            options = {"tail": tail, "temperature": temperature, "reduction": reduction}
            assert_close(*given, **options, what=str(options))


@pytest.mark.parametrize("layout", ZOO)
@pytest.mark.parametrize("kind", [*DTYPES, SIXTEEN[1]], ids=str)
def test_layouts(layout, kind):
    given = case((5, 4, 33), 6, kind)
    if layout == "list" and kind == SIXTEEN[1]:
        pytest.skip("no lists of bfloat16")
    for which in range(3):
        variants = list(given)
        try:
            variants[which] = of_zoo(layout, given[which])
        except pytest.skip.Exception:
            continue
        for tail in TAILS:
            assert_close(*given, given=variants, tail=tail, reduction="none", what=f"argument {which}")


@pytest.mark.parametrize("kind", [*DTYPES, *SIXTEEN], ids=str)
def test_out(kind):
    for shape, k in [((6, 5), 2), ((3, 5, 700), 9), ((2, 9000), 7)]:
        given = case(shape, k, kind)
        for tail, temperature in itertools.product(TAILS, [1.0, 2.0]):
            options = {"tail": tail, "temperature": temperature}
            expected = xent.sparse_distillation_loss_grad(*given, **options)
            for k_out, out in enumerate(
                [np.full(shape, 7, kind), np.full(shape[::-1], 7, kind).T, given[0].copy()]
            ):
                for part in ["_grad", "_value_and_grad"]:
                    if k_out == 2:
                        out = given[0].copy()
                    x = out if k_out == 2 else given[0]
                    result = getattr(xent, f"{NAME}{part}")(x, *given[1:], out=out, **options)
                    result = result[1] if part != "_grad" else result
                    assert result is out
                    assert_same_bits(result, np.asarray(expected), f"{part} {k_out}")


def test_wide_log_probabilities_keep_their_bits():
    """Those of a float64 teacher beside a student of 32 bits, which is nearly as good."""
    student, ids, _ = case((4, 30), 30, np.dtype(np.float32), 0.0)
    log_probs = np.take_along_axis(reference("log_softmax", wide(student) + 1e-9 * ids), ids, -1)
    assert_exact(student, ids, log_probs, tail="renormalize")
    assert_exact(student[:, :9], ids[:, :1] % 9, log_probs[:, :1])


def test_nothing():
    for shape in [(0, 5), (3, 0, 5)]:
        ids = np.zeros((*shape[:-1], 2), int)
        for reduction in REDUCTIONS:
            options = {"reduction": reduction} if shape[0] or reduction != "mean_batch" else {}
            loss, grad = xent.sparse_distillation_loss_value_and_grad(
                np.zeros(shape, "f4"), ids, np.zeros(ids.shape, "f4"), **options
            )
            assert not np.any(loss)
            assert grad.shape == shape


@pytest.mark.parametrize("shape, k", [((20_001, 9), 3), ((301, 1000), 20), ((20, 20_000), 64)])
def test_the_same_bits_for_any_number_of_threads(shape, k, dtype):
    given = case(shape, k, dtype)
    for tail in TAILS:
        for options in [{"reduction": "mean"}, {"reduction": "none", "temperature": 3.0}]:
            with xent.num_threads(1):
                expected = xent.sparse_distillation_loss_value_and_grad(*given, tail=tail, **options)
            for n in [2, 3]:
                with xent.num_threads(n):
                    result = xent.sparse_distillation_loss_value_and_grad(*given, tail=tail, **options)
                assert_same_bits(result, expected, f"{n} threads")


# Errors -----------------------------------------------------------------------------------------------------


def test_bad_classes():
    student, log_probs = np.zeros((3, 2, 5)), np.zeros((3, 2, 2))
    ids = np.tile([0, 3], (3, 2, 1))
    out = np.full((3, 2, 5), 7.0)

    def call(ids, log_probs=log_probs):
        return xent.sparse_distillation_loss_grad(student, ids, log_probs, out=out)

    for value in [5, -1, -100, 2**40]:
        bad = ids.copy()
        bad[2, 1, 0] = value
        with raises(ValueError, f"teacher_ids[2, 1, 0] is {value}", "0 <= class < 5"):
            call(bad)
    bad = ids.copy()
    bad[1, 0, 1] = 0
    with raises(ValueError, "teacher_ids[1, 0, 1] is 0", "has before"):
        call(bad)
    with raises(ValueError, "teacher_ids[0, 0, 0]"):
        call(np.full(ids.shape, 2**63, np.uint64))
    with raises(ValueError, "has before"):
        xent.sparse_distillation_loss(np.zeros((1, 2)), [[0, 1, 0]], np.zeros((1, 3)))
    with raises(TypeError, "teacher_ids must hold integers", "float64"):
        call(ids.astype(float))
    for wrong in [ids[:2], ids[..., 0], ids[..., :0], ids[None]]:
        with raises(ValueError, "teacher_ids must have shape (3, 2, k)"):
            call(wrong)
    with raises(ValueError, "teacher_log_probs", "shape of teacher_ids"):
        call(ids, log_probs[..., :1])
    with raises(TypeError, "teacher_log_probs"):
        call(ids, log_probs.astype(complex))
    assert (out == 7).all()
    assert call(ids.astype(np.uint8)) is out


def test_errors_come_before_effects():
    student, ids, log_probs = case((4, 6), 2, np.dtype(np.float64))
    out = np.full((4, 6), 7.0)
    for error, word, options in [
        (ValueError, "reduction", {"reduction": "average"}),
        (ValueError, "grad_output", {"grad_output": np.ones(3)}),
        (ValueError, "tail must be one of bucket, renormalize, drop", {"tail": "rest"}),
        (TypeError, "tail", {"tail": None}),
        *((ValueError, "temperature", {"temperature": v}) for v in [0.0, -1.0, INF, NAN]),
        *((ValueError, "sample_weight must be finite", {"sample_weight": [1, v, 1, 1]}) for v in [INF, NAN]),
        (ValueError, "sample_weight", {"sample_weight": np.ones(3)}),
    ]:
        with raises(error, word):
            xent.sparse_distillation_loss_grad(student, ids, log_probs, out=out, **options)
    with raises(ValueError, "at least one class"):
        xent.sparse_distillation_loss(np.zeros((3, 0)), np.zeros((3, 1), int), np.zeros((3, 1)))
    with raises(ValueError, "student_logits", "()"):
        xent.sparse_distillation_loss(1.0, [0], [0.0])
    assert (out == 7).all()
    for wrong in [np.zeros((6, 4)), np.zeros((4, 6), np.float32)]:
        with raises(ValueError, "out"):
            xent.sparse_distillation_loss_grad(student, ids, log_probs, out=wrong)
    memory = np.zeros(24)
    with raises(ValueError, "overlaps", "teacher_ids"):
        inside = memory.view(np.int64)[:8].reshape(4, 2)
        inside[:, 1] = 1
        xent.sparse_distillation_loss_grad(student, inside, log_probs, out=memory.reshape(4, 6))
    with raises(ValueError, "overlaps", "teacher_log_probs"):
        xent.sparse_distillation_loss_grad(student, ids, memory[:8].reshape(4, 2), out=memory.reshape(4, 6))
