"""Writes docs/accuracy.md: the worst errors of xent and its peers on the same seeded inputs, against mpmath.

Every implementation is called as the benchmarks call it (peers/), one row of logits at a time. The exact
answers have 160 bits (tests/helpers.py), so that the oracle is more precise than all that it judges.
"""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

from peers import cross_entropy, libraries, softmax  # before any library that it sets up

# isort: split
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import helpers

COLUMNS = ["xent", "torch", "jax", "onnxruntime", "scipy", "scikit-learn", "numpy"]
# what is asked for: the operator that answers it, and its family
OPERATORS = {
    "softmax": ("softmax", softmax),
    "log_softmax": ("log_softmax", softmax),
    "logsumexp": ("logsumexp", softmax),
    "loss": ("cross_entropy", cross_entropy),
    "gradient at the label": ("cross_entropy_value_and_grad", cross_entropy),
    "gradient elsewhere": ("cross_entropy_value_and_grad", cross_entropy),
}
DTYPES = [np.dtype("float32"), np.dtype("float64")]


INTRODUCTION = """\
Written by `make accuracy`. Worst errors in units in the last place (ulp) of the exact result, on the same
seeded inputs, against mpmath with 160 bits. At most 0.5 is a correctly rounded result; above 1e6 in float32,
or 1e15 in float64, hardly a digit is right. `returns 0` stands where the exact result is a number that the
dtype can hold, `-` where a library has no such function. log-sum-exp is counted in ulp of the largest logit
where that is larger than the result. Losses and gradients are those of one row."""


@dataclass
class Question:
    """One row of the table: what is asked for, of which logits, and why."""

    quantity: str
    inputs: str
    rows: list  # one-dimensional logits
    why: str
    dtypes: list  # in which the question makes sense
    label: str = "largest"


def spread(n=12, classes=50):
    """Seeded rows of ordinary logits: probabilities from about 0.5 down to 1e-7."""
    return list(helpers.random_logits((n, classes), np.float64))


SURE = [[20.0, 0.0], [40.0, *([0.25] * 30)]]
OFFSET = [1e4 + np.arange(12) / 4, -1e4 - np.arange(12) / 4]
NEAR_ZERO = [np.log([0.2, 0.3, 0.5]) + 1e-6]
BOTH, DOUBLE = DTYPES, DTYPES[1:]

QUESTIONS = [
    Question("softmax", "normal, scale 3", spread(), "ordinary logits", BOTH),
    Question(
        "softmax",
        "[0.3, -68.9, -1.1]",
        [[0.3, -68.9, -1.1]],
        "a probability near 1e-30, of logits whose difference has to be rounded",
        BOTH,
    ),
    Question("softmax", "[0.3, -689, -1.1]", [[0.3, -689, -1.1]], "the same near 1e-300, in float64", DOUBLE),
    Question("softmax", "near 1e4", OFFSET, "large logits: the difference to the maximum is exact", BOTH),
    Question("log_softmax", "normal, scale 3", spread(), "ordinary logits", BOTH),
    Question(
        "log_softmax",
        "[20, 0], [40, 0.25 ...]",
        SURE,
        "near 0, where log p of a rounded p, or the difference to a rounded log-sum-exp, loses its digits",
        BOTH,
    ),
    Question("logsumexp", "normal, scale 3", spread(), "ordinary logits", BOTH),
    Question("logsumexp", "near 1e4", OFFSET, "large logits: no overflow", BOTH),
    Question(
        "logsumexp",
        "result near 0",
        NEAR_ZERO,
        "cancels against the maximum, and is counted in ulp of that",
        BOTH,
    ),
    Question("loss", "normal, scale 3", spread(), "ordinary logits, any label", BOTH, label="any"),
    Question("loss", "[20, 0], label 0", [[20, 0]], "a confident prediction: 1 + 2e-9 is 1 in float32", BOTH),
    Question("loss", "[100, 0], label 0", [[100, 0]], "more confident: 3.7e-44, subnormal in float32", BOTH),
    Question("loss", "[40, 0.25 ...]", SURE[1:], "confident among 31 classes", BOTH),
    Question("loss", "[20, 0], label 1", [[20, 0]], "confident and wrong", BOTH, label="smallest"),
    Question("gradient at the label", "normal, scale 3", spread(), "p - 1 for any label", BOTH, label="any"),
    Question(
        "gradient at the label", "[20, 0], label 0", [[20, 0]], "1 - p is 0 if p is rounded first", BOTH
    ),
    Question("gradient at the label", "[100, 0], label 0", [[100, 0]], "the same, more confident", BOTH),
    Question("gradient at the label", "[40, 0.25 ...]", SURE[1:], "confident among 31 classes", BOTH),
    Question("gradient elsewhere", "normal, scale 3", spread(), "the probabilities of other classes", BOTH),
]


def labels_of(question):
    """One label for each row of logits."""
    if question.label == "any":
        rng = np.random.default_rng(0)
        return [int(rng.integers(len(row))) for row in question.rows]
    pick = np.argmax if question.label == "largest" else np.argmin
    return [int(pick(row)) for row in question.rows]


def exact_answer(quantity, x, label):
    """Return the exact result for one row of logits, as a pair of arrays that stands for their sum."""
    if quantity in ("softmax", "log_softmax", "logsumexp"):
        return getattr(helpers, f"exact_{quantity}")(x)
    function = helpers.exact_cross_entropy if quantity == "loss" else helpers.exact_cross_entropy_grad
    return function(x, [label])


def entries(quantity, classes, label):
    """Return which entries of a result are asked for."""
    if quantity.startswith("gradient"):
        return (np.arange(classes) == label) == (quantity == "gradient at the label")
    return slice(None)


def result_of(peer, operator, x, label):
    """Call an implementation as the benchmarks do; of value and gradient, return the gradient."""
    implementation = peer(x, np.array([label]), -1)
    result = implementation.call(operator)()
    result = result[1] if operator == "cross_entropy_value_and_grad" else result
    return np.asarray(implementation.result(result), x.dtype).reshape(-1)


def error_text(worst):
    """Format an error in ulp."""
    return f"{worst:.2f}" if worst < 100 else f"{worst:.0f}" if worst < 1e4 else f"{worst:.0e}"


def judge(peer, question, dtype):
    """Return the worst error in ulp, or what was returned instead of digits."""
    worst = 0.0
    for row, label in zip(question.rows, labels_of(question), strict=True):
        x = np.array([row], dtype)
        wanted = entries(question.quantity, x.size, label)
        actual = result_of(peer, OPERATORS[question.quantity][0], x, label)[wanted]
        high, low = (part.reshape(-1)[wanted] for part in exact_answer(question.quantity, x, label))
        if not np.isfinite(actual).all():
            return f"returns {actual[~np.isfinite(actual)][0]}"
        if (actual[high.astype(dtype) != 0] == 0).any():
            return "returns 0"
        scale = np.maximum(np.abs(high), np.abs(x).max()) if question.quantity == "logsumexp" else None
        worst = max(worst, helpers.ulp_error(actual, (high, low), scale).max())
    return error_text(worst)


def cell(name, question, dtype):
    """What the table says of one implementation."""
    operator, family = OPERATORS[question.quantity]
    for peer in family.PEERS:
        if peer.name == name and peer.has(operator):
            return judge(peer, question, dtype) if peer.library else "not installed"
    return "-"


def table(dtype):
    """Return the lines of the table of one dtype."""
    lines = [["result", "logits", *COLUMNS, "why"], ["---"] * (len(COLUMNS) + 3)]
    for question in QUESTIONS:
        if dtype in question.dtypes:
            cells = [cell(name, question, dtype) for name in COLUMNS]
            lines.append([question.quantity, question.inputs, *cells, question.why])
    return [f"| {' | '.join(line)} |" for line in lines]


def document():
    """Return the text of docs/accuracy.md."""
    lines = [
        "# Accuracy",
        "",
        INTRODUCTION,
        "",
        ", ".join(f"{name} {version}" for name, version in libraries.versions().items()) + ".",
    ]
    for dtype in DTYPES:
        lines += ["", f"## {dtype}", "", *table(dtype)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # overflow and division by zero are what the table is about
    text = document()
    print(text)
    target = helpers.ROOT / "docs" / "accuracy.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text(text)
