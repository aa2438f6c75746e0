"""nce_loss and sampled_softmax_cross_entropy: against the reference, their limits and finite differences."""

import math

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
    reference,
    wide,
)
from hypothesis import given
from hypothesis import strategies as st
from tolerances import DIFFERENCES, linear_layer

import xent

NAMES = ["nce_loss", "sampled_softmax_cross_entropy"]
REDUCTIONS = ["none", "sum", "mean", "mean_valid", "mean_full", "mean_batch"]
# (positions, D, C, K)
SHAPES = [((1,), 1, 1, 1), ((9,), 5, 7, 3), ((300,), 16, 3, 10), ((3, 7), 20, 65, 40), ((), 4, 6, 2)]


def case(positions, features, classes, samples, dtype, shared=True, seed=0):
    """x, weight, target, samples, their log-probabilities and bias, of scores of order one."""
    rng = np.random.default_rng([seed, *positions, classes])
    return [
        random_logits((*positions, features), dtype, seed, 1.0),
        random_logits((classes, features), dtype, seed + 1, features**-0.5),
        random_labels(positions, classes, seed),
        rng.integers(0, classes, samples if shared else (*positions, samples)),
        np.log(rng.dirichlet(np.full(classes, 2.0))),
        random_logits((classes,), dtype, seed + 2, 1.0),
    ]


def magnitudes(name, target, samples, shape):
    """What the derivatives by the scores, spread over the classes, are at most."""
    count = math.prod(shape[:-1])
    drawn = np.broadcast_to(samples, (*shape[:-1], np.shape(samples)[-1])).reshape(count, -1)
    g = np.zeros((count, shape[-1]))
    np.add.at(g, (np.arange(count), np.ravel(target)), 1.0)
    np.add.at(g, (np.arange(count)[:, np.newaxis], drawn), 1.0)
    return g


def assert_near(actual, expected, bound, dtype, what):
    actual, expected = np.asarray(actual), np.asarray(expected, np.float64)
    assert (actual.dtype, actual.shape) == (dtype, expected.shape), what
    excess = np.abs(wide(actual) - expected) - bound - float(finfo(dtype).eps) * np.abs(expected)
    assert not excess.size or excess.max() <= 0, f"{what}: {excess.max()}"


def assert_sampled(name, arrays, given=None, **options):
    """The loss and its gradients against the reference; `given` are the same arrays in other layouts."""
    x, weight, target, samples, log_prob, bias = arrays
    given = given or arrays
    compute = np.dtype(np.float64 if np.float64 in (x.dtype, weight.dtype) else np.float32)
    expected, gradients = reference(f"{name}_value_and_grad", *arrays, **options)
    rows = wide(x).reshape(-1, x.shape[-1])
    offset = np.abs(log_prob) + math.log(np.shape(samples)[-1]) + (0 if bias is None else np.abs(wide(bias)))
    g = magnitudes(name, target, samples, (*x.shape[:-1], len(weight)))
    reduction = options.get("reduction", "mean")
    size = x.shape[0] if reduction == "mean_batch" else len(g)
    factor = 1.0 if reduction in ("none", "sum") else 1 / max(size, 1)
    # a term of nce_loss moves by as much as its score, and there is one for each sample
    off, *bounds = linear_layer(rows, weight, offset, g * factor, compute)
    off = off.reshape(x.shape[:-1]) * g.sum(axis=1).reshape(x.shape[:-1])
    off = (off if reduction == "none" else off.sum() * factor) + 8 * finfo(compute).eps * np.abs(expected)

    both = getattr(xent, f"{name}_value_and_grad")(*given, **options)
    assert_same_bits(both[0], getattr(xent, name)(*given, **options))
    assert_near(both[0], expected, off, compute, "loss")
    results = zip(both[1], gradients, (x, weight, bias), bounds, ["grad_x", "weight", "bias"], strict=True)
    for actual, exact, like, bound, what in results:
        if like is None:
            assert actual is None
        else:
            assert_near(actual, exact, bound.reshape(like.shape), like.dtype, what)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_the_reference(name, shape, shared, dtype):
    arrays = case(*shape, dtype, shared)
    for reduction in REDUCTIONS if shape[0] else REDUCTIONS[:-1]:  # mean_batch needs a batch
        assert_sampled(name, arrays, reduction=reduction)
        assert_sampled(name, [*arrays[:5], None], reduction=reduction)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("kinds", [("f2", "f2"), ("bfloat16", "bfloat16"), ("f4", "f2"), ("f4", "f8")])
def test_dtypes(name, kinds, shared):
    arrays = case((40,), 6, 9, 5, np.dtype("f8"), shared)
    x_kind, w_kind = (ml_dtypes.bfloat16 if kind == "bfloat16" else kind for kind in kinds)
    arrays[0], arrays[1] = arrays[0].astype(x_kind), arrays[1].astype(w_kind)
    assert_sampled(name, [*arrays[:5], None])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variant", ZOO)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_every_memory_layout(name, shared, variant, dtype):
    arrays = case((3, 5), 6, 7, 4, dtype, shared)
    assert_sampled(name, arrays, [of_zoo(variant, a) for a in arrays])


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
def test_any_shape(name, data):
    dtype = np.dtype(data.draw(st.sampled_from(["f4", "f8"])))
    positions = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    sizes = [data.draw(st.integers(1, 8)) for _ in range(3)]
    arrays = case(positions, *sizes, dtype, data.draw(st.booleans()))
    assert_sampled(name, arrays, reduction=data.draw(st.sampled_from(REDUCTIONS)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_are_derivatives(name, shared, reduction):
    arrays = case((2, 3), 4, 5, 6, np.dtype("f8"), shared)
    grads = getattr(xent, f"{name}_value_and_grad")(*arrays, reduction=reduction)[1]
    for which, grad in zip((0, 1, 5), grads, strict=True):

        def loss(v, which=which):
            return np.sum(reference(name, *arrays[:which], v, *arrays[which + 1 :], reduction=reduction))

        assert np.allclose(grad, differences(loss, arrays[which]), rtol=0, atol=100 * DIFFERENCES)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_of_positions(name, monkeypatch, dtype):
    monkeypatch.setattr(xent.sampled, "BLOCK_BYTES", 1000)
    for shared in (True, False):
        assert_sampled(name, case((50,), 6, 7, 4, dtype, shared))


@pytest.mark.parametrize("name", NAMES)
def test_no_positions(name, dtype):
    for shared in (True, False):
        arrays = case((0,), 3, 4, 2, dtype, shared)
        for reduction in REDUCTIONS:
            loss, grads = getattr(xent, f"{name}_value_and_grad")(*arrays, reduction=reduction)
            assert loss.dtype == dtype
            assert not loss.any()
            assert [g.shape for g in grads] == [(0, 3), (4, 3), (4,)]
            assert not any(g.any() for g in grads)


def test_classes_that_nobody_looked_at(dtype):
    arrays = case((20,), 4, 1000, 30, dtype)
    arrays[1][::2] = np.nan
    arrays[2], arrays[3] = arrays[2] | 1, arrays[3] | 1
    arrays[4][::2] = np.nan
    for name in NAMES:
        loss, grads = getattr(xent, f"{name}_value_and_grad")(*arrays)
        assert np.isfinite(loss)
        assert np.isfinite(grads[1]).all()
        touched = np.union1d(arrays[2], arrays[3])
        assert not np.delete(grads[1], touched, axis=0).any()
        assert grads[1][touched].any(axis=1).all()


# What the losses stand for ----------------------------------------------------------------------------------


def test_sampled_softmax_of_all_classes_is_the_softmax(dtype):
    x, weight, target, _, _, bias = case((30,), 8, 50, 1, dtype)
    everything, uniform = np.random.default_rng(0).permutation(50), np.full(50, -math.log(50))
    arrays = x, weight, target, everything, uniform, bias
    loss, grads = xent.sampled_softmax_cross_entropy_value_and_grad(*arrays)
    expected, full = xent.linear_cross_entropy_value_and_grad(x, weight, target, bias)
    tolerance = 100 * np.finfo(dtype).eps
    assert np.isclose(loss, expected, rtol=tolerance)
    for actual, exact in zip(grads, full, strict=True):
        assert np.allclose(actual, exact, rtol=tolerance, atol=tolerance)


def test_a_constant_in_the_log_probabilities_of_sampled_softmax_does_not_matter():
    arrays = case((30,), 8, 50, 20, np.dtype("f8"))
    expected = xent.sampled_softmax_cross_entropy(*arrays)
    arrays[4] = arrays[4] + math.log(20)
    assert np.isclose(xent.sampled_softmax_cross_entropy(*arrays), expected, rtol=1e-13)


def test_accidental_hits():
    x, weight, target, _, log_prob, bias = case((6,), 4, 5, 1, np.dtype("f8"))
    for labels in (target, np.zeros(6, int)):
        own = np.stack([labels, (labels + 1) % 5, labels], axis=-1)
        with_hits = xent.sampled_softmax_cross_entropy_value_and_grad(x, weight, labels, own, log_prob, bias)
        without = xent.sampled_softmax_cross_entropy_value_and_grad(
            x, weight, labels, own[:, 1:2], log_prob, bias
        )
        assert np.isclose(with_hits[0], without[0], rtol=1e-14)
        for a, b in zip(with_hits[1], without[1], strict=True):
            assert np.allclose(a, b, rtol=1e-13, atol=1e-16)
    # nothing but hits: the label is all there is
    alone = xent.sampled_softmax_cross_entropy(x[:1], weight, target[:1], np.repeat(target[:1], 3), log_prob)
    assert alone == 0


def test_nce_approaches_maximum_likelihood():
    # Mnih & Teh, equation 10: the expected gradient by the scores is, with P the normalised model,
    # sum_c K q_c / (P_c + K q_c) (P_data - P)_c ds_c: as K grows, that of the log-likelihood.
    classes, features = 4, 3
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((1, features)), rng.standard_normal((classes, features))
    bias = np.zeros(classes)
    bias[:] = -np.log(np.exp(x @ weight.T).sum())  # so that exp(score) is normalised
    model = np.exp(x @ weight.T + bias)[0]
    data, q = rng.dirichlet(np.ones(classes)), rng.dirichlet(np.full(classes, 3.0))
    likelihood = (model - data)[:, np.newaxis] * x

    def expected(samples):
        # K draws, each with the same expectation: that of one draw of class c, K times
        total = np.zeros_like(weight)
        everything = np.arange(classes)
        for label in everything:
            for c in everything:
                noise = np.full(samples, c)
                grad = xent.nce_loss_value_and_grad(x, weight, [label], noise, np.log(q), bias)[1][1]
                total += data[label] * q[c] * grad
        return total

    errors = [np.abs(expected(samples) - likelihood).max() for samples in (1, 10, 100, 1000)]
    assert all(later < earlier / 3 for earlier, later in zip(errors, errors[1:], strict=False))
    assert errors[-1] < 1e-2 * np.abs(likelihood).max() + 1e-2
    k = 10
    by_hand = (k * q / (model + k * q) * (model - data))[:, np.newaxis] * x
    assert np.allclose(expected(k), by_hand, rtol=1e-12, atol=1e-14)


def test_noise_that_cannot_occur():
    # where the noise has no mass at the label, there is nothing to tell apart
    x, weight, target, noise, log_prob, bias = case((1,), 4, 5, 3, np.dtype("f8"))
    noise[:], target[:] = 1, 0
    log_prob[0] = -np.inf
    with raises(ValueError, "noise_log_prob[0]", "-inf"):
        xent.nce_loss(x, weight, target, noise, log_prob, bias)


def test_confident_scores_keep_their_digits(dtype):
    # scores of 40 and -40: losses of exp(-40), which 1 - sigmoid would lose
    x, weight = np.array([[1.0]], dtype), np.array([[40.0], [-40.0]], dtype)
    for name in NAMES:
        zero = np.zeros(2)
        loss, (grad_x, _, _) = getattr(xent, f"{name}_value_and_grad")(x, weight, [0], [1], zero)
        exact, (exact_x, _, _) = reference(f"{name}_value_and_grad", x, weight, [0], [1], zero)
        assert 0 < loss < 1e-16
        assert np.isclose(loss, exact, rtol=8 * np.finfo(dtype).eps)
        assert np.isclose(grad_x[0, 0], exact_x[0, 0], rtol=100 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_class_that_many_positions_have(name):
    # 10^5 equal terms: added up one after the other in floats, they lose some thousand roundings
    x, weight = np.full((100_003, 1), 0.3, "f4"), np.full((3, 1), 0.1, "f4")
    arrays = weight, np.zeros(len(x), int), [1, 2], np.log([0.5, 0.3, 0.2])
    _, (_, one, bias) = getattr(xent, f"{name}_value_and_grad")(x[:1], arrays[0], arrays[1][:1], *arrays[2:])
    _, (_, all_of_them, _) = getattr(xent, f"{name}_value_and_grad")(x, *arrays)
    np.testing.assert_allclose(all_of_them[0], one[0], rtol=16 * np.finfo("f4").eps)


@pytest.mark.parametrize("name", NAMES)
def test_memory_of_samples_of_each_position(name):
    # 256 MiB of gathered rows
    arrays = case((1024,), 512, 100, 128, np.dtype("f4"), shared=False)
    getattr(xent, name)(*arrays)
    peak = peak_bytes(lambda: getattr(xent, f"{name}_value_and_grad")(*arrays))
    assert peak <= 48 * 2**20, f"{peak / 2**20:.1f} MiB"


def test_results_do_not_depend_on_threads(dtype):
    arrays = case((700,), 8, 50, 300, dtype)
    for name in NAMES:
        results = []
        for n in (1, 2):
            with xent.num_threads(n):
                loss, grads = getattr(xent, f"{name}_value_and_grad")(*arrays)
                results.append((loss, *grads))
        assert_same_bits(*results)


# Errors -----------------------------------------------------------------------------------------------------

X, W, Y, S, Q = np.zeros((3, 4)), np.zeros((5, 4)), np.array([0, 4, 2]), np.array([1, 2]), np.zeros(5)
SAMPLES = {"nce_loss": "noise", "sampled_softmax_cross_entropy": "sampled"}
BOTH = [(name + part, SAMPLES[name]) for name in NAMES for part in ("", "_value_and_grad")]


@pytest.mark.parametrize("name, samples", BOTH)
def test_shapes(name, samples):
    f = getattr(xent, name)
    for x in (np.zeros((3, 5)), np.float64(1)):
        with raises(ValueError, "x", "4", np.shape(x)):
            f(x, W, Y, S, Q)
    with raises(ValueError, "weight", (4,)):
        f(X, W[0], Y, S, Q)
    with raises(ValueError, "bias", (5,), (4,)):
        f(X, W, Y, S, Q, np.zeros(4))
    for target in (Y[:2], 1, Y[:, None]):
        with raises(ValueError, "target", (3,), np.shape(target)):
            f(X, W, target, S, Q)
    for drawn in (np.zeros((2, 2), int), np.zeros((3, 1, 2), int), 1):
        with raises(ValueError, samples, np.shape(drawn)):
            f(X, W, Y, drawn, Q)
    for none in ([], np.zeros((3, 0), int)):
        with raises(ValueError, samples, "one"):
            f(X, W, Y, none, Q)
    for wrong in (Q[:4], 0.0, np.zeros((1, 5))):
        with raises(ValueError, f"{samples}_log_prob", (5,), np.shape(wrong)):
            f(X, W, Y, S, wrong)
    with pytest.raises(ValueError, match="mean_batch"):
        f(X[0], W, 1, S, Q, reduction="mean_batch")
    with raises(ValueError, "reduction", "most"):
        f(X, W, Y, S, Q, reduction="most")


@pytest.mark.parametrize("name, samples", BOTH)
def test_classes(name, samples):
    f = getattr(xent, name)
    for bad in (5, -1, -100, 2**40):
        with raises(ValueError, f"target[1] is {bad}", "5"):
            f(X, W, [0, bad, 7], S, Q)
        with raises(ValueError, f"{samples}[1] is {bad}", "5"):
            f(X, W, Y, [0, bad, 7], Q)
        with raises(ValueError, f"{samples}[2, 0] is {bad}", "5"):
            f(X, W, Y, [[0, 1], [1, 2], [bad, 7]], Q)
    with raises(ValueError, f"{samples}[0] is {2**64 - 1}"):
        f(X, W, Y, np.array([2**64 - 1], np.uint64), Q)
    for wrong in (S.astype(float), S.astype(bool), S.astype("U")):
        with raises(TypeError, samples, "integers"):
            f(X, W, Y, wrong, Q)
    with raises(TypeError, "target", "integers"):
        f(X, W, Y.astype(float), S, Q)


@pytest.mark.parametrize("name, samples", BOTH)
def test_log_probabilities(name, samples):
    f = getattr(xent, name)
    for bad in (np.nan, np.inf, -np.inf):
        for used in (1, 4):
            log_prob = Q.copy()
            log_prob[used] = bad
            with raises(ValueError, f"{samples}_log_prob[{used}] = {bad}"):
                f(X, W, Y, S, log_prob)
        log_prob = Q.copy()
        log_prob[3] = bad  # of a class that is not in use
        f(X, W, Y, S, log_prob)
    with raises(TypeError, f"{samples}_log_prob"):
        f(X, W, Y, S, Q * 1j)


@pytest.mark.parametrize("name, samples", BOTH)
def test_dtypes_of_data(name, samples):
    for which, what in [(0, "x"), (1, "weight"), (5, "bias")]:
        arrays = [X, W, Y, S, Q, Q]
        arrays[which] = arrays[which].astype(object)
        with raises(TypeError, what, "real numbers"):
            getattr(xent, name)(*arrays)
