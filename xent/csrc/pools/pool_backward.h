/* pool_backward.h: the gradients of max and average pooling, on the phases of pool.h.
 *
 * Design: pixel q of a phase of an input row receives what lies `shift` before it in the output rows that reach it, for
 * each tap; rows of outputs lie in scratch, with zeros before and behind:
 *
 *   max   the gradients of outputs whose maximum is in this row and column: whose place is the tap's number
 *   avg   the shares gradient / count of all outputs, of which the rows are added up first
 *
 * Rows of shares are kept in a ring, and an input row is written once. Gradients of maxima come to their pixels in one of
 * four ways (xent_plan_pool says which, by shapes alone):
 *
 *   by bands     of the usual windows some output rows are kept, a vector of pixels goes down them, and what each gives to
 *                all the input rows that it reaches is added to the sums of these, which are in registers: a number is
 *                loaded once for all of them. Rows of narrow planes are kept side by side, as one long row
 *   by rows      where planes are so large that numbers of pixels leave 32 bits: through a ring, as shares
 *   scattered    all others: each output adds its gradient to its pixel, in the image itself, which is cleared a little
 *                ahead. Numbers of 16 bits, and sums of many terms, are made in a strip of rows in scratch
 *   direct       where places are told, and windows are of 2 x 2 and share no pixel: pixels are vectors of outputs, spread
 *
 * The way, and with it the order of a sum, depends on shapes alone. Gradients are within 4 ulp of the sum of magnitudes,
 * whatever the window: a term goes through four roundings at most by bands and by rows, through eight of half an ulp
 * each where terms are added one after the other, or sums are in more bits than their terms, as in pool.h.
 */
#include "begin.h"
#include "pools/pool.h"

#ifndef XENT_POOL_BACKWARD_H
#define XENT_POOL_BACKWARD_H

#ifndef STORED_AS_16
/* An output row that reaches an input row. */
typedef struct {
    const T *grad;
    const I *places;
    I start; /* number of the first cell of its windows' row there */
} NAME(giver);

/* What pixels of an input row receive, and from where. */
typedef struct {
    const NAME(pool) *p;
    ptrdiff_t n;  /* max: output rows */
    const T *sum; /* avg: the rows of shares, added up */
    int few;
} NAME(source);

/* What LANES pixels from element q of a phase on receive through each step-th of some taps. */
typedef V (*NAME(receive))(const NAME(source) *from, ptrdiff_t q, const xent_tap *tap, ptrdiff_t taps, ptrdiff_t step);

ALWAYS_INLINE NAME(giver) NAME(giver_at)(const NAME(pool) *p, ptrdiff_t k)
{
    const T *grad = p->ring + p->pairs[k].at;
    return (NAME(giver)){.grad = grad, .places = (const I *)(grad + p->places_at), .start = (I)p->pairs[k].start};
}

/* Gradients whose maximum is where a tap leads to, 0 of others. */
ALWAYS_INLINE V NAME(through)(const NAME(giver) *row, ptrdiff_t q, const xent_tap *tap)
{
    const VI place = NAME(iset)(row->start + (I)tap->number);
    const VI g = (VI)v_load(row->grad + q - tap->shift);
    return (V)(g & (NAME(load_index)(row->places + q - tap->shift) == place));
}

ALWAYS_INLINE V NAME(receive_max)(const NAME(source) *from, ptrdiff_t q, const xent_tap *tap, ptrdiff_t taps,
                                  ptrdiff_t step)
{
    V sum = {0};
    NAME(sum) total = {{0}, {0}};
    for (ptrdiff_t k = 0; k < from->n; k++) {
        const NAME(giver) row = NAME(giver_at)(from->p, k);
        V part = {0};
        for (ptrdiff_t j = 0; j < taps; j += step) {
            const V term = NAME(through)(&row, q, tap + j);
            if (from->few)
                part = part + term;
            else
                NAME(sum_add)(&total, term);
        }
        sum = k ? part + sum : part;
    }
    return from->few ? sum : NAME(round_sum)(&total);
}

ALWAYS_INLINE V NAME(receive_mean)(const NAME(source) *from, ptrdiff_t q, const xent_tap *tap, ptrdiff_t taps,
                                   ptrdiff_t step)
{
    if (from->few) return NAME(add_taps)(from->sum + q, tap, taps, step, 1);
    const NAME(sum) acc = NAME(add_many_taps)(from->sum + q, NULL, tap, taps, step, 1);
    return NAME(round_sum)(&acc);
}

/* Places of n outputs, from number `at` on, by whole vectors: those that follow may come with them. */
#define WIDEN_PLACES(type)                                                                                             \
    for (ptrdiff_t k = 0; k < n; k += LANES) {                                                                         \
        const type *from = (const type *)a->places + at + k;                                                           \
        I *restrict to = places + k;                                                                                   \
        if (all - k >= LANES)                                                                                          \
            for (ptrdiff_t lane = 0; lane < LANES; lane++) to[lane] = (I)from[lane];                                   \
        else                                                                                                           \
            for (ptrdiff_t lane = 0; lane < all - k; lane++) to[lane] = (I)from[lane];                                 \
    }
static void NAME(load_places)(const xent_pool_args *a, ptrdiff_t at, ptrdiff_t n, I *restrict places)
{
    const ptrdiff_t all = a->planes * a->window.out_h * a->window.out_w - at;
    switch (a->place_size) {
    case 1: WIDEN_PLACES(uint8_t) break;
    case 2: WIDEN_PLACES(uint16_t) break;
    default: WIDEN_PLACES(int32_t)
    }
}
#undef WIDEN_PLACES
#endif

/* Write a row from phases of strides 1 and 2; the `even` taps of the first phase come first. `taps` and `even` are
 * constants at most calls. */
ALWAYS_INLINE void KERNEL(fill_phases)(const NAME(source) *from, NAME(receive) receive, const xent_tap *tap, S *row,
                                       ptrdiff_t stride, ptrdiff_t taps, ptrdiff_t even)
{
    for (ptrdiff_t q = 0, left = from->p->width; left > 0; q += LANES) {
        const V evens = receive(from, q, tap, even, 1);
        if (stride == 1) {
            KERNEL(store_row)(from->p, row, evens);
        } else {
            const V odds = receive(from, q, tap + even, taps - even, 1);
            KERNEL(store_row)(from->p, row, v_zip_lo(evens, odds));
            if (left > LANES) KERNEL(store_row)(from->p, row + LANES, v_zip_hi(evens, odds));
        }
        row += stride * LANES, left -= stride * LANES;
    }
}

/* The same for longer strides. */
ALWAYS_INLINE void KERNEL(fill_apart)(const NAME(source) *from, NAME(receive) receive, S *row)
{
    const xent_pool_args *a = from->p->a;
    const ptrdiff_t stride = a->window.stride_w;
    S some[LANES];
    if (xent_min(a->taps, a->period) < stride) memset(row, 0, (size_t)from->p->width * sizeof(S));
    for (ptrdiff_t k = 0; k < xent_min(a->period, a->taps); k++) {
        const xent_tap *tap = from->p->taps + k;
        const ptrdiff_t pixels = a->abreast == 1 ? tap->pixels : xent_count_below(tap->residue, stride, from->p->width);
        for (ptrdiff_t q = 0; q < pixels; q += LANES) {
            const ptrdiff_t n = xent_min(LANES, pixels - q);
            S *to = row + q * stride + tap->residue;
            KERNEL(store)(some, receive(from, q, tap, a->taps - k, a->period), LANES);
            for (ptrdiff_t lane = 0; lane < n; lane++) to[lane * stride] = some[lane];
        }
    }
}

ALWAYS_INLINE void KERNEL(fill_row)(const NAME(source) *from, NAME(receive) receive, S *row)
{
    const xent_pool_args *a = from->p->a;
    const xent_tap *tap = from->p->by_residue;
    const ptrdiff_t stride = a->window.stride_w;
    if (stride > 2)
        KERNEL(fill_apart)(from, receive, row);
    else if (stride == 2)
        KERNEL(fill_phases)(from, receive, tap, row, 2, a->taps, from->p->even);
    else
        KERNEL(fill_phases)(from, receive, tap, row, 1, a->taps, a->taps);
}

/* ---- maxima ---- */

/* n output rows into the input row that they reach. */
static void KERNEL(merge_rows)(const NAME(pool) *p, ptrdiff_t n, S *row)
{
    const NAME(source) from = {.p = p, .n = n}, few = {.p = p, .n = n, .few = 1};
    if (p->a->few)
        KERNEL(fill_row)(&few, NAME(receive_max), row);
    else
        KERNEL(fill_row)(&from, NAME(receive_max), row);
}

/* Keep the gradients of output row oh, which are numbers `at` and on, and where its maxima are. */
static void KERNEL(keep_maxima)(NAME(pool) *p, const S *x, ptrdiff_t at, ptrdiff_t oh, T *kept)
{
    const xent_pool_args *a = p->a;
    const ptrdiff_t out_w = a->window.out_w;
    const S *grad = (const S *)a->grad + at;
    I *places = (I *)(kept + p->places_at);
    for (ptrdiff_t ow = 0; ow < out_w; ow += LANES)
        v_store(kept + ow, KERNEL(load_row)(grad + ow, out_w - ow, p->grad_end, (V){0}));
    if (a->places)
        NAME(load_places)(a, at, out_w, places);
    else
        KERNEL(find_places)(p, x, oh, places);
}

static void KERNEL(max_plane)(NAME(pool) *p, const S *x, ptrdiff_t first, S *row)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    xent_reach reach = xent_reach_above(w);
    ptrdiff_t next = 0; /* output row to keep: one that is not needed yet, whose stores are done when it is */
    for (ptrdiff_t y = 0; y < w->height; y++, row += w->width) {
        xent_reach_next(&reach, w);
        for (; next <= xent_min(reach.last + 1, w->out_h - 1); next++)
            KERNEL(keep_maxima)(p, x, first + next * w->out_w, next, p->ring + xent_kept_at(a, next));
        for (ptrdiff_t k = 0; k < reach.n; k++)
            p->pairs[k] = (xent_pair){.at = xent_kept_at(a, reach.oh + k * reach.step),
                                      .start = (reach.i - k * reach.fall) * a->pitch};
        if (reach.n)
            KERNEL(merge_rows)(p, reach.n, row);
        else
            memset(row, 0, (size_t)w->width * sizeof(S));
    }
}

/* ---- maxima of blocks of output rows ---- */

#ifndef STORED_AS_16
/* Where the windows of a block begin; without places to be told, in the first column that is seen. */
static void NAME(set_origin)(const xent_pool_args *a, xent_origin o)
{
    const xent_window *w = &a->window;
    const ptrdiff_t left = w->left - (a->places ? 0 : a->first_tap * w->dilation_w);
    for (ptrdiff_t line = 0, oh = 0, top = -w->top, k = 0; line < a->block; line++, oh++) {
        if (oh == w->out_h) oh = 0, top += w->height;
        for (ptrdiff_t ow = 0; ow < w->out_w; ow++, k++) {
            o.x[k] = (int32_t)(ow * w->stride_w - left);
            o.y[k] = (int32_t)(oh * w->stride_h - w->top);
            o.at[k] = (int32_t)((oh * w->stride_h + top) * w->width) + o.x[k];
        }
    }
}

/* Lay out what blocks need, behind all else. */
static void NAME(open_blocks)(NAME(pool) *p)
{
    const xent_pool_args *a = p->a;
    p->strip = (double *)(p->ring - a->after);
    p->terms = (T *)(p->strip + a->strip_room);
    p->place = (I *)(p->terms + a->block_room);
    T *kept = (T *)(p->place + a->block_room);
    if (a->way == XENT_BY_BANDS) {
        memset(kept, 0, (size_t)(2 * a->kept_room) * sizeof(T));
        p->ring = kept + a->lead, p->places_at = a->kept_room, p->lines = kept + 2 * a->kept_room;
        return;
    }
    int32_t *from = (int32_t *)kept;
    p->origin = (xent_origin){from, from + a->block_room, from + 2 * a->block_room};
    p->to = from + 3 * a->block_room;
    memset(p->strip, 0, (size_t)a->strip_room * sizeof(double));
    NAME(set_origin)(a, p->origin);
}
#endif

/* Gradients and places of n rows of outputs, from row oh of a plane on. */
static void KERNEL(take_rows)(NAME(pool) *p, ptrdiff_t plane, ptrdiff_t oh, ptrdiff_t n)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    const ptrdiff_t first = (plane * w->out_h + oh) * w->out_w, outputs = n * w->out_w;
    const S *grad = (const S *)a->grad + first, *x = (const S *)a->x + plane * w->height * w->width;
    for (ptrdiff_t k = 0; k < outputs && (a->way == XENT_BY_BANDS || a->strip); k += LANES)
        v_store(p->terms + k, KERNEL(load_row)(grad + k, outputs - k, p->grad_end, (V){0}));
    if (a->places && a->place_size == 1 && a->way == XENT_SCATTERED) return;
    if (a->places) {
        NAME(load_places)(a, first, outputs, p->place);
        return;
    }
    for (ptrdiff_t at = 0; at < outputs; at += w->out_w) {
        for (int k = 0; k < HELD && oh == 0; k++) p->held[k] = -1;
        KERNEL(find_places)(p, x, oh, p->place + at);
        if (++oh == w->out_h) oh = 0, x += w->height * w->width;
    }
}

/* ---- by bands ---- */

/* Loops over the taps and rows of the usual windows, which are no more: their sums would live on the stack. */
#ifdef __clang__
#define UNROLL_FEW _Pragma("clang loop unroll_count(4)")
#else
#define UNROLL_FEW _Pragma("GCC unroll 4")
#endif

/* Keep all output rows of planes side by side, of which the band consists: their short rows are read as one. Where planes
 * have one row, and no zeros between them, they are one row. */
static void KERNEL(keep_planes)(NAME(pool) *p, ptrdiff_t plane, ptrdiff_t planes)
{
    const xent_pool_args *a = p->a;
    const ptrdiff_t out_h = a->window.out_h, row = a->window.out_w * (ptrdiff_t)sizeof(T);
    const ptrdiff_t pitch = a->plane_pitch * (ptrdiff_t)sizeof(T), together = out_h == 1 && pitch == row ? planes : 1;
    const xent_steps from = {out_h * row, row}, to = {pitch, a->row_pitch * (ptrdiff_t)sizeof(T)};
    KERNEL(take_rows)(p, plane, 0, planes * out_h);
    xent_copy_rows(p->ring, to, p->terms, from, planes / together, out_h, together * row);
    xent_copy_rows(p->ring + p->places_at, to, p->place, from, planes / together, out_h, together * row);
}

/* Keep output rows of a band of a plane, and rows of zeros below the last. */
static void KERNEL(keep_band)(NAME(pool) *p, const xent_rows_band *band, ptrdiff_t plane)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    const S *x = (const S *)a->x + plane * w->height * w->width;
    T *kept = p->ring;
    for (int slot = 0; slot < HELD; slot++) p->held[slot] = -1;
    for (ptrdiff_t oh = band->first; oh < band->end; oh++, kept += a->row_pitch) {
        if (oh < w->out_h)
            KERNEL(keep_maxima)(p, x, (plane * w->out_h + oh) * w->out_w, oh, kept);
        else
            for (ptrdiff_t ow = 0; ow < w->out_w; ow += LANES) v_store(kept + ow, (V){0});
    }
}

#ifndef STORED_AS_16
/* What pixels receive of an output row through some taps of row `start` of its windows. */
ALWAYS_INLINE V NAME(receive_kept)(const V *grad, const VI *places, const xent_tap *tap, ptrdiff_t taps,
                                   ptrdiff_t start)
{
    V sum = {0};
    UNROLL_FEW
    for (ptrdiff_t j = 0; j < taps; j++) {
        const V term = (V)((VI)grad[j] & (places[j] == NAME(iset)((I)(start + tap[j].number))));
        sum = j ? sum + term : term;
    }
    return sum;
}
#endif

/* Pixels q and on of the phases of all rows of a band: output rows one after the other, each of which finishes
 * `stride_h` input rows, from `to` on and `pitch` apart. All that follows `width` are constants at most calls. */
ALWAYS_INLINE void KERNEL(merge_column)(const NAME(pool) *p, const xent_rows_band *band, ptrdiff_t q, S *to,
                                        ptrdiff_t pitch, ptrdiff_t width, ptrdiff_t stride, ptrdiff_t stride_h,
                                        ptrdiff_t rows, ptrdiff_t taps, ptrdiff_t even)
{
    /* Copies, which no store could change. */
    const ptrdiff_t row_pitch = p->a->row_pitch, numbers = p->a->pitch, low = band->low, high = band->high;
    const ptrdiff_t places_at = p->places_at, end = band->end;
    const S *out_end = p->out_end;
    const T *kept = p->ring + q;
    xent_tap tap[XENT_MOST_ROWS];
    V evens[XENT_MOST_ROWS] = {{0}}, odds[XENT_MOST_ROWS] = {{0}};
    UNROLL_FEW
    for (ptrdiff_t j = 0; j < taps; j++) tap[j] = p->by_residue[j];
    ptrdiff_t y = band->first * stride_h - p->a->window.top;
    for (ptrdiff_t oh = band->first; oh < end; oh++, kept += row_pitch) {
        V grad[XENT_MOST_ROWS];
        VI places[XENT_MOST_ROWS];
        UNROLL_FEW
        for (ptrdiff_t j = 0; j < taps; j++) {
            grad[j] = v_load(kept - tap[j].shift);
            places[j] = NAME(load_index)((const I *)(kept + places_at) - tap[j].shift);
        }
        UNROLL_FEW
        for (ptrdiff_t i = 0; i < rows; i++) {
            const ptrdiff_t start = i * numbers;
            evens[i] = NAME(receive_kept)(grad, places, tap, even, start) + evens[i];
            if (stride == 1) continue;
            odds[i] = NAME(receive_kept)(grad + even, places + even, tap + even, taps - even, start) + odds[i];
        }
        UNROLL_FEW
        for (ptrdiff_t k = 0; k < stride_h; k++, y++) {
            if (y < low || y >= high) continue;
            S *row = to + (y - low) * pitch;
            const V first = k < rows ? evens[k] : (V){0}, second = k < rows ? odds[k] : (V){0};
            KERNEL(store)(row, stride == 1 ? first : v_zip_lo(first, second), out_end - row);
            if (stride == 2 && width > LANES)
                KERNEL(store)(row + LANES, v_zip_hi(first, second), out_end - row - LANES);
        }
        UNROLL_FEW
        for (ptrdiff_t k = 0; k < rows; k++) {
            evens[k] = k + stride_h < rows ? evens[k + stride_h] : (V){0};
            odds[k] = k + stride_h < rows ? odds[k + stride_h] : (V){0};
        }
    }
}

/* A band of `width` pixels. The last vectors of its rows come first, as they may reach into the row below. */
ALWAYS_INLINE void KERNEL(merge_columns)(const NAME(pool) *p, const xent_rows_band *band, S *to, ptrdiff_t pitch,
                                         ptrdiff_t width, ptrdiff_t stride, ptrdiff_t stride_h, ptrdiff_t rows,
                                         ptrdiff_t taps, ptrdiff_t even)
{
    for (ptrdiff_t q = xent_ceil_div(width, stride * LANES) * LANES - LANES; q >= 0; q -= LANES) {
        S *at = to + q * stride;
        const ptrdiff_t left = width - q * stride;
        KERNEL(merge_column)(p, band, q, at, pitch, left, stride, stride_h, rows, taps, even);
    }
}

typedef void (*KERNEL(merge))(const NAME(pool) *p, const xent_rows_band *band, S *to, ptrdiff_t pitch, ptrdiff_t width);

/* The usual windows, of as many rows as taps: each on its own, so that sums stay in registers. No others come here
 * (xent_plan_pool). */
#define USUAL_WINDOWS(DO) DO(1, 2, 2) DO(1, 3, 3) DO(2, 2, 1) DO(2, 3, 1) DO(2, 3, 2) DO(2, 4, 2)
#define MERGE(stride, taps, even)                                                                                      \
    static void KERNEL(merge_##stride##_##taps##_##even)(const NAME(pool) *p, const xent_rows_band *band, S *to,       \
                                                         ptrdiff_t pitch, ptrdiff_t width)                             \
    {                                                                                                                  \
        KERNEL(merge_columns)(p, band, to, pitch, width, stride, stride, taps, taps, even);                            \
    }
USUAL_WINDOWS(MERGE)
#undef MERGE

static KERNEL(merge) KERNEL(merge_of)(const NAME(pool) *p)
{
    const xent_window *w = &p->a->window;
    const ptrdiff_t columns = p->a->taps;
#define CHOOSE(stride, taps, even_taps)                                                                                \
    if (w->stride_w == stride && columns == taps && p->even == even_taps)                                              \
        return KERNEL(merge_##stride##_##taps##_##even_taps);
    USUAL_WINDOWS(CHOOSE)
#undef CHOOSE
    __builtin_unreachable();
}

/* A band of some planes, whose pixels are written from `out` on. */
static void KERNEL(merge_band)(const NAME(pool) *p, KERNEL(merge) merge, const xent_rows_band *band, ptrdiff_t planes,
                               S *out)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    const ptrdiff_t row = w->width * (ptrdiff_t)sizeof(S), step = w->stride_w * a->plane_pitch;
    NAME(pool) lines = *p;
    if (band->low >= band->high) return;
    out += band->low * w->width;
    if (a->abreast == 1) {
        merge(p, band, out, w->width, w->width);
        return;
    }
    lines.out_end = (S *)p->lines + (band->high - band->low) * a->line_pitch;
    merge(&lines, band, (S *)p->lines, a->line_pitch, planes * step);
    const xent_steps from = {step * (ptrdiff_t)sizeof(S), a->line_pitch * (ptrdiff_t)sizeof(S)},
                     to = {w->height * row, row};
    xent_copy_rows(out, to, p->lines, from, planes, band->high - band->low, row);
}

static void KERNEL(max_by_bands)(NAME(pool) *p, ptrdiff_t begin, ptrdiff_t end)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    const ptrdiff_t again = xent_ceil_div(w->kernel_h, w->stride_h) - 1; /* rows that two bands keep */
    const KERNEL(merge) merge = KERNEL(merge_of)(p);
    for (ptrdiff_t plane = begin, n; plane < end; plane += n) {
        n = xent_min(a->abreast, end - plane);
        S *out = (S *)a->out + plane * w->height * w->width;
        for (ptrdiff_t first = 0, high = 0; high < w->height; first += a->band) {
            const ptrdiff_t last = first + a->band;
            const xent_rows_band band = {.first = xent_max(0, first - again),
                                         .end = last,
                                         .low = high,
                                         .high = xent_max(0, xent_min(w->height, last * w->stride_h - w->top))};
            if (a->abreast > 1)
                KERNEL(keep_planes)(p, plane, n);
            else
                KERNEL(keep_band)(p, &band, plane);
            KERNEL(merge_band)(p, merge, &band, n, out);
            high = band.high;
        }
    }
}

/* ---- scattered ---- */

#ifndef STORED_AS_16
/* Where the gradients of n outputs go, which begin `down` rows below the block's origin: pixels from its first plane
 * on, or -1 if a place is no pixel of its window. Returns whether there is such a one. The row of a cell is found by a
 * product, whose rounding is nothing to the half that keeps it away from the next integer: in floats, as the numbers of
 * cells of two bytes are below 2^16. Whether `wide` numbers need doubles, and whether windows are `dilated`, are
 * constants. */
ALWAYS_INLINE int NAME(find_some_pixels)(const NAME(pool) *p, ptrdiff_t n, int32_t down, int wide, int dilated)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    const int32_t pitch = (int32_t)a->pitch, height = (int32_t)w->height, width = (int32_t)w->width;
    const int32_t step_h = dilated ? (int32_t)w->dilation_h : 1, step_w = dilated ? (int32_t)w->dilation_w : 1;
    const int32_t last = (int32_t)(w->kernel_h * a->pitch) - 1;
    const int32_t *restrict x0 = p->origin.x, *restrict y0 = p->origin.y, *restrict at = p->origin.at;
    const I *restrict place = p->place;
    int32_t *restrict to = p->to, strays = 0;
    const double rows = 1 / (double)pitch;
    for (ptrdiff_t k = 0; k < n; k++) {
        const int32_t number = (int32_t)place[k];
        const int32_t i =
            wide ? (int32_t)(((double)number + 0.5) * rows) : (int32_t)(((float)number + 0.5f) * (float)rows);
        const int32_t below = i * step_h, aside = (number - i * pitch) * step_w;
        const int32_t y = y0[k] + down + below, x = x0[k] + aside;
        /* Below 0 if one is: without a branch. */
        const int32_t beyond = number | (last - number) | y | (height - 1 - y) | x | (width - 1 - x);
        to[k] = (at[k] + (down + below) * width + aside) | beyond >> 31;
        strays |= beyond;
    }
    return strays < 0;
}

/* The same of n places that are bytes, LANES_OF_BYTES at a time. The row of a cell is found by a product that is exact:
 * numbers and widths of windows are no larger than 256. Whether windows are `inside` of the image is a constant. */
enum { NAME(LANES_OF_BYTES) = 8 };
typedef int32_t NAME(numbers) __attribute__((vector_size(32)));
static void NAME(widen_bytes)(const uint8_t *restrict place, ptrdiff_t n, int32_t *restrict to)
{
    for (ptrdiff_t k = 0; k < n; k++) to[k] = place[k];
}
ALWAYS_INLINE int NAME(find_from_bytes)(const NAME(pool) *p, const uint8_t *place, ptrdiff_t n, int32_t down,
                                        int inside)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    const int32_t pitch = (int32_t)a->pitch, height = (int32_t)w->height, width = (int32_t)w->width;
    const int32_t step_h = (int32_t)w->dilation_h, step_w = (int32_t)w->dilation_w, row = 65536 / pitch + 1;
    const int32_t last = (int32_t)(w->kernel_h * a->pitch) - 1, fall = step_h * width - pitch * step_w;
    const int32_t *x0 = p->origin.x, *y0 = p->origin.y, *at = p->origin.at;
    int32_t *to = p->to;
    const ptrdiff_t whole = n / NAME(LANES_OF_BYTES) *NAME(LANES_OF_BYTES);
    NAME(numbers) strays = {0};
    NAME(widen_bytes)(place, n, to);
    for (ptrdiff_t k = 0; k < n; k += NAME(LANES_OF_BYTES)) {
        NAME(numbers) number, pixel, y, x;
        memcpy(&number, to + k, sizeof number), memcpy(&pixel, at + k, sizeof pixel);
        const NAME(numbers) i = number * row >> 16;
        const NAME(numbers) aside = number * step_w;
        NAME(numbers) beyond = last - number;
        pixel += aside + (i * fall + down * width);
        if (!inside) {
            memcpy(&y, y0 + k, sizeof y), memcpy(&x, x0 + k, sizeof x);
            y += i * step_h + down;
            x += aside - i * (pitch * step_w);
            beyond |= y | (height - 1 - y) | x | (width - 1 - x);
        }
        pixel |= beyond >> 31;
        memcpy(to + k, &pixel, sizeof pixel);
        if (k < whole) strays |= beyond;
    }
    int32_t all = 0;
    for (int lane = 0; lane < NAME(LANES_OF_BYTES); lane++) all |= strays[lane];
    for (ptrdiff_t k = whole; k < n; k++) all |= to[k];
    return all < 0;
}

/* The same from p->place, or from number `at` of places that are told by bytes. */
static int NAME(find_pixels)(const NAME(pool) *p, ptrdiff_t at, ptrdiff_t n, int32_t down)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    const uint8_t *bytes = (const uint8_t *)a->places;
    if (bytes && a->place_size == 1)
        return a->inside ? NAME(find_from_bytes)(p, bytes + at, n, down, 1)
                         : NAME(find_from_bytes)(p, bytes + at, n, down, 0);
    if (w->dilation_h > 1 || w->dilation_w > 1) return NAME(find_some_pixels)(p, n, down, 1, 1);
    if (w->kernel_h * a->pitch > 1 << 16) return NAME(find_some_pixels)(p, n, down, 1, 0);
    return NAME(find_some_pixels)(p, n, down, 0, 0);
}

/* Add one gradient to a sum of doubles, as NAME(receive_max) does. Doubles are followed, half the room away, by what
 * rounding left. */
ALWAYS_INLINE void NAME(add_wide)(const NAME(pool) *p, double *sum, T term)
{
#if XENT_REAL == 32
    (void)p;
    *sum += (double)term;
#else
    two_sum_add(sum, sum + p->a->strip_room / 2, term);
#endif
}

/* The sums of LANES pixels of the strip. */
ALWAYS_INLINE V NAME(received)(const NAME(pool) *p, ptrdiff_t k)
{
    if (p->a->sums == XENT_IN_NUMBERS) return v_load((const T *)p->strip + k);
    const double *sums = p->strip + k;
    const NAME(sum) sum = {v_load(sums), v_load(sums + BY_TYPE(LANES / 2, p->a->strip_room / 2))};
    return NAME(round_sum)(&sum);
}

/* The first n sums of the strip are done, those of whole vectors cleared; the others move up. */
static void NAME(move_strip)(const NAME(pool) *p, ptrdiff_t n)
{
    const int numbers = p->a->sums == XENT_IN_NUMBERS;
    const ptrdiff_t left = p->a->strip - n, parts = numbers ? 1 : BY_TYPE(1, 2),
                    clear = xent_max(left, n / LANES * LANES);
    const ptrdiff_t size = (ptrdiff_t)(numbers ? sizeof(T) : sizeof(double));
    for (ptrdiff_t part = 0; part < parts; part++) {
        char *sums = (char *)(p->strip + part * (p->a->strip_room / 2));
        memmove(sums, sums + n * size, (size_t)(left * size));
        memset(sums + clear * size, 0, (size_t)((p->a->strip - clear) * size));
    }
}

ALWAYS_INLINE void NAME(clear_sums)(const NAME(pool) *p, ptrdiff_t k)
{
    if (p->a->sums == XENT_IN_NUMBERS) {
        v_store((T *)p->strip + k, (V){0});
        return;
    }
    double *sums = p->strip + k;
    v_store(sums, (vf64){0});
    v_store(sums + BY_TYPE(LANES / 2, p->a->strip_room / 2), (vf64){0});
}
#endif

/* The next n pixels of the chunk, from `out` on, have all that they receive. */
static void KERNEL(finish_pixels)(const NAME(pool) *p, S *out, ptrdiff_t n)
{
    const ptrdiff_t here = xent_min(n, p->a->strip);
    for (ptrdiff_t k = 0; k < here; k += LANES) {
        KERNEL(store_row)(p, out + k, NAME(received)(p, k));
        if (k + LANES <= here) NAME(clear_sums)(p, k);
    }
    memset(out + here, 0, (size_t)(n - here) * sizeof(S));
    NAME(move_strip)(p, here);
}

/* Clear the chunk as far as `end`. Not by memset(), which may leave out the nearest cache, where pixels are wanted
 * next. */
static void KERNEL(clear_until)(NAME(pool) *p, const S *end)
{
    S *at = p->cleared;
    if (at >= end) return;
    memset(at, 0, (size_t)(end - at) * sizeof(S));
    p->cleared = (S *)end;
}

/* Give a gradient to its pixel, which is number `at` of `sums`: how is a constant. */
enum { KERNEL(PUT), KERNEL(ADD), KERNEL(ADD_NUMBER), KERNEL(ADD_WIDE) };
ALWAYS_INLINE void KERNEL(give_one)(const NAME(pool) *p, void *sums, int32_t at, const S *grad, const T *term, int how)
{
    if (how == KERNEL(PUT))
#ifdef STORED_AS_16
        ((S *)sums)[at] = *grad;
#else
        ((S *)sums)[at] = *grad + 0; /* as where terms are added up, none is -0 */
#endif
    else if (how == KERNEL(ADD))
        ((T *)sums)[at] += *(const T *)grad;
    else if (how == KERNEL(ADD_NUMBER))
        ((T *)sums)[at] += *term;
    else
        NAME(add_wide)(p, (double *)sums + at, *term);
}

/* n gradients, to p->to. Pixels are read in pairs: five accesses to memory for one gradient are what takes time. */
ALWAYS_INLINE void KERNEL(give_all)(const NAME(pool) *p, void *sums, const S *grad, ptrdiff_t n, int strays, int how)
{
    const int32_t *to = p->to;
    const T *term = p->terms;
    ptrdiff_t k = 0;
    for (; k + 4 <= n && !strays; k += 4) {
        const xent_two a = xent_two_of(to + k), b = xent_two_of(to + k + 2);
        KERNEL(give_one)(p, sums, a.first, grad + k, term + k, how);
        KERNEL(give_one)(p, sums, a.second, grad + k + 1, term + k + 1, how);
        KERNEL(give_one)(p, sums, b.first, grad + k + 2, term + k + 2, how);
        KERNEL(give_one)(p, sums, b.second, grad + k + 3, term + k + 3, how);
    }
    for (; k < n; k++)
        if (to[k] >= 0) KERNEL(give_one)(p, sums, to[k], grad + k, term + k, how);
}

/* n gradients of a block, of which the first pixel is `image`, and number `base` of the strip. */
static void KERNEL(give_block)(const NAME(pool) *p, S *image, ptrdiff_t base, const S *grad, ptrdiff_t n, int strays)
{
    const xent_pool_args *a = p->a;
    if (a->alone)
        KERNEL(give_all)(p, image, grad, n, strays, KERNEL(PUT));
    else if (a->sums == XENT_IN_IMAGE)
        KERNEL(give_all)(p, image, grad, n, strays, KERNEL(ADD));
    else if (a->sums == XENT_IN_NUMBERS)
        KERNEL(give_all)(p, (T *)p->strip + base, grad, n, strays, KERNEL(ADD_NUMBER));
    else
        KERNEL(give_all)(p, p->strip + base, grad, n, strays, KERNEL(ADD_WIDE));
}

static void KERNEL(max_scattered)(NAME(pool) *p, ptrdiff_t begin, ptrdiff_t end)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    const ptrdiff_t size = w->height * w->width, lines = (end - begin) * w->out_h, planes = a->block / w->out_h;
    const S *grad = (const S *)a->grad + begin * w->out_h * w->out_w;
    S *out = (S *)a->out + begin * size;
    ptrdiff_t done = 0; /* pixels of the chunk */
    p->cleared = out;
    for (ptrdiff_t line = 0, n; line < lines; line += n) {
        const ptrdiff_t plane = line / w->out_h, oh = line % w->out_h, top = oh * w->stride_h - w->top;
        n = xent_min(a->block, planes ? lines - line : w->out_h - oh);
        const ptrdiff_t bottom = top + (n - 1) * w->stride_h + (w->kernel_h - 1) * w->dilation_h + 1;
        const ptrdiff_t first = plane * size, above = first + xent_min(w->height, xent_max(0, top)) * w->width;
        const ptrdiff_t seen = xent_min(w->height, xent_max(0, bottom)) * w->width;
        const ptrdiff_t below = first + (planes ? n / w->out_h * size : seen);
        KERNEL(take_rows)(p, begin + plane, oh, n);
        const ptrdiff_t at = line * w->out_w, number = begin * w->out_h * w->out_w + at;
        const int strays = NAME(find_pixels)(p, number, n * w->out_w, (int32_t)(oh * w->stride_h));
        if (!a->strip)
            KERNEL(clear_until)(p, out + below);
        else if (below > done + a->strip)
            KERNEL(finish_pixels)(p, out + done, above - done), done = above;
        KERNEL(give_block)(p, out + first, first - done, grad + at, n * w->out_w, strays);
    }
    if (!a->strip)
        KERNEL(clear_until)(p, p->out_end);
    else
        KERNEL(finish_pixels)(p, out + done, (end - begin) * size - done);
}

/* ---- direct ---- */

#ifndef STORED_AS_16
/* Places of a vector of outputs, of which n are left in memory. */
ALWAYS_INLINE VI NAME(load_bytes)(const uint8_t *place, ptrdiff_t n)
{
    I some[LANES] = {0};
    if (n >= LANES)
        for (int lane = 0; lane < LANES; lane++) some[lane] = place[lane];
    else
        for (ptrdiff_t lane = 0; lane < n; lane++) some[lane] = place[lane];
    return NAME(load_index)(some);
}
#endif

/* Windows of 2 x 2: the pixels that a vector of outputs sees, in two rows. As where terms are added up, none is -0. */
ALWAYS_INLINE void KERNEL(spread_pairs)(V g, VI cells, V pixels[2][2])
{
    g = g + (V){0};
    UNROLL_FEW
    for (int i = 0; i < 2; i++) {
        const V even = (V)((VI)g & (cells == NAME(iset)(2 * i))), odd = (V)((VI)g & (cells == NAME(iset)(2 * i + 1)));
        pixels[i][0] = v_zip_lo(even, odd), pixels[i][1] = v_zip_hi(even, odd);
    }
}

/* A row of outputs, the last vector first, as it may reach into the row below. Pixels beyond all windows get 0. `left`
 * places are in memory. */
ALWAYS_INLINE void KERNEL(put_pairs)(const NAME(pool) *p, const S *grad, const uint8_t *place, ptrdiff_t left, S *row)
{
    const ptrdiff_t out_w = p->a->window.out_w, width = p->a->window.width;
    const S *grad_end = p->grad_end, *out_end = p->out_end;
    V pixels[2][2];
    for (ptrdiff_t q = xent_ceil_div(width, 2 * LANES) * LANES - LANES; q >= 0; q -= LANES) {
        const V g = q < out_w ? KERNEL(load_row)(grad + q, out_w - q, grad_end, (V){0}) : (V){0};
        KERNEL(spread_pairs)(g, NAME(load_bytes)(place + q, xent_min(left - q, q < out_w ? LANES : 0)), pixels);
        for (int i = 0; i < 2; i++) {
            S *to = row + i * width + 2 * q;
            KERNEL(store)(to, pixels[i][0], out_end - to);
            if (width > 2 * q + LANES) KERNEL(store)(to + LANES, pixels[i][1], out_end - to - LANES);
        }
    }
}

/* Short rows of outputs that see all pixels: vectors go through all of them, and lines of pixels are cut into rows. */
static void KERNEL(put_short_pairs)(const NAME(pool) *p, const S *grad, const uint8_t *place, ptrdiff_t left,
                                    ptrdiff_t lines, S *image)
{
    const ptrdiff_t out_w = p->a->window.out_w, row = 2 * out_w * (ptrdiff_t)sizeof(S);
    S *const pixels = (S *)(p->ring - p->a->after);
    const xent_steps to = {row, 2 * row}, from = {p->a->line_pitch * (ptrdiff_t)sizeof(S), row};
    V some[2][2];
    for (ptrdiff_t n, outputs; lines > 0; lines -= n, image += 4 * outputs) {
        n = xent_min(lines, XENT_FLAT / out_w), outputs = n * out_w;
        for (ptrdiff_t k = 0; k < outputs; k += LANES) {
            KERNEL(spread_pairs)
            (KERNEL(load_row)(grad + k, left - k, p->grad_end, (V){0}), NAME(load_bytes)(place + k, left - k), some);
            UNROLL_FEW
            for (int i = 0; i < 2; i++) {
                KERNEL(store)(pixels + i * p->a->line_pitch + 2 * k, some[i][0], LANES);
                KERNEL(store)(pixels + i * p->a->line_pitch + 2 * k + LANES, some[i][1], LANES);
            }
        }
        xent_copy_rows(image, to, pixels, from, 2, n, row);
        grad += outputs, place += outputs, left -= outputs;
    }
}

static void KERNEL(max_direct)(NAME(pool) *p, ptrdiff_t begin, ptrdiff_t end)
{
    const xent_window *w = &p->a->window;
    const ptrdiff_t size = w->height * w->width, out_w = w->out_w, first = begin * w->out_h * out_w;
    const ptrdiff_t all = p->a->planes * w->out_h * out_w;
    const S *grad = (const S *)p->a->grad + first;
    const uint8_t *places = (const uint8_t *)p->a->places, *place = places + first;
    S *image = (S *)p->a->out + begin * size;
    p->cleared = image;
    if (out_w <= 2 * LANES && 2 * out_w == w->width && 2 * w->out_h == w->height) {
        KERNEL(put_short_pairs)(p, grad, place, places + all - place, (end - begin) * w->out_h, image);
        return;
    }
    for (ptrdiff_t plane = begin; plane < end; plane++, image += size) {
        for (ptrdiff_t oh = 0; oh < w->out_h; oh++, grad += out_w, place += out_w) {
            S *row = image + oh * w->stride_h * w->width;
            KERNEL(clear_until)(p, row);
            KERNEL(put_pairs)(p, grad, place, places + all - place, row);
            p->cleared = row + 2 * w->width;
        }
    }
    KERNEL(clear_until)(p, p->out_end);
}

static void KERNEL(max_by_rows)(NAME(pool) *p, ptrdiff_t begin, ptrdiff_t end)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    const ptrdiff_t size = w->height * w->width, pixels = w->out_h * w->out_w;
    for (ptrdiff_t plane = begin; plane < end; plane++) {
        const S *x = (const S *)a->x + plane * size;
        S *out = (S *)a->out + plane * size;
        for (int k = 0; k < HELD; k++) p->held[k] = -1;
        KERNEL(max_plane)(p, x, plane * pixels, out);
    }
}

static void KERNEL(max_pool2d_backward)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_pool_args *a = args;
    const ptrdiff_t begin = chunk * a->chunk, end = xent_min(begin + a->chunk, a->planes);
    NAME(pool) p = NAME(pool_open)(a, scratch);
    KERNEL(set_ends)(&p, end);
    if (!a->places) NAME(set_first)(&p);
    if (a->way == XENT_BY_ROWS) {
        KERNEL(max_by_rows)(&p, begin, end);
        return;
    }
    if (a->way == XENT_DIRECT) {
        KERNEL(max_direct)(&p, begin, end);
        return;
    }
    NAME(open_blocks)(&p);
    if (a->way == XENT_BY_BANDS)
        KERNEL(max_by_bands)(&p, begin, end);
    else
        KERNEL(max_scattered)(&p, begin, end);
}

/* ---- averages ---- */

/* Keep gradient / count of an output row. */
static void KERNEL(keep_shares)(const NAME(pool) *p, const S *grad, ptrdiff_t oh, T *kept)
{
    const xent_pool_args *a = p->a;
    const ptrdiff_t out_w = a->window.out_w;
    const V count = NAME(set)((T)NAME(count_rows)(a, oh));
    for (ptrdiff_t ow = 0; ow < out_w; ow += LANES) {
        const V g = KERNEL(load_row)(grad + oh * out_w + ow, out_w - ow, p->grad_end, (V){0});
        v_store(kept + ow, g / (count * v_load(p->counts + ow)));
    }
}

#ifndef STORED_AS_16
/* The sum of n rows of shares of `outputs`, at most 4, in two additions each: p->sum, or the row that is alone. */
static const T *NAME(add_kept)(const NAME(pool) *p, ptrdiff_t outputs, ptrdiff_t oh, ptrdiff_t n)
{
    const T *kept[4];
    for (int k = 0; k < 4; k++) kept[k] = p->ring + xent_kept_at(p->a, oh + (k < n ? k : 0));
    if (n == 1) return kept[0];
    for (ptrdiff_t ow = 0; ow < outputs; ow += LANES) {
        V v = v_load(kept[0] + ow) + v_load(kept[1] + ow);
        if (n == 3) v = v + v_load(kept[2] + ow);
        if (n == 4) v = v + (v_load(kept[2] + ow) + v_load(kept[3] + ow));
        v_store(p->sum + ow, v);
    }
    return p->sum;
}

ALWAYS_INLINE void NAME(sum_add_share)(NAME(sum) *acc, V grad, ptrdiff_t count)
{
#if XENT_REAL == 32
    const vf64 share = set_f64(1 / (double)count);
    acc->a += v_widen_lo(grad) * share;
    acc->b += v_widen_hi(grad) * share;
#else
    NAME(sum_add)(acc, grad / set_f64((double)count));
#endif
}
#endif

/* The sum of any number of rows of shares: p->sum. The rows of most are divided by the same number. */
static void KERNEL(add_shares)(const NAME(pool) *p, const S *grad, ptrdiff_t first, ptrdiff_t n)
{
    const xent_pool_args *a = p->a;
    const ptrdiff_t out_w = a->window.out_w, count = NAME(count_rows)(a, first);
    const int same = a->divisor || xent_min(count, NAME(count_rows)(a, first + n - 1)) == a->window.kernel_h;
    for (ptrdiff_t ow = 0; ow < out_w; ow += LANES) {
        const S *in = grad + first * out_w + ow;
        NAME(sum) acc = {{0}, {0}};
        if (same) acc = KERNEL(add_all)(in, out_w, n, out_w - ow, p->grad_end, SHARES_FIRST);
        for (ptrdiff_t k = 0; k < n && !same; k++)
            NAME(sum_add_share)(&acc, KERNEL(load)(in + k * out_w, out_w - ow, (V){0}), NAME(count_rows)(a, first + k));
        v_store(p->sum + ow, NAME(divide_sum)(&acc, same ? (double)count : 1, p->wide_counts + ow));
    }
}

/* The usual windows: the taps of a row, and those of the first phase. */
#define USUAL_WINDOW(step, columns, even_columns)                                                                      \
    if (a->window.stride_w == step && a->taps == columns && p->even == even_columns) {                                 \
        const xent_tap few[] = {p->by_residue[0], p->by_residue[1], p->by_residue[columns - 1]};                       \
        KERNEL(fill_phases)(&from, NAME(receive_mean), few, row, step, columns, even_columns);                         \
        return;                                                                                                        \
    }

/* Spread what the windows of a row have to give over the columns. */
static void KERNEL(spread_few)(const NAME(pool) *p, const T *sum, S *row)
{
    const xent_pool_args *a = p->a;
    const NAME(source) from = {.p = p, .sum = sum, .few = 1};
    USUAL_WINDOW(2, 2, 1)
    USUAL_WINDOW(2, 3, 1)
    USUAL_WINDOW(2, 3, 2)
    USUAL_WINDOW(1, 3, 3)
    KERNEL(fill_row)(&from, NAME(receive_mean), row);
}
static void KERNEL(spread_many)(const NAME(pool) *p, S *row)
{
    const NAME(source) from = {.p = p, .sum = p->sum};
    KERNEL(fill_row)(&from, NAME(receive_mean), row);
}

/* The gradient of the mean of a whole plane. */
static void KERNEL(spread_over_plane)(const NAME(pool) *p, const S *grad, S *out)
{
    const xent_pool_args *a = p->a;
    if (a->few)
        KERNEL(keep_shares)(p, grad, 0, p->ring);
    else
        KERNEL(add_shares)(p, grad, 0, 1);
    const V share = NAME(set)(a->few ? p->ring[0] : p->sum[0]);
    for (ptrdiff_t k = 0; k < a->window.height * a->window.width; k += LANES) KERNEL(store_row)(p, out + k, share);
}

/* The next input row of planes side by side, of windows that are not those of the row before: `next` is the first output
 * row that is not kept yet. */
ALWAYS_INLINE void KERNEL(spread_row)(const NAME(pool) *p, const S *grad, ptrdiff_t planes, const xent_reach *reach,
                                      ptrdiff_t *next, S *row)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    const ptrdiff_t outputs = a->abreast == 1 ? w->out_w : planes * a->plane_pitch;
    if (reach->n == 0) {
        memset(row, 0, (size_t)p->width * sizeof(S));
    } else if (a->few) {
        for (; *next <= reach->last; ++*next) {
            const S *from = grad;
            T *kept = p->ring + xent_kept_at(a, *next), *end = kept + planes * a->plane_pitch;
            for (; kept < end; kept += a->plane_pitch, from += w->out_h * w->out_w)
                KERNEL(keep_shares)(p, from, *next, kept);
        }
        KERNEL(spread_few)(p, NAME(add_kept)(p, outputs, reach->oh, reach->n), row);
    } else {
        KERNEL(add_shares)(p, grad, reach->oh, reach->n);
        KERNEL(spread_many)(p, row);
    }
}

/* All pixels of planes side by side. More than one have a line to be collected from. */
static void KERNEL(spread_planes)(const NAME(pool) *p, xent_reach reach, const S *grad, S *out, ptrdiff_t planes)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    const ptrdiff_t bytes = w->width * (ptrdiff_t)sizeof(S), step = w->stride_w * a->plane_pitch;
    const xent_steps from = {step * (ptrdiff_t)sizeof(S), 0}, to = {w->height * bytes, 0};
    NAME(pool) line = *p;
    if (a->abreast > 1) line.width = planes * step, line.out_end = (S *)p->line + a->line;
    ptrdiff_t next = 0;
    for (ptrdiff_t y = 0; y < w->height; y++, out += w->width) {
        const ptrdiff_t n = reach.n, oh = reach.oh;
        xent_reach_next(&reach, w);
        const int same = reach.n == n && reach.oh == oh;
        if (!same) KERNEL(spread_row)(&line, grad, planes, &reach, &next, a->abreast > 1 ? (S *)p->line : out);
        if (a->abreast > 1)
            xent_copy_rows(out, to, p->line, from, planes, 1, bytes);
        else if (same)
            memcpy(out, out - w->width, (size_t)bytes);
    }
}

static void KERNEL(avg_pool2d_backward)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_pool_args *a = args;
    const xent_window *w = &a->window;
    const ptrdiff_t begin = chunk * a->chunk, end = xent_min(begin + a->chunk, a->planes);
    const xent_reach above = xent_reach_above(w);
    NAME(pool) p = NAME(pool_open)(a, scratch);
    NAME(set_counts)(&p);
    KERNEL(set_ends)(&p, end);
    for (ptrdiff_t plane = begin, n; plane < end; plane += n) {
        const S *grad = (const S *)a->grad + plane * w->out_h * w->out_w;
        S *out = (S *)a->out + plane * w->height * w->width;
        n = xent_min(a->abreast, end - plane);
        if (a->whole)
            KERNEL(spread_over_plane)(&p, grad, out);
        else
            KERNEL(spread_planes)(&p, above, grad, out, n);
    }
}

#undef USUAL_WINDOW
#undef USUAL_WINDOWS
#undef UNROLL_FEW
#undef COPY_PLACES

#endif
