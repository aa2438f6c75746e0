"""The implementations of convolution and pooling that xent is measured against."""

from libraries import torch

import xent
import xent.reference

NAMES = ["xent", "reference", "torch"]


def conv2d(x, weight, **options):
    """Return name -> call of the convolution forward."""
    calls = {
        "xent": lambda: xent.conv2d(x, weight, **options),
        "reference": lambda: xent.reference.conv2d(x, weight, **options),
    }
    if torch:
        tensor, kernels = torch.from_numpy(x), torch.from_numpy(weight)
        calls["torch"] = lambda: torch.nn.functional.conv2d(tensor, kernels, **options)
    return calls


def max_pool2d(x, kernel_size, **options):
    """Return name -> call of max pooling forward."""
    calls = {
        "xent": lambda: xent.max_pool2d(x, kernel_size, **options),
        "reference": lambda: xent.reference.max_pool2d(x, kernel_size, **options),
    }
    if torch:
        tensor = torch.from_numpy(x)
        calls["torch"] = lambda: torch.nn.functional.max_pool2d(tensor, kernel_size, **options)
    return calls
