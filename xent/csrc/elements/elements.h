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
    NAME(maker) maker;
    int value, adds, careful; /* value: of the losses, adds: which are added up */
    xent_wide_sum *sum;       /* of the losses of odd elements */
} KERNEL(loss_row);

#if XENT_REAL == 64
/* Odd elements of a group, and what is made of them, with their weights. */
typedef struct {
    double x[MENDED], target[MENDED], weight[MENDED], upstream[MENDED];
    careful_loss made[MENDED];
    ptrdiff_t place[MENDED];
    int count;
} odd_elements;

static __attribute__((noinline)) void make_with_care(const xent_loss *o, odd_elements *e)
{
    for (int k = 0; k < e->count; k++)
        e->made[k] = careful_point(o, e->x[k], e->target[k], e->weight[k], e->upstream[k]);
}

/* The same of floats with ordinary factors: as doubles, of which few are odd and take eighty times as long. */
static __attribute__((noinline)) void make_in_doubles(const xent_loss *o, odd_elements *e)
{
    const maker_f64 maker = maker_of_f64(o->kind, 1, 1);
    bounds_f64 bounds = bounds_of_f64(o->clip);
    int bad; /* which was seen before */
    bounds.bad = &bad;
    for (int k = e->count; k % LANES_F64; k++) e->x[k] = e->target[k] = 1;
    for (int i = 0; i < e->count; i += AHEAD * LANES_F64) {
        points_f64 made;
        const int count = (int)xent_min(AHEAD, xent_ceil_div(e->count - i, LANES_F64)),
                  last = (count - 1) * (int)LANES_F64;
        const group_f64 g = {.x = {.first = e->x + i, .last = e->x + i + last, .step = LANES_F64},
                             .target = {.first = e->target + i, .last = e->target + i + last, .step = LANES_F64},
                             .count = count};
        memset(made.odd, 0, sizeof made.odd);
        maker.make(&g, &bounds, set_f64(o->gradient_scale), 1, &made);
        for (int k = i; k < xent_min(e->count, i + AHEAD * LANES_F64); k++) {
            const ptrdiff_t v = (k - i) / LANES_F64, n = (k - i) % LANES_F64;
            const wide loss = wide_times(wide_of(made.share[v][n]), wide_of(made.cost[v][n]));
            e->made[k] = (careful_loss){.loss = wide_product(loss, wide_of(e->weight[k])),
                                        .gradient = wide_of(made.slope[v][n] * e->weight[k] * e->upstream[k])};
            if (made.odd[v][n] != 0) e->made[k] = careful_point(o, e->x[k], e->target[k], e->weight[k], e->upstream[k]);
        }
    }
}
#endif

/* Put what was made of odd elements of a group from element i on where it belongs: the gradient, and if it is wanted the
 * loss, which leaves the products for a sum of its own. */
static void KERNEL(put_odd)(const KERNEL(loss_row) *r, ptrdiff_t i, odd_elements *odd, NAME(points) *made)
{
    if (XENT_REAL == 32 && !r->careful)
        make_in_doubles(r->given, odd);
    else
        make_with_care(r->given, odd);
    for (int n = 0; n < odd->count; n++) {
        const careful_loss l = odd->made[n];
        const ptrdiff_t e = odd->place[n], v = e / LANES, k = e % LANES;
        if (r->out) made->slope[v][k] = KERNEL(narrowed)(0.0 + wide_as_double(l.gradient));
        if (!r->maker.odd_loss && !r->careful) continue;
        made->share[v][k] = made->cost[v][k] = 0;
        wide_add_to(r->sum, l.loss);
        if (r->losses) r->losses[i + e] = (T)wide_as_double(wide_quotient(l.loss, wide_of(r->given->unit)));
    }
    odd->count = 0;
}

/* Make odd elements of a group from element i on, of which n are there, or all if the call is careful, anew. */
static __attribute__((noinline)) void KERNEL(mend_losses)(const KERNEL(loss_row) *r, ptrdiff_t i, ptrdiff_t n,
                                                          const NAME(group) *g, NAME(points) *made)
{
    odd_elements odd;
    odd.count = 0;
    for (ptrdiff_t e = 0; e < n; e++) {
        const ptrdiff_t v = e / LANES, k = e % LANES;
        const double weight = r->weight ? (double)r->weight[r->one_weight ? 0 : i + e] : 1;
        if ((made->odd[v][k] == 0 && !r->careful) || weight == 0) continue;
        const int here = odd.count++;
        odd.place[here] = e, odd.weight[here] = weight,
        odd.upstream[here] = r->upstream ? (double)r->upstream[i + e] : 1;
        odd.x[here] = (double)NAME(vector)(&g->x, v, g->count)[k];
        odd.target[here] = (double)NAME(vector)(&g->target, v, g->count)[k];
        if (odd.count == MENDED) KERNEL(put_odd)(r, i, &odd, made);
    }
    if (odd.count) KERNEL(put_odd)(r, i, &odd, made);
}

/* Losses in their unit. One above 1 is taken out of the cost where the product leaves the range, and the loss may not. */
ALWAYS_INLINE V KERNEL(in_unit)(const KERNEL(loss_row) *r, V share, V cost)
{
    const V loss = share * cost / r->unit;
    if (!(fabs(r->given->unit) > 1)) return loss;
    return v_select(m_eq(v_abs(loss), NAME(set)((T)INFINITY)), share * (cost / r->unit), loss);
}

/* What is done to the points of n elements from element i on, whatever the loss: weights, the losses one by one, upstream
 * gradients. */
static void KERNEL(weigh_points)(const KERNEL(loss_row) *r, ptrdiff_t i, ptrdiff_t n, int count, NAME(points) *made)
{
    const V zero = {0};
    for (int k = 0; k < count; k++) {
        const ptrdiff_t at = i + k * LANES, here = n - k * LANES;
        const V one = NAME(set)(1);
        const V weight = !r->weight      ? one
                         : r->one_weight ? NAME(set)(*r->weight)
                                         : NAME(load)(r->weight + at, here, zero);
        if (r->value) {
            V share = made->share[k], cost = made->cost[k];
            if (r->weight) share = share * weight, cost = NAME(weighed)(weight, cost);
            if (here < LANES) cost = NAME(first_of)(cost, here);
            if (r->losses) NAME(store)(r->losses + at, KERNEL(in_unit)(r, share, NAME(counted)(share, cost)), here);
            made->share[k] = share, made->cost[k] = cost;
        }
        if (r->out && r->weight) made->slope[k] = weight * NAME(weighed)(weight, made->slope[k]);
        if (r->out && r->upstream) made->slope[k] = made->slope[k] * NAME(load)(r->upstream + at, here, zero);
    }
}

/* AHEAD vectors from element i on, of which n elements are there. The gradient, which may take the place of x, is written
 * when all is made. */
ALWAYS_INLINE void KERNEL(loss_vectors)(const KERNEL(loss_row) *r, ptrdiff_t i, ptrdiff_t n, NAME(row_sum) *sum)
{
    T x[AHEAD * LANES], target[AHEAD * LANES];
    NAME(points) made;
    const int count = (int)((n + LANES - 1) / LANES);
    const NAME(group) g = {.x = KERNEL(group_at)(r->x + i, LANES, count, n, 1, x),
                           .target = KERNEL(group_at)(r->target + i, LANES, count, n, 1, target),
                           .count = count};
    const int odd = r->maker.make(&g, &r->bounds, r->scale, 0, &made);
    if (__builtin_expect(odd | r->careful, 0)) {
        memset(made.odd, 0, sizeof made.odd);
        if (odd) r->maker.make(&g, &r->bounds, r->scale, 1, &made);
    }
    if (r->weight || r->losses || r->upstream || n < count * LANES) KERNEL(weigh_points)(r, i, n, count, &made);
    if (__builtin_expect(odd | r->careful, 0)) KERNEL(mend_losses)(r, i, n, &g, &made);
    if (r->out) KERNEL(put_group)(r->out + i, LANES, made.slope, count, n, 1);
    if (r->adds) NAME(add_points)(sum->way, &made, count, WAYS);
}

static void KERNEL(row_losses)(const KERNEL(loss_row) *r, ptrdiff_t n, NAME(row_sum) *sum)
{
    for (ptrdiff_t i = 0; i < n; i += AHEAD * LANES) {
        KERNEL(fetch_ahead)(r->x + i, AHEAD * LANES);
        KERNEL(fetch_ahead)(r->target + i, AHEAD * LANES);
        if (r->out) KERNEL(fetch_ahead)(r->out + i, AHEAD * LANES);
        KERNEL(loss_vectors)(r, i, xent_min(AHEAD * LANES, n - i), sum);
    }
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
    r.adds = a->partial != NULL, r.value = r.adds || a->losses.data;
    r.maker = NAME(maker_of)(a->loss.kind, r.value, a->out.data != NULL);
    for (ptrdiff_t row = first; row < xent_min(first + a->chunk, a->rows); row++) {
        const ptrdiff_t m = row % a->middle_count, o = row / a->middle_count;
        r.x = (const S *)a->x.data + KERNEL(place)(&a->x, o, m, i);
        r.target = (const S *)a->target.data + KERNEL(place)(&a->target, o, m, i);
        r.out = a->out.data ? (S *)a->out.data + KERNEL(place)(&a->out, o, m, i) : NULL;
        r.weight = a->weight.data ? (const T *)a->weight.data + KERNEL(place)(&a->weight, o, m, i) : NULL;
        r.upstream = a->upstream.data ? (const T *)a->upstream.data + KERNEL(place)(&a->upstream, o, m, i) : NULL;
        r.losses = a->losses.data ? (T *)a->losses.data + KERNEL(place)(&a->losses, o, m, i) : NULL;
        KERNEL(row_losses)(&r, xent_min(a->piece, a->length - i), &sum);
    }
    if (bad) __atomic_store_n(a->bad, 1, __ATOMIC_RELAXED);
    if (a->partial) a->partial[chunk] = NAME(row_total)(&sum);
}

#endif
