"""The two commands: which arrays they read, what they compute of each piece, and what they print."""

import json
import math
import re
import sys

import numpy as np

import xent

from .. import _check
from . import report
from .arrays import InputError, described, in_shape, open_array
from .details import Changes, Predictions, is_ignored
from .pieces import Total, cuts, progress, read_ahead


def run(command):
    """Compute, and print; return whether all was read, or Ctrl-C came before."""
    seen, totals, complete = 0, dict.fromkeys(command.wanted, Total()), True
    bar = progress(command.count)
    try:
        for index, parts in read_ahead(command.read, command.pieces()):
            results, count = command.compute(index, *parts), _count(parts[0], command.axis)
            # at once, so that Ctrl-C finds what belongs together
            seen, totals = seen + count, _added(totals, results)
            bar.update(count)
    except KeyboardInterrupt:
        complete = False
    finally:
        bar.close()
    results = {name: total.sum() for name, total in totals.items()} if seen else command.compute_nothing()
    if command.options.json:
        print(json.dumps(_plain(command.as_dict(results, seen, complete)), allow_nan=False))
    else:
        print("\n".join(command.table(results, seen, complete)))
    page = command.options.report
    if page and complete:
        report.write(page, command.page(results))
    elif page:
        print(f"xent: {page} is not written: not all was read", file=sys.stderr)
    return complete


def _count(logits, axis):
    return math.prod(logits.shape[:axis] + logits.shape[axis + 1 :])


def _added(totals, results):
    return {name: total.plus(results[name]) for name, total in totals.items()}


def _plain(value):
    """Return what JSON knows: null for NaN, which nobody knows, and "Infinity"."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


class _Command:
    """What both commands do. A command has `name`, `of_classes`, the arrays of logits, and `of_positions`."""

    least_piece = 0

    def __init__(self, options, files):
        self.options, self.files = options, files
        self.axis_options = {"axis": options.axis, "ignore_index": tuple(options.ignore_index or (-100,))}
        self.open()
        if options.report:
            report.check(options.report)
        self.compute_nothing()  # raises for options that do not fit, before anything is read

    # ---- which arrays ----

    def _open_logits(self, text):
        logits = open_array(self.files, text, as_bfloat16=self.options.bfloat16, kind=np.float64)
        axes, axis = len(logits.shape), self.options.axis
        if axes < 2:
            raise InputError(
                f"{text} holds {described(logits)}: logits have positions and, for each, classes"
            )
        if not -axes <= axis < axes:
            raise InputError(f"--axis {axis}: {text} has {axes} axes")
        if axis % axes == 0 and logits.several:
            raise InputError(f"--axis {axis} is that along which the shards of {text} are joined")
        return logits

    def _other_axis(self, shape):
        """Return which axis of classes would make numbers of a shape fit, in words; nothing if none does."""
        axis = _check.fitting_axis(shape, self.logits.shape)
        return "" if axis is None else f"; it would fit with --axis {axis}"

    def _open_beside(self, text, what, kind=np.int64):
        """Return an array of a number for each position, None for no file."""
        if text is None:
            return None
        numbers = open_array(self.files, text, kind=kind)
        numbers = in_shape(self.files, numbers, self.positions)
        if numbers.shape != self.positions:
            shape = " x ".join(map(str, self.positions))
            raise InputError(
                f"{numbers.name} holds {described(numbers)}, and there have to be {shape} {what}: the "
                f"shape of {self.logits.name} without its classes{self._other_axis(numbers.shape)}"
            )
        if kind is np.int64 and numbers.dtype.kind not in "iu":
            raise InputError(f"{numbers.name} holds {numbers.dtype.name}, and {what} are integers")
        return numbers

    @property
    def logits(self):
        return self.of_classes[0]

    @property
    def axis(self):
        return self.options.axis % len(self.logits.shape)

    @property
    def classes(self):
        return self.logits.shape[self.axis]

    @property
    def positions(self):
        return self.logits.shape[: self.axis] + self.logits.shape[self.axis + 1 :]

    @property
    def count(self):
        return math.prod(self.positions)

    @property
    def unit(self):
        base = self.options.base
        return {None: "nats", 2.0: "bits", 10.0: "dits"}.get(base, f"base {base}")

    def pieces(self):
        # xent makes numbers of 8 bytes of integers
        sizes = [8 if source.dtype.kind in "iu" else source.dtype.itemsize for source in self.of_classes]
        position, limit = self.classes * sum(sizes), self.options.memory
        return cuts(self.logits.shape, self.axis, position, limit, self.logits.chunks, self.least_piece)

    def read(self, index):
        """Return the parts of all arrays, None for those that there are not."""
        beside = index[: self.axis] + index[self.axis + 1 :]
        parts = [source.read(index) for source in self.of_classes]
        return parts + [None if source is None else source.read(beside) for source in self.of_positions]

    # ---- what of a piece ----

    def compute_nothing(self):
        """Return the results of no positions."""
        shape = [0] * len(self.logits.shape)
        shape[self.axis] = self.classes
        index = tuple(slice(0, n) for n in shape)
        beside = tuple(np.delete(shape, self.axis))
        parts = [np.empty(shape, source.dtype) for source in self.of_classes]
        parts += [None if source is None else np.empty(beside, source.dtype) for source in self.of_positions]
        return self.compute(index, *parts)

    def compute(self, index, *parts):
        """Return the results of a piece by their names. Errors of options are said in one line."""
        try:
            return self._compute(index, *parts)
        except (TypeError, ValueError) as error:
            raise InputError(self._as_typed(" ".join(str(error).split()))) from error

    def _as_typed(self, words):
        """Return an error of a function of xent with the name of an option as it is typed."""
        name = re.match(r"\w*", words)[0]
        if name.startswith("logits") or not hasattr(self.options, name):
            return words
        return re.sub(rf"\b{name}\b", "--" + name.replace("_", "-"), words)

    def _check_labels(self, index, source, labels):
        """Raise for a label that is no class, and say where it is."""
        wrong = (labels < 0) | (labels >= self.classes)
        if wrong.any():
            wrong &= ~is_ignored(labels, self.axis_options["ignore_index"])
        if wrong.any():
            what = f"is the label {labels[wrong][0]}, which is not in [0, {self.classes}) and not ignored"
            raise InputError(f"{self._place(index, source, wrong)} {what}")

    def _check_finite(self, index, source, part, counts):
        """Raise for positions that have no probabilities, and say where the first is."""
        wrong = ~np.isfinite(xent.logsumexp(part, axis=self.axis)) & counts
        if wrong.any():
            where = self._place(index, source, wrong)
            raise InputError(
                f"{where} are logits that have no softmax: NaN, infinity, or nothing but -infinity"
            )

    def _place(self, index, source, wrong):
        """Return words for the first position of a piece where something is wrong."""
        beside = index if source in self.of_classes else index[: self.axis] + index[self.axis + 1 :]
        place = [int(k) for k in np.argwhere(wrong)[0]]
        if source in self.of_classes:
            place.insert(self.axis, 0)
        place = [k + part.start for k, part in zip(place, beside, strict=True)]
        shard, there = source.place(place)
        if source in self.of_classes:
            there, place = ([*at[: self.axis], *at[self.axis + 1 :]] for at in (there, place))
        whole = f" ({_position(place)} of all)" if source.several else ""
        return f"{shard}: at position {_position(there)}{whole}"

    # ---- what is printed ----

    def _inputs(self, seen, complete):
        """Return what was read, for as_dict."""
        inputs = {"command": self.name, "xent": xent.__version__}
        inputs |= {what: source.name for what, source in self.names().items() if source is not None}
        return inputs | {
            "shape": list(self.logits.shape), "dtype": self.logits.dtype.name, "axis": self.axis,
            "positions": self.count, "positions_read": seen, "complete": complete,
        }  # fmt: skip

    def table(self, results, seen, complete):
        """Return lines of text."""
        rows = self.rows(results)
        lines = [
            f"{what}: {source.name} ({described(source)})"
            for what, source in self.names().items()
            if source is not None
        ]
        if not complete:
            lines += ["", f"INTERRUPTED after {seen:,} of {self.count:,} positions; this is of those alone:"]
        width, digits = (max(len(row[k]) for row in rows) for k in (0, 1))
        lines += ["", f"{'':{width}}  {'':{digits}}  standard error"]
        lines += [f"{name:{width}}  {value:>{digits}}  {error}".rstrip() for name, value, error in rows]
        return lines


def _position(place):
    return str(place[0]) if len(place) == 1 else str(tuple(place))


def _row(name, value, error=None):
    """Return a row of the table: name, value, standard error."""
    shown = f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
    return name, shown, "" if error is None or math.isnan(error) else f"{error:.2g}"


class Evaluate(_Command):
    """``evaluate LOGITS LABELS``."""

    name = "evaluate"

    def open(self):
        options = self.options
        self.of_classes = [self._open_logits(options.logits)]
        self.labels = self._open_beside(options.labels, "labels")
        self.weights = self._open_beside(options.sample_weight, "weights", np.float64)
        self.groups = self._open_beside(options.groups, "groups")
        self.of_positions = [self.labels, self.weights, self.groups]
        self.common = self.axis_options | {"temperature": options.temperature, "prior": self._prior()}
        self.wanted = [
            "evaluation",
            *["sequences"] * bool(options.groups),
            *["details"] * bool(options.report),
        ]
        self.confusion = True if options.confusion else "per_class" if options.per_class else False
        if options.confusion:
            self.least_piece = 8 * self.classes**2  # so that most of the work is not to add up matrices
            if 8 * self.least_piece > options.memory:
                raise InputError(
                    f"--confusion needs more --memory: {self.classes}**2 numbers of 8 bytes, 8 times"
                )

    def _prior(self):
        if self.options.prior is None:
            return None
        prior = open_array(self.files, self.options.prior, kind=np.float64)
        if prior.shape != (self.classes,):
            raise InputError(
                f"{prior.name} holds {described(prior)}, and --prior needs {self.classes} numbers"
            )
        return prior.read((slice(0, self.classes),))

    def _compute(self, index, logits, labels, weights, groups):
        options = self.options
        self._check_labels(index, self.labels, labels)
        if weights is not None and not np.isfinite(weights).all():
            where = self._place(index, self.weights, ~np.isfinite(weights))
            raise InputError(f"{where} is a weight that is not finite")
        evaluation = xent.evaluate(
            logits, labels, sample_weight=weights, base=options.base, top_k=tuple(options.top_k or (1, 5)),
            calibration_bins=options.calibration_bins, confusion=self.confusion, **self.common,
        )  # fmt: skip
        if math.isnan(evaluation.loss_sum + evaluation.entropy_sum + evaluation.squared_error_sum):
            counts = ~is_ignored(labels, self.axis_options["ignore_index"])
            self._check_finite(
                index, self.logits, logits, counts if weights is None else counts & (weights != 0)
            )
        results = {"evaluation": evaluation}
        if groups is not None:
            results["sequences"] = xent.evaluate_sequences(
                logits, labels, groups, base=options.base, **self.common
            )
        if options.report:
            results["details"] = Predictions.of(logits, labels, **self.common)
        return results

    def names(self):
        return {
            "logits": self.logits, "labels": self.labels, "weights": self.weights, "groups": self.groups,
        }  # fmt: skip

    def as_dict(self, results, seen, complete):
        evaluation = results["evaluation"]
        numbers = self._inputs(seen, complete) | evaluation.as_dict()
        numbers["perplexity_standard_error"] = _perplexity_error(evaluation)
        if self.options.bytes is not None:
            numbers["bits_per_byte"] = evaluation.bits_per(self.options.bytes)
        if "sequences" in results:
            sequences = results["sequences"]
            numbers["sequences"] = sequences.as_dict() | {"perplexity": sequences.perplexity.tolist()}
        return numbers

    def rows(self, results):
        result, unit = results["evaluation"], self.unit
        rows = [
            _row("positions", result.count),
            _row(f"loss ({unit})", result.loss, result.loss_standard_error),
            _row("perplexity", result.perplexity, _perplexity_error(result)),
            _row("accuracy", result.accuracy, result.accuracy_standard_error),
        ]
        rows += [_row(f"top-{k} accuracy", v) for k, v in result.top_k_accuracy.items() if k != 1]
        rows += [
            _row("calibration error", result.expected_calibration_error),
            _row("mean squared error", result.mse),
            _row(f"entropy of predictions ({unit})", result.entropy),
            _row(f"entropy of labels ({unit})", result.label_entropy),
            _row(f"mutual information ({unit})", result.mutual_information),
        ]
        if self.options.bytes is not None:
            rows.append(_row("bits per byte", result.bits_per(self.options.bytes)))
        if "sequences" in results:
            sequences = results["sequences"]
            rows += [_row("sequences", len(sequences)), _row("of them greedy", int(sequences.greedy.sum()))]
            if len(sequences):
                rows.append(_row(f"mean log-probability of one ({unit})", float(sequences.log_prob.mean())))
        return rows

    def page(self, results):
        return report.of_evaluation(self.names(), self.rows(results), results, self.classes)


def _perplexity_error(result):
    """Return the standard error of exp(loss): that of the loss, in nats, times the derivative."""
    nats = 1.0 if result.base is None else math.log(result.base)
    return result.perplexity * result.loss_standard_error * nats


class Compare(_Command):
    """``compare A B``."""

    name = "compare"

    def open(self):
        options = self.options
        self.of_classes = [self._open_logits(text) for text in (options.logits_a, options.logits_b)]
        a, b = self.of_classes
        if a.shape != b.shape:
            raise InputError(
                f"{a.name} holds {described(a)}, and {b.name} {described(b)}: shapes have to agree"
            )
        self.labels = self._open_beside(options.labels, "labels")
        self.of_positions = [self.labels]
        self.wanted = ["comparison", *["changes"] * bool(options.report and options.labels)]

    def _compute(self, index, a, b, labels):
        options = self.options
        if labels is not None:
            self._check_labels(index, self.labels, labels)
        common = self.axis_options | {"temperature": options.temperature}
        comparison = xent.compare(a, b, labels, base=options.base, **common)
        if np.isnan(comparison.kl_values).any():
            counts = True if labels is None else ~is_ignored(labels, self.axis_options["ignore_index"])
            for source, part in zip(self.of_classes, (a, b), strict=True):
                self._check_finite(index, source, part, counts)
        results = {"comparison": comparison}
        if "changes" in self.wanted:
            results["changes"] = Changes.of(a, b, labels, **common)
        return results

    def names(self):
        a, b = self.of_classes
        return {"a": a, "b": b, "labels": self.labels}

    def as_dict(self, results, seen, complete):
        return self._inputs(seen, complete) | results["comparison"].as_dict()

    def rows(self, results):
        result, unit = results["comparison"], self.unit
        rows = [
            _row("positions", result.count),
            _row(f"KL(a || b) ({unit})", result.kl, result.kl_standard_error),
            *(
                _row(name, value)
                for name, value in zip(
                    QUANTILES, result.kl_quantile(list(QUANTILES.values())).tolist(), strict=True
                )
            ),
            _row("same largest class", result.same_top, result.same_top_standard_error),
        ]
        if self.labels is not None:
            rows += [
                _row(f"loss of a ({unit})", result.loss_a),
                _row(f"loss of b ({unit})", result.loss_b),
                _row("perplexity of a", result.perplexity_a),
                _row("perplexity of b", result.perplexity_b),
                _row("their ratio, b / a", result.perplexity_ratio, result.perplexity_ratio_standard_error),
                _row("mean change of the label's probability", result.probability_change),
                _row("root of its mean square", result.rms_probability_change),
            ]
        return rows

    def page(self, results):
        return report.of_comparison(self.names(), self.rows(results), results)


QUANTILES = {"KL, median": 0.5, "KL, 90 %": 0.9, "KL, 99 %": 0.99, "KL, 99.9 %": 0.999, "KL, largest": 1.0}
