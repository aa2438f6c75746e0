"""Losses as objectives of LightGBM, XGBoost and CatBoost. None of these is imported here.

Each library calls an objective in its own way, with the logits as they are after the last round:

    LightGBM, XGBoost         objective(logits, dataset) -> gradient, second derivatives
    their scikit-learn forms  objective(labels, logits, sample_weight) -> the same
    CatBoost                  objective.calc_ders_range(logits, targets, weights) -> pairs, of minus the loss
                              objective.calc_ders_multi(logits, target, weight) -> vector and matrix, likewise

LightGBM hands over float64 and XGBoost float32: so their rules are told apart, and what they expect of a
metric. docs/boosting.md says which rule is whose, in which versions.
"""

from dataclasses import dataclass

import numpy as np

import xent

from . import _check

__all__ = ["Binary", "Focal", "MultiLabel", "Softmax"]

_LEAST_SHARE = 1e-15  # of a class where logits begin: kEpsilon of LightGBM
_MOST_ROWS = 2**24  # the libraries keep labels as float32, which holds every integer up to here


@dataclass(kw_only=True, eq=False)
class _Objective:
    """What the objectives share: the ways in which they are called. Options are all that is kept."""

    label_smoothing: float = 0.0
    targets: object = None
    class_weight: object = None

    def __post_init__(self):
        _check.real(self.label_smoothing, "label_smoothing", 0.0, 1.0)
        if self.targets is not None:
            self.targets, _ = _check.unconverted(self.targets, "targets")
            if self.targets.ndim != 2 or len(self.targets) > _MOST_ROWS:
                expected = f"(rows, classes) with at most {_MOST_ROWS} rows"
                raise ValueError(f"targets must have shape {expected}, got {self.targets.shape}")

    def __call__(self, first, second, sample_weight=None):
        """
        Gradient and second derivatives of the sum of the losses, for LightGBM and XGBoost.

        Parameters
        ----------
        first, second : array_like, or a data set of the library
            Logits and the data set; or labels and logits.
        sample_weight : array_like of float, optional
            One factor per sample, beside labels. A data set has its own.

        Returns
        -------
        grad, hess : ndarray
            Of the shape and dtype of the logits.
        """
        logits, labels, weight = _arguments(first, second, sample_weight)
        logits = self._logits(logits)
        return self._grad_hess(logits, self._target(labels, logits), weight)

    def metric(self, first, second, sample_weight=None):
        """
        Mean of the losses, for LightGBM and XGBoost.

        Parameters
        ----------
        first, second, sample_weight
            As the objective takes them.

        Returns
        -------
        tuple or float
            What the library expects: ("loss", mean, False) in LightGBM, ("loss", mean) in XGBoost, and the
            mean alone in XGBoost's scikit-learn classes.
        """
        logits, labels, weight = _arguments(first, second, sample_weight)
        logits = self._logits(logits)
        mean = self.get_final_error(*self._total(logits, labels, weight))
        if logits.dtype == np.float64:
            return "loss", mean, False
        return ("loss", mean) if hasattr(second, "get_label") else mean

    def init_score(self, labels, sample_weight=None, *, classes=None, rows=None):
        """
        Logits to begin with, the same for every sample: those of the smallest loss without any tree.

        (Without the factors of a focal loss, where it has them.)

        Parameters
        ----------
        labels : array_like
            Labels of the training set, as the library gets them.
        sample_weight : array_like of float, optional
            Weights of its samples.
        classes : int, optional
            Number of classes, where the labels do not tell it: one more than the largest, for `Softmax`; two,
            told apart by one logit, for the others.
        rows : int, optional
            Number of rows of the result; None: one for each label.

        Returns
        -------
        ndarray
            ``init_score`` of LightGBM, ``base_margin`` of XGBoost, ``baseline`` of CatBoost. It is no part of
            the model: predictions need it again.
        """
        labels = _numbers(labels)
        classes = None if classes is None else _check.integer(classes, "classes", 1)
        rows = len(labels) if rows is None else _check.integer(rows, "rows", 0)
        weight = np.ones(len(labels))
        if sample_weight is not None:
            weight = _check.sample_weights(sample_weight, labels.shape[:1])
        start = self._start(self._targets_of(labels, classes), weight, classes)
        return np.tile(start, (rows,) + (1,) * start.ndim)

    def _target(self, labels, logits):
        """The target of the losses of some logits."""
        labels = _numbers(labels)
        if self.targets is None and labels.size == logits.size:
            return labels.reshape(logits.shape)
        if len(labels) != len(logits):
            raise ValueError(
                f"labels must be one for each of {len(logits)} rows of logits, got {len(labels)}"
            )
        target = self._targets_of(labels, logits.shape[-1] if logits.ndim == 2 else None)
        if target.ndim > 1 and target.shape != logits.shape:
            name, rows = ("labels", len(labels)) if self.targets is None else ("targets", len(self.targets))
            expected = (rows, *logits.shape[1:])
            raise ValueError(f"{name} must have shape {expected}, got {(rows, *target.shape[1:])}")
        return target

    def _class_factors(self, classes):
        """The class weights as an array, or None."""
        value = self.class_weight
        return None if value is None else _check.per_class(value, classes, "class_weight")

    def _rows(self, labels):
        """The rows of `targets` that are the labels."""
        return self.targets[_whole(labels, len(self.targets))]

    # ---- CatBoost ----

    def catboost(self):
        """
        Return this objective as CatBoost takes it for a matrix of labels: of a class of its own.

        Returns
        -------
        object
            For both ``loss_function`` and ``eval_metric``.

        Raises
        ------
        ImportError
            If CatBoost is not installed.
        """
        return _for_catboost(self)

    def calc_ders_multi(self, approxes, target, weight):
        """First derivatives and the matrix of the second of minus the loss of a sample, for CatBoost."""
        logits = self._logits(np.asarray(approxes)[None])
        factor = None if weight is None else np.array([weight])
        target = self._target(np.asarray(target)[None], logits)
        grad, matrix = self._grad_matrix(logits, target, factor)
        return (-grad).tolist(), (-matrix).tolist()

    def evaluate(self, approxes, target, weight):
        """Sum of the losses and sum of the weights, for CatBoost: an objective is its own metric."""
        logits = np.column_stack(approxes) if len(approxes) > 1 else approxes[0]
        labels = np.column_stack(target) if isinstance(target, tuple) else target
        return self._total(self._logits(logits), labels, weight)

    def get_final_error(self, error, weight):
        """The mean of what `evaluate` returned, for CatBoost."""
        return error / weight if weight else 0.0

    def is_max_optimal(self):
        """Whether a larger metric is better, for CatBoost."""
        return False


@dataclass(kw_only=True, eq=False)
class Softmax(_Objective):
    """
    Softmax cross-entropy as an objective: each sample has one of C classes.

    Parameters
    ----------
    label_smoothing : float, optional
        e in [0, 1]: mixes the uniform distribution into the target.
    targets : array_like of float, shape (rows, C), optional
        Soft labels. The label of a sample is then the number of its row, so that folds and validation sets
        find theirs. XGBoost takes a matrix of labels too, and needs no such numbers.
    class_weight : array_like of float, shape (C,), optional
        One factor per class.
    prior : array_like of float, shape (C,), optional
        Frequencies of the classes, which the logits then leave out, as in `xent.cross_entropy`.
    hessian : {"diagonal", "upper", "friedman", "absolute"}, optional
        The rule of second derivatives, as in `xent.cross_entropy_grad_hess`. None: that of the library.

    See Also
    --------
    xent.cross_entropy, xent.cross_entropy_grad_hess

    Examples
    --------
    >>> import numpy as np
    >>> from xent.boosting import Softmax
    >>> objective = Softmax(label_smoothing=0.1)
    >>> grad, hess = objective([0, 2], np.zeros((2, 3)))  # as LightGBM's scikit-learn classes call it
    >>> grad.round(2)
    array([[-0.6,  0.3,  0.3],
           [ 0.3,  0.3, -0.6]])
    >>> Softmax().init_score([0, 1, 1, 2], rows=1).round(2)
    array([[-1.39, -0.69, -1.39]])
    """

    prior: object = None
    hessian: str | None = None

    def _options(self, weight, classes):
        smoothing = self.label_smoothing
        shared = {"weight": self._class_factors(classes), "prior": self.prior, "label_smoothing": smoothing}
        return {**shared, "sample_weight": weight, "reduction": "sum"}

    def _logits(self, logits):
        logits = _check.floats(logits, "logits")
        if logits.ndim != 2 or logits.shape[1] == 1:
            hint = "give the library num_class, or take Binary for two classes"
            raise ValueError(f"Softmax needs logits of shape (N, C), got {logits.shape}: {hint}")
        return logits

    def _targets_of(self, labels, classes):
        if self.targets is not None:
            target = self._rows(labels)
            return target.astype(np.float64) if target.dtype.kind in "iub" else target
        return labels if labels.ndim == 2 else _whole(labels, classes)

    def _grad_hess(self, logits, target, weight):
        rule = self.hessian
        if rule is None:
            rule = "friedman" if logits.dtype == np.float64 else "upper"
        options = self._options(weight, logits.shape[1])
        return _call(xent.cross_entropy_grad_hess, logits, target, hessian=rule, **options)

    def _total(self, logits, labels, weight):
        """Sum of the losses and sum of the weights."""
        options = self._options(weight, logits.shape[1])
        total = _call(xent.cross_entropy, logits, self._target(labels, logits), **options)
        return float(total), float(len(logits) if weight is None else np.sum(weight, dtype=np.float64))

    def _grad_matrix(self, logits, target, weight):
        """Gradient and Hessian of one sample: U (diag(p) - p p^T), with U the sum of its target."""
        options = self._options(weight, logits.shape[1])
        grad = _call(xent.cross_entropy_grad, logits, target, **options)[0]
        target = target[0] if target.ndim == 2 else np.arange(grad.size) == target[0]
        mass = self._weighted(target, 1.0).sum() * (1.0 if weight is None else weight[0])
        shifted = logits[0] if self.prior is None else logits[0] + np.log(self.prior)
        return grad, mass * xent.softmax_jacobian(xent.softmax(shifted))

    def _weighted(self, target, samples):
        """A target, or a sum of that of some samples, after smoothing and times the class weights."""
        smoothing = self.label_smoothing
        mixed = (1.0 - smoothing) * target + smoothing * samples / target.size
        factors = self._class_factors(target.size)
        return mixed if factors is None else mixed * factors

    def _start(self, target, weight, classes):
        sums = weight @ target if target.ndim == 2 else np.bincount(target, weight, classes or 0)
        shares = self._weighted(sums, weight.sum())
        start = np.log(np.maximum(shares / shares.sum(), _LEAST_SHARE))
        if self.prior is None:
            return start
        return start - np.log(_check.per_class(self.prior, start.size, "prior", positive=True))


@dataclass(kw_only=True, eq=False)
class _Sigmoid(_Objective):
    """What objectives of sigmoids share."""

    pos_weight: object = None

    def __post_init__(self):
        super().__post_init__()
        if self.targets is not None:
            _check_shares(self.targets, "targets")

    def _options(self, weight, shape):
        if weight is not None:
            weight = _check.sample_weights(weight, shape[:1])
            weight = weight[:, None] if len(shape) == 2 else weight
        if self.class_weight is not None:
            if len(shape) != 2:
                raise ValueError(f"class_weight needs logits of shape (N, C), got {shape}")
            factors = self._class_factors(shape[1])
            weight = factors if weight is None else weight * factors
        shared = {"pos_weight": self.pos_weight, "label_smoothing": self.label_smoothing}
        return {**shared, "weight": weight, "reduction": "sum"}

    def _logits(self, logits):
        return _check.floats(logits, "logits")

    def _targets_of(self, labels, classes):
        if self.targets is not None:
            return self._rows(labels)
        if labels.ndim == 2 or classes is None:
            return labels
        return _whole(labels, classes)[:, None] == np.arange(classes)  # each class against the others

    def _grad_hess(self, logits, target, weight):
        options = self._options(weight, logits.shape)
        loss = xent.sigmoid_cross_entropy_grad_hess
        return _call(loss, logits, target, hessian="gauss_newton", **options)

    def _total(self, logits, labels, weight):
        """Sum of the losses and sum of the weights."""
        options = self._options(weight, logits.shape)
        total = _call(xent.sigmoid_cross_entropy, logits, self._target(labels, logits), **options)
        samples = len(logits) if weight is None else np.sum(weight, dtype=np.float64)
        return float(total), float(samples * (logits.shape[1] if logits.ndim == 2 else 1))

    def _grad_matrix(self, logits, target, weight):
        grad, hess = self._grad_hess(logits, target, weight)
        return grad[0], np.diag(hess[0])

    def calc_ders_range(self, approxes, targets, weights):
        """First and second derivative of minus the loss for each sample, for CatBoost."""
        logits = self._logits(approxes)
        grad, hess = self._grad_hess(logits, self._target(targets, logits), weights)
        return -np.column_stack([grad, hess])  # which CatBoost reads without an object for each number

    def _start(self, target, weight, classes):
        _check_shares(target, "labels")
        mean = weight @ (0.5 * self.label_smoothing + (1.0 - self.label_smoothing) * target) / weight.sum()
        factor = 1.0
        if self.pos_weight is not None:
            factor = _check.factors(self.pos_weight, "pos_weight", mean.shape, "the classes")
        positive = mean * factor
        share = np.clip(positive / (positive + 1.0 - mean), _LEAST_SHARE, 1.0 - _LEAST_SHARE)
        return np.log(share) - np.log1p(-share)


@dataclass(kw_only=True, eq=False)
class Binary(_Sigmoid):
    """
    Sigmoid cross-entropy of one logit as an objective: two classes.

    Parameters
    ----------
    label_smoothing : float, optional
        e in [0, 1]: ``t = (1 - e) * label + e / 2``.
    pos_weight : float, optional
        Factor of the losses of label 1, as ``scale_pos_weight``.

    See Also
    --------
    xent.sigmoid_cross_entropy

    Notes
    -----
    Labels are 0 and 1, or anything between: probabilities of class 1.

    Examples
    --------
    >>> import numpy as np
    >>> from xent.boosting import Binary
    >>> grad, hess = Binary(pos_weight=3.0)([1, 0], np.zeros(2))
    >>> grad, hess
    (array([-1.5,  0.5]), array([0.75, 0.25]))
    """

    def _logits(self, logits):
        logits = super()._logits(logits)
        if logits.ndim != 1:
            hint = "MultiLabel, Focal and Softmax have more than one logit"
            raise ValueError(f"Binary needs logits of shape (N,), got {logits.shape}: {hint}")
        return logits


@dataclass(kw_only=True, eq=False)
class MultiLabel(_Sigmoid):
    """
    Sigmoid cross-entropy of logits (N, L) as an objective: each of L labels is there or not.

    Parameters
    ----------
    label_smoothing : float, optional
        e in [0, 1]: ``t = (1 - e) * target + e / 2``.
    targets : array_like, shape (rows, L), optional
        Labels 0 and 1 or probabilities, for LightGBM, which keeps one number a sample: that of its row.
        XGBoost and CatBoost take a matrix of labels themselves. Without either, whole numbers are classes,
        and each is told from all others.
    class_weight : array_like of float, shape (L,), optional
        One factor per label.
    pos_weight : array_like of float, optional
        Factors of the terms of labels that are there: a number, or one per label.

    See Also
    --------
    xent.sigmoid_cross_entropy

    Examples
    --------
    >>> import numpy as np
    >>> from xent.boosting import MultiLabel
    >>> objective = MultiLabel(targets=[[1, 0], [1, 1], [0, 0]])
    >>> objective([0, 2], np.zeros((2, 2)))[0]  # of rows 0 and 2
    array([[-0.5,  0.5],
           [ 0.5,  0.5]])
    """


@dataclass(kw_only=True, eq=False)
class Focal(_Sigmoid):
    """
    Focal loss of one logit or of logits (N, C) as an objective: what is predicted well counts for less.

    Parameters
    ----------
    gamma : float, optional
        Exponent, at least 0, of the factor ``(1 - p_t)**gamma``.
    alpha : float, optional
        alpha in [0, 1]: factor of label 1, and 1 - alpha that of label 0.
    label_smoothing : float, optional
        e in [0, 1]: ``t = (1 - e) * target + e / 2``.
    targets, class_weight, pos_weight
        As in `MultiLabel`; of logits (N, C) and whole numbers as labels, each class is told from all others.

    See Also
    --------
    xent.sigmoid_cross_entropy

    Notes
    -----
    The exact second derivative is negative where a prediction is wrong by far, and trees need positive ones.
    h is that of a Gauss-Newton step: the derivative by the plain loss, times that loss's second derivative.

    Examples
    --------
    >>> import numpy as np
    >>> from xent.boosting import Focal
    >>> grad, hess = Focal(gamma=2.0)([1, 0], np.array([2.0, 2.0]))
    >>> grad.round(3), hess.round(3)
    (array([-0.005,  1.077]), array([0.004, 0.128]))
    """

    gamma: float = 2.0
    alpha: float | None = None

    def _options(self, weight, shape):
        return {**super()._options(weight, shape), "gamma": self.gamma, "alpha": self.alpha}


def _arguments(first, second, sample_weight):
    """Return logits, labels, and weights or None, of a call in either form."""
    if not hasattr(second, "get_label"):
        return second, first, sample_weight
    weight = second.get_weight()  # None in LightGBM and empty in XGBoost, where there are none
    return first, second.get_label(), weight if weight is not None and len(weight) else None


def _numbers(labels):
    """Return labels as an array of numbers, one or a row for each sample."""
    labels, _ = _check.unconverted(labels, "labels")
    if labels.ndim == 0:
        raise ValueError("labels must be one for each sample, got a number")
    return labels


def _call(loss, logits, target, **options):
    """Call a loss; in its errors the target is called labels, as users know it."""
    try:
        return loss(logits, target, **options)
    except (TypeError, ValueError) as error:
        words = str(error)
        if not words.startswith("target"):
            raise
        raise type(error)("labels" + words.removeprefix("target")) from None


def _check_shares(target, name):
    """Raise unless all numbers are in [0, 1]."""
    if not ((target >= 0) & (target <= 1)).all():
        raise _check.bad_binary(target, None, name)


def _whole(labels, classes):
    """Return labels as integers from 0, less than `classes` if given. The libraries keep them as float32."""
    with np.errstate(invalid="ignore"):  # NaN is found out below
        whole = labels.astype(np.int64, copy=False)
    if not np.array_equal(whole, labels):
        raise ValueError("labels must be whole numbers, unless they are a matrix of probabilities")
    if whole.size and not 0 <= whole.min() <= whole.max() < (classes or np.inf):
        expected = "0 or more" if classes is None else f"from 0 to {classes - 1}"
        raise ValueError(f"labels must be {expected}, got {whole.min()} to {whole.max()}")
    return whole


def _for_catboost(objective):
    """Return an objective of several targets, an instance of CatBoost's two classes."""
    try:
        from catboost import MultiTargetCustomMetric, MultiTargetCustomObjective
    except ImportError:
        raise ImportError("CatBoost is not installed: pip install 'xent-kernels[catboost]'") from None

    class Objective(MultiTargetCustomObjective, MultiTargetCustomMetric):
        def __reduce__(self):
            return _for_catboost, (objective,)

    adapted = Objective()
    for name in ("calc_ders_multi", "evaluate", "get_final_error", "is_max_optimal"):
        setattr(adapted, name, getattr(objective, name))
    return adapted
