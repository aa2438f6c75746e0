"""Draws bench/results/*.svg and *.png: ratios per shape, classes, threads, the roofline, convolution's peak.

Run it as `python bench/charts.py [folder]`.
"""

import re
import sys
from pathlib import Path

import goals
import layers
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import results

# Okabe and Ito's palette: told apart by colour-blind readers too. xent is black in every chart.
COLOURS = {
    "xent": "black",
    "torch": "#D55E00",
    "torch aten": "#F0E442",
    "torch compiled": "#E69F00",
    "jax": "#0072B2",
    "onnxruntime": "#009E73",
    "scipy": "#CC79A7",
    "scikit-learn": "#56B4E9",
    "numpy": "#8C8C8C",
}
OPERATOR_COLOURS = {
    "cross_entropy": "#0072B2",
    "cross_entropy_value_and_grad": "#D55E00",
    "softmax": "#009E73",
    "log_softmax": "#CC79A7",
    "logsumexp": "#E69F00",
}
DTYPE_MARKERS = {"float32": "o", "float64": "s", "float16": "^", "bfloat16": "v"}
# These only read their logits; the others write as much as they read.
READ_ONLY = {"cross_entropy", "logsumexp"}
STYLE = [Path(__file__).parents[1] / "tools" / "charts.mplstyle", {"figure.dpi": 150}]


def save(figure, folder, name):
    for suffix in ("svg", "png"):
        figure.savefig(folder / f"{name}.{suffix}", bbox_inches="tight")
    plt.close(figure)


def plain_log(axis, ticks):
    """A logarithmic axis with plain numbers at `ticks`."""
    axis.set_major_locator(matplotlib.ticker.FixedLocator(ticks))
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(matplotlib.ticker.NullLocator())


def charted(found, operator):
    """The groups in which xent was measured, without the layers that are in tables alone."""
    beside = set(map(str, layers.BESIDE))
    return [g for g in found.of_operator(operator) if "xent" in g.times and g.case not in beside]


def ratio_chart(found, operator):
    """One row per shape, one dot per peer: how many times xent's time it took."""
    groups = charted(found, operator)
    if not groups:
        return None
    figure, axes = plt.subplots(figsize=(8, 1.4 + 0.34 * len(groups)))
    rows = np.arange(len(groups))[::-1]
    largest = 1
    for peer, colour in COLOURS.items():
        points = [
            (g.ratios(peer, "xent")[0], row) for g, row in zip(groups, rows, strict=True) if peer in g.times
        ]
        if peer != "xent" and points:
            ratios, heights = zip(*points, strict=True)
            largest = max(largest, *ratios)
            axes.plot(ratios, heights, "o", color=colour, label=peer, markersize=6, alpha=0.9)
    goal = goals.PEERS[operator][0]
    axes.axvline(1, color="black", linewidth=1)
    axes.axvline(goal, color="black", linewidth=1, linestyle=":", label=f"goal: {goal}")
    axes.set_xscale("log")
    plain_log(axes.xaxis, [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if t < 2 * largest])
    axes.set_yticks(rows, [g.case.replace(" float32", "") for g in groups])
    axes.set_ylim(-0.6, len(groups) - 0.4)
    axes.set_xlabel("time divided by xent's, fastest rounds; right of 1, xent is faster")
    axes.set_title(operator, loc="left", fontweight="bold")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def peak_chart(found):
    """One row per layer, one dot per library: its rate as a share of the best matrix product's."""
    names = [g.case for g in charted(found, "conv2d")]
    if not names:
        return None
    figure, panels = plt.subplots(
        1, 2, sharey=True, figsize=(9, 1.4 + 0.34 * len(names)), layout="constrained"
    )
    rows = dict(zip(names, reversed(range(len(names))), strict=True))
    for axes, operator in zip(panels, ["conv2d", "conv2d forward+backward"], strict=True):
        for name, colour in COLOURS.items():
            groups = [g for g in found.of_operator(operator) if name in g.times and g.case in rows]
            shares = [100 * found.peak_share(g.name, name) for g in groups]
            axes.plot(shares, [rows[g.case] for g in groups], "o", color=colour, label=name, alpha=0.9)
        axes.set_xlim(left=0)
        axes.set_xlabel("% of a float32 matrix product's rate")
        axes.set_title(operator, loc="left", fontweight="bold")
    panels[0].axvline(100 * goals.PEAK_SHARE, color="black", linewidth=1, linestyle=":")
    panels[0].set_yticks(list(rows.values()), rows)
    handles = {
        h.get_label(): h
        for axes in panels
        for h in axes.lines
        if len(h.get_xdata()) and h.get_label() in COLOURS
    }
    figure.legend(handles=list(handles.values()), loc="outside right center")
    return figure


def classes_chart(found):
    """Time per element over the number of classes."""
    operators = [o for o in OPERATOR_COLOURS if f"classes {o}" in found.groups]
    if not operators:
        return None
    figure, axes = plt.subplots(figsize=(7, 3.6))
    for operator in operators:
        group = found.groups[f"classes {operator}"]
        classes = [info["classes"] for info in group.info.values()]
        each = [1e9 * group.times[name][0] / info["elements"] for name, info in group.info.items()]
        axes.plot(classes, each, "o-", color=OPERATOR_COLOURS[operator], label=operator, markersize=5)
    axes.set_xscale("log")
    plain_log(axes.xaxis, [2, 10, 100, 1000, 10_000, 100_000])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("classes; about 262,144 float32 logits in all")
    axes.set_ylabel("nanoseconds per logit")
    axes.set_title("Time per logit over the number of classes", loc="left", fontweight="bold")
    axes.legend()
    return figure


def threads_chart(found):
    """Speed on several threads, relative to one."""
    operators = [o for o in OPERATOR_COLOURS if f"threads {o}" in found.groups]
    if not operators:
        return None
    figure, axes = plt.subplots(figsize=(5, 3.6))
    for operator in operators:
        group = found.groups[f"threads {operator}"]
        counts = [info["threads"] for info in group.info.values()]
        gains = [group.ratios("1 threads", name)[0] for name in group.info]
        axes.plot(counts, gains, "o-", color=OPERATOR_COLOURS[operator], label=operator, markersize=5)
    most = max(counts)
    axes.plot([1, most], [1, most], "--", color="#8C8C8C", linewidth=1, label="as many times as threads")
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("threads")
    axes.set_ylabel("times the speed of one thread")
    axes.set_title("Thread scaling, (4096, 1000) float32", loc="left", fontweight="bold")
    axes.legend(loc="lower right")
    return figure


def memory_points(found, least_bytes):
    """Yield (operator, dtype, exponentials per byte, exponentials per second) of logits beyond the caches."""
    for operator in OPERATOR_COLOURS:
        for group in found.of_operator(operator):
            if "xent" not in group.times:
                continue
            info = group.info["xent"]
            if info["bytes"] > least_bytes:
                elements = int(np.prod(info["shape"]))
                moved = info["bytes"] * (1 if operator in READ_ONLY else 2)
                yield operator, info["dtype"], elements / moved, elements / group.times["xent"][0]


def roof(axes, found):
    """Draw the machine's limits."""
    intensity = np.geomspace(1 / 24, 1, 200)
    peak = found.limit("machine exp", "elements")
    for group, style in [("machine read", "-"), ("machine copy", "--")]:
        bandwidth = found.limit(group, "bytes")
        label = f"{group.split()[1]} bandwidth {bandwidth / 1e9:.0f} GB/s"
        axes.plot(intensity, intensity * bandwidth / 1e9, style, color="black", linewidth=1, label=label)
    label = f"exp of float32, fastest peer {peak / 1e9:.1f} G/s"
    axes.axhline(peak / 1e9, color="black", linewidth=1, linestyle=":", label=label)


def roofline_chart(found):
    """Exponentials per second over exponentials per byte, against what memory and arithmetic allow."""
    if not {"machine read", "machine copy", "machine exp"} <= found.groups.keys():
        return None
    points = list(memory_points(found, found.machine["last_level_cache"]))
    if not points:
        return None
    figure, axes = plt.subplots(figsize=(7, 4.2))
    roof(axes, found)
    seen = set()
    for operator, dtype, intensity, rate in points:
        label = operator if operator not in seen else None
        seen.add(operator)
        nudge = 1.03 ** (list(OPERATOR_COLOURS).index(operator) - 2)  # one intensity: side by side
        place = (intensity * nudge, rate / 1e9)
        axes.plot(*place, DTYPE_MARKERS[dtype], color=OPERATOR_COLOURS[operator], label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    plain_log(axes.xaxis, [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1])
    plain_log(axes.yaxis, [2.0**k for k in range(-4, 10)])
    axes.set_xlabel("exponentials per byte read or written")
    axes.set_ylabel("billion exponentials per second")
    axes.set_title("Roofline: logits beyond the caches", loc="left", fontweight="bold")
    shapes = ", ".join(f"{dtype} {mark}" for dtype, mark in {"float32": "●", "float64": "■"}.items())
    axes.legend(
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        title=shapes + ",\nfloat16 ▲, bfloat16 ▼",
        alignment="left",
    )
    return figure


def draw(folder):
    """Draw every chart for which there are results; return their names."""
    found = results.load(folder)
    charts = {f"ratios_{re.sub('[^a-z0-9]+', '_', o)}": ratio_chart(found, o) for o in goals.PEERS}
    charts |= {"classes": classes_chart(found), "threads": threads_chart(found)}
    charts |= {"roofline": roofline_chart(found), "conv2d_peak": peak_chart(found)}
    for name, figure in charts.items():
        if figure:
            save(figure, folder, name)
    return [name for name, figure in charts.items() if figure]


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else results.FOLDER
    with plt.style.context(STYLE):
        names = draw(target)
    print(f"charts in {target}: {', '.join(names)}")
