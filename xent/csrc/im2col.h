/* im2col.h: rows of the im2col matrix, gathered and scattered. */

/* row[k] = the input under offset (i, j) at output pixel begin + k, 0 outside the image. */
static void NAME(gather_row)(const xent_window *w, const S *image, ptrdiff_t i, ptrdiff_t j, ptrdiff_t begin, ptrdiff_t end, S *row)
{
    while (begin < end) {
        const xent_piece piece = xent_next_piece(w, i, j, begin, end);
        const S *source = image + piece.source;
        for (ptrdiff_t k = 0; k < piece.low; k++) row[k] = 0;
        if (w->stride_w == 1)
            for (ptrdiff_t k = piece.low; k < piece.high; k++) row[k] = source[k - piece.low];
        else
            for (ptrdiff_t k = piece.low; k < piece.high; k++) row[k] = source[(k - piece.low) * w->stride_w];
        for (ptrdiff_t k = piece.high; k < piece.n; k++) row[k] = 0;
        row += piece.n;
        begin += piece.n;
    }
}

/* The transpose: add row[k] to the input pixel that it came from. */
static void NAME(scatter_row)(const xent_window *w, S *image, ptrdiff_t i, ptrdiff_t j, ptrdiff_t begin, ptrdiff_t end, const S *row)
{
    while (begin < end) {
        const xent_piece piece = xent_next_piece(w, i, j, begin, end);
        S *target = image + piece.source;
        if (w->stride_w == 1)
            for (ptrdiff_t k = piece.low; k < piece.high; k++) target[k - piece.low] += row[k];
        else
            for (ptrdiff_t k = piece.low; k < piece.high; k++) target[(k - piece.low) * w->stride_w] += row[k];
        row += piece.n;
        begin += piece.n;
    }
}

/* Rows [first, last) of the matrix of some channels, pixels [begin, end), into rows of `step` numbers. */
static void NAME(gather_rows)(const xent_window *w, const S *channels, ptrdiff_t first, ptrdiff_t last, ptrdiff_t begin,
                              ptrdiff_t end, S *rows, ptrdiff_t step)
{
    const ptrdiff_t offsets = w->kernel_h * w->kernel_w, pixels = w->height * w->width;
    for (ptrdiff_t k = first; k < last; k++) {
        const ptrdiff_t offset = k % offsets;
        NAME(gather_row)(w, channels + k / offsets * pixels, offset / w->kernel_w, offset % w->kernel_w, begin, end,
                         rows + (k - first) * step);
    }
}

static void NAME(scatter_rows)(const xent_window *w, S *channels, ptrdiff_t first, ptrdiff_t last, ptrdiff_t begin, ptrdiff_t end,
                               const S *rows, ptrdiff_t step)
{
    const ptrdiff_t offsets = w->kernel_h * w->kernel_w, pixels = w->height * w->width;
    for (ptrdiff_t k = first; k < last; k++) {
        const ptrdiff_t offset = k % offsets;
        NAME(scatter_row)(w, channels + k / offsets * pixels, offset / w->kernel_w, offset % w->kernel_w, begin, end,
                          rows + (k - first) * step);
    }
}

/* A chunk is one channel of one image. */
static void NAME(im2col)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_im2col_args *a = (const xent_im2col_args *)args;
    const xent_window *w = &a->window;
    const ptrdiff_t offsets = w->kernel_h * w->kernel_w, pixels = w->out_h * w->out_w;
    (void)scratch;
    NAME(gather_rows)(w, (const S *)a->x + chunk * w->height * w->width, 0, offsets, 0, pixels,
                      (S *)a->out + chunk * offsets * pixels, pixels);
}

static void NAME(col2im)(const void *args, ptrdiff_t chunk, void *scratch)
{
    const xent_im2col_args *a = (const xent_im2col_args *)args;
    const xent_window *w = &a->window;
    const ptrdiff_t offsets = w->kernel_h * w->kernel_w, pixels = w->out_h * w->out_w, size = w->height * w->width;
    S *image = (S *)a->out + chunk * size;
    (void)scratch;
    memset(image, 0, (size_t)size * sizeof(S));
    NAME(scatter_rows)(w, image, 0, offsets, 0, pixels, (const S *)a->x + chunk * offsets * pixels, pixels);
}
