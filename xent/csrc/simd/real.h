/* real.h: how the real types are made, and the split of ln 2 that exp.h and log.h share. */
#include "begin.h"

#ifndef XENT_REAL_H
#define XENT_REAL_H

#define MANTISSA_BITS BY_TYPE(23, 52)
#define EXPONENT_BIAS BY_TYPE(127, 1023)
#define TINY ((T)BY_TYPE(0x1p-126, 0x1p-1022)) /* the smallest normal number, and the largest finite one */
#define LARGEST ((T)BY_TYPE(0x1.fffffep127, 0x1.fffffffffffffp1023))

/* To add MAGIC rounds to an integer, which the low bits of the sum then hold beside those of MAGIC. */
#define MAGIC ((T)BY_TYPE(0x1.8p23, 0x1.8p52))
#define MAGIC_BITS ((I)BY_TYPE(0x4B400000, 0x4338000000000000))

#define LN2 ((T)0.6931471805599453)
#define LN2_HEAD ((T)BY_TYPE(0x1.62e0000000000p-1, 0x1.62e42fefa3000p-1)) /* tools/coefficients.py */
#define LN2_TAIL ((T)BY_TYPE(0x1.0bfbe80000000p-15, 0x1.3de6af278ece6p-42))

#endif
