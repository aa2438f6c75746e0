/* plan_tiles.c: plans, and what kernels make of them, for test_plan.py, which compiles this file once per instruction
 * set together with the sources of the plans. It includes itself once per stored type.
 *
 * Tiles are those of for_tiles (cut.h), which is given probes in the place of kernels: a probe writes down where a tile
 * begins, how many positions it has, and how far the arrays reach that a kernel may fill. Where a kernel cuts its
 * chunks itself, the kernel is run. Scratch has the size of the plan and ends where memory does.
 */
#ifndef XENT_STORED

#include "base.h"
#include "table.h"

#include <setjmp.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define CODE_f64 XENT_F64
#define CODE_f32 XENT_F32
#define CODE_f16 XENT_F16
#define CODE_bf16 XENT_BF16

/* In the order of the fields in test_plan.py. All but the first three count bytes. */
typedef struct {
    ptrdiff_t chunk, first, n;
    ptrdiff_t scratch, exps, pack, transposed; /* how far arrays reach: in scratch, and in those on the stack */
    ptrdiff_t overlap;                         /* of two arrays */
} record;

static struct {
    record *next, *end;
    char *scratch, *scratch_end;
    ptrdiff_t chunk;
    jmp_buf stop;
} probe;

static void begin_record(ptrdiff_t first, ptrdiff_t n)
{
    if (probe.next == probe.end) longjmp(probe.stop, 1);
    *probe.next = (record){.chunk = probe.chunk, .first = first, .n = n};
    if (n <= 0) probe.next++, longjmp(probe.stop, 1); /* the loop would not end */
}

enum { CANARY = 0x5A, MARGIN = 64 };

/* Scratch of so many bytes, aligned as the bridge does it, which ends at `end` or less than MARGIN before; around it
 * lies what must stay. */
static char *place_scratch(char *end, ptrdiff_t bytes)
{
    char *scratch = end - (bytes + MARGIN - 1) / MARGIN * MARGIN;
    memset(scratch - MARGIN, CANARY, MARGIN);
    memset(scratch + bytes, CANARY, (size_t)(end - scratch - bytes));
    return scratch;
}

static int is_intact(const char *scratch, ptrdiff_t bytes, const char *end)
{
    for (const char *c = scratch - MARGIN; c < scratch; c++)
        if (*c != CANARY) return 0;
    for (const char *c = scratch + bytes; c < end; c++)
        if (*c != CANARY) return 0;
    return 1;
}

/* What Python says of a call of the softmax family, in the order of test_plan.py. */
typedef struct {
    ptrdiff_t ndim, axis, target, out, hess, packs, keeps_logits, transformed, capped, exps;
    ptrdiff_t shape[4], x_strides[4], target_strides[4], out_strides[4];
} call;

/* What it learns. */
typedef struct {
    ptrdiff_t chunks, scratch, chunk, count, inner, intact;
} facts;

static int walk(xent_positions *p, const call *c, ptrdiff_t itemsize, char *in, char *out)
{
    const xent_array x = {in, itemsize, (int)c->ndim, c->shape, c->x_strides};
    const xent_array target = {in + itemsize, itemsize, (int)c->ndim, c->shape, c->target_strides};
    const xent_array result = {out, itemsize, (int)c->ndim, c->shape, c->out_strides};
    const int walked = xent_walk_positions(p, &x, c->target ? &target : NULL, c->out ? &result : NULL,
                                           c->hess ? &result : NULL, (int)c->axis);
    p->packs |= (int)c->packs, p->keeps_logits = (int)c->keeps_logits, p->transformed = (int)c->transformed;
    if (c->transformed) p->temperature = 3, p->cap = c->capped ? 5 : 0;
    return walked;
}

static facts facts_of(const xent_positions *p, const xent_plan *plan)
{
    return (facts){plan->chunks, plan->scratch_size, p->chunk, p->count, p->inner, 1};
}

#define XENT_STORED f64
#include "plan_tiles.c"
#define XENT_STORED f32
#include "plan_tiles.c"
#define XENT_STORED f16
#include "plan_tiles.c"
#define XENT_STORED bf16
#include "plan_tiles.c"

EXPORT const int tile_sizes[] = {TILE, EXPS_BYTES, PACK_BYTES, TRANSPOSED_BYTES};

/* Chunk and piece of a walk over elements: rows, length, chunk, piece, chunks. 0 where it is refused. */
EXPORT ptrdiff_t of_elements(const call *c, ptrdiff_t *sizes, char *in)
{
    const xent_array x = {in, 4, (int)c->ndim, c->shape, c->x_strides};
    const xent_array target = {in, 4, (int)c->ndim, c->shape, c->target_strides};
    const xent_array *const operands[XENT_LOSS_OPERANDS] = {&x, &target};
    xent_element_losses_args a;
    if (!xent_walk_elements(&a, operands)) return 0;
    const xent_plan plan = xent_plan_elements(&a);
    sizes[0] = a.rows, sizes[1] = a.length, sizes[2] = a.chunk, sizes[3] = a.piece, sizes[4] = plan.chunks;
    return 1;
}
EXPORT void of_flat_arrays(ptrdiff_t size, ptrdiff_t partials, ptrdiff_t *sizes)
{
    xent_map_args map = {.size = size};
    xent_sigmoid_args sigmoid = {.size = size};
    xent_merge_args merge = {.size = size, .partials = partials};
    sizes[1] = xent_plan_map(&map).chunks, sizes[0] = map.chunk;
    sizes[3] = xent_plan_sigmoid(&sigmoid, XENT_F32).chunks, sizes[2] = sigmoid.chunk;
    sizes[5] = xent_plan_merge(&merge).chunks, sizes[4] = merge.chunk;
}

#else

#include "begin.h"
#include "softmax/cut.h"
#include "softmax/distillation.h"
#include "softmax/cross_entropy.h"
#include "images/conv.h"
#include "images/conv_backward.h"
#include "pools/pool.h"
#include "pools/pool_backward.h"
#include "softmax/label_losses.h"
#include "softmax/softmax.h"
#include "softmax/sparse_distillation.h"

#define CODE XENT_CONCAT(CODE_, XENT_STORED)

#ifndef STORED_AS_16
/* Note that an array of so many numbers begins at p: in scratch, or else on the stack, where it belongs to one that
 * begins at `base`. */
static void NAME(reach)(const T *p, ptrdiff_t numbers, const T *base, ptrdiff_t *on_stack)
{
    const char *begin = (const char *)p, *end = (const char *)(p + numbers);
    const int inside = begin >= probe.scratch && begin < probe.scratch_end;
    ptrdiff_t *to = inside ? &probe.next->scratch : on_stack,
              reached = end - (inside ? probe.scratch : (const char *)base);
    *to = xent_max(*to, reached);
}

static void NAME(note_overlap)(const T *a, const T *b, ptrdiff_t numbers)
{
    if (!a || !b || a == b) return;
    const ptrdiff_t apart = a > b ? a - b : b - a;
    probe.next->overlap = xent_max(probe.next->overlap, (numbers - apart) * (ptrdiff_t)sizeof(T));
}

/* Numbers of an array of a tile of columns, or of rows that are filled up. A kernel writes whole vectors. */
static ptrdiff_t NAME(numbers_of)(ptrdiff_t classes, ptrdiff_t n, ptrdiff_t step, int lanes_are_positions)
{
    const ptrdiff_t width = lanes_are_positions ? xent_ceil_div(n, LANES) * LANES : NAME(padded_row)(classes);
    if (width > step) probe.next->overlap = xent_max(probe.next->overlap, (width - step) * (ptrdiff_t)sizeof(T));
    return ((lanes_are_positions ? classes : n) - 1) * step + width;
}

static void NAME(packed_probe)(const xent_positions *positions, const NAME(tile) *t, row_sum_f64 *sums)
{
    (void)sums;
    begin_record(t->first, t->n);
    record *r = probe.next;
    /* rows that are transposed touch each other */
    const ptrdiff_t numbers = t->rows && t->lanes_are_positions
                                  ? xent_ceil_div(t->n * positions->classes, LANES) * LANES
                                  : NAME(numbers_of)(positions->classes, t->n, t->x_step, t->lanes_are_positions);
    const ptrdiff_t exps = t->kept ? NAME(numbers_of)(positions->classes, t->n, t->exps_step, t->lanes_are_positions)
                           : t->blocks ? BLOCK
                                       : NAME(padded_row)(positions->classes);
    NAME(reach)(t->exps, exps, t->exps, &r->exps);
    if (positions->inner == 1 && t->lanes_are_positions)
        r->transposed = t->n * positions->classes * (ptrdiff_t)sizeof(T);
    const T *arrays[] = {t->x, t->exps, t->target, t->hess};
    for (int k = 0; k < 4; k++) {
        const char *p = (const char *)arrays[k];
        const int own = t->max_logit == NULL || (p >= probe.scratch && p < probe.scratch_end); /* else of the caller */
        if (!p || !own) {
            arrays[k] = NULL;
            continue;
        }
        if (k != 1) NAME(reach)(arrays[k], numbers, t->x, &r->pack);
        for (int i = 0; i < k; i++) NAME(note_overlap)(arrays[i], arrays[k], numbers);
    }
    probe.next++;
}
#endif

static void KERNEL(plain_probe)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *sums)
{
    (void)sums;
    begin_record(t->first, t->n);
    ptrdiff_t numbers = BLOCK;
    if (t->kept)
        numbers = NAME(numbers_of)(positions->classes, t->n, t->exps_step, t->lanes_are_positions);
    else if (!t->lanes_are_positions && !t->blocks)
        numbers = NAME(padded_row)(positions->classes);
    NAME(reach)(t->exps, numbers, t->exps, &probe.next->exps);
    if (t->logits) NAME(reach)(t->logits, numbers, t->exps, &probe.next->exps);
    NAME(note_overlap)(t->exps, t->logits, numbers);
    probe.next++;
}

/* The tiles of a call, at most `most` of them; -1 where the walk refuses. */
EXPORT ptrdiff_t KERNEL(of_tiles)(const call *c, char *in, char *out, char *end, facts *f, record *records,
                                  ptrdiff_t most)
{
    xent_softmax_args args; /* whose positions the plan looks at, as those of any operator */
    xent_positions *positions = &args.positions;
    if (!walk(positions, c, sizeof(S), in, out)) return -1;
    const xent_plan plan = xent_plan_positions(positions, CODE, (int)c->exps);
    *f = facts_of(positions, &plan);
    char *scratch = place_scratch(end, plan.scratch_size);
    probe.next = records, probe.end = records + most;
    probe.scratch = scratch, probe.scratch_end = end;
    if (setjmp(probe.stop)) return probe.next - records;
    for (probe.chunk = 0; probe.chunk < plan.chunks; probe.chunk++)
        KERNEL(for_tiles)(positions, probe.chunk, scratch,
                          (KERNEL(functions)){.plain = KERNEL(plain_probe), .packed = NAME(packed_probe)});
    f->intact = is_intact(scratch, plan.scratch_size, end);
    return probe.next - records;
}

/* Run a kernel of losses on the same; each position's loss goes to `losses`, and to one of the sums of the chunks. */
EXPORT ptrdiff_t KERNEL(of_distill)(const call *c, char *in, char *out, char *end, facts *f, T *losses, double *partial)
{
    xent_distillation_args a = {.temperature = 1, .factor = 1, .gradient_scale = 1, .losses = losses};
    if (!walk(&a.positions, c, sizeof(S), in, out)) return -1;
    const xent_plan plan = xent_plan_distillation(&a, CODE);
    a.positions.partial = partial, a.positions.sums = 1;
    *f = facts_of(&a.positions, &plan);
    char *scratch = place_scratch(end, plan.scratch_size);
    for (ptrdiff_t k = 0; k < plan.chunks; k++) KERNEL(distillation)(&a, k, scratch);
    f->intact = is_intact(scratch, plan.scratch_size, end);
    return 0;
}

/* Losses with second derivatives that are worked on line by line, of a distribution or labels; `product`: the Hessian times
 * what lies in the place of second derivatives, of positions whose notes of what is left lie in `is_left` and, for each
 * chunk, `left`. */
EXPORT ptrdiff_t KERNEL(of_curved)(const call *c, char *in, char *out, char *end, facts *f, double *losses,
                                   double *partial, const int64_t *labels, ptrdiff_t *left, uint8_t *is_left,
                                   ptrdiff_t product)
{
    xent_cross_entropy_args a = {.labels = {labels, -1}, .z_loss = 0.1, .gamma = 2.5, .gradient_scale = 1, .peak = 1};
    xent_positions *p = &a.positions;
    if (!walk(p, c, sizeof(S), in, out)) return -1;
    a.curvature = a.exact = 1, a.dense.mix = c->target ? 0.5 : 0;
    p->curved = p->transformed = 1, p->reads_hess = (int)product, p->left = left, p->is_left = is_left;
    p->partial = partial, p->sums = 1;
#ifndef STORED_AS_16
    const xent_plan plan = product ? xent_plan_product(p, CODE) : xent_plan_positions(p, CODE, XENT_REUSED_EXPS);
    void (*kernel)(const void *, ptrdiff_t, void *) = product ? KERNEL(cross_entropy_product) : KERNEL(cross_entropy);
#else
    const xent_plan plan = xent_plan_positions(p, CODE, XENT_REUSED_EXPS);
    void (*kernel)(const void *, ptrdiff_t, void *) = KERNEL(cross_entropy);
#endif
    a.losses.data = product ? NULL : losses;
    *f = facts_of(p, &plan);
    char *scratch = place_scratch(end, plan.scratch_size);
    for (ptrdiff_t k = 0; k < plan.chunks; k++) kernel(&a, k, scratch);
    f->intact = is_intact(scratch, plan.scratch_size, end);
    return 0;
}

/* Log-sum-exps with factors. */
EXPORT ptrdiff_t KERNEL(of_weighted)(const call *c, char *in, char *out, char *end, facts *f, T *results)
{
    xent_softmax_args a = {.sign = NULL};
    if (!walk(&a.positions, c, sizeof(S), in, out)) return -1;
    a.positions.transformed = XENT_DISTANCES, a.result = results;
    const xent_plan plan = xent_plan_positions(&a.positions, CODE, XENT_SUMMED_EXPS);
    *f = facts_of(&a.positions, &plan);
    char *scratch = place_scratch(end, plan.scratch_size);
    for (ptrdiff_t k = 0; k < plan.chunks; k++) KERNEL(weighted_logsumexp)(&a, k, scratch);
    f->intact = is_intact(scratch, plan.scratch_size, end);
    return 0;
}

/* Of up to `most` ids at each position, of rows. */
EXPORT ptrdiff_t KERNEL(of_sparse)(const call *c, char *in, char *out, char *end, facts *f, double *losses,
                                   double *partial, int64_t *ids, const double *log_probs, ptrdiff_t most)
{
    xent_sparse_distillation_args a = {
        .rule = (int)c->exps, .ids = ids, .log_probs = log_probs, .gradient_scale = 1, .losses = {.data = losses}};
    if (!walk(&a.positions, c, sizeof(S), in, out) || a.positions.inner > 1) return -1;
    a.k = xent_min(a.positions.classes, xent_max(most / xent_max(a.positions.count, 1), 1));
    for (ptrdiff_t i = 0; i < a.positions.count * a.k; i++) ids[i] = (i / a.k + i % a.k) % a.positions.classes;
    a.positions.temperature = a.positions.transformed ? 3 : 1;
    const xent_plan plan = xent_plan_sparse_distillation(&a, CODE);
    a.positions.partial = partial, a.positions.sums = 1;
    *f = facts_of(&a.positions, &plan);
    char *scratch = place_scratch(end, plan.scratch_size);
    for (ptrdiff_t k = 0; k < plan.chunks; k++) KERNEL(sparse_distillation)(&a, k, scratch);
    f->intact = is_intact(scratch, plan.scratch_size, end);
    return 0;
}

EXPORT ptrdiff_t KERNEL(of_label)(const call *c, char *in, char *out, const int64_t *labels, facts *f, double *losses,
                                  double *partial)
{
    xent_label_losses_args a = {
        .labels = {labels, -1}, .loss = {.kind = XENT_NLL, .unit = 1, .gradient_scale = 1}, .losses = {.data = losses}};
    if (!walk(&a.positions, c, sizeof(S), in, out)) return -1;
    const xent_plan plan = xent_plan_positions(&a.positions, CODE, XENT_ONE_CLASS);
    a.positions.partial = partial, a.positions.sums = 2;
    *f = facts_of(&a.positions, &plan);
    for (ptrdiff_t k = 0; k < plan.chunks; k++) KERNEL(label_losses)(&a, k, NULL);
    return 0;
}

#ifndef STORED_AS_16
/* Pooling, there and back; `outputs` take the pooled planes and then the gradient. Returns whether all is well. */
EXPORT ptrdiff_t NAME(of_pool)(const xent_window *w, const ptrdiff_t *planes_bottom_right, const T *x, T *pooled,
                               T *grad, char *end, int average)
{
    xent_pool_args a = {.window = *w,
                        .planes = planes_bottom_right[0],
                        .average = average,
                        .bottom = planes_bottom_right[1],
                        .right = planes_bottom_right[2],
                        .count_include_pad = 1,
                        .x = x,
                        .out = pooled};
    xent_plan plan = xent_plan_pool(&a, CODE);
    char *scratch = place_scratch(end, plan.scratch_size);
    for (ptrdiff_t k = 0; k < plan.chunks; k++) (average ? NAME(avg_pool2d) : NAME(max_pool2d))(&a, k, scratch);
    if (!is_intact(scratch, plan.scratch_size, end)) return 0;
    a.grad = pooled, a.out = grad;
    plan = xent_plan_pool(&a, CODE);
    scratch = place_scratch(end, plan.scratch_size);
    for (ptrdiff_t k = 0; k < plan.chunks; k++)
        (average ? NAME(avg_pool2d_backward) : NAME(max_pool2d_backward))(&a, k, scratch);
    return is_intact(scratch, plan.scratch_size, end);
}

/* The same with groups as lanes. */
static ptrdiff_t NAME(grouped_excess)(const xent_conv_args *a, int backward)
{
    const ptrdiff_t steps = a->in_channels * a->window.kernel_h * a->window.kernel_w;
    ptrdiff_t worst = 0, pixels = 0;
    for (ptrdiff_t i = 0; i < xent_tiles(a); i++) {
        const xent_tile t = xent_tile_at(a, i);
        const NAME(grouped) g = NAME(grouped_at)(a, i, NULL);
        const ptrdiff_t here = xent_tile_pixels(&t);
        if (t.images.n != 1 || t.rows.n <= 0 || t.columns.n <= 0) return PTRDIFF_MAX;
        pixels += here;
        worst = xent_max(worst, a->in_channels * g.height * g.width * LANES - a->patch_room);
        worst = xent_max(worst, backward ? here * LANES - a->packed_room : (here + LANES) * LANES - a->sums_room);
    }
    if (backward) worst = xent_max(worst, 2 * a->out_channels * steps * LANES - a->sums_room);
    return pixels == a->images * a->window.out_h * a->window.out_w ? worst : PTRDIFF_MAX;
}

/* The same plane by plane: rooms for rows and for what vectors read behind the last; small planes are converted whole, or
 * read where they lie. */
static ptrdiff_t NAME(planes_excess)(const xent_conv_args *a)
{
    const ptrdiff_t size = a->window.height * a->window.width;
    if (xent_rows_across(&a->window, LANES))
        return a->tile_rows == a->window.height && a->tile_columns == a->window.width && a->tile_images == 1
                   ? xent_max(size - a->patch_room / a->block_channels, size - a->sums_room)
                   : PTRDIFF_MAX;
    const xent_lines l = xent_lines_of(&a->window);
    const ptrdiff_t room = a->patch_room / a->block_channels;
    ptrdiff_t worst = 0, rows = 0;
    for (ptrdiff_t i = 0; i < xent_tiles(a) / a->images; i++) {
        const xent_tile t = xent_tile_at(a, i);
        if (t.rows.n <= 0 || t.columns.n != a->window.out_w || a->tile_images != 1) return PTRDIFF_MAX;
        const ptrdiff_t seen = (t.rows.n - 1) * a->window.stride_h + XENT_DEPTHWISE,
                        last = xent_max(0, t.columns.n - LANES);
        for (int j = 0; j < XENT_DEPTHWISE; j++) {
            worst = xent_max(worst, -(l.before + l.at[j]));
            worst = xent_max(worst, l.before + (seen - 1) * l.pitch + l.at[j] + last + LANES - room);
        }
        worst = xent_max(worst, t.rows.n * t.columns.n - a->sums_room);
        rows += t.rows.n;
    }
    return rows == a->window.out_h ? worst : PTRDIFF_MAX;
}

/* What tiles and blocks of a convolution need beyond the rooms of the plan: at most 0. Checks that none is empty, and
 * that they add up. */
static ptrdiff_t NAME(excess)(const xent_conv_args *a, int backward)
{
    const xent_window *w = &a->window;
    ptrdiff_t worst = 0, pixels = 0, depth = 0;
    if (a->lanes_are_groups) return NAME(grouped_excess)(a, backward);
    if (a->by_planes) return NAME(planes_excess)(a);
    for (ptrdiff_t i = 0; i < xent_tiles(a); i++) {
        const xent_tile t = xent_tile_at(a, i);
        const ptrdiff_t here = xent_tile_pixels(&t);
        if (t.images.n <= 0 || t.rows.n <= 0 || t.columns.n <= 0) return PTRDIFF_MAX;
        pixels += here;
        if (!a->lanes_are_pixels) worst = xent_max(worst, here - a->row_room);
        if (backward && !a->lanes_are_pixels) worst = xent_max(worst, here * a->width - a->packed_room);
        const ptrdiff_t strips = xent_blocks(a) > 1 ? a->strip_chunk : 1;
        if (!backward && !a->lanes_are_pixels) worst = xent_max(worst, strips * a->width * here - a->sums_room);
        for (ptrdiff_t k = 0; k < xent_blocks(a); k++) {
            const xent_block b = xent_block_at(a, k);
            const xent_patch g = xent_patch_at(a, &t, &b, sizeof(T));
            const xent_lanes l = xent_lanes_of(a, &t, &g, LANES, xent_blocks(a) == 1);
            const ptrdiff_t vectors = xent_vectors_of(&l), rest = xent_ceil_div(b.depth, LANES) * LANES;
            if (b.depth <= 0 || (a->x_in_place && a->lanes_are_pixels && !l.direct)) return PTRDIFF_MAX;
            if (!backward && a->lanes_are_pixels) {
                worst = xent_max(worst, vectors - a->row_room);
                if (!l.direct) worst = xent_max(worst, strips * a->width * xent_kept_sums(&l) - a->sums_room);
                worst = xent_max(worst, l.rest * rest - a->packed_room);
            }
            if (i == 0) depth += b.depth;
            worst = xent_max(worst, b.depth * (a->panels ? 2 : 1) - a->step_room);
            if (backward) worst = xent_max(worst, a->strip_chunk * b.depth * a->width - a->sums_room);
            /* runs of a patch are written in whole vectors */
            const ptrdiff_t runs = a->taps_apart ? b.depth : b.channels.n;
            const ptrdiff_t last = (runs - 1) * g.channel_step + t.images.n * g.image_step + LANES;
            if (!a->x_in_place)
                worst = xent_max(worst, (a->panels ? xent_panel_numbers(&l, b.depth) : last) - a->patch_room);
        }
    }
    if (pixels != a->images * w->out_h * w->out_w) return PTRDIFF_MAX;
    return depth == a->in_channels * w->kernel_h * w->kernel_w ? worst : PTRDIFF_MAX;
}

/* Convolve forward, and (numbers[4] says so) the gradient of the weights. Returns the partial sums of the gradient; -1:
 * a scratch was left, -2: a room is too small, or tiles are wrong. */
EXPORT ptrdiff_t NAME(of_convolution)(const xent_window *w, const ptrdiff_t *numbers, const T *x, const T *weight,
                                      T *packed, T *out, char *end, ptrdiff_t packed_room)
{
    const ptrdiff_t taps = w->kernel_h * w->kernel_w;
    const xent_table table = {.vector_bytes = XENT_VBYTES, .strip_bytes = VECTORS * XENT_VBYTES};
    xent_conv_args a = {.window = *w,
                        .images = numbers[0],
                        .groups = numbers[1],
                        .in_channels = numbers[2],
                        .out_channels = numbers[3],
                        .x = x,
                        .out = out};
    const int backward = numbers[4] != 0;
    a.out_size = w->out_h * w->out_w, a.out_row = w->out_w, a.out_step = 1;
    a.weight_j = 1, a.weight_i = w->kernel_w, a.weight_in = taps, a.weight_out = a.in_channels * taps;
    a.weight_group = a.out_channels * a.weight_out;
    if (backward)
        a.grad = weight;
    else
        a.weight = weight, a.packed = packed;
    const xent_plan plan = backward ? xent_plan_grad_weight(&a, &table, CODE) : xent_plan_conv2d(&a, &table, CODE);
    if (NAME(excess)(&a, backward) > 0 || plan.packed + a.patch_bytes > packed_room) return -2;
    if (!backward) a.patches = (char *)packed + plan.packed;
    char *scratch = place_scratch(end, plan.scratch_size);
    for (ptrdiff_t k = 0; k < plan.pack_chunks; k++) NAME(conv2d_pack)(&a, k, NULL);
    for (ptrdiff_t k = 0; k < plan.chunks; k++) (backward ? NAME(conv2d_grad_weight) : NAME(conv2d))(&a, k, scratch);
    return is_intact(scratch, plan.scratch_size, end) ? plan.partials : -1;
}
#endif

#undef CODE
#include "end.h"
#endif
