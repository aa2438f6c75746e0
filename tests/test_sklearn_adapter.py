"""xent.sklearn: what scikit-learn's own checks say, its LogisticRegression, and the options that it lacks."""

import pickle
import re
import sys

import numpy as np
import pytest
from helpers import run_python

import xent

sklearn = pytest.importorskip("sklearn", minversion="1.6")

from sklearn.base import clone  # noqa: E402
from sklearn.datasets import load_breast_cancer, load_wine  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from xent.sklearn import SoftmaxRegression, TemperatureScaling  # noqa: E402

N, D, C = 200, 5, 4
WEIGHS_CLASSES_BY_COUNTS = tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 7)
TIGHT = 1e-8  # of the gradient: coefficients are then known to 1e-5 (examples/softmax_regression.py says why)


@pytest.fixture
def case(rng):
    """Features, labels of C classes, and the probabilities that these have."""
    x = rng.standard_normal((N, D))
    logits = 2 * x @ rng.standard_normal((D, C))
    return x, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1), xent.softmax(logits)


def unfit(estimator):
    """Checks whose data a temperature cannot be fitted to: two columns and labels 0, 1 and 2."""
    if not isinstance(estimator, TemperatureScaling):
        return {}
    reason = "y are numbers of columns of X: there is no column 2"
    return dict.fromkeys(
        [
            "check_estimators_overwrite_params", "check_estimators_fit_returns_self",
            "check_readonly_memmap_input", "check_sample_weights_pandas_series",
            "check_sample_weights_not_an_array", "check_sample_weights_shape",
            "check_sample_weights_not_overwritten",
        ],
        reason,
    )  # fmt: skip


def checks():
    """Those of scikit-learn as a list: version 1.6 gives pytest a generator, of which this warns."""
    marked = parametrize_with_checks(
        [SoftmaxRegression(), TemperatureScaling()], expected_failed_checks=unfit
    )
    names, values = marked.args
    return pytest.mark.parametrize(names, list(values), **marked.kwargs)


@pytest.mark.filterwarnings("ignore")  # some checks fit what cannot converge
@checks()
def test_checks_of_sklearn(estimator, check):
    check(estimator)


def assert_same_coefficients(model, other):
    """Up to what the softmax does not see: the same added to all classes."""
    for a, b in zip((model.coef_, model.intercept_), (other.coef_, other.intercept_), strict=True):
        assert a.shape == b.shape
        if len(a) > 1:
            a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {}, {"C": 0.1}, {"C": np.inf}, {"fit_intercept": False}, {"class_weight": "balanced"},
        {"class_weight": {0: 2.0, 1: 0.5}},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("classes", [2, C])
@pytest.mark.parametrize("weighted", [False, True])
def test_coefficients_are_those_of_logistic_regression(case, rng, options, classes, weighted):
    x, labels, _ = case
    weight = rng.uniform(0.0, 2.0, N) if weighted else None
    if weighted and options == {"class_weight": "balanced"} and WEIGHS_CLASSES_BY_COUNTS:
        pytest.skip("this scikit-learn balances classes by their counts, whatever the samples weigh")
    y = np.array(["a", "b", "c", "d"])[np.minimum(labels, classes - 1)]
    if isinstance(options.get("class_weight"), dict):
        options = {"class_weight": {"a": 2.0, "b": 0.5}}
    ours = SoftmaxRegression(tol=TIGHT, **options).fit(x, y, weight)
    theirs = LogisticRegression(tol=TIGHT, max_iter=1000, **options).fit(x, y, weight)
    assert_same_coefficients(ours, theirs)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-4)
    np.testing.assert_allclose(np.exp(ours.predict_log_proba(x)), ours.predict_proba(x), atol=1e-14)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


def test_soft_labels_are_weighted_labels(case):
    """Soft labels are the same as each sample once for each class, with its probability as weight."""
    x, _, probabilities = case
    soft = SoftmaxRegression(tol=TIGHT).fit(x, probabilities)
    each = SoftmaxRegression(tol=TIGHT).fit(
        np.repeat(x, C, axis=0), np.tile(np.arange(C), N), probabilities.ravel()
    )
    assert_same_coefficients(soft, each)
    np.testing.assert_array_equal(soft.classes_, np.arange(C))


def test_label_smoothing_is_soft_labels(case):
    x, labels, _ = case
    smooth = SoftmaxRegression(tol=TIGHT, label_smoothing=0.1).fit(x, labels)
    assert_same_coefficients(smooth, SoftmaxRegression(tol=TIGHT).fit(x, 0.9 * np.eye(C)[labels] + 0.1 / C))


def test_a_prior_moves_the_intercepts(case):
    """Intercepts are free, so that the logits with the prior are those of a model without."""
    x, labels, _ = case
    prior = np.array([0.1, 0.2, 0.3, 0.4])
    plain, adjusted = (SoftmaxRegression(tol=TIGHT, prior=p).fit(x, labels) for p in (None, prior))
    adjusted.intercept_ += np.log(prior)
    assert_same_coefficients(plain, adjusted)


def test_negative_weights_take_samples_away(case):
    x, labels, _ = case
    weight = np.concatenate([np.ones(N), np.full(20, -1.0)])
    with_less = SoftmaxRegression(tol=TIGHT).fit(
        np.vstack([x, x[:20]]), np.append(labels, labels[:20]), weight
    )
    assert_same_coefficients(with_less, SoftmaxRegression(tol=TIGHT).fit(x[20:], labels[20:]))


@pytest.mark.parametrize("classes", [2, C])
def test_warm_start_begins_at_the_end(case, classes):
    x, labels, _ = case
    y = np.minimum(labels, classes - 1)
    model = SoftmaxRegression(tol=1e-6, warm_start=True).fit(x, y)
    first, coefficients = model.n_iter_[0], model.coef_
    model.fit(x, y)
    assert model.n_iter_[0] == 1 < first
    np.testing.assert_allclose(model.coef_, coefficients, atol=1e-4)
    with pytest.raises(ValueError, match="warm_start needs coef_ of shape"):
        model.fit(x[:, 1:], y)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("load, iterations", [(load_wine, 200), (load_breast_cancer, 200)])
def test_features_of_any_size_take_few_iterations(load, iterations, intercept):
    """Where L-BFGS by itself takes thousands. The minimum is that which Newton's method finds."""
    x, y = load(return_X_y=True)
    options = {"fit_intercept": intercept, "max_iter": iterations}
    ours = SoftmaxRegression(tol=1e-8, **options).fit(x, y)
    theirs = LogisticRegression(tol=1e-10, solver="newton-cholesky", **options).fit(x, y)
    assert ours.n_iter_[0] < iterations
    assert_same_coefficients(ours, theirs)


def test_some_samples_tell_how_uneven_features_are(case, monkeypatch):
    x, labels, _ = case
    x = x * np.logspace(-2, 2, x.shape[1])
    whole = SoftmaxRegression(tol=TIGHT).fit(x, labels)
    for name, value in {"_SAMPLES_PER_FEATURE": 4, "_SAMPLES_SHARE": 0, "_PART": 3}.items():
        monkeypatch.setattr(xent.sklearn, name, value)
    some = SoftmaxRegression(tol=TIGHT).fit(x, labels, np.ones(N))
    np.testing.assert_allclose(some.coef_, whole.coef_, atol=1e-4)


@pytest.mark.parametrize(
    "soft, weighted, intercept", [(False, False, True), (True, True, False), (False, True, True)]
)
def test_blocks_of_samples_are_the_whole(case, monkeypatch, soft, weighted, intercept):
    """Few classes and features are worked off in blocks, of the same bits for any number of threads."""
    x, labels, probabilities = case
    y, weights = probabilities if soft else labels, np.linspace(-0.1, 2, N) if weighted else None
    model = SoftmaxRegression(tol=TIGHT, class_weight=None if soft else {0: 2.0}, fit_intercept=intercept)
    monkeypatch.setattr(xent.sklearn, "_LEAST_BLOCK", 10**9)
    whole = clone(model).fit(x, y, weights)
    monkeypatch.setattr(xent.sklearn, "_LEAST_BLOCK", 1)
    monkeypatch.setattr(xent.sklearn, "_SMALL_PRODUCT", 7 * D * C)  # seven samples each
    found = []
    for threads in (1, 3):
        with xent.num_threads(threads):
            found.append(clone(model).fit(x, y, weights))
        np.testing.assert_allclose(found[-1].coef_, whole.coef_, atol=1e-5)
    np.testing.assert_array_equal(found[0].coef_, found[1].coef_)
    np.testing.assert_array_equal(found[0].intercept_, found[1].intercept_)


def test_float32_is_as_good(case):
    x, labels, _ = case
    x = x.astype(np.float32)
    assert_same_coefficients(
        SoftmaxRegression(tol=TIGHT).fit(x, labels), SoftmaxRegression(tol=TIGHT).fit(x.astype(float), labels)
    )


def test_a_fit_that_does_not_end_warns(case):
    x, labels, _ = case
    with pytest.warns(UserWarning, match="after 2 iterations"):
        SoftmaxRegression(max_iter=2).fit(x, labels)


@pytest.mark.parametrize(
    "options, target, words",
    [
        ({"C": 0}, None, "C must be greater than 0, got 0"),
        ({"label_smoothing": 2.0}, None, "label_smoothing must be"),
        ({"prior": [1.0, 2.0]}, None, "prior must have one number per class"),
        ({"class_weight": "heavy"}, None, "not 'heavy'"),
        ({"class_weight": {7: 2.0}}, None, "class_weight names classes that are not in y: [7]"),
        ({}, np.full((N, 2), -0.5), "none below 0"),
        ({}, np.zeros(N, int), "at least two classes"),
    ],
)
def test_errors(case, options, target, words):
    x, labels, _ = case
    with pytest.raises(ValueError, match=re.escape(words)):
        SoftmaxRegression(**options).fit(x, labels if target is None else target)


# ---- temperature ----


@pytest.mark.parametrize("columns", [1, C])
def test_the_temperature_is_found(rng, columns):
    logits = rng.standard_normal((4000, columns)) * 2
    padded = logits if columns > 1 else np.hstack([np.zeros_like(logits), logits])
    labels = (padded + rng.gumbel(size=padded.shape)).argmax(axis=1)
    right = TemperatureScaling().fit(logits, labels)
    assert right.temperature_ == pytest.approx(1.0, abs=0.1)
    wrong = TemperatureScaling().fit(5 * logits, labels)
    assert wrong.temperature_ == pytest.approx(5 * right.temperature_, rel=1e-6)
    np.testing.assert_allclose(wrong.transform(5 * logits), right.transform(logits), rtol=1e-6)
    np.testing.assert_allclose(wrong.predict_proba(5 * logits), right.predict_proba(logits), rtol=1e-5)
    _, grad = xent.cross_entropy_value_and_grad(padded / right.temperature_, labels)
    assert abs(np.vdot(grad, padded)) < 1e-7  # the derivative by the scale


def test_a_temperature_of_weights_and_soft_labels(rng):
    logits = rng.standard_normal((300, C))
    soft = xent.softmax(2 * logits)
    assert TemperatureScaling().fit(logits, soft).temperature_ == pytest.approx(0.5, rel=1e-6)
    each = TemperatureScaling().fit(np.repeat(logits, C, axis=0), np.tile(np.arange(C), 300), soft.ravel())
    assert each.temperature_ == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e6, 1e300])
def test_temperatures_of_logits_of_any_size(rng, scale):
    logits = rng.standard_normal((2000, C))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    found = TemperatureScaling().fit(scale * logits, labels)
    right = TemperatureScaling().fit(logits, labels).temperature_
    assert found.temperature_ == pytest.approx(scale * right, rel=1e-6)


def test_a_temperature_of_nothing(rng):
    """Logits that are equal say nothing of it: whatever is found would change others for nothing."""
    scaling = TemperatureScaling().fit(np.ones((9, C)), np.arange(9) % C)
    assert scaling.temperature_ == 1.0
    assert list(scaling.get_feature_names_out()) == [f"x{k}" for k in range(C)]


def test_words_of_errors(case):
    x, labels, _ = case
    with pytest.raises(TypeError, match="C must be a number, got str"):
        SoftmaxRegression(C="auto").fit(x, labels)
    with pytest.raises(TypeError, match="prior must be real numbers"):
        SoftmaxRegression(prior="balanced").fit(x, labels)
    for options, words in [
        ({"label_smoothing": "a"}, "label_smoothing must be a number, got str"),
        ({"class_weight": [1, 2]}, 'class_weight must be "balanced", a dict or None, got list'),
        ({"max_iter": 1.5}, "max_iter must be an integer, got float"),
        ({"tol": "a"}, "tol must be a number, got str"),
    ]:
        with pytest.raises(TypeError, match=words):
            SoftmaxRegression(**options).fit(x, labels)
    with pytest.raises(ValueError, match="tol must be a finite number >= 0, got -1"):
        SoftmaxRegression(tol=-1).fit(x, labels)
    with pytest.raises(ValueError, match="got one class, 0$"):
        SoftmaxRegression().fit(x, np.zeros(len(x), int))
    with pytest.raises(ValueError, match="y must hold whole numbers, those of columns of X"):
        TemperatureScaling().fit(np.zeros((2, 2)), ["a", "b"])


def test_pickles_and_clones(case):
    x, labels, _ = case
    for estimator in (SoftmaxRegression(label_smoothing=0.1), TemperatureScaling()):
        fitted = pickle.loads(pickle.dumps(clone(estimator).fit(x, labels)))
        np.testing.assert_array_equal(
            fitted.predict_proba(x), clone(estimator).fit(x, labels).predict_proba(x)
        )


def test_scikit_learn_is_named_where_it_is_missing(tmp_path):
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "try:\n    import xent.sklearn\nexcept ImportError as error:\n    print(error)"
    )
    assert "pip install 'xent-kernels[sklearn]'" in run_python("-c", code).stdout
    assert "xent.sklearn" in sys.modules


def test_weights_with_a_mask():
    x, y = np.arange(12.0).reshape(6, 2), [0, 1, 2, 0, 1, 2]
    for weights, words in [
        (np.ma.masked_array(np.ones(6), [1, 0, 0, 0, 0, 0]), "masked"),
        ([None] * 6, "missing"),
    ]:
        with pytest.raises(TypeError, match=f"sample_weight.*{words}"):
            SoftmaxRegression().fit(x, y, sample_weight=weights)


def test_one_weight_for_all_samples():
    x, y = np.arange(12.0).reshape(6, 2), [0, 1, 2, 0, 1, 2]
    a, b = (SoftmaxRegression(tol=TIGHT).fit(x, y, sample_weight=w) for w in (2.0, np.full(6, 2.0)))
    np.testing.assert_array_equal(a.coef_, b.coef_)
