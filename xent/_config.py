"""What was built and what is in use."""

import numpy as np

from . import _kernels
from ._threads import CPU_QUOTA, MOST_THREADS, get_num_threads

__version__ = "0.1.0"


def show_config(mode="stdout"):
    """
    Show how xent was built and what it uses here: the first thing that a bug report needs.

    Parameters
    ----------
    mode : {"stdout", "dicts"}, optional
        Print it, or return it as a dictionary.

    Returns
    -------
    dict or None
        With `mode` "dicts": ``version``, ``compiler``, ``isa`` (the instruction set in use), ``isa_built``,
        ``isa_usable`` (lists, the best last), ``openmp``, ``threads`` (of a large call now), ``thread_limit``
        (the most that `set_num_threads` can have now), ``cpu_quota`` (processors that the container allowed
        at import, None: all), ``result_cache`` (the bytes that `set_result_cache` allows), ``cache_held``
        (those that are kept now) and ``numpy``.

    Raises
    ------
    ValueError
        If `mode` is unknown.

    Notes
    -----
    The environment variable ``XENT_ISA`` forces an instruction set when xent is imported. ``python -m xent``
    prints the same.

    Examples
    --------
    >>> import xent
    >>> config = xent.show_config(mode="dicts")
    >>> config["threads"] == xent.get_num_threads()
    True
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f'mode must be "stdout" or "dicts", got {mode!r}')
    config = {
        "version": __version__,
        "numpy": np.__version__,
        "threads": get_num_threads(),
        "thread_limit": min(_kernels.thread_limit(), MOST_THREADS),
        "cpu_quota": CPU_QUOTA,
        **_kernels.config(),
    }
    if mode == "dicts":
        return config
    for key, value in config.items():
        print(f"{key:12} {', '.join(value) if isinstance(value, list) else value}")
    return None
