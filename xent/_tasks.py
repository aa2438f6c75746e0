"""Tasks of xent.dask: what is done with one chunk of each array.

Arrays come with the dimensions that they have in the graph: of logits, or of (positions, classes, features)
for a layer; where they have no classes or features, the axis has the length 1.
"""

import functools
import itertools
import math
import sys
from typing import NamedTuple

import numpy as np

import xent

from . import _shards
from ._shards import LOSS, Shard, pieces, times

# Default limit of the logits that a task holds of a linear layer whose classes are in several chunks: that of
# xent.linear_cross_entropy.
_CHUNK_BYTES = 128 * 2**20


class Place(NamedTuple):
    """What a task has to know of the chunk that it works on, beside the chunk itself."""

    axis: int  # of the classes
    starts: tuple  # of the chunks, along each axis
    classes: int  # in all chunks
    ignore_index: int | tuple


def grad_dtype(dtype):
    return np.dtype(np.float64) if dtype.kind in "iub" else dtype


def is_double(dtype):
    return grad_dtype(dtype) == np.float64


# ---- tasks: what they have in common ----


def _threads():
    """Return how many threads a call may use here: in a worker, the share of one of its threads.

    In the schedulers of one process nothing is to be done: calls at once share the threads of xent.
    """
    distributed = sys.modules.get("distributed")
    try:
        worker = distributed.get_worker()
    except (AttributeError, ValueError):  # there is none
        return xent.get_num_threads()
    return max(1, xent.get_num_threads() // worker.state.nthreads)


def _task(function):
    """Make a task of a function: its calls of xent use the threads that are there for one task."""

    @functools.wraps(function)
    def task(*args, **kwargs):
        with xent.num_threads(_threads()), np.errstate(all="ignore"):
            return function(*args, **kwargs)

    return task


def merge(states, axis, keepdims, after):
    """Merge states, for ``dask.array.reduction``."""
    (axis,) = axis
    return _shards.merged(states, axis, after)


def same(block, axis, keepdims):
    return block


def item(parts, which):
    return parts[which]


def added(evaluations, axis, keepdims):
    """Add up a nested list."""
    return sum(_flat(evaluations)) if isinstance(evaluations, list) else evaluations


def _flat(nested):
    return itertools.chain.from_iterable(map(_flat, nested)) if isinstance(nested, list) else (nested,)


def partition(block, sizes, called, block_id):
    """Return a partition of a column, if it is as long as the chunk that it stands for."""
    (k,) = block_id
    if len(block) != sizes[k]:
        got = f"partition {k} of {called} has {len(block)} rows, and that chunk of the positions {sizes[k]}"
        raise ValueError(f"{got}: give {called}.to_dask_array(lengths=True), which is cut as they are")
    return block


def _beginning(place, block_id):
    """Return where a block begins, along each axis."""
    return [starts[k] for starts, k in zip(place.starts, block_id, strict=False)]


def _is_ignored(labels, place):
    values = place.ignore_index if isinstance(place.ignore_index, tuple) else (place.ignore_index,)
    mask = np.zeros(labels.shape, bool)
    for value in values:
        mask |= labels == value
    return mask


def _labels_or_probabilities(target, place, block_id):
    """Return labels, of the shape of the positions and checked, or probabilities as they are."""
    _refuse_masks(target, "target")
    if target.dtype.kind not in "iu":
        return target
    labels = np.squeeze(target, place.axis)
    bad = ((labels < 0) | (labels >= place.classes)) & ~_is_ignored(labels, place)
    if bad.any():
        got = f"target{_position(bad, place, block_id)} is {labels.flat[int(bad.argmax())]}"
        expected = f"0 <= label < {place.classes} or ignore_index={place.ignore_index}"
        raise ValueError(f"{got}, expected {expected}")
    return labels


def _position(bad, place, block_id):
    """Return the index, in the whole array, of the first position of a mask, as it is written in Python."""
    begin = _beginning(place, block_id)
    del begin[place.axis]
    index = np.unravel_index(int(bad.argmax()), bad.shape)
    index = [str(b + int(k)) for b, k in zip(begin, index, strict=False)]
    return f"[{', '.join(index)}]" if index else ""


def _refuse_masks(array, name):
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} must not hold masked arrays, whose masks would be dropped: fill them")


def _position_weights(sample_weight, place, block_id):
    """Return one finite factor per position, as float64, or None."""
    if sample_weight is None:
        return None
    _refuse_masks(sample_weight, "sample_weight")
    weights = np.squeeze(sample_weight, place.axis).astype(np.float64)
    bad = ~np.isfinite(weights)
    if bad.any():
        got = f"sample_weight{_position(bad, place, block_id)} = {weights.flat[int(bad.argmax())]}"
        raise ValueError(f"sample_weight must be finite, got {got}")
    return weights


def _summed(losses):
    """Return the sum of an array, as an array with its dimensions and one more."""
    return np.full((1,) * (losses.ndim + 1), losses.sum(dtype=np.float64))


@_task
def masses(target, sample_weight, *, place, weight, block_id=None):
    """Return the sum of the weights of the positions of a block, and the number of those that have one."""
    weights = _position_weights(sample_weight, place, block_id)
    if target is not None:
        labels = _labels_or_probabilities(target, place, block_id)
        there = ~_is_ignored(labels, place)
        weights = there.astype(np.float64) if weights is None else np.where(there, weights, 0.0)
        if weight is not None:
            weight = np.asarray(weight, np.float64)
            weights *= weight[np.where(there, labels, 0)] if weight.size else 1.0
    numbers = weights.sum(), np.count_nonzero(weights)
    return np.reshape(np.array(numbers, np.float64), (1,) * (weights.ndim + 1) + (2,))


def factor(masses):
    """Return the factor of a mean: 0 over nothing, infinite where weights cancel."""
    mass, number = masses
    return np.divide(1.0, mass) if mass else np.float64(np.inf if number else 0.0)


@_task
def divided(total, masses, scaled, single):
    """Return a mean, or a sum where there are no masses."""
    if masses is not None:
        mass, number = masses
        if not mass:
            total = np.divide(total, 0.0) if number else 0.0
        elif not scaled:
            total = total / mass
    return np.asarray(total, np.float32 if single else np.float64)


# ---- tasks: chunks of all classes ----


@_task
def losses(logits, target, sample_weight, *, place, each, block_id=None, **options):
    target = _labels_or_probabilities(target, place, block_id)
    losses = np.asarray(
        xent.cross_entropy(
            logits, target, axis=place.axis, ignore_index=place.ignore_index, reduction="none",
            sample_weight=_position_weights(sample_weight, place, block_id), **options,
        )
    )  # fmt: skip
    return np.expand_dims(losses, place.axis) if each else _summed(losses)


@_task
def losses_and_grad(logits, target, sample_weight, factor, *, place, each, block_id=None, **options):
    target = _labels_or_probabilities(target, place, block_id)
    weights, afterwards = _scaled_weights(sample_weight, factor, logits.shape, place, block_id)
    losses, grad = xent.cross_entropy_value_and_grad(
        logits, target, axis=place.axis, ignore_index=place.ignore_index, reduction="none",
        sample_weight=weights, **options,
    )  # fmt: skip
    losses = np.asarray(losses)
    losses = np.expand_dims(losses, place.axis) if each else _summed(losses)
    return losses, grad if afterwards == 1.0 else grad * grad.dtype.type(afterwards)


def _scaled_weights(sample_weight, factor, shape, place, block_id):
    """Return weights times a factor, and the part of it that a weight cannot take: 1 but for infinity."""
    weights = _position_weights(sample_weight, place, block_id)
    if factor is None:
        return weights, 1.0
    positions = tuple(n for k, n in enumerate(shape) if k != place.axis)
    if np.isinf(factor):
        return weights, float(factor)
    return np.full(positions, factor) if weights is None else weights * factor, 1.0


@_task
def evaluated(logits, target, sample_weight, *, place, block_id=None, **options):
    target = _labels_or_probabilities(target, place, block_id)
    return xent.evaluate(
        logits, target, axis=place.axis, ignore_index=place.ignore_index,
        sample_weight=_position_weights(sample_weight, place, block_id), **options,
    )  # fmt: skip


@_task
def layer_losses_and_grads(
    x, weight_of_layer, bias, target, sample_weight, upstream, factor, *, place, each, needs, chunk_bytes,
    block_id=None, weight=None, **options,
):  # fmt: skip
    x, target, sample_weight = x[..., 0, :], target[..., 0], _shallow(sample_weight)
    grad_output, afterwards = _layer_upstream(upstream, factor, x.shape[:-1], place)
    losses, grads = xent.linear_cross_entropy_value_and_grad(
        x, _wide(weight_of_layer), _labels_or_probabilities(target, place, block_id),
        None if bias is None else _wide(bias[:, 0]), class_weight=weight, reduction="none",
        sample_weight=_position_weights(sample_weight, place, block_id), ignore_index=place.ignore_index,
        grad_output=grad_output, needs=needs, chunk_bytes=chunk_bytes, **options,
    )  # fmt: skip
    losses = np.asarray(losses)
    losses = losses[..., np.newaxis] if each else _summed(losses)
    return losses[..., np.newaxis], *_placed(grads, x.ndim - 1, afterwards)


def _layer_upstream(upstream, factor, positions, place):
    """Return an upstream gradient for each position, and what gradients are multiplied by afterwards."""
    one = 1.0 if factor is None else float(factor)
    one, afterwards = (1.0, one) if math.isinf(one) else (one, 1.0)
    upstream = 1.0 if upstream is None else _shallow(upstream)
    if np.ndim(upstream):
        upstream = np.squeeze(upstream, place.axis)
    return np.broadcast_to(np.asarray(upstream, np.float64) * one, positions), afterwards


def _shallow(value):
    """Return an array without the axis of features that it has for its place among others."""
    return value[..., 0] if isinstance(value, np.ndarray) and value.ndim else value


def _wide(array):
    """Return 16-bit weights as float32, in which they are computed with, so that the gradient is too."""
    return array.astype(np.float32) if array.dtype.itemsize == 2 and array.dtype.kind not in "iu" else array


def _placed(grads, before, afterwards):
    """Return gradients with axes for positions, classes and features."""
    x, weight, bias = (g if g is None or afterwards == 1.0 else g * afterwards for g in grads)
    return (
        None if x is None else x[..., np.newaxis, :],
        None if weight is None else weight[(np.newaxis,) * before],
        None if bias is None else bias[(np.newaxis,) * before + (slice(None), np.newaxis)],
    )


# ---- chunks of some of the classes: see _shards.py ----


def _rows(array, axis):
    """Return an array as a matrix of positions and classes."""
    _refuse_masks(array, "logits")
    array = np.moveaxis(array, axis, -1)
    return array.reshape(math.prod(array.shape[:-1]), array.shape[-1])


def _unrolled(rows, shape, axis):
    """Return what `_rows` took apart, in the shape that it had."""
    shape = list(shape)
    return np.moveaxis(rows.reshape(*shape[:axis], *shape[axis + 1 :], shape[axis]), -1, axis)


def _shard(target, classes, place, block_id, options):
    """Return the `Shard` of a block, with so many classes."""
    target = _labels_or_probabilities(target, place, block_id)
    if target.dtype.kind in "iu":
        target = np.where(_is_ignored(target, place), -1, target.astype(np.int64)).reshape(-1)
    else:
        target = _rows(target, place.axis)
    return Shard(target, _beginning(place, block_id)[place.axis], classes, place.classes, **options)


@_task
def shard_states(logits, target, *, place, top=None, block_id=None, **options):
    dtype = LOSS if top is None else _shards.fields(top)
    z, shard = _rows(logits, place.axis), _shard(target, logits.shape[place.axis], place, block_id, options)
    states = np.empty(len(z), dtype)
    for rows in pieces(*z.shape):
        states[rows] = shard.state(z[rows], rows, dtype)
    shape = list(logits.shape)
    shape[place.axis] = 1
    return states.reshape(shape)


@_task
def finished(
    states, target, sample_weight, *, place, each, single, block_id=None, z_loss=0.0, gamma=0.0,
    after=1.0, **options,
):  # fmt: skip
    """Return losses of states of all classes, or their sum."""
    states, there, weights = _there(states, target, sample_weight, place, block_id)
    loss = np.where(there, _shards.losses(states, z_loss, gamma, after), 0.0)
    loss = loss if weights is None else times(weights, loss)
    if not each:
        return _summed(loss)
    return np.expand_dims(loss.astype(np.float32 if single else np.float64), place.axis)


def _there(states, target, sample_weight, place, block_id):
    """Return states, which positions are not ignored, and the weights of these, or None."""
    weights = _position_weights(sample_weight, place, block_id)
    states = np.squeeze(states, place.axis)
    if target is None or target.dtype.kind not in "iu":
        return states, np.ones(states.shape, bool), weights
    return states, ~_is_ignored(_labels_or_probabilities(target, place, block_id), place), weights


def _scale(states, target, sample_weight, factor, place, block_id):
    """Return states and factors of the gradients, in a row."""
    states, there, weights = _there(states, target, sample_weight, place, block_id)
    scale = np.where(there, 1.0 if weights is None else weights, 0.0)
    return states.reshape(-1), times(scale, 1.0 if factor is None else factor).reshape(-1)


@_task
def shard_grad(logits, states, target, sample_weight, factor, *, place, block_id=None, **options):
    z, shard = _rows(logits, place.axis), _shard(target, logits.shape[place.axis], place, block_id, options)
    states, scale = _scale(states, target, sample_weight, factor, place, block_id)
    grad = np.empty(z.shape, grad_dtype(logits.dtype))
    for rows in pieces(*z.shape):
        grad[rows] = shard.grad(z[rows], states[rows], rows, scale[rows])
    return _unrolled(grad, logits.shape, place.axis)


def _layer_logits(x, weight, bias, rows):
    logits = x[rows] @ weight.T
    return logits if bias is None else np.add(logits, bias, out=logits)


def _layer_arrays(x, weight, bias):
    """Return a layer in the dtype that is computed in: x as rows, weight (C, D), bias (C,)."""
    x, bias = x[..., 0, :], None if bias is None else bias[:, 0]
    doubles = any(is_double(a.dtype) for a in (x, weight, bias) if a is not None)
    dtype = np.float64 if doubles else np.float32
    x = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    x, weight, bias = (None if a is None else a.astype(dtype, copy=False) for a in (x, weight, bias))
    return x, weight, bias


def _layer_pieces(rows, weight, chunk_bytes):
    """Cut rows into slices whose logits are not above the limit of memory."""
    limit = _CHUNK_BYTES if chunk_bytes is None else chunk_bytes
    return pieces(rows, len(weight), limit // weight.itemsize)


@_task
def layer_states(x, weight_of_layer, bias, target, *, place, chunk_bytes, block_id=None, **options):
    positions = x.shape[:-2]
    x, layer, bias = _layer_arrays(x, weight_of_layer, bias)
    shard = _shard(target[..., 0], len(layer), place, block_id, options)
    states = np.empty(len(x), LOSS)
    for rows in _layer_pieces(len(x), layer, chunk_bytes):
        logits = _layer_logits(x, layer, bias, rows)
        for part in pieces(*logits.shape):
            here = slice(rows.start + part.start, rows.start + part.stop)
            states[here] = shard.state(logits[part], here, LOSS)
    return states.reshape(*positions, 1, 1)


@_task
def layer_shard_grads(
    states, x, weight_of_layer, bias, target, sample_weight, upstream, factor, *, place, needs, chunk_bytes,
    block_id=None, **options,
):  # fmt: skip
    positions = x.shape[:-2]
    x, layer, bias = _layer_arrays(x, weight_of_layer, bias)
    target, sample_weight = target[..., 0], _shallow(sample_weight)
    shard = _shard(target, len(layer), place, block_id, options)
    states, scale = _scale(states[..., 0], target, sample_weight, factor, place, block_id)
    scale = times(scale, _layer_upstream(upstream, None, positions, place)[0].reshape(-1))
    grad_x = np.empty(x.shape, x.dtype) if needs[0] else None
    grad_weight = np.zeros(layer.shape) if needs[1] else None
    grad_bias = np.zeros(len(layer)) if needs[2] else None
    for rows in _layer_pieces(len(x), layer, chunk_bytes):
        grad = _layer_logits(x, layer, bias, rows)
        for part in pieces(*grad.shape):
            here = slice(rows.start + part.start, rows.start + part.stop)
            grad[part] = shard.grad(grad[part], states[here], here, scale[here])
        if needs[0]:
            np.matmul(grad, layer, out=grad_x[rows])
        if needs[1]:
            grad_weight += grad.T @ times(scale[rows, np.newaxis] != 0, x[rows])
        if needs[2]:
            grad_bias += grad.sum(axis=0, dtype=np.float64)
    grads = None if grad_x is None else grad_x.reshape(*positions, x.shape[1]), grad_weight, grad_bias
    return None, *_placed(grads, len(positions), 1.0)


@_task
def evaluation(
    states,
    target,
    sample_weight,
    *,
    place,
    top_k,
    base,
    calibration_bins,
    confusion,
    block_id=None,
    **options,
):
    states, there, weights = _there(states, target, sample_weight, place, block_id)
    labels = np.squeeze(target, place.axis)[there].astype(np.int64)
    weights = None if weights is None else weights[there]
    return _shards.evaluation(
        states[there], labels, weights, classes=place.classes, top_k=top_k, base=base,
        calibration_bins=calibration_bins, confusion=confusion,
    )  # fmt: skip
