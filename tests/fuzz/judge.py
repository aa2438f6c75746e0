"""What may come of a call: the reference's result, or one of four errors that names an argument."""

import math
import warnings
import zlib

import ml_dtypes
import numpy as np
from helpers import Exporter

import xent

from .calls import Images, Layer, drawn, parameters_of
from .memory import Place, elements_meet
from .values import BEYOND, Odd, nonsense

ERRORS = (TypeError, ValueError, np.exceptions.AxisError)


class Finding(AssertionError):
    """A call that went wrong."""


def fuzz(seed, number, name, large=False):
    """Run one call of a function; return "ok", "refused" or "unjudged"."""
    rng = np.random.default_rng([seed, number, zlib.crc32(name.encode())])
    call = drawn(name, rng, large)
    places, given = _placed(call, rng)
    threads = int(rng.choice([1, 2, 5])) if large else None
    try:
        with warnings.catch_warnings(), np.errstate(all="raise" if rng.random() < 0.25 else "warn"):
            warnings.simplefilter("error")
            if threads is None:
                return _judged(call, places, given, rng)
            with xent.num_threads(threads):
                return _judged(call, places, given, rng)
    except Finding as finding:
        shown = {key: _shown(value) for key, value in given.items()}
        raise Finding(f"{name}({', '.join(f'{k}={v}' for k, v in shown.items())}): {finding}") from finding


def _shown(value):
    if isinstance(value, Exporter):
        return f"Exporter({_shown(value.array)})"
    if isinstance(value, np.ndarray):
        layout = f"{value.dtype} {value.shape} strides {value.strides} at {value.ctypes.data % 64}"
        return f"<{layout}: {value.tolist()}>" if value.size <= 12 else f"<{layout}>"
    return repr(value) if len(repr(value)) < 200 else repr(value)[:200]


def _placed(call, rng):
    """Arrays in odd places, some of them in containers."""
    places, given = {}, {}
    for key, value in call.arguments.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind in "OmM" or value.dtype.char == "V":
            given[key] = value
            continue
        # y belongs to x: one row of either must not stand for all
        alone = key != "y" and not (key == "x" and "y" in call.arguments)
        place = places[key] = Place(value, rng, odd=value.size < 10**5, repeats=alone)
        given[key] = place.array if rng.random() < 0.9 else _contained(place.array, rng)
    return places, given


def _contained(array, rng):
    plain = array.dtype.isnative and array.dtype.kind in "fiu" and array.dtype.name != "bfloat16"
    kinds = [lambda: Exporter(array)]
    if plain and array.dtype.itemsize == 8 and 0 < array.size < 1000:
        kinds += [array.tolist]
    if array.ndim == 0:
        kinds += [lambda: array[()]]
    if plain and array.flags.c_contiguous:
        kinds += [lambda: memoryview(array)]
    return kinds[rng.integers(len(kinds))]()


# ---- one call ----


def _judged(call, places, given, rng):
    result, error = _outcome(call.name, given)
    _check_inputs(places)
    if error is not None:
        return _judge_error(call, given, error)
    expected = _expected(call, places, given)
    if expected is not None:
        _compare(call, places, given, result, expected)
    if "out" in call.parameters:
        _with_out(call, places, given, result, expected, rng)
    elif rng.random() < 0.1:
        again, _ = _outcome(call.name, given)
        _same_bits(again, result, "a second call")
    return "ok" if expected is not None else "unjudged"


def _outcome(name, given):
    """(result, None) or (None, error)."""
    positional, named = [], dict(given)
    for key, parameter in parameters_of(name).items():
        if parameter.kind is parameter.KEYWORD_ONLY or key not in named:
            break
        positional.append(named.pop(key))
    try:
        return getattr(xent, name)(*positional, **named), None
    except MemoryError as error:
        return None, error
    except ERRORS as error:
        if type(error) not in ERRORS:
            raise Finding(f"{type(error).__name__} is no error of ours: {error}") from error
        return None, error
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise Finding(f"{type(error).__name__}: {error}") from error


def _check_inputs(places):
    for key, place in places.items():
        if not place.is_untouched():
            raise Finding(f"{key} was written to")


def _judge_error(call, given, error):
    geometry = ("height", "width") if isinstance(call, Images) else ()
    named = any(key in str(error) for key in (*parameters_of(call.name), *geometry, call.name))
    if not named and not isinstance(error, MemoryError):
        raise Finding(f"an error that names no argument: {type(error).__name__}: {error}")
    if call.valid and not _may_be_refused(call, error):
        raise Finding(f"refused though it is valid: {type(error).__name__}: {error}")
    return "refused"


def _may_be_refused(call, error):
    """Of what was drawn to be right: geometries, numbers that must be finite, positions without class."""
    if isinstance(call, Images) or call.style in BEYOND or 0 in getattr(call, "shape", ()):
        return True
    words = ("mean_batch", "reduction", "which this position has before", "needs more than one class")
    return any(word in str(error) for word in words)


# ---- the reference ----


def _expected(call, places, given):
    """What the reference makes of it in float64, or None where it has no answer."""
    if call.name == "prepare_conv2d" or not call.valid:
        return None
    try:
        return _reference(call.name, _widened(places, given))
    except Exception as error:
        raise Finding(f"the reference does not take it: {type(error).__name__}: {error}") from error


def _reference(name, given):
    with np.errstate(all="ignore"):
        return _leaves(getattr(xent.reference, name)(**given))


def _widened(places, given):
    wide = {}
    for key, value in given.items():
        array = places[key].array if key in places else value
        if isinstance(array, np.ndarray) and (array.dtype.kind == "f" or array.dtype.name == "bfloat16"):
            with np.errstate(all="ignore"):
                array = array.astype(np.float64)
        wide[key] = float(array) if isinstance(array, np.floating) and array.ndim == 0 else array
    return wide


def _leaves(result):
    """All arrays and numbers of a result."""
    if result is None or isinstance(result, (str, bytes)):
        return []
    if isinstance(result, (tuple, list)):
        return [leaf for part in result for leaf in _leaves(part)]
    if isinstance(result, (np.ndarray, np.generic, int, float)):
        return [np.asarray(result)]
    if isinstance(result, xent.PreparedWeight):
        return []
    return [leaf for part in vars(result).values() for leaf in _leaves(part)]


PERTURBATIONS, BACKWARD = 3, 64  # of the inputs; how many times the change that they make an error may be


def _compare(call, places, given, result, expected):
    """Hold a result against the reference's: see `tolerance`."""
    found, eps = _leaves(result), _eps(places)
    if len(found) != len(expected):
        raise Finding(f"{len(found)} results, the reference has {len(expected)}")
    moved = None
    for k, (a, e) in enumerate(zip(found, expected, strict=True)):
        if a.shape != e.shape:
            raise Finding(f"result {k} has shape {a.shape}, the reference {e.shape}")
        if call.style in BEYOND or _agree(a, e, eps, 0.0).all():
            continue
        if moved is None:
            moved = [_moved(call, places, given, np.random.default_rng(n)) for n in range(PERTURBATIONS)]
        with np.errstate(all="ignore"):
            off = np.max([np.abs(np.asarray(m[k], np.float64) - e) for m in moved], axis=0)
            largest = np.max(np.abs(e[np.isfinite(e)]), initial=0.0)
        slack = BACKWARD * (np.where(np.isfinite(off), off, np.inf) + _floor(call, eps) * max(largest, 1.0))
        right = _agree(a, e, eps, slack)
        if not right.all():
            where = np.unravel_index(int(np.argmin(right)), e.shape)
            raise Finding(
                f"result {k}{[int(i) for i in where]} is {a[where]!r}, "
                f"the reference's {e[where]!r}, +- {slack[where]:.2g}"
            )


def _floor(call, eps):
    """What a rounding of intermediate numbers of about 1 is: the reference's own, and less in floats.

    The squared temperature of a distillation multiplies it, a temperature below 1 divides gradients. Where
    incoming gradients are added up, and cancel, it is one of their magnitudes. Scores of a layer are sums of
    products, and its gradients sums over positions, whose roundings add up as in a random walk.
    """
    temperature = float(call.arguments.get("temperature", 1.0))
    size = max(temperature**2, 1 / temperature, 1.0)
    if call.name.endswith("softmax_backward"):
        grad = np.abs(np.asarray(call.arguments["grad"]).astype(np.float64))
        size = max(size, np.sum(grad[np.isfinite(grad)]))
    if isinstance(call, Layer):
        x, weight = (np.abs(np.asarray(call.arguments[k]).astype(np.float64)) for k in ("x", "weight"))
        rows = x.reshape(-1, x.shape[-1])
        return (
            max(2.0**-52, eps)
            * size
            * max(np.max(rows @ weight.T, initial=1.0), 1.0)
            * sum(rows.shape) ** 0.5
        )
    return max(2.0**-52, eps / 64) * size


def _eps(places):
    """Of the type that is computed in: floats where anything is less than a double."""
    kinds = {place.array.dtype.itemsize for place in places.values() if place.array.dtype.kind not in "iub"}
    return 2.0**-23 if kinds & {2, 4} else 2.0**-52


def _moved(call, places, given, rng):
    """The reference's results for inputs that are a rounding away.

    A loss or gradient is computed well if it is that of inputs which are a few roundings away, whatever
    cancels in it. How far such inputs move the result is found by trying some.
    """
    wide, eps = _widened(places, given), _eps(places)
    for key, value in wide.items():
        if isinstance(value, np.ndarray) and value.dtype == np.float64:
            with np.errstate(all="ignore"):  # of numbers next to 0
                wide[key] = value * (1 + eps * rng.uniform(-1, 1, value.shape))
    try:
        return _reference(call.name, wide)
    except Exception:  # a probability beyond 1, say
        return [np.full(e.shape, np.nan) for e in _expected(call, places, given)]


def _agree(a, e, eps, slack):
    """Where a result is the reference's, up to 16 roundings of what was computed, its own, and a slack."""
    if a.dtype.kind in "iub":
        return (a == e) | (np.asarray(slack) > 0.5)
    info = ml_dtypes.finfo(a.dtype)
    with np.errstate(all="ignore"):
        x, e = a.astype(np.float64), np.asarray(e, np.float64)
        rounding = (0.51 * float(info.eps) + 16 * eps) * np.abs(e) + 4 * float(info.smallest_subnormal)
        near = np.abs(x - e) <= rounding + slack
        beyond = (np.abs(e) * 1.01 + slack >= float(info.max)) & (np.sign(x) == np.sign(e))
        return near | (x == e) | (np.isnan(x) & np.isnan(e)) | beyond | np.isinf(slack)


def _same_bits(found, expected, what):
    for a, e in zip(_leaves(found), _leaves(expected), strict=True):
        if (a.dtype, a.shape) != (e.dtype, e.shape) or a.tobytes() != e.tobytes():
            raise Finding(f"{what} gives other bits")


# ---- results in the caller's memory ----


def _with_out(call, places, given, result, expected, rng):
    """The same call with `out`, which may be anything."""
    parts = _parts_of_out(call.name, result)
    rooms = [None if part is None else Place(np.zeros(part.shape, part.dtype), rng) for part in parts]
    wrong = rng.random() < 0.25
    arrays = [_wrong_out(room, places, rng) if wrong and room else room and room.array for room in rooms]
    before = [a.copy() if isinstance(a, np.ndarray) else None for a in arrays]
    out = tuple(arrays) if _takes_tuple(call.name) else arrays[0]
    got, error = _outcome(call.name, given | {"out": out})
    if error is not None:
        _check_inputs(places)
        if not all(room is None or room.is_untouched() for room in rooms):
            raise Finding(f"out was written to before {error}")
        fits = not wrong and all(r is None or _can_take(r.array) for r in rooms)
        if fits:
            raise Finding(f"out was refused though it is right: {error}")
        if "out" not in str(error) and not isinstance(error, MemoryError):
            raise Finding(f"an error of out that does not say so: {error}")
        return
    for room in rooms:
        if room is not None and not room.is_untouched_around():
            raise Finding("memory around out was written to")
    if not wrong and any(r is not None and not _can_take(r.array) for r in rooms):
        raise Finding("out that cannot take a result was taken")
    parts = _parts_of_out(call.name, got)
    if not all(a is None or a is p for a, p in zip(arrays, parts, strict=True)):
        raise Finding("the result is not out")
    made = [leaf.copy() for leaf in _leaves(got)]
    for array, was in zip(arrays, before, strict=True):
        if was is not None:
            array[...] = was
    _check_inputs(places)  # but for what is out itself
    if expected is not None:
        _compare(call, places, given, made, expected)


def _can_take(array):
    return array.flags.writeable and not elements_meet(array) and array.dtype.isnative


def _wrong_out(room, places, rng):
    """Something that cannot take the result, or may: an input, a part of one, another shape or dtype."""
    array, others = room.array, [p.array for p in places.values() if p.array.size]
    kinds = [
        lambda: nonsense(rng),
        lambda: array[..., np.newaxis],
        lambda: array[:0] if array.ndim else array.reshape(1),
    ]
    kinds += [
        lambda: np.zeros(array.shape, "f8" if array.dtype != np.float64 else "f4"),
        lambda: array.tolist(),
        Odd,
    ]
    if others:
        other = others[rng.integers(len(others))]
        kinds += [
            lambda: other,
            lambda: other[..., ::-1] if other.ndim else other,
            lambda: _overlapping(other, array),
        ]
    return kinds[rng.integers(len(kinds))]()


def _overlapping(other, array):
    """An array like another one that begins one element inside of an input."""
    base = other
    while isinstance(base.base, np.ndarray):
        base = base.base
    step = math.prod(array.shape) * array.itemsize
    start = other.ctypes.data - base.ctypes.data + array.itemsize
    if base.dtype != np.uint8 or start % array.itemsize or start + step > base.nbytes or start < 0:
        return other
    return np.ndarray(array.shape, array.dtype.newbyteorder("="), base, start)


def _takes_tuple(name):
    return name.endswith("_grad_hess") or (name.startswith("conv") and name.endswith("_backward"))


def _parts_of_out(name, result):
    """What `out` is of a result."""
    if _takes_tuple(name):
        return list(result)
    if isinstance(result, tuple):
        return [result[1 if name.endswith("value_and_grad") else 0]]
    return [result]
