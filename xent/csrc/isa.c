/* isa.c: the table of an instruction set, xent_table_<name>. setup.py compiles it and the kernels.c of each folder once
 * for each, with -DXENT_ISA=name and the machine flags. */
#include "base.h"
#include "table.h"

#include "images/block.h"

#define X(kernel) extern const xent_kernel XENT_OF_ISA(kernel)[XENT_DTYPES];
#define X16 X
#include "kernels.def"
#undef X
#undef X16
extern const xent_arithmetic XENT_OF_ISA(xent_arithmetic);

const xent_table XENT_OF_ISA(xent_table) = {
    .name = XENT_STRING(XENT_ISA),
    .vector_bytes = XENT_VBYTES,
    .strip_bytes = VECTORS * XENT_VBYTES,
#define X(kernel) .kernel = XENT_OF_ISA(kernel),
#define X16 X
#include "kernels.def"
    .arithmetic = &XENT_OF_ISA(xent_arithmetic),
};
