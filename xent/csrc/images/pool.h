/* pool.h: max and average pooling, a chunk of (image, channel) planes at a time.
 *
 * Design: vectors run along the outputs of a row, for every stride. A row of the image is split into phases in scratch,
 *
 *   phase c of a row:  row[c], row[c + stride], row[c + 2 stride], ...    with the padding's value before and behind
 *
 * so that neighbouring windows find what they see in their column j (a "tap") at neighbouring places of one phase: a
 * plain load, and no edges to care for. Columns of the kernel that see no part of the image from any window are left
 * out. The backward passes go the other way: what each phase of an input row receives is added up in registers, and the
 * phases are interleaved.
 *
 *   forward        combine the input rows of an output row, split the result, combine its taps
 *   max backward   split the input rows, HELD at a time, remember for each output its first maximum so far and where
 *                  that is; then each input row takes the gradients of the outputs whose maximum it holds
 *   avg backward   spread gradient / count over the columns once, and add that to each input row of the output row
 *
 * An input row is written when the first output row reaches it, and added to by later ones.
 */
#include "begin.h"
#include "images/window.h"
#include "simd/stored.h"
#include "table.h"

#if !defined(XENT_POOL_H) && !defined(STORED_AS_16)
#define XENT_POOL_H

typedef struct {
    const xent_pool_args *a;
    const xent_tap *taps;
    const xent_tap *by_residue; /* the same taps, for stride 2: first the `even` ones */
    ptrdiff_t even;
    T identity;           /* of padding */
    T *line;              /* an input row */
    T *phases;            /* of up to HELD rows */
    ptrdiff_t held[HELD]; /* which rows these are */
    int nan[HELD];        /* and whether there may be a NaN in them */
    T *counts;            /* avg: cells in the divisor, along the width */
    I *first; /* max: where the first cell of a window inside the image is, from the window's first column; or none */
    T *best;  /* max backward: the largest so far of every output's window */
    I *place; /* and where: (rows from the window's first) * width + columns from its first */
    T *grad;  /* gradients of the output row (avg: shares), 0 before and behind */
} NAME(pool);
#define NOWHERE (-1)

ALWAYS_INLINE VI NAME(load_index)(const I *p) { return (VI)v_load((const T *)p); }

/* The larger of both; NaN if one is: the comparison is false for a NaN in b, and a NaN in a is asked for. */
ALWAYS_INLINE V NAME(max_point)(V a, V b) { return v_select(m_eq(a, a), v_max(a, b), a); }
ALWAYS_INLINE V NAME(add_point)(V a, V b) { return a + b; }

static void NAME(set_taps)(const xent_pool_args *a, xent_tap *taps)
{
    const xent_window *w = &a->window;
    for (ptrdiff_t k = 0; k < a->taps; k++) {
        xent_tap *tap = taps + k;
        tap->offset = (a->first_tap + k) * w->dilation_w;
        tap->shift = xent_floor_div(tap->offset - w->left, w->stride_w);
        tap->residue = tap->offset - w->left - tap->shift * w->stride_w;
        tap->at = (a->phases == w->stride_w ? tap->residue : k) * a->span + tap->shift;
    }
}

/* Lay out the scratch. The padding around the phases stays as it is set here. */
static NAME(pool) NAME(pool_open)(const xent_pool_args *a, void *scratch, T identity)
{
    xent_tap *taps = scratch, *sorted = taps + a->taps;
    T *rest = (T *)(sorted + a->taps), *rows = rest + a->line + HELD * a->phases * a->span;
    NAME(pool) p = {.a = a,
                    .taps = taps,
                    .by_residue = sorted,
                    .identity = identity,
                    .line = rest,
                    .phases = rest + a->line + a->before,
                    .counts = rows,
                    .first = (I *)rows,
                    .best = rows + a->span,
                    .place = (I *)rows + 2 * a->span,
                    .grad = rows + 3 * a->span + a->after};
    NAME(set_taps)(a, taps);
    for (const xent_tap *tap = taps; tap < taps + a->taps; tap++)
        if (!tap->residue) sorted[p.even++] = *tap;
    ptrdiff_t k = p.even;
    for (const xent_tap *tap = taps; tap < taps + a->taps; tap++)
        if (tap->residue) sorted[k++] = *tap;
    for (T *t = rest; t < rows; t++) *t = identity;
    memset(rows, 0, (size_t)(4 * a->span) * sizeof(T));
    return p;
}

static void NAME(set_counts)(const NAME(pool) *p)
{
    const xent_pool_args *a = p->a;
    const xent_window *w = &a->window;
    for (ptrdiff_t ow = 0; ow < w->out_w; ow++)
        p->counts[ow] =
            (T)xent_pool_extent(ow * w->stride_w - w->left, w->kernel_w, w->width, a->right, a->count_include_pad);
}

static void NAME(set_first)(const NAME(pool) *p)
{
    const xent_window *w = &p->a->window;
    for (ptrdiff_t ow = 0; ow < w->out_w; ow++) {
        const ptrdiff_t x = ow * w->stride_w - w->left, low = xent_first_inside(x, w->dilation_w);
        const int some = low < xent_end_inside(x, w->dilation_w, w->width, w->kernel_w);
        p->first[ow] = some ? (I)(low * w->dilation_w) : NOWHERE;
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

ALWAYS_INLINE T NAME(count_rows)(const xent_pool_args *a, ptrdiff_t oh)
{
    const xent_window *w = &a->window;
    return (T)xent_pool_extent(oh * w->stride_h - w->top, w->kernel_h, w->height, a->bottom, a->count_include_pad);
}

/* Split a row into `phases`; return whether there may be a NaN in it. */
static int NAME(split_row)(const NAME(pool) *p, const T *row, T *phases)
{
    const xent_pool_args *a = p->a;
    const ptrdiff_t stride = a->window.stride_w, width = a->window.width;
    const V fill = NAME(set)(p->identity);
    T *even = phases, *odd = even + a->span;
    VM nan = m_gt(fill, fill);
    if (stride == 1) {
        for (ptrdiff_t x = 0; x < width; x += LANES) {
            const V v = NAME(load)(row + x, width - x, fill);
            v_store(even + x, v);
            nan |= (VM)~m_eq(v, v);
        }
    } else if (stride == 2) {
        for (ptrdiff_t x = 0; x < width; x += 2 * LANES) {
            const V v = NAME(load)(row + x, width - x, fill),
                    next = NAME(load_part)(row + x + LANES, width - x - LANES, fill);
            v_store(even + x / 2, v_evens(v, next));
            v_store(odd + x / 2, v_odds(v, next));
            nan |= (VM)~m_eq(v + next, v + next); /* inf - inf as well: a false alarm */
        }
    } else {
        for (ptrdiff_t k = 0; k < a->phases; k++) {
            T *phase = phases + k * a->span;
            for (ptrdiff_t x = a->phases == stride ? k : p->taps[k].residue; x < width; x += stride) *phase++ = row[x];
        }
        return 1;
    }
    return m_any(nan);
}

/* ---- forward ---- */

/* Combine input rows into one, or into nothing but the identity. */
ALWAYS_INLINE void NAME(combine_rows)(const NAME(pool) *p, const S *plane, NAME(rows) rows, T *row, V (*point)(V, V))
{
    const xent_window *w = &p->a->window;
    const ptrdiff_t step = w->dilation_h * w->width, n = rows.high - rows.low;
    const V start = NAME(set)(p->identity);
    for (ptrdiff_t x = 0; x < w->width; x += LANES) {
        const S *in = plane + rows.y * w->width + x;
        V v = start;
        for (ptrdiff_t i = 0; i < n; i++) v = point(v, NAME(load)(in + i * step, w->width - x, start));
        v_store(row + x, v);
    }
}

/* `taps` and `average` are constants at most calls. */
ALWAYS_INLINE void NAME(combine_taps)(const NAME(pool) *p, ptrdiff_t oh, S *out, ptrdiff_t taps, int average)
{
    const xent_pool_args *a = p->a;
    const V start = NAME(set)(p->identity), rows = average ? NAME(set)(NAME(count_rows)(a, oh)) : start;
    for (ptrdiff_t ow = 0; ow < a->window.out_w; ow += LANES) {
        V v = start;
        for (ptrdiff_t j = 0; j < taps; j++) {
            const V seen = v_load(p->phases + p->taps[j].at + ow);
            v = average ? v + seen : NAME(max_point)(v, seen);
        }
        NAME(store)(out + ow, average ? v / (rows * v_load(p->counts + ow)) : v, a->window.out_w - ow);
    }
}

ALWAYS_INLINE void NAME(pool_forward)(const xent_pool_args *a, ptrdiff_t chunk, void *scratch, int average)
{
    const xent_window *w = &a->window;
    const ptrdiff_t begin = chunk * a->chunk, end = xent_min(begin + a->chunk, a->planes);
    const NAME(pool) p = NAME(pool_open)(a, scratch, average ? 0 : (T)-INFINITY);
    T *row = w->stride_w == 1 ? p.phases : p.line;
    if (average) NAME(set_counts)(&p);
    for (ptrdiff_t plane = begin; plane < end; plane++) {
        const S *x = (const S *)a->x + plane * w->height * w->width;
        S *out = (S *)a->out + plane * w->out_h * w->out_w;
        for (ptrdiff_t oh = 0; oh < w->out_h; oh++, out += w->out_w) {
            NAME(combine_rows)(&p, x, NAME(rows_of)(w, oh), row, average ? NAME(add_point) : NAME(max_point));
            if (row == p.line) NAME(split_row)(&p, row, p.phases);
            switch (a->taps) {
            case 2: NAME(combine_taps)(&p, oh, out, 2, average); break;
            case 3: NAME(combine_taps)(&p, oh, out, 3, average); break;
            default: NAME(combine_taps)(&p, oh, out, a->taps, average);
            }
        }
    }
}

static void NAME(max_pool2d)(const void *args, ptrdiff_t chunk, void *scratch)
{
    NAME(pool_forward)(args, chunk, scratch, 0);
}
static void NAME(avg_pool2d)(const void *args, ptrdiff_t chunk, void *scratch)
{
    NAME(pool_forward)(args, chunk, scratch, 1);
}

#endif
