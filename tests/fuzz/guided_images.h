/* guided_images.h: calls of the kernels of images, of copies into another order and of the scans, drawn from bytes. They are
 * made as the bridge makes them (bridge/images.pxi).
 */
#ifndef GUIDED_IMAGES_H
#define GUIDED_IMAGES_H

#include "guided.h"
#include "images/block.h"

#define X(kernel) extern const xent_kernel XENT_OF_ISA(kernel)[XENT_DTYPES];
#define X16 X
#include "images/kernels.def"
#include "pools/kernels.def"
#undef X
#undef X16

static const xent_table table = {.vector_bytes = XENT_VBYTES, .strip_bytes = VECTORS * XENT_VBYTES};

/* ---- layers ---- */

enum { MOST_WORK = 1 << 21, MOST_PIXELS = 40000 };

typedef struct {
    xent_window window;
    ptrdiff_t images, groups, in_channels, out_channels; /* of a group */
    ptrdiff_t bottom, right;
    int type;
} layer;

static ptrdiff_t small(void) { return draw(8) < 6 ? 1 + draw(3) : 1 + draw(7); }

/* One axis of a window: the least of the input's size for which there is an output, if the one drawn is less. */
static void draw_axis(ptrdiff_t *size, ptrdiff_t *kernel, ptrdiff_t *stride, ptrdiff_t *dilation, ptrdiff_t *before,
                      ptrdiff_t *after, ptrdiff_t *outputs)
{
    *size = draw(8) < 7 ? 1 + draw(33) : 1 + draw(130);
    *kernel = draw(8) < 7 ? 1 + draw(5) : 1 + draw(16), *stride = draw(2) ? 1 : small();
    *dilation = draw(4) < 3 ? 1 : small();
    *before = draw(8) < 7 ? draw(4) : draw(20), *after = draw(2) ? *before : draw(6);
    const ptrdiff_t reach = (*kernel - 1) * *dilation + 1;
    *size = xent_max(*size, reach - *before - *after);
    *outputs = (*size + *before + *after - reach) / *stride + 1;
}

static void draw_window(layer *l)
{
    xent_window *w = &l->window;
    draw_axis(&w->height, &w->kernel_h, &w->stride_h, &w->dilation_h, &w->top, &l->bottom, &w->out_h);
    draw_axis(&w->width, &w->kernel_w, &w->stride_w, &w->dilation_w, &w->left, &l->right, &w->out_w);
}

static ptrdiff_t pixels_in(const layer *l)
{
    return l->images * l->groups * l->in_channels * l->window.height * l->window.width;
}
static ptrdiff_t outputs_of(const layer *l) { return l->window.out_h * l->window.out_w; }
static ptrdiff_t pixels_out(const layer *l) { return l->images * l->groups * l->out_channels * outputs_of(l); }
static ptrdiff_t taps_of(const layer *l) { return l->window.kernel_h * l->window.kernel_w; }

/* Half of what is larger than it need be, until the work is not too much. */
static void bound(layer *l)
{
    for (;;) {
        const double work = (double)pixels_out(l) * (double)(taps_of(l) * l->in_channels + 8);
        ptrdiff_t *const sizes[] = {&l->images, &l->in_channels, &l->out_channels, &l->groups};
        ptrdiff_t *most = sizes[0];
        if (work <= MOST_WORK && pixels_in(l) <= MOST_PIXELS && pixels_out(l) <= MOST_PIXELS) return;
        for (int k = 1; k < COUNT(sizes); k++)
            if (*sizes[k] > *most) most = sizes[k];
        if (*most == 1) return;
        *most = (*most + 1) / 2;
    }
}

static layer draw_layer(void)
{
    layer l = {.type = (int)draw(XENT_DTYPES), .groups = 1};
    draw_window(&l);
    l.images = draw(4) < 3 ? small() : 1 + draw(20);
    const ptrdiff_t kind = draw(4); /* plain, plain, grouped, depthwise */
    l.groups = kind < 2 ? 1 : 1 + draw(70);
    l.in_channels = kind == 3 ? 1 : 1 + draw(kind == 2 ? 6 : 140);
    l.out_channels = kind == 3 ? 1 : 1 + draw(kind == 2 ? 6 : 140);
    bound(&l);
    return l;
}

static void *pixels(const layer *l, ptrdiff_t n, int kind) { return numbers(l->type, n, kind); }
static void *result_pixels(const layer *l, ptrdiff_t n) { return results(l->type, n, formats[l->type].size); }

static xent_conv_args layer_args(const layer *l)
{
    return (xent_conv_args){.window = l->window,
                            .images = l->images,
                            .groups = l->groups,
                            .in_channels = l->in_channels,
                            .out_channels = l->out_channels};
}

/* ---- convolution ---- */

typedef struct {
    xent_conv_args args;
    int type;
} convolution;

/* What is made once, then the products. */
static void convolve(void *of)
{
    const convolution *c = of;
    xent_conv_args a = c->args;
    const xent_kernel pack = XENT_OF_ISA(conv2d_pack)[c->type];
    xent_plan plan = xent_plan_conv2d(&a, &table, c->type);
    const int outer = block_count;
    if (plan.chunks == 0) fail("a layer without work");
    a.packed = scratch_for(plan.packed), a.patches = scratch_for(a.patch_bytes);
    if (a.weights_kept && plan.packed) { /* packed before, for many calls */
        const ptrdiff_t patches = a.patch_chunks;
        a.patch_chunks = 0, run_chunks(pack, &a, plan.pack_chunks - patches, 0);
        a.patch_chunks = patches, plan.pack_chunks = patches;
    }
    run_chunks(pack, &a, plan.packed || a.patch_bytes ? plan.pack_chunks : 0, 0);
    run(XENT_OF_ISA(conv2d)[c->type], &a, plan);
    close_blocks(outer);
}

static void forward(void)
{
    const layer l = draw_layer();
    const ptrdiff_t weights = l.groups * l.out_channels * l.in_channels * taps_of(&l);
    convolution c = {layer_args(&l), l.type};
    xent_conv_args *a = &c.args;
    a->x = pixels(&l, pixels_in(&l), LOGITS), a->weight = pixels(&l, weights, FACTORS), a->relu = (int)draw(2);
    a->bias = maybe_numbers(real_of(l.type), l.groups * l.out_channels, LOGITS);
    a->out = result_pixels(&l, pixels_out(&l));
    a->out_size = outputs_of(&l), a->out_row = l.window.out_w, a->out_step = 1;
    a->weight_out = l.in_channels * taps_of(&l), a->weight_group = l.out_channels * a->weight_out;
    a->weight_in = taps_of(&l), a->weight_i = l.window.kernel_w, a->weight_j = 1, a->weights_kept = draw(4) == 3;
    twice(convolve, &c);
}

/* A phase of a transposed convolution: outputs go to some rows and columns, weights come in reverse order, input channels
 * first, some taps of them, and what is before the image may be negative. */
static void transposed(void)
{
    layer l = draw_layer();
    xent_window *w = &l.window;
    const ptrdiff_t step_h = small(), step_w = small(), period_h = draw(4) == 3 ? 2 : 1, period_w = period_h;
    w->top = xent_min(w->top, (w->kernel_h - 1) * w->dilation_h); /* a row has a pixel: _window.phases */
    w->left = xent_min(w->left, (w->kernel_w - 1) * w->dilation_w);
    if (draw(2)) w->top -= draw(xent_min(6, w->height)), w->left -= draw(xent_min(6, w->width));
    w->stride_h = w->stride_w = 1, w->out_h = 1 + draw(24), w->out_w = 1 + draw(24);
    bound(&l);
    const ptrdiff_t kernel_w = w->kernel_w * period_w, kernel = w->kernel_h * period_h * kernel_w;
    const ptrdiff_t row = w->out_w * step_w, down = draw(step_h), first = down * row + draw(step_w);
    const ptrdiff_t channels = l.images * l.groups * l.out_channels, size = w->out_h * step_h * row;
    convolution c = {layer_args(&l), l.type};
    xent_conv_args *a = &c.args;
    a->x = pixels(&l, pixels_in(&l), LOGITS);
    a->weight = pixels(&l, l.groups * l.out_channels * l.in_channels * kernel, FACTORS);
    a->bias = maybe_numbers(real_of(l.type), l.groups * l.out_channels, LOGITS);
    a->out = result_pixels(&l, channels * size);
    block *b = blocks + block_count - 1;
    memset(b->owned, 0, (size_t)b->bytes);
    for (ptrdiff_t ch = 0; ch < channels; ch++)
        for (ptrdiff_t i = 0; i < w->out_h; i++)
            for (ptrdiff_t j = 0; j < w->out_w; j++)
                memset(b->owned + (ch * size + first + i * step_h * row + j * step_w) * formats[l.type].size, 1,
                       (size_t)formats[l.type].size);
    a->out_size = size, a->out_first = first, a->out_row = step_h * row, a->out_step = step_w;
    a->weight_in = l.out_channels * kernel, a->weight_out = kernel, a->weight_group = l.in_channels * a->weight_in;
    a->weight_i = -period_h * kernel_w, a->weight_j = -period_w;
    a->weight_first = (w->kernel_h - 1) * period_h * kernel_w + (w->kernel_w - 1) * period_w;
    a->weights_kept = draw(4) == 3;
    twice(convolve, &c);
}

/* Sums over tiles, which are merged if there are several. */
static void sum_weights(void *of)
{
    const convolution *c = of;
    xent_conv_args a = c->args;
    const xent_window *w = &a.window;
    const ptrdiff_t weights = a.groups * a.out_channels * a.in_channels * w->kernel_h * w->kernel_w;
    const int outer = block_count, real = real_of(c->type);
    const xent_plan plan = xent_plan_grad_weight(&a, &table, c->type);
    if (plan.partials > 1) a.out = scratch_for(plan.partials * weights * formats[real].size);
    run(XENT_OF_ISA(conv2d_grad_weight)[c->type], &a, plan);
    if (plan.partials > 1) {
        xent_merge_args m = {.size = weights, .partials = plan.partials, .x = a.out, .out = c->args.out};
        run(XENT_OF_ISA(conv2d_merge)[c->type], &m, xent_plan_merge(&m));
    }
    close_blocks(outer);
}

static void grad_weight(void)
{
    layer l = draw_layer();
    if (seldom()) l.window.out_h = xent_max(l.window.out_h - 1, 1); /* as of a transposed one */
    convolution c = {layer_args(&l), l.type};
    c.args.x = pixels(&l, pixels_in(&l), LOGITS), c.args.grad = pixels(&l, pixels_out(&l), FACTORS);
    c.args.out = result_pixels(&l, l.groups * l.out_channels * l.in_channels * taps_of(&l));
    twice(sum_weights, &c);
}

static void sum_bias(void *of)
{
    const convolution *c = of;
    run_chunks(XENT_OF_ISA(conv2d_grad_bias)[c->type], &c->args, c->args.out_channels, 0);
}

static void grad_bias(void)
{
    layer l = draw_layer();
    l.out_channels *= l.groups, l.groups = 1;
    bound(&l);
    convolution c = {layer_args(&l), l.type};
    c.args.grad = pixels(&l, pixels_out(&l), LOGITS), c.args.out = result_pixels(&l, l.out_channels);
    twice(sum_bias, &c);
}

/* ---- im2col, pools ---- */

typedef struct {
    xent_kernel kernel;
    void *args;
    xent_plan plan;
} planned;

static void call_planned(void *of)
{
    const planned *p = of;
    run(p->kernel, p->args, p->plan);
}

static void make_planned(xent_kernel kernel, void *args, xent_plan plan)
{
    planned p = {kernel, args, plan};
    twice(call_planned, &p);
}

/* A layer of which each channel is a plane of its own. */
static layer draw_planes(void)
{
    layer l = draw_layer();
    l.groups = 1, l.out_channels = l.in_channels;
    bound(&l);
    l.out_channels = l.in_channels = xent_min(l.in_channels, l.out_channels);
    return l;
}

static void columns(void)
{
    const layer l = draw_planes();
    const int back = (int)draw(2);
    const ptrdiff_t cols = xent_min(pixels_out(&l) * taps_of(&l), MOST_WORK), planes = l.images * l.in_channels;
    xent_im2col_args a = {.window = l.window, .planes = planes};
    if (pixels_out(&l) * taps_of(&l) > cols) return;
    a.x = pixels(&l, back ? cols : pixels_in(&l), LOGITS), a.out = result_pixels(&l, back ? pixels_in(&l) : cols);
    make_planned((back ? XENT_OF_ISA(col2im) : XENT_OF_ISA(im2col))[l.type], &a,
                 back ? xent_plan_col2im(&a, l.type) : xent_plan_im2col(&a));
}

/* Whether each window of an axis has a pixel: _window.py. */
static int all_hold_a_pixel(ptrdiff_t size, ptrdiff_t kernel, ptrdiff_t stride, ptrdiff_t dilation, ptrdiff_t before,
                            ptrdiff_t outputs)
{
    if (before > (kernel - 1) * dilation || (outputs - 1) * stride - before >= size) return 0;
    for (ptrdiff_t o = 0; o < outputs && dilation > size && o * stride < before; o++)
        if (((o * stride - before) % dilation + dilation) % dilation >= size) return 0;
    return 1;
}

static int is_pool(const xent_window *w)
{
    return all_hold_a_pixel(w->height, w->kernel_h, w->stride_h, w->dilation_h, w->top, w->out_h) &&
           all_hold_a_pixel(w->width, w->kernel_w, w->stride_w, w->dilation_w, w->left, w->out_w);
}

/* The outputs of an axis, with ceil_mode (`up`) or without; below 1: none. */
static ptrdiff_t pooled(ptrdiff_t size, ptrdiff_t kernel, ptrdiff_t stride, ptrdiff_t dilation, ptrdiff_t before,
                        ptrdiff_t after, int up)
{
    const ptrdiff_t free = size + before + after - (kernel - 1) * dilation - 1;
    const ptrdiff_t outputs = free < 0 ? 0 : (free + (up ? stride - 1 : 0)) / stride + 1;
    return outputs - (up && (outputs - 1) * stride >= size + before);
}

static int count_outputs(layer *l, int up)
{
    xent_window *w = &l->window;
    w->out_h = pooled(w->height, w->kernel_h, w->stride_h, w->dilation_h, w->top, l->bottom, up);
    w->out_w = pooled(w->width, w->kernel_w, w->stride_w, w->dilation_w, w->left, l->right, up);
    return w->out_h > 0 && w->out_w > 0 && is_pool(w);
}

/* A window of a pool: without padding and dilation, where one would not hold a pixel. */
static layer draw_pool(int average)
{
    layer l = draw_planes();
    xent_window *w = &l.window;
    const int up = (int)draw(2);
    if (average) w->dilation_h = w->dilation_w = 1;
    if (draw(4) == 3) w->kernel_h = w->height, w->kernel_w = w->width, w->top = w->left = l.bottom = l.right = 0;
    if (!count_outputs(&l, up)) {
        w->top = w->left = l.bottom = l.right = 0, w->dilation_h = w->dilation_w = 1;
        w->kernel_h = xent_min(w->kernel_h, w->height), w->kernel_w = xent_min(w->kernel_w, w->width);
        if (!count_outputs(&l, up)) fail("a pool without pixels");
    }
    return l;
}

static void pools(void)
{
    const int average = (int)draw(2), back = (int)draw(2), by_places = draw(2) && !average;
    const layer l = draw_pool(average);
    const xent_window *w = &l.window;
    if (pixels_out(&l) > 8 * MOST_PIXELS || pixels_out(&l) * taps_of(&l) > 4 * MOST_WORK) return;
    const xent_kernel *const kernels[] = {XENT_OF_ISA(max_pool2d), XENT_OF_ISA(max_pool2d_backward),
                                          XENT_OF_ISA(avg_pool2d), XENT_OF_ISA(avg_pool2d_backward)};
    xent_pool_args a = {.window = *w, .planes = l.images * l.in_channels, .average = average};
    const int place_size = taps_of(&l) <= 256 ? 1 : taps_of(&l) <= 65536 ? 2 : 4;
    if (average) a.count_include_pad = (int)draw(2), a.divisor = draw(4) == 3 ? 1 + draw(20) : 0;
    a.bottom = l.bottom, a.right = l.right;
    if (by_places) {
        a.place_size = place_size, a.places = results(WITHOUT_TYPE, pixels_out(&l), place_size);
        block *b = blocks + block_count - 1;
        if (back) free(b->owned), b->owned = NULL, b->is_input = 1;
        for (ptrdiff_t k = 0; k < b->bytes; k++) b->data[k] = (char)below(draw(2) ? (uint64_t)taps_of(&l) : 256);
    }
    if (back) a.grad = pixels(&l, pixels_out(&l), LOGITS);
    a.x = pixels(&l, pixels_in(&l), LOGITS), a.out = result_pixels(&l, back ? pixels_in(&l) : pixels_out(&l));
    make_planned(kernels[2 * average + back][l.type], &a, xent_plan_pool(&a, l.type));
}

/* ---- plain C ---- */

static void orders(void)
{
    draw_form(1, 0);
    const xent_array source = read_array(form.type, LOGITS);
    const int turns = form.order[0];
    for (int k = 0; k < form.ndim; k++) form.order[k] = (form.order[k] + turns + 1) % form.ndim;
    const xent_array target = written_array(form.type);
    xent_reorder_args a;
    if (xent_see_order(&a, &source, &target)) make_planned(xent_reorder, &a, xent_plan_reorder(&a));
}

typedef struct {
    xent_labels labels;
    ptrdiff_t n;
    double *weight, *sample_weight, *sums, *values, *total;
    float *floats;
} scanned;

static void scan(void *of)
{
    const scanned *s = of;
    ptrdiff_t counted = 0;
    int low, high;
    double *const sums = s->sums, *const rest = sums + 2 * form.classes; /* what is not per class */
    memset(sums, 0, (size_t)(2 * form.classes) * sizeof *sums);
    rest[0] = (double)xent_scan_labels(s->labels, s->n, form.classes, &counted), rest[1] = (double)counted;
    rest[2] = xent_weigh_labels(s->labels, s->n, form.classes, s->weight, s->sample_weight, NULL);
    rest[3] = (double)xent_count_plain(s->values, s->n), rest[4] = xent_ordered_sum(s->values, s->n, 1);
    rest[5] = (double)xent_find_exponents(s->values, s->n, &low, &high), rest[6] = low, rest[7] = high;
    rest[8] = xent_narrow_exactly(s->values, s->floats, s->n);
    rest[9] = (double)xent_count_factors(s->values, XENT_F64, s->n, 1);
    rest[10] = xent_are_plain(s->values, XENT_F64, s->n, 20);
    xent_sum_at(s->labels.data, s->values, s->n, form.classes, sums), xent_settle(sums, form.classes);
    int bad = 0;
    xent_probs_args p = {.size = s->n, .dtype = XENT_F64, .data = s->values, .bad = &bad};
    run(xent_check_probs, &p, xent_plan_probs(&p));
    rest[11] = bad, memset(s->total, 0, (size_t)s->n * sizeof *s->total);
    xent_add_args a = {.size = s->n, .total = s->total, .part = s->values};
    run(xent_add, &a, xent_plan_add(&a));
}

static void scans(void)
{
    draw_form(1, 0);
    scanned s = {{labels(form.count, form.classes), -1}, form.count, NULL, NULL, NULL, NULL, NULL, NULL};
    s.weight = maybe_numbers(XENT_F64, form.classes, FACTORS), s.sample_weight = maybe_numbers(XENT_F64, s.n, FACTORS);
    s.values = doubles(s.n, LOGITS), s.sums = doubles_out(2 * form.classes + 12);
    s.floats = results(XENT_F32, s.n, 4), s.total = doubles_out(s.n);
    is_partial = 1; /* floats are not all there where one does not fit */
    twice(scan, &s);
}

#endif
