/* pool.h: max and average pooling, a chunk of (image, channel) planes at a time.
 *
 * Design: the forward passes are separable. The input rows of a window are combined first, a whole row at a time in vectors; then
 * each output takes its few columns from that one row.
 */

/* The larger of both; NaN if one is: the comparison is false for a NaN in b, and a NaN in a is asked for. */
ALWAYS_INLINE V NAME(max_point)(V a, V b) { return v_select(m_eq(a, a), v_max(a, b), a); }
ALWAYS_INLINE V NAME(add_point)(V a, V b) { return a + b; }
ALWAYS_INLINE T NAME(max_scalar)(T a, T b) { return a > b || a != a ? a : b; }
ALWAYS_INLINE T NAME(add_scalar)(T a, T b) { return a + b; }

/* Combine the input rows of output row oh into `row`, `identity` where there are none. */
ALWAYS_INLINE void NAME(pool_rows)(const xent_window *w, const S *plane, ptrdiff_t oh, T *row, T identity, V (*point)(V, V))
{
    const ptrdiff_t y = oh * w->stride_h - w->top;
    const ptrdiff_t low = xent_first_inside(y, w->dilation_h), high = xent_end_inside(y, w->dilation_h, w->height, w->kernel_h);
    const V start = NAME(set)(identity);
    for (ptrdiff_t x = 0; x < w->width; x += LANES) {
        V v = start;
        for (ptrdiff_t i = low; i < high; i++)
            v = point(v, NAME(load)(plane + (y + i * w->dilation_h) * w->width + x, w->width - x, start));
        NAME(store)(row + x, v, w->width - x);
    }
}

ALWAYS_INLINE T NAME(pool_columns)(const xent_window *w, const T *row, ptrdiff_t ow, T identity, T (*scalar)(T, T))
{
    const ptrdiff_t x = ow * w->stride_w - w->left;
    const ptrdiff_t low = xent_first_inside(x, w->dilation_w), high = xent_end_inside(x, w->dilation_w, w->width, w->kernel_w);
    T value = identity;
    for (ptrdiff_t j = low; j < high; j++) value = scalar(value, row[x + j * w->dilation_w]);
    return value;
}

ALWAYS_INLINE T NAME(pool_divisor)(const xent_pool_args *a, ptrdiff_t oh, ptrdiff_t ow)
{
    const xent_window *w = &a->window;
    return (T)(xent_pool_extent(oh * w->stride_h - w->top, w->kernel_h, w->height, a->bottom, a->count_include_pad) *
               xent_pool_extent(ow * w->stride_w - w->left, w->kernel_w, w->width, a->right, a->count_include_pad));
}

/* `average` is a constant at every call. */
ALWAYS_INLINE void NAME(pool_forward)(const xent_pool_args *a, ptrdiff_t chunk, T *row, int average)
{
    const xent_window *w = &a->window;
    const ptrdiff_t size = w->height * w->width, pixels = w->out_h * w->out_w;
    const ptrdiff_t begin = chunk * a->chunk, end = xent_least(begin + a->chunk, a->planes);
    const T identity = average ? 0 : (T)-INFINITY;
    for (ptrdiff_t plane = begin; plane < end; plane++) {
        const S *x = (const S *)a->x + plane * size;
        S *out = (S *)a->out + plane * pixels;
        for (ptrdiff_t oh = 0; oh < w->out_h; oh++, out += w->out_w) {
            NAME(pool_rows)(w, x, oh, row, identity, average ? NAME(add_point) : NAME(max_point));
            for (ptrdiff_t ow = 0; ow < w->out_w; ow++) {
                const T v = NAME(pool_columns)(w, row, ow, identity, average ? NAME(add_scalar) : NAME(max_scalar));
                out[ow] = average ? v / NAME(pool_divisor)(a, oh, ow) : v;
            }
        }
    }
}

static void NAME(max_pool2d)(const void *args, ptrdiff_t chunk, void *scratch) { NAME(pool_forward)(args, chunk, scratch, 0); }
static void NAME(avg_pool2d)(const void *args, ptrdiff_t chunk, void *scratch) { NAME(pool_forward)(args, chunk, scratch, 1); }

/* Give the gradient of one output to the first maximum of its window, in scan order; the first NaN is larger than all. */
ALWAYS_INLINE void NAME(route_max)(const xent_window *w, const S *x, S *out, ptrdiff_t oh, ptrdiff_t ow, T g)
{
    const ptrdiff_t y = oh * w->stride_h - w->top, left = ow * w->stride_w - w->left;
    const ptrdiff_t i_end = xent_end_inside(y, w->dilation_h, w->height, w->kernel_h);
    const ptrdiff_t j_begin = xent_first_inside(left, w->dilation_w);
    const ptrdiff_t j_end = xent_end_inside(left, w->dilation_w, w->width, w->kernel_w);
    ptrdiff_t best = -1;
    for (ptrdiff_t i = xent_first_inside(y, w->dilation_h); i < i_end; i++) {
        for (ptrdiff_t j = j_begin; j < j_end; j++) {
            const ptrdiff_t k = (y + i * w->dilation_h) * w->width + left + j * w->dilation_w;
            if (best < 0 || (x[best] == x[best] && !(x[k] <= x[best]))) best = k;
        }
    }
    if (best >= 0) out[best] += g; /* a window of padding only has no maximum */
}

ALWAYS_INLINE void NAME(spread_mean)(const xent_pool_args *a, S *out, ptrdiff_t oh, ptrdiff_t ow, T g)
{
    const xent_window *w = &a->window;
    const ptrdiff_t y = oh * w->stride_h - w->top, left = ow * w->stride_w - w->left;
    const ptrdiff_t y_end = xent_least(y + w->kernel_h, w->height), x_end = xent_least(left + w->kernel_w, w->width);
    const T share = g / NAME(pool_divisor)(a, oh, ow);
    for (ptrdiff_t i = xent_most(y, 0); i < y_end; i++)
        for (ptrdiff_t j = xent_most(left, 0); j < x_end; j++) out[i * w->width + j] += share;
}

ALWAYS_INLINE void NAME(pool_backward)(const xent_pool_args *a, ptrdiff_t chunk, int average)
{
    const xent_window *w = &a->window;
    const ptrdiff_t size = w->height * w->width, pixels = w->out_h * w->out_w;
    const ptrdiff_t begin = chunk * a->chunk, end = xent_least(begin + a->chunk, a->planes);
    for (ptrdiff_t plane = begin; plane < end; plane++) {
        const S *grad = (const S *)a->grad + plane * pixels;
        S *out = (S *)a->out + plane * size;
        memset(out, 0, (size_t)size * sizeof(S));
        for (ptrdiff_t oh = 0; oh < w->out_h; oh++)
            for (ptrdiff_t ow = 0; ow < w->out_w; ow++)
                if (average)
                    NAME(spread_mean)(a, out, oh, ow, grad[oh * w->out_w + ow]);
                else
                    NAME(route_max)(w, (const S *)a->x + plane * size, out, oh, ow, grad[oh * w->out_w + ow]);
    }
}

static void NAME(max_pool2d_backward)(const void *args, ptrdiff_t chunk, void *scratch)
{
    (void)scratch;
    NAME(pool_backward)((const xent_pool_args *)args, chunk, 0);
}

static void NAME(avg_pool2d_backward)(const void *args, ptrdiff_t chunk, void *scratch)
{
    (void)scratch;
    NAME(pool_backward)((const xent_pool_args *)args, chunk, 1);
}
