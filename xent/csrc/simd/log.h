/* log.h: logarithms on the vector vocabulary, for the real types.
 *
 *              worst error in ulp, and where (float: every argument on AVX2, every seventh on the baseline; double:
 *              millions at random; tests/test_vmath.py holds all to 1 ulp)
 *   log        float 0.84 at 1.4054595                            double 0.77 at 0x1.68fe0cd060b81p+0 (120,000 near 1)
 *   log1p      float 0.87 at 0.406275                             double 0.83 at 0x1.9b06ed369951cp-2
 */
#include "begin.h"
#include "simd/real.h"
#include "simd/sums.h"

#if !defined(XENT_LOG_H) && !defined(STORED_AS_16)
#define XENT_LOG_H

/* Coefficients: tools/coefficients.py. */
#define LOG_DEGREE BY_TYPE(3, 7)
static const T NAME(log_w)[] =
#if XENT_REAL == 32
    {0x1.5555560000000p-1, 0x1.9999ec0000000p-2, 0x1.245c3e0000000p-2, 0x1.ddd00c0000000p-3};
#else
    {0x1.5555555555555p-1, 0x1.9999999999a38p-2, 0x1.2492492476c42p-2, 0x1.c71c720168526p-3,
     0x1.745cf8fe328f9p-3, 0x1.3b1c36b445cebp-3, 0x1.0fbe71ad855c9p-3, 0x1.0c05166ec4148p-3};
#endif
#define SQRT_HALF_BITS ((I)BY_TYPE(0x3F3504F3, 0x3FE6A09E667F3BCD))

/* w(z) of log_pair. */
ALWAYS_INLINE V NAME(log_series)(const T *coefficients, V z)
{
    V w = NAME(set)(coefficients[LOG_DEGREE]);
#if XENT_REAL == 32
    for (int i = LOG_DEGREE - 1; i >= 0; i--) w = v_fma(w, z, NAME(set)(coefficients[i]));
#else /* two chains, as in exp_parts */
    const V square = z * z;
    V even = NAME(set)(coefficients[LOG_DEGREE - 1]);
    for (int i = LOG_DEGREE - 2; i > 0; i -= 2) {
        w = v_fma(w, square, NAME(set)(coefficients[i]));
        even = v_fma(even, square, NAME(set)(coefficients[i - 1]));
    }
    w = v_fma(w, z, even);
#endif
    return w;
}

/* log(u 2^-shift) + c = head + f + small of a positive normal u. u = 2^k m with m in [sqrt(1/2), sqrt 2), f = m - 1, s
 * = f / (2 + f), log m = 2 s + s z w(z) with z = s^2 and 2 s = f - f^2/2 + s f^2/2. */
typedef struct {
    V head, f, small;
} NAME(log_parts);

ALWAYS_INLINE NAME(log_parts) NAME(log_in_parts)(V u, V shift, V c)
{
    const V one = NAME(set)(1);
    /* unsigned, plus a bias: not every instruction set can shift signed integers of 64 bits */
    const VU biased = ((VU)u + (VU)NAME(iset)(((I)EXPONENT_BIAS << MANTISSA_BITS) - SQRT_HALF_BITS)) >> MANTISSA_BITS;
    const VI k = (VI)biased - NAME(iset)(EXPONENT_BIAS);
    const V n = (V)(k + NAME(iset)(MAGIC_BITS)) - NAME(set)(MAGIC) - shift;
    const V f = (V)((VI)u - (k << MANTISSA_BITS)) - one;
    const V s = f / (NAME(set)(2) + f);
    const V z = s * s;
    const V half_square = NAME(set)((T)0.5) * f * f;
    const V w = NAME(log_series)(NAME(log_w), z);
    const V small = (s * (half_square + z * w) + (n * NAME(set)(LN2_TAIL) + c)) - half_square;
    return (NAME(log_parts)){.head = n * NAME(set)(LN2_HEAD), .f = f, .small = small};
}

/* That logarithm as a sum of two numbers: the larger is returned. */
ALWAYS_INLINE V NAME(log_pair)(V u, V shift, V c, V *low)
{
    const NAME(log_parts) p = NAME(log_in_parts)(u, shift, c);
    const V large = p.head + p.f;
    *low = NAME(sum_error)(p.head, p.f, large) + p.small;
    return large;
}

/* That logarithm as one number: the head is 0, or larger than what is rounded first. */
ALWAYS_INLINE V NAME(log_whole)(V u, V shift, V c)
{
    const NAME(log_parts) p = NAME(log_in_parts)(u, shift, c);
    return p.head + (p.f + p.small);
}

/* log(1 + x + x_low) for x >= 0, as a sum of two numbers. With u = 1 + x and its rounding error c,
 * log(u + c) = log u + c / u. */
ALWAYS_INLINE V NAME(log1p_pair)(V x, V x_low, V *low)
{
    const V one = NAME(set)(1), zero = {0};
    const V u = one + x;
    const V c = NAME(sum_error)(one, x, u) + x_low;
    V rest;
    const V large = NAME(log_pair)(u, zero, c / u, &rest);
    const VM finite = m_gt(NAME(set)((T)INFINITY), x); /* infinity and NaN pass */
    *low = v_select(finite, rest, zero);
    return v_select(finite, large, x);
}

ALWAYS_INLINE V NAME(log1p)(V x)
{
    const V zero = {0};
    V low;
    const V high = NAME(log1p_pair)(x, zero, &low);
    return high + low;
}

/* A logarithm set right where its argument x is no positive finite number: -infinity of 0, infinity of infinity, else
 * NaN. */
ALWAYS_INLINE V NAME(log_ends)(V x, V log_x)
{
    const V zero = {0}, infinity = NAME(set)((T)INFINITY);
    const V end = v_select(m_eq(x, zero), zero - infinity, v_select(m_eq(x, infinity), infinity, NAME(set)((T)NAN)));
    return v_select(m_gt(x, zero), v_select(m_gt(infinity, x), log_x, end), end);
}

/* log x + c for any x. Subnormal numbers are made normal first. Most vectors hold nothing but positive normal
 * numbers. */
ALWAYS_INLINE V NAME(log_plus)(V x, V c)
{
    const V zero = {0}, bits = NAME(set)(MANTISSA_BITS + 1);
    /* x - x is not 0 for infinity and NaN */
    if (!m_any(m_gt(NAME(set)(TINY), v_select(m_eq(x - x, zero), x, zero)))) return NAME(log_whole)(x, zero, c);
    const VM subnormal = m_gt(NAME(set)(TINY), x);
    const V u = v_select(subnormal, x * NAME(set)((T)((I)1 << (MANTISSA_BITS + 1))), x);
    return NAME(log_ends)(x, NAME(log_whole)(u, v_select(subnormal, bits, zero), c));
}

ALWAYS_INLINE V NAME(log)(V x)
{
    const V zero = {0};
    return NAME(log_plus)(x, zero);
}

/* log(u + c) where c is the rounding error of u. */
ALWAYS_INLINE V NAME(log_of_sum)(V u, V c) { return NAME(log_plus)(u, c / u); }

#endif
