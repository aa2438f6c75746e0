"""Packages: one version, one address, a README that an index can show, OpenMP where it must be."""

import os
import re
import runpy
import sys
import tomllib
import zipfile

import pytest
from helpers import ROOT

import xent

PROJECT = ROOT / "pyproject.toml"
pytestmark = pytest.mark.skipif(not PROJECT.exists(), reason="there is no pyproject.toml beside the tests")


def project():
    return tomllib.loads(PROJECT.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def setup_py():
    """setup.py as a module; tests of an installed xent are beside that of an sdist."""
    pytest.importorskip("setuptools")
    sys.path.insert(0, str(ROOT))
    try:
        import setup
    finally:
        sys.path.remove(str(ROOT))
    return setup


def test_the_version_stands_in_one_place():
    assert project()["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "xent._config.__version__"
    for name in ["CITATION.cff", "packaging/conda/recipe.yaml"]:
        path = ROOT / name
        if path.exists():  # they have to repeat it
            assert (
                re.search(r'^ *version: "?([^"\n]+)"?$', path.read_text(), re.MULTILINE)[1]
                == xent.__version__
            )


def test_the_address_stands_in_one_place():
    urls = project()["project"]["urls"]
    assert all(url.startswith(urls["Source"]) for url in urls.values())
    path = ROOT / "packaging/conda/recipe.yaml"
    if path.exists():
        assert set(re.findall(r"https://github\.com/[\w-]+/[\w-]+", path.read_text())) == {urls["Source"]}


def test_links_of_the_readme_lead_somewhere_from_elsewhere(setup_py, monkeypatch):
    monkeypatch.chdir(ROOT)
    source, text = project()["project"]["urls"]["Source"], setup_py.readme()
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) == len(re.findall(r"\]\(([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert all(target.startswith(("https://", "#")) for target in targets), targets
    assert f"]({source}/blob/v{xent.__version__}/docs/README.md)" in text
    assert re.search(r"!\[[^]]*\]\(https://raw\.githubusercontent\.com/[^)]+\.svg\)", text)


class Compiler:
    """A compiler that refuses some flags."""

    compiler_type = "unix"

    def __init__(self, *refused):
        self.refused, self.calls = refused, []

    def compile(self, sources, output_dir, extra_postargs):
        self.calls.append(extra_postargs)
        if set(self.refused) & set(extra_postargs):
            raise RuntimeError("unrecognized option")
        return [os.path.join(output_dir, "openmp.o")]

    def link_executable(self, objects, output, extra_postargs):
        self.compile(objects, "", extra_postargs)


def build(setup_py, compiler):
    import setuptools

    command = setup_py.BuildKernels(setuptools.Distribution())
    command.compiler = compiler
    return command


def test_without_openmp_a_build_warns(setup_py, monkeypatch):
    monkeypatch.delenv("XENT_REQUIRE_OPENMP", raising=False)
    with pytest.warns(UserWarning, match="no OpenMP"):
        assert build(setup_py, Compiler("-fopenmp", "-openmp", "-lomp")).openmp_flags() == ([], [])


def test_openmp_can_be_required(setup_py, monkeypatch):
    monkeypatch.setenv("XENT_REQUIRE_OPENMP", "1")
    with pytest.raises(setup_py.CompileError, match="XENT_REQUIRE_OPENMP is set.*unrecognized option"):
        build(setup_py, Compiler("-fopenmp", "-openmp", "-lomp")).openmp_flags()
    flags = build(setup_py, Compiler()).openmp_flags()
    assert flags == setup_py.OPENMP.get(sys.platform, [setup_py.GNU_OPENMP])[0]


@pytest.mark.parametrize("system, refused, expected", [
    ("linux", (), (["-fopenmp"], ["-fopenmp"])),
    ("darwin", (), (["-Xpreprocessor", "-fopenmp"], ["-lomp"])),
    ("darwin", ("-lomp",), (["-fopenmp"], ["-fopenmp"])),
    ("win32", (), (["-openmp"], ["libomp.lib"])),
])  # fmt: skip
def test_openmp_flags_of_systems(setup_py, monkeypatch, system, refused, expected):
    monkeypatch.setattr(setup_py.sys, "platform", system)
    assert build(setup_py, Compiler(*refused)).openmp_flags() == expected


def test_clang_cl_gets_flags_behind_its_own(setup_py):
    compiler = Compiler()
    assert build(setup_py, compiler).spelled(["-O3"]) == ["-O3"]
    compiler.compiler_type = "msvc"
    assert build(setup_py, compiler).spelled(["-O3"]) == ["/clang:-O3"]


def test_workflows_take_what_they_were_written_with():
    workflows = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    if not workflows:
        pytest.skip("a source distribution has no workflows")
    for path in workflows:
        text = path.read_text(encoding="utf-8")
        assert re.search(r"^permissions: \{\}$", text, re.MULTILINE), path.name
        for action in re.findall(r"uses: (.*)", text):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action


MACHINES = {
    "linux-x86_64": ["baseline", "avx2", "avx512"],
    "linux-aarch64": ["neon"],
    "win-amd64": ["baseline", "avx2", "avx512"],
    "win-arm64": ["neon"],
    "linux-riscv64": ["baseline"],
}


@pytest.mark.parametrize("platform", MACHINES)
def test_a_build_for_another_machine_has_the_instruction_sets_of_that(setup_py, monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform.partition("-")[0])
    monkeypatch.setenv("_PYTHON_HOST_PLATFORM", platform)
    monkeypatch.setattr(setup_py.sysconfig, "get_platform", lambda: os.environ["_PYTHON_HOST_PLATFORM"])
    assert list(setup_py.isas_of(setup_py.machine())) == MACHINES[platform]


@pytest.mark.parametrize(
    "flags, name", [("-arch arm64", "arm64"), ("-arch x86_64", "x86_64"), (None, "arm64")]
)
def test_a_python_for_two_machines_builds_for_one(setup_py, monkeypatch, flags, name):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(setup_py.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(setup_py.sysconfig, "get_platform", lambda: "macosx-10.13-universal2")
    monkeypatch.setenv("ARCHFLAGS", flags or "")
    monkeypatch.setenv("_PYTHON_HOST_PLATFORM", "")
    for variable in ["_PYTHON_HOST_PLATFORM", *([] if flags else ["ARCHFLAGS"])]:
        monkeypatch.delenv(variable)
    assert setup_py.machine() == name
    assert os.environ["_PYTHON_HOST_PLATFORM"] == f"macosx-10.13-{name}", "the wheel's tag"


def test_no_build_is_for_two_machines(setup_py, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("ARCHFLAGS", "-arch arm64 -arch x86_64")
    with pytest.raises(SystemExit, match="one machine at a time: ARCHFLAGS names arm64 and x86_64"):
        setup_py.machine()


def test_every_folder_of_kernels_is_compiled(setup_py, monkeypatch):
    folders = {path.parent.name for path in (ROOT / "xent" / "csrc").glob("*/kernels.c")}
    assert {name.split("/")[2] for name in setup_py.KERNELS if name.endswith("/kernels.c")} == folders
    assert set(setup_py.SMALLER) < set(setup_py.KERNELS)


@pytest.mark.parametrize("isa", ["avx512", "baseline"])
def test_the_level_of_optimization_is_the_last_that_a_compiler_reads(setup_py, monkeypatch, isa):
    monkeypatch.setattr(setup_py, "ISAS", setup_py.X86)
    for source in setup_py.KERNELS:
        level = [flag for flag in setup_py.kernel_flags(source, isa) if flag.startswith("-O")][-1]
        assert level == ("-Os" if isa == "baseline" else "-O2" if source in setup_py.SMALLER else "-O3")


def test_a_squeezed_wheel_holds_the_same_in_less(tmp_path):
    pytest.importorskip("zopfli")
    tool = ROOT / "tools" / "wheel.py"
    if not tool.exists():
        pytest.skip("a source distribution has no tools")
    squeeze = runpy.run_path(str(tool))["squeeze"]
    path = tmp_path / "some.whl"
    files = {"xent/": b"", "xent/a.py": (ROOT / "setup.py").read_bytes() * 3, "empty": b""}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    before = path.stat().st_size
    squeeze(path)
    assert path.stat().st_size < 0.99 * before
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {entry.filename: archive.read(entry) for entry in archive.infolist()} == files
