"""C code of the tests, compiled as the kernels are: with the flags of setup.py, per instruction set."""

import contextlib
import ctypes
import mmap
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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

CSRC = ROOT / "xent" / "csrc"
USABLE = xent.show_config(mode="dicts")["isa_usable"]
CROSS_COMPILERS = {"neon": ["aarch64-linux-gnu-gcc"]}  # for machines that this one is not


def shared_folder(tmp_path_factory, name):
    """Return a folder that the workers of pytest-xdist share."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    (folder / name).mkdir(exist_ok=True)
    return folder / name


@contextlib.contextmanager
def _locked(path):
    """Let one process at a time do what is done with a path."""
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _compile(output, isa, sources, options):
    """Compile for an instruction set, or for all (None), once; skip where there is no C compiler."""
    if fcntl is None:
        pytest.skip("not tried with the compilers of this system")
    with _locked(output):
        if not output.exists():
            _run_compiler(output, isa, sources, options)
    return output


def _run_compiler(output, isa, sources, options):
    sys.path.insert(0, str(ROOT))
    try:
        from setup import FLAGS, INCLUDE, ISAS
    finally:
        sys.path.remove(str(ROOT))
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if isa and isa not in ISAS:
        compiler = CROSS_COMPILERS[isa]
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no C compiler: {compiler[0]} is not there")
    # what GCC 14 and later refuse by themselves
    errors = ["-Werror=incompatible-pointer-types", "-Werror=implicit-function-declaration"]
    flags = [*FLAGS, *ISAS.get(isa, []), *errors, *options, "-fPIC"]
    include = [f"-I{ROOT / folder}" for folder in INCLUDE]
    command = [*compiler, *include, *flags, "-o", output, *sources]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def compile_object(folder, source, *options):
    """Return the object file of a source that is compiled once for all instruction sets."""
    return _compile(folder / f"{source.parent.name}_{source.stem}.o", None, ["-c", source], options)


def compile_library(folder, isa, sources, *options):
    """Return sources and object files as a library for an instruction set."""
    output = folder / f"{isa}.so"
    return ctypes.CDLL(str(_compile(output, isa, ["-shared", *sources, "-lm"], options)))


def compile_program(folder, isa, sources, *options):
    """Return a program for an instruction set, be it that of another machine."""
    return _compile(folder / f"{sources[0].stem}_{isa}", isa, [*sources, "-lm"], options)


def call(function, *arguments):
    """Return what a C function of pointers (arrays) and ptrdiff_t returns."""
    function.restype = ctypes.c_ssize_t
    return function(
        *(
            ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_ssize_t(a)
            for a in arguments
        )
    )


class Edge:
    """Memory that ends at a page which nobody may touch."""

    def __init__(self, size):
        self.size = size
        self.bytes = np.frombuffer(mmap.mmap(-1, size + mmap.PAGESIZE), np.uint8)
        self.end = self.bytes.ctypes.data + size
        self.protect(0)

    def protect(self, rights):
        assert (
            ctypes.CDLL(None).mprotect(ctypes.c_void_p(self.end), ctypes.c_size_t(mmap.PAGESIZE), rights) == 0
        )

    def last(self, values):
        """A copy of the values that ends where the memory does."""
        place = self.bytes[self.size - values.nbytes : self.size].view(values.dtype).reshape(values.shape)
        place[...] = values
        return place
