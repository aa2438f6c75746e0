/* ranks.h: how many logits of a row are larger than those of some classes of it.
 *
 * Design: these are put in order, the smallest first, and the row is taken in blocks: where none of a block is larger
 * than one of them, none is larger than those that follow. So the classes that are predicted, of which people ask most,
 * cost little. A long row is ranked while its statistics are made, block by block (statistics.h), as it is read from
 * memory once; what is shorter is in the caches still when it is looked at again (tokens.h).
 */
#include "begin.h"
#include "simd/count.h"
#include "simd/stored.h"

#ifndef XENT_RANKS_H
#define XENT_RANKS_H

#if XENT_REAL == 64 && !defined(STORED_AS_16)
#define RANKED 64 /* classes at a time: they are put in order by insertion, whose time is the square of their number */
#endif

typedef struct KERNEL(ranked) {
    ptrdiff_t n;
    S logit[RANKED];
    int64_t larger[RANKED];
    ptrdiff_t number[RANKED]; /* of the class, as they were put in */
} KERNEL(ranked);

/* The logits of n classes of a row. All are read before any is put in order: none has to wait for another then. */
static void KERNEL(put_in_order)(KERNEL(ranked) *r, const S *x, const ptrdiff_t *classes, ptrdiff_t n)
{
    S found[RANKED];
    for (ptrdiff_t k = 0; k < n; k++) found[k] = x[classes[k]];
    for (ptrdiff_t k = 0; k < n; k++) {
        ptrdiff_t i = k;
        for (; i > 0 && KERNEL(get)(r->logit + i - 1) > KERNEL(get)(found + k); i--)
            r->logit[i] = r->logit[i - 1], r->number[i] = r->number[i - 1];
        r->logit[i] = found[k], r->number[i] = k;
    }
    r->n = n;
}

static void KERNEL(start_ranks)(KERNEL(ranked) *r)
{
    for (ptrdiff_t k = 0; k < r->n; k++) r->larger[k] = 0;
}

/* Count those of a block, at most 2^19 of a row, of which none is larger than `most`. */
static void KERNEL(rank_block)(KERNEL(ranked) *r, const S *x, ptrdiff_t n, T most)
{
    for (ptrdiff_t k = 0; k < r->n && KERNEL(get)(r->logit + k) < most; k++) {
        const ptrdiff_t found = KERNEL(count_larger)(x, n, r->logit[k]);
        if (!found) break;
        r->larger[k] += found;
    }
}

#endif
