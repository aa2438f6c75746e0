/* pool.h: max and average pooling, a chunk of (image, channel) planes at a time.
 *
 * Design: vectors run along the outputs of a row, for every stride. A row of the image is split into phases in scratch,
 *
 *   phase c of a row:  row[c], row[c + stride], row[c + 2 stride], ...    with the padding's value before and behind
 *
 * so that neighbouring windows find what they see in their column j (a "tap") at neighbouring places of one phase: a plain load,
 * and no edges to care for. Columns of the kernel that see no part of the image from any window are left out. The backward
 * passes go the other way: what each phase of an input row receives is added up in registers, and the phases are interleaved.
 *
 *   forward        combine the input rows of an output row, split the result, combine its taps
 *   max backward   split the input rows, HELD at a time, remember for each output its first maximum so far and where that is;
 *                  then each input row takes the gradients of the outputs whose maximum it holds
 *   avg backward   spread gradient / count over the columns once, and add that to each input row of the output row
 *
 * An input row is written when the first output row reaches it, and added to by later ones.
 */

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
    I *first;             /* max: where the first cell of a window inside the image is, from the window's first column; or none */
    T *best;              /* max backward: the largest so far of every output's window */
    I *place;             /* and where: (rows from the window's first) * width + columns from its first */
    T *grad;              /* gradients of the output row (avg: shares), 0 before and behind */
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
    NAME(pool) p = {.a = a, .taps = taps, .by_residue = sorted, .identity = identity, .line = rest,
                    .phases = rest + a->line + a->before, .counts = rows, .first = (I *)rows, .best = rows + a->span,
                    .place = (I *)rows + 2 * a->span, .grad = rows + 3 * a->span + a->after};
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
        p->counts[ow] = (T)xent_pool_extent(ow * w->stride_w - w->left, w->kernel_w, w->width, a->right, a->count_include_pad);
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

/* The input rows of output row oh that are inside the image: [low, high) of the kernel; the first one's number is `y`. */
typedef struct {
    ptrdiff_t low, high, y;
} NAME(rows);
ALWAYS_INLINE NAME(rows) NAME(rows_of)(const xent_window *w, ptrdiff_t oh)
{
    const ptrdiff_t start = oh * w->stride_h - w->top, low = xent_first_inside(start, w->dilation_h);
    return (NAME(rows)){low, xent_end_inside(start, w->dilation_h, w->height, w->kernel_h), start + low * w->dilation_h};
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
            const V v = NAME(load)(row + x, width - x, fill), next = NAME(load_part)(row + x + LANES, width - x - LANES, fill);
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

/* ---- forward ------------------------------------------------------------------------------------------------------------- */

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
    const ptrdiff_t begin = chunk * a->chunk, end = xent_least(begin + a->chunk, a->planes);
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

static void NAME(max_pool2d)(const void *args, ptrdiff_t chunk, void *scratch) { NAME(pool_forward)(args, chunk, scratch, 0); }
static void NAME(avg_pool2d)(const void *args, ptrdiff_t chunk, void *scratch) { NAME(pool_forward)(args, chunk, scratch, 1); }

/* ---- backward ------------------------------------------------------------------------------------------------------------ */

/* Return whether input row y was reached before; if not, rows before it that were not are set to 0. */
ALWAYS_INLINE int NAME(reached)(const xent_window *w, S *out, ptrdiff_t *done, ptrdiff_t y)
{
    if (y < *done) return 1;
    for (T *t = out + *done * w->width; t < out + y * w->width; t++) *t = 0;
    *done = y + 1;
    return 0;
}

/* What LANES pixels from element q of a phase on receive through `n` taps: from the outputs whose place is `start` and the
 * tap, or (avg) from all. */
ALWAYS_INLINE V NAME(merge_at)(const T *grad, const I *places, ptrdiff_t q, I start, const xent_tap *tap, ptrdiff_t n,
                               int average)
{
    V sum = {0};
    for (ptrdiff_t j = 0; j < n; j++) {
        const VI place = NAME(iset)(start + (I)tap[j].offset);
        const V g = v_load(grad + q - tap[j].shift);
        sum = sum + (average ? g : (V)((VI)g & (NAME(load_index)(places + q - tap[j].shift) == place)));
    }
    return sum;
}

/* Send the gradients of an output row to an input row, whose place is `start`; `add` says whether it was reached before. For
 * strides 1 and 2. `stride`, `taps`, `even`, `add` and `average` are constants at most calls, and the taps in registers. */
ALWAYS_INLINE void NAME(merge_taps)(const NAME(pool) *p, const xent_tap *tap, T *row, I start, ptrdiff_t stride, ptrdiff_t taps,
                                    ptrdiff_t even, int add, int average)
{
    const ptrdiff_t width = p->a->window.width;
    const T *grad = p->grad;
    const I *places = p->place;
    const V zero = {0};
    for (ptrdiff_t q = 0, here = width; here > 0; q += LANES, row += stride * LANES, here -= stride * LANES) {
        const ptrdiff_t there = here - LANES;
        V low = NAME(merge_at)(grad, places, q, start, tap, even, average), high = low;
        if (stride == 2) {
            const V odds = NAME(merge_at)(grad, places, q, start, tap + even, taps - even, average);
            high = v_zip_hi(low, odds);
            low = v_zip_lo(low, odds);
        }
        if (here >= stride * LANES) {
            v_store(row, add ? low + v_load(row) : low);
            if (stride == 2) v_store(row + LANES, add ? high + v_load(row + LANES) : high);
        } else {
            NAME(store)(row, add ? low + NAME(load)(row, here, zero) : low, here);
            if (stride == 2) NAME(store_part)(row + LANES, add ? high + NAME(load_part)(row + LANES, there, zero) : high, there);
        }
    }
}

static void NAME(merge_row)(const NAME(pool) *p, T *row, I start, int add)
{
    const ptrdiff_t stride = p->a->window.stride_w;
#define CASE(step, columns, even_columns)                                                                                \
    if (stride == step && p->a->taps == columns && p->even == even_columns) {                                            \
        const xent_tap few[] = {p->by_residue[0], p->by_residue[1], p->by_residue[columns - 1]};                         \
        if (add)                                                                                                         \
            NAME(merge_taps)(p, few, row, start, step, columns, even_columns, 1, 0);                                     \
        else                                                                                                             \
            NAME(merge_taps)(p, few, row, start, step, columns, even_columns, 0, 0);                                     \
        return;                                                                                                          \
    }
    CASE(2, 2, 1)
    CASE(2, 3, 1)
    CASE(2, 3, 2)
    CASE(1, 3, 3)
#undef CASE
    NAME(merge_taps)(p, p->by_residue, row, start, stride, p->a->taps, p->even, add, 0);
}

/* Look for a larger element in `n` rows, of which the first is at `start` and in `phases[0]`. What is not larger than the best so
 * far, or comes after a NaN, stays behind it: the first maximum in scan order wins. Padding, -inf, never replaces the first cell
 * inside the image, where the search begins. `n`, `taps` and `nan` are constants at most calls. */
ALWAYS_INLINE void NAME(find_best)(const NAME(pool) *p, const xent_tap *tap, T *const *phases, I start, int begin, ptrdiff_t n,
                                   ptrdiff_t taps, int nan)
{
    const ptrdiff_t out_w = p->a->window.out_w, step = p->a->window.dilation_h * p->a->window.width;
    const I *first = p->first;
    T *bests = p->best;
    I *places = p->place;
    for (ptrdiff_t ow = 0; ow < out_w; ow += LANES) {
        V best = begin ? NAME(set)((T)-INFINITY) : v_load(bests + ow);
        VI place = begin ? NAME(iset)(start) + NAME(load_index)(first + ow) : NAME(load_index)(places + ow);
        for (ptrdiff_t i = 0; i < n; i++) {
            for (ptrdiff_t j = 0; j < taps; j++) {
                const V x = v_load(phases[i] + tap[j].at + ow);
                const V here = (V)NAME(iset)(start + (I)(i * step + tap[j].offset));
                const VM larger = nan ? (VM)~(m_ge(best, x) | ~m_eq(best, best)) : m_gt(x, best);
                place = (VI)v_select(larger, here, (V)place);
                best = nan ? v_select(larger, x, best) : v_max(x, best);
            }
        }
        v_store(bests + ow, best);
        v_store((T *)(places + ow), (V)place);
    }
}

static void NAME(find_in_rows)(const NAME(pool) *p, T *const *phases, I start, int begin, ptrdiff_t n, int nan)
{
#define CASE(rows, columns)                                                                                              \
    if (n == rows && p->a->taps == columns && !nan) {                                                                    \
        const xent_tap few[] = {p->taps[0], p->taps[1], p->taps[columns - 1]};                                           \
        T *const some[] = {phases[0], phases[1], phases[rows - 1]};                                                      \
        NAME(find_best)(p, few, some, start, begin, rows, columns, 0);                                                   \
        return;                                                                                                          \
    }
    CASE(2, 2)
    CASE(3, 3)
#undef CASE
    NAME(find_best)(p, p->taps, phases, start, begin, n, p->a->taps, 1);
}

/* Find the first maximum of every window of an output row. Rows that the output row before has split already are still there. */
static void NAME(find_places)(NAME(pool) *p, const S *x, NAME(rows) rows)
{
    const xent_window *w = &p->a->window;
    for (ptrdiff_t i = rows.low; i < rows.high; i += HELD) {
        const ptrdiff_t n = xent_least(HELD, rows.high - i);
        const I start = (I)(i * w->dilation_h * w->width);
        T *phases[HELD];
        int nan = 0;
        for (ptrdiff_t k = 0; k < n; k++) {
            const ptrdiff_t y = rows.y + (i - rows.low + k) * w->dilation_h, slot = w->dilation_h == 1 ? y % HELD : k;
            phases[k] = p->phases + slot * p->a->phases * p->a->span;
            if (p->held[slot] != y) p->nan[slot] = NAME(split_row)(p, x + y * w->width, phases[k]);
            p->held[slot] = y;
            nan |= p->nan[slot];
        }
        NAME(find_in_rows)(p, phases, start, i == rows.low, n, nan);
    }
}

static void NAME(route_max)(NAME(pool) *p, const S *x, const S *grad, S *out, ptrdiff_t oh, ptrdiff_t *done)
{
    const xent_window *w = &p->a->window;
    const NAME(rows) rows = NAME(rows_of)(w, oh);
    const V zero = {0};
    if (rows.low >= rows.high) return; /* a window of padding only has no maximum */
    NAME(find_places)(p, x, rows);
    for (ptrdiff_t ow = 0; ow < w->out_w; ow += LANES) v_store(p->grad + ow, NAME(load)(grad + ow, w->out_w - ow, zero));
    for (ptrdiff_t i = rows.low, y = rows.y; i < rows.high; i++, y += w->dilation_h) {
        const int add = NAME(reached)(w, out, done, y);
        if (w->stride_w <= 2)
            NAME(merge_row)(p, out + y * w->width, (I)(i * w->dilation_h * w->width), add);
        else if (!add)
            memset(out + y * w->width, 0, (size_t)w->width * sizeof(S));
    }
    if (w->stride_w <= 2) return;
    S *origin = out + (oh * w->stride_h - w->top) * w->width - w->left;
    for (ptrdiff_t ow = 0; ow < w->out_w; ow++) {
        /* never negative: a plane may have more than 2^31 floats */
        const size_t place = (size_t)p->place[ow] & (size_t)(sizeof(I) == 4 ? UINT32_MAX : UINT64_MAX);
        if (p->first[ow] != NOWHERE) origin[ow * w->stride_w + (ptrdiff_t)place] += grad[ow];
    }
}

/* The shares of an output row, added up in the columns of the image. */
static void NAME(spread_columns)(const NAME(pool) *p)
{
    const xent_pool_args *a = p->a;
    const ptrdiff_t stride = a->window.stride_w, width = a->window.width;
    if (stride <= 2) {
        NAME(merge_taps)(p, p->by_residue, p->line, 0, stride, a->taps, p->even, 0, 1);
        return;
    }
    memset(p->line, 0, (size_t)width * sizeof(T));
    for (const xent_tap *tap = p->taps; tap < p->taps + a->taps; tap++) {
        const ptrdiff_t end = xent_least(xent_count_below(tap->residue, stride, width), a->window.out_w + tap->shift);
        for (ptrdiff_t q = xent_most(0, tap->shift); q < end; q++) p->line[q * stride + tap->residue] += p->grad[q - tap->shift];
    }
}

static void NAME(spread_mean)(const NAME(pool) *p, const S *grad, S *out, ptrdiff_t oh, ptrdiff_t *done)
{
    const xent_window *w = &p->a->window;
    const NAME(rows) rows = NAME(rows_of)(w, oh);
    const V zero = {0}, count = NAME(set)(NAME(count_rows)(p->a, oh));
    for (ptrdiff_t ow = 0; ow < w->out_w; ow += LANES) {
        const ptrdiff_t n = w->out_w - ow;
        const V one = zero + 1, counts = n >= LANES ? v_load(p->counts + ow) : v_load_n(p->counts + ow, n, one);
        v_store(p->grad + ow, NAME(load)(grad + ow, n, zero) / (count * counts));
    }
    NAME(spread_columns)(p);
    for (ptrdiff_t i = rows.low, y = rows.y; i < rows.high; i++, y++) {
        S *row = out + y * w->width;
        const int add = NAME(reached)(w, out, done, y);
        for (ptrdiff_t x = 0; x < w->width; x += LANES) {
            const V v = v_load(p->line + x);
            NAME(store)(row + x, add ? v + NAME(load)(row + x, w->width - x, zero) : v, w->width - x);
        }
    }
}

ALWAYS_INLINE void NAME(pool_backward)(const xent_pool_args *a, ptrdiff_t chunk, void *scratch, int average)
{
    const xent_window *w = &a->window;
    const ptrdiff_t size = w->height * w->width, pixels = w->out_h * w->out_w;
    const ptrdiff_t begin = chunk * a->chunk, end = xent_least(begin + a->chunk, a->planes);
    NAME(pool) p = NAME(pool_open)(a, scratch, average ? 0 : (T)-INFINITY);
    if (average)
        NAME(set_counts)(&p);
    else
        NAME(set_first)(&p);
    for (ptrdiff_t plane = begin; plane < end; plane++) {
        const S *grad = (const S *)a->grad + plane * pixels;
        S *out = (S *)a->out + plane * size;
        ptrdiff_t done = 0;
        for (int k = 0; k < HELD; k++) p.held[k] = -1;
        for (ptrdiff_t oh = 0; oh < w->out_h; oh++, grad += w->out_w) {
            if (average)
                NAME(spread_mean)(&p, grad, out, oh, &done);
            else
                NAME(route_max)(&p, (const S *)a->x + plane * size, grad, out, oh, &done);
        }
        NAME(reached)(w, out, &done, w->height);
    }
}

static void NAME(max_pool2d_backward)(const void *args, ptrdiff_t chunk, void *scratch)
{
    NAME(pool_backward)((const xent_pool_args *)args, chunk, scratch, 0);
}

static void NAME(avg_pool2d_backward)(const void *args, ptrdiff_t chunk, void *scratch)
{
    NAME(pool_backward)((const xent_pool_args *)args, chunk, scratch, 1);
}

#undef NOWHERE
