"""Texts of parameters that several docstrings share: each stands here once, without indentation.

A docstring names an entry on a line of its own, ``<name>``. ``{x}`` in an entry is the first argument of the
function. Where the meaning of a parameter differs between families, its entries are told apart by "of".
In xent.torch an "array_like" of an entry is a "Tensor".
"""

from collections.abc import Callable
from typing import TypeVar

Function = TypeVar("Function", bound=Callable[..., object])


def _reduction(each, means):
    return f"""reduction : {{"mean", "sum", "none", "mean_valid", "mean_full", "mean_batch"}}, optional
    "none": one loss per {each}. "sum": their sum. A mean over nothing is 0.
    {means}
    "mean_batch": over the length of the first axis."""


_COUNTED = """"mean_valid": over the number of counted positions. "mean_full": over that of all positions."""

ENTRIES = {
    # ---- what a function is given ----
    "logits": """logits : array_like of float, shape (..., C, ...)
    Unnormalised log-probabilities. Integers and bools become float64.""",
    "logits of elements": """logits : array_like of float
    Log-odds, of any shape. Integers and bools become float64.""",
    "log_probs": """log_probs : array_like of float, shape (..., C, ...)
    Log-probabilities in nats, such as `log_softmax` returns. Integers and bools become float64.""",
    "probs": """probs : array_like of float, shape (..., C, ...)
    Probabilities, such as `softmax` returns. They are not normalised. Integers and bools become float64.""",
    "probs of elements": """probs : array_like of float
    Probabilities, such as `sigmoid` returns. Integers and bools become float64.""",
    "student_logits": """student_logits : array_like of float, shape (..., C, ...)
    Logits of the student. Integers and bools become float64.""",
    "teacher_logits": """teacher_logits : array_like of float
    Logits of the teacher, of the shape of `student_logits`; no gradient is taken by them.""",
    "student_logits of sparse": """student_logits : array_like of float, shape (..., C)
    Logits of the student. Integers and bools become float64.""",
    "teacher_ids": """teacher_ids : array_like of int, shape (..., k)
    k different classes of each position, in any order: those that are most probable for the teacher.""",
    "teacher_log_probs": """teacher_log_probs : array_like of float, shape (..., k)
    Their log-probabilities in nats; no gradient is taken by them.""",
    "tail": """tail : {"bucket", "renormalize", "drop"}, optional
    What becomes of the mass that the k leave: one class more, the k alone, or nothing.""",
    "temperature of sparse": """temperature : float, optional
    T, greater than 0: the student's logits are divided by it.""",
    "sample_weight of any sign": """sample_weight : array_like of float, optional
    One factor per position, finite; multiplies the whole loss of the position. A position of weight 0 is not
    there, even if it holds NaN.""",
    "pred": """pred : array_like of float
    Predictions. Integers and bools become float64.""",
    "x": """x : array_like of float
    Integers and bools become float64.""",
    "x of softmax": """x : array_like of float, shape (..., C, ...)
    Logits. Integers and bools become float64.""",
    "y of softmax": """y : array_like of float, shape (..., C, ...)
    ``softmax(x)``.""",
    "grad of y": """grad : array_like of float
    Gradient of a scalar with respect to ``y``, of the shape of `y`.""",
    # ---- targets ----
    "target": """target : array_like
    Labels: integers of any integer dtype, of the shape of the positions, in ``[0, C)`` or `ignore_index`. Or
    probabilities: floats, of the shape of `{x}`; they are not normalised.""",
    "target of labels": """target : array_like of int
    Labels, of the shape of the positions, in ``[0, C)`` or `ignore_index`.""",
    "target of probs": """target : array_like
    Labels: integers of any integer dtype, of the shape of the positions, in ``[0, C)``. Or probabilities:
    floats, of the shape of `probs`; they are not normalised.""",
    "target of elements": """target : array_like
    Probabilities or labels 0 and 1, of the shape of `probs`; others are an error. Where float32 would round
    those of float64, all is computed in float64, and results are rounded.""",
    "target of sigmoid_cross_entropy": """target : array_like
    Of the shape of `{x}`: integers or bools, 0 or 1 (or `ignore_index`), or probabilities: floats in
    [0, 1].""",
    "target of kl_div": """target : array_like of float
    Probabilities, or with `log_target` their logarithms in nats, of the shape of `log_probs`.""",
    "log_target": """log_target : bool, optional
    Whether `target` holds logarithms.""",
    "target of mse_loss": """target : array_like of float
    Of the shape of `pred`. Where float32 would round numbers of float64, all is computed in float64, and
    results are rounded.""",
    "ids": """ids : array_like of int
    Numbers of classes, in ``[0, C)``: one for each position, in the shape of the positions, or K of them,
    in the shape of `{x}` with K in the place of C: (..., K), or (N, K, d) for logits (N, C, d) whose classes
    are along axis 1. A class that occurs twice is answered twice.""",
    # ---- gradients and results ----
    "grad_output": """grad_output : array_like of float, optional
    Upstream gradient, of the shape of the loss; None means 1.""",
    "out": """out : ndarray, optional
    Where to put the gradient: the shape of `{x}` and the dtype of the result. It may be
    `{x}` itself.""",
    "out of results": """out : ndarray, optional
    Where to put the result: the shape of `{x}` and the dtype of the result. It may be `{x}` itself.""",
    "out of y": """out : ndarray, optional
    Where to put the result. It may be `grad` or `y` itself.""",
    # ---- options ----
    "axis": """axis : int, optional
    The class axis. Every other axis is a position.""",
    "axis of softmax": """axis : int, tuple of int or None, optional
    The class axis, or several axes that are one; None means all of them. Every other axis is a position.""",
    "axis or None": """axis : int or None, optional
    The class axis. Every other axis is a position. None: every element is a position of its own.""",
    "weight of classes": """weight : array_like of float, shape (C,), optional
    w: one factor per class, of either sign. The terms of a class with a weight of 0 are not there.""",
    "weight of elements": """weight : array_like of float, optional
    Factors of the elements, finite, of either sign; any shape that broadcasts to that of `{x}`. An element
    whose weight is 0 is not there, be it infinite or NaN.""",
    "pos_weight": """pos_weight : array_like of float, optional
    Factors of the first term, that of t, finite and not negative, of any such shape; typically one per class,
    such as the negative examples per positive one.""",
    "weight of labels": """weight : array_like of float, shape (C,), optional
    w: one finite factor per class, of either sign. Positions whose label has the weight 0 are not there.""",
    "sample_weight": """sample_weight : array_like of float, optional
    One factor per position, of either sign; multiplies the whole loss of the position. One with a weight of 0
    is not there, be it infinite or NaN.""",
    "ignore_index": """ignore_index : int or tuple of int, optional
    Positions with this label, or one of several, count for nothing: loss 0, gradient 0. (Index targets
    only.)""",
    "ignore_index of evaluations": """ignore_index : int or tuple of int, optional
    Positions with this label, or one of these, are not counted.""",
    "base of evaluations": """base : float, optional
    Base, greater than 1, of the logarithms: 2 for bits, 10 for dits, None for nats.""",
    "ignore_index of elements": """ignore_index : int, optional
    Elements with this target count for nothing: loss 0, gradient 0. (Integer targets only.)""",
    "label_smoothing": """label_smoothing : float, optional
    e in [0, 1]: mixes the uniform distribution into the target, ``t = (1 - e) * onehot + e / C``, class
    weights included.""",
    "label_smoothing of elements": """label_smoothing : float, optional
    e in [0, 1]: ``t = (1 - e) * target + e / 2``.""",
    "z_loss": """z_loss : float, optional
    Factor, at least 0, of the square of the log-sum-exp that is added to the loss of each position.""",
    "gamma": """gamma : float, optional
    Exponent, at least 0, of the focal loss: ``(1 - p[c])**gamma`` multiplies ``-log(p[c])`` of each class c
    of the target.""",
    "gamma of elements": """gamma : float, optional
    Focal loss: the elements are multiplied by ``(1 - p_t)**gamma``, gamma >= 0, which takes weight from what
    is predicted well.""",
    "alpha": """alpha : float, optional
    alpha in [0, 1]: the elements are multiplied by ``alpha * t + (1 - alpha) * (1 - t)``. None: by 1.""",
    "temperature": """temperature : float, optional
    T, greater than 0: the logits are divided by it.""",
    "logit_cap": """logit_cap : float, optional
    c, greater than 0: logits u, after the temperature, become ``c * tanh(u / c)``.""",
    "prior": """prior : array_like of float, shape (C,), optional
    One positive class frequency per class; its logarithm is added to the logits in the end.""",
    "ranks": """ranks : bool, optional
    Whether the ranks are wanted too.""",
    "clip": """clip : float, optional
    e in (0, 1): probabilities are bounded to [e, 1] before the logarithm.""",
    "clip of elements": """clip : float, optional
    e in (0, 0.5): probabilities are bounded to [e, 1 - e] before the logarithm.""",
    "base": """base : float, optional
    Base of the logarithm, greater than 0 and not 1: 2 for bits, 10 for dits; None for nats.""",
    "reduction of positions": _reduction(
        "position", '"mean", "mean_valid" and "mean_full": over the number of positions.'
    ),
    "reduction of elements": _reduction(
        "element", '"mean", "mean_valid" and "mean_full": over the number of elements.'
    ),
    "reduction of kl_div": _reduction(
        "position",
        '"mean", "mean_valid" and "mean_full": over the number of positions (of elements without an axis).',
    ),
    "reduction of nll_loss": _reduction(
        "position", f'"mean": over the sum of the weights ``w[y]`` of counted positions.\n    {_COUNTED}'
    ),
    "reduction of cross_entropy": _reduction(
        "position",
        f""""mean": over the sum of the weights ``w[y] * sample_weight`` of counted positions
    (probability targets: over that of the sample weights).
    {_COUNTED}""",
    ),
    "reduction of sigmoid_cross_entropy": _reduction(
        "element",
        """"mean" and "mean_valid": over the number of elements that are not ignored, whatever their weights.
    "mean_full": over the number of all elements.""",
    ),
    # ---- a linear layer and its loss ----
    "x of a layer": """x : array_like of float, shape (..., D)
    What goes into the layer: D features for each position.""",
    "read in parts": """It is read part by part, and may be a ``numpy.memmap`` that is larger than memory.""",
    "weight of a layer": """weight : array_like of float, shape (C, D)
    The weights of the layer, a row for each class.""",
    "rows in use": """Only the rows of labels and samples are read.""",
    "target of a layer": """target : array_like
    Labels: integers of any integer dtype, of the shape of the positions, in ``[0, C)`` or `ignore_index`. Or
    probabilities: floats, of shape (..., C); they are not normalised.""",
    "target of samples": """target : array_like of int
    Labels, of the shape of the positions, in ``[0, C)``.""",
    "bias of a layer": """bias : array_like of float, shape (C,), optional
    Added to ``x @ weight.T``. A list takes the dtype of `x`.""",
    "class_weight": """class_weight : array_like of float, shape (C,), optional
    One factor per class, of either sign: `weight` of `cross_entropy`.""",
    "options of a layer": """sample_weight, ignore_index, label_smoothing, z_loss, gamma, temperature, \
logit_cap, prior, reduction
    As in `cross_entropy`.""",
    "chunk_bytes": """chunk_bytes : int, optional
    The most memory in bytes that is held beside the arguments and the results, on any number of threads, if
    that is enough for one position. By default a third of the logits, and no more than 128 MiB (a loss alone:
    64 MiB), but 4 MiB at least. More is faster: see the notes of the page on linear layers.""",
    "noise": """noise : array_like of int, shape (K,) or (..., K)
    Classes that were drawn from the noise distribution, for all positions together or for each. A class that
    occurs twice counts twice.
noise_log_prob : array_like of float, shape (C,)
    The logarithm of q, the probability of each class under the noise distribution.""",
    "sampled": """sampled : array_like of int, shape (K,) or (..., K)
    Classes that were drawn, for all positions together or for each. A sample that is the label is left out;
    one that occurs twice counts twice.
sampled_log_prob : array_like of float, shape (C,)
    The logarithm of q, the probability of each class to be drawn, or of the expected number of draws: a
    constant added to it does not matter.""",
    "loss of a layer": """scalar or ndarray
    The loss in nats: float64 if any of `x`, `weight` and `bias` is, else float32. Sums are accumulated in
    float64.""",
    "grads of a layer": """grads : tuple of ndarray
    The gradients by `x`, `weight` and `bias` (None without a bias), each of the shape and dtype of its
    argument (float64 for integers). For ``reduction="none"`` they are those of the sum of the losses.""",
    "rows of zeros": """Rows of classes that are neither label nor sample are 0.""",
    # ---- images and windows ----
    "x of images": """x : array_like of float, shape (N, C, H, W)
    Images. Integers and bools become float64.""",
    "x of the forward pass": """x : array_like of float, shape (N, C, H, W)
    The images of the forward pass.""",
    "x of signals": """x : array_like of float, shape (N, C, L)
    Signals. Integers and bools become float64.""",
    "options of signals": """stride, dilation : int, optional
    Steps between windows and between the elements of a window.
padding : int, (int, int), "valid" or "same", optional
    Zeros around the signal: one number; (left, right). "valid" is 0. "same" makes the output
    ``ceil(L / stride)`` long, with the odd zero at the right.""",
    "grad of images": """grad : array_like of float, shape (N, C, OH, OW)
    Gradient of a scalar with respect to the output.""",
    "kernels": """Kernels. Where floating dtypes differ, all arrays are promoted as in NumPy.""",
    "bias of channels": """bias : array_like of float, shape (O,), optional
    Added to each output channel. A list takes the dtype of the arrays.""",
    "out of images": """out : ndarray, optional
    Where to put the result: its shape and dtype, apart from the inputs in memory.""",
    "needs": """needs : (bool, bool, bool), optional
    Which of the three gradients to compute.""",
    "out of gradients": """out : (ndarray or None, ndarray or None, ndarray or None), optional
    Where to put the gradients: their shapes and dtype, apart from the inputs and each other in memory. None
    for one that gets a new array, or that `needs` leaves out.""",
    "stride, dilation": """stride, dilation : int or (int, int), optional
    Steps between windows and between the elements of a window: one number, or (vertical, horizontal).""",
    "padding": """padding : int, (int, int), ((int, int), (int, int)), "valid" or "same", optional
    Zeros around the image: one number; (vertical, horizontal); ((top, bottom), (left, right)). "valid" is 0.
    "same" makes the output ``ceil(size / stride)`` large, with the odd zero at the bottom or right.""",
    "options of a transpose": """stride, dilation, groups
    Of the convolution whose transpose this is, as in `conv2d`.
padding : int, (int, int), ((int, int), (int, int)), "valid" or "same", optional
    Of that convolution: so many pixels are cut off the output. "same" needs an `output_size`.
output_padding : int or (int, int), optional
    Pixels that the output has more at the bottom and right: a convolution with a stride gives the same
    size for several sizes of its input. Less than `stride` or `dilation`.
output_size : int or (int, int), optional
    Height and width of the output, in place of `output_padding`: one of the `stride` sizes from which the
    convolution makes that of `x`.""",
    "groups": """groups : int, optional
    Divides the channels into groups that do not see each other; ``groups=C`` is a depthwise convolution.""",
    "kernel_size": """kernel_size : int or (int, int)
    Size of the window.""",
    "stride of pooling": """stride : int or (int, int), optional
    Steps between windows; None means `kernel_size`.""",
    "padding of pooling": """padding : int, (int, int), ((int, int), (int, int)), "valid" or "same", optional
    Cells around the image: one number; (vertical, horizontal); ((top, bottom), (left, right)). "valid" is 0.
    "same" makes the output ``ceil(size / stride)`` large, with the odd cell at the bottom or right. Of any
    size that leaves a pixel in every window.""",
    "dilation of pooling": """dilation : int or (int, int), optional
    Steps between the elements of a window.""",
    "ceil_mode": """ceil_mode : bool, optional
    Keep a last window that hangs over the edge, if it starts inside the image or the padding before it.""",
    "count_include_pad": """count_include_pad : bool, optional
    Whether the divisor counts the padding. Cells beyond it, under a window of `ceil_mode`, never count.""",
    "divisor_override": """divisor_override : int, optional
    What the sum of each window is divided by instead of its number of cells; 1 gives the sums.""",
}
ENTRIES["options of cross_entropy"] = "\n".join(
    ENTRIES[name]
    for name in (
        *("axis", "weight of classes", "sample_weight", "ignore_index", "label_smoothing", "z_loss"),
        *("gamma", "temperature", "logit_cap", "prior", "reduction of cross_entropy"),
    )
)


def documented(function: Function) -> Function:
    """Put entries in the place of the lines that name them, as far indented as these lines are."""
    if function.__doc__ is None:  # under python -OO
        return function
    first, (text, *rest) = function.__code__.co_varnames[0], function.__doc__.split("<")
    array = "Tensor" if function.__module__ == "xent.torch" else "array_like"
    for part in rest:
        indent = text[text.rfind("\n") + 1 :]
        name, end, after = part.partition(">\n")
        if end and not indent.strip():
            entry = ENTRIES[name].replace("{x}", first).replace("array_like", array)
            text += entry.replace("\n", "\n" + indent) + "\n" + after
        else:
            text += "<" + part
    function.__doc__ = text
    return function
