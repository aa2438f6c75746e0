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
from fuzz.calls import FUNCTIONS, drawn, parameters_of
from fuzz.judge import _leaves, _outcome, _parts_of_out, _placed, _takes_tuple
from fuzz.memory import Place
from helpers import ROOT

import xent

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the table of a library is found by ELF's rules"
)

CALLS = 2  # of each function, the last of them large
MOST = 25  # allocations of a call that fail in turn; some by NumPy alone make thousands
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
        names = "numpy._core._multiarray_umath", "numpy.core._multiarray_umath"  # of NumPy 2 and 1
        api = next(sys.modules[name] for name in names if name in sys.modules)
        table = ctypes.cast(pointer(api._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
        self.set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[SET_HANDLER])

    def alive(self):
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
    xent.set_result_cache(0)  # nothing is kept, all memory asked for
    if library.faults_install(b"xent/_kernels", 1) == 0:
        pytest.skip("the extension calls no allocator through its table")
    yield Faults(library)
    library.faults_install(b"xent/_kernels", 0)
    xent.set_result_cache(None)


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
    if "out" in parameters_of(name):
        result = _outcome(name, given)[0]
        rng = np.random.default_rng(0)
        rooms = [
            None if p is None else Place(np.zeros(p.shape, p.dtype), rng, odd=False)
            for p in _parts_of_out(name, result)
        ]
        arrays = [None if room is None else room.array for room in rooms]
        out = tuple(arrays) if _takes_tuple(name) else arrays[0]
        yield given | {"out": out}, [room for room in rooms if room is not None]


def assert_survives(faults, name, given, rooms, number, every):
    """Let allocation `number` fail; return whether there was one."""
    left = what = None
    for _ in range(2):  # the first error of a place is remembered by Cython, for tracebacks
        for room in rooms:
            room.array[...] = room.values
        alive = faults.alive()
        fired, what = fails(faults, name, given, rooms, number, every)
        if not fired:
            return False
        if faults.alive() != alive:
            gc.collect()
        left = faults.alive() - alive
        if left == 0:
            return True
    raise AssertionError(f"allocation {number}: {left} leaked after {what}")


def fails(faults, name, given, rooms, number, every):
    """Make that call; return whether an allocation failed, and what came of it."""
    result, error, fired = faults.outcome(name, given, number, every)
    if not fired:
        return False, None
    if error is not None:
        assert isinstance(error, MemoryError), f"allocation {number}: {error!r}"
        for room in rooms:
            assert room.is_untouched(), f"allocation {number}: out was written to before {error!r}"
        return True, repr(error)
    made = [leaf.copy() for leaf in _leaves(result)]
    for a, e in zip(made, _leaves(_outcome(name, given)[0]), strict=True):
        assert a.tobytes() == e.tobytes(), f"allocation {number}: other bits"
    return True, "a result"


# One of each way through the bridge; the others are slow, a minute together.
USUAL = {
    "softmax", "logsumexp", "cross_entropy_value_and_grad", "sigmoid", "mse_loss_grad", "conv2d",
}  # fmt: skip
NAMES = [n if n in USUAL else pytest.param(n, marks=pytest.mark.slow) for n in FUNCTIONS]


@pytest.mark.parametrize("name", NAMES)
def test_each_allocation_fails(faults, name):
    assert sum(survived(faults, name, given) for given in valid_calls(name))


def survived(faults, name, given):
    """Let each allocation of a call fail, with and without `out`; return how many there were."""
    tried = 0
    with warnings.catch_warnings(), xent.num_threads(3):
        warnings.simplefilter("error")
        for arguments, rooms in with_out(name, given):
            for every in (0, 1):
                for number in range(1, MOST + 1):
                    if not assert_survives(faults, name, arguments, rooms, number, every):
                        break
                    tried += 1
    return tried


# ---- results of several steps: the memory of the last one is there before the first one writes ----


def images(*shape):
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def layer(grad, x, weight, **options):
    return {"grad": images(*grad), "x": images(*x), "weight": images(*weight)} | options


INFINITE = np.where(np.arange(9).reshape(1, 1, 3, 3) == 4, np.inf, 1).astype(np.float32)
ROWS, PROBS, LABELS = images(6, 5), np.full((6, 5), 0.2), np.arange(6) % 5
HALVES = np.full((6, 5), 0.5, np.float32)
COLD = {"temperature": 1e-30, "reduction": "none"}  # in doubles
HEAVY = {"weight": np.full(5, 1e40), "reduction": "none"}
STEPS = {
    "gradients": ("conv2d_backward", layer((4, 9, 14, 14), (4, 8, 16, 16), (9, 8, 3, 3))),
    "phases": ("conv2d_backward", layer((2, 3, 8, 8), (2, 2, 17, 17), (3, 2, 3, 3), stride=2)),
    "lines": ("conv1d_backward", layer((3, 4, 30), (3, 4, 60), (4, 2, 2), stride=2, groups=2)),
    "transpose": (
        "conv_transpose2d",
        {"x": images(2, 5, 9, 9), "weight": images(5, 3, 4, 4), "bias": images(3), "stride": 3},
    ),
    "columns": ("conv_transpose2d", {"x": images(1, 1, 4, 4), "weight": INFINITE, "stride": 2}),
    "gradients of a transpose": (
        "conv_transpose2d_backward",
        layer((2, 3, 19, 19), (2, 5, 9, 9), (5, 3, 3, 3), stride=2),
    ),
    "as doubles": ("cross_entropy_grad_hess", {"logits": ROWS, "target": LABELS, "temperature": 1e-30}),
    "of another type": ("cross_entropy_grad_hess", {"logits": ROWS.astype(np.float16), "target": PROBS}),
    "losses": ("cross_entropy_value_and_grad", {"logits": ROWS, "target": LABELS} | COLD),
    "losses of elements": (
        "binary_cross_entropy_value_and_grad",
        {"probs": HALVES, "target": HALVES} | HEAVY,
    ),
    "wide weights": ("sigmoid_cross_entropy_grad_hess", {"logits": ROWS, "target": PROBS} | HEAVY),
    "a cold teacher": (
        "distillation_loss_value_and_grad",
        {"student_logits": ROWS, "teacher_logits": ROWS[::-1]} | COLD,
    ),
}


@pytest.mark.parametrize("case", STEPS)
def test_all_results_or_none(faults, case, monkeypatch):
    # small results go to memory of their own first: here all go where large ones do
    monkeypatch.setattr(sys.modules["xent.conv"], "COPIED", 0)
    assert survived(faults, *STEPS[case])
