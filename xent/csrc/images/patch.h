/* patch.h: fills the patches of layout.h, and the tables of offsets that go with them. */
#include "begin.h"
#include "images/im2col.h"
#include "images/layout.h"
#include "images/window.h"

#ifndef XENT_PATCH_H
#define XENT_PATCH_H

/* Channels of an image that are fetched ahead: their rows are too short and too far apart for the processor to see a
 * stream. Measured: a pointwise convolution of 256 channels of 12 KiB gains an eighth. */
#define CHANNELS_AHEAD 4

/* to[k] = row[k * step] for low <= k < high, else 0, for k < n. Vectors may be written behind the end of `to`, and read
 * up to `end`. `plane` numbers further lies the next channel. */
ALWAYS_INLINE void KERNEL(copy_run)(T *to, const S *row, const S *end, ptrdiff_t step, ptrdiff_t low, ptrdiff_t high,
                                    ptrdiff_t n, ptrdiff_t plane)
{
    const V zero = {0};
    ptrdiff_t k = 0;
    for (; k < low; k += LANES) v_store(to + k, zero);
    if (step == 1) {
        const ptrdiff_t whole = xent_min(high, end - row - LANES + 1);
        for (k = low; k < whole; k += LANES) {
            __builtin_prefetch(row + k + CHANNELS_AHEAD * plane);
            v_store(to + k, KERNEL(load)(row + k, LANES, zero));
        }
        for (; k < high; k += LANES)
            v_store(to + k, KERNEL(load)(row + k, end - row - k, zero)); /* the array's last row */
    } else {
        KERNEL(take)(to + low, row + low * step, high - low, step);
    }
    for (k = high; k < n; k += LANES) v_store(to + k, zero);
}

#ifndef STORED_AS_16
/* to[k] = row[k * step] where `inside` says so, else 0, for a vector of k. `inside` is that of low <= k < high, or, for a
 * step of 2, of the two vectors that are read: nothing else is. */
ALWAYS_INLINE void NAME(copy_short_row)(T *to, const T *row, const VM inside[2], ptrdiff_t step)
{
    const V low = v_load_where(row, inside[0]);
    v_store(to, step == 1 ? low : v_evens(low, v_load_where(row + LANES, inside[1])));
}

/* Rows of a phase that are no longer than a vector: the first input that they see, at column `x`; of which rows are inside
 * the image, and the lanes that are. */
typedef struct {
    ptrdiff_t y, x, begin, end;
    VM inside[2];
} NAME(short_rows);

ALWAYS_INLINE NAME(short_rows) NAME(short_rows_of)(const xent_window *w, const xent_patch *g, ptrdiff_t y, ptrdiff_t x)
{
    const ptrdiff_t step = g->columns.stride, n = g->columns.length, rows = g->rows.length;
    const ptrdiff_t low = xent_min(n, xent_count_below(x, step, 0)),
                    high = xent_min(n, xent_count_below(x, step, w->width));
    const ptrdiff_t first = low * step, last = (high - 1) * step + 1;
    return (NAME(short_rows)){
        .y = y,
        .x = x,
        .begin = low < high ? xent_min(rows, xent_count_below(y, g->rows.stride, 0)) : rows,
        .end = low < high ? xent_min(rows, xent_count_below(y, g->rows.stride, w->height)) : rows,
        .inside = {NAME(first)(last) & ~NAME(first)(first), NAME(first)(last - LANES) & ~NAME(first)(first - LANES)}};
}

/* A store each. */
ALWAYS_INLINE void NAME(copy_short_rows)(const NAME(short_rows) *s, const xent_patch *g, ptrdiff_t width,
                                         const T *plane, T *to, ptrdiff_t step)
{
    const V zero = {0};
    const ptrdiff_t n = g->columns.length, down = g->rows.stride * width;
    const T *row = plane + (s->y + s->begin * g->rows.stride) * width + s->x;
    ptrdiff_t r = 0;
    for (; r < s->begin; r++, to += n) v_store(to, zero);
    for (; r < s->end; r++, to += n, row += down) NAME(copy_short_row)(to, row, s->inside, step);
    for (; r < g->rows.length; r++, to += n) v_store(to, zero);
}

/* Phases whose rows are prepared once for all planes: two of columns, of rows with strides up to 4. */
#define SHORT_PHASES 8

/* fill_planes for such rows, `step` apart, which is a constant. */
ALWAYS_INLINE void NAME(fill_short_planes)(const xent_window *w, const xent_tile *t, const xent_patch *g,
                                           const T *first, xent_span channels, ptrdiff_t all, T *patch,
                                           ptrdiff_t patch_step, ptrdiff_t step)
{
    const ptrdiff_t y = t->rows.begin * w->stride_h - w->top, x = t->columns.begin * w->stride_w - w->left;
    const ptrdiff_t size = w->height * w->width, phase = g->rows.length * g->columns.length;
    const ptrdiff_t phases = g->rows.phases * g->columns.phases;
    NAME(short_rows) rows[SHORT_PHASES];
    for (ptrdiff_t f = 0, k = 0; f < g->rows.phases; f++)
        for (ptrdiff_t e = 0; e < g->columns.phases; e++, k++)
            rows[k] =
                NAME(short_rows_of)(w, g, y + f * w->dilation_h % w->stride_h, x + e * w->dilation_w % w->stride_w);
    for (ptrdiff_t c = channels.begin; c < channels.begin + channels.n; c++) {
        T *to = patch + c * patch_step;
        for (ptrdiff_t m = 0; m < t->images.n; m++)
            for (ptrdiff_t k = 0; k < phases; k++, to += phase)
                NAME(copy_short_rows)(rows + k, g, w->width, first + (m * all + c) * size, to, step);
    }
}
#endif

/* One image and channel of a patch. */
ALWAYS_INLINE void KERNEL(fill_plane)(const xent_window *w, const xent_tile *t, const xent_patch *g, const S *plane,
                                      const S *end, T *to)
{
    const ptrdiff_t y0 = t->rows.begin * w->stride_h - w->top, x0 = t->columns.begin * w->stride_w - w->left;
    const ptrdiff_t n = g->columns.length, size = w->height * w->width;
    const ptrdiff_t down = g->rows.stride, across = g->columns.stride; /* from number to number of a phase */
    if (xent_is_whole(w, t, g)) {
        KERNEL(copy_run)(to, plane + y0 * w->width, end, 1, 0, g->rows.length * n, g->rows.length * n, size);
        return;
    }
    for (ptrdiff_t f = 0; f < g->rows.phases; f++) {
        for (ptrdiff_t e = 0; e < g->columns.phases; e++) {
            const ptrdiff_t x = e ? x0 + e * w->dilation_w % w->stride_w : x0; /* a division takes its time */
            const ptrdiff_t y = f ? y0 + f * w->dilation_h % w->stride_h : y0;
            const ptrdiff_t low = xent_min(n, xent_count_below(x, across, 0));
            const ptrdiff_t high = xent_min(n, xent_count_below(x, across, w->width));
            for (ptrdiff_t r = 0; r < g->rows.length; r++, to += n) {
                const ptrdiff_t row = y + r * down;
                if (row >= 0 && row < w->height)
                    KERNEL(copy_run)(to, plane + row * w->width + x, end, across, low, high, n, size);
                else
                    KERNEL(copy_run)(to, plane, end, 1, n, n, n, size);
            }
        }
    }
}

/* Some channels of a patch, `patch_step` apart. There are `all` channels of all groups. */
static void KERNEL(fill_planes)(const xent_window *w, const xent_tile *t, const xent_patch *g, const S *first,
                                const S *end, xent_span channels, ptrdiff_t all, T *patch, ptrdiff_t patch_step)
{
    const ptrdiff_t size = w->height * w->width;
#ifndef STORED_AS_16
    if (g->columns.length <= LANES && g->columns.stride <= 2 && !xent_is_whole(w, t, g) &&
        g->rows.phases * g->columns.phases <= SHORT_PHASES) {
        if (g->columns.stride == 1)
            NAME(fill_short_planes)(w, t, g, first, channels, all, patch, patch_step, 1);
        else
            NAME(fill_short_planes)(w, t, g, first, channels, all, patch, patch_step, 2);
        return;
    }
#endif
    for (ptrdiff_t c = channels.begin; c < channels.begin + channels.n; c++) {
        T *to = patch + c * patch_step;
        for (ptrdiff_t m = 0; m < t->images.n; m++)
            KERNEL(fill_plane)(w, t, g, first + (m * all + c) * size, end, to + m * g->image_step);
    }
}

/* The same where taps are apart: an im2col matrix, (channel, tap, image, row, column). */
static void KERNEL(fill_taps)(const xent_window *w, const xent_tile *t, const xent_patch *g, const S *first,
                              const S *end, xent_span channels, ptrdiff_t all, T *patch)
{
    const ptrdiff_t taps = w->kernel_h * w->kernel_w;
    for (ptrdiff_t i = 0, tap = 0; i < w->kernel_h; i++) {
        for (ptrdiff_t j = 0; j < w->kernel_w; j++, tap++) {
            const xent_window one = xent_one_tap(w, i, j);
            T *to = patch + tap * g->channel_step;
            KERNEL(fill_planes)(&one, t, g, first, end, channels, all, to, taps * g->channel_step);
            for (ptrdiff_t c = channels.begin; c < channels.begin + channels.n; c++)
                v_store(to + c * taps * g->channel_step + t->images.n * g->image_step,
                        (V){0}); /* lanes of no use: denormals would cost time */
        }
    }
}

#ifdef STORED_AS_16
/* Numbers of small images that are converted at a time, on the stack: 16 KiB. */
#define WIDENED_IMAGES 4096

/* The same from whole small images, each number of which is converted once: not for each tap, and not in rows that are less
 * than a vector. */
static void KERNEL(fill_widened)(const xent_window *w, const xent_tile *t, const xent_patch *g, const S *first,
                                 xent_span channels, ptrdiff_t all, T *patch, ptrdiff_t patch_step, int apart)
{
    const ptrdiff_t size = w->height * w->width, most = WIDENED_IMAGES / size;
    T wide[WIDENED_IMAGES];
    xent_tile some = *t;
    for (ptrdiff_t c = channels.begin; c < channels.begin + channels.n; c++) {
        T *to = patch + c * patch_step;
        for (ptrdiff_t m = 0; m < t->images.n; m += most, to += most * g->image_step) {
            some.images.n = xent_min(most, t->images.n - m);
            for (ptrdiff_t k = 0; k < some.images.n; k++)
                KERNEL(take)(wide + k * size, first + ((m + k) * all + c) * size, size, 1);
            const T *end = wide + some.images.n * size;
            if (apart)
                NAME(fill_taps)(w, &some, g, wide, end, (xent_span){0, 1}, 1, to);
            else
                NAME(fill_planes)(w, &some, g, wide, end, (xent_span){0, 1}, 1, to, 0);
        }
    }
}

/* Whether that is worth it: the tile is whole images, and its rows are not read as they are. */
ALWAYS_INLINE int KERNEL(widens)(const xent_window *w, const xent_tile *t, const xent_patch *g, int apart)
{
    return w->height * w->width > 0 && w->height * w->width <= WIDENED_IMAGES && t->rows.n == w->out_h &&
           t->columns.n == w->out_w && (apart || (g->columns.length <= LANES && !xent_is_whole(w, t, g)));
}
#endif

/* Some channels of a patch, `patch_step` apart: see fill_planes. */
ALWAYS_INLINE void KERNEL(fill_seen)(const xent_window *w, const xent_tile *t, const xent_patch *g, const S *first,
                                     const S *end, xent_span channels, ptrdiff_t all, T *patch, ptrdiff_t patch_step)
{
#ifdef STORED_AS_16
    if (KERNEL(widens)(w, t, g, 0)) {
        KERNEL(fill_widened)(w, t, g, first, channels, all, patch, patch_step, 0);
        return;
    }
#endif
    KERNEL(fill_planes)(w, t, g, first, end, channels, all, patch, patch_step);
}

/* Whether sums are complete when they leave the registers, and of the type of the output. */
ALWAYS_INLINE int KERNEL(complete)(const xent_conv_args *a) { return sizeof(S) == sizeof(T) && xent_blocks(a) == 1; }

#ifndef STORED_AS_16
/* What the outputs of a tile see through step `k`, image after image, to panels (layout.h). */
ALWAYS_INLINE void NAME(spread)(const xent_lanes *l, ptrdiff_t most, ptrdiff_t image_step, ptrdiff_t depth, ptrdiff_t k,
                                const T *plane, T *patch)
{
    const ptrdiff_t vectors = xent_vectors_of(l), end = l->length - l->rest, last = l->direct ? l->length - LANES : end;
    const xent_heights h = xent_heights_of(vectors, most);
    T *seen = patch + vectors * depth * LANES + k;
    for (ptrdiff_t i = 0; i < l->rest; i++) seen[i * xent_rest_steps(depth, LANES)] = plane[end + i];
    for (ptrdiff_t b = 0, q = 0; b < h.blocks; b++) {
        const ptrdiff_t some = h.height + (b < h.taller);
        T *to = patch + k * some * LANES;
        for (ptrdiff_t v = 0; v < some; v++, q += LANES) {
            if (q >= end) q = 0, plane += image_step;
            v_store(to + v * LANES, v_load(plane + xent_min(q, last)));
        }
        patch += some * depth * LANES;
    }
}

/* Zeros behind the last step of a rest. */
ALWAYS_INLINE void NAME(clear_rest)(const xent_lanes *l, ptrdiff_t depth, T *patch)
{
    const ptrdiff_t whole = xent_rest_steps(depth, LANES);
    T *seen = patch + xent_vectors_of(l) * depth * LANES;
    for (ptrdiff_t i = 0; i < l->rest; i++)
        for (ptrdiff_t k = depth; k < whole; k++) seen[i * whole + k] = 0;
}

/* Some channels of a block in panels, from the image itself. */
ALWAYS_INLINE void NAME(spread_image)(const xent_conv_args *a, const xent_tile *t, const xent_block *b,
                                      const xent_lanes *l, const T *first, xent_span channels, ptrdiff_t all, T *patch)
{
    const xent_window *w = &b->window;
    const ptrdiff_t size = w->height * w->width;
    first += t->rows.begin * w->width + t->columns.begin;
    for (ptrdiff_t c = channels.begin; c < channels.begin + channels.n; c++)
        NAME(spread)(l, a->panels, all * size, b->depth, c, first + c * size, patch);
    if (channels.begin + channels.n == b->channels.n) NAME(clear_rest)(l, b->depth, patch);
}

/* What the outputs of a tile see through a tap, without gaps, from what they see through all of them. Vectors are written
 * behind the end of a row, before the next one is. */
ALWAYS_INLINE void NAME(copy_tap)(const xent_tile *t, const xent_patch *g, ptrdiff_t tap, const T *seen, T *plane)
{
    const ptrdiff_t columns = t->columns.n;
    for (ptrdiff_t m = 0; m < t->images.n; m++) {
        const T *row = seen + tap + xent_pixel_offset(g, m, 0);
        for (ptrdiff_t r = 0; r < t->rows.n; r++, row += g->columns.length, plane += columns)
            for (ptrdiff_t k = 0; k < columns; k += LANES) v_store(plane + k, v_load(row + k));
    }
}

/* The panels of a channel, `k` its first step, from what its outputs see: some taps at a time, so that rows are in a
 * cache when vectors of them are read, which a processor cannot take from several stores. */
static void NAME(spread_taps)(const xent_conv_args *a, const xent_tile *t, const xent_block *b, const xent_lanes *l,
                              const xent_patch *g, const T *seen, ptrdiff_t k, T *patch)
{
    const xent_window *w = &b->window;
    const ptrdiff_t taps = w->kernel_h * w->kernel_w, phase = g->rows.length * g->columns.length;
    const ptrdiff_t used = xent_tile_pixels(t), step = used + LANES, at_once = XENT_PLANES / step;
    T planes[XENT_PLANES];
    for (ptrdiff_t from = 0, some; from < taps; from += some) {
        some = xent_min(taps - from, at_once);
        for (ptrdiff_t i = 0; i < some; i++) {
            const ptrdiff_t row = (from + i) / w->kernel_w, column = (from + i) % w->kernel_w;
            NAME(copy_tap)(t, g, xent_tap_offset(&g->rows, &g->columns, phase, row, column), seen, planes + i * step);
            v_store(planes + i * step + used, (V){0}); /* lanes of no use: denormals would cost time */
        }
        for (ptrdiff_t i = 0; i < some; i++)
            NAME(spread)(l, a->panels, t->rows.n * t->columns.n, b->depth, k + from + i, planes + i * step, patch);
    }
}
#endif

/* Some channels of a block in panels, of which some are copied to the stack first. */
static void KERNEL(fill_panels)(const xent_conv_args *a, const xent_tile *t, const xent_block *b, const xent_patch *g,
                                const S *first, const S *end, xent_span channels, ptrdiff_t all, T *patch)
{
    const xent_window *w = &b->window;
    const xent_lanes l = xent_lanes_of(a, t, g, LANES, KERNEL(complete)(a));
    const xent_patch whole = xent_patch_of(a, w, t, sizeof(T));
    const ptrdiff_t taps = w->kernel_h * w->kernel_w, size = w->height * w->width, step = whole.channel_step;
    T seen[XENT_PLANES + LANES];
    if (sizeof(S) == sizeof(T) && xent_lies_in_panels(w, t, &l)) {
        NAME(spread_image)(a, t, b, &l, (const T *)first, channels, all, patch);
        return;
    }
    for (ptrdiff_t c = channels.begin, n; c < channels.begin + channels.n; c += n) {
        n = xent_min(XENT_PLANES / step, channels.begin + channels.n - c);
        KERNEL(fill_seen)(w, t, &whole, first + c * size, end, (xent_span){0, n}, all, seen, step);
        for (ptrdiff_t i = 0; i < n; i++)
            NAME(spread_taps)(a, t, b, &l, &whole, seen + i * step, (c + i) * taps, patch);
    }
    if (channels.begin + channels.n == b->channels.n) NAME(clear_rest)(&l, b->depth, patch);
}

/* What a tile sees through some channels of a block of group `group`. */
static void KERNEL(fill_channels)(const xent_conv_args *a, const xent_tile *t, const xent_block *b, const xent_patch *g,
                                  ptrdiff_t group, xent_span channels, T *patch)
{
    const xent_window *w = &b->window;
    const ptrdiff_t size = w->height * w->width, all = a->groups * a->in_channels;
    const S *x = (const S *)a->x, *end = x + a->images * all * size;
    const S *first = x + (t->images.begin * all + group * a->in_channels + b->channels.begin) * size;
    if (a->panels) KERNEL(fill_panels)(a, t, b, g, first, end, channels, all, patch);
#ifdef STORED_AS_16
    else if (a->taps_apart && KERNEL(widens)(w, t, g, 1))
        KERNEL(fill_widened)(w, t, g, first, channels, all, patch, w->kernel_h * w->kernel_w * g->channel_step, 1);
#endif
    else if (a->taps_apart)
        KERNEL(fill_taps)(w, t, g, first, end, channels, all, patch);
    else
        KERNEL(fill_seen)(w, t, g, first, end, channels, all, patch, g->channel_step);
}

ALWAYS_INLINE void KERNEL(fill_patch)(const xent_conv_args *a, const xent_tile *t, const xent_block *b,
                                      const xent_patch *g, ptrdiff_t group, T *patch)
{
    KERNEL(fill_channels)(a, t, b, g, group, (xent_span){0, b->channels.n}, patch);
}

#endif
