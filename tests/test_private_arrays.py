"""Code of the caller's that runs inside a call cannot change what was checked.

An object that is asked for its number or its array reshapes all arrays of the call before it answers. The
call then gives what it gives without that, or an error: never another result, or the end of the process.
"""

import inspect
import warnings

import numpy as np
import pytest
from test_inputs import CALLS, FIXED, assert_same, call

import xent

# Options that take numbers, with one that is in the range of each; others are tried with their default.
NUMBERS = {
    "label_smoothing": 0.1, "z_loss": 0.1, "gamma": 2.0, "alpha": 0.5, "temperature": 2.0, "logit_cap": 5.0,
    "clip": 0.1, "base": 2.0, "ignore_index": -100, "axis": 1, "chunk_bytes": 2**20, "groups": 1, "stride": 2,
    "padding": 0, "dilation": 1, "output_padding": 0, "divisor_override": 2, "kernel_size": 2, "top_k": 1,
}  # fmt: skip


class Reshaping:
    """Answers with a number or an array, after it reshaped other arrays."""

    def __init__(self, arrays, value):
        self.arrays, self.value = arrays, value

    def _answer(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy 2.5 would rather have new arrays
            for array in self.arrays:
                array.shape = (array.size,) if array.ndim != 1 else (array.size, 1)
        return self.value

    def __float__(self):
        return float(self._answer())

    def __index__(self):
        return int(self._answer())

    def __array__(self, dtype=None, copy=None):
        return np.array(self._answer())

    def __eq__(self, other):
        return self._answer() == other

    __hash__ = None


class Word(str):
    """A string that reshapes arrays when it is compared."""

    def __new__(cls, arrays, value):
        word = super().__new__(cls, value)
        word.reshaping = Reshaping(arrays, value)
        return word

    def __eq__(self, other):
        return str(self.reshaping._answer()) == other

    def __hash__(self):
        self.reshaping._answer()
        return hash(str(self))


def arguments_of(name):
    """Copies of the arrays of a call."""
    return {key: value.copy() for key, value in CALLS[name].items()}


def options_of(name):
    """Options of a function that are no arrays, with a value."""
    for key, parameter in inspect.signature(getattr(xent, name)).parameters.items():
        if key in CALLS[name] or key == "out":
            continue
        value = FIXED.get(name, {}).get(key, NUMBERS.get(key, parameter.default))
        if isinstance(value, str) or (isinstance(value, (int, float)) and type(value) is not bool):
            yield key, value


def outcome(name, arguments):
    try:
        return call(name, arguments)
    except (TypeError, ValueError) as error:
        return error


def assert_unmoved(name, arguments, expected):
    result = outcome(name, arguments)
    if not isinstance(result, Exception):
        assert not isinstance(expected, Exception), "an argument that was refused is taken now"
        assert_same(result, expected)


WITH_OUT = [name for name in CALLS if "out" in inspect.signature(getattr(xent, name)).parameters]


@pytest.mark.parametrize("name", CALLS)
def test_options_cannot_reshape_arrays(name):
    for key, value in options_of(name):
        arguments = arguments_of(name)
        expected = outcome(name, arguments | {key: value})
        kind = Word if isinstance(value, str) else Reshaping
        assert_unmoved(name, arguments | {key: kind(list(arguments.values()), value)}, expected)


@pytest.mark.parametrize("name", CALLS)
def test_arguments_cannot_reshape_others(name):
    for key in CALLS[name]:
        arguments = arguments_of(name)
        expected = outcome(name, arguments)
        own = arguments[key].copy()
        others = [array for other, array in arguments.items() if other != key]
        assert_unmoved(name, arguments | {key: Reshaping(others, own)}, expected)


@pytest.mark.parametrize("name", WITH_OUT)
def test_results_that_are_reshaped_meanwhile(name):
    """Through `out`: it gets the result, or is refused."""
    for key, value in options_of(name):
        arguments = arguments_of(name)
        expected = outcome(name, arguments | {key: value})
        if isinstance(expected, (Exception, tuple)) or isinstance(value, str):
            continue
        out = np.zeros_like(expected)
        if not isinstance(out, np.ndarray) or name.endswith("value_and_grad"):
            continue
        assert_unmoved(name, arguments | {key: Reshaping([out], value), "out": out}, expected)


def test_the_case_that_was_found():
    """4 rows that become 250,000: NumPy's view of the shape and that of the call part."""
    x = np.zeros((4, 2500), "f4")
    expected = xent.distillation_loss(x, x.copy(), temperature=2.0, reduction="none")
    result = xent.distillation_loss(x, x.copy(), temperature=Reshaping([x], 2.0), reduction="none")
    assert x.shape == (10000,)
    np.testing.assert_array_equal(result, expected)
