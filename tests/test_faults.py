"""Memory that cannot be had: each allocation of a call fails in turn, in the bridge, the kernels and arrays.

A MemoryError comes, or the call goes another way and gives the same bits; nothing leaks, and what `out`
held is still there. Whose allocations fail is said in faults.c.
"""

import ctypes
import gc
import sys
import warnings

import numpy as np
import pytest
from compiled import compile_library, shared_folder
from fuzz.calls import FUNCTIONS, drawn
from fuzz.judge import _leaves, _outcome, _parts_of_out, _placed, _takes_tuple
from fuzz.memory import Place
from helpers import ROOT

import xent

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the table of a library is found by ELF's rules"
)

CALLS = 4  # of each function, the last of them large
MOST = 40  # allocations of a call that fail in turn; some by NumPy alone make thousands
SET_HANDLER = 304  # in NumPy's C interface, PyDataMem_SetHandler


class Faults:
    """The library, and NumPy's arrays while it is in use."""

    def __init__(self, library):
        self.library = library
        library.faults_alive.restype = library.faults_fired.restype = ctypes.c_long
        library.faults_arm.argtypes = [ctypes.c_long, ctypes.c_int]
        handler = ctypes.c_char.in_dll(library, "faults_handler")
        new_capsule = ctypes.pythonapi.PyCapsule_New
        new_capsule.restype, new_capsule.argtypes = (
            ctypes.py_object,
            [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p],
        )
        self.handler = new_capsule(ctypes.addressof(handler), b"mem_handler", None)
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        api = getattr(np, "_core", None) or np.core
        table = ctypes.cast(pointer(api._multiarray_umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
        self.set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[SET_HANDLER])

    def alive(self):
        gc.collect()
        return self.library.faults_alive()

    def outcome(self, name, given, number=0, every=0):
        """What a call gives if that allocation fails (0: none); and whether one did."""
        before = self.set_handler(self.handler)
        self.library.faults_arm(number, every)
        try:
            result, error = _outcome(name, given)
        finally:
            fired = self.library.faults_fired()
            self.library.faults_arm(0, 0)
            self.set_handler(before)
        return result, error, fired


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    folder = shared_folder(tmp_path_factory, "faults")
    library = compile_library(folder, None, [ROOT / "tests" / "faults.c"], "-fvisibility=default", "-ldl")
    if library.faults_install(b"xent/_kernels", 1) == 0:
        pytest.skip("the extension calls no allocator through its table")
    yield Faults(library)
    library.faults_install(b"xent/_kernels", 0)


def valid_calls(name):
    """Calls at random that succeed: some small ones and a large one."""
    found, number = 0, 0
    while found < CALLS and number < 200:
        number += 1
        rng = np.random.default_rng([9, number])
        large = found == CALLS - 1
        call = drawn(name, rng, large)
        places, given = _placed(call, rng)
        if call.valid and _outcome(name, given)[1] is None:
            found += 1
            yield given


def with_out(name, given):
    """The same arguments with room for results, or not."""
    yield given, []
    parameters = xent_out(name)
    if parameters:
        result = _outcome(name, given)[0]
        rng = np.random.default_rng(0)
        rooms = [
            None if p is None else Place(np.zeros(p.shape, p.dtype), rng, odd=False)
            for p in _parts_of_out(name, result)
        ]
        arrays = [None if room is None else room.array for room in rooms]
        out = tuple(arrays) if _takes_tuple(name) else arrays[0]
        yield given | {"out": out}, [room for room in rooms if room is not None]


def xent_out(name):
    from fuzz.calls import parameters_of

    return "out" in parameters_of(name)


def assert_survives(faults, name, given, rooms, number, every):
    """Let allocation `number` fail; return whether there was one."""
    for room in rooms:
        room.array[...] = room.values
    alive = faults.alive()
    result, error, fired = faults.outcome(name, given, number, every)
    if not fired:
        return False
    if error is not None:
        assert isinstance(error, MemoryError), f"allocation {number}: {error!r}"
        for room in rooms:
            assert room.is_untouched(), f"allocation {number}: out was written to before {error!r}"
    else:
        expected = _outcome(name, given)[0]
        for a, e in zip(_leaves(result), _leaves(expected), strict=True):
            assert a.tobytes() == e.tobytes(), f"allocation {number}: other bits"
        del expected, a, e
    del result, error
    assert faults.alive() == alive, f"allocation {number}: {faults.alive() - alive} leaked"
    return True


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_allocation_fails(faults, name):
    tried = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for given in valid_calls(name):
            for arguments, rooms in with_out(name, given):
                with xent.num_threads(3):
                    for every in (0, 1):
                        for number in range(1, MOST + 1):
                            if not assert_survives(faults, name, arguments, rooms, number, every):
                                break
                            tried += 1
    assert tried
