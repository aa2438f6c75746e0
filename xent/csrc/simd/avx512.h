/* avx512.h: the words of the vector vocabulary (simd.h) in 64 bytes: AVX-512 with its parts F, BW, DQ and VL. */
#include "simd/simd.h" /* which includes this file where it wants these words */

#ifndef XENT_AVX512_H
#define XENT_AVX512_H

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) ||             \
    !defined(__FMA__)
#error "avx512.h needs a compiler that may use AVX-512 F, BW, DQ and VL, and FMA"
#endif

#include <immintrin.h>

typedef __mmask16 vm32;
typedef __mmask8 vm64;
/* The mask types are plain integers of 16 and 8 bits, so words that take only masks can tell them apart. */
/* clang-format off */
#define XENT_WORDS(NAME, T, V, VM, P)                                                                                  \
    ALWAYS_INLINE V v_fma_##NAME(V a, V b, V c) { return (V)_mm512_fmadd_##P(a, b, c); }                               \
    ALWAYS_INLINE V v_max_##NAME(V a, V b) { return (V)_mm512_max_##P(a, b); }                                         \
    ALWAYS_INLINE V v_min_##NAME(V a, V b) { return (V)_mm512_min_##P(a, b); }                                         \
    ALWAYS_INLINE VM m_gt_##NAME(V a, V b) { return _mm512_cmp_##P##_mask(a, b, _CMP_GT_OQ); }                         \
    ALWAYS_INLINE VM m_ge_##NAME(V a, V b) { return _mm512_cmp_##P##_mask(a, b, _CMP_GE_OQ); }                         \
    ALWAYS_INLINE VM m_eq_##NAME(V a, V b) { return _mm512_cmp_##P##_mask(a, b, _CMP_EQ_OQ); }                         \
    ALWAYS_INLINE int m_any_##NAME(VM m) { return m != 0; }                                                            \
    ALWAYS_INLINE V v_select_##NAME(VM m, V a, V b) { return (V)_mm512_mask_blend_##P(m, b, a); }                      \
    ALWAYS_INLINE V v_load_n_##NAME(const T *p, ptrdiff_t n, V fill)                                                   \
    {                                                                                                                  \
        return (V)_mm512_mask_loadu_##P(fill, (VM)((1u << n) - 1), p);                                                 \
    }                                                                                                                  \
    ALWAYS_INLINE V v_scale_##NAME(V a, V n) { return (V)_mm512_scalef_##P(a, n); }                                    \
    ALWAYS_INLINE V v_load_where_##NAME(const T *p, VM m) { return (V)_mm512_maskz_loadu_##P(m, p); }                  \
    ALWAYS_INLINE void v_store_n_##NAME(T *p, V v, ptrdiff_t n) { _mm512_mask_storeu_##P(p, (VM)((1u << n) - 1), v); } \
    ALWAYS_INLINE void v_stream_##NAME(T *p, V v) { _mm512_stream_##P(p, v); }
/* clang-format on */

ALWAYS_INLINE vi32 v_count_f32(vi32 count, vm32 m)
{
    return (vi32)_mm512_mask_sub_epi32((__m512i)count, m, (__m512i)count, _mm512_set1_epi32(-1));
}
ALWAYS_INLINE vi64 v_count_f64(vi64 count, vm64 m)
{
    return (vi64)_mm512_mask_sub_epi64((__m512i)count, m, (__m512i)count, _mm512_set1_epi64(-1));
}
ALWAYS_INLINE vh16 v_count_greater_h16(vh16 count, vh16 a, vh16 b)
{
    const __mmask32 m = _mm512_cmpgt_epi16_mask((__m512i)a, (__m512i)b);
    return (vh16)_mm512_mask_sub_epi16((__m512i)count, m, (__m512i)count, _mm512_set1_epi16(-1));
}
ALWAYS_INLINE vh16 v_count_above_h16(vh16 count, vh16 a, vh16 b)
{
    const __mmask32 m = _mm512_cmpgt_epu16_mask((__m512i)a, (__m512i)b);
    return (vh16)_mm512_mask_sub_epi16((__m512i)count, m, (__m512i)count, _mm512_set1_epi16(-1));
}

XENT_WORDS(f32, float, vf32, vm32, ps)
XENT_WORDS(f64, double, vf64, vm64, pd)

ALWAYS_INLINE float v_reduce_max_f32(vf32 a) { return _mm512_reduce_max_ps((__m512)a); }
ALWAYS_INLINE double v_reduce_max_f64(vf64 a) { return _mm512_reduce_max_pd((__m512d)a); }

/* clang-format off */
#define XENT_PIECE_WORDS(NAME, T, V, P)                                                                                \
    ALWAYS_INLINE V v_load_pieces_##NAME(const T *p, ptrdiff_t step)                                                   \
    {                                                                                                                  \
        __m512 v = _mm512_castps128_ps512(_mm_loadu_ps((const float *)p));                                             \
        v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(p + step)), 1);                                         \
        v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(p + 2 * step)), 2);                                     \
        return (V)_mm512_insertf32x4(v, _mm_loadu_ps((const float *)(p + 3 * step)), 3);                               \
    }                                                                                                                  \
    ALWAYS_INLINE void v_store_pieces_##NAME(T *p, ptrdiff_t step, V v)                                                \
    {                                                                                                                  \
        _mm_storeu_ps((float *)p, _mm512_castps512_ps128((__m512)v));                                                  \
        _mm_storeu_ps((float *)(p + step), _mm512_extractf32x4_ps((__m512)v, 1));                                      \
        _mm_storeu_ps((float *)(p + 2 * step), _mm512_extractf32x4_ps((__m512)v, 2));                                  \
        _mm_storeu_ps((float *)(p + 3 * step), _mm512_extractf32x4_ps((__m512)v, 3));                                  \
    }                                                                                                                  \
    ALWAYS_INLINE V v_mix_lo_##NAME(V a, V b) { return (V)_mm512_unpacklo_##P(a, b); }                                 \
    ALWAYS_INLINE V v_mix_hi_##NAME(V a, V b) { return (V)_mm512_unpackhi_##P(a, b); }
/* clang-format on */

XENT_PIECE_WORDS(f32, float, vf32, ps)
XENT_PIECE_WORDS(f64, double, vf64, pd)

/* Lanes of two vectors; those of the second are counted on from the N of the first. */
/* clang-format off */
#define XENT_PICK_WORDS(NAME, V, VI, P, N, ...)                                                                        \
    static const VI xent_count_##NAME = {__VA_ARGS__};                                                                 \
    ALWAYS_INLINE V xent_pick_##NAME(V a, V b, VI lanes) { return (V)_mm512_permutex2var_##P(a, (__m512i)lanes, b); }  \
    ALWAYS_INLINE VI xent_zipped_##NAME(void) { return (xent_count_##NAME >> 1) + (xent_count_##NAME & 1) * N; }       \
    ALWAYS_INLINE V v_evens_##NAME(V a, V b) { return xent_pick_##NAME(a, b, 2 * xent_count_##NAME); }                 \
    ALWAYS_INLINE V v_odds_##NAME(V a, V b) { return xent_pick_##NAME(a, b, 2 * xent_count_##NAME + 1); }              \
    ALWAYS_INLINE V v_zip_lo_##NAME(V a, V b) { return xent_pick_##NAME(a, b, xent_zipped_##NAME()); }                 \
    ALWAYS_INLINE V v_zip_hi_##NAME(V a, V b) { return xent_pick_##NAME(a, b, xent_zipped_##NAME() + N / 2); }
/* clang-format on */

XENT_PICK_WORDS(f32, vf32, vi32, ps, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
XENT_PICK_WORDS(f64, vf64, vi64, pd, 8, 0, 1, 2, 3, 4, 5, 6, 7)

/* clang-format off */
#define XENT_TURN_WORDS(NAME, V, VM, BITS, N)                                                                          \
    ALWAYS_INLINE V v_before_##NAME(V v, VM m)                                                                         \
    {                                                                                                                  \
        return (V)_mm512_maskz_alignr_epi##BITS(m, (__m512i)v, (__m512i)v, N - 1);                                     \
    }                                                                                                                  \
    ALWAYS_INLINE V v_after_##NAME(V v, VM m) { return (V)_mm512_maskz_alignr_epi##BITS(m, (__m512i)v, (__m512i)v, 1); }
/* clang-format on */

XENT_TURN_WORDS(f32, vf32, vm32, 32, 16)
XENT_TURN_WORDS(f64, vf64, vm64, 64, 8)

ALWAYS_INLINE vf64 v_widen_lo(vf32 v) { return (vf64)_mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
ALWAYS_INLINE vf64 v_widen_hi(vf32 v) { return (vf64)_mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }
ALWAYS_INLINE vf32 v_narrow(vf64 lo, vf64 hi)
{
    return (vf32)_mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(lo)), _mm512_cvtpd_ps(hi), 1);
}

/* The table is repeated in each 16 bytes. */
ALWAYS_INLINE vf32 v_lookup(vf32 table, vi32 index)
{
    return (vf32)_mm512_permutevar_ps((__m512)table, (__m512i)index);
}

/* 16-bit floats (half.h) */
ALWAYS_INLINE vu32 xent_load_16(const uint16_t *p)
{
    return (vu32)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
}
ALWAYS_INLINE void xent_store_16(uint16_t *p, vu32 v)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16((__m512i)v));
}
ALWAYS_INLINE vu16 xent_load_n_16(const uint16_t *p, ptrdiff_t n)
{
    return (vu16)_mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p);
}
ALWAYS_INLINE void xent_store_n_16(uint16_t *p, vu16 v, ptrdiff_t n)
{
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << n) - 1), (__m256i)v);
}
ALWAYS_INLINE void xent_stream_16(uint16_t *p, vu16 v) { _mm256_stream_si256((__m256i *)p, (__m256i)v); }
ALWAYS_INLINE vf32 v_load_f16(const uint16_t *p)
{
    return (vf32)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
ALWAYS_INLINE void v_store_f16(uint16_t *p, vf32 v)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#endif
