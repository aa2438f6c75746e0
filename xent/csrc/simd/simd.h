/* simd.h: the vector vocabulary. Every kernel is written once on these words and compiled once per instruction set;
 * intrinsics stand in this folder alone.
 *
 * Types    vf32 vi32 vm32   floats, their integers of equal width, and a mask of one truth value a lane; vu32: no sign
 *          vf64 vi64 vm64   the same for doubles
 * Words    v_load v_store                            a full vector
 *        * v_load_n v_store_n                        its first n lanes (the others read as `fill`)
 *        * v_load_where                              the lanes of a mask; the others are not read, and 0
 *          v_set v_iset                              the same number in every lane (set_f32 and so on)
 *        * v_stream                                  a full vector, past the caches where there is such a store: to a
 *                                                    place that is a multiple of its size; xent_streamed() comes after
 *        * v_fma                                     a * b + c; rounded once with XENT_FUSED
 *        * v_max v_min                               the second operand where a lane is NaN
 *          v_abs
 *          v_keep                                    in a register: a vector that is loaded once for several uses
 *       ** m_gt m_ge m_eq                            comparisons; false where a lane is NaN
 *        * m_any v_select                            whether a lane is true; choosing by comparisons
 *        * v_widen_lo v_widen_hi v_narrow            the two halves of a float vector as doubles, and back
 *        * v_load_pieces v_store_pieces              a vector as pieces of 16 bytes, `step` elements apart in memory
 *        * v_mix_lo v_mix_hi                         within each piece, a0 b0 a1 b1 ...: the first and the second half
 *          v_mix_pairs_lo v_mix_pairs_hi             the same for pairs of floats
 *        * v_evens v_odds                            a0 a2 ... b0 b2 ... and a1 a3 ... b1 b3 ...
 *        * v_zip_lo v_zip_hi                         back: a0 b0 a1 b1 ..., the first and the second half
 *          v_reduce_sum                              the lanes added up, the first first
 *        * v_reduce_max                              the largest lane
 *        * v_scale                                   a 2^floor(n), rounded once (only with XENT_SCALES)
 *        * v_before v_after                          where the mask is, the lane before or after; 0 (only with XENT_TURNS)
 *        * v_lookup                                  table[i % 4] by the integers of a vector (only with XENT_LOOKUP)
 *          v_load_bf16 v_store_bf16                  16-bit floats as floats, and back, rounded to even (half.h)
 *       ** v_load_f16 v_store_f16                    the same
 *       ** xent_load_n_16 xent_store_n_16            as v_load_n, of zeros, and v_store_n
 *        * xent_stream_16                            as v_stream, for as many 16-bit integers
 *        * xent_load_16 xent_store_16                16-bit integers as 32-bit ones without sign, and lower halves back
 *
 * An instruction set (avx512.h, avx2.h, vec128.h) must write the words marked * for floats and doubles; it may write
 * those marked **, the comparisons together with its mask types (XENT_OWN_MASKS), the conversions of float16 with
 * XENT_CONVERTS_F16, what takes a few 16-bit numbers with XENT_MASKS_16. All others are made here. Arithmetic and integer
 * operators are those of the compiler's vector extension: a + b, i << 23, and so on.
 */
#ifndef XENT_SIMD_H
#define XENT_SIMD_H

#include "base.h"

#include <stddef.h>
#include <stdint.h>

/* XENT_VBYTES: of a vector. XENT_FUSED: whether v_fma rounds once. XENT_LOOKUP: whether a table of four floats is an
 * instruction or a few. XENT_OWN_MASKS: whether masks are other types than integer vectors. XENT_CONVERTS_F16: whether float16
 * is converted by an instruction. XENT_MASKS_16: whether the first few of 16-bit numbers are loaded and stored by one.
 * XENT_SCALES: whether one multiplies by a power of two, be the product in the range or not.
 * XENT_TURNS: whether lanes move by one, under a mask, at once. */
#if defined(__AVX512F__)
#define XENT_MASKS_16 1
#define XENT_SCALES 1
#define XENT_TURNS 1
#define XENT_VBYTES 64
#define XENT_FUSED 1
#define XENT_LOOKUP 1
#define XENT_OWN_MASKS 1
#define XENT_CONVERTS_F16 1
#elif defined(__AVX2__)
#define XENT_VBYTES 32
#define XENT_FUSED 1
#define XENT_LOOKUP 1
#define XENT_OWN_MASKS 0
#define XENT_CONVERTS_F16 1
#else
#define XENT_VBYTES 16
#if defined(__aarch64__)
#define XENT_FUSED 1
#define XENT_LOOKUP 1
#define XENT_CONVERTS_F16 1
#else
#define XENT_FUSED 0
#define XENT_LOOKUP 0
#define XENT_CONVERTS_F16 0
#endif
#define XENT_OWN_MASKS 0
#endif
#ifndef XENT_SCALES
#define XENT_MASKS_16 0
#define XENT_SCALES 0
#define XENT_TURNS 0
#endif
#define LANES_F64 ((ptrdiff_t)(XENT_VBYTES / sizeof(double)))
#define XENT_WIDEST 64 /* bytes of the widest vector of all instruction sets */

typedef float vf32 __attribute__((vector_size(XENT_VBYTES)));
typedef int32_t vi32 __attribute__((vector_size(XENT_VBYTES)));
typedef double vf64 __attribute__((vector_size(XENT_VBYTES)));
typedef int64_t vi64 __attribute__((vector_size(XENT_VBYTES)));
typedef uint32_t vu32 __attribute__((vector_size(XENT_VBYTES)));
typedef uint64_t vu64 __attribute__((vector_size(XENT_VBYTES)));
typedef uint16_t vu16 __attribute__((vector_size(XENT_VBYTES / 2)));
typedef uint16_t vh16 __attribute__((vector_size(XENT_VBYTES))); /* a whole vector of 16-bit integers */
typedef int16_t vh16_signed __attribute__((vector_size(XENT_VBYTES)));
typedef vh16 vh16_unaligned __attribute__((aligned(2), may_alias));
typedef vu16 vu16_unaligned __attribute__((aligned(2), may_alias));

/* The words that the compiler's vector extension can say for both types in one way. NAME is f32 or f64. */
/* clang-format off */
#define XENT_COMMON_WORDS(NAME, T, I, V, VI)                                                                           \
    typedef V V##_unaligned __attribute__((aligned(sizeof(T)), may_alias));                                            \
    ALWAYS_INLINE V v_load_##NAME(const T *p) { return *(const V##_unaligned *)p; }                                    \
    ALWAYS_INLINE void v_store_##NAME(T *p, V v) { *(V##_unaligned *)p = v; }                                          \
    ALWAYS_INLINE V set_##NAME(T s) { return s - (V){0}; }                                                             \
    ALWAYS_INLINE VI iset_##NAME(I s) { return s - (VI){0}; }                                                          \
    ALWAYS_INLINE V v_abs_##NAME(V a) { return (V)((VI)a & ~iset_##NAME((I)((uint64_t)1 << (8 * sizeof(T) - 1)))); }   \
    ALWAYS_INLINE T v_reduce_sum_##NAME(V a)                                                                           \
    {                                                                                                                  \
        T s = a[0];                                                                                                    \
        for (size_t k = 1; k < XENT_VBYTES / sizeof(T); k++) s += a[k];                                                \
        return s;                                                                                                      \
    }
/* clang-format on */

XENT_COMMON_WORDS(f32, float, int32_t, vf32, vi32)
XENT_COMMON_WORDS(f64, double, int64_t, vf64, vi64)

#if !XENT_OWN_MASKS
typedef vi32 vm32;
typedef vi64 vm64;
/* clang-format off */
#define XENT_MASK_WORDS(NAME, V, VM)                                                                                   \
    ALWAYS_INLINE VM m_gt_##NAME(V a, V b) { return (VM)(a > b); }                                                     \
    ALWAYS_INLINE VM m_ge_##NAME(V a, V b) { return (VM)(a >= b); }                                                    \
    ALWAYS_INLINE VM m_eq_##NAME(V a, V b) { return (VM)(a == b); }                                                    \
    ALWAYS_INLINE VM v_count_##NAME(VM count, VM m) { return count - m; }
/* clang-format on */
XENT_MASK_WORDS(f32, vf32, vm32)
XENT_MASK_WORDS(f64, vf64, vm64)
ALWAYS_INLINE vh16 v_count_greater_h16(vh16 count, vh16 a, vh16 b)
{
    return count - (vh16)((vh16_signed)a > (vh16_signed)b);
}
ALWAYS_INLINE vh16 v_count_above_h16(vh16 count, vh16 a, vh16 b) { return count - (vh16)(a > b); }
#endif

ALWAYS_INLINE vh16 v_load_h16(const uint16_t *p) { return *(const vh16_unaligned *)p; }

#if defined(__AVX512F__)
#include "simd/avx512.h"
#elif defined(__AVX2__)
#include "simd/avx2.h"
#else
#include "simd/vec128.h"
#endif

#include "simd/half.h"

/* What was streamed is seen by other threads that see anything stored from here on. */
ALWAYS_INLINE void xent_streamed(void)
{
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

ALWAYS_INLINE vf32 v_mix_pairs_lo(vf32 a, vf32 b) { return (vf32)v_mix_lo_f64((vf64)a, (vf64)b); }
ALWAYS_INLINE vf32 v_mix_pairs_hi(vf32 a, vf32 b) { return (vf32)v_mix_hi_f64((vf64)a, (vf64)b); }

/* The same vector, of which the compiler does not know that it was just loaded: GCC reads the memory again for each use of
 * one, which takes two cycles where vectors are as long as a cache line and cross it. Shorter ones are read twice a cycle,
 * and 16 registers are few. */
#if defined(__AVX512F__)
#define v_keep(v) __asm__("" : "+v"(v))
#else
#define v_keep(v) (void)0
#endif

/* One spelling for both types. */
#define v_load(p)                                                                                                      \
    _Generic((p), const float *: v_load_f32, float *: v_load_f32, const double *: v_load_f64, double *: v_load_f64)(p)
#define v_load_n(p, n, fill) _Generic((fill), vf32: v_load_n_f32, vf64: v_load_n_f64)(p, n, fill)
#define v_load_where(p, m)                                                                                             \
    _Generic((p),                                                                                                      \
        const float *: v_load_where_f32,                                                                               \
        float *: v_load_where_f32,                                                                                     \
        const double *: v_load_where_f64,                                                                              \
        double *: v_load_where_f64)(p, m)
#define v_store(p, v) _Generic((v), vf32: v_store_f32, vf64: v_store_f64)(p, v)
#define v_store_n(p, v, n) _Generic((v), vf32: v_store_n_f32, vf64: v_store_n_f64)(p, v, n)
#define v_stream(p, v) _Generic((v), vf32: v_stream_f32, vf64: v_stream_f64)(p, v)
#define v_load_pieces(p, step)                                                                                         \
    _Generic((p),                                                                                                      \
        const float *: v_load_pieces_f32,                                                                              \
        float *: v_load_pieces_f32,                                                                                    \
        const double *: v_load_pieces_f64,                                                                             \
        double *: v_load_pieces_f64)(p, step)
#define v_store_pieces(p, step, v) _Generic((v), vf32: v_store_pieces_f32, vf64: v_store_pieces_f64)(p, step, v)
#define v_fma(a, b, c) _Generic((a), vf32: v_fma_f32, vf64: v_fma_f64)(a, b, c)
#define v_max(a, b) _Generic((a), vf32: v_max_f32, vf64: v_max_f64)(a, b)
#define v_min(a, b) _Generic((a), vf32: v_min_f32, vf64: v_min_f64)(a, b)
#define v_mix_lo(a, b) _Generic((a), vf32: v_mix_lo_f32, vf64: v_mix_lo_f64)(a, b)
#define v_mix_hi(a, b) _Generic((a), vf32: v_mix_hi_f32, vf64: v_mix_hi_f64)(a, b)
#define v_evens(a, b) _Generic((a), vf32: v_evens_f32, vf64: v_evens_f64)(a, b)
#if XENT_TURNS
#define v_before(a, m) _Generic((a), vf32: v_before_f32, vf64: v_before_f64)(a, m)
#define v_after(a, m) _Generic((a), vf32: v_after_f32, vf64: v_after_f64)(a, m)
#endif
#define v_odds(a, b) _Generic((a), vf32: v_odds_f32, vf64: v_odds_f64)(a, b)
#define v_zip_lo(a, b) _Generic((a), vf32: v_zip_lo_f32, vf64: v_zip_lo_f64)(a, b)
#define v_zip_hi(a, b) _Generic((a), vf32: v_zip_hi_f32, vf64: v_zip_hi_f64)(a, b)
#define v_abs(a) _Generic((a), vf32: v_abs_f32, vf64: v_abs_f64)(a)
#define v_reduce_sum(a) _Generic((a), vf32: v_reduce_sum_f32, vf64: v_reduce_sum_f64)(a)
#define v_reduce_max(a) _Generic((a), vf32: v_reduce_max_f32, vf64: v_reduce_max_f64)(a)
#define m_gt(a, b) _Generic((a), vf32: m_gt_f32, vf64: m_gt_f64)(a, b)
#define m_ge(a, b) _Generic((a), vf32: m_ge_f32, vf64: m_ge_f64)(a, b)
#define m_eq(a, b) _Generic((a), vf32: m_eq_f32, vf64: m_eq_f64)(a, b)
#define m_any(m) _Generic((m), vm32: m_any_f32, vm64: m_any_f64)(m)
#define v_select(m, a, b) _Generic((a), vf32: v_select_f32, vf64: v_select_f64)(m, a, b)

#endif
