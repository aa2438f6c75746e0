"""Numbers of all sizes, and things that are no numbers."""

import decimal

import ml_dtypes
import numpy as np

FLOATS = ["f4", "f4", "f4", "f8", "f8", "f2", "bfloat16"]
KNOWN = [*FLOATS, "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]
UNKNOWN = ["c8", "c16", "g", "O", "U3", "S2", "M8[s]", "m8[s]", "V4", ml_dtypes.float8_e4m3fn, "i4,f4"]
UNKNOWN += [ml_dtypes.int4]

STYLES = ["usual"] * 12 + ["ties", "equal", "wide", "confident", "odd", "odd", "extreme"]
# whose results a reference in float64, with literal formulas, need not get right
BEYOND = {"odd", "extreme"}


def numbers(rng, shape, style):
    """Float64 of any sign."""
    usual = rng.standard_normal(shape) * rng.choice([0.3, 1.0, 3.0])
    if style == "ties":
        return np.round(usual) * rng.choice([1.0, 0.7])  # exponentials of whole numbers are often alike
    if style == "equal":
        return np.full(shape, float(usual.flat[0]) if usual.size else 0.0)
    if style == "wide":
        return usual * 10.0 ** rng.uniform(-6, 2, shape)
    if style == "confident":
        return usual * 30
    if style == "extreme":
        return np.clip(usual, -1, 1) * 10.0 ** rng.uniform(-320, 308, shape)
    if style == "odd":
        specials = [np.inf, -np.inf, np.nan, -0.0, 3e38, -3e38, 1e-45, 65504.0, 1e308, 5e-324, 0.0]
        return np.where(rng.random(shape) < rng.choice([0.05, 0.5]), rng.choice(specials, shape), usual)
    return usual


def cast(values, dtype):
    """The same in a dtype; whole numbers without those that it cannot hold."""
    values, dtype = np.asarray(values), np.dtype(dtype)
    with np.errstate(all="ignore"):
        if dtype.kind in "iu":
            low, high = (0, 100) if dtype.kind == "u" else (-100, 100)
            values = np.clip(np.nan_to_num(values), low, high)
        return values.astype(dtype)


class Odd:
    """Anything."""


def endless():
    """A list that holds itself."""
    items = [1.0]
    items.append(items)
    return items


def nonsense(rng):
    """What is no valid option, and seldom a valid array."""
    makers = [
        lambda: None, lambda: "x", lambda: b"mean", Odd, lambda: np.nan, lambda: np.inf, lambda: -np.inf,
        lambda: -1, lambda: 0, lambda: 3, lambda: 2**31, lambda: 2**63, lambda: -(2**70), lambda: 1e308,
        lambda: 5e-324,
        lambda: [], lambda: {}, lambda: (), lambda: {1}, lambda: 1j, lambda: True, lambda: np.str_("none"),
        lambda: np.array([1.0, 2.0]), lambda: np.zeros((0, 3)), lambda: [[1.0], [2.0, 3.0]], lambda: "sum",
        lambda: np.float32(0.5), lambda: np.int8(-3), lambda: (1, 2), lambda: (1, 2, 3),
        lambda: ((1, 2), (0, 1)),
        lambda: np.ma.masked_array([1.0], [True]), lambda: object, lambda: iter(()),
        lambda: np.array("x", object), endless, lambda: [None, 1.0], lambda: decimal.Decimal(2),
        lambda: [decimal.Decimal(1), 2], lambda: {"a": np.ones(2)},
        lambda: np.array([[1.0], [1.0, 2.0]], object),
        lambda: np.array(1.5), lambda: (None, None, None), lambda: [True, False, True], lambda: slice(None),
        lambda: np.datetime64("2001-01-01"), lambda: 10**400, lambda: np.bool_(True), lambda: Odd,
        lambda: range(3),
        lambda: memoryview(b"abcdefgh"), lambda: bytearray(b"abc"), lambda: "1" * 1000, lambda: "\ud800",
    ]  # fmt: skip
    return makers[rng.integers(len(makers))]()
