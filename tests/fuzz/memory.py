"""Arrays in memory of their own: strides of all kinds, unaligned or byte-swapped, with guards around."""

import numpy as np

GUARD = 64  # bytes before and after: a vector of the widest instruction set
POISON = 0xFF  # NaN as a float, -1 as an integer: who reads between the elements shows it


class Place:
    """An array and all of its memory, which remembers what was there."""

    def __init__(self, values, rng, odd=True, repeats=True):
        self.array, self.base = _laid_out(np.asarray(values), rng, odd, repeats)
        self.remember()

    def remember(self):
        self.before, self.values = self.base.copy(), self.array.copy()

    def is_untouched(self):
        """Whether no byte has changed."""
        return np.array_equal(self.base, self.before)

    def is_untouched_around(self):
        """Whether no byte has changed but those of the elements."""
        if not self.array.flags.writeable:
            return self.is_untouched()
        written = self.array.copy()
        self.array[...] = self.values
        around = self.is_untouched()
        self.array[...] = written
        return around


def _laid_out(values, rng, odd, repeats):
    """The values at some place, and the bytes that it lies in."""
    dtype, shape = values.dtype, values.shape
    odd = odd and rng.random() < 0.5
    if odd and dtype.name != "bfloat16" and rng.random() < 0.15:  # which NumPy cannot swap
        dtype = dtype.newbyteorder()
    strides = _strides(shape, dtype.itemsize, rng) if odd else _in_c_order(shape, dtype.itemsize)
    if odd and repeats and values.ndim and rng.random() < 0.08:  # one row stands for all
        repeated = int(rng.integers(values.ndim))
        if shape[repeated]:
            values = np.broadcast_to(values.take([0], repeated), shape)
            strides[repeated] = 0
    long = [axis for axis, n in enumerate(shape) if n > 1]
    if odd and repeats and len(long) > 1 and values.size and rng.random() < 0.06:  # windows that overlap
        along, axis = sorted(rng.permutation(long)[:2], key=lambda k: abs(strides[k]))
        strides[axis] = strides[along] * int(rng.integers(1, shape[along]))
    before = sum(-s * (n - 1) for s, n in zip(strides, shape, strict=True) if s < 0 and n)
    after = sum(s * (n - 1) for s, n in zip(strides, shape, strict=True) if s > 0 and n)
    shift = int(rng.integers(1, 8)) if odd and rng.random() < 0.15 else 0
    base = np.full(GUARD + before + after + dtype.itemsize + shift + GUARD, POISON, np.uint8)
    array = np.ndarray(shape, dtype, base, GUARD + before + shift, strides)
    array[...] = values
    if odd and rng.random() < 0.1:
        array.flags.writeable = False
    return array, base


def elements_meet(array):
    """Whether elements share memory with each other."""
    offsets = np.zeros(1, np.int64)
    for n, step in zip(array.shape, array.strides, strict=True):
        offsets = (offsets[:, None] + np.arange(n) * step).ravel()
    return offsets.size > 1 and np.diff(np.sort(offsets)).min() < array.itemsize


def _in_c_order(shape, itemsize):
    strides = []
    for n in reversed(shape):
        strides.insert(0, itemsize)
        itemsize *= max(n, 1)
    return strides


def _strides(shape, itemsize, rng):
    """Axes in any order and direction, with gaps."""
    order = rng.permutation(len(shape)) if rng.random() < 0.5 else range(len(shape))[::-1]
    strides, step = [0] * len(shape), itemsize
    for axis in order:
        step *= int(rng.choice([1, 1, 1, 2, 3]))
        strides[axis] = step if rng.random() < 0.8 else -step
        step = step * max(shape[axis], 1) + itemsize * int(rng.choice([0, 0, 0, 1, 5]))
    return strides
