"""evaluate, evaluate_sequences and compare: against the reference, scikit-learn and information theory."""

import json
import math

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from helpers import ZOO, finfo, of_zoo, raises, random_labels, random_logits, random_weights, reference, wide
from hypothesis import given
from hypothesis import strategies as st
from loss_options import positions_of, random_prior
from tolerances import bound, reference_error, transform_error

import xent

metrics = pytest.importorskip("sklearn.metrics")

INF, NAN = np.inf, np.nan
SHAPES = [((9, 5), -1), ((70, 3), 1), ((2, 7, 40), -1), ((3, 17, 5, 7), 1), ((65, 4, 2), 0), ((3, 300), -1)]
NUMBERS = [
    "loss",
    "perplexity",
    "accuracy",
    "classification_error",
    "mse",
    "entropy",
    "label_entropy",
    "mutual_information",
]


@pytest.fixture(params=["float16", "bfloat16", "float32", "float64"], scope="module")
def dtype(request):
    """Every dtype."""
    return np.dtype(request.param)


def rounding(dtype):
    """Relative error of means of the same positions in other tiles, which round probabilities elsewhere."""
    return 1e-12 if dtype == np.float64 else 1e-7


def assert_close(actual, expected, relative, what=""):
    """Assert two numbers, or all numbers of two evaluations, equal but for a relative error."""
    assert isinstance(actual, type(expected)), what
    if isinstance(actual, float):
        same = actual == expected or (math.isnan(actual) and math.isnan(expected))
        assert same or abs(actual - expected) <= relative * abs(expected), f"{what}: {actual} {expected}"
        return
    assert actual.count == expected.count, what
    for name in ["loss", "accuracy", "classification_error", "mse", "entropy", "label_entropy"]:
        # 1 - accuracy and the entropy of a single label may cancel
        room = (
            relative
            if name != "classification_error"
            else relative + 1e-15 / max(expected.classification_error, 1e-9)
        )
        assert_close(getattr(actual, name), getattr(expected, name), room, f"{name} {what}")
    exponent = 0.0 if not math.isfinite(expected.perplexity) else math.log(expected.perplexity)
    assert_close(actual.perplexity, expected.perplexity, relative * (1 + 2 * exponent), f"perplexity {what}")
    if math.isfinite(expected.loss):
        room = 2 * relative * (expected.loss + expected.label_entropy)
        assert abs(actual.mutual_information - expected.mutual_information) <= room, what
    assert list(actual.top_k_accuracy) == list(expected.top_k_accuracy), what
    for k, value in expected.top_k_accuracy.items():
        assert_close(actual.top_k_accuracy[k], value, relative, f"top {k} {what}")
    for mine, theirs in zip(actual.second_sums, expected.second_sums, strict=True):
        assert_close(mine, theirs, 2 * relative, f"second sums {what}")
    for name in ["class_sums", "confusion"]:
        mine, theirs = getattr(actual, name), getattr(expected, name)
        assert (mine is None) == (theirs is None), what
        if mine is not None:
            np.testing.assert_allclose(mine, theirs, 1e-14, err_msg=what)


def assert_evaluation(logits, target, given=None, what="", given_options=None, **options):
    """Assert evaluate against the reference; `given`, `given_options`: the same in other layouts."""
    dtype, axis = logits.dtype, options.get("axis", -1)
    single = dtype if dtype == np.float64 else np.dtype(np.float32)
    known = {k: wide(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    expected = reference("evaluate", wide(logits), target, **known)
    limit = bound("evaluation", single, max(np.size(target), 1) + logits.shape[axis])
    prior = options.get("prior")
    temperature = options.get("temperature", 1.0)
    error = reference_error(logits, axis) + transform_error(
        wide(logits), axis, prior=prior, temperature=temperature
    )
    # of probabilities, relative; a loss near 0 has it relative to 1 - p instead
    relative = limit * float(finfo(single).eps) + 4 * float(np.max(error, initial=0.0))
    result = xent.evaluate(*(given or (logits, target)), **{**options, **(given_options or {})})
    assert_close(result, expected, relative, what)
    return result


def options_of(names, shape, axis, dtype):
    """Options of these names."""
    count = int(np.prod(positions_of(shape, axis)))
    every = {
        "sample_weight": random_weights(count, dtype).reshape(positions_of(shape, axis)),
        "prior": random_prior(shape[axis]),
        "base": 2,
        "top_k": (1, 3, 5),
        "temperature": 1.75,
        "confusion": "per_class",
    }
    return {name: every[name] for name in names}


# Against the reference --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape, axis", SHAPES)
def test_against_the_reference(shape, axis, dtype):
    labels = random_labels(positions_of(shape, axis), shape[axis], ignored=0.2)
    logits, every = (
        random_logits(shape, dtype),
        ["sample_weight", "prior", "base", "top_k", "temperature", "confusion"],
    )
    for names in [[], *([name] for name in every), every]:
        options = options_of(names, shape, axis, dtype)
        assert_evaluation(logits, labels, what=f"{names}", axis=axis, **options)


@pytest.mark.parametrize("classes", [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 257, 1000, 4099])
def test_every_number_of_classes(classes, dtype):
    for positions in [0, 1, 2, 7, 8, 9, 33]:
        for shape, axis in [
            ((positions, classes), -1),
            ((classes, positions), 0),
            ((2, classes, positions), 1),
        ]:
            labels = random_labels(positions_of(shape, axis), classes, ignored=0.1)
            top_k = (1, 2, classes // 2 + 1, classes + 1)
            assert_evaluation(random_logits(shape, dtype), labels, axis=axis, top_k=top_k, what=f"of {shape}")


@pytest.mark.parametrize(
    "shape, axis", [((2, 40_000), -1), ((40_000, 3), 0), ((30_001, 9), -1), ((3, 11, 90, 97), 1)]
)
def test_large_arrays(shape, axis, dtype):
    labels = random_labels(positions_of(shape, axis), shape[axis])
    options = options_of(["sample_weight", "prior", "top_k"], shape, axis, dtype)
    logits = random_logits(shape, dtype)
    results = []
    for n in [1, 2, 3]:
        with xent.num_threads(n):
            results.append(xent.evaluate(logits, labels, axis=axis, **options))
    assert results[0] == results[1] == results[2]
    assert_evaluation(logits, labels, axis=axis, **options)


@given(data=st.data())
def test_any_shape_and_options(data):
    dtype = np.dtype(data.draw(st.sampled_from(["f4", "f8"])))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=9))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    ignore_index = data.draw(st.sampled_from([-100, -1, 0, 2, 255]))
    ignored = data.draw(st.floats(0, 1))
    labels = random_labels(positions_of(shape, axis), shape[axis], 1, ignored, ignore_index)
    names = data.draw(st.sets(st.sampled_from(["sample_weight", "prior", "base", "top_k", "confusion"])))
    # coarse logits: many ties
    logits = np.round(random_logits(shape, dtype, scale=data.draw(st.floats(0, 5))))
    options = options_of(sorted(names), shape, axis, dtype)
    if "prior" in options:
        options["prior"] = np.exp2(np.round(np.log2(options["prior"])))
    assert_evaluation(logits, labels, axis=axis, ignore_index=ignore_index, **options)


@pytest.mark.parametrize("variant", ZOO)
def test_every_memory_layout(variant, dtype):
    for shape, axis in [((7, 5), -1), ((3, 40), -1), ((4, 6, 9), 1), ((11, 4), 0)]:
        logits = random_logits(shape, dtype)
        labels = random_labels(positions_of(shape, axis), shape[axis], ignored=0.1)
        options, what = options_of(["sample_weight", "prior"], shape, axis, dtype), f"of {shape} axis {axis}"
        moved = {name: of_zoo(variant, value) for name, value in options.items()}
        layouts = (of_zoo(variant, logits), of_zoo(variant, labels))
        assert_evaluation(logits, labels, layouts, what, given_options=moved, axis=axis, **options)


@pytest.mark.parametrize("code", ["i1", "i4", "i8", "u1", "u8", ">i4"])
def test_every_label_dtype(code):
    logits, labels = random_logits((50, 7), np.float64), random_labels((50,), 7)
    assert xent.evaluate(logits, labels.astype(code)) == xent.evaluate(logits, labels)


# Against others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("function", [xent.reference.evaluate, None])
def test_agrees_with_scikit_learn(function, weighted):
    function = function or xent.evaluate
    logits, labels = random_logits((300, 10), np.float64), random_labels((300,), 10)
    weight = random_weights(300, np.float64) if weighted else None
    result = function(logits, labels, sample_weight=weight, top_k=(2, 5))
    p = reference("softmax", logits)
    classes = np.arange(10)
    loss = metrics.log_loss(labels, p, labels=classes, sample_weight=weight)
    assert result.loss == pytest.approx(loss, rel=1e-12)
    accuracy = metrics.accuracy_score(labels, logits.argmax(-1), sample_weight=weight)
    assert result.accuracy == pytest.approx(accuracy, rel=1e-14)
    assert result.classification_error == pytest.approx(1 - accuracy, rel=1e-13)
    for k in [2, 5]:
        expected = metrics.top_k_accuracy_score(labels, logits, k=k, labels=classes, sample_weight=weight)
        assert result.top_k_accuracy[k] == pytest.approx(expected, rel=1e-14)
    one_hot = np.eye(10)[labels]
    assert result.mse == pytest.approx(np.average(((p - one_hot) ** 2).mean(-1), weights=weight), rel=1e-12)
    assert result.entropy == pytest.approx(np.average(-(p * np.log(p)).sum(-1), weights=weight), rel=1e-12)
    assert result.count == 300


def test_agrees_with_cross_entropy(dtype):
    logits, labels = random_logits((60, 7), dtype), random_labels((60,), 7, ignored=0.2)
    weight = random_weights(60, dtype)
    for options in [{}, {"sample_weight": weight}, {"prior": random_prior(7)}]:
        result = xent.evaluate(logits, labels, **options)
        assert result.loss == pytest.approx(float(xent.cross_entropy(logits, labels, **options)), rel=2e-6)
        assert result.perplexity == pytest.approx(math.exp(result.loss), rel=1e-12)
        assert result.count == (labels != -100).sum()


def binary_symmetric_channel(crossover, repeats):
    """What comes out of the channel for equally frequent bits, and what went in."""
    wrong = round(crossover * repeats)
    sent = np.repeat([0, 1], repeats)
    flipped = np.tile(np.arange(repeats) < wrong, 2)
    return sent ^ flipped, sent


def test_capacity_of_a_binary_symmetric_channel():
    # 1 - H(0.11) = 0.5 bit: a receiver who knows the channel learns as much as it can carry
    received, sent = binary_symmetric_channel(0.11, 100)
    p = np.where(received[:, None] == np.arange(2), 0.89, 0.11)
    result = xent.evaluate(np.log(p), sent, base=2)
    capacity = 1 + 0.11 * np.log2(0.11) + 0.89 * np.log2(0.89)
    assert result.mutual_information == pytest.approx(capacity, rel=1e-12)
    assert result.mutual_information == pytest.approx(0.5, abs=1e-3)
    assert result.label_entropy == pytest.approx(1, rel=1e-15)
    assert result.entropy == pytest.approx(1 - capacity, rel=1e-12)
    assert result.accuracy == pytest.approx(0.89, rel=1e-15)
    assert result.mse == pytest.approx(0.11 * 0.89**2 + 0.89 * 0.11**2, rel=1e-12)
    # the channel of one's own making carries less if one believes it better than it is
    boastful = xent.evaluate(np.log(np.where(p > 0.5, 0.99, 0.01)), sent, base=2)
    assert boastful.mutual_information < 0.4


def test_units():
    logits, labels = random_logits((30, 5), np.float64), random_labels((30,), 5)
    nats = xent.evaluate(logits, labels)
    for base in [2, 10, 2.5]:
        result = xent.evaluate(logits, labels, base=base)
        for name in ["loss", "entropy", "label_entropy", "mutual_information"]:
            assert getattr(result, name) == pytest.approx(getattr(nats, name) / math.log(base), rel=1e-14)
        for name in ["perplexity", "accuracy", "classification_error", "mse"]:
            assert getattr(result, name) == getattr(nats, name)
    assert xent.evaluate(np.zeros((4, 8)), [0, 1, 2, 3], base=2).loss == pytest.approx(3, rel=1e-15)
    assert xent.evaluate(np.zeros((4, 8)), [0, 1, 2, 3], base=2).perplexity == pytest.approx(8, rel=1e-15)


# Ranks ------------------------------------------------------------------------------------------------------


def test_ties_go_to_the_first_class(dtype):
    for classes in [2, 5, 9, 33, 300]:
        logits = np.zeros((classes, classes), dtype)
        for values, axis in [(logits, -1), (logits.T.copy(), 0)]:
            result = xent.evaluate(values, np.arange(classes), axis=axis, top_k=(1, 2, classes))
            assert result.accuracy == pytest.approx(1 / classes, rel=1e-15)
            assert result.top_k_accuracy[1] == result.accuracy
            assert result.top_k_accuracy[2] == pytest.approx(2 / classes, rel=1e-15)
            assert result.top_k_accuracy[classes] == 1
    logits = np.array([[1, 5, 5, 0]] * 4).astype(dtype)
    accuracies = [xent.evaluate(logits[:1], [c], top_k=(1, 2, 3, 4)).top_k_accuracy for c in range(4)]
    assert [list(a.values()) for a in accuracies] == [[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    "shape, axis", [((300, 3), -1), ((37, 70), -1), ((9, 1500), -1), ((5, 11, 67), 1), ((600, 40), 0)]
)
def test_ranks_among_many_ties(shape, axis, dtype):
    rng = np.random.default_rng(20)
    logits = rng.integers(0, 4, shape).astype(dtype)
    logits.ravel()[rng.integers(0, logits.size, 7)] = np.nan
    logits.ravel()[rng.integers(0, logits.size, 7)] = -np.inf
    rows = np.moveaxis(logits, axis, -1).astype(np.float64)
    labels = rng.integers(0, shape[axis], rows.shape[:-1])
    own = np.take_along_axis(rows, labels[..., None], -1)
    earlier = np.arange(shape[axis]) < labels[..., None]
    before = ((rows > own) | (rows == own) & earlier).sum(-1)
    before[np.isnan(rows).any(-1) | np.isneginf(rows).all(-1)] = shape[axis]
    top_k = tuple(range(1, shape[axis] + 1, 1 + shape[axis] // 20))
    result = xent.evaluate(logits, labels, axis=axis, top_k=top_k)
    assert result.top_k_accuracy == {k: (before < k).mean() for k in top_k}
    assert result.accuracy == (before == 0).mean()


def test_accuracy_is_that_of_argmax(dtype):
    logits = np.round(random_logits((500, 12), dtype))  # many ties
    labels = random_labels((500,), 12)
    for values, axis in [(logits, -1), (logits.T.copy(), 0)]:
        result = xent.evaluate(values, labels, axis=axis)
        assert result.accuracy == pytest.approx((wide(logits).argmax(-1) == labels).mean(), rel=1e-15)


def test_the_prior_changes_ranks_and_losses():
    logits, labels = np.array([[1.0, 0.0], [0.2, 0.0]]), [0, 1]
    assert xent.evaluate(logits, labels).accuracy == 0.5
    result = xent.evaluate(logits, labels, prior=[1, 2])
    assert result.accuracy == 1
    p = np.exp(logits) * [1, 2]
    p /= p.sum(-1, keepdims=True)
    assert result.loss == pytest.approx(-np.log(p[[0, 1], labels]).mean(), rel=1e-14)


def test_more_than_all_classes():
    result = xent.evaluate(random_logits((5, 3), np.float64), [0, 1, 2, 0, 1], top_k=(3, 4, 100))
    assert result.top_k_accuracy == {3: 1.0, 4: 1.0, 100: 1.0}
    assert xent.evaluate(np.zeros((2, 3)), [0, 1], top_k=()).top_k_accuracy == {}
    assert xent.evaluate(np.zeros((2, 3)), [0, 1], top_k=[np.int64(2)]).top_k_accuracy == {2: 1.0}


# Special values ---------------------------------------------------------------------------------------------


def test_nothing_counted(dtype):
    for logits, labels, options in [
        (np.zeros((0, 3), dtype), np.zeros(0, int), {}),
        (np.ones((4, 3), dtype), np.full(4, -100), {}),
        (np.full((4, 3), NAN, dtype), np.full(4, -100), {}),
        (np.zeros((2, 0), dtype), np.full(2, -100), {}),
        (np.ones((4, 3), dtype), np.zeros(4, int), {"sample_weight": np.zeros(4)}),
    ]:
        for function in [xent.evaluate, xent.reference.evaluate]:
            result = function(logits, labels, top_k=(1, 2), base=2, **options)
            assert result.count == (4 if options else 0)
            assert result.perplexity == 1
            assert result.top_k_accuracy == {1: 0.0, 2: 0.0}
            for name in NUMBERS:
                assert name == "perplexity" or getattr(result, name) == 0, name
            assert "count" in repr(result)


def test_ignored_positions_do_not_count(dtype):
    logits, labels = random_logits((20, 6), dtype), random_labels((20,), 6)
    labels[::2] = -100
    spoiled = logits.copy()
    spoiled[::2] = NAN
    result = xent.evaluate(spoiled, labels)
    assert result.count == 10
    assert_close(result, xent.evaluate(logits[1::2].copy(), labels[1::2].copy()), rounding(dtype))


def test_impossible_labels(dtype):
    logits = np.array([[-INF, 0, 0], [0, 0, 0]]).astype(dtype)
    result = xent.evaluate(logits, [0, 0])
    assert result.loss == INF
    assert result.perplexity == INF
    assert result.mutual_information == -INF
    assert result.accuracy == 0.5
    assert result.entropy == pytest.approx((math.log(2) + math.log(3)) / 2, rel=1e-6)
    result = xent.evaluate(logits, [0, 0], sample_weight=[0, 1])
    assert result.loss == pytest.approx(math.log(3), rel=1e-6)
    assert result.accuracy == 1
    assert result.count == 2


def test_nan_logits(dtype):
    for row in [[NAN, 0, 0], [0, NAN, 0], [NAN, NAN, NAN]]:
        for padding in [0, 30]:
            x = np.array([row + [0] * padding, [0, 0, 0] + [0] * padding]).astype(dtype)
            for values, axis in [(x, -1), (x.T.copy(), 0)]:
                result = xent.evaluate(values, [0, 0], axis=axis, top_k=(1, 3))
                for name in ["loss", "perplexity", "mse", "entropy", "mutual_information"]:
                    assert math.isnan(getattr(result, name)), name
                # such a row ranks nothing: a model that gives NaN is right nowhere
                assert result.accuracy == 0.5
                assert result.top_k_accuracy == {1: 0.5, 3: 0.5}


@pytest.mark.parametrize("row", [[-INF] * 3, [NAN, 0, 0], [-INF, NAN, -INF], [-INF] * 40])
@pytest.mark.parametrize("options", [{}, {"temperature": 2}, {"prior": True}], ids=str)
def test_what_is_never_right(row, options, dtype):
    if "prior" in options:
        options = {"prior": random_prior(len(row))}
    for label in range(3):
        x = np.array([row] * 5).astype(dtype)
        for values, axis in [(x, -1), (x.T.copy(), 0)]:
            for function in [xent.evaluate, xent.reference.evaluate]:
                result = function(
                    values, [label] * 5, axis=axis, top_k=(1, len(row)), confusion=True, **options
                )
                assert result.top_k_accuracy == {1: 0.0, len(row): 0.0}
                assert not result.confusion_matrix.any()
            same = xent.compare(values, values, axis=axis).same_top
            sequences = xent.evaluate_sequences(values, [label] * 5, [0] * 5, axis=axis)
            assert same == 0
            assert not sequences.greedy.any()


def test_certain_predictions(dtype):
    logits = np.array([[30, 0, 0]]).astype(dtype)
    q = 2 * math.exp(-30) / (1 + 2 * math.exp(-30))
    result = xent.evaluate(logits, [0])
    assert result.loss == pytest.approx(q, rel=2e-6)
    assert result.mse == pytest.approx((q**2 + q**2 / 2) / 3, rel=2e-6)
    assert result.entropy == pytest.approx(q + q * (30 + 0), rel=2e-6)


# The class --------------------------------------------------------------------------------------------------


def chunks(logits, labels, weight, step, **options):
    """Evaluations of some positions at a time."""
    for begin in range(0, len(labels), step):
        part = slice(begin, begin + step)
        yield xent.evaluate(
            logits[part], labels[part], sample_weight=None if weight is None else weight[part], **options
        )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("step", [1, 7, 64, 1000])
def test_chunks_add_up_to_the_whole(step, weighted, dtype):
    logits, labels = random_logits((300, 9), dtype), random_labels((300,), 9, ignored=0.1)
    weight = random_weights(300, dtype) if weighted else None
    options = {"top_k": (1, 3), "base": 2}
    whole = xent.evaluate(logits, labels, sample_weight=weight, **options)
    parts = list(chunks(logits, labels, weight, step, **options))
    assert_close(sum(parts), whole, rounding(dtype))
    total = parts[0]
    for part in parts[1:]:
        total += part
    assert total == sum(parts)
    assert parts[0].count <= step, "adding changes neither"
    assert total.count == whole.count


def test_empty_evaluations_are_neutral():
    some = xent.evaluate(random_logits((5, 3), np.float64), [0, 1, 2, 0, -100])
    none = xent.evaluate(np.zeros((0, 3)), np.zeros(0, int))
    assert some + none == some == none + some


def test_what_does_not_add_up():
    logits, labels = np.zeros((2, 3)), [0, 1]
    one = xent.evaluate(logits, labels)
    for name, other in [
        ("classes", xent.evaluate(np.zeros((2, 4)), labels)),
        ("top_k", xent.evaluate(logits, labels, top_k=(1, 2))),
        ("base", xent.evaluate(logits, labels, base=2)),
    ]:
        with raises(ValueError, name):
            one + other
        assert one != other
    for other in [1, 1.5, "x", None]:
        with pytest.raises(TypeError):
            one + other
        with pytest.raises(TypeError):
            other + one
    assert one != 0
    assert sum([one]) == one


def test_equality_and_immutability():
    logits, labels = random_logits((5, 3), np.float64), [0, 1, 2, 0, 1]
    one = xent.evaluate(logits, labels)
    assert one == xent.evaluate(logits, labels)
    assert one != xent.evaluate(logits, [0, 1, 2, 0, 2])
    assert one != xent.evaluate(logits + [0, 0, 1], labels)
    for name in ["count", "loss", "accuracy"]:
        with pytest.raises(AttributeError):
            setattr(one, name, 0)


def test_types_and_text(dtype):
    result = xent.evaluate(random_logits((5, 3), dtype), [0, 1, 2, 0, 1], top_k=(1, 2), base=2)
    assert type(result.count) is int
    for name in NUMBERS:
        assert type(getattr(result, name)) is float, name
    assert all(type(k) is int and type(v) is float for k, v in result.top_k_accuracy.items())
    text = repr(result)
    for part in ["Evaluation(", "count=5", "bits", f"accuracy={result.accuracy:.4g}", "top_2_accuracy"]:
        assert part in text
    assert type(result) is type(xent.reference.evaluate([[0.0, 1.0]], [0]))


def test_one_position():
    result = xent.evaluate(np.log([0.25, 0.75]), 1)
    assert result.count == 1
    assert result.loss == pytest.approx(-math.log(0.75), rel=1e-14)
    assert result.label_entropy == 0


# Errors -----------------------------------------------------------------------------------------------------

X = np.zeros((3, 5))
LABELS = np.array([0, 4, 2])


def test_errors():
    with raises(ValueError, "target[1] is 5", "ignore_index=-100"):
        xent.evaluate(X, [0, 5, 1])
    with raises(ValueError, "target", (2,), (3,)):
        xent.evaluate(X, [0, 1])
    for target in [LABELS.astype(float), np.full((3, 5), 0.2), LABELS.astype(bool)]:
        with raises(TypeError, "target", target.dtype):
            xent.evaluate(X, target)
    with raises(TypeError, "logits"):
        xent.evaluate(X.astype(complex), LABELS)
    with raises(np.exceptions.AxisError, 2):
        xent.evaluate(X, LABELS, axis=2)
    with raises(TypeError, "ignore_index"):
        xent.evaluate(X, LABELS, ignore_index=1.0)
    with pytest.raises(TypeError):
        xent.evaluate(X, LABELS, -1)


def test_errors_of_options():
    for bad in [np.ones(4), np.ones((3, 1)), [1, NAN, 1], [1, INF, 1]]:
        with raises(ValueError, "sample_weight"):
            xent.evaluate(X, LABELS, sample_weight=bad)
    for bad in [np.ones(4), np.zeros(5), np.full(5, NAN), -np.ones(5)]:
        with raises(ValueError, "prior"):
            xent.evaluate(X, LABELS, prior=bad)
    for bad in [0, -2, 1, NAN, INF]:
        with raises(ValueError, "base"):
            xent.evaluate(X, LABELS, base=bad)
    for bad in [(0,), (1, -1)]:
        with raises(ValueError, "top_k"):
            xent.evaluate(X, LABELS, top_k=bad)
    for bad in [(1.5,), ("1",)]:
        with pytest.raises(TypeError):
            xent.evaluate(X, LABELS, top_k=bad)


# Standard errors, calibration, confusion --------------------------------------------------------------------


def losses_of(logits, labels, axis=-1):
    """Losses, and whether labels have the largest logit, by NumPy."""
    return reference("cross_entropy", wide(logits), labels, axis=axis, reduction="none"), (
        wide(logits).argmax(axis) == labels
    )


def test_standard_errors(dtype):
    logits, labels = random_logits((211, 9), dtype), random_labels((211,), 9)
    losses, right = losses_of(logits, labels)
    result = xent.evaluate(logits, labels, base=2)
    n = len(labels)
    assert result.loss_standard_error == pytest.approx(
        losses.std(ddof=1) / math.sqrt(n) / math.log(2), rel=1e-6
    )
    assert result.accuracy_standard_error == pytest.approx(right.std(ddof=1) / math.sqrt(n), rel=1e-12)


def test_standard_errors_with_weights():
    logits, labels = random_logits((90, 5), np.float64), random_labels((90,), 5)
    weight = random_weights(90, np.float64)
    weight[::4] = 0
    losses, right = losses_of(logits, labels)
    result = xent.evaluate(logits, labels, sample_weight=weight)
    counted = np.count_nonzero(weight)
    for values, mean, error in [
        (losses, result.loss, result.loss_standard_error),
        (right, result.accuracy, result.accuracy_standard_error),
    ]:
        squares = (weight**2 * (values - mean) ** 2).sum() / weight.sum() ** 2
        assert error == pytest.approx(math.sqrt(squares * counted / (counted - 1)), rel=1e-12)
    assert result.loss_standard_error == pytest.approx(
        xent.evaluate(
            logits[weight != 0], labels[weight != 0], sample_weight=weight[weight != 0]
        ).loss_standard_error,
        rel=1e-12,
    )


def test_standard_errors_of_next_to_nothing():
    one = xent.evaluate([[1.0, 2.0]], [0])
    assert math.isnan(one.loss_standard_error)
    assert math.isnan(one.accuracy_standard_error)
    assert math.isnan(xent.compare([[1.0, 2.0]], [[1.0, 2.5]]).kl_standard_error)
    same = xent.evaluate(np.zeros((1000, 3)), np.zeros(1000, int))
    assert same.loss_standard_error <= 1e-8 * same.loss
    assert same.accuracy_standard_error == 0


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape, axis", [((400, 6), -1), ((150, 70), -1), ((3, 6, 90), 1)])
def test_calibration(shape, axis, weighted, dtype):
    logits, labels = random_logits(shape, dtype), random_labels(positions_of(shape, axis), 6, ignored=0.1)
    weight = random_weights(labels.size, dtype).reshape(labels.shape) if weighted else None
    result = xent.evaluate(logits, labels, axis=axis, sample_weight=weight, calibration_bins=10)
    p = np.moveaxis(reference("softmax", wide(logits), axis), axis, -1)[labels != -100]
    confidence, right = p.max(-1), p.argmax(-1) == labels[labels != -100]
    v = np.ones(len(p)) if weight is None else wide(weight)[labels != -100]
    expected, edges = 0, np.linspace(0, 1, 11)
    for low, high, share, sure, correct in zip(edges, edges[1:], *result.reliability[1:], strict=False):
        here = (confidence > low) & (confidence <= high)
        assert share == pytest.approx(v[here].sum(), rel=1e-12)
        if here.any():
            assert sure == pytest.approx(np.average(confidence[here], weights=v[here]), rel=2e-6)
            assert correct == pytest.approx(np.average(right[here], weights=v[here]), rel=1e-12)
            expected += abs((v * (right * 1.0 - confidence))[here].sum()) / v.sum()
        else:
            assert math.isnan(sure)
            assert math.isnan(correct)
    np.testing.assert_allclose(result.reliability.edges, edges, 1e-15)
    assert result.expected_calibration_error == pytest.approx(expected, rel=1e-5)


def test_edges_of_bins(dtype):
    # equal logits of C classes: a confidence of 1 / C exactly, which is in the bin below that edge
    for classes in [2, 5, 10]:
        for function in [xent.evaluate, xent.reference.evaluate]:
            result = function(np.zeros((4, classes), dtype), [0, 1, 1, 0], calibration_bins=10)
            assert result.reliability.weight[10 // classes - 1] == 4
            assert result.expected_calibration_error == pytest.approx(0.5 - 1 / classes, abs=1e-15)
    result = xent.evaluate(np.array([[NAN, 0.0], [1.0, 0.0]], dtype), [0, 0], calibration_bins=3)
    assert math.isnan(result.expected_calibration_error)
    result = xent.evaluate(
        np.array([[NAN, 0.0], [1.0, 0.0]], dtype), [-100, 0], calibration_bins=1, confusion=True
    )
    assert result.expected_calibration_error == pytest.approx(1 - 1 / (1 + math.exp(-1)), rel=1e-6)
    assert result.confusion_matrix.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("shape, axis", [((300, 4), -1), ((90, 200), -1), ((4, 11, 30), 0)])
def test_confusion_is_that_of_scikit_learn(shape, axis, dtype):
    classes = shape[axis]
    logits = np.round(random_logits(shape, dtype))  # many ties
    labels = random_labels(positions_of(shape, axis), classes, ignored=0.1)
    weight = random_weights(labels.size, dtype).reshape(labels.shape)
    counted, predicted = labels != -100, wide(logits).argmax(axis)
    for factors in [None, weight]:
        expected = metrics.confusion_matrix(
            labels[counted],
            predicted[counted],
            labels=np.arange(classes),
            sample_weight=None if factors is None else wide(factors)[counted],
        )
        result = xent.evaluate(logits, labels, axis=axis, sample_weight=factors, confusion=True)
        np.testing.assert_allclose(result.confusion_matrix, expected, 1e-12)
        assert result.confusion_matrix.dtype == (np.int64 if factors is None else np.float64)
        brief = xent.evaluate(logits, labels, axis=axis, sample_weight=factors, confusion="per_class")
        for mine, theirs in zip(result.per_class, brief.per_class, strict=True):
            np.testing.assert_allclose(mine, theirs, 1e-12)
        precision, recall = result.per_class.precision, result.per_class.recall
        np.testing.assert_allclose(
            np.nan_to_num(precision), expected.diagonal() / np.maximum(expected.sum(0), 1e-300), 1e-12
        )
        np.testing.assert_allclose(
            np.nan_to_num(recall), expected.diagonal() / np.maximum(expected.sum(1), 1e-300), 1e-12
        )


def test_ignored_labels_of_several_values():
    logits, labels = random_logits((40, 5), np.float64), random_labels((40,), 5, ignored=0.2)
    spoiled = np.where(labels == 3, -1, labels)
    expected = xent.evaluate(logits, np.where(labels == 3, -100, labels))
    for function in [xent.evaluate, xent.reference.evaluate]:
        for values in [(-100, -1), (-1, -100), (-1, -100, 7)]:
            result = function(logits, spoiled, ignore_index=values)
            assert_close(result, expected, 1e-12)
    assert xent.evaluate(logits, labels, ignore_index=(-100,)) == xent.evaluate(logits, labels)
    unsigned = np.where(labels < 0, 255, labels).astype(np.uint8)
    assert xent.evaluate(logits, unsigned, ignore_index=(255, -1)) == xent.evaluate(logits, labels)
    with raises(ValueError, "target[", "-100"):  # nothing is ignored
        xent.evaluate(logits, labels, ignore_index=())
    with raises(ValueError, "target[", "is -1"):
        xent.evaluate(logits, spoiled, ignore_index=(-100, -2))
    with raises(TypeError, "ignore_index", "float"):
        xent.evaluate(logits, labels, ignore_index=(-100, 1.5))


def test_what_was_not_asked_for():
    result = xent.evaluate([[1.0, 2.0]], [0])
    for name, option in [
        ("expected_calibration_error", "calibration_bins=15"),
        ("reliability", "calibration_bins=15"),
        ("confusion_matrix", "confusion=True"),
        ("per_class", "confusion='per_class'"),
    ]:
        with raises(AttributeError, option):
            getattr(result, name)
    with raises(AttributeError, "compare(a, b, target)"):
        assert xent.compare([[1.0, 2.0]], [[1.0, 2.0]]).loss_ratio
    for options, part in [
        ({"calibration_bins": 0}, "calibration_bins"),
        ({"confusion": "per class"}, "confusion"),
        ({"temperature": 0}, "temperature"),
    ]:
        with raises(ValueError, part):
            xent.evaluate([[1.0, 2.0]], [0], **options)
    with raises(TypeError, "confusion"):
        xent.evaluate([[1.0, 2.0]], [0], confusion=1)


def test_all_of_it_adds_up_and_becomes_a_dict():
    logits, labels = random_logits((300, 9), np.float32), random_labels((300,), 9, ignored=0.1)
    weight = random_weights(300, np.float64)
    for confusion in [True, "per_class"]:
        options = {"calibration_bins": 7, "confusion": confusion, "temperature": 1.5, "top_k": (1, 2)}
        whole = xent.evaluate(logits, labels, sample_weight=weight, **options).as_dict()
        total = sum(chunks(logits, labels, weight, 64, **options)).as_dict()
        assert list(total) == list(whole)
        for name, value in flat(whole):
            assert_number(dict(flat(total))[name], value, name)
        assert json.loads(json.dumps(whole))["count"] == whole["count"]
    one = xent.evaluate(logits, labels, calibration_bins=7)
    for other in [{"calibration_bins": 8}, {}, {"calibration_bins": 7, "confusion": True}]:
        with raises(ValueError, "different"):
            one + xent.evaluate(logits, labels, **other)
    assert one.bits_per(100) == pytest.approx(one.loss * one.count / math.log(2) / 100, rel=1e-12)


def assert_number(actual, expected, name):
    """Assert two numbers equal but for roundings in other tiles, NaN and None too."""
    assert actual == (expected if expected is None else pytest.approx(expected, rel=1e-6, nan_ok=True)), name


def flat(value, name=""):
    """The numbers of a dict as pairs (name, number)."""
    if isinstance(value, dict):
        return [pair for key, part in value.items() for pair in flat(part, f"{name}/{key}")]
    if isinstance(value, list):
        return [pair for k, part in enumerate(value) for pair in flat(part, f"{name}/{k}")]
    return [(name, value)]


# Sequences --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape, axis", [((70, 5), -1), ((4, 40, 3), 2), ((9, 3, 300), -1), ((3, 8, 40), 1)])
def test_sequences_against_the_reference(shape, axis, dtype):
    logits, labels = (
        random_logits(shape, dtype),
        random_labels(positions_of(shape, axis), shape[axis], ignored=0.2),
    )
    labels = np.where(np.random.default_rng(0).random(labels.shape) < 0.7, wide(logits).argmax(axis), labels)
    groups = np.random.default_rng(1).integers(-3, 7, labels.shape) * 2**40
    single = dtype if dtype == np.float64 else np.dtype(np.float32)
    for options in [{}, {"temperature": 2}, {"prior": random_prior(shape[axis]), "base": 2}]:
        result = xent.evaluate_sequences(logits, labels, groups, axis=axis, **options)
        expected = reference("evaluate_sequences", wide(logits), labels, groups, axis=axis, **options)
        np.testing.assert_array_equal(result.groups, expected.groups)
        np.testing.assert_array_equal(result.tokens, expected.tokens)
        np.testing.assert_array_equal(result.greedy, expected.greedy)
        relative = bound("evaluation", single, labels.size) * float(finfo(single).eps) + 1e-6 * bool(options)
        np.testing.assert_allclose(result.log_prob, expected.log_prob, relative + 1e-12, 1e-300)
        np.testing.assert_allclose(result.perplexity, expected.perplexity, 1e-5)
        for threads in [1, 2]:
            with xent.num_threads(threads):
                assert result == xent.evaluate_sequences(logits, labels, groups, axis=axis, **options)


def test_sequences_are_what_evaluate_adds_up():
    logits, labels = random_logits((60, 11), np.float64), random_labels((60,), 11)
    groups = np.arange(60) // 7
    result = xent.evaluate_sequences(logits, labels, groups, base=2)
    for group in result:
        here = groups == group
        one = xent.evaluate(logits[here], labels[here], base=2)
        assert result[group].log_prob == pytest.approx(-one.loss * one.count, rel=1e-12)
        assert result[group].tokens == one.count
        assert result[group].greedy == (one.accuracy == 1)
    assert len(result) == 9
    with pytest.raises(KeyError):
        result[9]
    columns = json.loads(json.dumps(result.as_dict()))
    assert columns["groups"] == list(range(9))


def test_sums_of_many_positions():
    """A plain running sum of 10^5 equal weights is off by some thousand roundings."""
    n, w = 100_003, 0.1
    logits, label = np.zeros((n, 2)), np.zeros(n, np.int64)
    options = {"sample_weight": np.full(n, w), "calibration_bins": 2, "top_k": (1, 2)}
    exact = math.fsum([w] * n)
    for confusion in (True, "per_class"):
        found = xent.evaluate(logits, label, confusion=confusion, **options)
        sums = found.confusion[0, 0] if confusion is True else found.class_sums[:, 0]
        for each in (found.bin_sums[[0, 2], 0], found.top_k_sums, found.label_weights[0], sums):
            np.testing.assert_array_equal(each, exact)
        np.testing.assert_array_equal(found.bin_sums[1, 0], exact / 2)


def test_a_long_sequence_is_added_up_exactly():
    n = 100_003
    result = xent.evaluate_sequences(np.zeros((n, 3)), np.zeros(n, int), np.arange(n) % 2)
    np.testing.assert_allclose(result.log_prob, -np.log(3) * np.array([n // 2 + 1, n // 2]), 1e-15)


def test_sequences_add_up_by_group():
    logits, labels = random_logits((60, 6), np.float64), random_labels((60,), 6, ignored=0.3)
    labels[::2] = logits[::2].argmax(-1)
    groups = np.random.default_rng(0).integers(0, 25, 60)
    whole = xent.evaluate_sequences(logits, labels, groups)
    total = sum(
        xent.evaluate_sequences(logits[k : k + 13], labels[k : k + 13], groups[k : k + 13])
        for k in range(0, 60, 13)
    )
    assert whole.as_dict().keys() == total.as_dict().keys()
    for name in ["groups", "tokens", "greedy"]:
        np.testing.assert_array_equal(getattr(whole, name), getattr(total, name))
    np.testing.assert_allclose(total.log_prob, whole.log_prob, 1e-13)
    nothing = xent.evaluate_sequences(np.zeros((0, 6)), np.zeros(0, int), [])
    assert whole + nothing == nothing + whole == whole
    with raises(ValueError, "base"):
        whole + xent.evaluate_sequences(logits, labels, groups, base=2)
    with raises(AttributeError, "a SequenceEvaluation"):
        whole.groups = groups


def test_weights_of_a_negative_sum():
    """Frequencies of labels are positive where weights have the sign of their sum; NumPy must not warn."""
    x, y = np.random.default_rng(0).standard_normal((4, 3)), [0, 1, 2, 0]
    right, turned = xent.evaluate(x, y), xent.evaluate(x, y, sample_weight=[-1] * 4)
    assert turned.label_entropy == right.label_entropy and turned.loss == right.loss
    mixed = xent.evaluate(x, y, sample_weight=[1, 1, 1, -4])
    assert mixed.label_entropy == pytest.approx(-3 * math.log(3), rel=1e-15)  # of 3, -1 and -1
    assert xent.evaluate(x, y, sample_weight=[1, -1, 1e-310, 0]).label_entropy == -INF
    assert np.isfinite(xent.evaluate([[0.0, 1.0]], [0], sample_weight=[5e-324]).label_entropy)


def test_arguments_of_results():
    x, y = np.zeros((4, 3)), [0, 1, 2, 0]
    for n_bytes in [0, -1, np.nan]:
        with raises(ValueError, "n_bytes must be a finite number > 0", n_bytes):
            xent.evaluate(x, y).bits_per(n_bytes)
    with raises(TypeError, "n_bytes must be a number, got str"):
        xent.evaluate(x, y).bits_per("1M")
    for q in [2, -0.5, np.nan]:
        with raises(ValueError, "q must be between 0 and 1", q):
            xent.compare(x, x).kl_quantile(q)
    with raises(TypeError, "q must be real numbers"):
        xent.compare(x, x).kl_quantile("median")
    for confusion in [1, None]:
        with raises(TypeError, "confusion must be True, False or 'per_class'"):
            xent.evaluate(x, y, confusion=confusion)


def test_empty_lists_of_labels():
    x = np.zeros((0, 3))
    assert xent.evaluate(x, []).count == xent.compare(x, x, []).count == 0
    assert len(xent.evaluate_sequences(x, [], [])) == 0


def test_groups_that_are_none():
    x, y = np.zeros((4, 3)), [0, 1, 2, 0]
    with raises(TypeError, "groups must hold integers"):
        xent.evaluate_sequences(x, y, np.zeros(4))
    with raises(ValueError, "groups must have the shape of the positions, (4,)"):
        xent.evaluate_sequences(x, y, [0, 1])
    result = xent.evaluate_sequences(x, [-100, -100, 0, 1], [5, 5, 6, 6])
    assert result[5] == (0.0, 0, True)
    assert result[6].greedy is False
    assert xent.evaluate_sequences(x[0], 0, 8)[8].greedy is True


# Comparisons ------------------------------------------------------------------------------------------------

COMPARED = [
    "loss_a",
    "loss_b",
    "loss_ratio",
    "perplexity_ratio",
    "probability_change",
    "rms_probability_change",
]


@pytest.mark.parametrize(
    "shape, axis", [((70, 5), -1), ((30, 300), -1), ((4, 1500), -1), ((3, 8, 40), 1), ((40, 33), 0)]
)
@pytest.mark.parametrize("noise", [0.01, 1.0, 20.0])
def test_comparison_against_the_reference(shape, axis, noise, dtype):
    a = random_logits(shape, dtype)
    b = (wide(a) + noise * wide(random_logits(shape, np.float64, 1))).astype(dtype)
    labels = random_labels(positions_of(shape, axis), shape[axis], ignored=0.2)
    single = dtype if dtype == np.float64 else np.dtype(np.float32)
    for options in [{}, {"temperature": 3.0, "base": 2}]:
        for target in [None, labels]:
            result = xent.compare(a, b, target, axis=axis, **options)
            expected = reference("compare", wide(a), wide(b), target, axis=axis, **options)
            assert result.count == expected.count
            assert result.same_count == expected.same_count
            assert result.kl_values.dtype == single
            eps = float(finfo(single).eps)
            # the reference adds terms of both signs, of the size of the largest difference
            room = 64 * float(finfo(np.float64).eps) * (1 + 3 * noise) * 10
            limit = bound("comparison", single) * eps
            np.testing.assert_allclose(result.kl_values, expected.kl_values, limit, room)
            for name in COMPARED if target is not None else []:
                scale = 1 if "probability" in name else abs(getattr(expected, name))
                assert abs(getattr(result, name) - getattr(expected, name)) <= 200 * eps * max(scale, 1), name


@pytest.mark.parametrize("classes", [1000, 20000])  # of which the longer come in blocks
def test_the_first_of_equal_largest_logits(dtype, classes):
    """Wherever it lies in a row: whether it is the same in another row is what `same_top` says."""
    places = np.array([0, 1, classes // 3, classes // 2, classes - 2])
    a = np.full((places.size, classes), -2.0).astype(dtype)
    a[2, : classes // 4] = -INF
    for row, place in enumerate(places):
        a[row, place] = -0.0
        a[row, place + 1 :: 7] = 0.0  # equal, and behind it
    first, second, none = np.full((3, *a.shape), -1.0).astype(dtype)
    for row, place in enumerate(places):
        first[row, place] = second[row, place + 1] = 1
        none[row, place], none[row, 5] = 1, NAN
    with np.errstate(invalid="ignore"):
        for x, y, expected in [(a, first, 1), (first, a, 1), (a, second, 0), (second, a, 0), (a, none, 0)]:
            assert xent.compare(x, y).same_top == expected
            assert xent.compare(x.T.copy(), y.T.copy(), axis=0).same_top == expected


def test_comparison_of_near_predictions():
    # d of 1e-4: the divergence is half its variance
    rng = np.random.default_rng(0)
    a = rng.standard_normal((50, 400))
    d = 1e-4 * rng.standard_normal(a.shape)
    p = reference("softmax", a)
    expected = 0.5 * ((p * d**2).sum(-1) - (p * d).sum(-1) ** 2)
    for shift in [0.0, 3.0]:
        np.testing.assert_allclose(xent.compare(a, a + d + shift).kl_values, expected, 1e-4)
    single = a.astype("f4")
    moved = (single + d).astype("f4")
    exact = (wide(moved) - wide(single)) * 1.0
    p = reference("softmax", wide(single))
    expected = 0.5 * ((p * exact**2).sum(-1) - (p * exact).sum(-1) ** 2)
    np.testing.assert_allclose(xent.compare(single, moved).kl_values, expected, 1e-3)
    assert xent.compare(single, single).kl == 0
    assert xent.compare(single, single).same_top == 1


@pytest.mark.parametrize("variant", ZOO)
def test_layouts_of_sequences_and_comparisons(variant):
    for shape, axis in [((7, 5), -1), ((3, 140), -1), ((4, 6, 9), 1)]:
        a, b = random_logits(shape, np.float32), random_logits(shape, np.float32, 1)
        labels = random_labels(positions_of(shape, axis), shape[axis], ignored=0.1)
        given = of_zoo(variant, a), of_zoo(variant, b), of_zoo(variant, labels)
        result, expected = xent.compare(*given, axis=axis), xent.compare(a, b, labels, axis=axis)
        np.testing.assert_allclose(result.kl_values, expected.kl_values, 1e-5)
        assert result.same_count == expected.same_count
        result = xent.evaluate_sequences(given[0], given[2], given[2], axis=axis)
        expected = xent.evaluate_sequences(a, labels, labels, axis=axis)
        np.testing.assert_allclose(result.log_prob, expected.log_prob, 1e-5)
        np.testing.assert_array_equal(result.greedy, expected.greedy)


def test_comparison_is_the_distillation_loss(dtype):
    a, b = random_logits((40, 300), dtype), random_logits((40, 300), dtype, 1)
    for values in [(a, b), (a[:, :7].copy(), b[:, :7].copy())]:
        expected = xent.distillation_loss(values[1], values[0], reduction="none")
        np.testing.assert_allclose(xent.compare(*values).kl_values, expected, 3e-6)
    both = xent.compare(a, b.astype(np.float32))
    assert both.kl == pytest.approx(xent.compare(a.astype(np.float32), b.astype(np.float32)).kl, rel=1e-6)


LOWEST, FAR = np.finfo(np.float32).min, 3e38


@pytest.mark.parametrize(
    "a, b, temperature",
    [
        ([5, 0, -2], [0, 1, LOWEST], 0.3),
        ([5, 0, -2], [0, 1, LOWEST], 0.9),
        ([5, 0, -2], [0, 1, LOWEST], 0.05),
        ([0, 1, 2], [FAR, -FAR, FAR / 3], 3.0),
        ([FAR, -FAR, FAR / 3], [FAR, FAR, -FAR], 1.7),
        ([0, -1e4], [0, -INF], 1.0),
        ([0, -1e4], [0, -INF], 3.0),
    ],
)
def test_comparisons_at_the_end_of_the_range(a, b, temperature):
    """Differences that floats cannot hold before they are divided; a mask of one kind beside another."""
    a, b = np.array([a, a[::-1]], np.float32), np.array([b, b[::-1]], np.float32)
    labels = np.zeros(2, np.int64)
    found = xent.compare(a, b, labels, temperature=temperature)
    expected = reference("compare", wide(a), wide(b), labels, temperature=temperature)
    np.testing.assert_allclose(found.kl_values, expected.kl_values, 1e-5)
    np.testing.assert_allclose([found.loss_a, found.loss_b], [expected.loss_a, expected.loss_b], 1e-5)
    loss = xent.distillation_loss(b, a, temperature=temperature, reduction="none")
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(loss, (expected.kl_values * temperature**2).astype(np.float32), 1e-5)


def test_numbers_of_a_comparison():
    a, b = random_logits((101, 12), np.float64), random_logits((101, 12), np.float64, 1)
    labels = random_labels((101,), 12)
    result = xent.compare(a, b, labels)
    kl = reference("compare", a, b).kl_values
    assert result.kl == pytest.approx(kl.mean(), rel=1e-12)
    assert result.kl_standard_error == pytest.approx(kl.std(ddof=1) / math.sqrt(101), rel=1e-12)
    levels = [0, 0.25, 0.5, 0.95, 1]
    np.testing.assert_allclose(result.kl_quantile(levels), np.quantile(kl, levels), 1e-12)
    assert result.kl_quantile(0.5) == pytest.approx(np.median(kl), rel=1e-12)
    same = a.argmax(-1) == b.argmax(-1)
    assert result.same_top == same.mean()
    assert result.same_top_standard_error == pytest.approx(same.std(ddof=1) / math.sqrt(101), rel=1e-12)
    losses = [reference("cross_entropy", x, labels, reduction="none") for x in (a, b)]
    gap = losses[1] - losses[0]
    assert result.perplexity_ratio == pytest.approx(result.perplexity_b / result.perplexity_a, rel=1e-12)
    assert result.perplexity_ratio_standard_error == pytest.approx(
        math.exp(gap.mean()) * gap.std(ddof=1) / math.sqrt(101), rel=1e-10
    )
    change = np.exp(-losses[1]) - np.exp(-losses[0])
    assert result.probability_change == pytest.approx(change.mean(), rel=1e-10)
    assert result.rms_probability_change == pytest.approx(math.sqrt((change**2).mean()), rel=1e-10)
    assert result.loss_ratio == pytest.approx(losses[1].mean() / losses[0].mean(), rel=1e-12)
    for threads in [1, 2]:
        with xent.num_threads(threads):
            assert xent.compare(a, b, labels) == result
    assert json.loads(json.dumps(result.as_dict()))["kl_median"] == pytest.approx(np.median(kl), rel=1e-12)


@pytest.mark.parametrize("classes", [2, 30, 700])
@pytest.mark.parametrize("axis", [-1, 0])
def test_changes_of_probabilities_next_to_1(classes, axis, dtype):
    """1 - e^-40 and 1 - e^-41 are the same float64, and their difference is not 0."""
    pairs = [
        (40, 41),
        (80, 10),
        (3, 3.5),
        (0.5, 0.25),
        (-0.5, 0.5),
        (-40, -41),
        (-60, 60),
        (85, 85),
        (1e4, 1e4),
    ]
    a, b = (np.array([[pair[k]] + [0] * (classes - 1) for pair in pairs], dtype) for k in (0, 1))
    given = (a.T.copy(), b.T.copy()) if axis == 0 else (a, b)
    labels, eps = np.zeros(len(pairs), np.int64), float(finfo(dtype).eps)
    for k, (x, y) in enumerate(pairs):
        # q = r / (e^x + r), r = C - 1; the smaller of both sides of p_b - p_a = q_a - q_b has the digits
        logs = [np.array([np.float64(v), np.log(classes - 1.0)]) for v in (x, y)]
        (p_a, q_a), (p_b, q_b) = (np.exp(v - np.logaddexp(*v)) for v in logs)
        exact = q_a - q_b if min(p_a, p_b) > 0.5 else p_b - p_a
        size = max(q_a, q_b) if min(p_a, p_b) > 0.5 else max(p_a, p_b)
        here = np.where(np.arange(len(pairs)) == k, labels, -100)
        for package in (xent, xent.reference):
            found = package.compare(*given, here, axis=axis)
            assert abs(found.probability_change - exact) <= 12 * eps * size, (x, y)
            assert found.rms_probability_change == abs(found.probability_change)


def test_comparisons_add_up():
    a, b = random_logits((60, 6), np.float32), random_logits((60, 6), np.float32, 1)
    labels = random_labels((60,), 6, ignored=0.3)
    for target in [None, labels]:
        whole = xent.compare(a, b, target)
        parts = [
            xent.compare(a[k : k + 17], b[k : k + 17], None if target is None else target[k : k + 17])
            for k in range(0, 60, 17)
        ]
        for name, value in sum(parts).as_dict().items():
            assert_number(value, whole.as_dict()[name], name)
    with raises(ValueError, "target"):
        xent.compare(a, b) + whole
    with raises(ValueError, "base"):
        xent.compare(a, b, labels, base=2) + whole
    nothing = xent.compare(np.zeros((0, 6)), np.zeros((0, 6)))
    assert nothing.kl == nothing.same_top == 0
    assert math.isnan(nothing.kl_quantile(0.5))
    with raises(ValueError, "logits_a", "logits_b"):
        xent.compare(a, b[:3])


def test_infinite_divergences(dtype):
    for classes in [3, 70]:
        a, b = np.zeros((3, classes), dtype), np.zeros((3, classes), dtype)
        a[0, 0] = b[0, 0] = -INF  # of probability 0 in both: nothing
        a[1, 0] = -INF
        b[2, 0] = -INF
        for x, y, axis in [(a, b, -1), (a.T.copy(), b.T.copy(), 0)]:
            result = xent.compare(x, y, axis=axis)
            np.testing.assert_allclose(
                result.kl_values, [0, math.log(classes / (classes - 1)), INF], 1e-6, 1e-7
            )
            assert result.kl == INF
            assert result.kl_quantile(0.5) == pytest.approx(math.log(classes / (classes - 1)), rel=1e-6)
            assert result.kl_quantile(1) == INF
            assert math.isnan(result.kl_standard_error)
        a[0, 1] = NAN
        assert math.isnan(xent.compare(a, b).kl_values[0])
        assert xent.compare(a, b).same_count < 3


def test_what_evaluations_say_of_themselves():
    logits, labels = np.log([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]), [0, 2]
    found = xent.evaluate(logits, labels, calibration_bins=2)
    assert f"expected_calibration_error={found.expected_calibration_error:.4g}" in repr(found)
    sequences = xent.evaluate_sequences(logits, labels, [7, 7])
    np.testing.assert_allclose(sequences.mean_log_prob, [np.log(0.125) / 2])
    compared = xent.compare(logits, logits)
    for one in (found, sequences, compared):
        with pytest.raises(TypeError, match="unsupported operand"):
            _ = one + 1
        name = next(iter(vars(one)))
        with pytest.raises(AttributeError, match="cannot be changed"):
            delattr(one, name)
