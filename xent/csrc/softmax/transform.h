/* transform.h: tiles whose logits are transformed before anything else: u = x / temperature, then cap tanh(u / cap),
 * then + offset[c].
 *
 * What comes after needs the distances d_c = u_c - M from about the largest u, M, and their exponentials. A tile gets
 * both in scratch memory: distances are computed as sums of two numbers, as a rounding error of d would be a relative
 * error of e^d; the exponential is that of the sum, and the distance is then rounded. M is the exact u of the largest
 * logit or, with offsets, the largest of the rounded u; the largest distance is 0 or tiny, so one power of two does for
 * all exponentials (stats.h).
 *
 * In the scratch a tile lies in rows or, where lanes are positions, in columns (tile.h); short rows are transposed. The
 * gradient by x is that by u times
 *
 *   du / dx  = sech^2(x / (temperature cap)) / temperature
 *   sech^2 z = 4 e / (1 + e)^2 with e = exp(-2 |z|): no 1 - tanh^2
 *
 * of which the caller knows 1 / temperature.
 */
#include "begin.h"
#include "simd/exp.h"
#include "softmax/stats.h"
#include "softmax/tile.h"

#ifndef XENT_TRANSFORM_H
#define XENT_TRANSFORM_H

#ifndef STORED_AS_16

#if XENT_REAL == 64
/* The numbers of one array of a tile. */
static ptrdiff_t transform_elements(const xent_positions *positions)
{
    return positions->room / xent_transformed_arrays(positions);
}

/* 1 / v, finite. */
ALWAYS_INLINE double finite_inverse(double v)
{
    const double inverse = 1 / v;
    return inverse < LARGEST ? inverse : LARGEST;
}

/* g sech^2 z from e = exp(-2 |z|). */
ALWAYS_INLINE vf64 times_du(vf64 g, vf64 e)
{
    const vf64 one = set_f64(1);
    return g * (set_f64(4) * e / ((one + e) * (one + e)));
}
#endif

/* The numbers of the transformation, as vectors. 1 / temperature is (rate + rate_low) step^steps: powers of two keep
 * the sum in the range where its low word has all its bits. */
typedef struct {
    V rate, rate_low, step;
    int steps;
    vf64 wide_rate, inverse_cap, cap;
    NAME(scale) scale;
} NAME(transform);

static NAME(transform) NAME(transform_of)(const xent_positions *positions)
{
    const int reach = EXPONENT_BIAS - 1;
    int exponent;
    const double mantissa = frexp(positions->temperature, &exponent), rate = 1 / mantissa,
                 rate_low = fma(-rate, mantissa, 1) / mantissa;
    const int steps = ((exponent < 0 ? -exponent : exponent) + reach / 2) / reach, step = exponent < 0 ? reach : -reach;
    const T high = (T)rate;
    NAME(transform) f;
    f.rate = NAME(set)((T)ldexp(high, -exponent - steps * step));
    f.rate_low = NAME(set)((T)ldexp((rate - high) + rate_low, -exponent - steps * step));
    f.step = NAME(set)((T)ldexp(1.0, step)), f.steps = steps;
    f.wide_rate = set_f64(finite_inverse(positions->temperature));
    f.cap = set_f64(positions->cap), f.inverse_cap = set_f64(finite_inverse(positions->cap));
    f.scale = NAME(scale_of)(NAME(set)(FIRST_SCALE_EXPONENT));
    return f;
}

/* (x - m) / temperature = the result + *low. */
ALWAYS_INLINE V NAME(distance)(const NAME(transform) *f, V x, V m, V *low)
{
    V difference = x - m, error = NAME(sum_error)(x, (V){0} - m, difference);
    for (int k = 0; k < f->steps; k++) difference = difference * f->step, error = error * f->step;
    const V d = difference * f->rate;
    *low = v_fma(error, f->rate, v_fma(difference, f->rate_low, NAME(product_error)(difference, f->rate, d)));
    return d;
}

/* cap tanh z, z = x / (temperature cap), of doubles: a vector of floats is two. */
#define PARTS BY_TYPE(2, 1)
#if XENT_REAL == 32
ALWAYS_INLINE vf64 NAME(part)(V x, int k) { return k == 0 ? v_widen_lo(x) : v_widen_hi(x); }
#else
ALWAYS_INLINE vf64 NAME(part)(V x, int k) { return (void)k, x; }
#endif
ALWAYS_INLINE vf64 NAME(ratio)(const NAME(transform) *f, V x, int k)
{
    return NAME(part)(x, k) * f->wide_rate * f->inverse_cap;
}

/* Add v to d + *low. */
ALWAYS_INLINE V NAME(pair_add)(V d, V v, V *low)
{
    const V sum = d + v;
    *low = *low + NAME(sum_error)(d, v, sum);
    return sum;
}

/* A row, or at most a vector of columns, of `lanes` positions: class c lies at c * x_unit of the logits and c * unit of
 * the scratch. */
typedef struct {
    const T *x, *next, *offset, *offset_low; /* next: what is read after this */
    T *d, *exps;
    ptrdiff_t x_unit, unit, lanes, classes;
    V m, most;    /* the largest logit (0 if it is infinite), and the largest distance from it, with offsets */
    vf64 peak[2]; /* the capped u of the largest logit */
} NAME(line);

/* What is constant at every call: whether lanes are positions, and which transformations there are. */
typedef struct {
    int lanes_are_positions, capped, offset;
} NAME(transformation);

ALWAYS_INLINE V NAME(logits_at)(const NAME(line) *l, ptrdiff_t c, NAME(transformation) variant)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    return variant.lanes_are_positions ? NAME(load)(l->x + c * l->x_unit, l->lanes, (V){0})
                                       : NAME(load)(l->x + c, l->classes - c, minus_infinity);
}

/* The largest of a row in all lanes; of columns, which have one each, as they are. */
ALWAYS_INLINE V NAME(line_max)(V max, NAME(transformation) variant)
{
    return variant.lanes_are_positions ? max : NAME(set)(v_reduce_max(max));
}

ALWAYS_INLINE V NAME(largest_logit)(const NAME(line) *l, NAME(transformation) variant)
{
    V max_logit[2] = {NAME(set)((T)-INFINITY), NAME(set)((T)-INFINITY)};
    ptrdiff_t c = 0;
    for (; !variant.lanes_are_positions && c + 2 * LANES <= l->classes; c += 2 * LANES) {
        for (int k = 0; k < 2 * LANES; k += CACHE_LINE / (int)sizeof(T)) __builtin_prefetch(l->next + c + k);
        for (int k = 0; k < 2; k++) max_logit[k] = v_max(v_load(l->x + c + k * LANES), max_logit[k]);
    }
    for (; c < l->classes; c += variant.lanes_are_positions ? 1 : LANES)
        max_logit[0] = v_max(NAME(logits_at)(l, c, variant), max_logit[0]);
    return NAME(line_max)(v_max(max_logit[0], max_logit[1]), variant);
}

ALWAYS_INLINE V NAME(if_finite)(V v)
{
    const V zero = {0};
    return v_select(m_gt(NAME(set)((T)INFINITY), v_abs(v)), v, zero);
}

/* Add the offset of class c, or of a vector from there on. */
ALWAYS_INLINE V NAME(add_offset)(const NAME(line) *l, ptrdiff_t c, NAME(transformation) variant, V d, V *low)
{
    const V minus_infinity = NAME(set)((T)-INFINITY), zero = {0};
    const ptrdiff_t n = l->classes - c;
    d = NAME(pair_add)(
        d, variant.lanes_are_positions ? NAME(set)(l->offset[c]) : NAME(load)(l->offset + c, n, minus_infinity), low);
    *low = *low + (variant.lanes_are_positions ? NAME(set)(l->offset_low[c]) : NAME(load)(l->offset_low + c, n, zero));
    return d;
}

/* The distances of `count` vectors from class c on, of capped logits from the largest of them; to d and, what is left,
 * to exps. The exponentials of all come first: one after the other, each turn would wait for its division. Returns the
 * larger of them and `max_distance`. */
#define CAPPED 8 /* vectors at most: some hundred instructions each, of which a processor looks some hundreds ahead */
ALWAYS_INLINE V NAME(capped_distances)(const NAME(line) *l, const NAME(transform) *f, ptrdiff_t c, ptrdiff_t count,
                                       NAME(transformation) variant, V max_distance)
{
    const ptrdiff_t per = variant.lanes_are_positions ? 1 : LANES, unit = variant.lanes_are_positions ? l->unit : 1;
    vf64 e[CAPPED][2], u[2];
    for (ptrdiff_t j = 0; j < count; j++)
        for (int k = 0; k < PARTS; k++)
            e[j][k] = tanh_exp_f64(NAME(ratio)(f, NAME(logits_at)(l, c + j * per, variant), k));
    for (ptrdiff_t j = 0; j < count; j++, c += per) {
        const V x = NAME(logits_at)(l, c, variant);
        for (int k = 0; k < PARTS; k++) u[k] = f->cap * tanh_of_exp_f64(e[j][k], NAME(ratio)(f, x, k));
#if XENT_REAL == 32
        u[0] = u[0] - l->peak[0], u[1] = u[1] - l->peak[1];
        V d = v_narrow(u[0], u[1]), low = v_narrow(u[0] - v_widen_lo(d), u[1] - v_widen_hi(d));
#else
        V d = u[0] - l->peak[0], low = NAME(sum_error)(u[0], (V){0} - l->peak[0], d);
#endif
        if (variant.offset) d = NAME(add_offset)(l, c, variant, d, &low);
        max_distance = v_max(d, max_distance);
        v_store(l->d + c * unit, d), v_store(l->exps + c * unit, low);
    }
    return max_distance;
}

/* Where there are caps or offsets the distances from m, in two parts, come first: with offsets, the largest is taken
 * from them. */
ALWAYS_INLINE void NAME(first_distances)(NAME(line) *l, const NAME(transform) *f, V largest,
                                         NAME(transformation) variant)
{
    const ptrdiff_t classes = l->classes, per = variant.lanes_are_positions ? 1 : LANES,
                    unit = variant.lanes_are_positions ? l->unit : 1;
    V low, max_distance = NAME(set)((T)-INFINITY);
    for (int k = 0; variant.capped && k < PARTS; k++) {
        const vf64 z = NAME(ratio)(f, largest, k);
        l->peak[k] = f->cap * tanh_of_exp_f64(tanh_exp_f64(z), z);
    }
    for (ptrdiff_t c = 0; variant.capped && c < classes; c += CAPPED * per)
        max_distance =
            NAME(capped_distances)(l, f, c, xent_min(CAPPED, (classes - c + per - 1) / per), variant, max_distance);
    for (ptrdiff_t c = 0; !variant.capped && c < classes; c += per) {
        V d = NAME(distance)(f, NAME(logits_at)(l, c, variant), l->m, &low);
        d = NAME(add_offset)(l, c, variant, d, &low);
        max_distance = v_max(d, max_distance);
        v_store(l->d + c * unit, d), v_store(l->exps + c * unit, low);
    }
    if (variant.offset) l->most = NAME(if_finite)(NAME(line_max)(max_distance, variant));
}

/* The distances of a line and their exponentials; returns the largest distance. Two loops: of one, each turn would wait
 * for its exponential. */
ALWAYS_INLINE V NAME(transform_line)(NAME(line) *l, const NAME(transform) *f, NAME(transformation) variant)
{
    const ptrdiff_t classes = l->classes, per = variant.lanes_are_positions ? 1 : LANES,
                    unit = variant.lanes_are_positions ? l->unit : 1;
    const V zero = {0}, largest = NAME(largest_logit)(l, variant);
    V low, max_distance = NAME(set)((T)-INFINITY);
    l->m = NAME(if_finite)(largest), l->most = zero;
    if (variant.capped || variant.offset) NAME(first_distances)(l, f, largest, variant);
    for (ptrdiff_t first = 0; first < classes; first += BLOCK) {
        const ptrdiff_t end = xent_min(classes, first + BLOCK);
        for (ptrdiff_t c = first; c < end; c += per) {
            const int first_made = variant.capped || variant.offset;
            low = first_made ? v_load(l->exps + c * unit) : zero;
            V d = first_made ? v_load(l->d + c * unit) : NAME(distance)(f, NAME(logits_at)(l, c, variant), l->m, &low);
            if (variant.offset) d = NAME(pair_add)(d, zero - l->most, &low);
            const V rounded = d + low;
            const VM counts = m_gt(rounded, f->scale.floor); /* infinities have made NaN of low */
            const V distance = v_select(counts, rounded, d);
            max_distance = v_max(distance, max_distance);
            v_store(l->d + c * unit, distance);
            v_store(l->exps + c * unit, v_select(counts, (d - rounded) + low, zero));
        }
        for (ptrdiff_t c = first; c < end; c += per)
            v_store(l->exps + c * unit,
                    NAME(exp_scaled_pair)(v_load(l->d + c * unit), v_load(l->exps + c * unit), f->scale));
    }
    return NAME(line_max)(max_distance, variant);
}

/* The positions of a tile in `d` and `exps`: distances of the logits x, and their exponentials (those of a row followed
 * by zeros, up to a multiple of GROUP vectors). Of each position also the largest distance, and M. */
static void NAME(transform_lines)(const xent_positions *positions, const T *x, ptrdiff_t x_step, T *d, T *exps,
                                  ptrdiff_t step, ptrdiff_t n, int lanes_are_positions, T *max_logit, double *moved)
{
    const NAME(transform) f = NAME(transform_of)(positions);
    const T *offset = (const T *)positions->offset, *offset_low = offset ? offset + positions->classes : NULL;
    const size_t rest = (size_t)(NAME(padded_row)(positions->classes) - positions->classes);
    for (ptrdiff_t p = 0; p < n; p += lanes_are_positions ? LANES : 1) {
        const ptrdiff_t to = lanes_are_positions ? p : p * step;
        const T *from = x + (lanes_are_positions ? p : p * x_step);
        NAME(line) l = {.x = from,
                        .next = from + x_step,
                        .offset = offset,
                        .offset_low = offset_low,
                        .d = d + to,
                        .exps = exps + to,
                        .x_unit = x_step,
                        .unit = step,
                        .lanes = n - p,
                        .classes = positions->classes};
        double peak[2 * LANES_F64];
        V max_distance;
#define VARIANT(lanes, cap, added)                                                                                     \
    NAME(transform_line)(&l, &f, (NAME(transformation)){.lanes_are_positions = lanes, .capped = cap, .offset = added})
        if (lanes_are_positions)
            max_distance = positions->cap != 0 ? (offset ? VARIANT(1, 1, 1) : VARIANT(1, 1, 0))
                           : offset            ? VARIANT(1, 0, 1)
                                               : VARIANT(1, 0, 0);
        else
            max_distance = positions->cap != 0 ? (offset ? VARIANT(0, 1, 1) : VARIANT(0, 1, 0))
                           : offset            ? VARIANT(0, 0, 1)
                                               : VARIANT(0, 0, 0);
#undef VARIANT
        if (!lanes_are_positions) memset(l.exps + positions->classes, 0, rest * sizeof(T));
        v_store(peak, l.peak[0]), v_store(peak + LANES_F64, l.peak[1]);
        for (int k = 0; k < (lanes_are_positions ? LANES : 1); k++) {
            max_logit[p + k] = max_distance[k];
            moved[p + k] = (positions->cap != 0 ? peak[k] : l.m[k] * f.wide_rate[0]) + l.most[k];
        }
    }
}

/* g sech^2(x / (temperature cap)) in the place of g, 0 where g is 0 (the position may be ignored, and x NaN); whole
 * vectors. In doubles: an exponential of floats would add its rounding to that of g. As in capped_distances, the
 * exponentials come first. */
static void NAME(multiply_by_du)(const xent_positions *positions, const T *x, T *g, ptrdiff_t n)
{
    const NAME(transform) f = NAME(transform_of)(positions);
    const V zero = {0};
    for (ptrdiff_t first = 0; first < n; first += CAPPED * LANES) {
        const ptrdiff_t end = xent_min(n, first + CAPPED * LANES);
        vf64 e[CAPPED][2], product[2] = {{0}, {0}};
        for (ptrdiff_t i = first; i < end; i += LANES)
            for (int k = 0; k < PARTS; k++)
                e[(i - first) / LANES][k] = exp_f64(set_f64(-2) * v_abs(NAME(ratio)(&f, v_load(x + i), k)));
        for (ptrdiff_t i = first; i < end; i += LANES) {
            const V v = v_load(g + i);
            for (int k = 0; k < PARTS; k++) product[k] = times_du(NAME(part)(v, k), e[(i - first) / LANES][k]);
#if XENT_REAL == 32
            v_store(g + i, v_select(m_eq(v, zero), zero, v_narrow(product[0], product[1])));
#else
            v_store(g + i, v_select(m_eq(v, zero), zero, product[0]));
#endif
        }
    }
}
#endif /* STORED_AS_16 */

/* A tile on which `function` works as on one of the type computed with. */
static void KERNEL(transformed_tile)(const xent_positions *positions, const KERNEL(tile) *t, T *room, row_sum_f64 *sums,
                                     NAME(tile_function) function)
{
    const ptrdiff_t elements = transform_elements(positions), classes = positions->classes;
    const ptrdiff_t step =
        t->lanes_are_positions ? (t->n + LINE_COLUMNS - 1) / LINE_COLUMNS * LINE_COLUMNS : NAME(padded_row)(classes);
    const int as_it_lies = sizeof(S) == sizeof(T) && !(t->lanes_are_positions && t->rows),
              direct = as_it_lies && positions->cap == 0;
    T *d = room, *exps = d + elements, *target = exps + elements, *hess = t->target ? target + elements : target,
      max_logit[TILE];
    double moved[TILE];
    if (!as_it_lies) KERNEL(gather)(t->x, t->x_step, t->rows, d, step, t->n, classes, t->lanes_are_positions);
    if (!as_it_lies && t->target)
        KERNEL(gather)(t->target, t->target_step, t->rows, target, step, t->n, classes, t->lanes_are_positions);
    NAME(transform_lines)(positions, as_it_lies ? (const T *)t->x : d, as_it_lies ? t->x_step : step, d, exps, step,
                          t->n, t->lanes_are_positions, max_logit, moved);
    const NAME(tile) transformed = {.x = d,
                                    .x_step = step,
                                    .exps = exps,
                                    .exps_step = step,
                                    .first = t->first,
                                    .n = t->n,
                                    .rows = !t->lanes_are_positions,
                                    .lanes_are_positions = t->lanes_are_positions,
                                    .kept = 1,
                                    .logits = t->lanes_are_positions ? d : NULL,
                                    .max_logit = max_logit,
                                    .moved = moved,
                                    .target = !t->target   ? NULL
                                              : as_it_lies ? (const T *)t->target
                                                           : target,
                                    .target_step = as_it_lies ? t->target_step : step,
                                    .out = !t->out  ? NULL
                                           : direct ? (T *)t->out
                                                    : d,
                                    .out_step = direct ? t->out_step : step,
                                    .hess = !t->hess ? NULL
                                            : direct ? (T *)t->hess
                                                     : hess,
                                    .hess_step = direct ? t->hess_step : step};
    function(positions, &transformed, sums);
    if (direct) return;
    if (t->out && positions->cap != 0) {
        KERNEL(gather)(t->x, t->x_step, t->rows, exps, step, t->n, classes, t->lanes_are_positions);
        NAME(multiply_by_du)(positions, exps, d, (t->lanes_are_positions ? classes : t->n) * step);
    }
    if (t->out) KERNEL(scatter)(d, step, t->out, t->out_step, t->rows, t->n, classes, t->lanes_are_positions);
    if (t->hess) KERNEL(scatter)(hess, step, t->hess, t->hess_step, t->rows, t->n, classes, t->lanes_are_positions);
}

#endif
