"""bench/track.py: what counts as a loss of speed. How fast anything is, is no test."""

import json
import sys

import pytest
from helpers import ROOT

pytestmark = pytest.mark.skipif(not (ROOT / "bench").exists(), reason="there is no bench/ beside the tests")


@pytest.fixture
def track(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # as it is, so that it is taken back
    monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", "4")
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import track

    yield track
    for name in ["track", "parts", "interleave", "layers"]:  # names that others may have
        sys.modules.pop(name, None)


def test_the_noise_of_a_median(track):
    # Quartiles of 9, 10, 11, 12, 13 are 9.5 and 12.5: two errors are 2 * 1.253 * 3 / 1.349 / sqrt(5) of 11.
    assert track.summary([13, 9, 11, 10, 12]) == {"ratio": 11, "noise": 0.2266}
    assert track.summary([2.0] * 6 + [50.0])["noise"] == 0  # one bad minute says nothing


@pytest.mark.parametrize(
    "before, now, expected",
    [
        ((1.0, 0.0), (1.09, 0.0), []),
        ((1.0, 0.0), (1.11, 0.0), ["it"]),
        ((1.0, 0.0), (0.5, 0.0), []),
        ((1.0, 0.03), (1.14, 0.04), []),  # 0.10 + 0.05
        ((1.0, 0.03), (1.16, 0.04), ["it"]),
    ],
)
def test_a_loss_is_ten_percent_beyond_the_noise(track, capsys, before, now, expected):
    pair = [{"it": dict(zip(["ratio", "noise"], values, strict=True))} for values in (now, before)]
    assert track.compare(*pair) == expected
    assert ("lost" in capsys.readouterr().out) == bool(expected)


@pytest.mark.parametrize("second, kept", [(1.3, False), (1.0, True)])
def test_what_seems_to_have_lost_is_measured_once_more(track, monkeypatch, capsys, second, kept):
    runs = iter([{"a": [1.0] * 5, "b": [1.3] * 5, "new": [1.0] * 5}, {"b": [second] * 5}])
    asked = []
    monkeypatch.setattr(track, "measure", lambda names: asked.append(list(names)) or next(runs))
    ratios = {name: {"ratio": 1.0, "noise": 0.01} for name in "ab"}
    baselines = {track.kind_of_machine(): {"commit": "v1", "ratios": ratios}}
    assert track.track(baselines, ["a", "b", "new"]) is kept
    assert asked == [["a", "b", "new"], ["b"]]
    assert ("lost: b" in capsys.readouterr().out) is not kept


def test_another_machine_says_nothing(track):
    with pytest.raises(SystemExit, match="make bench-baseline"):
        track.track({"another processor": {}}, ["a"])


def test_a_ratio(track):
    assert track.visit(["cross_entropy, small"])["cross_entropy, small"] > 0


def test_the_stored_baselines_have_no_other_cases(track):
    # they may have fewer: a case that is new is measured once each machine is at hand
    if not track.BASELINE.exists():
        pytest.skip("there is no baseline yet")
    for machine in json.loads(track.BASELINE.read_text()).values():
        assert machine["ratios"]
        assert machine["ratios"].keys() <= track.CASES.keys()
