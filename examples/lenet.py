"""
A network of LeNet's size
=========================

Train a network of LeNet-5's size on 28 x 28 digits, or time its training step beside PyTorch's.

::

    pip install ".[demo]"
    python examples/lenet.py
    python examples/lenet.py --compare      # PyTorch, if installed, takes turns

The digits are scikit-learn's, each of their 8 x 8 pixels made 3 x 3 and a frame of zeros put around. The
comparison takes a synthetic batch of the same shape.
"""

# Before NumPy, whose threads it sets up.
from convnet import Conv, Dense, Network, enlarged_digits, main, split

# isort: split
import numpy as np


def lenet():
    """(N, 1, 28, 28) -> (N, 6, 14, 14) -> (N, 16, 5, 5) -> 120 -> 84 -> 10."""
    return Network(
        Conv(1, 6, kernel=5, padding=2, pool=2),
        Conv(6, 16, kernel=5, pool=2),
        Dense(16 * 5 * 5, 120, relu=True),
        Dense(120, 84, relu=True),
        Dense(84, 10),
    )


def digits():
    """Images (N, 1, 28, 28) and labels, split for training and test."""
    images, labels = enlarged_digits(3)
    return split(np.pad(images, ((0, 0), (2, 2), (2, 2)))[:, None], labels)


if __name__ == "__main__":
    main("LeNet-5 on digits, with xent.", lenet(), (1, 28, 28), digits, steps=300, rate=0.05)
