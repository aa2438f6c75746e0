"""Pieces of arrays: how they are cut, and read ahead; and how what is computed of them is added up."""

import math
from concurrent.futures import ThreadPoolExecutor

from .arrays import InputError, let_go, library

# Bytes of logits in a piece, if memory allows. Where files are in the system's cache, evaluate over 2 GB of
# bfloat16 on two cores of a Xeon (Sapphire Rapids) read 5.0 GB/s in pieces of 16 MiB, which lie in caches of
# the processor between the thread that reads and those that compute, and 3.3 GB/s in pieces of 64 MiB.
PIECE = 1 << 24

# Parts of the memory that is allowed, of which a piece takes one: a piece is read while one is computed, each
# may be a copy (of shards put together, of bytes in another order), and some is left for what is computed.
SHARES = 8


def cuts(shape, axis, position_bytes, memory, chunks=None, at_least=0):
    """Return the indices of all pieces, in the order of their positions.

    A piece has a power of two of indices along the first axis of positions; or, where one such index takes
    more memory than it may, of those along the next axis. Of arrays in chunks it has whole ones.

    Parameters
    ----------
    shape : tuple of int
        Of the logits.
    axis : int
        That of the classes.
    position_bytes : int
        What the logits of a position take.
    memory : int
        What everything may take.
    chunks : tuple of int, optional
        Of stored arrays.
    at_least : int, optional
        Bytes that a piece may have if memory allows, whatever is faster.
    """
    allowed = memory // SHARES
    if position_bytes > allowed:
        raise InputError(f"--memory is too little: a position alone needs {_size(SHARES * position_bytes)}")
    wanted = min(max(PIECE, at_least), allowed)
    axes = [k for k in range(len(shape)) if k != axis]
    return list(_cut(shape, axes, position_bytes, wanted, allowed, chunks))


def _cut(shape, axes, position_bytes, wanted, allowed, chunks):
    first, *rest = axes
    item = max(1, math.prod(shape[k] for k in rest)) * position_bytes
    index = [slice(0, n) for n in shape]
    if item > allowed and rest:
        for k in range(shape[first]):
            for inner in _cut(shape, rest, position_bytes, wanted, allowed, chunks):
                yield (*inner[:first], slice(k, k + 1), *inner[first + 1 :])
        return
    count = 1 << (max(1, wanted // max(1, item)).bit_length() - 1)
    chunk = chunks[first] if chunks else 1
    if chunk * item <= allowed:
        count = max(1, count // chunk) * chunk
    for start in range(0, shape[first], count):
        index[first] = slice(start, min(start + count, shape[first]))
        yield tuple(index)


def _size(n):
    return f"{-(-n // 2**10)}K" if n < 2**20 else f"{-(-n // 2**20)}M"


def read_ahead(read, indices):
    """Yield each index with the parts read(index), while a thread of its own reads the next.

    When they have been used, what they take of memory is let go.
    """
    pool = ThreadPoolExecutor(1)
    try:
        coming = pool.submit(read, indices[0]) if indices else None
        for k, index in enumerate(indices):
            parts = coming.result()
            if k + 1 < len(indices):
                coming = pool.submit(read, indices[k + 1])
            yield index, parts
            for part in parts:
                let_go(part)
    finally:
        pool.shutdown(cancel_futures=True)


class Total:
    """Results of pieces, added up in pairs of equally many: few additions for each, in one order.

    It does not change: `plus` returns another, so that an interruption finds it whole.
    """

    def __init__(self, parts=()):
        self._parts = parts

    def plus(self, result):
        parts, pieces = list(self._parts), 1
        while parts and parts[-1][0] == pieces:
            count, before = parts.pop()
            pieces, result = pieces + count, before + result
        return Total((*parts, (pieces, result)))

    def sum(self):
        """Return the sum, None of nothing."""
        total = None
        for _, result in self._parts:
            total = result if total is None else total + result
        return total


def progress(total):
    """Return a bar for so many positions, that is not shown where the standard error is no terminal."""
    try:
        tqdm = library("tqdm", "a bar")
    except InputError:
        return _NoBar()
    return tqdm.tqdm(total=total, unit=" positions", unit_scale=True, disable=None)


class _NoBar:
    """What there is in place of a bar without tqdm."""

    def update(self, n):
        pass

    def close(self):
        pass
