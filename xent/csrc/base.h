/* base.h: what every C file builds on: inlining, and small functions of numbers. */
#ifndef XENT_BASE_H
#define XENT_BASE_H

#include <stddef.h>
#include <stdint.h>

#define XENT_CONCAT(a, b) XENT_CONCAT_AS_WRITTEN(a, b) /* of what a and b expand to */
#define XENT_CONCAT_AS_WRITTEN(a, b) a##b
#define XENT_STRING(s) XENT_STRING_AS_WRITTEN(s)
#define XENT_STRING_AS_WRITTEN(s) #s
#define XENT_OF_ISA(name) XENT_CONCAT(name##_, XENT_ISA) /* what is compiled once per instruction set */

enum { CACHE_LINE = 64 }; /* bytes */

/* A function in a header that not every family of kernels calls. */
#define SHARED static __attribute__((unused))
/* A function that few elements need: compiled once, for size, and out of the way of the others. */
#define SELDOM static __attribute__((noinline, cold, unused))
/* A function that is called once a tile, for a few numbers of each position: compiled for size. */
#define PER_TILE static __attribute__((noinline, cold, unused))
/* What such a function calls for all numbers of a line: the compiler would take it for as seldom as its caller. */
#if defined(__OPTIMIZE_SIZE__)
#define PER_LINE static __attribute__((noinline, unused))
#else
#define PER_LINE static __attribute__((noinline, hot, unused))
#endif
/* A function whose constant parameters make copies of it, or that is a few instructions. Where kernels are compiled for
 * size and ask for it, the compiler chooses. */
#if defined(__OPTIMIZE_SIZE__) && defined(XENT_FEW_COPIES)
#define ALWAYS_INLINE static inline __attribute__((unused))
#else
#define ALWAYS_INLINE static inline __attribute__((always_inline, unused))
#endif

/* Ask for number i from p on, be it read or, with 1 for `writes`, written: p may be NULL, or all past the end, which no sum of
 * a pointer may be. */
#define PREFETCH(p, i, writes) __builtin_prefetch((const void *)((uintptr_t)(p) + (uintptr_t)(i) * sizeof *(p)), writes)

ALWAYS_INLINE ptrdiff_t xent_min(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
ALWAYS_INLINE ptrdiff_t xent_max(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
/* a / b of numbers >= 0, without the division where it gives 0, as in small calls it does: one takes as long as twenty
 * additions. And rounded up. */
ALWAYS_INLINE ptrdiff_t xent_div(ptrdiff_t a, ptrdiff_t b) { return a < b ? 0 : a / b; }
ALWAYS_INLINE ptrdiff_t xent_ceil_div(ptrdiff_t a, ptrdiff_t b) { return a <= 0 ? 0 : xent_div(a - 1, b) + 1; }

/* Add one number to a sum with its compensation (Knuth's TwoSum). */
ALWAYS_INLINE void two_sum_add(double *sum, double *error, double v)
{
    const double total = *sum + v, back = total - *sum;
    *error += (*sum - (total - back)) + (v - back);
    *sum = total;
}

#endif
