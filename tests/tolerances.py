"""The one file of error bounds: how far a result may lie from the exact one, and why.

Bounds are in units in the last place (ulp) of the result's dtype, at the expected value unless a scale is
named.
"""

import numpy as np

import xent

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
    # two exponentials, one of them e^-y for all classes, and the product of both with the incoming gradient
    "logsumexp_backward": (4, 4),
    # the log-probability of one class, or a sum of terms of one sign over the classes; see also `summed`
    "loss": (4, 4),
    # plain cross-entropy: a probability, or -rest / total at the target, times one factor
    "gradient": (4, 4),
    # weights, smoothing, probability targets: a p_c - b w_c - d may cancel, so at the scale |a p_c| + |b w_c|
    # + |d|
    "affine_gradient": (4, 4),
    # two softmaxes: probabilities within 4 ulp, and a difference of log-probabilities, whose square counts
    "distillation": (8, 8),
    # k + 1 entries in doubles, with a tail that is a sum of rounded exponentials: see `sparse_distillation`
    "sparse_distillation": (4, 6),
    "sigmoid": (4, 4),
    "log_sigmoid": (4, 4),
    # a sum of two numbers of one sign, each a product of a target and a softplus
    "sigmoid_loss": (4, 4),
    # a probability (exp, one sum, one quotient, one product) times one factor; for targets between 0 and 1
    # two terms may cancel, so at the scale of their magnitudes
    "sigmoid_gradient": (4, 4),
    # what weight, pos_weight and alpha add to both: half an ulp for each of four products
    "sigmoid_weights": (2, 2),
    # for each unit of gamma, with one for the products that put the parts together: (1 - p_t)^gamma has
    # gamma times the relative error of 1 - p_t, which is a sum of two products of probabilities
    "sigmoid_focus": (3, 3),
    # y (g - sum g y) and g - p sum g may cancel, so at the scale of the sum of magnitudes. The sum over the
    # classes accumulates in float64, of rows in groups of eight that are floats: half an ulp for each of
    # three additions, the product, the sum and two of the result; exp within 1 ulp. See `summed` for float64
    "backward": (4, 4),
    # y_i y_j is one product; on the diagonal y - y^2 may cancel, so at the scale y + y^2
    "jacobian": (2, 2),
    # U p (1 - p) and a constant: two numbers of 4 ulp each, multiplied, and the factors
    "hessian": (9, 9),
    # a few products of probabilities, differences v_c - p.v and factors, some of which cancel: at the scale
    # of the sum of the magnitudes of all terms. See `summed` for the sum p.v in float64
    "hessian_vector": (16, 16),
    # per position and class a square of a probability or p log p: two numbers of 4 ulp each, multiplied;
    # sums over classes and positions of numbers of one sign. The sums themselves are float64.
    "evaluation": (9, 9),
    # terms of one sign, as of "distillation"; one beyond 2 ln 2 loses up to a factor of 4 (comparison.h)
    "comparison": (12, 12),
    # a sum over a window that counts for at most three and a half roundings, and one division, at the scale
    # of the mean of magnitudes; pool.h says why
    "average": (4, 4),
}


# A gradient with soft targets is a p_c - b w_c (mix t_c + base), times the slope of a cap: seven roundings,
# which reach 4 ulp next to never. Where no instruction multiplies and adds in one rounding, they are eight.
UNFUSED = 0.5 if xent.show_config(mode="dicts")["isa"] == "baseline" else 0.0


# (1 - p)^gamma turns a relative error of 1 - p into gamma times that, and the factor of the gradient,
# (1 - p)^gamma (1 + gamma p l / (1 - p)), is no more sensitive.
def focal(ulps, gamma):
    """A bound in ulp of what is multiplied with the factor of the focal loss."""
    return ulps * (1 + gamma)


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


def transform_error(logits, axis, temperature=1.0, logit_cap=None, prior=None):
    """Relative error of probabilities that comes from transforming logits in float64, twice: on both sides.

    Beside the quotient, at most four roundings of the capped logit (tanh within 2 ulp, the quotient by and
    the product with the cap; the quotient by the temperature is damped by the cap), one of log(prior) and one
    of the sum. Invisible in float32 and 16 bits, of which transformed logits are sums of two numbers.
    """
    if temperature == 1.0 and logit_cap is None and prior is None:
        return 0.0
    with np.errstate(all="ignore"):
        size = np.abs(logits / temperature)
        if logit_cap is not None:
            size = 5 * np.minimum(size, logit_cap)
        if prior is not None:
            along = [1] * logits.ndim
            along[axis] = -1
            size = 2 * (size + np.abs(np.log(prior)).reshape(along))
    return 2 * temperature_error(np.where(np.isfinite(size), size, 0.0), axis, np.float64)


def slope_error(logits, temperature=1.0, logit_cap=None):
    """Relative error of sech^2(v / cap), v = logits / temperature, of the reference itself.

    exp(-2 |v / cap|) turns the two roundings of its argument into relative errors of that size. The other
    side takes the exponential of a sum of two numbers.
    """
    if logit_cap is None:
        return 0.0
    with np.errstate(all="ignore"):
        ratio = np.abs(logits / temperature / logit_cap)
    return EPS64 * (8 + 2 * np.where(np.isfinite(ratio), ratio, 0.0))


def lse_error(lse, largest, dtype):
    """Absolute error of a log-sum-exp: `logsumexp` above, max + log1p(rest), whose sum may cancel."""
    eps = 2.0**-52 if dtype == np.float64 else 2.0**-23
    return 2 * bound("logsumexp", dtype) * eps * np.maximum(np.abs(lse), np.abs(largest))


def reference_error(x, axis=-1):
    """Relative error of the probabilities (absolute error of the log-probabilities) of xent.reference itself.

    The literal formulas in float64 round x - max and log(sum) at the magnitude of the logits. Invisible in
    float32 except for confident predictions; float64 is therefore held against mpmath as well.
    """
    if x.shape[axis] == 0:
        return 0.0
    return EPS64 * (8 + 2 * np.abs(x.astype(np.float64)).max(axis, keepdims=True) + np.log2(x.shape[axis]))


def convolution(terms, magnitude, dtype):
    """Absolute bound of a sum of `terms` products whose magnitudes add up to `magnitude`, whatever they are.

    At most 128 terms are added up one after the other (PARTIAL in product.h), then such sums, of which most
    have more than 64 terms, then the lanes of a vector, at most 16. So no term meets more roundings than that
    (a product that is not fused rounds once more, and so does a bias), and each is at most half an ulp of a
    partial sum, none of which is larger than the magnitude. All of one sign and direction, as those of equal
    numbers, may come close to it; others stay below its square root. It is below what one missing product
    makes up to some 20,000 terms of float32; for more of them only whole numbers tell. Images of 16 bits are
    computed in float32, whose bound is a slack beside `ROUNDED` then.
    """
    roundings = np.minimum(terms, 128) + np.asarray(terms) / 64 + 18
    return float(np.finfo(dtype).eps) / 2 * roundings * magnitude


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


def sparse_distillation(loss, tail, left, mass):
    """Scale of a loss of sparse distillation, and a slack beside the bound, as float64.

    `tail` and `left` are what the classes beside the k have of the student's mass and of the teacher's, and
    `mass` is W, the teacher's whole mass, or None with "renormalize", where the k are exact but for the last
    rounding. The tail is a sum of exponentials within an ulp, which is one of abs(W tail - left) in the loss.
    With mass W the loss is W (KL + log W), whose terms cancel where W is less than 1. The masses of the
    teacher are known to half of EPS64, as exponentials are, and with them log W and log(left).
    """
    if mass is None:
        return np.abs(loss), 0.0
    with np.errstate(all="ignore"):
        log_mass = np.where(mass > 0, np.abs(np.log(mass)), 0.0)
        log_ratio = np.where((left > 0) & (tail > 0), np.abs(np.log(left / tail)), 0.0)
    return np.abs(loss) + np.abs(mass * tail - left) + mass * log_mass, EPS64 / 2 * (mass + log_ratio)


# Central differences with step 1e-5 of functions with derivatives of order one: h^2 / 6 + eps / h, times ten.
DIFFERENCES = 1e-9
