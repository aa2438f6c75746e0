"""The one file of error bounds: how far a result may lie from the exact one, and why.

Bounds are in units in the last place (ulp) of the result's dtype, at the expected value unless a scale is
named.
"""

import numpy as np

EPS64 = 2.0**-52

# exp and log1p by themselves: one final rounding, and less than half an ulp before it
VMATH_ULP = 1.0

# Elementwise results of 16 bits are computed in float32 and rounded once: half an ulp, and the 4 ulp of
# float32 from before that rounding, which are 8 / 2^13 of an ulp of float16 next to a power of two, and less
# elsewhere and in bfloat16. Where terms cancel, the float32 bound at their scale comes on top, as a slack.
ROUNDED = 0.502

# name: (float32, float64)
BOUNDS = {
    # exp within 1 ulp, a compensated sum, one division, one rounding of the difference to the maximum
    "probability": (4, 4),
    # log within 1 ulp, log1p of the rest where the class is the largest, one subtraction of numbers of one
    # sign
    "log_probability": (4, 4),
    # max + log1p(rest): two roundings, at the scale max(|result|, |largest logit|), as their sum may cancel
    "logsumexp": (2, 2),
    # with factors b a sum of either sign: scale max(|result|, |largest logit|, sum |b e| / |sum b e|)
    "logsumexp_b": (4, 4),
    # the log-probability of one class, or a sum of terms of one sign over the classes; see also `summed`
    "loss": (4, 4),
    # plain cross-entropy: a probability, or -rest / total at the target, times one factor
    "gradient": (4, 4),
    # weights, smoothing, probability targets: a p_c - b w_c - d may cancel, so at the scale |a p_c| + |b w_c|
    # + |d|
    "affine_gradient": (4, 4),
    "sigmoid": (4, 4),
    "log_sigmoid": (4, 4),
    # y (g - sum g y) and g - p sum g may cancel, so at the scale of the sum of magnitudes. The sum over the
    # classes accumulates in float64: invisible in float32, see `summed` for float64
    "backward": (4, 4),
    # y_i y_j is one product; on the diagonal y - y^2 may cancel, so at the scale y + y^2
    "jacobian": (2, 2),
    # a sum over a window and one division, at the scale of the mean of magnitudes; windows here have at most
    # 49 cells
    "average": (4, 4),
}


def bound(name, dtype, summed=1):
    """Bound `name` in ulp of `dtype`, where `summed` numbers of about one magnitude were added up.

    Sums accumulate in float64, so that their roundings vanish in float32; in float64 n additions random-walk
    to about sqrt(n) / 6 ulp, of which three standard deviations are allowed.
    """
    single, double = BOUNDS[name]
    return single if dtype == np.float32 else double + (0.5 * np.sqrt(summed) if summed > 1 else 0.0)


# A quotient logits / temperature that is no power of two away is rounded, and an error of u is an error of u
# in exp(u): a relative error of half an ulp of 1 for each unit of |u_c| and |max u| (twice that for
# multiplying with the rounded 1 / temperature).
def temperature_error(scaled, axis, dtype):
    """Relative error of probabilities that comes from rounding scaled = logits / temperature."""
    return float(np.finfo(dtype).eps) * (np.abs(scaled) + np.abs(scaled.max(axis, keepdims=True)))


def reference_error(x, axis=-1):
    """Relative error of the probabilities (absolute error of the log-probabilities) of xent.reference itself.

    The literal formulas in float64 round x - max and log(sum) at the magnitude of the logits. Invisible in
    float32 except for confident predictions; float64 is therefore held against mpmath as well.
    """
    if x.shape[axis] == 0:
        return 0.0
    return EPS64 * (8 + 2 * np.abs(x.astype(np.float64)).max(axis, keepdims=True) + np.log2(x.shape[axis]))


def convolution(terms, magnitude, dtype):
    """Absolute bound of a sum of `terms` products whose magnitudes add up to `magnitude`.

    Adding n numbers in turn rounds n times, each by at most half an ulp of a partial sum, and no partial sum
    is larger than the magnitude: a standard deviation of about eps/6 sqrt(n) of it. A blocked sum (several
    accumulators, a reduction that is stored and gone on with, partial sums of a gradient) has the same number
    of additions and no larger partial sums, and a product that is not fused rounds once more, at its own
    magnitude: so no order of the sum needs a bound of its own. Twelve standard deviations, for both sides
    (the reference adds up in float64 too), are below what one missing product makes up to some 20,000 terms
    of float32; for more of them only whole numbers tell.
    """
    return 2 * float(np.finfo(dtype).eps) * np.sqrt(terms + 1) * magnitude


def linear_layer(x, weight, bias, g, dtype):
    """Absolute bounds of what a loss of the scores x @ weight.T + bias is made of, in float64.

    `g` (N, C) are magnitudes of which the derivatives by the scores are sums. A score is a sum of D products,
    and may be off by d = `convolution` of it. A softmax loss moves by at most 2 d then (a difference of two
    scores), a probability p_c by 2 d p_c, and so a derivative by 2 d of its magnitudes; 8 eps are for its own
    roundings. The gradients inherit that, and are sums of products themselves. Returns the bounds of (loss
    of each position for a derivative of magnitude 1, grad_x, grad_weight, grad_bias).
    """
    x, weight = np.abs(x.astype(np.float64)), np.abs(weight.astype(np.float64))
    size = x @ weight.T + (0 if bias is None else np.abs(bias.astype(np.float64)))
    d = convolution(x.shape[1] + 1, size, dtype).max(axis=1, initial=0.0, keepdims=True)
    off = (2 * d + 8 * float(np.finfo(dtype).eps)) * g
    grad_x = off @ weight + convolution(g.shape[1], g @ weight, dtype)
    grad_weight = off.T @ x + convolution(len(g), g.T @ x, dtype)
    return 2 * d[:, 0], grad_x, grad_weight, off.sum(axis=0) + convolution(len(g), g.sum(axis=0), dtype)


# Central differences with step 1e-5 of functions with derivatives of order one: h^2 / 6 + eps / h, times ten.
DIFFERENCES = 1e-9
