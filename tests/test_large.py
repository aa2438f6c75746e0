"""More than 2^31 elements, classes and pixels, for each family of kernels; and sizes that no memory holds.

The large ones read zeros, which the system keeps in one page, and a few numbers at the end; results are made
in place where that can be. They want 12 GB and take minutes, so they are slow as well as large.
"""

import numpy as np
import pytest

import xent

MORE = 2**31 + 2**12  # elements, more than 32 bits with a sign can count
ROWS, CLASSES = 2**19 + 1, 2**12  # the same as positions and classes
GIB = 2**30


def available():
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 0


def large(test):
    """Mark a test that is run by hand."""
    enough = pytest.mark.skipif(available() < 12 * GIB, reason="wants 12 GB of memory")
    return pytest.mark.slow(pytest.mark.large(enough(test)))


def zeros(*shape):
    return np.zeros(shape, np.float16)


@large
def test_classes_of_one_position():
    x = zeros(MORE)
    x[-1] = 20.0
    weight = np.exp(20.0)
    total = np.log(MORE - 1 + weight)
    assert abs(xent.logsumexp(x) - total) < 1e-5
    assert abs(xent.cross_entropy(x, MORE - 1) - (total - 20)) < 1e-5
    assert abs(xent.cross_entropy(x, 0) - total) < 1e-5
    log_p, rank = xent.token_log_probs(x, np.array([MORE - 1, 7]), ranks=True)
    assert np.abs(log_p - [20 - total, -total]).max() < 1e-5
    assert rank.tolist() == [0, 1]  # equal logits have equal ranks
    assert xent.evaluate(x, MORE - 1).accuracy == 1
    assert xent.sparse_distillation_loss(x, np.array([MORE - 1]), np.array([20 - total])) < 1e-4


@large
def test_softmax_in_place():
    x = zeros(MORE)
    x[-1] = 20.0
    result = xent.softmax(x, out=x)
    p = np.exp(20.0) / (MORE - 1 + np.exp(20.0))
    assert abs(float(result[-1]) / p - 1) < 1e-3


@large
def test_positions_and_classes():
    x = zeros(ROWS, CLASSES)
    x[-1, -1] = 10.0
    labels = np.zeros(ROWS, np.int64)
    labels[-1] = CLASSES - 1
    last = np.log(CLASSES - 1 + np.exp(10.0))
    losses = xent.cross_entropy(x, labels, reduction="none")
    assert abs(losses[-1] - (last - 10)) < 1e-5
    assert abs(losses[:-1] - np.log(CLASSES)).max() < 1e-5
    assert abs(xent.nll_loss(x, labels, reduction="none")[-1] + 10) < 1e-5
    assert xent.evaluate(x, labels).count == ROWS
    _, grad = xent.cross_entropy_value_and_grad(x, labels, reduction="sum", out=x)
    assert float(grad[-1, -1]) == pytest.approx(np.exp(10 - last) - 1, rel=1e-3)
    assert float(grad[-2, 0]) == pytest.approx(1 / CLASSES - 1, rel=1e-3)


@large
def test_classes_first():
    x = zeros(CLASSES, ROWS)
    x[-1, -1] = 10.0
    losses = xent.cross_entropy(x, np.zeros(ROWS, np.int64), axis=0, reduction="none")
    assert abs(losses[-1] - np.log(CLASSES - 1 + np.exp(10.0))) < 1e-5
    assert abs(losses[0] - np.log(CLASSES)) < 1e-5


@large
def test_elements():
    x = zeros(MORE)
    x[-1] = 1.0
    assert xent.mse_loss(x, np.broadcast_to(np.float16(0), x.shape), reduction="sum") == 1
    target = np.broadcast_to(np.int8(0), x.shape)
    loss = xent.sigmoid_cross_entropy(x, target, reduction="sum")
    assert loss == pytest.approx((MORE - 1) * np.log(2) + np.log1p(np.e), rel=1e-6)
    assert float(xent.sigmoid(x, out=x)[-1]) == pytest.approx(1 / (1 + np.exp(-1)), rel=1e-3)


@large
@pytest.mark.parametrize("height, width", [(2**16 + 1, 2**15), (2, MORE // 2)])
def test_pixels(height, width):
    x = zeros(1, 1, height, width)
    x[..., -1, -1] = 3.0
    if width < 2**30:  # a pool needs some 40 bytes of scratch a pixel of a row
        assert float(xent.max_pool2d(x, 2)[0, 0, -1, -1]) == 0.0  # the last row is in no window
        assert float(xent.avg_pool2d(x, 2)[0, 0, -1, -1]) == 0.0
    kernel = np.full((1, 1, 1, 1), 2.0, np.float16)
    assert float(xent.conv2d(x, kernel)[0, 0, -1, -1]) == 6.0
    assert float(xent.conv2d(x, kernel, stride=3)[0, 0, 0, 0]) == 0.0


@large
def test_backward_of_softmax():
    y, grad = zeros(MORE), zeros(MORE)
    y[[0, -1]], grad[-1] = 0.5, 1.0
    assert xent.softmax_backward(grad, y, out=y)[[0, 1, -2, -1]].tolist() == [-0.25, 0, 0, 0.25]
    log_y = xent.log_softmax_backward(grad, zeros(MORE), out=grad)  # 1 - exp(0), and -1 elsewhere
    assert log_y[[0, -2, -1]].tolist() == [-1, -1, 0]
    x = zeros(MORE)
    x[-1] = 20.0
    assert xent.logsumexp_backward(2.0, x, 20.0, out=x)[[0, -1]].tolist() == pytest.approx([0, 2], abs=1e-6)


@large
def test_backward_of_sigmoid():
    grad, y = zeros(MORE), zeros(MORE)
    grad[[0, -1]], y[[0, -1]] = 4.0, 0.5
    assert xent.sigmoid_backward(grad, y, out=y)[[0, 1, -2, -1]].tolist() == [1, 0, 0, 1]


@large
def test_second_derivatives():
    x = zeros(ROWS, CLASSES)
    grad, hess = xent.cross_entropy_grad_hess(x, np.zeros(ROWS, int), reduction="sum", out=(x, None))
    assert float(grad[-1, -1]) == 1 / CLASSES
    assert float(hess[-1, -1]) == pytest.approx(1 / CLASSES, rel=1e-3)
    assert float(grad[-1, 0]) == pytest.approx(1 / CLASSES - 1, rel=1e-3)


@large
def test_losses_of_classes_and_their_gradients():
    x, labels = zeros(ROWS, CLASSES), np.full(ROWS, CLASSES - 1)
    _, grad = xent.nll_loss_value_and_grad(x, labels, reduction="sum")
    assert grad[-1, [0, -1]].tolist() == [0, -1]
    del grad
    ids, log_p = np.full((ROWS, 1), CLASSES - 1), np.zeros((ROWS, 1), np.float32)
    _, grad = xent.sparse_distillation_loss_value_and_grad(x, ids, log_p, reduction="sum")
    assert float(grad[-1, -1]) == pytest.approx(1 / CLASSES - 1, rel=1e-3)
    del grad
    assert xent.compare(x, x, labels).count == ROWS
    x[-1, -1] = 1.0
    _, grad = xent.distillation_loss_value_and_grad(x, zeros(ROWS, CLASSES), reduction="sum", out=x)
    p = np.e / (np.e + CLASSES - 1)
    assert float(grad[-1, -1]) == pytest.approx(p - 1 / CLASSES, rel=1e-3)
    assert float(grad[-2, -1]) == 0


@large
@pytest.mark.parametrize("height, width", [(2**16 + 1, 2**15), (2, MORE // 2)])
def test_gradients_of_pixels(height, width):
    x, grad = zeros(1, 1, height, width), zeros(1, 1, height, width)
    x[..., -1, -1], grad[..., -1, -1] = 3.0, 2.0
    kernel = np.full((1, 1, 1, 1), 2.0, np.float16)
    by_x, by_weight, by_bias = xent.conv2d_backward(grad, x, kernel)
    assert float(by_x[0, 0, -1, -1]) == 4 and float(by_x[0, 0, 0, -1]) == 0
    assert by_weight.item() == 6 and by_bias.item() == 2
    del by_x
    assert float(xent.im2col(x, 1)[0, 0, -1]) == 3
    assert float(xent.col2im(grad.reshape(1, 1, -1), (height, width), 1)[0, 0, -1, -1]) == 2
    if width < 2**30:
        assert float(xent.max_pool2d_backward(grad, x, 1)[0, 0, -1, -1]) == 2
        assert float(xent.avg_pool2d_backward(grad, x, 1)[0, 0, -1, -1]) == 2


@large
def test_scores_of_a_layer():
    x, weight = np.ones((2**16, 1), np.float32), np.zeros((2**15 + 1, 1), np.float32)
    loss = xent.linear_cross_entropy(x, weight, np.zeros(2**16, int))
    assert loss == pytest.approx(np.log(2**15 + 1), rel=1e-6)


# ---- sizes that no memory holds ----


def repeated(*shape):
    """An array of any size that takes four bytes."""
    return np.broadcast_to(np.float32(0), shape)


HUGE = repeated(2**20, 2**40)  # 2^62 bytes
IMPOSSIBLE = {
    "softmax": lambda: xent.softmax(HUGE),
    "log_softmax of all": lambda: xent.log_softmax(HUGE, None),
    "softmax_backward": lambda: xent.softmax_backward(HUGE, HUGE),
    "softmax_jacobian": lambda: xent.softmax_jacobian(repeated(2**33)),
    "sigmoid": lambda: xent.sigmoid(HUGE),
    "cross_entropy_grad": lambda: xent.cross_entropy_grad(HUGE, np.zeros(2**20, int)),
    "losses": lambda: xent.cross_entropy(repeated(2**58, 2), np.broadcast_to(0, 2**58), reduction="none"),
    "mse_loss_grad": lambda: xent.mse_loss_grad(HUGE, HUGE),
    "linear_cross_entropy": lambda: xent.linear_cross_entropy(
        repeated(2**40, 2**18), repeated(2**40, 2**18), np.broadcast_to(0, 2**40)
    ),
    "token_log_probs": lambda: xent.token_log_probs(HUGE, np.broadcast_to(0, (2**20, 2**37))),
    "im2col": lambda: xent.im2col(repeated(2**10, 2**10, 2**15, 2**15), 3),
    "max_pool2d": lambda: xent.max_pool2d(repeated(2**10, 2**10, 2**20, 2**18), 2),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_no_memory_holds_it(name):
    with pytest.raises((MemoryError, ValueError)) as error:
        IMPOSSIBLE[name]()
    assert str(error.value)
