/* patch.h: fills the patches of layout.h, and the tables of offsets that go with them. Included once per real type. */

/* to[k] = row[start + k * step] for k < n, 0 where that is outside [0, width) or there is no row. Vectors may be written behind
 * the end of `to`, and read up to `end`. */
ALWAYS_INLINE void NAME(copy_run)(T *to, const T *row, const T *end, ptrdiff_t width, ptrdiff_t start, ptrdiff_t step, ptrdiff_t n)
{
    const V zero = {0};
    const ptrdiff_t low = row ? xent_least(n, xent_count_below(start, step, 0)) : n;
    const ptrdiff_t high = row ? xent_least(n, xent_count_below(start, step, width)) : n;
    for (ptrdiff_t k = 0; k < low; k += LANES) v_store(to + k, zero);
    if (step == 1) {
        for (ptrdiff_t k = low; k < high; k += LANES) {
            const T *from = row + start + k;
            v_store(to + k, from + LANES <= end ? v_load(from) : v_load_n(from, end - from, zero));
        }
    } else {
        for (ptrdiff_t k = low; k < high; k++) to[k] = row[start + k * step];
    }
    for (ptrdiff_t k = high; k < n; k += LANES) v_store(to + k, zero);
}

/* One image and channel of a patch. */
ALWAYS_INLINE void NAME(fill_plane)(const xent_window *w, const xent_tile *t, const xent_patch *g, const T *plane, const T *end, T *to)
{
    const ptrdiff_t y0 = t->rows.begin * w->stride_h - w->top, x0 = t->columns.begin * w->stride_w - w->left;
    if (w->stride_h == 1 && w->stride_w == 1 && x0 == 0 && g->columns.length == w->width && y0 >= 0 &&
        y0 + g->rows.length <= w->height) { /* whole rows without padding: one run */
        const ptrdiff_t n = g->rows.length * w->width;
        NAME(copy_run)(to, plane + y0 * w->width, end, n, 0, 1, n);
        return;
    }
    for (ptrdiff_t f = 0; f < g->rows.phases; f++) {
        for (ptrdiff_t r = 0; r < g->rows.length; r++) {
            const ptrdiff_t y = y0 + f * w->dilation_h % w->stride_h + r * w->stride_h;
            const T *row = y >= 0 && y < w->height ? plane + y * w->width : NULL;
            for (ptrdiff_t e = 0; e < g->columns.phases; e++, to += g->columns.length)
                NAME(copy_run)(to, row, end, w->width, x0 + e * w->dilation_w % w->stride_w, w->stride_w, g->columns.length);
        }
    }
}

/* What a tile sees through a block of group `group`. */
static void NAME(fill_patch)(const xent_conv_args *a, const xent_tile *t, const xent_block *b, const xent_patch *g, ptrdiff_t group,
                             T *patch)
{
    const xent_window *w = &b->window;
    const ptrdiff_t size = w->height * w->width, all = a->groups * a->in_channels;
    const T *x = (const T *)a->x, *end = x + a->images * all * size;
    for (ptrdiff_t c = 0; c < b->channels.n; c++)
        for (ptrdiff_t m = 0; m < t->images.n; m++)
            NAME(fill_plane)(w, t, g, x + ((t->images.begin + m) * all + group * a->in_channels + b->channels.begin + c) * size, end,
                             patch + c * g->channel_step + m * g->image_step);
}
