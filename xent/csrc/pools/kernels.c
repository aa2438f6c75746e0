/* kernels.c: the kernels of this folder for every type, compiled once per instruction set (see isa.c). */
#include "base.h"
#include "table.h"

#define XENT_STORED f64
#include "pools/kernels.h"

#define XENT_STORED f32
#include "pools/kernels.h"

#define XENT_STORED f16
#include "pools/kernels.h"

#define XENT_STORED bf16
#include "pools/kernels.h"

#include "export.h"
#include "pools/kernels.def"
