"""
Iris flowers
============

The smallest complete use of xent: a 4-7-3 tanh network learns Fisher's iris flowers.

::

    pip install ".[demo]"
    python examples/iris.py

The network is plain NumPy; xent gives the loss and its gradient for the logits, where backpropagation begins.
The last line printed is the accuracy on the 38 flowers kept for the test. So few flowers make it coarse: each
counts 2.6 %, and other splits give anything from 0.87 to 1.00.
"""

import numpy as np
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

import xent

SEED = 0
HIDDEN = 7
STEPS = 200
LEARNING_RATE = 0.2
MOMENTUM = 0.9


def load_flowers():
    """The 150 flowers, a quarter of each species kept for the test.

    The features are standardised with the training set's mean and deviation. Returns training features, test
    features, training species, test species.
    """
    features, species = load_iris(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        features, species, test_size=0.25, stratify=species, random_state=SEED
    )
    mean, std = x_train.mean(axis=0), x_train.std(axis=0)
    return (x_train - mean) / std, (x_test - mean) / std, y_train, y_test


def initial_parameters(rng):
    """Weights and biases of the two layers, 4 -> HIDDEN -> 3; weights of variance 1 / fan-in."""
    w1 = rng.standard_normal((4, HIDDEN)) / np.sqrt(4)
    w2 = rng.standard_normal((HIDDEN, 3)) / np.sqrt(HIDDEN)
    return [w1, np.zeros(HIDDEN), w2, np.zeros(3)]


def forward(params, x):
    """The hidden activations h = tanh(x w1 + b1) and the logits z = h w2 + b2."""
    w1, b1, w2, b2 = params
    h = np.tanh(x @ w1 + b1)
    return h, h @ w2 + b2


def loss_and_grads(params, x, y):
    """The mean cross-entropy of the species `y` in nats, and its gradient for each parameter."""
    _, _, w2, _ = params
    h, z = forward(params, x)

    # With L the loss and p = softmax(z), xent returns L and
    #     dz = dL/dz = (p - onehot(y)) / N            (N, 3)
    loss, dz = xent.cross_entropy_value_and_grad(z, y)

    # z[n, k] = sum_j h[n, j] w2[j, k] + b2[k] for flower n, hidden unit j, species k. Each derivative sums dz
    # over the z that the variable appears in, times what it is multiplied with there:
    #     dL/dw2[j, k] = sum_n h[n, j] dz[n, k]
    #     dL/db2[k]    = sum_n dz[n, k]
    #     dL/dh[n, j]  = sum_k dz[n, k] w2[j, k]
    dw2, db2, dh = h.T @ dz, dz.sum(axis=0), dz @ w2.T

    # h = tanh(a) with a = x w1 + b1, and tanh' = 1 - tanh^2:
    #     dL/da = dL/dh (1 - h^2)                     elementwise, (N, HIDDEN)
    da = dh * (1 - h**2)

    # a = x w1 + b1 is again a linear layer, with x in place of h; x needs no gradient.
    dw1, db1 = x.T @ da, da.sum(axis=0)
    return loss, [dw1, db1, dw2, db2]


def main():
    x_train, x_test, y_train, y_test = load_flowers()
    params = initial_parameters(np.random.default_rng(SEED))
    velocities = [np.zeros_like(p) for p in params]

    for step in range(1, STEPS + 1):
        loss, grads = loss_and_grads(params, x_train, y_train)
        for p, v, g in zip(params, velocities, grads, strict=True):
            v *= MOMENTUM
            v += g
            p -= LEARNING_RATE * v
        if step % 50 == 0:
            print(f"step {step}: training loss {loss:.4f}")

    _, logits = forward(params, x_test)
    accuracy = np.mean(logits.argmax(axis=1) == y_test)
    print(f"test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
