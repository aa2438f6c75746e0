"""token_log_probs: against the reference, mpmath and log_softmax, with ranks counted by hand."""

import ml_dtypes
import numpy as np
import pytest
from helpers import (
    CLASS_COUNTS,
    ZOO,
    assert_same_bits,
    assert_ulp,
    exact_log_softmax,
    hard_rows,
    of_zoo,
    raises,
    random_logits,
    reference,
    wide,
)
from loss_options import NAMES, make
from mpmath import mp, mpf
from tolerances import bound, reference_error, transform_error

import xent

F32, F64, BF16 = np.dtype("f4"), np.dtype("f8"), np.dtype(ml_dtypes.bfloat16)
DTYPES = [F64, F32, np.dtype("f2"), BF16]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
SHAPES = [
    ((7,), -1),
    ((5, 9), -1),
    ((5, 9), 0),
    ((3, 200, 4), 1),
    ((2, 3, 150), -1),
    ((300, 3), -1),
    ((3, 4099), -1),
]


def some_ids(shape, axis, several, seed=0):
    """Ids of logits of a shape: `several` of them a position, or None: one."""
    ids = list(shape)
    classes = ids.pop(axis)
    if several is not None:
        ids.insert(axis % len(shape), several)
    return np.random.default_rng([seed, *shape]).integers(0, classes, ids)


def assert_tokens(logits, ids, axis=-1, given=None, what="", **options):
    """Log-probabilities and ranks against the reference; `given`: the arguments in another layout."""
    expected, places = reference("token_log_probs", wide(logits), ids, axis=axis, ranks=True, **options)
    computed = F64 if logits.dtype == F64 else F32
    x = wide(logits)
    slack = reference_error(x, axis) + transform_error(x, axis, **options)
    if np.ndim(ids) < x.ndim:
        slack = np.squeeze(np.broadcast_to(slack, x.shape).max(axis, keepdims=True), axis)
    slack = np.broadcast_to(slack, x.shape).max() if np.ndim(ids) == x.ndim else slack
    for with_ranks in (False, True):
        found = xent.token_log_probs(*(given or (logits, ids)), axis=axis, ranks=with_ranks, **options)
        if with_ranks:
            found, counted = found
            assert counted.dtype == np.int64
            assert np.array_equal(counted, places), what
        assert_ulp(
            found, expected, bound("log_probability", computed), dtype=computed, slack=slack, what=what
        )


@every_dtype
@pytest.mark.parametrize("several", [None, 0, 1, 3, 70])
@pytest.mark.parametrize("shape, axis", SHAPES, ids=str)
def test_against_the_reference(shape, axis, several, dtype):
    # halves of small numbers: there are ties
    for logits in (random_logits(shape, dtype), np.round(random_logits(shape, F64) * 2).astype(dtype)):
        assert_tokens(logits, some_ids(shape, axis, several), axis)


@every_dtype
@pytest.mark.parametrize("classes", CLASS_COUNTS)
def test_every_number_of_classes(classes, dtype):
    for positions in (1, 9, 65):
        x = random_logits((positions, classes), dtype)
        assert_tokens(x, some_ids(x.shape, -1, 2), what=f"{positions} rows")
        assert_tokens(np.ascontiguousarray(x.T), some_ids(x.T.shape, 0, 2), 0, what=f"{positions} columns")


@every_dtype
def test_the_same_numbers_as_log_softmax(dtype):
    for shape, axis in SHAPES:
        x = random_logits(shape, dtype, scale=8.0)
        ids = some_ids(shape, axis, 4)
        full = np.take_along_axis(reference("log_softmax", wide(x), axis), ids, axis)
        slack = np.broadcast_to(reference_error(wide(x), axis), x.shape).max()
        computed = F64 if dtype == F64 else F32
        assert_ulp(xent.token_log_probs(x, ids, axis=axis), full, 4, dtype=computed, slack=slack)


@pytest.mark.parametrize("name", [name for name, _ in hard_rows(np.float64)])
def test_last_digits_of_hard_rows(name, dtype):
    rows = dict(hard_rows(dtype))
    if name not in rows:
        pytest.skip(f"no such row of {dtype}")
    x = np.array([rows[name]], dtype)
    ids = np.arange(x.size)[np.newaxis]
    for values, axis in [(x, -1), (x.T.copy(), 0)]:
        found = xent.token_log_probs(values, ids if axis else ids.T, axis=axis)
        limit = bound("log_probability", dtype)
        assert_ulp(found.reshape(x.shape), exact_log_softmax(x), limit, dtype=dtype, what=name)


@every_dtype
@pytest.mark.parametrize("shape, axis", [((6, 9), -1), ((6, 300), -1), ((2, 40, 5), 1)], ids=str)
def test_options(shape, axis, dtype):
    x, ids = random_logits(shape, dtype), some_ids(shape, axis, 3)
    names = ["temperature", "logit_cap", "prior"]
    assert set(names) <= set(NAMES)
    for chosen in (["temperature"], ["logit_cap"], ["prior"], names):
        assert_tokens(x, ids, axis, what=str(chosen), **make(chosen, shape, axis, F64))


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_ranks_do_not_feel_a_temperature_or_cap(scale):
    # distances that float32 would round to the same number, and tanh of 1
    x = np.float32([[1e6, 1e6 + 0.0625, 3, 3.0000002, -1, 1e9]])
    ids = np.arange(6)[np.newaxis]
    for option in ("temperature", "logit_cap"):
        _, places = xent.token_log_probs(x, ids, ranks=True, **{option: scale})
        assert places.tolist() == [[2, 1, 4, 3, 5, 0]]


@every_dtype
@pytest.mark.parametrize("classes", [5, 1000, 9001])
def test_ranks_of_ties_signs_and_infinities(classes, dtype):
    rng = np.random.default_rng(classes)
    x = rng.choice(np.array([-np.inf, -2.5, -1, -0.0, 0.0, 1, 2.5], dtype), (7, classes))
    x[:, 0] = 1
    ids = rng.integers(0, classes, (7, 9))
    assert_tokens(x, ids)
    assert_tokens(-np.abs(x) - 1, ids)  # none is positive
    assert_tokens(np.ascontiguousarray(x.T), np.ascontiguousarray(ids.T), 0)


@every_dtype
def test_ranks_at_random_thresholds(dtype):
    x = random_logits((3, 20_000), dtype, scale=2.0)
    top = np.argsort(-wide(x), axis=-1)[:, [0, 1, 5, 300, 9_000, 19_999]]
    assert_tokens(x, top)


@every_dtype
@pytest.mark.parametrize("classes", [4, 150])
def test_special_values(classes, dtype):
    x = random_logits((6, classes), dtype)
    x[0, 1], x[1, 1], x[2], x[3, 2] = np.nan, np.inf, -np.inf, -np.inf
    ids = np.array([[0, 1, 2]] * 6)
    for values, chosen, axis in [(x, ids, -1), (x.T.copy(), ids.T, 0)]:
        found, places = xent.token_log_probs(values, chosen, axis=axis, ranks=True)
        found, places = (found, places) if axis else (found.T, places.T)
        assert np.isnan(found[0]).all()
        assert np.isnan(found[1, 1])
        assert (found[1, [0, 2]] == -np.inf).all()
        assert np.isnan(found[2]).all()
        assert found[3, 2] == -np.inf
        assert np.isfinite(found[4:]).all()
        assert (places[np.isnan(found)] == classes).all()
        assert (places[~np.isnan(found)] < classes).all()
        assert_tokens(x[3:], ids[3:])


def test_a_certain_prediction_is_zero(dtype):
    # and not -0
    assert not np.signbit(xent.token_log_probs(np.ones((3, 1), dtype), [0, 0, 0])).any()


@pytest.mark.parametrize("variant", ZOO)
def test_every_memory_layout(variant, dtype):
    for shape, axis in [((5, 9), -1), ((2, 12, 6), 1)]:
        x, ids = random_logits(shape, dtype), some_ids(shape, axis, 3)
        assert_tokens(x, ids, axis, (of_zoo(variant, x), ids), variant)
        assert_tokens(x, ids, axis, (x, of_zoo(variant, ids)), f"ids, {variant}")


@pytest.mark.parametrize("kind", ["i1", "u1", "i4", "u8"])
def test_ids_of_any_integer_dtype(kind):
    x = random_logits((4, 100), F32)
    ids = np.array([3, 0, 99, 7])
    assert_same_bits(xent.token_log_probs(x, ids.astype(kind)), xent.token_log_probs(x, ids))
    assert_same_bits(xent.token_log_probs(x, ids.tolist()), xent.token_log_probs(x, ids))


def test_code_of_the_caller_cannot_reshape_what_was_checked():
    x = random_logits((4, 2500), F32)
    ids = np.arange(4)

    class Reshaping:
        def __float__(self):
            x.resize(2500, 4)
            return 1.0

        def __array__(self, dtype=None, copy=None):
            float(self)
            return ids

    expected = xent.token_log_probs(x, ids)
    for options in ({"temperature": Reshaping()}, {}):
        chosen = ids if options else Reshaping()
        assert_same_bits(xent.token_log_probs(x, chosen, **options), expected)
        x.resize(4, 2500)


def test_one_position():
    x = random_logits((5,), F32)
    found, places = xent.token_log_probs(x, int(x.argmax()), ranks=True)
    assert isinstance(found, np.float32)
    assert isinstance(places, np.int64)
    assert places == 0
    assert xent.token_log_probs(x, [1, 2]).shape == (2,)


def test_nothing():
    for shape, several in [((0, 5), 3), ((0, 5), None), ((4, 5), 0), ((4, 0), 0), ((0, 0), 0)]:
        ids = np.zeros(shape[:1] if several is None else (shape[0], several), int)
        found, places = xent.token_log_probs(np.zeros(shape), ids, ranks=True)
        assert found.shape == places.shape == ids.shape
    assert xent.token_log_probs(np.zeros((2, 5)), [[], []]).shape == (2, 0)


@every_dtype
def test_the_same_bits_on_any_number_of_threads(dtype):
    for shape, axis in [((70, 3000), -1), ((500, 20), -1), ((40, 2000), 0)]:
        x, ids = random_logits(shape, dtype), some_ids(shape, axis, 3)
        results = []
        for threads in (1, 2, 16):
            with xent.num_threads(threads):
                results.append(xent.token_log_probs(x, ids, axis=axis, ranks=True))
        assert_same_bits(results[0], results[1])
        assert_same_bits(results[0], results[2])


def test_the_gradient_of_a_policy():
    """The derivative of log p_y is what cross_entropy_grad gives with the sign turned."""
    x, ids, step = random_logits((3, 7), F64), np.array([0, 6, 2]), 1e-6
    expected = -xent.cross_entropy_grad(x, ids, reduction="none", grad_output=np.ones(3))
    for c in range(7):
        moved = [x.copy(), x.copy()]
        moved[0][:, c] += step
        moved[1][:, c] -= step
        slope = (xent.token_log_probs(moved[0], ids) - xent.token_log_probs(moved[1], ids)) / (2 * step)
        assert np.allclose(slope, expected[:, c], atol=1e-8)


# Errors -----------------------------------------------------------------------------------------------------


def test_bad_ids():
    x = np.zeros((2, 3, 5))
    for bad in (5, -1, -100, 2**40):
        ids = np.zeros((2, 3, 4), int)
        ids[1, 0, 2] = bad
        with raises(ValueError, f"ids[1, 0, 2] is {bad}", "5"):
            xent.token_log_probs(x, ids)
        with raises(ValueError, f"ids[1, 0] is {bad}", "5"):
            xent.token_log_probs(x, ids[:, :, 2])
    with raises(ValueError, "ids[0, 0] is 18446744073709551615"):
        xent.token_log_probs(x, np.full((2, 3), 2**64 - 1, np.uint64))
    with raises(ValueError, "ids[0]", "0"):
        xent.token_log_probs(np.zeros((2, 0)), [0, 0])


def test_shapes_of_ids():
    x = np.zeros((2, 3, 5))
    for shape in [(2,), (3, 2), (2, 3, 4, 1), (3, 3, 4), ()]:
        with raises(ValueError, "ids", shape, "(2, 3)", "(2, 3, K)"):
            xent.token_log_probs(x, np.zeros(shape, int))
    with raises(ValueError, "ids", "(2, 5)", "(2, K, 5)"):
        xent.token_log_probs(x, np.zeros((2, 3), int), axis=1)
    with raises(np.exceptions.AxisError, 3, 3):
        xent.token_log_probs(x, np.zeros((2, 3), int), axis=3)


def test_dtypes_and_options():
    x, ids = np.zeros((3, 5)), np.array([0, 4, 2])
    for bad in (ids.astype(float), ids > 1, ids.astype(str)):
        with raises(TypeError, "ids", "integers", bad.dtype):
            xent.token_log_probs(x, bad)
    with raises(TypeError, "logits", "real numbers"):
        xent.token_log_probs(x.astype(complex), ids)
    for flag in (1, None, "no"):
        with raises(TypeError, "ranks", "True or False"):
            xent.token_log_probs(x, ids, ranks=flag)
    for option in ("temperature", "logit_cap"):
        with raises(ValueError, option):
            xent.token_log_probs(x, ids, **{option: 0.0})
    with raises(ValueError, "prior"):
        xent.token_log_probs(x, ids, prior=np.zeros(5))
    with raises(ValueError, "prior", "(5,)", "(4,)"):
        xent.token_log_probs(x, ids, prior=np.ones(4))


@pytest.mark.parametrize("dtype", [F64, F32], ids=str)
def test_a_cap_beside_any_temperature(dtype):
    """Quotients of x, T and the cap that leave the range on the way, against mpmath."""
    eps, largest = float(np.finfo(dtype).eps), float(np.finfo(dtype).max)
    steps = np.array([0.5, -1.25, 3.0, 0.0])
    for temperature, cap, size in [
        (5e-324, 1.0, 5e-324), (5e-324, 30.0, 1e-322), (1e-310, 1e300, 1e-30), (1e-300, 1e-100, 1.0),
        (1e-200, 5.0, 1e-200), (1e-45, 1e-5, 1e-40), (1e30, 1e-30, 1.0), (1e100, 1e-100, 1e30),
        (1e300, 1e5, 1e300), (1e-3, 1e300, 1e4), (1.7e308, 2.0, 1e308),
    ]:  # fmt: skip
        with np.errstate(all="ignore"):
            x = (steps * size).astype(dtype)
        if not np.isfinite(x).all():
            continue
        with mp.workdps(700):
            u = [mpf(float(v)) / mpf(temperature) / mpf(cap) for v in x]
            u = [mpf(cap) * (mp.sign(v) if abs(v) > 2000 else mp.tanh(v)) for v in u]
            most = u.index(max(u))
            rest = [mp.exp(v - max(u)) if v - max(u) > -5000 else mpf(0) for v in u]
            below = mp.log1p(mp.fsum(rest[:most] + rest[most + 1 :]))
            exact = [float(v - max(u) - below) for v in u]
        exact = np.where(np.abs(exact) > largest, -np.inf, exact)
        how = {"temperature": temperature, "logit_cap": cap}
        for logits, ids, axis in [(x[None], [[0, 1, 2, 3]], -1), (x[:, None], [[0], [1], [2], [3]], 0)]:
            log_probs, places = xent.token_log_probs(logits, ids, axis=axis, ranks=True, **how)
            # the cap's tanh is rounded, and twice at most the numbers that it is a product of
            slack = 8 * 2.0**-52 * min(cap, max(map(abs, map(float, u))))
            np.testing.assert_allclose(
                log_probs.ravel(), exact, rtol=8 * eps, atol=slack + 1e-44, err_msg=f"{how}"
            )
            np.testing.assert_array_equal(places.ravel(), (x > x[:, None]).sum(axis=1))
            one = np.take(ids, 2, axis=axis)
            np.testing.assert_array_equal(
                xent.token_log_probs(logits, one, axis=axis, **how).ravel(),
                np.take(log_probs, 2, axis=axis).ravel(),
            )
        prior = [0.1, 0.2, 0.3, 0.4]
        result = xent.token_log_probs(x[None], [[0, 1, 2, 3]], prior=prior, **how)[0]
        with np.errstate(over="ignore"):
            exact = xent.log_softmax(np.array(u, float) + np.log(prior)).astype(dtype)
        np.testing.assert_allclose(result, exact, rtol=1e-5)


@pytest.mark.parametrize("ids", ["abc", [["a", "b"]], [0.5, 1.0], [True, False]])
def test_ids_that_are_no_integers(ids):
    """Whatever their shape is."""
    with pytest.raises(TypeError, match="ids must hold integers, got dtype"):
        xent.token_log_probs(np.zeros((2, 3)), ids)
