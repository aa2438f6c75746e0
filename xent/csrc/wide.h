/* wide.h: tiles whose logits are transformed before anything else: u = x / temperature, then cap tanh(u / cap), then + offset[c].
 *
 * A rounding of u is an error of the argument of an exponential. So a tile is copied into scratch memory as doubles, where u is made
 * of it and the functions of double arrays do the rest in place; results are rounded once, on the way out. The largest logit of a
 * position is taken from all before the division, so that no temperature overflows, and the smallest differences are exact.
 *
 * In the scratch a tile lies in rows or, where vectors go across the positions, in columns (tile.h); short rows are turned around. The
 * gradient by x is that by u times
 *
 *   du / dx = sech^2(x / (temperature cap)) / temperature,     sech^2 z = 4 e / (1 + e)^2 with e = exp(-2 |z|): no 1 - tanh^2
 *
 * of which the caller knows 1 / temperature. Included once per stored type.
 */

#if XENT_REAL == 64
#define WIDE_SHORT_ROW (12 * LANES_F64) /* as SHORT_ROW of tile.h */
#define WIDE_PADDING 64                 /* behind each array: what whole vectors write past its end */
#define WIDE_STRETCH 64                 /* numbers that are widened at a time to find their slopes: a few vectors */

/* The arrays of a tile: logits (results take their place), exponentials, and where there are some, targets and second derivatives. */
static int wide_arrays(const xent_softmax_args *a) { return 2 + (a->aux.data != NULL) + (a->second.data != NULL); }
static ptrdiff_t wide_elements(const xent_softmax_args *a) { return a->room / wide_arrays(a); }
static ptrdiff_t wide_row(ptrdiff_t classes) { return xent_most((classes + GROUP * LANES_F64 - 1) / (GROUP * LANES_F64), 1) * GROUP * LANES_F64; }

/* u of the logits v, from which `moved` was taken. */
ALWAYS_INLINE vf64 transformed(const xent_softmax_args *a, vf64 v, vf64 moved, vf64 offset)
{
    const vf64 distance = v - moved, cap = v_set_f64(a->cap), rounded = distance * v_set_f64(a->rate);
    const vf64 quotient = v_fma(distance, v_set_f64(a->rate_low), rounded); /* NaN of infinities */
    const vf64 u = v_select(m_gt(v_set_f64(INFINITY), v_abs(rounded)), quotient, rounded);
    return (a->cap != 0 ? cap * tanh_f64(u / cap) : u) + offset;
}

/* What is taken from logits whose largest is `top`: a cap is one of the logits as they are, and nothing is taken from infinities. */
ALWAYS_INLINE vf64 taken(const xent_softmax_args *a, vf64 top)
{
    const vf64 zero = {0};
    return a->cap != 0 ? zero : v_select(m_gt(v_set_f64(INFINITY), v_abs(top)), top, zero);
}

static void transform_row(const xent_softmax_args *a, double *u, double *moved)
{
    const ptrdiff_t classes = a->classes;
    const vf64 zero = {0}, minus_infinity = v_set_f64(-INFINITY);
    vf64 tops = minus_infinity;
    for (ptrdiff_t c = 0; c < classes; c += LANES_F64) tops = v_max(load_f64(u + c, classes - c, minus_infinity), tops);
    const vf64 shift = taken(a, v_set_f64(v_top(tops)));
    for (ptrdiff_t c = 0; c < classes; c += LANES_F64)
        v_store(u + c, transformed(a, v_load(u + c), shift, a->offset ? load_f64(a->offset + c, classes - c, zero) : zero));
    *moved = shift[0];
}

static void transform_columns(const xent_softmax_args *a, double *u, ptrdiff_t step, ptrdiff_t n, double *moved)
{
    const vf64 zero = {0};
    for (ptrdiff_t p = 0; p < n; p += LANES_F64) {
        vf64 tops = v_set_f64(-INFINITY);
        for (ptrdiff_t c = 0; c < a->classes; c++) tops = v_max(v_load(u + c * step + p), tops);
        const vf64 shift = taken(a, tops);
        for (ptrdiff_t c = 0; c < a->classes; c++)
            v_store(u + c * step + p, transformed(a, v_load(u + c * step + p), shift, a->offset ? v_set_f64(a->offset[c]) : zero));
        v_store(moved + p, shift);
    }
}

/* g sech^2(x / (temperature cap)) in the place of x, 0 where g is 0 (the position may be ignored, and x NaN); whole vectors. */
static void times_slopes(const xent_softmax_args *a, const double *g, double *x, ptrdiff_t n)
{
    const vf64 zero = {0}, one = v_set_f64(1), minus_two = v_set_f64(-2);
    for (ptrdiff_t i = 0; i < n; i += LANES_F64) {
        const vf64 z = v_load(x + i) / v_set_f64(a->temperature) / v_set_f64(a->cap), e = exp_f64(minus_two * v_abs(z));
        const vf64 product = v_load(g + i) * (v_set_f64(4) * e / ((one + e) * (one + e)));
        v_store(x + i, v_select(m_eq(v_load(g + i), zero), zero, product));
    }
}
#endif

/* n numbers as doubles and back; whole vectors are written, or read. */
static void KERNEL(widen)(const S *x, ptrdiff_t n, double *wide)
{
    const V zero = {0};
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const V v = KERNEL(load)(x + i, n - i, zero);
#if XENT_REAL == 32
        v_store(wide + i, v_widen_lo(v)), v_store(wide + i + LANES / 2, v_widen_hi(v));
#else
        v_store(wide + i, v);
#endif
    }
}

static void KERNEL(narrow)(const double *wide, ptrdiff_t n, S *out)
{
    for (ptrdiff_t i = 0; i < n; i += LANES) {
#if XENT_REAL == 32
        KERNEL(store)(out + i, v_narrow(v_load(wide + i), v_load(wide + i + LANES / 2)), n - i);
#else
        KERNEL(store)(out + i, v_load(wide + i), n - i);
#endif
    }
}

/* Lines of a tile, rows or columns, into the scratch: to columns if vectors go across the positions. `turn` is room for as much. */
static void KERNEL(widen_lines)(const KERNEL(tile) *t, ptrdiff_t classes, const S *x, ptrdiff_t x_step, double *wide, ptrdiff_t step,
                                double *turn)
{
    const int turned = t->rows && t->across;
    const ptrdiff_t lines = t->rows ? t->n : classes, length = t->rows ? classes : t->n;
    for (ptrdiff_t k = 0; k < lines; k++) KERNEL(widen)(x + k * x_step, length, turned ? turn + k * classes : wide + k * step);
    if (turned) rows_to_columns_f64(turn, classes, wide, step, t->n, classes);
}

/* Back; results by x, if `slopes`. */
static void KERNEL(narrow_lines)(const xent_softmax_args *a, const KERNEL(tile) *t, const double *wide, ptrdiff_t step, S *out,
                                 ptrdiff_t out_step, double *turn, int slopes)
{
    const int turned = t->rows && t->across;
    const ptrdiff_t lines = t->rows ? t->n : a->classes, length = t->rows ? a->classes : t->n;
    if (turned) columns_to_rows_f64(wide, step, turn, a->classes, t->n, a->classes);
    for (ptrdiff_t k = 0; k < lines; k++) {
        const double *line = turned ? turn + k * a->classes : wide + k * step;
        for (ptrdiff_t i = 0; slopes && i < length; i += WIDE_STRETCH) {
            const ptrdiff_t n = xent_least(WIDE_STRETCH, length - i);
            double stretch[WIDE_STRETCH];
            KERNEL(widen)(t->x + k * t->x_step + i, n, stretch);
            times_slopes(a, line + i, stretch, n);
            KERNEL(narrow)(stretch, n, out + k * out_step + i);
        }
        if (!slopes) KERNEL(narrow)(line, length, out + k * out_step);
    }
}

static void KERNEL(wide_tile)(const xent_softmax_args *a, const KERNEL(tile) *t, double *room, double *guess, sum_f64 *sums,
                              tile_function_f64 function)
{
    const ptrdiff_t elements = wide_elements(a);
    const ptrdiff_t step = t->across ? (t->n + LINE_COLUMNS - 1) / LINE_COLUMNS * LINE_COLUMNS : wide_row(a->classes);
    double *u = room, *exps = u + elements, *aux = t->aux ? exps + elements : NULL;
    double *second = t->second ? exps + elements * (t->aux ? 2 : 1) : NULL, moved[TILE];
    const tile_f64 wide = {u, aux, t->out ? u : NULL, exps, step, step, step, step, t->first, t->n, !t->across, t->across, 1, 0, guess,
                           second, NULL, moved, step};
    KERNEL(widen_lines)(t, a->classes, t->x, t->x_step, u, step, exps);
    if (aux) KERNEL(widen_lines)(t, a->classes, t->aux, t->aux_step, aux, step, exps);
    if (t->across)
        transform_columns(a, u, step, t->n, moved);
    else
        for (ptrdiff_t p = 0; p < t->n; p++) transform_row(a, u + p * step, moved + p);
    function(a, &wide, sums);
    if (t->out) KERNEL(narrow_lines)(a, t, u, step, t->out, t->out_step, exps, a->cap != 0);
    if (t->second) KERNEL(narrow_lines)(a, t, second, step, t->second, t->second_step, exps, 0);
}
