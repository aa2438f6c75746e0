"""prepare_conv2d: the bits of plain weights, what is kept, and what a prepared weight is otherwise."""

import copy
import pickle
import threading

import ml_dtypes
import numpy as np
import pytest
import test_conv
from helpers import assert_same_bits, assert_ulp, reference, run_python

import xent

CASES = test_conv.CASES | {name: test_conv.PATHS[name] for name in test_conv.SAMPLE}
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("name", CASES)
def test_bits_of_plain_weights(name, dtype, threads):
    x_shape, w_shape, options = CASES[name]
    x, weight, bias = test_conv.arrays(x_shape, w_shape, dtype)
    prepared = xent.prepare_conv2d(weight, groups=options.get("groups", 1))
    for images in [x, 1 - x, x]:  # packed for the first ones, and nothing of these is kept
        for activation in [None, "relu"]:
            expected = xent.conv2d(images, weight, bias, activation=activation, **options)
            assert_same_bits(xent.conv2d(images, prepared, bias, activation=activation, **options), expected)


@pytest.mark.parametrize("images", [1, 3, 24])  # weights are packed by each chunk, or once for all
def test_weights_that_are_not_finite(images, dtype):
    x, weight, _ = test_conv.arrays((images, 64, 7, 7), (128, 64, 3, 3), dtype)
    weight[3, 0, 0, 0], weight[100, 63, 2, 2] = np.inf, np.nan  # they meet padding on two sides each
    for kept in [weight, xent.prepare_conv2d(weight)]:
        y = xent.conv2d(np.abs(x) + 1, kept, padding=1)
        assert np.isnan(y[:, 3, 0]).all() and np.isnan(y[:, 3, :, 0]).all()
        assert (y[:, 3, 1:, 1:] == np.inf).all()
        assert np.isnan(y[:, 100]).all()
        assert np.isfinite(np.delete(y, [3, 100], 1)).all()


@pytest.mark.parametrize("kind", ["float16", BFLOAT16])
def test_bits_of_plain_weights_of_16_bits(kind):
    for name in test_conv.SAMPLE:
        x_shape, w_shape, options = CASES[name]
        x, weight, _ = (a.astype(kind) for a in test_conv.arrays(x_shape, w_shape, np.float32))
        prepared = xent.prepare_conv2d(weight, groups=options.get("groups", 1))
        assert_same_bits(xent.conv2d(x, prepared, **options), xent.conv2d(x, weight, **options))


@pytest.mark.parametrize("outputs, groups", [(5, 1), (6, 1), (12, 2), (40, 1), (70, 1), (8, 4)])
def test_one_weight_for_images_of_all_sizes(outputs, groups):
    # how weights are packed depends on the width of the images
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, 8 // groups, 3, 3), np.float32)
    prepared = xent.prepare_conv2d(weight, groups=groups)
    for size in [3, 5, 8, 15, 33, 70, 200, 8, 33]:
        x = rng.standard_normal((2, 8, 4, size), np.float32)
        for stride in [1, 2]:
            expected = xent.conv2d(x, weight, groups=groups, padding=1, stride=stride)
            assert_same_bits(xent.conv2d(x, prepared, padding=1, stride=stride), expected)


@pytest.mark.parametrize(
    "kinds", [("f4", "f8"), ("f8", "f4"), ("f2", "f4"), ("f4", "f2"), ("f2", BFLOAT16), ("i4", "f4")]
)
def test_dtypes_are_promoted_as_those_of_plain_weights(kinds):
    x, weight, bias = test_conv.arrays((2, 3, 8, 9), (5, 3, 3, 3), np.float64, whole=True)
    x, weight = x.astype(kinds[0]), weight.astype(kinds[1])
    prepared = xent.prepare_conv2d(weight)
    for b in [None, bias, bias.tolist()]:
        for _ in range(2):
            assert_same_bits(xent.conv2d(x, prepared, b), xent.conv2d(x, weight, b))
    own = weight.astype(kinds[1]) if kinds[0] != "i4" else weight
    assert_same_bits(xent.conv2d(x.astype(own.dtype), prepared), xent.conv2d(x.astype(own.dtype), own))


def test_signals(dtype):
    x = np.random.default_rng(0).standard_normal((2, 6, 50)).astype(dtype)
    weight = np.random.default_rng(1).standard_normal((9, 2, 5)).astype(dtype)
    prepared = xent.prepare_conv2d(weight, groups=3)
    for stride in [1, 2]:
        expected = xent.conv1d(x, weight, stride=stride, groups=3)
        assert_same_bits(xent.conv1d(x, prepared, stride=stride), expected)
    values = reference("conv1d", x, xent.reference.prepare_conv2d(weight, groups=3))
    assert_ulp(reference("conv1d", x, weight, groups=3), values, 0, dtype=np.float64)
    with pytest.raises(ValueError, match="weight must have 4 dimensions"):
        xent.conv2d(x[:, :, None], prepared)


def test_nothing_to_add_up(dtype):
    for x_shape, w_shape in test_conv.NOTHING:
        x, weight, bias = test_conv.arrays(x_shape, w_shape, dtype, whole=True)
        prepared = xent.prepare_conv2d(weight, groups=2)
        assert_same_bits(xent.conv2d(x, prepared, bias), xent.conv2d(x, weight, bias, groups=2))


def test_the_reference():
    x, weight, _ = test_conv.arrays((2, 6, 7, 8), (9, 2, 3, 3), np.float64)
    expected = reference("conv2d", x, weight, groups=3)
    prepared = xent.reference.prepare_conv2d(weight, groups=3)
    assert (prepared.shape, prepared.dtype, prepared.groups) == (weight.shape, weight.dtype, 3)
    assert np.array_equal(reference("conv2d", x, prepared), expected)
    assert np.array_equal(reference("conv2d", x, prepared, groups=3), expected)
    assert np.array_equal(reference("conv2d", x, xent.prepare_conv2d(weight, groups=3)), expected)
    with pytest.raises(ValueError, match="prepared for 3"):
        reference("conv2d", x, prepared, groups=2)
    with pytest.raises(ValueError, match="groups=2"):
        xent.reference.prepare_conv2d(weight, groups=2)


def test_groups_are_those_of_the_weight():
    x, weight, _ = test_conv.arrays((2, 6, 7, 8), (12, 2, 3, 3), np.float32)
    prepared = xent.prepare_conv2d(weight, groups=3)
    expected = xent.conv2d(x, weight, groups=3)
    assert_same_bits(xent.conv2d(x, prepared), expected)
    assert_same_bits(xent.conv2d(x, prepared, groups=3), expected)
    with pytest.raises(ValueError, match="groups must be 3, for which weight was prepared, got 2"):
        xent.conv2d(x, prepared, groups=2)
    with pytest.raises(ValueError, match=r"weight must have C / groups = 9 / 3 input channels"):
        xent.conv2d(np.zeros((2, 9, 7, 8), np.float32), prepared)
    with pytest.raises(TypeError, match="groups"):
        xent.conv2d(x, prepared, groups=3.0)


def test_what_is_no_weight():
    weight = np.ones((4, 2, 3, 3))
    for wrong, groups, error, match in [
        (weight[0, 0], 1, ValueError, "weight must have 4 dimensions"),
        (weight[..., :0], 1, ValueError, "at least one tap"),
        (weight, 3, ValueError, "groups must divide"),
        (weight, 0, ValueError, "groups"),
        (weight, 2.0, TypeError, "groups"),
        (weight * 1j, 1, TypeError, "weight must be real numbers"),
        (None, 1, TypeError, "weight"),
    ]:
        for make in [xent.prepare_conv2d, xent.PreparedWeight]:
            with pytest.raises(error, match=match):
                make(wrong, groups=groups)


def test_it_is_an_array_of_its_own():
    weight = np.arange(72, dtype=np.float32).reshape(4, 2, 3, 3)
    prepared = xent.prepare_conv2d(weight)
    before = weight.copy()
    x = np.ones((1, 2, 5, 5), np.float32)
    expected = xent.conv2d(x, weight)
    weight[:] = 0
    assert_same_bits(xent.conv2d(x, prepared), expected)
    assert np.array_equal(prepared, before)
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(prepared)[0] = 1
    assert np.array(prepared).flags.writeable
    assert np.asarray(prepared, np.float64).dtype == np.float64
    assert (prepared.shape, prepared.ndim, len(prepared), prepared.groups) == ((4, 2, 3, 3), 4, 4, 1)
    for name in ["shape", "dtype", "groups", "nbytes", "other"]:
        with pytest.raises(AttributeError):
            setattr(prepared, name, 1)
    gradients = xent.conv2d_backward(expected, x, prepared)
    for result, plain in zip(gradients, xent.conv2d_backward(expected, x, before), strict=True):
        assert_same_bits(result, plain)


def test_integers_become_float64():
    assert xent.prepare_conv2d(np.ones((1, 1, 2, 2), np.int8)).dtype == np.float64
    assert xent.prepare_conv2d([[[1, 2, 3]]]).ndim == 3


def test_packed_once():
    weight = np.ones((64, 32, 3, 3), np.float32)
    prepared, x = xent.prepare_conv2d(weight), np.ones((4, 32, 40, 40), np.float32)  # many pixels: packed
    assert repr(prepared) == (
        f"PreparedWeight(shape=(64, 32, 3, 3), dtype=float32, groups=1, nbytes={weight.nbytes})"
    )
    xent.conv2d(x, prepared)
    packed = prepared.nbytes - weight.nbytes
    assert weight.nbytes <= packed <= 2 * weight.nbytes
    for _ in range(3):
        xent.conv2d(x, prepared)
    assert prepared.nbytes == weight.nbytes + packed


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies(duplicate):
    x, weight, _ = test_conv.arrays((2, 6, 7, 8), (9, 2, 3, 3), np.float32)
    prepared = xent.prepare_conv2d(weight, groups=3)
    expected = xent.conv2d(x, prepared)
    again = duplicate(prepared)
    assert_same_bits(xent.conv2d(x, again), expected)
    assert (again.shape, again.dtype, again.groups) == (prepared.shape, prepared.dtype, 3)


def test_a_pickle_has_the_weights_alone():
    prepared = xent.prepare_conv2d(np.ones((64, 32, 3, 3), np.float32))
    before = len(pickle.dumps(prepared))
    xent.conv2d(np.ones((4, 32, 40, 40), np.float32), prepared)
    assert len(pickle.dumps(prepared)) == before


def test_a_pickle_of_another_instruction_set(tmp_path):
    # vectors of another length: another form
    rng = np.random.default_rng(0)
    weight, x = (
        rng.integers(-4, 5, (40, 5, 3, 3)).astype("f4"),
        rng.integers(-4, 5, (2, 5, 6, 6)).astype("f4"),
    )
    prepared = xent.prepare_conv2d(weight)
    expected = xent.conv2d(x, prepared)
    (tmp_path / "weight").write_bytes(pickle.dumps((prepared, x)))
    code = f"""
import pickle, sys, xent
prepared, x = pickle.loads(open({str(tmp_path / "weight")!r}, "rb").read())
sys.stdout.write(xent.conv2d(x, prepared).tobytes().hex())
"""
    for isa in xent.show_config(mode="dicts")["isa_usable"]:
        done = run_python("-c", code, XENT_ISA=isa)
        assert done.stdout == expected.tobytes().hex(), done.stderr


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_small_and_large_images(dtype):
    """Their packed forms may have the same width and still differ: with four channels, vectors of four."""
    for channels in [1, 2, 3, 4, 6, 8, 12, 16]:
        weight = test_conv.arrays((1, 64, 3, 3), (channels, 64, 3, 3), dtype)[1]
        prepared = xent.prepare_conv2d(weight)
        for size in [3, 8, 3]:
            x = test_conv.arrays((1, 64, size, size), (1, 64, 3, 3), dtype)[0]
            assert_same_bits(xent.conv2d(x, prepared), xent.conv2d(x, weight))


def test_threads_share_it():
    x, weight, _ = test_conv.arrays((1, 40, 9, 9), (70, 40, 3, 3), np.float32)
    expected = xent.conv2d(x, weight)
    for _ in range(20):
        prepared, results, barrier = xent.prepare_conv2d(weight), [], threading.Barrier(4)

        def call(prepared=prepared, results=results, barrier=barrier):
            barrier.wait()
            results.append(xent.conv2d(x, prepared))

        threads = [threading.Thread(target=call) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 4
        for result in results:
            assert_same_bits(result, expected)


def test_weights_are_not_converted_where_no_copy_may_be():
    weight = xent.prepare_conv2d(np.ones((1, 1, 3, 3), np.float32))
    with pytest.raises(ValueError, match="without a copy"):
        weight.__array__(np.float64, copy=False)
    assert weight.__array__(np.float32, copy=False).dtype == np.float32
