/* points.h: losses that are sums of a function of two numbers. A point function gives one element's loss as a product
 * share * cost, and its gradient. Products are added up as described at add_products.
 * Where an intermediate could leave the range of T, or lose digits next to 0, before the last factor is there, a point
 * function says that the element is odd: who called it asks careful.h then. Ordinary factors (XENT_PLAIN_*) are taken for
 * granted; calls with others are careful throughout.
 * A loss is a point function and a row of the table here. Of each, `make_points` is compiled for a group of vectors; what
 * elements and positions do before and after (elements.h, position_losses.h) is the same for all.
 */
#include "begin.h"
#include "simd/exp.h"
#include "simd/log.h"
#include "simd/stored.h"
#include "simd/sums.h"
#include "table.h"

#ifndef XENT_POINTS_H
#define XENT_POINTS_H

#ifndef STORED_AS_16

#if XENT_REAL == 64
/* The losses: their code, point function, what that has to know first, and what of an element can be odd. All but the
 * entropy are losses of elements, all but the squared error and the binary cross-entropy losses of positions. */
#define POINT_LOSSES(X)                                                                                                \
    X(XENT_MSE, mse, no_log, ODD_LOSS)                                                                                 \
    X(XENT_BINARY_CROSS_ENTROPY, binary_cross_entropy, log_of_own, ODD_GRADIENT)                                       \
    X(XENT_CROSS_ENTROPY, cross_entropy, log_of_x, ODD_GRADIENT)                                                       \
    X(XENT_KL_DIV, kl_div, log_of_target, BY_TYPE(NEVER_ODD, ODD_LOSS))                                                \
    X(XENT_KL_DIV_LOG, kl_div_log, exp_of_target, ODD_LOSS)                                                            \
    X(XENT_ENTROPY, entropy, log_of_x, NEVER_ODD)
enum { NEVER_ODD, ODD_GRADIENT, ODD_LOSS }; /* the last: and the gradient */
#endif

/* What probabilities are bounded by before the logarithm. */
typedef struct {
    V floor;                  /* e, rounded up: p < e exactly where p < floor */
    V ceiling;                /* 1 */
    V log_floor, log_ceiling; /* log e; log(1 - e) */
    int clipped;              /* without, nothing of it is looked at */
    int *bad;                 /* set where a target of the binary cross-entropy is outside [0, 1] */
} NAME(bounds);

ALWAYS_INLINE NAME(bounds) NAME(bounds_of)(double clip)
{
    const V zero = {0};
    const vf64 given = set_f64(clip), most = set_f64(1) - given;
    if (clip == 0)
        return (NAME(bounds)){.floor = zero, .ceiling = zero, .log_floor = zero, .log_ceiling = zero, .clipped = 0};
    T floor = (T)clip;
    if ((double)floor < clip) {
        I bits;
        memcpy(&bits, &floor, sizeof bits);
        bits++; /* the next larger number */
        memcpy(&floor, &bits, sizeof bits);
    }
    return (NAME(bounds)){.floor = NAME(set)(floor),
                          .ceiling = NAME(set)(1),
                          .log_floor = NAME(set)((T)log_f64(given)[0]),
                          .log_ceiling = NAME(set)((T)log_of_sum_f64(most, (set_f64(1) - most) - given)[0]),
                          .clipped = 1};
}

typedef struct {
    V share, cost; /* loss = share * cost */
    V gradient;    /* `scale` times the derivative */
    VM odd;        /* not looked at for losses that are never odd */
} NAME(loss);
/* A loss in two functions, constants at every call: what it has to know first, a logarithm or an exponential, of LOGS
 * vectors, and the rest. A few vectors of the first are made in a loop of their own: in one with the rest, each turn
 * would wait. */
typedef void (*NAME(loss_log))(const V *x, const V *t, V *log);
typedef NAME(loss) (*NAME(loss_point))(V x, V t, V log, const NAME(bounds) *b, V scale);

/* Products share * cost that are added up in one go: TERMS of each lane, of `sides` vectors side by side in memory. They
 * are multiplied and added pairwise as they are, and the sums of TERMS go to the wide sums. Each product adds an error of
 * half an ulp at most, and each of the log2(TERMS) levels, where terms have one sign. */
#define TERMS 8
#define AHEAD (TERMS * WAYS) /* vectors of a row: as many numbers on each instruction set */

/* A factor whose product with the share is 0 where the share is, unless it is NaN. */
ALWAYS_INLINE V NAME(counted)(V share, V factor)
{
    const V zero = {0}, most = NAME(set)(LARGEST);
    return v_select(m_eq(share, zero), v_max(zero - most, v_min(most, factor)), factor);
}

/* A factor whose product with a weight is 0 where the weight is, NaN or not. */
ALWAYS_INLINE V NAME(weighed)(V weight, V factor)
{
    const V zero = {0}, most = NAME(set)(LARGEST);
    return v_select(m_eq(weight, zero), v_max(zero - most, v_min(factor, most)), factor);
}

/* The first n numbers of a vector, and zeros. (GCC 12 cannot compile a choice by NAME(first) here for SSE2.) */
ALWAYS_INLINE V NAME(first_of)(V v, ptrdiff_t n)
{
    T numbers[LANES];
    v_store(numbers, v);
    return v_load_n(numbers, n, (V){0});
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

/* Where a sum lacks nothing: it is finite, and of floats not so small that a product may have lost digits. */
ALWAYS_INLINE VM NAME(is_plain)(V total)
{
    const V size = v_abs(total);
    const VM finite = m_gt(NAME(set)((T)INFINITY), size);
#if XENT_REAL == 32
    return finite & m_ge(size, set_f32(0x1p-118f)); /* 2^29 of what 8 subnormal products lose at most */
#else
    return finite;
#endif
}

/* The lanes where 0 * infinity counts as 0, a product of floats has overflown or lost digits near 0, or all is infinite or
 * NaN: one by one, in double. `total` is their sum; without `cost` the shares themselves are added up. The other lanes as
 * ever: none depends on its neighbours. */
static __attribute__((noinline)) void NAME(add_with_care)(NAME(sum) *sum, const V *share, const V *cost, V total,
                                                          int sides)
{
    const V zero = {0}, one = NAME(set)(1);
    V largest = zero; /* 0 where all products are 0 */
    for (int k = 0; k < TERMS; k++)
        largest = v_max(largest, v_min(v_abs(share[k * sides]), cost ? v_abs(cost[k * sides]) : one));
    const VM fine = NAME(is_plain)(v_select(m_eq(largest, zero), total + one, total)); /* 0 is as good as 1 */
    NAME(sum_add)(sum, v_select(fine, total, zero));
    for (int k = 0; k < TERMS; k++) {
        const V s = v_select(fine, zero, share[k * sides]);
        NAME(sum_add_product)(sum, s, cost ? NAME(counted)(s, cost[k * sides]) : one);
    }
}

/* Add what n vectors of terms, made of TERMS * sides, come to. `sides` and n are constants at every call. */
ALWAYS_INLINE void NAME(add_folded)(NAME(sum) *sum, V *term, int n, const V *share, const V *cost, int sides)
{
    for (n /= 2; n >= sides; n /= 2)
        for (int k = 0; k < n; k++) term[k] = term[k] + term[k + n];
    for (int w = 0; w < sides; w++) {
        if (m_any((VM)~NAME(is_plain)(term[w])))
            NAME(add_with_care)(sum + w, share + w, cost ? cost + w : NULL, term[w], sides);
        else
            NAME(sum_add)(sum + w, term[w]);
    }
}

ALWAYS_INLINE void NAME(add_products)(NAME(sum) *sum, const V *share, const V *cost, int sides)
{
    V term[TERMS / 2 * WAYS];
    const int n = TERMS / 2 * sides;
    for (int k = 0; k < n; k++) term[k] = v_fma(share[k + n], cost[k + n], share[k] * cost[k]);
    NAME(add_folded)(sum, term, n, share, cost, sides);
}

/* The same for numbers that are no products. */
ALWAYS_INLINE void NAME(add_terms)(NAME(sum) *sum, const V *terms, int sides)
{
    V term[TERMS / 2 * WAYS];
    const int n = TERMS / 2 * sides;
    for (int k = 0; k < n; k++) term[k] = terms[k] + terms[k + n];
    NAME(add_folded)(sum, term, n, terms, NULL, sides);
}

/* Add n numbers one after another, which have room up to whole groups of AHEAD vectors. */
SHARED void NAME(add_numbers)(NAME(row_sum) *sum, T *numbers, ptrdiff_t n)
{
    const ptrdiff_t group = AHEAD * LANES, end = (n + group - 1) / group * group;
    V term[AHEAD];
    for (ptrdiff_t i = n; i < end; i++) numbers[i] = 0;
    for (ptrdiff_t i = 0; i < end; i += group) {
        for (int k = 0; k < AHEAD; k++) term[k] = v_load(numbers + i + k * LANES);
        NAME(add_terms)(sum->way, term, WAYS);
    }
}

ALWAYS_INLINE void NAME(log_of_x)(const V *x, const V *t, V *log) { (void)t, NAME(logs_of)(x, x, 0, log); }
ALWAYS_INLINE void NAME(log_of_target)(const V *x, const V *t, V *log) { (void)x, NAME(logs_of)(t, t, 0, log); }
ALWAYS_INLINE void NAME(exp_of_target)(const V *x, const V *t, V *exp)
{
    (void)x;
    for (int i = 0; i < LOGS; i++) exp[i] = NAME(exp)(t[i]);
}
ALWAYS_INLINE void NAME(no_log)(const V *x, const V *t, V *log) { (void)x, (void)t, (void)log; }

/* (x - t)^2                                                          d/dx = 2 (x - t)
 * Odd: a difference of which twice leaves T; of doubles, whose sums have no wider type, one whose square comes near the end. */
#define MSE_FAR ((T)BY_TYPE(0x1p126, 0x1p480))
ALWAYS_INLINE NAME(loss) NAME(mse_point)(V x, V t, V log, const NAME(bounds) *b, V scale)
{
    const V d = x - t;
    (void)b, (void)log;
    return (NAME(loss)){
        .share = d, .cost = d, .gradient = (scale + scale) * d, .odd = m_ge(v_abs(d), NAME(set)(MSE_FAR))};
}

/* -t log p                                                           d/dp = -t / p, 0 where p is clipped
 * Odd: t scale or t scale / p is infinite, or has lost digits next to 0, and p is not 0. */
ALWAYS_INLINE NAME(loss) NAME(cross_entropy_point)(V p, V t, V log, const NAME(bounds) *b, V scale)
{
    const V zero = {0};
    V log_p = log, numerator = zero - t * scale;
    if (b->clipped) {
        const VM below = m_gt(b->floor, p), above = m_gt(p, b->ceiling);
        log_p = v_select(below, b->log_floor, v_min(zero, log));
        numerator = v_select(below, zero, v_select(above, zero, numerator));
    }
    /* -0 + 0 is 0; 0 / 0 counts as 0, but NaN stays */
    const V quotient = numerator / (p + zero), size = v_abs(quotient);
    const V gradient = v_select(m_eq(numerator, zero), v_select(m_eq(p, p), zero, p), quotient);
    const VM tiny = m_gt(NAME(set)(TINY), v_min(v_abs(numerator), size)) & m_gt(v_abs(t), zero);
    const VM large = m_ge(size, NAME(set)((T)INFINITY)) & (VM)~m_eq(p, zero);
    return (NAME(loss)){.share = t, .cost = zero - log_p, .gradient = gradient, .odd = tiny | large};
}

/* -p log p */
ALWAYS_INLINE NAME(loss) NAME(entropy_point)(V p, V t, V log, const NAME(bounds) *b, V scale)
{
    const V zero = {0};
    (void)t, (void)b, (void)scale;
    return (NAME(loss)){.share = p, .cost = v_min(NAME(set)(LARGEST), zero - log), .gradient = zero}; /* 0 log 0 = 0 */
}

/* t (log t - x), x a log-probability                                 d/dx = -t
 * Odd: of doubles, whose sum may leave the type where their mean does not; not where a logarithm is infinite, as then both
 * are. Floats are added up in doubles. */
#define DIVERGENCE_FAR ((T)BY_TYPE(INFINITY, 0x1p960))
ALWAYS_INLINE NAME(loss) NAME(divergence)(V x, V t, V log_t, V scale)
{
    const V zero = {0};
    const V cost = v_max(NAME(set)(-LARGEST), log_t) - x; /* 0 log 0 = 0 */
    const VM far = m_gt(v_abs(t * cost), NAME(set)(DIVERGENCE_FAR)) & m_gt(NAME(set)((T)INFINITY), v_abs(x));
    return (NAME(loss)){.share = t, .cost = cost, .gradient = zero - t * scale, .odd = far};
}
ALWAYS_INLINE NAME(loss) NAME(kl_div_point)(V x, V t, V log, const NAME(bounds) *b, V scale)
{
    (void)b;
    return NAME(divergence)(x, t, log, scale);
}
/* Odd: e^t leaves T, or the range of its normal numbers, and not so far that the gradient, with any factor, is 0. */
#define EXP_PLAIN ((T)BY_TYPE(80, 700))
#define EXP_NOTHING ((T)BY_TYPE(-300, -2900))
ALWAYS_INLINE NAME(loss) NAME(kl_div_log_point)(V x, V t, V exp, const NAME(bounds) *b, V scale)
{
    (void)b;
    NAME(loss) l = NAME(divergence)(x, exp, t, scale);
    const VM wide = m_gt(v_abs(t), NAME(set)(EXP_PLAIN)) & m_gt(t, NAME(set)(EXP_NOTHING));
    l.odd = XENT_REAL == 64 ? (VM)(l.odd | wide) : wide;
    return l;
}

/* -t log p - (1 - t) log q, q = 1 - p                                d/dp = (p - t) / (p q): without rounding
 *                                                                    -1 / p for t = 1, 1 / q for t = 0; 0 where p is
 *                                                                    clipped
 * Where all targets of a vector are 0 or 1, one logarithm does: that of the probability of the target.
 * Odd: the gradient comes so near to the end of T that it may pass it before its last factor, but for a division by 0, or
 * (p - t) scale, which is not 0, to the other end. */
#define BCE_FAR ((T)BY_TYPE(0x1p100, 0x1p800))
#define BCE_NEAR ((T)BY_TYPE(0x1p-100, 0x1p-800))
ALWAYS_INLINE void NAME(log_of_own)(const V *p, const V *t, V *log)
{
    const V one = NAME(set)(1), zero = {0};
    V own[LOGS], error[LOGS];
    for (int i = 0; i < LOGS; i++) {
        const V q = one - p[i];
        const VM yes = m_eq(t[i], one);
        own[i] = v_select(yes, p[i], q), error[i] = v_select(yes, zero, (one - q) - p[i]);
    }
    NAME(logs_of)(own, error, 1, log);
}

ALWAYS_INLINE NAME(loss) NAME(binary_cross_entropy_point)(V p, V t, V log_own, const NAME(bounds) *b, V scale)
{
    const V one = NAME(set)(1), zero = {0}, q = one - p;
    const VM yes = m_eq(t, one), hard = yes | m_eq(t, zero), low = m_gt(b->floor, p), high = m_gt(b->floor, q);
    V log_u = log_own, numerator = v_select(yes, zero - scale, scale), denominator = v_select(yes, p, q);
    if (b->clipped) {
        log_u = v_select(m_gt(b->floor, v_select(yes, q, p)), b->log_ceiling, log_u);
        log_u = v_select(m_gt(b->floor, denominator), b->log_floor, log_u);
    }
    V cost = zero - log_u;
    VM near = m_gt(zero, zero);
    if (m_any((VM)~hard)) {
        V log_p = NAME(log)(p), log_q = log_own;
        if (b->clipped) {
            log_p = v_select(low, b->log_floor, v_select(high, b->log_ceiling, log_p));
            log_q = v_select(high, b->log_floor, v_select(low, b->log_ceiling, log_q));
        }
        cost = v_select(hard, cost, zero - t * log_p - (one - t) * log_q);
        numerator = v_select(hard, numerator, (p - t) * scale);
        denominator = v_select(hard, denominator, p * q);
        if (m_any((VM) ~(m_ge(t, zero) & m_ge(one, t)))) *b->bad = 1;
        near = m_gt(NAME(set)(BCE_NEAR), v_abs(numerator)) & m_gt(v_abs(p - t), zero) & (VM)~hard;
    }
    V gradient = numerator / (denominator + zero);
    near = near | (m_ge(v_abs(gradient), NAME(set)(BCE_FAR)) & (VM)~m_eq(denominator, zero));
    if (b->clipped) gradient = v_select(low, zero, v_select(high, zero, gradient));
    return (NAME(loss)){.share = one, .cost = cost, .gradient = gradient, .odd = near};
}

/* A group of at most AHEAD vectors of elements: what is made of it. (Four times as many took up to 1.3 times as long.) */
typedef struct {
    V share[AHEAD], cost[AHEAD], slope[AHEAD]; /* losses share * cost, and the gradient */
    V odd[AHEAD];                              /* 1 for odd elements, else 0; only if it was asked for */
} NAME(points);

/* And the group itself: `count` whole vectors, a step apart; the last may lie elsewhere. */
typedef struct {
    const T *first, *last;
    ptrdiff_t step;
} NAME(vectors);
typedef struct {
    NAME(vectors) x, target;
    int count;
} NAME(group);

ALWAYS_INLINE const T *NAME(vector)(const NAME(vectors) *v, ptrdiff_t k, ptrdiff_t count)
{
    return k < count - 1 ? v->first + k * v->step : v->last;
}

/* Some vectors of a group from vector k on, and what their points have to know first. Where they are not all followed by
 * another, the last of the group stands in the place of what is not there. */
ALWAYS_INLINE void NAME(some_of)(const NAME(group) *g, ptrdiff_t k, int followed, NAME(loss_log) first, V *x, V *target,
                                 V *log)
{
    for (int j = 0; j < LOGS; j++) {
        const ptrdiff_t i = k + j;
        x[j] = v_load(followed ? g->x.first + i * g->x.step : NAME(vector)(&g->x, i, g->count));
        target[j] = v_load(followed ? g->target.first + i * g->target.step : NAME(vector)(&g->target, i, g->count));
    }
    first(x, target, log);
}

/* Make the losses of a group, or the gradient, or both, constants at every call. Returns whether any element is odd; `asks`
 * for which. */
ALWAYS_INLINE int NAME(points_of)(const NAME(group) *given, const NAME(bounds) *limits, V scale, int asks,
                                  NAME(points) *to, NAME(loss_log) first, NAME(loss_point) point, int odd, int value,
                                  int gradient)
{
    const V zero = {0}, one = NAME(set)(1);
    const NAME(group) g = *given; /* in registers, as are the bounds */
    const NAME(bounds) bounds = *limits;
    const int looks = odd == ODD_LOSS || (odd == ODD_GRADIENT && gradient);
    VM any = m_gt(zero, zero);
    for (ptrdiff_t k = 0; k < g.count; k += LOGS) {
        V x[LOGS], target[LOGS], log[LOGS];
        if (k + LOGS < g.count)
            NAME(some_of)(&g, k, 1, first, x, target, log);
        else
            NAME(some_of)(&g, k, 0, first, x, target, log);
        for (int j = 0; j < LOGS; j++) {
            const NAME(loss) l = point(x[j], target[j], log[j], &bounds, scale);
            if (value) to->share[k + j] = l.share, to->cost[k + j] = l.cost;
            if (gradient) to->slope[k + j] = l.gradient;
            if (looks) any = any | l.odd;
            if (looks && asks) to->odd[k + j] = v_select(l.odd, one, zero);
        }
    }
    return looks && m_any(any);
}

/* What makes the points of a loss. The family of elements has the code, which that of the softmax calls. */
typedef int (*NAME(points_function))(const NAME(group) *, const NAME(bounds) *, V scale, int asks, NAME(points) *);
#define POINTS_NAME(name, what) XENT_CONCAT(NAME(name##_##what), XENT_CONCAT(_, XENT_ISA))
#ifdef XENT_MAKES_POINTS
#define POINTS(what, name, log, odd, value, gradient)                                                                  \
    __attribute__((noinline)) int POINTS_NAME(name, what)(const NAME(group) *g, const NAME(bounds) *b, V scale,        \
                                                          int asks, NAME(points) *to)                                  \
    {                                                                                                                  \
        return NAME(points_of)(g, b, scale, asks, to, NAME(log), NAME(name##_point), odd, value, gradient);            \
    }
#else
#define POINTS(what, name, log, odd, value, gradient)                                                                  \
    int POINTS_NAME(name, what)(const NAME(group) *, const NAME(bounds) *, V scale, int asks, NAME(points) *);
#endif
#define LOSS(code, name, log, odd)                                                                                     \
    POINTS(values, name, log, odd, 1, 0)                                                                               \
    POINTS(gradients, name, log, odd, 0, 1)                                                                            \
    POINTS(both, name, log, odd, 1, 1)
POINT_LOSSES(LOSS)
#undef LOSS
#undef POINTS

/* What makes the points of a loss, and whether odd elements have odd losses, not only gradients. */
typedef struct {
    NAME(points_function) make;
    int odd_loss;
} NAME(maker);

SHARED NAME(maker) NAME(maker_of)(int kind, int value, int gradient)
{
#define LOSS(code, name, log, odd)                                                                                     \
    case code:                                                                                                         \
        return (NAME(maker)){!gradient ? POINTS_NAME(name, values)                                                     \
                             : value   ? POINTS_NAME(name, both)                                                       \
                                       : POINTS_NAME(name, gradients),                                                 \
                             odd == ODD_LOSS};
    switch (kind) {
        POINT_LOSSES(LOSS)
    }
#undef LOSS
    return (NAME(maker)){0};
}

/* Add up the losses of a group of `count` vectors, TERMS of each of `sides` in one go. */
ALWAYS_INLINE void NAME(add_points)(NAME(sum) *sum, NAME(points) *made, int count, int sides)
{
    const V zero = {0};
    const int terms = (count + TERMS * sides - 1) / (TERMS * sides) * TERMS * sides;
    for (int k = count; k < terms; k++) made->share[k] = made->cost[k] = zero;
    for (int k = 0; k < terms; k += TERMS * sides) NAME(add_products)(sum, made->share + k, made->cost + k, sides);
}

#endif /* STORED_AS_16 */

/* `count` vectors at p, a step apart, of which n numbers are there, LANES less of each next one where they follow each other
 * (`along`): where they lie, or if they are no whole vectors of T, in `room`, with 1 in the place of what is not there. */
static NAME(vectors) KERNEL(group_at)(const S *p, ptrdiff_t step, int count, ptrdiff_t n, int along, T *room)
{
    const V one = NAME(set)(1);
    const ptrdiff_t last = count - 1;
#ifndef STORED_AS_16
    const ptrdiff_t here = along ? n - last * LANES : n; /* of the last vector */
    NAME(vectors) v = {.first = p, .last = p + last * step, .step = step};
    if (here >= LANES) return v;
    if (along) {
        v_store(room, KERNEL(load)(v.last, here, one));
        v.last = room;
        return v;
    }
#endif
    for (ptrdiff_t k = 0; k < count; k++)
        v_store(room + k * LANES, KERNEL(load)(p + k * step, along ? n - k * LANES : n, one));
    return (NAME(vectors)){.first = room, .last = room + last * LANES, .step = LANES};
}

/* And back: the first n numbers, as above. */
static void KERNEL(put_group)(S *p, ptrdiff_t step, const V *v, int count, ptrdiff_t n, int along)
{
    for (ptrdiff_t k = 0; k < count; k++, n -= along ? LANES : 0) KERNEL(store)(p + k * step, v[k], n);
}

#endif
