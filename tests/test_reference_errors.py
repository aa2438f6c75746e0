"""What xent refuses its reference refuses too: a test against it would else pass for the wrong reason."""

import numpy as np
import pytest

import xent

X, LABELS = np.linspace(-1, 1, 15).reshape(3, 5), np.array([0, 4, 2])
IMAGE, KERNEL, OUTPUT = np.ones((1, 2, 5, 5)), np.ones((3, 2, 3, 3)), np.ones((1, 3, 3, 3))
UNKNOWN = {"reduction": "median"}

# function, arguments, options
CALLS = [
    ("softmax", (X + 1j,), {}),
    ("softmax", (X,), {"out": np.empty((5, 3))}),
    ("cross_entropy", (X, LABELS), UNKNOWN),
    ("cross_entropy", (X, LABELS + 3), {}),
    ("cross_entropy", (np.zeros((3, 0)), np.zeros((3, 0))), {}),
    ("cross_entropy", (X[0], 1), {"reduction": "mean_batch"}),
    ("cross_entropy_grad_hess", (X, LABELS), {"hessian": "steep"}),
    ("cross_entropy_grad_hess", (X[:, :1], LABELS * 0), {"hessian": "friedman"}),
    ("cross_entropy_hvp", (X, LABELS, X[:2]), {}),
    ("cross_entropy_probs", (np.abs(X), LABELS + 3), {}),
    ("binary_cross_entropy", (np.abs(X), np.abs(X) + 1), {}),
    ("mse_loss", (X, X), UNKNOWN),
    ("mse_loss", (1.0, 2.0), {"reduction": "mean_batch"}),
    ("sigmoid_cross_entropy", (X, X[:2] > 0), {}),
    ("sigmoid_cross_entropy", (X, np.abs(X)), {"ignore_index": -1}),
    ("sigmoid_cross_entropy", (X, X > 0), UNKNOWN),
    ("sigmoid_cross_entropy", (1.0, 1), {"reduction": "mean_batch"}),
    ("evaluate", (X, LABELS), {"top_k": 0}),
    ("evaluate", (X, LABELS), {"base": 1}),
    ("evaluate_sequences", (X, LABELS, LABELS / 2), {}),
    ("evaluate_sequences", (X, LABELS, LABELS[:2]), {}),
    ("compare", (X, X[:2]), {}),
    ("token_log_probs", (X, LABELS[:2]), {}),
    ("token_log_probs", (X, LABELS + 3), {}),
    ("conv2d", (IMAGE, KERNEL), {"groups": 2}),
    ("conv2d", (IMAGE, KERNEL), {"activation": "tanh"}),
    ("conv2d", (IMAGE, KERNEL), {"padding": "full"}),
    ("conv2d", (IMAGE, KERNEL), {"padding": -1}),
    ("conv2d_backward", (OUTPUT[..., 1:], IMAGE, KERNEL), {}),
    ("conv_transpose2d", (OUTPUT, KERNEL), {"output_size": (9, 9)}),
    ("conv_transpose2d", (OUTPUT, KERNEL), {"padding": "same"}),
    ("conv_transpose2d", (OUTPUT, KERNEL), {"output_padding": 1}),
    ("conv_transpose2d", (OUTPUT, KERNEL), {"padding": 3}),
    ("conv_transpose2d_backward", (IMAGE[..., 1:], OUTPUT, KERNEL), {}),
    ("col2im", (np.ones((1, 8, 9)), (4, 4), 3), {}),
    ("max_pool2d_backward", (IMAGE, IMAGE, 2), {}),
]


@pytest.mark.parametrize("name, arguments, options", CALLS)
def test_both_refuse(name, arguments, options):
    for package in (xent, xent.reference):
        with pytest.raises((TypeError, ValueError)):
            getattr(package, name)(*arguments, **options)
