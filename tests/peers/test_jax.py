"""JAX's activations, and optax's losses where it is installed, in float64."""

import numpy as np
import pytest
from helpers import random_labels, random_logits, random_probabilities

import xent

jax = pytest.importorskip("jax")
pytestmark = pytest.mark.peers

N, C = 13, 7
X = random_logits((N, C), np.float64)
LABELS = random_labels((N,), C)
PROBS = random_probabilities((N, C), np.float64)


@pytest.fixture(autouse=True)
def wide():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "sigmoid", "log_sigmoid"])
def test_activations(name):
    options = {"axis": -1} if name.endswith("softmax") or name == "logsumexp" else {}
    close(getattr(xent, name)(X, **options), getattr(jax.nn, name)(X, **options))


def test_second_order():
    """The Hessian-vector product is the forward derivative of the gradient."""
    vector = random_logits((N, C), np.float64, seed=1)

    def loss(z):
        return -jax.numpy.mean(jax.nn.log_softmax(z)[np.arange(N), LABELS])

    gradient, product = jax.jvp(jax.grad(loss), (X,), (vector,))
    close(xent.cross_entropy_grad(X, LABELS), gradient)
    close(xent.cross_entropy_hvp(X, LABELS, vector), product)


@pytest.mark.parametrize(
    "name, theirs, target",
    [
        ("cross_entropy", "softmax_cross_entropy_with_integer_labels", LABELS),
        ("cross_entropy", "softmax_cross_entropy", PROBS),
        ("sigmoid_cross_entropy", "sigmoid_binary_cross_entropy", PROBS),
    ],
)
def test_optax(name, theirs, target):
    call = getattr(pytest.importorskip("optax"), theirs)
    loss, grad = getattr(xent, f"{name}_value_and_grad")(X, target, reduction="none")
    close(loss, call(X, target))
    close(grad, jax.grad(lambda z: call(z, target).sum())(X))
