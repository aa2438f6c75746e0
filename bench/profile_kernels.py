"""Prints where the time of some typical calls goes, function by function.

perf samples by the timer of the processor's clock, which virtual machines have even where they hide the
hardware counters: waiting for memory shows. Where perf cannot run, valgrind counts instructions instead.
Both name the kernels by the symbols of the extension module, which the build keeps, if without line numbers.

(The file is not called profile.py: a module of the standard library is.)
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from workload import WORKLOADS

HERE = Path(__file__).resolve().parent
SECONDS = 2  # of each workload under perf: thousands of samples
INSTRUCTIONS = 50_000_000  # of each workload under valgrind, about 50 times slower than without: seconds
SHOWN = 8  # functions
HELP = """no profiler found that works here. Install one of
  perf      apt install linux-perf (Debian) or linux-tools-generic (Ubuntu); containers may forbid it
  valgrind  apt install valgrind"""


def run(command, **environment):
    """Run a command quietly; return its output."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done.stdout


def workload(name, seconds, calls):
    return [sys.executable, str(HERE / "workload.py"), name, str(seconds), str(calls)]


def with_perf(name, folder):
    """Yield (percent, function, library) of one workload."""
    control, data = f"{folder}/control", f"{folder}/perf.data"
    os.mkfifo(control)
    options = ["-q", "-e", "cpu-clock", "-D", "-1", "--control", f"fifo:{control}", "-o", data]
    # perf reads the command a moment later: the pause keeps the first calls from being lost
    start = f"echo enable > {control}; sleep 0.1"
    run(["perf", "record", *options, "--", *workload(name, SECONDS, 10**9)], XENT_PROFILE_START=start)
    shown = ["--stdio", "--no-children", "-F", "overhead,symbol,dso", "-t", "|"]
    for line in run(["perf", "report", "-i", data, *shown]).splitlines():
        match = re.match(r"\s*([\d.]+)%\s*\|\[(.)\] (.*?)\s*\|(.*)", line)
        if match:
            where = match[4].strip() if match[2] == "." else "kernel"
            yield float(match[1]), match[3], where


def with_valgrind(name, folder):
    """Yield (percent, function, library) of one workload."""
    data = f"{folder}/callgrind.out"
    rows, classes = WORKLOADS[name][0]
    # A gradient takes about ten instructions an element, a call some thousands of instructions.
    calls = max(3, INSTRUCTIONS // (10 * rows * classes + 20_000))
    options = ["-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={data}"]
    start = "callgrind_control -i on {pid}"
    run(["valgrind", *options, *workload(name, 1e9, calls)], XENT_PROFILE_START=start)
    for line in run(["callgrind_annotate", "--auto=no", data]).splitlines():
        match = re.match(r"\s*[\d,]+ \(\s*([\d.]+)%\)\s+.*?:([^:\s]+)(?: \[(.*)\])?$", line)
        if match:
            yield float(match[1]), match[2], Path(match[3] or "").name


def perf_works():
    """Whether perf is there and may sample."""
    if not shutil.which("perf"):
        return False
    command = ["perf", "record", "-q", "-e", "cpu-clock", "-o", os.devnull, "true"]
    return subprocess.run(command, capture_output=True).returncode == 0


def choose():
    """Return what a profiler measures, and the function that runs it."""
    if perf_works():
        return "time, by perf", with_perf
    if shutil.which("valgrind") and shutil.which("callgrind_control"):
        return "instructions, by valgrind", with_valgrind
    raise SystemExit(HELP)


def main():
    measure, profiler = choose()
    for name, (shape, _) in WORKLOADS.items():
        print(f"\n{name} on {shape} float32: share of {measure}")
        with tempfile.TemporaryDirectory() as folder:
            for percent, function, library in list(profiler(name, folder))[:SHOWN]:
                print(f"  {percent:5.1f} %  {function:45} {library}")


if __name__ == "__main__":
    main()
