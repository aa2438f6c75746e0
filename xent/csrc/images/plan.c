/* plan.c: how a convolution is cut into chunks, tiles and blocks (layout.h). Everything depends on shapes, the element
 * type and the instruction set alone, never on the number of threads.
 *
 * The sizes aim at a second-level cache of 512 KiB, the smallest among processors with AVX2 that are sold today but for
 * some of Intel's older ones (256 KiB): the patch takes at most half of it, so that packed weights and sums find room
 * beside it.
 */
#include "images/layout.h"
#include "plan.h"

#include <stdint.h>

enum {
    PATCH_BYTES = 256 * 1024,
    SUMS_BYTES = 192 * 1024,
    TILE_PIXELS = 480,   /* of a forward tile: weights that are read once serve all of them */
    LANE_PIXELS = 4096,  /* of one whose lanes are pixels: they share few weights, but rows of the patch */
    FEW_PIXELS = 120,    /* a smaller tile would read the weights too often: rather take fewer channels at a time */
    GRAD_PIXELS = 384,   /* of a tile of grad_weight: the steps of its products, see STEPS_AT_ONCE in conv.h */
    GRAD_STEPS = 576,    /* taps of a block of grad_weight: enough to share the cost of packing the gradient */
    GRAD_CHANNELS = 128, /* output channels of a chunk of grad_weight, likewise for the patch */
    ENOUGH = 16,         /* chunks to share among threads; with fewer the work is cut finer where that costs little */
    SHORT_SUM = 200,     /* steps of a sum so short that to transpose the sums would take as long as a tenth of them */
    WIDE_ROW = 4,        /* vectors of a row of outputs, so that little of the last one is wasted */
    CHUNK_PRODUCTS = 1 << 17,        /* multiplications of a chunk, some 5 us: below, handing out chunks would show */
    PARTIAL_BYTES = 4 * 1024 * 1024, /* sums of grad_weight over different tiles, all together */
    THREAD_ADDITIONS = 262144,       /* of merged sums, that are worth a thread: some 100 us */
    BOX_BYTES = 64 * 1024, /* of an image that col2im adds up at a time: the rows of the matrix need a cache, too */
    SLACK = 64             /* numbers read or written behind the last: a few vectors of 16 */
};

/* The length of pieces of `size` that are nearly equal and at most `piece`. */
static ptrdiff_t even(ptrdiff_t size, ptrdiff_t piece)
{
    return size == 0 ? 1 : xent_ceil_div(size, xent_ceil_div(size, xent_max(piece, 1)));
}

/* a * b, or `limit` where that is larger: a patch through a dilated kernel may be of any size before it is cut. */
#define HUGE_NUMBER (PTRDIFF_MAX / 2)
static ptrdiff_t product(ptrdiff_t a, ptrdiff_t b, ptrdiff_t limit) { return b != 0 && a > limit / b ? limit : a * b; }

/* Numbers of the patch of the largest tile through kernel rows x columns of one channel, at most `limit`. */
static ptrdiff_t patch_numbers(const xent_conv_args *a, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t limit)
{
    const xent_window *w = &a->window;
    const xent_axis y = xent_axis_of(a->tile_rows, rows, w->stride_h, w->dilation_h);
    const xent_axis x = xent_axis_of(a->tile_columns, columns, w->stride_w, w->dilation_w);
    const ptrdiff_t plane = product(product(y.phases, y.length, limit), product(x.phases, x.length, limit), limit);
    return product(a->tile_images, plane, limit) + CACHE_LINE; /* the channels are a little apart */
}

/* The box of output pixels: whole images, or rows of one, or a piece of a row. */
static void cut_tiles(xent_conv_args *a, ptrdiff_t pixels, ptrdiff_t budget)
{
    const xent_window *w = &a->window;
    a->tile_images = a->tile_rows = 1;
    a->tile_columns = even(w->out_w, pixels);
    a->tile_rows = even(w->out_h, pixels / a->tile_columns);
    if (a->tile_rows == w->out_h && a->tile_columns == w->out_w)
        a->tile_images = even(a->images, pixels / (w->out_h * w->out_w));
    /* Smaller while not all channels fit. */
    while (product(a->in_channels, patch_numbers(a, w->kernel_h, w->kernel_w, budget), budget) >= budget &&
           a->tile_images * a->tile_rows * a->tile_columns >= 2 * FEW_PIXELS) {
        if (a->tile_images > 1)
            a->tile_images = even(a->images, a->tile_images / 2);
        else if (a->tile_rows > 1)
            a->tile_rows = even(w->out_h, a->tile_rows / 2);
        else
            a->tile_columns = even(w->out_w, a->tile_columns / 2);
    }
}

/* The box of the kernel: as many channels as fit, else rows of taps of one, else a piece of a row. */
static void cut_blocks(xent_conv_args *a, ptrdiff_t budget)
{
    const xent_window *w = &a->window;
    a->block_channels = a->block_rows = 1;
    a->block_columns = w->kernel_w;
    while (a->block_columns > 1 && patch_numbers(a, 1, a->block_columns, budget) >= budget)
        a->block_columns = xent_ceil_div(a->block_columns, 2);
    if (a->block_columns < w->kernel_w) return;
    a->block_rows = w->kernel_h;
    while (a->block_rows > 1 && patch_numbers(a, a->block_rows, w->kernel_w, budget) >= budget)
        a->block_rows = xent_ceil_div(a->block_rows, 2);
    if (a->block_rows < w->kernel_h) return;
    a->block_channels = even(a->in_channels, budget / patch_numbers(a, w->kernel_h, w->kernel_w, budget));
}

static ptrdiff_t tile_pixels(const xent_conv_args *a) { return a->tile_images * a->tile_rows * a->tile_columns; }
static ptrdiff_t block_steps(const xent_conv_args *a) { return a->block_channels * a->block_rows * a->block_columns; }

/* Groups of a chunk, so that it is worth handing out, given the multiplications of one group in it. */
static void cut_groups(xent_conv_args *a, ptrdiff_t products, ptrdiff_t chunks)
{
    const ptrdiff_t worth = CHUNK_PRODUCTS / xent_max(products, 1),
                    spare = product(a->groups, chunks, HUGE_NUMBER) / ENOUGH;
    a->group_chunk = xent_max(1, xent_min(xent_min(worth, spare), a->groups));
}

static ptrdiff_t scratch_size(const xent_conv_args *a, ptrdiff_t size)
{
    return (a->patch_room + a->packed_room + a->sums_room) * size +
           (a->row_room + a->step_room) * (ptrdiff_t)sizeof(int32_t) +
           (a->lanes_are_pixels ? a->row_room * (ptrdiff_t)sizeof(ptrdiff_t) : 0);
}

/* What conv2d_pack writes, or a number that no memory has. */
static ptrdiff_t packed_bytes(const xent_conv_args *a, ptrdiff_t strips, ptrdiff_t size)
{
    const xent_window *w = &a->window;
    ptrdiff_t bytes = size;
    bytes = product(bytes, a->groups, HUGE_NUMBER), bytes = product(bytes, strips, HUGE_NUMBER);
    bytes = product(bytes, a->width, HUGE_NUMBER), bytes = product(bytes, a->in_channels, HUGE_NUMBER);
    return product(product(bytes, w->kernel_h, HUGE_NUMBER), w->kernel_w, HUGE_NUMBER);
}

/* Room for `patch` and the tables of the tiles and blocks that were chosen. */
static void plan_scratch(xent_conv_args *a)
{
    a->patch_room = a->block_channels * patch_numbers(a, a->block_rows, a->block_columns, HUGE_NUMBER) + SLACK;
    a->patch_room = xent_ceil_div(a->patch_room, CACHE_LINE) * CACHE_LINE; /* what follows begins on a line */
    a->packed_room = xent_ceil_div(a->packed_room, CACHE_LINE) * CACHE_LINE;
    a->sums_room = xent_ceil_div(a->sums_room, CACHE_LINE) * CACHE_LINE;
    a->row_room = tile_pixels(a);
    a->step_room = block_steps(a);
}

/* Whether vectors of output channels would be emptier than vectors of pixels of a row. */
static int few_channels(const xent_conv_args *a)
{
    return a->out_channels <= ROWS && a->window.out_w >= a->out_channels;
}

/* Output channels of a strip: as many as a product takes, or all, rounded up to whole vectors. */
static ptrdiff_t strip_width(const xent_conv_args *a, const xent_table *table, ptrdiff_t size)
{
    const ptrdiff_t lanes = table->vector_bytes / size;
    return xent_min(table->strip_bytes / size, xent_ceil_div(a->out_channels, lanes) * lanes);
}

/* Make a block of grad_weight smaller until it has at most `steps` taps, and no more than are of use. */
static void cut_steps(xent_conv_args *a, ptrdiff_t steps)
{
    const xent_window *w = &a->window;
    a->block_columns = xent_min(a->block_columns, steps);
    a->block_rows = a->block_columns < w->kernel_w ? 1 : xent_min(a->block_rows, xent_max(1, steps / w->kernel_w));
    a->block_channels = a->block_columns < w->kernel_w || a->block_rows < w->kernel_h
                            ? 1
                            : even(a->in_channels, xent_min(a->block_channels,
                                                            xent_min(steps, GRAD_STEPS) / (w->kernel_h * w->kernel_w)));
}

xent_plan xent_plan_conv2d(xent_conv_args *a, const xent_table *table, int dtype)
{
    const ptrdiff_t size = xent_real_size(dtype), budget = PATCH_BYTES / size, lanes = table->strip_bytes / size;
    const ptrdiff_t taps = a->window.kernel_h * a->window.kernel_w, steps = a->in_channels * taps;
    a->lanes_are_pixels =
        few_channels(a) || (taps > 1 && steps <= SHORT_SUM && a->window.out_w * size >= WIDE_ROW * table->vector_bytes);
    a->width = a->lanes_are_pixels ? even(a->out_channels, ROWS) : strip_width(a, table, size);
    cut_tiles(a, a->lanes_are_pixels ? LANE_PIXELS : TILE_PIXELS, budget);
    cut_blocks(a, budget);
    const ptrdiff_t pixels = tile_pixels(a), strips = xent_ceil_div(a->out_channels, a->width), tiles = xent_tiles(a);
    cut_groups(a, pixels * steps * a->out_channels, tiles);
    const ptrdiff_t found = tiles * xent_ceil_div(a->groups, a->group_chunk);
    a->strip_chunk = even(strips, strips / xent_max(1, xent_ceil_div(ENOUGH, xent_max(found, 1))));
    const ptrdiff_t sums = a->width * (pixels + (a->lanes_are_pixels ? a->tile_images * a->tile_rows * lanes : 0));
    if (xent_blocks(a) > 1) /* all keep their sums */
        a->strip_chunk = xent_max(1, xent_min(a->strip_chunk, SUMS_BYTES / size / sums));
    a->sums_room = xent_blocks(a) > 1 ? a->strip_chunk * sums : sums;
    a->sums_room += SLACK * a->width;
    plan_scratch(a);
    return (xent_plan){.chunks = found * xent_ceil_div(strips, a->strip_chunk),
                       .scratch_size = scratch_size(a, size),
                       .pack_chunks = a->groups * strips,
                       .packed = packed_bytes(a, strips, size)};
}

xent_plan xent_plan_grad_weight(xent_conv_args *a, const xent_table *table, int dtype)
{
    const ptrdiff_t size = xent_real_size(dtype), budget = PATCH_BYTES / 2 / size;
    const ptrdiff_t taps = a->window.kernel_h * a->window.kernel_w, steps = a->in_channels * taps;
    a->lanes_are_pixels = few_channels(a);
    a->width = a->lanes_are_pixels ? a->out_channels : strip_width(a, table, size);
    cut_tiles(a, a->lanes_are_pixels ? LANE_PIXELS : GRAD_PIXELS, HUGE_NUMBER);
    cut_blocks(a, budget);
    cut_steps(a, SUMS_BYTES / size / a->width);
    const ptrdiff_t pixels = tile_pixels(a), strips = xent_ceil_div(a->out_channels, a->width), tiles = xent_tiles(a);
    const ptrdiff_t here = block_steps(a), blocks = xent_blocks(a);
    a->strip_chunk = even(strips, xent_min(GRAD_CHANNELS, SUMS_BYTES / size / here) / a->width);
    const ptrdiff_t ranges = blocks * xent_ceil_div(strips, a->strip_chunk);
    cut_groups(a, product(a->images * a->window.out_h * a->window.out_w, here * a->out_channels, HUGE_NUMBER), ranges);
    const ptrdiff_t found = ranges * xent_ceil_div(a->groups, a->group_chunk);
    const ptrdiff_t room = PARTIAL_BYTES / xent_max(1, product(a->groups * a->out_channels, steps * size, HUGE_NUMBER));
    a->tile_chunk = even(tiles, xent_ceil_div(tiles, xent_max(1, xent_min(xent_ceil_div(ENOUGH, found), room))));
    a->packed_room = a->lanes_are_pixels ? 0 : pixels * a->width;
    a->sums_room = a->strip_chunk * here * a->width + SLACK * a->width;
    plan_scratch(a);
    const ptrdiff_t partials = xent_ceil_div(tiles, a->tile_chunk);
    return (xent_plan){.chunks = found * partials, .scratch_size = scratch_size(a, size), .partials = partials};
}

xent_plan xent_plan_merge(xent_merge_args *a)
{
    a->chunk = XENT_CHUNK;
    return (xent_plan){.chunks = xent_ceil_div(a->size, a->chunk),
                       .threads = xent_max(1, product(a->size, a->partials, HUGE_NUMBER) / THREAD_ADDITIONS)};
}

xent_plan xent_plan_im2col(xent_im2col_args *a) { return (xent_plan){.chunks = a->planes}; }

xent_plan xent_plan_col2im(xent_im2col_args *a, int dtype)
{
    const ptrdiff_t size = xent_real_size(dtype), numbers = BOX_BYTES / size;
    a->box_columns = even(a->window.width, numbers);
    a->box_rows = even(a->window.height, numbers / a->box_columns);
    return (xent_plan){.chunks = a->planes, .scratch_size = a->box_rows * a->box_columns * size};
}
