"""Build xent: the bridge (Cython, with OpenMP where the compiler has it) and one object file per instruction
set.

Everything declarative is in pyproject.toml. Flags that choose an instruction set are given to csrc/isa.c and
the kernels.c of each folder alone, once for each set and into a build folder of its own: no other code may
contain instructions that the machine at hand might not have.
"""

import os
import platform
import re
import sys
import sysconfig
import tempfile
import tomllib
import warnings
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from itertools import product

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

# Loops lie well whatever stands before them: a maximum of 3 x 3 pixels took 1.13 times as long after a change
# to other kernels of its file (AVX2, Zen 4). Some 70 KB of 5.7 MB.
ALIGNED = ["-falign-functions=64", "-falign-loops=32"]
# The last one that the machine can run is used.
X86 = {
    "baseline": ["-Os"],  # for processors from before 2013: a quarter of the code, see base.h
    "avx2": [*ALIGNED, "-mavx2", "-mfma", "-mf16c"],
    "avx512": [*ALIGNED, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"],
}


def machine():
    """What is compiled for: the machine of this Python, or what a cross build names in the two variables that
    the build tools know. A Python for two machines (universal2) builds for the one that it runs on."""
    system, _, name = sysconfig.get_platform().rpartition("-")
    if sys.platform == "darwin":
        names = os.environ.setdefault("ARCHFLAGS", f"-arch {platform.machine()}").split()[1::2]
        if len(names) != 1:
            sys.exit("xent is compiled for one machine at a time: ARCHFLAGS names " + " and ".join(names))
        name = names[0]
        os.environ.setdefault("_PYTHON_HOST_PLATFORM", f"{system}-{name}")
    return name.lower()


def isas_of(machine):
    """{instruction set: flags} of a machine, the plainest first."""
    if machine in ("x86_64", "amd64"):
        return X86
    return {"neon": []} if machine in ("aarch64", "arm64") else {"baseline": []}


ISAS = isas_of(machine())

# -ffp-contract=off: products and sums fuse only where the code says v_fma; error-free transformations rely on
# it. -fno-trapping-math -fno-math-errno: nobody reads floating-point flags or errno; without these, selects
# stay branches.
FLAGS = ["-O3", "-std=gnu11", "-g0", "-fvisibility=hidden", "-fwrapv"]
FLAGS += ["-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno"]
# Sanitizers to build with, for `make sanitize`: "address,undefined". Signed overflow is an error then, except
# in kernels, where the bits of odd numbers wrap on purpose.
SANITIZE = os.environ.get("XENT_SANITIZE", "")
if SANITIZE:
    FLAGS = [flag for flag in FLAGS if flag not in ("-O3", "-g0", "-fwrapv")]
    FLAGS += ["-O1", "-g1", "-fno-omit-frame-pointer", f"-fsanitize={SANITIZE}"]
    FLAGS += ["-fno-sanitize-recover=undefined"] if "undefined" in SANITIZE else []
# For `make coverage`: count which lines and branches run.
COVERAGE = ["--coverage"] if os.environ.get("XENT_COVERAGE", "0") not in ("", "0") else []
if COVERAGE:
    FLAGS = [flag for flag in FLAGS if flag not in ("-O3", "-g0")] + ["-O1", *COVERAGE]
KERNEL_FLAGS = [*FLAGS, "-Wall", "-Wextra"] + (["-fwrapv"] if SANITIZE else [])
if sys.platform == "linux" and not SANITIZE:
    # No tables of how to unwind a stack, 70 KB of the wheel. Nothing is thrown through kernels, and Python's
    # traceback needs none; but a debugger does not see who called a kernel.
    KERNEL_FLAGS += ["-fno-asynchronous-unwind-tables"]
# Compiled once per instruction set, those that take longest first.
KERNELS = [f"xent/csrc/{folder}/kernels.c" for folder in ("softmax", "images", "pools", "elements")]
KERNELS += ["xent/csrc/isa.c"]
# Loops of convolutions are written as vectors, which -O3 makes no faster than -O2, but for those of a few
# turns, that it unrolls whole. 130 KB of the wheel.
SMALLER = {"xent/csrc/images/kernels.c": ["-O2", "-fpeel-loops"]}
# By pattern, so that none can be forgotten: a name that is missing here would be missing in the sdist.
SOURCES = sorted(set(glob("xent/csrc/**/*.c", recursive=True)) - set(KERNELS))
HEADERS = sorted(glob("xent/csrc/**/*.h", recursive=True) + glob("xent/csrc/**/*.def", recursive=True))
BRIDGE = ["xent/_kernels.pxd", *sorted(glob("xent/bridge/*.pxi"))]
# What asks for OpenMP when compiling, and when linking, the best first. Apple's clang has none of its own:
# libomp is found where CPATH and LIBRARY_PATH say. clang-cl takes LLVM's libomp, found where LIB says.
GNU_OPENMP = ["-fopenmp"], ["-fopenmp"]
OPENMP = {
    "darwin": [(["-Xpreprocessor", "-fopenmp"], ["-lomp"]), GNU_OPENMP],
    "win32": [(["-openmp"], ["libomp.lib"]), GNU_OPENMP],
}


def kernel_flags(source, isa):
    """Flags of a source that is compiled once per instruction set."""
    smaller = [] if SANITIZE or COVERAGE or "-Os" in ISAS[isa] else SMALLER.get(source, [])
    return [*KERNEL_FLAGS, *smaller, *ISAS[isa]]


# Where C sources look for headers: for the bridge, and for each other.
INCLUDE = ["xent", "xent/csrc"]

# One wheel for every CPython from 3.11 on; the free-threaded builds have no stable interface yet.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")


class BuildKernels(build_ext):
    """build_ext that compiles kernels once per instruction set and finds out about OpenMP."""

    def build_extension(self, ext):
        import numpy

        ext.include_dirs.append(numpy.get_include())
        if self.compiler.compiler_type == "msvc":  # whose cl.exe has no vector extensions
            self.compiler.initialize()
            self.compiler.cc = "clang-cl"
        openmp, ext.extra_link_args = self.openmp_flags()
        ext.extra_compile_args = self.spelled(FLAGS) + openmp
        ext.extra_link_args += COVERAGE + ([f"-fsanitize={SANITIZE}"] if SANITIZE else [])
        built = " ".join(f"X({isa})" for isa in ISAS)
        flags = " ".join(FLAGS + openmp + [os.environ.get("CFLAGS", "")]).strip().replace('"', "'")
        ext.define_macros += [("XENT_BUILT", built), ("XENT_FLAGS", f'"{flags}"')]
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # a compiler each: a minute or two every one
            objects = pool.map(lambda pair: self.compile_kernels(*pair), product(KERNELS, ISAS))
            ext.extra_objects += [path for paths in objects for path in paths]
        super().build_extension(ext)

    def compile_kernels(self, source, isa):
        """Return the object files of a source for an instruction set."""
        return self.compiler.compile(
            [source],
            output_dir=os.path.join(self.build_temp, isa),
            include_dirs=INCLUDE,
            macros=[("XENT_ISA", isa)],
            extra_preargs=self.spelled(kernel_flags(source, isa)),
        )

    def spelled(self, flags):
        """Return flags as the compiler takes them: clang-cl hands on to clang what stands behind /clang:."""
        return [f"/clang:{flag}" for flag in flags] if self.compiler.compiler_type == "msvc" else flags

    def openmp_flags(self):
        """Return the flags that make a small OpenMP program compile, and link; without any, warn.

        pip shows no warnings: XENT_REQUIRE_OPENMP=1 makes it an error, for wheels that others will use.
        """
        program = "#include <omp.h>\nint main(void) { return omp_get_max_threads() < 1; }\n"
        with tempfile.TemporaryDirectory() as folder:
            source = os.path.join(folder, "openmp.c")
            with open(source, "w") as file:
                file.write(program)
            for compile_flags, link_flags in OPENMP.get(sys.platform, [GNU_OPENMP]):
                try:
                    objects = self.compiler.compile([source], output_dir=folder, extra_postargs=compile_flags)
                    self.compiler.link_executable(
                        objects, os.path.join(folder, "openmp"), extra_postargs=link_flags
                    )
                    return compile_flags, link_flags
                except Exception as error:
                    reason = error
        if os.environ.get("XENT_REQUIRE_OPENMP", "0") not in ("", "0"):
            raise CompileError(f"XENT_REQUIRE_OPENMP is set, and this compiler has no OpenMP: {reason}")
        warnings.warn("this compiler has no OpenMP: xent is built to run on one thread", stacklevel=2)
        return [], []


def readme():
    """Return README.md with links that lead somewhere from the page of a package index, too.

    In the repository they are relative, and readable. A release has the pages and pictures that its tag has.
    """
    with open("pyproject.toml", "rb") as file:
        source = tomllib.load(file)["project"]["urls"]["Source"]
    with open("xent/_config.py", encoding="utf-8") as file:
        tag = "v" + re.search(r'^__version__ = "(.+)"', file.read(), re.MULTILINE)[1]
    with open("README.md", encoding="utf-8") as file:
        text = file.read()
    pictures = source.replace("//github.com/", "//raw.githubusercontent.com/")
    text = re.sub(r"(!\[[^\]]*\]\()(?![a-z]+:|#)", rf"\1{pictures}/{tag}/", text)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?![a-z]+:|#)", rf"\1{source}/blob/{tag}/", text)


def main():
    # NumPy 1.22 is the first in which an array can have memory of its own kind.
    macros = [
        ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
        ("NPY_TARGET_VERSION", "NPY_1_22_API_VERSION"),
    ]
    if LIMITED_API:
        macros.append(("Py_LIMITED_API", "0x030B0000"))
    setup(
        long_description=readme(),
        long_description_content_type="text/markdown",
        ext_modules=[
            Extension(
                "xent._kernels",
                ["xent/_kernels.pyx", *SOURCES],
                depends=[*KERNELS, *HEADERS, *BRIDGE],
                include_dirs=INCLUDE,
                define_macros=macros,
                py_limited_api=LIMITED_API,
            )
        ],
        cmdclass={"build_ext": BuildKernels},
        options={"bdist_wheel": {"py_limited_api": "cp311"}} if LIMITED_API else {},
    )


if __name__ == "__main__":
    main()
