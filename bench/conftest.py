"""Benchmarks report through pytest-benchmark, but their times come from an interleaved run (interleave.py).

A benchmark file calls `compare` once for each operator and shape, with every implementation; it times them in
turns and hands the times to pytest-benchmark as one group.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before any OpenMP runtime is loaded: idle threads sleep

import pytest
from interleave import interleave
from peers import MISSING


class _Replay:
    """A clock for pytest-benchmark that plays recorded times: each pair of readings is one of them apart."""

    def __init__(self, times):
        self.readings = iter([reading for t in times for reading in (0.0, t)])

    def __call__(self):
        return next(self.readings)


_cache = {}


@pytest.fixture
def compare(benchmark):
    """Time `name` of `candidates`; a group is timed in one run when its first is asked for."""

    def run(group, name, candidates, **extra):
        if group not in _cache:
            _cache.clear()  # one group's arrays at a time
            _cache[group] = interleave(candidates())
        times = _cache[group][name]
        benchmark.group = group
        benchmark.extra_info.update(extra, implementation=name, group=group)
        benchmark._timer = _Replay(times)
        benchmark.pedantic(lambda: None, rounds=len(times), iterations=1)

    return run


def pytest_terminal_summary(terminalreporter):
    """Name the peers that were not measured: silence would read as a comparison that was never made."""
    for name, reason in MISSING.items():
        terminalreporter.write_line(f"not measured: {name} ({reason})")
