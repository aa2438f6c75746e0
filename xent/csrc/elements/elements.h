/* elements.h: losses of elements (points.h), for the sum over everything and one by one, whatever the class axis is.
 * Value, gradient or both come out of one pass over rows.
 */
#include "begin.h"
#include "simd/stored.h"
#include "elements/points.h"

#ifndef XENT_ELEMENTS_H
#define XENT_ELEMENTS_H

/* A row, or a piece of one. */
typedef struct {
    const S *x, *target;
    S *out;
    const T *weight, *upstream;
    T *losses;
    int one_weight; /* for all of the row */
    V scale, unit;
    NAME(bounds) bounds;
} KERNEL(loss_row);

/* At most a vector of elements. `value` and `gradient` (what is wanted), `weighted` and the point are constants at
 * every call. */
ALWAYS_INLINE void KERNEL(loss_vector)(const KERNEL(loss_row) *r, ptrdiff_t i, ptrdiff_t n, V log, NAME(sum) *sum,
                                       NAME(loss_point) point, int weighted, int value, int gradient)
{
    const V zero = {0};
    NAME(loss) l =
        point(KERNEL(load)(r->x + i, n, zero), KERNEL(load)(r->target + i, n, zero), log, &r->bounds, r->scale);
    if (weighted && r->weight) {
        const V weight = r->one_weight ? NAME(set)(*r->weight) : NAME(load)(r->weight + i, n, zero);
        l.share = l.share * weight;
        l.cost = NAME(counted)(weight, l.cost);
        l.gradient = weight * NAME(counted)(weight, l.gradient);
    }
    if (value) {
        if (n < LANES) { /* past the end of the row, where costs are finite, the share is 0 */
            T share[LANES];
            v_store(share, l.share);
            l.share = NAME(load)(share, n, zero);
        }
        NAME(sum_add_product)(sum, l.share, l.cost);
        if (r->losses) NAME(store)(r->losses + i, l.share * l.cost / r->unit, n);
    }
    if (gradient) {
        if (r->upstream) l.gradient = l.gradient * NAME(load)(r->upstream + i, n, zero);
        KERNEL(store)(r->out + i, l.gradient, n);
    }
}

ALWAYS_INLINE void KERNEL(loss_vectors)(const KERNEL(loss_row) *r, ptrdiff_t n, NAME(sum) *sum, NAME(loss_log) first,
                                        NAME(loss_point) point, int weighted, int value, int gradient)
{
    const V zero = {0};
    V log[AHEAD];
    ptrdiff_t i = 0;
    for (; i + AHEAD * LANES <= n; i += AHEAD * LANES) {
        for (int k = 0; k < AHEAD; k++)
            log[k] = first(KERNEL(load)(r->x + i + k * LANES, LANES, zero),
                           KERNEL(load)(r->target + i + k * LANES, LANES, zero));
        for (int k = 0; k < AHEAD; k++)
            KERNEL(loss_vector)(r, i + k * LANES, LANES, log[k], sum, point, weighted, value, gradient);
    }
    for (; i < n; i += LANES) {
        log[0] = first(KERNEL(load)(r->x + i, n - i, zero), KERNEL(load)(r->target + i, n - i, zero));
        KERNEL(loss_vector)(r, i, n - i, log[0], sum, point, weighted, value, gradient);
    }
}

static void KERNEL(row_losses)(const xent_element_losses_args *a, const KERNEL(loss_row) *r, ptrdiff_t n,
                               NAME(sum) *sum)
{
#define LOSS(code, loss, log, weighted)                                                                                \
    case code:                                                                                                         \
        if (!r->out)                                                                                                   \
            KERNEL(loss_vectors)(r, n, sum, NAME(log), NAME(loss##_point), weighted, 1, 0);                            \
        else if (!a->partial)                                                                                          \
            KERNEL(loss_vectors)(r, n, sum, NAME(log), NAME(loss##_point), weighted, 0, 1);                            \
        else                                                                                                           \
            KERNEL(loss_vectors)(r, n, sum, NAME(log), NAME(loss##_point), weighted, 1, 1);                            \
        return;
    switch (a->loss.kind) {
        ELEMENT_LOSSES(LOSS)
    }
#undef LOSS
}

/* Where element i of row o * middle_count + m lies. */
ALWAYS_INLINE ptrdiff_t KERNEL(place)(const xent_operand *operand, ptrdiff_t o, ptrdiff_t m, ptrdiff_t i)
{
    return o * operand->outer_stride + m * operand->middle_stride + i * operand->stride;
}

static void KERNEL(element_losses)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_element_losses_args *a = (const xent_element_losses_args *)args;
    const ptrdiff_t pieces = xent_ceil_div(a->length, a->piece);
    const ptrdiff_t first = chunk / pieces * a->chunk, i = chunk % pieces * a->piece;
    NAME(sum) sum = {{0}, {0}};
    KERNEL(loss_row) r;
    (void)scratch;
    r.bounds = NAME(bounds_of)(a->loss.clip);
    r.scale = NAME(set)((T)a->loss.gradient_scale), r.unit = NAME(set)((T)a->loss.unit);
    r.one_weight = a->weight.stride == 0;
    for (ptrdiff_t row = first; row < xent_min(first + a->chunk, a->rows); row++) {
        const ptrdiff_t m = row % a->middle_count, o = row / a->middle_count;
        r.x = (const S *)a->x.data + KERNEL(place)(&a->x, o, m, i);
        r.target = (const S *)a->target.data + KERNEL(place)(&a->target, o, m, i);
        r.out = a->out.data ? (S *)a->out.data + KERNEL(place)(&a->out, o, m, i) : NULL;
        r.weight = a->weight.data ? (const T *)a->weight.data + KERNEL(place)(&a->weight, o, m, i) : NULL;
        r.upstream = a->upstream.data ? (const T *)a->upstream.data + KERNEL(place)(&a->upstream, o, m, i) : NULL;
        r.losses = a->losses.data ? (T *)a->losses.data + KERNEL(place)(&a->losses, o, m, i) : NULL;
        KERNEL(row_losses)(a, &r, xent_min(a->piece, a->length - i), &sum);
    }
    if (a->partial) a->partial[chunk] = NAME(sum_total)(&sum);
}

#endif
