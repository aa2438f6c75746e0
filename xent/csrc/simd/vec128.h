/* vec128.h: the words of the vector vocabulary (simd.h) in 16 bytes: SSE2, NEON, or any other machine through the
 * compiler's vector extension. */
#include "simd/simd.h" /* which includes this file where it wants these words */

#ifndef XENT_VEC128_H
#define XENT_VEC128_H

#if !defined(__GNUC__) || defined(__AVX2__)
#error "vec128.h needs the vector extension of GCC and Clang, and a compiler that may not use AVX2, which has avx2.h"
#endif

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/* clang-format off */
#define XENT_WORDS(NAME, T, V, VM)                                                                                     \
    ALWAYS_INLINE V v_select_##NAME(VM m, V a, V b) { return (V)((m & (VM)a) | (~m & (VM)b)); }                        \
    ALWAYS_INLINE V v_load_n_##NAME(const T *p, ptrdiff_t n, V fill)                                                   \
    {                                                                                                                  \
        for (ptrdiff_t k = 0; k < n; k++) fill[k] = p[k];                                                              \
        return fill;                                                                                                   \
    }                                                                                                                  \
    ALWAYS_INLINE V v_load_where_##NAME(const T *p, VM m)                                                              \
    {                                                                                                                  \
        V v = {0};                                                                                                     \
        for (size_t k = 0; k < XENT_VBYTES / sizeof(T); k++)                                                           \
            if (m[k]) v[k] = p[k];                                                                                     \
        return v;                                                                                                      \
    }                                                                                                                  \
    ALWAYS_INLINE void v_store_n_##NAME(T *p, V v, ptrdiff_t n)                                                        \
    {                                                                                                                  \
        for (ptrdiff_t k = 0; k < n; k++) p[k] = v[k];                                                                 \
    }                                                                                                                  \
    ALWAYS_INLINE int m_any_##NAME(VM m)                                                                               \
    {                                                                                                                  \
        const vi64 w = (vi64)m;                                                                                        \
        return (w[0] | w[1]) != 0;                                                                                     \
    }                                                                                                                  \
    ALWAYS_INLINE T v_reduce_max_##NAME(V a)                                                                           \
    {                                                                                                                  \
        T s = a[0];                                                                                                    \
        for (size_t k = 1; k < XENT_VBYTES / sizeof(T); k++) s = a[k] > s ? a[k] : s;                                  \
        return s;                                                                                                      \
    }                                                                                                                  \
    /* a vector is one piece */                                                                                        \
    ALWAYS_INLINE V v_load_pieces_##NAME(const T *p, ptrdiff_t step) { return (void)step, v_load_##NAME(p); }          \
    ALWAYS_INLINE void v_store_pieces_##NAME(T *p, ptrdiff_t step, V v) { (void)step, v_store_##NAME(p, v); }
/* clang-format on */
XENT_WORDS(f32, float, vf32, vm32)
XENT_WORDS(f64, double, vf64, vm64)

#if defined(__SSE2__)
ALWAYS_INLINE vf32 v_fma_f32(vf32 a, vf32 b, vf32 c) { return a * b + c; }
ALWAYS_INLINE vf64 v_fma_f64(vf64 a, vf64 b, vf64 c) { return a * b + c; }
ALWAYS_INLINE vf32 v_max_f32(vf32 a, vf32 b) { return (vf32)_mm_max_ps(a, b); }
ALWAYS_INLINE vf64 v_max_f64(vf64 a, vf64 b) { return (vf64)_mm_max_pd(a, b); }
ALWAYS_INLINE vf32 v_min_f32(vf32 a, vf32 b) { return (vf32)_mm_min_ps(a, b); }
ALWAYS_INLINE vf64 v_min_f64(vf64 a, vf64 b) { return (vf64)_mm_min_pd(a, b); }
ALWAYS_INLINE void v_stream_f32(float *p, vf32 v) { _mm_stream_ps(p, v); }
ALWAYS_INLINE void v_stream_f64(double *p, vf64 v) { _mm_stream_pd(p, v); }
#else
/* No such store is known to C there: an ordinary one. */
ALWAYS_INLINE void v_stream_f32(float *p, vf32 v) { v_store_f32(p, v); }
ALWAYS_INLINE void v_stream_f64(double *p, vf64 v) { v_store_f64(p, v); }
ALWAYS_INLINE vf32 v_max_f32(vf32 a, vf32 b) { return v_select_f32(m_gt_f32(a, b), a, b); }
ALWAYS_INLINE vf64 v_max_f64(vf64 a, vf64 b) { return v_select_f64(m_gt_f64(a, b), a, b); }
ALWAYS_INLINE vf32 v_min_f32(vf32 a, vf32 b) { return v_select_f32(m_gt_f32(b, a), a, b); }
ALWAYS_INLINE vf64 v_min_f64(vf64 a, vf64 b) { return v_select_f64(m_gt_f64(b, a), a, b); }
#if defined(__aarch64__)
ALWAYS_INLINE vf32 v_fma_f32(vf32 a, vf32 b, vf32 c)
{
    return (vf32)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
ALWAYS_INLINE vf64 v_fma_f64(vf64 a, vf64 b, vf64 c)
{
    return (vf64)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
#else
ALWAYS_INLINE vf32 v_fma_f32(vf32 a, vf32 b, vf32 c) { return a * b + c; }
ALWAYS_INLINE vf64 v_fma_f64(vf64 a, vf64 b, vf64 c) { return a * b + c; }
#endif
#endif

ALWAYS_INLINE vf32 v_mix_lo_f32(vf32 a, vf32 b) { return (vf32){a[0], b[0], a[1], b[1]}; }
ALWAYS_INLINE vf32 v_mix_hi_f32(vf32 a, vf32 b) { return (vf32){a[2], b[2], a[3], b[3]}; }
ALWAYS_INLINE vf64 v_mix_lo_f64(vf64 a, vf64 b) { return (vf64){a[0], b[0]}; }
ALWAYS_INLINE vf64 v_mix_hi_f64(vf64 a, vf64 b) { return (vf64){a[1], b[1]}; }
ALWAYS_INLINE vf32 v_evens_f32(vf32 a, vf32 b) { return (vf32){a[0], a[2], b[0], b[2]}; }
ALWAYS_INLINE vf32 v_odds_f32(vf32 a, vf32 b) { return (vf32){a[1], a[3], b[1], b[3]}; }
ALWAYS_INLINE vf64 v_evens_f64(vf64 a, vf64 b) { return (vf64){a[0], b[0]}; }
ALWAYS_INLINE vf64 v_odds_f64(vf64 a, vf64 b) { return (vf64){a[1], b[1]}; }
ALWAYS_INLINE vf32 v_zip_lo_f32(vf32 a, vf32 b) { return v_mix_lo_f32(a, b); }
ALWAYS_INLINE vf32 v_zip_hi_f32(vf32 a, vf32 b) { return v_mix_hi_f32(a, b); }
ALWAYS_INLINE vf64 v_zip_lo_f64(vf64 a, vf64 b) { return v_mix_lo_f64(a, b); }
ALWAYS_INLINE vf64 v_zip_hi_f64(vf64 a, vf64 b) { return v_mix_hi_f64(a, b); }
/* In intrinsics where there are some: with optimisation, GCC 12 makes a wrong sum of b - v_widen_hi(v_narrow(a, b))
 * written plainly. */
#if defined(__SSE2__)
ALWAYS_INLINE vf64 v_widen_lo(vf32 v) { return (vf64)_mm_cvtps_pd((__m128)v); }
ALWAYS_INLINE vf64 v_widen_hi(vf32 v) { return (vf64)_mm_cvtps_pd(_mm_movehl_ps((__m128)v, (__m128)v)); }
ALWAYS_INLINE vf32 v_narrow(vf64 lo, vf64 hi)
{
    return (vf32)_mm_movelh_ps(_mm_cvtpd_ps((__m128d)lo), _mm_cvtpd_ps((__m128d)hi));
}
#elif defined(__aarch64__)
ALWAYS_INLINE vf64 v_widen_lo(vf32 v) { return (vf64)vcvt_f64_f32(vget_low_f32((float32x4_t)v)); }
ALWAYS_INLINE vf64 v_widen_hi(vf32 v) { return (vf64)vcvt_high_f64_f32((float32x4_t)v); }
ALWAYS_INLINE vf32 v_narrow(vf64 lo, vf64 hi)
{
    return (vf32)vcvt_high_f32_f64(vcvt_f32_f64((float64x2_t)lo), (float64x2_t)hi);
}
/* By the bytes of the table: those of float i are 4 i to 4 i + 3. */
ALWAYS_INLINE vf32 v_lookup(vf32 table, vi32 index)
{
    const vi32 bytes = (index & 3) * 0x04040404 + 0x03020100;
    return (vf32)vqtbl1q_u8((uint8x16_t)table, (uint8x16_t)bytes);
}
#else
ALWAYS_INLINE vf64 v_widen_lo(vf32 v) { return (vf64){v[0], v[1]}; }
ALWAYS_INLINE vf64 v_widen_hi(vf32 v) { return (vf64){v[2], v[3]}; }
ALWAYS_INLINE vf32 v_narrow(vf64 lo, vf64 hi) { return (vf32){(float)lo[0], (float)lo[1], (float)hi[0], (float)hi[1]}; }
#endif

/* 16-bit floats (half.h) */
ALWAYS_INLINE vu32 xent_load_16(const uint16_t *p) { return __builtin_convertvector(*(const vu16_unaligned *)p, vu32); }
ALWAYS_INLINE void xent_store_16(uint16_t *p, vu32 v) { *(vu16_unaligned *)p = __builtin_convertvector(v, vu16); }
#if defined(__aarch64__)
ALWAYS_INLINE vf32 v_load_f16(const uint16_t *p) { return (vf32)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
ALWAYS_INLINE void v_store_f16(uint16_t *p, vf32 v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v))); }
#endif

/* Eight bytes: an ordinary store. */
ALWAYS_INLINE void xent_stream_16(uint16_t *p, vu16 v) { *(vu16_unaligned *)p = v; }

#endif
