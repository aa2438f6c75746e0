"""Fair timing on a noisy machine: candidates take turns, many rounds, so that a slow minute hits all alike.

Before each turn a candidate rests and runs untimed, as often as it is timed then: the threads of the one
before have gone to sleep, and its own data and code are as warm as in a loop that does nothing else. Only
ratios within one interleaved run count.
"""

import time

REST_SECONDS = 0.002  # longer than a thread pool spins when told to be passive
# Below this, the clock's own 0.1 microseconds and its jitter would show: the call is repeated.
MIN_BATCH_SECONDS = 50e-6
# A call as slow as this warms its own caches many times over, and is far from the best in its group: it runs
# without a rehearsal, and a few times only.
SLOW_SECONDS = 0.3
MIN_ROUNDS, MIN_ROUNDS_SLOW, MAX_ROUNDS = 5, 3, 200


class Candidate:
    """One implementation: its times so far, and the share of the run that it has used."""

    def __init__(self, call):
        self.call = call
        self.restore = getattr(call, "restore", lambda: None)  # a call in place spoils its input
        self.repeats = 1
        seconds = self._batch()
        self.slow = seconds > SLOW_SECONDS
        if not self.slow:
            seconds = min(seconds, self._batch())  # the first call may fault pages in
            self.repeats = max(1, round(MIN_BATCH_SECONDS / seconds))
        self.used = 0.0
        self.times = []

    def _batch(self):
        """Return seconds per call of one batch."""
        self.restore()
        start = time.perf_counter()
        for _ in range(self.repeats):
            self.call()
        return (time.perf_counter() - start) / self.repeats

    def turn(self):
        """Take one more time, after a rest and an untimed batch."""
        start = time.perf_counter()
        time.sleep(REST_SECONDS)
        if not self.slow:
            self._batch()
        self.times.append(self._batch())
        self.used += time.perf_counter() - start

    def wants(self, seconds):
        """Whether it should get another turn, given `seconds` in all."""
        rounds = len(self.times)
        enough = MIN_ROUNDS_SLOW if self.slow else MIN_ROUNDS
        return rounds < enough or (rounds < MAX_ROUNDS and self.used < seconds)


def interleave(calls, seconds):
    """Time each of `calls` (name -> callable) in turn; return name -> list of seconds per call.

    Each gets turns until it has used `seconds`: a slow one leaves early and does not hold up the rest.
    """
    candidates = {name: Candidate(call) for name, call in calls.items()}
    turns = list(candidates.values())
    while turns:
        for candidate in turns:
            candidate.turn()
        turns = [candidate for candidate in turns if candidate.wants(seconds)]
    return {name: candidate.times for name, candidate in candidates.items()}
