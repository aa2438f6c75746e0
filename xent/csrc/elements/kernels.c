/* kernels.c: the kernels of this folder for every type, compiled once per instruction set (see isa.c). */
/* Loops here work on whole vectors as they are written. What GCC makes of the others, a copy for each length that may
 * be left over, was three tenths of the code and gained nothing. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-peel-loops", "no-unswitch-loops", "no-split-loops", "vect-cost-model=very-cheap")
#endif

#define XENT_FEW_COPIES   /* base.h */
#define XENT_MAKES_POINTS /* points.h */
#include "base.h"
#include "table.h"

#define XENT_STORED f64
#include "elements/kernels.h"

#define XENT_STORED f32
#include "elements/kernels.h"

#define XENT_STORED f16
#include "elements/kernels.h"

#define XENT_STORED bf16
#include "elements/kernels.h"

#include "export.h"
#include "elements/kernels.def"

const xent_arithmetic XENT_OF_ISA(xent_arithmetic) = {
    .exp_f32 = exp_array_f32,
    .exp_f64 = exp_array_f64,
    .log_f32 = log_array_f32,
    .log_f64 = log_array_f64,
    .log1p_f32 = log1p_array_f32,
    .log1p_f64 = log1p_array_f64,
};
