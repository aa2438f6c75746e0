/* vmath.h: exp, log and log1p on the vector vocabulary, and sums that keep more bits than their terms.
 * Included once per real type (real.h): T is the scalar, V its vector, VI the integers of equal width.
 *
 *              worst error in ulp, and where (float: every argument on AVX2, every seventh on the baseline; double: millions at
 *              random; tests/test_vmath.py holds all to 1 ulp)
 *   exp        float 0.83 at -87.444 (baseline 0.78 at -87.646)        double 0.74 at -0x1.be3da7b069da0p+5
 *   log        float 0.84 at 1.4054595                                 double 0.77 at 0x1.68fe0cd060b81p+0 (120,000 around 1)
 *   log1p      float 0.87 at 0.406275                                  double 0.83 at 0x1.9b06ed369951cp-2
 *   tanh                                                               double 2 (its argument, a logit, has been rounded before)
 *
 * exp: n = round(x / ln 2), r = x - n ln 2 in two parts (the head of ln 2 is short, so that n * head is exact), then
 * e^x = 2^n e^r with a polynomial for e^r on |r| <= ln 2 / 2. The rounding to an integer adds 1.5 * 2^(mantissa bits), which
 * leaves n in the low bits of the sum: the exponent is made from these bits without a conversion.
 */

/* Coefficients and the split of ln 2: tools/coefficients.py. */
#if XENT_REAL == 32
#define EXP_DEGREE 4
static const T NAME(exp_q)[] = {0x1.0000000000000p-1, 0x1.5554dc0000000p-3, 0x1.55551a0000000p-5, 0x1.120b6e0000000p-7,
                                0x1.6d110a0000000p-10};
#define LOG_DEGREE 3
static const T NAME(log_w)[] = {0x1.5555560000000p-1, 0x1.9999ec0000000p-2, 0x1.245c3e0000000p-2, 0x1.ddd00c0000000p-3};
#define LN2_HEAD 0x1.62e0000000000p-1f
#define LN2_TAIL 0x1.0bfbe80000000p-15f
#define MAGIC 0x1.8p23f
#define MAGIC_BITS 0x4B400000
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define SQRT_HALF_BITS 0x3F3504F3
#define TINY 0x1p-126f     /* the smallest normal number, and the largest finite one */
#define LARGEST 0x1.fffffep127f
#define EXP_LOW (-104.0f)  /* e^x < 2^-150: rounds to 0 */
#define EXP_HIGH (89.0f)   /* e^x > 2^128: overflows */
#define FARTHEST 0x1p127f  /* finite, and larger than any distance of logits that counts */
#else
#define EXP_DEGREE 9
static const T NAME(exp_q)[] = {0x1.0000000000001p-1,  0x1.5555555555556p-3,  0x1.5555555553d63p-5,  0x1.11111111109b3p-7,
                                0x1.6c16c1788bd90p-10, 0x1.a01a01a7c41d5p-13, 0x1.a019b90d2ae7ap-16, 0x1.71de0dae63bb3p-19,
                                0x1.289185613a3d6p-22, 0x1.af38a9b0ec855p-26};
#define LOG_DEGREE 7
static const T NAME(log_w)[] = {0x1.5555555555555p-1, 0x1.9999999999a38p-2, 0x1.2492492476c42p-2, 0x1.c71c720168526p-3,
                                0x1.745cf8fe328f9p-3, 0x1.3b1c36b445cebp-3, 0x1.0fbe71ad855c9p-3, 0x1.0c05166ec4148p-3};
#define LN2_HEAD 0x1.62e42fefa3000p-1
#define LN2_TAIL 0x1.3de6af278ece6p-42
#define MAGIC 0x1.8p52
#define MAGIC_BITS 0x4338000000000000
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define SQRT_HALF_BITS 0x3FE6A09E667F3BCD
#define TINY 0x1p-1022   /* the smallest normal number, and the largest finite one */
#define LARGEST 0x1.fffffffffffffp1023
#define EXP_LOW (-746.0) /* e^x < 2^-1075: rounds to 0 */
#define EXP_HIGH (710.0) /* e^x > 2^1024: overflows */
#define FARTHEST 0x1p1023
#endif
#define LOG2_E ((T)1.4426950408889634)
#define LN2 ((T)0.6931471805599453)

ALWAYS_INLINE V NAME(set)(T s) { return s - (V){0}; }
ALWAYS_INLINE VI NAME(iset)(I s) { return s - (VI){0}; }

/* The low word of a product a * b whose rounded value is p, exactly (without a fused operation: Dekker's splitting). */
ALWAYS_INLINE V NAME(product_error)(V a, V b, V p)
{
#if XENT_FUSED
    return v_fma(a, b, -p);
#else
    const V splitter = NAME(set)((T)(((I)1 << (MANTISSA_BITS / 2 + 1)) + 1));
    const V a_big = splitter * a, b_big = splitter * b;
    const V a_hi = a_big - (a_big - a), b_hi = b_big - (b_big - b);
    const V a_lo = a - a_hi, b_lo = b - b_hi;
    return a_lo * b_lo - (((p - a_hi * b_hi) - a_lo * b_hi) - a_hi * b_lo);
#endif
}

/* The low word of a sum a + b whose rounded value is s, exactly (Knuth). */
ALWAYS_INLINE V NAME(sum_error)(V a, V b, V s)
{
    const V back = s - a;
    return (a - (s - back)) + (b - back);
}

/* What follows takes an argument x + low where `paired`, a constant at every call; else low is not looked at. */

#if !XENT_FUSED || XENT_REAL == 64
/* e^r = 1 + head + rest of x + low = n ln 2 + r; *shifted as in exp_mantissa. The head of r is kept apart: 1 + head, its error, and
 * tail + r^2 q lose less than nested products. */
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

/* e^r of x + low = n ln 2 + r; *shifted has n in its low bits, plus the integer by which `magic` exceeds MAGIC. |x| <= 700 (float),
 * 2800 (double) keeps n * LN2_HEAD exact. */
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
/* Where a table costs one instruction, n counts quarters of an octave: e^x = 2^(n / 4) e^r with |r| <= ln 2 / 8, a shorter
 * polynomial. What the roots 2^(k / 4) lose as floats, up to a third of an ulp, is put right by factors 1 + exp_root_errors[k]. */
#define STEPS 4 /* of n to an octave */
#define QUARTER_SHIFT (MANTISSA_BITS - 2)
#define ROOTS(one, step) one, one + 0x1837F0 - step, one + 0x3504F3 - 2 * step, one + 0x5744FD - 3 * step
#define FOUR_TIMES(...) {__VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__}
static const int32_t exp_roots[16] __attribute__((aligned(64))) = FOUR_TIMES(ROOTS(0x3F800000, 0));
static const int32_t exp_root_bits[16] __attribute__((aligned(64))) = FOUR_TIMES(ROOTS(0, (1 << QUARTER_SHIFT)));
static const float exp_root_errors[16] __attribute__((aligned(64))) =
    FOUR_TIMES(0, 0x1.1250020000000p-25f, 0x1.26055c0000000p-26f, -0x1.f9c3040000000p-27f);
static const float exp_quarter_q[] = {0.5f, 0x1.5571ce0000000p-3f, 0x1.556b1e0000000p-5f};

/* s e^r, of x + low = n ln 2 / 4 + r. The low bits of *shifted have n plus the integer by which `magic` exceeds MAGIC, a multiple of 4;
 * s is 2^(n mod 4 / 4), or, if `scaled`, has the bits that *shifted and a table give: those of the number *shifted / 4, with the root of
 * its fraction in place of the fraction. */
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
#else
#define STEPS 1
#endif

/* What exp_scaled needs to know of a power of two: made once per row (or per lane). */
typedef struct {
    V floor; /* arguments up to it give exactly 0 */
    V magic; /* exceeds MAGIC by the integer that turns n into the exponent bits of 2^(n - reference) */
} NAME(scale);

ALWAYS_INLINE NAME(scale) NAME(scale_of)(V reference)
{
    const V above = NAME(set)(EXPONENT_BIAS) - reference;
    return (NAME(scale)){above * NAME(set)(-LN2), v_fma(above, NAME(set)(STEPS), NAME(set)(MAGIC))};
}

/* e^(x + low) * 2^-reference, without a rounding of its own; below 2^(1 - bias) 0 or, with the table, some subnormal number, neither of
 * which matters (position.h); NaN stays. Overflows past 2^127 (2^1023). Where x is not above the floor low must be 0. */
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

/* e^x for any x: gradual underflow, overflow to infinity. 2^n is applied in two halves, each a normal number. */
ALWAYS_INLINE V NAME(exp)(V x)
{
    const V clamped = v_max(NAME(set)(EXP_LOW), v_min(NAME(set)(EXP_HIGH), x)), magic = NAME(set)(MAGIC);
    VI shifted;
#if XENT_REAL == 32 && XENT_LOOKUP
    const V mantissa = exp_by_quarters(clamped, clamped, 0, magic, 0, &shifted);
    shifted = ((shifted - MAGIC_BITS) >> 2) + MAGIC_BITS; /* whole octaves */
#else
    const V mantissa = NAME(exp_mantissa)(clamped, clamped, 0, magic, &shifted);
#endif
    const V half = v_fma((V)shifted - magic, NAME(set)((T)0.5), magic);
    const VI bias = NAME(iset)(EXPONENT_BIAS) - NAME(iset)(MAGIC_BITS);
    const V rest = ((V)shifted - magic) - (half - magic) + magic;
    return mantissa * (V)(((VI)half + bias) << MANTISSA_BITS) * (V)(((VI)rest + bias) << MANTISSA_BITS);
}

#if XENT_REAL == 64
/* tanh x = -E / (2 + E) for x >= 0, with E = e^(-2 x) - 1 = (2^n - 1) + 2^n (head + low): for n = 0, where x is small, nothing
 * cancels. Below -40, E is -1. */
ALWAYS_INLINE vf64 tanh_exp_f64(vf64 x)
{
    const vf64 zero = {0}, one = v_set_f64(1), exponent = v_max(v_set_f64(-40), v_set_f64(-2) * v_abs(x));
    vi64 shifted;
    vf64 low;
    const vf64 head = exp_parts_f64(exponent, zero, 0, v_set_f64(MAGIC + EXPONENT_BIAS), &shifted, &low);
    const vf64 power = (vf64)(shifted << MANTISSA_BITS), base = power - one, term = power * head, sum = base + term;
    return sum + ((term - (sum - base)) + power * low);
}
ALWAYS_INLINE vf64 tanh_of_exp_f64(vf64 e, vf64 x)
{
    const vf64 zero = {0}, size = -e / (v_set_f64(2) + e);
    return v_select(m_gt(zero, x), -size, size);
}
#endif

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

/* log(u 2^-shift) + c = head + f + small of a positive normal u. u = 2^k m with m in [sqrt(1/2), sqrt 2), f = m - 1, s = f / (2 + f),
 * log m = 2 s + s z w(z) with z = s^2 and 2 s = f - f^2/2 + s f^2/2. */
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
    return (NAME(log_parts)){n * NAME(set)(LN2_HEAD), f, small};
}

/* The same as a sum of two numbers: the larger is returned. */
ALWAYS_INLINE V NAME(log_pair)(V u, V shift, V c, V *low)
{
    const NAME(log_parts) p = NAME(log_in_parts)(u, shift, c);
    const V large = p.head + p.f;
    *low = NAME(sum_error)(p.head, p.f, large) + p.small;
    return large;
}

/* The same as one number: the head is 0, or larger than what is rounded first. */
ALWAYS_INLINE V NAME(log_whole)(V u, V shift, V c)
{
    const NAME(log_parts) p = NAME(log_in_parts)(u, shift, c);
    return p.head + (p.f + p.small);
}

/* log(1 + x + x_low) for x >= 0, as a sum of two numbers. With u = 1 + x and its rounding error c, log(u + c) = log u + c / u. */
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

/* A logarithm set right where its argument x is no positive finite number: -infinity of 0, infinity of infinity, else NaN. */
ALWAYS_INLINE V NAME(log_ends)(V x, V log_x)
{
    const V zero = {0}, infinity = NAME(set)((T)INFINITY);
    const V end = v_select(m_eq(x, zero), zero - infinity, v_select(m_eq(x, infinity), infinity, NAME(set)((T)NAN)));
    return v_select(m_gt(x, zero), v_select(m_gt(infinity, x), log_x, end), end);
}

/* log x + c for any x. Subnormal numbers are made normal first. Most vectors hold nothing but positive normal numbers. */
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

/* An accumulator with more bits than its terms: floats are added in double lanes, doubles with the error of each addition
 * (Knuth's TwoSum: exact, no order of magnitudes assumed). */
typedef struct {
    vf64 a, b; /* float: the two halves of the lanes; double: sum and compensation */
} NAME(sum);

ALWAYS_INLINE void NAME(sum_add)(NAME(sum) *acc, V v)
{
#if XENT_REAL == 32
    acc->a += v_widen_lo(v);
    acc->b += v_widen_hi(v);
#else
    const V total = acc->a + v;
    const V back = total - acc->a;
    acc->b += (acc->a - (total - back)) + (v - back);
    acc->a = total;
#endif
}

/* Write the total of every lane, and in `low` (unless NULL) what is left below it. An infinite sum has a NaN compensation: leave
 * that out. */
ALWAYS_INLINE void NAME(sum_lanes)(const NAME(sum) *acc, double *lanes, double *low)
{
    const vf64 zero = {0};
#if XENT_REAL == 32
    v_store(lanes, acc->a);
    v_store(lanes + LANES / 2, acc->b);
    if (low) v_store(low, zero), v_store(low + LANES / 2, zero);
#else
    const vm64 finite = m_gt(v_set_f64(INFINITY), v_abs(acc->a));
    const vf64 total = v_select(finite, acc->a + acc->b, acc->a);
    v_store(lanes, total);
    if (low) v_store(low, v_select(finite, (acc->a - total) + acc->b, zero));
#endif
}

/* The total of all lanes. */
ALWAYS_INLINE double NAME(sum_total)(const NAME(sum) *acc)
{
    double lanes[LANES], total = 0, error = 0;
    NAME(sum_lanes)(acc, lanes, NULL);
    for (int k = 0; k < LANES; k++) two_sum_add(&total, &error, lanes[k]);
    return isfinite(total) ? total + error : total;
}

/* The same with the lanes of `others` added, but for one that holds the largest of them: that is returned. Halves are folded
 * upon each other: the smaller of two lanes joins the sum, the larger goes on. */
ALWAYS_INLINE T NAME(sum_all_but_one)(const NAME(sum) *acc, V others, double *total, double *low)
{
#if XENT_REAL == 32
    const vf64 a = v_widen_lo(others), b = v_widen_hi(others);
    double sum[LANES / 2], top[LANES / 2];
    v_store(sum, acc->a + acc->b + v_min(a, b));
    v_store(top, v_max(a, b));
    for (int half = LANES / 4; half > 0; half /= 2) {
        for (int k = 0; k < half; k++) {
            const double x = top[k], y = top[k + half];
            sum[k] += sum[k + half] + (x < y ? x : y);
            top[k] = x < y ? y : x;
        }
    }
    *total = sum[0], *low = 0;
#else
    double sum[LANES], error[LANES], top[LANES];
    v_store(sum, acc->a);
    v_store(error, acc->b);
    v_store(top, others);
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int k = 0; k < half; k++) {
            const double x = top[k], y = top[k + half];
            two_sum_add(&sum[k], &error[k], sum[k + half]);
            two_sum_add(&sum[k], &error[k], x < y ? x : y);
            error[k] += error[k + half];
            top[k] = x < y ? y : x;
        }
    }
    *total = sum[0] + error[0];
    *low = (sum[0] - *total) + error[0];
#endif
    return (T)top[0];
}
