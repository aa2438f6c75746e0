/* distillation.h: the distillation loss, the divergence of a student from a teacher.
 *
 * With the probabilities q of the teacher and p of the student, logits t and s (divided by the temperature T):
 *
 *   d_c    = log q_c - log p_c = (t_c - s_c) - D,             D = logsumexp(t) - logsumexp(s)
 *   KL     = sum_c q_c d_c = sum_c q_c (d_c + e^-d_c - 1)     as sum_c q_c e^-d_c = sum_c p_c = 1
 *   loss   = T^2 KL                                           dloss/dlogits = T (p_c - q_c) = T q_c (e^-d_c - 1)
 *
 * No term of the second sum is negative: nothing cancels where the student is nearly the teacher. For small |d|,
 * e^-d - 1 and e^-d - 1 + d come from the polynomial of the exponential; else the term is q (d - 1) + p.
 *
 * Of logits x before they are divided, with m_t and m_s the largest of each and L the rest of D,
 *
 *   d_c    = ((t_c - s_c) - (m_t - m_s)) / T - L
 *
 * Quotients by powers of two are exact, and are taken first. Others would be rounded, each by itself: then differences are
 * taken first, and 1 / T is a sum of two numbers (transform.h); exponentials are those of distances from the largest.
 *
 * A rounding error of D moves all d_c by the same number. It shows in E = sum_c q_c (e^-d_c - 1), which should be 0:
 * the error is -log(1 + E), the true sum is less by E - log(1 + E) = E^2 / 2, and the gradient is taken with d_c + E:
 * p_c (1 - E) - q_c, as E^2 is lost beside 1.
 */
#include "begin.h"
#include "elements/points.h"
#include "simd/exp.h"
#include "simd/sums.h"
#include "softmax/cut.h"
#include "softmax/position_losses.h"
#include "softmax/statistics.h"
#include "softmax/stats.h"
#include "softmax/tile.h"
#include "softmax/transform.h"
#include "table.h"

#include <float.h>

#ifndef XENT_DISTILLATION_H
#define XENT_DISTILLATION_H

#ifndef STORED_AS_16

/* E1 = e^-d - 1 and F = e^-d - 1 + d for |d| <= REACH, from those of h = -d / 2^doublings, at most ln 2 / 2 where these
 * are 3: with h doubled, F becomes 2 F + E1^2, a sum of positive terms, and E1 = h + F. */
#define REACH ((T)2.75)
#define DISTILLED 4 /* vectors side by side: one after the other, each would wait for its chain of products */
ALWAYS_INLINE void NAME(exp_minus_1)(const V *d, V *e, V *beyond, int doublings)
{
    const V part = NAME(set)((T)-1 / (T)(1 << doublings));
    V h[DISTILLED], q[DISTILLED];
    for (int i = 0; i < DISTILLED; i++) h[i] = d[i] * part, q[i] = NAME(set)(NAME(exp_q)[EXP_DEGREE]);
    for (int k = EXP_DEGREE - 1; k >= 0; k--)
        for (int i = 0; i < DISTILLED; i++) q[i] = v_fma(q[i], h[i], NAME(set)(NAME(exp_q)[k]));
    for (int i = 0; i < DISTILLED; i++) beyond[i] = h[i] * h[i] * q[i], e[i] = h[i] + beyond[i];
    for (int k = doublings - 1; k >= 0; k--)
        for (int i = 0; i < DISTILLED; i++) {
            beyond[i] = v_fma(e[i], e[i], beyond[i] + beyond[i]);
            e[i] = v_fma(d[i], NAME(set)((T)-1 / (1 << k)), beyond[i]); /* the product is exact */
        }
}

/* What is known of a position, or a vector of them. */
typedef struct {
    V high, low;        /* D = high (rate + rate_low) + low */
    V student, teacher; /* p_c = e_c * student */
    V rate, rate_low;   /* 1 / T, or 1 where logits were divided */
} NAME(pair);

/* u - D of differences u + error of logits which are not divided. Where u is infinite, so is it. */
ALWAYS_INLINE V NAME(tempered_distance)(V u, V error, const NAME(pair) *c)
{
    const V zero = {0}, most = NAME(set)(LARGEST), apart = u - c->high;
    const V rest = v_fma(error, c->rate, apart * c->rate_low);
    return v_fma(apart, c->rate, zero - c->low) + v_max(zero - most, v_min(rest, most));
}

/* q (d + e^-d - 1) to `term`, p - q to `gap`. e_s and e_t are the exponentials; `tempered` is a constant at every call.
 * Where the teacher's probability is 0, so is q d, and p is left: also where the student's logit is -infinity, and d
 * infinite, or NaN. */
ALWAYS_INLINE void NAME(distill)(const V *s, const V *t, const V *e_s, const V *e_t, const NAME(pair) *c, V *term,
                                 V *gap, int tempered)
{
    const V zero = {0}, one = NAME(set)(1), most = NAME(set)(LARGEST);
    V d[DISTILLED], e[DISTILLED], beyond[DISTILLED];
    for (int i = 0; i < DISTILLED; i++) {
        const V u = t[i] - s[i], back = u - t[i],
                error = v_min((t[i] - (u - back)) - (s[i] + back), most); /* no NaN where u is infinite */
        d[i] = tempered ? NAME(tempered_distance)(u, error, c) : ((u - c->high) + error) - c->low;
        d[i] = v_max(d[i], zero - most);
    }
    NAME(exp_minus_1)(d, e, beyond, 3);
    for (int i = 0; i < DISTILLED; i++) {
        const V p = e_s[i] * c->student, q = e_t[i] * c->teacher;
        const VM near = m_ge(NAME(set)(REACH), v_abs(d[i])) & m_gt(q, zero);
        const V far = v_select(m_eq(q, zero), p, v_fma(q, d[i] - one, p));
        term[i] = v_select(near, q * beyond[i], far);
        gap[i] = v_select(near, q * e[i], p - q);
    }
}

/* Division by the temperature. */
typedef struct {
    int tempered;     /* logits are not divided */
    V factor;         /* what they are multiplied with, else 1 */
    V rate, rate_low; /* what their differences are multiplied with, else 1 and 0 */
    NAME(transform) transform;
} NAME(cooling);

/* From here on logits are divided by powers of two; with less, more of them would leave the range. */
#define LEAST_DIVISOR 0x1p-10

static NAME(cooling) NAME(cooling_of)(double temperature)
{
    int exponent;
    const xent_positions positions = {.temperature = temperature};
    const int tempered = frexp(temperature, &exponent) != 0.5 || temperature < LEAST_DIVISOR;
    const NAME(transform) f = NAME(transform_of)(&positions);
    const V one = NAME(set)(1), zero = {0};
    return (NAME(cooling)){.tempered = tempered,
                           .factor = tempered ? one : NAME(set)((T)(1 / temperature)),
                           .rate = tempered ? f.rate : one,
                           .rate_low = tempered ? f.rate_low : zero,
                           .transform = f};
}

/* Some positions of both, in scratch. */
typedef struct {
    T *student, *teacher, *student_exps, *teacher_exps;
    ptrdiff_t step, n, classes;
    int lanes_are_positions; /* `step` lies from class to class, else from position to position */
    int keeps_gaps;          /* for the gradient, in the places of the student's logits */
    NAME(cooling) cooling;
} NAME(pairs);

ALWAYS_INLINE NAME(pair) NAME(pair_at)(const NAME(pairs) *d, const NAME(stats) *s, const NAME(stats) *t, const T *low,
                                       ptrdiff_t p, int lanes_are_positions)
{
    T student[LANES], teacher[LANES];
    for (int k = 0; k < (lanes_are_positions ? LANES : 1); k++)
        student[k] = (T)(s->unit[p + k] * s->inverse[p + k]), teacher[k] = (T)(t->unit[p + k] * t->inverse[p + k]);
    if (!lanes_are_positions)
        return (NAME(pair)){.high = NAME(set)(t->max_logit[p] - s->max_logit[p]),
                            .low = NAME(set)(low[p]),
                            .student = NAME(set)(*student),
                            .teacher = NAME(set)(*teacher),
                            .rate = d->cooling.rate,
                            .rate_low = d->cooling.rate_low};
    return (NAME(pair)){.high = v_load(t->max_logit + p) - v_load(s->max_logit + p),
                        .low = v_load(low + p),
                        .student = v_load(student),
                        .teacher = v_load(teacher),
                        .rate = d->cooling.rate,
                        .rate_low = d->cooling.rate_low};
}

/* What D is more than the difference of the largest logits, divided. */
static void NAME(low_differences)(const NAME(stats) *s, const NAME(stats) *t, T *low, ptrdiff_t n, V rate)
{
    for (ptrdiff_t p = 0; p < n; p += LANES) {
        const V a = v_load(t->max_logit + p), b = (V){0} - v_load(s->max_logit + p);
        const V logs =
            (v_load(t->log_total + p) - v_load(s->log_total + p)) + (v_load(t->log_low + p) - v_load(s->log_low + p));
        v_store(low + p, NAME(sum_error)(a, b, a + b) * rate + logs);
    }
}

/* At most TERMS of `sides` vectors, in the places from i on, `stride` apart: their terms and gaps are added up, and where
 * the gradient is wanted the gaps take the places of the student's logits. */
ALWAYS_INLINE void NAME(divergence_group)(const NAME(pairs) *d, ptrdiff_t i, ptrdiff_t stride, int count,
                                          const NAME(pair) *pair, NAME(row_sum) *sum, NAME(row_sum) *excess, int sides,
                                          int tempered)
{
    const V zero = {0};
    V term[AHEAD], gap[AHEAD];
    for (int k = 0; k < TERMS * sides; k += DISTILLED, i += DISTILLED * stride) {
        V s[DISTILLED], t[DISTILLED], e_s[DISTILLED], e_t[DISTILLED];
        for (int j = 0; j < DISTILLED; j++) { /* where there is none, no probability */
            const ptrdiff_t at = i + j * stride;
            const int there = k + j < count;
            s[j] = there ? v_load(d->student + at) : zero, e_s[j] = there ? v_load(d->student_exps + at) : zero;
            t[j] = there ? v_load(d->teacher + at) : zero, e_t[j] = there ? v_load(d->teacher_exps + at) : zero;
        }
        NAME(distill)(s, t, e_s, e_t, pair, term + k, gap + k, tempered);
        for (int j = 0; d->keeps_gaps && j < DISTILLED && k + j < count; j++)
            v_store(d->student + i + j * stride, gap[k + j]);
    }
    NAME(add_terms)(sum->way, term, sides);
    NAME(add_terms)(excess->way, gap, sides);
}

/* The divergences of some positions, and their E. */
ALWAYS_INLINE void NAME(divergences_along)(const NAME(pairs) *d, const NAME(stats) *s, const NAME(stats) *t,
                                           const T *low, double *loss, T *excess, int lanes_are_positions, int tempered)
{
    const int sides = lanes_are_positions ? 1 : WAYS, most = TERMS * sides;
    const ptrdiff_t count = lanes_are_positions ? d->classes : (d->classes + LANES - 1) / LANES,
                    stride = lanes_are_positions ? d->step : LANES;
    for (ptrdiff_t p = 0; p < d->n; p += lanes_are_positions ? LANES : 1) {
        const NAME(pair) pair = NAME(pair_at)(d, s, t, low, p, lanes_are_positions);
        NAME(row_sum) sum, gaps;
        double terms[LANES], e[LANES];
        ptrdiff_t k = 0, i = lanes_are_positions ? p : p * d->step;
        NAME(start_row_sum)(&sum), NAME(start_row_sum)(&gaps);
        for (; k + most <= count; k += most, i += most * stride)
            NAME(divergence_group)(d, i, stride, most, &pair, &sum, &gaps, sides, tempered);
        if (k < count) NAME(divergence_group)(d, i, stride, (int)(count - k), &pair, &sum, &gaps, sides, tempered);
        if (lanes_are_positions)
            NAME(sum_lanes)(sum.way, terms, NULL), NAME(sum_lanes)(gaps.way, e, NULL);
        else
            terms[0] = NAME(row_total)(&sum), e[0] = NAME(row_total)(&gaps);
        for (ptrdiff_t m = 0; m < (lanes_are_positions ? LANES : 1); m++) {
            const double divergence = terms[m] - 0.5 * e[m] * e[m];
            loss[p + m] = divergence < 0 ? 0 : divergence;
            excess[p + m] = (T)e[m];
        }
    }
}

static void NAME(divergences)(const NAME(pairs) *d, const NAME(stats) *s, const NAME(stats) *t, const T *low,
                              double *loss, T *excess)
{
#define ALONG(tempered)                                                                                                \
    d->lanes_are_positions ? NAME(divergences_along)(d, s, t, low, loss, excess, 1, tempered)                          \
                           : NAME(divergences_along)(d, s, t, low, loss, excess, 0, tempered)
    if (d->cooling.tempered)
        ALONG(1);
    else
        ALONG(0);
#undef ALONG
}

/* The gradient, in the place of the gaps: E times p, not times what makes p of an exponential, which may be so small that
 * the product of both is no normal number. */
static void NAME(distillation_gradient)(const NAME(pairs) *d, const NAME(stats) *s, const T *excess, const T *factor)
{
    const ptrdiff_t count = d->lanes_are_positions ? d->classes : (d->classes + LANES - 1) / LANES,
                    stride = d->lanes_are_positions ? d->step : LANES;
    for (ptrdiff_t p = 0; p < d->n; p += d->lanes_are_positions ? LANES : 1) {
        T shares[LANES];
        for (int k = 0; k < (d->lanes_are_positions ? LANES : 1); k++)
            shares[k] = (T)(s->unit[p + k] * s->inverse[p + k]);
        const V share = d->lanes_are_positions ? v_load(shares) : NAME(set)(shares[0]),
                lost = (V){0} - (d->lanes_are_positions ? v_load(excess + p) : NAME(set)(excess[p])),
                scale = d->lanes_are_positions ? v_load(factor + p) : NAME(set)(factor[p]);
        for (ptrdiff_t k = 0, i = d->lanes_are_positions ? p : p * d->step; k < count; k++, i += stride)
            v_store(d->student + i, v_fma(v_load(d->student_exps + i) * share, lost, v_load(d->student + i)) * scale);
    }
}

/* Vectors of a line, a row or the classes of a vector of positions, side by side: one after the other, each exponential
 * would wait. Where there is none, -infinity. */
#define TEMPERED 4
ALWAYS_INLINE void NAME(tempered_logits)(const T *x, ptrdiff_t step, ptrdiff_t left, V *v, int lanes_are_positions)
{
    const V none = NAME(set)((T)-INFINITY);
    const int whole = left >= (lanes_are_positions ? TEMPERED : TEMPERED * LANES);
    for (int j = 0; j < TEMPERED; j++)
        if (lanes_are_positions)
            v[j] = whole || j < left ? v_load(x + j * step) : none;
        else
            v[j] = whole ? v_load(x + j * LANES) : NAME(load_part)(x + j * LANES, left - j * LANES, none);
}

/* Exponentials of a line, of distances from its largest logit that are divided; returns that. A row has zeros behind it, up
 * to whole groups. */
ALWAYS_INLINE V NAME(tempered_exps)(const NAME(transform) *f, const T *x, ptrdiff_t x_step, T *exps, ptrdiff_t step,
                                    ptrdiff_t classes, int lanes_are_positions)
{
    const V zero = {0};
    const ptrdiff_t per = lanes_are_positions ? 1 : LANES, x_unit = lanes_are_positions ? x_step : 1,
                    unit = lanes_are_positions ? step : 1;
    V v[TEMPERED], most[TEMPERED], low[TEMPERED];
    for (int j = 0; j < TEMPERED; j++) most[j] = NAME(set)((T)-INFINITY);
    for (ptrdiff_t c = 0; c < classes; c += TEMPERED * per) {
        NAME(tempered_logits)(x + c * x_unit, x_step, classes - c, v, lanes_are_positions);
        for (int j = 0; j < TEMPERED; j++) most[j] = v_max(v[j], most[j]);
    }
    const V max = NAME(line_max)(v_max(v_max(most[0], most[1]), v_max(most[2], most[3])),
                                 (NAME(transformation)){.lanes_are_positions = lanes_are_positions});
    const V m = NAME(if_finite)(max);
    for (ptrdiff_t c = 0; c < classes; c += TEMPERED * per) {
        NAME(tempered_logits)(x + c * x_unit, x_step, classes - c, v, lanes_are_positions);
        for (int j = 0; j < TEMPERED; j++) {
            v[j] = NAME(distance)(f, v[j], m, &low[j]);
            low[j] = v_select(m_gt(v[j], f->scale.floor), low[j], zero); /* infinities have made NaN of it */
        }
        for (int j = 0; j < TEMPERED; j++)
            if (!lanes_are_positions || c + j < classes)
                v_store(exps + c * unit + j * (lanes_are_positions ? step : LANES),
                        NAME(exp_scaled_pair)(v[j], low[j], f->scale));
    }
    return max;
}

/* Statistics of a tile, whose logits are divided, or have exponentials made here. */
static void NAME(pair_statistics)(const NAME(pairs) *d, NAME(tile) *t, NAME(stats) *s)
{
    const ptrdiff_t classes = d->classes,
                    end = (classes + TEMPERED * LANES - 1) / (TEMPERED * LANES) * TEMPERED * LANES;
    const NAME(transform) *f = &d->cooling.transform;
    T largest[TILE + LANES];
    for (ptrdiff_t p = 0; d->cooling.tempered && t->lanes_are_positions && p < t->n; p += LANES)
        v_store(largest + p, NAME(tempered_exps)(f, t->x + p, t->x_step, t->exps + p, t->exps_step, classes, 1));
    for (ptrdiff_t p = 0; d->cooling.tempered && !t->lanes_are_positions && p < t->n; p++) {
        T *exps = t->exps + p * t->exps_step;
        largest[p] = NAME(tempered_exps)(f, t->x + p * t->x_step, 0, exps, 0, classes, 0)[0];
        for (ptrdiff_t c = end; c < NAME(padded_row)(classes); c += LANES) v_store(exps + c, (V){0});
    }
    t->max_logit = d->cooling.tempered ? largest : NULL;
    NAME(statistics)(t, classes, s);
    t->max_logit = NULL;
}
#endif /* STORED_AS_16 */

/* What lies in scratch, or rows where they lie, as a tile. */
ALWAYS_INLINE KERNEL(tile)
    KERNEL(pair_tile)(const NAME(pairs) *d, const S *x, ptrdiff_t step, T *exps, T *scale_exponent)
{
    return (KERNEL(tile)){.x = x,
                          .exps = exps,
                          .x_step = step,
                          .exps_step = d->step,
                          .n = d->n,
                          .rows = !d->lanes_are_positions,
                          .lanes_are_positions = d->lanes_are_positions,
                          .kept = 1,
                          .blocks = !d->lanes_are_positions && d->step > EXPS_ELEMENTS,
                          .scale_exponent = scale_exponent};
}

/* The logits of one of both, times `factor`: `lines` of n numbers. */
static void KERNEL(cool)(const S *x, ptrdiff_t x_step, T *to, ptrdiff_t step, ptrdiff_t lines, ptrdiff_t n, V factor)
{
    const V zero = {0};
    for (ptrdiff_t k = 0; k < lines; k++, x += x_step, to += step)
        for (ptrdiff_t i = 0; i < n; i += LANES) v_store(to + i, KERNEL(load)(x + i, n - i, zero) * factor);
}

static void KERNEL(gather_pair)(const NAME(pairs) *d, const S *x, xent_lie lie, T *to)
{
    const ptrdiff_t lines = d->lanes_are_positions ? d->classes : d->n, n = d->lanes_are_positions ? d->n : d->classes;
    if (lie.run || lie.rows == d->lanes_are_positions) {
        KERNEL(gather)(x, lie, to, d->step, d->n, d->classes, d->lanes_are_positions);
        if (d->cooling.factor[0] != 1)
            NAME(cool)(to, d->step, to, d->step, lines, d->lanes_are_positions ? d->step : n, d->cooling.factor);
    } else {
        KERNEL(cool)(x, lie.step, to, d->step, lines, n, d->cooling.factor);
    }
}

/* The positions of a chunk that come to the scratch at a time, at most. */
static ptrdiff_t KERNEL(most_pairs)(const xent_positions *positions, const NAME(pairs) *d)
{
    const ptrdiff_t room = positions->inner == 1 && d->lanes_are_positions ? TRANSPOSED_ELEMENTS : positions->room;
    return xent_min(TILE, d->lanes_are_positions ? room / d->classes / LINE_COLUMNS * LINE_COLUMNS
                                                 : room / NAME(padded_row)(d->classes));
}

/* The tile of positions from p on, before `stop`, of which the operands lie as the cut says. */
static KERNEL(tile) KERNEL(tile_of_pairs)(const xent_positions *positions, NAME(pairs) *d, ptrdiff_t p, ptrdiff_t stop)
{
    const KERNEL(cut) cut = {.most = KERNEL(most_pairs)(positions, d),
                             .columns = positions->inner > 1,
                             .runs = short_runs(positions, KERNEL(most_pairs)(positions, d))};
    const KERNEL(tile) t = KERNEL(tile_at)(positions, &cut, p, stop);
    d->n = t.n;
    d->step = d->lanes_are_positions ? (d->n + LANES - 1) / LANES * LANES : NAME(padded_row)(d->classes);
    return t;
}

/* The rows of the next tile, while this one keeps the processor busy. */
static void KERNEL(fetch_pairs)(const xent_positions *positions, const KERNEL(tile) *t)
{
    const ptrdiff_t left = positions->middle_count - t->first % positions->middle_count;
    for (ptrdiff_t k = t->n; t->rows && k < xent_min(2 * t->n, left); k++) {
        KERNEL(fetch)(t->x + k * t->x_step, positions->classes);
        KERNEL(fetch)(t->target + k * t->target_step, positions->classes);
        if (t->out) KERNEL(fetch)(t->out + k * t->out_step, positions->classes);
    }
}

/* Whether a divergence is no finite number because of the logits: one is NaN or infinite, a row has no finite one, or the
 * student excludes what the teacher does not. */
static int KERNEL(is_infinite_pair)(const xent_positions *positions, ptrdiff_t p)
{
    const ptrdiff_t i = p % positions->inner, m = p / positions->inner % positions->middle_count,
                    o = p / positions->inner / positions->middle_count;
    const S *s = KERNEL(at)(&positions->x, o, m, i), *t = KERNEL(at)(&positions->target, o, m, i);
    int student = 0, teacher = 0;
    for (ptrdiff_t c = 0; c < positions->classes; c++) {
        const T a = KERNEL(get)(s + c * positions->x.stride), b = KERNEL(get)(t + c * positions->target.stride);
        if (!(a < (T)INFINITY) || !(b < (T)INFINITY) || (isinf(a) && !isinf(b))) return 1;
        student |= !isinf(a), teacher |= !isinf(b);
    }
    return !student || !teacher;
}

ALWAYS_INLINE int KERNEL(is_beyond)(const xent_positions *positions, double divergence, ptrdiff_t p)
{
    const double most = BY_TYPE(FLT_MAX, 0x1p600); /* squares of temperatures that are ordinary come on top */
    return !(divergence <= most) && !KERNEL(is_infinite_pair)(positions, p);
}

/* The first divergences that are beyond the arithmetic here, of n from position `first` on: those that logits which are
 * finite have made infinite, or so large that a sum might be. */
static xent_left KERNEL(large_divergences)(const xent_distillation_args *a, const double *loss, ptrdiff_t first,
                                           ptrdiff_t n)
{
    xent_left left = {0, 0};
    if (!a->positions.left) return left;
    while (left.at < n && !KERNEL(is_beyond)(&a->positions, loss[left.at], first + left.at)) left.at++;
    while (left.at + left.n < n && KERNEL(is_beyond)(&a->positions, loss[left.at + left.n], first + left.at + left.n))
        left.n++;
    return left;
}

/* The scratch is cut into PAIR_ARRAYS; `room` is the size of each. */
static void KERNEL(distillation)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_distillation_args *a = (const xent_distillation_args *)args;
    const xent_positions *positions = &a->positions;
    const ptrdiff_t begin = chunk * positions->chunk, end = xent_min(begin + positions->chunk, positions->count),
                    classes = positions->classes;
    T *memory = (T *)scratch, low[TILE], excess[TILE], factor[TILE], scale_exponent = FIRST_SCALE_EXPONENT;
    double loss[TILE];
    NAME(pairs) d = {.student = memory,
                     .teacher = memory + positions->room,
                     .student_exps = memory + 2 * positions->room,
                     .teacher_exps = memory + 3 * positions->room,
                     .cooling = NAME(cooling_of)(a->temperature),
                     .classes = classes,
                     .lanes_are_positions = KERNEL(lanes_of_copies)(positions),
                     .keeps_gaps = positions->out.data != NULL};
    NAME(stats) student, teacher;
    row_sum_f64 losses;
    start_row_sum_f64(&losses);
    if (positions->left) positions->left[chunk] = 0;
    for (ptrdiff_t p = begin, stop = end; p < end; stop = p == stop ? end : stop) {
        const KERNEL(tile) t = KERNEL(tile_of_pairs)(positions, &d, p, stop);
        KERNEL(gather_pair)(&d, t.x, LIES(&t, x), d.student),
            KERNEL(gather_pair)(&d, t.target, LIES(&t, target), d.teacher);
        KERNEL(fetch_pairs)(positions, &t);
        NAME(tile) tiles[2] = {NAME(pair_tile)(&d, d.student, d.step, d.student_exps, &scale_exponent),
                               NAME(pair_tile)(&d, d.teacher, d.step, d.teacher_exps, &scale_exponent)};
        NAME(pair_statistics)(&d, tiles, &student), NAME(pair_statistics)(&d, tiles + 1, &teacher);
        NAME(low_differences)(&student, &teacher, low, d.n, d.cooling.rate);
        NAME(divergences)(&d, &student, &teacher, low, loss, excess);
        const xent_left left = KERNEL(large_divergences)(a, loss, p, d.n);
        if (left.n && left.at == 0) leave(positions, begin, end, p, left.n), p += left.n;
        if (left.n && left.at > 0) stop = p + left.at; /* what lies before comes first */
        if (left.n) continue;
        for (ptrdiff_t k = 0; k < d.n; k++) loss[k] *= a->factor;
        KERNEL(deliver_losses)(loss, d.n, &losses, a->losses ? (T *)a->losses + p : NULL);
        const ptrdiff_t first = p;
        p += d.n;
        if (!positions->out.data) continue;
        for (ptrdiff_t k = 0; k < d.n; k++)
            factor[k] = (T)KERNEL(gradient_factor)(a->gradient_scale, a->upstream, first + k);
        for (ptrdiff_t k = d.n; k % LANES; k++) factor[k] = 0;
        NAME(distillation_gradient)(&d, &student, excess, factor);
        KERNEL(scatter)(d.student, d.step, t.out, LIES(&t, out), d.n, classes, d.lanes_are_positions);
    }
    if (positions->partial) positions->partial[chunk] = row_total_f64(&losses);
}

#endif
