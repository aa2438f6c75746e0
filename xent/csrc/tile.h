/* tile.h: how positions come to the kernels of the softmax family. A chunk of positions is cut into tiles of at most TILE,
 * each in one of two shapes that the kernels know:
 *
 *   rows      the classes of a position are neighbours in memory: a kernel runs along each row
 *   columns   the positions are neighbours: a kernel runs along the positions, a vector of them at a time, over the classes
 *
 * Rows that are shorter than a few vectors would waste most of each: they are transposed into a small scratch on the stack,
 * worked on as columns, and transposed back.
 */

#define PACK_BYTES 8192    /* scratch of one operand: three of them stay in an L1 cache, and on the smallest stacks */
#define PACK_ELEMENTS (PACK_BYTES / (ptrdiff_t)sizeof(S))
#define PACK_CLASSES 64    /* rows up to this long are transposed */
#define ROWS_BYTES 65536   /* logits in a tile of rows: they are read again for the gradient, from the L2 cache */

/* The first n numbers at p (all of a vector if n >= LANES; no cost where n is the constant LANES). */
ALWAYS_INLINE V NAME(load)(const S *p, ptrdiff_t n, V fill) { return n >= LANES ? v_load(p) : v_load_n(p, n, fill); }
ALWAYS_INLINE void NAME(store)(S *p, V v, ptrdiff_t n)
{
    if (n >= LANES)
        v_store(p, v);
    else
        v_store_n(p, v, n);
}

typedef struct {
    const S *x, *aux;
    S *out;
    ptrdiff_t x_step, aux_step, out_step; /* rows: from position to position; columns: from class to class */
    ptrdiff_t first, n;                   /* the positions [first, first + n) */
    int rows;
} NAME(tile);

typedef void (*NAME(tile_function))(const xent_softmax_args *, const NAME(tile) *, double *loss);

/* Class 0 of position (f * per + o) * inner + i. */
ALWAYS_INLINE S *NAME(at)(const xent_operand *operand, ptrdiff_t f, ptrdiff_t o, ptrdiff_t i)
{
    return operand->data ? (S *)operand->data + f * operand->far + o * operand->outer + i : NULL;
}

/* Transpose LANES vectors in place: each round interleaves the first half of the vectors with the second (a perfect shuffle),
 * and after log2(LANES) rounds every number has found its place. */
ALWAYS_INLINE void NAME(transpose)(V v[LANES])
{
    for (int round = 1; round < LANES; round *= 2) {
        V zipped[LANES];
        for (int k = 0; k < LANES / 2; k++) {
            zipped[2 * k] = v_zip_lo(v[k], v[k + LANES / 2]);
            zipped[2 * k + 1] = v_zip_hi(v[k], v[k + LANES / 2]);
        }
        for (int k = 0; k < LANES; k++) v[k] = zipped[k];
    }
}

/* (positions, classes) to (classes, positions); `step` is a multiple of LANES, and what follows the positions may be written. */
static void NAME(rows_to_columns)(const S *rows, ptrdiff_t row_step, S *columns, ptrdiff_t step, ptrdiff_t positions,
                                  ptrdiff_t classes)
{
    const V zero = {0};
    for (ptrdiff_t p = 0; p < positions; p += LANES) {
        for (ptrdiff_t c = 0; c < classes; c += LANES) {
            V v[LANES];
            for (int k = 0; k < LANES; k++)
                v[k] = p + k < positions ? NAME(load)(rows + (p + k) * row_step + c, classes - c, zero) : zero;
            NAME(transpose)(v);
            for (int k = 0; k < LANES; k++)
                if (c + k < classes) v_store(columns + (c + k) * step + p, v[k]);
        }
    }
}

static void NAME(columns_to_rows)(const S *columns, ptrdiff_t step, S *rows, ptrdiff_t row_step, ptrdiff_t positions,
                                  ptrdiff_t classes)
{
    const V zero = {0};
    for (ptrdiff_t p = 0; p < positions; p += LANES) {
        for (ptrdiff_t c = 0; c < classes; c += LANES) {
            V v[LANES];
            for (int k = 0; k < LANES; k++) v[k] = c + k < classes ? v_load(columns + (c + k) * step + p) : zero;
            NAME(transpose)(v);
            for (int k = 0; k < LANES; k++)
                if (p + k < positions) NAME(store)(rows + (p + k) * row_step + c, v[k], classes - c);
        }
    }
}

/* Rows of few classes: through the scratch. */
static void NAME(packed_tile)(const xent_softmax_args *a, NAME(tile) tile, double *loss, NAME(tile_function) function)
{
    _Alignas(64) S x[PACK_ELEMENTS], aux[PACK_ELEMENTS], out[PACK_ELEMENTS];
    const ptrdiff_t step = (tile.n + LANES - 1) / LANES * LANES;
    NAME(tile) packed = {x, tile.aux ? aux : NULL, tile.out ? out : NULL, step, step, step, tile.first, tile.n, 0};
    NAME(rows_to_columns)(tile.x, tile.x_step, x, step, tile.n, a->classes);
    if (tile.aux) NAME(rows_to_columns)(tile.aux, tile.aux_step, aux, step, tile.n, a->classes);
    function(a, &packed, loss);
    if (tile.out) NAME(columns_to_rows)(out, step, tile.out, tile.out_step, tile.n, a->classes);
}

/* Run `function` on the tiles of one chunk; a->partial gets the sum of the losses it reports. */
static void NAME(for_tiles)(const xent_softmax_args *a, ptrdiff_t chunk, NAME(tile_function) function)
{
    const ptrdiff_t begin = chunk * a->chunk, end = xent_least(begin + a->chunk, a->positions);
    const ptrdiff_t classes = xent_most(a->classes, 1);
    const int columns = a->inner > 1, packed = !columns && classes <= PACK_CLASSES;
    ptrdiff_t most = TILE;
    if (packed) most = xent_least(TILE, PACK_ELEMENTS / classes / 16 * 16);
    if (!packed && !columns) most = xent_least(TILE, xent_most(1, ROWS_BYTES / (ptrdiff_t)sizeof(S) / classes));
    double sum = 0, error = 0, loss[TILE];
    for (ptrdiff_t p = begin; p < end;) {
        const ptrdiff_t i = p % a->inner, o = p / a->inner % a->per, f = p / a->inner / a->per;
        NAME(tile) tile = {NAME(at)(&a->x, f, o, i), NAME(at)(&a->aux, f, o, i), NAME(at)(&a->out, f, o, i),
                           columns ? a->x.stride : a->x.outer, columns ? a->aux.stride : a->aux.outer,
                           columns ? a->out.stride : a->out.outer, p, xent_least(most, end - p), !columns};
        tile.n = xent_least(tile.n, columns ? a->inner - i : a->per - o);
        if (packed)
            NAME(packed_tile)(a, tile, loss, function);
        else
            function(a, &tile, loss);
        if (a->partial)
            for (ptrdiff_t k = 0; k < tile.n; k++) two_sum_add(&sum, &error, loss[k]);
        p += tile.n;
    }
    if (a->partial) a->partial[chunk] = isfinite(sum) ? sum + error : sum;
}
