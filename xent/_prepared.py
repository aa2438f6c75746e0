"""Weights of a convolution that are packed once, and kept."""

import numpy as np

from . import _check


class PreparedWeight:
    """
    Weights of `conv2d` or `conv1d` that are packed once: what `prepare_conv2d` returns.

    Immutable, and an array for all other functions: ``np.asarray`` gives the weights. Threads may share it.
    A pickle has the weights alone, which are packed anew where it is loaded, for the processor there.

    Parameters
    ----------
    weight : array_like of float, shape (O, C / groups, kh, kw) or (O, C / groups, k)
        The kernels, which are copied. Integers and bools become float64.
    groups : int, optional
        As in `conv2d`.

    See Also
    --------
    prepare_conv2d

    Notes
    -----
    How weights are packed depends on the dtype computed with and about the width of the images: a form is
    made when a call needs it first, and kept. There are a few of them at most, and none where calls read the
    weights as they lie.

    Examples
    --------
    >>> import numpy as np
    >>> import xent
    >>> weight = xent.PreparedWeight(np.ones((8, 2, 3, 3), np.float32), groups=4)
    >>> weight
    PreparedWeight(shape=(8, 2, 3, 3), dtype=float32, groups=4, nbytes=576)
    >>> xent.conv2d(np.ones((1, 8, 3, 3), np.float32), weight)[0, :, 0, 0]
    array([18., 18., 18., 18., 18., 18., 18., 18.], dtype=float32)
    """

    __slots__ = "_groups", "_packed", "_weight"

    def __init__(self, weight, groups=1):
        weight = _check.floats(weight, "weight")
        if weight.ndim not in (3, 4):
            raise ValueError(
                f"weight must have 4 dimensions, (O, C / groups, kh, kw), or 3, (O, C / groups, k), got "
                f"shape {weight.shape}"
            )
        _check.taps(weight)
        self._groups = _check.integer(groups, "groups", 1)
        if len(weight) % self._groups:
            raise ValueError(f"groups must divide the channels of the output, {len(weight)}, got {groups}")
        self._weight = np.array(weight, order="C", subok=False)
        self._weight.flags.writeable = False
        self._packed = {}  # the packed forms: `conv2d` of bridge/images.pxi

    @property
    def shape(self):
        """Shape of the weights."""
        return self._weight.shape

    @property
    def ndim(self):
        """Number of their dimensions: 4 of images, 3 of signals."""
        return self._weight.ndim

    @property
    def dtype(self):
        """Dtype of the weights."""
        return self._weight.dtype

    @property
    def groups(self):
        """The groups of channels that they were prepared for."""
        return self._groups

    @property
    def nbytes(self):
        """Memory of the weights and of their packed forms so far."""
        return self._weight.nbytes + sum(form.nbytes for form in list(self._packed.values()))

    def __array__(self, dtype=None, copy=None):
        if copy is False and dtype not in (None, self.dtype):
            raise ValueError(f"weights of {self.dtype} cannot be {dtype} without a copy")
        return self._weight.astype(dtype or self.dtype, copy=bool(copy))

    def __len__(self):
        return len(self._weight)

    def __repr__(self):
        about = f"shape={self.shape}, dtype={self.dtype}, groups={self.groups}, nbytes={self.nbytes}"
        return f"PreparedWeight({about})"

    def __reduce__(self):
        return PreparedWeight, (self._weight, self._groups)

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


def unpacked(weight, groups):
    """Return weights as an array, their groups, and the packed forms to use or None.

    A prepared weight brings its groups with it. The channels of the images tell them apart anyway, so that
    the default of 1 can mean those.
    """
    if not isinstance(weight, PreparedWeight):
        return weight, groups, None
    if _check.integer(groups, "groups", 1) not in (1, weight.groups):
        raise ValueError(f"groups must be {weight.groups}, for which weight was prepared, got {groups}")
    return weight._weight, weight.groups, weight._packed
