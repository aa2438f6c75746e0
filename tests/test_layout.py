"""Arrays are worked on where they lie: common slices cost no copy of the logits."""

import itertools

import numpy as np
import pytest
from helpers import finfo, peak_bytes

import xent
import xent.reference


def slices(rng):
    """(name, logits, class axis): what users slice and transpose."""
    return [
        ("(N, T, V)[:, :-1]", rng.standard_normal((8, 33, 500))[:, :-1], -1),
        ("(N, T, V)[:, 1:]", rng.standard_normal((8, 33, 500))[:, 1:], -1),
        ("(N, V)[:, :-3]", rng.standard_normal((256, 503))[:, :-3], -1),
        ("(N, V)[::2]", rng.standard_normal((512, 500))[::2], -1),
        ("(N, C, H, W) crop", rng.standard_normal((4, 21, 40, 48))[:, :, 3:35, 5:45], 1),
        ("(N, H, W, C) moved", np.moveaxis(rng.standard_normal((4, 40, 40, 21)), -1, 1), 1),
        ("(V, N).T", rng.standard_normal((250, 8192)).T, -1),
        ("every other image", rng.standard_normal((8, 21, 32, 40))[::2], 1),
    ]


@pytest.mark.parametrize("case", range(8))
def test_slices(case, rng):
    name, x, axis = slices(rng)[case]
    positions = np.delete(x.shape, axis)
    y = rng.integers(0, x.shape[axis], positions)
    expected = xent.reference.cross_entropy_grad(x, y, axis=axis)
    out = np.empty_like(x)
    calls = {
        "cross_entropy": lambda: xent.cross_entropy(x, y, axis=axis),
        "gradient": lambda: xent.cross_entropy_grad(x, y, axis=axis, out=out),
        "in place": lambda: xent.softmax(x, axis, out=x),
    }
    for call in calls.values():
        assert peak_bytes(call) < x.nbytes / 8, name
    np.testing.assert_allclose(out, expected, rtol=1e-13, atol=1e-18)


@pytest.mark.parametrize("apart", [2, 3])
@pytest.mark.parametrize("classes", [300, 3000])
def test_classes_a_few_numbers_apart(classes, apart, dtype, rng):
    """Rows of which not all numbers are classes: no copy of the logits, and the bits of one."""
    whole = rng.standard_normal((280, classes * apart)).astype(dtype)
    x, y = whole[:, ::apart][:, : classes - 1], rng.integers(0, classes - 1, 280)
    target = xent.softmax(np.ascontiguousarray(x))
    calls = {
        "softmax": lambda x: xent.softmax(x, temperature=1.5),
        "log_softmax": xent.log_softmax,
        "logsumexp": xent.logsumexp,
        "value": lambda x: xent.cross_entropy_value_and_grad(x, y, label_smoothing=0.1)[1],
        "capped": lambda x: xent.cross_entropy_grad(x, y, logit_cap=3.0),
        "soft": lambda x: xent.cross_entropy_grad(x, target, gamma=2.0),
        "infinite": lambda x: xent.cross_entropy(x, y, temperature=0.7, reduction="none"),
        "evaluate": lambda x: xent.evaluate(x, y, top_k=(1, 5)).top_k_accuracy,
        "product": lambda x: xent.cross_entropy_hvp(x, y, target),
        "ids": lambda x: xent.token_log_probs(x, y, ranks=True)[0],
    }
    for name, call in calls.items():
        if name == "infinite":
            x[3, y[3]] = -np.inf
        np.testing.assert_array_equal(call(x), call(np.ascontiguousarray(x)), err_msg=name)
    if classes == 3000:
        assert peak_bytes(lambda: xent.cross_entropy(x, y)) < x.nbytes / 4


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0])
def test_a_class_that_is_not_there_before_losses_beyond_the_dtype(temperature, dtype):
    """Whether a loss is rightly infinite is asked of the logit of its class, wherever that lies."""
    info = np.finfo(dtype)
    rows = np.full((2, 3, 300), -0.9 * info.max, dtype)
    rows[..., 0], rows[..., 1] = -np.inf, 0.9 * info.max
    labels, weight = np.full((2, 3), 2), np.full(300, 1e-9)
    options = {"weight": weight, "reduction": "none", "temperature": temperature}
    apart = np.zeros((2, 3, 600), dtype)
    apart[..., ::2] = rows
    columns = np.ascontiguousarray(rows.transpose(0, 2, 1))
    expected = np.full((2, 3), 1.8 * float(info.max / 4) / temperature * 1e-9 * 4)
    for x, axis in [(rows, -1), (apart[..., ::2], -1), (columns, 1), (rows[..., :9], -1)]:
        weighted = options | {"weight": weight[: x.shape[axis]]}
        np.testing.assert_allclose(xent.cross_entropy(x, labels, axis=axis, **weighted), expected, rtol=1e-6)


def test_slice_into_a_contiguous_out_and_back(rng):
    big = rng.standard_normal((4, 9, 70))
    x, y = big[:, :-1], rng.integers(0, 70, (4, 8))
    expected = xent.reference.cross_entropy_grad(x, y)
    contiguous = np.empty(x.shape)
    assert xent.cross_entropy_grad(x, y, out=contiguous) is contiguous
    np.testing.assert_allclose(contiguous, expected, rtol=1e-13)
    transposed = np.empty((70, 8, 4)).T
    assert xent.cross_entropy_grad(x, y, out=transposed) is transposed
    np.testing.assert_array_equal(transposed, contiguous)
    np.testing.assert_array_equal(xent.cross_entropy_grad(x, y, out=x), contiguous)
    assert big[:, -1].std() > 0.5, "the rest of the array is untouched"


def test_unaligned_labels(rng):
    raw = np.zeros(41, np.uint8)
    labels = raw[1:].view(np.int64)
    assert not labels.flags.aligned
    assert xent.cross_entropy(np.zeros((5, 3)), labels) == pytest.approx(np.log(3))


def test_array_without_classes_is_not_walked():
    assert xent.softmax(np.zeros((2**40, 0))).shape == (2**40, 0)


class Exporter:
    """An object that is no ndarray but shares its memory with one."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


@pytest.mark.parametrize("wrap", [memoryview, Exporter])
def test_overlap_with_objects_that_share_memory(wrap):
    buffer = np.zeros(2000 * 4)
    out = buffer.reshape(2000, 4)
    logits = np.ones((2000, 4))
    with pytest.raises(ValueError, match="out overlaps target"):
        xent.cross_entropy_grad(logits, wrap(buffer[:2000].view(np.int64)), out=out)
    with pytest.raises(ValueError, match="out overlaps grad_output"):
        xent.nll_loss_grad(
            logits, np.zeros(2000, int), grad_output=wrap(buffer[:2000]), out=out, reduction="none"
        )
    with pytest.raises(ValueError, match="out overlaps weight"):
        xent.cross_entropy_grad(logits, np.zeros(2000, int), weight=wrap(buffer[:4]), out=out)
    assert not buffer.any()


def strided(count, shape, *strides):
    """A writeable view of some zeros, with strides in numbers."""
    return np.lib.stride_tricks.as_strided(np.zeros(count), shape, [8 * step for step in strides])


OUT_CALLS = {
    "softmax": lambda x, **k: xent.softmax(x, **k),
    "several axes": lambda x, **k: xent.log_softmax(x, (), **k),
    "sigmoid": lambda x, **k: xent.sigmoid(x, **k),
    "backward": lambda x, **k: xent.softmax_backward(x, x, **k),
    "gradient": lambda x, **k: xent.cross_entropy_grad(x, np.zeros(len(x), int), **k),
    "elements": lambda x, **k: xent.mse_loss_grad(x, np.zeros(x.shape), **k),
}


@pytest.mark.parametrize("name", OUT_CALLS)
@pytest.mark.parametrize(
    "out",
    [
        pytest.param(strided(3, (2, 3), 0, 1), id="repeated"),
        pytest.param(strided(4, (2, 3), 1, 1), id="a number apart"),
        pytest.param(strided(4, (3, 2), 1, 1), id="columns"),
        pytest.param(strided(9, (2, 3), 4, 2), id="meeting in one"),
        pytest.param(strided(8, (2, 3), -2, 2)[::-1], id="backwards"),
        pytest.param(np.ndarray((4, 3), "f8", bytearray(92), 0, (24, 4)), id="half an element apart"),
        pytest.param(np.lib.stride_tricks.sliding_window_view(np.zeros(9), 4, writeable=True), id="windows"),
    ],
)
def test_out_whose_elements_share_memory(name, out):
    for x in (np.zeros(out.shape), out):  # apart, and in place
        with pytest.raises(ValueError, match="out must have elements that share no memory"):
            OUT_CALLS[name](x, out=out)


@pytest.mark.parametrize("name", OUT_CALLS)
@pytest.mark.parametrize(
    "out",
    [
        np.zeros((4, 6))[::2, ::-3],
        np.zeros((6, 4)).T[:, 1::2],
        np.einsum("iji->ji", np.zeros((4, 3, 4))),
        np.zeros((5, 2, 3)).swapaxes(0, 1)[:, 3, None][..., ::2].squeeze(1),
        strided(12, (0, 3), 1, 1),
        strided(12, (1, 4), 0, 3),
    ],
)
def test_out_with_any_other_strides(name, out):
    x = np.random.default_rng(0).standard_normal(out.shape)
    assert OUT_CALLS[name](x, out=out) is out
    np.testing.assert_array_equal(out, OUT_CALLS[name](x))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("columns", [24577, 24578, 24580, 24583, 24600])
def test_copies_in_pieces_of_any_length(columns, dtype):
    """The last piece of a row, of 8192 numbers and more, may be a single one."""
    source = (np.arange(3 * 24700) % 1009).reshape(3, 24700).astype(dtype)[::2, :columns]
    target = np.zeros((2, columns), dtype)
    assert xent._kernels.reorder(source, target)
    np.testing.assert_array_equal(target, source)


# Results of 48 MiB and more are stored past the caches (STREAMED_BYTES of csrc/softmax/tile_sizes.h).
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize(["axis", "beyond"], [(-1, 1), (1, 0)])
def test_large_results_are_those_of_their_parts(dtype, axis, beyond):
    """Wherever they begin in memory: every part is too small to be stored past the caches."""
    size = np.dtype(dtype).itemsize
    shape = (6, 21, (50 << 20) // (6 * 21 * size)) if axis == 1 else (6, (50 << 20) // (6 * size))
    x = np.resize(np.random.default_rng(0).standard_normal(10007).astype(dtype), shape)
    memory = np.zeros(x.size + beyond, dtype)
    out = memory[beyond:].reshape(shape)
    for function in (xent.softmax, xent.log_softmax):
        assert function(x, axis, out=out) is out
        for k in range(len(x)):
            np.testing.assert_array_equal(out[k : k + 1], function(x[k : k + 1], axis))


LAID = {
    "every other class": lambda x: np.repeat(x, 2, -1)[..., ::2],
    "backwards": lambda x: np.ascontiguousarray(x[::-1, ..., ::-1])[::-1, ..., ::-1],
    "repeated": lambda x: np.broadcast_to(x[..., :1], x.shape),
    "every other row": lambda x: np.repeat(x, 2, -2)[..., ::2, :],
    "classes first": lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, 0)), 0, -1),
}


@pytest.mark.parametrize("name", ["nll_loss", "cross_entropy_probs"])
@pytest.mark.parametrize("shape", [(700, 30), (20, 35, 30)])
@pytest.mark.parametrize("laid", LAID)
def test_losses_of_labels_read_any_array_where_it_lies(laid, shape, name, rng):
    """One number of each position is all that they look at."""
    x = LAID[laid](xent.softmax(rng.standard_normal(shape).astype("f4")))
    labels = rng.integers(0, shape[-1], shape[:-1])
    expected = getattr(xent, name + "_value_and_grad")(x.copy(), labels)
    loss, grad = getattr(xent, name + "_value_and_grad")(x, labels)
    np.testing.assert_array_equal(grad, expected[1])
    assert abs(loss - expected[0]) <= 2e-7 * abs(loss)
    assert peak_bytes(lambda: getattr(xent, name)(x, labels)) < x.nbytes / 4


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
def test_pairs_in_different_orders(dtype, rng):
    """Of two arrays in different orders one is copied, number by number or in squares."""
    for shape in [(3, 5), (70, 90), (6, 21, 7, 40)]:
        x, t = (rng.random(shape).astype(dtype) for _ in range(2))
        expected = xent.mse_loss_value_and_grad(x, t), xent.softmax_backward(x, t, 1)
        for a, b in [(x, np.asfortranarray(t)), (np.asfortranarray(x), t)]:
            loss, grad = xent.mse_loss_value_and_grad(a, b)
            np.testing.assert_allclose(loss, expected[0][0], rtol=1e-6)
            np.testing.assert_array_equal(grad, expected[0][1])
            tolerance = 8 * float(finfo(x.dtype).eps)
            np.testing.assert_allclose(
                xent.softmax_backward(a, b, 1), expected[1], rtol=tolerance, atol=tolerance
            )


# Positions of which few are neighbours ----------------------------------------------------------------------


def everything(x, t, labels, axis, prior):
    """Results of all that has a class axis: (name, array with the classes last, or without them)."""

    def last(a):
        return np.moveaxis(a, axis, -1)

    none = {"axis": axis, "reduction": "none"}
    p = xent.softmax(x, axis)
    yield "softmax", last(p)
    yield "softmax at a temperature", last(xent.softmax(x, axis, temperature=3.0))
    yield "log_softmax", last(xent.log_softmax(x, axis))
    yield "log_softmax at a temperature", last(xent.log_softmax(x, axis, temperature=3.0))
    yield "logsumexp", xent.logsumexp(x, axis)
    yield "softmax_backward", last(xent.softmax_backward(t, p, axis))
    yield "log_softmax_backward", last(xent.log_softmax_backward(t, p, axis))
    for kind, target in (("labels", labels), ("probabilities", t)):
        for options in [
            {},
            {"weight": prior, "label_smoothing": 0.1},
            {"logit_cap": 2.0},
            {"temperature": 0.7, "prior": prior, "z_loss": 0.1},
        ]:
            loss, grad = xent.cross_entropy_value_and_grad(x, target, **none, **options)
            yield f"loss of {kind} {options}", loss
            yield f"gradient of {kind} {options}", last(grad)
    for kind, target in (("labels", labels), ("probabilities", t)):
        for options in [{}, {"gamma": 1.5, "logit_cap": 2.0}, {"z_loss": 0.1, "weight": prior, "gamma": 2.0}]:
            results = (
                *xent.cross_entropy_grad_hess(x, target, **none, **options),
                xent.cross_entropy_hvp(x, target, p, **none, **options),
            )
            for name, a in zip(("gradient of grad_hess", "hess", "hvp"), results, strict=True):
                yield f"{name} of {kind} {options}", last(a)
    factors = (t - 1e-3).astype(t.dtype)
    yield "logsumexp with factors", xent.logsumexp(x, axis, b=factors, return_sign=True)[0]
    for name in ("cross_entropy_probs", "kl_div"):
        loss, grad = getattr(xent, f"{name}_value_and_grad")(p, t, **none)
        yield name, loss
        yield f"{name}_grad", last(grad)
    yield "entropy", xent.entropy(p, axis=axis)
    for temperature in (1.0, 0.7):
        options = {"temperature": temperature}
        loss, grad = xent.distillation_loss_value_and_grad(x, t, **none, **options)
        yield f"distillation {options}", loss
        yield f"distillation_grad {options}", last(grad)
        yield f"compare {options}", xent.compare(x, t, labels, axis=axis, **options).kl_values
    loss, grad = xent.nll_loss_value_and_grad(x, labels, **none)
    yield "nll_loss", loss
    yield "nll_loss_grad", last(grad)
    log_probs, ranks = xent.token_log_probs(x, labels, axis=axis, ranks=True)
    yield "token_log_probs", log_probs
    yield "ranks", ranks
    result = xent.evaluate(x, labels, axis=axis, top_k=(1, 2), calibration_bins=4, confusion=True)
    yield "evaluate", np.array([result.loss, result.accuracy, result.mse, result.entropy])
    yield "confusion", result.confusion


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
@pytest.mark.parametrize("classes", [1, 3, 25])
@pytest.mark.parametrize("inner", [2, 3, 4, 7, 8, 15, 17, 33, 60])
def test_few_neighbours(inner, classes, dtype, rng):
    """The same bits as where all positions are neighbours, whatever they are cut into."""
    lines = 47
    x, t = (rng.standard_normal((lines, classes, inner)).astype(dtype) for _ in range(2))
    t = xent.softmax(t, 1)
    labels = rng.integers(0, classes, (lines, inner))
    prior = np.linspace(0.5, 2, classes)
    views = {"one line behind the other": (x, t)}
    views["every other line"] = tuple(np.repeat(a, 2, axis=0)[::2] for a in (x, t))
    views["backwards"] = tuple(np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1] for a in (x, t))
    side_by_side = [np.ascontiguousarray(np.moveaxis(a, 1, 0).reshape(classes, -1)) for a in (x, t)]
    expected = dict(everything(*side_by_side, labels.reshape(-1), 0, prior))
    for view, (a, b) in views.items():
        for name, result in everything(a, b, labels, 1, prior):
            right = expected[name]
            if name == "evaluate":  # sums over positions
                np.testing.assert_allclose(result, right, rtol=1e-12, err_msg=view)
            else:
                shape = right.shape if name == "confusion" else result.shape
                np.testing.assert_array_equal(result, right.reshape(shape), err_msg=f"{name}, {view}")
    out = x.copy()
    assert xent.softmax(out, 1, out=out) is out
    np.testing.assert_array_equal(np.moveaxis(out, 1, -1).reshape(-1, classes), expected["softmax"])


@pytest.mark.parametrize("name", ["softmax_backward", "log_softmax_backward"])
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
@pytest.mark.parametrize("classes", [1, 2, 7, 8, 21, 131])
def test_backward_of_columns_where_they_lie(classes, dtype, name, rng):
    """The same bits whatever they are cut into, on any number of threads, and in place of either argument."""
    backward = getattr(xent, name)
    for inner in (16, 17, 31, 72, 128, 200, 1100):
        g = rng.standard_normal((5, classes, inner)).astype(dtype)
        y = getattr(xent, name.removesuffix("_backward"))(rng.standard_normal(g.shape).astype(dtype), 1)
        whole = np.moveaxis(np.stack([g, y]), 2, 1).reshape(2, classes, -1)
        expected = np.moveaxis(backward(*np.ascontiguousarray(whole), 0).reshape(classes, 5, inner), 0, 1)
        for threads in (1, 2, 3, 7):
            with xent.num_threads(threads):
                np.testing.assert_array_equal(backward(g, y, 1), expected, f"{inner} neighbours")
        for replaced in (0, 1):
            pair = [g.copy(), y.copy()]
            assert backward(*pair, 1, out=pair[replaced]) is pair[replaced]
            np.testing.assert_array_equal(pair[replaced], expected, f"{inner} neighbours, in place")
        parts = [np.pad(a, ((0, 0), (0, 1), (2, 3)))[:, :-1, 2:-3] for a in (g, y)]
        np.testing.assert_array_equal(backward(*parts, 1), expected, f"{inner} neighbours of more")


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmax_backward", "log_softmax_backward"])
def test_axes_in_the_order_of_memory(name, dtype, rng):
    """The same bits as of arrays in C order, as which they are walked where no position has a number."""
    shape = (3, 5, 7, 4)
    g, y = (-np.abs(rng.standard_normal(shape)).astype(dtype) for _ in range(2))
    function = getattr(xent, name)
    for order in itertools.permutations(range(4)):
        back = np.argsort(order)
        for axis in range(4):
            given = [np.ascontiguousarray(a.transpose(order)) for a in (g, y)][
                -1 if "backward" not in name else 0 :
            ]
            right = function(*given, order.index(axis)).transpose(back)
            laid = [a.transpose(back) for a in given]
            result = function(*laid, axis)
            assert result.strides == laid[0].strides
            np.testing.assert_array_equal(result, right)
            out = np.full(shape, 9, dtype)
            assert function(*laid, axis, out=out) is out
            np.testing.assert_allclose(out, right, rtol=1e-2, atol=1e-3)
            assert function(*laid, axis, out=laid[0]) is laid[0]
            np.testing.assert_array_equal(laid[0], right)


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
@pytest.mark.parametrize("classes", [129, 700, 2100])
@pytest.mark.parametrize("inner", [2, 3, 4, 7, 15])
def test_few_neighbours_of_many_classes(inner, classes, dtype, rng):
    """The same bits as rows, as which they are worked on."""
    x, t = (rng.standard_normal((5, classes, inner)).astype(dtype) for _ in range(2))
    t = xent.softmax(t, 1)
    labels = rng.integers(0, classes, (5, inner))
    prior = np.linspace(0.5, 2, classes)
    rows = (np.ascontiguousarray(np.moveaxis(a, 1, 2)) for a in (x, t))
    expected = dict(everything(*rows, labels, -1, prior))
    views = {"one line behind the other": (x, t), "one line": (x[:1], t[:1])}
    views["backwards"] = tuple(np.ascontiguousarray(a[::-1, ::-1])[::-1, ::-1] for a in (x, t))
    views["parts of runs"] = tuple(np.pad(a, ((0, 0), (0, 0), (1, 3)))[:, :, 1:-3] for a in (x, t))
    views["far apart"] = tuple(np.pad(a, ((0, 0), (0, 0), (0, 20)))[:, :, :-20] for a in (x, t))
    for view, (a, b) in views.items():
        for name, result in everything(a, b, labels[: len(a)], 1, prior):
            right = expected[name]
            if name in ("evaluate", "confusion"):  # sums over positions
                if view != "one line":
                    np.testing.assert_allclose(result, right, rtol=1e-12, err_msg=view)
                continue
            right = right.reshape(5, -1)[: len(a)]
            np.testing.assert_array_equal(result, right.reshape(result.shape), err_msg=f"{name}, {view}")
    for function in (xent.softmax, xent.log_softmax):
        out = np.pad(x, ((0, 0), (0, 0), (0, 2)), constant_values=9)
        assert function(out[:, :, :-2], 1, out=out[:, :, :-2]).base is out
        np.testing.assert_array_equal(np.moveaxis(out[:, :, :-2], 1, 2), expected[function.__name__])
        assert (out[:, :, -2:] == 9).all(), "what lies between the runs is not theirs"


@pytest.mark.parametrize("dtype", ["f4", "f2"])
@pytest.mark.parametrize("inner", [2, 15])
def test_few_neighbours_in_parts(inner, dtype, rng):
    """So many classes that scratch has room for some of the neighbours, for one, and for none."""
    for classes in (30_000, 140_000, 300_000):
        x = rng.standard_normal((1, classes, inner)).astype(dtype)
        rows = np.ascontiguousarray(np.moveaxis(x, 1, 2))
        labels = rng.integers(0, classes, (1, inner))
        loss, grad = xent.cross_entropy_value_and_grad(x, labels, axis=1, reduction="none")
        right, by_rows = xent.cross_entropy_value_and_grad(rows, labels, reduction="none")
        ulp = finfo(loss.dtype).eps
        np.testing.assert_allclose(loss, right, rtol=4 * ulp)
        np.testing.assert_allclose(
            np.moveaxis(grad, 1, 2), by_rows, rtol=8 * float(finfo(x.dtype).eps), atol=1e-7
        )


@pytest.mark.parametrize(
    "name", ["softmax", "log_softmax", "cross_entropy_grad", "sigmoid_cross_entropy_grad"]
)
def test_results_of_repeated_rows_lie_in_c_order(name, rng):
    """NumPy would put the axis that is repeated innermost, and the kernels jump from row to row."""
    x = np.broadcast_to(rng.standard_normal(70), (50, 70))
    target = {"cross_entropy_grad": [np.arange(50)], "sigmoid_cross_entropy_grad": [np.zeros((50, 70))]}
    result = getattr(xent, name)(x, *target.get(name, []))
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, getattr(xent, name)(x.copy(), *target.get(name, [])))


ORDERS = {
    "C": lambda x: x,
    "F": np.asfortranarray,
    "turned": lambda x: np.ascontiguousarray(x.transpose(1, 2, 0)).transpose(2, 0, 1),
    "backwards": lambda x: x[::-1, :, ::-1],
    "every other": lambda x: np.repeat(x, 2, 2)[..., ::2],
    "repeated": lambda x: np.broadcast_to(x[:, :1], x.shape),
}


@pytest.mark.parametrize("second", ORDERS)
@pytest.mark.parametrize("first", ORDERS)
@pytest.mark.parametrize("name", ["sigmoid", "log_sigmoid", "sigmoid_backward", "log_sigmoid_backward"])
def test_elements_in_every_order(name, first, second, rng):
    """One array and a result, or two and a result."""
    x = ORDERS[first](rng.standard_normal((4, 5, 6)))
    arguments = [ORDERS[second](rng.standard_normal(x.shape)), x - 4] if "backward" in name else [x]
    expected = getattr(xent, name)(*map(np.ascontiguousarray, arguments))
    result = getattr(xent, name)(*arguments)
    np.testing.assert_array_equal(result, expected)
    if first in ("F", "turned") and "backward" not in name:
        assert result.strides == x.strides  # no transposition on the way
    out = ORDERS["C" if second == "repeated" else second](np.zeros(x.shape))
    assert getattr(xent, name)(*arguments, out=out) is out
    np.testing.assert_array_equal(out, expected)
