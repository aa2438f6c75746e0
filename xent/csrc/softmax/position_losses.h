/* position_losses.h: losses of positions, each the sum of a point function (points.h) over the classes. Value, gradient
 * or both come out of one pass over a tile.
 */
#include "begin.h"
#include "elements/careful.h"
#include "elements/points.h"
#include "simd/stored.h"
#include "simd/sums.h"
#include "softmax/cut.h"
#include "table.h"
#include "wide.h"

#ifndef XENT_POSITION_LOSSES_H
#define XENT_POSITION_LOSSES_H

/* The factor of the gradient of a position. */
ALWAYS_INLINE double KERNEL(gradient_factor)(double scale, const double *upstream, ptrdiff_t position)
{
    return scale * (upstream ? upstream[position] : 1.0);
}

/* Hand out the losses of a tile: into their sum, and to `to` (NULL: nowhere), for the tile's first position. `loss` has
 * room for whole vectors. */
static void KERNEL(deliver_losses)(double *loss, ptrdiff_t n, row_sum_f64 *sum, T *to)
{
    if (sum) row_sum_add_array(sum, loss, n);
    for (ptrdiff_t p = 0; to && p < n; p++) to[p] = (T)loss[p];
}

/* Vectors of a tile: neighbouring classes of a position, or a vector of positions over the classes. From the places x,
 * target and out on, a `step` of each apart. */
typedef struct {
    ptrdiff_t x, target, out;
} KERNEL(places);

/* What all vectors of a position, or of LANES of them, share. */
typedef struct {
    const xent_loss *given;
    const KERNEL(tile) *t;
    KERNEL(places) step;
    NAME(maker) maker;
    NAME(bounds) bounds;
    int value, rows, careful; /* careful: a position has an odd factor */
    const double *upstream;   /* of the first position, or NULL */
    V scale, odd_factor;      /* the factors of the gradients, and 1 where these are odd, else 0 */
    xent_wide_sum *extra;     /* the losses of odd elements, of each position */
} KERNEL(batch);

/* Make odd elements of a group, in which there are n numbers (of each vector, or of all), with care: the gradient, and if
 * it is wanted the loss, which leaves the products. */
static __attribute__((noinline)) void KERNEL(mend_classes)(KERNEL(batch) *b, ptrdiff_t n, const NAME(group) *g,
                                                           NAME(points) *made)
{
    for (ptrdiff_t e = 0; e < g->count * LANES; e++) {
        const ptrdiff_t v = e / LANES, k = e % LANES;
        const int position = b->rows ? 0 : (int)k;
        if ((b->rows ? e : k) >= n || (made->odd[v][k] == 0 && b->odd_factor[k] == 0)) continue;
        const careful_loss l =
            careful_point(b->given, (double)NAME(vector)(&g->x, v, g->count)[k],
                          (double)NAME(vector)(&g->target, v, g->count)[k], 1, b->upstream ? b->upstream[position] : 1);
        made->slope[v][k] = KERNEL(narrowed)(0.0 + wide_as_double(l.gradient));
        if (!b->maker.odd_loss || made->odd[v][k] == 0) continue;
        made->share[v][k] = made->cost[v][k] = 0;
        wide_add_to(&b->extra[position], l.loss);
    }
}

/* A group, with n numbers in all, or of columns in each vector. `rows` is a constant at every call. */
ALWAYS_INLINE void KERNEL(class_vectors)(KERNEL(batch) *b, KERNEL(places) at, int count, ptrdiff_t n, NAME(sum) *sum,
                                         int rows)
{
    const KERNEL(tile) *t = b->t;
    T x[AHEAD * LANES], target[AHEAD * LANES];
    NAME(points) made;
    NAME(group) g = {.x = KERNEL(group_at)(t->x + at.x, b->step.x, count, n, rows, x), .count = count};
    g.target = t->target ? KERNEL(group_at)(t->target + at.target, b->step.target, count, n, rows, target)
                         : g.x; /* the entropy has none */
    const int odd = b->maker.make(&g, &b->bounds, b->scale, 0, &made);
    if (__builtin_expect(odd | (t->out && b->careful), 0)) {
        memset(made.odd, 0, sizeof made.odd);
        if (odd) b->maker.make(&g, &b->bounds, b->scale, 1, &made);
        KERNEL(mend_classes)(b, n, &g, &made);
    }
    if (t->out) KERNEL(put_group)(t->out + at.out, b->step.out, made.slope, count, n, rows);
    if (!b->value) return;
    const int partial = rows ? count - 1 : 0;
    const ptrdiff_t here = rows ? n - partial * LANES : n;
    for (int k = partial; here < LANES && k < count; k++)
        made.cost[k] = NAME(first_of)(made.cost[k], here); /* 1 was read */
    NAME(add_points)(sum, &made, count, rows ? WAYS : 1);
}

/* The loss and the gradient of a position, along its row. */
ALWAYS_INLINE double KERNEL(row_loss)(KERNEL(batch) *b, KERNEL(places) at, ptrdiff_t classes)
{
    const KERNEL(tile) *t = b->t;
    NAME(row_sum) sum;
    NAME(start_row_sum)(&sum);
    for (ptrdiff_t c = 0; c < classes; c += AHEAD * LANES) {
        const ptrdiff_t here = xent_min(classes - c, AHEAD * LANES);
        KERNEL(fetch_ahead)(t->x + at.x, AHEAD * LANES);
        if (t->target) KERNEL(fetch_ahead)(t->target + at.target, AHEAD * LANES);
        if (t->out) KERNEL(fetch_ahead)(t->out + at.out, AHEAD * LANES);
        KERNEL(class_vectors)(b, at, (int)((here + LANES - 1) / LANES), here, sum.way, 1);
        at.x += AHEAD * b->step.x, at.target += AHEAD * b->step.target, at.out += AHEAD * b->step.out;
    }
    return NAME(row_total)(&sum);
}

/* Classes of which a vector of positions is worked on before the next one. With more of them, of which each lies in a page
 * of its own, all vectors of a tile take a group of classes in turn: 150 of images of 128 x 128 took a third of the time, 21
 * up to 1.2 times as long. In between lies what a processor knows of pages at once, 64. */
#define FEW_CLASSES 64

/* The AHEAD classes after those that begin at a place. */
ALWAYS_INLINE void KERNEL(fetch_group)(const S *first, ptrdiff_t step, ptrdiff_t n)
{
    for (ptrdiff_t k = AHEAD; k < 2 * AHEAD; k++) KERNEL(fetch_class)(first, step, k, n);
}

ALWAYS_INLINE void KERNEL(fetch_groups)(const KERNEL(tile) *t, KERNEL(places) at)
{
    KERNEL(fetch_group)(t->x + at.x, t->x_step, t->n);
    if (t->target) KERNEL(fetch_group)(t->target + at.target, t->target_step, t->n);
    if (t->out) KERNEL(fetch_group)(t->out + at.out, t->out_step, t->n);
}

/* What belongs to the positions of a tile, up to whole vectors. */
typedef struct {
    T scale[TILE], odd_factor[TILE];
    double loss[TILE];
    xent_wide_sum extra[TILE];
    const double *upstream;
} KERNEL(of_positions);

/* The batch of a vector of positions, or of one. */
ALWAYS_INLINE void KERNEL(begin_batch)(KERNEL(batch) *b, KERNEL(of_positions) *of, ptrdiff_t p)
{
    b->upstream = of->upstream ? of->upstream + p : NULL, b->extra = of->extra + p;
    b->scale = b->rows ? NAME(set)(of->scale[p]) : v_load(of->scale + p);
    b->odd_factor = b->rows ? NAME(set)(of->odd_factor[p]) : v_load(of->odd_factor + p);
}

/* The losses of columns, of so many positions at a time: a group of classes for all of them, then the next. `together` is a
 * constant at every call. */
ALWAYS_INLINE void KERNEL(column_losses)(KERNEL(batch) *b, ptrdiff_t classes, ptrdiff_t together,
                                         KERNEL(of_positions) *of)
{
    const KERNEL(tile) *t = b->t;
    for (ptrdiff_t first = 0; first < t->n; first += together) {
        const ptrdiff_t end = xent_min(first + together, t->n);
        NAME(sum) sums[TILE / LANES];
        for (ptrdiff_t w = 0; w < together / LANES; w++) sums[w].a = sums[w].b = set_f64(0);
        if (together == LANES) KERNEL(begin_batch)(b, of, first);
        for (ptrdiff_t c = 0; c < classes; c += AHEAD) {
            const int count = (int)xent_min(classes - c, AHEAD);
            const KERNEL(places) at = {c * b->step.x, c * b->step.target, c * b->step.out};
            if (together > LANES && t->x_step > TILE) KERNEL(fetch_groups)(t, at);
            for (ptrdiff_t p = first; p < end; p += LANES) {
                if (together > LANES) KERNEL(begin_batch)(b, of, p);
                KERNEL(class_vectors)(b, (KERNEL(places)){at.x + p, at.target + p, at.out + p}, count, t->n - p,
                                      sums + (p - first) / LANES, 0);
                if (together == LANES) break;
            }
        }
        for (ptrdiff_t p = first; p < end; p += LANES) NAME(sum_lanes)(sums + (p - first) / LANES, of->loss + p, NULL);
    }
}

/* The factors of the gradients of a tile's positions, and 1 for those that are odd, up to whole vectors. Returns whether
 * any is. */
static int KERNEL(factors_of)(const xent_position_losses_args *a, const KERNEL(tile) *t, KERNEL(of_positions) *of)
{
    int any = 0;
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const double factor = KERNEL(gradient_factor)(a->loss.gradient_scale, a->upstream, t->first + p);
        const double size = fabs(factor), most = BY_TYPE(XENT_PLAIN_SCALE_F32, XENT_PLAIN_SCALE_F64);
        const int plain = (size >= 1 / most && size <= most) || (size == 0 && !a->loss.careful);
        of->scale[p] = (T)factor, of->odd_factor[p] = !plain, any |= !plain;
    }
    for (ptrdiff_t p = t->n; p % LANES; p++) of->scale[p] = of->odd_factor[p] = 0;
    return any;
}

/* The losses of a tile in their unit, with those of odd elements. */
static void KERNEL(close_losses)(KERNEL(of_positions) *of, ptrdiff_t n, double unit, int odd_loss)
{
    for (ptrdiff_t p = 0; p < n; p++) {
        if (!odd_loss || of->extra[p].sum == 0) {
            of->loss[p] /= unit;
            continue;
        }
        wide_add_to(&of->extra[p], wide_of(of->loss[p]));
        of->loss[p] = wide_as_double(wide_quotient(wide_total(&of->extra[p]), wide_of(unit)));
    }
}

static void KERNEL(position_losses_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *losses)
{
    const xent_position_losses_args *a = (const xent_position_losses_args *)positions;
    KERNEL(of_positions) of;
    KERNEL(batch) b = {
        .given = &a->loss,
        .t = t,
        .step = {.x = t->rows ? LANES : t->x_step,
                 .target = t->rows ? LANES : t->target_step,
                 .out = t->rows ? LANES : t->out_step},
        .bounds = NAME(bounds_of)(a->loss.clip),
        .value = positions->sums || a->losses || !t->out,
        .rows = t->rows,
        .careful = KERNEL(factors_of)(a, t, &of),
    };
    b.maker = NAME(maker_of)(a->loss.kind, b.value, t->out != NULL);
    of.upstream = a->upstream ? a->upstream + t->first : NULL;
    if (b.maker.odd_loss) memset(of.extra, 0, (size_t)t->n * sizeof *of.extra);
    if (!t->rows && positions->classes > FEW_CLASSES)
        KERNEL(column_losses)(&b, positions->classes, TILE, &of);
    else if (!t->rows)
        KERNEL(column_losses)(&b, positions->classes, LANES, &of);
    for (ptrdiff_t p = 0; t->rows && p < t->n; p++) {
        KERNEL(begin_batch)(&b, &of, p);
        of.loss[p] = KERNEL(row_loss)(&b, (KERNEL(places)){p * t->x_step, p * t->target_step, p * t->out_step},
                                      positions->classes);
    }
    if (b.value) KERNEL(close_losses)(&of, t->n, a->loss.unit, b.maker.odd_loss);
    KERNEL(deliver_losses)(of.loss, t->n, positions->sums ? losses : NULL,
                           a->losses ? (T *)a->losses + t->first : NULL);
}

TILE_KERNEL(position_losses)

#endif
