"""Every option that PyTorch knows gives the same loss and gradient here, in float64.

What PyTorch has no option for is composed of its operators and differentiated by it.
"""

import numpy as np
import pytest
from helpers import random_labels, random_logits, random_probabilities, random_weights

import xent

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = pytest.mark.peers

N, C = 13, 7
X = random_logits((N, C), np.float64)
LABELS = random_labels((N,), C, ignored=0.2)
PROBS = random_probabilities((N, C), np.float64)
ONES = (PROBS > 0.15).astype(np.float64)
WEIGHT = random_weights(C, np.float64)
PRIOR = random_probabilities((C,), np.float64) * 0.9 + 0.1 / C
P = torch.softmax(torch.tensor(X), 1).numpy()
REDUCTIONS = ["none", "sum", "mean"]


def leaf(array):
    return torch.tensor(array, requires_grad=True)


def close(actual, expected):
    expected = expected.detach().numpy() if isinstance(expected, torch.Tensor) else expected
    np.testing.assert_allclose(actual, expected, rtol=1e-11, atol=1e-13)


def tensors(options):
    return {name: torch.tensor(v) if isinstance(v, np.ndarray) else v for name, v in options.items()}


def same(name, theirs, x, *args, **options):
    """Loss, gradient and both: of the sum, where nothing is reduced."""
    z = leaf(x)
    expected = theirs(z)
    (gradient,) = torch.autograd.grad(expected.sum(), z)
    loss, grad = getattr(xent, f"{name}_value_and_grad")(x, *args, **options)
    close(loss, expected)
    close(grad, gradient)
    close(getattr(xent, name)(x, *args, **options), expected)
    close(getattr(xent, f"{name}_grad")(x, *args, **options), gradient)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("target", [LABELS, PROBS], ids=["labels", "probabilities"])
@pytest.mark.parametrize(
    "options", [{}, {"weight": WEIGHT}, {"label_smoothing": 0.1}, {"ignore_index": 2}], ids=str
)
def test_cross_entropy(options, target, reduction):
    if "ignore_index" in options:
        if target is PROBS:
            pytest.skip("PyTorch ignores labels only")
        target = np.abs(target) % C
    theirs = {**tensors(options), "reduction": reduction}
    same(
        "cross_entropy",
        lambda z: F.cross_entropy(z, torch.tensor(target), **theirs),
        X,
        target,
        **options,
        reduction=reduction,
    )


def composed(z, y, temperature=1.0, logit_cap=None, z_loss=0.0, prior=None, gamma=0.0):
    u = z / temperature
    u = u if logit_cap is None else logit_cap * torch.tanh(u / logit_cap)
    u = u if prior is None else u + torch.log(prior)
    log_p = torch.log_softmax(u, 1).gather(1, y[:, None])[:, 0]
    focal = (1 - log_p.exp()) ** gamma if gamma else 1.0
    return torch.mean(-focal * log_p + z_loss * torch.logsumexp(u, 1) ** 2)


COMPOSED = [
    {"temperature": 2.5},
    {"logit_cap": 3.0},
    {"z_loss": 0.1},
    {"prior": PRIOR},
    {"gamma": 2.0},
    {"temperature": 0.7, "logit_cap": 5.0, "z_loss": 0.01, "prior": PRIOR, "gamma": 1.5},
]


@pytest.mark.parametrize("options", COMPOSED, ids=lambda o: " ".join(o))
def test_composed_options_and_their_second_order(options):
    labels = np.abs(LABELS) % C
    vector = random_logits((N, C), np.float64, seed=1)

    def loss(z):
        return composed(z, torch.tensor(labels), **tensors(options))

    same("cross_entropy", loss, X, labels, **options)
    product = torch.autograd.functional.hvp(loss, torch.tensor(X), torch.tensor(vector))[1]
    close(xent.cross_entropy_hvp(X, labels, vector, **options), product)
    if not {"logit_cap", "z_loss", "gamma"} & options.keys():
        hessian = torch.autograd.functional.hessian(loss, torch.tensor(X)).reshape(N * C, N * C)
        close(xent.cross_entropy_grad_hess(X, labels, **options)[1], hessian.diagonal().reshape(N, C))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("bias", [None, WEIGHT], ids=["no bias", "bias"])
def test_linear_cross_entropy(bias, reduction):
    features = [random_logits((n, 5), np.float64, seed=n) for n in (N, C)]
    leaves = [leaf(a) for a in features] + ([] if bias is None else [leaf(bias)])
    x, weight, *rest = leaves
    expected = F.cross_entropy(F.linear(x, weight, *rest), torch.tensor(LABELS), reduction=reduction)
    if hasattr(F, "linear_cross_entropy"):
        options = {"linear_bias": rest[0]} if rest else {}
        own = F.linear_cross_entropy(x, weight, torch.tensor(LABELS), reduction=reduction, **options)
        close(own.detach().numpy(), expected)
    gradients = torch.autograd.grad(expected, leaves)
    loss, grads = xent.linear_cross_entropy_value_and_grad(*features, LABELS, bias, reduction=reduction)
    close(loss, expected)
    for grad, gradient in zip(grads, gradients, strict=False):
        close(grad, gradient)


def focal(z, t, alpha, gamma):
    """torchvision.ops.sigmoid_focal_loss."""
    p = torch.sigmoid(z)
    p_t = p * t + (1 - p) * (1 - t)
    ce = F.binary_cross_entropy_with_logits(z, t, reduction="none") * (1 - p_t) ** gamma
    return torch.mean((alpha * t + (1 - alpha) * (1 - t)) * ce)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    "name, theirs, x, target, options",
    [
        ("sigmoid_cross_entropy", "binary_cross_entropy_with_logits", X, PROBS, {"pos_weight": WEIGHT}),
        (
            "sigmoid_cross_entropy",
            "binary_cross_entropy_with_logits",
            X,
            PROBS,
            {"pos_weight": WEIGHT, "weight": PRIOR},
        ),
        ("binary_cross_entropy", "binary_cross_entropy", P, PROBS, {}),
        ("mse_loss", "mse_loss", X, PROBS, {}),
        ("nll_loss", "nll_loss", np.log(P), LABELS, {"weight": WEIGHT}),
    ],
)
def test_losses(name, theirs, x, target, options, reduction):
    call, given = getattr(F, theirs), {**tensors(options), "reduction": reduction}
    same(name, lambda z: call(z, torch.tensor(target), **given), x, target, **options, reduction=reduction)


@pytest.mark.parametrize("log_target", [False, True])
def test_kl_div(log_target):
    target = np.log(PROBS) if log_target else PROBS
    same(
        "kl_div",
        lambda z: F.kl_div(z, torch.tensor(target), reduction="batchmean", log_target=log_target),
        np.log(P),
        target,
        log_target=log_target,
    )


def test_focal_and_distillation():
    same(
        "sigmoid_cross_entropy",
        lambda z: focal(z, torch.tensor(ONES), 0.25, 2.0),
        X,
        ONES,
        alpha=0.25,
        gamma=2.0,
    )
    teacher = random_logits((N, C), np.float64, seed=2)
    logs = torch.log_softmax(torch.tensor(teacher) / 3, 1)
    same(
        "distillation_loss",
        lambda z: 9 * F.kl_div(torch.log_softmax(z / 3, 1), logs, reduction="batchmean", log_target=True),
        X,
        teacher,
        temperature=3.0,
    )


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "sigmoid", "log_sigmoid"])
def test_activations(name):
    z, upstream = leaf(X), random_logits((N, C), np.float64, seed=3)
    theirs = {"sigmoid": torch.sigmoid, "log_sigmoid": F.logsigmoid}.get(name) or (
        lambda z: getattr(torch, name)(z, -1)
    )
    y = getattr(xent, name)(X)
    close(y, theirs(z))
    if name.endswith("softmax"):
        backward = getattr(xent, f"{name}_backward")(upstream, y)
        close(backward, torch.autograd.grad(theirs(z), z, torch.tensor(upstream))[0])


IMAGES = random_logits((2, 4, 9, 8), np.float64)


@pytest.mark.parametrize(
    "options", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": 2, "groups": 2}], ids=str
)
def test_convolution(options):
    weight = random_logits((6, 4 // options.get("groups", 1), 3, 2), np.float64)
    leaves = [leaf(a) for a in (IMAGES, weight, np.arange(6.0))]
    y = F.conv2d(*leaves, **options)
    upstream = random_logits(tuple(y.shape), np.float64, seed=4)
    close(xent.conv2d(IMAGES, weight, np.arange(6.0), **options), y)
    expected = torch.autograd.grad(y, leaves, torch.tensor(upstream))
    for grad, gradient in zip(
        xent.conv2d_backward(upstream, IMAGES, weight, **options), expected, strict=True
    ):
        close(grad, gradient)
    close(
        xent.conv_transpose2d(upstream, weight, **options),
        F.conv_transpose2d(torch.tensor(upstream), leaves[1], **options),
    )


@pytest.mark.parametrize(
    "name, options",
    [
        ("max_pool2d", {"stride": 2, "padding": 1}),
        ("max_pool2d", {"dilation": 2, "ceil_mode": True}),
        ("avg_pool2d", {"stride": 2, "padding": 1}),
        ("avg_pool2d", {"padding": 1, "count_include_pad": False}),
    ],
)
def test_pooling(name, options):
    z = leaf(IMAGES)
    y = getattr(F, name)(z, 3, **options)
    upstream = random_logits(tuple(y.shape), np.float64, seed=5)
    close(getattr(xent, name)(IMAGES, 3, **options), y)
    backward = getattr(xent, f"{name}_backward")(upstream, IMAGES, 3, **options)
    close(backward, torch.autograd.grad(y, z, torch.tensor(upstream))[0])


def test_columns():
    options = {"stride": 2, "padding": 1, "dilation": 1}
    columns = F.unfold(torch.tensor(IMAGES), (3, 2), **options)
    close(xent.im2col(IMAGES, (3, 2), **options), columns)
    close(xent.col2im(columns.numpy(), (9, 8), (3, 2), **options), F.fold(columns, (9, 8), (3, 2), **options))
