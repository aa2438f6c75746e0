"""Compile every header of xent/csrc alone, for each stored type and each instruction set of this machine's
architecture, with the flags of setup.py and every warning an error: `make headers`.

A header must include what it uses. One that belongs to an instruction set must refuse all others."""

import itertools
import os
import shlex
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from setup import FLAGS, INCLUDE, ISAS  # noqa: E402

SOURCES = ROOT / "xent" / "csrc"
STORED = ["f64", "f32", "f16", "bf16"]  # in the order that begin.h asks for
# Kernels are static, and here nothing calls them.
CHECKS = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]
# Headers of some instruction sets only.
BELONGS = {"avx512.h": ["avx512"], "avx2.h": ["avx2"], "vec128.h": ["baseline", "neon"]}


def compiles(program, isa):
    """Return what the compiler has to say about a program: nothing if it is good."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    command = compiler + FLAGS + ISAS[isa] + CHECKS + [f"-I{ROOT / folder}" for folder in INCLUDE]
    result = subprocess.run([*command, "-x", "c", "-"], input=program, capture_output=True, text=True)
    return result.stderr if result.returncode else ""


def check(header, isa):
    """Return what is wrong with a header, or nothing."""
    name = header.relative_to(SOURCES).as_posix()
    program = f'#include "{name}"\n' + "".join(
        f'#include "end.h"\n#define XENT_STORED {stored}\n#include "{name}"\n' for stored in STORED[1:]
    )
    errors = compiles(program, isa)
    if isa in BELONGS.get(header.name, ISAS):
        return errors and f"{name} does not compile alone for {isa}:\n{errors}"
    return "" if "#error" in errors else f"{name} does not refuse {isa}\n"


def main():
    sets = [isa for isa in ISAS if not compiles("int nothing;\n", isa)]
    headers = [path for path in sorted(SOURCES.rglob("*.h")) if path.name != "kernels.h"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pairs = itertools.product(headers, sets)
        wrong = [text for text in pool.map(lambda pair: check(*pair), pairs) if text]
    print("".join(wrong) or f"{len(headers)} headers compile alone for {', '.join(sets)}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
