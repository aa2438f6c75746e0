"""Fast, exact and reproducible loss functions and convolutions for NumPy arrays."""

from . import _openmp  # noqa: F401 (the first, as it loads the kernels)
from ._config import __version__, show_config
from ._evaluation import Comparison, Evaluation, SequenceEvaluation
from ._prepared import PreparedWeight
from ._results import set_result_cache
from ._threads import get_num_threads, num_threads, set_num_threads
from .conv import (
    col2im,
    conv1d,
    conv1d_backward,
    conv2d,
    conv2d_backward,
    conv_transpose2d,
    conv_transpose2d_backward,
    im2col,
    prepare_conv2d,
)
from .cross_entropy import cross_entropy, cross_entropy_grad, cross_entropy_value_and_grad
from .divergence import (
    distillation_loss,
    distillation_loss_grad,
    distillation_loss_value_and_grad,
    kl_div,
    kl_div_grad,
    kl_div_value_and_grad,
)
from .evaluate import compare, evaluate, evaluate_sequences
from .linear import (
    linear_cross_entropy,
    linear_cross_entropy_value_and_grad,
    linear_token_log_probs,
)
from .nll import nll_loss, nll_loss_grad, nll_loss_value_and_grad
from .pool import avg_pool2d, avg_pool2d_backward, max_pool2d, max_pool2d_backward
from .probabilities import (
    binary_cross_entropy,
    binary_cross_entropy_grad,
    binary_cross_entropy_value_and_grad,
    cross_entropy_probs,
    cross_entropy_probs_grad,
    cross_entropy_probs_value_and_grad,
    entropy,
)
from .sampled import (
    nce_loss,
    nce_loss_value_and_grad,
    sampled_softmax_cross_entropy,
    sampled_softmax_cross_entropy_value_and_grad,
)
from .second_order import cross_entropy_grad_hess, cross_entropy_hvp
from .sigmoid import log_sigmoid, log_sigmoid_backward, sigmoid, sigmoid_backward
from .sigmoid_cross_entropy import (
    sigmoid_cross_entropy,
    sigmoid_cross_entropy_grad,
    sigmoid_cross_entropy_grad_hess,
    sigmoid_cross_entropy_value_and_grad,
)
from .softmax import (
    log_softmax,
    log_softmax_backward,
    logsumexp,
    logsumexp_backward,
    softmax,
    softmax_backward,
    softmax_jacobian,
)
from .sparse_distillation import (
    sparse_distillation_loss,
    sparse_distillation_loss_grad,
    sparse_distillation_loss_value_and_grad,
)
from .squared_error import mse_loss, mse_loss_grad, mse_loss_value_and_grad
from .tokens import token_log_probs

__all__ = [
    "Comparison",
    "Evaluation",
    "PreparedWeight",
    "SequenceEvaluation",
    "__version__",
    "avg_pool2d",
    "avg_pool2d_backward",
    "binary_cross_entropy",
    "binary_cross_entropy_grad",
    "binary_cross_entropy_value_and_grad",
    "col2im",
    "compare",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "cross_entropy",
    "cross_entropy_grad",
    "cross_entropy_grad_hess",
    "cross_entropy_hvp",
    "cross_entropy_probs",
    "cross_entropy_probs_grad",
    "cross_entropy_probs_value_and_grad",
    "cross_entropy_value_and_grad",
    "distillation_loss",
    "distillation_loss_grad",
    "distillation_loss_value_and_grad",
    "entropy",
    "evaluate",
    "evaluate_sequences",
    "get_num_threads",
    "im2col",
    "kl_div",
    "kl_div_grad",
    "kl_div_value_and_grad",
    "linear_cross_entropy",
    "linear_cross_entropy_value_and_grad",
    "linear_token_log_probs",
    "log_sigmoid",
    "log_sigmoid_backward",
    "log_softmax",
    "log_softmax_backward",
    "logsumexp",
    "logsumexp_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "mse_loss",
    "mse_loss_grad",
    "mse_loss_value_and_grad",
    "nce_loss",
    "nce_loss_value_and_grad",
    "nll_loss",
    "nll_loss_grad",
    "nll_loss_value_and_grad",
    "num_threads",
    "prepare_conv2d",
    "reference",
    "sampled_softmax_cross_entropy",
    "sampled_softmax_cross_entropy_value_and_grad",
    "set_num_threads",
    "set_result_cache",
    "show_config",
    "sigmoid",
    "sigmoid_backward",
    "sigmoid_cross_entropy",
    "sigmoid_cross_entropy_grad",
    "sigmoid_cross_entropy_grad_hess",
    "sigmoid_cross_entropy_value_and_grad",
    "softmax",
    "softmax_backward",
    "softmax_jacobian",
    "sparse_distillation_loss",
    "sparse_distillation_loss_grad",
    "sparse_distillation_loss_value_and_grad",
    "token_log_probs",
]


def __getattr__(name):
    """Import the reference when it is first asked for: it would take a fifth of the time of `import xent`."""
    if name != "reference":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module(".reference", __name__)


def __dir__():
    return [*globals(), "reference"]
