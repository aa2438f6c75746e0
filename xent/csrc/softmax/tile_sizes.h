/* tile_sizes.h: the sizes of tiles (tile.h) and of their memory, for the plan of a call (plan.c, compiled once) and for
 * the kernels, which cut their chunks accordingly (cut.h, compiled for each instruction set).
 *
 * Together with the logits and results that belong to them, the arrays of a tile stay within an L1 cache of 32 KiB, or
 * a little beyond it; and on the smallest stacks.
 */
#ifndef XENT_TILE_SIZES_H
#define XENT_TILE_SIZES_H

#include "plan.h"

enum {
    TILE = 128, /* positions worked on at a time: their numbers (a dozen each) stay in the L1 cache */
    /* Or of columns of which a sum and a map are made: long stretches of memory, whose sums stay in the L1 cache. */
    MOST_COLUMNS = 1024,
    /* Numbers of a longer row worked on at a time: fetched this far ahead, between the 4 and 8 KiB that gained in a first
     * experiment. */
    BLOCK = 2048,
    GROUP = 8, /* vectors that are added up before they reach a wide sum (stats.h) */
    /* Positions of a tile are a multiple: fewer would waste parts of each cache line that columns touch. */
    LINE_COLUMNS = 16,
    /* Numbers behind a row whose exponentials are added up: more than any instruction set needs. */
    ROW_PADDING = GROUP * XENT_MOST_LANES,

    PACK_BYTES = 32768,      /* scratch of the operands of a packed tile */
    TRANSPOSED_BYTES = 8192, /* of it, what rows that are transposed take */
    EXPS_BYTES = 32768,      /* exponentials of the longest row, or of several, on the stack */
    /* Exponentials of several rows that are transposed, logits that are kept beside them, and the result: with the rows
     * themselves, and those that are fetched, within an L1 cache. */
    SHARE_BYTES = 16384,

    /* Exponentials in scratch: the size of an L2 cache; at 512 KiB, its size, a gain of 15 %. */
    MOST_EXPS_BYTES = 1 << 20,
    /* And of a row, for which up to 4 MiB gain 15 to 90 % on two cores that share a third level of 32 MiB; but 16 threads
     * would drive each other from it. As many as language models have today, 2^18, also in doubles. */
    MOST_ROW_BYTES = (2 << 20) + ROW_PADDING * (int)sizeof(double),
    ROWS_BYTES = MOST_EXPS_BYTES + 8 * CACHE_LINE, /* columns as rows: as much, and what sets rows apart */

    /* Results from here on are stored past the caches. On a Sapphire Rapids, whose third level is shared, that took 1.19
     * times as long for 32 MB, and 0.85 and 0.75 times for 65 and 131 MB: such a line is not read before it is written. */
    STREAMED_BYTES = 48 << 20,

    TRANSFORMED_BYTES = 16384, /* of each array of a tile of transformed logits: together within an L1 cache */
    /* Or, of columns, as many positions: two cache lines of floats. On an Emerald Rapids 16 of 150 classes took 1.3 to
     * 1.6 times as long, as classes lie far apart in memory, and 64 and 128 up to 1.3 times. */
    TRANSFORMED_COLUMNS = 32,
    PAIR_ARRAYS = 4,     /* that distillation works on: the logits and the exponentials of both models */
    PAIR_NUMBERS = 4096, /* of each of them: all fit an L2 cache, and a few rows share what is done once per tile */
    CURVED_ARRAYS = 6,   /* of doubles that a line of a curved loss is worked on in */
    SPARSE_NUMBERS = 9,  /* arrays of doubles that sparse distillation works on, */
    SPARSE_INDICES = 2,  /* and of indices beside the beginnings of blocks */
    SPARSE_GROUP = 4 * XENT_MOST_LANES / 2 /* of whose entries are multiples: four vectors of doubles */
};

/* The entries of a position of sparse distillation: k and the tail, in whole groups. */
ALWAYS_INLINE ptrdiff_t xent_sparse_entries(ptrdiff_t k) { return (k + SPARSE_GROUP) / SPARSE_GROUP * SPARSE_GROUP; }

/* Arrays that share the scratch of a packed tile: the logits, whose place results take, and what else there is. */
ALWAYS_INLINE ptrdiff_t xent_packed_arrays(const xent_positions *p)
{
    return 1 + (p->target.data != NULL) + (p->hess.data != NULL);
}

/* ---- columns of which few positions are neighbours ----
 *
 * Most lanes of a vector of them would be empty, and the runs of many side by side (tile.h) take a copy of each run of
 * each class. With more classes than short rows have they are worked on as rows, in scratch. */

/* Whether there are so few, and so many classes. `size`: bytes of a number of the type computed with. */
ALWAYS_INLINE int xent_few_columns(const xent_positions *p, ptrdiff_t size)
{
    return p->inner > 1 && p->inner < LINE_COLUMNS && p->classes > TRANSPOSED_BYTES / LINE_COLUMNS / size;
}

/* The room of a row: whole groups of vectors, for every instruction set, and a line more, so that rows of a power of two of
 * classes do not share the sets of a cache: seven of 1000 doubles took 1.4 times as long. */
ALWAYS_INLINE ptrdiff_t xent_row_room(ptrdiff_t classes)
{
    return (classes + ROW_PADDING - 1) / ROW_PADDING * ROW_PADDING + LINE_COLUMNS;
}

/* Rows of some arrays that are worked on at a time, at least one: runs whose rows fit an L1 cache, or at least one; or, of a
 * run that would exceed an L2 cache, equal parts that do not. */
ALWAYS_INLINE ptrdiff_t xent_rows_at_once(const xent_positions *p, ptrdiff_t arrays, ptrdiff_t size)
{
    const ptrdiff_t row = arrays * xent_row_room(p->classes) * size, fit = xent_max(ROWS_BYTES / row, 1);
    if (fit >= p->inner) return xent_max(xent_min(EXPS_BYTES / row, TILE) / p->inner, 1) * p->inner;
    return xent_ceil_div(p->inner, xent_ceil_div(p->inner, fit));
}

/* Whether what is a sum and a product of each number takes them as a line: where all runs are whole, and their classes touch
 * each other (softmax.h). */
ALWAYS_INLINE int xent_is_flat(const xent_positions *p, ptrdiff_t size)
{
    return p->exps == XENT_ROW_SUMS && xent_few_columns(p, size) && p->chunk % p->inner == 0 &&
           p->x.stride == p->inner && p->grad_in.stride == p->inner && p->out.stride == p->inner;
}

/* Whether exponentials of such rows, which results are made of, are kept beside them. */
ALWAYS_INLINE int xent_keeps_row_exps(const xent_positions *p, ptrdiff_t size)
{
    const ptrdiff_t arrays = xent_packed_arrays(p) + 1;
    return p->exps == XENT_REUSED_EXPS && arrays * xent_row_room(p->classes) * size <= ROWS_BYTES;
}

/* Arrays of a tile of such rows; 0 where not even one row fits: then they stay columns. */
ALWAYS_INLINE ptrdiff_t xent_row_arrays(const xent_positions *p, ptrdiff_t size)
{
    const ptrdiff_t arrays = xent_packed_arrays(p) + xent_keeps_row_exps(p, size);
    if (!xent_few_columns(p, size) || p->exps == XENT_ONE_CLASS || xent_is_flat(p, size)) return 0;
    return arrays * xent_row_room(p->classes) * size <= ROWS_BYTES ? arrays : 0;
}

/* Arrays of a tile of transformed logits: distances (whose place results may take), exponentials, and where there are
 * some, targets, second derivatives, and logits that are wanted again. */
ALWAYS_INLINE ptrdiff_t xent_transformed_arrays(const xent_positions *p)
{
    return 2 + (p->target.data != NULL) + (p->hess.data != NULL) + (p->curved && p->cap != 0);
}

#endif
