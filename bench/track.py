"""Whether a commit has lost speed: ratios to what the machine does meanwhile, beside those of another commit.

A ratio is xent's time divided by that of a piece of work of NumPy's that the same part of the machine bounds:
a copy (memory), exponentials (arithmetic), a product of matrices, a call that does next to nothing. The two
take turns (interleave.py), so that a slow minute hits both. A baseline is the ratios of another commit, one
for each kind of machine; times are not kept, nor would they mean anything on another day.

Noise is measured, not assumed: each ratio is taken in several processes, one after the other, as memory lies
elsewhere in each and the machine has better and worse minutes. How much they differ says how far their median
can be trusted, and so it does of the baseline. What seems to have lost is measured once more, and has lost if
both runs together say so.
"""

import argparse
import functools
import json
import math
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import parts  # before all that it has settings for

# isort: split
import numpy as np
from interleave import interleave
from layers import normal

import xent

BASELINE = Path(__file__).resolve().parent / "baseline.json"
# A loss that matters; below it a change of the compiler or of the place of a loop may be the reason.
ALLOWED = 0.10
PROCESSES = 14  # as many ratios of each case: a run takes some two minutes
SECONDS = 0.15  # of xent, and of the other, in each process

LARGE, ROWS, MANY, IMAGES = (512, 32000), (1024, 1000), (65536, 10), (8, 21, 128, 128)


@functools.cache
def logits(shape, seed=0):
    return normal(shape, seed=seed)


@functools.cache
def room(shape):
    """Memory for results of this shape."""
    return np.zeros(shape, np.float32)


def labels(positions, classes):
    return np.random.default_rng(1).integers(0, classes, positions)


def losses(shape, axis=-1, dtype="float32", **options):
    """Return a call of cross-entropy with its gradient, on logits of a shape."""
    x = logits(shape).astype(dtype, copy=False)
    y = labels(np.delete(shape, axis), shape[axis])
    out = room(shape) if dtype == "float32" else np.zeros_like(x)
    return lambda: xent.cross_entropy_value_and_grad(x, y, axis=axis, out=out, **options)


def of_logits(function, shape, *arguments, **options):
    x = logits(shape)
    return lambda: function(x, *arguments, **options)


def sigmoid_losses(shape):
    t = (logits(shape, seed=1) > 1).astype(np.float32)
    return of_logits(xent.sigmoid_cross_entropy_value_and_grad, shape, t, out=room(shape))


def linear_losses():
    w, y = logits((1000, 512), seed=1) / 20, labels(256, 1000)  # logits of about one
    return of_logits(xent.linear_cross_entropy_value_and_grad, (256, 512), w, y)


def convolution(size, channels, kernel):
    x = (4, channels, size, size)
    w = logits((channels, channels, kernel, kernel), seed=1) / 100
    return of_logits(xent.conv2d, x, w, padding=kernel // 2, out=room(x))


def convolution_backward(size, channels, kernel):
    x = (4, channels, size, size)
    w = logits((channels, channels, kernel, kernel), seed=1) / 100
    return of_logits(xent.conv2d_backward, x, logits(x, seed=2), w, padding=kernel // 2)


def divergence(shape):
    p, q = (xent.softmax(logits(shape, seed)) for seed in (0, 1))
    return lambda: xent.kl_div_value_and_grad(p, q, out=room(shape))


# name: (what bounds it, what makes the call)
CASES = {
    "cross_entropy, small": ("call", lambda: of_logits(xent.cross_entropy, (32, 10), labels(32, 10))),
    "value and gradient, small": ("call", lambda: losses((32, 10))),
    "softmax": ("exp", lambda: of_logits(xent.softmax, ROWS, out=room(ROWS))),
    "softmax_backward": (
        "copy",
        lambda: of_logits(xent.softmax_backward, LARGE, logits(LARGE), out=room(LARGE)),
    ),
    "logsumexp": ("exp", lambda: of_logits(xent.logsumexp, ROWS)),
    "cross_entropy, large": ("copy", lambda: of_logits(xent.cross_entropy, LARGE, labels(512, 32000))),
    "value and gradient, large": ("copy", lambda: losses(LARGE)),
    "value and gradient, float16": ("copy", lambda: losses(LARGE, dtype="float16")),
    "value and gradient, 10 classes": ("exp", lambda: losses(MANY)),
    "value and gradient, images": ("exp", lambda: losses(IMAGES, axis=1)),
    "value and gradient, options": (
        "exp",
        lambda: losses(ROWS, label_smoothing=0.1, temperature=0.5, z_loss=1e-3),
    ),
    "focal loss": ("exp", lambda: losses(ROWS, gamma=2.0)),
    "focal loss, soft targets": ("exp", lambda: losses(ROWS, gamma=2.0, label_smoothing=0.1)),
    "gradient and Hessian": ("exp", lambda: of_logits(xent.cross_entropy_grad_hess, MANY, labels(*MANY))),
    "gradient and Hessian, focal": (
        "exp",
        lambda: of_logits(xent.cross_entropy_grad_hess, MANY, labels(*MANY), gamma=2.0),
    ),
    "Hessian-vector product, focal": (
        "exp",
        lambda: of_logits(xent.cross_entropy_hvp, ROWS, labels(*ROWS), logits(ROWS, seed=1), gamma=2.0),
    ),
    "logsumexp, weighted": ("exp", lambda: of_logits(xent.logsumexp, ROWS, b=logits(ROWS, seed=1))),
    "sigmoid_cross_entropy": ("exp", lambda: sigmoid_losses(ROWS)),
    "kl_div": ("exp", lambda: divergence(ROWS)),
    "evaluate": ("copy", lambda: of_logits(xent.evaluate, LARGE, labels(512, 32000))),
    "token_log_probs": ("copy", lambda: of_logits(xent.token_log_probs, LARGE, labels((512, 8), 32000))),
    "linear_cross_entropy": ("product", linear_losses),
    "conv2d, 3x3": ("product", lambda: convolution(28, 64, 3)),
    "conv2d, 1x1": ("product", lambda: convolution(28, 128, 1)),
    "conv2d_backward": ("product", lambda: convolution_backward(28, 64, 3)),
    "max_pool2d": ("copy", lambda: of_logits(xent.max_pool2d, (16, 64, 56, 56), 2)),
}


def references():
    """Return name -> call of NumPy's that one part of the machine bounds."""
    large, copy = logits(LARGE), room(LARGE)
    cached, powers = logits(2**20), room(2**20)  # 4 MiB each
    rows, b = logits((192 * parts.THREADS, 512)), logits((512, 512))
    small = normal(320)
    return {
        "copy": parts.in_parts(np.copyto, copy, large),
        "exp": parts.in_parts(np.exp, cached, powers),
        "product": parts.in_parts(lambda part: part.reshape(-1, 512) @ b, rows),
        "call": lambda: np.exp(small).sum(),
    }


def visit(names):
    """Return name -> xent's shortest time, divided by the shortest of the other."""
    others, ratios = references(), {}
    for name in names:
        bound, make = CASES[name]
        times = interleave({"xent": make(), bound: others[bound]}, SECONDS)
        ratios[name] = min(times["xent"]) / min(times[bound])
    return ratios


def measure(names):
    """Return name -> ratios, one of each process."""
    ratios = {name: [] for name in names}
    # A BLAS with threads of its own waits for each of them: where another process has one of two processors,
    # products took ten times as long as without.
    alone = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--visit", json.dumps(names)]
    for _ in range(PROCESSES):
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | alone)
        for name, ratio in json.loads(done.stdout).items():
            ratios[name].append(ratio)
    return ratios


def summary(ratios):
    """Return the median of ratios, and the noise of it: two standard errors, as a share.

    Of normal deviations, quartiles are 1.349 standard deviations apart, and the standard error of a median is
    1.253 of that of a mean. Quartiles, as one bad minute says nothing.
    """
    low, middle, high = statistics.quantiles(ratios, n=4)
    error = 1.253 * (high - low) / 1.349 / math.sqrt(len(ratios))
    return {"ratio": round(middle, 4), "noise": round(2 * error / middle, 4)}


def loss(now, before):
    """Return how much slower xent is now, and the noise of that, as shares."""
    return now["ratio"] / before["ratio"] - 1, math.hypot(now["noise"], before["noise"])


def compare(now, before):
    """Print both, and return the names of those that have lost more than is allowed beyond the noise."""
    print(f"{'':32}{'before':>9}{'now':>9}{'change':>9}{'noise':>8}")
    lost = []
    for name, found in now.items():
        if name not in before:
            print(f"{name:32}{'new':>9}{found['ratio']:9.3f}")
            continue
        change, noise = loss(found, before[name])
        if change > ALLOWED + noise:
            lost.append(name)
        ratios = f"{before[name]['ratio']:9.3f}{found['ratio']:9.3f}"
        print(f"{name:32}{ratios}{change:+9.1%}{noise:8.1%}{'  lost' if name in lost else ''}")
    return lost


def kind_of_machine():
    """Return what must be the same for ratios to be compared."""
    config = xent.show_config(mode="dicts")
    return f"{config['processor']}, {config['isa']}, {config['threads']} threads, NumPy {config['numpy']}"


def summaries(ratios):
    return {name: summary(found) for name, found in ratios.items()}


def track(baselines, names):
    """Compare with the baseline of this kind of machine; return whether nothing has lost."""
    if kind_of_machine() not in baselines:
        raise SystemExit(
            f"no baseline of this kind of machine ({kind_of_machine()}). "
            "Make one of the commit to compare with: make bench-baseline"
        )
    before = baselines[kind_of_machine()]
    print(f"beside {before['commit']} on {kind_of_machine()}")
    ratios = measure(names)
    found = summaries(ratios)
    lost = compare(found, before["ratios"])
    if lost:
        print("once more, both runs together:")
        more = measure(lost)
        found |= summaries({name: ratios[name] + more[name] for name in lost})
        lost = compare({name: found[name] for name in lost}, before["ratios"])
    noisy = [name for name in found if found[name]["noise"] > ALLOWED]
    if noisy:
        print(f"too much noise to say much, try a quieter machine: {'; '.join(noisy)}")
    print(f"lost: {'; '.join(lost)}" if lost else "nothing has lost more than 10 % beyond the noise")
    return not lost


def commit():
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or xent.__version__


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="keep the ratios of this commit as the baseline")
    parser.add_argument("--baseline", type=Path, default=BASELINE, help="the file of baselines")
    parser.add_argument("--only", default="", help="cases whose names match this expression")
    parser.add_argument("--visit", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.visit:
        json.dump(visit(options.visit), sys.stdout)
        return
    names = [name for name in CASES if re.search(options.only, name)]
    baselines = json.loads(options.baseline.read_text()) if options.baseline.exists() else {}
    if not options.write:
        raise SystemExit(not track(baselines, names))
    baselines[kind_of_machine()] = {"commit": commit(), "ratios": summaries(measure(names))}
    options.baseline.write_text(json.dumps(baselines, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
