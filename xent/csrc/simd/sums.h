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

/* What is added up along memory, the classes of a row or the elements of a chunk, goes to ROW_LANES sums in turn, however
 * wide vectors are: one of the widest, or WAYS narrower ones. So the order of the additions, and with it every bit of
 * the total, is the same on all. */
#define ROW_LANES (XENT_WIDEST / (int)sizeof(T))
#define WAYS (ROW_LANES / LANES)
typedef struct {
    NAME(sum) way[WAYS];
} NAME(row_sum);

ALWAYS_INLINE void NAME(start_row_sum)(NAME(row_sum) *acc)
{
    const vf64 zero = {0};
    for (int w = 0; w < WAYS; w++) acc->way[w].a = acc->way[w].b = zero;
}

/* The total: halves are folded upon each other. */
ALWAYS_INLINE double NAME(row_total)(const NAME(row_sum) *acc)
{
    double total[ROW_LANES];
#if XENT_REAL == 32
    for (int w = 0; w < WAYS; w++) NAME(sum_lanes)(&acc->way[w], total + w * LANES, NULL);
    for (int half = ROW_LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++) total[k] += total[k + half];
    return total[0];
#else
    double error[ROW_LANES];
    for (int w = 0; w < WAYS; w++) v_store(total + w * LANES, acc->way[w].a), v_store(error + w * LANES, acc->way[w].b);
    for (int half = ROW_LANES / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++)
            two_sum_add(&total[k], &error[k], total[k + half]), error[k] += error[k + half];
    return isfinite(total[0]) ? total[0] + error[0] : total[0];
#endif
}

#if XENT_REAL == 64
/* Add n numbers. */
ALWAYS_INLINE void row_sum_add_array(row_sum_f64 *acc, const double *numbers, ptrdiff_t n)
{
    const vf64 zero = {0};
    for (ptrdiff_t first = 0; first < n; first += ROW_LANES)
        for (int w = 0; w < WAYS; w++) {
            const ptrdiff_t left = n - first - w * LANES;
            const double *at = numbers + first + w * LANES;
            if (left > 0) sum_add_f64(&acc->way[w], left >= LANES ? v_load(at) : v_load_n(at, left, zero));
        }
}
#endif

/* The total of a row and of all lanes of `others` but for one that holds the largest of these: that is returned. Halves
 * are folded upon each other: the smaller of two lanes joins the sum, the larger goes on. */
ALWAYS_INLINE T NAME(row_all_but_max)(const NAME(row_sum) *acc, const V *others, double *total, double *low)
{
    double sum[LANES_F64], max[LANES_F64];
#if XENT_REAL == 32
    vf64 sums[2 * WAYS], others_max[2 * WAYS];
    for (int w = 0; w < WAYS; w++) {
        sums[2 * w] = acc->way[w].a, sums[2 * w + 1] = acc->way[w].b;
        others_max[2 * w] = v_widen_lo(others[w]), others_max[2 * w + 1] = v_widen_hi(others[w]);
    }
    for (int half = WAYS; half > 0; half /= 2)
        for (int k = 0; k < half; k++) {
            const vf64 x = others_max[k], y = others_max[k + half];
            sums[k] += sums[k + half] + v_min(x, y);
            others_max[k] = v_max(x, y);
        }
    v_store(sum, sums[0]), v_store(max, others_max[0]);
    for (int half = (int)LANES_F64 / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++) {
            const double x = max[k], y = max[k + half];
            sum[k] += sum[k + half] + (x < y ? x : y);
            max[k] = x < y ? y : x;
        }
    *total = sum[0], *low = 0;
#else
    double error[LANES_F64];
    vf64 sums[WAYS], errors[WAYS], others_max[WAYS];
    for (int w = 0; w < WAYS; w++) sums[w] = acc->way[w].a, errors[w] = acc->way[w].b, others_max[w] = others[w];
    for (int half = WAYS / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++) {
            const vf64 x = others_max[k], y = others_max[k + half], smaller = v_min(x, y);
            vf64 s = sums[k] + sums[k + half];
            errors[k] += sum_error_f64(sums[k], sums[k + half], s) + errors[k + half];
            sums[k] = s + smaller;
            errors[k] += sum_error_f64(s, smaller, sums[k]);
            others_max[k] = v_max(x, y);
        }
    v_store(sum, sums[0]), v_store(error, errors[0]), v_store(max, others_max[0]);
    for (int half = (int)LANES_F64 / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++) {
            const double x = max[k], y = max[k + half], smaller = x < y ? x : y, s = sum[k] + sum[k + half],
                         back = s - sum[k], both = s + smaller, back_again = both - s;
            error[k] += ((sum[k] - (s - back)) + (sum[k + half] - back)) + error[k + half];
            error[k] += (s - (both - back_again)) + (smaller - back_again);
            sum[k] = both;
            max[k] = x < y ? y : x;
        }
    *total = sum[0] + error[0];
    *low = (sum[0] - *total) + error[0];
#endif
    return (T)max[0];
}

#endif
