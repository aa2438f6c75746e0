"""show_config: what a report of a bug needs."""

import ctypes
import os
import platform
import sys
import sysconfig

import numpy as np
import pytest
from helpers import run_python

import xent
from xent import _config


def lay(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_what_a_report_needs():
    config = xent.show_config(mode="dicts")
    assert config["path"] == os.path.dirname(xent.__file__)
    assert platform.python_version() in config["python"]
    assert config["platform"] == platform.platform()
    assert config["processor"]
    assert 1 <= config["processors"] <= os.cpu_count()
    assert config["numpy"] == np.__version__
    assert config["blas"] != "unknown"
    assert "-ffp-contract=off" in config["flags"] or config["flags"] == "unknown"


def test_variables_of_threads_and_instruction_sets(monkeypatch, capsys):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("PASSWORD", "secret")
    assert xent.show_config(mode="dicts")["environment"]["OMP_WAIT_POLICY"] == "passive"
    xent.show_config()
    printed = capsys.readouterr().out
    assert "OMP_WAIT_POLICY=passive" in printed
    assert "secret" not in printed


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_runtime_that_xent_uses_is_among_those_loaded():
    config = xent.show_config(mode="dicts")
    assert bool(config["openmp_runtimes"]) >= config["openmp"]
    assert all(os.path.exists(path) for path in config["openmp_runtimes"])


MAPS = """\
7f0000000000-7f0000001000 r-xp 00000000 08:01 1  /usr/lib/x86_64-linux-gnu/libgomp.so.1.0.0
7f0000001000-7f0000002000 r--p 00000000 08:01 1  /usr/lib/x86_64-linux-gnu/libgomp.so.1.0.0
7f0000002000-7f0000003000 r-xp 00000000 08:01 2  /opt/with space/torch/lib/libgomp-a34b3233.so.1
7f0000003000-7f0000004000 r-xp 00000000 08:01 3  /opt/intel/libiomp5.so
7f0000004000-7f0000005000 r-xp 00000000 08:01 4  /usr/lib/llvm-19/lib/libomp.so.5
7f0000005000-7f0000006000 r-xp 00000000 08:01 5  /usr/lib/llvm-19/lib/libomptarget.so
7f0000006000-7f0000007000 r-xp 00000000 08:01 6  /opt/libomp/lib/libm.so.6
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0  [stack]
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="asks the loader")
def test_every_runtime_is_named_once(tmp_path):
    assert _config._openmp_runtimes(tmp_path) is None
    lay(tmp_path, "proc/self/maps", MAPS)
    assert [path.rsplit("/", 1)[1] for path in _config._openmp_runtimes(tmp_path)] == [
        "libiomp5.so", "libgomp-a34b3233.so.1", "libomp.so.5", "libgomp.so.1.0.0",
    ]  # fmt: skip


def test_runtimes_of_macos(monkeypatch):
    files = [b"/opt/homebrew/opt/libomp/lib/libomp.dylib", b"/usr/lib/libSystem.B.dylib"]

    class Name:  # a function of C, which takes the type of its result
        def __call__(self, i):
            return files[i]

    class Loader:
        def __init__(self, name):
            self._dyld_get_image_name, self._dyld_image_count = Name(), lambda: len(files)

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", Loader)
    assert _config._openmp_runtimes() == ["/opt/homebrew/opt/libomp/lib/libomp.dylib"]


@pytest.mark.parametrize("text, expected", [
    ("processor\t: 0\nmodel name\t: Processor of 64 cores\nmodel name\t: another\n", "Processor of 64 cores"),
    ("CPU implementer\t: 0x41\n", None),
    ("", None),
])  # fmt: skip
def test_models_of_processors(tmp_path, text, expected):
    lay(tmp_path, "proc/cpuinfo", text)
    assert _config._processor(tmp_path) == (expected or platform.processor() or platform.machine())


@pytest.mark.parametrize(
    "information", [{}, {"Build Dependencies": {}}, {"Build Dependencies": {"blas": {}}}]
)
def test_a_numpy_that_does_not_say_its_blas(monkeypatch, information):
    monkeypatch.setattr(np, "show_config", lambda mode: information)
    assert _config._blas() == "unknown"


@pytest.mark.parametrize("enabled, expected", [(True, "GIL on"), (False, "GIL off")])
def test_python_without_a_lock(monkeypatch, enabled, expected):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: enabled, raising=False)
    monkeypatch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": 1}.get)
    assert _config._python().endswith(f", free-threaded, {expected}")


def test_what_is_printed_is_what_is_returned(tmp_path):
    done = run_python("-m", "xent", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(xent.show_config(mode="dicts"))
