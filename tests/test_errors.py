"""Every error a user can make: its type, what its message names, and that nothing was written before it."""

import sys

import ml_dtypes
import numpy as np
import pytest
from helpers import peak_bytes, raises

import xent

try:
    import resource
except ImportError:  # on Windows
    resource = None

X = np.zeros((3, 5))
LABELS = np.array([0, 4, 2])
CUBE = np.zeros((2, 5, 3))
CUBE_LABELS = np.zeros((2, 3), int)
IMAGE = np.zeros((2, 4, 6, 7))
KERNEL = np.zeros((8, 4, 3, 3))
FORWARD = np.zeros((2, 8, 4, 5))  # of IMAGE and KERNEL
COLUMNS = np.zeros((2, 36, 20))  # of IMAGE and a kernel of 3
POOLED = np.zeros((2, 4, 3, 3))  # of IMAGE and a kernel of 2

# name: (positional arguments that are right, names of the first of them, which are floating)
ELEMENTWISE = {
    "softmax": ([X], ["x"]),
    "log_softmax": ([X], ["x"]),
    "logsumexp": ([X], ["x"]),
    "softmax_backward": ([X, X], ["grad", "y"]),
    "log_softmax_backward": ([X, X], ["grad", "y"]),
    "softmax_jacobian": ([X], ["y"]),
    "sigmoid": ([X], ["x"]),
    "log_sigmoid": ([X], ["x"]),
    "sigmoid_backward": ([X, X], ["grad", "y"]),
    "log_sigmoid_backward": ([X, X], ["grad", "y"]),
}
CROSS_ENTROPY = ["cross_entropy", "cross_entropy_grad", "cross_entropy_value_and_grad"]
NLL = ["nll_loss", "nll_loss_grad", "nll_loss_value_and_grad"]
LOSSES = {name: ([X, LABELS], ["logits"]) for name in CROSS_ENTROPY}
LOSSES |= {name: ([X, LABELS], ["log_probs"]) for name in NLL}
IMAGES = {
    "conv2d": ([IMAGE, KERNEL], ["x", "weight"]),
    "conv2d_backward": ([FORWARD, IMAGE, KERNEL], ["grad", "x", "weight"]),
    "conv_transpose2d": ([FORWARD, KERNEL], ["x", "weight"]),
    "conv_transpose2d_backward": ([IMAGE, FORWARD, KERNEL], ["grad", "x", "weight"]),
    "im2col": ([IMAGE, 3], ["x"]),
    "col2im": ([COLUMNS, (6, 7), 3], ["cols"]),
    "max_pool2d": ([IMAGE, 2], ["x"]),
    "max_pool2d_backward": ([POOLED, IMAGE, 2], ["grad", "x"]),
    "avg_pool2d": ([IMAGE, 2], ["x"]),
    "avg_pool2d_backward": ([POOLED, IMAGE, 2], ["grad", "x"]),
}
FUNCTIONS = ELEMENTWISE | LOSSES | IMAGES
AXIS = ["softmax", "log_softmax", "logsumexp", "softmax_backward", "log_softmax_backward", "softmax_jacobian"]
WITH_OUT = [
    "softmax",
    "log_softmax",
    "softmax_backward",
    "log_softmax_backward",
    "sigmoid",
    "log_sigmoid",
    "sigmoid_backward",
    "log_sigmoid_backward",
    "cross_entropy_grad",
    "cross_entropy_value_and_grad",
    "nll_loss_grad",
    "nll_loss_value_and_grad",
    "logsumexp",
    "conv2d",
    "conv_transpose2d",
    "im2col",
    "col2im",
]
OUT_SHAPES = {
    "logsumexp": (3,),
    "conv2d": FORWARD.shape,
    "conv_transpose2d": (2, 4, 6, 7),
    "im2col": COLUMNS.shape,
    "col2im": IMAGE.shape,
}


def expected_out(name):
    """Shape of the out of FUNCTIONS[name]."""
    return OUT_SHAPES.get(name, X.shape)


def spelled(dtype):
    """What a message must say of a dtype; strings and raw bytes have several names."""
    return "" if dtype.type in (np.str_, np.bytes_, np.void) else dtype.name


def call(name, *args, **options):
    return getattr(xent, name)(*args, **options)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_the_errors_below_are_about_is_right_otherwise(name):
    call(name, *FUNCTIONS[name][0])
    if name in WITH_OUT:
        call(name, *FUNCTIONS[name][0], out=np.zeros(expected_out(name)))


# Data -------------------------------------------------------------------------------------------------------


def floating(functions):
    """(name, index) of each floating argument."""
    return [(name, i) for name, (_, names) in functions.items() for i in range(len(names))]


def assert_refused(name, which, kind):
    args, names = FUNCTIONS[name]
    args = list(args)
    args[which] = np.zeros(args[which].shape, kind)
    with raises(TypeError, names[which], spelled(args[which].dtype)):
        call(name, *args)


@pytest.mark.parametrize(
    "kind", ["complex64", "complex128", "O", "U1", "S1", "M8[s]", "m8[s]", "V2", ml_dtypes.float8_e4m3fn]
)
@pytest.mark.parametrize("name, which", floating(FUNCTIONS))
def test_dtype_of_data(name, which, kind):
    assert_refused(name, which, kind)


@pytest.mark.skipif(np.dtype("g").itemsize == 8, reason="long double is float64 here")
@pytest.mark.parametrize("name, which", floating(FUNCTIONS))
def test_long_double_would_lose_bits(name, which):
    assert_refused(name, which, "g")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_ragged_data(name):
    args = [[[1.0, 2.0], [3.0]], *FUNCTIONS[name][0][1:]]
    with pytest.raises((ValueError, TypeError)):
        call(name, *args)


# Axes and shapes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [2, -3, 10])
@pytest.mark.parametrize("name", AXIS)
def test_axis_out_of_range(name, axis):
    with raises(np.exceptions.AxisError, axis, 2):
        call(name, *FUNCTIONS[name][0], axis)


@pytest.mark.parametrize("axis", [2, -3])
@pytest.mark.parametrize("name", LOSSES)
def test_axis_of_a_loss_out_of_range(name, axis):
    with raises(np.exceptions.AxisError, axis, 2):
        call(name, X, LABELS, axis=axis)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "softmax_jacobian"])
def test_axis_of_a_scalar(name):
    with raises(np.exceptions.AxisError, -1, 0):
        call(name, np.float64(1))
    with raises(np.exceptions.AxisError, -1, 0):
        xent.cross_entropy(np.float64(1), 0)


@pytest.mark.parametrize("axis", [1.0, "1", [1]])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmax_backward", "softmax_jacobian"])
def test_axis_is_an_integer(name, axis):
    with pytest.raises(TypeError):
        call(name, *FUNCTIONS[name][0], axis)


@pytest.mark.parametrize("axis", [(0, 0), (1, -1), (-2, 1, 0)])
def test_duplicate_axes(axis):
    with raises(ValueError, "axis"):
        xent.logsumexp(X, axis)
    with raises(np.exceptions.AxisError, 2):
        xent.logsumexp(X, (0, 2))


@pytest.mark.parametrize("shape", [(2, 5), (4,), (3, 4), (3, 5, 1)])
def test_factors_that_do_not_broadcast(shape):
    with raises(ValueError, "b", shape):
        xent.logsumexp(X, b=np.ones(shape))


@pytest.mark.parametrize("name", [name for name in ELEMENTWISE if "backward" in name])
def test_grad_and_y_differ_in_shape(name):
    for grad, y in [(X[:2], X), (X, X[:, :4]), (X[0], X), (X[:1], X)]:
        with raises(ValueError, "grad", grad.shape, y.shape):
            call(name, grad, y)


def test_positional_options():
    for arguments in [
        ("softmax", X, -1, 2.0),
        ("logsumexp", X, -1, X),
        ("sigmoid", X, X),
        ("cross_entropy", X, LABELS, -1),
        ("nll_loss", X, LABELS, -1),
    ]:
        with pytest.raises(TypeError):
            call(*arguments)


# Options ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_temperature(name, temperature):
    with raises(ValueError, "temperature", temperature):
        call(name, X, temperature=temperature)


@pytest.mark.parametrize("temperature", ["warm", None, 1j])
def test_temperature_is_a_number(temperature):
    with raises(TypeError, "temperature"):
        xent.softmax(X, temperature=temperature)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, np.nan, np.inf])
@pytest.mark.parametrize("name", CROSS_ENTROPY)
def test_label_smoothing(name, smoothing):
    with raises(ValueError, "label_smoothing", smoothing):
        call(name, X, LABELS, label_smoothing=smoothing)


@pytest.mark.parametrize("name", LOSSES)
def test_reduction(name):
    for reduction in ["average", "", "MEAN"]:
        with raises(ValueError, "reduction", repr(reduction), "mean_valid"):
            call(name, X, LABELS, reduction=reduction)
    with raises(ValueError, "'batchmean'", 'is "mean_batch"'):
        call(name, X, LABELS, reduction="batchmean")
    for reduction in [None, 1, b"mean"]:
        with raises(TypeError, "reduction"):
            call(name, X, LABELS, reduction=reduction)


@pytest.mark.parametrize("name", LOSSES)
def test_mean_batch_has_no_batch(name):
    for logits, target, axis in [(X[0], 1, -1), (X.T, LABELS, 0), (X.T, LABELS, -2)]:
        with raises(ValueError, "mean_batch", "axis"):
            call(name, logits, target, axis=axis, reduction="mean_batch")


@pytest.mark.parametrize("ignore_index", [1.0, "1", None, np.float64(2)])
@pytest.mark.parametrize("name", LOSSES)
def test_ignore_index(name, ignore_index):
    with raises(TypeError, "ignore_index"):
        call(name, X, LABELS, ignore_index=ignore_index)


@pytest.mark.parametrize("name", LOSSES)
def test_weight(name):
    for weight in [np.ones(4), np.ones((1, 5)), np.ones((3, 5)), np.float64(1)]:
        with raises(ValueError, "weight", np.shape(weight), 5):
            call(name, X, LABELS, weight=weight)
    for bad in [-np.inf, np.nan, np.inf]:
        weight = np.ones(5)
        weight[3] = bad
        with raises(ValueError, "weight", bad):
            call(name, X, LABELS, weight=weight)
    for weight in [np.ones(5, complex), np.array(list("abcde")), np.ones(5, object)]:
        with raises(TypeError, "weight"):
            call(name, X, LABELS, weight=weight)


@pytest.mark.parametrize("name", ["cross_entropy_grad", "nll_loss_grad"])
def test_grad_output(name):
    for reduction, upstream in [
        ("mean", np.ones(3)),
        ("sum", np.ones(1)),
        ("none", 1.0),
        ("none", np.ones(4)),
        ("none", np.ones((3, 1))),
        ("none", np.ones((3, 5))),
    ]:
        with raises(ValueError, "grad_output", np.shape(upstream)):
            call(name, X, LABELS, grad_output=upstream, reduction=reduction)
    with raises(TypeError, "grad_output"):
        call(name, X, LABELS, grad_output=1j)


# Labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("bad", [5, -1, -99, 2**31, -(2**63), 2**62])
def test_label_out_of_range(name, bad):
    labels = CUBE_LABELS.copy()
    labels[1, 2] = bad
    with raises(ValueError, f"target[1, 2] is {bad}", "5", "ignore_index=-100"):
        call(name, CUBE, labels, axis=1)
    with raises(ValueError, f"target[1] is {bad}", "5", "ignore_index=7"):
        call(name, X, [0, bad, bad], ignore_index=7)
    with raises(ValueError, f"target is {bad}", "5"):
        call(name, X[0], bad)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "code, bad",
    [
        ("u8", 2**64 - 1),
        ("u8", 2**64 - 100),
        ("u8", 2**63),
        ("u4", 2**32 - 100),
        ("u1", 156),
        ("i1", -101),
        (">i8", 5),
        (">u2", 1280),
    ],
)
def test_label_of_a_narrow_dtype_is_never_wrapped(name, code, bad):
    labels = np.zeros(3, code)
    labels[2] = bad
    with raises(ValueError, f"target[2] is {bad}", "ignore_index=-100"):
        call(name, X, labels)


@pytest.mark.parametrize("name", LOSSES)
def test_one_bad_label_among_many(name):
    for count in [1, 7, 64, 1000, 70_001]:
        labels = np.zeros(count, int)
        labels[-1] = 2
        with raises(ValueError, f"target[{count - 1}] is 2"):
            call(name, np.zeros((count, 2), np.float32), labels)


@pytest.mark.parametrize("name", LOSSES)
def test_shape_of_labels(name):
    for target in [LABELS[:2], 1, LABELS[:, np.newaxis], np.zeros((3, 4), int), np.zeros((1, 3), int)]:
        with raises(ValueError, "target", np.shape(target), (3,)):
            call(name, X, target)


@pytest.mark.parametrize("name", LOSSES)
def test_labels_that_fit_another_class_axis(name):
    with raises(ValueError, "(2, 3)", "would fit if the classes were axis 1, not 2"):
        call(name, np.zeros((2, 5, 3)), CUBE_LABELS)
    with raises(ValueError, "give np.reshape(target, (2, 3))"):
        call(name, np.zeros((2, 5, 3)), CUBE_LABELS[:, np.newaxis], axis=1)
    with raises(ValueError, "ids", "would fit if the classes were axis 1, not 2"):
        xent.token_log_probs(np.zeros((2, 5, 3)), CUBE_LABELS)


@pytest.mark.parametrize("name", LOSSES)
def test_a_label_of_more_than_64_bits(name):
    with raises(ValueError, "target[2] is 1180591620717411303424", "64 bits"):
        call(name, X, [0, 1, 2**70])


@pytest.mark.parametrize("name", LOSSES)
def test_an_empty_list_is_one_of_labels(name):
    call(name, X[:0], [])
    with raises(TypeError, "float64"):
        call(name, X[:0], np.zeros(0))


def test_weights_of_a_layer_that_lie_the_other_way():
    with raises(ValueError, "(3, 5)", "give weight.T"):
        xent.linear_cross_entropy(X, np.zeros((5, 4)), LABELS)
    with raises(ValueError, "noise must have shape (K,) or (3, K), got ()"):
        xent.nce_loss(X, X, [0, 1, 2], 1, np.zeros(3))


@pytest.mark.parametrize("name", LOSSES)
def test_dtype_of_labels(name):
    for target in [
        LABELS.astype(float),
        LABELS.astype(complex),
        LABELS.astype(object),
        LABELS.astype("U"),
        LABELS.astype("m8[s]"),
        LABELS.astype(bool),
        LABELS.astype(np.float16),
        LABELS.astype(ml_dtypes.bfloat16),
    ]:
        with raises(TypeError, "target", spelled(target.dtype)):
            call(name, X, target)


@pytest.mark.parametrize("name", CROSS_ENTROPY)
def test_one_hot_targets_are_floating(name):
    with raises(ValueError, "target", "one-hot", "floating"):
        call(name, X, np.zeros((3, 5), int))
    with raises(TypeError, "target", "bool"):
        call(name, X, np.zeros((3, 5), bool))
    for kind in [complex, ml_dtypes.float8_e4m3fn]:
        with raises(TypeError, "target", np.dtype(kind)):
            call(name, X, np.zeros((3, 5), kind))


@pytest.mark.parametrize("name", NLL)
def test_negative_log_likelihood_takes_labels_only(name):
    with raises(TypeError, "target", "float64"):
        call(name, X, X)


@pytest.mark.parametrize("name", LOSSES)
def test_no_classes(name):
    for target in [[0, -100], [-1, 0]]:
        with pytest.raises(ValueError):
            call(name, np.zeros((2, 0)), target)
    with pytest.raises(ValueError):
        xent.cross_entropy(np.zeros((2, 0)), np.zeros((2, 0)))


# out --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_OUT)
def test_out(name):
    args, shape = FUNCTIONS[name][0], expected_out(name)
    for wrong in [shape[::-1], shape[1:], (*shape, 1), (1, *shape), (shape[0] + 1, *shape[1:])]:
        if wrong != shape:
            with raises(ValueError, "out", wrong, shape):
                call(name, *args, out=np.zeros(wrong))
    for kind in ["f4", "f2", "bfloat16", "i8", "c16", "O", np.dtype("f8").newbyteorder()]:
        with raises(ValueError, "out", "float64", np.dtype(kind)):
            call(name, *args, out=np.zeros(shape, kind))
    frozen = np.zeros(shape)
    frozen.flags.writeable = False
    with raises(ValueError, "out", "read-only"):
        call(name, *args, out=frozen)
    for wrong in [np.zeros(shape).tolist(), 1.0, (np.zeros(shape),), "out"]:
        with raises(TypeError, "out", type(wrong).__name__):
            call(name, *args, out=wrong)


def overlapping(size):
    """Pairs of views of one buffer that overlap but are not the same."""
    buffer = np.zeros(2 * size + 2)
    yield buffer[:size], buffer[1 : size + 1]
    yield buffer[:size], buffer[:size][::-1]
    yield buffer[: 2 * size : 2], buffer[:size]


@pytest.mark.parametrize("name", [name for name in WITH_OUT if name not in OUT_SHAPES])
def test_out_overlaps_an_input_in_part(name):
    right = FUNCTIONS[name][0]
    for which in range(len(right)):
        if right[which] is LABELS:
            continue
        for first, second in overlapping(X.size):
            args = list(right)
            args[which] = first.reshape(X.shape)
            with raises(ValueError, "out", "overlap"):
                call(name, *args, out=second.reshape(X.shape))
    square = np.zeros((5, 5))
    if name in ("softmax", "sigmoid", "log_sigmoid", "log_softmax"):
        with raises(ValueError, "out", "overlap"):
            call(name, square, out=square.T)


def test_out_overlaps_other_inputs():
    buffer = np.zeros(X.size + 1)
    shared = buffer[: X.size].reshape(X.shape)
    with raises(ValueError, "out", "overlap"):
        xent.cross_entropy_grad(X, buffer[1:].reshape(X.shape), out=shared)
    with raises(ValueError, "out", "overlap"):
        xent.cross_entropy_grad(X, LABELS, weight=buffer[:5], out=shared)
    with raises(ValueError, "out", "overlap"):
        xent.cross_entropy_grad(X, LABELS, grad_output=buffer[:3], reduction="none", out=shared)
    with raises(ValueError, "out", "overlap"):
        xent.cross_entropy_grad(X, shared.view(np.int64)[:, 0], out=shared)
    with raises(ValueError, "out", "overlap"):
        xent.logsumexp(shared, out=buffer[:3])
    with raises(ValueError, "out", "overlap"):
        xent.logsumexp(X, b=shared, out=buffer[:3])
    pixels = np.zeros(400)
    with raises(ValueError, "out", "overlap"):
        xent.conv2d(pixels[:168].reshape(1, 4, 6, 7), KERNEL, out=pixels[100:260].reshape(1, 8, 4, 5))
    with raises(ValueError, "out", "overlap"):
        xent.conv2d(
            np.zeros((1, 4, 6, 7)), pixels[:288].reshape(8, 4, 3, 3), out=pixels[:160].reshape(1, 8, 4, 5)
        )
    with raises(ValueError, "out", "overlap"):
        xent.conv2d(np.zeros((1, 4, 6, 7)), KERNEL, pixels[:8], out=pixels[:160].reshape(1, 8, 4, 5))
    with raises(ValueError, "out", "overlap"):
        xent.conv_transpose2d(
            pixels[:160].reshape(1, 8, 4, 5), KERNEL, out=pixels[100:268].reshape(1, 4, 6, 7)
        )
    with raises(ValueError, "out", "overlap"):
        xent.im2col(pixels[:16].reshape(1, 1, 4, 4), 2, out=pixels[10:46].reshape(1, 4, 9))
    with raises(ValueError, "out", "overlap"):
        xent.col2im(pixels[:36].reshape(1, 4, 9), 4, 2, out=pixels[30:46].reshape(1, 1, 4, 4))


UNTOUCHED = {
    "softmax": [((X, 5), {}), ((X,), {"temperature": 0}), ((X * 1j,), {})],
    "log_softmax": [((X, -3), {}), ((X,), {"temperature": np.nan})],
    "softmax_backward": [((X[:2], X), {}), ((X, X, 2), {})],
    "log_softmax_backward": [((X, X[:2]), {})],
    "sigmoid": [((X.astype(object),), {})],
    "log_sigmoid": [((X[:2],), {})],
    "sigmoid_backward": [((X[:2], X), {}), ((X, X * 1j), {})],
    "cross_entropy_grad": [
        ((X, [0, 1, 5]), {}),
        ((X, [0, 1, -1]), {"reduction": "none"}),
        ((X, LABELS), {"label_smoothing": 2}),
        ((X, LABELS), {"weight": [1, 1, 1, 1, np.inf]}),
        ((X, LABELS), {"reduction": "most"}),
        ((X, LABELS), {"grad_output": np.ones(2)}),
        ((X, LABELS[:2]), {}),
    ],
    "cross_entropy_value_and_grad": [((X, [0, 1, 5]), {}), ((X, LABELS), {"ignore_index": 0.5})],
    "nll_loss_grad": [((X, [0, 1, 5]), {}), ((X, LABELS), {"grad_output": np.ones(2)})],
    "nll_loss_value_and_grad": [((X, [0, 1, -7]), {}), ((X, LABELS), {"weight": np.ones(4)})],
    "conv2d": [((IMAGE, KERNEL, np.ones(7)), {}), ((IMAGE, KERNEL), {"activation": "tanh"}),
               ((IMAGE, KERNEL), {"padding": -1})],
    "conv_transpose2d": [((FORWARD, KERNEL, np.ones(7)), {}), ((FORWARD, KERNEL), {"output_size": (6, 8)})],
    "im2col": [((IMAGE, 0), {}), ((IMAGE, 3), {"stride": 0})],
    "col2im": [((COLUMNS, (6, 7), 3), {"padding": 1}), ((COLUMNS[:, :35], (6, 7), 3), {})],
}  # fmt: skip


@pytest.mark.parametrize("name", UNTOUCHED)
def test_nothing_is_written_before_an_error(name):
    for args, options in UNTOUCHED[name]:
        out = np.full(expected_out(name), 7.0)
        with pytest.raises((ValueError, TypeError)):
            call(name, *args, out=out, **options)
        assert (out == 7).all(), options


def test_nothing_is_written_in_place_before_an_error():
    logits = np.full((70_001, 3), 7.0, np.float32)
    labels = np.zeros(70_001, int)
    labels[-1] = 3
    for name in ["cross_entropy_grad", "cross_entropy_value_and_grad", "nll_loss_grad"]:
        with raises(ValueError, "target[70000] is 3"):
            call(name, logits, labels, out=logits)
        assert (logits == 7).all()


# Images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IMAGES)
def test_images_have_four_axes(name):
    args, names = IMAGES[name]
    for which, argument in enumerate(names):
        for wrong in [args[which][0], args[which][np.newaxis], np.float64(1)]:
            changed = list(args)
            changed[which] = wrong
            with raises(ValueError, argument, np.shape(wrong)):
                call(name, *changed)


@pytest.mark.parametrize(
    "name",
    [
        "conv2d",
        "conv2d_backward",
        "conv_transpose2d",
        "conv_transpose2d_backward",
        "im2col",
        "col2im",
        "max_pool2d",
        "avg_pool2d",
        "max_pool2d_backward",
        "avg_pool2d_backward",
    ],
)
def test_window_options(name):
    options = ["stride", "padding"]
    options += ["dilation"] if "avg" not in name else []
    for option in options:
        bad = [-1, (1, -1), (1, 1, 1), ()] + ([0, (0, 1)] if option != "padding" else [])
        for value in bad:
            with raises(ValueError, option):
                call(name, *IMAGES[name][0], **{option: value})
        for value in [1.0, (1, 1.5), np.float64(1)]:
            with raises(TypeError, option):
                call(name, *IMAGES[name][0], **{option: value})


@pytest.mark.parametrize("name", ["im2col", "max_pool2d", "avg_pool2d"])
def test_kernel_size(name):
    for value in [0, -1, (2, 0), (1, 2, 3), ()]:
        with raises(ValueError, "kernel_size"):
            call(name, IMAGE, value)
    for value in [2.0, None, (1, 2.5)]:
        with raises(TypeError, "kernel_size"):
            call(name, IMAGE, value)


@pytest.mark.parametrize("padding", ["full", "SAME", ""])
@pytest.mark.parametrize("name", IMAGES)
def test_name_of_padding(name, padding):
    with raises(ValueError, "padding", repr(padding)):
        call(name, *IMAGES[name][0], padding=padding)


def test_padding_of_each_side():
    for padding in [((1, -1), (0, 0)), ((1, 1), (1,)), ((1, 1), (1, 1), (1, 1))]:
        with raises(ValueError, "padding"):
            xent.conv2d(IMAGE, KERNEL, padding=padding)


@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_padding_of_pools(name):
    for kernel_size, padding in [(2, 2), (3, 3), (1, 1), ((4, 2), (2, 2)), (2, ((0, 2), (0, 0)))]:
        with raises(ValueError, "padding", "kernel_size"):
            call(name, IMAGE, kernel_size, padding=padding)


def test_kernel_larger_than_the_image():
    for options in [{}, {"dilation": 4}, {"padding": ((0, 1), (0, 0))}]:
        weight = np.zeros((1, 4, 3, 3) if "dilation" in options else (1, 4, 8, 3))
        with raises(ValueError, "kernel"):
            xent.conv2d(IMAGE, weight, **options)
    for name in ["im2col", "max_pool2d", "avg_pool2d"]:
        with raises(ValueError, "kernel"):
            call(name, IMAGE, 9)
    with raises(ValueError, "kernel"):
        xent.conv2d_backward(np.zeros((2, 1, 1, 1)), IMAGE, np.zeros((1, 4, 7, 7)))


def test_channels_and_groups():
    with raises(ValueError, "weight", 3, 4):
        xent.conv2d(IMAGE, np.zeros((8, 3, 3, 3)))
    with raises(ValueError, "groups", 3, 4):
        xent.conv2d(IMAGE, np.zeros((9, 1, 3, 3)), groups=3)
    with raises(ValueError, "groups", 2, 7):
        xent.conv2d(IMAGE, np.zeros((7, 2, 3, 3)), groups=2)
    for groups in [0, -1]:
        with raises(ValueError, "groups", groups):
            xent.conv2d(IMAGE, KERNEL, groups=groups)
    with raises(TypeError, "groups"):
        xent.conv2d(IMAGE, KERNEL, groups=1.0)
    with raises(ValueError, "weight", "tap"):
        xent.conv2d(IMAGE, np.zeros((8, 4, 0, 3)))


def test_bias():
    for bias in [np.zeros(7), np.zeros((8, 1)), np.float64(0)]:
        with raises(ValueError, "bias", np.shape(bias), 8):
            xent.conv2d(IMAGE, KERNEL, bias)
    with raises(TypeError, "bias", "complex128"):
        xent.conv2d(IMAGE, KERNEL, np.zeros(8, complex))


@pytest.mark.parametrize("activation", ["tanh", "ReLU", ""])
def test_activation(activation):
    with raises(ValueError, "activation", repr(activation), "relu"):
        xent.conv2d(IMAGE, KERNEL, activation=activation)


def test_shape_of_gradients():
    for grad in [FORWARD[:1], FORWARD[:, :7], FORWARD[..., :4]]:
        with raises(ValueError, "grad", grad.shape, FORWARD.shape):
            xent.conv2d_backward(grad, IMAGE, KERNEL)
    for grad in [IMAGE[:1], IMAGE[:, :3], IMAGE[..., :6]]:
        with raises(ValueError, "grad", grad.shape, IMAGE.shape):
            xent.conv_transpose2d_backward(grad, FORWARD, KERNEL)
    for name in ["max_pool2d_backward", "avg_pool2d_backward"]:
        for grad in [POOLED[:1], POOLED[:, :3], POOLED[..., :2]]:
            with raises(ValueError, "grad", grad.shape, POOLED.shape):
                call(name, grad, IMAGE, 2)


@pytest.mark.parametrize("needs", [(True, True), (True,) * 4, (), [True]])
def test_needs_are_three(needs):
    for name in ["conv2d_backward", "conv_transpose2d_backward"]:
        with raises(ValueError, "needs", "x, weight, bias", len(needs)):
            call(name, *IMAGES[name][0], needs=needs)


@pytest.mark.parametrize("needs", [
    {}, "", "all", None, True, 3, (True, 0, True), (1, 1, 1), (None, True, True), ("no", True, True),
    (True, True, np.ones(1, bool)),
])  # fmt: skip
def test_needs_are_bools(needs):
    for name in ["conv2d_backward", "conv_transpose2d_backward"]:
        with raises(TypeError, "needs"):
            call(name, *IMAGES[name][0], needs=needs)


def test_out_of_several_results():
    right = [np.zeros(a.shape) for a in (IMAGE, KERNEL, KERNEL[:, 0, 0, 0])]
    for out in [right[0], np.zeros(3), "out", {}]:
        with raises(TypeError, "out", "tuple of 3"):
            xent.conv2d_backward(FORWARD, IMAGE, KERNEL, out=out)
    for out in [(), right[:2], [*right, None]]:
        with raises(ValueError, "out", "tuple of 3", len(out)):
            xent.conv2d_backward(FORWARD, IMAGE, KERNEL, out=out)
    for which in range(3):
        needs = tuple(k != which for k in range(3))
        with raises(ValueError, f"out[{which}]", f"needs[{which}]"):
            xent.conv2d_backward(FORWARD, IMAGE, KERNEL, needs=needs, out=right)
        for wrong, error in [
            (np.zeros(3), ValueError),
            (right[which].astype(np.float32), ValueError),
            ([0.0], TypeError),
        ]:
            out = [wrong if k == which else np.full(a.shape, 7.0) for k, a in enumerate(right)]
            with raises(error, f"out[{which}]"):
                xent.conv2d_backward(FORWARD, IMAGE, KERNEL, out=out)
            assert all((a == 7).all() for k, a in enumerate(out) if k != which)
    pixels = np.zeros(2 * 4 * 6 * 7)
    image = pixels.reshape(IMAGE.shape)
    with raises(ValueError, "out[0]", "overlaps x"):
        xent.conv2d_backward(FORWARD, image, KERNEL, out=(image, None, None))
    with raises(ValueError, "out[2]", "overlaps out[0]"):
        xent.conv2d_backward(FORWARD, IMAGE, KERNEL, out=(image, None, pixels[:8]))
    with raises(ValueError, "out[2]", "overlaps grad"):
        xent.conv_transpose2d_backward(image, FORWARD, KERNEL, out=(None, None, pixels[:4]))


def test_one_image_without_a_batch():
    for call in [lambda: xent.conv2d(IMAGE[0], KERNEL), lambda: xent.im2col(IMAGE[0], 3)]:
        with raises(ValueError, "x must have 4 dimensions", "x[np.newaxis]"):
            call()


@pytest.mark.parametrize("padding", [(1, 1, 2, 2), [0, 0, 0, 0], np.ones(4, int)])
def test_padding_of_four_sides(padding):
    for name in ["conv2d", "conv2d_backward", "conv_transpose2d", "im2col", "col2im"]:
        with raises(ValueError, "padding", "((top, bottom), (left, right))"):
            call(name, *IMAGES[name][0], padding=padding)


SIGNAL, TAPS, HEARD = np.zeros((2, 4, 9)), np.zeros((6, 2, 3)), np.zeros((2, 6, 7))


def test_signals():
    calls = {
        "conv1d": lambda x, weight, **options: xent.conv1d(x, weight, groups=2, **options),
        "conv1d_backward": lambda x, weight, **options: xent.conv1d_backward(
            HEARD, x, weight, groups=2, **options
        ),
    }
    for call in calls.values():
        call(SIGNAL, TAPS)
        for wrong in [SIGNAL[0], SIGNAL[None], 1.0]:
            with raises(ValueError, "x", "(N, C, L)", np.shape(wrong)):
                call(wrong, TAPS)
        for wrong in [TAPS[0], TAPS[None], TAPS[:, :1], TAPS[:5], TAPS[..., :0]]:
            with pytest.raises(ValueError, match="weight|groups"):
                call(SIGNAL, wrong)
        for option, value in [("stride", 0), ("dilation", -1), ("padding", -1), ("padding", (1, 2, 3))]:
            with raises(ValueError, option):
                call(SIGNAL, TAPS, **{option: value})
        for option, value in [("stride", (1, 1)), ("dilation", 1.0), ("padding", ((0, 0), (1, 1)))]:
            with raises(TypeError, option):
                call(SIGNAL, TAPS, **{option: value})
        with raises(ValueError, "padding", "'full'"):
            call(SIGNAL, TAPS, padding="full")
        with raises(ValueError, "kernel", "length 9"):
            call(SIGNAL, TAPS, dilation=5)
        with raises(TypeError, "x"):
            call(None, TAPS)
    with raises(ValueError, "grad", (2, 6, 8), (2, 6, 7)):
        xent.conv1d_backward(np.zeros((2, 6, 8)), SIGNAL, TAPS, groups=2)
    with raises(ValueError, "out", (2, 6, 7)):
        xent.conv1d(SIGNAL, TAPS, groups=2, out=np.zeros((2, 6, 1, 7)))


@pytest.mark.parametrize("name", IMAGES)
def test_nothing_in_place_of_images(name):
    args, names = IMAGES[name]
    for which, argument in enumerate(names):
        with raises(TypeError, argument):
            call(name, *args[:which], None, *args[which + 1 :])


# Shapes that cannot exist -----------------------------------------------------------------------------------

PIXEL = np.zeros((1, 1, 1, 1), np.float32)


def repeated(*shape):
    """An array of any size that takes four bytes."""
    return np.broadcast_to(np.float32(0), shape)


def resident_bytes():
    """The most memory that this process has had so far; 0 where that cannot be told."""
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# name of the function, positional arguments, options: neither their results, nor the copies of the inputs
# that the kernels might take, fit into any memory; many of the products do not even fit into 64 bits
ABSURD = {
    "padding of 2^30": ("conv2d", (PIXEL, PIXEL), {"padding": 2**30}),
    "padding of 2^29": ("conv2d", (PIXEL, PIXEL), {"padding": 2**29}),
    "padding of 2^62": ("conv2d", (PIXEL, PIXEL), {"padding": 2**62}),
    "padding of 2^63": ("conv2d", (PIXEL, PIXEL), {"padding": 2**63}),
    "padding of 2^100": ("conv2d", (PIXEL, PIXEL), {"padding": 2**100}),
    "padding on one side": ("conv2d", (PIXEL, PIXEL), {"padding": ((0, 2**63 - 1), (0, 0))}),
    "padding on two sides": ("conv2d", (PIXEL, PIXEL), {"padding": ((0, 2**30), (2**30, 0))}),
    "many outputs": ("conv2d", (PIXEL, repeated(2**40, 1, 1, 1)), {"padding": 2**10}),
    "many images": ("conv2d", (repeated(2**50, 1, 1, 1), PIXEL), {}),
    "large everywhere": ("conv2d", (repeated(2**20, 2**20, 2**10, 2**10), repeated(2**20, 2**20, 1, 1)), {}),
    "large, one output": ("conv2d", (repeated(2**20, 2**20, 2**10, 2**10), repeated(1, 2**20, 1, 1)), {}),
    "large, one pixel": ("conv2d", (repeated(2**20, 2**20, 2**10, 2**10),
                                    repeated(1, 2**20, 2**10, 2**10)), {}),
    "large, strides": ("conv2d", (repeated(1, 2**20, 2**20, 2**20), repeated(1, 2**20, 1, 1)),
                       {"stride": 2**20}),
    "large kernel": ("conv2d", (repeated(1, 1, 2**30, 2**30), repeated(1, 1, 2**30, 2**30)), {}),
    "large kernel under padding": ("conv2d", (PIXEL, repeated(1, 1, 2**30, 2**30)), {"padding": 2**29}),
    "large kernel, depthwise": ("conv2d", (repeated(1, 2**20, 2**15, 2**15),
                                           repeated(2**20, 1, 2**15, 2**15)), {"groups": 2**20}),
    "large bias": ("conv2d", (PIXEL, repeated(2**60, 1, 1, 1), repeated(2**60)), {}),
    "backward, padding": ("conv2d_backward", (repeated(1, 1, 2**30 + 1, 2**30 + 1), PIXEL, PIXEL),
                          {"padding": 2**29}),
    "backward, padding of 2^62": ("conv2d_backward", (PIXEL, PIXEL, PIXEL), {"padding": 2**62}),
    "backward, large x": ("conv2d_backward", (repeated(2**20, 1, 2**10, 2**10),
                                              repeated(2**20, 2**20, 2**10, 2**10),
                                              repeated(1, 2**20, 1, 1)), {}),
    "backward, large weight": ("conv2d_backward",
                               (repeated(1, 2**50, 1, 1), PIXEL, repeated(2**50, 1, 1, 1)), {}),
    "backward, large grad": ("conv2d_backward",
                             (repeated(2**50, 1, 1, 1), repeated(2**50, 1, 1, 1), PIXEL), {}),
    "transposed, stride": ("conv_transpose2d", (repeated(1, 1, 3, 3), PIXEL), {"stride": 2**30}),
    "transposed, stride of 2^29": ("conv_transpose2d", (repeated(1, 1, 3, 3), PIXEL), {"stride": 2**29}),
    "transposed, stride of 2^62": ("conv_transpose2d", (repeated(1, 1, 9, 9), PIXEL), {"stride": 2**62}),
    "transposed, dilation": ("conv_transpose2d", (PIXEL, repeated(1, 1, 3, 3)), {"dilation": 2**29}),
    "transposed, dilation of 2^62": ("conv_transpose2d", (PIXEL, repeated(1, 1, 9, 9)), {"dilation": 2**62}),
    "transposed, output_padding": ("conv_transpose2d", (PIXEL, PIXEL),
                                   {"output_padding": 2**30, "stride": 2**30 + 1}),
    "transposed, output_padding of 2^62": ("conv_transpose2d", (PIXEL, PIXEL),
                                           {"output_padding": 2**62, "stride": 2**62 + 1}),
    "transposed, output_padding of 2^100": ("conv_transpose2d", (PIXEL, PIXEL),
                                            {"output_padding": 2**100, "dilation": 2**101}),
    "transposed, padding": ("conv_transpose2d", (PIXEL, PIXEL), {"padding": 2**62}),
    "transposed, all": ("conv_transpose2d", (repeated(2**20, 2**20, 2**10, 2**10),
                                             repeated(2**20, 2**20, 1, 1)), {"stride": 2}),
    "transposed, large x": ("conv_transpose2d", (repeated(2**20, 2**20, 2**10, 2**10),
                                                 repeated(2**20, 1, 1, 1)), {}),
    "transposed, large weight": ("conv_transpose2d", (PIXEL, repeated(1, 2**40, 2**10, 2**10)), {}),
    "im2col, padding": ("im2col", (PIXEL, 1), {"padding": 2**29}),
    "im2col, large x": ("im2col", (repeated(2**20, 2**20, 2**10, 2**10), 3), {}),
    "im2col, kernel": ("im2col", (repeated(1, 1, 2**25, 2**25), 2**24), {}),
    "col2im, image": ("col2im", (repeated(1, 1, 1), 2**30, 1), {"stride": 2**30}),
    "col2im, columns": ("col2im", (repeated(2**40, 2**10, 1), 1, 1), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_shapes(name):
    function, args, options = ABSURD[name]

    def refused():
        with pytest.raises((ValueError, MemoryError)) as error:
            call(function, *args, **options)
        assert str(error.value)

    # tracemalloc would count what malloc refused, too
    before = resident_bytes()
    refused()
    assert resident_bytes() - before < 2**24


@pytest.mark.parametrize("function", ["conv2d", "conv_transpose2d"])
def test_absurd_shapes_of_an_empty_batch(function):
    # nothing to compute, nothing to allocate
    x, weight = repeated(0, 2**10, 2**10, 2**10), repeated(2, 2**10, 1, 1)
    weight = weight if function == "conv2d" else repeated(2**10, 2, 1, 1)
    assert call(function, x, weight).shape == (0, 2, 2**10, 2**10)
    assert peak_bytes(lambda: call(function, x, weight)) < 2**20


@pytest.mark.parametrize("option", ["stride", "dilation"])
@pytest.mark.parametrize(
    "name", ["conv2d", "conv2d_backward", "conv_transpose2d", "conv_transpose2d_backward"]
)
def test_steps_are_positive(name, option):
    for value in [0, -1, (1, 0), (0, 1), (-1, 1), (1, -(2**63)), -(2**100)]:
        with raises(ValueError, option):
            call(name, *IMAGES[name][0], **{option: value})


@pytest.mark.parametrize("value", [2**31, 2**62, 2**63, 2**100])
def test_steps_beyond_the_image(value):
    # one window fits whatever the stride is; beyond 31 bits an error may say that it is too much
    x = np.arange(4.0).reshape(1, 1, 2, 2)
    for options in [{"stride": value}, {"dilation": value}]:
        try:
            result = xent.conv2d(x, np.ones((1, 1, 1, 1)), **options)
        except ValueError as error:
            assert next(iter(options)) in str(error)
        else:
            assert result.ravel().tolist() == ([0] if "stride" in options else [0, 1, 2, 3])
    with raises(ValueError, "kernel"):
        xent.conv2d(x, np.ones((1, 1, 2, 2)), dilation=value)


@pytest.mark.parametrize("shape", [(), (8,), (4, 3), (8, 4, 3), (8, 4, 3, 3, 1), (1, 8, 4, 3, 3)])
@pytest.mark.parametrize(
    "name", ["conv2d", "conv2d_backward", "conv_transpose2d", "conv_transpose2d_backward"]
)
def test_rank_of_the_weights(name, shape):
    *others, _ = IMAGES[name][0]
    with raises(ValueError, "weight", shape):
        call(name, *others, np.zeros(shape))


@pytest.mark.parametrize("groups", [3, 5, 8, 16, 2**31, 2**63, 2**100])
def test_groups_that_do_not_divide(groups):
    for name in ["conv2d", "conv2d_backward", "conv_transpose2d", "conv_transpose2d_backward"]:
        if "transpose" in name and groups == 8:
            continue  # eight channels, eight groups
        with raises(ValueError, "groups", groups):
            call(name, *IMAGES[name][0], groups=groups)


@pytest.mark.parametrize("name", ["conv2d", "conv2d_backward"])
def test_one_pixel_too_few(name):
    for size, options in [
        ((2, 7), {}),
        ((6, 2), {}),
        ((4, 7), {"dilation": (2, 1)}),
        ((6, 8), {"dilation": (1, 4)}),
        ((1, 7), {"padding": ((1, 0), (0, 0))}),
        ((6, 1), {"padding": (0, 0)}),
    ]:
        x, grad = np.zeros((2, 4, *size)), np.zeros((2, 8, 1, 1))
        args = (x, KERNEL) if name == "conv2d" else (grad, x, KERNEL)
        with raises(ValueError, "kernel", "larger"):
            call(name, *args, **options)


def test_columns():
    for cols, size in [(COLUMNS[:, :35], (6, 7)), (COLUMNS[..., :19], (6, 7)), (COLUMNS, (6, 8))]:
        with raises(ValueError, "cols", cols.shape):
            xent.col2im(cols, size, 3)
    for size in [(6,), (6, 7, 1), (-6, 7)]:
        with raises(ValueError, "output_size"):
            xent.col2im(COLUMNS, size, 3)


# Threads and configuration ----------------------------------------------------------------------------------


def test_number_of_threads():
    before = xent.get_num_threads()

    def enter(n):
        with xent.num_threads(n):
            raise AssertionError("not reached")

    for function in [xent.set_num_threads, enter]:
        for n in [0, -1]:
            with raises(ValueError, n):
                function(n)
        for n in [1.0, "2", None]:
            with pytest.raises(TypeError):
                function(n)
    assert xent.get_num_threads() == before


# numbers that fit no C type, and other surprises -----------------------------------------------------


@pytest.mark.parametrize("value", [2**63, 2**70, -(2**63) - 1])
def test_ignore_index_beyond_64_bits(value):
    for function in (xent.cross_entropy, xent.nll_loss):
        with raises(ValueError, "ignore_index", str(value)):
            function(np.zeros((2, 3)), [0, 1], ignore_index=value)


def test_numbers_beyond_a_float():
    with raises(ValueError, "temperature"):
        xent.softmax([1.0], temperature=10**400)
    with raises(ValueError, "label_smoothing"):
        xent.cross_entropy([[1.0]], [0], label_smoothing=10**400)


def test_options_of_a_wrong_kind():
    for temperature in ("2", np.array([1.0, 2.0]), None):
        with raises(TypeError, "temperature"):
            xent.softmax([1.0], temperature=temperature)
    for smoothing in ("0.1", np.zeros(2)):
        with raises(TypeError, "label_smoothing"):
            xent.cross_entropy([[1.0]], [0], label_smoothing=smoothing)
    with raises(TypeError, "reduction"):
        xent.cross_entropy([[1.0]], [0], reduction=np.array(["mean", "sum"]))


def test_paddings():
    x, w = np.zeros((1, 1, 5, 5)), np.ones((1, 1, 3, 3))
    assert xent.conv2d(x, w, padding=np.array([[1, 1], [1, 1]])).shape == (1, 1, 5, 5)
    assert xent.conv2d(x, w, stride=np.array(2)).shape == (1, 1, 2, 2)
    for padding in (((1, 2), 3), ((1, 1), (1, 1), (1, 1)), ((1, 2, 3), (1, 1))):
        with raises(ValueError, "padding"):
            xent.conv2d(x, w, padding=padding)
    with raises(ValueError, "top", str(10**30)):
        xent.conv2d(x, w, padding=10**30)


@pytest.mark.parametrize("n", [1025, 2**31, 2**70])
def test_too_many_threads(n):
    with raises(ValueError, "n must be", str(n)):
        xent.set_num_threads(n)
    with raises(ValueError, "n must be", str(n)):
        xent.num_threads(n)  # at once, not on entry


def test_names_of_any_kind_of_str():
    x, labels, ternary = np.array([[1.0, 2.0, 3.0]] * 2), np.array([0, 1]), np.array([[0, 1, -1]] * 2)
    for reduction in ("none", "mean", "mean_valid", "sum"):
        for call in (
            lambda **options: xent.cross_entropy(x, labels, **options),
            lambda **options: xent.nll_loss(x, labels, **options),
            lambda **options: xent.mse_loss(x, x + 1, **options),
            lambda **options: xent.kl_div(x, x, **options),
            lambda **options: xent.sigmoid_cross_entropy(x, ternary, ignore_index=-1, **options),
            lambda **options: xent.cross_entropy_value_and_grad(x, labels, **options)[1],
            lambda **options: xent.linear_cross_entropy(x, x[:1], labels * 0, **options),
        ):
            np.testing.assert_array_equal(call(reduction=np.str_(reduction)), call(reduction=reduction))


def test_first_bad_label_of_probabilities():
    with raises(ValueError, "target[0] is -1"):
        xent.cross_entropy_probs(X + 0.2, [-1, 7, 0])
    with raises(ValueError, "target[1] is 7"):
        xent.cross_entropy_probs(X + 0.2, [1, 7, -1])


@pytest.mark.parametrize("exponent", [53, 56, 57, 58])
def test_scratch_that_cannot_be_addressed(exponent):
    x = np.broadcast_to(np.zeros(2, np.float32), (2**exponent, 2))  # two numbers in memory
    for call in (
        lambda: xent.distillation_loss(x, x, axis=0),
        lambda: xent.cross_entropy(x, [0, 0], axis=0, temperature=2.0),
    ):
        with pytest.raises(MemoryError):
            call()


def test_out_that_lies():
    class Liar(np.ndarray):
        shape = property(lambda self: (3, 5))
        dtype = property(lambda self: np.dtype(np.float64))

    for out in (np.zeros((1, 1)), np.zeros((3, 5), np.float32)):
        with raises(ValueError, "out must have"):
            xent.softmax(X, out=out.view(Liar))
        with raises(ValueError, "out must have"):
            xent.cross_entropy_grad(X, LABELS, out=out.view(Liar))


def test_labels_that_change_after_their_check_are_not_read_again():
    # as another thread may change them; NumPy's fancy indexing would end the process
    labels = LABELS.copy()
    taken = xent._check.classes_of(labels, "noise", [labels.shape], 5)
    assert not np.shares_memory(taken, labels)


@pytest.mark.parametrize("cap", [1e-30, 1e-300])
def test_a_temperature_times_a_cap_that_is_zero(cap):
    options = {"temperature": 1e-300, "logit_cap": cap}
    for logits in ([[1.0, 2.0]], [[0.0, 0.0]], [[-1.0, 0.0]]):
        product = xent.cross_entropy_hvp(logits, [0], [[1.0, 0.0]], **options)
        assert product.shape == (1, 2)
    assert xent.cross_entropy_hvp([[1.0, 2.0]], [0], [[1.0, 1.0]], **options).tolist() == [[0.0, 0.0]]


def test_flags_are_bools():
    for flag in ["no", 1, None, np.ones(1)]:
        for function, arguments, name in [
            ("logsumexp", (X,), "keepdims"),
            ("kl_div", (X, X), "log_target"),
            ("max_pool2d", (IMAGE, 2), "ceil_mode"),
            ("max_pool2d", (IMAGE, 2), "return_places"),
            ("avg_pool2d", (IMAGE, 2), "ceil_mode"),
            ("avg_pool2d", (IMAGE, 2), "count_include_pad"),
        ]:
            with raises(TypeError, f"{name} must be True or False"):
                call(function, *arguments, **{name: flag})
    assert xent.logsumexp(X, keepdims=np.True_).shape == (3, 1)


def test_no_warning_leaves_a_call_of_odd_numbers():
    with np.errstate(all="raise"):
        for kind in ["f8", "f4", "f2", ml_dtypes.bfloat16]:
            for y in [[1e200, 1e200], [np.inf, 0.0], [np.nan, -np.inf], [65504.0, 6e-8]]:
                with np.errstate(all="ignore"):
                    y = np.array(y).astype(kind)
                for function in ["softmax_jacobian", "softmax", "log_softmax", "sigmoid", "entropy"]:
                    call(function, y)
                for function in ["softmax_backward", "log_softmax_backward", "kl_div", "mse_loss"]:
                    call(function, y, y)
                for function in ["cross_entropy_grad", "nll_loss_grad", "cross_entropy_probs_grad"]:
                    call(function, y, 1)
                call("cross_entropy_hvp", y, 1, y, z_loss=0.1, gamma=2.0, logit_cap=30.0)
                call("cross_entropy_grad_hess", y, 1)
                call("evaluate", y, 1)
                call("logsumexp", y, b=y)


# ---- what the fuzzer found: errors that named nothing ----


def test_every_error_names_an_argument():
    ragged, none = [[1.0], [2.0, 3.0]], np.zeros((0, 5))
    for call in (
        lambda: xent.conv2d(IMAGE, KERNEL, padding=2**40),
        lambda: xent.conv1d(SIGNAL, TAPS, groups=2, padding=10**30),
    ):
        with raises(ValueError, "padding", "more than"):
            call()
    for name in ("nce_loss", "sampled_softmax_cross_entropy"):
        with raises(ValueError, "noise" if name == "nce_loss" else "sampled", "inhomogeneous"):
            getattr(xent, name)(X, X, LABELS % 3, ragged, np.zeros(3))
    with raises(ValueError, "x @ weight.T must have at least one class", (3, 0)):
        xent.linear_cross_entropy(X, none, np.zeros((3, 0)))
    with raises(ValueError, "activation"):
        xent.conv2d(IMAGE, KERNEL, activation=np.ones(2))
    with raises(TypeError, "top_k"):
        xent.evaluate(X, LABELS, top_k=np.array("x", object))
    for bins in (2**25, 2**63, 10**400):
        with raises(ValueError, "calibration_bins", "at most"):
            xent.evaluate(X, LABELS, calibration_bins=bins)
    assert xent.evaluate(X, LABELS, top_k=np.array(2)).top_k == (2,)
    with raises(ValueError, "student_logits", "()"):
        xent.sparse_distillation_loss(1.0, [0], [0.0])


def test_a_focal_loss_of_infinities_warns_of_nothing():
    logits = np.array([[np.inf, 0.0], [0.0, -np.inf]])
    with np.errstate(all="raise"):
        for reduction in ("mean", "sum", "none"):
            xent.cross_entropy_grad(logits, np.full((2, 2), 0.5), gamma=0.5, reduction=reduction)
            xent.cross_entropy(logits, np.eye(2), gamma=0.5, reduction=reduction)


# ---- what else no test had said ----


def test_names_of_a_wrong_kind():
    with raises(TypeError, "hessian must be a string, got int"):
        xent.sigmoid_cross_entropy_grad_hess(X, X > 0, hessian=1)
    with raises(TypeError, "n must be an integer >= 1, got a bool"):
        xent.set_num_threads(True)
    with raises(ValueError, "mode must be", "json"):
        xent.show_config(mode="json")
    with pytest.raises(AttributeError, match="no attribute 'references'"):
        _ = xent.references
    assert "reference" in dir(xent)


def test_groups_beyond_64_bits():
    with raises(ValueError, "groups must fit into 64 bits with a sign", 2**63):
        xent.evaluate_sequences(X, LABELS, np.array([0, 2**63, 1], np.uint64))


def test_windows_of_too_many_cells_for_places():
    image = np.broadcast_to(np.float32(0), (1, 1, 2**16, 2**16))
    with raises(ValueError, "kernel_size", "2**31", 2**32):
        xent.max_pool2d(image, 2**16, return_places=True)


def test_memory_whose_overlap_is_hard_to_find_counts_as_one(monkeypatch):
    """NumPy gives up on strides that are odd enough."""

    def give_up(a, b, max_work):
        raise np.exceptions.TooHardError

    memory = np.zeros(10)
    monkeypatch.setattr(np, "shares_memory", give_up)
    with raises(ValueError, "out overlaps x"):
        xent.sigmoid(memory[::2], out=memory[1::2])
    assert (xent.sigmoid(memory[:5], out=memory[5:]) == 0.5).all()  # bounds that are apart are no question
