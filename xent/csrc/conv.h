/* conv.h: convolution forward and backward as matrix products over the im2col matrix, which never exists as a whole: a panel of
 * it, some rows by one block of output pixels, is gathered into this thread's scratch and used from the cache.
 *
 * For one image and group, with W (O, K), K = C kh kw, X = im2col(x) (K, P) and the output's gradient G (O, P):
 *
 *   forward       Y  = W X + bias            reduction over K, in blocks of REDUCTION rows
 *   grad_x        X' = W^T G                 then every row of X' is added to the pixels that it was gathered from
 *   grad_weight   W' = sum_images G X^T      reduction over pixels
 *   grad_bias     b' = sum_images,pixels G
 *
 * The order in which an element's terms are added depends on the shapes alone: chunks never share an output.
 */

/* A loop over register blocks must be unrolled whole, or the sums live on the stack. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* The register block of the product: ROWS x 2 vectors of sums, with room for two vectors of the panel and a broadcast. */
#if XENT_VBYTES == 64
#define ROWS 14
#elif XENT_VBYTES == 32
#define ROWS 6
#else
#define ROWS 4
#endif
#define COLUMNS (2 * LANES)

/* c[r][0:n] (+)= sum_k a(r, k) b[k][0:n] for r < rows <= ROWS, n <= COLUMNS; a(r, k) = a[r * a_row + k * a_column].
 * `rows` and `whole` (n == COLUMNS) are constants at every call. */
typedef struct {
    const T *a, *b;
    T *c;
    ptrdiff_t a_row, a_column, b_row, c_row, depth, n;
    int accumulate;  /* add to what is in c */
    int relu;
    const T *bias;   /* added last, one per row, or NULL */
} NAME(block);

ALWAYS_INLINE void NAME(product)(const NAME(block) *p, int rows, int whole)
{
    const V zero = {0};
    const ptrdiff_t n0 = whole ? LANES : xent_least(LANES, p->n), n1 = whole ? LANES : p->n - n0;
    V sum[ROWS][2];
    UNROLL
    for (int r = 0; r < rows; r++) {
        sum[r][0] = p->accumulate ? NAME(load)(p->c + r * p->c_row, n0, zero) : zero;
        sum[r][1] = p->accumulate && n1 ? NAME(load)(p->c + r * p->c_row + LANES, n1, zero) : zero;
    }
    const T *a = p->a, *b = p->b;
    for (ptrdiff_t k = 0; k < p->depth; k++) {
        const V b0 = NAME(load)(b, n0, zero), b1 = n1 ? NAME(load)(b + LANES, n1, zero) : zero;
        UNROLL
        for (int r = 0; r < rows; r++) {
            const V factor = NAME(set)(a[r * p->a_row]);
            sum[r][0] = v_fma(factor, b0, sum[r][0]);
            sum[r][1] = v_fma(factor, b1, sum[r][1]);
        }
        a += p->a_column;
        b += p->b_row;
    }
    UNROLL
    for (int r = 0; r < rows; r++) {
        for (int half = 0; half < 2; half++) {
            const ptrdiff_t n = half ? n1 : n0;
            V v = sum[r][half];
            if (p->bias) v = v + NAME(set)(p->bias[r]);
            if (p->relu) v = v_max(zero, v); /* NaN stays */
            if (n) NAME(store)(p->c + r * p->c_row + half * LANES, v, n);
        }
    }
}

/* Any number of rows up to ROWS, each a loop of its own with all sums in registers. */
static void NAME(product_rows)(const NAME(block) *p, ptrdiff_t rows)
{
    const int whole = p->n >= COLUMNS;
#define CASE(r)                                                                                                          \
    case r:                                                                                                              \
        if (whole)                                                                                                       \
            NAME(product)(p, r, 1);                                                                                      \
        else                                                                                                             \
            NAME(product)(p, r, 0);                                                                                      \
        break;
    switch (rows) {
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
#if ROWS > 4
        CASE(5)
        CASE(6)
#endif
#if ROWS > 6
        CASE(7)
        CASE(8)
        CASE(9)
        CASE(10)
        CASE(11)
        CASE(12)
        CASE(13)
        CASE(14)
#endif
    }
#undef CASE
}

/* The same for any number of rows and columns. */
static void NAME(multiply)(NAME(block) p, ptrdiff_t rows, ptrdiff_t columns)
{
    const NAME(block) origin = p;
    for (ptrdiff_t r = 0; r < rows; r += ROWS) {
        for (ptrdiff_t n = 0; n < columns; n += COLUMNS) {
            p.a = origin.a + r * p.a_row;
            p.b = origin.b + n;
            p.c = origin.c + r * p.c_row + n;
            p.bias = origin.bias ? origin.bias + r : NULL;
            p.n = xent_least(COLUMNS, columns - n);
            NAME(product_rows)(&p, xent_least(ROWS, rows - r));
        }
    }
}

/* A chunk is (image, group, range of output channels, block of pixels), the last fastest. */
static void NAME(conv2d)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_conv_args *a = (const xent_conv_args *)args;
    const xent_window *w = &a->window;
    const ptrdiff_t pixels = w->out_h * w->out_w, blocks = (pixels + a->pixel_chunk - 1) / a->pixel_chunk;
    const ptrdiff_t ranges = (a->out_channels + a->row_chunk - 1) / a->row_chunk;
    const ptrdiff_t begin = chunk % blocks * a->pixel_chunk, n = xent_least(a->pixel_chunk, pixels - begin);
    const ptrdiff_t first = chunk / blocks % ranges * a->row_chunk, rows = xent_least(a->row_chunk, a->out_channels - first);
    const ptrdiff_t group = chunk / blocks / ranges, g = group % a->groups; /* group counts (image, group) pairs */
    const ptrdiff_t depth = a->in_channels * w->kernel_h * w->kernel_w;
    const ptrdiff_t channel = g * a->out_channels + first;
    const S *x = (const S *)a->x + group * a->in_channels * w->height * w->width;
    NAME(block) p = {.a = (const T *)a->weight + channel * depth, .b = scratch, .a_row = depth, .a_column = 1,
                     .b_row = a->pixel_chunk, .c_row = pixels,
                     .c = (T *)a->out + (group * a->out_channels + first) * pixels + begin};
    for (ptrdiff_t k = 0; k < depth; k += REDUCTION) {
        const int last = k + REDUCTION >= depth;
        p.depth = xent_least(REDUCTION, depth - k);
        p.accumulate = k > 0;
        p.relu = last && a->relu;
        p.bias = last && a->bias ? (const T *)a->bias + channel : NULL;
        NAME(gather_rows)(w, x, k, k + p.depth, begin, begin + n, scratch, a->pixel_chunk);
        NAME(multiply)(p, rows, n);
        p.a += p.depth;
    }
}

/* A chunk is (image, group, range of input channels): no other chunk adds to these channels' pixels. */
static void NAME(conv2d_grad_x)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_conv_args *a = (const xent_conv_args *)args;
    const xent_window *w = &a->window;
    const ptrdiff_t offsets = w->kernel_h * w->kernel_w, depth = a->in_channels * offsets;
    const ptrdiff_t pixels = w->out_h * w->out_w, size = w->height * w->width;
    const ptrdiff_t ranges = (a->in_channels + a->row_chunk - 1) / a->row_chunk;
    const ptrdiff_t first = chunk % ranges * a->row_chunk, channels = xent_least(a->row_chunk, a->in_channels - first);
    const ptrdiff_t group = chunk / ranges, g = group % a->groups;
    S *target = (S *)a->out + (group * a->in_channels + first) * size;
    memset(target, 0, (size_t)(channels * size) * sizeof(S));
    NAME(block) p = {.a = (const T *)a->weight + g * a->out_channels * depth + first * offsets, .a_row = 1, .a_column = depth,
                     .c = scratch, .c_row = a->pixel_chunk, .b_row = pixels, .depth = a->out_channels};
    for (ptrdiff_t begin = 0; begin < pixels; begin += a->pixel_chunk) {
        const ptrdiff_t n = xent_least(a->pixel_chunk, pixels - begin);
        p.b = (const T *)a->grad + group * a->out_channels * pixels + begin;
        NAME(multiply)(p, channels * offsets, n);
        NAME(scatter_rows)(w, target, 0, channels * offsets, begin, begin + n, scratch, a->pixel_chunk);
    }
}

/* sums[r][q] += sum over images and pixels of a[r][p] b[q][p], for r < 4, q < 3: twelve dot products at once, so that each number
 * loaded is used several times. `rows` and `columns` are constants at every call. */
#define DOT_ROWS 4
#define DOT_COLUMNS 3
typedef struct {
    const T *a, *b;
    ptrdiff_t a_row, a_image, b_row, b_image, images, pixels;
    double *sums;
    ptrdiff_t sums_row;
} NAME(dots);

ALWAYS_INLINE void NAME(dot_block)(const NAME(dots) *d, int rows, int columns)
{
    const V zero = {0};
    V sum[DOT_ROWS][DOT_COLUMNS] = {{{0}}};
    for (ptrdiff_t image = 0; image < d->images; image++) {
        const T *a = d->a + image * d->a_image, *b = d->b + image * d->b_image;
        for (ptrdiff_t p = 0; p < d->pixels; p += LANES) {
            const ptrdiff_t n = xent_least(LANES, d->pixels - p);
            V factor[DOT_COLUMNS];
            UNROLL
            for (int q = 0; q < columns; q++) factor[q] = NAME(load)(b + q * d->b_row + p, n, zero);
            UNROLL
            for (int r = 0; r < rows; r++) {
                const V v = NAME(load)(a + r * d->a_row + p, n, zero);
                UNROLL
                for (int q = 0; q < columns; q++) sum[r][q] = v_fma(v, factor[q], sum[r][q]);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int q = 0; q < columns; q++) d->sums[r * d->sums_row + q] += (double)v_sum(sum[r][q]);
}

static void NAME(dot_products)(NAME(dots) d, ptrdiff_t rows, ptrdiff_t columns)
{
    const NAME(dots) origin = d;
    for (ptrdiff_t r = 0; r < rows; r += DOT_ROWS) {
        for (ptrdiff_t q = 0; q < columns; q += DOT_COLUMNS) {
            d.a = origin.a + r * d.a_row;
            d.b = origin.b + q * d.b_row;
            d.sums = origin.sums + r * d.sums_row + q;
            const ptrdiff_t m = xent_least(DOT_ROWS, rows - r), n = xent_least(DOT_COLUMNS, columns - q);
            switch (m * 4 + n) {
#define CASE(m, n)                                                                                                       \
    case m * 4 + n: NAME(dot_block)(&d, m, n); break;
                CASE(1, 1) CASE(1, 2) CASE(1, 3)
                CASE(2, 1) CASE(2, 2) CASE(2, 3)
                CASE(3, 1) CASE(3, 2) CASE(3, 3)
                CASE(4, 1) CASE(4, 2) CASE(4, 3)
#undef CASE
            }
        }
    }
}

/* A chunk is (range of images, group, range of rows of X), the last fastest. Several small images, or a block of one large one,
 * are gathered before the products, so that the sums stay in registers for about pixel_chunk terms. The chunk's sums go to
 * a->partial in double: (ranges of images, O, K). */
static void NAME(conv2d_grad_weight)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_conv_args *a = (const xent_conv_args *)args;
    const xent_window *w = &a->window;
    const ptrdiff_t depth = a->in_channels * w->kernel_h * w->kernel_w, pixels = w->out_h * w->out_w;
    const ptrdiff_t ranges = (depth + a->row_chunk - 1) / a->row_chunk;
    const ptrdiff_t first = chunk % ranges * a->row_chunk, rows = xent_least(a->row_chunk, depth - first);
    const ptrdiff_t g = chunk / ranges % a->groups, image_range = chunk / ranges / a->groups;
    const ptrdiff_t image_begin = image_range * a->image_chunk, image_end = xent_least(image_begin + a->image_chunk, a->images);
    const ptrdiff_t size = a->in_channels * w->height * w->width;
    const ptrdiff_t block = xent_least(a->pixel_chunk, pixels), together = xent_most(1, a->pixel_chunk / block);
    double *sums = a->partial + (image_range * a->groups + g) * a->out_channels * depth + first;
    for (ptrdiff_t o = 0; o < a->out_channels; o++) memset(sums + o * depth, 0, (size_t)rows * sizeof(double));
    NAME(dots) d = {.b = scratch, .a_row = pixels, .a_image = a->groups * a->out_channels * pixels, .b_row = block * together,
                    .b_image = block, .sums = sums, .sums_row = depth};
    for (ptrdiff_t image = image_begin; image < image_end; image += together) {
        d.images = xent_least(together, image_end - image);
        for (ptrdiff_t begin = 0; begin < pixels; begin += block) {
            d.pixels = xent_least(block, pixels - begin);
            for (ptrdiff_t k = 0; k < d.images; k++)
                NAME(gather_rows)(w, (const S *)a->x + ((image + k) * a->groups + g) * size, first, first + rows, begin,
                                  begin + d.pixels, (S *)scratch + k * block, d.b_row);
            d.a = (const T *)a->grad + (image * a->groups + g) * a->out_channels * pixels + begin;
            NAME(dot_products)(d, a->out_channels, rows);
        }
    }
}

/* A chunk is one output channel. */
static void NAME(conv2d_grad_bias)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_conv_args *a = (const xent_conv_args *)args;
    const ptrdiff_t pixels = a->window.out_h * a->window.out_w, channels = a->groups * a->out_channels;
    const V zero = {0};
    NAME(sum) sum = {{0}, {0}};
    (void)scratch;
    for (ptrdiff_t image = 0; image < a->images; image++) {
        const S *grad = (const S *)a->grad + (image * channels + chunk) * pixels;
        for (ptrdiff_t p = 0; p < pixels; p += LANES) NAME(sum_add)(&sum, NAME(load)(grad + p, pixels - p, zero));
    }
    ((T *)a->out)[chunk] = (T)NAME(sum_total)(&sum);
}

#undef ROWS
#undef COLUMNS
#undef DOT_ROWS
#undef DOT_COLUMNS
