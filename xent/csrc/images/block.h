/* block.h: how many sums a product holds in registers, ROWS x VECTORS (product.h). */
#ifndef XENT_BLOCK_H
#define XENT_BLOCK_H

#include "simd/simd.h"

/* Vectors of a row of sums: with ROWS of them (table.h), as many as leave registers for the operands. */
#if defined(__aarch64__) || XENT_VBYTES == 64 /* 32 registers */
#define VECTORS 4
#else
#define VECTORS 2
#endif

#endif
