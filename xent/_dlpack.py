"""Arrays through DLPack, bfloat16 included, of which NumPy is told that it is a 16-bit integer."""

import ctypes

import numpy as np

UINT, BFLOAT = 1, 4  # codes of types in dlpack.h


class _Tensor(ctypes.Structure):
    """The beginning of dlpack.h's DLTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
    ]


class _Versioned(ctypes.Structure):
    """The beginning of dlpack.h's DLManagedTensorVersioned. DLManagedTensor begins with its tensor."""

    _fields_ = [
        ("version", ctypes.c_uint32 * 2),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_is_named = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)


def from_dlpack(value):
    """Return an array of the memory that this exports."""
    exporter = _Renamed(value)
    array = np.from_dlpack(exporter)
    return array.view(_bfloat16()) if exporter.is_bfloat16 else array


def _bfloat16():
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise ImportError("bfloat16 in NumPy needs the package ml_dtypes: pip install ml_dtypes") from None
    return bfloat16


class _Renamed:
    """An exporter whose bfloat16 is called a 16-bit integer. NumPy asks it for the form that it knows."""

    def __init__(self, value):
        # PyTorch exports the memory of what it negated lazily with the wrong sign
        self.value = value.resolve_neg() if hasattr(value, "resolve_neg") else value
        self.is_bfloat16 = False

    def __dlpack_device__(self):
        return self.value.__dlpack_device__()

    def __dlpack__(self, **asked):
        capsule = self.value.__dlpack__(**asked)
        tensor = _tensor_of(capsule)
        if (tensor.code, tensor.bits, tensor.lanes) == (BFLOAT, 16, 1):
            # The capsule is ours: exporters make one for each who asks
            tensor.code, self.is_bfloat16 = UINT, True
        return capsule


def _tensor_of(capsule):
    name = b"dltensor_versioned"
    if _is_named(capsule, name):
        return _Versioned.from_address(_pointer_of(capsule, name)).tensor
    return _Tensor.from_address(_pointer_of(capsule, b"dltensor"))
