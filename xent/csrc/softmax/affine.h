/* affine.h: the results of a tile that are affine in its probabilities, a p_c - b u_c, with coefficients per position.
 * softmax is a = 1, b = 0; the gradient of every cross-entropy is another choice of coefficients.
 *
 * p_c underflows gradually and must be rounded once: e_c is a normal number wherever the result is not 0, and so is its
 * coefficient a * unit * inverse, unless it is faint: below TINY. Then a power of two of it is given to `lift`: a
 * result that is not 0 has e_c > 2^-150 / coefficient, so that e_c * lift > 2^-150 / sqrt(TINY) is a normal number too
 * (double: 2^-1075).
 */
#include "begin.h"
#include "simd/exp.h"
#include "simd/stored.h"
#include "softmax/stats.h"
#include "softmax/tile.h"

#ifndef XENT_AFFINE_H
#define XENT_AFFINE_H

#ifndef STORED_AS_16
typedef struct {
    T coefficient[TILE], lift[TILE];
    T dense[TILE]; /* b: factor of the dense target u_c = w_c (mix t_c + base) */
    int plain;     /* whether every lift is 1 and no coefficient 0, which makes a result 0 even of NaN */
    /* One result of each position, of the class `special`, that is made otherwise; with `specials` the map of columns
     * puts it in its place. */
    T special[TILE], result[TILE];
    int specials;
} NAME(affine);

static T NAME(split_faint)(double factor, double unit, T *lift)
{
    int exponent; /* of the product, which may be out of the range of a double */
    const double mantissa = frexp(factor, &exponent);
    exponent += ilogb(unit);
    const int power = (int)xent_min(ilogb(TINY) / 2 - exponent, EXPONENT_BIAS - 1);
    *lift = (T)ldexp(1.0, -power);
    return (T)ldexp(mantissa, exponent + power);
}

/* From the factors a of p_c, and b (NULL: none). */
static void NAME(make_affine)(NAME(affine) *f, const NAME(stats) *s, const double *a, const double *b, ptrdiff_t n)
{
    const V one = NAME(set)(1), none = {0};
    const vf64 tiny = set_f64(TINY), zero = {0};
    int faint = 0;
    for (ptrdiff_t p = 0; p < n; p += LANES) { /* past the end there is nothing */
        vf64 coefficient[PARTS], dense[PARTS];
        for (int k = 0; k < PARTS; k++) {
            const ptrdiff_t at = p + k * LANES_F64;
            const vf64 inverse = v_load(s->inverse + at), factor = a ? load_part_f64(a + at, n - at, zero) : set_f64(1);
            coefficient[k] = factor * inverse * v_load(s->unit + at);
            dense[k] = b ? load_part_f64(b + at, n - at, zero) : zero;
            faint |= m_any((vm64)~m_ge(v_select(first_f64(n - at), v_abs(coefficient[k]), tiny), tiny));
        }
        v_store(f->coefficient + p, NAME(joined)(coefficient[0], coefficient[PARTS - 1]));
        v_store(f->dense + p, b ? NAME(joined)(dense[0], dense[PARTS - 1]) : none), v_store(f->lift + p, one);
    }
    for (ptrdiff_t p = 0; faint && p < n; p++) {
        const double factor = (a ? a[p] : 1.0) * s->inverse[p];
        if (factor != 0 && fabs(factor * s->unit[p]) < TINY)
            f->coefficient[p] = NAME(split_faint)(factor, s->unit[p], &f->lift[p]);
    }
    for (ptrdiff_t p = n; p % LANES; p++) f->coefficient[p] = f->lift[p] = f->dense[p] = 0;
    f->plain = !faint, f->specials = 0;
}
#endif

/* The dense target of one class, at one position or a vector of them. */
typedef struct {
    const T *weight; /* per class or NULL */
    V mix, base;
} KERNEL(dense_target);

ALWAYS_INLINE V KERNEL(target_value)(const KERNEL(dense_target) *d, V weight, V t)
{
    const V zero = {0}, u = weight * v_fma(d->mix, t, d->base);
    return d->weight ? v_select(m_eq(weight, zero), zero, u) : u; /* without weight not even a NaN is there */
}

ALWAYS_INLINE KERNEL(dense_target) KERNEL(dense_target_of)(const xent_dense *d)
{
    return (KERNEL(dense_target)){
        .weight = (const T *)d->weight, .mix = NAME(set)((T)d->mix), .base = NAME(set)((T)d->base)};
}

#if XENT_REAL == 64 && !defined(STORED_AS_16)
/* Whether the dense target is the same for all classes and positions, `base`. */
static int uniform(const xent_dense *d) { return d->mix == 0 && !d->weight; }
static const xent_dense no_target = {.weight = NULL};
#endif

/* What makes the result of a row or column of it: whether there is a dense target, UNIFORM or not, exponentials were
 * kept, the coefficients are plain, and there are specials. Constants at every call: what is not needed costs nothing.
 */
typedef struct {
    int dense, kept, plain, specials;
} KERNEL(variant);
#define UNIFORM 2

/* Numbers of one row. */
typedef struct {
    const S *x, *target;
    const T *exps;
    S *out;
    V coefficient, lift, b, shift;
    NAME(scale) scale;
    KERNEL(dense_target) dense;
    int streams;
} KERNEL(row);

/* n classes from c on, at most a vector. */
ALWAYS_INLINE V KERNEL(row_value)(const KERNEL(row) *r, ptrdiff_t c, ptrdiff_t n, KERNEL(variant) variant)
{
    const V zero = {0}, one = NAME(set)(1);
    /* n at most: where the result does not begin at a whole vector, what follows may be past the memory of all */
    const V e = variant.kept ? NAME(load)(r->exps + c, n, zero)
                             : NAME(exp_scaled)(KERNEL(load)(r->x + c, n, zero) - r->shift, r->scale);
    const V v = (variant.plain ? e : e * r->lift) * r->coefficient;
    if (!variant.dense) return v;
    if (variant.dense == UNIFORM) return v - r->b * r->dense.base;
    const V weight = r->dense.weight ? NAME(load)(r->dense.weight + c, n, zero) : one;
    return v - r->b * KERNEL(target_value)(&r->dense, weight, r->target ? KERNEL(load)(r->target + c, n, zero) : zero);
}

ALWAYS_INLINE void KERNEL(row_map)(const KERNEL(row) *r, ptrdiff_t classes, KERNEL(variant) variant)
{
    ptrdiff_t c = xent_min(KERNEL(until_aligned)(r->out), classes);
    if (c > 0) KERNEL(store)(r->out, KERNEL(row_value)(r, 0, c, variant), c);
    for (; r->streams && c + LANES <= classes; c += LANES)
        KERNEL(store_aligned)(r->out + c, KERNEL(row_value)(r, c, LANES, variant), 1);
    for (; c + LANES <= classes; c += LANES)
        KERNEL(store_aligned)(r->out + c, KERNEL(row_value)(r, c, LANES, variant), 0);
    if (c < classes) KERNEL(store)(r->out + c, KERNEL(row_value)(r, c, classes - c, variant), classes - c);
}

ALWAYS_INLINE void KERNEL(rows_map)(const KERNEL(tile) *t, ptrdiff_t classes, const xent_dense *dense,
                                    const NAME(affine) *f, const NAME(stats) *s, KERNEL(variant) variant)
{
    KERNEL(row) r;
    r.dense = KERNEL(dense_target_of)(dense), r.streams = t->streams;
    for (ptrdiff_t p = 0; p < t->n; p++) {
        r.x = t->x + p * t->x_step, r.target = t->target ? t->target + p * t->target_step : NULL,
        r.out = t->out + p * t->out_step;
        r.exps = t->exps + p * t->exps_step;
        r.coefficient = NAME(set)(f->coefficient[p]), r.lift = NAME(set)(f->lift[p]), r.b = NAME(set)(f->dense[p]);
        r.shift = NAME(set)(s->shift[p]), r.scale = NAME(scale_of)(NAME(set)(s->scale_exponent[p]));
        if (f->coefficient[p] == 0 && f->dense[p] == 0)
            memset(r.out, 0, (size_t)classes * sizeof(S));
        else
            KERNEL(row_map)(&r, classes, variant);
    }
}

/* What the results of a tile whose lanes are positions are made of. */
typedef struct {
    const KERNEL(tile) *t;
    const NAME(affine) *f;
    const NAME(stats) *s;
    KERNEL(dense_target) dense;
} KERNEL(ingredients);

/* Class c of at most n positions from p on. Where the coefficient is 0 the result is, even of NaN. */
ALWAYS_INLINE V KERNEL(value_of_positions)(const KERNEL(ingredients) *m, ptrdiff_t p, ptrdiff_t c, ptrdiff_t n,
                                           KERNEL(variant) variant)
{
    const KERNEL(tile) *t = m->t;
    const V zero = {0}, one = NAME(set)(1), coefficient = v_load(m->f->coefficient + p);
    V e;
    if (variant.kept)
        e = v_load(t->exps + p + c * t->exps_step);
    else
        e = NAME(exp_scaled)(KERNEL(load)(t->x + p + c * t->x_step, n, zero) - v_load(m->s->shift + p),
                             NAME(scale_of)(v_load(m->s->scale_exponent + p)));
    const V v = variant.plain ? e * coefficient
                              : v_select(m_eq(coefficient, zero), zero, e * v_load(m->f->lift + p) * coefficient);
    if (variant.specials)
        return v_select(m_eq(v_load(m->f->special + p), NAME(set)((T)c)), v_load(m->f->result + p), v);
    if (!variant.dense) return v;
    if (variant.dense == UNIFORM) return v - v_load(m->f->dense + p) * m->dense.base;
    const V weight = m->dense.weight ? NAME(set)(m->dense.weight[c]) : one;
    const V target = t->target ? KERNEL(load)(t->target + p + c * t->target_step, n, zero) : zero;
    const V b = v_load(m->f->dense + p);
    return v - v_select(m_eq(b, zero), zero, b * KERNEL(target_value)(&m->dense, weight, target));
}

/* Columns that lie far apart: on pages of their own, where the processor has not begun to fetch, and in the same sets
 * of the caches, so that they are gone from these by the time a tile is done. */
ALWAYS_INLINE int KERNEL(far_apart)(const KERNEL(tile) *t) { return !t->rows && t->out_step > TILE; }

/* Classes ahead of which lines of such columns are fetched: 2 and 3 gain as much, 5 less. */
#define CLASSES_AHEAD 2

/* What is read, the logits or not, and written CLASSES_AHEAD of class c; not what goes past the caches. */
ALWAYS_INLINE void KERNEL(fetch_classes)(const KERNEL(tile) *t, ptrdiff_t c, int logits)
{
    const ptrdiff_t ahead = c + CLASSES_AHEAD;
    if (!t->streams) KERNEL(fetch_class)(t->out, t->out_step, ahead, t->n);
    if (logits) KERNEL(fetch_class)(t->x, t->x_step, ahead, t->n);
    if (t->target) KERNEL(fetch_class)(t->target, t->target_step, ahead, t->n);
}

/* Into columns: class by class, which streams through memory. */
ALWAYS_INLINE void KERNEL(columns_map)(const KERNEL(tile) *t, ptrdiff_t classes, const xent_dense *dense,
                                       const NAME(affine) *f, const NAME(stats) *s, KERNEL(variant) variant)
{
    const KERNEL(ingredients) m = {.t = t, .f = f, .s = s, .dense = KERNEL(dense_target_of)(dense)};
    for (ptrdiff_t c = 0; c < classes; c++) {
        S *out = t->out + c * t->out_step;
        ptrdiff_t p = 0;
        if (KERNEL(far_apart)(t)) KERNEL(fetch_classes)(t, c, !variant.kept);
        for (; t->streams && KERNEL(until_aligned)(out) == 0 && p + LANES <= t->n; p += LANES)
            KERNEL(store_aligned)(out + p, KERNEL(value_of_positions)(&m, p, c, LANES, variant), 1);
        for (; p + LANES <= t->n; p += LANES)
            KERNEL(store)(out + p, KERNEL(value_of_positions)(&m, p, c, LANES, variant), LANES);
        if (p < t->n) KERNEL(store)(out + p, KERNEL(value_of_positions)(&m, p, c, t->n - p, variant), t->n - p);
    }
}

/* Into rows: the classes of a vector of positions are transposed in registers. */
ALWAYS_INLINE void KERNEL(transposed_map)(const KERNEL(tile) *t, ptrdiff_t classes, const xent_dense *dense,
                                          const NAME(affine) *f, const NAME(stats) *s, KERNEL(variant) variant)
{
    const KERNEL(ingredients) m = {.t = t, .f = f, .s = s, .dense = KERNEL(dense_target_of)(dense)};
    ptrdiff_t p = 0;
    for (; p + LANES <= t->n && classes >= PIECE; p += LANES) {
        for (ptrdiff_t c = 0; c < classes; c += PIECE) {
            const ptrdiff_t first = xent_min(c, classes - PIECE);
            V v[PIECE];
            for (int k = 0; k < PIECE; k++) v[k] = KERNEL(value_of_positions)(&m, p, first + k, LANES, variant);
            KERNEL(store_transposed)(t->out + p * t->out_step + first, t->out_step, v);
        }
    }
    for (; p < t->n; p += LANES) {
        for (ptrdiff_t c = 0; c < classes; c++) {
            const V v = KERNEL(value_of_positions)(&m, p, c, LANES, variant);
            for (ptrdiff_t k = p; k < xent_min(t->n, p + LANES); k++)
                KERNEL(put)(t->out + k * t->out_step + c, v[k - p]);
        }
    }
}

/* Whether the map puts specials in their places: where that gains, and the numbers of classes are exact. */
ALWAYS_INLINE int KERNEL(takes_specials)(const KERNEL(tile) *t, ptrdiff_t classes)
{
    return KERNEL(far_apart)(t) && t->kept && classes <= (ptrdiff_t)1 << MANTISSA_BITS;
}

/* `given` is the dense target, or NULL. */
static void KERNEL(exp_map)(const KERNEL(tile) *t, const xent_positions *positions, const xent_dense *given,
                            const NAME(affine) *f, const NAME(stats) *s)
{
    const int dense = given != NULL;
    if (!dense) given = &no_target;
#define VARIANT_WITH(specials_, map, target, exps, factors)                                                            \
    KERNEL(map)(t, positions->classes, given, f, s,                                                                    \
                (KERNEL(variant)){.dense = target, .kept = exps, .plain = factors, .specials = specials_})
#define VARIANT(...) VARIANT_WITH(0, __VA_ARGS__)
    if (KERNEL(transposed)(t)) /* of one input, and with all exponentials: see cut.h */
        f->plain ? VARIANT(transposed_map, 0, 1, 1) : VARIANT(transposed_map, 0, 1, 0);
    else if (f->specials)
        f->plain ? VARIANT_WITH(1, columns_map, 0, 1, 1) : VARIANT_WITH(1, columns_map, 0, 1, 0);
    else if (t->kept && dense && f->plain && uniform(given))
        t->lanes_are_positions ? VARIANT(columns_map, UNIFORM, 1, 1) : VARIANT(rows_map, UNIFORM, 1, 1);
    else if (t->lanes_are_positions && t->kept)
        dense      ? VARIANT(columns_map, 1, 1, 0)
        : f->plain ? VARIANT(columns_map, 0, 1, 1)
                   : VARIANT(columns_map, 0, 1, 0);
    else if (t->lanes_are_positions)
        dense ? VARIANT(columns_map, 1, 0, 0) : VARIANT(columns_map, 0, 0, 0);
    else if (t->kept)
        dense ? VARIANT(rows_map, 1, 1, 0) : f->plain ? VARIANT(rows_map, 0, 1, 1) : VARIANT(rows_map, 0, 1, 0);
    else
        dense ? VARIANT(rows_map, 1, 0, 0) : VARIANT(rows_map, 0, 0, 0);
#undef VARIANT
#undef VARIANT_WITH
}

#endif
