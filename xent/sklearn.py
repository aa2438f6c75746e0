"""Estimators for scikit-learn: softmax regression with more options than its own, and temperature scaling."""

import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from numbers import Real

import numpy as np

import xent

from . import _check

try:
    from scipy.optimize import minimize, minimize_scalar
    from sklearn.base import BaseEstimator, ClassifierMixin, OneToOneFeatureMixin, TransformerMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import column_or_1d
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"xent.sklearn needs scikit-learn 1.6 or later ({error}): pip install 'xent-kernels[sklearn]'"
    ) from error

__all__ = ["SoftmaxRegression", "TemperatureScaling"]

# Stopping rules beside `tol`, those of LogisticRegression: fits of both then stop at the same place. `tol` is
# for the gradient by the coefficients, L-BFGS sees that of its own coordinates.
_LINE_SEARCH = {"ftol": 64 * np.finfo(float).eps, "maxls": 50, "gtol": 0.0}
# Coordinates are changed where they are uneven: below this ratio of curvatures that saves no iterations.
_EVEN = 16.0
# What the change may cost beside about 20 evaluations of N samples, D features and C classes, of 4 N D C
# operations: an eigendecomposition of some 9 D^3, and products of features of 2 D^2 for each sample.
_FEATURES_LIMIT, _SAMPLES_SHARE, _SAMPLES_PER_FEATURE = 8, 16, 64
_PART = 4096  # samples that are copied at a time; some megabytes
# Products of so few multiplications OpenBLAS makes without packing matrices first (100^3 on AVX-512, in its
# dgemm_small_matrix_permit), and without threads that wait for each other. For 1e5 samples, 100 features and
# 10 classes a fit is 1.4 times as fast. Of fewer samples at a time Python takes longer than what it calls.
_SMALL_PRODUCT, _LEAST_BLOCK = 10**6, 250
_BLOCKS = 8  # of a task for a thread: some milliseconds
_LEAST_FREQUENCY = 1e-6  # of a class, of which there may be no sample
_LOG_SCALES = (-10.0, 10.0)  # of a temperature, relative to the spread of the logits: from 1 / 22026 to 22026
_LOG_TEMPERATURES = (-744.0, 709.0)  # next to the least and largest float64 numbers
_LOG_SCALE_TOLERANCE = 1e-9  # about the square root of the precision, which a minimum cannot be found beyond


class SoftmaxRegression(ClassifierMixin, BaseEstimator):
    """
    Softmax regression, also called multinomial logistic regression or a maximum entropy model.

    Minimises, by L-BFGS, the sum of the losses of `xent.linear_cross_entropy` and ``|coef|^2 / (2 C)``. With
    the options that it has too, this is the model of ``sklearn.linear_model.LogisticRegression``. Where
    features are correlated or of different sizes it takes far fewer iterations: they are evened out inside.

    Parameters
    ----------
    C : float, default=1.0
        Inverse strength of the penalty, greater than 0; ``np.inf`` for none. Intercepts are free.
    fit_intercept : bool, default=True
        Whether there are intercepts.
    class_weight : dict or "balanced", default=None
        One factor per class; "balanced" are those that make the weight of all classes the same.
    prior : array-like of float, shape (n_classes,), default=None
        Frequencies of the classes in training. Their logarithms are added to the logits while fitting and
        left out of predictions: for these, all classes are equally frequent.
    label_smoothing : float, default=0.0
        e in [0, 1]: mixes the uniform distribution into the labels.
    tol : float, default=1e-4
        The largest element of the gradient of the mean loss at which to stop.
    max_iter : int, default=1000
        Most iterations.
    warm_start : bool, default=False
        Whether to begin with the coefficients of the last fit.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels; numbers of columns where y is a matrix of probabilities.
    coef_ : ndarray of shape (n_classes, n_features), or (1, n_features) for two classes
        Coefficients.
    intercept_ : ndarray of shape (n_classes,) or (1,)
        Intercepts; zeros where there are none.
    n_iter_ : ndarray of shape (1,)
        Number of iterations.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.

    See Also
    --------
    xent.linear_cross_entropy, TemperatureScaling

    Notes
    -----
    X is an array; sparse matrices are refused. float32 is converted to float64 part by part.

    References
    ----------
    A. K. Menon et al., "Long-tail learning via logit adjustment", 2021, arXiv:2007.07314 (`prior`).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from xent.sklearn import SoftmaxRegression
    >>> x, y = load_iris(return_X_y=True)
    >>> model = SoftmaxRegression(label_smoothing=0.05).fit(x, y)
    >>> model.score(x, y) > 0.95
    True
    >>> model.predict_proba(x[:1]).round(1)
    array([[1., 0., 0.]])
    """

    def __init__(
        self,
        *,
        C=1.0,
        fit_intercept=True,
        class_weight=None,
        prior=None,
        label_smoothing=0.0,
        tol=1e-4,
        max_iter=1000,
        warm_start=False,
    ):
        self.C = C
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.prior = prior
        self.label_smoothing = label_smoothing
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start

    def fit(self, X, y, sample_weight=None):
        """
        Fit the model.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels of any kind; or soft labels: a matrix of probabilities.
        sample_weight : array-like of shape (n_samples,), default=None
            One factor per sample.

        Returns
        -------
        self : SoftmaxRegression
            The fitted estimator.
        """
        if not isinstance(self.C, Real):
            raise TypeError(f"C must be a number, got {type(self.C).__name__}")
        if not self.C > 0:
            raise ValueError(f"C must be greater than 0, got {self.C}")
        _check.real(self.label_smoothing, "label_smoothing", 0.0, 1.0)
        _check.real(self.tol, "tol", 0.0)
        _check.integer(self.max_iter, "max_iter", 0)
        X, target = self._checked(X, y)
        classes = len(self.classes_)
        sample_weight = _weights(sample_weight, len(X))
        masses = _masses(target, sample_weight, classes)
        class_weight = self._class_weight(masses)
        options = {"prior": self.prior, "label_smoothing": self.label_smoothing}
        samples = abs(masses.sum() if class_weight is None else masses @ class_weight) or 1.0
        # Two classes: |a - b|^2 is penalised, as one logit has it: 2 (|a|^2 + |b|^2) at the minimum.
        penalty = (1.0 if classes > 2 else 2.0) / (self.C * samples)
        frequencies = _frequencies(masses, class_weight, self.label_smoothing)
        curvature = np.diag(frequencies) - np.outer(frequencies, frequencies)
        space = _space(X, sample_weight, curvature, penalty, self.fit_intercept)
        start = self._begin(X.shape[1], frequencies)
        loss = _Loss(X, target, classes, class_weight, sample_weight, options)
        with loss.pool or nullcontext():
            self._minimise(_objective(loss, classes, self.fit_intercept, penalty, samples), start, space)
        return self

    def _checked(self, X, y):
        """Return X and what the loss takes as the target; set `classes_`."""
        dtypes = [np.float64, np.float32]
        shape = np.asarray(y).shape
        if len(shape) == 2 and shape[1] > 1:
            X, target = validate_data(self, X, y, dtype=dtypes, multi_output=True, y_numeric=True)
            target = np.asarray(target, np.float64)
            if not (target >= 0).all():
                raise ValueError("y must hold probabilities where it has more than one column: none below 0")
            self.classes_ = np.arange(target.shape[1])
            return X, target
        X, y = validate_data(self, X, y, dtype=dtypes)
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        self.classes_, target = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold at least two classes, got one class, {self.classes_[0]}")
        return X, target

    def _class_weight(self, masses):
        """Return one factor per class, or None; `masses` are the sums of the weights of the classes."""
        if self.class_weight is None:
            return None
        if isinstance(self.class_weight, str):
            if self.class_weight != "balanced":
                raise ValueError(
                    f'class_weight must be "balanced", a dict or None, not {self.class_weight!r}'
                )
            there = np.where(masses == 0, 1.0, masses)
            return masses.sum() / (len(masses) * there)
        if not isinstance(self.class_weight, Mapping):
            kind = type(self.class_weight).__name__
            raise TypeError(f'class_weight must be "balanced", a dict or None, got {kind}')
        unknown = set(self.class_weight) - set(self.classes_.tolist())
        if unknown:
            raise ValueError(f"class_weight names classes that are not in y: {sorted(unknown, key=str)}")
        return np.array([self.class_weight.get(label, 1.0) for label in self.classes_.tolist()], np.float64)

    def _minimise(self, objective, start, space):
        """Set the coefficients to where the objective is smallest."""
        classes, seen = len(self.classes_), {}

        def moved(steps):
            value, grad = objective(start + space.params(steps))
            seen.update(steps=steps.copy(), largest=np.abs(grad).max())
            return value, space.gradient(grad)

        def look(intermediate_result):
            if seen["largest"] <= self.tol and np.array_equal(seen["steps"], intermediate_result.x):
                raise StopIteration

        options = {"maxiter": self.max_iter, **_LINE_SEARCH}
        found = minimize(
            moved, np.zeros_like(start), method="L-BFGS-B", jac=True, callback=look, options=options
        )
        if not found.success and not seen["largest"] <= self.tol:
            warnings.warn(
                f"L-BFGS has not come to an end after {found.nit} iterations ({found.message}): scale the "
                "features, or raise max_iter or tol",
                ConvergenceWarning,
                stacklevel=3,
            )
        weight, bias = _unpacked(start + space.params(found.x), classes, self.fit_intercept)
        bias = np.zeros(classes) if bias is None else bias
        if classes == 2:  # one logit, of the second class, as in scikit-learn
            weight, bias = np.diff(weight, axis=0), np.diff(bias)
        self.coef_, self.intercept_ = weight, bias
        self.n_iter_ = np.array([max(found.nit, 1)], np.int32)

    def _begin(self, features, frequencies):
        """Return the parameters to begin with: those of the last fit, or the best without any feature."""
        classes = len(self.classes_)
        weight, bias = np.zeros((classes, features)), np.log(frequencies)
        prior = np.ones(classes) if self.prior is None else np.asarray(self.prior)
        is_one = prior.shape == bias.shape and prior.dtype.kind in "iuf" and (prior > 0).all()
        if is_one:  # others are an error of the loss
            bias -= np.log(prior)
        bias -= bias.mean()
        if self.warm_start and hasattr(self, "coef_"):
            shape = (1 if classes == 2 else classes, features)
            if self.coef_.shape != shape:
                raise ValueError(f"warm_start needs coef_ of shape {shape}, got {self.coef_.shape}")
            share = np.array([-0.5, 0.5])
            weight = share[:, None] * self.coef_ if classes == 2 else self.coef_
            bias = share * self.intercept_ if classes == 2 else self.intercept_
        return np.concatenate([weight.ravel(), bias] if self.fit_intercept else [weight.ravel()])

    def decision_function(self, X):
        """
        Logits.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            Logits; for two classes that of the second.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        logits = X @ self.coef_.T + self.intercept_
        return logits if len(self.classes_) > 2 else logits[:, 0]

    def predict(self, X):
        """
        The most probable class of each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples,)
            Labels.
        """
        logits = self.decision_function(X)
        return self.classes_[(logits > 0).astype(int) if logits.ndim == 1 else logits.argmax(axis=1)]

    def predict_proba(self, X):
        """
        Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        return xent.softmax(_both(self.decision_function(X)))

    def predict_log_proba(self, X):
        """
        Logarithms of the probabilities, exact where these are next to 0 or 1.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Log-probabilities, in the order of `classes_`.
        """
        return xent.log_softmax(_both(self.decision_function(X)))


class TemperatureScaling(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """
    Divides logits by the temperature that makes the loss of held-out samples smallest.

    It makes probabilities as certain as they are right, and leaves the order of the classes as it is.

    Attributes
    ----------
    temperature_ : float
        The temperature.
    n_features_in_ : int
        Number of columns of the logits.

    See Also
    --------
    xent.cross_entropy, xent.evaluate

    Notes
    -----
    X are logits of any model, a column for each class, and y are the numbers of the columns, so that a class
    that held-out samples lack has its column. One column is the logit of class 1, beside 0 for class 0.

    References
    ----------
    C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017,
    arXiv:1706.04599.

    Examples
    --------
    >>> import numpy as np
    >>> from xent.sklearn import TemperatureScaling
    >>> rng = np.random.default_rng(0)
    >>> logits = rng.standard_normal((10000, 5))
    >>> labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)  # logits that are right
    >>> scaling = TemperatureScaling().fit(3.0 * logits, labels)
    >>> print(round(scaling.temperature_, 1))
    3.0
    >>> probabilities = scaling.predict_proba(3.0 * logits)
    """

    def fit(self, X, y, sample_weight=None):
        """
        Find the temperature.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes) or (n_samples, 1)
            Logits.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels: numbers of columns; or soft labels: probabilities.
        sample_weight : array-like of shape (n_samples,), default=None
            One factor per sample.

        Returns
        -------
        self : TemperatureScaling
            The fitted estimator.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], multi_output=True)
        logits, target = _both(X), y
        if y.shape != logits.shape:
            y = column_or_1d(y, warn=True)
            check_classification_targets(y)
            try:
                target = y.astype(np.int64)
            except ValueError:  # names of classes
                target = None
            if not np.array_equal(target, y):
                raise ValueError("y must hold whole numbers, those of columns of X")
            if not 0 <= target.min() <= target.max() < logits.shape[1]:
                got = f"{target.min()} to {target.max()} where n_features = {X.shape[1]}"
                raise ValueError(f"y must hold numbers of columns of X, got {got}")
        sample_weight = _weights(sample_weight, len(logits))

        # half of the spread, which may be infinite itself
        half = (logits.max(axis=1) / 2.0 - logits.min(axis=1) / 2.0).max()
        if not half:  # all temperatures have the same loss
            self.temperature_ = 1.0
            return self
        log_spread = np.log(2.0) + np.log(np.float64(half))

        def loss(log_scale):
            temperature = np.exp(log_spread + log_scale)
            return xent.cross_entropy(logits, target, sample_weight=sample_weight, temperature=temperature)

        bounds = np.clip(log_spread + _LOG_SCALES, *_LOG_TEMPERATURES) - log_spread
        options = {"xatol": _LOG_SCALE_TOLERANCE}
        found = minimize_scalar(loss, bounds=bounds, method="bounded", options=options)
        self.temperature_ = float(np.exp(log_spread + found.x))
        return self

    def transform(self, X):
        """
        Logits divided by the temperature.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes) or (n_samples, 1)
            Logits.

        Returns
        -------
        ndarray
            Logits, of the shape of X.
        """
        check_is_fitted(self)
        return self._logits(X) / self.temperature_

    def predict_proba(self, X):
        """
        Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes) or (n_samples, 1)
            Logits.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Probabilities.
        """
        check_is_fitted(self)
        return xent.softmax(_both(self._logits(X)), temperature=self.temperature_)

    def _logits(self, X):
        return validate_data(self, X, dtype=[np.float64, np.float32], reset=False)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _weights(sample_weight, samples):
    """Return one finite number per sample, or None."""
    if sample_weight is None:
        return None
    weights = _check.floats(sample_weight, "sample_weight").astype(np.float64)
    if weights.ndim == 0:
        weights = np.full(samples, weights)
    if weights.shape != (samples,) or not np.isfinite(weights).all():
        expected = f"one finite number per sample, shape ({samples},)"
        raise ValueError(f"sample_weight must have {expected}, got shape {weights.shape}")
    if not weights.any():
        raise ValueError("sample_weight must not be all zero: no sample would count")
    return weights


def _masses(target, sample_weight, classes):
    """Return the sum of the weights of each class."""
    if target.ndim == 1:
        return np.bincount(target, sample_weight, classes).astype(np.float64)
    return target.sum(axis=0) if sample_weight is None else sample_weight @ target


def _frequencies(masses, class_weight, label_smoothing):
    """Return about the mean of what the model is to predict."""
    masses = np.abs(masses if class_weight is None else masses * class_weight)
    frequencies = masses / (masses.sum() or 1.0) * (1.0 - label_smoothing) + label_smoothing / len(masses)
    frequencies = np.maximum(frequencies, _LEAST_FREQUENCY)
    return frequencies / frequencies.sum()


class _Space:
    """The coordinates of L-BFGS: steps along eigenvectors of a Hessian, each as long as its curvature allows.

    The Hessian is (curvature of the softmax) x (products of features), the Kronecker product that it is
    before any feature tells anything. At other places it is none, but L-BFGS needs to learn the rest alone.
    """

    def __init__(self, curvature, products, penalty, fit_intercept):
        self.fit_intercept, self.classes = fit_intercept, len(curvature)
        by_class, self.left = np.linalg.eigh(curvature)
        by_feature, self.right = np.linalg.eigh(products)
        by_class[0] = by_class[-1]  # of the same number for all classes, along which there is no gradient
        curvatures = np.outer(by_class, np.maximum(by_feature, 0.0)) + penalty
        least = curvatures.max() * np.finfo(float).eps  # of features that are all zero, without a penalty
        self.scale = 1.0 / np.sqrt(np.maximum(curvatures, least))
        self.ratio = curvatures.max() / max(curvatures.min(), least)

    def params(self, steps):
        moved = self.left @ (self.scale * steps.reshape(self.scale.shape)) @ self.right.T
        if self.fit_intercept:
            return np.concatenate([moved[:, :-1].ravel(), moved[:, -1]])
        return moved.ravel()

    def gradient(self, grad):
        weight, bias = _unpacked(grad, self.classes, self.fit_intercept)
        grad = weight if bias is None else np.column_stack([weight, bias])
        return (self.scale * (self.left.T @ grad @ self.right)).ravel()


class _PlainSpace:
    """Coefficients themselves as coordinates."""

    @staticmethod
    def params(steps):
        return steps

    gradient = params


def _space(x, sample_weight, curvature, penalty, fit_intercept):
    """Return coordinates in which the objective is about as curved in all directions, if it is worth it."""
    (samples, features), classes = x.shape, len(curvature)
    if features**2 > _FEATURES_LIMIT * samples * classes:
        return _PlainSpace
    few = _SAMPLES_PER_FEATURE * features  # tell that nothing is uneven
    enough = max(few, _SAMPLES_SHARE * samples * classes // features)
    for count in (few, enough) if few < min(enough, samples) else (enough,):
        some = None if count >= samples else np.sort(np.random.default_rng(0).permutation(samples)[:count])
        products = _products(x, sample_weight, some, fit_intercept)
        space = _Space(curvature, products, penalty, fit_intercept)
        if space.ratio <= _EVEN:
            return _PlainSpace
    return space


def _products(x, sample_weight, some, fit_intercept):
    """Return the mean products of two features over some samples, or all, part by part."""
    count = len(x) if some is None else len(some)
    total, products = 0.0, 0.0
    for begin in range(0, count, _PART):
        rows = slice(begin, begin + _PART)
        rows = rows if some is None else some[rows]
        part = np.asarray(x[rows], np.float64)
        part = np.column_stack([part, np.ones(len(part))]) if fit_intercept else part
        if sample_weight is None:
            products += part.T @ part
            total += len(part)
        else:
            masses = np.abs(sample_weight[rows])
            products += part.T @ (masses[:, np.newaxis] * part)
            total += masses.sum()
    return products / (total or 1.0)


class _Loss:
    """The sum of the losses and its gradients by weights and biases.

    Where classes and features are few, it is that of small blocks of samples, which lie in a cache for all
    that is done with them. Blocks depend on shapes alone, and tasks of several are added up in their order:
    the same bits for any number of threads.
    """

    def __init__(self, x, target, classes, class_weight, sample_weight, options):
        self.x, self.target, self.options = x, target, {**options, "reduction": "sum"}
        self.class_weight, self.sample_weight = class_weight, sample_weight
        samples, features = x.shape
        block = _SMALL_PRODUCT // (features * classes)
        self.block = block if block >= _LEAST_BLOCK else 0
        self.tasks = range(0, samples, _BLOCKS * self.block) if self.block else ()
        threads = min(xent.get_num_threads(), len(self.tasks))
        self.pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __call__(self, weight, bias):
        if not self.block:
            return self._whole(weight, bias)
        weight = np.ascontiguousarray(weight.T)  # with which small products are fastest
        work = self.pool.map if self.pool else map
        return _summed(work(lambda start: self._task(start, weight, bias), self.tasks))

    def _whole(self, weight, bias):
        needs = False, True, bias is not None
        loss, grads = xent.linear_cross_entropy_value_and_grad(
            self.x, weight, self.target, bias, class_weight=self.class_weight, needs=needs, **self.options,
            sample_weight=self.sample_weight,
        )  # fmt: skip
        return loss, grads[1], grads[2]

    def _task(self, start, weight, bias):
        end = min(start + _BLOCKS * self.block, len(self.x))
        rows = [slice(k, min(k + self.block, end)) for k in range(start, end, self.block)]
        with xent.num_threads(1), np.errstate(all="ignore"):
            return _summed(self._of(part, weight, bias) for part in rows)

    def _of(self, rows, weight, bias):
        x = np.asarray(self.x[rows], np.float64)
        logits = x @ weight
        if bias is not None:
            logits += bias
        loss, grad = xent.cross_entropy_value_and_grad(
            logits, self.target[rows], out=logits, weight=self.class_weight, **self.options,
            sample_weight=None if self.sample_weight is None else self.sample_weight[rows],
        )  # fmt: skip
        return loss, grad.T @ x, None if bias is None else np.ones(len(x)) @ grad


def _summed(parts):
    """Return the sums of losses, of gradients of weights, and of biases or None."""
    (loss, by_weight, by_bias), *others = parts
    for other in others:
        loss += other[0]
        by_weight += other[1]
        if by_bias is not None:
            by_bias += other[2]
    return loss, by_weight, by_bias


def _objective(total, classes, fit_intercept, penalty, samples):
    """Return what a fit minimises: a function that returns the penalised mean loss and its gradient."""

    def objective(params):
        weight, bias = _unpacked(params, classes, fit_intercept)
        loss, grad_weight, grad_bias = total(weight, bias)
        grad_weight = grad_weight / samples + penalty * weight
        grad = [grad_weight.ravel()] if bias is None else [grad_weight.ravel(), grad_bias / samples]
        return loss / samples + 0.5 * penalty * np.vdot(weight, weight), np.concatenate(grad)

    return objective


def _unpacked(params, classes, fit_intercept):
    """Return weights and biases, or None, of a vector of all of them."""
    if not fit_intercept:
        return params.reshape(classes, -1), None
    return params[:-classes].reshape(classes, -1), params[-classes:]


def _both(logits):
    """Return logits of two classes of that of the second; others as they are."""
    if logits.ndim == 2 and logits.shape[1] > 1:
        return logits
    second = logits.reshape(-1, 1)
    return np.hstack([np.zeros_like(second), second])
