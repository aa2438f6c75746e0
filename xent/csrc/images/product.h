/* product.h: the matrix products of convolution, on operands that need not be matrices.
 *
 * Design: an element of the im2col matrix is x[where the pixel lies + where the kernel's tap lies] of a padded image,
 * so two tables of offsets stand for the whole matrix, whatever the stride, dilation or number of images. One loop
 * takes ROWS x VECTORS sums through all steps of a product; its other operand is packed so that it is read in order.
 * Per step it loads VECTORS vectors and broadcasts ROWS numbers: measured on Zen 3 with AVX2 and on Sapphire Rapids with
 * AVX-512, 98 % of the peak of their two units for fused multiplication.
 *
 *   lanes are channels   sums[row][lane] += patch[rows[row] + steps[k]] packed[at[k]][lane]      the patch is broadcast
 *   lanes are pixels     sums[row][lane] += weight[row][k] patch[offset + steps[k] + lane]       the weights are, where
 *                                                                    they lie; each vector of pixels has its offset
 *
 * A strip of the second has at most ROWS output channels. It needs no packed weights, and its sums are not transposed:
 * it is for few output channels, which would leave lanes of the first empty, for few pixels and for short sums.
 */
#include "begin.h"
#include "images/block.h"
#include "images/layout.h"
#include "simd/stored.h"
#include "table.h"

#if !defined(XENT_PRODUCT_H) && !defined(STORED_AS_16)
#define XENT_PRODUCT_H

/* A loop over register blocks must be unrolled whole, or the sums live on the stack. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

typedef struct {
    const T *patch, *packed;
    const int32_t *rows, *steps; /* offsets in the patch: of rows, or of vectors of pixels; of steps */
    const int32_t *at;           /* of the numbers of a step in `packed`, where lanes are channels */
    ptrdiff_t depth;             /* steps */
    ptrdiff_t packed_step;       /* from step to step of `packed` */
    T *sums;
    ptrdiff_t sums_step; /* from row to row */
    xent_ahead next;     /* the weights of the next product, a share of which is fetched with each row of sums */
    int accumulate;      /* add to what is in sums, at the end: blocks of a long sum are summed apart */
    /* Where lanes are pixels: */
    ptrdiff_t packed_row;    /* from row to row of `packed` */
    ptrdiff_t longest;       /* vectors of a block at most */
    const int32_t *taller;   /* `steps` of the blocks with one vector more, or NULL */
    const ptrdiff_t *places; /* of the vectors, in a row of sums; where lanes are channels, of the rows, or NULL */
    const T *bias;           /* one per row, added at the end, or NULL */
    int relu;
} NAME(product);

/* What is done to a channel's sums on their way to memory. */
ALWAYS_INLINE V NAME(finished)(V v, const T *bias, int relu)
{
    if (bias) v = v + NAME(set)(*bias);
    return relu ? v_max((V){0}, v) : v; /* NaN stays */
}

/* Terms that are added up one after the other; such sums are added up in turn. So no term of n meets more than
 * PARTIAL + n / PARTIAL roundings, and that bounds the error whatever the numbers are: roundings of equal numbers all go
 * one way. It takes 1 to 4 % longer than with one sum. */
#define PARTIAL 128

/* Steps [from, to) of a block: sum[r][v] of them. */
ALWAYS_INLINE void NAME(block_steps)(const NAME(product) *p, const T *const x[WIDEST], ptrdiff_t from, ptrdiff_t to,
                                     V sum[ROWS][WIDEST], int rows, int vectors, int pixels)
{
    const T *packed = p->packed + from * p->packed_step; /* of no use where lanes are channels */
    const int32_t *steps = p->steps, *at = p->at;
    const ptrdiff_t row = p->packed_row;
    UNROLL
    for (int r = 0; r < rows; r++) {
        UNROLL
        for (int v = 0; v < vectors; v++) sum[r][v] = (V){0};
    }
    for (ptrdiff_t k = from; k < to; k++, packed += p->packed_step) {
        const ptrdiff_t step = steps[k];
        const T *high = packed + 3 * row; /* two pointers reach six rows */
        const T *here = pixels ? packed : p->packed + at[k];
        V lanes[WIDEST];
        UNROLL
        for (int v = 0; v < vectors; v++) lanes[v] = v_load(pixels ? x[v] + step : here + v * LANES);
        UNROLL
        for (int r = 0; r < rows; r++) {
            const V factor = NAME(set)(!pixels ? x[r][step] : r < 3 ? packed[r * row] : high[(r - 3) * row]);
            UNROLL
            for (int v = 0; v < vectors; v++) sum[r][v] = v_fma(factor, lanes[v], sum[r][v]);
        }
    }
}

/* `total` is cleared before it is read, which GCC does not see. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpragmas" /* Clang does not know the next */
#pragma GCC diagnostic ignored "-Wunknown-warning-option"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

/* Where the sums of vector v of a row go, of a block that begins with row, or vector, `first`. */
ALWAYS_INLINE T *NAME(sums_at)(const NAME(product) *p, T *row, ptrdiff_t first, int v, int pixels)
{
    return row + (pixels ? p->places[first + v] : v * LANES);
}

/* And those of its rows. */
ALWAYS_INLINE void NAME(rows_of_sums)(const NAME(product) *p, ptrdiff_t first, T *to[ROWS], int rows, int pixels)
{
    UNROLL
    for (int r = 0; r < rows; r++)
        to[r] = p->sums + (pixels ? r : p->places ? p->places[first + r] : first + r) * p->sums_step;
}

/* From row `first` on, or from vector `first` on. `rows`, `vectors` and `pixels` (lanes are pixels) are constants at
 * every call. Choices stand around the loops, not in them, or each sum would have all of them. */
ALWAYS_INLINE void NAME(block_product)(const NAME(product) *p, ptrdiff_t first, int rows, int vectors, int pixels)
{
    const T *x[WIDEST];
    const int pointers = pixels ? vectors : rows;
    const ptrdiff_t parts = xent_ceil_div(p->depth, PARTIAL), part = xent_ceil_div(p->depth, xent_max(parts, 1));
    const V least = NAME(set)(p->relu ? 0 : -(T)INFINITY);
    V sum[ROWS][WIDEST], total[ROWS][WIDEST];
    T *to[ROWS];
    UNROLL
    for (int i = 0; i < pointers; i++) x[i] = p->patch + p->rows[first + i];
    if (parts > 1) {
        UNROLL
        for (int r = 0; r < rows; r++) {
            UNROLL
            for (int v = 0; v < vectors; v++) total[r][v] = (V){0};
        }
    }
    for (ptrdiff_t k = 0;; k += part) {
        NAME(block_steps)(p, x, k, xent_min(k + part, p->depth), sum, rows, vectors, pixels);
        if (parts > 1) {
            UNROLL
            for (int r = 0; r < rows; r++) {
                UNROLL
                for (int v = 0; v < vectors; v++) sum[r][v] = total[r][v] = total[r][v] + sum[r][v];
            }
        }
        if (k + part >= p->depth) break;
    }
    NAME(rows_of_sums)(p, first, to, rows, pixels);
    if (p->accumulate) {
        UNROLL
        for (int r = 0; r < rows; r++) {
            UNROLL
            for (int v = 0; v < vectors; v++) sum[r][v] = v_load(NAME(sums_at)(p, to[r], first, v, pixels)) + sum[r][v];
        }
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        const V bias = NAME(set)(p->bias ? p->bias[r] : -(T)0); /* which changes nothing */
        UNROLL
        for (int v = 0; v < vectors; v++)
            v_store(NAME(sums_at)(p, to[r], first, v, pixels), pixels ? v_max(least, sum[r][v] + bias) : sum[r][v]);
    }
}

#pragma GCC diagnostic pop

/* Sums of some pixels behind the last vector, which would leave the next one nearly empty: lanes are steps. `seen` is
 * what they see, (pixel, step), `seen_step` apart and 0 up to a whole vector. `rows` and `pixels` are constants at
 * every call. */
ALWAYS_INLINE void NAME(rest_block)(const NAME(product) *p, const T *seen, ptrdiff_t seen_step, T *sums, int rows,
                                    int pixels)
{
    V total[ROWS][XENT_REST_PIXELS] = {{{0}}};
    for (ptrdiff_t from = 0; from < p->depth; from += PARTIAL * LANES) {
        const ptrdiff_t to = xent_min(from + PARTIAL * LANES, p->depth);
        V sum[ROWS][XENT_REST_PIXELS] = {{{0}}};
        for (ptrdiff_t k = from; k < to; k += LANES) {
            V factor[XENT_REST_PIXELS];
            UNROLL
            for (int i = 0; i < pixels; i++) factor[i] = v_load(seen + i * seen_step + k);
            UNROLL
            for (int r = 0; r < rows; r++) {
                const V weights = NAME(load)(p->packed + r * p->packed_row + k, to - k, (V){0});
                UNROLL
                for (int i = 0; i < pixels; i++) sum[r][i] = v_fma(weights, factor[i], sum[r][i]);
            }
        }
        UNROLL
        for (int r = 0; r < rows; r++) {
            UNROLL
            for (int i = 0; i < pixels; i++) total[r][i] = total[r][i] + sum[r][i];
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int i = 0; i < pixels; i++) {
            T *at = sums + r * p->sums_step + i;
            const T sum = v_reduce_sum(total[r][i]) + (p->accumulate ? *at : 0) + (p->bias ? p->bias[r] : 0);
            *at = p->relu && sum < 0 ? 0 : sum; /* NaN stays */
        }
    }
}

#define REST_BLOCK(rows, pixels)                                                                                       \
    case (rows) * XENT_REST_PIXELS + (pixels) - 1: NAME(rest_block)(p, seen, seen_step, sums, rows, pixels); break;

static void NAME(multiply_rest)(const NAME(product) *p, const T *seen, ptrdiff_t seen_step, T *sums, ptrdiff_t rows,
                                ptrdiff_t pixels)
{
    switch (rows * XENT_REST_PIXELS + pixels - 1) {
        /* clang-format off */
        REST_BLOCK(1, 1) REST_BLOCK(2, 1) REST_BLOCK(3, 1) REST_BLOCK(4, 1) REST_BLOCK(5, 1) REST_BLOCK(6, 1)
        REST_BLOCK(1, 2) REST_BLOCK(2, 2) REST_BLOCK(3, 2) REST_BLOCK(4, 2) REST_BLOCK(5, 2) REST_BLOCK(6, 2)
        /* clang-format on */
    }
}
#undef REST_BLOCK

/* Some rows of what is next: to a cache of the second level. */
ALWAYS_INLINE void NAME(fetch_next)(const xent_ahead *next, ptrdiff_t first, ptrdiff_t rows)
{
    for (const ptrdiff_t end = xent_min(first + rows, next->rows); first < end; first++)
        for (ptrdiff_t k = 0; k < next->bytes; k += CACHE_LINE)
            __builtin_prefetch(next->at + first * next->step + k, 0, 2);
}

/* `blocks` blocks of `rows` rows, from row `first` on; lanes are channels. */
#define ROW_BLOCKS(rows, vectors)                                                                                      \
    case (rows) * WIDEST + (vectors) - 1:                                                                              \
        for (; blocks > 0; blocks--, first += rows) {                                                                  \
            NAME(fetch_next)(&p->next, first, rows);                                                                   \
            NAME(block_product)(p, first, rows, vectors, 0);                                                           \
        }                                                                                                              \
        break;

static void NAME(row_blocks)(const NAME(product) *p, ptrdiff_t first, ptrdiff_t blocks, ptrdiff_t rows,
                             ptrdiff_t vectors)
{
    switch (rows * WIDEST + vectors - 1) {
        /* clang-format off */
        ROW_BLOCKS(1, 1) ROW_BLOCKS(2, 1) ROW_BLOCKS(3, 1) ROW_BLOCKS(4, 1) ROW_BLOCKS(5, 1) ROW_BLOCKS(6, 1)
        ROW_BLOCKS(1, 2) ROW_BLOCKS(2, 2) ROW_BLOCKS(3, 2) ROW_BLOCKS(4, 2) ROW_BLOCKS(5, 2) ROW_BLOCKS(6, 2)
#if VECTORS > 2
        ROW_BLOCKS(1, 3) ROW_BLOCKS(2, 3) ROW_BLOCKS(3, 3) ROW_BLOCKS(4, 3) ROW_BLOCKS(5, 3) ROW_BLOCKS(6, 3)
        ROW_BLOCKS(1, 4) ROW_BLOCKS(2, 4) ROW_BLOCKS(3, 4) ROW_BLOCKS(4, 4) ROW_BLOCKS(5, 4) ROW_BLOCKS(6, 4)
#endif
        /* clang-format on */
    }
}
#undef ROW_BLOCKS

/* All rows, in blocks of nearly equal height. */
static void NAME(multiply)(const NAME(product) *p, ptrdiff_t rows, ptrdiff_t vectors)
{
    const xent_heights c = xent_heights_of(rows, ROWS);
    NAME(row_blocks)(p, 0, c.taller, c.height + 1, vectors);
    NAME(row_blocks)(p, c.taller * (c.height + 1), c.blocks - c.taller, c.height, vectors);
}

/* The same through some channels, blocks that follow each other through the taps of their box. */
static void NAME(multiply_boxes)(const NAME(product) *p, ptrdiff_t rows, ptrdiff_t vectors, const xent_boxes *boxes,
                                 ptrdiff_t channels)
{
    const xent_heights c = xent_heights_of(rows, ROWS);
    NAME(product) some = *p;
    for (ptrdiff_t b = 0, first = 0, n, height; b < c.blocks; b += n, first += n * height) {
        const xent_box *box = boxes->box + boxes->of[b];
        const ptrdiff_t end = b < c.taller ? c.taller : c.blocks; /* of blocks as high */
        for (n = 1; b + n < end && boxes->of[b + n] == boxes->of[b];) n++;
        height = c.height + (b < c.taller);
        some.steps = box->steps, some.at = box->at, some.depth = channels * box->taps;
        NAME(row_blocks)(&some, first, n, height, vectors);
    }
}

/* All vectors of pixels, for `rows` <= ROWS output channels, in blocks of nearly equal length. */
#define PIXEL_BLOCK(rows, vectors)                                                                                     \
    case (rows) * WIDEST + (vectors) - 1: NAME(block_product)(q, first, rows, vectors, 1); break;

#define LONG_BLOCKS (VECTORS > 2 && XENT_REAL == 32) /* of doubles they are not worth the time to compile them */

static void NAME(multiply_pixels)(const NAME(product) *p, ptrdiff_t rows, ptrdiff_t vectors)
{
    const xent_heights c = xent_heights_of(vectors, p->longest);
    const NAME(product) *q = p;
    NAME(product) taller;
    if (p->taller) taller = *p, taller.steps = p->taller;
    for (ptrdiff_t b = 0, first = 0; b < c.blocks; b++) {
        const ptrdiff_t some = c.height + (b < c.taller);
        if (p->taller) q = b < c.taller ? &taller : p;
        switch (rows * WIDEST + some - 1) {
            /* clang-format off */
            PIXEL_BLOCK(1, 1) PIXEL_BLOCK(1, 2) PIXEL_BLOCK(1, 3) PIXEL_BLOCK(1, 4)
            PIXEL_BLOCK(1, 5) PIXEL_BLOCK(1, 6) PIXEL_BLOCK(1, 7) PIXEL_BLOCK(1, 8)
            PIXEL_BLOCK(2, 1) PIXEL_BLOCK(2, 2) PIXEL_BLOCK(2, 3) PIXEL_BLOCK(2, 4)
            PIXEL_BLOCK(3, 1) PIXEL_BLOCK(3, 2) PIXEL_BLOCK(3, 3)
            PIXEL_BLOCK(4, 1) PIXEL_BLOCK(4, 2) PIXEL_BLOCK(4, 3)
            PIXEL_BLOCK(5, 1) PIXEL_BLOCK(5, 2) PIXEL_BLOCK(6, 1) PIXEL_BLOCK(6, 2)
#if LONG_BLOCKS
            PIXEL_BLOCK(2, 5) PIXEL_BLOCK(2, 6) PIXEL_BLOCK(2, 7) PIXEL_BLOCK(2, 8)
            PIXEL_BLOCK(3, 4) PIXEL_BLOCK(3, 5) PIXEL_BLOCK(3, 6) PIXEL_BLOCK(4, 4) PIXEL_BLOCK(4, 5) PIXEL_BLOCK(4, 6)
            PIXEL_BLOCK(5, 3) PIXEL_BLOCK(5, 4) PIXEL_BLOCK(6, 3) PIXEL_BLOCK(6, 4)
#endif
            /* clang-format on */
        }
        first += some;
    }
}
#undef PIXEL_BLOCK

#endif
