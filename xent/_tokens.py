"""The gradient of token_log_probs by logits, of public functions alone: for xent.torch and xent.jax."""

import numpy as np

import xent


def log_probs_grad(logits, ids, grad_output, *, axis=-1, **options):
    """
    Return the gradient of ``(grad_output * token_log_probs(logits, ids)).sum()``, in the dtype of the logits.

    A log-probability is minus a loss; several of a position are minus that of a target of several classes,
    whose weights are the upstream gradients of these, of any sign and sum.
    """
    options.update(axis=axis, reduction="none")
    if ids.ndim < logits.ndim:
        return xent.cross_entropy_grad(logits, ids, grad_output=-grad_output, **options)
    target = np.zeros(logits.shape, grad_output.dtype)
    columns, chosen, upstream = (np.moveaxis(a, axis, -1) for a in (target, ids, grad_output))
    for k in range(chosen.shape[-1]):  # a class that occurs twice is added up
        one = chosen[..., k, np.newaxis].astype(np.int64)
        share = np.take_along_axis(columns, one, -1) - upstream[..., k, np.newaxis]
        np.put_along_axis(columns, one, share, -1)
    return xent.cross_entropy_grad(logits, target, **options)
