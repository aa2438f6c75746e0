/* softmax.h: softmax, log-softmax, log-sum-exp and their vector-Jacobian products.
 *
 * Design: everything is two loops over the classes of a tile. statistics() finds m and the exponentials of position.h, and keeps
 * these if the tile has room for them; exp_map() writes a p_c - b u_c with coefficients per position. softmax is a = 1, b = 0; the
 * gradient of every cross-entropy is another choice of coefficients.
 *
 * All classes but ONE that attains m are to be added up. No class is ever taken out of a sum again: of each new vector and the
 * largest seen so far in its lanes, the larger stays outside and the smaller ("loser") is added. The order of two exponentials is
 * that of their logits, or they are equal up to rounding, and either may stay.
 */

/* The reference of a sum lies HEADROOM below the exponent of the largest logit, so that terms too small to matter even in
 * subnormal results vanish and all others are normal numbers: float: 2^-(126 + 32) < 2^-149; double: 2^-(1022 + 256) < 2^-1074. In a
 * row that is read once, the reference is chosen before the largest logit is known, and raised when one exceeds it by RAISE;
 * sums of terms larger by e^(ln 2 * (RAISE - HEADROOM)) still fit. */
#if XENT_REAL == 32
#define HEADROOM 32
#define RAISE 96
#define FAINT 0x1p-60 /* see make_affine */
#else
#define HEADROOM 256
#define RAISE 768
#define FAINT 0x1p-500
#endif
#define PREFETCH_BYTES 6144 /* ahead of the reads of a long row: between the 4 and 8 KiB that gained in a first experiment */

/* The exponent of e^m, for m within LIMIT. */
ALWAYS_INLINE T KERNEL(exponent)(T m)
{
    const T clamped = m < (T)-LIMIT ? (T)-LIMIT : m > (T)LIMIT ? (T)LIMIT : m;
    return (clamped * LOG2_E + MAGIC) - MAGIC;
}

/* A position whose largest logit is infinite: what there is to add is 0, or NaN if there is one. */
static void KERNEL(infinite_position)(const S *x, ptrdiff_t step, ptrdiff_t classes, T m, NAME(stats) *s, ptrdiff_t p)
{
    int found = 0;
    for (ptrdiff_t c = 0; c < classes; c++) {
        const T v = KERNEL(get)(x + c * step);
        found |= v != v;
    }
    s->top[p] = m, s->shift[p] = s->reference[p] = 0, s->peak[p] = 1;
    s->rest[p] = found ? NAN : 0, s->rest_low[p] = 0;
}

/* Four vectors of a row from i on; past its end `fill`. */
ALWAYS_INLINE void KERNEL(load_four)(V v[4], const S *x, ptrdiff_t i, ptrdiff_t n, V fill)
{
    if (i + 4 * LANES <= n)
        for (int k = 0; k < 4; k++) v[k] = KERNEL(load)(x + i + k * LANES, LANES, fill);
    else
        for (int k = 0; k < 4; k++)
            v[k] = KERNEL(load)(x + i + k * LANES, xent_least(LANES, xent_most(0, n - i - k * LANES)), fill);
}

/* The bytes of four vectors, from address p on. */
ALWAYS_INLINE void KERNEL(prefetch_four)(uintptr_t p)
{
    for (size_t line = 0; line < 4 * LANES * sizeof(S); line += 64) __builtin_prefetch((const void *)(p + line));
}

/* A row that keeps its exponentials: the largest logit first, then everything relative to it, while the row after it is
 * fetched. */
static void KERNEL(short_row)(const S *x, ptrdiff_t n, uintptr_t next, T *exps, NAME(stats) *s, ptrdiff_t p)
{
    const V zero = {0}, minus_infinity = NAME(set)((T)-INFINITY);
    V tops[4] = {minus_infinity, minus_infinity, minus_infinity, minus_infinity}, v[4];
    for (ptrdiff_t i = 0; i < n; i += 4 * LANES) {
        KERNEL(load_four)(v, x, i, n, minus_infinity);
        for (int k = 0; k < 4; k++) tops[k] = v_max(v[k], tops[k]); /* a NaN never gets in */
    }
    const T m = v_top(v_max(v_max(tops[0], tops[1]), v_max(tops[2], tops[3])));
    if (isinf(m)) {
        KERNEL(infinite_position)(x, 1, n, m, s, p);
        return;
    }
    const T shift = m > (T)LIMIT || m < (T)-LIMIT ? m : 0, reference = KERNEL(exponent)(m - shift) - HEADROOM;
    const V offset = NAME(set)(shift);
    const NAME(scale) scale = NAME(scale_of)(NAME(set)(reference));
    V largest = zero;
    NAME(sum) sum = {{0}, {0}};
    for (ptrdiff_t i = 0; i < n; i += 4 * LANES) {
        KERNEL(load_four)(v, x, i, n, minus_infinity);
        KERNEL(prefetch_four)(next + i * sizeof(S));
        for (int k = 0; k < 4; k++) {
            const V e = NAME(exp_scaled)(v[k] - offset, scale);
            v_store(exps + i + k * LANES, e);
            v[k] = v_min(largest, e); /* a NaN goes into the sum */
            largest = v_max(e, largest);
        }
        NAME(sum_add)(&sum, (v[0] + v[1]) + (v[2] + v[3]));
    }
    s->top[p] = m, s->shift[p] = shift, s->reference[p] = reference;
    s->peak[p] = NAME(sum_all_but_one)(&sum, largest, &s->rest[p], &s->rest_low[p]);
}

/* A long row is read once, with the reference raised on the way. */
static void KERNEL(long_row)(const S *x, ptrdiff_t n, T shift, NAME(stats) *s, ptrdiff_t p)
{
    const V minus_infinity = NAME(set)((T)-INFINITY), offset = NAME(set)(shift);
    V top = minus_infinity, limit = minus_infinity; /* the first vectors choose the reference */
    T reference = 0;
    NAME(scale) scale = NAME(scale_of)(NAME(set)((T)0));
    NAME(sum) sum = {{0}, {0}};
    for (ptrdiff_t i = 0; i < n; i += 4 * LANES) {
        V v[4];
        KERNEL(load_four)(v, x, i, n, minus_infinity);
        KERNEL(prefetch_four)((uintptr_t)(x + i) + PREFETCH_BYTES);
        for (int k = 0; k < 4; k++) {
            if (shift != 0) v[k] = v[k] - offset;
            const V loser = v_min(top, v[k]); /* a NaN goes into the sum, */
            top = v_max(v[k], top);           /* never into the maximum */
            v[k] = loser;
        }
        if (m_any(m_gt(top, limit))) { /* rare */
            const T raised = KERNEL(exponent)(v_top(top)) - HEADROOM;
            /* in two halves: the step may exceed the range of a double where the sum does not */
            const int down = (int)(reference - raised);
            const vf64 half = v_set_f64(ldexp(1.0, down / 2)), rest = v_set_f64(ldexp(1.0, down - down / 2));
            sum.a = sum.a * half * rest, sum.b = sum.b * half * rest;
            reference = raised;
            scale = NAME(scale_of)(NAME(set)(reference));
            limit = NAME(set)((reference + RAISE) * (T)0.6931471805599453);
            if (reference + HEADROOM >= KERNEL(exponent)((T)LIMIT)) limit = NAME(set)((T)INFINITY);
        }
        for (int k = 0; k < 4; k++) v[k] = NAME(exp_scaled)(v[k], scale);
        NAME(sum_add)(&sum, (v[0] + v[1]) + (v[2] + v[3]));
    }
    s->top[p] = v_top(top), s->shift[p] = shift, s->reference[p] = reference;
    s->peak[p] = NAME(sum_all_but_one)(&sum, NAME(exp_scaled)(top, scale), &s->rest[p], &s->rest_low[p]);
}

static void KERNEL(rows_statistics)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s)
{
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const S *x = t->x + p * t->x_step;
        if (t->exps) {
            KERNEL(short_row)(x, classes, (uintptr_t)x + (uintptr_t)t->x_step * sizeof(S), t->exps + p * t->exps_step, s, p);
            continue;
        }
        KERNEL(long_row)(x, classes, 0, s, p);
        const T m = s->top[p];
        if (isinf(m)) {
            KERNEL(infinite_position)(x, 1, classes, m, s, p);
        } else if (m > (T)LIMIT || m < (T)-LIMIT) { /* once more, relative to m */
            KERNEL(long_row)(x, classes, m, s, p);
            s->top[p] = m;
        }
    }
}

/* Columns: the maxima of the whole tile first, class by class, which streams through memory; the second look finds the tile in
 * the cache. */
static void KERNEL(columns_top)(const KERNEL(tile) *t, ptrdiff_t classes, T *top)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    for (ptrdiff_t p = 0; p < t->n; p += LANES) v_store(top + p, minus_infinity);
    for (ptrdiff_t c = 0; c < classes; c++) {
        const S *x = t->x + c * t->x_step;
        for (ptrdiff_t p = 0; p < t->n; p += LANES)
            v_store(top + p, v_max(KERNEL(load)(x + p, t->n - p, minus_infinity), v_load(top + p)));
    }
}

/* One vector of positions. Four classes are added before they reach the wide accumulator. `exps` is NULL or not, as a constant. */
ALWAYS_INLINE V KERNEL(column_sum)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t classes, ptrdiff_t n, T *exps, V offset,
                                   NAME(scale) scale, NAME(sum) *sum)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    V largest = {0};
    for (ptrdiff_t c = 0; c < classes; c += 4) {
        V group = {0};
        for (ptrdiff_t k = c; k < xent_least(c + 4, classes); k++) {
            const V e = NAME(exp_scaled)(KERNEL(load)(t->x + p + k * t->x_step, n, minus_infinity) - offset, scale);
            if (exps) v_store(exps + p + k * t->exps_step, e);
            group = group + v_min(largest, e);
            largest = v_max(e, largest);
        }
        NAME(sum_add)(sum, group);
    }
    return largest;
}

static void KERNEL(columns_statistics)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s)
{
    const V zero = {0}, magic = NAME(set)(MAGIC), limit = NAME(set)((T)LIMIT), infinity = NAME(set)((T)INFINITY);
    int infinite = 0;
    KERNEL(columns_top)(t, classes, s->top);
    for (ptrdiff_t p = 0; p < t->n; p += LANES) {
        const V m = v_load(s->top + p), size = v_abs(m);
        const VM far = m_gt(size, limit), spoiled = m_eq(size, infinity);
        const V shift = v_select(spoiled, zero, v_select(far, m, zero));
        const V reference = v_fma(v_select(far, zero, m), NAME(set)(LOG2_E), magic) - magic - NAME(set)(HEADROOM);
        const NAME(scale) scale = NAME(scale_of)(reference);
        const ptrdiff_t n = t->n - p;
        NAME(sum) sum = {{0}, {0}};
        const V peak = t->exps ? n >= LANES ? KERNEL(column_sum)(t, p, classes, LANES, t->exps, shift, scale, &sum)
                                            : KERNEL(column_sum)(t, p, classes, n, t->exps, shift, scale, &sum)
                               : KERNEL(column_sum)(t, p, classes, n, NULL, shift, scale, &sum);
        v_store(s->shift + p, shift);
        v_store(s->reference + p, reference);
        v_store(s->peak + p, peak);
        NAME(sum_lanes)(&sum, s->rest + p, s->rest_low + p);
        infinite |= m_any(spoiled);
    }
    for (ptrdiff_t p = 0; infinite && p < t->n; p++)
        if (isinf(s->top[p])) KERNEL(infinite_position)(t->x + p, t->x_step, classes, s->top[p], s, p);
}

static void KERNEL(statistics)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s)
{
    if (t->rows)
        KERNEL(rows_statistics)(t, classes, s);
    else
        KERNEL(columns_statistics)(t, classes, s);
    NAME(finish)(s, t->n);
}

/* ---- a p_c - b u_c ---------------------------------------------------------------------------------------------------------
 *
 * p_c underflows gradually and must be rounded once: e_c is a normal number wherever the result is not 0, and so is its
 * coefficient a * unit * inverse, unless it is FAINT. Then a power of two of it is given to `lift`: a result that is not 0 has
 * e_c > 2^-150 / coefficient, so that e_c * lift > 2^-150 / sqrt(FAINT) is a normal number too (double: 2^-1075). */
typedef struct {
    T coefficient[TILE], lift[TILE];
    T dense[TILE]; /* b: factor of the dense target u_c = w_c (mix t_c + base) */
} KERNEL(affine);

static T KERNEL(split_faint)(double factor, double unit, T *lift)
{
    int exponent; /* of the product, which may be out of the range of a double */
    const double mantissa = frexp(factor, &exponent);
    exponent += ilogb(unit);
    const int power = (int)xent_least(ilogb(FAINT) / 2 - exponent, EXPONENT_BIAS - 1);
    *lift = (T)ldexp(1.0, -power);
    return (T)ldexp(mantissa, exponent + power);
}

/* From the factors a of p_c, and b (NULL: none). */
static void KERNEL(make_affine)(KERNEL(affine) *f, const NAME(stats) *s, const double *a, const double *b, ptrdiff_t n)
{
    int faint = 0;
    for (ptrdiff_t p = 0; p < n; p++) {
        const double coefficient = (a ? a[p] : 1.0) * s->inverse[p] * s->unit[p];
        f->coefficient[p] = (T)coefficient, f->lift[p] = 1, f->dense[p] = b ? (T)b[p] : 0;
        faint |= fabs(coefficient) < FAINT;
    }
    for (ptrdiff_t p = 0; faint && p < n; p++) {
        const double factor = (a ? a[p] : 1.0) * s->inverse[p];
        if (factor != 0 && fabs(factor * s->unit[p]) < FAINT)
            f->coefficient[p] = KERNEL(split_faint)(factor, s->unit[p], &f->lift[p]);
    }
    for (ptrdiff_t p = n; p % LANES; p++) f->coefficient[p] = f->lift[p] = f->dense[p] = 0;
}

/* The dense target of one class, at one position or a vector of them. */
typedef struct {
    const T *weight; /* per class or NULL */
    V mix, base;
} KERNEL(dense_target);

ALWAYS_INLINE V KERNEL(target_value)(const KERNEL(dense_target) *d, V weight, V t) { return weight * v_fma(d->mix, t, d->base); }

ALWAYS_INLINE KERNEL(dense_target) KERNEL(dense_target_of)(const xent_softmax_args *a)
{
    return (KERNEL(dense_target)){(const T *)a->weight, NAME(set)((T)a->mix), NAME(set)((T)a->base)};
}

/* `dense` and `kept` (whether the exponentials were) are constants at every call: what is not needed costs nothing. */
ALWAYS_INLINE void KERNEL(row_map)(const KERNEL(tile) *t, const KERNEL(affine) *f, const NAME(stats) *s, const KERNEL(dense_target) *d,
                                   ptrdiff_t p, ptrdiff_t classes, int kept, int dense)
{
    const S *x = t->x + p * t->x_step, *aux = t->aux ? t->aux + p * t->aux_step : NULL;
    const T *exps = t->exps + (kept ? p * t->exps_step : 0);
    S *out = t->out + p * t->out_step;
    const V coefficient = NAME(set)(f->coefficient[p]), lift = NAME(set)(f->lift[p]), b = NAME(set)(f->dense[p]);
    const V zero = {0}, one = NAME(set)(1), shift = NAME(set)(s->shift[p]);
    const NAME(scale) scale = NAME(scale_of)(NAME(set)(s->reference[p]));
    for (ptrdiff_t c = 0; c < classes; c += LANES) {
        const ptrdiff_t n = xent_least(LANES, classes - c);
        const V e = kept ? v_load(exps + c) : NAME(exp_scaled)(KERNEL(load)(x + c, n, zero) - shift, scale);
        V v = e * lift * coefficient;
        if (dense) {
            const V weight = d->weight ? NAME(load)(d->weight + c, n, zero) : one;
            v = v - b * KERNEL(target_value)(d, weight, aux ? KERNEL(load)(aux + c, n, zero) : zero);
        }
        KERNEL(store)(out + c, v, n);
    }
}

ALWAYS_INLINE void KERNEL(column_map)(const KERNEL(tile) *t, const KERNEL(affine) *f, const NAME(stats) *s,
                                      const KERNEL(dense_target) *d, ptrdiff_t p, ptrdiff_t n, ptrdiff_t classes, int kept, int dense)
{
    const V coefficient = v_load(f->coefficient + p), lift = v_load(f->lift + p), b = v_load(f->dense + p);
    const V zero = {0}, shift = v_load(s->shift + p);
    const VM none = m_eq(coefficient, zero); /* an ignored position: 0 even of NaN */
    const NAME(scale) scale = NAME(scale_of)(v_load(s->reference + p));
    for (ptrdiff_t c = 0; c < classes; c++) {
        const V e = kept ? v_load(t->exps + p + c * t->exps_step)
                         : NAME(exp_scaled)(KERNEL(load)(t->x + p + c * t->x_step, n, zero) - shift, scale);
        V v = v_select(none, zero, e * lift * coefficient);
        if (dense) {
            const V target = t->aux ? KERNEL(load)(t->aux + p + c * t->aux_step, n, zero) : zero;
            v = v - b * KERNEL(target_value)(d, NAME(set)(d->weight ? d->weight[c] : 1), target);
        }
        KERNEL(store)(t->out + p + c * t->out_step, v, n);
    }
}

ALWAYS_INLINE void KERNEL(exp_map_as)(const KERNEL(tile) *t, const xent_softmax_args *a, const KERNEL(affine) *f,
                                      const NAME(stats) *s, int kept, int dense)
{
    const KERNEL(dense_target) d = KERNEL(dense_target_of)(a);
    if (!t->rows) {
        ptrdiff_t p = 0;
        for (; p + LANES <= t->n; p += LANES) KERNEL(column_map)(t, f, s, &d, p, LANES, a->classes, kept, dense);
        if (p < t->n) KERNEL(column_map)(t, f, s, &d, p, t->n - p, a->classes, kept, dense);
        return;
    }
    for (ptrdiff_t p = 0; p < t->n; p++) {
        if (f->coefficient[p] == 0 && f->dense[p] == 0)
            memset(t->out + p * t->out_step, 0, (size_t)a->classes * sizeof(S));
        else
            KERNEL(row_map)(t, f, s, &d, p, a->classes, kept, dense);
    }
}

static void KERNEL(exp_map)(const KERNEL(tile) *t, const xent_softmax_args *a, const KERNEL(affine) *f, const NAME(stats) *s,
                            int dense)
{
    if (t->exps)
        dense ? KERNEL(exp_map_as)(t, a, f, s, 1, 1) : KERNEL(exp_map_as)(t, a, f, s, 1, 0);
    else
        dense ? KERNEL(exp_map_as)(t, a, f, s, 0, 1) : KERNEL(exp_map_as)(t, a, f, s, 0, 0);
}

static void KERNEL(softmax_tile)(const xent_softmax_args *a, const KERNEL(tile) *t, sum_f64 *losses)
{
    NAME(stats) s;
    KERNEL(affine) f;
    (void)losses;
    KERNEL(statistics)(t, a->classes, &s);
    KERNEL(make_affine)(&f, &s, NULL, NULL, t->n);
    KERNEL(exp_map)(t, a, &f, &s, 0);
}

static void KERNEL(logsumexp_tile)(const xent_softmax_args *a, const KERNEL(tile) *t, sum_f64 *losses)
{
    NAME(stats) s;
    T *result = (T *)a->per_position + t->first;
    (void)losses;
    KERNEL(statistics)(t, a->classes, &s);
    for (ptrdiff_t p = 0; p < t->n; p += LANES) NAME(store)(result + p, NAME(logsumexps)(&s, p), t->n - p);
}

/* ---- two inputs: out_c = f(x_c, aux_c, number of the position) ----------------------------------------------------------- */

/* The pointwise functions: x is the logits or y, g the incoming gradient, m and q numbers of the position. */
ALWAYS_INLINE V KERNEL(log_softmax_point)(V x, V g, V m, V q) { (void)g; return (x - m) - q; }
ALWAYS_INLINE V KERNEL(softmax_backward_point)(V y, V g, V m, V q) { (void)m; return y * (g - q); }
ALWAYS_INLINE V KERNEL(log_softmax_backward_point)(V y, V g, V m, V q) { (void)m; return g - NAME(exp)(y) * q; }
typedef V (*KERNEL(point))(V x, V g, V m, V q);

/* `point` is a constant at every call and is inlined. */
ALWAYS_INLINE void KERNEL(point_map)(const KERNEL(tile) *t, ptrdiff_t classes, const T *m, const T *q, KERNEL(point) point)
{
    const V zero = {0};
    const ptrdiff_t long_axis = t->rows ? classes : t->n, short_axis = t->rows ? t->n : classes;
    for (ptrdiff_t j = 0; j < short_axis; j++) {
        const S *x = t->x + j * t->x_step, *g = t->aux ? t->aux + j * t->aux_step : NULL;
        S *out = t->out + j * t->out_step;
        for (ptrdiff_t i = 0; i < long_axis; i += LANES) {
            const ptrdiff_t n = xent_least(LANES, long_axis - i);
            const V vm = t->rows ? NAME(set)(m[j]) : v_load(m + i), vq = t->rows ? NAME(set)(q[j]) : v_load(q + i);
            KERNEL(store)(out + i, point(KERNEL(load)(x + i, n, zero), g ? KERNEL(load)(g + i, n, zero) : zero, vm, vq), n);
        }
    }
}

static void KERNEL(log_softmax_tile)(const xent_softmax_args *a, const KERNEL(tile) *t, sum_f64 *losses)
{
    NAME(stats) s;
    (void)losses;
    KERNEL(statistics)(t, a->classes, &s);
    KERNEL(point_map)(t, a->classes, s.top, s.log_total, KERNEL(log_softmax_point));
}

/* sum over the classes of g_c, or of y_c g_c, in wide accumulators. */
ALWAYS_INLINE void KERNEL(sum_over_classes)(const KERNEL(tile) *t, ptrdiff_t classes, T *result, int times_y)
{
    const V zero = {0};
    for (ptrdiff_t p = 0; p < t->n; p += t->rows ? 1 : LANES) {
        NAME(sum) sum = {{0}, {0}};
        const ptrdiff_t vectors = t->rows ? (classes + LANES - 1) / LANES : classes;
        for (ptrdiff_t c = 0; c < vectors; c++) {
            const ptrdiff_t n = t->rows ? xent_least(LANES, classes - c * LANES) : xent_least(LANES, t->n - p);
            const V g = KERNEL(load)(t->rows ? t->aux + p * t->aux_step + c * LANES : t->aux + p + c * t->aux_step, n, zero);
            const V y = KERNEL(load)(t->rows ? t->x + p * t->x_step + c * LANES : t->x + p + c * t->x_step, n, zero);
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
static void KERNEL(softmax_backward_tile)(const xent_softmax_args *a, const KERNEL(tile) *t, sum_f64 *losses)
{
    T q[TILE];
    (void)losses;
    KERNEL(sum_over_classes)(t, a->classes, q, 1);
    KERNEL(point_map)(t, a->classes, q, q, KERNEL(softmax_backward_point));
}

/* y = log_softmax(x):  dL/dx_j = sum_c g_c ([c == j] - e^y_j) = g_j - e^y_j sum_c g_c */
static void KERNEL(log_softmax_backward_tile)(const xent_softmax_args *a, const KERNEL(tile) *t, sum_f64 *losses)
{
    T q[TILE];
    (void)losses;
    KERNEL(sum_over_classes)(t, a->classes, q, 0);
    KERNEL(point_map)(t, a->classes, q, q, KERNEL(log_softmax_backward_point));
}

#define TILE_KERNEL(name)                                                                                                \
    static void KERNEL(name)(const void *args, ptrdiff_t chunk, void *scratch)                                           \
    {                                                                                                                    \
        (void)scratch;                                                                                                   \
        KERNEL(for_tiles)((const xent_softmax_args *)args, chunk, KERNEL(name##_tile), NAME(name##_tile));                                   \
    }
TILE_KERNEL(softmax)
TILE_KERNEL(log_softmax)
TILE_KERNEL(logsumexp)
TILE_KERNEL(softmax_backward)
TILE_KERNEL(log_softmax_backward)
