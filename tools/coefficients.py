"""Make the polynomial coefficients of xent/csrc/vmath.h and print them as C, with the approximation error of
each.

    python tools/coefficients.py

Each is a Chebyshev fit (within a few per cent of the minimax error) computed by mpmath with 60 digits and
rounded to the working precision. `exp` is fitted as q(r) with e^r = 1 + r + r^2 q(r); `log` as w(z) with
log((1 + s) / (1 - s)) = 2 s + s z w(z), z = s^2.
"""

import mpmath as mp
import numpy as np

mp.mp.dps = 60


def exp_tail(r):
    """(e^r - 1 - r) / r^2, by its series near 0."""
    if abs(r) < mp.mpf("1e-8"):
        return mp.mpf(1) / 2 + r / 6 + r * r / 24
    return (mp.e**r - 1 - r) / r**2


def log_tail(z):
    """(2 atanh(s) - 2 s) / (s z) with z = s^2, by its series near 0."""
    if z < mp.mpf("1e-16"):
        return mp.mpf(2) / 3 + 2 * z / 5
    s = mp.sqrt(z)
    return (2 * mp.atanh(s) - 2 * s) / (s * z)


def fit(name, function, interval, degree, real):
    """Print the coefficients of one fit, constant term first."""
    coefficients, error = mp.chebyfit(function, interval, degree + 1, error=True)
    rounded = [real(c) for c in reversed(coefficients)]
    print(f"/* {name}: degree {degree}, approximation error {mp.nstr(error, 3)} */")
    print("   " + ", ".join(float(c).hex() for c in rounded))


def split(real, bits):
    """Split ln 2 into a head of `bits` bits, so that n * head is exact for small n, and the rest."""
    exponent = bits  # ln 2 lies in [1/2, 1): `bits` bits after the point
    head = mp.floor(mp.log(2) * mp.mpf(2) ** exponent) / mp.mpf(2) ** exponent
    print(f"ln2 head {float(head).hex()} tail {float(real(mp.log(2) - head)).hex()}")


if __name__ == "__main__":
    half = mp.log(2) / 2 * mp.mpf("1.0001")  # a hair more than the reduced interval, for rounding of n
    s_max = (mp.sqrt(2) - 1) / (mp.sqrt(2) + 1) * mp.mpf("1.0001")
    for real, exp_degree, log_degree, bits in ((np.float32, 4, 3, 14), (np.float64, 9, 7, 41)):
        print(real.__name__)
        fit("exp q", exp_tail, [-half, half], exp_degree, real)
        fit("log w", log_tail, [0, s_max**2], log_degree, real)
        split(real, bits)
