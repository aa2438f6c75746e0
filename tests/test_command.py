"""python -m xent evaluate and compare: forms of files, options, bad files, interruptions, and the report."""

import contextlib
import html
import io
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from helpers import ROOT, random_labels, random_logits, run_python

import xent
from xent._command import main, report
from xent._command.arrays import InputError, open_array
from xent._command.details import Predictions, _largest
from xent._command.pieces import Total, cuts

N, C = 300, 7
SMALL = ["--memory", "4K"]  # of which a piece takes an eighth: 16 positions of 7 classes in float32
NUMBERS = [
    "loss",
    "loss_standard_error",
    "mse",
    "entropy",
    "mutual_information",
    "expected_calibration_error",
]


@pytest.fixture
def case(tmp_path, monkeypatch):
    """Logits and labels, of which some are ignored, saved as x.npy and y.npy in the working directory."""
    monkeypatch.chdir(tmp_path)
    x, y = random_logits((N, C), np.float32), random_labels((N,), C, ignored=0.1)
    np.save("x.npy", x)
    np.save("y.npy", y)
    return x, y


def run(*argv, status=0):
    """Return what the command prints on its output and on the other one."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main([str(argument) for argument in argv]) == status, err.getvalue()
    return out.getvalue(), err.getvalue()


def result(*argv, status=0):
    printed, _ = run(*argv, "--json", status=status)
    return json.loads(printed, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def failure(*argv):
    """Return the one line that says what is wrong."""
    printed, errors = run(*argv, status=2)
    assert printed == "" and errors.startswith("xent: error: ") and errors.count("\n") == 1, errors
    return errors.removeprefix("xent: error: ").strip()


def assert_evaluates(found, expected):
    for name in ["count", "accuracy", "top_k_accuracy"]:
        value = expected.as_dict()[name]
        assert found[name] == ({str(k): v for k, v in value.items()} if isinstance(value, dict) else value), (
            name
        )
    for name in NUMBERS:
        assert found[name] == pytest.approx(expected.as_dict()[name], rel=1e-12), name
    assert found["complete"] and found["positions_read"] == found["positions"]


def expected_of(x, y, **options):
    return xent.evaluate(x, y, **({"top_k": (1, 5), "calibration_bins": 15} | options))


# ---- forms of files ----


def save_npz(x, y):
    np.savez("xy.npz", logits=x, labels=y)
    return "xy.npz:logits", "xy.npz:labels"


def save_compressed(x, y):
    np.savez_compressed("x.npz", x)
    np.savetxt("y.txt", y, fmt="%d")
    return "x.npz", "y.txt"


def save_safetensors(x, y):
    pytest.importorskip("safetensors.numpy").save_file({"logits": x, "labels": y}, "xy.safetensors")
    return "xy.safetensors:logits", "xy.safetensors:labels"


def save_hdf5(x, y):
    with pytest.importorskip("h5py").File("xy.h5", "w") as file:
        file.create_dataset("model/logits", data=x, chunks=(50, 3), compression="gzip")
        file["labels"] = y
    return "xy.h5:model/logits", "xy.h5:labels"


def save_zarr(x, y):
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group("xy.zarr", mode="w")
    for name, array in [("logits", x), ("labels", y)]:
        group.create_array(name, data=array, chunks=(12,) + array.shape[1:])
    return "xy.zarr:logits", "xy.zarr:labels"


def save_fortran(x, y):
    np.save("xf.npy", np.asfortranarray(x))
    np.save("y32.npy", y.astype(">i4"))
    return "xf.npy", "y32.npy"


def save_big_endian(x, y):
    np.save("xe.npy", x.astype(">f4"))
    np.save("y8.npy", y.astype(np.int8))
    return "xe.npy", "y8.npy"


@pytest.mark.parametrize(
    "save",
    [save_npz, save_compressed, save_safetensors, save_hdf5, save_zarr, save_fortran, save_big_endian],
    ids=lambda save: save.__name__,
)
def test_every_form_of_file(case, save):
    x, y = case
    files = save(x, y)
    assert_evaluates(result("evaluate", *files, *SMALL), expected_of(x, y))
    assert_evaluates(result("evaluate", *files), expected_of(x, y))


def raw_safetensors(path, tensors, header=None):
    """Write tensors, names with (kind, array); the header may say something else."""
    entries, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (kind, array) in tensors.items():
        end = len(data) + array.nbytes
        entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    text = json.dumps(entries | (header or {})).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("kind, dtype", [("BF16", "bfloat16"), ("F16", "f2"), ("F64", "f8"), ("I32", "i4")])
@pytest.mark.parametrize("odd", [False, True])
def test_dtypes(case, kind, dtype, odd):
    """A tensor of three bytes before it, and it does not lie at a multiple of its size."""
    x, y = case
    x = np.asarray(8 * x if dtype == "i4" else x).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    before = {"before": ("U8", np.zeros(3, "u1"))} if odd else {}
    raw_safetensors("x.safetensors", before | {"x": (kind, x)})
    assert_evaluates(result("evaluate", "x.safetensors:x", "y.npy", *SMALL), expected_of(x, y))


def test_bfloat16_by_other_names(case):
    """NumPy writes bfloat16 as two bytes without a type; zarr and others know 16 bits as integers alone."""
    x, y = case
    x = x.astype(ml_dtypes.bfloat16)
    np.save("b.npy", x)
    np.save("u.npy", x.view(np.uint16))
    expected = expected_of(x, y)
    assert_evaluates(result("evaluate", "b.npy", "y.npy"), expected)
    assert_evaluates(result("evaluate", "u.npy", "y.npy", "--bfloat16"), expected)
    h5py = pytest.importorskip("h5py")
    with h5py.File("b.h5", "w") as file:
        file["x"] = x
    assert_evaluates(result("evaluate", "b.h5", "y.npy"), expected)


def numbers(found):
    return {key: value for key, value in found.items() if key not in ("logits", "labels")}


def test_shards_are_the_whole_to_the_last_bit(case):
    """Whatever their sizes, empty ones included; and shard10 comes after shard9."""
    x, y = case
    os.mkdir("shards")
    sizes = np.random.default_rng(0).multinomial(N - 1, [1 / 12] * 12)
    sizes[3] = 0
    for k, part in enumerate(np.split(x, np.cumsum(sizes))):
        np.save(f"shards/shard{k}.npy", part)
    whole = numbers(result("evaluate", "x.npy", "y.npy", *SMALL))
    assert numbers(result("evaluate", "shards", "y.npy", *SMALL)) == whole
    assert numbers(result("evaluate", "shards/*.npy", "y.npy", *SMALL)) == whole
    compared = numbers(result("compare", "x.npy", "shards", "--labels", "y.npy", *SMALL))
    assert compared["kl"] == 0 and compared["same_top"] == 1 and compared["count"] == (y >= 0).sum()


def test_named_arrays_of_shards(case):
    x, y = case
    os.mkdir("shards")
    for k, (a, b) in enumerate(zip(np.array_split(x, 3), np.array_split(y, 3), strict=True)):
        np.savez(f"shards/{k}.npz", logits=a, labels=b)
    assert_evaluates(result("evaluate", "shards:logits", "shards/*:labels", *SMALL), expected_of(x, y))


def test_standard_input(case, monkeypatch):
    x, y = case
    command = [sys.executable, "-m", "xent", "evaluate", "x.npy", "-", "--json"]
    done = subprocess.run(command, input="\n".join(map(str, y)).encode(), capture_output=True, check=True)
    assert done.stderr == b""  # no bar where there is no terminal
    assert_evaluates(json.loads(done.stdout), expected_of(x, y))
    binary = io.BytesIO()
    np.save(binary, y)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(binary.getvalue())))
    assert_evaluates(result("evaluate", "x.npy", "-"), expected_of(x, y))


def shown():
    """Yield each command of docs/evaluate_files.md, and what the page says that it prints; make its files."""
    page = (ROOT / "docs" / "evaluate_files.md").read_text(encoding="utf-8")
    exec(re.search(r"```python\n(.*?)```", page, re.S)[1], {})
    for block in re.findall(r"```console\n(.*?)```", page, re.S):
        for command in re.split(r"^\$ ", block, flags=re.M)[1:]:
            yield command.partition("\n")[::2]


def shell(command, monkeypatch):
    """Return what `[... |] python -m xent ... [< FILE]` prints, and do it in this process."""
    before, argv, file = re.fullmatch(r"(?:(.*) \| )?python -m xent (.*?)(?: < (\S+))?", command).groups()
    given = subprocess.run(
        ["bash", "-c", before or f"cat {file or '/dev/null'}"], capture_output=True, check=True
    )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.stdout)))
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(printed):
        main(shlex.split(argv))
    return printed.getvalue()


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="there is no docs/ beside an installed test suite")
def test_the_page_prints_what_it_says(case, monkeypatch):
    commands = list(shown())
    assert len(commands) == 5
    for command, printed in commands:
        assert shell(command, monkeypatch).split() == printed.split(), command


# ---- shapes and options ----


def test_classes_in_the_middle(case):
    x, y = random_logits((6, 5, 4, 3), np.float64), random_labels((6, 4, 3), 5)
    np.save("x.npy", x)
    np.save("y.npy", y)
    for memory in ["1K", "4K", "1M"]:
        found = result("evaluate", "x.npy", "y.npy", "--axis", 1, "--memory", memory)
        assert_evaluates(found, expected_of(x, y, axis=1))
    found = result("evaluate", "x.npy", np.save("t.npy", np.moveaxis(y, 0, 0)) or "t.npy", "--axis", "-3")
    assert_evaluates(found, expected_of(x, y, axis=1))


def test_classes_first(case):
    x, y = case
    np.save("t.npy", np.ascontiguousarray(x.T))
    assert_evaluates(result("evaluate", "t.npy", "y.npy", "--axis", 0, *SMALL), expected_of(x, y))


def test_one_long_sequence_is_cut(case):
    """Where an index of the first axis takes more memory than it may."""
    x, y = case
    for name, array in [("x.npy", x[None]), ("y.npy", y[None])]:
        np.save(name, array)
    np.savez("x.npz", x[None])
    for logits in ["x.npy", "x.npz"]:
        assert_evaluates(result("evaluate", logits, "y.npy", *SMALL), expected_of(x, y))


@pytest.mark.parametrize(
    "shape, axis, chunks",
    [((100, 7), 1, None), ((3, 50, 7), 2, None), ((7, 90), 0, None), ((64, 7), 1, (10, 3))],
)
def test_pieces_are_all_positions_once(shape, axis, chunks):
    seen = np.zeros(shape, int)
    for index in cuts(shape, axis, 28, 4096, chunks):
        assert seen[index].size <= 16 * 7
        seen[index] += 1
    assert (seen == 1).all()


def test_options_of_evaluate(case, rng):
    x, y = case
    y[:5] = 6
    weight, prior = rng.uniform(0, 2, N), rng.uniform(0.1, 1, C)
    np.save("y.npy", y)
    np.savetxt("weight.txt", weight)
    np.save("prior.npy", prior)
    options = dict(ignore_index=(-100, 6), sample_weight=weight, top_k=(2, 3), prior=prior, base=2.0)
    options |= dict(temperature=1.5, calibration_bins=10, confusion=True)
    found = result(
        "evaluate", "x.npy", "y.npy", "--ignore-index", -100, "--ignore-index", 6,
        "--sample-weight", "weight.txt", "--top-k", 2, "--top-k", 3, "--prior", "prior.npy", "--base", 2,
        "--temperature", 1.5, "--calibration-bins", 10, "--confusion", "--bytes", 50, "--memory", "64K",
    )  # fmt: skip
    expected = xent.evaluate(x, y, **options)
    for name, value in expected.as_dict().items():
        if name not in ("top_k_accuracy", "reliability", "per_class"):
            np.testing.assert_allclose(found[name], value, rtol=1e-12)
    assert found["top_k_accuracy"]["3"] == pytest.approx(expected.top_k_accuracy[3], rel=1e-12)
    assert found["bits_per_byte"] == pytest.approx(expected.bits_per(50), rel=1e-12)
    error = expected.perplexity * expected.loss_standard_error * math.log(2)
    assert found["perplexity_standard_error"] == pytest.approx(error, rel=1e-12)
    assert len(result("evaluate", "x.npy", "y.npy", "--per-class")["per_class"]["recall"]) == C


def test_sequences(case):
    x, y = case
    groups = np.arange(N) // 20  # some begin in one piece and end in another
    np.save("groups.npy", groups)
    found = result("evaluate", "x.npy", "y.npy", "--groups", "groups.npy", *SMALL)["sequences"]
    expected = xent.evaluate_sequences(x, y, groups)
    for name in ["groups", "tokens", "greedy"]:
        assert found[name] == getattr(expected, name).tolist()
    np.testing.assert_allclose(found["log_prob"], expected.log_prob, rtol=1e-12)
    assert re.search(r"sequences +15\n", run("evaluate", "x.npy", "y.npy", "--groups", "groups.npy")[0])


def test_compare(case, rng):
    x, y = case
    other = x + 0.1 * random_logits((N, C), np.float32, seed=1)
    np.save("b.npy", other)
    found, expected = (
        result("compare", "x.npy", "b.npy", "--labels", "y.npy", *SMALL),
        xent.compare(x, other, y),
    )
    for name, value in expected.as_dict().items():
        assert found[name] == (value if value is None else pytest.approx(value, rel=1e-12)), name
    assert result("compare", "x.npy", "b.npy", "--base", 10)["kl"] == pytest.approx(
        xent.compare(x, other, base=10).kl
    )


def test_tables(case):
    """What newcomers see: name, value, standard error."""
    x, y = case
    expected = expected_of(x, y)
    printed, errors = run("evaluate", "x.npy", "y.npy")
    assert errors == ""
    assert re.search(
        rf"^loss \(nats\) +{expected.loss:.6g} +{expected.loss_standard_error:.2g}$", printed, re.M
    )
    assert re.search(
        rf"^accuracy +{expected.accuracy:.6g} +{expected.accuracy_standard_error:.2g}$", printed, re.M
    )
    assert re.search(r"^perplexity +[0-9.]+ +[0-9.]+$", printed, re.M)
    printed, _ = run("compare", "x.npy", "x.npy", "--labels", "y.npy", "--base", 2)
    assert re.search(r"^KL\(a \|\| b\) \(bits\) +0 +0$", printed, re.M)
    assert re.search(r"^their ratio, b / a +1 +0$", printed, re.M)


def test_nothing(case):
    np.save("x.npy", np.empty((0, C), np.float32))
    np.save("y.npy", np.empty(0, int))
    found = result("evaluate", "x.npy", "y.npy")
    assert (found["count"], found["loss"], found["loss_standard_error"]) == (0, 0.0, None)
    assert result("compare", "x.npy", "x.npy")["kl_max"] is None


def test_infinity_is_json(case):
    x, y = case
    x[0, y[0]] = -np.inf
    np.save("x.npy", x)
    assert result("evaluate", "x.npy", "y.npy")["loss"] == "Infinity"


# ---- what is wrong with files ----


def cut_file(path, size):
    with open(path, "rb") as file:
        start = file.read(size)
    with open(f"cut{path}", "wb") as file:
        file.write(start)
    return f"cut{path}"


def test_truncated_files(case):
    x, y = case
    save_npz(x, y)
    raw_safetensors("x.safetensors", {"x": ("F32", x)})
    for path, size, words in [
        ("x.npy", 4000, "cutx.npy is truncated: 3872 of the 8400 bytes of 300 x 7 float32 are there"),
        ("x.npy", 60, "cutx.npy cannot be read: EOF"),
        ("x.npy", 0, "cutx.npy cannot be read: it is empty"),
        ("xy.npz", 5000, "cutxy.npz cannot be read: File is not a zip file"),
        ("x.safetensors", 4000, "cutx.safetensors:x is truncated"),
        ("x.safetensors", 20, "its header does not fit in"),
        ("x.safetensors", 4, "its header does not fit in"),
    ]:
        assert words in failure("evaluate", cut_file(path, size), "y.npy")


def test_a_truncated_member_of_a_npz(case):
    x, y = case
    member = io.BytesIO()
    np.save(member, x)
    with zipfile.ZipFile("x.npz", "w") as file:
        file.writestr("x.npy", member.getvalue()[:4000])
    assert "x.npz:x is truncated: it ends before 300 x 7 float32 do" in failure(
        "evaluate", "x.npz", "y.npy", *SMALL
    )


def test_a_changed_byte_of_a_npz(case):
    x, y = case
    np.savez("x.npz", x)
    with open("x.npz", "r+b") as file:
        file.seek(4000)
        file.write(b"\xff")
    assert "Bad CRC-32" in failure("evaluate", "x.npz", "y.npy")


@pytest.mark.parametrize(
    "header, words",
    [
        ({"x": {"dtype": "F32", "shape": [N, C], "data_offsets": [0, 8]}}, "shape (300, 7) does not take"),
        ({"x": {"dtype": "F32", "shape": [N, -C], "data_offsets": [0, 8]}}, "has a wrong header"),
        ({"x": {"dtype": "F8_E4M3", "shape": [N, C], "data_offsets": [0, 8400]}}, "holds F8_E4M3"),
        ({"x": {"dtype": "F32"}}, "cannot be read: 'shape'"),
        ({"x": 3}, "cannot be read"),
    ],
)
def test_wrong_headers_of_safetensors(case, header, words):
    raw_safetensors("x.safetensors", {"x": ("F32", case[0])}, header)
    assert words in failure("evaluate", "x.safetensors", "y.npy")


def test_bad_hdf5_and_zarr(case):
    pytest.importorskip("h5py"), pytest.importorskip("zarr")
    save_hdf5(*case)
    assert "cannot be read" in failure("evaluate", cut_file("xy.h5", 3000), "y.npy")
    assert "holds 2 arrays: say which, as in xy.h5:NAME (labels, model/logits)" in failure(
        "evaluate", "xy.h5", "y.npy"
    )
    save_zarr(*case)
    chunk = "xy.zarr/logits/c/5/0"
    os.truncate(chunk, 20)
    # a process of its own: zarr would go on with the other chunks
    done = run_python("-m", "xent", "evaluate", "xy.zarr:logits", "y.npy", cwd=os.getcwd())
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert done.stderr.startswith("xent: error: xy.zarr cannot be read") and done.stderr.count("\n") == 1


def test_shards_that_do_not_fit(case):
    os.mkdir("shards")
    np.save("shards/a.npy", case[0])
    np.save("shards/b.npy", case[0][:, :5])
    words = failure("evaluate", "shards", "y.npy")
    assert words.startswith("shards/b.npy holds 300 x 5 float32, and shards/a.npy holds 300 x 7 float32")
    os.remove("shards/b.npy")
    np.save("shards/b.npy", case[0].astype("f8"))
    assert "float64" in failure("evaluate", "shards", "y.npy")
    assert "100 x 7" not in failure("evaluate", "shards", "y.npy", "--axis", 0)


@pytest.mark.parametrize(
    "argv, words",
    [
        (["none.npy", "y.npy"], "none.npy: there is no such file"),
        (["x.npy:x", "y.npy"], "none called x"),
        (["x.md", "y.npy"], "files that end in .md are not read"),
        (["empty", "y.npy"], "empty holds no file that is read"),
        (["y.npy", "y.npy"], "y.npy holds 300 int64"),
        (["complex.npy", "y.npy"], "complex.npy holds complex64"),
        (["objects.npy", "y.npy"], "objects.npy holds object"),
        (["fields.npy", "y.npy"], "which is not read"),
        (["x.npy", "x.npy"], "x.npy holds 300 x 7 float32, and there have to be 300 labels"),
        (["maps.npy", "y.npy"], "without its classes; it would fit with --axis 1"),
        (["x.npy", "floats.npy"], "floats.npy holds float64, and labels are integers"),
        (["x.npy", "short.npy"], "short.npy holds 299 int64"),
        (["x.npy", "bad.txt"], "bad.txt: '1.5', number 2 of it, is not an integer"),
        (["x.npy", "y.npy", "--sample-weight", "short.npy"], "there have to be 300 weights"),
        (
            ["x.npy", "y.npy", "--sample-weight", "nan.npy"],
            "nan.npy: at position 7 is a weight that is not finite",
        ),
        (["x.npy", "y.npy", "--prior", "short.npy"], "--prior needs 7 numbers"),
        (["x.npy", "y.npy", "--axis", "2"], "--axis 2: x.npy has 2 axes"),
        (["x.npy", "y.npy", "--memory", "100"], "--memory is too little: a position alone needs 1K"),
        (["x.npy", "y.npy", "--confusion", "--memory", "1K"], "--confusion needs more --memory"),
        (["x.npy", "y.npy", "--top-k", "0"], "--top-k must be at least 1"),
        (["x.npy", "y.npy", "--temperature", "0"], "--temperature must be"),
        (["x.npy", "y.npy", "--base", "1"], "--base must be"),
        (["x.npy", "y.npy", "--calibration-bins", "0"], "--calibration-bins must be"),
        (["x.npy", "y.npy", "--ignore-index", 2**64], "--ignore-index[0] must fit into 64 bits"),
        (
            ["x.npy", "y.npy", "--prior", "minus.npy"],
            "--prior must be finite and positive, got --prior[1] = -2",
        ),
        (
            ["x.npy", "named.csv"],
            "'label', number 0 of it, is not an integer of 64 bits: leave a line of names",
        ),
        (["folder.npy", "y.npy"], "folder.npy cannot be read: Is a directory"),
        (["x.npy", "y.npy", "--report", "none/page.html"], "--report none/page.html cannot be written"),
    ],
    ids=lambda part: " ".join(map(str, part)) if isinstance(part, list) else "",
)
def test_errors(case, argv, words):
    if "--report" in argv:
        pytest.importorskip("matplotlib")
    os.mkdir("empty")
    os.mkdir("folder.npy")
    for name, text in [("x.md", "text"), ("bad.txt", "0, 1\n1.5"), ("named.csv", "label\n0\n1\n")]:
        with open(name, "w") as file:
            file.write(text)
    np.save("complex.npy", case[0] * 1j)
    np.save("objects.npy", np.array([[None]]), allow_pickle=True)
    np.save("fields.npy", np.zeros((N, C), [("a", "f4")]))
    np.save("floats.npy", np.zeros(N))
    np.save("short.npy", case[1][:-1])
    np.save("minus.npy", -2.0 * np.arange(C) + 2 * np.eye(C)[0])
    np.save("maps.npy", np.zeros((N, 3, 1)))
    if argv[0] == "maps.npy":
        np.save("y.npy", case[1][:, np.newaxis])
    np.save("nan.npy", np.where(np.arange(N) == 7, np.nan, 1.0))
    assert words in failure("evaluate", *argv)


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
def test_unsigned_labels_are_ignored(case, dtype):
    x, y = case
    y = np.where(y < 0, 255, y).astype(dtype)
    np.save("y.npy", y)
    found = result("evaluate", "x.npy", "y.npy", "--ignore-index", "255", *SMALL)
    assert_evaluates(found, expected_of(x, y, ignore_index=255))
    assert "is the label 255, which is not in [0, 7)" in failure("evaluate", "x.npy", "y.npy", *SMALL)


def test_labels_out_of_range_are_found(case):
    x, y = case
    y[123] = C
    np.save("y.npy", y)
    assert failure("evaluate", "x.npy", "y.npy", *SMALL) == (
        "y.npy: at position 123 is the label 7, which is not in [0, 7) and not ignored"
    )
    os.mkdir("shards")
    for k, part in enumerate(np.array_split(y, 3)):
        np.save(f"shards/{k}.npy", part)
    for command in (["evaluate", "x.npy", "shards"], ["compare", "x.npy", "x.npy", "--labels", "shards"]):
        assert "shards/1.npy: at position 23 (123 of all) is the label 7" in failure(*command, *SMALL)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_have_no_softmax_are_found(case, bad):
    x, y = case
    x[122], x[150, 2] = np.nan, bad
    y[122], y[150] = -100, 1  # an ignored position may hold anything
    os.mkdir("shards")
    for k, part in enumerate(np.array_split(x, 3)):
        np.save(f"shards/{k}.npy", part)
    np.save("x.npy", x)
    np.save("y.npy", y)
    words = "at position 150 are logits that have no softmax: NaN, infinity, or nothing but -infinity"
    assert failure("evaluate", "x.npy", "y.npy", *SMALL) == f"x.npy: {words}"
    assert failure("compare", "x.npy", "x.npy", "--labels", "y.npy", *SMALL) == f"x.npy: {words}"
    assert "shards/1.npy: at position 50 (150 of all)" in failure("evaluate", "shards", "y.npy", *SMALL)


WRONG = ["evaluate", "x.npy", "y.npy"]


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["evaluate"],
        ["x"],
        [*WRONG, "--memory", "big"],
        [*WRONG, "--bytes", "0"],
        [*WRONG, "--bytes", "many"],
    ],
)
def test_errors_of_the_command_line(case, argv, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize("name, argv", [
    ("h5py", ["x.h5", "y.npy"]), ("zarr", ["x.zarr", "y.npy"]),
    ("ml_dtypes", ["x.npy", "y.npy", "--bfloat16"]), ("matplotlib", ["x.npy", "y.npy", "--report", "p.html"]),
])  # fmt: skip
def test_missing_libraries_are_named(case, monkeypatch, name, argv):
    np.save("x.npy", case[0].astype(np.int16))
    for path in ["x.h5", "x.zarr"]:
        Path(path).touch()
    monkeypatch.setitem(sys.modules, name, None)
    assert f'needs the package {name}: pip install "xent-kernels[files]"' in failure("evaluate", *argv)
    assert not os.path.exists("p.html")


def test_import_xent_imports_none_of_it():
    code = (
        "import sys, xent; print([m for m in sys.modules if '_command' in m or m in ('argparse', 'zipfile')])"
    )
    assert run_python("-c", code).stdout.strip() == "[]"


# ---- as a process ----


def test_the_version(capsys):
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"xent {xent.__version__}\n"


@pytest.mark.skipif(os.name != "posix", reason="signals and devices of POSIX")
@pytest.mark.parametrize("argv", [["evaluate", "x.npy", "y.npy"], [], ["--help"]], ids=" ".join)
def test_an_output_that_takes_nothing_more(case, argv):
    """As head leaves it, and a disk that is full: one line at most, and a status of its own."""
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as pipe:
        ended = run_python("-m", "xent", *argv, cwd=".", stdout=pipe, PYTHONUNBUFFERED="")
    assert (ended.returncode, ended.stderr) == (141, "")
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as full:
            ended = run_python("-m", "xent", *argv, cwd=".", stdout=full, PYTHONUNBUFFERED="")
        words = "xent: error: the standard output cannot be written: No space left on device\n"
        assert (ended.returncode, ended.stderr) == (2, words)


# ---- while it runs ----


def test_ctrl_c_leaves_what_was_computed(case, monkeypatch):
    x, y = case
    pieces, evaluate = [], xent.evaluate

    def interrupted(logits, *args, **options):
        if len(pieces) == 6:
            raise KeyboardInterrupt
        pieces.append(len(logits))
        return evaluate(logits, *args, **options)

    monkeypatch.setattr(xent, "evaluate", interrupted)
    found = result("evaluate", "x.npy", "y.npy", *SMALL, status=130)
    seen = sum(pieces)
    assert (found["complete"], found["positions_read"], found["positions"]) == (
        False,
        seen,
        N,
    ) and 0 < seen < N
    expected = evaluate(x[:seen], y[:seen])
    assert (found["count"], found["accuracy"]) == (expected.count, expected.accuracy)
    pieces.clear()
    printed, errors = run("evaluate", "x.npy", "y.npy", *SMALL, status=130)
    assert f"INTERRUPTED after {seen} of 300 positions" in printed and errors == ""


def test_ctrl_c_writes_no_report(case, monkeypatch):
    pytest.importorskip("matplotlib")
    calls = iter(range(100))
    evaluate = xent.evaluate
    monkeypatch.setattr(
        xent, "evaluate", lambda *a, **o: evaluate(*a, **o) if next(calls) < 3 else interrupt()
    )
    Path("page.html").write_text("before")
    _, errors = run("evaluate", "x.npy", "y.npy", *SMALL, "--report", "page.html", status=130)
    assert "page.html is not written" in errors
    assert Path("page.html").read_text() == "before" and sorted(os.listdir()) == [
        "page.html",
        "x.npy",
        "y.npy",
    ]


def interrupt():
    raise KeyboardInterrupt


def test_ctrl_c_of_a_process(case):
    """A signal as a terminal sends it, while the process reads."""
    code = (
        "import os, signal, sys, xent, xent._command as command\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job in the background ignores it
        "evaluate, calls = xent.evaluate, iter(range(100))\n"
        "def signalled(*args, **options):\n"
        "    if next(calls) == 5: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return evaluate(*args, **options)\n"
        "xent.evaluate = signalled\n"
        "sys.exit(command.run_as_process())\n"
    )
    done = run_python("-c", code, "evaluate", "x.npy", "y.npy", *SMALL, cwd=os.getcwd())
    assert done.returncode == 130 and done.stderr == "", done.stderr
    assert re.search(r"INTERRUPTED after \d+ of 300 positions", done.stdout)


def test_ctrl_c_before_anything(case, monkeypatch):
    monkeypatch.setattr("xent._command.commands.open_array", lambda *a, **o: interrupt())
    printed, errors = run("evaluate", "x.npy", "y.npy", status=130)
    assert printed == "" and errors == "xent: interrupted before there was a result\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal(case, monkeypatch):
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["evaluate", "x.npy", "y.npy"]) == 0
    assert "300/300" in terminal.getvalue()


def test_without_tqdm_there_is_no_bar(case, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert_evaluates(result("evaluate", "x.npy", "y.npy", *SMALL), expected_of(*case))


MEMORY = """
import resource, sys
from xent._command import main
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB; bytes on macOS
main(["evaluate", "small.npy", "small_y.npy", "--memory", "16M"])
before = peak()
main(["evaluate", sys.argv[1], "y.npy", "--memory", "16M"])
print((peak() - before) / (2**20 if sys.platform == "darwin" else 2**10))
"""


def test_memory_is_bounded(case):
    """Of 48 MiB, mapped and streamed, no more than the limit is ever there."""
    pytest.importorskip("resource")
    x = np.zeros((12, 1 << 20), np.float32)
    np.save("small.npy", x[:2, : 1 << 10])
    np.save("small_y.npy", np.zeros(2, int))
    np.save("y.npy", np.zeros((12, 1 << 10), int))
    np.save("x.npy", x.reshape(12, 1 << 10, 1 << 10))
    np.savez("x.npz", x.reshape(12, 1 << 10, 1 << 10))
    for path in ["x.npy", "x.npz"]:
        done = run_python("-c", MEMORY, path, cwd=os.getcwd())
        assert done.returncode == 0, done.stderr
        assert float(done.stdout.split()[-1]) < 16


def test_totals_add_up_in_one_order():
    total = Total()
    for k in range(11):
        total = total.plus(f"{k:x}")
    assert total.sum() == "0123456789a"
    assert Total().sum() is None


# ---- the report ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Logits in a file with an odd name, labels that they predict, and the reports of both commands."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("reports")
    x, noise = random_logits((N, C), np.float32), np.random.default_rng(0).gumbel(size=(N, C))
    np.save(folder / "<b>&.npy", x)
    np.save(folder / "b.npy", x + 0.1 * random_logits((N, C), np.float32, seed=1))
    np.save(folder / "y.npy", (x + noise).argmax(-1))
    run("evaluate", folder / "<b>&.npy", folder / "y.npy", *SMALL, "--report", folder / "evaluate.html")
    files = [folder / "<b>&.npy", folder / "b.npy", "--labels", folder / "y.npy"]
    run("compare", *files, *SMALL, "--report", folder / "compare.html")
    return folder


@pytest.fixture
def pages(folder):
    return [(folder / name).read_text(encoding="utf-8") for name in ("evaluate.html", "compare.html")]


PLOTS = [
    ["Reliability diagram", "Histogram of losses", "Confusion of the worst classes"],
    [
        "Quantiles of KL(a || b)",
        "Change of the probabilities of labels",
        "Probabilities of labels, by a and b",
    ],
]


def test_reports_are_one_file(folder, pages):
    assert len(list(folder.iterdir())) == 5  # nothing else lies beside them
    for page, plots in zip(pages, PLOTS, strict=True):
        assert page.count("<svg") == len(plots)
        for title in plots:
            assert f"<h2>{title}</h2>" in page
        # namespaces of SVG are no addresses; everything else would be
        links = set(re.findall(r"https?://[^\"' ]+", page))
        assert links <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
        assert not re.search(r"<(script|link|img|image|iframe)\b|@import|url\((?!#)", page)
        names = re.findall(r'\bid="([^"]+)"', page)
        assert len(names) == len(set(names))
        assert {name for name in re.findall(r'href="#([^"]+)"', page)} <= set(names)
        assert "&lt;b&gt;&amp;.npy" in page and "<b>" not in page
    assert "<td>loss (nats)</td>" in pages[0] and "<h2>Worst classes</h2>" in pages[0]


def test_plots_are_the_same_again(case):
    """And there is one of values that are all 0, without warnings."""
    pytest.importorskip("matplotlib")
    for draw in [
        lambda axes: report._draw_histogram(axes, np.zeros(9), "x", log=True),
        lambda axes: report._draw_quantiles(axes, np.zeros(9)),
    ]:
        assert report._svg(draw, "p-") == report._svg(draw, "p-")


@pytest.mark.parametrize("odd", ["one class", "all right", "all ignored"])
def test_odd_reports_of_evaluate(case, odd):
    """There is a page, without warnings."""
    pytest.importorskip("matplotlib")
    x, y = case
    np.save("x.npy", {"one class": x[:, :1], "all right": 100 * np.eye(C)[y % C]}.get(odd, x))
    np.save("y.npy", {"one class": y * 0, "all right": y % C, "all ignored": y * 0 - 100}[odd])
    run("evaluate", "x.npy", "y.npy", "--report", "page.html")


def test_an_odd_report_of_compare(case):
    """Some divergences are infinite."""
    pytest.importorskip("matplotlib")
    x, y = case
    b = x.copy()
    b[:5, :3] = -np.inf
    np.save("b.npy", b)
    run("compare", "x.npy", "b.npy", "--labels", "y.npy", "--report", "page.html")


def test_a_report_that_cannot_be_written(case, monkeypatch):
    Path("page.html").write_text("before")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="--report page.html cannot be written: No space left on device"):
        report.write("page.html", "after")
    assert Path("page.html").read_text() == "before"
    assert sorted(os.listdir()) == ["page.html", "x.npy", "y.npy"]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ">f2", np.float32, np.int16])
def test_the_largest_of_equal_logits_is_the_first(dtype):
    """Of 16 bits too, where it is looked for among integers: negative ones, zeros of both signs, ties."""
    x = np.round(random_logits((200, 9), np.float32))
    x[:20] = -np.abs(x[:20])
    x[20] = -np.inf
    x = np.where(np.isfinite(x), x, -100).astype(dtype) if dtype is np.int16 else x.astype(dtype)
    prior = np.linspace(0.5, 2, 9)
    for shift in (None, np.log(prior)):
        expected = (x.astype(np.float64) + (0 if shift is None else shift)).argmax(-1)
        np.testing.assert_array_equal(_largest(x, shift), expected)


def test_predictions_of_the_worst_classes():
    """Labels with the most mistakes, what is predicted for them most often, all else in the last column."""
    labels = np.array([0] * 9 + [1] * 9 + [2] * 9)
    predicted = np.array([0] * 9 + [1, 0, 0, 0, 0, 0, 3, 4, 5] + [2, 2, 2, 2, 2, 2, 2, 4, 3])
    logits = np.eye(6)[predicted]
    options = dict(axis=-1, ignore_index=(-100,), temperature=1.0, prior=None)
    parts = [Predictions.of(logits[k::2], labels[k::2], **options) for k in (0, 1)]
    rows, columns, counts = (parts[0] + parts[1]).worst(6, 2)
    assert rows.tolist() == [1, 2] and columns.tolist() == [0, 2]
    assert counts.tolist() == [[5, 0, 4], [0, 7, 2]]


CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
MEASURE = """
addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement;
    const width = element => element.getBoundingClientRect();
    return {
      inner: frame.contentWindow.innerWidth, scroll: root.scrollWidth,
      right: Math.max(...[...page.querySelectorAll("body *:not(svg *)")].map(e => width(e).right)),
      tables: [...page.querySelectorAll(".wide")].map(e => e.scrollWidth - e.clientWidth),
      plots: [...page.querySelectorAll("svg")].map(e => [width(e).width, width(e).height,
        [...e.querySelectorAll("path, use, rect")].filter(p => width(p).width + width(p).height > 0).length]),
    };
  });
  document.title = JSON.stringify(found);
});
"""


def framed(pages, widths):
    """A page with the reports as they are on screens of these widths."""
    frames = [
        f'<iframe style="width:{width}px; height:2600px; border:0" srcdoc="{html.escape(page)}"></iframe>'
        for width in widths
        for page in pages
    ]
    return f"<!DOCTYPE html><title>-</title><script>{MEASURE}</script>{''.join(frames)}"


def chromium(*options):
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
    ]
    command += ["--user-data-dir=" + os.path.join(os.getcwd(), "profile"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_reports_in_a_browser(pages, tmp_path, monkeypatch):
    """On a phone and on a desk the plots are there, and nothing is wider than the screen."""
    monkeypatch.chdir(tmp_path)
    widths = [360, 1000]
    Path("frames.html").write_text(framed(pages, widths), encoding="utf-8")
    Path("page.html").write_text(pages[0], encoding="utf-8")
    address = f"file://{os.getcwd()}/frames.html"
    title = re.search(r"<title>(\[.*?)</title>", chromium("--dump-dom", address))
    found = json.loads(html.unescape(title[1]))
    assert [frame["inner"] for frame in found] == [width for width in widths for _ in pages]
    for frame in found:
        assert frame["scroll"] <= frame["inner"] and frame["right"] <= frame["inner"]
        assert len(frame["plots"]) == 3 and not any(frame["tables"])
        for width, height, drawn in frame["plots"]:
            assert 300 < width <= frame["inner"] and 200 < height < 500 and drawn > 40
    matplotlib = pytest.importorskip("matplotlib.image")
    chromium("--window-size=360,2600", "--screenshot=shot.png", f"file://{os.getcwd()}/page.html")
    shot = (matplotlib.imread("shot.png")[..., :3] * 255).round()
    blue = np.abs(shot - [0x3F, 0x88, 0xC5]).max(axis=-1) < 8  # as bars are
    assert shot.shape[1] == 360 and blue.sum() > 2000


def test_arrays_can_be_read_in_any_order(case):
    with contextlib.ExitStack() as files:
        found = open_array(files, "x.npy")
    for index in [(slice(10, 20), slice(0, C)), (slice(0, 5), slice(2, 3))]:
        np.testing.assert_array_equal(found.read(index), case[0][index])
