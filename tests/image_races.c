/* image_races.c: a program that runs the kernels of images, and copies into another order, on several threads and then
 * on one, for a thread sanitizer (`make races`). It prints a line for each operator and type and ends with an error where
 * the bits differ, or where a way of cutting the work that the cases are to go was not gone.
 *
 * Kernels are called as the bridge calls them (bridge/images.pxi): what is made once comes before the rest.
 */
#ifndef THREADS
#define THREADS 3
#endif
#include "images/block.h"
#include "kernel_calls.h"

#include <stdio.h>

#define X(kernel) extern const xent_kernel XENT_OF_ISA(kernel)[XENT_DTYPES];
#define X16 X
#include "images/kernels.def"

#include "pools/kernels.def"
#undef X
#undef X16

static const xent_table table = {.vector_bytes = XENT_VBYTES, .strip_bytes = VECTORS * XENT_VBYTES};

/* ---- ways ---- */

/* The ways of cutting a convolution, its gradient and a pool that cases went, by their names. */
enum { MOST_WAYS = 32 };
static const char *ways[MOST_WAYS];
static int gone[MOST_WAYS];

static void note(const char *way, int is_gone)
{
    int k = 0;
    while (ways[k] && strcmp(ways[k], way) != 0) k++;
    if (k == MOST_WAYS) abort();
    ways[k] = way, gone[k] |= is_gone;
}

static void note_convolution(const xent_conv_args *a)
{
    note("groups as lanes", a->lanes_are_groups && !a->by_planes), note("planes", a->by_planes);
    note("pixels as lanes", a->lanes_are_pixels && !a->panels), note("panels", a->panels > 0);
    note("weights in place", a->weights_in_place && !a->by_planes), note("images in place", a->x_in_place);
    note("taps apart", a->taps_apart), note("shared patches", a->patches_shared);
    note("no padding", a->skips_padding), note("several packs", a->packed != NULL);
    note("chunks pack their own weights", a->packs_here);
    note("and share patches", a->packs_here && a->patches_shared);
}

static void note_pool(const xent_pool_args *a)
{
    if (a->average)
        note("sums of the type itself", a->few), note("sums with care", !a->few), note("one window", a->whole);
    else if (a->grad)
        note("by rows", a->way == XENT_BY_ROWS), note("by bands", a->way == XENT_BY_BANDS),
            note("scattered", a->way == XENT_SCATTERED), note("direct", a->way == XENT_DIRECT);
}

/* ---- a call ---- */

/* Memory that is written by some threads, and once more by one. */
typedef struct {
    char *bytes, *others;
    ptrdiff_t size;
} result;

enum { FILLER = 0x5A };

static void open_result(result *r, ptrdiff_t bytes)
{
    r->size = (bytes + 127) / 64 * 64;
    r->bytes = aligned_alloc(64, (size_t)r->size), r->others = aligned_alloc(64, (size_t)r->size);
    if (!r->bytes || !r->others) abort();
    memset(r->bytes, FILLER, (size_t)r->size), memset(r->others, FILLER, (size_t)r->size);
}

/* What several threads wrote is put aside. */
static void put_aside(result *r)
{
    char *bytes = r->bytes;
    r->bytes = r->others, r->others = bytes;
}

static void close_result(result *r, const char *what)
{
    if (memcmp(r->bytes, r->others, (size_t)r->size) != 0) {
        printf("%s: %d threads give other bits than one\n", what, THREADS);
        exit(1);
    }
    free(r->bytes), free(r->others);
}

typedef struct {
    const char *name;
    ptrdiff_t images, channels, height, width, outputs, kernel, stride, padding, dilation, groups;
} layer;

static ptrdiff_t outputs_of(ptrdiff_t size, const layer *l)
{
    return (size + 2 * l->padding - (l->kernel - 1) * l->dilation - 1) / l->stride + 1;
}

static xent_window window_of(const layer *l)
{
    return (xent_window){l->height,
                         l->width,
                         l->kernel,
                         l->kernel,
                         l->stride,
                         l->stride,
                         l->dilation,
                         l->dilation,
                         l->padding,
                         l->padding,
                         outputs_of(l->height, l),
                         outputs_of(l->width, l)};
}

static ptrdiff_t pixels_in(const layer *l) { return l->images * l->channels * l->height * l->width; }
static ptrdiff_t pixels_out(const layer *l)
{
    return l->images * l->outputs * outputs_of(l->height, l) * outputs_of(l->width, l);
}

static ptrdiff_t stored_size(int type) { return formats[type].size; }

/* Packed weights and patches, then the products. */
static void convolve(int threads, xent_conv_args *a, int type)
{
    const xent_plan plan = xent_plan_conv2d(a, &table, type);
    const ptrdiff_t made = plan.packed + a->patch_bytes;
    char *memory = aligned_alloc(64, (size_t)(made + 2 * 64 + 63) / 64 * 64);
    if (!memory) abort();
    a->patches = memory;
    a->packed = plan.packed ? memory + (a->patch_bytes + 63) / 64 * 64 : NULL;
    note_convolution(a);
    if (made) run_on(threads, XENT_OF_ISA(conv2d_pack)[type], a, plan.pack_chunks, plan.scratch_size);
    run_on(threads, XENT_OF_ISA(conv2d)[type], a, plan.chunks, plan.scratch_size);
    free(memory);
}

static xent_conv_args layer_args(const layer *l, const void *x, const void *weight, const void *bias, void *out)
{
    const ptrdiff_t taps = l->kernel * l->kernel, channels = l->channels / l->groups, width = outputs_of(l->width, l);
    return (xent_conv_args){.window = window_of(l),
                            .images = l->images,
                            .groups = l->groups,
                            .in_channels = channels,
                            .out_channels = l->outputs / l->groups,
                            .x = x,
                            .weight = weight,
                            .bias = bias,
                            .out = out,
                            .relu = 1,
                            .out_size = outputs_of(l->height, l) * width,
                            .out_row = width,
                            .out_step = 1,
                            .weight_group = l->outputs / l->groups * channels * taps,
                            .weight_out = channels * taps,
                            .weight_in = taps,
                            .weight_i = l->kernel,
                            .weight_j = 1};
}

static void forward(const layer *l, int type)
{
    void *x = make(type, pixels_in(l), -6, 3, ANY_SIGN), *bias = make(real_of(type), l->outputs, -6, 3, ANY_SIGN);
    void *weight = make(type, l->outputs * l->channels / l->groups * l->kernel * l->kernel, -6, 3, ANY_SIGN);
    result y;
    open_result(&y, pixels_out(l) * stored_size(type));
    for (int threads = THREADS; threads; threads = threads == 1 ? 0 : 1) {
        xent_conv_args a = layer_args(l, x, weight, bias, y.bytes);
        convolve(threads, &a, type);
        if (threads > 1) put_aside(&y);
    }
    close_result(&y, l->name);
    free(x), free(bias), free(weight);
}

/* One phase of a transposed convolution: outputs go to every second row and column, weights come in reverse order. */
static void transposed(const layer *l, int type)
{
    enum { STRIDE = 2 };
    const ptrdiff_t width = STRIDE * outputs_of(l->width, l), taps = l->kernel * l->kernel;
    void *x = make(type, pixels_in(l), -6, 3, ANY_SIGN);
    void *weight = make(type, l->outputs * l->channels / l->groups * taps, -6, 3, ANY_SIGN);
    result y;
    open_result(&y, STRIDE * STRIDE * pixels_out(l) * stored_size(type));
    for (int threads = THREADS; threads; threads = threads == 1 ? 0 : 1) {
        xent_conv_args a = layer_args(l, x, weight, NULL, y.bytes);
        a.relu = 0, a.out_size = STRIDE * width * outputs_of(l->height, l);
        a.out_row = STRIDE * width, a.out_step = STRIDE, a.out_first = width + 1;
        a.weight_first = taps - 1, a.weight_i = -l->kernel, a.weight_j = -1;
        a.weight_in = l->outputs / l->groups * taps, a.weight_out = taps;
        convolve(threads, &a, type);
        if (threads > 1) put_aside(&y);
    }
    close_result(&y, l->name);
    free(x), free(weight);
}

static void gradients(const layer *l, int type)
{
    const ptrdiff_t weights = l->outputs * l->channels / l->groups * l->kernel * l->kernel;
    void *x = make(type, pixels_in(l), -6, 3, ANY_SIGN), *grad = make(type, pixels_out(l), -6, 3, ANY_SIGN);
    result of_weight, of_bias;
    open_result(&of_weight, weights * stored_size(type)), open_result(&of_bias, l->outputs * stored_size(type));
    for (int threads = THREADS; threads; threads = threads == 1 ? 0 : 1) {
        xent_conv_args a = layer_args(l, x, NULL, NULL, of_weight.bytes);
        a.grad = grad;
        xent_plan plan = xent_plan_grad_weight(&a, &table, type);
        void *partials = make(real_of(type), plan.partials * weights, 0, 1, POSITIVE);
        if (plan.partials > 1) a.out = partials;
        note("sums of several tiles", plan.partials > 1), note("gradient: pixels as lanes", a.lanes_are_pixels);
        note("gradient: no padding", a.skips_padding), note("gradient: images in place", a.x_in_place);
        run_on(threads, XENT_OF_ISA(conv2d_grad_weight)[type], &a, plan.chunks, plan.scratch_size);
        if (plan.partials > 1) {
            xent_merge_args m = {.size = weights, .partials = plan.partials, .x = partials, .out = of_weight.bytes};
            plan = xent_plan_merge(&m);
            run_on(threads, XENT_OF_ISA(conv2d_merge)[type], &m, plan.chunks, plan.scratch_size);
        }
        xent_conv_args b = {
            .images = l->images, .groups = 1, .out_channels = l->outputs, .grad = grad, .out = of_bias.bytes};
        b.window.out_h = outputs_of(l->height, l), b.window.out_w = outputs_of(l->width, l);
        run_on(threads, XENT_OF_ISA(conv2d_grad_bias)[type], &b, l->outputs, 0);
        if (threads > 1) put_aside(&of_weight), put_aside(&of_bias);
        free(partials);
    }
    close_result(&of_weight, l->name), close_result(&of_bias, l->name);
    free(x), free(grad);
}

static void columns(const layer *l, int type)
{
    const ptrdiff_t seen =
        l->images * l->channels * l->kernel * l->kernel * outputs_of(l->height, l) * outputs_of(l->width, l);
    void *x = make(type, pixels_in(l), -6, 3, ANY_SIGN);
    result cols, y;
    open_result(&cols, seen * stored_size(type)), open_result(&y, pixels_in(l) * stored_size(type));
    for (int threads = THREADS; threads; threads = threads == 1 ? 0 : 1) {
        xent_im2col_args a = {.window = window_of(l), .planes = l->images * l->channels, .x = x, .out = cols.bytes};
        xent_plan plan = xent_plan_im2col(&a);
        run_on(threads, XENT_OF_ISA(im2col)[type], &a, plan.chunks, plan.scratch_size);
        a.x = cols.bytes, a.out = y.bytes, plan = xent_plan_col2im(&a, type);
        run_on(threads, XENT_OF_ISA(col2im)[type], &a, plan.chunks, plan.scratch_size);
        if (threads > 1) put_aside(&cols), put_aside(&y);
    }
    close_result(&cols, l->name), close_result(&y, l->name);
    free(x);
}

static void pool_on(int threads, xent_pool_args a, const xent_kernel *kernels, int type)
{
    const xent_plan plan = xent_plan_pool(&a, type);
    note_pool(&a);
    run_on(threads, kernels[type], &a, plan.chunks, plan.scratch_size);
}

/* Both pools, places, and the gradients, of the maximum with places and without. */
static void pools(const layer *l, int type)
{
    enum { PLACE = 1, RESULTS = 6 };
    const ptrdiff_t in = pixels_in(l) * stored_size(type), out = pixels_out(l) * stored_size(type);
    const ptrdiff_t sizes[RESULTS] = {out, pixels_out(l) * PLACE, out, in, in, in};
    void *x = make(type, pixels_in(l), -6, 3, ANY_SIGN), *grad = make(type, pixels_out(l), -6, 3, ANY_SIGN);
    result r[RESULTS];
    for (int k = 0; k < RESULTS; k++) open_result(r + k, sizes[k]);
    for (int threads = THREADS; threads; threads = threads == 1 ? 0 : 1) {
        xent_pool_args a = {.window = window_of(l),
                            .planes = l->images * l->channels,
                            .x = x,
                            .count_include_pad = 1,
                            .bottom = l->padding,
                            .right = l->padding};
        a.out = r[0].bytes, a.places = r[1].bytes, a.place_size = PLACE;
        pool_on(threads, a, XENT_OF_ISA(max_pool2d), type);
        a.grad = grad, a.out = r[3].bytes;
        pool_on(threads, a, XENT_OF_ISA(max_pool2d_backward), type);
        a.out = r[4].bytes, a.places = NULL, a.place_size = 0;
        pool_on(threads, a, XENT_OF_ISA(max_pool2d_backward), type);
        if (l->dilation == 1) { /* means have none */
            a.average = 1, a.out = r[5].bytes;
            pool_on(threads, a, XENT_OF_ISA(avg_pool2d_backward), type);
            a.grad = NULL, a.out = r[2].bytes;
            pool_on(threads, a, XENT_OF_ISA(avg_pool2d), type);
        }
        for (int k = 0; k < RESULTS && threads > 1; k++) put_aside(r + k);
    }
    for (int k = 0; k < RESULTS; k++) close_result(r + k, l->name);
    free(x), free(grad);
}

/* An image with its channels last, copied to one with its channels first, and back. */
static void orders(const layer *l, int type)
{
    const ptrdiff_t size = stored_size(type), shape[] = {l->images, l->channels, l->height, l->width};
    const ptrdiff_t first[] = {size * l->channels * l->height * l->width, size * l->height * l->width, size * l->width,
                               size};
    const ptrdiff_t last[] = {first[0], size, size * l->channels * l->width, size * l->channels};
    void *x = make(type, pixels_in(l), -6, 3, ANY_SIGN);
    for (int back = 0; back < 2; back++) {
        result y;
        open_result(&y, pixels_in(l) * size);
        for (int threads = THREADS; threads; threads = threads == 1 ? 0 : 1) {
            const xent_array source = {x, size, 4, shape, back ? first : last};
            const xent_array target = {y.bytes, size, 4, shape, back ? last : first};
            xent_reorder_args a;
            if (!xent_see_order(&a, &source, &target)) abort();
            const xent_plan plan = xent_plan_reorder(&a);
            note("longer rows", a.longer_rows), note("longer columns", !a.longer_rows);
            run_on(threads, xent_reorder, &a, plan.chunks, plan.scratch_size);
            if (threads > 1) put_aside(&y);
        }
        close_result(&y, l->name);
    }
    free(x);
}

/* ---- cases ---- */

static const layer layers[] = {
    {"3 channels", 2, 3, 40, 40, 24, 3, 1, 1, 1, 1},        {"of ResNet", 1, 64, 28, 28, 64, 3, 1, 1, 1, 1},
    {"with a stride", 2, 32, 28, 28, 48, 3, 2, 1, 1, 1},    {"pointwise", 2, 96, 14, 14, 80, 1, 1, 0, 1, 1},
    {"pointwise, large", 1, 64, 56, 56, 32, 1, 1, 0, 1, 1}, {"small images", 16, 24, 7, 7, 40, 3, 1, 1, 1, 1},
    {"smallest images", 64, 16, 4, 4, 20, 3, 1, 1, 1, 1},   {"few outputs", 2, 24, 30, 30, 4, 3, 1, 1, 1, 1},
    {"of 5 x 5", 1, 12, 24, 24, 7, 5, 1, 2, 1, 1},          {"dilated", 1, 16, 30, 30, 16, 3, 1, 2, 2, 1},
    {"depthwise", 2, 48, 20, 20, 48, 3, 1, 1, 1, 48},       {"depthwise, stride", 2, 48, 20, 20, 48, 3, 2, 1, 1, 48},
    {"depthwise, small", 8, 64, 7, 7, 64, 3, 1, 1, 1, 64},  {"in groups", 1, 64, 14, 14, 64, 3, 1, 1, 1, 16},
    {"many channels", 1, 256, 7, 7, 128, 3, 1, 1, 1, 1},    {"many outputs", 1, 64, 7, 7, 512, 3, 1, 1, 1, 1},
    {"wide padding", 2, 64, 4, 4, 64, 3, 1, 1, 1, 1},       {"pointwise, 16 outputs", 2, 40, 20, 20, 16, 1, 1, 0, 1, 1},
    {"one row", 1, 32, 1, 300, 32, 1, 1, 0, 1, 1},
};

static const layer windows[] = {
    {"halves", 2, 24, 32, 32, 24, 2, 2, 0, 1, 1},       {"of 3 x 3", 2, 24, 31, 33, 24, 3, 2, 1, 1, 1},
    {"overlapping", 2, 24, 20, 20, 24, 3, 1, 1, 1, 1},  {"the whole image", 4, 40, 7, 7, 40, 7, 1, 0, 1, 1},
    {"a large image", 2, 8, 96, 96, 8, 96, 1, 0, 1, 1}, {"large windows", 2, 8, 40, 40, 8, 13, 3, 6, 1, 1},
    {"apart", 2, 16, 30, 30, 16, 2, 5, 0, 1, 1},        {"dilated", 2, 16, 30, 30, 16, 3, 1, 2, 2, 1},
    {"small images", 32, 32, 4, 4, 32, 2, 2, 0, 1, 1},
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static const struct {
    const char *name;
    void (*call)(const layer *, int);
    const layer *cases;
    size_t count;
} operators[] = {
    {"copies into another order", orders, layers, COUNT(layers)},
    {"conv2d", forward, layers, COUNT(layers)},
    {"a phase of conv_transpose2d", transposed, layers, COUNT(layers)},
    {"gradients by weights and bias", gradients, layers, COUNT(layers)},
    {"im2col, col2im", columns, layers, COUNT(layers)},
    {"pools and their gradients", pools, windows, COUNT(windows)},
};

int main(void)
{
    for (size_t k = 0; k < COUNT(operators); k++)
        for (int type = 0; type < XENT_DTYPES; type++) {
            state = k;
            for (size_t c = 0; c < operators[k].count; c++) operators[k].call(operators[k].cases + c, type);
            printf("%s of %s: %zu cases\n", operators[k].name, formats[type].name, operators[k].count);
            fflush(stdout);
        }
    for (int k = 0; k < MOST_WAYS && ways[k]; k++)
        if (!gone[k]) {
            printf("no case goes this way: %s\n", ways[k]);
            return 1;
        }
    return 0;
}
