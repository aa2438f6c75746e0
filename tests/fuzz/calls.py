"""The arguments of each function, drawn by their names.

A class for each group of functions whose arguments mean the same; `draw_<parameter>` makes one of them. What
is new in a module that no class knows gets the arrays of the table of test_inputs.py, in odd places.
"""

import functools
import inspect
import math

import numpy as np

import xent

from .values import BEYOND, FLOATS, KNOWN, STYLES, UNKNOWN, cast, nonsense, numbers

REDUCTIONS = ["mean", "mean", "none", "sum", "mean_valid", "mean_full", "mean_batch"]
CONTROLS = {"get_num_threads", "num_threads", "set_num_threads", "set_result_cache", "show_config"}
FUNCTIONS = [n for n in xent.__all__ if inspect.isfunction(getattr(xent, n)) and n not in CONTROLS]
LEFT_OUT = object()
MOST = 2000  # elements of a call that is not large
LARGE_SHAPES = [
    (3, 4000), (4000, 3), (60, 300), (2, 40, 9, 30), (20000,), (700, 64), (2, 100003), (9, 300, 7),
]  # fmt: skip


@functools.cache
def parameters_of(name):
    """The signature of a function."""
    return inspect.signature(getattr(xent, name)).parameters


class Call:
    """A function with arguments: `arguments` by name, `out` apart. `valid`: nothing was drawn to be wrong."""

    def __init__(self, name, rng, large=False):
        self.name, self.rng, self.large, self.valid = name, rng, large, True
        self.parameters = parameters_of(name)
        self.style, self.dtype = str(rng.choice(STYLES)), np.dtype(rng.choice(FLOATS))
        self.arguments = {}
        self.shapes()
        for key, parameter in self.parameters.items():
            if key == "out":
                continue
            optional = parameter.default is not parameter.empty
            value = LEFT_OUT if optional and rng.random() < 0.6 else self.draw(key)
            if rng.random() < 0.015:
                value, self.valid = self.spoil(value), False
            if value is not LEFT_OUT:
                self.arguments[key] = value
        if rng.random() < 0.003:
            self.valid = False
            self.arguments.pop(self.pick(list(self.arguments)))

    def draw(self, key):
        return getattr(self, f"draw_{key}", self.of_the_table)()

    def of_the_table(self):
        raise NotImplementedError

    # ---- chance ----

    def pick(self, options):
        return options[self.rng.integers(len(options))]

    def chance(self, p):
        return self.rng.random() < p

    def size(self, few=6, low=0):
        """The length of an axis: mostly a few, now and then more than some vectors or none."""
        most = self.pick([few, few, few, few, few, 17, 70])
        return int(self.rng.integers(low if self.chance(0.05) else max(low, 1), most + 1))

    def spoil(self, value):
        """Something else in place of a value: of another shape or dtype, or nonsense."""
        if isinstance(value, np.ndarray) and self.chance(0.7):
            with np.errstate(all="ignore"):
                return self.pick([self._other_dtype, self._other_shape])(value)
        return nonsense(self.rng)

    def _other_dtype(self, value):
        dtype = self.pick([*UNKNOWN, *KNOWN])
        try:
            return np.zeros(value.shape, dtype) if dtype in ("V4", "i4,f4") else value.astype(dtype)
        except (TypeError, ValueError):
            return np.zeros(value.shape, dtype)

    def _other_shape(self, value):
        return self.pick([
            lambda: value[..., np.newaxis], lambda: value[np.newaxis], lambda: value[:0],
            lambda: value.ravel(),
            lambda: np.concatenate([value, value[:1]]), lambda: value[1:], lambda: value.T, lambda: value[0],
            lambda: np.broadcast_to(value, (2, *value.shape)), lambda: np.array(1.0),
        ])() if value.ndim and value.shape[0] else np.ones((2, 3))  # fmt: skip

    # ---- numbers ----

    def floats(self, shape, kind=None, dtype=None):
        """An array of a dtype, which mostly is that of the call."""
        values = numbers(self.rng, shape, self.style if kind is None else kind)
        return cast(values, dtype or self.some_dtype())

    def some_dtype(self):
        return self.dtype if self.chance(0.9) else np.dtype(self.pick(KNOWN))

    def probabilities(self, shape, axis, dtype=None):
        """Numbers in [0, 1], mostly those of distributions."""
        if self.style in BEYOND:
            return self.floats(shape)
        x = numbers(self.rng, shape, self.style)
        if self.chance(0.2):
            x = np.where(self.rng.random(shape) < 0.3, -np.inf, x)
        with np.errstate(all="ignore"):
            e = np.exp(x - (x.max(axis, keepdims=True, initial=-1e300)))
            p = np.nan_to_num(e / e.sum(axis, keepdims=True))
        return cast(p, dtype or (self.dtype if self.chance(0.9) else np.dtype(self.pick(FLOATS))))

    def factors(self, shape, signed=True):
        """Weights: some of them 0, and negative ones."""
        values = np.exp2(self.rng.uniform(-2, 2, shape))
        if self.chance(0.3):
            values = np.where(self.rng.random(shape) < 0.3, 0.0, values)
        if signed and self.chance(0.1):
            values = np.where(self.rng.random(shape) < 0.3, -values, values)
        return cast(values, self.pick(["f4", "f8", "f8", "f2", "i4", "bfloat16"]))

    def integers(self, shape, low, high):
        """Whole numbers, in a dtype that can hold them."""
        kinds = ["i8", "i8", "i8", "i4", "i2", "u8"] if low >= 0 else ["i8", "i8", "i4", "i2"]
        if high > 2**15:
            kinds = ["i8", "i4"]
        return self.rng.integers(low, max(high, low + 1), shape).astype(self.pick(kinds))

    def at_large(self, values):
        """Now and then one number that is not in the range."""
        if values.size and self.chance(0.02):
            self.valid = False
            values = values.astype(np.int64)
            values.flat[self.rng.integers(values.size)] = self.pick([-1, 2**40, -(2**63), 10**6, 2**31])
        return values


class Positions(Call):
    """Functions of arrays of which one axis, or all, are classes."""

    def shapes(self):
        ndim = int(self.rng.integers(1, 5))
        self.shape = tuple(self.size(5 if ndim > 2 else 12) for _ in range(ndim))
        while math.prod(self.shape) > MOST:
            self.shape = self.shape[1:]
        if self.large:
            self.shape = self.pick(LARGE_SHAPES)
        ndim = len(self.shape)
        last = self.name.startswith("sparse_distillation")
        self.axis = ndim - 1 if last else int(self.rng.integers(ndim))
        if ("axis" in self.parameters and self.parameters["axis"].default != -1) or last:
            self.axis = ndim - 1
        self.axes = self.axis
        if self.name in SEVERAL_AXES and self.chance(0.2):
            self.axes = self.pick(
                [None, (), tuple(self.rng.permutation(ndim)[: self.rng.integers(1, ndim + 1)].tolist())]
            )
        if self.name.startswith("kl_div") and self.chance(0.1):
            self.axes = None
        if self.name == "softmax_jacobian" and math.prod(self.shape) > 400:
            self.shape, self.axis, self.axes = self.shape[-1:][:1], 0, 0
            self.shape = (min(self.shape[0], 20),)
        if "axis" in self.parameters and self.axes != ndim - 1:
            self.arguments["axis"] = self.axes
        self.classes = self.shape[self.axis]
        self.choose_first()

    def choose_first(self):
        """Options on which the shape of another argument depends."""
        if "log_target" in self.parameters:
            self.arguments["log_target"] = self.chance(0.5)
        if "reduction" in self.parameters and self.chance(0.7):
            self.arguments["reduction"] = self.pick(REDUCTIONS)
        self.ignored = () if self.name.startswith("sigmoid") else (-100,)
        if "ignore_index" in self.parameters and self.chance(0.3):
            kinds = (
                [None, -1, 1, 255]
                if self.name.startswith("sigmoid")
                else [(), (-100, 0), 0, -1, 2**62, (-5,)]
            )
            given = self.arguments["ignore_index"] = self.pick(kinds)
            self.ignored = given if isinstance(given, tuple) else () if given is None else (given,)

    def draw_reduction(self):
        return LEFT_OUT

    draw_log_target = draw_ignore_index = draw_reduction

    @property
    def positions(self):
        axes = self.axes
        axes = range(len(self.shape)) if axes is None else axes if isinstance(axes, tuple) else (axes,)
        return tuple(n for k, n in enumerate(self.shape) if k not in axes)

    def draw_axis(self):
        if self.axes != self.axis:
            return self.axes
        return self.axis - len(self.shape) * self.chance(0.5)

    def draw_x(self):
        return self.floats(self.shape)

    draw_logits = draw_log_probs = draw_pred = draw_vector = draw_student_logits = draw_x
    draw_teacher_logits = draw_logits_a = draw_logits_b = draw_x

    def draw_y(self):
        """What the forward function gives for some x, or for that of the call."""
        x = self.arguments.get("x")
        x = self.floats(self.shape) if not isinstance(x, np.ndarray) or x.shape != self.shape else x
        forward = getattr(xent.reference, self.name.removesuffix("_backward").removesuffix("_jacobian"))
        axes = () if self.name.startswith(("sigmoid", "log_sigmoid")) else (self.axes,)
        try:
            x = np.zeros(self.shape) if x.dtype.kind == "c" else x.astype(np.float64)
        except (TypeError, ValueError):  # what it was spoiled with is no number
            x = np.zeros(self.shape)
        with np.errstate(all="ignore"):
            y = np.asarray(forward(x, *axes))
        return cast(y, self.dtype if self.chance(0.9) else self.pick(FLOATS))

    def draw_grad(self):
        return self.floats(self.positions if self.name == "logsumexp_backward" else self.shape)

    def draw_b(self):
        return self.floats(self.pick([self.shape, self.shape[-1:], (1,) * len(self.shape), ()]))

    def draw_probs(self):
        return self.probabilities(self.shape, self.axis)

    def draw_ids(self):
        shape = list(self.shape)
        shape[self.axis] = int(self.rng.integers(0, 5))
        return self.at_large(self.integers(self.pick([self.positions, tuple(shape)]), 0, self.classes))

    def draw_target(self):
        name = self.name
        if name.startswith(("sigmoid", "binary")):
            if self.chance(0.5) and self.arguments.get("ignore_index") is None:
                return self.probabilities(self.shape, self.axis)
            if name.startswith("binary"):
                return self.integers(self.shape, 0, 2)
            return self.at_large(self._with_ignored(self.integers(self.shape, 0, 2)))
        if name.startswith("mse"):
            return self.floats(self.shape)
        if name.startswith("kl_div"):
            log = self.arguments.get("log_target", False)
            return self.floats(self.shape) if log else self.probabilities(self.shape, self.axis)
        if name.startswith("cross_entropy") and self.chance(0.25):
            return self.probabilities(self.shape, self.axis)
        return self.at_large(self._with_ignored(self.integers(self.positions, 0, self.classes)))

    def _with_ignored(self, labels):
        """The same, with some labels that are ignored."""
        if "ignore_index" in self.parameters and self.ignored and self.chance(0.4):
            labels = np.where(
                self.rng.random(labels.shape) < 0.2, np.int64(self.ignored[0]), labels.astype(np.int64)
            )
        return labels

    def draw_groups(self):
        return self.integers(self.positions, -2, 4)

    def draw_teacher_ids(self):
        self.k = int(self.rng.integers(1, max(min(self.classes, 6), 1) + 1))
        ids = self.rng.random((*self.positions, max(self.classes, 1))).argsort(-1)[..., : self.k]
        return self.at_large(ids.astype(self.pick(["i8", "i4", "u2"])))

    def draw_teacher_log_probs(self):
        p = self.rng.dirichlet(np.ones(getattr(self, "k", 1) + 1), self.positions)[..., :-1]
        return cast(np.log(p * self.pick([1.0, 0.5])), self.pick(["f4", "f8", "f2", "bfloat16"]))

    def draw_weight(self):
        if self.name.startswith(("sigmoid", "binary")):
            return self.factors(self.pick([self.shape, self.shape[-1:], (), (1,) * len(self.shape)]))
        return self.factors((self.classes,))

    def draw_pos_weight(self):
        return self.factors(self.pick([self.shape, self.shape[-1:], ()]), signed=False)

    def draw_sample_weight(self):
        return self.factors(self.positions)

    def draw_prior(self):
        return cast(self.rng.uniform(0.01, 3, self.classes), self.pick(["f4", "f8", "f2"]))

    def draw_grad_output(self):
        reduction = self.arguments.get("reduction", "mean")
        each = isinstance(reduction, str) and reduction == "none"
        elements = self.name.startswith(("sigmoid", "binary", "mse")) or self.axes is None
        return self.floats((self.shape if elements else self.positions) if each else (), kind="usual")

    def draw_label_smoothing(self):
        return self.pick([0.0, 0.1, 1.0, 0.5, np.float32(0.25), 0])

    def draw_z_loss(self):
        return self.pick([0.0, 1e-4, 0.1, 10.0])

    def draw_gamma(self):
        return self.pick([0.0, 0.5, 1.0, 2, 5.0])

    def draw_alpha(self):
        return self.pick([None, 0.25, 0.5, 1.0, 0.9, 1e-40])

    def draw_temperature(self):
        return self.pick([1.0, 0.5, 2.0, 0.07, 7, 100.0, np.float64(1.5)])

    def draw_logit_cap(self):
        return self.pick([None, 30.0, 5.0, 1.0, 50])

    def draw_base(self):
        return self.pick(
            [None, 2.0, 10, 2] if self.name.startswith(("evaluate", "compare")) else [None, 2.0, 10, 0.5]
        )

    def draw_clip(self):
        return self.pick([None, 1e-7, 0.1, 0.3])

    def draw_hessian(self):
        rules = ["diagonal", "gauss_newton", "absolute"]
        return self.pick(rules if self.name.startswith("sigmoid") else [*rules, "upper", "friedman"])

    def draw_top_k(self):
        return self.pick([1, (1,), (1, 5), (3, 2), 100])

    def draw_tail(self):
        return self.pick(["bucket", "renormalize", "drop"])

    def draw_calibration_bins(self):
        return self.pick([None, 1, 10, 15])

    def draw_confusion(self):
        chosen = self.pick([False, True, "per_class"])
        return "per_class" if chosen is True and self.classes > MOST else chosen  # gigabytes

    def draw_ranks(self):
        return self.chance(0.5)

    draw_keepdims = draw_return_sign = draw_entropy = draw_ranks


SEVERAL_AXES = {
    "softmax", "log_softmax", "logsumexp", "logsumexp_backward", "softmax_backward", "log_softmax_backward",
}  # fmt: skip


class Layer(Positions):
    """Losses of the scores of a linear layer."""

    def shapes(self):
        ndim = int(self.rng.integers(0, 3))
        self.features, self.classes = self.size(8), self.size(8)
        lead = tuple(self.size(6) for _ in range(ndim))
        if self.large:
            lead, self.features, self.classes = (
                (self.pick([7, 300]),),
                self.pick([5, 64]),
                self.pick([30, 500]),
            )
        self.shape, self.axis = (*lead, self.classes), len(lead)
        self.axes, self.samples = self.axis, int(self.rng.integers(1, 6))
        self.choose_first()

    def draw_x(self):
        return self.floats((*self.positions, self.features))

    def draw_weight(self):
        return self.floats((self.classes, self.features))

    def draw_bias(self):
        return None if self.chance(0.2) else self.floats((self.classes,))

    def draw_class_weight(self):
        return self.factors((self.classes,))

    def draw_noise(self):
        shape = self.pick([(self.samples,), (*self.positions, self.samples)])
        return self.at_large(self.integers(shape, 0, self.classes))

    draw_sampled = draw_noise

    def draw_noise_log_prob(self):
        return self.floats((self.classes,), kind="usual", dtype=self.pick(["f4", "f8"]))

    draw_sampled_log_prob = draw_noise_log_prob

    def draw_target(self):
        if self.name.startswith("linear") and self.chance(0.2):
            return self.probabilities(self.shape, self.axis)
        return self.at_large(self._with_ignored(self.integers(self.positions, 0, self.classes)))

    def draw_chunk_bytes(self):
        # one byte makes a chunk of each position: minutes for a large call
        return self.pick([None, 10**5, 10**6] if self.large else [None, 1, 1000, 10**6])

    def draw_needs(self):
        return tuple(self.chance(0.6) for _ in range(3))


class Images(Call):
    """Convolutions and pools."""

    def shapes(self):
        rng, line = self.rng, self.name.startswith("conv1d")
        self.line = line
        self.kernel = tuple(int(n) for n in rng.integers(1, 4, 1 if line else 2))
        self.stride = int(rng.integers(1, 4)) if self.chance(0.4) else 1
        self.dilation = int(rng.integers(1, 3)) if self.chance(0.2) else 1
        self.padding = self._padding()
        self.groups = self.pick([1, 1, 1, 2, 3])
        self.batch, self.inner, self.outer = self.size(3), self.pick([1, 1, 2, 5]), self.pick([1, 2, 3, 17])
        least = [(k - 1) * self.dilation + 1 for k in self.kernel]
        most = 60 if self.large else 9
        self.image = tuple(n + int(rng.integers(0, most)) for n in least)
        if self.chance(0.03):
            self.image = tuple(int(n) for n in rng.integers(0, 3, len(self.kernel)))
        self.transposed = "transpose" in self.name
        self.style = "usual" if self.style == "confident" else self.style

    def _padding(self):
        if "pool" in self.name:
            return int(self.rng.integers(0, min(self.kernel) // 2 + 1))
        sides = [tuple(int(n) for n in self.rng.integers(0, 3, 2)) for _ in self.kernel]
        return self.pick([0, 0, 1, sides[0] if self.line else tuple(sides), "same", "valid"])

    def _options(self):
        found = {"stride": self.stride, "dilation": self.dilation, "padding": self.padding}
        return {key: value for key, value in found.items() if key in self.parameters}

    @property
    def x_shape(self):
        return (self.batch, self.inner * self.groups, *self.image)

    @property
    def w_shape(self):
        return (self.outer * self.groups, self.inner, *self.kernel)

    def draw(self, key):
        if key in ("stride", "dilation", "padding"):  # as what has been drawn by the sizes
            return LEFT_OUT if key == "padding" and self.padding == 0 else getattr(self, key)
        return super().draw(key)

    def result_shape(self):
        """The shape of the forward result, as the reference has it; a guess where it has none."""
        ones = np.ones
        try:
            if "conv" in self.name:
                forward = "conv1d" if self.line else "conv2d"
                x, w = ones(self.x_shape), ones(self.w_shape)
                return getattr(xent.reference, forward)(x, w, groups=self.groups, **self._options()).shape
            if self.name == "col2im":
                return xent.reference.im2col(ones(self.x_shape), self.kernel, **self._options()).shape
            forward = self.name.removesuffix("_backward")
            return getattr(xent.reference, forward)(ones(self.x_shape), self.kernel, **self._options()).shape
        except Exception:
            self.valid = False
            return (self.batch, self.outer, *self.image)

    def draw_grad(self):
        return self.floats(self.x_shape if self.transposed else self.result_shape())

    def draw_x(self):
        return self.floats(self.result_shape() if self.transposed else self.x_shape)

    def draw_weight(self):
        return self.floats(self.w_shape)

    def draw_bias(self):
        return self.floats((self.inner * self.groups if self.transposed else self.outer * self.groups,))

    def draw_cols(self):
        return self.floats(self.result_shape())

    def draw_kernel_size(self):
        return self.kernel if self.chance(0.7) or len(set(self.kernel)) > 1 else self.kernel[0]

    def draw_output_size(self):
        return self.image

    def draw_output_padding(self):
        return LEFT_OUT

    def draw_groups(self):
        return self.groups

    def draw_activation(self):
        return self.pick([None, "relu"])

    def draw_needs(self):
        return tuple(self.chance(0.6) for _ in range(3))

    def draw_ceil_mode(self):
        return False if self.name.endswith("_backward") else self.chance(0.5)

    def draw_return_places(self):
        return self.chance(0.5)

    def draw_count_include_pad(self):
        return self.chance(0.5)

    def draw_divisor_override(self):
        return self.pick([None, 1, 3])

    def draw_places(self):
        return None


class Known(Call):
    """A function that no class above knows: the arrays of the table of test_inputs.py, in odd places."""

    def shapes(self):
        from test_inputs import CALLS, FIXED

        self.table = CALLS[self.name] | FIXED.get(self.name, {})
        self.arguments = {key: self._varied(value) for key, value in self.table.items()}
        self.parameters = {}

    def _varied(self, value):
        if self.chance(0.02):
            self.valid = False
            return self.spoil(value)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and self.chance(0.5):
            return cast(value, self.dtype)
        return value


GROUPS = {
    **dict.fromkeys(
        ["softmax", "sigmoid", "cross_entropy", "nll", "second_order", "evaluate", "sigmoid_cross_entropy",
         "tokens", "probabilities", "divergence", "sparse_distillation", "squared_error"], Positions,
    ),
    "linear": Layer, "sampled": Layer, "conv": Images, "pool": Images,
}  # fmt: skip


def drawn(name, rng, large=False):
    """A call of a function."""
    module = getattr(xent, name).__module__.rpartition(".")[2]
    group = Layer if name.startswith("linear") else GROUPS.get(module, Known)
    try:
        return group(name, rng, large)
    except NotImplementedError:  # a parameter that is new
        return Known(name, rng, large)
