"""xent.torch: the same as PyTorch's own losses, however PyTorch calls, differentiates and traces them."""

import copy
import doctest
import gc
import pickle
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from helpers import ROOT, random_labels, random_logits, random_probabilities, random_weights

torch = pytest.importorskip("torch")

import xent.torch as losses  # noqa: E402
from xent import _torch_losses, _torch_operators, _torch_tensors  # noqa: E402

F, func = torch.nn.functional, torch.func
pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

N, C, D = 7, 5, 3
LABELS = torch.tensor(random_labels((N,), C, ignored=0.3))
PROBS = torch.tensor(random_probabilities((N, C), np.float64))
WEIGHT = torch.tensor(random_weights(C, np.float64))
SAMPLE = torch.tensor(random_weights(N, np.float64, seed=3))
PRIOR = torch.softmax(WEIGHT, 0)
REDUCTIONS = ["none", "sum", "mean"]


def leaf(*shape, seed=0, dtype=torch.float64):
    return torch.tensor(random_logits(shape, np.float64, seed=seed)).to(dtype).requires_grad_()


X = leaf(N, C)
HIDDEN, HEAD, BIAS = leaf(N, D, seed=1), leaf(C, D, seed=2), leaf(C, seed=3)
TEACHER = leaf(N, C, seed=4).detach()
TOP_LOG_PROBS, TOP = TEACHER.log_softmax(1).topk(2)


def layer(x, weight, bias, **options):
    return losses.linear_cross_entropy(x, weight, LABELS, linear_bias=bias, **options)


CALLS = {  # name: (loss of leaves, leaves)
    "labels": (lambda z, **o: losses.cross_entropy(z, LABELS, **o), (X,)),
    "probabilities": (lambda z, **o: losses.cross_entropy(z, PROBS, WEIGHT, sample_weight=SAMPLE, **o), (X,)),
    "options": (
        lambda z, **o: losses.cross_entropy(
            z, LABELS.abs() % C, z_loss=0.1, gamma=1.5, temperature=2.0, logit_cap=9.0, prior=PRIOR, **o
        ),
        (X,),
    ),
    "layer": (layer, (HIDDEN, HEAD, BIAS)),
    "sigmoid": (lambda z, **o: losses.sigmoid_cross_entropy(z, PROBS, pos_weight=WEIGHT, **o), (X,)),
    "distillation": (lambda z, **o: losses.distillation_loss(z, TEACHER, temperature=2.0, **o), (X,)),
    "sparse distillation": (
        lambda z, **o: losses.sparse_distillation_loss(z, TOP, TOP_LOG_PROBS, sample_weight=SAMPLE, **o),
        (X,),
    ),
}
LOSSES = [loss for loss in vars(_torch_losses).values() if isinstance(loss, _torch_losses.Loss)]
TWICE = ["labels", "probabilities", "options"]


def own(name):
    """What PyTorch computes instead."""
    return {
        "labels": lambda z, **o: F.cross_entropy(z, LABELS, **o),
        "layer": lambda x, w, b, **o: F.cross_entropy(F.linear(x, w, b), LABELS, **o),
        "sigmoid": lambda z, **o: F.binary_cross_entropy_with_logits(z, PROBS, pos_weight=WEIGHT, **o),
    }[name]


def close(actual, expected, **tolerance):
    torch.testing.assert_close(actual, expected, **(tolerance or {"rtol": 1e-10, "atol": 1e-12}))


def gradients(loss, leaves, upstream=None):
    return torch.autograd.grad(loss, leaves, upstream, retain_graph=True)


# ---- the same as PyTorch's ----


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", ["labels", "layer", "sigmoid"])
def test_like_pytorch(name, reduction):
    call, leaves = CALLS[name]
    loss, expected = call(*leaves, reduction=reduction), own(name)(*leaves, reduction=reduction)
    close(loss, expected)
    upstream = torch.linspace(-2, 3, expected.numel(), dtype=torch.float64).reshape(expected.shape)
    close(gradients(loss, leaves, upstream), gradients(expected, leaves, upstream))
    with torch.no_grad():
        value = call(*leaves, reduction=reduction)
    assert not value.requires_grad
    close(value, loss.detach())


def test_classes_along_a_dimension():
    """Dimension 1 as in PyTorch, unless `dim` says where."""
    images, labels = leaf(2, C, 3, 4), torch.tensor(random_labels((2, 3, 4), C))
    expected = F.cross_entropy(images, labels)
    close(losses.cross_entropy(images, labels), expected)
    loss = losses.cross_entropy(images.permute(0, 2, 3, 1), labels, dim=-1)
    close(loss, expected)
    close(gradients(loss, images), gradients(expected, images))
    close(losses.cross_entropy(X[0], LABELS[0].abs()), F.cross_entropy(X[0], LABELS[0].abs()))
    teacher = images.detach().flip(0)
    with pytest.raises(ValueError, match="dim must say"):
        losses.distillation_loss(images, teacher)
    close(
        losses.distillation_loss(images, teacher, dim=1, reduction="sum"),
        F.kl_div(images.log_softmax(1), teacher.log_softmax(1), reduction="sum", log_target=True),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_narrow_dtypes(dtype):
    x = leaf(N, C, dtype=dtype)
    loss = losses.cross_entropy(x, LABELS)
    assert loss.dtype is torch.float32
    wide = x.detach().double().requires_grad_()
    expected = F.cross_entropy(wide, LABELS)
    close(loss.double(), expected, rtol=1e-6, atol=0)
    (grad,) = gradients(loss, x)
    assert grad.dtype is dtype
    close(grad.double(), gradients(expected, wide)[0], rtol=2 * torch.finfo(dtype).eps, atol=1e-7)


def test_a_loss_scale_reaches_float16_before_rounding():
    """Gradients that are too small for float16, but not when multiplied."""
    x = torch.tensor([[12.0, -9.0]] * 4, dtype=torch.float16, requires_grad=True)
    (grad,) = gradients(losses.cross_entropy(x, torch.zeros(4, dtype=torch.int64)) * 2.0**16, x)
    wide = x.detach().double().requires_grad_()
    expected = gradients(F.cross_entropy(wide, torch.zeros(4, dtype=torch.int64)) * 2.0**16, wide)[0]
    close(grad.double(), expected, rtol=5e-3, atol=0)  # subnormal
    assert grad.all()


def test_memory_is_read_in_place():
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        x = leaf(N, C, dtype=dtype)
        assert _torch_tensors.array_of(x).ctypes.data == x.data_ptr()
    negated = torch.tensor([[1 + 2j, 3 - 1j]]).conj().imag
    assert negated.is_neg()
    close(
        losses.cross_entropy(negated, torch.tensor([1])),
        F.cross_entropy(negated, torch.tensor([1])),
        rtol=1e-6,
        atol=0,
    )


def remainder(log_probs):
    """The logarithm of what these leave of 1."""
    return torch.log1p(-log_probs.exp().sum(-1, keepdim=True))


def in_parts(student, ids, log_probs, tail, temperature):
    """What PyTorch computes in place of the sparse loss of each position."""
    chosen, given = (student / temperature).log_softmax(-1).gather(-1, ids), log_probs
    if tail == "renormalize":
        chosen, given = chosen.log_softmax(-1), given.log_softmax(-1)
    if tail == "bucket":
        chosen, given = (torch.cat([p, remainder(p)], -1) for p in (chosen, given))
    return F.kl_div(chosen, given, reduction="none", log_target=True).sum(-1)


@pytest.mark.parametrize("tail", ["bucket", "renormalize", "drop"])
def test_sparse_distillation_like_pytorch(tail):
    """Of a sequence, with every rule for what the k leave, and labels of any integer dtype."""
    student, teacher = leaf(2, N, C), leaf(2, N, C, seed=4).detach()
    log_probs, ids = teacher.log_softmax(-1).topk(2)
    for reduction in REDUCTIONS:
        loss = losses.sparse_distillation_loss(
            student, ids.to(torch.int32), log_probs, temperature=2.0, tail=tail, reduction=reduction
        )
        expected = in_parts(student, ids, log_probs, tail, 2.0)
        expected = expected if reduction == "none" else getattr(expected, reduction)()
        close(loss, expected)
        upstream = torch.linspace(-2, 3, loss.numel(), dtype=torch.float64).reshape(loss.shape)
        close(gradients(loss, student, upstream), gradients(expected, student, upstream))


# ---- derivatives ----


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CALLS)
def test_gradcheck(name, reduction):
    call, leaves = CALLS[name]
    assert torch.autograd.gradcheck(lambda *z: call(*z, reduction=reduction), leaves)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("name", TWICE)
def test_gradgradcheck(name, reduction):
    call, leaves = CALLS[name]
    assert torch.autograd.gradgradcheck(lambda *z: call(*z, reduction=reduction), leaves)


@pytest.mark.parametrize("name", [name for name in CALLS if name not in TWICE])
def test_no_second_order(name):
    call, leaves = CALLS[name]
    grad = torch.autograd.grad(call(*leaves), leaves[0], create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        grad.sum().backward()


def test_batches_of_upstream_gradients():
    loss = layer(HIDDEN, HEAD, BIAS, reduction="none")
    each = func.vmap(lambda upstream: gradients(loss, HEAD, upstream)[0])(torch.eye(N, dtype=torch.float64))
    close(
        each, func.jacrev(lambda w: layer(HIDDEN.detach(), w, BIAS.detach(), reduction="none"))(HEAD.detach())
    )
    with pytest.raises(NotImplementedError, match="torch.func"):
        torch.autograd.functional.jacobian(lambda z: losses.cross_entropy(z, LABELS), X, vectorize=True)


def test_no_third_order():
    grad = torch.autograd.grad(losses.cross_entropy(X, LABELS), X, create_graph=True)[0]
    grad = torch.autograd.grad(grad.square().sum(), X, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="no third derivatives"):
        grad.sum().backward()


@pytest.mark.parametrize("name", ["labels", "layer"])
def test_a_graph_that_is_kept(name):
    """The first backward pass takes the gradients with it, and what becomes of them touches no other."""
    call, leaves = CALLS[name]
    loss = call(*leaves)
    first = gradients(loss, leaves)
    expected = [g.clone() for g in first]
    for g in first:
        g.zero_()
    for _ in range(2):
        close(gradients(loss, leaves), tuple(expected))
    close(gradients(3 * loss, leaves), tuple(3 * g for g in expected))


def test_only_gradients_that_are_needed():
    loss = losses.linear_cross_entropy(HIDDEN.detach(), HEAD, LABELS)
    assert [g is None for g in loss.grad_fn.gradients] == [True, False, True]
    close(gradients(loss, HEAD), gradients(F.cross_entropy(F.linear(HIDDEN.detach(), HEAD), LABELS), HEAD))


def test_infinite_upstream_gradient_of_ignored_positions():
    upstream = torch.where(LABELS < 0, torch.inf, 1.0).double()
    (grad,) = gradients(losses.cross_entropy(X, LABELS, reduction="none"), X, upstream)
    close(grad, gradients(losses.cross_entropy(X, LABELS, reduction="sum"), X)[0])


def test_nothing_stays_behind():
    x = leaf(N, C)
    loss = losses.cross_entropy(x * 1, LABELS)
    kept = weakref.ref(loss.grad_fn.gradients[0])
    loss.backward()
    gc.collect()
    assert kept() is None
    assert x.grad.shape == x.shape


def test_products_by_differentiating_twice():
    """torch.autograd.functional.hvp differentiates a gradient by the upstream one; also for a leaf."""
    functional, expected = torch.autograd.functional, F.cross_entropy
    args = X.detach(), TEACHER
    close(
        functional.hvp(lambda z: losses.cross_entropy(z, LABELS), *args)[1],
        functional.hvp(lambda z: expected(z, LABELS), *args)[1],
    )
    (grad,) = torch.autograd.grad(losses.cross_entropy(X, LABELS), X, create_graph=True)
    along = torch.zeros_like(grad, requires_grad=True)
    (product,) = torch.autograd.grad(grad, X, along, create_graph=True)
    (found,) = torch.autograd.grad(product, along, TEACHER)
    close(found, functional.hvp(lambda z: expected(z, LABELS), *args)[1])


# ---- log-probabilities of tokens ----

IDS = torch.tensor([[1, 3, 1], [0, 2, 4], [4, 4, 0], [0, 1, 2], [3, 2, 1], [2, 2, 2], [1, 0, 3]])


def gathered(x, ids):
    """What PyTorch computes instead."""
    several = ids.dim() == x.dim()
    found = x.log_softmax(-1).gather(-1, ids if several else ids[..., None])
    return found if several else found[..., 0]


def token_log_probs(x, ids):
    return losses.token_log_probs(x, ids)


@pytest.mark.parametrize("ids", [IDS, IDS[:, 0]], ids=["several", "one"])
def test_token_log_probs(ids):
    """The same as PyTorch's parts, however it is called, with an upstream gradient for each."""
    found, expected = token_log_probs(X, ids), gathered(X, ids)
    close(found, expected)
    upstream = torch.linspace(-2, 3, found.numel(), dtype=torch.float64).reshape(found.shape)
    close(gradients(found, X, upstream), gradients(expected, X, upstream))
    assert torch.autograd.gradcheck(lambda z: token_log_probs(z, ids), X)
    torch._dynamo.reset()
    compiled = torch.compile(token_log_probs, fullgraph=True, backend="aot_eager")(X, ids)
    close(gradients(compiled, X, upstream), gradients(expected, X, upstream))
    close(func.jacrev(lambda z: token_log_probs(z, ids))(X), func.jacrev(lambda z: gathered(z, ids))(X))
    batch = torch.stack([X.detach(), 2 * X.detach()])
    close(func.vmap(token_log_probs, in_dims=(0, None))(batch, ids), gathered(batch, torch.stack([ids] * 2)))


def test_token_log_probs_with_options():
    images, ids = leaf(N, C, 4), torch.tensor(random_labels((N, 2, 4), C))
    options = {"temperature": 2.0, "logit_cap": 3.0, "prior": PRIOR}
    found, places = losses.token_log_probs(images, ids, dim=1, ranks=True, **options)
    shifted = 3 * torch.tanh(images / 2 / 3) + PRIOR.log()[:, None]
    expected = shifted.log_softmax(1).gather(1, ids)
    close(found, expected)
    own = shifted.gather(1, ids)
    close(places, (shifted[:, :, None] > own[:, None]).sum(1))
    assert not places.requires_grad
    upstream = torch.linspace(-2, 3, found.numel(), dtype=torch.float64).reshape(found.shape)
    close(gradients(found, images, upstream), gradients(expected, images, upstream))
    with torch.no_grad():
        quick = losses.token_log_probs(images, ids, dim=1, ranks=True, **options)
    close(quick, (found.detach(), places))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_token_log_probs_of_narrow_dtypes(dtype):
    x = leaf(N, C, dtype=dtype)
    found, wide = losses.token_log_probs(x, IDS), x.detach().double().requires_grad_()
    assert found.dtype is torch.float32
    (grad,) = gradients(2.0**10 * found.sum(), x)
    assert grad.dtype is dtype
    expected = gradients(2.0**10 * gathered(wide, IDS).sum(), wide)[0]
    close(grad.double(), expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-3)


def test_opcheck_of_token_log_probs():
    for x, ids, ranks in ((X, IDS, True), (X, IDS[:, 0], False), (X.detach().bfloat16(), IDS, True)):
        args = x, ids, None, -1, 1.0, None
        torch.library.opcheck(_torch_operators.TOKENS.value.op, (*args, ranks))
        upstream = torch.ones(ids.shape, dtype=torch.float64 if x is X else torch.float32)
        torch.library.opcheck(_torch_operators.TOKENS.grad.op, (upstream, x.detach(), *args[1:]))


def test_token_log_probs_refuse():
    grad = torch.autograd.grad(token_log_probs(X, IDS).sum(), X, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        grad.sum().backward()
    with pytest.raises(TypeError, match="prior records gradients"):
        losses.token_log_probs(X, IDS, prior=PRIOR.clone().requires_grad_())
    with pytest.raises(TypeError, match="ids must be a torch.Tensor"):
        losses.token_log_probs(X, [0] * N)
    with pytest.raises(TypeError, match="ranks must be True or False"):
        losses.token_log_probs(X, IDS, ranks=1)
    with pytest.raises(ValueError, match="ids"):
        losses.token_log_probs(X, IDS + C)
    with pytest.raises(TypeError, match="ids"):
        losses.token_log_probs(X, IDS * 1.0)


# ---- operators: compile, torch.func, modes ----


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("name", CALLS)
def test_opcheck(name, reduction, monkeypatch):
    """torch.library's own checks of the operators, with the arguments that a call gives them."""
    call, leaves = CALLS[name]
    checked = []

    def check(op):
        def run(*args):
            torch.library.opcheck(op, args)
            checked.append(op)
            return op(*args)

        return run

    for loss in LOSSES:
        monkeypatch.setattr(loss.operators.both, "op", check(loss.operators.both.op))
    monkeypatch.setattr(_torch_losses, "is_traced", lambda tensors: True)
    call(*leaves, reduction=reduction)
    assert len(checked) == 1


@pytest.mark.parametrize("name", CALLS)
def test_opcheck_of_gradients_and_products(name):
    call, leaves = CALLS[name]
    given = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_torch_losses, "call", lambda *args: given.extend(args))
        call(*[z.detach() for z in leaves])
    loss, tensors, options = given
    args = (*tensors, *_torch_operators.packed(options))
    upstream, needs = torch.tensor(2.0, dtype=torch.float64), [True] * loss.inputs
    torch.library.opcheck(loss.operators._grads.op, (upstream, *args, needs))
    assert (name in TWICE) == hasattr(loss.operators, "product")
    if name in TWICE:
        torch.library.opcheck(loss.operators.product.op, (TEACHER, *args))


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("name", CALLS)
def test_compile(name, reduction):
    """Without a graph break, forward and backward."""
    torch._dynamo.reset()  # which counts how often the same code is compiled
    call, leaves = CALLS[name]

    def step(*z):
        return (2 * call(*[2 * a for a in z], reduction=reduction)).sum()

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    close(compiled(*leaves), step(*leaves))
    close(gradients(compiled(*leaves), leaves), gradients(step(*leaves), leaves))
    with torch.no_grad():
        close(compiled(*leaves), step(*leaves))


def test_compile_modules_and_float16():
    head = losses.LinearCrossEntropyLoss(D, C, bias=True, weight=WEIGHT, dtype=torch.float64)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    close(compiled(HIDDEN, LABELS), head(HIDDEN, LABELS))
    x = leaf(N, C, dtype=torch.float16)
    loss = torch.compile(losses.cross_entropy, fullgraph=True, backend="aot_eager")(x, LABELS)
    close(gradients(loss, x), gradients(losses.cross_entropy(x, LABELS), x))


def test_export():
    class Step(torch.nn.Module):
        def forward(self, x, y):
            return losses.cross_entropy(x, y)

    sizes = {"x": {0: torch.export.Dim("n")}, "y": {0: torch.export.Dim("n")}}
    program = torch.export.export(Step(), (X.detach(), LABELS), dynamic_shapes=sizes)
    for n in (N, 3):
        close(program.module()(X.detach()[:n], LABELS[:n]), losses.cross_entropy(X.detach()[:n], LABELS[:n]))


@pytest.mark.parametrize("name", CALLS)
def test_func_grad(name):
    call, leaves = CALLS[name]
    inputs = tuple(z.detach() for z in leaves)
    for reduction in REDUCTIONS:

        def total(*z, reduction=reduction):
            return call(*z, reduction=reduction).sum()

        expected = gradients(total(*leaves), leaves)
        close(func.grad(total, argnums=tuple(range(len(inputs))))(*inputs), expected)


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_func_second_order(reduction):
    def total(loss):
        return lambda z: loss(z, LABELS, reduction=reduction).sum()

    expected = func.jacrev(func.jacrev(total(F.cross_entropy)))(X.detach())
    close(func.jacrev(func.jacrev(total(losses.cross_entropy)))(X.detach()), expected)
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        func.jacrev(func.jacrev(lambda z: losses.sigmoid_cross_entropy(z, PROBS)))(X.detach())


def test_vmap():
    """Each entry of the batch has a mean of its own: gradients of single examples."""
    x, y = X.detach().repeat(3, 1, 1) * torch.arange(1.0, 4)[:, None, None], LABELS.repeat(3, 1)
    close(
        func.vmap(losses.cross_entropy)(x, y),
        torch.stack([F.cross_entropy(*z) for z in zip(x, y, strict=True)]),
    )
    ours = func.vmap(func.grad(losses.cross_entropy))(x, y)
    close(ours, func.vmap(func.grad(F.cross_entropy))(x, y))
    close(func.grad(lambda z: func.vmap(losses.cross_entropy)(z, y).sum())(x), ours)
    close(
        func.vmap(losses.cross_entropy, in_dims=(1, None))(x.movedim(0, 1), y[0])[0],
        F.cross_entropy(x[0], y[0]),
    )


def test_tensors_of_a_transform_that_is_over():
    kept, weight = [], leaf(N, C, seed=8)
    func.grad(lambda z: (kept.append(z * weight), z.sum())[1])(X.detach())
    loss = losses.cross_entropy(kept[0], LABELS)
    close(gradients(loss, weight), gradients(F.cross_entropy(X.detach() * weight, LABELS), weight))


def test_fake_tensors():
    from torch._subclasses.fake_tensor import FakeTensorMode

    x = X.detach()
    with FakeTensorMode() as mode:
        loss = losses.cross_entropy(mode.from_tensor(x), mode.from_tensor(LABELS), reduction="none")
    assert loss.shape == (N,)
    assert loss.dtype is torch.float64


def test_meta_tensors():
    """Shapes and dtypes without memory, of values and gradients."""
    x, y, top = (t.detach().to("meta") for t in (X, LABELS, TOP))
    x.requires_grad_()
    losses.cross_entropy(x, y).backward()
    assert (x.grad.shape, x.grad.is_meta) == (X.shape, True)
    sparse = losses.sparse_distillation_loss(x, top, top.float(), reduction="none")
    assert (sparse.shape, sparse.dtype) == ((N,), torch.float64)
    assert losses.linear_cross_entropy(x.half(), x.half(), y).dtype is torch.float32
    assert losses.token_log_probs(x, top).shape == top.shape


@pytest.mark.parametrize("name", CALLS)
def test_jit_trace(name):
    """Results and gradients depend on the arguments, which a trace of the eager way would forget."""
    call, leaves = CALLS[name]
    traced = torch.jit.trace(call, tuple(leaves))
    others = [(2 * z).detach().requires_grad_() for z in leaves]
    close(traced(*others), call(*others))
    close(gradients(traced(*others), others), gradients(call(*others), others))


def test_numbers_of_numpy_and_lists():
    """The same options in both ways of a call."""
    with pytest.raises(TypeError, match="ignore_index must be an integer or a tuple of integers"):
        losses.cross_entropy(X, LABELS, ignore_index=[1])
    with pytest.raises(TypeError, match="ignore_index must be an integer or a tuple of integers"):
        func.grad(lambda z: losses.cross_entropy(z, LABELS, ignore_index=[1]))(X.detach())
    options = {"ignore_index": np.int64(1), "temperature": np.float32(2), "dim": np.int64(1)}
    expected = gradients(losses.cross_entropy(X, LABELS.abs() % C, **options), X)[0]
    found = func.grad(lambda z: losses.cross_entropy(z, LABELS.abs() % C, **options))(X.detach())
    close(found, expected)


def test_vmap_of_nothing():
    empty = X.detach().expand(0, N, C)
    assert func.vmap(lambda z: losses.cross_entropy(z, LABELS, reduction="none"))(empty).shape == (0, N)
    found, places = func.vmap(lambda z: losses.token_log_probs(z, IDS, ranks=True))(empty)
    assert (found.shape, places.shape) == ((0, *IDS.shape), (0, *IDS.shape))


LAYOUTS = {
    "channels last": lambda z: z.contiguous(memory_format=torch.channels_last),
    "one image": lambda z: z[:1].expand_as(z),
    "one class": lambda z: z[:, :1].expand_as(z),
    "one number": lambda z: z[:1, :1, :1, :1].expand_as(z),
    "transposed": lambda z: z.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "backwards": lambda z: z.flip(1).permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0),
    "negated": torch._neg_view,
    "overlapping": lambda z: z.flatten().as_strided(z.shape, (3, 1, 2, 4)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout):
    """Of images, with and without operators, whose results lie as they promise."""
    z = LAYOUTS[layout](leaf(2, C, 3, 4).detach())
    labels, leaves = torch.tensor(random_labels((2, 3, 4), C)), [z.detach().requires_grad_() for _ in "ab"]
    loss, expected = losses.cross_entropy(leaves[0], labels), F.cross_entropy(leaves[1], labels)
    close(loss, expected)
    close(gradients(loss, leaves[0]), gradients(expected, leaves[1]))
    close(func.grad(losses.cross_entropy)(z, labels), gradients(expected, leaves[1])[0])
    ids = labels[:, None].expand(2, 2, 3, 4)
    for op, args in [
        (
            _torch_losses.CROSS_ENTROPY,
            (labels, None, None, None, 1, [-100], 0.0, 0.0, 0.0, 1.0, None, "none"),
        ),
        (_torch_losses.SIGMOID, (z.sigmoid(), None, None, None, 0.0, 0.0, None, "none")),
        (_torch_operators.TOKENS, (ids.transpose(0, 1).contiguous().transpose(0, 1), None, 1, 1.0, None)),
    ]:
        op, last = (op.value, True) if op is _torch_operators.TOKENS else (op.operators.both, [1])
        torch.library.opcheck(op.op, (leaves[0], *args, last), test_utils="test_faketensor")


class Tagged(torch.Tensor):
    """A subclass without a behaviour of its own."""


@pytest.mark.parametrize("name", CALLS)
def test_subclasses(name):
    call, leaves = CALLS[name]
    tagged = [z.detach().clone().as_subclass(Tagged).requires_grad_() for z in leaves]
    loss = call(*tagged)
    assert type(loss) is Tagged
    found = torch.autograd.grad(loss, tagged)
    close([g.as_subclass(torch.Tensor) for g in found], list(gradients(call(*leaves), leaves)))


def test_defaults_of_the_process():
    """What tensors are made from, and that they are filled, changes nothing."""
    expected = gradients(losses.cross_entropy(X, LABELS), X)[0]
    before = torch.get_default_dtype()
    try:
        torch.use_deterministic_algorithms(True)
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("meta"):
            close(gradients(losses.cross_entropy(X, LABELS), X)[0], expected)
            close(func.grad(losses.cross_entropy)(X.detach(), LABELS), expected)
    finally:
        torch.set_default_dtype(before)
        torch.use_deterministic_algorithms(False)


def test_inference_mode_and_autocast():
    with torch.inference_mode():
        loss = losses.cross_entropy(X, LABELS)
        batch = func.vmap(lambda z: losses.cross_entropy(z, LABELS))(X[None])
    assert loss.is_inference()
    close((loss, batch[0]), (F.cross_entropy(X, LABELS).detach(),) * 2)
    head, layer = losses.LinearCrossEntropyLoss(D, C), torch.nn.Linear(D, D)
    with torch.autocast("cpu", torch.bfloat16):
        loss = head(layer(HIDDEN.detach().float()), LABELS)
    loss.backward()
    assert (loss.dtype, head.linear.weight.grad.dtype, layer.weight.grad.dtype) == (torch.float32,) * 3


def test_checkpoint():
    loss = torch.utils.checkpoint.checkpoint(losses.cross_entropy, X, LABELS, use_reentrant=False)
    close(gradients(loss, X), gradients(F.cross_entropy(X, LABELS), X))


def test_forward_mode_is_refused():
    """In each of its ways, also where no gradient is recorded: it would be None without a word."""

    def loss(z):
        return losses.cross_entropy(z, LABELS)

    for call in (loss, lambda z: token_log_probs(z, IDS), lambda z: losses.cross_entropy(X, LABELS, z[0])):
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(X.detach(), TEACHER)
            with pytest.raises(NotImplementedError, match="no forward mode"):
                call(dual)
            loss(X.detach())
    for transform in (func.jacfwd, func.hessian, lambda f: func.jacfwd(func.grad(f))):
        with pytest.raises(NotImplementedError, match="no forward mode"):
            transform(loss)(X.detach())


# ---- modules ----


def test_modules():
    close(losses.CrossEntropyLoss(WEIGHT)(X, LABELS), torch.nn.CrossEntropyLoss(WEIGHT)(X, LABELS))
    close(
        losses.SigmoidCrossEntropyLoss(pos_weight=WEIGHT)(X, PROBS),
        torch.nn.BCEWithLogitsLoss(pos_weight=WEIGHT)(X, PROBS),
    )
    weighted = losses.CrossEntropyLoss(reduction="sum", label_smoothing=0.1)(X, LABELS, SAMPLE)
    close(weighted, (F.cross_entropy(X, LABELS, reduction="none", label_smoothing=0.1) * SAMPLE).sum())
    assert "label_smoothing=0.1" in repr(losses.CrossEntropyLoss(label_smoothing=0.1))


@pytest.mark.parametrize("bias", [False, True])
def test_a_head_trains_as_pytorchs(bias):
    """The same losses, and weights that load from PyTorch's state_dict and go back."""
    ours = losses.LinearCrossEntropyLoss(D, C, bias=bias, dtype=torch.float64)
    theirs = torch.nn.Linear(D, C, bias=bias, dtype=torch.float64)
    theirs.load_state_dict(ours.linear.state_dict())
    steps = [torch.optim.AdamW(m.parameters(), lr=0.1) for m in (ours, theirs)]
    for _ in range(5):
        pair = ours(HIDDEN.detach(), LABELS), F.cross_entropy(theirs(HIDDEN.detach()), LABELS)
        close(*pair)
        for step, loss in zip(steps, pair, strict=True):
            step.zero_grad()
            loss.backward()
            step.step()
    assert set(ours.state_dict()) == {f"linear.{name}" for name in theirs.state_dict()}
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        close(twin(HIDDEN, LABELS), ours(HIDDEN, LABELS))
    embedding = torch.nn.Embedding(C, D, dtype=torch.float64)
    ours.linear.weight = embedding.weight
    ours(HIDDEN.detach(), LABELS).backward()
    assert embedding.weight.grad.any()


@pytest.mark.parametrize(
    "module, args",
    [
        (losses.CrossEntropyLoss(WEIGHT, ignore_index=(1, 2), prior=PRIOR, gamma=1.0), (X, LABELS.abs() % C)),
        (losses.SigmoidCrossEntropyLoss(pos_weight=WEIGHT, gamma=2.0), (X, PROBS)),
        (losses.LinearCrossEntropyLoss(D, C, weight=WEIGHT, dtype=torch.float64), (HIDDEN, LABELS)),
    ],
    ids=lambda part: type(part).__name__,
)
def test_copies_of_modules(module, args):
    """Copied, pickled, called with a state of their own, and by several threads at once."""
    expected = module(*args)
    (grad,) = gradients(expected, args[0])
    for twin in (copy.copy(module), copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        close(twin(*args), expected, rtol=0, atol=0)
    state = dict(module.state_dict())
    close(func.functional_call(module, state, args), expected, rtol=0, atol=0)
    module.load_state_dict(state)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: gradients(module(*args), args[0]), range(40)):
            close(found[0], grad, rtol=0, atol=0)


def test_gradients_of_single_examples():
    """torch.func over the parameters of a head."""
    head = losses.LinearCrossEntropyLoss(D, C, bias=True, dtype=torch.float64)
    labels = LABELS.abs() % C

    def loss(parameters, x, y):
        return func.functional_call(head, parameters, (x, y))

    parameters = {name: p.detach() for name, p in head.named_parameters()}
    whole = func.grad(loss)(parameters, HIDDEN.detach(), labels)
    each = func.vmap(func.grad(loss), (None, 0, 0))(parameters, HIDDEN.detach(), labels)
    head(HIDDEN.detach(), labels).backward()
    for name, parameter in head.named_parameters():
        close(whole[name], parameter.grad)
        close(each[name].mean(0), parameter.grad)


# ---- errors ----


def test_the_cpu_alone():
    with pytest.raises(TypeError, match=r"input is on device meta.*give input\.cpu\(\)"):
        losses.cross_entropy(X.detach().to("meta"), LABELS)
    with pytest.raises(TypeError, match=r"linear_weight is on device meta.*linear_weight\.cpu\(\)"):
        losses.LinearCrossEntropyLoss(D, C, device="meta")(HIDDEN, LABELS)


def test_kinds_of_tensors():
    for tensor in (
        X.detach().to_sparse(),
        torch.nested.nested_tensor([X.detach()[:3], X.detach()]),
        X.detach().to(torch.float8_e4m3fn),
    ):
        with pytest.raises(TypeError, match="input cannot be read as an array"):
            losses.cross_entropy(tensor, LABELS)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize(
    "words, name, given",
    [
        (r"^linear_weight must have 2 dimensions", "linear_cross_entropy", {"linear_weight": HEAD[0]}),
        (r"^input must have \d features.*as linear_weight", "linear_cross_entropy", {"input": HIDDEN[:, 1:]}),
        (r"^weight must have one number per class", "linear_cross_entropy", {"weight": torch.ones(C + 1)}),
        (r"^linear_bias must have one number", "linear_cross_entropy", {"linear_bias": torch.ones(C + 1)}),
        (r"target\.long\(\) makes labels", "cross_entropy", {"target": torch.zeros(N)}),
        (r"target\.reshape\(\d+,\)", "cross_entropy", {"target": torch.zeros(N, 1, dtype=int)}),
        (r"give target\.float\(\)", "cross_entropy", {"target": torch.ones(N, C, dtype=int)}),
        (r"^target must have the shape of input", "sigmoid_cross_entropy", {"target": torch.zeros(N)}),
    ],
)
def test_errors_say_what_was_given(words, name, given, grad):
    """Losses of layers have a weight that xent calls class_weight; arguments have PyTorch's methods."""
    arguments = {"input": X, "target": LABELS.clamp(min=0)}
    if name == "linear_cross_entropy":
        arguments |= {"input": HIDDEN, "linear_weight": HEAD}
    arguments = {key: tensor.detach() for key, tensor in (arguments | given).items()}
    arguments["input"] = arguments["input"].clone().requires_grad_(grad)
    with pytest.raises((TypeError, ValueError), match=words):
        getattr(losses, name)(**arguments)


def test_tensors_alone():
    with pytest.raises(TypeError, match="target must be a torch.Tensor, got list"):
        losses.cross_entropy(X, [0] * N)
    with pytest.raises(TypeError, match="target must be a torch.Tensor, got NoneType"):
        losses.sigmoid_cross_entropy(X, None)


@pytest.mark.parametrize(
    "name, call",
    [
        ("teacher_logits", lambda t: losses.distillation_loss(X, t)),
        ("teacher_log_probs", lambda t: losses.sparse_distillation_loss(X, TOP, -t[:, :2].abs())),
        ("target", lambda t: losses.cross_entropy(X, t.softmax(1))),
        ("sample_weight", lambda t: losses.cross_entropy(X, LABELS, sample_weight=t.sum(1))),
    ],
)
def test_gradients_that_would_be_lost(name, call):
    teacher = TEACHER.clone().requires_grad_()
    with pytest.raises(TypeError, match=rf"{name} records gradients.*{name}\.detach\(\)"):
        call(teacher)
    with torch.no_grad():
        call(teacher.abs())
    for transformed, given in ((call, TEACHER), (lambda t: func.vmap(call)(t).sum(), TEACHER[None])):
        with pytest.raises(TypeError, match=rf"{name} records gradients"):
            func.grad(transformed)(given)


def test_an_option_that_would_be_learnt():
    for scale in (torch.nn.Parameter(torch.tensor(2.0)), torch.tensor(2.0, requires_grad=True)):
        with pytest.raises(TypeError, match=r"temperature records gradients.*temperature\.item\(\)"):
            losses.cross_entropy(X, LABELS, temperature=scale)
        close(
            losses.cross_entropy(X, LABELS, temperature=scale.detach()),
            losses.cross_entropy(X, LABELS, temperature=2.0),
        )


def test_bad_labels_and_shapes():
    with pytest.raises(ValueError, match="target"):
        losses.cross_entropy(X, LABELS + C)
    with pytest.raises(ValueError, match="target"):
        losses.cross_entropy(X, LABELS[1:])
    assert losses.cross_entropy(X, torch.full((N,), -100)) == 0


# ---- documentation ----


def test_examples():
    assert doctest.testmod(losses).failed == 0
    page = ROOT / "docs" / "torch.md"
    result = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert result.failed == 0
    assert result.attempted > 0


def test_the_example_trains_as_pytorch():
    args = ["--rate", "1", "--positions", "64", "--features", "16", "--classes", "100", "--steps", "2"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "torch_head.py"), *args],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "largest difference" in done.stdout
