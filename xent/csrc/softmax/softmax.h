/* softmax.h: softmax, log-softmax, log-sum-exp and the vector-Jacobian products of the first two.
 *
 * Design: everything is two loops over the classes of a tile: the statistics of its positions (statistics.h), and
 * results that are affine in the probabilities (affine.h) or, here, functions of one or two numbers per class and two
 * per position.
 */
#include "begin.h"
#include "simd/exp.h"
#include "simd/log.h"
#include "simd/stored.h"
#include "simd/sums.h"
#include "softmax/affine.h"
#include "softmax/cut.h"
#include "softmax/labels.h"
#include "softmax/statistics.h"
#include "softmax/stats.h"
#include "softmax/tile.h"

#ifndef XENT_SOFTMAX_H
#define XENT_SOFTMAX_H

/* |d| from which e^-d leaves the range of a double with any scale exponent; the exponential takes up to 2800. */
#define FAR_AWAY 2700.0

static void KERNEL(softmax_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *losses)
{
    NAME(stats) s;
    NAME(affine) f;
    (void)losses;
    KERNEL(statistics_wanted)(t, positions->classes, &s, PROBABILITIES);
    NAME(make_affine)(&f, &s, NULL, NULL, t->n);
    KERNEL(exp_map)(t, positions, NULL, &f, &s);
}

static void KERNEL(logsumexp_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *losses)
{
    NAME(stats) s;
    T *result = (T *)((const xent_softmax_args *)positions)->result + t->first;
    (void)losses;
    KERNEL(statistics_wanted)(t, positions->classes, &s, LOGARITHMS);
    for (ptrdiff_t p = 0; p < t->n; p += LANES) NAME(store)(result + p, NAME(logsumexps)(&s, p), t->n - p);
}

/* ---- log |sum_c b_c e^x_c| and its sign, with b as the target ---- */

#ifndef STORED_AS_16
ALWAYS_INLINE void NAME(add_weighted)(NAME(sum) *sum, V *most, V e, V b)
{
    const V zero = {0}, counted = v_select(m_eq(b, zero), zero, e); /* a term with b = 0 is no term, NaN or not */
    *most = v_max(counted, *most);
#if XENT_REAL == 32
    sum->a = v_fma(v_widen_lo(counted), v_widen_lo(b), sum->a),
    sum->b = v_fma(v_widen_hi(counted), v_widen_hi(b), sum->b);
#else
    sum_add_f64(sum, counted * b);
#endif
}

/* The sums of a tile, in units of its exponentials, and the largest of these that is in one. */
SHARED
__attribute__((noinline)) void NAME(weighted_sums)(const NAME(tile) *t, ptrdiff_t classes, double *total, T *most)
{
    const V zero = {0};
    for (ptrdiff_t p = 0; t->lanes_are_positions && p < t->n; p += LANES) {
        NAME(sum) sum = {{0}, {0}};
        V largest = zero;
        for (ptrdiff_t c = 0; c < classes; c++)
            NAME(add_weighted)(&sum, &largest, v_load(t->exps + c * t->exps_step + p),
                               NAME(load)(t->target + c * t->target_step + p, t->n - p, zero));
        NAME(sum_lanes)(&sum, total + p, NULL), v_store(most + p, largest);
    }
    for (ptrdiff_t p = 0; !t->lanes_are_positions && p < t->n; p++) {
        const T *e = t->exps + p * t->exps_step, *b = t->target + p * t->target_step;
        NAME(row_sum) sum;
        V largest = zero;
        NAME(start_row_sum)(&sum);
        for (ptrdiff_t c = 0; c < classes; c += ROW_LANES)
            for (int w = 0; w < WAYS; w++) {
                const ptrdiff_t at = c + w * LANES;
                NAME(add_weighted)(&sum.way[w], &largest, v_load(e + at), NAME(load_part)(b + at, classes - at, zero));
            }
        total[p] = NAME(row_total)(&sum), most[p] = v_reduce_max(largest);
    }
}

#if XENT_REAL == 64
/* From the sums of positions their logarithms, and whether each is beyond this: where it is no finite number or hardly a
 * normal one, and where the largest logit is far above those with a factor, so that exponentials may have lost digits. */
PER_TILE void logs_of_sums(double *total, const double *most, const double *max_logit, ptrdiff_t n, int signs,
                           double *logs, int *beyond)
{
    const double least = ldexp(1.0, -60);
    for (ptrdiff_t p = n; p % LANES; p++) total[p] = 1;
    for (ptrdiff_t p = 0; p < n; p += LANES) {
        const vf64 sum = v_load(total + p);
        v_store(logs + p, log_f64(signs ? v_abs(sum) : sum));
    }
    for (ptrdiff_t p = 0; p < n; p++) {
        const int plain = isfinite(total[p]) && (total[p] == 0 || fabs(total[p]) >= 0x1p-960);
        beyond[p] = !isfinite(max_logit[p]) || !plain || !(most[p] >= least);
    }
}
#endif

PER_TILE void NAME(weighted_logsumexp_tile)(const xent_positions *positions, const NAME(tile) *t, row_sum_f64 *losses)
{
    const xent_softmax_args *a = (const xent_softmax_args *)positions;
    const double unit = ldexp(1.0, FIRST_SCALE_EXPONENT);
    double total[TILE], largest[TILE] = {0}, max_logit[TILE] = {0}, logs[TILE];
    T most[TILE];
    int beyond[TILE];
    (void)losses;
    NAME(weighted_sums)(t, positions->classes, total, most);
    for (ptrdiff_t p = 0; p < t->n; p++) total[p] *= unit, largest[p] = most[p] * unit, max_logit[p] = t->max_logit[p];
    logs_of_sums(total, largest, max_logit, t->n, a->sign != NULL, logs, beyond);
    if (KERNEL(leaves)(beyond, t->n, t->left)) return;
    for (ptrdiff_t p = 0; p < t->n; p++) {
        ((T *)a->result)[t->first + p] = (T)(t->moved[p] + logs[p]);
        if (a->sign) ((T *)a->sign)[t->first + p] = (T)((total[p] > 0) - (total[p] < 0));
    }
}
#endif

static void KERNEL(weighted_logsumexp)(const void *args, ptrdiff_t chunk, void *scratch)
{
    KERNEL(for_tiles)((const xent_positions *)args, chunk, scratch,
                      (KERNEL(functions)){.plain = NULL, .packed = NAME(weighted_logsumexp_tile)});
}

/* ---- two inputs: out_c = f(x_c, g_c, numbers of the position) ---- */

/* The pointwise functions: x is the logits or y, g the incoming gradient, m and q numbers of the position. */
ALWAYS_INLINE V KERNEL(log_softmax_point)(V x, V g, V m, V q)
{
    (void)g;
    return (x - m) - q;
}
ALWAYS_INLINE V KERNEL(softmax_backward_point)(V y, V g, V m, V q)
{
    (void)m;
    return y * (g - q);
}
ALWAYS_INLINE V KERNEL(log_softmax_backward_point)(V y, V g, V m, V q)
{
    (void)m;
    return g - NAME(exp)(y) * q;
}
typedef V (*KERNEL(point))(V x, V g, V m, V q);

/* out_i = f(x_i, g_i, m_i, q_i) of n neighbours from i on, at most a vector. */
typedef struct {
    const S *x, *g;  /* g may be NULL */
    const T *logits; /* x as it was kept, or NULL */
    S *out;
    const T *m, *q;
    int rows;                 /* m and q are one number each */
    const S *next_x, *next_g; /* what is fetched meanwhile, or NULL */
    const S *x_end, *g_end;   /* of rows: up to where there are numbers, or NULL */
} KERNEL(point_line);

ALWAYS_INLINE V KERNEL(point_value)(const KERNEL(point_line) *l, ptrdiff_t i, ptrdiff_t n, KERNEL(point) point)
{
    const V zero = {0};
    const V m = l->rows ? NAME(set)(*l->m) : v_load(l->m + i), q = l->rows ? NAME(set)(*l->q) : v_load(l->q + i);
    const V x = l->logits ? v_load(l->logits + i) : KERNEL(load)(l->x + i, n, zero);
    return point(x, l->g ? KERNEL(load)(l->g + i, n, zero) : zero, m, q);
}

/* Rows from here on are stored at whole vectors: what lies before the first of these takes a vector more. */
#define ALIGNED_ROW (16 * LANES)

/* `point` is a constant at every call and is inlined. The first and the last vector overlap others, and what they are made
 * of is read before these are stored, if the result replaces it. */
ALWAYS_INLINE void KERNEL(point_line_map)(const KERNEL(point_line) *l, ptrdiff_t n, int streams, KERNEL(point) point)
{
    if (n < LANES) {
        KERNEL(store)(l->out, KERNEL(point_value)(l, 0, n, point), n);
        return;
    }
    ptrdiff_t i = l->rows && n >= ALIGNED_ROW ? KERNEL(until_aligned)(l->out) : 0;
    const int overlaps = (n - i) % LANES != 0;
    V first = {0}, last = {0};
    if (overlaps) last = KERNEL(point_value)(l, n - LANES, LANES, point);
    if (i > 0) {
        const V second = KERNEL(point_value)(l, i, LANES, point);
        first = KERNEL(point_value)(l, 0, LANES, point);
        KERNEL(store)(l->out, first, LANES), KERNEL(store)(l->out + i, second, LANES), i += LANES;
    }
    for (; streams && KERNEL(until_aligned)(l->out + i) == 0 && i + LANES <= n; i += LANES)
        KERNEL(store_aligned)(l->out + i, KERNEL(point_value)(l, i, LANES, point), 1);
    for (; i + LANES <= n; i += LANES) {
        if (l->next_x) PREFETCH(l->next_x, i, 0), PREFETCH(l->next_g, i, 0);
        KERNEL(store)(l->out + i, KERNEL(point_value)(l, i, LANES, point), LANES);
    }
    if (overlaps) KERNEL(store)(l->out + n - LANES, last, LANES);
}

/* Line j of a tile, a row or a class, with the numbers m and q of its position or positions. `rows` is a constant. */
ALWAYS_INLINE KERNEL(point_line)
    KERNEL(point_line_of)(const KERNEL(tile) *t, ptrdiff_t j, const T *m, const T *q, int rows)
{
    return (KERNEL(point_line)){.x = t->x + j * t->x_step,
                                .g = t->grad_in ? t->grad_in + j * t->target_step : NULL,
                                .logits = t->logits ? t->logits + j * t->exps_step : NULL,
                                .out = t->out + j * t->out_step,
                                .m = m,
                                .q = q,
                                .rows = rows};
}

ALWAYS_INLINE void KERNEL(rows_point_map)(const KERNEL(tile) *t, ptrdiff_t classes, const T *m, const T *q,
                                          KERNEL(point) point)
{
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const KERNEL(point_line) l = KERNEL(point_line_of)(t, p, m + p, q + p, 1);
        KERNEL(point_line_map)(&l, classes, t->streams, point);
    }
}

/* `fetches`, a constant: whether numbers that are read are fetched before, too. */
ALWAYS_INLINE void KERNEL(columns_point_map)(const KERNEL(tile) *t, ptrdiff_t classes, const T *m, const T *q,
                                             int fetches, KERNEL(point) point)
{
    for (ptrdiff_t c = 0; c < classes; c++) {
        const KERNEL(point_line) l = KERNEL(point_line_of)(t, c, m, q, 0);
        if (KERNEL(far_apart)(t) && fetches) KERNEL(fetch_classes)(t, c, !t->logits);
        if (KERNEL(far_apart)(t) && !fetches && !t->streams)
            KERNEL(fetch_class)(t->out, t->out_step, c + CLASSES_AHEAD, t->n);
        KERNEL(point_line_map)(&l, t->n, t->streams, point);
    }
}

/* Rows of a tile whose lanes are positions. The last piece of a row may overlap the one before: it is read before that
 * is overwritten, if the result replaces the logits. */
static void KERNEL(log_softmax_transposed)(const KERNEL(tile) *t, ptrdiff_t classes, const NAME(stats) *s)
{
    ptrdiff_t p = 0;
    for (; p + LANES <= t->n && classes >= PIECE; p += LANES) {
        const V m = v_load(s->max_logit + p), log_total = v_load(s->log_total + p);
        const S *x = t->x + p * t->x_step;
        S *out = t->out + p * t->out_step;
        V v[PIECE], last[PIECE];
        KERNEL(load_transposed)(x + classes - PIECE, t->x_step, last);
        for (ptrdiff_t c = 0; c + PIECE < classes; c += PIECE) {
            KERNEL(load_transposed)(x + c, t->x_step, v);
            for (int k = 0; k < PIECE; k++) v[k] = KERNEL(log_softmax_point)(v[k], v[k], m, log_total);
            KERNEL(store_transposed)(out + c, t->out_step, v);
        }
        for (int k = 0; k < PIECE; k++) last[k] = KERNEL(log_softmax_point)(last[k], last[k], m, log_total);
        KERNEL(store_transposed)(out + classes - PIECE, t->out_step, last);
    }
    for (; p < t->n; p++)
        for (ptrdiff_t c = 0; c < classes; c++)
            KERNEL(put)(t->out + p * t->out_step + c,
                        (KERNEL(get)(t->x + p * t->x_step + c) - s->max_logit[p]) - s->log_total[p]);
}

/* Rows of so many classes are not transposed once more: what is left to do of them is two subtractions. AVX2 gained from 40
 * floats on up to 5 %, AVX-512 from 33 floats and 20 doubles on up to 19 %. */
#define LINE_BY_LINE 40

static void KERNEL(log_softmax_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *losses)
{
    NAME(stats) s;
    (void)losses;
    KERNEL(statistics_wanted)(t, positions->classes, &s, LOGARITHMS);
    if (KERNEL(transposed)(t) && positions->classes < LINE_BY_LINE)
        KERNEL(log_softmax_transposed)(t, positions->classes, &s);
    else if (t->rows)
        KERNEL(rows_point_map)(t, positions->classes, s.max_logit, s.log_total, KERNEL(log_softmax_point));
    else
        KERNEL(columns_point_map)(t, positions->classes, s.max_logit, s.log_total, 1, KERNEL(log_softmax_point));
}

/* g_c, or y_c g_c, of n classes from c on, at most a vector, and 0 behind them. */
ALWAYS_INLINE V KERNEL(summand)(const KERNEL(point_line) *l, ptrdiff_t c, ptrdiff_t n, int times_y)
{
    const V zero = {0}, g = n > 0 ? KERNEL(load_row)(l->g + c, n, l->g_end, zero) : zero;
    return times_y && n > 0 ? g * KERNEL(load_row)(l->x + c, n, l->x_end, zero) : g;
}

/* Vectors, pairwise. */
ALWAYS_INLINE V KERNEL(group_sum)(V v[GROUP])
{
    for (int n = GROUP / 2; n > 0; n /= 2)
        for (int i = 0; i < n; i++) v[i] = v[2 * i] + v[2 * i + 1];
    return v[0];
}

/* Their sum over the classes of a row. GROUP vectors are added pairwise before they reach the wide sum: half an ulp
 * three times, which with the product, the sum, the exponential and the result is less than the four ulps that there may
 * be. `grouped` is a constant. */
ALWAYS_INLINE double KERNEL(sum_of_row)(const KERNEL(point_line) *l, ptrdiff_t classes, int streams, int times_y,
                                        int grouped)
{
    NAME(row_sum) sum;
    ptrdiff_t c = 0;
    NAME(start_row_sum)(&sum);
    for (; grouped && c + ROW_GROUP <= classes; c += ROW_GROUP) {
        for (int w = 0; w < WAYS; w++) {
            V v[GROUP];
            for (int i = 0; i < GROUP; i++) v[i] = KERNEL(summand)(l, c + i * ROW_LANES + w * LANES, LANES, times_y);
            NAME(sum_add)(&sum.way[w], KERNEL(group_sum)(v));
        }
        if (!streams) KERNEL(fetch)(l->out + c, ROW_GROUP);
    }
    for (; c < classes; c += ROW_LANES)
        for (int w = 0; w < WAYS; w++) {
            const ptrdiff_t at = c + w * LANES;
            NAME(sum_add)(&sum.way[w], KERNEL(summand)(l, at, classes - at, times_y));
        }
    return NAME(row_total)(&sum);
}

/* The same where a group has left the range, and the sum perhaps has not. */
static
    __attribute__((noinline)) double KERNEL(sum_in_range)(const KERNEL(point_line) *l, ptrdiff_t classes, int times_y)
{
    return KERNEL(sum_of_row)(l, classes, 1, times_y, 0);
}

/* ---- columns ---- */

/* The sum of one position, where a group has left the range: `count` numbers that lie a step apart. */
SELDOM double KERNEL(column_sum_in_range)(const S *x, ptrdiff_t x_step, const S *g, ptrdiff_t g_step, ptrdiff_t count,
                                          int times_y)
{
    double total = 0, error = 0;
    for (ptrdiff_t c = 0; c < count; c++) {
        const T one = KERNEL(get)(g + c * g_step), term = times_y ? one * (T)KERNEL(get)(x + c * x_step) : one;
        two_sum_add(&total, &error, term);
    }
    return isfinite(total) ? total + error : total;
}

/* g_c, or y_c g_c, of n positions from p on, at most a vector. */
ALWAYS_INLINE V KERNEL(summands)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t c, ptrdiff_t n, int times_y)
{
    const V zero = {0}, g = KERNEL(load)(t->grad_in + c * t->target_step + p, n, zero);
    return times_y ? g * KERNEL(load)(t->x + c * t->x_step + p, n, zero) : g;
}

/* Their sum over some classes from c on, of which there are 1, 2, 4, or GROUP = 8, a constant: pairwise. */
ALWAYS_INLINE V KERNEL(pairwise)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t c, int classes, ptrdiff_t n, int times_y)
{
    V v[GROUP];
    for (int k = 0; k < classes; k++) v[k] = KERNEL(summands)(t, p, c + k, n, times_y);
    for (int k = classes / 2; k > 0; k /= 2)
        for (int i = 0; i < k; i++) v[i] = v[2 * i] + v[2 * i + 1];
    return v[0];
}

/* Add those of some classes from c on, GROUP at most, to their sums, which begin with class 0. */
ALWAYS_INLINE void KERNEL(add_classes)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t c, ptrdiff_t classes, ptrdiff_t n,
                                       NAME(sum) *sums, int times_y)
{
    NAME(sum) sum = {{0}, {0}};
    if (c > 0) sum = *sums;
    if (classes == GROUP) NAME(sum_add)(&sum, KERNEL(pairwise)(t, p, c, GROUP, n, times_y));
    if (classes & 4) NAME(sum_add)(&sum, KERNEL(pairwise)(t, p, c, 4, n, times_y)), c += 4;
    if (classes & 2) NAME(sum_add)(&sum, KERNEL(pairwise)(t, p, c, 2, n, times_y)), c += 2;
    if (classes & 1) NAME(sum_add)(&sum, KERNEL(pairwise)(t, p, c, 1, n, times_y));
    *sums = sum;
}

/* Where vector i of n positions begins: the last one may overlap the one before, as each lane is a position of its own. */
ALWAYS_INLINE ptrdiff_t KERNEL(vector_at)(ptrdiff_t i, ptrdiff_t n)
{
    return xent_max(xent_min(i * LANES, n - LANES), 0);
}

/* Columns: GROUP classes at a time, which streams through memory. They are added up pairwise, as those of rows. */
ALWAYS_INLINE void KERNEL(sum_of_columns)(const KERNEL(tile) *t, ptrdiff_t classes, T *result, int times_y)
{
    const ptrdiff_t n = t->n, vectors = xent_ceil_div(n, LANES);
    const V infinity = NAME(set)((T)INFINITY);
    NAME(sum) sums[MOST_COLUMNS / LANES];
    /* Short stretches one behind the other, beyond an L1 cache: the processor sees many streams that end soon, in the place
     * of one. Of stretches that lie far apart those it fetches itself are enough: more took 1.2 times as long. */
    const int fetches = !KERNEL(far_apart)(t) && n * classes * (ptrdiff_t)sizeof(S) > EXPS_BYTES;
    for (ptrdiff_t c = 0; c < classes; c += GROUP) {
        const ptrdiff_t count = xent_min(classes - c, GROUP);
        for (ptrdiff_t k = c + GROUP; fetches && k < c + 2 * GROUP; k++) {
            KERNEL(fetch_class)(t->grad_in, t->target_step, k, n);
            if (times_y) KERNEL(fetch_class)(t->x, t->x_step, k, n);
        }
        for (ptrdiff_t i = 0; n >= LANES && i < vectors; i++)
            KERNEL(add_classes)(t, KERNEL(vector_at)(i, n), c, count, LANES, sums + i, times_y);
        if (n < LANES) KERNEL(add_classes)(t, 0, c, count, n, sums, times_y);
    }
    for (ptrdiff_t i = 0; i < vectors; i++) {
        const ptrdiff_t p = KERNEL(vector_at)(i, n);
        double lanes[LANES];
        NAME(sum_lanes)(sums + i, lanes, NULL);
        const V total = NAME(joined)(v_load(lanes), v_load(lanes + LANES - LANES_F64));
        v_store(result + p, total);
        if (m_any((VM)~m_gt(infinity, v_abs(total))))
            for (ptrdiff_t k = p; k < xent_min(p + LANES, n); k++)
                if (!isfinite(result[k]))
                    result[k] = (T)KERNEL(column_sum_in_range)(t->x + k, t->x_step, t->grad_in + k, t->target_step,
                                                               classes, times_y);
    }
}

/* ---- columns of few positions that touch each other ----
 *
 * All numbers of these are a line, of which each number belongs to the same position as the one `few` after it; and a vector,
 * lane by lane, as the one `few` vectors after it. */

/* A sum of vectors in memory, and a summand more. */
ALWAYS_INLINE void KERNEL(add_in_memory)(double *at, V v)
{
    NAME(sum) sum = {.a = v_load(at), .b = v_load(at + LANES_F64)};
    NAME(sum_add)(&sum, v);
    v_store(at, sum.a), v_store(at + LANES_F64, sum.b);
}

/* Where number i of such sums lies; those of doubles have what rounding left of them LANES behind them. */
#define SUM_PLACE(i) ((i) / LANES * 2 * LANES_F64 + (i) % LANES)

/* The sums of the positions, each in all places that belong to it, of ROW_LANES classes: bit for bit those of rows. */
static __attribute__((noinline)) void KERNEL(flat_sums)(const KERNEL(point_line) *l, ptrdiff_t few, ptrdiff_t n,
                                                        int times_y, T *q)
{
    const ptrdiff_t apart = few * ROW_LANES, vectors = few * WAYS;
    double sums[2 * LANES_F64 * WAYS * LINE_COLUMNS];
    ptrdiff_t first = 0;
    memset(sums, 0, (size_t)(2 * LANES_F64 * vectors) * sizeof *sums);
    for (; first + GROUP * apart <= n; first += GROUP * apart)
        for (ptrdiff_t w = 0; w < vectors; w++) {
            V v[GROUP];
            for (int i = 0; i < GROUP; i++) v[i] = KERNEL(summand)(l, first + w * LANES + i * apart, LANES, times_y);
            KERNEL(add_in_memory)(sums + 2 * LANES_F64 * w, KERNEL(group_sum)(v));
        }
    for (ptrdiff_t w = 0; first < n; first += LANES, w = w + 1 < vectors ? w + 1 : 0)
        KERNEL(add_in_memory)(sums + 2 * LANES_F64 * w, KERNEL(summand)(l, first, n - first, times_y));
    for (ptrdiff_t p = 0; p < few; p++) {
        double lanes[2 * LANES_F64 * WAYS];
        NAME(row_sum) sum;
        for (ptrdiff_t k = 0; k < ROW_LANES; k++) {
            lanes[SUM_PLACE(k)] = sums[SUM_PLACE(p + k * few)];
            if (XENT_REAL == 64) lanes[SUM_PLACE(k) + LANES_F64] = sums[SUM_PLACE(p + k * few) + LANES_F64];
        }
        for (int w = 0; w < WAYS; w++)
            sum.way[w] =
                (NAME(sum)){.a = v_load(lanes + 2 * LANES_F64 * w), .b = v_load(lanes + 2 * LANES_F64 * w + LANES_F64)};
        const double total = NAME(row_total)(&sum);
        const T put =
            (T)(isfinite(total) ? total : KERNEL(column_sum_in_range)(l->x + p, few, l->g + p, few, n / few, times_y));
        for (int k = 0; k < ROW_LANES; k++) q[p + k * few] = put;
    }
}
#undef SUM_PLACE

ALWAYS_INLINE void KERNEL(flat_backward)(const KERNEL(tile) *t, ptrdiff_t classes, int times_y, KERNEL(point) point)
{
    const ptrdiff_t few = t->run ? t->run : t->n, n = few * classes;
    T q[LINE_COLUMNS * ROW_LANES];
    for (ptrdiff_t k = 0; k < t->n / few; k++) {
        KERNEL(point_line)
        l = {.x = t->x + k * t->x_apart, .g = t->grad_in + k * t->target_apart, .out = t->out + k * t->out_apart};
        l.x_end = l.x + n, l.g_end = l.g + n;
        KERNEL(flat_sums)(&l, few, n, times_y, q);
        for (ptrdiff_t i = 0, place = 0; i < n; i += LANES) {
            const V zero = {0}, sum = v_load(q + place);
            const V y = KERNEL(load_part)(l.x + i, n - i, zero), g = KERNEL(load_part)(l.g + i, n - i, zero);
            KERNEL(store)(l.out + i, point(y, g, sum, sum), n - i);
            place = place + LANES < few * ROW_LANES ? place + LANES : 0;
        }
    }
}

/* A row that is fetched while the one before is written: two of either operand and the result fit an L2 cache of
 * 1 MiB. */
#define FETCHED_ROW_BYTES ((1 << 20) / 5)

/* Results that are `point` of each number and the sum over the classes of g, or of y g where `times_y`: of rows one by
 * one, as the next ones would drive them from the L1 cache; */
ALWAYS_INLINE void KERNEL(rows_backward)(const KERNEL(tile) *t, ptrdiff_t classes, int times_y, KERNEL(point) point)
{
    const int fetches = classes <= FETCHED_ROW_BYTES / (ptrdiff_t)sizeof(S);
    const S *x_end = t->x + (t->n - 1) * t->x_step + classes,
            *g_end = t->grad_in + (t->n - 1) * t->target_step + classes;
    for (ptrdiff_t p = 0; p < t->n; p++) {
        T q;
        KERNEL(point_line) l = KERNEL(point_line_of)(t, p, &q, &q, 1);
        if (fetches) l.next_x = l.x + t->x_step, l.next_g = l.g + t->target_step;
        l.x_end = x_end, l.g_end = g_end;
        const double sum = KERNEL(sum_of_row)(&l, classes, t->streams, times_y, 1);
        q = (T)(isfinite(sum) ? sum : KERNEL(sum_in_range)(&l, classes, times_y));
        KERNEL(point_line_map)(&l, classes, t->streams, point);
    }
}

/* and of columns run by run. */
ALWAYS_INLINE void KERNEL(columns_backward)(const KERNEL(tile) *t, ptrdiff_t classes, int times_y, KERNEL(point) point)
{
    KERNEL(tile) part = *t;
    T q[MOST_COLUMNS];
    for (ptrdiff_t done = 0; done < t->n; done += part.n) {
        part.n = t->run ? t->run : t->n;
        KERNEL(sum_of_columns)(&part, classes, q, times_y);
        KERNEL(columns_point_map)(&part, classes, q, q, 0, point);
        part.x += t->x_apart, part.grad_in += t->target_apart, part.out += t->out_apart;
    }
}

ALWAYS_INLINE void KERNEL(backward)(const xent_positions *positions, const KERNEL(tile) *t, int times_y,
                                    KERNEL(point) point)
{
    if (xent_is_flat(positions, sizeof(T)))
        KERNEL(flat_backward)(t, positions->classes, times_y, point);
    else if (t->rows)
        KERNEL(rows_backward)(t, positions->classes, times_y, point);
    else
        KERNEL(columns_backward)(t, positions->classes, times_y, point);
}

/* y = softmax(x):      dL/dx_j = sum_c g_c y_c ([c == j] - y_j) = y_j (g_j - sum_c g_c y_c) */
static void KERNEL(softmax_backward_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *losses)
{
    (void)losses;
    KERNEL(backward)(positions, t, 1, KERNEL(softmax_backward_point));
}

/* y = log_softmax(x):  dL/dx_j = sum_c g_c ([c == j] - e^y_j) = g_j - e^y_j sum_c g_c */
static void KERNEL(log_softmax_backward_tile)(const xent_positions *positions, const KERNEL(tile) *t,
                                              row_sum_f64 *losses)
{
    (void)losses;
    KERNEL(backward)(positions, t, 0, KERNEL(log_softmax_backward_point));
}

/* y = logsumexp(x):    dL/dx_c = g e^(x_c - y)            g, y: one of each position
 *
 * y may be that of more than these x (of all parts of a position), so the exponentials are taken as for the
 * softmax, and e^(shift - y) 2^scale_exponent = inverse * unit takes the place of what their sum would give:
 * inverse = e^-d 2^n with d = y - shift = n ln 2 + r. Where y is not finite, or a logit is +inf, all results are NaN. */
static void KERNEL(logsumexp_backward_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *losses)
{
    const xent_softmax_args *a = (const xent_softmax_args *)positions;
    double upstream[TILE], distance[TILE], exponent[TILE];
    NAME(stats) s;
    NAME(affine) f;
    (void)losses;
    KERNEL(statistics_wanted)(t, positions->classes, &s, PROBABILITIES);
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const double y = a->log_sums[t->first + p], d = y - s.shift[p];
        upstream[p] = a->upstream[t->first + p];
        distance[p] = isfinite(y) ? d < -FAR_AWAY ? -FAR_AWAY : d > FAR_AWAY ? FAR_AWAY : d : 0;
        exponent[p] = rint(distance[p] * M_LOG2E);
    }
    for (ptrdiff_t p = t->n; p % LANES_F64; p++) distance[p] = exponent[p] = 0;
    for (ptrdiff_t p = 0; p < t->n; p += LANES_F64)
        v_store(s.inverse + p, exp_scaled_f64(-v_load(distance + p), scale_of_f64(-v_load(exponent + p))));
    for (ptrdiff_t p = 0; p < t->n; p++) {
        s.unit[p] = ldexp(1.0, (int)((double)s.scale_exponent[p] + -exponent[p]));
        if (s.max_logit[p] == (T)INFINITY || !isfinite(a->log_sums[t->first + p])) s.inverse[p] = NAN;
    }
    NAME(make_affine)(&f, &s, upstream, NULL, t->n);
    KERNEL(exp_map)(t, positions, NULL, &f, &s);
}

TILE_KERNEL(softmax)
TILE_KERNEL(log_softmax)
TILE_KERNEL(logsumexp)
TILE_KERNEL(softmax_backward)
TILE_KERNEL(log_softmax_backward)
TILE_KERNEL(logsumexp_backward)

#endif
