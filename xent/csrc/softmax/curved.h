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
 * factor or probability of floats leaves its range before the result is rounded.
 */
#include "begin.h"
#include "simd/exp.h"
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
    int dense, focal;            /* masses of all classes; with a power of each */
    int powers, bends;           /* powers are made apart; k is wanted */
    int second, exact, absolute; /* second derivatives, with all terms; or the size of the gradient in their place */
    int derivatives, product, capped;
    transform_f64 transform;
} curved_call;

/* Numbers of the positions of a tile. */
typedef struct {
    double coefficient[TILE], complement[TILE]; /* p_c = e_c coefficient; q of the class whose p is above 1/2 */
    double max_logit[TILE], log_total[TILE];    /* l_c = (max_logit - d_c) + log_total */
    double scale[TILE];                         /* of all derivatives; 0: nothing of the position is there */
    double pull[TILE], steep[TILE], bent[TILE]; /* 2 z L scale, of the gradient and beyond; 2 z scale */
    double own_b[TILE], own_k[TILE];            /* b and k of the label; of a dense target what it adds to the mass */
    double loss[TILE];                          /* sum_c a_c q_c^gamma l_c */
} curved_numbers;

/* A line of a tile, a row or a few positions beside each other, in arrays of doubles. Padded with zeros to whole vectors. */
typedef struct {
    double *p;
    double *b, *k;           /* of a dense target its masses, then b; l, then k */
    double *v;               /* the vector, then its deviations */
    double *du, *bend;       /* with a cap: T u'; and u'' / u' */
    double *power;           /* q^gamma, where that is no product of a few q */
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
    part.p += j, part.b += j, part.k += j, part.v += j, part.du += j, part.bend += j, part.power += j;
    return part;
}

/* A number of position p, or of the positions from p on. */
ALWAYS_INLINE vf64 of_positions(const curved_line *l, const double *numbers, ptrdiff_t p)
{
    return l->rows ? set_f64(numbers[p]) : v_load(numbers + p);
}

ALWAYS_INLINE void add_number(const curved_line *l, sum_f64 *sum, vf64 v)
{
    if (l->narrow)
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
    add_number(l, &sums->rest.way[w], v_select(large, zero, number));
    sums->top = sums->top + v_select(large, number, zero);
}

ALWAYS_INLINE curved_sums sums_of(const curved_line *l, const curved_adder *sums)
{
    const vf64 rest = line_total(l, &sums->rest);
    return (curved_sums){.all = rest + (l->rows ? set_f64(v_reduce_sum(sums->top)) : sums->top), .rest = rest};
}

PER_LINE curved_sums sums_of_line(const curved_line *l, const double *numbers)
{
    curved_adder sums;
    start_adder(&sums);
    OVER_LINE(l, w, i) add_class(l, &sums, w, m_gt(v_load(l->p + i), set_f64(0.5)), v_load(numbers + i));
    return sums_of(l, &sums);
}

/* The others of each class: their sum without its own number. */
ALWAYS_INLINE vf64 others_of(const curved_sums *s, vm64 large, vf64 number)
{
    return v_select(large, s->rest, s->all - number);
}

/* 1 - p, which is known of the class whose p is above 1/2. */
ALWAYS_INLINE vf64 complement_of(vf64 p, vf64 complement)
{
    return v_select(m_gt(p, set_f64(0.5)), complement, set_f64(1) - p);
}

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

/* b and k, both times scale, from a and l, with their sums; and the losses. */
PER_LINE void focal_line(const curved_line *l, curved_numbers *n, ptrdiff_t p, const curved_call *call,
                         curved_shared *r)
{
    const vf64 zero = {0}, one = set_f64(1), gamma = set_f64(call->gamma);
    row_sum_f64 loss;
    curved_adder sum_b, sum_k;
    start_row_sum_f64(&loss), start_adder(&sum_b), start_adder(&sum_k);
    OVER_LINE(l, w, i)
    {
        const vf64 pr = v_load(l->p + i), a = v_load(l->b + i), log_loss = v_load(l->k + i);
        const vf64 q = complement_of(pr, r->complement);
        const vf64 power = a * (call->powers ? v_load(l->power + i) : call->gamma == 2 ? q * q : q);
        const vm64 none = m_eq(a, zero), large = m_gt(pr, set_f64(0.5));
        add_number(l, &loss.way[w], v_select(none, zero, power * log_loss));
        if (!call->derivatives) continue;
        const vf64 inverse = one / q, ratio = focal_ratio(pr, q, log_loss, inverse);
        const vf64 b = v_select(none, zero, r->scale * power * v_fma(gamma, ratio, one));
        v_store(l->b + i, b), add_class(l, &sum_b, w, large, b);
        if (!call->bends) continue;
        /* of a power that is 0 there is no bend, whose gamma^2 may be beyond all doubles */
        const vf64 bend = focal_bend(pr, q, ratio, gamma, inverse);
        const vf64 k = v_select(m_eq(power, zero), zero, r->scale * power * bend);
        v_store(l->k + i, k), add_class(l, &sum_k, w, large, k);
    }
    const vf64 total = line_total(l, &loss);
    if (l->rows)
        n->loss[p] = total[0];
    else
        v_store(n->loss + p, total);
    r->b = sums_of(l, &sum_b);
    if (call->bends) r->k = sums_of(l, &sum_k);
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
        add_number(l, &apart.way[w], p * (v - top)), add_number(l, &mean.way[w], p * v);
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
    const vf64 g = c->du * v_fma(p, others_b + r->pull, -(c->b * q));
    const vm64 gone = m_eq(r->scale, zero);
    if (call->product) {
        const vf64 h = p * (mass * c->v + others_k + r->bent * r->mean) - c->k * q;
        return (curved_results){.first = v_select(gone, zero, v_fma(curvature * c->du, h, c->bend * g)),
                                .second = zero};
    }
    vf64 h = p * v_fma(mass, q, r->bent * p);
    if (call->exact) h = h - (c->k * q * q + p * p * others_k);
    h = curvature * (h * c->du * c->du);
    if (call->exact) h = h + c->bend * g;
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
    *r = (curved_shared){.k = {.all = zero, .rest = zero},
                         .complement = of_positions(l, n->complement, p),
                         .scale = of_positions(l, n->scale, p),
                         .pull = of_positions(l, n->pull, p),
                         .steep = of_positions(l, n->steep, p),
                         .bent = of_positions(l, n->bent, p),
                         .mean = zero};
    if (call->focal) focal_line(l, n, p, call, r);
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
        if (call->focal) continue; /* b is the mass itself: powers come later */
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
    vf64 coefficient[PARTS], most[PARTS], log_total[PARTS], scale[PARTS];
} NAME(opened);

/* Part k of the numbers of class c, which go to place j. */
ALWAYS_INLINE void NAME(open_part)(const NAME(opened) *o, V e, V target, V logits, ptrdiff_t c, ptrdiff_t j, int k)
{
    const curved_line *l = o->l;
    const vf64 zero = {0}, one = set_f64(1), mix = set_f64(o->a->dense.mix), base = set_f64(o->a->dense.base);
    const ptrdiff_t to = j + k * LANES_F64, left = l->rows ? l->classes - to : LANES_F64;
    v_store(l->p + to, NAME(part)(e, k) * o->coefficient[k]);
    if (!o->call->dense) return;
    vf64 w = left < LANES_F64 ? v_select(first_f64(left), one, zero) : one;
    if (o->a->label_weight)
        w = l->rows ? load_part_f64(o->a->label_weight + to, left, zero) : set_f64(o->a->label_weight[c]);
    v_store(l->b + to, v_select(m_eq(w, zero), zero, o->scale[k] * (w * v_fma(mix, NAME(part)(target, k), base))));
    if (o->call->focal) v_store(l->k + to, (o->most[k] - NAME(part)(logits, k)) + o->log_total[k]);
}

#define READ(operand, step) NAME(load_part)(ALONG(operand, step) + c * (step) + i, valid - i, none)
/* What is read of a line, but for what labels add and a cap does: p, and the masses a = w (mix t + base) of a dense target,
 * times scale where they have no powers, and l where they have. There are `valid` neighbours, of a row or of each class;
 * what follows is 0. */
PER_LINE void NAME(open_line)(const xent_cross_entropy_args *a, const NAME(tile) *t, const curved_line *l,
                              const curved_numbers *n, ptrdiff_t p, ptrdiff_t valid, const curved_call *call)
{
    const V none = {0};
    NAME(opened) o = {.a = a, .l = l, .call = call};
    for (int k = 0; k < PARTS; k++) {
        const ptrdiff_t at = l->rows ? p : p + k * LANES_F64;
        o.coefficient[k] = of_positions(l, n->coefficient, at), o.most[k] = of_positions(l, n->max_logit, at);
        o.log_total[k] = of_positions(l, n->log_total, at);
        o.scale[k] = call->focal ? set_f64(1) : of_positions(l, n->scale, at);
    }
    OVER_VECTORS(l, valid, c, i, j)
    {
        const V e = READ(t->exps, t->exps_step), target = t->target ? READ(t->target, t->target_step) : none,
                logits = call->focal ? READ(t->x, t->x_step) : none;
        NAME(open_part)(&o, e, target, logits, c, j, 0);
        if (PARTS > 1) NAME(open_part)(&o, e, target, logits, c, j, PARTS - 1);
    }
}

ALWAYS_INLINE void NAME(curve_part)(const curved_line *l, const curved_call *call, V raw, V vector, ptrdiff_t j, int k)
{
    const ptrdiff_t to = j + k * LANES_F64;
    vf64 v = NAME(part)(vector, k), bend;
    if (call->capped) {
        const vf64 du = slope_of(&call->transform, NAME(part)(raw, k), &bend);
        v_store(l->du + to, du), v_store(l->bend + to, call->product ? bend * v : bend), v = du * v;
    }
    if (call->product) v_store(l->v + to, v);
}

/* The slopes of a cap; and the vector of a product, which becomes u' v, with u'' / u' times v beside it. */
PER_LINE void NAME(curve_line)(const NAME(tile) *t, const curved_line *l, ptrdiff_t p, ptrdiff_t valid,
                               const curved_call *call)
{
    const V none = {0};
    OVER_VECTORS(l, valid, c, i, j)
    {
        const V raw = call->capped ? READ(t->raw, t->raw_step) : none,
                vector = call->product ? READ(t->hess, t->hess_step) : none;
        NAME(curve_part)(l, call, raw, vector, j, 0);
        if (PARTS > 1) NAME(curve_part)(l, call, raw, vector, j, PARTS - 1);
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
    const vm64 large = m_gt(c.p, set_f64(0.5));
    return derivatives_of(&c, others_of(&r->b, large, c.b), others_of(&r->k, large, c.k), r, call);
}

/* The derivatives of a line, to their places: of all classes; where labels are all that there is, as if there were none of
 * them in the line, and then those of the labels, `own`. `r` and `own` are of each vector of doubles of positions. */
PER_LINE void NAME(put_derivatives)(const NAME(tile) *t, const curved_line *l, ptrdiff_t p, ptrdiff_t valid,
                                    const ptrdiff_t *label, const curved_shared *r, const curved_results *own,
                                    const curved_call *call)
{
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

/* q^gamma of a line; of floats by floats, raised so that none is subnormal whose product with any factor counts. Each by
 * itself, whatever lies beside it: where positions are neighbours there may be none in some lanes. */
#define POWER_RAISE 64
#define MOST_GAMMA 1e30 /* of floats too: powers are 0 or 1 from far below on */
#if XENT_REAL == 32
/* Of a few numbers that are not normal as floats: in doubles. */
SELDOM void power_of_tiny(double *power, vf64 q, double gamma)
{
    v_store(power, v_select(m_ge(q, set_f64(TINY)), v_load(power), v_pow(q, set_f64(gamma))));
}
#endif

PER_LINE void NAME(powers_of_line)(const curved_line *l, const curved_numbers *n, ptrdiff_t p, double gamma)
{
#if XENT_REAL == 32
    const vf32 zero = {0}, high_gamma = set_f32((float)gamma), low_gamma = set_f32((float)(gamma - (float)gamma));
    const scale_f32 scale = scale_of_f32(set_f32(-POWER_RAISE));
#endif
    const vf64 down = set_f64(0x1p-64), complement = of_positions(l, n->complement, p),
               other = of_positions(l, n->complement, l->rows ? p : p + LANES_F64);
    for (ptrdiff_t i = 0; i < l->count * l->stride; i += LANES) {
        const vf64 a = complement_of(v_load(l->p + i), complement);
#if XENT_REAL == 32
        const vf64 b = complement_of(v_load(l->p + i + LANES_F64), other);
        const vf32 q = v_narrow(a, b);
        vf32 small;
        const vf32 large = log_pair_f32(q, zero, zero, &small), log_q = large + small, v = high_gamma * log_q;
        const vf32 rest =
            product_error_f32(high_gamma, log_q, v) + v_fma(low_gamma, log_q, high_gamma * (small - (log_q - large)));
        const vf32 power = exp_scaled_pair_f32(v, v_select(m_gt(v, scale.floor), rest, zero), scale);
        double *to = l->power + i;
        v_store(to, v_widen_lo(power) * down), v_store(to + LANES_F64, v_widen_hi(power) * down);
        if (m_any((vm64)~m_ge(a, set_f64(TINY)))) power_of_tiny(to, a, gamma);
        if (m_any((vm64)~m_ge(b, set_f64(TINY)))) power_of_tiny(to + LANES_F64, b, gamma);
#else
        (void)other, (void)down, v_store(l->power + i, v_pow(a, set_f64(gamma)));
#endif
    }
}

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
                         .power = t->lines + 6 * room,
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
    const curved_call call = {.gamma = a->gamma,
                              .curvature = a->curvature,
                              .dense = dense_loss != NULL,
                              .focal = dense_loss && a->gamma != 0,
                              .powers = a->gamma != 1 && a->gamma != 2,
                              .bends = dense_loss && a->gamma != 0 && t->hess && (a->exact || product),
                              .second = t->hess && !product,
                              .exact = a->exact || product,
                              .absolute = a->curvature == 0,
                              .derivatives = t->out != NULL,
                              .product = product,
                              .capped = positions->cap != 0,
                              .transform = transform_of_f64(positions)};
    const curved_line l = NAME(curved_line_of)(t, classes, positions->line_room);
    curved_numbers n;
    double place[TILE], top[XENT_MOST_LANES] = {0};
    NAME(curved_numbers_of)(a, t, s, y, terms, absent, &call, &n);
    if (product) KERNEL(put_largest)(t, classes, s, place);
    for (ptrdiff_t p = 0; p < t->n; p += per) {
        const ptrdiff_t here = xent_min(per, t->n - p), valid = rows ? classes : here;
        curved_shared shared[PARTS];
        curved_results own[PARTS];
        NAME(open_line)(a, t, &l, &n, p, valid, &call);
        if (call.capped || product) NAME(curve_line)(t, &l, p, valid, &call);
        if (call.dense) NAME(add_labels)(y, &l, &n, p, here);
        if (product) curved_tops(&l, place + p, here, top);
        if (call.focal && call.powers) NAME(powers_of_line)(&l, &n, p, fmin(a->gamma, MOST_GAMMA));
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
