"""What this machine can do without xent: bandwidth, exponentials and products of matrices.

The kernels are those of NumPy, run on as many threads as xent has, of PyTorch and JAX where installed; the
fastest of each kind counts as the machine's limit. There is no compiled probe of our own, which would be one
more thing to trust: tried once, a loop of AVX2 loads and additions under OpenMP came out within a tenth of
torch.sum.
"""

from pathlib import Path

import numpy as np
from parts import in_parts  # and its settings
from peers.libraries import jax, torch

# Where the cache sizes cannot be read: larger than the last level of every desktop processor.
ASSUMED_CACHE = 64 * 2**20
TIMES_THE_CACHE = 8  # so that at most an eighth of an array is found in the cache
CACHED_ELEMENTS = 2**18  # float32: 1 MiB, which the second level of two cores holds

# Square matrices: three of 4 MiB. From 512 to 2048 the rates of NumPy's BLAS were within 2 % of each other.
PRODUCT_SIZE = 1024


def last_level_cache():
    """Return the bytes of the largest cache that processor 0 has."""
    files = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    sizes = [text[:-1].isdigit() and int(text[:-1]) * units[text[-1]] for text in map(_read, files)]
    return max(sizes, default=0) or ASSUMED_CACHE


def _read(path):
    return path.read_text().strip()


def large_shape(classes=32000):
    """Return a shape of float32 logits that is far larger than the caches."""
    return (TIMES_THE_CACHE * last_level_cache() // (4 * classes), classes)


def reads(x):
    """Return name -> call that reads x once."""
    calls = {"numpy max": in_parts(np.max, x)}
    if torch:
        tensor = torch.from_numpy(x)
        calls["torch sum"] = lambda: torch.sum(tensor)
    return calls


def copies(x, out):
    """Return name -> call that reads x and writes out once."""
    calls = {"numpy copyto": in_parts(np.copyto, out, x)}
    if torch:
        tensor, target = torch.from_numpy(x), torch.from_numpy(out)
        calls["torch copy"] = lambda: target.copy_(tensor)
    return calls


def exponentials(x, out):
    """Return name -> call that takes the exponential of x, which the caches hold."""
    calls = {"numpy exp": in_parts(np.exp, x, out)}
    if torch:
        tensor, target = torch.from_numpy(x), torch.from_numpy(out)
        calls["torch exp"] = lambda: torch.exp(tensor, out=target)
    if jax:
        exp, device = jax.jit(jax.numpy.exp), jax.numpy.asarray(x)
        calls["jax exp"] = lambda: exp(device).block_until_ready()
    return calls


def product_flops():
    """Return the operations of one product: a multiplication and an addition count as two."""
    return 2 * PRODUCT_SIZE**3


def _product_operands():
    return np.random.default_rng(0).standard_normal((3, PRODUCT_SIZE, PRODUCT_SIZE), dtype=np.float32)


def numpy_product():
    """Return a call that multiplies square float32 matrices."""
    a, b, out = _product_operands()
    return lambda: np.matmul(a, b, out=out)


def torch_product():
    """Return a call that does the same in PyTorch."""
    a, b, out = map(torch.from_numpy, _product_operands())
    return lambda: torch.mm(a, b, out=out)
