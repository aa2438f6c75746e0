"""Fair timing on a noisy machine: candidates take turns, many rounds, so that a slow minute hits all alike.

Before each turn a candidate rests and runs untimed, as often as it is timed then: the threads of the one
before have gone to sleep, and its own data and code are as warm as in a loop that does nothing else. Only
ratios within one interleaved run count.
"""

import time

REST_SECONDS = 0.002  # longer than a thread pool spins when told to be passive
# Below this, the clock's own 0.1 microseconds and its jitter would show: the call is repeated.
MIN_BATCH_SECONDS = 50e-6


def _repeats(call):
    """Return how many calls in a row make up one measurement."""
    start = time.perf_counter()
    call()
    seconds = max(time.perf_counter() - start, 1e-7)
    return max(1, round(MIN_BATCH_SECONDS / seconds))


def _turn(call, repeats):
    """Return seconds per call of a batch, taken after a rest and an untimed batch."""
    restore = getattr(call, "restore", lambda: None)  # a call in place spoils its input
    time.sleep(REST_SECONDS)
    for _ in ("untimed", "timed"):
        restore()
        start = time.perf_counter()
        for _ in range(repeats):
            call()
    return (time.perf_counter() - start) / repeats


def interleave(candidates, seconds, min_rounds=5, max_rounds=200):
    """Time each of `candidates` (name -> callable) in turn; return name -> list of seconds per call.

    Rounds go on until `seconds` have passed for each candidate, at least `min_rounds`, at most `max_rounds`.
    A slow candidate thus shortens the run for all: a list is never longer for one than for another.
    """
    for call in candidates.values():  # compile, allocate, fault pages in
        call()
    repeats = {name: max(_repeats(call), _repeats(call)) for name, call in candidates.items()}
    times = {name: [] for name in candidates}
    deadline = time.perf_counter() + seconds * len(candidates)
    for round_number in range(max_rounds):
        if round_number >= min_rounds and time.perf_counter() > deadline:
            break
        for name, call in candidates.items():
            times[name].append(_turn(call, repeats[name]))
    return times
