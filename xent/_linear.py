"""The loss of a linear layer: how its work is cut, its workspace and its gradients.

Design: positions are worked off in chunks. The logits of a chunk are one matrix product into a scratch array,
the cross-entropy kernel puts their gradient in their place, and two more products take it to the gradients of
the layer. NumPy's BLAS and the kernels of this package take turns; neither runs inside the other's threads.
Few large chunks are best: each one but the first reads and writes all of the gradient of the weights once
more, through a block of classes that stays in a cache.
"""

import math
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np

from . import _check, _kernels, _reduction
from ._options import Options, check_options, divisor_of
from ._threads import get_num_threads, num_threads

# Default limit of extra memory, and of that of a loss alone, which has no gradient of the weights to read and
# write once more for each chunk, and gains from what lies in a cache.
CHUNK_BYTES, FORWARD_BYTES = 128 * 2**20, 64 * 2**20
# By default at most this part of all logits, unless they are so few that memory is no matter.
LOGITS_SHARE, FEW_BYTES = 3, 4 * 2**20
# Size of a product that is added to what earlier chunks or blocks gave, and of a block of converted weights;
# and what part of the memory it takes where that is less, as well as the scratch of the threads of the loss.
BLOCK_BYTES = 8 * 2**20
BLOCK_SHARE, SCRATCH_SHARE = 16, 32
# Targets that are looked at in one go, to find positions without any mass: they stay in a cache.
MASSES_BYTES = 2**16
# Classes whose rows are short for NumPy, and the length of what is made of them; from 32 of these on it pays.
FEW, WIDE = 64, 256


def loss_and_grad(
    x, weight, target, bias, options, chunk_bytes, needs=(False, False, False), grad_output=None
):
    """What the two functions share. Returns (loss, the three gradients, each None where it is not needed)."""
    p = _checked(x, weight, target, bias, options, needs, grad_output)
    plan = _planned(p, _checked_bytes(chunk_bytes))
    losses = np.zeros(p.x.shape, p.dtype) if p.options.reduction == "none" else None
    grads = _Gradients(p, plan)
    total, something = 0.0, p.divisor != 0 or p.cancels  # else a mean over nothing
    with np.errstate(all="ignore"):
        if plan.chunks and something:
            total = _run(p, plan, losses, grads)
        else:
            grads.clear()
        if plan.silent and something:
            total += _run_silent(p, plan, losses)
        if losses is None and p.cancels:
            return np.divide(total, 0.0).astype(p.dtype), grads.results()
    loss = _reduction.scalar(p.dtype, total, p.divisor) if losses is None else losses[()]
    return loss, grads.results()


def token_log_probs(x, weight, ids, bias, options, ranks, entropy, chunk_bytes):
    """Return the log-probabilities of the classes `ids`, their ranks, and the entropy of each position.

    Of the last two None, where they are not wanted.
    """
    p, shape = _checked_tokens(x, weight, ids, bias, options, entropy)
    plan, o = _planned(p, _checked_bytes(chunk_bytes)), p.options
    log_probs = _kernels.empty((math.prod(p.x.shape), p.numbers), p.dtype)
    places = _kernels.empty(log_probs.shape, np.dtype(np.int64)) if ranks else None
    entropies = _kernels.empty((len(log_probs),), p.dtype) if entropy else None
    products = _Products(p, plan)
    with np.errstate(all="ignore"):
        for chunk in plan.chunks:
            logits = products.logits(chunk)[1]
            with _limited(plan.threads):
                found = _kernels.token_log_probs(
                    logits, p.target[chunk], -1, o.temperature, o.logit_cap, o.prior, ranks, entropy
                )
            for result, part in zip((log_probs, places, entropies), found, strict=True):
                if result is not None:
                    result[chunk] = part
    results = (log_probs, shape), (places, shape), (entropies, p.x.shape)
    return tuple(None if k is None else k.reshape(shape)[()] for k, shape in results)


def _sum_over_positions(g):
    """The sum of the rows, in float64.

    NumPy adds them one at a time. Rows of few classes are added side by side, as if they were longer ones:
    for 1797 rows of 10 classes that takes 12 microseconds instead of 40, of 450 for everything.
    """
    positions, classes = g.shape
    if classes > FEW or positions * classes < 32 * WIDE:
        return g.sum(axis=0, dtype=np.float64)
    beside = WIDE // classes
    whole = positions // beside * beside
    sums = g[:whole].reshape(-1, beside * classes).sum(axis=0, dtype=np.float64)
    return sums.reshape(beside, classes).sum(axis=0) + g[whole:].sum(axis=0, dtype=np.float64)


class _LossCall(NamedTuple):
    """Arguments that were checked."""

    x: "_Positions"
    weight: np.ndarray  # as it came, like the data of x
    bias: np.ndarray | None  # of `dtype`
    target: "_Positions"
    labels: bool  # are in `target`, not probabilities
    options: Options
    dtype: np.dtype  # in which is computed
    dtypes: tuple  # of the three gradients
    divisor: float  # of the sum of the losses
    needs: tuple  # which of the three gradients are made
    factor: float  # of the gradients
    upstream: np.ndarray | None  # one of each position besides
    present: np.ndarray | None  # indices of the positions that are there; None: all
    cancels: bool = False  # the weights add up to 0, and are not all 0
    numbers: int = 1  # labels of a position
    keeps: bool = False  # the kernel keeps exponentials, for gradients or entropies


class _Positions:
    """An array (*positions, *rest) as one list of positions, of which parts are read: never copied whole."""

    def __init__(self, array, ndim):
        self.shape = array.shape[:ndim]
        self.flat = ndim <= 1 or array.flags.c_contiguous
        if ndim == 0:
            array = array[np.newaxis]
        elif ndim > 1 and self.flat:
            array = array.reshape(math.prod(self.shape), *array.shape[ndim:])
        self.array = array

    def __getitem__(self, rows):
        """The positions of a slice, or of an array of indices."""
        if self.flat:
            return self.array[rows]
        if isinstance(rows, slice):
            rows = np.arange(rows.start, rows.stop)
        return self.array[np.unravel_index(rows, self.shape)]


# ---- checks ----


def check_layer(x, weight, bias):
    """Return (x, weight, bias or None), as they came; the dtype computed in; the dtypes of the gradients."""
    (x, x_dtype), (weight, w_dtype) = _check.unconverted(x, "x"), _check.unconverted(weight, "weight")
    given, b_dtype = bias, x_dtype
    if given is not None:
        bias, b_dtype = _check.unconverted(given, "bias")
        b_dtype = x_dtype if _check.has_no_dtype(given) else b_dtype
    _check.layer(x, weight, bias)
    dtypes = x_dtype, w_dtype, b_dtype
    return x, weight, bias, _check.F64 if _check.F64 in dtypes else _check.F32, dtypes


def _checked_bytes(chunk_bytes):
    return None if chunk_bytes is None else _check.integer(chunk_bytes, "chunk_bytes", 1)


def _checked(x, weight, target, bias, options, needs, grad_output):
    """Check everything. Nothing is converted but what has one number for each class or position."""
    x, weight, bias, dtype, dtypes = check_layer(x, weight, bias)
    positions, shape = x.shape[:-1], (*x.shape[:-1], len(weight))
    options = _scaled(check_options(options, shape, "class_weight"))
    labels, probs = _target(target, shape, dtype, options.ignore_index)
    options = options._replace(ignore_index=_check.one_ignored(options.ignore_index))
    divisor, counted = divisor_of(options, shape, labels)
    present = _present(options, labels, probs, counted, math.prod(positions))
    factor, upstream = 1.0, None
    if grad_output is not None:
        each = options.reduction == "none"
        factor, upstream = _check.upstream(grad_output, positions if each else ())
        if each and upstream is None:  # one position
            factor, upstream = 1.0, np.array(factor)
    may_cancel = options.reduction == "mean" and divisor == 0 and counted
    return _LossCall(
        _Positions(x, len(positions)),
        weight,
        None if bias is None else _check.narrowed(bias, dtype),
        _Positions(probs if labels is None else labels, len(positions)),
        labels is not None,
        options,
        dtype,
        dtypes,
        divisor,
        (needs[0], needs[1], needs[2] and bias is not None),
        factor,
        None if upstream is None else upstream.reshape(-1),
        present,
        cancels=bool(may_cancel and _weighs(options, labels, present)),
        keeps=any(needs),
    )


def _checked_tokens(x, weight, ids, bias, options, entropy):
    """Return the call of a layer whose logits are asked for some classes, and the shape of these."""
    if type(ids) is np.ndarray:
        ids = ids.view()  # of our own: what the other arguments run to become arrays cannot reshape it
    x, weight, bias, dtype, dtypes = check_layer(x, weight, bias)
    ndim, logits = x.ndim - 1, (*x.shape[:-1], len(weight))
    options = check_options(options, logits)
    ids = _check.class_ids(ids, logits, ndim)
    numbers = ids.shape[-1] if ids.ndim > ndim else 1
    call = _LossCall(
        _Positions(x, ndim),
        weight,
        None if bias is None else _check.narrowed(bias, dtype),
        _Positions(ids.reshape(*x.shape[:-1], numbers), ndim),
        True,
        options,
        dtype,
        dtypes,
        1.0,
        (False, False, False),
        1.0,
        None,
        None,
        numbers=numbers,
        keeps=entropy,
    )
    return call, ids.shape


def _scaled(options):
    """Return options of a mean with weights of which neither the sum nor its inverse is infinite.

    Powers of two change none of the quotients by the sum: of the sample weights, and of the class weights
    together with the z-loss, which stands beside them.
    """
    if options.reduction != "mean":
        return options
    sample, _ = _near_one(options.sample_weight)
    weight, by_class = _near_one(options.weight)
    with np.errstate(over="ignore", under="ignore"):
        z_loss = float(np.ldexp(options.z_loss, -by_class))
    return options._replace(sample_weight=sample, weight=weight, z_loss=z_loss)


def _near_one(weights):
    """Return weights divided by a power of two, and its exponent: 0 for weights of an ordinary size."""
    most = 0.0 if weights is None or not weights.size else float(max(weights.max(), -weights.min()))
    if (
        most == 0 or 2.0**-100 < most < 2.0**100
    ):  # any number of these has a finite sum, with a finite inverse
        return weights, 0
    exponent = math.frexp(most)[1]
    return np.ldexp(weights, -exponent), exponent


def _weighs(options, labels, present):
    """Whether a position that is there has a weight other than 0, beside its label's smoothing or z-loss."""
    if labels is None or options.weight is None:
        return present is None or bool(present.size)
    labels = labels.reshape(-1) if present is None else labels.reshape(-1)[present]
    return bool(options.weight.take(labels, mode="clip").any())


def _present(options, labels, probs, counted, positions):
    """Return the indices of the positions that are there, None where all are.

    Ignored ones are not, nor those of weight 0 or without any mass, whatever their rows of x hold.
    """
    drops = _drops_classes(options, labels)
    massless = labels is None and not (options.label_smoothing or options.z_loss)
    if counted == positions and options.sample_weight is None and not drops and not massless:  # the quick yes
        return None
    there = np.ones(positions, bool)
    if counted != positions:
        there &= labels.reshape(-1) != options.ignore_index
    if options.sample_weight is not None:
        there &= options.sample_weight.reshape(-1) != 0
    if drops:
        # clipped: the labels are the caller's memory, which another thread may write to
        there[there] = options.weight.take(labels.reshape(-1)[there], mode="clip") != 0
    if massless:
        there &= _have_masses(options, _Positions(probs, probs.ndim - 1), positions)
    return None if there.all() else np.flatnonzero(there)


def _have_masses(options, probs, positions):
    """Return which positions have a class whose mass is not 0."""
    classes = slice(None) if options.weight is None or options.weight.all() else options.weight != 0
    step = max(1, MASSES_BYTES // max(probs.array[:1].nbytes, 1))
    some = [probs[slice(k, min(k + step, positions))] for k in range(0, positions, step)]
    return np.concatenate([(rows[..., classes] != 0).any(axis=-1) for rows in some] or [np.zeros(0, bool)])


def _target(target, shape, dtype, ignore_index):
    """Return (labels, None) or (None, probabilities), these as they came."""
    array = _check.as_array(target, "target")
    if array.size and array.shape == shape and array.dtype.kind not in "iub":
        return None, _check.unconverted(array, "target")[0]
    return _check.target_of(target, shape, dtype, len(shape) - 1, ignore_index, "x @ weight.T")


def _drops_classes(options, labels):
    """Whether positions are not there because their label has the weight 0, as there is no other term."""
    if labels is None or options.weight is None or options.label_smoothing or options.z_loss:
        return False
    return not options.weight.all()


# ---- how the work is cut ----


class _Plan(NamedTuple):
    """How the work is cut: by shapes, dtypes and the memory that may be used, and by nothing else."""

    chunks: list  # of positions: slices, or arrays of indices that leave some out
    silent: list  # the same of those that have a loss, but no part in the gradients
    most: int  # positions in a chunk
    columns: list  # of the weights that are converted at a time, as slices of the classes
    groups: list  # of the classes whose gradient is summed at a time
    block: int  # classes of a product that is added to the gradient of the weights
    threads: int  # of the loss, whose scratch has room


def _planned(p, chunk_bytes):
    """Return the plan that holds at most `chunk_bytes` (None: the default) beside arguments and results.

    What everything takes is said by the three functions below; this one divides the memory. A tiny part of it
    may not be enough for one position, one class of a block and the scratch of one thread: then these it is.
    """
    classes, (_, by_weight, _) = len(p.weight), p.needs
    picked, silent = _parts(p)
    count = math.prod(p.x.shape) if picked is None else len(picked)
    row = max(p.weight.shape[1] * p.dtype.itemsize, 1)
    converted = not _is_ready(p.weight, p.dtype)
    widened = by_weight and p.dtypes[1] != p.dtype  # the gradient of the weights is not summed in place
    if chunk_bytes is None:
        logits = (count + len(silent)) * classes * p.dtype.itemsize
        most = CHUNK_BYTES if by_weight else FORWARD_BYTES
        chunk_bytes = max(min(most, logits // LOGITS_SHARE), FEW_BYTES)
    position = _bytes_of_a_position(p, picked is not None, converted)
    scratch = _bytes_of_a_thread(p)
    free = chunk_bytes - _bytes_of_all(p, picked is not None)

    # All positions at once, or chunks that leave room for products which are added to the gradient. Sums for
    # 16-bit weights: of all classes if half of the memory holds them, else of a group at a time.
    block = max(min(BLOCK_BYTES, chunk_bytes // BLOCK_SHARE), row)
    largest = max(count, len(silent))
    fits = largest * position + (converted + widened) * block + scratch <= free
    group = classes
    if widened:
        group = min(classes, max(1, (block if fits else free // 2) // row))
        free -= group * row
    sides = converted + (by_weight and not fits)
    room = free - sides * block - max(scratch, free // SCRATCH_SHARE)
    size = largest if fits else max(1, room // position)
    chunks, silent_chunks = _cut(count, size), _cut(len(silent), size)
    most = max((chunk.stop - chunk.start for chunk in chunks + silent_chunks), default=0)

    # Chunks of equal length leave more: for scratch, and for larger blocks.
    left = max(free - most * position, 0)
    threads = max(1, left // (4 if sides else 1) // scratch)
    block = max(block, min(BLOCK_BYTES, (left - left // 4) // max(sides, 1))) // row
    if picked is not None:
        chunks = [picked[chunk] for chunk in chunks]
    return _Plan(
        chunks,
        [silent[chunk] for chunk in silent_chunks],
        most,
        _cut(classes, block if converted else classes),
        _cut(classes, group),
        block,
        threads,
    )


def _parts(p):
    """Return the indices of the positions with a part in the gradients (None: all), and of all others.

    An upstream gradient of 0 leaves the loss of a position, and nothing else of it. Without gradients, the
    first are those that have a loss.
    """
    none = np.arange(0)
    if not any(p.needs):
        return p.present, none
    present = np.arange(math.prod(p.x.shape)) if p.present is None else p.present
    if p.factor == 0:
        return none, present
    if p.upstream is None or p.upstream.all():
        return p.present, none
    heard = p.upstream[present] != 0
    return present[heard], present[~heard]


def _bytes_of_all(p, picked):
    """Return what a call takes whatever its chunks are: for each class, and for each position.

    Copies of the bias, and sums for its gradient; of the class weights; of the prior, and its logarithm in
    two parts; of labels, sample weights and upstream gradients, and the indices of the positions that count.
    """
    o = p.options
    per_class = (p.bias is not None) + 3 * p.needs[2] + 2 * (o.weight is not None) + 4 * (o.prior is not None)
    factors = (o.sample_weight is not None) + (p.upstream is not None)
    per_position = p.numbers * p.labels + factors + 2 * picked
    return 8 * (per_class * len(p.weight) + per_position * math.prod(p.x.shape))


def _bytes_of_a_position(p, picked, converted):
    """Return what a position of a chunk takes: logits, and copies of its row of x, gradient and target."""
    classes, features = p.weight.shape
    gathered = picked or not p.x.flat
    x_ready = p.x.array.dtype == p.dtype if gathered else _is_ready(p.x.array, p.dtype)
    rows = 2 * gathered + (not x_ready)
    if p.needs[0]:
        rows += _is_copied(p, picked) + 2 * converted
    plain = p.labels or (not gathered and p.target.flat and _is_ready(p.target.array, p.dtype))
    dense = 0 if plain else 3  # copies of probabilities: gathered, and converted twice at most
    # 64: its label, factors and loss, a partial sum, and NumPy's copies of these; more labels likewise
    return ((1 + dense) * classes + rows * features) * p.dtype.itemsize + 32 + 32 * p.numbers


def _bytes_of_a_thread(p):
    """Return the scratch of the kernel of the loss."""
    o = p.options
    dense, transformed = not p.labels, o.temperature != 1.0 or o.logit_cap is not None or o.prior is not None
    curved = o.gamma != 0.0 and (dense or o.label_smoothing != 0.0)
    return _kernels.cross_entropy_scratch(
        len(p.weight), p.dtype, dense, transformed, o.logit_cap or 0.0, curved, p.keeps
    )


def _is_copied(p, picked):
    """Whether the gradient of x is computed elsewhere and copied to its place."""
    return picked or p.dtypes[0] != p.dtype


def _cut(size, most):
    """Return slices of equal length, at most `most`, that make up `size`; only the last may be shorter."""
    parts = -(-size // max(most, 1))
    step = -(-size // max(parts, 1))
    return [slice(start, min(start + step, size)) for start in range(0, size, max(step, 1))]


def _is_ready(matrix, dtype):
    """Whether np.matmul hands a matrix, or its rows, to BLAS as it lies in memory."""
    if matrix.dtype != dtype or not matrix.flags.aligned:
        return False
    if matrix.flags.c_contiguous or matrix.flags.f_contiguous:
        return True
    near, far = sorted(matrix.strides)
    across = matrix.shape[0 if near == matrix.strides[0] else 1]
    return near == dtype.itemsize and far % near == 0 and far >= across * near


# ---- the work ----


class _Products:
    """The logits of a chunk after another, in the same memory."""

    def __init__(self, p, plan):
        self.p, self.columns = p, plan.columns
        self.room = _kernels.empty((plan.most, len(p.weight)), p.dtype)
        self.x_room, self.weight_room = _Room(p.dtype), _Room(p.dtype)

    def logits(self, chunk):
        """Return the rows of x as BLAS takes them, and their logits."""
        x = self.x_room.ready(self.p.x[chunk])
        logits = self.room[: len(x)]
        for columns in self.columns:
            np.matmul(x, self.weight_room.ready(self.p.weight[columns]).T, out=logits[:, columns])
        if self.p.bias is not None:
            logits += self.p.bias
        return x, logits


def _run(p, plan, losses, grads):
    """Work all chunks: fill `losses`, or return their sum if that is None; fill the gradients in `grads`."""
    products = _Products(p, plan)
    total = 0.0
    for group in plan.groups if p.needs[1] else plan.groups[:1]:
        for k, chunk in enumerate(plan.chunks):
            first = group.start == 0
            if first or len(plan.chunks) > 1:  # else it is all there already
                x, g = products.logits(chunk)
                with _limited(plan.threads):
                    part = _chunk_loss(p, chunk, g, losses is not None, any(p.needs))
            if first and losses is not None:
                losses.reshape(-1)[chunk] = part
            elif first:
                total += part
            if first:
                grads.add_x(chunk, g, products.weight_room)
                grads.add_bias(g)
            grads.add_weight(group, k, g, x)
    return total


def _run_silent(p, plan, losses):
    """The losses of positions without a gradient, as `_run`."""
    products = _Products(p, plan)
    total = 0.0
    for chunk in plan.silent:
        with _limited(plan.threads):
            part = _chunk_loss(p, chunk, products.logits(chunk)[1], losses is not None, False)
        if losses is None:
            total += part
        else:
            losses.reshape(-1)[chunk] = part
    return total


def _limited(threads):
    """A block that uses no more threads; nothing to do, mostly."""
    return num_threads(threads) if threads < get_num_threads() else nullcontext()


def _chunk_loss(p, chunk, logits, each, want_grad):
    """Return the losses of a chunk, or their sum; with `want_grad`, the gradient takes the logits' place."""
    options = p.options._replace(axis=-1, reduction="none" if each else "sum")
    if options.ignore_index is None:
        options = options._replace(ignore_index=())
    if options.sample_weight is not None:
        options = options._replace(sample_weight=options.sample_weight.reshape(-1)[chunk])
    out, wants, upstream = logits if want_grad else None, _kernels.want_total, None
    if each:
        wants = _kernels.want_value_and_grad if want_grad else _kernels.want_value
        upstream = None if p.upstream is None or not want_grad else p.upstream[chunk]
    elif want_grad:
        upstream = float(np.divide(p.factor, p.divisor))  # infinite where weights cancel
    result = _kernels.cross_entropy(logits, p.target[chunk], out, upstream, wants, *options)
    return result[0] if each and want_grad else result


class _Room:
    """Memory for the same kind of matrix again and again, made when it is first needed."""

    def __init__(self, dtype):
        self.dtype, self.memory = dtype, None

    def matrix(self, rows, columns):
        """Return a matrix to write to."""
        if self.memory is None or self.memory.size < rows * columns:
            self.memory = None  # free it first
            self.memory = np.empty(rows * columns, self.dtype)
        return self.memory[: rows * columns].reshape(rows, columns)

    def ready(self, matrix):
        """Return a matrix as BLAS takes it: itself, or its conversion in here."""
        if _is_ready(matrix, self.dtype):
            return matrix
        converted = self.matrix(*matrix.shape)
        np.copyto(converted, matrix, casting="unsafe")
        return converted


class _Gradients:
    """The gradients that are needed, and how the logits' gradient g of a chunk is added to them."""

    def __init__(self, p, plan):
        self.p, self.plan = p, plan
        by_x, by_weight, by_bias = p.needs
        picked = bool(plan.silent) or any(not isinstance(chunk, slice) for chunk in plan.chunks)
        self.shape = (*p.x.shape, p.weight.shape[1])
        make = np.zeros if picked else _kernels.empty
        self.x = make((math.prod(p.x.shape), p.weight.shape[1]), p.dtypes[0]) if by_x else None
        self.weight = _kernels.empty(p.weight.shape, p.dtypes[1]) if by_weight else None
        self.bias = np.zeros(p.bias.shape) if by_bias else None
        self.copied = _is_copied(p, picked)
        self.row, self.term = _Room(p.dtype), _Room(p.dtype)
        self.sum, self.block = _Room(p.dtype), _Room(p.dtype)

    def clear(self):
        """Those of nothing."""
        for gradient in (self.x, self.weight):
            if gradient is not None:
                gradient[...] = 0

    def add_x(self, chunk, g, weight_room):
        """grad_x of these positions: g W, a sum over the blocks of weights that are converted."""
        if self.x is None:
            return
        shape = len(g), self.p.weight.shape[1]
        out = self.row.matrix(*shape) if self.copied else self.x[chunk]
        for columns in self.plan.columns:
            weight = weight_room.ready(self.p.weight[columns])
            if columns.start == 0:
                np.matmul(g[:, columns], weight, out=out)
            else:
                out += np.matmul(g[:, columns], weight, out=self.term.matrix(*shape))
        if self.copied:
            self.x[chunk] = out

    def add_bias(self, g):
        """grad_bias += sum over the positions."""
        if self.bias is not None:
            self.bias += _sum_over_positions(g)

    def add_weight(self, group, k, g, x):
        """grad_weight += g^T x, for a group of classes and chunk number k."""
        if self.weight is None:
            return
        features, classes, start = x.shape[1], group.stop - group.start, group.start
        direct = self.weight.dtype == g.dtype
        total = self.weight[group] if direct else self.sum.matrix(classes, features)
        if k == 0:
            np.matmul(g[:, group].T, x, out=total)
        else:
            for block in _cut(classes, self.plan.block):
                part = g[:, start + block.start : start + block.stop].T
                part = np.matmul(part, x, out=self.block.matrix(part.shape[0], features))
                _kernels.add_to(total[block], part)
        if not direct and k == len(self.plan.chunks) - 1:
            self.weight[group] = total

    def results(self):
        """Return (grad_x, grad_weight, grad_bias), None for those that are not needed."""
        x = None if self.x is None else self.x.reshape(self.shape)
        bias = None if self.bias is None else _check.narrowed(self.bias, self.p.dtypes[2])
        return x, self.weight, bias
