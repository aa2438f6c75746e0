"""
LightGBM and XGBoost
====================

Boost trees on handwritten digits, with xent as the objective of LightGBM and of XGBoost.

::

    pip install ".[boosting]"
    python examples/boosting.py

Both libraries grow a tree per class and round from the first and second derivatives of the loss, and take
these from a Python function if they are given one: here a `xent.boosting.Softmax`. Each is trained with its
own softmax objective ("multiclass", "multi:softprob"), with xent's and with one of plain NumPy; trees,
log-losses on the test set and times are compared.

The second derivatives are k p (1 - p), and each library has its own k, read off the sums that its first trees
record: C / (C - 1), the rule "friedman", in LightGBM (verified with 3.3 to 4.7), and 2, the rule "upper", in
XGBoost (2.1 to 3.2); `Softmax` knows them. What a library begins with differs too. docs/boosting.md says how
to use xent in both.

Fails if a log-loss differs from that of the library's own objective by more than 0.001 nats.
"""

import argparse
import json
import statistics
import sys
import time
from typing import NamedTuple

import lightgbm
import numpy as np
import xgboost
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import xent
from xent.boosting import Softmax

CLASSES = 10
SEED = 0
TOLERANCE = 1e-3  # nats
FACTORS = {"diagonal": 1.0, "upper": 2.0, "friedman": CLASSES / (CLASSES - 1)}
OWN = "built-in"


def numpy_grad_hess(logits, labels, factor):
    """The objective as one would write it in NumPy."""
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs = exps / exps.sum(axis=1, keepdims=True)
    hess = factor * probs * (1 - probs)
    probs[np.arange(len(labels)), labels] -= 1
    return probs, hess


# ---- the libraries -----------------------------------------------------------------------------------------


class Node(NamedTuple):
    """A split (a feature and a threshold), or a leaf (a value and the sum of its second derivatives)."""

    feature: int | str | None
    threshold: float | None
    value: float | None
    weight: float | None


def nodes(tree, names, children):
    """The nodes of a dumped tree, each before its children, which `children` finds."""
    yield Node(*map(tree.get, names))
    for child in children(tree):
        yield from nodes(child, names, children)


class Library:
    """A library, the digits, and `start`: the logits that the library's own objective begins with.

    A custom objective would begin with others, and no model keeps those that it was told to begin with. Both
    libraries train on one thread: the digits are few, and threads that wait for each other take longer.
    """

    def __init__(self, data, rounds):
        self.x, self.x_test, self.labels, self.y_test = data
        self.rounds = rounds
        self.own = self.train()
        self.start = self.find_start()

    def starts(self, x):
        return np.tile(self.start, (len(x), 1))


class LightGBM(Library):
    name = f"LightGBM {lightgbm.__version__}"

    def train(self, objective=None):
        params = {"num_class": CLASSES, "num_threads": 1, "verbose": -1}
        data = lightgbm.Dataset(self.x, self.labels, init_score=self.starts(self.x) if objective else None)
        return lightgbm.train({"objective": objective or "multiclass", **params}, data, self.rounds)

    def find_start(self):
        return np.log(np.bincount(self.labels) / len(self.labels))

    def test_logits(self, model, own):
        return model.predict(self.x_test, raw_score=True) + (0 if own else self.start)

    def trees(self, model):
        names = "split_feature", "threshold", "leaf_value", "leaf_weight"
        roots = (tree["tree_structure"] for tree in model.dump_model()["tree_info"])
        return [list(nodes(root, names, self.children)) for root in roots]

    def children(self, node):
        return [node[side] for side in ("left_child", "right_child") if side in node]


class XGBoost(Library):
    name = f"XGBoost {xgboost.__version__}"

    def train(self, objective=None):
        params = {"num_class": CLASSES, "nthread": 1, "objective": "multi:softprob"}
        data = xgboost.DMatrix(self.x, self.labels, base_margin=self.starts(self.x) if objective else None)
        return xgboost.train(params, data, self.rounds, obj=objective)

    def find_start(self):
        """One number for all classes, priors or their logarithms, as the version has it."""
        model = json.loads(self.own.save_config())["learner"]["learner_model_param"]
        return np.broadcast_to(np.float32(json.loads(model["base_score"])), CLASSES)

    def test_logits(self, model, own):
        data = xgboost.DMatrix(self.x_test, base_margin=None if own else self.starts(self.x_test))
        return model.predict(data, output_margin=True)

    def trees(self, model):
        names = "split", "split_condition", "leaf", "cover"
        roots = map(json.loads, model.get_dump(dump_format="json", with_stats=True))
        return [list(nodes(root, names, self.children)) for root in roots]

    def children(self, node):
        return node.get("children", [])


# ---- comparison --------------------------------------------------------------------------------------------


def factor_of(library):
    """k: the sum of k p (1 - p) that the first tree of each class records, by that of p (1 - p)."""
    first = library.trees(library.own)[:CLASSES]
    recorded = sum(node.weight for tree in first for node in tree if node.value is not None)
    p = xent.softmax(library.start)
    return recorded / (len(library.x) * np.sum(p * (1 - p)))


def agreement(trees, others):
    """How many trees have the same splits, and the largest difference between the leaves of these.

    Up to a constant of the tree: LightGBM adds the logits that it begins with to the leaves of its first.
    """
    pairs = zip(trees, others, strict=True)
    same = [(a, b) for a, b in pairs if [node[:2] for node in a] == [node[:2] for node in b]]
    leaves = [[(m.value, n.value) for m, n in zip(a, b, strict=True) if m.value is not None] for a, b in same]
    return len(same), max((np.ptp(np.diff(values)) for values in leaves), default=0.0)


def in_turns(calls, times, warm=False):
    """Return the results of the calls and append their seconds to `times`; `warm`: each once more before."""
    results = {}
    for name, call in calls.items():
        if warm:
            call()
        start = time.perf_counter()
        results[name] = call()
        times.setdefault(name, []).append(time.perf_counter() - start)
    return results


def compare(library, repeats):
    """Print the table of a library; return the largest difference between the log-losses."""
    labels, factor = library.labels, factor_of(library)
    rule = min(FACTORS, key=lambda name: abs(FACTORS[name] - factor))
    objectives = {
        "xent": Softmax(),
        "NumPy": lambda z, _: numpy_grad_hess(z, labels, FACTORS[rule]),
    }
    call_times, training_times = {}, {}

    def both(z, data):
        """xent's objective, timed in turns with NumPy's on the array that the library hands over."""
        calls = {name: lambda f=f: f(z, data) for name, f in objectives.items()}
        return in_turns(calls, call_times, warm=True)["xent"]

    library.train(both)
    trainings = {OWN: library.train}
    trainings |= {name: lambda f=f: library.train(f) for name, f in objectives.items()}
    for _ in range(repeats):
        models = in_turns(trainings, training_times)

    print(f'{library.name}: second derivatives {factor:.4f} p (1 - p), the rule "{rule}"')
    losses = report(library, models, call_times, training_times)
    best, typical = (f(call_times["NumPy"]) / f(call_times["xent"]) for f in (min, statistics.median))
    print(f"a call of xent is {best:.2f} / {typical:.2f} times as fast as NumPy's\n")
    return max(abs(loss - losses[OWN]) for loss in losses.values())


def report(library, models, call_times, training_times):
    """Print a line for each model; return the log-losses."""
    line = "{:8}{:>10}{:>20}{:>15}{:>14}{:>16}"
    print(line.format("", "log-loss", "same splits in", "leaves within", "call, us", "training, ms"))
    trees, losses = library.trees(models[OWN]), {}
    for name, model in models.items():
        losses[name] = float(xent.cross_entropy(library.test_logits(model, name == OWN), library.y_test))
        same, gap = agreement(trees, library.trees(model))
        times = pair(call_times.get(name), 1e6), pair(training_times[name], 1e3)
        print(line.format(name, f"{losses[name]:.6f}", f"{same} of {len(trees)} trees", f"{gap:.0e}", *times))
    return losses


def pair(times, scale):
    """Minimum and median."""
    return f"{scale * min(times):.0f} / {scale * statistics.median(times):.0f}" if times else "-"


def main():
    parser = argparse.ArgumentParser(description="Boost trees on digits with xent as the objective.")
    parser.add_argument("--rounds", type=int, default=50, help="trees per class (default 50)")
    parser.add_argument("--repeats", type=int, default=5, help="trainings that are timed (default 5)")
    args = parser.parse_args()
    pixels, labels = load_digits(return_X_y=True)
    data = train_test_split(pixels, labels, test_size=0.25, stratify=labels, random_state=SEED)
    print(f"{len(data[0])} digits to train on; times: minimum / median, taken in turns\n")
    differences = [compare(library(data, args.rounds), args.repeats) for library in (LightGBM, XGBoost)]
    return 0 if max(differences) <= TOLERANCE else 1


if __name__ == "__main__" and main():
    sys.exit(1)
