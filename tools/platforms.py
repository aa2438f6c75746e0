"""Compile xent's C for platforms that this machine is not, every warning an error: `make platforms`.

The compiler is the Clang of the package ziglang, which has headers of all these systems, but no OpenMP. It
finds what a compiler can refuse; nothing is run. Arguments choose some of the platforms. Where --python names
the sources of CPython, whose headers for Windows no package brings, and Cython has written the bridge
(xent/_kernels.c), that is compiled for Windows too, with the headers of NumPy's wheel."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.chdir(ROOT)  # where setup.py looks for sources

from setup import FLAGS, INCLUDE, KERNELS, SOURCES, isas_of  # noqa: E402

PLATFORMS = [
    "x86_64-windows-gnu", "aarch64-windows-gnu", "x86_64-macos", "aarch64-macos", "x86_64-linux-musl",
    "aarch64-linux-musl", "aarch64-linux-gnu",
]  # fmt: skip
# -O0 after setup.py's -O3: all is looked at but by the optimizer, in a fraction of the time. Zig adds
# sanitizers, and options that a compilation alone does not use.
CHECKS = ["-O0", "-fno-sanitize=all", "-Wall", "-Wextra", "-Werror", "-Wno-unused-command-line-argument"]


def compiles(platform, source, *flags):
    """Return what the compiler says about a source: nothing if it is good."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ziglang", "cc", "-target", platform, *FLAGS, *CHECKS, *flags]
        command += [*(f"-I{folder}" for folder in INCLUDE), "-c", source, "-o", f"{folder}/object.o"]
        done = subprocess.run(command, capture_output=True, text=True)
    return f"{platform}: {source} {' '.join(flags)}\n{done.stderr}" if done.returncode else ""


def jobs(platform):
    """Yield the arguments of `compiles` for all C of a platform."""
    isas = isas_of(platform.partition("-")[0])
    for source, isa in product(KERNELS, isas):
        yield platform, source, f"-DXENT_ISA={isa}", *isas[isa]
    for source in SOURCES:
        yield platform, source, f"-DXENT_BUILT={' '.join(f'X({isa})' for isa in isas)}"


def windows_headers(cpython, folder):
    """Put Python's and NumPy's headers for Windows into a folder. Return the flags that find them."""
    shutil.copytree(cpython / "Include", folder / "python")
    shutil.copy(cpython / "PC" / "pyconfig.h.in", folder / "python" / "pyconfig.h")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    pip += ["--platform=win_amd64", "--target", folder / "numpy", "numpy"]
    subprocess.run(pip, check=True)
    return [f"-I{folder / 'python'}", f"-I{folder / 'numpy' / 'numpy' / '_core' / 'include'}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("platforms", nargs="*", default=PLATFORMS, help=" ".join(PLATFORMS))
    parser.add_argument("--python", type=Path, metavar="FOLDER", help="sources of CPython, for the bridge")
    options = parser.parse_args()
    work = [job for platform in options.platforms for job in jobs(platform)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        if options.python:
            # Cython's code is not ours: its warnings are not looked at.
            flags = windows_headers(options.python, Path(folder))
            flags += [
                "-w",
                "-DMS_WIN64",
                "-DPy_LIMITED_API=0x030B0000",
                "-DNPY_TARGET_VERSION=NPY_1_22_API_VERSION",
            ]
            work.append(("x86_64-windows-gnu", "xent/_kernels.c", *flags))
        wrong = [text for text in pool.map(lambda job: compiles(*job), work) if text]
    print("".join(wrong) or f"{len(work)} compilations for {', '.join(options.platforms)}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
