"""For xent.torch: tensors as arrays over the same memory and back, what is refused, and how gradients lie."""

import numpy as np
import torch  # type: ignore[import-not-found,unused-ignore]
from torch.autograd import forward_ad  # type: ignore[import-not-found,unused-ignore]

_PLAIN = {torch.Tensor, torch.nn.Parameter, type(None)}
# names of their own, as each look-up in a module takes a hundredth of a small call's overhead
_are_transforms_active = torch._C._are_functorch_transforms_active
_count_modes = torch._C._len_torch_dispatch_stack
_is_traced_by_jit = torch._C._is_tracing


# ---- what a caller gave ----


def check(loss, tensors):
    """Raise for what is no tensor, is not on the CPU, or records derivatives that would be lost."""
    recording = torch.is_grad_enabled()
    for k, tensor in enumerate(tensors):
        if tensor is None and loss.optional[k]:
            continue
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(
                f"{loss.given_as[k]} must be a torch.Tensor, got {type(tensor).__name__}: "
                "xent without torch takes arrays"
            )
        if not (tensor.is_cpu or _are_meta(tensors)):
            name, place = loss.given_as[k], tensor.device
            raise TypeError(f"{name} is on device {place}, and xent computes on the CPU: give {name}.cpu()")
        if recording and k >= loss.inputs and tensor.requires_grad:
            raise lost_gradient(loss, k)
    if forward_ad._current_level >= 0:
        _check_tangents(loss, tensors)


def lost_gradient(loss, k):
    """The error for the k-th tensor of a loss, by which it has no gradient."""
    name = loss.given_as[k]
    return TypeError(f"{name} records gradients, which this loss does not give: give {name}.detach()")


def _check_tangents(loss, tensors):
    for name, tensor in zip(loss.given_as, tensors, strict=True):
        if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(
                f"xent.torch.{loss.name} has no forward mode, in which {name} is differentiated (jvp)"
            )


def _are_meta(tensors):
    """Whether no tensor has memory: operators know shapes and dtypes of their results."""
    return all(tensor is None or getattr(tensor, "is_meta", False) for tensor in tensors)


def is_traced(tensors):
    """Whether a call has to be an operator: it is traced or transformed, or tensors are not plain ones."""
    return (
        torch.compiler.is_compiling()
        or _are_transforms_active()
        or _count_modes() > 0
        or _is_traced_by_jit()  # it would keep the result as a constant
        or not _PLAIN.issuperset(map(type, tensors))
        or tensors[0].is_meta
    )


# ---- memory ----


def array_of(tensor, name="a tensor"):
    """The memory of a tensor as an ndarray, or a copy with the right sign of one that is negated lazily."""
    if tensor.dtype is torch.bfloat16:
        return tensor.detach().resolve_neg().view(torch.int16).numpy().view(_bfloat16())
    try:
        return tensor.numpy(force=True)
    except (TypeError, RuntimeError) as error:
        kind = "nested" if tensor.is_nested else f"{tensor.layout} and {tensor.dtype}"
        cure = f"; give {name}.float()" if str(tensor.dtype).startswith("torch.float8") else ""
        words = f"{name} cannot be read as an array, as it is {kind}: {error}{cure}"
        raise TypeError(words) from None


def tensor_of(array):
    """The memory of an ndarray, or a scalar of NumPy, as a tensor."""
    array = np.asarray(array)
    if array.dtype.kind == "V":  # bfloat16: its name takes microseconds
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _bfloat16():
    try:
        from ml_dtypes import bfloat16
    except ImportError:
        raise ImportError(
            'bfloat16 in xent.torch needs ml_dtypes: pip install "xent-kernels[torch]"'
        ) from None
    return bfloat16


# ---- results of operators, which promise how they lie ----


def room(tensor, in_order, device=None):
    """A tensor for the gradient by this one: in C order, or laid out like it."""
    layout = torch.contiguous_format if in_order else torch.preserve_format
    return torch.empty_like(tensor, memory_format=layout, device=device, requires_grad=False)


def laid_out(grad, tensor, in_order):
    """The gradient in the layout of `room`, in which most are already."""
    if grad.stride() == room(tensor, in_order, "meta").stride():
        return grad
    return room(tensor, in_order).copy_(grad)
