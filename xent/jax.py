"""Losses of xent for JAX: functions that jit, grad and vmap, on the CPU.

Names, order and meaning of arguments are those of xent. `import xent` does not import this module.

Here are the public functions. How they are differentiated: `_jax_losses`. How a compiled program calls them:
`_jax_calls`.
"""

from ._docs import documented

try:
    import jax  # type: ignore[import-not-found,unused-ignore]
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise ImportError('xent.jax needs JAX: pip install "xent-kernels[jax]"') from error

from jax.typing import ArrayLike  # type: ignore[import-not-found,unused-ignore]

from ._jax_losses import call

__all__ = [
    "cross_entropy",
    "distillation_loss",
    "linear_cross_entropy",
    "sigmoid_cross_entropy",
    "sparse_distillation_loss",
    "token_log_probs",
]


# ---- functions ----


@documented
def cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | tuple[int, ...] = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    gamma: float = 0.0,
    temperature: float = 1.0,
    logit_cap: float | None = None,
    prior: ArrayLike | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """
    Cross-entropy of logits: xent.cross_entropy, differentiated by JAX.

    Options that are no arrays are part of a compiled program: numbers of Python, not arrays of JAX.

    Parameters
    ----------
    logits : array_like of float, shape (..., C, ...)
        Unnormalised log-probabilities: float64 (where JAX has it), float32, bfloat16 or float16.
    <target>
    <options of cross_entropy>

    Returns
    -------
    jax.Array
        The loss: float64 for float64 logits, else float32. Value and gradient come from one pass where a
        derivative is needed. It can be differentiated twice, forward and in reverse.

    Raises
    ------
    TypeError
        If an argument is differentiated for which this loss has no derivative, or an option is an array.
    ValueError
        As `xent.cross_entropy`. What arrays hold, such as labels, is known when a program runs: it may be a
        jax.errors.JaxRuntimeError then, with the same words.

    Examples
    --------
    >>> import jax
    >>> import numpy as np
    >>> import xent.jax
    >>> logits, labels = jax.numpy.array([[2.0, 1.0, 0.0]]), jax.numpy.array([0])
    >>> loss, grad = jax.jit(jax.value_and_grad(xent.jax.cross_entropy))(logits, labels)
    >>> print(f"{loss:.4f}", np.asarray(grad).round(4))
    0.4076 [[-0.3348  0.2447  0.09  ]]
    """
    arrays = {
        "logits": logits,
        "target": target,
        "weight": weight,
        "sample_weight": sample_weight,
        "prior": prior,
    }
    options = {
        "axis": axis,
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "z_loss": z_loss,
        "gamma": gamma,
        "temperature": temperature,
        "logit_cap": logit_cap,
        "reduction": reduction,
    }
    return call("cross_entropy", arrays, options)


@documented
def linear_cross_entropy(
    x: ArrayLike,
    weight: ArrayLike,
    target: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    class_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    ignore_index: int | tuple[int, ...] = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    gamma: float = 0.0,
    temperature: float = 1.0,
    logit_cap: float | None = None,
    prior: ArrayLike | None = None,
    reduction: str = "mean",
    chunk_bytes: int | None = None,
) -> jax.Array:
    """
    Cross-entropy of a linear layer that never holds all logits: xent.linear_cross_entropy.

    Parameters
    ----------
    <x of a layer>
    <weight of a layer>
        It is the transpose of a kernel (D, C) of Flax.
    <target of a layer>
    bias : array_like of float, shape (C,), optional
        Added to ``x @ weight.T``.
    <class_weight>
    <options of a layer>
    <chunk_bytes>

    Returns
    -------
    jax.Array
        The loss. Its gradients by `x`, `weight` and `bias`, of those that are differentiated, are taken in
        the forward pass; with ``reduction="none"`` in the backward pass, and there is no forward mode then.
        There are no second derivatives.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Examples
    --------
    >>> import jax
    >>> import numpy as np
    >>> import xent.jax
    >>> hidden, head = jax.numpy.array([[1.0, 0.0], [0.0, 2.0]]), jax.numpy.eye(2)
    >>> labels = jax.numpy.array([0, 1])
    >>> loss, grad = jax.value_and_grad(xent.jax.linear_cross_entropy, argnums=1)(hidden, head, labels)
    >>> print(f"{loss:.4f}", np.asarray(grad[0]).round(4))
    0.2201 [-0.1345  0.1192]
    """
    arrays = {
        "x": x,
        "weight": weight,
        "bias": bias,
        "target": target,
        "class_weight": class_weight,
        "sample_weight": sample_weight,
        "prior": prior,
    }
    options = {
        "ignore_index": ignore_index,
        "label_smoothing": label_smoothing,
        "z_loss": z_loss,
        "gamma": gamma,
        "temperature": temperature,
        "logit_cap": logit_cap,
        "reduction": reduction,
        "chunk_bytes": chunk_bytes,
    }
    return call("linear_cross_entropy", arrays, options)


@documented
def sigmoid_cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    pos_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    gamma: float = 0.0,
    alpha: float | None = None,
    ignore_index: int | tuple[int, ...] | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """
    Sigmoid cross-entropy of logits, and focal loss: xent.sigmoid_cross_entropy.

    Parameters
    ----------
    logits : array_like of float
        Log-odds, of any shape.
    <target of sigmoid_cross_entropy>
    <weight of elements>
    <pos_weight>
    <label_smoothing of elements>
    <gamma of elements>
    <alpha>
    <ignore_index of elements>
    <reduction of sigmoid_cross_entropy>

    Returns
    -------
    jax.Array
        The loss. There are no second derivatives.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Examples
    --------
    >>> import jax
    >>> import xent.jax
    >>> print(xent.jax.sigmoid_cross_entropy(jax.numpy.array([20.0]), jax.numpy.array([1])))
    2.0611537e-09
    """
    arrays = {"logits": logits, "target": target, "weight": weight, "pos_weight": pos_weight}
    options = {
        "label_smoothing": label_smoothing,
        "gamma": gamma,
        "alpha": alpha,
        "ignore_index": ignore_index,
        "reduction": reduction,
    }
    return call("sigmoid_cross_entropy", arrays, options)


@documented
def distillation_loss(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    reduction: str = "mean",
) -> jax.Array:
    """
    Divergence of a student's softmax from a teacher's: xent.distillation_loss.

    Parameters
    ----------
    student_logits : array_like of float, shape (..., C, ...)
        Logits of the student.
    <teacher_logits>
        Where it would be differentiated, give ``jax.lax.stop_gradient(teacher_logits)``.
    <axis>
    <temperature>
    <reduction of positions>

    Returns
    -------
    jax.Array
        The loss. There are no second derivatives.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Examples
    --------
    >>> import jax
    >>> import xent.jax
    >>> student, teacher = jax.numpy.array([[1.0, 2.0, 3.0]]), jax.numpy.array([[1.0, 2.0, 4.0]])
    >>> print(f"{xent.jax.distillation_loss(student, teacher, temperature=2.0):.4f}")
    0.1207
    """
    arrays = {"student_logits": student_logits, "teacher_logits": teacher_logits}
    options = {"axis": axis, "temperature": temperature, "reduction": reduction}
    return call("distillation_loss", arrays, options)


@documented
def sparse_distillation_loss(
    student_logits: ArrayLike,
    teacher_ids: ArrayLike,
    teacher_log_probs: ArrayLike,
    *,
    temperature: float = 1.0,
    tail: str = "bucket",
    sample_weight: ArrayLike | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """
    Divergence of a student's softmax from the k largest probabilities of a teacher.

    Parameters
    ----------
    student_logits : array_like of float, shape (..., C)
        Logits of the student.
    <teacher_ids>
    <teacher_log_probs>
    <temperature of sparse>
    <tail>
    <sample_weight of any sign>
    <reduction of positions>

    Returns
    -------
    jax.Array
        The loss. There are no second derivatives.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> import xent.jax
    >>> student, ids = jnp.array([[2.0, 1.0, 0.0, 0.0]]), jnp.array([[1, 0]])
    >>> print(f"{xent.jax.sparse_distillation_loss(student, ids, jnp.log(jnp.array([[0.6, 0.3]]))):.4f}")
    0.3266
    """
    arrays = {
        "student_logits": student_logits,
        "teacher_ids": teacher_ids,
        "teacher_log_probs": teacher_log_probs,
        "sample_weight": sample_weight,
    }
    options = {"temperature": temperature, "tail": tail, "reduction": reduction}
    return call("sparse_distillation_loss", arrays, options)


@documented
def token_log_probs(
    logits: ArrayLike,
    ids: ArrayLike,
    *,
    axis: int = -1,
    temperature: float = 1.0,
    logit_cap: float | None = None,
    prior: ArrayLike | None = None,
    ranks: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """
    Log-probabilities of some classes of each position, and their ranks: xent.token_log_probs.

    Parameters
    ----------
    logits : array_like of float, shape (..., C, ...)
        Unnormalised log-probabilities: float64 (where JAX has it), float32, bfloat16 or float16.
    <ids>
    <axis>
    <temperature>
    <logit_cap>
    <prior>
    <ranks>

    Returns
    -------
    log_probs : jax.Array
        Of the shape of `ids`: float64 for float64 logits, else float32. Their gradient by `logits` is taken
        in the backward pass, from another pass over the logits: there are no forward mode and no second
        derivatives.
    places : jax.Array of int
        With `ranks` only: how many classes have a larger logit.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    Examples
    --------
    >>> import jax
    >>> import numpy as np
    >>> import xent.jax
    >>> logits, ids = jax.numpy.array([[1.0, 2.0, 3.0]]), jax.numpy.array([[2, 0]])
    >>> log_probs, places = xent.jax.token_log_probs(logits, ids, ranks=True)
    >>> print(np.asarray(log_probs).round(3), places)
    [[-0.408 -2.408]] [[0 2]]
    >>> grad = jax.grad(lambda z: xent.jax.token_log_probs(z, ids).sum())(logits)
    >>> print(np.asarray(grad).round(3))
    [[ 0.82  -0.489 -0.33 ]]
    """
    arrays = {"logits": logits, "ids": ids, "prior": prior}
    options = {"axis": axis, "temperature": temperature, "logit_cap": logit_cap, "ranks": ranks}
    return call("token_log_probs", arrays, options)
