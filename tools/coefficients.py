"""Make the polynomial coefficients of exp.h, log.h and sigmoid.h in xent/csrc and print them as C, with the
approximation error of each.

    python tools/coefficients.py

Each is a Chebyshev fit (within a few per cent of the minimax error) computed by mpmath with 60 digits and
rounded to the working precision. `exp` is fitted as q(r) with e^r = 1 + r + r^2 q(r); `log` of floats as p(f)
with log(1 + f) = f + f^2 (-1/2 + f p(f)), and of doubles as w(z) with log((1 + s) / (1 - s)) =
2 s + s z w(z), z = s^2.
"""

import mpmath as mp
import numpy as np

mp.mp.dps = 60


def exp_tail(r):
    """(e^r - 1 - r) / r^2, by its series near 0."""
    if abs(r) < mp.mpf("1e-8"):
        return mp.mpf(1) / 2 + r / 6 + r * r / 24
    return (mp.e**r - 1 - r) / r**2


def log1p_tail(f):
    """(log(1 + f) - f + f^2 / 2) / f^3, by its series near 0."""
    if abs(f) < mp.mpf("1e-12"):
        return mp.mpf(1) / 3 - f / 4 + f * f / 5
    return (mp.log1p(f) - f + f * f / 2) / f**3


def log_tail(z):
    """(2 atanh(s) - 2 s) / (s z) with z = s^2, by its series near 0."""
    if z < mp.mpf("1e-16"):
        return mp.mpf(2) / 3 + 2 * z / 5
    s = mp.sqrt(z)
    return (2 * mp.atanh(s) - 2 * s) / (s * z)


def tanh_tail(z):
    """(tanh(x) / x - 1) / x^2 with z = x^2, by its series near 0."""
    if z < mp.mpf("1e-16"):
        return -mp.mpf(1) / 3 + 2 * z / 15
    return (mp.tanh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z


def tanh_squared_tail(z):
    """(tanh(x)^2 / x^2 - 1) / x^2 with z = x^2, by its series near 0."""
    if z < mp.mpf("1e-16"):
        return -mp.mpf(2) / 3 + 17 * z / 45
    return (mp.tanh(mp.sqrt(z)) ** 2 / z - 1) / z


def fit(name, function, interval, degree, real):
    """Print the coefficients of one fit, constant term first."""
    coefficients, error = mp.chebyfit(function, interval, degree + 1, error=True)
    rounded = [real(c) for c in reversed(coefficients)]
    print(f"/* {name}: degree {degree}, approximation error {mp.nstr(error, 3)} */")
    print("   " + ", ".join(float(c).hex() for c in rounded))


def fit_weighted(function, half, degree):
    """Coefficients of q(r) for the least error of r^2 q(r), which weighs the ends of the interval more: least
    squares on Chebyshev nodes, repeated with heavier weights where the error is large; the constant is 1/2.
    """
    nodes = float(half) * np.cos(np.pi * (np.arange(400) + 0.5) / 400)
    target = np.array([float(function(mp.mpf(r))) for r in nodes])
    powers = np.stack([nodes**k for k in range(1, degree + 1)], 1)
    weight = np.ones_like(nodes)
    for _ in range(200):  # Lawson's algorithm
        scale = np.sqrt(weight) * nodes**2
        solution, *_ = np.linalg.lstsq(powers * scale[:, None], (target - 0.5) * scale, rcond=None)
        error = np.abs((powers @ solution + 0.5 - target) * nodes**2)
        weight *= error
        weight /= weight.sum()
    return [0.5, *solution]


def split(real, bits):
    """Split ln 2 into a head of `bits` bits, so that n * head is exact for small n, and the rest."""
    exponent = bits  # ln 2 lies in [1/2, 1): `bits` bits after the point
    head = mp.floor(mp.log(2) * mp.mpf(2) ** exponent) / mp.mpf(2) ** exponent
    print(f"ln2 head {float(head).hex()} tail {float(real(mp.log(2) - head)).hex()}")


if __name__ == "__main__":
    hair = mp.mpf("1.0001")  # more than the reduced interval, for rounding of n
    half = mp.log(2) / 2 * hair
    s_max = (mp.sqrt(2) - 1) / (mp.sqrt(2) + 1) * hair
    for real, degree, bits in ((np.float32, 4, 14), (np.float64, 9, 41)):
        print(real.__name__)
        fit("exp q", exp_tail, [-half, half], degree, real)
        split(real, bits)
    fit("log p of floats", log1p_tail, [-hair / 3, hair / 3], 8, np.float32)
    fit("log p of floats, from 3/4 to 3/2", log1p_tail, [-hair / 4, hair / 2], 8, np.float32)
    fit("log w of doubles", log_tail, [0, s_max**2], 7, np.float64)
    fit("log w of doubles, from 3/4 to 3/2", log_tail, [0, (hair / 5) ** 2], 7, np.float64)
    fit("tanh q, to 1/2", tanh_tail, [0, (hair / 2) ** 2], 9, np.float64)
    fit("tanh q of floats, to 1/2", tanh_tail, [0, (hair / 2) ** 2], 4, np.float32)
    fit("tanh^2 s of floats, to 1/2", tanh_squared_tail, [0, (hair / 2) ** 2], 4, np.float32)
    print("float32 with a table of quarters of an octave: q, the roots 2^(k / 4), and what they lose")
    print("   " + ", ".join(float(np.float32(c)).hex() for c in fit_weighted(exp_tail, half / 4, 2)))
    roots = [2 ** (mp.mpf(k) / 4) for k in range(4)]
    floats = np.float32(roots)
    print("   " + ", ".join(f"0x{bits:X}" for bits in floats.view(np.int32)))
    print(
        "   "
        + ", ".join(
            float(np.float32(r / mp.mpf(float(f)) - 1)).hex() for r, f in zip(roots, floats, strict=True)
        )
    )
