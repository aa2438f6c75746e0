"""Each line of docs/coming_from.md about PyTorch, JAX, optax and Keras is true."""

import os
import warnings

import pytest
from coming_from import check, inputs, lines

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("line", lines("PyTorch"), ids=" = ".join)
def test_torch(line):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "reduction: 'mean' divides", UserWarning)  # of kl_div
        check(line, {"torch": torch, "F": torch.nn.functional, **inputs(torch.tensor)})


@pytest.mark.parametrize("line", lines("JAX and optax"), ids=" = ".join)
def test_jax(line):
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax") if "optax" in line[0] else None
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    try:
        check(line, {"jax": jax, "optax": optax, **inputs(jax.numpy.asarray)})
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("line", lines("Keras"), ids=" = ".join)
def test_keras(line):
    os.environ.setdefault("KERAS_BACKEND", "numpy")
    losses = pytest.importorskip("keras").losses
    check(line, {"losses": losses, **inputs()}, rtol=1e-5)  # Keras computes in float32
