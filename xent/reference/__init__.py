"""The specification of xent: every public function as its literal formula in float64 NumPy.

Names, parameters and defaults are those of the compiled functions, which are tested against this package.
It is written to be read and trusted, not to be fast, and checks only what the formulas themselves need.
"""

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
    "avg_pool2d",
    "avg_pool2d_backward",
    "col2im",
    "conv2d",
    "conv2d_backward",
    "conv_transpose2d",
    "cross_entropy",
    "cross_entropy_grad",
    "cross_entropy_value_and_grad",
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
    "sampled_softmax_cross_entropy",
    "sampled_softmax_cross_entropy_value_and_grad",
    "sigmoid",
    "softmax",
    "softmax_backward",
    "softmax_jacobian",
]
