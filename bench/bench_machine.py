"""xent against the machine: logits far larger than the caches, in turns with plain reads and copies."""

import machine
import numpy as np
import pytest

import xent

READS = ["numpy max", "torch sum", "xent cross_entropy"]
COPIES = ["numpy copyto", "torch copy", "xent cross_entropy_value_and_grad", "xent in place"]
EXPONENTIALS = ["numpy exp", "torch exp", "jax exp"]


def large_logits():
    shape = machine.large_shape()
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape, dtype=np.float32), rng.integers(0, shape[1], shape[0])


def read_calls():
    x, y = large_logits()
    return {**machine.reads(x), "xent cross_entropy": lambda: xent.cross_entropy(x, y)}


def copy_calls():
    """In place, each call takes the gradient of the last one's gradient: the same work on finite numbers."""
    x, y = large_logits()
    out, logits = np.zeros_like(x), x.copy()
    return {
        **machine.copies(x, out),
        "xent cross_entropy_value_and_grad": lambda: xent.cross_entropy_value_and_grad(x, y, out=out),
        "xent in place": lambda: xent.cross_entropy_value_and_grad(logits, y, out=logits),
    }


def exp_calls():
    x = np.random.default_rng(0).standard_normal(machine.CACHED_ELEMENTS, dtype=np.float32)
    return machine.exponentials(x, np.zeros_like(x))


def large_bytes():
    rows, classes = machine.large_shape()
    return 4 * rows * classes


@pytest.mark.parametrize("name", READS)
def test_read(compare, name):
    compare("machine read", name, read_calls, bytes=large_bytes())


@pytest.mark.parametrize("name", COPIES)
def test_copy(compare, name):
    compare("machine copy", name, copy_calls, bytes=2 * large_bytes())


@pytest.mark.parametrize("name", EXPONENTIALS)
def test_exp(compare, name):
    compare("machine exp", name, exp_calls, elements=machine.CACHED_ELEMENTS)
