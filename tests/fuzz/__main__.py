"""python -m tests.fuzz --seed S --calls N [--first K] [--seconds T] [--function NAME] [--stop]"""

import argparse
import collections
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # helpers.py

import xent  # noqa: E402

from .calls import FUNCTIONS  # noqa: E402
from .judge import Finding, fuzz  # noqa: E402

LARGE = 50  # one call in so many has more elements than one thread works on


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz every public function.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="number of the first call")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after this time")
    parser.add_argument("--function", help="this one alone")
    parser.add_argument("--stop", action="store_true", help="at the first finding")
    arguments = parser.parse_args()
    counts, findings, start = collections.Counter(), 0, time.monotonic()
    for number in range(arguments.first, arguments.first + arguments.calls):
        name = FUNCTIONS[number % len(FUNCTIONS)]
        if arguments.function not in (None, name):
            continue
        if time.monotonic() - start > arguments.seconds:
            break
        try:
            counts[fuzz(arguments.seed, number, name, number // len(FUNCTIONS) % LARGE == LARGE - 1)] += 1
        except Finding as finding:
            findings += 1
            print(f"--seed {arguments.seed} --first {number} --calls 1: {finding}", flush=True)
            if arguments.stop:
                raise
    isa = xent.show_config(mode="dicts")["isa"]
    seconds = time.monotonic() - start
    print(f"{isa}: {sum(counts.values())} calls, {dict(counts)}, {findings} findings, {seconds:.0f} s")
    return findings > 0


if __name__ == "__main__":
    sys.exit(main())
