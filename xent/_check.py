"""Every error that a user can see is raised here, before anything is computed or written.

A check returns what it checked in the form that the kernels take. Messages name the argument, what was
expected, what came.
"""

import math
import operator

import numpy as np
from numpy.exceptions import AxisError

from ._arrays import as_array

F16, F32, F64 = np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64)


# ---- data ----


def floats(value, name):
    """Return an aligned array of native floats that the kernels know; integers and bools become float64."""
    array = as_array(value, name)
    dtype = _compute_dtype(array.dtype, name)
    if array.dtype != dtype or not array.dtype.isnative or not array.flags.aligned:
        array = array.astype(dtype)
    return array


def unconverted(value, name):
    """Return an array as it came, and the dtype that `floats` would give it: for what is read in parts."""
    array = as_array(value, name)
    return array, _compute_dtype(array.dtype, name)


def _compute_dtype(dtype, name):
    if dtype is F32 or dtype is F64:  # the quick yes
        return dtype
    if dtype.kind in "iub":
        return F64
    if dtype.kind == "f" and dtype.itemsize <= 8:
        return dtype.newbyteorder("=")
    if dtype.name == "bfloat16" and dtype.itemsize == 2:  # of ml_dtypes: known by its name, never imported
        return dtype.newbyteorder("=")
    known = "float16, bfloat16, float32, float64, integers or bools"
    raise TypeError(f"{name} must be real numbers ({known}), got dtype {dtype}{_as_known(dtype, name)}")


def _as_known(dtype, name):
    """Return how to make a dtype that is known of one that is not, where that means the same."""
    if dtype.fields is not None:
        return f"; numpy.lib.recfunctions.structured_to_unstructured({name}) makes columns of its fields"
    if dtype.kind == "f":
        return f"; np.asarray({name}, np.float64) rounds them"
    if dtype.kind in "UST":
        return f"; np.asarray({name}, np.float64) makes numbers of digits"
    small = dtype.kind == "V" and dtype.name.startswith(("float", "int", "uint"))  # of ml_dtypes
    return f"; np.asarray({name}, np.float32) holds them all" if small else ""


def loss_dtype(dtype):
    """Return the dtype of losses and log-sum-exps: float64 for float64, else float32."""
    return F64 if dtype == F64 else F32


def narrowed(array, dtype):
    """Convert to a dtype that may be too small for a value, which then becomes infinite."""
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore", under="ignore"):
        if dtype == np.float16:
            # NumPy reports each number that it makes a rounded subnormal of, which takes a hundred times as
            # long as the rest. Multiples of 2^-24, the distance of these, have been rounded before.
            small = np.abs(array) < 2.0**-14
            if small.any():
                array = np.where(small, np.rint(array * 2.0**24) * 2.0**-24, array)
        return array.astype(dtype)


def common_floats(*arguments):
    """Return the arrays of (value, name) pairs in their common floating dtype."""
    arrays = [floats(value, name) for value, name in arguments]
    first = arrays[0].dtype
    if all(a.dtype is first for a in arrays):  # the quick yes
        return arrays
    dtypes = {a.dtype for a in arrays}
    if F16 in dtypes and len(dtypes) > 1:  # NumPy has no common dtype of both 16-bit floats
        dtypes.add(F32)
        dtypes.discard(F16)
    common = np.result_type(*dtypes)
    return [a.astype(common, copy=False) for a in arrays]


def with_bias(x, weight, bias):
    """Return images, kernels and a bias, or None, in their common floating dtype.

    A bias of Python numbers has no dtype of its own, and takes that of the others.
    """
    if bias is not None and not has_no_dtype(bias):
        return common_floats((x, "x"), (weight, "weight"), (bias, "bias"))
    x, weight = common_floats((x, "x"), (weight, "weight"))
    return x, weight, None if bias is None else narrowed(floats(bias, "bias"), x.dtype)


def has_no_dtype(value):
    """Whether this is a Python number, or a list or tuple."""
    return isinstance(value, (int, float, list, tuple)) and not isinstance(value, np.generic)


def layer(x, weight, bias):
    """Raise unless x (..., D), weight (C, D) and bias (C,) or None make a linear layer."""
    if weight.ndim != 2:
        raise ValueError(f"weight must have 2 dimensions, (classes, features), got shape {weight.shape}")
    classes, features = weight.shape
    if x.ndim == 0 or x.shape[-1] != features:
        turned = x.ndim and x.shape[-1] == classes
        hint = "; weight must be (classes, features): give weight.T" if turned else ""
        got = f"got shape {x.shape}{hint}"
        raise ValueError(f"x must have {features} features on its last axis, as weight, {got}")
    if bias is not None:
        one_per_class(bias, classes, "bias")


def one_per_class(array, classes, name):
    """Raise unless an array has the shape (classes,)."""
    if array.shape != (classes,):
        hint = _reshaped(name, array.shape, (classes,))
        expected = f"one number per class, shape ({classes},)"
        raise ValueError(f"{name} must have {expected}, got {array.shape}{hint}")


def images(array, name, axes="(N, C, H, W)"):
    """Raise unless an array has these axes."""
    ndim = axes.count(",") + 1
    if array.ndim != ndim:
        hint = f"; for a batch of one give {name}[np.newaxis]" if array.ndim == ndim - 1 else ""
        raise ValueError(f"{name} must have {ndim} dimensions, {axes}, got shape {array.shape}{hint}")
    return array


def taps(weight):
    """Raise unless the kernels of a convolution have taps."""
    if 0 in weight.shape[2:]:
        raise ValueError(f"weight must have at least one tap, got shape {weight.shape}")


def same_shape(array, shape, name, of):
    """Raise unless `array` has the shape of `of`."""
    if array.shape != shape:
        hint = _reshaped(name, array.shape, shape)
        raise ValueError(f"{name} must have the shape of {of}, {shape}, got {array.shape}{hint}")


def _reshaped(name, shape, wanted):
    """Return how an array gets a shape that it has but for axes of length 1."""
    if [n for n in shape if n != 1] != [n for n in wanted if n != 1]:
        return ""
    return f": give np.reshape({name}, {wanted})"


def misfit(name, shape, logits, axis):
    """Return what makes an array fit that has not the shape of the positions: a reshape, or another axis.

    That of labels beside logits (N, C, H, W) is what PyTorch takes for granted.
    """
    hint = _reshaped(name, shape, positions_of(logits, axis))
    other = None if hint else fitting_axis(shape, logits)
    return hint if other is None else f", which would fit if the classes were axis {other}, not {axis}"


def fitting_axis(shape, logits):
    """Return the first axis of classes beside which a shape is that of the positions, or None."""
    axes = range(len(logits)) if len(logits) > 2 else ()
    return next((axis for axis in axes if shape == positions_of(logits, axis)), None)


def output(out, shape, dtype, inputs, in_place=0, called="out"):
    """Raise unless `out` can take a result.

    `inputs` are (array or None, name) pairs, as the kernels will read them: whatever a user's object shares
    its memory with, the array made of it shows. `out` may be one of the first `in_place` of them.
    """
    if not isinstance(out, np.ndarray):
        hint = f": {called}.numpy() shares its memory" if hasattr(out, "numpy") else ""  # PyTorch
        raise TypeError(f"{called} must be a NumPy array, got {type(out).__name__}{hint}")
    out = np.ndarray.view(out, np.ndarray)  # a subclass may say anything of its shape and dtype
    if out.shape != shape:
        raise ValueError(f"{called} must have shape {shape}, got {out.shape}")
    if out.dtype != dtype:
        raise ValueError(f"{called} must have dtype {dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError(f"{called} must be writeable, got a read-only array")
    if not _lies_apart(out):
        raise ValueError(f"{called} must have elements that share no memory, got strides {out.strides}")
    for index, (array, name) in enumerate(inputs):
        allowed = index < in_place
        if array is None or (allowed and _is_same_memory(out, array)):
            continue
        if _share_memory(out, array):
            hint = f" or be {name} itself" if allowed else ""
            raise ValueError(f"{called} overlaps {name} in memory: it must lie apart from it{hint}")


def outputs(out, needs, shapes, dtype, inputs):
    """Return a tuple of arrays for results, None where there is none; raise unless each can take its result.

    They are for the results that `needs` wants, and lie apart from each other.
    """
    if out is None:
        return (None,) * len(needs)
    if not isinstance(out, (tuple, list)):
        raise TypeError(f"out must be a tuple of {len(needs)} arrays or None, got {type(out).__name__}")
    if len(out) != len(needs):
        raise ValueError(f"out must be a tuple of {len(needs)} arrays or None, got {len(out)}")
    taken = list(inputs)
    for k, (array, needed, shape) in enumerate(zip(out, needs, shapes, strict=True)):
        if array is None:
            continue
        if not needed:
            raise ValueError(f"out[{k}] must be None where needs[{k}] is False")
        output(array, shape, dtype, taken, called=f"out[{k}]")
        taken.append((array, f"out[{k}]"))
    return tuple(out)


def _lies_apart(out):
    from . import _kernels  # which is loaded, but needs this module first

    return _kernels.lies_apart(out)


def _is_same_memory(a, b):
    return a is b or (a.shape == b.shape and a.strides == b.strides and a.ctypes.data == b.ctypes.data)


def _share_memory(a, b):
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=100_000)
    except np.exceptions.TooHardError:  # strides so odd that the question is hard: take it for an overlap
        return True


# ---- options ----


def axis_of(axis, ndim, name="axis"):
    """Return `axis` counted from the front."""
    if type(axis) is int and -ndim <= axis < ndim:
        return axis + ndim if axis < 0 else axis
    index = integer(axis, name)
    if not -ndim <= index < ndim:
        raise AxisError(f"{name} {index} is out of bounds for an array of {ndim} dimensions")
    return index + ndim if index < 0 else index


def axes_of(axis, ndim):
    """Return a tuple of axes counted from the front; None means all."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(axis_of(a, ndim) for a in axis) if isinstance(axis, tuple) else (axis_of(axis, ndim),)
    if len(set(axes)) != len(axes):
        raise ValueError(f"axis must not name an axis twice, got {axis}")
    return axes


def real(value, name, low=-math.inf, high=math.inf, open_low=False):
    """Return a finite float in [low, high], or (low, high] with `open_low`."""
    if type(value) is float and (low < value or (low == value and not open_low)):
        if value <= high and value < math.inf:  # the quick yes
            return value
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if isinstance(value, np.ndarray) and value.ndim:  # of one element NumPy takes some, with a warning
        raise TypeError(f"{name} must be a number, got an array of shape {value.shape}")
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(f"{name} records gradients, which would be lost without a word: give {name}.item()")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}") from None
    except OverflowError:
        number = math.inf
    inside = low < number <= high if open_low else low <= number <= high
    if not inside or not math.isfinite(number):
        bounds = (
            f"{'>' if open_low else '>='} {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        )
        raise ValueError(f"{name} must be a finite number {bounds}, got {value}")
    return number


def integer(value, name, low=None, high=None):
    """Return an int, at least `low` and at most `high`."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got a bool")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None
    if low is not None and number < low:
        raise ValueError(f"{name} must be at least {low}, got {number}")
    if high is not None and number > high:
        raise ValueError(f"{name} must be at most {high}, got {number}")
    return number


def label_value(value, name):
    """Return an int that a label can have."""
    if type(value) is int and -(2**63) <= value < 2**63:  # the quick yes
        return value
    number = integer(value, name)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{name} must fit into 64 bits with a sign, got {number}")
    return number


def ignored(value, name="ignore_index"):
    """Return an int that a label can have; of a tuple: None for none, a tuple for several."""
    if not isinstance(value, tuple):
        if not hasattr(type(value), "__index__"):
            kind = type(value).__name__
            raise TypeError(f"{name} must be an integer or a tuple of integers, got {kind}")
        return label_value(value, name)
    values = tuple(dict.fromkeys(label_value(v, f"{name}[{k}]") for k, v in enumerate(value)))
    return values if len(values) > 1 else values[0] if values else None


def one_ignored(values):
    """Return the one that stands for all in labels that `labels_of` has seen."""
    return values[0] if isinstance(values, tuple) else values


def per_class(value, classes, name, positive=False):
    """Return a contiguous float64 array of one finite number per class, or even positive."""
    array = np.asarray(floats(value, name), dtype=F64, order="C")
    one_per_class(array, classes, name)
    return _in_range(array, name, positive) if positive else _finite(array, name)


def sample_weights(value, positions):
    """Return a contiguous float64 array of one finite number per position."""
    array = np.asarray(floats(value, "sample_weight"), dtype=F64, order="C")
    same_shape(array, positions, "sample_weight", "the positions")
    return _finite(array, "sample_weight")


def _finite(array, name):
    """Return an array of finite numbers."""
    bad = ~np.isfinite(array)
    if bad.any():
        where = int(bad.argmax())
        got = f"{name}{index_of(where, array.shape)} = {array.flat[where]}"
        raise ValueError(f"{name} must be finite, got {got}")
    return array


def _in_range(array, name, positive=False):
    """Return an array of finite numbers, not negative or even positive."""
    bad = ~(np.isfinite(array) & ((array > 0) if positive else (array >= 0)))
    if bad.any():
        where = int(bad.argmax())
        expected = "finite and positive" if positive else "finite and not negative"
        got = f"{name}{index_of(where, array.shape)} = {array.flat[where]}"
        raise ValueError(f"{name} must be {expected}, got {got}")
    return array


def factors(value, name, shape, of, signed=False):
    """Return finite factors that broadcast to a shape, that of `of`; not negative unless `signed`."""
    array = floats(value, name)
    if array.ndim > len(shape) or not _broadcasts(array.shape, shape):
        raise ValueError(f"{name} must broadcast to the shape of {of}, {shape}, got {array.shape}")
    if array.dtype not in (F32, F64):
        array = array.astype(F32)
    return _finite(array, name) if signed else _in_range(array, name)


def _broadcasts(shape, to):
    try:
        return np.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def per_position(value, name, shape, axes):
    """Return floats that have one number for each position of a shape, whose `axes` are summed over or 1."""
    array = floats(value, name)
    positions = tuple(n for k, n in enumerate(shape) if k not in axes)
    if array.shape != positions and array.shape != tuple(1 if k in axes else n for k, n in enumerate(shape)):
        same_shape(array, positions, name, "the positions")
    return array


def upstream(grad_output, shape, dtype=F64):
    """Return (factor, None) for a scalar loss, (1, array of a dtype in C order) for unreduced losses."""
    array = floats(grad_output, "grad_output")
    same_shape(array, shape, "grad_output", "the loss")
    if shape == ():
        return float(array), None
    with np.errstate(over="ignore", under="ignore"):
        return 1.0, np.asarray(array, dtype=dtype, order="C")


def inside(value, name, high):
    """Return a float in the open interval (0, high)."""
    number = real(value, name, 0.0, high)
    if number in (0.0, high):
        raise ValueError(f"{name} must be between 0 and {high:g}, without these, got {value}")
    return number


def base(value):
    """Return the base of a logarithm."""
    number = real(value, "base", 0.0, open_low=True)
    if number == 1.0:
        raise ValueError("base must be a finite number > 0 other than 1, got 1")
    return number


def flag(value, name):
    """Return a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}")
    return bool(value)


def needs(value, results):
    """Return a tuple of bools, one for each of some results."""
    expected = f"needs must be {len(results)} bools, for {', '.join(results)}"
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{expected}, got {type(value).__name__}")
    if len(value) != len(results):
        raise ValueError(f"{expected}, got {len(value)}: {value!r}")
    return tuple(flag(needed, f"needs[{k}]") for k, needed in enumerate(value))


def top_k(value):
    """Return a tuple of ints."""
    if not isinstance(value, (tuple, list)):
        value = np.atleast_1d(value) if isinstance(value, np.ndarray) else (value,)
    return tuple(integer(k, "top_k", 1) for k in value)


def confusion(value):
    """Return whether a confusion matrix is wanted, or "per_class" for the numbers of each class alone."""
    if isinstance(value, str):
        if value != "per_class":
            raise ValueError(f"confusion must be True, False or 'per_class', got {value!r}")
        return str(value)
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"confusion must be True, False or 'per_class', got {type(value).__name__}")
    return bool(value)


# Factors of U p (1 - p); "absolute" is another thing.
_CURVATURES = {"diagonal": 1.0, "gauss_newton": 1.0, "upper": 2.0, "friedman": None, "absolute": 0.0}


def hessian_name(hessian):
    """Return the name of a rule of second derivatives as a plain string."""
    if not isinstance(hessian, str):
        raise TypeError(f"hessian must be a string, got {type(hessian).__name__}")
    hessian = str.__str__(hessian)
    if hessian not in _CURVATURES:
        raise ValueError(f"hessian must be one of {', '.join(_CURVATURES)}, got {hessian!r}")
    return hessian


def binary_hessian(hessian):
    """Return the name of a rule of second derivatives of independent classes."""
    if not isinstance(hessian, str):
        raise TypeError(f"hessian must be a string, got {type(hessian).__name__}")
    if hessian not in ("diagonal", "gauss_newton", "absolute"):
        raise ValueError(f"hessian must be one of diagonal, gauss_newton, absolute, got {hessian!r}")
    return str.__str__(hessian)


def curvature(hessian, classes):
    """Return the factor of the second derivatives by a rule; 0 for the size of the gradient."""
    if hessian != "friedman":
        return _CURVATURES[hessian]
    if classes == 1:
        raise ValueError('hessian="friedman" needs more than one class: its factor is C / (C - 1)')
    return classes / max(classes - 1, 1)


# ---- targets ----


def target_of(target, shape, dtype, axis, ignore_index, name="logits"):
    """Return (labels, None), as `labels_of`; or (None, probabilities), as `target_like`."""
    array = as_array(target, "target")
    if array.shape == shape and array.dtype.kind not in "iub":
        if shape[axis] == 0 and math.prod(positions_of(shape, axis)):
            raise no_class(name, shape)
        return None, target_like(array, shape, dtype, name)
    hint = f"; probabilities must have the shape of the {name}"
    return labels_of(_empty_as_integers(array, target), shape, axis, ignore_index, hint), None


def no_class(name, shape):
    """Return the error for positions without any class."""
    return ValueError(f"{name} must have at least one class, got shape {shape}")


def positions_of(shape, axis):
    """Return the shape of the positions."""
    return shape[:axis] + shape[axis + 1 :]


def target_like(target, shape, dtype, of, name="target", exact=False):
    """Return floats of a shape and dtype.

    Beside 16-bit floats, numbers of another dtype become float32 instead: they must not lose bits. With
    `exact` float64 stays what it is where float32 would lose some.
    """
    array = as_array(target, name)
    if array.dtype.kind in "biu":
        array = _small_integers(array, dtype)
    array = floats(array, name)
    same_shape(array, shape, name, of)
    if array.dtype == dtype:
        return array
    narrow = narrowed(array, loss_dtype(dtype))
    if exact and narrow.dtype.itemsize < array.dtype.itemsize and loses_bits(array, narrow):
        return array
    return narrow


def _small_integers(array, dtype):
    """Return integers as floats that hold them, if float32 does: bools as `dtype`, others as its losses."""
    if array.dtype == np.bool_ and dtype.itemsize == 2:  # NumPy converts to 16 bits one by one
        one = np.ones((), dtype).view(np.uint16)
        return np.asarray(array.view(np.uint8) * one).view(dtype)
    if array.dtype == np.bool_:
        return array.astype(dtype)
    if array.dtype.itemsize <= 2 or array.size == 0 or _MOST >= max(array.max(), -int(array.min())):
        return array.astype(loss_dtype(dtype))
    return array


_MOST = 2**24  # up to it, float32 holds all integers


def loses_bits(array, narrow):
    """Whether a number, other than NaN, is not what it was."""
    different = array != narrow
    return bool(different.any() and (different & (array == array)).any())


def labels_of(target, shape, axis, ignore_index, hint=""):
    """Return labels as an aligned int64 array in C order, of the positions' shape.

    Where several are ignored, it is a checked copy in which the first of these stands for all.
    """
    array = _empty_as_integers(as_array(target, "target"), target)
    classes, positions = shape[axis], positions_of(shape, axis)
    if array.dtype.kind not in "iu":
        raise no_labels(array, shape, hint)
    if array.shape != positions:
        same = array.shape == shape
        hint = _not_labels(array, axis, bool(hint)) if same else misfit("target", array.shape, shape, axis)
        raise ValueError(f"target must have the shape of the positions, {positions}, got {array.shape}{hint}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise bad_label(array, int(array.argmax()), classes, ignore_index)
    if isinstance(ignore_index, tuple):
        return _with_one_ignored(array.astype(np.int64, order="C"), classes, ignore_index)
    if array.dtype == np.int64 and array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.require(array, dtype=np.int64, requirements="CA")


def _with_one_ignored(labels, classes, values):
    """Replace all labels that are ignored by the first of them; raise for the first bad one."""
    mask = labels == values[0]
    for value in values[1:]:
        mask |= labels == value
    bad = ~mask & ((labels < 0) | (labels >= classes))
    if bad.any():
        raise bad_label(labels, int(bad.argmax()), classes, values)
    labels[mask] = values[0]
    return labels


def _empty_as_integers(array, given):
    """Return what came as `given`: an empty list, of which NumPy makes floats, is a list of no labels."""
    is_list = array.size == 0 and array.dtype == np.float64 and not isinstance(given, np.ndarray)
    return array.astype(np.int64) if is_list else array


def _integers(array, given, name):
    """Return what came as `given`, if it holds integers, as an empty list does."""
    array = _empty_as_integers(array, given)
    if array.dtype.kind not in "iu":
        got = f"got dtype {array.dtype} of shape {array.shape}"
        raise TypeError(f"{name} must hold integers, {got}{_as_integers(array.dtype, name, 'classes')}")
    return array


def _as_integers(dtype, name, things):
    """Return how to make integers of an array of another dtype, which are labels or other things."""
    if dtype.kind in "UST":
        return f"; np.unique({name}, return_inverse=True)[1] numbers them"
    if dtype.kind == "b":
        return f"; {name}.astype(np.int64) makes {things} 0 and 1 of bools"
    small = dtype.kind == "V" and dtype.name.startswith(("int", "uint"))  # of ml_dtypes
    return f"; {name}.astype(np.int64) makes {things} of whole numbers" if dtype.kind == "f" or small else ""


def groups(value, positions):
    """Return numbers of groups, one for each position, as an int64 array."""
    array = _integers(as_array(value, "groups"), value, "groups")
    same_shape(array, positions, "groups", "the positions")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"groups must fit into 64 bits with a sign, got {array.max()}")
    return array.astype(np.int64, copy=False)


_BINARY = "; logits of two classes in one number are for sigmoid_cross_entropy"


def _not_labels(array, axis, probabilities):
    """Return what to do with integers of the shape of the logits: one-hot targets, or one for each logit."""
    one_hot = (np.sum(array, axis=axis) == 1).all() and ((array == 0) | (array == 1)).all()
    return _one_hot(probabilities) if one_hot or array.ndim > 1 else _BINARY


def _one_hot(probabilities):
    """Return what to do with a one-hot target, where targets may be probabilities, or are labels alone."""
    if probabilities:
        return (
            "; one-hot targets must be floating-point: give target.astype(np.float32), or target.argmax(axis)"
        )
    return "; target.argmax(axis) makes labels of one-hot targets"


def no_labels(array, shape, hint=""):
    """Return the error for what holds no integers, where logits have a shape; `hint` is for probabilities,
    empty where these are no target."""
    got = f"got dtype {array.dtype} of shape {array.shape}"
    if array.shape == shape and array.dtype.kind in "bf":
        hint = _one_hot(bool(hint))
    elif array.dtype.kind == "f" and np.isnan(array).any():
        hint = f"; missing labels, NaN here, must be ignore_index{hint}"
    else:
        cure = _as_integers(array.dtype, "target", "labels")
        hint = cure + hint if array.dtype.kind == "f" else cure
    return TypeError(f"target must hold integer labels, {got}{hint}")


def binary_target(target, shape, dtype, ignore_index):
    """Return (array, ignore_index or None): integers as they are, or floats that the kernels take.

    The kernel checks the values (`bad_binary`). An ignore_index that the integers cannot hold is None.
    """
    array = as_array(target, "target")
    if array.dtype.kind not in "iub":
        array = floats(array, "target")
        if ignore_index is not None:
            raise ValueError(
                f"ignore_index must be None for a target of probabilities (dtype {array.dtype}): they are no "
                "labels, but a weight of 0 drops them"
            )
    if array.shape == shape[:-1] != () and array.dtype.kind in "iu":
        hint = "; labels, one class for each position, are for cross_entropy"
        raise ValueError(f"target must have the shape of logits, {shape}, got {array.shape}{hint}")
    same_shape(array, shape, "target", "logits")
    if array.dtype.kind not in "iub":
        known = array.dtype in (dtype, F32, F64)
        return (array if known else array.astype(loss_dtype(dtype))), None
    array = np.require(array, dtype=array.dtype.newbyteorder("="), requirements="A")
    if ignore_index is not None:
        ignore_index = label_value(ignore_index, "ignore_index")
        low, high = (
            (0, 1) if array.dtype.kind == "b" else (np.iinfo(array.dtype).min, np.iinfo(array.dtype).max)
        )
        ignore_index = ignore_index if low <= ignore_index <= high else None
    return array, ignore_index


def bad_binary(target, ignore_index, name="target"):
    """Return the error for the first element of a target that is neither a 0 or 1 nor in [0, 1]."""
    if target.dtype.kind in "iub":
        bad, expected = (target != 0) & (target != 1), "0 or 1"
        if ignore_index is not None:
            bad, expected = bad & (target != ignore_index), f"0, 1 or ignore_index={ignore_index}"
    else:
        with np.errstate(invalid="ignore"):  # bfloat16 warns of NaN
            bad, expected = ~((target >= 0) & (target <= 1)), "a number between 0 and 1"
    where = int(bad.argmax())
    return ValueError(f"{name}{index_of(where, target.shape)} is {target.flat[where]}, expected {expected}")


def bad_label(labels, where, classes, ignore_index):
    """Return the error for the label at flat position `where`."""
    value = labels.reshape(-1)[where]
    expected = f"0 <= label < {classes}"
    if ignore_index is not None:
        expected += f" or ignore_index={ignore_index}"
        if value < 0:  # as -1 for what is missing, in pandas and scikit-learn
            expected += f"; if it stands for a missing label, give ignore_index={value}"
    if classes == 0:
        expected += "; there is no class, the class axis has length 0"
    if classes == 1 and value == 1:
        expected += _BINARY
    return ValueError(f"target{index_of(where, labels.shape)} is {value}, expected {expected}")


def classes_of(value, name, shapes, classes):
    """Return numbers of classes, none of them ignored, as an int64 array in C order of one of the shapes.

    It is a copy, checked after it was made: NumPy ends the process where another thread changes an index.
    """
    array = _integers(as_array(value, name), value, name)
    if array.shape not in shapes:
        expected = " or ".join(str(shape) for shape in dict.fromkeys(shapes)).replace("'", "")
        hint = _reshaped(name, array.shape, shapes[0])
        raise ValueError(f"{name} must have shape {expected}, got {array.shape}{hint}")
    array = array.copy()
    bad = (array < 0) | (array >= classes)
    if bad.any():
        where = int(bad.argmax())
        got = f"{name}{index_of(where, array.shape)} is {array.reshape(-1)[where]}"
        raise ValueError(f"{got}, expected 0 <= class < {classes}")
    return array.astype(np.int64, copy=False)


# ---- the k largest of a teacher ----

_TAILS = ("bucket", "renormalize", "drop")  # in the order of their codes (csrc/table.h)


def tail_rule(tail):
    """Return the code of a rule for what the k of a teacher leave."""
    if not isinstance(tail, str):
        raise TypeError(f"tail must be a string, got {type(tail).__name__}")
    if tail not in _TAILS:
        raise ValueError(f"tail must be one of {', '.join(_TAILS)}, got {tail!r}")
    return _TAILS.index(tail)


def teacher_ids(value, positions):
    """Return k classes per position as an aligned int64 array in C order."""
    array = _integers(as_array(value, "teacher_ids"), value, "teacher_ids")
    if array.ndim != len(positions) + 1 or array.shape[:-1] != positions or array.shape[-1] == 0:
        expected = "(" + ", ".join([*map(str, positions), "k"]) + ("," if not positions else "") + "), k >= 1"
        raise ValueError(f"teacher_ids must have shape {expected}, got {array.shape}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise _bad_id(array, int(array.argmax()), "expected a class of student_logits")
    return np.require(array, dtype=np.int64, requirements="CA")


def teacher_log_probs(value, shape):
    """Return log-probabilities as floats or doubles in C order, of the shape of the classes."""
    array = floats(value, "teacher_log_probs")
    same_shape(array, shape, "teacher_log_probs", "teacher_ids")
    return np.asarray(array, dtype=loss_dtype(array.dtype), order="C")


def bad_teacher_id(ids, where, classes, repeated):
    """Return the error for the id at flat position `where`."""
    if not repeated:
        return _bad_id(ids, where, f"expected 0 <= class < {classes}")
    return _bad_id(ids, where, "which this position has before: each class may be there once")


def _bad_id(ids, where, expected):
    return ValueError(f"teacher_ids{index_of(where, ids.shape)} is {ids.reshape(-1)[where]}, {expected}")


def class_ids(value, shape, axis):
    """Return numbers of classes for logits of a shape, one or several for each position, as int64 in C order.

    It is a copy, as that of `classes_of`.
    """
    array, positions = _integers(as_array(value, "ids"), value, "ids"), positions_of(shape, axis)
    several = (*positions[:axis], array.shape[axis] if array.ndim == len(shape) else "K", *positions[axis:])
    if array.shape not in (positions, several):
        got = f"got {array.shape}{misfit('ids', array.shape, shape, axis)}"
        any_number = str((*positions[:axis], "K", *positions[axis:])).replace("'", "")
        raise ValueError(f"ids must have the shape of the positions, {positions}, or {any_number}, {got}")
    return classes_of(array, "ids", [array.shape], shape[axis])


def finite_at(values, classes, name):
    """Raise unless the numbers of some classes are finite."""
    bad = ~np.isfinite(values[classes])
    if bad.any():
        used = int(classes.reshape(-1)[int(bad.argmax())])
        raise ValueError(f"{name} must be finite for every class in use, got {name}[{used}] = {values[used]}")


def index_of(where, shape):
    """Return the index of a flat position as it is written in Python; nothing for a 0-d array."""
    index = np.unravel_index(where, shape)
    return f"[{', '.join(str(int(i)) for i in index)}]" if index else ""
