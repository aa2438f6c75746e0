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

/* Vectors of a tile, `count` of them: neighbouring classes of a position, or a vector of positions over the classes. From
 * the places x, target and out on, a `step` of each apart. */
typedef struct {
    ptrdiff_t x, target, out;
} KERNEL(places);

/* At most TERMS of `sides` vectors, in which there are n numbers: of each vector (columns), or of all (rows). */
ALWAYS_INLINE void KERNEL(class_vectors)(const KERNEL(tile) *t, KERNEL(places) at, KERNEL(places) step, int count,
                                         ptrdiff_t n, V scale, const NAME(bounds) *bounds, NAME(sum) *sum, int rows,
                                         NAME(loss_log) first, NAME(loss_point) point, int gradient)
{
    const V zero = {0}, one = NAME(set)(1);
    const int sides = rows ? WAYS : 1;
    V log[AHEAD], share[AHEAD], cost[AHEAD];
    for (int k = 0; k < count; k += LOGS) {
        V x[LOGS], target[LOGS];
        for (int j = 0; j < LOGS; j++) {
            const ptrdiff_t i = k + j, here = i >= count ? 0 : rows ? n - i * LANES : n;
            x[j] = KERNEL(load_part)(t->x + at.x + i * step.x, here, one);
            target[j] = t->target ? KERNEL(load_part)(t->target + at.target + i * step.target, here, one) : one;
        }
        first(x, target, log + k);
    }
    for (int k = 0; k < count; k++, at.x += step.x, at.target += step.target, at.out += step.out) {
        const ptrdiff_t here = rows ? n - k * LANES : n;
        const V x = KERNEL(load)(t->x + at.x, here, one),
                target = t->target ? KERNEL(load)(t->target + at.target, here, one) : one;
        const NAME(loss) l = point(x, target, log[k], bounds, scale);
        share[k] = l.share, cost[k] = l.cost;
        if (here < LANES) cost[k] = NAME(first_of)(l.cost, here); /* past the end 1 was read */
        if (gradient) KERNEL(store)(t->out + at.out, l.gradient, here);
    }
    for (int k = count; k < TERMS * sides; k++) share[k] = cost[k] = zero;
    NAME(add_products)(sum, share, cost, sides);
}

/* The losses of the positions of a tile, and the gradient. `rows`, `first`, `point` and `gradient` are constants at every
 * call. */
ALWAYS_INLINE void KERNEL(class_sums)(const xent_position_losses_args *a, const KERNEL(tile) *t, double *loss, int rows,
                                      NAME(loss_log) first, NAME(loss_point) point, int gradient)
{
    const NAME(bounds) bounds = NAME(bounds_of)(a->loss.clip);
    const ptrdiff_t classes = a->positions.classes;
    const int most = rows ? AHEAD : TERMS, per = rows ? LANES : 1;
    const KERNEL(places) step = {
        .x = rows ? LANES : t->x_step, .target = rows ? LANES : t->target_step, .out = rows ? LANES : t->out_step};
    T scale[TILE];
    for (ptrdiff_t p = 0; p < t->n; p++)
        scale[p] = (T)KERNEL(gradient_factor)(a->loss.gradient_scale, a->upstream, t->first + p);
    for (ptrdiff_t p = t->n; p % LANES; p++) scale[p] = 0;
    for (ptrdiff_t p = 0; p < t->n; p += rows ? 1 : LANES) {
        const V factor = rows ? NAME(set)(scale[p]) : v_load(scale + p);
        const ptrdiff_t n = xent_min(LANES, t->n - p);
        KERNEL(places) at = {
            .x = rows ? p * t->x_step : p, .target = rows ? p * t->target_step : p, .out = rows ? p * t->out_step : p};
        NAME(row_sum) sum;
        ptrdiff_t c = 0;
        NAME(start_row_sum)(&sum);
        for (; c + most * per <= classes; c += most * per) {
            if (rows) {
                KERNEL(fetch_ahead)(t->x + at.x, most * LANES);
                if (t->target) KERNEL(fetch_ahead)(t->target + at.target, most * LANES);
                if (gradient) KERNEL(fetch_ahead)(t->out + at.out, most * LANES);
            }
            if (rows || n == LANES)
                KERNEL(class_vectors)(t, at, step, most, rows ? most * LANES : LANES, factor, &bounds, sum.way, rows,
                                      first, point, gradient);
            else
                KERNEL(class_vectors)(t, at, step, most, n, factor, &bounds, sum.way, rows, first, point, gradient);
            at.x += most * step.x, at.target += most * step.target, at.out += most * step.out;
        }
        if (c < classes)
            KERNEL(class_vectors)(t, at, step, (int)((classes - c + per - 1) / per), rows ? classes - c : n, factor,
                                  &bounds, sum.way, rows, first, point, gradient);
        if (rows)
            loss[p] = NAME(row_total)(&sum);
        else
            NAME(sum_lanes)(&sum.way[0], loss + p, NULL);
    }
}

static void KERNEL(position_losses_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *losses)
{
    const xent_position_losses_args *a = (const xent_position_losses_args *)positions;
    double loss[TILE];
#define WAY(name, log, gradient)                                                                                       \
    t->rows ? KERNEL(class_sums)(a, t, loss, 1, NAME(log), NAME(name##_point), gradient)                               \
            : KERNEL(class_sums)(a, t, loss, 0, NAME(log), NAME(name##_point), gradient)
#define LOSS(code, name, log)                                                                                          \
    case code:                                                                                                         \
        if (t->out)                                                                                                    \
            WAY(name, log, 1);                                                                                         \
        else                                                                                                           \
            WAY(name, log, 0);                                                                                         \
        break;
    switch (a->loss.kind) {
        POSITION_LOSSES(LOSS)
    }
#undef LOSS
#undef WAY
    KERNEL(deliver_losses)(loss, t->n, positions->sums ? losses : NULL, a->loss.unit,
                           a->losses ? (T *)a->losses + t->first : NULL);
}

TILE_KERNEL(position_losses)

#endif
