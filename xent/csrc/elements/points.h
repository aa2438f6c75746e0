/* points.h: losses that are sums of a function of two numbers. A point function gives one element's loss as a product
 * share * cost, which is added up in double (of floats it is exact there: no overflow, no rounding), and its gradient.
 * The loops over elements and positions (elements.h, position_losses.h) know the functions from the tables here: a loss
 * is a point function and a row.
 */
#include "begin.h"
#include "simd/exp.h"
#include "simd/log.h"
#include "simd/sums.h"
#include "table.h"

#ifndef XENT_POINTS_H
#define XENT_POINTS_H

#ifndef STORED_AS_16

#if XENT_REAL == 64
/* The losses: their code, point function, what that has to know first, and whether elements may have weights. */
#define ELEMENT_LOSSES(X)                                                                                              \
    X(XENT_MSE, mse, no_log, 0)                                                                                        \
    X(XENT_BINARY_CROSS_ENTROPY, binary_cross_entropy, log_of_own, 1)                                                  \
    X(XENT_CROSS_ENTROPY, cross_entropy, log_of_x, 0)                                                                  \
    X(XENT_KL_DIV, kl_div, log_of_target, 0)                                                                           \
    X(XENT_KL_DIV_LOG, kl_div_log, exp_of_target, 0)
/* The losses of positions: their code, point function, and what that has to know first. */
#define POSITION_LOSSES(X)                                                                                             \
    X(XENT_CROSS_ENTROPY, cross_entropy, log_of_x)                                                                     \
    X(XENT_KL_DIV, kl_div, log_of_target)                                                                              \
    X(XENT_KL_DIV_LOG, kl_div_log, exp_of_target)                                                                      \
    X(XENT_ENTROPY, entropy, log_of_x)
#endif

/* What probabilities are bounded by before the logarithm. Without a bound: -infinity, infinity, and nothing. */
typedef struct {
    V floor;                  /* e, rounded up: p < e exactly where p < floor */
    V ceiling;                /* 1 */
    V log_floor, log_ceiling; /* log e; log(1 - e) */
    V most;                   /* the largest logarithm: 0 */
} NAME(bounds);

ALWAYS_INLINE NAME(bounds) NAME(bounds_of)(double clip)
{
    const V infinity = NAME(set)((T)INFINITY), zero = {0};
    if (clip == 0)
        return (NAME(bounds)){
            .floor = zero - infinity, .ceiling = infinity, .log_floor = zero, .log_ceiling = zero, .most = infinity};
    T floor = (T)clip;
    if ((double)floor < clip) {
        I bits;
        memcpy(&bits, &floor, sizeof bits);
        bits++; /* the next larger number */
        memcpy(&floor, &bits, sizeof bits);
    }
    return (NAME(bounds)){.floor = NAME(set)(floor),
                          .ceiling = NAME(set)(1),
                          .log_floor = NAME(set)((T)log(clip)),
                          .log_ceiling = NAME(set)((T)log1p(-clip)),
                          .most = zero};
}

typedef struct {
    V share, cost; /* loss = share * cost */
    V gradient;    /* `scale` times the derivative */
} NAME(loss);
/* A loss in two functions, constants at every call: what it has to know first, a logarithm or an exponential, and the
 * rest. A few vectors of the first are made in a loop of their own: in one with the rest, each turn would wait. */
typedef V (*NAME(loss_log))(V x, V t);
typedef NAME(loss) (*NAME(loss_point))(V x, V t, V log, const NAME(bounds) *b, V scale);
#define AHEAD 16 /* vectors at most */

/* A factor whose product with the share is 0 where the share is, unless it is NaN. */
ALWAYS_INLINE V NAME(counted)(V share, V factor)
{
    const V zero = {0}, most = NAME(set)(LARGEST);
    return v_select(m_eq(share, zero), v_max(zero - most, v_min(most, factor)), factor);
}

ALWAYS_INLINE V NAME(log_of_x)(V x, V t) { return (void)t, NAME(log)(x); }
ALWAYS_INLINE V NAME(log_of_target)(V x, V t) { return (void)x, NAME(log)(t); }
ALWAYS_INLINE V NAME(exp_of_target)(V x, V t) { return (void)x, NAME(exp)(t); }
ALWAYS_INLINE V NAME(no_log)(V x, V t) { return (void)t, x; }

/* (x - t)^2                                                          d/dx = 2 (x - t) */
ALWAYS_INLINE NAME(loss) NAME(mse_point)(V x, V t, V log, const NAME(bounds) *b, V scale)
{
    const V d = x - t;
    (void)b, (void)log;
    return (NAME(loss)){.share = d, .cost = d, .gradient = (scale + scale) * d};
}

/* -t log p                                                           d/dp = -t / p, 0 where p is clipped */
ALWAYS_INLINE NAME(loss) NAME(cross_entropy_point)(V p, V t, V log, const NAME(bounds) *b, V scale)
{
    const V zero = {0};
    const VM below = m_gt(b->floor, p);
    const V log_p = v_select(below, b->log_floor, v_min(b->most, log));
    const V numerator = v_select(below, zero, v_select(m_gt(p, b->ceiling), zero, zero - t * scale));
    /* -0 + 0 is 0; 0 / 0 counts as 0, but NaN stays */
    const V quotient = numerator / (p + zero);
    const V gradient = v_select(m_eq(numerator, zero), v_select(m_eq(p, p), zero, p), quotient);
    return (NAME(loss)){.share = t, .cost = NAME(counted)(t, zero - log_p), .gradient = gradient};
}

/* -p log p */
ALWAYS_INLINE NAME(loss) NAME(entropy_point)(V p, V t, V log, const NAME(bounds) *b, V scale)
{
    const V zero = {0};
    (void)t, (void)b, (void)scale;
    return (NAME(loss)){.share = p, .cost = NAME(counted)(p, zero - log), .gradient = zero};
}

/* t (log t - x), x a log-probability                                 d/dx = -t */
ALWAYS_INLINE NAME(loss) NAME(divergence)(V x, V t, V log_t, V scale)
{
    const V zero = {0};
    const V cost = NAME(counted)(t, v_max(NAME(set)(-LARGEST), log_t) - x);
    return (NAME(loss)){.share = t, .cost = cost, .gradient = zero - t * scale};
}
ALWAYS_INLINE NAME(loss) NAME(kl_div_point)(V x, V t, V log, const NAME(bounds) *b, V scale)
{
    (void)b;
    return NAME(divergence)(x, t, log, scale);
}
ALWAYS_INLINE NAME(loss) NAME(kl_div_log_point)(V x, V t, V exp, const NAME(bounds) *b, V scale)
{
    (void)b;
    return NAME(divergence)(x, exp, t, scale);
}

/* -t log p - (1 - t) log q, q = 1 - p                                d/dp = (p - t) / (p q): without rounding
 *                                                                    -1 / p for t = 1, 1 / q for t = 0; 0 where p is
 *                                                                    clipped
 * Where all targets of a vector are 0 or 1, one logarithm does: that of the probability of the target. */
ALWAYS_INLINE V NAME(log_of_own)(V p, V t)
{
    const V one = NAME(set)(1), zero = {0}, q = one - p;
    const VM yes = m_eq(t, one);
    return NAME(log_of_sum)(v_select(yes, p, q) + (t - t),
                            v_select(yes, zero, NAME(sum_error)(one, zero - p, q))); /* NaN if t is */
}

ALWAYS_INLINE NAME(loss) NAME(binary_cross_entropy_point)(V p, V t, V log_own, const NAME(bounds) *b, V scale)
{
    const V one = NAME(set)(1), zero = {0};
    const V q = one - p;
    const VM low = m_gt(b->floor, p), high = m_gt(b->floor, q), yes = m_eq(t, one), no = m_eq(t, zero);
    const V u = v_select(yes, p, q) + (t - t), other = v_select(yes, q, p); /* NaN if t is */
    V cost;
    if (!m_any(m_gt(v_abs(t * (one - t)), zero))) {
        const V log_u = v_select(m_gt(b->floor, other), b->log_ceiling, log_own);
        cost = zero - v_select(m_gt(b->floor, u), b->log_floor, log_u);
    } else {
        const V log_p = v_select(low, b->log_floor, v_select(high, b->log_ceiling, NAME(log)(p)));
        /* log q does not count where t is 1. */
        const V log_q = v_select(high, b->log_floor, v_select(low, b->log_ceiling, log_own));
        cost = zero - t * NAME(counted)(t, log_p) - (one - t) * NAME(counted)(one - t, log_q);
    }
    const V numerator = v_select(yes, zero - one, v_select(no, one, p - t));
    const V denominator = v_select(yes, p, v_select(no, q, p * q));
    const V gradient = numerator * scale / (denominator + zero);
    return (NAME(loss)){.share = one, .cost = cost, .gradient = v_select(low, zero, v_select(high, zero, gradient))};
}

/* Add a product, exactly of floats. */
ALWAYS_INLINE void NAME(sum_add_product)(NAME(sum) *acc, V a, V b)
{
#if XENT_REAL == 32
    acc->a = v_fma(v_widen_lo(a), v_widen_lo(b), acc->a);
    acc->b = v_fma(v_widen_hi(a), v_widen_hi(b), acc->b);
#else
    NAME(sum_add)(acc, a * b);
#endif
}

#endif /* STORED_AS_16 */

#endif
