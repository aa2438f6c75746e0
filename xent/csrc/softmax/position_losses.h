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

/* What is made with care: positions with odd factors, and odd elements of others. */
typedef struct {
    const xent_loss *given;
    const double *upstream; /* of the first position of the vectors, or NULL */
    double *extra;          /* the losses of odd elements, of each position */
    int rows, careful;      /* whether a position has an odd factor */
    V odd_factor;           /* 1 for these, else 0 */
} KERNEL(care);

/* Make odd elements of a vector, of which n are there, with care: the gradient, and if it is wanted the loss, which
 * leaves the products. */
static __attribute__((noinline)) void KERNEL(mend_classes)(const KERNEL(care) *care, ptrdiff_t n, V x, V t, V odd,
                                                           NAME(loss) *l, int value)
{
    for (int k = 0; k < xent_min(n, LANES); k++) {
        if (odd[k] == 0 && care->odd_factor[k] == 0) continue;
        const int position = care->rows ? 0 : k;
        const careful_loss made =
            careful_point(care->given, (double)x[k], (double)t[k], 1, care->upstream ? care->upstream[position] : 1);
        l->gradient[k] = KERNEL(narrowed)(0.0 + wide_as_double(made.gradient));
        if (!value || odd[k] == 0) continue;
        l->share[k] = l->cost[k] = 0;
        care->extra[position] += wide_as_double(made.loss);
    }
}

/* At most TERMS of `sides` vectors, in which there are n numbers: of each vector (columns), or of all (rows). */
ALWAYS_INLINE void KERNEL(class_vectors)(const KERNEL(tile) *t, KERNEL(places) at, KERNEL(places) step, int count,
                                         ptrdiff_t n, V scale, const NAME(bounds) *bounds, NAME(sum) *sum,
                                         const KERNEL(care) *care, int rows, NAME(loss_log) first,
                                         NAME(loss_point) point, int odd, int gradient)
{
    const V zero = {0}, one = NAME(set)(1);
    const int sides = rows ? WAYS : 1;
    const int looks = odd == ODD_LOSS || (odd == ODD_GRADIENT && gradient);
    V log[AHEAD], share[AHEAD], cost[AHEAD], slope[AHEAD];
    VM any = m_gt(zero, zero);
    for (int k = 0; k < count; k += LOGS) {
        V x[LOGS], target[LOGS];
        for (int j = 0; j < LOGS; j++) {
            const ptrdiff_t i = k + j, here = i >= count ? 0 : rows ? n - i * LANES : n;
            x[j] = KERNEL(load_part)(t->x + at.x + i * step.x, here, one);
            target[j] = t->target ? KERNEL(load_part)(t->target + at.target + i * step.target, here, one) : one;
        }
        first(x, target, log + k);
    }
#define HERE const ptrdiff_t here = rows ? n - k * LANES : n
#define POINT                                                                                                          \
    const V x = KERNEL(load)(t->x + at.x + k * step.x, here, one),                                                     \
            target = t->target ? KERNEL(load)(t->target + at.target + k * step.target, here, one) : one;               \
    NAME(loss) l = point(x, target, log[k], bounds, scale)
    for (int k = 0; k < count; k++) {
        HERE;
        POINT;
        share[k] = l.share, cost[k] = l.cost;
        if (gradient) slope[k] = l.gradient;
        if (here < LANES) cost[k] = NAME(first_of)(l.cost, here); /* past the end 1 was read */
        if (looks) any = any | l.odd;
    }
    if (__builtin_expect((looks && m_any(any)) | (gradient && care->careful), 0))
        for (int k = 0; k < count; k++) {
            HERE;
            POINT;
            l.share = share[k], l.cost = cost[k];
            KERNEL(mend_classes)(care, here, x, target, looks ? v_select(l.odd, one, zero) : zero, &l, odd == ODD_LOSS);
            share[k] = l.share, cost[k] = l.cost, slope[k] = l.gradient;
        }
    for (int k = 0; gradient && k < count; k++) {
        HERE;
        KERNEL(store)(t->out + at.out + k * step.out, slope[k], here);
    }
#undef POINT
#undef HERE
    for (int k = count; k < TERMS * sides; k++) share[k] = cost[k] = zero;
    NAME(add_products)(sum, share, cost, sides);
}

/* The losses of the positions of a tile, and the gradient. `rows`, `first`, `point` and `gradient` are constants at every
 * call. */
ALWAYS_INLINE void KERNEL(class_sums)(const xent_position_losses_args *a, const KERNEL(tile) *t, double *loss, int rows,
                                      NAME(loss_log) first, NAME(loss_point) point, int odd, int gradient)
{
    const NAME(bounds) bounds = NAME(bounds_of)(a->loss.clip);
    const ptrdiff_t classes = a->positions.classes;
    const int most = rows ? AHEAD : TERMS, per = rows ? LANES : 1;
    const KERNEL(places) step = {
        .x = rows ? LANES : t->x_step, .target = rows ? LANES : t->target_step, .out = rows ? LANES : t->out_step};
    T scale[TILE], odd_factor[TILE];
    int careful = 0;
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const double factor = KERNEL(gradient_factor)(a->loss.gradient_scale, a->upstream, t->first + p);
        const double size = fabs(factor), most = BY_TYPE(XENT_PLAIN_SCALE_F32, XENT_PLAIN_SCALE_F64);
        const int plain = (size >= 1 / most && size <= most) || (size == 0 && !a->loss.careful);
        scale[p] = (T)factor, odd_factor[p] = !plain, careful |= !plain;
    }
    for (ptrdiff_t p = t->n; p % LANES; p++) scale[p] = odd_factor[p] = 0;
    for (ptrdiff_t p = 0; p < t->n; p += rows ? 1 : LANES) {
        const V factor = rows ? NAME(set)(scale[p]) : v_load(scale + p);
        const ptrdiff_t n = xent_min(LANES, t->n - p);
        KERNEL(places) at = {
            .x = rows ? p * t->x_step : p, .target = rows ? p * t->target_step : p, .out = rows ? p * t->out_step : p};
        NAME(row_sum) sum;
        double extra[LANES] = {0};
        const KERNEL(care) care = {.given = &a->loss,
                                   .upstream = a->upstream ? a->upstream + t->first + p : NULL,
                                   .extra = extra,
                                   .rows = rows,
                                   .careful = careful,
                                   .odd_factor = rows ? NAME(set)(odd_factor[p]) : v_load(odd_factor + p)};
        ptrdiff_t c = 0;
        NAME(start_row_sum)(&sum);
        for (; c + most * per <= classes; c += most * per) {
            if (rows) {
                KERNEL(fetch_ahead)(t->x + at.x, most * LANES);
                if (t->target) KERNEL(fetch_ahead)(t->target + at.target, most * LANES);
                if (gradient) KERNEL(fetch_ahead)(t->out + at.out, most * LANES);
            }
            if (rows || n == LANES)
                KERNEL(class_vectors)(t, at, step, most, rows ? most * LANES : LANES, factor, &bounds, sum.way, &care,
                                      rows, first, point, odd, gradient);
            else
                KERNEL(class_vectors)(t, at, step, most, n, factor, &bounds, sum.way, &care, rows, first, point, odd,
                                      gradient);
            at.x += most * step.x, at.target += most * step.target, at.out += most * step.out;
        }
        if (c < classes)
            KERNEL(class_vectors)(t, at, step, (int)((classes - c + per - 1) / per), rows ? classes - c : n, factor,
                                  &bounds, sum.way, &care, rows, first, point, odd, gradient);
        if (rows)
            loss[p] = NAME(row_total)(&sum);
        else
            NAME(sum_lanes)(&sum.way[0], loss + p, NULL);
        for (ptrdiff_t k = 0; odd == ODD_LOSS && k < (rows ? 1 : n); k++)
            if (extra[k] != 0) loss[p + k] += extra[k]; /* a sum of -0 keeps its sign */
    }
}

static void KERNEL(position_losses_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *losses)
{
    const xent_position_losses_args *a = (const xent_position_losses_args *)positions;
    double loss[TILE];
#define WAY(name, log, odd, gradient)                                                                                  \
    t->rows ? KERNEL(class_sums)(a, t, loss, 1, NAME(log), NAME(name##_point), odd, gradient)                          \
            : KERNEL(class_sums)(a, t, loss, 0, NAME(log), NAME(name##_point), odd, gradient)
#define LOSS(code, name, log, odd)                                                                                     \
    case code:                                                                                                         \
        if (t->out)                                                                                                    \
            WAY(name, log, odd, 1);                                                                                    \
        else                                                                                                           \
            WAY(name, log, odd, 0);                                                                                    \
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
