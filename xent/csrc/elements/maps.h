/* maps.h: sigmoid and log-sigmoid of contiguous arrays.
 *
 * With e = exp(-|x|) <= 1 nothing overflows and nothing cancels:
 *   sigmoid(x)     = 1 / (1 + e) for x >= 0, e / (1 + e) for x < 0
 *   log sigmoid(x) = min(x, 0) - log1p(e)                              both terms <= 0
 */
#include "begin.h"
#include "simd/exp.h"
#include "simd/log.h"
#include "simd/stored.h"
#include "table.h"

#ifndef XENT_MAPS_H
#define XENT_MAPS_H

ALWAYS_INLINE V KERNEL(sigmoid_point)(V x)
{
    const V one = NAME(set)(1), zero = {0};
    const V e = NAME(exp)(-v_abs(x));
    return v_select(m_ge(x, zero), one, e) / (one + e);
}

ALWAYS_INLINE V KERNEL(log_sigmoid_point)(V x)
{
    const V zero = {0};
    return v_min(zero, x) - NAME(log1p_to_1)(NAME(exp)(-v_abs(x)));
}

/* out[i] = point(x[i]); `point` is a constant at every call and is inlined. */
ALWAYS_INLINE void KERNEL(map)(const S *x, S *out, ptrdiff_t size, V (*point)(V))
{
    const V zero = {0};
    for (ptrdiff_t i = 0; i < size; i += LANES)
        KERNEL(store)(out + i, point(KERNEL(load)(x + i, size - i, zero)), size - i);
}

#define MAP_KERNEL(name)                                                                                               \
    static void KERNEL(name)(const void *args, ptrdiff_t chunk, void *scratch)                                         \
    {                                                                                                                  \
        const xent_map_args *a = (const xent_map_args *)args;                                                          \
        const ptrdiff_t begin = chunk * a->chunk, size = xent_min(a->chunk, a->size - begin);                          \
        (void)scratch;                                                                                                 \
        KERNEL(map)((const S *)a->x + begin, (S *)a->out + begin, size, KERNEL(name##_point));                         \
    }
MAP_KERNEL(sigmoid)
MAP_KERNEL(log_sigmoid)

#ifndef STORED_AS_16 /* for the tests of exp.h and log.h */
static void NAME(exp_array)(const T *x, T *y, ptrdiff_t n) { KERNEL(map)(x, y, n, NAME(exp)); }
static void NAME(log_array)(const T *x, T *y, ptrdiff_t n) { KERNEL(map)(x, y, n, NAME(log)); }
static void NAME(log1p_array)(const T *x, T *y, ptrdiff_t n) { KERNEL(map)(x, y, n, NAME(log1p)); }
#endif

#endif
