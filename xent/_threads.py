"""How many threads a call uses: as few as `threads_for` of the bridge needs, as many as is said here.

The number never changes a result: work is cut by shapes alone, and partial results are merged in index order.
"""

import operator
from contextlib import contextmanager
from contextvars import ContextVar

from . import _kernels

# Below this many elements a call runs on one thread. Measured on float32 softmax with rows of 1000, on two
# cores of a virtual machine, threads that sleep between calls (OMP_WAIT_POLICY=passive), a rest of 2 ms
# before each call: to wake the second thread and to wait for it costs 50 microseconds and more, so that two
# threads took 97 microseconds for 128,000 elements where one took 75, and broke even near 500,000. Called
# again and again, or with threads that spin, they are faster from 100,000 on (62 against 120). Here neither
# loses much.
WORTH_A_THREAD = 2**17

# The unit of it is one element of a softmax, which takes the time of some tens of multiplications and
# additions of a convolution.
PRODUCTS_PER_ELEMENT = 32

# More than any machine has processors for one process; a mistyped number would otherwise create that many
# threads.
MOST_THREADS = 1024

_process_limit = None
_context_limit = ContextVar("xent_num_threads", default=None)


def _checked(n):
    if isinstance(n, bool):
        raise TypeError("n must be an integer >= 1, got a bool")
    try:
        n = operator.index(n)
    except TypeError:
        raise TypeError(f"n must be an integer >= 1, got {type(n).__name__}") from None
    if not 1 <= n <= MOST_THREADS:
        raise ValueError(f"n must be between 1 and {MOST_THREADS}, got {n}")
    return n


def set_num_threads(n):
    """
    Set the number of threads that every later call may use.

    Parameters
    ----------
    n : int
        From 1 to 1024. It may exceed the number of processors. Inside a block of `num_threads` it holds until
        the block's end.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or out of range.

    Notes
    -----
    Until this is called, each call uses as many threads as OpenMP offers at that moment: ``OMP_NUM_THREADS``,
    the processor affinity and ``threadpoolctl`` are honoured. A small call always runs on one thread. In the
    child of a ``fork()``, where the OpenMP threads of the parent do not exist, every call runs on one thread.

    Examples
    --------
    >>> import xent
    >>> xent.set_num_threads(2)
    >>> xent.get_num_threads()
    2
    """
    global _process_limit
    n = _checked(n)
    if _context_limit.get() is None:
        _process_limit = n
    else:
        _context_limit.set(n)


def get_num_threads():
    """
    Return the number of threads that a large call would use now.

    Returns
    -------
    int
        The innermost `num_threads`, else the last `set_num_threads`, else what OpenMP offers.

    Examples
    --------
    >>> import xent
    >>> with xent.num_threads(1):
    ...     xent.get_num_threads()
    1
    """
    offered = _kernels.max_threads()
    if _kernels.forked():
        return offered
    return _context_limit.get() or _process_limit or offered


def num_threads(n):
    """
    Limit the number of threads inside a ``with`` block, in the current thread or task only.

    Parameters
    ----------
    n : int
        From 1 to 1024.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or out of range.

    Examples
    --------
    >>> import xent
    >>> with xent.num_threads(1):
    ...     y = xent.softmax([1.0, 2.0, 3.0])
    """
    return _limited(_checked(n))


@contextmanager
def _limited(n):
    token = _context_limit.set(n)
    try:
        yield
    finally:
        _context_limit.reset(token)
