/* labels.h: the labels of a tile, what losses need of them, how losses, one number per position, are handed out, and which
 * positions are left. */
#include "begin.h"
#include "simd/exp.h"
#include "simd/stored.h"
#include "softmax/stats.h"
#include "softmax/tile.h"
#include "table.h"

#ifndef XENT_LABELS_H
#define XENT_LABELS_H

/* One element of rows or columns, by position and class. */
ALWAYS_INLINE ptrdiff_t KERNEL(element)(int rows, ptrdiff_t step, ptrdiff_t p, ptrdiff_t c)
{
    return rows ? p * step + c : p + c * step;
}

/* The labels of a tile, and what the losses need of them. */
typedef struct {
    ptrdiff_t label[TILE]; /* -1: none */
    double mass[TILE];     /* peak * w_y, times the focal factor of what is made next, the loss or the gradient */
    double focal[TILE];    /* the focal factor of the gradient divided by that of the loss */
    double counted[TILE];  /* 0 where the position is ignored, else 1 */
    T x[TILE];             /* x_y */
    T e[TILE];             /* e_y */
    int ignored;           /* whether any position is */
} KERNEL(labels);

/* Labels were checked, but they are the caller's memory, which another thread may write to: each is read once, and one
 * that is out of range now counts as ignored (-1). */
ALWAYS_INLINE ptrdiff_t KERNEL(label_at)(xent_labels labels, ptrdiff_t classes, ptrdiff_t position)
{
    const int64_t given = labels.data[position];
    return given != labels.ignore_index && (uint64_t)given < (uint64_t)classes ? (ptrdiff_t)given : -1;
}

/* The labels of a tile; the target of label y is `peak` times `weight` of it (NULL: 1). */
static void KERNEL(read_labels)(xent_labels labels, ptrdiff_t classes, double peak, const double *weight,
                                const KERNEL(tile) *t, KERNEL(labels) *y)
{
    int ignored = 0;
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const ptrdiff_t label = KERNEL(label_at)(labels, classes, t->first + p);
        y->label[p] = label, ignored |= label < 0;
    }
    for (ptrdiff_t p = 0; p < t->n; p++)
        y->counted[p] = y->label[p] < 0 ? 0 : 1, y->mass[p] = y->label[p] < 0 ? 0 : peak;
    for (ptrdiff_t p = 0; weight && p < t->n; p++)
        if (y->label[p] >= 0) y->mass[p] *= weight[y->label[p]];
    y->ignored = ignored;
}

static void KERNEL(no_labels)(ptrdiff_t n, KERNEL(labels) *y)
{
    y->ignored = 0;
    for (ptrdiff_t p = 0; p < n; p++) y->label[p] = -1, y->counted[p] = 1, y->mass[p] = 0;
}

/* The logits of the labels, and if PROBABILITIES are wanted their exponentials. What is read of the tile is copied: no
 * store to a result can be one to it, and it stays in registers. */
static void KERNEL(label_logits)(const KERNEL(tile) *t, const NAME(stats) *s, KERNEL(labels) *y, int wanted)
{
    const S *x = t->x;
    const T *e = t->exps;
    const ptrdiff_t x_step = t->x_step, e_step = t->exps_step, n = t->n;
    const int rows = t->rows, exps_in_rows = !t->lanes_are_positions, exps = wanted & PROBABILITIES,
              kept = exps && t->kept, guarded = y->ignored;
#ifdef STORED_AS_16
    S found[TILE]; /* to be converted by vectors */
    const V zero = {0};
#else
    S *found = y->x;
#endif
    for (ptrdiff_t p = 0; p < n; p++) {
        const ptrdiff_t label = y->label[p];
        const int none = guarded && label < 0;
        found[p] = none ? 0 : x[KERNEL(element)(rows, x_step, p, label)];
        if (kept) y->e[p] = none ? 0 : e[KERNEL(element)(exps_in_rows, e_step, p, label)];
    }
    for (ptrdiff_t p = n; p % LANES; p++) found[p] = 0, y->e[p] = 0;
#ifdef STORED_AS_16
    for (ptrdiff_t p = 0; p < n; p += LANES) v_store(y->x + p, KERNEL(load)(found + p, LANES, zero));
#endif
    for (ptrdiff_t p = 0; exps && !t->kept && p < t->n; p += LANES) {
        const NAME(scale) scale = NAME(scale_of)(v_load(s->scale_exponent + p));
        v_store(y->e + p, NAME(exp_scaled)(v_load(y->x + p) - v_load(s->shift + p), scale));
    }
}

/* Whether positions are left. */
static int KERNEL(leaves)(const int *beyond, ptrdiff_t n, xent_left *left)
{
    ptrdiff_t at = 0, end;
    if (!left) return 0;
    while (at < n && !beyond[at]) at++;
    for (end = at; end < n && beyond[end]; end++) {
    }
    *left = (xent_left){at, end - at};
    return end > at;
}

/* logsumexp of a position. */
ALWAYS_INLINE double KERNEL(log_sum)(const KERNEL(tile) *t, const NAME(stats) *s, ptrdiff_t p)
{
    const double moved = t->moved ? t->moved[p] : 0;
    return moved + ((double)s->max_logit[p] + ((double)s->log_total[p] + s->log_low[p]));
}

/* The losses of the positions: to where they are wanted. */
static void KERNEL(put_per_position)(const xent_per_position *to, const double *loss, ptrdiff_t first, ptrdiff_t n)
{
    if (to->data && to->single)
        for (ptrdiff_t p = 0; p < n; p++) ((float *)to->data)[first + p] = (float)loss[p];
    else if (to->data)
        memcpy((double *)to->data + first, loss, (size_t)n * sizeof *loss);
}

#endif
