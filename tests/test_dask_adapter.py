"""xent.dask: beside the local functions, for every way to cut an array, and on clusters."""

import contextlib
import itertools
import os
import pickle
import signal
import time

import numpy as np
import pytest
from helpers import run_python

import xent

pytest.importorskip("dask.array")
distributed = pytest.importorskip("distributed")

import dask  # noqa: E402
import dask.array as da  # noqa: E402

import xent.dask  # noqa: E402

N, C, D = 23, 11, 5
CHUNKS = [(10, C), (23, 4), (10, 4), (7, (5, 0, 6))]  # of positions, of classes, of both, an empty one
EMPTY = ((0, 10, 0, 13), (4, 7))
# Roundings: a few of the last digit, as large as the largest term where terms have both signs.
RTOL = {"float64": 1e-13, "float32": 1e-6, "float16": 1e-3}
OPTIONS = [
    {}, {"weight": "mine"}, {"label_smoothing": 0.1},
    {"weight": "mine", "label_smoothing": 0.2, "temperature": 0.7}, {"prior": "mine", "logit_cap": 2.0},
    {"z_loss": 0.1, "temperature": 2.0}, {"gamma": 2.0, "weight": "mine"},
    {"gamma": 0.5, "prior": "mine", "z_loss": 0.01, "temperature": 3.0},
]  # fmt: skip


@pytest.fixture(autouse=True)
def scheduler():
    """One thread, so that an error is where it happens."""
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def case(rng):
    """Logits with ties, labels of which two values are ignored, probabilities, weights of both signs."""

    class Case:
        logits = 3 * rng.standard_normal((N, C))
        labels = rng.integers(0, C, N)
        soft = rng.dirichlet(np.ones(C), N)
        sample_weight = rng.standard_normal(N)
        weight = rng.standard_normal(C) + 0.5
        prior = rng.dirichlet(np.ones(C))
        x, layer, bias = rng.standard_normal((N, D)), rng.standard_normal((C, D)), rng.standard_normal(C)
        ignore_index = (-100, -1)

        def options(self, options, **renamed):
            """Options with their arrays."""
            named = {k: getattr(self, k) if v == "mine" else v for k, v in options.items()}
            return {renamed.get(k, k): v for k, v in named.items()}

    Case.logits[2, [3, 9]] = Case.logits[2].max()
    Case.logits[9] = 1.0
    Case.labels[[3, 7]], Case.sample_weight[5], Case.weight[2] = (-100, -1), 0.0, 0.0
    return Case()


def assert_close(found, expected, dtype, slack=1.0):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    scale = np.abs(expected[np.isfinite(expected)].astype(float)).max(initial=1e-300)
    rtol = slack * RTOL[np.dtype(dtype).name]
    np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=rtol, atol=rtol * scale)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("target", ["labels", "soft"])
def test_losses(case, options, target):
    """Value and gradient; reductions, dtypes, weights and chunks go round."""
    y = getattr(case, target)
    cases = zip(
        ["none", "mean", "sum", "mean_valid", "mean_full", "mean_batch"],
        ["float64", "float32", "float64", "float16", "float64", "float32"],
        [None, case.sample_weight, None, case.sample_weight, None, case.sample_weight],
        itertools.cycle([*CHUNKS, EMPTY]),
        strict=False,
    )
    for reduction, dtype, sample_weight, chunks in cases:
        if options.get("gamma") and target == "soft":
            chunks = CHUNKS[0]  # others are refused
        logits = case.logits.astype(dtype)
        how = {"sample_weight": sample_weight, "reduction": reduction, **case.options(options)}
        how |= {"ignore_index": case.ignore_index} if target == "labels" else {}
        loss, grad = xent.cross_entropy_value_and_grad(logits, y, **how)
        x = da.from_array(logits, chunks=chunks)
        value = xent.dask.cross_entropy(x, y, **how)
        lazy = xent.dask.cross_entropy_value_and_grad(x, y, split_every=2, **how)
        assert value.dtype == lazy[0].dtype == loss.dtype and value.shape == loss.shape
        assert lazy[1].dtype == grad.dtype and lazy[1].chunks == x.chunks
        found = dask.compute(value, *lazy)
        slack = 1 if reduction == "none" or sample_weight is None else 20  # terms of both signs are added
        assert_close(found[0], loss, dtype, slack)
        assert_close(found[1], loss, dtype, slack)
        assert_close(found[2], grad, dtype, slack=2)


def test_chunks_of_whole_positions_are_the_same_bits(case):
    """Losses of single positions do not depend on the chunk; one chunk is the local call."""
    for dtype in "float64", "float32", "float16":
        logits = case.logits.astype(dtype)
        x = da.from_array(logits, chunks=(4, C))
        for kind, y in {"none": case.labels, "sum": case.labels, "mean": case.soft}.items():
            how = {"ignore_index": case.ignore_index} if kind != "mean" else {}
            expected = xent.cross_entropy(logits, y, reduction=kind, **how)
            whole = xent.dask.cross_entropy(x.rechunk(-1), y, reduction=kind, **how).compute()
            assert kind == "sum" or np.array_equal(whole, expected)
            if kind == "none":
                found = xent.dask.cross_entropy(x, y, reduction=kind, **how)
                assert np.array_equal(found.compute(), expected)
        found, expected = (
            f(z, case.labels, ignore_index=case.ignore_index, reduction="sum")[1]
            for f, z in (
                (xent.dask.cross_entropy_value_and_grad, x),
                (xent.cross_entropy_value_and_grad, logits),
            )
        )
        assert np.array_equal(found.compute(), expected)


@pytest.mark.parametrize("options", [{}, {"logit_cap": 3.0, "temperature": 0.7}], ids=str)
def test_a_position_without_mass_is_not_there(options):
    """All of its target is 0: nothing of its logits shows, whatever the chunks are."""
    logits = np.array([[40.0, 0.0, -3.0, 1.0], [np.nan, 1.0, np.inf, 60.0], [0.0, 1.0, 2.0, 3.0]])
    soft = np.array([[0.5, 0.5, 0.0, 0.0], [0.0] * 4, [0.0, 0.0, 1.0, 0.0]])
    expected = xent.cross_entropy_value_and_grad(logits, soft, **options)
    assert np.isfinite(expected[0]) and not expected[1][1].any()
    for chunks in [(2, 1), (3, 4), (1, 3)]:
        lazy = xent.dask.cross_entropy_value_and_grad(da.from_array(logits, chunks=chunks), soft, **options)
        for found, right in zip(dask.compute(*lazy), expected, strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-13, atol=1e-300)


def test_small_losses_keep_their_digits():
    """Where the prediction is certain, R is not lost beside 1, whichever chunk the label is in."""
    logits = np.array([[40.0, 0.0, -3.0, 1.0], [0.0, 1.0, 2.0, 60.0]])
    for labels in [0, 3], [1, 0]:
        expected = xent.cross_entropy(logits, labels, reduction="none")
        found = xent.dask.cross_entropy(
            da.from_array(logits, chunks=(2, 1)), labels, reduction="none"
        ).compute()
        np.testing.assert_allclose(found, expected, rtol=1e-14)
    _, grad = xent.dask.cross_entropy_value_and_grad(da.from_array(logits, chunks=(2, 1)), [0, 3])
    np.testing.assert_allclose(
        grad.compute(), xent.cross_entropy_grad(logits, [0, 3]), rtol=1e-14, atol=1e-300
    )


@pytest.mark.parametrize("classes", [(1, 1, 2), (2, 2)])
def test_special_values(classes):
    """NaN and infinities are where the local function has them."""
    inf, nan = np.inf, np.nan
    logits = np.array([
        [inf, 0, 1, 2], [inf, inf, 0, 0], [-inf] * 4, [-inf, 0, 0, -inf], [nan, 0, 0, 0], [0, 0, nan, 0],
        [-inf, -inf, -inf, 3], [1, 2, 3, 4],
    ])  # fmt: skip
    x = da.from_array(logits, chunks=(3, classes))
    for label in range(4):
        labels = np.full(8, label)
        for options in {}, {"label_smoothing": 0.1}, {"sample_weight": np.arange(8.0) % 2}:
            local = xent.cross_entropy(logits, labels, reduction="none", **options)
            found = xent.dask.cross_entropy(x, labels, reduction="none", **options).compute()
            np.testing.assert_allclose(found, local, rtol=1e-13)
        how = {"top_k": (1, 2, 3), "confusion": True, "calibration_bins": 3}
        found, local = xent.dask.evaluate(x, labels, **how).compute(), xent.evaluate(logits, labels, **how)
        assert found.top_k_sums == local.top_k_sums
        np.testing.assert_array_equal(found.confusion, local.confusion)
        np.testing.assert_allclose(found.bin_sums, local.bin_sums, rtol=1e-13)


EVALUATIONS = [
    {}, {"top_k": (1, 3, 20)}, {"top_k": 2, "calibration_bins": 5, "confusion": True, "base": 2},
    {"prior": "mine", "temperature": 2.0, "confusion": "per_class"}, {"top_k": ()},
]  # fmt: skip


@pytest.mark.parametrize("options", EVALUATIONS, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
def test_evaluate(case, options, weighted):
    dtype = "float64" if weighted else "float32"
    logits = case.logits.astype(dtype)
    how = {"ignore_index": case.ignore_index, **case.options(options)}
    how |= {"sample_weight": case.sample_weight} if weighted else {}
    local = xent.evaluate(logits, case.labels, **how)
    for chunks in [*CHUNKS[::2], EMPTY] if weighted else [*CHUNKS[1::2], (5, 1)]:
        lazy = xent.dask.evaluate(da.from_array(logits, chunks=chunks), case.labels, split_every=2, **how)
        found, accuracy = dask.compute(lazy, lazy.accuracy)
        assert type(found) is xent.Evaluation and accuracy == found.accuracy
        assert_same_evaluation(found, local, dtype, weighted)


def assert_same_evaluation(found, local, dtype, weighted):
    exact = {"count", "top_k", "base"} | (set() if weighted else {"correct_sum", "top_k_sums"})
    for name, expected in vars(local).items():
        value = getattr(found, name)
        if isinstance(expected, np.ndarray):
            assert_close(value, expected, dtype)
        elif expected is None or name in exact:
            assert value == expected and type(value) is type(expected), name
        else:
            np.testing.assert_allclose(value, expected, rtol=RTOL[dtype], atol=RTOL[dtype], err_msg=name)


def test_evaluations_of_ties(rng):
    """Of equal logits the lowest class comes first, wherever the chunks end."""
    logits = rng.integers(0, 3, (200, 12)).astype(np.float32)
    labels = rng.integers(0, 12, 200)
    ks = tuple(range(1, 13))
    local = xent.evaluate(logits, labels, top_k=ks, confusion=True)
    for classes in (12,), (6, 6), (1,) * 12, (5, 7), (11, 1):
        found = xent.dask.evaluate(
            da.from_array(logits, chunks=(64, classes)), labels, top_k=ks, confusion=True, split_every=3
        ).compute()
        assert found.top_k_sums == local.top_k_sums
        np.testing.assert_array_equal(found.confusion, local.confusion)


def test_evaluation_of_positions_is_that_of_the_chunks(case):
    """Chunks of all classes: to the last bit the sum of the local evaluations, in their order."""
    x = da.from_array(case.logits, chunks=(10, C))
    how = {"ignore_index": case.ignore_index, "calibration_bins": 3, "confusion": True}
    parts = [xent.evaluate(case.logits[k : k + 10], case.labels[k : k + 10], **how) for k in range(0, N, 10)]
    assert xent.dask.evaluate(x, case.labels, **how).compute() == sum(parts)


@pytest.mark.parametrize(
    "shape, axis", [((C,), 0), ((3, C, 4, 2), 1), ((C, 6), 0), ((2, 3, C), -1), ((6, C, 1), 1)]
)
def test_axes(rng, shape, axis):
    logits = rng.standard_normal(shape)
    axis %= len(shape)
    positions = shape[:axis] + shape[axis + 1 :]
    labels = rng.integers(0, C, positions)
    for chunk in 4, C:
        x = da.from_array(logits, chunks=tuple(chunk if k == axis else 2 for k in range(len(shape))))
        for reduction in "none", "mean":
            how = {"axis": axis, "reduction": reduction}
            loss, grad = xent.cross_entropy_value_and_grad(logits, labels, **how)
            lazy = xent.dask.cross_entropy_value_and_grad(x, labels, **how)
            assert lazy[0].shape == np.shape(loss)
            found = dask.compute(xent.dask.cross_entropy(x, labels, **how), *lazy)
            assert_close(found[0], loss, "float64")
            assert_close(found[1], loss, "float64")
            assert_close(found[2], grad, "float64")
        found, local = (
            xent.dask.evaluate(x, labels, axis=axis).compute(),
            xent.evaluate(logits, labels, axis=axis),
        )
        assert found.correct_sum == local.correct_sum and found.count == local.count
        assert found.loss == pytest.approx(local.loss, rel=1e-13)


@pytest.mark.parametrize(
    "options",
    [{}, {"weight": "mine", "label_smoothing": 0.1}, {"gamma": 2.0, "prior": "mine", "z_loss": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("chunks", CHUNKS[:3], ids=str)
def test_linear(case, options, chunks):
    """The loss of a layer and its gradients, weights in memory or cut into classes."""
    rng = np.random.default_rng(1)
    cases = [
        ("none", rng.standard_normal(N), "float64", None), ("mean", None, "float32", "bias"),
        ("sum", 2.5, "float64", "bias"), ("mean", None, "float16", "bias"),
    ]  # fmt: skip
    for reduction, grad_output, dtype, bias in cases:
        x, layer = case.x.astype(dtype), case.layer.astype(dtype)
        bias = bias and case.bias.astype(dtype)
        how = {
            "sample_weight": case.sample_weight, "reduction": reduction, "grad_output": grad_output,
            "ignore_index": case.ignore_index, **case.options(options, weight="class_weight"),
        }  # fmt: skip
        loss, grads = xent.linear_cross_entropy_value_and_grad(x, layer, case.labels, bias, **how)
        weight = layer if chunks[1] == C else da.from_array(layer, chunks=(chunks[1], D))
        lazy = xent.dask.linear_cross_entropy_value_and_grad(
            da.from_array(x, chunks=(chunks[0], D)), weight, case.labels, bias, split_every=2, **how
        )
        assert lazy[1][0].chunks[0] == da.from_array(x, chunks=(chunks[0], D)).chunks[0]
        found, found_grads = dask.compute(*lazy)
        # products of float32 are added up in another order
        slack = {"float32": 20, "float16": 4, "float64": 20}[dtype]
        assert_close(found, loss, dtype, slack)
        for array, grad, laz in zip(found_grads, grads, lazy[1], strict=True):
            if grad is None:
                assert array is None
            else:
                assert laz.dtype == grad.dtype and laz.shape == grad.shape
                assert_close(array, grad, dtype, slack)


def test_linear_options(case):
    """Soft labels, gradients that are not needed, positions of two axes, little memory."""
    x, soft = case.x[:20].reshape(4, 5, D), case.soft[:20].reshape(4, 5, C)
    for chunks in (C, D), (4, D):
        weight = da.from_array(case.layer, chunks=chunks)
        lazy = xent.dask.linear_cross_entropy_value_and_grad(
            da.from_array(x, chunks=(3, 2, D)), weight, soft, needs=(True, True, False), chunk_bytes=500
        )
        loss, grads = dask.compute(*lazy)
        local, local_grads = xent.linear_cross_entropy_value_and_grad(x, case.layer, soft)
        assert_close(loss, local, "float64", 10)
        assert_close(grads[0], local_grads[0], "float64", 10)
        assert_close(grads[1], local_grads[1], "float64", 10)
        assert grads[2] is None
        none = xent.dask.linear_cross_entropy_value_and_grad(
            da.from_array(x, chunks=(3, 2, D)), weight, soft, needs=(False, False, False)
        )
        assert none[1] == (None, None, None)
        assert none[0].dtype == np.float64
        assert_close(none[0].compute(), local, "float64", 10)


def test_means_over_nothing(case):
    for chunks in (10, C), (10, 4):
        x = da.from_array(case.logits, chunks=chunks)
        nothing = [
            ({"ignore_index": tuple(range(-1, C)) + (-100,)}, 0.0),
            ({"sample_weight": np.zeros(N)}, 0.0),
        ]
        for how, expected in nothing:
            how = {"ignore_index": case.ignore_index, **how}
            loss, grad = dask.compute(*xent.dask.cross_entropy_value_and_grad(x, case.labels, **how))
            assert loss == expected == xent.dask.cross_entropy(x, case.labels, **how).compute()
            assert not grad.any()
        cancel = np.zeros(N)
        cancel[[0, 1]] = 1.0, -1.0
        how = {"sample_weight": cancel, "ignore_index": case.ignore_index}
        local = xent.cross_entropy(case.logits, case.labels, **how)
        assert np.isinf(local)
        assert xent.dask.cross_entropy(x, case.labels, **how).compute() == local
        loss, grad = dask.compute(*xent.dask.cross_entropy_value_and_grad(x, case.labels, **how))
        assert loss == local and np.isinf(grad[:2]).all()


# ---- what is given ----


def test_labels_come_in_any_form(case):
    x = da.from_array(case.logits, chunks=(10, 4))
    how = {"ignore_index": case.ignore_index}
    expected = xent.cross_entropy(case.logits, case.labels, **how)
    forms = [
        case.labels,
        case.labels.tolist(),
        da.from_array(case.labels, chunks=7),
        case.labels.astype(np.int8),
    ]
    for labels in forms:
        assert xent.dask.cross_entropy(x, labels, **how).compute() == pytest.approx(expected, rel=1e-13)


def test_columns_of_frames(case):
    """Their partitions are the chunks of the positions."""
    frames = pytest.importorskip("dask.dataframe", exc_type=ImportError)
    pandas = pytest.importorskip("pandas")
    frame = frames.from_pandas(pandas.DataFrame({"y": case.labels, "w": case.sample_weight}), npartitions=3)
    sizes = tuple(frame.map_partitions(len).compute())
    x = da.from_array(case.logits, chunks=(sizes, 4))
    how = {"ignore_index": case.ignore_index}
    found = xent.dask.evaluate(x, frame.y, sample_weight=frame.w, **how).compute()
    local = xent.evaluate(case.logits, case.labels, sample_weight=case.sample_weight, **how)
    assert found.loss == pytest.approx(local.loss)
    with pytest.raises(ValueError, match="target has 3 partitions.*to_dask_array"):
        xent.dask.evaluate(x.rechunk((5, 4)), frame.y)
    with pytest.raises(ValueError, match=r"partition \d of target has \d rows"):
        xent.dask.evaluate(x.rechunk(((1, 1, N - 2), 4)), frame.y, **how).compute()
    with pytest.raises(ValueError, match=r"target has chunks of unknown sizes.*compute_chunk_sizes"):
        xent.dask.evaluate(x, frame.y.to_dask_array())
    with pytest.raises(TypeError, match=r"logits must be a Dask array.*to_dask_array\(lengths=True\)"):
        xent.dask.evaluate(frame, frame.y)


def test_refusals(case):
    x, labels = da.from_array(case.logits, chunks=(10, 4)), case.labels
    unknown = x[x[:, 0] > 0]
    evaluate, linear = xent.dask.evaluate, xent.dask.linear_cross_entropy_value_and_grad
    cross_entropy = xent.dask.cross_entropy
    some = da.from_array(case.x, chunks=(10, D))
    ignored = {"ignore_index": case.ignore_index}
    for kind, words, call in [
        (TypeError, r"must be a Dask array, got ndarray.*from_array", lambda: evaluate(case.logits, labels)),
        (ValueError, r"unknown sizes.*logits.compute_chunk_sizes\(\)", lambda: evaluate(unknown, labels)),
        (ValueError, r"target has chunks of unknown", lambda: evaluate(x, unknown[:, 0])),
        (ValueError, r"shape of the positions, \(23,\), got \(22,\)", lambda: cross_entropy(x, labels[1:])),
        (ValueError, r"reduction must be one of", lambda: cross_entropy(x, labels, reduction="median")),
        (ValueError, r"label_smoothing must be", lambda: cross_entropy(x, labels, label_smoothing=2)),
        (ValueError, r"weight must have one", lambda: cross_entropy(x, labels, weight=[1.0])),
        (ValueError, r"logits.rechunk\({1: -1}\)", lambda: cross_entropy(
            x, labels, gamma=1, label_smoothing=0.1)),
        (ValueError, r"gamma takes labels", lambda: cross_entropy(x, case.soft, gamma=1)),
        (TypeError, r"target must hold integer", lambda: cross_entropy(x, labels.astype(float))),
        (TypeError, r"target must hold integer", lambda: evaluate(x, case.soft)),
        (np.exceptions.AxisError, r"axis 2 is out of bounds", lambda: evaluate(x, labels, axis=2)),
        (ValueError, r"top_k", lambda: evaluate(x, labels, top_k=0)),
        (ValueError, r"x.rechunk\({1: -1}\)", lambda: linear(some.rechunk((10, 2)), case.layer, labels)),
        (ValueError, r"features", lambda: linear(some, case.layer[:, 1:], labels)),
        (TypeError, r"x must be a Dask array", lambda: linear(case.x, case.layer, labels)),
        (ValueError, r"one number", lambda: linear(some, case.layer, labels, grad_output=np.ones(N))),
        (ValueError, r"needs must be", lambda: linear(some, case.layer, labels, needs=(True,))),
        (ValueError, r"bias must have", lambda: linear(some, case.layer, labels, case.bias[1:])),
        (ValueError, r"weight.rechunk\({0: -1}\)", lambda: linear(
            some, da.from_array(case.layer, chunks=(4, D)), case.soft, gamma=1.0)),
    ]:  # fmt: skip
        with pytest.raises(kind, match=words):
            call()
    for chunks in (10, C), (10, 4):
        wrong, weights = labels.copy(), np.ones(N)
        wrong[21], weights[12] = C, np.nan
        lazy = xent.dask.cross_entropy(x.rechunk(chunks), wrong, **ignored)
        with pytest.raises(ValueError, match=rf"target\[21\] is {C}, expected 0 <= label < {C}"):
            lazy.compute()
        with pytest.raises(ValueError, match=rf"target\[21\] is {C}"):
            xent.dask.evaluate(x.rechunk(chunks), wrong, **ignored).compute()
        with pytest.raises(ValueError, match=r"sample_weight\[12\] = nan"):
            xent.dask.evaluate(x.rechunk(chunks), labels, sample_weight=weights, **ignored).compute()
        masked = da.from_array(np.ma.masked_less(labels, 0), chunks=10)
        with pytest.raises(TypeError, match="masked"):
            xent.dask.evaluate(x.rechunk(chunks), masked, **ignored).compute()


class Recording:
    """As a tensor of PyTorch that records gradients."""

    requires_grad = True

    def __init__(self, array):
        self.shape, self.dtype = array.shape, array.dtype

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda a: np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) % 2), "masked"),
        (lambda a: [None, *a.tolist()[1:]], "missing values"),
        (Recording, "detach"),
        (lambda a: a.astype(object), "object"),
        (lambda a: dict(enumerate(a.tolist())), "dict"),
        (lambda a: (row for row in a), "generator"),
    ],
)
def test_what_means_more_than_its_numbers(case, make, words):
    """What xent refuses in memory is refused beside lazy arrays, and names its argument."""
    logits, x = da.from_array(case.logits, (10, C)), da.from_array(case.x, (10, D))
    for function in [xent.dask.cross_entropy, xent.dask.cross_entropy_value_and_grad, xent.dask.evaluate]:
        for name in ["target", "sample_weight", "weight", "prior"]:
            if name == "weight" and function is xent.dask.evaluate:
                continue
            options = {"target": case.labels % C, "sample_weight": case.sample_weight, "prior": case.prior}
            given = options | {name: make({"weight": case.weight, **options}[name])}
            with pytest.raises(TypeError, match=rf"(?s){name}.*{words}"):
                dask.compute(function(logits, given.pop("target"), **given))
    layer = {"weight": case.layer, "target": case.labels % C, "bias": case.bias}
    for name, array in layer.items():
        with pytest.raises(TypeError, match=rf"(?s){name}.*{words}"):
            dask.compute(xent.dask.linear_cross_entropy_value_and_grad(x, **(layer | {name: make(array)})))
    with pytest.raises(TypeError, match=rf"(?s)grad_output.*{words}"):
        xent.dask.linear_cross_entropy_value_and_grad(
            x, **layer, reduction="none", grad_output=make(case.sample_weight)
        )


def test_the_graph_is_small():
    """Neither logits nor labels of Dask arrays are in it."""
    x = da.random.default_rng(0).standard_normal((100_000, 64), chunks=(10_000, 16))
    labels = da.zeros(100_000, dtype=int, chunks=5_000)
    for lazy in (
        xent.dask.cross_entropy(x, labels), xent.dask.evaluate(x, labels, confusion=True),
        xent.dask.cross_entropy_value_and_grad(x, labels, reduction="sum")[0],
    ):  # fmt: skip
        assert len(pickle.dumps(dict(lazy.__dask_graph__()))) < 400_000


def test_equal_calls_have_equal_keys(case):
    """So that Dask does once what is asked twice."""
    x = da.from_array(case.logits, chunks=(10, 4))
    first, second = (xent.dask.cross_entropy(x, case.labels, prior=case.prior) for _ in range(2))
    assert first.name == second.name
    assert xent.dask.evaluate(x, case.labels).key == xent.dask.evaluate(x, case.labels).key


def test_results_are_evaluations_to_dask(case):
    """Their size is that of their arrays, and they are pickled."""
    result = xent.evaluate(case.logits, np.abs(case.labels) % C, confusion=True)
    assert dask.sizeof.sizeof(result) >= result.confusion.nbytes
    assert pickle.loads(pickle.dumps(result)) == result


def test_dask_is_an_extra():
    done = run_python("-c", "import sys; sys.modules['dask'] = None; import xent.dask")
    assert done.stderr.strip().endswith('ImportError: xent.dask needs Dask: pip install "xent-kernels[dask]"')


def test_threads_of_one_process(case):
    """The scheduler of threads: the same bits."""
    x = da.from_array(case.logits, chunks=(5, 4))
    lazy = xent.dask.cross_entropy_value_and_grad(x, np.abs(case.labels) % C)
    one = dask.compute(*lazy)
    with dask.config.set(scheduler="threads", num_workers=4):
        many = dask.compute(*lazy)
    assert one[0] == many[0]
    np.testing.assert_array_equal(one[1], many[1])


# ---- clusters ----

quiet = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning", "ignore::DeprecationWarning"
)


@contextlib.contextmanager
def cluster(**options):
    """A client of a cluster on this machine."""
    with dask.config.set({"distributed.worker.daemon": True, "distributed.logging.distributed": "error"}):
        with distributed.LocalCluster(dashboard_address=None, silence_logs=50, **options) as here:
            with distributed.Client(here) as client:
                yield client


def threads_of_a_call(x):
    return xent._tasks._task(lambda: xent.get_num_threads())()


def run_all(client, case):
    """All functions, beside the local ones."""
    labels = np.abs(case.labels) % C
    for chunks in (10, C), (10, 4):
        x = da.from_array(case.logits, chunks=chunks)
        weight = da.from_array(case.layer, chunks=(chunks[1], D))
        some = da.from_array(case.x, chunks=(chunks[0], D))
        lazy = (
            xent.dask.evaluate(x, labels, top_k=(1, 2)), xent.dask.cross_entropy_value_and_grad(x, labels),
            xent.dask.linear_cross_entropy_value_and_grad(some, weight, labels, case.bias),
        )  # fmt: skip
        found = dask.compute(*lazy, scheduler=client)
        again = dask.compute(*lazy)
        assert found[0] == again[0]  # the same bits, whoever computed what
        np.testing.assert_array_equal(found[1][1], again[1][1])
        assert found[1][0] == again[1][0] and found[2][0] == again[2][0]
        for a, b in zip(found[2][1], again[2][1], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)  # BLAS may have other threads
        assert found[1][0] == pytest.approx(xent.cross_entropy(case.logits, labels), rel=1e-13)


@quiet
def test_a_cluster_of_processes(case):
    with cluster(n_workers=2, threads_per_worker=1, processes=True, memory_limit=0) as client:
        run_all(client, case)
        # the nanny of a worker gives libraries one thread
        assert set(client.run(xent.get_num_threads).values()) == {1}


@quiet
def test_a_cluster_of_threads(case):
    """Each thread of a worker has its share of the threads of xent."""
    with cluster(n_workers=1, threads_per_worker=2, processes=False, memory_limit=0) as client:
        run_all(client, case)
        before = xent._threads._process_limit
        try:
            for threads, expected in (6, 3), (2, 1), (1, 1):
                xent.set_num_threads(threads)
                assert client.submit(threads_of_a_call, threads, pure=False).result() == expected
        finally:
            xent._threads._process_limit = before


def slowly(block, seconds):
    time.sleep(seconds)
    return block


@quiet
@pytest.mark.slow
def test_a_worker_is_killed(rng):
    """What it had is computed again by the other one, and the result is right to the last bit."""
    logits = rng.standard_normal((4000, 60))
    labels = rng.integers(0, 60, 4000)
    x = da.from_array(logits, chunks=(200, 20)).map_blocks(slowly, 0.2, dtype=float)
    with dask.config.set({"distributed.scheduler.allowed-failures": 3}):
        with cluster(n_workers=2, threads_per_worker=1, processes=True, memory_limit=0) as client:
            lazy = [xent.dask.evaluate(x, labels), *xent.dask.cross_entropy_value_and_grad(x, labels)]
            futures = client.compute(lazy, retries=3)
            pids = client.run(os.getpid)
            time.sleep(3)
            assert not futures[0].done()
            os.kill(next(iter(pids.values())), signal.SIGKILL)
            found = client.gather(futures)
            assert set(client.run(os.getpid).values()) != set(pids.values())  # there is a new one
    with dask.config.set(scheduler="synchronous"):
        y = da.from_array(logits, chunks=(200, 20))
        again = dask.compute(
            xent.dask.evaluate(y, labels), *xent.dask.cross_entropy_value_and_grad(y, labels)
        )
    assert found[0] == again[0] and found[1] == again[1]
    np.testing.assert_array_equal(found[2], again[2])
    assert found[0].loss == pytest.approx(xent.evaluate(logits, labels).loss, rel=1e-13)


def memory_of_process():
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@quiet
@pytest.mark.slow
def test_more_than_memory():
    """3.2 GB of logits, sharded over classes, on two workers that hold 400 MB each at most."""
    n, classes = 12_500, 32_000
    x = da.random.default_rng(0).standard_normal((n, classes), chunks=(1250, 2000), dtype=np.float64)
    labels = da.random.default_rng(1).integers(0, classes, n, chunks=1250)
    with cluster(n_workers=2, threads_per_worker=1, processes=True, memory_limit="600MB") as client:
        before = max(client.run(memory_of_process).values())
        result = client.compute(xent.dask.evaluate(x, labels, top_k=(1, 5))).result()
        most = max(client.run(memory_of_process).values())
    assert result.count == n and most - before < 300 * 2**20
    assert result.loss == pytest.approx(np.log(classes) + 0.5, abs=0.05)  # of normal logits


def test_what_holds_lazy_arrays_is_told_how_to_give_them(case):
    class Frame:
        def to_dask_array(self, lengths=None):
            raise AssertionError("nobody counts rows but who is asked to")

    class DataArray:
        data = da.from_array(case.logits, (10, C))

    for given, cure in [(Frame(), r"to_dask_array\(lengths=True\)"), (DataArray(), r"logits\.data")]:
        with pytest.raises(TypeError, match=f"logits must be a Dask array.*{cure}"):
            xent.dask.cross_entropy(given, case.labels)
    empty = xent.dask.cross_entropy(da.zeros((0, C)), [], reduction="sum")
    assert empty.compute() == 0
