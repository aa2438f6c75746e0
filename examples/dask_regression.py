"""
Softmax regression with Dask
============================

Softmax regression on more data than the workers have memory: `xent.dask` under SciPy's L-BFGS.

::

    pip install ".[dask]" distributed scipy
    python examples/dask_regression.py

Each chunk of the data is a .npy file of its own. Every evaluation of the loss reads them all: a worker maps a
file, makes its part of the loss and of the gradient, and forgets it. What comes back is a number and a
gradient of the size of the weights, added up on the way. The optimiser runs in the client and holds the
weights alone.

Two workers may hold 300 MB each, and are paused and then ended by Dask where they hold more. The data are ten
times as large, 3 GB, or as large as an argument says.

Fails if a worker held more, or if the accuracy is not nearly that of the model that the labels come from.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster
from scipy.optimize import minimize

import xent.dask

FEATURES, CLASSES = 100, 10
MEMORY = 300  # MB of each worker
WORKERS = 2
CHUNK = 10  # MB of a file
PENALTY = 1e-6  # of the squared weights
SHARE = 0.98  # of the accuracy of the true model


def truth():
    """Return the weights of the model that the labels are drawn from."""
    return 0.5 * np.random.default_rng(1).standard_normal((CLASSES, FEATURES))


def write_shard(folder, number, rows):
    """Write features and labels of one shard; return the number of rows."""
    rng = np.random.default_rng([0, number])
    x = rng.standard_normal((rows, FEATURES), dtype=np.float32)
    labels = (x @ truth().T + rng.gumbel(size=(rows, CLASSES))).argmax(axis=1)
    np.save(folder / f"x{number}.npy", x)
    np.save(folder / f"y{number}.npy", labels)
    return rows


def read(path):
    return np.load(path, mmap_mode="r")


def arrays(folder, shards, rows):
    """Return features and labels as Dask arrays, a file to a chunk, and nothing read."""

    def of(letter, shape, dtype):
        parts = [dask.delayed(read)(folder / f"{letter}{k}.npy") for k in range(shards)]
        return da.concatenate([da.from_delayed(part, shape, dtype) for part in parts])

    return of("x", (rows, FEATURES), np.float32), of("y", (rows,), np.int64)


def fit(x, labels, iterations):
    """Return weights that minimise mean cross-entropy + PENALTY |W|^2, and the number of passes."""
    passes = []

    def objective(flat):
        weight = flat.reshape(CLASSES, FEATURES).astype(np.float32)  # products of float32
        loss, grads = xent.dask.linear_cross_entropy_value_and_grad(
            x, weight, labels, needs=(False, True, False)
        )
        loss, (_, grad, _) = dask.compute(loss, grads)
        passes.append(float(loss))
        print(f"pass {len(passes)}: loss {loss:.4f}", flush=True)
        return loss + PENALTY * (flat @ flat), grad.ravel().astype(float) + 2 * PENALTY * flat

    start = np.zeros(CLASSES * FEATURES)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    return found.x.reshape(CLASSES, FEATURES), len(passes)


def accuracy(x, labels, weight):
    """Evaluate logits that are never there at once."""
    logits = x @ da.from_array(weight.T.astype(np.float32), chunks=-1)
    return xent.dask.evaluate(logits, labels).compute().accuracy


def most_memory():
    """Return the most MB that this worker has held, pages of mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description="Softmax regression with xent.dask.")
    parser.add_argument("--mb", type=int, default=10 * MEMORY, help="of data (default 3000)")
    parser.add_argument("--iterations", type=int, default=8, help="of L-BFGS (default 8)")
    args = parser.parse_args()
    rows = CHUNK * 2**20 // (4 * FEATURES)
    shards = max(1, round(args.mb / CHUNK))
    limits = {"n_workers": WORKERS, "threads_per_worker": 1, "memory_limit": f"{MEMORY}MB"}
    with tempfile.TemporaryDirectory() as name, LocalCluster(dashboard_address=None, **limits) as cluster:
        folder = Path(name)
        with Client(cluster) as client:
            begin = time.perf_counter()
            futures = client.map(write_shard, [folder] * shards, range(shards), rows=rows)
            total = sum(client.gather(futures))
            print(
                f"{total} rows in {shards} files of {CHUNK} MB, {time.perf_counter() - begin:.0f} s to write"
            )
            x, labels = arrays(folder, shards, rows)
            begin = time.perf_counter()
            weight, passes = fit(x, labels, args.iterations)
            spent = time.perf_counter() - begin
            print(f"{passes} passes over {total * FEATURES * 4 / 1e6:.0f} MB in {spent:.0f} s")
            ours, best = accuracy(x, labels, weight), accuracy(x, labels, truth())
            print(f"accuracy {ours:.4f}, of the model that the labels are drawn from {best:.4f}")
            held = max(client.run(most_memory).values())
            print(f"a worker held {held:.0f} MB at most, of {MEMORY}")
    return 0 if ours > SHARE * best and held < MEMORY else 1


if __name__ == "__main__":
    sys.exit(main())
