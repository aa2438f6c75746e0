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

/* What is made of a vector: the loss, and what it is one by one. */
typedef struct {
    NAME(loss) loss;
    V each;
} KERNEL(mended);

/* Make odd elements of a vector, of which n are there, or all if the call is careful, with care: the gradient, and if it
 * is wanted the loss, which leaves the products for a sum of its own. */
static __attribute__((noinline)) void KERNEL(mend_losses)(const KERNEL(loss_row) *r, ptrdiff_t i, ptrdiff_t n, V x, V t,
                                                          V odd, int odd_loss, KERNEL(mended) *m)
{
    const int value = odd_loss || r->careful;
    for (int k = 0; k < xent_min(n, LANES); k++) {
        const double weight = r->weight ? (double)r->weight[r->one_weight ? 0 : i + k] : 1;
        if ((odd[k] == 0 && !r->careful) || weight == 0) continue;
        const careful_loss made =
            careful_point(r->given, (double)x[k], (double)t[k], weight, r->upstream ? (double)r->upstream[i + k] : 1);
        m->loss.gradient[k] = KERNEL(narrowed)(0.0 + wide_as_double(made.gradient));
        if (!value) continue;
        m->loss.share[k] = m->loss.cost[k] = 0;
        wide_add_to(r->sum, made.loss);
        m->each[k] = (T)wide_as_double(wide_quotient(made.loss, wide_of(r->given->unit)));
    }
}

/* The loss of a vector of elements at most, as a product. What is handed out, each loss and the gradient, is written.
 * `gradient` (whether it is wanted), `weighted` and the point are constants at every call. */
ALWAYS_INLINE NAME(loss) KERNEL(loss_vector)(const KERNEL(loss_row) *r, ptrdiff_t i, ptrdiff_t n, V log,
                                             NAME(loss_point) point, int odd, int weighted, int gradient)
{
    const V zero = {0}, one = NAME(set)(1);
    const V x = KERNEL(load)(r->x + i, n, one), t = KERNEL(load)(r->target + i, n, one);
    NAME(loss) l = point(x, t, log, &r->bounds, r->scale);
    if (weighted && r->weight) {
        const V weight = r->one_weight ? NAME(set)(*r->weight) : NAME(load)(r->weight + i, n, zero);
        l.share = l.share * weight;
        l.cost = NAME(weighed)(weight, l.cost);
        l.gradient = weight * NAME(weighed)(weight, l.gradient);
    }
    if (n < LANES) l.cost = NAME(first_of)(l.cost, n); /* past the end of the row 1 was read */
    if (gradient && r->upstream) l.gradient = l.gradient * NAME(load)(r->upstream + i, n, zero);
    V each = zero;
    if (r->losses) each = l.share * NAME(counted)(l.share, l.cost) / r->unit;
    const int any_odd = (odd == ODD_LOSS || (odd == ODD_GRADIENT && gradient)) && m_any(l.odd);
    if (__builtin_expect(any_odd | r->careful, 0)) {
        KERNEL(mended) m = {.loss = l, .each = each}; /* apart, so that the loss of ordinary elements stays in registers */
        KERNEL(mend_losses)(r, i, n, x, t, any_odd ? v_select(l.odd, one, zero) : zero, odd == ODD_LOSS, &m);
        l = m.loss, each = m.each;
    }
    if (r->losses) NAME(store)(r->losses + i, each, n);
    if (gradient) KERNEL(store)(r->out + i, l.gradient, n);
    return l;
}

/* AHEAD vectors from element i on, of which n elements are there. */
ALWAYS_INLINE void KERNEL(loss_vectors)(const KERNEL(loss_row) *r, ptrdiff_t i, ptrdiff_t n, NAME(row_sum) *sum,
                                        NAME(loss_log) first, NAME(loss_point) point, int odd, int weighted, int value,
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
        const NAME(loss) l =
            KERNEL(loss_vector)(r, i + k * LANES, n - k * LANES, log[k], point, odd, weighted, gradient);
        share[k] = l.share, cost[k] = l.cost;
    }
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
