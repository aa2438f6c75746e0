"""Calls from compiled programs of JAX: foreign functions of XLA, whose arguments are structures of C.

XLA gives a handler the addresses of what it computed and of room for results. The structures, read by ctypes,
are those of xla/ffi/api/c_api.h, which jaxlib brings along; new fields come at their ends.
"""

import ctypes
import functools

import numpy as np

API = 0, 1  # the version of c_api.h of JAX 0.5, which does not say it
EXECUTE = 3  # XLA_FFI_ExecutionStage
METADATA = 1  # XLA_FFI_Extension_Metadata
INVALID_ARGUMENT, INTERNAL = 3, 13  # XLA_FFI_Error_Code
DTYPES = {  # XLA_FFI_DataType
    1: "bool", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "uint8", 7: "uint16", 8: "uint32",
    9: "uint64", 10: "float16", 11: "float32", 12: "float64", 16: "bfloat16",
}  # fmt: skip


class _Extension(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("kind", ctypes.c_int), ("next", ctypes.c_void_p)]


class _Version(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("extension", ctypes.c_void_p), ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
    ]  # fmt: skip


class _Metadata(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("version", _Version)]


class _MetadataExtension(ctypes.Structure):
    _fields_ = [("base", _Extension), ("metadata", ctypes.POINTER(_Metadata))]


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("extension", ctypes.c_void_p), ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p), ("rank", ctypes.c_int64), ("dims", ctypes.c_void_p),
    ]  # fmt: skip


class _Buffers(ctypes.Structure):
    """Arguments, or results."""

    _fields_ = [
        ("size", ctypes.c_size_t), ("extension", ctypes.c_void_p), ("count", ctypes.c_int64),
        ("types", ctypes.c_void_p), ("buffers", ctypes.c_void_p),
    ]  # fmt: skip


class _Text(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("size", ctypes.c_size_t)]


class _Attributes(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("extension", ctypes.c_void_p), ("count", ctypes.c_int64),
        ("types", ctypes.c_void_p), ("names", ctypes.c_void_p),
        ("values", ctypes.POINTER(ctypes.POINTER(_Text))),
    ]  # fmt: skip


class _Error(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_size_t), ("extension", ctypes.c_void_p), ("message", ctypes.c_char_p),
        ("code", ctypes.c_int),
    ]  # fmt: skip


class _Api(ctypes.Structure):
    """The beginning of the table of functions."""

    _fields_ = [
        ("size", ctypes.c_size_t), ("extension", ctypes.c_void_p), ("version", _Version),
        ("internal", ctypes.c_void_p),
        ("create_error", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Error))),
    ]  # fmt: skip


class _Frame(ctypes.Structure):
    """A call."""

    _fields_ = [
        ("size", ctypes.c_size_t), ("extension", ctypes.POINTER(_Extension)), ("api", ctypes.POINTER(_Api)),
        ("context", ctypes.c_void_p), ("stage", ctypes.c_int), ("arguments", _Buffers), ("results", _Buffers),
        ("attributes", _Attributes),
    ]  # fmt: skip


def handler(compute):
    """Return a function of C that calls compute(text, arguments, results), and has to be kept."""

    def run(address):
        frame = _Frame.from_address(address)
        try:
            if frame.extension and frame.extension.contents.kind == METADATA:
                _tell_version(frame)
            elif frame.stage == EXECUTE:
                text = frame.attributes.values[0].contents
                compute(
                    ctypes.string_at(text.data, text.size),
                    _arrays(frame.arguments, False), _arrays(frame.results, True),
                )  # fmt: skip
        except BaseException as error:
            return _error(frame, error)
        return None

    return ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(run)


def _tell_version(frame):
    extension = ctypes.cast(frame.extension, ctypes.POINTER(_MetadataExtension)).contents
    version = extension.metadata.contents.version
    version.major, version.minor = API
    if frame.api:  # XLA's own: nothing of later ones is used
        version.major, version.minor = frame.api.contents.version.major, frame.api.contents.version.minor


def _arrays(buffers, writeable):
    addresses = (ctypes.c_void_p * buffers.count).from_address(buffers.buffers)
    return [_array(_Buffer.from_address(address), writeable) for address in addresses]


def _array(buffer, writeable):
    rank = buffer.rank
    shape = (ctypes.c_int64 * rank).from_address(buffer.dims)[:] if rank else ()
    dtype = _dtype(buffer.dtype)
    size = dtype.itemsize
    for n in shape:
        size *= n
    if not size:
        return np.empty(shape, dtype)
    array = np.ndarray(shape, dtype, (ctypes.c_char * size).from_address(buffer.data))
    if not writeable:
        array.flags.writeable = False
    return array


@functools.cache
def _dtype(code):
    if DTYPES[code] == "bfloat16":
        import ml_dtypes  # which JAX brings along

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(DTYPES[code])


def _error(frame, error):
    code, words = INTERNAL, f"{type(error).__name__}: {error}"
    if isinstance(error, (TypeError, ValueError)):
        code, words = INVALID_ARGUMENT, str(error)
    given = _Error(ctypes.sizeof(_Error), None, words.encode(), code)
    return frame.api.contents.create_error(ctypes.byref(given))
