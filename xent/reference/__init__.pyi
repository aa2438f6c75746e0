"""Types of the reference: those of the compiled functions."""

from xent import avg_pool2d as avg_pool2d
from xent import avg_pool2d_backward as avg_pool2d_backward
from xent import binary_cross_entropy as binary_cross_entropy
from xent import binary_cross_entropy_grad as binary_cross_entropy_grad
from xent import binary_cross_entropy_value_and_grad as binary_cross_entropy_value_and_grad
from xent import col2im as col2im
from xent import conv1d as conv1d
from xent import conv1d_backward as conv1d_backward
from xent import conv2d as conv2d
from xent import conv2d_backward as conv2d_backward
from xent import conv_transpose2d as conv_transpose2d
from xent import conv_transpose2d_backward as conv_transpose2d_backward
from xent import cross_entropy as cross_entropy
from xent import cross_entropy_grad as cross_entropy_grad
from xent import cross_entropy_grad_hess as cross_entropy_grad_hess
from xent import cross_entropy_hvp as cross_entropy_hvp
from xent import cross_entropy_probs as cross_entropy_probs
from xent import cross_entropy_probs_grad as cross_entropy_probs_grad
from xent import cross_entropy_probs_value_and_grad as cross_entropy_probs_value_and_grad
from xent import cross_entropy_value_and_grad as cross_entropy_value_and_grad
from xent import distillation_loss as distillation_loss
from xent import distillation_loss_grad as distillation_loss_grad
from xent import distillation_loss_value_and_grad as distillation_loss_value_and_grad
from xent import entropy as entropy
from xent import evaluate as evaluate
from xent import im2col as im2col
from xent import kl_div as kl_div
from xent import kl_div_grad as kl_div_grad
from xent import kl_div_value_and_grad as kl_div_value_and_grad
from xent import linear_cross_entropy as linear_cross_entropy
from xent import linear_cross_entropy_value_and_grad as linear_cross_entropy_value_and_grad
from xent import log_sigmoid as log_sigmoid
from xent import log_softmax as log_softmax
from xent import log_softmax_backward as log_softmax_backward
from xent import logsumexp as logsumexp
from xent import max_pool2d as max_pool2d
from xent import max_pool2d_backward as max_pool2d_backward
from xent import mse_loss as mse_loss
from xent import mse_loss_grad as mse_loss_grad
from xent import mse_loss_value_and_grad as mse_loss_value_and_grad
from xent import nce_loss as nce_loss
from xent import nce_loss_value_and_grad as nce_loss_value_and_grad
from xent import nll_loss as nll_loss
from xent import nll_loss_grad as nll_loss_grad
from xent import nll_loss_value_and_grad as nll_loss_value_and_grad
from xent import prepare_conv2d as prepare_conv2d
from xent import sampled_softmax_cross_entropy as sampled_softmax_cross_entropy
from xent import sampled_softmax_cross_entropy_value_and_grad as sampled_softmax_cross_entropy_value_and_grad
from xent import sigmoid as sigmoid
from xent import sigmoid_cross_entropy as sigmoid_cross_entropy
from xent import sigmoid_cross_entropy_grad as sigmoid_cross_entropy_grad
from xent import sigmoid_cross_entropy_value_and_grad as sigmoid_cross_entropy_value_and_grad
from xent import softmax as softmax
from xent import softmax_backward as softmax_backward
from xent import softmax_jacobian as softmax_jacobian

__all__ = [
    "avg_pool2d",
    "avg_pool2d_backward",
    "binary_cross_entropy",
    "binary_cross_entropy_grad",
    "binary_cross_entropy_value_and_grad",
    "col2im",
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
    "im2col",
    "kl_div",
    "kl_div_grad",
    "kl_div_value_and_grad",
    "linear_cross_entropy",
    "linear_cross_entropy_value_and_grad",
    "log_sigmoid",
    "log_softmax",
    "log_softmax_backward",
    "logsumexp",
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
    "sigmoid_cross_entropy",
    "sigmoid_cross_entropy_grad",
    "sigmoid_cross_entropy_value_and_grad",
    "softmax",
    "softmax_backward",
    "softmax_jacobian",
]
