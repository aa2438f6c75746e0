"""Fair timing on a noisy machine: candidates take turns, many rounds, so that a slow minute hits all alike.

Before each timed call a candidate rests and runs once untimed: the threads of the one before have gone to
sleep, and its own data are as warm in the caches as in a loop that does nothing else. Only ratios within one
interleaved run count.
"""

import statistics
import time

REST_SECONDS = 0.002  # longer than a thread pool spins when told to be passive
MIN_BATCH_SECONDS = (
    50e-6  # below this, the clock's own 0.1 microseconds and its jitter would show: repeat the call
)


def _repeats(call):
    """Return how many calls in a row make up one measurement."""
    start = time.perf_counter()
    call()
    seconds = max(time.perf_counter() - start, 1e-7)
    return max(1, round(MIN_BATCH_SECONDS / seconds))


def interleave(candidates, seconds=1.0, min_rounds=7, max_rounds=200):
    """Time each of `candidates` (name -> callable) in turn; return name -> list of seconds per call.

    Rounds go on until `seconds` have passed for each candidate, at least `min_rounds`, at most `max_rounds`.
    """
    for call in candidates.values():  # compile, allocate, fault pages in
        call()
        call()
    repeats = {name: max(_repeats(call), _repeats(call)) for name, call in candidates.items()}
    times = {name: [] for name in candidates}
    deadline = time.perf_counter() + seconds * len(candidates)
    for round_number in range(max_rounds):
        if round_number >= min_rounds and time.perf_counter() > deadline:
            break
        for name, call in candidates.items():
            time.sleep(REST_SECONDS)
            call()
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return times


def summary(times):
    """Return name -> (minimum, median) in seconds."""
    return {name: (min(t), statistics.median(t)) for name, t in times.items()}
