/* depthwise.h: convolutions of many groups of one input channel through 3 x 3 taps, one plane at a time.
 *
 * Lanes are pixels of a row. The rows that a tile sees are copied to a patch that stays in the nearest cache, sorted by
 * phase where the stride is 2, with zeros between them for the padding. A block of sums of a few rows goes along them: a
 * vector of the patch is loaded once for all the outputs of the block that see it, and the weights stay in registers.
 * Nothing is transposed, as it is where groups are lanes (grouped.h), and a term costs 0.5 to 0.75 loads there 1; rows
 * that are much shorter than a vector are better there.
 *
 * Small planes that keep their size are not copied at all: a vector has a row or two as they lie, and lanes that would be
 * on the padding are masked (xent_rows_across).
 *
 * The terms of an output are added in the order of the taps, as in all other ways.
 */
#include "begin.h"
#include "images/ends.h"
#include "images/grouped.h"
#include "images/layout.h"
#include "images/product.h"
#include "images/window.h"
#include "simd/stored.h"
#include "table.h"

#ifndef XENT_DEPTHWISE_H
#define XENT_DEPTHWISE_H

#ifndef STORED_AS_16
/* Rows of outputs whose sums are in registers at once: with nine weights and a vector of the patch they leave two of the 16
 * that AVX2 has. */
#define DEPTHWISE_ROWS 4

/* Rows of outputs of a plane. */
typedef struct {
    const T *patch; /* the first pixel of the first row */
    xent_lines lines;
    ptrdiff_t across; /* of a small plane, the rows of a vector; or 0 */
    ptrdiff_t columns;
    T weights[XENT_DEPTHWISE * XENT_DEPTHWISE];
    T bias;  /* -0, which changes nothing, where there is none */
    T least; /* of an output */
    T *out, *end;
    /* Of a small plane: the lanes of a vector that begins with row y - 1 that see the plane through a tap of a row. */
    VM inside[XENT_DEPTHWISE];
    VM seen[XENT_SMALL_PLANE + XENT_DEPTHWISE][XENT_DEPTHWISE];
} NAME(depthwise);

/* The masks of a small plane. */
static __attribute__((unused)) void NAME(see_plane)(const xent_window *w, NAME(depthwise) *d)
{
    const ptrdiff_t width = w->width,
                    lines = xent_ceil_div(w->height, d->across) * d->across + XENT_DEPTHWISE - d->across;
    T column[LANES];
    for (int k = 0, q = 0; k < LANES; k++, q = q + 1 < width ? q + 1 : 0) column[k] = (T)q;
    const V columns = v_load(column);
    VM *inside = d->inside;
    inside[0] = m_gt(columns, (V){0}), inside[1] = NAME(first)(LANES),
    inside[2] = m_gt(NAME(set)((T)(width - 1)), columns);
    for (ptrdiff_t k = 0; k < lines; k++) {
        const ptrdiff_t y = k - 1, n = xent_max(0, xent_min(d->across, w->height - y));
        const VM rows = (VM)(NAME(first)(n * width) & ~NAME(first)(y < 0 ? width : 0));
        for (int j = 0; j < XENT_DEPTHWISE; j++) d->seen[k][j] = (VM)(inside[j] & rows);
    }
}

/* What a vector of a small plane sees through tap `j` of a row. A load that crosses a line of the cache takes twice its
 * time, so lanes are moved where that is one instruction. */
ALWAYS_INLINE V NAME(see)(const NAME(depthwise) *d, const T *line, const VM *seen, int j)
{
#if XENT_TURNS
    const V here = v_load_where(line + 1, seen[1]); /* once for all taps */
    return j == 0 ? v_before(here, d->inside[0]) : j == 1 ? here : v_after(here, d->inside[2]);
#else
    (void)d;
    return v_load_where(line + j, seen[j]);
#endif
}

/* `rows` of them, from row `first` on; where they are shorter than a vector, the next one is written, too, before its own
 * sums are. Of a small plane, a row is one or two that lie side by side, and the next sees what is `stride` rows below.
 * `rows`, `stride` and `small` are constants at every call. */
ALWAYS_INLINE void NAME(depthwise_rows)(const NAME(depthwise) *d, ptrdiff_t first, int rows, int stride, int small)
{
    const ptrdiff_t columns = d->columns, pitch = d->lines.pitch, last = xent_max(0, columns - LANES),
                    run = small ? columns * stride : columns;
    const ptrdiff_t at[] = {d->lines.at[0], d->lines.at[1], d->lines.at[2]};
    const T *end = d->end;
    const V bias = NAME(set)(d->bias), least = NAME(set)(d->least);
    const T *x = d->patch + first * stride * pitch;
    T *out = d->out + first * run;
    V weights[XENT_DEPTHWISE * XENT_DEPTHWISE];
    UNROLL
    for (int k = 0; k < XENT_DEPTHWISE * XENT_DEPTHWISE; k++) weights[k] = NAME(set)(d->weights[k]);
    for (ptrdiff_t q = 0; q < columns; q += LANES) {
        const ptrdiff_t here = xent_min(q, last); /* the last vector may overlap */
        const T *line = x + here;
        const VM(*seen)[XENT_DEPTHWISE] = d->seen + (small ? first * stride : 0);
        V sum[DEPTHWISE_ROWS];
        UNROLL
        for (int r = 0; r < rows; r++) sum[r] = (V){0};
        UNROLL
        for (int y = 0; y < (rows - 1) * stride + XENT_DEPTHWISE; y++, line += pitch, seen++) {
            UNROLL
            for (int j = 0; j < XENT_DEPTHWISE; j++) {
                V v = small ? NAME(see)(d, line, *seen, j) : v_load(line + (stride == 1 ? at[0] + j : at[j]));
                v_keep(v);
                UNROLL
                for (int r = 0; r < rows; r++) {
                    const int i = y - r * stride;
                    if (i >= 0 && i < XENT_DEPTHWISE) sum[r] = v_fma(weights[i * XENT_DEPTHWISE + j], v, sum[r]);
                }
            }
        }
        UNROLL
        for (int r = 0; r < rows; r++) {
            T *to = out + r * run + here;
            NAME(store)(to, v_max(least, sum[r] + bias), end - to); /* NaN stays */
        }
    }
}

/* All rows, in blocks of nearly equal height. Not inlined: with what goes on around it, it would lack registers. */
static __attribute__((noinline, unused)) void NAME(depthwise_outputs)(const NAME(depthwise) *d, ptrdiff_t rows,
                                                                      ptrdiff_t stride, int small)
{
    const ptrdiff_t blocks = xent_ceil_div(rows, DEPTHWISE_ROWS), height = rows / blocks,
                    taller = rows - height * blocks;
    for (ptrdiff_t b = 0, first = 0, n; b < blocks; b++, first += n) {
        n = height + (b < taller);
        switch ((n * 2 + stride - 1) * 2 + small) {
#define CASE(rows, stride, small)                                                                                      \
    case ((rows) * 2 + (stride) - 1) * 2 + (small): NAME(depthwise_rows)(d, first, rows, stride, small); break;
            /* clang-format off */
            CASE(1, 1, 0) CASE(2, 1, 0) CASE(3, 1, 0) CASE(4, 1, 0)
            CASE(1, 2, 0) CASE(2, 2, 0) CASE(3, 2, 0) CASE(4, 2, 0)
            CASE(1, 1, 1) CASE(2, 1, 1) CASE(3, 1, 1) CASE(4, 1, 1)
            CASE(1, 2, 1) CASE(2, 2, 1) CASE(3, 2, 1) CASE(4, 2, 1)
            /* clang-format on */
#undef CASE
        }
    }
}

ALWAYS_INLINE void NAME(store_phases)(T *line, ptrdiff_t phase, V low, V high)
{
    v_store(line, v_evens(low, high));
    v_store(line + phase, v_odds(low, high));
}
#endif

/* What is left of a row, n numbers, less than a vector: those of the mask, 0 behind. None from `end` on is read. */
ALWAYS_INLINE V KERNEL(load_rest)(const S *p, ptrdiff_t n, VM rest, const S *end)
{
#ifdef STORED_AS_16
    return end - p >= LANES ? v_select(rest, KERNEL(v_load)(p), (V){0}) : KERNEL(load)(p, n, (V){0});
#else
    (void)n, (void)end;
    return v_load_where(p, rest);
#endif
}

/* Rows of pixels to lines of the patch, with zeros up to whole vectors. `stride` is a constant at every call. */
ALWAYS_INLINE void KERNEL(fill_inside)(const xent_lines *l, T *line, const S *row, ptrdiff_t rows, ptrdiff_t width,
                                       VM rest, const S *end, int stride)
{
    const V zero = {0};
    const ptrdiff_t whole = width / LANES * LANES, pitch = l->pitch, phase = l->phase;
    for (; rows > 0; rows--, row += width, line += pitch) {
        T *to = line;
        ptrdiff_t x = 0;
        for (; x + stride * LANES <= whole; x += stride * LANES, to += LANES) {
            const V low = KERNEL(load)(row + x, LANES, zero);
            if (stride == 1)
                v_store(to, low);
            else
                NAME(store_phases)(to, phase, low, KERNEL(load)(row + x + LANES, LANES, zero));
        }
        if (x == width) continue;
        const V last = whole < width ? KERNEL(load_rest)(row + whole, width - whole, rest, end) : zero;
        if (stride == 1)
            v_store(to, last);
        else if (x < whole)
            NAME(store_phases)(to, phase, KERNEL(load)(row + x, LANES, zero), last);
        else
            NAME(store_phases)(to, phase, last, zero);
    }
}

/* What outputs [rows) see of a plane. */
static void KERNEL(fill_lines)(const xent_conv_args *a, const xent_lines *l, xent_span rows, const S *plane, VM rest,
                               T *patch)
{
    const xent_window *w = &a->window;
    const S *end = (const S *)a->x + a->images * a->groups * w->height * w->width;
    const ptrdiff_t first = rows.begin * w->stride_h - w->top, all = (rows.n - 1) * w->stride_h + XENT_DEPTHWISE;
    const ptrdiff_t above = xent_min(all, xent_max(0, -first)),
                    n = xent_max(0, xent_min(w->height - first, all) - above);
    const S *row = plane + (first + above) * w->width;
    T *line = patch + above * l->pitch;
    NAME(clear)(patch, above * l->pitch / LANES);
    NAME(clear)(line + n * l->pitch, (all - above - n) * l->pitch / LANES);
    if (w->stride_w == 1)
        KERNEL(fill_inside)(l, line, row, n, w->width, rest, end, 1);
    else
        KERNEL(fill_inside)(l, line, row, n, w->width, rest, end, 2);
}

ALWAYS_INLINE void KERNEL(take_weights)(const xent_conv_args *a, ptrdiff_t group, ptrdiff_t o, T *weights)
{
    const S *weight = (const S *)a->weight + a->weight_first + group * a->weight_group + o * a->weight_out;
    /* numbers of 16 bits are converted faster together, others read from memory */
    if (sizeof(S) < sizeof(T) && a->weight_j == 1 && a->weight_i == XENT_DEPTHWISE) {
        KERNEL(take)(weights, weight, XENT_DEPTHWISE * XENT_DEPTHWISE, 1);
        return;
    }
    for (ptrdiff_t i = 0; i < XENT_DEPTHWISE; i++)
        for (ptrdiff_t j = 0; j < XENT_DEPTHWISE; j++)
            *weights++ = KERNEL(get)(weight + i * a->weight_i + j * a->weight_j);
}

/* A tile of rows of a plane, (image, group, tile), the last fastest. */
typedef struct {
    ptrdiff_t plane, group;
    xent_span rows;
} KERNEL(plane_tile);

ALWAYS_INLINE KERNEL(plane_tile) KERNEL(plane_tile_at)(const xent_conv_args *a, ptrdiff_t tiles, ptrdiff_t k)
{
    const ptrdiff_t plane = tiles == 1 ? k : k / tiles; /* a division takes its time */
    return (KERNEL(plane_tile)){
        .plane = plane, .group = plane % a->groups, .rows = xent_cut(a->window.out_h, a->tile_rows, k - plane * tiles)};
}

/* The outputs of a tile, of which the patch is filled. Numbers of 16 bits are made in `sums`. */
static void KERNEL(depthwise_tile)(const xent_conv_args *a, const KERNEL(plane_tile) *t, NAME(depthwise) *d, T *sums)
{
    const xent_window *w = &a->window;
    const int converts = sizeof(S) != sizeof(T);
    const ptrdiff_t pixels = t->rows.n * w->out_w;
    for (ptrdiff_t o = 0; o < a->out_channels; o++) {
        S *out = (S *)a->out + (t->plane * a->out_channels + o) * a->out_size + t->rows.begin * w->out_w;
        d->out = converts ? sums : (T *)out, d->end = d->out + pixels;
        d->bias = a->bias ? ((const T *)a->bias)[t->group * a->out_channels + o] : -(T)0;
        KERNEL(take_weights)(a, t->group, o, d->weights);
        if (d->across)
            NAME(depthwise_outputs)(d, xent_ceil_div(t->rows.n, d->across), d->across, 1);
        else
            NAME(depthwise_outputs)(d, t->rows.n, w->stride_w, 0);
        if (converts) KERNEL(put_run)(out, sums, pixels);
    }
}

/* The patch of a tile, from its first pixel on: filled; or a small plane, converted or as it lies, from the pixel on that
 * the first tap of the first output would see. */
ALWAYS_INLINE const T *KERNEL(plane_patch)(const xent_conv_args *a, const NAME(depthwise) *d,
                                           const KERNEL(plane_tile) *t, VM rest, int fill, T *patch)
{
    const xent_window *w = &a->window;
    const ptrdiff_t size = w->height * w->width;
    const S *plane = (const S *)a->x + t->plane * size;
    if (!d->across) {
        if (fill) KERNEL(fill_lines)(a, &d->lines, t->rows, plane, rest, patch);
        return patch;
    }
    if (sizeof(S) == sizeof(T)) return (const T *)plane - w->width - 1;
    if (fill) KERNEL(take)(patch, plane, size, 1);
    return patch - w->width - 1;
}

/* A chunk is some tiles. The patches of several small ones are filled before the first is read: what was just stored in
 * other pieces than it is loaded in would have to reach the cache first. */
static void KERNEL(conv2d_depthwise)(const xent_conv_args *a, ptrdiff_t chunk, void *scratch)
{
    const xent_window *w = &a->window;
    const ptrdiff_t tiles = xent_tiles(a) / a->images, room = a->patch_room / a->block_channels;
    const xent_span some = xent_cut(xent_tiles(a) * a->groups, a->tile_chunk, chunk);
    T *patch = (T *)scratch, *sums = patch + a->patch_room;
    NAME(depthwise) d;
    d.columns = w->out_w, d.least = a->relu ? 0 : -(T)INFINITY, d.across = xent_rows_across(w, LANES);
    const VM rest = NAME(first)(w->width % LANES);
    if (d.across) {
        d.lines = (xent_lines){.pitch = w->width};
        NAME(see_plane)(w, &d);
    } else {
        d.lines = xent_lines_of(w);
        memset(patch, 0, (size_t)(xent_min(some.n, a->block_channels) * room) * sizeof(T));
        patch += d.lines.before;
    }
    for (ptrdiff_t k = some.begin, n; k < some.begin + some.n; k += n) {
        n = xent_min(a->block_channels, some.begin + some.n - k);
        for (ptrdiff_t i = 0; i < n && (!d.across || sizeof(S) != sizeof(T)); i++) {
            const KERNEL(plane_tile) t = KERNEL(plane_tile_at)(a, tiles, k + i);
            KERNEL(plane_patch)(a, &d, &t, rest, 1, patch + i * room);
        }
        for (ptrdiff_t i = 0; i < n; i++) {
            const KERNEL(plane_tile) t = KERNEL(plane_tile_at)(a, tiles, k + i);
            d.patch = KERNEL(plane_patch)(a, &d, &t, rest, 0, patch + i * room);
            KERNEL(depthwise_tile)(a, &t, &d, sums);
        }
    }
}

#endif
