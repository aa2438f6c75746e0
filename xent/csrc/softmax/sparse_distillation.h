/* sparse_distillation.h: distillation from k probabilities of a teacher, at each position.
 *
 * With the teacher's log-probabilities l_j of the classes i_1 ... i_k, q_j = e^l_j, Q = sum_j q_j, and the student's
 * p = softmax(x / T), of which P = sum_j p_(i_j) and S = 1 - P lies in the other classes, the tail. Each rule compares
 * two distributions q* and p* of k + 1 entries, the last for the tail:
 *
 *                 q*_j      q*_tail         p*_j        p*_tail    N           W
 *   bucket        q_j / N   max(0, 1 - Q)   p_(i_j)     S          max(1, Q)   N      (Q where there is no other class)
 *   drop          q_j / N   0               p_(i_j)     S          Q           N
 *   renormalize   q_j / N   0               p_(i_j) / P 0          Q           1
 *
 *   loss = sum_j q_j (log q_j - log p_(i_j)), with the tail and over Q and P where the rule says so
 *        = W (KL + log W),              KL = sum_j q*_j d_j = sum_j q*_j (d_j + e^-d_j - 1),    d_j = log q*_j - log p*_j
 *
 * where the last sum goes over all entries, an entry without mass of the teacher counts p*_j, and no term is negative
 * (distillation.h; E = sum_j (p*_j - q*_j) shows the rounding error of log N and of the student's log-sum-exp as it does
 * there). With dlog p*_j / dx_c = ([i_j = c] - p*_c) / T and, as p*_tail is a sum, dlog p*_tail / dx_c =
 * (p_c / p*_tail - p*_c) / T of a class c of the tail, whose p*_c here is p_c:
 *
 *   dloss / dx_c = W (p*_j - q*_j) / T                      c = i_j
 *                = W (p*_tail - q*_tail) / T * p_c / S      c in the tail
 *
 * so that the gradient of the tail is a multiple of the softmax of its own logits, and nothing of it needs the k. The
 * loss knows S from a sum of rounded exponentials: a relative error e of S is an error e W (p*_tail - q*_tail) of it.
 *
 * Design: one look at the row (statistics.h) makes all exponentials; those of the k are taken out before they are added
 * up. The k entries are computed in doubles whatever the type, in pairs of numbers where something may cancel: they are
 * few. 1 - Q is added up as it stands, with the low words of the exponentials. Where the tail has next to no mass, which
 * its exponentials beside those of the k cannot tell well, it is looked at once more by itself.
 */
#include "begin.h"
#include "simd/exp.h"
#include "simd/log.h"
#include "simd/stored.h"
#include "simd/sums.h"
#include "softmax/affine.h"
#include "softmax/cut.h"
#include "softmax/distillation.h"
#include "softmax/labels.h"
#include "softmax/statistics.h"
#include "softmax/stats.h"
#include "softmax/transform.h"
#include "table.h"

#include <stdlib.h>

#ifndef XENT_SPARSE_DISTILLATION_H
#define XENT_SPARSE_DISTILLATION_H

#if XENT_REAL == 64 && !defined(STORED_AS_16)

/* The entries of a position: the k, the tail, and some without mass up to whole groups of vectors. */
typedef struct {
    double *l, *l_low; /* log q_j, as sums of two numbers */
    double *x, *x_low; /* the student's logits; then their distances from some number, divided by T */
    double *q, *e;     /* e^l; e^x 2^-scale_exponent */
    double *low, *term, *gap;
    ptrdiff_t *id, *ordered,
        *first; /* the k classes; in the order of blocks of classes; where each block begins there */
    ptrdiff_t k, room;
} sparse_entries;

static sparse_entries sparse_entries_in(void *memory, ptrdiff_t k)
{
    const ptrdiff_t room = xent_sparse_entries(k);
    double *number = (double *)memory;
    ptrdiff_t *index = (ptrdiff_t *)(number + SPARSE_NUMBERS * room);
    return (sparse_entries){.l = number,
                            .l_low = number + room,
                            .x = number + 2 * room,
                            .x_low = number + 3 * room,
                            .q = number + 4 * room,
                            .e = number + 5 * room,
                            .low = number + 6 * room,
                            .term = number + 7 * room,
                            .gap = number + 8 * room,
                            .id = index,
                            .ordered = index + room,
                            .first = index + 2 * room,
                            .k = k,
                            .room = room};
}

/* e^(x + x_low) 2^-scale_exponent = e + e_low of n numbers, in whole vectors; infinity where that may overflow. */
static void exps_in_two(const double *x, const double *x_low, double *e, double *e_low, ptrdiff_t n,
                        double scale_exponent)
{
    const vf64 zero = {0}, one = set_f64(1), infinity = set_f64(INFINITY),
               most = set_f64((1000 + scale_exponent) * LN2);
    const scale_f64 scale = scale_of_f64(set_f64(scale_exponent));
    for (ptrdiff_t i = 0; i < n; i += LANES_F64) {
        const vf64 v = v_load(x + i);
        vi64 shifted;
        vf64 rest;
        const vf64 head = exp_parts_f64(v_max(scale.floor, v), v_select(m_gt(v, scale.floor), v_load(x_low + i), zero),
                                        1, scale.magic, &shifted, &rest);
        const vf64 base = one + head, small = (head - (base - one)) + rest, sum = base + small;
        const vf64 power = (vf64)(shifted << MANTISSA_BITS);
        const vm64 large = m_gt(v, most);
        v_store(e + i, v_select(large, infinity, sum * power));
        v_store(e_low + i, v_select(large, zero, ((base - sum) + small) * power));
    }
}

/* The sum of two arrays of n numbers and of one number. */
static double total_of(const double *a, const double *b, ptrdiff_t n, double one)
{
    row_sum_f64 sum;
    start_row_sum_f64(&sum);
    row_sum_add_array(&sum, a, n), row_sum_add_array(&sum, b, n), row_sum_add_array(&sum, &one, 1);
    return row_total_f64(&sum);
}

/* log((v + v_low) 2^exponent) = the result + *low. */
static double log_in_two(double v, double v_low, double exponent, double *low)
{
    *low = 0;
    if (!(v > 0 && v < INFINITY)) return v == 0 ? -INFINITY : v < 0 ? NAN : v;
    vf64 rest;
    const vf64 large = log_pair_f64(set_f64(v), set_f64(-exponent), set_f64(v_low / v), &rest);
    *low = rest[0];
    return large[0];
}

/* The largest of n numbers that are not NaN. */
static double largest_of(const double *x, ptrdiff_t n)
{
    double largest = -INFINITY;
    for (ptrdiff_t j = 0; j < n; j++) largest = x[j] > largest ? x[j] : largest;
    return largest;
}

/* x + x_low = (x - reference) / temperature. A quarter of all three is as good where they are large, and finite. */
static void measure_from(double *x, double *x_low, ptrdiff_t n, double reference, double temperature)
{
    const double part = temperature >= 4 ? 0.25 : 1;
    const vf64 zero = {0}, quarter = set_f64(part), from = set_f64(-reference) * quarter,
               t = set_f64(temperature) * quarter;
    for (ptrdiff_t i = 0; i < n; i += LANES_F64) {
        const vf64 v = v_load(x + i) * quarter, difference = v + from, error = sum_error_f64(v, from, difference);
        const vf64 quotient = difference / t, product = quotient * t;
        const vf64 low = ((difference - product) - product_error_f64(quotient, t, product) + error) / t;
        const vm64 finite = m_gt(set_f64(INFINITY), v_abs(quotient)) & m_gt(set_f64(INFINITY), v_abs(low));
        v_store(x + i, quotient), v_store(x_low + i, v_select(finite, low, zero));
    }
}

/* (largest - reference) / temperature + log mass = the result + *low. */
static double faint_log(double mass, double largest, double reference, double temperature, double *low)
{
    double x[XENT_WIDEST / sizeof(double)] = {largest}, x_low[XENT_WIDEST / sizeof(double)], sum, back;
    measure_from(x, x_low, LANES_F64, reference, temperature);
    const double log_mass = log_in_two(mass, 0, 0, low);
    sum = x[0] + log_mass, back = sum - x[0];
    *low += ((x[0] - (sum - back)) + (log_mass - back)) + x_low[0];
    return sum;
}

/* What is known of the tail: its sum of exponentials times 2^-scale_exponent, and the logarithm of the sum, each in two
 * numbers. */
typedef struct {
    double mass, mass_low, log, log_low;
} sparse_tail;

/* d of four vectors of entries, with c = log Z - log N in two numbers. */
ALWAYS_INLINE void log_ratios(const sparse_entries *s, ptrdiff_t i, vf64 high, vf64 low, vf64 *d)
{
    const vf64 zero = {0};
    for (int k = 0; k < DISTILLED; k++, i += LANES_F64) {
        const vf64 l = v_load(s->l + i), x = v_load(s->x + i), gap = l - x, sum = gap + high;
        const vf64 errors = (sum_error_f64(l, zero - x, gap) + sum_error_f64(gap, high, sum)) +
                            ((v_load(s->l_low + i) - v_load(s->x_low + i)) + low);
        d[k] = sum + v_select(m_gt(set_f64(INFINITY), v_abs(sum)), errors, zero);
    }
}

/* The terms of KL and the differences p* - q*, of all entries. */
static void sparse_terms(const sparse_entries *s, double high, double low, double inverse_n, double inverse_z)
{
    const vf64 zero = {0}, one = set_f64(1), reach = set_f64(REACH);
    for (ptrdiff_t i = 0; i < s->room; i += DISTILLED * LANES_F64) {
        vf64 d[DISTILLED], e[DISTILLED], beyond[DISTILLED];
        log_ratios(s, i, set_f64(high), set_f64(low), d);
        exp_minus_1_f64(d, e, beyond, 3);
        for (int k = 0; k < DISTILLED; k++) {
            const ptrdiff_t at = i + k * LANES_F64;
            const vf64 q = v_load(s->q + at) * set_f64(inverse_n), p = v_load(s->e + at) * set_f64(inverse_z);
            const vm64 near = m_ge(reach, v_abs(d[k])) & m_gt(q, zero);
            const vf64 far = v_select(m_eq(q, zero), p, v_fma(q, d[k] - one, p));
            v_store(s->term + at, v_select(near, q * beyond[k], far));
            v_store(s->gap + at, v_select(near, q * e[k], p - q));
        }
    }
}

/* The loss of a position. The entries are there but for the tail; `others`: whether there is a class beside the k. Leaves
 * W (p* - q*) in gap. */
static double sparse_divergence(const sparse_entries *s, int rule, int others, const sparse_tail *tail,
                                double scale_exponent)
{
    const ptrdiff_t k = s->k, n = s->room;
    exps_in_two(s->l, s->l_low, s->q, s->low, n, 0);
    const double mass = total_of(s->q, s->low, n, 0), left = -total_of(s->q, s->low, n, -1);
    double norm = mass, norm_low = fabs(left) <= 0.5 ? (1 - mass) - left : 0, log_low, c_low;
    if (rule == XENT_BUCKET && others && left > 0) {
        s->q[k] = left, s->l[k] = log_in_two(left, 0, 0, &s->l_low[k]);
        norm = 1, norm_low = 0;
    }
    const double weight = rule == XENT_RENORMALIZE ? 1 : norm;
    if (weight == 0) norm = 1; /* nothing of the teacher is to be compared */
    exps_in_two(s->x, s->x_low, s->e, s->low, n, scale_exponent);
    s->e[k] = tail->mass;
    const double total = total_of(s->e, s->low, n, tail->mass_low),
                 log_z = log_in_two(total, 0, scale_exponent, &c_low),
                 log_norm = log_in_two(norm, norm_low, 0, &log_low), c = log_z - log_norm, back = c - log_z;
    c_low += (log_z - (c - back)) - (log_norm + back) - log_low;
    s->x[k] = tail->log, s->x_low[k] = tail->log_low;
    sparse_terms(s, c, isfinite(c) ? c_low : 0, 1 / norm, 1 / total);
    row_sum_f64 terms, gaps;
    start_row_sum_f64(&terms), start_row_sum_f64(&gaps);
    row_sum_add_array(&terms, s->term, n), row_sum_add_array(&gaps, s->gap, n);
    const double e = row_total_f64(&gaps), sum = row_total_f64(&terms) - 0.5 * e * e, divergence = sum < 0 ? 0 : sum;
    for (ptrdiff_t j = 0; j <= k; j++) s->gap[j] = weight * (s->gap[j] - e * (s->e[j] / total));
    if (weight == 0) return 0 * divergence; /* NaN stays */
    return weight * (divergence + (weight == 1 ? 0 : log_norm + log_low));
}
#endif

/* What a thread works with. */
typedef struct {
    const xent_sparse_distillation_args *args;
    sparse_entries entries;
    KERNEL(tile) tile; /* of one row */
    T *distances;      /* room for a row whose logits are divided by a temperature */
} KERNEL(sparse_work);

/* The classes and the teacher's log-probabilities of position p. The classes were checked, but they are the caller's
 * memory, which another thread may write to: each is read once, and one that is out of range now has no mass. */
static void KERNEL(read_entries)(const xent_sparse_distillation_args *a, ptrdiff_t p, sparse_entries *s)
{
    const ptrdiff_t k = s->k, begin = p * k;
    for (ptrdiff_t j = 0; j < k; j++) {
        const int64_t id = a->ids[begin + j];
        s->id[j] = (uint64_t)id < (uint64_t)a->positions.classes ? (ptrdiff_t)id : -1;
    }
    for (ptrdiff_t j = 0; j < k; j++)
        s->l[j] = a->single ? ((const float *)a->log_probs)[begin + j] : ((const double *)a->log_probs)[begin + j];
    for (ptrdiff_t j = 0; j < k; j++)
        if (s->id[j] < 0) s->l[j] = -INFINITY;
    for (ptrdiff_t j = k; j < s->room; j++) s->l[j] = -INFINITY;
    memset(s->l_low, 0, (size_t)s->room * sizeof *s->l_low);
}

/* The student's logits of the classes, where the row is in the caches by now. */
static void KERNEL(read_logits)(const S *x, sparse_entries *s)
{
    for (ptrdiff_t j = 0; j < s->k; j += LANES) {
        const ptrdiff_t n = xent_min(LANES, s->k - j);
        S found[LANES] = {0};
        T logits[LANES];
        for (ptrdiff_t i = 0; i < n; i++)
            if (s->id[j + i] >= 0) found[i] = x[s->id[j + i]];
        v_store(logits, KERNEL(load)(found, LANES, (V){0}));
        for (ptrdiff_t i = 0; i < n; i++) s->x[j + i] = s->id[j + i] < 0 ? -INFINITY : logits[i];
    }
    for (ptrdiff_t j = s->k; j < s->room; j++) s->x[j] = -INFINITY;
}

/* The classes in the order of blocks (statistics.h). Returns how many there are. */
static ptrdiff_t KERNEL(order_entries)(const sparse_entries *s, ptrdiff_t classes)
{
    const ptrdiff_t blocks = (classes - 1) / BLOCK + 1;
    memset(s->first, 0, (size_t)(blocks + 1) * sizeof *s->first);
    for (ptrdiff_t j = 0; j < s->k; j++) s->first[s->id[j] < 0 ? blocks : s->id[j] / BLOCK]++;
    for (ptrdiff_t b = 0, count = 0; b <= blocks; b++) {
        const ptrdiff_t here = s->first[b];
        s->first[b] = count, count += here;
    }
    const ptrdiff_t count = s->first[blocks];
    for (ptrdiff_t j = 0; j < s->k; j++)
        if (s->id[j] >= 0) s->ordered[s->first[s->id[j] / BLOCK]++] = s->id[j];
    return count;
}

/* The largest of a row that is not NaN. */
static T KERNEL(max_of_row)(const S *x, ptrdiff_t classes)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    V largest = minus_infinity;
    for (ptrdiff_t c = 0; c < classes; c += LANES)
        largest = v_max(KERNEL(load)(x + c, classes - c, minus_infinity), largest);
    return v_reduce_max(largest);
}

/* Statistics of a row without the classes of the entries. Returns what its exponentials are measured from. */
static double KERNEL(tail_statistics)(KERNEL(sparse_work) *w, NAME(stats) *s)
{
    const xent_positions *positions = &w->args->positions;
    const ptrdiff_t classes = positions->classes;
    KERNEL(tile) *t = &w->tile;
    t->left_out = w->entries.ordered, t->left_out_count = KERNEL(order_entries)(&w->entries, classes);
    if (!positions->transformed) {
        KERNEL(rows_statistics)(t, classes, s);
        return s->shift[0];
    }
    T max_logit[LANES];
    double moved[LANES];
#ifdef STORED_AS_16
    T *x = w->distances;
    KERNEL(gather)(t->x, (xent_lie){.rows = 1}, x, 0, 1, classes, 0);
#else
    const T *x = t->x;
#endif
    NAME(transform_lines)(positions, x, 0, NULL, 0, w->distances, t->exps, 0, 1, 0, max_logit, moved);
    for (ptrdiff_t j = 0; j < t->left_out_count; j++) t->exps[t->left_out[j]] = 0;
    t->max_logit = max_logit;
    KERNEL(made_statistics)(t, classes, s);
    t->max_logit = NULL;
    return isinf(s->max_logit[0]) ? 0 : KERNEL(max_of_row)(t->x, classes);
}

/* ---- tails of next to no mass ---- */

/* The largest exponential of a tail whose others may have lost digits, or all, as too small to matter beside those of the
 * k: then some 2^50 of them would still not count. */
#define FAINT BY_TYPE(0x1p-70f, 0x1p-900)

/* Numbers of a row that are worked on at a time. */
#define FAINT_BLOCK 128

#if XENT_REAL == 64 && !defined(STORED_AS_16)
static int by_number(const void *a, const void *b)
{
    const ptrdiff_t first = *(const ptrdiff_t *)a, second = *(const ptrdiff_t *)b;
    return (first > second) - (first < second);
}
#endif

/* exps[i] = e^((x_c - largest) / temperature) of the classes c from `first` on, 0 for those left out, which are in order
 * from *next on. */
static void KERNEL(faint_exps)(const KERNEL(tile) *t, ptrdiff_t first, ptrdiff_t n, double largest, double temperature,
                               ptrdiff_t *next, double *exps)
{
    double low[FAINT_BLOCK];
    for (ptrdiff_t i = 0; i < FAINT_BLOCK; i++) exps[i] = i < n ? (double)KERNEL(get)(t->x + first + i) : -INFINITY;
    for (; *next < t->left_out_count && t->left_out[*next] < first + n; ++*next)
        exps[t->left_out[*next] - first] = -INFINITY;
    measure_from(exps, low, FAINT_BLOCK, largest, temperature);
    exps_in_two(exps, low, exps, low, FAINT_BLOCK, 0);
}

/* The tail by itself: the sum of e^((x_c - *largest) / temperature), with its largest logit. */
static double KERNEL(faint_sum)(const KERNEL(sparse_work) *w, double *largest)
{
    const ptrdiff_t classes = w->args->positions.classes;
    const KERNEL(tile) *t = &w->tile;
    double exps[FAINT_BLOCK];
    row_sum_f64 sum;
    start_row_sum_f64(&sum);
    qsort(w->entries.ordered, (size_t)t->left_out_count, sizeof *w->entries.ordered, by_number);
    *largest = -INFINITY;
    for (ptrdiff_t c = 0, next = 0; c < classes; c++) {
        const double x = KERNEL(get)(t->x + c);
        if (next < t->left_out_count && t->left_out[next] == c)
            next++;
        else if (x > *largest)
            *largest = x;
    }
    if (*largest == -INFINITY) return 0;
    for (ptrdiff_t c = 0, next = 0; c < classes; c += FAINT_BLOCK) {
        KERNEL(faint_exps)(t, c, xent_min(FAINT_BLOCK, classes - c), *largest, w->args->positions.temperature, &next,
                           exps);
        row_sum_add_array(&sum, exps, FAINT_BLOCK);
    }
    return row_total_f64(&sum);
}

/* Its gradient, `factor` times its softmax; what was left out gets 0. */
static void KERNEL(put_faint_gradient)(const KERNEL(sparse_work) *w, double largest, double factor)
{
    const ptrdiff_t classes = w->args->positions.classes;
    const KERNEL(tile) *t = &w->tile;
    for (ptrdiff_t c = 0, next = 0; c < classes; c += FAINT_BLOCK) {
        double exps[FAINT_BLOCK];
        const ptrdiff_t n = xent_min(FAINT_BLOCK, classes - c);
        KERNEL(faint_exps)(t, c, n, largest, w->args->positions.temperature, &next, exps);
        for (ptrdiff_t i = 0; i < n; i++) KERNEL(put)(t->out + c + i, (T)(factor * exps[i]));
    }
}

/* ---- a position ---- */

/* How the student's exponentials are measured, and what its tail is. A tail of next to no mass has `faint` > 0. */
typedef struct {
    double reference, scale_exponent;
    sparse_tail tail;
    double faint, largest; /* faint_sum() */
} KERNEL(measure);

/* The k alone: there is no tail. Of the teacher too, which makes nothing of what is added to all its log-probabilities. */
static KERNEL(measure) KERNEL(measure_alone)(sparse_entries *s)
{
    const double l = largest_of(s->l, s->k), x = largest_of(s->x, s->k);
    if (isfinite(l)) measure_from(s->l, s->l_low, s->room, l, 1);
    return (KERNEL(measure)){.reference = isinf(x) ? 0 : x, .tail = {.mass = isinf(x) ? NAN : 0, .log = -INFINITY}};
}

/* The whole row. */
static KERNEL(measure) KERNEL(measure_row)(KERNEL(sparse_work) *w, NAME(stats) *s)
{
    const xent_sparse_distillation_args *a = w->args;
    KERNEL(measure) m = {.reference = KERNEL(tail_statistics)(w, s)};
    const double peak = s->peak[0], rest = s->rest[0], mass = peak + rest, back = mass - peak;
    m.scale_exponent = s->scale_exponent[0];
    m.tail.mass = isinf(s->max_logit[0]) ? NAN : mass;
    m.tail.mass_low = (peak - (mass - back)) + (rest - back) + s->rest_low[0];
    m.tail.log = log_in_two(m.tail.mass, m.tail.mass_low, m.scale_exponent, &m.tail.log_low);
    if (a->rule != XENT_BUCKET || !(peak < FAINT) || isnan(m.tail.mass)) return m;
    m.faint = KERNEL(faint_sum)(w, &m.largest);
    if (m.faint > 0) m.tail.log = faint_log(m.faint, m.largest, m.reference, a->positions.temperature, &m.tail.log_low);
    return m;
}

/* The gradient of the entries, in their places. */
static void KERNEL(put_entry_gradients)(const sparse_entries *s, double scale, S *out)
{
    for (ptrdiff_t j = 0; j < s->k; j++)
        if (s->id[j] >= 0) __builtin_prefetch(out + s->id[j], 1);
    for (ptrdiff_t j = 0; j < s->k; j += LANES) {
        const ptrdiff_t n = xent_min(LANES, s->k - j);
        T entry[LANES] = {0};
        S stored[LANES];
        for (ptrdiff_t i = 0; i < n; i++) entry[i] = (T)(scale * s->gap[j + i]);
        KERNEL(store)(stored, v_load(entry), LANES);
        for (ptrdiff_t i = 0; i < n; i++)
            if (s->id[j + i] >= 0) out[s->id[j + i]] = stored[i];
    }
}

/* The gradient of a position whose gaps are known. */
static void KERNEL(put_sparse_gradient)(const KERNEL(sparse_work) *w, NAME(stats) *s, const KERNEL(measure) *m,
                                        ptrdiff_t p)
{
    const xent_sparse_distillation_args *a = w->args;
    const double scale = KERNEL(gradient_factor)(a->gradient_scale, a->upstream, p) *
                         (a->sample_weight ? a->sample_weight[p] : 1.0),
                 factor = scale * w->entries.gap[w->entries.k];
    if (m->faint > 0) {
        KERNEL(put_faint_gradient)(w, m->largest, factor / m->faint);
    } else if (m->tail.mass == 0 || a->rule == XENT_RENORMALIZE) {
        memset(w->tile.out, 0, (size_t)a->positions.classes * sizeof(S));
    } else {
        NAME(affine) f;
        NAME(finish)(s, 1, PROBABILITIES);
        NAME(make_affine)(&f, s, &factor, NULL, 1);
        KERNEL(exp_map)(&w->tile, &a->positions, NULL, &f, s);
    }
    KERNEL(put_entry_gradients)(&w->entries, scale, w->tile.out);
}

/* The loss of position p, to whose row the tile points; and its gradient. */
static double KERNEL(sparse_position)(KERNEL(sparse_work) *w, ptrdiff_t p)
{
    const xent_sparse_distillation_args *a = w->args;
    const ptrdiff_t classes = a->positions.classes;
    sparse_entries *e = &w->entries;
    const double weight = a->sample_weight ? a->sample_weight[p] : 1;
    if (weight == 0) {
        if (w->tile.out) memset(w->tile.out, 0, (size_t)classes * sizeof(S));
        return 0;
    }
    NAME(stats) s;
    KERNEL(measure) m = {0};
    KERNEL(read_entries)(a, p, e);
    if (a->rule != XENT_RENORMALIZE) m = KERNEL(measure_row)(w, &s);
    KERNEL(read_logits)(w->tile.x, e);
    if (a->rule == XENT_RENORMALIZE) m = KERNEL(measure_alone)(e);
    measure_from(e->x, e->x_low, e->room, m.reference, a->positions.temperature);
    const double loss = sparse_divergence(e, a->rule, e->k < classes, &m.tail, m.scale_exponent);
    if (w->tile.out) KERNEL(put_sparse_gradient)(w, &s, &m, p);
    return weight * loss;
}

static void KERNEL(sparse_distillation)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_sparse_distillation_args *a = (const xent_sparse_distillation_args *)args;
    const xent_positions *positions = &a->positions;
    const ptrdiff_t begin = chunk * positions->chunk, end = xent_min(begin + positions->chunk, positions->count),
                    padded = NAME(padded_row)(positions->classes);
    _Alignas(CACHE_LINE) T exps[EXPS_ELEMENTS];
    T *room = (T *)scratch, scale_exponent = NAME(first_scale_exponent);
    double loss[TILE];
    row_sum_f64 losses;
    KERNEL(sparse_work) w = {.args = a,
                             .entries = sparse_entries_in((char *)scratch + a->entries_at, a->k),
                             .distances = room,
                             .tile = {.rows = 1, .n = 1, .scale_exponent = &scale_exponent}};
    w.tile.exps = positions->transformed            ? room + transform_elements(positions)
                  : positions->room > EXPS_ELEMENTS ? room
                                                    : exps;
    w.tile.kept = positions->transformed ||
                  (positions->exps == XENT_REUSED_EXPS && padded <= xent_max(EXPS_ELEMENTS, positions->room));
    w.tile.blocks = padded > EXPS_ELEMENTS;
    w.tile.streams = positions->streams;
    w.tile.x_step = positions->x.middle_stride, w.tile.out_step = positions->out.middle_stride;
    start_row_sum_f64(&losses);
    for (ptrdiff_t p = begin; p < end;) {
        const ptrdiff_t first = p, n = xent_min(TILE, end - p);
        for (; p < first + n; p++) {
            const ptrdiff_t m = p % positions->middle_count, o = p / positions->middle_count;
            w.tile.x = KERNEL(at)(&positions->x, o, m, 0), w.tile.out = KERNEL(at)(&positions->out, o, m, 0);
            loss[p - first] = KERNEL(sparse_position)(&w, p);
        }
        row_sum_add_array(&losses, loss, n);
        KERNEL(put_per_position)(&a->losses, loss, first, n);
    }
    if (positions->streams) xent_streamed();
    if (positions->partial) positions->partial[chunk] = row_total_f64(&losses);
}

#endif
