/* label_losses.h: losses of labels, which look at one class of each position. With v the number of class y and w the
 * weight of the label:
 *
 *   NLL             loss = -w v            d/dv = -w                               v a log-probability
 *   cross-entropy   loss = -log v          d/dv = -1 / v                           v a probability
 *
 * where `clip` bounds v to [clip, 1] if it is not 0; beyond that the derivative is 0. The gradient is 0 in all other
 * classes, and an ignored position has loss and gradient 0.
 *
 * Design: one scalar loop, as there is nothing to do for most numbers. All that is needed of a tile of positions is
 * read before any of it is written: the gradient may take the place of x.
 */
#include "begin.h"
#include "simd/log.h"
#include "simd/stored.h"
#include "softmax/labels.h"
#include "softmax/tile.h"
#include "table.h"
#include "wide.h"

#ifndef XENT_LABEL_LOSSES_H
#define XENT_LABEL_LOSSES_H

#if XENT_REAL == 64 && !defined(STORED_AS_16)
/* What a label has led to: the loss, and the gradient's entry. */
typedef struct {
    double loss, entry;
} label_loss;

ALWAYS_INLINE int is_far_from_ends(double v) { return fabs(v) >= 0x1p-960 && fabs(v) <= 0x1p960; }

/* numerator * scale * upstream / denominator, of which the scale is factor / (unit * divisor): with care where a part of
 * it is so large or small that a product might not have all its digits. */
ALWAYS_INLINE double label_entry(const xent_loss *o, double numerator, double upstream, double denominator)
{
    const double scaled = numerator * o->gradient_scale, above = scaled * upstream, entry = above / denominator;
    if (is_far_from_ends(scaled) && (upstream == 0 || (is_far_from_ends(above) && is_far_from_ends(entry))))
        return entry;
    const wide divisor = wide_product(wide_of(o->unit), wide_of(o->divisor == 0 ? 1 : o->divisor));
    const wide scale = wide_quotient(wide_product(wide_of(o->factor), wide_of(upstream)), divisor);
    return wide_as_double(wide_quotient(wide_product(wide_of(numerator), scale), wide_of(denominator)));
}

/* What has no weight is not there, be it infinite or NaN. */
ALWAYS_INLINE label_loss nll_point(const xent_loss *o, double v, double w, double upstream)
{
    return (label_loss){.loss = w == 0 ? 0 : 0.0 - w * v, .entry = w == 0 ? 0 : 0.0 + label_entry(o, -w, upstream, 1)};
}

/* The probability in the place of the loss: logarithms are taken of all of a tile. The entry of v = -0 is that of 0. NaN
 * is not bounded. */
ALWAYS_INLINE label_loss label_cross_entropy_point(const xent_loss *o, double v, double upstream)
{
    const int below = o->clip != 0 && v < o->clip, above = o->clip != 0 && v > 1;
    return (label_loss){.loss = below   ? o->clip
                                : above ? 1
                                        : v,
                        .entry = below || above ? 0 : label_entry(o, -1, upstream, v + 0.0)};
}

/* The label of each of some positions (-1: ignored). */
typedef struct {
    ptrdiff_t label[TILE];
    double loss[TILE], entry[TILE];
    double beyond
        [TILE]; /* losses so large that a sum might leave doubles where the mean does not, times LOSSES_HALFWAY^2 */
} label_tile;

/* -w v LOSSES_HALFWAY^2, if w v is beyond LARGE_LOSS: no factor underflows then, as neither is less than 2^-64, and no sum
 * overflows. */
#define LARGE_LOSS 0x1p960
#define LOSSES_HALFWAY 0x1p-530
ALWAYS_INLINE double label_loss_beyond(double loss, double v, double w)
{
    return fabs(loss) > LARGE_LOSS && isfinite(v) ? -(w * LOSSES_HALFWAY) * (v * LOSSES_HALFWAY) : 0;
}
#endif

/* The n positions from `first` on; class 0 of the first lies at x, that of the next `step` further on. */
static void KERNEL(read_label_tile)(const xent_label_losses_args *a, const S *x, ptrdiff_t step, ptrdiff_t first,
                                    ptrdiff_t n, label_tile *t)
{
    const ptrdiff_t classes = a->positions.classes, stride = a->positions.x.stride;
    for (ptrdiff_t k = 0; k < n; k++) {
        const ptrdiff_t y = t->label[k] = KERNEL(label_at)(a->labels, classes, first + k);
        label_loss l = {.loss = a->loss.kind == XENT_NLL ? 0 : 1, .entry = 0};
        t->beyond[k] = 0;
        if (y >= 0) {
            const double v = KERNEL(get)(x + k * step + y * stride),
                         upstream = a->upstream ? a->upstream[first + k] : 1;
            const double weight = a->label_weight ? a->label_weight[y] : 1;
            l = a->loss.kind == XENT_NLL ? nll_point(&a->loss, v, weight, upstream)
                                         : label_cross_entropy_point(&a->loss, v, upstream);
            if (a->loss.kind == XENT_NLL) t->beyond[k] = label_loss_beyond(l.loss, v, weight);
        }
        t->loss[k] = l.loss, t->entry[k] = l.entry;
    }
    if (a->loss.kind == XENT_NLL) return;
    const vf64 one = set_f64(1), zero = {0};
    for (ptrdiff_t k = 0; k < n; k += LANES_F64) {
        const ptrdiff_t here = xent_min(n - k, LANES_F64);
        store_f64(t->loss + k, zero - log_f64(load_f64(t->loss + k, here, one)), here);
    }
}

/* The gradient at n positions: rows or columns of zeros, but for the entries. */
static void KERNEL(put_label_gradient)(const xent_positions *positions, S *out, ptrdiff_t step, ptrdiff_t n,
                                       const label_tile *t)
{
    const ptrdiff_t lines = positions->inner > 1 ? positions->classes : n,
                    apart = positions->inner > 1 ? positions->out.stride : step,
                    line = positions->inner > 1 ? n : positions->classes;
    if (apart == line) /* no gaps between them */
        memset(out, 0, (size_t)(lines * line) * sizeof(S));
    else
        for (ptrdiff_t j = 0; j < lines; j++) memset(out + j * apart, 0, (size_t)line * sizeof(S));
    for (ptrdiff_t k = 0; k < n; k++)
        if (t->label[k] >= 0)
            KERNEL(put)(out + k * step + t->label[k] * positions->out.stride, KERNEL(narrowed)(t->entry[k]));
}

static void KERNEL(label_losses)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_label_losses_args *a = (const xent_label_losses_args *)args;
    const xent_positions *positions = &a->positions;
    const ptrdiff_t begin = chunk * positions->chunk, end = xent_min(begin + positions->chunk, positions->count);
    const int columns = positions->inner > 1;
    double sum = 0, error = 0, beyond = 0, beyond_error = 0;
    label_tile t;
    (void)scratch;
    for (ptrdiff_t p = begin, n; p < end; p += n) {
        const ptrdiff_t i = p % positions->inner, m = p / positions->inner % positions->middle_count,
                        o = p / positions->inner / positions->middle_count;
        n = xent_min(xent_min(TILE, end - p), columns ? positions->inner - i : positions->middle_count - m);
        KERNEL(read_label_tile)(a, KERNEL(at)(&positions->x, o, m, i), columns ? 1 : positions->x.middle_stride, p, n,
                                &t);
        for (ptrdiff_t k = 0; k < n; k++) {
            two_sum_add(&sum, &error, t.beyond[k] == 0 ? t.loss[k] : 0);
            two_sum_add(&beyond, &beyond_error, t.beyond[k]);
        }
        for (ptrdiff_t k = 0; k < n; k++) t.loss[k] /= a->loss.unit;
        KERNEL(put_per_position)(&a->losses, t.loss, p, n);
        if (positions->out.data)
            KERNEL(put_label_gradient)(positions, KERNEL(at)(&positions->out, o, m, i),
                                       columns ? 1 : positions->out.middle_stride, n, &t);
    }
    if (!positions->partial) return;
    positions->partial[2 * chunk] = isfinite(sum) ? sum + error : sum;
    positions->partial[2 * chunk + 1] = beyond + beyond_error;
}

#endif
