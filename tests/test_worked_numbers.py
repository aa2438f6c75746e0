"""Numbers worked out by hand in textbooks and lecture notes, and the identities that they illustrate."""

import numpy as np
import pytest
from helpers import assert_ulp, differences
from tolerances import DIFFERENCES, bound

import xent

# Three predictions over three classes and their labels: sure of nothing, right, right, wrong.
OUTPUTS = np.array([[0.1, 0.3, 0.6], [0.2, 0.6, 0.2], [0.3, 0.4, 0.3]])
LABELS = np.array([2, 1, 0])
ONE_HOT = np.eye(3)[LABELS]


def test_softmax_of_one_two_three():
    assert np.round(xent.softmax([1, 2, 3]), 2).tolist() == [0.09, 0.24, 0.67]
    assert np.round(xent.softmax(np.array([1, 2, 3], np.float32)), 2).tolist() == pytest.approx(
        [0.09, 0.24, 0.67]
    )


def test_jacobian_of_softmax():
    y = xent.softmax([1.0, 2.0, 3.0])
    jacobian = xent.softmax_jacobian(y)
    assert np.allclose(jacobian, np.diag(y) - np.outer(y, y), rtol=0, atol=1e-16)
    for c in range(3):
        column = differences(lambda v, c=c: xent.softmax(v)[c], np.array([1.0, 2.0, 3.0]))
        assert np.allclose(jacobian[c], column, rtol=0, atol=DIFFERENCES)
    assert np.allclose(jacobian.sum(0), 0, rtol=0, atol=1e-16)


def test_softmax_of_two_classes_is_the_sigmoid_of_their_difference(dtype):
    a = np.linspace(-20, 20, 101).astype(dtype)
    b = np.linspace(7, -3, 101).astype(dtype)
    p = xent.softmax(np.stack([a, b], axis=1))
    difference = a.astype(np.float64) - b  # exact for float32
    rounding = 0 if dtype == np.float32 else 16 * np.finfo(dtype).eps
    sigmoid = xent.sigmoid(difference)
    assert_ulp(p[:, 0], sigmoid, bound("probability", dtype) + 4, dtype=dtype, slack=rounding * sigmoid)


def test_mean_squared_error_of_three_predictions():
    squared = ((OUTPUTS - ONE_HOT) ** 2).sum(1).mean()
    assert round(squared, 2) == 0.41  # (0.26 + 0.24 + 0.74) / 3
    probabilities = xent.softmax(np.log(OUTPUTS))  # softmax undoes the logarithm
    assert np.allclose(((probabilities - ONE_HOT) ** 2).sum(1).mean(), squared, rtol=0, atol=1e-15)


def test_cross_entropy_of_three_predictions():
    log_probs = np.log(OUTPUTS)
    for loss in [xent.nll_loss, xent.cross_entropy]:  # log-probabilities are logits whose log-sum-exp is 0
        assert np.round(loss(log_probs, LABELS, reduction="none"), 2).tolist() == [0.51, 0.51, 1.20]
        assert round(float(loss(log_probs, LABELS)), 2) == 0.74
    assert round(float(xent.cross_entropy(log_probs, ONE_HOT)), 2) == 0.74
    assert np.mean(OUTPUTS.argmax(1) != LABELS) == pytest.approx(1 / 3)


def test_cross_entropy_in_dits():
    q = np.array([[0.5, 0.2, 0.3], [0.8, 0.1, 0.1]])
    p = np.array([[1.0, 0, 0], [1, 0, 0]])
    for target in [p, np.array([0, 0])]:
        dits = xent.cross_entropy(np.log(q), target, reduction="none") / np.log(10)
        assert np.round(dits, 3).tolist() == [0.301, 0.097]
        assert round(float(xent.cross_entropy(np.log(q), target) / np.log(10)), 3) == 0.199


def test_gradient_through_the_jacobian_is_probability_minus_target():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20, 7))
    labels = rng.integers(0, 7, 20)
    y = xent.softmax(logits)
    one_hot = np.eye(7)[labels]
    upstream = -one_hot / y  # of -sum t log y
    through_jacobian = np.einsum("nij,nj->ni", xent.softmax_jacobian(y), upstream)
    fused = xent.cross_entropy_grad(logits, labels, reduction="sum")
    assert np.allclose(fused, y - one_hot, rtol=0, atol=1e-15)
    assert np.allclose(fused, through_jacobian, rtol=0, atol=1e-14)
    assert np.allclose(fused, xent.softmax_backward(upstream, y), rtol=0, atol=1e-14)
    log_probs = xent.log_softmax(logits)
    assert np.allclose(fused, xent.log_softmax_backward(-one_hot, log_probs), rtol=0, atol=1e-15)


def test_fully_connected_layer_on_flattened_feature_maps():
    rng = np.random.default_rng(1)
    maps = rng.normal(0, 1, (3, 100, 4, 4))  # 100 feature maps of 4 x 4, for three images
    features = maps.reshape(3, 1600)
    weight = rng.normal(0, 0.05, (7, 1600))
    bias = rng.normal(0, 0.1, 7)
    labels = np.array([0, 6, 3])

    def loss_of(features, weight, bias):
        return xent.cross_entropy(features @ weight.T + bias, labels)

    logits = features @ weight.T + bias
    assert logits.shape == (3, 7)
    loss, grad = xent.cross_entropy_value_and_grad(logits, labels)
    y = xent.softmax(logits)
    assert loss == pytest.approx(-np.log(y[range(3), labels]).mean(), rel=1e-15)
    assert np.allclose(
        grad, differences(lambda v: xent.cross_entropy(v, labels), logits), rtol=0, atol=DIFFERENCES
    )

    grad_features, grad_weight, grad_bias = grad @ weight, grad.T @ features, grad.sum(0)
    by_bias = differences(lambda v: loss_of(features, weight, v), bias)
    assert np.allclose(grad_bias, by_bias, rtol=0, atol=DIFFERENCES)
    # along a few coordinates and a few directions, for there are many
    for name, gradient, at in [("weight", grad_weight, weight), ("features", grad_features, features)]:
        for seed in range(5):
            direction = np.random.default_rng(seed).normal(size=at.shape) / np.sqrt(at.size)
            if seed == 0:
                direction = np.zeros(at.shape)
                direction[2, 1234] = 1
            arguments = {"features": features, "weight": weight, "bias": bias}

            def along(step, name=name, at=at, direction=direction, arguments=arguments):
                return loss_of(**arguments | {name: at + step[0] * direction})

            slope = differences(along, np.zeros(1))[0]
            assert slope == pytest.approx((gradient * direction).sum(), abs=10 * DIFFERENCES)

    # the layer is a convolution with kernels as large as the maps
    by_convolution = xent.conv2d(maps, weight.reshape(7, 100, 4, 4), bias)
    assert np.allclose(by_convolution.reshape(3, 7), logits, rtol=0, atol=1e-12)
    map_grads = xent.conv2d_backward(grad.reshape(3, 7, 1, 1), maps, weight.reshape(7, 100, 4, 4))
    assert np.allclose(map_grads[0].reshape(3, 1600), grad_features, rtol=0, atol=1e-13)
    assert np.allclose(map_grads[1].reshape(7, 1600), grad_weight, rtol=0, atol=1e-13)
    assert np.allclose(map_grads[2], grad_bias, rtol=0, atol=1e-13)
