/* wide.h: numbers whose exponents do not end, for the few elements of which a factor, an intermediate or a term leaves
 * the range of what is computed with, although the result does not: 1e-300 of a probability times a weight of 1e300.
 * A number is m * 2^exponent, with the 53 bits of a double: each operation rounds once, and none overflows or vanishes.
 * Scalar code, some nanoseconds an operation: loops over vectors come here for odd elements alone.
 */
#ifndef XENT_WIDE_H
#define XENT_WIDE_H

#include "base.h"
#include "table.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    double m; /* 1 <= |m| < 2, or 0, infinite or NaN */
    int64_t exponent;
} wide;

/* 2^n, -1022 <= n <= 1023. */
ALWAYS_INLINE double power_of_2(int64_t n)
{
    const uint64_t bits = (uint64_t)(n + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

SELDOM wide wide_of_parts(double m, int64_t exponent)
{
    uint64_t bits;
    if (m == 0 || !(fabs(m) < INFINITY)) return (wide){.m = m, .exponent = 0};
    if (fabs(m) < 0x1p-1022) m *= 0x1p64, exponent -= 64; /* a subnormal number */
    memcpy(&bits, &m, sizeof bits);
    const int64_t own = (int64_t)(bits >> 52 & 0x7ff) - 1023;
    bits = (bits & ~((uint64_t)0x7ff << 52)) | (uint64_t)1023 << 52;
    memcpy(&m, &bits, sizeof m);
    return (wide){.m = m, .exponent = exponent + own};
}

ALWAYS_INLINE wide wide_of(double v) { return wide_of_parts(v, 0); }

/* As a double, rounded once: 2^exponent is given in two parts, of which the first leaves m normal. */
SELDOM double wide_as_double(wide a)
{
    const int64_t n = a.exponent < -2000 ? -2000 : a.exponent > 2000 ? 2000 : a.exponent;
    const int64_t first = n < -1000 ? -1000 : n > 1000 ? 1000 : n;
    return a.m * power_of_2(first) * power_of_2(n - first);
}

ALWAYS_INLINE wide wide_negative(wide a) { return (wide){.m = -a.m, .exponent = a.exponent}; }
ALWAYS_INLINE wide wide_product(wide a, wide b) { return wide_of_parts(a.m * b.m, a.exponent + b.exponent); }
ALWAYS_INLINE wide wide_quotient(wide a, wide b) { return wide_of_parts(a.m / b.m, a.exponent - b.exponent); }

SELDOM wide wide_sum(wide a, wide b)
{
    if (a.m == 0 || b.m == 0 || !(fabs(a.m) < INFINITY) || !(fabs(b.m) < INFINITY))
        return b.m == 0 ? a : a.m == 0 ? b : wide_of_parts(a.m + b.m, 0); /* of an infinite one or NaN */
    if (a.exponent < b.exponent) {
        const wide c = a;
        a = b, b = c;
    }
    const int64_t apart = a.exponent - b.exponent;
    return apart > 200 ? a
                       : wide_of_parts(a.m + b.m * power_of_2(-apart), a.exponent); /* 2^-200 is below any rounding */
}

/* a * b where 0 * infinity is 0. */
SELDOM wide wide_times(wide a, wide b)
{
    const int nothing = (a.m == 0 && isinf(b.m)) || (b.m == 0 && isinf(a.m));
    return nothing ? (wide){0} : wide_product(a, b);
}

/* A double as a float that rounds to the same 16 bits as the double itself: towards 0, and if that is not exact to an
 * odd number, which is on neither of two numbers of 16 bits, nor in the middle between them. */
ALWAYS_INLINE float rounded_to_odd(double v)
{
    float f = (float)v;
    int32_t bits;
    const int32_t inexact = (f != v) & (v == v); /* no branch: the compiler makes vectors of it */
    memcpy(&bits, &f, sizeof bits);
    bits = (bits - (inexact & (fabs((double)f) > fabs(v)))) | inexact;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* A compensated sum, in units of 2^exponent: 0 if it is empty. */
SELDOM void wide_add_to(xent_wide_sum *acc, wide term)
{
    if (!(fabs(term.m) < INFINITY)) { /* an infinite number or NaN */
        acc->sum += term.m;
        return;
    }
    if (term.m == 0 || !(fabs(acc->sum) < INFINITY)) return;
    if (acc->sum == 0 && acc->error == 0) acc->exponent = term.exponent;
    if (term.exponent > acc->exponent) {
        const int64_t down = term.exponent - acc->exponent;
        const double scale = down > 1000 ? 0 : power_of_2(-down);
        acc->sum *= scale, acc->error *= scale, acc->exponent = term.exponent;
    }
    const int64_t below = acc->exponent - term.exponent;
    if (below <= 1000) two_sum_add(&acc->sum, &acc->error, term.m * power_of_2(-below));
}

SELDOM wide wide_total(const xent_wide_sum *acc)
{
    return wide_of_parts(isfinite(acc->sum) ? acc->sum + acc->error : acc->sum, acc->exponent);
}

#endif
