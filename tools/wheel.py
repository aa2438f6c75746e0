"""Build the wheel that users get, and run the tests on it where it is installed: `make wheel`.

The sdist; of it, the wheel; in it, the OpenMP that it needs, and the licence of that; what a wheel must be is
checked; the suite runs on it, in clean environments, on every CPython that the machine has.

    python tools/wheel.py                             all of it; the sdist and the wheel are in dist/
    python tools/wheel.py --short                     the suite once, with the oldest NumPy, and on the other
                                                      CPythons what depends on them
    python tools/wheel.py --python /opt/py/bin/python also on this one
    python tools/wheel.py --repair A.whl --into DIR   put OpenMP into a wheel and check it (cibuildwheel)
"""

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from glob import glob
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[1]
PYPROJECT = ROOT / "pyproject.toml"
# How an archive is unpacked; the first Pythons 3.11 do not know it.
SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
LARGEST = 2_950_000  # bytes of a wheel: what it may grow to before somebody looks at why
# What a wheel may carry beside xent, and the files that say under which licence. Others are an error.
LICENCES = {"libgomp": ROOT / "tools" / "licences" / "libgomp.txt"}
# One wheel for all CPythons; each free-threaded one has its own.
NAME = re.compile(r"-(cp311-abi3|cp3\d+-cp3\d+t)-((many|musl)linux_\d+_\d+_\w+)\.whl")
# Folders in which CPythons are, and tests of what depends on them: signatures, docstrings, errors, formats.
PYTHONS = ["{PYENV_ROOT}/versions/3.1[1-9].*/bin/python3", "/usr/bin/python3.1[1-9]"]
SHORT = ["api", "docs", "errors", "worked_numbers", "softmax"]
LAST_OF_THE_OLDEST = (3, 12)  # the last CPython that NumPy 1.26 has wheels for


def run(*command, quiet=False, **options):
    """Run a command that must succeed. What a quiet one says is shown if it does not."""
    command = [str(part) for part in command]
    if not quiet:
        print("+", *command, flush=True)
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if quiet else {}
    done = subprocess.run(command, **piped, **options)
    if done.returncode:
        sys.exit(f"{done.stdout or ''}\nfailed: {' '.join(command)}")
    return done.stdout


def environment_of_tools():
    """The environment variables, with the programs of this Python's environment first."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


# Building ---------------------------------------------------------------------------------------------------


def build(folder):
    """Return the sdist, and the wheel that is made of it."""
    variables = os.environ | {"XENT_REQUIRE_OPENMP": "1"}
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, quiet=True, env=variables)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def repair(wheel, folder):
    """Return a copy of a wheel that carries the OpenMP it was linked with, and its licence."""
    with tempfile.TemporaryDirectory() as temporary:
        licensed = shutil.copy(wheel, temporary)
        with zipfile.ZipFile(licensed, "a") as archive:
            (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            for library, text in LICENCES.items():
                archive.write(text, f"{Path(metadata).parent}/licenses/{library}/{text.name}")
        # --strip: names of static functions are for profilers, and are in builds from source
        command = [sys.executable, "-m", "auditwheel", "repair", "--strip", "-w", folder, licensed]
        run(*command, quiet=True, env=environment_of_tools())
    wheel = next(Path(folder).glob("*linux_*.whl"))
    squeeze(wheel)
    return wheel


class Zopfli:
    """A compressor as zipfile uses them, that takes its time: a thirtieth is less than the best of zlib's."""

    def __init__(self):
        self.data = []

    def compress(self, data):
        self.data.append(data)
        return b""

    def flush(self):
        import zopfli.zlib

        # any number of blocks, as code and tables need codes of their own; what zlib adds is not for archives
        squeezed = zopfli.zlib.compress(b"".join(self.data), numiterations=5, blocksplittingmax=0)
        return squeezed[2:-4]


def squeeze(wheel):
    """Compress what is in a wheel as far as that format goes."""
    with zipfile.ZipFile(wheel) as archive:
        files = [(entry, archive.read(entry)) for entry in archive.infolist()]
    compressors = {zipfile.ZIP_DEFLATED: Zopfli, zipfile.ZIP_STORED: lambda: None}
    with mock.patch.object(zipfile, "_get_compressor", lambda kind, level=None: compressors[kind]()):
        with zipfile.ZipFile(wheel, "w") as archive:
            for entry, data in files:
                kind = zipfile.ZIP_STORED if entry.is_dir() else zipfile.ZIP_DEFLATED
                archive.writestr(entry, data, kind)
    with zipfile.ZipFile(wheel) as archive:
        if [archive.read(entry) for entry in archive.infolist()] != [data for _, data in files]:
            sys.exit(f"{wheel.name}: something else comes out than went in")


# Checking ---------------------------------------------------------------------------------------------------


def faults_of_elf(name, data):
    """Yield what is wrong with a library."""
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(data))
    if any(section.name == ".symtab" or section.name.startswith(".debug") for section in elf.iter_sections()):
        yield f"{name} is not stripped"
    stack = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_GNU_STACK"]
    if not stack or stack[0]["p_flags"] & 1:  # PF_X
        yield f"{name} asks for a stack that can be executed"
    dynamic = elf.get_section_by_name(".dynamic")
    if any(tag.entry.d_tag == "DT_TEXTREL" for tag in dynamic.iter_tags()):
        yield f"{name} changes its code when it is loaded"
    symbols = [s for s in elf.get_section_by_name(".dynsym").iter_symbols() if s["st_shndx"] != "SHN_UNDEF"]
    exported = {symbol.name for symbol in symbols if symbol["st_info"]["bind"] != "STB_LOCAL"}
    if "/_kernels." in name and exported != {"PyInit__kernels"}:
        yield f"{name} exports {', '.join(sorted(exported))}"


def newest_symbols(data):
    """Return (version, names) of the newest symbols of the C library that a library asks for."""
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(data))
    if elf.get_section_by_name(".gnu.version_r") is None:  # of musl
        return (0, 0), []
    names = {
        auxiliary["vna_other"]: auxiliary.name
        for _, needed in elf.get_section_by_name(".gnu.version_r").iter_versions()
        for auxiliary in needed
    }
    found = {}
    versions = elf.get_section_by_name(".gnu.version").iter_symbols()
    for symbol, version in zip(elf.get_section_by_name(".dynsym").iter_symbols(), versions, strict=True):
        name = names.get(version["ndx"], "")
        if re.fullmatch(r"GLIBC_2\.\d+", name):
            found.setdefault((2, int(name.split(".")[1])), []).append(symbol.name)
    return max(found.items(), default=((0, 0), []))


def faults(wheel):
    """Yield what is wrong with a wheel."""
    if not NAME.search(wheel.name):
        yield f"the name says {wheel.name}"
    if wheel.stat().st_size > LARGEST:
        yield f"{wheel.stat().st_size} bytes, and {LARGEST} are the limit"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        if any(name.endswith((".c", ".h", ".pyx", ".pxi", ".def")) for name in names):
            yield "it contains sources"
        libraries = [name for name in names if re.search(r"\.so(\.|$)", name)]
        carried = [Path(name).name for name in libraries if ".libs/" in name]
        for name in libraries:
            yield from faults_of_elf(name, archive.read(name))
        for library in carried:
            known = next((known for known in LICENCES if library.startswith(known)), None)
            if known is None or not any(f"/licenses/{known}/" in name for name in names):
                yield f"it carries {library} without its licence"
        bills = [json.loads(archive.read(name)) for name in names if name.endswith(".cdx.json")]
        listed = {component["name"] for bill in bills for component in bill.get("components", [])}
    if not any(library.startswith("libgomp") for library in carried):
        yield "it carries no OpenMP"
    if not any(name.startswith("libgomp") for name in listed):
        yield f"its bill of materials lists {', '.join(sorted(listed)) or 'nothing'}, and not libgomp"
    if "abi3" in wheel.name:
        audit = [sys.executable, "-m", "abi3audit", "--strict", wheel]
        done = subprocess.run(audit, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            yield f"abi3audit: {done.stdout}{done.stderr}"


def check(wheel):
    """Say what a wheel is, and stop if something is wrong with it."""
    print(f"{wheel.name}: {wheel.stat().st_size} bytes")
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if re.search(r"\.so(\.|$)", entry.filename):
                version, symbols = newest_symbols(archive.read(entry))
                print(f"  {entry.filename}: {entry.file_size} bytes, {entry.compress_size} in the wheel")
                print(f"    glibc {'.'.join(map(str, version))} or later for {', '.join(symbols)}")
    wrong = list(faults(wheel))
    if wrong:
        sys.exit("\n".join([f"{wheel.name}:", *wrong]))
    print("  tag, size, stable interface, stack, symbols, licences, bill of materials: as they should be")


# Testing ----------------------------------------------------------------------------------------------------


def version_of(python):
    """(major, minor) of a Python."""
    code = "import sys; print(*sys.version_info[:2])"
    return tuple(map(int, run(python, "-c", code, quiet=True).split()))


def pythons(more):
    """{version: path} of the CPythons to test on: this one, others that are named, those of the machine."""
    root = os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")
    paths = [path for pattern in PYTHONS for path in sorted(glob(pattern.format(PYENV_ROOT=root)))]
    found = {}
    for python in [getattr(sys, "_base_executable", sys.executable), *more, *paths]:
        found.setdefault(version_of(python), python)
    return dict(sorted(found.items()))


def declared_oldest():
    """The oldest NumPy that pyproject.toml allows."""
    (numpy,) = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    return numpy.partition(">=")[2]


def install(python, folder, wheel, *numpy):
    """Return the Python of a new environment with the wheel and what the tests need."""
    run(python, "-m", "venv", folder, quiet=True)
    installed = folder / "bin" / "python"
    # with the pip of this environment: those that came with the CPythons may know no dependency groups
    pip = [sys.executable, "-m", "pip", "--python", installed, "install", "--quiet"]
    run(*pip, wheel, "--group", f"{PYPROJECT}:test", *numpy, quiet=True)
    return installed


def numpy_of(python):
    return run(python, "-c", "import numpy; print(numpy.__version__)", quiet=True).strip()


def install_preview(python):
    """Install the newest NumPy, be it a preview. Return whether it is one."""
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--upgrade", "--no-deps"]
    run(*pip, "--pre", "--only-binary=numpy", "numpy", quiet=True)
    return re.search(r"[a-z]", numpy_of(python)) is not None


def run_tests(python, sources, files):
    """Run tests of the sdist on the installed wheel, in a folder where no package lies."""
    print(f"CPython {'.'.join(map(str, version_of(python)))}, NumPy {numpy_of(python)}", flush=True)
    with tempfile.TemporaryDirectory() as nowhere:
        run(python, "-m", "xent", quiet=True, cwd=nowhere)
        run(python, "-m", "pytest", "-q", "-n", "auto", "-p", "no:cacheprovider", *files, cwd=nowhere)


def test(wheel, sources, folder, short, more):
    """Run the suite on the wheel: with the oldest NumPy, the newest, and a preview if there is one."""
    everything = [sources / "tests"]
    found = pythons(more)
    this = sys.version_info[:2]
    for version, python in found.items():
        name = ".".join(map(str, version))
        if version <= LAST_OF_THE_OLDEST and (version == this or not short):
            oldest = install(python, folder / f"{name}-oldest", wheel, f"numpy=={declared_oldest()}.*")
            run_tests(oldest, sources, everything)
        if not short or version != this:
            newest = install(python, folder / name, wheel)
            files = [sources / "tests" / f"test_{file}.py" for file in SHORT]
            run_tests(newest, sources, files if short else everything)
        if not short and version == max(found) and install_preview(newest):
            run_tests(newest, sources, everything)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="one suite, and a few files on other CPythons")
    parser.add_argument("--python", action="append", default=[], help="test on this CPython too")
    parser.add_argument("--no-tests", action="store_true", help="build and check alone")
    parser.add_argument("--repair", type=Path, metavar="WHEEL", help="only repair and check this wheel")
    parser.add_argument("--into", type=Path, default=ROOT / "dist", help="where the wheel goes (dist/)")
    options = parser.parse_args()
    options.into.mkdir(exist_ok=True)
    if options.repair:
        return check(repair(options.repair, options.into))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        sdist, raw = build(folder)
        wheel = repair(raw, folder / "repaired")
        check(wheel)
        wheel, sdist = (Path(shutil.copy(path, options.into)) for path in (wheel, sdist))
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, **SAFELY)
        if not options.no_tests:
            test(wheel, folder / sdist.name.removesuffix(".tar.gz"), folder, options.short, options.python)


if __name__ == "__main__":
    main()
