/* log.h: logarithms on the vector vocabulary, for the real types.
 *
 *              worst error in ulp, and where (float: every seventh argument, log1p_to_1 every one; the baseline in
 *              brackets; double: ten million at random; tests/test_vmath.py holds the first two to 1 ulp)
 *   log          float 0.84 at 1.35913503 (0.90 at 1.3374089)            double 0.84 at 0x1.6623ca8d57ea3p-1
 *   log1p        float 0.85 at 0.364727825 (0.94 at 0.273304045)         double 0.84 at 0x1.a4db1dc735916p-2
 *   log1p_to_1   float 0.89 at 0.609106719 (1.00 at 0.49871102)          double 1.19 at 0x1.24caa7fbcc742p-1
 */
#include "begin.h"
#include "simd/real.h"
#include "simd/sums.h"

#if !defined(XENT_LOG_H) && !defined(STORED_AS_16)
#define XENT_LOG_H

/* Coefficients: tools/coefficients.py. */
#define LOG_DEGREE BY_TYPE(8, 7)
#if XENT_REAL == 32
static const float log_p[] = {0x1.5555560000000p-2f,  -0x1.ffffb60000000p-3f, 0x1.9999540000000p-3f,
                              -0x1.5578380000000p-3f, 0x1.24b2900000000p-3f,  -0x1.f7579c0000000p-4f,
                              0x1.bf1a080000000p-4f,  -0x1.fcd61a0000000p-4f, 0x1.d01f960000000p-4f};
#else
static const double log_w[] = {0x1.5555555555555p-1, 0x1.9999999999a38p-2, 0x1.2492492476c42p-2, 0x1.c71c720168526p-3,
                               0x1.745cf8fe328f9p-3, 0x1.3b1c36b445cebp-3, 0x1.0fbe71ad855c9p-3, 0x1.0c05166ec4148p-3};
#endif
#define LOG_LOW_BITS ((I)BY_TYPE(0x3F2AAAAB, 0x3FE6A09E667F3BCD)) /* the smallest m: 2/3; sqrt(1/2) */

/* A polynomial, even and odd powers apart: two chains of operations that wait for each other half as long. */
ALWAYS_INLINE V NAME(log_series)(const T *coefficients, V x, V square)
{
    V high = NAME(set)(coefficients[LOG_DEGREE]), low = NAME(set)(coefficients[LOG_DEGREE - 1]);
    for (int i = LOG_DEGREE - 2; i > 0; i -= 2) {
        high = v_fma(high, square, NAME(set)(coefficients[i]));
        low = v_fma(low, square, NAME(set)(coefficients[i - 1]));
    }
    return LOG_DEGREE % 2 ? v_fma(high, x, low) : v_fma(low, x, v_fma(high, square, NAME(set)(coefficients[0])));
}

/* log(u 2^-shift) + c = n ln2 + f + small of a positive normal u, n OCTAVE an integer. u = 2^k m, f = m - 1. Where
 * `rounded`, a constant at every call, the logarithm is that of u + error, and f = m - 1 + 2^-k error: exact where u is
 * a rounded 1 - p.
 *
 *   float    m in [2/3, 4/3), log m = f + f^2 (-1/2 + f p(f)): no division, which would take as long as all the rest
 *   double   m in [sqrt(1/2), sqrt 2), s = f / (2 + f), log m = 2 s + s z w(z) with z = s^2, 2 s = f - f^2/2 + s f^2/2:
 *            a polynomial in f would have to be of degree 19, and take longer */
typedef struct {
    V n, f, small;
} NAME(log_parts);
#define OCTAVE BY_TYPE(0x1p-23f, 1) /* floats: as the difference of two exponents lies in the bits, there is no shift */

ALWAYS_INLINE NAME(log_parts) NAME(log_in_parts)(V u, V shift, V c, V error, int rounded)
{
    const V one = NAME(set)(1);
#if XENT_REAL == 32
    const vi32 exponent = iset_f32(~(((int32_t)1 << MANTISSA_BITS) - 1));
    const vi32 k = ((vi32)u - iset_f32(LOG_LOW_BITS)) & exponent;
    const vf32 n = __builtin_convertvector(k, vf32) - shift * set_f32(1 / OCTAVE);
    vf32 f = (vf32)((vi32)u - k) - one;
    if (rounded) f = v_fma(error, (vf32)((vi32)one - k), f);
    const vf32 square = f * f;
    const vf32 q = v_fma(log_series_f32(log_p, f, square), f, set_f32(-0.5f));
    const vf32 small = v_fma(square, q, v_fma(n, set_f32(LN2_TAIL * OCTAVE), c));
#else
    /* unsigned, plus a bias: not every instruction set can shift signed integers of 64 bits */
    const vu64 biased =
        ((vu64)u + (vu64)iset_f64(((int64_t)EXPONENT_BIAS << MANTISSA_BITS) - LOG_LOW_BITS)) >> MANTISSA_BITS;
    const vi64 k = (vi64)biased - iset_f64(EXPONENT_BIAS);
    const vf64 n = (vf64)(k + iset_f64(MAGIC_BITS)) - set_f64(MAGIC) - shift;
    vf64 f = (vf64)((vi64)u - (k << MANTISSA_BITS)) - one;
    if (rounded) f = v_fma(error, (vf64)((vi64)one - (k << MANTISSA_BITS)), f);
    const vf64 s = f / (set_f64(2) + f), z = s * s;
    const vf64 half_square = set_f64(0.5) * f * f, w = log_series_f64(log_w, z, z * z);
    const vf64 small = v_fma(s, v_fma(z, w, half_square), v_fma(n, set_f64(LN2_TAIL), c)) - half_square;
#endif
    return (NAME(log_parts)){.n = n, .f = f, .small = small};
}

/* That logarithm as a sum of two numbers: the larger is returned. */
ALWAYS_INLINE V NAME(log_pair)(V u, V shift, V c, V *low)
{
    const NAME(log_parts) p = NAME(log_in_parts)(u, shift, c, c, 0);
    const V head = p.n * NAME(set)(LN2_HEAD * OCTAVE), large = head + p.f; /* the product is exact */
    *low = NAME(sum_error)(head, p.f, large) + p.small;
    return large;
}

/* That logarithm as one number: n ln2 is 0, or larger than what is rounded first. */
ALWAYS_INLINE V NAME(log_whole)(V u, V shift, V error, int rounded)
{
    const V zero = {0};
    const NAME(log_parts) p = NAME(log_in_parts)(u, shift, zero, error, rounded);
    return v_fma(p.n, NAME(set)(LN2_HEAD * OCTAVE), p.f + p.small);
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

/* Where x is no positive normal number. The bits of those come first if the smallest of them are taken away; shifted by
 * two they are those of numbers that comparisons take: none is NaN. */
ALWAYS_INLINE VM NAME(is_odd)(V x)
{
    const VU from_first = (VU)x - (VU)NAME(set)(TINY);
    return m_ge((V)(from_first >> 2), (V)(((VU)NAME(set)((T)INFINITY) - (VU)NAME(set)(TINY)) >> 2));
}

/* x 2^*shift: a normal number where x is subnormal; else x. */
ALWAYS_INLINE V NAME(made_normal)(V x, V *shift)
{
    const V zero = {0};
    const VM subnormal = m_gt(NAME(set)(TINY), x);
    *shift = v_select(subnormal, NAME(set)(MANTISSA_BITS + 1), zero);
    return v_select(subnormal, x * NAME(set)((T)((I)1 << (MANTISSA_BITS + 1))), x);
}

/* log(x + error) for any x; error is not looked at unless `rounded`. Subnormal numbers are made normal first. Most vectors
 * hold nothing but positive normal numbers; for the others there is one function. */
static __attribute__((noinline, unused)) V NAME(log_odd)(V x, V error, int rounded)
{
    V shift;
    const V u = NAME(made_normal)(x, &shift);
    return NAME(log_ends)(x, NAME(log_whole)(u, shift, error, rounded));
}

ALWAYS_INLINE V NAME(log_of)(V x, V error, int rounded)
{
    const V zero = {0};
    if (m_any(NAME(is_odd)(x))) return NAME(log_odd)(x, error, rounded);
    return NAME(log_whole)(x, zero, error, rounded);
}

ALWAYS_INLINE V NAME(log)(V x) { return NAME(log_of)(x, x, 0); }

/* log(u + c) where c is the rounding error of u. */
ALWAYS_INLINE V NAME(log_of_sum)(V u, V c) { return NAME(log_of)(u, c, 1); }

/* log_of of LOGS vectors side by side, bit for bit: one after the other, each would wait for its chain of products. */
#define LOGS 4
ALWAYS_INLINE void NAME(logs_of)(const V *x, const V *error, int rounded, V *result)
{
    VM odd = NAME(is_odd)(x[0]);
    for (int i = 1; i < LOGS; i++) odd = (VM)(odd | NAME(is_odd)(x[i]));
    if (m_any(odd)) {
        for (int i = 0; i < LOGS; i++) result[i] = NAME(log_odd)(x[i], rounded ? error[i] : x[i], rounded);
        return;
    }
    const V zero = {0};
#if XENT_REAL == 64
    for (int i = 0; i < LOGS; i++) result[i] = log_whole_f64(x[i], zero, rounded ? error[i] : zero, rounded);
#else
    const vf32 one = set_f32(1);
    const vi32 exponent = iset_f32(~(((int32_t)1 << MANTISSA_BITS) - 1));
    vf32 f[LOGS], square[LOGS], high[LOGS], low[LOGS];
    vi32 k[LOGS];
    for (int i = 0; i < LOGS; i++) {
        k[i] = ((vi32)x[i] - iset_f32(LOG_LOW_BITS)) & exponent;
        f[i] = (vf32)((vi32)x[i] - k[i]) - one;
        if (rounded) f[i] = v_fma(error[i], (vf32)((vi32)one - k[i]), f[i]);
        square[i] = f[i] * f[i];
        high[i] = set_f32(log_p[LOG_DEGREE]), low[i] = set_f32(log_p[LOG_DEGREE - 1]);
    }
    for (int c = LOG_DEGREE - 2; c > 0; c -= 2)
        for (int i = 0; i < LOGS; i++) {
            high[i] = v_fma(high[i], square[i], set_f32(log_p[c]));
            low[i] = v_fma(low[i], square[i], set_f32(log_p[c - 1]));
        }
    for (int i = 0; i < LOGS; i++) {
        const vf32 series = v_fma(low[i], f[i], v_fma(high[i], square[i], set_f32(log_p[0])));
        const vf32 n = __builtin_convertvector(k[i], vf32), q = v_fma(series, f[i], set_f32(-0.5f));
        const vf32 small = v_fma(square[i], q, v_fma(n, set_f32(LN2_TAIL * OCTAVE), zero));
        result[i] = v_fma(n, set_f32(LN2_HEAD * OCTAVE), f[i] + small);
    }
#endif
}

/* log1p(e) for 0 <= e <= 1, within about an ulp: up to 1/2 by f = e, from there on by f = (e - 1) / 2, which is exact, and
 * ln 2. As above, without range reduction; the coefficients are those of -1/4 to 1/2. */
#if XENT_REAL == 32
static const float log_half_p[] = {0x1.5555560000000p-2f,  -0x1.0000260000000p-2f, 0x1.999a560000000p-3f,
                                   -0x1.5536a60000000p-3f, 0x1.2436f80000000p-3f,  -0x1.02daa20000000p-3f,
                                   0x1.de726e0000000p-4f,  -0x1.87a1e20000000p-4f, 0x1.5f307c0000000p-5f};
#else
static const double log_half_w[] = {0x1.5555555555555p-1, 0x1.9999999999f19p-2, 0x1.24924923de362p-2,
                                    0x1.c71c72dfa1e8cp-3, 0x1.745cac2d1b769p-3, 0x1.3b29d3d18ece5p-3,
                                    0x1.0e8c0fc2c6077p-3, 0x1.169e53265dd01p-3};
#endif
ALWAYS_INLINE V NAME(log1p_to_1)(V e)
{
    const V zero = {0}, half = NAME(set)((T)0.5);
    const VM upper = m_ge(e, half);
    const V f = v_select(upper, v_fma(e, half, -half), e);
#if XENT_REAL == 32
    const V square = f * f, log_f = v_fma(square, v_fma(log_series_f32(log_half_p, f, square), f, -half), f);
#else
    const V s = f / (set_f64(2) + f), z = s * s, half_square = half * f * f;
    const V log_f = f + v_fma(s, v_fma(z, log_series_f64(log_half_w, z, z * z), half_square), -half_square);
#endif
    return v_select(upper, NAME(set)(LN2), zero) + log_f;
}

#endif
