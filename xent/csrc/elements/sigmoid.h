/* sigmoid.h: sigmoid cross-entropy, value and gradient, elementwise.
 *
 * With e = exp(-|z|), p = sigmoid(z), r = 1 - p = sigmoid(-z), L = log1p(e), a = w c t and b = w (1 - t) (weight w,
 * pos_weight c),
 *
 *   p, r     = 1 / (1 + e), e / (1 + e)     for z >= 0, else the other way round: both exact to the last bits
 *   softplus(-z) = max(-z, 0) + L,      softplus(z) = max(z, 0) + L
 *   B        = a softplus(-z) + b softplus(z)
 *            = (a + b) L + k |z|            k = b for z >= 0, else a; nothing cancels, and 0 * infinity counts as 0
 *   dB/dz    = b p - a r                    cancels only for t between 0 and 1
 *
 * Focal: F = u^gamma B with u = 1 - p_t = t r + (1 - t) p, a sum of terms of one sign:
 *
 *   du/dz    = ((1 - t) - t) p r
 *   dF/dz    = gamma u^(gamma - 1) ((1 - t) - t) p r B + u^gamma dB/dz     both terms of one sign for t = 0 and t = 1
 *
 * p r B is 0 where z is infinite. For gamma 1 and 2 the powers are products. For any other, u^(gamma - 1) p r = u^gamma
 * (p r / u), of which p r / u <= 1 whatever gamma is, and u^gamma = exp(gamma log u) with
 *
 *   log u    = log(k + j e) - L             k = 1 - t, j = t for z >= 0, else the other way round; both terms <= 0
 *            = -|z| - L                     where k = 0: a hard target, predicted right
 *
 * as a sum of two numbers (and gamma too, where it is no float), so that the error of u^gamma is gamma times that of u,
 * and not gamma |log u| times.
 *
 * The second derivative, without a focal factor (w c t + w (1 - t)) p r, with D = dB/dz and q = p r / u:
 *
 *   d2F/dz2  = u^gamma [(a + b) p r + gamma q ((gamma - 1) d^2 q B + 2 d D + d (r - p) B)]       d = (1 - t) - t
 *
 * "Gauss-Newton" keeps (a + b) p r + gamma d^2 q^2 B of the bracket, which is not negative if the weights are not: for
 * targets of 0 and 1, the loss as a function of -log p_t without its curvature, as in the softmax family.
 *
 * A logit is odd where e^-|z|, its power or the products of it with factors lose digits next to 0, or its term is
 * infinite, before the last factor is there: xent_plan_sigmoid says from where on. Then doubles make an element of floats, and
 * careful.h one of doubles, or any with odd factors.
 *
 * A chunk is walked in blocks. What is not of the type computed with is converted on the way, block by block; so are
 * factors that are broadcast.
 */
#include "begin.h"
#include "elements/careful.h"
#include "elements/points.h"
#include "simd/exp.h"
#include "simd/log.h"
#include "simd/real.h"
#include "simd/stored.h"
#include "simd/sums.h"
#include "table.h"

#ifndef XENT_SIGMOID_H
#define XENT_SIGMOID_H

#ifndef SIGMOID_BLOCK
#define SIGMOID_BLOCK 512      /* elements: the blocks of all operands stay in an L1 cache of 32 KiB */
enum { PLAIN, SQUARE, POWER }; /* gamma: 0, 1 or 2, any */
#endif

#ifndef STORED_AS_16
#if XENT_REAL == 32
typedef double NAME(other_real);
#else
typedef float NAME(other_real);
#endif
#define OWN_CODE BY_TYPE(XENT_F32, XENT_F64)
#define OTHER_CODE BY_TYPE(XENT_F64, XENT_F32)
#define HEAD_START BY_TYPE(32, 128) /* 2^32 e^-104 is a normal number, and so is 2^128 e^-746 */

/* e^x for x <= 0: one scaling, from a power of two that keeps tiny results normal until the last product. */
ALWAYS_INLINE V NAME(exp_below_1)(V x, NAME(scale) raised)
{
    return NAME(exp_scaled)(x, raised) * NAME(set)((T)(XENT_REAL == 32 ? 0x1p-32 : 0x1p-128));
}

/* The operands of a block, and the options. NULL: 1 for factors, not wanted for results. */
typedef struct {
    const T *x, *t, *weight, *pos_weight, *upstream;
    const T *e, *log_1_e; /* exp(-|z|), log1p(e) */
    T *out, *hess, *losses;
    T *added; /* the losses of the block, for their sum */
    V mix, base, alpha_1, alpha_0, gamma, gamma_low, gradient_scale, plain;
    NAME(scale) raised;
    int curvature;
    int smooth, balanced, squared, ignoring; /* label smoothing, alpha, gamma == 2, ignored elements have t = -1 */
} NAME(logistic);

/* What is wanted, and the power. Constants at every call. */
typedef struct {
    int value, gradient, hess, power;
} NAME(logistic_variant);

/* u^gamma. */
ALWAYS_INLINE V NAME(focus)(const NAME(logistic) *b, VM positive, V t, V s, V size, V e, V log_1_e)
{
    const V zero = {0}, one = NAME(set)(1), k = v_select(positive, s, t), j = v_select(positive, t, s);
    const V mixed = v_max(v_fma(j, e, k), NAME(set)(TINY));
    V rest;
    const V most = NAME(log_pair)(mixed, zero, zero, &rest), log_mixed = most + rest;
    const VM right = m_eq(k, zero);
    const V large = v_select(right, -size, log_mixed), log_u = large - log_1_e, v = b->gamma * log_u;
    V low = NAME(sum_error)(large, -log_1_e, log_u) + v_select(right, zero, rest - (log_mixed - most));
    low = NAME(product_error)(b->gamma, log_u, v) + v_fma(b->gamma, low, b->gamma_low * log_u);
    low = v_select(m_gt(one, v_abs(low)), low, zero); /* also where it is NaN, of an infinite v */
    const V power = NAME(exp_below_1)(v, b->raised);
    return v_fma(power, low, power);
}

/* The second derivative, but for the focal factor: D and B are those above, `lean` is (1 - t) - t. */
ALWAYS_INLINE V NAME(curvature)(const NAME(logistic) *b, V both, V p, V r, V u, V lean, V slope, V loss, int power)
{
    const V one = NAME(set)(1), most = NAME(set)(LARGEST), pr = p * r, plain = both * pr;
    if (power == PLAIN) return plain;
    /* 0 / 0 counts as 1, where the loss is 0; an infinite loss has q = 0, and 0 * infinity counts as 0 */
    const V q = v_min(pr / u, one), finite = v_max(-most, v_min(loss, most));
    if (b->curvature == XENT_GAUSS_NEWTON) return v_fma(b->gamma * q * q * lean * lean, finite, plain);
    const V bend = v_fma((b->gamma - one) * lean * lean, q, lean * (r - p));
    return v_fma(b->gamma * q, v_fma(bend, finite, (lean + lean) * slope), plain);
}

/* n elements from i on, at most a vector. */
ALWAYS_INLINE void NAME(logistic_step)(const NAME(logistic) *b, ptrdiff_t i, ptrdiff_t n,
                                       NAME(logistic_variant) variant)
{
    const V zero = {0}, one = NAME(set)(1), z = NAME(load)(b->x + i, n, zero), given = NAME(load)(b->t + i, n, zero);
    V t = given, s = one - given;
    if (b->smooth) t = v_fma(b->mix, t, b->base), s = v_fma(b->mix, s, b->base);
    V a = t, c = s, w = one;
    if (b->weight) w = NAME(load)(b->weight + i, n, zero);
    if (b->balanced) w = w * v_fma(b->alpha_1, t, b->alpha_0 * s);
    if (b->pos_weight) a = a * NAME(load)(b->pos_weight + i, n, zero);
    if (b->weight || b->balanced) a = a * w, c = c * w;

    const VM positive = m_ge(z, zero), counts = m_ge(given, zero);
    const V size = v_abs(z), e = v_load(b->e + i);
    V loss = zero, log_1_e = zero, power = one, share = zero; /* u^gamma, u^(gamma - 1) p r */
    if (variant.value || variant.power != PLAIN) {
        const V k = v_select(positive, c, a);
        log_1_e = v_load(b->log_1_e + i);
        loss = v_fma(a + c, log_1_e, v_select(m_eq(k, zero), zero, k * size)); /* 0 * infinity counts as 0 */
    }
    if (variant.gradient || variant.power != PLAIN) {
        const V larger = one / (one + e), smaller = e * larger;
        const V p = v_select(positive, larger, smaller), r = v_select(positive, smaller, larger);
        const V u = v_fma(t, r, s * p);
        V gradient = v_fma(c, p, -(a * r)), hess = zero;
        if (variant.hess) hess = NAME(curvature)(b, a + c, p, r, u, s - t, gradient, loss, variant.power);
        if (variant.power == SQUARE) {
            const V lower = b->squared ? u : one;
            power = lower * u, share = p * r * lower;
        }
        if (variant.power == POWER) {
            power = NAME(focus)(b, positive, t, s, size, e, log_1_e);
            share = v_min(p * r / u, one) * power; /* 0 / 0 counts as 1: the loss is 0 there */
        }
        if (variant.power != PLAIN) {
            const V pull = v_select(m_eq(share, zero), zero, share * loss); /* 0 * infinity counts as 0 */
            gradient = v_fma(power, gradient, b->gamma * (s - t) * pull);
            loss = loss * power, hess = hess * power;
        }
        if (b->weight) { /* without weight it is not there, NaN or not */
            const VM gone = m_eq(w, zero);
            loss = v_select(gone, zero, loss), gradient = v_select(gone, zero, gradient);
            hess = v_select(gone, zero, hess);
        }
        if (variant.gradient) {
            gradient = gradient * b->gradient_scale;
            if (b->upstream) gradient = gradient * NAME(load)(b->upstream + i, n, zero);
            if (b->ignoring) gradient = v_select(counts, gradient, zero);
            NAME(store)(b->out + i, gradient, n);
        }
        if (variant.hess) {
            hess = b->curvature == XENT_ABSOLUTE ? v_abs(gradient) : hess * b->gradient_scale;
            if (b->ignoring) hess = v_select(counts, hess, zero);
            NAME(store)(b->hess + i, hess, n);
        }
    } else if (b->weight)
        loss = v_select(m_eq(w, zero), zero, loss);
    if (variant.value) {
        if (b->ignoring) loss = v_select(counts, loss, zero);
        if (b->losses) NAME(store)(b->losses + i, loss, n);
        v_store(b->added + i, loss);
    }
}

/* The options are copied: no store to a result can be one to them, and they stay in registers. */
ALWAYS_INLINE void NAME(logistic_loop)(const NAME(logistic) *options, ptrdiff_t n, NAME(logistic_variant) variant)
{
    const NAME(logistic) b = *options;
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) NAME(logistic_step)(&b, i, LANES, variant);
    if (i < n) NAME(logistic_step)(&b, i, n - i, variant);
}

/* e^-|x| of n numbers; two vectors at a time share what is loaded of constants. Returns whether an |x| is larger than
 * `plain`. */
static int NAME(exps_of_sizes)(const T *x, ptrdiff_t n, NAME(scale) raised, V plain, T *e)
{
    const V zero = {0};
    V most[2] = {{0}, {0}};
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES)
        for (int k = 0; k < 2; k++) {
            const V size = v_abs(v_load(x + i + k * LANES));
            most[k] = v_max(size, most[k]);
            v_store(e + i + k * LANES, NAME(exp_below_1)(-size, raised));
        }
    for (; i < n; i += LANES) {
        const V size = v_abs(NAME(load)(x + i, n - i, zero));
        most[0] = v_max(size, most[0]);
        v_store(e + i, NAME(exp_below_1)(-size, raised));
    }
    return m_any(m_gt(v_max(most[0], most[1]), plain));
}

/* The places of the odd elements among n logits; returns how many there are. */
static int NAME(find_odd)(const xent_odd_logits *odd, const T *x, ptrdiff_t n, int *place)
{
    const V zero = {0}, one = NAME(set)(1), infinite = NAME(set)((T)INFINITY);
    const V plain = NAME(set)((T)odd->plain), nothing = NAME(set)((T)odd->nothing), far = NAME(set)((T)odd->far);
    int found = 0;
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const V size = v_abs(NAME(load)(x + i, n - i, zero));
        const VM is_odd = m_gt(size, plain) & (m_gt(nothing, size) | (m_gt(size, far) & m_gt(infinite, size)));
        T flags[LANES];
        if (!m_any(is_odd)) continue;
        v_store(flags, v_select(is_odd, one, zero));
        /* not those after the end: where `plain` is below 0, all are odd, and the 0 that is read there too */
        for (int k = 0; k < xent_min(LANES, n - i); k++) place[found] = (int)i + k, found += flags[k] != 0;
    }
    return found;
}

/* Put a result where it belongs. */
ALWAYS_INLINE void NAME(put_mended)(T *p, double v, int in_16_bits) { *p = in_16_bits ? (T)rounded_to_odd(v) : (T)v; }

/* Make some elements of a block, whose logits are x, with care. Their losses leave those that are added up for a sum of
 * their own. */
static
    __attribute__((noinline)) void NAME(mend_with_care)(const xent_sigmoid_args *a, const NAME(logistic) *b, const T *x,
                                                        const int *place, int n, int in_16_bits, xent_wide_sum *sum)
{
    for (int k = 0; k < n; k++) {
        const int i = place[k];
        const careful_loss l =
            careful_logistic(a, (double)x[i], (double)b->t[i], b->weight ? (double)b->weight[i] : 1,
                             b->pos_weight ? (double)b->pos_weight[i] : 1, b->upstream ? (double)b->upstream[i] : 1);
        if (b->out) NAME(put_mended)(b->out + i, wide_as_double(l.gradient), in_16_bits);
        if (b->hess) NAME(put_mended)(b->hess + i, wide_as_double(l.hess), in_16_bits);
        if (b->losses) b->losses[i] = (T)wide_as_double(l.loss);
        if (!a->value) continue;
        b->added[i] = 0;
        wide_add_to(sum, l.loss);
    }
}

#if XENT_REAL == 32
/* Make some elements of a block of floats as a block of doubles, in which few are odd and cost eighty times as much. */
static __attribute__((noinline)) void mend_in_doubles(const xent_sigmoid_args *given, const logistic_f32 *b,
                                                      const float *x, const int *place, int n, int power,
                                                      int in_16_bits, xent_wide_sum *sum)
{
    double z[MENDED], t[MENDED], weight[MENDED], pos_weight[MENDED], upstream[MENDED], grad[MENDED], hess[MENDED],
        losses[MENDED];
    xent_sigmoid_args a = *given;
    a.odd = a.odd_in_doubles;
    logistic_f64 wide = logistic_of_f64(&a);
    row_sum_f64 total;
    wide.x = z, wide.t = t, wide.out = b->out ? grad : NULL, wide.hess = b->hess ? hess : NULL;
    wide.losses = b->losses ? losses : NULL, wide.upstream = b->upstream ? upstream : NULL;
    wide.weight = b->weight ? weight : NULL, wide.pos_weight = b->pos_weight ? pos_weight : NULL;
    start_row_sum_f64(&total);
    for (; n > 0; place += MENDED, n -= MENDED) {
        const int here = n < MENDED ? n : MENDED;
        for (int k = 0; k < here; k++) {
            const int i = place[k];
            z[k] = (double)x[i], t[k] = (double)b->t[i], b->added[i] = 0;
            if (b->weight) weight[k] = (double)b->weight[i];
            if (b->pos_weight) pos_weight[k] = (double)b->pos_weight[i];
            if (b->upstream) upstream[k] = (double)b->upstream[i];
        }
        logistic_block_f64(&a, &wide, here, power, 0, &total, sum);
        for (int k = 0; k < here; k++) {
            const int i = place[k];
            if (b->out) put_mended_f32(b->out + i, grad[k], in_16_bits);
            if (b->hess) put_mended_f32(b->hess + i, hess[k], in_16_bits);
            if (b->losses) b->losses[i] = (float)losses[k];
        }
    }
    if (a.value) wide_add_to(sum, wide_of(row_total_f64(&total)));
}
#endif

/* Make the odd elements of a block, or all of a careful call, anew. */
static
    __attribute__((noinline)) void NAME(mend_logistic)(const xent_sigmoid_args *a, const NAME(logistic) *b, const T *x,
                                                       ptrdiff_t n, int power, int in_16_bits, xent_wide_sum *sum)
{
    int place[SIGMOID_BLOCK + LANES], found = (int)n;
    for (int k = 0; a->careful && k < found; k++) place[k] = k;
    if (!a->careful) found = NAME(find_odd)(&a->odd, x, n, place);
#if XENT_REAL == 32
    if (!a->careful && found) mend_in_doubles(a, b, x, place, found, power, in_16_bits, sum);
    if (!a->careful) return;
#else
    (void)power;
#endif
    NAME(mend_with_care)(a, b, x, place, found, in_16_bits, sum);
}

/* Three loops of shorter chains of operations keep more of them in flight than one. `in_16_bits`: the results are stored
 * as such. */
static void NAME(logistic_block)(const xent_sigmoid_args *a, NAME(logistic) *b, ptrdiff_t n, int power, int in_16_bits,
                                 NAME(row_sum) *sum, xent_wide_sum *wide)
{
    _Alignas(CACHE_LINE) T e[SIGMOID_BLOCK], log_1_e[SIGMOID_BLOCK], added[SIGMOID_BLOCK], x[SIGMOID_BLOCK];
    const int value = a->value, odd = NAME(exps_of_sizes)(b->x, n, b->raised, b->plain, e) | a->careful;
    if (odd) memcpy(x, b->x, (size_t)n * sizeof(T)); /* the gradient may take their place */
    for (ptrdiff_t i = 0; (value || power != PLAIN) && i < n; i += LANES)
        v_store(log_1_e + i, NAME(log1p_to_1)(v_load(e + i)));
    b->e = e, b->log_1_e = log_1_e, b->added = added;
#define VARIANT(wanted, slope, bend, focus)                                                                            \
    NAME(logistic_loop)(b, n,                                                                                          \
                        (NAME(logistic_variant)){.value = wanted, .gradient = slope, .hess = bend, .power = focus})
#define VARIANTS(power)                                                                                                \
    b->hess   ? VARIANT(0, 1, 1, power)                                                                                \
    : !b->out ? VARIANT(1, 0, 0, power)                                                                                \
    : value   ? VARIANT(1, 1, 0, power)                                                                                \
              : VARIANT(0, 1, 0, power)
    if (power == PLAIN)
        VARIANTS(PLAIN);
    else if (power == SQUARE)
        VARIANTS(SQUARE);
    else
        VARIANTS(POWER);
#undef VARIANT
#undef VARIANTS
    if (odd) NAME(mend_logistic)(a, b, x, n, power, in_16_bits, wide);
    if (value) NAME(add_numbers)(sum, added, n);
}

/* Broadcast factors that repeat within a block are laid out once, so that any stretch of a block is there. */
static void NAME(lay_out)(const xent_factor *f, T *room)
{
    if (f->data && f->repeat == 1 && f->count <= SIGMOID_BLOCK)
        for (ptrdiff_t k = 0; k < SIGMOID_BLOCK + f->count; k++)
            room[k] = k < f->count ? ((const T *)f->data)[k] : room[k - f->count];
}

/* How many elements from i on have factors in one stretch of memory: n at most. */
ALWAYS_INLINE ptrdiff_t NAME(stretch)(const xent_factor *f, ptrdiff_t i, ptrdiff_t n)
{
    return f->data && f->repeat == 1 && f->count > SIGMOID_BLOCK ? xent_min(n, f->count - i % f->count) : n;
}

/* The factors of n elements from i on, in `room` if they must be laid out. */
static const T *NAME(factors)(const xent_factor *f, ptrdiff_t i, ptrdiff_t n, T *room)
{
    const T *data = (const T *)f->data;
    if (!data) return NULL;
    if (f->repeat == 1) return (f->count <= SIGMOID_BLOCK ? room : data) + i % f->count;
    for (ptrdiff_t k = 0, end; k < n; k = end) {
        const T value = data[(i + k) / f->repeat % f->count];
        end = xent_min(n, k + f->repeat - (i + k) % f->repeat);
        for (ptrdiff_t m = k; m < end; m++) room[m] = value;
    }
    return room;
}

/* Integer targets as numbers, -1 where they are ignored. Returns how many count, or -1 if one is neither 0 nor 1. Without a
 * branch, as nobody can predict targets: with one of each it took five times as long as the loss. The
 * numbers are the caller's memory, which another thread may write to: whatever they are, they index nothing. */
#define READ_INTEGERS(bits)                                                                                            \
    static ptrdiff_t NAME(read_i##bits)(const xent_sigmoid_args *a, ptrdiff_t i, ptrdiff_t n, T *t)                    \
    {                                                                                                                  \
        const uint##bits##_t *p = (const uint##bits##_t *)a->target + i;                                               \
        const uint##bits##_t other = (uint##bits##_t)a->ignore_index;                                                  \
        uint##bits##_t bad = 0;                                                                                        \
        ptrdiff_t ignored = 0;                                                                                         \
        if (!a->ignoring) {                                                                                            \
            for (ptrdiff_t k = 0; k < n; k++) bad |= p[k] & (uint##bits##_t) ~1, t[k] = (T)(int)(p[k] & 1);            \
            return bad ? -1 : n;                                                                                       \
        }                                                                                                              \
        for (ptrdiff_t k = 0; k < n; k++) {                                                                            \
            const uint##bits##_t v = p[k];                                                                             \
            ignored += v == other;                                                                                     \
            bad |= v == other ? 0 : v & (uint##bits##_t) ~1;                                                           \
            t[k] = (T)((int)(v & 1) * (v != other) - (v == other));                                                    \
        }                                                                                                              \
        return bad ? -1 : n - ignored;                                                                                 \
    }
READ_INTEGERS(8)
READ_INTEGERS(16)
READ_INTEGERS(32)
READ_INTEGERS(64)
#undef READ_INTEGERS

/* Probabilities of the other type. Returns n, or -1 if one is outside [0, 1]. Clears *exact if one is rounded. */
static ptrdiff_t NAME(read_floats)(const NAME(other_real) *p, ptrdiff_t n, T *t, int *exact)
{
    int good = 1;
    ptrdiff_t k = 0;
#if XENT_REAL == 32
    const vf64 zero = {0}, one = set_f64(1);
    vm64 fine = m_eq(zero, zero), kept = fine;
    for (; k + LANES <= n; k += LANES) {
        const vf64 a = v_load(p + k), b = v_load(p + k + LANES / 2);
        const vf32 v = v_narrow(a, b);
        fine &= (m_ge(a, zero) & m_ge(one, a)) & (m_ge(b, zero) & m_ge(one, b));
        kept &= m_eq(v_widen_lo(v), a) & m_eq(v_widen_hi(v), b);
        v_store(t + k, v);
    }
    good = !m_any((vm64)~fine), *exact &= !m_any((vm64)~kept);
#endif
    for (; k < n; k++) good &= (p[k] >= 0) & (p[k] <= 1), t[k] = (T)p[k], *exact &= t[k] == p[k];
    return good ? n : XENT_BAD_TARGET;
}

/* n if all of n numbers are in [0, 1], else -1. */
static ptrdiff_t NAME(check_targets)(const T *t, ptrdiff_t n)
{
    const V zero = {0}, one = NAME(set)(1);
    VM good = m_eq(zero, zero);
    ptrdiff_t k = 0;
    for (; k + 4 * LANES <= n; k += 4 * LANES) { /* four that do not wait for each other */
        VM fine[4];
        for (int i = 0; i < 4; i++) {
            const V v = v_load(t + k + i * LANES);
            fine[i] = m_ge(v, zero) & m_ge(one, v);
        }
        good &= (fine[0] & fine[1]) & (fine[2] & fine[3]);
    }
    for (; k < n; k += LANES) {
        const V v = NAME(load)(t + k, n - k, zero);
        good &= m_ge(v, zero) & m_ge(one, v);
    }
    return m_any((VM)~good) ? -1 : n;
}

static NAME(logistic) NAME(logistic_of)(const xent_sigmoid_args *a)
{
    NAME(logistic) b = {0};
    b.mix = NAME(set)((T)a->mix), b.base = NAME(set)((T)a->base), b.smooth = a->base != 0;
    b.alpha_1 = NAME(set)((T)a->alpha_1), b.alpha_0 = NAME(set)((T)a->alpha_0);
    b.balanced = a->alpha_1 != 1 || a->alpha_0 != 1;
    b.gamma = NAME(set)((T)a->gamma), b.gamma_low = NAME(set)((T)(a->gamma - (T)a->gamma)), b.squared = a->gamma == 2;
    b.gradient_scale = NAME(set)((T)a->gradient_scale);
    b.plain = NAME(set)((T)a->odd.plain), b.curvature = a->curvature;
    b.raised = NAME(scale_of)(NAME(set)(-HEAD_START));
    b.ignoring = a->ignoring;
    return b;
}
#endif

/* The targets of n elements from i on, in `room` if they are not of the type T; *counted is how many count, -1 if one
 * is bad. */
static const T *KERNEL(targets)(const xent_sigmoid_args *a, ptrdiff_t i, ptrdiff_t n, T *room, ptrdiff_t *counted,
                                int *exact)
{
    const V zero = {0};
    const T *t = room;
    switch (a->target_code) {
    case XENT_I8: *counted = NAME(read_i8)(a, i, n, room); return t;
    case XENT_I16: *counted = NAME(read_i16)(a, i, n, room); return t;
    case XENT_I32: *counted = NAME(read_i32)(a, i, n, room); return t;
    case XENT_I64: *counted = NAME(read_i64)(a, i, n, room); return t;
    case OTHER_CODE: *counted = NAME(read_floats)((const NAME(other_real) *)a->target + i, n, room, exact); return t;
    case OWN_CODE: t = (const T *)a->target + i; break;
    default: /* the type of the logits */
        for (ptrdiff_t k = 0; k < n; k += LANES)
            v_store(room + k, KERNEL(load)((const S *)a->target + i + k, n - k, zero));
    }
    *counted = NAME(check_targets)(t, n);
    return t;
}

static void KERNEL(sigmoid_cross_entropy)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_sigmoid_args *a = (const xent_sigmoid_args *)args;
    const ptrdiff_t first = chunk * a->chunk, end = xent_min(first + a->chunk, a->size);
    const int power = a->gamma == 0 ? PLAIN : a->gamma == 1 || a->gamma == 2 ? SQUARE : POWER;
    _Alignas(CACHE_LINE) T targets[SIGMOID_BLOCK], weights[2 * SIGMOID_BLOCK], pos_weights[2 * SIGMOID_BLOCK],
        upstream[2 * SIGMOID_BLOCK];
    NAME(logistic) b = NAME(logistic_of)(a);
    NAME(row_sum) sum;
    xent_wide_sum wide = {.sum = 0};
    int64_t counted = 0;
    int exact = 1;
    (void)scratch;
    NAME(start_row_sum)(&sum);
    NAME(lay_out)(&a->weight, weights), NAME(lay_out)(&a->pos_weight, pos_weights),
        NAME(lay_out)(&a->upstream, upstream);
    for (ptrdiff_t i = first, n; i < end; i += n) {
        ptrdiff_t good;
        n = NAME(stretch)(&a->weight, i, NAME(stretch)(&a->pos_weight, i, xent_min(SIGMOID_BLOCK, end - i)));
        KERNEL(fetch_ahead)((const S *)a->x + i, n);
        if (a->out) KERNEL(fetch_ahead)((const S *)a->out + i, n);
        b.t = KERNEL(targets)(a, i, n, targets, &good, &exact);
        counted = good < 0 || counted < 0 ? XENT_BAD_TARGET : counted + good;
        if (!a->value && !a->out) continue;
        b.weight = NAME(factors)(&a->weight, i, n, weights),
        b.pos_weight = NAME(factors)(&a->pos_weight, i, n, pos_weights);
        b.upstream = NAME(factors)(&a->upstream, i, n, upstream);
        b.losses = a->losses ? (T *)a->losses + i : NULL;
#ifdef STORED_AS_16
        const V zero = {0};
        T x[SIGMOID_BLOCK], hess[SIGMOID_BLOCK];
        for (ptrdiff_t k = 0; k < n; k += LANES) v_store(x + k, KERNEL(load)((const S *)a->x + i + k, n - k, zero));
        b.x = x, b.out = a->out ? x : NULL, b.hess = a->hess ? hess : NULL;
        NAME(logistic_block)(a, &b, n, power, 1, &sum, &wide);
        for (ptrdiff_t k = 0; a->out && k < n; k += LANES) KERNEL(store)((S *)a->out + i + k, v_load(x + k), n - k);
        for (ptrdiff_t k = 0; a->hess && k < n; k += LANES)
            KERNEL(store)((S *)a->hess + i + k, v_load(hess + k), n - k);
#else
        b.x = (const T *)a->x + i, b.out = a->out ? (T *)a->out + i : NULL;
        b.hess = a->hess ? (T *)a->hess + i : NULL;
        NAME(logistic_block)(a, &b, n, power, 0, &sum, &wide);
#endif
    }
    a->partial[chunk] = NAME(row_total)(&sum), a->wide[chunk] = wide;
    const int only_checked = !a->value && !a->out; /* another thread may change targets before they are worked on */
    a->counted[chunk] = exact || counted < 0 || !only_checked ? counted : XENT_ROUNDED_TARGET;
}

#endif
