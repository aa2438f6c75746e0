/* grouped.h: convolutions of many groups of few channels, depthwise ones above all.
 *
 * Lanes are groups, so no lane is empty however few pixels there are, and strides and dilations cost nothing. A chunk
 * takes LANES groups of an image at a time; the last ones of all may overlap those before, and only the groups that are
 * new leave it. What a tile sees of them is transposed to a patch, (channel, row, column, lane); a block of neighbouring
 * outputs stays in registers while it goes through the taps; the sums are transposed back on their way to memory.
 *
 * Taps that see nothing but padding are left out, which changes no sum unless a weight is infinite or NaN: then all are
 * taken. Rows of a patch that lie outside of the image are filled for these weights only.
 */
#include "begin.h"
#include "images/ends.h"
#include "images/layout.h"
#include "images/product.h"
#include "images/window.h"
#include "table.h"

#ifndef XENT_GROUPED_H
#define XENT_GROUPED_H

#ifndef STORED_AS_16

/* Outputs of a row whose sums are in registers at once: eight keep two units of latency 4 busy. */
#define OUTPUTS 8

/* A tile of some groups of an image: its patch, and the weights of an output channel of each group. */
typedef struct {
    const xent_window *w;
    xent_span rows, columns; /* of the outputs */
    ptrdiff_t channels;      /* of a group */
    T *patch;
    const T *weights;        /* (channel, i, j, lane) */
    ptrdiff_t height, width; /* of the patch */
    int all;                 /* take taps on the padding, too */
} NAME(grouped);

ALWAYS_INLINE NAME(grouped) NAME(grouped_at)(const xent_conv_args *a, ptrdiff_t tile, T *patch)
{
    const xent_window *w = &a->window;
    const xent_tile t = xent_tile_at(a, tile);
    return (NAME(grouped)){.w = w,
                           .rows = t.rows,
                           .columns = t.columns,
                           .channels = a->in_channels,
                           .patch = patch,
                           .height = xent_seen(t.rows.n, w->kernel_h, w->stride_h, w->dilation_h),
                           .width = xent_seen(t.columns.n, w->kernel_w, w->stride_w, w->dilation_w)};
}

/* The sums of `outputs` neighbours, the first of which sees x through tap (0, 0), over the taps (i, j). `outputs` is a
 * constant at every call. */
ALWAYS_INLINE void NAME(grouped_block)(const NAME(grouped) *g, const T *x, xent_span i, xent_span j, V bias, int relu,
                                       T *sums, int outputs)
{
    const xent_window *w = g->w;
    const ptrdiff_t pixel = w->stride_w * LANES, column = w->dilation_w * LANES, row = w->dilation_h * g->width * LANES,
                    channel = g->height * g->width * LANES;
    V sum[OUTPUTS];
    UNROLL
    for (int r = 0; r < outputs; r++) sum[r] = (V){0};
    for (ptrdiff_t c = 0; c < g->channels; c++) {
        for (ptrdiff_t k = i.begin; k < i.begin + i.n; k++) {
            const T *weight = g->weights + ((c * w->kernel_h + k) * w->kernel_w + j.begin) * LANES;
            const T *at = x + c * channel + k * row + j.begin * column;
            for (const T *end = weight + j.n * LANES; weight < end; weight += LANES, at += column) {
                const T *high = at + 3 * pixel, *higher = at + 6 * pixel; /* three pointers reach nine outputs */
                const V factor = v_load(weight);
                UNROLL
                for (int r = 0; r < outputs; r++)
                    sum[r] = v_fma(factor,
                                   v_load(r < 3   ? at + r * pixel
                                          : r < 6 ? high + (r - 3) * pixel
                                                  : higher + (r - 6) * pixel),
                                   sum[r]);
            }
        }
    }
    UNROLL
    for (int r = 0; r < outputs; r++) {
        const V v = sum[r] + bias;
        v_store(sums + r * LANES, relu ? v_max((V){0}, v) : v); /* NaN stays */
    }
}

/* The sums of a tile, (pixel, lane). */
static void NAME(grouped_sums)(const NAME(grouped) *g, V bias, int relu, T *sums)
{
    const xent_window *w = g->w;
    const ptrdiff_t blocks = xent_ceil_div(g->columns.n, OUTPUTS), length = g->columns.n / blocks,
                    longer = g->columns.n - length * blocks;
    for (ptrdiff_t r = 0; r < g->rows.n; r++) {
        const ptrdiff_t oh = g->rows.begin + r;
        const xent_span i = g->all
                                ? (xent_span){0, w->kernel_h}
                                : xent_taps_inside(oh, oh, w->stride_h, w->top, w->dilation_h, w->height, w->kernel_h);
        for (ptrdiff_t b = 0, q = 0, n; b < blocks; b++, q += n, sums += n * LANES) {
            n = length + (b < longer);
            const ptrdiff_t ow = g->columns.begin + q;
            const xent_span j =
                g->all ? (xent_span){0, w->kernel_w}
                       : xent_taps_inside(ow, ow + n - 1, w->stride_w, w->left, w->dilation_w, w->width, w->kernel_w);
            const T *x = g->patch + (r * w->stride_h * g->width + q * w->stride_w) * LANES;
            switch (n) {
#define CASE(n)                                                                                                        \
    case n: NAME(grouped_block)(g, x, i, j, bias, relu, sums, n); break;
                /* clang-format off */
                CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
                /* clang-format on */
#undef CASE
            }
        }
    }
}

/* Whether a term with 0 is 0 for n vectors of numbers. */
static int NAME(all_finite)(const T *numbers, ptrdiff_t n)
{
    const V zero = {0}, one = NAME(set)(1);
    V sum = zero, other = zero; /* or each would wait for the one before */
    ptrdiff_t k = 0;
    for (; k + 3 < n; k += 4) {
        const V a = v_fma(v_load(numbers + k * LANES), zero, sum),
                b = v_fma(v_load(numbers + (k + 1) * LANES), zero, other);
        sum = v_fma(v_load(numbers + (k + 2) * LANES), zero, a),
        other = v_fma(v_load(numbers + (k + 3) * LANES), zero, b);
    }
    for (; k < n; k++) sum = v_fma(v_load(numbers + k * LANES), zero, sum);
    sum = sum + other;
    return !m_any(m_gt(v_select(m_eq(sum, zero), zero, one), zero));
}

ALWAYS_INLINE void NAME(clear)(T *to, ptrdiff_t vectors)
{
    for (ptrdiff_t k = 0; k < vectors; k++) v_store(to + k * LANES, (V){0});
}
/* The first of the groups of a block. */
ALWAYS_INLINE ptrdiff_t NAME(first_group)(const xent_conv_args *a, ptrdiff_t block)
{
    return xent_min(block * LANES, a->groups - LANES);
}
#endif

/* `rows` rows of n numbers of LANES planes, `lane_step` apart, to rows of a patch. */
#ifndef STORED_AS_16
ALWAYS_INLINE void NAME(pack_planes)(const T *x, ptrdiff_t lane_step, ptrdiff_t width, ptrdiff_t n, ptrdiff_t rows,
                                     T *to, ptrdiff_t to_step)
{
    for (ptrdiff_t r = 0; r < rows; r++, to += to_step)
        NAME(pack)(x + r * width, lane_step, 1, n, LANES, LANES, to, LANES);
}
#else
/* Numbers of a plane that are converted at a time, on the stack: with 16 lanes 17 KiB, each of which begins in another
 * line of the caches. */
#define WIDENED_ROWS 256

/* Several rows at once, with what lies between them: each alone is less than a vector, or a little more. */
ALWAYS_INLINE void KERNEL(pack_planes)(const S *x, ptrdiff_t lane_step, ptrdiff_t width, ptrdiff_t n, ptrdiff_t rows,
                                       T *to, ptrdiff_t to_step)
{
    T wide[LANES][WIDENED_ROWS + CACHE_LINE / sizeof(T)];
    const ptrdiff_t most = n > 0 && n <= WIDENED_ROWS && width <= 2 * n ? 1 + (WIDENED_ROWS - n) / width : 1;
    for (ptrdiff_t r = 0, some; r < rows; r += some, x += some * width) {
        some = xent_min(most, rows - r);
        if (some > 1)
            for (ptrdiff_t l = 0; l < LANES; l++) KERNEL(take)(wide[l], x + l * lane_step, (some - 1) * width + n, 1);
        for (ptrdiff_t k = 0; k < some; k++, to += to_step)
            if (some > 1)
                NAME(pack)(wide[0] + k * width, wide[1] - wide[0], 1, n, LANES, LANES, to, LANES);
            else
                KERNEL(pack)(x, lane_step, 1, n, LANES, LANES, to, LANES);
    }
}
#endif

/* What the tile sees of LANES groups, of which `x` is the first channel of the first. */
static void KERNEL(fill_grouped)(const NAME(grouped) *g, const S *x)
{
    const xent_window *w = g->w;
    const ptrdiff_t y0 = g->rows.begin * w->stride_h - w->top, x0 = g->columns.begin * w->stride_w - w->left;
    const ptrdiff_t low = xent_min(g->width, xent_max(0, -x0)), high = xent_max(low, xent_min(g->width, w->width - x0)),
                    size = w->height * w->width;
    const ptrdiff_t before = xent_min(g->height, xent_max(0, -y0)),
                    rows = xent_max(0, xent_min(g->height, w->height - y0) - before);
    T *to = g->patch;
    for (ptrdiff_t c = 0; c < g->channels; c++, x += size) {
        if (g->all) NAME(clear)(to, before * g->width);
        to += before * g->width * LANES;
        if (rows > 0)
            KERNEL(pack_planes)(x + (y0 + before) * w->width + x0 + low, g->channels * size, w->width, high - low, rows,
                                to + low * LANES, g->width * LANES);
        for (ptrdiff_t r = 0; r < rows; r++, to += g->width * LANES) {
            NAME(clear)(to, low);
            NAME(clear)(to + high * LANES, g->width - high);
        }
        if (g->all) NAME(clear)(to, (g->height - before - rows) * g->width);
        to += (g->height - before - rows) * g->width * LANES;
    }
}

/* Weights to (block of groups, output channel, channel, i, j, lane); a chunk is a block. */
static void KERNEL(pack_grouped)(const xent_conv_args *a, ptrdiff_t chunk)
{
    const xent_window *w = &a->window;
    const ptrdiff_t taps = w->kernel_h * w->kernel_w;
    const int whole = a->weight_i == w->kernel_w * a->weight_j;
    const ptrdiff_t run = whole ? taps : w->kernel_w;
    T *to = (T *)a->packed + chunk * a->out_channels * a->in_channels * taps * LANES;
    for (ptrdiff_t o = 0; o < a->out_channels; o++)
        for (ptrdiff_t c = 0; c < a->in_channels; c++)
            for (ptrdiff_t k = 0; k < taps; k += run, to += run * LANES)
                KERNEL(pack_run)((const S *)a->weight + a->weight_first +
                                     NAME(first_group)(a, chunk) * a->weight_group + o * a->weight_out +
                                     c * a->weight_in + k / w->kernel_w * a->weight_i,
                                 a->weight_group, a->weight_j, run, LANES, LANES, to);
}

/* The biases of output channel `o` of LANES groups; -0, which changes nothing, where there are none. */
ALWAYS_INLINE V KERNEL(grouped_bias)(const xent_conv_args *a, ptrdiff_t first, ptrdiff_t o)
{
    T some[LANES];
    if (!a->bias) return -(V){0};
    for (int k = 0; k < LANES; k++) some[k] = ((const T *)a->bias)[(first + k) * a->out_channels + o];
    return v_load(some);
}

/* One tile of a block of groups of an image. */
static void KERNEL(conv2d_grouped_tile)(const xent_conv_args *a, ptrdiff_t image, ptrdiff_t block, ptrdiff_t tile,
                                        T *scratch)
{
    const xent_window *w = &a->window;
    const ptrdiff_t first = NAME(first_group)(a, block), old = block * LANES - first;
    const ptrdiff_t steps = a->in_channels * w->kernel_h * w->kernel_w, all = a->groups * a->out_channels;
    NAME(grouped) g = NAME(grouped_at)(a, tile, scratch);
    T *sums = scratch + a->patch_room;
    g.weights = (const T *)a->packed + block * a->out_channels * steps * LANES;
    g.all = !NAME(all_finite)(g.weights, a->out_channels * steps);
    KERNEL(fill_grouped)(&g, (const S *)a->x + (image * a->groups + first) * a->in_channels * w->height * w->width);
    const int joined = a->out_step == 1 && a->out_row == g.columns.n; /* rows follow each other: one run */
    const ptrdiff_t runs = joined ? 1 : g.rows.n, pixels = joined ? g.rows.n * g.columns.n : g.columns.n;
    for (ptrdiff_t o = 0; o < a->out_channels; o++, g.weights += steps * LANES) {
        S *out = (S *)a->out + (image * all + (first + old) * a->out_channels + o) * a->out_size + a->out_first +
                 g.rows.begin * a->out_row + g.columns.begin * a->out_step;
        NAME(grouped_sums)(&g, KERNEL(grouped_bias)(a, first, o), a->relu, sums);
        for (ptrdiff_t r = 0; r < runs; r++)
            KERNEL(unpack)(sums + r * pixels * LANES + old, LANES, pixels, LANES - old, out + r * a->out_row,
                           a->out_channels * a->out_size, a->out_step, NULL, 0);
    }
}

/* A chunk is a piece of (image, block of groups, tile), the last fastest. */
static void KERNEL(conv2d_grouped)(const xent_conv_args *a, ptrdiff_t chunk, void *scratch)
{
    const ptrdiff_t tiles = xent_tiles(a) / a->images, blocks = xent_ceil_div(a->groups, LANES);
    const xent_span some = xent_cut(a->images * blocks * tiles, a->tile_chunk, chunk);
    for (ptrdiff_t k = some.begin; k < some.begin + some.n; k++)
        KERNEL(conv2d_grouped_tile)(a, k / tiles / blocks, k / tiles % blocks, k % tiles, (T *)scratch);
}

#endif
