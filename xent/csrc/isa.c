/* isa.c: every kernel for every type, compiled once per instruction set (setup.py passes -DXENT_ISA=name and the
 * machine flags) and exporting one table, xent_table_<name>. */
#include "base.h"
#include "table.h"

#define XENT_STORED f64
#include "kernels.h"

#define XENT_STORED f32
#include "kernels.h"

#define XENT_STORED f16
#include "kernels.h"

#define XENT_STORED bf16
#include "kernels.h"

const xent_table XENT_CONCAT(xent_table_, XENT_ISA) = {
    .name = XENT_STRING(XENT_ISA),
    .vector_bytes = XENT_VBYTES,
    .strip_bytes = VECTORS * XENT_VBYTES,
#define X(kernel) .kernel = {[XENT_F32] = kernel##_f32, [XENT_F64] = kernel##_f64},
#define X16(kernel)                                                                                                    \
    .kernel = {                                                                                                        \
        [XENT_F32] = kernel##_f32, [XENT_F64] = kernel##_f64, [XENT_F16] = kernel##_f16, [XENT_BF16] = kernel##_bf16},
#include "kernels.def"
#undef X
#undef X16
    .exp_f32 = exp_array_f32,
    .exp_f64 = exp_array_f64,
    .log_f32 = log_array_f32,
    .log_f64 = log_array_f64,
    .log1p_f32 = log1p_array_f32,
    .log1p_f64 = log1p_array_f64,
};
