"""Mixed calls of changing sizes from several threads and processes, for as long as is said.

    python tests/soak.py --minutes 120

Each call is drawn as tests/fuzz draws it, from a number; when a number comes again, the bits must be the
same, on whatever threads. Memory, file descriptors and the kept results are looked at all the time. The exit
code is 1 if anything grew or changed.
"""

import argparse
import gc
import hashlib
import multiprocessing
import os
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np  # noqa: E402
from fuzz.calls import FUNCTIONS, drawn  # noqa: E402
from fuzz.judge import _leaves, _outcome, _placed  # noqa: E402

import xent  # noqa: E402

NUMBERS = 120  # different calls of each function
GROWTH = (
    48 * 2**20
)  # bytes by which resident memory may differ between two parts of a run: what threads have in flight
CACHE = 64 * 2**20


def one(name, number):
    """Run a call; return what it gave as a digest."""
    rng = np.random.default_rng([11, number, zlib.crc32(name.encode())])
    call = drawn(name, rng, number % 4 == 3)
    _, given = _placed(call, rng)
    result, error = _outcome(name, given)
    whole = hashlib.blake2b(repr(error).encode() if error else b"")
    for leaf in _leaves(result):
        whole.update(leaf.tobytes())
    return whole.digest()


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


class Worker:
    """One process with several threads."""

    def __init__(self, seed, threads, seconds):
        self.seed, self.end, self.threads = seed, time.monotonic() + seconds, threads
        self.start, self.seconds = time.monotonic(), seconds
        self.digests, self.calls, self.wrong = {}, 0, []

    def run(self, report):
        warnings.simplefilter("ignore")
        xent.set_result_cache(CACHE)
        threads = [threading.Thread(target=self.work, args=(k,)) for k in range(self.threads)]
        samples, files = [], len(os.listdir("/proc/self/fd"))
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(min(1.0, self.seconds / 60))
            samples.append((time.monotonic() - self.start, resident()))
            held = xent.show_config(mode="dicts")["cache_held"]
            if held > CACHE:
                self.wrong.append(f"{held} bytes are kept")
        gc.collect()
        left = len(os.listdir("/proc/self/fd")) - files
        if left > 0:
            self.wrong.append(f"{left} more file descriptors")
        report.put((self.calls, self.growth(samples), self.wrong[:5]))

    def work(self, thread):
        rng = np.random.default_rng([self.seed, thread])
        while time.monotonic() < self.end and len(self.wrong) < 5:
            name, number = FUNCTIONS[rng.integers(len(FUNCTIONS))], int(rng.integers(NUMBERS))
            with xent.num_threads(int(rng.integers(1, 4))):
                digest = one(name, number)
            if self.digests.setdefault((name, number), digest) != digest:
                self.wrong.append(f"{name} number {number} has other bits")
            self.calls += 1

    def growth(self, samples):
        """How much more memory there is, at least, in the last quarter of a run than in the second. What a
        call takes for a while does not count."""
        second = [size for at, size in samples if 0.25 < at / self.seconds < 0.5]
        last = [size for at, size in samples if at / self.seconds > 0.75]
        return min(last) - min(second) if second and last else 0


def main():
    parser = argparse.ArgumentParser(
        prog="python tests/soak.py", description="Mixed calls for as long as is said."
    )
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    report, workers = context.SimpleQueue(), []
    for k in range(given.processes):
        worker = Worker(given.seed + k, given.threads, 60 * given.minutes)
        workers.append(context.Process(target=start, args=(vars(worker), report)))
        workers[-1].start()
    for worker in workers:
        worker.join()
    bad = [f"a process ended with {worker.exitcode}" for worker in workers if worker.exitcode]
    calls = 0
    while not report.empty():
        count, growth, wrong = report.get()
        calls += count
        print(f"{count} calls, memory {growth / 2**20:+.1f} MiB")
        bad += wrong + [f"memory grew by {growth} bytes"] * (growth > GROWTH)
    print(
        f"{calls} calls in {given.minutes:g} minutes; " + ("; ".join(bad) or "nothing grew, no bit changed")
    )
    return 1 if bad or not calls else 0


def start(fields, report):
    worker = Worker(fields["seed"], fields["threads"], fields["seconds"])
    worker.run(report)


if __name__ == "__main__":
    sys.exit(main())
