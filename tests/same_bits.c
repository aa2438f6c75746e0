/* same_bits.c: a program that prints a digest of what kernels make of generated numbers, a line for each operator, type
 * and layout, for test_same_bits.py: on every instruction set that fuses the lines are the same. The kernels are
 * compiled with it; the rest is plain C.
 *
 * Inputs are made of integers, bit by bit, so that nothing rounds. NaNs count as one. A chunk's kernel is called as the
 * bridge calls it, on one thread, or on THREADS of them: for a thread sanitizer, `make races`.
 */
#include "base.h"
#include "table.h"

#define X(kernel) extern const xent_kernel XENT_OF_ISA(kernel)[XENT_DTYPES];
#define X16 X
#include "elements/kernels.def"

#include "softmax/kernels.def"
extern const xent_arithmetic XENT_OF_ISA(xent_arithmetic);

#ifndef THREADS
#define THREADS 1
#endif
#include "kernel_calls.h"

#include <stdio.h>

/* ---- digests ---- */

static uint64_t digest;

/* FNV-1a of the bytes, the lowest first. */
static void add_bits(uint64_t bits)
{
    for (int k = 0; k < 64; k += 8) digest = (digest ^ (bits >> k & 0xff)) * 0x100000001b3;
}

static void add(const void *array, int type, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; array && i < n; i++) {
        const uint64_t bits = bits_at(array, type, i);
        add_bits((bits & ~sign_bit(type)) > infinity_of(type) ? infinity_of(type) + 1 : bits);
    }
}

/* ---- a call ---- */

/* Everything that a call may want, for one shape. Of class-major arrays the classes are the first axis. */
static struct {
    int type, real, columns, special;
    ptrdiff_t classes, positions, size;
    void *x, *other, *probs, *more_probs, *log_probs, *out, *hess; /* of the type */
    void *class_factors, *offset, *element_factors, *results;      /* of the type computed with */
    double *label_weight, *sample_weight, *upstream, *partial;
    int64_t *labels, *rank;
} c;

enum { MOST_CHUNKS = 1 << 14, LONGEST = 270001 };

static ptrdiff_t place_of(ptrdiff_t position, ptrdiff_t class)
{
    return c.columns ? class * c.positions + position : position * c.classes + class;
}

/* Of eight rows, seven in which a number is infinite, NaN, huge, or all are equal. */
static void make_special(void *x)
{
    const uint64_t inf = infinity_of(c.type), minus = sign_bit(c.type);
    for (ptrdiff_t p = 0; p < c.positions; p++) {
        const ptrdiff_t somewhere = place_of(p, (ptrdiff_t)below((uint64_t)c.classes));
        const uint64_t one = bits_at(x, c.type, somewhere);
        const uint64_t numbers[] = {one, inf, inf | minus, inf + 1, power_of_2(c.type, 8), power_of_2(c.type, 11),
                                    one, 0};
        if (p % 8 < 6)
            put(x, c.type, somewhere, numbers[p % 8]);
        else
            for (ptrdiff_t k = 0; k < c.classes; k++)
                put(x, c.type, place_of(p, k), p % 16 < 8 ? numbers[p % 8] : inf | minus);
    }
}

static void open_case(int type, ptrdiff_t classes, ptrdiff_t positions, int columns, int special)
{
    const ptrdiff_t n = classes * positions;
    state = (uint64_t)(classes * 1000003 + positions * 101 + type * 7 + special);
    c.type = type, c.real = real_of(type), c.columns = columns, c.special = special;
    c.classes = classes, c.positions = positions, c.size = n;
    c.x = make(type, n, -6, 3, ANY_SIGN), c.other = make(type, n, -6, 3, ANY_SIGN);
    c.probs = make(type, n, -7, 0, POSITIVE), c.more_probs = make(type, n, -7, 0, POSITIVE);
    c.log_probs = make(type, n, -4, 3, NEGATIVE);
    c.out = make(type, n, 0, 1, POSITIVE), c.hess = make(type, n, 0, 1, POSITIVE);
    c.class_factors = make(c.real, classes, -2, 2, POSITIVE), c.element_factors = make(c.real, n, -2, 2, POSITIVE);
    c.offset = make(c.real, 2 * classes, -3, 2, NEGATIVE);
    for (ptrdiff_t k = 0; k < classes; k++) /* what rounding left of each */
        put(c.offset, c.real, classes + k, power_of_2(c.real, -30) + below(1 << 20));
    c.results = make(c.real, n, 0, 1, POSITIVE);
    c.label_weight = make(XENT_F64, classes, -2, 2, POSITIVE);
    c.sample_weight = make(XENT_F64, positions, -2, 2, POSITIVE);
    c.upstream = make(XENT_F64, positions, -2, 2, ANY_SIGN);
    c.partial = make(XENT_F64, MOST_CHUNKS, 0, 1, POSITIVE);
    c.labels = make(XENT_F64, positions, 0, 1, POSITIVE), c.rank = make(XENT_F64, positions, 0, 1, POSITIVE);
    for (ptrdiff_t p = 0; p < positions; p++) c.labels[p] = below(7) ? (int64_t)below((uint64_t)classes) : -1;
    if (special) make_special(c.x), make_special(c.other);
}

static void close_case(void)
{
    void *const arrays[] = {c.x,       c.other,        c.probs,         c.more_probs, c.log_probs,
                            c.out,     c.hess,         c.class_factors, c.offset,     c.element_factors,
                            c.results, c.label_weight, c.sample_weight, c.upstream,   c.partial,
                            c.labels,  c.rank};
    for (size_t k = 0; k < sizeof arrays / sizeof *arrays; k++) free(arrays[k]);
}

static void run(xent_kernel kernel, const void *args, xent_plan plan)
{
    if (plan.chunks > MOST_CHUNKS) abort();
    run_on(THREADS, kernel, args, plan.chunks, plan.scratch_size);
}

static xent_array seen(void *data, int type)
{
    static ptrdiff_t shape[2], strides[2];
    shape[0] = c.columns ? c.classes : c.positions, shape[1] = c.columns ? c.positions : c.classes;
    strides[1] = formats[type].size, strides[0] = strides[1] * shape[1];
    return (xent_array){data, formats[type].size, 2, shape, strides};
}

/* NULL: none. */
static void walk(xent_positions *p, void *x, void *target, void *out, void *hess)
{
    const xent_array arrays[] = {seen(x, c.type), seen(target, c.type), seen(out, c.type), seen(hess, c.type)};
    if (!xent_walk_positions(p, arrays, target ? arrays + 1 : NULL, out ? arrays + 2 : NULL, hess ? arrays + 3 : NULL,
                             c.columns ? 0 : 1))
        abort();
}

/* A kernel that sums something over positions. */
static void run_sums(xent_kernel kernel, xent_positions *p, xent_plan plan, int sums)
{
    p->partial = c.partial, p->sums = sums;
    run(kernel, p, plan);
    add(c.partial, XENT_F64, plan.chunks * sums);
}

/* ---- operators: each adds all that it wrote to the digest ---- */

static void maps(xent_kernel kernel)
{
    xent_map_args a = {.size = c.size, .x = c.x, .out = c.out};
    run(kernel, &a, xent_plan_map(&a));
    add(c.out, c.type, c.size);
}
static void sigmoid(void) { maps(sigmoid_kernels[c.type]); }
static void log_sigmoid(void) { maps(log_sigmoid_kernels[c.type]); }

/* exp, log and log1p of all that they take. */
static void functions(void)
{
    if (c.type == XENT_F64) {
        double *const x = c.x, *const p = c.probs, *const out = c.out;
        xent_arithmetic_kernels.exp_f64(x, out, c.size), add(out, XENT_F64, c.size);
        xent_arithmetic_kernels.log_f64(p, out, c.size), add(out, XENT_F64, c.size);
        xent_arithmetic_kernels.log1p_f64(p, out, c.size), add(out, XENT_F64, c.size);
    }
    if (c.type == XENT_F32) {
        float *const x = c.x, *const p = c.probs, *const out = c.out;
        xent_arithmetic_kernels.exp_f32(x, out, c.size), add(out, XENT_F32, c.size);
        xent_arithmetic_kernels.log_f32(p, out, c.size), add(out, XENT_F32, c.size);
        xent_arithmetic_kernels.log1p_f32(p, out, c.size), add(out, XENT_F32, c.size);
    }
}

static void softmax_call(xent_kernel kernel, void *x, void *grad, int exps, double temperature)
{
    xent_softmax_args a;
    walk(&a.positions, x, grad, c.out, NULL);
    a.positions.temperature = temperature, a.positions.transformed = temperature != 1, a.result = NULL;
    run(kernel, &a, xent_plan_positions(&a.positions, c.type, exps));
    add(c.out, c.type, c.size);
}
static void softmax(void)
{
    softmax_call(softmax_kernels[c.type], c.x, NULL, XENT_REUSED_EXPS, 1);
    softmax_call(softmax_kernels[c.type], c.x, NULL, XENT_REUSED_EXPS, 0.7);
}
static void log_softmax(void)
{
    softmax_call(log_softmax_kernels[c.type], c.x, NULL, XENT_SUMMED_EXPS, 1);
    softmax_call(log_softmax_kernels[c.type], c.x, NULL, XENT_SUMMED_EXPS, 0.7);
}
static void softmax_backward(void)
{
    softmax_call(softmax_backward_kernels[c.type], c.probs, c.x, XENT_SUMMED_EXPS, 1);
}
static void log_softmax_backward(void)
{
    softmax_call(log_softmax_backward_kernels[c.type], c.log_probs, c.x, XENT_SUMMED_EXPS, 1);
}
static void logsumexp(void)
{
    xent_softmax_args a;
    walk(&a.positions, c.x, NULL, NULL, NULL);
    a.result = c.results;
    run(logsumexp_kernels[c.type], &a, xent_plan_positions(&a.positions, c.type, XENT_SUMMED_EXPS));
    add(c.results, c.real, c.positions);
}

/* Options of the cross-entropy, of which a set is a sum; WITH_PROBABILITIES: no labels. */
enum {
    WITH_PROBABILITIES = 1,
    WITH_WEIGHTS = 2,
    WITH_SMOOTHING = 4,
    WITH_Z_LOSS = 8,
    WITH_GAMMA = 16,
    WITH_TEMPERATURE = 32,
    WITH_CAP = 64,
    WITH_PRIOR = 128,
    WITH_HESSIAN = 256,
    WITH_UPSTREAM = 512
};

static void cross_entropy_call(int options, int with_grad)
{
    const int soft = options & WITH_PROBABILITIES, hess = with_grad && (options & WITH_HESSIAN);
    xent_cross_entropy_args a = {.labels = {soft ? NULL : c.labels, -1}, .gradient_scale = 0.125};
    xent_positions *p = &a.positions;
    const double smoothing = options & WITH_SMOOTHING ? 0.125 : 0;
    walk(p, c.x, soft ? c.probs : NULL, with_grad ? c.out : NULL, hess ? c.hess : NULL);
    a.dense.mix = soft ? 1 - smoothing : 0, a.dense.base = smoothing / (double)c.classes,
    a.peak = soft ? 0 : 1 - smoothing;
    if (options & WITH_WEIGHTS) {
        a.label_weight = c.label_weight, a.sample_weight = c.sample_weight;
        a.dense.weight = soft || smoothing ? c.class_factors : NULL;
    }
    if (options & WITH_UPSTREAM) a.upstream = c.upstream;
    if (options & WITH_Z_LOSS) a.z_loss = 0.01;
    if (options & WITH_GAMMA) a.gamma = 1.5;
    if (hess) a.curvature = 1;
    a.losses.data = c.results, a.losses.single = c.real == XENT_F32;
    p->packs |= soft || smoothing;
    if (options & WITH_TEMPERATURE) p->temperature = 0.7;
    if (options & WITH_CAP) p->cap = 5;
    if (options & WITH_PRIOR) p->offset = c.offset;
    p->transformed = (options & (WITH_TEMPERATURE | WITH_CAP | WITH_PRIOR)) != 0;
    run_sums(cross_entropy_kernels[c.type], p,
             xent_plan_positions(p, c.type, with_grad ? XENT_REUSED_EXPS : XENT_SUMMED_EXPS), 1);
    add(c.results, c.real, c.positions);
    if (with_grad) add(c.out, c.type, c.size);
    if (hess) add(c.hess, c.type, c.size);
}
static void cross_entropies(int with_grad)
{
    const int chosen[] = {0,           WITH_HESSIAN, WITH_TEMPERATURE, WITH_WEIGHTS, WITH_SMOOTHING,
                          WITH_Z_LOSS, WITH_GAMMA,   WITH_CAP,         WITH_PRIOR,   WITH_UPSTREAM};
    const int all =
        WITH_WEIGHTS | WITH_SMOOTHING | WITH_Z_LOSS | WITH_TEMPERATURE | WITH_CAP | WITH_PRIOR | WITH_UPSTREAM;
    const size_t count = c.classes == LONGEST ? 3 : sizeof chosen / sizeof *chosen;
    for (size_t k = 0; k < count; k++) {
        cross_entropy_call(chosen[k], with_grad);
        if (chosen[k] != WITH_GAMMA) cross_entropy_call(chosen[k] | WITH_PROBABILITIES, with_grad);
    }
    cross_entropy_call(all, with_grad), cross_entropy_call(all | WITH_PROBABILITIES, with_grad);
}
static void cross_entropy(void) { cross_entropies(0); }
static void cross_entropy_grad(void) { cross_entropies(1); }

static void evaluate_call(int transformed)
{
    xent_evaluate_args a = {.labels = {c.labels, -1}, .sample_weight = c.sample_weight, .rank = c.rank, .most = 3};
    xent_positions *p = &a.positions;
    walk(p, c.x, NULL, NULL, NULL);
    p->keeps_logits = 1, p->transformed = transformed, p->offset = transformed ? c.offset : NULL;
    run_sums(evaluate_kernels[c.type], p, xent_plan_positions(p, c.type, XENT_REUSED_EXPS), XENT_MOST_SUMS);
    for (ptrdiff_t k = 0; k < c.positions; k++) add_bits((uint64_t)c.rank[k]);
}
static void evaluate(void) { evaluate_call(0), evaluate_call(1); }

static void distillation(void)
{
    xent_distillation_args a = {
        .temperature = 3, .factor = 9, .gradient_scale = 3, .upstream = c.upstream, .losses = c.results};
    walk(&a.positions, c.x, c.other, c.out, NULL);
    run_sums(distillation_kernels[c.type], &a.positions, xent_plan_distillation(&a, c.type), 1);
    add(c.results, c.real, c.positions), add(c.out, c.type, c.size);
}

static void sparse_distillation(void)
{
    const ptrdiff_t k = xent_min(c.classes, 21), n = c.positions * k;
    int64_t *ids = make(XENT_F64, n, 0, 1, POSITIVE);
    void *log_probs = make(c.real, n, -4, 3, NEGATIVE);
    for (ptrdiff_t i = 0; i < n; i++) ids[i] = (i / k + i % k * (c.classes / k)) % c.classes;
    for (int rule = XENT_BUCKET; rule <= XENT_DROP; rule++)
        for (int tempered = 0; tempered < 2 && !c.columns; tempered++) { /* it takes rows */
            xent_sparse_distillation_args a = {.rule = rule,
                                               .k = k,
                                               .ids = ids,
                                               .log_probs = log_probs,
                                               .single = c.real == XENT_F32,
                                               .sample_weight = c.sample_weight,
                                               .upstream = c.upstream,
                                               .gradient_scale = 3,
                                               .losses = {c.results, c.real == XENT_F32}};
            walk(&a.positions, c.x, NULL, c.out, NULL);
            a.positions.temperature = tempered ? 3 : 1, a.positions.transformed = tempered;
            run_sums(sparse_distillation_kernels[c.type], &a.positions, xent_plan_sparse_distillation(&a, c.type), 1);
            add(c.results, c.real, c.positions), add(c.out, c.type, c.size);
        }
    free(ids), free(log_probs);
}

/* The data of a loss of probabilities, and its target. */
static void *data_of(int kind)
{
    return kind == XENT_MSE ? c.x : kind == XENT_KL_DIV || kind == XENT_KL_DIV_LOG ? c.log_probs : c.probs;
}
static void *target_of(int kind) { return kind == XENT_MSE ? c.other : kind == XENT_KL_DIV_LOG ? c.x : c.more_probs; }

static xent_wide_sum odd_sums[MOST_CHUNKS]; /* of losses that no number here is odd enough for */
static int bad_targets;

static void losses_of_elements(void)
{
    for (int kind = XENT_MSE; kind <= XENT_KL_DIV_LOG; kind++) {
        xent_element_losses_args a;
        const xent_array x = seen(data_of(kind), c.type), t = seen(target_of(kind), c.type), out = seen(c.out, c.type);
        const xent_array *const arrays[XENT_LOSS_OPERANDS] = {&x, &t, NULL, NULL, &out, NULL};
        if (!xent_walk_elements(&a, arrays)) abort();
        a.loss = (xent_loss){
            .kind = kind, .unit = 0.6875, .clip = kind == XENT_CROSS_ENTROPY ? 0.01 : 0, .gradient_scale = 3};
        a.partial = c.partial, a.wide = odd_sums, a.bad = &bad_targets;
        const xent_plan plan = xent_plan_elements(&a);
        run(element_losses_kernels[c.type], &a, plan);
        add(c.partial, XENT_F64, plan.chunks), add(c.out, c.type, c.size);
    }
}

static void losses_of_positions(void)
{
    for (int kind = XENT_CROSS_ENTROPY; kind <= XENT_ENTROPY; kind++) {
        const int alone = kind == XENT_ENTROPY;
        xent_position_losses_args a = {.loss = {.kind = kind, .unit = 0.6875, .gradient_scale = 3},
                                       .upstream = alone ? NULL : c.upstream,
                                       .losses = c.results};
        walk(&a.positions, data_of(kind), alone ? NULL : target_of(kind), alone ? NULL : c.out, NULL);
        a.positions.packs = 1;
        run_sums(position_losses_kernels[c.type], &a.positions, xent_plan_positions(&a.positions, c.type, XENT_NO_EXPS),
                 1);
        add(c.results, c.real, c.positions);
        if (!alone) add(c.out, c.type, c.size);
    }
}

static void losses_of_labels(void)
{
    for (int kind = XENT_NLL; kind <= XENT_LABEL_CROSS_ENTROPY; kind++) {
        xent_label_losses_args a = {.labels = {c.labels, -1},
                                    .loss = {.kind = kind, .unit = 1, .gradient_scale = 3},
                                    .label_weight = c.label_weight,
                                    .upstream = c.upstream,
                                    .losses = {c.results, c.real == XENT_F32}};
        walk(&a.positions, kind == XENT_NLL ? c.x : c.probs, NULL, c.out, NULL);
        run_sums(label_losses_kernels[c.type], &a.positions, xent_plan_positions(&a.positions, c.type, XENT_ONE_CLASS),
                 2);
        add(c.results, c.real, c.positions), add(c.out, c.type, c.size);
    }
}

static void sigmoid_cross_entropy(void)
{
    const double gammas[] = {0, 1, 2, 1.5};
    for (int k = 0; k < 4; k++) {
        int64_t *counted = make(XENT_F64, MOST_CHUNKS, 0, 1, POSITIVE);
        xent_sigmoid_args a = {.size = c.size,
                               .x = c.x,
                               .target = c.more_probs,
                               .target_code = c.type,
                               .weight = {c.element_factors, 1, c.size},
                               .pos_weight = {c.class_factors, 1, c.classes},
                               .mix = 0.875,
                               .base = 0.0625,
                               .gamma = gammas[k],
                               .alpha_1 = 0.25,
                               .alpha_0 = 0.75,
                               .gradient_scale = 3,
                               .factor = 3,
                               .divisor = 1,
                               .value = 1,
                               .out = c.out,
                               .losses = c.results,
                               .partial = c.partial,
                               .wide = odd_sums,
                               .counted = counted};
        const xent_plan plan = xent_plan_sigmoid(&a, c.type);
        run(sigmoid_cross_entropy_kernels[c.type], &a, plan);
        add(c.partial, XENT_F64, plan.chunks), add(c.results, c.real, c.size), add(c.out, c.type, c.size);
        free(counted);
    }
}

static const struct {
    const char *name;
    void (*call)(void);
} operators[] = {
    {"exp, log, log1p", functions},
    {"sigmoid", sigmoid},
    {"log_sigmoid", log_sigmoid},
    {"softmax", softmax},
    {"log_softmax", log_softmax},
    {"logsumexp", logsumexp},
    {"softmax_backward", softmax_backward},
    {"log_softmax_backward", log_softmax_backward},
    {"cross_entropy", cross_entropy},
    {"cross_entropy, gradient", cross_entropy_grad},
    {"evaluate", evaluate},
    {"distillation", distillation},
    {"sparse distillation", sparse_distillation},
    {"losses of elements", losses_of_elements},
    {"losses of positions", losses_of_positions},
    {"losses of labels", losses_of_labels},
    {"sigmoid_cross_entropy", sigmoid_cross_entropy},
};
enum { OPERATORS = sizeof operators / sizeof *operators };

/* Classes and positions: positions as lanes; rows and columns with each remainder; rows in blocks, and as many as keep
 * their exponentials; more blocks than a scratch has room for. An emulator is slow: the longest are rows alone, and the
 * last is of floats. */
static const ptrdiff_t sizes[][2] = {{1, 33},  {2, 40},  {3, 70},   {10, 40}, {17, 29},  {33, 19},  {100, 17},
                                     {128, 9}, {129, 5}, {300, 17}, {519, 7}, {4099, 1}, {8209, 8}, {LONGEST, 1}};
enum { SIZES = sizeof sizes / sizeof *sizes };

static int is_left_out(ptrdiff_t classes, int type, int columns)
{
    return (columns && classes > 1000) || (classes == LONGEST && type != XENT_F32);
}

int main(void)
{
    for (int type = 0; type < XENT_DTYPES; type++)
        for (int columns = 0; columns < 2; columns++) {
            uint64_t found[OPERATORS];
            for (int k = 0; k < OPERATORS; k++) found[k] = 0xcbf29ce484222325;
            for (int s = 0; s < SIZES; s++)
                for (int special = 0; special < (sizes[s][0] > 1000 ? 1 : 2); special++) {
                    if (is_left_out(sizes[s][0], type, columns)) continue;
                    open_case(type, sizes[s][0], sizes[s][1], columns, special);
                    for (int k = 0; k < OPERATORS; k++) digest = found[k], operators[k].call(), found[k] = digest;
                    close_case();
                }
            for (int k = 0; k < OPERATORS; k++)
                printf("%s of %s, %s: %016llx\n", operators[k].name, formats[type].name, columns ? "columns" : "rows",
                       (unsigned long long)found[k]);
        }
    return 0;
}
