/* real.h: the kernels of every operator for one stored type. Include with XENT_REAL (the bits of the type T that is computed
 * with, 32 or 64) and XENT_STORED (the name of the type S in memory: f32, f64, f16, bf16).
 *
 *   T V NAME(x)   the scalar type computed with, its vector, and names that end in its name (x_f32, x_f64)
 *   S KERNEL(x)   the type in memory, and names that end in its name
 *   I VI VU       the integers of equal width      VM   the mask      LANES   numbers in a vector
 *
 * A 16-bit float (STORED_AS_16) is converted where it is loaded and stored, and nowhere else. f32 comes before it: what does not
 * touch memory is shared.
 */
#define KERNEL(name) XENT_SUFFIXED(name, XENT_STORED)
#if XENT_REAL == 32
#define T float
#define I int32_t
#define V vf32
#define VI vi32
#define VU vu32
#define VM vm32
#define NAME(name) name##_f32
#else
#define T double
#define I int64_t
#define V vf64
#define VI vi64
#define VU vu64
#define VM vm64
#define NAME(name) name##_f64
#endif
#ifdef STORED_AS_16
#define S uint16_t
#else
#define S T
#endif
#define LANES ((int)(XENT_VBYTES / sizeof(T)))

#ifndef STORED_AS_16
#include "vmath.h"

#include "position.h"

#include "transpose.h"
#endif

#include "tile.h"

#include "transform.h"

#include "cut.h"

#include "softmax.h"

#include "cross_entropy.h"

#include "evaluate.h"

#include "elementwise.h"

#include "sigmoid.h"

#include "points.h"

#include "elements.h"

#include "position_losses.h"

#include "label_losses.h"

#include "distillation.h"

#ifndef STORED_AS_16
#include "im2col.h"

#include "patch.h"

#include "product.h"

#include "conv.h"

#include "pool.h"
#endif

/* What differs from type to type. The numbers of vmath.h and the like stay for the 16-bit floats. */
#undef KERNEL
#undef T
#undef I
#undef V
#undef VI
#undef VU
#undef VM
#undef S
#undef NAME
#undef LANES
#if XENT_REAL == 64
#undef EXP_DEGREE
#undef LOG_DEGREE
#undef LN2_HEAD
#undef LN2_TAIL
#undef MAGIC
#undef MAGIC_BITS
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef SQRT_HALF_BITS
#undef TINY
#undef LARGEST
#undef EXP_LOW
#undef EXP_HIGH
#undef FARTHEST
#undef LOG2_E
#undef STEPS
#undef LIMIT
#undef PIECE
#undef HEADROOM
#undef RAISE
#undef FAINT
#undef FIRST_GUESS
#undef LN2
#undef PARTS
#undef HEAD_START
#undef OTHER_REAL
#undef OTHER_CODE
#undef OWN_CODE
#endif
#undef XENT_REAL
#undef XENT_STORED
