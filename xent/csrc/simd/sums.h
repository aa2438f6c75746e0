/* sums.h: what rounding takes from a sum or a product, and sums that keep more bits than their terms, for the real
 * types. */
#include "begin.h"
#include "simd/real.h"

#if !defined(XENT_SUMS_H) && !defined(STORED_AS_16)
#define XENT_SUMS_H

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

/* An accumulator with more bits than its terms: floats are added in double lanes, doubles with the error of each
 * addition (Knuth's TwoSum: exact, no order of magnitudes assumed). */
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

/* Write the total of every lane, and in `low` (unless NULL) what is left below it. An infinite sum has a NaN
 * compensation: leave that out. */
ALWAYS_INLINE void NAME(sum_lanes)(const NAME(sum) *acc, double *lanes, double *low)
{
    const vf64 zero = {0};
#if XENT_REAL == 32
    v_store(lanes, acc->a);
    v_store(lanes + LANES / 2, acc->b);
    if (low) v_store(low, zero), v_store(low + LANES / 2, zero);
#else
    const vm64 finite = m_gt(set_f64(INFINITY), v_abs(acc->a));
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

/* The total of all lanes and of those of `others`, but for one that holds the largest of these: that is returned.
 * Halves are folded upon each other: the smaller of two lanes joins the sum, the larger goes on. */
ALWAYS_INLINE T NAME(sum_all_but_max)(const NAME(sum) *acc, V others, double *total, double *low)
{
#if XENT_REAL == 32
    const vf64 a = v_widen_lo(others), b = v_widen_hi(others);
    double sum[LANES / 2], max[LANES / 2];
    v_store(sum, acc->a + acc->b + v_min(a, b));
    v_store(max, v_max(a, b));
    for (int half = LANES / 4; half > 0; half /= 2) {
        for (int k = 0; k < half; k++) {
            const double x = max[k], y = max[k + half];
            sum[k] += sum[k + half] + (x < y ? x : y);
            max[k] = x < y ? y : x;
        }
    }
    *total = sum[0], *low = 0;
#else
    double sum[LANES], error[LANES], max[LANES];
    v_store(sum, acc->a);
    v_store(error, acc->b);
    v_store(max, others);
    for (int half = LANES / 2; half > 0; half /= 2) {
        for (int k = 0; k < half; k++) {
            const double x = max[k], y = max[k + half];
            two_sum_add(&sum[k], &error[k], sum[k + half]);
            two_sum_add(&sum[k], &error[k], x < y ? x : y);
            error[k] += error[k + half];
            max[k] = x < y ? y : x;
        }
    }
    *total = sum[0] + error[0];
    *low = (sum[0] - *total) + error[0];
#endif
    return (T)max[0];
}

#endif
