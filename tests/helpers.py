"""Inputs, exact answers and assertions that the test files share."""

import functools
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from mpmath import mp

import xent.reference

finfo = ml_dtypes.finfo  # NumPy's does not know bfloat16
ROOT = Path(__file__).resolve().parents[1]

# Shorter than, equal to and just longer than vectors of 4, 8 and 16 lanes, their multiples, and L1-sized
# blocks.
CLASS_COUNTS = [1, 2, 3, 5, 7, 8, 9, 10, 15, 16, 17, 31, 33, 63, 64, 65, 100, 257, 1000, 4099]
POSITION_COUNTS = [0, 1, 2, 7, 8, 9, 63, 64, 65, 300]


def position_counts(classes):
    """POSITION_COUNTS for a few classes, fewer of them for many, so that the sweep stays quick."""
    return POSITION_COUNTS if classes <= 300 else [0, 1, 2, 9, 33]


def wide(x):
    """x in float64, of whatever dtype, signalling NaNs included."""
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(np.float64)


def random_logits(shape, dtype, seed=0, scale=3.0):
    """Normal logits: probabilities from about 1 down to exp(-8 scale)."""
    return (scale * np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(dtype)


def random_labels(shape, classes, seed=0, ignored=0.0, ignore_index=-100):
    """Labels of which a share `ignored` is ignore_index."""
    rng = np.random.default_rng([seed, classes, *shape])
    labels = rng.integers(0, classes, shape)
    return np.where(rng.random(shape) < ignored, ignore_index, labels)


def random_probabilities(shape, dtype, axis=-1, seed=0):
    """Probability targets that add up to 1 along axis."""
    values = np.random.default_rng([seed, 99, *shape]).gamma(0.5, size=shape)
    return (values / values.sum(axis, keepdims=True)).astype(dtype)


def random_weights(classes, dtype, seed=0):
    """Class weights between 0.25 and 4."""
    return np.exp2(np.random.default_rng([seed, classes]).uniform(-2, 2, classes)).astype(dtype)


def targets(kind, shape, axis, dtype, seed=0, ignored=0.2, ignore_index=-100):
    """Targets for logits of this shape: labels of which some are ignored, or probabilities."""
    if kind == "probabilities":
        return random_probabilities(shape, dtype, axis, seed)
    positions = tuple(int(n) for n in np.delete(shape, axis))
    return random_labels(positions, shape[axis], seed, ignored, ignore_index)


def terms(logits, target, *, axis=-1, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"):
    """The factor a of each position, and |a p_c| + |b w_c| + |d| (or |a p_c| + |w_c t_c|) of each logit."""
    p = np.moveaxis(reference("softmax", wide(logits), axis), axis, -1)
    classes, e = p.shape[-1], label_smoothing
    w = np.ones(classes) if weight is None else np.asarray(weight, np.float64)
    if np.shape(target) == logits.shape:
        t = np.moveaxis(np.asarray(target, np.float64), axis, -1)
        pulls = w * ((1 - e) * t + e / classes)
        counted = np.ones(p.shape[:-1])
        factors = counted
    else:
        target = np.asarray(target)
        counted = (target != ignore_index).astype(np.float64)
        hit = np.arange(classes) == np.where(counted, target, 0)[..., np.newaxis]
        factors = np.where(hit, w, 0).sum(-1) * counted
        pulls = ((1 - e) * hit * w + e / classes * w) * counted[..., np.newaxis]
    divisor = {
        "none": 1,
        "sum": 1,
        "mean": factors.sum(),
        "mean_valid": counted.sum(),
        "mean_full": counted.size,
        "mean_batch": logits.shape[0],
    }[reduction]
    a = pulls.sum(-1) / (divisor or 1)
    return a, np.moveaxis(a[..., np.newaxis] * p + pulls / (divisor or 1), -1, axis)


class Exporter:
    """Anything that np.asarray takes because it has __array__."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array if dtype is None else self.array.astype(dtype)


def zoo(array):
    """Yield (name, variant): the same values in every memory layout that NumPy has.

    `array` has at least one axis. There are no lists of what a list cannot hold, and NumPy has no
    byte-swapped bfloat16. What lies between the values is poison.
    """
    contiguous = np.ascontiguousarray(array)
    poison = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else np.nan
    yield "contiguous", contiguous.copy()

    double = np.full((*array.shape[:-1], 2 * array.shape[-1]), poison, array.dtype)
    double[..., ::2] = array
    yield "every second element", double[..., ::2]

    larger = np.full(tuple(n + 3 for n in array.shape), poison, array.dtype)
    window = larger[tuple(slice(1, 1 + n) for n in array.shape)]
    window[...] = array
    yield "slice of a larger array", window

    yield "negative strides", contiguous[..., ::-1].copy()[..., ::-1]
    yield "reversed first axis", contiguous[::-1].copy()[::-1]
    yield "Fortran order", np.asfortranarray(array).copy(order="F")
    if array.dtype.name != "bfloat16":
        yield "byte-swapped", contiguous.astype(array.dtype.newbyteorder())

    frozen = contiguous.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen

    raw = np.zeros(contiguous.nbytes + 1, np.uint8)
    unaligned = np.ndarray(array.shape, array.dtype, raw, offset=1)
    unaligned[...] = array
    yield "unaligned", unaligned

    yield "__array__", Exporter(contiguous.copy())
    if array.dtype == np.float64 or array.dtype.kind in "iu":
        yield "list", contiguous.tolist()


ZOO = [name for name, _ in zoo(np.zeros((1, 1)))]


def of_zoo(name, array):
    """The variant `name` of array, or skip where a dtype has none."""
    variants = dict(zoo(array))
    if name not in variants:
        pytest.skip(f"no {name} of {array.dtype}")
    return variants[name]


# Exact answers ----------------------------------------------------------------------------------------------


def exact(values, shape):
    """mpmath numbers as a pair of float64 arrays whose sum is them, to about 32 digits."""
    high = [float(v) for v in values]
    low = [float(v - mp.mpf(h)) if mp.isfinite(v) else 0.0 for v, h in zip(values, high, strict=True)]
    return np.array(high, np.float64).reshape(shape), np.array(low, np.float64).reshape(shape)


class ExactRow:
    """Softmax of one row of finite or -inf logits in mpmath, without cancellation anywhere."""

    def __init__(self, row, temperature=1.0):
        with mp.workprec(160):
            logits = [mp.mpf(float(v)) / mp.mpf(temperature) for v in row]
            self.largest = max(range(len(row)), key=row.__getitem__)
            self.maximum = logits[self.largest]
            self.shifted = [v - self.maximum for v in logits]
            self.terms = [mp.exp(v) for v in self.shifted]
            self.rest = mp.fsum(t for c, t in enumerate(self.terms) if c != self.largest)
            self.total = 1 + self.rest
            self.log_total = mp.log1p(self.rest)

    def probability(self, c):
        with mp.workprec(160):
            return self.terms[c] / self.total

    def complement(self, c):
        """1 - probability(c)."""
        with mp.workprec(160):
            return (self.rest if c == self.largest else self.total - self.terms[c]) / self.total

    def log_probability(self, c):
        with mp.workprec(160):
            return self.shifted[c] - self.log_total

    def logsumexp(self):
        with mp.workprec(160):
            return self.maximum + self.log_total


@functools.lru_cache(maxsize=64)
def _exact_rows(data, dtype, classes):
    return [ExactRow(row) for row in np.frombuffer(data, dtype).reshape(-1, classes)]


def exact_rows(x):
    """An ExactRow for each row of a two-dimensional x."""
    return _exact_rows(np.ascontiguousarray(x).tobytes(), x.dtype.str, x.shape[1])


def exact_softmax(x):
    return exact([row.probability(c) for row in exact_rows(x) for c in range(x.shape[1])], x.shape)


def exact_log_softmax(x):
    return exact([row.log_probability(c) for row in exact_rows(x) for c in range(x.shape[1])], x.shape)


def exact_logsumexp(x):
    return exact([row.logsumexp() for row in exact_rows(x)], x.shape[:1])


def exact_cross_entropy(x, labels):
    rows = zip(exact_rows(x), labels, strict=True)
    # a plain minus would round to mpmath's 53 bits
    return exact([mp.fneg(row.log_probability(y), exact=True) for row, y in rows], x.shape[:1])


def exact_cross_entropy_grad(x, labels):
    values = [
        mp.fneg(row.complement(c), exact=True) if c == y else row.probability(c)
        for row, y in zip(exact_rows(x), labels, strict=True)
        for c in range(x.shape[1])
    ]
    return exact(values, x.shape)


def hard_rows(dtype):
    """(name, row) of logits at which naive formulas lose their digits."""
    steps = np.arange(12.0)
    yield "confident by 20", [20, 0]
    yield "confident by 40 among many", [40, *([0.25] * 30)]
    yield "probability near 1e-30", [0, -69.0, -1, -2]
    yield "less than an ulp apart", 1 + steps * float(finfo(dtype).eps)
    yield "logits near 256", 256 + steps / 7
    yield "logits near -256", -256 - steps / 7
    yield "logits near 300", 300 - steps / 5
    yield "logits near 1e4", 1e4 + steps / 4
    yield "logits near -1e7", -1e7 - steps
    yield "logits near 1e7 with one far", [1e7, 1e7 - 1, 1e7 - 2, 1e7 - 60]
    yield "spread of 80", np.linspace(-40, 40, 37)
    yield "all equal", np.full(77, 0.3)
    yield "ties at the top", [2, 5, 5, 1, 5]
    yield "tiny logits", steps * 1e-30
    yield "masked with -1e9", [1, -1e9, 2, -1e9, 0.5]
    yield "masked with finfo.min", [1, float(finfo(dtype).min), 2]
    yield "masked with -inf", [1, -np.inf, 2, 0.5]
    yield "log-sum-exp near 0", np.log(np.array([0.2, 0.3, 0.5])) + 1e-6
    if dtype == np.float64:
        yield "probability near 1e-300", [0, -690.0, -1, -2]
        yield "confident by 600", [600, 0, 1]


# Assertions -------------------------------------------------------------------------------------------------


def ulp(value, dtype):
    """Distance of neighbouring numbers of dtype at value: never 0, and finite beyond the range."""
    dtype = np.dtype(dtype)
    largest = np.nextafter(np.array(finfo(dtype).max, dtype), np.zeros((), dtype))
    with np.errstate(all="ignore"):
        magnitude = np.minimum(np.abs(np.asarray(value, np.float64)), float(largest)).astype(dtype)
        return np.asarray(np.spacing(magnitude)).astype(np.float64)


def ulp_error(actual, expected, scale=None):
    """Error of actual in ulp of its dtype, taken at scale or else at expected.

    `expected` is a float64 array or a pair of them that stands for their sum. Where one side is not finite,
    the error is 0 if both are the same, else inf.
    """
    actual = np.asarray(actual)
    high, low = expected if isinstance(expected, tuple) else (np.asarray(expected, np.float64), 0.0)
    with np.errstate(all="ignore"):
        rounded = high.astype(actual.dtype)
        error = np.abs((actual.astype(np.float64) - high) - low)
        error = error / ulp(high if scale is None else scale, actual.dtype)
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    return np.where(np.isfinite(actual) & np.isfinite(rounded), error, np.where(same, 0.0, np.inf))


def assert_ulp(actual, expected, bound, *, dtype, scale=None, slack=0.0, what=""):
    """Assert dtype, shape, and that actual lies within bound ulp (plus an absolute slack) of expected."""
    high = expected[0] if isinstance(expected, tuple) else np.asarray(expected)
    assert actual.dtype == dtype, f"{what}: dtype {actual.dtype}, expected {dtype}"
    assert actual.shape == high.shape, f"{what}: shape {actual.shape}, expected {high.shape}"
    scale = high if scale is None else scale
    error = ulp_error(actual, expected, scale)
    with np.errstate(all="ignore"):
        excess = error - np.nan_to_num(slack / ulp(scale, actual.dtype))
    # of everything that is wrong, show the worst
    if excess.size and not excess.max() <= bound:
        worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), excess.shape)
        place = [int(i) for i in worst]
        raise AssertionError(
            f"{what}: {error[worst]:.4g} ulp at {place}, bound {bound:.4g}: "
            f"got {np.asarray(actual)[worst]!r}, expected {high[worst]!r}"
        )


def assert_same_bits(actual, expected, what=""):
    """Assert equal dtype, shape and bytes; NaNs must be the same NaNs. Tuples are compared item by item."""
    if isinstance(expected, tuple):
        assert len(actual) == len(expected), what
        for a, e in zip(actual, expected, strict=True):
            assert_same_bits(a, e, what)
        return
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), what
    assert np.asarray(actual).tobytes() == np.asarray(expected).tobytes(), what


def peak_bytes(call):
    """The most memory that Python and NumPy hold at once during a call that finds nothing kept, in bytes."""
    xent.set_result_cache(0)
    xent.set_result_cache(None)
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def raises(error, *parts):
    """pytest.raises for a message with every one of parts, in any order and any spelling of a float."""
    texts = [f"{part:g}" if isinstance(part, float) else str(part) for part in parts]
    return pytest.raises(error, match="(?s)^" + "".join(f"(?=.*{re.escape(text)})" for text in texts))


def reference(name, *args, **options):
    """xent.reference.<name>, without its warnings about inf and NaN."""
    with np.errstate(all="ignore"):
        return getattr(xent.reference, name)(*args, **options)


def differences(function, x, step=1e-5):
    """Gradient of a scalar function at float64 x by central differences."""
    gradient = np.empty(x.shape)
    for place in np.ndindex(x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        span = moved[0][place] - moved[1][place]
        gradient[place] = (function(moved[0]) - function(moved[1])) / span
    return gradient


def run_python(*args, timeout=120, cwd=ROOT, stdout=subprocess.PIPE, **environment):
    """Run this Python with the xent that is under test; return the finished process with its text output."""
    path = [str(Path(xent.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": os.pathsep.join(p for p in path if p),
        **environment,
    }
    return subprocess.run(
        [sys.executable, *args],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env=environment,
    )


def control_group(controller, files):
    """A control group with this in its files; the caller removes it."""
    version_1, version_2 = Path("/sys/fs/cgroup", controller), Path("/sys/fs/cgroup")
    base = version_1 if (version_1 / "cgroup.procs").exists() else version_2
    group = base / f"xent-test-{os.getpid()}"
    try:
        if not (base / "cgroup.procs").exists():
            raise OSError("no control groups")
        group.mkdir()
        try:
            for name, text in files.items():
                (group / name).write_text(text)
        except OSError:
            group.rmdir()
            raise
    except OSError as error:
        pytest.skip(f"no control group for {controller} can be made here: {error}")
    return group


def run_in_group(group, *args, **environment):
    code = "import os, sys; open(sys.argv[1] + '/cgroup.procs', 'w').write('0'); "
    code += "os.execv(sys.executable, sys.argv[2:])"
    try:
        return run_python("-c", code, str(group), sys.executable, *args, **environment)
    finally:
        group.rmdir()
