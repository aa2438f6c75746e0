"""The public surface: names, equal signatures of code and reference, docstrings and examples that run."""

import doctest
import importlib
import importlib.resources
import inspect
import pkgutil
import re

import pytest
from helpers import ROOT, run_python
from loss_options import Terms

import xent


def keywords(function):
    """The keyword parameters of a function."""
    return {n: p for n, p in inspect.signature(function).parameters.items() if p.kind is p.KEYWORD_ONLY}


LOSS_ARGUMENTS = {
    "cross_entropy": "logits, target",
    "nll_loss": "log_probs, target",
    "sigmoid_cross_entropy": "logits, target",
    "cross_entropy_probs": "probs, target",
    "binary_cross_entropy": "probs, target",
    "kl_div": "log_probs, target",
    "distillation_loss": "student_logits, teacher_logits",
    "sparse_distillation_loss": "student_logits, teacher_ids, teacher_log_probs",
    "mse_loss": "pred, target",
}
LOSSES = [f"{loss}{part}" for loss in LOSS_ARGUMENTS for part in ["", "_grad", "_value_and_grad"]]
MATHEMATICS = [
    "softmax", "log_softmax", "logsumexp", "logsumexp_backward", "softmax_backward",
    "log_softmax_backward", "softmax_jacobian", "token_log_probs", "linear_token_log_probs", "sigmoid",
    "log_sigmoid", "sigmoid_backward", "log_sigmoid_backward", "sigmoid_cross_entropy_grad_hess",
    "entropy", *LOSSES, "cross_entropy_grad_hess", "cross_entropy_hvp", "evaluate", "evaluate_sequences",
    "compare",
    "conv1d", "conv1d_backward", "conv2d", "conv2d_backward", "conv_transpose2d", "conv_transpose2d_backward",
    "prepare_conv2d", "im2col", "col2im",
    "max_pool2d", "max_pool2d_backward", "avg_pool2d", "avg_pool2d_backward",
    *(f"{loss}{part}" for loss in ["linear_cross_entropy", "nce_loss", "sampled_softmax_cross_entropy"]
      for part in ["", "_value_and_grad"]),
]  # fmt: skip
CONTROLS = ["set_num_threads", "get_num_threads", "num_threads", "set_result_cache", "show_config"]

SIGNATURES = """
softmax(x, axis=-1, *, temperature=1.0, out=None)
log_softmax(x, axis=-1, *, temperature=1.0, out=None)
logsumexp(x, axis=-1, *, b=None, keepdims=False, return_sign=False, out=None)
logsumexp_backward(grad, x, y, axis=-1, *, out=None)
softmax_backward(grad, y, axis=-1, *, out=None)
log_softmax_backward(grad, y, axis=-1, *, out=None)
softmax_jacobian(y, axis=-1)
token_log_probs(logits, ids, *, axis=-1, temperature=1.0, logit_cap=None, prior=None, ranks=False)
linear_token_log_probs(x, weight, ids, bias=None, *, temperature=1.0, logit_cap=None, prior=None, \
ranks=False, entropy=False, chunk_bytes=None)
sigmoid(x, *, out=None)
log_sigmoid(x, *, out=None)
sigmoid_backward(grad, y, *, out=None)
log_sigmoid_backward(grad, y, *, out=None)
sigmoid_cross_entropy_grad_hess(logits, target, *, hessian='diagonal', out=None, weight=None, \
pos_weight=None, label_smoothing=0.0, gamma=0.0, alpha=None, ignore_index=None, reduction='mean')
evaluate(logits, target, *, axis=-1, ignore_index=-100, sample_weight=None, top_k=(1,), prior=None, \
base=None, temperature=1.0, calibration_bins=None, confusion=False)
evaluate_sequences(logits, target, groups, *, axis=-1, ignore_index=-100, prior=None, base=None, \
temperature=1.0)
compare(logits_a, logits_b, target=None, *, axis=-1, ignore_index=-100, base=None, temperature=1.0)
entropy(probs, *, axis=-1, base=None)
conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None, out=None)
conv2d_backward(grad, x, weight, *, stride=1, padding=0, dilation=1, groups=1, needs=(True, True, True), \
out=None)
prepare_conv2d(weight, *, groups=1)
conv1d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1, activation=None, out=None)
conv1d_backward(grad, x, weight, *, stride=1, padding=0, dilation=1, groups=1, needs=(True, True, True), \
out=None)
conv_transpose2d(x, weight, bias=None, *, stride=1, padding=0, output_padding=0, output_size=None, \
dilation=1, groups=1, out=None)
conv_transpose2d_backward(grad, x, weight, *, stride=1, padding=0, output_padding=0, output_size=None, \
dilation=1, groups=1, needs=(True, True, True), out=None)
im2col(x, kernel_size, *, stride=1, padding=0, dilation=1, out=None)
col2im(cols, output_size, kernel_size, *, stride=1, padding=0, dilation=1, out=None)
max_pool2d(x, kernel_size, *,\
 stride=None, padding=0, dilation=1, ceil_mode=False, return_places=False, out=None)
max_pool2d_backward(grad, x, kernel_size, *,\
 stride=None, padding=0, dilation=1, ceil_mode=False, places=None, out=None)
avg_pool2d(x, kernel_size, *,\
 stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None, out=None)
avg_pool2d_backward(grad, x, kernel_size, *,\
 stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None, out=None)
"""
SOFTMAX_LOSS = ", ".join(map(str, keywords(Terms).values()))
LOSS_OPTIONS = {
    "cross_entropy": SOFTMAX_LOSS,
    "nll_loss": "axis=-1, weight=None, ignore_index=-100, reduction='mean'",
    "sigmoid_cross_entropy": "weight=None, pos_weight=None, label_smoothing=0.0, gamma=0.0, alpha=None, "
    "ignore_index=None, reduction='mean'",
    "cross_entropy_probs": "axis=-1, clip=None, base=None, reduction='mean'",
    "binary_cross_entropy": "weight=None, clip=None, base=None, reduction='mean'",
    "kl_div": "axis=-1, log_target=False, base=None, reduction='mean'",
    "distillation_loss": "axis=-1, temperature=1.0, reduction='mean'",
    "sparse_distillation_loss": "temperature=1.0, tail='bucket', sample_weight=None, reduction='mean'",
    "mse_loss": "reduction='mean'",
}
# Losses of a linear layer: a gradient alone would save nothing, so there are two functions of each.
LAYER_SIGNATURES = {
    "linear_cross_entropy": "(x, weight, target, bias=None, *, "
    + SOFTMAX_LOSS.replace("axis=-1, weight", "class_weight")
    + ", chunk_bytes=None)",
    "nce_loss": "(x, weight, target, noise, noise_log_prob, bias=None, *, reduction='mean')",
    "sampled_softmax_cross_entropy": "(x, weight, target, sampled, sampled_log_prob, bias=None, *, "
    "reduction='mean')",
}
LAYER_EXTRAS = {"linear_cross_entropy_value_and_grad": ", grad_output=None, needs=(True, True, True))"}
LOSS_EXTRAS = {"": "", "_grad": "grad_output=None, out=None, ", "_value_and_grad": "out=None, "}


def contract():
    """Name and parameters of every function as shared/API.md writes them."""
    for line in SIGNATURES.split("\n")[1:-1]:
        name, parameters = line.split("(", 1)
        yield name, f"({parameters}"
    yield (
        "cross_entropy_grad_hess",
        f"(logits, target, *, hessian='diagonal', out=None, {SOFTMAX_LOSS})",
    )
    yield "cross_entropy_hvp", f"(logits, target, vector, *, {SOFTMAX_LOSS})"
    for loss, arguments in LOSS_ARGUMENTS.items():
        for part, extras in LOSS_EXTRAS.items():
            yield f"{loss}{part}", f"({arguments}, *, {extras}{LOSS_OPTIONS[loss]})"
    for loss, signature in LAYER_SIGNATURES.items():
        for part in ("", "_value_and_grad"):
            extras = LAYER_EXTRAS.get(f"{loss}{part}", ")")
            yield f"{loss}{part}", signature[:-1] + extras


def parameters(function):
    """The parameters of a function without annotations; ``**options`` are those of cross_entropy."""
    named = dict(inspect.signature(function).parameters)
    if named.pop("options", None):
        shared = keywords(xent.reference.cross_entropy)
        named.update((name, p) for name, p in shared.items() if name not in {"axis", *named})
    return inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in named.values()])


def modules():
    names = [info.name for info in pkgutil.walk_packages(xent.__path__, "xent.")]
    return ["xent", *(name for name in names if not name.endswith("__main__"))]


def test_the_contract_names_everything():
    assert {name for name, _ in contract()} == set(MATHEMATICS)


@pytest.mark.parametrize("name", MATHEMATICS + CONTROLS)
def test_public_names(name):
    assert name in xent.__all__
    assert callable(getattr(xent, name))


def test_all_is_true():
    for name in xent.__all__:
        assert hasattr(xent, name), name
    assert len(set(xent.__all__)) == len(xent.__all__)
    assert re.fullmatch(r"\d+\.\d+.*", xent.__version__)


@pytest.mark.parametrize("name, expected", list(contract()))
def test_signatures(name, expected):
    assert str(parameters(getattr(xent, name))) == expected
    assert parameters(getattr(xent.reference, name)) == parameters(getattr(xent, name))


@pytest.mark.parametrize("name", MATHEMATICS + CONTROLS)
def test_docstrings(name):
    function = getattr(xent, name)
    text = inspect.getdoc(function)
    assert re.match(r"[^\n]+\.(\n|$)", text), "the first line is a sentence"
    sections = ["Examples"]
    if name in MATHEMATICS:
        sections += ["Parameters", "Returns"]
    for section in sections:
        assert f"\n{section}\n{'-' * len(section)}\n" in text, section
    assert ">>> " in text
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"^([\w, ]+, )?{parameter}(, [\w, ]+)?( :|$)", text, re.MULTILINE), parameter


@pytest.mark.parametrize("name", MATHEMATICS)
def test_the_reference_is_documented(name):
    assert inspect.getdoc(getattr(xent.reference, name))


@pytest.mark.parametrize("name", MATHEMATICS)
def test_the_reference_has_the_same_parameters(name):
    """But for places to write results to, which it has none of."""
    if not hasattr(xent.reference, name):  # what is packed has no formula
        return
    of = [inspect.signature(getattr(package, name)).parameters.values() for package in (xent, xent.reference)]
    ours, twins = ([(p.name, p.kind, p.default) for p in ps if p.name != "out"] for ps in of)
    assert ours == twins


# modules that need another library
ADAPTERS = {
    **dict.fromkeys(("xent.dask", "xent._lazy"), "dask.array"),
    **dict.fromkeys(("xent.jax", "xent._jax_calls", "xent._jax_losses"), "jax"),
    **dict.fromkeys(
        ("xent.torch", "xent._torch_losses", "xent._torch_operators", "xent._torch_tensors"), "torch"
    ),
}


@pytest.mark.parametrize("name", modules())
def test_doctests(name):
    if name in ADAPTERS:
        pytest.importorskip(ADAPTERS[name])
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    assert doctest.testmod(importlib.import_module(name), optionflags=flags).failed == 0


@pytest.mark.skipif(
    not (ROOT / "README.md").exists(), reason="there is no README.md beside an installed test suite"
)
def test_readme():
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False, optionflags=flags)
    assert result.failed == 0
    assert result.attempted > 0


def test_typed():
    assert importlib.resources.files("xent").joinpath("py.typed").is_file()


def test_configuration():
    config = xent.show_config(mode="dicts")
    assert {"version", "compiler", "isa", "isa_built", "isa_usable", "openmp", "threads", "numpy"} <= set(
        config
    )
    assert config["version"] == xent.__version__
    assert config["threads"] == xent.get_num_threads()
    assert isinstance(config["openmp"], bool)


def test_configuration_is_printed(capsys):
    config = xent.show_config(mode="dicts")
    assert capsys.readouterr().out == ""
    assert xent.show_config() is None
    printed = capsys.readouterr().out
    for key in ["version", "isa", "compiler", "numpy"]:
        assert config[key] in printed


def test_python_m_xent(tmp_path):
    config = xent.show_config(mode="dicts")
    done = run_python("-m", "xent", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert config["isa"] in done.stdout
    assert xent.__version__ in done.stdout


def test_import_needs_numpy_alone():
    others = ("dask", "jax", "scipy", "sklearn", "torch")
    code = f"import sys, xent; print([m for m in {others} if m in sys.modules])"
    assert run_python("-c", code).stdout.strip() == "[]"


@pytest.mark.parametrize("name, library", [("torch", "PyTorch"), ("jax", "JAX")])
def test_libraries_are_extras(name, library):
    """Without its library, an adapter says what to install."""
    done = run_python("-c", f"import sys; sys.modules['{name}'] = None; import xent.{name}")
    expected = f'ImportError: xent.{name} needs {library}: pip install "xent-kernels[{name}]"'
    assert done.stderr.strip().endswith(expected)
