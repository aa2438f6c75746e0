/* plan.c: how the positions of a call are cut into chunks, and what scratch a thread needs for the tiles of one
 * (tile.h). Everything depends on shapes and types alone, never on the number of threads.
 */
#include "softmax/tile_sizes.h"

/* A chunk of columns of many classes: a tile, for long stretches of memory, but four chunks at least. */
static ptrdiff_t tile_of_columns(ptrdiff_t count)
{
    return count >= 4 * TILE ? TILE : xent_max(count / 4 / LINE_COLUMNS * LINE_COLUMNS, LINE_COLUMNS);
}

/* A chunk of positions of which few are neighbours: whole runs, but of less than four, whose classes fill as many chunks,
 * a fourth of the positions. */
static ptrdiff_t chunk_of_few(const xent_positions *p, ptrdiff_t chunk)
{
    if (chunk >= p->inner) return chunk / p->inner * p->inner;
    if (p->exps == XENT_ONE_CLASS || p->inner < 4 * chunk) return p->inner;
    return xent_min(p->inner, xent_max(p->count / 4, 1));
}

/* Whether a chunk of columns is one of whole runs, so that it is not cut where these end: of less than four tiles, if 16
 * threads have one each. */
static int takes_whole_runs(const xent_positions *p)
{
    return p->inner >= LINE_COLUMNS && p->inner <= 4 * TILE && p->count / p->inner >= 16;
}

static ptrdiff_t positions_of_chunk(const xent_positions *p, ptrdiff_t size)
{
    const ptrdiff_t chunk = XENT_CHUNK / xent_max(p->classes, 1);
    if (xent_few_columns(p, size)) return chunk_of_few(p, chunk);
    if (takes_whole_runs(p)) return xent_max(chunk / p->inner, 1) * p->inner;
    if (chunk >= TILE) return chunk / TILE * TILE;
    return p->inner > 1 ? tile_of_columns(p->count) : xent_max(chunk, 1);
}

/* More could not be addressed, by any sum below; an array of so many is one whose elements are the same. */
#define MOST_CLASSES (PTRDIFF_MAX / (TILE * 8 * (ptrdiff_t)sizeof(double)) - ROW_PADDING)

/* The numbers of tiles of transformed logits: in each array a line at least. */
static ptrdiff_t transformed_room(const xent_positions *p, ptrdiff_t size)
{
    const ptrdiff_t arrays = xent_transformed_arrays(p),
                    line = p->classes * (p->inner > 1 ? TRANSFORMED_COLUMNS : 1) + ROW_PADDING;
    if (xent_few_columns(p, size)) return arrays * xent_rows_at_once(p, arrays, size) * xent_row_room(p->classes);
    return arrays * xent_max(line, TRANSFORMED_BYTES / size);
}

/* The exponentials of long rows, or columns, that a thread keeps; 0 where that would not pay. Columns gain in any case:
 * they are looked at once. */
static ptrdiff_t exps_room(const xent_positions *p, ptrdiff_t size, int exps)
{
    const int columns = p->inner > 1;
    const ptrdiff_t all = p->classes * TILE * (p->keeps_logits ? 2 : 1);
    const ptrdiff_t room = columns ? xent_min(all, MOST_EXPS_BYTES / size) : p->classes + ROW_PADDING;
    if (exps == XENT_NO_EXPS || exps >= XENT_ROW_SUMS || (exps == XENT_SUMMED_EXPS && !columns)) return 0;
    return room * size > EXPS_BYTES && room * size <= (columns ? MOST_EXPS_BYTES : MOST_ROW_BYTES) ? room : 0;
}

/* The scratch of what is not transformed: rows of few columns, or exponentials. */
static ptrdiff_t plain_room(const xent_positions *p, ptrdiff_t size)
{
    const ptrdiff_t arrays = xent_row_arrays(p, size);
    if (!arrays) return exps_room(p, size, p->exps);
    return arrays * xent_rows_at_once(p, arrays, size) * xent_row_room(p->classes);
}

/* Lanes are positions of rows up to this length, or less (SHORT_ROW of tile.h). */
#define SHORTEST_LINE (TRANSPOSED_BYTES / (ptrdiff_t)sizeof(float) / LINE_COLUMNS)

/* Behind the arrays of a tile lie those of a line: a row, or as many positions as a vector has. */
static void add_lines(xent_positions *p, ptrdiff_t size, xent_plan *plan)
{
    const int rows = p->inner == 1 ? p->classes > SHORTEST_LINE : xent_few_columns(p, size);
    const ptrdiff_t width = rows ? 1 : XENT_MOST_LANES;
    p->line_room = p->classes * width + XENT_MOST_LANES;
    p->lines_at = xent_ceil_div(plan->scratch_size, CACHE_LINE) * CACHE_LINE;
    plan->scratch_size = p->lines_at + CURVED_ARRAYS * p->line_room * (ptrdiff_t)sizeof(double);
}

xent_plan xent_plan_positions(xent_positions *p, int dtype, int exps)
{
    const ptrdiff_t size = xent_real_size(dtype);
    p->exps = exps, p->chunk = positions_of_chunk(p, size);
    if (p->classes > MOST_CLASSES) return (xent_plan){.scratch_size = -1};
    p->room = p->transformed ? transformed_room(p, size) : plain_room(p, size);
    /* in place, the lines that are written are in the caches already */
    p->streams =
        p->out.data && p->out.data != p->x.data && p->count * p->classes >= STREAMED_BYTES / xent_stored_size(dtype);
    xent_plan plan = {.chunks = xent_ceil_div(p->count, p->chunk), .scratch_size = p->room * size};
    if (p->curved) add_lines(p, size, &plan);
    return plan;
}

/* Floats are worked on as doubles, of which there are copies beside the floats. */
xent_plan xent_plan_product(xent_positions *p, int dtype)
{
    xent_plan plan = xent_plan_positions(p, XENT_F64, XENT_REUSED_EXPS);
    if (dtype == XENT_F64 || plan.scratch_size < 0) return plan;
    p->copies_at = xent_ceil_div(plan.scratch_size, CACHE_LINE) * CACHE_LINE, p->streams = 0;
    const ptrdiff_t copies = 4 * (ptrdiff_t)sizeof(double) + (ptrdiff_t)sizeof(float);
    plan.scratch_size =
        p->copies_at + p->room / xent_transformed_arrays(p) * copies + ROW_PADDING * (ptrdiff_t)sizeof(double);
    return plan;
}

/* The scratch is cut into PAIR_ARRAYS, each of the size `room`. */
static xent_plan plan_pair(xent_positions *p, int dtype)
{
    const ptrdiff_t size = xent_real_size(dtype);
    p->exps = XENT_REUSED_EXPS, p->chunk = positions_of_chunk(p, size);
    if (p->classes > MOST_CLASSES) return (xent_plan){.scratch_size = -1};
    const ptrdiff_t line = p->inner > 1 ? p->classes * LINE_COLUMNS : p->classes + ROW_PADDING;
    p->room = xent_few_columns(p, size) ? xent_rows_at_once(p, PAIR_ARRAYS, size) * xent_row_room(p->classes)
                                        : xent_max(line, PAIR_NUMBERS);
    return (xent_plan){.chunks = xent_ceil_div(p->count, p->chunk), .scratch_size = PAIR_ARRAYS * p->room * size};
}

xent_plan xent_plan_distillation(xent_distillation_args *a, int dtype) { return plan_pair(&a->positions, dtype); }
xent_plan xent_plan_comparison(xent_comparison_args *a, int dtype) { return plan_pair(&a->positions, dtype); }

/* Behind the room of a row's exponentials lie the entries of a position, and indices. */
xent_plan xent_plan_sparse_distillation(xent_sparse_distillation_args *a, int dtype)
{
    xent_positions *p = &a->positions;
    const int alone = a->rule == XENT_RENORMALIZE;
    if (alone) p->transformed = 0;
    xent_plan plan = xent_plan_positions(p, dtype,
                                         alone         ? XENT_NO_EXPS
                                         : p->out.data ? XENT_REUSED_EXPS
                                                       : XENT_SUMMED_EXPS);
    if (plan.scratch_size < 0) return plan;
    const ptrdiff_t blocks = xent_ceil_div(p->classes, BLOCK), entries = xent_sparse_entries(a->k);
    a->entries_at = xent_ceil_div(plan.scratch_size, CACHE_LINE) * CACHE_LINE;
    plan.scratch_size = a->entries_at + entries * SPARSE_NUMBERS * (ptrdiff_t)sizeof(double) +
                        (entries * SPARSE_INDICES + blocks + 1) * (ptrdiff_t)sizeof(ptrdiff_t);
    return plan;
}
