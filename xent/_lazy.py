"""Arguments of xent.dask as Dask arrays cut alike, and the lazy arrays that its functions have in common."""

import functools
import math
from typing import NamedTuple

import dask.array as da
import numpy as np
from dask.sizeof import sizeof

import xent

from . import _check, _tasks
from ._arrays import as_array
from ._tasks import Place, grad_dtype, is_double


@sizeof.register(xent.Evaluation)
def _size_of_evaluation(evaluation):
    """Return the bytes of its arrays, for what workers know of their memory."""
    return sum(getattr(field, "nbytes", 0) for field in vars(evaluation).values())


# ---- what is given, cut into chunks ----


class Options(NamedTuple):
    """Options of the losses that no sum over positions depends on."""

    weight: object = None
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    gamma: float = 0.0
    temperature: float = 1.0
    logit_cap: float | None = None
    prior: object = None

    def after(self):
        """Return what is left of the temperature in states."""
        return self.temperature if self.logit_cap is None and self.prior is None else 1.0

    def given(self):
        """Return those that are not their defaults, by name."""
        return {k: v for k, v in self._asdict().items() if v is not self._field_defaults[k]}


class Cut(NamedTuple):
    """Logits, held or not: their shape and chunks.

    What has one number for each position has the class axis too, of length 1.
    """

    shape: tuple
    chunks: tuple
    axis: int
    dtype: np.dtype
    cure: str  # what puts all classes into one chunk

    def _with(self, chunks, positions=None):
        """Return chunks with others in the place of those of the classes (and of the positions)."""
        others = positions or (lambda c: c)
        return tuple(chunks if k == self.axis else others(c) for k, c in enumerate(self.chunks))

    @property
    def positions(self):
        """Chunks of what has one number for each position."""
        return self._with((1,))

    @property
    def kept(self):
        """Chunks of what has one thing for each chunk of the positions."""
        return self._with((1,), lambda c: (1,) * len(c))

    @property
    def states(self):
        """Chunks of what has one number for each position and chunk of classes."""
        return self._with((1,) * len(self.chunks[self.axis]))

    @property
    def starts(self):
        """Where the chunks begin, along each axis."""
        return tuple(tuple(np.cumsum((0, *c))[:-1].tolist()) for c in self.chunks)

    @property
    def classes(self):
        return self.shape[self.axis]


def inputs(logits, target, sample_weight, axis):
    """Return logits, what lies beside them, and a `Cut`."""
    _known(logits, "logits")
    axis = _check.axis_of(axis, logits.ndim)
    cut = Cut(logits.shape, logits.chunks, axis, logits.dtype, f"logits.rechunk({{{axis}: -1}})")
    return logits, beside(target, "target", cut), beside(sample_weight, "sample_weight", cut), cut


def _known(value, name):
    """Raise unless this is a Dask array whose chunks have known sizes."""
    if not isinstance(value, da.Array):
        kind, cure = type(value).__name__, f"give dask.array.from_array({name}, chunks)"
        if hasattr(value, "to_dask_array"):
            cure = f"give {name}.to_dask_array(lengths=True)"
        elif isinstance(getattr(value, "data", None), da.Array):  # xarray
            cure = f"give {name}.data"
        raise TypeError(f"{name} must be a Dask array, got {kind}: {cure}")
    if any(map(math.isnan, value.shape)):
        cure = f"{name}.compute_chunk_sizes() finds them out"
        raise ValueError(f"{name} has chunks of unknown sizes, in shape {value.shape}: {cure}")


def beside(value, name, cut):
    """Return labels, weights or probabilities as a Dask array that is cut as the logits are.

    What has one number for each position gets a class axis of length 1.
    """
    if value is None:
        return None
    positions = tuple(n for k, n in enumerate(cut.shape) if k != cut.axis)
    chunks = tuple(c for k, c in enumerate(cut.chunks) if k != cut.axis)
    if hasattr(value, "to_dask_array"):
        value = _column(value, name, chunks)
    elif hasattr(value, "__dask_graph__"):
        _known(value, name)
    else:
        value = as_array(value, name)
        if value.size == 0 and value.dtype.kind == "f" and name == "target":
            value = value.astype(np.int64)  # an empty list
    if name == "target" and value.shape == cut.shape and value.dtype.kind not in "iub":
        return _cut_as(value, cut.chunks)
    if value.shape != positions:
        raise ValueError(f"{name} must have the shape of the positions, {positions}, got {value.shape}")
    return da.expand_dims(_cut_as(value, chunks), cut.axis)


def _cut_as(value, chunks):
    return value.rechunk(chunks) if isinstance(value, da.Array) else da.from_array(value, chunks=chunks)


def _column(value, name, chunks):
    """Return a column of dask.dataframe, whose partitions are taken for the chunks of the positions."""
    if len(chunks) != 1 or value.npartitions != len(chunks[0]):
        cure = f"give {name}.to_dask_array(lengths=True), which counts their rows"
        raise ValueError(f"{name} has {value.npartitions} partitions, not those of the positions: {cure}")
    array = value.to_dask_array()
    return da.map_blocks(_tasks.partition, array, name=None, chunks=chunks, sizes=chunks[0], called=name,
                         **_of(array.dtype, 1))  # fmt: skip


def deeper(value):
    """Return an array with one axis more, for the features of a layer."""
    return value[..., np.newaxis] if isinstance(value, da.Array) and value.ndim else value


def _of(dtype, ndim):
    return {"dtype": dtype, "meta": np.empty((0,) * ndim, dtype)}


class Layer:
    """A linear layer: its arrays, aligned for `map_blocks` on axes (positions, classes, features)."""

    def __init__(self, x, weight, bias, needs, chunk_bytes):
        _known(x, "x")
        one = np.zeros((1, 1))
        xent.linear_cross_entropy_value_and_grad(one, one, [0], needs=needs)  # which checks them
        if isinstance(bias, (list, tuple)):  # which has no dtype of its own
            bias = _check.narrowed(_check.floats(bias, "bias"), grad_dtype(x.dtype))
        weight, bias = self._in_one(weight, "weight"), None if bias is None else self._in_one(bias, "bias")
        if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
            expected = "weight must have shape (classes, features) and x (..., features)"
            raise ValueError(f"{expected}, got {weight.shape} and {x.shape}")
        for array, name, last in (x, "x", x.ndim - 1), (weight, "weight", 1):
            if len(array.chunks[-1]) > 1:
                cure = f"{name}.rechunk({{{last}: -1}})"
                raise ValueError(f"{name} must have all features in one chunk: give {cure}")
        if bias is not None and bias.shape != weight.shape[:1]:
            raise ValueError(
                f"bias must have one number per class, shape {weight.shape[:1]}, got {bias.shape}"
            )
        self.needs, self.chunk_bytes, self.dtypes = needs, chunk_bytes, [x.dtype, weight.dtype]
        self.dtypes += [] if bias is None else [bias.dtype]
        self.given_bias = bias is not None
        dtype = np.dtype(np.float64 if any(map(is_double, self.dtypes)) else np.float32)
        shape, chunks = (*x.shape[:-1], len(weight)), (*x.chunks[:-1], weight.chunks[0])
        self.cut = Cut(shape, chunks, x.ndim - 1, dtype, "weight.rechunk({0: -1})")
        self.x, self.weight = x[..., np.newaxis, :], weight
        self.bias = None if bias is None else bias.rechunk(weight.chunks[:1])[:, np.newaxis]

    @staticmethod
    def _in_one(value, name):
        """Return a Dask array, of one chunk where it is in memory."""
        if hasattr(value, "__dask_graph__"):
            _known(value, name)
            return value
        value = as_array(value, name)
        return da.from_array(value, chunks=value.shape)

    def loss(self, logits, target, *, axis, **options):
        """Check options: the loss of a layer of the shapes and dtypes of this one, without positions."""
        weight = np.broadcast_to(np.zeros((), self.dtypes[1]), self.weight.shape)
        bias = np.zeros(len(weight), self.dtypes[2]) if self.given_bias else None
        x = np.zeros((*logits.shape[:-1], weight.shape[1]), self.dtypes[0])
        options["class_weight"] = options.pop("weight", None)
        return xent.linear_cross_entropy(x, weight, target, bias, chunk_bytes=self.chunk_bytes, **options)

    def grads(self, parts, split_every):
        """Return the gradients from what tasks returned."""
        chunks, features = self.cut.kept, self.weight.chunks[1]
        before, blocks = chunks[:-1], self.cut.states[-1]
        over = tuple(range(len(before)))
        forms = [
            ((*self.cut.chunks[:-1], blocks, features), (len(before),)),
            ((*before, self.cut.chunks[-1], features), over),
            ((*before, self.cut.chunks[-1], (1,)), over),
        ]
        needed = zip(self.needs, forms, self.dtypes, strict=False)
        grads = [
            self._grad(parts, k + 1, form, dtype, split_every) if need else None
            for k, (need, form, dtype) in enumerate(needed)
        ]
        grads += [None] * (3 - len(grads))
        return tuple(grads[:2] + [g if g is None else g[:, 0] for g in grads[2:]])

    @staticmethod
    def _grad(parts, which, form, dtype, split_every):
        chunks, axes = form
        grads = part(parts, which, chunks, np.float64)
        if all(grads.numblocks[k] == 1 for k in axes):
            grads = grads[tuple(0 if k in axes else slice(None) for k in range(grads.ndim))]
        else:
            grads = grads.sum(axis=axes, dtype=np.float64, split_every=split_every)
        return grads.astype(grad_dtype(dtype))


# ---- a call ----


class Call:
    """A call whose arguments were checked, and its parts that are lazy arrays."""

    def __init__(
        self, function, cut, target, sample_weight, ignore_index, options, reduction, split_every, asked=None
    ):
        self.cut, self.target, self.sample_weight = cut, target, sample_weight
        self.reduction, self.split_every, self.each = reduction, split_every, reduction == "none"
        self.labels, self.sharded = target.dtype.kind in "iub", len(cut.chunks[cut.axis]) > 1
        self.empty = self._checked(function, ignore_index, options, asked or {})
        arrays = {k: as_array(v, k) for k in ("weight", "prior") if (v := getattr(options, k)) is not None}
        self.options = options._replace(**arrays)
        self.place = Place(cut.axis, cut.starts, cut.classes, ignore_index)
        self.masses = None if reduction is None else self._masses()
        # of the losses: their chunks and dtype
        self.form = (cut.positions, self.empty.dtype) if self.each else (cut.kept, np.dtype(np.float64))

    def _checked(self, function, ignore_index, options, asked):
        """Return what the function returns without positions, which checks every option."""
        cut = self.cut
        if self.sharded and options.gamma and (options.label_smoothing or not self.labels):
            raise ValueError(
                "gamma takes labels without label_smoothing where the classes are in several chunks: "
                f"put them into one with {cut.cure}"
            )
        shape = tuple(n if k == cut.axis else 0 for k, n in enumerate(cut.shape))
        positions = (0,) * (len(shape) - 1)
        target = np.zeros(
            positions if self.labels or self.target.shape != cut.shape else shape, self.target.dtype
        )
        weights = None if self.sample_weight is None else np.zeros(positions, self.sample_weight.dtype)
        if self.reduction is not None:
            asked = {"reduction": self.reduction, **options._asdict()}
        else:
            asked = {"prior": options.prior, "temperature": options.temperature, **asked}
        return function(
            np.zeros(shape, cut.dtype), target, axis=cut.axis, sample_weight=weights,
            ignore_index=ignore_index, **asked,
        )  # fmt: skip

    def map(self, function, chunks, dtype, *arrays, **more):
        """Return the array of what a task makes of each block of the arrays."""
        return da.map_blocks(
            function, *arrays, chunks=chunks, **_of(dtype, len(chunks)), place=self.place,
            **self.options.given(), **more,
        )  # fmt: skip

    def merged(self, states):
        """Return the states of all classes."""
        merge = functools.partial(_tasks.merge, after=self.options.after())
        return da.reduction(
            states, _tasks.same, merge, combine=merge, axis=self.cut.axis, keepdims=True, dtype=states.dtype,
            split_every=self.split_every, meta=states._meta,
        )  # fmt: skip

    def finished(self, states):
        """Return the losses, or their sums over chunks, of states of all classes."""
        labels = self.target if self.labels else None
        return self.map(
            _tasks.finished, *self.form, states, labels, self.sample_weight, each=self.each,
            single=self.empty.dtype == np.float32, after=self.options.after(),
        )  # fmt: skip

    def reduced(self, losses, scaled=False):
        """Return the loss; `scaled` says that weights were divided before."""
        if self.each:
            return da.squeeze(losses, self.cut.axis)
        total = losses.sum(split_every=self.split_every)
        return da.map_blocks(
            _tasks.divided, total, self.masses, drop_axis=None if self.masses is None else 0, chunks=(),
            scaled=scaled, single=self.empty.dtype == np.float32, **_of(self.empty.dtype, 0),
        )  # fmt: skip

    def _masses(self):
        """Return what a mean divides by, and how many positions with a weight there are; None for a sum."""
        shape, axis, reduction = self.cut.shape, self.cut.axis, self.reduction
        if reduction in ("none", "sum"):
            return None
        number = math.prod(n for k, n in enumerate(shape) if k != axis)
        if reduction == "mean_batch":
            number = shape[0]
        weighted = self.sample_weight is not None and reduction == "mean"
        if reduction in ("mean_full", "mean_batch") or not (self.labels or weighted):
            return da.from_array(np.array([number, number], np.float64))
        arrays = self.target if self.labels else None, self.sample_weight if reduction == "mean" else None
        weight = self.options.weight if reduction == "mean" else None
        parts = da.map_blocks(
            _tasks.masses, *arrays, chunks=(*self.cut.kept, (2,)), new_axis=len(shape), place=self.place,
            weight=weight, **_of(np.float64, len(shape) + 1),
        )  # fmt: skip
        return parts.sum(axis=tuple(range(len(shape))), split_every=self.split_every)

    def factor(self):
        """Return what the gradient of the sum is multiplied by, lazily; None for 1."""
        if self.masses is None:
            return None
        return da.map_blocks(_tasks.factor, self.masses, drop_axis=0, chunks=(), **_of(np.float64, 0))

    def upstream(self, grad_output):
        """Return the upstream gradient: None, a number or an array as long as the positions."""
        if grad_output is None:
            return None
        if self.each:
            return beside(grad_output, "grad_output", self.cut)
        lazy = isinstance(grad_output, da.Array)
        number = grad_output if lazy else _check.floats(grad_output, "grad_output")
        if number.shape != ():
            raise ValueError(f"grad_output must be one number, got shape {number.shape}")
        return number if lazy else float(number)


def part(parts, which, chunks, dtype):
    """Return one of the things that each task returned."""
    return da.map_blocks(_tasks.item, parts, which=which, chunks=chunks, **_of(dtype, len(chunks)))
