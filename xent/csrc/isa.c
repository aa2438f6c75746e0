/* isa.c: every kernel for every type, compiled once per instruction set (setup.py passes -DXENT_ISA=name and the machine
 * flags) and exporting one table, xent_table_<name>. */
#include "base.h"
#include "table.h"
#include "tile_sizes.h"

#include "simd.h"

#include "window.h"

#include "layout.h"

#define XENT_JOIN(a, b) a##_##b
#define XENT_SUFFIXED(a, b) XENT_JOIN(a, b)
/* Vectors of a row of sums (product.h): with ROWS of them, as many as leave registers for the operands. */
#if defined(__aarch64__)
#define VECTORS 4
#else
#define VECTORS 2
#endif

#define LANES_F64 ((ptrdiff_t)(XENT_VBYTES / sizeof(double)))

#define XENT_REAL 64
#define XENT_STORED f64
#include "real.h"

#define XENT_REAL 32
#define XENT_STORED f32
#include "real.h"

#define STORED_AS_16

#define XENT_REAL 32
#define XENT_STORED f16
#include "real.h"

#define XENT_REAL 32
#define XENT_STORED bf16
#include "real.h"

#define XENT_CONCAT(a, b) a##b
#define XENT_TABLE(isa) XENT_CONCAT(xent_table_, isa)
#define XENT_STRING(s) #s
#define XENT_NAME(isa) XENT_STRING(isa)

const xent_table XENT_TABLE(XENT_ISA) = {
    .name = XENT_NAME(XENT_ISA),
    .vector_bytes = XENT_VBYTES,
    .strip_bytes = VECTORS * XENT_VBYTES,
#define X(kernel) .kernel = {[XENT_F32] = kernel##_f32, [XENT_F64] = kernel##_f64},
#define X16(kernel) \
    .kernel = {[XENT_F32] = kernel##_f32, [XENT_F64] = kernel##_f64, [XENT_F16] = kernel##_f16, [XENT_BF16] = kernel##_bf16},
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
