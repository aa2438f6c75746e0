/* stored.h: numbers in memory as vectors of the type computed with: a 16-bit float is converted here, and nowhere
 * else. */
#include "begin.h"
#include "simd/transpose.h"
#include "wide.h"

#ifndef XENT_STORED_H
#define XENT_STORED_H

#ifdef STORED_AS_16
/* Fewer numbers than a vector has. */
ALWAYS_INLINE V KERNEL(load_some)(const S *p, ptrdiff_t n, V fill)
{
    S some[LANES];
    const vu16 v = xent_load_n_16(p, n);
    memcpy(some, &v, sizeof some);
    return v_select(NAME(first)(n), KERNEL(v_load)(some), fill);
}
ALWAYS_INLINE void KERNEL(store_some)(S *p, V v, ptrdiff_t n)
{
    vu16 some;
    S all[LANES];
    KERNEL(v_store)(all, v);
    memcpy(&some, all, sizeof some);
    xent_store_n_16(p, some, n);
}
#endif

/* The first n numbers at p (all of a vector if n >= LANES; no cost where n is the constant LANES). */
#ifdef STORED_AS_16
ALWAYS_INLINE V KERNEL(load)(const S *p, ptrdiff_t n, V fill)
{
    return n >= LANES ? KERNEL(v_load)(p) : KERNEL(load_some)(p, n, fill);
}
ALWAYS_INLINE void KERNEL(store)(S *p, V v, ptrdiff_t n)
{
    if (n >= LANES)
        KERNEL(v_store)(p, v);
    else
        KERNEL(store_some)(p, v, n);
}
ALWAYS_INLINE T KERNEL(get)(const S *p)
{
    const S one[LANES] = {*p};
    return KERNEL(v_load)(one)[0];
}
ALWAYS_INLINE void KERNEL(put)(S *p, T value)
{
    S one[LANES];
    KERNEL(v_store)(one, NAME(set)(value));
    *p = one[0];
}
/* PIECE classes of LANES rows: short rows of 16-bit floats are packed, not transposed. */
ALWAYS_INLINE void KERNEL(load_transposed)(const S *rows, ptrdiff_t step, V classes[PIECE])
{
    T transposed[PIECE][LANES];
    for (int k = 0; k < LANES * PIECE; k++)
        transposed[k % PIECE][k / PIECE] = KERNEL(get)(rows + k / PIECE * step + k % PIECE);
    for (int k = 0; k < PIECE; k++) classes[k] = v_load(transposed[k]);
}
ALWAYS_INLINE void KERNEL(store_transposed)(S *rows, ptrdiff_t step, const V classes[PIECE])
{
    for (int k = 0; k < LANES * PIECE; k++)
        KERNEL(put)(rows + k / PIECE * step + k % PIECE, classes[k % PIECE][k / PIECE]);
}
#else
ALWAYS_INLINE V KERNEL(load)(const S *p, ptrdiff_t n, V fill) { return n >= LANES ? v_load(p) : v_load_n(p, n, fill); }
ALWAYS_INLINE void KERNEL(store)(S *p, V v, ptrdiff_t n)
{
    if (n >= LANES)
        v_store(p, v);
    else
        v_store_n(p, v, n);
}
ALWAYS_INLINE T KERNEL(get)(const S *p) { return *p; }
ALWAYS_INLINE void KERNEL(put)(S *p, T value) { *p = value; }
ALWAYS_INLINE void KERNEL(load_transposed)(const S *rows, ptrdiff_t step, V classes[PIECE])
{
    NAME(load_classes)(rows, step, classes);
}
ALWAYS_INLINE void KERNEL(store_transposed)(S *rows, ptrdiff_t step, const V classes[PIECE])
{
    NAME(store_classes)(rows, step, classes);
}
#endif

/* A double as the number that is stored, but for 16 bits: it is rounded once, here or then. */
ALWAYS_INLINE T KERNEL(narrowed)(double v)
{
#ifdef STORED_AS_16
    return rounded_to_odd(v);
#else
    return (T)v;
#endif
}

/* Fetch the n numbers at p, which are read, or written, soon: the processor's own prefetching stops at each page. What
 * lies behind an array may be fetched, but is not read. */
ALWAYS_INLINE void KERNEL(fetch)(const S *p, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i += CACHE_LINE / (int)sizeof(S)) __builtin_prefetch(p + i);
}

/* Those that lie FETCHED bytes behind p. */
#define FETCHED 4096
ALWAYS_INLINE void KERNEL(fetch_ahead)(const S *p, ptrdiff_t n)
{
    KERNEL(fetch)((const S *)((uintptr_t)p + FETCHED), n);
}

/* Numbers from p on to where a whole vector of them can be stored at a multiple of its size. */
ALWAYS_INLINE ptrdiff_t KERNEL(until_aligned)(const S *p)
{
    const size_t bytes = LANES * sizeof(S), beyond = (size_t)p % bytes;
    return beyond ? (ptrdiff_t)((bytes - beyond) / sizeof(S)) : 0;
}

/* Store a vector at such a place: past the caches if it `streams`. */
ALWAYS_INLINE void KERNEL(store_aligned)(S *p, V v, int streams)
{
    if (!streams) {
        KERNEL(store)(p, v, LANES);
        return;
    }
#ifdef STORED_AS_16
    S some[LANES] __attribute__((aligned(XENT_WIDEST)));
    KERNEL(v_store)(some, v);
    xent_stream_16(p, *(const vu16 *)some);
#else
    v_stream(p, v);
#endif
}

/* load() and store() where n may be 0 or less. */
ALWAYS_INLINE V KERNEL(load_part)(const S *p, ptrdiff_t n, V fill) { return n > 0 ? KERNEL(load)(p, n, fill) : fill; }
#ifndef STORED_AS_16
ALWAYS_INLINE void NAME(store_part)(T *p, V v, ptrdiff_t n)
{
    if (n > 0) NAME(store)(p, v, n);
}

/* The mask of the first n lanes. */
ALWAYS_INLINE VM NAME(first)(ptrdiff_t n)
{
    T index[LANES];
    for (int k = 0; k < LANES; k++) index[k] = (T)k;
    return m_gt(NAME(set)((T)n), v_load(index));
}
#endif

/* The n numbers that are left of a row. 16-bit floats, of which no part of a vector is loaded at once, are read further,
 * up to `end`. */
ALWAYS_INLINE V KERNEL(load_row)(const S *p, ptrdiff_t n, const void *end, V fill)
{
#ifdef STORED_AS_16
    if (n < LANES && (const S *)end - p >= LANES) return v_select(NAME(first)(n), KERNEL(v_load)(p), fill);
#else
    (void)end;
#endif
    return KERNEL(load)(p, n, fill);
}

#endif
