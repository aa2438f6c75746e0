"""
The head of a language model in PyTorch
=======================================

A language model's head in PyTorch: xent's LinearCrossEntropyLoss beside PyTorch's own.

::

    pip install ".[torch]"
    python examples/torch_head.py
    python examples/torch_head.py --positions 2048 --features 1024 --classes 32000

A layer W x and the cross-entropy of its logits takes ten steps of SGD with momentum from the same start: with
torch.nn.Linear and torch.nn.functional.cross_entropy, which hold all logits; with PyTorch's own
LinearCrossEntropyLoss, which works in chunks; and with xent's. The hidden states x need a gradient too, as
below a head there is a model. Each trains in a process of its own: peak memory is the most that the process
held at any time, less what it held before the first step.

Fails if a loss differs from that of the first by more than 1e-4.
"""

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

TOLERANCE = 1e-4  # of losses
ROUTES = {
    "linear": "PyTorch: Linear, cross_entropy",
    "chunks": "PyTorch: LinearCrossEntropyLoss",
    "xent": "xent: LinearCrossEntropyLoss",
}
LOOK = 0.002  # seconds between two looks at the memory


class Memory:
    """The most memory that this process holds while it is watched, in MiB."""

    def __enter__(self):
        self.done, self.start = threading.Event(), self.held()
        self.most = self.start
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.done.set()
        self.thread.join()
        self.peak = self.most - self.start

    def watch(self):
        while not self.done.wait(LOOK):
            self.most = max(self.most, self.held())

    @staticmethod
    def held():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def head_of(route, features, classes):
    """The module of a route: hidden states and labels in, loss out. All begin with the same weights."""
    import torch

    class Head(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(features, classes, bias=False)

        def forward(self, x, labels):
            return torch.nn.functional.cross_entropy(self.linear(x), labels)

    torch.manual_seed(0)
    if route == "linear":
        return Head()
    if route == "chunks":
        return torch.nn.LinearCrossEntropyLoss(
            features, classes, options=torch.nn.LinearCrossEntropyOptions()
        )
    import xent.torch

    return xent.torch.LinearCrossEntropyLoss(features, classes)


def train(route, args):
    """Losses, seconds of each step, and peak memory of a route."""
    import torch

    head = head_of(route, args.features, args.classes)
    optimizer = torch.optim.SGD(head.parameters(), lr=args.rate, momentum=0.9)
    x = torch.randn(args.positions, args.features, requires_grad=True)
    labels = torch.randint(args.classes, (args.positions,))
    losses, seconds = [], []
    with Memory() as memory:
        for _ in range(args.steps):
            start = time.perf_counter()
            optimizer.zero_grad()
            x.grad = None
            loss = head(x, labels)
            loss.backward()
            optimizer.step()
            seconds.append(time.perf_counter() - start)
            losses.append(loss.item())
    return {"losses": losses, "seconds": seconds, "peak": memory.peak}


def main():
    parser = argparse.ArgumentParser(description="The head of a language model, with xent and with PyTorch.")
    parser.add_argument("--positions", type=int, default=512, help="of hidden states (default 512)")
    parser.add_argument("--features", type=int, default=256, help="of each (default 256)")
    parser.add_argument("--classes", type=int, default=8000, help="the vocabulary (default 8000)")
    parser.add_argument("--steps", type=int, default=10, help="(default 10)")
    parser.add_argument("--rate", type=float, default=1.0, help="learning rate (default 1)")
    parser.add_argument("--route", choices=ROUTES, help=argparse.SUPPRESS)  # of one process
    args = parser.parse_args()
    if args.route:
        print(json.dumps(train(args.route, args)))
        return 0
    print(
        f"{args.positions} positions x {args.features} features x {args.classes} classes, {args.steps} steps"
    )
    print(f"{'':34}first loss  last loss  median step  peak memory")
    first, difference = None, 0.0
    for route, name in ROUTES.items():
        command = [sys.executable, *sys.argv, "--route", route]
        result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        losses = result["losses"]
        first = first or losses
        difference = max(difference, *(abs(a - b) for a, b in zip(first, losses, strict=True)))
        step = 1e3 * statistics.median(result["seconds"])
        print(f"{name:34}{losses[0]:10.4f}{losses[-1]:11.4f}{step:10.0f} ms{result['peak']:9.0f} MiB")
    print(f"largest difference of a loss: {difference:.1e}")
    return 0 if difference <= TOLERANCE else 1


if __name__ == "__main__" and main():
    sys.exit(1)
