"""How xent.jax is called by XLA, without XLA: frames of a call as it makes them."""

import ctypes

import numpy as np
import pytest

from xent import _xla


class Caller:
    """Calls a handler with arrays as XLA does, and keeps the messages of errors."""

    def __init__(self, compute):
        self.handler, self.errors = _xla.handler(compute), []

        def create_error(error):
            self.errors.append((error.contents.code, error.contents.message.decode()))
            return 1

        self.create = type(_xla._Api().create_error)(create_error)

    def frame(self):
        frame, self.api = _xla._Frame(), _xla._Api(create_error=self.create)
        self.api.version.major, self.api.version.minor = 0, 7
        frame.api = ctypes.pointer(self.api)
        return frame

    def __call__(self, text, arrays, results, codes):
        self.kept = []
        frame = self.frame()
        frame.stage = _xla.EXECUTE
        frame.arguments, frame.results = self.buffers(arrays, codes), self.buffers(results, codes)
        text = ctypes.create_string_buffer(text)
        span = _xla._Text(ctypes.addressof(text), len(text) - 1)
        frame.attributes.values = ctypes.pointer(ctypes.pointer(span))
        return self.handler(ctypes.addressof(frame))

    def buffers(self, arrays, codes):
        addresses = (ctypes.c_void_p * len(arrays))()
        for k, array in enumerate(arrays):
            dims = (ctypes.c_int64 * array.ndim)(*array.shape)
            code = codes[array.dtype.name]
            buffer = _xla._Buffer(
                dtype=code, data=array.ctypes.data, rank=array.ndim, dims=ctypes.addressof(dims)
            )
            addresses[k] = ctypes.addressof(buffer)
            self.kept += dims, buffer
        self.kept.append(addresses)
        return _xla._Buffers(count=len(arrays), buffers=ctypes.addressof(addresses))


CODES = {name: code for code, name in _xla.DTYPES.items()}


def test_memory_is_read_and_written_in_place():
    seen = []

    def compute(text, arrays, results):
        seen.extend([text, arrays])
        results[0][...] = arrays[0].astype(float).sum()

    x, empty = np.arange(6, dtype=np.int16).reshape(2, 3), np.empty((0, 3), np.float32)
    total = np.zeros((), np.float64)
    assert Caller(compute)(b"a call", [x, empty], [total], CODES) is None
    text, arrays = seen
    assert (text, total) == (b"a call", 15)
    assert arrays[0].ctypes.data == x.ctypes.data
    assert not arrays[0].flags.writeable
    assert [(a.dtype, a.shape) for a in arrays] == [(np.int16, (2, 3)), (np.float32, (0, 3))]


def test_every_dtype():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    for name in CODES:
        dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
        array, copy = np.array([1, 0], dtype), np.zeros(2, dtype)
        caller = Caller(lambda text, arrays, results: np.copyto(results[0], arrays[0]))
        assert caller(b"", [array], [copy], CODES) is None
        np.testing.assert_array_equal(copy, array)


@pytest.mark.parametrize(
    "error, code, words",
    [
        (ValueError("target[2] is 9"), _xla.INVALID_ARGUMENT, "target[2] is 9"),
        (KeyboardInterrupt(), _xla.INTERNAL, "KeyboardInterrupt: "),
    ],
)
def test_errors_are_told(error, code, words):
    def compute(text, arrays, results):
        raise error

    caller = Caller(compute)
    assert caller(b"", [], [], CODES) == 1
    assert caller.errors == [(code, words)]


@pytest.mark.parametrize("known, expected", [(True, (0, 7)), (False, _xla.API)])
def test_the_version_is_that_of_xla(known, expected):
    caller, metadata = Caller(None), _xla._Metadata()
    frame = caller.frame()
    extension = _xla._MetadataExtension(
        base=_xla._Extension(kind=_xla.METADATA), metadata=ctypes.pointer(metadata)
    )
    frame.extension = ctypes.cast(ctypes.pointer(extension), ctypes.POINTER(_xla._Extension))
    if not known:
        frame.api = None
    assert caller.handler(ctypes.addressof(frame)) is None
    assert (metadata.version.major, metadata.version.minor) == expected
