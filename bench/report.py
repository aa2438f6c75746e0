"""Writes bench/results/ratios.md: xent's times, every peer's ratio to them, and what misses a goal.

Run it as `python bench/report.py [folder]`. With several folders, of several instruction sets, it prints
their best peers side by side: the tables of docs/performance.md.
"""

import math
import sys
from collections import defaultdict
from pathlib import Path

import goals
import layers
import results
from results import seconds

XENT = ["xent", "xent in place", "xent prepared"]
PEERS = ["torch", "torch aten", "torch compiled", "jax", "onnxruntime", "scipy", "scikit-learn", "numpy"]
EAGER = {"torch", "torch aten"}
LOGIT_KINDS = {"32 and 64 bit": ("float32", "float64"), "16 bit": ("float16", "bfloat16")}
IMAGE_KINDS = {"float32": ("float32",)}
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


def case_row(group, baseline, peers):
    """The row of one shape or layer."""
    label = group.case
    if baseline not in group.times:
        return [label, f"not measured: {group.missing.get(baseline, 'no result')}"] + [""] * (len(peers) + 2)
    cells = [pair(group.ratios(p, baseline)) if p in group.times else "-" for p in peers]
    best = best_peer(group, baseline)
    end = [f"{best[0]} {pair(best[1])}", verdict(best[1], goal_of(group, baseline))] if best else ["-", "-"]
    return [label, " / ".join(map(seconds, group.times[baseline])), *cells, *end]


def work_cells(found, group):
    """What a convolution reaches: operations per second, the share of the peak, and its extra memory."""
    if "xent" not in group.times:
        return ["", "", ""]
    return [
        f"{found.rate(group.name, 'xent', 'flops') / 1e9:.1f}",
        f"{found.peak_share(group.name):.0%}",
        f"{group.info['xent']['extra_memory'] / 2**20:.2f} MiB",
    ]


def beside_the_loss(group):
    """How many times as long as the loss alone evaluate takes."""
    if not {"xent", "xent cross_entropy"} <= group.times.keys():
        return ""
    ratios = group.ratios("xent", "xent cross_entropy")
    judged = math.prod(group.about["shape"]) > goals.EVALUATED and max(ratios) > goals.EVALUATION
    return pair(ratios) + (f" {MISSED}" if judged else "")


def geometric_means(groups, baseline, kinds):
    """Return kind of dtype -> geometric mean of eager PyTorch's ratios, by minimum and by median."""
    means = {}
    for kind, dtypes in kinds.items():
        pairs = [
            min(g.ratios(name, baseline) for name in EAGER & g.times.keys())
            for g in groups
            if g.about.get("dtype") in dtypes and baseline in g.times and EAGER & g.times.keys()
        ]
        if pairs:
            means[kind] = tuple(math.exp(sum(map(math.log, r)) / len(r)) for r in zip(*pairs, strict=True))
    return means


def kinds_of(groups):
    return LOGIT_KINDS if any("axis" in g.about for g in groups) else IMAGE_KINDS


def goal_of(group, baseline):
    """How many times xent's time the best peer should take."""
    return goals.PREPARED if baseline == "xent prepared" else group.goal


def goal_line(groups, baseline):
    """The goals by kind of case."""
    found = {group.kind: goal_of(group, baseline) for group in groups}
    kinds = [f"{goal}" if kind == "usual" else f"{kind} {goal}" for kind, goal in found.items()]
    return f"Goal: {', '.join(kinds)} times the best peer."


def operator_section(found, operator, baseline):
    """The table of one operator, and its geometric means against PyTorch eager."""
    groups = [g for g in found.of_operator(operator) if baseline in {*g.times, *g.missing}]
    if not groups:
        return []
    mean_goal = goals.PEERS[operator][1]
    peers = [p for p in PEERS if any(p in g.times for g in groups)]
    rows = [case_row(g, baseline, peers) for g in groups]
    header = ["case", "xent", *peers, "best peer", "goal"]
    if operator.startswith("conv2d") and baseline == "xent":
        rows = [row + work_cells(found, group) for row, group in zip(rows, groups, strict=True)]
        header += ["GFLOP/s", "of peak", "extra memory"]
    if operator == "evaluate":
        rows = [row + [beside_the_loss(group)] for row, group in zip(rows, groups, strict=True)]
        header.append(f"times cross_entropy alone, goal {goals.EVALUATION}")
    lines = [f"## {title_of(operator, baseline)}", "", goal_line(groups, baseline), ""]
    lines += table(header, rows)
    for kind, mean in geometric_means(groups, baseline, kinds_of(groups)).items():
        judged = f"goal {mean_goal}: {verdict(mean, mean_goal)}"
        lines += [f"Geometric mean against torch, {kind}: {pair(mean)}; {judged}.", ""]
    return lines


def title_of(operator, baseline):
    return operator if baseline == "xent" else f"{operator}, {baseline.removeprefix('xent ')}"


def side_cells(group, baseline):
    """The time of one instruction set, its best peer, and PyTorch eager."""
    if group is None or baseline not in group.times:
        return ["not measured", "-", "-"]
    best = best_peer(group, baseline)
    missed = f" {MISSED}" if best and min(best[1]) < goal_of(group, baseline) else ""
    eager = [group.ratios(name, baseline) for name in EAGER & group.times.keys()]
    return [
        " / ".join(map(seconds, group.times[baseline])),
        f"{best[0]} {pair(best[1])}{missed}" if best else "-",
        pair(min(eager)) if eager else "-",
    ]


def sides_section(sides, operator, baseline, with_option=False):
    """The table of one operator, or of its options, with instruction sets side by side."""

    def chosen(found):
        groups = [g for g in found.of_operator(operator) if baseline in g.times]
        return [g for g in groups if (g.kind == "with an option") == with_option]

    groups = chosen(next(iter(sides.values())))
    if not groups:
        return []
    title = title_of(operator, baseline) + (", with one option" if with_option else "")
    header = ["case", *(f"{what}, {isa}" for isa in sides for what in ("xent", "best peer", "torch"))]
    rows = [
        [g.case, *(c for found in sides.values() for c in side_cells(found.groups.get(g.name), baseline))]
        for g in groups
    ]
    if operator == "evaluate":
        header += [f"times cross_entropy, {isa}" for isa in sides]
        rows = [
            row + [beside_the_loss(found.groups[group.name]) for found in sides.values()]
            for row, group in zip(rows, groups, strict=True)
        ]
    lines = [f"## {title}", "", goal_line(groups, baseline), "", *table(header, rows)]
    for isa, found in sides.items():
        for kind, mean in geometric_means(chosen(found), baseline, kinds_of(groups)).items():
            lines += [f"Geometric mean against torch, {kind}, {isa}: {pair(mean)}.", ""]
    return lines


def side_by_side(folders):
    """Return the tables of several folders, each of another instruction set, as one text."""
    sides = {found.machine["xent"]["isa"]: found for found in map(results.load, folders)}
    lines = []
    for operator in goals.PEERS:
        for baseline in XENT:
            lines += sides_section(sides, operator, baseline)
        lines += sides_section(sides, operator, "xent", with_option=True)
    for isa, found in sides.items():
        title, *rest = machine_section(found) or [""]
        lines += [f"{title}, {isa}", *rest] if rest else []
    return "\n".join(lines)


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


def conv_groups(found, operator, dtype="float32"):
    """The groups of a convolution in which xent was measured."""
    groups = found.of_operator(operator)
    return [g for g in groups if "xent" in g.times and g.about["dtype"] == dtype]


def peak_lines(found):
    """The layers that many products make busy, against the rate of the best matrix product."""
    groups = conv_groups(found, "conv2d")
    if groups:
        limit = max(found.peak(group.name) for group in groups)
        yield ["float32 matrix product by the fastest peer", f"{limit / 1e9:.1f} GFLOP/s", "", ""]
    for group in groups:
        if group.case.startswith(goals.BUSY_LAYERS):
            share = found.peak_share(group.name)
            state = "met" if share >= goals.PEAK_SHARE else MISSED
            yield [group.name, f"{share:.0%} of the product beside it", f">= {goals.PEAK_SHARE:.0%}", state]


def conv_lines(found):
    """The slowest against the NumPy idiom, the hungriest, and what float64 costs."""
    beside = set(map(str, layers.BESIDE))
    idiom = [
        (g.ratios("numpy", "xent")[0], g.name)
        for g in conv_groups(found, "conv2d")
        if "numpy" in g.times and g.case not in beside
    ]
    if idiom:
        least, name = min(idiom)
        state = "met" if least >= goals.CONV_IDIOM else MISSED
        yield [
            f"the NumPy idiom at its best: {name}",
            f"{least:.2f} times xent",
            f">= {goals.CONV_IDIOM}",
            state,
        ]
    for operator in ("conv2d", "conv2d forward+backward"):
        groups = conv_groups(found, operator)
        if groups:
            yield memory_line(found, operator, groups)
        single = {g.case: g.times["xent"][0] for g in groups}
        for group in conv_groups(found, operator, "float64"):
            time = single.get(group.case.removesuffix(" float64"))
            if time:
                yield [
                    group.name,
                    f"{group.times['xent'][0] / time:.2f} times float32",
                    "about 2; from two groups",
                    "",
                ]


def network_lines(found):
    """All convolutions of a network for one image, each as often as it occurs, against the best peer."""
    groups = {g.case: g for g in conv_groups(found, "conv2d")}
    for network, counts in layers.NETWORKS.items():
        if not all(str(layer) in groups for layer in counts):
            continue
        times = {
            name: sum(n * groups[str(layer)].times[name][0] for layer, n in counts.items())
            for name in [*XENT, *PEERS]
            if all(name in groups[str(layer)].times for layer in counts)
        }
        peer = min((name for name in times if name in PEERS), key=times.get, default=None)
        for name in XENT:
            if peer and name in times:
                ratio = times[peer] / times[name]
                label = f"{network}, one image: {peer} against {name}, {seconds(times[name])}"
                state = "met" if ratio >= goals.NETWORK else MISSED
                yield [label, f"{ratio:.2f} times", f">= {goals.NETWORK}", state]


def memory_line(found, operator, groups):
    """The largest share of the memory that a layer may use beside its results."""
    threads = found.machine["xent"]["threads"]
    shares = {}
    for group in groups:
        info = group.info["xent"]
        allowed = threads * goals.EXTRA_MEMORY + info["weight_bytes"]
        shares[info["extra_memory"] / allowed] = info["extra_memory"], allowed, group.case
    used, allowed, case = shares[max(shares)]
    state = "met" if used <= allowed else MISSED
    return [
        f"{operator}: extra memory, most of what is allowed by {case}",
        f"{used / 2**20:.2f} MiB",
        f"<= {allowed / 2**20:.2f} MiB",
        state,
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
    parts = (
        share_lines,
        peak_lines,
        conv_lines,
        network_lines,
        classes_lines,
        small_call_lines,
        thread_lines,
    )
    rows = [row for part in parts for row in part(found)]
    return ["## Against the machine", "", *table(["what", "by minimum", "goal", ""], rows)] if rows else []


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
    for section in (machine_section, missing_section):
        lines += section(found)
    text = "\n".join(lines)
    (folder / "ratios.md").write_text(text)
    return text


if __name__ == "__main__":
    chosen = [Path(argument) for argument in sys.argv[1:]] or [results.FOLDER]
    print(side_by_side(chosen) if len(chosen) > 1 else write(chosen[0]))
