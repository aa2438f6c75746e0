"""xent.boosting: the derivatives, and what LightGBM, XGBoost and CatBoost make of them."""

import json
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import ROOT, run_python
from threadpoolctl import threadpool_limits

import xent
from xent.boosting import Binary, Focal, MultiLabel, Softmax

N, C = 300, 4
PRIOR = np.array([0.1, 0.2, 0.3, 0.4])


class Data:
    """A data set as LightGBM's (weights None) and XGBoost's (weights empty) are."""

    def __init__(self, labels, weight=None):
        self.labels, self.weight = labels, weight

    def get_label(self):
        return self.labels

    def get_weight(self):
        return self.weight


@pytest.fixture
def case(rng):
    """Features, labels of C classes that they tell, weights, soft labels and two independent labels."""
    x = rng.standard_normal((N, 5))
    logits = x[:, :C] * 2 + rng.standard_normal((N, C))
    labels = logits.argmax(axis=1)
    both = (x[:, :2] + rng.standard_normal((N, 2)) > 0).astype(np.float32)
    return SimpleNamespace(
        x=x, labels=labels, weight=rng.uniform(0.5, 2.0, N), soft=xent.softmax(logits), both=both,
        binary=(labels > 1).astype(np.int64), logits=rng.standard_normal((N, C)) * 3,
    )  # fmt: skip


OBJECTIVES = {
    "softmax": (Softmax(), "labels"),
    "softmax with options": (
        Softmax(class_weight=[1.0, 2.0, 0.5, 3.0], prior=PRIOR, label_smoothing=0.1), "labels",
    ),
    "binary": (Binary(), "binary"),
    "binary with options": (Binary(pos_weight=3.0, label_smoothing=0.2), "binary"),
    "one against the rest": (MultiLabel(class_weight=[1.0, 2.0, 0.5, 3.0], pos_weight=2.0), "labels"),
    "focal": (Focal(gamma=1.5, alpha=0.3), "binary"),
    "focal of classes": (Focal(label_smoothing=0.1), "labels"),
}  # fmt: skip
each_objective = pytest.mark.parametrize("objective, labels", OBJECTIVES.values(), ids=OBJECTIVES)


def logits_of(case, labels):
    return case.logits[:, 0] if labels == "binary" else case.logits


@each_objective
def test_the_gradient_is_that_of_the_metric(case, objective, labels):
    """By differences of the metric, which is a mean over the weights."""
    logits, data = logits_of(case, labels), Data(getattr(case, labels).astype(np.float32), case.weight)
    grad, hess = objective(logits, data)
    assert grad.shape == hess.shape == logits.shape and (hess > 0).all()
    direction = np.cos(np.arange(logits.size)).reshape(logits.shape)
    up, down = (objective.metric(logits + step * direction, data)[1] for step in (1e-5, -1e-5))
    terms = 1 if labels == "binary" or isinstance(objective, Softmax) else C
    slope = (up - down) / 2e-5 * case.weight.sum() * terms
    assert np.vdot(grad, direction) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize(
    "objective", [Binary(pos_weight=3.0, label_smoothing=0.2), MultiLabel(pos_weight=3.0)]
)
def test_second_derivatives_of_sigmoids_are_exact(case, objective):
    logits = logits_of(case, "binary" if isinstance(objective, Binary) else "labels")
    labels = case.binary if logits.ndim == 1 else case.labels
    up, down = (objective(labels, logits + step)[0] for step in (1e-5, -1e-5))
    np.testing.assert_allclose(objective(labels, logits)[1], (up - down) / 2e-5, rtol=1e-5, atol=1e-9)


def test_second_derivatives_of_softmax_follow_the_library(case):
    """LightGBM's logits are float64, XGBoost's float32."""
    p = xent.softmax(case.logits)
    of_lightgbm, of_xgboost, own = (
        objective(case.labels, case.logits.astype(kind))[1]
        for objective, kind in ((Softmax(), "d"), (Softmax(), "f"), (Softmax(hessian="diagonal"), "f"))
    )
    np.testing.assert_allclose(of_lightgbm, C / (C - 1) * p * (1 - p), rtol=1e-12)
    np.testing.assert_allclose(of_xgboost, 2 * p * (1 - p), rtol=1e-5)
    np.testing.assert_allclose(own, p * (1 - p), rtol=1e-5)


@each_objective
@pytest.mark.parametrize("kind", ["d", "f"])
def test_both_forms_are_one(case, objective, labels, kind):
    logits, y = logits_of(case, labels).astype(kind), getattr(case, labels)
    empty = None if kind == "d" else np.empty(0, np.float32)
    for weight in (None, case.weight):
        data = Data(y.astype(np.float32), empty if weight is None else weight)
        native, sklearn = objective(logits, data), objective(y, logits, sample_weight=weight)
        for a, b in zip(native, sklearn, strict=True):
            assert a.dtype == logits.dtype
            np.testing.assert_array_equal(a, b)
        name, value, *better = objective.metric(logits, data)
        assert name == "loss" and better == ([False] if kind == "d" else [])
        of_labels = objective.metric(y, logits, weight)
        assert of_labels == (("loss", value, False) if kind == "d" else value)


@each_objective
def test_initial_scores_have_no_gradient(case, objective, labels):
    y = getattr(case, labels)
    classes = None if labels == "binary" else C
    start = objective.init_score(y, case.weight, classes=classes)
    assert start.shape == logits_of(case, labels).shape and (start == start[0]).all()
    one = objective.init_score(y, case.weight, classes=classes, rows=1)
    np.testing.assert_array_equal(one, start[:1])
    if not isinstance(objective, Focal):
        grad, _ = objective(y, start, case.weight)
        np.testing.assert_allclose(grad.sum(axis=0), 0, atol=1e-10 * N)


def test_initial_scores_of_absent_classes_are_finite():
    assert np.isfinite(Softmax().init_score([0, 0, 1], classes=5)).all()
    assert np.isfinite(Binary().init_score([1, 1])).all()


def test_soft_labels_are_rows(case, rng):
    rows = rng.permutation(N)[:50]
    grad, hess = Softmax(targets=case.soft)(rows, case.logits[:50])
    expected = xent.cross_entropy_grad_hess(
        case.logits[:50], case.soft[rows], hessian="friedman", reduction="sum"
    )
    np.testing.assert_array_equal((grad, hess), expected)
    matrix = case.soft.astype(np.float32)  # as XGBoost has it
    np.testing.assert_array_equal(
        Softmax()(case.logits, Data(matrix.ravel()))[0], Softmax(targets=matrix)(np.arange(N), case.logits)[0]
    )
    start = Softmax(targets=case.soft).init_score(rows, rows=1)
    np.testing.assert_allclose(xent.softmax(start)[0], case.soft[rows].mean(axis=0))


@each_objective
def test_pickles(case, objective, labels):
    logits, y = logits_of(case, labels), getattr(case, labels)
    again = pickle.loads(pickle.dumps(objective))
    np.testing.assert_array_equal(again(y, logits), objective(y, logits))
    assert type(objective).__name__ in repr(objective)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: Softmax()([0, 1], np.zeros(2)), "give the library num_class, or take Binary"),
        (lambda: Binary()([0, 1], np.zeros((2, 3))), "Softmax have more than one logit"),
        (lambda: Softmax()(np.array([0.5, 1.0]), np.zeros((2, 3))), "whole numbers"),
        (lambda: Softmax()(np.array([0.0, np.nan]), np.zeros((2, 3))), "whole numbers"),
        (lambda: Softmax()(np.array([0, 3]), np.zeros((2, 3))), "from 0 to 2, got 0 to 3"),
        (lambda: MultiLabel(targets=np.zeros((2, 2)))(np.array([0, 2]), np.zeros((2, 2))), "from 0 to 1"),
        (lambda: Softmax(targets=[0, 1]), "(rows, classes)"),
    ],
)
def test_errors(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()


MATRIX = np.full((4, 3), 0.5)
BAD_OPTIONS = [
    ({"class_weight": [1, 2]}, "class_weight must have one number per class, shape (3,), got (2,)"),
    ({"class_weight": [1, 2, np.nan]}, "class_weight must be finite, got class_weight[2] = nan"),
    ({"class_weight": "abc"}, "class_weight must be real numbers"),
    ({"class_weight": {0: 1}}, "class_weight must be real numbers, got a dict"),
    ({"targets": MATRIX[:, :2]}, "targets must have shape (4, 3), got (4, 2)"),
    ({"targets": [["a", "b", "c"]]}, "targets must be real numbers"),
    ({"targets": np.ma.masked_equal(MATRIX, 0.5)}, "targets must not be a masked array"),
    ({"label_smoothing": 2}, "label_smoothing must be a finite number between 0 and 1"),
]
BAD_SHARES = [
    ({"targets": [[0, 1, 2]]}, "targets[0, 2] is 2, expected 0 or 1"),
    ({"targets": [[0, 1, 1.5]]}, "targets[0, 2] is 1.5, expected a number between 0 and 1"),
    ({"pos_weight": -1}, "pos_weight must be finite and not negative"),
    ({"pos_weight": [1, 2]}, "pos_weight must broadcast"),
]
BAD_LABELS = [
    (["a"] * 4, "labels must be real numbers"),
    ([0, 1], "labels must be one for each of 4 rows of logits, got 2"),
    (1, "labels must be one for each sample"),
    (MATRIX[:, :2], "labels must have shape (4, 3), got (4, 2)"),
]
BAD_WEIGHTS = [
    ([1, 2], "sample_weight must have the shape of the positions, (4,), got (2,)"),
    ([1, 1, np.inf, 1], "sample_weight must be finite, got sample_weight[2] = inf"),
    (["a"] * 4, "sample_weight must be real numbers"),
]


def refuses(call, words):
    with pytest.raises((TypeError, ValueError), match="^" + re.escape(words)):
        call()


@pytest.mark.parametrize("kind", [Softmax, MultiLabel, Focal])
def test_errors_name_what_a_user_gave(kind):
    """Not what the losses call it."""
    logits, labels = np.zeros((4, 3)), np.array([0, 1, 2, 1])
    for options, words in BAD_OPTIONS + (BAD_SHARES if kind is not Softmax else []):
        numbers = (
            np.zeros(4) if options.get("targets") is not None and len(options["targets"]) < 4 else labels
        )
        refuses(lambda o=options, y=numbers: kind(**o)(y, logits), words)
        refuses(lambda o=options, y=numbers: kind(**o).metric(y, logits), words)
        refuses(lambda o=options, y=numbers: kind(**o).calc_ders_multi([0.0] * 3, y[1], 1.0), words)
    for bad, words in BAD_LABELS:
        refuses(lambda bad=bad: kind()(bad, logits), words)
        refuses(lambda bad=bad: kind().metric(bad, logits), words)
    for bad, words in BAD_WEIGHTS:
        for of_classes in (None, [1.0, 2.0, 3.0]):
            objective = kind(class_weight=of_classes)
            refuses(lambda objective=objective, bad=bad: objective(labels, logits, bad), words)
            refuses(lambda objective=objective, bad=bad: objective.metric(labels, logits, bad), words)
        refuses(lambda bad=bad: kind().init_score(labels, bad, classes=3), words)
    refuses(lambda: kind()(labels, logits * 1j), "logits must be real numbers")
    refuses(lambda: kind().init_score(labels, classes="3"), "classes must be an integer")
    refuses(lambda: kind().init_score(labels, classes=3, rows=-1), "rows must be at least 0")


def test_errors_of_labels_of_one_logit():
    for call in (lambda y: Binary()(y, np.zeros(3)), lambda y: Binary().init_score(y)):
        for bad in ([0, 1, 2], [0, 1, -1], [0.5, 1.0, np.nan]):
            refuses(lambda call=call, bad=bad: call(bad), f"labels[2] is {np.array(bad)[2]}, expected")
    refuses(
        lambda: Focal(class_weight=[1, 2])([0, 1, 1], np.zeros(3)), "class_weight needs logits of shape (N"
    )
    refuses(lambda: Softmax(prior=[1, 2]).init_score([0, 1, 2]), "prior must have one number per class")


@pytest.mark.parametrize("kind, rule", [("f8", "friedman"), (">f8", "friedman"), ("i8", "friedman"),
                                        ("f4", "upper"), ("f2", "upper")])  # fmt: skip
def test_the_rule_of_logits_of_any_dtype(case, kind, rule):
    """Integers become float64."""
    logits = np.rint(case.logits).astype(kind)
    found, expected = Softmax()(case.labels, logits), Softmax(hessian=rule)(case.labels, logits)
    np.testing.assert_array_equal(found, expected)
    assert len(Softmax().metric(case.labels, logits) if rule == "friedman" else "abc") == 3


@each_objective
def test_derivatives_for_catboost(case, objective, labels):
    """They are those of minus the loss; the matrix, but for a focal loss, is exact."""
    logits, y = logits_of(case, labels)[:5], getattr(case, labels)[:5].astype(np.float32)
    if labels == "binary":
        pairs = np.array(objective.calc_ders_range(logits, y, case.weight[:5]))
        np.testing.assert_allclose(pairs.T, -np.array(objective(y, logits, case.weight[:5])))
        return
    for z, label, w in zip(logits, y, case.weight, strict=False):
        first, second = map(np.array, objective.calc_ders_multi(z, label, w))
        np.testing.assert_allclose(first, -objective(y[y == label][:1], z[None], [w])[0][0])
        if isinstance(objective, Focal):
            continue
        steps = 1e-5 * np.eye(C)
        up, down = (
            np.array([objective.calc_ders_multi(z + sign * step, label, w)[0] for step in steps])
            for sign in (1, -1)
        )
        np.testing.assert_allclose(second, (up - down) / 2e-5, atol=1e-8)


def test_no_library_is_imported():
    code = (
        "import sys, xent.boosting\n"
        "print([m for m in ('lightgbm', 'xgboost', 'catboost', 'sklearn', 'scipy') if m in sys.modules])"
    )
    assert run_python("-c", code).stdout.strip() == "[]"


# ---- LightGBM ----

LIGHTGBM = {"num_threads": 1, "verbose": -1, "min_data_in_leaf": 5}


@pytest.fixture(scope="session")
def lightgbm():
    return pytest.importorskip("lightgbm")


def structure(tree):
    """Splits of a dumped tree of either library, and its leaves."""
    if "leaf_value" in tree or "leaf" in tree:
        return [], [tree.get("leaf_value", tree.get("leaf"))]
    children = tree.get("children") or [tree["left_child"], tree["right_child"]]
    parts = [structure(child) for child in children]
    split = tree.get("split_feature", tree.get("split")), tree.get("threshold", tree.get("split_condition"))
    return [split, *parts[0][0], *parts[1][0]], [*parts[0][1], *parts[1][1]]


def assert_same_trees(trees, others, rtol):
    assert len(trees) == len(others) > 0
    for (splits, leaves), (other_splits, other_leaves) in zip(trees, others, strict=True):
        assert splits == other_splits
        np.testing.assert_allclose(leaves, other_leaves, rtol=rtol, atol=1e-7)


@pytest.mark.parametrize(
    "objective, own, labels", [(Softmax(), "multiclass", "labels"), (Binary(), "binary", "binary")]
)
def test_trees_of_lightgbm(lightgbm, case, objective, own, labels):
    """Those of its own objective, from the same start."""
    params = {"num_class": C if own == "multiclass" else 1, **LIGHTGBM}
    y = getattr(case, labels)
    models, losses = [], []
    seen, start = {}, objective.init_score(y, case.weight)
    for chosen in (own, objective):
        data = lightgbm.Dataset(case.x, y, weight=case.weight, init_score=start)
        watch = {} if chosen is own else {
            "valid_sets": [data], "feval": objective.metric, "callbacks": [lightgbm.record_evaluation(seen)],
        }  # fmt: skip
        params |= {"objective": chosen, "metric": "None"}
        models.append(lightgbm.train(params, data, 5, **watch))
        logits = models[-1].predict(case.x, raw_score=True) + start
        losses.append(objective.metric(y, logits, case.weight)[1])
    own_trees, trees = (
        [structure(tree["tree_structure"]) for tree in m.dump_model()["tree_info"]] for m in models
    )
    assert_same_trees(own_trees, trees, rtol=1e-6)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert seen["training"]["loss"][-1] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.filterwarnings("ignore:The argument 'eval_set'")
def test_sklearn_form_of_lightgbm(lightgbm, case):
    """Cloned, in workers, with weights, a metric and early stopping."""
    sklearn, joblib = pytest.importorskip("sklearn"), pytest.importorskip("joblib")
    start = Softmax().init_score(case.labels)
    model = lightgbm.LGBMClassifier(n_estimators=3, objective=Softmax(), n_jobs=1, verbose=-1)

    def fit(weight):
        again = sklearn.clone(model)
        again.fit(
            case.x, case.labels, sample_weight=weight, init_score=start, eval_set=[(case.x, case.labels)],
            eval_init_score=[start], eval_metric=again.objective.metric,
        )  # fmt: skip
        return again.predict(case.x, raw_score=True) + start, again.evals_result_["training"]["loss"]

    logits, losses = fit(None)
    assert losses[-1] < losses[0]
    assert losses[-1] == pytest.approx(xent.cross_entropy(logits, case.labels))
    others = joblib.Parallel(2, backend="threading")(joblib.delayed(fit)(w) for w in (None, case.weight))
    np.testing.assert_array_equal(others[0][0], logits)
    assert not np.array_equal(others[1][0], logits)


def test_targets_in_lightgbm(lightgbm, case):
    """Soft labels and several labels, by rows, in folds too."""
    for objective in (Softmax(targets=case.soft), MultiLabel(targets=case.both), Focal(targets=case.both)):
        classes = objective.targets.shape[1]
        data = lightgbm.Dataset(case.x, np.arange(N), params=LIGHTGBM, free_raw_data=False)
        params = {"objective": objective, "num_class": classes, "metric": "None", **LIGHTGBM}
        seen = lightgbm.cv(params, data, 5, nfold=2, stratified=False, feval=objective.metric)
        losses = seen["valid loss-mean"]
        assert losses[-1] < losses[0]


# ---- XGBoost ----


@pytest.fixture(scope="session")
def xgboost():
    return pytest.importorskip("xgboost")


@pytest.mark.parametrize(
    "objective, own, labels",
    [(Softmax(), "multi:softprob", "labels"), (Binary(), "binary:logistic", "binary")],
)
def test_trees_of_xgboost(xgboost, case, objective, own, labels):
    y = getattr(case, labels)
    params = {"objective": own, "nthread": 1, "max_depth": 3, "disable_default_eval_metric": True}
    params |= {"num_class": C} if labels == "labels" else {}
    start = objective.init_score(y, case.weight)
    data = xgboost.DMatrix(case.x, y, weight=case.weight, base_margin=start)
    models, seen = [], {}
    for chosen in (None, objective):
        metric = {"custom_metric": objective.metric, "evals": [(data, "train")], "evals_result": seen}
        models.append(
            xgboost.train(params, data, 5, obj=chosen, verbose_eval=False, **(metric if chosen else {}))
        )
    own_trees, trees = (
        [structure(json.loads(tree)) for tree in m.get_dump(dump_format="json")] for m in models
    )
    assert_same_trees(own_trees, trees, rtol=1e-4)
    logits = [m.predict(data, output_margin=True) for m in models]
    losses = [objective.metric(y, z, case.weight) for z in logits]
    assert losses == pytest.approx([seen["train"]["loss"][-1]] * 2, abs=1e-5)
    if labels == "labels":
        np.testing.assert_allclose(models[1].predict(data), xent.softmax(logits[1]), rtol=1e-5)


def test_sklearn_form_of_xgboost(xgboost, case):
    sklearn = pytest.importorskip("sklearn")
    start = Softmax().init_score(case.labels, case.weight)
    model = xgboost.XGBClassifier(
        n_estimators=3, objective=Softmax(), n_jobs=1, eval_metric=Softmax().metric,
        disable_default_eval_metric=True,
    )  # fmt: skip
    model = sklearn.clone(model).fit(
        case.x, case.labels, sample_weight=case.weight, base_margin=start, eval_set=[(case.x, case.labels)],
        base_margin_eval_set=[start], verbose=False,
    )  # fmt: skip
    logits = model.predict(case.x, output_margin=True, base_margin=start)
    losses = model.evals_result()["validation_0"]["metric"]
    assert losses[-1] == pytest.approx(xent.cross_entropy(logits, case.labels), abs=1e-5)
    assert losses[-1] < losses[0]


def test_targets_in_xgboost(xgboost, case):
    """As matrices of labels and as rows: the same."""
    params = {"nthread": 1, "disable_default_eval_metric": True, "base_score": 0.0}
    for kind, targets in ((Softmax, case.soft), (MultiLabel, case.both), (Focal, case.both)):
        found = []
        for objective, labels, extra in (
            (kind(), targets, {}),
            (kind(targets=targets.astype(np.float32)), np.arange(N), {"num_class": targets.shape[1]}),
        ):
            data = xgboost.DMatrix(case.x, labels)
            if extra:
                extra["objective"] = "multi:softprob"
            model = xgboost.train({**params, **extra}, data, 3, obj=objective)
            found.append(model.predict(data, output_margin=True))
        np.testing.assert_allclose(*found, atol=1e-5)


# ---- CatBoost ----

CATBOOST = {
    "iterations": 5, "depth": 3, "learning_rate": 0.3, "leaf_estimation_method": "Newton",
    "leaf_estimation_iterations": 1, "boost_from_average": False, "thread_count": 1, "random_seed": 0,
    "bootstrap_type": "No", "random_strength": 0, "verbose": 0, "allow_writing_files": False,
    "boosting_type": "Plain",
}  # fmt: skip


@pytest.fixture(scope="session")
def catboost():
    return pytest.importorskip("catboost", exc_type=ImportError)


catboost_speaks = pytest.mark.filterwarnings("ignore:Failed to import numba", "ignore:Can't optimize method")


@catboost_speaks
@pytest.mark.parametrize(
    "objective, own, labels", [(Softmax(), "MultiClass", "labels"), (Binary(), "Logloss", "binary")]
)
def test_trees_of_catboost(catboost, case, objective, own, labels):
    y = getattr(case, labels)
    pool = catboost.Pool(case.x, y, weight=case.weight)
    extra = {"classes_count": C} if labels == "labels" else {}
    found = []
    for chosen in (own, objective):
        metric = {"eval_metric": chosen} if chosen is objective else {}
        model = catboost.CatBoost({"loss_function": chosen, **metric, **extra, **CATBOOST}).fit(pool)
        found.append(model.predict(case.x, prediction_type="RawFormulaVal"))
    losses = [objective.metric(y, z, case.weight)[1] for z in found]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert model.get_best_score()["learn"][type(objective).__name__] == pytest.approx(losses[1], abs=1e-4)


@catboost_speaks
def test_several_labels_in_catboost(catboost, case):
    pool = catboost.Pool(case.x, case.both)
    found = []
    for chosen in ("MultiLogloss", pickle.loads(pickle.dumps(MultiLabel().catboost()))):
        metric = {} if isinstance(chosen, str) else {"eval_metric": chosen}
        model = catboost.CatBoost({"loss_function": chosen, **metric, **CATBOOST}).fit(pool)
        found.append(model.predict(case.x, prediction_type="RawFormulaVal"))
    losses = [MultiLabel().metric(case.both, z)[1] for z in found]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


@catboost_speaks
def test_soft_labels_in_catboost(catboost, case):
    objective = Softmax().catboost()
    model = catboost.CatBoost({"loss_function": objective, "eval_metric": objective, **CATBOOST})
    logits = model.fit(catboost.Pool(case.x, case.soft)).predict(case.x, prediction_type="RawFormulaVal")
    assert xent.cross_entropy(logits, case.soft) < xent.cross_entropy(np.zeros((N, C)), case.soft)


def test_catboost_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "catboost", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'xent-kernels[catboost]'")):
        MultiLabel().catboost()


# ---- the page ----


def blocks():
    """The examples of docs/boosting.md that need a library, and their sections."""
    page = ROOT / "docs" / "boosting.md"
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    for section in re.split("^## ", text, flags=re.MULTILINE):
        for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
            if not code.startswith(">>>"):
                yield pytest.param(code, id=section.split("\n")[0])


@catboost_speaks
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("code", list(blocks()))
def test_the_page(code, rng):
    """Its examples run, and learn what there is to learn."""
    libraries = {name: pytest.importorskip(name) for name in re.findall("lightgbm|xgboost|catboost", code)}
    x = rng.standard_normal((200, 10))
    known = {
        "np": np, "xent": xent, "Softmax": Softmax, "MultiLabel": MultiLabel, **libraries,
        "quiet": {"verbose": 0, "allow_writing_files": False},
        "x": x[:150], "x_test": x[150:], "labels": x[:150].argmax(axis=1), "several": x[:150, :3] > 0,
    }  # fmt: skip
    # threads that wait for each other, beside those of other tests, take half a minute
    with threadpool_limits(1):
        exec(code, known)
    if "probabilities" in known:
        known["logits"] = np.log(known["probabilities"])
    if "logits" in known:
        assert xent.cross_entropy(known["logits"], x[150:].argmax(axis=1)) < np.log(10)
    else:
        assert known["model"].predict(x[150:]).shape == (50, 3)
