/* exp.h: the exponential on the vector vocabulary, for the real types.
 *
 *              worst error in ulp, and where (float: every argument on AVX2, every seventh on the baseline; double:
 *              millions at random; tests/test_vmath.py holds all to 1 ulp)
 *   exp        float 0.83 at -87.444 (baseline 0.78 at -87.646)   double 0.74 at -0x1.be3da7b069da0p+5
 *   tanh                                                          double 2 (its argument, a logit, was rounded before)
 *
 * exp: n = round(x / ln 2), r = x - n ln 2 in two parts (the head of ln 2 is short, so that n * head is exact), then
 * e^x = 2^n e^r with a polynomial for e^r on |r| <= ln 2 / 2. The rounding to an integer adds 1.5 * 2^(mantissa bits),
 * which leaves n in the low bits of the sum: the exponent is made from these bits without a conversion.
 */
#include "begin.h"
#include "simd/real.h"
#include "simd/sums.h"

#if !defined(XENT_EXP_H) && !defined(STORED_AS_16)
#define XENT_EXP_H

/* Coefficients: tools/coefficients.py. */
#define EXP_DEGREE BY_TYPE(4, 9)
static const T NAME(exp_q)[] =
#if XENT_REAL == 32
    {0x1.0000000000000p-1, 0x1.5554dc0000000p-3, 0x1.55551a0000000p-5, 0x1.120b6e0000000p-7, 0x1.6d110a0000000p-10};
#else
    {0x1.0000000000001p-1,  0x1.5555555555556p-3,  0x1.5555555553d63p-5,  0x1.11111111109b3p-7,  0x1.6c16c1788bd90p-10,
     0x1.a01a01a7c41d5p-13, 0x1.a019b90d2ae7ap-16, 0x1.71de0dae63bb3p-19, 0x1.289185613a3d6p-22, 0x1.af38a9b0ec855p-26};
#endif
#define LOG2_E ((T)1.4426950408889634)
#define EXP_LOW ((T)BY_TYPE(-104, -746))         /* e^x < 2^-150, or 2^-1075: rounds to 0 */
#define EXP_HIGH ((T)BY_TYPE(89, 710))           /* e^x > 2^128, or 2^1024: overflows */
#define FARTHEST ((T)BY_TYPE(0x1p127, 0x1p1023)) /* finite, and larger than any distance of logits that counts */

/* What follows takes an argument x + low where `paired`, a constant at every call; else low is not looked at. */

#if !XENT_FUSED || XENT_REAL == 64
/* e^r = 1 + head + rest of x + low = n ln 2 + r; *shifted as in exp_mantissa. The head of r is kept apart: 1 + head,
 * its error, and tail + r^2 q lose less than nested products. */
ALWAYS_INLINE V NAME(exp_parts)(V x, V low, int paired, V magic, VI *shifted, V *rest)
{
    const V y = v_fma(x, NAME(set)(LOG2_E), magic);
    const V n = y - magic;
    const V head = v_fma(n, NAME(set)(-LN2_HEAD), x);
    V q = NAME(set)(NAME(exp_q)[EXP_DEGREE]);
    *shifted = (VI)y;
    const V tail = paired ? v_fma(n, NAME(set)(-LN2_TAIL), low) : n * NAME(set)(-LN2_TAIL);
    const V r = head + tail, square = r * r;
#if XENT_REAL == 32
    for (int k = EXP_DEGREE - 1; k >= 0; k--) q = v_fma(q, r, NAME(set)(NAME(exp_q)[k]));
#else /* even and odd powers apart: two chains of operations that wait for each other half as long */
    V even = NAME(set)(NAME(exp_q)[EXP_DEGREE - 1]);
    for (int k = EXP_DEGREE - 2; k > 0; k -= 2) {
        q = v_fma(q, square, NAME(set)(NAME(exp_q)[k]));
        even = v_fma(even, square, NAME(set)(NAME(exp_q)[k - 1]));
    }
    q = v_fma(q, r, even);
#endif
    *rest = v_fma(square, q, tail);
    return head;
}
#endif

/* e^r of x + low = n ln 2 + r; *shifted has n in its low bits, plus the integer by which `magic` exceeds MAGIC. |x| <=
 * 700 (float), 2800 (double) keeps n * LN2_HEAD exact. */
ALWAYS_INLINE V NAME(exp_mantissa)(V x, V low, int paired, V magic, VI *shifted)
{
    const V one = NAME(set)(1);
#if XENT_FUSED && XENT_REAL == 32
    const V y = v_fma(x, NAME(set)(LOG2_E), magic);
    const V n = y - magic;
    const V head = v_fma(n, NAME(set)(-LN2_HEAD), x);
    const V r = paired ? head + v_fma(n, NAME(set)(-LN2_TAIL), low) : v_fma(n, NAME(set)(-LN2_TAIL), head);
    V q = NAME(set)(NAME(exp_q)[EXP_DEGREE]);
    *shifted = (VI)y;
    for (int k = EXP_DEGREE - 1; k >= 0; k--) q = v_fma(q, r, NAME(set)(NAME(exp_q)[k]));
    return v_fma(v_fma(q, r, one), r, one);
#else
    V rest;
    const V head = NAME(exp_parts)(x, low, paired, magic, shifted, &rest);
    const V base = one + head;
    return base + ((head - (base - one)) + rest);
#endif
}

#if XENT_REAL == 32 && XENT_LOOKUP
/* Where a table costs one instruction, n counts quarters of an octave: e^x = 2^(n / 4) e^r with |r| <= ln 2 / 8, a
 * shorter polynomial. What the roots 2^(k / 4) lose as floats, up to a third of an ulp, is put right by factors
 * 1 + exp_root_errors[k]. */
#define QUARTER_SHIFT (MANTISSA_BITS - 2)
#define ROOTS(one, step) one, one + 0x1837F0 - step, one + 0x3504F3 - 2 * step, one + 0x5744FD - 3 * step
#define FOUR_TIMES(...) {__VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__}
static const int32_t exp_roots[16] __attribute__((aligned(64))) = FOUR_TIMES(ROOTS(0x3F800000, 0));
static const int32_t exp_root_bits[16] __attribute__((aligned(64))) = FOUR_TIMES(ROOTS(0, (1 << QUARTER_SHIFT)));
static const float exp_root_errors[16] __attribute__((aligned(64))) =
    FOUR_TIMES(0, 0x1.1250020000000p-25f, 0x1.26055c0000000p-26f, -0x1.f9c3040000000p-27f);
static const float exp_quarter_q[] = {0.5f, 0x1.5571ce0000000p-3f, 0x1.556b1e0000000p-5f};

/* s e^r, of x + low = n ln 2 / 4 + r. The low bits of *shifted have n plus the integer by which `magic` exceeds MAGIC,
 * a multiple of 4; s is 2^(n mod 4 / 4), or, if `scaled`, has the bits that *shifted and a table give: those of the
 * number *shifted / 4, with the root of its fraction in place of the fraction. */
ALWAYS_INLINE vf32 exp_by_quarters(vf32 x, vf32 low, int paired, vf32 magic, int scaled, vi32 *shifted)
{
    const vf32 y = v_fma(x, set_f32(STEPS * LOG2_E), magic);
    const vf32 n = y - magic;
    const vf32 head = v_fma(n, set_f32(-LN2_HEAD / STEPS), x), tail = set_f32(-LN2_TAIL / STEPS);
    const vf32 r = paired ? head + v_fma(n, tail, low) : v_fma(n, tail, head);
    const vf32 error = v_lookup(*(const vf32 *)exp_root_errors, (vi32)y);
    vf32 q = set_f32(exp_quarter_q[2]), s = v_lookup(*(const vf32 *)(scaled ? exp_root_bits : exp_roots), (vi32)y);
    q = v_fma(q, r, set_f32(exp_quarter_q[1]));
    q = v_fma(q, r, set_f32(exp_quarter_q[0]));
    q = v_fma(q, r, set_f32(1));
    if (scaled) s = (vf32)((vi32)s + ((vi32)y << QUARTER_SHIFT));
    *shifted = (vi32)y;
    return v_fma(s, v_fma(q, r, error), s);
}
#endif
#define STEPS (XENT_LOOKUP ? BY_TYPE(4, 1) : 1) /* of n to an octave */

/* What exp_scaled needs to know of a power of two: made once per row (or per lane). */
typedef struct {
    V floor; /* arguments up to it give exactly 0 */
    V magic; /* exceeds MAGIC by the integer that turns n into the exponent bits of 2^(n - scale_exponent) */
} NAME(scale);

ALWAYS_INLINE NAME(scale) NAME(scale_of)(V scale_exponent)
{
    const V above = NAME(set)(EXPONENT_BIAS) - scale_exponent;
    return (NAME(scale)){.floor = above * NAME(set)(-LN2), .magic = v_fma(above, NAME(set)(STEPS), NAME(set)(MAGIC))};
}

/* e^(x + low) * 2^-scale_exponent, without a rounding of its own; below 2^(1 - bias) 0 or, with the table, some
 * subnormal number, neither of which matters (stats.h); NaN stays. Overflows past 2^127 (2^1023). Where x is not above
 * the floor low must be 0. */
ALWAYS_INLINE V NAME(exp_scaled_of)(V x, V low, int paired, NAME(scale) s)
{
    VI shifted;
#if XENT_REAL == 32 && XENT_LOOKUP
    return exp_by_quarters(v_max(s.floor, x), low, paired, s.magic, 1, &shifted);
#else
    const V mantissa = NAME(exp_mantissa)(v_max(s.floor, x), low, paired, s.magic, &shifted);
    return mantissa * (V)(shifted << MANTISSA_BITS);
#endif
}
ALWAYS_INLINE V NAME(exp_scaled)(V x, NAME(scale) s) { return NAME(exp_scaled_of)(x, x, 0, s); }
ALWAYS_INLINE V NAME(exp_scaled_pair)(V x, V low, NAME(scale) s) { return NAME(exp_scaled_of)(x, low, 1, s); }

/* e^x for any x: gradual underflow, overflow to infinity. Where no instruction scales by 2^n it is applied in two halves,
 * each a normal number. */
ALWAYS_INLINE V NAME(exp)(V x)
{
    const V clamped = v_max(NAME(set)(EXP_LOW), v_min(NAME(set)(EXP_HIGH), x)), magic = NAME(set)(MAGIC);
    VI shifted;
#if XENT_REAL == 32 && XENT_LOOKUP
    const V mantissa = exp_by_quarters(clamped, clamped, 0, magic, 0, &shifted);
#else
    const V mantissa = NAME(exp_mantissa)(clamped, clamped, 0, magic, &shifted);
#endif
#if XENT_SCALES
    return NAME(v_scale)(mantissa, ((V)shifted - magic) * NAME(set)((T)1 / STEPS));
#else
    if (STEPS == 4) shifted = ((shifted - MAGIC_BITS) >> 2) + MAGIC_BITS; /* whole octaves */
    const V half = v_fma((V)shifted - magic, NAME(set)((T)0.5), magic);
    const VI bias = NAME(iset)(EXPONENT_BIAS) - NAME(iset)(MAGIC_BITS);
    const V rest = ((V)shifted - magic) - (half - magic) + magic;
    return mantissa * (V)(((VI)half + bias) << MANTISSA_BITS) * (V)(((VI)rest + bias) << MANTISSA_BITS);
#endif
}

#if XENT_REAL == 64
/* tanh x = x + x r for |x| <= TANH_REACH, with r = x^2 q(x^2): no exponential, no division. Of n vectors side by side:
 * one after the other, each would wait for its chain of products. */
#define TANH_REACH 0.5
static const double tanh_q[] = {-0x1.5555555555555p-2,  0x1.1111111110c1fp-3,  -0x1.ba1ba1b977fe5p-5,
                                0x1.664f4840fe84ep-6,   -0x1.226e27e9395b7p-7, 0x1.d6d0a3c77f198p-9,
                                -0x1.7d68a124c40ddp-10, 0x1.32b05ea1b7941p-11, -0x1.cf9c0c6fc1d33p-13,
                                0x1.f2d1e33e619ddp-15};
#define TANH_DEGREE 9
ALWAYS_INLINE void tanh_rests_f64(const vf64 *x, vf64 *r, int n)
{
    for (int i = 0; i < n; i++) r[i] = set_f64(tanh_q[TANH_DEGREE]);
    for (int k = TANH_DEGREE - 1; k >= 0; k--)
        for (int i = 0; i < n; i++) r[i] = v_fma(r[i], x[i] * x[i], set_f64(tanh_q[k]));
    for (int i = 0; i < n; i++) r[i] = x[i] * x[i] * r[i];
}

/* tanh x for |x| > TANH_REACH, where nothing cancels, from e = e^(-2 |x|). */
ALWAYS_INLINE vf64 tanh_of_exp_f64(vf64 e, vf64 x)
{
    const vf64 zero = {0}, one = set_f64(1), size = (one - e) / (one + e);
    return v_select(m_gt(zero, x), -size, size);
}
#else
/* tanh x for |x| <= TANH_REACH, within an ulp. */
static const float tanh_near_q[] = {-0x1.5555540000000p-2f, 0x1.1110800000000p-3f, -0x1.b9d2a40000000p-5f,
                                    0x1.5fc5f80000000p-6f, -0x1.c6fdbe0000000p-8f};
ALWAYS_INLINE vf32 tanh_near_f32(vf32 x)
{
    const int degree = sizeof tanh_near_q / sizeof *tanh_near_q - 1;
    const vf32 square = x * x;
    vf32 q = set_f32(tanh_near_q[degree]);
    for (int k = degree - 1; k >= 0; k--) q = v_fma(q, square, set_f32(tanh_near_q[k]));
    return v_fma(x * square, q, x);
}

/* sech^2 x = s + *low for |x + x_low| <= TANH_REACH: 1 - square - square^2 s(square). */
static const float tanh_s[] = {-0x1.5555540000000p-1f, 0x1.82d6840000000p-2f, -0x1.92ad900000000p-3f,
                               0x1.85ac260000000p-4f, -0x1.20ca4a0000000p-5f};
ALWAYS_INLINE vf32 sech_squared_f32(vf32 x, vf32 x_low, vf32 *low)
{
    const int degree = sizeof tanh_s / sizeof *tanh_s - 1;
    const vf32 one = set_f32(1), square = x * x;
    const vf32 rest = v_fma(x + x, x_low, product_error_f32(x, x, square)), result = one - square;
    vf32 s = set_f32(tanh_s[degree]);
    for (int k = degree - 1; k >= 0; k--) s = v_fma(s, square, set_f32(tanh_s[k]));
    *low = ((one - result) - square) - v_fma(square * square, s, rest);
    return result;
}
#endif

#endif
