/* probabilities.h: losses that are sums of a function of two numbers, over all elements or over the classes of each position; and
 * the distillation loss.
 *
 * Design: a point function gives one element's loss as a product share * cost, which is added up in double (of floats it is exact
 * there: no overflow, no rounding), and its gradient. Two loops use it: loss_row() over elements, for the sum over everything and for
 * losses of elements, whatever the class axis is; class_sums() over the classes of a tile, for losses of positions. Value, gradient or
 * both come out of one pass.
 */

#ifndef STORED_AS_16

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
    if (clip == 0) return (NAME(bounds)){zero - infinity, infinity, zero, zero, infinity};
    T floor = (T)clip;
    if ((double)floor < clip) {
        I bits;
        memcpy(&bits, &floor, sizeof bits);
        bits++; /* the next larger number */
        memcpy(&floor, &bits, sizeof bits);
    }
    return (NAME(bounds)){NAME(set)(floor), NAME(set)(1), NAME(set)((T)log(clip)), NAME(set)((T)log1p(-clip)), zero};
}

typedef struct {
    V share, cost; /* loss = share * cost */
    V gradient;    /* `scale` times the derivative */
} NAME(loss);
/* What a loss has to know first, a logarithm or an exponential; a few vectors of it are made in a loop of their own: in one with the rest,
 * each turn would wait for it. And the rest. Both are constants at every call. */
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
    return (NAME(loss)){d, d, (scale + scale) * d};
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
    return (NAME(loss)){t, NAME(counted)(t, zero - log_p), v_select(m_eq(numerator, zero), v_select(m_eq(p, p), zero, p), quotient)};
}

/* -p log p */
ALWAYS_INLINE NAME(loss) NAME(entropy_point)(V p, V t, V log, const NAME(bounds) *b, V scale)
{
    const V zero = {0};
    (void)t, (void)b, (void)scale;
    return (NAME(loss)){p, NAME(counted)(p, zero - log), zero};
}

/* t (log t - x), x a log-probability                                 d/dx = -t */
ALWAYS_INLINE NAME(loss) NAME(divergence)(V x, V t, V log_t, V scale)
{
    const V zero = {0};
    return (NAME(loss)){t, NAME(counted)(t, v_max(NAME(set)(-LARGEST), log_t) - x), zero - t * scale};
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

/* -t log p - (1 - t) log q, q = 1 - p                                d/dp = (p - t) / (p q), which is -1 / p for t = 1 and 1 / q for
 *                                                                    t = 0 without rounding; 0 where p is clipped
 * Where all targets of a vector are 0 or 1, one logarithm does: that of the probability of the target. */
ALWAYS_INLINE V NAME(log_of_own)(V p, V t)
{
    const V one = NAME(set)(1), zero = {0}, q = one - p;
    const VM yes = m_eq(t, one);
    return NAME(log_of_sum)(v_select(yes, p, q) + (t - t), v_select(yes, zero, NAME(sum_error)(one, zero - p, q))); /* NaN if t is */
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
        const V log_q = v_select(high, b->log_floor, v_select(low, b->log_ceiling, log_own)); /* where t is 1, it does not count */
        cost = zero - t * NAME(counted)(t, log_p) - (one - t) * NAME(counted)(one - t, log_q);
    }
    const V numerator = v_select(yes, zero - one, v_select(no, one, p - t));
    const V denominator = v_select(yes, p, v_select(no, q, p * q));
    const V gradient = numerator * scale / (denominator + zero);
    return (NAME(loss)){one, cost, v_select(low, zero, v_select(high, zero, gradient))};
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

/* ---- elements ------------------------------------------------------------------------------------------------------------- */

/* A row, or a piece of one. */
typedef struct {
    const S *x, *target;
    S *out;
    const T *weight, *upstream;
    T *losses;
    int one_weight; /* for all of the row */
    V scale, unit;
    NAME(bounds) bounds;
} KERNEL(loss_row);

/* At most a vector of elements. `value` and `gradient` (what is wanted), `weighted` and the point are constants at every call. */
ALWAYS_INLINE void KERNEL(loss_vector)(const KERNEL(loss_row) *r, ptrdiff_t i, ptrdiff_t n, V log, NAME(sum) *sum,
                                       NAME(loss_point) point, int weighted, int value, int gradient)
{
    const V zero = {0};
    NAME(loss) l = point(KERNEL(load)(r->x + i, n, zero), KERNEL(load)(r->target + i, n, zero), log, &r->bounds, r->scale);
    if (weighted && r->weight) {
        const V weight = r->one_weight ? NAME(set)(*r->weight) : NAME(load)(r->weight + i, n, zero);
        l.share = l.share * weight;
        l.cost = NAME(counted)(weight, l.cost);
        l.gradient = weight * NAME(counted)(weight, l.gradient);
    }
    if (value) {
        if (n < LANES) { /* past the end of the row, where costs are finite, the share is 0 */
            T share[LANES];
            v_store(share, l.share);
            l.share = NAME(load)(share, n, zero);
        }
        NAME(sum_add_product)(sum, l.share, l.cost);
        if (r->losses) NAME(store)(r->losses + i, l.share * l.cost / r->unit, n);
    }
    if (gradient) {
        if (r->upstream) l.gradient = l.gradient * NAME(load)(r->upstream + i, n, zero);
        KERNEL(store)(r->out + i, l.gradient, n);
    }
}

ALWAYS_INLINE void KERNEL(loss_vectors)(const KERNEL(loss_row) *r, ptrdiff_t n, NAME(sum) *sum, NAME(loss_log) first,
                                        NAME(loss_point) point, int weighted, int value, int gradient)
{
    const V zero = {0};
    V log[AHEAD];
    ptrdiff_t i = 0;
    for (; i + AHEAD * LANES <= n; i += AHEAD * LANES) {
        for (int k = 0; k < AHEAD; k++)
            log[k] = first(KERNEL(load)(r->x + i + k * LANES, LANES, zero), KERNEL(load)(r->target + i + k * LANES, LANES, zero));
        for (int k = 0; k < AHEAD; k++) KERNEL(loss_vector)(r, i + k * LANES, LANES, log[k], sum, point, weighted, value, gradient);
    }
    for (; i < n; i += LANES) {
        log[0] = first(KERNEL(load)(r->x + i, n - i, zero), KERNEL(load)(r->target + i, n - i, zero));
        KERNEL(loss_vector)(r, i, n - i, log[0], sum, point, weighted, value, gradient);
    }
}

static void KERNEL(row_losses)(const xent_loss_args *a, const KERNEL(loss_row) *r, ptrdiff_t n, NAME(sum) *sum)
{
#define WANTED(loss, log, weighted)                                                                                           \
    if (!r->out)                                                                                                         \
        KERNEL(loss_vectors)(r, n, sum, NAME(log), NAME(loss##_point), weighted, 1, 0);                                       \
    else if (!a->partial)                                                                                                \
        KERNEL(loss_vectors)(r, n, sum, NAME(log), NAME(loss##_point), weighted, 0, 1);                                       \
    else                                                                                                                 \
        KERNEL(loss_vectors)(r, n, sum, NAME(log), NAME(loss##_point), weighted, 1, 1);                                       \
    return
    switch (a->loss) {
    case XENT_MSE: WANTED(mse, no_log, 0);
    case XENT_BINARY_CROSS_ENTROPY: WANTED(binary_cross_entropy, log_of_own, 1);
    case XENT_CROSS_ENTROPY: WANTED(cross_entropy, log_of_x, 0);
    case XENT_KL_DIV: WANTED(kl_div, log_of_target, 0);
    case XENT_KL_DIV_LOG: WANTED(kl_div_log, exp_of_target, 0);
    }
#undef WANTED
}

/* Where element i of row f * per + o lies. */
ALWAYS_INLINE ptrdiff_t KERNEL(place)(const xent_operand *operand, ptrdiff_t f, ptrdiff_t o, ptrdiff_t i)
{
    return f * operand->far + o * operand->outer + i * operand->stride;
}

static void KERNEL(element_losses)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_loss_args *a = (const xent_loss_args *)args;
    const ptrdiff_t pieces = (a->length + a->piece - 1) / a->piece;
    const ptrdiff_t first = chunk / pieces * a->chunk, i = chunk % pieces * a->piece;
    NAME(sum) sum = {{0}, {0}};
    KERNEL(loss_row) r;
    (void)scratch;
    r.bounds = NAME(bounds_of)(a->clip);
    r.scale = NAME(set)((T)a->gradient_scale), r.unit = NAME(set)((T)a->unit);
    r.one_weight = a->weight.stride == 0;
    for (ptrdiff_t row = first; row < xent_least(first + a->chunk, a->rows); row++) {
        const ptrdiff_t o = row % a->per, f = row / a->per;
        r.x = (const S *)a->x.data + KERNEL(place)(&a->x, f, o, i);
        r.target = (const S *)a->target.data + KERNEL(place)(&a->target, f, o, i);
        r.out = a->out.data ? (S *)a->out.data + KERNEL(place)(&a->out, f, o, i) : NULL;
        r.weight = a->weight.data ? (const T *)a->weight.data + KERNEL(place)(&a->weight, f, o, i) : NULL;
        r.upstream = a->upstream.data ? (const T *)a->upstream.data + KERNEL(place)(&a->upstream, f, o, i) : NULL;
        r.losses = a->losses.data ? (T *)a->losses.data + KERNEL(place)(&a->losses, f, o, i) : NULL;
        KERNEL(row_losses)(a, &r, xent_least(a->piece, a->length - i), &sum);
    }
    if (a->partial) a->partial[chunk] = NAME(sum_total)(&sum);
}

/* ---- positions ------------------------------------------------------------------------------------------------------------ */

/* The factor of the gradient of a position. */
ALWAYS_INLINE double KERNEL(gradient_factor)(const xent_softmax_args *a, ptrdiff_t position)
{
    return a->gradient_scale * (a->upstream ? a->upstream[position] : 1.0);
}

/* Hand out the losses of a tile, into their sum and into a->per_position; `loss` has room for whole vectors. */
static void KERNEL(deliver_losses)(const xent_softmax_args *a, double *loss, ptrdiff_t first, ptrdiff_t n, sum_f64 *losses)
{
    for (ptrdiff_t p = n; p % LANES_F64; p++) loss[p] = 0;
    for (ptrdiff_t p = 0; p < n; p += LANES_F64) sum_add_f64(losses, v_load(loss + p));
    for (ptrdiff_t p = 0; a->per_position && p < n; p++) ((T *)a->per_position)[first + p] = (T)(loss[p] / a->unit);
}

/* Vectors of a tile, `count` at most AHEAD, of n numbers each: neighbouring classes of a position, or a vector of positions over the
 * classes. From the places x, aux and out on, a `step` of each apart. */
typedef struct {
    ptrdiff_t x, aux, out;
} KERNEL(places);

ALWAYS_INLINE void KERNEL(class_vectors)(const KERNEL(tile) *t, KERNEL(places) at, KERNEL(places) step, int count, ptrdiff_t n, V scale,
                                         const NAME(bounds) *bounds, NAME(sum) *sum, NAME(loss_log) first, NAME(loss_point) point,
                                         int gradient)
{
    const V zero = {0};
    V log[AHEAD];
    for (int k = 0; k < count; k++)
        log[k] = first(KERNEL(load)(t->x + at.x + k * step.x, n, zero), t->aux ? KERNEL(load)(t->aux + at.aux + k * step.aux, n, zero) : zero);
    for (int k = 0; k < count; k++, at.x += step.x, at.aux += step.aux, at.out += step.out) {
        const V x = KERNEL(load)(t->x + at.x, n, zero), target = t->aux ? KERNEL(load)(t->aux + at.aux, n, zero) : zero;
        const NAME(loss) l = point(x, target, log[k], bounds, scale);
        NAME(sum_add_product)(sum, l.share, l.cost); /* past the end both numbers are 0, and so is the loss */
        if (gradient) KERNEL(store)(t->out + at.out, l.gradient, n);
    }
}

/* The losses of the positions of a tile, and the gradient. `first`, `point` and `gradient` are constants at every call. */
ALWAYS_INLINE void KERNEL(class_sums)(const xent_softmax_args *a, const KERNEL(tile) *t, double *loss, NAME(loss_log) first,
                                      NAME(loss_point) point, int gradient)
{
    const NAME(bounds) bounds = NAME(bounds_of)(a->clip);
    const ptrdiff_t per = t->rows ? LANES : 1;
    const KERNEL(places) rows = {LANES, LANES, LANES}, columns = {t->x_step, t->aux_step, t->out_step}, step = t->rows ? rows : columns;
    T scale[TILE];
    for (ptrdiff_t p = 0; p < t->n; p++) scale[p] = (T)KERNEL(gradient_factor)(a, t->first + p);
    for (ptrdiff_t p = t->n; p % LANES; p++) scale[p] = 0;
    for (ptrdiff_t p = 0; p < t->n; p += t->rows ? 1 : LANES) {
        const V factor = t->rows ? NAME(set)(scale[p]) : v_load(scale + p);
        const ptrdiff_t n = t->rows ? LANES : xent_least(LANES, t->n - p);
        KERNEL(places) at = t->rows ? (KERNEL(places)){p * t->x_step, p * t->aux_step, p * t->out_step} : (KERNEL(places)){p, p, p};
        NAME(sum) sum = {{0}, {0}};
        ptrdiff_t c = 0;
        for (; c + AHEAD * per <= a->classes; c += AHEAD * per) {
            KERNEL(class_vectors)(t, at, step, AHEAD, n, factor, &bounds, &sum, first, point, gradient);
            at.x += AHEAD * step.x, at.aux += AHEAD * step.aux, at.out += AHEAD * step.out;
        }
        for (; c < a->classes; c += per, at.x += step.x, at.aux += step.aux, at.out += step.out)
            KERNEL(class_vectors)(t, at, step, 1, t->rows ? a->classes - c : n, factor, &bounds, &sum, first, point, gradient);
        if (t->rows)
            loss[p] = NAME(sum_total)(&sum);
        else
            NAME(sum_lanes)(&sum, loss + p, NULL);
    }
}

static void KERNEL(position_losses_tile)(const xent_softmax_args *a, const KERNEL(tile) *t, sum_f64 *losses)
{
    double loss[TILE];
#define WANTED(name, log)                                                                                                \
    if (t->out)                                                                                                          \
        KERNEL(class_sums)(a, t, loss, NAME(log), NAME(name##_point), 1);                                                \
    else                                                                                                                 \
        KERNEL(class_sums)(a, t, loss, NAME(log), NAME(name##_point), 0);                                                \
    break
    switch (a->loss) {
    case XENT_CROSS_ENTROPY: WANTED(cross_entropy, log_of_x);
    case XENT_KL_DIV: WANTED(kl_div, log_of_target);
    case XENT_KL_DIV_LOG: WANTED(kl_div_log, exp_of_target);
    default: WANTED(entropy, log_of_x);
    }
#undef WANTED
    KERNEL(deliver_losses)(a, loss, t->first, t->n, losses);
}

TILE_KERNEL(position_losses)

/* ---- distillation ---------------------------------------------------------------------------------------------------------
 *
 * With the probabilities q of the teacher and p of the student, logits t and s (divided by the temperature T):
 *
 *   d_c    = log q_c - log p_c = (t_c - s_c) - D,             D = logsumexp(t) - logsumexp(s)
 *   KL     = sum_c q_c d_c = sum_c q_c (d_c + e^-d_c - 1)     as sum_c q_c e^-d_c = sum_c p_c = 1
 *   loss   = T^2 KL                                           dloss/dlogits = T (p_c - q_c), p_c - q_c = q_c (e^-d_c - 1)
 *
 * No term of the second sum is negative: nothing cancels where the student is nearly the teacher. For small |d|, e^-d - 1 and
 * e^-d - 1 + d come from the polynomial of the exponential; else the term is q (d - 1) + p.
 *
 * A rounding error of D moves all d_c by the same number. It shows in E = sum_c q_c (e^-d_c - 1), which should be 0: the error is
 * -log(1 + E), the true sum is less by E - log(1 + E) = E^2 / 2, and the gradient is taken with d_c + E.
 */

#ifndef STORED_AS_16

/* E1 = e^r - 1 and F = e^r - 1 - r for |r| <= REACH, from those of h = r / 8, at most ln 2 / 2: with h doubled,
 * F becomes 2 F + E1^2, a sum of positive terms, and E1 = r + F. */
#define REACH ((T)2.75)
ALWAYS_INLINE V NAME(exp_minus_1)(V r, V *beyond)
{
    const V two = NAME(set)(2);
    V h = r * NAME(set)((T)0.125), q = NAME(set)(NAME(exp_q)[EXP_DEGREE]);
    for (int k = EXP_DEGREE - 1; k >= 0; k--) q = v_fma(q, h, NAME(set)(NAME(exp_q)[k]));
    V f = h * h * q, e = h + f;
    for (int k = 0; k < 3; k++) {
        f = v_fma(e, e, two * f);
        h = two * h;
        e = h + f;
    }
    *beyond = f;
    return e;
}

/* What is known of a position, or a vector of them. */
typedef struct {
    V high, low;         /* D = high + low */
    V student, teacher;  /* p_c = e_c * student */
} NAME(pair);

typedef struct {
    V term, gap; /* q (d + e^-d - 1), p - q */
} NAME(distilled);

/* e_s and e_t are the exponentials. Where the teacher's probability is 0, so is q d, and p is left: also where both logits are
 * -infinity. */
ALWAYS_INLINE NAME(distilled) NAME(distill)(V s, V t, V e_s, V e_t, const NAME(pair) *c)
{
    const V zero = {0}, one = NAME(set)(1), infinity = NAME(set)((T)INFINITY);
    const V p = e_s * c->student, q = e_t * c->teacher;
    const V u = t - s, error = v_select(m_gt(infinity, v_abs(u)), NAME(sum_error)(t, zero - s, u), zero);
    const V d = ((u - c->high) + error) - c->low;
    V beyond;
    const V e = NAME(exp_minus_1)(zero - d, &beyond);
    const VM near = m_ge(NAME(set)(REACH), v_abs(d)), nothing = m_eq(q, zero);
    const V term = v_select(near, q * beyond, v_fma(q, d - one, p)), gap = v_select(near, q * e, p - q);
    return (NAME(distilled)){v_select(nothing, p, term), v_select(nothing, p, gap)};
}

/* Some positions of both, in scratch. */
typedef struct {
    T *student, *teacher, *student_exps, *teacher_exps;
    ptrdiff_t step, n, classes;
    int across; /* whether vectors go across the positions: step lies from class to class, else from position to position */
} NAME(pairs);

ALWAYS_INLINE NAME(pair) NAME(pair_at)(const NAME(stats) *s, const NAME(stats) *t, const T *low, ptrdiff_t p, int across)
{
    T student[LANES], teacher[LANES];
    for (int k = 0; k < (across ? LANES : 1); k++)
        student[k] = (T)(s->unit[p + k] * s->inverse[p + k]), teacher[k] = (T)(t->unit[p + k] * t->inverse[p + k]);
    if (!across) return (NAME(pair)){NAME(set)(t->top[p] - s->top[p]), NAME(set)(low[p]), NAME(set)(*student), NAME(set)(*teacher)};
    return (NAME(pair)){v_load(t->top + p) - v_load(s->top + p), v_load(low + p), v_load(student), v_load(teacher)};
}

/* What D is more than the difference of the largest logits. */
static void NAME(low_differences)(const NAME(stats) *s, const NAME(stats) *t, T *low, ptrdiff_t n)
{
    for (ptrdiff_t p = 0; p < n; p += LANES) {
        const V a = v_load(t->top + p), b = (V){0} - v_load(s->top + p);
        const V logs = (v_load(t->log_total + p) - v_load(s->log_total + p)) + (v_load(t->log_low + p) - v_load(s->log_low + p));
        v_store(low + p, NAME(sum_error)(a, b, a + b) + logs);
    }
}

/* The divergences of some positions. */
static void NAME(divergences)(const NAME(pairs) *d, const NAME(stats) *s, const NAME(stats) *t, T *low, double *loss)
{
    const ptrdiff_t count = d->across ? d->classes : (d->classes + LANES - 1) / LANES, stride = d->across ? d->step : LANES;
    for (ptrdiff_t p = 0; p < d->n; p += d->across ? LANES : 1) {
        const NAME(pair) pair = NAME(pair_at)(s, t, low, p, d->across);
        const ptrdiff_t first = d->across ? p : p * d->step;
        NAME(sum) sum = {{0}, {0}}, excess = {{0}, {0}};
        double terms[LANES], excesses[LANES];
        for (ptrdiff_t k = 0, i = first; k < count; k++, i += stride) {
            const NAME(distilled) l = NAME(distill)(v_load(d->student + i), v_load(d->teacher + i), v_load(d->student_exps + i),
                                                    v_load(d->teacher_exps + i), &pair);
            NAME(sum_add)(&sum, l.term);
            NAME(sum_add)(&excess, l.gap);
        }
        if (d->across)
            NAME(sum_lanes)(&sum, terms, NULL), NAME(sum_lanes)(&excess, excesses, NULL);
        else
            terms[0] = NAME(sum_total)(&sum), excesses[0] = NAME(sum_total)(&excess);
        for (ptrdiff_t k = 0; k < (d->across ? LANES : 1); k++) {
            const double e = excesses[k], divergence = terms[k] - 0.5 * e * e;
            loss[p + k] = divergence < 0 ? 0 : divergence;
            low[p + k] -= (T)e;
        }
    }
}

/* The gradient, in place of the student's logits. */
static void NAME(distillation_gradient)(const NAME(pairs) *d, const NAME(stats) *s, const NAME(stats) *t, const T *low, const T *factor)
{
    const ptrdiff_t count = d->across ? d->classes : (d->classes + LANES - 1) / LANES, stride = d->across ? d->step : LANES;
    for (ptrdiff_t p = 0; p < d->n; p += d->across ? LANES : 1) {
        const NAME(pair) pair = NAME(pair_at)(s, t, low, p, d->across);
        const ptrdiff_t first = d->across ? p : p * d->step;
        const V scale = d->across ? v_load(factor + p) : NAME(set)(factor[p]);
        for (ptrdiff_t k = 0, i = first; k < count; k++, i += stride) {
            const NAME(distilled) l = NAME(distill)(v_load(d->student + i), v_load(d->teacher + i), v_load(d->student_exps + i),
                                                    v_load(d->teacher_exps + i), &pair);
            v_store(d->student + i, l.gap * scale);
        }
    }
}

/* Statistics of what lies in scratch. */
static void NAME(pair_statistics)(const NAME(pairs) *d, const T *x, T *exps, T *guess, NAME(stats) *s)
{
    const NAME(tile) tile = {x, NULL, NULL, exps, d->step, 0, 0, d->step, 0, d->n, !d->across, d->across, 1,
                             !d->across && d->step > EXPS_ELEMENTS, guess, NULL, NULL, 0, NULL, NULL};
    NAME(statistics)(&tile, d->classes, s);
}
/* Divide by the temperature; multiplying is exact for powers of two. */
ALWAYS_INLINE void NAME(cool)(T *x, ptrdiff_t size, T temperature)
{
    int exponent;
    if (temperature == 1) return;
    if (frexp(temperature, &exponent) == 0.5) {
        const V inverse = NAME(set)(1 / temperature);
        for (ptrdiff_t i = 0; i < size; i += LANES) v_store(x + i, v_load(x + i) * inverse);
    } else {
        const V divisor = NAME(set)(temperature);
        for (ptrdiff_t i = 0; i < size; i += LANES) v_store(x + i, v_load(x + i) / divisor);
    }
}
#endif /* STORED_AS_16 */

/* The logits of one of both, divided. */
ALWAYS_INLINE void KERNEL(gather_pair)(const NAME(pairs) *d, const S *x, ptrdiff_t step, int rows, T *to, T temperature)
{
    KERNEL(gather)(x, step, rows, to, d->step, d->n, d->classes, d->across);
    for (ptrdiff_t k = 0; k < (d->across ? d->classes : d->n); k++)
        NAME(cool)(to + k * d->step, d->across ? d->step : d->classes, temperature);
}

/* The scratch is cut into four; a->room is the size of each. */
static void KERNEL(distillation)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_softmax_args *a = (const xent_softmax_args *)args;
    const ptrdiff_t begin = chunk * a->chunk, end = xent_least(begin + a->chunk, a->positions);
    const int rows = a->inner == 1;
    T *memory = (T *)scratch, low[TILE], factor[TILE], guess = FIRST_GUESS;
    double loss[TILE];
    NAME(pairs) d = {memory, memory + a->room, memory + 2 * a->room, memory + 3 * a->room, 0, 0, a->classes,
                     !rows || a->classes <= SHORT_ROW};
    NAME(stats) student, teacher;
    sum_f64 losses = {{0}, {0}};
    const ptrdiff_t row = NAME(padded_row)(a->classes), room = rows && d.across ? TURN_ELEMENTS : a->room;
    const ptrdiff_t most = xent_least(TILE, d.across ? room / a->classes / LANES * LANES : room / row);
    for (ptrdiff_t p = begin; p < end; p += d.n) {
        const ptrdiff_t i = p % a->inner, o = p / a->inner % a->per, f = p / a->inner / a->per;
        const ptrdiff_t x_step = rows ? a->x.outer : a->x.stride, aux_step = rows ? a->aux.outer : a->aux.stride;
        d.n = xent_least(xent_least(most, end - p), rows ? a->per - o : a->inner - i);
        d.step = d.across ? (d.n + LANES - 1) / LANES * LANES : row;
        KERNEL(gather_pair)(&d, KERNEL(at)(&a->x, f, o, i), x_step, rows, d.student, (T)a->temperature);
        KERNEL(gather_pair)(&d, KERNEL(at)(&a->aux, f, o, i), aux_step, rows, d.teacher, (T)a->temperature);
        NAME(pair_statistics)(&d, d.student, d.student_exps, &guess, &student);
        NAME(pair_statistics)(&d, d.teacher, d.teacher_exps, &guess, &teacher);
        NAME(low_differences)(&student, &teacher, low, d.n);
        NAME(divergences)(&d, &student, &teacher, low, loss);
        for (ptrdiff_t k = 0; k < d.n; k++) loss[k] *= a->factor;
        KERNEL(deliver_losses)(a, loss, p, d.n, &losses);
        if (!a->out.data) continue;
        for (ptrdiff_t k = 0; k < d.n; k++) factor[k] = (T)KERNEL(gradient_factor)(a, p + k);
        for (ptrdiff_t k = d.n; k % LANES; k++) factor[k] = 0;
        NAME(distillation_gradient)(&d, &student, &teacher, low, factor);
        KERNEL(scatter)(d.student, d.step, KERNEL(at)(&a->out, f, o, i), rows ? a->out.outer : a->out.stride, rows, d.n, d.classes,
                        d.across);
    }
    if (a->partial) a->partial[chunk] = sum_total_f64(&losses);
}
