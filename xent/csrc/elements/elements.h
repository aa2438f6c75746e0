/* elements.h: losses of elements (points.h), for the sum over everything and one by one, whatever the class axis is.
 * Value, gradient or both come out of one pass over rows.
 */
#include "begin.h"
#include "elements/careful.h"
#include "elements/points.h"
#include "simd/stored.h"
#include "wide.h"

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
    const xent_loss *given;
    int careful;
    xent_wide_sum *sum; /* of the losses of odd elements */
} KERNEL(loss_row);

/* Make odd elements of a vector, of which n are there, or all if the call is careful, with care: the gradient, and if it
 * is wanted the loss, which leaves the products for a sum of its own. */
SHARED __attribute__((noinline)) void KERNEL(mend_losses)(const KERNEL(loss_row) *r, ptrdiff_t i, ptrdiff_t n, V x, V t,
                                                          V odd, int odd_loss, V *share, V *cost, V *slope)
{
    for (int k = 0; k < xent_min(n, LANES); k++) {
        const double weight = r->weight ? (double)r->weight[r->one_weight ? 0 : i + k] : 1;
        if ((odd[k] == 0 && !r->careful) || weight == 0) continue;
        const careful_loss made =
            careful_point(r->given, (double)x[k], (double)t[k], weight, r->upstream ? (double)r->upstream[i + k] : 1);
        if (r->out) (*slope)[k] = KERNEL(narrowed)(0.0 + wide_as_double(made.gradient));
        if (!odd_loss && !r->careful) continue;
        (*share)[k] = (*cost)[k] = 0;
        wide_add_to(r->sum, made.loss);
        if (r->losses) r->losses[i + k] = (T)wide_as_double(wide_quotient(made.loss, wide_of(r->given->unit)));
    }
}

/* The loss of a vector of elements at most, as a product, and the gradient. Each loss, if it is handed out, is written.
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
        l.cost = NAME(weighed)(weight, l.cost);
        l.gradient = weight * NAME(weighed)(weight, l.gradient);
    }
    if (n < LANES) l.cost = NAME(first_of)(l.cost, n); /* past the end of the row 1 was read */
    if (r->losses) NAME(store)(r->losses + i, l.share * NAME(counted)(l.share, l.cost) / r->unit, n);
    if (gradient && r->upstream) l.gradient = l.gradient * NAME(load)(r->upstream + i, n, zero);
    return l;
}

/* AHEAD vectors from element i on, of which n elements are there. The gradient, which may take the place of x, is written
 * when all is made. */
ALWAYS_INLINE void KERNEL(loss_vectors)(const KERNEL(loss_row) *r, ptrdiff_t i, ptrdiff_t n, NAME(row_sum) *sum,
                                        NAME(loss_log) first, NAME(loss_point) point, int odd, int weighted, int value,
                                        int gradient)
{
    const V zero = {0}, one = NAME(set)(1);
    const int looks = odd == ODD_LOSS || (odd == ODD_GRADIENT && gradient);
    V log[AHEAD], share[AHEAD], cost[AHEAD], slope[AHEAD];
    VM any = m_gt(zero, zero);
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
        if (gradient) slope[k] = l.gradient;
        if (looks) any = any | l.odd;
    }
    if (__builtin_expect((looks && m_any(any)) | r->careful, 0))
        for (int k = 0; k < count; k++) {
            const ptrdiff_t at = i + k * LANES, here = n - k * LANES;
            const V x = KERNEL(load)(r->x + at, here, one), t = KERNEL(load)(r->target + at, here, one);
            const NAME(loss) l = point(x, t, log[k], &r->bounds, r->scale);
            KERNEL(mend_losses)(r, at, here, x, t, looks ? v_select(l.odd, one, zero) : zero, odd == ODD_LOSS,
                                share + k, cost + k, slope + k);
        }
    for (int k = 0; gradient && k < count; k++) KERNEL(store)(r->out + i + k * LANES, slope[k], n - k * LANES);
    for (int k = count; k < AHEAD; k++) share[k] = cost[k] = zero;
    if (value) NAME(add_products)(sum->way, share, cost, WAYS);
}

ALWAYS_INLINE void KERNEL(all_loss_vectors)(const KERNEL(loss_row) *r, ptrdiff_t n, NAME(row_sum) *sum,
                                            NAME(loss_log) first, NAME(loss_point) point, int odd, int weighted,
                                            int value, int gradient)
{
    ptrdiff_t i = 0;
    for (; i + AHEAD * LANES <= n; i += AHEAD * LANES) {
        KERNEL(fetch_ahead)(r->x + i, AHEAD * LANES);
        KERNEL(fetch_ahead)(r->target + i, AHEAD * LANES);
        if (gradient) KERNEL(fetch_ahead)(r->out + i, AHEAD * LANES);
        KERNEL(loss_vectors)(r, i, AHEAD * LANES, sum, first, point, odd, weighted, value, gradient);
    }
    if (i < n) KERNEL(loss_vectors)(r, i, n - i, sum, first, point, odd, weighted, value, gradient);
}

static void KERNEL(row_losses)(const xent_element_losses_args *a, const KERNEL(loss_row) *r, ptrdiff_t n,
                               NAME(row_sum) *sum)
{
#define LOSS(code, loss, log, odd, weighted)                                                                           \
    case code:                                                                                                         \
        if (!r->out)                                                                                                   \
            KERNEL(all_loss_vectors)(r, n, sum, NAME(log), NAME(loss##_point), odd, weighted, 1, 0);                   \
        else if (!a->partial)                                                                                          \
            KERNEL(all_loss_vectors)(r, n, sum, NAME(log), NAME(loss##_point), odd, weighted, 0, 1);                   \
        else                                                                                                           \
            KERNEL(all_loss_vectors)(r, n, sum, NAME(log), NAME(loss##_point), odd, weighted, 1, 1);                   \
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
    int bad = 0;
    (void)scratch;
    NAME(start_row_sum)(&sum);
    r.given = &a->loss, r.careful = a->loss.careful, r.sum = a->wide + chunk;
    *r.sum = (xent_wide_sum){.sum = 0};
    r.bounds = NAME(bounds_of)(a->loss.clip), r.bounds.bad = &bad;
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
    if (bad) __atomic_store_n(a->bad, 1, __ATOMIC_RELAXED);
    if (a->partial) a->partial[chunk] = NAME(row_total)(&sum);
}

#endif
