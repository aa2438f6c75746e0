/* tile.h: how positions come to the kernels of the softmax family. A chunk of positions is cut into tiles of at most
 * TILE. The classes of a position are neighbours in memory (rows) or the positions are (columns), and a kernel works
 *
 *   lanes are classes     along the rows
 *   lanes are positions   over the classes, class by class: columns, and rows so short that they would waste most of
 *                         each vector, which are transposed in registers
 *
 * Columns of kernels with more than one input, and their short rows, go through a scratch on the stack first: there
 * they are columns of the type computed with (packed). So do columns of which only a few positions are neighbours, in
 * runs: a tile has many of these. Other short rows of 16-bit floats are rows of it there (widened).
 * Where they have more classes than short rows, such few positions go through scratch memory as rows (tile_sizes.h).
 * Logits that are transformed go through a scratch too (transform.h). cut.h decides.
 *
 * A tile has room for its exponentials wherever that fits a part of the L1 cache, or, where the bridge gave scratch
 * memory, in the L2 cache: then each is computed once, and probabilities and gradients are made of them. Otherwise they
 * are computed again. Where a kernel looks at the logits once more and lanes are positions, the tile keeps these beside
 * the exponentials.
 *
 * The stored type S may be narrower than the type T that is computed with (begin.h): load() and store() convert.
 */
#include "begin.h"
#include "simd/stored.h"
#include "softmax/ranks.h"
#include "softmax/stats.h"
#include "table.h"
#include "softmax/tile_sizes.h"

#ifndef XENT_TILE_H
#define XENT_TILE_H

/* The sizes of tile_sizes.h, in numbers. */
#define PACK_ELEMENTS (PACK_BYTES / (ptrdiff_t)sizeof(T))
#define TRANSPOSED_ELEMENTS (TRANSPOSED_BYTES / (ptrdiff_t)sizeof(T))
#define EXPS_ELEMENTS (EXPS_BYTES / (ptrdiff_t)sizeof(T))
#define SHARE_ELEMENTS (SHARE_BYTES / (ptrdiff_t)sizeof(T))
/* Classes of a row up to which lanes are positions: as many as LINE_COLUMNS rows may have in the scratch. From about a
 * dozen vectors on, to work along a row is as fast. */
#define SHORT_ROW (TRANSPOSED_ELEMENTS / LINE_COLUMNS)

#ifndef STORED_AS_16
/* The room of a row whose exponentials are added up. */
ALWAYS_INLINE ptrdiff_t NAME(padded_row)(ptrdiff_t classes)
{
    return (xent_max(classes, 1) + ROW_GROUP - 1) / ROW_GROUP * ROW_GROUP;
}
#endif

#if XENT_REAL == 64 && !defined(STORED_AS_16)
/* The first of the positions of a tile that are beyond the arithmetic of a kernel, and how many follow each other. */
typedef struct {
    ptrdiff_t at, n;
} xent_left;

/* How positions lie: as rows, `step` from one to the next, or as columns, `step` from class to class. Of columns `run`
 * positions are neighbours, `apart` from run to run (0: all of a tile are). */
typedef struct {
    int rows;
    ptrdiff_t step, run, apart;
} xent_lie;
#endif

typedef struct {
    const S *x;
    union {
        const S *target, *grad_in; /* as in xent_positions */
    };
    S *out, *hess;
    T *exps; /* room for e_c (stats.h) */
    /* Rows: from position to position; columns: from class to class. */
    ptrdiff_t x_step, target_step, out_step, hess_step, exps_step;
    ptrdiff_t first, n; /* the positions [first, first + n) */
    int rows;           /* how the logits lie */
    ptrdiff_t x_class;  /* of rows: from class to class; more than 1 only where they are transformed */
    ptrdiff_t run, x_apart, target_apart, out_apart, hess_apart; /* see xent_lie */
    int lanes_are_positions;                                     /* of columns and transposed rows */
    int streams;                                                 /* as in xent_positions */
    int kept, blocks;  /* kept: there is room for all exponentials; blocks: of rows, see BLOCK */
    T *scale_exponent; /* what is tried first, which goes from tile to tile (stats.h) */
    T *logits;         /* room for the logits as they are computed with, in the places of the exponentials, or NULL */
    /* The largest of each position, and what was taken from them, where logits are transformed (transform.h): they are
     * distances by now, and have their exponentials. Else NULL. */
    const T *max_logit;
    const double *moved;
    /* Classes of a row, a tile by itself, whose exponentials are taken out before they are added up, in the order of
     * BLOCKs; or NULL. */
    const ptrdiff_t *left_out;
    ptrdiff_t left_out_count;
    KERNEL(ranked) *ranked; /* classes of the only row, which are ranked on the way, or NULL */
    xent_left *left;        /* NULL, or to be set in the place of doing anything */
    /* Of rows that are copies: the memory that is read after them, and that their results go to, row by row, to be fetched
     * meanwhile; or NULL. */
    const S *next, *result;
    /* What transformed logits were before: the tile that had them, and what reads one of it. Else NULL. */
    const void *given;
    double (*given_logit)(const void *tile, ptrdiff_t position, ptrdiff_t class);
    /* Of a curved loss (curved.h): arrays of doubles to work in, and with a cap the logits as they were. */
    double *lines;
    const T *raw;
    ptrdiff_t raw_step;
} KERNEL(tile);

/* How an operand of a tile lies, for copies to a scratch and back. */
#define LIES(t, operand)                                                                                               \
    ((xent_lie){.rows = (t)->rows, .step = (t)->operand##_step, .run = (t)->run, .apart = (t)->operand##_apart})

/* What a kernel does with a tile. The positions are the first member of the arguments of its operator, so that their
 * address is that of the arguments, to which it casts them. `losses` collects the sums of a chunk. */
typedef void (*KERNEL(tile_function))(const xent_positions *, const KERNEL(tile) *, row_sum_f64 *losses);

/* Whether the positions of rows are lanes. 16-bit floats come to that as floats (cut.h). */
ALWAYS_INLINE int KERNEL(transposed)(const KERNEL(tile) *t)
{
    return sizeof(S) == sizeof(T) && t->lanes_are_positions && t->rows;
}

static double KERNEL(given_logit)(const void *tile, ptrdiff_t p, ptrdiff_t c)
{
    const KERNEL(tile) *t = (const KERNEL(tile) *)tile;
    if (t->rows) return KERNEL(get)(t->x + p * t->x_step + c * t->x_class);
    return KERNEL(get)(t->x + (t->run ? p / t->run * t->x_apart + p % t->run : p) + c * t->x_step);
}

/* Have n neighbouring positions of class c in the caches, which lies `step` from the one before, and may not be there. */
ALWAYS_INLINE void KERNEL(fetch_class)(const S *first, ptrdiff_t step, ptrdiff_t c, ptrdiff_t n)
{
    KERNEL(fetch)((const S *)((uintptr_t)first + (uintptr_t)(c * step) * sizeof(S)), n);
}

/* Class 0 of position (o * middle_count + m) * inner + i. */
ALWAYS_INLINE S *KERNEL(at)(const xent_operand *operand, ptrdiff_t o, ptrdiff_t m, ptrdiff_t i)
{
    return operand->data ? (S *)operand->data + o * operand->outer_stride + m * operand->middle_stride + i : NULL;
}

/* Rows of a few classes as rows of the type computed with, which touch each other; what follows the last is written to,
 * up to a vector. And back. */
static void KERNEL(widen_rows)(const S *rows, ptrdiff_t row_step, T *wide, ptrdiff_t positions, ptrdiff_t classes)
{
    const V zero = {0};
    const int gapless = row_step == classes; /* then all rows are as good as one */
    for (ptrdiff_t p = 0; p < (gapless ? 1 : positions); p++)
        for (ptrdiff_t c = 0, n = gapless ? positions * classes : classes; c < n; c += LANES)
            v_store(wide + p * classes + c, KERNEL(load)(rows + p * row_step + c, n - c, zero));
}

static void KERNEL(narrow_rows)(const T *wide, S *rows, ptrdiff_t row_step, ptrdiff_t positions, ptrdiff_t classes)
{
    const int gapless = row_step == classes;
    for (ptrdiff_t p = 0; p < (gapless ? 1 : positions); p++)
        for (ptrdiff_t c = 0, n = gapless ? positions * classes : classes; c < n; c += LANES)
            KERNEL(store)(rows + p * row_step + c, v_load(wide + p * classes + c), n - c);
}

/* Rows into the scratch as columns, and back. 16-bit floats are converted on the way. */
static void KERNEL(pack_rows)(const S *rows, ptrdiff_t row_step, T *columns, ptrdiff_t step, ptrdiff_t positions,
                              ptrdiff_t classes)
{
#ifdef STORED_AS_16
    T wide[TRANSPOSED_ELEMENTS + LANES];
    KERNEL(widen_rows)(rows, row_step, wide, positions, classes);
    NAME(rows_to_columns)(wide, classes, columns, step, positions, classes, step, 0);
#else
    NAME(rows_to_columns)(rows, row_step, columns, step, positions, classes, step, 0);
#endif
}

static void KERNEL(unpack_rows)(const T *columns, ptrdiff_t step, S *rows, ptrdiff_t row_step, ptrdiff_t positions,
                                ptrdiff_t classes)
{
#ifdef STORED_AS_16
    T wide[TRANSPOSED_ELEMENTS + LANES];
    NAME(columns_to_rows)(columns, step, wide, classes, positions, classes, 0);
    KERNEL(narrow_rows)(wide, rows, row_step, positions, classes);
#else
    NAME(columns_to_rows)(columns, step, rows, row_step, positions, classes, 0);
#endif
}

/* Columns into the scratch, and back: their steps in memory are often large powers of two, which the sets of a cache
 * hold few of. */
static void KERNEL(pack_columns)(const S *x, ptrdiff_t x_step, T *columns, ptrdiff_t step, ptrdiff_t positions,
                                 ptrdiff_t classes)
{
    const V zero = {0};
    for (ptrdiff_t c = 0; c < classes; c++)
        for (ptrdiff_t p = 0; p < step; p += LANES) /* what is read past the positions is 0, not what was there */
            v_store(columns + c * step + p, KERNEL(load_part)(x + c * x_step + p, positions - p, zero));
}

static void KERNEL(unpack_columns)(const T *columns, ptrdiff_t step, S *out, ptrdiff_t out_step, ptrdiff_t positions,
                                   ptrdiff_t classes)
{
    for (ptrdiff_t c = 0; c < classes; c++)
        for (ptrdiff_t p = 0; p < positions; p += LANES)
            KERNEL(store)(out + c * out_step + p, v_load(columns + c * step + p), positions - p);
}

/* Copy `count` runs, by copies of a fixed size, a power of two: the last of a run overlaps the one before. */
static void KERNEL(copy_runs)(const S *from, ptrdiff_t from_apart, S *to, ptrdiff_t to_apart, ptrdiff_t run,
                              ptrdiff_t count)
{
#define COPY(numbers)                                                                                                  \
    for (ptrdiff_t k = 0; k < count; k++, from += from_apart, to += to_apart) {                                        \
        memcpy(to, from, (numbers) * sizeof(S));                                                                       \
        for (ptrdiff_t i = (numbers); i + (numbers) <= run; i += (numbers))                                            \
            memcpy(to + i, from + i, (numbers) * sizeof(S));                                                           \
        if (run > (numbers)) memcpy(to + run - (numbers), from + run - (numbers), (numbers) * sizeof(S));              \
    }
    if (run >= 16)
        COPY(16)
    else if (run >= 8)
        COPY(8)
    else if (run >= 4)
        COPY(4)
    else if (run >= 2)
        COPY(2)
    else
        COPY(1)
#undef COPY
}

/* Columns of runs into the scratch, and back. */
static void KERNEL(pack_runs)(const S *x, xent_lie lie, T *columns, ptrdiff_t step, ptrdiff_t positions,
                              ptrdiff_t classes)
{
    const ptrdiff_t count = positions / lie.run;
#ifdef STORED_AS_16
    const V zero = {0};
    S line[TILE];
    for (ptrdiff_t c = 0; c < classes; c++) {
        KERNEL(copy_runs)(x + c * lie.step, lie.apart, line, lie.run, lie.run, count);
        for (ptrdiff_t p = 0; p < step; p += LANES)
            v_store(columns + c * step + p, KERNEL(load_part)(line + p, positions - p, zero));
    }
#else
    for (ptrdiff_t c = 0; c < classes; c++, columns += step) {
        KERNEL(copy_runs)(x + c * lie.step, lie.apart, columns, lie.run, lie.run, count);
        for (ptrdiff_t p = positions; p < step; p++) columns[p] = 0; /* what is read past them, not what was there */
    }
#endif
}

static void KERNEL(unpack_runs)(const T *columns, ptrdiff_t step, S *out, xent_lie lie, ptrdiff_t positions,
                                ptrdiff_t classes)
{
    for (ptrdiff_t c = 0; c < classes; c++, columns += step) {
#ifdef STORED_AS_16
        S line[TILE];
        for (ptrdiff_t p = 0; p < positions; p += LANES) KERNEL(store)(line + p, v_load(columns + p), positions - p);
#else
        const S *line = columns;
#endif
        KERNEL(copy_runs)(line, lie.run, out + c * lie.step, lie.apart, lie.run, positions / lie.run);
    }
}

/* Columns of a few positions into the scratch as rows, which zeros follow up to a whole vector, and back: as a matrix they
 * are rows of a few numbers. A part of the classes at a time, while the next is fetched. Of 16-bit floats vectors convert
 * what lies between the first and the last number of a part, unless the classes lie further apart than any run is long. */
ALWAYS_INLINE ptrdiff_t KERNEL(part_of_few)(ptrdiff_t apart)
{
    return (TRANSPOSED_ELEMENTS / apart - PIECE) / LINE_COLUMNS * LINE_COLUMNS;
}

static void KERNEL(pack_few)(const S *x, ptrdiff_t x_step, T *rows, ptrdiff_t step, ptrdiff_t positions,
                             ptrdiff_t classes)
{
    const int close = x_step >= positions && x_step < LINE_COLUMNS;
    const ptrdiff_t apart = close ? x_step : positions, part = KERNEL(part_of_few)(apart),
                    filled = (classes + LANES - 1) / LANES * LANES;
    for (ptrdiff_t c = 0; c < classes; c += part, x += part * x_step, rows += part) {
        const ptrdiff_t n = xent_min(part, classes - c), zeros = xent_min(part, filled - c),
                        more = xent_min(PIECE, classes - c - n);
        if (x_step == positions) KERNEL(fetch)(x + n * x_step, n * x_step);
#ifdef STORED_AS_16
        T wide[TRANSPOSED_ELEMENTS + LANES];
        const ptrdiff_t line = (n + more - 1) * apart + positions;
        KERNEL(widen_rows)(x, close ? line : x_step, wide, close ? 1 : n + more, close ? line : positions);
        NAME(rows_to_columns)(wide, apart, rows, step, n, positions, zeros, more);
#else
        NAME(rows_to_columns)(x, x_step, rows, step, n, positions, zeros, more);
#endif
    }
}

static void KERNEL(unpack_few)(const T *rows, ptrdiff_t step, S *out, ptrdiff_t out_step, ptrdiff_t positions,
                               ptrdiff_t classes)
{
    const ptrdiff_t part = KERNEL(part_of_few)(positions);
    for (ptrdiff_t c = 0; c < classes; c += part, out += part * out_step, rows += part) {
        const ptrdiff_t n = xent_min(part, classes - c);
        if (out_step == positions) KERNEL(fetch)(out + n * out_step, n * out_step);
#ifdef STORED_AS_16
        T wide[TRANSPOSED_ELEMENTS + LANES];
        S narrow[TRANSPOSED_ELEMENTS], *to = out_step == positions ? out : narrow;
        NAME(columns_to_rows)(rows, step, wide, positions, n, positions, 0);
        KERNEL(narrow_rows)(wide, to, positions, n, positions);
        if (to == narrow) KERNEL(copy_runs)(narrow, positions, out, out_step, positions, n);
#else
        NAME(columns_to_rows)(rows, step, out, out_step, n, positions, classes - c - n);
#endif
    }
}

/* Rows or columns into a scratch, to columns if lanes are positions, else to rows; and back. */
static void KERNEL(gather)(const S *x, xent_lie lie, T *to, ptrdiff_t step, ptrdiff_t positions, ptrdiff_t classes,
                           int lanes_are_positions)
{
    const V zero = {0};
    if (!lie.rows && !lanes_are_positions) {
        const ptrdiff_t run = lie.run ? lie.run : positions;
        for (ptrdiff_t p = 0; p < positions; p += run)
            KERNEL(pack_few)(x + p / run * lie.apart, lie.step, to + p * step, step, run, classes);
    } else if (lie.run) {
        KERNEL(pack_runs)(x, lie, to, step, positions, classes);
    } else if (lanes_are_positions) {
        (lie.rows ? KERNEL(pack_rows) : KERNEL(pack_columns))(x, lie.step, to, step, positions, classes);
    } else {
        for (ptrdiff_t p = 0; p < positions; p++)
            for (ptrdiff_t c = 0; c < classes; c += LANES)
                v_store(to + p * step + c, KERNEL(load)(x + p * lie.step + c, classes - c, zero));
    }
}

static void KERNEL(scatter)(const T *from, ptrdiff_t step, S *out, xent_lie lie, ptrdiff_t positions, ptrdiff_t classes,
                            int lanes_are_positions)
{
    if (!lie.rows && !lanes_are_positions) {
        const ptrdiff_t run = lie.run ? lie.run : positions;
        for (ptrdiff_t p = 0; p < positions; p += run)
            KERNEL(unpack_few)(from + p * step, step, out + p / run * lie.apart, lie.step, run, classes);
    } else if (lie.run) {
        KERNEL(unpack_runs)(from, step, out, lie, positions, classes);
    } else if (lanes_are_positions) {
        (lie.rows ? KERNEL(unpack_rows) : KERNEL(unpack_columns))(from, step, out, lie.step, positions, classes);
    } else {
        for (ptrdiff_t p = 0; p < positions; p++)
            for (ptrdiff_t c = 0; c < classes; c += LANES)
                KERNEL(store)(out + p * lie.step + c, v_load(from + p * step + c), classes - c);
    }
}

/* A tile by copies in a scratch, `copy`, where numbers are of the type computed with, and so is the function that works on
 * them. */
static void KERNEL(work_on_copy)(const xent_positions *positions, const KERNEL(tile) *t, const NAME(tile) *copy,
                                 row_sum_f64 *losses, NAME(tile_function) function)
{
    const ptrdiff_t classes = positions->classes, step = copy->x_step;
    const int lanes = copy->lanes_are_positions;
    KERNEL(gather)(t->x, LIES(t, x), (T *)copy->x, step, t->n, classes, lanes);
    if (copy->target) KERNEL(gather)(t->target, LIES(t, target), (T *)copy->target, step, t->n, classes, lanes);
    if (t->rows) { /* the next tile, while this one keeps the processor busy */
        KERNEL(fetch)(t->x + t->n * t->x_step, t->n * t->x_step);
        if (t->target) KERNEL(fetch)(t->target + t->n * t->target_step, t->n * t->target_step);
        if (t->out) KERNEL(fetch)(t->out, t->n * t->out_step);
    }
    function(positions, copy, losses);
    if (t->left && t->left->n) return;
    if (t->out) KERNEL(scatter)(copy->out, step, t->out, LIES(t, out), t->n, classes, lanes);
    if (t->hess) KERNEL(scatter)(copy->hess, step, t->hess, LIES(t, hess), t->n, classes, lanes);
}

/* Short rows and columns. */
static void KERNEL(packed_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *losses,
                                NAME(tile_function) function)
{
    _Alignas(CACHE_LINE) T x[PACK_ELEMENTS];
    const ptrdiff_t step = (t->n + LANES - 1) / LANES * LANES, share = PACK_ELEMENTS / xent_packed_arrays(positions);
    T *target = t->target ? x + share : NULL, *hess = t->hess ? x + PACK_ELEMENTS - share : NULL;
    const NAME(tile) packed = {.x = x,
                               .target = target,
                               .out = t->out ? x : NULL,
                               .hess = hess,
                               .exps = t->exps,
                               .x_step = step,
                               .target_step = step,
                               .out_step = step,
                               .hess_step = step,
                               .exps_step = step,
                               .first = t->first,
                               .n = t->n,
                               .lanes_are_positions = 1,
                               .kept = 1,
                               .logits = !t->rows && positions->keeps_logits ? x : NULL,
                               .scale_exponent = t->scale_exponent,
                               .left = t->left};
    KERNEL(work_on_copy)(positions, t, &packed, losses, function);
}

/* Columns of a few positions, as rows in the scratch of the thread. */
static void KERNEL(few_tile)(const xent_positions *positions, const KERNEL(tile) *t, T *room, row_sum_f64 *losses,
                             NAME(tile_function) function)
{
    const ptrdiff_t classes = positions->classes, step = xent_row_room(classes), size = t->n * step;
    T *target = t->target ? room + size : NULL, *hess = t->hess ? (target ? target : room) + size : NULL,
      *behind = room + xent_packed_arrays(positions) * size;
    const ptrdiff_t run = t->run ? t->run : t->n;
    const int gapless = t->x_step == run, gapless_out = t->out_step == run; /* runs follow each other, too, mostly */
    const NAME(tile) rows = {.x = room,
                             .target = target,
                             .out = t->out ? room : NULL,
                             .hess = hess,
                             .exps = t->kept ? behind : t->exps,
                             .x_step = step,
                             .target_step = step,
                             .out_step = step,
                             .hess_step = step,
                             .exps_step = step,
                             .first = t->first,
                             .n = t->n,
                             .x_class = 1,
                             .rows = 1,
                             .kept = t->kept,
                             .blocks = t->blocks,
                             .scale_exponent = t->scale_exponent,
                             .next =
                                 gapless ? (const T *)((uintptr_t)t->x + (size_t)(t->n * classes) * sizeof(S)) : NULL,
                             .result = gapless_out ? (const T *)t->out : NULL,
                             .left = t->left};
    KERNEL(work_on_copy)(positions, t, &rows, losses, function);
}

/* Short rows of 16-bit floats: as rows of the type computed with, to be transposed in registers. */
static void KERNEL(widened_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *losses,
                                 NAME(tile_function) function)
{
    _Alignas(CACHE_LINE) T x[TRANSPOSED_ELEMENTS + LANES];
    const ptrdiff_t classes = positions->classes;
    const NAME(tile) wide = {.x = x,
                             .out = t->out ? x : NULL,
                             .exps = t->exps,
                             .x_step = classes,
                             .out_step = classes,
                             .exps_step = t->exps_step,
                             .first = t->first,
                             .n = t->n,
                             .x_class = 1,
                             .rows = 1,
                             .lanes_are_positions = 1,
                             .kept = 1,
                             .scale_exponent = t->scale_exponent,
                             .left = t->left};
    KERNEL(widen_rows)(t->x, t->x_step, x, t->n, classes);
    KERNEL(fetch)(t->x + t->n * t->x_step, t->n * t->x_step);
    if (t->out) KERNEL(fetch)(t->out, t->n * t->out_step);
    function(positions, &wide, losses);
    if (t->left && t->left->n) return;
    if (t->out) KERNEL(narrow_rows)(x, t->out, t->out_step, t->n, classes);
}

#endif
