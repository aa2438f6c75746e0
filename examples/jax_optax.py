"""
A small network with JAX and optax
==================================

A small network in JAX on two spirals, trained by optax with xent's loss and with optax's own.

::

    pip install ".[jax]" optax
    python examples/jax_optax.py

Fails if a loss of a step differs by more than 1e-4, or if the network does not learn.
"""

import argparse
import sys

import jax
import jax.numpy as jnp
import optax

import xent.jax

TOLERANCE = 1e-4  # of losses: those of one network after the same steps in float32


def spirals(key, count):
    """Points of two spirals, and which of them each is of."""
    angle, noise = jax.random.split(key)
    labels = jnp.arange(count) % 2
    t = jax.random.uniform(angle, (count,), minval=0.5, maxval=3.0) * jnp.pi
    points = (t * jnp.stack([jnp.cos(t), jnp.sin(t)])).T * (2 * labels - 1)[:, None] / 3
    return points + 0.1 * jax.random.normal(noise, points.shape), labels


def network(params, x):
    for weight, bias in params[:-1]:
        x = jnp.tanh(x @ weight + bias)
    weight, bias = params[-1]
    return x @ weight + bias


def start(key, sizes):
    keys = jax.random.split(key, len(sizes) - 1)
    pairs = zip(keys, sizes, sizes[1:], strict=False)
    return [(jax.random.normal(k, (m, n)) / jnp.sqrt(m), jnp.zeros(n)) for k, m, n in pairs]


def train(loss_of, data, steps):
    """Losses of all steps and the last parameters: one compiled program."""
    x, labels = data
    optimizer = optax.adam(0.02)
    params = start(jax.random.key(1), [2, 32, 32, 2])

    def step(state, _):
        params, memory = state
        loss, grads = jax.value_and_grad(lambda p: loss_of(network(p, x), labels))(params)
        updates, memory = optimizer.update(grads, memory)
        return (optax.apply_updates(params, updates), memory), loss

    run = jax.jit(lambda state: jax.lax.scan(step, state, length=steps))
    (params, _), losses = run((params, optimizer.init(params)))
    return losses, params


def main():
    parser = argparse.ArgumentParser(description="optax with a loss of xent and with its own.")
    parser.add_argument("--steps", type=int, default=100, help="(default 100)")
    args = parser.parse_args()
    data = spirals(jax.random.key(0), 400)

    def theirs(logits, labels):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    losses, params = train(xent.jax.cross_entropy, data, args.steps)
    expected, _ = train(theirs, data, args.steps)
    difference = float(jnp.abs(losses - expected).max())
    accuracy = float((network(params, data[0]).argmax(axis=1) == data[1]).mean())
    print(f"loss {losses[0]:.4f} -> {losses[-1]:.4f}, accuracy {accuracy:.3f}")
    print(f"largest difference of a loss from optax's: {difference:.1e}")
    return 0 if difference <= TOLERANCE and losses[-1] < losses[0] else 1


if __name__ == "__main__":
    sys.exit(main())
