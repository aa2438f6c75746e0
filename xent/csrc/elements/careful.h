/* careful.h: one element of each loss in numbers whose exponents do not end (wide.h): loss, gradient and second
 * derivative with all their factors, rounded once by who takes them. The loops over vectors come here for elements of
 * which they could lose something, and for all of a call with odd factors; the formulas are those of points.h and
 * sigmoid.h.
 */
#include "begin.h"
#include "simd/exp.h"
#include "simd/log.h"
#include "simd/real.h"
#include "simd/sums.h"
#include "table.h"
#include "wide.h"

#if !defined(XENT_CAREFUL_H) && XENT_REAL == 64 && !defined(STORED_AS_16)
#define XENT_CAREFUL_H

#define MENDED 64 /* odd elements at a time: what they need stays within a few KiB of the stack */

/* e^x. Beyond +-WIDE_EXP the result is as good as 0 or infinite: e^-5600 = 2^-8079 vanishes beside a product of seven
 * doubles. exp_mantissa takes half of that: e^x is the square of e^(x / 2). */
#define WIDE_EXP 5600
SELDOM wide wide_exp(double x)
{
    const int halved = fabs(x) > WIDE_EXP / 2;
    const vf64 given = set_f64(halved ? x / 2 : x);
    vi64 n;
    if (!(fabs(x) <= WIDE_EXP)) return (wide){.m = x != x ? x : x > 0 ? INFINITY : 0, .exponent = 0};
    const double m = exp_mantissa_f64(given, given, 0, set_f64(MAGIC), &n)[0];
    const int64_t exponent = n[0] - MAGIC_BITS;
    return halved ? wide_of_parts(m * m, 2 * exponent) : wide_of_parts(m, exponent);
}

SELDOM double log_of_double(double v) { return log_f64(set_f64(v))[0]; }

/* log(1 - v) of 0 <= v <= 1. */
SELDOM double log_of_rest(double v)
{
    const double rest = 1 - v;
    return log_of_sum_f64(set_f64(rest), set_f64((1 - rest) - v))[0];
}

/* a^power of 0 <= a <= 1, power >= 0. With a = 2^k m, m from sqrt(1/2) to sqrt 2: m^power 2^(k power), the second
 * exponent as an integer and a rest. */
#define WIDE_OCTAVES 16000 /* 2^-16000 vanishes, and so does its root: m^power is no larger; beyond 1 are bad targets */
SELDOM wide wide_power(wide a, double power)
{
    if (power == 0) return (wide){.m = 1, .exponent = 0};
    if (power == 1 || !(a.m > 0) || isinf(a.m)) return a;
    if (power == 2) return wide_product(a, a);
    const int up = a.m > 0x1.6a09e667f3bcdp0;
    const double k = (double)(a.exponent + up), octaves = k * power;
    if (!(octaves >= -WIDE_OCTAVES && octaves <= WIDE_OCTAVES))
        return (wide){.m = octaves < 0 ? 0 : INFINITY, .exponent = 0};
    const double whole = (octaves + MAGIC) - MAGIC;
    const double rest = (octaves - whole) + product_error_f64(set_f64(k), set_f64(power), set_f64(octaves))[0];
    const wide fraction = wide_exp(power * log_of_double(up ? a.m / 2 : a.m) + rest * LN2);
    return wide_of_parts(fraction.m, fraction.exponent + (int64_t)whole);
}

typedef struct {
    wide loss, gradient, hess;
} careful_loss;

/* The factor of all gradients. */
SELDOM wide careful_scale(const xent_loss *o)
{
    const wide divisor = wide_product(wide_of(o->unit), wide_of(o->divisor == 0 ? 1 : o->divisor));
    return wide_quotient(wide_of(o->factor), divisor);
}

SELDOM careful_loss careful_squared_error(double x, double t)
{
    const wide d = wide_sum(wide_of(x), wide_of(-t));
    return (careful_loss){.loss = wide_product(d, d), .gradient = wide_sum(d, d)};
}

SELDOM careful_loss careful_cross_entropy(double p, double t, double clip)
{
    const int below = clip != 0 && p < clip, above = clip != 0 && p > 1;
    const double log_p = below ? log_of_double(clip) : above ? 0 : log_of_double(p);
    careful_loss l = {.loss = wide_times(wide_of(t), wide_of(0 - log_p))};
    if (below || above || t == 0)
        l.gradient = wide_of(p == p ? 0 : p);
    else
        l.gradient = wide_quotient(wide_of(-t), wide_of(p + 0.0)); /* -0 counts as 0 */
    return l;
}

SELDOM careful_loss careful_divergence(double x, wide t, double log_t)
{
    const double bounded = log_t < -LARGEST ? -LARGEST : log_t; /* 0 log 0 = 0 */
    return (careful_loss){.loss = wide_times(t, wide_sum(wide_of(bounded), wide_of(-x))), .gradient = wide_negative(t)};
}

SELDOM careful_loss careful_binary_cross_entropy(double p, double t, double clip)
{
    const double q = 1 - p;
    const int low = clip != 0 && p < clip, high = clip != 0 && q < clip;
    const double log_p = low ? log_of_double(clip) : high ? log_of_rest(clip) : log_of_double(p);
    const double log_q = high ? log_of_double(clip) : low ? log_of_rest(clip) : log_of_rest(p);
    careful_loss l;
    if (t == 0 || t == 1) {
        l.loss = wide_of(0 - (t == 1 ? log_p : log_q));
        l.gradient = wide_quotient(wide_of(t == 1 ? -1 : 1), wide_of((t == 1 ? p : q) + 0.0));
    } else {
        l.loss = wide_sum(wide_product(wide_of(-t), wide_of(log_p)), wide_product(wide_of(t - 1), wide_of(log_q)));
        l.gradient = wide_quotient(wide_sum(wide_of(p), wide_of(-t)), wide_product(wide_of(p), wide_of(q)));
    }
    if (low || high) l.gradient = (wide){0};
    return l;
}

/* One element of a loss of two numbers, with its weight, which is not 0; the gradient with all its factors. */
SELDOM careful_loss careful_point(const xent_loss *o, double x, double t, double weight, double upstream)
{
    careful_loss l = {.loss = {0}};
    switch (o->kind) {
    case XENT_MSE: l = careful_squared_error(x, t); break;
    case XENT_BINARY_CROSS_ENTROPY: l = careful_binary_cross_entropy(x, t, o->clip); break;
    case XENT_CROSS_ENTROPY: l = careful_cross_entropy(x, t, o->clip); break;
    case XENT_KL_DIV: l = careful_divergence(x, wide_of(t), log_of_double(t)); break;
    case XENT_KL_DIV_LOG: l = careful_divergence(x, wide_exp(t), t); break;
    default: break; /* the entropy has no gradient, and losses of labels are doubles from the start */
    }
    l.loss = wide_product(l.loss, wide_of(weight));
    l.gradient =
        wide_product(wide_product(l.gradient, wide_of(weight)), wide_product(careful_scale(o), wide_of(upstream)));
    return l;
}

/* ---- sigmoid cross-entropy (sigmoid.h) ---- */

/* The factors and the sigmoid of one element. */
typedef struct {
    wide a, c;              /* w c t and w (1 - t), both times alpha_t */
    wide p, r;              /* sigmoid(z), sigmoid(-z) */
    wide u;                 /* 1 - p_t */
    wide plain_loss, slope; /* without the focal factor */
    double lean;            /* (1 - t) - t */
} careful_sigmoid;

SELDOM careful_sigmoid sigmoid_with_care(const xent_sigmoid_args *a, double z, double given, double weight,
                                         double positive)
{
    const double t = a->mix * given + a->base, s = a->mix * (1 - given) + a->base, size = fabs(z);
    const wide w = wide_product(wide_of(weight), wide_of(a->alpha_1 * t + a->alpha_0 * s));
    const wide e = wide_exp(-size), larger = wide_of(1 / (1 + wide_as_double(e))), smaller = wide_product(e, larger);
    /* where log1p(e) is e to the last bit */
    const wide log_1_e = size > 40 ? e : wide_of(log1p_to_1_f64(set_f64(wide_as_double(e)))[0]);
    careful_sigmoid l;
    l.a = wide_product(wide_product(w, wide_of(t)), wide_of(positive)), l.c = wide_product(w, wide_of(s));
    l.p = z >= 0 ? larger : smaller, l.r = z >= 0 ? smaller : larger;
    l.u = wide_sum(wide_product(wide_of(t), l.r), wide_product(wide_of(s), l.p));
    l.lean = s - t;
    l.plain_loss = wide_sum(wide_product(wide_sum(l.a, l.c), log_1_e), wide_times(z >= 0 ? l.c : l.a, wide_of(size)));
    l.slope = wide_sum(wide_product(l.c, l.p), wide_negative(wide_product(l.a, l.r)));
    return l;
}

/* The second derivative, by which rule ever, divided by u^gamma; q = p r / u. */
SELDOM wide curvature_with_care(const xent_sigmoid_args *a, const careful_sigmoid *l, wide q)
{
    const wide plain = wide_product(wide_sum(l->a, l->c), wide_product(l->p, l->r)),
               gamma_q = wide_product(wide_of(a->gamma), q);
    if (a->gamma == 0) return plain;
    if (a->curvature == XENT_GAUSS_NEWTON) {
        const wide push = wide_product(gamma_q, wide_product(wide_of(l->lean * l->lean), q));
        return wide_sum(plain, wide_times(push, l->plain_loss));
    }
    const wide lean = wide_of(l->lean), twice = wide_product(wide_of(2 * l->lean), l->slope);
    const wide bend = wide_sum(wide_product(wide_product(wide_of((a->gamma - 1) * l->lean), lean), q),
                               wide_product(lean, wide_sum(l->r, wide_negative(l->p))));
    return wide_sum(plain, wide_times(gamma_q, wide_sum(wide_times(bend, l->plain_loss), twice)));
}

SELDOM careful_loss careful_logistic(const xent_sigmoid_args *a, double z, double given, double weight, double positive,
                                     double upstream)
{
    careful_loss result = {.loss = {0}};
    if (weight == 0 || given < 0) return result; /* it is not there */
    const careful_sigmoid l = sigmoid_with_care(a, z, given, weight, positive);
    const wide power = wide_power(l.u, a->gamma), pr = wide_product(l.p, l.r);
    const wide q = l.u.m == 0 ? (wide){.m = 1, .exponent = 0} : wide_quotient(pr, l.u);
    const wide scale =
        wide_product(wide_quotient(wide_of(a->factor), wide_of(a->divisor == 0 ? 1 : a->divisor)), wide_of(upstream));
    wide slope = wide_product(power, l.slope);
    if (a->gamma != 0)
        slope =
            wide_sum(slope, wide_times(wide_product(wide_product(wide_of(a->gamma * l.lean), power), q), l.plain_loss));
    result.loss = wide_product(l.plain_loss, power);
    result.gradient = wide_product(slope, scale);
    if (a->curvature == XENT_ABSOLUTE)
        result.hess = result.gradient, result.hess.m = fabs(result.hess.m);
    else if (a->curvature != XENT_NO_CURVATURE)
        result.hess = wide_product(wide_product(power, curvature_with_care(a, &l, q)), scale);
    return result;
}

#endif
