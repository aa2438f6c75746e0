"""Reads the JSON files that pytest-benchmark wrote; the tables and the charts start from here."""

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import goals

FOLDER = Path(__file__).resolve().parent / "results"


@dataclass
class Group:
    """What was timed in turns: name -> (minimum, median) in seconds, and what the benchmark said about it."""

    name: str
    times: dict = field(default_factory=dict)
    info: dict = field(default_factory=dict)  # name -> extra_info
    missing: dict = field(default_factory=dict)  # name -> reason

    @property
    def about(self):
        """What all members have in common: operator, shape, dtype, axis."""
        return next(iter(self.info.values()), {})

    @property
    def operator(self):
        """The operator that the group compares implementations of, with which its name begins, or None."""
        return max((o for o in goals.PEERS if self.name.startswith(f"{o} ")), key=len, default=None)

    @property
    def case(self):
        """The shape and dtype, or the layer: the name without the operator."""
        return self.name.removeprefix(f"{self.operator} ")

    @property
    def kind(self):
        """What sets a case apart from the others of its operator, with a goal of its own."""
        if self.operator == "cross_entropy_value_and_grad" and not self.case.startswith("("):
            return "with an option"
        sixteen = self.about.get("dtype") in ("float16", "bfloat16") and self.operator in goals.SIXTEEN_BITS
        return "in 16 bits" if sixteen else "usual"

    @property
    def goal(self):
        """How many times xent's time the best peer should take."""
        if self.kind == "in 16 bits":
            return goals.SIXTEEN_BITS[self.operator]
        return goals.OPTION if self.kind == "with an option" else goals.PEERS[self.operator][0]

    def ratios(self, name, baseline):
        """Return how many times the baseline's time `name` took, by minimum and by median."""
        return tuple(t / b for t, b in zip(self.times[name], self.times[baseline], strict=True))


@dataclass
class Results:
    """All groups of a folder, in the order in which they ran, and the machine that they ran on."""

    groups: dict
    machine: dict

    def of_operator(self, operator):
        """Groups that compare implementations of one operator on a shape."""
        return [group for group in self.groups.values() if group.operator == operator]

    def rate(self, group, name, quantity):
        """Bytes or elements per second of one member, by its minimum."""
        group = self.groups[group]
        return group.info[name][quantity] / group.times[name][0]

    def peak(self, group):
        """The rate of the fastest matrix product that took turns with a convolution."""
        products = [name for name in self.groups[group].times if name.endswith(" product")]
        return max(self.rate(group, name, "flops") for name in products)

    def peak_share(self, group, name="xent"):
        """The rate of a convolution as a share of that."""
        return self.rate(group, name, "flops") / self.peak(group)

    def limit(self, group, quantity):
        """The rate of the fastest member that is not xent: what the machine can do."""
        return max(
            self.rate(group, n, quantity) for n in self.groups[group].times if not n.startswith("xent")
        )


def load(folder=FOLDER):
    """Return the Results of every JSON file in a folder."""
    groups = defaultdict(lambda: Group(""))
    machine = {}
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text())
        machine = data["machine_info"]
        for benchmark in data["benchmarks"]:
            info, stats = benchmark["extra_info"], benchmark["stats"]
            group = groups[info["group"]]
            group.name = info["group"]
            group.times[info["implementation"]] = (stats["min"], stats["median"])
            group.info[info["implementation"]] = info
        for entry in data.get("not_measured", []):
            group = groups[entry["group"]]
            group.name = entry["group"]
            group.missing[entry["implementation"]] = entry["reason"]
    if not groups:
        raise SystemExit(f"no results in {folder}: run make bench first")
    return Results(dict(groups), machine)


def seconds(value):
    """Format a time with three digits."""
    unit, scale = ("s", 1) if value >= 1 else ("ms", 1e3) if value >= 1e-3 else ("us", 1e6)
    return f"{value * scale:.3g} {unit}"
