"""The same bits on every machine: digests of what a corpus of calls returns, made once, in same_bits.json.

They hold for AVX2, AVX-512 and NEON, and for any number of threads. test_isa.py runs this file on each
instruction set that the machine has; same_bits.c shows the same of the kernels for NEON, under an emulator.
Left out are linear and sampled losses, whose products are the BLAS's, and convolutions.

Where bits change on purpose, make the digests anew; where two machines differ, print those of single calls:

    python tests/test_same_bits.py --write
    python tests/test_same_bits.py --calls

Inputs are integers, which NumPy's RandomState has frozen, over powers of two: no mathematical library has a
part in them, and nothing rounds.
"""

import functools
import hashlib
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from compiled import CSRC, USABLE, compile_program
from helpers import ROOT, finfo

import xent

RECORD = ROOT / "tests" / "same_bits.json"
DTYPES = ["float64", "float32", "float16", "bfloat16"]
BITS = {"float64": 40, "float32": 20, "float16": 10, "bfloat16": 7}  # at most so many as the dtype holds
IGNORED = -100

# A few classes, worked on with positions as lanes, to the last number of them (of one array, and of several)
# and beyond; rows with each remainder of a vector; rows that are worked on in blocks, and those whose blocks
# are chunks; columns of all these lengths.
ROWS = [(5, 1), (33, 2), (70, 3), (40, 10), (29, 17), (9, 31), (19, 33), (9, 63), (9, 64), (7, 100)]
ROWS += [(9, 128), (5, 129), (3, 1000)]
LONG = [(2, 4099), (2, 9001), (9, 8209), (1, 270_001)]
SHAPES = [(shape, -1) for shape in ROWS + LONG]
SHAPES += [((300, 33), 0), ((9001, 5), 0), ((3, 7, 50), 1), ((2, 21, 5, 9), 1), ((2, 1000, 6), 1)]
# Those on which every option is tried.
FEW = [((40, 10), -1), ((5, 300), -1), ((2, 9001), -1), ((3, 21, 37), 1)]


# Inputs -----------------------------------------------------------------------------------------------------


@functools.cache
def integers(low, high, shape, seed):
    """Integers from low to high, both included."""
    return np.random.RandomState([seed, *shape]).randint(low, high + 1, shape, np.int64)


@functools.cache
def numbers(shape, dtype, seed=0, low=-8, high=8):
    """Numbers between two integers, of which the larger is a power of two."""
    one = 1 << BITS[dtype]
    return (integers(low * one // high, one, shape, seed) / (one // high)).astype(dtype)


def fractions(shape, dtype, seed=1):
    """Numbers from 0 to 1, for probabilities; they add up to anything."""
    return numbers(shape, dtype, seed, 0, 1)


def factors(shape, seed=2):
    """Weights of float64, some of them 0: their sums are exact, in any order."""
    return integers(0, 12, shape, seed) / 8


def positions_of(shape, axis):
    axis %= len(shape)
    return shape[:axis] + shape[axis + 1 :]


def labels(shape, axis):
    """Labels of which one in seven is ignored."""
    positions = positions_of(shape, axis)
    chosen = integers(0, shape[axis] - 1, positions, 3)
    return np.where(integers(0, 6, positions, 4) == 0, IGNORED, chosen)


def special(dtype, classes):
    """Rows in which a number is NaN, infinite, huge or tiny, or many are equal."""
    largest, tiny = float(finfo(dtype).max), float(finfo(dtype).tiny)
    nan, inf = np.nan, np.inf
    begins = [
        [nan, 1, 2, 3], [1, 2, 3, nan], [inf, 0, 1, 2], [inf, inf, 1, 2], [inf, -inf, 0, nan],
        [-inf, 1, 2, 3], [1, 2, -inf, -inf], [largest, 0, 1, 2], [-largest, 0, 1, 2],
        [largest, largest, -largest, 1], [tiny, -tiny, tiny / 4, -0.0], [3, 3, 3, 1], [100, 0, 0, 0],
        [60, 59, 0, -60], [300, 299, 298, 297],
        [-300, -301, -302, -1000], [2000, 1999, 0, -2000], [1e4, 9999, 1e4, 0], [20, 0, -20, 40],
    ]  # fmt: skip
    with np.errstate(all="ignore"):
        begins = np.array(begins).astype(dtype)
    mixed = numbers((len(begins), classes), dtype, 5).copy()
    mixed[:, :4] = begins
    mixed[1::2] = np.roll(mixed[1::2], classes // 2, axis=1)
    equal = [np.full((1, classes), value, dtype) for value in (-inf, inf, 0, -0.0, 2.5, 1700, -1700)]
    return np.concatenate([mixed, *equal])


# Calls ------------------------------------------------------------------------------------------------------


def each_form(name, *args, **options):
    """A loss, its gradient, and both."""
    for ending in ["", "_grad", "_value_and_grad"]:
        yield name + ending, args, options


def of_softmax(shape, axis, dtype):
    x, grad = numbers(shape, dtype), numbers(shape, dtype, 6)
    y = fractions(shape, dtype)
    for name in ["softmax", "log_softmax"]:
        yield name, (x, axis), {}
        yield name, (x, axis), {"temperature": 0.7}
    yield "logsumexp", (x, axis), {}
    yield "logsumexp", (x, axis), {"b": numbers(shape, dtype, 13)}
    yield "softmax_backward", (grad, y, axis), {}
    yield "log_softmax_backward", (grad, -numbers(shape, dtype, 7, 0, 8), axis), {}
    for name in ["sigmoid", "log_sigmoid"]:
        yield name, (x,), {}


def of_labels(shape, axis, dtype):
    """Losses that take labels, without options but that of the reduction."""
    x, y = numbers(shape, dtype), labels(shape, axis)
    counted = np.where(y == IGNORED, 0, y)
    for reduction in ["mean", "none"]:
        options = {"axis": axis, "reduction": reduction}
        yield from each_form("cross_entropy", x, y, **options)
        yield from each_form("nll_loss", -numbers(shape, dtype, 7, 0, 8), y, **options)
        yield from each_form("cross_entropy_probs", fractions(shape, dtype), counted, **options)
        yield "cross_entropy_grad_hess", (x, y), options
    yield "evaluate", (x, y), {"axis": axis, "top_k": (1, 3), "calibration_bins": 7, "confusion": "per_class"}
    yield "evaluate_sequences", (x, y, y), {"axis": axis}
    yield from of_tokens(x, counted, axis)


def of_tokens(x, ids, axis, **options):
    """Log-probabilities of one class of each position, and of two with their ranks."""
    yield "token_log_probs", (x, ids), {"axis": axis, **options}
    several = np.stack([ids, (ids + 1) % x.shape[axis]], axis)
    yield "token_log_probs", (x, several), {"axis": axis, "ranks": True, **options}


def of_pairs(shape, axis, dtype):
    """Losses of two arrays of one shape."""
    x, p, q = numbers(shape, dtype), fractions(shape, dtype), fractions(shape, dtype, 8)
    log_p, log_q = -numbers(shape, dtype, 7, 0, 8), -numbers(shape, dtype, 9, 0, 8)
    for reduction in ["mean", "none"]:
        options = {"reduction": reduction}
        yield from each_form("mse_loss", x, p, **options)
        yield from each_form("binary_cross_entropy", p, q, **options)
        yield from each_form("sigmoid_cross_entropy", x, q, **options)
        options["axis"] = axis
        yield from each_form("cross_entropy", x, q, **options)
        yield from each_form("cross_entropy_probs", p, q, **options)
        yield from each_form("kl_div", log_p, q, **options)
        yield from each_form("kl_div", log_p, log_q, log_target=True, **options)
        yield from each_form("distillation_loss", x, numbers(shape, dtype, 10), temperature=3, **options)
        yield "cross_entropy_grad_hess", (x, q), options
    y = np.where(labels(shape, axis) == IGNORED, 0, labels(shape, axis))
    yield "compare", (x, x + numbers(shape, dtype, 10) / 8, y), {"axis": axis}
    yield "entropy", (p,), {"axis": axis}


def of_sparse(shape, axis, dtype):
    """Distillation from some of the classes, on the last axis alone."""
    if axis != -1:
        return
    classes = shape[-1]
    k = min(classes, 21)
    ids = (labels(shape, -1)[..., np.newaxis] % classes + np.arange(k) * (classes // k)) % classes
    log_probs = -numbers(ids.shape, dtype, 7, 0, 8)
    weight = numbers(shape[:-1], "float64", 12)
    for tail in ["bucket", "renormalize", "drop"]:
        for options in [{}, {"reduction": "none", "sample_weight": weight, "temperature": 0.7}]:
            yield from each_form(
                "sparse_distillation_loss", numbers(shape, dtype), ids, log_probs, tail=tail, **options
            )


def cross_entropy_options(shape, axis):
    classes, positions = shape[axis], positions_of(shape, axis)
    return {
        "weight": factors((classes,)),
        "sample_weight": factors(positions),
        "label_smoothing": 0.1,
        "z_loss": 0.01,
        "gamma": 2.0,
        "temperature": 0.7,
        "logit_cap": 5.0,
        "prior": 1 + factors((classes,), 11),
    }


def of_options(shape, axis, dtype):
    """Every option of the cross-entropy, one by one, and as many of them together as go together."""
    x, y, p = numbers(shape, dtype), labels(shape, axis), fractions(shape, dtype)
    given = cross_entropy_options(shape, axis)
    chosen = [{name: value} for name, value in given.items()] + [{"gamma": 0.5}]
    chosen += [{k: v for k, v in given.items() if k != left_out} for left_out in ["gamma", "label_smoothing"]]
    each = numbers(positions_of(shape, axis), "float64", 12)
    for options in chosen:
        for target in [y, p]:
            for reduction in ["mean", "none"]:
                yield from each_form("cross_entropy", x, target, axis=axis, reduction=reduction, **options)
            more = {"grad_output": each, "reduction": "none", "axis": axis}
            yield "cross_entropy_grad", (x, target), options | more
            yield "cross_entropy_grad_hess", (x, target), {"axis": axis} | options
            yield "cross_entropy_hvp", (x, target, numbers(shape, dtype, 13)), {"axis": axis} | options
    for hessian in ["diagonal", "upper", "friedman", "absolute"]:
        yield "cross_entropy_grad_hess", (x, y), {"hessian": hessian, "reduction": "sum", "axis": axis}
    for name in ["sample_weight", "prior"]:
        yield "evaluate", (x, y), {name: given[name], "axis": axis}
    yield from each_form("nll_loss", x, y, axis=axis, weight=given["weight"])
    for name in ["temperature", "logit_cap", "prior"]:
        yield from of_tokens(x, np.where(y == IGNORED, 0, y), axis, **{name: given[name]})


def of_other_options(shape, axis, dtype):
    """Options of the other losses."""
    x, p, q = numbers(shape, dtype), fractions(shape, dtype), fractions(shape, dtype, 8)
    hard = integers(0, 1, shape, 14)
    for reduction in ["mean", "none"]:
        options = {"reduction": reduction}
        for target in [hard, q]:
            for more in [
                {"weight": factors(shape), "pos_weight": 0.5 + factors(shape[-1:])},
                {"label_smoothing": 0.1},
                {"gamma": 2.0, "alpha": 0.25},
                {"gamma": 1.5},
            ]:
                yield from each_form("sigmoid_cross_entropy", x, target, **options, **more)
        clip = {"clip": 2.0**-7}
        yield from each_form("binary_cross_entropy", p, q, weight=factors(shape), **options)
        yield from each_form("binary_cross_entropy", p, q, **clip, **options)
        yield from each_form("cross_entropy_probs", p, q, axis=axis, **clip, **options)
        yield from each_form("cross_entropy_probs", p, q, axis=axis, base=2, **options)
        yield from each_form("kl_div", -numbers(shape, dtype, 7, 0, 8), q, axis=axis, base=2, **options)
        for temperature in [1.0, 1e-4]:
            teacher = numbers(shape, dtype, 10)
            options["temperature"] = temperature
            yield from each_form("distillation_loss", x, teacher, axis=axis, **options)
    yield "sigmoid_cross_entropy", (x, np.where(hard == 0, 7, 1)), {"ignore_index": 7}
    each = numbers(shape, dtype, 15)
    for name in ["mse_loss_grad", "binary_cross_entropy_grad", "sigmoid_cross_entropy_grad"]:
        yield name, (p, q), {"grad_output": each, "reduction": "none"}
    yield "entropy", (p,), {"axis": axis, "base": 2}


def of_special_values(dtype):
    for classes in [4, 7, 40, 300, 9001]:
        x = special(dtype, classes)
        y = np.arange(len(x)) % classes
        weight = factors((classes,))
        for given, axis in [(x, -1), (np.ascontiguousarray(x.T), 0)] if classes < 9001 else [(x, -1)]:
            p = fractions(given.shape, dtype)
            for name in ["softmax", "log_softmax", "logsumexp"]:
                yield name, (given, axis), {}
            yield "softmax_backward", (given, p, axis), {}
            yield "log_softmax_backward", (p, given, axis), {}
            yield "sigmoid", (given,), {}
            yield "log_sigmoid", (given,), {}
            yield "evaluate", (given, y), {"axis": axis, "top_k": (1, 3)}
            yield from of_tokens(given, y, axis)
            for target in [y, p]:
                options = {"axis": axis, "reduction": "none"}
                yield from each_form("cross_entropy", given, target, **options)
                yield from each_form("cross_entropy", given, target, weight=weight, z_loss=0.1, **options)
                yield from each_form("cross_entropy", given, target, temperature=0.3, **options)
                yield from each_form("cross_entropy", given, target, logit_cap=3.0, **options)
            yield from each_form("cross_entropy", given, y, gamma=2.0, **options)
            yield from each_form("nll_loss", given, y, **options)
            yield from each_form("distillation_loss", given, p, **options)
            if axis == -1:
                some = np.arange(3) + np.zeros((len(given), 1), int)
                for tail in ["bucket", "renormalize", "drop"]:
                    yield from each_form(
                        "sparse_distillation_loss", given, some, -p[:, :3], tail=tail, reduction="none"
                    )
            yield from each_form("kl_div", p, given, log_target=True, **options)
            yield from each_form("sigmoid_cross_entropy", given, p, reduction="none")
            yield from each_form("mse_loss", given, p, reduction="none")


def of_layouts(dtype):
    """Memory in other orders, and with gaps."""
    for shape in [(37, 23), (9, 300)]:
        y = labels(shape, -1)
        wide = numbers((shape[0], 2 * shape[1]), dtype, 16)
        for x in [wide[:, : shape[1]], wide[:, ::2], np.asfortranarray(wide[:, : shape[1]]), wide[:, ::-2]]:
            p = np.abs(x) / 16
            for name in ["softmax", "log_softmax", "logsumexp", "sigmoid"]:
                yield name, (x,), {}
            yield from each_form("cross_entropy", x, y)
            yield from each_form("cross_entropy", x, p, reduction="none")
            yield from each_form("kl_div", x, p, reduction="none")
            yield from each_form("distillation_loss", x, p)
            yield "evaluate", (x, y), {}
    cube = numbers((6, 20, 9), dtype)
    yield "logsumexp", (cube, (0, 1)), {}
    yield "logsumexp", (cube, None), {}
    yield "softmax_jacobian", (fractions((4, 33), dtype),), {}


def corpus(dtype):
    """Yield (operator, arguments, options) of each call."""
    for shape, axis in SHAPES:
        for family in (of_softmax, of_labels, of_pairs, of_sparse):
            yield from family(shape, axis, dtype)
    for shape, axis in FEW:
        for family in (of_options, of_other_options):
            yield from family(shape, axis, dtype)
    yield from of_special_values(dtype)
    yield from of_layouts(dtype)


# Digests ----------------------------------------------------------------------------------------------------


def arrays_of(result):
    """The arrays in a result, and what an evaluation adds up."""
    if isinstance(result, tuple):
        return [array for part in result for array in arrays_of(part)]
    if isinstance(result, (xent.Evaluation, xent.SequenceEvaluation, xent.Comparison)):
        return [np.array(value) for value in vars(result).values() if value is not None]
    return [np.array(result)]


def data_of(result):
    """The bytes of a result, to which all NaNs are equal."""
    for array in arrays_of(result):
        if (nan := np.isnan(array)).any():
            array[nan] = np.nan
        yield f"{array.dtype.name} {array.shape}".encode()
        yield array.tobytes()


def returned(dtype):
    """Yield (operator, what the call is, the bytes that it returns) of each call."""
    with np.errstate(all="ignore"):
        for operator, args, options in corpus(dtype):
            shapes = [getattr(value, "shape", value) for value in [*args, *options.values()]]
            data = b"".join(data_of(getattr(xent, operator)(*args, **options)))
            yield operator, f"{operator} of {dtype} {shapes[: len(args)]} {[*options]}", data


def short(digest):
    return digest.hexdigest()[:16]


def digests(dtype):
    """{operator: the digest of all its calls}."""
    found = {}
    for operator, _, data in returned(dtype):
        found.setdefault(operator, hashlib.sha256()).update(data)
    return {operator: short(digest) for operator, digest in sorted(found.items())}


# Tests ------------------------------------------------------------------------------------------------------

ISA = xent.show_config(mode="dicts")["isa"]


@pytest.mark.skipif(ISA == "baseline", reason="it rounds products and sums apart, and so gets other bits")
@pytest.mark.parametrize("threads", [1, 3] if ISA == USABLE[-1] else [3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_digests(dtype, threads):
    expected = json.loads(RECORD.read_text())[dtype]
    with xent.num_threads(threads):
        found = digests(dtype)
    assert found.keys() == expected.keys()
    others = [operator for operator in found if found[operator] != expected[operator]]
    assert not others, f"other bits in {dtype} than those of same_bits.json: {', '.join(others)}"


def emulator_of(isa):
    """What runs a program for an instruction set: nothing, where the machine does."""
    if isa in USABLE:
        return []
    found = [name for name in ("qemu-aarch64-static", "qemu-aarch64") if shutil.which(name)]
    if not found:
        pytest.skip("no qemu-aarch64 to run code for NEON with")
    return found[:1]


@pytest.mark.slow
def test_kernels_on_other_machines(tmp_path):
    """What the machine at hand has, and NEON, under an emulator: each line of same_bits.c is the same."""
    kernels = [CSRC / folder / "kernels.c" for folder in ("elements", "softmax")]
    sources = [ROOT / "tests" / "same_bits.c", *kernels, *CSRC.rglob("walk.c"), *CSRC.rglob("plan.c")]

    def lines(isa):
        """{operator, type and layout: digest}."""
        options = ["-O1", "-DXENT_ISA=kernels"]
        options += [] if isa in USABLE else ["-static"]  # there may be no libraries of the other machine
        command = [*emulator_of(isa), compile_program(tmp_path, isa, sources, *options)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return dict(line.split(": ") for line in done.stdout.splitlines())

    isas = sorted({*USABLE, "neon"} - {"baseline"})
    if len(isas) == 1:
        pytest.skip(f"nothing to compare {isas[0]} with")
    with ThreadPoolExecutor() as pool:
        found = dict(zip(isas, pool.map(lines, isas), strict=True))
    for isa in isas:
        others = [line for line, digest in found[isa].items() if digest != found["neon"][line]]
        assert not others, f"other bits on {isa} than on neon: {'; '.join(others)}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--calls"]:
        for dtype in DTYPES:
            for _, what, data in returned(dtype):
                print(f"{what}: {short(hashlib.sha256(data))}")
    elif sys.argv[1:] == ["--write"]:
        RECORD.write_text(json.dumps({dtype: digests(dtype) for dtype in DTYPES}, indent=1) + "\n")
    else:
        sys.exit(__doc__)
