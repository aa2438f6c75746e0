"""What a peer is: one implementation of a family of operators, given its data.

A family says in a mixin which arrays each operator is given (`arguments`), an adapter how a library is called
(adapters.py), and a class of both has a method for each operator: a function of these arrays, in the words of
the library. The gradient of an operator need not be spelled where the library derives it.
"""

import inspect
import re
from functools import partial

import numpy as np

# Results that differ by more than this share of the largest number are not of the same thing. Both are
# several times what rounding does: of sums of float32, and of bfloat16, which is off by up to 2**-8. How
# accurate results are is another question (accuracy.py).
SAME, SAME_IN_16_BITS = 1e-3, 2**-5
# "conv2d forward+backward" and "..._value_and_grad", which an option may follow.
GRADIENT = re.compile(r"_value_and_grad| forward\+backward")


def _identifier(operator):
    return re.sub(r"\W+", "_", operator)


def with_output(function, arrays):
    """Return arrays and, for a function whose last parameter is `out`, its result, which is reused.

    By position, because Python takes a sixth of a microsecond longer to pass a keyword on.
    """
    return (*arrays, function(*arrays)) if "out" in inspect.signature(function).parameters else arrays


class Peer:
    """One implementation, given its data as NumPy arrays."""

    library = True  # the module, None where it is not installed
    value_and_grad = None  # as `value`, for a function and its gradients, where the library derives these
    gradients = 1  # those by so many of the first arrays
    compared = False  # whether the numbers of the results are to be those of the table's first

    def arguments(self, operator):
        """Return the NumPy arrays that an operator is given."""
        raise NotImplementedError

    def convert(self, array):
        """Return a NumPy array as what the library takes."""
        return array

    def value(self, function, *arrays):
        """Return the call of a function that is timed; it is done when its results can be read."""
        return partial(function, *with_output(function, arrays))

    def result(self, result):
        """Return what a function returned as a NumPy array."""
        return np.asarray(result)

    def numbers(self, result):
        """Return the numbers of a result as NumPy arrays."""
        return [self.result(part) for part in (result if isinstance(result, tuple | list) else [result])]

    @classmethod
    def method(cls, operator):
        """Return the name of the method that has an operator, or that its gradients derive from, or None."""
        spelled, plain = _identifier(operator), _identifier(GRADIENT.sub("", operator))
        if hasattr(cls, spelled):
            return spelled
        return plain if cls.value_and_grad and hasattr(cls, plain) else None

    @classmethod
    def has(cls, operator):
        """Whether this implementation has an operator."""
        return cls.method(operator) is not None

    def call(self, operator):
        """Return the call of an operator that is timed."""
        name = self.method(operator)
        timed = self.value if name == _identifier(operator) else self.value_and_grad
        return timed(getattr(self, name), *map(self.convert, self.arguments(operator)))


def names(peers, operator):
    """Return the names of the implementations that have an operator."""
    return [peer.name for peer in peers if peer.has(operator)]


def check(numbers, expected):
    """Raise ValueError where the numbers of two results are not the same."""
    for ours, theirs in zip(expected, numbers, strict=True):
        if ours.shape != theirs.shape:
            raise ValueError(f"the result is {theirs.shape}, not {ours.shape}")
        limit = SAME_IN_16_BITS if ours.dtype.itemsize == 2 else SAME
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        error, largest = np.abs(theirs - ours).max(), np.abs(ours).max()
        if not error <= limit * largest:
            raise ValueError(f"the result differs by {error:.2g} where the largest number is {largest:.2g}")


def prepare(peers, operator, data, chosen):
    """Return name -> call for the `chosen` names, and name -> reason for those that cannot do it here.

    `data` is what each implementation is made from. Each call has run once: a library may refuse a dtype, or
    fail to compile, only then. Where results are compared, one that differs is a reason too.
    """
    calls, reasons, expected = {}, {}, None
    for peer in peers:
        if peer.name not in chosen:
            continue
        if not peer.library:
            reasons[peer.name] = "not installed"
            continue
        try:
            implementation = peer(*data)
            call = implementation.call(operator)
            result = call()
            if peer.compared:
                numbers = implementation.numbers(result)
                expected = expected or numbers
                check(numbers, expected)
            calls[peer.name] = call
        except Exception as error:  # whatever a library raises is its reason
            reasons[peer.name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100]}"
    return calls, reasons
