"""Types of the reference: those of the compiled functions."""

from xent import avg_pool2d as avg_pool2d
from xent import avg_pool2d_backward as avg_pool2d_backward
from xent import col2im as col2im
from xent import conv2d as conv2d
from xent import conv2d_backward as conv2d_backward
from xent import conv_transpose2d as conv_transpose2d
from xent import cross_entropy as cross_entropy
from xent import cross_entropy_grad as cross_entropy_grad
from xent import cross_entropy_value_and_grad as cross_entropy_value_and_grad
from xent import im2col as im2col
from xent import linear_cross_entropy as linear_cross_entropy
from xent import linear_cross_entropy_value_and_grad as linear_cross_entropy_value_and_grad
from xent import log_sigmoid as log_sigmoid
from xent import log_softmax as log_softmax
from xent import log_softmax_backward as log_softmax_backward
from xent import logsumexp as logsumexp
from xent import max_pool2d as max_pool2d
from xent import max_pool2d_backward as max_pool2d_backward
from xent import nce_loss as nce_loss
from xent import nce_loss_value_and_grad as nce_loss_value_and_grad
from xent import nll_loss as nll_loss
from xent import nll_loss_grad as nll_loss_grad
from xent import nll_loss_value_and_grad as nll_loss_value_and_grad
from xent import sampled_softmax_cross_entropy as sampled_softmax_cross_entropy
from xent import sampled_softmax_cross_entropy_value_and_grad as sampled_softmax_cross_entropy_value_and_grad
from xent import sigmoid as sigmoid
from xent import softmax as softmax
from xent import softmax_backward as softmax_backward
from xent import softmax_jacobian as softmax_jacobian

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
