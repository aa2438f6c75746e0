"""What was built, where it runs, and what is in use: what a report of a bug needs."""

import ctypes
import os
import platform
import re
import sys
import sysconfig

import numpy as np

from . import _kernels
from ._groups import text_of
from ._threads import CPU_QUOTA, MOST_THREADS, get_num_threads

__version__ = "0.1.0"

# GNU's, LLVM's, Intel's and Microsoft's, also under the longer names that tools for wheels give to copies.
OPENMP_RUNTIME = re.compile(r"(^|[/\\])(lib(gomp|omp|iomp5(md)?)|vcomp)(?![a-z])[^/\\]*$", re.IGNORECASE)
# What the instruction set and the numbers of threads of xent, of OpenMP and of NumPy's BLAS may come from.
VARIABLES = ("XENT_", "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "MKL_", "BLIS_", "VECLIB_")


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
        With `mode` "dicts":

        - ``version``, ``path`` (of the package: another distribution may have the same name), ``python``,
          ``platform``, ``processor`` (its model), ``processors`` (those that this process may use),
          ``cpu_quota`` (processors that the container allowed at import, None: all);
        - ``numpy``, ``blas`` (of NumPy: its name and version);
        - ``compiler``, ``flags`` (with which the bridge was compiled), ``isa`` (the instruction set in use),
          ``isa_built``, ``isa_usable`` (lists, the best last), ``openmp`` (whether it was built with it),
          ``openmp_runtimes`` (files of all that are loaded in this process, more than one may mean trouble;
          None where the system does not say);
        - ``threads`` (of a large call now), ``thread_limit`` (the most that `set_num_threads` can have now),
          ``environment`` (variables that are set and say something about threads or instruction sets);
        - ``result_cache`` (the bytes that `set_result_cache` allows), ``cache_held`` (those kept now),
          ``scratch_held`` (those that calls work with, kept for the next call).

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
        "path": os.path.dirname(os.path.abspath(__file__)),
        "python": _python(),
        "platform": platform.platform(),
        "processor": _processor(),
        "processors": _processors(),
        "cpu_quota": CPU_QUOTA,
        "numpy": np.__version__,
        "blas": _blas(),
        **_kernels.config(),
        "openmp_runtimes": _openmp_runtimes(),
        "threads": get_num_threads(),
        "thread_limit": min(_kernels.thread_limit(), MOST_THREADS),
        "environment": {
            name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)
        },
    }
    if mode == "dicts":
        return config
    for key, value in config.items():
        if isinstance(value, dict):
            value = [f"{name}={setting}" for name, setting in value.items()]
        print(f"{key:15} {(', '.join(value) or 'none') if isinstance(value, list) else value}")
    return None


def _python():
    """Return the interpreter, its version, and whether it has a global lock."""
    build = ""
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        build = f", free-threaded, GIL {'on' if sys._is_gil_enabled() else 'off'}"
    return f"{platform.python_implementation()} {platform.python_version()}{build}"


def _processor(root="/"):
    """Return the model of the processor, or what is known of it."""
    model = re.search(r"^model name\s*: *(.+)", text_of(root, "/proc/cpuinfo"), re.MULTILINE)
    return model[1].strip() if model else platform.processor() or platform.machine()


def _processors():
    """Return how many processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _blas():
    """Return which BLAS NumPy was built with."""
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return " ".join(str(blas[key]) for key in ("name", "version") if key in blas) or "unknown"


def _openmp_runtimes(root="/"):
    """Return the files of all OpenMP runtimes in this process; None where the system does not say."""
    if sys.platform == "darwin":
        system = ctypes.CDLL(None)
        system._dyld_get_image_name.restype = ctypes.c_char_p
        files = [system._dyld_get_image_name(i).decode() for i in range(system._dyld_image_count())]
    else:
        # The sixth column of a mapping: the file, which may have spaces in its name.
        files = [
            line.split(None, 5)[5] for line in text_of(root, "/proc/self/maps").splitlines() if "/" in line
        ]
    return sorted({file for file in files if OPENMP_RUNTIME.search(file)}) if files else None
