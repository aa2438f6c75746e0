/* grouped_backward.h: the gradient by the weights of many groups of few channels, with groups as lanes (grouped.h): the
 * sums of a block of taps stay in registers while they go through the outputs.
 *
 * Outputs that see nothing but padding through a block are left out, unless a gradient is infinite or NaN.
 */
#include "begin.h"
#include "images/grouped.h"
#include "images/product.h"
#include "table.h"

#ifndef XENT_GROUPED_BACKWARD_H
#define XENT_GROUPED_BACKWARD_H

#ifndef STORED_AS_16

/* Rows and columns of taps whose sums are in registers at once: with AVX2 there are 16. */
#define TAP_ROWS 3
#define TAP_COLUMNS 4

/* Sums of a block of groups, (output channel, channel, i, j, lane). */
typedef struct {
    T *sums, *total; /* of at most PARTIAL terms, or of one row; of all before */
    ptrdiff_t terms; /* of `sums` */
    ptrdiff_t steps; /* taps of an output channel, times channels */
} NAME(tap_sums);

/* Rows of outputs that are added up before they go to the total. */
ALWAYS_INLINE ptrdiff_t NAME(partial_rows)(const NAME(grouped) *g) { return xent_max(1, PARTIAL / g->columns.n); }

ALWAYS_INLINE void NAME(add_to_total)(T *total, T *sums)
{
    v_store(total, v_load(total) + v_load(sums));
    v_store(sums, (V){0});
}

/* Rows [from, to) of outputs, of `columns` each; `taps` are the first of a block of rows x across, which are constants
 * at every call. */
ALWAYS_INLINE void NAME(tap_rows)(const NAME(grouped) *g, const T *grad, const T *x, ptrdiff_t from, ptrdiff_t to,
                                  xent_span columns, V sum[TAP_ROWS][TAP_COLUMNS], int rows, int across)
{
    const xent_window *w = g->w;
    const ptrdiff_t pixel = w->stride_w * LANES, column = w->dilation_w * LANES, row = w->dilation_h * g->width * LANES;
    for (ptrdiff_t r = from; r < to; r++) {
        const T *up = grad + (r * g->columns.n + columns.begin) * LANES;
        const T *at = x + (r * w->stride_h * g->width + columns.begin * w->stride_w) * LANES;
        for (const T *end = up + columns.n * LANES; up < end; up += LANES, at += pixel) {
            const V factor = v_load(up);
            const T *tap = at;
            UNROLL
            for (int i = 0; i < rows; i++, tap += row) {
                UNROLL
                for (int j = 0; j < across; j++) sum[i][j] = v_fma(factor, v_load(tap + j * column), sum[i][j]);
            }
        }
    }
}

ALWAYS_INLINE void NAME(tap_block)(const NAME(grouped) *g, const T *grad, const T *x, xent_span seen, xent_span columns,
                                   T *sums, T *total, int rows, int across)
{
    const ptrdiff_t line = g->w->kernel_w * LANES, some = NAME(partial_rows)(g);
    V sum[TAP_ROWS][TAP_COLUMNS];
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < across; j++) sum[i][j] = v_load(sums + i * line + j * LANES);
    }
    for (ptrdiff_t r = 0; r < g->rows.n; r += some) {
        NAME(tap_rows)(g, grad, x, xent_max(r, seen.begin), xent_min(r + some, seen.begin + seen.n), columns, sum, rows,
                       across);
        if (r + some >= g->rows.n) break;
        UNROLL
        for (int i = 0; i < rows; i++) {
            UNROLL
            for (int j = 0; j < across; j++) {
                T *to = total + i * line + j * LANES;
                v_store(to, v_load(to) + sum[i][j]);
                sum[i][j] = (V){0};
            }
        }
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        UNROLL
        for (int j = 0; j < across; j++) v_store(sums + i * line + j * LANES, sum[i][j]);
    }
}

/* Add what a tile's outputs give to the sums of an output channel of each group. */
static void NAME(add_to_taps)(const NAME(grouped) *g, const T *grad, T *sums, T *total)
{
    const xent_window *w = g->w;
    const ptrdiff_t height = xent_ceil_div(w->kernel_h, xent_ceil_div(w->kernel_h, TAP_ROWS)),
                    width = xent_ceil_div(w->kernel_w, xent_ceil_div(w->kernel_w, TAP_COLUMNS));
    for (ptrdiff_t c = 0; c < g->channels; c++) {
        for (ptrdiff_t i = 0; i < w->kernel_h; i += height) {
            const ptrdiff_t rows = xent_min(height, w->kernel_h - i);
            const xent_span seen = g->all ? (xent_span){0, g->rows.n}
                                          : xent_outputs_inside(g->rows.begin, g->rows.n, i, rows, w->stride_h, w->top,
                                                                w->dilation_h, w->height);
            for (ptrdiff_t j = 0; j < w->kernel_w; j += width) {
                const ptrdiff_t across = xent_min(width, w->kernel_w - j);
                const xent_span columns = g->all ? (xent_span){0, g->columns.n}
                                                 : xent_outputs_inside(g->columns.begin, g->columns.n, j, across,
                                                                       w->stride_w, w->left, w->dilation_w, w->width);
                const ptrdiff_t at = ((c * w->kernel_h + i) * w->kernel_w + j) * LANES;
                const T *x = g->patch + ((c * g->height + i * w->dilation_h) * g->width + j * w->dilation_w) * LANES;
                switch (rows * TAP_COLUMNS + across - 1) {
#define CASE(r, a)                                                                                                     \
    case (r) * TAP_COLUMNS + (a) - 1: NAME(tap_block)(g, grad, x, seen, columns, sums + at, total + at, r, a); break;
                    /* clang-format off */
                    CASE(1, 1) CASE(1, 2) CASE(1, 3) CASE(1, 4)
                    CASE(2, 1) CASE(2, 2) CASE(2, 3) CASE(2, 4)
                    CASE(3, 1) CASE(3, 2) CASE(3, 3) CASE(3, 4)
                    /* clang-format on */
#undef CASE
                }
            }
        }
    }
}

/* Make room for the terms of a tile. */
static void NAME(begin_tile)(NAME(tap_sums) *s, const NAME(grouped) *g, ptrdiff_t channels)
{
    const ptrdiff_t rows = NAME(partial_rows)(g), parts = xent_ceil_div(g->rows.n, rows),
                    last = (g->rows.n - (parts - 1) * rows) * g->columns.n;
    if (s->terms + xent_min(rows, g->rows.n) * g->columns.n > PARTIAL) {
        for (ptrdiff_t k = 0; k < channels * s->steps; k++)
            NAME(add_to_total)(s->total + k * LANES, s->sums + k * LANES);
        s->terms = 0;
    }
    s->terms = parts > 1 ? last : s->terms + last;
}
#endif

/* Add a tile of LANES groups from `first` on. */
static void KERNEL(add_grouped_tile)(const xent_conv_args *a, ptrdiff_t tile, ptrdiff_t first, T *patch, T *grad,
                                     NAME(tap_sums) *s)
{
    const xent_window *w = &a->window;
    const ptrdiff_t image = xent_tile_at(a, tile).images.begin, size = w->out_h * w->out_w;
    NAME(grouped) g = NAME(grouped_at)(a, tile, patch);
    const ptrdiff_t pixels = g.rows.n * g.columns.n;
    NAME(begin_tile)(s, &g, a->out_channels);
    g.all = 1; /* of the patch */
    KERNEL(fill_grouped)(&g, (const S *)a->x + (image * a->groups + first) * a->in_channels * w->height * w->width);
    for (ptrdiff_t o = 0; o < a->out_channels; o++) {
        const S *source = (const S *)a->grad + ((image * a->groups + first) * a->out_channels + o) * size +
                          g.rows.begin * w->out_w + g.columns.begin;
        const int joined = g.columns.n == w->out_w;
        const ptrdiff_t runs = joined ? 1 : g.rows.n, run = pixels / runs;
        for (ptrdiff_t r = 0; r < runs; r++)
            KERNEL(pack)(source + r * w->out_w, a->out_channels * size, 1, run, LANES, LANES, grad + r * run * LANES,
                         LANES);
        g.all = !NAME(all_finite)(grad, pixels);
        NAME(add_to_taps)(&g, grad, s->sums + o * s->steps * LANES, s->total + o * s->steps * LANES);
    }
}

/* A chunk is (partial: some tiles; some blocks of groups), the last fastest. */
static void KERNEL(grouped_grad_weight)(const xent_conv_args *a, ptrdiff_t chunk, void *scratch)
{
    const ptrdiff_t all = xent_ceil_div(a->groups, LANES), several = xent_ceil_div(all, a->group_chunk);
    const xent_span blocks = xent_cut(all, a->group_chunk, chunk % several);
    const xent_span tiles = xent_cut(xent_tiles(a), a->tile_chunk, chunk / several);
    T *patch = (T *)scratch, *grad = patch + a->patch_room;
    NAME(tap_sums) s = {.sums = grad + a->packed_room,
                        .steps = a->in_channels * a->window.kernel_h * a->window.kernel_w};
    const ptrdiff_t sums = s.steps * a->out_channels;
    s.total = s.sums + sums * LANES;
    for (ptrdiff_t b = blocks.begin; b < blocks.begin + blocks.n; b++) {
        const ptrdiff_t first = NAME(first_group)(a, b), old = b * LANES - first;
        NAME(clear)(s.sums, 2 * sums);
        s.terms = 0;
        for (ptrdiff_t k = tiles.begin; k < tiles.begin + tiles.n; k++)
            KERNEL(add_grouped_tile)(a, k, first, patch, grad, &s);
        for (ptrdiff_t k = 0; k < sums; k++) NAME(add_to_total)(s.total + k * LANES, s.sums + k * LANES);
        for (ptrdiff_t o = 0; o < a->out_channels; o++) {
            const ptrdiff_t channel = (first + old) * a->out_channels + o, step = a->out_channels * s.steps;
            const T *from = s.total + o * s.steps * LANES + old;
            const ptrdiff_t at = channel * s.steps;
            if (xent_tiles(a) > a->tile_chunk) /* what is to be merged stays of the type computed with */
                NAME(unpack)(from, LANES, s.steps, LANES - old, (T *)a->out + chunk / several * a->groups * step + at,
                             step, 1, NULL, 0);
            else
                KERNEL(unpack)(from, LANES, s.steps, LANES - old, (S *)a->out + at, step, 1, NULL, 0);
        }
    }
}

#endif
