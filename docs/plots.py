"""Draws docs/plots/*.svg, one for each page of docs/: performance.svg from the tables of its page, all others
from what xent computes.

Run it as `python docs/plots.py`, or by `make docs`. The same numbers give the same files.
"""

import re
import tracemalloc
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

import xent

FOLDER = Path(__file__).parent / "plots"
# Okabe and Ito's palette, as in bench/charts.py: told apart by colour-blind readers too.
BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, ORANGE, GREY = "#CC79A7", "#E69F00", "#8C8C8C"
STYLE = [
    Path(__file__).parents[1] / "tools" / "charts.mplstyle",
    {
        "figure.dpi": 100,
        "svg.fonttype": "none",  # text stays text: small files, which can be searched
        "font.sans-serif": ["DejaVu Sans"],
    },
]
# No date and no version of matplotlib in the files.
METADATA = {"Date": None, "Creator": None}
NEVER_0 = 2.0**-10  # errors of less are drawn here, as a logarithmic axis has no 0


def panels(*titles, width=3.6, height=2.9):
    """A figure with a panel for each title."""
    size = width * len(titles), height
    figure, axes = plt.subplots(1, len(titles), figsize=size, layout="constrained", squeeze=False)
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title, loc="left", fontweight="bold", fontsize=9)
    return figure, axes[0]


def ulps(result, exact):
    """Errors of float32 numbers in units of their last place at the exact float64 ones."""
    spacing = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    return np.maximum(np.abs(result.astype(np.float64) - exact) / spacing, NEVER_0)


def naive_softmax(x):
    """The textbook's formula, in the dtype of x."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax():
    """Probabilities over the temperature; errors of small probabilities."""
    figure, (left, right) = panels("softmax([2, 1, 0, -1], temperature=T)", "Errors of a small probability")
    temperatures = np.geomspace(0.1, 10, 81)
    probabilities = np.array([xent.softmax([2.0, 1.0, 0.0, -1.0], temperature=t) for t in temperatures])
    for column, logit, colour in zip(
        probabilities.T, [2, 1, 0, -1], [BLUE, VERMILION, GREEN, PURPLE], strict=True
    ):
        left.plot(temperatures, column, color=colour, label=f"logit {logit}")
    left.axhline(0.25, color=GREY, linewidth=1, linestyle=":")
    left.set(xscale="log", xlabel="temperature T", ylabel="probability", ylim=(0, 1))
    left.legend()

    gaps = np.linspace(0, 85, 86)
    x = np.stack([np.full(gaps.shape, 0.3), 0.3 - gaps, np.full(gaps.shape, -1.1)], axis=-1).astype(
        np.float32
    )
    exact = xent.softmax(x.astype(np.float64))[:, 1]
    right.plot(gaps, ulps(naive_softmax(x)[:, 1], exact), ".", color=VERMILION, label="exp(x - max x) / sum")
    right.plot(gaps, ulps(xent.softmax(x)[:, 1], exact), ".", color="black", label="xent")
    right.set(xlabel="its logit lies so much below the largest", ylabel="ulp of float32", ylim=(-1, 62))
    right.legend()
    return figure


def cross_entropy():
    """Loss and gradient over the probability of the label; errors of confident predictions."""
    titles = "Loss of a label, two classes", "Gradient by its logit", "Errors of that gradient"
    figure, (left, middle, right) = panels(*titles)
    p = np.linspace(0.01, 0.99, 50)
    logits = np.stack([np.log(p) - np.log1p(-p), np.zeros(p.shape)], axis=-1)
    labels = np.zeros(p.shape, int)
    for text, options, colour in [
        ("plain", {}, "black"),
        ("gamma=2", {"gamma": 2.0}, VERMILION),
        ("label_smoothing=0.2", {"label_smoothing": 0.2}, BLUE),
        ("temperature=2", {"temperature": 2.0}, GREEN),
    ]:
        loss, grad = xent.cross_entropy_value_and_grad(logits, labels, reduction="none", **options)
        left.plot(p, loss, color=colour, label=text)
        middle.plot(p, grad[:, 0], color=colour)
    left.set(xlabel="probability of the label", ylabel="nats", ylim=(0, 4))
    left.legend()
    middle.set(xlabel="probability of the label", ylabel="derivative")

    x = np.zeros((46, 2), np.float32)
    x[:, 0] = np.linspace(0, 30, 46)
    exact = -1 / (1 + np.exp(x[:, 0].astype(np.float64)))
    grad = xent.cross_entropy_grad(x, np.zeros(len(x), int), reduction="sum")
    naive = naive_softmax(x)[:, 0] - 1
    right.plot(x[:, 0], ulps(naive, exact), ".", color=VERMILION, label="p - 1 of a rounded p")
    right.plot(x[:, 0], ulps(grad[:, 0], exact), ".", color="black", label="xent")
    right.axhline(4, color="black", linewidth=1, linestyle=":")
    right.set(xlabel="logit of the label, the other being 0", ylabel="ulp of float32", yscale="log")
    right.legend()
    return figure


def extra_memory(function, *arguments, **options):
    """MiB that a call needs beside its results."""
    tracemalloc.start()
    results = function(*arguments, **options)
    kept, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del results
    return round((most - kept) / 2**20, 1)


def linear_cross_entropy():
    """Extra memory over the positions."""
    figure, (axes,) = panels("Memory beside arguments and results, float32", width=6.5)
    features, classes = 16, 8192
    positions = [2**k for k in range(7, 15)]
    rng = np.random.default_rng(0)
    weight = rng.random((classes, features), np.float32)
    logits = [n * classes * 4 / 2**20 for n in positions]
    axes.plot(positions, logits, "--", color=GREY, label="the logits alone")
    value, both = xent.linear_cross_entropy, xent.linear_cross_entropy_value_and_grad
    for text, function, options, colour in [
        ("loss and gradients", both, {}, BLUE),
        ("loss", value, {}, GREEN),
        ("loss and gradients, chunk_bytes=2**24", both, {"chunk_bytes": 2**24}, VERMILION),
        ("loss and gradients, chunk_bytes=2**22", both, {"chunk_bytes": 2**22}, ORANGE),
    ]:
        needed = [
            extra_memory(function, np.ones((n, features), np.float32), weight, np.zeros(n, int), **options)
            for n in positions
        ]
        axes.plot(positions, needed, "o-", color=colour, label=text, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel=f"positions, {classes} classes", ylabel="MiB")
    axes.set_xticks(positions[::2], positions[::2])
    axes.set_yticks([4, 16, 64, 256], [4, 16, 64, 256])
    axes.minorticks_off()
    figure.legend(loc="outside right center")
    return figure


def sigmoid_cross_entropy():
    """Loss and gradient over the logit."""
    figure, (left, right) = panels("Loss of an element", "Gradient", width=4.2)
    z = np.linspace(-5, 5, 81)
    for text, target, options, colour in [
        ("target 1", 1, {}, "black"),
        ("target 1, pos_weight=2", 1, {"pos_weight": 2.0}, BLUE),
        ("target 1, gamma=2", 1, {"gamma": 2.0}, VERMILION),
        ("target 0.75", 0.75, {}, GREEN),
        ("target 0", 0, {}, GREY),
    ]:
        targets = np.full(z.shape, target)
        loss = xent.sigmoid_cross_entropy(z, targets, reduction="none", **options)
        grad = xent.sigmoid_cross_entropy_grad(z, targets, reduction="sum", **options)
        left.plot(z, loss, color=colour, label=text)
        right.plot(z, grad, color=colour, label=text)
    left.set(xlabel="logit", ylabel="nats", ylim=(0, 6))
    right.set(xlabel="logit", ylabel="derivative")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center")
    return figure


def probabilities():
    """Entropy, cross-entropy and divergence of two classes in bits; errors of small divergences."""
    figure, (left, right) = panels("Two classes, p against t = 0.3, in bits", "Errors of a small divergence")
    p = np.linspace(0.01, 0.99, 99)
    probs = np.stack([p, 1 - p], axis=-1)
    target = np.broadcast_to([0.3, 0.7], probs.shape)
    bits = {"base": 2, "reduction": "none"}
    cross = xent.cross_entropy_probs(probs, target, **bits)
    left.plot(p, cross, color=BLUE, label="cross_entropy_probs(p, t)")
    left.plot(p, xent.kl_div(np.log(probs), target, **bits), color=VERMILION, label="kl_div(log p, t)")
    left.plot(p, xent.entropy(probs, base=2), color="black", label="entropy(p)")
    left.axhline(xent.entropy([0.3, 0.7], base=2), color=GREY, linewidth=1, linestyle=":", label="entropy(t)")
    left.set(xlabel="p", ylabel="bits", ylim=(0, 3.6))
    left.legend()

    steps = 2.0 ** -np.arange(0, 15, 0.25)
    teacher = np.tile(np.float32([1, 2, 3]), (len(steps), 1))
    student = teacher + (steps[:, None] * [1, 0, -1]).astype(np.float32)
    exact = xent.distillation_loss(student.astype(np.float64), teacher, reduction="none")
    composed = xent.kl_div(xent.log_softmax(student), xent.softmax(teacher), reduction="none")
    loss = xent.distillation_loss(student, teacher, reduction="none")
    right.plot(steps, ulps(composed, exact), ".", color=VERMILION, label="kl_div of the softmaxes")
    right.plot(steps, ulps(loss, exact), ".", color="black", label="distillation_loss")
    right.set(xscale="log", yscale="log", xlabel="difference of the logits", ylabel="ulp of float32")
    right.set_ylim(NEVER_0 / 2, 1e10)
    right.legend(loc="upper right")
    return figure


def channel(flips, believed, bits=1000):
    """Evaluate a channel that turns `flips` of 1000 bits around, with a share of them that is believed."""
    sent = np.arange(2 * bits) % 2
    received = np.where(np.arange(2 * bits) // 2 < flips, 1 - sent, sent)
    probabilities = np.where(np.arange(2) == received[:, None], 1 - believed, believed)
    with np.errstate(divide="ignore"):
        return xent.evaluate(np.log(probabilities), sent, base=2)


def evaluate():
    """Mutual information over a binary symmetric channel."""
    figure, (axes,) = panels("Information through a binary symmetric channel", width=6.5)
    flips = np.arange(0, 501, 10)
    share = flips / 1000
    known = [channel(k, k / 1000).mutual_information for k in flips]
    assumed = [channel(k, 0.1).mutual_information for k in flips]
    capacity = 1 - xent.entropy(np.stack([share, 1 - share], axis=-1), base=2)
    axes.plot(share, capacity, color=GREY, linewidth=4, alpha=0.5, label="1 - entropy([e, 1 - e], base=2)")
    axes.plot(share, known, color="black", label="mutual_information, e known")
    axes.plot(share, assumed, color=VERMILION, label="mutual_information, e taken for 0.1")
    axes.plot(share, [channel(k, 0.1).accuracy for k in flips], color=BLUE, label="accuracy")
    axes.axhline(0, color="black", linewidth=1)
    axes.set(xlabel="share e of bits that are turned around", ylabel="bits; accuracy", ylim=(-0.8, 1.1))
    figure.legend(loc="outside right center")
    return figure


def draw_image(axes, image, low, high):
    """Draw pixels as vectors."""
    height, width = image.shape
    axes.pcolormesh(image, cmap="gray", vmin=low, vmax=high, edgecolors="#B0B0B0", linewidth=0.3)
    axes.set(xlim=(-0.1, width + 0.1), ylim=(height + 0.1, -0.1), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def convolution():
    """An image, its convolution with a kernel for vertical edges, and the maxima of windows of that."""
    titles = "x, 10 x 10", "conv2d(x, edges), 8 x 8", "max_pool2d(..., 2), 4 x 4"
    figure, (left, middle, right) = panels(*titles, width=2.6, height=2.8)
    y, x = np.mgrid[:10, :10] - 4.5
    image = np.clip(4 - np.hypot(x, y), 0, 1)[None, None]
    edges = np.array([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])[None, None] / 4
    found = xent.conv2d(image, edges)
    draw_image(left, image[0, 0], 0, 1)
    draw_image(middle, found[0, 0], -1, 1)
    draw_image(right, xent.max_pool2d(found, 2)[0, 0], -1, 1)
    for axes, corner, size, colour in [
        (left, (6, 2), 3, VERMILION),
        (middle, (6, 2), 1, VERMILION),
        (middle, (4, 4), 2, BLUE),
        (right, (2, 2), 1, BLUE),
    ]:
        axes.add_patch(Rectangle(corner, size, size, fill=False, edgecolor=colour, linewidth=2))
    return figure


# Names of peers in the tables: how the legend calls them, in its order, and their colours.
PEERS = {
    "torch": ("PyTorch", VERMILION),
    "torch aten": ("PyTorch", VERMILION),
    "torch compiled": ("PyTorch compiled", ORANGE),
    "jax": ("JAX", BLUE),
    "onnxruntime": ("ONNX Runtime", GREEN),
    "scikit-learn": ("scikit-learn", PURPLE),
    "numpy": ("NumPy", GREY),
}
# Rows of the chart, each a heading of performance.md.
MEASURED = [
    *("cross_entropy", "cross_entropy_value_and_grad", "cross_entropy_value_and_grad, in place"),
    *("softmax", "log_softmax", "logsumexp", "evaluate", "sigmoid_cross_entropy_value_and_grad"),
    *("cross_entropy_probs", "cross_entropy_probs_value_and_grad"),
    *("distillation_loss_value_and_grad", "mse_loss_value_and_grad"),
    *("conv2d", "conv2d forward+backward", "max_pool2d", "max_pool2d_backward"),
]


def best_peers(page, operator):
    """Yield (column, peer, its time divided by xent's, fastest rounds) from the table under a heading.

    A column for each instruction set that the table has.
    """
    section = page.split(f"\n## {operator}\n", 1)[1].split("\n#", 1)[0]
    header, _, *rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")]
    places = [place for place, name in enumerate(header) if name.startswith("best peer")]
    for row in rows:
        for column, place in enumerate(places):
            found = re.fullmatch(r"([a-z -]+) ([\d.]+) / [\d.]+( \*\*missed\*\*)?", row[place])
            if found:
                yield column, PEERS[found[1]], float(found[2])


def performance():
    """The best peer's time over xent's, a dot for each case of the tables."""
    page = (FOLDER.parent / "performance.md").read_text(encoding="utf-8")
    figure, (axes,) = panels("Time of the fastest other library, divided by xent's", width=7.5, height=4.2)
    for row, operator in enumerate(MEASURED):
        for column, (name, colour), ratio in best_peers(page, operator):
            style = "none" if column else "full"
            axes.plot(ratio, -row, "o", color=colour, label=name, markersize=5, alpha=0.8, fillstyle=style)
    axes.axvline(1, color="black", linewidth=1)
    axes.set(xscale="log", xlabel="right of 1, xent is faster; a dot for each case, a ring with AVX2")
    ticks = [0.5, 1, 2, 5, 10, 20]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(-np.arange(len(MEASURED)), MEASURED)
    dots = {dot.get_label(): dot for dot in sorted(axes.lines, key=lambda dot: dot.get_fillstyle() == "full")}
    names = [name for name in dict(PEERS.values()) if name in dots]
    figure.legend([dots[name] for name in names], names, loc="outside right center", title="the fastest")
    return figure


PLOTS = [
    softmax,
    cross_entropy,
    linear_cross_entropy,
    sigmoid_cross_entropy,
    probabilities,
    evaluate,
    convolution,
    performance,
]

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    with plt.style.context(STYLE):
        for plot in PLOTS:
            figure = plot()
            figure.savefig(FOLDER / f"{plot.__name__}.svg", metadata=METADATA)
            plt.close(figure)
    print(f"plots in {FOLDER}: {', '.join(plot.__name__ for plot in PLOTS)}")
