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
 *   sech^2 z = 4 e / (1 + e)^2 with e = exp(-2 |z|): no 1 - tanh^2, but where z is small and nothing cancels
 *
 * of which the caller knows 1 / temperature.
 */
#include "begin.h"
#include "simd/exp.h"
#include "softmax/stats.h"
#include "softmax/tile.h"
#include "wide.h"

#include <float.h>

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
#endif

/* g sech^2 z from exp(-2 |z|) = raised 2^-SLOPE_RAISE: raised as the exponentials of doubles are (HEADROOM of stats.h),
 * it has all its digits wherever the result is not 0. Floats do not feel where doubles underflow. */
#define SLOPE_RAISE BY_TYPE(0, 256)
#define SLOPE_FARTHEST 886.0 /* -log 2^-(1022 + 256), rounded up */
ALWAYS_INLINE vf64 NAME(times_du)(vf64 g, vf64 raised)
{
    const vf64 one = set_f64(1);
#if XENT_REAL == 32
    return g * (set_f64(4) * raised / ((one + raised) * (one + raised)));
#else
    const vf64 down = set_f64(power_of_2(-SLOPE_RAISE)), e = raised * down;
    return g * (set_f64(4) / ((one + e) * (one + e))) * raised * down;
#endif
}

/* The numbers of the transformation, as vectors. 1 / temperature is (rate + rate_low) step^steps: powers of two keep
 * the sum in the range where its low word has all its bits. All factors are at least 1, or all at most 1, so that no
 * product on the way leaves a range that the last does not leave. */
typedef struct {
    V rate, rate_low, step;
    int steps;
    V reach; /* logits up to it are so far from the cap that tanh_rest does */
    vf64 wide_rate, inverse_cap, cap;
    vf64 slope, slope_low; /* 2 / (temperature cap) */
#if XENT_REAL == 32
    vf32 ratio, ratio_low; /* 1 / (temperature cap), also in doubles */
    vf64 wide_ratio;
#endif
    NAME(scale) scale;
} NAME(transform);

static NAME(transform) NAME(transform_of)(const xent_positions *positions)
{
    const int reach = EXPONENT_BIAS / 2; /* Dekker's splitting and the low word have room beside it */
    int exponent;
    const double mantissa = frexp(positions->temperature, &exponent), rate = 1 / mantissa,
                 rate_low = fma(-rate, mantissa, 1) / mantissa;
    const int steps = (exponent < 0 ? -exponent : exponent) / reach, step = exponent < 0 ? reach : -reach;
    const T high = (T)rate;
    NAME(transform) f;
    f.rate = NAME(set)((T)ldexp(high, -exponent - steps * step));
    f.rate_low = NAME(set)((T)ldexp((rate - high) + rate_low, -exponent - steps * step));
    f.step = NAME(set)((T)ldexp(1.0, step)), f.steps = steps;
    f.wide_rate = set_f64(finite_inverse(positions->temperature));
    f.cap = set_f64(positions->cap), f.inverse_cap = set_f64(finite_inverse(positions->cap));
    f.reach = NAME(set)((T)fmin(TANH_REACH * positions->temperature * positions->cap, LARGEST));
#if XENT_REAL == 32
    f.wide_ratio = f.wide_rate * f.inverse_cap, f.ratio = set_f32((float)f.wide_ratio[0]);
    f.ratio_low = set_f32((float)(f.wide_ratio[0] - f.ratio[0]));
    if (!(f.ratio[0] <= LARGEST)) f.reach = set_f32(-1), f.wide_ratio = set_f64(fmin(f.wide_ratio[0], DBL_MAX));
#endif
    const double t = positions->temperature, cap = positions->cap != 0 ? positions->cap : 1, bend = t * cap,
                 slope = 2 / bend;
    f.slope = set_f64(slope), f.slope_low = set_f64((fma(-slope, bend, 2) - slope * fma(t, cap, -bend)) / bend);
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

/* z = x / (temperature cap). One product may leave the range of doubles, but not where that of floats matters. */
ALWAYS_INLINE vf64 NAME(ratio)(const NAME(transform) *f, vf64 x)
{
#if XENT_REAL == 32
    return x * f->wide_ratio;
#else
    return x * f->wide_rate * f->inverse_cap;
#endif
}

/* exp(-2 |z|) 2^SLOPE_RAISE. An exponential has the relative error that is the absolute one of its argument: of doubles
 * that is a sum of two numbers, of which infinities and NaN have no second. */
ALWAYS_INLINE vf64 NAME(raised_slope)(const NAME(transform) *f, vf64 x)
{
    const scale_f64 scale = scale_of_f64(set_f64(-SLOPE_RAISE));
#if XENT_REAL == 32
    return exp_scaled_f64(set_f64(-2) * v_abs(NAME(ratio)(f, x)), scale);
#else
    const vf64 zero = {0}, size = v_abs(x), z = size * f->slope, most = set_f64(SLOPE_FARTHEST);
    const vf64 low = v_fma(size, f->slope_low, product_error_f64(size, f->slope, z));
    return exp_scaled_pair_f64(-z, v_select(m_gt(most, z), -low, zero), scale);
#endif
}

/* Whether a logit is beyond the reach; NaN and infinities are. */
ALWAYS_INLINE VM NAME(is_far)(const NAME(transform) *f, V x) { return (VM)~m_ge(f->reach, v_abs(x)); }

/* cap tanh z of CAPPED vectors of logits. Where some are beyond the reach (`far`, a constant at every call) the
 * exponentials of all come first: one after the other, each turn would wait for its division. A number comes out the
 * same whatever its neighbours are. */
#define CAPPED (8 / PARTS)
ALWAYS_INLINE void NAME(cap_logits)(const NAME(transform) *f, const V *x, vf64 *u, int far)
{
    vf64 z[8], near[8], e[8];
    for (int i = 0; i < 8; i++) z[i] = NAME(ratio)(f, NAME(part)(x[i / PARTS], i % PARTS));
    tanh_rests_f64(z, near, 8);
    for (int i = 0; far && i < 8; i++) e[i] = exp_scaled_f64(set_f64(-2) * v_abs(z[i]), scale_of_f64((vf64){0}));
    for (int i = 0; i < 8; i++) {
        const vf64 v = NAME(part)(x[i / PARTS], i % PARTS), steep = v * f->wide_rate;
        u[i] = v_fma(steep, near[i], steep);
        if (far) u[i] = v_select(m_ge(NAME(part)(f->reach, 0), v_abs(v)), u[i], f->cap * tanh_of_exp_f64(e[i], z[i]));
    }
}

/* The same of one, within the reach or beyond it. */
static void NAME(cap_one)(const NAME(transform) *f, V x, vf64 *u)
{
    vf64 all[8];
    V many[CAPPED];
    for (int j = 0; j < CAPPED; j++) many[j] = x;
    NAME(cap_logits)(f, many, all, 1);
    for (int k = 0; k < PARTS; k++) u[k] = all[k];
}

ALWAYS_INLINE int NAME(any_far)(const NAME(transform) *f, const V *x)
{
    V most = v_abs(x[0]);
    for (int j = 1; j < CAPPED; j++) most = v_max(v_abs(x[j]), most);
    return m_any(NAME(is_far)(f, most));
}

/* A row, or at most a vector of columns, of `lanes` positions: class c lies at c * x_unit of the logits and c * unit of
 * the scratch. */
typedef struct {
    const T *x, *next, *result, *offset, *offset_low; /* next: what is read after this; result: what is written */
    T *d, *exps;
    ptrdiff_t x_unit, unit, lanes, classes;
    V m, most;    /* the largest logit (0 if it is infinite), and the largest distance from it, with offsets */
    vf64 peak[2]; /* the capped u of the largest logit */
    double temperature;
} NAME(line);

/* What is constant at every call: whether lanes are positions, and which transformations there are. A cap has the
 * temperature in it. */
typedef struct {
    int lanes_are_positions, tempered, capped, offset, stepped;
} NAME(transformation);

/* Distances, and not their quotients by a temperature above 1, may overflow where the largest logit is at least this; and
 * a power of two against that: see stepped_line. */
#define STEEP BY_TYPE(0x1p100, 0x1p970)
#define STEP_DOWN (-30)
static V NAME(stepped_line)(NAME(line) *l, NAME(transformation) variant);

/* The logits of class c, or a vector from there on; past the end `fill`. */
ALWAYS_INLINE V NAME(logits_at)(const NAME(line) *l, ptrdiff_t c, V fill, NAME(transformation) variant)
{
    return variant.lanes_are_positions ? NAME(load)(l->x + c * l->x_unit, l->lanes, (V){0})
                                       : NAME(load)(l->x + c, l->classes - c, fill);
}

/* The offsets, and their low words. */
ALWAYS_INLINE V NAME(offsets_at)(const NAME(line) *l, ptrdiff_t c, NAME(transformation) variant)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    return variant.lanes_are_positions ? NAME(set)(l->offset[c])
                                       : NAME(load)(l->offset + c, l->classes - c, minus_infinity);
}
ALWAYS_INLINE V NAME(low_offsets_at)(const NAME(line) *l, ptrdiff_t c, NAME(transformation) variant)
{
    const V zero = {0};
    return variant.lanes_are_positions ? NAME(set)(l->offset_low[c])
                                       : NAME(load)(l->offset_low + c, l->classes - c, zero);
}

/* What is left of a distance to exps, beside the distance itself in d. Returns the larger of it and `max_distance`. */
ALWAYS_INLINE V NAME(store_distance)(const NAME(line) *l, const NAME(transform) *f, ptrdiff_t at, V d, V rounded, V low,
                                     V max_distance)
{
    const V zero = {0};
    const VM counts = m_gt(rounded, f->scale.floor); /* infinities have made NaN of low */
    const V distance = v_select(counts, rounded, d);
    v_store(l->d + at, distance), v_store(l->exps + at, v_select(counts, (d - rounded) + low, zero));
    return v_max(distance, max_distance);
}

/* The distances of capped logits from the largest of them, of the classes from `first` to `end`; the vector at the end is
 * filled up with `fill`. Returns the largest of them and `max_distance`. */
ALWAYS_INLINE V NAME(capped_distances)(const NAME(line) *l, const NAME(transform) *f, V fill,
                                       NAME(transformation) variant, ptrdiff_t first, ptrdiff_t end, V max_distance)
{
    const ptrdiff_t per = variant.lanes_are_positions ? 1 : LANES, unit = variant.lanes_are_positions ? l->unit : 1;
    for (ptrdiff_t c = first; c < end; c += CAPPED * per) {
        V x[CAPPED];
        vf64 u[8];
        for (int j = 0; j < CAPPED; j++)
            x[j] = c + j * per < end ? NAME(logits_at)(l, c + j * per, fill, variant) : fill;
        if (NAME(any_far)(f, x))
            NAME(cap_logits)(f, x, u, 1);
        else
            NAME(cap_logits)(f, x, u, 0);
        for (int j = 0; j < CAPPED && c + j * per < end; j++) {
#if XENT_REAL == 32
            const vf64 a = u[2 * j] - l->peak[0], b = u[2 * j + 1] - l->peak[1];
            const V d = v_narrow(a, b), low = v_narrow(a - v_widen_lo(d), b - v_widen_hi(d));
#else
            const V d = u[j] - l->peak[0], low = NAME(sum_error)(u[j], (V){0} - l->peak[0], d);
#endif
            max_distance = NAME(store_distance)(l, f, (c + j * per) * unit, d, d, low, max_distance);
        }
    }
    return max_distance;
}

/* The distance of a logit, without offset, as a sum of two numbers: from the largest logit or, of logits that have an
 * offset and nothing else, from 0. */
ALWAYS_INLINE V NAME(distance_at)(const NAME(line) *l, const NAME(transform) *f, ptrdiff_t c,
                                  NAME(transformation) variant, V *low)
{
    const ptrdiff_t unit = variant.lanes_are_positions ? l->unit : 1;
    const V zero = {0}, minus_infinity = NAME(set)((T)-INFINITY);
    if (variant.capped || (variant.tempered && variant.offset)) { /* made before */
        *low = v_load(l->exps + c * unit);
        return v_load(l->d + c * unit);
    }
    const V x = NAME(logits_at)(l, c, minus_infinity, variant);
    if (variant.tempered) return NAME(distance)(f, x, l->m, low);
    *low = zero;
    return x;
}

/* What the largest is searched in: logits, or distances with their offsets. */
ALWAYS_INLINE V NAME(number_at)(const NAME(line) *l, const NAME(transform) *f, ptrdiff_t c, int with_offset,
                                NAME(transformation) variant)
{
    V low;
    if (with_offset) return NAME(distance_at)(l, f, c, variant, &low) + NAME(offsets_at)(l, c, variant);
    return NAME(logits_at)(l, c, NAME(set)((T)-INFINITY), variant);
}

/* The largest of a row in all lanes; of columns, which have one each, as they are. */
ALWAYS_INLINE V NAME(line_max)(V max, NAME(transformation) variant)
{
    return variant.lanes_are_positions ? max : NAME(set)(v_reduce_max(max));
}

ALWAYS_INLINE V NAME(largest_number)(const NAME(line) *l, const NAME(transform) *f, int with_offset,
                                     NAME(transformation) variant)
{
    const ptrdiff_t per = variant.lanes_are_positions ? 1 : LANES, classes = l->classes;
    V max[2] = {NAME(set)((T)-INFINITY), NAME(set)((T)-INFINITY)};
    ptrdiff_t c = 0;
    for (; c + 2 * per <= classes; c += 2 * per) {
        for (int k = 0; !variant.lanes_are_positions && k < 2 * LANES; k += CACHE_LINE / (int)sizeof(T)) {
            __builtin_prefetch(l->next + c + k);
            __builtin_prefetch(l->result + c + k);
        }
        for (int k = 0; k < 2; k++) max[k] = v_max(NAME(number_at)(l, f, c + k * per, with_offset, variant), max[k]);
    }
    for (; c < classes; c += per) max[0] = v_max(NAME(number_at)(l, f, c, with_offset, variant), max[0]);
    return NAME(line_max)(v_max(max[0], max[1]), variant);
}

ALWAYS_INLINE V NAME(if_finite)(V v)
{
    const V zero = {0};
    return v_select(m_gt(NAME(set)((T)INFINITY), v_abs(v)), v, zero);
}

/* Add v to d + *low. */
ALWAYS_INLINE V NAME(pair_add)(V d, V v, V *low)
{
    const V sum = d + v;
    *low = *low + NAME(sum_error)(d, v, sum);
    return sum;
}

/* The distance from the largest, of class c or a vector from there on. Returns the larger of it and `max_distance`. */
ALWAYS_INLINE V NAME(put_distance)(const NAME(line) *l, const NAME(transform) *f, ptrdiff_t c,
                                   NAME(transformation) variant, V max_distance)
{
    const V zero = {0};
    V low, d = NAME(distance_at)(l, f, c, variant, &low);
    if (variant.offset) {
        const V low_offset = NAME(low_offsets_at)(l, c, variant);
        low = variant.capped || variant.tempered ? low + low_offset : low_offset;
        d = NAME(pair_add)(d, NAME(offsets_at)(l, c, variant), &low);
        d = NAME(pair_add)(d, zero - l->most, &low);
    }
    return NAME(store_distance)(l, f, variant.lanes_are_positions ? c * l->unit : c, d, d + low, low, max_distance);
}

/* The distances of a line and their exponentials; returns the largest distance. Two loops: of one, each turn would wait
 * for its exponential. */
ALWAYS_INLINE V NAME(transform_line)(NAME(line) *l, const NAME(transform) *f, NAME(transformation) variant)
{
    const ptrdiff_t classes = l->classes, per = variant.lanes_are_positions ? 1 : LANES,
                    unit = variant.lanes_are_positions ? l->unit : 1;
    const int plain = !variant.capped && !variant.tempered; /* an offset and nothing else */
    V largest = (V){0}, max_distance = NAME(set)((T)-INFINITY);
    if (!plain) largest = NAME(largest_number)(l, f, 0, variant);
    l->m = NAME(if_finite)(largest), l->most = (V){0};
    if (variant.tempered && !variant.stepped && l->temperature > 1 && m_any(m_ge(l->m, NAME(set)((T)STEEP))))
        return NAME(stepped_line)(l, variant);
    if (variant.capped) NAME(cap_one)(f, largest, l->peak);
    if (variant.capped && variant.offset) NAME(capped_distances)(l, f, largest, variant, 0, classes, max_distance);
    for (ptrdiff_t c = 0; variant.tempered && variant.offset && c < classes; c += per) {
        V low;
        const V d = NAME(distance)(f, NAME(logits_at)(l, c, max_distance, variant), l->m, &low);
        v_store(l->d + c * unit, d), v_store(l->exps + c * unit, low);
    }
    if (variant.offset) l->most = NAME(if_finite)(NAME(largest_number)(l, f, 1, variant));
    for (ptrdiff_t first = 0; first < classes; first += BLOCK) {
        const ptrdiff_t end = xent_min(classes, first + BLOCK);
        if (variant.capped && !variant.offset)
            max_distance = NAME(capped_distances)(l, f, largest, variant, first, end, max_distance);
        else
            for (ptrdiff_t c = first; c < end; c += per)
                max_distance = NAME(put_distance)(l, f, c, variant, max_distance);
        for (ptrdiff_t c = first; c < end; c += per)
            v_store(l->exps + c * unit,
                    NAME(exp_scaled_pair)(v_load(l->d + c * unit), v_load(l->exps + c * unit), f->scale));
    }
    return NAME(line_max)(max_distance, variant);
}

/* A line whose distances may overflow where their quotients by the temperature do not: both are taken times a power of
 * two. Its logits go to the place of the distances. */
static V NAME(stepped_line)(NAME(line) *l, NAME(transformation) variant)
{
    const ptrdiff_t per = variant.lanes_are_positions ? 1 : LANES, unit = variant.lanes_are_positions ? l->unit : 1;
    const V step = NAME(set)((T)ldexp(1.0, STEP_DOWN)), minus_infinity = NAME(set)((T)-INFINITY), m = l->m;
    const xent_positions lower = {.temperature = ldexp(l->temperature, STEP_DOWN)};
    const NAME(transform) f = NAME(transform_of)(&lower);
    NAME(line) line = *l;
    for (ptrdiff_t c = 0; c < l->classes; c += per)
        v_store(l->d + c * unit, NAME(logits_at)(l, c, minus_infinity, variant) * step);
    line.x = l->d, line.x_unit = l->unit;
    V max_distance;
#define VARIANT(lanes, added)                                                                                          \
    NAME(transform_line)(                                                                                              \
        &line, &f, (NAME(transformation)){.lanes_are_positions = lanes, .tempered = 1, .offset = added, .stepped = 1})
    if (variant.lanes_are_positions)
        max_distance = variant.offset ? VARIANT(1, 1) : VARIANT(1, 0);
    else
        max_distance = variant.offset ? VARIANT(0, 1) : VARIANT(0, 0);
#undef VARIANT
    l->m = m, l->most = line.most;
    return max_distance;
}

/* The positions of a tile in `d` and `exps`: distances of the logits x, and their exponentials (those of a row followed
 * by zeros, up to a multiple of GROUP vectors). Of each position also the largest distance, and M. `result`: rows that
 * will be written, or NULL. */
static void NAME(transform_lines)(const xent_positions *positions, const T *x, ptrdiff_t x_step, const T *result,
                                  ptrdiff_t result_step, T *d, T *exps, ptrdiff_t step, ptrdiff_t n,
                                  int lanes_are_positions, T *max_logit, double *moved)
{
    const NAME(transform) f = NAME(transform_of)(positions);
    const int capped = positions->cap != 0, tempered = !capped && positions->temperature != 1;
    const T *offset = (const T *)positions->offset, *offset_low = offset ? offset + positions->classes : NULL;
    const size_t rest = (size_t)(NAME(padded_row)(positions->classes) - positions->classes);
    for (ptrdiff_t p = 0; p < n; p += lanes_are_positions ? LANES : 1) {
        const ptrdiff_t to = lanes_are_positions ? p : p * step;
        const T *from = x + (lanes_are_positions ? p : p * x_step);
        NAME(line) l = {.x = from,
                        .next = from + x_step,
                        .result = result ? result + p * result_step : from + x_step,
                        .offset = offset,
                        .offset_low = offset_low,
                        .d = d + to,
                        .exps = exps + to,
                        .x_unit = x_step,
                        .unit = step,
                        .lanes = n - p,
                        .classes = positions->classes,
                        .temperature = positions->temperature};
        double peak[2 * LANES_F64];
        V max_distance;
#define VARIANT(heat, cap, added) (lanes_are_positions ? LINE(1, heat, cap, added) : LINE(0, heat, cap, added))
#define LINE(lanes, heat, cap, added)                                                                                  \
    NAME(transform_line)(                                                                                              \
        &l, &f,                                                                                                        \
        (NAME(transformation)){.lanes_are_positions = lanes, .tempered = heat, .capped = cap, .offset = added})
        if (capped)
            max_distance = offset ? VARIANT(0, 1, 1) : VARIANT(0, 1, 0);
        else if (offset)
            max_distance = tempered ? VARIANT(1, 0, 1) : VARIANT(0, 0, 1);
        else
            max_distance = VARIANT(1, 0, 0);
#undef VARIANT
#undef LINE
        if (!lanes_are_positions) memset(l.exps + positions->classes, 0, rest * sizeof(T));
        v_store(peak, l.peak[0]), v_store(peak + LANES_F64, l.peak[1]);
        for (int k = 0; k < (lanes_are_positions ? LANES : 1); k++) {
            max_logit[p + k] = max_distance[k];
            moved[p + k] = (capped ? peak[k] : l.m[k] * f.wide_rate[0]) + l.most[k];
        }
    }
}

/* g sech^2(x / (temperature cap)) of CAPPED vectors, 0 where g is 0 (the position may be ignored, and x NaN). Beyond
 * the reach in doubles: an exponential of floats would add its rounding to that of g. */
ALWAYS_INLINE void NAME(times_du_group)(const NAME(transform) *f, const V *x, V *g, int far)
{
    const V zero = {0};
    vf64 e[8], product[8];
    for (int i = 0; far && i < 8; i++) e[i] = NAME(raised_slope)(f, NAME(part)(x[i / PARTS], i % PARTS));
    for (int i = 0; far && i < 8; i++) product[i] = NAME(times_du)(NAME(part)(g[i / PARTS], i % PARTS), e[i]);
    for (int j = 0; j < CAPPED; j++) {
#if XENT_REAL == 32
        const V z = x[j] * f->ratio, z_low = v_fma(x[j], f->ratio_low, product_error_f32(x[j], f->ratio, z));
        V low;
        const V slope = sech_squared_f32(z, z_low, &low), near = v_fma(g[j], slope, g[j] * low);
        const V result =
            far ? v_select(NAME(is_far)(f, x[j]), v_narrow(product[2 * j], product[2 * j + 1]), near) : near;
#else
        const V result = product[j];
#endif
        g[j] = v_select(m_eq(g[j], zero), zero, result);
    }
}

/* That of all numbers of `lines`, n in each, to `out`, which may be g. */
static void NAME(multiply_by_du)(const xent_positions *positions, const T *x, ptrdiff_t x_step, const T *g,
                                 ptrdiff_t g_step, T *out, ptrdiff_t out_step, ptrdiff_t lines, ptrdiff_t n)
{
    const NAME(transform) f = NAME(transform_of)(positions);
    const V zero = {0};
    for (ptrdiff_t line = 0; line < lines; line++, x += x_step, g += g_step, out += out_step)
        for (ptrdiff_t i = 0; i < n; i += CAPPED * LANES) {
            const int whole = n - i >= CAPPED * LANES;
            V logits[CAPPED], gradient[CAPPED];
            for (int j = 0; j < CAPPED; j++) {
                const ptrdiff_t at = i + j * LANES;
                logits[j] = whole ? v_load(x + at) : NAME(load_part)(x + at, n - at, zero);
                gradient[j] = whole ? v_load(g + at) : NAME(load_part)(g + at, n - at, zero);
            }
            if (XENT_REAL == 64 || NAME(any_far)(&f, logits))
                NAME(times_du_group)(&f, logits, gradient, 1);
            else
                NAME(times_du_group)(&f, logits, gradient, 0);
            for (int j = 0; j < CAPPED; j++) {
                const ptrdiff_t at = i + j * LANES;
                if (whole)
                    v_store(out + at, gradient[j]);
                else
                    NAME(store_part)(out + at, gradient[j], n - at);
            }
        }
}
#endif /* STORED_AS_16 */

/* Logits of a tile into a scratch; those of long rows may lie a few numbers apart. */
static void KERNEL(gather_logits)(const xent_positions *positions, const KERNEL(tile) *t, T *to, ptrdiff_t step)
{
    const ptrdiff_t classes = positions->classes, apart = positions->x.stride;
    if (!t->rows || t->lanes_are_positions || apart == 1) { /* a class alone may have any step */
        KERNEL(gather)(t->x, LIES(t, x), to, step, t->n, classes, t->lanes_are_positions);
        return;
    }
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const S *x = t->x + p * t->x_step;
        ptrdiff_t c = 0;
#ifndef STORED_AS_16
        for (; apart == 2 && c + LANES < classes; c += LANES) /* a number behind the last one is read */
            v_store(to + p * step + c, v_evens(v_load(x + 2 * c), v_load(x + 2 * c + LANES)));
#endif
        for (; c < classes; c++) to[p * step + c] = KERNEL(get)(x + c * apart);
    }
}

/* The logits of a tile: rows of the type computed with are read where they lie, all others come to `d`, whose place
 * distances take. With a cap short rows, which take half of it, come to the other half, because the slope wants them
 * again; or all come to `raw`, unless that is NULL. */
static const T *KERNEL(transformed_logits)(const xent_positions *positions, const KERNEL(tile) *t, ptrdiff_t step, T *d,
                                           T *raw)
{
    T *to = raw ? raw : d + (t->lanes_are_positions && t->rows && positions->cap != 0 ? TRANSPOSED_ELEMENTS : 0);
    if (sizeof(S) == sizeof(T) && !t->lanes_are_positions && t->rows && positions->x.stride == 1)
        return (const T *)t->x;
    KERNEL(gather_logits)(positions, t, to, step);
    return to;
}

/* Whether quotients of logits by the temperature are exact, as it is a power of two, unless they leave the range; and all
 * that there is to be made of the logits. */
static int KERNEL(divides_exactly)(const xent_positions *positions)
{
    const double temperature = positions->temperature, most = BY_TYPE(0x1p60, 0x1p500);
    int exponent;
    if (positions->cap != 0 || positions->offset || positions->transformed == XENT_DISTANCES) return 0;
    return frexp(temperature, &exponent) == 0.5 && temperature <= most && 1 / temperature <= most;
}

/* Such quotients, to `d`: the rest is done as for logits that are not transformed. NULL where one is no such number: too
 * large, or subnormal. */
static const T *KERNEL(exact_logits)(const xent_positions *positions, const KERNEL(tile) *t, const T *x,
                                     ptrdiff_t x_step, ptrdiff_t step, T *d)
{
    const double temperature = positions->temperature;
    if (temperature == 1) return x;
    const ptrdiff_t classes = positions->classes, lines = t->lanes_are_positions ? classes : t->n,
                    n = t->lanes_are_positions ? t->n : classes;
    const V zero = {0}, factor = NAME(set)((T)(1 / temperature)), back = NAME(set)((T)temperature);
    VM lost = m_gt(zero, zero);
    for (ptrdiff_t line = 0; line < lines; line++)
        for (ptrdiff_t i = 0; i < n; i += LANES) { /* of numbers that are there: others must not choose the way */
            const V v = NAME(load_part)(x + line * x_step + i, n - i, zero), made = v * factor;
            v_store(d + line * step + i, made);
            lost = (VM)(lost | m_gt(v_abs(made * back - v), zero));
        }
    return m_any(lost) ? NULL : d;
}

/* The gradient g by u of a tile becomes that by the logits, in `out`. Where x, the logits, was in the place of the
 * distances, it is read once more, to `room`. */
static void KERNEL(put_capped_gradient)(const xent_positions *positions, const KERNEL(tile) *t, const T *x, T *g,
                                        ptrdiff_t step, T *room)
{
    const ptrdiff_t classes = positions->classes;
    if (x == (const T *)t->x) {
        NAME(multiply_by_du)(positions, x, t->x_step, g, step, (T *)t->out, t->out_step, t->n, classes);
        return;
    }
    if (!(t->lanes_are_positions && t->rows)) {
        KERNEL(gather_logits)(positions, t, room, step);
        x = room;
    }
    if (t->lanes_are_positions) /* columns that touch each other are as good as one */
        NAME(multiply_by_du)(positions, x, 0, g, 0, g, 0, 1, classes * step);
    else
        NAME(multiply_by_du)(positions, x, step, g, step, g, step, t->n, classes);
    KERNEL(scatter)(g, step, t->out, LIES(t, out), t->n, classes, t->lanes_are_positions);
}

/* A tile on which `function` works as on one of the type computed with. */
static void KERNEL(transformed_tile)(const xent_positions *positions, const KERNEL(tile) *t, T *room, row_sum_f64 *sums,
                                     NAME(tile_function) function)
{
    const ptrdiff_t elements = transform_elements(positions), classes = positions->classes;
    const ptrdiff_t step =
        t->lanes_are_positions ? (t->n + LINE_COLUMNS - 1) / LINE_COLUMNS * LINE_COLUMNS : NAME(padded_row)(classes);
    const int as_it_lies = sizeof(S) == sizeof(T) && t->lanes_are_positions != t->rows && !t->run,
              direct = as_it_lies && (positions->cap == 0 || positions->curved), given = positions->reads_hess;
    T *d = room, *exps = d + elements, *target = exps + elements, *hess = t->target ? target + elements : target,
      *raw = positions->curved && positions->cap != 0 ? hess + (t->hess ? elements : 0) : NULL, max_logit[TILE];
    double moved[TILE];
    const T *x = KERNEL(transformed_logits)(positions, t, step, d, raw);
    if (!as_it_lies && t->target)
        KERNEL(gather)(t->target, LIES(t, target), target, step, t->n, classes, t->lanes_are_positions);
    if (!as_it_lies && given) KERNEL(gather)(t->hess, LIES(t, hess), hess, step, t->n, classes, t->lanes_are_positions);
    if (t->rows && t->lanes_are_positions) { /* the next tile, while this one keeps the processor busy */
        KERNEL(fetch)(t->x + t->n * t->x_step, t->n * t->x_step);
        if (t->out) KERNEL(fetch)(t->out, t->n * t->out_step);
    }
    const ptrdiff_t x_step = x == (const T *)t->x ? t->x_step : step;
    const int divides = KERNEL(divides_exactly)(positions);
    const T *logits = divides ? KERNEL(exact_logits)(positions, t, x, x_step, step, d) : NULL;
    const int distances = !logits;
    if (distances) {
        if (divides) x = KERNEL(transformed_logits)(positions, t, step, d, raw); /* quotients took its place */
        NAME(transform_lines)(positions, x, x_step, as_it_lies && t->rows ? (const T *)t->out : NULL, t->out_step, d,
                              exps, step, t->n, t->lanes_are_positions, max_logit, moved);
        logits = d;
    }
    const NAME(tile) transformed = {.x = logits,
                                    .x_step = logits == x ? x_step : step,
                                    .exps = exps,
                                    .exps_step = step,
                                    .first = t->first,
                                    .n = t->n,
                                    .x_class = 1,
                                    .rows = !t->lanes_are_positions,
                                    .lanes_are_positions = t->lanes_are_positions,
                                    .streams = direct && t->streams,
                                    .kept = 1,
                                    .logits = t->lanes_are_positions && distances ? d : NULL,
                                    .scale_exponent = t->scale_exponent,
                                    .max_logit = distances ? max_logit : NULL,
                                    .moved = distances ? moved : NULL,
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
                                    .hess_step = direct ? t->hess_step : step,
                                    .left = t->left,
                                    .given = distances ? t : NULL,
                                    .given_logit = KERNEL(given_logit),
                                    .lines = (double *)((char *)room + positions->lines_at),
                                    .raw = x,
                                    .raw_step = x_step};
    function(positions, &transformed, sums);
    if (direct || (t->left && t->left->n)) return;
    if (t->out && positions->cap != 0 && !positions->curved)
        KERNEL(put_capped_gradient)(positions, t, x, d, step, exps);
    else if (t->out)
        KERNEL(scatter)(d, step, t->out, LIES(t, out), t->n, classes, t->lanes_are_positions);
    if (t->hess && !given) KERNEL(scatter)(hess, step, t->hess, LIES(t, hess), t->n, classes, t->lanes_are_positions);
}

#endif
