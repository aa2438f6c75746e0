"""What a peer is: one implementation of a family of operators, given its data.

A family says in a mixin which arrays each operator is given (`arguments`), an adapter how a library is called
(adapters.py), and a class of both has a method for each operator: a function of these arrays, in the words of
the library. The gradient of an operator need not be spelled where the library derives it.
"""

import inspect
import re
from functools import partial

import numpy as np

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


def prepare(peers, operator, data, chosen):
    """Return name -> call for the `chosen` names, and name -> reason for those that cannot do it here.

    `data` is what each implementation is made from. Each call has run once: a library may refuse a dtype, or
    fail to compile, only then.
    """
    calls, reasons = {}, {}
    for peer in peers:
        if peer.name not in chosen:
            continue
        if not peer.library:
            reasons[peer.name] = "not installed"
            continue
        try:
            call = peer(*data).call(operator)
            call()
            calls[peer.name] = call
        except Exception as error:  # whatever a library raises is its reason
            reasons[peer.name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100]}"
    return calls, reasons
