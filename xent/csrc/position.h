/* position.h: what is known of a position after one look at its logits, and the arithmetic from there to total, logarithm
 * and target terms, in double lanes whatever the logits' type. Included once, after the double version of vmath.h.
 *
 * With m the largest logit and R = sum of exp(x_c - m) over all classes but ONE that attains m:
 *
 *   logsumexp      = m + log1p(R)
 *   log softmax_c  = (x_c - m) - log1p(R)          both terms <= 0: nothing cancels
 *   -log p_y       = (m - x_y) + log1p(R)          both terms >= 0: nothing cancels, whatever the label
 *   p_y - 1        = -R / (1 + R)  where x_y = m;  else p_y - 1 with p_y <= 1/2: nothing cancels
 *
 * so the accuracy of confident predictions needs no knowledge of the label while the row is read. R comes as
 * rest * 2^reference: powers of two are exact, so a row that meets a larger logit rescales without an error.
 */

#define TILE 128 /* positions worked on at a time: their numbers (a dozen doubles each) stay in the L1 cache */

typedef struct {
    double top[TILE];        /* m */
    double rest[TILE];       /* sum of e^x_c over the others, times 2^-reference; if m is infinite: 0, or NaN if one is there */
    double rest_low[TILE];   /* what rounding left of it (0 for floats, whose sums are wide enough) */
    double reference[TILE];
    /* From here on made by finish(): */
    double shift[TILE];      /* what to subtract from a logit before exp: 0, or m where |m| is past the range of exp_mantissa */
    double power[TILE];      /* n of e^(m - shift) = 2^n e^r */
    double inverse[TILE];    /* p_c = e^(x_c - shift) 2^-power * inverse */
    double others[TILE];     /* R */
    double total[TILE];      /* 1 + R; NaN if m is infinite, as all probabilities are then */
    double log_total[TILE];  /* log1p(R) as a sum of two numbers */
    double log_low[TILE];
} xent_stats;

#define LANES_F64 ((ptrdiff_t)(XENT_VBYTES / sizeof(double)))

/* Beyond these |m|, logits are taken relative to m: any logit that still counts is then within a factor of two of m, and the
 * subtraction is exact (Sterbenz). Twice the largest -log of a number that is not 0 at least: 2 * 104, 2 * 746. */
#define LIMIT_F32 256.0
#define LIMIT_F64 1600.0

/* `wide` (a constant: true for doubles) carries low words along, so that each result is rounded about once; for floats the double
 * lanes are wide enough as they are. */
ALWAYS_INLINE void finish(xent_stats *s, ptrdiff_t n, double limit, int wide)
{
    const vf64 zero = {0}, one = v_set_f64(1), infinity = v_set_f64(INFINITY), magic = v_set_f64(0x1.8p52);
    for (ptrdiff_t i = 0; i < n; i += LANES_F64) {
        const vf64 m = v_load(s->top + i), size = v_abs(m);
        const vm64 infinite = m_eq(size, infinity);
        const vf64 relative = v_select(m_gt(size, v_set_f64(limit)), zero, m);
        vi64 bits;
        vf64 mantissa_low, log_low;
        const vf64 mantissa = exp_mantissa_f64(relative, &bits, &mantissa_low);
        const vf64 power = (vf64)bits - magic;
        const vf64 scale = (vf64)(((vi64)(v_load(s->reference + i) - power + magic) + v_iset_f64(1023)) << 52);
        const vf64 rest = v_load(s->rest + i) * scale;

        /* R = rest / mantissa, 1 + R, and 1 / (mantissa (1 + R)), each with what its rounding left behind */
        vf64 others = rest / mantissa, others_low = zero;
        if (wide) {
            const vf64 p = others * mantissa;
            const vf64 left = (rest - p) - product_error_f64(others, mantissa, p) + v_load(s->rest_low + i) * scale;
            others_low = (left - others * mantissa_low) / mantissa;
        }
        const vf64 sum = one + others, product = mantissa * sum;
        vf64 inverse = one / product;
        if (wide) {
            const vf64 sum_low = sum_error_f64(one, others, sum) + others_low;
            const vf64 product_low = product_error_f64(mantissa, sum, product) + mantissa * sum_low + mantissa_low * sum;
            const vf64 p = product * inverse;
            inverse += inverse * ((one - p) - product_error_f64(product, inverse, p) - product_low * inverse);
        }
        others = v_select(infinite, v_load(s->rest + i), others);
        others_low = v_select(m_gt(infinity, others), others_low, zero);
        const vf64 log_total = log1p_pair_f64(others, v_select(infinite, zero, others_low), &log_low);
        v_store(s->shift + i, v_select(infinite, zero, m - relative));
        v_store(s->power + i, power);
        v_store(s->inverse + i, v_select(infinite, v_set_f64(NAN), inverse));
        v_store(s->others + i, others);
        v_store(s->total + i, v_select(infinite, v_set_f64(NAN), sum));
        v_store(s->log_total + i, log_total + log_low);
        v_store(s->log_low + i, log_low - ((log_total + log_low) - log_total));
    }
}

/* m + log1p(R), rounded once. */
ALWAYS_INLINE double logsumexp_of(const xent_stats *s, ptrdiff_t p)
{
    const double sum = s->top[p] + s->log_total[p], back = sum - s->top[p];
    const double low = (s->top[p] - (sum - back)) + (s->log_total[p] - back) + s->log_low[p];
    return isfinite(sum) ? sum + low : sum;
}

/* From the target logits x_y: -log p_y, p_y, and p_y - 1. */
typedef struct {
    double loss[TILE], p[TILE], p_minus_1[TILE];
} xent_target;

static void target_terms(xent_target *t, const xent_stats *s, const double *x_y, ptrdiff_t n)
{
    const vf64 zero = {0}, infinity = v_set_f64(INFINITY);
    for (ptrdiff_t i = 0; i < n; i += LANES_F64) {
        const vf64 m = v_load(s->top + i), x = v_load(x_y + i), log_total = v_load(s->log_total + i);
        const vf64 total = v_load(s->total + i), gap = m - x, loss = gap + log_total;
        const vm64 finite = m_gt(infinity, v_abs(loss));
        const vf64 gap_low = sum_error_f64(m, zero - x, gap);
        const vf64 low = sum_error_f64(gap, log_total, loss) + gap_low + v_load(s->log_low + i);
        const vf64 e = exp_f64(zero - gap);
        const vf64 p = (e - v_select(finite, e * gap_low, zero)) / total;
        v_store(t->loss + i, v_select(finite, loss + low, loss));
        v_store(t->p + i, p);
        v_store(t->p_minus_1 + i, v_select(m_eq(gap, zero), zero - v_load(s->others + i) / total, p - v_set_f64(1)));
    }
}
