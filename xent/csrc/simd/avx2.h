/* avx2.h: the words of the vector vocabulary (simd.h) in 32 bytes: AVX2 with FMA and F16C, which every processor with
 * AVX2 has. */
#include "simd/simd.h" /* which includes this file where it wants these words */

#ifndef XENT_AVX2_H
#define XENT_AVX2_H

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__) || defined(__AVX512F__)
#error "avx2.h needs a compiler that may use AVX2, FMA and F16C, and not AVX-512, which has avx512.h"
#endif

#include <immintrin.h>

/* A window of ones that slides over zeros: reading it at 8 - n gives n lanes of ones. */
static const int32_t xent_ones_then_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
static const int64_t xent_ones_then_zeros_64[8] = {-1, -1, -1, -1};
ALWAYS_INLINE __m256i xent_first_ps(ptrdiff_t n)
{
    return _mm256_loadu_si256((const __m256i *)(xent_ones_then_zeros + 8 - n));
}
ALWAYS_INLINE __m256i xent_first_pd(ptrdiff_t n)
{
    return _mm256_loadu_si256((const __m256i *)(xent_ones_then_zeros_64 + 4 - n));
}

/* clang-format off */
#define XENT_WORDS(NAME, T, V, VM, P)                                                                                  \
    ALWAYS_INLINE V v_fma_##NAME(V a, V b, V c) { return (V)_mm256_fmadd_##P(a, b, c); }                               \
    ALWAYS_INLINE V v_max_##NAME(V a, V b) { return (V)_mm256_max_##P(a, b); }                                         \
    ALWAYS_INLINE V v_min_##NAME(V a, V b) { return (V)_mm256_min_##P(a, b); }                                         \
    ALWAYS_INLINE int m_any_##NAME(VM m) { return !_mm256_testz_si256((__m256i)m, (__m256i)m); }                       \
    ALWAYS_INLINE V v_select_##NAME(VM m, V a, V b) { return (V)_mm256_blendv_##P(b, a, (V)m); }                       \
    ALWAYS_INLINE V v_load_n_##NAME(const T *p, ptrdiff_t n, V fill)                                                   \
    {                                                                                                                  \
        const __m256i first = xent_first_##P(n);                                                                       \
        return (V)_mm256_blendv_##P(fill, _mm256_maskload_##P(p, first), (V)first);                                    \
    }                                                                                                                  \
    ALWAYS_INLINE V v_load_where_##NAME(const T *p, VM m) { return (V)_mm256_maskload_##P(p, (__m256i)m); }            \
    ALWAYS_INLINE V v_load_pieces_##NAME(const T *p, ptrdiff_t step)                                                   \
    {                                                                                                                  \
        const __m256 low = _mm256_castps128_ps256(_mm_loadu_ps((const float *)p));                                     \
        return (V)_mm256_insertf128_ps(low, _mm_loadu_ps((const float *)(p + step)), 1);                               \
    }                                                                                                                  \
    ALWAYS_INLINE void v_store_pieces_##NAME(T *p, ptrdiff_t step, V v)                                                \
    {                                                                                                                  \
        _mm_storeu_ps((float *)p, _mm256_castps256_ps128((__m256)v));                                                  \
        _mm_storeu_ps((float *)(p + step), _mm256_extractf128_ps((__m256)v, 1));                                       \
    }                                                                                                                  \
    ALWAYS_INLINE void v_stream_##NAME(T *p, V v) { _mm256_stream_##P(p, v); }                                         \
    ALWAYS_INLINE V v_mix_lo_##NAME(V a, V b) { return (V)_mm256_unpacklo_##P(a, b); }                                 \
    ALWAYS_INLINE V v_mix_hi_##NAME(V a, V b) { return (V)_mm256_unpackhi_##P(a, b); }
/* clang-format on */

XENT_WORDS(f32, float, vf32, vm32, ps)
XENT_WORDS(f64, double, vf64, vm64, pd)

/* The shuffles work within 16 bytes; a permutation of 8-byte quarters or 16-byte halves sets that right. */
/* clang-format off */
#define XENT_SHUFFLE_WORDS(NAME, V, P, EVENS, ODDS)                                                                    \
    ALWAYS_INLINE V xent_in_order_##NAME(V v) { return (V)_mm256_permute4x64_pd((__m256d)v, 0xD8); }                   \
    ALWAYS_INLINE V v_evens_##NAME(V a, V b) { return xent_in_order_##NAME((V)_mm256_shuffle_##P(a, b, EVENS)); }      \
    ALWAYS_INLINE V v_odds_##NAME(V a, V b) { return xent_in_order_##NAME((V)_mm256_shuffle_##P(a, b, ODDS)); }        \
    ALWAYS_INLINE V v_zip_lo_##NAME(V a, V b)                                                                          \
    {                                                                                                                  \
        return (V)_mm256_permute2f128_##P(_mm256_unpacklo_##P(a, b), _mm256_unpackhi_##P(a, b), 0x20);                 \
    }                                                                                                                  \
    ALWAYS_INLINE V v_zip_hi_##NAME(V a, V b)                                                                          \
    {                                                                                                                  \
        return (V)_mm256_permute2f128_##P(_mm256_unpacklo_##P(a, b), _mm256_unpackhi_##P(a, b), 0x31);                 \
    }
/* clang-format on */

XENT_SHUFFLE_WORDS(f32, vf32, ps, 0x88, 0xDD)
XENT_SHUFFLE_WORDS(f64, vf64, pd, 0x0, 0xF)

ALWAYS_INLINE vf64 v_widen_lo(vf32 v) { return (vf64)_mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
ALWAYS_INLINE vf64 v_widen_hi(vf32 v) { return (vf64)_mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
ALWAYS_INLINE vf32 v_narrow(vf64 lo, vf64 hi)
{
    return (vf32)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps(lo)), _mm256_cvtpd_ps(hi), 1);
}

/* The first n numbers in pieces of powers of two: a masked store takes some forty cycles on AMD's processors. */
ALWAYS_INLINE void v_store_n_f32(float *p, vf32 v, ptrdiff_t n)
{
    __m128 rest = _mm256_castps256_ps128((__m256)v);
    if (n & 4) {
        _mm_storeu_ps(p, rest);
        rest = _mm256_extractf128_ps((__m256)v, 1);
        p += 4;
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)p, rest);
        rest = _mm_movehl_ps(rest, rest);
        p += 2;
    }
    if (n & 1) _mm_store_ss(p, rest);
}

ALWAYS_INLINE void v_store_n_f64(double *p, vf64 v, ptrdiff_t n)
{
    __m128d rest = _mm256_castpd256_pd128((__m256d)v);
    if (n & 2) {
        _mm_storeu_pd(p, rest);
        rest = _mm256_extractf128_pd((__m256d)v, 1);
        p += 2;
    }
    if (n & 1) _mm_store_sd(p, rest);
}

ALWAYS_INLINE float v_reduce_max_f32(vf32 a)
{
    __m128 v = _mm_max_ps(_mm256_castps256_ps128((__m256)a), _mm256_extractf128_ps((__m256)a, 1));
    v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps(v, v, 1)));
}

ALWAYS_INLINE double v_reduce_max_f64(vf64 a)
{
    __m128d v = _mm_max_pd(_mm256_castpd256_pd128((__m256d)a), _mm256_extractf128_pd((__m256d)a, 1));
    return _mm_cvtsd_f64(_mm_max_sd(v, _mm_unpackhi_pd(v, v)));
}

ALWAYS_INLINE vf32 v_lookup(vf32 table, vi32 index)
{
    return (vf32)_mm256_permutevar_ps((__m256)table, (__m256i)index);
}

/* 16-bit floats (half.h) */
ALWAYS_INLINE vu32 xent_load_16(const uint16_t *p)
{
    return (vu32)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
}
ALWAYS_INLINE void xent_store_16(uint16_t *p, vu32 v)
{
    const __m256i packed = _mm256_packus_epi32((__m256i)v, (__m256i)v); /* within 128-bit halves */
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
}
ALWAYS_INLINE void xent_stream_16(uint16_t *p, vu16 v) { _mm_stream_si128((__m128i *)p, (__m128i)v); }
ALWAYS_INLINE vf32 v_load_f16(const uint16_t *p) { return (vf32)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
ALWAYS_INLINE void v_store_f16(uint16_t *p, vf32 v)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

#endif
