/* half.h: 16-bit floats in memory, computed with as floats: the words of the vector vocabulary (simd.h) that load and
 * store them. */
#include "simd/simd.h" /* which includes this file where it wants these words */

#ifndef XENT_HALF_H
#define XENT_HALF_H

#include <string.h>

ALWAYS_INLINE vu32 xent_choose(vu32 mask, vu32 a, vu32 b) { return (mask & a) | (~mask & b); }

#if !XENT_MASKS_16
/* The first n numbers, fewer than a vector has, in pieces of powers of two, and zeros. They are functions, as they are called
 * at the end of each line. */
static __attribute__((noinline, unused)) vu16 xent_load_n_16(const uint16_t *p, ptrdiff_t n)
{
    vu16 v = {0};
    ptrdiff_t k = 0;
    for (ptrdiff_t size = (ptrdiff_t)sizeof(v) / 4; size > 0; size /= 2)
        if (n & size) memcpy((uint16_t *)&v + k, p + k, (size_t)size * sizeof *p), k += size;
    return v;
}
static __attribute__((noinline, unused)) void xent_store_n_16(uint16_t *p, vu16 v, ptrdiff_t n)
{
    ptrdiff_t k = 0;
    for (ptrdiff_t size = (ptrdiff_t)sizeof(v) / 4; size > 0; size /= 2)
        if (n & size) memcpy(p + k, (const uint16_t *)&v + k, (size_t)size * sizeof *p), k += size;
}
#endif

/* bfloat16 is the upper half of a float. */
ALWAYS_INLINE vf32 v_load_bf16(const uint16_t *p) { return (vf32)(xent_load_16(p) << 16); }
ALWAYS_INLINE void v_store_bf16(uint16_t *p, vf32 v)
{
    const vu32 bits = (vu32)v;
    const vu32 rounded = bits + 0x7FFF + (bits >> 16 & 1);
    xent_store_16(p,
                  (vu32)v_select_f32(m_eq_f32(v, v), (vf32)rounded, (vf32)(bits | 0x400000)) >> 16); /* NaN stays NaN */
}

#if !XENT_CONVERTS_F16
/* The exponent of a half is 112 smaller than a float's: multiplying by 2^112 sets it right, for subnormal halves
 * too. */
ALWAYS_INLINE vf32 v_load_f16(const uint16_t *p)
{
    const vu32 half = xent_load_16(p), size = (half & 0x7FFF) << 13;
    const vu32 finite = (vu32)((vf32)size * set_f32(0x1p112f));
    return (vf32)(xent_choose((vu32)(size >= 0x7C00u << 13), size | 0x7F800000, finite) | (half & 0x8000) << 16);
}

ALWAYS_INLINE void v_store_f16(uint16_t *p, vf32 v)
{
    const vu32 bits = (vu32)v, size = bits & 0x7FFFFFFF;
    const vu32 normal = ((size + 0xFFF + (size >> 13 & 1)) >> 13) - (112 << 10);
    /* the last bit of 1/2 is that of a subnormal half: adding it rounds there */
    const vu32 subnormal = (vu32)((vf32)size + set_f32(0.5f)) - 0x3F000000;
    vu32 half = xent_choose((vu32)(size < 0x38800000u), subnormal, normal);    /* below 2^-14 */
    half = xent_choose((vu32)(size >= 0x477FF000u), (vu32){0} + 0x7C00, half); /* from 65520 on: infinity */
    half = xent_choose((vu32)(v != v), (vu32){0} + 0x7E00, half);
    xent_store_16(p, half | (bits >> 16 & 0x8000));
}
#endif

#endif
