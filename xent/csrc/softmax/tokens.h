/* tokens.h: log-probabilities of some classes of each position, their ranks and the entropy of the prediction.
 *
 * Design: a tile is looked at once for its statistics (statistics.h), of which -log p_y is made as that of a label is
 * (stats.h). Ranks are counted among the logits as they lie, since what transforms them keeps their order, but for a
 * prior (ranks.h): those of long rows on the way, all others by a second look at the chunk, which is so small that it is
 * in the caches still.
 */
#include "begin.h"
#include "simd/stored.h"
#include "softmax/cut.h"
#include "softmax/evaluate.h"
#include "softmax/labels.h"
#include "softmax/ranks.h"
#include "softmax/statistics.h"
#include "softmax/stats.h"
#include "table.h"

#ifndef XENT_TOKENS_H
#define XENT_TOKENS_H

#if XENT_REAL == 64 && !defined(STORED_AS_16)
enum {
    RANK_BYTES = 8192, /* of a row, looked at for all ids in turn: a part of an L1 cache */
    COUNTED = 1 << 30  /* classes that are counted in a lane of 32 bits */
};

/* The place of the first id of a position. */
ALWAYS_INLINE ptrdiff_t first_id(const xent_token_args *a, ptrdiff_t position)
{
    if (a->inner == 1) return position * a->per_position; /* most often: divisions take as long as short rows */
    return position / a->inner * a->per_position * a->inner + position % a->inner;
}
#endif

/* The ids number k of a tile as labels. */
static void KERNEL(read_ids)(const xent_token_args *a, const KERNEL(tile) *t, ptrdiff_t k, KERNEL(labels) *y)
{
    y->ignored = 0;
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const xent_labels id = {.data = a->ids + first_id(a, t->first + p) + k * a->inner, .ignore_index = -1};
        y->label[p] = KERNEL(label_at)(id, a->positions.classes, 0), y->ignored |= y->label[p] < 0;
    }
}

/* ---- ranks ---- */

/* The ids of a position from number `begin` on, at most RANKED; class 0 for one that is none any more. */
static void KERNEL(take_ids)(const xent_token_args *a, const S *x, ptrdiff_t position, ptrdiff_t begin,
                             KERNEL(ranked) *r)
{
    const ptrdiff_t n = xent_min(RANKED, a->per_position - begin), place = first_id(a, position) + begin * a->inner;
    ptrdiff_t classes[RANKED];
    for (ptrdiff_t k = 0; k < n; k++) {
        const int64_t id = a->ids[place + k * a->inner];
        classes[k] = (uint64_t)id < (uint64_t)a->positions.classes ? (ptrdiff_t)id : 0;
    }
    KERNEL(put_in_order)(r, x, classes, n);
}

/* A rank; where the log-probability is NaN, the number of classes. */
ALWAYS_INLINE void KERNEL(put_rank)(const xent_token_args *a, ptrdiff_t at, int64_t larger)
{
    a->rank[at] = isnan(((const T *)a->log_probs)[at]) ? a->positions.classes : larger;
}

static void KERNEL(put_ranked)(const xent_token_args *a, ptrdiff_t position, ptrdiff_t begin, const KERNEL(ranked) *r)
{
    const ptrdiff_t place = first_id(a, position) + begin * a->inner;
    for (ptrdiff_t k = 0; k < r->n; k++) KERNEL(put_rank)(a, place + r->number[k] * a->inner, r->larger[k]);
}

/* Whether rows are ranked while their statistics are made: each is a tile and a chunk of its own. */
static int KERNEL(ranks_on_the_way)(const xent_token_args *a)
{
    const xent_positions *p = &a->positions;
    return a->rank && p->inner == 1 && p->chunk == 1 && p->classes > SHORT_ROW && !p->transformed &&
           a->per_position <= RANKED;
}

static void KERNEL(rank_row)(const xent_token_args *a, const KERNEL(tile) *t, ptrdiff_t p)
{
    const ptrdiff_t classes = a->positions.classes, block = RANK_BYTES / (ptrdiff_t)sizeof(S);
    const S *x = t->x + p * t->x_step;
    for (ptrdiff_t begin = 0; begin < a->per_position; begin += RANKED) {
        KERNEL(ranked) r;
        KERNEL(take_ids)(a, x, t->first + p, begin, &r);
        KERNEL(start_ranks)(&r);
        for (ptrdiff_t first = 0; first < classes; first += block)
            KERNEL(rank_block)(&r, x + first, xent_min(block, classes - first), (T)INFINITY);
        KERNEL(put_ranked)(a, t->first + p, begin, &r);
    }
}

/* Ranks of the ids number k of columns. */
static void KERNEL(rank_columns)(const xent_token_args *a, const KERNEL(tile) *t, ptrdiff_t k)
{
    const ptrdiff_t classes = a->positions.classes;
    KERNEL(labels) y;
    KERNEL(read_ids)(a, t, k, &y);
    KERNEL(label_logits)(t, NULL, &y, 0);
    for (ptrdiff_t p = 0; p < t->n; p += LANES) {
        const ptrdiff_t n = xent_min(LANES, t->n - p);
        const V threshold = v_load(y.x + p);
        int64_t larger[LANES] = {0};
        for (ptrdiff_t first = 0; first < classes; first += COUNTED) {
            VI count = {0};
            for (ptrdiff_t c = first; c < xent_min(classes, first + COUNTED); c++)
                count = NAME(v_count)(count, m_gt(KERNEL(load)(t->x + p + c * t->x_step, n, threshold), threshold));
            for (int i = 0; i < LANES; i++) larger[i] += count[i];
        }
        for (ptrdiff_t i = 0; i < n; i++) KERNEL(put_rank)(a, first_id(a, t->first + p + i) + k * a->inner, larger[i]);
    }
}

static void KERNEL(rank_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *sums)
{
    const xent_token_args *a = (const xent_token_args *)positions;
    (void)sums;
    for (ptrdiff_t p = 0; t->rows && p < t->n; p++) KERNEL(rank_row)(a, t, p);
    for (ptrdiff_t k = 0; !t->rows && k < a->per_position; k++) KERNEL(rank_columns)(a, t, k);
}

/* ---- log-probabilities and entropies ---- */

/* -sum_c p_c log p_c = sum_c p_c (m - x_c) + log1p(R), as in evaluate.h, with no label. */
static void KERNEL(put_entropies)(const KERNEL(tile) *t, ptrdiff_t classes, const NAME(stats) *s, T *entropy)
{
    NAME(known) known;
    KERNEL(labels) none;
    KERNEL(no_labels)(t->n, &none);
    for (ptrdiff_t p = 0; p < t->n; p += t->lanes_are_positions ? LANES : 1)
        (t->lanes_are_positions ? KERNEL(evaluate_positions) : KERNEL(evaluate_row))(t, classes, s, &none, p, &known);
    for (ptrdiff_t p = 0; p < t->n; p++) entropy[p] = (T)(known.entropy[p] + s->log_total[p]);
}

static void KERNEL(token_log_probs_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *sums)
{
    const xent_token_args *a = (const xent_token_args *)positions;
    T *log_probs = (T *)a->log_probs;
    NAME(stats) s;
    NAME(target) terms;
    KERNEL(labels) y;
    KERNEL(ranked) ranked;
    KERNEL(tile) watched = *t;
    const int on_the_way = KERNEL(ranks_on_the_way)(a);
    if (on_the_way) KERNEL(take_ids)(a, t->x, t->first, 0, &ranked), watched.ranked = &ranked;
    KERNEL(statistics_wanted)(&watched, positions->classes, &s, a->entropy ? PROBABILITIES | LOGARITHMS : LOGARITHMS);
    for (ptrdiff_t k = 0; k < a->per_position; k++) {
        KERNEL(read_ids)(a, t, k, &y);
        KERNEL(label_logits)(t, &s, &y, LOGARITHMS);
        NAME(target_terms)(&terms, &s, y.x, y.e, t->n, LOGARITHMS);
        for (ptrdiff_t p = 0; p < t->n; p++)
            log_probs[first_id(a, t->first + p) + k * a->inner] = y.label[p] < 0 ? (T)NAN : (T)(0.0 - terms.loss[p]);
    }
    if (a->entropy) KERNEL(put_entropies)(t, positions->classes, &s, (T *)a->entropy + t->first);
    if (on_the_way)
        KERNEL(put_ranked)(a, t->first, 0, &ranked);
    else if (a->rank && positions->offset)
        KERNEL(rank_tile)(positions, t, sums);
}

/* The function of each type that a tile may come to. */
#define TILES(name)                                                                                                    \
    (KERNEL(functions)) { .plain = KERNEL(name), .packed = NAME(name) }

static void KERNEL(token_log_probs)(const void *args, ptrdiff_t chunk, void *scratch)
{
    xent_token_args a = *(const xent_token_args *)args;
    KERNEL(for_tiles)(&a.positions, chunk, scratch, TILES(token_log_probs_tile));
    if (!a.rank || a.positions.offset || KERNEL(ranks_on_the_way)(&a)) return;
    /* the logits as they lie, but short rows as columns */
    a.positions.transformed = 0, a.positions.exps = XENT_SUMMED_EXPS, a.positions.packs = 1;
    if (!xent_row_arrays(&a.positions, sizeof(T))) a.positions.room = 0; /* there are no exponentials */
    KERNEL(for_tiles)(&a.positions, chunk, scratch, TILES(rank_tile));
}

#undef TILES

#endif
