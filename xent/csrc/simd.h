/* simd.h: the vector vocabulary. Every kernel is written once on these words and compiled once per instruction set;
 * this is the only file with intrinsics.
 *
 * Types    vf32 vi32 vm32   floats, their integers of equal width, and a mask with one truth value a lane
 *          vf64 vi64 vm64   the same for doubles
 * Words    v_load v_store v_load_n v_store_n         a full vector; its first n lanes (the others read as `fill`)
 *          v_fma v_max v_min v_abs                   max and min return the second operand where a lane is NaN
 *          m_gt m_ge m_eq m_any v_select             comparisons, and choosing by them
 *          v_widen_lo v_widen_hi v_narrow            the two halves of a float vector as doubles, and back
 *          v_load_pieces v_store_pieces              a vector as pieces of 16 bytes, `step` elements apart in memory
 *          v_mix_lo v_mix_hi                         within each piece, a0 b0 a1 b1 ...: the first and the second half
 *          v_mix_pairs_lo v_mix_pairs_hi             the same for pairs of floats
 *          v_evens v_odds                            a0 a2 ... b0 b2 ... and a1 a3 ... b1 b3 ...
 *          v_zip_lo v_zip_hi                         back: a0 b0 a1 b1 ..., the first and the second half
 *          v_sum v_top                               horizontal sum and maximum
 *          v_lookup                                  table[i % 4] by the integers of a vector (only with XENT_LOOKUP)
 *          v_load_f16 v_store_f16 (bf16)             16-bit floats as floats, and back, rounded to nearest even
 * Arithmetic and integer operators are those of the compiler's vector extension: a + b, i << 23, and so on.
 */
#ifndef XENT_SIMD_H
#define XENT_SIMD_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define XENT_VBYTES 64
#elif defined(__AVX2__)
#define XENT_VBYTES 32
#else
#define XENT_VBYTES 16
#endif

#if (defined(__AVX2__) && defined(__FMA__)) || defined(__aarch64__)
#define XENT_FUSED 1 /* v_fma rounds once */
#else
#define XENT_FUSED 0 /* v_fma rounds twice */
#endif

#if defined(__AVX2__)
#define XENT_LOOKUP 1 /* a table of four floats is one instruction */
#else
#define XENT_LOOKUP 0
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline, unused))

typedef float vf32 __attribute__((vector_size(XENT_VBYTES)));
typedef int32_t vi32 __attribute__((vector_size(XENT_VBYTES)));
typedef double vf64 __attribute__((vector_size(XENT_VBYTES)));
typedef int64_t vi64 __attribute__((vector_size(XENT_VBYTES)));
typedef uint32_t vu32 __attribute__((vector_size(XENT_VBYTES)));
typedef uint64_t vu64 __attribute__((vector_size(XENT_VBYTES)));

/* The words that the compiler's vector extension can say for both types in one way. NAME is f32 or f64. */
#define XENT_COMMON_WORDS(NAME, T, I, V, VI)                                                                             \
    typedef V V##_unaligned __attribute__((aligned(sizeof(T)), may_alias));                                              \
    ALWAYS_INLINE V v_load_##NAME(const T *p) { return *(const V##_unaligned *)p; }                                      \
    ALWAYS_INLINE void v_store_##NAME(T *p, V v) { *(V##_unaligned *)p = v; }                                            \
    ALWAYS_INLINE V v_set_##NAME(T s) { return s - (V){0}; }                                                             \
    ALWAYS_INLINE VI v_iset_##NAME(I s) { return s - (VI){0}; }                                                          \
    ALWAYS_INLINE V v_abs_##NAME(V a) { return (V)((VI)a & ~v_iset_##NAME((I)((uint64_t)1 << (8 * sizeof(T) - 1)))); }   \
    ALWAYS_INLINE T v_sum_##NAME(V a)                                                                                    \
    {                                                                                                                    \
        T s = a[0];                                                                                                      \
        for (size_t k = 1; k < XENT_VBYTES / sizeof(T); k++) s += a[k];                                                  \
        return s;                                                                                                        \
    }

XENT_COMMON_WORDS(f32, float, int32_t, vf32, vi32)
XENT_COMMON_WORDS(f64, double, int64_t, vf64, vi64)

#if defined(__AVX512F__) /* ------------------------------------------------------------------------- AVX-512 */

typedef __mmask16 vm32;
typedef __mmask8 vm64;
/* The mask types are plain integers of 16 and 8 bits, so words that take only masks can tell them apart. */
#define XENT_WORDS(NAME, T, V, VM, P)                                                                                    \
    ALWAYS_INLINE V v_fma_##NAME(V a, V b, V c) { return (V)_mm512_fmadd_##P(a, b, c); }                                 \
    ALWAYS_INLINE V v_max_##NAME(V a, V b) { return (V)_mm512_max_##P(a, b); }                                           \
    ALWAYS_INLINE V v_min_##NAME(V a, V b) { return (V)_mm512_min_##P(a, b); }                                           \
    ALWAYS_INLINE VM m_gt_##NAME(V a, V b) { return _mm512_cmp_##P##_mask(a, b, _CMP_GT_OQ); }                           \
    ALWAYS_INLINE VM m_ge_##NAME(V a, V b) { return _mm512_cmp_##P##_mask(a, b, _CMP_GE_OQ); }                           \
    ALWAYS_INLINE VM m_eq_##NAME(V a, V b) { return _mm512_cmp_##P##_mask(a, b, _CMP_EQ_OQ); }                           \
    ALWAYS_INLINE int m_any_##NAME(VM m) { return m != 0; }                                                              \
    ALWAYS_INLINE V v_select_##NAME(VM m, V a, V b) { return (V)_mm512_mask_blend_##P(m, b, a); }                        \
    ALWAYS_INLINE V v_load_n_##NAME(const T *p, ptrdiff_t n, V fill)                                                     \
    {                                                                                                                    \
        return (V)_mm512_mask_loadu_##P(fill, (VM)((1u << n) - 1), p);                                                   \
    }                                                                                                                    \
    ALWAYS_INLINE void v_store_n_##NAME(T *p, V v, ptrdiff_t n) { _mm512_mask_storeu_##P(p, (VM)((1u << n) - 1), v); }

XENT_WORDS(f32, float, vf32, vm32, ps)
XENT_WORDS(f64, double, vf64, vm64, pd)

ALWAYS_INLINE float v_top_f32(vf32 a) { return _mm512_reduce_max_ps((__m512)a); }
ALWAYS_INLINE double v_top_f64(vf64 a) { return _mm512_reduce_max_pd((__m512d)a); }

#define XENT_PIECE_WORDS(NAME, T, V, P)                                                                                  \
    ALWAYS_INLINE V v_load_pieces_##NAME(const T *p, ptrdiff_t step)                                                     \
    {                                                                                                                    \
        __m512 v = _mm512_castps128_ps512(_mm_loadu_ps((const float *)p));                                               \
        v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(p + step)), 1);                                           \
        v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(p + 2 * step)), 2);                                       \
        return (V)_mm512_insertf32x4(v, _mm_loadu_ps((const float *)(p + 3 * step)), 3);                                 \
    }                                                                                                                    \
    ALWAYS_INLINE void v_store_pieces_##NAME(T *p, ptrdiff_t step, V v)                                                  \
    {                                                                                                                    \
        _mm_storeu_ps((float *)p, _mm512_castps512_ps128((__m512)v));                                                    \
        _mm_storeu_ps((float *)(p + step), _mm512_extractf32x4_ps((__m512)v, 1));                                        \
        _mm_storeu_ps((float *)(p + 2 * step), _mm512_extractf32x4_ps((__m512)v, 2));                                    \
        _mm_storeu_ps((float *)(p + 3 * step), _mm512_extractf32x4_ps((__m512)v, 3));                                    \
    }                                                                                                                    \
    ALWAYS_INLINE V v_mix_lo_##NAME(V a, V b) { return (V)_mm512_unpacklo_##P(a, b); }                                   \
    ALWAYS_INLINE V v_mix_hi_##NAME(V a, V b) { return (V)_mm512_unpackhi_##P(a, b); }

XENT_PIECE_WORDS(f32, float, vf32, ps)
XENT_PIECE_WORDS(f64, double, vf64, pd)

/* Lanes of two vectors; those of the second are counted on from the N of the first. */
#define XENT_PICK_WORDS(NAME, V, VI, P, N, ...)                                                                          \
    static const VI xent_count_##NAME = {__VA_ARGS__};                                                                   \
    ALWAYS_INLINE V xent_pick_##NAME(V a, V b, VI lanes) { return (V)_mm512_permutex2var_##P(a, (__m512i)lanes, b); }    \
    ALWAYS_INLINE VI xent_zipped_##NAME(void) { return (xent_count_##NAME >> 1) + (xent_count_##NAME & 1) * N; }         \
    ALWAYS_INLINE V v_evens_##NAME(V a, V b) { return xent_pick_##NAME(a, b, 2 * xent_count_##NAME); }                   \
    ALWAYS_INLINE V v_odds_##NAME(V a, V b) { return xent_pick_##NAME(a, b, 2 * xent_count_##NAME + 1); }                \
    ALWAYS_INLINE V v_zip_lo_##NAME(V a, V b) { return xent_pick_##NAME(a, b, xent_zipped_##NAME()); }                   \
    ALWAYS_INLINE V v_zip_hi_##NAME(V a, V b) { return xent_pick_##NAME(a, b, xent_zipped_##NAME() + N / 2); }

XENT_PICK_WORDS(f32, vf32, vi32, ps, 16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
XENT_PICK_WORDS(f64, vf64, vi64, pd, 8, 0, 1, 2, 3, 4, 5, 6, 7)

ALWAYS_INLINE vf64 v_widen_lo(vf32 v) { return (vf64)_mm512_cvtps_pd(_mm512_castps512_ps256(v)); }
ALWAYS_INLINE vf64 v_widen_hi(vf32 v) { return (vf64)_mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1)); }
ALWAYS_INLINE vf32 v_narrow(vf64 lo, vf64 hi)
{
    return (vf32)_mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(lo)), _mm512_cvtpd_ps(hi), 1);
}

#else /* ------------------------------------------------------ masks are integer vectors everywhere else */

typedef vi32 vm32;
typedef vi64 vm64;
#define XENT_MASK_WORDS(NAME, V, VM)                                                                                     \
    ALWAYS_INLINE VM m_gt_##NAME(V a, V b) { return (VM)(a > b); }                                                       \
    ALWAYS_INLINE VM m_ge_##NAME(V a, V b) { return (VM)(a >= b); }                                                      \
    ALWAYS_INLINE VM m_eq_##NAME(V a, V b) { return (VM)(a == b); }
XENT_MASK_WORDS(f32, vf32, vm32)
XENT_MASK_WORDS(f64, vf64, vm64)

#if defined(__AVX2__) /* ------------------------------------------------------------------------ AVX2 + FMA */

/* A window of ones that slides over zeros: reading it at 8 - n gives n lanes of ones. */
static const int32_t xent_ones_then_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
static const int64_t xent_ones_then_zeros_64[8] = {-1, -1, -1, -1};
ALWAYS_INLINE __m256i xent_first_ps(ptrdiff_t n) { return _mm256_loadu_si256((const __m256i *)(xent_ones_then_zeros + 8 - n)); }
ALWAYS_INLINE __m256i xent_first_pd(ptrdiff_t n) { return _mm256_loadu_si256((const __m256i *)(xent_ones_then_zeros_64 + 4 - n)); }

#define XENT_WORDS(NAME, T, V, VM, P)                                                                                    \
    ALWAYS_INLINE V v_fma_##NAME(V a, V b, V c) { return (V)_mm256_fmadd_##P(a, b, c); }                                 \
    ALWAYS_INLINE V v_max_##NAME(V a, V b) { return (V)_mm256_max_##P(a, b); }                                           \
    ALWAYS_INLINE V v_min_##NAME(V a, V b) { return (V)_mm256_min_##P(a, b); }                                           \
    ALWAYS_INLINE int m_any_##NAME(VM m) { return !_mm256_testz_si256((__m256i)m, (__m256i)m); }                         \
    ALWAYS_INLINE V v_select_##NAME(VM m, V a, V b) { return (V)_mm256_blendv_##P(b, a, (V)m); }                         \
    ALWAYS_INLINE V v_load_n_##NAME(const T *p, ptrdiff_t n, V fill)                                                     \
    {                                                                                                                    \
        const __m256i first = xent_first_##P(n);                                                                         \
        return (V)_mm256_blendv_##P(fill, _mm256_maskload_##P(p, first), (V)first);                                      \
    }                                                                                                                    \
    ALWAYS_INLINE V v_load_pieces_##NAME(const T *p, ptrdiff_t step)                                                     \
    {                                                                                                                    \
        const __m256 low = _mm256_castps128_ps256(_mm_loadu_ps((const float *)p));                                       \
        return (V)_mm256_insertf128_ps(low, _mm_loadu_ps((const float *)(p + step)), 1);                                 \
    }                                                                                                                    \
    ALWAYS_INLINE void v_store_pieces_##NAME(T *p, ptrdiff_t step, V v)                                                  \
    {                                                                                                                    \
        _mm_storeu_ps((float *)p, _mm256_castps256_ps128((__m256)v));                                                    \
        _mm_storeu_ps((float *)(p + step), _mm256_extractf128_ps((__m256)v, 1));                                         \
    }                                                                                                                    \
    ALWAYS_INLINE V v_mix_lo_##NAME(V a, V b) { return (V)_mm256_unpacklo_##P(a, b); }                                   \
    ALWAYS_INLINE V v_mix_hi_##NAME(V a, V b) { return (V)_mm256_unpackhi_##P(a, b); }

XENT_WORDS(f32, float, vf32, vm32, ps)
XENT_WORDS(f64, double, vf64, vm64, pd)

/* The shuffles work within 16 bytes; a permutation of 8-byte quarters or 16-byte halves sets that right. */
#define XENT_SHUFFLE_WORDS(NAME, V, P, EVENS, ODDS)                                                                      \
    ALWAYS_INLINE V xent_in_order_##NAME(V v) { return (V)_mm256_permute4x64_pd((__m256d)v, 0xD8); }                     \
    ALWAYS_INLINE V v_evens_##NAME(V a, V b) { return xent_in_order_##NAME((V)_mm256_shuffle_##P(a, b, EVENS)); }        \
    ALWAYS_INLINE V v_odds_##NAME(V a, V b) { return xent_in_order_##NAME((V)_mm256_shuffle_##P(a, b, ODDS)); }          \
    ALWAYS_INLINE V v_zip_lo_##NAME(V a, V b)                                                                            \
    {                                                                                                                    \
        return (V)_mm256_permute2f128_##P(_mm256_unpacklo_##P(a, b), _mm256_unpackhi_##P(a, b), 0x20);                   \
    }                                                                                                                    \
    ALWAYS_INLINE V v_zip_hi_##NAME(V a, V b)                                                                            \
    {                                                                                                                    \
        return (V)_mm256_permute2f128_##P(_mm256_unpacklo_##P(a, b), _mm256_unpackhi_##P(a, b), 0x31);                   \
    }

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

ALWAYS_INLINE float v_top_f32(vf32 a)
{
    __m128 v = _mm_max_ps(_mm256_castps256_ps128((__m256)a), _mm256_extractf128_ps((__m256)a, 1));
    v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps(v, v, 1)));
}

ALWAYS_INLINE double v_top_f64(vf64 a)
{
    __m128d v = _mm_max_pd(_mm256_castpd256_pd128((__m256d)a), _mm256_extractf128_pd((__m256d)a, 1));
    return _mm_cvtsd_f64(_mm_max_sd(v, _mm_unpackhi_pd(v, v)));
}

#else /* -------------------------------------------------- 16-byte vectors: SSE2, NEON, or any other machine */

#define XENT_WORDS(NAME, T, V, VM)                                                                                       \
    ALWAYS_INLINE V v_select_##NAME(VM m, V a, V b) { return (V)((m & (VM)a) | (~m & (VM)b)); }                          \
    ALWAYS_INLINE V v_load_n_##NAME(const T *p, ptrdiff_t n, V fill)                                                     \
    {                                                                                                                    \
        for (ptrdiff_t k = 0; k < n; k++) fill[k] = p[k];                                                                \
        return fill;                                                                                                     \
    }                                                                                                                    \
    ALWAYS_INLINE void v_store_n_##NAME(T *p, V v, ptrdiff_t n)                                                          \
    {                                                                                                                    \
        for (ptrdiff_t k = 0; k < n; k++) p[k] = v[k];                                                                   \
    }                                                                                                                    \
    ALWAYS_INLINE int m_any_##NAME(VM m)                                                                                 \
    {                                                                                                                    \
        const vi64 w = (vi64)m;                                                                                          \
        return (w[0] | w[1]) != 0;                                                                                       \
    }                                                                                                                    \
    ALWAYS_INLINE T v_top_##NAME(V a)                                                                                    \
    {                                                                                                                    \
        T s = a[0];                                                                                                      \
        for (size_t k = 1; k < XENT_VBYTES / sizeof(T); k++) s = a[k] > s ? a[k] : s;                                    \
        return s;                                                                                                        \
    }                                                                                                                    \
    /* a vector is one piece */                                                                                          \
    ALWAYS_INLINE V v_load_pieces_##NAME(const T *p, ptrdiff_t step) { return (void)step, v_load_##NAME(p); }            \
    ALWAYS_INLINE void v_store_pieces_##NAME(T *p, ptrdiff_t step, V v) { (void)step, v_store_##NAME(p, v); }
XENT_WORDS(f32, float, vf32, vm32)
XENT_WORDS(f64, double, vf64, vm64)

#if defined(__SSE2__)
ALWAYS_INLINE vf32 v_fma_f32(vf32 a, vf32 b, vf32 c) { return a * b + c; }
ALWAYS_INLINE vf64 v_fma_f64(vf64 a, vf64 b, vf64 c) { return a * b + c; }
ALWAYS_INLINE vf32 v_max_f32(vf32 a, vf32 b) { return (vf32)_mm_max_ps(a, b); }
ALWAYS_INLINE vf64 v_max_f64(vf64 a, vf64 b) { return (vf64)_mm_max_pd(a, b); }
ALWAYS_INLINE vf32 v_min_f32(vf32 a, vf32 b) { return (vf32)_mm_min_ps(a, b); }
ALWAYS_INLINE vf64 v_min_f64(vf64 a, vf64 b) { return (vf64)_mm_min_pd(a, b); }
#else
ALWAYS_INLINE vf32 v_max_f32(vf32 a, vf32 b) { return v_select_f32(m_gt_f32(a, b), a, b); }
ALWAYS_INLINE vf64 v_max_f64(vf64 a, vf64 b) { return v_select_f64(m_gt_f64(a, b), a, b); }
ALWAYS_INLINE vf32 v_min_f32(vf32 a, vf32 b) { return v_select_f32(m_gt_f32(b, a), a, b); }
ALWAYS_INLINE vf64 v_min_f64(vf64 a, vf64 b) { return v_select_f64(m_gt_f64(b, a), a, b); }
#if defined(__aarch64__)
ALWAYS_INLINE vf32 v_fma_f32(vf32 a, vf32 b, vf32 c) { return (vf32)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
ALWAYS_INLINE vf64 v_fma_f64(vf64 a, vf64 b, vf64 c) { return (vf64)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b); }
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
/* In intrinsics where there are some: with optimisation, GCC 12 makes a wrong sum of b - v_widen_hi(v_narrow(a, b)) written plainly. */
#if defined(__SSE2__)
ALWAYS_INLINE vf64 v_widen_lo(vf32 v) { return (vf64)_mm_cvtps_pd((__m128)v); }
ALWAYS_INLINE vf64 v_widen_hi(vf32 v) { return (vf64)_mm_cvtps_pd(_mm_movehl_ps((__m128)v, (__m128)v)); }
ALWAYS_INLINE vf32 v_narrow(vf64 lo, vf64 hi) { return (vf32)_mm_movelh_ps(_mm_cvtpd_ps((__m128d)lo), _mm_cvtpd_ps((__m128d)hi)); }
#elif defined(__aarch64__)
ALWAYS_INLINE vf64 v_widen_lo(vf32 v) { return (vf64)vcvt_f64_f32(vget_low_f32((float32x4_t)v)); }
ALWAYS_INLINE vf64 v_widen_hi(vf32 v) { return (vf64)vcvt_high_f64_f32((float32x4_t)v); }
ALWAYS_INLINE vf32 v_narrow(vf64 lo, vf64 hi) { return (vf32)vcvt_high_f32_f64(vcvt_f32_f64((float64x2_t)lo), (float64x2_t)hi); }
#else
ALWAYS_INLINE vf64 v_widen_lo(vf32 v) { return (vf64){v[0], v[1]}; }
ALWAYS_INLINE vf64 v_widen_hi(vf32 v) { return (vf64){v[2], v[3]}; }
ALWAYS_INLINE vf32 v_narrow(vf64 lo, vf64 hi) { return (vf32){(float)lo[0], (float)lo[1], (float)hi[0], (float)hi[1]}; }
#endif

#endif
#endif

#if defined(__AVX512F__) /* the table is repeated in each 16 bytes */
ALWAYS_INLINE vf32 v_lookup(vf32 table, vi32 index) { return (vf32)_mm512_permutevar_ps((__m512)table, (__m512i)index); }
#elif defined(__AVX2__)
ALWAYS_INLINE vf32 v_lookup(vf32 table, vi32 index) { return (vf32)_mm256_permutevar_ps((__m256)table, (__m256i)index); }
#endif

ALWAYS_INLINE vf32 v_mix_pairs_lo(vf32 a, vf32 b) { return (vf32)v_mix_lo_f64((vf64)a, (vf64)b); }
ALWAYS_INLINE vf32 v_mix_pairs_hi(vf32 a, vf32 b) { return (vf32)v_mix_hi_f64((vf64)a, (vf64)b); }

/* ---- 16-bit floats, computed with as floats --------------------------------------------------------------------------- */

typedef uint16_t vu16 __attribute__((vector_size(XENT_VBYTES / 2)));
typedef vu16 vu16_unaligned __attribute__((aligned(2), may_alias));
#if defined(__AVX512F__)
ALWAYS_INLINE vu32 xent_load_16(const uint16_t *p) { return (vu32)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)); }
ALWAYS_INLINE void xent_store_16(uint16_t *p, vu32 v) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16((__m512i)v)); }
#elif defined(__AVX2__)
ALWAYS_INLINE vu32 xent_load_16(const uint16_t *p) { return (vu32)_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)); }
ALWAYS_INLINE void xent_store_16(uint16_t *p, vu32 v)
{
    const __m256i packed = _mm256_packus_epi32((__m256i)v, (__m256i)v); /* within 128-bit halves */
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
}
#else
ALWAYS_INLINE vu32 xent_load_16(const uint16_t *p) { return __builtin_convertvector(*(const vu16_unaligned *)p, vu32); }
ALWAYS_INLINE void xent_store_16(uint16_t *p, vu32 v) { *(vu16_unaligned *)p = __builtin_convertvector(v, vu16); }
#endif
ALWAYS_INLINE vu32 xent_choose(vu32 mask, vu32 a, vu32 b) { return (mask & a) | (~mask & b); }

/* bfloat16 is the upper half of a float. */
ALWAYS_INLINE vf32 v_load_bf16(const uint16_t *p) { return (vf32)(xent_load_16(p) << 16); }
ALWAYS_INLINE void v_store_bf16(uint16_t *p, vf32 v)
{
    const vu32 bits = (vu32)v;
    const vu32 rounded = bits + 0x7FFF + (bits >> 16 & 1);
    xent_store_16(p, (vu32)v_select_f32(m_eq_f32(v, v), (vf32)rounded, (vf32)(bits | 0x400000)) >> 16); /* NaN stays NaN */
}

#if defined(__AVX512F__)
ALWAYS_INLINE vf32 v_load_f16(const uint16_t *p) { return (vf32)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
ALWAYS_INLINE void v_store_f16(uint16_t *p, vf32 v)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#elif defined(__F16C__)
ALWAYS_INLINE vf32 v_load_f16(const uint16_t *p) { return (vf32)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
ALWAYS_INLINE void v_store_f16(uint16_t *p, vf32 v)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#elif defined(__aarch64__)
ALWAYS_INLINE vf32 v_load_f16(const uint16_t *p) { return (vf32)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
ALWAYS_INLINE void v_store_f16(uint16_t *p, vf32 v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v))); }
#else
/* The exponent of a half is 112 smaller than a float's: multiplying by 2^112 sets it right, for subnormal halves too. */
ALWAYS_INLINE vf32 v_load_f16(const uint16_t *p)
{
    const vu32 half = xent_load_16(p), size = (half & 0x7FFF) << 13;
    const vu32 finite = (vu32)((vf32)size * v_set_f32(0x1p112f));
    return (vf32)(xent_choose((vu32)(size >= 0x7C00u << 13), size | 0x7F800000, finite) | (half & 0x8000) << 16);
}

ALWAYS_INLINE void v_store_f16(uint16_t *p, vf32 v)
{
    const vu32 bits = (vu32)v, size = bits & 0x7FFFFFFF;
    const vu32 normal = ((size + 0xFFF + (size >> 13 & 1)) >> 13) - (112 << 10);
    /* the last bit of 1/2 is that of a subnormal half: adding it rounds there */
    const vu32 subnormal = (vu32)((vf32)size + v_set_f32(0.5f)) - 0x3F000000;
    vu32 half = xent_choose((vu32)(size < 0x38800000u), subnormal, normal);  /* below 2^-14 */
    half = xent_choose((vu32)(size >= 0x477FF000u), (vu32){0} + 0x7C00, half); /* from 65520 on: infinity */
    half = xent_choose((vu32)(v != v), (vu32){0} + 0x7E00, half);
    xent_store_16(p, half | (bits >> 16 & 0x8000));
}
#endif

/* One spelling for both types. */
#define v_load(p) _Generic((p), const float *: v_load_f32, float *: v_load_f32, const double *: v_load_f64, double *: v_load_f64)(p)
#define v_load_n(p, n, fill) _Generic((fill), vf32: v_load_n_f32, vf64: v_load_n_f64)(p, n, fill)
#define v_store(p, v) _Generic((v), vf32: v_store_f32, vf64: v_store_f64)(p, v)
#define v_store_n(p, v, n) _Generic((v), vf32: v_store_n_f32, vf64: v_store_n_f64)(p, v, n)
#define v_load_pieces(p, step) \
    _Generic((p), const float *: v_load_pieces_f32, float *: v_load_pieces_f32, const double *: v_load_pieces_f64, double *: v_load_pieces_f64)(p, step)
#define v_store_pieces(p, step, v) _Generic((v), vf32: v_store_pieces_f32, vf64: v_store_pieces_f64)(p, step, v)
#define v_fma(a, b, c) _Generic((a), vf32: v_fma_f32, vf64: v_fma_f64)(a, b, c)
#define v_max(a, b) _Generic((a), vf32: v_max_f32, vf64: v_max_f64)(a, b)
#define v_min(a, b) _Generic((a), vf32: v_min_f32, vf64: v_min_f64)(a, b)
#define v_mix_lo(a, b) _Generic((a), vf32: v_mix_lo_f32, vf64: v_mix_lo_f64)(a, b)
#define v_mix_hi(a, b) _Generic((a), vf32: v_mix_hi_f32, vf64: v_mix_hi_f64)(a, b)
#define v_evens(a, b) _Generic((a), vf32: v_evens_f32, vf64: v_evens_f64)(a, b)
#define v_odds(a, b) _Generic((a), vf32: v_odds_f32, vf64: v_odds_f64)(a, b)
#define v_zip_lo(a, b) _Generic((a), vf32: v_zip_lo_f32, vf64: v_zip_lo_f64)(a, b)
#define v_zip_hi(a, b) _Generic((a), vf32: v_zip_hi_f32, vf64: v_zip_hi_f64)(a, b)
#define v_abs(a) _Generic((a), vf32: v_abs_f32, vf64: v_abs_f64)(a)
#define v_sum(a) _Generic((a), vf32: v_sum_f32, vf64: v_sum_f64)(a)
#define v_top(a) _Generic((a), vf32: v_top_f32, vf64: v_top_f64)(a)
#define m_gt(a, b) _Generic((a), vf32: m_gt_f32, vf64: m_gt_f64)(a, b)
#define m_ge(a, b) _Generic((a), vf32: m_ge_f32, vf64: m_ge_f64)(a, b)
#define m_eq(a, b) _Generic((a), vf32: m_eq_f32, vf64: m_eq_f64)(a, b)
#define m_any(m) _Generic((m), vm32: m_any_f32, vm64: m_any_f64)(m)
#define v_select(m, a, b) _Generic((a), vf32: v_select_f32, vf64: v_select_f64)(m, a, b)

#endif
