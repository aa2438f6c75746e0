"""Plans of random calls, and what kernels make of them: tiles hold each position once, arrays suffice.

Scratch has the size of the plan and ends where memory does, and the plans are compiled so that undefined
behaviour stops the process. plan_tiles.c says which kernels are run and which are replaced by probes.
"""

import math

import ml_dtypes
import numpy as np
import pytest
from compiled import CSRC, USABLE, call, compile_library, compile_object, shared_folder
from helpers import ROOT

STORED = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
REAL = {"f64": np.float64, "f32": np.float32, "f16": np.float32, "bf16": np.float32}  # computed with
stored = pytest.mark.parametrize("name", STORED)
reals = pytest.mark.parametrize("name", ["f32", "f64"])

CALLS = 500  # of each kind
MOST_ELEMENTS = 1 << 17
MOST_TILES = 1 << 15
SHARED = 1 << 20  # numbers of patches that chunks share: SHARED_PANEL_BYTES in images/plan.c
NO_EXPS, SUMMED_EXPS, REUSED_EXPS = range(3)
SANITIZER = ["-fno-wrapv", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error"]


# The kernels of an instruction set take some twenty seconds to compile: all but the best in the slow suite.
LIBRARIES = [USABLE[-1], *(pytest.param(isa, marks=pytest.mark.slow) for isa in USABLE[:-1])]


@pytest.fixture(scope="module", params=LIBRARIES)
def library(tmp_path_factory, request):
    """The kernels and plans for an instruction set; the plans are the same for all."""
    folder = shared_folder(tmp_path_factory, "plan")
    plans = [path for path in CSRC.rglob("*.c") if path.stem == "walk" or path.stem.endswith("plan")]
    objects = [compile_object(folder, path, *SANITIZER) for path in plans]
    sources = [ROOT / "tests" / "plan_tiles.c", *objects]
    return compile_library(folder, request.param, sources, "-O1")  # -O1 takes a third of the time


@pytest.fixture(scope="module")
def numbers():
    """What calls read: small integers of each type. And where they write."""
    read = np.random.default_rng(0).integers(0, 3, 4 * MOST_ELEMENTS)
    return {name: (read.astype(dtype), np.zeros(read.size, dtype)) for name, dtype in STORED.items()}


# Calls of the softmax family --------------------------------------------------------------------------------


def random_shape(rng):
    """A class axis of any length among other axes, and now and then very few or very many positions."""
    classes = int(np.exp2(rng.uniform(0, 17))) if rng.random() < 0.5 else int(rng.integers(1, 300))
    others = [int(np.exp2(rng.uniform(0, 9))) for _ in range(rng.integers(0, 4))]
    while math.prod(others) * classes > MOST_ELEMENTS:
        others[rng.integers(len(others))] = 1
    if others and rng.random() < 0.02:
        others[0] = 0
    axis = int(rng.integers(len(others) + 1))
    return [*others[:axis], classes, *others[axis:]], axis


def random_strides(rng, shape, itemsize):
    """Of an array in C order, or of a part of one that is at most four times as large."""
    larger = list(shape)
    if rng.random() < 0.3:
        axis = rng.integers(len(shape))
        larger[axis] += min(int(rng.integers(1, 4)), 2 * larger[axis])
    return [itemsize * math.prod(larger[k + 1 :]) for k in range(len(shape))]


def random_call(rng, itemsize, **chosen):
    """The numbers of `call` in plan_tiles.c, by name."""
    shape, axis = random_shape(rng)
    flags = dict.fromkeys(["target", "out", "hess", "packs", "keeps_logits", "transformed", "capped"])
    flags = {flag: int(rng.random() < 0.4) for flag in flags} | {"exps": int(rng.integers(3))} | chosen
    x = random_strides(rng, shape, itemsize)
    strides = [x if rng.random() < 0.7 else random_strides(rng, shape, itemsize) for _ in range(2)]
    return {"ndim": len(shape), "axis": axis, **flags, "shape": shape, "strides": [x, *strides]}


def packed(given):
    arrays = [given["shape"], *given["strides"]]
    single = [value for key, value in given.items() if key not in ("shape", "strides")]
    return np.array([*single, *(n for array in arrays for n in [*array, 0, 0, 0, 0][:4])], np.int64)


FACTS = ["chunks", "scratch", "chunk", "count", "inner", "intact"]


class Walked:
    """What a function of plan_tiles.c says of random calls but those that the walk refuses."""

    def __init__(self, numbers, edge, name, seed, **chosen):
        self.rng = np.random.default_rng([seed, *name.encode()])
        self.numbers, self.edge, self.name, self.chosen = numbers[name], edge, name, chosen

    def __call__(self, function):
        """Yield each call, its facts and what `function` returned."""
        walked = 0
        for _ in range(CALLS):
            given = random_call(self.rng, self.numbers[0].itemsize, **self.chosen)
            facts = np.zeros(len(FACTS), np.int64)
            result = function(packed(given), *self.numbers, facts)
            if result != -1:
                walked += 1
                yield given, dict(zip(FACTS, facts.tolist(), strict=True)), result
        assert walked > CALLS / 2


@stored
def test_tiles(library, numbers, edge, name):
    tile, exps, pack, transposed = np.ctypeslib.as_array(
        (np.ctypeslib.ctypes.c_int * 4).in_dll(library, "tile_sizes")
    )
    records = np.zeros((MOST_TILES, 8), np.int64)

    def tiles(given, read, written, facts):
        function = getattr(library, f"of_tiles_{name}")
        return call(function, given, read, written, edge.end, facts, records, MOST_TILES)

    seen = {"scratch": 0, "exps": 0, "pack": 0, "transposed": 0}
    for given, facts, found in Walked(numbers, edge, name, 1)(tiles):
        chunk, first, n, *arrays, overlap = records[:found].T
        assert found < MOST_TILES and (n > 0).all(), given
        assert facts["chunks"] == -(-facts["count"] // facts["chunk"]), given
        assert (n <= tile).all(), given
        np.testing.assert_array_equal(first, np.cumsum(n) - n, str(given))
        assert n.sum() == facts["count"], given
        np.testing.assert_array_equal(chunk, first // facts["chunk"], str(given))
        reached = dict(zip(seen, (int(a.max(initial=0)) for a in arrays), strict=True))
        room = {"scratch": facts["scratch"], "exps": exps, "pack": pack, "transposed": transposed}
        for array in seen:
            assert reached[array] <= room[array], f"{array} of {given}: {reached}, {facts}"
            seen[array] = max(seen[array], reached[array] / max(room[array], 1))
        assert overlap.max(initial=0) == 0, f"{given}: arrays overlap by {overlap.max()} bytes"
        assert facts["intact"], f"{given}: something is written outside of the scratch"
        few = 1 < facts["inner"] < 16  # which become rows in scratch, where they have more than a few classes
        if given["exps"] == NO_EXPS and not given["transformed"] and not few:
            assert facts["scratch"] == 0, given
    assert min(seen.values()) > 0.9, f"not all arrays were filled: {seen}"


@stored
def test_distillation(library, numbers, edge, name):
    """Each position gets its loss once, within the scratch."""
    losses, partial = np.zeros(MOST_ELEMENTS, REAL[name]), np.zeros(MOST_ELEMENTS)

    def distill(given, read, written, facts):
        losses[:] = np.nan
        return call(
            getattr(library, f"of_distill_{name}"), given, read, written, edge.end, facts, losses, partial
        )

    chosen = {"target": 1, "hess": 0, "transformed": 0}
    for given, facts, _ in Walked(numbers, edge, name, 2, **chosen)(distill):
        check_sums(given, facts, losses, partial)
        assert facts["intact"], f"{given}: something is written outside of the scratch"


@stored
def test_losses_that_bend(library, numbers, edge, name):
    """Second derivatives line by line, and products of the Hessian, of which floats become doubles."""
    losses, partial = np.zeros((2, MOST_ELEMENTS))
    labels, left = np.zeros((2, MOST_ELEMENTS), np.int64)
    is_left = np.zeros(MOST_ELEMENTS, np.uint8)

    def curved(given, read, written, facts):
        losses[:] = np.nan
        arrays = losses, partial, labels, left, is_left
        return call(
            getattr(library, f"of_curved_{name}"), given, read, written, edge.end, facts, *arrays, product
        )

    for product in (0, 1) if name in ("f32", "f64") else (0,):
        for given, facts, _ in Walked(numbers, edge, name, 5 + product, out=1, hess=1)(curved):
            assert facts["intact"], f"{given}: something is written outside of the scratch"
            count, chunks = facts["count"], facts["chunks"]
            assert not left[:chunks].any(), given
            assert product or not np.isnan(losses[:count]).any(), given
            assert np.isnan(losses[0 if product else count :]).all(), given


@stored
def test_log_sum_exps_with_factors(library, numbers, edge, name):
    results = np.zeros(MOST_ELEMENTS, REAL[name])

    def weighted(given, read, written, facts):
        results[:] = 7
        return call(getattr(library, f"of_weighted_{name}"), given, read, written, edge.end, facts, results)

    chosen = {"target": 1, "out": 0, "hess": 0}
    for given, facts, _ in Walked(numbers, edge, name, 8, **chosen)(weighted):
        assert facts["intact"], f"{given}: something is written outside of the scratch"
        assert (results[facts["count"] :] == 7).all(), given


@stored
def test_sparse_distillation(library, numbers, edge, name):
    losses, partial = np.zeros((2, MOST_ELEMENTS))
    ids, log_probs = np.zeros(MOST_ELEMENTS, np.int64), np.full(MOST_ELEMENTS, -3.0)

    def sparse(given, read, written, facts):
        losses[:] = np.nan
        function = getattr(library, f"of_sparse_{name}")
        arrays = losses, partial, ids, log_probs
        return call(function, given, read, written, edge.end, facts, *arrays, MOST_ELEMENTS)

    for given, facts, _ in Walked(numbers, edge, name, 4, target=0, hess=0, capped=0)(sparse):
        check_sums(given, facts, losses, partial)
        assert facts["intact"], f"{given}: something is written outside of the scratch"


@stored
def test_label_losses(library, numbers, edge, name):
    losses, partial = np.zeros(MOST_ELEMENTS), np.zeros((MOST_ELEMENTS, 2))
    labels = np.zeros(MOST_ELEMENTS, np.int64)

    def label(given, read, written, facts):
        losses[:] = np.nan
        return call(
            getattr(library, f"of_label_{name}"), given, read, written, labels, facts, losses, partial
        )

    for given, facts, _ in Walked(numbers, edge, name, 3, target=0, hess=0, transformed=0)(label):
        check_sums(given, facts, losses, partial[:, 0])
        assert not partial[: facts["chunks"], 1].any()  # sums of terms beyond most doubles


def check_sums(given, facts, losses, partial):
    """Each position has a loss, and each chunk the sum of those of its own."""
    count, chunk = facts["count"], facts["chunk"]
    assert not np.isnan(losses[:count]).any(), given
    assert np.isnan(losses[count:]).all(), given
    starts = np.arange(0, count, chunk)
    assert len(starts) == facts["chunks"], given
    if count:
        sums = np.add.reduceat(losses[:count].astype(np.float64), starts)
        np.testing.assert_allclose(partial[: len(starts)], sums, rtol=1e-5, atol=1e-5, err_msg=str(given))


# Elements ---------------------------------------------------------------------------------------------------


def test_elements_are_in_one_chunk_each(library, numbers):
    rng = np.random.default_rng(4)
    sizes = np.zeros(5, np.int64)
    for _ in range(CALLS):
        given = random_call(rng, 4, target=1)
        if not call(library.of_elements, packed(given), sizes, numbers["f32"][0]):
            continue
        rows, length, chunk, piece, chunks = sizes.tolist()
        if math.prod(given["shape"]) == 0:
            assert chunks == 0
            continue
        assert rows * length == math.prod(given["shape"]), given
        grid = np.zeros((rows, length), np.int8)
        pieces = -(-length // piece)
        for k in range(chunks):
            part = grid[
                k // pieces * chunk : (k // pieces + 1) * chunk, k % pieces * piece : (k % pieces + 1) * piece
            ]
            assert part.size, f"chunk {k} of {given} is empty"
            part += 1
        assert (grid == 1).all(), given


def test_flat_arrays_are_cut_into_chunks(library):
    sizes = np.zeros(6, np.int64)
    for size in [0, 1, 16383, 16384, 16385, 1_000_000]:
        call(library.of_flat_arrays, size, 3, sizes)
        for chunk, chunks in sizes.reshape(3, 2).tolist():
            assert chunks == -(-size // chunk)


# Images -----------------------------------------------------------------------------------------------------


def random_window(rng, padded=True, dilated=True, largest=40, overhang=0.0):
    """A window in the order of xent_window, and its padding below and on the right.

    With the probability `overhang` there is one more output that sees less (ceil_mode).
    """
    axes = []
    for _ in range(2):
        kernel, stride = int(rng.integers(1, 7)), int(rng.integers(1, 5))
        dilation = int(rng.integers(1, 4)) if dilated else 1
        padding = int(rng.integers(0, kernel // 2 + 1)) if padded else 0
        reach = dilation * (kernel - 1) + 1
        size = max(int(rng.integers(1, largest)), reach - 2 * padding)
        room = size + 2 * padding - reach
        out = room // stride + 1
        out += room % stride > 0 and out * stride < size + padding and rng.random() < overhang
        axes.append((size, kernel, stride, dilation, padding, out))
    return np.array(axes, np.int64).T.ravel(), [axes[0][4], axes[1][4]]


@reals
@pytest.mark.parametrize("average", [0, 1])
def test_pool(library, edge, name, average):
    rng = np.random.default_rng([5, average])
    for _ in range(CALLS):
        window, behind = random_window(rng, dilated=not average, overhang=0.3)
        planes = int(rng.integers(1, 4))
        height, width, *_, out_h, out_w = window.tolist()
        x = rng.standard_normal((planes, height, width)).astype(REAL[name])
        pooled, grad = np.full((planes, out_h, out_w), np.nan, x.dtype), np.full_like(x, np.nan)
        function = getattr(library, f"of_pool_{name}")
        sizes = np.array([planes, *behind], np.int64)
        assert call(function, window, sizes, x, pooled, grad, edge.end, average), f"{window}: written outside"
        assert not np.isnan(pooled).any() and not np.isnan(grad).any(), window


def random_convolution(rng):
    """A window, and images, groups, channels of a group in and out; some larger than a tile or a block."""
    window, _ = random_window(rng, padded=rng.random() < 0.5, largest=int(rng.choice([12, 40, 90])))
    sizes = [int(rng.integers(1, 4)), int(rng.choice([1, 1, 2, 5, 16, 37]))]
    most = 6 if sizes[1] < 16 else 2
    sizes += [int(np.exp2(rng.uniform(0, most))), int(np.exp2(rng.uniform(0, most)))]
    pixels, taps = int(window[-2] * window[-1]), int(window[2] * window[3])
    while sizes[0] * sizes[1] * sizes[2] * sizes[3] * pixels * taps > 3_000_000 and max(sizes) > 1:
        sizes[int(np.argmax(sizes))] //= 2
    return window, sizes


@reals
@pytest.mark.parametrize("backward", [0, 1])
def test_convolution(library, edge, name, backward):
    """Products of ones: what is summed twice, or left out, shows."""
    rng = np.random.default_rng([6, backward])
    function = getattr(library, f"of_convolution_{name}")
    for _ in range(CALLS // 2):
        window, (images, groups, channels, outputs) = random_convolution(rng)
        height, width, kernel_h, kernel_w, *_, top, left, out_h, out_w = window.tolist()
        x = np.ones((images, groups * channels, height, width), REAL[name])
        weight = np.ones((groups * outputs, channels, kernel_h, kernel_w), REAL[name])
        y = np.ones((images, groups * outputs, out_h, out_w), REAL[name])
        packed_room = np.zeros(2 * weight.size + 4096 * channels * kernel_h * kernel_w + SHARED, REAL[name])
        out = np.full(y.shape if not backward else (64, *weight.shape), np.nan, REAL[name])
        sizes = np.array([images, groups, channels, outputs, backward], np.int64)
        operands = x, y if backward else weight, packed_room, out
        done = call(function, window, sizes, *operands, edge.end, packed_room.nbytes)
        assert done >= 0, f"{window}, {sizes}: {'a room is too small' if done == -2 else 'written outside'}"
        result = out[:done].sum(0) if backward else out
        assert not np.isnan(result).any(), f"{window}, {sizes}"
        if top == left == 0:
            assert (result == (images * out_h * out_w if backward else channels * kernel_h * kernel_w)).all()
