/* labels.h: the labels of a tile, what losses need of them, and how losses, one number per position, are handed out. */
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
    int ignored;           /* whether any is */
    T x[TILE];             /* x_y */
    T e[TILE];             /* e_y */
} KERNEL(labels);

/* Labels were checked, but they are the caller's memory, which another thread may write to: each is read once, and one
 * that is out of range now counts as ignored (-1). */
ALWAYS_INLINE ptrdiff_t KERNEL(label_at)(xent_labels labels, ptrdiff_t classes, ptrdiff_t position)
{
    const int64_t given = labels.data[position];
    return given != labels.ignore_index && (uint64_t)given < (uint64_t)classes ? (ptrdiff_t)given : -1;
}

/* The labels of a tile; the target of label y is `peak` times `weight` of it (NULL: 1). What is read of the tile is
 * copied: no store to a result can be one to it, and it stays in registers. */
static void KERNEL(read_labels)(xent_labels labels, ptrdiff_t classes, double peak, const double *weight,
                                const KERNEL(tile) *t, KERNEL(labels) *y)
{
    const ptrdiff_t n = t->n, first = t->first, per_position = t->rows ? t->x_step : 1,
                    per_class = t->rows ? 1 : t->x_step;
    const S *x = t->x;
    int ignored = 0;
    for (ptrdiff_t p = 0; p < n; p++, x += per_position) {
        const ptrdiff_t label = KERNEL(label_at)(labels, classes, first + p);
        y->label[p] = label;
        if (label >= 0)
            y->counted[p] = 1, y->mass[p] = peak, y->x[p] = KERNEL(get)(x + label * per_class);
        else
            y->counted[p] = 0, y->mass[p] = 0, y->x[p] = 0, ignored = 1;
    }
    for (ptrdiff_t p = 0; weight && p < n; p++)
        if (y->label[p] >= 0) y->mass[p] *= weight[y->label[p]];
    for (ptrdiff_t p = n; p % LANES; p++) y->x[p] = 0;
    y->ignored = ignored;
}

static void KERNEL(no_labels)(ptrdiff_t n, KERNEL(labels) *y)
{
    y->ignored = 0;
    for (ptrdiff_t p = 0; p < n; p++) y->label[p] = -1, y->counted[p] = 1, y->mass[p] = 0;
}

/* e_y: where the tile kept its exponentials, one of them. */
static void KERNEL(label_exps)(const KERNEL(tile) *t, const NAME(stats) *s, KERNEL(labels) *y)
{
    for (ptrdiff_t p = 0; t->kept && p < t->n; p++)
        y->e[p] = y->label[p] < 0 ? 0 : t->exps[KERNEL(element)(!t->lanes_are_positions, t->exps_step, p, y->label[p])];
    for (ptrdiff_t p = t->n; p % LANES; p++) y->e[p] = 0;
    for (ptrdiff_t p = 0; !t->kept && p < t->n; p += LANES) {
        const NAME(scale) scale = NAME(scale_of)(v_load(s->scale_exponent + p));
        v_store(y->e + p, NAME(exp_scaled)(v_load(y->x + p) - v_load(s->shift + p), scale));
    }
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
