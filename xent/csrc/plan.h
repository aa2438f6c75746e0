/* plan.h: what the plans of all families share. Plans are made by code that is compiled once, so they know of the
 * instruction sets only what holds for all of them.
 */
#ifndef XENT_PLAN_H
#define XENT_PLAN_H

#include "base.h"
#include "table.h"

enum {
    /* Elements of a chunk, about: so many that handing it out costs nothing, so few that the load is even. */
    XENT_CHUNK = 16384,
    XENT_MOST_LANES = 16 /* numbers in a vector: no instruction set has longer ones */
};

/* Bytes of a number of the type that is computed with. */
ALWAYS_INLINE ptrdiff_t xent_real_size(int dtype) { return dtype == XENT_F64 ? 8 : 4; }
/* And in memory. */
ALWAYS_INLINE ptrdiff_t xent_stored_size(int dtype)
{
    return dtype == XENT_F16 || dtype == XENT_BF16 ? 2 : xent_real_size(dtype);
}

#endif
