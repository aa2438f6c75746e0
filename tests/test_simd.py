"""Every word of the vector vocabulary (xent/csrc/simd) on every instruction set, against NumPy, bit for bit.

exp and log, which are made of these words, have test_vmath.py.
"""

import ctypes
import itertools
import math
import re
from fractions import Fraction

import ml_dtypes
import mpmath
import numpy as np
import pytest
from compiled import CSRC, USABLE, call, compile_library, shared_folder
from helpers import ROOT, finfo

STORED = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
REAL = {"f64": np.float64, "f32": np.float32, "f16": np.float32, "bf16": np.float32}  # computed with
BITS = {2: np.uint16, 4: np.uint32, 8: np.uint64}
reals = pytest.mark.parametrize("name", ["f32", "f64"])
stored = pytest.mark.parametrize("name", STORED)

TESTED = set()


def covers(*words):
    """Say which words a test is of."""
    TESTED.update(words)
    return lambda test: test


class Vectors:
    """The words of one instruction set, and how many numbers its vectors hold."""

    def __init__(self, library):
        self.library = library
        self.bytes, self.fused, self.has_lookup, self.scales, self.turns = (
            ctypes.c_int.in_dll(library, name).value
            for name in ["vector_bytes", "fused", "has_lookup", "scales", "turns"]
        )

    def lanes(self, name):
        return self.bytes // np.dtype(REAL[name]).itemsize

    def __call__(self, word, *arguments):
        call(getattr(self.library, f"of_{word}"), *arguments)


@pytest.fixture(scope="module", params=USABLE)
def simd(request, tmp_path_factory):
    folder = shared_folder(tmp_path_factory, "simd")
    return Vectors(compile_library(folder, request.param, [ROOT / "tests" / "simd_words.c"]))


# Numbers ----------------------------------------------------------------------------------------------------


def bits(x):
    return x.view(BITS[x.dtype.itemsize])


def assert_bits(actual, expected, word, any_nan=False):
    """Assert equal bits; with `any_nan`, one NaN is as good as another of the same sign."""
    actual, expected = np.ascontiguousarray(actual), np.ascontiguousarray(expected)
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), word
    wrong = bits(actual) != bits(expected)
    if any_nan:
        wrong &= ~(np.isnan(actual) & np.isnan(expected))
    place = tuple(np.argwhere(wrong)[0]) if wrong.any() else None
    assert place is None, f"{word} at {place}: got {actual[place]!r}, expected {expected[place]!r}"


def misaligned(x):
    """A copy that no vector finds aligned."""
    raw = np.empty(x.size + 1, x.dtype)
    raw[1:] = x.ravel()
    return raw[1:]


def distinct(count, name):
    """Numbers that differ in all bits that matter to a word that only moves them."""
    return np.arange(1, count + 1).astype(STORED[name])


def special(dtype):
    info = np.finfo(dtype)
    least = info.smallest_subnormal
    values = [0.0, 1.0, 1.5, 1 + info.eps, 3.0, 2.0**40, info.max, np.inf, np.nan]
    values += [least, 3 * least, info.tiny - least, info.tiny]
    quiet = np.array([*values, *[-v for v in values]], dtype)
    signalling = bits(np.array([np.inf, -np.inf], dtype)) + 1
    return np.concatenate([quiet, signalling.astype(BITS[quiet.itemsize]).view(dtype)])


def operands(dtype):
    """Three arrays of whole vectors: all pairs of special numbers, random bits, and close numbers."""
    rng = np.random.default_rng(0)
    pairs = np.array(list(itertools.product(special(dtype), repeat=2)), dtype)
    random = rng.integers(0, 256, (3, 1024 * np.dtype(dtype).itemsize), np.uint8).view(dtype)
    close = rng.integers(-4, 5, (3, 512)).astype(dtype)
    x = np.concatenate([pairs[:, 0], random[0], close[0]])
    y = np.concatenate([pairs[:, 1], random[1], close[1]])
    z = np.concatenate([pairs[::-1, 0], random[2], close[2]])
    whole = x.size // 16 * 16
    return [misaligned(v[-whole:]) for v in (x, y, z)]


def interleaved(a, b):
    """a0 b0 a1 b1 ... along the last axis."""
    return np.stack([a, b], -1).reshape(*a.shape[:-1], -1)


def nearest(value, dtype):
    """A number of dtype that is nearest to a Fraction other than 0, ties to even."""
    info = np.finfo(dtype)
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    exponent -= abs(value) < Fraction(2) ** exponent
    unit = Fraction(2) ** max(exponent - info.nmant, info.minexp - info.nmant)
    rounded = round(value / unit) * unit
    if abs(rounded) > Fraction(float(info.max)):
        return math.inf if value > 0 else -math.inf
    return float(rounded) if rounded or value > 0 else -0.0


def fused_multiply_add(a, b, c):
    finite = np.isfinite(a) & np.isfinite(b)
    result = np.where(finite & np.isinf(c), c, a * b + c)  # right where no rounding is involved
    for i in np.flatnonzero(finite & np.isfinite(c)):
        exact = Fraction(float(a[i])) * Fraction(float(b[i])) + Fraction(float(c[i]))
        if exact:
            result[i] = nearest(exact, a.dtype)
    return result


# Words of whole vectors -------------------------------------------------------------------------------------

# What a word makes of vectors a, b and c, which are the rows of arrays.
WORDS = {
    "v_load": lambda a, b, c: a,
    "v_abs": lambda a, b, c: (bits(a) & ~bits(np.array(-0.0, a.dtype))).view(a.dtype),
    "v_max": lambda a, b, c: np.where(a > b, a, b),
    "v_min": lambda a, b, c: np.where(a < b, a, b),
    "v_select": lambda a, b, c: np.where(a > b, b, c),
    "v_count": lambda a, b, c: (bits(c) + (a > b)).astype(BITS[c.itemsize]).view(c.dtype),
    "m_gt": lambda a, b, c: np.where(a > b, c, a),
    "m_ge": lambda a, b, c: np.where(a >= b, c, a),
    "m_eq": lambda a, b, c: np.where(a == b, c, a),
    "set": lambda a, b, c: np.repeat(a[:, :1], a.shape[1], 1),
    "iset": lambda a, b, c: np.repeat(a[:, :1], a.shape[1], 1),
    "v_evens": lambda a, b, c: np.concatenate([a[:, ::2], b[:, ::2]], 1),
    "v_odds": lambda a, b, c: np.concatenate([a[:, 1::2], b[:, 1::2]], 1),
    "v_zip_lo": lambda a, b, c: np.hsplit(interleaved(a, b), 2)[0],
    "v_zip_hi": lambda a, b, c: np.hsplit(interleaved(a, b), 2)[1],
    "v_mix_lo": lambda a, b, c: mixed(a, b, 0),
    "v_mix_hi": lambda a, b, c: mixed(a, b, 1),
    "v_mix_pairs_lo": lambda a, b, c: mixed(a.view(np.float64), b.view(np.float64), 0).view(a.dtype),
    "v_mix_pairs_hi": lambda a, b, c: mixed(a.view(np.float64), b.view(np.float64), 1).view(a.dtype),
}


def mixed(a, b, half):
    piece = 16 // a.itemsize
    a, b = (v.reshape(len(v), -1, piece) for v in (a, b))
    return np.split(interleaved(a, b), 2, -1)[half].reshape(len(a), -1)


def of_whole_vectors(simd, word, name, a, b, c):
    out = misaligned(np.zeros_like(a))
    simd(f"{word}_{name}", a, b, c, out, a.size)
    return out


OF_TYPES = [(word, name) for word in WORDS for name in ("f32", "f64") if "pairs" not in word or name == "f32"]


@covers("v_store", *WORDS)
@pytest.mark.parametrize(["word", "name"], OF_TYPES)
def test_whole_vectors(simd, word, name):
    arrays = operands(REAL[name])
    vectors = [v.copy().reshape(-1, simd.lanes(name)) for v in arrays]
    with np.errstate(all="ignore"):
        expected = WORDS[word](*vectors)
    actual = of_whole_vectors(simd, word, name, *arrays).reshape(expected.shape)
    assert_bits(actual, expected, word, any_nan=word == "set")


@covers("v_fma")
@reals
def test_fma(simd, name):
    a, b, c = (v[::3][: v.size // 48 * 16].copy() for v in operands(REAL[name]))
    with np.errstate(all="ignore"):
        c = np.where(np.arange(c.size) % 2, c, -(a * b))  # cancellation shows whether the product was rounded
        expected = fused_multiply_add(a, b, c) if simd.fused else a * b + c
    assert_bits(of_whole_vectors(simd, "v_fma", name, a, b, c), expected, "v_fma", any_nan=True)


@covers("m_any")
@reals
def test_any(simd, name):
    lanes = simd.lanes(name)
    rows = [np.zeros(lanes), *np.eye(lanes), np.ones(lanes), np.full(lanes, np.nan)]
    a = np.array(rows, REAL[name])
    out = np.full(len(a), -1, a.dtype)
    simd(f"m_any_{name}", a, np.zeros_like(a), out, a.size)
    np.testing.assert_array_equal(out != 0, [False, *[True] * (lanes + 1), False])


@covers("v_reduce_sum", "v_reduce_max")
@reals
def test_reductions(simd, name):
    lanes = simd.lanes(name)
    vectors = np.random.default_rng(1).standard_normal((64, lanes)).astype(REAL[name])
    vectors[:lanes][np.eye(lanes, dtype=bool)] = 10  # the largest is in every lane once
    vectors[-2], vectors[-1] = -np.inf, np.inf
    out = np.zeros(len(vectors), vectors.dtype)
    simd(f"v_reduce_max_{name}", vectors, vectors, out, vectors.size)
    assert_bits(out, vectors.max(1), "v_reduce_max")
    simd(f"v_reduce_sum_{name}", vectors, vectors, out, vectors.size)
    expected = vectors[:, 0].copy()
    for k in range(1, lanes):
        expected += vectors[:, k]
    assert_bits(out, expected, "v_reduce_sum")


@covers("v_widen_lo", "v_widen_hi", "v_narrow")
def test_floats_and_doubles(simd):
    floats, doubles = operands(np.float32)[0], operands(np.float64)[0]
    with np.errstate(all="ignore"):
        ties = (floats.astype(np.float64) + np.nextafter(floats, np.float32(9))) / 2
        doubles = np.concatenate([doubles, ties, *(np.nextafter(ties, end) for end in (-np.inf, np.inf))])
        wide, narrow = floats.astype(np.float64), doubles.astype(np.float32)
        rest = doubles - narrow
    out = np.empty_like(wide)
    simd("v_widen", floats, out, floats.size)
    assert_bits(out, wide, "v_widen", any_nan=True)
    out = np.empty_like(narrow)
    simd("v_narrow", doubles, out, doubles.size)
    assert_bits(out, narrow, "v_narrow", any_nan=True)
    out = np.empty_like(rest)
    simd("narrowed_rest", doubles, out, doubles.size)
    assert_bits(out, rest, "v_widen of v_narrow", any_nan=True)


@covers("v_load_h16", "v_count_greater_h16", "v_count_above_h16")
def test_counts_of_16_bits(simd):
    a, b, c = np.random.default_rng(3).integers(0, 2**16, (3, 4096)).astype(np.uint16)
    a[:2048] = b[:2048] + np.arange(-1, 2047).astype(np.uint16) % 3 - 1  # close ones
    for word, expected in [
        ("v_load_h16", a),
        ("v_count_greater_h16", c + (a.view(np.int16) > b.view(np.int16))),
        ("v_count_above_h16", c + (a > b)),
    ]:
        out = misaligned(np.zeros_like(a))
        simd(word, *map(misaligned, (a, b, c)), out, a.size)
        assert_bits(out, expected.astype(np.uint16), word)


@covers("count_larger")
@stored
def test_count_larger(simd, edge, name):
    """Than numbers of either sign, in arrays of every length; nothing behind is read."""
    values = np.random.default_rng(4).standard_normal(200).astype(STORED[name])
    values[::9], values[1::9], values[2::9], values[3::31] = 0.0, -0.0, -1.0, np.inf
    for than in np.array([1.5, 0.0, -0.0, -1.0, np.inf, -np.inf], STORED[name]):
        for n in [*range(70), 200]:
            found = np.empty(1)
            simd(f"count_larger_{name}", edge.last(values[:n]), n, np.array([than]), found)
            assert found == (values[:n] > than).sum(), f"{n} numbers larger than {than}"


@covers("v_lookup")
def test_lookup(simd):
    if not simd.has_lookup:
        pytest.skip("no table in a register")
    table = np.tile(np.array([1.5, -0.0, np.inf, 4], np.float32), 4)
    index = np.random.default_rng(2).integers(-(2**31), 2**31, 1024).astype(np.int32)
    index[:16] = np.arange(16)
    out = np.empty(index.size, np.float32)
    simd("v_lookup", table, index, out, index.size)
    assert_bits(out, table[index & 3], "v_lookup")


@covers("v_before", "v_after")
@reals
def test_turns(simd, name):
    if not simd.turns:
        pytest.skip("only where one instruction does it")
    rng = np.random.default_rng(1)
    a, b, c = rng.standard_normal((3, 64 * simd.lanes(name))).astype(REAL[name])
    for word, by in ("v_before", 1), ("v_after", -1):
        moved = np.roll(a.reshape(-1, simd.lanes(name)), by, 1).ravel()
        expected = np.where(b > c, moved, 0).astype(a.dtype)
        assert_bits(of_whole_vectors(simd, word, name, a, b, c), expected, word)


@covers("v_scale")
@reals
def test_powers_of_two(simd, name):
    """The exponent is rounded down, and the product once, be it subnormal, 0 or infinite."""
    if not simd.scales:
        pytest.skip("no instruction scales")
    rng = np.random.default_rng(6)
    most = {"f32": 160, "f64": 1100}[name]
    a, n = rng.standard_normal(1024), rng.uniform(-most, most, 1024)
    a[:4], n[4:8] = [0.0, -0.0, np.inf, np.nan], [0.0, -1.0, 1.0, -0.25]
    a, n = a.astype(REAL[name]), n.astype(REAL[name])
    with np.errstate(all="ignore"):
        expected = np.ldexp(a, np.floor(n).astype(int))
    assert_bits(of_whole_vectors(simd, "v_scale", name, a, n, n), expected, "v_scale", any_nan=True)


# Parts of vectors -------------------------------------------------------------------------------------------


PARTS = [("load", "store", name) for name in STORED]
PARTS += [
    (load, store, name)
    for load, store in [("v_load_n", "v_store_n"), ("load_part", "store_part")]
    for name in ("f32", "f64")
]


@covers(
    *["v_load_n", "v_store_n", "xent_load_n_16", "xent_store_n_16", "load_some", "store_some"],
    *["load", "store", "load_part", "store_part"],
)
@pytest.mark.parametrize(["load", "store", "name"], PARTS)
def test_parts(simd, edge, load, store, name):
    """With every n that a word takes; nothing behind is read or written."""
    lanes = simd.lanes(name)
    taken = {"v_load_n": range(lanes), "load": range(lanes + 3), "load_part": range(-2, lanes + 3)}
    values, fill = distinct(lanes, name), -distinct(lanes, name).astype(REAL[name])
    for n in taken[load]:
        count = min(max(n, 0), lanes)
        out = np.empty(lanes, REAL[name])
        simd(f"{load}_{name}", edge.last(values[:count]), n, fill, out)
        expected = np.concatenate([values[:count].astype(out.dtype), fill[count:]])
        assert_bits(out, expected, f"{load} of {n}")
        written = edge.last(np.zeros(count, STORED[name]))
        before = written.ctypes.data - edge.bytes.ctypes.data
        simd(f"{store}_{name}", written, values.astype(REAL[name]), n)
        assert_bits(written, values[:count], f"{store} of {n}")
        assert not edge.bytes[before - 64 : before].any(), f"{store} of {n} writes before"
        edge.bytes[before : edge.size] = 0


@covers("load_row")
@stored
def test_rest_of_a_row(simd, edge, name):
    """Whatever lies between the row and the end of what may be read; nothing behind that is."""
    lanes = simd.lanes(name)
    values, fill = distinct(lanes, name), -distinct(lanes, name).astype(REAL[name])
    for n, more in itertools.product(range(1, lanes + 2), range(lanes + 1)):
        count = min(n, lanes)
        readable = edge.last(np.concatenate([values[:count], np.full(more, np.nan).astype(values.dtype)]))
        out = np.empty(lanes, REAL[name])
        simd(f"load_row_{name}", readable, n, count + more, fill, out)
        expected = np.concatenate([values[:count].astype(out.dtype), fill[count:]])
        assert_bits(out, expected, f"{n} of a row and {more} more")


@covers("first")
@reals
def test_first_lanes(simd, name):
    lanes = simd.lanes(name)
    a = distinct(lanes, name)
    for n in range(-1, lanes + 2):
        out = np.empty_like(a)
        simd(f"first_{name}", n, a, -a, out)
        assert_bits(out, np.where(np.arange(lanes) < n, a, -a), f"first {n}")


@covers("v_load_where")
@reals
def test_lanes_of_a_mask(simd, edge, name):
    """All runs of lanes; no other is read: memory ends behind the last, or begins with the first."""
    lanes = simd.lanes(name)
    a = distinct(lanes, name)
    for first, end in itertools.combinations_with_replacement(range(lanes + 1), 2):
        values = edge.last(a[:end])
        out = np.empty_like(a)
        simd(f"v_load_where_{name}", values, first, end, out)
        inside = (np.arange(lanes) >= first) & (np.arange(lanes) < end)
        assert_bits(out, np.where(inside, a, 0).astype(a.dtype), f"lanes {first} to {end}")


@covers("get", "put")
@stored
def test_one_number(simd, edge, name):
    for value in np.array([1.5, -0.0, np.inf, -3], STORED[name]):
        wide, narrow = np.empty(1, REAL[name]), edge.last(np.zeros(1, STORED[name]))
        simd(f"get_{name}", edge.last(np.array([value])), wide)
        assert_bits(wide, np.array([value]).astype(REAL[name]), "get")
        simd(f"put_{name}", narrow, wide)
        assert_bits(narrow, np.array([value]), "put")


# Transposes -------------------------------------------------------------------------------------------------


def strided(rows, step):
    """An array that ends with the last of these rows, which lie `step` numbers apart."""
    count, width = rows.shape
    flat = np.zeros((count - 1) * step + width, rows.dtype)
    view = np.lib.stride_tricks.as_strided(flat, rows.shape, (step * rows.itemsize, rows.itemsize))
    view[...] = rows
    return flat


@covers("narrowed")
@pytest.mark.parametrize("name", STORED)
def test_doubles_are_rounded_once(simd, name):
    """Beside the middle of two numbers, where a float in between would be on it."""
    dtype, beside = np.dtype(STORED[name]), 2.0**-40
    eps = float(finfo(dtype).eps)
    for value, expected in [(1 + eps / 2 + beside, 1 + eps), (1 + eps / 2 - beside, 1.0), (-3.0, -3.0)]:
        result = np.zeros(1, dtype)
        simd(f"narrowed_{name}", result, np.array([value]))
        expected = value if name == "f64" else expected
        assert_bits(result, np.array([expected]).astype(dtype), "narrowed")


@covers("v_load_pieces", "v_store_pieces")
@reals
@pytest.mark.parametrize("apart", [0, 1, 7])
def test_pieces(simd, edge, name, apart):
    lanes, piece = simd.lanes(name), 16 // np.dtype(REAL[name]).itemsize
    pieces = distinct(lanes, name).reshape(-1, piece)
    flat = strided(pieces, piece + apart)
    out = np.empty(lanes, flat.dtype)
    simd(f"v_load_pieces_{name}", edge.last(flat), piece + apart, out)
    assert_bits(out, pieces.ravel(), "v_load_pieces")
    written = edge.last(np.zeros_like(flat))
    simd(f"v_store_pieces_{name}", written, piece + apart, out)
    assert_bits(written, flat, "v_store_pieces")


@covers("load_transposed", "store_transposed", "load_classes", "store_classes")
@pytest.mark.parametrize(
    ["words", "name"], [("classes", "f32"), ("classes", "f64"), *(("transposed", name) for name in STORED)]
)
@pytest.mark.parametrize("apart", [0, 1, 5])
def test_transposed(simd, edge, words, name, apart):
    real = REAL[name]
    piece, lanes = 16 // np.dtype(real).itemsize, simd.lanes(name)
    rows = distinct(piece * lanes, name).reshape(lanes, piece)
    flat = strided(rows, piece + apart)
    out = np.empty((piece, lanes), real)
    simd(f"load_{words}_{name}", edge.last(flat), piece + apart, out)
    assert_bits(out, rows.T.astype(real), f"load_{words}")
    written = edge.last(np.zeros_like(flat))
    simd(f"store_{words}_{name}", written, piece + apart, out)
    assert_bits(written, flat, f"store_{words}")


@covers("rows_to_columns", "columns_to_rows", "store_few_classes")
@pytest.mark.parametrize("more", [0, 1, 5])
@reals
def test_rows_and_columns(simd, edge, name, more):
    """The positions behind those may be read along, and written to before their turn comes."""
    lanes = simd.lanes(name)
    for sizes in itertools.product([1, lanes - 1, lanes, 2 * lanes + 1], [1, 2, 3, 4, 5, 7, 8, 9]):
        positions, classes = sizes
        rows = distinct((positions + more) * classes, name).reshape(-1, classes)
        step = -(-positions // lanes) * lanes
        columns = np.zeros((classes, step), rows.dtype)
        columns[:, :positions] = rows[:positions].T
        for apart in [0, 3]:
            flat, row_step = strided(rows, classes + apart), classes + apart
            for in_place, out_place in [(edge.last, np.copy), (np.copy, edge.last)]:
                out = out_place(np.full_like(columns, np.nan))
                simd(f"rows_to_columns_{name}", in_place(flat), row_step, out, step, *sizes, more)
                assert_bits(out, columns, f"rows_to_columns of {sizes}")
                back = out_place(np.zeros_like(flat))
                simd(f"columns_to_rows_{name}", in_place(columns), step, back, row_step, *sizes, more)
                done = positions * row_step if more else flat.size
                assert_bits(back[:done], flat[:done], f"columns_to_rows of {sizes}")


# 16-bit floats ----------------------------------------------------------------------------------------------

every_16 = np.arange(1 << 16, dtype=np.uint16)
narrow = pytest.mark.parametrize("name", ["f16", "bf16"])


def assert_16(actual, expected, word):
    assert_bits(actual, expected, word, any_nan=True)
    np.testing.assert_array_equal(np.signbit(actual), np.signbit(expected), f"{word}: the sign")


@covers("xent_load_16", "xent_store_16")
def test_integers_of_16_bits(simd):
    out = np.zeros(every_16.size, np.uint32)
    simd("xent_load_16", misaligned(every_16), out, out.size)
    np.testing.assert_array_equal(out, every_16)
    back = misaligned(np.zeros_like(every_16))
    simd("xent_store_16", out, back, out.size)
    np.testing.assert_array_equal(back, every_16)


@covers("v_load_f16", "v_load_bf16")
@narrow
def test_every_16_bit_float_is_loaded(simd, name):
    x = misaligned(every_16).view(STORED[name])
    out = np.zeros(x.size, np.float32)
    simd(f"all_loads_{name}", x, out, out.size)
    with np.errstate(all="ignore"):
        assert_16(out, x.astype(np.float32), f"v_load_{name}")


@covers("v_store_f16", "v_store_bf16")
@narrow
def test_16_bit_floats_are_rounded_to_nearest_even(simd, name):
    """Random floats, every 16-bit float, the tie above each, and the floats beside the ties."""
    with np.errstate(all="ignore"):
        exact = every_16.view(STORED[name]).astype(np.float32)
        above = (every_16 + np.uint16(1)).view(STORED[name]).astype(np.float32)
        ties = exact + (above - exact) / 2  # nothing is rounded but at the end of the range
        ends = np.array([65504, 65519.996, 65520, 65520.004, 65536], np.float32)
        beside = [np.nextafter(ties, np.float32(end)) for end in (-np.inf, np.inf)]
        random = np.random.default_rng(3).integers(0, 1 << 32, 1 << 16, np.uint32).view(np.float32)
        last = (0x7F7F0000 + every_16.astype(np.uint32)).view(np.float32)  # on to what rounds to infinity
        x = np.concatenate([random, exact, ties, *beside, last, -last, ends, -ends])
        x = np.concatenate([x, np.zeros(-x.size % 16, np.float32)])
        expected = x.astype(STORED[name])
    out = np.zeros(x.size, STORED[name])
    simd(f"all_stores_{name}", x, out, out.size)
    assert_16(out, expected, f"v_store_{name}")


@covers("fetch", "fetch_ahead")
@stored
def test_what_is_fetched_need_not_be_there(simd, edge, name):
    """Beyond the end of memory nothing happens."""
    numbers = edge.last(distinct(64, name))
    simd(f"fetch_ahead_{name}", numbers, numbers.size)
    assert_bits(numbers, distinct(64, name), "fetch_ahead")


# Stores past the caches -------------------------------------------------------------------------------------


@covers("v_stream", "store_aligned", "until_aligned", "xent_stream_16", "xent_streamed")
@stored
@pytest.mark.parametrize("streams", [0, 1])
@pytest.mark.parametrize("before", range(5))
def test_aligned_stores(simd, name, streams, before):
    lanes, dtype = simd.lanes(name), np.dtype(STORED[name])
    memory = np.zeros(64 + 3 * lanes, dtype)
    start = -memory.ctypes.data % (lanes * dtype.itemsize) // dtype.itemsize
    values, first = np.arange(1, lanes + 1).astype(REAL[name]), np.zeros(1, np.int64)
    simd(f"store_aligned_{name}", memory[start + before :], values, streams, first)
    expected = np.zeros_like(memory)
    assert first[0] == (lanes - before) % lanes
    where = start + before + first[0]
    expected[where : where + lanes] = values
    np.testing.assert_array_equal(memory, expected)
    if name in ("f32", "f64") and streams:
        memory[...] = 0
        simd(f"v_stream_{name}", memory[where:], values)
        np.testing.assert_array_equal(memory, expected)


# Sums -------------------------------------------------------------------------------------------------------


@covers("product_error", "sum_error")
@reals
@pytest.mark.parametrize(["word", "operator"], [("product_error", "__mul__"), ("sum_error", "__add__")])
def test_what_rounding_takes(simd, word, operator, name):
    rng = np.random.default_rng(4)
    a, b = (rng.standard_normal(256) * np.exp2(rng.integers(-12, 12, 256)) for _ in range(2))
    a, b = a.astype(REAL[name]), b.astype(REAL[name])
    rounded = getattr(a, operator)(b)
    exact = [getattr(Fraction(float(u)), operator)(Fraction(float(v))) for u, v in zip(a, b, strict=True)]
    rest = [float(e - Fraction(float(r))) for e, r in zip(exact, rounded, strict=True)]
    actual = of_whole_vectors(simd, word, name, a, b, b)
    np.testing.assert_array_equal(actual, np.array(rest, a.dtype))


def of_lanes(simd, name, terms):
    """Return the sum of each lane, and what is left below it."""
    out, low = np.empty(simd.lanes(name)), np.empty(simd.lanes(name))
    simd(f"sums_{name}", terms, terms.size, out, low)
    return out, low


def row_lanes(simd, name):
    """Return how many lanes a row is added up in, whatever the instruction set."""
    return ctypes.c_int.in_dll(simd.library, f"row_lanes_{name}").value


def of_rows(simd, name, terms, others):
    """Return the total of a row, that of it and all `others` but the largest in two numbers, and that one."""
    totals, top = np.empty(3), np.empty(1, REAL[name])
    simd(f"row_sums_{name}", terms, terms.size, others, totals, top)
    return *totals, top[0]


def integers_that_cancel(name, lanes):
    """Return terms whose partial sums have more bits than a term, and their sums by lane, which have few."""
    rng = np.random.default_rng(5)
    small = rng.integers(-99, 100, (40, lanes)).astype(REAL[name])
    large = np.ldexp(rng.integers(1, 99, (1, lanes)), 40 if name == "f32" else 60).astype(REAL[name])
    return np.concatenate([small[:20], large, small[20:], -large]), small.sum(0, np.float64)


@covers("sum_add", "sum_lanes", "sum_total")
@reals
def test_sums_keep_what_their_terms_have(simd, name):
    terms, expected = integers_that_cancel(name, simd.lanes(name))
    out, low = of_lanes(simd, name, terms)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(low, 0)
    total = np.empty(1)
    simd(f"sum_total_{name}", terms, terms.size, total)
    assert total[0] == expected.sum()


@covers("start_row_sum", "row_total", "row_all_but_max", "row_vectors", "fold", "fold_sums", "add_odds")
@reals
def test_rows_keep_what_their_terms_have(simd, name):
    lanes = row_lanes(simd, name)
    terms, expected = integers_that_cancel(name, lanes)
    rng = np.random.default_rng(6)
    for largest in range(lanes):
        others = rng.integers(0, 50, lanes).astype(REAL[name])
        others[largest] = 50
        total, high, low, top = of_rows(simd, name, terms, others)
        assert total == expected.sum()
        assert high + low == expected.sum() + others.sum(dtype=np.float64) - 50
        assert top == 50


@reals
def test_rows_are_added_up_in_the_same_order(simd, name):
    """Bit for bit: in lanes, and then neighbours, until one is left."""
    lanes = row_lanes(simd, name)
    rng = np.random.default_rng(7)
    terms = (rng.standard_normal((3, lanes)) * np.exp2(rng.integers(-20, 20, (3, lanes)))).astype(REAL[name])
    expected = terms.astype(np.float64)
    expected = (expected[0] + expected[1]) + expected[2]
    while expected.size > 1:
        expected = expected[::2] + expected[1::2]
    total, *_ = of_rows(simd, name, terms, np.zeros(lanes, REAL[name]))
    if name == "f32":
        assert total == expected[0]
    else:  # what rounding takes is carried along: within an ulp of the exact sum, at its terms' scale
        assert abs(total - math.fsum(terms.ravel())) <= np.spacing(abs(total))


@covers("row_sum_add_array")
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 100])
def test_arrays_are_added_up(simd, n):
    numbers, total = np.arange(1.0, n + 1), np.empty(1)
    simd("row_sum_add_array", np.concatenate([numbers, np.full(9, np.nan)]), n, total)
    assert total[0] == n * (n + 1) // 2


@reals
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_sums_of_infinite_terms(simd, name, value):
    lanes = row_lanes(simd, name)
    terms = np.ones((3, lanes), REAL[name])
    terms[1, lanes // 2] = value
    total, *_ = of_rows(simd, name, terms, np.ones(lanes, REAL[name]))
    np.testing.assert_array_equal(total, value)
    terms = np.ones((3, simd.lanes(name)), REAL[name])
    terms[1, 0] = value
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(of_lanes(simd, name, terms)[0], terms.sum(0, np.float64))


@reals
def test_sums_of_doubles_are_twice_as_wide(simd, name):
    """What one number cannot hold is in the second."""
    lanes = simd.lanes(name)
    terms = np.zeros((3, lanes), REAL[name])
    terms[0], terms[1], terms[2] = 2.0**70, 3, np.arange(lanes)
    out, low = of_lanes(simd, name, terms)
    np.testing.assert_array_equal(out, 2.0**70)
    np.testing.assert_array_equal(low, 3 + np.arange(lanes) if name == "f64" else np.zeros(lanes))


# Powers -----------------------------------------------------------------------------------------------------


@covers("v_pow")
def test_powers(simd):
    """Of numbers from 0 to 1, against mpmath."""
    rng = np.random.default_rng(8)
    x = np.concatenate([rng.random(400), 1 - 0.1 ** rng.uniform(0, 17, 200), 0.1 ** rng.uniform(0, 320, 200)])
    y = np.concatenate([rng.choice([0.5, 1, 2, 3, 5], 400), 10 ** rng.uniform(-3, 3, 400)])
    x = np.concatenate([x, [0, 0, 1, 1, 5e-324, np.nan, 0.5, 0.5]])
    y = np.concatenate([y, [1e-9, 1e300, 1e-9, 1e300, 1, 2, 1e300, 1074]])
    actual = of_whole_vectors(simd, "v_pow", "f64", x, y, y)
    for base, exponent, power in zip(x, y, actual, strict=True):
        if math.isnan(base):
            assert math.isnan(power)
            continue
        exact = mpmath.power(mpmath.mpf(float(base)), mpmath.mpf(float(exponent)))
        assert abs(mpmath.mpf(float(power)) - exact) <= (1.5 + exponent / 2) * np.spacing(float(exact))


# The list ---------------------------------------------------------------------------------------------------

DEFINITION = re.compile(
    r"(?:ALWAYS_INLINE|SHARED|static) (?:const )?\w+ \*?(?:NAME\(|KERNEL\()?([a-z]\w*?)(?:_##NAME)?\)?\("
)


def test_every_word_is_known():
    found = set()
    for header in (CSRC / "simd").glob("*.h"):
        if header.name in ("exp.h", "log.h"):
            continue
        for word in DEFINITION.findall(header.read_text()):
            if not word.startswith("xent_") or word in TESTED:
                found.add(re.sub("(?<!v_load)(?<!v_store)_f(32|64)$", "", word))
    assert len(found) > 40, "the pattern finds them"
    assert found == TESTED, f"not tested: {found - TESTED}; not there: {TESTED - found}"
