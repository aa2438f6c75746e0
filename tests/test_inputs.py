"""What people hold, as each argument of each function: taken in place, or refused with words that cure.

Libraries that are not installed are played by exporters of DLPack built on NumPy, and by objects that have
their methods. The tests at the end want the libraries themselves.
"""

import collections
import collections.abc
import ctypes
import decimal
import fractions
import inspect
import pathlib

import helpers
import ml_dtypes
import numpy as np
import pytest
from helpers import peak_bytes, raises, run_python

import xent
from xent._arrays import as_array

N, C, D, K = 3, 4, 5, 2
LOGITS = np.random.default_rng(0).standard_normal((N, C)).astype("f4")
PROBS = np.full((N, C), 1 / C, "f4")
LABELS = np.array([0, 3, 2])
X = np.random.default_rng(1).standard_normal((N, D)).astype("f4")
WEIGHT = np.random.default_rng(2).standard_normal((C, D)).astype("f4")
PER_CLASS, PER_POSITION = np.full(C, 0.25, "f4"), np.full(N, 0.5, "f4")
IMAGE, KERNEL = np.ones((1, 2, 4, 4), "f4"), np.ones((3, 2, 2, 2), "f4")
FORWARD, POOLED = np.ones((1, 3, 3, 3), "f4"), np.ones((1, 2, 2, 2), "f4")
SIGNAL, SIGNAL_KERNEL, SIGNAL_FORWARD = IMAGE[:, :, 0], KERNEL[:, :, 0], FORWARD[:, :, 0]

OPTIONS = {"weight": PER_CLASS, "sample_weight": PER_POSITION, "prior": PER_CLASS}
LAYER = {"x": X, "weight": WEIGHT, "target": LABELS, "bias": PER_CLASS}
LINEAR = {**LAYER, "class_weight": PER_CLASS, "sample_weight": PER_POSITION, "prior": PER_CLASS}
NCE = {**LAYER, "noise": np.array([1, 2]), "noise_log_prob": PER_CLASS}
SAMPLED = {**LAYER, "sampled": np.array([1, 2]), "sampled_log_prob": PER_CLASS}
ELEMENTS = {"weight": PROBS}


def triple(loss, arguments):
    """The three functions of a loss."""
    upstream = {"grad_output": np.array(2, "f4")}
    return {loss: arguments, f"{loss}_grad": arguments | upstream, f"{loss}_value_and_grad": arguments}


# name: every argument that is an array. Others are in FIXED.
CALLS = {
    "softmax": {"x": LOGITS},
    "log_softmax": {"x": LOGITS},
    "logsumexp": {"x": LOGITS, "b": PER_CLASS},
    "logsumexp_backward": {"grad": PER_POSITION, "x": LOGITS, "y": PER_POSITION},
    "softmax_backward": {"grad": LOGITS, "y": PROBS},
    "log_softmax_backward": {"grad": LOGITS, "y": LOGITS},
    "softmax_jacobian": {"y": PROBS},
    "token_log_probs": {"logits": LOGITS, "ids": LABELS, "prior": PER_CLASS},
    "linear_token_log_probs": {"x": X, "weight": WEIGHT, "ids": LABELS, "bias": PER_CLASS},
    "sigmoid": {"x": LOGITS},
    "log_sigmoid": {"x": LOGITS},
    "sigmoid_backward": {"grad": LOGITS, "y": PROBS},
    "log_sigmoid_backward": {"grad": LOGITS, "y": LOGITS},
    "entropy": {"probs": PROBS},
    "evaluate": {"logits": LOGITS, "target": LABELS, "sample_weight": PER_POSITION, "prior": PER_CLASS},
    "evaluate_sequences": {"logits": LOGITS, "target": LABELS, "groups": LABELS, "prior": PER_CLASS},
    "compare": {"logits_a": LOGITS, "logits_b": PROBS, "target": LABELS},
    "cross_entropy_grad_hess": {"logits": LOGITS, "target": LABELS, **OPTIONS},
    "cross_entropy_hvp": {"logits": LOGITS, "target": LABELS, "vector": LOGITS, **OPTIONS},
    **triple("cross_entropy", {"logits": LOGITS, "target": LABELS, **OPTIONS}),
    **triple("nll_loss", {"log_probs": LOGITS, "target": LABELS, "weight": PER_CLASS}),
    **triple("sigmoid_cross_entropy", {"logits": LOGITS, "target": PROBS, **ELEMENTS, "pos_weight": PROBS}),
    "sigmoid_cross_entropy_grad_hess": {"logits": LOGITS, "target": PROBS, **ELEMENTS, "pos_weight": PROBS},
    **triple("cross_entropy_probs", {"probs": PROBS, "target": LABELS}),
    **triple("binary_cross_entropy", {"probs": PROBS, "target": PROBS, **ELEMENTS}),
    **triple("kl_div", {"log_probs": LOGITS, "target": PROBS}),
    **triple("distillation_loss", {"student_logits": LOGITS, "teacher_logits": LOGITS}),
    **triple(
        "sparse_distillation_loss",
        {
            "student_logits": LOGITS,
            "teacher_ids": np.array([[0, 3], [1, 0], [2, 1]]),
            "teacher_log_probs": np.full((N, 2), -1.0, "f4"),
            "sample_weight": PER_POSITION,
        },  # fmt: skip
    ),
    **triple("mse_loss", {"pred": LOGITS, "target": PROBS}),
    "linear_cross_entropy": LINEAR,
    "linear_cross_entropy_value_and_grad": LINEAR | {"grad_output": np.array(2, "f4")},
    "nce_loss": NCE,
    "nce_loss_value_and_grad": NCE,
    "sampled_softmax_cross_entropy": SAMPLED,
    "sampled_softmax_cross_entropy_value_and_grad": SAMPLED,
    "conv1d": {"x": SIGNAL, "weight": SIGNAL_KERNEL, "bias": np.ones(3, "f4")},
    "conv1d_backward": {"grad": SIGNAL_FORWARD, "x": SIGNAL, "weight": SIGNAL_KERNEL},
    "conv2d": {"x": IMAGE, "weight": KERNEL, "bias": np.ones(3, "f4")},
    "prepare_conv2d": {"weight": KERNEL},
    "conv2d_backward": {"grad": FORWARD, "x": IMAGE, "weight": KERNEL},
    "conv_transpose2d": {"x": FORWARD, "weight": KERNEL, "bias": np.ones(2, "f4")},
    "conv_transpose2d_backward": {"grad": IMAGE, "x": FORWARD, "weight": KERNEL},
    "im2col": {"x": IMAGE},
    "col2im": {"cols": np.ones((1, 8, 9), "f4")},
    "max_pool2d": {"x": IMAGE},
    "max_pool2d_backward": {"grad": POOLED, "x": IMAGE, "places": np.zeros(POOLED.shape, "u1")},
    "avg_pool2d": {"x": IMAGE},
    "avg_pool2d_backward": {"grad": POOLED, "x": IMAGE},
}
FIXED = {name: {"kernel_size": 2} for name in CALLS if "pool" in name or "col" in name}
FIXED["col2im"]["output_size"] = (4, 4)
OPTIONAL = {
    "weight", "sample_weight", "prior", "b", "bias", "grad_output", "pos_weight", "class_weight", "places",
}  # fmt: skip


def call(name, arguments, package=xent):
    """Call a function with arguments by their names."""
    given = arguments | FIXED.get(name, {})
    positional = [
        given.pop(key)
        for key, parameter in inspect.signature(getattr(xent, name)).parameters.items()
        if parameter.kind is not parameter.KEYWORD_ONLY and key in given
    ]
    return getattr(package, name)(*positional, **given)


def leaves(result):
    """All arrays and scalars of a result."""
    if isinstance(result, tuple):
        return [leaf for part in result for leaf in leaves(part)]
    if isinstance(result, xent.Evaluation):
        return [result.loss, result.accuracy, result.mse, result.entropy]
    if isinstance(result, (xent.SequenceEvaluation, xent.Comparison)):
        return [np.asarray(value) for value in vars(result).values() if value is not None]
    return [] if result is None else [np.asarray(result)]


def assert_same(result, expected):
    for a, b in zip(leaves(result), leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_table_names_every_function():
    controls = {
        "Comparison", "Evaluation", "PreparedWeight", "SequenceEvaluation", "__version__", "get_num_threads",
        "num_threads", "reference", "set_num_threads", "set_result_cache", "show_config",
    }  # fmt: skip
    assert set(CALLS) == set(xent.__all__) - controls


# Numbers, and single positions ------------------------------------------------------------------------------


def parts(result):
    """All that a result holds, as it is."""
    return [part for k in result for part in parts(k)] if isinstance(result, tuple) else [result]


def smaller(name):
    """Arguments of one position without its axis, and numbers in place of arrays."""
    yield {key: a[0] if a.shape[:1] == (N,) else a for key, a in CALLS[name].items()}
    for kind in (np.float32, float, np.array):
        yield {key: kind(array.flat[0]) for key, array in CALLS[name].items() if key not in OPTIONAL}


def options_of(name):
    """Options on which the shape of a result depends."""
    parameters = inspect.signature(getattr(xent, name)).parameters
    for axis in [{}, {"axis": None}, {"axis": ()}] if "axis" in parameters else [{}]:
        for reduction in [{}, {"reduction": "none"}] if "reduction" in parameters else [{}]:
            for further in ["ranks", "entropy", "return_sign", "keepdims"]:
                yield axis | reduction | ({further: True} if further in parameters else {})


OF_NUMBERS = {
    "softmax", "log_softmax", "softmax_backward", "log_softmax_backward", "logsumexp", "logsumexp_backward",
    "sigmoid", "log_sigmoid", "sigmoid_backward", "log_sigmoid_backward", "sigmoid_cross_entropy_grad_hess",
    *[name for name in CALLS if name.startswith(("kl_div", "mse_", "binary_", "sigmoid_cross"))],
}  # fmt: skip


@pytest.mark.parametrize("package", [xent, xent.reference], ids=["xent", "reference"])
@pytest.mark.parametrize("name", CALLS)
def test_no_result_is_a_0d_array(name, package):
    """They are NumPy scalars, as those of ufuncs are."""
    done = 0
    for arguments in smaller(name):
        for options in options_of(name):
            try:
                result = call(name, arguments | options, package)
            except (TypeError, ValueError, IndexError):  # not of numbers
                continue
            done += 1
            odd = [part for part in parts(result) if isinstance(part, np.ndarray) and part.ndim == 0]
            assert not odd, (name, options)
    assert done or name not in OF_NUMBERS


@pytest.mark.parametrize("name", sorted(OF_NUMBERS))
def test_a_0d_out_is_returned(name):
    if "out" not in inspect.signature(getattr(xent, name)).parameters:
        return
    arguments = {key: np.array(a.flat[0]) for key, a in CALLS[name].items() if key not in OPTIONAL}
    if "axis" in inspect.signature(getattr(xent, name)).parameters:
        arguments["axis"] = None
    expected = call(name, arguments)
    if "hess" in name:
        out = np.empty((), "f4"), np.empty((), "f4")
        assert all(a is b for a, b in zip(call(name, arguments | {"out": out}), out, strict=True))
        grad, hess = call(name, arguments | {"out": (out[0], None)})
        assert grad is out[0] and type(hess) is np.float32
    else:
        out = np.empty((), "f4")
        assert parts(call(name, arguments | {"out": out}))[-1] is out
        assert out == parts(expected)[-1]


# Exporters of DLPack ----------------------------------------------------------------------------------------


class Exporter:
    """Has the memory of an array, and says so through DLPack alone."""

    def __init__(self, array, place=(1, 0)):
        self.array, self.place = array, place

    shape = property(lambda self: self.array.shape)  # as all tensors have it

    def __dlpack_device__(self):
        return self.place

    def __dlpack__(self, **asked):
        assert self.place == (1, 0), "nobody may ask for what is elsewhere"
        array = self.array
        if array.dtype != ml_dtypes.bfloat16:
            return array.__dlpack__(**asked)
        capsule = array.view(np.uint16).__dlpack__(**asked)
        versioned = b"versioned" in _capsule("GetName", ctypes.c_char_p, ctypes.py_object)(capsule)
        name, start = (b"dltensor_versioned", 32) if versioned else (b"dltensor", 0)
        get = _capsule("GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
        # dlpack.h: after data, device (8 bytes) and ndim (4); 4 is kDLBfloat
        code = get(capsule, name) + start + ctypes.sizeof(ctypes.c_void_p) + 12
        ctypes.c_uint8.from_address(code).value = 4
        return capsule


def _capsule(verb, *types):
    return ctypes.PYFUNCTYPE(*types)((f"PyCapsule_{verb}", ctypes.pythonapi))


class OldExporter(Exporter):
    """Of before DLPack 1.0: no options."""

    def __dlpack__(self, stream=None):
        return super().__dlpack__()


class Tensor(Exporter):
    """As PyTorch's: NumPy can read it but for a dtype that it does not have, and it knows where it is."""

    requires_grad, is_cpu = False, True

    @property
    def dtype(self):
        return f"torch.{self.array.dtype}"

    def __array__(self, dtype=None, copy=None):
        if self.array.dtype == ml_dtypes.bfloat16:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array

    def cpu(self):
        raise AssertionError("nobody may copy from a GPU but who asked for it")


EXPORTERS = [Exporter, OldExporter, Tensor]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", CALLS)
def test_exporters(name, exporter):
    arguments = CALLS[name]
    expected = call(name, arguments)
    assert_same(call(name, {key: exporter(array) for key, array in arguments.items()}), expected)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("kind", ["f8", "f4", "f2", "bfloat16", "i8", "i4", "u1", "bool"])
def test_no_copy(exporter, kind):
    array = np.arange(48).reshape(2, 4, 6).astype(kind)
    for given in [
        array,
        array.T,
        array[:, ::2],
        array[1, 2:, 3:],
        array[..., :0],
        array[0, 0, 0:1].reshape(()),
    ]:
        taken = as_array(exporter(given), "x")
        assert type(taken) is np.ndarray
        assert taken.ctypes.data == given.ctypes.data
        assert (taken.shape, taken.dtype) == (given.shape, given.dtype)
        assert taken.size == 0 or taken.strides == given.strides


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", ["softmax", "cross_entropy", "mse_loss"])
def test_large_bfloat16_is_read_where_it_lies(exporter, name):
    logits = np.zeros((2**10, 2**10), ml_dtypes.bfloat16)
    second = {"softmax": [], "cross_entropy": [np.zeros(2**10, int)], "mse_loss": [exporter(logits)]}[name]
    out = {"out": np.empty_like(logits)} if name == "softmax" else {}
    assert peak_bytes(lambda: getattr(xent, name)(exporter(logits), *second, **out)) < logits.nbytes / 4
    assert out == {} or out["out"][0, 0] == 2.0**-10


@pytest.mark.parametrize("kind", ["f4", "bfloat16"])
def test_read_only_exports(kind):
    array = LOGITS.astype(kind)
    array.flags.writeable = False
    exporters = [Tensor]  # which hands out the array itself
    if np.lib.NumpyVersion(np.__version__) >= "2.1.0":  # else NumPy cannot export what is read-only
        exporters.append(Exporter)
    for exporter in exporters:
        if exporter is Tensor and kind == "bfloat16" and len(exporters) == 1:
            continue
        assert_same(xent.softmax(exporter(array)), xent.softmax(array))
        assert not as_array(exporter(array), "x").flags.writeable
    for buffer in [memoryview(array.astype("f4")), memoryview(array.astype("f4")).toreadonly()]:
        assert_same(xent.softmax(buffer), xent.softmax(array.astype("f4")))


def test_an_export_lives_as_long_as_its_array():
    exporter = Exporter(np.arange(6.0))
    taken = as_array(exporter, "x")
    del exporter
    assert taken.tolist() == [0, 1, 2, 3, 4, 5]


def test_an_export_of_numbers_that_nobody_knows():
    for kind in ["c8", "c16"]:
        with raises(TypeError, "x must be real numbers", np.dtype(kind)):
            xent.softmax(Exporter(LOGITS.astype(kind)))

    class Odd(Exporter):
        def __dlpack__(self, **asked):
            raise BufferError("no such type")

    with raises(TypeError, "x cannot be read as an array", "no such type"):
        xent.softmax(Odd(LOGITS))


def test_bfloat16_brings_ml_dtypes_and_nothing_else_does(tmp_path):
    code = """
import sys, numpy as np, xent
class Exporter:
    def __init__(self, array): self.array = array
    def __dlpack_device__(self): return 1, 0
    def __dlpack__(self, **asked): return self.array.__dlpack__(**asked)
xent.cross_entropy(Exporter(np.zeros((2, 3), 'f4')), Exporter(np.array([0, 1])))
xent.softmax([[1.0, 2.0]]), xent.softmax(memoryview(np.zeros(3)))
print([m for m in ('ml_dtypes', 'torch', 'jax', 'pandas', 'polars', 'dask', 'scipy') if m in sys.modules])
"""
    done = run_python("-c", code)
    assert done.stdout.strip() == "[]", done.stderr
    code = """
import sys
sys.modules['ml_dtypes'] = None
import xent
from xent import _dlpack
try:
    _dlpack._bfloat16()
except ImportError as error:
    print(error)
"""
    assert "pip install ml_dtypes" in run_python("-c", code).stdout


# What would mean something else -----------------------------------------------------------------------------


class Recording(Tensor):
    requires_grad = True


class Far(Tensor):
    is_cpu = False

    def __init__(self, array):
        super().__init__(array, (2, 0))

    device = "cuda:0"


class FarExporter(Exporter):
    def __init__(self, array):
        super().__init__(array, (2, 0))


class FarInterface:
    """As the arrays of Numba, which NumPy would copy from the GPU."""

    def __init__(self, array):
        self.shape, self.__cuda_array_interface__ = array.shape, {}

    def __array__(self, *args, **options):
        raise AssertionError("nobody may copy from a GPU but who asked for it")

    copy_to_host = __array__


class Lazy:
    """As an array of Dask."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __dask_graph__(self):
        return {}

    def __array__(self, *args, **options):
        raise AssertionError("nobody may load it but who asked for it")


class LazyFrame:
    """As that of Polars."""

    def __init__(self, array):
        self.array = array

    def collect(self):
        raise AssertionError("nobody may load it but who asked for it")

    def null_count(self):
        return self


class Nullable:
    """As a column of Polars, or with a number as the count an array of Arrow."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def null_count(self):
        return 1

    def __array__(self, *args, **options):
        return self.array.astype(float)


class Arrow(Nullable):
    null_count, is_cpu = 1, True


class Table:
    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def itercolumns(self):
        return [Arrow(self.array)]

    def __array__(self, *args, **options):
        return self.array


class MaskedInside:
    """As a variable of netCDF4: NumPy drops the mask of what it hands out."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __array__(self, *args, **options):
        return np.ma.masked_array(self.array, self.array > 0)


class Sparse:
    def __init__(self, array):
        self.shape = array.shape

    def toarray(self):
        raise AssertionError


class File(collections.abc.Mapping):
    """As that of np.load for several arrays, whose names NumPy takes for an array of strings."""

    def __init__(self, **arrays):
        self.arrays = arrays

    def __getitem__(self, name):
        return self.arrays[name]

    def __iter__(self):
        return iter(self.arrays)

    def __len__(self):
        return len(self.arrays)

    def __array__(self, *args, **options):
        return np.array(list(self.arrays))


REFUSED = {
    "masked": (lambda a: np.ma.masked_array(a), "masked array", "filled("),
    "masked inside": (MaskedInside, "masked array", "filled("),
    "records gradients": (Recording, "gradients", "detach()"),
    "on a GPU": (Far, "cuda:0", "CPU", "cpu()"),
    "exported by a GPU": (FarExporter, "DLPack type 2", "CPU"),
    "interface of a GPU": (FarInterface, "CUDA", "CPU", "copy_to_host()"),
    "lazy": (Lazy, "lazy Lazy", "compute()"),
    "lazy frame": (LazyFrame, "lazy LazyFrame", "collect()"),
    "nulls": (Nullable, "missing values", "fill_null("),
    "Arrow's nulls": (Arrow, "missing values", "fill_null("),
    "nulls of a table": (Table, "missing values", "fill_null("),
    "sparse": (Sparse, "Sparse", "toarray()"),
    "dict": (lambda a: dict(enumerate(a.ravel().tolist())), "dict", "in the order of the classes"),
    "set": (lambda a: {1, 2}, "set", "no order"),
    "generator": (lambda a: (x for x in a.ravel()), "generator", "list("),
    "objects": (lambda a: np.array(a, object), "an ndarray", "dtype object", "astype("),
    "None inside": (lambda a: np.full(a.shape, None), "missing values", "None"),
    "None in a list": (lambda a: [None, *a.ravel().tolist()[1:]], "missing values", "[0] is None"),
    "decimals": (lambda a: np.full(a.shape, decimal.Decimal("0.5")), "holds a Decimal", "astype(float)"),
    "fractions": (lambda a: np.full(a.shape, fractions.Fraction(1, 2)), "holds a Fraction", "astype(float)"),
    "decimals in a list": (lambda a: [decimal.Decimal(1)] * 3, "[0] must be real", "give float("),
    "a fraction": (lambda a: fractions.Fraction(1, 2), "got a Fraction", "give float("),
    "rows of any length": (
        lambda a: np.array([[1.0], [1.0, 2.0]], object),
        "holds a list", "np.stack(", "rows of the same length",
    ),
    "arrays of a file": (lambda a: File(a=a), "got a File", "give one of its arrays"),
    "counts": (lambda a: collections.Counter(a.ravel().tolist()), "Counter", "in the order of the classes"),
    "a path": (lambda a: pathlib.Path("logits.npy"), "Path", "np.load("),
    "an iterator": (lambda a: map(float, a.ravel()), "got a map", "list("),
    "items": (lambda a: {1: a}.values(), "got a dict_values", "list("),
    "Python object": (lambda a: object(), "object"),
    "strings": (lambda a: a.astype("U"), "<U"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind):
    make, *words = REFUSED[kind]
    for name, arguments in CALLS.items():
        for key, array in arguments.items():
            if key == "places" and kind == "strings":
                continue  # its own words
            with raises(TypeError, key, *words):
                call(name, arguments | {key: make(array)})


@pytest.mark.parametrize("kind", ["masked", "masked inside"])
def test_refused_by_the_reference(kind):
    make = REFUSED[kind][0]
    for name, arguments in CALLS.items():
        for key, array in arguments.items():
            with raises(TypeError):
                call(name, arguments | {key: make(array)}, xent.reference)


def test_none_is_refused_where_there_must_be_an_array():
    for name, arguments in CALLS.items():
        for key in arguments.keys() - OPTIONAL - ({"target"} if name == "compare" else set()):
            with raises(TypeError, f"{key} must be real numbers, got None"):
                call(name, arguments | {key: None})
    for name in ["linear_cross_entropy", "nce_loss", "conv2d", "conv_transpose2d"]:
        with raises(TypeError, "weight", "None"):
            call(name, CALLS[name] | {"weight": None})


@pytest.mark.parametrize("make", [Recording, Far, Lazy, Nullable, np.ma.masked_array, lambda a: None])
def test_refused_in_lists(make):
    with raises(TypeError, "x[1] "):
        xent.softmax([[1.0, 2.0, 3.0, 4.0], make(LOGITS[0])])
    with raises(TypeError, "logits[0][1] "):
        xent.cross_entropy(([LOGITS[0], make(LOGITS[0])],), [[0, 1]])
    with raises(TypeError, "x[2] "):
        xent.softmax([1.0, 2.0, np.ma.masked])


def test_lists_of_arrays_and_tensors():
    for make in [np.array, Tensor, Exporter]:
        assert_same(xent.softmax([make(row) for row in LOGITS]), xent.softmax(LOGITS))
    rows = LOGITS.astype(ml_dtypes.bfloat16)
    assert_same(xent.softmax([Tensor(row) for row in rows]), xent.softmax(rows))
    assert_same(xent.cross_entropy(LOGITS, [np.int8(0), 3, np.int16(2)]), xent.cross_entropy(LOGITS, LABELS))


def test_lists_of_different_lengths_are_named():
    for given, found in [
        ([[1.0, 2.0], [3.0]], ["x[0] is 2 long", "x[1] is 1 long"]),
        ([[1.0, 2.0], 3.0], ["x[0] is 2 long", "x[1] is one number"]),
        ([[[1.0], [2.0]], [[1.0], []]], ["x[1][0] is 1 long", "x[1][1] is 0 long"]),
        ([np.zeros(3), np.zeros(2)], ["x[0] is 3 long", "x[1] is 2 long"]),
    ]:
        with raises(ValueError, "x cannot be read as an array", "inhomogeneous", *found):
            xent.softmax(given)
    with raises(ValueError, "target cannot be read as an array", "target[1] is 2 long"):
        xent.cross_entropy(np.zeros((2, 1, 3)), [[0], [0, 1]])


def test_lists_without_an_end():
    endless = [1.0]
    endless.append(endless)
    for name, arguments in CALLS.items():
        for key in arguments:
            with raises(ValueError, f"{key} cannot be read as an array"):
                call(name, arguments | {key: endless})
    deep = 1.0
    for _ in range(80):
        deep = [deep]
    with raises(ValueError, "x cannot be read as an array"):
        xent.softmax(deep)


# dtype: what cures it, in data and, where integers are wanted, in these; None: nothing does.
DTYPES = {
    "longdouble": ("np.asarray({}, np.float64)", ".astype(np.int64)"),
    "float8_e4m3fn": ("np.asarray({}, np.float32)", None),
    "int4": ("np.asarray({}, np.float32)", ".astype(np.int64)"),
    "U": ("np.asarray({}, np.float64)", "np.unique({}, return_inverse=True)[1]"),
    "S": ("np.asarray({}, np.float64)", "np.unique({}, return_inverse=True)[1]"),
    "StringDType": ("np.asarray({}, np.float64)", "np.unique({}, return_inverse=True)[1]"),
    "fields": ("numpy.lib.recfunctions.structured_to_unstructured({})", None),
    "datetime64[s]": (None, None),
    "timedelta64[s]": (None, None),
    "complex64": (None, None),
    "V8": (None, None),
}  # fmt: skip


def converted(array, dtype):
    """The array in a dtype that no function takes, or None if this NumPy does not have it."""
    if dtype == "fields":
        return np.zeros(array.shape, [("one", "f4"), ("other", "f4")])
    if dtype == "V8":
        return np.zeros(array.shape, "V8")
    if dtype == "StringDType":
        return array.astype(np.dtypes.StringDType()) if hasattr(np.dtypes, "StringDType") else None
    wider = np.dtype(dtype) if dtype not in ("float8_e4m3fn", "int4") else np.dtype(getattr(ml_dtypes, dtype))
    return array.astype(wider) if wider.itemsize != 8 or wider.kind != "f" else None


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes_that_are_not_known(dtype):
    of_data, of_integers = DTYPES[dtype]
    for name, arguments in CALLS.items():
        for key, array in arguments.items():
            given = converted(array, dtype)
            if given is None or key == "places":
                continue
            integers = array.dtype.kind in "iu"
            cure = of_integers if integers else of_data
            words = [] if cure is None else [cure.format(key)]
            with raises(TypeError, key, given.dtype, *words):
                call(name, arguments | {key: given})


def test_a_subclass_without_a_mask_is_an_array(tmp_path):
    for kind in ["f4", ml_dtypes.bfloat16]:
        mapped = np.memmap(tmp_path / "x", kind, "w+", shape=LOGITS.shape)
        mapped[:] = LOGITS.astype(kind)
        assert_same(xent.softmax(mapped), xent.softmax(LOGITS.astype(kind)))
        assert as_array(mapped, "x").ctypes.data == mapped.ctypes.data


@pytest.mark.parametrize(
    "name", [name for name in CALLS if "out" in inspect.signature(getattr(xent, name)).parameters]
)
def test_out_of_another_library(name):
    if "backward" in name and "conv" in name or name.endswith("grad_hess"):
        return  # tuples

    class Out(Tensor):
        def numpy(self):
            raise AssertionError

    with raises(TypeError, "out must be a NumPy array, got Out", "out.numpy()"):
        call(name, CALLS[name] | {"out": Out(LOGITS)})


# Labels -----------------------------------------------------------------------------------------------------

LABELLED = [name for name, arguments in CALLS.items() if arguments.get("target") is LABELS]
DRAWN = [name for name in LABELLED if name.startswith(("nce", "sampled"))]


@pytest.mark.parametrize("name", LABELLED)
def test_labels_in_a_column(name):
    for shape in [(N, 1), (1, N)]:
        with raises(ValueError, "target", shape, "give np.reshape(target, (3,))"):
            call(name, CALLS[name] | {"target": LABELS.reshape(shape)})


@pytest.mark.parametrize("name", [name for name in LABELLED if name not in DRAWN])
def test_labels_that_are_no_integers(name):
    with raises(TypeError, "target", "float64", "target.astype(np.int64)"):
        call(name, CALLS[name] | {"target": LABELS.astype(float)})
    with raises(TypeError, "target", "NaN", "ignore_index"):
        call(name, CALLS[name] | {"target": [0.0, np.nan, 2.0]})
    with raises(TypeError, "target", "<U", "np.unique(target, return_inverse=True)[1]"):
        call(name, CALLS[name] | {"target": ["cat", "dog", "cat"]})
    with raises(TypeError, "target", "bool", "target.astype(np.int64)"):
        call(name, CALLS[name] | {"target": [True, False, True]})
    one_hot = np.eye(C, dtype=bool)[LABELS]
    probabilities = not name.startswith(("evaluate", "compare", "nll"))
    floating = ["one-hot targets must be floating-point", "astype(np.float32)"] if probabilities else []
    for target, error in [(one_hot, TypeError), (one_hot.astype(int), ValueError)]:
        with raises(error, "target", "target.argmax(axis)", *floating):
            call(name, CALLS[name] | {"target": target})
    if probabilities:
        call(name, CALLS[name] | {"target": one_hot.astype("f4")})
    else:
        with raises(TypeError, "target", "float32", "target.argmax(axis) makes labels"):
            call(name, CALLS[name] | {"target": one_hot.astype("f4")})


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_labels_that_are_no_integers(name):
    for target, cure in [
        (LABELS.astype(float), "target.astype(np.int64)"),
        (LABELS == 0, "target.astype(np.int64)"),
        (LABELS.astype("U"), "np.unique(target"),
    ]:
        with raises(TypeError, "target must hold integers", target.dtype, cure):
            call(name, CALLS[name] | {"target": target})


@pytest.mark.parametrize("name", [name for name in LABELLED if name not in DRAWN])
def test_labels_of_objects_and_codes_of_missing_ones(name):
    with raises(TypeError, "target", "holds an int", "target.astype(np.int64)"):
        call(name, CALLS[name] | {"target": LABELS.astype(object)})
    with raises(TypeError, "target[1] is None", "ignore_index in its place"):
        call(name, CALLS[name] | {"target": [0, None, 2]})
    with raises(ValueError, "target[1] is -1") as error:
        call(name, CALLS[name] | {"target": np.array([0, -1, 2])})
    if "ignore_index" in inspect.signature(getattr(xent, name)).parameters:
        assert "give ignore_index=-1" in str(error.value)
        call(name, CALLS[name] | {"target": np.array([0, -1, 2]), "ignore_index": -1})


@pytest.mark.parametrize("name", ["cross_entropy", "cross_entropy_grad", "nll_loss", "evaluate"])
def test_one_logit_for_two_classes(name):
    function = getattr(xent, name)
    for labels in [[0, 1, 1], [1, 1, 0], [0, 0, 0]]:
        with raises(ValueError, "target", "(3,)", "sigmoid_cross_entropy"):
            function(np.zeros(3), labels)
    with raises(ValueError, "target[1] is 1, expected 0 <= label < 1", "sigmoid_cross_entropy"):
        function(np.zeros((3, 1)), [0, 1, 1])
    with raises(ValueError, "target", "target.argmax(axis)"):
        function(np.zeros(3), [0, 1, 0])


@pytest.mark.parametrize("name", ["sigmoid_cross_entropy", "sigmoid_cross_entropy_grad_hess"])
def test_labels_for_independent_classes(name):
    with raises(ValueError, "target", (N, C), "(3,)", "for cross_entropy"):
        getattr(xent, name)(LOGITS, LABELS)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "evaluate", "cross_entropy_probs"])
def test_labels_without_a_class(name):
    with raises(ValueError, "target[0] is 0", "there is no class"):
        getattr(xent, name)(np.zeros((3, 0)), [0, 0, 0])


def test_masked_and_missing_labels():
    for target in [np.ma.masked_array(LABELS, [0, 1, 0]), Nullable(LABELS)]:
        with raises(TypeError, "target", "(ignore_index)"):
            xent.cross_entropy(LOGITS, target)


def test_columns_where_rows_are_wanted():
    column = np.ones((N, 1), "f4")
    for name in ["sigmoid_cross_entropy", "binary_cross_entropy", "mse_loss"]:
        with raises(ValueError, "target", (N, 1), (N,), "give np.reshape(target, (3, 1))"):
            getattr(xent, name)(column, column[:, 0])
    with raises(ValueError, "sample_weight", "give np.reshape(sample_weight, (3,))"):
        xent.cross_entropy(LOGITS, LABELS, sample_weight=column)
    with raises(ValueError, "weight", "give np.reshape(weight, (4,))"):
        xent.cross_entropy(LOGITS, LABELS, weight=np.ones((1, C)))
    with raises(ValueError, "grad_output", "give np.reshape(grad_output, (3,))"):
        xent.cross_entropy_grad(LOGITS, LABELS, reduction="none", grad_output=column)
    with raises(ValueError, "target", (N, 2)) as error:
        xent.mse_loss(column, np.ones((N, 2)))
    assert "reshape" not in str(error.value)


# The libraries themselves -----------------------------------------------------------------------------------


def test_pytorch():
    torch = pytest.importorskip("torch")
    labels = torch.from_numpy(LABELS)
    for kind in [torch.float64, torch.float32, torch.float16, torch.bfloat16]:
        tensor = torch.from_numpy(LOGITS).to(kind)
        array = as_array(tensor, "x")
        assert array.ctypes.data == tensor.data_ptr()
        assert as_array(tensor.T[1:], "x").ctypes.data == tensor.T[1:].data_ptr()
        assert array.dtype.name == str(kind).removeprefix("torch.")
        np.testing.assert_array_equal(array.astype("f8"), tensor.double().numpy())
        assert_same(
            xent.cross_entropy_value_and_grad(tensor, labels),
            xent.cross_entropy_value_and_grad(array, LABELS),
        )
        with raises(TypeError, "logits", "detach()"):
            xent.cross_entropy(tensor.clone().requires_grad_(), labels)
        negated = torch._neg_view(tensor)
        if kind is torch.bfloat16:
            np.testing.assert_array_equal(as_array(negated, "x"), -array)
        else:
            with raises(TypeError, "x", "resolve_neg()"):
                xent.softmax(negated)
    with raises(TypeError, "weight", "detach()"):
        xent.linear_cross_entropy(X, torch.nn.Parameter(torch.from_numpy(WEIGHT)), LABELS)
    with raises(TypeError, "x", "to_dense()"):
        xent.softmax(torch.eye(2).to_sparse())
    with raises(TypeError, "x", "meta"):
        xent.softmax(torch.ones(2, device="meta"))
    with raises(TypeError, "x", "Float8", "x.float()"):
        xent.softmax(torch.ones(2).to(torch.float8_e4m3fn))
    with raises(TypeError, "out.numpy()"):
        xent.softmax(LOGITS, out=torch.empty(N, C))


def test_jax():
    jax = pytest.importorskip("jax")
    labels = jax.numpy.asarray(LABELS.astype("i4"))
    for kind in ["float32", "float16", "bfloat16"]:
        array = jax.numpy.asarray(LOGITS).astype(kind)
        taken = as_array(array, "x")
        assert (taken.ctypes.data, taken.dtype.name) == (array.unsafe_buffer_pointer(), kind)
        assert not taken.flags.writeable
        assert_same(xent.cross_entropy_grad(array, labels), xent.cross_entropy_grad(taken, LABELS))

    with raises(TypeError, "x cannot be read", "key_data") as error:
        xent.softmax(jax.random.key(0))
    assert "jit" not in str(error.value)

    def traced(x):
        with raises(TypeError, "x cannot be read", "outside of jit"):
            xent.softmax(x)
        return x.sum()

    jax.jit(traced)(array)
    jax.grad(traced)(array)


def test_pandas():
    pandas = pytest.importorskip("pandas")
    frame, labels = pandas.DataFrame(LOGITS, columns=list("abcd")), pandas.Series(LABELS)
    expected = xent.cross_entropy(LOGITS, LABELS)
    assert np.shares_memory(as_array(frame, "x"), as_array(frame, "x"))
    assert_same(xent.cross_entropy(frame, labels), expected)
    assert_same(xent.cross_entropy(frame.astype("Float32"), labels.astype("Int64")), expected)
    assert_same(xent.cross_entropy(frame.astype({"a": "Float32"}), labels.astype("UInt8")), expected)
    assert_same(
        xent.softmax(pandas.DataFrame({"a": [1, 2], "b": [0.5, 3]})), xent.softmax([[1, 0.5], [2, 3]])
    )
    holes = frame.astype("Float32").mask(frame > 0)
    for given in [holes, holes["a"], holes["a"].array, holes[["a"]]]:
        with raises(TypeError, "logits must not have missing values", "fillna("):
            xent.cross_entropy(given, labels)
    with raises(TypeError, "target must not have missing values", "fillna(ignore_index)"):
        xent.cross_entropy(frame, labels.astype("Int64").mask(labels == 3))
    with raises(TypeError, "target", "NaN", "ignore_index"):
        xent.cross_entropy(frame, labels.mask(labels == 3))
    assert np.isnan(xent.cross_entropy(frame.mask(frame > 0), labels, reduction="none")).any()
    with raises(ValueError, "target", "np.reshape(target, (3,))"):
        xent.cross_entropy(frame, labels.to_frame())
    for kind in ["object", "str"]:
        with raises(TypeError, "target", "np.unique("):
            xent.cross_entropy(frame, pandas.Series(["cat", "dog", "cat"], dtype=kind))
    with raises(TypeError, "logits", "holds a str", "'b'", "logits.drop(columns='b')"):
        xent.cross_entropy(frame.astype({"a": "float64", "b": "str"}), labels)
    rows = pandas.Series(LOGITS.tolist())
    with raises(TypeError, "logits", "holds a list", "np.stack(np.asarray(logits))"):
        xent.cross_entropy(rows, labels)
    assert_same(xent.softmax(np.stack(np.asarray(rows))), xent.softmax(LOGITS.astype(float)))
    arrow = pytest.importorskip("pyarrow")
    assert_same(xent.cross_entropy(frame.astype("float[pyarrow]"), labels.astype("int32[pyarrow]")), expected)
    assert_same(xent.cross_entropy(frame, arrow.array(LABELS)), expected)
    for given in [
        arrow.array([1.0, None]),
        arrow.chunked_array([[1.0], [None]]),
        arrow.table({"a": [None, 1]}),
    ]:
        with raises(TypeError, "x must not have missing values", "fill_null("):
            xent.softmax(given)


def test_categories_of_pandas():
    """Their numbers are in an order of their own, which np.unique would not find."""
    pandas = pytest.importorskip("pandas")
    names = pandas.Categorical(["low", "high", "low"], categories=["low", "high"])
    holes = pandas.Categorical(["low", None, "high"], categories=["low", "high"])
    for wrap, cure in [
        (lambda c: c, "codes"),
        (pandas.Series, "cat.codes"),
        (pandas.CategoricalIndex, "codes"),
    ]:
        with raises(TypeError, "target", f"target.{cure} numbers them"):
            xent.cross_entropy(LOGITS, wrap(names))
        with raises(TypeError, "target", f"target.{cure} numbers", "ignore_index=-1"):
            xent.cross_entropy(LOGITS, wrap(holes))
        assert_same(
            xent.cross_entropy(LOGITS, wrap(pandas.Categorical(LABELS, categories=[3, 2, 0]))),
            xent.cross_entropy(LOGITS, LABELS),
        )
    codes = pandas.Series(holes).cat.codes
    assert_same(xent.cross_entropy(LOGITS, codes, ignore_index=-1), xent.cross_entropy(LOGITS, [0, -100, 1]))
    with raises(ValueError, "target[1] is -1", "give ignore_index=-1"):
        xent.cross_entropy(LOGITS, codes)


def test_categories_of_polars_and_arrow():
    polars, arrow = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    names = ["low", "high", "low"]
    for dtype in [polars.Categorical, polars.Enum(["low", "high"])]:
        with raises(TypeError, "target", "target.to_physical() numbers them"):
            xent.cross_entropy(LOGITS, polars.Series(names, dtype=dtype))
        with raises(TypeError, "target", "target.to_physical() numbers", "fill_null(ignore_index)"):
            xent.cross_entropy(LOGITS, polars.Series(["low", None, "high"], dtype=dtype))
    column = arrow.array(names).dictionary_encode()
    assert_same(xent.cross_entropy(LOGITS, column.indices), xent.cross_entropy(LOGITS, [0, 1, 0]))
    for given, cure in [
        (column, "target.indices"),
        (arrow.chunked_array([column]), "target.combine_chunks().indices"),
    ]:
        with raises(TypeError, "target", f"{cure} numbers them"):
            xent.cross_entropy(LOGITS, given)
    table = arrow.table({"one": [1.0], "name": ["x"]})
    with raises(TypeError, "x", "'name'", "x.drop('name')"):
        xent.softmax(table)
    with raises(TypeError, "x", "'name'", "x.drop_columns('name')"):
        xent.softmax(table.to_batches()[0])


def test_polars():
    polars = pytest.importorskip("polars")
    frame, labels = polars.DataFrame(LOGITS, schema=list("abcd")), polars.Series(LABELS)
    assert_same(xent.cross_entropy(frame, labels), xent.cross_entropy(LOGITS, LABELS))
    assert as_array(labels, "x").ctypes.data == as_array(labels, "x").ctypes.data
    assert_same(
        xent.softmax(polars.DataFrame({"a": [1, 2], "b": [0.5, 3]})), xent.softmax([[1, 0.5], [2, 3]])
    )
    rows = polars.Series([[1.0, 2.0], [3.0, None]], dtype=polars.Array(polars.Float32, 2))
    assert_same(xent.softmax(rows[:1]), xent.softmax(np.float32([[1, 2]])))
    for given in [polars.Series([1.0, None]), polars.DataFrame({"a": [1, 2], "b": [None, 3]}), rows]:
        with raises(TypeError, "x must not have missing values", "fill_null("):
            xent.softmax(given)
    with raises(TypeError, "x is a lazy LazyFrame", "collect()"):
        xent.softmax(frame.lazy())
    with raises(TypeError, "x", "holds a Decimal", "np.asarray(x, float)"):
        xent.softmax(polars.Series([decimal.Decimal("1.5"), decimal.Decimal(2)]))
    with raises(TypeError, "x must be real numbers, got an Expr"):
        xent.softmax(polars.col("a"))
    with raises(TypeError, "x", "'name'", "x.drop('name')"):
        xent.softmax(frame.with_columns(name=polars.lit("x")))
    with raises(TypeError, "x", "holds an ndarray", "np.stack(np.asarray(x))"):
        xent.softmax(polars.Series([[1.0, 2.0], [3.0]]))


def test_dask():
    dask = pytest.importorskip("dask.array")
    with raises(TypeError, "logits is a lazy Array", "compute()", "xent.dask"):
        xent.cross_entropy(dask.from_array(LOGITS), LABELS)
    xarray = pytest.importorskip("xarray")
    assert_same(xent.softmax(xarray.DataArray(LOGITS)), xent.softmax(LOGITS))
    with raises(TypeError, "x is a lazy DataArray", "compute()"):
        xent.softmax(xarray.DataArray(dask.from_array(LOGITS)))


def test_scipy():
    sparse = pytest.importorskip("scipy.sparse")
    for kind in [sparse.csr_matrix, sparse.coo_array]:
        with raises(TypeError, "target", "toarray()"):
            xent.cross_entropy(LOGITS, kind(np.eye(C, dtype="f4")[LABELS]))


@pytest.mark.parametrize("dtype", ["complex128", "datetime64[s]", "U1"])
@pytest.mark.parametrize("name", ["cross_entropy", "cross_entropy_probs_grad", "evaluate", "nll_loss"])
def test_empty_targets_of_other_dtypes(name, dtype):
    """An empty list is one of no labels; nothing else that is empty is."""
    getattr(xent, name)(np.zeros((1, 0, 3), "f4"), [[]])
    with pytest.raises(TypeError, match="target must hold integer labels, got dtype"):
        getattr(xent, name)(np.zeros((1, 0, 3), "f4"), helpers.Exporter(np.zeros((1, 0), dtype)))


# Targets of other types than the data's ---------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 5000])
@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32"])
@pytest.mark.parametrize("kind", ["?", "u1", "i1", "i2", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("name", ["mse_loss", "kl_div", "binary_cross_entropy"])
def test_targets_of_other_types(name, kind, dtype, size):
    """Whole numbers give what they give as float64, which is narrowed where it loses nothing."""
    rng = np.random.default_rng(0)
    x = (0.1 + 0.8 * rng.random(size)).astype(dtype)
    target = rng.integers(0, 2, size)
    options = {"axis": None} if name == "kl_div" else {}
    function = getattr(xent, f"{name}_value_and_grad")
    loss, grad = function(x, target.astype(kind), **options)
    expected = function(x, target.astype("f8"), **options)
    assert loss == expected[0] and grad.dtype == x.dtype
    np.testing.assert_array_equal(grad, expected[1])


@pytest.mark.parametrize("size", [7, 5000])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_targets_are_not_narrowed(dtype, size):
    """Where they lose bits, differences are taken in float64, and rounded once."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(size).astype(dtype)
    target = x.astype("f8") * (1 + 1e-9 * rng.standard_normal(size))
    target[:4] = [np.nan, np.inf, 1e300, -1e300]
    target[4:] += 2.0 ** -rng.integers(0, 60, size - 4)
    with np.errstate(over="ignore"):
        expected = (2 * (x.astype("f8") - target)).astype(dtype)
    np.testing.assert_array_equal(xent.mse_loss_grad(x, target, reduction="sum"), expected)
    integers = np.full(size, 2**24 + 1)
    grad = xent.mse_loss_grad(np.full(size, 2.0**24, "f4"), integers, reduction="sum")
    np.testing.assert_array_equal(grad, np.full(size, -2.0, "f4"))


@pytest.mark.parametrize("ignoring", [False, True])
@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "i4", "i8"])
def test_integers_of_independent_classes(kind, ignoring):
    rng = np.random.default_rng(0)
    x, target = rng.standard_normal(5000).astype("f4"), rng.integers(0, 2, 5000).astype(kind)
    expected = xent.sigmoid_cross_entropy(x, target.astype("f4"), reduction="none")
    options = {"ignore_index": 7} if ignoring else {}
    if ignoring:
        target[::3], expected[::3] = 7, 0
    losses = xent.sigmoid_cross_entropy(x, target, reduction="none", **options)
    np.testing.assert_array_equal(losses, expected)
    for bad in (2, 3, 6, 100):
        target[4000] = bad
        with raises(ValueError, "4000", str(bad)):
            xent.sigmoid_cross_entropy(x, target, **options)
