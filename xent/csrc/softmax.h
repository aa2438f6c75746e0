/* softmax.h: softmax, log-softmax, log-sum-exp and their vector-Jacobian products.
 *
 * Design: everything is two loops over the classes of a tile. statistics() finds m and the exponentials of position.h, and keeps
 * these if the tile has room for them; exp_map() writes a p_c - b u_c with coefficients per position. softmax is a = 1, b = 0; the
 * gradient of every cross-entropy is another choice of coefficients.
 *
 * The exponentials are taken relative to a power of two that is guessed before the largest logit is known, from what was right
 * before, so that one look at the logits does for both; where it was no good, once more. They are computed in one loop and
 * added up in another: together they would wait for registers and for each other.
 */
#include "begin.h"
#include "position.h"
#include "cut.h"

#ifndef XENT_SOFTMAX_H
#define XENT_SOFTMAX_H

/* The exponent of e^m, for m within LIMIT. */
ALWAYS_INLINE T KERNEL(exponent)(T m)
{
    const T clamped = m<(T)-LIMIT ? (T)-LIMIT : m>(T) LIMIT ? (T)LIMIT : m;
    return (clamped * LOG2_E + MAGIC) - MAGIC;
}

/* A position whose largest logit is infinite: what there is to add is 0, or NaN if there is one. */
static void KERNEL(infinite_position)(const S *x, ptrdiff_t step, ptrdiff_t classes, T m, NAME(stats) *s, ptrdiff_t p)
{
    int found = 0;
    for (ptrdiff_t c = 0; c < classes; c++) {
        const T v = KERNEL(get)(x + c * step);
        found |= v != v;
    }
    s->top[p] = m, s->shift[p] = s->reference[p] = 0, s->peak[p] = 1;
    s->rest[p] = found ? NAN : 0, s->rest_low[p] = 0;
}

/* exps[i] = e^(x[i] - shift) 2^-reference of n neighbours, and 0 from there to a multiple of GROUP vectors; returns the largest x[i]
 * (NaN never gets in). What is read next, and where the result will be written, is fetched meanwhile. `shifted` is a constant. */
ALWAYS_INLINE T KERNEL(exps_of)(const S *x, ptrdiff_t n, const S *next, const S *out, T shift, NAME(scale) scale,
                                T *exps, int shifted)
{
    const V minus_infinity = NAME(set)((T)-INFINITY), offset = NAME(set)(shift), zero = {0};
    V tops[2] = {minus_infinity, minus_infinity};
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        for (int k = 0; k < 2 * LANES; k += 64 / (int)sizeof(S)) {
            __builtin_prefetch(next + i + k);
            __builtin_prefetch(out + i + k);
        }
        for (int k = 0; k < 2; k++) {
            const V v = KERNEL(load)(x + i + k * LANES, LANES, zero);
            tops[k] = v_max(v, tops[k]);
            v_store(exps + i + k * LANES, NAME(exp_scaled)(shifted ? v - offset : v, scale));
        }
    }
    for (; i < n; i += LANES) {
        const V v = KERNEL(load)(x + i, n - i, minus_infinity);
        tops[0] = v_max(v, tops[0]);
        v_store(exps + i, NAME(exp_scaled)(shifted ? v - offset : v, scale));
    }
    for (; i % (GROUP * LANES); i += LANES) v_store(exps + i, zero);
    return v_reduce_max(v_max(tops[0], tops[1]));
}

/* A sum on its way through a row or down a vector of columns. */
typedef struct {
    NAME(sum) sum;
    V largest;
    T reference;
} KERNEL(running);

/* Field by field: an initialiser in braces is a call of memset, which takes as long as a short row. */
ALWAYS_INLINE void KERNEL(start)(KERNEL(running) *r, T reference)
{
    const V zero = {0};
    r->sum.a = r->sum.b = (vf64)zero;
    r->largest = zero, r->reference = reference;
}

/* Whether a reference is good for a largest logit; where others came before (`later`), only one that exceeds them matters. */
ALWAYS_INLINE int KERNEL(good)(T reference, T top, int later)
{
    return top <= (reference + RAISE) * LN2 && (later || top >= (reference + HEADROOM) * LN2);
}
ALWAYS_INLINE T KERNEL(guess_for)(T top) { return KERNEL(exponent)(top) + FIRST_GUESS; }

/* Go on with another reference. With it change the sum and the n exponentials that were kept so far, if there were any logits but
 * -infinity (`later`): all zeros do not. */
static void KERNEL(rescale)(KERNEL(running) *r, T reference, T *exps, ptrdiff_t n, int later)
{
    /* in two halves: the step may exceed the range of a double where the sum does not */
    const int down = (int)(r->reference - reference);
    const double half = ldexp(1.0, down / 2), rest = ldexp(1.0, down - down / 2);
    r->reference = reference;
    if (!later) return;
    r->sum.a = r->sum.a * set_f64(half) * set_f64(rest), r->sum.b = r->sum.b * set_f64(half) * set_f64(rest);
    r->largest = r->largest * NAME(set)((T)half) * NAME(set)((T)rest);
    for (ptrdiff_t i = 0; i < n; i++) exps[i] = exps[i] * (T)half * (T)rest;
}

static T KERNEL(block_exps)(const S *x, ptrdiff_t n, const S *next, const S *out, T shift, T reference, T *exps)
{
    const NAME(scale) scale = NAME(scale_of)(NAME(set)(reference));
    return shift == 0 ? KERNEL(exps_of)(x, n, next, out, shift, scale, exps, 0)
                      : KERNEL(exps_of)(x, n, next, out, shift, scale, exps, 1);
}

/* One row, in blocks (of which there may be one). */
static void KERNEL(row_statistics)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t n, T shift, NAME(stats) *s)
{
    KERNEL(running) r;
    const S *x = t->x + p * t->x_step,
            *out = t->out ? t->out + p * t->out_step : x; /* without a result, nothing new is fetched */
    T *exps = t->exps + (t->kept ? p * t->exps_step : 0), m = (T)-INFINITY;
    const ptrdiff_t block = t->blocks ? BLOCK : n, ahead = t->blocks ? BLOCK : t->x_step;
    KERNEL(start)(&r, *t->guess);
    for (ptrdiff_t i = 0; i < n; i += block) {
        const ptrdiff_t size = xent_min(block, n - i);
        T *room = exps + (t->kept ? i : 0);
        const int later = m != (T)-INFINITY;
        T top = KERNEL(block_exps)(x + i, size, x + i + ahead, out + i, shift, r.reference, room);
        if (!isinf(top) && !KERNEL(good)(r.reference, top - shift, later)) {
            KERNEL(rescale)(&r, KERNEL(guess_for)(top - shift), exps, t->kept ? i : 0, later);
            top = KERNEL(block_exps)(x + i, size, x + i + ahead, out + i, shift, r.reference, room);
        }
        m = top > m ? top : m;
        NAME(add_losers)(room, LANES, (size + GROUP * LANES - 1) / (GROUP * LANES) * GROUP, &r.sum, &r.largest);
    }
    *t->guess = r.reference;
    s->top[p] = m, s->shift[p] = shift, s->reference[p] = r.reference;
    s->peak[p] = NAME(sum_all_but_one)(&r.sum, r.largest, &s->rest[p], &s->rest_low[p]);
}

static void KERNEL(rows_statistics)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s)
{
    for (ptrdiff_t p = 0; p < t->n; p++) {
        KERNEL(row_statistics)(t, p, classes, 0, s);
        const T m = s->top[p];
        if (isinf(m))
            KERNEL(infinite_position)(t->x + p * t->x_step, 1, classes, m, s, p);
        else if (m > (T)LIMIT || m < (T)-LIMIT) /* once more, relative to m */
            KERNEL(row_statistics)(t, p, classes, m, s);
    }
}

/* ---- vectors across positions -------------------------------------------------------------------------------------------- */

/* One class at n positions from p on; `fill` in the lanes after them. */
ALWAYS_INLINE V KERNEL(load_across)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t c, ptrdiff_t n, V fill)
{
    if (!t->rows) return KERNEL(load)(t->x + p + c * t->x_step, n, fill);
    for (ptrdiff_t k = 0; k < xent_min(n, LANES); k++) fill[k] = KERNEL(get)(t->x + (p + k) * t->x_step + c);
    return fill;
}

/* At most a vector of neighbouring positions. `keeps`: the logits too. */
ALWAYS_INLINE void KERNEL(exps_at)(const S *x, ptrdiff_t n, NAME(scale) scale, T *top, T *exps, T *logits, int keeps)
{
    const V v = KERNEL(load)(x, n, NAME(set)((T)-INFINITY));
    v_store(top, v_max(v, v_load(top)));
    if (keeps) v_store(logits, v);
    v_store(exps, NAME(exp_scaled)(v, scale));
}

/* The exponentials of a tile relative to one reference, and the largest logits. Columns: class by class, which streams through
 * memory. */
ALWAYS_INLINE void KERNEL(exps_of_columns)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(scale) scale, T *top,
                                           int keeps)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    for (ptrdiff_t p = 0; p < t->n; p += LANES) v_store(top + p, minus_infinity);
    for (ptrdiff_t c = 0; c < classes; c++) {
        const S *x = t->x + c * t->x_step;
        T *exps = t->exps + c * t->exps_step, *logits = keeps ? t->logits + c * t->exps_step : NULL;
        ptrdiff_t p = 0;
        for (; p + LANES <= t->n; p += LANES) {
            __builtin_prefetch(x + t->x_step + p); /* the next class */
            KERNEL(exps_at)(x + p, LANES, scale, top + p, exps + p, logits + p, keeps);
        }
        if (p < t->n) KERNEL(exps_at)(x + p, t->n - p, scale, top + p, exps + p, logits + p, keeps);
    }
}

/* Rows: turned around in registers on the way. */
ALWAYS_INLINE void KERNEL(exps_of_turned)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(scale) scale, T *top,
                                          int keeps)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    for (ptrdiff_t p = 0; p < t->n; p += LANES) {
        V tops = minus_infinity;
        T *exps = t->exps + p, *logits = keeps ? t->logits + p : NULL;
        if (t->n - p >= LANES && classes >= PIECE) {
            const S *x = t->x + p * t->x_step;
            for (ptrdiff_t c = 0; c < classes; c += PIECE) {
                const ptrdiff_t first = xent_min(c, classes - PIECE), done = p * classes + c * LANES;
                V v[PIECE];
                for (int line = 0; line < PIECE * LANES;
                     line += 64 / (int)sizeof(S)) { /* of the next tile; and for the result */
                    __builtin_prefetch(t->x + t->n * t->x_step + done + line);
                    if (t->out) __builtin_prefetch(t->out + done + line);
                }
                KERNEL(load_turned)(x + first, t->x_step, v);
                for (int k = 0; k < PIECE; k++) {
                    tops = v_max(v[k], tops);
                    if (keeps) v_store(logits + (first + k) * t->exps_step, v[k]);
                    v_store(exps + (first + k) * t->exps_step, NAME(exp_scaled)(v[k], scale));
                }
            }
            v_store(top + p, tops);
            continue;
        }
        for (ptrdiff_t c = 0; c < classes; c++) {
            const V v = KERNEL(load_across)(t, p, c, t->n - p, minus_infinity);
            tops = v_max(v, tops);
            if (keeps) v_store(logits + c * t->exps_step, v);
            v_store(exps + c * t->exps_step, NAME(exp_scaled)(v, scale));
        }
        v_store(top + p, tops);
    }
}

static void KERNEL(tile_exps)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(scale) scale, T *top)
{
    if (t->rows)
        t->logits ? KERNEL(exps_of_turned)(t, classes, scale, top, 1)
                  : KERNEL(exps_of_turned)(t, classes, scale, top, 0);
    else
        t->logits ? KERNEL(exps_of_columns)(t, classes, scale, top, 1)
                  : KERNEL(exps_of_columns)(t, classes, scale, top, 0);
}

/* A vector of positions, each with a reference of its own, for logits of all sizes; in blocks of classes where exponentials are not
 * kept. */
static void KERNEL(mixed_positions)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t classes, NAME(stats) *s)
{
    const V zero = {0}, magic = NAME(set)(MAGIC), infinity = NAME(set)((T)INFINITY), minus_infinity = zero - infinity;
    const ptrdiff_t n = t->n - p, block = t->kept ? classes : BLOCK / LANES, step = t->kept ? t->exps_step : LANES;
    T *exps = t->exps + (t->kept ? p : 0);
    V m = minus_infinity;
    for (ptrdiff_t c = 0; c < classes; c++) m = v_max(KERNEL(load_across)(t, p, c, n, minus_infinity), m);
    const VM far = m_gt(v_abs(m), NAME(set)((T)LIMIT)), spoiled = m_eq(v_abs(m), infinity);
    const V shift = v_select(spoiled, zero, v_select(far, m, zero));
    const V reference = v_fma(v_select(far, zero, m), NAME(set)(LOG2_E), magic) - magic + NAME(set)(FIRST_GUESS);
    const NAME(scale) scale = NAME(scale_of)(reference);
    KERNEL(running) r;
    KERNEL(start)(&r, 0);
    for (ptrdiff_t first = 0; first < classes; first += block) {
        const ptrdiff_t size = xent_min(block, classes - first);
        for (ptrdiff_t c = 0; c < size; c++)
            v_store(exps + c * step,
                    NAME(exp_scaled)(KERNEL(load_across)(t, p, first + c, n, minus_infinity) - shift, scale));
        NAME(add_losers)(exps, step, size, &r.sum, &r.largest);
    }
    v_store(s->top + p, m), v_store(s->shift + p, shift), v_store(s->reference + p, reference);
    v_store(s->peak + p, r.largest);
    NAME(sum_lanes)(&r.sum, s->rest + p, s->rest_low + p);
    for (ptrdiff_t k = p; m_any(spoiled) && k < xent_min(t->n, p + LANES); k++)
        if (isinf(s->top[k]))
            KERNEL(infinite_position)(t->x + (t->rows ? k * t->x_step : k), t->rows ? 1 : t->x_step, classes, s->top[k],
                                      s, k);
}

/* The exponentials and largest logits, relative to a guess, or to a better one. Returns the reference. */
static T KERNEL(guessed_exps)(const KERNEL(tile) *t, ptrdiff_t classes, T *top)
{
    const T reference = *t->guess;
    const V infinity = NAME(set)((T)INFINITY);
    KERNEL(tile_exps)(t, classes, NAME(scale_of)(NAME(set)(reference)), top);
    V most = -infinity, fewest = infinity;
    for (ptrdiff_t p = 0; p < t->n; p += LANES) {
        const V v = NAME(load)(top + p, t->n - p, v_load(top));
        most = v_max(v, most), fewest = v_min(v, fewest);
    }
    const T largest = v_reduce_max(most), least = -v_reduce_max(-fewest);
    if (isinf(largest) || isinf(least) || (KERNEL(good)(reference, largest, 0) && KERNEL(good)(reference, least, 0)))
        return reference;
    const T better = KERNEL(guess_for)(largest - (largest - least) / 2);
    if (!KERNEL(good)(better, largest, 0) || !KERNEL(good)(better, least, 0)) return reference;
    KERNEL(tile_exps)(t, classes, NAME(scale_of)(NAME(set)(better)), top);
    return *t->guess = better;
}

static void KERNEL(across_statistics)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s)
{
    const V zero = {0};
    const T reference = t->kept ? KERNEL(guessed_exps)(t, classes, s->top) : 0;
    const V least = NAME(set)((reference + HEADROOM) * LN2), most = NAME(set)((reference + RAISE) * LN2);
    for (ptrdiff_t p = 0; p < t->n; p += LANES) {
        for (ptrdiff_t k = t->n; k < p + LANES; k++) s->top[k] = least[0]; /* the lanes after the end are fine */
        const V m = v_load(s->top + p);
        if (!t->kept || m_any(m_gt(least, m)) || m_any(m_gt(m, most))) {
            KERNEL(mixed_positions)(t, p, classes, s);
            continue;
        }
        KERNEL(running) r;
        KERNEL(start)(&r, reference);
        NAME(add_losers)(t->exps + p, t->exps_step, classes, &r.sum, &r.largest);
        v_store(s->shift + p, zero), v_store(s->reference + p, NAME(set)(reference));
        v_store(s->peak + p, r.largest);
        NAME(sum_lanes)(&r.sum, s->rest + p, s->rest_low + p);
    }
}

/* Where the exponentials were made before (transform.h), relative to the first guess. */
static void KERNEL(made_statistics)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s)
{
    const V zero = {0}, reference = NAME(set)(FIRST_GUESS);
    for (ptrdiff_t p = 0; p < t->n; p += t->across ? LANES : 1) {
        KERNEL(running) r;
        KERNEL(start)(&r, FIRST_GUESS);
        if (t->across) {
            NAME(add_losers)(t->exps + p, t->exps_step, classes, &r.sum, &r.largest);
            v_store(s->top + p, v_load(t->top + p)), v_store(s->shift + p, zero), v_store(s->reference + p, reference);
            v_store(s->peak + p, r.largest);
            NAME(sum_lanes)(&r.sum, s->rest + p, s->rest_low + p);
        } else {
            NAME(add_losers)(t->exps + p * t->exps_step, LANES, NAME(padded_row)(classes) / LANES, &r.sum, &r.largest);
            s->top[p] = t->top[p], s->shift[p] = 0, s->reference[p] = FIRST_GUESS;
            s->peak[p] = NAME(sum_all_but_one)(&r.sum, r.largest, &s->rest[p], &s->rest_low[p]);
        }
    }
    for (ptrdiff_t p = 0; p < t->n; p++)
        if (isinf(s->top[p]))
            KERNEL(infinite_position)(t->x + (t->rows ? p * t->x_step : p), t->rows ? 1 : t->x_step, classes, s->top[p],
                                      s, p);
}

static void KERNEL(statistics)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s)
{
    if (t->top)
        KERNEL(made_statistics)(t, classes, s);
    else if (t->across)
        KERNEL(across_statistics)(t, classes, s);
    else
        KERNEL(rows_statistics)(t, classes, s);
    NAME(finish)(s, t->n);
}

/* ---- a p_c - b u_c ---------------------------------------------------------------------------------------------------------
 *
 * p_c underflows gradually and must be rounded once: e_c is a normal number wherever the result is not 0, and so is its
 * coefficient a * unit * inverse, unless it is FAINT. Then a power of two of it is given to `lift`: a result that is not 0 has
 * e_c > 2^-150 / coefficient, so that e_c * lift > 2^-150 / sqrt(FAINT) is a normal number too (double: 2^-1075). */
typedef struct {
    T coefficient[TILE], lift[TILE];
    T dense[TILE]; /* b: factor of the dense target u_c = w_c (mix t_c + base) */
    int plain;     /* whether every lift is 1 and no coefficient 0, which makes a result 0 even of NaN */
} KERNEL(affine);

static T KERNEL(split_faint)(double factor, double unit, T *lift)
{
    int exponent; /* of the product, which may be out of the range of a double */
    const double mantissa = frexp(factor, &exponent);
    exponent += ilogb(unit);
    const int power = (int)xent_min(ilogb(FAINT) / 2 - exponent, EXPONENT_BIAS - 1);
    *lift = (T)ldexp(1.0, -power);
    return (T)ldexp(mantissa, exponent + power);
}

/* From the factors a of p_c, and b (NULL: none). */
static void KERNEL(make_affine)(KERNEL(affine) *f, const NAME(stats) *s, const double *a, const double *b, ptrdiff_t n)
{
    int faint = 0;
    for (ptrdiff_t p = 0; p < n; p++) {
        const double coefficient = (a ? a[p] : 1.0) * s->inverse[p] * s->unit[p];
        f->coefficient[p] = (T)coefficient, f->lift[p] = 1, f->dense[p] = b ? (T)b[p] : 0;
        faint |= !(fabs(coefficient) >= FAINT);
    }
    for (ptrdiff_t p = 0; faint && p < n; p++) {
        const double factor = (a ? a[p] : 1.0) * s->inverse[p];
        if (factor != 0 && fabs(factor * s->unit[p]) < FAINT)
            f->coefficient[p] = KERNEL(split_faint)(factor, s->unit[p], &f->lift[p]);
    }
    for (ptrdiff_t p = n; p % LANES; p++) f->coefficient[p] = f->lift[p] = f->dense[p] = 0;
    f->plain = !faint;
}

/* The dense target of one class, at one position or a vector of them. */
typedef struct {
    const T *weight; /* per class or NULL */
    V mix, base;
} KERNEL(dense_target);

ALWAYS_INLINE V KERNEL(target_value)(const KERNEL(dense_target) *d, V weight, V t)
{
    return weight * v_fma(d->mix, t, d->base);
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

/* What makes the result of a row or column of it: whether there is a dense target, UNIFORM or not, exponentials were kept, and the
 * coefficients are plain. Constants at every call: what is not needed costs nothing. */
typedef struct {
    int dense, kept, plain;
} KERNEL(way);
#define UNIFORM 2

/* Numbers of one row. */
typedef struct {
    const S *x, *target;
    const T *exps;
    S *out;
    V coefficient, lift, b, shift;
    NAME(scale) scale;
    KERNEL(dense_target) dense;
} KERNEL(row);

/* n classes from c on, at most a vector. */
ALWAYS_INLINE V KERNEL(row_value)(const KERNEL(row) *r, ptrdiff_t c, ptrdiff_t n, KERNEL(way) way)
{
    const V zero = {0}, one = NAME(set)(1);
    const V e = way.kept ? v_load(r->exps + c) : NAME(exp_scaled)(KERNEL(load)(r->x + c, n, zero) - r->shift, r->scale);
    const V v = (way.plain ? e : e * r->lift) * r->coefficient;
    if (!way.dense) return v;
    if (way.dense == UNIFORM) return v - r->b * r->dense.base;
    const V weight = r->dense.weight ? NAME(load)(r->dense.weight + c, n, zero) : one;
    return v - r->b * KERNEL(target_value)(&r->dense, weight, r->target ? KERNEL(load)(r->target + c, n, zero) : zero);
}

ALWAYS_INLINE void KERNEL(row_map)(const KERNEL(row) *r, ptrdiff_t classes, KERNEL(way) way)
{
    ptrdiff_t c = 0;
    for (; c + LANES <= classes; c += LANES) KERNEL(store)(r->out + c, KERNEL(row_value)(r, c, LANES, way), LANES);
    if (c < classes) KERNEL(store)(r->out + c, KERNEL(row_value)(r, c, classes - c, way), classes - c);
}

ALWAYS_INLINE void KERNEL(rows_map)(const KERNEL(tile) *t, ptrdiff_t classes, const xent_dense *dense,
                                    const KERNEL(affine) *f, const NAME(stats) *s, KERNEL(way) way)
{
    KERNEL(row) r;
    r.dense = KERNEL(dense_target_of)(dense);
    for (ptrdiff_t p = 0; p < t->n; p++) {
        r.x = t->x + p * t->x_step, r.target = t->target ? t->target + p * t->target_step : NULL,
        r.out = t->out + p * t->out_step;
        r.exps = t->exps + p * t->exps_step;
        r.coefficient = NAME(set)(f->coefficient[p]), r.lift = NAME(set)(f->lift[p]), r.b = NAME(set)(f->dense[p]);
        r.shift = NAME(set)(s->shift[p]), r.scale = NAME(scale_of)(NAME(set)(s->reference[p]));
        if (f->coefficient[p] == 0 && f->dense[p] == 0)
            memset(r.out, 0, (size_t)classes * sizeof(S));
        else
            KERNEL(row_map)(&r, classes, way);
    }
}

/* What the results of a tile whose vectors go across the positions are made of. */
typedef struct {
    const KERNEL(tile) *t;
    const KERNEL(affine) *f;
    const NAME(stats) *s;
    KERNEL(dense_target) dense;
} KERNEL(across);

/* Class c of at most n positions from p on. Where the coefficient is 0 the result is, even of NaN. */
ALWAYS_INLINE V KERNEL(value_across)(const KERNEL(across) *m, ptrdiff_t p, ptrdiff_t c, ptrdiff_t n, KERNEL(way) way)
{
    const KERNEL(tile) *t = m->t;
    const V zero = {0}, one = NAME(set)(1), coefficient = v_load(m->f->coefficient + p);
    V e;
    if (way.kept)
        e = v_load(t->exps + p + c * t->exps_step);
    else
        e = NAME(exp_scaled)(KERNEL(load)(t->x + p + c * t->x_step, n, zero) - v_load(m->s->shift + p),
                             NAME(scale_of)(v_load(m->s->reference + p)));
    const V v =
        way.plain ? e * coefficient : v_select(m_eq(coefficient, zero), zero, e * v_load(m->f->lift + p) * coefficient);
    if (!way.dense) return v;
    if (way.dense == UNIFORM) return v - v_load(m->f->dense + p) * m->dense.base;
    const V weight = m->dense.weight ? NAME(set)(m->dense.weight[c]) : one;
    const V target = t->target ? KERNEL(load)(t->target + p + c * t->target_step, n, zero) : zero;
    return v - v_load(m->f->dense + p) * KERNEL(target_value)(&m->dense, weight, target);
}

/* Into columns: class by class, which streams through memory. */
ALWAYS_INLINE void KERNEL(columns_map)(const KERNEL(tile) *t, ptrdiff_t classes, const xent_dense *dense,
                                       const KERNEL(affine) *f, const NAME(stats) *s, KERNEL(way) way)
{
    const KERNEL(across) m = {.t = t, .f = f, .s = s, .dense = KERNEL(dense_target_of)(dense)};
    for (ptrdiff_t c = 0; c < classes; c++) {
        S *out = t->out + c * t->out_step;
        ptrdiff_t p = 0;
        for (; p + LANES <= t->n; p += LANES) KERNEL(store)(out + p, KERNEL(value_across)(&m, p, c, LANES, way), LANES);
        if (p < t->n) KERNEL(store)(out + p, KERNEL(value_across)(&m, p, c, t->n - p, way), t->n - p);
    }
}

/* Into rows: the classes of a vector of positions are turned around in registers. */
ALWAYS_INLINE void KERNEL(turned_map)(const KERNEL(tile) *t, ptrdiff_t classes, const xent_dense *dense,
                                      const KERNEL(affine) *f, const NAME(stats) *s, KERNEL(way) way)
{
    const KERNEL(across) m = {.t = t, .f = f, .s = s, .dense = KERNEL(dense_target_of)(dense)};
    ptrdiff_t p = 0;
    for (; p + LANES <= t->n && classes >= PIECE; p += LANES) {
        for (ptrdiff_t c = 0; c < classes; c += PIECE) {
            const ptrdiff_t first = xent_min(c, classes - PIECE);
            V v[PIECE];
            for (int k = 0; k < PIECE; k++) v[k] = KERNEL(value_across)(&m, p, first + k, LANES, way);
            KERNEL(store_turned)(t->out + p * t->out_step + first, t->out_step, v);
        }
    }
    for (; p < t->n; p += LANES) {
        for (ptrdiff_t c = 0; c < classes; c++) {
            const V v = KERNEL(value_across)(&m, p, c, LANES, way);
            for (ptrdiff_t k = p; k < xent_min(t->n, p + LANES); k++)
                KERNEL(put)(t->out + k * t->out_step + c, v[k - p]);
        }
    }
}

/* `given` is the dense target, or NULL. */
static void KERNEL(exp_map)(const KERNEL(tile) *t, const xent_positions *a, const xent_dense *given,
                            const KERNEL(affine) *f, const NAME(stats) *s)
{
    const int dense = given != NULL;
    if (!dense) given = &no_target;
#define WAY(map, ...) KERNEL(map)(t, a->classes, given, f, s, (KERNEL(way)){__VA_ARGS__})
    if (t->across && t->rows) /* of one input, and with all exponentials: see cut.h */
        f->plain ? WAY(turned_map, 0, 1, 1) : WAY(turned_map, 0, 1, 0);
    else if (t->kept && dense && f->plain && uniform(given))
        t->across ? WAY(columns_map, UNIFORM, 1, 1) : WAY(rows_map, UNIFORM, 1, 1);
    else if (t->across && t->kept)
        dense ? WAY(columns_map, 1, 1, 0) : f->plain ? WAY(columns_map, 0, 1, 1) : WAY(columns_map, 0, 1, 0);
    else if (t->across)
        dense ? WAY(columns_map, 1, 0, 0) : WAY(columns_map, 0, 0, 0);
    else if (t->kept)
        dense ? WAY(rows_map, 1, 1, 0) : f->plain ? WAY(rows_map, 0, 1, 1) : WAY(rows_map, 0, 1, 0);
    else
        dense ? WAY(rows_map, 1, 0, 0) : WAY(rows_map, 0, 0, 0);
#undef WAY
}

static void KERNEL(softmax_tile)(const xent_positions *a, const KERNEL(tile) *t, sum_f64 *losses)
{
    NAME(stats) s;
    KERNEL(affine) f;
    (void)losses;
    KERNEL(statistics)(t, a->classes, &s);
    KERNEL(make_affine)(&f, &s, NULL, NULL, t->n);
    KERNEL(exp_map)(t, a, NULL, &f, &s);
}

static void KERNEL(logsumexp_tile)(const xent_positions *a, const KERNEL(tile) *t, sum_f64 *losses)
{
    NAME(stats) s;
    T *result = (T *)((const xent_softmax_args *)a)->result + t->first;
    (void)losses;
    KERNEL(statistics)(t, a->classes, &s);
    for (ptrdiff_t p = 0; p < t->n; p += LANES) NAME(store)(result + p, NAME(logsumexps)(&s, p), t->n - p);
}

/* ---- two inputs: out_c = f(x_c, g_c, number of the position) -- ----------------------------------------------------------- */

/* The pointwise functions: x is the logits or y, g the incoming gradient, m and q numbers of the position. */
ALWAYS_INLINE V KERNEL(log_softmax_point)(V x, V g, V m, V q)
{
    (void)g;
    return (x - m) - q;
}
ALWAYS_INLINE V KERNEL(softmax_backward_point)(V y, V g, V m, V q)
{
    (void)m;
    return y * (g - q);
}
ALWAYS_INLINE V KERNEL(log_softmax_backward_point)(V y, V g, V m, V q)
{
    (void)m;
    return g - NAME(exp)(y) * q;
}
typedef V (*KERNEL(point))(V x, V g, V m, V q);

/* `point` is a constant at every call and is inlined. */
ALWAYS_INLINE void KERNEL(point_map)(const KERNEL(tile) *t, ptrdiff_t classes, const T *m, const T *q,
                                     KERNEL(point) point)
{
    const V zero = {0};
    const ptrdiff_t long_axis = t->rows ? classes : t->n, short_axis = t->rows ? t->n : classes;
    for (ptrdiff_t j = 0; j < short_axis; j++) {
        const S *x = t->x + j * t->x_step, *g = t->grad_in ? t->grad_in + j * t->target_step : NULL;
        S *out = t->out + j * t->out_step;
        for (ptrdiff_t i = 0; i < long_axis; i += LANES) {
            const ptrdiff_t n = xent_min(LANES, long_axis - i);
            const V vm = t->rows ? NAME(set)(m[j]) : v_load(m + i), vq = t->rows ? NAME(set)(q[j]) : v_load(q + i);
            KERNEL(store)(out + i, point(KERNEL(load)(x + i, n, zero), g ? KERNEL(load)(g + i, n, zero) : zero, vm, vq),
                          n);
        }
    }
}

/* Rows of a tile whose vectors go across them. The last piece of a row may overlap the one before: it is read before that is
 * overwritten, if the result replaces the logits. */
static void KERNEL(log_softmax_turned)(const KERNEL(tile) *t, ptrdiff_t classes, const NAME(stats) *s)
{
    ptrdiff_t p = 0;
    for (; p + LANES <= t->n && classes >= PIECE; p += LANES) {
        const V m = v_load(s->top + p), log_total = v_load(s->log_total + p);
        const S *x = t->x + p * t->x_step;
        S *out = t->out + p * t->out_step;
        V v[PIECE], last[PIECE];
        KERNEL(load_turned)(x + classes - PIECE, t->x_step, last);
        for (ptrdiff_t c = 0; c + PIECE < classes; c += PIECE) {
            KERNEL(load_turned)(x + c, t->x_step, v);
            for (int k = 0; k < PIECE; k++) v[k] = KERNEL(log_softmax_point)(v[k], v[k], m, log_total);
            KERNEL(store_turned)(out + c, t->out_step, v);
        }
        for (int k = 0; k < PIECE; k++) last[k] = KERNEL(log_softmax_point)(last[k], last[k], m, log_total);
        KERNEL(store_turned)(out + classes - PIECE, t->out_step, last);
    }
    for (; p < t->n; p++)
        for (ptrdiff_t c = 0; c < classes; c++)
            KERNEL(put)(t->out + p * t->out_step + c,
                        (KERNEL(get)(t->x + p * t->x_step + c) - s->top[p]) - s->log_total[p]);
}

static void KERNEL(log_softmax_tile)(const xent_positions *a, const KERNEL(tile) *t, sum_f64 *losses)
{
    NAME(stats) s;
    (void)losses;
    KERNEL(statistics)(t, a->classes, &s);
    if (t->across && t->rows)
        KERNEL(log_softmax_turned)(t, a->classes, &s);
    else
        KERNEL(point_map)(t, a->classes, s.top, s.log_total, KERNEL(log_softmax_point));
}

/* sum over the classes of g_c, or of y_c g_c, in wide accumulators. */
ALWAYS_INLINE void KERNEL(sum_over_classes)(const KERNEL(tile) *t, ptrdiff_t classes, T *result, int times_y)
{
    const V zero = {0};
    for (ptrdiff_t p = 0; p < t->n; p += t->rows ? 1 : LANES) {
        NAME(sum) sum = {{0}, {0}};
        const ptrdiff_t vectors = t->rows ? (classes + LANES - 1) / LANES : classes;
        for (ptrdiff_t c = 0; c < vectors; c++) {
            const ptrdiff_t n = t->rows ? xent_min(LANES, classes - c * LANES) : xent_min(LANES, t->n - p);
            const V g =
                KERNEL(load)(t->grad_in + (t->rows ? p * t->target_step + c * LANES : p + c * t->target_step), n, zero);
            const V y = KERNEL(load)(t->rows ? t->x + p * t->x_step + c * LANES : t->x + p + c * t->x_step, n, zero);
            NAME(sum_add)(&sum, times_y ? g * y : g);
        }
        if (t->rows) {
            result[p] = (T)NAME(sum_total)(&sum);
        } else {
            double lanes[LANES];
            NAME(sum_lanes)(&sum, lanes, NULL);
            for (int k = 0; k < LANES; k++) result[p + k] = (T)lanes[k];
        }
    }
}

/* y = softmax(x):      dL/dx_j = sum_c g_c y_c ([c == j] - y_j) = y_j (g_j - sum_c g_c y_c) */
static void KERNEL(softmax_backward_tile)(const xent_positions *a, const KERNEL(tile) *t, sum_f64 *losses)
{
    T q[TILE];
    (void)losses;
    KERNEL(sum_over_classes)(t, a->classes, q, 1);
    KERNEL(point_map)(t, a->classes, q, q, KERNEL(softmax_backward_point));
}

/* y = log_softmax(x):  dL/dx_j = sum_c g_c ([c == j] - e^y_j) = g_j - e^y_j sum_c g_c */
static void KERNEL(log_softmax_backward_tile)(const xent_positions *a, const KERNEL(tile) *t, sum_f64 *losses)
{
    T q[TILE];
    (void)losses;
    KERNEL(sum_over_classes)(t, a->classes, q, 0);
    KERNEL(point_map)(t, a->classes, q, q, KERNEL(log_softmax_backward_point));
}

#define TILE_KERNEL(name)                                                                                              \
    static void KERNEL(name)(const void *args, ptrdiff_t chunk, void *scratch)                                         \
    {                                                                                                                  \
        KERNEL(for_tiles)((const xent_positions *)args, chunk, scratch,                                                \
                          (KERNEL(functions)){.plain = KERNEL(name##_tile), .packed = NAME(name##_tile)});             \
    }
TILE_KERNEL(softmax)
TILE_KERNEL(log_softmax)
TILE_KERNEL(logsumexp)
TILE_KERNEL(softmax_backward)
TILE_KERNEL(log_softmax_backward)

#endif
