"""C code of the tests, compiled as the kernels are: with the flags of setup.py, per instruction set."""

import ctypes
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
from helpers import ROOT

import xent

CSRC = ROOT / "xent" / "csrc"
USABLE = xent.show_config(mode="dicts")["isa_usable"]


def compile_library(folder, isa, sources, *options):
    """Return `sources` as a library for an instruction set; skip where there is no C compiler."""
    sys.path.insert(0, str(ROOT))
    try:
        from setup import FLAGS, ISAS
    finally:
        sys.path.remove(str(ROOT))
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no C compiler: {compiler[0]} is not there")
    library = folder / f"{isa}.so"
    # every folder, so that a header is found by its name wherever it lies
    folders = [CSRC.parent, CSRC, *sorted(path for path in CSRC.rglob("*") if path.is_dir())]
    command = [*compiler, *FLAGS, *ISAS[isa], *options, "-shared", "-fPIC", "-o", library, *sources, "-lm"]
    command[len(compiler) : len(compiler)] = [f"-iquote{path}" for path in folders]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def call(function, *arguments):
    """Call a C function of pointers (arrays) and ptrdiff_t."""
    function(
        *(
            ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_ssize_t(a)
            for a in arguments
        )
    )
