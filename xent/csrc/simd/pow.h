/* pow.h: powers of doubles on the vector vocabulary. libm has other bits from machine to machine.
 *
 * x^y = e^(y log x) with the logarithm, and its product with y, as sums of two numbers: what the smaller one is, times
 * the result, is added at the end. The logarithm has an error of some tenths of 2^-53, which is one of y times that in
 * the result: tests/test_simd.py holds it to 1.5 + y / 2 ulp.
 */
#include "begin.h"
#include "simd/exp.h"
#include "simd/log.h"
#include "simd/sums.h"

#if !defined(XENT_POW_H) && XENT_REAL == 64
#define XENT_POW_H

/* x^y for 0 <= x <= 1 and y > 0; NaN stays. */
ALWAYS_INLINE vf64 v_pow(vf64 x, vf64 y)
{
    const vf64 zero = {0};
    vf64 shift, small;
    const vf64 u = made_normal_f64(x, &shift), large = log_pair_f64(u, shift, zero, &small);
    const vf64 high = large + small, low = small - (high - large);
    const vf64 product = y * high, rest = product_error_f64(y, high, product) + y * low;
    const vf64 power = exp_f64(product);
    /* where it is far from vanishing; else there may be an infinite product */
    const vf64 exact = v_fma(power, v_select(m_gt(set_f64(-EXP_LOW), v_abs(product)), rest, zero), power);
    return v_select(m_eq(x, x), v_select(m_gt(x, zero), exact, zero), x);
}

#endif
