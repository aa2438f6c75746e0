/* im2col.h: rows of the im2col matrix, gathered and scattered, an output row at a time. These pieces are short: what is
 * left over after whole vectors is copied as one more vector, which ends with the piece and overlaps the one before. */
#include "begin.h"
#include "images/window.h"
#include "simd/stored.h"
#include "table.h"

#if !defined(XENT_IM2COL_H) && !defined(STORED_AS_16)
#define XENT_IM2COL_H

/* to[k] = from[k * stride] for k < n. `stride` is a constant where it is 1 or 2. */
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

/* to[k * stride] += from[k] for k < n. With stride 2, 0 is added to the numbers between; no sum that began with 0 is
 * -0. */
ALWAYS_INLINE void NAME(give)(T *to, const T *from, ptrdiff_t n, ptrdiff_t stride)
{
    const V zero = {0};
    if (stride == 1) {
        for (ptrdiff_t k = 0; k < n; k += LANES)
            NAME(store)(to + k, NAME(load)(to + k, n - k, zero) + NAME(load)(from + k, n - k, zero), n - k);
    } else if (stride == 2) {
        for (ptrdiff_t k = 0; k < n; k += LANES) {
            const ptrdiff_t low = 2 * (n - k) - 1, high = low - LANES;
            const V v = NAME(load)(from + k, n - k, zero);
            T *target = to + 2 * k;
            NAME(store)(target, NAME(load)(target, low, zero) + v_zip_lo(v, zero), low);
            NAME(store_part)(target + LANES, NAME(load_part)(target + LANES, high, zero) + v_zip_hi(v, zero), high);
        }
    } else {
        for (ptrdiff_t k = 0; k < n; k++) to[k * stride] += from[k];
    }
}

/* Zeros where a piece does not see the image, or a little further. */
ALWAYS_INLINE void NAME(clear_edges)(T *row, xent_piece piece)
{
    const V zero = {0};
    if (piece.n < LANES) {
        NAME(store_part)(row, zero, piece.n);
        return;
    }
    for (ptrdiff_t k = 0; k < piece.low; k += LANES) v_store(row + xent_min(k, piece.n - LANES), zero);
    for (ptrdiff_t k = piece.high; k < piece.n; k += LANES) v_store(row + xent_min(k, piece.n - LANES), zero);
}

/* row[k] = the input under offset (i, j) at output pixel k, 0 outside the image. */
ALWAYS_INLINE void NAME(gather_pieces)(const xent_window *w, const S *image, xent_view view, S *row, ptrdiff_t stride)
{
    for (ptrdiff_t oh = 0; oh < w->out_h; oh++, row += w->out_w) {
        const xent_piece piece = xent_piece_at(w, &view, oh);
        if (piece.low > 0 || piece.high < piece.n) NAME(clear_edges)(row, piece);
        NAME(take)(row + piece.low, image + piece.source, piece.high - piece.low, stride);
    }
}

/* The transpose: add row[k] to the input pixel that it came from. */
ALWAYS_INLINE void NAME(scatter_pieces)(const xent_window *w, S *image, xent_view view, const S *row, ptrdiff_t stride)
{
    for (ptrdiff_t oh = 0; oh < w->out_h; oh++, row += w->out_w) {
        const xent_piece piece = xent_piece_at(w, &view, oh);
        NAME(give)(image + piece.source, row + piece.low, piece.high - piece.low, stride);
    }
}

/* A chunk is one channel of one image. */
static void NAME(im2col)(const void *args, ptrdiff_t chunk, void *scratch)
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
        case 1: NAME(gather_pieces)(w, image, view, row, 1); break;
        case 2: NAME(gather_pieces)(w, image, view, row, 2); break;
        default: NAME(gather_pieces)(w, image, view, row, w->stride_w);
        }
    }
}

static void NAME(col2im)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_im2col_args *a = (const xent_im2col_args *)args;
    const xent_window *w = &a->window;
    const ptrdiff_t offsets = w->kernel_h * w->kernel_w, pixels = w->out_h * w->out_w, size = w->height * w->width;
    const S *row = (const S *)a->x + chunk * offsets * pixels;
    S *image = (S *)a->out + chunk * size;
    (void)scratch;
    memset(image, 0, (size_t)size * sizeof(S));
    for (ptrdiff_t k = 0; k < offsets; k++, row += pixels) {
        const xent_view view = xent_view_of(w, k / w->kernel_w, k % w->kernel_w);
        switch (w->stride_w) {
        case 1: NAME(scatter_pieces)(w, image, view, row, 1); break;
        case 2: NAME(scatter_pieces)(w, image, view, row, 2); break;
        default: NAME(scatter_pieces)(w, image, view, row, w->stride_w);
        }
    }
}

#endif
