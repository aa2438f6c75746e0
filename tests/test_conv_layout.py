"""Images with channels last, other orders of axes, gaps: copied by a kernel of its own (csrc/reorder.c)."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from helpers import assert_same_bits

import xent
from xent import _kernels

KINDS = ["float32", "float64", "float16", np.dtype(ml_dtypes.bfloat16)]
# (N, H, W, C): around the squares of a tile, its lines, and the chunks of a call
IMAGES = [
    (2, 5, 7, 3), (1, 1, 1, 5), (3, 1, 4, 2), (2, 4, 4, 4), (1, 3, 5, 8), (2, 7, 7, 17), (1, 16, 16, 16),
    (5, 2, 2, 33), (1, 33, 31, 3), (2, 15, 17, 64), (1, 70, 71, 31), (40, 3, 3, 5), (1, 224, 224, 3),
    (2, 14, 14, 300), (1, 9, 1, 9),
]  # fmt: skip


def numbers(shape, kind, seed=0):
    return np.random.default_rng(seed).integers(-100, 100, shape).astype(kind)


def is_copied(source, target):
    """Whether the kernel makes this copy, which is checked; what lies between the numbers is not touched."""
    expected = source.copy()
    done = _kernels.reorder(source, target)
    assert not done or np.array_equal(target, expected)
    return done


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", IMAGES)
def test_there_and_back(shape, kind, threads):
    images = numbers(shape, kind).transpose(0, 3, 1, 2)
    plain, back = np.zeros(images.shape, images.dtype), np.zeros(shape, images.dtype).transpose(0, 3, 1, 2)
    if not images.flags.c_contiguous:
        assert is_copied(images, plain)
        assert is_copied(plain, back)


@pytest.mark.parametrize("kind", KINDS)
def test_every_order_of_axes(kind):
    shape = 3, 18, 5, 20
    for order in itertools.permutations(range(4)):
        source = numbers([shape[k] for k in order], kind).transpose(np.argsort(order))
        for other in itertools.permutations(range(4)):
            target = np.zeros([shape[k] for k in other], source.dtype).transpose(np.argsort(other))
            assert is_copied(source, target)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_larger_arrays(kind):
    whole = numbers((4, 40, 50, 20), kind)
    parts = [
        np.s_[:, 3:30, 5:45],
        np.s_[1:3, ::2, 10:40:3],
        np.s_[:, :, :, :3],
        np.s_[:, :, :, 17:],
        np.s_[::-1, ::-1, ::-1],
        np.s_[:, 39:, 47:, 17:],
        np.s_[:, :, ::-1, 5:6],
    ]
    for part in parts:
        images = whole[part].transpose(0, 3, 1, 2)
        assert is_copied(images, np.zeros(images.shape, whole.dtype))
        around = np.full(whole.shape, 7, whole.dtype)
        back = around[part].transpose(0, 3, 1, 2)
        is_copied(np.ascontiguousarray(images), back)
        back[...] = 7
        assert (around == 7).all(), "nothing beside the part was written"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [2, 3, 5, 7, 16, 19])
def test_nothing_is_read_behind_the_end(edge, kind, channels):
    for pixels in [1, 2, 4, 5, 16, 63]:
        last = edge.last(numbers((1, pixels, 3, channels), kind))
        for part in [np.s_[:], np.s_[:, ::-1], np.s_[:, :, 1:, 1:], np.s_[:, :, ::-1]]:
            images = last[part].transpose(0, 3, 1, 2)
            is_copied(images, np.zeros(images.shape, last.dtype))
        plain = edge.last(numbers((1, channels, pixels, 3), kind))
        is_copied(plain, np.zeros((1, pixels, 3, channels), plain.dtype).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_written_behind_the_end(edge, kind):
    for channels, pixels in [(3, 5), (5, 16), (16, 17), (2, 64)]:
        images = numbers((1, pixels, 3, channels), kind).transpose(0, 3, 1, 2)
        plain = edge.last(np.zeros(images.shape, images.dtype))
        assert is_copied(images, plain)
        back = edge.last(np.zeros((1, pixels, 3, channels), images.dtype)).transpose(0, 3, 1, 2)
        assert is_copied(np.ascontiguousarray(images), back)


@pytest.mark.parametrize("kind", KINDS)
def test_runs_of_every_length(edge, kind, threads):
    """Neighbours in both, or every other number in one of the two; nothing between them is written."""
    for length in [*range(2, 40), 64, 65, 100, 1000]:
        for gap in 0, 1, 3:
            wide = numbers((9, length + gap), kind)
            part = np.ascontiguousarray(wide[:, gap:])
            assert is_copied(edge.last(wide)[:, gap:], np.zeros_like(part))
            around = edge.last(np.full_like(wide, 7))
            assert is_copied(part, around[:, gap:])
            assert (around[:, :gap] == 7).all()
        spread = np.full((9, 2 * length), 7, wide.dtype)
        assert is_copied(part, spread[:, ::2])
        assert (spread[:, 1::2] == 7).all()
        assert is_copied(spread[:, ::2], np.zeros_like(part))
        assert is_copied(part[:, ::-1], np.zeros_like(part))


def test_repeated_rows_are_copied():
    row = numbers((1, 5), "float32")
    assert is_copied(np.broadcast_to(row, (7, 5)), np.zeros((7, 5), np.float32))
    assert is_copied(np.broadcast_to(row.T, (5, 7)), np.zeros((5, 7), np.float32))


def test_random_layouts():
    rng = np.random.default_rng(3)
    copied = 0
    for _ in range(300):
        ndim = int(rng.integers(1, 7))
        shape = rng.integers(1, 9 if ndim < 5 else 5, ndim)
        kind = KINDS[rng.integers(len(KINDS))]
        arrays = []
        for seed in range(2):
            order = rng.permutation(ndim)
            wide = numbers(shape[order] * rng.integers(1, 3, ndim), kind, seed)
            steps = tuple(
                slice(None, int(n), 1) if rng.random() < 0.5 else slice(None, None, w // n)
                for n, w in zip(shape[order], wide.shape, strict=True)
            )
            arrays.append(wide[steps].transpose(np.argsort(order)))
        copied += is_copied(*arrays)
    assert copied > 150


def test_what_it_leaves_to_others():
    plain = np.zeros((2, 3, 4), np.float32)
    assert not _kernels.reorder(plain[..., ::2], np.zeros((2, 3, 4), np.float32)[..., ::2])
    assert not _kernels.reorder(plain[:0], plain[:0].copy())
    assert not _kernels.reorder(plain, np.zeros((2, 3, 4)))
    turned = np.zeros((4, 3, 2), np.complex128).T
    assert not _kernels.reorder(turned, turned.copy("C"))
    shifted = np.zeros(2 * 3 * 4 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(4, 3, 2).T
    assert not _kernels.reorder(shifted, plain)
    swapped = np.zeros((4, 3, 2), ">f4").T
    assert not _kernels.reorder(swapped, plain)


@pytest.mark.parametrize("shape", IMAGES)
def test_convolutions_of_channels_last(shape, threads):
    images = np.random.default_rng(1).standard_normal(shape, np.float32).transpose(0, 3, 1, 2)
    weight = np.random.default_rng(2).standard_normal((6, shape[3], 3, 3), np.float32)
    plain = np.ascontiguousarray(images)
    y = xent.conv2d(plain, weight, padding=1)
    assert_same_bits(xent.conv2d(images, weight, padding=1), y)
    last = np.empty((*y.shape[:1], *y.shape[2:], y.shape[1]), np.float32)
    out = last.transpose(0, 3, 1, 2)
    assert xent.conv2d(images, weight, padding=1, out=out) is out
    assert_same_bits(np.ascontiguousarray(out), y)
    grads = xent.conv2d_backward(y, plain, weight, padding=1)
    into = (
        np.empty(shape, np.float32).transpose(0, 3, 1, 2),
        np.empty((3, 3, shape[3], 6), np.float32).T,
        None,
    )
    needs = True, True, False
    results = xent.conv2d_backward(
        out, images, weight, padding=1, needs=needs, out=(into[0], into[1].transpose(0, 1, 3, 2), None)
    )
    for result, expected in zip(results[:2], grads, strict=False):
        assert_same_bits(np.ascontiguousarray(result), expected)
    assert_same_bits(xent.im2col(images, 1), xent.im2col(plain, 1))


def test_weights_and_signals_in_other_orders(dtype, threads):
    rng = np.random.default_rng(1)
    weight = rng.standard_normal((3, 3, 8, 20)).astype(dtype).transpose(3, 2, 0, 1)  # (kh, kw, I, O)
    x = rng.standard_normal((2, 9, 9, 8)).astype(dtype).transpose(0, 3, 1, 2)
    plain = np.ascontiguousarray(x), np.ascontiguousarray(weight)
    assert_same_bits(xent.conv2d(x, weight), xent.conv2d(*plain))
    y = rng.standard_normal((2, 4, 4, 20)).astype(dtype).transpose(0, 3, 1, 2)
    transposed = xent.conv_transpose2d(y, weight, stride=2)
    assert_same_bits(transposed, xent.conv_transpose2d(np.ascontiguousarray(y), plain[1], stride=2))
    signal = rng.standard_normal((2, 50, 8)).astype(dtype).transpose(0, 2, 1)
    assert_same_bits(
        xent.conv1d(signal, weight[:, :, 0]), xent.conv1d(np.ascontiguousarray(signal), plain[1][:, :, 0])
    )


def test_out_of_a_subclass():
    class Own(np.ndarray):
        def __setitem__(self, key, value):
            raise AssertionError("results are written to the memory of an array")

    x, weight = np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3))
    out = np.zeros((1, 3, 3, 3)).transpose(0, 3, 1, 2).view(Own)
    assert xent.conv2d(x, weight, out=out) is out
    assert (np.asarray(out) == 18).all()
