/* transpose.h: rows to columns and back, in registers, for the real types.
 *
 * PIECE classes (16 bytes) of LANES positions are loaded, so that piece k of vector i belongs to position PIECE k + i;
 * mixing the vectors pairwise puts the positions of one class next to each other, within each piece and so in the whole
 * vector. The last piece of a row ends with the row: it may overlap the one before, which reads and writes nothing
 * outside and is the same number.
 */
#include "begin.h"

#if !defined(XENT_TRANSPOSE_H) && !defined(STORED_AS_16)
#define XENT_TRANSPOSE_H

#define PIECE (16 / (ptrdiff_t)sizeof(T))

ALWAYS_INLINE void NAME(load_classes)(const T *rows, ptrdiff_t step, V classes[PIECE])
{
    V row[PIECE];
    for (int k = 0; k < PIECE; k++) row[k] = v_load_pieces(rows + k * step, PIECE * step);
#if XENT_REAL == 32
    const V a = v_mix_lo(row[0], row[1]), b = v_mix_lo(row[2], row[3]);
    const V c = v_mix_hi(row[0], row[1]), d = v_mix_hi(row[2], row[3]);
    classes[0] = v_mix_pairs_lo(a, b), classes[1] = v_mix_pairs_hi(a, b);
    classes[2] = v_mix_pairs_lo(c, d), classes[3] = v_mix_pairs_hi(c, d);
#else
    classes[0] = v_mix_lo(row[0], row[1]), classes[1] = v_mix_hi(row[0], row[1]);
#endif
}

ALWAYS_INLINE void NAME(store_classes)(T *rows, ptrdiff_t step, const V classes[PIECE])
{
    V row[PIECE];
#if XENT_REAL == 32
    const V a = v_mix_lo(classes[0], classes[1]), b = v_mix_lo(classes[2], classes[3]);
    const V c = v_mix_hi(classes[0], classes[1]), d = v_mix_hi(classes[2], classes[3]);
    row[0] = v_mix_pairs_lo(a, b), row[1] = v_mix_pairs_hi(a, b);
    row[2] = v_mix_pairs_lo(c, d), row[3] = v_mix_pairs_hi(c, d);
#else
    row[0] = v_mix_lo(classes[0], classes[1]), row[1] = v_mix_hi(classes[0], classes[1]);
#endif
    for (int k = 0; k < PIECE; k++) v_store_pieces(rows + k * step, PIECE * step, row[k]);
}

/* (positions, classes) to (classes, positions); what follows the positions is set to 0 up to `filled`, where a vector ends.
 * Fewer classes than a piece has are read with the positions behind them, of which there are `more` than are wanted. */
SHARED void NAME(rows_to_columns)(const T *rows, ptrdiff_t row_step, T *columns, ptrdiff_t step, ptrdiff_t positions,
                                  ptrdiff_t classes, ptrdiff_t filled, ptrdiff_t more)
{
    const V zero = {0};
    const ptrdiff_t beyond = xent_max(PIECE - classes, 0), count = xent_min(PIECE, classes),
                    end = beyond && row_step < classes ? 0 : xent_min(positions, positions + more - beyond);
    ptrdiff_t p = 0;
    for (; p + LANES <= end; p += LANES) {
        for (ptrdiff_t c = 0; c < classes; c += PIECE) {
            const ptrdiff_t first = xent_max(xent_min(c, classes - PIECE), 0);
            V v[PIECE];
            NAME(load_classes)(rows + p * row_step + first, row_step, v);
            for (int k = 0; k < PIECE; k++)
                if (k < count) v_store(columns + (first + k) * step + p, v[k]);
        }
    }
    for (ptrdiff_t c = 0; p < filled && c < classes; c++) {
        for (ptrdiff_t q = p; q < filled; q += LANES) v_store(columns + c * step + q, zero);
        for (ptrdiff_t q = p; q < positions; q++) columns[c * step + q] = rows[q * row_step + c];
    }
}

/* Fewer classes than a piece has, of LANES positions that touch each other: what a piece has too much, the next overwrites.
 */
ALWAYS_INLINE void NAME(store_few_classes)(T *rows, ptrdiff_t few, const V classes[PIECE])
{
    T pieces[PIECE * LANES];
    NAME(store_classes)(pieces, PIECE, classes);
    for (int k = 0; k < LANES; k++) memcpy(rows + k * few, pieces + k * PIECE, PIECE * sizeof(T));
}

/* And back; so many `more` positions behind these are written afterwards. */
SHARED void NAME(columns_to_rows)(const T *columns, ptrdiff_t step, T *rows, ptrdiff_t row_step, ptrdiff_t positions,
                                  ptrdiff_t classes, ptrdiff_t more)
{
    const V zero = {0};
    const ptrdiff_t beyond = xent_max(PIECE - classes, 0), count = xent_min(PIECE, classes),
                    end = beyond && row_step != classes ? 0 : xent_min(positions, positions + more - beyond);
    ptrdiff_t p = 0;
    for (; p + LANES <= end; p += LANES) {
        for (ptrdiff_t c = 0; c < classes; c += PIECE) {
            const ptrdiff_t first = xent_max(xent_min(c, classes - PIECE), 0);
            V v[PIECE];
            for (int k = 0; k < PIECE; k++) v[k] = k < count ? v_load(columns + (first + k) * step + p) : zero;
            if (beyond)
                NAME(store_few_classes)(rows + p * row_step, classes, v);
            else
                NAME(store_classes)(rows + p * row_step + first, row_step, v);
        }
    }
    for (; p < positions; p++)
        for (ptrdiff_t c = 0; c < classes; c++) rows[p * row_step + c] = columns[c * step + p];
}

#endif
