/* stats.h: what is known of a position after one look at its logits, and the arithmetic from there to probabilities,
 * logarithm and target terms. For the real types.
 *
 * With m the largest logit and R = sum of exp(x_c - m) over all classes but ONE that attains m:
 *
 *   logsumexp      = m + log1p(R)
 *   log softmax_c  = (x_c - m) - log1p(R)          both terms <= 0: nothing cancels
 *   -log p_y       = (m - x_y) + log1p(R)          both terms >= 0: nothing cancels, whatever the label
 *   p_y - 1        = -R / (1 + R)  where x_y = m;  else p_y - 1 with p_y <= 1/2: nothing cancels
 *
 * so the accuracy of confident predictions needs no knowledge of the label while the row is read. The exponentials
 * themselves are e_c = e^(x_c - shift) 2^-scale_exponent: the shift is 0 (or, for huge logits, m, whose subtraction is
 * exact), and powers of two are exact, so no rounding enters the argument of an exponential. With e_m that of the
 * largest logit:
 *
 *   R = sum of the other e_c / e_m,     p_c = e_c / (e_m + sum of the others)
 */
#include "begin.h"
#include "softmax/tile_sizes.h"
#include "simd/exp.h"
#include "simd/log.h"
#include "simd/sums.h"

#if !defined(XENT_STATS_H) && !defined(STORED_AS_16)
#define XENT_STATS_H

/* x in doubles: a vector of floats is two; and back. */
#define PARTS BY_TYPE(2, 1)
#if XENT_REAL == 32
ALWAYS_INLINE vf64 NAME(part)(V x, int k) { return k == 0 ? v_widen_lo(x) : v_widen_hi(x); }
ALWAYS_INLINE V NAME(joined)(vf64 first, vf64 last) { return v_narrow(first, last); }
#else
ALWAYS_INLINE vf64 NAME(part)(V x, int k) { return (void)k, x; }
ALWAYS_INLINE V NAME(joined)(vf64 first, vf64 last) { return (void)last, first; }
#endif

/* What is made of the sums of exponentials. */
#if XENT_REAL == 64
enum { PROBABILITIES = 1, LOGARITHMS = 2 };
#endif

typedef struct {
    T max_logit[TILE]; /* m */
    T shift[TILE];
    T scale_exponent[TILE];
    T peak[TILE];                 /* e_m; 1 where m is infinite */
    double rest[TILE];            /* sum of the other e_c; where m is infinite: 0, or NaN if one is there */
    double rest_low[TILE];        /* what rounding left of it (0 for floats, whose sums are wide enough) */
    ptrdiff_t near_largest[TILE]; /* of rows: a class before which none has the largest logit; see largest.h */
    /* From here on made by finish(). If PROBABILITIES are wanted: */
    double unit[TILE];    /* 2^-k with the exponent k of e_m */
    double inverse[TILE]; /* p_c = e_c * unit * inverse; NaN where m is infinite, as all probabilities are then */
    T complement[TILE];   /* R / (1 + R) = 1 - p_m */
    /* If LOGARITHMS are: */
    T others[TILE];    /* R */
    T log_total[TILE]; /* log1p(R) as a sum of two numbers */
    T log_low[TILE];
} NAME(stats);

/* A scale exponent is good where the exponent of the largest logit lies HEADROOM to RAISE above it: terms too small to
 * matter even in subnormal results vanish and all others are normal numbers (float: 2^-(126 + 40) < 2^-149; double:
 * 2^-(1022 + 256) < 2^-1074), and sums are finite (GROUP numbers are added as floats: 2^(104 + 3) < 2^128). The first
 * one is the middle, for logits of 22 at most, up or down (double: 177). */
#define HEADROOM BY_TYPE(40, 256)
#define RAISE BY_TYPE(104, 768)
#define FIRST_SCALE_EXPONENT (-(HEADROOM + RAISE) / 2)
static const T NAME(first_scale_exponent) = FIRST_SCALE_EXPONENT;

/* Beyond this |m|, logits are taken relative to m: any logit that still counts is then within a factor of two of m, and
 * the subtraction is exact (Sterbenz). Twice the largest -log of a number that is not 0 at least: 2 * 104, 2 * 746. */
#define LIMIT BY_TYPE(256.0, 1600.0)

/* Exponentials that are being added up: vectors side by side in memory, the ways of a row or vectors of positions. Of
 * each exponential and the largest so far in its lane, the larger stays outside and the smaller is added, so that in the
 * end all but one have been, and none ever needs to be taken out of a sum again. The order of two exponentials is that
 * of their logits, or they are equal up to rounding, and either may stay. */
#define SIDES (WAYS > 2 ? WAYS : 2)
#define CHAINS 2 /* of maxima, that do not wait for each other */
typedef struct {
    NAME(sum) sum[SIDES];
    V largest[SIDES][CHAINS];
} NAME(losers);

/* Field by field: an initialiser in braces is a call of memset, which takes as long as a short row. */
ALWAYS_INLINE void NAME(start_losers)(NAME(losers) *r, int sides)
{
    const V zero = {0};
    for (int w = 0; w < sides; w++) {
        r->sum[w].a = r->sum[w].b = (vf64)zero;
        for (int i = 0; i < CHAINS; i++) r->largest[w][i] = zero;
    }
}

/* Add `count` times `sides` vectors, a step apart. GROUP of them are added pairwise before they reach the wide sum. What
 * follows a full group goes there one by one. Sides and chains are constants at every call. */
ALWAYS_INLINE void NAME(add_losers)(const T *exps, ptrdiff_t step, ptrdiff_t count, NAME(losers) *r, int sides,
                                    int chains)
{
    V max[SIDES][CHAINS]; /* a NaN goes into the sum, never into the largest */
    for (int w = 0; w < sides; w++)
        for (int i = 0; i < chains; i++) max[w][i] = r->largest[w][i];
    ptrdiff_t k = 0;
    for (; k + GROUP <= count; k += GROUP, exps += GROUP * step)
        for (int w = 0; w < sides; w++) {
            V smaller[GROUP];
            for (int i = 0; i < GROUP; i++) {
                const V e = v_load(exps + i * step + w * LANES);
                smaller[i] = v_min(max[w][i % chains], e);
                max[w][i % chains] = v_max(e, max[w][i % chains]);
            }
            for (int n = GROUP / 2; n > 0; n /= 2)
                for (int i = 0; i < n; i++) smaller[i] = smaller[2 * i] + smaller[2 * i + 1];
            NAME(sum_add)(&r->sum[w], smaller[0]);
        }
    for (; k < count; k++, exps += step)
        for (int w = 0; w < sides; w++) {
            const V e = v_load(exps + w * LANES);
            NAME(sum_add)(&r->sum[w], v_min(max[w][0], e));
            max[w][0] = v_max(e, max[w][0]);
        }
    for (int w = 0; w < sides; w++)
        for (int i = 0; i < chains; i++) r->largest[w][i] = max[w][i];
}

/* A row, or a piece of one, followed by zeros up to whole groups. */
#define ROW_GROUP (GROUP * ROW_LANES)
static void NAME(add_row)(const T *exps, ptrdiff_t classes, NAME(losers) *r)
{
    NAME(add_losers)(exps, ROW_LANES, (classes + ROW_GROUP - 1) / ROW_GROUP * GROUP, r, WAYS, CHAINS);
}

/* The classes of one or two vectors of positions. */
static void NAME(add_positions)(const T *exps, ptrdiff_t step, ptrdiff_t classes, NAME(losers) *r, int two)
{
    if (two)
        NAME(add_losers)(exps, step, classes, r, 2, 1);
    else
        NAME(add_losers)(exps, step, classes, r, 1, 1);
}

/* The sum of a row, and its largest exponential, which is not in it. */
ALWAYS_INLINE T NAME(row_of_losers)(NAME(losers) *r, double *rest, double *low)
{
    NAME(row_sum) sum;
    V largest[WAYS];
    for (int w = 0; w < WAYS; w++) {
        NAME(sum_add)(&r->sum[w], v_min(r->largest[w][0], r->largest[w][1]));
        largest[w] = v_max(r->largest[w][0], r->largest[w][1]);
        sum.way[w] = r->sum[w];
    }
    return NAME(row_all_but_max)(&sum, largest, rest, low);
}

/* The sums of vectors of positions from p on, and the largest exponentials. */
ALWAYS_INLINE void NAME(put_losers)(const NAME(losers) *r, int sides, NAME(stats) *s, ptrdiff_t p)
{
    for (int w = 0; w < sides; w++, p += LANES) {
        v_store(s->peak + p, r->largest[w][0]);
        NAME(sum_lanes)(&r->sum[w], s->rest + p, s->rest_low + p);
    }
}

/* Complete LANES_F64 positions from i on: R, its low word, 1 - p_m. Both types get here with doubles. */
ALWAYS_INLINE void NAME(finish_doubles)(NAME(stats) *s, ptrdiff_t i, vf64 m, vf64 peak, vf64 *others, vf64 *low,
                                        vf64 *complement, int wanted)
{
    const vf64 one = set_f64(1), spoiled = m - m; /* NaN where m is infinite, else 0 */
    const vf64 unit = (vf64)(iset_f64(2046LL << 52) - ((vi64)peak & iset_f64(2047LL << 52)));
    const vf64 mantissa = peak * unit, rest = v_load(s->rest + i) * unit, sum = mantissa + rest;
    vf64 inverse;
#if XENT_REAL == 32 /* doubles are wide enough as they are: one division for both quotients */
    const vf64 both = one / (mantissa * sum);
    *others = rest * sum * both;
    inverse = mantissa * both;
    *low = one - one;
#else /* carry low words along, so that each result is rounded about once */
    const vf64 rest_low = v_load(s->rest_low + i) * unit, quotient = rest / mantissa, p = quotient * mantissa;
    *others = quotient;
    *low = ((rest - p) - product_error_f64(quotient, mantissa, p) + rest_low) / mantissa;
    const vf64 sum_low = sum_error_f64(mantissa, rest, sum) + rest_low;
    inverse = one / sum;
    const vf64 product = sum * inverse;
    inverse += inverse * ((one - product) - product_error_f64(sum, inverse, product) - sum_low * inverse);
#endif
    *complement = rest * inverse + spoiled;
    if (wanted & PROBABILITIES) v_store(s->unit + i, unit), v_store(s->inverse + i, inverse + spoiled);
}

/* `wanted` is a constant at every call. */
ALWAYS_INLINE void NAME(finish_wanted)(NAME(stats) *s, ptrdiff_t n, int wanted)
{
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const V m = v_load(s->max_logit + i), peak = v_load(s->peak + i);
#if XENT_REAL == 32
        const ptrdiff_t half = LANES / 2;
        vf64 a, a_low, a_complement, b, b_low, b_complement;
        NAME(finish_doubles)(s, i, v_widen_lo(m), v_widen_lo(peak), &a, &a_low, &a_complement, wanted);
        NAME(finish_doubles)(s, i + half, v_widen_hi(m), v_widen_hi(peak), &b, &b_low, &b_complement, wanted);
        const V others = v_narrow(a, b), low = v_narrow(a - v_widen_lo(others), b - v_widen_hi(others));
        const V complement = v_narrow(a_complement, b_complement);
#else
        V others, low, complement;
        NAME(finish_doubles)(s, i, m, peak, &others, &low, &complement, wanted);
#endif
        if (wanted & PROBABILITIES) v_store(s->complement + i, complement);
        if (!(wanted & LOGARITHMS)) continue;
        V log_low;
        const V log_high = NAME(log1p_pair)(others, low, &log_low), log_total = log_high + log_low;
        v_store(s->others + i, others);
        v_store(s->log_total + i, log_total);
        v_store(s->log_low + i, log_low - (log_total - log_high));
    }
}

static void NAME(finish)(NAME(stats) *s, ptrdiff_t n, int wanted)
{
    for (ptrdiff_t p = n; p % LANES; p++) { /* whole vectors */
        s->max_logit[p] = s->shift[p] = s->scale_exponent[p] = 0, s->peak[p] = 1;
        s->rest[p] = s->rest_low[p] = 0;
    }
    if (wanted == PROBABILITIES)
        NAME(finish_wanted)(s, n, PROBABILITIES);
    else if (wanted == LOGARITHMS)
        NAME(finish_wanted)(s, n, LOGARITHMS);
    else
        NAME(finish_wanted)(s, n, PROBABILITIES | LOGARITHMS);
}

/* m + log1p(R), rounded once. */
ALWAYS_INLINE V NAME(logsumexps)(const NAME(stats) *s, ptrdiff_t i)
{
    const V m = v_load(s->max_logit + i), log_total = v_load(s->log_total + i), sum = m + log_total;
    const V low = NAME(sum_error)(m, log_total, sum) + v_load(s->log_low + i);
    return v_select(m_gt(NAME(set)((T)INFINITY), v_abs(sum)), sum + low, sum);
}

/* From the target logits x_y and their exponentials e_y: -log p_y, and if PROBABILITIES are wanted p_y, and p_y - 1. */
typedef struct {
    double loss[TILE];
    T p[TILE];
    double p_minus_1[TILE];
} NAME(target);

/* In doubles. */
ALWAYS_INLINE void NAME(store_wide)(double *to, V v)
{
#if XENT_REAL == 32
    v_store(to, v_widen_lo(v)), v_store(to + LANES / 2, v_widen_hi(v));
#else
    v_store(to, v);
#endif
}

/* high + low, in doubles. */
ALWAYS_INLINE void NAME(store_sum)(double *to, V high, V low)
{
#if XENT_REAL == 32
    v_store(to, v_widen_lo(high) + v_widen_lo(low));
    v_store(to + LANES / 2, v_widen_hi(high) + v_widen_hi(low));
#else
    v_store(to, high + low);
#endif
}

/* The probabilities that belong to exponentials of the positions from i on. */
ALWAYS_INLINE V NAME(probabilities)(const NAME(stats) *s, V e, ptrdiff_t i)
{
#if XENT_REAL == 32
    const ptrdiff_t j = i + LANES / 2;
    return v_narrow(v_widen_lo(e) * v_load(s->unit + i) * v_load(s->inverse + i),
                    v_widen_hi(e) * v_load(s->unit + j) * v_load(s->inverse + j));
#else
    return e * v_load(s->unit + i) * v_load(s->inverse + i);
#endif
}

static void NAME(target_terms)(NAME(target) *t, const NAME(stats) *s, const T *x_y, const T *e_y, ptrdiff_t n,
                               int wanted)
{
    const V zero = {0}, infinity = NAME(set)((T)INFINITY);
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const V m = v_load(s->max_logit + i), x = v_load(x_y + i), log_total = v_load(s->log_total + i);
        const V gap = m - x, loss = gap + log_total;
        const V low =
            NAME(sum_error)(gap, log_total, loss) + (NAME(sum_error)(m, zero - x, gap) + v_load(s->log_low + i));
        const VM finite = m_gt(infinity, v_abs(loss));
        const V rounded = v_select(finite, loss + low, loss);
        NAME(store_sum)(t->loss + i, rounded, v_select(finite, low - (rounded - loss), zero));
        if (!(wanted & PROBABILITIES)) continue;
        const V p = NAME(probabilities)(s, v_load(e_y + i), i);
        v_store(t->p + i, p);
        NAME(store_wide)(t->p_minus_1 + i,
                         v_select(m_eq(gap, zero), zero - v_load(s->complement + i), p - NAME(set)(1)));
    }
}

#endif
