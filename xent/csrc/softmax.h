/* softmax.h: softmax, log-softmax, log-sum-exp and their vector-Jacobian products.
 *
 * Design: everything is two loops over the classes of a tile. statistics() finds m and R of position.h in one read of memory;
 * exp_map() writes a p_c - b u_c with coefficients per position, while the logits are still in the cache. softmax is
 * a = 1, b = 0; the gradient of every cross-entropy is another choice of coefficients.
 */

/* The reference of a running sum lies HEADROOM below the largest exponent at the time it is chosen, so that sums of terms
 * larger by up to e^(ln 2 * (RAISE - HEADROOM)) still fit, and terms too small to matter even in subnormal results vanish:
 * float: 2^-(126 + 32) < 2^-149; double: 2^-(1022 + 256) < 2^-1074. */
#if XENT_REAL == 32
#define HEADROOM 32
#define RAISE 96
#define LIMIT LIMIT_F32
#define LIFT 64      /* see exp_map */
#else
#define HEADROOM 256
#define RAISE 768
#define LIMIT LIMIT_F64
#define LIFT 512
#endif
#define PREFETCH_BYTES 6144 /* ahead of the reads of a row: between the 4 and 8 KiB that gained in a first experiment */

/* The exponent of e^m, for m within LIMIT. */
ALWAYS_INLINE double NAME(exponent)(double m)
{
    return rint((m < -LIMIT ? -LIMIT : m > LIMIT ? LIMIT : m) * 1.4426950408889634);
}

static int NAME(row_has_nan)(const S *x, ptrdiff_t n)
{
    int found = 0;
    for (ptrdiff_t c = 0; c < n; c++) found |= x[c] != x[c];
    return found;
}

/* One row: each vector of logits meets the largest seen so far in its lanes. The larger stays outside, the smaller ("loser") is
 * added to the sum, so that in the end every logit but the lanes' maxima has been added, and no maximum ever needs to be taken
 * out of a sum again. */
ALWAYS_INLINE void NAME(row_statistics)(const S *x, ptrdiff_t n, T shift, xent_stats *s, ptrdiff_t p)
{
    const V minus_infinity = NAME(set)((T)-INFINITY), offset = NAME(set)(shift);
    V top = minus_infinity, limit = minus_infinity; /* the first vectors choose the reference */
    double reference = -4 * LIMIT;
    NAME(scale) scale = NAME(scale_of)(NAME(set)((T)0));
    NAME(sum) sum = {{0}, {0}};
    for (ptrdiff_t i = 0; i < n; i += 4 * LANES) {
        V v[4];
        if (i + 4 * LANES <= n)
            for (int k = 0; k < 4; k++) v[k] = v_load(x + i + k * LANES);
        else
            for (int k = 0; k < 4; k++)
                v[k] = v_load_n(x + i + k * LANES, xent_least(LANES, xent_most(0, n - i - k * LANES)), minus_infinity);
        for (size_t line = 0; line < 4 * sizeof(V); line += 64)
            __builtin_prefetch((const char *)(x + i) + PREFETCH_BYTES + line);
        for (int k = 0; k < 4; k++) {
            if (shift != 0) v[k] = v[k] - offset;
            const V loser = v_min(top, v[k]); /* a NaN goes into the sum, */
            top = v_max(v[k], top);           /* never into the maximum */
            v[k] = loser;
        }
        if (m_any(m_gt(top, limit))) { /* rare */
            const double raised = NAME(exponent)(v_top(top)) - HEADROOM;
            /* in two halves: the step may exceed the range of a double where the sum does not */
            const double half = floor((reference - raised) / 2);
            const vf64 down = v_set_f64(ldexp(1.0, (int)half)), down_too = v_set_f64(ldexp(1.0, (int)(reference - raised - half)));
            sum.a = sum.a * down * down_too, sum.b = sum.b * down * down_too;
            reference = raised;
            scale = NAME(scale_of)(NAME(set)((T)reference));
            limit = NAME(set)((T)((reference + RAISE) * 0.6931471805599453));
            if (reference + HEADROOM >= NAME(exponent)(LIMIT)) limit = NAME(set)((T)INFINITY);
        }
        for (int k = 0; k < 4; k++) v[k] = NAME(exp_scaled)(v[k], scale);
        NAME(sum_add)(&sum, (v[0] + v[1]) + (v[2] + v[3]));
    }
    T tops[LANES], exps[LANES];
    v_store(tops, top);
    v_store(exps, NAME(exp_scaled)(top, scale));
    int best = 0;
    for (int k = 1; k < LANES; k++)
        if (tops[k] > tops[best]) best = k;
    double lanes[LANES], low[LANES], rest = 0, error = 0;
    NAME(sum_lanes)(&sum, lanes, low);
    for (int k = 0; k < LANES; k++) {
        two_sum_add(&rest, &error, lanes[k]);
        if (k != best) two_sum_add(&rest, &error, exps[k]);
        error += low[k];
    }
    s->top[p] = tops[best];
    s->rest[p] = isfinite(rest) ? rest + error : rest;
    s->rest_low[p] = isfinite(rest) ? (rest - s->rest[p]) + error : 0;
    s->reference[p] = reference;
}

static void NAME(rows_statistics)(const NAME(tile) *t, ptrdiff_t classes, xent_stats *s)
{
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const S *x = t->x + p * t->x_step;
        NAME(row_statistics)(x, classes, 0, s, p);
        const double m = s->top[p];
        if (isinf(m)) {
            s->rest[p] = NAME(row_has_nan)(x, classes) ? NAN : 0;
        } else if (fabs(m) > LIMIT) { /* once more, relative to m */
            NAME(row_statistics)(x, classes, (T)m, s, p);
            s->top[p] = m;
        }
    }
}

/* Columns: the maxima of the whole tile first, class by class, which streams through memory; the second look finds the tile in
 * the cache. */
static void NAME(columns_top)(const NAME(tile) *t, ptrdiff_t classes, T *top)
{
    for (ptrdiff_t p = 0; p < TILE; p += LANES) v_store(top + p, NAME(set)((T)-INFINITY));
    for (ptrdiff_t c = 0; c < classes; c++) {
        const S *x = t->x + c * t->x_step;
        for (ptrdiff_t p = 0; p < t->n; p += LANES)
            v_store(top + p, v_max(NAME(load)(x + p, t->n - p, NAME(set)((T)-INFINITY)), v_load(top + p)));
    }
}

/* One vector of positions: the losers' sum as in a row, with a reference in each lane that fits from the start. Four classes are
 * added before they reach the wide accumulator. */
ALWAYS_INLINE NAME(sum) NAME(column_sum)(const S *x, ptrdiff_t step, ptrdiff_t classes, ptrdiff_t n, V offset, NAME(scale) scale)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    V running = minus_infinity;
    NAME(sum) sum = {{0}, {0}};
    for (ptrdiff_t c = 0; c < classes;) {
        V group = {0};
        const int full = c + 4 <= classes;
        for (int k = 0; k < (full ? 4 : (int)(classes - c)); k++) {
            const V v = NAME(load)(x + (c + k) * step, n, minus_infinity) - offset;
            group = group + NAME(exp_scaled)(v_min(running, v), scale);
            running = v_max(v, running);
        }
        NAME(sum_add)(&sum, group);
        c += 4;
    }
    return sum;
}

static void NAME(columns_statistics)(const NAME(tile) *t, ptrdiff_t classes, xent_stats *s)
{
    T top[TILE];
    NAME(columns_top)(t, classes, top);
    for (ptrdiff_t p = 0; p < t->n; p += LANES) {
        const V m = v_load(top + p), size = v_abs(m), zero = {0}, magic = NAME(set)(MAGIC);
        const VM far = m_gt(size, NAME(set)((T)LIMIT));
        const V offset = v_select(m_eq(size, NAME(set)((T)INFINITY)), zero, v_select(far, m, zero));
        const V exponent = v_fma(v_select(far, zero, m), NAME(set)(LOG2_E), magic) - magic;
        const V reference = exponent - NAME(set)(HEADROOM);
        const NAME(scale) scale = NAME(scale_of)(reference);
        const NAME(sum) sum = t->n - p >= LANES
                                  ? NAME(column_sum)(t->x + p, t->x_step, classes, LANES, offset, scale)
                                  : NAME(column_sum)(t->x + p, t->x_step, classes, t->n - p, offset, scale);
        NAME(sum_lanes)(&sum, s->rest + p, s->rest_low + p);
        for (int k = 0; k < LANES; k++) {
            s->top[p + k] = m[k];
            s->reference[p + k] = reference[k];
        }
    }
    for (ptrdiff_t p = 0; p < t->n; p++) {
        if (!isinf(top[p])) continue;
        int found = 0;
        for (ptrdiff_t c = 0; c < classes; c++) found |= t->x[p + c * t->x_step] != t->x[p + c * t->x_step];
        s->rest[p] = found ? NAN : 0;
    }
}

static void NAME(statistics)(const NAME(tile) *t, ptrdiff_t classes, xent_stats *s)
{
    if (t->rows)
        NAME(rows_statistics)(t, classes, s);
    else
        NAME(columns_statistics)(t, classes, s);
    for (ptrdiff_t p = t->n; p % LANES_F64; p++) /* whole vectors for finish() */
        s->top[p] = s->rest[p] = s->rest_low[p] = s->reference[p] = 0;
    finish(s, t->n, LIMIT, XENT_REAL == 64);
}

/* ---- a p_c - b u_c ---------------------------------------------------------------------------------------------------------
 *
 * p_c underflows gradually and must be rounded once: e^(x_c - shift) is made 2^LIFT times too large, which is a normal number
 * wherever the result is not 0, and the coefficient 2^LIFT times too small. A coefficient too small for that (its product
 * with a subnormal probability is 0 anyway) is left as it is. */
typedef struct {
    T coefficient[TILE], shift[TILE], reference[TILE];
    T dense[TILE]; /* b: factor of the dense target u_c = w_c (mix t_c + base) */
} NAME(affine);

/* From the factors a of p_c, and b (NULL: none). */
static void NAME(make_affine)(NAME(affine) *f, const xent_stats *s, const double *a, const double *b, ptrdiff_t n)
{
    for (ptrdiff_t p = 0; p < n; p++) {
        const double coefficient = a ? a[p] * s->inverse[p] : s->inverse[p];
        const int tiny = fabs(coefficient) < ldexp(1.0, 2 - LIFT);
        f->coefficient[p] = (T)(tiny ? coefficient : coefficient * ldexp(1.0, -LIFT));
        f->reference[p] = (T)(tiny ? s->power[p] : s->power[p] - LIFT);
        f->shift[p] = (T)s->shift[p];
        f->dense[p] = b ? (T)b[p] : 0;
    }
    for (ptrdiff_t p = n; p % LANES; p++) f->coefficient[p] = f->shift[p] = f->reference[p] = f->dense[p] = 0;
}

/* The dense target of one class, at one position or a vector of them. */
typedef struct {
    const T *weight; /* per class or NULL */
    V mix, base;
} NAME(dense_target);

ALWAYS_INLINE V NAME(target_value)(const NAME(dense_target) *d, V weight, V t) { return weight * v_fma(d->mix, t, d->base); }

ALWAYS_INLINE NAME(dense_target) NAME(dense_target_of)(const xent_softmax_args *a)
{
    return (NAME(dense_target)){(const T *)a->weight, NAME(set)((T)a->mix), NAME(set)((T)a->base)};
}

/* `dense` is a constant at every call: the loop without a dense target pays nothing for it. */
ALWAYS_INLINE void NAME(row_map)(const NAME(affine) *f, const NAME(dense_target) *d, const S *x, const S *t, S *out, ptrdiff_t p,
                                 ptrdiff_t classes, int dense)
{
    const V coefficient = NAME(set)(f->coefficient[p]), shift = NAME(set)(f->shift[p]), b = NAME(set)(f->dense[p]);
    const V zero = {0}, one = NAME(set)(1);
    const NAME(scale) scale = NAME(scale_of)(NAME(set)(f->reference[p]));
    for (ptrdiff_t c = 0; c < classes; c += LANES) {
        const ptrdiff_t n = xent_least(LANES, classes - c);
        V v = NAME(exp_scaled)(NAME(load)(x + c, n, zero) - shift, scale) * coefficient;
        if (dense) {
            const V weight = d->weight ? NAME(load)(d->weight + c, n, zero) : one;
            v = v - b * NAME(target_value)(d, weight, t ? NAME(load)(t + c, n, zero) : zero);
        }
        NAME(store)(out + c, v, n);
    }
}

ALWAYS_INLINE void NAME(column_map)(const NAME(affine) *f, const NAME(dense_target) *d, const NAME(tile) *t, ptrdiff_t p, ptrdiff_t n,
                                    ptrdiff_t classes, int dense)
{
    const V coefficient = v_load(f->coefficient + p), shift = v_load(f->shift + p), b = v_load(f->dense + p);
    const V zero = {0};
    const VM none = m_eq(coefficient, zero);
    const NAME(scale) scale = NAME(scale_of)(v_load(f->reference + p));
    for (ptrdiff_t c = 0; c < classes; c++) {
        V v = NAME(exp_scaled)(NAME(load)(t->x + p + c * t->x_step, n, zero) - shift, scale) * coefficient;
        v = v_select(none, zero, v);
        if (dense) {
            const V target = t->aux ? NAME(load)(t->aux + p + c * t->aux_step, n, zero) : zero;
            v = v - b * NAME(target_value)(d, NAME(set)(d->weight ? d->weight[c] : 1), target);
        }
        NAME(store)(t->out + p + c * t->out_step, v, n);
    }
}

ALWAYS_INLINE void NAME(exp_map)(const NAME(tile) *t, const xent_softmax_args *a, const NAME(affine) *f, int dense)
{
    const NAME(dense_target) d = NAME(dense_target_of)(a);
    if (!t->rows) {
        ptrdiff_t p = 0;
        for (; p + LANES <= t->n; p += LANES) NAME(column_map)(f, &d, t, p, LANES, a->classes, dense);
        if (p < t->n) NAME(column_map)(f, &d, t, p, t->n - p, a->classes, dense);
        return;
    }
    for (ptrdiff_t p = 0; p < t->n; p++) {
        S *out = t->out + p * t->out_step;
        if (f->coefficient[p] == 0 && f->dense[p] == 0)
            memset(out, 0, (size_t)a->classes * sizeof(S));
        else
            NAME(row_map)(f, &d, t->x + p * t->x_step, t->aux ? t->aux + p * t->aux_step : NULL, out, p, a->classes, dense);
    }
}

static void NAME(softmax_tile)(const xent_softmax_args *a, const NAME(tile) *t, double *loss)
{
    xent_stats s;
    NAME(affine) f;
    (void)loss;
    NAME(statistics)(t, a->classes, &s);
    NAME(make_affine)(&f, &s, NULL, NULL, t->n);
    NAME(exp_map)(t, a, &f, 0);
}

static void NAME(logsumexp_tile)(const xent_softmax_args *a, const NAME(tile) *t, double *loss)
{
    xent_stats s;
    (void)loss;
    NAME(statistics)(t, a->classes, &s);
    for (ptrdiff_t p = 0; p < t->n; p++) ((T *)a->per_position)[t->first + p] = (T)logsumexp_of(&s, p);
}

/* ---- two inputs: out_c = f(x_c, aux_c, number of the position) ----------------------------------------------------------- */

/* The pointwise functions: x is the logits or y, g the incoming gradient, m and q numbers of the position. */
ALWAYS_INLINE V NAME(log_softmax_point)(V x, V g, V m, V q) { (void)g; return (x - m) - q; }
ALWAYS_INLINE V NAME(softmax_backward_point)(V y, V g, V m, V q) { (void)m; return y * (g - q); }
ALWAYS_INLINE V NAME(log_softmax_backward_point)(V y, V g, V m, V q) { (void)m; return g - NAME(exp)(y) * q; }
typedef V (*NAME(point))(V x, V g, V m, V q);

/* `point` is a constant at every call and is inlined. */
ALWAYS_INLINE void NAME(point_map)(const NAME(tile) *t, ptrdiff_t classes, const T *m, const T *q, NAME(point) point)
{
    const V zero = {0};
    const ptrdiff_t long_axis = t->rows ? classes : t->n, short_axis = t->rows ? t->n : classes;
    for (ptrdiff_t j = 0; j < short_axis; j++) {
        const S *x = t->x + j * t->x_step, *g = t->aux ? t->aux + j * t->aux_step : NULL;
        S *out = t->out + j * t->out_step;
        for (ptrdiff_t i = 0; i < long_axis; i += LANES) {
            const ptrdiff_t n = xent_least(LANES, long_axis - i);
            const V vm = t->rows ? NAME(set)(m[j]) : v_load(m + i), vq = t->rows ? NAME(set)(q[j]) : v_load(q + i);
            NAME(store)(out + i, point(NAME(load)(x + i, n, zero), g ? NAME(load)(g + i, n, zero) : zero, vm, vq), n);
        }
    }
}

static void NAME(log_softmax_tile)(const xent_softmax_args *a, const NAME(tile) *t, double *loss)
{
    xent_stats s;
    T m[TILE] = {0}, q[TILE] = {0};
    (void)loss;
    NAME(statistics)(t, a->classes, &s);
    for (ptrdiff_t p = 0; p < t->n; p++) m[p] = (T)s.top[p], q[p] = (T)s.log_total[p];
    NAME(point_map)(t, a->classes, m, q, NAME(log_softmax_point));
}

/* sum over the classes of g_c, or of y_c g_c, in wide accumulators. */
ALWAYS_INLINE void NAME(sum_over_classes)(const NAME(tile) *t, ptrdiff_t classes, T *result, int times_y)
{
    const V zero = {0};
    for (ptrdiff_t p = 0; p < t->n; p += t->rows ? 1 : LANES) {
        NAME(sum) sum = {{0}, {0}};
        const ptrdiff_t vectors = t->rows ? (classes + LANES - 1) / LANES : classes;
        for (ptrdiff_t c = 0; c < vectors; c++) {
            const ptrdiff_t n = t->rows ? xent_least(LANES, classes - c * LANES) : xent_least(LANES, t->n - p);
            const V g = NAME(load)(t->rows ? t->aux + p * t->aux_step + c * LANES : t->aux + p + c * t->aux_step, n, zero);
            const V y = NAME(load)(t->rows ? t->x + p * t->x_step + c * LANES : t->x + p + c * t->x_step, n, zero);
            NAME(sum_add)(&sum, times_y ? g * y : g);
        }
        if (t->rows) {
            result[p] = (T)NAME(sum_total)(&sum);
        } else {
            double lanes[LANES];
            NAME(sum_lanes)(&sum, lanes, NULL);
            for (int k = 0; k < LANES; k++) result[p + k] = (T)lanes[k];
        }
    }
}

/* y = softmax(x):      dL/dx_j = sum_c g_c y_c ([c == j] - y_j) = y_j (g_j - sum_c g_c y_c) */
static void NAME(softmax_backward_tile)(const xent_softmax_args *a, const NAME(tile) *t, double *loss)
{
    T q[TILE];
    (void)loss;
    NAME(sum_over_classes)(t, a->classes, q, 1);
    NAME(point_map)(t, a->classes, q, q, NAME(softmax_backward_point));
}

/* y = log_softmax(x):  dL/dx_j = sum_c g_c ([c == j] - e^y_j) = g_j - e^y_j sum_c g_c */
static void NAME(log_softmax_backward_tile)(const xent_softmax_args *a, const NAME(tile) *t, double *loss)
{
    T q[TILE];
    (void)loss;
    NAME(sum_over_classes)(t, a->classes, q, 0);
    NAME(point_map)(t, a->classes, q, q, NAME(log_softmax_backward_point));
}

#define TILE_KERNEL(name)                                                                                                \
    static void NAME(name)(const void *args, ptrdiff_t chunk, void *scratch)                                             \
    {                                                                                                                    \
        (void)scratch;                                                                                                   \
        NAME(for_tiles)((const xent_softmax_args *)args, chunk, NAME(name##_tile));                                      \
    }
TILE_KERNEL(softmax)
TILE_KERNEL(log_softmax)
TILE_KERNEL(logsumexp)
TILE_KERNEL(softmax_backward)
TILE_KERNEL(log_softmax_backward)
