"""For xent.torch: the table of losses, and how a call of one is computed and differentiated.

A call takes one of two ways. Plain tensors go through `_Eager`, an autograd.Function: the quickest that
PyTorch has. What traces or transforms (torch.compile, torch.export, torch.func, modes, subclasses of tensors)
goes through the operators of `_torch_operators`. Both read tensors where they lie.

A new loss of xent is a row at the end of this file and a function in xent.torch.
"""

import math
import re

import torch  # type: ignore[import-not-found,unused-ignore]

import xent

from ._torch_operators import LossOperators, packed
from ._torch_tensors import array_of, is_traced, tensor_of

# What cures an argument in the words of xent, and in PyTorch's.
_CURES = [
    (re.compile(r"\.astype\(np\.int64\)"), ".long()"),
    (re.compile(r"\.astype\(np\.float32\)"), ".float()"),
    (re.compile(r"np\.reshape\((\w+), (\(.*?\))\)"), r"\1.reshape\2"),
]


class Loss:
    """A loss of xent: its tensors, of which the first `inputs` have gradients, and how these are computed.

    `tensors` are pairs of names, PyTorch's (with a "?" if it may be left out) and xent's; `options` the types
    of the other arguments, in the language of schemas.
    """

    def __init__(self, name, inputs, tensors, options, elementwise=False, second_order=False):
        self.name, self.inputs, self.options, self.elementwise = name, inputs, options, elementwise
        self.given_as = [given.rstrip("?") for given, _ in tensors]
        self.optional = [given.endswith("?") for given, _ in tensors]
        self.names = [own for _, own in tensors]
        self._of_own = dict(zip(self.names, self.given_as, strict=True))
        self._own = re.compile(rf"\b({'|'.join(self.names)})\b")
        self.value, self.both = getattr(xent, name), getattr(xent, f"{name}_value_and_grad")
        self.grad = getattr(xent, f"{name}_grad", None)
        self.hvp = getattr(xent, f"{name}_hvp") if second_order else None
        self.operators = LossOperators(self)

    def arguments(self, tensors, options):
        named = zip(tensors, self.given_as, strict=True)
        arrays = [None if tensor is None else array_of(tensor, name) for tensor, name in named]
        return dict(zip(self.names, arrays, strict=True), **options)

    def say_as_given(self, error):
        """Let an error of xent name tensors as they were given, and their own methods."""
        words = str(error)
        if type(error) not in (TypeError, ValueError) or "cannot be read as an array" in words:
            return  # which has them
        words = self._own.sub(lambda found: self._of_own[found[0]], words)
        for own, given in _CURES:
            words = own.sub(given, words)
        error.args = (words,)

    def value_and_grads(self, tensors, options, needs):
        """The loss and its gradients, None where not needed, from one pass."""
        given = self.arguments(tensors, options)
        if self.inputs > 1:
            value, grads = self.both(**given, needs=needs)
            return tensor_of(value), [None if grad is None else tensor_of(grad) for grad in grads]
        value, grad = self.both(**given)
        return tensor_of(value), [tensor_of(grad)]

    def grads(self, upstream, tensors, options, needs):
        """The gradients, with the upstream one in them before they are rounded."""
        given = self.arguments(tensors, options)
        given["grad_output"] = array_of(upstream)
        if self.inputs > 1:
            grads = self.both(**given, needs=needs)[1]
            return [None if grad is None else tensor_of(grad) for grad in grads]
        return [tensor_of(self.grad(**given))]

    def product(self, vector, tensors, options):
        """The Hessian of the sum of the losses times a vector."""
        return tensor_of(self.hvp(**self.arguments(tensors, options), vector=array_of(vector)))

    def is_deferred(self, tensors, options, needs):
        """Whether gradients wait for the upstream one.

        In float16 they could vanish before a loss scale reaches them. Those of a layer are sums over
        positions.
        """
        if self.inputs == 1:
            return needs[0] and tensors[0].dtype is torch.float16
        if options["reduction"] == "none":
            return True
        return any(need and t.dtype is torch.float16 for need, t in zip(needs, tensors, strict=False))

    def spread(self, upstream, options):
        """The upstream gradient in a shape that broadcasts to that of the input."""
        if options["reduction"] != "none" or self.elementwise:
            return upstream
        return upstream.unsqueeze(options.get("axis", -1))

    def no_second_order(self):
        return NotImplementedError(f"xent.torch.{self.name} has no second derivatives")


def call(loss, tensors, options):
    """The loss of tensors that were checked."""
    try:
        if is_traced(tensors):
            return loss.operators.value(tensors, options)
        if torch.is_grad_enabled():
            tensors = [None if tensor is None else _unwrapped(tensor) for tensor in tensors]
            needs = [tensor is not None and tensor.requires_grad for tensor in tensors[: loss.inputs]]
            if True in needs:
                return _apply_eager((loss, options, needs), *tensors)
        return tensor_of(loss.value(**loss.arguments(tensors, options)))
    except (TypeError, ValueError) as error:
        loss.say_as_given(error)
        raise


# ---- plain tensors, as autograd sees them ----


class _Eager(torch.autograd.Function):
    """One pass for value and gradients. The first backward pass takes these; another computes them again."""

    @staticmethod
    def forward(ctx, call, *tensors):
        ctx.call = loss, options, needs = call
        ctx.save_for_backward(*tensors)
        if loss.is_deferred(tensors, options, needs):
            return tensor_of(loss.value(**loss.arguments(tensors, options)))
        value, ctx.gradients = loss.value_and_grads(tensors, options, needs)
        return value

    @staticmethod
    def backward(ctx, upstream):
        loss, options, needs = ctx.call
        if torch._C._functorch.is_legacy_batchedtensor(upstream):  # is_grads_batched, vectorize
            raise NotImplementedError(
                f"xent.torch.{loss.name} takes upstream gradients in batches by torch.func alone"
            )
        if torch._C._are_functorch_transforms_active():
            grads = loss.operators.grads(upstream, ctx.saved_tensors, packed(options), needs)
        elif torch.is_grad_enabled():  # create_graph=True
            grads = _Gradients.apply(loss, options, needs, upstream, *ctx.saved_tensors)
            grads = grads if loss.inputs > 1 else [grads]
        else:
            grads = _scaled(ctx.__dict__.pop("gradients", None), upstream, loss, options)
            if grads is None:
                grads = loss.grads(upstream, ctx.saved_tensors, options, needs)
        return None, *grads, *[None] * (len(loss.names) - loss.inputs)


# Function.apply asks what is known here already, for two microseconds, and unwraps tensors of transforms that
# are over, as `call` does
_apply_eager = super(torch.autograd.Function, _Eager).apply
_unwrapped = torch._C._functorch.unwrap_if_dead


def _scaled(grads, upstream, loss, options):
    """The gradients times the upstream one, in place, as nobody else has them; None: compute them."""
    if upstream.dim() and upstream.numel() and not any(upstream.stride()):  # one number, as of loss.sum()
        upstream = upstream[(0,) * upstream.dim()]
    total = upstream.item() if upstream.dim() == 0 else upstream.sum().item()
    # an infinite factor must not reach what is ignored: 0 * inf
    if grads is None or not math.isfinite(total):
        return None
    if upstream.dim() or total != 1.0:
        factor = loss.spread(upstream, options) if upstream.dim() else upstream
        for grad in grads:
            if grad is not None:
                grad.mul_(factor)
    return grads


class _Gradients(torch.autograd.Function):
    """The gradients as a function of the upstream one and the tensors: for a graph of the backward pass."""

    @staticmethod
    def forward(ctx, loss, options, needs, upstream, *tensors):
        ctx.loss, ctx.options = loss, options
        ctx.save_for_backward(upstream, *tensors)
        grads = loss.grads(upstream, tensors, options, needs)
        return tuple(grads) if loss.inputs > 1 else grads[0]

    @staticmethod
    def backward(ctx, *vectors):
        loss, options, (upstream, *tensors) = ctx.loss, ctx.options, ctx.saved_tensors
        if loss.hvp is None:
            raise loss.no_second_order()
        vector, by_upstream, by_input = vectors[0], None, None
        if ctx.needs_input_grad[3]:
            grad = _Gradients.apply(loss, options, [True], torch.ones_like(upstream), *tensors)
            by_upstream = _summed(vector * grad, upstream, options)
        if ctx.needs_input_grad[4]:
            vector, last = vector * loss.spread(upstream, options), _Last.apply(loss, tensors[0])
            by_input = _Product.apply(loss, options, vector, last, *tensors[1:])
        return None, None, None, by_upstream, by_input, *[None] * (len(tensors) - 1)


class _Product(torch.autograd.Function):
    """The Hessian times a vector, to be differentiated by that vector, as autograd.functional.hvp does."""

    @staticmethod
    def forward(ctx, loss, options, vector, *tensors):
        ctx.loss, ctx.options = loss, options
        ctx.save_for_backward(*tensors)
        return loss.product(vector, tensors, options)

    @staticmethod
    def backward(ctx, upstream):
        by_vector = _Product.apply(ctx.loss, ctx.options, upstream, *ctx.saved_tensors)
        return None, None, by_vector, *[None] * len(ctx.saved_tensors)


class _Last(torch.autograd.Function):
    """A tensor by which nothing is differentiated further: else the derivative would be 0 without a word."""

    @staticmethod
    def forward(ctx, loss, tensor):
        ctx.loss = loss
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx, upstream):
        raise NotImplementedError(f"xent.torch.{ctx.loss.name} has no third derivatives")


def _summed(products, upstream, options):
    """Sums over what each entry of the upstream gradient was spread to."""
    if upstream.dim() == 0:
        return products.sum().to(upstream.dtype)
    return products.sum(dim=options["axis"]).to(upstream.dtype)


# ---- the losses ----

_TERMS = {
    "ignore_index": "int[]",
    "label_smoothing": "float",
    "z_loss": "float",
    "gamma": "float",
    "temperature": "float",
    "logit_cap": "float?",
    "reduction": "str",
}
CROSS_ENTROPY = Loss(
    "cross_entropy",
    1,
    [
        ("input", "logits"),
        ("target", "target"),
        ("weight?", "weight"),
        ("sample_weight?", "sample_weight"),
        ("prior?", "prior"),
    ],
    {"axis": "int", **_TERMS},
    second_order=True,
)
LINEAR = Loss(
    "linear_cross_entropy",
    3,
    [
        ("input", "x"),
        ("linear_weight", "weight"),
        ("linear_bias?", "bias"),
        ("target", "target"),
        ("weight?", "class_weight"),
        ("sample_weight?", "sample_weight"),
        ("prior?", "prior"),
    ],
    {**_TERMS, "chunk_bytes": "int?"},
)
SIGMOID = Loss(
    "sigmoid_cross_entropy",
    1,
    [("input", "logits"), ("target", "target"), ("weight?", "weight"), ("pos_weight?", "pos_weight")],
    {
        "ignore_index": "int[]?",
        "label_smoothing": "float",
        "gamma": "float",
        "alpha": "float?",
        "reduction": "str",
    },
    elementwise=True,
)
DISTILLATION = Loss(
    "distillation_loss",
    1,
    [("student_logits", "student_logits"), ("teacher_logits", "teacher_logits")],
    {"axis": "int", "temperature": "float", "reduction": "str"},
)
SPARSE_DISTILLATION = Loss(
    "sparse_distillation_loss",
    1,
    [
        ("student_logits", "student_logits"),
        ("teacher_ids", "teacher_ids"),
        ("teacher_log_probs", "teacher_log_probs"),
        ("sample_weight?", "sample_weight"),
    ],
    {"temperature": "float", "tail": "str", "reduction": "str"},
)
