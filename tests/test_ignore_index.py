"""Several labels that are ignored, in every loss that takes labels: all of them become the first."""

import numpy as np
import pytest
from helpers import assert_same_bits, raises, random_logits, reference

import xent

LABELS = np.array([0, -1, 3, -100, 2, 4, -7])
ONE = np.array([0, -1, 3, -1, 2, 4, -1])  # the same with one label for what is ignored
SHAPE = 7, 5
X = random_logits(SHAPE, np.dtype("f8"))
FEATURES = np.random.default_rng(3).standard_normal((7, 3)), np.random.default_rng(4).standard_normal((5, 3))


def _losses():
    """Functions of a target and options."""
    for name in ["cross_entropy", "nll_loss"]:
        for part in ["", "_grad", "_value_and_grad"]:
            yield f"{name}{part}", (X,)
    yield "cross_entropy_grad_hess", (X,)
    yield "cross_entropy_hvp", (X,)
    yield "linear_cross_entropy", FEATURES
    yield "linear_cross_entropy_value_and_grad", FEATURES


LOSSES = list(_losses())


def call(name, arguments, target, package=xent, **options):
    vector = [X[::-1]] if name == "cross_entropy_hvp" else []
    return getattr(package, name)(*arguments, target, *vector, **options)


def leaves(result):
    return [leaf for part in result for leaf in leaves(part)] if isinstance(result, tuple) else [result]


def assert_equal(result, expected):
    for a, b in zip(leaves(result), leaves(expected), strict=True):
        assert (a is None and b is None) or np.array_equal(a, b)


@pytest.mark.parametrize("name, arguments", LOSSES)
def test_several_are_as_one(name, arguments):
    for kind in ["i8", "i1", "i4", ">i2"]:
        labels = LABELS.astype(kind)
        for reduction in ["mean", "none", "mean_valid", "mean_full"]:
            expected = call(name, arguments, ONE, ignore_index=-1, reduction=reduction)
            for values in [(-1, -100, -7), (-7, -1, -100, -1), (np.int8(-100), -7, -1)]:
                options = {"ignore_index": values, "reduction": reduction}
                assert_equal(call(name, arguments, labels, **options), expected)
                for a, b in zip(
                    leaves(call(name, arguments, labels, xent.reference, **options)),
                    leaves(expected),
                    strict=True,
                ):
                    assert a is b is None or np.allclose(a, b, rtol=1e-12, atol=1e-14)
    assert labels.tolist() == LABELS.tolist(), "the caller's labels stay as they are"


@pytest.mark.parametrize("name, arguments", LOSSES)
def test_one_and_none(name, arguments):
    expected = call(name, arguments, ONE, ignore_index=-1)
    assert_equal(call(name, arguments, ONE, ignore_index=(-1,)), expected)
    assert_equal(call(name, arguments, ONE, ignore_index=(-1, -1)), expected)
    plain = np.array([0, 1, 3, 1, 2, 4, 4])
    assert_equal(call(name, arguments, plain, ignore_index=()), call(name, arguments, plain))
    for labels in [ONE, LABELS]:
        with raises(ValueError, "target[1] is -1, expected 0 <= label < 5"):
            call(name, arguments, labels, ignore_index=())


@pytest.mark.parametrize("name, arguments", LOSSES)
def test_classes_can_be_ignored(name, arguments):
    labels = np.array([0, 1, 3, 1, 2, 4, 4])
    ignored = (labels == 1) | (labels == 4)
    expected = call(name, arguments, np.where(ignored, -100, labels))
    assert_equal(call(name, arguments, labels, ignore_index=(1, 4)), expected)
    assert_equal(call(name, arguments, labels, ignore_index=(4, 1, -100)), expected)


@pytest.mark.parametrize("name, arguments", LOSSES)
def test_errors_name_what_was_given(name, arguments):
    for place, value in [(0, 5), (5, -100), (3, -2)]:
        labels = np.array([0, -1, 3, -7, 2, 4, -7])
        labels[place] = value
        with raises(ValueError, f"target[{place}] is {value}, expected", "ignore_index=(-1, -7)"):
            call(name, arguments, labels, ignore_index=(-1, -7))
    with raises(TypeError, "ignore_index must be an integer or a tuple of integers, got list"):
        call(name, arguments, LABELS, ignore_index=[-1])
    with raises(TypeError, "ignore_index[1] must be an integer, got float"):
        call(name, arguments, LABELS, ignore_index=(-1, 0.5))
    with raises(TypeError, "ignore_index[0] must be an integer, got a bool"):
        call(name, arguments, LABELS, ignore_index=(True, -1))
    with raises(ValueError, "ignore_index[1] must fit into 64 bits"):
        call(name, arguments, LABELS, ignore_index=(-1, 2**70))
    with raises(ValueError, "target[0] is 18446744073709551615"):
        call(name, arguments, np.full(7, 2**64 - 1, "u8"), ignore_index=(-1, -2))


def test_probabilities_ignore_nothing():
    probs = xent.softmax(X)
    assert xent.cross_entropy(X, probs, ignore_index=(1, 2)) == xent.cross_entropy(X, probs)


def test_many_positions_and_axes():
    logits = random_logits((40, 6, 300), np.dtype("f4"))
    labels = np.random.default_rng(0).integers(-3, 6, (40, 300))
    result = xent.cross_entropy_value_and_grad(logits, labels, axis=1, ignore_index=(-1, -2, -3))
    one = np.where(labels < 0, -1, labels)
    assert_same_bits(result, xent.cross_entropy_value_and_grad(logits, one, axis=1, ignore_index=-1))
    loss = reference("cross_entropy", logits, labels, axis=1, ignore_index=(-1, -2, -3))
    assert result[0] == pytest.approx(loss, rel=1e-6)
