/* reorder.c: copies an array to one that lies otherwise in memory: with its axes in another order, such as images with
 * their channels last to (N, C, H, W), or back; or with other gaps, such as a part of an array to one of its own.
 *
 * Along one axis the numbers of the source are neighbours, along another those of the target. What these two span is a
 * matrix (row, column) in the source, whose columns are the rows of the target. Squares of 16 bytes a side are
 * transposed in registers, in tiles that read and write whole cache lines. Where it is the same axis, or in one of the
 * two there is none, runs are copied along the one that there is, and the longest of the others counts as the columns.
 * Other axes are a loop. The time is nearly that of the memory, so this is compiled once: the vectors have 16 bytes,
 * which every machine has.
 */
#include "base.h"
#include "table.h"

#include <stdint.h>
#include <string.h>

enum {
    VECTOR = 16, /* bytes */
    /* Of a chunk, which stays in a second-level cache until its lines are whole. Measured: with 64 KiB, images of 256
     * channels take up to twice the time. */
    CHUNK_BYTES = 256 * 1024,
    ENOUGH = 16, /* chunks to share among threads; for them it may be smaller, to an eighth of that */
};

/* ---- the layout of a call ---- */

typedef struct {
    ptrdiff_t size, source, target; /* numbers, and bytes between neighbours */
} axis;

/* The axes of more than one number. Two whose numbers lie evenly in both arrays count as one. */
static int find_axes(const xent_array *source, const xent_array *target, axis *axes)
{
    int n = 0;
    for (int k = 0; k < source->ndim; k++)
        if (source->shape[k] != 1) axes[n++] = (axis){source->shape[k], source->strides[k], target->strides[k]};
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++)
            if (i != k && axes[i].source == axes[k].size * axes[k].source &&
                axes[i].target == axes[k].size * axes[k].target) {
                axes[k].size *= axes[i].size;
                axes[i] = axes[--n];
                i = -1; /* from the beginning */
                break;
            }
    return n;
}

/* The longest axis but one; -1 where there is none. */
static int longest_but(const axis *axes, int n, int but)
{
    int longest = -1;
    for (int k = 0; k < n; k++)
        if (k != but && (longest < 0 || axes[k].size > axes[longest].size)) longest = k;
    return longest;
}

int xent_see_order(xent_reorder_args *a, const xent_array *source, const xent_array *target)
{
    const ptrdiff_t size = source->itemsize;
    axis axes[XENT_MOST_AXES];
    int row = -1, column = -1, outer = 0;
    if (source->ndim > XENT_MOST_AXES || (size != 2 && size != 4 && size != 8)) return 0;
    const int n = find_axes(source, target, axes);
    for (int k = 0; k < n; k++) {
        if (axes[k].source == size) column = k;
        if (axes[k].target == size) row = k;
    }
    if ((row < 0 && column < 0) || n > 2 + XENT_OUTER_AXES) return 0;
    const int runs = row < 0 || column < 0 || row == column;
    if (runs) row = row < 0 ? column : row, column = longest_but(axes, n, row);
    *a = (xent_reorder_args){.itemsize = size,
                             .runs = runs,
                             .source = source->data,
                             .target = target->data,
                             .rows = axes[row].size,
                             .columns = column < 0 ? 1 : axes[column].size,
                             .source_row = axes[row].source,
                             .target_row = axes[row].target,
                             .source_column = column < 0 ? 0 : axes[column].source,
                             .target_column = column < 0 ? 0 : axes[column].target,
                             .count = {1, 1}};
    a->end = (const char *)source->data + size;
    for (int k = 0; k < n; k++) {
        a->end += xent_max(axes[k].source, 0) * (axes[k].size - 1);
        if (k == row || k == column) continue;
        a->count[outer] = axes[k].size;
        a->source_outer[outer] = axes[k].source, a->target_outer[outer++] = axes[k].target;
    }
    return 1;
}

xent_plan xent_plan_reorder(xent_reorder_args *a)
{
    const ptrdiff_t matrices = a->count[0] * a->count[1], line = CACHE_LINE / a->itemsize;
    const ptrdiff_t shorter = xent_min(a->rows, a->columns), longer = xent_max(a->rows, a->columns);
    const ptrdiff_t most = CHUNK_BYTES / a->itemsize, share = matrices * a->rows * a->columns / ENOUGH;
    const ptrdiff_t numbers = xent_min(most, xent_max(share, most / 8));
    const ptrdiff_t piece = xent_min(longer, xent_ceil_div(xent_max(numbers / shorter, 1), line) * line);
    a->longer_rows = a->rows > a->columns;
    a->chunk_rows = a->longer_rows ? piece : a->rows;
    a->chunk_columns = a->longer_rows ? a->columns : piece;
    a->chunk_matrices = piece < longer ? 1 : xent_min(matrices, xent_max(1, numbers / (shorter * longer)));
    return (xent_plan){.chunks = xent_ceil_div(matrices, a->chunk_matrices) * xent_ceil_div(longer, piece)};
}

/* ---- a tile of numbers of some type ---- */

/* P numbers make a vector. FIRST and LAST put the first and the last halves of two vectors together, number by number:
 * done to vectors i and i + P / 2, log2(P) times, that transposes a square. The last squares of a side may overlap
 * those before; fewer columns than a vector has are read with what lies behind them, up to the end of the array. */
#define TILE(T, P, FIRST, LAST)                                                                                        \
    typedef T vec_##T __attribute__((vector_size(VECTOR)));                                                            \
    typedef T any_##T __attribute__((may_alias));                                                                      \
                                                                                                                       \
    ALWAYS_INLINE void square_##T(const char *from, ptrdiff_t from_step, char *to, ptrdiff_t to_step, ptrdiff_t n)     \
    {                                                                                                                  \
        vec_##T v[P], w[P];                                                                                            \
        for (int i = 0; i < P; i++) memcpy(&v[i], from + i * from_step, VECTOR);                                       \
        for (int stage = 1; stage < P; stage *= 2) {                                                                   \
            for (int i = 0; i < P / 2; i++) {                                                                          \
                const vec_##T a = v[i], b = v[i + P / 2];                                                              \
                w[2 * i] = (vec_##T)FIRST, w[2 * i + 1] = (vec_##T)LAST;                                               \
            }                                                                                                          \
            memcpy(v, w, sizeof(v));                                                                                   \
        }                                                                                                              \
        for (int i = 0; i < P; i++)                                                                                    \
            if (i < n) memcpy(to + i * to_step, &v[i], VECTOR);                                                        \
    }                                                                                                                  \
                                                                                                                       \
    static void tile_##T(const char *from, ptrdiff_t from_step, char *to, ptrdiff_t to_step, ptrdiff_t rows,           \
                         ptrdiff_t columns, const char *end)                                                           \
    {                                                                                                                  \
        const char *last = from_step > 0 ? from + (rows - 1) * from_step : from;                                       \
        if (rows >= P && (columns >= P || last + VECTOR <= end)) {                                                     \
            for (ptrdiff_t c = 0; c < columns; c += P) {                                                               \
                const ptrdiff_t column = columns < P ? 0 : xent_min(c, columns - P);                                   \
                for (ptrdiff_t r = 0; r < rows; r += P) {                                                              \
                    const ptrdiff_t row = xent_min(r, rows - P), size = sizeof(T);                                     \
                    square_##T(from + row * from_step + column * size, from_step, to + column * to_step + row * size,  \
                               to_step, columns);                                                                      \
                }                                                                                                      \
            }                                                                                                          \
            return;                                                                                                    \
        }                                                                                                              \
        for (ptrdiff_t c = 0; c < columns; c++)                                                                        \
            for (ptrdiff_t r = 0; r < rows; r++)                                                                       \
                ((any_##T *)(to + c * to_step))[r] = ((const any_##T *)(from + r * from_step))[c];                     \
    }

#define FIRST_8 {a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]}
#define LAST_8 {a[4], b[4], a[5], b[5], a[6], b[6], a[7], b[7]}
#define FIRST_4 {a[0], b[0], a[1], b[1]}
#define LAST_4 {a[2], b[2], a[3], b[3]}
#define FIRST_2 {a[0], b[0]}
#define LAST_2 {a[1], b[1]}
TILE(uint16_t, 8, FIRST_8, LAST_8)
TILE(uint32_t, 4, FIRST_4, LAST_4)
TILE(uint64_t, 2, FIRST_2, LAST_2)

/* ---- runs ---- */

/* Neighbours to neighbours. A call of memcpy takes longer than a few of them do, which are pieces that may overlap. */
ALWAYS_INLINE void copy_neighbours(const char *from, char *to, ptrdiff_t bytes)
{
#define PIECE(at, bytes) memcpy(to + (at), from + (at), bytes)
    if (bytes > 4 * VECTOR) {
        memcpy(to, from, (size_t)bytes);
    } else if (bytes >= VECTOR) {
        for (ptrdiff_t i = 0; i < bytes - VECTOR; i += VECTOR) PIECE(i, VECTOR);
        PIECE(bytes - VECTOR, VECTOR);
    } else if (bytes >= 8) {
        PIECE(0, 8), PIECE(bytes - 8, 8);
    } else if (bytes >= 4) {
        PIECE(0, 4), PIECE(bytes - 4, 4);
    } else {
        PIECE(0, 2);
    }
#undef PIECE
}

#define RUN(T)                                                                                                         \
    for (ptrdiff_t r = 0; r < rows; r++)                                                                               \
    *(any_##T *)(to + r * a->target_row) = *(const any_##T *)(from + r * a->source_row)

static void copy_runs(const xent_reorder_args *a, const char *from, char *to, ptrdiff_t rows, ptrdiff_t columns)
{
    const int neighbours = a->source_row == a->itemsize && a->target_row == a->itemsize;
    for (ptrdiff_t c = 0; c < columns; c++, from += a->source_column, to += a->target_column) {
        if (neighbours)
            copy_neighbours(from, to, rows * a->itemsize);
        else if (a->itemsize == 4)
            RUN(uint32_t);
        else if (a->itemsize == 8)
            RUN(uint64_t);
        else
            RUN(uint16_t);
    }
}
#undef RUN

/* ---- a chunk is a piece of a matrix, or several whole ones ---- */

static void reorder_tile(const xent_reorder_args *a, const char *from, char *to, ptrdiff_t rows, ptrdiff_t columns)
{
    if (a->itemsize == 4)
        tile_uint32_t(from, a->source_row, to, a->target_column, rows, columns, a->end);
    else if (a->itemsize == 8)
        tile_uint64_t(from, a->source_row, to, a->target_column, rows, columns, a->end);
    else
        tile_uint16_t(from, a->source_row, to, a->target_column, rows, columns, a->end);
}

/* Tiles follow each other along the longer side: so there is a run in each of a few rows or columns at a time. */
static void reorder_piece(const xent_reorder_args *a, const char *from, char *to, ptrdiff_t rows, ptrdiff_t columns)
{
    const ptrdiff_t size = a->itemsize, line = CACHE_LINE / size;
    const ptrdiff_t down = xent_ceil_div(rows, line), across = xent_ceil_div(columns, line);
    for (ptrdiff_t t = 0; t < down * across; t++) {
        const ptrdiff_t r = (a->longer_rows ? t % down : t / across) * line;
        const ptrdiff_t c = (a->longer_rows ? t / down : t % across) * line;
        reorder_tile(a, from + r * a->source_row + c * size, to + c * a->target_column + r * size,
                     xent_min(line, rows - r), xent_min(line, columns - c));
    }
}

void xent_reorder(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_reorder_args *a = (const xent_reorder_args *)args;
    const ptrdiff_t pieces = xent_ceil_div(a->rows, a->chunk_rows) * xent_ceil_div(a->columns, a->chunk_columns);
    const ptrdiff_t row = a->longer_rows ? chunk % pieces * a->chunk_rows : 0;
    const ptrdiff_t column = a->longer_rows ? 0 : chunk % pieces * a->chunk_columns;
    const ptrdiff_t first = chunk / pieces * a->chunk_matrices, matrices = a->count[0] * a->count[1];
    (void)scratch;
    for (ptrdiff_t m = first; m < xent_min(first + a->chunk_matrices, matrices); m++) {
        const ptrdiff_t i = m / a->count[1], k = m % a->count[1];
        (a->runs ? copy_runs : reorder_piece)(a,
                                              a->source + i * a->source_outer[0] + k * a->source_outer[1] +
                                                  row * a->source_row + column * a->source_column,
                                              a->target + i * a->target_outer[0] + k * a->target_outer[1] +
                                                  row * a->target_row + column * a->target_column,
                                              xent_min(a->chunk_rows, a->rows - row),
                                              xent_min(a->chunk_columns, a->columns - column));
    }
}
