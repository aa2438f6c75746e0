/* begin.h: the names of one stored type, on which every kernel is written. Included by each header that has code of a
 * type; what it defines stays until end.h.
 *
 *   T V NAME(x)   the scalar type computed with, its vector, and names that end in its name (x_f32, x_f64)
 *   S KERNEL(x)   the type in memory, and names that end in its name (x_f32, x_f64, x_f16, x_bf16)
 *   I VI VU       the integers of equal width      VM   the mask      LANES   numbers in a vector
 *
 * XENT_STORED says which: f64 unless it was defined before. The types come in the order f64, f32, f16, bf16: floats are
 * added up in doubles, and 16-bit floats are computed with as floats, converted where they are loaded and stored, and
 * nowhere else. So what does not touch memory is there already when STORED_AS_16 is defined. XENT_REAL has the bits of
 * T, for #if.
 */
#ifndef XENT_BEGUN
#define XENT_BEGUN

#include "base.h"
#include "simd/simd.h"

#include <math.h> /* here, before the names of one letter */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef XENT_STORED
#define XENT_STORED f64
#endif

/* What #if can ask of the four names. */
#define XENT_REAL_OF_f64 64
#define XENT_REAL_OF_f32 32
#define XENT_REAL_OF_f16 32
#define XENT_REAL_OF_bf16 32
#define XENT_NARROW_f64 0
#define XENT_NARROW_f32 0
#define XENT_NARROW_f16 1
#define XENT_NARROW_bf16 1
#define XENT_REAL XENT_CONCAT(XENT_REAL_OF_, XENT_STORED)

#if XENT_CONCAT(XENT_NARROW_, XENT_STORED)
#define STORED_AS_16
#endif

#if XENT_REAL == 64
#define XENT_DOUBLES_BEGUN
#define T double
#define I int64_t
#define V vf64
#define VI vi64
#define VU vu64
#define VM vm64
#define NAME(name) name##_f64
#else
#ifndef XENT_DOUBLES_BEGUN
#error "the stored types come in the order f64, f32, f16, bf16"
#endif
#define T float
#define I int32_t
#define V vf32
#define VI vi32
#define VU vu32
#define VM vm32
#define NAME(name) name##_f32
#endif
#ifdef STORED_AS_16
#ifndef XENT_FLOATS_BEGUN
#error "the stored types come in the order f64, f32, f16, bf16"
#endif
#define S uint16_t
#else
#define S T
#endif
#if XENT_REAL == 32
#define XENT_FLOATS_BEGUN
#endif
#define KERNEL(name) XENT_CONCAT(name##_, XENT_STORED)
#define LANES ((int)(XENT_VBYTES / sizeof(T)))

/* A constant that floats and doubles have different values of. */
#define BY_TYPE(of_floats, of_doubles) (sizeof(T) == sizeof(float) ? (of_floats) : (of_doubles))

#endif
