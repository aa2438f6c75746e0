/* statistics.h: one look at the logits of a tile: the largest of each position, and its exponentials and their sum, as
 * stats.h says. The exponentials are kept if the tile has room for them.
 *
 * Design: the exponentials are taken relative to a power of two that is chosen before the largest logit is known, from
 * what was right before, so that one look at the logits does for both; where it was no good, once more. They are
 * computed in one loop and added up in another: together they would wait for registers and for each other.
 */
#include "begin.h"
#include "simd/exp.h"
#include "simd/stored.h"
#include "simd/sums.h"
#include "softmax/stats.h"
#include "softmax/tile.h"

#ifndef XENT_STATISTICS_H
#define XENT_STATISTICS_H

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
    s->max_logit[p] = m, s->shift[p] = s->scale_exponent[p] = 0, s->peak[p] = 1;
    s->rest[p] = found ? NAN : 0, s->rest_low[p] = 0;
}

/* exps[i] = e^(x[i] - shift) 2^-scale_exponent of n neighbours, and 0 from there to a multiple of ROW_GROUP; returns the largest x[i] (NaN never gets in). What is read next, and where the result will be written, is fetched
 * meanwhile. `shifted` is a constant. */
ALWAYS_INLINE T KERNEL(exps_of)(const S *x, ptrdiff_t n, const S *next, const S *out, T shift, NAME(scale) scale,
                                T *exps, int shifted)
{
    const V minus_infinity = NAME(set)((T)-INFINITY), offset = NAME(set)(shift), zero = {0};
    V max_logits[2] = {minus_infinity, minus_infinity};
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        for (int k = 0; k < 2 * LANES; k += CACHE_LINE / (int)sizeof(S)) {
            __builtin_prefetch(next + i + k);
            __builtin_prefetch(out + i + k);
        }
        for (int k = 0; k < 2; k++) {
            const V v = KERNEL(load)(x + i + k * LANES, LANES, zero);
            max_logits[k] = v_max(v, max_logits[k]);
            v_store(exps + i + k * LANES, NAME(exp_scaled)(shifted ? v - offset : v, scale));
        }
    }
    for (; i < n; i += LANES) {
        const V v = KERNEL(load)(x + i, n - i, minus_infinity);
        max_logits[0] = v_max(v, max_logits[0]);
        v_store(exps + i, NAME(exp_scaled)(shifted ? v - offset : v, scale));
    }
    for (; i % ROW_GROUP; i += LANES) v_store(exps + i, zero);
    return v_reduce_max(v_max(max_logits[0], max_logits[1]));
}

/* Whether a scale exponent is good for a largest logit; where others came before (`later`), only one that exceeds them
 * matters. */
ALWAYS_INLINE int KERNEL(is_good)(T scale_exponent, T max_logit, int later)
{
    return max_logit <= (scale_exponent + RAISE) * LN2 && (later || max_logit >= (scale_exponent + HEADROOM) * LN2);
}
ALWAYS_INLINE T KERNEL(scale_exponent_for)(T max_logit) { return KERNEL(exponent)(max_logit) + FIRST_SCALE_EXPONENT; }

/* Go on with another scale exponent: with it change the sum and the n exponentials that were kept so far. */
static void KERNEL(rescale)(NAME(losers) *r, T from, T to, T *exps, ptrdiff_t n)
{
    /* in two halves: the step may exceed the range of a double where the sum does not */
    const int down = (int)(from - to);
    const double half = ldexp(1.0, down / 2), rest = ldexp(1.0, down - down / 2);
    for (int w = 0; w < WAYS; w++) {
        r->sum[w].a = r->sum[w].a * set_f64(half) * set_f64(rest);
        r->sum[w].b = r->sum[w].b * set_f64(half) * set_f64(rest);
        for (int i = 0; i < CHAINS; i++) r->largest[w][i] = r->largest[w][i] * NAME(set)((T)half) * NAME(set)((T)rest);
    }
    for (ptrdiff_t i = 0; i < n; i++) exps[i] = exps[i] * (T)half * (T)rest;
}

static T KERNEL(block_exps)(const S *x, ptrdiff_t n, const S *next, const S *out, T shift, T scale_exponent, T *exps)
{
    const NAME(scale) scale = NAME(scale_of)(NAME(set)(scale_exponent));
    return shift == 0 ? KERNEL(exps_of)(x, n, next, out, shift, scale, exps, 0)
                      : KERNEL(exps_of)(x, n, next, out, shift, scale, exps, 1);
}

/* One row, in blocks (of which there may be one). */
static void KERNEL(row_statistics)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t n, T shift, NAME(stats) *s)
{
    NAME(losers) r;
    const S *x = t->x + p * t->x_step, *out = t->result               ? t->result + p * n
                                              : t->out && !t->streams ? t->out + p * t->out_step
                                                                      : x; /* fetch no result */
    T *exps = t->exps + (t->kept ? p * t->exps_step : 0), m = (T)-INFINITY, scale_exponent = *t->scale_exponent;
    const ptrdiff_t block = t->blocks ? BLOCK : n;
    const S *next = t->next ? t->next + p * n : x + (t->blocks ? BLOCK : t->x_step);
    ptrdiff_t left_out = 0;
    NAME(start_losers)(&r, WAYS);
    if (t->ranked) KERNEL(start_ranks)(t->ranked);
    s->near_largest[p] = 0;
    for (ptrdiff_t i = 0; i < n; i += block) {
        const ptrdiff_t size = xent_min(block, n - i);
        T *room = exps + (t->kept ? i : 0);
        const int later = m != (T)-INFINITY; /* else all were zeros, which no scale changes */
        T max_logit = KERNEL(block_exps)(x + i, size, next + i, out + i, shift, scale_exponent, room);
        if (!isinf(max_logit) && !KERNEL(is_good)(scale_exponent, max_logit - shift, later)) {
            const T better = KERNEL(scale_exponent_for)(max_logit - shift);
            if (later) KERNEL(rescale)(&r, scale_exponent, better, exps, t->kept ? i : 0);
            scale_exponent = better;
            max_logit = KERNEL(block_exps)(x + i, size, next + i, out + i, shift, scale_exponent, room);
        }
        if (max_logit > m) m = max_logit, s->near_largest[p] = i;
        for (; left_out < t->left_out_count && t->left_out[left_out] < i + size; left_out++)
            room[t->left_out[left_out] - i] = 0;
        if (t->ranked) KERNEL(rank_block)(t->ranked, x + i, size, max_logit);
        NAME(add_row)(room, size, &r);
    }
    *t->scale_exponent = scale_exponent;
    s->max_logit[p] = m, s->shift[p] = shift, s->scale_exponent[p] = scale_exponent;
    s->peak[p] = NAME(row_of_losers)(&r, &s->rest[p], &s->rest_low[p]);
}

/* The largest of n neighbours, of which NaN is none. */
static T KERNEL(largest_of)(const S *x, ptrdiff_t n)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    V most[4] = {minus_infinity, minus_infinity, minus_infinity, minus_infinity};
    ptrdiff_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) /* four that do not wait for each other */
        for (int k = 0; k < 4; k++) most[k] = v_max(KERNEL(load)(x + i + k * LANES, LANES, minus_infinity), most[k]);
    for (; i < n; i += LANES) most[0] = v_max(KERNEL(load)(x + i, n - i, minus_infinity), most[0]);
    return v_reduce_max(v_max(v_max(most[0], most[1]), v_max(most[2], most[3])));
}

/* Rows of large logits are taken relative to their largest one. It is known after a look at exponentials that are of no
 * use then; after one such row the next is looked through for it before, which takes a fifth as long. */
static void KERNEL(rows_statistics)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s)
{
    T m = 0;
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const int large = m > (T)LIMIT || m < (T)-LIMIT;
        const T expected = large ? KERNEL(largest_of)(t->x + p * t->x_step, classes) : 0;
        const T shift = !isinf(expected) && (expected > (T)LIMIT || expected < (T)-LIMIT) ? expected : 0;
        KERNEL(row_statistics)(t, p, classes, shift, s);
        m = s->max_logit[p];
        if (isinf(m))
            KERNEL(infinite_position)(t->x + p * t->x_step, 1, classes, m, s, p);
        else if (m != shift && (m > (T)LIMIT || m < (T)-LIMIT)) /* once more, relative to m */
            KERNEL(row_statistics)(t, p, classes, m, s);
    }
}

/* ---- lanes are positions ---- */

/* One class at n positions from p on; `fill` in the lanes after them. */
ALWAYS_INLINE V KERNEL(load_positions)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t c, ptrdiff_t n, V fill)
{
    if (!KERNEL(transposed)(t)) return KERNEL(load)(t->x + p + c * t->x_step, n, fill);
    for (ptrdiff_t k = 0; k < xent_min(n, LANES); k++) fill[k] = KERNEL(get)(t->x + (p + k) * t->x_step + c);
    return fill;
}

/* At most a vector of neighbouring positions; the logits too, unless NULL. */
ALWAYS_INLINE void KERNEL(exps_at)(const S *x, ptrdiff_t n, NAME(scale) scale, T *max_logit, T *exps, T *logits)
{
    const V v = KERNEL(load)(x, n, NAME(set)((T)-INFINITY));
    v_store(max_logit, v_max(v, v_load(max_logit)));
    if (logits) v_store(logits, v);
    v_store(exps, NAME(exp_scaled)(v, scale));
}

/* The exponentials of a tile with one scale exponent, and the largest logits. Columns: class by class, which streams
 * through memory. */
ALWAYS_INLINE void KERNEL(exps_of_columns)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(scale) scale, T *max_logit,
                                           int keeps)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    for (ptrdiff_t p = 0; p < t->n; p += LANES) v_store(max_logit + p, minus_infinity);
    for (ptrdiff_t c = 0; c < classes; c++) {
        const S *x = t->x + c * t->x_step;
        T *exps = t->exps + c * t->exps_step, *logits = keeps ? t->logits + c * t->exps_step : NULL;
        ptrdiff_t p = 0;
        for (; p + LANES <= t->n; p += LANES) {
            __builtin_prefetch(x + t->x_step + p); /* the next class */
            KERNEL(exps_at)(x + p, LANES, scale, max_logit + p, exps + p, keeps ? logits + p : NULL);
        }
        if (p < t->n) KERNEL(exps_at)(x + p, t->n - p, scale, max_logit + p, exps + p, keeps ? logits + p : NULL);
    }
}

/* Rows: transposed in registers on the way. PIECE classes of a vector of positions from p on, of which the first `done`
 * are there already. */
ALWAYS_INLINE V KERNEL(exps_of_piece)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t c, ptrdiff_t done,
                                      NAME(scale) scale, V max_logits, int keeps)
{
    V v[PIECE];
    KERNEL(load_transposed)(t->x + p * t->x_step + c, t->x_step, v);
    for (ptrdiff_t k = done; k < PIECE; k++) {
        max_logits = v_max(v[k], max_logits);
        if (keeps) v_store(t->logits + p + (c + k) * t->exps_step, v[k]);
        v_store(t->exps + p + (c + k) * t->exps_step, NAME(exp_scaled)(v[k], scale));
    }
    return max_logits;
}

/* Cache lines of the next tile, and for the result, while a piece of classes from c on is worked on. */
ALWAYS_INLINE void KERNEL(fetch_piece)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t c, ptrdiff_t classes)
{
    const ptrdiff_t from = p * classes + c * LANES;
    for (int line = 0; line < PIECE * LANES; line += CACHE_LINE / (int)sizeof(S)) {
        __builtin_prefetch(t->x + t->n * t->x_step + from + line);
        if (t->out) __builtin_prefetch(t->out + from + line);
    }
}

ALWAYS_INLINE void KERNEL(exps_of_transposed)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(scale) scale, T *max_logit,
                                              int keeps)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    const ptrdiff_t whole = classes / PIECE * PIECE;
    for (ptrdiff_t p = 0; p < t->n; p += LANES) {
        V max_logits = minus_infinity;
        const ptrdiff_t in_pieces = t->n - p >= LANES ? whole : 0, last = classes - PIECE;
        for (ptrdiff_t c = 0; c < in_pieces; c += PIECE) {
            KERNEL(fetch_piece)(t, p, c, classes);
            max_logits = KERNEL(exps_of_piece)(t, p, c, 0, scale, max_logits, keeps);
        }
        if (in_pieces > 0 && in_pieces < classes)
            max_logits = KERNEL(exps_of_piece)(t, p, last, whole - last, scale, max_logits, keeps);
        for (ptrdiff_t c = 0; in_pieces == 0 && c < classes; c++) {
            const V v = KERNEL(load_positions)(t, p, c, t->n - p, minus_infinity);
            max_logits = v_max(v, max_logits);
            if (keeps) v_store(t->logits + p + c * t->exps_step, v);
            v_store(t->exps + p + c * t->exps_step, NAME(exp_scaled)(v, scale));
        }
        v_store(max_logit + p, max_logits);
    }
}

static void KERNEL(tile_exps)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(scale) scale, T *max_logit)
{
    if (KERNEL(transposed)(t))
        t->logits ? KERNEL(exps_of_transposed)(t, classes, scale, max_logit, 1)
                  : KERNEL(exps_of_transposed)(t, classes, scale, max_logit, 0);
    else
        t->logits ? KERNEL(exps_of_columns)(t, classes, scale, max_logit, 1)
                  : KERNEL(exps_of_columns)(t, classes, scale, max_logit, 0);
}

/* A vector of positions, each with a scale exponent of its own, for logits of all sizes; in blocks of classes where
 * exponentials are not kept. */
static void KERNEL(mixed_positions)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t classes, NAME(stats) *s)
{
    const V zero = {0}, magic = NAME(set)(MAGIC), infinity = NAME(set)((T)INFINITY), minus_infinity = zero - infinity;
    const ptrdiff_t n = t->n - p, block = t->kept ? classes : BLOCK / ROW_LANES, step = t->kept ? t->exps_step : LANES;
    T *exps = t->exps + (t->kept ? p : 0);
    V m = minus_infinity;
    for (ptrdiff_t c = 0; c < classes; c++) m = v_max(KERNEL(load_positions)(t, p, c, n, minus_infinity), m);
    const VM far = m_gt(v_abs(m), NAME(set)((T)LIMIT)), spoiled = m_eq(v_abs(m), infinity);
    const V shift = v_select(spoiled, zero, v_select(far, m, zero));
    const V scale_exponent =
        v_fma(v_select(far, zero, m), NAME(set)(LOG2_E), magic) - magic + NAME(set)(FIRST_SCALE_EXPONENT);
    const NAME(scale) scale = NAME(scale_of)(scale_exponent);
    NAME(losers) r;
    NAME(start_losers)(&r, 1);
    for (ptrdiff_t first = 0; first < classes; first += block) {
        const ptrdiff_t size = xent_min(block, classes - first);
        for (ptrdiff_t c = 0; c < size; c++)
            v_store(exps + c * step,
                    NAME(exp_scaled)(KERNEL(load_positions)(t, p, first + c, n, minus_infinity) - shift, scale));
        NAME(add_positions)(exps, step, size, &r, 0);
    }
    v_store(s->max_logit + p, m), v_store(s->shift + p, shift), v_store(s->scale_exponent + p, scale_exponent);
    NAME(put_losers)(&r, 1, s, p);
    for (ptrdiff_t k = p; m_any(spoiled) && k < xent_min(t->n, p + LANES); k++)
        if (isinf(s->max_logit[k]))
            KERNEL(infinite_position)(t->x + (t->rows ? k * t->x_step : k), t->rows ? 1 : t->x_step, classes,
                                      s->max_logit[k], s, k);
}

/* A scale exponent that is good for all positions of a tile; `given` if there is none. */
static T KERNEL(common_scale_exponent)(const T *max_logit, ptrdiff_t n, T given)
{
    const V infinity = NAME(set)((T)INFINITY);
    V most = -infinity, fewest = infinity;
    for (ptrdiff_t p = 0; p < n; p += LANES) {
        const V v = NAME(load)(max_logit + p, n - p, v_load(max_logit));
        most = v_max(v, most), fewest = v_min(v, fewest);
    }
    const T largest = v_reduce_max(most), least = -v_reduce_max(-fewest);
    if (isinf(largest) || isinf(least)) return given;
    const T better = KERNEL(scale_exponent_for)(largest - (largest - least) / 2);
    return KERNEL(is_good)(better, largest, 0) && KERNEL(is_good)(better, least, 0) ? better : given;
}

/* mixed[i]: whether the scale exponent is no good for one of ROW_LANES positions, which come together however wide
 * vectors are. Returns whether any is. */
static int KERNEL(find_mixed)(T scale_exponent, T *max_logit, ptrdiff_t n, int *mixed)
{
    const V least = NAME(set)((scale_exponent + HEADROOM) * LN2), most = NAME(set)((scale_exponent + RAISE) * LN2);
    int any = 0;
    for (ptrdiff_t k = n; k % ROW_LANES; k++) max_logit[k] = least[0]; /* the lanes after the end are fine */
    for (ptrdiff_t p = 0; p < n; p += ROW_LANES) {
        int found = 0;
        for (int w = 0; w < WAYS; w++) {
            const V m = v_load(max_logit + p + w * LANES);
            found |= m_any(m_gt(least, m)) | m_any(m_gt(m, most));
        }
        mixed[p / ROW_LANES] = found, any |= found;
    }
    return any;
}

/* The exponentials and largest logits of a tile that keeps them, with its scale exponent, or with a better one. */
static T KERNEL(well_scaled_exps)(const KERNEL(tile) *t, ptrdiff_t classes, T *max_logit, int *mixed)
{
    const T given = *t->scale_exponent;
    KERNEL(tile_exps)(t, classes, NAME(scale_of)(NAME(set)(given)), max_logit);
    if (!KERNEL(find_mixed)(given, max_logit, t->n, mixed)) return given;
    const T better = KERNEL(common_scale_exponent)(max_logit, t->n, given);
    if (better == given) return given;
    KERNEL(tile_exps)(t, classes, NAME(scale_of)(NAME(set)(better)), max_logit);
    KERNEL(find_mixed)(better, max_logit, t->n, mixed);
    return *t->scale_exponent = better;
}

/* The exponentials of positions from p on, which have one scale exponent: how many vectors of them were added up. */
ALWAYS_INLINE int KERNEL(add_scaled)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t classes, int two, V scale_exponent,
                                     NAME(stats) *s)
{
    const V zero = {0};
    NAME(losers) r;
    NAME(start_losers)(&r, 2);
    NAME(add_positions)(t->exps + p, t->exps_step, classes, &r, two);
    for (int w = 0; w <= two; w++)
        v_store(s->shift + p + w * LANES, zero), v_store(s->scale_exponent + p + w * LANES, scale_exponent);
    NAME(put_losers)(&r, 1 + two, s, p);
    return 1 + two;
}

static void KERNEL(positions_statistics)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s)
{
    int mixed[TILE / ROW_LANES];
    T scale_exponent = 0;
    if (t->kept)
        scale_exponent = KERNEL(well_scaled_exps)(t, classes, s->max_logit, mixed);
    else
        for (int i = 0; i < TILE / ROW_LANES; i++) mixed[i] = 1;
    for (ptrdiff_t p = 0; p < t->n;) {
        const int two = p + LANES < t->n && !mixed[(p + LANES) / ROW_LANES];
        if (mixed[p / ROW_LANES])
            KERNEL(mixed_positions)(t, p, classes, s), p += LANES;
        else
            p += LANES * KERNEL(add_scaled)(t, p, classes, two, NAME(set)(scale_exponent), s);
    }
}

/* Where the exponentials were made before (transform.h), with the first scale exponent. */
static void KERNEL(made_statistics)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s)
{
    const V scale_exponent = NAME(set)(FIRST_SCALE_EXPONENT);
    for (ptrdiff_t p = 0; t->lanes_are_positions && p < t->n;) {
        const int two = p + LANES < t->n;
        for (int w = 0; w <= two; w++) v_store(s->max_logit + p + w * LANES, v_load(t->max_logit + p + w * LANES));
        p += LANES * KERNEL(add_scaled)(t, p, classes, two, scale_exponent, s);
    }
    for (ptrdiff_t p = 0; !t->lanes_are_positions && p < t->n; p++) {
        NAME(losers) r;
        NAME(start_losers)(&r, WAYS);
        NAME(add_row)(t->exps + p * t->exps_step, classes, &r);
        s->max_logit[p] = t->max_logit[p], s->shift[p] = 0, s->scale_exponent[p] = FIRST_SCALE_EXPONENT;
        s->near_largest[p] = 0;
        s->peak[p] = NAME(row_of_losers)(&r, &s->rest[p], &s->rest_low[p]);
    }
    for (ptrdiff_t p = 0; p < t->n; p++)
        if (isinf(s->max_logit[p]))
            KERNEL(infinite_position)(t->x + (t->rows ? p * t->x_step : p), t->rows ? 1 : t->x_step, classes,
                                      s->max_logit[p], s, p);
}

static void KERNEL(statistics_wanted)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s, int wanted)
{
    if (sizeof(S) == sizeof(T) && t->max_logit) /* what is transformed is no 16-bit float */
        KERNEL(made_statistics)(t, classes, s);
    else if (t->lanes_are_positions)
        KERNEL(positions_statistics)(t, classes, s);
    else
        KERNEL(rows_statistics)(t, classes, s);
    NAME(finish)(s, t->n, wanted);
}

static void KERNEL(statistics)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s)
{
    KERNEL(statistics_wanted)(t, classes, s, PROBABILITIES | LOGARITHMS);
}

#endif
