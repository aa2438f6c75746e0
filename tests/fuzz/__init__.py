"""A fuzzer of every public function: `python -m tests.fuzz --seed 1 --calls 1000`.

memory.py lays arrays out, with guard bytes around and between; values.py draws numbers; calls.py draws the
arguments of a function by their names, so that a new function or option is fuzzed as soon as it is public;
judge.py says what may come of a call. tests/test_fuzz.py runs some thousand calls of a seed.
"""
