"""Types of the reference: those of the compiled functions."""

import xent

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

# Not imported from xent, which imports this module: mypy would take xent.cross_entropy for the file.
avg_pool2d = xent.avg_pool2d
avg_pool2d_backward = xent.avg_pool2d_backward
binary_cross_entropy = xent.binary_cross_entropy
binary_cross_entropy_grad = xent.binary_cross_entropy_grad
binary_cross_entropy_value_and_grad = xent.binary_cross_entropy_value_and_grad
col2im = xent.col2im
compare = xent.compare
conv1d = xent.conv1d
conv1d_backward = xent.conv1d_backward
conv2d = xent.conv2d
conv2d_backward = xent.conv2d_backward
conv_transpose2d = xent.conv_transpose2d
conv_transpose2d_backward = xent.conv_transpose2d_backward
cross_entropy = xent.cross_entropy
cross_entropy_grad = xent.cross_entropy_grad
cross_entropy_grad_hess = xent.cross_entropy_grad_hess
cross_entropy_hvp = xent.cross_entropy_hvp
cross_entropy_probs = xent.cross_entropy_probs
cross_entropy_probs_grad = xent.cross_entropy_probs_grad
cross_entropy_probs_value_and_grad = xent.cross_entropy_probs_value_and_grad
cross_entropy_value_and_grad = xent.cross_entropy_value_and_grad
distillation_loss = xent.distillation_loss
distillation_loss_grad = xent.distillation_loss_grad
distillation_loss_value_and_grad = xent.distillation_loss_value_and_grad
entropy = xent.entropy
evaluate = xent.evaluate
evaluate_sequences = xent.evaluate_sequences
im2col = xent.im2col
kl_div = xent.kl_div
kl_div_grad = xent.kl_div_grad
kl_div_value_and_grad = xent.kl_div_value_and_grad
linear_cross_entropy = xent.linear_cross_entropy
linear_cross_entropy_value_and_grad = xent.linear_cross_entropy_value_and_grad
linear_token_log_probs = xent.linear_token_log_probs
log_sigmoid = xent.log_sigmoid
log_sigmoid_backward = xent.log_sigmoid_backward
log_softmax = xent.log_softmax
log_softmax_backward = xent.log_softmax_backward
logsumexp = xent.logsumexp
logsumexp_backward = xent.logsumexp_backward
max_pool2d = xent.max_pool2d
max_pool2d_backward = xent.max_pool2d_backward
mse_loss = xent.mse_loss
mse_loss_grad = xent.mse_loss_grad
mse_loss_value_and_grad = xent.mse_loss_value_and_grad
nce_loss = xent.nce_loss
nce_loss_value_and_grad = xent.nce_loss_value_and_grad
nll_loss = xent.nll_loss
nll_loss_grad = xent.nll_loss_grad
nll_loss_value_and_grad = xent.nll_loss_value_and_grad
prepare_conv2d = xent.prepare_conv2d
sampled_softmax_cross_entropy = xent.sampled_softmax_cross_entropy
sampled_softmax_cross_entropy_value_and_grad = xent.sampled_softmax_cross_entropy_value_and_grad
sigmoid = xent.sigmoid
sigmoid_backward = xent.sigmoid_backward
sigmoid_cross_entropy = xent.sigmoid_cross_entropy
sigmoid_cross_entropy_grad = xent.sigmoid_cross_entropy_grad
sigmoid_cross_entropy_grad_hess = xent.sigmoid_cross_entropy_grad_hess
sigmoid_cross_entropy_value_and_grad = xent.sigmoid_cross_entropy_value_and_grad
softmax = xent.softmax
softmax_backward = xent.softmax_backward
softmax_jacobian = xent.softmax_jacobian
sparse_distillation_loss = xent.sparse_distillation_loss
sparse_distillation_loss_grad = xent.sparse_distillation_loss_grad
sparse_distillation_loss_value_and_grad = xent.sparse_distillation_loss_value_and_grad
token_log_probs = xent.token_log_probs
