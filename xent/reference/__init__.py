"""The specification of xent: every public function as its literal formula in float64 NumPy.

Names, parameters and defaults are those of the compiled functions, which are tested against this package;
``**options`` are those of `cross_entropy`.
It is written to be read and trusted, not to be fast, and checks only what the formulas themselves need.
"""

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
    "prepare_conv2d",
    "sampled_softmax_cross_entropy",
    "sampled_softmax_cross_entropy_value_and_grad",
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
