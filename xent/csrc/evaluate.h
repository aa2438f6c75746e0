/* evaluate.h: what is to be known of predictions, from one look at the logits. For each position, with p the softmax and y the label,
 *
 *   loss       -log p_y
 *   square     sum_c (p_c - [c == y])^2 = sum_{c != y} p_c^2 + (1 - p_y)^2: no 1 - 2 p_y + p_y^2, which would cancel
 *   entropy    -sum_c p_c log p_c = sum_c p_c (m - x_c) + log1p(R): both terms >= 0
 *   rank       the number of classes that come before y: a larger logit, or the same and a smaller index
 *
 * Their sums over the positions, times a->sample, are LOSS, SQUARES and ENTROPY of a->partial, and that of [rank == 0] is FIRST. If there
 * is a->rank it gets the ranks, up to a->most; only then are classes counted.
 */
#ifndef STORED_AS_16
#if XENT_REAL == 64
enum { LOSS, SQUARES, ENTROPY, FIRST };
#define ALONE 0.5  /* of R: another logit that is as large as the largest has made it at least 1, but for roundings */
#define STRETCH 32 /* vectors that are added up before they reach a wide sum: an error of some 2^-20 of a mean square */
#endif

/* Sums over all classes but the label's: of one position (rows), or of a vector of them (columns). */
typedef struct {
    NAME(sum) square, entropy;
} NAME(evaluated);

typedef struct {
    double square[TILE], entropy[TILE];
} NAME(known);

/* Add the exponentials of a vector of logits. An infinite distance has p = 0; it must not make NaN of it. */
ALWAYS_INLINE void NAME(evaluate_vector)(V *square, V *entropy, V x, V e, V coefficient, V m)
{
    const V p = e * coefficient;
    *square = v_fma(p, p, *square);
    *entropy = v_fma(p, v_min(NAME(set)(FARTHEST), m - x), *entropy);
}
#endif

/* Exponentials of a row from class c on, as the tile has kept them, or made again without the label and what lies after the end. */
ALWAYS_INLINE V KERNEL(other_exps)(const KERNEL(tile) *t, const NAME(stats) *s, const T *exps, V x, ptrdiff_t p, ptrdiff_t c,
                                   ptrdiff_t classes, ptrdiff_t label)
{
    if (t->kept) return v_load(exps + c);
    V e = NAME(exp_scaled)(x - NAME(set)(s->shift[p]), NAME(scale_of)(NAME(set)(s->reference[p])));
    for (int k = 0; k < LANES; k++)
        if (c + k == label || c + k >= classes) e[k] = 0;
    return e;
}

/* Two sums of each kind, which do not wait for each other. */
static void KERNEL(evaluate_row)(const KERNEL(tile) *t, ptrdiff_t classes, const NAME(stats) *s, const KERNEL(labels) *y, ptrdiff_t p,
                                 NAME(known) *known)
{
    const V m = NAME(set)(s->top[p]), coefficient = NAME(set)((T)(s->inverse[p] * s->unit[p])), zero = {0};
    const ptrdiff_t label = y->label[p], block = STRETCH * LANES;
    const S *x = t->x + p * t->x_step;
    T *exps = t->exps + (t->kept ? p * t->exps_step : 0);
    NAME(evaluated) sums = {{{0}, {0}}, {{0}, {0}}};
    if (t->kept && label >= 0) exps[label] = 0;
    for (ptrdiff_t first = 0; first < classes; first += block) {
        const ptrdiff_t end = xent_least(classes, first + block);
        V square[2] = {zero, zero}, entropy[2] = {zero, zero};
        ptrdiff_t c = first;
        for (; t->kept && c + 2 * LANES <= end; c += 2 * LANES)
            for (int k = 0; k < 2; k++)
                NAME(evaluate_vector)(square + k, entropy + k, KERNEL(load)(x + c + k * LANES, LANES, m), v_load(exps + c + k * LANES),
                                      coefficient, m);
        for (; c < end; c += LANES) {
            const V v = KERNEL(load)(x + c, classes - c, m);
            NAME(evaluate_vector)(square, entropy, v, KERNEL(other_exps)(t, s, exps, v, p, c, classes, label), coefficient, m);
        }
        NAME(sum_add)(&sums.square, square[0] + square[1]), NAME(sum_add)(&sums.entropy, entropy[0] + entropy[1]);
    }
    known->square[p] = v_sum_f64(sums.square.a + sums.square.b), known->entropy[p] = v_sum_f64(sums.entropy.a + sums.entropy.b);
}

/* A vector of positions from p on, of a tile in columns. */
static void KERNEL(evaluate_columns)(const KERNEL(tile) *t, ptrdiff_t classes, const NAME(stats) *s, const KERNEL(labels) *y, ptrdiff_t p,
                                     NAME(known) *known)
{
    const V m = v_load(s->top + p), shift = v_load(s->shift + p), zero = {0};
    const NAME(scale) scale = NAME(scale_of)(v_load(s->reference + p));
    const ptrdiff_t n = xent_least(LANES, t->n - p);
    T coefficients[LANES];
    NAME(evaluated) sums = {{{0}, {0}}, {{0}, {0}}};
    for (int k = 0; k < LANES; k++) coefficients[k] = (T)(s->inverse[p + k] * s->unit[p + k]);
    for (int k = 0; t->kept && k < n; k++)
        if (y->label[p + k] >= 0) t->exps[p + k + y->label[p + k] * t->exps_step] = 0;
    const V coefficient = v_load(coefficients);
    for (ptrdiff_t first = 0; first < classes; first += STRETCH) {
        const ptrdiff_t end = xent_least(classes, first + STRETCH);
        V square[2] = {zero, zero}, entropy[2] = {zero, zero};
        ptrdiff_t c = first;
        for (; t->kept && n == LANES && c + 2 <= end; c += 2)
            for (int k = 0; k < 2; k++)
                NAME(evaluate_vector)(square + k, entropy + k, KERNEL(load)(t->x + p + (c + k) * t->x_step, LANES, m),
                                      v_load(t->exps + p + (c + k) * t->exps_step), coefficient, m);
        for (; c < end; c++) {
            const V v = KERNEL(load)(t->x + p + c * t->x_step, n, m);
            V e = t->kept ? v_load(t->exps + p + c * t->exps_step) : NAME(exp_scaled)(v - shift, scale);
            for (int k = 0; !t->kept && k < n; k++)
                if (y->label[p + k] == c) e[k] = 0;
            NAME(evaluate_vector)(square, entropy, v, e, coefficient, m);
        }
        NAME(sum_add)(&sums.square, square[0] + square[1]), NAME(sum_add)(&sums.entropy, entropy[0] + entropy[1]);
    }
    NAME(sum_lanes)(&sums.square, known->square + p, NULL), NAME(sum_lanes)(&sums.entropy, known->entropy + p, NULL);
}

/* The classes before the label of position p. NaN is never ranked. */
static int64_t KERNEL(rank_of)(const xent_softmax_args *a, const KERNEL(tile) *t, const NAME(stats) *s, const KERNEL(labels) *y,
                               ptrdiff_t p)
{
    const int first = y->x[p] == s->top[p];
    const ptrdiff_t label = y->label[p], step = t->rows ? 1 : t->x_step, from = KERNEL(element)(t->rows, t->x_step, p, 0);
    const V x_y = NAME(set)(y->x[p]), zero = {0}, one = NAME(set)(1);
    V larger = zero; /* counts up to 2^24 in a lane */
    int64_t rank = 0;
    ptrdiff_t c = 0;
    if (label < 0) return a->most;
    if (first && s->others[p] < ALONE && !isinf(s->top[p])) return 0;
    if (!first && a->most == 1) return 1;
    for (; isnan(s->inverse[p]) && c < a->classes; c++) /* infinite logits, or NaN */
        if (isnan(KERNEL(get)(t->x + from + c * step))) return a->most;
    c = 0;
    for (; t->rows && !first && c + LANES <= a->classes; c += LANES)
        larger += v_select(m_gt(KERNEL(load)(t->x + from + c, LANES, zero), x_y), one, zero);
    for (; c < a->classes; c++) rank += KERNEL(get)(t->x + from + c * step) > y->x[p];
    for (c = 0; c < label; c++) rank += KERNEL(get)(t->x + from + c * step) == y->x[p];
    rank += (int64_t)v_sum(larger);
    return rank < a->most ? rank : a->most;
}

static void KERNEL(evaluate_tile)(const xent_softmax_args *a, const KERNEL(tile) *t, sum_f64 *sums)
{
    NAME(stats) s;
    NAME(target) terms;
    NAME(known) known;
    KERNEL(labels) y;
    KERNEL(statistics)(t, a->classes, &s);
    KERNEL(read_labels)(a, t, &y);
    KERNEL(label_exps)(t, &s, &y);
    NAME(target_terms)(&terms, &s, y.x, y.e, t->n);
    for (ptrdiff_t p = 0; p < t->n; p += t->rows ? 1 : LANES)
        (t->rows ? KERNEL(evaluate_row) : KERNEL(evaluate_columns))(t, a->classes, &s, &y, p, &known);
    double loss[TILE], first[TILE];
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const double rest = terms.p_minus_1[p], gap = s.top[p] - y.x[p], p_y = terms.p[p];
        loss[p] = (double)terms.loss[p] + terms.loss_low[p];
        known.square[p] += rest * rest;
        known.entropy[p] += (p_y == 0 ? 0 : p_y * gap) + s.log_total[p];
        first[p] = y.x[p] == s.top[p] && ((s.others[p] < ALONE && !isinf(s.top[p])) || KERNEL(rank_of)(a, t, &s, &y, p) == 0);
    }
    for (ptrdiff_t p = 0; a->rank && p < t->n; p++) a->rank[t->first + p] = KERNEL(rank_of)(a, t, &s, &y, p);
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const double factor = a->sample ? a->sample[t->first + p] : 1;
        /* without weight an infinite loss counts as 0, but NaN stays */
        loss[p] = y.counted[p] == 0 || (factor == 0 && loss[p] == INFINITY) ? 0 : loss[p] * factor;
        known.square[p] = y.counted[p] == 0 ? 0 : known.square[p] * factor;
        known.entropy[p] = y.counted[p] == 0 ? 0 : known.entropy[p] * factor;
        first[p] *= y.counted[p] * factor;
    }
    for (ptrdiff_t p = t->n; p % LANES_F64; p++) loss[p] = first[p] = known.square[p] = known.entropy[p] = 0;
    for (ptrdiff_t p = 0; p < t->n; p += LANES_F64) {
        sum_add_f64(sums + LOSS, v_load(loss + p)), sum_add_f64(sums + FIRST, v_load(first + p));
        sum_add_f64(sums + SQUARES, v_load(known.square + p)), sum_add_f64(sums + ENTROPY, v_load(known.entropy + p));
    }
}

TILE_KERNEL(evaluate)
