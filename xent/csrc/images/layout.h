/* layout.h: how a convolution is cut, and where the numbers of a piece lie in scratch; for the kernels (conv.h) and for
 * the plan (plan.c), of no type.
 *
 * A tile is a box of output pixels: some images, rows and columns. A block is a box of the kernel: some input channels,
 * rows and columns of taps. The patch is what a tile sees through a block, copied with its padding to scratch. For
 * strides it is sorted by phase, so that the input of neighbouring outputs lies side by side whatever the stride: along
 * one axis, with period = stride / gcd(stride, dilation),
 *
 *   output o sees through tap i the input  o stride + i dilation - padding
 *                                        = (o + i dilation / stride) stride + phase(i) - padding
 *
 * where phase(i) = i dilation mod stride depends on i mod period alone. The patch keeps the phases that occur, `length`
 * inputs each that are `stride` apart: (channel, image, phase of rows, phase of columns, row, column). Inputs that no
 * tap sees are left out.
 *
 * Where lanes are channels, the numbers of a patch are read one by one, and neighbouring outputs need no neighbouring
 * inputs: an axis stays in the order of the image then, and is copied faster, unless that would keep many inputs that no
 * tap sees. Without padding nothing has to be copied at all.
 */
#ifndef XENT_LAYOUT_H
#define XENT_LAYOUT_H

#include "base.h"
#include "images/window.h"
#include "plan.h"
#include "table.h"

typedef struct {
    ptrdiff_t begin, n;
} xent_span;

/* Piece number `index` of [0, size), cut every `piece`. */
ALWAYS_INLINE xent_span xent_cut(ptrdiff_t size, ptrdiff_t piece, ptrdiff_t index)
{
    const ptrdiff_t begin = index * piece, rest = size - begin;
    return (xent_span){.begin = begin, .n = rest < piece ? rest : piece};
}

typedef struct {
    xent_span images, rows, columns;
} xent_tile;

ALWAYS_INLINE ptrdiff_t xent_tiles(const xent_conv_args *a)
{
    return xent_ceil_div(a->images, a->tile_images) * xent_ceil_div(a->window.out_h, a->tile_rows) *
           xent_ceil_div(a->window.out_w, a->tile_columns);
}

ALWAYS_INLINE xent_tile xent_tile_at(const xent_conv_args *a, ptrdiff_t index)
{
    const ptrdiff_t columns = xent_ceil_div(a->window.out_w, a->tile_columns),
                    rows = xent_ceil_div(a->window.out_h, a->tile_rows);
    return (xent_tile){xent_cut(a->images, a->tile_images, index / columns / rows),
                       xent_cut(a->window.out_h, a->tile_rows, index / columns % rows),
                       xent_cut(a->window.out_w, a->tile_columns, index % columns)};
}
ALWAYS_INLINE ptrdiff_t xent_tile_pixels(const xent_tile *t) { return t->images.n * t->rows.n * t->columns.n; }

typedef struct {
    xent_span channels;
    xent_window window;     /* with the block's taps only */
    ptrdiff_t first, depth; /* its steps [first, first + depth) of all channels * taps: they follow each other */
} xent_block;

ALWAYS_INLINE ptrdiff_t xent_blocks(const xent_conv_args *a)
{
    return xent_ceil_div(a->in_channels, a->block_channels) * xent_ceil_div(a->window.kernel_h, a->block_rows) *
           xent_ceil_div(a->window.kernel_w, a->block_columns);
}

ALWAYS_INLINE xent_block xent_block_at(const xent_conv_args *a, ptrdiff_t index)
{
    const xent_window *w = &a->window;
    const ptrdiff_t columns = xent_ceil_div(w->kernel_w, a->block_columns),
                    rows = xent_ceil_div(w->kernel_h, a->block_rows);
    const xent_span i = xent_cut(w->kernel_h, a->block_rows, index / columns % rows);
    const xent_span j = xent_cut(w->kernel_w, a->block_columns, index % columns);
    xent_block b = {.channels = xent_cut(a->in_channels, a->block_channels, index / columns / rows), .window = *w};
    b.window.top -= i.begin * w->dilation_h;
    b.window.left -= j.begin * w->dilation_w;
    b.window.kernel_h = i.n;
    b.window.kernel_w = j.n;
    b.first = (b.channels.begin * w->kernel_h + i.begin) * w->kernel_w + j.begin;
    b.depth = b.channels.n * i.n * j.n;
    return b;
}

/* The inputs of one axis of a patch: of a phase `stride` apart in the image. */
typedef struct {
    ptrdiff_t stride, dilation, period, phases, length;
    ptrdiff_t step; /* in a phase, from output to output */
} xent_axis;

ALWAYS_INLINE xent_axis xent_axis_of(ptrdiff_t outputs, ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t dilation)
{
    ptrdiff_t a = stride, b = dilation;
    while (b) {
        const ptrdiff_t rest = a % b;
        a = b, b = rest;
    }
    const ptrdiff_t period = stride / a;
    return (xent_axis){.stride = stride,
                       .dilation = dilation,
                       .period = period,
                       .phases = taps < period ? taps : period,
                       .length = taps ? outputs + (taps - 1) * dilation / stride : 0,
                       .step = 1};
}

/* Inputs from the first to the last that outputs see along one axis. */
ALWAYS_INLINE ptrdiff_t xent_seen(ptrdiff_t outputs, ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t dilation)
{
    return (outputs - 1) * stride + (taps - 1) * dilation + 1;
}

/* The same in the order of the image. */
ALWAYS_INLINE xent_axis xent_axis_in_order(ptrdiff_t outputs, ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t dilation)
{
    return (xent_axis){.stride = 1,
                       .dilation = dilation,
                       .period = 1,
                       .phases = 1,
                       .length = taps ? xent_seen(outputs, taps, stride, dilation) : 0,
                       .step = stride};
}

ALWAYS_INLINE xent_axis xent_rows_of(const xent_conv_args *a, const xent_window *w, ptrdiff_t outputs)
{
    return (a->rows_in_order ? xent_axis_in_order : xent_axis_of)(outputs, w->kernel_h, w->stride_h, w->dilation_h);
}

ALWAYS_INLINE xent_axis xent_columns_of(const xent_conv_args *a, const xent_window *w, ptrdiff_t outputs)
{
    return (a->columns_in_order ? xent_axis_in_order : xent_axis_of)(outputs, w->kernel_w, w->stride_w, w->dilation_w);
}

/* The taps along one axis that outputs [first, last] see inside the image. */
ALWAYS_INLINE xent_span xent_taps_inside(ptrdiff_t first, ptrdiff_t last, ptrdiff_t stride, ptrdiff_t padding,
                                         ptrdiff_t dilation, ptrdiff_t size, ptrdiff_t kernel)
{
    const ptrdiff_t begin = xent_first_inside(last * stride - padding, dilation);
    const ptrdiff_t end = xent_end_inside(first * stride - padding, dilation, size, kernel);
    return (xent_span){begin, xent_max(0, end - begin)};
}

/* The outputs [0, n) of a tile that see the image through one of the taps [k, k + taps), along an axis; `first` is the
 * first of the tile. */
ALWAYS_INLINE xent_span xent_outputs_inside(ptrdiff_t first, ptrdiff_t n, ptrdiff_t k, ptrdiff_t taps, ptrdiff_t stride,
                                            ptrdiff_t padding, ptrdiff_t dilation, ptrdiff_t size)
{
    const ptrdiff_t start = first * stride - padding;
    const ptrdiff_t begin = xent_min(n, xent_count_below(start + (k + taps - 1) * dilation, stride, 0)),
                    end = xent_min(n, xent_count_below(start + k * dilation, stride, size));
    return (xent_span){begin, xent_max(0, end - begin)};
}

typedef struct {
    xent_axis rows, columns;
    ptrdiff_t image_step, channel_step;
} xent_patch;

ALWAYS_INLINE xent_patch xent_patch_of(const xent_conv_args *a, const xent_window *w, const xent_tile *t,
                                       ptrdiff_t item_size)
{
    const ptrdiff_t images = t->images.n;
    xent_patch p = {.rows = xent_rows_of(a, w, t->rows.n), .columns = xent_columns_of(a, w, t->columns.n)};
    const ptrdiff_t line = CACHE_LINE / item_size;
    p.image_step = p.rows.phases * p.columns.phases * p.rows.length * p.columns.length;
    /* An odd number of cache lines, or the channels of a pixel would fall into few sets of the caches; and room for the
     * vector that may be written behind a channel, while another thread fills the next. */
    p.channel_step = (xent_ceil_div(images * p.image_step + XENT_MOST_LANES, line) | 1) * line;
    return p;
}

/* The window with tap (i, j) alone. */
ALWAYS_INLINE xent_window xent_one_tap(const xent_window *w, ptrdiff_t i, ptrdiff_t j)
{
    xent_window one = *w;
    one.top -= i * w->dilation_h, one.left -= j * w->dilation_w;
    one.kernel_h = one.kernel_w = 1;
    return one;
}

/* What a tile sees through a block: a patch; of a tap, if taps are apart: then these are its channels; or the image
 * itself, whose window is one row then if lanes are pixels, or where rows and columns are in order (plan.c). */
ALWAYS_INLINE xent_patch xent_patch_at(const xent_conv_args *a, const xent_tile *t, const xent_block *b,
                                       ptrdiff_t item_size)
{
    const xent_window w = a->taps_apart ? xent_one_tap(&b->window, 0, 0) : b->window;
    xent_patch p = xent_patch_of(a, &w, t, item_size);
    if (a->x_in_place) {
        p.channel_step = a->window.height * a->window.width;
        p.image_step = a->groups * a->in_channels * p.channel_step;
        if (!a->lanes_are_pixels) p.columns.length = a->window.width;
    }
    return p;
}

/* Whether a plane of a patch is whole rows of the image. */
ALWAYS_INLINE int xent_is_whole(const xent_window *w, const xent_tile *t, const xent_patch *g)
{
    const ptrdiff_t y = t->rows.begin * w->stride_h - w->top;
    return g->rows.stride == 1 && g->columns.stride == 1 && t->columns.begin * w->stride_w == w->left &&
           g->columns.length == w->width && y >= 0 && y + g->rows.length <= w->height;
}

/* Where the first tap's input of a tile's first pixel of a row lies; the next column's is columns.step further. */
ALWAYS_INLINE ptrdiff_t xent_pixel_offset(const xent_patch *p, ptrdiff_t image, ptrdiff_t row)
{
    return image * p->image_step + row * p->rows.step * p->columns.length;
}

/* The offsets of all pixels of a tile in a patch. */
ALWAYS_INLINE void xent_pixel_offsets(const xent_tile *t, const xent_patch *p, int32_t *at)
{
    for (ptrdiff_t m = 0; m < t->images.n; m++)
        for (ptrdiff_t r = 0; r < t->rows.n; r++)
            for (ptrdiff_t q = 0; q < t->columns.n; q++)
                *at++ = (int32_t)(xent_pixel_offset(p, m, r) + q * p->columns.step);
}

/* Numbers of planes that are copied to panels at a time, from the stack; a plane has no more. */
enum { XENT_PLANES = 4096 };

/* Channels of a shared patch that are filled at a time. */
enum { XENT_FILLED_CHANNELS = 16 };

/* What it takes to copy a vector, or a part of one, of sums to its place, in multiplications of vectors. */
enum { XENT_COPY_COST = 8 };

/* Pixels behind the last whole vector of a tile whose sums have steps as lanes instead (product.h), and the steps from
 * which on they do. Four pixels of a vector of 16 were as fast either way. */
enum { XENT_REST_PIXELS = 2, XENT_REST_STEPS = 64 };

/* The pixels of a tile as vectors of `lanes`: run by run, each run a row of outputs or, where that takes fewer vectors,
 * all rows of an image with what lies between them in the patch, whose sums are of no use, or all images, if there is
 * nothing between them. What is chosen is the same for 16 bits as for floats, but for `direct`. Then sums go to the
 * output as they are, and the last vector of a run ends with it: it may overlap the one before, which gives the same
 * numbers again. So it does where the image is the patch, behind which nothing may be read, but the sums of that vector
 * are kept apart. Where there is one run and its last vector would be nearly empty, `rest` pixels have none. */
typedef struct {
    ptrdiff_t lanes, images, runs, length; /* runs of an image; pixels of a run */
    ptrdiff_t vectors, rest;               /* of a run */
    ptrdiff_t row_step, image_step;        /* from row to row, and from image to image, of sums that are kept */
    int direct, apart;                     /* apart: the last vector of kept sums, which overlaps the one before */
} xent_lanes;

/* Such pixels of a run, of convolutions of so many steps. */
ALWAYS_INLINE ptrdiff_t xent_rest_of(ptrdiff_t length, ptrdiff_t lanes, ptrdiff_t depth)
{
    const ptrdiff_t rest = length % lanes;
    return length > lanes && depth >= XENT_REST_STEPS && rest <= XENT_REST_PIXELS ? rest : 0;
}

ALWAYS_INLINE xent_lanes xent_lanes_of(const xent_conv_args *a, const xent_tile *t, const xent_patch *p,
                                       ptrdiff_t lanes, int complete)
{
    const ptrdiff_t depth = a->in_channels * a->window.kernel_h * a->window.kernel_w; /* the same for all blocks */
    const ptrdiff_t columns = t->columns.n, flat = (t->rows.n - 1) * p->columns.length + columns;
    const ptrdiff_t by_rows = t->rows.n * xent_ceil_div(columns, lanes), at_once = xent_ceil_div(flat, lanes);
    const int dense = a->out_step == 1 && complete,
              gapless = p->columns.length == columns && (a->out_row == columns || t->rows.n == 1);
    const ptrdiff_t copies = XENT_COPY_COST * by_rows; /* of rows out of sums that are not direct */
    const int faster = at_once * depth + copies < by_rows * depth + (dense && columns >= lanes ? 0 : copies);
    const int whole = a->block_columns == a->window.kernel_w /* or rows of patches have several lengths */
                      && (faster || gapless || a->panels);
    const ptrdiff_t images = t->images.n, all = xent_ceil_div(images * flat, lanes);
    const int across = whole && (gapless || a->panels) && p->image_step == flat &&
                       all * depth + images * copies < images * at_once * depth;
    xent_lanes l = {.lanes = lanes,
                    .images = across ? 1 : images,
                    .runs = whole ? 1 : t->rows.n,
                    .length = across  ? images * flat
                              : whole ? flat
                                      : columns,
                    .row_step = whole ? p->columns.length : xent_ceil_div(columns, lanes) * lanes};
    l.vectors = xent_ceil_div(l.length, lanes);
    l.image_step = across ? flat : l.runs * l.vectors * lanes;
    l.direct = dense && l.length >= lanes && !across && (!whole || gapless);
    l.rest = a->weights_in_rows && (gapless || t->rows.n == 1) && l.images * l.runs == 1
                 ? xent_rest_of(l.length, lanes, depth)
                 : 0;
    if (l.rest) l.vectors--;
    l.apart = a->x_in_place && !l.direct && !l.rest;
    return l;
}

ALWAYS_INLINE ptrdiff_t xent_vectors_of(const xent_lanes *l) { return l->images * l->runs * l->vectors; }

/* How rows, or vectors, of sums are cut into blocks of nearly equal height, at most `most`: five or six rows keep both
 * units busy, a rest of one or two would not. The first `taller` ones have one more. */
typedef struct {
    ptrdiff_t blocks, height, taller;
} xent_heights;

ALWAYS_INLINE xent_heights xent_heights_of(ptrdiff_t rows, ptrdiff_t most)
{
    const ptrdiff_t blocks = xent_ceil_div(rows, most), height = rows / xent_max(blocks, 1);
    return (xent_heights){.blocks = blocks, .height = height, .taller = rows - height * blocks};
}

/* Vectors of a block of `rows` channels where lanes are pixels. The fewer rows, the more vectors at once: eight sums keep
 * both units busy, and as many as fill the registers, 32 or 16, with their operands read least. */
ALWAYS_INLINE ptrdiff_t xent_longest(ptrdiff_t rows, int many_registers)
{
    static const int8_t most[2][ROWS + 1] = {{0, 8, 4, 3, 3, 2, 2}, {0, 8, 8, 6, 6, 4, 4}};
    return most[many_registers][rows];
}

/* A patch of panels has what each such block reads in the order in which it does, (block, step, vector, lane), without
 * gaps: lines are read whole and one after the other, where an image has them a plane apart. On a Zen 4 products of a
 * large depth came to 97 to 99 % of the peak that way, images read where they lie to 72 to 78 % (2 vectors). Behind the
 * panels lies what the pixels of a rest see, (pixel, step), 0 up to whole vectors. */
ALWAYS_INLINE ptrdiff_t xent_rest_steps(ptrdiff_t depth, ptrdiff_t lanes)
{
    return xent_ceil_div(depth, lanes) * lanes;
}

ALWAYS_INLINE ptrdiff_t xent_panel_numbers(const xent_lanes *l, ptrdiff_t depth)
{
    return xent_vectors_of(l) * depth * l->lanes + l->rest * xent_rest_steps(depth, l->lanes);
}

/* Whether the image has a tile's planes as they are: its vectors are read there. */
ALWAYS_INLINE int xent_lies_in_panels(const xent_window *w, const xent_tile *t, const xent_lanes *l)
{
    return w->kernel_h * w->kernel_w == 1 && w->stride_h == 1 && w->stride_w == 1 && w->top == 0 && w->left == 0 &&
           w->out_h == w->height && w->out_w == w->width && (t->rows.n == 1 || t->columns.n == w->width) &&
           l->images == t->images.n && (l->direct || (l->length - l->rest) % l->lanes == 0);
}

/* The offsets of their vectors, and of the steps of the lower blocks and, behind these, of the taller ones. */
ALWAYS_INLINE void xent_panel_offsets(const xent_lanes *l, ptrdiff_t depth, ptrdiff_t most, int32_t *at, int32_t *steps)
{
    const xent_heights h = xent_heights_of(xent_vectors_of(l), most);
    for (ptrdiff_t b = 0, v = 0, first = 0; b < h.blocks; b++)
        for (const ptrdiff_t end = (first = v) + h.height + (b < h.taller); v < end; v++)
            at[v] = (int32_t)((first * depth + v - first) * l->lanes);
    for (ptrdiff_t k = 0; k < depth; k++) {
        steps[k] = (int32_t)(k * h.height * l->lanes);
        steps[depth + k] = (int32_t)(k * (h.height + 1) * l->lanes);
    }
}

/* From channel to channel of sums that are kept. */
ALWAYS_INLINE ptrdiff_t xent_kept_sums(const xent_lanes *l) { return (xent_vectors_of(l) + (l->rest > 0)) * l->lanes; }

/* The offsets of all vectors: of their inputs in a patch and of their sums. */
ALWAYS_INLINE void xent_vector_offsets(const xent_conv_args *a, const xent_patch *p, const xent_lanes *l, int32_t *at,
                                       ptrdiff_t *places)
{
    ptrdiff_t v = 0;
    for (ptrdiff_t m = 0; m < l->images; m++) {
        for (ptrdiff_t r = 0; r < l->runs; r++) {
            for (ptrdiff_t q = 0; q < l->length - l->rest; q += l->lanes, v++) {
                const ptrdiff_t last = l->length - l->lanes, first = (l->direct || l->apart) && q > last ? last : q;
                at[v] = (int32_t)(xent_pixel_offset(p, m, r) + first);
                places[v] =
                    l->direct ? (m * a->groups * a->out_channels) * a->out_size + r * a->out_row + first : v * l->lanes;
            }
        }
    }
}

/* From the offsets of the taps of a channel those of all: channels are `step` apart. */
ALWAYS_INLINE void xent_repeat_taps(ptrdiff_t taps, ptrdiff_t channels, ptrdiff_t step, int32_t *at)
{
    if (taps == 1)
        for (ptrdiff_t c = 1; c < channels; c++) at[c] = (int32_t)(at[0] + c * step);
    else
        for (ptrdiff_t c = 1; c < channels; c++)
            for (ptrdiff_t k = 0; k < taps; k++) at[c * taps + k] = (int32_t)(at[k] + c * step);
}

/* The offset of tap (i, j) in a patch whose phases are so large. */
ALWAYS_INLINE ptrdiff_t xent_tap_offset(const xent_axis *y, const xent_axis *x, ptrdiff_t phase, ptrdiff_t i,
                                        ptrdiff_t j)
{
    return (i % y->period * x->phases + j % x->period) * phase + i * y->dilation / y->stride * x->length +
           j * x->dilation / x->stride;
}

/* The offsets of all taps of a block in a patch. */
ALWAYS_INLINE void xent_tap_offsets(const xent_conv_args *a, const xent_block *b, const xent_patch *p, int32_t *at)
{
    const xent_axis *y = &p->rows, *x = &p->columns;
    const ptrdiff_t phase = y->length * x->length;
    int32_t *first = at;
    if (a->taps_apart) {
        *at = 0;
        xent_repeat_taps(1, b->depth, p->channel_step, at);
        return;
    }
    for (ptrdiff_t i = 0; i < b->window.kernel_h; i++)
        for (ptrdiff_t j = 0; j < b->window.kernel_w; j++) *at++ = (int32_t)xent_tap_offset(y, x, phase, i, j);
    xent_repeat_taps(b->window.kernel_h * b->window.kernel_w, b->channels.n, p->channel_step, first);
}

/* Where lanes are channels: steps of a product after which the next rows are taken, at most. What all rows share of a
 * strip of 2 vectors of AVX2, 8 KiB, stays in an L1 cache of 32 KiB with the lines of the patch, a line or two for each
 * step and row of pixels. 192 steps took 1.04 to 1.1 times as long on pointwise layers with AVX2, 1.01 with AVX-512, of
 * which a strip takes 32 KiB, from the L2 cache (Zen 4). No more than PARTIAL (product.h): sums are added up once. */
enum { XENT_STEPS_AT_ONCE = 128 };

/* What is to be read next, and fetched meanwhile: rows of so many bytes. */
typedef struct {
    const char *at;
    ptrdiff_t rows, step, bytes;
} xent_ahead;

/* Taps that see nothing but padding are left out where lanes are channels: pixels are taken in such an order that those
 * of a block of a product (product.h) see about the same taps, and each block has tables for a box of taps that holds
 * all of them. Of so many boxes, 25 of kernels up to 5x5; the first is the whole kernel, which stands for others, too.
 * Blocks are of tiles of at most so many pixels. */
enum { XENT_MOST_BOXES = 26, XENT_BOXED_PIXELS = 480 };

typedef struct {
    xent_span i, j;
    ptrdiff_t taps;
    int32_t *steps, *at; /* of all taps of some channels: in the patch and in the packed weights */
} xent_box;

typedef struct {
    ptrdiff_t channels; /* in the tables */
    int count;
    xent_box box[XENT_MOST_BOXES];
    uint8_t of[XENT_BOXED_PIXELS]; /* the box of a block */
} xent_boxes;

/* Input channels whose steps are taken at once. */
ALWAYS_INLINE ptrdiff_t xent_boxed_channels(ptrdiff_t channels, ptrdiff_t taps)
{
    return xent_ceil_div(channels, xent_ceil_div(channels, XENT_STEPS_AT_ONCE / taps));
}

/* The smallest span that holds both; an empty one holds nothing. */
ALWAYS_INLINE xent_span xent_hull(xent_span a, xent_span b)
{
    if (a.n <= 0) return b;
    if (b.n <= 0) return a;
    const ptrdiff_t begin = xent_min(a.begin, b.begin), end = xent_max(a.begin + a.n, b.begin + b.n);
    return (xent_span){begin, end - begin};
}

/* The number of a box among those that were met. */
ALWAYS_INLINE uint8_t xent_find_box(xent_boxes *boxes, xent_span i, xent_span j)
{
    if (i.n <= 0 || j.n <= 0) i = j = (xent_span){0, 0};
    for (int k = 0; k < boxes->count; k++) {
        const xent_box *b = &boxes->box[k];
        if (b->i.begin == i.begin && b->i.n == i.n && b->j.begin == j.begin && b->j.n == j.n) return (uint8_t)k;
    }
    if (boxes->count == XENT_MOST_BOXES) return 0;
    boxes->box[boxes->count] = (xent_box){.i = i, .j = j, .taps = i.n * j.n};
    return (uint8_t)boxes->count++;
}

/* The taps that output row, or column, `o` of a tile sees inside the image. */
ALWAYS_INLINE xent_span xent_rows_seen(const xent_tile *t, const xent_window *w, ptrdiff_t o)
{
    o += t->rows.begin;
    return xent_taps_inside(o, o, w->stride_h, w->top, w->dilation_h, w->height, w->kernel_h);
}

ALWAYS_INLINE xent_span xent_columns_seen(const xent_tile *t, const xent_window *w, ptrdiff_t o)
{
    o += t->columns.begin;
    return xent_taps_inside(o, o, w->stride_w, w->left, w->dilation_w, w->width, w->kernel_w);
}

ALWAYS_INLINE int xent_same(xent_span a, xent_span b) { return a.begin == b.begin && a.n == b.n; }

/* Sort the pixels of a tile by the taps that they see: their offsets in the patch, their places among the sums, and the
 * boxes of their blocks, yet without tables. */
static __attribute__((unused)) void xent_sort_pixels(const xent_tile *t, const xent_window *w, const xent_patch *p,
                                                     int32_t *rows, ptrdiff_t *places, xent_boxes *boxes)
{
    const xent_heights h = xent_heights_of(xent_tile_pixels(t), ROWS);
    ptrdiff_t n = 0, block = 0, end = h.height + (h.taller > 0);
    xent_span met_i = {0, 0}, met_j = {0, 0}; /* by the pixels of a block */
    boxes->count = 1;
    boxes->box[0] = (xent_box){{0, w->kernel_h}, {0, w->kernel_w}, w->kernel_h * w->kernel_w, NULL, NULL};
    for (ptrdiff_t r0 = 0, r1; r0 < t->rows.n; r0 = r1) { /* rows that see the same taps, and columns */
        const xent_span down = xent_rows_seen(t, w, r0);
        for (r1 = r0 + 1; r1 < t->rows.n && xent_same(down, xent_rows_seen(t, w, r1));) r1++;
        for (ptrdiff_t q0 = 0, q1; q0 < t->columns.n; q0 = q1) {
            const xent_span across = xent_columns_seen(t, w, q0);
            for (q1 = q0 + 1; q1 < t->columns.n && xent_same(across, xent_columns_seen(t, w, q1));) q1++;
            const xent_span i = across.n > 0 ? down : across, j = down.n > 0 ? across : down;
            for (ptrdiff_t m = 0; m < t->images.n; m++)
                for (ptrdiff_t r = r0; r < r1; r++)
                    for (ptrdiff_t q = q0; q < q1; q++) {
                        rows[n] = (int32_t)(xent_pixel_offset(p, m, r) + q * p->columns.step);
                        places[n] = (m * t->rows.n + r) * t->columns.n + q;
                        met_i = xent_hull(met_i, i), met_j = xent_hull(met_j, j);
                        if (++n < end) continue;
                        boxes->of[block++] = xent_find_box(boxes, met_i, met_j);
                        met_i = met_j = (xent_span){0, 0};
                        end += h.height + (block < h.taller);
                    }
        }
    }
}

/* The same for grad_weight: its rows are taps, those of a tap follow each other, and their steps are the pixels that see
 * the image through it. Of so many taps at most, as 5x5 has. */
enum { XENT_SKIPPING_TAPS = 25 };

/* The rows of a block, (tap, channel): their offsets in the patch, and their places, (channel, tap), among the sums. */
ALWAYS_INLINE void xent_rows_by_tap(const xent_block *b, const xent_patch *p, int32_t *rows, ptrdiff_t *places)
{
    const ptrdiff_t taps = b->window.kernel_h * b->window.kernel_w, phase = p->rows.length * p->columns.length;
    for (ptrdiff_t k = 0; k < taps; k++) {
        const ptrdiff_t i = k / b->window.kernel_w, j = k % b->window.kernel_w;
        const ptrdiff_t first = xent_tap_offset(&p->rows, &p->columns, phase, i, j);
        for (ptrdiff_t c = 0; c < b->channels.n; c++) {
            *rows++ = (int32_t)(first + c * p->channel_step);
            *places++ = c * taps + k;
        }
    }
}

/* The pixels of a tile that see the image through tap (i, j): their offsets in the patch and in a packed gradient.
 * Returns how many there are. */
ALWAYS_INLINE ptrdiff_t xent_pixels_of_tap(const xent_tile *t, const xent_window *w, const xent_patch *p, ptrdiff_t i,
                                           ptrdiff_t j, ptrdiff_t width, int32_t *steps, int32_t *at)
{
    const xent_span r =
        xent_outputs_inside(t->rows.begin, t->rows.n, i, 1, w->stride_h, w->top, w->dilation_h, w->height);
    const xent_span q =
        xent_outputs_inside(t->columns.begin, t->columns.n, j, 1, w->stride_w, w->left, w->dilation_w, w->width);
    ptrdiff_t n = 0;
    for (ptrdiff_t m = 0; m < t->images.n; m++) {
        for (ptrdiff_t row = r.begin; row < r.begin + r.n; row++) {
            const ptrdiff_t first = xent_pixel_offset(p, m, row), pixel = (m * t->rows.n + row) * t->columns.n;
            for (ptrdiff_t k = q.begin; k < q.begin + q.n; k++, n++) {
                steps[n] = (int32_t)(first + k * p->columns.step);
                at[n] = (int32_t)((pixel + k) * width);
            }
        }
    }
    return n;
}

/* The tables of all boxes: 2 * XENT_STEPS_AT_ONCE numbers of `room` for each. */
static __attribute__((unused)) void xent_fill_boxes(const xent_conv_args *a, const xent_block *b, const xent_patch *p,
                                                    xent_boxes *boxes, int32_t *room)
{
    const xent_axis *y = &p->rows, *x = &p->columns;
    const ptrdiff_t taps = b->window.kernel_h * b->window.kernel_w, phase = y->length * x->length;
    boxes->channels = xent_boxed_channels(b->channels.n, taps);
    for (int k = 0; k < boxes->count; k++, room += 2 * XENT_STEPS_AT_ONCE) {
        xent_box *box = &boxes->box[k];
        int32_t *step = box->steps = room, *at = box->at = room + XENT_STEPS_AT_ONCE;
        for (ptrdiff_t i = box->i.begin; i < box->i.begin + box->i.n; i++) {
            for (ptrdiff_t j = box->j.begin; j < box->j.begin + box->j.n; j++) {
                *step++ = (int32_t)xent_tap_offset(y, x, phase, i, j);
                *at++ = (int32_t)((i * b->window.kernel_w + j) * a->width);
            }
        }
        if (box->taps == 0) continue;
        xent_repeat_taps(box->taps, boxes->channels, p->channel_step, box->steps);
        xent_repeat_taps(box->taps, boxes->channels, taps * a->width, box->at);
    }
}

#endif
