/* guided_losses.h: calls of the softmax family and of elements, drawn from bytes. They are made as the bridge makes them
 * (bridge/softmax.pxi, loss.pxi, elements.pxi, sigmoid.pxi), and with numbers that it would keep from a kernel, too.
 */
#ifndef GUIDED_LOSSES_H
#define GUIDED_LOSSES_H

#include "guided.h"

#define X(kernel) extern const xent_kernel XENT_OF_ISA(kernel)[XENT_DTYPES];
#define X16 X
#include "elements/kernels.def"

#include "softmax/kernels.def"
#undef X
#undef X16
extern const xent_arithmetic XENT_OF_ISA(xent_arithmetic);

/* ---- arrays of positions ---- */

enum { NO_ARRAY, READ, WRITTEN, IN_PLACE }; /* the last: where x is */

/* What a call has beside x. */
typedef struct {
    int apart, labels, never_in_place; /* how it is walked */
    int x, target, target_kind, out, hess, hess_kind;
} roles;

static int real(void) { return real_of(form.type); }

static xent_array role_array(int role, int kind)
{
    return role == READ ? read_array(form.type, kind) : written_array(form.type);
}

static int walk_roles(xent_positions *p, const roles *r)
{
    xent_array x = read_array(form.type, r->x), target, out, hess;
    const int in_place = r->out == IN_PLACE && !repeats(&x);
    if (in_place) own(blocks + block_count - 1, &x);
    if (r->target) target = role_array(r->target, r->target_kind);
    if (r->out) out = in_place ? x : written_array(form.type);
    if (r->hess) hess = role_array(r->hess, r->hess_kind);
    const xent_array *const t = r->target ? &target : NULL, *const o = r->out ? &out : NULL;
    const xent_array *const h = r->hess ? &hess : NULL;
    if (r->labels) return xent_walk_labels(p, &x, o, form.axis);
    return (r->apart ? xent_walk_apart : xent_walk_positions)(p, &x, t, o, h, form.axis);
}

/* Arrays as they were drawn, or, if the kernels do not take them so, in C order. */
static void walk(xent_positions *p, roles r)
{
    const int outer = block_count;
    if (r.out && !r.never_in_place) r.out = draw(4) == 3 ? IN_PLACE : WRITTEN;
    if (walk_roles(p, &r)) return;
    close_blocks(outer);
    form.tight = 1;
    if (!walk_roles(p, &r)) fail("arrays in C order were refused");
}

/* ---- calls ---- */

typedef struct {
    xent_kernel kernel;
    void *args;
    xent_plan plan;
    xent_positions *positions; /* of kernels that leave some */
} one_kernel;

static void call_kernel(void *of)
{
    const one_kernel *c = of;
    if (c->positions) memset(c->positions->is_left, 0, (size_t)form.count);
    run(c->kernel, c->args, c->plan);
    for (ptrdiff_t k = 0; c->positions && k < c->plan.chunks; k++) leaves_some |= c->positions->left[k] != 0;
}

static void make_call(const xent_kernel *kernels, void *args, xent_plan plan)
{
    if (!kernels[form.type]) return;
    one_kernel c = {kernels[form.type], args, plan, NULL};
    twice(call_kernel, &c);
}

/* Of a kernel that gives `sums` of each chunk, and may leave positions if it `leaves`. */
static void make_sums(const xent_kernel *kernels, xent_positions *p, xent_plan plan, int sums, int leaves)
{
    if (!kernels[form.type]) return;
    p->partial = doubles_out(plan.chunks * sums), p->sums = sums;
    if (leaves) {
        p->left = results(WITHOUT_TYPE, plan.chunks, 8);
        p->is_left = (uint8_t *)results(WITHOUT_TYPE, form.count, 1);
    }
    one_kernel c = {kernels[form.type], p, plan, leaves ? p : NULL};
    twice(call_kernel, &c);
}

static void *per_position(void) { return results(real(), form.count, formats[real()].size); }
static double *sample_weight(void) { return maybe_numbers(XENT_F64, form.count, FACTORS); }

/* A number for each class, and what rounding left of each. */
static void *offsets(int type) { return draw(3) == 2 ? numbers(type, 2 * form.classes, LOG_PROBS) : NULL; }

static void draw_transform(xent_positions *p, int type, int with_cap)
{
    p->temperature = draw_positive(1), p->offset = offsets(type);
    p->cap = with_cap && draw(3) == 2 ? draw_positive(5) : 0;
    p->transformed |= p->temperature != 1 || p->cap != 0 || p->offset;
}

/* ---- softmax ---- */

static void softmaxes(void)
{
    static const xent_kernel *const kernels[] = {softmax_kernels, log_softmax_kernels, softmax_backward_kernels,
                                                 log_softmax_backward_kernels};
    static const int exps[] = {XENT_REUSED_EXPS, XENT_SUMMED_EXPS, XENT_ROW_SUMS, XENT_ROW_SUMS};
    const ptrdiff_t which = draw(4);
    const int backward = which >= 2;
    xent_softmax_args a = {.result = NULL};
    draw_form(1, !backward);
    walk(&a.positions, (roles){.apart = !backward,
                               .x = !backward    ? LOGITS
                                    : which == 2 ? PROBS
                                                 : LOG_PROBS,
                               .target = backward ? READ : NO_ARRAY,
                               .target_kind = LOGITS,
                               .out = WRITTEN});
    if (!backward) a.positions.temperature = draw_positive(1);
    a.positions.transformed |= a.positions.temperature != 1;
    a.positions.keeps_logits = which == 1 && a.positions.inner > 1;
    make_call(kernels[which], &a, xent_plan_positions(&a.positions, form.type, exps[which]));
}

static void log_sums(void)
{
    xent_softmax_args a = {.result = NULL};
    draw_form(0, 1);
    walk(&a.positions, (roles){.apart = 1, .x = LOGITS});
    a.result = per_position();
    make_call(logsumexp_kernels, &a, xent_plan_positions(&a.positions, form.type, XENT_SUMMED_EXPS));
}

static void log_sums_backward(void)
{
    xent_softmax_args a = {.result = NULL};
    draw_form(1, 0);
    walk(&a.positions, (roles){.x = LOGITS, .out = WRITTEN});
    a.log_sums = doubles(form.count, LOGITS), a.upstream = doubles(form.count, FACTORS);
    make_call(logsumexp_backward_kernels, &a, xent_plan_positions(&a.positions, form.type, XENT_REUSED_EXPS));
}

static void weighted_log_sums(void)
{
    xent_softmax_args a = {.result = NULL};
    draw_form(1, 0);
    walk(&a.positions, (roles){.x = LOGITS, .target = READ, .target_kind = FACTORS});
    a.result = per_position(), a.sign = draw(2) ? per_position() : NULL;
    a.positions.transformed = XENT_DISTANCES;
    make_sums(weighted_logsumexp_kernels, &a.positions, xent_plan_positions(&a.positions, form.type, XENT_SUMMED_EXPS),
              1, 1);
}

/* ---- cross-entropy ---- */

static int draw_curved(const xent_cross_entropy_args *a, int has_hess)
{
    const int dense = a->dense.mix != 0 || a->dense.base != 0;
    if (a->gamma != 0 && dense) return 1;
    return has_hess && (a->positions.cap != 0 || a->z_loss != 0 || (a->gamma != 0 && a->exact));
}

static void draw_targets(xent_cross_entropy_args *a, int soft, int type)
{
    const double smoothing = draw(3) == 2 ? 0.125 : 0;
    if (!soft) a->labels = (xent_labels){labels(form.count, form.classes), -1};
    a->dense.mix = soft ? 1 - smoothing : 0, a->peak = soft ? 0 : 1 - smoothing;
    a->dense.base = smoothing / (double)xent_max(form.classes, 1);
    if (draw(2)) {
        a->label_weight = doubles(form.classes, FACTORS);
        if (soft || smoothing != 0) a->dense.weight = numbers(type, form.classes, FACTORS);
    }
    a->sample_weight = sample_weight(), a->upstream = sample_weight();
    a->z_loss = draw(4) == 3 ? draw_number(0.01) : 0, a->gamma = draw(3) == 2 ? draw_positive(2) : 0;
    a->gradient_scale = draw_number(0.125);
    a->positions.packs |= soft || smoothing != 0;
}

static void cross_entropies(void)
{
    static const double curvatures[] = {1, 2, 1.25, 0};
    xent_cross_entropy_args a = {.exact = 0};
    draw_form(0, 1);
    const int soft = draw(2) == 1, grad = often(), hess = grad && draw(4) == 3;
    walk(&a.positions, (roles){.apart = 1,
                               .x = LOGITS,
                               .target = soft ? READ : NO_ARRAY,
                               .target_kind = PROBS,
                               .out = grad ? WRITTEN : NO_ARRAY,
                               .hess = hess ? WRITTEN : NO_ARRAY});
    draw_targets(&a, soft, real());
    draw_transform(&a.positions, real(), 1);
    if (hess) a.curvature = curvatures[draw(4)], a.exact = (int)draw(2);
    if (draw(2)) a.losses = (xent_per_position){per_position(), real() == XENT_F32};
    a.positions.curved = draw_curved(&a, hess), a.positions.transformed |= a.positions.curved;
    make_sums(cross_entropy_kernels, &a.positions,
              xent_plan_positions(&a.positions, form.type, grad ? XENT_REUSED_EXPS : XENT_SUMMED_EXPS), 1, 1);
}

static void products(void)
{
    xent_cross_entropy_args a = {.curvature = 1, .exact = 1};
    draw_form(1, 0);
    form.type = real();
    const int soft = draw(2) == 1;
    walk(&a.positions, (roles){.never_in_place = 1,
                               .x = LOGITS,
                               .target = soft ? READ : NO_ARRAY,
                               .target_kind = PROBS,
                               .out = WRITTEN,
                               .hess = READ,
                               .hess_kind = LOGITS});
    draw_targets(&a, soft, XENT_F64);
    draw_transform(&a.positions, XENT_F64, 1);
    a.positions.curved = a.positions.reads_hess = 1, a.positions.transformed |= 1;
    leaves_anything = 1;
    make_sums(cross_entropy_product_kernels, &a.positions, xent_plan_product(&a.positions, form.type), 1, 1);
}

/* ---- evaluation ---- */

static void evaluation(void)
{
    xent_evaluate_args a = {.most = 1};
    draw_form(0, 1);
    walk(&a.positions, (roles){.apart = 1, .x = LOGITS});
    a.labels = (xent_labels){labels(form.count, form.classes), -1};
    a.sample_weight = sample_weight(), a.brief = (int)draw(2);
    a.most = 1 + draw(xent_max(form.classes, 1));
    if (a.most > 1) a.rank = results(WITHOUT_TYPE, form.count, 8);
    for (int k = 0; k < XENT_REPORTS; k++) a.report[k] = draw(3) == 2 ? doubles_out(form.count) : NULL;
    draw_transform(&a.positions, real(), 0);
    a.positions.keeps_logits = !a.brief;
    make_sums(evaluate_kernels, &a.positions,
              xent_plan_positions(&a.positions, form.type, a.brief ? XENT_SUMMED_EXPS : XENT_REUSED_EXPS),
              XENT_MOST_SUMS, 0);
}

static void tokens(void)
{
    xent_token_args a = {.inner = 1};
    draw_form(1, 0);
    walk(&a.positions, (roles){.x = LOGITS});
    a.per_position = draw_size(xent_max(24000 / form.count, 1));
    for (int k = form.axis + 1; k < form.ndim; k++) a.inner *= form.shape[k];
    const ptrdiff_t n = form.count * a.per_position;
    a.ids = labels(n, form.classes), a.log_probs = results(real(), n, formats[real()].size);
    if (draw(2)) a.rank = results(WITHOUT_TYPE, n, 8);
    if (draw(2)) a.entropy = per_position();
    draw_transform(&a.positions, real(), 1);
    make_call(token_log_probs_kernels, &a,
              xent_plan_positions(&a.positions, form.type, a.entropy ? XENT_REUSED_EXPS : XENT_SUMMED_EXPS));
}

static void comparisons(void)
{
    xent_comparison_args a = {.divergence = NULL};
    draw_form(1, 0);
    walk(&a.positions, (roles){.x = LOGITS, .target = READ, .target_kind = LOGITS});
    a.temperature = draw_positive(1), a.divergence = per_position(), a.same = doubles_out(form.count);
    if (draw(2)) {
        a.labels = (xent_labels){labels(form.count, form.classes), -1};
        for (int k = 0; k < XENT_COMPARED; k++) a.report[k] = doubles_out(form.count);
    }
    make_call(comparison_kernels, &a, xent_plan_comparison(&a, form.type));
}

/* ---- distillation ---- */

static void distillations(void)
{
    xent_distillation_args a = {.losses = NULL};
    draw_form(1, 0);
    const int grad = often();
    walk(&a.positions, (roles){.x = LOGITS, .target = READ, .target_kind = LOGITS, .out = grad ? WRITTEN : NO_ARRAY});
    a.temperature = draw_positive(1), a.factor = a.temperature * a.temperature, a.gradient_scale = draw_number(1);
    a.upstream = sample_weight(), a.losses = draw(2) ? per_position() : NULL;
    make_sums(distillation_kernels, &a.positions, xent_plan_distillation(&a, form.type), 1, 1);
}

/* The classes of each position differ: a run with a step that has no divisor in common with their number. */
static int64_t *different_ids(ptrdiff_t k)
{
    int64_t *ids = labels(form.count * k, form.classes);
    ptrdiff_t step = 1 + draw(256), a = form.classes, b = step;
    while (b) {
        const ptrdiff_t rest = a % b;
        a = b, b = rest;
    }
    step = a == 1 ? step : 1;
    const ptrdiff_t first = draw(256);
    for (ptrdiff_t i = 0; i < form.count * k; i++) ids[i] = (first + i / k + i % k * step) % form.classes;
    return ids;
}

static void sparse_distillations(void)
{
    xent_sparse_distillation_args a = {.rule = (int)draw(3)};
    draw_form(1, 0);
    const int grad = often();
    form.tight = 1;
    if (form.axis != form.ndim - 1) { /* rows */
        const ptrdiff_t last = form.shape[form.ndim - 1];
        form.shape[form.ndim - 1] = form.classes, form.shape[form.axis] = last, form.axis = form.ndim - 1;
    }
    walk(&a.positions, (roles){.x = LOGITS, .out = grad ? WRITTEN : NO_ARRAY});
    a.k = draw_size(form.classes);
    a.ids = different_ids(a.k), a.log_probs = numbers(real(), form.count * a.k, LOG_PROBS),
    a.single = real() == XENT_F32;
    a.sample_weight = sample_weight(), a.upstream = sample_weight(), a.gradient_scale = draw_number(1);
    if (draw(2)) a.losses = (xent_per_position){per_position(), real() == XENT_F32};
    a.positions.temperature = draw_positive(1), a.positions.transformed |= a.positions.temperature != 1;
    make_sums(sparse_distillation_kernels, &a.positions, xent_plan_sparse_distillation(&a, form.type), 1, 0);
}

/* ---- losses of probabilities and of labels ---- */

static int data_kind(int kind)
{
    return kind == XENT_MSE ? LOGITS : kind == XENT_KL_DIV || kind == XENT_KL_DIV_LOG ? LOG_PROBS : PROBS;
}
static int target_kind(int kind) { return kind == XENT_MSE ? LOGITS : kind == XENT_KL_DIV_LOG ? LOG_PROBS : PROBS; }

static xent_loss draw_loss(int kind)
{
    xent_loss loss = {
        .kind = kind, .unit = draw(3) == 2 ? 0.6875 : 1, .factor = draw_number(1), .divisor = draw_number(1)};
    if ((kind == XENT_CROSS_ENTROPY || kind == XENT_BINARY_CROSS_ENTROPY || kind == XENT_LABEL_CROSS_ENTROPY) &&
        draw(2))
        loss.clip = 0.01;
    loss.gradient_scale = loss.factor / (loss.unit * (loss.divisor != 0 ? loss.divisor : 1));
    const double scale = __builtin_fabs(loss.gradient_scale);
    const double most = real() == XENT_F64 ? XENT_PLAIN_SCALE_F64 : XENT_PLAIN_SCALE_F32;
    loss.careful = seldom() || (loss.factor != 0 && !(1 / most <= scale && scale <= most));
    return loss;
}

static void losses_of_positions(void)
{
    xent_position_losses_args a;
    draw_form(1, 0);
    const int kind = XENT_CROSS_ENTROPY + (int)draw(XENT_ENTROPY - XENT_CROSS_ENTROPY + 1),
              alone = kind == XENT_ENTROPY;
    memset(&a, 0, sizeof a);
    walk(&a.positions, (roles){.x = data_kind(kind),
                               .target = alone ? NO_ARRAY : READ,
                               .target_kind = target_kind(kind),
                               .out = !alone && often() ? WRITTEN : NO_ARRAY});
    a.positions.packs = 1;
    a.loss = draw_loss(kind), a.upstream = alone ? NULL : sample_weight();
    a.losses = alone || draw(2) ? per_position() : NULL;
    make_sums(position_losses_kernels, &a.positions, xent_plan_positions(&a.positions, form.type, XENT_NO_EXPS), 1, 0);
}

static void losses_of_labels(void)
{
    xent_label_losses_args a;
    draw_form(1, 0);
    const int kind = XENT_NLL + (int)draw(2);
    memset(&a, 0, sizeof a);
    walk(&a.positions, (roles){.labels = 1, .x = data_kind(kind), .out = often() ? WRITTEN : NO_ARRAY});
    a.labels = (xent_labels){labels(form.count, form.classes), -1};
    a.loss = draw_loss(kind), a.label_weight = maybe_numbers(XENT_F64, form.classes, FACTORS);
    a.upstream = sample_weight();
    if (draw(2)) a.losses = (xent_per_position){per_position(), real() == XENT_F32};
    make_sums(label_losses_kernels, &a.positions, xent_plan_positions(&a.positions, form.type, XENT_ONE_CLASS), 2, 0);
}

/* ---- elements ---- */

static int walk_elements(xent_element_losses_args *a, int kind, const int has[XENT_LOSS_OPERANDS])
{
    xent_array arrays[XENT_LOSS_OPERANDS];
    const xent_array *given[XENT_LOSS_OPERANDS] = {NULL};
    for (int k = 0; k < XENT_LOSS_OPERANDS; k++) {
        const int type = k == 2 || k == 3 || k == 5 ? real() : form.type;
        if (!has[k]) continue;
        arrays[k] = k >= 4 ? written_array(type)
                           : read_array(type, k == 0   ? data_kind(kind)
                                              : k == 1 ? target_kind(kind)
                                                       : FACTORS);
        given[k] = arrays + k;
    }
    return xent_walk_elements(a, given);
}

static void losses_of_elements(void)
{
    xent_element_losses_args a;
    draw_form(1, 0);
    const int kind = XENT_MSE + (int)draw(XENT_ENTROPY - XENT_MSE), outer = block_count;
    const int has[XENT_LOSS_OPERANDS] = {1, 1, (int)draw(2), (int)draw(2), often(), (int)draw(2)};
    if (!walk_elements(&a, kind, has)) {
        close_blocks(outer), form.tight = 1;
        if (!walk_elements(&a, kind, has)) fail("arrays in C order were refused");
    }
    a.loss = draw_loss(kind);
    const xent_plan plan = xent_plan_elements(&a);
    if (often()) a.partial = doubles_out(plan.chunks);
    a.wide = results(WITHOUT_TYPE, plan.chunks, sizeof *a.wide);
    static int bad;
    a.bad = &bad;
    make_call(element_losses_kernels, &a, plan);
}

/* A pattern of factors over n elements. */
static xent_factor draw_factor(ptrdiff_t n)
{
    const ptrdiff_t repeat = 1 + draw(xent_min(n, 300)), count = 1 + draw(xent_min(n, 300));
    const int all = (int)draw(2);
    return (xent_factor){maybe_numbers(real(), all ? n : count, FACTORS), all ? 1 : repeat, all ? n : count};
}

static void *binary_target(int code, ptrdiff_t n)
{
    if (code < XENT_DTYPES) return numbers(code, n, PROBS);
    const ptrdiff_t size = (ptrdiff_t)1 << (code - XENT_I8);
    const int any = seldom();
    block *b = add_block(n * size, draw_lead(size), WITHOUT_TYPE);
    for (ptrdiff_t i = 0; i < n; i++) {
        const uint64_t target = any ? next() : below(2);
        memcpy(b->data + i * size, &target, (size_t)size);
    }
    b->is_input = 1;
    return b->data;
}

static void call_binary(void *of)
{
    const one_kernel *c = of;
    const xent_sigmoid_args *a = c->args;
    run(c->kernel, a, c->plan);
    for (ptrdiff_t k = 0; k < c->plan.chunks; k++) is_void |= a->counted[k] == XENT_BAD_TARGET;
}

static void binary_losses(void)
{
    static const int curvatures[] = {XENT_EXACT, XENT_GAUSS_NEWTON, XENT_ABSOLUTE};
    static const double gammas[] = {0, 1, 2, 1.5, 0.01, 1e30};
    draw_form(1, 0);
    const ptrdiff_t n = form.count * form.classes;
    const int codes[] = {form.type, XENT_F32, XENT_F64, XENT_I8, XENT_I16, XENT_I32, XENT_I64};
    const int code = codes[draw(COUNT(codes))], in_place = seldom();
    xent_sigmoid_args a = {.size = n, .x = numbers(form.type, n, LOGITS), .target_code = code, .divisor = 1};
    if (in_place) own_all(blocks + block_count - 1);
    a.target = binary_target(code, n);
    a.weight = draw_factor(n), a.pos_weight = draw_factor(n), a.upstream = draw_factor(n);
    const double smoothing = draw(3) == 2 ? 0.25 : 0, alpha = draw(2) ? 0.25 : 0.5;
    a.mix = 1 - smoothing, a.base = smoothing / 2, a.gamma = gammas[draw(COUNT(gammas))];
    a.alpha_1 = alpha == 0.5 ? 1 : alpha, a.alpha_0 = alpha == 0.5 ? 1 : 1 - alpha;
    a.factor = draw_number(1), a.divisor = (double)draw(3),
    a.gradient_scale = a.factor / (a.divisor != 0 ? a.divisor : 1);
    a.careful = seldom(), a.value = (int)draw(2);
    if (code >= XENT_DTYPES && draw(3) == 2) a.ignoring = 1, a.ignore_index = (int64_t)draw(3) - 1;
    if (in_place || often()) a.out = in_place ? (void *)(intptr_t)a.x : results(form.type, n, formats[form.type].size);
    if (a.out && draw(3) == 2) { /* no values then */
        a.curvature = curvatures[draw(3)], a.hess = results(form.type, n, formats[form.type].size);
        a.value = 0;
    }
    if (a.value && draw(2)) a.losses = results(real(), n, formats[real()].size);
    const xent_plan plan = xent_plan_sigmoid(&a, form.type);
    a.partial = doubles_out(plan.chunks), a.wide = results(WITHOUT_TYPE, plan.chunks, sizeof *a.wide);
    a.counted = results(WITHOUT_TYPE, plan.chunks, 8);
    one_kernel c = {sigmoid_cross_entropy_kernels[form.type], &a, plan, NULL};
    twice(call_binary, &c);
}

static void maps(void)
{
    static const xent_kernel *const kernels[] = {sigmoid_kernels,          log_sigmoid_kernels,
                                                 sigmoid_backward_kernels, log_sigmoid_backward_kernels,
                                                 convert_from_kernels,     convert_to_kernels};
    const ptrdiff_t which = draw(COUNT(kernels));
    draw_form(1, 0);
    xent_map_args a = {.size = form.count * form.classes, .single = (int)draw(2)};
    const int wide = a.single ? XENT_F32 : XENT_F64;
    const int from = which == 5 ? wide : form.type, to = which == 4 ? wide : form.type;
    a.x = numbers(from, a.size, LOGITS), a.y = which == 2 || which == 3 ? numbers(from, a.size, PROBS) : a.x;
    a.out = results(to, a.size, formats[to].size);
    make_call(kernels[which], &a, xent_plan_map(&a));
}

static void *arithmetic_x, *arithmetic_y;
static void call_f32(void *of)
{
    (*(void (**)(const float *, float *, ptrdiff_t))of)(arithmetic_x, arithmetic_y, form.count *form.classes);
}
static void call_f64(void *of)
{
    (*(void (**)(const double *, double *, ptrdiff_t))of)(arithmetic_x, arithmetic_y, form.count *form.classes);
}

static void functions(void)
{
    const xent_arithmetic *t = &xent_arithmetic_kernels;
    void (*singles[])(const float *, float *, ptrdiff_t) = {t->exp_f32, t->log_f32, t->log1p_f32};
    void (*doubled[])(const double *, double *, ptrdiff_t) = {t->exp_f64, t->log_f64, t->log1p_f64};
    const ptrdiff_t which = draw(3);
    draw_form(1, 0);
    const ptrdiff_t n = form.count * form.classes, size = formats[real()].size;
    arithmetic_x = numbers(real(), n, which ? PROBS : LOGITS), arithmetic_y = results(real(), n, size);
    if (real() == XENT_F32)
        twice(call_f32, singles + which);
    else
        twice(call_f64, doubled + which);
}

#endif
