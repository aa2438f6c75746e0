/* window.h: sliding windows over an image, one row of the im2col matrix at a time.
 *
 * Row (c, i, j) of the matrix holds, for every output pixel in C order, the input pixel that the kernel offset (i, j)
 * sees in channel c: for stride 1 a contiguous piece of an input row per output row, with zeros where it hangs over the
 * edge.
 */
#ifndef XENT_WINDOW_H
#define XENT_WINDOW_H

#include "base.h"
#include "plan.h"
#include "table.h"

#include <string.h>

/* How many of the numbers x0, x0 + stride, ... are below `limit`. */
ALWAYS_INLINE ptrdiff_t xent_count_below(ptrdiff_t x0, ptrdiff_t stride, ptrdiff_t limit)
{
    return x0 >= limit   ? 0
           : stride == 1 ? limit - x0
           : stride == 2 ? (ptrdiff_t)((size_t)(limit - x0 + 1) / 2)
                         : (limit - x0 + stride - 1) / stride; /* a division takes its time */
}

/* What kernel offset (i, j) sees: output (oh, ow) the input pixel (oh * stride_h + y, ow * stride_w + x), whose column
 * is inside the image for ow in [low, high). */
typedef struct {
    ptrdiff_t y, x, low, high;
} xent_view;

ALWAYS_INLINE xent_view xent_view_of(const xent_window *w, ptrdiff_t i, ptrdiff_t j)
{
    const ptrdiff_t y = i * w->dilation_h - w->top, x = j * w->dilation_w - w->left;
    return (xent_view){.y = y,
                       .x = x,
                       .low = xent_min(w->out_w, xent_count_below(x, w->stride_w, 0)),
                       .high = xent_min(w->out_w, xent_count_below(x, w->stride_w, w->width))};
}

/* The n pixels of an output row: those in [low, high) of them see the input, the first of these at `source`, the next
 * ones `stride_w` apart. */
typedef struct {
    ptrdiff_t n, low, high, source;
} xent_piece;

ALWAYS_INLINE xent_piece xent_piece_at(const xent_window *w, const xent_view *v, ptrdiff_t oh)
{
    const ptrdiff_t y = oh * w->stride_h + v->y;
    if (y < 0 || y >= w->height) return (xent_piece){w->out_w, 0, 0, 0};
    return (xent_piece){w->out_w, v->low, v->high, y * w->width + v->low * w->stride_w + v->x};
}

/* The kernel offsets that are inside [0, size) for a window that starts at `start`, along one axis: from first to
 * end. */
ALWAYS_INLINE ptrdiff_t xent_first_inside(ptrdiff_t start, ptrdiff_t step) { return xent_count_below(start, step, 0); }
ALWAYS_INLINE ptrdiff_t xent_end_inside(ptrdiff_t start, ptrdiff_t step, ptrdiff_t size, ptrdiff_t kernel)
{
    if (start + (kernel - 1) * step < size) return kernel; /* as most do: no division */
    return xent_min(kernel, xent_count_below(start, step, size));
}

/* The number of cells in the divisor of an average, along one axis: as PyTorch, padding counts if count_include_pad
 * says so, what lies beyond the padding (ceil_mode) never does. */
ALWAYS_INLINE ptrdiff_t xent_pool_extent(ptrdiff_t start, ptrdiff_t kernel, ptrdiff_t size, ptrdiff_t padding_after,
                                         int include)
{
    const ptrdiff_t end = xent_min(start + kernel, size + padding_after);
    return include ? end - start : xent_min(end, size) - xent_max(start, 0);
}

/* Floor of a / b, for b > 0. */
ALWAYS_INLINE ptrdiff_t xent_floor_div(ptrdiff_t a, ptrdiff_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

ALWAYS_INLINE ptrdiff_t xent_common_divisor(ptrdiff_t a, ptrdiff_t b)
{
    while (b) {
        const ptrdiff_t rest = a % b;
        a = b, b = rest;
    }
    return a;
}

/* The n output rows oh, oh + step, ... that see an input row: the first through row i of the kernel, the next ones
 * `fall` rows higher each. As input rows follow each other, this moves on without a division. */
typedef struct {
    ptrdiff_t oh, n, step, i, fall;
    ptrdiff_t bottom;    /* the input row, counted from the top of the padding: oh stride + i dilation */
    ptrdiff_t low, last; /* all output rows that begin above it, or there, and do not end above */
} xent_reach;

/* Before the first input row. */
ALWAYS_INLINE xent_reach xent_reach_above(const xent_window *w)
{
    const ptrdiff_t step = w->dilation_h / xent_common_divisor(w->stride_h, w->dilation_h);
    return (xent_reach){
        .step = step, .fall = step * w->stride_h / w->dilation_h, .bottom = w->top - 1, .last = -1, .n = -1};
}

ALWAYS_INLINE void xent_reach_next(xent_reach *r, const xent_window *w)
{
    const ptrdiff_t stride = w->stride_h, dilation = w->dilation_h;
    r->bottom++;
    while (r->last + 1 < w->out_h && (r->last + 1) * stride <= r->bottom) r->last++;
    while (r->low * stride + (w->kernel_h - 1) * dilation < r->bottom) r->low++;
    r->oh = r->low;
    if (dilation > 1)
        while (r->oh <= r->last && (r->bottom - r->oh * stride) % dilation) r->oh++;
    r->i = r->bottom - r->oh * stride, r->n = xent_max(0, r->last - r->oh + 1);
    if (dilation > 1) r->i /= dilation, r->n = xent_ceil_div(r->n, r->step);
}

/* Where an output row is kept (pools/pool_backward.h): gradients, followed by places. */
ALWAYS_INLINE ptrdiff_t xent_kept_at(const xent_pool_args *a, ptrdiff_t oh)
{
    return (oh & (a->ring - 1)) * 2 * a->span; /* the ring is a power of two: a division takes its time */
}

/* Two numbers that follow each other, by one load where that is how memory keeps them. */
typedef struct {
    int32_t first, second;
} xent_two;
ALWAYS_INLINE xent_two xent_two_of(const int32_t *p)
{
#if defined __BYTE_ORDER__ && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    int64_t both;
    memcpy(&both, p, sizeof both);
    return (xent_two){(int32_t)both, (int32_t)(both >> 32)};
#else
    return (xent_two){p[0], p[1]};
#endif
}

/* Depthwise convolutions (depthwise.h): the taps of a row and of a column, and how a row of the image lies in scratch: by
 * phase of the stride, 1 or 2, with zeros before and behind, which rows share, where outputs see the padding. */
enum { XENT_DEPTHWISE = 3 };

typedef struct {
    ptrdiff_t at[XENT_DEPTHWISE];   /* where output 0 finds each tap, from the first pixel of its row on */
    ptrdiff_t before, phase, pitch; /* zeros before the first row; from phase to phase, and from row to row */
} xent_lines;

ALWAYS_INLINE xent_lines xent_lines_of(const xent_window *w)
{
    const ptrdiff_t stride = w->stride_w, lanes = XENT_MOST_LANES;
    const ptrdiff_t before = xent_max(0, xent_ceil_div(w->left, stride));
    ptrdiff_t zeros = before, shift[XENT_DEPTHWISE], residue[XENT_DEPTHWISE];
    for (int j = 0; j < XENT_DEPTHWISE; j++) {
        shift[j] = xent_floor_div(j - w->left, stride), residue[j] = j - w->left - shift[j] * stride;
        zeros = xent_max(zeros, w->out_w + shift[j] - xent_count_below(residue[j], stride, w->width));
    }
    xent_lines l = {.before = xent_ceil_div(before, lanes) * lanes};
    l.phase = xent_ceil_div(xent_ceil_div(w->width, stride) + zeros, lanes) * lanes;
    l.pitch = stride * l.phase;
    for (int j = 0; j < XENT_DEPTHWISE; j++) l.at[j] = residue[j] * l.phase + shift[j];
    return l;
}

/* Rows of a small plane that a vector has side by side, where it is read as it lies (depthwise.h), or 0: where outputs are
 * pixels, what a tap sees of a run of rows is a run, too, but for the ends of the rows, and these are masked. At least
 * three quarters of the lanes must be of use: with less, groups as lanes are as fast. Two rows at most, or outputs of
 * neighbouring vectors would see no row in common. Short vectors have masked loads of their own only with AVX. */
enum { XENT_SMALL_PLANE = 16 }; /* rows at most: there is a mask for each */

ALWAYS_INLINE ptrdiff_t xent_rows_across(const xent_window *w, ptrdiff_t lanes)
{
    if (w->stride_h != 1 || w->stride_w != 1 || w->top != 1 || w->left != 1 || w->out_h != w->height ||
        w->out_w != w->width || w->height > XENT_SMALL_PLANE || w->width > lanes || lanes < 8)
        return 0;
    const ptrdiff_t rows = 2 * w->width <= lanes ? 2 : 1;
    return 4 * rows * w->width >= 3 * lanes ? rows : 0;
}

/* Bytes from one plane, and from one row, to the next. */
typedef struct {
    ptrdiff_t plane, row;
} xent_steps;

/* Copy rows of some planes: a row in pieces of a size, of which the last may overlap the one before. `piece` is a
 * constant, and so is `pieces`, 0 for many. */
ALWAYS_INLINE void xent_copy_pieces(char *restrict to, xent_steps to_step, const char *restrict from,
                                    xent_steps from_step, ptrdiff_t planes, ptrdiff_t rows, ptrdiff_t bytes,
                                    ptrdiff_t piece, int pieces)
{
    const ptrdiff_t last = bytes - piece;
    for (; planes > 0; planes--, to += to_step.plane, from += from_step.plane) {
        const char *source = from;
        char *target = to;
        for (ptrdiff_t n = rows; n > 0; n--, target += to_step.row, source += from_step.row) {
            for (ptrdiff_t k = 0; k < last && !pieces; k += piece) memcpy(target + k, source + k, (size_t)piece);
            if (pieces == 2) memcpy(target, source, (size_t)piece);
            memcpy(target + last, source + last, (size_t)piece);
        }
    }
}
#define XENT_COPY(piece)                                                                                               \
    if (bytes == (piece))                                                                                              \
        xent_copy_pieces(to, to_step, from, from_step, planes, rows, bytes, piece, 1);                                 \
    else if (bytes >= (piece))                                                                                         \
        xent_copy_pieces(to, to_step, from, from_step, planes, rows, bytes, piece, 2);
static __attribute__((unused)) void xent_copy_rows(void *to, xent_steps to_step, const void *from, xent_steps from_step,
                                                   ptrdiff_t planes, ptrdiff_t rows, ptrdiff_t bytes)
{
    if (bytes > 64)
        xent_copy_pieces(to, to_step, from, from_step, planes, rows, bytes, 32, 0);
    else
        XENT_COPY(32)
    else XENT_COPY(16) else XENT_COPY(8) else XENT_COPY(4) else XENT_COPY(2)
}
#undef XENT_COPY

#endif
