/* real.h: the kernels of every operator for one real type. Include with XENT_REAL 32 or 64; names end in _f32 or _f64.
 *
 *   T V       the scalar type computed in, and its vector          S   the type in memory (16-bit floats will differ from T)
 *   I VI VU   the integers of equal width                          LANES   numbers in a vector
 */
#if XENT_REAL == 32
#define T float
#define I int32_t
#define V vf32
#define VI vi32
#define VM vm32
#define NAME(name) name##_f32
#else
#define T double
#define I int64_t
#define V vf64
#define VI vi64
#define VM vm64
#define NAME(name) name##_f64
#endif
#define S T
#define LANES ((int)(XENT_VBYTES / sizeof(T)))

#if XENT_REAL == 32
typedef uint32_t vu32 __attribute__((vector_size(XENT_VBYTES)));
#define VU vu32
#else
typedef uint64_t vu64 __attribute__((vector_size(XENT_VBYTES)));
#define VU vu64
#endif

#include "vmath.h"

#if XENT_REAL == 64
#include "position.h"
#endif

#include "tile.h"

#include "softmax.h"

#include "cross_entropy.h"

#include "elementwise.h"

#include "im2col.h"

#include "conv.h"

#include "pool.h"

#undef T
#undef I
#undef V
#undef VI
#undef VU
#undef VM
#undef S
#undef NAME
#undef LANES
#undef EXP_DEGREE
#undef LOG_DEGREE
#undef LN2_HEAD
#undef LN2_TAIL
#undef MAGIC
#undef MAGIC_BITS
#undef MANTISSA_BITS
#undef EXPONENT_BIAS
#undef SQRT_HALF_BITS
#undef EXP_LOW
#undef EXP_HIGH
#undef LOG2_E
#undef HEADROOM
#undef RAISE
#undef LIMIT
#undef LIFT
#undef XENT_REAL
