/* tokens.h: log-probabilities of some classes of each position, their ranks and the entropy of the prediction.
 *
 * Design: a tile is looked at once for its statistics (statistics.h), of which -log p_y is made as that of a label is
 * (stats.h). Ranks need a second look, at the logits as they lie, since what transforms them keeps their order, but for
 * a prior: a chunk is so small that they are in the caches still. In a row the ids are taken in the order of their
 * logits, the smallest first, block by block: where none of a block is larger than one of them, none is larger than
 * those that follow. So the classes that are predicted, of which people ask most, cost little.
 */
#include "begin.h"
#include "simd/count.h"
#include "simd/stored.h"
#include "softmax/cut.h"
#include "softmax/evaluate.h"
#include "softmax/labels.h"
#include "softmax/statistics.h"
#include "softmax/stats.h"
#include "table.h"

#ifndef XENT_TOKENS_H
#define XENT_TOKENS_H

#if XENT_REAL == 64 && !defined(STORED_AS_16)
enum {
    RANKED = 64,       /* ids that are put in order at a time: by insertion, whose time is the square of it */
    RANK_BYTES = 8192, /* a block: 4 KiB wait longer for each count, 16 KiB are skipped less often */
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

/* Adds the numbers of classes with a larger logit than those given, the smallest first. */
static void KERNEL(count_in_row)(const S *x, ptrdiff_t classes, const S *logits, ptrdiff_t ids, int64_t *larger)
{
    const ptrdiff_t block = RANK_BYTES / (ptrdiff_t)sizeof(S);
    for (ptrdiff_t first = 0; first < classes; first += block)
        for (ptrdiff_t k = 0; k < ids; k++) {
            const ptrdiff_t found = KERNEL(count_larger)(x + first, xent_min(block, classes - first), logits[k]);
            if (!found) break;
            larger[k] += found;
        }
}

/* The ranks of the ids of a row; where the log-probability is NaN, `classes`. */
static void KERNEL(rank_row)(const xent_token_args *a, const KERNEL(tile) *t, ptrdiff_t p)
{
    const ptrdiff_t classes = a->positions.classes, place = first_id(a, t->first + p);
    const S *x = t->x + p * t->x_step;
    for (ptrdiff_t begin = 0; begin < a->per_position; begin += RANKED) {
        const ptrdiff_t end = xent_min(begin + RANKED, a->per_position);
        S logits[RANKED];
        ptrdiff_t where[RANKED], ids = 0;
        int64_t larger[RANKED] = {0};
        for (ptrdiff_t k = begin; k < end; k++) {
            const ptrdiff_t at = place + k * a->inner;
            const int64_t id = a->ids[at];
            a->rank[at] = classes;
            if (isnan(((const T *)a->log_probs)[at]) || (uint64_t)id >= (uint64_t)classes) continue;
            ptrdiff_t i = ids++;
            for (; i > 0 && KERNEL(get)(logits + i - 1) > KERNEL(get)(x + id); i--)
                logits[i] = logits[i - 1], where[i] = where[i - 1];
            logits[i] = x[id], where[i] = at;
        }
        KERNEL(count_in_row)(x, classes, logits, ids, larger);
        for (ptrdiff_t i = 0; i < ids; i++) a->rank[where[i]] = larger[i];
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
                count = NAME(v_count)(count,
                                      m_gt(KERNEL(load)(t->x + p + c * t->x_step, n, threshold), threshold));
            for (int i = 0; i < LANES; i++) larger[i] += count[i];
        }
        for (ptrdiff_t i = 0; i < n; i++) {
            const ptrdiff_t at = first_id(a, t->first + p + i) + k * a->inner;
            a->rank[at] = isnan(((const T *)a->log_probs)[at]) ? classes : larger[i];
        }
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
    KERNEL(statistics_wanted)(t, positions->classes, &s, a->entropy ? PROBABILITIES | LOGARITHMS : LOGARITHMS);
    for (ptrdiff_t k = 0; k < a->per_position; k++) {
        KERNEL(read_ids)(a, t, k, &y);
        KERNEL(label_logits)(t, &s, &y, LOGARITHMS);
        NAME(target_terms)(&terms, &s, y.x, y.e, t->n, LOGARITHMS);
        for (ptrdiff_t p = 0; p < t->n; p++)
            log_probs[first_id(a, t->first + p) + k * a->inner] = y.label[p] < 0 ? (T)NAN : (T)(0.0 - terms.loss[p]);
    }
    if (a->entropy) KERNEL(put_entropies)(t, positions->classes, &s, (T *)a->entropy + t->first);
    if (a->rank && positions->offset) KERNEL(rank_tile)(positions, t, sums);
}

/* The function of each type that a tile may come to. */
#define TILES(name)                                                                                                    \
    (KERNEL(functions)) { .plain = KERNEL(name), .packed = NAME(name) }

static void KERNEL(token_log_probs)(const void *args, ptrdiff_t chunk, void *scratch)
{
    xent_token_args a = *(const xent_token_args *)args;
    KERNEL(for_tiles)(&a.positions, chunk, scratch, TILES(token_log_probs_tile));
    if (!a.rank || a.positions.offset) return;
    a.positions.transformed = 0, a.positions.room = 0, a.positions.exps = XENT_SUMMED_EXPS; /* the logits as they lie, */
    a.positions.packs = 1;                                                                  /* short rows as columns */
    KERNEL(for_tiles)(&a.positions, chunk, scratch, TILES(rank_tile));
}

#undef TILES

#endif
