"""The page of --report: one file of HTML with plots as SVG, which asks nothing of a network.

Matplotlib draws. Text and axes have the colour of the page's text, so that it may be light or dark.
"""

import html
import io
import os
import re

import numpy as np

from .arrays import InputError, described, library

INK = "#102030"  # stands for the colour of text while a plot is drawn, and nothing else has it
BLUE, ORANGE = "#3f88c5", "#e08a1e"  # both are readable on white and on nearly black
SIZE = (4.6, 3.3)  # inches: on a phone, 360 pixels wide, letters of 9 points are 9 pixels high
STYLE = {
    "font.size": 9, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": INK, "grid.alpha": 0.15,
    "legend.frameon": False, "svg.fonttype": "path", "svg.hashsalt": "xent",
}  # fmt: skip
WORST = 7  # classes of the confusion matrix: as many as have room for numbers on a phone
MOST_POINTS = 400  # of a line

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.45 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1rem; }}
h1 {{ font-size: 1.4rem; }}
h2 {{ font-size: 1.05rem; margin: 1.5rem 0 .5rem; }}
h1, p, figcaption {{ overflow-wrap: anywhere; }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }}
.plots {{ gap: 0 1.5rem; }}
figure {{ margin: 0; }}
figure svg {{ width: 100%; height: auto; display: block; }}
figcaption, .inputs {{ font-size: .9rem; opacity: .85; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }}
th, td {{ text-align: right; padding: .2rem .6rem; border-bottom: 1px solid #8884; }}
td {{ white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; white-space: normal; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="inputs">{inputs}</p>
{table}
<div class="plots">
{plots}
</div>
{rest}
</body>
</html>
"""


def check(path):
    """Raise unless a report can be drawn, and written there."""
    library("matplotlib", "--report")
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise InputError(
            f"--report {path} cannot be written: there is no such folder, or it may not be written to"
        )


def write(path, text):
    """Write a file as a whole: beside its place, then into it."""
    beside = f"{path}.{os.getpid()}.part"
    try:
        with open(beside, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(beside, path)
    except OSError as error:
        raise InputError(f"--report {path} cannot be written: {error.strerror}") from error
    finally:
        if os.path.exists(beside):
            os.remove(beside)


# ---- the two pages ----


def of_evaluation(names, rows, results, classes):
    result, details = results["evaluation"], results["details"]
    plots = [
        _figure(
            lambda axes: _draw_reliability(axes, result.reliability),
            "Reliability diagram",
            "How often predictions are right, by their confidence. On the dashed line both are equal; the "
            "bars are the share of positions in each bin.",
        ),
        _figure(
            lambda axes: _draw_histogram(axes, details.losses, "loss of a position (nats)", positive=True),
            "Histogram of losses",
            "The loss of each position, in nats. The last bar holds all that are larger.",
        ),
    ]
    labels, predicted, counts = details.worst(classes, WORST)
    rest = ""
    if len(labels):
        plots.append(
            _figure(
                lambda axes: _draw_confusion(axes, labels, predicted, counts),
                "Confusion of the worst classes",
                "The labels with the most mistakes, and what is predicted for them: per cent of the "
                "positions of each label. Right predictions have a frame.",
            )
        )
        rest = "<h2>Worst classes</h2>" + _table(
            ["label", "positions", "right", "most often mistaken for"],
            [_worst_row(*row, predicted) for row in zip(labels, counts, strict=True)],
        )
    return _page("Evaluation", names, rows, plots, rest)


def of_comparison(names, rows, results):
    result = results["comparison"]
    plots = [
        _figure(
            lambda axes: _draw_quantiles(axes, result.kl_values),
            "Quantiles of KL(a || b)",
            "Which share of the positions has a divergence, in nats, of at least so much: the median is at "
            "half of them, the largest at the right end.",
        )
    ]
    if "changes" in results:
        a, b = results["changes"].a, results["changes"].b
        plots += [
            _figure(
                lambda axes: _draw_histogram(axes, b - a, "probability by b - by a", log=True),
                "Change of the probabilities of labels",
                "By how much the probability of each position's label changes. The counts are on a "
                "logarithmic scale; the bars at the ends hold all that is beyond.",
            ),
            _figure(
                lambda axes: _draw_pairs(axes, a, b),
                "Probabilities of labels, by a and b",
                "Positions by the probability of their label, by a and by b: on the dashed line nothing "
                "changes.",
            ),
        ]
    return _page("Comparison", names, rows, plots, "")


def _page(title, names, rows, plots, rest):
    inputs = [
        f"{what}: {source.name} ({described(source)})" for what, source in names.items() if source is not None
    ]
    return PAGE.format(
        title=html.escape(f"{title} of {next(iter(names.values())).name}"),
        inputs="<br>".join(map(html.escape, inputs)),
        table=_table(["", "", "standard error"], rows),
        plots="\n".join(plot(k) for k, plot in enumerate(plots)),
        rest=rest,
    )


def _table(heads, rows):
    def line(cells, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(
        [f"<thead>{line(heads, 'th')}</thead>", "<tbody>", *(line(row, "td") for row in rows), "</tbody>"]
    )
    return f'<div class="wide"><table>\n{body}\n</table></div>'


def _worst_row(label, counts, predicted):
    """Return label, positions, share of right ones, and the class that most of the others are taken for."""
    right = int(counts[:-1][predicted == label].sum())
    others = np.where(predicted == label, -1, counts[:-1])
    most = int(others.argmax()) if len(others) else -1
    instead = f"{predicted[most]} ({others[most]:,})" if most >= 0 and others[most] > 0 else "others"
    return label, f"{counts.sum():,}", f"{right / counts.sum():.1%}", instead


# ---- plots ----


def _figure(draw, title, caption):
    """Return a function that draws a figure of this number, as HTML."""

    def drawn(number):
        picture = _svg(draw, f"p{number}-").replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
        return f"<figure><h2>{title}</h2>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"

    return drawn


def _svg(draw, prefix):
    """Return the SVG element of a plot, whose names begin with a prefix: those of two plots differ."""
    import matplotlib.style
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", STYLE]):
        figure, drawn = Figure(SIZE, layout="constrained"), io.StringIO()
        draw(figure.add_subplot())
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    picture = drawn.getvalue()
    picture = picture[picture.index("<svg ") :]
    picture = re.sub(r"<metadata>.*?</metadata>", "", picture, flags=re.DOTALL)
    picture = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{prefix}", picture)
    return picture.replace(INK, "currentColor")


def _draw_reliability(axes, bins):
    held = bins.weight > 0
    share = bins.weight / max(bins.weight.sum(), 1e-300)  # weights may be anything, and may cancel
    axes.bar(bins.edges[:-1], share, np.diff(bins.edges), align="edge", color=BLUE, alpha=0.25)
    axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, alpha=0.5)
    axes.plot(bins.confidence[held], bins.accuracy[held], "o-", color=ORANGE, markersize=4)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))


def _draw_histogram(axes, values, what, positive=False, log=False):
    """Bars of 40 bins between the ends of what all but a two-hundredth of the values lie in."""
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    low, high = np.quantile(values, [0.0025, 0.9975], method="nearest") if len(values) else (0.0, 1.0)
    low, high = (0.0, high) if positive else (-max(-low, high), max(-low, high))
    if not np.isfinite(high) or high <= low:
        high = low + 1.0
    if not positive and low == 0.0:
        low = -high
    axes.hist(np.clip(values, low, high), np.linspace(low, high, 41), color=BLUE, log=log and len(values) > 0)
    axes.set(xlabel=what, ylabel="positions")


def _draw_confusion(axes, labels, predicted, counts):
    share = counts / counts.sum(axis=1, keepdims=True)
    axes.pcolormesh(share[::-1], cmap="Blues", vmin=0, vmax=1, edgecolor="white", linewidth=1)
    for (row, column), value in np.ndenumerate(share[::-1]):
        if value:
            color = "white" if value > 0.6 else "#111111"
            axes.text(column + 0.5, row + 0.5, f"{100 * value:.0f}", ha="center", va="center", color=color)
    for row, label in enumerate(labels[::-1]):
        for column in np.flatnonzero(predicted == label):
            axes.add_patch(_frame(column, row))
    axes.set_xticks(np.arange(len(predicted) + 1) + 0.5, [*map(str, predicted), "others"])
    axes.set_yticks(np.arange(len(labels)) + 0.5, map(str, labels[::-1]))
    axes.tick_params(axis="x", rotation=45 if len(str(predicted.max(initial=0))) > 3 else 0)
    axes.grid(False)
    axes.set(xlabel="predicted", ylabel="label")


def _frame(column, row):
    from matplotlib.patches import Rectangle

    return Rectangle((column, row), 1, 1, fill=False, edgecolor=ORANGE, linewidth=1.5, clip_on=False)


def _draw_quantiles(axes, values):
    """KL over the share of positions that have at least as much, both on logarithmic scales."""
    values = np.sort(np.asarray(values, np.float64))[::-1]
    values = values[np.isfinite(values)]
    if len(values):
        at = np.unique(np.geomspace(1, len(values), min(MOST_POINTS, len(values))).round().astype(int)) - 1
        axes.plot((at + 1) / len(values), values[at], color=BLUE)
        axes.set_xscale("log")
        axes.invert_xaxis()
        if values[0] > 0:
            # zeros have no place on the scale
            axes.set_yscale("log", nonpositive="mask")
    axes.set(xlabel="share of positions with at least so much", ylabel="KL(a || b), nats")


def _draw_pairs(axes, a, b):
    from matplotlib.colors import LogNorm

    counts, edges, _ = np.histogram2d(a, b, 30, [(0, 1), (0, 1)])
    shown = np.ma.masked_equal(counts.T, 0)
    if counts.any():
        drawn = axes.pcolormesh(
            edges, edges, shown, cmap="viridis", norm=LogNorm(vmin=0.9, vmax=max(counts.max(), 1))
        )
        bar = axes.figure.colorbar(drawn, label="positions")
        bar.outline.set_edgecolor(INK)
        bar.solids.set(rasterized=False, edgecolor="face")
    axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, alpha=0.6)
    axes.set(xlabel="probability by a", ylabel="probability by b", xlim=(0, 1), ylim=(0, 1))
