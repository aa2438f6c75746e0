"""exp, log and log1p of xent/csrc/simd by themselves: at most 1 ulp; the slow tests see every float32."""

import mpmath
import numpy as np
import pytest
from tolerances import VMATH_ULP

from xent import _kernels

EXP_RANGE = {np.float32: (-104.0, 88.8), np.float64: (-746.0, 709.8)}  # from 0 to overflow


def ulp_errors(actual, exact, dtype):
    """Errors in ulp of `dtype` at `exact`, which is float64 (or wider) and finite in `dtype`."""
    spacing = np.spacing(np.abs(exact).astype(dtype)).astype(exact.dtype)
    return np.abs(actual.astype(exact.dtype) - exact) / spacing


def exp_float32_errors(x):
    with np.errstate(over="ignore"):
        exact = np.exp(x.astype(np.float64))
    inside = exact < np.finfo(np.float32).max
    return ulp_errors(_kernels.vmath("exp", x[inside]), exact[inside], np.float32)


def log1p_float32_errors(x):
    return ulp_errors(_kernels.vmath("log1p", x), np.log1p(x.astype(np.float64)), np.float32)


def log_float32_errors(x):
    x = x[x != 1]  # whose logarithm is exactly 0: test_ends_of_the_range
    return ulp_errors(_kernels.vmath("log", x), np.log(x.astype(np.float64)), np.float32)


def floats_of_bits(first, last, step):
    return np.arange(first, last, step, dtype=np.uint32).view(np.float32)


# float64 judges float32: its own half ulp is 2**-30 of one of theirs.


def test_exp_float32():
    for first, last in [(0x0, 0x42B20000), (0x80000000, 0xC2D00000)]:  # 0 to 89, -0 to -104
        assert exp_float32_errors(floats_of_bits(first, last, 997)).max() <= VMATH_ULP


def test_log1p_float32():
    assert log1p_float32_errors(floats_of_bits(0x0, 0x7F800000, 997)).max() <= VMATH_ULP


def test_log_float32():
    assert log_float32_errors(floats_of_bits(0x1, 0x7F800000, 997)).max() <= VMATH_ULP
    assert log_float32_errors(floats_of_bits(0x3F000000, 0x40000000, 97)).max() <= VMATH_ULP  # 1/2 to 2


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(0, 0x80000000, 1 << 24))
def test_every_float32(chunk):
    x = floats_of_bits(chunk, chunk + (1 << 24), 1)
    x = x[np.isfinite(x)]
    if x.size:
        assert log1p_float32_errors(x).max() <= VMATH_ULP
        assert log_float32_errors(x[x > 0]).max() <= VMATH_ULP
    for signed in (x[x < 89], -x[x < 104.5]):
        if signed.size:
            assert exp_float32_errors(signed).max() <= VMATH_ULP


@pytest.mark.parametrize("count", [300, pytest.param(100_000, marks=pytest.mark.slow)])
def test_float64_against_mpmath(count, rng):
    worst = {}
    with mpmath.workprec(120):
        for name, x, function in [
            ("exp", rng.uniform(-708, 709, count), mpmath.exp),
            ("exp", rng.uniform(-2, 2, count), mpmath.exp),
            ("log", 10.0 ** rng.uniform(-323, 308, count), mpmath.log),
            ("log", rng.uniform(0.3, 3, count), mpmath.log),
            ("log1p", 10.0 ** rng.uniform(-20, 300, count), mpmath.log1p),
            ("log1p", rng.uniform(0, 3, count), mpmath.log1p),
        ]:
            for argument, actual in zip(x, _kernels.vmath(name, x), strict=True):
                exact = function(mpmath.mpf(argument))
                error = abs(mpmath.mpf(actual) - exact) / np.spacing(abs(float(exact)))
                worst[name] = max(worst.get(name, 0.0), float(error))
    assert max(worst.values()) <= VMATH_ULP, worst


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ends_of_the_range(dtype):
    low, high = EXP_RANGE[dtype]
    x = np.array([-np.inf, -1e30, low, high, 1e30, np.inf, np.nan, 0.0, -0.0], dtype)
    np.testing.assert_array_equal(_kernels.vmath("exp", x)[:3], 0)
    np.testing.assert_array_equal(_kernels.vmath("exp", x)[3:], [np.inf, np.inf, np.inf, np.nan, 1, 1])
    x = np.array([0.0, -0.0, np.inf, 1.0, np.nan, -1.0, -np.inf, -np.finfo(dtype).smallest_subnormal], dtype)
    expected = [-np.inf, -np.inf, np.inf, 0.0, *[np.nan] * 4]
    np.testing.assert_array_equal(_kernels.vmath("log", x), expected)
    x = np.array([0.0, np.inf, np.nan, np.finfo(dtype).tiny, np.finfo(dtype).smallest_subnormal], dtype)
    np.testing.assert_array_equal(_kernels.vmath("log1p", x), x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_subnormal_results_are_rounded_once(dtype):
    low = np.log(float(np.finfo(dtype).tiny))
    x = np.linspace(EXP_RANGE[dtype][0] + 0.9, low, 500).astype(dtype)
    exact = np.array([float(mpmath.exp(mpmath.mpf(float(v)))) for v in x])
    assert np.all(_kernels.vmath("exp", x) > 0)
    errors = np.abs(_kernels.vmath("exp", x).astype(np.float64) - exact) / np.finfo(dtype).smallest_subnormal
    assert errors.max() <= VMATH_ULP
