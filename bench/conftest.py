"""Benchmarks report through pytest-benchmark, but their times come from an interleaved run (interleave.py).

A test asks `compare` for one implementation of one group. The first request of a group times all of its
implementations in turns; every test then hands the times of its own to pytest-benchmark. The tests of a
group must follow each other, so the parameter that tells them apart stands first: it varies fastest. What
could not be measured is skipped with its reason, named at the end of the output and written to the JSON file.
"""

import peers  # before any library that it sets up

# isort: split
from collections import defaultdict

import cases
import machine
import pytest
from interleave import interleave

import xent

_times = {}  # name -> seconds per call, of the group at hand
_begun = set()  # the groups that have been timed
_reasons = {}  # (group, name) -> why it was not measured


def pytest_addoption(parser):
    group = parser.getgroup("xent")
    group.addoption("--quick", action="store_true", help="fewer shapes, torch.compile for one of them only")
    group.addoption("--without", action="append", default=[], help="an implementation to leave out")
    group.addoption("--seconds", type=float, default=0.5, help="time spent on each implementation of a group")


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore")  # peers warn about their own business


def pytest_generate_tests(metafunc):
    """A test that takes `operator`, `case` and `name` runs for what its file says, group by group.

    The file has OPERATORS, CASES (all of them, and those of --quick) and PEERS.
    """
    if "case" not in metafunc.fixturenames:
        return
    file, quick = metafunc.module, metafunc.config.option.quick
    metafunc.parametrize(
        "operator, case, name",
        [
            (operator, case, name)
            for operator in file.OPERATORS
            for case in file.CASES[quick]
            for name in peers.names(file.PEERS, operator)
        ],
        ids=str,
    )


class _Replay:
    """A clock for pytest-benchmark that plays recorded times: each pair of readings is one of them apart."""

    def __init__(self, times):
        self.readings = iter([reading for t in times for reading in (0.0, t)])

    def __call__(self):
        return next(self.readings)


@pytest.fixture
def compare(benchmark, request):
    """Time `name` of a group. `candidates()` returns its calls, or its calls and reasons (peers.prepare)."""

    def run(group, name, candidates, **extra):
        if group not in _times:
            assert group not in _begun, f"the tests of {group} do not follow each other"
            _begun.add(group)
            _times.clear()
            calls = candidates()
            calls, reasons = calls if isinstance(calls, tuple) else (calls, {})
            _reasons.update({(group, missing): reason for missing, reason in reasons.items()})
            _times[group] = interleave(calls, request.config.option.seconds) if calls else {}
        if name not in _times[group]:
            reason = _reasons.setdefault((group, name), "not installed")
            pytest.skip(reason)
        times = _times[group][name]
        benchmark.group = group
        benchmark.extra_info.update(extra, implementation=name, group=group)
        benchmark._timer = _Replay(times)
        benchmark.pedantic(lambda: None, rounds=len(times), iterations=1)

    return run


@pytest.fixture
def compare_case(compare, request):
    """Time `name` of all implementations of an operator on a case; the arrays live as long as the timing."""
    option, table = request.config.option, request.module.PEERS

    def run(operator, case, name, **extra):
        chosen = peers.names(table, operator)
        left_out = dict.fromkeys(option.without, "left out by --without")
        if option.quick and case not in cases.QUICK_COMPILED:
            left_out.setdefault("torch compiled", "left out by --quick")
        for other in left_out.keys() & set(chosen):
            chosen.remove(other)
            _reasons[f"{operator} {case}", other] = left_out[other]

        def candidates():
            try:
                data = case.data()
            except ImportError as error:  # a dtype that NumPy alone does not have
                return {}, dict.fromkeys(chosen, str(error))
            return peers.prepare(table, operator, data, chosen)

        about = {"operator": operator, **case.about(operator), **extra}
        compare(f"{operator} {case}", name, candidates, **about)

    return run


def pytest_benchmark_update_machine_info(config, machine_info):
    """Add what a reader needs to judge the numbers: the build of xent, its threads, the peers' versions."""
    machine_info["xent"] = xent.show_config(mode="dicts")
    machine_info["libraries"] = peers.libraries.versions()
    machine_info["last_level_cache"] = machine.last_level_cache()


def pytest_benchmark_update_json(config, benchmarks, output_json):
    output_json["not_measured"] = [
        {"group": group, "implementation": name, "reason": reason}
        for (group, name), reason in _reasons.items()
    ]


def pytest_terminal_summary(terminalreporter):
    """Name what was not measured: silence would read as a comparison that was never made."""
    for module, reason in peers.libraries.MISSING.items():
        terminalreporter.write_line(f"not installed: {module} ({reason})")
    groups = defaultdict(list)
    for (group, name), reason in _reasons.items():
        groups[name, reason].append(group)
    for (name, reason), where in groups.items():
        terminalreporter.write_line(f"not measured: {name} ({reason}): {', '.join(where)}")
