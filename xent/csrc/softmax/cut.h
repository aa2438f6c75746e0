/* cut.h: how a chunk of positions is cut into tiles (tile.h), the loop over them, and kernels made of that. */
#include "begin.h"
#include "softmax/tile.h"
#include "softmax/transform.h"

#ifndef XENT_CUT_H
#define XENT_CUT_H

/* How the positions of a chunk are cut into tiles. */
typedef struct {
    ptrdiff_t most;      /* positions in a tile */
    ptrdiff_t exps_step; /* of its exponentials; 0: it has no room for them */
    int columns, lanes_are_positions, packed, widened, blocks;
    int runs; /* of neighbouring positions, of which a tile has many */
    int few;  /* columns of which few positions are neighbours: as rows */
} KERNEL(cut);

#if XENT_REAL == 64 && !defined(STORED_AS_16)
/* Whether so few positions of columns are neighbours that a tile, of `most` positions, takes several runs of these. Of a
 * cache line or more, two at least: one is no worse where it lies. */
ALWAYS_INLINE int short_runs(const xent_positions *p, ptrdiff_t most)
{
    return p->inner > 1 && p->middle_count > 1 && (p->inner < LINE_COLUMNS || 2 * p->inner <= most);
}

/* Positions of columns of which a sum and a map are made, one after the other: as many as an L2 cache holds until then, in
 * equal parts of a run. At least two lines of a cache: classes may lie on pages of their own. */
static ptrdiff_t columns_of_sums(const xent_positions *p, ptrdiff_t stored_size)
{
    const ptrdiff_t fit = MOST_EXPS_BYTES / 2 / 2 / stored_size / xent_max(p->classes, 1) / LINE_COLUMNS * LINE_COLUMNS,
                    most = xent_min(MOST_COLUMNS, xent_max(fit, 2 * LINE_COLUMNS)),
                    parts = xent_ceil_div(p->inner, most);
    return xent_ceil_div(xent_ceil_div(p->inner, parts), LINE_COLUMNS) * LINE_COLUMNS;
}
#endif

/* Positions of which `elements` hold all classes, in whole cache lines of floats; at most a tile. */
ALWAYS_INLINE ptrdiff_t KERNEL(positions_in)(ptrdiff_t elements, ptrdiff_t classes)
{
    return xent_min(TILE, elements / xent_max(classes, 1) / LINE_COLUMNS * LINE_COLUMNS);
}

/* Whether lanes are positions where tiles have copies of their own in any case. A product of second derivatives is worked on
 * in doubles, whatever it is of. */
ALWAYS_INLINE int KERNEL(lanes_of_copies)(const xent_positions *p)
{
    const ptrdiff_t size = p->reads_hess ? sizeof(double) : sizeof(T);
    return p->inner > 1 ? !xent_few_columns(p, size) : p->classes <= SHORT_ROW;
}

/* The cut of a call with transformed logits: the arrays of a tile share the scratch of the thread. */
static KERNEL(cut) KERNEL(transformed_cut_of)(const xent_positions *positions)
{
    const int columns = positions->inner > 1, lanes_are_positions = KERNEL(lanes_of_copies)(positions);
    const ptrdiff_t elements =
        xent_min(transform_elements(positions), lanes_are_positions && !columns ? TRANSPOSED_ELEMENTS : PTRDIFF_MAX);
    KERNEL(cut)
    cut = {.columns = columns, .lanes_are_positions = lanes_are_positions};
    cut.most = lanes_are_positions ? KERNEL(positions_in)(elements, positions->classes)
                                   : xent_min(TILE, elements / NAME(padded_row)(positions->classes));
    cut.runs = short_runs(positions, cut.most);
    return cut;
}

/* The cut of columns of few positions that come to the scratch as rows. */
static KERNEL(cut) KERNEL(few_cut_of)(const xent_positions *positions)
{
    const ptrdiff_t arrays = xent_row_arrays(positions, sizeof(T)), row = xent_row_room(positions->classes);
    return (KERNEL(cut)){.most =
                             xent_min(xent_rows_at_once(positions, arrays, sizeof(T)), positions->room / row / arrays),
                         .exps_step = xent_keeps_row_exps(positions, sizeof(T)) ? row : 0,
                         .columns = 1,
                         .blocks = NAME(padded_row)(positions->classes) > EXPS_ELEMENTS,
                         .runs = short_runs(positions, 0),
                         .few = 1};
}

static KERNEL(cut) KERNEL(cut_of)(const xent_positions *positions)
{
    if (xent_row_arrays(positions, sizeof(T))) return KERNEL(few_cut_of)(positions);
    if (xent_is_flat(positions, sizeof(T)))
        return (KERNEL(cut)){
            .most = TILE / positions->inner * positions->inner, .columns = 1, .runs = short_runs(positions, 0)};
    const ptrdiff_t classes = positions->classes, keeps = positions->keeps_logits ? 2 : 1; /* logits, exponentials */
    const ptrdiff_t room = xent_max(EXPS_ELEMENTS, positions->room);
    /* What is no more than a sum and a product pays to transpose where most of a vector would be empty. Several arrays pay
     * for it up to four vectors: with 64 and 128 classes second derivatives took 1.3 and 1.7 times as long. */
    const int sums = positions->exps == XENT_ROW_SUMS;
    const ptrdiff_t short_row = sums ? 2 * ROW_LANES - 1 : positions->packs ? 4 * ROW_LANES - 1 : SHORT_ROW;
    KERNEL(cut) cut = {.most = TILE,
                       .columns = positions->inner > 1,
                       .lanes_are_positions = positions->inner > 1 || classes <= short_row};
    if (sums && positions->inner >= LINE_COLUMNS) { /* where they are, with any number of runs (softmax.h) */
        cut.most = columns_of_sums(positions, sizeof(S));
        cut.runs = positions->inner <= cut.most && positions->middle_count > 1;
        if (cut.runs) cut.most = positions->chunk;
    } else if (cut.columns) {
        const ptrdiff_t packable = KERNEL(positions_in)(PACK_ELEMENTS / xent_packed_arrays(positions), classes);
        /* Those that lie far apart are read where they are, many positions of a class at once: in 16 of 150 classes the
         * gradients of softmax took 2.3 to 3 times as long. */
        cut.runs = short_runs(positions, packable) && packable > 0;
        cut.packed = cut.runs || (positions->packs && packable > 0 && positions->x.stride <= TILE);
        cut.exps_step = cut.packed ? packable : sums ? 0 : KERNEL(positions_in)(room / keeps, classes);
    } else if (cut.lanes_are_positions) {
        /* in two ways, for the order of evaluate()'s sums: kept logits go to two of them in turn, columns to one */
        cut.packed = positions->packs || (sizeof(S) != sizeof(T) && positions->keeps_logits);
        cut.widened = !cut.packed && sizeof(S) != sizeof(T);
        const ptrdiff_t share = SHARE_ELEMENTS / (keeps + (positions->out.data != NULL));
        cut.exps_step = KERNEL(positions_in)(cut.packed || cut.widened ? TRANSPOSED_ELEMENTS : share, classes);
    } else {
        const ptrdiff_t padded = NAME(padded_row)(classes);
        cut.blocks = padded > EXPS_ELEMENTS;
        if (positions->exps != XENT_SUMMED_EXPS && !sums) {
            cut.most = cut.blocks ? 1 : xent_min(TILE, xent_max(1, EXPS_ELEMENTS / keeps / padded));
            if (padded <= room) cut.exps_step = padded;
        }
    }
    if (cut.lanes_are_positions && cut.exps_step > 0) cut.most = cut.exps_step;
    return cut;
}

/* The tile that begins at position p and ends at or before `end`. */
static KERNEL(tile) KERNEL(tile_at)(const xent_positions *positions, const KERNEL(cut) *cut, ptrdiff_t p, ptrdiff_t end)
{
    const ptrdiff_t line = positions->inner == 1 ? p : p / positions->inner, i = p - line * positions->inner;
    const ptrdiff_t o = xent_div(line, positions->middle_count), m = line - o * positions->middle_count;
    ptrdiff_t n = xent_min(cut->most, end - p), run = 0;
    if (cut->runs && i == 0 && n >= positions->inner) {
        run = positions->inner, n = xent_min(n / run, positions->middle_count - m) * run;
    } else {
        n = xent_min(n, cut->columns ? positions->inner - i : positions->middle_count - m);
    }
#define STEP(operand) (cut->columns ? positions->operand.stride : positions->operand.middle_stride)
    return (KERNEL(tile)){.x = KERNEL(at)(&positions->x, o, m, i),
                          .target = KERNEL(at)(&positions->target, o, m, i),
                          .out = KERNEL(at)(&positions->out, o, m, i),
                          .hess = KERNEL(at)(&positions->hess, o, m, i),
                          .x_step = STEP(x),
                          .target_step = STEP(target),
                          .out_step = STEP(out),
                          .hess_step = STEP(hess),
                          .exps_step = cut->exps_step,
                          .first = p,
                          .n = n,
                          .run = run,
                          .x_apart = positions->x.middle_stride,
                          .target_apart = positions->target.middle_stride,
                          .out_apart = positions->out.middle_stride,
                          .hess_apart = positions->hess.middle_stride,
                          .rows = !cut->columns,
                          .x_class = positions->x.stride,
                          .streams = positions->streams,
                          .lanes_are_positions = cut->lanes_are_positions,
                          .kept = cut->exps_step != 0,
                          .blocks = cut->blocks};
#undef STEP
}

/* What a kernel does with a tile as it lies, and with one in a scratch. */
typedef struct {
    KERNEL(tile_function) plain;
    NAME(tile_function) packed;
} KERNEL(functions);

#if XENT_REAL == 64 && !defined(STORED_AS_16)
/* Note n positions from p on as left, of a chunk that begins at `begin` and ends at `end`. */
static void leave(const xent_positions *positions, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t p, ptrdiff_t n)
{
    ptrdiff_t *left = positions->left + begin / positions->chunk;
    if (*left == 0) memset(positions->is_left + begin, 0, (size_t)(end - begin));
    memset(positions->is_left + p, 1, (size_t)n), *left += n;
}
#endif

/* A tile whose logits are not transformed. A function of its own: its memory on the stack, and that of packed tiles, is not
 * there beneath transformed tiles, which have scratch for all. */
static __attribute__((noinline)) void KERNEL(plain_tile)(const xent_positions *positions, const KERNEL(cut) *cut,
                                                         KERNEL(tile) *tile, void *scratch, const KERNEL(functions) *to,
                                                         row_sum_f64 *sums)
{
    _Alignas(CACHE_LINE) T exps[EXPS_ELEMENTS];
    tile->exps = !cut->few && positions->room > EXPS_ELEMENTS ? (T *)scratch : exps;
    if (positions->keeps_logits && cut->lanes_are_positions && tile->kept && !cut->few)
        tile->logits = tile->exps + cut->exps_step * positions->classes;
    if (cut->few)
        KERNEL(few_tile)(positions, tile, (T *)scratch, sums, to->packed);
    else if (cut->packed)
        KERNEL(packed_tile)(positions, tile, sums, to->packed);
    else if (cut->widened)
        KERNEL(widened_tile)(positions, tile, sums, to->packed);
    else
        to->plain(positions, tile, sums);
}

/* The tiles of a chunk. Of one with positions that are left, those before come first, as a tile of their own. */
static void KERNEL(tiles)(const xent_positions *positions, ptrdiff_t begin, ptrdiff_t end, void *scratch,
                          const KERNEL(functions) *to, row_sum_f64 *sums)
{
    const int transformed = positions->transformed;
    const KERNEL(cut) cut = transformed ? KERNEL(transformed_cut_of)(positions) : KERNEL(cut_of)(positions);
    T scale_exponent = NAME(first_scale_exponent);
    for (ptrdiff_t p = begin, stop = end; p < end; stop = p == stop ? end : stop) {
        xent_left left = {0, 0};
        KERNEL(tile) tile = KERNEL(tile_at)(positions, &cut, p, stop);
        tile.left = positions->left ? &left : NULL;
        tile.scale_exponent = &scale_exponent;
        if (transformed)
            KERNEL(transformed_tile)(positions, &tile, (T *)scratch, sums, to->packed);
        else
            KERNEL(plain_tile)(positions, &cut, &tile, scratch, to, sums);
        if (left.n == 0)
            p += tile.n;
        else if (left.at > 0)
            stop = p + left.at;
        else
            leave(positions, begin, end, p, left.n), p += left.n;
    }
}

/* Run a kernel on the tiles of one chunk; positions->partial gets its sums. */
static void KERNEL(for_tiles)(const xent_positions *positions, ptrdiff_t chunk, void *scratch,
                              const KERNEL(functions) to)
{
    const ptrdiff_t begin = chunk * positions->chunk, end = xent_min(begin + positions->chunk, positions->count);
    row_sum_f64 sums[XENT_MOST_SUMS];
    for (int k = 0; k < positions->sums; k++) start_row_sum_f64(sums + k);
    if (positions->left) positions->left[chunk] = 0;
    KERNEL(tiles)(positions, begin, end, scratch, &to, sums);
    if (positions->streams) xent_streamed();
    for (int k = 0; k < positions->sums; k++) positions->partial[chunk * positions->sums + k] = row_total_f64(sums + k);
}

/* The kernel that runs name_tile on the tiles of a chunk. */
#define TILE_KERNEL(name)                                                                                              \
    static void KERNEL(name)(const void *args, ptrdiff_t chunk, void *scratch)                                         \
    {                                                                                                                  \
        KERNEL(for_tiles)((const xent_positions *)args, chunk, scratch,                                                \
                          (KERNEL(functions)){.plain = KERNEL(name##_tile), .packed = NAME(name##_tile)});             \
    }

#endif
