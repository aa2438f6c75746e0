"""What was built and what is in use."""

import numpy as np

from . import _kernels
from ._threads import get_num_threads

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
        ``isa_usable`` (lists, the best last), ``openmp``, ``threads``, ``numpy``, ``result_cache`` (the bytes
        that `set_result_cache` allows) and ``cache_held`` (those that are kept now).

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
    >>> sorted(xent.show_config(mode="dicts"))  # doctest: +NORMALIZE_WHITESPACE
    ['cache_held', 'compiler', 'isa', 'isa_built', 'isa_usable', 'numpy', 'openmp', 'result_cache', 'threads',
    'version']
    """
    if mode not in ("stdout", "dicts"):
        raise ValueError(f'mode must be "stdout" or "dicts", got {mode!r}')
    config = {
        "version": __version__,
        "numpy": np.__version__,
        "threads": get_num_threads(),
        **_kernels.config(),
    }
    if mode == "dicts":
        return config
    for key, value in config.items():
        print(f"{key:12} {', '.join(value) if isinstance(value, list) else value}")
    return None
