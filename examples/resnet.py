"""
ResNet-18
=========

A ResNet-18 for 32 x 32 images on xent's operators: training steps, and their time beside PyTorch's.

::

    pip install ".[demo]"
    python examples/resnet.py               # ten steps on coloured digits
    python examples/resnet.py --compare     # forward and training step; PyTorch, if installed, takes turns

The network is that of He et al., "Deep Residual Learning for Image Recognition", CVPR 2016,
doi:10.1109/CVPR.2016.90, with the stem that is usual for such small images: a 3x3 convolution and no pooling.
Convolutions, the mean over the last images and the loss are xent's; batch normalization is lines of NumPy,
whose backward pass can be read here.
"""

# Before NumPy, whose threads it sets up.
from convnet import BATCH, CLASSES, MOMENTUM, SEED, Dense, he_normal, in_turns

# isort: split
import argparse
import statistics

import numpy as np
from cifar import coloured_digits

import xent

STAGES = [(64, 1), (128, 2), (256, 2), (512, 2)]  # channels, and the stride of the first of two blocks
EPSILON = 1e-5  # added to variances, as PyTorch does
PIXELS = 4  # height and width of the last images


class Convolution:
    """A convolution without bias, batch normalization, and ReLU where asked for."""

    def __init__(self, rng, inputs, outputs, kernel, stride, relu):
        self.options = {"stride": stride, "padding": kernel // 2}
        self.weight = he_normal(rng, outputs, inputs, kernel, kernel)
        self.scale, self.shift = np.ones(outputs, np.float32), np.zeros(outputs, np.float32)
        self.relu = relu
        self.velocity = [np.zeros_like(p) for p in self.parameters]

    @property
    def parameters(self):
        return self.weight, self.scale, self.shift

    def forward(self, x):
        self.x = x
        y = xent.conv2d(x, self.weight, **self.options)
        self.count = y.size // y.shape[1]
        y -= y.mean(axis=(0, 2, 3), keepdims=True)
        variance = np.einsum("nchw,nchw->c", y, y) / self.count
        self.inverse = 1 / np.sqrt(variance + EPSILON)
        y *= self.inverse[:, None, None]
        self.normal = y
        y = y * self.scale[:, None, None]
        y += self.shift[:, None, None]
        self.y = np.maximum(y, 0, out=y) if self.relu else y
        return self.y

    def backward(self, grad, first=False):
        """Set the gradients of the parameters, and return that of the input.

        With z = (x - mean) / sigma over m numbers of a channel, and g the gradient of z, that of x is
        (g - mean(g) - z mean(g z)) / sigma.
        """
        if self.relu:
            grad = grad * (self.y > 0)
        of_shift = grad.sum(axis=(0, 2, 3))
        of_scale = np.einsum("nchw,nchw->c", grad, self.normal)
        inner = grad - (of_shift / self.count)[:, None, None]
        inner -= self.normal * (of_scale / self.count)[:, None, None]
        inner *= (self.scale * self.inverse)[:, None, None]
        needs = not first, True, False
        grad_x, of_weight, _ = xent.conv2d_backward(inner, self.x, self.weight, needs=needs, **self.options)
        self.grads = of_weight, of_scale, of_shift
        return grad_x

    def update(self, rate):
        for p, v, grad in zip(self.parameters, self.velocity, self.grads, strict=True):
            v *= MOMENTUM
            v += grad
            p -= rate * v


class Block:
    """Two convolutions beside a shortcut: the input itself, or a 1x1 convolution where the shape changes."""

    def __init__(self, rng, inputs, outputs, stride):
        self.path = [
            Convolution(rng, inputs, outputs, 3, stride, relu=True),
            Convolution(rng, outputs, outputs, 3, 1, relu=False),
        ]
        changes = stride > 1 or inputs != outputs
        self.shortcut = [Convolution(rng, inputs, outputs, 1, stride, relu=False)] if changes else []

    @property
    def convolutions(self):
        return self.path + self.shortcut

    def forward(self, x):
        y = self.path[1].forward(self.path[0].forward(x))
        for convolution in self.shortcut:
            x = convolution.forward(x)
        y += x
        self.y = np.maximum(y, 0, out=y)
        return self.y

    def backward(self, grad):
        grad = grad * (self.y > 0)
        grad_x = self.path[0].backward(self.path[1].backward(grad))
        for convolution in self.shortcut:
            grad = convolution.backward(grad)
        grad_x += grad
        return grad_x


class ResNet18:
    """(N, 3, 32, 32) -> a stem and four stages of two blocks, (N, 512, 4, 4) -> their mean -> 10."""

    def __init__(self):
        rng = np.random.default_rng(SEED)
        self.stem = Convolution(rng, 3, STAGES[0][0], 3, 1, relu=True)
        self.blocks, inputs = [], STAGES[0][0]
        for outputs, stride in STAGES:
            self.blocks += [Block(rng, inputs, outputs, stride), Block(rng, outputs, outputs, 1)]
            inputs = outputs
        self.dense = Dense(inputs, CLASSES)
        self.dense.start(rng)

    @property
    def convolutions(self):
        return [self.stem, *(c for block in self.blocks for c in block.convolutions)]

    def logits(self, x):
        x = self.stem.forward(x)
        for block in self.blocks:
            x = block.forward(x)
        self.last = x
        return self.dense.forward(xent.avg_pool2d(x, PIXELS))

    def step(self, images, labels, rate):
        """One step of gradient descent; return the mean loss of the batch before it."""
        loss, grad = xent.cross_entropy_value_and_grad(self.logits(images), labels)
        grad = xent.avg_pool2d_backward(self.dense.backward(grad, first=False), self.last, PIXELS)
        for block in reversed(self.blocks):
            grad = block.backward(grad)
        self.stem.backward(grad, first=True)
        for layer in [*self.convolutions, self.dense]:
            layer.update(rate)
        return loss


def torch_twin(torch, net):
    """The same network with the same weights in PyTorch, in training mode."""
    nn = torch.nn

    def convolution(of):
        outputs, inputs, kernel, _ = of.weight.shape
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, bias=False, **of.options), nn.BatchNorm2d(outputs, EPSILON)
        )

    class Twin(nn.Module):
        def __init__(self, block):
            super().__init__()
            self.path = nn.Sequential(convolution(block.path[0]), nn.ReLU(), convolution(block.path[1]))
            self.shortcut = nn.Sequential(*map(convolution, block.shortcut))

        def forward(self, x):
            return nn.functional.relu(self.path(x) + self.shortcut(x))

    blocks, mean = [Twin(block) for block in net.blocks], [nn.AvgPool2d(PIXELS), nn.Flatten()]
    dense = nn.Linear(*net.dense.shape[::-1])
    model = nn.Sequential(convolution(net.stem), nn.ReLU(), *blocks, *mean, dense)
    values = [p for convolution in net.convolutions for p in convolution.parameters]
    with torch.no_grad():
        for p, value in zip(model.parameters(), [*values, net.dense.weight, net.dense.bias], strict=True):
            p.copy_(torch.from_numpy(value))
    return model.train()


def compare(batch, rounds, steps, rate=1e-3):
    """Print how long a forward pass and a training step take with xent, and with PyTorch if there.

    Both go through `steps` steps first, whose losses must agree: the times are those of the same network.
    """
    net, rng = ResNet18(), np.random.default_rng(SEED)
    images = rng.standard_normal((batch, 3, 32, 32), dtype=np.float32)
    labels = rng.integers(0, CLASSES, batch)
    forward, step = {"xent": lambda: net.logits(images)}, {"xent": lambda: net.step(images, labels, rate)}
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: xent alone")
    else:
        torch.set_num_threads(xent.get_num_threads())
        model, x, y = torch_twin(torch, net), torch.from_numpy(images), torch.from_numpy(labels)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=MOMENTUM, fused=True)

        def torch_forward():
            with torch.no_grad():
                return model(x)

        def torch_step():
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            return loss.item()

        forward["torch"], step["torch"] = torch_forward, torch_step

    losses = {name: [call() for _ in range(steps)] for name, call in step.items()}
    for name, found in losses.items():
        np.testing.assert_allclose(found, losses["xent"], rtol=1e-4)
        print(f"{name}: losses of {steps} steps", *(f"{loss:.4f}" for loss in found))
    for what, calls in [("forward", forward), ("training step", step)]:
        times = in_turns(calls, rounds)
        print(f"{what}, {batch} images, {xent.get_num_threads()} threads, minimum / median of {rounds}:")
        for name, taken in times.items():
            print(f"{name:<8}{min(taken):8.1f} / {statistics.median(taken):.1f} ms")


def train(batch, steps, rate=0.02):
    """Print the losses of some steps on random batches."""
    net, rng = ResNet18(), np.random.default_rng(SEED)
    images, _, labels, _ = coloured_digits()
    for step in range(steps):
        chosen = rng.choice(len(images), batch, replace=False)
        print(f"step {step + 1}: training loss {net.step(images[chosen], labels[chosen], rate):.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A ResNet-18 for 32 x 32 images, with xent.")
    parser.add_argument("--steps", type=int, default=10, help="batches to train on (default 10)")
    parser.add_argument("--batch", type=int, default=BATCH, help=f"images of a batch (default {BATCH})")
    parser.add_argument("--compare", action="store_true", help="time passes beside PyTorch's instead")
    parser.add_argument("--rounds", type=int, default=5, help="of --compare (default 5)")
    args = parser.parse_args()
    if args.compare:
        compare(args.batch, args.rounds, args.steps)
    else:
        train(args.batch, args.steps)
