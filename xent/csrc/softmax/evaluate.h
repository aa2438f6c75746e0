/* evaluate.h: what is to be known of predictions, from one look at the logits. For each position, with p the softmax
 * and y the label,
 *
 *   loss       -log p_y
 *   square     sum_c (p_c - [c == y])^2 = sum_{c != y} p_c^2 + (1 - p_y)^2: no 1 - 2 p_y + p_y^2, which would cancel
 *   entropy    -sum_c p_c log p_c = sum_c p_c (m - x_c) + log1p(R): both terms >= 0
 *   rank       the number of classes that come before y: a larger logit, or the same and a smaller index
 *
 * The sums over the positions, times a->sample_weight v, of the first three and of [rank == 0] are LOSS, SQUARES, ENTROPY
 * and FIRST of the partial sums. For standard errors there are those of (v loss)^2 and, with weights, of [v != 0], v^2,
 * v^2 loss and v^2 [rank == 0]; without, they would be numbers that are known. A label has rank 0 if its logit is the
 * largest and its exponential larger than any other; only where that leaves it open are logits compared. If there is
 * a->rank it gets the ranks, up to a->most; only then are classes counted. Nothing has a rank where largest.h says so.
 * a->report has one number per position of what somebody wants of each.
 *
 * Where a->brief says so, squares and entropies are not wanted: they are 0, and the logits are not looked at again.
 */
#include "begin.h"
#include "simd/exp.h"
#include "simd/stored.h"
#include "simd/sums.h"
#include "softmax/cut.h"
#include "softmax/labels.h"
#include "softmax/largest.h"
#include "softmax/statistics.h"
#include "softmax/stats.h"
#include "table.h"

#ifndef XENT_EVALUATE_H
#define XENT_EVALUATE_H

#ifndef STORED_AS_16
#if XENT_REAL == 64
enum { LOSS, SQUARES, ENTROPY, FIRST, LOSS_SQUARES, WEIGHTED, WEIGHTS_2, LOSSES_2, FIRSTS_2 };
#define ALONE 0.5  /* of R: another logit that is as large as the largest has made it at least 1, but for roundings */
#define STRETCH 32 /* vectors that are added up before they reach a wide sum: an error of some 2^-20 of a mean square */
#endif

/* Sums over all classes but the label's, of one position (rows) or a vector of them. A stretch of each goes into two
 * vectors, which do not wait for each other. */
typedef struct {
    NAME(sum) wide_square, wide_entropy;
    V square[2], entropy[2];
} NAME(evaluated);

typedef struct {
    double square[TILE], entropy[TILE];
    T rival[TILE]; /* no exponential of another class is larger */
} NAME(known);

ALWAYS_INLINE void NAME(start_evaluation)(NAME(evaluated) *r)
{
    const V zero = {0};
    r->wide_square.a = r->wide_square.b = r->wide_entropy.a = r->wide_entropy.b = (vf64)zero;
    r->square[0] = r->square[1] = r->entropy[0] = r->entropy[1] = zero;
}

/* Add the exponentials of a vector of logits. An infinite distance has p = 0; it must not make NaN of it. */
ALWAYS_INLINE void NAME(evaluate_vector)(NAME(evaluated) *r, int k, V x, V e, V coefficient, V m)
{
    const V p = e * coefficient;
    r->square[k] = v_fma(p, p, r->square[k]);
    r->entropy[k] = v_fma(p, v_min(NAME(set)(FARTHEST), m - x), r->entropy[k]);
}

ALWAYS_INLINE void NAME(end_stretch)(NAME(evaluated) *r)
{
    const V zero = {0};
    NAME(sum_add)(&r->wide_square, r->square[0] + r->square[1]),
        NAME(sum_add)(&r->wide_entropy, r->entropy[0] + r->entropy[1]);
    r->square[0] = r->square[1] = r->entropy[0] = r->entropy[1] = zero;
}

/* An exponential that no other class exceeds. To look for it in each row costs more than to look in a few again. */
ALWAYS_INLINE T NAME(guessed_rival)(const NAME(stats) *s, ptrdiff_t p)
{
    return s->others[p] < ALONE ? 0 : (T)INFINITY;
}
#endif

/* Exponentials of a row from class c on, made again without the label and what lies after the end. */
ALWAYS_INLINE V KERNEL(other_exps)(const NAME(stats) *s, V x, ptrdiff_t p, ptrdiff_t c, ptrdiff_t classes,
                                   ptrdiff_t label)
{
    V e = NAME(exp_scaled)(x - NAME(set)(s->shift[p]), NAME(scale_of)(NAME(set)(s->scale_exponent[p])));
    for (int k = 0; k < LANES; k++)
        if (c + k == label || c + k >= classes) e[k] = 0;
    return e;
}

static void KERNEL(evaluate_row)(const KERNEL(tile) *t, ptrdiff_t classes, const NAME(stats) *s,
                                 const KERNEL(labels) *y, ptrdiff_t p, NAME(known) *known)
{
    const V m = NAME(set)(s->max_logit[p]), coefficient = NAME(set)((T)(s->inverse[p] * s->unit[p]));
    const ptrdiff_t label = y->label[p], block = STRETCH * ROW_LANES;
    const S *x = t->x + p * t->x_step;
    T *exps = t->exps + (t->kept ? p * t->exps_step : 0);
    NAME(evaluated) r[WAYS];
    NAME(row_sum) square, entropy;
    for (int w = 0; w < WAYS; w++) NAME(start_evaluation)(r + w);
    for (ptrdiff_t first = 0; first < classes; first += block) {
        const ptrdiff_t end = xent_min(classes, first + block);
        ptrdiff_t c = first;
        for (; t->kept && c + 2 * ROW_LANES <= end; c += 2 * ROW_LANES)
            for (int k = 0; k < 2 * WAYS; k++)
                NAME(evaluate_vector)(r + k % WAYS, k / WAYS, KERNEL(load)(x + c + k * LANES, LANES, m),
                                      v_load(exps + c + k * LANES), coefficient, m);
        for (; c < end; c += ROW_LANES)
            for (int w = 0; w < WAYS; w++) {
                const ptrdiff_t at = c + w * LANES;
                if (at >= end) break;
                const V v = KERNEL(load)(x + at, classes - at, m);
                const V e = t->kept ? v_load(exps + at) : KERNEL(other_exps)(s, v, p, at, classes, label);
                NAME(evaluate_vector)(r + w, 0, v, e, coefficient, m);
            }
        for (int w = 0; w < WAYS; w++) NAME(end_stretch)(r + w);
    }
    for (int w = 0; w < WAYS; w++) square.way[w] = r[w].wide_square, entropy.way[w] = r[w].wide_entropy;
    known->square[p] = NAME(row_total)(&square), known->entropy[p] = NAME(row_total)(&entropy);
    known->rival[p] = NAME(guessed_rival)(s, p);
}

/* Sums over the classes of a vector of positions from p on. */
static void KERNEL(evaluate_positions)(const KERNEL(tile) *t, ptrdiff_t classes, const NAME(stats) *s,
                                       const KERNEL(labels) *y, ptrdiff_t p, NAME(known) *known)
{
    const V m = v_load(s->max_logit + p), shift = v_load(s->shift + p);
    const NAME(scale) scale = NAME(scale_of)(v_load(s->scale_exponent + p));
    const ptrdiff_t n = xent_min(LANES, t->n - p);
    const V coefficient = NAME(probabilities)(s, NAME(set)(1), p);
    V rival[2] = {{0}, {0}};
    NAME(evaluated) r;
    NAME(start_evaluation)(&r);
    for (ptrdiff_t first = 0; first < classes; first += STRETCH) {
        const ptrdiff_t end = xent_min(classes, first + STRETCH);
        ptrdiff_t c = first;
        for (; t->logits && c + 2 <= end; c += 2)
            for (int k = 0; k < 2; k++) {
                const V e = v_load(t->exps + p + (c + k) * t->exps_step);
                NAME(evaluate_vector)(&r, k, v_load(t->logits + p + (c + k) * t->exps_step), e, coefficient, m);
                rival[k] = v_max(e, rival[k]);
            }
        for (; c < end; c++) {
            const V v = KERNEL(logits_of_positions)(t, p, c, n, m);
            V e = t->kept ? v_load(t->exps + p + c * t->exps_step) : NAME(exp_scaled)(v - shift, scale);
            for (int k = 0; !t->kept && k < n; k++)
                if (y->label[p + k] == c) e[k] = 0;
            NAME(evaluate_vector)(&r, 0, v, e, coefficient, m);
            rival[0] = v_max(e, rival[0]);
        }
        NAME(end_stretch)(&r);
    }
    NAME(sum_lanes)(&r.wide_square, known->square + p, NULL),
        NAME(sum_lanes)(&r.wide_entropy, known->entropy + p, NULL);
    v_store(known->rival + p, v_max(rival[0], rival[1]));
}

/* The number of classes before the label of a row. */
static int64_t KERNEL(rank_in_row)(const KERNEL(tile) *t, ptrdiff_t classes, const KERNEL(labels) *y, ptrdiff_t p)
{
    const S *x = t->x + p * t->x_step;
    const ptrdiff_t label = y->label[p];
    const V x_y = NAME(set)(y->x[p]), zero = {0}, one = NAME(set)(1);
    int64_t rank = 0;
    for (ptrdiff_t first = 0, c = 0; first < classes; first += COUNTS * LANES) {
        const ptrdiff_t end = xent_min(classes, first + COUNTS * LANES);
        V before = zero;
        for (; c + LANES <= xent_min(label, end); c += LANES)
            before += v_select(m_ge(KERNEL(load)(x + c, LANES, zero), x_y), one, zero);
        for (; c < end && c <= label; c++) rank += c < label && KERNEL(get)(x + c) >= y->x[p];
        for (; c + LANES <= end; c += LANES) before += v_select(m_gt(KERNEL(load)(x + c, LANES, zero), x_y), one, zero);
        for (; c < end; c++) rank += KERNEL(get)(x + c) > y->x[p];
        rank += (int64_t)v_reduce_sum(before);
    }
    return rank;
}

/* The numbers of classes before the labels of a vector of positions from p on. */
static void KERNEL(ranks_of_positions)(const KERNEL(tile) *t, ptrdiff_t classes, const KERNEL(labels) *y, ptrdiff_t p,
                                       int64_t *rank)
{
    const V x_y = v_load(y->x + p), zero = {0}, one = NAME(set)(1);
    const ptrdiff_t n = xent_min(LANES, t->n - p);
    for (ptrdiff_t k = 0; k < n; k++) rank[k] = 0;
    for (ptrdiff_t first = 0; first < classes; first += COUNTS) {
        const ptrdiff_t size = xent_min(COUNTS, classes - first);
        T labels[LANES] = {0}; /* counted from `first` on, as far as it matters: exact */
        V before = zero;
        for (ptrdiff_t k = 0; k < n; k++) labels[k] = (T)xent_min(COUNTS, y->label[p + k] - first);
        const V label = v_load(labels);
        for (ptrdiff_t c = 0; c < size; c++) {
            const V v = KERNEL(logits_of_positions)(t, p, first + c, n, zero),
                    tie = v_select(m_gt(label, NAME(set)((T)c)), one, zero);
            before += v_select(m_gt(v, x_y), one, v_select(m_eq(v, x_y), tie, zero));
        }
        v_store(labels, before);
        for (ptrdiff_t k = 0; k < n; k++) rank[k] += (int64_t)labels[k];
    }
}

/* The ranks of the positions of a tile, up to `most`, which is also that of ignored positions and where nothing is
 * ranked. */
static void KERNEL(put_ranks)(const KERNEL(tile) *t, ptrdiff_t classes, const NAME(stats) *s, const KERNEL(labels) *y,
                              int64_t most, int64_t *rank)
{
    if (t->lanes_are_positions)
        for (ptrdiff_t p = 0; p < t->n; p += LANES) KERNEL(ranks_of_positions)(t, classes, y, p, rank + p);
    for (ptrdiff_t p = 0; p < t->n; p++) {
        if (y->label[p] < 0 || KERNEL(is_unranked)(t, s, p, classes))
            rank[p] = most;
        else if (!t->lanes_are_positions)
            rank[p] = KERNEL(rank_in_row)(t, classes, y, p);
        rank[p] = xent_min(rank[p], most);
    }
}

/* first[p]: whether the label of a position whose logit is the largest, as `first` says so far, comes before any other
 * that is as large. */
static void KERNEL(settle)(const KERNEL(tile) *t, ptrdiff_t classes, const NAME(stats) *s, const KERNEL(labels) *y,
                           const NAME(known) *known, double *first)
{
    int open[TILE], any = 0;
    for (ptrdiff_t p = 0; p < t->n; p++) {
        open[p] = (first[p] != 0) & !((known->rival[p] < y->e[p]) & (s->inverse[p] == s->inverse[p]));
        any |= open[p];
    }
    for (ptrdiff_t p = 0; any && p < t->n; p++) {
        if (!open[p]) continue;
        const ptrdiff_t step = t->rows ? 1 : t->x_step, from = KERNEL(element)(t->rows, t->x_step, p, 0);
        int behind = KERNEL(is_unranked)(t, s, p, classes);
        if (t->rows) behind |= KERNEL(largest_in_row)(t->x + from, y->label[p], y->x[p]) < y->label[p];
        for (ptrdiff_t c = 0; !t->rows && !behind && c < y->label[p]; c++)
            behind = KERNEL(get)(t->x + from + c * step) == y->x[p];
        first[p] = !behind;
    }
}

/* Take the labels' exponentials from those that were kept. All at once: what was just stored is slow to load as part of
 * a vector. */
static void KERNEL(take_labels)(const KERNEL(tile) *t, const KERNEL(labels) *y)
{
    T *exps = t->exps;
    const ptrdiff_t step = t->exps_step, n = t->kept ? t->n : 0;
    const int rows = !t->lanes_are_positions;
    for (ptrdiff_t p = 0; p < n; p++)
        if (y->label[p] >= 0) exps[KERNEL(element)(rows, step, p, y->label[p])] = 0;
}

#if XENT_REAL == 64 && !defined(STORED_AS_16)
/* Add what standard errors are made of, from losses and first places times their weights. */
static void add_second_sums(const xent_evaluate_args *a, const double *loss, const double *first, const double *factor,
                            ptrdiff_t n, row_sum_f64 *sums)
{
    double product[TILE];
    for (ptrdiff_t p = 0; p < n; p++) product[p] = loss[p] * loss[p];
    row_sum_add_array(sums + LOSS_SQUARES, product, n);
    if (!a->sample_weight) return;
    for (ptrdiff_t p = 0; p < n; p++) product[p] = factor[p] != 0;
    row_sum_add_array(sums + WEIGHTED, product, n);
    for (ptrdiff_t p = 0; p < n; p++) product[p] = factor[p] * factor[p];
    row_sum_add_array(sums + WEIGHTS_2, product, n);
    for (ptrdiff_t p = 0; p < n; p++) product[p] = factor[p] == 0 ? 0 : loss[p] * factor[p];
    row_sum_add_array(sums + LOSSES_2, product, n);
    for (ptrdiff_t p = 0; p < n; p++) product[p] = first[p] * factor[p];
    row_sum_add_array(sums + FIRSTS_2, product, n);
}
#endif

/* What is wanted of each position. Ignored ones have 0. */
static void KERNEL(put_report)(const xent_evaluate_args *a, const KERNEL(tile) *t, const NAME(stats) *s,
                               const KERNEL(labels) *y, const double *loss, const double *first)
{
    double *losses = a->report[XENT_LOSSES], *right = a->report[XENT_RIGHT], *confidence = a->report[XENT_CONFIDENCE];
    for (ptrdiff_t p = 0; losses && p < t->n; p++) losses[t->first + p] = y->counted[p] != 0 ? loss[p] : 0;
    for (ptrdiff_t p = 0; right && p < t->n; p++) right[t->first + p] = y->counted[p] != 0 ? first[p] : 0;
    for (ptrdiff_t p = 0; confidence && p < t->n; p++) { /* the largest probability; there may be none (stats.h) */
        const double most = s->peak[p] * s->unit[p], all = most + s->rest[p] * s->unit[p];
        confidence[t->first + p] = y->counted[p] == 0 ? 0 : isnan(s->inverse[p]) ? NAN : most / all;
    }
    if (a->report[XENT_PREDICTED])
        KERNEL(put_largest)(t, a->positions.classes, s, a->report[XENT_PREDICTED] + t->first);
}

/* The squares and entropies of all classes but the label's. */
static void KERNEL(look_again)(const KERNEL(tile) *t, ptrdiff_t classes, const NAME(stats) *s, const KERNEL(labels) *y,
                               NAME(known) *known)
{
    KERNEL(take_labels)(t, y);
    for (ptrdiff_t p = 0; p < t->n; p += t->lanes_are_positions ? LANES : 1)
        (t->lanes_are_positions ? KERNEL(evaluate_positions) : KERNEL(evaluate_row))(t, classes, s, y, p, known);
}

static void KERNEL(evaluate_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *sums)
{
    const xent_evaluate_args *a = (const xent_evaluate_args *)positions;
    const ptrdiff_t classes = positions->classes;
    NAME(stats) s;
    NAME(target) terms;
    NAME(known) known;
    KERNEL(labels) y;
    KERNEL(statistics)(t, classes, &s);
    KERNEL(read_labels)(a->labels, classes, 1, NULL, t, &y);
    KERNEL(label_logits)(t, &s, &y, PROBABILITIES);
    NAME(target_terms)(&terms, &s, y.x, y.e, t->n, PROBABILITIES);
    if (!a->brief) KERNEL(look_again)(t, classes, &s, &y, &known);
    for (ptrdiff_t p = 0; a->brief && p < t->n; p++) known.rival[p] = NAME(guessed_rival)(&s, p);
    double loss[TILE], first[TILE], factor[TILE];
    for (ptrdiff_t p = 0; p < t->n; p++) factor[p] = y.counted[p];
    for (ptrdiff_t p = 0; a->sample_weight && p < t->n; p++) factor[p] *= a->sample_weight[t->first + p];
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const double rest = terms.p_minus_1[p], p_y = terms.p[p], gap = s.max_logit[p] - y.x[p], term = p_y * gap;
        loss[p] = terms.loss[p];
        if (isinf(loss[p])) loss[p] = (double)s.max_logit[p] - y.x[p]; /* finite where floats end before doubles */
        known.square[p] = a->brief ? 0 : known.square[p] + rest * rest;
        known.entropy[p] = a->brief ? 0 : known.entropy[p] + ((p_y == 0 ? 0 : term) + s.log_total[p]);
        first[p] = y.x[p] == s.max_logit[p];
    }
    KERNEL(settle)(t, classes, &s, &y, &known, first);
    if (a->rank) KERNEL(put_ranks)(t, classes, &s, &y, a->most, a->rank + t->first);
    KERNEL(put_report)(a, t, &s, &y, loss, first);
    for (ptrdiff_t p = 0; p < t->n; p++) {
        /* without weight, or ignored: nothing of it is there */
        const int counts = factor[p] != 0;
        const double value = loss[p] * factor[p], square = known.square[p] * factor[p],
                     entropy = known.entropy[p] * factor[p];
        loss[p] = counts ? value : 0, first[p] *= factor[p];
        known.square[p] = counts ? square : 0, known.entropy[p] = counts ? entropy : 0;
    }
    row_sum_add_array(sums + LOSS, loss, t->n), row_sum_add_array(sums + FIRST, first, t->n);
    row_sum_add_array(sums + SQUARES, known.square, t->n), row_sum_add_array(sums + ENTROPY, known.entropy, t->n);
    add_second_sums(a, loss, first, factor, t->n, sums);
}

TILE_KERNEL(evaluate)

#endif
