"""Time per element over the number of classes: a constant number of elements, which the caches hold."""

import numpy as np
import pytest

import xent

ELEMENTS = 2**18  # float32: 1 MiB, which the second level of two cores holds
CLASSES = [c * 10**power for power in range(5) for c in (1, 2, 5)][1:] + [100_000]


def calls(operator):
    """Return name -> call for each number of classes; the gradient's output is reused."""
    rng = np.random.default_rng(0)
    result = {}
    for classes in CLASSES:
        x = rng.standard_normal((ELEMENTS // classes, classes), dtype=np.float32)
        y = rng.integers(0, classes, len(x))
        options = {"out": np.zeros_like(x)} if operator == "cross_entropy_value_and_grad" else {}
        function = getattr(xent, operator)
        result[f"{classes} classes"] = lambda f=function, x=x, y=y, o=options: f(x, y, **o)
    return result


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("operator", ["cross_entropy", "cross_entropy_value_and_grad"])
def test_classes(compare, operator, classes):
    group, elements = f"classes {operator}", ELEMENTS // classes * classes
    name = f"{classes} classes"
    compare(group, name, lambda: calls(operator), operator=operator, classes=classes, elements=elements)
