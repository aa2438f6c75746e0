"""The implementations that xent is measured against, each at its best, on the same number of threads.

`softmax_family(x, y)` and so on return name -> callable. A peer that is not installed is listed in MISSING.
"""

import importlib

import numpy as np

import xent
import xent.reference

MISSING = {}


def _try(module):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        MISSING[module] = str(error)
        return None


torch = _try("torch")
special = _try("scipy.special")
if torch:
    torch.set_num_threads(xent.get_num_threads())


def _numpy_softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    e /= e.sum(axis=-1, keepdims=True)
    return e


def _numpy_value_and_grad(x, y):
    rows = np.arange(len(x))
    p = _numpy_softmax(x)
    loss = -np.log(p[rows, y]).mean()
    p[rows, y] -= 1
    p /= len(x)
    return loss, p


def softmax(x):
    """Softmax over the last axis."""
    out = np.empty_like(x)
    candidates = {"xent": lambda: xent.softmax(x, out=out), "numpy": lambda: _numpy_softmax(x)}
    if special:
        candidates["scipy"] = lambda: special.softmax(x, axis=-1)
    if torch:
        tensor = torch.from_numpy(x)
        target = torch.empty_like(tensor)
        candidates["torch"] = lambda: torch.softmax(tensor, -1, out=target)
    return candidates


def cross_entropy(x, y):
    """Mean cross-entropy of labels."""
    candidates = {"xent": lambda: xent.cross_entropy(x, y)}
    if special:
        rows = np.arange(len(x))
        candidates["scipy"] = lambda: -special.log_softmax(x, axis=-1)[rows, y].mean()
    if torch:
        tensor, labels = torch.from_numpy(x), torch.from_numpy(y)
        candidates["torch"] = lambda: torch.nn.functional.cross_entropy(tensor, labels)
    return candidates


def cross_entropy_value_and_grad(x, y):
    """The same with its gradient."""
    candidates = {
        "xent": lambda: xent.cross_entropy_value_and_grad(x, y),
        "numpy": lambda: _numpy_value_and_grad(x, y),
    }
    if torch:
        tensor, labels = torch.from_numpy(x).requires_grad_(), torch.from_numpy(y)

        def torch_value_and_grad():
            loss = torch.nn.functional.cross_entropy(tensor, labels)
            return loss, torch.autograd.grad(loss, tensor)[0]

        candidates["torch"] = torch_value_and_grad
    return candidates


def conv2d(x, weight, **options):
    """Convolution forward."""
    candidates = {
        "xent": lambda: xent.conv2d(x, weight, **options),
        "reference": lambda: xent.reference.conv2d(x, weight, **options),
    }
    if torch:
        tensor, kernels = torch.from_numpy(x), torch.from_numpy(weight)
        candidates["torch"] = lambda: torch.nn.functional.conv2d(tensor, kernels, **options)
    return candidates


def max_pool2d(x, kernel_size, **options):
    """Max pooling forward."""
    candidates = {
        "xent": lambda: xent.max_pool2d(x, kernel_size, **options),
        "reference": lambda: xent.reference.max_pool2d(x, kernel_size, **options),
    }
    if torch:
        tensor = torch.from_numpy(x)
        candidates["torch"] = lambda: torch.nn.functional.max_pool2d(tensor, kernel_size, **options)
    return candidates
