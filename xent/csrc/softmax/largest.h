/* largest.h: which class has the largest logit, the first of equal ones. Nothing is the largest where one of the logits
 * is NaN, or all are -infinity.
 */
#include "begin.h"
#include "simd/stored.h"
#include "softmax/labels.h"
#include "softmax/statistics.h"
#include "softmax/stats.h"
#include "softmax/tile.h"

#ifndef XENT_LARGEST_H
#define XENT_LARGEST_H

#if XENT_REAL == 64 && !defined(STORED_AS_16)
#define COUNTS 65536 /* classes, and ones that are added up in a lane: floats count up to 2^24 */
#endif

/* The logits of class c at n positions from p on, of a tile whose lanes are positions. */
ALWAYS_INLINE V KERNEL(logits_of_positions)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t c, ptrdiff_t n, V fill)
{
    return t->logits ? v_load(t->logits + p + c * t->exps_step) : KERNEL(load_positions)(t, p, c, n, fill);
}

/* Whether nothing is ranked. */
ALWAYS_INLINE int KERNEL(is_unranked)(const KERNEL(tile) *t, const NAME(stats) *s, ptrdiff_t p, ptrdiff_t classes)
{
    const ptrdiff_t step = t->rows ? 1 : t->x_step, from = KERNEL(element)(t->rows, t->x_step, p, 0);
    int found = s->max_logit[p] == -(T)INFINITY;
    for (ptrdiff_t c = 0; isnan(s->inverse[p]) && c < classes; c++) found |= isnan(KERNEL(get)(t->x + from + c * step));
    return found;
}

/* The first class of a row that has its largest logit; `classes` if there is none. */
static ptrdiff_t KERNEL(largest_in_row)(const S *x, ptrdiff_t classes, T m)
{
    const V most = NAME(set)(m), zero = {0};
    ptrdiff_t c = 0;
    for (; c + 4 * LANES <= classes; c += 4 * LANES) { /* to branch at each vector would take longer */
        VM found = m_eq(KERNEL(load)(x + c, LANES, zero), most);
        for (int k = 1; k < 4; k++) found = (VM)(found | m_eq(KERNEL(load)(x + c + k * LANES, LANES, zero), most));
        if (m_any(found)) break;
    }
    while (c + LANES <= classes && !m_any(m_eq(KERNEL(load)(x + c, LANES, zero), most))) c += LANES;
    while (c < classes && KERNEL(get)(x + c) != m) c++;
    return c;
}

/* The same of a vector of positions from p on: -1 if there is none. From the last class on. */
static void KERNEL(largest_of_positions)(const KERNEL(tile) *t, ptrdiff_t classes, const T *max_logit, ptrdiff_t p,
                                         double *place)
{
    const V m = v_load(max_logit + p), zero = {0}, none = NAME(set)(-1);
    const ptrdiff_t n = xent_min(LANES, t->n - p);
    for (ptrdiff_t k = 0; k < n; k++) place[k] = -1;
    for (ptrdiff_t first = (classes - 1) / COUNTS * COUNTS; first >= 0; first -= COUNTS) {
        T counted[LANES];
        V found = none;
        for (ptrdiff_t c = xent_min(COUNTS, classes - first) - 1; c >= 0; c--)
            found = v_select(m_eq(KERNEL(logits_of_positions)(t, p, first + c, n, zero), m), NAME(set)((T)c), found);
        v_store(counted, found);
        for (ptrdiff_t k = 0; k < n; k++)
            if (counted[k] >= 0) place[k] = (double)first + (double)counted[k];
    }
}

/* The class with the largest logit at each position of a tile; -1 where there is none. */
static void KERNEL(put_largest)(const KERNEL(tile) *t, ptrdiff_t classes, const NAME(stats) *s, double *place)
{
    if (t->lanes_are_positions)
        for (ptrdiff_t p = 0; p < t->n; p += LANES)
            KERNEL(largest_of_positions)(t, classes, s->max_logit, p, place + p);
    else
        for (ptrdiff_t p = 0; p < t->n; p++) {
            const ptrdiff_t from = s->near_largest[p];
            const S *x = t->x + p * t->x_step + from;
            place[p] = (double)(from + KERNEL(largest_in_row)(x, classes - from, s->max_logit[p]));
        }
    for (ptrdiff_t p = 0; p < t->n; p++)
        if (KERNEL(is_unranked)(t, s, p, classes)) place[p] = -1;
}

#endif
