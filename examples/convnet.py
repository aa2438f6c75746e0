"""
Layers for the networks
=======================

What lenet.py and cifar.py share: layers of xent and NumPy, training, and the comparison with PyTorch.

Convolution with its ReLU, max-pooling, the loss and the backward pass of each are xent's; the dense layers
are NumPy's matrix products. Every backward pass can be read here, and every update.
"""

import argparse
import os
import statistics
import time

# Two pools of threads would share the processors: OpenMP's in xent and OpenBLAS's in NumPy's matrix products,
# whose threads spin for milliseconds after each and slow down the convolution that follows; on a busy machine
# a step took ten times as long. The dense layers are small: one thread is enough for them. OpenMP's threads
# sleep when they have nothing to do. The libraries read this when they are loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import xent

BATCH = 64
CLASSES = 10
MOMENTUM = 0.9
SEED = 0
REST_SECONDS = 0.002  # before each timed step, for the threads of the last to fall asleep


# ---- data --------------------------------------------------------------------------------------------------


def enlarged_digits(scale):
    """Scikit-learn's 1,797 digits as (N, 8 scale, 8 scale) float32 in [0, 1], and their labels."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 8, 8)
    return images.repeat(scale, axis=1).repeat(scale, axis=2), labels


def split(images, labels):
    """Training images, test images, training labels, test labels; a quarter of each class for the test."""
    return train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=SEED)


# ---- layers ------------------------------------------------------------------------------------------------


def he_normal(rng, *shape):
    """Normal weights of variance 2 / fan-in, which keeps the activations' scale through ReLU layers."""
    return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)


class Layer:
    """A weight, a bias, and their update: v = MOMENTUM v + grad, then p = p - rate v, in place."""

    def __init__(self, *shape):
        self.shape = shape

    def start(self, rng):
        self.weight, self.bias = he_normal(rng, *self.shape), np.zeros(self.shape[0], np.float32)
        self.velocity = [np.zeros_like(self.weight), np.zeros_like(self.bias)]

    def update(self, rate):
        for p, v, grad in zip((self.weight, self.bias), self.velocity, self.grads, strict=True):
            v *= MOMENTUM
            v += grad
            p -= rate * v


class Conv(Layer):
    """Convolution and ReLU, then max-pooling over squares of `pool` where that is more than 1."""

    def __init__(self, inputs, outputs, kernel, padding=0, pool=1):
        super().__init__(outputs, inputs, kernel, kernel)
        self.padding, self.pool = padding, pool

    def forward(self, x):
        self.x = x
        self.relu = xent.conv2d(x, self.weight, self.bias, padding=self.padding, activation="relu")
        self.y = xent.max_pool2d(self.relu, self.pool) if self.pool > 1 else self.relu
        return self.y

    def backward(self, grad, first):
        """Set the parameters' gradients; return that of the input, which the first layer does not need.

        ReLU lets the gradient through where its output was positive. What pooling chose is positive exactly
        where the pooled value is: the gradient is cut on the smaller side of the pooling.
        """
        grad = grad * (self.y > 0)
        if self.pool > 1:
            grad = xent.max_pool2d_backward(grad, self.relu, self.pool)
        grad_x, *self.grads = xent.conv2d_backward(
            grad, self.x, self.weight, padding=self.padding, needs=(not first, True, True)
        )
        return grad_x


class Dense(Layer):
    """y = x weight^T + bias for flattened x, and ReLU where it is not the last layer."""

    def __init__(self, inputs, outputs, relu=False):
        super().__init__(outputs, inputs)
        self.relu = relu

    def forward(self, x):
        self.input_shape, self.x = x.shape, x.reshape(len(x), -1)
        self.y = self.x @ self.weight.T
        self.y += self.bias
        return np.maximum(self.y, 0, out=self.y) if self.relu else self.y

    def backward(self, grad, first):
        grad = grad * (self.y > 0) if self.relu else grad
        self.grads = grad.T @ self.x, grad.sum(axis=0)
        return None if first else (grad @ self.weight).reshape(self.input_shape)


class Network:
    """Layers in a row, and softmax cross-entropy."""

    def __init__(self, *layers):
        self.layers = layers
        rng = np.random.default_rng(SEED)
        for layer in layers:
            layer.start(rng)

    def logits(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def step(self, images, labels, rate):
        """One step of gradient descent; return the mean loss of the batch before it."""
        loss, grad = xent.cross_entropy_value_and_grad(self.logits(images), labels)
        for layer in reversed(self.layers):
            grad = layer.backward(grad, first=layer is self.layers[0])
            layer.update(rate)
        return loss


# ---- training ----------------------------------------------------------------------------------------------


def train(net, data, steps, rate):
    """Train on random batches, the rate falling to 0; print the loss now and then, and the accuracy."""
    x_train, x_test, y_train, y_test = data
    rng = np.random.default_rng(SEED)
    for step in range(steps):
        chosen = rng.choice(len(x_train), BATCH, replace=False)
        loss = net.step(x_train[chosen], y_train[chosen], rate * (1 - step / steps))
        if (step + 1) % 50 == 0 or step + 1 == steps:
            print(f"step {step + 1}: training loss {loss:.4f}")
    accuracy = np.mean(net.logits(x_test).argmax(axis=1) == y_test)
    print(f"test accuracy {accuracy:.4f}")


# ---- comparison --------------------------------------------------------------------------------------------


def torch_step(torch, net, rate):
    """Return a training step of the same network, from the same weights, in PyTorch."""
    nn, modules = torch.nn, []
    for layer in net.layers:
        if isinstance(layer, Conv):
            outputs, inputs, kernel, _ = layer.shape
            modules += [nn.Conv2d(inputs, outputs, kernel, padding=layer.padding), nn.ReLU()]
            modules += [nn.MaxPool2d(layer.pool)] if layer.pool > 1 else []
        else:
            modules += [nn.Flatten(), nn.Linear(*layer.shape[::-1])] + ([nn.ReLU()] if layer.relu else [])
    model = nn.Sequential(*modules)
    with torch.no_grad():
        for target, value in zip(
            model.parameters(), (p for layer in net.layers for p in (layer.weight, layer.bias)), strict=True
        ):
            target.copy_(torch.from_numpy(value))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM, fused=True)

    def step(images, labels):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def in_turns(calls, rounds):
    """Return name -> milliseconds of each round; before a timed call, a rest and an untimed one."""
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(REST_SECONDS)
            call()
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def compare(net, image_shape, rate, rounds):
    """Print how long a training step on a synthetic batch takes with xent, and with PyTorch if there."""
    rng = np.random.default_rng(SEED)
    images = rng.standard_normal((BATCH, *image_shape), dtype=np.float32)
    labels = rng.integers(0, CLASSES, BATCH)
    calls = {"xent": lambda: net.step(images, labels, rate)}
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: xent alone")
    else:
        torch.set_num_threads(xent.get_num_threads())
        step, tensors = torch_step(torch, net, rate), (torch.from_numpy(images), torch.from_numpy(labels))
        calls["torch"] = lambda: step(*tensors)

    losses = {name: [call() for _ in range(3)] for name, call in calls.items()}
    for name in losses:  # the same network and the same steps, or the times would not compare
        np.testing.assert_allclose(losses[name], losses["xent"], rtol=1e-3)
    times = in_turns(calls, rounds)
    best, typical = ({name: f(t) for name, t in times.items()} for f in (min, statistics.median))
    print(f"a training step of {BATCH} on {xent.get_num_threads()} threads, minimum / median of {rounds}:")
    for name in calls:
        print(f"{name:<8}{best[name]:8.2f} / {typical[name]:.2f} ms")
    if "torch" in calls:
        by_best, by_typical = (times["torch"] / times["xent"] for times in (best, typical))
        print(f"{'ratio':<8}{by_best:8.2f} / {by_typical:.2f}")


def main(description, net, image_shape, data, *, steps, rate):
    """Train the network, or compare it: what both examples do with their command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=steps, help=f"batches to train on (default {steps})")
    parser.add_argument("--compare", action="store_true", help="time a step beside PyTorch's instead")
    parser.add_argument("--rounds", type=int, default=100, help="of --compare (default 100)")
    args = parser.parse_args()
    if args.compare:
        # A small rate: the loss on random labels should stay finite for as long as the clock runs.
        compare(net, image_shape, 1e-3, args.rounds)
    else:
        train(net, data(), args.steps, rate)
