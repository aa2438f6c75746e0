"""The speeds that xent aims at: a peer's time divided by xent's, or a share of the machine's limit."""

# operator: (times the best peer on every shape, times PyTorch eager in the geometric mean)
PEERS = {
    "cross_entropy": (1.8, 4),
    "cross_entropy_value_and_grad": (2.2, 10),
    "softmax": (1.2, 3),
    "log_softmax": (1.2, 3),
    "logsumexp": (1.2, 3),
    "softmax_backward": (1.2, 1.5),
    "log_softmax_backward": (1.2, 1.5),
    "logsumexp_backward": (1.2, 3),
    "token_log_probs": (1.2, 3),
    "evaluate": (2, 4),
    "evaluate_sequences": (1.2, 3),
    "compare": (2, 4),
    "cross_entropy_grad_hess": (1.5, 4),
    "sigmoid_cross_entropy": (1.5, 4),
    "sigmoid_cross_entropy_value_and_grad": (2, 6),
    "sigmoid_cross_entropy_grad_hess": (1.5, 4),
    "entropy": (1.3, 3),
    "mse_loss": (1.3, 2),
    "mse_loss_value_and_grad": (1.3, 4),
    "binary_cross_entropy": (1.3, 4),
    "binary_cross_entropy_value_and_grad": (1.3, 5),
    "cross_entropy_probs": (1.3, 3),
    "cross_entropy_probs_value_and_grad": (1.3, 4),
    "kl_div": (1.3, 4),
    "kl_div_value_and_grad": (1.3, 4),
    "distillation_loss": (1.3, 4),
    "distillation_loss_value_and_grad": (1.3, 5),
    "sparse_distillation_loss": (2, 3),
    "sparse_distillation_loss_value_and_grad": (2, 3),
    "conv2d": (1.0, 1.25),
    "conv2d forward+backward": (1.2, 1.75),
    "max_pool2d": (2, 2),
    "max_pool2d_backward": (1.3, 1.3),
    "max_pool2d forward+backward": (1.5, 1.5),
    "avg_pool2d": (2, 2),
    "avg_pool2d_backward": (2, 2),
    "im2col": (2, 2),
    "col2im": (2, 2),
}
OPTION = 1.5  # times the best peer, value and gradient with one option
SIXTEEN_BITS = {"cross_entropy": 2.5, "cross_entropy_value_and_grad": 3}  # times the best peer
NETWORK = 1.0  # times the best peer, all convolutions of a network for one image
PREPARED = 1.05  # times the best peer, conv2d with weights that were packed before
TOKENS = 1.15  # times logsumexp alone, token_log_probs of 8 ids a position at most
EVALUATION = 1.25  # times cross_entropy alone, evaluate at most, from so many logits on:
EVALUATED = 100_000
READ_SHARE = 0.88  # of the read bandwidth, cross_entropy on logits larger than the caches
COPY_SHARE = 0.85  # of the copy bandwidth, value and gradient, one read and one write counted
CLASSES_SPREAD = 1.8  # slowest by fastest time per element from 10 to 10000 classes
TWO_THREADS = 1.7  # times one thread, where memory is not the limit
SMALL_CALL = {"cross_entropy": 2e-6, "cross_entropy_value_and_grad": 3e-6}  # seconds on (32, 10) float32
CONV_IDIOM = 5  # times the NumPy idiom, convolution forward
PEAK_SHARE = 0.80  # of the best matrix product's rate, convolution forward on the layers that can be so busy:
BUSY_LAYERS = ("resnet", "downsampling", "pointwise")  # how their names begin
EXTRA_MEMORY = 4 * 2**20  # bytes a thread beside a convolution's results and one packed copy of its weights
