/* curved.h: what no numbers per position and class alone make of a softmax loss: the focal loss of a distribution, whose
 * classes have powers of their own; the diagonal of the Hessian; and the Hessian times a vector. cross_entropy.h has the
 * rest, and calls this.
 *
 * The loss of a position is sum_c a_c q_c^gamma l_c + z L^2 with masses a_c (the target as a distribution, times the
 * weights of the classes), p = softmax(u), q = 1 - p, l = -log p and L = logsumexp(u). With
 * dp_c / du_j = p_c ([j == c] - p_j),
 *
 *     d(q_c^gamma l_c) / du_j = F_c (p_j - [j == c]),    F = q^gamma (1 + gamma p l / q)
 *     g_j = p_j (B - b_j) - b_j q_j                      b_c = a_c F_c,  B = sum_c b_c
 *
 * and along a vector v, with d_c = v_c - p.v, dp_c = p_c d_c and k_c = a_c F'(p_c) p_c,
 *
 *     db_c     = k_c d_c
 *     (H v)_j  = B p_j d_j + p_j sum_{c != j} k_c d_c - k_j d_j q_j
 *     H_jj     = B p_j q_j - k_j q_j^2 - p_j^2 sum_{c != j} k_c          v = e_j: d_c = [c == j] - p_j
 *     F'       = gamma q^(gamma - 1) (l - 2 - (gamma - 1) p l / q)
 *
 * The first term of H_jj is not negative ("gauss_newton": the loss as a function of the l_c without its curvature). The
 * z-loss adds 2 z L p_j to g_j, 2 z ((p.v) p_j + L p_j d_j) to (H v)_j and 2 z (p_j^2 + L p_j q_j) to H_jj, of which L
 * may be negative.
 *
 * By the logits x, of which u_c depends on x_c alone, with r = x / (T cap), u' = sech^2(r) / T and
 * u'' = -2 tanh(r) / (T cap) u':
 *
 *     g_x = g u'        (H_x v)_j = u'_j (H (u' v))_j + g_j u''_j v_j        H_x,jj = u'_j^2 H_jj + g_j u''_j
 *
 * Nothing cancels that is one number: of the class whose p is above 1/2, of which there is one at most, q is the sum of
 * the other probabilities, and the sums over c != j are added up without it; v_c - p.v is made of differences to the
 * most probable class, for which p.v is nearly v_c.
 *
 * Design: the logits of a tile come transformed, in scratch memory (transform.h). From there a line, a row or a vector of
 * positions, is worked on in doubles whatever the type is, in a few passes over arrays of the scratch: one code, and no
 * factor or probability of floats leaves its range before the result is rounded. Floats make only what are factors near 1:
 * powers of q where p is at most 1/2, and slopes of a cap that logits are far from.
 */
#include "begin.h"
#include "simd/exp.h"
#include "simd/log.h"
#include "simd/pow.h"
#include "simd/stored.h"
#include "simd/sums.h"
#include "softmax/labels.h"
#include "softmax/largest.h"
#include "softmax/stats.h"
#include "softmax/tile.h"
#include "softmax/transform.h"
#include "table.h"

#if !defined(XENT_CURVED_H) && !defined(STORED_AS_16)
#define XENT_CURVED_H

#if XENT_REAL == 64

/* What is wanted, and constants of the call. */
typedef struct {
    double gamma, curvature;
    double low_exponent;         /* gamma - 2; of gamma 1 nothing is divided by q: 0 */
    int dense, focal, labelled;  /* masses of all classes; with a power of each; of labels too */
    int powers, bends;           /* powers are more than products of a few q; k is wanted */
    int second, exact, absolute; /* second derivatives, with all terms; or the size of the gradient in their place */
    int derivatives, product, capped;
    transform_f64 transform;
    double ratio, reach; /* of floats: 1 / (temperature cap), and how far logits may be for what needs no exponential */
} curved_call;

/* Numbers of the positions of a tile. */
typedef struct {
    double coefficient[TILE], complement[TILE]; /* p_c = e_c coefficient; q of the class whose p is above 1/2 */
    double max_logit[TILE], log_total[TILE];    /* l_c = (max_logit - d_c) + log_total */
    double scale[TILE];                         /* of all derivatives; 0: nothing of the position is there */
    double pull[TILE], steep[TILE], bent[TILE]; /* 2 z L scale, of the gradient and beyond; 2 z scale */
    double own_b[TILE], own_k[TILE];            /* b and k of the label; of a dense target what it adds to the mass */
    double top_power[TILE], top_b[TILE], top_k[TILE]; /* q^gamma, F and F' p of the class whose p is above 1/2 */
    double loss[TILE];                                /* sum_c a_c q_c^gamma l_c */
} curved_numbers;

/* A line of a tile, a row or a few positions beside each other, in arrays of doubles. Padded with zeros to whole vectors. */
typedef struct {
    double *p;
    double *b, *k;           /* of a dense target; b: its masses, where these have no powers */
    double *v;               /* the vector, then its deviations */
    double *du, *bend;       /* with a cap: T u'; and u'' / u' */
    ptrdiff_t count, stride; /* vectors of a row or, of some positions, of all classes, and how far apart they are */
    ptrdiff_t classes, ways;
    int rows, narrow; /* narrow: of floats, whose sums need no more bits than doubles have */
} curved_line;

/* For the vectors of a line: i is where one lies, w to which of some sums it is added. */
#define OVER_LINE(l, w, i)                                                                                             \
    for (ptrdiff_t c_ = 0; c_ < (l)->count; c_ += (l)->ways)                                                           \
        for (ptrdiff_t w = 0, i = c_ * (l)->stride; w < WAYS && w < (l)->ways; w++, i += (l)->stride)

/* The vectors of a line from its number j on. */
ALWAYS_INLINE curved_line part_of_line(const curved_line *l, ptrdiff_t j)
{
    curved_line part = *l;
    part.p += j, part.b += j, part.k += j, part.v += j, part.du += j, part.bend += j;
    return part;
}

/* A number of position p, or of the positions from p on. */
ALWAYS_INLINE vf64 of_positions(const curved_line *l, const double *numbers, ptrdiff_t p)
{
    return l->rows ? set_f64(numbers[p]) : v_load(numbers + p);
}

ALWAYS_INLINE void add_number(int narrow, sum_f64 *sum, vf64 v)
{
    if (narrow)
        sum->a = sum->a + v;
    else
        sum_add_f64(sum, v);
}

ALWAYS_INLINE vf64 line_total(const curved_line *l, const row_sum_f64 *sum)
{
    double lanes[LANES_F64];
    if (l->rows) return set_f64(row_total_f64(sum));
    sum_lanes_f64(sum->way, lanes, NULL);
    return v_load(lanes);
}

/* The sums of a line over all classes, and over those but the one whose p is above 1/2. */
typedef struct {
    vf64 all, rest;
} curved_sums;

/* Such sums, while they are made. */
typedef struct {
    row_sum_f64 rest;
    vf64 top;
} curved_adder;

ALWAYS_INLINE void start_adder(curved_adder *sums)
{
    const vf64 zero = {0};
    start_row_sum_f64(&sums->rest), sums->top = zero;
}

ALWAYS_INLINE void add_class(const curved_line *l, curved_adder *sums, ptrdiff_t w, vm64 large, vf64 number)
{
    const vf64 zero = {0};
    add_number(l->narrow, &sums->rest.way[w], v_select(large, zero, number));
    sums->top = sums->top + v_select(large, number, zero);
}

ALWAYS_INLINE curved_sums sums_of(const curved_line *l, const curved_adder *sums)
{
    const vf64 rest = line_total(l, &sums->rest);
    return (curved_sums){.all = rest + (l->rows ? set_f64(v_reduce_sum(sums->top)) : sums->top), .rest = rest};
}

/* Whether p is "above 1/2", as it says everywhere here. By a margin, as two classes with the same logit may both come to
 * more than 1/2 by a rounding, of floats 2^-23; up to there 1 - p has lost as good as nothing. */
#define LARGE_P (0.5 + 0x1p-12)
ALWAYS_INLINE vm64 is_large(vf64 p) { return m_gt(p, set_f64(LARGE_P)); }

PER_LINE curved_sums sums_of_line(const curved_line *l, const double *numbers)
{
    curved_adder sums;
    start_adder(&sums);
    OVER_LINE(l, w, i) add_class(l, &sums, w, is_large(v_load(l->p + i)), v_load(numbers + i));
    return sums_of(l, &sums);
}

/* The others of each class: their sum without its own number. */
ALWAYS_INLINE vf64 others_of(const curved_sums *s, vm64 large, vf64 number)
{
    return v_select(large, s->rest, s->all - number);
}

/* 1 - p, which is known of the class whose p is above 1/2. */
ALWAYS_INLINE vf64 complement_of(vf64 p, vf64 complement) { return v_select(is_large(p), complement, set_f64(1) - p); }

/* Whether q is 0, or so small that 1 / q is infinite. */
ALWAYS_INLINE vm64 is_gone(vf64 q) { return m_gt(set_f64(0x1p-1022), q); }

/* p l / q, with 1 / q: 1 where q is gone, and 0 where p is 0. */
ALWAYS_INLINE vf64 focal_ratio(vf64 p, vf64 q, vf64 log_loss, vf64 inverse)
{
    const vf64 zero = {0}, one = set_f64(1);
    return v_select(m_eq(p, zero), zero, v_select(is_gone(q), one, p * log_loss * inverse));
}

/* F' p / q^gamma from p, q and p l / q: 0 where q is gone, as what it is multiplied with goes faster to 0. */
ALWAYS_INLINE vf64 focal_bend(vf64 p, vf64 q, vf64 ratio, vf64 gamma, vf64 inverse)
{
    const vf64 zero = {0}, slope = v_fma(q, ratio, -(p + p)) - (gamma - set_f64(1)) * p * ratio;
    return v_select(is_gone(q), zero, gamma * slope * inverse);
}

/* What the derivatives of all classes of a line share. */
typedef struct {
    curved_sums b, k; /* k: with a product that of k_c d_c */
    vf64 complement, scale, pull, steep, bent, mean;
} curved_shared;

/* What all classes of a vector of positions, or a row, share where masses have powers. */
typedef struct {
    vf64 coefficient, most, log_total, scale, top_power, top_b, top_k;
    vf64 label, own_b; /* the class of the label, -1 where there is none, and what it adds to the mass */
} focal_shared;

/* Sums of such classes: of b and k without the class whose p is above 1/2, which is apart. */
typedef struct {
    sum_f64 loss, b, k;
    vf64 top_b, top_k;
} focal_sums;

/* The numbers of one class. */
typedef struct {
    vf64 loss, b, k;
} focal_class;

/* A class from p, a, l and q^(gamma - 2). Where p is at most 1/2 nothing is divided by q:
 *
 *   F = q^gamma + gamma p l q^(gamma - 1)     F' p = gamma (q^(gamma - 1) (p l - 2 p) - (gamma - 1) p p l q^(gamma - 2))
 *
 * and of the class whose p is above, both are numbers of the position. */
ALWAYS_INLINE focal_class focal_class_of(const focal_shared *o, const curved_call *call, vf64 p, vf64 a, vf64 log_loss,
                                         vf64 low_power)
{
    const vf64 zero = {0}, one = set_f64(1), gamma = set_f64(call->gamma);
    const vm64 none = m_eq(a, zero), top = is_large(p);
    const vf64 q = one - p, p_loss = v_select(m_eq(p, zero), zero, p * log_loss), scaled = a * o->scale;
    const vf64 power_1 = call->gamma == 1 ? one : q * low_power, power = q * power_1;
    const vf64 slope = v_fma(power_1, p_loss - (p + p), -(set_f64(call->gamma - 1) * p * p_loss * low_power));
    return (focal_class){.loss = v_select(none, zero, a * v_select(top, o->top_power, power) * log_loss),
                         .b = scaled * v_select(top, o->top_b, v_fma(gamma * p_loss, power_1, power)),
                         .k = call->bends ? scaled * v_select(top, o->top_k, gamma * slope) : zero};
}

ALWAYS_INLINE void add_focal(focal_sums *sums, const focal_class *c, vf64 p, int narrow, int bends)
{
    const vf64 zero = {0};
    const vm64 top = is_large(p);
    add_number(narrow, &sums->loss, c->loss);
    add_number(narrow, &sums->b, v_select(top, zero, c->b)), sums->top_b = v_select(top, c->b, sums->top_b);
    if (!bends) return;
    add_number(narrow, &sums->k, v_select(top, zero, c->k)), sums->top_k = v_select(top, c->k, sums->top_k);
}

/* The sums of a line, which are those of `ways` parts. */
SHARED void close_focal(const curved_line *l, curved_numbers *n, ptrdiff_t p, const focal_sums *sums, int ways,
                        curved_shared *r)
{
    row_sum_f64 loss, b, k;
    vf64 top_b = sums[0].top_b, top_k = sums[0].top_k;
    start_row_sum_f64(&loss), start_row_sum_f64(&b), start_row_sum_f64(&k);
    for (int w = 0; w < ways; w++) loss.way[w] = sums[w].loss, b.way[w] = sums[w].b, k.way[w] = sums[w].k;
    for (int w = 1; w < ways; w++) top_b = top_b + sums[w].top_b, top_k = top_k + sums[w].top_k;
    if (l->rows) top_b = set_f64(v_reduce_sum(top_b)), top_k = set_f64(v_reduce_sum(top_k));
    const vf64 total = line_total(l, &loss), rest_b = line_total(l, &b), rest_k = line_total(l, &k);
    if (l->rows)
        n->loss[p] = total[0];
    else
        v_store(n->loss + p, total);
    r->b = (curved_sums){.all = rest_b + top_b, .rest = rest_b};
    r->k = (curved_sums){.all = rest_k + top_k, .rest = rest_k};
}

ALWAYS_INLINE vf64 lane_numbers(void)
{
    double k[LANES_F64];
    for (int i = 0; i < LANES_F64; i++) k[i] = i;
    return v_load(k);
}

/* From logits T u' = sech^2 and u'' / u'. Where all are so near that there is a series for tanh, 1 - tanh^2 does not
 * cancel. */
ALWAYS_INLINE vf64 slope_of(const transform_f64 *f, vf64 x, vf64 *bend)
{
    const vf64 one = set_f64(1), down = set_f64(power_of_2(-SLOPE_RAISE)), reach = set_f64(TANH_REACH);
    const vf64 z = ratio_f64(f, x);
    vf64 rest;
    tanh_rests_f64(&z, &rest, 1);
    const vm64 near = m_ge(reach, v_abs(z));
    vf64 tanh = v_fma(z, rest, z), du = v_fma(-tanh, tanh, one);
    if (m_any((vm64)~near)) {
        const vf64 e = raised_slope_f64(f, x) * down, sum = one + e;
        tanh = v_select(near, tanh, tanh_of_exp_f64(e, z)), du = v_select(near, du, set_f64(4) / (sum * sum) * e);
    }
    *bend = -(f->slope * tanh);
    return du;
}

/* v_c - p.v, and of a dense target k_c times that; returns p.v. `top` is the number of the most probable class. */
PER_LINE vf64 deviations(const curved_line *l, vf64 top, const curved_call *call)
{
    row_sum_f64 apart, mean;
    start_row_sum_f64(&apart), start_row_sum_f64(&mean);
    OVER_LINE(l, w, i)
    {
        const vf64 p = v_load(l->p + i), v = v_load(l->v + i);
        add_number(l->narrow, &apart.way[w], p * (v - top)), add_number(l->narrow, &mean.way[w], p * v);
    }
    const vf64 distance = line_total(l, &apart);
    for (ptrdiff_t c = 0, i = 0; c < l->count; c++, i += l->stride) {
        const vf64 d = (v_load(l->v + i) - top) - distance;
        v_store(l->v + i, d);
        if (call->focal) v_store(l->k + i, v_load(l->k + i) * d);
    }
    return line_total(l, &mean);
}

/* Numbers of one class; k with a product as above. */
typedef struct {
    vf64 p, b, k, v, du, bend;
} curved_class;

typedef struct {
    vf64 first, second; /* the gradient, or the product; and the second derivatives */
} curved_results;

ALWAYS_INLINE curved_results derivatives_of(const curved_class *c, vf64 others_b, vf64 others_k, const curved_shared *r,
                                            const curved_call *call)
{
    const vf64 zero = {0}, curvature = set_f64(call->curvature), mass = r->b.all + r->steep, p = c->p;
    const vf64 q = complement_of(p, r->complement);
    vf64 g = v_fma(p, others_b + r->pull, -(c->b * q));
    if (call->capped) g = c->du * g;
    const vm64 gone = m_eq(r->scale, zero);
    if (call->product) {
        const vf64 h = p * (mass * c->v + others_k + r->bent * r->mean) - c->k * q;
        return (curved_results){.first = v_select(gone, zero, v_fma(curvature * c->du, h, c->bend * g)),
                                .second = zero};
    }
    vf64 h = p * v_fma(mass, q, r->bent * p);
    if (call->exact) h = h - (c->k * q * q + p * p * others_k);
    if (call->capped) h = h * c->du * c->du;
    h = curvature * h;
    if (call->exact && call->capped) h = h + c->bend * g;
    return (curved_results){.first = v_select(gone, zero, g),
                            .second = v_select(gone, zero, call->absolute ? v_abs(g) : h)};
}

/* The vector's number of the most probable class at each position of a line. */
static void curved_tops(const curved_line *l, const double *place, ptrdiff_t positions, double *top)
{
    memset(top, 0, XENT_MOST_LANES * sizeof *top);
    for (ptrdiff_t k = 0; k < positions; k++)
        if (place[k] >= 0) top[k] = l->v[k + (ptrdiff_t)place[k] * (l->rows ? 1 : l->stride)];
}

/* The labels of the positions of a vector, of which no other class has a mass: `label` is that of the first, and there are
 * n of them. */
typedef struct {
    const ptrdiff_t *label;
    ptrdiff_t n;
} curved_labels;

ALWAYS_INLINE ptrdiff_t place_of_label(const curved_line *l, const curved_labels *y, ptrdiff_t k)
{
    return k + y->label[k] * (l->rows ? 1 : l->stride);
}

SHARED __attribute__((noinline)) vf64 at_labels(const curved_line *l, const curved_labels *y, const double *numbers)
{
    double found[LANES_F64] = {0};
    for (ptrdiff_t k = 0; k < y->n; k++)
        if (y->label[k] >= 0) found[k] = numbers[place_of_label(l, y, k)];
    return l->rows ? set_f64(found[0]) : v_load(found);
}

/* Where labels are all that there is: the sums are their numbers, and their own derivatives are made apart. */
SHARED curved_results derivatives_of_labels(const curved_line *l, curved_numbers *n, ptrdiff_t p,
                                            const curved_labels *y, curved_shared *r, const curved_call *call)
{
    const vf64 zero = {0}, one = set_f64(1);
    const curved_class own = {.p = at_labels(l, y, l->p),
                              .b = of_positions(l, n->own_b, p),
                              .v = call->product ? at_labels(l, y, l->v) : zero,
                              .k = of_positions(l, n->own_k, p) * (call->product ? at_labels(l, y, l->v) : one),
                              .du = call->capped ? at_labels(l, y, l->du) : one,
                              .bend = call->capped ? at_labels(l, y, l->bend) : zero};
    r->b = (curved_sums){.all = own.b, .rest = own.b}, r->k = (curved_sums){.all = own.k, .rest = own.k};
    return derivatives_of(&own, zero, zero, r, call);
}

/* What the derivatives of a line that was read are made of; those of its labels if these are all that there is. */
static curved_results curved_vectors(const curved_line *l, curved_numbers *n, ptrdiff_t p, vf64 top,
                                     const curved_labels *y, curved_shared *r, const curved_call *call)
{
    const vf64 zero = {0};
    const curved_results none = {.first = zero, .second = zero};
    r->complement = of_positions(l, n->complement, p), r->scale = of_positions(l, n->scale, p);
    r->pull = of_positions(l, n->pull, p), r->steep = of_positions(l, n->steep, p);
    r->bent = of_positions(l, n->bent, p), r->mean = zero;
    if (!call->focal) r->k = (curved_sums){.all = zero, .rest = zero};
    if (!call->derivatives) return none;
    if (call->product) r->mean = deviations(l, top, call);
    if (!call->dense) return derivatives_of_labels(l, n, p, y, r, call);
    if (!call->focal) r->b = sums_of_line(l, l->b);
    if (call->focal && call->product) r->k = sums_of_line(l, l->k); /* which are k_c d_c by now */
    return none;
}
#endif /* XENT_REAL == 64 */

/* What the derivatives of each position are multiplied with: 0 where nothing of it is there. */
static void NAME(curved_scales)(const xent_cross_entropy_args *a, const NAME(tile) *t, const KERNEL(labels) *y,
                                const int *absent, double *scale)
{
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const ptrdiff_t position = t->first + p;
        scale[p] = a->gradient_scale;
        if (a->upstream) scale[p] *= a->upstream[position];
        if (a->sample_weight) scale[p] *= a->sample_weight[position];
        if (y->counted[p] == 0 || (absent && absent[p])) scale[p] = 0;
    }
}

/* Of positions from p on, what has powers of the class whose p is above 1/2, if there is one: of the largest logit. */
ALWAYS_INLINE void NAME(focal_tops)(const NAME(stats) *s, ptrdiff_t p, vf64 gamma, curved_numbers *n)
{
    const vf64 zero = {0}, one = set_f64(1), q = v_load(n->complement + p), log_loss = v_load(n->log_total + p);
    double peak[LANES_F64];
    for (int k = 0; k < LANES_F64; k++) peak[k] = s->peak[p + k];
    const vf64 pr = v_load(peak) * v_load(n->coefficient + p), inverse = one / q, power = v_pow(q, gamma);
    const vf64 ratio = focal_ratio(pr, q, log_loss, inverse), bend = focal_bend(pr, q, ratio, gamma, inverse);
    v_store(n->top_power + p, power), v_store(n->top_b + p, power * v_fma(gamma, ratio, one));
    /* of a power that is 0 there is no bend, whose gamma^2 may be beyond all doubles */
    v_store(n->top_k + p, v_select(m_eq(power, zero), zero, power * bend));
}

/* The numbers of the positions of a tile. */
PER_TILE void NAME(curved_numbers_of)(const xent_cross_entropy_args *a, const NAME(tile) *t, const NAME(stats) *s,
                                      const KERNEL(labels) *y, const NAME(target) *terms, const int *absent,
                                      const curved_call *call, curved_numbers *n)
{
    const vf64 zero = {0}, one = set_f64(1), gamma = set_f64(a->gamma), z = set_f64(2 * a->z_loss);
    double p_y[TILE], log_sum[TILE] = {0};
    memset(n->scale, 0, sizeof n->scale), memset(n->own_b, 0, sizeof n->own_b);
    NAME(curved_scales)(a, t, y, absent, n->scale);
    for (ptrdiff_t p = 0; p < t->n; p++) n->own_b[p] = y->mass[p];
    for (ptrdiff_t p = 0; a->z_loss != 0 && p < t->n; p++) log_sum[p] = KERNEL(log_sum)(t, s, p);
    for (ptrdiff_t p = 0; p < t->n; p += LANES) {
        NAME(store_wide)(n->max_logit + p, v_load(s->max_logit + p)), NAME(store_wide)(p_y + p, v_load(terms->p + p));
        NAME(store_sum)(n->log_total + p, v_load(s->log_total + p), v_load(s->log_low + p));
    }
    for (ptrdiff_t p = 0; p < t->n; p += LANES_F64) {
        const vf64 unit = v_load(s->unit + p) * v_load(s->inverse + p), scale = v_load(n->scale + p),
                   mass = v_load(n->own_b + p), bent = z * scale, pull = bent * v_load(log_sum + p);
        const vf64 q = -v_load(terms->p_minus_1 + p), inverse = one / q;
        v_store(n->coefficient + p, unit), v_store(n->complement + p, v_load(s->rest + p) * unit);
        v_store(n->bent + p, bent), v_store(n->pull + p, pull);
        v_store(n->steep + p, call->exact ? pull : v_select(m_gt(zero, v_load(log_sum + p)), zero, pull));
        if (call->focal) { /* own_b is the mass itself: powers come with those of the classes */
            NAME(focal_tops)(s, p, gamma, n);
            continue;
        }
        vf64 b = scale * mass;
        if (a->gamma != 0) {
            const vf64 pr = v_load(p_y + p), ratio = focal_ratio(pr, q, v_load(terms->loss + p), inverse);
            v_store(n->own_k + p, v_select(m_eq(b, zero), zero, b * focal_bend(pr, q, ratio, gamma, inverse)));
            b = b * v_fma(gamma, ratio, one);
        } else {
            v_store(n->own_k + p, zero);
        }
        v_store(n->own_b + p, b);
    }
}

/* An operand of a tile along a line, which begins at position p. */
#define ALONG(operand, step) ((operand) + (l->rows ? p * (step) : p))
/* For the vectors of T of a line: class c, i neighbours on from where they lie in memory, j in arrays of the line. */
#define OVER_VECTORS(l, valid, c, i, j)                                                                                \
    for (ptrdiff_t c = 0, j = 0, filled_ = (l)->rows ? (l)->count * LANES_F64 : LANES;                                 \
         c < ((l)->rows ? 1 : (l)->classes); c++)                                                                      \
        for (ptrdiff_t i = 0; i < filled_; i += LANES, j += LANES)

/* What is read of a line, and how far it is. */
typedef struct {
    const xent_cross_entropy_args *a;
    const curved_line *l;
    const curved_call *call;
    vf64 coefficient[PARTS], scale[PARTS];
} NAME(opened);

/* Part k of the masses a = w (mix t + base) of class c, which go to place j. */
ALWAYS_INLINE vf64 NAME(mass_part)(const xent_cross_entropy_args *a, const curved_line *l, V target, ptrdiff_t c,
                                   ptrdiff_t to, int k)
{
    const vf64 zero = {0}, one = set_f64(1), mix = set_f64(a->dense.mix), base = set_f64(a->dense.base);
    const ptrdiff_t left = l->rows ? l->classes - to : LANES_F64;
    vf64 w = left < LANES_F64 ? v_select(first_f64(left), one, zero) : one;
    if (a->label_weight) w = l->rows ? load_part_f64(a->label_weight + to, left, zero) : set_f64(a->label_weight[c]);
    return v_select(m_eq(w, zero), zero, w * v_fma(mix, NAME(part)(target, k), base));
}

/* Part k of the numbers of class c, which go to place j. */
ALWAYS_INLINE void NAME(open_part)(const NAME(opened) *o, V e, V target, ptrdiff_t c, ptrdiff_t j, int k)
{
    const curved_line *l = o->l;
    const ptrdiff_t to = j + k * LANES_F64;
    v_store(l->p + to, NAME(part)(e, k) * o->coefficient[k]);
    if (o->call->dense) v_store(l->b + to, o->scale[k] * NAME(mass_part)(o->a, l, target, c, to, k));
}

#define READ(operand, step) NAME(load_part)(ALONG(operand, step) + c * (step) + i, valid - i, none)
/* What is read of a line, but for what labels add and a cap does, where masses have no powers: p, and of a dense target
 * its masses times scale. There are `valid` neighbours, of a row or of each class; what follows is 0. */
PER_LINE void NAME(open_line)(const xent_cross_entropy_args *a, const NAME(tile) *t, const curved_line *l,
                              const curved_numbers *n, ptrdiff_t p, ptrdiff_t valid, const curved_call *call)
{
    const V none = {0};
    const T *hess = l->rows && call->second ? t->hess + p * t->hess_step : NULL;
    NAME(opened) o = {.a = a, .l = l, .call = call};
    for (int k = 0; k < PARTS; k++) {
        const ptrdiff_t at = l->rows ? p : p + k * LANES_F64;
        o.coefficient[k] = of_positions(l, n->coefficient, at), o.scale[k] = of_positions(l, n->scale, at);
    }
    OVER_VECTORS(l, valid, c, i, j)
    {
        const V e = READ(t->exps, t->exps_step), target = t->target ? READ(t->target, t->target_step) : none;
        if (hess) __builtin_prefetch(hess + i, 1); /* where results go, while there is much to compute */
        NAME(open_part)(&o, e, target, c, j, 0);
        if (PARTS > 1) NAME(open_part)(&o, e, target, c, j, PARTS - 1);
    }
}

/* q^exponent for classes whose p is at most 1/2, of floats raised so that none is subnormal whose product with any factor
 * counts: the logarithm is at most 0.7, so that its rounding is no more to the result than one of p. */
#define POWER_RAISE BY_TYPE(64, 0)
#define MOST_GAMMA 1e30 /* powers are 0 or 1 from far below on, in floats too */
ALWAYS_INLINE V NAME(low_power)(V p, double exponent)
{
    const V one = NAME(set)(1), zero = {0}, q = one - p, log_q = NAME(log_whole)(q, zero, (one - q) - p, 1);
    const V y = NAME(set)((T)exponent) * log_q;
#if XENT_REAL == 32
    return exp_scaled_f32(y, scale_of_f32(set_f32(-POWER_RAISE)));
#else
    return exp_f64(y);
#endif
}

/* What part k of the positions from p on, or of a row, shares. */
ALWAYS_INLINE void NAME(share_focal)(const KERNEL(labels) *y, const curved_line *l, const curved_numbers *n,
                                     ptrdiff_t p, int k, focal_shared *o)
{
    const ptrdiff_t at = l->rows ? p : p + k * LANES_F64;
    double label[LANES_F64];
    for (ptrdiff_t i = 0; i < LANES_F64; i++) label[i] = (double)y->label[l->rows ? p : xent_min(at + i, TILE - 1)];
    *o = (focal_shared){.coefficient = of_positions(l, n->coefficient, at),
                        .most = of_positions(l, n->max_logit, at),
                        .log_total = of_positions(l, n->log_total, at),
                        .scale = of_positions(l, n->scale, at),
                        .top_power = of_positions(l, n->top_power, at),
                        .top_b = of_positions(l, n->top_b, at),
                        .top_k = of_positions(l, n->top_k, at),
                        .label = v_load(label),
                        .own_b = of_positions(l, n->own_b, at)};
}

/* Those powers of a line, each vector to the place where its k go later. A loop of its own: in one with all the rest each
 * turn would wait for its logarithm and its exponential, and few turns fit what a processor looks ahead. */
ALWAYS_INLINE void NAME(put_low_powers)(const NAME(tile) *t, const curved_line *l, const focal_shared *o, ptrdiff_t p,
                                        ptrdiff_t valid, double exponent)
{
    const V none = {0};
    OVER_VECTORS(l, valid, c, i, j)
    {
        const V e = READ(t->exps, t->exps_step);
        const vf64 first = NAME(part)(e, 0) * o[0].coefficient,
                   last = NAME(part)(e, PARTS - 1) * o[PARTS - 1].coefficient;
        v_store((T *)(l->k + j), NAME(low_power)(NAME(joined)(first, last), exponent));
    }
}

/* Part k of the classes at place j, the first of which is c: to their places, where derivatives want them, and to sums. */
ALWAYS_INLINE void NAME(focal_part)(const xent_cross_entropy_args *a, const curved_line *l, const curved_call *call,
                                    const focal_shared *o, focal_sums *sums, V p, V target, V logits, V power,
                                    ptrdiff_t c, ptrdiff_t j, int k, int rows)
{
    const vf64 zero = {0}, one = set_f64(1), down = set_f64(power_of_2(-POWER_RAISE));
    const ptrdiff_t to = j + k * LANES_F64;
    const vf64 pr = NAME(part)(p, k) * o->coefficient, log_loss = (o->most - NAME(part)(logits, k)) + o->log_total;
    vf64 mass = NAME(mass_part)(a, l, target, c, to, k);
    if (call->labelled) {
        const vf64 class = rows ? set_f64((double)to) + lane_numbers() : set_f64((double)c);
        mass = mass + v_select(m_eq(class, o->label), o->own_b, zero);
    }
    const focal_class made =
        focal_class_of(o, call, pr, mass, log_loss, call->powers ? NAME(part)(power, k) * down : one);
    add_focal(sums, &made, pr, XENT_REAL == 32, call->bends);
    if (!call->derivatives) return;
    v_store(l->p + to, pr), v_store(l->b + to, made.b);
    if (call->bends) v_store(l->k + to, made.k);
}

/* A line whose masses have powers: p, and b and k of each class, with the sums of these and the losses. `rows`, a constant
 * at every call, is that of the line. Numbers of a row go to the same sums on all instruction sets, as those of OVER_LINE
 * do. */
ALWAYS_INLINE void NAME(focal_classes)(const xent_cross_entropy_args *a, const NAME(tile) *t, const KERNEL(labels) *y,
                                       const curved_line *given_line, curved_numbers *n, ptrdiff_t p, ptrdiff_t valid,
                                       const curved_call *given, curved_shared *r, int rows)
{
    enum { SUMS = WAYS > PARTS ? WAYS : PARTS, TURNS = WAYS > PARTS ? WAYS / PARTS : 1 };
    const curved_call copy = *given, *call = &copy; /* which no store changes, as far as a compiler knows */
    const curved_line line = *given_line, *l = &line;
    const T *out = rows && t->out ? t->out + p * t->out_step : NULL,
            *hess = rows && call->second ? t->hess + p * t->hess_step : out;
    const V none = {0};
    const ptrdiff_t width = rows ? l->count * LANES_F64 : LANES;
    focal_shared o[PARTS];
    focal_sums sums[SUMS], made[SUMS]; /* sums stay in registers */
    memset(sums, 0, sizeof sums);
    for (int k = 0; k < PARTS; k++) NAME(share_focal)(y, l, n, p, k, o + k);
    if (call->powers) NAME(put_low_powers)(t, l, o, p, valid, call->low_exponent);
    for (ptrdiff_t c = 0, j = 0; c < (rows ? 1 : l->classes); c++)
        for (ptrdiff_t i = 0; i < width;)
            for (int turn = 0; turn < (rows ? TURNS : 1); turn++, i += LANES, j += LANES) {
                const V e = READ(t->exps, t->exps_step), logits = READ(t->x, t->x_step),
                        target = t->target ? READ(t->target, t->target_step) : none;
                const V power = call->powers ? v_load((const T *)(l->k + j)) : none;
                if (rows) { /* the next row, and where the results of this one go, while there is much to compute */
                    PREFETCH(t->x, (p + 1) * t->x_step + i, 0);
                    PREFETCH(t->target, (p + 1) * t->target_step + i, 0);
                    PREFETCH(out, i, 1), PREFETCH(hess, i, 1);
                }
                NAME(focal_part)(a, l, call, o, sums + (rows ? turn * PARTS % WAYS : 0), e, target, logits, power, c, j,
                                 0, rows);
                if (PARTS > 1)
                    NAME(focal_part)(a, l, call, o + PARTS - 1, sums + (rows ? (turn * PARTS + 1) % WAYS : 1), e,
                                     target, logits, power, c, j, 1, rows);
            }
    for (int k = 0; k < SUMS; k++) made[k] = sums[k];
    for (int k = 0; k < (rows ? 1 : PARTS); k++) close_focal(l, n, p + k * LANES_F64, made + k, rows ? WAYS : 1, r + k);
}

PER_LINE void NAME(focal_line)(const xent_cross_entropy_args *a, const NAME(tile) *t, const KERNEL(labels) *y,
                               const curved_line *l, curved_numbers *n, ptrdiff_t p, ptrdiff_t valid,
                               const curved_call *call, curved_shared *r)
{
    if (l->rows)
        NAME(focal_classes)(a, t, y, l, n, p, valid, call, r, 1);
    else
        NAME(focal_classes)(a, t, y, l, n, p, valid, call, r, 0);
}

/* u' and u'' / u' of logits. Of floats within the reach by floats: nothing cancels there, and both are factors alone. */
ALWAYS_INLINE void NAME(slopes_of)(const curved_call *call, V raw, vf64 *du, vf64 *bend)
{
#if XENT_REAL == 32
    const vf32 one = set_f32(1), z = raw * set_f32((float)call->ratio), tanh = tanh_near_f32(z);
    const vf32 near_du = v_fma(-tanh, tanh, one);
    const vf64 reach = set_f64(call->reach), slope = call->transform.slope;
    for (int k = 0; k < PARTS; k++) du[k] = part_f32(near_du, k), bend[k] = -(slope * part_f32(tanh, k));
    if (!m_any((vm32)~m_ge(set_f32((float)call->reach), v_abs(raw)))) return;
    for (int k = 0; k < PARTS; k++) {
        const vf64 x = part_f32(raw, k);
        const vm64 near = m_ge(reach, v_abs(x));
        vf64 far_bend;
        const vf64 far_du = slope_of(&call->transform, x, &far_bend);
        du[k] = v_select(near, du[k], far_du), bend[k] = v_select(near, bend[k], far_bend);
    }
#else
    *du = slope_of(&call->transform, raw, bend);
#endif
}

/* The slopes of a cap; and the vector of a product, which becomes u' v, with u'' / u' times v beside it. */
PER_LINE void NAME(curve_line)(const NAME(tile) *t, const curved_line *l, ptrdiff_t p, ptrdiff_t valid,
                               const curved_call *given)
{
    const curved_call copy = *given, *call = &copy;
    const V none = {0};
    OVER_VECTORS(l, valid, c, i, j)
    {
        const V raw = call->capped ? READ(t->raw, t->raw_step) : none,
                vector = call->product ? READ(t->hess, t->hess_step) : none;
        vf64 du[PARTS], bend[PARTS];
        if (call->capped) NAME(slopes_of)(call, raw, du, bend);
        for (int k = 0; k < PARTS; k++) {
            const ptrdiff_t to = j + k * LANES_F64;
            vf64 v = NAME(part)(vector, k);
            if (call->capped) {
                v_store(l->du + to, du[k]), v_store(l->bend + to, call->product ? bend[k] * v : bend[k]);
                v = du[k] * v;
            }
            if (call->product) v_store(l->v + to, v);
        }
    }
}
#undef READ

/* Part k of the derivatives of what lies at place j. */
ALWAYS_INLINE curved_results NAME(derivatives_at)(const curved_line *l, const curved_shared *r, const curved_call *call,
                                                  ptrdiff_t j, int k)
{
    const vf64 zero = {0}, one = set_f64(1);
    const ptrdiff_t at = j + k * LANES_F64;
    const curved_class c = {.p = v_load(l->p + at),
                            .b = call->dense ? v_load(l->b + at) : zero,
                            .k = call->bends ? v_load(l->k + at) : zero,
                            .v = call->product ? v_load(l->v + at) : zero,
                            .du = call->capped ? v_load(l->du + at) : one,
                            .bend = call->capped ? v_load(l->bend + at) : zero};
    const vm64 large = is_large(c.p);
    if (!call->dense) return derivatives_of(&c, r->b.all, r->k.all, r, call);
    return derivatives_of(&c, others_of(&r->b, large, c.b), call->bends ? others_of(&r->k, large, c.k) : zero, r, call);
}

/* The derivatives of a line, to their places: of all classes; where labels are all that there is, as if there were none of
 * them in the line, and then those of the labels, `own`. `r` and `own` are of each vector of doubles of positions. */
PER_LINE void NAME(put_derivatives)(const NAME(tile) *t, const curved_line *given_line, ptrdiff_t p, ptrdiff_t valid,
                                    const ptrdiff_t *label, const curved_shared *r, const curved_results *own,
                                    const curved_call *given)
{
    const curved_call copy = *given, *call = &copy;
    const curved_line line = *given_line, *l = &line;
    const curved_shared first = r[0], last = r[l->rows ? 0 : PARTS - 1];
    T *out = ALONG(t->out, t->out_step), *hess = call->second ? ALONG(t->hess, t->hess_step) : NULL;
    OVER_VECTORS(l, valid, c, i, j)
    {
        if (i >= valid) break;
        const curved_results a = NAME(derivatives_at)(l, &first, call, j, 0),
                             b = PARTS > 1 ? NAME(derivatives_at)(l, &last, call, j, PARTS - 1) : a;
        NAME(store)(out + c * t->out_step + i, NAME(joined)(a.first, b.first), valid - i);
        if (hess) NAME(store)(hess + c * t->hess_step + i, NAME(joined)(a.second, b.second), valid - i);
    }
    for (ptrdiff_t k = 0; !call->dense && k < (l->rows ? 1 : valid); k++)
        if (label[k] >= 0) {
            const curved_results *at = own + k / LANES_F64;
            out[l->rows ? label[k] : k + label[k] * t->out_step] = (T)at->first[k % LANES_F64];
            if (hess) hess[l->rows ? label[k] : k + label[k] * t->hess_step] = (T)at->second[k % LANES_F64];
        }
}
#undef ALONG
#undef OVER_VECTORS

/* What labels add to the masses of a dense target. */
static void NAME(add_labels)(const KERNEL(labels) *y, const curved_line *l, const curved_numbers *n, ptrdiff_t p,
                             ptrdiff_t positions)
{
    for (ptrdiff_t k = 0; k < positions; k++)
        if (y->label[p + k] >= 0) l->b[k + y->label[p + k] * (l->rows ? 1 : l->stride)] += n->own_b[p + k];
}

/* The line of a tile, before anything is read. */
static curved_line NAME(curved_line_of)(const NAME(tile) *t, ptrdiff_t classes, ptrdiff_t room)
{
    const int rows = !t->lanes_are_positions;
    return (curved_line){.p = t->lines,
                         .b = t->lines + room,
                         .k = t->lines + 2 * room,
                         .v = t->lines + 3 * room,
                         .du = t->lines + 4 * room,
                         .bend = t->lines + 5 * room,
                         .count = rows ? xent_ceil_div(classes, WAYS * LANES_F64) * WAYS : classes,
                         .stride = rows ? LANES_F64 : LANES,
                         .classes = classes,
                         .ways = rows ? WAYS : 1,
                         .rows = rows,
                         .narrow = XENT_REAL == 32};
}

/* The derivatives of a tile, to their places. Losses of a dense target with gamma come to `dense_loss` (NULL: there is no
 * such target), and what else a loss is made of becomes 0. */
PER_TILE void NAME(put_curved)(const xent_cross_entropy_args *a, const NAME(tile) *t, const NAME(stats) *s,
                               KERNEL(labels) *y, const NAME(target) *terms, const int *absent, double *dense_loss,
                               double *dense_mass)
{
    const xent_positions *positions = &a->positions;
    const ptrdiff_t classes = positions->classes, per = t->lanes_are_positions ? LANES : 1;
    const int rows = !t->lanes_are_positions, product = XENT_REAL == 64 && positions->reads_hess; /* see product_tile */
    const double ratio = 1 / positions->temperature / positions->cap;
    const curved_call call = {.gamma = a->gamma,
                              .curvature = a->curvature,
                              .dense = dense_loss != NULL,
                              .focal = dense_loss && a->gamma != 0,
                              .labelled = a->labels.data != NULL,
                              .powers = a->gamma != 1 && a->gamma != 2,
                              .low_exponent = fmin(a->gamma, MOST_GAMMA) - 2,
                              .bends = dense_loss && a->gamma != 0 && t->hess && (a->exact || product),
                              .second = t->hess && !product,
                              .exact = a->exact || product,
                              .absolute = a->curvature == 0,
                              .derivatives = t->out != NULL,
                              .product = product,
                              .capped = positions->cap != 0,
                              .transform = transform_of_f64(positions),
                              .ratio = fmin(ratio, LARGEST),
                              .reach = ratio <= LARGEST ? (T)fmin(TANH_REACH / ratio, LARGEST) : -1};
    const curved_line l = NAME(curved_line_of)(t, classes, positions->line_room);
    curved_numbers n;
    double place[TILE], top[XENT_MOST_LANES] = {0};
    NAME(curved_numbers_of)(a, t, s, y, terms, absent, &call, &n);
    if (product) KERNEL(put_largest)(t, classes, s, place);
    for (ptrdiff_t p = 0; p < t->n; p += per) {
        const ptrdiff_t here = xent_min(per, t->n - p), valid = rows ? classes : here;
        curved_shared shared[PARTS];
        curved_results own[PARTS];
        if (call.focal)
            NAME(focal_line)(a, t, y, &l, &n, p, valid, &call, shared);
        else
            NAME(open_line)(a, t, &l, &n, p, valid, &call);
        if (call.capped || product) NAME(curve_line)(t, &l, p, valid, &call);
        if (call.dense && !call.focal) NAME(add_labels)(y, &l, &n, p, here);
        if (product) curved_tops(&l, place + p, here, top);
        for (ptrdiff_t j = 0; j < per; j += LANES_F64) {
            const curved_line vectors = part_of_line(&l, j);
            const curved_labels labels = {.label = y->label + p + j, .n = xent_min(LANES_F64, here - j)};
            own[j / LANES_F64] = curved_vectors(&vectors, &n, p + j, rows ? set_f64(top[0]) : v_load(top + j), &labels,
                                                shared + j / LANES_F64, &call);
        }
        if (t->out) NAME(put_derivatives)(t, &l, p, valid, y->label + p, shared, own, &call);
    }
    for (ptrdiff_t p = 0; call.focal && p < t->n; p++) y->mass[p] = dense_mass[p] = 0, dense_loss[p] = n.loss[p];
}

#endif
