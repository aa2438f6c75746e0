/* conv_backward.h: the gradients of convolution by weights and bias (conv.h says how: grad_x is a forward
 * convolution). */
#include "begin.h"
#include "images/conv.h"
#include "images/ends.h"
#include "images/grouped_backward.h"
#include "images/layout.h"
#include "images/patch.h"
#include "images/product.h"
#include "simd/stored.h"
#include "simd/sums.h"
#include "table.h"

#ifndef XENT_CONV_BACKWARD_H
#define XENT_CONV_BACKWARD_H

/* The gradient of channel `channel` at the tile's first pixel of image `m`. */
ALWAYS_INLINE const S *KERNEL(grad_at)(const xent_conv_args *a, const xent_tile *t, ptrdiff_t channel, ptrdiff_t m,
                                       ptrdiff_t row)
{
    const xent_window *w = &a->window;
    return (const S *)a->grad +
           (((t->images.begin + m) * a->groups * a->out_channels + channel) * w->out_h + t->rows.begin + row) *
               w->out_w +
           t->columns.begin;
}

/* The gradient of a tile, channels [channel, channel + n): (pixel, channel). */
static void KERNEL(pack_grad)(const xent_conv_args *a, const xent_tile *t, ptrdiff_t channel, ptrdiff_t n, T *packed)
{
    const ptrdiff_t size = a->window.out_h * a->window.out_w;
    const int whole = t->columns.n == a->window.out_w; /* rows follow each other: one run */
    const ptrdiff_t runs = whole ? 1 : t->rows.n, pixels = whole ? t->rows.n * t->columns.n : t->columns.n;
    for (ptrdiff_t m = 0; m < t->images.n; m++)
        for (ptrdiff_t r = 0; r < runs; r++, packed += pixels * a->width)
            KERNEL(pack)(KERNEL(grad_at)(a, t, channel, m, r), size, 1, pixels, n, a->width, packed, a->width);
}

#ifndef STORED_AS_16
/* What the products of a block need of a tile. Where padding is left out, the pixels of each tap, too, in tables of
 * `pixels` numbers: after those of all pixels, two for each tap. */
ALWAYS_INLINE void NAME(fill_grad_tables)(const xent_conv_args *a, const xent_tile *t, const xent_block *b,
                                          const xent_patch *g, const NAME(room) *room,
                                          ptrdiff_t seen[XENT_SKIPPING_TAPS])
{
    const ptrdiff_t pixels = xent_tile_pixels(t), taps = b->window.kernel_h * b->window.kernel_w;
    if (a->lanes_are_pixels) {
        xent_tap_offsets(a, b, g, room->steps);
        return;
    }
    xent_pixel_offsets(t, g, room->rows);
    NAME(count_steps)(room->at, pixels, a->width);
    if (!a->skips_padding) {
        xent_tap_offsets(a, b, g, room->steps);
        return;
    }
    xent_rows_by_tap(b, g, room->steps, room->places);
    for (ptrdiff_t k = 0; k < taps; k++) {
        int32_t *steps = room->at + (2 * k + 1) * pixels;
        seen[k] = xent_pixels_of_tap(t, &b->window, g, k / b->window.kernel_w, k % b->window.kernel_w, a->width, steps,
                                     steps + pixels);
    }
}

/* The products of all taps, tap by tap; of pixels on the padding, too, if the gradient has what is not finite. */
static void NAME(multiply_taps)(const NAME(product) *p, const xent_block *b, ptrdiff_t vectors, const ptrdiff_t *seen,
                                int all)
{
    const ptrdiff_t taps = b->window.kernel_h * b->window.kernel_w, channels = b->channels.n, pixels = p->depth;
    NAME(product) some = *p;
    for (ptrdiff_t k = 0; k < taps; k++) {
        some.rows = p->rows + k * channels, some.places = p->places + k * channels;
        if (!all) {
            some.steps = p->at + (2 * k + 1) * pixels, some.at = some.steps + pixels;
            some.depth = seen[k];
        }
        NAME(multiply)(&some, channels, vectors);
    }
}
#endif

static void KERNEL(grad_weight_strips)(const xent_conv_args *a, const xent_tile *t, const xent_block *b,
                                       ptrdiff_t group, xent_span strips, int accumulate, const ptrdiff_t *seen,
                                       const NAME(room) *room)
{
    NAME(product) p = {.patch = room->patch,
                       .packed = room->packed,
                       .rows = room->steps,
                       .steps = room->rows,
                       .at = room->at,
                       .places = a->skips_padding ? room->places : NULL,
                       .depth = xent_tile_pixels(t),
                       .packed_step = a->width,
                       .sums_step = a->width,
                       .accumulate = accumulate};
    for (ptrdiff_t s = 0; s < strips.n; s++) {
        const ptrdiff_t channel = (strips.begin + s) * a->width, n = xent_min(a->width, a->out_channels - channel);
        p.sums = room->sums + s * b->depth * a->width;
        KERNEL(pack_grad)(a, t, group * a->out_channels + channel, n, room->packed);
        if (a->skips_padding)
            NAME(multiply_taps)(&p, b, xent_ceil_div(n, LANES), seen,
                                !NAME(all_finite)(room->packed, p.depth * a->width / LANES));
        else
            NAME(multiply)(&p, b->depth, xent_ceil_div(n, LANES));
    }
}

#ifndef STORED_AS_16

/* sums[o][k] (+)= sum over the tile's pixels of grad[o][p] patch[taps[k] + p], for DOT_TAPS x DOT_CHANNELS of them at
 * once, so that each number loaded is used several times; lanes are pixels. `taps` and `channels` are constants at
 * every call. */
#define DOT_TAPS 5
#define DOT_CHANNELS 2

typedef struct {
    const xent_tile *t;
    const xent_patch *g;
    const T *patch, *grad;                        /* grad: the tile's first pixel in the first of the channels */
    ptrdiff_t image_step, channel_step, row_step; /* of grad */
    ptrdiff_t sums_step;
    int accumulate;
} NAME(dots);

/* n pixels of one vector. */
ALWAYS_INLINE void NAME(dot_vector)(const T *grad, ptrdiff_t channel_step, const T *x, const int32_t *at, ptrdiff_t n,
                                    V sum[DOT_TAPS][DOT_CHANNELS], int taps, int channels)
{
    const V zero = {0};
    V factor[DOT_CHANNELS];
    UNROLL
    for (int o = 0; o < channels; o++) factor[o] = NAME(load)(grad + o * channel_step, n, zero);
    UNROLL
    for (int k = 0; k < taps; k++) {
        const V v = NAME(load)(x + at[k], n, zero); /* what lies behind may be no number */
        UNROLL
        for (int o = 0; o < channels; o++) sum[k][o] = v_fma(v, factor[o], sum[k][o]);
    }
}

ALWAYS_INLINE void NAME(set_aside)(V sum[DOT_TAPS][DOT_CHANNELS], V total[DOT_TAPS][DOT_CHANNELS], int taps,
                                   int channels)
{
    for (int k = 0; k < taps; k++)
        for (int o = 0; o < channels; o++) total[k][o] = total[k][o] + sum[k][o], sum[k][o] = (V){0};
}

ALWAYS_INLINE void NAME(dot_block)(const NAME(dots) *d, const int32_t *at, T *sums, int taps, int channels)
{
    const xent_tile *t = d->t;
    V sum[DOT_TAPS][DOT_CHANNELS] = {{{0}}}, total[DOT_TAPS][DOT_CHANNELS] = {{{0}}};
    ptrdiff_t terms = 0; /* of `sum`, in each lane: see PARTIAL */
    for (ptrdiff_t m = 0; m < t->images.n; m++) {
        for (ptrdiff_t r = 0; r < t->rows.n; r++) {
            const T *grad = d->grad + m * d->image_step + r * d->row_step;
            const T *x = d->patch + xent_pixel_offset(d->g, m, r);
            ptrdiff_t q = 0;
            for (; q + LANES <= t->columns.n; q += LANES) {
                if (terms++ == PARTIAL) NAME(set_aside)(sum, total, taps, channels), terms = 1;
                NAME(dot_vector)(grad + q, d->channel_step, x + q, at, LANES, sum, taps, channels);
            }
            if (q < t->columns.n) {
                if (terms++ == PARTIAL) NAME(set_aside)(sum, total, taps, channels), terms = 1;
                NAME(dot_vector)(grad + q, d->channel_step, x + q, at, t->columns.n - q, sum, taps, channels);
            }
        }
    }
    for (int k = 0; k < taps; k++)
        for (int o = 0; o < channels; o++)
            sums[o * d->sums_step + k] =
                v_reduce_sum(total[k][o] + sum[k][o]) + (d->accumulate ? sums[o * d->sums_step + k] : 0);
}

/* All taps with some channels. */
static void NAME(dot_channels)(const NAME(dots) *d, const int32_t *at, ptrdiff_t depth, T *sums, ptrdiff_t channels)
{
    for (ptrdiff_t k = 0; k < depth; k += DOT_TAPS) {
        switch (xent_min(DOT_TAPS, depth - k) * DOT_CHANNELS + channels - 1) {
            /* clang-format off */
#define CASE(t, c) \
    case (t) * DOT_CHANNELS + (c) - 1: NAME(dot_block)(d, at + k, sums + k, t, c); break;
            CASE(1, 1) CASE(2, 1) CASE(3, 1) CASE(4, 1) CASE(5, 1)
            CASE(1, 2) CASE(2, 2) CASE(3, 2) CASE(4, 2) CASE(5, 2)
#undef CASE
            /* clang-format on */
        }
    }
}
#endif

/* The gradient of some channels of a tile, (channel, image, row, column), as numbers that are computed with. */
static void KERNEL(widen_grad)(const xent_conv_args *a, const xent_tile *t, ptrdiff_t channel, ptrdiff_t n, T *wide)
{
    for (ptrdiff_t o = 0; o < n; o++)
        for (ptrdiff_t m = 0; m < t->images.n; m++)
            for (ptrdiff_t r = 0; r < t->rows.n; r++, wide += t->columns.n)
                KERNEL(take)(wide, KERNEL(grad_at)(a, t, channel + o, m, r), t->columns.n, 1);
}

static void KERNEL(grad_weight_dots)(const xent_conv_args *a, const xent_tile *t, const xent_block *b,
                                     const xent_patch *g, ptrdiff_t group, int accumulate, const NAME(room) *room)
{
    const ptrdiff_t size = a->window.out_h * a->window.out_w, pixels = xent_tile_pixels(t);
    const int wide = sizeof(S) == sizeof(T);
    NAME(dots) d = {.t = t,
                    .g = g,
                    .patch = room->patch,
                    .image_step = wide ? a->groups * a->out_channels * size : t->rows.n * t->columns.n,
                    .channel_step = wide ? size : pixels,
                    .row_step = wide ? a->window.out_w : t->columns.n,
                    .sums_step = b->depth,
                    .accumulate = accumulate};
    for (ptrdiff_t o = 0; o < a->out_channels; o += DOT_CHANNELS) {
        const ptrdiff_t channel = group * a->out_channels + o, n = xent_min(DOT_CHANNELS, a->out_channels - o);
        d.grad = wide ? (const T *)KERNEL(grad_at)(a, t, channel, 0, 0) : room->packed;
        if (!wide) KERNEL(widen_grad)(a, t, channel, n, room->packed);
        NAME(dot_channels)(&d, room->steps, b->depth, room->sums + o * b->depth, n);
    }
}

/* The finished sums of a block to `out`, (partial, O, K). */
static void KERNEL(deliver_grad)(const xent_conv_args *a, const xent_block *b, ptrdiff_t partial, ptrdiff_t group,
                                 xent_span strips, const T *sums)
{
    const ptrdiff_t steps = a->in_channels * a->window.kernel_h * a->window.kernel_w;
    S *out = (S *)a->out + (partial * a->groups + group) * a->out_channels * steps + b->first;
    if (a->lanes_are_pixels) {
        for (ptrdiff_t o = 0; o < a->out_channels; o++) KERNEL(put_run)(out + o * steps, sums + o * b->depth, b->depth);
        return;
    }
    for (ptrdiff_t s = 0; s < strips.n; s++) {
        const ptrdiff_t channel = (strips.begin + s) * a->width;
        KERNEL(unpack)(sums + s * b->depth * a->width, a->width, b->depth,
                       xent_min(a->width, a->out_channels - channel), out + channel * steps, steps, 1, NULL, 0);
    }
}

/* A chunk is (partial: some tiles; some groups; block of the kernel; some strips of output channels), the last
 * fastest. */
static void KERNEL(conv2d_grad_weight)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_conv_args *a = (const xent_conv_args *)args;
    if (a->lanes_are_groups) {
        KERNEL(grouped_grad_weight)(a, chunk, scratch);
        return;
    }
    NAME(room) room = NAME(room_in)(a, scratch);
    const ptrdiff_t strips = xent_ceil_div(a->out_channels, a->width), ranges = xent_ceil_div(strips, a->strip_chunk);
    const ptrdiff_t several = xent_ceil_div(a->groups, a->group_chunk), blocks = xent_blocks(a);
    const xent_span some = xent_cut(strips, a->strip_chunk, chunk % ranges);
    const xent_block b = xent_block_at(a, chunk / ranges % blocks);
    const xent_span groups = xent_cut(a->groups, a->group_chunk, chunk / ranges / blocks % several);
    const ptrdiff_t partial = chunk / ranges / blocks / several;
    const xent_span tiles = xent_cut(xent_tiles(a), a->tile_chunk, partial);
    ptrdiff_t seen[XENT_SKIPPING_TAPS];
    for (ptrdiff_t group = groups.begin; group < groups.begin + groups.n; group++) {
        for (ptrdiff_t k = 0; k < tiles.n; k++) {
            const xent_tile t = xent_tile_at(a, tiles.begin + k);
            const xent_patch g = xent_patch_at(a, &t, &b, sizeof(T));
            if (tiles.n > 1 || group == groups.begin) NAME(fill_grad_tables)(a, &t, &b, &g, &room, seen);
            room.patch = KERNEL(patch_at)(a, &t, &b, &g, group, tiles.begin + k, 0, room.filled);
            if (a->lanes_are_pixels)
                KERNEL(grad_weight_dots)(a, &t, &b, &g, group, k > 0, &room);
            else
                KERNEL(grad_weight_strips)(a, &t, &b, group, some, k > 0, seen, &room);
        }
        /* What is to be merged stays of the type computed with. */
        (xent_tiles(a) > a->tile_chunk ? NAME(deliver_grad) : KERNEL(deliver_grad))(a, &b, partial, group, some,
                                                                                    room.sums);
    }
}

/* Sums between two stores, on the stack. */
#define MERGED 64

/* out[i] = sum of x[partial][i] over the partial sums of grad_weight, in double; a chunk is a range of i. */
static void KERNEL(conv2d_merge)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_merge_args *a = (const xent_merge_args *)args;
    const xent_span some = xent_cut(a->size, a->chunk, chunk);
    const T *x = (const T *)a->x + some.begin;
    S *out = (S *)a->out + some.begin;
    T sums[MERGED];
    (void)scratch;
    for (ptrdiff_t i = 0; i < some.n; i += MERGED) {
        const ptrdiff_t n = xent_min(MERGED, some.n - i);
        for (ptrdiff_t m = 0; m < n; m++) {
            double sum = 0;
            for (ptrdiff_t k = 0; k < a->partials; k++) sum += (double)x[k * a->size + i + m];
            sums[m] = (T)sum;
        }
        KERNEL(put_run)(out + i, sums, n);
    }
}

/* ---- grad_bias: a chunk is one output channel ---- */

static void KERNEL(conv2d_grad_bias)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_conv_args *a = (const xent_conv_args *)args;
    const ptrdiff_t pixels = a->window.out_h * a->window.out_w, channels = a->groups * a->out_channels;
    const V zero = {0};
    NAME(sum) sum = {{0}, {0}};
    (void)scratch;
    for (ptrdiff_t image = 0; image < a->images; image++) {
        const S *grad = (const S *)a->grad + (image * channels + chunk) * pixels;
        for (ptrdiff_t p = 0; p < pixels; p += LANES) NAME(sum_add)(&sum, KERNEL(load)(grad + p, pixels - p, zero));
    }
    KERNEL(put)((S *)a->out + chunk, (T)NAME(sum_total)(&sum));
}

#endif
