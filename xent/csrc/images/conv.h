/* conv.h: convolution as products over an im2col matrix that never exists (layout.h, product.h): the forward pass; the
 * gradients are in conv_backward.h.
 *
 * For one image and group, with W (O, K), K = C kh kw, X = im2col(x) (K, P) and the output's gradient G (O, P):
 *
 *   forward       Y  = W X + bias
 *   grad_weight   W' = sum over images of G X^T
 *   grad_x        a forward convolution of G with the weights flipped, for each phase of the stride (conv.py)
 *
 * In both products X is the operand that is read through tables of offsets: in the first its pixels are the rows of the
 * sums and its taps the steps, in the second the other way round. The other operand, W or G, is packed with its output
 * channels side by side. Where that would leave lanes empty, or the sums are so short that transposing them would show,
 * lanes are pixels instead.
 *
 * The order in which an element's terms are added depends on the shapes alone: chunks never share an output.
 */
#include "begin.h"
#include "images/depthwise.h"
#include "images/ends.h"
#include "images/grouped.h"
#include "images/layout.h"
#include "images/patch.h"
#include "images/product.h"
#include "simd/stored.h"
#include "table.h"

#ifndef XENT_CONV_H
#define XENT_CONV_H

#ifndef STORED_AS_16

/* Bytes of weights that do not stay in a cache of the second level: then the next ones are fetched ahead. */
#define MANY_WEIGHTS (512 * 1024)

/* The pieces of this thread's scratch. */
typedef struct {
    const T *patch; /* of the tile */
    T *filled, *packed, *sums;
    ptrdiff_t *places;
    int32_t *rows, *steps, *at;
} NAME(room);

ALWAYS_INLINE NAME(room) NAME(room_in)(const xent_conv_args *a, void *scratch)
{
    T *filled = (T *)scratch, *packed = filled + (a->patches_shared ? 0 : a->patch_room),
      *sums = packed + a->packed_room;
    ptrdiff_t *places = (ptrdiff_t *)(sums + a->sums_room);
    int32_t *rows = (int32_t *)(places + a->place_room);
    return (NAME(room)){.patch = filled,
                        .filled = filled,
                        .packed = packed,
                        .sums = sums,
                        .places = places,
                        .rows = rows,
                        .steps = rows + a->row_room,
                        .at = rows + a->row_room + a->step_room};
}

/* Offsets of steps that follow each other in packed numbers. */
ALWAYS_INLINE void NAME(count_steps)(int32_t *at, ptrdiff_t steps, ptrdiff_t width)
{
    for (ptrdiff_t k = 0; k < steps; k++) at[k] = (int32_t)(k * width);
}

/* What the pixels of a rest see, (pixel, step), 0 up to whole vectors, as multiply_rest wants it. */
static void NAME(gather_rest)(const NAME(room) *room, const xent_lanes *l, ptrdiff_t depth)
{
    const T *patch = room->patch + l->length - l->rest;
    const ptrdiff_t whole = xent_rest_steps(depth, LANES);
    for (ptrdiff_t k = 0; k < depth; k++)
        for (ptrdiff_t i = 0; i < l->rest; i++) room->packed[i * whole + k] = patch[room->steps[k] + i];
    for (ptrdiff_t k = depth; k < whole; k++)
        for (ptrdiff_t i = 0; i < l->rest; i++) room->packed[i * whole + k] = 0;
}
#endif

/* ---- what is made once for all chunks ---- */

#ifndef STORED_AS_16
/* Whether what chunks of conv2d_pack have packed is finite: a byte each, behind the numbers. */
ALWAYS_INLINE char *NAME(finite_pieces)(const xent_conv_args *a)
{
    const ptrdiff_t strips = xent_ceil_div(a->out_channels, a->width),
                    steps = a->in_channels * a->window.kernel_h * a->window.kernel_w;
    return (char *)((T *)a->packed + a->groups * strips * steps * a->width);
}

/* Whether the weights of a strip, of all groups, are known to be finite. */
ALWAYS_INLINE int NAME(is_finite)(const xent_conv_args *a, ptrdiff_t strip)
{
    const ptrdiff_t pieces = xent_ceil_div(a->in_channels, a->pack_channels);
    return !a->packs_here && !memchr(NAME(finite_pieces)(a) + strip * pieces, 0, (size_t)pieces);
}
#endif

/* Weights to their packed form: a chunk is (group, strip of output channels, some input channels), the last fastest. */
static void KERNEL(pack_weights)(const xent_conv_args *a, ptrdiff_t chunk)
{
    const xent_window *w = &a->window;
    const ptrdiff_t strips = xent_ceil_div(a->out_channels, a->width),
                    pieces = xent_ceil_div(a->in_channels, a->pack_channels), group = chunk / pieces / strips;
    const xent_span strip = xent_cut(a->out_channels, a->width, chunk / pieces % strips);
    const xent_span channels = xent_cut(a->in_channels, a->pack_channels, chunk % pieces);
    const ptrdiff_t taps = w->kernel_h * w->kernel_w, steps = channels.n * taps;
    const S *weight = (const S *)a->weight + a->weight_first + group * a->weight_group + strip.begin * a->weight_out +
                      channels.begin * a->weight_in;
    T *packed =
        (T *)a->packed + chunk / pieces * a->in_channels * taps * a->width + channels.begin * taps * a->packed_step;
    if (a->weights_in_rows) {
        for (ptrdiff_t l = 0; l < strip.n; l++)
            KERNEL(take)(packed + l * a->packed_row, weight + l * a->weight_out, steps, 1);
        return;
    }
    /* Weights that lie evenly are packed at once: a row of taps, all of a channel, or all channels. */
    const int rows = a->weight_i == w->kernel_w * a->weight_j, all = rows && a->weight_in == taps * a->weight_j;
    const ptrdiff_t run = all ? steps : rows ? taps : w->kernel_w;
    for (ptrdiff_t k = 0; k < steps; k += run) {
        const S *source = weight + k / taps * a->weight_in + k % taps / w->kernel_w * a->weight_i;
        T *target = packed + k * a->width;
        KERNEL(pack_run)(source, a->weight_out, a->weight_j, run, strip.n, a->width, target);
    }
    NAME(finite_pieces)(a)[chunk] = (char)NAME(all_finite)(packed, steps * a->width / LANES);
}

/* A patch that several chunks read. */
ALWAYS_INLINE T *KERNEL(shared_patch)(const xent_conv_args *a, ptrdiff_t group, ptrdiff_t tile, ptrdiff_t block)
{
    return (T *)a->patches + ((group * xent_tiles(a) + tile) * xent_blocks(a) + block) * a->patch_room;
}

/* A chunk is (group, tile, block, some channels), the last fastest. */
static void KERNEL(fill_shared)(const xent_conv_args *a, ptrdiff_t chunk)
{
    const ptrdiff_t pieces = xent_ceil_div(a->block_channels, XENT_FILLED_CHANNELS), blocks = xent_blocks(a);
    const ptrdiff_t block = chunk / pieces % blocks, tile = chunk / pieces / blocks % xent_tiles(a),
                    group = chunk / pieces / blocks / xent_tiles(a);
    const xent_tile t = xent_tile_at(a, tile);
    const xent_block b = xent_block_at(a, block);
    const xent_span channels = xent_cut(b.channels.n, XENT_FILLED_CHANNELS, chunk % pieces);
    if (channels.n <= 0) return; /* the last block may have fewer pieces, and another thread its last one */
    const xent_patch g = xent_patch_at(a, &t, &b, sizeof(T));
    KERNEL(fill_channels)(a, &t, &b, &g, group, channels, KERNEL(shared_patch)(a, group, tile, block));
}

static void KERNEL(conv2d_pack)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_conv_args *a = (const xent_conv_args *)args;
    (void)scratch;
    if (a->lanes_are_groups)
        KERNEL(pack_grouped)(a, chunk);
    else if (chunk < a->patch_chunks)
        KERNEL(fill_shared)(a, chunk);
    else
        KERNEL(pack_weights)(a, chunk - a->patch_chunks);
}

/* ---- forward ---- */

/* Where output pixel 0 of a tile goes, for a channel of a group. */
ALWAYS_INLINE S *KERNEL(place_of)(const xent_conv_args *a, const xent_tile *t, ptrdiff_t channel)
{
    return (S *)a->out + (t->images.begin * a->groups * a->out_channels + channel) * a->out_size + a->out_first +
           t->rows.begin * a->out_row + t->columns.begin * a->out_step;
}

/* The finished sums of channels [channel, channel + n) of a group to memory, run by run of neighbouring pixels. */
static void KERNEL(deliver)(const xent_conv_args *a, const xent_tile *t, ptrdiff_t channel, ptrdiff_t n, const T *sums,
                            ptrdiff_t sums_step)
{
    const ptrdiff_t all = a->groups * a->out_channels;
    const T *bias = a->bias ? (const T *)a->bias + channel : NULL;
    const int whole = a->out_step == 1 && a->out_row == t->columns.n; /* rows follow each other: one run */
    const ptrdiff_t runs = whole ? 1 : t->rows.n, pixels = whole ? t->rows.n * t->columns.n : t->columns.n;
    for (ptrdiff_t m = 0; m < t->images.n; m++) {
        for (ptrdiff_t r = 0; r < runs; r++, sums += pixels * sums_step) {
            S *out = KERNEL(place_of)(a, t, channel) + (m * all) * a->out_size + r * a->out_row;
            KERNEL(unpack)(sums, sums_step, pixels, n, out, a->out_size, a->out_step, bias, a->relu);
        }
    }
}

/* The finished sums to memory where lanes are pixels: sums are (channel, vector). */
static void KERNEL(deliver_pixels)(const xent_conv_args *a, const xent_tile *t, const xent_lanes *l, ptrdiff_t channel,
                                   ptrdiff_t n, const T *sums, ptrdiff_t sums_step)
{
    const int joined =
        a->out_step == 1 && a->out_row == t->columns.n && l->row_step == t->columns.n; /* rows: one run */
    const ptrdiff_t runs = joined ? 1 : t->rows.n, columns = joined ? t->rows.n * t->columns.n : t->columns.n;
    const ptrdiff_t last =
        a->out_step == 1 && columns >= LANES ? columns - LANES : columns; /* of a vector, which may overlap */
    for (ptrdiff_t c = 0; c < n; c++) {
        const T *bias = a->bias ? (const T *)a->bias + channel + c : NULL;
        S *plane = KERNEL(place_of)(a, t, channel + c);
        for (ptrdiff_t m = 0; m < t->images.n; m++, plane += a->groups * a->out_channels * a->out_size)
            for (ptrdiff_t r = 0; r < runs; r++)
                for (ptrdiff_t q = 0; q < columns; q += LANES) {
                    const ptrdiff_t first = xent_min(q, last);
                    const T *from = sums + c * sums_step + m * l->image_step + r * l->row_step + (l->apart ? q : first);
                    KERNEL(put_pixels)(plane + r * a->out_row + first * a->out_step,
                                       NAME(finished)(v_load(from), bias, a->relu), columns - first, a->out_step);
                }
    }
}

/* Weights of a strip, some steps, that are fetched while `pixels` rows of sums are made. */
ALWAYS_INLINE xent_ahead KERNEL(ahead)(const xent_conv_args *a, const void *weights, ptrdiff_t steps, ptrdiff_t pixels)
{
    if (a->packs_here)
        return (xent_ahead){.at = (const char *)weights,
                            .rows = a->width,
                            .step = a->weight_out * (ptrdiff_t)sizeof(S),
                            .bytes = steps * (ptrdiff_t)sizeof(S)};
    const ptrdiff_t lines = xent_ceil_div(steps * a->width * (ptrdiff_t)sizeof(T), CACHE_LINE),
                    share = xent_ceil_div(lines, pixels);
    return (xent_ahead){.at = (const char *)weights,
                        .rows = xent_ceil_div(lines, share),
                        .step = share * CACHE_LINE,
                        .bytes = share * CACHE_LINE};
}

/* The sums of one strip of output channels [channel, channel + n) of all, over one block, with its weights, which are
 * packed to `room` if they are not; the output if it is the last. With `boxes`, which are NULL if padding is not left
 * out, as long as no weight is infinite or NaN, which would show: then 0 is multiplied by it. */
static void KERNEL(conv2d_channels)(const xent_conv_args *a, const xent_tile *t, const xent_block *b, ptrdiff_t channel,
                                    ptrdiff_t n, int last, const void *weights, const void *after, int finite, T *room,
                                    const xent_boxes *boxes, ptrdiff_t channel_step, NAME(product) *p)
{
    const ptrdiff_t pieces = xent_ceil_div(b->depth, XENT_STEPS_AT_ONCE),
                    taps = b->window.kernel_h * b->window.kernel_w;
    const ptrdiff_t piece = boxes ? boxes->channels * taps : xent_ceil_div(b->depth, pieces);
    const ptrdiff_t pixels = xent_tile_pixels(t), vectors = xent_ceil_div(n, LANES);
    const ptrdiff_t step = a->packs_here ? (ptrdiff_t)sizeof(S) : a->width * (ptrdiff_t)sizeof(T);
    const T *patch = p->patch;
    const int32_t *steps = p->steps;
    p->sums_step = a->width;
    for (ptrdiff_t k = 0; k < b->depth; k += piece) {
        const char *here = (const char *)weights + k * step, *next = here + piece * step;
        p->packed = a->packs_here ? room : (const T *)here;
        p->depth = xent_min(piece, b->depth - k);
        p->accumulate = b->first + k > 0;
        if (after) p->next = KERNEL(ahead)(a, k + piece < b->depth ? next : after, piece, pixels);
        if (a->packs_here) KERNEL(pack)((const S *)here, a->weight_out, 1, p->depth, n, a->width, room, a->width);
        if (boxes) {
            p->patch = patch + k / taps * channel_step;
            p->steps = boxes->box[0].steps, p->at = boxes->box[0].at;
        } else {
            p->steps = steps + k;
        }
        if (boxes && (finite || NAME(all_finite)(p->packed, p->depth * a->width / LANES)))
            NAME(multiply_boxes)(p, pixels, vectors, boxes, p->depth / taps);
        else
            NAME(multiply)(p, pixels, vectors);
    }
    if (last) KERNEL(deliver)(a, t, channel, n, p->sums, a->width);
}

static void KERNEL(conv2d_pixels)(const xent_conv_args *a, const xent_tile *t, const xent_block *b, const xent_lanes *l,
                                  ptrdiff_t channel, ptrdiff_t n, int last, const T *seen, NAME(product) *p)
{
    const ptrdiff_t vectors = xent_vectors_of(l);
    p->depth = b->depth;
    p->accumulate = b->first > 0;
    p->sums_step = l->direct ? a->out_size : xent_kept_sums(l);
    if (l->direct) {
        p->sums = (T *)KERNEL(place_of)(a, t, channel);
        p->bias = a->bias ? (const T *)a->bias + channel : NULL;
        p->relu = a->relu;
    }
    p->longest = a->panels ? a->panels : xent_longest(n, LONG_BLOCKS);
    p->taller = a->panels ? p->steps + b->depth : NULL;
    if (a->panels) seen = p->patch + vectors * b->depth * LANES;
    NAME(multiply_pixels)(p, n, vectors);
    if (l->rest)
        NAME(multiply_rest)(p, seen, xent_rest_steps(b->depth, LANES), p->sums + l->length - l->rest, n, l->rest);
    if (last && !l->direct) KERNEL(deliver_pixels)(a, t, l, channel, n, p->sums, p->sums_step);
}

/* The weights of a strip: packed, or where they lie. */
ALWAYS_INLINE const void *KERNEL(weights_of)(const xent_conv_args *a, const xent_block *b, ptrdiff_t group,
                                             ptrdiff_t strip)
{
    const ptrdiff_t strips = xent_ceil_div(a->out_channels, a->width),
                    steps = a->in_channels * a->window.kernel_h * a->window.kernel_w;
    if (a->weights_in_place || a->packs_here)
        return (const S *)a->weight + a->weight_first + group * a->weight_group + strip * a->width * a->weight_out +
               b->first * a->weight_step;
    return (const T *)a->packed + (group * strips + strip) * steps * a->width + b->first * a->packed_step;
}

/* One block of a group, for some strips; each has sums of its own unless the block is the only one. */
static void KERNEL(conv2d_block)(const xent_conv_args *a, const xent_tile *t, const xent_block *b, const xent_lanes *l,
                                 ptrdiff_t group, xent_span strips, int last, const xent_boxes *boxes,
                                 ptrdiff_t channel_step, const NAME(room) *room)
{
    const ptrdiff_t sums = a->width * (a->lanes_are_pixels ? xent_kept_sums(l) : xent_tile_pixels(t));
    const int many = !a->lanes_are_pixels &&
                     a->out_channels * a->in_channels * a->window.kernel_h * a->window.kernel_w * (ptrdiff_t)sizeof(T) >
                         MANY_WEIGHTS;
    const ptrdiff_t count = xent_ceil_div(a->out_channels, a->width);
    for (ptrdiff_t s = 0; s < strips.n; s++) {
        const xent_span strip = xent_cut(a->out_channels, a->width, strips.begin + s);
        const void *weights = KERNEL(weights_of)(a, b, group, strips.begin + s);
        NAME(product) p = {.patch = room->patch,
                           .rows = room->rows,
                           .steps = room->steps,
                           .at = room->at,
                           .places = a->lanes_are_pixels || boxes ? room->places : NULL,
                           .packed_step = a->packed_step,
                           .packed_row = a->packed_row,
                           .sums = room->sums + (last && b->first == 0 ? 0 : s * sums),
                           .packed = (const T *)weights};
        /* of the next strip, or of the first through the next block */
        const xent_block next = {.first = b->first + b->depth};
        const void *after = !many              ? NULL
                            : s + 1 < strips.n ? KERNEL(weights_of)(a, b, group, strips.begin + s + 1)
                            : !last            ? KERNEL(weights_of)(a, &next, group, strips.begin)
                                               : weights;
        if (a->lanes_are_pixels)
            KERNEL(conv2d_pixels)(a, t, b, l, group * a->out_channels + strip.begin, strip.n, last, room->packed, &p);
        else
            KERNEL(conv2d_channels)(a, t, b, group * a->out_channels + strip.begin, strip.n, last, weights, after,
                                    NAME(is_finite)(a, group * count + strips.begin + s), room->packed, boxes,
                                    channel_step, &p);
    }
}

/* The tables of a tile and a block. */
static void KERNEL(fill_tables)(const xent_conv_args *a, const xent_tile *t, const xent_block *b, const xent_patch *g,
                                const xent_lanes *l, xent_boxes *boxes, const NAME(room) *room)
{
    if (a->skips_padding) {
        xent_sort_pixels(t, &b->window, g, room->rows, room->places, boxes);
        xent_fill_boxes(a, b, g, boxes, room->at);
        return;
    }
    if (!a->panels) xent_tap_offsets(a, b, g, room->steps);
    if (a->lanes_are_pixels) {
        xent_vector_offsets(a, g, l, room->rows, room->places);
        if (a->panels) xent_panel_offsets(l, b->depth, a->panels, room->rows, room->steps);
    } else {
        xent_pixel_offsets(t, g, room->rows);
        NAME(count_steps)(room->at, xent_min(b->depth, XENT_STEPS_AT_ONCE), a->width);
    }
}

/* What a tile sees through block `k`: filled, or filled before, or where it lies. */
ALWAYS_INLINE const T *KERNEL(patch_at)(const xent_conv_args *a, const xent_tile *t, const xent_block *b,
                                        const xent_patch *g, ptrdiff_t group, ptrdiff_t tile, ptrdiff_t k, T *filled)
{
    const xent_window *w = &a->window;
    const ptrdiff_t channel = (t->images.begin * a->groups + group) * a->in_channels + b->channels.begin;
    if (a->x_in_place)
        return (const T *)a->x + (channel * w->height + t->rows.begin * w->stride_h - b->window.top) * w->width +
               t->columns.begin * w->stride_w - b->window.left;
    if (a->patches_shared) return KERNEL(shared_patch)(a, group, tile, k);
    KERNEL(fill_patch)(a, t, b, g, group, filled);
    return filled;
}

/* A chunk is (tile, some groups, some strips of output channels), the last fastest. */
static void KERNEL(conv2d)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_conv_args *a = (const xent_conv_args *)args;
    if (a->lanes_are_groups) {
        KERNEL(conv2d_grouped)(a, chunk, scratch);
        return;
    }
    if (a->by_planes) {
        KERNEL(conv2d_depthwise)(a, chunk, scratch);
        return;
    }
    NAME(room) room = NAME(room_in)(a, scratch);
    const ptrdiff_t strips = xent_ceil_div(a->out_channels, a->width), ranges = xent_ceil_div(strips, a->strip_chunk);
    const ptrdiff_t several = xent_ceil_div(a->groups, a->group_chunk), blocks = xent_blocks(a);
    const ptrdiff_t tile = chunk / ranges / several;
    const xent_span some = xent_cut(strips, a->strip_chunk, chunk % ranges);
    const xent_span groups = xent_cut(a->groups, a->group_chunk, chunk / ranges % several);
    const xent_tile t = xent_tile_at(a, tile);
    xent_boxes boxes;
    for (ptrdiff_t group = groups.begin; group < groups.begin + groups.n; group++) {
        for (ptrdiff_t k = 0; k < blocks; k++) {
            const xent_block b = xent_block_at(a, k);
            const xent_patch g = xent_patch_at(a, &t, &b, sizeof(T));
            const xent_lanes l = xent_lanes_of(a, &t, &g, LANES, KERNEL(complete)(a));
            if (blocks > 1 || group == groups.begin) KERNEL(fill_tables)(a, &t, &b, &g, &l, &boxes, &room);
            room.patch = KERNEL(patch_at)(a, &t, &b, &g, group, tile, k, room.filled);
            if (l.rest && !a->panels) NAME(gather_rest)(&room, &l, b.depth);
            KERNEL(conv2d_block)(a, &t, &b, &l, group, some, k == blocks - 1, a->skips_padding ? &boxes : NULL,
                                 g.channel_step, &room);
        }
    }
}

#endif
