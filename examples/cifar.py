"""
Colour images of CIFAR's size
=============================

Train a small network on 32 x 32 colour images, or time its training step beside PyTorch's.

::

    pip install ".[demo]"
    python examples/cifar.py
    python examples/cifar.py --compare      # PyTorch, if installed, takes turns

The images have the shape and the ten classes of CIFAR-10, and need no download: scikit-learn's 8 x 8 digits
enlarged four times, each drawn in one random colour on another. Only the digit counts, so the network has to
find shapes whatever their colours are. The comparison takes a synthetic batch of the same shape.
"""

# Before NumPy, whose threads it sets up.
from convnet import SEED, Conv, Dense, Network, enlarged_digits, main, split

# isort: split
import numpy as np


def network():
    """(N, 3, 32, 32) -> (N, 32, 32, 32) -> (N, 32, 16, 16) -> (N, 64, 8, 8) -> 10."""
    return Network(
        Conv(3, 32, kernel=3, padding=1),
        Conv(32, 32, kernel=3, padding=1, pool=2),
        Conv(32, 64, kernel=3, padding=1, pool=2),
        Dense(64 * 8 * 8, 10),
    )


def coloured_digits():
    """Images (N, 3, 32, 32), centred around 0, and labels, split for training and test."""
    shades, labels = enlarged_digits(4)
    shades = shades[:, None]
    ink, paper = np.random.default_rng(SEED).random((2, len(shades), 3, 1, 1), dtype=np.float32)
    return split(shades * ink + (1 - shades) * paper - 0.5, labels)


if __name__ == "__main__":
    main("CIFAR's size, with xent.", network(), (3, 32, 32), coloured_digits, steps=300, rate=0.05)
