"""Mean cross-entropy of labels, alone and with its gradient; the same with one of its options.

SciPy and scikit-learn have no full set of losses; what is composed here is what their users compose.
scikit-learn's gradient is that of the sum: it saves the division. PyTorch has label smoothing as an option;
its other options are composed as its users compose them, and those of JAX as optax has them.
"""

import numpy as np

import xent

from . import adapters, softmax
from .libraries import THREADS, functional, jax, sklearn_loss, special, torch

TEMPERATURE, CAP, Z_LOSS, SMOOTHING = 2.5, 30.0, 1e-4, 0.1  # cap and z-loss of language models in use
OPTIONS = ["temperature", "prior", "logit cap", "z-loss", "label smoothing", "focal"]
OPTIONS += ["class weights", "sample weights"]


class LabelledLogits(softmax.Logits):
    """Logits and labels, and what the options take beside them: frequencies of the classes, or weights."""

    def arguments(self, operator):
        extra = {"prior": self.prior, "class weights": self.weights, "sample weights": self.sample_weights}
        option = operator.partition(" ")[2]
        return (self.x, self.y, extra[option]()) if option in extra else (self.x, self.y)

    def weights(self):
        """Return one weight for each class."""
        return np.random.default_rng(2).uniform(0.5, 2, self.x.shape[self.axis]).astype(self.x.dtype)

    def sample_weights(self):
        """Return one weight for each position."""
        return np.random.default_rng(3).uniform(0.5, 2, self.y.shape).astype(self.x.dtype)

    def prior(self):
        """Return frequencies of the classes as long tails have them."""
        weights = 1 / np.arange(1, self.x.shape[self.axis] + 1)
        return weights / weights.sum()


class AddedPrior(LabelledLogits):
    """The same where a prior is its logarithm, added to the logits."""

    def prior(self):
        along = [1] * self.x.ndim
        along[self.axis] = -1
        return np.log(super().prior()).astype(self.x.dtype).reshape(along)


class LabelsOnAxis(LabelledLogits):
    """The same for np.take_along_axis, which wants labels with an axis of one class."""

    def arguments(self, operator):
        return self.x, np.expand_dims(self.y, self.axis)


class Xent(LabelledLogits, adapters.Xent):
    def cross_entropy(self, x, y):
        return xent.cross_entropy(x, y, axis=self.axis)

    def cross_entropy_value_and_grad(self, x, y):
        return xent.cross_entropy_value_and_grad(x, y, axis=self.axis)

    def cross_entropy_value_and_grad_temperature(self, x, y):
        return xent.cross_entropy_value_and_grad(x, y, axis=self.axis, temperature=TEMPERATURE)

    def cross_entropy_value_and_grad_prior(self, x, y, prior):
        return xent.cross_entropy_value_and_grad(x, y, axis=self.axis, prior=prior)

    def cross_entropy_value_and_grad_logit_cap(self, x, y):
        return xent.cross_entropy_value_and_grad(x, y, axis=self.axis, logit_cap=CAP)

    def cross_entropy_value_and_grad_z_loss(self, x, y):
        return xent.cross_entropy_value_and_grad(x, y, axis=self.axis, z_loss=Z_LOSS)

    def cross_entropy_value_and_grad_label_smoothing(self, x, y):
        return xent.cross_entropy_value_and_grad(x, y, axis=self.axis, label_smoothing=SMOOTHING)

    def cross_entropy_value_and_grad_focal(self, x, y):
        return xent.cross_entropy_value_and_grad(x, y, axis=self.axis, gamma=2.0)

    def cross_entropy_value_and_grad_class_weights(self, x, y, weight):
        return xent.cross_entropy_value_and_grad(x, y, axis=self.axis, weight=weight)

    def cross_entropy_value_and_grad_sample_weights(self, x, y, weight):
        return xent.cross_entropy_value_and_grad(x, y, axis=self.axis, sample_weight=weight)


class XentInPlace(LabelledLogits, adapters.XentInPlace):
    def cross_entropy_value_and_grad(self, x, y, out):
        return xent.cross_entropy_value_and_grad(x, y, axis=self.axis, out=out)


class Torch(AddedPrior, adapters.Torch):
    cross_entropy = staticmethod(functional and functional.cross_entropy)

    def cross_entropy_temperature(self, x, y):
        return functional.cross_entropy(x / TEMPERATURE, y)

    def cross_entropy_prior(self, x, y, log_prior):
        return functional.cross_entropy(x + log_prior, y)

    def cross_entropy_logit_cap(self, x, y):
        return functional.cross_entropy(CAP * torch.tanh(x / CAP), y)

    def cross_entropy_z_loss(self, x, y):
        return functional.cross_entropy(x, y) + Z_LOSS * (torch.logsumexp(x, self.axis) ** 2).mean()

    def cross_entropy_label_smoothing(self, x, y):
        return functional.cross_entropy(x, y, label_smoothing=SMOOTHING)

    def cross_entropy_focal(self, x, y):
        loss = functional.cross_entropy(x, y, reduction="none")
        return ((1 - torch.exp(-loss)) ** 2 * loss).mean()

    def cross_entropy_class_weights(self, x, y, weight):
        return functional.cross_entropy(x, y, weight)

    def cross_entropy_sample_weights(self, x, y, weight):
        return (functional.cross_entropy(x, y, reduction="none") * weight).sum() / weight.sum()


class TorchCompiled(adapters.TorchCompiled, Torch):
    pass


class Jax(AddedPrior, adapters.Jax):
    def _target(self, x, y):
        return jax.numpy.take_along_axis(x, jax.numpy.expand_dims(y, self.axis), self.axis).squeeze(self.axis)

    def _losses(self, x, y):
        # Through logsumexp: XLA makes faster code of it than of log_softmax.
        return jax.nn.logsumexp(x, self.axis) - self._target(x, y)

    def cross_entropy(self, x, y):
        return self._losses(x, y).mean()

    def cross_entropy_temperature(self, x, y):
        return self._losses(x / TEMPERATURE, y).mean()

    def cross_entropy_prior(self, x, y, log_prior):
        return self._losses(x + log_prior, y).mean()

    def cross_entropy_logit_cap(self, x, y):
        return self._losses(CAP * jax.numpy.tanh(x / CAP), y).mean()

    def cross_entropy_z_loss(self, x, y):
        return self._losses(x, y).mean() + Z_LOSS * (jax.nn.logsumexp(x, self.axis) ** 2).mean()

    def cross_entropy_label_smoothing(self, x, y):
        smoothed = (1 - SMOOTHING) * self._target(x, y) + SMOOTHING * x.mean(self.axis)
        return (jax.nn.logsumexp(x, self.axis) - smoothed).mean()

    def cross_entropy_focal(self, x, y):
        loss = self._losses(x, y)
        return ((1 - jax.numpy.exp(-loss)) ** 2 * loss).mean()

    def cross_entropy_class_weights(self, x, y, weight):
        of_labels = weight[y]
        return (self._losses(x, y) * of_labels).sum() / of_labels.sum()

    def cross_entropy_sample_weights(self, x, y, weight):
        return (self._losses(x, y) * weight).sum() / weight.sum()


class SciPy(LabelsOnAxis, adapters.SciPy):
    def cross_entropy(self, x, labels):
        return -np.take_along_axis(special.log_softmax(x, self.axis), labels, self.axis).mean()


class ScikitLearn(LabelledLogits, adapters.ScikitLearn):
    """The loss of LogisticRegression and HistGradientBoostingClassifier, for matrices of rows."""

    def __init__(self, x, y, axis):
        if x.ndim != 2 or axis != -1:
            raise TypeError("takes logits of shape (n, classes) only")
        super().__init__(x, y.astype(x.dtype), axis)
        self.model = sklearn_loss.HalfMultinomialLoss(n_classes=x.shape[1])
        self.loss, self.grad = np.empty(len(x), x.dtype), np.empty_like(x)

    def cross_entropy(self, x, y):
        return self.model.loss(y, x, loss_out=self.loss, n_threads=THREADS).mean()

    def cross_entropy_value_and_grad(self, x, y):
        self.model.loss_gradient(y, x, loss_out=self.loss, gradient_out=self.grad, n_threads=THREADS)
        return self.loss.mean(), self.grad


class NumPy(LabelsOnAxis, softmax.NumPy):
    def cross_entropy(self, x, labels):
        target = np.take_along_axis(x, labels, self.axis).squeeze(self.axis)
        return (self.logsumexp(x) - target).mean()

    def cross_entropy_value_and_grad(self, x, labels):
        p = self.softmax(x)
        of_labels = np.take_along_axis(p, labels, self.axis)
        np.put_along_axis(p, labels, of_labels - 1, self.axis)
        p /= labels.size
        return -np.log(of_labels).mean(), p


PEERS = [Xent, XentInPlace, Torch, TorchCompiled, Jax, SciPy, ScikitLearn, NumPy]
