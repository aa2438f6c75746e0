/* cross_entropy.h: softmax cross-entropy, value and gradient, from the statistics of a tile (statistics.h).
 *
 * With the dense target u_c = w_c (mix t_c + base), U = sum_c u_c, and the index target of mass d = peak * w_y at
 * label y:
 *
 *   loss = sum_c u_c (-log p_c) + d (-log p_y)
 *        = sum_c u_c (m - x_c) + U log1p(R) + d ((m - x_y) + log1p(R))
 *
 *   d(-log p_c)/dx_j = p_j - [c == j], so
 *   g_j  = s [ (U + d) p_j - u_j - d [j == y] ]                              s: the upstream gradient
 *   g_y  = s [ d (p_y - 1) + (U p_y - u_y) ]                                 the entry whose p_y - 1 would cancel
 *
 *   g_m  = s [ (U - u_m) - u_m R ] / (1 + R)                                 the largest logit, of a dense target alone
 *
 *   index target             mix 0, base 0,     peak 1           label smoothing e:  base e / C, peak 1 - e
 *   probability target       mix 1, base 0,     no label         label smoothing e:  mix 1 - e, base e / C
 *
 * The focal factor f = (1 - p_y)^gamma of the label's term, with q = 1 - p_y, l = -log p_y,
 * dp_y/dx_j = p_y ([j == y] - p_j):
 *
 *   d(q^gamma l)/dx_j = q^gamma (p_j - [j == y]) - gamma q^(gamma - 1) l p_y ([j == y] - p_j)
 *                     = q^gamma (1 + gamma p_y l / q) (p_j - [j == y])       l / q -> 1 as q -> 0
 *
 * only replaces d by d q^gamma in the loss and by d q^gamma (1 + gamma p_y l / q) in the gradient. The z-loss z L^2
 * with L = logsumexp and dL/dx_j = p_j adds 2 z L p_j to the gradient. Focal loss: T.-Y. Lin et al.,
 * doi:10.1109/ICCV.2017.324.
 *
 * A weight or mass of 0 means that its term is not there, NaN included: `absent` positions, all of whose terms are, have
 * loss and gradient 0.
 *
 * Factors are ordinary here, as the bridge sees to (loss.pxi): no product of them leaves the range of a double, and none
 * makes a number that counts of an exponential that vanished. What depends on the logits is seen in the tile: `leaves`.
 *
 * Second derivatives are a multiple of (U + d) p_j (1 - p_j), which is the diagonal of the Hessian, or |g_j|. With gamma, a
 * cap or a z-loss they are more than that, and so is the gradient of a dense target with gamma: curved.h.
 */
#include "begin.h"
#include "simd/exp.h"
#include "simd/pow.h"
#include "simd/stored.h"
#include "simd/sums.h"
#include "softmax/affine.h"
#include "softmax/curved.h"
#include "softmax/cut.h"
#include "softmax/labels.h"
#include "softmax/statistics.h"
#include "softmax/stats.h"
#include "table.h"

#include <float.h>

#ifndef XENT_CROSS_ENTROPY_H
#define XENT_CROSS_ENTROPY_H

/* sum_c u_c (m - x_c) and U of one position (rows) or a vector of positions (columns); 0 * infinity counts as 0. */
ALWAYS_INLINE void KERNEL(dense_add)(NAME(sum) *loss, NAME(sum) *mass, V u, V gap)
{
    const V zero = {0}, infinity = NAME(set)((T)INFINITY);
    const V finite_gap = v_select(m_eq(gap, infinity), v_select(m_eq(u, zero), zero, gap), gap);
    NAME(sum_add)(loss, u * finite_gap);
    NAME(sum_add)(mass, u);
}

/* base (m - x_c) of n neighbours for GROUP vectors a step apart, all of one sign: added pairwise before they reach the
 * wide sum. Past the end the term is 0. */
ALWAYS_INLINE void KERNEL(uniform_group)(const S *x, ptrdiff_t step, ptrdiff_t n, V base, V m, NAME(sum) *sum)
{
    V term[GROUP];
    for (int k = 0; k < GROUP; k++) term[k] = base * (m - KERNEL(load)(x + k * step, n, m));
    for (int half = GROUP / 2; half > 0; half /= 2)
        for (int k = 0; k < half; k++) term[k] = term[k] + term[k + half];
    NAME(sum_add)(sum, term[0]);
}

/* The terms of a dense target that is `base` for all classes of all positions: label smoothing without class weights. */
static void KERNEL(uniform_terms)(const xent_dense *dense, ptrdiff_t classes, const KERNEL(tile) *t,
                                  const NAME(stats) *s, double *loss, double *mass)
{
    const V base = NAME(set)((T)dense->base);
    for (ptrdiff_t p = 0; t->rows && p < t->n; p++) {
        const S *x = t->x + p * t->x_step;
        const V m = NAME(set)(s->max_logit[p]);
        NAME(row_sum) sum;
        NAME(start_row_sum)(&sum);
        ptrdiff_t c = 0;
        for (; c + ROW_GROUP <= classes; c += ROW_GROUP)
            for (int w = 0; w < WAYS; w++)
                KERNEL(uniform_group)(x + c + w * LANES, ROW_LANES, LANES, base, m, &sum.way[w]);
        for (; c < classes; c += ROW_LANES)
            for (int w = 0; w < WAYS; w++) {
                const ptrdiff_t at = c + w * LANES;
                NAME(sum_add)(&sum.way[w], base * (m - KERNEL(load_part)(x + at, classes - at, m)));
            }
        loss[p] = NAME(row_total)(&sum);
    }
    for (ptrdiff_t p = 0; !t->rows && p < t->n; p += LANES) {
        const S *x = t->x + p;
        const ptrdiff_t n = xent_min(LANES, t->n - p), step = t->x_step;
        const V m = v_load(s->max_logit + p);
        NAME(sum) sum = {{0}, {0}};
        ptrdiff_t c = 0;
        for (; c + GROUP <= classes; c += GROUP) KERNEL(uniform_group)(x + c * step, step, n, base, m, &sum);
        for (; c < classes; c++) NAME(sum_add)(&sum, base * (m - KERNEL(load)(x + c * step, n, m)));
        NAME(sum_lanes)(&sum, loss + p, NULL);
    }
    for (ptrdiff_t p = 0; p < t->n; p++) mass[p] = (double)(T)dense->base * (double)classes;
}

static void KERNEL(dense_terms)(const xent_dense *dense, ptrdiff_t classes, const KERNEL(tile) *t, const NAME(stats) *s,
                                double *loss, double *mass)
{
    const KERNEL(dense_target) d = KERNEL(dense_target_of)(dense);
    const V zero = {0}, one = NAME(set)(1);
    for (ptrdiff_t p = 0; t->rows && p < t->n; p++) {
        const S *x = t->x + p * t->x_step, *target = t->target ? t->target + p * t->target_step : NULL;
        const V m = NAME(set)(s->max_logit[p]);
        NAME(row_sum) sums[2];
        NAME(start_row_sum)(sums), NAME(start_row_sum)(sums + 1);
        for (ptrdiff_t first = 0; first < classes; first += ROW_LANES)
            for (int w = 0; w < WAYS; w++) {
                const ptrdiff_t c = first + w * LANES, n = xent_min(LANES, classes - c);
                if (n <= 0) break;
                /* past the end the weight is 0, and with it u */
                const V weight = d.weight     ? NAME(load)(d.weight + c, n, zero)
                                 : n == LANES ? one
                                              : v_select(NAME(first)(n), one, zero);
                const V u = KERNEL(target_value)(&d, weight, target ? KERNEL(load)(target + c, n, zero) : zero);
                KERNEL(dense_add)(&sums[0].way[w], &sums[1].way[w], u, m - KERNEL(load)(x + c, n, m));
            }
        loss[p] = NAME(row_total)(sums), mass[p] = NAME(row_total)(sums + 1);
    }
    for (ptrdiff_t p = 0; !t->rows && p < t->n; p += LANES) {
        const ptrdiff_t n = xent_min(LANES, t->n - p);
        NAME(sum) sums[2] = {{{0}, {0}}, {{0}, {0}}};
        for (ptrdiff_t c = 0; c < classes; c++) {
            const V target = t->target ? KERNEL(load)(t->target + p + c * t->target_step, n, zero) : zero;
            const V u = KERNEL(target_value)(&d, NAME(set)(d.weight ? d.weight[c] : 1), target);
            KERNEL(dense_add)(sums, sums + 1, u,
                              v_load(s->max_logit + p) - KERNEL(load)(t->x + p + c * t->x_step, n, zero));
        }
        NAME(sum_lanes)(sums, loss + p, NULL), NAME(sum_lanes)(sums + 1, mass + p, NULL);
    }
}

#ifndef STORED_AS_16
/* Sizes of a dense target's terms, those of one accumulator. */
typedef struct {
    V loss, mass;
} NAME(sizes);

ALWAYS_INLINE void NAME(size_add)(NAME(sizes) *sum, V u, V gap)
{
    const V zero = {0};
    sum->loss = sum->loss + v_select(m_eq(u, zero), zero, v_abs(u * gap)), sum->mass = sum->mass + v_abs(u);
}

/* About how large the terms of a dense target are, sum_c |u_c| (m - x_c) and sum_c |u_c|: where the loss is made of them
 * elsewhere (curved.h), or not wanted, these say whether it is beyond the arithmetic, and whether anything is there. */
PER_TILE void NAME(dense_sizes)(const xent_dense *dense, ptrdiff_t classes, const NAME(tile) *t, const NAME(stats) *s,
                                double *loss, double *mass)
{
    const NAME(dense_target) d = NAME(dense_target_of)(dense);
    const V zero = {0}, one = NAME(set)(1);
    for (ptrdiff_t p = 0; t->rows && p < t->n; p++) {
        const T *x = t->x + p * t->x_step, *target = t->target ? t->target + p * t->target_step : NULL;
        const V m = NAME(set)(s->max_logit[p]);
        NAME(sizes) sizes[WAYS];
        NAME(row_sum) sums[2];
        memset(sizes, 0, sizeof sizes), NAME(start_row_sum)(sums), NAME(start_row_sum)(sums + 1);
        for (ptrdiff_t first = 0; first < classes; first += ROW_LANES)
            for (int w = 0; w < WAYS; w++) {
                const ptrdiff_t c = first + w * LANES, n = xent_min(LANES, classes - c);
                if (n <= 0) break;
                /* past the end the weight is 0, and with it u */
                const V weight = d.weight     ? NAME(load)(d.weight + c, n, zero)
                                 : n == LANES ? one
                                              : v_select(NAME(first)(n), one, zero);
                const V u = NAME(target_value)(&d, weight, target ? NAME(load)(target + c, n, zero) : zero);
                NAME(size_add)(sizes + w, u, m - NAME(load)(x + c, n, m));
            }
        for (int w = 0; w < WAYS; w++)
            NAME(sum_add)(&sums[0].way[w], sizes[w].loss), NAME(sum_add)(&sums[1].way[w], sizes[w].mass);
        loss[p] = NAME(row_total)(sums), mass[p] = NAME(row_total)(sums + 1);
    }
    for (ptrdiff_t p = 0; !t->rows && p < t->n; p += LANES) {
        const ptrdiff_t n = xent_min(LANES, t->n - p);
        NAME(sizes) sizes = {{0}, {0}};
        NAME(sum) sums[2] = {{{0}, {0}}, {{0}, {0}}};
        for (ptrdiff_t c = 0; c < classes; c++) {
            const V target = t->target ? NAME(load)(t->target + p + c * t->target_step, n, zero) : zero;
            const V u = NAME(target_value)(&d, NAME(set)(d.weight ? d.weight[c] : 1), target);
            NAME(size_add)(&sizes, u, v_load(s->max_logit + p) - NAME(load)(t->x + p + c * t->x_step, n, zero));
        }
        NAME(sum_add)(sums, sizes.loss), NAME(sum_add)(sums + 1, sizes.mass);
        NAME(sum_lanes)(sums, loss + p, NULL), NAME(sum_lanes)(sums + 1, mass + p, NULL);
    }
}
#endif

/* u_c of one class. */
ALWAYS_INLINE double KERNEL(dense_value)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, ptrdiff_t p,
                                         ptrdiff_t c)
{
    const double target =
        t->target ? (double)KERNEL(get)(t->target + KERNEL(element)(t->rows, t->target_step, p, c)) : 0.0;
    const double weight = a->label_weight ? a->label_weight[c] : 1.0;
    return weight == 0 ? 0 : weight * (a->dense.mix * target + a->dense.base);
}

/* The same as the sum over the classes has it: rounded. What is left of that sum without a class must not be a rounding of
 * this one: with a target of one class that is nearly certain, U - u is 0, and the derivative u (1 - p) far less. */
ALWAYS_INLINE double KERNEL(summed_value)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, ptrdiff_t p,
                                          ptrdiff_t c)
{
    const KERNEL(dense_target) d = KERNEL(dense_target_of)(&a->dense);
    const V zero = {0}, weight = NAME(set)(d.weight ? d.weight[c] : 1),
            target = t->target ? NAME(set)((T)KERNEL(get)(t->target + KERNEL(element)(t->rows, t->target_step, p, c)))
                               : zero;
    return (double)KERNEL(target_value)(&d, weight, target)[0];
}

/* The focal factors of a tile. */
static void KERNEL(focal_factors)(double gamma, KERNEL(labels) *y, const NAME(target) *terms, ptrdiff_t n)
{
    double q[TILE], power[TILE];
    for (ptrdiff_t p = 0; p < n; p++) q[p] = -(double)terms->p_minus_1[p];
    for (ptrdiff_t p = n; p % LANES_F64; p++) q[p] = 1;
    for (ptrdiff_t p = 0; p < n; p += LANES_F64) v_store(power + p, v_pow(v_load(q + p), set_f64(gamma)));
    for (ptrdiff_t p = 0; p < n; p++) {
        const double p_y = terms->p[p], l = terms->loss[p];
        y->mass[p] *= power[p];
        y->focal[p] = 1 + gamma * (q[p] == 0 ? 1 : p_y == 0 ? 0 : p_y * l / q[p]);
    }
}

/* Whether no class of a position has a mass: neither its label, if it has one, nor any of a dense target, whose masses
 * add up to 0 then. */
ALWAYS_INLINE int KERNEL(has_no_mass)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, const KERNEL(labels) *y,
                                      const double *dense_mass, ptrdiff_t p)
{
    int found = y->mass[p] != 0 || (dense_mass && dense_mass[p] != 0);
    for (ptrdiff_t c = 0; dense_mass && !found && c < a->positions.classes; c++)
        found = KERNEL(dense_value)(a, t, p, c) != 0;
    return !found;
}

/* absent[p]: whether nothing of a position is there, as it is ignored, or has no weight or mass. Returns whether any is. */
static int KERNEL(find_absent)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, const KERNEL(labels) *y,
                               const double *dense_mass, int *absent)
{
    const double *sample_weight = a->sample_weight ? a->sample_weight + t->first : NULL;
    const ptrdiff_t n = t->n; /* loops of one condition, of which the compiler makes vectors */
    int any = y->ignored;
    if (sample_weight)
        for (ptrdiff_t p = 0; p < n; p++) any |= sample_weight[p] == 0;
    if (a->z_loss == 0 && dense_mass)
        for (ptrdiff_t p = 0; p < n; p++) any |= dense_mass[p] == 0;
    else if (a->z_loss == 0 && a->label_weight)
        for (ptrdiff_t p = 0; p < n; p++) any |= y->mass[p] == 0;
    for (ptrdiff_t p = 0; any && p < t->n; p++) {
        absent[p] = y->counted[p] == 0 || (sample_weight && sample_weight[p] == 0);
        if (a->z_loss == 0 && !absent[p]) absent[p] = KERNEL(has_no_mass)(a, t, y, dense_mass, p);
    }
    return any;
}

/* What a loss multiplies the terms of a position with, in size, and its gradient. */
ALWAYS_INLINE double KERNEL(gain)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, double mass, ptrdiff_t p)
{
    const double sample_weight = a->sample_weight ? a->sample_weight[t->first + p] : 1,
                 upstream = a->upstream ? a->upstream[t->first + p] : 1;
    return fabs(mass * sample_weight) * fmax(1, fabs(a->gradient_scale * upstream));
}

/* Where R is below all normal numbers and what it is multiplied with above 2, bits of it are missing: take R and
 * R / (1 + R) of a label that has the largest logit from doubles. beyond[p]: where that is not enough. */
SELDOM int KERNEL(mend_these)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, const NAME(stats) *s,
                              const KERNEL(labels) *y, NAME(target) *terms, const double *dense_mass, int *beyond)
{
    int any = 0;
    for (ptrdiff_t p = 0; p < t->n; p++) {
        beyond[p] = 0;
        if (!(s->others[p] < TINY) || !(s->rest[p] > 0) || y->counted[p] == 0) continue;
        if (!dense_mass && y->x[p] != s->max_logit[p]) continue;
        if (KERNEL(gain)(a, t, y->mass[p] + (dense_mass ? dense_mass[p] : 0), p) <= 2) continue;
        if (XENT_REAL == 64 || dense_mass || a->gamma != 0)
            any = beyond[p] = 1;
        else
            terms->loss[p] = s->rest[p] / s->peak[p], terms->p_minus_1[p] = -terms->loss[p];
    }
    return any;
}

static int KERNEL(mend_faint)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, const NAME(stats) *s,
                              const KERNEL(labels) *y, NAME(target) *terms, const double *dense_mass, int *beyond)
{
    int found = 0;
    for (ptrdiff_t p = 0; p < t->n; p++) found |= s->others[p] < TINY;
    return found && KERNEL(mend_these)(a, t, s, y, terms, dense_mass, beyond);
}

/* Whether a loss is infinite because a logit is. */
static int KERNEL(is_infinite)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, const KERNEL(labels) *y,
                               int dense, ptrdiff_t p)
{
    const ptrdiff_t label = y->label[p];
    for (ptrdiff_t c = dense || label < 0 ? 0 : label, end = dense ? a->positions.classes : label + 1; c < end; c++)
        if (isinf(t->given ? t->given_logit(t->given, p, c) : KERNEL(given_logit)(t, p, c)) &&
            (c == label || KERNEL(dense_value)(a, t, p, c) != 0))
            return 1;
    return 0;
}

#define MOST_LOSS BY_TYPE(FLT_MAX, 0x1p900)
#define STEEPEST BY_TYPE(0x1p17, 0x1p200)
/* beyond[p]: whether a position is beyond the arithmetic here. Its logits are finite and its loss is not, or so large that
 * a sum might not be; or the derivative of the z-loss is as large as no factor may be. */
SELDOM int KERNEL(find_these)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, const NAME(stats) *s,
                              const KERNEL(labels) *y, const NAME(target) *terms, const double *dense_loss, int *beyond)
{
    const double most = MOST_LOSS, steepest = STEEPEST;
    int any = 0;
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const int finite = isfinite(s->max_logit[p]) && s->rest[p] == s->rest[p], counts = y->counted[p] != 0;
        const int large = !(terms->loss[p] <= most) || (dense_loss && !(fabs(dense_loss[p]) <= most)) ||
                          (a->z_loss != 0 && !(fabs(KERNEL(log_sum)(t, s, p) * a->z_loss) <= steepest));
        beyond[p] = counts && finite && large && !KERNEL(is_infinite)(a, t, y, dense_loss != NULL, p);
        any |= beyond[p];
    }
    return any;
}

static int KERNEL(find_large)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, const NAME(stats) *s,
                              const KERNEL(labels) *y, const NAME(target) *terms, const double *dense_loss, int *beyond)
{
    const double most = MOST_LOSS, steepest = STEEPEST;
    const ptrdiff_t n = t->n;
    int found = 0;
    for (ptrdiff_t p = 0; p < n; p++) found |= !(terms->loss[p] <= most);
    if (dense_loss)
        for (ptrdiff_t p = 0; p < n; p++) found |= !(fabs(dense_loss[p]) <= most);
    for (ptrdiff_t p = 0; a->z_loss != 0 && p < t->n; p++)
        found |= !(fabs(KERNEL(log_sum)(t, s, p) * a->z_loss) <= steepest);
    return found && KERNEL(find_these)(a, t, s, y, terms, dense_loss, beyond);
}

#undef MOST_LOSS
#undef STEEPEST

/* The loss of each position: into their sum, and into a->losses. */
static void KERNEL(put_losses)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, const NAME(stats) *s,
                               const KERNEL(labels) *y, const NAME(target) *terms, const double *dense_loss,
                               const double *dense_mass, const int *absent, row_sum_f64 *losses)
{
    double loss[TILE];
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const double log_p = terms->loss[p], value = y->mass[p] * log_p;
        /* without weight an infinite loss counts as 0, but NaN stays */
        loss[p] = y->mass[p] == 0 && log_p == INFINITY ? 0 : value;
    }
    for (ptrdiff_t p = 0; dense_loss && p < t->n; p++) loss[p] += dense_loss[p] + dense_mass[p] * s->log_total[p];
    for (ptrdiff_t p = 0; a->z_loss != 0 && p < t->n; p++) {
        const double log_sum = KERNEL(log_sum)(t, s, p);
        loss[p] += a->z_loss * log_sum * log_sum;
    }
    for (ptrdiff_t p = 0; a->sample_weight && p < t->n; p++) loss[p] *= a->sample_weight[t->first + p];
    for (ptrdiff_t p = 0; absent && p < t->n; p++) loss[p] = absent[p] ? 0 : loss[p];
    row_sum_add_array(losses, loss, t->n);
    KERNEL(put_per_position)(&a->losses, loss, t->first, t->n);
}

/* The class of a position with a dense target whose gradient entry is made apart, because p - 1 would cancel in it:
 * where the prediction is confident (R < 1/4) the first of the largest logits. -1: none. */
static ptrdiff_t KERNEL(confident_class)(ptrdiff_t classes, const KERNEL(tile) *t, const NAME(stats) *s, ptrdiff_t p)
{
    if (!(s->others[p] < 0.25)) return -1;
    for (ptrdiff_t c = 0; c < classes; c++)
        if (KERNEL(get)(t->x + KERNEL(element)(t->rows, t->x_step, p, c)) == s->max_logit[p]) return c;
    return -1;
}

/* Those of a tile. Of a few classes of columns a vector of positions at a time: no processor guesses which class it is, and
 * with 2 and 4 classes a gradient took 2.5 times as long. Many are looked through only where a prediction is confident. */
#define SEARCHED_CLASSES 32
static void KERNEL(confident_classes)(ptrdiff_t classes, const KERNEL(tile) *t, const NAME(stats) *s, ptrdiff_t *found)
{
    const int few = !t->rows && classes <= SEARCHED_CLASSES;
    for (ptrdiff_t p = 0; !few && p < t->n; p++) found[p] = KERNEL(confident_class)(classes, t, s, p);
    for (ptrdiff_t p = 0; few && p < t->n; p += LANES) {
        const V none = NAME(set)(-1), m = v_load(s->max_logit + p);
        V first = none;
        T lanes[LANES];
        for (ptrdiff_t c = classes - 1; c >= 0; c--) {
            const V x = KERNEL(load)(t->x + c * t->x_step + p, t->n - p, none);
            first = v_select(m_eq(x, m), NAME(set)((T)c), first);
        }
        v_store(lanes, v_select(m_gt(NAME(set)((T)0.25), v_load(s->others + p)), first, none));
        for (ptrdiff_t k = p; k < xent_min(p + LANES, t->n); k++) found[k] = (ptrdiff_t)lanes[k - p];
    }
}
#undef SEARCHED_CLASSES

/* curvature factor p_c (1 - p_c); in the largest logit 1 - p_c would cancel. */
static void KERNEL(put_curvature)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, const NAME(stats) *s,
                                  const double *factor)
{
    const V zero = {0}, one = NAME(set)(1), tiny = NAME(set)(TINY);
    const ptrdiff_t classes = a->positions.classes, long_axis = t->rows ? classes : t->n,
                    short_axis = t->rows ? t->n : classes;
    T coefficient[TILE + LANES], scale[TILE + LANES], scaled_complement[TILE + LANES];
    for (ptrdiff_t p = 0; p < t->n; p++) {
        coefficient[p] = (T)(s->inverse[p] * s->unit[p]), scale[p] = (T)(a->curvature * factor[p]);
        scaled_complement[p] = (T)(s->rest[p] * (a->curvature * factor[p]) * s->unit[p] * s->inverse[p]);
    }
    for (ptrdiff_t p = t->n; p % LANES; p++) coefficient[p] = scale[p] = scaled_complement[p] = 0;
    for (ptrdiff_t j = 0; j < short_axis; j++) {
        for (ptrdiff_t i = 0; i < long_axis; i += LANES) {
            const ptrdiff_t n = xent_min(LANES, long_axis - i);
            const V max_logit = t->rows ? NAME(set)(s->max_logit[j]) : v_load(s->max_logit + i),
                    k = t->rows ? NAME(set)(scale[j]) : v_load(scale + i);
            const V x = KERNEL(load)(t->x + j * t->x_step + i, n, zero);
            V e;
            if (t->kept) {
                e = v_load(t->exps + j * t->exps_step + i);
            } else {
                const V shift = t->rows ? NAME(set)(s->shift[j]) : v_load(s->shift + i);
                e = NAME(exp_scaled)(x - shift, NAME(scale_of)(t->rows ? NAME(set)(s->scale_exponent[j])
                                                                       : v_load(s->scale_exponent + i)));
            }
            const V by = t->rows ? NAME(set)(coefficient[j]) : v_load(coefficient + i), p = e * by;
            const V of_max = t->rows ? NAME(set)(s->complement[j]) : v_load(s->complement + i);
            const VM is_max = m_eq(x, max_logit);
            const V rest = v_select(is_max, of_max, one - p);
            V h = k * p * rest;
            /* of what is below all normal numbers and multiplied with more than 1, bits are missing */
            const VM faint = m_gt(v_abs(k), one) & m_gt(tiny, v_select(is_max, of_max, p));
            if (m_any(faint)) {
                const V whole = t->rows ? NAME(set)(scaled_complement[j]) : v_load(scaled_complement + i);
                h = v_select(faint, v_select(is_max, whole, e * (by * k)), h);
            }
            KERNEL(store)(t->hess + j * t->hess_step + i, v_select(m_eq(k, zero), zero, h), n);
        }
    }
}

/* |gradient| as the second derivative. */
static void KERNEL(put_sizes)(ptrdiff_t classes, const KERNEL(tile) *t)
{
    const V zero = {0};
    const ptrdiff_t long_axis = t->rows ? classes : t->n, short_axis = t->rows ? t->n : classes;
    for (ptrdiff_t j = 0; j < short_axis; j++)
        for (ptrdiff_t i = 0; i < long_axis; i += LANES)
            KERNEL(store)(t->hess + j * t->hess_step + i,
                          v_abs(KERNEL(load)(t->out + j * t->out_step + i, long_axis - i, zero)), long_axis - i);
}

/* The entries that are made apart, one of each position that has a label. What the tile says is copied: label_logits()
 * says why. */
static void KERNEL(put_entries)(const KERNEL(tile) *t, const KERNEL(labels) *y, const T *entry)
{
    S *out = t->out, stored[TILE];
    const ptrdiff_t step = t->out_step, n = t->n;
    const int rows = t->rows;
    for (ptrdiff_t p = 0; p < n; p += LANES) KERNEL(store)(stored + p, v_load(entry + p), LANES);
    for (ptrdiff_t p = 0; p < n; p++)
        if (y->label[p] >= 0) out[KERNEL(element)(rows, step, p, y->label[p])] = stored[p];
}

/* The entries of a target without labels: U p - u = (U - u) p - u (1 - p) of the confident class, if there is one. What is
 * made of all is chosen, not skipped. */
static void KERNEL(confident_entries)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, const NAME(stats) *s,
                                      KERNEL(labels) *y, const double *dense_mass, const double *scale, double *entry)
{
    const ptrdiff_t n = t->n;
    double u[TILE];
    KERNEL(confident_classes)(a->positions.classes, t, s, y->label);
    for (ptrdiff_t p = 0; p < n; p++) u[p] = KERNEL(summed_value)(a, t, p, xent_max(y->label[p], 0));
    for (ptrdiff_t p = 0; p < n; p++) {
        const double made =
            scale[p] * ((dense_mass[p] - u[p]) - u[p] * s->others[p]) * (s->peak[p] * s->unit[p] * s->inverse[p]);
        entry[p] = y->label[p] >= 0 ? made : entry[p];
    }
}

/* The gradient's coefficients, and the one entry of each position that is made apart: at its label, or see
 * confident_class. From here on `out` may overwrite the logits. */
static void KERNEL(put_gradient)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, const NAME(stats) *s,
                                 KERNEL(labels) *y, const NAME(target) *terms, const double *dense_mass,
                                 const int *absent)
{
    const ptrdiff_t classes = a->positions.classes;
    double scale[TILE], factor[TILE], entry[TILE];
    NAME(affine) f;
    for (ptrdiff_t p = 0; p < t->n; p++) scale[p] = y->counted[p] * a->gradient_scale;
    for (ptrdiff_t p = 0; a->upstream && p < t->n; p++)
        if (y->counted[p] != 0) scale[p] *= a->upstream[t->first + p];
    for (ptrdiff_t p = 0; a->sample_weight && p < t->n; p++)
        if (y->counted[p] != 0) scale[p] *= a->sample_weight[t->first + p];
    for (ptrdiff_t p = 0; a->gamma != 0 && p < t->n; p++) y->mass[p] *= y->focal[p];
    for (ptrdiff_t p = 0; p < t->n; p++) {
        factor[p] = scale[p] * y->mass[p];
        entry[p] = factor[p] * terms->p_minus_1[p];
    }
    if (dense_mass && !a->labels.data) KERNEL(confident_entries)(a, t, s, y, dense_mass, scale, entry);
    for (ptrdiff_t p = 0; dense_mass && p < t->n; p++) {
        if (y->counted[p] == 0) continue;
        factor[p] += scale[p] * dense_mass[p];
        if (a->labels.data)
            entry[p] += scale[p] * (dense_mass[p] * terms->p[p] - KERNEL(summed_value)(a, t, p, y->label[p]));
    }
    for (ptrdiff_t p = 0; absent && p < t->n; p++)
        if (absent[p]) scale[p] = factor[p] = 0, entry[p] = entry[p] == 0 ? entry[p] : 0;
    if (t->hess) KERNEL(put_curvature)(a, t, s, factor);
    for (ptrdiff_t p = 0; a->z_loss != 0 && p < t->n; p++) {
        if (absent && absent[p]) continue;
        const double pull = 2 * scale[p] * a->z_loss * KERNEL(log_sum)(t, s, p);
        factor[p] += pull, entry[p] += pull * (a->labels.data ? terms->p[p] : s->peak[p] * s->unit[p] * s->inverse[p]);
    }
    NAME(make_affine)(&f, s, factor, dense_mass ? scale : NULL, t->n);
    for (ptrdiff_t p = 0; absent && p < t->n; p++)
        if (absent[p]) f.coefficient[p] = 0, f.plain = 0; /* exact zeros, even of NaN logits */
    for (ptrdiff_t p = 0; p < t->n; p++) f.result[p] = (T)entry[p];
    f.specials = !dense_mass && KERNEL(takes_specials)(t, classes);
    for (ptrdiff_t p = 0; f.specials && p < t->n; p++) f.special[p] = (T)y->label[p];
    KERNEL(exp_map)(t, &a->positions, dense_mass ? &a->dense : NULL, &f, s);
    if (!f.specials) KERNEL(put_entries)(t, y, f.result);
    if (t->hess && a->curvature == 0) KERNEL(put_sizes)(classes, t);
}

/* What a dense target makes of a tile. Of a curved loss that is enough whose size is known. */
ALWAYS_INLINE void KERNEL(put_dense)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, const NAME(stats) *s,
                                     double *loss, double *mass)
{
    const ptrdiff_t classes = a->positions.classes;
#ifndef STORED_AS_16
    if (a->positions.curved) {
        NAME(dense_sizes)(&a->dense, classes, t, s, loss, mass);
        return;
    }
#endif
    (uniform(&a->dense) ? KERNEL(uniform_terms) : KERNEL(dense_terms))(&a->dense, classes, t, s, loss, mass);
}

static void KERNEL(cross_entropy_tile)(const xent_positions *positions, const KERNEL(tile) *t, row_sum_f64 *losses)
{
    const xent_cross_entropy_args *a = (const xent_cross_entropy_args *)positions;
    const int dense = a->dense.mix != 0 || a->dense.base != 0;
    const ptrdiff_t classes = positions->classes;
    const int wanted = t->out || a->gamma != 0 ? PROBABILITIES | LOGARITHMS : LOGARITHMS;
    NAME(stats) s;
    NAME(target) terms;
    KERNEL(labels) y;
    double dense_loss[TILE], dense_mass[TILE]; /* sum u_c (m - x_c), U */
    int flags[TILE], beyond[TILE];
    KERNEL(statistics_wanted)(t, classes, &s, wanted);
    if (dense) KERNEL(put_dense)(a, t, &s, dense_loss, dense_mass);
    if (a->labels.data) {
        KERNEL(read_labels)(a->labels, classes, a->peak, a->label_weight, t, &y);
        KERNEL(label_logits)(t, &s, &y, wanted);
        NAME(target_terms)(&terms, &s, y.x, y.e, t->n, wanted);
    } else {
        KERNEL(no_labels)(t->n, &y);
        memset(&terms, 0, sizeof terms);
    }
    const int *absent = KERNEL(find_absent)(a, t, &y, dense ? dense_mass : NULL, flags) ? flags : NULL;
    if (KERNEL(mend_faint)(a, t, &s, &y, &terms, dense ? dense_mass : NULL, beyond) &&
        KERNEL(leaves)(beyond, t->n, t->left))
        return;
    if (KERNEL(find_large)(a, t, &s, &y, &terms, dense ? dense_loss : NULL, beyond) &&
        KERNEL(leaves)(beyond, t->n, t->left))
        return;
    if (a->gamma != 0 && !(dense && positions->curved)) KERNEL(focal_factors)(a->gamma, &y, &terms, t->n);
#ifndef STORED_AS_16 /* what is curved has been converted to floats by now */
    if (positions->curved) NAME(put_curved)(a, t, &s, &y, &terms, absent, dense ? dense_loss : NULL, dense_mass);
#endif
    KERNEL(put_losses)(a, t, &s, &y, &terms, dense ? dense_loss : NULL, dense_mass, absent, losses);
    if (t->out && !positions->curved) KERNEL(put_gradient)(a, t, &s, &y, &terms, dense ? dense_mass : NULL, absent);
}

TILE_KERNEL(cross_entropy)

#if XENT_REAL == 64
static void cross_entropy_product_f64(const void *args, ptrdiff_t chunk, void *scratch)
{
    cross_entropy_f64(args, chunk, scratch);
}
#elif !defined(STORED_AS_16)
/* An operand of a tile as doubles, `step` from row to row or from class to class. */
PER_TILE xent_operand KERNEL(widened_operand)(const S *from, xent_lie lie, ptrdiff_t n, ptrdiff_t classes, int rows,
                                              ptrdiff_t step, T *room, double *to)
{
    const ptrdiff_t lines = rows ? n : classes;
    if (!from) return (xent_operand){.data = NULL};
    if (!lie.rows) KERNEL(gather)(from, lie, room, step, n, classes, !rows);
    for (ptrdiff_t i = 0; !lie.rows && i < lines * step; i += LANES) NAME(store_wide)(to + i, v_load(room + i));
    for (ptrdiff_t p = 0; lie.rows && p < n; p++)
        for (ptrdiff_t c = 0; c < classes; c += LANES)
            NAME(store_wide)(to + p * step + c, KERNEL(load)(from + p * lie.step + c, classes - c, (V){0}));
    return (xent_operand){.data = to, .middle_stride = rows ? step : 0, .stride = rows ? 1 : step};
}

ALWAYS_INLINE V NAME(narrowed_at)(const double *from) { return v_narrow(v_load(from), v_load(from + LANES_F64)); }

/* A Hessian times a vector on a tile of floats, as doubles: copies lie in `copies`. */
PER_TILE void KERNEL(product_tile)(const xent_cross_entropy_args *a, const KERNEL(tile) *t, void *scratch,
                                   double *copies, row_sum_f64 *sums)
{
    const ptrdiff_t n = t->n, classes = a->positions.classes, room = transform_elements(&a->positions);
    const int rows = t->rows || !t->lanes_are_positions;
    const ptrdiff_t step = t->rows ? classes
                           : rows  ? NAME(padded_row)(classes)
                                   : (n + LINE_COLUMNS - 1) / LINE_COLUMNS * LINE_COLUMNS;
    T *narrow = (T *)(copies + 4 * room);
    xent_cross_entropy_args wide = *a;
    xent_positions *p = &wide.positions;
    ptrdiff_t left = 0;
    uint8_t is_left[TILE];
#define WIDENED(operand, k)                                                                                            \
    KERNEL(widened_operand)(t->operand, LIES(t, operand), n, classes, rows, step, narrow, copies + (k) * room)
    p->x = WIDENED(x, 0), p->target = WIDENED(target, 1), p->hess = WIDENED(hess, 2);
#undef WIDENED
    p->out = p->x, p->out.data = copies + 3 * room;
    /* of columns as if there were more, as few would be rows */
    p->count = p->chunk = n, p->inner = rows ? 1 : xent_max(n, LINE_COLUMNS), p->middle_count = rows ? n : 1;
    p->left = &left, p->is_left = is_left, p->streams = 0;
    if (wide.labels.data) wide.labels.data += t->first;
    if (wide.sample_weight) wide.sample_weight += t->first;
    tiles_f64(p, 0, n, scratch, &(functions_f64){.plain = NULL, .packed = cross_entropy_tile_f64}, sums);
    const double *made = (double *)p->out.data;
    for (ptrdiff_t q = 0; t->rows && q < n; q++)
        for (ptrdiff_t c = 0; c < classes; c += LANES)
            KERNEL(store)(t->out + q * t->out_step + c, NAME(narrowed_at)(made + q * step + c), classes - c);
    for (ptrdiff_t i = 0; !t->rows && i < (rows ? n : classes) * step; i += LANES)
        v_store(narrow + i, NAME(narrowed_at)(made + i));
    if (!t->rows) KERNEL(scatter)(narrow, step, t->out, LIES(t, out), n, classes, !rows);
    const ptrdiff_t begin = t->first / a->positions.chunk * a->positions.chunk;
    for (ptrdiff_t k = 0; left && k < n; k++)
        if (is_left[k])
            leave(&a->positions, begin, xent_min(begin + a->positions.chunk, a->positions.count), t->first + k, 1);
}

static void KERNEL(cross_entropy_product)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_cross_entropy_args *a = (const xent_cross_entropy_args *)args;
    const xent_positions *positions = &a->positions;
    const ptrdiff_t begin = chunk * positions->chunk, end = xent_min(begin + positions->chunk, positions->count);
    const KERNEL(cut) cut = KERNEL(transformed_cut_of)(positions);
    row_sum_f64 sums;
    start_row_sum_f64(&sums);
    positions->left[chunk] = 0;
    for (ptrdiff_t p = begin; p < end;) {
        const KERNEL(tile) tile = KERNEL(tile_at)(positions, &cut, p, end);
        KERNEL(product_tile)(a, &tile, scratch, (double *)((char *)scratch + positions->copies_at), &sums);
        p += tile.n;
    }
    positions->partial[chunk] = row_total_f64(&sums);
}
#endif

#endif
