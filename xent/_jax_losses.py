"""For xent.jax: losses as JAX differentiates them.

Derivatives are formulas around calls of `_jax_calls`. Value and gradient are one call where a derivative is
asked for, and the value alone is one otherwise. A new loss of xent is a function in xent.jax, and a line here
where its derivatives are others than those of a loss of logits with a class axis.
"""

import functools
import inspect
import json
import numbers
from typing import NamedTuple

import jax  # type: ignore[import-not-found,unused-ignore]
import numpy as np

import xent

from . import _check
from ._jax_calls import run, value_of

jnp, lax = jax.numpy, jax.lax
SymbolicZero = jax.custom_derivatives.SymbolicZero


class Loss(NamedTuple):
    """A loss with its options: static, as a program is compiled for each."""

    name: str  # of the function of xent
    given: tuple[str, ...]  # names of its arrays, those first by which it has gradients
    options: str  # in JSON

    @property
    def layer(self):
        """Whether it is that of a linear layer: its gradients are by features, weights and bias."""
        return self.name == "linear_cross_entropy"

    @property
    def inputs(self):
        return sum(name in ("x", "weight", "bias") for name in self.given) if self.layer else 1

    @property
    def axis(self):
        return json.loads(self.options).get("axis", -1)

    @property
    def ranked(self):
        """Whether the result has a second part, of integers."""
        return json.loads(self.options).get("ranks", False)


def call(name, arrays, options):
    for option, value in options.items():
        if isinstance(value, jax.Array):
            raise TypeError(
                f"{option} is part of a compiled program: give a number of Python, no array of JAX"
            )
    for key in _required(name):
        if arrays[key] is None:
            raise TypeError(f"{key} must be an array, got None")
    given = {key: _array(value, key) for key, value in arrays.items() if value is not None}
    loss = Loss(name, tuple(given), json.dumps(options, default=_number))
    tensors = tuple(given.values())
    # complex ones stay, to be refused
    first = [t if jnp.issubdtype(t.dtype, jnp.inexact) else t.astype(float) for t in tensors[: loss.inputs]]
    tensors = (*first, *tensors[loss.inputs :])
    if name == "token_log_probs" or (loss.layer and options["reduction"] == "none"):
        return _deferred(loss, tensors)
    return _value(loss, tensors)


@functools.cache
def _required(name):
    """The arguments that a function of xent cannot do without."""
    parameters = inspect.signature(getattr(xent, name)).parameters.values()
    return [parameter.name for parameter in parameters if parameter.default is parameter.empty]


def _array(value, name):
    """An array of JAX; what would be read as something else, as masked arrays, is refused as by xent."""
    if _is_of_jax(value):
        return jnp.asarray(value)
    value, _ = _check.unconverted(value, name)
    value = value.astype(value.dtype.newbyteorder("="), copy=False)  # JAX knows no other order of bytes
    array = jnp.asarray(value)
    if value.dtype.kind in "iu" and array.dtype.itemsize < value.dtype.itemsize:
        _check_narrowed(value, array.dtype, name)
    return array


def _check_narrowed(value, dtype, name):
    """Raise where integers of 64 bits, which JAX has where it is told to, wrap around in 32."""
    bad = value.astype(dtype) != value
    if bad.any():
        where = int(bad.argmax())
        place = f"{name}{_check.index_of(where, value.shape)} is {value.reshape(-1)[where]}"
        raise ValueError(f"{place}, beyond {dtype}, which JAX makes of it unless jax_enable_x64 is set")


def _is_of_jax(value):
    """Whether this is an array of JAX, traced perhaps, or a list in which there is one."""
    if isinstance(value, (list, tuple)):
        return any(map(_is_of_jax, value))
    return isinstance(value, jax.Array) or hasattr(value, "__jax_array__")


def _number(option):
    """An option as JSON has it."""
    if isinstance(option, (np.generic, np.ndarray)):
        return option.item()
    if isinstance(option, numbers.Real):  # a fraction
        return float(option)
    raise TypeError(f"options must be numbers or words of Python, got {option!r}")


@functools.partial(jax.jit, static_argnums=0, inline=True)
@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(loss, tensors):
    return run(loss, "value", tensors, [value_of(loss, tensors)])[0]


def _value_jvp(loss, primals, tangents):
    """One pass for value and gradients. The derivative is their product with the tangents."""
    tensors, tangents = list(primals[0]), tangents[0]
    needs = _needs(loss, tangents)
    for k, tensor in enumerate(tensors[: loss.inputs]):
        if needs[k] and tensor.dtype == jnp.float16:
            # its gradients could be too small before a loss scale multiplies them
            tensors[k] = tensor.astype(jnp.float32)
    value, *grads = _both(loss, needs, tuple(tensors))
    return value, _along(loss, value, grads, [t for t, need in zip(tangents, needs, strict=False) if need])


_value.__wrapped__.defjvp(_value_jvp, symbolic_zeros=True)


def _needs(loss, tangents):
    """Which inputs are differentiated; raise if another argument is."""
    is_zero = [isinstance(t, SymbolicZero) for t in tangents]
    for name, zero in list(zip(loss.given, is_zero, strict=True))[loss.inputs :]:
        if not zero:
            cure = f"give jax.lax.stop_gradient({name})"
            raise TypeError(f"{name} is differentiated, and this loss has no gradient by it: {cure}")
    return tuple(not zero for zero in is_zero[: loss.inputs])


def _along(loss, value, grads, tangents):
    """The derivative of a loss along tangents."""
    total = 0.0
    for grad, tangent in zip(grads, tangents, strict=True):
        product = grad.astype(value.dtype) * tangent.astype(value.dtype)
        if value.ndim == 0:
            product = product.sum()
        elif loss.name != "sigmoid_cross_entropy":
            product = product.sum(axis=loss.axis)
        total += product
    return total


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _both(loss, needs, tensors):
    """The value and the gradients that are needed."""
    shapes = [t for t, need in zip(tensors, needs, strict=False) if need]
    return run(loss, "both", tensors, [value_of(loss, tensors), *shapes], needs)


@_both.defjvp
def _both_jvp(loss, needs, primals, tangents):
    (tensors,), (tangents,) = primals, tangents
    if loss.name != "cross_entropy":
        raise NotImplementedError(f"xent.jax.{loss.name} has no second derivatives")
    value, grad = _both(loss, needs, tensors)
    return (value, grad), (_along(loss, value, [grad], tangents[:1]), _product(loss, tensors, tangents[0]))


def _product(loss, tensors, vector):
    """The Hessian times a vector.

    JAX has to know that this is linear and symmetric in the vector, for the reverse of the reverse mode. It
    knows it of solutions of linear equations, however they are computed.
    """
    tensors = _last(loss, tensors)

    def product(_, v):
        return run(loss, "hvp", (*tensors, v), [v])[0]

    return lax.custom_linear_solve(lambda v: v, vector, product, symmetric=True)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _last(loss, tensors):
    """Arrays by which nothing is differentiated further: else the derivative would be 0 without a word."""
    return tensors


@_last.defjvp
def _last_jvp(loss, primals, tangents):
    order = "third" if loss.name == "cross_entropy" else "second"
    raise NotImplementedError(f"xent.jax.{loss.name} has no {order} derivatives")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _deferred(loss, tensors):
    """What has gradients that are sums over its elements, times what comes from above.

    Such are a layer's losses of each position, and log-probabilities of several classes of one.
    """
    results = [value_of(loss, tensors)]
    if loss.ranked:
        results.append(jax.ShapeDtypeStruct(results[0].shape, jnp.asarray(0).dtype))
    found = run(loss, "value", tensors, results)
    return found if loss.ranked else found[0]


def _deferred_fwd(loss, tensors):
    needs = _needs(loss, [None if t.perturbed else SymbolicZero(t.value) for t in tensors])
    tensors = tuple(t.value for t in tensors)
    return _deferred(loss, tensors), (tensors, tuple(() if need else None for need in needs))


def _deferred_bwd(loss, kept, upstream):
    tensors, needs = kept[0], tuple(need is not None for need in kept[1])
    upstream = upstream[0] if loss.ranked else upstream
    shapes = [t for t, need in zip(tensors, needs, strict=False) if need]
    grads = iter(run(loss, "grads", _last(loss, (*tensors, upstream)), shapes, needs))
    by_inputs = [next(grads) if need else None for need in needs]
    return ((*by_inputs, *[None] * (len(tensors) - len(needs))),)


_deferred.defvjp(_deferred_fwd, _deferred_bwd, symbolic_zeros=True)
