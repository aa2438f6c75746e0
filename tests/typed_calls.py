"""Calls as users write them, the types that checkers see (`make types`) and results have (test_types.py)."""

from array import array
from typing import TYPE_CHECKING, Literal, TypeAlias, assert_type

import numpy as np
from numpy.typing import NDArray

import xent

Loss: TypeAlias = np.float64 | np.float32
Losses: TypeAlias = NDArray[np.float64 | np.float32]
Array: TypeAlias = NDArray[np.float64 | np.float32 | np.float16]

x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
labels = np.array([0, 1, 2, 0])
probs = xent.softmax(x)
out = np.empty_like(x)


class Tensor:
    """Of a library that exports its memory."""

    def __dlpack__(self, *, stream: int | None = None, max_version: tuple[int, int] | None = None) -> object:
        return x.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


# ---- a reduced loss is a scalar, losses are an array ----

assert_type(xent.cross_entropy(x, labels), Loss)
assert_type(xent.cross_entropy(x, labels, reduction="mean_batch"), Loss)
assert_type(xent.cross_entropy(x, labels, weight=[1.0, 2.0, 3.0], reduction="none"), Losses)
assert_type(xent.nll_loss(x, labels, reduction="sum"), Loss)
assert_type(xent.nll_loss(x, labels, reduction="none"), Losses)
assert_type(xent.sigmoid_cross_entropy(x, probs), Loss)
assert_type(xent.sigmoid_cross_entropy(x, probs, reduction="none"), Losses)
assert_type(xent.cross_entropy_probs(probs, labels, clip=1e-10), Loss)
assert_type(xent.cross_entropy_probs(probs, labels, reduction="none"), Losses)
assert_type(xent.binary_cross_entropy(probs, probs), Loss)
assert_type(xent.binary_cross_entropy(probs, probs, reduction="none"), Losses)
assert_type(xent.kl_div(x, probs, base=2), Loss)
assert_type(xent.kl_div(x, probs, reduction="none"), Losses)
assert_type(xent.distillation_loss(x, x, temperature=2), Loss)
assert_type(xent.distillation_loss(x, x, reduction="none"), Losses)
ids = np.array([[0], [1], [2], [0]])
assert_type(xent.sparse_distillation_loss(x, ids, x[:, :1], tail="drop"), Loss)
assert_type(xent.sparse_distillation_loss(x, ids, x[:, :1], reduction="none"), Losses)
assert_type(xent.sparse_distillation_loss_value_and_grad(x, ids, x[:, :1]), tuple[Loss, Array])
assert_type(xent.mse_loss(x, probs), Loss)
assert_type(xent.mse_loss(x, probs, reduction="none"), Losses)
assert_type(xent.linear_cross_entropy(x, np.eye(3), labels), Loss)
assert_type(xent.linear_cross_entropy(x, np.eye(3), labels, reduction="none"), Losses)
assert_type(xent.nce_loss(x, np.eye(3), labels, [1], np.zeros(3)), Loss)
assert_type(xent.token_log_probs(x, labels), Losses)
assert_type(xent.token_log_probs(x, labels, ranks=True), tuple[Losses, NDArray[np.int64]])
assert_type(xent.linear_token_log_probs(x, np.eye(3), labels), Losses)
assert_type(xent.linear_token_log_probs(x, np.eye(3), labels, entropy=True), tuple[Losses, Losses])
assert_type(xent.linear_token_log_probs(x, np.eye(3), labels, ranks=True), tuple[Losses, NDArray[np.int64]])
assert_type(
    xent.linear_token_log_probs(x, np.eye(3), labels, ranks=True, entropy=True),
    tuple[Losses, NDArray[np.int64], Losses],
)
assert_type(xent.sampled_softmax_cross_entropy(x, np.eye(3), labels, [1], np.zeros(3)), Loss)


def of_a_reduction(reduction: Literal["none", "mean"]) -> Loss | Losses:
    return xent.cross_entropy(x, labels, reduction=reduction)


total, best = 0.0, float("inf")
loss = xent.cross_entropy(x, labels)
total += float(loss)
if loss < best:
    best = float(loss)
line = f"{loss:.3f} {loss.round(2)} {np.exp(loss)}"
losses = xent.cross_entropy(x, labels, reduction="none")
hard: Losses = losses[losses > losses.mean()]
weighted = (losses * np.ones(4, np.float32)).sum()
general: NDArray[np.floating] = losses

# ---- gradients ----

assert_type(xent.cross_entropy_grad(x, labels, grad_output=2.0, out=out), Array)
assert_type(xent.cross_entropy_value_and_grad(x, labels, out=x.copy()), tuple[Loss, Array])
assert_type(xent.cross_entropy_value_and_grad(x, labels, reduction="none"), tuple[Losses, Array])
assert_type(xent.mse_loss_value_and_grad(x, probs), tuple[Loss, Array])
assert_type(xent.cross_entropy_grad_hess(x, labels, hessian="upper"), tuple[Array, Array])
assert_type(xent.cross_entropy_grad_hess(x, labels, hessian="gauss_newton", gamma=2.0), tuple[Array, Array])
assert_type(xent.cross_entropy(x, labels, ignore_index=(-1, -100)), Loss)
assert_type(xent.sigmoid_cross_entropy_grad_hess(x, probs, hessian="gauss_newton"), tuple[Array, Array])
assert_type(xent.kl_div_value_and_grad(x, probs, axis=None), tuple[Loss, Array])
assert_type(xent.cross_entropy_hvp(x, labels, x), Array)
loss, (grad_x, grad_weight, grad_bias) = xent.linear_cross_entropy_value_and_grad(x, np.eye(3), labels)
losses, some = xent.linear_cross_entropy_value_and_grad(
    x, np.eye(3), labels, reduction="none", grad_output=[1, -2, 0, 1], needs=(True, False, False)
)
assert_type(losses, Losses)
assert_type(some[0], Array | None)
weight = np.eye(3, dtype=np.float32)
weight -= 0.1 * grad_weight
if grad_bias is not None:
    shape = grad_bias.shape

# ---- softmax and its kin ----

assert_type(xent.softmax([1.0, 2.0]), Array)
assert_type(xent.log_softmax(x, 0, temperature=2), Array)
assert_type(xent.logsumexp(x), Losses)
assert_type(xent.logsumexp(x, None), Loss)
assert_type(xent.logsumexp(x, axis=None, keepdims=True), Losses)
assert_type(xent.logsumexp(x, (1,), b=x), Losses)
assert_type(xent.logsumexp(x, return_sign=True), tuple[Losses, Losses])
assert_type(xent.logsumexp(x, None, b=x, return_sign=True), tuple[Loss, Loss])
assert_type(xent.logsumexp_backward(losses, x, losses), Array)
assert_type(xent.softmax(x, None), Array)
assert_type(xent.softmax_backward(x, x, (0, 1)), Array)
assert_type(xent.sigmoid(2.0), np.float64 | np.float32 | np.float16)
assert_type(xent.log_sigmoid(x), Array)
assert_type(xent.sigmoid_backward(x, probs), Array)
assert_type(xent.log_sigmoid_backward(2.0, -1.0), np.float64 | np.float32 | np.float16)
assert_type(xent.entropy(probs), Losses)

# ---- what has the memory, and what is a list ----

assert_type(xent.cross_entropy(Tensor(), labels.tolist()), Loss)
assert_type(xent.softmax(array("d", [1.0, 2.0])), Array)

# ---- evaluation ----

result = xent.evaluate(x, labels, top_k=(1, 2)) + xent.evaluate(x, labels, top_k=(1, 2))
assert_type(result, xent.Evaluation)
assert_type(result.accuracy, float)
assert_type(result.top_k_accuracy, dict[int, float])
assert_type(result.count, int)
assert_type(result.loss_standard_error, float)
checked = xent.evaluate(
    x, labels, ignore_index=(-100, -1), temperature=2, calibration_bins=15, confusion="per_class"
)
assert_type(checked.expected_calibration_error, float)
assert_type(checked.reliability.edges, NDArray[np.float64])
assert_type(checked.per_class.recall, NDArray[np.float64])
assert_type(xent.evaluate(x, labels, confusion=True).bits_per(1000), float)
sequences = xent.evaluate_sequences(x, labels, labels)
assert_type(sequences + sequences, xent.SequenceEvaluation)
assert_type(sequences.log_prob, NDArray[np.float64])
assert_type(sequences[0].greedy, bool)
comparison = xent.compare(x, x, labels) + xent.compare(x, x, labels)
assert_type(comparison, xent.Comparison)
assert_type(comparison.kl_quantile(0.99), float)
assert_type(comparison.kl_quantile([0.5, 0.99]), NDArray[np.float64])
assert_type(comparison.perplexity_ratio, float)

# ---- images ----

image, kernel = np.ones((1, 2, 4, 4), np.float32), np.ones((3, 2, 2, 2), np.float32)
forward = xent.conv2d(image, kernel, padding=((0, 1), (0, 1)))
assert_type(forward, Array)
assert_type(xent.conv2d_backward(forward, image, kernel, padding="same"), tuple[Array, Array, Array])
of_x, of_weight, of_bias = xent.conv2d_backward(
    forward, image, kernel, padding="same", needs=(False, True, True)
)
assert of_x is None and of_weight is not None
assert_type(xent.max_pool2d(image, 2), Array)
pooled, places = xent.max_pool2d(image, 2, return_places=True)
assert_type(places, NDArray[np.uint8 | np.uint16 | np.int32])
assert_type(xent.max_pool2d_backward(pooled, image, 2, places=places), Array)

# ---- the rest, and the reference ----

with xent.num_threads(1):
    assert_type(xent.reference.cross_entropy(x, labels, reduction="none"), Losses)
assert_type(xent.show_config("dicts")["isa_usable"], list[str])

# ---- what checkers refuse: an ignored line without an error is an error ----

if TYPE_CHECKING:
    xent.cross_entropy(x, labels, reduction="average")  # type: ignore[call-overload]
    xent.cross_entropy(x, labels, -1)  # type: ignore[call-overload]
    xent.cross_entropy(x, labels)[0]  # type: ignore[index]
    xent.softmax(x, temperature="warm")  # type: ignore[arg-type]
    xent.softmax(x, out=[0.0])  # type: ignore[arg-type]
    xent.conv2d(image, kernel, padding="full")  # type: ignore[arg-type]
    xent.cross_entropy(None, labels)  # type: ignore[call-overload]
    result.count = 1  # type: ignore[misc]
