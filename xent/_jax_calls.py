"""For xent.jax: calls of xent from compiled programs of JAX, and the shapes of what they return.

A call is a foreign function of the compiled program: XLA gives the memory of arguments and results to
`_compute`, which knows NumPy alone. `_xla` is how XLA calls it.
"""

import functools
import json
import math

import jax  # type: ignore[import-not-found,unused-ignore]
import numpy as np

import xent

from . import _xla
from ._tokens import log_probs_grad

# ---- calls of compiled programs ----


def run(loss, what, tensors, results, needs=(True,)):
    """Results, of these shapes and dtypes, of what `_compute` does when the program runs."""
    call = {"loss": loss, "what": what, "needs": needs, "dims": [t.ndim for t in tensors]}
    shapes = [jax.ShapeDtypeStruct(r.shape, r.dtype) for r in results]
    foreign = jax.ffi.ffi_call(_TARGET, shapes, vmap_method="expand_dims")
    return tuple(foreign(*tensors, call=json.dumps(call)))


def _compute(text, arrays, results):
    """Run a call, or one for each entry of a batch, of which each has its own mean. NumPy alone."""
    job = _job(text)
    batch = arrays[0].ndim - job.dims[0]
    if not batch:
        return job(arrays, results)
    for index in np.ndindex(results[0].shape[:batch]):
        # what is not batched has one entry
        entries = [a[tuple(i if n > 1 else 0 for i, n in zip(index, a.shape, strict=False))] for a in arrays]
        job(entries, [r[(*index, ...)] for r in results])


class _Job:
    """A call of xent, from arrays of NumPy to such arrays."""

    def __init__(self, loss, what, needs, dims):
        name, given, options = loss
        self.what, self.dims, self.options = what, dims, _options(options)
        if name == "token_log_probs":
            self.function = xent.token_log_probs if what == "value" else log_probs_grad
        else:
            self.function = getattr(xent, name + {"value": "", "hvp": "_hvp"}.get(what, "_value_and_grad"))
        self.names = (*given, *{"hvp": ["vector"], "grads": ["grad_output"]}.get(what, []))
        layer = name == "linear_cross_entropy"
        self.in_place = what == "both" and not layer
        if what == "grads":
            self.options.pop("ranks", None)
        if layer and what != "value":
            self.options["needs"] = (*needs, *[False] * (3 - len(needs)))

    def __call__(self, arrays, results):
        given = dict(zip(self.names, arrays, strict=True), **self.options)
        if self.in_place:
            given["out"] = results[1]
        for result, value in zip(results, self.values(self.function(**given)), strict=False):
            result[...] = value

    def values(self, returned):
        """What is still to be written."""
        if not isinstance(returned, tuple):
            return [returned]
        if self.what == "value":
            return returned
        value, grads = returned
        if self.in_place:
            return [value]
        grads = [grad for grad in grads if grad is not None]
        return grads if self.what == "grads" else [value, *grads]


@functools.lru_cache(4096)
def _job(text):
    return _Job(**json.loads(text))


def _options(text):
    options = json.loads(text)
    if isinstance(options.get("ignore_index"), list):
        options["ignore_index"] = tuple(options["ignore_index"])
    return options


# ---- shapes ----


def value_of(loss, tensors):
    """The shape and dtype of the value; raises what xent raises for shapes, dtypes and options."""
    shape, dtype = _value_shape(loss, tuple((t.shape, np.dtype(t.dtype)) for t in tensors))
    return jax.ShapeDtypeStruct(shape, dtype)


@functools.lru_cache(4096)
def _value_shape(loss, arrays):
    """What xent makes of small stand-ins, whose sizes are equal and larger where those of the arrays are.

    Sizes without a number, as jax.export has them, are told apart, and larger than all others.
    """
    sizes = dict.fromkeys(n for shape, _ in arrays for n in shape if not (isinstance(n, int) and n < 2))
    sizes = sorted(sizes, key=lambda n: n if isinstance(n, int) else math.inf)
    small = {0: 0, 1: 1} | {n: 2 + k for k, n in enumerate(sizes)}
    large = {k: n for n, k in small.items()}
    options, function = _options(loss.options), getattr(xent, loss.name)

    def call(size):
        stand_ins = [
            _stand_in(name, tuple(map(size, shape)), dtype)
            for name, (shape, dtype) in zip(loss.given, arrays, strict=True)
        ]
        found = function(**dict(zip(loss.given, stand_ins, strict=True)), **options)
        return np.asarray(found[0] if loss.ranked else found)

    try:
        value = call(small.get)
    except (TypeError, ValueError):
        if all(isinstance(n, int) for n in sizes):
            call(int)  # raises before it computes, with the sizes that the caller knows
        raise
    return tuple(large[n] for n in value.shape), value.dtype


def _stand_in(name, shape, dtype):
    """An array that takes no memory."""
    if name == "teacher_ids":  # no class twice
        return np.broadcast_to(np.arange(shape[-1] if shape else 1, dtype=dtype), shape)
    return np.broadcast_to(np.zeros((), dtype) if dtype.kind in "iub" else np.ones((), dtype), shape)


_TARGET = "xent"
_HANDLER = _xla.handler(_compute)  # kept: XLA has its address alone
jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(_HANDLER), platform="cpu")
