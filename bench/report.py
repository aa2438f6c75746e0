"""Writes bench/results/ratios.md: xent's times, every peer's ratio to them, and what misses a goal.

Run it as `python bench/report.py [folder]`.
"""

import math
import sys
from collections import defaultdict
from pathlib import Path

import goals
import results
from results import case_label, seconds

XENT = ["xent", "xent in place"]
PEERS = ["torch", "torch compiled", "jax", "onnxruntime", "scipy", "scikit-learn", "numpy"]
MISSED = "**missed**"


def table(header, rows):
    """Return the lines of a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] + [""]


def verdict(ratios, goal):
    """Judge a (minimum, median) pair of ratios: both should reach the goal."""
    by = [how for how, ratio in zip(("minimum", "median"), ratios, strict=True) if ratio < goal]
    return f"{MISSED} by {' and '.join(by)}" if by else "met"


def best_peer(group, baseline):
    """Return (name, ratios) of the peer with the smallest ratio by minimum, or None."""
    peers = {name: group.ratios(name, baseline) for name in PEERS if name in group.times}
    return min(peers.items(), key=lambda item: item[1][0], default=None)


def pair(ratios):
    return " / ".join(f"{ratio:.2f}" for ratio in ratios)


def case_row(group, baseline, peers, goal):
    """The row of one shape."""
    label = case_label(group)
    if baseline not in group.times:
        return [label, f"not measured: {group.missing.get(baseline, 'no result')}"] + [""] * (len(peers) + 2)
    cells = [pair(group.ratios(p, baseline)) if p in group.times else "-" for p in peers]
    best = best_peer(group, baseline)
    end = [f"{best[0]} {pair(best[1])}", verdict(best[1], goal)] if best else ["-", "-"]
    return [label, " / ".join(map(seconds, group.times[baseline])), *cells, *end]


def geometric_means(groups, baseline):
    """Return kind of dtype -> geometric mean of torch's ratios, by minimum and by median."""
    means = {}
    for kind, dtypes in [("32 and 64 bit", ("float32", "float64")), ("16 bit", ("float16", "bfloat16"))]:
        pairs = [
            g.ratios("torch", baseline)
            for g in groups
            if g.about.get("dtype") in dtypes and {"torch", baseline} <= g.times.keys()
        ]
        if pairs:
            means[kind] = tuple(math.exp(sum(map(math.log, r)) / len(r)) for r in zip(*pairs, strict=True))
    return means


def operator_section(found, operator, baseline):
    """The table of one operator, and its geometric means against PyTorch eager."""
    groups = found.of_operator(operator)
    if not any(baseline in {*g.times, *g.missing} for g in groups):
        return []
    each, mean_goal = goals.PEERS[operator]
    peers = [p for p in PEERS if any(p in g.times for g in groups)]
    title = operator if baseline == "xent" else f"{operator}, {baseline.removeprefix('xent ')}"
    rows = [case_row(g, baseline, peers, each) for g in groups]
    lines = [f"## {title}", "", f"Goal: {each} times the best peer.", ""]
    lines += table(["logits", "xent", *peers, "best peer", "goal"], rows)
    for kind, mean in geometric_means(groups, baseline).items():
        judged = f"goal {mean_goal}: {verdict(mean, mean_goal)}"
        lines += [f"Geometric mean against torch, {kind}: {pair(mean)}; {judged}.", ""]
    return lines


def share_lines(found):
    """xent's traffic as a share of the machine's bandwidth."""
    for group, goal in [("machine read", goals.READ_SHARE), ("machine copy", goals.COPY_SHARE)]:
        if group not in found.groups:
            continue
        limit = found.limit(group, "bytes")
        yield [f"{group.split()[1]} bandwidth", f"{limit / 1e9:.1f} GB/s", "", ""]
        for name in found.groups[group].times:
            if name.startswith("xent"):
                rate = found.rate(group, name, "bytes")
                share = rate / limit
                state = "met" if share >= goal else MISSED
                label = f"{name} moves" if "xent in place" != name else "the same in place"
                yield [label, f"{rate / 1e9:.1f} GB/s = {share:.0%}", f">= {goal:.0%}", state]
    if "machine exp" in found.groups:
        yield [
            "exponentials by the fastest peer",
            f"{found.limit('machine exp', 'elements') / 1e9:.2f} G/s",
            "",
            "",
        ]


def classes_lines(found):
    """How much the time per element depends on the number of classes."""
    for operator in goals.SMALL_CALL:
        name = f"classes {operator}"
        if name not in found.groups:
            continue
        each = [
            1 / found.rate(name, member, "elements")
            for member, info in found.groups[name].info.items()
            if 10 <= info["classes"] <= 10_000
        ]
        spread = max(each) / min(each)
        state = "met" if spread <= goals.CLASSES_SPREAD else MISSED
        what = f"{operator}: slowest by fastest time per element, 10 to 10000 classes"
        yield [what, f"{spread:.2f}", f"<= {goals.CLASSES_SPREAD}", state]


def small_call_lines(found):
    """What a call on a small batch costs."""
    for operator, goal in goals.SMALL_CALL.items():
        group = found.groups.get(f"{operator} (32, 10) float32")
        if group and "xent" in group.times:
            time = group.times["xent"][0]
            state = "met" if time <= goal else MISSED
            yield [f"{operator} on (32, 10)", seconds(time), f"<= {seconds(goal)}", state]


def thread_lines(found):
    """Two threads against one."""
    for name, group in found.groups.items():
        if name.startswith("threads ") and "2 threads" in group.times:
            gain = group.ratios("1 threads", "2 threads")[0]
            state = "met" if gain >= goals.TWO_THREADS else MISSED
            yield [f"{name.split()[1]}: 2 threads", f"{gain:.2f} times 1", f">= {goals.TWO_THREADS}", state]


def machine_section(found):
    parts = (share_lines, classes_lines, small_call_lines, thread_lines)
    rows = [row for part in parts for row in part(found)]
    return ["## Against the machine", "", *table(["what", "by minimum", "goal", ""], rows)] if rows else []


def conv_section(found):
    """Convolution and pooling: no goals here, ratios alone."""
    names = ["reference", "torch"]
    groups = [g for n, g in found.groups.items() if n.startswith(("conv2d ", "max_pool2d "))]
    rows = [
        [g.name, " / ".join(map(seconds, g.times["xent"]))]
        + [pair(g.ratios(n, "xent")) if n in g.times else "-" for n in names]
        for g in groups
        if "xent" in g.times
    ]
    return ["## Convolution and pooling", "", *table(["layer", "xent", *names], rows)] if rows else []


def missing_section(found):
    """Everything that was asked for and not measured, with its reason."""
    groups = defaultdict(list)
    for group in found.groups.values():
        for name, reason in group.missing.items():
            groups[name, reason].append(group.name)
    rows = [[name, reason, ", ".join(where)] for (name, reason), where in groups.items()]
    return ["## Not measured", "", *table(["implementation", "reason", "where"], rows)] if rows else []


def heading(found):
    xent, cpu = found.machine.get("xent", {}), found.machine.get("cpu", {})
    libraries = ", ".join(f"{name} {version}" for name, version in found.machine.get("libraries", {}).items())
    return [
        "# Ratios",
        "",
        f"{cpu.get('brand_raw', 'unknown processor')}, {xent.get('threads')} threads, {xent.get('isa')}; "
        f"xent {xent.get('version')}, {libraries}.",
        "",
        "A ratio is a peer's time divided by xent's: above 1, xent is faster. Pairs are by minimum / median.",
        "",
    ]


def write(folder):
    """Write ratios.md into the folder of the results and return its text."""
    found = results.load(folder)
    lines = heading(found)
    for operator in goals.PEERS:
        for baseline in XENT:
            lines += operator_section(found, operator, baseline)
    for section in (machine_section, conv_section, missing_section):
        lines += section(found)
    text = "\n".join(lines)
    (folder / "ratios.md").write_text(text)
    return text


if __name__ == "__main__":
    print(write(Path(sys.argv[1]) if len(sys.argv) > 1 else results.FOLDER))
