/* kernels.c: the kernels of this folder for every type, compiled once per instruction set (see isa.c). */
#define XENT_FEW_COPIES /* base.h */
#include "base.h"
#include "table.h"

#define XENT_STORED f64
#include "softmax/kernels.h"

#define XENT_STORED f32
#include "softmax/kernels.h"

#define XENT_STORED f16
#include "softmax/kernels.h"

#define XENT_STORED bf16
#include "softmax/kernels.h"

#include "export.h"
#include "softmax/kernels.def"
