/* pool_backward.h: the gradients of max and average pooling, on the phases of pool.h. */
#include "begin.h"
#include "images/pool.h"

#if !defined(XENT_POOL_BACKWARD_H) && !defined(STORED_AS_16)
#define XENT_POOL_BACKWARD_H

/* Return whether input row y was reached before; if not, rows before it that were not are set to 0. */
ALWAYS_INLINE int NAME(reached)(const xent_window *w, S *out, ptrdiff_t *done, ptrdiff_t y)
{
    if (y < *done) return 1;
    for (T *t = out + *done * w->width; t < out + y * w->width; t++) *t = 0;
    *done = y + 1;
    return 0;
}

/* What LANES pixels from element q of a phase on receive through `n` taps: from the outputs whose place is `start` and
 * the tap, or (avg) from all. */
ALWAYS_INLINE V NAME(merge_at)(const T *grad, const I *places, ptrdiff_t q, I start, const xent_tap *tap, ptrdiff_t n,
                               int average)
{
    V sum = {0};
    for (ptrdiff_t j = 0; j < n; j++) {
        const VI place = NAME(iset)(start + (I)tap[j].offset);
        const V g = v_load(grad + q - tap[j].shift);
        sum = sum + (average ? g : (V)((VI)g & (NAME(load_index)(places + q - tap[j].shift) == place)));
    }
    return sum;
}

/* Send the gradients of an output row to an input row, whose place is `start`; `add` says whether it was reached
 * before. For strides 1 and 2. `stride`, `taps`, `even`, `add` and `average` are constants at most calls, and the taps
 * in registers. */
ALWAYS_INLINE void NAME(merge_taps)(const NAME(pool) *p, const xent_tap *tap, T *row, I start, ptrdiff_t stride,
                                    ptrdiff_t taps, ptrdiff_t even, int add, int average)
{
    const ptrdiff_t width = p->a->window.width;
    const T *grad = p->grad;
    const I *places = p->place;
    const V zero = {0};
    for (ptrdiff_t q = 0, here = width; here > 0; q += LANES, row += stride * LANES, here -= stride * LANES) {
        const ptrdiff_t there = here - LANES;
        V low = NAME(merge_at)(grad, places, q, start, tap, even, average), high = low;
        if (stride == 2) {
            const V odds = NAME(merge_at)(grad, places, q, start, tap + even, taps - even, average);
            high = v_zip_hi(low, odds);
            low = v_zip_lo(low, odds);
        }
        if (here >= stride * LANES) {
            v_store(row, add ? low + v_load(row) : low);
            if (stride == 2) v_store(row + LANES, add ? high + v_load(row + LANES) : high);
        } else {
            NAME(store)(row, add ? low + NAME(load)(row, here, zero) : low, here);
            if (stride == 2)
                NAME(store_part)(row + LANES, add ? high + NAME(load_part)(row + LANES, there, zero) : high, there);
        }
    }
}

static void NAME(merge_row)(const NAME(pool) *p, T *row, I start, int add)
{
    const ptrdiff_t stride = p->a->window.stride_w;
#define CASE(step, columns, even_columns)                                                                              \
    if (stride == step && p->a->taps == columns && p->even == even_columns) {                                          \
        const xent_tap few[] = {p->by_residue[0], p->by_residue[1], p->by_residue[columns - 1]};                       \
        if (add)                                                                                                       \
            NAME(merge_taps)(p, few, row, start, step, columns, even_columns, 1, 0);                                   \
        else                                                                                                           \
            NAME(merge_taps)(p, few, row, start, step, columns, even_columns, 0, 0);                                   \
        return;                                                                                                        \
    }
    CASE(2, 2, 1)
    CASE(2, 3, 1)
    CASE(2, 3, 2)
    CASE(1, 3, 3)
#undef CASE
    NAME(merge_taps)(p, p->by_residue, row, start, stride, p->a->taps, p->even, add, 0);
}

/* Look for a larger element in `n` rows, of which the first is at `start` and in `phases[0]`. What is not larger
 * than the best so far, or comes after a NaN, stays behind it: the first maximum in scan order wins. Padding, -inf,
 * never replaces the first cell inside the image, where the search begins. `n`, `taps` and `nan` are constants at
 * most calls. */
ALWAYS_INLINE void NAME(find_best)(const NAME(pool) *p, const xent_tap *tap, T *const *phases, I start, int begin,
                                   ptrdiff_t n, ptrdiff_t taps, int nan)
{
    const ptrdiff_t out_w = p->a->window.out_w, step = p->a->window.dilation_h * p->a->window.width;
    const I *first = p->first;
    T *bests = p->best;
    I *places = p->place;
    for (ptrdiff_t ow = 0; ow < out_w; ow += LANES) {
        V best = begin ? NAME(set)((T)-INFINITY) : v_load(bests + ow);
        VI place = begin ? NAME(iset)(start) + NAME(load_index)(first + ow) : NAME(load_index)(places + ow);
        for (ptrdiff_t i = 0; i < n; i++) {
            for (ptrdiff_t j = 0; j < taps; j++) {
                const V x = v_load(phases[i] + tap[j].at + ow);
                const V here = (V)NAME(iset)(start + (I)(i * step + tap[j].offset));
                const VM larger = nan ? (VM) ~(m_ge(best, x) | ~m_eq(best, best)) : m_gt(x, best);
                place = (VI)v_select(larger, here, (V)place);
                best = nan ? v_select(larger, x, best) : v_max(x, best);
            }
        }
        v_store(bests + ow, best);
        v_store((T *)(places + ow), (V)place);
    }
}

static void NAME(find_in_rows)(const NAME(pool) *p, T *const *phases, I start, int begin, ptrdiff_t n, int nan)
{
#define CASE(rows, columns)                                                                                            \
    if (n == rows && p->a->taps == columns && !nan) {                                                                  \
        const xent_tap few[] = {p->taps[0], p->taps[1], p->taps[columns - 1]};                                         \
        T *const some[] = {phases[0], phases[1], phases[rows - 1]};                                                    \
        NAME(find_best)(p, few, some, start, begin, rows, columns, 0);                                                 \
        return;                                                                                                        \
    }
    CASE(2, 2)
    CASE(3, 3)
#undef CASE
    NAME(find_best)(p, p->taps, phases, start, begin, n, p->a->taps, 1);
}

/* Find the first maximum of every window of an output row. Rows that the output row before has split already are still
 * there. */
static void NAME(find_places)(NAME(pool) *p, const S *x, NAME(rows) rows)
{
    const xent_window *w = &p->a->window;
    for (ptrdiff_t i = rows.low; i < rows.high; i += HELD) {
        const ptrdiff_t n = xent_min(HELD, rows.high - i);
        const I start = (I)(i * w->dilation_h * w->width);
        T *phases[HELD];
        int nan = 0;
        for (ptrdiff_t k = 0; k < n; k++) {
            const ptrdiff_t y = rows.y + (i - rows.low + k) * w->dilation_h, slot = w->dilation_h == 1 ? y % HELD : k;
            phases[k] = p->phases + slot * p->a->phases * p->a->span;
            if (p->held[slot] != y) p->nan[slot] = NAME(split_row)(p, x + y * w->width, phases[k]);
            p->held[slot] = y;
            nan |= p->nan[slot];
        }
        NAME(find_in_rows)(p, phases, start, i == rows.low, n, nan);
    }
}

static void NAME(route_max)(NAME(pool) *p, const S *x, const S *grad, S *out, ptrdiff_t oh, ptrdiff_t *done)
{
    const xent_window *w = &p->a->window;
    const NAME(rows) rows = NAME(rows_of)(w, oh);
    const V zero = {0};
    if (rows.low >= rows.high) return; /* a window of padding only has no maximum */
    NAME(find_places)(p, x, rows);
    for (ptrdiff_t ow = 0; ow < w->out_w; ow += LANES)
        v_store(p->grad + ow, NAME(load)(grad + ow, w->out_w - ow, zero));
    for (ptrdiff_t i = rows.low, y = rows.y; i < rows.high; i++, y += w->dilation_h) {
        const int add = NAME(reached)(w, out, done, y);
        if (w->stride_w <= 2)
            NAME(merge_row)(p, out + y * w->width, (I)(i * w->dilation_h * w->width), add);
        else if (!add)
            memset(out + y * w->width, 0, (size_t)w->width * sizeof(S));
    }
    if (w->stride_w <= 2) return;
    S *origin = out + (oh * w->stride_h - w->top) * w->width - w->left;
    for (ptrdiff_t ow = 0; ow < w->out_w; ow++) {
        /* never negative: a plane may have more than 2^31 floats */
        const size_t place = (size_t)p->place[ow] & (size_t)(sizeof(I) == 4 ? UINT32_MAX : UINT64_MAX);
        if (p->first[ow] != NOWHERE) origin[ow * w->stride_w + (ptrdiff_t)place] += grad[ow];
    }
}

/* The shares of an output row, added up in the columns of the image. */
static void NAME(spread_columns)(const NAME(pool) *p)
{
    const xent_pool_args *a = p->a;
    const ptrdiff_t stride = a->window.stride_w, width = a->window.width;
    if (stride <= 2) {
        NAME(merge_taps)(p, p->by_residue, p->line, 0, stride, a->taps, p->even, 0, 1);
        return;
    }
    memset(p->line, 0, (size_t)width * sizeof(T));
    for (const xent_tap *tap = p->taps; tap < p->taps + a->taps; tap++) {
        const ptrdiff_t end = xent_min(xent_count_below(tap->residue, stride, width), a->window.out_w + tap->shift);
        for (ptrdiff_t q = xent_max(0, tap->shift); q < end; q++)
            p->line[q * stride + tap->residue] += p->grad[q - tap->shift];
    }
}

static void NAME(spread_mean)(const NAME(pool) *p, const S *grad, S *out, ptrdiff_t oh, ptrdiff_t *done)
{
    const xent_window *w = &p->a->window;
    const NAME(rows) rows = NAME(rows_of)(w, oh);
    const V zero = {0}, count = NAME(set)(NAME(count_rows)(p->a, oh));
    for (ptrdiff_t ow = 0; ow < w->out_w; ow += LANES) {
        const ptrdiff_t n = w->out_w - ow;
        const V one = zero + 1, counts = n >= LANES ? v_load(p->counts + ow) : v_load_n(p->counts + ow, n, one);
        v_store(p->grad + ow, NAME(load)(grad + ow, n, zero) / (count * counts));
    }
    NAME(spread_columns)(p);
    for (ptrdiff_t i = rows.low, y = rows.y; i < rows.high; i++, y++) {
        S *row = out + y * w->width;
        const int add = NAME(reached)(w, out, done, y);
        for (ptrdiff_t x = 0; x < w->width; x += LANES) {
            const V v = v_load(p->line + x);
            NAME(store)(row + x, add ? v + NAME(load)(row + x, w->width - x, zero) : v, w->width - x);
        }
    }
}

ALWAYS_INLINE void NAME(pool_backward)(const xent_pool_args *a, ptrdiff_t chunk, void *scratch, int average)
{
    const xent_window *w = &a->window;
    const ptrdiff_t size = w->height * w->width, pixels = w->out_h * w->out_w;
    const ptrdiff_t begin = chunk * a->chunk, end = xent_min(begin + a->chunk, a->planes);
    NAME(pool) p = NAME(pool_open)(a, scratch, average ? 0 : (T)-INFINITY);
    if (average)
        NAME(set_counts)(&p);
    else
        NAME(set_first)(&p);
    for (ptrdiff_t plane = begin; plane < end; plane++) {
        const S *grad = (const S *)a->grad + plane * pixels;
        S *out = (S *)a->out + plane * size;
        ptrdiff_t done = 0;
        for (int k = 0; k < HELD; k++) p.held[k] = -1;
        for (ptrdiff_t oh = 0; oh < w->out_h; oh++, grad += w->out_w) {
            if (average)
                NAME(spread_mean)(&p, grad, out, oh, &done);
            else
                NAME(route_max)(&p, (const S *)a->x + plane * size, grad, out, oh, &done);
        }
        NAME(reached)(w, out, &done, w->height);
    }
}

static void NAME(max_pool2d_backward)(const void *args, ptrdiff_t chunk, void *scratch)
{
    NAME(pool_backward)((const xent_pool_args *)args, chunk, scratch, 0);
}

static void NAME(avg_pool2d_backward)(const void *args, ptrdiff_t chunk, void *scratch)
{
    NAME(pool_backward)((const xent_pool_args *)args, chunk, scratch, 1);
}

#endif
