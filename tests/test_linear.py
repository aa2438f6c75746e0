"""linear_cross_entropy and its gradients: against the reference, cross_entropy and finite differences."""

import ml_dtypes
import numpy as np
import pytest
from helpers import (
    ZOO,
    assert_same_bits,
    differences,
    finfo,
    of_zoo,
    peak_bytes,
    raises,
    random_labels,
    random_logits,
    random_weights,
    reference,
    targets,
    terms,
    wide,
)
from hypothesis import given
from hypothesis import strategies as st
from loss_options import NAMES, NUMBERS, make
from tolerances import DIFFERENCES, linear_layer

import xent

MIB = 2**20
REDUCTIONS = ["none", "sum", "mean", "mean_valid", "mean_full", "mean_batch"]
KINDS = ["labels", "probabilities"]
NARROW = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
# (positions, D, C)
SHAPES = [((1,), 1, 1), ((9,), 5, 7), ((300,), 16, 3), ((3, 7), 20, 65), ((2, 3, 4), 8, 300), ((), 4, 6)]
# All logits at once, some positions at a time, and one position and class at a time.
CHUNKS = [None, 20_000, 1]
names = ["linear_cross_entropy", "linear_cross_entropy_value_and_grad"]


def case(positions, features, classes, dtype, kind="labels", seed=0, bias=True):
    """x, weight, target and bias of logits of order one."""
    x = random_logits((*positions, features), dtype, seed, 1.0)
    weight = random_logits((classes, features), dtype, seed + 1, features**-0.5)
    target = targets(kind, (*positions, classes), -1, np.float32 if dtype in NARROW else dtype, seed)
    return x, weight, target, random_logits((classes,), dtype, seed + 2, 1.0) if bias else None


def assert_near(actual, expected, bound, dtype, what):
    """Within an absolute bound, and a rounding to the dtype of the result."""
    actual, expected = np.asarray(actual), np.asarray(expected, np.float64)
    assert actual.dtype == dtype, f"{what}: {actual.dtype}"
    assert actual.shape == expected.shape, f"{what}: {actual.shape}"
    allowed = bound + float(finfo(dtype).eps) * np.abs(expected) + float(finfo(dtype).smallest_subnormal)
    excess = np.abs(wide(actual) - expected) - allowed
    assert not excess.size or excess.max() <= 0, f"{what}: {excess.max()} over {np.max(allowed)}"


def assert_linear(x, weight, target, bias=None, given=None, *, chunks=CHUNKS, what="", **options):
    """Both functions against the reference, in chunks of any size; `given`: the arrays in other layouts."""
    given = given or (x, weight, target, bias)
    compute = np.dtype(np.float64 if np.float64 in (x.dtype, weight.dtype) else np.float32)
    expected, gradients = reference(f"{names[0]}_value_and_grad", x, weight, target, bias, **options)
    rows = wide(x).reshape(-1, x.shape[-1])
    logits = (wide(x) @ wide(weight).T + (0 if bias is None else wide(bias))).reshape(*x.shape[:-1], -1)
    renamed = {"weight" if key == "class_weight" else key: value for key, value in options.items()}
    a, g = terms(logits, target, **renamed)
    moved, *bounds = linear_layer(rows, weight, bias, g.reshape(len(rows), -1), compute)
    off = moved.reshape(a.shape) * a
    off = off if options.get("reduction") == "none" else off.sum()
    off = off + 8 * float(np.finfo(compute).eps) * np.abs(expected)

    for chunk_bytes in chunks:
        where = f"{what} in chunks of {chunk_bytes}"
        loss = getattr(xent, names[0])(*given, chunk_bytes=chunk_bytes, **options)
        both = getattr(xent, names[1])(*given, chunk_bytes=chunk_bytes, **options)
        for result in (loss, both[0]):
            assert_near(result, expected, off, compute, f"loss {where}")
        results = zip(both[1], gradients, (x, weight, bias), bounds, ["x", "weight", "bias"], strict=True)
        for actual, exact, like, bound, argument in results:
            if like is None:
                assert actual is None
            else:
                assert_near(actual, exact, bound.reshape(like.shape), like.dtype, f"grad_{argument} {where}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("positions, features, classes", SHAPES)
def test_against_the_reference(positions, features, classes, kind, dtype):
    arrays = case(positions, features, classes, dtype, kind)
    for reduction in REDUCTIONS if positions else REDUCTIONS[:-1]:  # mean_batch needs a batch
        assert_linear(*arrays, reduction=reduction, what=reduction)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("narrow", NARROW, ids=str)
def test_sixteen_bits(narrow, kind):
    # a sum of 70 positions that was rounded to 16 bits in every chunk would be far off
    assert_linear(*case((70,), 20, 33, narrow, kind))


@pytest.mark.parametrize("kinds", [("f2", "f4"), ("f4", "f2"), ("f8", "f4"), ("f4", "f8"), ("f2", "f8")])
def test_mixed_dtypes(kinds):
    x, weight, target, _ = case((30,), 6, 9, np.dtype("f8"))
    assert_linear(x.astype(kinds[0]), weight.astype(kinds[1]), target)


def test_integers_become_float64():
    x, weight, target, _ = case((5,), 4, 3, np.dtype("f8"))
    x, weight = np.round(4 * x).astype(int), np.round(4 * weight).astype(np.int8)
    expected = xent.linear_cross_entropy_value_and_grad(x.astype("f8"), weight.astype("f8"), target)
    for chunk_bytes in CHUNKS:
        loss, grads = xent.linear_cross_entropy_value_and_grad(x, weight, target, chunk_bytes=chunk_bytes)
        assert loss.dtype == grads[0].dtype == grads[1].dtype == np.float64
        assert np.allclose(loss, expected[0], rtol=1e-14)
        assert np.allclose(grads[1], expected[1][1], rtol=1e-12, atol=1e-15)


def test_a_bias_of_python_numbers_has_no_precision(dtype):
    x, weight, target, bias = case((9,), 5, 3, dtype)
    loss, grads = xent.linear_cross_entropy_value_and_grad(x, weight, target, bias.tolist())
    expected = xent.linear_cross_entropy_value_and_grad(x, weight, target, bias)
    assert_same_bits((loss, *grads), (expected[0], *expected[1]))


def test_options_of_cross_entropy(dtype):
    x, weight, target, bias = case((4, 6), 5, 9, dtype)
    factors = random_weights(9, dtype)
    for reduction in REDUCTIONS:
        options = {"class_weight": factors, "label_smoothing": 0.1, "reduction": reduction}
        assert_linear(x, weight, target, bias, what=reduction, **options)
    target[target == -100] = 3
    assert_linear(x, weight, target, bias, ignore_index=3)


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
@pytest.mark.parametrize(
    "option",
    [make(n, (4, 6, 9), -1, np.dtype("f8")) for n in [*([n] for n in NAMES), ["gamma", "label_smoothing"]]],
    ids=lambda option: "-".join(option),
)
def test_other_options_of_cross_entropy(option, chunk_bytes):
    # on float64, where the product's error leaves 1e-12 of everything
    x, weight, target, bias = case((4, 6), 5, 9, np.dtype("f8"))
    for reduction in REDUCTIONS:
        options = {"reduction": reduction, **option}
        expected = reference("linear_cross_entropy_value_and_grad", x, weight, target, bias, **options)
        got = xent.linear_cross_entropy_value_and_grad(
            x, weight, target, bias, chunk_bytes=chunk_bytes, **options
        )
        assert np.allclose(got[0], expected[0], rtol=1e-12)
        for actual, exact in zip(got[1], expected[1], strict=True):
            assert np.allclose(actual, exact, rtol=1e-12, atol=1e-13)
        loss = xent.linear_cross_entropy(x, weight, target, bias, chunk_bytes=chunk_bytes, **options)
        assert np.allclose(loss, expected[0], rtol=1e-12)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_cross_entropy_of_the_logits(kind, reduction, dtype):
    # Whole numbers: the products are exact in any order.
    x, weight, target, bias = (
        np.round(8 * a) if a.dtype.kind == "f" and a.ndim < 3 else a for a in case((40,), 6, 11, dtype)
    )
    if kind == "probabilities":
        target = targets(kind, (40, 11), -1, dtype)
    logits = x @ weight.T / 4 + bias
    loss, grad = xent.cross_entropy_value_and_grad(logits, target, reduction=reduction)
    for chunk_bytes in CHUNKS:
        options = {"reduction": reduction, "chunk_bytes": chunk_bytes}
        got, (grad_x, grad_weight, grad_bias) = xent.linear_cross_entropy_value_and_grad(
            x / 4, weight, target, bias, **options
        )
        # losses of positions are the same bits; they are added up in another order
        assert np.all(np.abs(got - loss) <= (0 if reduction == "none" else 2) * np.spacing(np.abs(loss)))
        assert_same_bits(got, xent.linear_cross_entropy(x / 4, weight, target, bias, **options))
        close = {"rtol": 1e3 * np.finfo(dtype).eps, "atol": 1e3 * np.finfo(dtype).eps}
        assert np.allclose(grad_x, grad @ weight, **close)
        assert np.allclose(grad_weight, grad.T @ x / 4, **close)
        assert np.allclose(grad_bias, grad.sum(axis=0), **close)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_derivatives(kind, reduction):
    arrays = list(case((2, 3), 4, 5, np.dtype("f8"), kind))
    grads = xent.linear_cross_entropy_value_and_grad(*arrays, reduction=reduction)[1]
    also = reference("linear_cross_entropy_value_and_grad", *arrays, reduction=reduction)[1]
    for which, grad, of_reference in zip((0, 1, 3), grads, also, strict=True):

        def loss(v, which=which):
            moved = arrays[:which] + [v] + arrays[which + 1 :]
            return np.sum(reference("linear_cross_entropy", *moved, reduction=reduction))

        expected = differences(loss, arrays[which])
        assert np.allclose(grad, expected, rtol=0, atol=30 * DIFFERENCES)
        assert np.allclose(of_reference, expected, rtol=0, atol=30 * DIFFERENCES)


# Ways through the code --------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ZOO)
@pytest.mark.parametrize("kind", KINDS)
def test_every_memory_layout(kind, variant, dtype):
    for positions in [(13,), (3, 5)]:
        arrays = case(positions, 6, 7, dtype, kind)
        assert_linear(*arrays, [of_zoo(variant, a) for a in arrays], what=f"{positions}")


@pytest.mark.parametrize("narrow", NARROW, ids=str)
def test_memory_layouts_of_sixteen_bits(narrow):
    for variant in ["every second element", "negative strides", "Fortran order", "unaligned"]:
        arrays = case((3, 5), 6, 7, narrow)
        assert_linear(*arrays, [of_zoo(variant, a) for a in arrays], what=variant)


def test_repeated_rows(dtype):
    # strides of 0, which BLAS does not know
    x, weight, target, bias = case((1,), 6, 7, dtype)
    x, weight = np.broadcast_to(x, (5, 6)), np.broadcast_to(weight[:1], (7, 6))
    assert_linear(x, weight, np.arange(5), bias)


def test_results_do_not_depend_on_threads(dtype):
    arrays = case((200,), 16, 1500, dtype)
    for chunk_bytes in [None, 400_000]:
        results = []
        for n in (1, 2):
            with xent.num_threads(n):
                loss, grads = xent.linear_cross_entropy_value_and_grad(*arrays, chunk_bytes=chunk_bytes)
                results.append((loss, *grads))
        assert_same_bits(*results)


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_ignored_positions_take_no_part(chunk_bytes, dtype):
    x, weight, target, bias = case((20,), 6, 7, dtype)
    ignored = target == -100
    assert 0 < ignored.sum() < 20
    x[ignored] = np.nan
    loss, (grad_x, grad_weight, grad_bias) = xent.linear_cross_entropy_value_and_grad(
        x, weight, target, bias, chunk_bytes=chunk_bytes
    )
    assert not grad_x[ignored].any()
    kept = xent.linear_cross_entropy_value_and_grad(x[~ignored], weight, target[~ignored], bias)
    for actual, expected in zip((loss, grad_weight, grad_bias), (kept[0], *kept[1][1:]), strict=True):
        assert np.allclose(actual, expected, rtol=1e-4, atol=1e-6)
    assert np.isfinite(assert_none(x, weight, target, bias, chunk_bytes)).all()


def assert_none(*arguments):
    *arrays, chunk_bytes = arguments
    losses = xent.linear_cross_entropy(*arrays, reduction="none", chunk_bytes=chunk_bytes)
    assert not losses[arrays[2] == -100].any()
    return losses


def test_no_classes_where_all_is_ignored():
    x, weight, bias = np.ones((3, 4)), np.ones((0, 4)), np.ones(0)
    for module in (xent, xent.reference):
        loss, grads = module.linear_cross_entropy_value_and_grad(x, weight, [0] * 3, bias, ignore_index=0)
        assert loss == 0 and [g.shape for g in grads] == [(3, 4), (0, 4), (0,)] and not grads[0].any()


def test_a_nan_spoils_its_own_position():
    x, weight, target, bias = case((20,), 6, 7, np.dtype("f4"))
    target = np.abs(target) % 7
    x[3, 2], x[5, 1] = np.nan, np.inf
    for chunk_bytes in CHUNKS:
        losses = xent.linear_cross_entropy(x, weight, target, bias, reduction="none", chunk_bytes=chunk_bytes)
        assert np.isnan(losses[3])
        assert np.isfinite(np.delete(losses, [3, 5])).all()
        _, (grad_x, _, _) = xent.linear_cross_entropy_value_and_grad(
            x, weight, target, bias, chunk_bytes=chunk_bytes
        )
        assert np.isnan(grad_x[3]).any()
        assert np.isfinite(np.delete(grad_x, [3, 5], axis=0)).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_means_over_nothing_are_zero(reduction, dtype):
    x, weight, target, bias = case((4,), 3, 5, dtype)
    x[0] = np.nan
    nothing = [(x[:0], target[:0], {}), (x, np.full(4, -100), {})]
    if reduction == "mean":
        nothing.append((x, np.zeros(4, int), {"class_weight": np.array([0, 1, 1, 1, 1], dtype)}))
    for values, labels, options in nothing:
        for chunk_bytes in CHUNKS:
            options |= {"reduction": reduction, "chunk_bytes": chunk_bytes}
            loss, grads = xent.linear_cross_entropy_value_and_grad(values, weight, labels, bias, **options)
            assert loss.dtype == dtype
            assert not loss.any()
            assert [g.shape for g in grads] == [values.shape, weight.shape, bias.shape]
            assert not any(g.any() for g in grads)
            assert not xent.linear_cross_entropy(values, weight, labels, bias, **options).any()


def test_no_features(dtype):
    x, weight = np.zeros((3, 0), dtype), np.zeros((4, 0), dtype)
    for chunk_bytes in CHUNKS:
        loss, grads = xent.linear_cross_entropy_value_and_grad(x, weight, [0, 1, 2], chunk_bytes=chunk_bytes)
        assert np.isclose(loss, np.log(4), rtol=1e-6)
        assert [g.shape for g in grads[:2]] == [(3, 0), (4, 0)]


def test_scalars_and_lists():
    loss, grads = xent.linear_cross_entropy_value_and_grad([1, 2], [[1, 0], [0, 1]], 1)
    assert isinstance(loss, np.float64)
    assert [g.shape for g in grads[:2]] == [(2,), (2, 2)]
    assert grads[2] is None
    assert isinstance(xent.linear_cross_entropy(np.zeros(2, "f4"), np.zeros((2, 2), "f4"), 1), np.float32)


@given(data=st.data())
def test_any_shape_and_options(data):
    dtype = np.dtype(data.draw(st.sampled_from(["f4", "f8"])))
    positions = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    features, classes = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    kind = data.draw(st.sampled_from(KINDS))
    x, weight, target, bias = case(positions, features, classes, dtype, kind)
    assert_linear(
        x, weight, target, bias if data.draw(st.booleans()) else None,
        reduction=data.draw(st.sampled_from(REDUCTIONS)),
        class_weight=random_weights(classes, dtype) if data.draw(st.booleans()) else None,
        label_smoothing=data.draw(st.sampled_from([0.0, 0.2])),
        chunks=[data.draw(st.one_of(st.none(), st.integers(1, 5000)))],
    )  # fmt: skip


# Memory -----------------------------------------------------------------------------------------------------


def extra_bytes(call):
    kept = []
    peak = peak_bytes(lambda: kept.append(call()))
    loss, grads = kept[0] if isinstance(kept[0], tuple) else (kept[0], ())
    return peak - loss.nbytes - sum(g.nbytes for g in grads if g is not None)


@pytest.mark.parametrize("kinds", ["f4 f4", "f2 f2", "f4 f2", "f2 f4", "f8 f8", "i4 f4", "f4 F", "F f4"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 2, 16])
def test_memory(kind, kinds, threads):
    # 5 MiB of float32 logits, and 1 MiB of weights
    (x_kind, w_kind), n, d, c = kinds.split(), 160, 32, 8192
    x, weight = np.ones((n, d), x_kind.replace("F", "f4")), np.ones((c, d), w_kind.replace("F", "f4"))
    if "F" in kinds:  # memory that BLAS does not take
        x, weight = (
            np.repeat(a, 2, 1)[:, ::2] if k == "F" else a for a, k in [(x, x_kind), (weight, w_kind)]
        )
    target = random_labels((n,), c, 0, 0.3 if kinds == "f4 f4" else 0.0)
    if kind == "probabilities":
        target = np.broadcast_to(np.float32(1 / c), (n, c))
    assert_extra(2 * MIB, x, weight, target, weight[:, 0], threads=threads, chunk_bytes=2 * MIB)


# NumPy before 2 takes buffers of its own to add up floats as doubles, of this many numbers, for both.
BUFFERS = 2 * np.getbufsize() * 8 if np.__version__ < "2" else 0


def assert_extra(limit, *arrays, threads=2, **options):
    """Both functions hold no more than `limit` beside what they return."""
    with xent.num_threads(threads):
        for name in names:
            function = getattr(xent, name)
            extra = extra_bytes(lambda f=function: f(*arrays, **options))
            found = f"{name}: {extra / MIB:.3f} of {limit / MIB:.3f} MiB on {threads} threads"
            assert extra <= limit + BUFFERS, found


# Positions, features, classes: long and short rows, wide and narrow layers.
LAYERS = [(300, 8, 128_256), (64, 4, 100_000), (3000, 300, 1000), (300, 2000, 3000), (1500, 64, 4099)]
OPTIONS = {
    "plain": {},
    "16 threads": {"threads": 16},
    "temperature": {"temperature": 2.0},
    "prior": {"prior": True, "threads": 16},
    "weights": {"class_weight": True, "sample_weight": True, "reduction": "none"},
    "smoothing": {"label_smoothing": 0.1, "ignored": 0.2},
}


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_memory_of_layers(layer, options):
    n, d, c = layer
    options = dict(OPTIONS[options])
    x, weight, bias = np.ones((n, d), "f4"), np.ones((c, d), "f4"), np.ones(c, "f4")
    labels = random_labels((n,), c, 0, options.pop("ignored", 0.0)).astype(np.int32)
    for name, size in [("prior", c), ("class_weight", c), ("sample_weight", n)]:
        if name in options:
            options[name] = np.ones(size, "f4")
    limit = max(n * c * 4 // 5, 100 * c)  # a fifth of the logits, but some numbers for each class
    assert_extra(limit, x, weight, labels, bias, chunk_bytes=limit, **options)
    # the default
    third = max(n * c * 4 // 3, 4 * MIB)
    assert_extra(min(128 * MIB, third), x, weight, labels, bias, **options)


def test_memory_of_a_loss_by_default():
    # 340 MiB of logits
    x, weight, target = np.ones((700, 8), "f4"), np.ones((128_256, 8), "f4"), np.zeros(700, int)
    assert extra_bytes(lambda: xent.linear_cross_entropy(x, weight, target)) <= 64 * MIB


def test_the_same_bits_on_any_number_of_threads():
    # so little memory that 16 threads have no room for their scratch
    x, weight, target, bias = case((90,), 20, 9000, np.float32)
    results = []
    for threads in (1, 2, 16):
        with xent.num_threads(threads):
            results.append(
                xent.linear_cross_entropy_value_and_grad(x, weight, target, bias, chunk_bytes=600_000)
            )
    for loss, grads in results[1:]:
        assert_same_bits(loss, results[0][0])
        for grad, expected in zip(grads, results[0][1], strict=True):
            assert_same_bits(grad, expected)


@pytest.mark.parametrize("kind", ["f4", "f2"])
def test_a_memory_map_is_read_in_parts(tmp_path, kind):
    n, d, c = 60_000, 64, 50
    x = np.random.default_rng(0).standard_normal((n, d)).astype(kind)
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", kind, "r", shape=(n, d))
    weight, target = random_logits((c, d), np.dtype(kind), 1, 0.1), random_labels((n,), c)
    for chunk_bytes in (None, MIB):
        call = lambda x, m=chunk_bytes: xent.linear_cross_entropy(x, weight, target, chunk_bytes=m)  # noqa: E731
        assert_same_bits(call(mapped), call(x))
        assert_same_bits(call(mapped.reshape(-1, d)), call(x))
    assert extra_bytes(lambda: call(mapped)) <= MIB


# Errors -----------------------------------------------------------------------------------------------------

X, W, Y, B = np.zeros((3, 4)), np.zeros((5, 4)), np.array([0, 4, 2]), np.zeros(5)


@pytest.mark.parametrize("name", names)
def test_shapes(name):
    f = getattr(xent, name)
    for x in (np.zeros((3, 5)), np.float64(1), np.zeros((4, 3))):
        with raises(ValueError, "x", "4", np.shape(x)):
            f(x, W, Y)
    for weight in (np.zeros(4), np.zeros((5, 4, 1)), np.float64(1)):
        with raises(ValueError, "weight", np.shape(weight)):
            f(X, weight, Y)
    for bias in (np.zeros(4), np.zeros((1, 5)), 1.0):
        with raises(ValueError, "bias", np.shape(bias), "5"):
            f(X, W, Y, bias)
    for target in (Y[:2], 1, Y[:, None], np.zeros((3, 4), int)):
        with raises(ValueError, "target", np.shape(target), (3,)):
            f(X, W, target)
    with raises(ValueError, "class_weight", (5,), (4,)):
        f(X, W, Y, class_weight=np.ones(4))
    with raises(ValueError, "sample_weight", (3,), (5,)):
        f(X, W, Y, sample_weight=np.ones(5))
    with pytest.raises(ValueError, match="class"):
        f(X, W[:0], X[:, :0])
    with pytest.raises(ValueError, match="mean_batch"):
        f(X[0], W, 1, reduction="mean_batch")


@pytest.mark.parametrize("name", names)
def test_dtypes(name):
    f = getattr(xent, name)
    for kind in ["complex64", "O", "U1", "M8[s]", ml_dtypes.float8_e4m3fn]:
        for which, what in [(0, "x"), (1, "weight"), (3, "bias")]:
            arrays = [X, W, Y, B]
            arrays[which] = np.zeros(arrays[which].shape, kind)
            with raises(TypeError, what, "real numbers"):
                f(*arrays)
    for target in (Y.astype(float), Y.astype(bool), np.zeros((3, 5), complex)):
        with raises(TypeError, "target", target.dtype):
            f(X, W, target)


@pytest.mark.parametrize("name", names)
def test_labels(name):
    f = getattr(xent, name)
    for bad in (5, -1, 2**40):
        with raises(ValueError, f"target[1, 0] is {bad}", "5", "ignore_index=-100"):
            f(np.zeros((2, 2, 4)), W, [[0, 1], [bad, 7]])
        with raises(ValueError, f"target[2] is {bad}"):
            f(X.astype("f4"), W.astype("f4"), np.array([0, 1, bad]), chunk_bytes=1)


@pytest.mark.parametrize("name", names)
def test_options(name):
    f = getattr(xent, name)
    for chunk_bytes in (0, -1):
        with raises(ValueError, "chunk_bytes", chunk_bytes):
            f(X, W, Y, chunk_bytes=chunk_bytes)
    for chunk_bytes in (1.5, "1", True):
        with raises(TypeError, "chunk_bytes"):
            f(X, W, Y, chunk_bytes=chunk_bytes)
    for option, bad, error in [
        ("label_smoothing", 2.0, ValueError),
        ("ignore_index", 0.5, TypeError),
        ("reduction", "most", ValueError),
        ("class_weight", np.array([1, 1, 1, 1, np.inf]), ValueError),
    ]:
        with raises(error, option):
            f(X, W, Y, **{option: bad})


@pytest.mark.parametrize("name", names)
@pytest.mark.parametrize("option, bad", [("prior", np.zeros(5)), *((option, -1.0) for option in NUMBERS)])
def test_other_options(name, option, bad):
    with raises(ValueError, option):
        getattr(xent, name)(X, W, Y, **{option: bad})


def test_everything_is_checked_before_anything_is_read(tmp_path):
    # a sparse file of a TiB: whoever computed before checking would be at it for hours
    with open(tmp_path / "x", "wb") as file:
        file.truncate(2**40)
    x = np.memmap(tmp_path / "x", np.float32, "r", shape=(2**20, 2**18))
    weight = np.zeros((3, 2**18), np.float32)
    target = np.zeros(2**20, int)
    target[-1] = 3
    for options in ({}, {"ignore_index": 3, "label_smoothing": 1.5}, {"ignore_index": 3, "reduction": "no"}):
        with pytest.raises(ValueError, match=r"target\[1048575\]|label_smoothing|reduction"):
            xent.linear_cross_entropy(x, weight, target, **options)


# Upstream gradients, and gradients that are not needed ------------------------------------------------------

value_and_grad = xent.linear_cross_entropy_value_and_grad
NEEDS = [(True, False, False), (False, True, False), (False, False, True), (True, False, True), (False,) * 3]


def advantages(positions, seed=5):
    """Numbers of either sign, some of them 0."""
    values = np.random.default_rng(seed).standard_normal(positions)
    values[..., ::4] = 0
    return values


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_upstream_gradients_of_positions(kind, chunk_bytes):
    arrays = case((4, 6), 5, 9, np.dtype("f8"), kind)
    options = {"reduction": "none", "grad_output": advantages((4, 6)), "label_smoothing": 0.1}
    expected = reference(names[1], *arrays, **options)
    got = value_and_grad(*arrays, chunk_bytes=chunk_bytes, **options)
    assert np.allclose(got[0], expected[0], rtol=1e-12)
    for actual, exact in zip(got[1], expected[1], strict=True):
        assert np.allclose(actual, exact, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", ["f4", "f2"])
def test_upstream_gradients_of_narrow_layers(kind):
    x, weight, target, bias = case((70,), 20, 33, np.dtype(kind))
    upstream = advantages((70,))
    expected = reference(names[1], x, weight, target, bias, reduction="none", grad_output=upstream)
    for chunk_bytes in CHUNKS:
        got = value_and_grad(
            x, weight, target, bias, reduction="none", grad_output=upstream, chunk_bytes=chunk_bytes
        )
        for actual, exact in zip(got[1], expected[1], strict=True):
            assert actual.dtype == x.dtype
            size = np.abs(wide(exact)).max()
            assert np.allclose(wide(actual), wide(exact), rtol=float(finfo(kind).eps), atol=2e-6 * size)


@pytest.mark.parametrize("reduction", REDUCTIONS[1:])
def test_a_scalar_upstream_gradient(reduction, dtype):
    arrays = case((12,), 5, 9, dtype)
    loss, grads = value_and_grad(*arrays, reduction=reduction)
    for factor in (-2.0, 0.0, np.float32(0.25)):
        scaled, by = value_and_grad(*arrays, reduction=reduction, grad_output=factor)
        assert_same_bits(scaled, loss)
        for actual, grad in zip(by, grads, strict=True):
            assert np.array_equal(actual, grad * dtype.type(factor)), "powers of two are exact"


def test_the_upstream_gradient_of_one_position():
    x, weight, target, bias = case((1,), 5, 9, np.dtype("f8"))
    expected = value_and_grad(x, weight, target, bias, reduction="none", grad_output=[-3.0])
    got = value_and_grad(x[0], weight, target[0], bias, reduction="none", grad_output=-3.0)
    assert np.allclose(got[1][1], expected[1][1])
    assert np.allclose(got[1][0], expected[1][0][0])


def test_policy_gradients_are_derivatives():
    x, weight, target, bias = case((2, 3), 4, 5, np.dtype("f8"))
    upstream = advantages((2, 3))
    grads = value_and_grad(x, weight, target, bias, reduction="none", grad_output=upstream)[1]
    arrays = [x, weight, target, bias]
    for which, grad in zip((0, 1, 3), grads, strict=True):

        def loss(v, which=which):
            moved = arrays[:which] + [v] + arrays[which + 1 :]
            return (upstream * reference("linear_cross_entropy", *moved, reduction="none")).sum()

        assert np.allclose(grad, differences(loss, arrays[which]), rtol=0, atol=60 * DIFFERENCES)


@pytest.mark.parametrize("needs", NEEDS)
@pytest.mark.parametrize("kind", ["f4", "f2"])
def test_needs(needs, kind):
    arrays = case((60,), 20, 33, np.dtype(kind))
    for chunk_bytes in CHUNKS:
        loss, grads = value_and_grad(*arrays, chunk_bytes=chunk_bytes)
        some, got = value_and_grad(*arrays, chunk_bytes=chunk_bytes, needs=needs)
        assert np.isclose(some, loss, rtol=1e-6)
        for needed, actual, grad in zip(needs, got, grads, strict=True):
            assert (actual is not None) == needed
            if needed:
                size = np.abs(wide(grad)).max()
                assert np.allclose(wide(actual), wide(grad), rtol=float(finfo(kind).eps), atol=1e-5 * size)
    assert value_and_grad(*arrays[:3], needs=(False, False, True))[1] == (None, None, None)


def test_gradients_that_are_not_needed_cost_nothing(monkeypatch):
    products, matmul = [], np.matmul
    monkeypatch.setattr(np, "matmul", lambda *a, **k: products.append(a) or matmul(*a, **k))
    arrays = case((60,), 20, 33, np.dtype("f4"))
    for needs, count in [
        ((True, True, True), 3),
        ((True, False, True), 2),
        ((False, True, False), 2),
        (NEEDS[4], 1),
    ]:
        products.clear()
        value_and_grad(*arrays, needs=needs)
        assert len(products) == count
    # nor memory: that of the weights would be 4 MiB
    x, weight = np.ones((4, 64), "f4"), np.ones((16384, 64), "f4")
    peak = peak_bytes(lambda: value_and_grad(x, weight, [0, 1, 2, 3], needs=(True, False, False)))
    assert peak < 2 * MIB


# Weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_a_position_without_weight_is_not_there(kind, chunk_bytes, dtype):
    x, weight, target, bias = case((20,), 6, 7, dtype, kind)
    factors = np.arange(20) % 3 * 1.0
    gone = factors == 0
    x[gone] = [np.nan, np.inf, -np.inf, 1, 2, 3]
    for reduction in ("mean", "sum", "none"):
        options = {"chunk_bytes": chunk_bytes, "reduction": reduction}
        loss, grads = value_and_grad(x, weight, target, bias, sample_weight=factors, **options)
        alone = xent.linear_cross_entropy(x, weight, target, bias, sample_weight=factors, **options)
        kept = value_and_grad(x[~gone], weight, target[~gone], bias, sample_weight=factors[~gone], **options)
        if reduction == "none":
            assert not loss[gone].any()
            loss, alone = loss[~gone], alone[~gone]
        assert not grads[0][gone].any()
        results = (loss, alone, grads[0][~gone], *grads[1:])
        for actual, expected in zip(results, (kept[0], kept[0], *kept[1]), strict=True):
            assert np.allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_a_position_without_mass_is_not_there(chunk_bytes, dtype):
    """All of its target is 0, or has the weight 0."""
    x, weight, target, bias = case((20,), 6, 7, dtype, "probabilities")
    gone, some = np.arange(20) % 3 == 0, np.arange(7) != 4
    for options in ({}, {"class_weight": some * 2.0}):
        masked = target.copy()
        masked[np.ix_(gone, some if options else some | True)] = 0
        clean = value_and_grad(x, weight, masked, bias, chunk_bytes=chunk_bytes, **options)
        spoiled = x.copy()
        spoiled[gone] = [np.nan, np.inf, -np.inf, 1, 2, 3]
        loss, grads = value_and_grad(spoiled, weight, masked, bias, chunk_bytes=chunk_bytes, **options)
        alone = xent.linear_cross_entropy(spoiled, weight, masked, bias, chunk_bytes=chunk_bytes, **options)
        assert not grads[0][gone].any()
        for actual, expected in zip((loss, alone, *grads), (clean[0], clean[0], *clean[1]), strict=True):
            assert np.allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_negative_weights(reduction, chunk_bytes):
    x, weight, target, bias = case((30,), 5, 7, np.dtype("f8"))
    rng = np.random.default_rng(0)
    each, of_classes = rng.standard_normal(30), rng.standard_normal(7)
    each[::5] = of_classes[2] = 0
    spoiled = x.copy()
    spoiled[(each == 0) | (target == 2) | (target == -100)] = np.nan
    both = {"sample_weight": each, "class_weight": of_classes}
    for options in [
        {"sample_weight": each},
        {"class_weight": of_classes},
        both,
        both | {"label_smoothing": 0.1},
    ]:
        options |= {"reduction": reduction}
        expected = reference(names[1], x, weight, target, bias, **options)
        got = [value_and_grad(x, weight, target, bias, chunk_bytes=chunk_bytes, **options)]
        if "label_smoothing" not in options and len(options) == 3:
            got.append(value_and_grad(spoiled, weight, target, bias, chunk_bytes=chunk_bytes, **options))
        for loss, grads in got:
            assert np.allclose(loss, expected[0], rtol=1e-10, atol=1e-12)
            for actual, exact in zip(grads, expected[1], strict=True):
                assert np.allclose(actual, exact, rtol=1e-10, atol=1e-12)


def test_a_mean_over_weights_that_cancel():
    x, weight, _, bias = case((2,), 5, 7, np.dtype("f8"))
    with np.errstate(all="ignore"):
        expected = xent.cross_entropy(x @ weight.T + bias, [0, 1], sample_weight=[2.0, -2.0])
    assert np.isinf(expected)
    assert xent.linear_cross_entropy(x, weight, [0, 1], bias, sample_weight=[2.0, -2.0]) == expected


@pytest.mark.parametrize("size", [5e-324, 1e-310, 1e-40, 1e200, 1.7e308])
def test_means_over_weights_of_any_size(size):
    x, weight, target, bias = case((12,), 6, 4, np.dtype("f8"))
    expected = value_and_grad(x, weight, target, bias)
    for option in ({"sample_weight": np.full(12, size)}, {"class_weight": np.full(4, size)}):
        loss, grads = value_and_grad(x, weight, target, bias, **option)
        assert np.isclose(loss, expected[0], rtol=1e-14)
        for actual, exact in zip(grads, expected[1], strict=True):
            assert np.allclose(actual, exact, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_a_label_without_weight_is_not_there(chunk_bytes):
    x, weight, _, bias = case((12,), 6, 4, np.dtype("f8"))
    target, factors = np.arange(12) % 4, np.array([1.0, 0, 2, 3])
    x[target == 1] = np.nan
    loss, grads = value_and_grad(x, weight, target, bias, class_weight=factors, chunk_bytes=chunk_bytes)
    kept = target != 1
    expected = value_and_grad(x[kept], weight, target[kept], bias, class_weight=factors)
    assert np.isclose(loss, expected[0], rtol=1e-14)
    assert np.allclose(grads[1], expected[1][1], rtol=1e-12, atol=1e-15)
    # with smoothing or a z-loss the position has more than its label
    for option in ({"label_smoothing": 0.1}, {"z_loss": 0.1}):
        assert np.isnan(xent.linear_cross_entropy(x, weight, target, bias, class_weight=factors, **option))


@pytest.mark.parametrize("chunk_bytes", CHUNKS)
def test_a_position_without_upstream_gradient_has_a_loss_alone(chunk_bytes, dtype):
    x, weight, target, bias = case((20,), 6, 7, dtype)
    target = np.abs(target) % 7
    upstream = advantages((20,))
    x[upstream == 0, 0], x[5, 1] = np.inf, 3
    options = {"reduction": "none", "chunk_bytes": chunk_bytes}
    losses, grads = value_and_grad(x, weight, target, bias, grad_output=upstream, **options)
    assert_same_bits(losses, xent.linear_cross_entropy(x, weight, target, bias, **options))
    heard = upstream != 0
    expected = value_and_grad(
        x[heard], weight, target[heard], bias, grad_output=upstream[heard], reduction="none"
    )
    assert not grads[0][~heard].any()
    for actual, exact in zip((grads[0][heard], *grads[1:]), expected[1], strict=True):
        assert np.allclose(actual, exact, rtol=1e-5, atol=1e-6)
    loss, grads = value_and_grad(x, weight, target, bias, grad_output=0.0, chunk_bytes=chunk_bytes)
    assert not np.isfinite(loss)
    assert not any(grad.any() for grad in grads)


# Log-probabilities of tokens --------------------------------------------------------------------------------

TOKENS = "linear_token_log_probs"


def token_case(positions, features, classes, dtype, several, seed=0):
    """x, weight, ids and bias."""
    x, weight, _, bias = case(positions, features, classes, dtype, seed=seed)
    shape = positions if several is None else (*positions, several)
    return x, weight, random_labels(shape, classes, seed), bias


def assert_tokens(x, weight, ids, bias, given=None, chunks=CHUNKS, what=""):
    compute = np.dtype(np.float64 if np.float64 in (x.dtype, weight.dtype) else np.float32)
    expected, entropies = reference(TOKENS, x, weight, ids, bias, entropy=True)
    rows = wide(x).reshape(-1, x.shape[-1])
    off = linear_layer(rows, weight, bias, np.zeros((len(rows), len(weight))), compute)[0].reshape(
        x.shape[:-1]
    )
    eps = 8 * float(np.finfo(compute).eps)
    each = off if ids.shape == x.shape[:-1] else off[..., None]
    # an entropy moves by sum_c |dH / dz_c| d <= d sum_c p_c |log p_c + H| <= 2 d H, d as for a loss
    for chunk_bytes in chunks:
        where = f"{what} in chunks of {chunk_bytes}"
        found, places = xent.linear_token_log_probs(
            *(given or (x, weight, ids, bias)), entropy=True, chunk_bytes=chunk_bytes
        )
        alone = xent.linear_token_log_probs(*(given or (x, weight, ids, bias)), chunk_bytes=chunk_bytes)
        assert_same_bits(alone, found)
        assert_near(found, expected, each + eps * np.abs(expected), compute, where)
        assert_near(places, entropies, (off + eps) * (1 + np.abs(entropies)), compute, f"entropy {where}")


@pytest.mark.parametrize("several", [None, 0, 3])
@pytest.mark.parametrize("positions, features, classes", SHAPES)
def test_tokens_against_the_reference(positions, features, classes, several, dtype):
    assert_tokens(*token_case(positions, features, classes, dtype, several))


@pytest.mark.parametrize("several", [None, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.25},
        {"logit_cap": 4.0},
        {"prior": np.arange(1.0, 41)},
        {"temperature": 2.0, "logit_cap": 1e-30, "prior": np.arange(1.0, 41)},
    ],
    ids=lambda options: " ".join(options),
)
def test_options_of_tokens(options, several, dtype, rng):
    """Of small integers every logit is exact, and there are ties."""
    x, weight = rng.integers(-2, 3, (2, 9, 6)).astype(dtype), rng.integers(-2, 3, (40, 6)).astype(dtype)
    ids = random_labels((2, 9) if several is None else (2, 9, several), 40)
    log_probs, places = xent.token_log_probs(x @ weight.T, ids, ranks=True, **options)
    twin = xent.reference.linear_token_log_probs(x, weight, ids, ranks=True, entropy=True, **options)
    for chunk_bytes in CHUNKS:
        found = xent.linear_token_log_probs(
            x, weight, ids, ranks=True, entropy=True, chunk_bytes=chunk_bytes, **options
        )
        assert_same_bits(found[0], log_probs)
        assert_same_bits(found[1], places)
        for k, expected in enumerate(twin):
            np.testing.assert_allclose(found[k], expected, rtol=8 * np.finfo(dtype).eps, atol=0)
        pair = xent.linear_token_log_probs(x, weight, ids, ranks=True, chunk_bytes=chunk_bytes, **options)
        assert len(pair) == 2
        assert_same_bits(pair[1], places)


@pytest.mark.parametrize("narrow", NARROW, ids=str)
def test_tokens_of_sixteen_bits(narrow):
    assert_tokens(*token_case((70,), 20, 333, narrow, 2))
    x, weight, ids, _ = token_case((9, 2), 5, 7, narrow, None)
    assert_tokens(x, weight, ids, None)


@pytest.mark.parametrize("variant", ZOO)
def test_tokens_of_every_memory_layout(variant, dtype):
    arrays = token_case((3, 5), 6, 7, dtype, 2)
    assert_tokens(*arrays, [of_zoo(variant, a) for a in arrays], what=variant)


def test_entropies_of_certain_and_uniform_predictions(dtype):
    x = np.array([[0.0], [60.0], [1000.0]], dtype)
    weight = np.array([[1.0], [0.0], [0.0], [0.0]], dtype)
    _, entropies = xent.linear_token_log_probs(x, weight, [0, 0, 0], entropy=True)
    # sum of p (m - x) + log1p(R): 3 e^-60 (60 + 1), where 1 - p rounds to 0
    exact = [np.log(4), 3 * np.exp(-60) * 61, 0.0]
    assert np.allclose(entropies, exact, rtol=8 * float(np.finfo(dtype).eps), atol=0)
    assert np.isnan(xent.linear_token_log_probs(x * np.nan, weight, [0, 0, 0], entropy=True)[1]).all()


@pytest.mark.parametrize("kinds", ["f4 f4", "f2 f4", "f4 f2", "f8 f8", "f4 F"])
@pytest.mark.parametrize("threads", [1, 16])
def test_memory_of_tokens(kinds, threads):
    (x_kind, w_kind), n, d, c = kinds.split(), 160, 32, 8192
    x, weight = np.ones((n, d), x_kind), np.ones((c, d), w_kind.replace("F", "f4"))
    if "F" in kinds:
        weight = np.repeat(weight, 2, 1)[:, ::2]
    ids = random_labels((n, 4), c)
    results = n * 5 * (8 if kinds == "f8 f8" else 4)
    with xent.num_threads(threads):
        for options in ({}, {"entropy": True}, {"prior": np.ones(c), "temperature": 0.5, "ranks": True}):
            call = lambda options=options: xent.linear_token_log_probs(  # noqa: E731
                x, weight, ids, weight[:, 0], chunk_bytes=MIB, **options
            )
            assert peak_bytes(call) - results - options.get("ranks", 0) * ids.nbytes <= MIB + BUFFERS


@pytest.mark.parametrize("needs", [(True, True, True), *NEEDS])
@pytest.mark.parametrize("threads", [1, 16])
def test_memory_with_upstream_gradients(needs, threads):
    n, d, c = 160, 32, 8192
    x, weight, target = np.ones((n, d), "f4"), np.ones((c, d), "f2"), random_labels((n,), c)
    options = {"reduction": "none", "grad_output": advantages((n,)), "needs": needs, "chunk_bytes": 2 * MIB}
    with xent.num_threads(threads):
        assert (
            extra_bytes(lambda: value_and_grad(x, weight, target, weight[:, 0], **options))
            <= 2 * MIB + BUFFERS
        )


def test_tokens_have_the_same_bits_on_any_number_of_threads():
    arrays = token_case((90,), 20, 9000, np.dtype("f4"), 3)
    results = []
    for threads in (1, 2, 16):
        with xent.num_threads(threads):
            results.append(xent.linear_token_log_probs(*arrays, entropy=True, chunk_bytes=600_000))
    assert_same_bits(results[0], results[1])
    assert_same_bits(results[0], results[2])


def test_a_bias_beyond_floats_is_infinite():
    x, weight = np.ones((2, 3), "f4"), np.ones((4, 3), "f4")
    bias = [-1e60, 0.0, 0.0, 0.0]
    with np.errstate(all="raise"):
        losses = xent.linear_cross_entropy(x, weight, [0, 1], bias, reduction="none")
        tokens = xent.linear_token_log_probs(x, weight, [[0], [1]], bias)
    np.testing.assert_allclose(losses, [np.inf, np.log(3)], rtol=1e-6)
    np.testing.assert_allclose(tokens, -losses[:, None], rtol=1e-6)


def test_errors_of_tokens():
    for ids in (Y[:2], 1, np.zeros((3, 4, 1), int), np.zeros((2, 3), int)):
        with raises(ValueError, "ids", np.shape(ids), "(3,)", "(3, K)"):
            xent.linear_token_log_probs(X, W, ids)
    for bad in (5, -1, 2**40):
        with raises(ValueError, f"ids[1, 0] is {bad}", "5"):
            xent.linear_token_log_probs(X, W, [[0, 1], [bad, 7], [0, 0]])
    with raises(TypeError, "ids", "integers"):
        xent.linear_token_log_probs(X, W, Y * 1.0)
    with raises(TypeError, "entropy", "True or False"):
        xent.linear_token_log_probs(X, W, Y, entropy=1)
    with raises(TypeError, "ranks", "True or False"):
        xent.linear_token_log_probs(X, W, Y, ranks=1)
    with raises(ValueError, "chunk_bytes", 0):
        xent.linear_token_log_probs(X, W, Y, chunk_bytes=0)
    for x, ids in [(X, Y), (X[:0], Y[:0])]:  # where there is no position, too
        for option, bad in [("temperature", 0.0), ("logit_cap", -1.0), ("prior", np.ones(4))]:
            with raises(ValueError, option):
                xent.linear_token_log_probs(x, W, ids, **{option: bad})
    with raises(ValueError, "bias", (4,), "5"):
        xent.linear_token_log_probs(X, W, Y, np.zeros(4))


def test_errors_of_upstream_gradients_and_needs():
    for reduction, bad in [("none", 1.0), ("none", np.ones(2)), ("mean", np.ones(3))]:
        with raises(ValueError, "grad_output", np.shape(bad)):
            value_and_grad(X, W, Y, reduction=reduction, grad_output=bad)
    with raises(TypeError, "grad_output", "real numbers"):
        value_and_grad(X, W, Y, grad_output="1")
    for bad, error in [((True, True), ValueError), (True, TypeError), ((1, True, True), TypeError)]:
        with raises(error, "needs"):
            value_and_grad(X, W, Y, needs=bad)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("positions, classes", [(1797, 10), (5001, 3), (2000, 16)])
def test_the_gradient_by_the_bias_of_few_classes(positions, classes, dtype):
    """Rows of few classes are added up side by side."""
    rng = np.random.default_rng(0)
    x, weight = (
        rng.standard_normal((positions, 4)).astype(dtype),
        rng.standard_normal((classes, 4)).astype(dtype),
    )
    target, bias = rng.integers(0, classes, positions), np.zeros(classes, dtype)
    _, grads = xent.linear_cross_entropy_value_and_grad(x, weight, target, bias, reduction="sum")
    wide = [a.astype("f8") for a in (x, weight)]
    _, expected = xent.reference.linear_cross_entropy_value_and_grad(
        *wide, target, bias.astype("f8"), reduction="sum"
    )
    np.testing.assert_allclose(grads[2], expected[2], rtol=0, atol=np.finfo(dtype).eps * 2 * positions)
