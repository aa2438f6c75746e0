"""How many threads a call uses: as few as `threads_for` of the bridge needs, as many as is said here.

The number never changes a result: work is cut by shapes alone, and partial results are merged in index order.
"""

import math
import operator
import threading
from contextlib import contextmanager
from contextvars import ContextVar

from . import _kernels
from ._quota import cpu_quota

# Below this many elements a call runs on one thread. Measured on float32 softmax with rows of 1000, on two
# cores of a virtual machine, threads that sleep between calls (OMP_WAIT_POLICY=passive), a rest of 2 ms
# before each call: to wake the second thread and to wait for it costs 50 microseconds and more, so that two
# threads took 97 microseconds for 128,000 elements where one took 75, and broke even near 500,000. Called
# again and again, or with threads that spin, they are faster from 100,000 on (62 against 120). Here neither
# loses much.
WORTH_A_THREAD = 2**17

# The same for a call that finds threads awake, because it follows another one closely: they begin within one
# or two microseconds. On Sapphire Rapids two threads took 0.67 of the time of one for a softmax of 34 rows of
# 1000, and 0.55 for 128 rows.
WORTH_AN_AWAKE_THREAD = 2**15

# The unit of it is one element of a softmax, which takes the time of some tens of multiplications and
# additions of a convolution.
PRODUCTS_PER_ELEMENT = 32

# More than any machine has processors for one process; a mistyped number would otherwise create that many
# threads.
MOST_THREADS = 1024

# Processors that the container of this process allows, as it was at import; None: all.
CPU_QUOTA = cpu_quota()

_process_limit = None
# The number of the innermost block of `num_threads`, and the thread that entered it. Some Pythons (3.14
# without a GIL) hand a copy of the context to each thread that is started, others do not: here a block holds
# for the thread that entered it alone, with every Python.
_context_limit = ContextVar("xent_num_threads", default=(None, None))


class _Here(threading.local):
    """What tells a thread from all others: their numbers are used again."""

    def __init__(self):
        self.thread = object()


_here = _Here()


def _limit_of_block():
    n, thread = _context_limit.get()
    return n if thread is _here.thread else None


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
    Set the number of threads that every later call of this process may use.

    Parameters
    ----------
    n : int
        From 1 to 1024. It may exceed the number of processors, and the quota of a container, but not
        ``OMP_THREAD_LIMIT``. Inside a block of `num_threads` it holds until the block's end, and there alone.

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or out of range.

    Notes
    -----
    Until this is called, each call uses as many threads as OpenMP offers at that moment (``OMP_NUM_THREADS``,
    the processor affinity and ``threadpoolctl`` are honoured), but no more than the CPU quota of the
    container, rounded up, as it was when xent was imported.

    A call runs on one thread where it is small, in the child of a ``fork()``, where the OpenMP threads of the
    parent do not exist, and inside a parallel region of somebody else's OpenMP code. Where the system refuses
    to create threads, a call runs on those that there are.

    Calls at once share the processors: of `k` calls from as many Python threads, each uses about `n` / `k`.

    Examples
    --------
    Unlike `num_threads`, it reaches the threads of a pool:

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> import xent
    >>> xent.set_num_threads(2)
    >>> with ThreadPoolExecutor(1) as pool:
    ...     pool.submit(xent.get_num_threads).result()
    2
    """
    global _process_limit
    n = _checked(n)
    if _limit_of_block() is None:
        _process_limit = n
    else:
        _context_limit.set((n, _here.thread))


def get_num_threads():
    """
    Return the number of threads that a large call would use now, if no other one runs.

    Returns
    -------
    int
        The innermost `num_threads` of this thread, else the last `set_num_threads`, else what OpenMP offers
        and the quota of the container allows. In any case no more than there can be: ``OMP_THREAD_LIMIT``,
        and 1 in a forked child and inside a parallel region.

    Examples
    --------
    >>> import xent
    >>> with xent.num_threads(1):
    ...     xent.get_num_threads()
    1
    """
    n = _limit_of_block() or _process_limit
    if n is None:
        n = _kernels.offered_threads()
        if CPU_QUOTA is not None:
            n = min(n, math.ceil(CPU_QUOTA))
    return min(n, _kernels.thread_limit())


def num_threads(n):
    """
    Limit the number of threads inside a ``with`` block, for the thread that enters it alone.

    With asyncio it holds for the task that enters it. It does not reach other threads, with any Python:
    neither those that are started inside the block nor those of a pool. Their calls do what
    `set_num_threads` says, or have a block of their own.

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

    In the threads of a pool:

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> def on_one_thread(x):
    ...     with xent.num_threads(1):
    ...         return xent.logsumexp(x)
    >>> with ThreadPoolExecutor(2) as pool:
    ...     results = list(pool.map(on_one_thread, [[0.0, 1.0], [2.0, 3.0]]))
    """
    return _limited(_checked(n))


@contextmanager
def _limited(n):
    token = _context_limit.set((n, _here.thread))
    try:
        yield
    finally:
        _context_limit.reset(token)
