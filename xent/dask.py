"""Losses and evaluation of Dask arrays, chunked over positions, over classes or over both.

`import xent` does not import this module. Everything is lazy, and nothing is gathered: what leaves a chunk of
logits is a few numbers for each position, or sums.

Design. Where a chunk holds all classes of its positions, a task is a call of the function of xent of the same
name. Where the classes are in several chunks, a task makes of each a state (_shards.py): what is needed of a
softmax over some of the classes, relative to their largest logit. States merge along the classes, in a tree,
into that of all classes; no difference is taken of large numbers, so that small losses keep their digits, as
in xent itself. Sums and states are float64 whatever the dtype of the logits.

The order of all sums follows from the chunks and `split_every`, never from which worker is done first.

Here is what a user calls; _lazy.py cuts the arguments alike and has the lazy arrays that the functions share,
and _tasks.py what is done with one chunk of each.
"""

import xent  # noqa: F401 (the examples)

try:
    import dask.array as da
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "dask":
        raise
    raise ImportError('xent.dask needs Dask: pip install "xent-kernels[dask]"') from error

import numpy as np

from . import _tasks
from ._lazy import Call, Layer, Options, beside, deeper, inputs, part
from ._shards import LOSS, fields

__all__ = ["cross_entropy", "cross_entropy_value_and_grad", "evaluate", "linear_cross_entropy_value_and_grad"]


def cross_entropy(
    logits,
    target,
    *,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    gamma=0.0,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    reduction="mean",
    split_every=None,
):
    """
    Cross-entropy between a target and the softmax of logits in a Dask array: `xent.cross_entropy`.

    Parameters
    ----------
    logits : dask.array.Array, shape (..., C, ...)
        Unnormalised log-probabilities, in chunks along any axes, that of the classes included.
    target : dask.array.Array, array_like or column of dask.dataframe
        Labels or probabilities, as in `xent.cross_entropy`; cut as the logits are. Of a column, the
        partitions are the chunks of the positions.
    axis, weight, ignore_index, label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction
        As in `xent.cross_entropy`. `weight` and `prior` are arrays in memory. With several chunks of classes,
        `gamma` takes labels without smoothing alone.
    sample_weight : dask.array.Array, array_like or column of dask.dataframe, optional
        One factor per position.
    split_every : int, optional
        How many partial results are merged at a time, as in ``dask.array.reduction``.

    Returns
    -------
    dask.array.Array
        The loss, a lazy one: of no dimensions, or with ``reduction="none"`` in the chunks of the positions.
        float64 for float64 logits, else float32.

    Raises
    ------
    TypeError
        If `logits` is no Dask array, or as `xent.cross_entropy`.
    ValueError
        If chunks have unknown sizes, or as `xent.cross_entropy`. A label out of range is found by the task
        that reads it, and named with its position in the whole array.

    See Also
    --------
    cross_entropy_value_and_grad, evaluate, xent.cross_entropy

    Examples
    --------
    Two chunks of the positions, and three of the classes:

    >>> import dask.array as da
    >>> import xent.dask
    >>> logits = da.random.default_rng(0).standard_normal((1000, 30), chunks=(500, 10))
    >>> loss = xent.dask.cross_entropy(logits, [k % 30 for k in range(1000)])
    >>> loss
    dask.array<...shape=(), dtype=float64, chunksize=(), chunktype=numpy.ndarray>
    >>> round(float(loss.compute()), 1)
    3.8
    """
    options = Options(weight, label_smoothing, z_loss, gamma, temperature, logit_cap, prior)
    logits, target, sample_weight, cut = inputs(logits, target, sample_weight, axis)
    call = Call(xent.cross_entropy, cut, target, sample_weight, ignore_index, options, reduction, split_every)
    if call.sharded:
        states = call.merged(call.map(_tasks.shard_states, cut.states, LOSS, logits, target))
        return call.reduced(call.finished(states))
    losses = call.map(_tasks.losses, *call.form, logits, target, sample_weight, each=call.each)
    return call.reduced(losses)


def cross_entropy_value_and_grad(
    logits,
    target,
    *,
    axis=-1,
    weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    gamma=0.0,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    reduction="mean",
    split_every=None,
):
    """
    `cross_entropy` and its gradient by the logits: `xent.cross_entropy_value_and_grad`.

    Parameters
    ----------
    logits : dask.array.Array, shape (..., C, ...)
        Unnormalised log-probabilities, in chunks along any axes, that of the classes included.
    target : dask.array.Array, array_like or column of dask.dataframe
        Labels or probabilities, as in `cross_entropy`.
    axis, weight, ignore_index, label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction
        As in `cross_entropy`.
    sample_weight : dask.array.Array, array_like or column of dask.dataframe, optional
        One factor per position.
    split_every : int, optional
        How many partial results are merged at a time, as in ``dask.array.reduction``.

    Returns
    -------
    loss : dask.array.Array
        As `cross_entropy`.
    grad : dask.array.Array
        Of the shape, dtype and chunks of `logits`. For ``reduction="none"`` it is that of the sum.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    See Also
    --------
    cross_entropy, xent.cross_entropy_value_and_grad

    Notes
    -----
    Compute both at once, ``dask.compute(loss, grad)``: they come from one pass where a chunk holds all
    classes, and share the first of two passes elsewhere.

    Examples
    --------
    >>> import dask.array as da
    >>> import xent.dask
    >>> logits = da.from_array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], chunks=(1, 2))
    >>> loss, grad = xent.dask.cross_entropy_value_and_grad(logits, [2, 0])
    >>> grad.compute().round(2)
    array([[ 0.05,  0.12, -0.17],
           [-0.33,  0.17,  0.17]])
    """
    options = Options(weight, label_smoothing, z_loss, gamma, temperature, logit_cap, prior)
    logits, target, sample_weight, cut = inputs(logits, target, sample_weight, axis)
    call = Call(xent.cross_entropy, cut, target, sample_weight, ignore_index, options, reduction, split_every)
    factor = call.factor()
    if call.sharded:
        states = call.merged(call.map(_tasks.shard_states, cut.states, LOSS, logits, target))
        arrays = logits, states, target, sample_weight, factor
        return call.reduced(call.finished(states)), call.map(
            _tasks.shard_grad, cut.chunks, logits.dtype, *arrays
        )
    parts = call.map(
        _tasks.losses_and_grad, cut.kept, object, logits, target, sample_weight, factor, each=call.each
    )
    losses = part(parts, 0, *call.form)
    return call.reduced(losses, scaled=True), part(parts, 1, cut.chunks, cut.dtype)


def evaluate(
    logits,
    target,
    *,
    axis=-1,
    ignore_index=-100,
    sample_weight=None,
    top_k=(1,),
    prior=None,
    base=None,
    temperature=1.0,
    calibration_bins=None,
    confusion=False,
    split_every=None,
):
    """
    Evaluate logits in a Dask array against labels: `xent.evaluate`.

    Parameters
    ----------
    logits : dask.array.Array, shape (..., C, ...)
        Unnormalised log-probabilities, in chunks along any axes, that of the classes included.
    target : dask.array.Array, array_like or column of dask.dataframe
        Labels, of the shape of the positions; cut as these are. Of a column, the partitions are the chunks of
        the positions.
    axis, ignore_index, top_k, prior, base, temperature, calibration_bins, confusion
        As in `xent.evaluate`. `prior` is an array in memory.
    sample_weight : dask.array.Array, array_like or column of dask.dataframe, optional
        One factor per position.
    split_every : int, optional
        How many evaluations are added at a time, as in ``dask.array.reduction``.

    Returns
    -------
    dask.delayed.Delayed
        It computes to an `xent.Evaluation`. What is asked of it, such as ``.accuracy``, is lazy too, and so
        is the sum of two.

    Raises
    ------
    TypeError
        If `logits` is no Dask array, or as `xent.evaluate`.
    ValueError
        If chunks have unknown sizes, or as `xent.evaluate`. A label out of range is found by the task that
        reads it, and named with its position in the whole array.

    See Also
    --------
    cross_entropy, xent.evaluate, xent.Evaluation

    Examples
    --------
    >>> import dask.array as da
    >>> import xent.dask
    >>> logits = da.from_array([[2.0, 1.0, 0.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0]], chunks=(2, 2))
    >>> result = xent.dask.evaluate(logits, [0, 1, 2], top_k=(1, 3))
    >>> result.compute()
    Evaluation(count=3, loss=0.6847 nats, perplexity=1.983, accuracy=0.6667, top_3_accuracy=1, mse=0.1322, \
entropy=0.7248 nats, mutual_information=0.414 nats)
    >>> round(result.accuracy.compute(), 4)
    0.6667
    """
    options = Options(temperature=temperature, prior=prior)
    logits, target, sample_weight, cut = inputs(logits, target, sample_weight, axis)
    asked = {"top_k": top_k, "base": base, "calibration_bins": calibration_bins, "confusion": confusion}
    call = Call(xent.evaluate, cut, target, sample_weight, ignore_index, options, None, split_every, asked)
    if call.sharded:
        top = call.empty.top_k
        states = call.map(_tasks.shard_states, cut.states, fields(top), logits, target, top=top)
        asked |= {"top_k": top, "base": call.empty.base}
        arrays = call.merged(states), target, sample_weight
        parts = call.map(_tasks.evaluation, cut.kept, object, *arrays, **asked)
    else:
        parts = call.map(_tasks.evaluated, cut.kept, object, logits, target, sample_weight, **asked)
    result = da.reduction(
        parts, _tasks.same, _tasks.added, combine=_tasks.added, concatenate=False, dtype=object,
        split_every=split_every, meta=np.empty((), object),
    )  # fmt: skip
    return result.to_delayed().item()


def linear_cross_entropy_value_and_grad(
    x,
    weight,
    target,
    bias=None,
    *,
    class_weight=None,
    sample_weight=None,
    ignore_index=-100,
    label_smoothing=0.0,
    z_loss=0.0,
    gamma=0.0,
    temperature=1.0,
    logit_cap=None,
    prior=None,
    reduction="mean",
    chunk_bytes=None,
    grad_output=None,
    needs=(True, True, True),
    split_every=None,
):
    """
    Cross-entropy of a linear layer and its gradients: `xent.linear_cross_entropy_value_and_grad`.

    Parameters
    ----------
    x : dask.array.Array, shape (..., D)
        What goes into the layer: in chunks of positions, each with all features.
    weight : array_like or dask.array.Array, shape (C, D)
        The weights of the layer, in memory, or in chunks of classes: then no worker holds the logits of all
        classes of a position, nor all weights.
    target : dask.array.Array, array_like or column of dask.dataframe
        Labels or probabilities (..., C); cut as `x` and `weight` are.
    bias : array_like or dask.array.Array, shape (C,), optional
        Added to ``x @ weight.T``.
    class_weight, ignore_index, label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction
        As in `cross_entropy`, where `class_weight` is `weight`.
    sample_weight : dask.array.Array, array_like or column of dask.dataframe, optional
        One factor per position.
    chunk_bytes : int, optional
        The most memory that a task may hold beside its arguments and results.
    grad_output : float, array_like or dask.array.Array, optional
        Upstream gradient, which multiplies the gradients and not the loss: with ``reduction="none"`` one
        number for each position, else one number. None means 1.
    needs : (bool, bool, bool), optional
        Which of the three gradients to compute.
    split_every : int, optional
        How many partial results are merged at a time, as in ``dask.array.reduction``.

    Returns
    -------
    loss : dask.array.Array
        The loss, as that of `cross_entropy`.
    grads : tuple of dask.array.Array
        The gradients by `x`, `weight` and `bias`, in the chunks of these; None for one that is not needed.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`; also if features are in several chunks, or `needs` or `grad_output` do not fit.

    See Also
    --------
    cross_entropy, xent.linear_cross_entropy_value_and_grad

    Notes
    -----
    Compute all at once, ``dask.compute(loss, grads)``, as they come from the same tasks. A gradient of
    weights is as large as the weights for each chunk of positions, until it is added to others.

    Examples
    --------
    >>> import dask
    >>> import dask.array as da
    >>> import xent.dask
    >>> x = da.from_array([[1.0, 0.0], [0.0, 2.0]], chunks=(1, 2))
    >>> weight = [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]
    >>> loss, grads = xent.dask.linear_cross_entropy_value_and_grad(
    ...     x, weight, [0, 1], needs=(False, True, False)
    ... )
    >>> loss, (_, grad_weight, _) = dask.compute(loss, grads)
    >>> print(round(float(loss), 4))
    0.2753
    >>> grad_weight.round(3)
    array([[-0.167,  0.117],
           [ 0.122, -0.133],
           [ 0.045,  0.016]])
    """
    options = Options(class_weight, label_smoothing, z_loss, gamma, temperature, logit_cap, prior)
    layer = Layer(x, weight, bias, needs, chunk_bytes)
    target, sample_weight = (
        beside(a, name, layer.cut) for a, name in ((target, "target"), (sample_weight, "sample_weight"))
    )
    call = Call(layer.loss, layer.cut, target, sample_weight, ignore_index, options, reduction, split_every)
    factor, upstream = call.factor(), call.upstream(grad_output)
    arrays = layer.x, layer.weight, layer.bias, *map(deeper, (target, sample_weight, upstream)), factor
    how = {"needs": layer.needs, "chunk_bytes": layer.chunk_bytes}
    if call.sharded:
        chunks = (*layer.cut.states, (1,))
        states = call.map(_tasks.layer_states, chunks, LOSS, *arrays[:4], chunk_bytes=layer.chunk_bytes)
        states = call.merged(states[..., 0])
        losses = call.finished(states)
        chunks = (*layer.cut.kept[:-1], layer.cut.states[-1], (1,))
        parts = call.map(_tasks.layer_shard_grads, chunks, object, states[..., np.newaxis], *arrays, **how)
    else:
        chunks = (*layer.cut.kept, (1,))
        parts = call.map(_tasks.layer_losses_and_grads, chunks, object, *arrays, each=call.each, **how)
        losses = part(parts, 0, (*call.form[0], (1,)), call.form[1])[..., 0]
    return call.reduced(losses), layer.grads(parts, split_every)
