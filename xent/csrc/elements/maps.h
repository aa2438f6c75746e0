/* maps.h: sigmoid and log-sigmoid of contiguous arrays, the products of their derivatives with a gradient g, and arrays in
 * other types.
 *
 * With e = exp(-|x|) <= 1 nothing overflows and nothing cancels:
 *   sigmoid(x)     = 1 / (1 + e) for x >= 0, e / (1 + e) for x < 0
 *   log sigmoid(x) = min(x, 0) - log1p(e)                              both terms <= 0
 *
 * By their results y, in an order in which no product is smaller than the last one:
 *   sigmoid'       g y (1 - y)
 *   log sigmoid'   g (1 - e^y)                                         -(y + y^2 q(y)) next to 0, where 1 - e^y cancels
 */
#include "begin.h"
#include "simd/exp.h"
#include "simd/log.h"
#include "simd/stored.h"
#include "table.h"
#include "wide.h"

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

ALWAYS_INLINE V KERNEL(sigmoid_backward_point)(V g, V y) { return g * y * (NAME(set)(1) - y); }

#define EXPM1_REACH ((T)0.34) /* below ln 2 / 2, up to where exp_q is good for e^y = 1 + y + y^2 q(y) */
ALWAYS_INLINE V KERNEL(log_sigmoid_backward_point)(V g, V y)
{
    const V zero = {0}, one = NAME(set)(1);
    V q = NAME(set)(NAME(exp_q)[EXP_DEGREE]);
    for (int k = EXP_DEGREE - 1; k >= 0; k--) q = v_fma(q, y, NAME(set)(NAME(exp_q)[k]));
    return g * v_select(m_gt(y, NAME(set)(-EXPM1_REACH)), zero - v_fma(y * y, q, y), one - NAME(exp)(y));
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

/* The same of two arrays. */
#define PAIR_KERNEL(name)                                                                                              \
    static void KERNEL(name)(const void *args, ptrdiff_t chunk, void *scratch)                                         \
    {                                                                                                                  \
        const xent_map_args *a = (const xent_map_args *)args;                                                          \
        const ptrdiff_t begin = chunk * a->chunk, size = xent_min(a->chunk, a->size - begin);                          \
        const S *x = (const S *)a->x + begin, *y = (const S *)a->y + begin;                                            \
        S *out = (S *)a->out + begin;                                                                                  \
        const V zero = {0};                                                                                            \
        (void)scratch;                                                                                                 \
        for (ptrdiff_t i = 0; i < size; i += LANES)                                                                    \
            KERNEL(store)(                                                                                             \
                out + i,                                                                                               \
                KERNEL(name##_point)(KERNEL(load)(x + i, size - i, zero), KERNEL(load)(y + i, size - i, zero)),        \
                size - i);                                                                                             \
    }
PAIR_KERNEL(sigmoid_backward)
PAIR_KERNEL(log_sigmoid_backward)

/* The numbers of an array as floats (`single`) or doubles. */
static void KERNEL(convert_from)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_map_args *a = (const xent_map_args *)args;
    const ptrdiff_t begin = chunk * a->chunk, end = xent_min(begin + a->chunk, a->size);
    const S *x = (const S *)a->x;
    const V zero = {0};
    (void)scratch;
    for (ptrdiff_t i = begin; i < end; i += LANES) {
        T numbers[LANES];
        const ptrdiff_t n = xent_min(LANES, end - i);
        v_store(numbers, KERNEL(load)(x + i, n, zero));
        if (a->single)
            for (ptrdiff_t k = 0; k < n; k++) ((float *)a->out)[i + k] = (float)numbers[k];
        else
            for (ptrdiff_t k = 0; k < n; k++) ((double *)a->out)[i + k] = numbers[k];
    }
}

/* And back, rounded once. */
static void KERNEL(convert_to)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_map_args *a = (const xent_map_args *)args;
    const ptrdiff_t begin = chunk * a->chunk, end = xent_min(begin + a->chunk, a->size);
    S *out = (S *)a->out;
    (void)scratch;
    for (ptrdiff_t i = begin; i < end; i += LANES) {
        T numbers[LANES] = {0};
        const ptrdiff_t n = xent_min(LANES, end - i);
        if (a->single)
            for (ptrdiff_t k = 0; k < n; k++) numbers[k] = ((const float *)a->x)[i + k];
        else
            for (ptrdiff_t k = 0; k < n; k++) numbers[k] = KERNEL(narrowed)(((const double *)a->x)[i + k]);
        KERNEL(store)(out + i, v_load(numbers), n);
    }
}

#ifndef STORED_AS_16 /* for the tests of exp.h and log.h */
static void NAME(exp_array)(const T *x, T *y, ptrdiff_t n) { KERNEL(map)(x, y, n, NAME(exp)); }
static void NAME(log_array)(const T *x, T *y, ptrdiff_t n) { KERNEL(map)(x, y, n, NAME(log)); }
static void NAME(log1p_array)(const T *x, T *y, ptrdiff_t n) { KERNEL(map)(x, y, n, NAME(log1p)); }
#endif

#endif
