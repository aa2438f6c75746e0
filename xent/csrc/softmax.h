/* softmax.h: softmax, log-softmax, log-sum-exp and their vector-Jacobian products.
 *
 * Design: everything is two loops over the classes of a tile. statistics() finds m and the exponentials of position.h, and keeps
 * these if the tile has room for them; exp_map() writes a p_c - b u_c with coefficients per position. softmax is a = 1, b = 0; the
 * gradient of every cross-entropy is another choice of coefficients.
 *
 * Exponentials are computed in one loop and added up in another: together they would wait for registers and for each other.
 */

/* The reference of a sum lies HEADROOM below the exponent of the largest logit, so that terms too small to matter even in
 * subnormal results vanish and all others are normal numbers: float: 2^-(126 + 40) < 2^-149; double: 2^-(1022 + 256) < 2^-1074. In a
 * long row, of which each block is read once, it is chosen before the largest logit of the row is known, and raised when one exceeds it
 * by RAISE; sums of terms larger by e^(ln 2 * (RAISE - HEADROOM)) still fit. */
#if XENT_REAL == 32
#define HEADROOM 40
#define RAISE 96
#define FAINT 0x1p-100 /* see make_affine */
#else
#define HEADROOM 256
#define RAISE 768
#define FAINT 0x1p-500
#endif

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

/* The largest of n neighbours; NaN never gets in. */
ALWAYS_INLINE T KERNEL(largest)(const S *x, ptrdiff_t n)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    V tops[4] = {minus_infinity, minus_infinity, minus_infinity, minus_infinity};
    ptrdiff_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int k = 0; k < 4; k++) tops[k] = v_max(KERNEL(load)(x + i + k * LANES, LANES, minus_infinity), tops[k]);
    for (; i < n; i += LANES) tops[0] = v_max(KERNEL(load)(x + i, n - i, minus_infinity), tops[0]);
    return v_top(v_max(v_max(tops[0], tops[1]), v_max(tops[2], tops[3])));
}

/* exps[i] = e^(x[i] - shift) 2^-reference of n neighbours, and 0 from there to a multiple of GROUP vectors. What is read next, and
 * where the result will be written, is fetched meanwhile. `shifted` is a constant. */
ALWAYS_INLINE void KERNEL(exps_of)(const S *x, ptrdiff_t n, uintptr_t next, uintptr_t out, T shift, NAME(scale) scale, T *exps,
                                   int shifted)
{
    const V minus_infinity = NAME(set)((T)-INFINITY), offset = NAME(set)(shift), zero = {0};
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        for (size_t line = (size_t)i * sizeof(S); line < (size_t)(i + 2 * LANES) * sizeof(S); line += 64) {
            __builtin_prefetch((const void *)(next + line));
            __builtin_prefetch((const void *)(out + line));
        }
        for (ptrdiff_t k = i; k < i + 2 * LANES; k += LANES) {
            const V v = KERNEL(load)(x + k, LANES, zero);
            v_store(exps + k, NAME(exp_scaled)(shifted ? v - offset : v, scale));
        }
    }
    for (; i < n; i += LANES) {
        const V v = KERNEL(load)(x + i, n - i, minus_infinity);
        v_store(exps + i, NAME(exp_scaled)(shifted ? v - offset : v, scale));
    }
    for (; i % (GROUP * LANES); i += LANES) v_store(exps + i, zero);
}

/* A sum on its way through a row or down a vector of columns. */
typedef struct {
    NAME(sum) sum;
    V largest;
    T reference, limit; /* a logit above the limit raises the reference */
} KERNEL(running);

/* Field by field: an initialiser in braces is a call of memset, which takes as long as a short row. */
ALWAYS_INLINE void KERNEL(start)(KERNEL(running) *r)
{
    const V zero = {0};
    r->sum.a = r->sum.b = (vf64)zero;
    r->largest = zero, r->reference = 0, r->limit = (T)-INFINITY;
}

/* The n exponentials that were kept so far change with it. */
static void KERNEL(raise)(KERNEL(running) *r, T top, T *exps, ptrdiff_t n)
{
    const T raised = KERNEL(exponent)(top) - HEADROOM;
    /* in two halves: the step may exceed the range of a double where the sum does not */
    const int down = (int)(r->reference - raised);
    const double half = ldexp(1.0, down / 2), rest = ldexp(1.0, down - down / 2);
    r->sum.a = r->sum.a * v_set_f64(half) * v_set_f64(rest), r->sum.b = r->sum.b * v_set_f64(half) * v_set_f64(rest);
    r->largest = r->largest * NAME(set)((T)half) * NAME(set)((T)rest);
    for (ptrdiff_t i = 0; i < n; i++) exps[i] = exps[i] * (T)half * (T)rest;
    r->reference = raised;
    r->limit = raised + HEADROOM < KERNEL(exponent)((T)LIMIT) ? (raised + RAISE) * (T)0.6931471805599453 : (T)INFINITY;
}

/* One row, in blocks (of which there may be one): the largest logit of a block, its exponentials, their sum. */
static void KERNEL(row_statistics)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t n, T shift, NAME(stats) *s)
{
    KERNEL(running) r;
    const S *x = t->x + p * t->x_step, *out = t->out ? t->out + p * t->out_step : x; /* without a result, nothing new is fetched */
    T *exps = t->exps + (t->kept ? p * t->exps_step : 0), m = (T)-INFINITY;
    const ptrdiff_t block = t->blocks ? BLOCK : n, ahead = t->blocks ? BLOCK : t->x_step;
    KERNEL(start)(&r);
    for (ptrdiff_t i = 0; i < n; i += block) {
        const ptrdiff_t size = xent_least(block, n - i);
        const T top = KERNEL(largest)(x + i, size);
        m = top > m ? top : m;
        if (i == 0 && !isinf(top)) /* nothing to scale yet */
            r.reference = KERNEL(exponent)(top - shift) - HEADROOM, r.limit = (r.reference + RAISE) * (T)0.6931471805599453;
        else if (top - shift > r.limit)
            KERNEL(raise)(&r, top - shift, exps, t->kept ? i : 0);
        const NAME(scale) scale = NAME(scale_of)(NAME(set)(r.reference));
        const uintptr_t next = (uintptr_t)(x + i) + (uintptr_t)ahead * sizeof(S), result = (uintptr_t)(out + i);
        T *room = exps + (t->kept ? i : 0);
        if (shift == 0)
            KERNEL(exps_of)(x + i, size, next, result, shift, scale, room, 0);
        else
            KERNEL(exps_of)(x + i, size, next, result, shift, scale, room, 1);
        NAME(add_losers)(room, LANES, (size + GROUP * LANES - 1) / (GROUP * LANES) * GROUP, &r.sum, &r.largest);
    }
    s->top[p] = m, s->shift[p] = shift, s->reference[p] = r.reference;
    s->peak[p] = NAME(sum_all_but_one)(&r.sum, r.largest, &s->rest[p], &s->rest_low[p]);
}

static void KERNEL(rows_statistics)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s)
{
    for (ptrdiff_t p = 0; p < t->n; p++) {
        KERNEL(row_statistics)(t, p, classes, 0, s);
        const T m = s->top[p];
        if (isinf(m))
            KERNEL(infinite_position)(t->x + p * t->x_step, 1, classes, m, s, p);
        else if (m > (T)LIMIT || m < (T)-LIMIT) /* once more, relative to m */
            KERNEL(row_statistics)(t, p, classes, m, s);
    }
}

/* The largest logits of the positions from p on: of four vectors of them, or of what is left. Class by class, which streams
 * through memory; the exponentials find them in the cache. */
ALWAYS_INLINE void KERNEL(columns_top)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t classes, T *top)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    V tops[4] = {minus_infinity, minus_infinity, minus_infinity, minus_infinity};
    if (t->n - p >= 4 * LANES) {
        for (ptrdiff_t c = 0; c < classes; c++) {
            const S *x = t->x + p + c * t->x_step;
            for (int k = 4 * LANES; k < 8 * LANES; k += 64 / (int)sizeof(S)) __builtin_prefetch(x + k); /* the next four */
            for (int k = 0; k < 4; k++) tops[k] = v_max(KERNEL(load)(x + k * LANES, LANES, minus_infinity), tops[k]);
        }
        for (int k = 0; k < 4; k++) v_store(top + p + k * LANES, tops[k]);
        return;
    }
    for (; p < t->n; p += LANES) {
        V v = minus_infinity;
        for (ptrdiff_t c = 0; c < classes; c++) v = v_max(KERNEL(load)(t->x + p + c * t->x_step, t->n - p, minus_infinity), v);
        v_store(top + p, v);
    }
}

/* One vector of positions. `whole`: it is, as a constant. */
ALWAYS_INLINE void KERNEL(column_sum)(const KERNEL(tile) *t, ptrdiff_t p, ptrdiff_t classes, V shift, NAME(scale) scale,
                                      KERNEL(running) *r, int whole)
{
    const V minus_infinity = NAME(set)((T)-INFINITY);
    const ptrdiff_t n = whole ? LANES : t->n - p, block = t->kept ? classes : BLOCK / LANES;
    const ptrdiff_t step = t->kept ? t->exps_step : LANES;
    T *exps = t->exps + (t->kept ? p : 0);
    for (ptrdiff_t first = 0; first < classes; first += block) {
        const ptrdiff_t size = xent_least(block, classes - first);
        const S *x = t->x + p + first * t->x_step;
        const uintptr_t fetched = (uintptr_t)((p / LANES * classes + first) * t->fetch);
        for (ptrdiff_t c = 0; c < size; c++) {
            if (t->fetch) {
                __builtin_prefetch((const void *)(t->next + fetched + (uintptr_t)(c * t->fetch)));
                __builtin_prefetch((const void *)(t->result + fetched + (uintptr_t)(c * t->fetch)));
            }
            v_store(exps + c * step, NAME(exp_scaled)(KERNEL(load)(x + c * t->x_step, n, minus_infinity) - shift, scale));
        }
        NAME(add_losers)(exps, step, size, &r->sum, &r->largest);
    }
}

static void KERNEL(columns_statistics)(const KERNEL(tile) *t, ptrdiff_t classes, NAME(stats) *s)
{
    const V zero = {0}, magic = NAME(set)(MAGIC), limit = NAME(set)((T)LIMIT), infinity = NAME(set)((T)INFINITY);
    int infinite = 0;
    for (ptrdiff_t p = 0; p < t->n; p += LANES) {
        if (p % (4 * LANES) == 0) KERNEL(columns_top)(t, p, classes, s->top);
        const V m = v_load(s->top + p), size = v_abs(m);
        const VM far = m_gt(size, limit), spoiled = m_eq(size, infinity);
        const V shift = v_select(spoiled, zero, v_select(far, m, zero));
        const V reference = v_fma(v_select(far, zero, m), NAME(set)(LOG2_E), magic) - magic - NAME(set)(HEADROOM);
        KERNEL(running) r;
        KERNEL(start)(&r);
        if (t->n - p >= LANES)
            KERNEL(column_sum)(t, p, classes, shift, NAME(scale_of)(reference), &r, 1);
        else
            KERNEL(column_sum)(t, p, classes, shift, NAME(scale_of)(reference), &r, 0);
        v_store(s->shift + p, shift);
        v_store(s->reference + p, reference);
        v_store(s->peak + p, r.largest);
        NAME(sum_lanes)(&r.sum, s->rest + p, s->rest_low + p);
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

/* What makes the result of a row or column of it; `dense` and `kept` (whether the exponentials were) are constants at every
 * call: what is not needed costs nothing. */
typedef struct {
    int dense, kept;
} KERNEL(way);

/* Numbers of one row. */
typedef struct {
    const S *x, *aux;
    const T *exps;
    S *out;
    V coefficient, lift, b, shift;
    NAME(scale) scale;
    KERNEL(dense_target) target;
} KERNEL(row);

/* n classes from c on, at most a vector. */
ALWAYS_INLINE V KERNEL(row_value)(const KERNEL(row) *r, ptrdiff_t c, ptrdiff_t n, KERNEL(way) way)
{
    const V zero = {0}, one = NAME(set)(1);
    const V e = way.kept ? v_load(r->exps + c) : NAME(exp_scaled)(KERNEL(load)(r->x + c, n, zero) - r->shift, r->scale);
    const V v = e * r->lift * r->coefficient;
    if (!way.dense) return v;
    const V weight = r->target.weight ? NAME(load)(r->target.weight + c, n, zero) : one;
    return v - r->b * KERNEL(target_value)(&r->target, weight, r->aux ? KERNEL(load)(r->aux + c, n, zero) : zero);
}

ALWAYS_INLINE void KERNEL(row_map)(const KERNEL(row) *r, ptrdiff_t classes, KERNEL(way) way)
{
    ptrdiff_t c = 0;
    for (; c + LANES <= classes; c += LANES) KERNEL(store)(r->out + c, KERNEL(row_value)(r, c, LANES, way), LANES);
    if (c < classes) KERNEL(store)(r->out + c, KERNEL(row_value)(r, c, classes - c, way), classes - c);
}

ALWAYS_INLINE void KERNEL(rows_map)(const KERNEL(tile) *t, const xent_softmax_args *a, const KERNEL(affine) *f, const NAME(stats) *s,
                                    KERNEL(way) way)
{
    KERNEL(row) r;
    r.target = KERNEL(dense_target_of)(a);
    for (ptrdiff_t p = 0; p < t->n; p++) {
        r.x = t->x + p * t->x_step, r.aux = t->aux ? t->aux + p * t->aux_step : NULL, r.out = t->out + p * t->out_step;
        r.exps = t->exps + p * t->exps_step;
        r.coefficient = NAME(set)(f->coefficient[p]), r.lift = NAME(set)(f->lift[p]), r.b = NAME(set)(f->dense[p]);
        r.shift = NAME(set)(s->shift[p]), r.scale = NAME(scale_of)(NAME(set)(s->reference[p]));
        if (f->coefficient[p] == 0 && f->dense[p] == 0)
            memset(r.out, 0, (size_t)a->classes * sizeof(S));
        else
            KERNEL(row_map)(&r, a->classes, way);
    }
}

ALWAYS_INLINE void KERNEL(column_map)(const KERNEL(tile) *t, const KERNEL(affine) *f, const NAME(stats) *s,
                                      const KERNEL(dense_target) *d, ptrdiff_t p, ptrdiff_t n, ptrdiff_t classes, KERNEL(way) way)
{
    const V coefficient = v_load(f->coefficient + p), lift = v_load(f->lift + p), b = v_load(f->dense + p);
    const V zero = {0}, shift = v_load(s->shift + p);
    const VM none = m_eq(coefficient, zero); /* an ignored position: 0 even of NaN */
    const NAME(scale) scale = NAME(scale_of)(v_load(s->reference + p));
    for (ptrdiff_t c = 0; c < classes; c++) {
        const V e = way.kept ? v_load(t->exps + p + c * t->exps_step)
                         : NAME(exp_scaled)(KERNEL(load)(t->x + p + c * t->x_step, n, zero) - shift, scale);
        V v = v_select(none, zero, e * lift * coefficient);
        if (way.dense) {
            const V target = t->aux ? KERNEL(load)(t->aux + p + c * t->aux_step, n, zero) : zero;
            v = v - b * KERNEL(target_value)(d, NAME(set)(d->weight ? d->weight[c] : 1), target);
        }
        KERNEL(store)(t->out + p + c * t->out_step, v, n);
    }
}

ALWAYS_INLINE void KERNEL(columns_map)(const KERNEL(tile) *t, const xent_softmax_args *a, const KERNEL(affine) *f,
                                       const NAME(stats) *s, KERNEL(way) way)
{
    const KERNEL(dense_target) d = KERNEL(dense_target_of)(a);
    ptrdiff_t p = 0;
    for (; p + LANES <= t->n; p += LANES) KERNEL(column_map)(t, f, s, &d, p, LANES, a->classes, way);
    if (p < t->n) KERNEL(column_map)(t, f, s, &d, p, t->n - p, a->classes, way);
}

static void KERNEL(exp_map)(const KERNEL(tile) *t, const xent_softmax_args *a, const KERNEL(affine) *f, const NAME(stats) *s,
                            int dense)
{
#define WAY(map, dense, kept) KERNEL(map)(t, a, f, s, (KERNEL(way)){dense, kept})
    if (t->rows && t->kept)
        dense ? WAY(rows_map, 1, 1) : WAY(rows_map, 0, 1);
    else if (t->rows)
        dense ? WAY(rows_map, 1, 0) : WAY(rows_map, 0, 0);
    else if (t->kept)
        dense ? WAY(columns_map, 1, 1) : WAY(columns_map, 0, 1);
    else
        dense ? WAY(columns_map, 1, 0) : WAY(columns_map, 0, 0);
#undef WAY
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
        KERNEL(for_tiles)((const xent_softmax_args *)args, chunk, scratch, KERNEL(name##_tile), NAME(name##_tile));      \
    }
TILE_KERNEL(softmax)
TILE_KERNEL(log_softmax)
TILE_KERNEL(logsumexp)
TILE_KERNEL(softmax_backward)
TILE_KERNEL(log_softmax_backward)
