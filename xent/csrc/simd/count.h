/* count.h: how many numbers in memory are larger than another. Written on the vector vocabulary. */
#include "begin.h"
#include "simd/stored.h"

#ifndef XENT_COUNT_H
#define XENT_COUNT_H

#ifdef STORED_AS_16
/* How many of n 16-bit floats, at most 2^19, are larger than t. Of floats that are not negative the bits are ordered as
 * signed integers, with all negative ones below them; of negative ones as integers without sign, the other way round,
 * with all others below. So nothing is converted. (NaN comes out anywhere.) */
#define SHORTS (XENT_VBYTES / (int)sizeof(S))
static ptrdiff_t KERNEL(count_larger)(const S *p, ptrdiff_t n, S t)
{
    const S bits = t == 0x8000 ? 0 : t; /* -0 is 0 */
    const int negative = bits >> 15;
    const vh16 threshold = bits - (vh16){0};
    vh16 counts[2] = {{0}, {0}};
    S rest[SHORTS];
    ptrdiff_t i = 0, count = 0;
    for (; i + 2 * SHORTS <= n; i += 2 * SHORTS)
        for (int k = 0; k < 2; k++) {
            const vh16 v = v_load_h16(p + i + k * SHORTS);
            counts[k] =
                negative ? v_count_above_h16(counts[k], threshold, v) : v_count_greater_h16(counts[k], v, threshold);
        }
    for (; i < n; i += SHORTS) {
        const ptrdiff_t size = xent_min(n - i, SHORTS);
        for (int k = 0; k < SHORTS; k++) rest[k] = bits;
        memcpy(rest, p + i, (size_t)size * sizeof(S));
        const vh16 v = v_load_h16(rest);
        counts[0] =
            negative ? v_count_above_h16(counts[0], threshold, v) : v_count_greater_h16(counts[0], v, threshold);
    }
    for (int k = 0; k < SHORTS; k++) count += (uint16_t)(counts[0][k] + counts[1][k]);
    return count;
}
#else
/* How many of n numbers, at most 2^31, are larger than t: NaN is not. */
static ptrdiff_t KERNEL(count_larger)(const S *p, ptrdiff_t n, S t)
{
    const V threshold = NAME(set)(t);
    VI counts[2] = {{0}, {0}};
    ptrdiff_t i = 0, count = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        for (int k = 0; k < 2; k++) counts[k] = NAME(v_count)(counts[k], m_gt(v_load(p + i + k * LANES), threshold));
    for (; i < n; i += LANES)
        counts[0] = NAME(v_count)(counts[0], m_gt(KERNEL(load)(p + i, n - i, threshold), threshold));
    for (int k = 0; k < LANES; k++) count += counts[0][k] + counts[1][k];
    return count;
}
#endif

#endif
