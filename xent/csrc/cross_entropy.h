/* cross_entropy.h: softmax cross-entropy, value and gradient, from the statistics of softmax.h.
 *
 * With the dense target u_c = w_c (mix t_c + base), U = sum_c u_c, and the index target of mass d = peak * w_y at label y:
 *
 *   loss = sum_c u_c (-log p_c) + d (-log p_y)
 *        = sum_c u_c (m - x_c) + U log1p(R) + d ((m - x_y) + log1p(R))
 *
 *   d(-log p_c)/dx_j = p_j - [c == j], so
 *   g_j  = s [ (U + d) p_j - u_j - d [j == y] ]                              s: the upstream gradient
 *   g_y  = s [ d (p_y - 1) + (U p_y - u_y) ]                                 the entry whose p_y - 1 would cancel
 *
 *   g_m  = s [ (U - u_m) - u_m R ] / (1 + R)                                 where only a dense target is given: the largest logit
 *
 *   index target             mix 0, base 0,     peak 1           label smoothing e:  base e / C, peak 1 - e
 *   probability target       mix 1, base 0,     no label         label smoothing e:  mix 1 - e, base e / C
 */

/* The mask of the first n lanes. */
ALWAYS_INLINE VM NAME(first)(ptrdiff_t n)
{
    T index[LANES];
    for (int k = 0; k < LANES; k++) index[k] = (T)k;
    return m_gt(NAME(set)((T)n), v_load(index));
}

/* sum_c u_c (m - x_c) and U of one position (rows) or a vector of positions (columns); 0 * infinity counts as 0. */
ALWAYS_INLINE void NAME(dense_add)(NAME(sum) *loss, NAME(sum) *mass, V u, V gap)
{
    const V zero = {0}, infinity = NAME(set)((T)INFINITY);
    const V finite_gap = v_select(m_eq(gap, infinity), v_select(m_eq(u, zero), zero, gap), gap);
    NAME(sum_add)(loss, u * finite_gap);
    NAME(sum_add)(mass, u);
}

static void NAME(dense_terms)(const xent_softmax_args *a, const NAME(tile) *t, const xent_stats *s, double *loss, double *mass)
{
    const NAME(dense_target) d = NAME(dense_target_of)(a);
    const V zero = {0}, one = NAME(set)(1);
    for (ptrdiff_t p = 0; t->rows && p < t->n; p++) {
        const S *x = t->x + p * t->x_step, *target = t->aux ? t->aux + p * t->aux_step : NULL;
        const V m = NAME(set)((T)s->top[p]);
        NAME(sum) sums[2] = {{{0}, {0}}, {{0}, {0}}};
        for (ptrdiff_t c = 0; c < a->classes; c += LANES) {
            const ptrdiff_t n = xent_least(LANES, a->classes - c);
            /* past the end the weight is 0, and with it u */
            const V weight = d.weight ? NAME(load)(d.weight + c, n, zero) : n == LANES ? one : v_select(NAME(first)(n), one, zero);
            const V u = NAME(target_value)(&d, weight, target ? NAME(load)(target + c, n, zero) : zero);
            NAME(dense_add)(sums, sums + 1, u, m - NAME(load)(x + c, n, m));
        }
        loss[p] = NAME(sum_total)(sums), mass[p] = NAME(sum_total)(sums + 1);
    }
    for (ptrdiff_t p = 0; !t->rows && p < t->n; p += LANES) {
        const ptrdiff_t n = xent_least(LANES, t->n - p);
        T top[LANES];
        for (int k = 0; k < LANES; k++) top[k] = (T)s->top[p + k];
        NAME(sum) sums[2] = {{{0}, {0}}, {{0}, {0}}};
        for (ptrdiff_t c = 0; c < a->classes; c++) {
            const V target = t->aux ? NAME(load)(t->aux + p + c * t->aux_step, n, zero) : zero;
            const V u = NAME(target_value)(&d, NAME(set)(d.weight ? d.weight[c] : 1), target);
            NAME(dense_add)(sums, sums + 1, u, v_load(top) - NAME(load)(t->x + p + c * t->x_step, n, zero));
        }
        NAME(sum_lanes)(sums, loss + p, NULL), NAME(sum_lanes)(sums + 1, mass + p, NULL);
    }
}

/* One element of a tile, by position and class. */
ALWAYS_INLINE ptrdiff_t NAME(element)(const NAME(tile) *t, ptrdiff_t step, ptrdiff_t p, ptrdiff_t c)
{
    return t->rows ? p * step + c : p + c * step;
}

/* u_c of one class. */
ALWAYS_INLINE double NAME(dense_value)(const xent_softmax_args *a, const NAME(tile) *t, ptrdiff_t p, ptrdiff_t c)
{
    const double target = t->aux ? (double)t->aux[NAME(element)(t, t->aux_step, p, c)] : 0.0;
    return (a->label_weight ? a->label_weight[c] : 1.0) * (a->mix * target + a->base);
}

/* The class of a position whose gradient entry is made apart, because p - 1 would cancel in it: the label; or, where the target is
 * dense and the prediction confident (R < 1/4), the largest logit. -1: none. */
ALWAYS_INLINE ptrdiff_t NAME(special_class)(const xent_softmax_args *a, const NAME(tile) *t, const xent_stats *s, ptrdiff_t p,
                                            ptrdiff_t label)
{
    if (label >= 0 || !(s->others[p] < 0.25)) return label;
    for (ptrdiff_t c = 0; c < a->classes; c++)
        if ((double)t->x[NAME(element)(t, t->x_step, p, c)] == s->top[p]) return c;
    return -1;
}

static void NAME(cross_entropy_tile)(const xent_softmax_args *a, const NAME(tile) *t, double *loss)
{
    const int dense = a->mix != 0 || a->base != 0;
    xent_stats s;
    xent_target y;
    double dense_loss[TILE], mass[TILE]; /* sum u_c (m - x_c), U */
    double peak[TILE], x_y[TILE];
    ptrdiff_t label[TILE]; /* -1: no label */
    char ignored[TILE];
    NAME(statistics)(t, a->classes, &s);
    if (dense) NAME(dense_terms)(a, t, &s, dense_loss, mass);

    /* Labels were checked, but they are the caller's memory, which another thread may write to: each is read once, and one that is
     * out of range now counts as ignored. */
    for (ptrdiff_t p = 0; p < t->n; p++) {
        const int64_t given = a->label ? a->label[t->first + p] : 0;
        ignored[p] = a->label && (given == a->ignore_index || given < 0 || given >= a->classes);
        label[p] = a->label && !ignored[p] ? (ptrdiff_t)given : -1;
        peak[p] = label[p] < 0 ? 0 : a->label_weight ? a->peak * a->label_weight[given] : a->peak;
        x_y[p] = label[p] < 0 ? 0 : (double)t->x[NAME(element)(t, t->x_step, p, given)];
    }
    if (a->label) {
        for (ptrdiff_t p = t->n; p % LANES_F64; p++) x_y[p] = 0;
        target_terms(&y, &s, x_y, t->n);
    }

    for (ptrdiff_t p = 0; p < t->n; p++) {
        double value = dense ? dense_loss[p] + mass[p] * s.log_total[p] : 0;
        /* without weight an infinite loss counts as 0, but NaN stays */
        if (label[p] >= 0) value += peak[p] != 0 || y.loss[p] != INFINITY ? peak[p] * y.loss[p] : 0;
        loss[p] = ignored[p] ? 0 : value;
        if (a->per_position) ((T *)a->per_position)[t->first + p] = (T)loss[p];
    }
    if (!t->out) return;

    /* From here on `out` may overwrite the logits: what is needed of them is taken first. */
    double factor[TILE], scale[TILE], entry[TILE];
    for (ptrdiff_t p = 0; p < t->n; p++) {
        scale[p] = ignored[p] ? 0 : a->gradient_scale * (a->upstream ? a->upstream[t->first + p] : 1);
        factor[p] = ignored[p] ? 0 : scale[p] * ((dense ? mass[p] : 0) + peak[p]);
        if (ignored[p]) s.inverse[p] = 0; /* a row of exact zeros, even of NaN logits */
        if (a->label) {
            if (label[p] < 0) continue;
            entry[p] = peak[p] * y.p_minus_1[p];
            if (dense) entry[p] += mass[p] * y.p[p] - NAME(dense_value)(a, t, p, label[p]);
        } else if ((label[p] = NAME(special_class)(a, t, &s, p, -1)) >= 0) { /* U p - u = (U - u) p - u (1 - p) */
            const double u = NAME(dense_value)(a, t, p, label[p]);
            entry[p] = ((mass[p] - u) - u * s.others[p]) / s.total[p];
        }
        entry[p] *= scale[p];
    }
    NAME(affine) f;
    NAME(make_affine)(&f, &s, factor, dense ? scale : NULL, t->n);
    if (dense)
        NAME(exp_map)(t, a, &f, 1);
    else
        NAME(exp_map)(t, a, &f, 0);
    for (ptrdiff_t p = 0; p < t->n; p++)
        if (label[p] >= 0) t->out[NAME(element)(t, t->out_step, p, label[p])] = (T)entry[p];
}

TILE_KERNEL(cross_entropy)
