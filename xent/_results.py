"""How much memory of large results is kept for later ones: what is asked for, or what can be spared."""

import os
import sys

from . import _check, _kernels
from ._groups import folders_of, text_of

# Of the memory that this process may use, and no more than this many bytes: results of up to 1 GiB, in a loop
# that lets each go when it has the next, find their memory again.
SHARE, MOST = 1 / 8, 2**30


def set_result_cache(max_bytes):
    """
    Set how much memory of large results may be kept for later ones.

    Fresh memory costs more than most results: the system has to clear its pages. When an array that a
    function of this package returned is gone, with all views of it, its memory is kept, and given to the next
    result of about its size. In a loop, that is as fast as ``out=``, with nothing to hand in.

    Parameters
    ----------
    max_bytes : int or None
        Memory that is kept is never more than this; what is more already is given back at once, that of the
        oldest results first. 0: keep none, results are NumPy's own arrays. None: the default.

    Raises
    ------
    TypeError, ValueError
        If `max_bytes` is not an integer, or is negative.

    Notes
    -----
    The default is an eighth of the memory that the process may use (the machine's, or that of its control
    group), and no more than 1 GiB: enough for results of up to 1 GiB, if a step has one. It is 0 where the
    address space of the process is limited (``ulimit -v``, ``ulimit -d``). `show_config` shows it, and what
    is kept now. ``set_result_cache(0)`` gives all of it back.

    Only results of 2 MiB and more count, up to the bound; for smaller ones the system's allocator is fast
    enough. A block is given to results from four fifths of its size on. Arrays that are in use do not count,
    and stay as they are whatever the bound becomes.

    What a call works with, tiles and packed weights, is kept for the next call besides: two blocks of at most
    64 MiB and of this bound each. They are given back when the bound is set below 64 MiB.

    Such arrays are like any other: they own their data (``flags.owndata`` is True), can be resized, pickled
    and traced by `tracemalloc`. If another allocator of NumPy is in use, they take their memory from that one
    instead. With Linux's transparent huge pages, the system takes what is kept, but for 64 MiB, when it runs
    short of memory. What is kept is given back before a `MemoryError` of this package, and in the child of a
    ``fork()``.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> xent.set_result_cache(64 * 2**20)
    >>> y = xent.softmax(np.zeros((1000, 1000)))
    >>> place = y.ctypes.data
    >>> del y
    >>> xent.softmax(np.ones((1000, 1000))).ctypes.data == place
    True
    >>> xent.set_result_cache(None)
    """
    bound = _default() if max_bytes is None else min(_check.integer(max_bytes, "max_bytes", 0), sys.maxsize)
    _kernels.bound_results(bound, _has_huge_pages())


# ---- what the machine and the system say ----


def _default(root="/"):
    """The bound where none was asked for."""
    if _has_limited_addresses():
        return 0  # nobody but us could give back what others miss
    known = [*_group_limits(root), *_machine_bytes()]
    return int(min([MOST, *(SHARE * limit for limit in known)]))


def _machine_bytes():
    """Yield the bytes of memory, where the system says them."""
    try:
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return


def _has_limited_addresses():
    """Whether the process may map only so much memory."""
    try:
        import resource
    except ImportError:  # Windows
        return False
    limits = [getattr(resource, name, None) for name in ("RLIMIT_AS", "RLIMIT_DATA")]
    return any(k is not None and resource.getrlimit(k)[0] != resource.RLIM_INFINITY for k in limits)


def _group_limits(root):
    """Yield the limits of the control groups that this process is in, the innermost first (Linux)."""
    for folder in folders_of("memory", root):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            limit = text_of(root, folder, name).strip()
            if limit.isdecimal():  # else "max"
                yield int(limit)


def _has_huge_pages(root="/"):
    """Whether the system gives huge pages to who asks for them, and NumPy is not told to do without."""
    enabled = text_of(root, "/sys/kernel/mm/transparent_hugepage/enabled")
    return bool(enabled) and "[never]" not in enabled and os.environ.get("NUMPY_MADVISE_HUGEPAGE") != "0"


set_result_cache(None)
