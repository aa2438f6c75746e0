/* comparison.h: how far predictions p (of logits s, the student's) are from q (of t, the teacher's), value alone. For each
 * position
 *
 *   KL      sum_c q_c (d_c + e^-d_c - 1)      as in distillation.h: no term is negative
 *   same    whether the same class has the largest logit (largest.h)
 *   and with labels y   -log p_y, -log q_y, p_y, q_y; of the last two p_y - 1, with a minus before 0 too, where that is
 *                       nearer to 0
 *
 * An error of the constant D in all d_c moves the sum by half its square, which is nothing beside the sum but where that
 * is nothing itself: unlike the gradient it needs no correction.
 *
 * Design: the logits are looked at twice, as by evaluate(). Rows are read where they lie, if they are not to be divided;
 * all others come to a scratch, as in distillation.
 */
#include "begin.h"
#include "elements/points.h"
#include "simd/exp.h"
#include "simd/sums.h"
#include "softmax/distillation.h"
#include "softmax/labels.h"
#include "softmax/largest.h"
#include "softmax/statistics.h"
#include "softmax/stats.h"
#include "softmax/tile.h"
#include "table.h"

#ifndef XENT_COMPARISON_H
#define XENT_COMPARISON_H

#ifndef STORED_AS_16

/* Terms with |d| up to 2 ln 2 are taken from the polynomial, with h = -d / 4. Beyond, q (d - 1) + p loses at most a factor
 * of 4, which is the sum of the magnitudes over the term at d = -2 ln 2. */
#define NEAR ((T)1.375)
#define NEAR_DOUBLINGS 2

/* Where all are near the student's exponentials are not looked at: then `e_s` is NULL. A term comes out the same whatever
 * its neighbours are. d is the student's distance from the teacher; infinite logits and NaN are far. */
ALWAYS_INLINE void NAME(compare_terms)(const V *d, const V *e_s, const V *e_t, const NAME(pair) *c, V *term)
{
    const V zero = {0}, one = NAME(set)(1), most = NAME(set)(LARGEST);
    V e[DISTILLED], beyond[DISTILLED];
    NAME(exp_minus_1)(d, e, beyond, NEAR_DOUBLINGS);
    for (int i = 0; i < DISTILLED; i++) {
        const V q = e_t[i] * c->teacher;
        term[i] = q * beyond[i];
        if (!e_s) continue;
        /* where the teacher's probability is 0, p is left: also where d is infinite, or NaN, as both logits are -infinity */
        const V p = e_s[i] * c->student, far = v_fma(q, v_max(d[i], zero - most) - one, p);
        term[i] = v_select(m_ge(NAME(set)(NEAR), v_abs(d[i])), term[i], v_select(m_eq(q, zero), p, far));
    }
}

/* (t - s) / T - D, of logits that were divided, or not (`tempered`, a constant at every call). Infinite where differences
 * leave T before they are divided: the bridge sees it. */
ALWAYS_INLINE V NAME(compare_distance)(V s, V t, const NAME(pair) *c, int tempered)
{
    const V u = t - s, back = u - t, error = (t - (u - back)) - (s + back);
    return tempered ? NAME(tempered_distance)(u, error, c) : ((u - c->high) + error) - c->low;
}

/* The same where u may be infinite, and `error` NaN. */
ALWAYS_INLINE V NAME(compare_infinite)(V s, V t, V d)
{
    const V u = t - s;
    return v_select(m_gt(NAME(set)((T)INFINITY), v_abs(u)), d, u);
}

/* Largest logits and those of labels that are not divided as 0 and the distances from them, where these are finite. */
static void NAME(temper_labels)(const NAME(cooling) *cooling, NAME(stats) *s, T *logits, ptrdiff_t n)
{
    const V zero = {0}, infinity = NAME(set)((T)INFINITY);
    for (ptrdiff_t p = 0; p < n; p += LANES) {
        const V m = v_load(s->max_logit + p), x = v_load(logits + p);
        const VM finite = m_gt(infinity, v_abs(m));
        V low;
        const V d = NAME(distance)(&cooling->transform, x, m, &low);
        v_store(logits + p, v_select(finite, v_select(m_gt(infinity, v_abs(d)), d + low, d), x));
        v_store(s->max_logit + p, v_select(finite, zero, m));
    }
}
#endif /* STORED_AS_16 */

/* Vectors of both, of a row or of a vector of positions. */
typedef struct {
    const S *s, *t;
    const T *e_s, *e_t;
    ptrdiff_t s_step, t_step, exps_step; /* from vector to vector */
    ptrdiff_t vectors, last;             /* the last has so many numbers */
} KERNEL(compared);

/* DISTILLED vectors from number `first` on. With `whole`, a constant at every call, all are there, and another after
 * them. */
ALWAYS_INLINE void KERNEL(compare_part)(const KERNEL(compared) *c, ptrdiff_t first, const NAME(pair) *pair, V *term,
                                        int whole, int tempered)
{
    const V zero = {0};
    V d[DISTILLED], e_s[DISTILLED], e_t[DISTILLED];
    ptrdiff_t n[DISTILLED];
    VM far = {0};
    for (int j = 0; j < DISTILLED; j++) { /* where there is none, no probability */
        const ptrdiff_t i = first + j;
        n[j] = whole || i + 1 < c->vectors ? LANES : i + 1 == c->vectors ? c->last : 0;
        const V s = KERNEL(load_part)(c->s + i * c->s_step, n[j], zero),
                t = KERNEL(load_part)(c->t + i * c->t_step, n[j], zero);
        e_t[j] = n[j] > 0 ? v_load(c->e_t + i * c->exps_step) : zero;
        d[j] = NAME(compare_distance)(s, t, pair, tempered);
        far = (VM)(far | (VM)~m_ge(NAME(set)(NEAR), v_abs(d[j])));
    }
    if (!m_any(far)) {
        NAME(compare_terms)(d, NULL, e_t, pair, term);
        return;
    }
    /* The logits are read again: those from above would wait on the stack, wherever all are near, too. */
    const S *student = c->s, *teacher = c->t;
    __asm__("" : "+r"(student), "+r"(teacher));
    for (int j = 0; j < DISTILLED; j++) {
        const ptrdiff_t i = first + j;
        e_s[j] = n[j] > 0 ? v_load(c->e_s + i * c->exps_step) : zero;
        d[j] = NAME(compare_infinite)(KERNEL(load_part)(student + i * c->s_step, n[j], zero),
                                      KERNEL(load_part)(teacher + i * c->t_step, n[j], zero), d[j]);
    }
    NAME(compare_terms)(d, e_s, e_t, pair, term);
}

/* TERMS of `sides` vectors from number `first` on. */
ALWAYS_INLINE void KERNEL(compare_group)(const KERNEL(compared) *c, ptrdiff_t first, const NAME(pair) *pair,
                                         NAME(row_sum) *sum, int sides, int tempered)
{
    V term[AHEAD];
#pragma GCC unroll 1
    for (int k = 0; k < TERMS * sides; k += DISTILLED) {
        if (first + k + DISTILLED < c->vectors)
            KERNEL(compare_part)(c, first + k, pair, term + k, 1, tempered);
        else
            KERNEL(compare_part)(c, first + k, pair, term + k, 0, tempered);
    }
    NAME(add_terms)(sum->way, term, sides);
}

/* The divergences of the positions of a tile. `lanes_are_positions` and `tempered` are constants at every call. */
ALWAYS_INLINE void KERNEL(compare_along)(const NAME(pairs) *d, const KERNEL(tile) *student, const KERNEL(tile) *teacher,
                                         const NAME(stats) *s, const NAME(stats) *t, const T *low, double *kl,
                                         int lanes_are_positions, int tempered)
{
    const ptrdiff_t classes = d->classes;
    const int sides = lanes_are_positions ? 1 : WAYS, most = TERMS * sides;
    for (ptrdiff_t p = 0; p < student->n; p += lanes_are_positions ? LANES : 1) {
        const ptrdiff_t exps = lanes_are_positions ? p : p * student->exps_step;
        const NAME(pair) pair = NAME(pair_at)(d, s, t, low, p, lanes_are_positions);
        const KERNEL(compared) c = {.s = student->x + (lanes_are_positions ? p : p * student->x_step),
                                    .t = teacher->x + (lanes_are_positions ? p : p * teacher->x_step),
                                    .e_s = student->exps + exps,
                                    .e_t = teacher->exps + exps,
                                    .s_step = lanes_are_positions ? student->x_step : LANES,
                                    .t_step = lanes_are_positions ? teacher->x_step : LANES,
                                    .exps_step = lanes_are_positions ? student->exps_step : LANES,
                                    .vectors = lanes_are_positions ? classes : (classes + LANES - 1) / LANES,
                                    .last = lanes_are_positions ? LANES : (classes - 1) % LANES + 1};
        NAME(row_sum) sum;
        NAME(start_row_sum)(&sum);
        for (ptrdiff_t k = 0; k < c.vectors; k += most) KERNEL(compare_group)(&c, k, &pair, &sum, sides, tempered);
        if (lanes_are_positions)
            NAME(sum_lanes)(sum.way, kl + p, NULL);
        else
            kl[p] = NAME(row_total)(&sum);
    }
}

/* The losses and probabilities of the labels, of one of both. */
static void KERNEL(put_of_labels)(const NAME(pairs) *d, const KERNEL(tile) *t, NAME(stats) *s, KERNEL(labels) *y,
                                  double *loss, double *p_y)
{
    NAME(target) terms;
    KERNEL(label_logits)(t, s, y, PROBABILITIES);
    if (d->cooling.tempered) NAME(temper_labels)(&d->cooling, s, y->x, t->n);
    NAME(target_terms)(&terms, s, y->x, y->e, t->n, PROBABILITIES);
    for (ptrdiff_t p = 0; p < t->n; p++) {
        loss[t->first + p] = y->label[p] < 0 ? 0 : terms.loss[p];
        p_y[t->first + p] = y->label[p] < 0 ? 0 : terms.p[p] > 0.5 ? -fabs(terms.p_minus_1[p]) : terms.p[p];
    }
}

/* 16-bit logits are read as they lie unless something is to be done with them (below). */
static void KERNEL(statistics_of_one)(const NAME(pairs) *d, KERNEL(tile) *t, NAME(stats) *s)
{
#ifdef STORED_AS_16
    KERNEL(statistics)(t, d->classes, s);
#else
    NAME(pair_statistics)(d, t, s);
#endif
}

static void KERNEL(compare_tiles)(const xent_comparison_args *a, const NAME(pairs) *d, KERNEL(tile) *student,
                                  KERNEL(tile) *teacher)
{
    const ptrdiff_t classes = a->positions.classes, first = student->first;
    T low[TILE];
    double kl[TILE], place[TILE], of_teacher[TILE];
    NAME(stats) s, t;
    KERNEL(labels) y;
    KERNEL(statistics_of_one)(d, student, &s), KERNEL(statistics_of_one)(d, teacher, &t);
    NAME(low_differences)(&s, &t, low, student->n, d->cooling.rate);
#ifdef STORED_AS_16 /* the others are compared as floats (below) */
    KERNEL(compare_along)(d, student, teacher, &s, &t, low, kl, 0, 0);
#else
#define ALONG(tempered)                                                                                                \
    d->lanes_are_positions ? KERNEL(compare_along)(d, student, teacher, &s, &t, low, kl, 1, tempered)                  \
                           : KERNEL(compare_along)(d, student, teacher, &s, &t, low, kl, 0, tempered)
    if (d->cooling.tempered)
        ALONG(1);
    else
        ALONG(0);
#undef ALONG
#endif
    KERNEL(put_largest)(student, classes, &s, place), KERNEL(put_largest)(teacher, classes, &t, of_teacher);
    for (ptrdiff_t p = 0; p < student->n; p++) {
        ((T *)a->divergence)[first + p] = kl[p] < 0 ? 0 : (T)kl[p];
        a->same[first + p] = (place[p] >= 0) & (place[p] == of_teacher[p]);
    }
    if (!a->labels.data) return;
    KERNEL(read_labels)(a->labels, classes, 1, NULL, student, &y);
    KERNEL(put_of_labels)(d, student, &s, &y, a->report[XENT_STUDENT_LOSS], a->report[XENT_STUDENT_P]);
    KERNEL(put_of_labels)(d, teacher, &t, &y, a->report[XENT_TEACHER_LOSS], a->report[XENT_TEACHER_P]);
}

/* The scratch is cut into PAIR_ARRAYS; `room` is the size of each. */
static void KERNEL(comparison)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_comparison_args *a = (const xent_comparison_args *)args;
    const xent_positions *positions = &a->positions;
    const ptrdiff_t begin = chunk * positions->chunk, end = xent_min(begin + positions->chunk, positions->count),
                    classes = positions->classes;
    const int rows = positions->inner == 1, lanes_are_positions = KERNEL(lanes_of_copies)(positions);
    T *memory = (T *)scratch, scale_exponents[2] = {FIRST_SCALE_EXPONENT, FIRST_SCALE_EXPONENT};
    NAME(pairs) d = {.student = memory,
                     .teacher = memory + positions->room,
                     .student_exps = memory + 2 * positions->room,
                     .teacher_exps = memory + 3 * positions->room,
                     .cooling = NAME(cooling_of)(a->temperature),
                     .classes = classes,
                     .lanes_are_positions = lanes_are_positions};
    const int in_place =
        rows && !lanes_are_positions && d.cooling.factor[0] == 1 && (sizeof(S) == sizeof(T) || !d.cooling.tempered);
    for (ptrdiff_t p = begin; p < end; p += d.n) {
        const KERNEL(tile) t = KERNEL(tile_of_pairs)(positions, &d, p, end);
        if (in_place) {
            KERNEL(tile)
            student = KERNEL(pair_tile)(&d, (const S *)t.x, t.x_step, d.student_exps, scale_exponents),
            teacher = KERNEL(pair_tile)(&d, (const S *)t.target, t.target_step, d.teacher_exps, scale_exponents + 1);
            student.first = teacher.first = p;
            KERNEL(compare_tiles)(a, &d, &student, &teacher);
        } else {
            KERNEL(gather_pair)(&d, t.x, LIES(&t, x), d.student);
            KERNEL(gather_pair)(&d, t.target, LIES(&t, target), d.teacher);
            NAME(tile)
            student = NAME(pair_tile)(&d, d.student, d.step, d.student_exps, scale_exponents),
            teacher = NAME(pair_tile)(&d, d.teacher, d.step, d.teacher_exps, scale_exponents + 1);
            student.first = teacher.first = p;
            NAME(compare_tiles)(a, &d, &student, &teacher);
        }
    }
}

#endif
