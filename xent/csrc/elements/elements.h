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

/* The loss of a vector of elements at most, as a product. What is handed out, each loss and the gradient, is written.
 * `gradient` (whether it is wanted), `weighted` and the point are constants at every call. */
ALWAYS_INLINE NAME(loss) KERNEL(loss_vector)(const KERNEL(loss_row) *r, ptrdiff_t i, ptrdiff_t n, V log,
                                             NAME(loss_point) point, int weighted, int gradient)
{
    const V zero = {0}, one = NAME(set)(1);
    NAME(loss) l =
        point(KERNEL(load)(r->x + i, n, one), KERNEL(load)(r->target + i, n, one), log, &r->bounds, r->scale);
    if (weighted && r->weight) {
        const V weight = r->one_weight ? NAME(set)(*r->weight) : NAME(load)(r->weight + i, n, zero);
        l.share = l.share * weight;
        l.cost = NAME(counted)(weight, l.cost);
        l.gradient = weight * NAME(counted)(weight, l.gradient);
    }
    if (n < LANES) l.cost = NAME(first_of)(l.cost, n); /* past the end of the row 1 was read */
    if (r->losses) NAME(store)(r->losses + i, l.share * NAME(counted)(l.share, l.cost) / r->unit, n);
    if (gradient) {
        if (r->upstream) l.gradient = l.gradient * NAME(load)(r->upstream + i, n, zero);
        KERNEL(store)(r->out + i, l.gradient, n);
    }
    return l;
}

/* AHEAD vectors from element i on, of which n elements are there. */
ALWAYS_INLINE void KERNEL(loss_vectors)(const KERNEL(loss_row) *r, ptrdiff_t i, ptrdiff_t n, NAME(row_sum) *sum,
                                        NAME(loss_log) first, NAME(loss_point) point, int weighted, int value,
                                        int gradient)
{
    const V zero = {0}, one = NAME(set)(1);
    V log[AHEAD], share[AHEAD], cost[AHEAD];
    const int count = n >= AHEAD * LANES ? AHEAD : (int)((n + LANES - 1) / LANES);
    for (int k = 0; k < count; k += LOGS) {
        V x[LOGS], t[LOGS];
        for (int j = 0; j < LOGS; j++) {
            const ptrdiff_t at = (k + j) * LANES;
            x[j] = KERNEL(load_part)(r->x + i + at, n - at, one);
            t[j] = KERNEL(load_part)(r->target + i + at, n - at, one);
        }
        first(x, t, log + k);
    }
    for (int k = 0; k < count; k++) {
        const NAME(loss) l = KERNEL(loss_vector)(r, i + k * LANES, n - k * LANES, log[k], point, weighted, gradient);
        share[k] = l.share, cost[k] = l.cost;
    }
    for (int k = count; k < AHEAD; k++) share[k] = cost[k] = zero;
    if (value) NAME(add_products)(sum->way, share, cost, WAYS);
}

ALWAYS_INLINE void KERNEL(all_loss_vectors)(const KERNEL(loss_row) *r, ptrdiff_t n, NAME(row_sum) *sum,
                                            NAME(loss_log) first, NAME(loss_point) point, int weighted, int value,
                                            int gradient)
{
    ptrdiff_t i = 0;
    for (; i + AHEAD * LANES <= n; i += AHEAD * LANES) {
        KERNEL(fetch_ahead)(r->x + i, AHEAD * LANES);
        KERNEL(fetch_ahead)(r->target + i, AHEAD * LANES);
        if (gradient) KERNEL(fetch_ahead)(r->out + i, AHEAD * LANES);
        KERNEL(loss_vectors)(r, i, AHEAD * LANES, sum, first, point, weighted, value, gradient);
    }
    if (i < n) KERNEL(loss_vectors)(r, i, n - i, sum, first, point, weighted, value, gradient);
}

static void KERNEL(row_losses)(const xent_element_losses_args *a, const KERNEL(loss_row) *r, ptrdiff_t n,
                               NAME(row_sum) *sum)
{
#define LOSS(code, loss, log, weighted)                                                                                \
    case code:                                                                                                         \
        if (!r->out)                                                                                                   \
            KERNEL(all_loss_vectors)(r, n, sum, NAME(log), NAME(loss##_point), weighted, 1, 0);                        \
        else if (!a->partial)                                                                                          \
            KERNEL(all_loss_vectors)(r, n, sum, NAME(log), NAME(loss##_point), weighted, 0, 1);                        \
        else                                                                                                           \
            KERNEL(all_loss_vectors)(r, n, sum, NAME(log), NAME(loss##_point), weighted, 1, 1);                        \
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
    NAME(row_sum) sum;
    KERNEL(loss_row) r;
    (void)scratch;
    NAME(start_row_sum)(&sum);
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
    if (a->partial) a->partial[chunk] = NAME(row_total)(&sum);
}

#endif
