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

/* Vectors of doubles that hold ROW_LANES numbers, which are folded: neighbours become one, until one number is left, in
 * lane 0 of the first. */
#define ROW_VECTORS (XENT_WIDEST / (int)sizeof(T) / (int)LANES_F64)
ALWAYS_INLINE int NAME(fold)(const vf64 *from, int vectors, vf64 *evens, vf64 *odds)
{
    for (int k = 0; k < (vectors + 1) / 2; k++) {
        const vf64 a = from[2 * k], b = from[vectors == 1 ? 0 : 2 * k + 1];
        evens[k] = v_evens(a, b), odds[k] = v_odds(a, b);
    }
    return (vectors + 1) / 2;
}

/* The numbers of a row in `vectors`; where they are doubles, what rounding has left of them in `errors`. */
ALWAYS_INLINE void NAME(row_vectors)(const NAME(row_sum) *acc, vf64 *vectors, vf64 *errors)
{
    for (int w = 0; w < WAYS; w++) {
#if XENT_REAL == 32
        (void)errors, vectors[2 * w] = acc->way[w].a, vectors[2 * w + 1] = acc->way[w].b;
#else
        vectors[w] = acc->way[w].a, errors[w] = acc->way[w].b;
#endif
    }
}

/* sum[k] = evens[k] + odds[k], and what rounding takes from it is added to error[k]. */
ALWAYS_INLINE void NAME(add_odds)(int vectors, vf64 *sum, vf64 *error, const vf64 *evens, const vf64 *odds)
{
    for (int k = 0; k < vectors; k++) {
        sum[k] = evens[k] + odds[k];
#if XENT_REAL == 64
        error[k] += sum_error_f64(evens[k], odds[k], sum[k]);
#else
        (void)error;
#endif
    }
}

/* Fold sums and their errors once. */
ALWAYS_INLINE int NAME(fold_sums)(int vectors, vf64 *sum, vf64 *error)
{
    vf64 evens[ROW_VECTORS], odds[ROW_VECTORS];
#if XENT_REAL == 64
    const int half = NAME(fold)(error, vectors, evens, odds);
    for (int k = 0; k < half; k++) error[k] = evens[k] + odds[k];
#endif
    const int left = NAME(fold)(sum, vectors, evens, odds);
    NAME(add_odds)(left, sum, error, evens, odds);
    return left;
}

ALWAYS_INLINE double NAME(row_total)(const NAME(row_sum) *acc)
{
    vf64 sum[ROW_VECTORS], error[ROW_VECTORS];
    NAME(row_vectors)(acc, sum, error);
    for (int lanes = ROW_LANES, vectors = ROW_VECTORS; lanes > 1; lanes /= 2)
        vectors = NAME(fold_sums)(vectors, sum, error);
    const double total = sum[0][0];
#if XENT_REAL == 32
    return total;
#else
    return isfinite(total) ? total + error[0][0] : total;
#endif
}

#if XENT_REAL == 64
/* Add n numbers. The sum is copied, to stay in registers. */
ALWAYS_INLINE void row_sum_add_array(row_sum_f64 *acc, const double *numbers, ptrdiff_t n)
{
    const vf64 zero = {0};
    row_sum_f64 sum = *acc;
    for (ptrdiff_t first = 0; first < n; first += ROW_LANES)
        for (int w = 0; w < WAYS; w++) {
            const ptrdiff_t left = n - first - w * LANES;
            const double *at = numbers + first + w * LANES;
            if (left > 0) sum_add_f64(&sum.way[w], left >= LANES ? v_load(at) : v_load_n(at, left, zero));
        }
    *acc = sum;
}
#endif

/* The total of a row and of all lanes of `others`, of which there are WAYS, but for one that holds the largest of these:
 * that is returned. The smaller of two neighbours joins the sum, the larger goes on. */
ALWAYS_INLINE T NAME(row_all_but_max)(const NAME(row_sum) *acc, const V *others, double *total, double *low)
{
    vf64 sum[ROW_VECTORS], error[ROW_VECTORS], max[ROW_VECTORS], a[ROW_VECTORS], b[ROW_VECTORS];
    NAME(row_vectors)(acc, sum, error);
    for (int w = 0; w < WAYS; w++) {
#if XENT_REAL == 32
        max[2 * w] = v_widen_lo(others[w]), max[2 * w + 1] = v_widen_hi(others[w]);
#else
        max[w] = others[w];
#endif
    }
    for (int lanes = ROW_LANES, vectors = ROW_VECTORS; lanes > 1; lanes /= 2) {
        const int left = NAME(fold)(max, vectors, a, b);
        NAME(fold_sums)(vectors, sum, error);
        for (int k = 0; k < left; k++) {
            max[k] = v_max(a[k], b[k]), b[k] = v_min(a[k], b[k]);
            a[k] = sum[k];
        }
        vectors = left;
        NAME(add_odds)(vectors, sum, error, a, b);
    }
#if XENT_REAL == 32
    *total = sum[0][0], *low = 0;
#else
    const double high = sum[0][0], rest = error[0][0];
    *total = high + rest;
    *low = (high - *total) + rest;
#endif
    return (T)max[0][0];
}

#endif
