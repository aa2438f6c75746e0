/* simd_words.c: each word of the vector vocabulary (xent/csrc/simd) as a plain function over arrays, for test_simd.py,
 * which compiles this file once per instruction set. It includes itself once per stored type, so that a word of several
 * types stands once.
 *
 *   WORD(name, value)          out[i] = value for whole vectors; x, y, z are those of a, b, c
 *   LANES_TO_ONE(name, value)  one number per vector
 *
 * The other functions are as their words are.
 */
#ifndef XENT_STORED

#define EXPORT __attribute__((visibility("default")))

#define XENT_STORED f64
#include "simd_words.c"
#define XENT_STORED f32
#include "simd_words.c"
#define XENT_STORED f16
#include "simd_words.c"
#define XENT_STORED bf16
#include "simd_words.c"

EXPORT const int vector_bytes = XENT_VBYTES, fused = XENT_FUSED, has_lookup = XENT_LOOKUP, scales = XENT_SCALES,
                 turns = XENT_TURNS;

#else

#include "begin.h"
#include "simd/count.h"
#include "simd/pow.h"
#include "simd/stored.h"
#include "simd/sums.h"

#define WORD(name, value)                                                                                              \
    EXPORT void NAME(of_##name)(const T *a, const T *b, const T *c, T *out, ptrdiff_t n)                               \
    {                                                                                                                  \
        for (ptrdiff_t i = 0; i < n; i += LANES) {                                                                     \
            const V x = v_load(a + i), y = v_load(b + i), z = v_load(c + i);                                           \
            (void)x, (void)y, (void)z;                                                                                 \
            v_store(out + i, value);                                                                                   \
        }                                                                                                              \
    }
#define LANES_TO_ONE(name, value)                                                                                      \
    EXPORT void NAME(of_##name)(const T *a, const T *b, T *out, ptrdiff_t n)                                           \
    {                                                                                                                  \
        for (ptrdiff_t i = 0; i < n; i += LANES) {                                                                     \
            const V x = v_load(a + i), y = v_load(b + i);                                                              \
            (void)y;                                                                                                   \
            *out++ = (T)(value);                                                                                       \
        }                                                                                                              \
    }

#ifndef STORED_AS_16
WORD(v_load, x)
WORD(v_abs, v_abs(x))
WORD(v_fma, v_fma(x, y, z))
WORD(v_max, v_max(x, y))
WORD(v_min, v_min(x, y))
WORD(m_gt, v_select(m_gt(x, y), z, x))
WORD(m_ge, v_select(m_ge(x, y), z, x))
WORD(m_eq, v_select(m_eq(x, y), z, x))
WORD(v_select, v_select(m_gt(x, y), y, z))
WORD(v_count, (V)NAME(v_count)((VI)z, m_gt(x, y)))
WORD(set, NAME(set)(a[i]))
WORD(iset, (V)NAME(iset)(((VI)x)[0]))
WORD(v_mix_lo, v_mix_lo(x, y))
WORD(v_mix_hi, v_mix_hi(x, y))
WORD(v_evens, v_evens(x, y))
WORD(v_odds, v_odds(x, y))
WORD(v_zip_lo, v_zip_lo(x, y))
WORD(v_zip_hi, v_zip_hi(x, y))
WORD(product_error, NAME(product_error)(x, y, (x * y)))
WORD(sum_error, NAME(sum_error)(x, y, x + y))
#if XENT_SCALES
WORD(v_scale, NAME(v_scale)(x, y))
#endif
#if XENT_TURNS
WORD(v_before, v_before(x, m_gt(y, z)))
WORD(v_after, v_after(x, m_gt(y, z)))
#endif
LANES_TO_ONE(m_any, m_any(m_gt(x, y)))
LANES_TO_ONE(v_reduce_sum, v_reduce_sum(x))
LANES_TO_ONE(v_reduce_max, v_reduce_max(x))

EXPORT void NAME(of_v_load_n)(const T *a, ptrdiff_t n, const T *fill, T *out)
{
    v_store(out, v_load_n(a, n, v_load(fill)));
}
EXPORT void NAME(of_v_store_n)(T *out, const T *a, ptrdiff_t n) { v_store_n(out, v_load(a), n); }
EXPORT void NAME(of_v_load_where)(const T *a, ptrdiff_t first, ptrdiff_t end, T *out)
{
    v_store(out, v_load_where(a, (VM)(NAME(first)(end) & ~NAME(first)(first))));
}
EXPORT void NAME(of_store_part)(T *out, const T *a, ptrdiff_t n) { NAME(store_part)(out, v_load(a), n); }
EXPORT void NAME(of_first)(ptrdiff_t n, const T *a, const T *b, T *out)
{
    v_store(out, v_select(NAME(first)(n), v_load(a), v_load(b)));
}
EXPORT void NAME(of_v_load_pieces)(const T *a, ptrdiff_t step, T *out) { v_store(out, v_load_pieces(a, step)); }
EXPORT void NAME(of_v_store_pieces)(T *out, ptrdiff_t step, const T *a) { v_store_pieces(out, step, v_load(a)); }

EXPORT void NAME(of_load_classes)(const T *rows, ptrdiff_t step, T *out)
{
    V v[PIECE];
    NAME(load_classes)(rows, step, v);
    for (int k = 0; k < PIECE; k++) v_store(out + k * LANES, v[k]);
}
EXPORT void NAME(of_store_classes)(T *rows, ptrdiff_t step, const T *a)
{
    V v[PIECE];
    for (int k = 0; k < PIECE; k++) v[k] = v_load(a + k * LANES);
    NAME(store_classes)(rows, step, v);
}
EXPORT void NAME(of_rows_to_columns)(const T *rows, ptrdiff_t row_step, T *columns, ptrdiff_t step, ptrdiff_t positions,
                                     ptrdiff_t classes, ptrdiff_t more)
{
    NAME(rows_to_columns)(rows, row_step, columns, step, positions, classes, step, more);
}
EXPORT void NAME(of_columns_to_rows)(const T *columns, ptrdiff_t step, T *rows, ptrdiff_t row_step, ptrdiff_t positions,
                                     ptrdiff_t classes, ptrdiff_t more)
{
    NAME(columns_to_rows)(columns, step, rows, row_step, positions, classes, more);
}

EXPORT void NAME(of_v_stream)(T *out, const T *a) { v_stream(out, v_load(a)), xent_streamed(); }

/* One number per lane, and what is left below it. */
EXPORT void NAME(of_sums)(const T *a, ptrdiff_t n, double *lanes, double *low)
{
    NAME(sum) sum = {{0}, {0}};
    for (ptrdiff_t i = 0; i < n; i += LANES) NAME(sum_add)(&sum, v_load(a + i));
    NAME(sum_lanes)(&sum, lanes, low);
}
EXPORT void NAME(of_sum_total)(const T *a, ptrdiff_t n, double *total)
{
    NAME(sum) sum = {{0}, {0}};
    for (ptrdiff_t i = 0; i < n; i += LANES) NAME(sum_add)(&sum, v_load(a + i));
    *total = NAME(sum_total)(&sum);
}
EXPORT const int NAME(row_lanes) = ROW_LANES;
/* Of all lanes of a row; of these and of `others` but the largest, and what is left below it. */
EXPORT void NAME(of_row_sums)(const T *a, ptrdiff_t n, const T *others, double *totals, T *largest)
{
    NAME(row_sum) sum;
    V largest_of_ways[WAYS];
    NAME(start_row_sum)(&sum);
    for (ptrdiff_t i = 0; i < n; i += LANES) NAME(sum_add)(&sum.way[i / LANES % WAYS], v_load(a + i));
    for (int w = 0; w < WAYS; w++) largest_of_ways[w] = v_load(others + w * LANES);
    totals[0] = NAME(row_total)(&sum);
    *largest = NAME(row_all_but_max)(&sum, largest_of_ways, totals + 1, totals + 2);
}
#if XENT_REAL == 64
WORD(v_pow, v_pow(x, y))
EXPORT void of_row_sum_add_array(const double *a, ptrdiff_t n, double *total)
{
    row_sum_f64 sum;
    start_row_sum_f64(&sum);
    row_sum_add_array(&sum, a, n);
    *total = row_total_f64(&sum);
}
#endif

#if XENT_REAL == 32
WORD(v_mix_pairs_lo, v_mix_pairs_lo(x, y))
WORD(v_mix_pairs_hi, v_mix_pairs_hi(x, y))

EXPORT void of_v_widen(const float *a, double *out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        v_store(out + i, v_widen_lo(v_load(a + i)));
        v_store(out + i + LANES / 2, v_widen_hi(v_load(a + i)));
    }
}
EXPORT void of_v_narrow(const double *a, float *out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += LANES) v_store(out + i, v_narrow(v_load(a + i), v_load(a + i + LANES / 2)));
}
/* What narrowing takes away: compilers were seen to get this wrong. */
EXPORT void of_narrowed_rest(const double *a, double *out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const vf64 lo = v_load(a + i), hi = v_load(a + i + LANES / 2);
        const vf32 v = v_narrow(lo, hi);
        v_store(out + i, lo - v_widen_lo(v));
        v_store(out + i + LANES / 2, hi - v_widen_hi(v));
    }
}
#if XENT_LOOKUP
EXPORT void of_v_lookup(const float *table, const int32_t *index, float *out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += LANES)
        v_store(out + i, v_lookup(v_load(table), (vi32)v_load((const float *)index + i)));
}
#endif
#define SIXTEEN_BITS(name, value)                                                                                      \
    EXPORT void of_##name(const uint16_t *a, const uint16_t *b, const uint16_t *c, uint16_t *out, ptrdiff_t n)         \
    {                                                                                                                  \
        for (ptrdiff_t i = 0; i < n; i += 2 * LANES) {                                                                 \
            const vh16 x = v_load_h16(a + i), y = v_load_h16(b + i), z = v_load_h16(c + i);                            \
            (void)x, (void)y, (void)z;                                                                                 \
            *(vh16_unaligned *)(out + i) = value;                                                                      \
        }                                                                                                              \
    }
SIXTEEN_BITS(v_load_h16, x)
SIXTEEN_BITS(v_count_greater_h16, v_count_greater_h16(z, x, y))
SIXTEEN_BITS(v_count_above_h16, v_count_above_h16(z, x, y))
EXPORT void of_xent_load_16(const uint16_t *a, uint32_t *out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += LANES) v_store((float *)out + i, (vf32)xent_load_16(a + i));
}
EXPORT void of_xent_store_16(const uint32_t *a, uint16_t *out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += LANES) xent_store_16(out + i, (vu32)v_load((const float *)a + i));
}
#endif
#endif /* STORED_AS_16 */

/* n >= LANES: all of a vector. */
EXPORT void KERNEL(of_count_larger)(const S *a, ptrdiff_t n, const S *than, double *out)
{
    *out = (double)KERNEL(count_larger)(a, n, *than);
}
EXPORT void KERNEL(of_load)(const S *a, ptrdiff_t n, const T *fill, T *out)
{
    v_store(out, KERNEL(load)(a, n, v_load(fill)));
}
EXPORT void KERNEL(of_load_row)(const S *a, ptrdiff_t n, ptrdiff_t readable, const T *fill, T *out)
{
    v_store(out, KERNEL(load_row)(a, n, a + readable, v_load(fill)));
}
EXPORT void KERNEL(of_store)(S *out, const T *a, ptrdiff_t n) { KERNEL(store)(out, v_load(a), n); }
EXPORT void KERNEL(of_load_part)(const S *a, ptrdiff_t n, const T *fill, T *out)
{
    v_store(out, KERNEL(load_part)(a, n, v_load(fill)));
}
/* Where it lies at a multiple of its size. */
EXPORT void KERNEL(of_store_aligned)(S *out, const T *a, ptrdiff_t streams, ptrdiff_t *first)
{
    *first = KERNEL(until_aligned)(out);
    if (streams)
        KERNEL(store_aligned)(out + *first, v_load(a), 1), xent_streamed();
    else
        KERNEL(store_aligned)(out + *first, v_load(a), 0);
}
EXPORT void KERNEL(of_fetch_ahead)(const S *a, ptrdiff_t n) { KERNEL(fetch_ahead)(a, n); }
EXPORT void KERNEL(of_all_loads)(const S *a, T *out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += LANES) v_store(out + i, KERNEL(v_load)(a + i));
}
EXPORT void KERNEL(of_all_stores)(const T *a, S *out, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += LANES) KERNEL(v_store)(out + i, v_load(a + i));
}
EXPORT void KERNEL(of_get)(const S *a, T *out) { *out = KERNEL(get)(a); }
EXPORT void KERNEL(of_put)(S *out, const T *a) { KERNEL(put)(out, *a); }
EXPORT void KERNEL(of_narrowed)(S *out, const double *a) { KERNEL(put)(out, KERNEL(narrowed)(*a)); }
EXPORT void KERNEL(of_load_transposed)(const S *rows, ptrdiff_t step, T *out)
{
    V v[PIECE];
    KERNEL(load_transposed)(rows, step, v);
    for (int k = 0; k < PIECE; k++) v_store(out + k * LANES, v[k]);
}
EXPORT void KERNEL(of_store_transposed)(S *rows, ptrdiff_t step, const T *a)
{
    V v[PIECE];
    for (int k = 0; k < PIECE; k++) v[k] = v_load(a + k * LANES);
    KERNEL(store_transposed)(rows, step, v);
}

#undef WORD
#undef LANES_TO_ONE
#include "end.h"
#endif
