"""What a coverage-guided fuzzer of the kernels has kept (`make guided`, tests/fuzz/guided.c), once more.

Under the sanitizers, on each instruction set of the machine. Where these fuse, losses have the same bits.
"""

import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from compiled import CSRC, USABLE, compile_program
from helpers import ROOT

FUZZ = ROOT / "tests" / "fuzz"
PLAIN = ("walk", "scan", "reorder", "plan")
SANITIZERS = "address,undefined,float-cast-overflow"


def replayed(folder, isa):
    """{line: (operator, digest)} of corpus.txt."""
    families = sorted(CSRC.glob("*/kernels.c"))
    plain = [path for name in PLAIN for path in CSRC.rglob(f"{name}.c")]
    options = ["-O1", "-DXENT_ISA=kernels", "-DXENT_REPLAY", f"-I{ROOT / 'tests'}", "-Wno-unused-function"]
    options += [f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all"]
    program = compile_program(folder, isa, [FUZZ / "guided.c", *families, *plain], *options)
    done = subprocess.run([program, FUZZ / "corpus.txt"], capture_output=True, text=True)
    assert done.returncode == 0, f"{isa}: {done.stdout[-200:]}{done.stderr[-4000:]}"
    return [line.split(": ") for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_kept_inputs(tmp_path):
    with ThreadPoolExecutor() as pool:
        found = dict(zip(USABLE, pool.map(lambda isa: replayed(tmp_path, isa), USABLE), strict=True))
    fused = [isa for isa in USABLE if isa != "baseline"]
    for isa in USABLE:
        assert len(found[isa]) > 1000
    for isa in fused[1:]:
        others = [line for line, first in zip(found[isa], found[fused[0]], strict=True) if line != first]
        assert not others, f"other bits on {isa} than on {fused[0]}: {others[:20]}"
