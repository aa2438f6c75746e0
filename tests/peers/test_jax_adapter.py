"""xent.jax: the same as JAX's own formulas, however JAX traces, transforms and differentiates them."""

import doctest
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from helpers import ROOT, random_labels, random_logits, random_probabilities, random_weights

import xent

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import xent.jax as losses  # noqa: E402

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

N, C, D, K = 7, 5, 3, 2
LABELS = random_labels((N,), C, ignored=0.3)
PROBS = random_probabilities((N, C), np.float64)
WEIGHT = random_weights(C, np.float64)
SAMPLE = random_weights(N, np.float64, seed=3)
PRIOR = xent.softmax(WEIGHT)
X = random_logits((N, C), np.float64)
HIDDEN, HEAD, BIAS = (
    random_logits(shape, np.float64, seed=k) for k, shape in enumerate([(N, D), (C, D), (C,)], 1)
)
TEACHER = random_logits((N, C), np.float64, seed=4)
IDS = np.argsort(-TEACHER)[:, :K]
LOG_PROBS = np.take_along_axis(xent.log_softmax(TEACHER), IDS, 1)
REDUCTIONS = ["none", "sum", "mean"]


@pytest.fixture(autouse=True)
def wide():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


CALLS = {  # name: (function, arrays that are differentiated, other arrays by name, options)
    "labels": ("cross_entropy", {"logits": X}, {"target": LABELS}, {}),
    "probabilities": (
        "cross_entropy",
        {"logits": X},
        {"target": PROBS, "weight": WEIGHT, "sample_weight": SAMPLE},
        {},
    ),
    "options": (
        "cross_entropy",
        {"logits": X},
        {"target": np.abs(LABELS) % C, "prior": PRIOR},
        {"z_loss": 0.1, "gamma": 1.5, "temperature": 2.0, "logit_cap": 9.0, "ignore_index": (1, -1)},
    ),
    "axis": (
        "cross_entropy",
        {"logits": X.T.copy()},
        {"target": LABELS},
        {"axis": 0, "label_smoothing": 0.1},
    ),
    "layer": ("linear_cross_entropy", {"x": HIDDEN, "weight": HEAD, "bias": BIAS}, {"target": LABELS}, {}),
    "layer without bias": (
        "linear_cross_entropy",
        {"x": HIDDEN, "weight": HEAD},
        {"target": LABELS, "class_weight": WEIGHT},
        {"chunk_bytes": 1 << 16},
    ),
    "sigmoid": (
        "sigmoid_cross_entropy",
        {"logits": X},
        {"target": PROBS, "pos_weight": WEIGHT},
        {"gamma": 2.0, "alpha": 0.3},
    ),
    "distillation": (
        "distillation_loss",
        {"student_logits": X},
        {"teacher_logits": TEACHER},
        {"temperature": 2.0},
    ),
    "sparse distillation": (
        "sparse_distillation_loss",
        {"student_logits": X},
        {"teacher_ids": IDS, "teacher_log_probs": LOG_PROBS, "sample_weight": SAMPLE},
        {"tail": "drop"},
    ),
}
TWICE = ["labels", "probabilities", "options", "axis"]


def case(name, **more):
    """The loss as a function of the arrays that are differentiated, and these."""
    function, inputs, others, options = CALLS[name]
    names = list(inputs)

    def call(*arrays):
        given = dict(zip(names, arrays, strict=True))
        return getattr(losses, function)(**given, **others, **options, **more)

    return call, [jnp.asarray(a) for a in inputs.values()]


def own(name, **more):
    """What xent computes from NumPy arrays: the value and a tuple of gradients."""
    function, inputs, others, options = CALLS[name]
    value, grads = getattr(xent, f"{function}_value_and_grad")(**inputs, **others, **options, **more)
    grads = grads if isinstance(grads, tuple) else (grads,)
    return value, tuple(g for g in grads if g is not None)


def close(actual, expected, rtol=1e-10, atol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), actual, expected)


# ---- values and first derivatives ----


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("name", CALLS)
def test_like_xent(name, reduction, compiled):
    """To the last bit."""
    call, inputs = case(name, reduction=reduction)
    both = jax.value_and_grad(call, argnums=tuple(range(len(inputs))))
    if compiled:
        call, both = jax.jit(call), jax.jit(both)
    value, grads = own(name, reduction=reduction)
    if name == "layer without bias":
        grads = grads[: len(inputs)]
    close(call(*inputs), value, 0, 0)
    close(both(*inputs), (value, grads), 0, 0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", CALLS)
def test_check_grads(name, reduction):
    call, inputs = case(name, reduction=reduction)
    modes = ["rev"] if "layer" in name and reduction == "none" else ["fwd", "rev"]
    check_grads(call, inputs, order=1, modes=modes)


@pytest.mark.parametrize("name", CALLS)
def test_upstream_gradients_of_positions(name):
    call, inputs = case(name, reduction="none")
    value, back = jax.vjp(call, *inputs)
    upstream = jnp.linspace(-2, 3, value.size).reshape(value.shape)
    numeric = jax.grad(lambda *z: (call(*z) * upstream).sum(), argnums=tuple(range(len(inputs))))
    close(back(upstream), numeric(*inputs))
    function, given, others, options = CALLS[name]
    if "layer" not in name:
        grad = getattr(xent, f"{function}_grad")
        expected = grad(**given, **others, **options, reduction="none", grad_output=np.asarray(upstream))
        close(back(upstream)[0], expected)


def test_only_gradients_that_are_needed():
    """One pass with gradient, or the value alone; and of a layer what is asked for."""
    call, inputs = case("layer")
    text = str(jax.make_jaxpr(jax.grad(call, argnums=1))(*inputs))
    assert '"needs": [false, true, false]' in text.replace("\\", "")
    assert text.count("ffi_call[") == 1
    assert '"what": "value"' in str(jax.make_jaxpr(call)(*inputs)).replace("\\", "")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_narrow_dtypes(dtype):
    x = jnp.asarray(X, dtype)
    loss, grad = jax.jit(jax.value_and_grad(losses.cross_entropy))(x, LABELS)
    expected = xent.cross_entropy_value_and_grad(np.asarray(x), LABELS)
    assert (loss.dtype, grad.dtype) == (np.float32, x.dtype)
    close((loss, grad.astype(float)), (expected[0], expected[1].astype(float)), 1e-6, 0)
    head = jnp.asarray(HEAD, dtype)
    grad = jax.grad(losses.linear_cross_entropy, argnums=1)(jnp.asarray(HIDDEN, dtype), head, LABELS)
    assert grad.dtype == head.dtype


def test_a_loss_scale_reaches_float16_before_rounding():
    x, labels = np.array([[12.0, -9.0]] * 4, np.float16), np.zeros(4, int)
    grad = jax.grad(lambda z: losses.cross_entropy(z, labels) * 2.0**16)(jnp.asarray(x))
    close(grad.astype(float), xent.cross_entropy_grad(x.astype(float), labels) * 2.0**16, 5e-3, 0)


def test_lists_integers_and_nothing():
    close(losses.cross_entropy([[1, 2, 3]], [2]), xent.cross_entropy([[1, 2, 3]], [2]))
    assert losses.cross_entropy(jnp.zeros((0, C)), jnp.zeros(0, int)) == 0
    assert jax.grad(losses.cross_entropy)(jnp.zeros((0, C)), jnp.zeros(0, int)).shape == (0, C)


def test_numbers_of_numpy():
    """Options of any type that xent takes."""
    options = {"temperature": np.float32(2), "ignore_index": (np.int64(1), 2), "gamma": Fraction(1, 2)}
    close(
        losses.cross_entropy(X, LABELS, axis=np.int8(1), **options | {"ignore_index": np.int64(-100)}),
        xent.cross_entropy(X, LABELS, **options | {"ignore_index": -100}),
    )
    close(
        losses.cross_entropy(X, np.abs(LABELS) % C, **options),
        xent.cross_entropy(X, np.abs(LABELS) % C, **options),
    )
    with pytest.raises(TypeError, match="numbers or words of Python"):
        losses.cross_entropy(X, LABELS, temperature=object())


def test_what_would_be_read_as_something_else():
    with pytest.raises(TypeError, match="logits must be an array, got None"):
        losses.cross_entropy(None, LABELS)
    with pytest.raises(TypeError, match="weight must be an array, got None"):
        losses.linear_cross_entropy(X, None, LABELS)
    with pytest.raises(TypeError, match="target must not be a masked array"):
        losses.cross_entropy(X, np.ma.masked_less(LABELS, 0))
    with pytest.raises(TypeError, match="logits must be real numbers.*complex128"):
        losses.cross_entropy(jnp.asarray(X) + 0j, LABELS)
    with pytest.raises(TypeError, match=r"logits\[1\] must not be a masked array"):
        losses.cross_entropy([X[0], np.ma.masked_less(X[1], 0)], LABELS[:2])
    with pytest.raises(TypeError, match=r"target\[1\] is None"):
        losses.cross_entropy(X[:2], [0, None])
    with pytest.raises(TypeError, match="target must be real numbers.*<U1"):
        losses.cross_entropy(X[:2], ["a", "b"])
    labels = jnp.abs(LABELS[:2]) % C  # traced ones in lists are taken
    expected = losses.cross_entropy(X[:2], labels)
    assert jax.jit(lambda a, b: losses.cross_entropy([a, b], labels))(X[0], X[1]) == expected

    class Variable:
        def __jax_array__(self):
            return jnp.asarray(X)

    other = np.asarray(X).astype(">f8"), LABELS.astype(">i2")
    close(losses.cross_entropy(*other), xent.cross_entropy(*other), 0, 0)
    close(losses.cross_entropy(Variable(), LABELS), xent.cross_entropy(X, LABELS))
    close(
        jax.jit(lambda a: losses.cross_entropy([[a, 2, 3]], [2]))(1.0), xent.cross_entropy([[1.0, 2, 3]], [2])
    )


# ---- second derivatives ----


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("name", TWICE)
def test_check_grads_twice(name, reduction):
    call, inputs = case(name, reduction=reduction)
    check_grads(call, inputs, order=2)


@pytest.mark.parametrize("inner", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
def test_hessian(outer, inner):
    labels = np.abs(LABELS) % C

    def formula(z):
        return -jax.nn.log_softmax(z)[np.arange(N), labels].mean()

    close(jax.jit(outer(inner(lambda z: losses.cross_entropy(z, labels))))(X), jax.hessian(formula)(X))


@pytest.mark.parametrize("name", [name for name in CALLS if name not in TWICE])
def test_no_second_order(name):
    for reduction in ("none", "mean"):
        call, inputs = case(name, reduction=reduction)
        with pytest.raises(NotImplementedError, match="no second derivatives"):
            jax.jacrev(jax.jacrev(call))(*inputs)


def test_no_third_order():
    call, (x,) = case("labels")
    with pytest.raises(NotImplementedError, match="no third derivatives"):
        jax.grad(lambda z: jax.jvp(jax.grad(call), (z,), (z,))[1].sum())(x)


# ---- log-probabilities of tokens ----

CHOSEN = np.array([[1, 3, 1], [0, 2, 4], [4, 4, 0], [0, 1, 2], [3, 2, 1], [2, 2, 2], [1, 0, 3]])
TOKEN_OPTIONS = {"temperature": 2.0, "logit_cap": 3.0}


def gathered(x, ids, temperature=1.0, logit_cap=None, prior=None):
    """What JAX computes instead."""
    x = x / temperature
    x = x if logit_cap is None else logit_cap * jnp.tanh(x / logit_cap)
    logp = jax.nn.log_softmax(x if prior is None else x + jnp.log(prior))
    several = np.ndim(ids) == x.ndim
    found = jnp.take_along_axis(logp, ids if several else ids[..., None], -1)
    return found if several else found[..., 0]


@pytest.mark.parametrize("options", [{}, {**TOKEN_OPTIONS, "prior": PRIOR}], ids=["plain", "options"])
@pytest.mark.parametrize("ids", [CHOSEN, CHOSEN[:, 0]], ids=["several", "one"])
def test_token_log_probs(ids, options):
    """The same as JAX's parts; several of a position have gradients of their own."""

    def call(z):
        return losses.token_log_probs(z, ids, **options)

    close(jax.jit(call)(X), xent.token_log_probs(X, ids, **options), 0, 0)
    check_grads(call, (jnp.asarray(X),), order=1, modes=["rev"])
    expected = jax.jacrev(lambda z: gathered(z, ids, **options))(X)
    close(jax.jacrev(call)(X), expected)
    close(jax.jit(jax.jacrev(call))(X), expected)
    batch = jnp.stack([X, 2 * X])
    close(jax.vmap(call)(batch), jnp.stack([call(z) for z in batch]), 0, 0)


@pytest.mark.parametrize("wide", [False, True])
def test_token_log_probs_with_ranks(wide):
    jax.config.update("jax_enable_x64", wide)

    def both(z):
        found, places = losses.token_log_probs(z, CHOSEN.T, axis=0, ranks=True)
        return found.sum(), places

    (_, places), grad = jax.jit(jax.value_and_grad(both, has_aux=True))(X.T)
    assert places.dtype == (np.int64 if wide else np.int32)
    close(places, xent.token_log_probs(X.T, CHOSEN.T, axis=0, ranks=True)[1], 0, 0)
    close(grad, jax.grad(lambda z: gathered(z, CHOSEN).sum())(X).T, 1e-6, 1e-6)
    values, places = jax.vmap(lambda z: losses.token_log_probs(z, CHOSEN, ranks=True))(jnp.stack([X, -X]))
    close(places[1], xent.token_log_probs(-X, CHOSEN, ranks=True)[1], 0, 0)
    assert values.shape == places.shape


def test_token_log_probs_refuse():
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        jax.jacrev(jax.jacrev(lambda z: losses.token_log_probs(z, CHOSEN)))(X)
    with pytest.raises(TypeError, match=r"prior is differentiated.*stop_gradient\(prior\)"):
        jax.grad(lambda p: losses.token_log_probs(X, CHOSEN, prior=p).sum())(PRIOR)
    with pytest.raises(ValueError, match="ids"):
        jax.make_jaxpr(losses.token_log_probs)(X, CHOSEN[:3])
    with pytest.raises(TypeError, match="ranks"):
        losses.token_log_probs(X, CHOSEN, ranks=1)
    words = r"^INVALID_ARGUMENT: ids\[0, 0\] is 6"
    with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=words):
        losses.token_log_probs(X, CHOSEN + C).block_until_ready()


# ---- transformations ----


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("name", CALLS)
def test_vmap(name, reduction):
    """As a loop, to the last bit, also where some arrays are batched alone."""
    call, inputs = case(name, reduction=reduction)
    first = jnp.stack([inputs[0], 2 * inputs[0], -inputs[0]])

    def both(z):
        value, back = jax.vjp(lambda z: call(z, *inputs[1:]), z)
        return value, back(jnp.ones_like(value))

    expected = jax.tree.map(lambda *a: jnp.stack(a), *[both(z) for z in first])
    close(jax.vmap(both)(first), expected, 0, 0)
    close(jax.jit(jax.vmap(both, in_axes=1, out_axes=0))(first.swapaxes(0, 1)), expected, 0, 0)


def test_vmap_of_vmap_and_of_labels():
    x = jnp.asarray(random_logits((2, 3, N, C), np.float64))
    labels = jnp.asarray(random_labels((2, N), C))
    nested = jax.vmap(jax.vmap(losses.cross_entropy, (0, None)))(x, labels)
    close(nested, [[losses.cross_entropy(x[i, j], labels[i]) for j in range(3)] for i in range(2)], 0, 0)
    assert jax.vmap(losses.cross_entropy)(x[:, 0, :0], labels[:, :0]).shape == (2,)


def test_donated_memory_and_loops():
    call, (x,) = case("labels")

    def step(z, _):
        loss, grad = jax.value_and_grad(call)(z)
        return z - grad, loss

    z, expected = np.asarray(X), []
    for _ in range(4):
        loss, grad = xent.cross_entropy_value_and_grad(z, LABELS)
        z = z - grad
        expected.append(loss)
    donated = jax.jit(lambda z: step(z, None), donate_argnums=0)
    moved, found = x + 0, []
    for _ in range(4):
        moved, loss = donated(moved)
        found.append(loss)
    close(found, expected)
    close(jax.jit(lambda z: jax.lax.scan(step, z, length=4))(x)[1], expected)
    close(jax.grad(jax.checkpoint(call))(x), jax.grad(call)(x), 0, 0)


def test_arrays_that_are_not_differentiated_within_transformations():
    """Weights in loops and branches, labels alone in a batch."""
    (x,), ones = case("labels")[1], jnp.ones(N)

    def loss(z, w):
        return losses.cross_entropy(z, LABELS, sample_weight=w)

    expected = jax.grad(losses.cross_entropy)(x, LABELS)
    found = [
        jax.grad(lambda z: jax.lax.scan(lambda c, w: (c + loss(z, w), 0), 0.0, ones[None])[0])(x),
        jax.grad(lambda z: jax.lax.scan(lambda w, _: (w, loss(z, w)), ones, length=1)[1].sum())(x),
        jax.grad(lambda z: jax.lax.cond(z.sum() < jnp.inf, loss, lambda z, w: 0.0, z, ones))(x),
        jax.grad(jax.checkpoint(loss))(x, ones),
    ]
    for grad in found:
        close(grad, expected)
    labels = jnp.stack([jnp.asarray(LABELS), jnp.asarray(LABELS)[::-1]])
    batch = jax.vmap(jax.grad(losses.cross_entropy), (None, 0))(x, labels)
    close(batch, [jax.grad(losses.cross_entropy)(x, y) for y in labels], 0, 0)


@pytest.mark.parametrize("wide", [False, True])
def test_shapes_take_no_memory(wide):
    """jax.eval_shape of what no memory could hold; labels of 8 bits, fewer than classes."""
    jax.config.update("jax_enable_x64", wide)
    x, ids, log_probs = (
        jax.ShapeDtypeStruct(*of)
        for of in [((10**8, 10**6), jnp.bfloat16), ((10**8, 256), jnp.int8), ((10**8, 256), jnp.float32)]
    )
    loss = jax.eval_shape(
        lambda *arrays: losses.sparse_distillation_loss(*arrays, reduction="none"), x, ids, log_probs
    )
    assert (loss.shape, loss.dtype) == ((10**8,), np.float32)
    places = jax.eval_shape(lambda *arrays: losses.token_log_probs(*arrays, ranks=True), x, ids)[1]
    assert (places.shape, places.dtype) == ((10**8, 256), np.int64 if wide else np.int32)


@pytest.mark.parametrize("sizes", ["7, 5", "b, 5", "b, c"])
def test_export(sizes):
    """A program in bytes, for sizes that are known or not: where xent.jax is imported it runs."""
    export = jax.export
    call = jax.jit(jax.value_and_grad(losses.cross_entropy))
    n, c = export.symbolic_shape(sizes)
    given = jax.ShapeDtypeStruct((n, c), X.dtype), jax.ShapeDtypeStruct((n,), LABELS.dtype)
    allowed = [export.DisabledSafetyCheck.custom_call("xent")]
    program = export.export(call, disabled_checks=allowed)(*given).serialize()
    close(export.deserialize(program).call(X, LABELS), call(X, LABELS), 0, 0)


def test_many_threads():
    """Calls from several threads at once: those of XLA wait for the interpreter and for nothing else."""
    from concurrent.futures import ThreadPoolExecutor

    run = jax.jit(jax.value_and_grad(losses.cross_entropy))
    x, labels = jnp.asarray(random_logits((64, 300), np.float32)), jnp.asarray(random_labels((64,), 300))
    expected = run(x, labels)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: jax.block_until_ready(run(x, labels)), range(200)):
            close(found, expected, 0, 0)


# ---- errors ----


def test_errors_when_traced():
    with pytest.raises(ValueError, match=r"target must have the shape of the positions, \(7,\), got \(3,\)"):
        jax.make_jaxpr(losses.cross_entropy)(X, LABELS[:3])
    with pytest.raises(ValueError, match="reduction must be one of"):
        losses.cross_entropy(X, LABELS, reduction="batchmean")
    with pytest.raises(TypeError, match="target"):
        losses.cross_entropy(X, jnp.zeros(N))
    with pytest.raises(TypeError, match="temperature is part of a compiled program"):
        jax.jit(lambda t: losses.cross_entropy(X, LABELS, temperature=t))(2.0)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_errors_when_run(compiled):
    call = jax.jit(losses.cross_entropy) if compiled else losses.cross_entropy
    for _ in range(3):
        words = r"target\[2\] is 9, expected 0 <= label < 5 or ignore_index=-100"
        with pytest.raises((ValueError, jax.errors.JaxRuntimeError), match=rf"^INVALID_ARGUMENT: {words}"):
            call(X, np.array([0, 1, 9, 0, 0, 0, 0])).block_until_ready()
    close(call(X, LABELS), xent.cross_entropy(X, LABELS))


def test_gradients_that_would_be_lost():
    for name, call in {
        "target": lambda t: losses.cross_entropy(X, jax.nn.softmax(t)),
        "teacher_logits": lambda t: losses.distillation_loss(X, t),
        "sample_weight": lambda t: losses.linear_cross_entropy(
            HIDDEN, HEAD, LABELS, sample_weight=t.sum(1), reduction="none"
        ).sum(),
    }.items():
        with pytest.raises(TypeError, match=rf"{name} is differentiated.*stop_gradient\({name}\)"):
            jax.grad(call)(TEACHER)
        call(TEACHER)
    stopped = jax.grad(lambda t: losses.distillation_loss(2 * t, jax.lax.stop_gradient(t)))(X)
    close(stopped, 2 * xent.distillation_loss_grad(2 * X, X))


# ---- documentation ----


def test_examples():
    jax.config.update("jax_enable_x64", False)
    assert doctest.testmod(losses).failed == 0
    result = doctest.testfile(str(ROOT / "docs" / "jax.md"), module_relative=False, encoding="utf-8")
    assert result.failed == 0
    assert result.attempted > 0


def test_optax_trains():
    pytest.importorskip("optax")
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "jax_optax.py"), "--steps", "30"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "largest difference" in done.stdout


def test_labels_that_32_bits_cannot_hold():
    """JAX makes int32 of all integers unless it is told otherwise: 2^40 would be class 0."""
    jax.config.update("jax_enable_x64", False)
    for label in (2**40, -(2**40), 2**32 + 1):
        with pytest.raises(ValueError, match=rf"target\[1\] is {label}, beyond int32"):
            losses.cross_entropy(X[:2], np.array([0, label]))
        with pytest.raises(ValueError, match=rf"target\[1\] is {label}, beyond int32"):
            losses.cross_entropy(X[:2], [0, label])
    losses.cross_entropy(X[:2], np.array([0, -100]))
    jax.config.update("jax_enable_x64", True)
    with pytest.raises(ValueError, match=rf"target\[1\] is {2**40}, expected 0 <= label"):
        losses.cross_entropy(X[:2], np.array([0, 2**40]))
