/* export.h: what becomes of a list of kernels at the end of each kernels.c: for each an array, by element type, which
 * isa.c puts into the table. */
#include "base.h"
#include "table.h"

#define X(kernel)                                                                                                      \
    const xent_kernel XENT_OF_ISA(kernel)[XENT_DTYPES] = {[XENT_F32] = kernel##_f32, [XENT_F64] = kernel##_f64};
#define X16(kernel)                                                                                                    \
    const xent_kernel XENT_OF_ISA(kernel)[XENT_DTYPES] = {                                                             \
        [XENT_F32] = kernel##_f32, [XENT_F64] = kernel##_f64, [XENT_F16] = kernel##_f16, [XENT_BF16] = kernel##_bf16};
