"""Fast, exact and reproducible loss functions and convolutions for NumPy arrays."""

from . import reference
from ._config import __version__, show_config
from ._threads import get_num_threads, num_threads, set_num_threads
from .conv import col2im, conv2d, conv2d_backward, conv_transpose2d, im2col
from .cross_entropy import (
    cross_entropy,
    cross_entropy_grad,
    cross_entropy_value_and_grad,
    nll_loss,
    nll_loss_grad,
    nll_loss_value_and_grad,
)
from .linear import linear_cross_entropy, linear_cross_entropy_value_and_grad
from .pool import avg_pool2d, avg_pool2d_backward, max_pool2d, max_pool2d_backward
from .sampled import (
    nce_loss,
    nce_loss_value_and_grad,
    sampled_softmax_cross_entropy,
    sampled_softmax_cross_entropy_value_and_grad,
)
from .sigmoid import log_sigmoid, sigmoid
from .softmax import (
    log_softmax,
    log_softmax_backward,
    logsumexp,
    softmax,
    softmax_backward,
    softmax_jacobian,
)

__all__ = [
    "__version__",
    "avg_pool2d",
    "avg_pool2d_backward",
    "col2im",
    "conv2d",
    "conv2d_backward",
    "conv_transpose2d",
    "cross_entropy",
    "cross_entropy_grad",
    "cross_entropy_value_and_grad",
    "get_num_threads",
    "im2col",
    "linear_cross_entropy",
    "linear_cross_entropy_value_and_grad",
    "log_sigmoid",
    "log_softmax",
    "log_softmax_backward",
    "logsumexp",
    "max_pool2d",
    "max_pool2d_backward",
    "nce_loss",
    "nce_loss_value_and_grad",
    "nll_loss",
    "nll_loss_grad",
    "nll_loss_value_and_grad",
    "num_threads",
    "reference",
    "sampled_softmax_cross_entropy",
    "sampled_softmax_cross_entropy_value_and_grad",
    "set_num_threads",
    "show_config",
    "sigmoid",
    "softmax",
    "softmax_backward",
    "softmax_jacobian",
]
