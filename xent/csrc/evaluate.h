/* evaluate.h: what is to be known of predictions, from one look at the logits. For each position, with p the softmax and y the label,
 *
 *   loss       -log p_y
 *   square     sum_c (p_c - [c == y])^2 = sum_{c != y} p_c^2 + (1 - p_y)^2: no 1 - 2 p_y + p_y^2, which would cancel
 *   entropy    -sum_c p_c log p_c = sum_c p_c (m - x_c) + log1p(R): both terms >= 0
 *   rank       the number of classes that come before y: a larger logit, or the same and a smaller index
 *
 * Their sums over the positions, times a->sample, are LOSS, SQUARE and ENTROPY of a->partial, and a->rank gets the ranks.
 */
#ifndef STORED_AS_16
#if XENT_REAL == 64
enum { LOSS, SQUARE, ENTROPY };
#define STRETCH 32 /* vectors that are added up before they reach a wide sum: an error of some 2^-20 of a mean square */
#endif

/* Of the classes of a position (rows), or of a vector of positions (columns): in vectors, and what was collected of them. */
typedef struct {
    V square, entropy, before, equal;
} NAME(stretch);

typedef struct {
    NAME(sum) square, entropy, before, equal;
} NAME(evaluated);

/* Add a vector of logits x with probabilities p; `others` is p without that of the label. */
ALWAYS_INLINE void NAME(evaluate_vector)(NAME(stretch) *r, V x, V p, V others, V m, V x_y)
{
    const V zero = {0}, one = NAME(set)(1);
    r->square = v_fma(others, others, r->square);
    r->entropy += v_select(m_eq(p, zero), zero, p * (m - x));
    r->before += v_select(m_gt(x, x_y), one, zero);
    r->equal += v_select(m_eq(x, x_y), one, zero);
}

ALWAYS_INLINE void NAME(collect)(NAME(evaluated) *sums, NAME(stretch) *r)
{
    const V zero = {0};
    NAME(sum_add)(&sums->square, r->square), NAME(sum_add)(&sums->entropy, r->entropy);
    NAME(sum_add)(&sums->before, r->before), NAME(sum_add)(&sums->equal, r->equal);
    r->square = r->entropy = r->before = r->equal = zero;
}

/* What is known of the positions of a tile. */
typedef struct {
    double square[TILE], entropy[TILE], before[TILE], equal[TILE];
} NAME(known);

/* The total of a sum of few terms: no digits are lost that matter here. */
ALWAYS_INLINE double NAME(sum_lanes_of)(const NAME(sum) *sum) { return v_sum_f64(sum->a + sum->b); }
#endif

static void KERNEL(evaluate_row)(const KERNEL(tile) *t, ptrdiff_t classes, const NAME(stats) *s, const KERNEL(labels) *y, ptrdiff_t p,
                                 NAME(known) *known)
{
    const V m = NAME(set)(s->top[p]), x_y = NAME(set)(y->x[p]), shift = NAME(set)(s->shift[p]), fill = NAME(set)((T)-INFINITY);
    const V coefficient = NAME(set)((T)(s->inverse[p] * s->unit[p]));
    const NAME(scale) scale = NAME(scale_of)(NAME(set)(s->reference[p]));
    const S *x = t->x + p * t->x_step;
    const T *exps = t->exps + (t->kept ? p * t->exps_step : 0);
    NAME(stretch) r = {{0}, {0}, {0}, {0}};
    NAME(evaluated) sums = {{{0}, {0}}, {{0}, {0}}, {{0}, {0}}, {{0}, {0}}};
    for (ptrdiff_t first = 0; first < classes; first += STRETCH * LANES) {
        for (ptrdiff_t c = first; c < xent_least(classes, first + STRETCH * LANES); c += LANES) {
            const V v = KERNEL(load)(x + c, classes - c, fill);
            const V probability = (t->kept ? v_load(exps + c) : NAME(exp_scaled)(v - shift, scale)) * coefficient;
            V others = probability;
            if ((size_t)(y->label[p] - c) < (size_t)LANES) others[y->label[p] - c] = 0;
            NAME(evaluate_vector)(&r, v, probability, others, m, x_y);
        }
        NAME(collect)(&sums, &r);
    }
    known->square[p] = NAME(sum_lanes_of)(&sums.square), known->entropy[p] = NAME(sum_lanes_of)(&sums.entropy);
    known->before[p] = NAME(sum_lanes_of)(&sums.before), known->equal[p] = NAME(sum_lanes_of)(&sums.equal);
}

/* A vector of positions from p on, of a tile in columns. */
static void KERNEL(evaluate_columns)(const KERNEL(tile) *t, ptrdiff_t classes, const NAME(stats) *s, const KERNEL(labels) *y, ptrdiff_t p,
                                     NAME(known) *known)
{
    const V m = v_load(s->top + p), x_y = v_load(y->x + p), shift = v_load(s->shift + p), zero = {0};
    const NAME(scale) scale = NAME(scale_of)(v_load(s->reference + p));
    T coefficients[LANES], labels[LANES];
    NAME(stretch) r = {{0}, {0}, {0}, {0}};
    NAME(evaluated) sums = {{{0}, {0}}, {{0}, {0}}, {{0}, {0}}, {{0}, {0}}};
    for (int k = 0; k < LANES; k++) coefficients[k] = (T)(s->inverse[p + k] * s->unit[p + k]);
    for (int k = 0; k < LANES; k++) labels[k] = p + k < t->n ? (T)y->label[p + k] : -1;
    const V coefficient = v_load(coefficients), label = v_load(labels);
    for (ptrdiff_t first = 0; first < classes; first += STRETCH) {
        for (ptrdiff_t c = first; c < xent_least(classes, first + STRETCH); c++) {
            const V v = KERNEL(load)(t->x + p + c * t->x_step, t->n - p, zero);
            const V probability = (t->kept ? v_load(t->exps + p + c * t->exps_step) : NAME(exp_scaled)(v - shift, scale)) * coefficient;
            NAME(evaluate_vector)(&r, v, probability, v_select(m_eq(label, NAME(set)((T)c)), zero, probability), m, x_y);
        }
        NAME(collect)(&sums, &r);
    }
    NAME(sum_lanes)(&sums.square, known->square + p, NULL), NAME(sum_lanes)(&sums.entropy, known->entropy + p, NULL);
    NAME(sum_lanes)(&sums.before, known->before + p, NULL), NAME(sum_lanes)(&sums.equal, known->equal + p, NULL);
}

/* The classes before the label of position p; where several share its logit, those with a smaller index are. NaN is never ranked. */
static int64_t KERNEL(rank_of)(const xent_softmax_args *a, const KERNEL(tile) *t, const KERNEL(labels) *y, const NAME(known) *known,
                               ptrdiff_t p)
{
    int64_t rank = (int64_t)known->before[p];
    if (isnan(known->square[p]) || y->label[p] < 0) return a->most;
    for (ptrdiff_t c = 0; known->equal[p] > 1 && c < y->label[p]; c++)
        rank += KERNEL(get)(t->x + KERNEL(element)(t->rows, t->x_step, p, c)) == y->x[p];
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
    double loss[TILE], square[TILE], entropy[TILE];
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const double rest = terms.p_minus_1[p];
        loss[p] = (double)terms.loss[p] + terms.loss_low[p];
        square[p] = known.square[p] + rest * rest;
        entropy[p] = known.entropy[p] + s.log_total[p];
        a->rank[t->first + p] = KERNEL(rank_of)(a, t, &y, &known, p);
    }
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const double factor = a->sample ? a->sample[t->first + p] : 1;
        if (y.counted[p] == 0)
            loss[p] = square[p] = entropy[p] = 0;
        else /* without weight an infinite loss counts as 0, but NaN stays */
            loss[p] = factor == 0 && loss[p] == INFINITY ? 0 : loss[p] * factor, square[p] *= factor, entropy[p] *= factor;
    }
    for (ptrdiff_t p = t->n; p % LANES_F64; p++) loss[p] = square[p] = entropy[p] = 0;
    for (ptrdiff_t p = 0; p < t->n; p += LANES_F64) {
        sum_add_f64(sums + LOSS, v_load(loss + p));
        sum_add_f64(sums + SQUARE, v_load(square + p));
        sum_add_f64(sums + ENTROPY, v_load(entropy + p));
    }
}

TILE_KERNEL(evaluate)
