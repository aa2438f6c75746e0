"""What a caller gave, as a NumPy array: in place where its memory can be read, else an error with the cure.

What NumPy would read without a word as something else is refused: a mask is dropped, a missing value becomes
NaN, what is computed later or lies on a GPU is fetched, a tensor's gradients are lost. Libraries are known by
what their objects can do, none is imported.
"""

import numbers
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

CPU_DEVICES = (1, 3, 11)  # DLPack's numbers: memory of the CPU, and such memory pinned for CUDA and for ROCm
PLAIN = frozenset({int, float, bool, np.ndarray, np.float64, np.float32, np.int64, np.int32})
LISTS = frozenset({list, tuple})
MANY = 100  # items, whose types are looked at one by one in C
OBJECTS = np.dtype(object)
REFUSALS = (TypeError, ValueError, RuntimeError, BufferError)  # of libraries, for what they cannot hand out


def as_array(value, name):
    """Return an ndarray of what was given, without a copy where there is an array; raise if it means more.

    It is a view of its own: what an option does when it is asked for its number, say, cannot reshape it.
    """
    if type(value) is np.ndarray and value.dtype is not OBJECTS:  # the quick yes
        return value.view()
    if isinstance(value, (list, tuple)):
        value = _plain_lists(value, name)
    elif not _is_plain_tensor(value, name):
        value = _plain_table(value, name)
    array = _read(value, name)
    if type(array) is not np.ndarray:
        if hasattr(array, "mask"):
            raise _masked(name)
        array = np.asarray(array)
    if array.dtype.kind == "O" and array.size:
        raise _no_numbers(value, array, name)
    if array.dtype.kind == "U" and isinstance(value, Mapping):  # its names, of which NumPy makes an array
        raise TypeError(
            f"{name} must be real numbers, got {_thing(value)}; give one of its arrays, {name}[...]"
        )
    return array.view()


def _read(value, name):
    """Return what NumPy makes of this, through DLPack if it knows no other way to it."""
    try:
        if hasattr(value, "__dlpack__") and (not hasattr(value, "__array__") or _is_foreign_bfloat16(value)):
            return _through_dlpack(value)
        return np.asanyarray(value)
    except REFUSALS as error:
        words = _words_of(error, value, name)
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(f"{name} cannot be read as an array: {words}") from error


def _words_of(error, value, name):
    """Return why a library, or NumPy, could not hand out numbers, and what helps."""
    uneven = _uneven(value, name) if isinstance(value, (list, tuple)) else ""
    if uneven:
        return f"its shape is inhomogeneous: {uneven}"
    words, library = str(error).partition("\n")[0], _library(value)
    if library == "jax" and type(value).__name__.endswith("Tracer"):
        return f"{words}; call xent outside of jit"
    if library == "torch" and getattr(value, "is_quantized", False):
        return f"{words}; give {name}.dequantize()"
    if library == "torch" and str(getattr(value, "dtype", "")).startswith("torch.float8"):
        return f"{words}; give {name}.float()"
    return words


def _uneven(items, name):
    """Return which of nested lists has another length than the first beside it; nothing if none has."""
    lengths = [len(item) if _has_items(item) else None for item in items]
    for k, length in enumerate(lengths[1:], 1):
        if length != lengths[0]:
            first, other = ("one number" if n is None else f"{n} long" for n in (lengths[0], length))
            return f"{name}[0] is {first}, {name}[{k}] is {other}"
    inner = (_uneven(item, f"{name}[{k}]") for k, item in enumerate(items) if isinstance(item, (list, tuple)))
    return next(filter(None, inner), "")


def _has_items(item):
    return isinstance(item, (list, tuple)) or (isinstance(item, np.ndarray) and item.ndim > 0)


def _is_foreign_bfloat16(value):
    """Whether this is of a bfloat16 that NumPy does not know: torch.bfloat16, and no plain bfloat16."""
    dtype = getattr(value, "dtype", None)
    return getattr(dtype, "itemsize", 2) == 2 and str(dtype).endswith(".bfloat16")


def _through_dlpack(value):
    from . import _dlpack  # when it is needed: few calls do

    return _dlpack.from_dlpack(value)


def _library(value):
    return type(value).__module__.partition(".")[0]


# ---- what means more than its numbers ----


def _is_plain(items):
    """Whether a list or tuple holds numbers, arrays and such lists alone: the quick yes."""
    if len(items) > MANY:
        from . import _kernels  # which is loaded, but needs this module first

        if _kernels.are_of_types(items, PLAIN):
            return True
    elif PLAIN.issuperset(map(type, items)):
        return True
    return LISTS.issuperset(map(type, items)) and all(map(_is_plain, items))


def _plain_lists(value, name):
    """Return nested lists without what NumPy might read as something else."""
    try:
        return value if _is_plain(value) else _plain_list(value, name)
    except RecursionError:
        words = "its lists hold themselves, or are nested deeper than an array can be"
        raise ValueError(f"{name} cannot be read as an array: {words}") from None


def _plain_list(items, name):
    """Return a list with arrays in place of what NumPy might read as something else."""
    return [_plain_item(item, f"{name}[{k}]") for k, item in enumerate(items)]


def _plain_item(item, name):
    if isinstance(item, (list, tuple)):
        return _plain_list(item, name)
    if _is_nothing(item):
        raise _nothing(name.partition("[")[0], name, item)
    return item if type(item) in PLAIN or isinstance(item, np.generic) else as_array(item, name)


def _is_plain_tensor(value, name):
    """Whether this is a tensor that NumPy can read; raise for those that it should not."""
    records = getattr(value, "requires_grad", None)
    if records is True:
        cure = f"give {name}.detach(), or call the loss in xent.torch, which keeps them"
        raise TypeError(f"{name} records gradients, which would be lost without a word: {cure}")
    if records is False and getattr(value, "is_cpu", False) is True:  # sooner than DLPack: two microseconds
        return True
    if hasattr(value, "__dlpack_device__"):
        try:
            device = int(value.__dlpack_device__()[0])
        except REFUSALS:
            return False  # in parts on several devices, or on none: NumPy is told what to do about it
        if device not in CPU_DEVICES:
            raise _far(value, f"of DLPack type {device}", name)
        return not hasattr(value, "null_count")  # as arrays of Arrow have, which are columns
    elif hasattr(value, "__cuda_array_interface__"):
        raise _far(value, "CUDA", name)
    return False


def _plain_table(value, name):
    """Return a column or frame that NumPy reads right: at hand, without missing values, of one dtype."""
    if hasattr(value, "__dask_graph__") and value.__dask_graph__() is not None:
        raise _lazy(value, name, "compute")
    if hasattr(value, "collect") and not hasattr(value, "__array__"):  # Polars
        raise _lazy(value, name, "collect")
    if hasattr(value, "isna"):
        return _plain_pandas(value, name)
    if (hasattr(value, "null_count") or hasattr(value, "itercolumns")) and _count_nulls(value):
        raise _missing(value, name)
    return value


def _count_nulls(value):
    """Return the missing values of a column or frame of Polars or Arrow."""
    if not hasattr(value, "null_count"):  # a table of Arrow
        return sum(column.null_count for column in value.itercolumns())
    count = value.null_count() if callable(value.null_count) else value.null_count
    count = np.asarray(count)  # a frame of Polars gives one of counts, and an expression an expression
    count = 0 if count.dtype.kind == "O" else int(count.sum())
    inside = getattr(getattr(value, "dtype", None), "inner", None)  # of a column of lists
    return count if count or inside is None else _count_nulls(value.explode())


def _plain_pandas(value, name):
    """NaN of NumPy's own dtypes is a number; of those with missing values, it stands for one."""
    dtypes = list(value.dtypes) if getattr(value, "ndim", 1) == 2 else [value.dtype]
    if all(isinstance(dtype, np.dtype) for dtype in dtypes):
        return value
    if np.asarray(value.isna()).any():
        raise _missing(value, name)
    dtypes = [getattr(dtype, "numpy_dtype", dtype) for dtype in dtypes]
    if all(isinstance(dtype, np.dtype) and dtype.kind in "iufb" for dtype in dtypes):
        return value.to_numpy(dtype=np.result_type(*dtypes))
    return value


# ---- words ----


def _far(value, kind, name):
    """Return the error for what is on a GPU or another device."""
    cure = "a copy of it there"
    if _library(value) in ("jax", "jaxlib"):
        cure = f"jax.device_get({name})"
    for method in ("cpu", "get", "copy_to_host", "to_numpy"):  # PyTorch, CuPy, Numba, cuDF
        if hasattr(value, method):
            cure = f"{name}.{method}()"
            break
    place = getattr(value, "device", kind)
    return TypeError(f"{name} is on device {place}, not in the memory of the CPU: give {cure}")


def _lazy(value, name, method):
    kind = type(value).__name__
    cure = f"give {name}.{method}(), or a part of it at a time"
    if method == "compute":
        cure += ", or call xent.dask, which takes chunk by chunk"
    return TypeError(f"{name} is a lazy {kind}, which would be loaded as a whole: {cure}")


def _masked(name):
    cure = f"{name}.filled(value) says what stands there, and a sample_weight of 0 leaves positions out"
    if name == "target":
        cure = "target.filled(ignore_index) leaves positions out"
    return TypeError(f"{name} must not be a masked array, whose mask would be dropped: {cure}")


def _missing(value, name):
    fill = "fillna" if hasattr(value, "fillna") else "fill_null"
    cure = f"give {name}.{fill}(value), or drop their rows"
    if name == "target":
        cure = f"target.{fill}(ignore_index) leaves positions out"
        codes = _codes(value, name)
        if codes:  # nothing but a category can be filled in
            cure = f"{codes} numbers the categories, {_codes_of_missing(value)}"
    return TypeError(f"{name} must not have missing values: {cure}")


def _codes(value, name):
    """Return how to get at the numbers of categories, whose order is their own; nothing if it has none."""
    dtype = getattr(value, "dtype", None)
    if hasattr(dtype, "categories") and _library(value) == "pandas":
        return f"{name}.cat.codes" if hasattr(value, "cat") else f"{name}.codes"
    if hasattr(value, "to_physical") and str(dtype).startswith(("Categorical", "Enum")):  # Polars
        return f"{name}.to_physical()"
    if hasattr(getattr(value, "type", None), "index_type"):  # Arrow
        return f"{name}.indices" if hasattr(value, "indices") else f"{name}.combine_chunks().indices"
    return ""


def _codes_of_missing(value):
    if _library(value) == "pandas":
        return "-1 where there is none, which ignore_index=-1 leaves out"
    return "and fill_null(ignore_index) of these leaves positions out"


def _is_nothing(item):
    """Whether this stands for a value that is missing."""
    return item is None or type(item).__name__ in ("NAType", "NaTType")


def _nothing(name, place, item):
    hint = "; ignore_index in its place leaves a position out" if name == "target" else ""
    return TypeError(f"{name} must not have missing values: {place} is {item}{hint}")


def _no_numbers(value, array, name):
    """Return the error for what NumPy takes for Python objects."""
    if array.ndim == 0 and not isinstance(value, np.ndarray):
        return TypeError(f"{name} must be real numbers, got {_thing(value)}{_as_numbers(value, name)}")
    odd, where = array.flat[0], 0
    for k, item in enumerate(array.flat):
        if isinstance(item, int) and item.bit_length() > 64 and not isinstance(value, np.ndarray):
            return ValueError(f"{_placed(name, k, array.shape)} is {item}, which has more than 64 bits")
        if _is_nothing(item):
            return _nothing(name, _placed(name, k, array.shape), item)
        if not isinstance(item, (int, float, np.number)):
            odd, where = item, k
            break
    whole = all(isinstance(item, (int, np.integer)) for item in array.flat)
    hint = _cure_of_objects(value, array, name, odd, where, "np.int64" if whole else "float")
    got = f"{_thing(value)} of dtype object that holds {_thing(odd)}"
    return TypeError(f"{name} must be real numbers, got {got}{hint}")


def _placed(name, where, shape):
    return f"{name}{[int(i) for i in np.unravel_index(where, shape)] or ''}"


def _cure_of_objects(value, array, name, odd, where, dtype):
    """Return what helps where objects are no numbers; the first that is none is `odd`."""
    if isinstance(odd, numbers.Number) and not isinstance(odd, (int, float, complex, np.number)):
        dtype = "float"  # Decimal, Fraction
    elif not isinstance(odd, (int, float, np.number)):
        columns = getattr(value, "column_names", getattr(value, "columns", None))  # Arrow has both
        if array.ndim == 2 and columns is not None and not callable(columns):
            column = list(columns)[where % array.shape[1]]
            drop = "drop" if hasattr(value, "drop") else "drop_columns"  # of Arrow's batches
            argument = f"{'columns=' if hasattr(value, 'iloc') else ''}{column!r}"  # of pandas; of others
            return f" in the column {column!r}; {name}.{drop}({argument}) leaves it out"
        if isinstance(odd, str) and array.ndim == 1:
            return f"; {_codes(value, name) or f'np.unique({name}, return_inverse=True)[1]'} numbers them"
        rows = isinstance(odd, (np.ndarray, list)) and array.ndim == 1
        objects = name if isinstance(value, np.ndarray) else f"np.asarray({name})"
        return f"; np.stack({objects}) makes one array of rows of the same length" if rows else ""
    if hasattr(value, "astype"):
        return f"; {name}.astype({dtype}) makes numbers of it"
    return f"; np.asarray({name}, {dtype}) makes numbers of it"


def _thing(value):
    kind = type(value).__name__
    article = "an" if kind.lower().startswith(("nd", *"aeiou")) else "a"
    return "None" if value is None else f"{article} {kind}"


def _as_numbers(value, name):
    """Return how to make numbers of something that is no array."""
    if isinstance(value, Mapping):
        return f"; give its values in the order of the classes, [{name}[c] for c in range(classes)]"
    if hasattr(value, "toarray"):  # sparse matrices of SciPy
        return f"; give {name}.toarray()"
    if isinstance(value, (set, frozenset)):
        return "; a set has no order, give a list"
    if isinstance(value, numbers.Number):  # Decimal, Fraction
        return f"; give float({name})"
    if hasattr(value, "__fspath__"):
        return f"; np.load({name}) reads a file of NumPy's"
    plain = isinstance(value, Iterator) or type(value).__module__ == "builtins"
    return f"; give list({name})" if plain and isinstance(value, Iterable) else ""
