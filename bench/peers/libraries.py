"""Imports the libraries that xent is measured against, and gives each as many threads as xent has.

A library that is not installed is None here and named in MISSING. Import this module before any of them: the
settings below are read when a library is loaded.
"""

import importlib
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from parts import THREADS  # noqa: E402 (its settings are for these libraries too)

# XLA sizes its thread pool by this variable, else by the processors that the process may use. The flags that
# are often named for it, XLA_FLAGS=--intra_op_parallelism_threads among them, are not read by XLA.
os.environ.setdefault("PJRT_NPROC", str(THREADS))

MISSING = {}


def _load(module):
    try:
        return importlib.import_module(module)
    except ImportError as error:
        MISSING[module] = str(error)
        return None


torch = _load("torch")
jax = _load("jax")
onnx = _load("onnx")
onnxruntime = _load("onnxruntime")
ml_dtypes = _load("ml_dtypes")
special = _load("scipy.special")
sklearn_loss = _load("sklearn._loss")

functional = torch and torch.nn.functional

if torch:
    torch.set_num_threads(THREADS)
if jax:
    jax.config.update("jax_enable_x64", True)  # float64 stays float64; float32 is not affected


def versions():
    """Return name -> version of every library that is installed."""
    names = ["numpy", "torch", "jax", "onnxruntime", "ml_dtypes", "scipy", "sklearn"]
    missing = {module.split(".")[0] for module in MISSING}
    return {name: importlib.import_module(name).__version__ for name in names if name not in missing}
