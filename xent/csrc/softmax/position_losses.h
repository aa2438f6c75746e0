/* position_losses.h: losses of positions, each the sum of a point function (points.h) over the classes. Value, gradient
 * or both come out of one pass over a tile.
 */
#include "begin.h"
#include "elements/points.h"
#include "simd/stored.h"
#include "simd/sums.h"
#include "softmax/cut.h"
#include "table.h"

#ifndef XENT_POSITION_LOSSES_H
#define XENT_POSITION_LOSSES_H

/* The factor of the gradient of a position. */
ALWAYS_INLINE double KERNEL(gradient_factor)(double scale, const double *upstream, ptrdiff_t position)
{
    return scale * (upstream ? upstream[position] : 1.0);
}

/* Hand out the losses of a tile: into their sum, and divided by `unit` to `to` (NULL: nowhere), for the tile's first
 * position. `loss` has room for whole vectors. */
static void KERNEL(deliver_losses)(double *loss, ptrdiff_t n, row_sum_f64 *sum, double unit, T *to)
{
    if (sum) row_sum_add_array(sum, loss, n);
    for (ptrdiff_t p = 0; to && p < n; p++) to[p] = (T)(loss[p] / unit);
}

/* Vectors of a tile, `count` at most AHEAD, of n numbers each: neighbouring classes of a position, or a vector of
 * positions over the classes. From the places x, target and out on, a `step` of each apart. */
typedef struct {
    ptrdiff_t x, target, out;
} KERNEL(places);

ALWAYS_INLINE void KERNEL(class_vectors)(const KERNEL(tile) *t, KERNEL(places) at, KERNEL(places) step, int count,
                                         ptrdiff_t n, V scale, const NAME(bounds) *bounds, NAME(sum) *sum,
                                         NAME(loss_log) first, NAME(loss_point) point, int gradient)
{
    const V zero = {0};
    V log[AHEAD];
    for (int k = 0; k < count; k++)
        log[k] = first(KERNEL(load)(t->x + at.x + k * step.x, n, zero),
                       t->target ? KERNEL(load)(t->target + at.target + k * step.target, n, zero) : zero);
    for (int k = 0; k < count; k++, at.x += step.x, at.target += step.target, at.out += step.out) {
        const V x = KERNEL(load)(t->x + at.x, n, zero),
                target = t->target ? KERNEL(load)(t->target + at.target, n, zero) : zero;
        const NAME(loss) l = point(x, target, log[k], bounds, scale);
        NAME(sum_add_product)(sum, l.share, l.cost); /* past the end both numbers are 0, and so is the loss */
        if (gradient) KERNEL(store)(t->out + at.out, l.gradient, n);
    }
}

/* The losses of the positions of a tile, and the gradient. `first`, `point` and `gradient` are constants at every
 * call. */
ALWAYS_INLINE void KERNEL(class_sums)(const xent_position_losses_args *a, const KERNEL(tile) *t, double *loss,
                                      NAME(loss_log) first, NAME(loss_point) point, int gradient)
{
    const NAME(bounds) bounds = NAME(bounds_of)(a->loss.clip);
    const ptrdiff_t classes = a->positions.classes, per = t->rows ? LANES : 1;
    const KERNEL(places) step = {.x = t->rows ? LANES : t->x_step,
                                 .target = t->rows ? LANES : t->target_step,
                                 .out = t->rows ? LANES : t->out_step};
    T scale[TILE];
    for (ptrdiff_t p = 0; p < t->n; p++)
        scale[p] = (T)KERNEL(gradient_factor)(a->loss.gradient_scale, a->upstream, t->first + p);
    for (ptrdiff_t p = t->n; p % LANES; p++) scale[p] = 0;
    for (ptrdiff_t p = 0; p < t->n; p += t->rows ? 1 : LANES) {
        const V factor = t->rows ? NAME(set)(scale[p]) : v_load(scale + p);
        const ptrdiff_t n = t->rows ? LANES : xent_min(LANES, t->n - p);
        KERNEL(places) at = {.x = t->rows ? p * t->x_step : p,
                             .target = t->rows ? p * t->target_step : p,
                             .out = t->rows ? p * t->out_step : p};
        NAME(sum) sum = {{0}, {0}};
        ptrdiff_t c = 0;
        for (; c + AHEAD * per <= classes; c += AHEAD * per) {
            KERNEL(class_vectors)(t, at, step, AHEAD, n, factor, &bounds, &sum, first, point, gradient);
            at.x += AHEAD * step.x, at.target += AHEAD * step.target, at.out += AHEAD * step.out;
        }
        for (; c < classes; c += per, at.x += step.x, at.target += step.target, at.out += step.out)
            KERNEL(class_vectors)(t, at, step, 1, t->rows ? classes - c : n, factor, &bounds, &sum, first, point,
                                  gradient);
        if (t->rows)
            loss[p] = NAME(sum_total)(&sum);
        else
            NAME(sum_lanes)(&sum, loss + p, NULL);
    }
}

static void KERNEL(position_losses_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *losses)
{
    const xent_position_losses_args *a = (const xent_position_losses_args *)positions;
    double loss[TILE];
#define LOSS(code, name, log)                                                                                          \
    case code:                                                                                                         \
        if (t->out)                                                                                                    \
            KERNEL(class_sums)(a, t, loss, NAME(log), NAME(name##_point), 1);                                          \
        else                                                                                                           \
            KERNEL(class_sums)(a, t, loss, NAME(log), NAME(name##_point), 0);                                          \
        break;
    switch (a->loss.kind) {
        POSITION_LOSSES(LOSS)
    }
#undef LOSS
    KERNEL(deliver_losses)(loss, t->n, positions->sums ? losses : NULL, a->loss.unit,
                           a->losses ? (T *)a->losses + t->first : NULL);
}

TILE_KERNEL(position_losses)

#endif
