# call.pxi: what the calls of all losses have in common: arrays that were checked, and what becomes of the losses.

cdef enum:  # what a call returns
    VALUE
    GRAD
    VALUE_AND_GRAD
    GRAD_AND_HESS
    PRODUCT  # of the Hessian and a vector
    TOTAL  # the sum of the losses as a Python float, and the gradient in `out` unless that is None

ctypedef struct softmax_options:
    double smoothing, z_loss, gamma, temperature, cap, curvature

want_value, want_grad, want_value_and_grad, want_total = VALUE, GRAD, VALUE_AND_GRAD, TOTAL


@cython.final
@cython.freelist(8)
@cython.no_gc  # it holds no LossCall
cdef class LossCall:
    """A call of a loss. Its methods are called in the order in which they stand; all of them check, until `finish`."""

    cdef cnp.ndarray x, labels, target  # labels or target: the other is None
    cdef cnp.ndarray weight, pos_weight, sample_weight, upstream  # factors, or None
    cdef cnp.ndarray losses, grad, hess  # results, None where not wanted; losses are those of each position or element
    cdef object grad_out, hess_out  # the caller's arrays for two of these, or None
    cdef object given  # the target as it came, or None: its memory must not be overwritten either
    cdef const char *name  # of x
    cdef const char *target_name
    cdef str reduction
    cdef softmax_options options  # what a softmax loss needs once more where the kernels cannot do it
    cdef cnp.ndarray prior, vector
    cdef object hessian
    cdef int axis, dtype, wants  # -1: a loss of elements, without class axis
    cdef bint each  # no reduction
    cdef Py_ssize_t classes, counted
    cdef double mass  # sum of the weights of what is counted
    cdef double divisor  # of the sum of the losses: 1 without reduction, 0 for a mean over nothing
    cdef double factor  # of the gradient
    cdef object exact_total, exact_divisor  # the sum of the losses and the divisor as `_exact` has them, or None
    cdef xent_labels found

    cdef int open(self, data, const char *name, int wants) except -1:
        """Data of which each element has a loss, unless a class axis follows."""
        self.name, self.target_name, self.wants, self.factor = name, b"target", wants, 1
        self.x = floats(data, name)
        self.dtype = dtype_code(self.x)
        self.axis = -1
        return 0

    cdef int take_axis(self, axis) except -1:
        """The class axis."""
        self.axis = axis_of(axis, self.x)
        self.classes = cnp.PyArray_DIM(self.x, self.axis)
        return 0

    cdef int take_target(self, target, ignore_index) except -1:
        """Labels or probabilities. `ignore_index` may be None, or a tuple."""
        self.given = target
        if is_labels(target, self.x, self.axis, ignore_index):
            self.labels = <cnp.ndarray>target
        else:
            self.labels, self.target = target_of(target, self.x, self.axis, ignore_index, self.name.decode())
        return 0

    cdef take_labels(self, target, ignore_index):
        """Labels; returns the one value that is ignored."""
        ignore_index = ignored(ignore_index)
        self.labels = labels_of(target, self.x, self.axis, ignore_index)
        return one_ignored(ignore_index)

    cdef int take_floats(self, target, const char *name=b"target") except -1:
        """A target of the shape of the data."""
        self.given, self.target_name = target, name
        self.target = target_like(target, self.x, self.name, name)
        return 0

    cdef int take_reduction(self, reduction) except -1:
        """The name of a reduction."""
        self.reduction = reduction if is_word(reduction, "mean") else _reduction.name(reduction)
        return 0

    cdef int count(self, ignore_index, cnp.ndarray per_label) except -1:
        """Count what is to be reduced; raise for the first bad label. To `per_label` the sample weights of each are added.
        """
        if self.labels is not None:
            self.mass = count_labels(self.labels, &self.found, self.classes, ignore_index, self.weight, self.sample_weight,
                                     per_label, &self.counted)
            return 0
        self.counted = cnp.PyArray_SIZE(self.x) if self.axis < 0 else positions_of(self.x, self.axis)
        if self.sample_weight is None:
            self.mass = self.counted
        else:
            with np.errstate(all="ignore"):  # a sum that overflows is noticed by its size
                self.mass = self.sample_weight.sum()
        return 0

    cdef int reduce(self, grad_output, int upstream_dtype=XENT_F64) except -1:
        """The divisor, room for losses that are not reduced, and the upstream gradient."""
        if self.reduction == "mean":  # the quick yes
            self.divisor = self.mass
        else:
            axis = None if self.axis < 0 else self.axis
            self.divisor = _reduction.divisor(self.reduction, (<object>self.x).shape, axis, self.mass, self.counted)
            self.each = self.reduction == "none"
        if self.each and (self.wants == VALUE or self.wants == VALUE_AND_GRAD):
            self.losses = one_per_position(self.x, self.axis, real_type(self.dtype))
        if grad_output is not None:
            shape = () if not self.each else (<object>self.x).shape if self.axis < 0 else shape_without(self.x, self.axis)
            self.factor, self.upstream = _check.upstream(grad_output, shape, F64 if upstream_dtype == XENT_F64 else F32)
        return 0

    cdef tuple inputs(self):
        """What no result may overlap."""
        cdef object target = self.labels if self.target is None else self.target
        if self.given is not None and cnp.PyArray_Check(self.given):
            target = self.given
        return (
            (target, self.target_name.decode()), (self.weight, "weight"), (self.pos_weight, "pos_weight"),
            (self.upstream, "grad_output"), (self.sample_weight, "sample_weight"),
        )

    cdef bint is_apart(self, out) noexcept:
        """Whether this can take the gradient, at a quick look."""
        cdef cnp.ndarray result
        if not is_valid_out(out, self.x):
            return False
        if self.given is not None and not cnp.PyArray_CheckExact(self.given):
            return False
        result = <cnp.ndarray>out
        return (
            no_overlap(result, <cnp.ndarray>self.given)
            and no_overlap(result, self.labels) and no_overlap(result, self.target)
            and no_overlap(result, self.weight) and no_overlap(result, self.pos_weight)
            and no_overlap(result, self.upstream) and no_overlap(result, self.sample_weight)
        )

    cdef int make_results(self, out) except -1:
        """Room for the gradient, and second derivatives, of which `out` is a pair."""
        cdef object hess_out = None
        if self.wants == GRAD_AND_HESS and out is not None:
            if not isinstance(out, tuple) or len(out) != 2:
                raise TypeError(f"out must be a pair of arrays, got {type(out).__name__}")
            out, hess_out = out
        self.grad_out, self.hess_out = out, hess_out
        if self.wants != VALUE and (self.wants != TOTAL or out is not None):
            if out is None:
                self.grad = empty_like(self.x)
            elif self.is_apart(out):
                self.grad = <cnp.ndarray>out
            else:
                self.grad = result_like(out, self.x, self.name.decode(), self.inputs())
        if self.wants == GRAD_AND_HESS and hess_out is None:
            self.hess = empty_like(self.x)
        elif self.wants == GRAD_AND_HESS:
            others = (self.x, self.name.decode()), *self.inputs(), (self.grad, "the gradient in out")
            _check.output(hess_out, (<object>self.x).shape, self.x.dtype, others)
            self.hess = hess_out
        return 0

    # ---- effects ----

    cdef finish(self, double total):
        """What the call returns. `total` is the sum of the losses, unless there is an exact one."""
        if self.divisor == 0 and self.exact_total is None:  # a mean over nothing
            total = 0
            for result in (self.grad, self.hess):
                if result is not None:
                    result[...] = 0
        grad = None if self.grad is None else returned(self.grad, self.grad_out)
        if self.wants == GRAD or self.wants == PRODUCT:
            return grad
        if self.wants == GRAD_AND_HESS:
            return grad, returned(self.hess, self.hess_out)
        if self.exact_total is not None and not self.each:
            total = exact_arithmetic().mean(self.exact_total, 1.0 if self.wants == TOTAL else self.exact_divisor)
        if self.wants == TOTAL:
            return total
        if self.exact_total is None:
            total = total / self.divisor if self.divisor else 0.0
        loss = unpacked(self.losses) if self.each else scalar(total, self.dtype)
        return loss if self.wants == VALUE else (loss, grad)

    cdef cnp.ndarray working(self):
        """The data as the kernels take them. A target that would lose bits has another type, float32 or float64: then they
        are a copy in that type, which the gradient takes the place of (see `narrow`).
        """
        if self.target is None or cnp.PyArray_TYPE(self.target) == cnp.PyArray_TYPE(self.x):
            return self.x
        return converted(self.x, cnp.PyArray_TYPE(self.target))

    cdef cnp.ndarray working_grad(self, cnp.ndarray x):
        """Where the kernels put the gradient."""
        return self.grad if x is self.x or self.grad is None else x

    cdef inline int narrow(self, cnp.ndarray grad, cnp.ndarray hess=None) except -1:
        """Put results that were made in that type where they belong."""
        return 0 if grad is self.grad and hess is self.hess else put_narrowed(self.grad, grad, self.hess, hess)


cdef int put_narrowed(cnp.ndarray grad, cnp.ndarray made_grad, cnp.ndarray hess=None, cnp.ndarray made_hess=None) except -1:
    """Write results (or None) that were made elsewhere, and in types that may hold more: all are converted before one is
    written.
    """
    cdef list ready = [
        (to, made if can_convert(to, made) else _check.narrowed(made, to.dtype))
        for to, made in ((grad, made_grad), (hess, made_hess)) if made is not None and made is not to
    ]
    for to, made in ready:
        if can_convert(to, made):
            convert(table.convert_to, dtype_code(to), made, to, dtype_code(made))
        else:
            to[...] = made
    return 0


# ---- other types ----
#
# NumPy converts 16-bit floats one by one, which takes ten times as long as a loss does.

cdef bint can_convert(cnp.ndarray to, cnp.ndarray made) noexcept:
    """Whether floats or doubles can be rounded into the place of a result."""
    return (
        cnp.PyArray_ISCARRAY(to) and cnp.PyArray_ISCARRAY_RO(made) and dtype_code(to) >= 0
        and (cnp.PyArray_TYPE(made) == cnp.NPY_FLOAT64 or cnp.PyArray_TYPE(made) == cnp.NPY_FLOAT32)
        and cnp.PyArray_TYPE(made) != cnp.PyArray_TYPE(to)
    )


cdef int convert(const xent_kernel *kernels, int dtype, cnp.ndarray x, cnp.ndarray out, int other) except -1:
    """Numbers of a type from `x` to `out`, of which the other has another type, floats or doubles."""
    cdef xent_map_args a
    cdef xent_plan plan
    a.size, a.x, a.out, a.single = cnp.PyArray_SIZE(x), data(x), data(out), other == XENT_F32
    plan = xent_plan_map(&a)
    return run(kernels[dtype], &a, &plan, a.size)


cdef cnp.ndarray converted(cnp.ndarray x, int type_number):
    """A copy as floats or doubles, in the same order in memory."""
    cdef cnp.ndarray copy
    if not cnp.PyArray_ISCARRAY_RO(x):
        return (<object>x).astype(cnp.PyArray_DescrFromType(type_number))
    copy = empty((<object>x).shape, cnp.PyArray_DescrFromType(type_number))
    convert(table.convert_from, dtype_code(x), x, copy, dtype_code_of(type_number))
    return copy
