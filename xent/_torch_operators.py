"""For xent.torch: losses as operators of torch.library, which torch.compile, torch.export and torch.func know
by the shapes of what they return, and how they are differentiated there.

A loss has three: value and gradients in one pass; gradients that wait for the upstream one; the product of
its Hessian with a vector. An operator takes the tensors of the loss, then its options, as its schema says.
"""

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]

import xent

from ._tokens import log_probs_grad
from ._torch_tensors import array_of, laid_out, lost_gradient, room, tensor_of

_NONE = (0,)  # shape of what is not asked for, where an operator has to return something


class Operator:
    """An operator of torch.library, and an autograd.Function of the same formulas for torch.func."""

    def __init__(self, name, schema, compute, fake, backward, setup=lambda ctx, inputs, output: None):
        self.op = torch.library.custom_op(
            f"xent::{name}", compute, mutates_args=(), device_types="cpu", schema=schema
        )
        self.op.register_fake(fake)
        self.op.register_autograd(backward, setup_context=setup)
        self.op.register_vmap(_looped(self.op, fake))
        methods = {"forward": compute, "setup_context": setup, "backward": backward}
        methods.update(jvp=_no_forward_mode(name), vmap=_looped(self, fake))
        self.function = type(
            name, (torch.autograd.Function,), {k: staticmethod(m) for k, m in methods.items()}
        )

    def __call__(self, *args):
        if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
            return self.function.apply(*args)
        return self.op(*args)


def _no_forward_mode(name):
    def jvp(ctx, *tangents):
        raise NotImplementedError(f"xent.torch.{name} has no forward mode (jvp): see torch.func.jacrev")

    return jvp


def _looped(op, fake):
    """The rule of torch.func.vmap: a call for each entry of the batch, with its own mean."""

    def rule(info, in_dims, *args):
        pairs = list(zip(args, in_dims, strict=True))
        results = [op(*[_entry(a, d, k) for a, d in pairs]) for k in range(info.batch_size)]
        shown = results or [fake(*[_room_of_entry(a, d) for a, d in pairs])]  # the shape of none is known too
        if isinstance(shown[0], torch.Tensor):
            return torch.stack(shown)[: info.batch_size], 0
        parts = zip(*shown, strict=True)
        return tuple(torch.stack(part)[: info.batch_size] for part in parts), (0,) * len(shown[0])

    return rule


def _entry(arg, dim, k):
    return arg.select(dim, k) if isinstance(dim, int) else arg


def _room_of_entry(arg, dim):
    return arg.new_empty(arg.shape[:dim] + arg.shape[dim + 1 :]) if isinstance(dim, int) else arg


class FirstOrder(torch.autograd.Function):
    """A gradient that cannot be differentiated again: else its derivative would be 0 without a word."""

    generate_vmap_rule = True

    @staticmethod
    def forward(loss, grad, input):
        return grad.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.loss = inputs[0]

    @staticmethod
    def backward(ctx, *vectors):
        raise ctx.loss.no_second_order()


# ---- losses ----


def packed(options):
    """The options as the schemas have them."""
    return [[v] if name == "ignore_index" and not _is_packed(v) else v for name, v in options.items()]


def _is_packed(ignore_index):
    if isinstance(ignore_index, list):
        raise TypeError("ignore_index must be an integer or a tuple of integers, got list")
    return ignore_index is None or isinstance(ignore_index, tuple)


def _refuse_lost(ctx, loss):
    """Raise where a tensor records gradients that `check` cannot see, as in a vmap within a grad."""
    for k in range(loss.inputs, len(loss.given_as)):
        if ctx.needs_input_grad[k]:
            raise lost_gradient(loss, k)


class LossOperators:
    """The operators of a loss. `args` are its tensors and options, and which of its gradients are needed.

    These are numbers in a schema, 0 or 1, as torch.jit.trace knows no lists of bools.
    """

    def __init__(self, loss):
        self.loss, self.count = loss, len(loss.names)
        given = ", ".join(
            f"Tensor{'?' if optional else ''} {name}"
            for name, optional in zip(loss.given_as, loss.optional, strict=True)
        )
        given += "".join(f", {kind} {name}" for name, kind in loss.options.items())
        grads = ", ".join(["Tensor"] * loss.inputs)
        self.both = Operator(
            loss.name,
            f"({given}, int[] needs) -> (Tensor, {grads})",
            *(self._both, self._both_room, self._both_backward, self._both_setup),
        )
        self._grads = Operator(
            f"{loss.name}_grad",
            f"(Tensor upstream, {given}, int[] needs) -> ({grads})",
            *(self._compute_grads, self._grads_room, self._no_further),
        )
        if loss.hvp is not None:
            self.product = Operator(
                f"{loss.name}_hvp",
                f"(Tensor vector, {given}) -> Tensor",
                *(self._product, lambda vector, *args: room(args[0], False), self._no_further),
            )

    def value(self, tensors, options):
        """The loss, with its gradients where these can be asked for."""
        loss = self.loss
        if torch.compiler.is_compiling():
            needs = [t is not None and t.requires_grad for t in tensors[: loss.inputs]]
        elif torch._C._is_tracing():
            # torch.jit.trace compares a graph with one that it makes without gradients
            needs = [False] * loss.inputs
        else:  # within a vmap a tensor does not know that a grad around it asks for its gradient
            needs = [t is not None and t.is_floating_point() for t in tensors[: loss.inputs]]
        if not torch.is_grad_enabled() or loss.is_deferred(tensors, options, needs):
            needs = [False] * loss.inputs
        return self.both(*tensors, *packed(options), list(map(int, needs)))[0]

    def grads(self, upstream, tensors, given, needs):
        """A list of the gradients, None where not needed."""
        grads = self._grads(upstream, *tensors, *given, list(map(int, needs)))
        grads = [grads] if self.loss.inputs == 1 else grads
        return [grad if need else None for grad, need in zip(grads, needs, strict=True)]

    def _split(self, args):
        """Tensors and options of `args`."""
        names = self.loss.options
        options = dict(zip(names, args[self.count : self.count + len(names)], strict=True))
        ignored = options.get("ignore_index")
        if ignored is not None:
            options["ignore_index"] = ignored[0] if len(ignored) == 1 else tuple(ignored)
        return args[: self.count], options

    # ---- value and gradients ----

    def _both(self, *args):
        (tensors, options), needs = self._split(args), tuple(map(bool, args[-1]))
        if not any(needs):
            value = tensor_of(self.loss.value(**self.loss.arguments(tensors, options)))
            return value.contiguous(), *self._filled(needs, tensors, needs)
        value, grads = self.loss.value_and_grads(tensors, options, needs)
        return value.contiguous(), *self._filled(grads, tensors, needs)

    def _both_room(self, *args):
        (tensors, options), needs = self._split(args), args[-1]
        return _value_room(self.loss, tensors, options), *self._rooms(tensors, needs)

    def _both_setup(self, ctx, inputs, output):
        _refuse_lost(ctx, self.loss)
        ctx.given, ctx.computed = inputs[self.count : -1], inputs[-1]
        ctx.needs = list(ctx.needs_input_grad[: self.loss.inputs])
        ctx.save_for_backward(*inputs[: self.count], *output[1:])
        ctx.set_materialize_grads(False)
        if self.loss.hvp is None:
            ctx.mark_non_differentiable(*output[1:])

    def _both_backward(self, ctx, upstream, *vectors):
        tensors, grads = ctx.saved_tensors[: self.count], ctx.saved_tensors[self.count :]
        by_inputs = [None] * self.loss.inputs
        if upstream is not None:
            if any(ctx.computed):
                _, options = self._split((*tensors, *ctx.given))
                grads = self._times(grads, self.loss.spread(upstream, options), tensors)
                by_inputs = [grad if need else None for grad, need in zip(grads, ctx.needs, strict=True)]
            else:
                by_inputs = self.grads(upstream, tensors, ctx.given, ctx.needs)
        if any(vector is not None for vector in vectors):
            product = self.product(vectors[0], *tensors, *ctx.given)
            by_inputs[0] = product if by_inputs[0] is None else by_inputs[0] + product
        return *by_inputs, *[None] * (self.count - self.loss.inputs + len(ctx.given) + 1)

    def _times(self, grads, factor, tensors):
        """The gradients times the upstream one."""
        grads = [(grad * factor).to(grad.dtype) for grad in grads]
        if self.loss.hvp is None and torch.is_grad_enabled():
            grads = [FirstOrder.apply(self.loss, grad, tensors[0]) for grad in grads]
        return grads

    # ---- gradients, and products ----

    def _compute_grads(self, upstream, *args):
        (tensors, options), needs = self._split(args), tuple(map(bool, args[-1]))
        grads = self._filled(self.loss.grads(upstream, tensors, options, needs), tensors, needs)
        return tuple(grads) if self.loss.inputs > 1 else grads[0]

    def _grads_room(self, upstream, *args):
        grads = self._rooms(args[: self.count], args[-1])
        return tuple(grads) if self.loss.inputs > 1 else grads[0]

    def _product(self, vector, *args):
        tensors, options = self._split(args)
        return laid_out(self.loss.product(vector, tensors, options), tensors[0], False)

    def _no_further(self, ctx, *vectors):
        if self.loss.hvp is None:
            raise self.loss.no_second_order()
        raise NotImplementedError(
            f"xent.torch.{self.loss.name} has no third derivatives, nor here second ones of float16 or "
            "of a batch"
        )

    # ---- layouts ----

    def _filled(self, grads, tensors, needs):
        """The gradients as `_rooms` promises them."""
        return [
            torch.empty(_NONE) if not need else laid_out(grad, t, self.loss.inputs > 1)
            for grad, t, need in zip(grads, tensors, needs, strict=False)
        ]

    def _rooms(self, tensors, needs):
        return [
            torch.empty(_NONE) if not need else room(t, self.loss.inputs > 1)
            for t, need in zip(tensors, needs, strict=False)
        ]


def _value_room(loss, tensors, options):
    """A tensor for the value, in C order."""
    x, wide = tensors[0], {torch.float16, torch.bfloat16, torch.float32}
    layer = [t for t in tensors[: loss.inputs] if t is not None]
    dtype = torch.float32 if all(t.dtype in wide for t in layer) else torch.float64
    shape = []
    if options["reduction"] == "none":
        shape = list(x.shape)
        if not loss.elementwise:
            del shape[options.get("axis", -1)]
    return torch.empty(shape, dtype=dtype, device=x.device)


# ---- log-probabilities of tokens ----


class TokenOperators:
    """`token_log_probs` as operators. What it returns is no loss: there is no reduction, and no one pass
    for value and gradient, as one position may have several upstream gradients."""

    name, inputs = "token_log_probs", 1
    given_as, optional = ["input", "ids", "prior"], [False, False, True]

    def __init__(self):
        given = "Tensor input, Tensor ids, Tensor? prior, int dim, float temperature, float? logit_cap"
        self.value = Operator(
            self.name,
            f"({given}, bool ranks) -> (Tensor, Tensor)",
            *(self._in_order, self._room, self._backward, self._setup),
        )
        self.grad = Operator(
            f"{self.name}_grad",
            f"(Tensor upstream, {given}) -> Tensor",
            self._gradient,
            lambda upstream, input, *args: room(input, False),
            self._no_second_order,
        )

    @staticmethod
    def _options(prior, dim, temperature, logit_cap):
        prior = None if prior is None else array_of(prior, "prior")
        return {"axis": dim, "temperature": temperature, "logit_cap": logit_cap, "prior": prior}

    def compute(self, input, ids, *options):
        *options, ranks = options
        given = self._options(*options)
        found = xent.token_log_probs(array_of(input, "input"), array_of(ids, "ids"), ranks=ranks, **given)
        log_probs, places = found if ranks else (found, np.empty(_NONE, np.int64))
        return tensor_of(log_probs), tensor_of(places)

    def _in_order(self, *args):
        return tuple(tensor.contiguous() for tensor in self.compute(*args))

    @staticmethod
    def _room(input, ids, prior, dim, temperature, logit_cap, ranks):
        dtype = torch.float64 if input.dtype is torch.float64 else torch.float32
        places = torch.empty(ids.shape if ranks else _NONE, dtype=torch.int64, device=input.device)
        return torch.empty(ids.shape, dtype=dtype, device=input.device), places

    def _gradient(self, upstream, input, ids, *options):
        given = self._options(*options)
        grad = log_probs_grad(array_of(input, "input"), array_of(ids, "ids"), array_of(upstream), **given)
        return laid_out(tensor_of(grad), input, False)

    def _setup(self, ctx, inputs, output):
        _refuse_lost(ctx, self)
        ctx.options = inputs[3:6]
        ctx.save_for_backward(*inputs[:3])
        ctx.mark_non_differentiable(output[1])

    def _backward(self, ctx, upstream, _):
        return self.grad(upstream, *ctx.saved_tensors, *ctx.options), *[None] * 6

    def _no_second_order(self, ctx, *vectors):
        raise NotImplementedError(f"xent.torch.{self.name} has no second derivatives")


TOKENS = TokenOperators()
