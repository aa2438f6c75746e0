/* im2col.h: rows of the im2col matrix, gathered and scattered, an output row at a time. These pieces are short: what is
 * left over after whole vectors is copied as one more vector, which ends with the piece and overlaps the one before.
 * 16-bit floats are copied as they are, and added up as floats. */
#include "begin.h"
#include "images/layout.h"
#include "images/window.h"
#include "simd/stored.h"
#include "table.h"

#ifndef XENT_IM2COL_H
#define XENT_IM2COL_H

/* to[k] = from[k * stride] for k < n. `stride` is a constant where it is 1 or 2. */
#ifdef STORED_AS_16
ALWAYS_INLINE void KERNEL(take)(T *to, const S *from, ptrdiff_t n, ptrdiff_t stride)
{
    const V zero = {0};
    ptrdiff_t k = 0;
    if (stride == 1) {
        for (; k + LANES < n; k += LANES) v_store(to + k, KERNEL(load)(from + k, LANES, zero));
        if (n >= LANES)
            v_store(to + n - LANES, KERNEL(load)(from + n - LANES, LANES, zero)); /* may overlap */
        else if (n > 0)
            NAME(store)(to, KERNEL(load)(from, n, zero), n);
        return;
    }
    if (stride == 2) /* nothing after the last number is read */
        for (; k + LANES < n; k += LANES)
            v_store(to + k,
                    v_evens(KERNEL(load)(from + 2 * k, LANES, zero), KERNEL(load)(from + 2 * k + LANES, LANES, zero)));
    for (; k < n; k += LANES) {
        S some[LANES] = {0};
        const ptrdiff_t rest = xent_min(LANES, n - k);
        for (ptrdiff_t i = 0; i < rest; i++) some[i] = from[(k + i) * stride];
        NAME(store)(to + k, KERNEL(load)(some, LANES, zero), rest);
    }
}

/* The same numbers as they are stored, `step` at a time; the last may overlap. */
#define COPY_BY(step)                                                                                                  \
    if (n >= (step)) {                                                                                                 \
        for (ptrdiff_t k = 0; k < n; k += (step))                                                                      \
            memcpy(to + xent_min(k, n - (step)), from + xent_min(k, n - (step)), (step) * sizeof(S));                  \
        return;                                                                                                        \
    }

ALWAYS_INLINE void KERNEL(copy)(S *to, const S *from, ptrdiff_t n, ptrdiff_t stride)
{
    if (stride == 1) {
        COPY_BY(16)
        COPY_BY(8)
        COPY_BY(4)
    }
    for (ptrdiff_t k = 0; k < n; k++) to[k] = from[k * stride];
}
#undef COPY_BY
#else
ALWAYS_INLINE void NAME(take)(T *to, const T *from, ptrdiff_t n, ptrdiff_t stride)
{
    const V zero = {0};
    ptrdiff_t k = 0;
    if (stride == 1 && n >= LANES) {
        for (; k + LANES < n; k += LANES) v_store(to + k, v_load(from + k));
        v_store(to + n - LANES, v_load(from + n - LANES));
    } else if (stride == 1) {
        NAME(store_part)(to, NAME(load_part)(from, n, zero), n);
    } else if (stride == 2 && n > LANES) {
        for (; k + LANES < n; k += LANES) v_store(to + k, v_evens(v_load(from + 2 * k), v_load(from + 2 * k + LANES)));
        from += 2 * (n - LANES) - 1; /* nothing after the last number is read */
        v_store(to + n - LANES, v_odds(v_load(from), v_load(from + LANES)));
    } else if (stride == 2) {
        const V low = NAME(load_part)(from, 2 * n - 1, zero),
                high = NAME(load_part)(from + LANES, 2 * n - 1 - LANES, zero);
        NAME(store_part)(to, v_evens(low, high), n);
    } else {
        for (; k < n; k++) to[k] = from[k * stride];
    }
}

ALWAYS_INLINE void NAME(copy)(T *to, const T *from, ptrdiff_t n, ptrdiff_t stride) { NAME(take)(to, from, n, stride); }
#endif

/* to[k * stride] += from[k] for k < n; what follows may be read up to `end`. With stride 2, 0 is added to the numbers
 * between; no sum that began with 0 is -0. */
ALWAYS_INLINE void KERNEL(give)(T *to, const S *from, const S *end, ptrdiff_t n, ptrdiff_t stride)
{
    const V zero = {0};
    if (stride == 1) {
        for (ptrdiff_t k = 0; k < n; k += LANES)
            NAME(store)(to + k, NAME(load)(to + k, n - k, zero) + KERNEL(load)(from + k, end - from - k, zero), n - k);
    } else if (stride == 2) {
        for (ptrdiff_t k = 0; k < n; k += LANES) {
            const ptrdiff_t low = 2 * (n - k) - 1, high = low - LANES;
            const V v = KERNEL(load)(from + k, end - from - k, zero);
            T *target = to + 2 * k;
            NAME(store)(target, NAME(load)(target, low, zero) + v_zip_lo(v, zero), low);
            NAME(store_part)(target + LANES, NAME(load_part)(target + LANES, high, zero) + v_zip_hi(v, zero), high);
        }
    } else {
        for (ptrdiff_t k = 0; k < n; k++) to[k * stride] += KERNEL(get)(from + k);
    }
}

/* to[k] = from[k] for k < n. The last vector may overlap. */
ALWAYS_INLINE void KERNEL(put_run)(S *to, const T *from, ptrdiff_t n)
{
    ptrdiff_t k = 0;
    for (; k + LANES < n; k += LANES) KERNEL(store)(to + k, v_load(from + k), LANES);
    if (n >= LANES)
        KERNEL(store)(to + n - LANES, v_load(from + n - LANES), LANES);
    else if (n > 0)
        KERNEL(store)(to, NAME(load)(from, n, (V){0}), n);
}

/* Zeros where a piece does not see the image, or a little further. */
ALWAYS_INLINE void KERNEL(clear_edges)(S *row, xent_piece piece)
{
    const V zero = {0};
    if (piece.n < LANES) {
        KERNEL(store)(row, zero, piece.n);
        return;
    }
    for (ptrdiff_t k = 0; k < piece.low; k += LANES) KERNEL(store)(row + xent_min(k, piece.n - LANES), zero, LANES);
    for (ptrdiff_t k = piece.high; k < piece.n; k += LANES)
        KERNEL(store)(row + xent_min(k, piece.n - LANES), zero, LANES);
}

/* row[k] = the input under offset (i, j) at output pixel k, 0 outside the image. */
ALWAYS_INLINE void KERNEL(gather_pieces)(const xent_window *w, const S *image, xent_view view, S *row, ptrdiff_t stride)
{
    for (ptrdiff_t oh = 0; oh < w->out_h; oh++, row += w->out_w) {
        const xent_piece piece = xent_piece_at(w, &view, oh);
        if (piece.low > 0 || piece.high < piece.n) KERNEL(clear_edges)(row, piece);
        KERNEL(copy)(row + piece.low, image + piece.source, piece.high - piece.low, stride);
    }
}

/* A chunk is one channel of one image. */
static void KERNEL(im2col)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_im2col_args *a = (const xent_im2col_args *)args;
    const xent_window *w = &a->window;
    const ptrdiff_t offsets = w->kernel_h * w->kernel_w, pixels = w->out_h * w->out_w;
    const S *image = (const S *)a->x + chunk * w->height * w->width;
    S *row = (S *)a->out + chunk * offsets * pixels;
    (void)scratch;
    for (ptrdiff_t k = 0; k < offsets; k++, row += pixels) {
        const xent_view view = xent_view_of(w, k / w->kernel_w, k % w->kernel_w);
        switch (w->stride_w) {
        case 1: KERNEL(gather_pieces)(w, image, view, row, 1); break;
        case 2: KERNEL(gather_pieces)(w, image, view, row, 2); break;
        default: KERNEL(gather_pieces)(w, image, view, row, w->stride_w);
        }
    }
}

/* The transpose, for a box of the image: add the numbers of a row of the matrix to the sums of the pixels that they came
 * from. `columns` are the numbers of a row of the box. */
ALWAYS_INLINE void KERNEL(scatter_pieces)(const xent_im2col_args *a, xent_span rows, xent_span columns, xent_view view,
                                          const S *row, const S *end, T *sums, ptrdiff_t stride)
{
    const xent_window *w = &a->window;
    const ptrdiff_t low = xent_min(w->out_w, xent_count_below(view.x, stride, columns.begin));
    const ptrdiff_t high = xent_min(w->out_w, xent_count_below(view.x, stride, columns.begin + columns.n));
    const ptrdiff_t last = xent_min(w->out_h, xent_count_below(view.y, w->stride_h, rows.begin + rows.n));
    sums += view.x + low * stride - columns.begin;
    for (ptrdiff_t oh = xent_count_below(view.y, w->stride_h, rows.begin); oh < last; oh++)
        KERNEL(give)(sums + (oh * w->stride_h + view.y - rows.begin) * columns.n, row + oh * w->out_w + low, end,
                     high - low, stride);
}

/* A chunk is one channel of one image. It is put together box by box: where it lies if its numbers are those computed
 * with and the box is as wide as the image; otherwise in scratch, and rounded once. */
static void KERNEL(col2im)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_im2col_args *a = (const xent_im2col_args *)args;
    const xent_window *w = &a->window;
    const ptrdiff_t offsets = w->kernel_h * w->kernel_w, pixels = w->out_h * w->out_w;
    const S *matrix = (const S *)a->x + chunk * offsets * pixels, *end = matrix + offsets * pixels;
    S *image = (S *)a->out + chunk * w->height * w->width;
    const int in_place = sizeof(S) == sizeof(T) && a->box_columns == w->width;
    const ptrdiff_t across = xent_ceil_div(w->width, a->box_columns),
                    boxes = across * xent_ceil_div(w->height, a->box_rows);
    for (ptrdiff_t box = 0; box < boxes; box++) {
        const xent_span rows = xent_cut(w->height, a->box_rows, box / across);
        const xent_span columns = xent_cut(w->width, a->box_columns, box % across);
        S *to = image + rows.begin * w->width + columns.begin;
        T *sums = in_place ? (T *)to : (T *)scratch;
        memset(sums, 0, (size_t)(rows.n * columns.n) * sizeof(T));
        for (ptrdiff_t k = 0; k < offsets; k++) {
            const xent_view view = xent_view_of(w, k / w->kernel_w, k % w->kernel_w);
            const S *row = matrix + k * pixels;
            switch (w->stride_w) {
            case 1: KERNEL(scatter_pieces)(a, rows, columns, view, row, end, sums, 1); break;
            case 2: KERNEL(scatter_pieces)(a, rows, columns, view, row, end, sums, 2); break;
            default: KERNEL(scatter_pieces)(a, rows, columns, view, row, end, sums, w->stride_w);
            }
        }
        for (ptrdiff_t r = 0; r < rows.n && !in_place; r++)
            KERNEL(put_run)(to + r * w->width, sums + r * columns.n, columns.n);
    }
}

#endif
