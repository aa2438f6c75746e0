/* plan.c: how a convolution is cut into chunks, tiles and blocks (layout.h). Everything depends on shapes, the element
 * type and the instruction set alone, never on the number of threads.
 *
 * The sizes aim at a second-level cache of 512 KiB, the smallest among processors with AVX2 that are sold today but for
 * some of Intel's older ones (256 KiB): the patch takes at most half of it, so that packed weights and sums find room
 * beside it.
 */
#include "images/layout.h"
#include "plan.h"

#include <math.h>
#include <stdint.h>

enum {
    PATCH_BYTES = 256 * 1024,
    SUMS_BYTES = 192 * 1024,
    TILE_PIXELS = 480,   /* of a forward tile: weights that are read once serve all of them */
    FEW_PIXELS = 120,    /* a smaller tile would read the weights too often: rather take fewer channels at a time */
    PACKED = 16 * 1024,  /* numbers of a chunk that packs weights, some 10 us */
    GRAD_PIXELS = 384,   /* of a tile of grad_weight: the steps of its products, see STEPS_AT_ONCE in conv.h */
    GRAD_STEPS = 576,    /* taps of a block of grad_weight: enough to share the cost of packing the gradient */
    GRAD_CHANNELS = 128, /* output channels of a chunk of grad_weight, likewise for the patch */
    ENOUGH = 16,         /* chunks to share among threads; with fewer the work is cut finer where that costs little */
    /* Where lanes are pixels. Of a tile: they share few weights, but rows of the patch; and the fewest, if that gives
     * ENOUGH tiles. 400 were as fast on one thread. */
    LANE_PIXELS = 4096,
    FEW_LANE_PIXELS = 224,
    /* Of a tile that is read where it lies: its numbers, a quarter of a cache of the second level of 2 MiB, and the
     * least pixels, two blocks of four vectors of AVX-512. 2^14 to 2^16 numbers took 1.02 to 1.07 times as long (16
     * pointwise layers, two threads). And the most pixels: six sums of each, as doubles, with its tables, are to take less
     * than 4 MiB. */
    PLACE_NUMBERS = 1 << 17,
    PLACE_PIXELS = 128,
    MOST_PLACE_PIXELS = 1 << 16,
    /* Of layers with at most so many outputs, to copy what they see would show; of others, if channels lie on pages of
     * their own, it paid: 64-256 on eight images of 56 x 56 took 0.8 of the time. */
    PLACE_OUTPUTS = 64,
    PLACE_INPUTS = 64, /* and at most so many channels: as many pages as a processor finds at once. 144 were slower */
    PAGE = 4096,
    MOST_EMPTY = 8, /* of several images, if less than this part of their vectors is empty */
    /* Of panels (layout.h): pixels of a tile, as FEW_LANE_PIXELS, and the fewest, as weights are read once for each tile;
     * output channels at least, which share what it takes to fill them; bytes of a patch, half an L2 cache of 1 MiB,
     * and of all that are shared: the 4 MiB of one thread, less its sums and tables. */
    PANEL_PIXELS = 224,
    FEW_PANEL_PIXELS = 128,
    PANEL_CHANNELS = 32,
    PANEL_BYTES = 512 * 1024,
    SHARED_PANEL_BYTES = 4 * 1024 * 1024 - 256 * 1024,
    /* With no more outputs than a strip has, an image of many large planes is read once and hardly worked on: some
     * channels at a time, as many streams as a processor follows, of pixels whose sums stay in the nearest cache. On a
     * Zen 4 layers of 100 to 1024 inputs took 0.5 to 0.85 of the time of a copy; 8 channels or 1024 pixels gained less,
     * 32 channels half. */
    STREAMED_CHANNELS = 16,
    STREAMED_PIXELS = 2048,
    PLACE_CHANNELS = 4096, /* and the most: numbers of 16 bits are converted to a patch, of 2 MiB then */
    /* And of a patch, which is read in order: from 256 KiB to 1 MiB as fast but for sums of several blocks. */
    LANE_PATCH_BYTES = 512 * 1024,
    SHARED_BYTES = 1024 * 1024, /* of patches that several chunks read: more would not stay in the caches */
    FEW_STRIPS = 8,             /* that read a patch if it is filled for each chunk, so that this does not show */
    HERE_STRIPS = 4,            /* see packs_cheaply */
    EVEN_STEPS = 24,            /* see even_strips */
    HERE_TILES = 2,             /* of a group at most, if chunks pack their own weights: that takes half the time */
    TRANSPOSE_COST = 24,        /* of a vector of sums, in multiplications of vectors: 45 layers on a Sapphire Rapids */
    CHUNK_PRODUCTS = 1 << 17,   /* multiplications of a chunk, some 5 us: below, handing out chunks would show */
    STRIPS_PRODUCTS = 1 << 19,  /* and of one where a thread has to read the patch of another */
    PARTIAL_BYTES = 4 * 1024 * 1024, /* sums of grad_weight over different tiles, all together */
    THREAD_ADDITIONS = 262144,       /* of merged sums, that are worth a thread: some 100 us */
    BOX_BYTES = 64 * 1024, /* of an image that col2im adds up at a time: the rows of the matrix need a cache, too */
    /* Where lanes are groups: of a patch, two thirds of an L1 cache of 48 KiB, and the most if a row of outputs needs
     * more; pairs of an input and an output channel of a group; terms that are added up one after the other (PARTIAL in
     * product.h); and outputs of a row, see groups_are_faster. */
    GROUPED_BYTES = 32 * 1024,
    GROUPED_FAR = 4, /* times as much in a cache of the second level */
    MOST_GROUPED_BYTES = 1024 * 1024,
    GROUPED_PAIRS = 16,
    PLANE_BYTES = 16 * 1024, /* of the patch of a plane (depthwise.h): half of an L1 cache of 32 KiB */
    WIDE_PLANE = 12,         /* pixels of a row, see planes_are_faster */
    PARTIAL_TERMS = 128,
    WIDE_ROW = 64,
    SHORT_ROW = 16,
    APART = XENT_MOST_LANES + 2 * CACHE_LINE / (int)sizeof(float), /* numbers between taps in an im2col matrix */
    /* Where padding is left out: rows and columns of an output at most, beyond which padding is little; and
     * multiplications of vectors that are saved for a step of a strip: some 9 boxes have two numbers for it in their
     * tables, and its weights are looked at once. */
    SKIPPED_SIZE = 64,
    SKIPPED_PRODUCTS = 32,
    SKIPPED_GRADS = 8, /* likewise, for a pixel and a tap of grad_weight */
    SLACK = 64         /* numbers read or written behind the last: a few vectors of 16 */
};

/* What a forward pass takes in each of three ways, with panels, with pixels and with channels as lanes, is compared in
 * multiplications of vectors where lanes are channels (..._take). The constants were fitted to 445 layers drawn at random,
 * without pointwise ones, each taken in all ways, on a Zen 4 with AVX-512 and with AVX2: what they choose took 1.02 times
 * as long as the best way in the mean, the choice before 1.1. A multiplication where lanes are pixels, and with one tap,
 * which reads a patch once for each strip; to store a vector of their sums, and to sort a number of a patch by phases, and
 * where that is done one by one, of strides beyond 2. */
#define LANE_PIXELS_COST 1.08
#define ONE_TAP_PIXELS_COST 1.25
#define PIXELS_STORE_COST 9
#define PHASE_COST 0.5
#define SINGLE_COST 1
/* Where lanes are channels: a multiplication of a strip of one vector, whose blocks load seven numbers or vectors for six;
 * and of pointwise layers with strides, each of whose numbers is copied for one step. */
#define ONE_VECTOR_COST 1.05
#define ONE_TAP_COST 1.06
/* And where a pointwise layer is its own patch. */
#define PLACE_PIXELS_COST 1.12

/* And what patches as im2col matrices cost, which are read from farther away; and to copy an image and a row of it for
 * a tap, in multiplications of vectors. Measured with AVX-512: 253-200 on four images of 4 x 4, half the vectors, took
 * 0.8 of the time, 512-512 on one of 7 x 7, three quarters, the same; a copy of a row of one pixel, of 8-16 with 5x5 on
 * 64 images of 5 x 5, some 50 multiplications. With padding and stride 1 the other ways copy rows as well, and what is
 * more in this one is less: 1-16 with 3x3 on 256 images of 8 x 8 took 0.56 of the time, 1-8 on 200 of 5 x 5 0.69 (AVX2)
 * and 0.75 (AVX-512, Zen 4); without padding 1.4 times the time. */
#define TAPS_APART_COST 1.1
/* Of panels: to copy a vector of a step, a multiplication, and to store a vector of sums, whose tiles are small and lie in
 * as many planes as there are outputs. Layers of few steps, whose sums are most of their work, took up to twice as long
 * with panels on one thread, up to four times on two: 23 x 2-98 of 138 x 138 with 2x2/2 in two groups, 18 x 1-76 of 167 x
 * 167 with 3x3/2. And of pointwise layers, whose planes are copied as they are; what two vectors of a block take that are
 * read where they lie. Measured on a Zen 4, of 36 layers; on two threads layers of 96 to 144 outputs took 1.25 to 1.35
 * times as long with panels. */
#define SPREAD_COST 30
#define PANEL_COST 1.05
#define PANEL_STORE_COST 10
#define PLACE_SPREAD_COST 30
#define PLACE_COST 1.2
#define PLANE_COST 50
#define ROW_COST 10
#define PADDED_PLANE_COST 18
#define PADDED_ROW_COST 3
/* A patch is costly from this part of the products of a strip on: 11-67 with 7x7/3 on 64 images of 9 x 9 took 0.63 of
 * the time then. */
#define FILL_SHARE 4
#define REST_COST 0.2 /* in vectors: of a rest, whose lanes are steps */
/* What it costs to take each block of sums through taps of its own, in vectors of a row of it: less padding is not left
 * out. On a Zen 4 that is a gain of 2 % on 28 x 28 pixels, of which 5 % are padding, with 4 vectors (AVX-512), none with two
 * (AVX2), of 3 % on 14 x 14, 9 %, with both. Of grad_weight 0.3. And the part of it that is left out: of few pixels some
 * blocks see it in part. */
#define APART_COST 0.1
#define GRAD_APART_COST 0.3
#define LEFT_OUT (2.0 / 3)
/* To pack a vector of weights at once before they are read, a cycle for each number or less: of 30 layers on one image 9
 * took 0.74 to 0.98 of the time with this instead of PACK_COST. */
#define HERE_COST 12.0
/* And once for all chunks, as it comes from a cache or from memory; of 44 layers on a Zen 4 with AVX2, with 2 three
 * pointwise ones took 1.1 to 1.4 times as long. */
#define PACK_COST 1.5
#define PLACE_PACK_COST 3

/* The length of pieces of `size` that are nearly equal and at most `piece`. */
static ptrdiff_t even(ptrdiff_t size, ptrdiff_t piece)
{
    return size == 0 ? 1 : xent_ceil_div(size, xent_ceil_div(size, xent_max(piece, 1)));
}

/* a * b, or `limit` where that is larger: a patch through a dilated kernel may be of any size before it is cut. */
#define HUGE_NUMBER (PTRDIFF_MAX / 2)
static ptrdiff_t product(ptrdiff_t a, ptrdiff_t b, ptrdiff_t limit) { return b != 0 && a > limit / b ? limit : a * b; }

static ptrdiff_t tile_pixels(const xent_conv_args *a) { return a->tile_images * a->tile_rows * a->tile_columns; }

/* Whether an axis of a patch that is read number by number stays in the order of the image: where that makes it at most
 * `most` times as long. */
static int in_order(ptrdiff_t outputs, ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t dilation, ptrdiff_t most)
{
    const xent_axis sorted = xent_axis_of(outputs, taps, stride, dilation);
    return xent_seen(outputs, taps, stride, dilation) <= most * sorted.phases * sorted.length;
}

/* For lanes that are no pixels. Columns with strides beyond 2 are sorted one by one, which takes longer than to copy
 * twice as many by vectors. */
static void order_patch(xent_conv_args *a)
{
    const xent_window *w = &a->window;
    a->rows_in_order = in_order(w->out_h, w->kernel_h, w->stride_h, w->dilation_h, 1);
    a->columns_in_order = in_order(w->out_w, w->kernel_w, w->stride_w, w->dilation_w, w->stride_w > 2 ? 2 : 1);
}

/* Taps along an axis that all outputs together see inside the image. */
static ptrdiff_t taps_seen(ptrdiff_t outputs, ptrdiff_t stride, ptrdiff_t padding, ptrdiff_t dilation, ptrdiff_t size,
                           ptrdiff_t kernel)
{
    ptrdiff_t seen = 0;
    for (ptrdiff_t o = 0; o < outputs; o++) seen += xent_taps_inside(o, o, stride, padding, dilation, size, kernel).n;
    return seen;
}

/* The part of all products that meets padding alone; 0 where it is too little to be left out. */
static double padding_of(const xent_conv_args *a, ptrdiff_t lanes, double apart)
{
    const xent_window *w = &a->window;
    if (a->x_in_place || w->kernel_h * w->kernel_w == 1 || w->out_h > SKIPPED_SIZE || w->out_w > SKIPPED_SIZE) return 0;
    const ptrdiff_t down = taps_seen(w->out_h, w->stride_h, w->top, w->dilation_h, w->height, w->kernel_h),
                    across = taps_seen(w->out_w, w->stride_w, w->left, w->dilation_w, w->width, w->kernel_w);
    const double padding =
        1 - (double)down * (double)across / ((double)(w->out_h * w->out_w) * (double)(w->kernel_h * w->kernel_w));
    return padding * (double)(a->width / lanes) < apart ? 0 : padding;
}

/* Whether taps on the padding are left out where lanes are channels: if that saves so many multiplications of a step that
 * neither its tables show nor the look for weights that are not finite. */
static int padding_is_worth_it(const xent_conv_args *a, ptrdiff_t lanes)
{
    const ptrdiff_t taps = a->block_rows * a->block_columns, pixels = tile_pixels(a);
    return taps <= XENT_STEPS_AT_ONCE && pixels <= XENT_BOXED_PIXELS &&
           padding_of(a, lanes, APART_COST) * (double)(pixels * (a->width / lanes)) >= SKIPPED_PRODUCTS;
}

/* And of grad_weight: the tables of a tap have two numbers for each pixel. Blocks of rows of a tap have to be high. */
static int grad_padding_is_worth_it(const xent_conv_args *a, ptrdiff_t lanes)
{
    const ptrdiff_t taps = a->block_rows * a->block_columns, vectors = a->strip_chunk * a->width / lanes;
    return taps <= XENT_SKIPPING_TAPS && a->block_channels >= 4 * ROWS &&
           padding_of(a, lanes, GRAD_APART_COST) * (double)(a->block_channels * vectors) >= SKIPPED_GRADS;
}

/* Whether such lanes read the image where it lies: there is no padding, and channels lie so near to each other that the
 * processor finds their pages. For the tiles that were chosen. Patches lie denser, in the nearest cache, where each strip
 * reads them again: with strips of two vectors (AVX2) pointwise layers took 1.1 to 1.2 times as long in place, with four
 * (AVX-512) 0.93 to 1.0 times (Zen 4). */
static int read_in_place(const xent_conv_args *a, ptrdiff_t lanes, int dtype)
{
    const xent_window *w = &a->window;
    const ptrdiff_t size = xent_real_size(dtype), numbers = product(w->height, w->width, HUGE_NUMBER);
    return (a->width >= 4 * lanes || a->width >= a->out_channels) && xent_stored_size(dtype) == size && w->top == 0 &&
           w->left == 0 && numbers < PAGE / size &&
           xent_seen(w->out_h, w->kernel_h, w->stride_h, w->dilation_h) <= w->height &&
           xent_seen(w->out_w, w->kernel_w, w->stride_w, w->dilation_w) <= w->width &&
           product(a->tile_images * numbers, product(a->groups, a->in_channels, HUGE_NUMBER), HUGE_NUMBER) <= INT32_MAX;
}

/* Numbers of the widest vectors that there are. */
static ptrdiff_t whole_vectors(ptrdiff_t numbers) { return xent_ceil_div(numbers, XENT_MOST_LANES) * XENT_MOST_LANES; }

/* Numbers of the patch of the largest tile through kernel rows x columns of one channel, at most `limit`. */
static ptrdiff_t patch_numbers(const xent_conv_args *a, ptrdiff_t rows, ptrdiff_t columns, ptrdiff_t limit)
{
    const xent_window *w = &a->window;
    if (a->panels) /* whole vectors of each image */
        return product(product(rows, columns, limit),
                       a->tile_images * whole_vectors(a->tile_rows * a->tile_columns) + XENT_REST_PIXELS, limit);
    if (a->taps_apart) /* a tap has a vector and two lines more at most, see xent_patch_of */
        return product(product(rows, columns, limit), tile_pixels(a) + APART, limit);
    xent_window some = *w;
    some.kernel_h = rows, some.kernel_w = columns;
    const xent_axis y = xent_rows_of(a, &some, a->tile_rows), x = xent_columns_of(a, &some, a->tile_columns);
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

static ptrdiff_t block_steps(const xent_conv_args *a) { return a->block_channels * a->block_rows * a->block_columns; }

/* Groups of a chunk, of `groups`, so that it is worth handing out, given the multiplications of one of them in it. */
static void cut_groups(xent_conv_args *a, ptrdiff_t groups, ptrdiff_t products, ptrdiff_t chunks)
{
    const ptrdiff_t worth = CHUNK_PRODUCTS / xent_max(products, 1),
                    spare = product(groups, chunks, HUGE_NUMBER) / ENOUGH;
    a->group_chunk = xent_max(1, xent_min(xent_min(worth, spare), groups));
}

static ptrdiff_t scratch_size(const xent_conv_args *a, ptrdiff_t size)
{
    return ((a->patches_shared ? 0 : a->patch_room) + a->packed_room + a->sums_room) * size +
           (a->row_room + a->step_room + a->at_room) * (ptrdiff_t)sizeof(int32_t) +
           a->place_room * (ptrdiff_t)sizeof(ptrdiff_t);
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

/* Numbers of whole cache lines, so that what follows begins on one. */
static ptrdiff_t whole_lines(ptrdiff_t numbers) { return xent_ceil_div(numbers, CACHE_LINE) * CACHE_LINE; }

/* Room for `patch` and the tables of the tiles and blocks that were chosen. */
static void plan_scratch(xent_conv_args *a, int backward)
{
    const ptrdiff_t channel = patch_numbers(a, a->block_rows, a->block_columns, HUGE_NUMBER);
    a->patch_room = a->x_in_place ? 0 : whole_lines(a->block_channels * channel + SLACK);
    a->packed_room = whole_lines(a->packed_room);
    a->sums_room = whole_lines(a->sums_room);
    a->row_room = tile_pixels(a);
    a->step_room = block_steps(a) * (a->panels ? 2 : 1);
    a->place_room = a->lanes_are_pixels || a->skips_padding ? xent_max(a->row_room, backward ? a->step_room : 0) : 0;
    a->at_room = a->lanes_are_pixels ? 0 : xent_max(XENT_STEPS_AT_ONCE, tile_pixels(a));
    if (a->skips_padding) a->at_room *= 2 * (backward ? a->block_rows * a->block_columns + 1 : XENT_MOST_BOXES);
}

/* Whether vectors of output channels would be emptier than vectors of pixels of a row. */
static int few_channels(const xent_conv_args *a)
{
    return a->out_channels <= ROWS && a->window.out_w >= a->out_channels;
}

/* Vectors of pixels for a step and a channel where they lie without gaps, and copies of the sums of
 * several. As doubles, which overflow late. */
static double dense_vectors(const xent_conv_args *a, ptrdiff_t lanes, double steps)
{
    const xent_window *w = &a->window;
    const double pixels = (double)w->out_h * (double)w->out_w, images = (double)a->images;
    const double copies = images * (double)w->out_h * (double)xent_ceil_div(w->out_w, lanes) * XENT_COPY_COST / steps;
    if (a->images == 1 && a->out_step <= 1 && a->weight_step == 1) {
        const ptrdiff_t rest = xent_rest_of(w->out_h * w->out_w, lanes, (ptrdiff_t)fmin(steps, XENT_REST_STEPS));
        if (rest) return floor(pixels / (double)lanes) + REST_COST;
    }
    const double across = ceil(images * pixels / (double)lanes) + copies;
    const double direct = images * ceil(pixels / (double)lanes); /* image by image, whose sums are not copied */
    return pixels >= (double)lanes && a->out_step <= 1 ? fmin(across, direct) : across;
}

/* The same with what lies between the rows of a patch, row by row or image by image. */
static double vectors_with_gaps(const xent_conv_args *a, ptrdiff_t lanes, double steps)
{
    const xent_window *w = &a->window;
    const xent_axis x = xent_axis_of(w->out_w, w->kernel_w, w->stride_w, w->dilation_w);
    const double by_rows = (double)w->out_h * (double)xent_ceil_div(w->out_w, lanes);
    const double at_once = ceil(((double)(w->out_h - 1) * (double)x.length + (double)w->out_w) / (double)lanes);
    const double copies = XENT_COPY_COST * by_rows / steps, direct = w->out_w >= lanes ? 0 : copies;
    return (double)a->images * fmin(by_rows + direct, at_once + copies);
}

static double steps_of(const xent_conv_args *a)
{
    return (double)a->in_channels * (double)(a->window.kernel_h * a->window.kernel_w);
}

/* Whether each output sees the input where it is. */
static int is_pointwise(const xent_conv_args *a)
{
    const xent_window *w = &a->window;
    return w->kernel_h == 1 && w->kernel_w == 1 && w->stride_h == 1 && w->stride_w == 1 && w->top == 0 &&
           w->left == 0 && w->out_h == w->height && w->out_w == w->width && a->out_step == 1 && a->out_row == w->out_w;
}

/* Whether weights would be packed by the chunks that read them, which is cheaper, and these are enough for a few threads:
 * strips of 64 channels (AVX-512) are few, and 384-64 on 14 x 14 pixels took 1.5 times as long on two threads, with AVX2
 * 1.3. Nor if what they see through a tap leaves a cache of the second level: 1024-256 took 1.19 times as long (AVX2). */
static int packs_cheaply(const xent_conv_args *a, ptrdiff_t strip, ptrdiff_t size)
{
    const xent_window *w = &a->window;
    const double pixels = (double)a->images * (double)w->out_h * (double)w->out_w;
    const double seen = fmin(pixels, TILE_PIXELS) * (double)a->in_channels * (double)size;
    const ptrdiff_t strips = xent_ceil_div(a->out_channels, strip);
    const int pointwise = w->kernel_h * w->kernel_w == 1, few = strips < HERE_STRIPS || strips % 2 == 1 || pointwise;
    return a->weight_step == 1 && pixels <= HERE_TILES * TILE_PIXELS && (!few || strips > 2 * HERE_STRIPS) &&
           seen <= (double)(w->kernel_h * w->kernel_w) * LANE_PATCH_BYTES;
}

/* And what it costs to pack one, in multiplications of vectors. */
static double pack_cost(const xent_conv_args *a, ptrdiff_t lanes)
{
    return a->packs_here ? HERE_COST / (double)lanes : is_pointwise(a) ? PLACE_PACK_COST : PACK_COST;
}

/* What it costs to copy images for each tap, in vectors of pixels for a step and a channel. */
static double copies_of_taps(const xent_conv_args *a)
{
    const xent_window *w = &a->window;
    const int padded = w->stride_w == 1 && w->left > 0;
    const double plane = padded ? PADDED_PLANE_COST : PLANE_COST, row = padded ? PADDED_ROW_COST : ROW_COST;
    return (double)a->images * (plane + (double)w->out_h * row) / (double)a->out_channels;
}

/* Whether patches of lanes of pixels are better im2col matrices, without gaps, but with a copy of each number for each
 * tap. They are to be shared by all channels. */
static int taps_are_better_apart(const xent_conv_args *a, ptrdiff_t lanes, ptrdiff_t size)
{
    const xent_window *w = &a->window;
    const ptrdiff_t taps = w->kernel_h * w->kernel_w, pixels = product(a->images, w->out_h * w->out_w, HUGE_NUMBER);
    const double copies = copies_of_taps(a);
    const ptrdiff_t tiles = 1 + 2 * pixels / FEW_LANE_PIXELS; /* at most, but for the channels of larger ones */
    const ptrdiff_t numbers =
        product(product(pixels + tiles * APART, a->in_channels, HUGE_NUMBER), a->groups * taps, HUGE_NUMBER);
    return taps > 1 && w->stride_w <= 2 /* other rows are copied one by one */ &&
           numbers <= SHARED_BYTES / size - SLACK * tiles &&
           dense_vectors(a, lanes, steps_of(a)) * TAPS_APART_COST + copies <= vectors_with_gaps(a, lanes, steps_of(a));
}

/* Whether the weights of an output channel lie evenly, in the order of the steps; then weight_step apart. */
static int lie_evenly(xent_conv_args *a)
{
    const xent_window *w = &a->window;
    a->weight_step = w->kernel_w > 1 ? a->weight_j : w->kernel_h > 1 ? a->weight_i : a->weight_in;
    return (w->kernel_h == 1 || a->weight_i == w->kernel_w * a->weight_step) &&
           (a->in_channels == 1 || a->weight_in == w->kernel_h * w->kernel_w * a->weight_step);
}

/* Output channels of a strip: as many as a product takes, or all, rounded up to whole vectors. */
static ptrdiff_t strip_width(const xent_conv_args *a, const xent_table *table, ptrdiff_t size)
{
    const ptrdiff_t lanes = table->vector_bytes / size;
    return xent_min(table->strip_bytes / size, xent_ceil_div(a->out_channels, lanes) * lanes);
}

/* Strips of nearly equal width, if their number is even: two threads share them better, and one of a single vector takes
 * longer for each product. On a Zen 4 with AVX-512 65 to 96 outputs, five or six vectors, took 0.75 to 1 of the time on two
 * threads; nine as 3 + 3 + 3 1.1 times as long as 4 + 4 + 1; and of few steps 1.05 to 1.25 times as long on one thread.
 * After all that changes how sums are added up was chosen. */
static void even_strips(xent_conv_args *a, ptrdiff_t lanes)
{
    const ptrdiff_t strips = xent_ceil_div(a->out_channels, a->width), vectors = xent_ceil_div(a->out_channels, lanes);
    if (strips % 2 == 0 && steps_of(a) >= EVEN_STEPS)
        a->width = a->packed_step = xent_ceil_div(vectors, strips) * lanes;
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

/* Pixels of a tile where lanes are pixels: so that there are enough tiles, as long as these are not too small. */
static ptrdiff_t lane_pixels(const xent_conv_args *a)
{
    const ptrdiff_t all =
        product(product(a->images, a->groups, HUGE_NUMBER), a->window.out_h * a->window.out_w, HUGE_NUMBER);
    return xent_max(FEW_LANE_PIXELS, xent_min(LANE_PIXELS, xent_ceil_div(all, ENOUGH)));
}

/* Whether pixels as lanes are better read where they lie, and sums stored as they are: the image is its own patch. */
static int image_is_patch(const xent_conv_args *a, ptrdiff_t lanes, ptrdiff_t size)
{
    const xent_window *w = &a->window;
    const ptrdiff_t pixels = w->height * w->width, rest = xent_rest_of(pixels, lanes, a->in_channels);
    if (!is_pointwise(a) || pixels < lanes || a->in_channels > xent_min(PLACE_CHANNELS, INT32_MAX / pixels)) return 0;
    /* Of small images several fill vectors better, if they are copied without gaps. */
    const ptrdiff_t empty = rest ? 0 : xent_ceil_div(pixels, lanes) * lanes - pixels;
    if (a->images > 1 && (pixels < 3 * lanes || empty * MOST_EMPTY > pixels)) return 0;
    /* Many channels on pages of their own are worth a copy; few, if many outputs share it and no threads have to. */
    const ptrdiff_t all = product(product(a->images, a->groups, HUGE_NUMBER), pixels, HUGE_NUMBER);
    return pixels * size < PAGE || a->out_channels <= ROWS ||
           (a->in_channels <= PLACE_INPUTS && (a->out_channels <= PLACE_OUTPUTS || all <= ENOUGH * FEW_LANE_PIXELS));
}

/* Then the image is one row, in pieces of whole vectors. A last piece of less than one would overlap another. */
static void cut_row(xent_conv_args *a, ptrdiff_t lanes, ptrdiff_t size)
{
    xent_window *w = &a->window;
    const ptrdiff_t pixels = w->height * w->width, channels = xent_max(1, a->in_channels);
    const int streamed = a->out_channels <= ROWS && channels > PLACE_INPUTS && pixels * size >= PAGE;
    const ptrdiff_t most =
        streamed ? STREAMED_PIXELS : xent_min(MOST_PLACE_PIXELS, xent_max(PLACE_PIXELS, PLACE_NUMBERS / channels));
    w->width = w->out_w = a->out_row = pixels;
    w->height = w->out_h = 1;
    a->tile_images = a->tile_rows = 1;
    a->tile_columns = xent_ceil_div(even(w->out_w, most), lanes) * lanes;
    while (w->out_w % a->tile_columns && w->out_w % a->tile_columns < lanes) a->tile_columns += lanes;
    a->tile_columns = xent_min(a->tile_columns, w->out_w);
    a->block_channels = streamed ? even(channels, STREAMED_CHANNELS) : channels;
    a->block_rows = a->block_columns = 1;
}

/* Where lanes are pixels: vectors of a block of as many channels as a strip has. */
static ptrdiff_t block_vectors(const xent_conv_args *a, const xent_table *table, ptrdiff_t size)
{
    const int many_registers = table->strip_bytes > 2 * table->vector_bytes && size == 4; /* as in product.h */
    return xent_longest(even(a->out_channels, ROWS), many_registers);
}

/* What a forward pass takes with panels, in multiplications of vectors for an output channel and a step. */
static double panels_take(const xent_conv_args *a, ptrdiff_t lanes)
{
    if (is_pointwise(a))
        return dense_vectors(a, lanes, steps_of(a)) * (1 + (double)PLACE_SPREAD_COST / (double)a->out_channels);
    const double store = PANEL_STORE_COST / steps_of(a), spread = SPREAD_COST / (double)a->out_channels;
    return dense_vectors(a, lanes, steps_of(a)) * (PANEL_COST + store + spread) + copies_of_taps(a);
}

/* And with pixels as lanes where they lie, or as an im2col matrix: some lie between the rows. */
static double pixels_take(const xent_conv_args *a, const xent_table *table, ptrdiff_t size)
{
    const xent_window *w = &a->window;
    const ptrdiff_t lanes = table->vector_bytes / size, taps = w->kernel_h * w->kernel_w;
    const double gaps = vectors_with_gaps(a, lanes, steps_of(a)), dense = dense_vectors(a, lanes, steps_of(a));
    if (is_pointwise(a)) return fmin(gaps, dense) * PLACE_PIXELS_COST;
    const double vectors = a->taps_apart ? dense * TAPS_APART_COST : taps == 1 ? fmin(gaps, dense) : gaps;
    const double phases = (double)(xent_min(w->kernel_h, w->stride_h) * xent_min(w->kernel_w, w->stride_w));
    const double sorted =
        (double)a->images * (double)w->out_h * (double)w->out_w * phases / (double)(taps * a->out_channels);
    const double product = taps == 1 ? ONE_TAP_PIXELS_COST : LANE_PIXELS_COST;
    return vectors * (product + PIXELS_STORE_COST / steps_of(a)) +
           (a->taps_apart ? copies_of_taps(a) : sorted * (w->stride_w > 2 ? SINGLE_COST : PHASE_COST));
}

/* And with channels as lanes: sums are transposed, and weights packed, which all ways do where they do not lie evenly. */
static double channels_take(xent_conv_args *a, const xent_table *table, ptrdiff_t size, int evenly)
{
    const xent_window *w = &a->window;
    const ptrdiff_t lanes = table->vector_bytes / size;
    a->width = strip_width(a, table, size);
    const double pixels = (double)a->images * (double)w->out_h * (double)w->out_w;
    const double padding = LEFT_OUT * padding_of(a, lanes, APART_COST),
                 saved = padding * pixels * (double)(a->width / lanes);
    const double vectors = pixels * (double)xent_ceil_div(a->out_channels, lanes) / (double)a->out_channels;
    const double product = is_pointwise(a)                  ? 1
                           : w->kernel_h * w->kernel_w == 1 ? ONE_TAP_COST
                           : a->width == lanes              ? ONE_VECTOR_COST
                                                            : 1;
    return vectors * product * (1 - (saved < SKIPPED_PRODUCTS ? 0 : padding) + TRANSPOSE_COST / steps_of(a)) +
           (evenly ? pack_cost(a, lanes) : 0);
}

/* Whether panels can be, and are worth a look. Long blocks read an image where it lies as fast, or faster. */
static int may_have_panels(const xent_conv_args *a, const xent_table *table, ptrdiff_t size)
{
    const xent_window *w = &a->window;
    const ptrdiff_t lanes = table->vector_bytes / size;
    return w->stride_w <= 2 && a->in_channels > 0 && a->out_channels >= PANEL_CHANNELS &&
           (double)a->images * (double)w->out_h * (double)w->out_w >= (double)lanes &&
           !(is_pointwise(a) && block_vectors(a, table, size) > 2);
}

/* Rows of a tile that leave the least lanes empty: of all numbers from half of those that it has to these. */
static ptrdiff_t full_rows(const xent_conv_args *a, ptrdiff_t lanes)
{
    const xent_window *w = &a->window;
    ptrdiff_t best = a->tile_rows, least = PTRDIFF_MAX;
    for (ptrdiff_t rows = a->tile_rows; rows >= xent_ceil_div(a->tile_rows, 2); rows--) {
        const ptrdiff_t whole = w->out_h / rows, rest = w->out_h % rows * w->out_w;
        const ptrdiff_t vectors = whole * xent_ceil_div(rows * w->out_w, lanes) + xent_ceil_div(rest, lanes);
        if (vectors < least) best = rows, least = vectors;
    }
    return best;
}

/* Their tiles and blocks; whether what a tile sees of a channel has room on the stack. */
static int cut_panels(xent_conv_args *a, const xent_table *table, ptrdiff_t size)
{
    xent_window *w = &a->window;
    const ptrdiff_t lanes = table->vector_bytes / size;
    const ptrdiff_t all = product(product(a->images, a->groups, HUGE_NUMBER), w->out_h * w->out_w, HUGE_NUMBER);
    const ptrdiff_t pixels =
        all <= PANEL_PIXELS ? PANEL_PIXELS : xent_max(FEW_PANEL_PIXELS, xent_min(PANEL_PIXELS, all / ENOUGH));
    const int as_row = is_pointwise(a);
    if (as_row) {
        w->width = w->out_w = a->out_row = w->height * w->width;
        w->height = w->out_h = 1;
    }
    cut_tiles(a, pixels, HUGE_NUMBER);
    if (a->tile_images == 1 && a->tile_columns == w->out_w) a->tile_rows = full_rows(a, lanes);
    if (as_row && a->tile_columns < w->out_w) {
        a->tile_columns = xent_ceil_div(a->tile_columns, lanes) * lanes;
        while (w->out_w % a->tile_columns && w->out_w % a->tile_columns < lanes) a->tile_columns += lanes;
        a->tile_columns = xent_min(a->tile_columns, w->out_w);
    }
    const xent_axis y = xent_rows_of(a, w, a->tile_rows), x = xent_columns_of(a, w, a->tile_columns);
    const ptrdiff_t seen =
        product(product(y.phases, y.length, XENT_PLANES), product(x.phases, x.length, XENT_PLANES), XENT_PLANES);
    a->panels = block_vectors(a, table, size);
    cut_blocks(a, PANEL_BYTES / size);
    if (a->block_rows == w->kernel_h && a->block_columns == w->kernel_w &&
        product(a->tile_images, seen, XENT_PLANES) + XENT_MOST_LANES + 2 * CACHE_LINE / size <= XENT_PLANES)
        return 1;
    a->panels = 0;
    return 0;
}

/* Let several chunks share the patches of their tiles where these are few. */
static void share_patches(xent_conv_args *a, ptrdiff_t size)
{
    const ptrdiff_t patches = product(product(a->groups, xent_tiles(a), HUGE_NUMBER), xent_blocks(a), HUGE_NUMBER);
    a->patches_shared =
        product(patches, a->patch_room * size, HUGE_NUMBER) <= (a->panels ? SHARED_PANEL_BYTES : SHARED_BYTES);
    if (!a->patches_shared) return;
    a->patch_chunks = patches * xent_ceil_div(a->block_channels, XENT_FILLED_CHANNELS);
    a->patch_bytes = patches * a->patch_room * size;
}

/* Tiles of a partial sum of grad_weight, so that there are enough chunks, if `found` are there for each, and all sums of
 * `bytes` have room. */
static void cut_partials(xent_conv_args *a, ptrdiff_t found, ptrdiff_t bytes)
{
    const ptrdiff_t tiles = xent_tiles(a), room = PARTIAL_BYTES / xent_max(1, bytes);
    a->tile_chunk = even(tiles, xent_ceil_div(tiles, xent_max(1, xent_min(xent_ceil_div(ENOUGH, found), room))));
}

/* Numbers of the patch of a tile with groups as lanes (grouped.h). */
static ptrdiff_t grouped_patch(const xent_conv_args *a, ptrdiff_t lanes)
{
    const xent_window *w = &a->window;
    const ptrdiff_t rows = xent_seen(a->tile_rows, w->kernel_h, w->stride_h, w->dilation_h),
                    columns = xent_seen(a->tile_columns, w->kernel_w, w->stride_w, w->dilation_w);
    return product(product(rows, columns, HUGE_NUMBER), a->in_channels * lanes, HUGE_NUMBER);
}

/* Whether groups as lanes are faster, of a forward pass or of grad_weight. With AVX-512 whole rows of 112 pixels were
 * 1.2 times as fast with pixels as lanes, rows of 56 as fast; strides cost these more than groups. Outputs of a group
 * share what is loaded if lanes are pixels, which shows from rows of 28 on. */
static int groups_are_faster(const xent_conv_args *a, ptrdiff_t lanes, int backward)
{
    const xent_window *w = &a->window;
    const ptrdiff_t taps = w->kernel_h * w->kernel_w, width = w->stride_w > 1 ? 0 : w->out_w;
    /* Then pixels are read where they lie, and sums are stored as they are. */
    const int one_pixel = taps == 1 && a->out_step <= 1;
    return a->groups >= lanes && !one_pixel && a->in_channels <= GROUPED_PAIRS &&
           a->out_channels <= GROUPED_PAIRS / a->in_channels && taps <= PARTIAL_TERMS / a->in_channels &&
           width <= (backward || a->out_channels == 1 ? WIDE_ROW : SHORT_ROW);
}

/* Outputs along an axis that see at most `inputs`. */
static ptrdiff_t outputs_of(ptrdiff_t inputs, ptrdiff_t taps, ptrdiff_t stride, ptrdiff_t dilation)
{
    return xent_max(1, (inputs - (taps - 1) * dilation - 1) / stride + 1);
}

/* Tiles of one image and at most `columns`, whose patch stays in a cache if a row of outputs allows it; whether it is
 * within reason. Rows of a patch outside of the image are not touched. A tile has so many rows of outputs that no more
 * inputs are read again by the next one than are new, if these stay in a cache of the second level. */
static int cut_grouped(xent_conv_args *a, ptrdiff_t lanes, ptrdiff_t columns, ptrdiff_t size)
{
    const xent_window *w = &a->window;
    const ptrdiff_t budget = GROUPED_BYTES / size / (lanes * a->in_channels);
    a->tile_images = 1, a->tile_columns = even(w->out_w, columns);
    const ptrdiff_t across = xent_seen(a->tile_columns, w->kernel_w, w->stride_w, w->dilation_w);
    const ptrdiff_t down = xent_seen(1, w->kernel_h, w->stride_h, w->dilation_h);
    const ptrdiff_t near = outputs_of(budget / across, w->kernel_h, w->stride_h, w->dilation_h),
                    far = outputs_of(GROUPED_FAR * budget / across, w->kernel_h, w->stride_h, w->dilation_h);
    const ptrdiff_t rows = xent_min(w->height, xent_seen(w->out_h, w->kernel_h, w->stride_h, w->dilation_h));
    a->tile_rows = rows <= budget / across
                       ? w->out_h
                       : even(w->out_h, xent_max(near, xent_min(far, xent_ceil_div(down, w->stride_h))));
    if (a->tile_rows == 1)
        a->tile_columns =
            even(w->out_w, xent_min(columns, outputs_of(budget / down, w->kernel_w, w->stride_w, w->dilation_w)));
    return grouped_patch(a, lanes) <= MOST_GROUPED_BYTES / size;
}

/* A forward pass with groups as lanes. */
static xent_plan plan_grouped(xent_conv_args *a, ptrdiff_t lanes, ptrdiff_t size)
{
    const ptrdiff_t steps = a->in_channels * a->window.kernel_h * a->window.kernel_w,
                    blocks = xent_ceil_div(a->groups, lanes), items = product(xent_tiles(a), blocks, HUGE_NUMBER),
                    products = tile_pixels(a) * lanes * a->out_channels * steps;
    a->lanes_are_groups = 1, a->width = lanes;
    a->tile_chunk = even(items, xent_min(CHUNK_PRODUCTS / products, items / ENOUGH));
    a->patch_room = whole_lines(grouped_patch(a, lanes));
    a->sums_room = whole_lines((tile_pixels(a) + SLACK) * lanes);
    return (xent_plan){.chunks = xent_ceil_div(items, a->tile_chunk),
                       .scratch_size = scratch_size(a, size),
                       .pack_chunks = blocks,
                       .packed = blocks * lanes * a->out_channels * steps * size};
}

/* Whether a forward pass goes through 3 x 3 taps plane by plane (depthwise.h). Rows that fill less than half a vector, or
 * are shorter than WIDE_PLANE, take longer than with groups as lanes, if there are enough of these, unless the plane is
 * read as it lies. Measured on a Zen 4, for one image: patches of rows of 7 took 1.1 to 1.7 times as long as groups as
 * lanes, of 14 with a stride of 2 0.9 of the time, of 28 0.7 to 0.9, of 112 half; as they lie, rows of 7 and 8 took 0.87
 * to 0.93 of it, and of 14 0.8 of that of patches (AVX-512). Planes of 16 bits are
 * converted one by one, and those that have two rows in a vector took 1.2 times as long as groups as lanes. */
static int planes_are_faster(const xent_conv_args *a, ptrdiff_t lanes, int converts)
{
    const xent_window *w = &a->window;
    const ptrdiff_t across = xent_rows_across(w, lanes);
    return a->groups > 1 && a->in_channels == 1 && w->kernel_h == XENT_DEPTHWISE && w->kernel_w == XENT_DEPTHWISE &&
           w->stride_h == w->stride_w && w->stride_w <= 2 && w->dilation_h == 1 && w->dilation_w == 1 &&
           a->out_step == 1 && a->out_row == w->out_w && a->out_first == 0 &&
           ((across && across <= 2 - converts) || (a->groups < lanes ? 2 * w->out_w >= lanes : w->out_w >= WIDE_PLANE));
}

/* Numbers of the patch of some rows of a plane, with what vectors read behind its last. */
static ptrdiff_t plane_patch(const xent_conv_args *a, const xent_lines *l, ptrdiff_t rows)
{
    const ptrdiff_t seen = xent_seen(rows, XENT_DEPTHWISE, a->window.stride_h, 1);
    return l->before + product(seen, l->pitch, HUGE_NUMBER) + 2 * XENT_MOST_LANES;
}

/* Such a pass. A tile has so many rows that its patch stays in the nearest cache, beside the rows that are read and
 * written. */
static xent_plan plan_planes(xent_conv_args *a, const xent_lines *l, ptrdiff_t size)
{
    const xent_window *w = &a->window;
    const ptrdiff_t most = outputs_of(PLANE_BYTES / size / l->pitch, XENT_DEPTHWISE, w->stride_h, 1);
    a->by_planes = a->weights_in_place = 1;
    a->tile_images = 1, a->tile_rows = even(w->out_h, most), a->tile_columns = w->out_w;
    const ptrdiff_t items = product(xent_tiles(a), a->groups, HUGE_NUMBER);
    const ptrdiff_t products = tile_pixels(a) * a->out_channels * XENT_DEPTHWISE * XENT_DEPTHWISE;
    a->tile_chunk = even(items, xent_min(CHUNK_PRODUCTS / xent_max(1, products), items / ENOUGH));
    const ptrdiff_t room = whole_lines(plane_patch(a, l, a->tile_rows));
    a->block_channels = xent_max(1, xent_min(a->tile_chunk, PLANE_BYTES / size / room));
    a->patch_room = a->block_channels * room;
    a->sums_room = whole_lines(tile_pixels(a) + XENT_MOST_LANES);
    return (xent_plan){.chunks = xent_ceil_div(items, a->tile_chunk), .scratch_size = scratch_size(a, size)};
}

/* grad_weight with groups as lanes: sums of tiles, and totals of these. */
static xent_plan plan_grouped_grad(xent_conv_args *a, ptrdiff_t lanes, ptrdiff_t size)
{
    const ptrdiff_t steps = a->in_channels * a->window.kernel_h * a->window.kernel_w * a->out_channels,
                    blocks = xent_ceil_div(a->groups, lanes), tiles = xent_tiles(a);
    a->lanes_are_groups = 1;
    cut_groups(a, blocks, product(product(tiles, tile_pixels(a), HUGE_NUMBER), steps * lanes, HUGE_NUMBER), 1);
    const ptrdiff_t found = xent_ceil_div(blocks, a->group_chunk);
    cut_partials(a, found, product(a->groups, steps * size, HUGE_NUMBER));
    a->patch_room = whole_lines(grouped_patch(a, lanes));
    a->packed_room = whole_lines(tile_pixels(a) * lanes);
    a->sums_room = whole_lines((2 * steps + SLACK) * lanes);
    const ptrdiff_t partials = xent_ceil_div(tiles, a->tile_chunk);
    return (xent_plan){.chunks = found * partials, .scratch_size = scratch_size(a, size), .partials = partials};
}

/* Where lanes are channels: if a patch is costly beside what a strip of output channels does with it, all strips are to
 * share it, and tiles have fewer images instead. Whether that is so. */
static int cut_images(xent_conv_args *a, ptrdiff_t lanes)
{
    const xent_window *w = &a->window;
    const xent_axis y = xent_rows_of(a, w, w->out_h), x = xent_columns_of(a, w, w->out_w);
    const double rows = (double)y.phases * (double)y.length * (double)x.phases;
    const double fill = a->x_in_place ? 0 : PLANE_COST + rows * (ROW_COST + (x.stride > 2 ? (double)x.length : 0));
    const double strip =
        (double)w->out_h * (double)w->out_w * (double)(w->kernel_h * w->kernel_w) * (double)(a->width / lanes);
    if (a->tile_images == 1 || xent_blocks(a) > 1 || fill * FILL_SHARE < strip) return 0;
    const ptrdiff_t least = xent_ceil_div(2 * ROWS, w->out_h * w->out_w);
    a->tile_images = even(a->images, xent_min(a->tile_images, xent_max(least, a->images / ENOUGH)));
    return 1;
}

xent_plan xent_plan_conv2d(xent_conv_args *a, const xent_table *table, int dtype)
{
    const ptrdiff_t size = xent_real_size(dtype), lanes = table->vector_bytes / size;
    const ptrdiff_t taps = a->window.kernel_h * a->window.kernel_w, steps = a->in_channels * taps;
    const int evenly = lie_evenly(a);
    const int by_planes = planes_are_faster(a, lanes, xent_stored_size(dtype) < size);
    const xent_lines lines = !by_planes                            ? (xent_lines){.pitch = 0}
                             : xent_rows_across(&a->window, lanes) ? (xent_lines){.pitch = a->window.width}
                                                                   : xent_lines_of(&a->window);
    if (by_planes && plane_patch(a, &lines, 1) <= MOST_GROUPED_BYTES / size) return plan_planes(a, &lines, size);
    if (groups_are_faster(a, lanes, 0) && cut_grouped(a, lanes, a->window.out_w, size))
        return plan_grouped(a, lanes, size);
    a->packs_here = evenly && packs_cheaply(a, table->strip_bytes / size, size); /* for now */
    /* All this of 16 bits as of floats, and whether weights are kept or not: same sums, same bits. */
    a->taps_apart = taps_are_better_apart(a, lanes, size);
    const double of_pixels = pixels_take(a, table, size), of_channels = channels_take(a, table, size, evenly);
    const double in_place = is_pointwise(a) ? dense_vectors(a, lanes, steps_of(a)) * PLACE_COST : of_pixels;
    const int panels = evenly && may_have_panels(a, table, size) &&
                       panels_take(a, lanes) < fmin(of_channels, in_place) && cut_panels(a, table, size);
    a->lanes_are_pixels = panels || (steps > 0 && of_pixels <= of_channels);
    a->taps_apart = a->lanes_are_pixels && (panels ? taps > 1 : a->taps_apart);
    a->weights_in_place = a->lanes_are_pixels && evenly && xent_stored_size(dtype) == size;
    const ptrdiff_t budget = (a->taps_apart         ? SHARED_BYTES
                              : a->lanes_are_pixels ? LANE_PATCH_BYTES
                                                    : PATCH_BYTES) /
                             size;
    a->width = a->lanes_are_pixels ? even(a->out_channels, ROWS) : strip_width(a, table, size);
    a->weights_in_rows = a->lanes_are_pixels && evenly && a->weight_step == 1;
    a->packed_step = a->weights_in_place ? a->weight_step : a->weights_in_rows ? 1 : a->width;
    a->packed_row = a->weights_in_place ? a->weight_out : a->weights_in_rows ? steps : 1;
    const int as_row = a->lanes_are_pixels && !panels && evenly && image_is_patch(a, lanes, size);
    a->x_in_place = as_row && a->weights_in_place;
    if (as_row) {
        cut_row(a, lanes, size);
    } else if (!panels) {
        if (!a->lanes_are_pixels) order_patch(a);
        cut_tiles(a, a->lanes_are_pixels ? lane_pixels(a) : TILE_PIXELS, budget);
        cut_blocks(a, budget);
        a->x_in_place = !a->lanes_are_pixels && read_in_place(a, lanes, dtype);
        if (a->x_in_place) a->rows_in_order = a->columns_in_order = 1;
    }
    const int costly = !a->lanes_are_pixels && cut_images(a, lanes);
    a->skips_padding = !a->lanes_are_pixels && padding_is_worth_it(a, lanes);
    if (!a->lanes_are_pixels) even_strips(a, lanes);
    a->packs_here =
        !a->lanes_are_pixels && !a->weights_kept && evenly && a->weight_step == 1 && xent_tiles(a) <= HERE_TILES;
    a->packed_room = a->weights_in_rows ? XENT_REST_PIXELS * xent_ceil_div(block_steps(a), lanes) * lanes
                     : a->packs_here    ? xent_min(block_steps(a), XENT_STEPS_AT_ONCE) * a->width
                                        : 0;
    plan_scratch(a, 0);
    a->pack_channels = even(a->in_channels, PACKED / product(taps, a->width, PACKED));
    const ptrdiff_t pixels = tile_pixels(a), strips = xent_ceil_div(a->out_channels, a->width), tiles = xent_tiles(a);
    cut_groups(a, a->groups, pixels * steps * a->out_channels, tiles);
    const ptrdiff_t found = tiles * xent_ceil_div(a->groups, a->group_chunk);
    if (!a->x_in_place && found < ENOUGH && strips > 1) share_patches(a, size);
    a->strip_chunk = costly && !a->patches_shared
                         ? strips
                         : even(strips, strips / xent_max(1, xent_ceil_div(ENOUGH, xent_max(found, 1))));
    if (a->lanes_are_pixels) {
        const ptrdiff_t worth = STRIPS_PRODUCTS / xent_max(1, product(a->width * pixels, steps, HUGE_NUMBER));
        a->strip_chunk = even(
            strips, xent_max(a->strip_chunk, a->patches_shared || a->x_in_place ? worth : xent_max(worth, FEW_STRIPS)));
    }
    const ptrdiff_t sums = a->width * (pixels + (a->lanes_are_pixels ? a->tile_images * a->tile_rows * lanes : 0));
    if (xent_blocks(a) > 1) /* all keep their sums */
        a->strip_chunk = xent_max(1, xent_min(a->strip_chunk, SUMS_BYTES / size / sums));
    a->sums_room = xent_blocks(a) > 1 ? a->strip_chunk * sums : sums;
    a->sums_room = whole_lines(a->sums_room + SLACK * a->width);
    const int packed = !a->weights_in_place && !a->packs_here;
    const ptrdiff_t pieces = a->groups * strips * xent_ceil_div(a->in_channels, a->pack_channels);
    return (xent_plan){.chunks = found * xent_ceil_div(strips, a->strip_chunk),
                       .scratch_size = scratch_size(a, size),
                       .pack_chunks = a->patch_chunks + (packed ? pieces : 0),
                       .packed = packed ? packed_bytes(a, strips, size) + pieces : 0};
}

xent_plan xent_plan_grad_weight(xent_conv_args *a, const xent_table *table, int dtype)
{
    const ptrdiff_t size = xent_real_size(dtype), budget = PATCH_BYTES / 2 / size;
    const ptrdiff_t taps = a->window.kernel_h * a->window.kernel_w, steps = a->in_channels * taps;
    const ptrdiff_t lanes = table->vector_bytes / size;
    if (groups_are_faster(a, lanes, 1) && cut_grouped(a, lanes, PARTIAL_TERMS, size))
        return plan_grouped_grad(a, lanes, size);
    a->lanes_are_pixels = few_channels(a);
    a->width = a->lanes_are_pixels ? a->out_channels : strip_width(a, table, size);
    if (!a->lanes_are_pixels) order_patch(a);
    cut_tiles(a, a->lanes_are_pixels ? LANE_PIXELS : GRAD_PIXELS, HUGE_NUMBER);
    a->x_in_place = !a->lanes_are_pixels && read_in_place(a, lanes, dtype);
    if (a->x_in_place) a->rows_in_order = a->columns_in_order = 1;
    cut_blocks(a, budget);
    cut_steps(a, SUMS_BYTES / size / a->width);
    const ptrdiff_t pixels = tile_pixels(a), strips = xent_ceil_div(a->out_channels, a->width), tiles = xent_tiles(a);
    const ptrdiff_t here = block_steps(a), blocks = xent_blocks(a);
    a->strip_chunk = even(strips, xent_min(GRAD_CHANNELS, SUMS_BYTES / size / here) / a->width);
    const ptrdiff_t ranges = blocks * xent_ceil_div(strips, a->strip_chunk);
    cut_groups(a, a->groups,
               product(a->images * a->window.out_h * a->window.out_w, here * a->out_channels, HUGE_NUMBER), ranges);
    const ptrdiff_t found = ranges * xent_ceil_div(a->groups, a->group_chunk);
    cut_partials(a, found, product(a->groups * a->out_channels, steps * size, HUGE_NUMBER));
    /* The gradient of a strip, or of two channels of 16 bits that are widened (DOT_CHANNELS in conv_backward.h). */
    a->packed_room = !a->lanes_are_pixels ? pixels * a->width : xent_stored_size(dtype) < size ? 2 * pixels : 0;
    a->sums_room = a->strip_chunk * here * a->width + SLACK * a->width;
    a->skips_padding = !a->lanes_are_pixels && grad_padding_is_worth_it(a, lanes);
    plan_scratch(a, 1);
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
