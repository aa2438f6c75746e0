/* pool.h: max and average pooling, a chunk of (image, channel) planes at a time.
 *
 * Design: vectors run along the outputs of a row, for every stride. A row of the image is split into phases in scratch,
 *
 *   phase c of a row:  row[c], row[c + stride], row[c + 2 stride], ...    with the padding's value before and behind
 *
 * so that neighbouring windows find what they see in their column j (a "tap") at neighbouring places of one phase: a
 * plain load, and no edges to care for. Columns of the kernel that see no part of the image from any window are left
 * out. The backward passes (pool_backward.h) go the other way, from the outputs to the phases of an input row.
 *
 *   forward        combine the input rows of an output row, split the result, combine its taps
 *   with places    split the input rows, HELD at a time, and remember for each output its first maximum so far and
 *                  where that is
 *
 * Averages are within 4 ulp of the mean of magnitudes, whatever the window. Where it is small (a->few), a pixel goes
 * through two additions of rows at most; the taps of a row are added up together with what rounding takes from them, so
 * that one rounding and a half count at most; and there is half an ulp of the division. Where operations are fused and
 * windows are no wider than WIDEST_SHARED, there is no division: a mean is a sum of taps times their share, 1 / count. That
 * rounds twice within the sum and once, by half an ulp, at its end, and 1 / count is off by half a rounding at most, for
 * all the counts that there can be. Otherwise some rows are added in the type, and such sums in more bits than they have
 * (sums.h); a sum of many rows is kept as two numbers, rounded and what is left of it, in a row of each. A window that is
 * the whole image is one sum along memory.
 */
#include "begin.h"
#include "images/window.h"
#include "simd/stored.h"
#include "simd/sums.h"
#include "table.h"

#ifndef XENT_POOL_H
#define XENT_POOL_H

#ifndef STORED_AS_16 /* what knows T alone */
typedef struct {
    const xent_pool_args *a;
    const xent_tap *taps;
    const xent_tap *by_residue; /* the same taps, for stride 2: first the `even` ones */
    ptrdiff_t even;
    xent_pair *pairs;             /* max backward: the output rows that reach an input row */
    ptrdiff_t width, places_at;   /* backward: pixels of a row that is written; from gradients kept to their places */
    const void *x_end, *grad_end; /* of all images and gradients */
    void *out_end;                /* of what a chunk writes */
    T identity;                   /* of padding */
    T *line;                      /* an input row, and what is left of its numbers */
    T *phases;                    /* of a->held rows */
    ptrdiff_t held[HELD];         /* which rows these are */
    int nan[HELD];                /* and whether there may be a NaN in them */
    T *counts;                    /* avg: cells in the divisor, along the width, and 1 behind them */
    int by_shares;                /* avg: whether there are shares, 1 / count, */
    T *shares;                    /* these, for every output of a row */
    ptrdiff_t shared;             /* of windows of so many rows */
    double *wide_counts;          /* the same, where windows are not small; for floats, the reciprocals */
    I *first; /* max: number of the first cell of a window's row that is inside the image; or none */
    T *best;  /* max: the largest so far of every output's window */
    I *place; /* and the number of its cell */
    T *sum;   /* avg backward: a sum of rows of shares, 0 before and behind */
    T *ring;  /* backward: rows of gradients (avg: shares), 0 before and behind, each followed by places */
    /* Max backward, where whole blocks of output rows are worked on (pool_backward.h): */
    T *terms; /* their gradients; their places are in `place` */
    T *lines; /* pixels by row and phase */
    xent_origin origin;
    int32_t *to;   /* the pixels of outputs */
    double *strip; /* what pixels have received */
    void *cleared; /* what is written from here on has not been cleared */
} NAME(pool);
#define WIDEST_SHARED 3 /* columns; with the rows of a->few, counts are 1, 2, 3, 4, 6, 8, 9 and 12 */

ALWAYS_INLINE VI NAME(load_index)(const I *p) { return (VI)v_load((const T *)p); }

/* The larger of both; NaN if one is: the comparison is false for a NaN in b, and a NaN in a is asked for. */
ALWAYS_INLINE V NAME(max_point)(V a, V b) { return v_select(m_eq(a, a), v_max(a, b), a); }

/* What rounding left of a number; 0 of one that is not finite. */
ALWAYS_INLINE V NAME(finite_rest)(V rounded, V rest)
{
    return v_select(m_gt(NAME(set)((T)INFINITY), v_abs(rounded)), rest, (V){0});
}

/* A sum of more bits (sums.h) as a rounded number and the rest. */
ALWAYS_INLINE void NAME(part_sum)(const NAME(sum) *acc, V *rounded, V *rest)
{
#if XENT_REAL == 32
    *rounded = v_narrow(acc->a, acc->b);
    *rest = v_narrow(acc->a - v_widen_lo(*rounded), acc->b - v_widen_hi(*rounded));
#else
    *rounded = acc->a, *rest = acc->b;
#endif
    *rest = NAME(finite_rest)(*rounded, *rest);
}

ALWAYS_INLINE V NAME(round_sum)(const NAME(sum) *acc)
{
#if XENT_REAL == 32
    return v_narrow(acc->a, acc->b);
#else
    return acc->a + NAME(finite_rest)(acc->a, acc->b);
#endif
}

/* Divided by `rows` and the `counts` of LANES outputs. Floats are multiplied by doubles, whose rounding is nothing to
 * them; `counts` are reciprocals then. */
ALWAYS_INLINE V NAME(divide_sum)(const NAME(sum) *acc, double rows, const double *counts)
{
#if XENT_REAL == 32
    const vf64 share = set_f64(1 / rows);
    return v_narrow(acc->a * (share * v_load(counts)), acc->b * (share * v_load(counts + LANES / 2)));
#else
    return NAME(round_sum)(acc) / (set_f64(rows) * v_load(counts));
#endif
}

static void NAME(set_taps)(const xent_pool_args *a, xent_tap *taps)
{
    const xent_window *w = &a->window;
    for (ptrdiff_t k = 0; k < a->taps; k++) {
        xent_tap *tap = taps + k;
        const ptrdiff_t x = (a->first_tap + k) * w->dilation_w - w->left;
        tap->number = a->first_number + k;
        tap->shift = xent_floor_div(x, w->stride_w);
        tap->residue = x - tap->shift * w->stride_w;
        tap->pixels = xent_count_below(tap->residue, w->stride_w, w->width);
        tap->at = (a->phases == w->stride_w ? tap->residue : k) * a->span + tap->shift;
    }
}

/* Lay out the scratch. The padding around the phases stays as it is set here. */
static NAME(pool) NAME(pool_open)(const xent_pool_args *a, void *scratch)
{
    xent_tap *taps = scratch, *sorted = taps + a->taps;
    xent_pair *pairs = (xent_pair *)(sorted + a->taps);
    T *line = (T *)(pairs + a->pairs), *phases = line + 2 * a->line, *rows = phases + a->held * a->phases * a->span;
    NAME(pool) p = {.a = a,
                    .taps = taps,
                    .by_residue = sorted,
                    .pairs = pairs,
                    .width = a->window.width,
                    .places_at = a->span,
                    .identity = a->average ? 0 : (T)-INFINITY,
                    .line = line,
                    .phases = phases + a->before,
                    .counts = rows,
                    .by_shares = XENT_FUSED && a->few && !a->divisor && a->window.kernel_w <= WIDEST_SHARED,
                    .shares = rows + a->span,
                    .wide_counts = (double *)rows,
                    .first = (I *)rows,
                    .best = rows + 2 * a->span,
                    .place = (I *)rows + 3 * a->span,
                    .sum = rows + 2 * a->span + a->after,
                    .ring = rows + 4 * a->span + a->after};
    NAME(set_taps)(a, taps);
    for (const xent_tap *tap = taps; tap < taps + a->taps; tap++)
        if (!tap->residue) sorted[p.even++] = *tap;
    ptrdiff_t k = p.even;
    for (const xent_tap *tap = taps; tap < taps + a->taps; tap++)
        if (tap->residue) sorted[k++] = *tap;
    for (T *t = line; t < rows; t++) *t = p.identity;
    memset(rows, 0, (size_t)((4 + 2 * a->ring) * a->span) * sizeof(T));
    for (k = 0; k < HELD; k++) p.held[k] = -1;
    return p;
}

/* Cells in the divisor of output (oh, ow), along the height and the width; of a divisor that was given, 1 and that. */
ALWAYS_INLINE ptrdiff_t NAME(count_rows)(const xent_pool_args *a, ptrdiff_t oh)
{
    const xent_window *w = &a->window;
    if (a->divisor) return 1;
    return xent_pool_extent(oh * w->stride_h - w->top, w->kernel_h, w->height, a->bottom, a->count_include_pad);
}
ALWAYS_INLINE ptrdiff_t NAME(count_columns)(const xent_pool_args *a, ptrdiff_t ow)
{
    const xent_window *w = &a->window;
    if (a->divisor) return a->divisor;
    return xent_pool_extent(ow * w->stride_w - w->left, w->kernel_w, w->width, a->right, a->count_include_pad);
}

static void NAME(set_counts)(const NAME(pool) *p)
{
    const xent_pool_args *a = p->a;
    for (ptrdiff_t ow = 0; ow < a->span; ow++) {
        const ptrdiff_t count = ow < a->window.out_w ? NAME(count_columns)(a, ow) : 1;
        if (a->few)
            p->counts[ow] = (T)count;
        else
            p->wide_counts[ow] = XENT_REAL == 32 ? 1 / (double)count : (double)count;
    }
}

/* The shares of windows of `rows`. */
static void NAME(set_shares)(NAME(pool) *p, ptrdiff_t rows)
{
    const V count = NAME(set)((T)rows);
    for (ptrdiff_t ow = 0; ow < p->a->window.out_w; ow += LANES)
        v_store(p->shares + ow, NAME(set)(1) / (count * v_load(p->counts + ow)));
    p->shared = rows;
}

PER_TILE void NAME(set_first)(const NAME(pool) *p)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    for (ptrdiff_t ow = 0; ow < w->out_w; ow++) {
        const ptrdiff_t low = xent_first_inside(ow * w->stride_w - w->left, w->dilation_w);
        p->first[ow] = (I)(low - a->first_tap + a->first_number);
    }
}

/* The input rows of output row oh that are inside the image: [low, high) of the kernel; the first one's number is
 * `y`. */
typedef struct {
    ptrdiff_t low, high, y;
} NAME(rows);
ALWAYS_INLINE NAME(rows) NAME(rows_of)(const xent_window *w, ptrdiff_t oh)
{
    const ptrdiff_t start = oh * w->stride_h - w->top, low = xent_first_inside(start, w->dilation_h);
    return (NAME(rows)){.low = low,
                        .high = xent_end_inside(start, w->dilation_h, w->height, w->kernel_h),
                        .y = start + low * w->dilation_h};
}

/* Split n groups of 3, without regard to padding. */
static void NAME(split_threes)(const T *restrict row, ptrdiff_t n, T *restrict first, T *restrict second,
                               T *restrict third)
{
    for (ptrdiff_t q = 0; q < n; q++) first[q] = row[3 * q], second[q] = row[3 * q + 1], third[q] = row[3 * q + 2];
}

/* Each step-th of n taps, added up with the errors of the additions (sums.h): what outputs see from `row` on, or (back)
 * what pixels get from there. An error of a sum that is not finite is a NaN, and left out. Of three numbers that outputs
 * see the second error counts: where the first is added to the last of them, no more than it can be lost, nor more than
 * a rounding of that, which together is half a rounding of the sum. */
ALWAYS_INLINE V NAME(add_taps)(const T *row, const xent_tap *tap, ptrdiff_t n, ptrdiff_t step, int back)
{
    V sum = {0}, rest = {0};
    for (ptrdiff_t j = 0; j < n; j += step) {
        V v = v_load(row + (back ? -tap[j].shift : tap[j].at));
        if (n == 3 && j == 2 && !back) v = v + v_select(m_eq(rest, rest), rest, (V){0}), rest = (V){0};
        const V total = j ? sum + v : v;
        if (j && n > 2 && (n > 3 || j < 2 || back)) rest += NAME(sum_error)(sum, v, total);
        sum = total;
    }
    return n > 2 && (n > 3 || back) ? sum + v_select(m_eq(rest, rest), rest, (V){0}) : sum;
}

/* The same in more bits; of sums in two rows if there are `rests`. */
ALWAYS_INLINE NAME(sum)
    NAME(add_many_taps)(const T *row, const T *rests, const xent_tap *tap, ptrdiff_t n, ptrdiff_t step, int back)
{
    NAME(sum) acc = {{0}, {0}};
    for (ptrdiff_t j = 0; j < n; j += step) {
        const ptrdiff_t at = back ? -tap[j].shift : tap[j].at;
        NAME(sum_add)(&acc, v_load(row + at));
        if (rests) NAME(sum_add)(&acc, v_load(rests + at));
    }
    return acc;
}

/* Rows that are added up in the type before the sum of more bits. Forward, three roundings of floats, whose only other
 * one is that of the result; doubles are rounded two or three times more. Backward, two of floats. */
#define ROWS_FIRST BY_TYPE(8, 2)
#define SHARES_FIRST BY_TYPE(4, 1)
#endif

static void KERNEL(set_ends)(NAME(pool) *p, ptrdiff_t end)
{
    const xent_pool_args *a = p->a;
    const ptrdiff_t pixels = a->window.height * a->window.width, outputs = a->window.out_h * a->window.out_w;
    p->x_end = (const S *)a->x + a->planes * pixels;
    p->grad_end = (const S *)a->grad + a->planes * outputs;
    p->out_end = (S *)a->out + end * (a->grad ? pixels : outputs);
}

/* Numbers of a row. Those of the next one may be written, as they are written later, up to the end of the chunk. */
ALWAYS_INLINE void KERNEL(store_row)(const NAME(pool) *p, S *to, V v) { KERNEL(store)(to, v, (S *)p->out_end - to); }

/* Split a row into `phases`; return whether there may be a NaN in it. */
static int KERNEL(split_row)(const NAME(pool) *p, const S *row, T *phases)
{
    const xent_pool_args *a = p->a;
    const ptrdiff_t stride = a->window.stride_w, width = a->window.width;
    const V fill = NAME(set)(p->identity);
    VM nan = m_gt(fill, fill);
    if (stride == 1) {
        for (ptrdiff_t x = 0; x < width; x += LANES) {
            const V v = KERNEL(load_row)(row + x, width - x, p->x_end, fill);
            v_store(phases + x, v);
            nan |= (VM)~m_eq(v, v);
        }
    } else if (stride == 2) {
        T *odd = phases + a->span;
        for (ptrdiff_t x = 0; x < width; x += 2 * LANES) {
            const V v = KERNEL(load_row)(row + x, width - x, p->x_end, fill);
            const V next =
                x + LANES < width ? KERNEL(load_row)(row + x + LANES, width - x - LANES, p->x_end, fill) : fill;
            v_store(phases + x / 2, v_evens(v, next));
            v_store(odd + x / 2, v_odds(v, next));
            nan |= (VM)~m_eq(v + next, v + next); /* inf - inf as well: a false alarm */
        }
    } else {
#ifdef STORED_AS_16
        for (ptrdiff_t x = 0; x < width; x += LANES)
            v_store(p->line + x, KERNEL(load_row)(row + x, width - x, p->x_end, fill));
        return NAME(split_row)(p, p->line, phases);
#else
        /* Groups of 3, which are shuffled rather than picked up where they are enough. */
        const ptrdiff_t done = stride == 3 && a->phases == 3 && width >= 2 * LANES ? width / 3 : 0;
        NAME(split_threes)(row, done, phases, phases + a->span, phases + 2 * a->span);
        for (ptrdiff_t k = 0; k < a->phases; k++) {
            T *phase = phases + k * a->span + done;
            const ptrdiff_t start = a->phases == stride ? k : p->taps[k].residue;
            for (ptrdiff_t x = start + done * stride; x < width; x += stride) *phase++ = row[x];
        }
        for (ptrdiff_t x = 0; x < width; x += LANES) {
            const V v = NAME(load)(row + x, width - x, fill);
            nan |= (VM)~m_eq(v, v);
        }
#endif
    }
    return m_any(nan);
}

/* ---- averages ---- */

/* The sum of n rows, at most 4, in two additions each; of at most 8 in three. */
ALWAYS_INLINE V KERNEL(add_4)(const S *in, ptrdiff_t step, ptrdiff_t n, ptrdiff_t left, const void *end)
{
    const V zero = {0};
    V v = KERNEL(load_row)(in, left, end, zero);
    if (n > 1) v = v + KERNEL(load_row)(in + step, left, end, zero);
    if (n == 3) v = v + KERNEL(load_row)(in + 2 * step, left, end, zero);
    if (n > 3)
        v = v + (KERNEL(load_row)(in + 2 * step, left, end, zero) + KERNEL(load_row)(in + 3 * step, left, end, zero));
    return v;
}
ALWAYS_INLINE V KERNEL(add_8)(const S *in, ptrdiff_t step, ptrdiff_t n, ptrdiff_t left, const void *end)
{
    const V v = KERNEL(add_4)(in, step, n, left, end);
    return n > 4 ? v + KERNEL(add_4)(in + 4 * step, step, n - 4, left, end) : v;
}

/* `n` is a constant at most calls. */
ALWAYS_INLINE void KERNEL(add_few_rows)(const NAME(pool) *p, const S *in, T *row, ptrdiff_t n)
{
    const ptrdiff_t width = p->a->window.width;
    for (ptrdiff_t x = 0; x < width; x += LANES) v_store(row + x, KERNEL(add_8)(in + x, width, n, width - x, p->x_end));
}

/* The sum of n rows, `first` at a time in the type itself. */
ALWAYS_INLINE NAME(sum)
    KERNEL(add_all)(const S *in, ptrdiff_t step, ptrdiff_t n, ptrdiff_t left, const void *end, ptrdiff_t first)
{
    NAME(sum) acc = {{0}, {0}};
    for (; n > 0; n -= first, in += first * step)
        NAME(sum_add)(&acc, KERNEL(add_8)(in, step, xent_min(n, first), left, end));
    return acc;
}

static void KERNEL(add_many_rows)(const NAME(pool) *p, const S *in, ptrdiff_t n, T *row, T *rests)
{
    const ptrdiff_t width = p->a->window.width;
    V rounded, rest;
    for (ptrdiff_t x = 0; x < width; x += LANES) {
        const NAME(sum) acc = KERNEL(add_all)(in + x, width, n, width - x, p->x_end, ROWS_FIRST);
        NAME(part_sum)(&acc, &rounded, &rest);
        v_store(row + x, rounded);
        v_store(rests + x, rest);
    }
}

/* `taps` is a constant at most calls. */
ALWAYS_INLINE void KERNEL(mean_few_taps)(const NAME(pool) *p, T rows, S *out, ptrdiff_t taps)
{
    const ptrdiff_t out_w = p->a->window.out_w;
    const V count = NAME(set)(rows);
    for (ptrdiff_t ow = 0; ow < out_w; ow += LANES) {
        const V sum = NAME(add_taps)(p->phases + ow, p->taps, taps, 1, 0);
        KERNEL(store_row)(p, out + ow, sum / (count * v_load(p->counts + ow)));
    }
}

/* The same of windows no wider than WIDEST_SHARED, without a division. */
ALWAYS_INLINE void KERNEL(mean_by_shares)(const NAME(pool) *p, S *out, ptrdiff_t taps)
{
    const ptrdiff_t out_w = p->a->window.out_w;
    for (ptrdiff_t ow = 0; ow < out_w; ow += LANES) {
        const V share = v_load(p->shares + ow);
        V mean = v_load(p->phases + p->taps[0].at + ow) * share;
        for (ptrdiff_t j = 1; j < taps; j++) mean = v_fma(v_load(p->phases + p->taps[j].at + ow), share, mean);
        KERNEL(store_row)(p, out + ow, mean);
    }
}

static void KERNEL(mean_many_taps)(const NAME(pool) *p, double rows, const T *rests, S *out)
{
    const xent_pool_args *a = p->a;
    for (ptrdiff_t ow = 0; ow < a->window.out_w; ow += LANES) {
        const NAME(sum) acc = NAME(add_many_taps)(p->phases + ow, rests ? rests + ow : NULL, p->taps, a->taps, 1, 0);
        KERNEL(store_row)(p, out + ow, NAME(divide_sum)(&acc, rows, p->wide_counts + ow));
    }
}

/* The means of a row of windows that see n rows from `in` on. */
static void KERNEL(mean_row)(NAME(pool) *p, const S *in, ptrdiff_t n, ptrdiff_t count, S *out)
{
    const xent_pool_args *a = p->a;
    const ptrdiff_t room = a->phases * a->span;
    const int whole = a->window.stride_w == 1; /* one phase */
    const int many = !a->few && n > ROWS_FIRST;
    T *row = whole ? p->phases : p->line, *rests = whole ? p->phases + room : p->line + a->line;
    if (many) {
        KERNEL(add_many_rows)(p, in, n, row, rests);
        if (!whole) NAME(split_row)(p, rests, p->phases + room);
    } else {
        switch (n) {
        case 1: KERNEL(add_few_rows)(p, in, row, 1); break;
        case 2: KERNEL(add_few_rows)(p, in, row, 2); break;
        case 3: KERNEL(add_few_rows)(p, in, row, 3); break;
        default: KERNEL(add_few_rows)(p, in, row, n);
        }
    }
    if (!whole) NAME(split_row)(p, row, p->phases);
    if (!a->few) {
        KERNEL(mean_many_taps)(p, (double)count, many ? p->phases + room : NULL, out);
    } else if (p->by_shares) {
        if (count != p->shared) NAME(set_shares)(p, count);
        switch (a->taps) {
        case 2: KERNEL(mean_by_shares)(p, out, 2); break;
        case 3: KERNEL(mean_by_shares)(p, out, 3); break;
        default: KERNEL(mean_by_shares)(p, out, a->taps);
        }
    } else {
        switch (a->taps) {
        case 2: KERNEL(mean_few_taps)(p, (T)count, out, 2); break;
        case 3: KERNEL(mean_few_taps)(p, (T)count, out, 3); break;
        default: KERNEL(mean_few_taps)(p, (T)count, out, a->taps);
        }
    }
}

/* The mean of a whole plane, along memory. */
static void KERNEL(mean_plane)(const NAME(pool) *p, const S *in, S *out)
{
    const xent_pool_args *a = p->a;
    const ptrdiff_t size = a->window.height * a->window.width;
    const double rows = (double)NAME(count_rows)(a, 0), columns = (double)NAME(count_columns)(a, 0);
    NAME(row_sum) sum;
    NAME(start_row_sum)(&sum);
    for (ptrdiff_t k = 0, way = 0; k < size; k += LANES, way = (way + 1) % WAYS)
        NAME(sum_add)(&sum.way[way], KERNEL(load_row)(in + k, size - k, p->x_end, (V){0}));
    KERNEL(put)(out, (T)(NAME(row_total)(&sum) / (rows * columns)));
}

static void KERNEL(avg_pool2d)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_pool_args *a = args;
    const xent_window *w = &a->window;
    const ptrdiff_t begin = chunk * a->chunk, end = xent_min(begin + a->chunk, a->planes);
    NAME(pool) p = NAME(pool_open)(a, scratch);
    NAME(set_counts)(&p);
    KERNEL(set_ends)(&p, end);
    for (ptrdiff_t plane = begin; plane < end; plane++) {
        const S *x = (const S *)a->x + plane * w->height * w->width;
        S *out = (S *)a->out + plane * w->out_h * w->out_w;
        if (a->whole) {
            KERNEL(mean_plane)(&p, x, out);
            continue;
        }
        for (ptrdiff_t oh = 0; oh < w->out_h; oh++, out += w->out_w) {
            const NAME(rows) rows = NAME(rows_of)(w, oh);
            KERNEL(mean_row)(&p, x + rows.y * w->width, rows.high - rows.low, NAME(count_rows)(a, oh), out);
        }
    }
}

/* ---- maxima ---- */

/* The largest of each column of input rows, or nothing but the identity. */
static void KERNEL(max_rows)(const NAME(pool) *p, const S *plane, NAME(rows) rows, T *row)
{
    const xent_window *w = &p->a->window;
    const ptrdiff_t step = w->dilation_h * w->width, n = rows.high - rows.low;
    const V start = NAME(set)(p->identity);
    for (ptrdiff_t x = 0; x < w->width; x += LANES) {
        const S *in = plane + rows.y * w->width + x;
        V v = start;
        for (ptrdiff_t i = 0; i < n; i++)
            v = NAME(max_point)(v, KERNEL(load_row)(in + i * step, w->width - x, p->x_end, start));
        v_store(row + x, v);
    }
}

/* `taps` is a constant at most calls. */
ALWAYS_INLINE void KERNEL(max_taps)(const NAME(pool) *p, S *out, ptrdiff_t taps)
{
    const ptrdiff_t out_w = p->a->window.out_w;
    for (ptrdiff_t ow = 0; ow < out_w; ow += LANES) {
        V v = NAME(set)(p->identity);
        for (ptrdiff_t j = 0; j < taps; j++) v = NAME(max_point)(v, v_load(p->phases + p->taps[j].at + ow));
        KERNEL(store_row)(p, out + ow, v);
    }
}

static void KERNEL(max_row)(const NAME(pool) *p, const S *plane, ptrdiff_t oh, S *out)
{
    const xent_pool_args *a = p->a;
    T *row = a->window.stride_w == 1 ? p->phases : p->line;
    KERNEL(max_rows)(p, plane, NAME(rows_of)(&a->window, oh), row);
    if (row == p->line) NAME(split_row)(p, row, p->phases);
    switch (a->taps) {
    case 2: KERNEL(max_taps)(p, out, 2); break;
    case 3: KERNEL(max_taps)(p, out, 3); break;
    default: KERNEL(max_taps)(p, out, a->taps);
    }
}

#ifndef STORED_AS_16
/* Look for a larger element in `n` rows, of which the first begins with cell `start` and is split in `phases[0]`. What
 * is not larger than the best so far, or comes after a NaN, stays behind it: the first maximum in scan order wins.
 * Padding, -inf, never replaces the first cell inside the image, where the search begins. `n`, `taps` and `nan` are
 * constants at most calls. */
ALWAYS_INLINE void NAME(find_best)(const NAME(pool) *p, const xent_tap *tap, T *const *phases, I *places, I start,
                                   int begin, ptrdiff_t n, ptrdiff_t taps, int nan)
{
    const ptrdiff_t out_w = p->a->window.out_w, pitch = p->a->pitch;
    const I *first = p->first;
    T *bests = p->best;
    for (ptrdiff_t ow = 0; ow < out_w; ow += LANES) {
        V best = begin ? NAME(set)((T)-INFINITY) : v_load(bests + ow);
        VI place = begin ? NAME(iset)(start) + NAME(load_index)(first + ow) : NAME(load_index)(places + ow);
        for (ptrdiff_t i = 0; i < n; i++) {
            for (ptrdiff_t j = 0; j < taps; j++) {
                const V x = v_load(phases[i] + tap[j].at + ow);
                const V here = (V)NAME(iset)(start + (I)(i * pitch + tap[j].number));
                const VM larger = nan ? (VM) ~(m_ge(best, x) | ~m_eq(best, best)) : m_gt(x, best);
                place = (VI)v_select(larger, here, (V)place);
                best = nan ? v_select(larger, x, best) : v_max(x, best);
            }
        }
        v_store(bests + ow, best);
        v_store((T *)(places + ow), (V)place);
    }
}

static void NAME(find_in_rows)(const NAME(pool) *p, T *const *phases, I *places, I start, int begin, ptrdiff_t n,
                               int nan)
{
#define CASE(rows, columns)                                                                                            \
    if (n == rows && p->a->taps == columns && begin && !nan) {                                                         \
        const xent_tap few[] = {p->taps[0], p->taps[1], p->taps[columns - 1]};                                         \
        T *const some[] = {phases[0], phases[1], phases[rows - 1]};                                                    \
        NAME(find_best)(p, few, some, places, start, 1, rows, columns, 0);                                             \
        return;                                                                                                        \
    }
    CASE(2, 2)
    CASE(3, 3)
#undef CASE
    if (nan)
        NAME(find_best)(p, p->taps, phases, places, start, begin, n, p->a->taps, 1);
    else
        NAME(find_best)(p, p->taps, phases, places, start, begin, n, p->a->taps, 0);
}
#endif

/* The first maximum of a whole plane, along memory: where it is. The lanes' own are found by vectors, and then the
 * first of the largest of these, by numbers below 0 whose largest is wanted. */
static ptrdiff_t KERNEL(largest_of_plane)(const NAME(pool) *p, const S *in)
{
    const ptrdiff_t size = p->a->window.height * p->a->window.width;
    const V least = NAME(set)((T)-INFINITY), step = NAME(set)(LANES);
    V best = least, at = {0}, here = {0};
    VM nan = m_gt(least, least);
    T lanes[LANES];
    for (int lane = 0; lane < LANES; lane++) lanes[lane] = (T)lane;
    for (ptrdiff_t k = 0; k < size; k += LANES, here = here - step) {
        const V x = KERNEL(load_row)(in + k, size - k, p->x_end, least);
        at = v_select(m_gt(x, best), here, at);
        best = v_max(x, best);
        nan |= (VM)~m_eq(x, x);
    }
    ptrdiff_t first = 0;
    if (m_any(nan)) {
        while (KERNEL(get)(in + first) == KERNEL(get)(in + first)) first++;
        return first;
    }
    const VM largest = m_eq(best, NAME(set)(v_reduce_max(best)));
    return (ptrdiff_t)-v_reduce_max(v_select(largest, at - v_load(lanes), least));
}

static void KERNEL(find_place_of_plane)(const NAME(pool) *p, const S *in, I *place)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    const ptrdiff_t at = KERNEL(largest_of_plane)(p, in), y = at / w->width, x = at - y * w->width;
    *place = (I)((y + w->top) * a->pitch + x + w->left - a->first_tap + a->first_number);
    *p->best = KERNEL(get)(in + at);
}

/* Find the first maximum of every window of an output row: p->best, and the numbers of the cells. Rows that the output
 * row before has split already are still there. Every window holds a pixel (`pooling_window` in _window.py). */
static void KERNEL(find_places)(NAME(pool) *p, const S *x, ptrdiff_t oh, I *places)
{
    const xent_window *w = &p->a->window;
    const NAME(rows) rows = NAME(rows_of)(w, oh);
    if (p->a->whole) {
        KERNEL(find_place_of_plane)(p, x, places);
        return;
    }
    int nan = 0;
    for (ptrdiff_t i = rows.low; i < rows.high; i += HELD) {
        const ptrdiff_t n = xent_min(HELD, rows.high - i);
        T *phases[HELD];
        for (ptrdiff_t k = 0; k < n; k++) {
            const ptrdiff_t y = rows.y + (i - rows.low + k) * w->dilation_h, slot = w->dilation_h == 1 ? y % HELD : k;
            phases[k] = p->phases + slot * p->a->phases * p->a->span;
            if (p->held[slot] != y) p->nan[slot] = KERNEL(split_row)(p, x + y * w->width, phases[k]);
            p->held[slot] = y;
            nan |= p->nan[slot];
        }
        NAME(find_in_rows)(p, phases, places, (I)(i * p->a->pitch), i == rows.low, n, nan);
    }
}

/* to[k] = from[k] for k < n, which do not overlap: a vector at a time, of which the last may overlap the one before. */
#define COPY_PLACES(type, to, from)                                                                                    \
    {                                                                                                                  \
        type *restrict target = to;                                                                                    \
        for (ptrdiff_t k = 0; k < n && n < LANES; k++) target[k] = (type)(from)[k];                                    \
        for (ptrdiff_t k = 0; k < n && n >= LANES; k += LANES)                                                         \
            for (ptrdiff_t lane = xent_min(k, n - LANES), end = lane + LANES; lane < end; lane++)                      \
                target[lane] = (type)(from)[lane];                                                                     \
    }
#ifndef STORED_AS_16
/* The places of an output row, in memory from number `at` on. */
static void NAME(store_places)(const xent_pool_args *a, ptrdiff_t at, const I *restrict places)
{
    const ptrdiff_t n = a->window.out_w;
    void *to = a->places;
    switch (a->place_size) {
    case 1: COPY_PLACES(uint8_t, (uint8_t *)to + at, places) break;
    case 2: COPY_PLACES(uint16_t, (uint16_t *)to + at, places) break;
    default: COPY_PLACES(int32_t, (int32_t *)to + at, places)
    }
}
#endif

static void KERNEL(max_pool2d)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_pool_args *a = args;
    const xent_window *w = &a->window;
    const ptrdiff_t begin = chunk * a->chunk, end = xent_min(begin + a->chunk, a->planes);
    NAME(pool) p = NAME(pool_open)(a, scratch);
    KERNEL(set_ends)(&p, end);
    if (a->places) NAME(set_first)(&p);
    for (ptrdiff_t plane = begin; plane < end; plane++) {
        const S *x = (const S *)a->x + plane * w->height * w->width;
        ptrdiff_t at = plane * w->out_h * w->out_w;
        for (int k = 0; k < HELD; k++) p.held[k] = -1;
        for (ptrdiff_t oh = 0; oh < w->out_h; oh++, at += w->out_w) {
            S *out = (S *)a->out + at;
            if (!a->places && a->whole) {
                *out = x[KERNEL(largest_of_plane)(&p, x)];
                continue;
            }
            if (!a->places) {
                KERNEL(max_row)(&p, x, oh, out);
                continue;
            }
            KERNEL(find_places)(&p, x, oh, p.place);
            NAME(store_places)(a, at, p.place);
            for (ptrdiff_t ow = 0; ow < w->out_w; ow += LANES) KERNEL(store_row)(&p, out + ow, v_load(p.best + ow));
        }
    }
}

#endif
