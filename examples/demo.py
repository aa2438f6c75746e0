"""
Handwritten digits
==================

Train a small convolutional network on handwritten digits, every layer computed by xent.

::

    pip install ".[demo]"
    python examples/demo.py

Convolutions with their ReLU, max-pooling, the softmax cross-entropy and the backward pass of each are xent's;
the matrix product of the last layer and the weight update are NumPy's. There is no framework and no automatic
differentiation: what a training step does can be read in `DigitNet`, line by line.

The network takes the module of its layers as a parameter. `xent` and `xent.reference` (the literal formulas
in plain float64 NumPy) have the same functions, so the same code runs with both; the table at the end says
how long a training step takes with each.

Writes demo.png (the figure) and demo.json (the numbers); fails if the test accuracy is under 98 %.
"""

import argparse
import itertools
import json
import math
import platform
import statistics
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import sklearn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import xent
import xent.reference

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt  # noqa: E402  (the backend is chosen first)
from matplotlib.ticker import PercentFormatter  # noqa: E402

CLASSES = 10
CHANNELS = (32, 64)
BATCH = 32
LEARNING_RATE = 0.05
MOMENTUM = 0.9
REQUIRED_ACCURACY = 0.98
TIMED_STEPS = 25


# ---- data --------------------------------------------------------------------------------------------------


def load_data(seed):
    """Training images, test images, training labels and test labels from scikit-learn's 1,797 digits.

    Images are (N, 1, 8, 8) float32 in [0, 1]. A quarter of each class is kept for the test.
    """
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=seed)


def shift_some(images, rng):
    """Augmentation: move about half of the images by up to one pixel each way; zeros come in at the rim.

    Only half, because the digits fill their 8 x 8 pixels and a shift cuts some of the stroke off.
    """
    n, _, height, width = images.shape
    shifted = rng.random(n) < 0.5
    top, left = 1 + shifted * rng.integers(-1, 2, size=(2, n))
    rows = top[:, None, None] + np.arange(height)[:, None]
    columns = left[:, None, None] + np.arange(width)
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return padded[np.arange(n)[:, None, None], 0, rows, columns][:, None]


def batches(images, labels, rng):
    """One epoch: the training set in random order, BATCH images at a time, what is left over dropped."""
    order = rng.permutation(len(images))
    for start in range(0, len(images) - BATCH + 1, BATCH):
        chosen = order[start : start + BATCH]
        yield shift_some(images[chosen], rng), labels[chosen]


# ---- network -----------------------------------------------------------------------------------------------


def he_normal(rng, *shape):
    """Normal weights of variance 2 / fan-in, which keeps the activations' scale through ReLU layers."""
    return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


class DigitNet:
    """conv 3x3 - ReLU - pool 2x2 - conv 3x3 - ReLU - pool 2x2 - linear, on 8 x 8 images.

    `ops` is the module that computes the layers: `xent` or `xent.reference`.
    """

    def __init__(self, ops, seed):
        rng = np.random.default_rng(seed)
        first, second = CHANNELS
        self.ops = ops
        self.params = {
            "conv1.weight": he_normal(rng, first, 1, 3, 3),
            "conv1.bias": np.zeros(first, np.float32),
            "conv2.weight": he_normal(rng, second, first, 3, 3),
            "conv2.bias": np.zeros(second, np.float32),
            "linear.weight": he_normal(rng, CLASSES, second * 2 * 2),
            "linear.bias": np.zeros(CLASSES, np.float32),
        }

    def forward(self, images):
        """The logits (N, 10), and the activations that the backward pass needs."""
        ops, p = self.ops, self.params
        # (N, 1, 8, 8) -> (N, 32, 8, 8) -> (N, 32, 4, 4)
        relu1 = ops.conv2d(images, p["conv1.weight"], p["conv1.bias"], padding=1, activation="relu")
        pool1 = ops.max_pool2d(relu1, 2)
        # (N, 32, 4, 4) -> (N, 64, 4, 4) -> (N, 64, 2, 2)
        relu2 = ops.conv2d(pool1, p["conv2.weight"], p["conv2.bias"], padding=1, activation="relu")
        pool2 = ops.max_pool2d(relu2, 2)
        # (N, 256) -> (N, 10)
        logits = pool2.reshape(len(images), -1) @ p["linear.weight"].T + p["linear.bias"]
        return logits, (images, relu1, pool1, relu2, pool2)

    def backward(self, grad, activations):
        """The gradient of every parameter, from `grad`, the loss's gradient with respect to the logits.

        The layers in reverse, each turning the gradient of its output into that of its input. ReLU lets the
        gradient through where its output was positive.
        """
        ops, p = self.ops, self.params
        images, relu1, pool1, relu2, pool2 = activations
        grads = {}

        grads["linear.weight"] = grad.T @ pool2.reshape(len(images), -1)
        grads["linear.bias"] = grad.sum(axis=0)
        grad = (grad @ p["linear.weight"]).reshape(pool2.shape)

        grad = ops.max_pool2d_backward(grad, relu2, 2) * (relu2 > 0)
        grad, grads["conv2.weight"], grads["conv2.bias"] = ops.conv2d_backward(
            grad, pool1, p["conv2.weight"], padding=1
        )

        # The images themselves need no gradient: needs=(False, ...).
        grad = ops.max_pool2d_backward(grad, relu1, 2) * (relu1 > 0)
        _, grads["conv1.weight"], grads["conv1.bias"] = ops.conv2d_backward(
            grad, images, p["conv1.weight"], padding=1, needs=(False, True, True)
        )
        return grads

    def loss_and_grads(self, images, labels):
        """Mean cross-entropy of the batch in nats, and its gradient with respect to every parameter."""
        logits, activations = self.forward(images)
        loss, grad = self.ops.cross_entropy_value_and_grad(logits, labels)
        return loss, self.backward(grad, activations)

    def predict(self, images):
        """Class probabilities (N, 10)."""
        logits, _ = self.forward(images)
        return self.ops.softmax(logits)

    def evaluate(self, images, labels):
        """Mean cross-entropy and share of right answers."""
        logits, _ = self.forward(images)
        return float(self.ops.cross_entropy(logits, labels)), float(np.mean(logits.argmax(axis=1) == labels))


class SGD:
    """Stochastic gradient descent with momentum: v = MOMENTUM v + g, then p = p - rate v, in place."""

    def __init__(self, params):
        self.params = params
        self.velocity = {name: np.zeros_like(value) for name, value in params.items()}

    def step(self, grads, rate):
        for name, velocity in self.velocity.items():
            velocity *= MOMENTUM
            velocity += grads[name]
            self.params[name] -= rate * velocity


# ---- training ----------------------------------------------------------------------------------------------


def cosine_rate(progress):
    """Learning rate, from LEARNING_RATE at progress 0 down to 0 at progress 1 along half a cosine."""
    return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * progress))


def train(net, data, epochs, seed):
    """Train `net` in place; return the losses and accuracies after each epoch."""
    x_train, x_test, y_train, y_test = data
    rng = np.random.default_rng(seed)
    optimizer = SGD(net.params)
    history = {"train loss": [], "test loss": [], "train accuracy": [], "test accuracy": []}
    total = epochs * (len(x_train) // BATCH)
    # In a log file every refresh of the bar is text that stays: refresh it rarely there.
    interval = 0.1 if sys.stderr.isatty() else 5.0

    with tqdm(total=total, desc="training", unit="step", mininterval=interval) as bar:
        for _ in range(epochs):
            for images, labels in batches(x_train, y_train, rng):
                _, grads = net.loss_and_grads(images, labels)
                optimizer.step(grads, cosine_rate(bar.n / total))
                bar.update()
            for part, images, labels in (("train", x_train, y_train), ("test", x_test, y_test)):
                loss, accuracy = net.evaluate(images, labels)
                history[f"{part} loss"].append(loss)
                history[f"{part} accuracy"].append(accuracy)
            train_loss, test_accuracy = history["train loss"][-1], history["test accuracy"][-1]
            bar.set_postfix_str(f"loss {train_loss:.4f}, test accuracy {test_accuracy:.4f}", refresh=False)
    return history


def time_steps(data, seed):
    """Median milliseconds of a training step with xent and with xent.reference.

    Two networks start from the same weights and see the same batches, taking turns, so that whatever else the
    machine does meets both alike. The first step of each warms up and is not counted.
    """
    x_train, _, y_train, _ = data
    runs = {}
    for ops in (xent, xent.reference):
        net = DigitNet(ops, seed)
        runs[ops.__name__] = (net, SGD(net.params), [])

    epoch = batches(x_train, y_train, np.random.default_rng(seed))
    for images, labels in itertools.islice(epoch, 1 + TIMED_STEPS):
        for net, optimizer, seconds in runs.values():
            start = time.perf_counter()
            _, grads = net.loss_and_grads(images, labels)
            optimizer.step(grads, LEARNING_RATE)
            seconds.append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(seconds[1:]) for name, (_, _, seconds) in runs.items()}


# ---- results -----------------------------------------------------------------------------------------------

BLUE, ORANGE, GREY = "#1f6fb4", "#e07b26", "#c4c8cd"


def plot_history(axes, history):
    """Loss and accuracy against the epoch, training and test set in one panel each."""
    for ax, quantity in zip(axes, ("loss", "accuracy"), strict=True):
        for part, color in (("train", BLUE), ("test", ORANGE)):
            values = history[f"{part} {quantity}"]
            ax.plot(range(1, len(values) + 1), values, color=color, marker="o", markersize=3, label=part)
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(color="#e6e6e6")
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, loc="best")
    axes[0].set(title="Loss", ylabel="cross-entropy (nats)", yscale="log")
    axes[1].set(title=f"Accuracy, {history['test accuracy'][-1]:.2%} on the test set at the end")
    axes[1].yaxis.set_major_formatter(PercentFormatter(xmax=1))


def plot_predictions(axes, images, labels, probs):
    """A row of digits over a row of bars, one bar per class: blue the true class, orange a wrong guess."""
    for digit, bars, image, label, p in zip(*axes, images, labels, probs, strict=True):
        digit.imshow(image[0], cmap="gray_r", vmin=0, vmax=1)
        digit.set_xticks([])
        digit.set_yticks([])
        guess = p.argmax()
        color = BLUE if guess == label else ORANGE
        digit.set_title(f"{guess} ({p[guess]:.0%})", fontsize=10, color=color)
        colors = [GREY] * CLASSES
        colors[guess], colors[label] = ORANGE, BLUE
        bars.bar(range(CLASSES), p, color=colors, width=0.8)
        bars.set(ylim=(0, 1), yticks=[], xticks=range(CLASSES))
        bars.tick_params(length=0, labelsize=7)
        bars.spines[["top", "right", "left"]].set_visible(False)


def plot_filters(axes, filters):
    """The (O, 1, 3, 3) filters of the first layer on one symmetric scale: red positive, blue negative."""
    limit = np.abs(filters).max()
    for ax, kernel in zip(axes.flat, filters[:, 0], strict=True):
        ax.imshow(kernel, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.set_xticks([])
        ax.set_yticks([])


def save_figure(path, net, history, data):
    """The figure: learning curves, eight test digits with their probabilities, the first layer's filters."""
    _, x_test, _, y_test = data
    probs = net.predict(x_test)
    hardest = np.argsort(probs[np.arange(len(y_test)), y_test])[:4]
    shown = np.concatenate([np.arange(4), hardest])

    figure = plt.figure(figsize=(10, 8), layout="constrained", dpi=120)
    curves, digits, filters = figure.subfigures(3, 1, height_ratios=[3.2, 3.1, 1.8], hspace=0.04)
    plot_history(curves.subplots(1, 2), history)
    digits.suptitle(
        "Test digits and predicted probabilities: the first four, then the four hardest\n"
        "(blue: the true class, orange: a wrong guess)"
    )
    axes = digits.subplots(2, 8, height_ratios=[1.8, 1])
    plot_predictions(axes, x_test[shown], y_test[shown], probs[shown])
    filters.suptitle("Filters of the first convolution (red: positive, blue: negative)")
    plot_filters(filters.subplots(2, CHANNELS[0] // 2), net.params["conv1.weight"])
    figure.savefig(path)


def print_table(step_ms, ratio):
    """The one table: time of a training step with each module."""
    print(f"{'training step':<24}{'ms':>10}")
    for name, ms in step_ms.items():
        print(f"{name:<24}{ms:>10.3f}")
    print(f"{'ratio':<24}{ratio:>10.1f}")


def parse_args():
    parser = argparse.ArgumentParser(description="Train a small CNN on handwritten digits with xent.")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the training set (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of split, weights and order (default 0)")
    parser.add_argument("--out-dir", type=Path, default=Path(), help="for demo.png and demo.json (default .)")
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f"--epochs is {args.epochs}, expected at least 1")
    return args


def main():
    args = parse_args()
    args.out_dir.mkdir(parents=True, exist_ok=True)
    data = load_data(args.seed)

    net = DigitNet(xent, args.seed)
    start = time.perf_counter()
    history = train(net, data, args.epochs, args.seed)
    seconds = time.perf_counter() - start
    accuracy = history["test accuracy"][-1]

    step_ms = time_steps(data, args.seed)
    ratio = step_ms["xent.reference"] / step_ms["xent"]
    results = {
        "test_accuracy": round(accuracy, 4),
        "epochs": args.epochs,
        "training_seconds": round(seconds, 2),
        "step_ms": {name: round(ms, 4) for name, ms in step_ms.items()},
        "ratio": round(ratio, 2),
        "batch": BATCH,
        "seed": args.seed,
        "versions": {
            "xent": xent.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "scikit-learn": sklearn.__version__,
            "matplotlib": matplotlib.__version__,
        },
    }
    (args.out_dir / "demo.json").write_text(json.dumps(results, indent=2) + "\n")
    save_figure(args.out_dir / "demo.png", net, history, data)

    print(f"test accuracy {accuracy:.4f} after {args.epochs} epochs in {seconds:.1f} s\n")
    print_table(step_ms, ratio)
    return 0 if accuracy >= REQUIRED_ACCURACY else 1


if __name__ == "__main__" and main():
    sys.exit(1)
