"""Prove that a refactoring keeps every bit: record what calls return before it, and compare after.

    python tools/same_bits.py record before.json --threads 1
    python tools/same_bits.py compare before.json after.json

A record has one line per call: `function | what is varied | details`, and a hash of all that the call
returned (type, dtype, shape, order of the axes in memory, bytes), of the arrays that it wrote into, and of
its warnings; or the type and message of its error. Results with NaNs have a second hash, which does not see
which NaN it was. XENT_ISA chooses the instruction set, as everywhere.

The calls go through the public API alone, with seeded inputs, so that one copy of this file records any
version. Inputs and their order depend on nothing but this file.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy: its products would round otherwise with each number

import argparse  # noqa: E402
import functools  # noqa: E402
import hashlib  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402

import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402

import xent  # noqa: E402

F8, F4, F2, BF16 = np.dtype("f8"), np.dtype("f4"), np.dtype("f2"), np.dtype(ml_dtypes.bfloat16)
DTYPES = [F8, F4, F2, BF16]
FLOATS = [F8, F4]
REDUCTIONS = ["none", "sum", "mean", "mean_valid", "mean_full", "mean_batch"]
ENDINGS = ["", "_grad", "_value_and_grad"]
# Few and many classes, tails of every vector, long rows, classes that lie apart; threads start at 131,072
# elements, and evaluate() and others leave their short ways at 16,384.
SIZES = [
    ((1, 1), -1), ((3, 2), -1), ((32, 10), -1), ((7, 17), -1), ((5, 1000), -1), ((3, 9000), -1),
    ((2, 70000), -1), ((64, 129), -1), ((64, 300), -1), ((300, 500), -1), ((10,), -1), ((6, 5, 4), -1),
    ((2, 3, 7, 11), 2), ((2, 5, 8, 9), 1), ((4, 21, 32, 32), 1), ((8, 21, 32, 32), 1), ((40, 4000), 0),
    ((0, 5), -1), ((0, 0), -1), ((3, 0), -1), ((2, 0, 4), 1), ((4, 3, 0), 1),
]  # fmt: skip
SMALL = [((32, 10), -1), ((7, 1000), -1), ((4, 21, 6, 8), 1)]


# Inputs -----------------------------------------------------------------------------------------------------


INPUTS = []


def kept(make):
    """Make each input once, and keep it to see at the end that no call wrote into it."""

    @functools.cache
    def wrapped(*args, **options):
        INPUTS.append(make(*args, **options))
        return INPUTS[-1]

    return wrapped


@kept
def normal(shape, dtype=F8, seed=0, scale=3.0):
    """Normal numbers: logits, images, weights of layers, upstream gradients."""
    rng = np.random.default_rng([seed, *shape])
    return (scale * rng.standard_normal(shape)).astype(dtype)


@kept
def positive(shape, dtype=F8, seed=0, low=0.25, high=2.0):
    """Numbers between low and high: weights."""
    return np.random.default_rng([seed, 7, *shape]).uniform(low, high, shape).astype(dtype)


@kept
def distributions(shape, axis=-1, dtype=F8, seed=0):
    """Probabilities that add up to 1 along an axis."""
    values = np.random.default_rng([seed, 9, *shape]).random(shape) ** 4
    total = values.sum(axis, keepdims=True)
    return (values / np.where(total == 0, 1, total)).astype(dtype)


@kept
def labels(shape, classes, ignored=0.2, ignore_index=-100, dtype="i8", seed=0):
    """Labels of which a share is ignored."""
    rng = np.random.default_rng([seed, classes, *shape])
    values = rng.integers(0, max(classes, 1), shape)
    return np.where(rng.random(shape) < ignored, ignore_index, values).astype(dtype)


def positions_of(shape, axis):
    axis %= len(shape)
    return shape[:axis] + shape[axis + 1 :]


def layouts(x):
    """Yield (name, the same values in another memory layout)."""
    yield "C", np.ascontiguousarray(x).copy()
    yield "Fortran", np.asfortranarray(x).copy(order="F")
    yield "class axis first", np.moveaxis(np.moveaxis(x, -1, 0).copy(), 0, -1)
    if x.ndim > 2:
        yield "middle axis last", np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)
    longer = np.full((*x.shape[:-1], x.shape[-1] + 1), 77, x.dtype)
    longer[..., :-1] = x
    yield "[:, :-1]", longer[..., :-1]
    double = np.full((*x.shape[:-1], 2 * x.shape[-1]), 77, x.dtype)
    double[..., ::2] = x
    yield "step 2", double[..., ::2]
    twice = np.full((2 * x.shape[0], *x.shape[1:]), 77, x.dtype)
    twice[::2] = x
    yield "step 2 of positions", twice[::2]
    yield "negative", np.ascontiguousarray(x)[..., ::-1].copy()[..., ::-1]
    yield "negative positions", np.ascontiguousarray(x)[::-1].copy()[::-1]
    raw = np.zeros(x.nbytes + 1, np.uint8)
    unaligned = np.ndarray(x.shape, x.dtype, raw, offset=1)
    unaligned[...] = x
    yield "unaligned", unaligned
    if x.dtype != BF16:
        yield "byte-swapped", x.astype(x.dtype.newbyteorder())
    frozen = np.ascontiguousarray(x).copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    if x.dtype == F8 or x.dtype.kind in "iu":
        yield "list", x.tolist()


def outs(shape, dtype):
    """Yield (name, array to write into)."""
    yield "fresh", np.full(shape, 55, dtype)
    yield "Fortran", np.full(shape, 55, dtype, order="F")
    yield "step 2", np.full((*shape[:-1], 2 * shape[-1]), 55, dtype)[..., ::2]
    yield "step 2 of positions", np.full((2 * shape[0], *shape[1:]), 55, dtype)[::2]
    yield "negative", np.full(shape, 55, dtype)[..., ::-1]
    yield (
        "unaligned",
        np.ndarray(shape, dtype, np.zeros(np.dtype(dtype).itemsize * int(np.prod(shape)) + 1, "u1"), 1),
    )
    if dtype != BF16:
        yield "byte-swapped", np.full(shape, 55, dtype.newbyteorder())


def special(dtype):
    """Rows in which a number is NaN, infinite, huge, tiny, or many are equal."""
    largest = float(ml_dtypes.finfo(dtype).max)
    tiny = float(ml_dtypes.finfo(dtype).tiny)
    nan, inf = np.nan, np.inf
    rows = [
        [nan, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, nan], [inf, 0, 1, 2, 3, 4, 5], [inf, inf, 1, 2, 3, 4, 5],
        [-inf, 1, 2, 3, 4, 5, 6], [1, 2, -inf, -inf, -inf, -inf, 3], [-inf] * 7, [inf, -inf, 0, 0, 0, 0, 0],
        [nan, inf, -inf, 0, 0, 0, 0], [largest, 0, 1, 2, 3, 4, 5], [-largest, 0, 1, 2, 3, 4, 5],
        [largest] * 7, [-largest] * 7, [tiny, -tiny, tiny / 4, 0, -0.0, 0, 0], [3, 3, 3, 1, 1, 0, 3],
        [0.0] * 7, [-0.0] * 7, [100, 0, 0, 0, 0, 0, 0], [-100, 0, 1, 0, 1, 0, 1], [60, 59, 0, -60, 1, 2, 3],
        [20, 0, -20, 40, -40, 1, 2], [1e-3, 2e-3, -1e-3, 0, 1e-4, 1e-5, 1e-6],
        [1000, 999, 998, -1000, 0, 1, 2], [88.7, 89, -88.7, -104, 0, 1, 2],
    ]  # fmt: skip
    with np.errstate(all="ignore"):
        return np.array(rows).astype(dtype)


# Recording --------------------------------------------------------------------------------------------------


def parts(value):
    """Yield (description, array or None) of everything in a result."""
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        axes = [i for i in range(array.ndim) if array.shape[i] > 1]
        order = sorted(axes, key=lambda i: (-abs(array.strides[i]), i)) if array.size else []
        kind = type(value).__name__ if isinstance(value, np.ndarray) else "scalar"
        yield f"{kind} {array.dtype.str} {array.dtype.name} {array.shape} {order}", array
    elif isinstance(value, (tuple, list)):
        yield f"{type(value).__name__} of {len(value)}", None
        for item in value:
            yield from parts(item)
    elif isinstance(value, dict):
        yield f"dict of {list(value)}", None
        for item in value.values():
            yield from parts(item)
    elif isinstance(value, xent.Evaluation):
        yield "Evaluation", None
        names = ["loss", "perplexity", "accuracy", "top_k_accuracy", "classification_error", "mse", "entropy"]
        names += ["label_entropy", "mutual_information"]
        yield from parts(vars(value))
        yield from parts({name: getattr(value, name) for name in names})
        yield repr(value), None
    elif isinstance(value, (bool, int, float, str, type(None))):
        yield f"{type(value).__name__} {value!r}", None
    else:  # a context manager, which has an address in its repr
        yield type(value).__name__, None


def fingerprint(*values):
    """The hash of results; where they hold NaNs, a second one to which all NaNs are equal."""
    exact, canonical, with_nan = hashlib.sha256(), hashlib.sha256(), False
    for text, array in itertools.chain.from_iterable(map(parts, values)):
        exact.update(text.encode())
        canonical.update(text.encode())
        if array is not None:
            data = array.tobytes()
            exact.update(data)
            if array.dtype.kind in "fV" and (nan := np.isnan(array)).any():
                with_nan, array = True, array.copy()
                array[nan] = np.nan
                data = array.tobytes()
            canonical.update(data)
    return exact.hexdigest()[:16] + (f" {canonical.hexdigest()[:16]}" if with_nan else "")


def whole(array):
    """The memory that an array is a view of, so that a write beside it shows."""
    while isinstance(getattr(array, "base", None), np.ndarray):
        array = array.base
    return array


class Record:
    """Makes calls and keeps what they did."""

    def __init__(self):
        self.results = {}

    def __call__(self, name, varied, detail, *args, **options):
        """Call one function of xent; `out` among the options is hashed as well."""
        key = f"{name} | {varied} | {detail}"
        assert key not in self.results, key
        out = options.get("out")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                result = getattr(xent, name)(*args, **options)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                if out is not None:  # errors come before effects
                    text += f" {fingerprint(*map(whole, out if isinstance(out, tuple) else (out,)))}"
            else:
                text = fingerprint(result)
                if out is not None:
                    pair = out if isinstance(out, tuple) else (out,)
                    given = [r for r in (result if isinstance(result, tuple) else (result,))]
                    returned = [any(r is o for r in given) for o in pair]
                    text += f" out {fingerprint(*map(whole, pair))} {returned}"
        said = sorted({f"{w.category.__name__}: {w.message}" for w in caught})
        self.results[key] = " ".join([text, *said])


def with_out(record, name, varied, detail, args, dtype, **options):
    """Call a function that has `out` with every kind of it, its first argument included."""
    shape = args[0].shape
    for kind, out in outs(shape, dtype):
        record(name, varied, f"{detail} {kind}", *args, out=out, **options)
    for kind, x in layouts(args[0]):
        if kind not in ("list", "read-only"):
            record(name, varied, f"{detail} in place, {kind}", x, *args[1:], out=x, **options)


# Softmax, sigmoid, log-sum-exp ------------------------------------------------------------------------------


def softmax_family(record):
    for (shape, axis), dtype in itertools.product(SIZES, DTYPES):
        x, what = normal(shape, dtype), f"{shape} axis {axis} {dtype}"
        probs = distributions(shape, axis, dtype)
        for name in ["softmax", "log_softmax", "logsumexp"]:
            record(name, "size", what, x, axis)
        for name in ["softmax_backward", "log_softmax_backward"]:
            y = probs if name == "softmax_backward" else -positive(shape, dtype, high=9.0)
            record(name, "size", what, normal(shape, dtype, 1), y, axis)
        if np.prod(shape) * shape[axis] < 200_000:
            record("softmax_jacobian", "size", what, probs, axis)
        for name in ["sigmoid", "log_sigmoid"]:
            if axis == -1:
                record(name, "size", what, x)
    for dtype in DTYPES:
        softmax_options(record, dtype)
    for kind in ["i8", "i4", "u1", "i1", "u8", "?"]:
        x = np.abs(normal((5, 9))).astype(kind)
        for name in ["softmax", "log_softmax", "logsumexp", "softmax_jacobian", "sigmoid", "log_sigmoid"]:
            record(name, "integers", kind, x)
        record("softmax_backward", "integers", kind, x, distributions((5, 9)))
        record("log_softmax_backward", "integers", kind, normal((5, 9)), x)
    for one, other in itertools.permutations(DTYPES, 2):
        for name in ["softmax_backward", "log_softmax_backward"]:
            record(
                name, "two dtypes", f"{one} {other}", normal((5, 9), one), distributions((5, 9), -1, other)
            )


def softmax_options(record, dtype):
    x, cube = normal((9, 33), dtype), normal((4, 6, 35), dtype)
    for temperature in [0.5, 0.7, 3, np.float32(1.5), 1e-3, 1e30, 1]:
        for shape, axis in [((32, 10), -1), ((7, 1000), -1), ((4, 21, 6, 8), 1), ((300, 500), -1)]:
            for name in ["softmax", "log_softmax"]:
                what = f"{temperature} {shape} {dtype}"
                record(name, "temperature", what, normal(shape, dtype), axis, temperature=temperature)
    for kind, given in itertools.chain(layouts(x), ((f"cube {k}", v) for k, v in layouts(cube))):
        grad = normal(np.shape(given), dtype, 1)
        for name in ["softmax", "log_softmax", "logsumexp", "softmax_jacobian"]:
            record(name, "layout", f"{kind} {dtype}", given)
        for name in ["sigmoid", "log_sigmoid"]:
            record(name, "layout", f"{kind} {dtype}", given)
        for name in ["softmax_backward", "log_softmax_backward"]:
            record(name, "layout", f"y {kind} {dtype}", grad, given)
            record(name, "layout", f"grad {kind} {dtype}", given, grad)
            record(name, "layout", f"both {kind} {dtype}", given, given)
        record("softmax", "layout", f"axis 0, {kind} {dtype}", given, 0)
        record("logsumexp", "layout", f"axis 0, {kind} {dtype}", given, 0)
    for name in ["softmax", "log_softmax", "sigmoid", "log_sigmoid"]:
        with_out(record, name, "out", f"{dtype}", [x], dtype)
        with_out(record, name, "out", f"cube {dtype}", [cube], dtype)
    for name in ["softmax_backward", "log_softmax_backward"]:
        with_out(record, name, "out", f"{dtype}", [x, normal((9, 33), dtype, 1)], dtype)
        y = x.copy()
        record(name, "out", f"in place of y, {dtype}", normal((9, 33), dtype, 1), y, out=y)
    loss = np.dtype("f8") if dtype == F8 else F4
    for axis in [None, 0, 1, 2, -3, (0,), (0, 1), (1, 2), (0, 2), (2, 0, 1), ()]:
        for keepdims in [False, True]:
            what = f"{axis} {keepdims} {dtype}"
            record("logsumexp", "axis and keepdims", what, cube, axis, keepdims=keepdims)
            record("logsumexp", "b", what, cube, axis, keepdims=keepdims, b=normal((35,), dtype, 2))
    for kind, b in [
        ("scalar", 2.0),
        ("zeros", np.zeros((9, 33))),
        ("rows", positive((9, 1))),
        ("f4", positive((33,), F4)),
    ]:
        record("logsumexp", "b", f"{kind} {dtype}", x, b=b)
    for out in [np.zeros(9, loss), np.zeros(18, loss)[::2], np.zeros(9, loss)[::-1]]:
        record("logsumexp", "out", f"{out.strides} {dtype}", x, out=out)
    rows = special(dtype)
    for name in ["softmax", "log_softmax", "logsumexp", "sigmoid", "log_sigmoid", "softmax_jacobian"]:
        record(name, "special values", f"{dtype}", rows)
        record(name, "special values", f"scalar {dtype}", rows[0, 1])
    for name in ["softmax", "log_softmax", "logsumexp"]:
        record(name, "special values", f"columns {dtype}", rows.T.copy(), 0)
        many = np.concatenate([np.tile(rows, 150), rows], axis=1)
        record(name, "special values", f"long rows {dtype}", many)
    for name in ["softmax", "log_softmax"]:
        record(name, "special values", f"temperature {dtype}", rows, temperature=0.3)
    for name in ["softmax_backward", "log_softmax_backward"]:
        record(name, "special values", f"{dtype}", rows, rows[::-1])


# Cross-entropy from logits ----------------------------------------------------------------------------------

TRIPLE = ["cross_entropy", "cross_entropy_grad", "cross_entropy_value_and_grad"]


def target_of(kind, shape, axis, dtype):
    """Labels of which some are ignored, or probabilities."""
    return (
        labels(positions_of(shape, axis), shape[axis])
        if kind == "labels"
        else distributions(shape, axis, dtype, 3)
    )


def marked(target, option, value):
    """The target; beside another ignore_index, that one stands for the labels to ignore."""
    if option != "ignore_index" or target.dtype.kind != "i":
        return target
    return np.where(target == -100, value, target)


def loss_options(shape, axis, dtype):
    """{option: values} of the cross-entropy family."""
    classes, positions = shape[axis], positions_of(shape, axis)
    few = np.where(positive((classes,), F8, 5) < 0.7, 0, positive((classes,), F8, 5))
    return {
        "weight": [positive((classes,), dtype), few],
        "sample_weight": [positive(positions, dtype), positive(positions) > 1, np.zeros(positions)],
        "ignore_index": [1, 2**40],
        "label_smoothing": [0.1, 1.0],
        "z_loss": [1e-2, 3],
        "gamma": [2.0, 0.5, 1.0],
        "temperature": [0.7, 5.0],
        "logit_cap": [5.0, 100.0],
        "prior": [positive((classes,)), positive((classes,), F4)],
        "reduction": REDUCTIONS,
    }


KINDS = ["labels", "probabilities"]


def cross_entropy_sizes(record):
    for (shape, axis), dtype, kind, name in itertools.product(SIZES, DTYPES, KINDS, TRIPLE):
        x, target = normal(shape, dtype), target_of(kind, shape, axis, dtype)
        record(name, "size", f"{shape} axis {axis} {dtype} {kind}", x, target, axis=axis)
    for dtype, kind in itertools.product(DTYPES, KINDS):
        for (shape, axis), option in itertools.product(
            [((300, 500), -1), ((2, 70000), -1), ((8, 21, 32, 32), 1)],
            loss_options((300, 500), -1, dtype),
        ):
            value = loss_options(shape, axis, dtype)[option][0]
            x, target = normal(shape, dtype), target_of(kind, shape, axis, dtype)
            what = f"{shape} {dtype} {kind}"
            record(
                TRIPLE[2],
                f"large {option}",
                what,
                x,
                marked(target, option, value),
                axis=axis,
                **{option: value},
            )


def cross_entropy_options(record):
    for (shape, axis), dtype, kind in itertools.product(SMALL, DTYPES, KINDS):
        x, target = normal(shape, dtype), target_of(kind, shape, axis, dtype)
        for option, values in loss_options(shape, axis, dtype).items():
            for i, value in enumerate(values):
                if shape == (7, 1000) and i % 2:
                    continue  # half of the values will do
                for name in TRIPLE:
                    what, t = f"{i} {shape} {dtype} {kind}", marked(target, option, value)
                    record(name, option, what, x, t, axis=axis, **{option: value})
    for (shape, axis), dtype, kind in itertools.product(
        [((13, 129), -1), ((3, 6, 10), 1)], FLOATS + [F2], KINDS
    ):
        values = loss_options(shape, axis, dtype)
        x, target = normal(shape, dtype), target_of(kind, shape, axis, dtype)
        for one, other in itertools.combinations(values, 2):
            chosen = {one: values[one][0], other: values[other][0]}
            t = (
                target
                if "ignore_index" not in chosen
                else marked(target, "ignore_index", chosen["ignore_index"])
            )
            what = f"{one} {other} {shape} {dtype} {kind}"
            record(TRIPLE[2], "two options", what, x, t, axis=axis, **chosen)
            if dtype == F4:
                for name in TRIPLE[:2]:
                    record(name, "two options", what, x, t, axis=axis, **chosen)
        for left_out in values:
            chosen = {k: v[0] for k, v in values.items() if k not in (left_out, "gamma", "ignore_index")}
            what = f"without {left_out} {shape} {dtype} {kind}"
            record(TRIPLE[2], "many options", what, x, target, axis=axis, **chosen)


def cross_entropy_layouts(record):
    many = {"weight": positive((33,)), "label_smoothing": 0.1, "temperature": 0.7}
    for dtype, kind in itertools.product(DTYPES, KINDS):
        x, target = normal((9, 33), dtype), target_of(kind, (9, 33), -1, dtype)
        cube, cube_target = normal((4, 6, 35), dtype), target_of(kind, (4, 6, 35), -1, dtype)
        for layout, given in layouts(x):
            for name in TRIPLE:
                record(name, "layout", f"{layout} {dtype} {kind}", given, target)
            record(TRIPLE[2], "layout", f"{layout} {dtype} {kind}, options", given, target, **many)
        for layout, given in layouts(cube):
            for name in TRIPLE:
                record(name, "layout", f"cube {layout} {dtype} {kind}", given, cube_target)
            middle = np.moveaxis(cube, -1, 1) if layout == "list" else np.moveaxis(given, -1, 1)
            t = cube_target if kind == "labels" else np.moveaxis(cube_target, -1, 1)
            record(
                TRIPLE[2], "layout", f"class axis in the middle, {layout} {dtype} {kind}", middle, t, axis=1
            )
        for layout, t in layouts(target):
            for name in TRIPLE:
                record(name, "layout of target", f"{layout} {dtype} {kind}", x, t)
        for name in TRIPLE[1:]:
            with_out(record, name, "out", f"{dtype} {kind}", [x, target], dtype)
            with_out(record, name, "out", f"cube {dtype} {kind}", [cube, cube_target], dtype)
            with_out(record, name, "out", f"options {dtype} {kind}", [x, target], dtype, **many)
        for layout, s in layouts(positive((9,))):
            record(
                TRIPLE[2], "layout of sample_weight", f"{layout} {dtype} {kind}", x, target, sample_weight=s
            )
        for layout, w in layouts(positive((33,))):
            record(TRIPLE[2], "layout of weight", f"{layout} {dtype} {kind}", x, target, weight=w)
            record(TRIPLE[2], "layout of prior", f"{layout} {dtype} {kind}", x, target, prior=w)


def cross_entropy_targets(record):
    x = {dtype: normal((9, 33), dtype) for dtype in DTYPES}
    for dtype, kind in itertools.product(
        DTYPES, ["i8", "i4", "i2", "i1", "u1", "u2", "u4", "u8", ">i8", ">i4", "list"]
    ):
        given = labels((9,), 33, 0, seed=4)
        given = given.tolist() if kind == "list" else given.astype(kind)
        for name in TRIPLE:
            record(name, "dtype of labels", f"{kind} {dtype}", x[dtype], given)
            ignored = given if kind == "list" else given.copy()
            ignored[3:5] = [7, 7] if kind == "list" else 7
            record(name, "dtype of labels", f"{kind} {dtype}, 7 ignored", x[dtype], ignored, ignore_index=7)
    for dtype, name in itertools.product(DTYPES, TRIPLE):
        for reduction in REDUCTIONS:
            record(
                name, "all ignored", f"{reduction} {dtype}", x[dtype], np.full(9, -100), reduction=reduction
            )
        record(name, "one position", f"{dtype}", x[dtype][0], 5)
        record(name, "one position", f"{dtype} ignored", x[dtype][0], -100)
        record(
            name,
            "one position",
            f"{dtype} probabilities",
            x[dtype][0],
            distributions((9, 33))[0].astype(dtype),
        )
        record(
            name,
            "ignored -1, 255",
            f"{dtype}",
            x[dtype],
            labels((9,), 33, 0.3, 255, "u1"),
            ignore_index=255,
        )
        for other in [F8, F4, F2, BF16, np.dtype(">f8"), np.dtype(">f4")]:
            t = distributions((9, 33), -1, F8, 3).astype(other)
            record(name, "dtype of probabilities", f"{other} beside {dtype}", x[dtype], t)
            record(
                name, "dtype of probabilities", f"{other} beside {dtype}, options", x[dtype], t,
                label_smoothing=0.1, weight=positive((33,)), sample_weight=positive((9,), F4), z_loss=0.1,
            )  # fmt: skip
        one_hot = np.eye(33)[labels((9,), 33, 0)].astype(dtype)
        record(name, "dtype of probabilities", f"one-hot {dtype}", x[dtype], one_hot)
        record(name, "dtype of probabilities", f"not normalised {dtype}", x[dtype], 3 * one_hot)
    for kind in ["i8", "i4", "u1", "i1", "?"]:
        given = np.abs(normal((9, 33))).astype(kind)
        for name, target in itertools.product(TRIPLE, KINDS):
            record(name, "integers", f"{kind} {target}", given, target_of(target, (9, 33), -1, F8))
    for dtype, name in itertools.product(DTYPES, TRIPLE):
        rows = special(dtype)
        n = len(rows)
        ways = {
            "plain": {},
            "sum": {"reduction": "sum"},
            "smooth": {"label_smoothing": 0.1},
            "cap": {"logit_cap": 3.0},
        }
        ways |= {"gamma": {"gamma": 2.0}, "z_loss": {"z_loss": 0.1}, "temperature": {"temperature": 0.3}}
        ways |= {
            "sample_weight": {"sample_weight": (np.arange(n) % 2).astype(F8)},
            "prior": {"prior": positive((7,))},
        }
        ways |= {"weight": {"weight": np.array([0.0, 1, 2, 0, 1, 3, 1])}}
        for way, options in ways.items():
            chosen = {"reduction": "none"} | options
            record(name, "special values", f"{way} {dtype} labels", rows, np.arange(n) % 7, **chosen)
            t = distributions((n, 7), -1, dtype, 3)
            record(name, "special values", f"{way} {dtype} probabilities", rows, t, **chosen)


def cross_entropy_upstream(record):
    name = "cross_entropy_grad"
    for (shape, axis), dtype, kind in itertools.product(SMALL, DTYPES, KINDS):
        x, target = normal(shape, dtype), target_of(kind, shape, axis, dtype)
        each = normal(positions_of(shape, axis), F8, 6)
        what = f"{shape} {dtype} {kind}"
        for i, g in enumerate([2.5, np.float32(-0.3), np.array(1e10), 3, 0.0]):
            for reduction in ["mean", "sum", "mean_full"]:
                record(
                    name,
                    "grad_output",
                    f"{i} {reduction} {what}",
                    x,
                    target,
                    axis=axis,
                    grad_output=g,
                    reduction=reduction,
                )
        for i, g in enumerate([each, each.astype(F4), each.astype(F2), each.astype(BF16), each.tolist()]):
            record(
                name, "grad_output", f"each {i} {what}", x, target, axis=axis, grad_output=g, reduction="none"
            )
        if np.ndim(each) == 1:
            for layout, g in layouts(each):
                record(
                    name,
                    "layout of grad_output",
                    f"{layout} {what}",
                    x,
                    target,
                    axis=axis,
                    grad_output=g,
                    reduction="none",
                )
        for option, values in loss_options(shape, axis, dtype).items():
            if option not in ("reduction", "ignore_index"):
                chosen = {option: values[0], "reduction": "none", "grad_output": each}
                record(name, "grad_output and an option", f"{option} {what}", x, target, axis=axis, **chosen)


# Second order, evaluation, log-probabilities ----------------------------------------------------------------


def second_order(record):
    for (shape, axis), dtype in itertools.product(SIZES, DTYPES):
        x, what = normal(shape, dtype), f"{shape} axis {axis} {dtype}"
        record("cross_entropy_grad_hess", "size", what, x, target_of("labels", shape, axis, dtype), axis=axis)
        if x.size < 50_000:
            v = normal(shape, dtype, 8)
            record(
                "cross_entropy_hvp", "size", what, x, target_of("labels", shape, axis, dtype), v, axis=axis
            )
    known = [
        "weight",
        "sample_weight",
        "ignore_index",
        "label_smoothing",
        "temperature",
        "prior",
        "reduction",
    ]
    for (shape, axis), dtype, kind in itertools.product(SMALL, DTYPES, KINDS):
        x, v, target = normal(shape, dtype), normal(shape, dtype, 8), target_of(kind, shape, axis, dtype)
        for option, values in loss_options(shape, axis, dtype).items():
            for i, value in enumerate(values):
                what, t = f"{i} {shape} {dtype} {kind}", marked(target, option, value)
                if i == 0 or shape == (32, 10):
                    record("cross_entropy_hvp", option, what, x, t, v, axis=axis, **{option: value})
                    if option in known:
                        record("cross_entropy_grad_hess", option, what, x, t, axis=axis, **{option: value})
        for hessian in ["diagonal", "upper", "friedman", "absolute"]:
            what = f"{hessian} {shape} {dtype} {kind}"
            options = {"hessian": hessian, "reduction": "sum", "axis": axis}
            record("cross_entropy_grad_hess", "hessian", what, x, target, **options)
            record(
                "cross_entropy_grad_hess",
                "hessian",
                f"{what} weight",
                x,
                target,
                weight=positive((shape[axis],)),
                **options,
            )
    for dtype, kind in itertools.product(DTYPES, KINDS):
        x, v, target = normal((9, 33), dtype), normal((9, 33), dtype, 8), target_of(kind, (9, 33), -1, dtype)
        for layout, given in layouts(x):
            record("cross_entropy_grad_hess", "layout", f"{layout} {dtype} {kind}", given, target)
            record("cross_entropy_hvp", "layout", f"{layout} {dtype} {kind}", given, target, v)
            record("cross_entropy_hvp", "layout", f"vector {layout} {dtype} {kind}", x, target, given)
            if layout not in ("list", "read-only"):
                pair = (given, np.full(given.shape, 5, dtype))
                record(
                    "cross_entropy_grad_hess",
                    "out",
                    f"in place, {layout} {dtype} {kind}",
                    given,
                    target,
                    out=pair,
                )
        for (layout, one), (_, other) in zip(outs((9, 33), dtype), outs((9, 33), dtype), strict=True):
            record("cross_entropy_grad_hess", "out", f"{layout} {dtype} {kind}", x, target, out=(one, other))
            record(
                "cross_entropy_grad_hess",
                "out",
                f"one, {layout} {dtype} {kind}",
                x,
                target,
                out=(None, other),
            )
        rows = special(dtype)
        t = target_of(kind, rows.shape, -1, dtype)
        record("cross_entropy_grad_hess", "special values", f"{dtype} {kind}", rows, t, reduction="sum")
        record(
            "cross_entropy_hvp",
            "special values",
            f"{dtype} {kind}",
            rows,
            t,
            rows[::-1].copy(),
            reduction="sum",
        )


def evaluation(record):
    for (shape, axis), dtype in itertools.product(SIZES, DTYPES):
        x, target = normal(shape, dtype), target_of("labels", shape, axis, dtype)
        record("evaluate", "size", f"{shape} axis {axis} {dtype}", x, target, axis=axis)
    ks = [1, 3, (1, 5), (5, 1, 2), (np.int64(2), 40), (1, 2, 3, 4, 5, 6, 7, 8)]
    for (shape, axis), dtype in itertools.product([*SMALL, ((300, 500), -1)], DTYPES):
        x, target = normal(shape, dtype), target_of("labels", shape, axis, dtype)
        positions, classes = positions_of(shape, axis), shape[axis]
        ways = {f"top_k {k}": {"top_k": k} for k in ks} | {f"base {b}": {"base": b} for b in [2, 10, 1.5]}
        factors = [positive(positions), positive(positions, F4), positive(positions) > 1, np.zeros(positions)]
        ways |= {f"sample_weight {i}": {"sample_weight": s} for i, s in enumerate(factors)}
        ways |= {"prior": {"prior": positive((classes,))}}
        ways |= {
            "all": {
                "prior": positive((classes,)),
                "top_k": (1, 3),
                "sample_weight": positive(positions),
                "base": 2,
            }
        }
        for way, options in ways.items():
            record("evaluate", way.split()[0], f"{way} {shape} {dtype}", x, target, axis=axis, **options)
        t = marked(target, "ignore_index", 1)
        record("evaluate", "ignore_index", f"{shape} {dtype}", x, t, axis=axis, ignore_index=1)
    for dtype in DTYPES:
        x, target = normal((9, 33), dtype), target_of("labels", (9, 33), -1, dtype)
        for layout, given in layouts(x):
            record("evaluate", "layout", f"{layout} {dtype}", given, target)
        for layout, given in layouts(normal((4, 6, 35), dtype)):
            record(
                "evaluate",
                "layout",
                f"cube {layout} {dtype}",
                given,
                target_of("labels", (4, 6, 35), -1, dtype),
            )
        for layout, given in layouts(target):
            record("evaluate", "layout", f"target {layout} {dtype}", x, given)
        for kind in ["i4", "u1", "u8", "i2"]:
            record("evaluate", "dtype of labels", f"{kind} {dtype}", x, labels((9,), 33, 0).astype(kind))
        rows = special(dtype)
        record("evaluate", "special values", f"{dtype}", rows, np.arange(len(rows)) % 7, top_k=(1, 3))
        record("evaluate", "special values", f"ties {dtype}", np.round(x / 3), target, top_k=(1, 2, 3))
        record("evaluate", "all ignored", f"{dtype}", x, np.full(9, -100))
        record("evaluate", "one position", f"{dtype}", x[0], 3)
        both = xent.evaluate(x, target, top_k=(1, 2)) + xent.evaluate(-x, target, top_k=(1, 2))
        record.results[f"Evaluation | + | {dtype}"] = fingerprint(both)
        total = sum(xent.evaluate(x * k, target) for k in (1, 2, 3))
        record.results[f"Evaluation | sum | {dtype}"] = fingerprint(total)


def nll(record):
    names = ["nll_loss", "nll_loss_grad", "nll_loss_value_and_grad"]
    for (shape, axis), dtype, name in itertools.product(SIZES, DTYPES, names):
        x, target = -positive(shape, dtype, 0, 0, 9), target_of("labels", shape, axis, dtype)
        record(name, "size", f"{shape} axis {axis} {dtype}", x, target, axis=axis)
    for (shape, axis), dtype, name in itertools.product(SMALL, DTYPES, names):
        x, target, classes = (
            -positive(shape, dtype, 0, 0, 9),
            target_of("labels", shape, axis, dtype),
            shape[axis],
        )
        for reduction, weight in itertools.product(
            REDUCTIONS, [None, positive((classes,)), positive((classes,), F4)]
        ):
            what = f"{reduction} {None if weight is None else weight.dtype} {shape} {dtype}"
            record(
                name, "reduction and weight", what, x, target, axis=axis, reduction=reduction, weight=weight
            )
        record(
            name,
            "ignore_index",
            f"{shape} {dtype}",
            x,
            marked(target, "ignore_index", 1),
            axis=axis,
            ignore_index=1,
        )
    for dtype, name in itertools.product(DTYPES, names):
        x, target = -positive((9, 33), dtype, 0, 0, 9), target_of("labels", (9, 33), -1, dtype)
        for layout, given in layouts(x):
            record(name, "layout", f"{layout} {dtype}", given, target)
        for layout, given in layouts(target):
            record(name, "layout", f"target {layout} {dtype}", x, given)
        if name != names[0]:
            with_out(record, name, "out", f"{dtype}", [x, target], dtype)
        rows = special(dtype)
        record(name, "special values", f"{dtype}", rows, np.arange(len(rows)) % 7, reduction="none")
        record(name, "one position", f"{dtype}", x[0], 3)
        record(name, "all ignored", f"{dtype}", x, np.full(9, -100))
    for dtype in DTYPES:
        x, target = -positive((9, 33), dtype, 0, 0, 9), target_of("labels", (9, 33), -1, dtype)
        record(names[1], "grad_output", f"{dtype}", x, target, grad_output=2.5)
        record(
            names[1], "grad_output", f"each {dtype}", x, target, grad_output=normal((9,)), reduction="none"
        )


# Independent classes ----------------------------------------------------------------------------------------


def sigmoid_cross_entropy(record):
    names = [f"sigmoid_cross_entropy{ending}" for ending in ENDINGS]
    for (shape, axis), dtype, name, kind in itertools.product(SIZES, DTYPES, names, ["i8", "float"]):
        if axis == -1:
            x = normal(shape, dtype)
            target = (
                (normal(shape, F8, 3) > 0).astype("i8") if kind == "i8" else distributions(shape, -1, dtype)
            )
            record(name, "size", f"{shape} {dtype} {kind}", x, target)
    for shape, dtype in itertools.product([(32, 10), (3, 700), (2, 3, 40)], DTYPES):
        x, soft = normal(shape, dtype), distributions(shape, -1, dtype)
        hard = (normal(shape, F8, 3) > 0).astype("i8")
        ways = {f"reduction {r}": {"reduction": r} for r in REDUCTIONS}
        ways |= {"label_smoothing": {"label_smoothing": 0.1}, "alpha": {"alpha": 0.25}}
        ways |= {f"gamma {g}": {"gamma": g} for g in (0.5, 1.0, 2.0, 3.3)}
        for option in ["weight", "pos_weight"]:
            for i, w in enumerate(
                [positive(shape[-1:]), positive(shape, F4), positive((*shape[:-1], 1), dtype), 2.5]
            ):
                ways[f"{option} {i}"] = {option: w}
        ways["focal"] = {"gamma": 2.0, "alpha": 0.25, "reduction": "sum"}
        ways["all"] = {
            "gamma": 2.0, "alpha": 0.3, "label_smoothing": 0.1,
            "weight": positive(shape), "pos_weight": positive(shape[-1:]),
        }  # fmt: skip
        for (way, options), name in itertools.product(ways.items(), names):
            record(name, way.split()[0], f"{way} {shape} {dtype} hard", x, hard, **options)
            record(name, way.split()[0], f"{way} {shape} {dtype} soft", x, soft, **options)
        ignored = np.where(normal(shape, F8, 5) > 3, -1, hard)
        for reduction, name in itertools.product(REDUCTIONS, names):
            what = f"{reduction} {shape} {dtype}"
            record(name, "ignore_index", what, x, ignored, ignore_index=-1, reduction=reduction)
        for kind, name in itertools.product(["i4", "i1", "u1", "u8", "?", ">i4"], names):
            record(name, "dtype of target", f"{kind} {shape} {dtype}", x, hard.astype(kind))
        for kind, name in itertools.product([F8, F4, F2, BF16, np.dtype(">f4")], names):
            t = distributions(shape).astype(kind)
            record(name, "dtype of target", f"{kind} {shape} {dtype}", x, t)
        record(names[1], "grad_output", f"{shape} {dtype}", x, hard, grad_output=2.5)
        record(
            names[1],
            "grad_output",
            f"each {shape} {dtype}",
            x,
            hard,
            grad_output=normal(shape),
            reduction="none",
        )
    for dtype in DTYPES:
        x, hard, soft = (
            normal((9, 33), dtype),
            (normal((9, 33), F8, 3) > 0).astype("i8"),
            distributions((9, 33), -1, dtype),
        )
        for name in names:
            for layout, given in layouts(x):
                record(name, "layout", f"{layout} {dtype}", given, hard)
            for layout, given in layouts(soft):
                record(name, "layout", f"target {layout} {dtype}", x, given)
            rows = special(dtype)
            for gamma in [0.0, 2.0]:
                what = f"{gamma} {dtype}"
                record(
                    name,
                    "special values",
                    what,
                    rows,
                    distributions(rows.shape),
                    gamma=gamma,
                    reduction="none",
                )
                record(
                    name,
                    "special values",
                    f"{what} hard",
                    rows,
                    np.arange(rows.size).reshape(rows.shape) % 2,
                    gamma=gamma,
                )
        for name in names[1:]:
            with_out(record, name, "out", f"{dtype} hard", [x, hard], dtype)
            with_out(record, name, "out", f"{dtype} soft", [x, soft], dtype)
        for kind in ["i8", "u1", "?"]:
            record(names[2], "integers", f"{kind} {dtype}", np.abs(x).astype(kind), soft)


# Losses of probabilities ------------------------------------------------------------------------------------


def probability_losses(shape, axis, dtype):
    """{name: (first argument, second argument, has an axis, {option: values})}."""
    p, t = distributions(shape, axis, dtype), distributions(shape, axis, dtype, 3)
    inside = positive(shape, dtype, 1, 0.01, 0.99)
    base = {"base": [2, 10, 0.5]}
    return {
        "cross_entropy_probs": (p, t, True, base | {"clip": [1e-7, 0.1]}),
        "binary_cross_entropy": (
            inside, t, False,
            base | {"clip": [1e-7, 0.1], "weight": [positive(shape[-1:]), positive(shape, dtype), 2.0]},
        ),
        "kl_div": (-positive(shape, dtype, 0, 0.0, 9.0), t, True, base | {"log_target": [True]}),
        "distillation_loss": (
            normal(shape, dtype), normal(shape, dtype, 4), True, {"temperature": [0.5, 4.0, 1]},
        ),
        "mse_loss": (normal(shape, dtype), normal(shape, dtype, 4), False, {}),
    }  # fmt: skip


def probabilities(record):
    for (shape, axis), dtype in itertools.product(SIZES, DTYPES):
        for name, (first, second, has_axis, _) in probability_losses(shape, axis, dtype).items():
            options = {"axis": axis} if has_axis else {}
            for ending in ENDINGS:
                record(name + ending, "size", f"{shape} axis {axis} {dtype}", first, second, **options)
        record(
            "entropy", "size", f"{shape} axis {axis} {dtype}", distributions(shape, axis, dtype), axis=axis
        )
    for (shape, axis), dtype in itertools.product(SMALL, DTYPES):
        probability_options(record, shape, axis, dtype)
    for dtype in DTYPES:
        probability_layouts(record, dtype)
    for kind in ["i8", "u1", "?"]:
        x = (normal((5, 9)) > 0).astype(kind)
        for name in probability_losses((5, 9), -1, F8):
            for ending in ENDINGS:
                record(name + ending, "integers", kind, x, x)
                record(name + ending, "integers", f"{kind} beside f4", positive((5, 9), F4, 0, 0.1, 0.9), x)
                record(name + ending, "integers", f"{kind} beside f2", positive((5, 9), F2, 0, 0.1, 0.9), x)
        record("entropy", "integers", kind, x)
    for one, other in itertools.permutations(DTYPES, 2):
        for name, (first, _, _, _) in probability_losses((5, 9), -1, one).items():
            second = probability_losses((5, 9), -1, other)[name][1]
            for ending in ENDINGS:
                record(name + ending, "two dtypes", f"{one} {other}", first, second)


def probability_options(record, shape, axis, dtype):
    for name, (first, second, has_axis, values) in probability_losses(shape, axis, dtype).items():
        where = {"axis": axis} if has_axis else {}
        for ending in ENDINGS:
            for option, value in [(o, v) for o, vs in values.items() for v in enumerate(vs)]:
                options = where | {option: value[1]}
                what = f"{value[0]} {shape} {dtype}"
                record(name + ending, option, what, first, second, **options)
            for reduction in REDUCTIONS:
                what = f"{reduction} {shape} {dtype}"
                record(name + ending, "reduction", what, first, second, reduction=reduction, **where)
            together = {option: vs[0] for option, vs in values.items()} | where
            record(
                name + ending, "all options", f"{shape} {dtype}", first, second, reduction="sum", **together
            )
        grad = name + "_grad"
        record(grad, "grad_output", f"{shape} {dtype}", first, second, grad_output=2.5, **where)
        each = normal(positions_of(shape, axis) if has_axis else shape, F8, 6)
        what = f"each {shape} {dtype}"
        record(grad, "grad_output", what, first, second, grad_output=each, reduction="none", **where)
        for option, vs in values.items():
            options = where | {option: vs[0], "grad_output": each, "reduction": "none"}
            record(grad, "grad_output and an option", f"{option} {shape} {dtype}", first, second, **options)
    p = distributions(shape, axis, dtype)
    for ending in ENDINGS:
        for i, options in enumerate(
            [{}, {"clip": 1e-3}, {"base": 2}, {"reduction": "none"}, {"reduction": "sum"}]
        ):
            target = labels(positions_of(shape, axis), shape[axis], 0)
            what = f"{i} {shape} {dtype}"
            record("cross_entropy_probs" + ending, "labels", what, p, target, axis=axis, **options)
    for base in [2, 10, 0.5]:
        record("entropy", "base", f"{base} {shape} {dtype}", p, axis=axis, base=base)


def probability_layouts(record, dtype):
    for name, (first, second, _, _) in probability_losses((9, 33), -1, dtype).items():
        for ending in ENDINGS:
            for layout, given in layouts(first):
                record(name + ending, "layout", f"{layout} {dtype}", given, second)
            for layout, given in layouts(second):
                record(name + ending, "layout", f"second {layout} {dtype}", first, given)
            rows = special(dtype)
            record(name + ending, "special values", f"{dtype}", rows, rows[::-1].copy(), reduction="none")
            record(
                name + ending, "special values", f"first {dtype}", rows, distributions(rows.shape, -1, dtype)
            )
            record(
                name + ending, "special values", f"second {dtype}", distributions(rows.shape, -1, dtype), rows
            )
            record(name + ending, "one position", f"{dtype}", first[0], second[0])
        for ending in ENDINGS[1:]:
            with_out(record, name + ending, "out", f"{dtype}", [first, second], dtype)
    for layout, given in layouts(distributions((9, 33), -1, dtype)):
        record("entropy", "layout", f"{layout} {dtype}", given)
        record("entropy", "layout", f"axis 0, {layout} {dtype}", given, axis=0)
    record("entropy", "special values", f"{dtype}", special(dtype))
    for kind in ["i4", "u1", "u8", "list"]:
        target = labels((9,), 33, 0)
        target = target.tolist() if kind == "list" else target.astype(kind)
        for ending in ENDINGS:
            record(
                "cross_entropy_probs" + ending,
                "dtype of labels",
                f"{kind} {dtype}",
                distributions((9, 33), -1, dtype),
                target,
            )


# Linear layers ----------------------------------------------------------------------------------------------


def linear(record):
    names = ["linear_cross_entropy", "linear_cross_entropy_value_and_grad"]
    shapes = [
        ((1,), 1, 1),
        ((9,), 5, 7),
        ((33,), 16, 130),
        ((3, 7), 8, 40),
        ((200,), 24, 1000),
        ((), 4, 6),
        ((0,), 4, 6),
    ]
    for (positions, d, classes), dtype in itertools.product(shapes, DTYPES):
        x, weight = normal((*positions, d), dtype, 0, 1.0), normal((classes, d), dtype, 1, 0.5)
        target, bias = labels(positions, classes), normal((classes,), dtype, 2, 1.0)
        what = f"{positions} {d} {classes} {dtype}"
        options = loss_options((*positions, classes), -1, dtype)
        if 0 in positions:
            options = {"reduction": REDUCTIONS}
        for name in names:
            record(name, "size", what, x, weight, target)
            record(name, "bias", what, x, weight, target, bias)
            for chunk in [100_000, 10**9, *([1, 2000] if classes < 100 else [])]:
                record(name, "chunk_bytes", f"{chunk} {what}", x, weight, target, bias, chunk_bytes=chunk)
            for option, values in options.items():
                given = "class_weight" if option == "weight" else option
                for i, value in enumerate(values):
                    if option == "reduction" or i == 0:
                        t = marked(target, option, value)
                        record(name, given, f"{i} {what}", x, weight, t, bias, **{given: value})
                        if classes == 130:
                            chosen = {given: value, "chunk_bytes": 8000}
                            record(name, given, f"{i} {what} in chunks", x, weight, t, bias, **chosen)
    for dtype, name in itertools.product(DTYPES, names):
        x, weight, target = normal((9, 16), dtype, 0, 1.0), normal((20, 16), dtype, 1, 0.5), labels((9,), 20)
        for layout, given in layouts(x):
            record(name, "layout", f"x {layout} {dtype}", given, weight, target)
        for layout, given in layouts(weight):
            record(name, "layout", f"weight {layout} {dtype}", x, given, target)
        for layout, given in layouts(target):
            record(name, "layout", f"target {layout} {dtype}", x, weight, given)
        t = distributions((9, 20), -1, dtype)
        record(name, "probabilities", f"{dtype}", x, weight, t)
        for other in DTYPES:
            record(name, "two dtypes", f"{dtype} {other}", x, weight.astype(other), target)
            record(name, "two dtypes", f"bias {dtype} {other}", x, weight, target, normal((20,), other))
        record(name, "all ignored", f"{dtype}", x, weight, np.full(9, -100))


def sampled(record):
    shapes = [
        ((1,), 1, 1, 1),
        ((9,), 5, 7, 3),
        ((300,), 16, 30, 10),
        ((3, 7), 20, 65, 40),
        ((), 4, 6, 2),
        ((0,), 4, 6, 2),
    ]
    names = ["nce_loss", "sampled_softmax_cross_entropy"]
    names += [f"{name}_value_and_grad" for name in names]
    for (positions, d, classes, k), dtype, name in itertools.product(shapes, DTYPES, names):
        x, weight = normal((*positions, d), dtype, 0, 1.0), normal((classes, d), dtype, 1, 0.5)
        target, bias = labels(positions, classes, 0), normal((classes,), dtype, 2, 1.0)
        q = -positive((classes,), F8, 3, 0.5, 4.0)
        drawn = {
            "shared": labels((k,), classes, 0, seed=1),
            "each": labels((*positions, k), classes, 0, seed=2),
        }
        for (way, samples), reduction in itertools.product(drawn.items(), REDUCTIONS):
            what = f"{way} {positions} {d} {classes} {k} {dtype} {reduction}"
            record(name, "reduction", what, x, weight, target, samples, q, bias, reduction=reduction)
        record(name, "no bias", f"{positions} {classes} {dtype}", x, weight, target, drawn["shared"], q)
        record(
            name,
            "no bias",
            f"f4 q {positions} {classes} {dtype}",
            x,
            weight,
            target,
            drawn["each"],
            q.astype(F4),
        )
    for dtype, name in itertools.product(DTYPES, names):
        x, weight, target = (
            normal((9, 16), dtype, 0, 1.0),
            normal((20, 16), dtype, 1, 0.5),
            labels((9,), 20, 0),
        )
        samples, q = labels((6,), 20, 0, seed=1), -positive((20,), F8, 3, 0.5, 4.0)
        for layout, given in layouts(x):
            record(name, "layout", f"x {layout} {dtype}", given, weight, target, samples, q)
        for layout, given in layouts(weight):
            record(name, "layout", f"weight {layout} {dtype}", x, given, target, samples, q)
        for layout, given in layouts(samples):
            record(name, "layout", f"samples {layout} {dtype}", x, weight, target, given, q)


# Images -----------------------------------------------------------------------------------------------------

# x shape, weight shape, options
CONVOLUTIONS = [
    ((2, 3, 5, 7), (4, 3, 1, 1), {}),
    ((1, 1, 1, 1), (1, 1, 1, 1), {}),
    ((1, 70, 9, 5), (33, 70, 1, 1), {}),
    ((2, 3, 8, 9), (5, 3, 3, 3), {}),
    ((2, 16, 14, 14), (24, 16, 3, 3), {"padding": 1}),
    ((1, 13, 17, 19), (29, 13, 3, 3), {"padding": 1}),
    ((1, 2, 9, 6), (7, 2, 5, 3), {"padding": (2, 1)}),
    ((2, 3, 4, 11), (2, 3, 1, 7), {"padding": (0, 3)}),
    ((1, 3, 23, 20), (8, 3, 7, 7), {"stride": 2, "padding": 3}),
    ((1, 3, 35, 31), (6, 3, 11, 11), {"stride": 4, "padding": 2}),
    ((1, 2, 6, 5), (3, 2, 3, 3), {"padding": ((0, 2), (3, 1))}),
    ((1, 2, 6, 5), (3, 2, 3, 2), {"padding": "valid", "stride": (2, 1)}),
    ((1, 2, 6, 5), (3, 2, 4, 3), {"padding": "same"}),
    ((2, 2, 10, 7), (3, 2, 4, 3), {"padding": "same", "stride": (3, 2)}),
    ((1, 2, 10, 9), (3, 2, 3, 2), {"padding": "same", "dilation": (2, 3), "stride": 2}),
    ((2, 3, 11, 12), (4, 3, 3, 3), {"dilation": (2, 3)}),
    ((1, 2, 10, 11), (3, 2, 3, 3), {"stride": (3, 4)}),
    ((1, 2, 11, 13), (3, 2, 2, 2), {"stride": (3, 5)}),
    ((2, 6, 7, 8), (9, 2, 3, 3), {"groups": 3, "padding": 1}),
    ((2, 10, 9, 8), (10, 1, 3, 3), {"groups": 10, "padding": 1}),
    ((1, 5, 9, 8), (10, 1, 3, 3), {"groups": 5, "stride": 2}),
    ((3, 4, 5, 6), (7, 4, 5, 6), {}),
    ((1, 2, 3, 3), (2, 2, 5, 5), {"padding": 2}),
    ((1, 2, 3, 4), (2, 2, 2, 2), {"padding": 4}),
    ((0, 3, 5, 5), (4, 3, 3, 3), {"padding": 1}),
    ((2, 4, 15, 13), (6, 2, 3, 2),
     {"stride": (2, 1), "padding": ((2, 1), (0, 3)), "dilation": (3, 2), "groups": 2}),
    ((1, 300, 6, 6), (3, 300, 3, 3), {"padding": 1}),
    ((2, 32, 28, 28), (64, 32, 3, 3), {"padding": 1}),
    ((4, 64, 28, 28), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
    ((1, 64, 56, 56), (32, 64, 1, 1), {}),
    ((1, 32, 70, 71), (16, 32, 3, 3), {"padding": 1, "stride": 2}),
]  # fmt: skip


def more_convolutions():
    """Sizes of blocks, tiles and panels one at a time."""
    for o in [
        1,
        2,
        4,
        5,
        6,
        7,
        8,
        9,
        11,
        12,
        13,
        15,
        16,
        17,
        20,
        24,
        25,
        28,
        31,
        32,
        33,
        47,
        48,
        49,
        63,
        64,
        65,
    ]:
        yield (3, 17, 7, 7), (o, 17, 1, 1), {}
        yield (2, 5, 9, 10), (o, 5, 3, 3), {"padding": 1}
    for n in [2, 4, 6, 9, 13, 16, 17, 24, 31, 33, 56, 64, 65]:
        yield (1, 3, n, n), (17, 3, 3, 3), {"padding": 1}
        yield (1, 2, n, 71 - n), (9, 2, 3, 3), {"padding": 1, "stride": 2}
        yield (1, 3, n, n), (3, 1, 3, 3), {"padding": 1, "groups": 3}
    for k in range(1, 9):
        yield (1, 3, 13, 14), (10, 3, k, k), {"padding": k // 2}
        yield (1, 4, 13, 14), (4, 1, k, k), {"padding": k // 2, "groups": 4}
    for stride, dilation, m in itertools.product([1, 2, 3], [1, 2], [1, 2, 3]):
        yield (
            (2, 7, 14, 13),
            (7 * m, 1, 3, 3),
            {"groups": 7, "padding": dilation, "stride": stride, "dilation": dilation},
        )
    for n in [1, 3, 8]:
        yield (n, 9, 1, 1), (18, 9, 1, 1), {}
        yield (n, 6, 7, 7), (18, 6, 3, 3), {"padding": 1, "stride": 2}


def convolutions(record):
    for i, ((shape, kernel, options), dtype) in enumerate(
        itertools.product([*CONVOLUTIONS, *more_convolutions()], FLOATS)
    ):
        x, weight, bias = normal(shape, dtype), normal(kernel, dtype, 1, 0.5), normal(kernel[:1], dtype, 2)
        what = f"{i // 2} {shape} {kernel} {options} {dtype}"
        record("conv2d", "geometry", what, x, weight, **options)
        y = xent.conv2d(x, weight, **options)
        grad = normal(y.shape, dtype, 3)
        record("conv2d_backward", "geometry", what, grad, x, weight, **options)
        if i < 2 * len(CONVOLUTIONS):
            record("conv2d", "bias and relu", what, x, weight, bias, activation="relu", **options)
            for needs in itertools.product([False, True], repeat=3):
                record("conv2d_backward", "needs", f"{needs} {what}", grad, x, weight, needs=needs, **options)
            window = {k: v for k, v in options.items() if k != "groups"}
            record("im2col", "geometry", what, x, kernel[2:], **window)
            columns = xent.im2col(x, kernel[2:], **window)
            record("col2im", "geometry", what, columns, shape[2:], kernel[2:], **window)
        if options.get("padding") != "same":
            record("conv_transpose2d", "geometry", what, grad, weight, **options)
            bias = normal((kernel[1] * options.get("groups", 1),), dtype, 2)
            record("conv_transpose2d", "bias", what, grad, weight, bias, **options)
    for dtype in FLOATS:
        x, weight, grad = (
            normal((2, 4, 9, 8), dtype),
            normal((6, 4, 3, 3), dtype, 1),
            normal((2, 6, 7, 6), dtype, 3),
        )
        for stride, extra in [(2, 1), ((3, 2), (2, 0)), ((2, 3), (0, 2))]:
            record(
                "conv_transpose2d",
                "output_padding",
                f"{stride} {dtype}",
                grad,
                weight,
                stride=stride,
                output_padding=extra,
            )
        for layout, given in layouts(x):
            record("conv2d", "layout", f"{layout} {dtype}", given, weight)
            record("conv2d_backward", "layout", f"x {layout} {dtype}", grad, given, weight)
            record("im2col", "layout", f"{layout} {dtype}", given, 3)
        for layout, given in layouts(weight):
            record("conv2d", "layout", f"weight {layout} {dtype}", x, given)
            record("conv2d_backward", "layout", f"weight {layout} {dtype}", grad, x, given)
            record("conv_transpose2d", "layout", f"weight {layout} {dtype}", grad, given)
        for layout, given in layouts(grad):
            record("conv2d_backward", "layout", f"grad {layout} {dtype}", given, x, weight)
            record("conv_transpose2d", "layout", f"{layout} {dtype}", given, weight)
        columns = normal((2, 36, 42), dtype)
        for layout, given in layouts(columns):
            record("col2im", "layout", f"{layout} {dtype}", given, (9, 8), 3)
        for layout, out in outs((2, 6, 7, 6), dtype):
            record("conv2d", "out", f"{layout} {dtype}", x, weight, out=out)
        poisoned = x.copy()
        poisoned[0, 1, 2, 3], poisoned[1, 0, 0, 0], poisoned[1, 1, 5, 5] = np.nan, np.inf, -np.inf
        record("conv2d", "special values", f"{dtype}", poisoned, weight, padding=1)
        record("conv2d", "special values", f"relu {dtype}", poisoned, weight, activation="relu")
        record("conv2d_backward", "special values", f"{dtype}", grad, poisoned, weight)
    for kind in ["i8", "u1", "?"]:
        image = np.abs(normal((1, 2, 6, 7))).astype(kind)
        record("conv2d", "integers", kind, image, normal((3, 2, 3, 3)))
        record("im2col", "integers", kind, image, 2)
        record("max_pool2d", "integers", kind, image, 2)
        record("avg_pool2d", "integers", kind, image, 2)
    for one, other in [(F8, F4), (F4, F8)]:
        record(
            "conv2d", "two dtypes", f"{one} {other}", normal((1, 2, 6, 7), one), normal((3, 2, 3, 3), other)
        )


POOLS = [
    ((2, 3, 8, 6), 2, {}),
    ((2, 3, 9, 7), 2, {"ceil_mode": True}),
    ((1, 1, 1, 1), 1, {}),
    ((1, 2, 7, 9), 3, {"stride": 2}),
    ((1, 2, 8, 10), 3, {"stride": 2, "padding": 1, "ceil_mode": True}),
    ((3, 1, 7, 9), (3, 2), {"stride": (1, 3), "padding": (1, 0)}),
    ((1, 3, 5, 6), 3, {"stride": 1, "padding": 1}),
    ((1, 2, 6, 5), (6, 5), {}),
    ((1, 2, 11, 13), 2, {"stride": 5, "ceil_mode": True}),
    ((1, 2, 10, 9), (4, 5), {"stride": 3, "padding": 2, "ceil_mode": True}),
    ((0, 2, 6, 6), 2, {}),
    ((2, 0, 6, 6), 2, {}),
    ((2, 17, 33, 35), 3, {"stride": 2, "padding": 1}),
    ((1, 2, 20, 20), 7, {"stride": 1, "padding": 3}),
    ((4, 16, 56, 56), 2, {}),
    ((4, 16, 56, 57), 3, {"stride": 2, "padding": 1}),
    ((1, 2, 9, 11), 2, {"dilation": 2}),
    ((2, 2, 12, 11), (2, 3), {"dilation": (3, 2), "padding": 1, "stride": 2}),
    ((1, 2, 10, 12), 3, {"dilation": 2, "stride": 2, "ceil_mode": True}),
    *[((1, 2, n, n + 3), k, {"stride": s, "padding": k // 2})
      for n, k, s in itertools.product([5, 16, 17, 40], [2, 3], [1, 2, 3])],
]  # fmt: skip


def pools(record):
    for i, ((shape, kernel, options), dtype) in enumerate(itertools.product(POOLS, FLOATS)):
        what = f"{i // 2} {shape} {kernel} {options} {dtype}"
        x, ties = normal(shape, dtype), np.round(normal(shape, dtype, 1) / 3)
        y = xent.max_pool2d(x, kernel, **options)
        grad = normal(y.shape, dtype, 3)
        for kind, image in [("random", x), ("ties", ties)]:
            record("max_pool2d", "geometry", f"{what} {kind}", image, kernel, **options)
            record("max_pool2d_backward", "geometry", f"{what} {kind}", grad, image, kernel, **options)
        if "dilation" not in options:
            for counted in [True, False]:
                record(
                    "avg_pool2d",
                    "geometry",
                    f"{what} {counted}",
                    x,
                    kernel,
                    count_include_pad=counted,
                    **options,
                )
                record(
                    "avg_pool2d_backward",
                    "geometry",
                    f"{what} {counted}",
                    grad,
                    x,
                    kernel,
                    count_include_pad=counted,
                    **options,
                )
    for dtype in FLOATS:
        x, grad = normal((2, 4, 9, 8), dtype), normal((2, 4, 4, 3), dtype, 3)
        for name, (layout, given) in itertools.product(["max_pool2d", "avg_pool2d"], layouts(x)):
            record(name, "layout", f"{layout} {dtype}", given, 3, stride=2)
            record(f"{name}_backward", "layout", f"{layout} {dtype}", grad, given, 3, stride=2)
        for name, (layout, given) in itertools.product(["max_pool2d", "avg_pool2d"], layouts(grad)):
            record(f"{name}_backward", "layout", f"grad {layout} {dtype}", given, x, 3, stride=2)
        poisoned = x.copy()
        poisoned[0, 1, 2, 3], poisoned[1, 0, 0, 0], poisoned[1, 1, 5, 5], poisoned[1, 2] = (
            np.nan,
            np.inf,
            -np.inf,
            -np.inf,
        )
        for name in ["max_pool2d", "avg_pool2d"]:
            record(name, "special values", f"{dtype}", poisoned, 3, stride=2)
            record(f"{name}_backward", "special values", f"{dtype}", grad, poisoned, 3, stride=2)


# Errors -----------------------------------------------------------------------------------------------------

X = np.zeros((3, 5))
Y = np.array([0, 4, 2])
T = np.full((3, 5), 0.2)
IMAGE, KERNEL, FORWARD = np.zeros((2, 4, 6, 7)), np.zeros((8, 4, 3, 3)), np.zeros((2, 8, 4, 5))
LAYER = [np.zeros((3, 4)), np.zeros((5, 4)), Y]
DRAWN = [*LAYER, np.array([1, 2]), np.full(5, -1.6)]

_CE = "axis weight sample_weight ignore_index label_smoothing z_loss gamma temperature logit_cap prior"
_CE += " reduction"
_HESS = "axis weight sample_weight ignore_index label_smoothing temperature prior reduction hessian pair"
_LINEAR = _CE.replace("axis weight", "class_weight") + " chunk_bytes"
_SIGMOID = "broadcast_weight pos_weight label_smoothing gamma alpha binary_ignore_index reduction"
_WINDOW = "stride padding dilation"

# function: (arguments that are right, its options)
RIGHT = {
    "softmax": ([X], "axis temperature out"),
    "log_softmax": ([X], "axis temperature out"),
    "logsumexp": ([X], "axes b out_of_rows"),
    "softmax_backward": ([X, T], "axis out"),
    "log_softmax_backward": ([X, T], "axis out"),
    "softmax_jacobian": ([T], "axis"),
    "sigmoid": ([X], "out"),
    "log_sigmoid": ([X], "out"),
    "evaluate": ([X, Y], "axis ignore_index sample_weight top_k prior base"),
    "cross_entropy_grad_hess": ([X, Y], _HESS),
    "cross_entropy_hvp": ([X, Y, X], _CE),
    "entropy": ([T], "axis base"),
    "linear_cross_entropy": (LAYER, _LINEAR),
    "linear_cross_entropy_value_and_grad": (LAYER, _LINEAR),
    "conv2d": ([IMAGE, KERNEL], f"{_WINDOW} groups activation bias out_of_image"),
    "conv2d_backward": ([FORWARD, IMAGE, KERNEL], f"{_WINDOW} groups needs"),
    "conv_transpose2d": ([FORWARD, KERNEL], f"{_WINDOW} groups output_padding bias"),
    "im2col": ([IMAGE, 3], _WINDOW),
    "col2im": ([np.zeros((2, 36, 20)), (6, 7), 3], _WINDOW),
    "max_pool2d": ([IMAGE, 2], f"{_WINDOW} ceil_mode"),
    "max_pool2d_backward": ([IMAGE[:, :, ::2, :6:2], IMAGE, 2], f"{_WINDOW} ceil_mode"),
    "avg_pool2d": ([IMAGE, 2], "stride padding ceil_mode count_include_pad"),
    "avg_pool2d_backward": ([IMAGE[:, :, ::2, :6:2], IMAGE, 2], "stride padding ceil_mode"),
    "set_num_threads": ([1], ""),
    "num_threads": ([1], ""),
    "show_config": (["dicts"], ""),
}
for _name, _args, _options in [
    ("cross_entropy", [X, Y], _CE),
    ("nll_loss", [X, Y], "axis weight ignore_index reduction"),
    ("sigmoid_cross_entropy", [X, T], _SIGMOID),
    ("cross_entropy_probs", [T, T], "axis clip base reduction"),
    ("binary_cross_entropy", [T, T], "broadcast_weight clip base reduction"),
    ("kl_div", [-T, T], "axis base reduction"),
    ("distillation_loss", [X, X], "axis temperature reduction"),
    ("mse_loss", [X, X], "reduction"),
]:
    RIGHT |= {
        _name: (_args, _options),
        f"{_name}_grad": (_args, f"{_options} out grad_output"),
        f"{_name}_value_and_grad": (_args, f"{_options} out"),
    }
for _name in ["nce_loss", "sampled_softmax_cross_entropy"]:
    RIGHT |= {_name: (DRAWN, "reduction"), f"{_name}_value_and_grad": (DRAWN, "reduction")}


def bad_factors(shape):
    bad = np.ones(shape)
    values = [np.ones((*shape, 2)), np.ones(shape, complex), "heavy", None, np.zeros(shape)]
    for value in [-1.0, np.nan, np.inf]:
        bad = np.ones(shape)
        bad[(0,) * len(shape)] = value
        values.append(bad)
    return values


def bad_numbers(*values):
    return [*values, np.nan, np.inf, "a", None, 1j, [1.0]]


FROZEN = np.zeros((3, 5))
FROZEN.flags.writeable = False
BAD_OUTS = [
    np.zeros((3, 4)),
    np.zeros((3, 5), F4),
    np.zeros((3, 5), int),
    FROZEN,
    [[0.0] * 5] * 3,
    3,
    X[:1],
    np.zeros(15),
]
# option (or a nickname of it, NICKNAMES): values that are wrong, or just right
BAD = {
    "axis": [2, -3, 10, 1.0, "1", None, (0,), [1]],
    "axes": [2, (0, 2), (0, 0), (1, -1), 1.0, "1", [1]],
    "temperature": bad_numbers(0, -1.0),
    "b": [np.ones(4), np.ones((3, 5, 1)), "b", np.ones(5, complex)],
    "weight": bad_factors((5,)),
    "class_weight": bad_factors((5,)),
    "broadcast_weight": bad_factors((3, 5)),
    "pos_weight": bad_factors((3, 5)),
    "sample_weight": bad_factors((3,)),
    "prior": bad_factors((5,)),
    "ignore_index": [1.0, "1", None, np.float64(2), 2**70, True, (1, 2)],
    "binary_ignore_index": [1.0, "1", 2**70, 0, -1],
    "label_smoothing": bad_numbers(-0.1, 1.1),
    "z_loss": bad_numbers(-1),
    "gamma": bad_numbers(-1),
    "alpha": bad_numbers(-0.1, 1.5),
    "logit_cap": bad_numbers(0, -1.0),
    "reduction": ["average", "", "MEAN", None, 1, b"mean"],
    "hessian": ["exact", "", None, 1],
    "pair": [np.zeros((2, 3, 5)), (X,), (X, X), (np.zeros((3, 4)), None), 3, (np.zeros((3, 5), F4), None)],
    "clip": bad_numbers(0, -0.1, 0.5, 1.0, 2),
    "base": bad_numbers(0, 1, -2, 0.5),
    "top_k": [0, -1, (), (1, 0), 1.5, "1", None, (1, 1)],
    "chunk_bytes": [0, -1, 1.5, "a", True],
    "out": BAD_OUTS,
    "out_of_rows": [np.zeros(4), np.zeros(3, F4), np.zeros((3, 1)), 3, np.zeros(3, int)],
    "out_of_image": [np.zeros(3), np.zeros((2, 8, 4, 5), F4), 3, FORWARD[:1]],
    "grad_output": [np.ones(3), np.ones((3, 5)), "a", None, 1j, np.nan],
    "stride": [0, -1, 1.5, (1, 2, 3), "1", (0, 1), 2**40, True],
    "padding": [-1, 1.5, (1, 2, 3), "full", ((1, 2), (3,)), (-1, 0), 2**62, None, 9],
    "dilation": [0, -1, 1.5, (1, 2, 3), "1", 50, 2**62],
    "groups": [0, -1, 3, 1.5, "1", 2, True],
    "output_padding": [-1, 1, 1.5, (1, 2, 3), "1"],
    "activation": ["tanh", 1, True, ""],
    "bias": [np.ones(3), np.ones((8, 1)), "a", np.ones(8, complex), 1.0],
    "needs": [(True,), "abc", None, (False, False, False), 1, (1, 0, 1)],
    "ceil_mode": [None, 1, "yes"],
    "count_include_pad": [None, 0, "yes"],
}  # fmt: skip
NICKNAMES = {
    "axes": "axis",
    "broadcast_weight": "weight",
    "binary_ignore_index": "ignore_index",
    "pair": "out",
}
NICKNAMES |= {"out_of_rows": "out", "out_of_image": "out"}


def wrong_arguments(given):
    """Yield (name, value): what may be given in place of an argument and is mostly wrong."""
    yield from {
        "None": None,
        "text": "abc",
        "object": object,
        "dict": {},
        "empty": [],
        "nan": np.nan,
        "2.5": 2.5,
    }.items()
    if not isinstance(given, np.ndarray):
        yield from {"0": 0, "-1": -1, "triple": (1, 2, 3), "2000": 2000}.items()
        return
    for kind in ["c16", "O", "U1", "S1", "M8[s]", "m8[s]", "V2", "g", "f2", "?", "i8"]:
        yield kind, np.zeros(given.shape, kind)
    yield "float8", np.zeros(given.shape, ml_dtypes.float8_e4m3fn)
    yield "shorter", given[:-1]
    yield "narrower", given[..., :-1]
    yield "one more axis", given[..., np.newaxis]
    yield "one axis less", given[0]
    yield "scalar", given.flat[0]
    yield "ragged", [[1.0, 2.0], [3.0]]
    if given.dtype.kind == "i":
        for value in [-1, 5, 2**62, -(2**62), -100]:
            bad = given.copy()
            bad[-1] = value
            yield f"label {value}", bad
        yield "label 2**63", np.array([2**63] * given.size, "u8").reshape(given.shape)
        yield "label 200", np.full(given.shape, 200, "u1")
        yield "floats", given.astype(float)


def errors(record):
    for name, (args, options) in RIGHT.items():
        for i in range(len(args)):
            for kind, value in wrong_arguments(args[i]):
                record(name, "wrong argument", f"{i} {kind}", *args[:i], value, *args[i + 1 :])
        record(name, "wrong argument", "too few", *args[:-1])
        record(name, "wrong argument", "too many", *args, *[None] * 6)
        record(name, "wrong argument", "unknown option", *args, colour=1)
        for option in options.split():
            for i, value in enumerate(BAD[option]):
                keyword = NICKNAMES.get(option, option)
                record(name, f"wrong {keyword}", f"{option} {i}", *args, **{keyword: value})
    overlaps(record)
    xent.set_num_threads(record.threads)  # set_num_threads was among the functions


def overlaps(record):
    """Outputs that lie partly over an input."""
    for name, (args, options) in RIGHT.items():
        if "out" not in options.split():
            continue
        for i in range(len(args)):
            if args[i].shape == (3, 5):
                for kind, start in [
                    ("later", slice(5, None)),
                    ("one element on", slice(1, 16)),
                    ("same", slice(0, 15)),
                ]:
                    memory = np.linspace(0.1, 0.9, 20)
                    given = memory[:15].reshape(3, 5)
                    out = memory[start].reshape(3, 5)
                    record(name, "overlap", f"argument {i} {kind}", *args[:i], given, *args[i + 1 :], out=out)
                memory = np.linspace(0.1, 0.9, 25).reshape(5, 5)
                what = f"argument {i} transposed"
                record(name, "overlap", what, *args[:i], memory[:3], *args[i + 1 :], out=memory.T[:3])
    memory = np.zeros(400)
    x, weight = memory[:32].reshape(1, 2, 4, 4), np.ones((3, 2, 3, 3))
    record("conv2d", "overlap", "x", x, weight, out=memory[20:32].reshape(1, 3, 2, 2))
    both = np.zeros((3, 5))
    record("cross_entropy_grad_hess", "overlap", "twice the same", X, Y, out=(both, both))


# The command ------------------------------------------------------------------------------------------------

FAMILIES = [
    softmax_family, cross_entropy_sizes, cross_entropy_options, cross_entropy_layouts, cross_entropy_targets,
    cross_entropy_upstream, second_order, evaluation, nll, sigmoid_cross_entropy, probabilities, linear,
    sampled, convolutions, pools, errors,
]  # fmt: skip


def record_all(threads):
    """Return {call: what it did}."""
    record = Record()
    record.threads = threads
    xent.set_num_threads(threads)
    for family in FAMILIES:
        started, calls = time.process_time(), len(record.results)
        family(record)
        print(
            f"{family.__name__}: {len(record.results) - calls} calls, {time.process_time() - started:.1f} s",
            flush=True,
        )
    record.results["inputs | unchanged | "] = fingerprint(INPUTS)
    missing = set(xent.__all__) - {key.split(" | ")[0] for key in record.results}
    print("not called:", ", ".join(sorted(missing)))
    return record.results


def compare(before, after):
    """Print the calls that differ, by function and by what is varied; return their number."""
    groups = {}
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key, "(no such call)"), after.get(key, "(no such call)")
        if old != new:
            name, varied, detail = key.split(" | ", 2)
            groups.setdefault((name, varied), []).append((detail, old, new))
    for (name, varied), calls in groups.items():
        print(f"{name} | {varied}: {len(calls)}")
        for detail, old, new in calls:
            print(f"    {detail}\n        {old}\n        {new}")
    total = sum(map(len, groups.values()))
    print(f"{total} of {len(before.keys() | after.keys())} calls differ")
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="make the calls and write what they did")
    recording.add_argument("file")
    recording.add_argument("--threads", type=int, default=1)
    comparing = commands.add_parser("compare", help="list the calls that differ; exit with 1 if any does")
    comparing.add_argument("before")
    comparing.add_argument("after")
    given = parser.parse_args()
    if given.command == "compare":
        with open(given.before) as before, open(given.after) as after:
            sys.exit(bool(compare(json.load(before), json.load(after))))
    results = record_all(given.threads)
    with open(given.file, "w") as file:
        json.dump(results, file, indent=0)
    print(f"{len(results)} calls")


if __name__ == "__main__":
    main()
