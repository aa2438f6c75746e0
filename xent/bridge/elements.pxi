# elements.pxi: functions and losses of elements, and losses of positions that are sums of losses of elements.

cdef map_elements(const xent_kernel *kernels, x, out):
    cdef cnp.ndarray values = floats(x, b"x")
    if out is not None and not is_valid_out(out, values):
        _check.output(out, (<object>values).shape, values.dtype, ((values, "x"),), 1)
    return run_map(kernels, None, values, out)


def sigmoid(x, out):
    return map_elements(table.sigmoid, x, out)


def log_sigmoid(x, out):
    return map_elements(table.log_sigmoid, x, out)


cdef map_pairs(const xent_kernel *kernels, grad, y, out):
    cdef cnp.ndarray g = floats(grad, b"grad"), x = floats(y, b"y")
    if cnp.PyArray_TYPE(g) != cnp.PyArray_TYPE(x):
        g, x = _check.common_floats((g, "grad"), (x, "y"))
    if not same_shape(g, x):
        _check.same_shape(g, (<object>x).shape, "grad", "y")
    if out is not None:
        result_like(out, x, "y", ((g, "grad"),), in_place=2)
    return run_map(kernels, g, x, out)


cdef run_map(const xent_kernel *kernels, cnp.ndarray first, cnp.ndarray second, out):
    """A function of an array, or of two (the first may be None), whose elements are walked in the order in memory of the
    second.
    """
    cdef xent_map_args a
    cdef xent_plan plan
    cdef cnp.ndarray x = second, g = first, place = out, result
    cdef tuple order = None
    if not cnp.PyArray_IS_C_CONTIGUOUS(x):
        order = order_in_memory(x)
        g, x, place = in_order(g, order), in_order(x, order), in_order(place, order)
    g, x = in_c_order(g), in_c_order(x)
    result = place if place is not None and cnp.PyArray_ISCARRAY(place) else empty_in_c_order(x)
    a.size = cnp.PyArray_SIZE(x)
    a.x, a.y, a.out = data(x if g is None else g), data(x), data(result)
    plan = xent_plan_map(&a)
    run(kernels[dtype_code(x)], &a, &plan, a.size)
    if out is None:
        result = in_order_again(result, order)
    elif place is not result:
        put(result, place)
    return returned(result, out)


cdef tuple order_in_memory(cnp.ndarray x):
    """The axes, those of the largest strides first; None where they lie as they come, or elements are repeated."""
    cdef int k, ndim = cnp.PyArray_NDIM(x)
    cdef bint sorted_already = True
    for k in range(1, ndim):
        sorted_already &= abs(cnp.PyArray_STRIDE(x, k - 1)) >= abs(cnp.PyArray_STRIDE(x, k))
    if sorted_already or repeats(x):
        return None
    strides = (<object>x).strides
    return tuple(sorted(range(ndim), key=lambda k: -abs(strides[k])))


cdef cnp.ndarray in_order(cnp.ndarray array, tuple order):
    """An array (or None) with its axes in an order (None: as they come)."""
    return array if array is None or order is None else (<object>array).transpose(order)


cdef cnp.ndarray in_order_again(cnp.ndarray array, order):
    """And back."""
    cdef list inverse
    if order is None:
        return array
    inverse = [0] * len(order)
    for k, axis in enumerate(order):
        inverse[axis] = k
    return (<object>array).transpose(inverse)


def sigmoid_backward(grad, y, out):
    return map_pairs(table.sigmoid_backward, grad, y, out)


def log_sigmoid_backward(grad, y, out):
    return map_pairs(table.log_sigmoid_backward, grad, y, out)


# ---- odd factors ----
#
# The kernels multiply ordinary factors as they come; odd ones they take with care, in numbers whose exponents do not end,
# which takes some eighty times as long. Factors that floats cannot hold make a call one of doubles.

cdef inline bint is_odd_scale(double scale, double factor, int dtype) noexcept:
    """Whether the factor of all gradients is one to be careful with."""
    cdef double most = XENT_PLAIN_SCALE_F64 if dtype == XENT_F64 else XENT_PLAIN_SCALE_F32
    return factor != 0 and not 1 / most <= abs(scale) <= most


cdef inline bint are_odd_weights(cnp.ndarray weight) noexcept:
    """Whether there are weights to be careful with."""
    cdef int dtype
    if weight is None:
        return False
    dtype = dtype_code(weight)
    return not xent_are_plain(
        data(weight), dtype, cnp.PyArray_SIZE(weight),
        XENT_PLAIN_WEIGHT_F64 if dtype == XENT_F64 else XENT_PLAIN_WEIGHT_F32,
    )


cdef bint fit_floats(cnp.ndarray numbers, given) except -1:
    """Whether contiguous floats are what was given but for a rounding: none became infinite or 0, or lost digits next to 0.
    """
    if not xent_are_plain(data(numbers), XENT_F32, cnp.PyArray_SIZE(numbers), 126):
        return False
    return np.count_nonzero(numbers) == np.count_nonzero(given)


cdef cnp.ndarray element_weights(value, str name, cnp.ndarray x, str of, bint *odd, bint signed=True):
    """Finite factors that broadcast to x, in C order, in the type of its losses, or doubles where that loses some; or None.
    Sets `odd` if there are some to be careful with.
    """
    cdef cnp.ndarray array, narrow
    cdef int dtype
    if value is None:
        return None
    if is_floats(value) and is_trailing_shape(<cnp.ndarray>value, x):
        array, dtype = <cnp.ndarray>value, dtype_code(<cnp.ndarray>value)
        if dtype == real_dtype_code(dtype_code(x)) and not are_odd_weights(array) and (signed or are_factors(array, False)):
            return array
    array = _check.factors(value, name, (<object>x).shape, of, signed)
    narrow = in_c_order(narrowed(array, dtype_code(x)))
    if dtype_code(x) != XENT_F64 and dtype_code(array) == XENT_F64 and not fit_floats(narrow, array):
        narrow = in_c_order(array)
    odd[0] |= are_odd_weights(narrow)
    return narrow


cdef bint take_wide_upstream(LossCall call, grad_output) except -1:
    """Whether floats cannot hold the upstream gradients, which are doubles then."""
    if call.upstream is None or call.dtype == XENT_F64 or grad_output is call.upstream:
        return False
    given = _check.as_array(grad_output, "grad_output")
    if given.dtype == call.upstream.dtype or fit_floats(call.upstream, given):
        return False
    call.upstream = in_c_order(given.astype(F64))
    return True


cdef inline bint is_wider(cnp.ndarray x, int dtype) noexcept:
    """Whether a call of floats is computed in doubles: for a factor that floats cannot hold, or a target that loses bits."""
    return dtype != XENT_F64 and dtype_code(x) == XENT_F64


cdef cnp.ndarray widened(cnp.ndarray array):
    """An array (or None) as doubles."""
    if array is None or cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT64:
        return array
    return converted(array, cnp.NPY_FLOAT64) if dtype_code(array) >= 0 else (<object>array).astype(F64)


# ---- losses of probabilities ----

cdef double unit_of(base) except? -1:
    """What divides a loss in nats."""
    return 1 if base is None else math.log(_check.base(base))


cdef double bound_of(clip, double high) except? -1:
    """What probabilities are bounded by; 0 for no bound."""
    return 0 if clip is None else _check.inside(clip, "clip", high)


def mse_loss(pred, target, out, grad_output, int wants, reduction):
    cdef LossCall call = LossCall.__new__(LossCall)
    if not (inert(target) and inert(grad_output) and inert(reduction)):
        pred, target, grad_output = private(pred), private(target), private(grad_output)
    call.open(pred, b"pred", wants)
    call.take_floats(target)
    call.take_reduction(reduction)
    return loss_of_elements(call, XENT_MSE, out, grad_output, 0, None)


def binary_cross_entropy(probs, target, out, grad_output, int wants, weight, clip, base, reduction):
    cdef LossCall call = LossCall.__new__(LossCall)
    cdef bint odd = False
    if not (inert(target) and inert(grad_output) and inert(weight) and inert(clip) and inert(base) and inert(reduction)):
        probs, target, grad_output, weight = private(probs), private(target), private(grad_output), private(weight)
    call.open(probs, b"probs", wants)
    call.take_floats(target)
    call.weight = element_weights(weight, "weight", call.x, "probs", &odd)
    call.take_reduction(reduction)
    return loss_of_elements(call, XENT_BINARY_CROSS_ENTROPY, out, grad_output, bound_of(clip, 0.5), base, odd)


def cross_entropy_probs(probs, target, out, grad_output, int wants, axis, clip, base, reduction):
    cdef LossCall call = LossCall.__new__(LossCall)
    cdef xent_label_losses_args a
    if not (inert(target) and inert(grad_output) and inert(axis) and inert(clip) and inert(base) and inert(reduction)):
        probs, target, grad_output = private(probs), private(target), private(grad_output)
    call.open(probs, b"probs", wants)
    call.take_axis(axis)
    call.take_target(target, None)
    call.take_reduction(reduction)
    if call.labels is None:
        return loss_of_classes(call, XENT_CROSS_ENTROPY, out, grad_output, bound_of(clip, 1.0), base)
    fill_loss(call, &a.loss, XENT_LABEL_CROSS_ENTROPY, out, grad_output, bound_of(clip, 1.0), base, XENT_F64)
    return call.finish(label_losses(call, &a) / a.loss.unit)


def kl_div(log_probs, target, out, grad_output, int wants, axis, log_target, base, reduction):
    cdef LossCall call = LossCall.__new__(LossCall)
    if not (
        inert(target) and inert(grad_output) and inert(axis)
        and inert(log_target) and inert(base) and inert(reduction)
    ):
        log_probs, target, grad_output = private(log_probs), private(target), private(grad_output)
    call.open(log_probs, b"log_probs", wants)
    if axis is not None:
        call.take_axis(axis)
    call.take_floats(target)
    kind = XENT_KL_DIV_LOG if _check.flag(log_target, "log_target") else XENT_KL_DIV
    call.take_reduction(reduction)
    if axis is None:
        return loss_of_elements(call, kind, out, grad_output, 0, base)
    return loss_of_classes(call, kind, out, grad_output, 0, base)


def entropy(probs, axis, base):
    cdef LossCall call = LossCall.__new__(LossCall)
    if not (inert(axis) and inert(base)):
        probs = private(probs)
    call.open(probs, b"probs", VALUE)
    call.take_axis(axis)
    call.take_reduction("none")
    return loss_of_classes(call, XENT_ENTROPY, None, None, 0, base)


cdef int fill_loss(
    LossCall call, xent_loss *loss, int kind, out, grad_output, double clip, base, int upstream_dtype, ignore_index=None
) except -1:
    """The last checks, and what the kernels of all these losses want to know."""
    loss.kind, loss.clip, loss.unit = kind, clip, unit_of(base)
    call.count(ignore_index, None)
    call.reduce(grad_output, upstream_dtype)
    call.make_results(out)
    loss.factor, loss.divisor = call.factor, call.divisor
    loss.gradient_scale = call.factor / (loss.unit * (call.divisor or 1))
    loss.careful = is_odd_scale(loss.gradient_scale, call.factor, call.dtype) or not 0.5 <= abs(loss.unit) <= 8
    return 0


cdef loss_of_classes(LossCall call, int kind, out, grad_output, double clip, base):
    """A sum over the classes: over all elements at once, if the positions are reduced."""
    cdef xent_position_losses_args a
    cdef xent_plan plan
    cdef cnp.ndarray x, grad
    cdef double total
    if call.reduction != "none":
        return loss_of_elements(call, kind, out, grad_output, clip, base)
    fill_loss(call, &a.loss, kind, out, grad_output, clip, base, XENT_F64)
    if cnp.PyArray_SIZE(call.x) == 0:
        if call.losses is not None:
            (<object>call.losses)[...] = 0
        return call.finish(0)
    x = call.working()
    grad = call.working_grad(x)
    if call.losses is not None and is_wider(x, call.dtype):
        call.losses = one_per_position(call.x, call.axis, cnp.NPY_FLOAT64)
    copies = walk_or_copy(&a.positions, x, call.target, grad, None, call.axis)
    a.positions.packs = True  # not a function of the data alone
    a.upstream, a.losses = <double *>data(call.upstream), data(call.losses)
    plan = xent_plan_positions(&a.positions, dtype_code(x), XENT_NO_EXPS)
    run_sums(table.position_losses[dtype_code(x)], &a.positions, &plan, cnp.PyArray_SIZE(x), 1, &total)
    deliver(copies, grad, None)
    call.narrow(grad)
    call.losses = narrowed(call.losses, call.dtype)
    return call.finish(0)


cdef loss_of_elements(LossCall call, int kind, out, grad_output, double clip, base, bint odd=False):
    """A loss of elements, or of classes whose positions are reduced; `odd`: of weights to be careful with."""
    cdef xent_element_losses_args a
    cdef xent_loss loss
    cdef cnp.ndarray x, grad
    cdef double total
    fill_loss(call, &loss, kind, out, grad_output, clip, base, real_dtype_code(call.dtype))
    if kind == XENT_BINARY_CROSS_ENTROPY and out is not None:
        check_probs(call)
    if cnp.PyArray_SIZE(call.x) == 0:
        return call.finish(0 / loss.unit)
    loss.careful |= odd
    x = call.working()
    wide = call.weight is not None and call.dtype != XENT_F64 and dtype_code(call.weight) == XENT_F64
    if take_wide_upstream(call, grad_output) or wide:
        loss.careful = True
        x = widened(call.x)
    if is_wider(x, call.dtype):
        call.target, call.weight, call.upstream = widened(call.target), widened(call.weight), widened(call.upstream)
        if call.losses is not None:
            call.losses = one_per_position(call.x, -1, cnp.NPY_FLOAT64)
    if call.weight is not None and not same_shape(call.weight, x):
        call.weight = np.broadcast_to(call.weight, (<object>x).shape)
    grad = call.working_grad(x)
    operands = walk_elements(call, &a, x, grad)
    a.loss = loss
    total = run_elements(call, &a, dtype_code(x), cnp.PyArray_SIZE(x))
    operands.deliver(call, grad)
    call.losses = narrowed(call.losses, call.dtype)
    call.narrow(grad)
    return call.finish(total)


cdef double run_elements(LossCall call, xent_element_losses_args *a, int dtype, Py_ssize_t size) except? -1:
    """Fill in the results; return the sum of the losses, in their unit; raise for a bad target."""
    cdef xent_plan plan = xent_plan_elements(a)
    cdef double few[STACK_PARTIALS]
    cdef double *partial = room_for(4 * plan.chunks, few)
    cdef int bad = 0
    a.bad, a.wide = &bad, <xent_wide_sum *>(partial + plan.chunks)  # of three numbers of the same size
    a.partial = NULL if call.wants == GRAD else partial
    try:
        run(table.element_losses[dtype], a, &plan, size)
        if bad:
            raise _check.bad_binary(_check.as_array(call.given, "target"), None)
        return 0 if call.wants == GRAD else total_of(call, partial, a.wide, plan.chunks, a.loss.unit)
    finally:
        if partial != few:
            PyMem_Free(partial)


cdef double total_of(
    LossCall call, double *partial, xent_wide_sum *wide, Py_ssize_t chunks, double unit
) except? -1:
    """The sum of the losses of chunks. Where odd elements have sums of their own, it is divided at once."""
    cdef Py_ssize_t k
    for k in range(chunks):
        if wide[k].sum != 0:
            total = xent_wide_mean(partial, wide, chunks, call.divisor or 1, unit)
            call.divisor = 1 if call.divisor else 0
            return total
    return xent_ordered_sum(partial, chunks, 1) / unit


cdef int check_probs(LossCall call) except -1:
    """Raise if a target is outside [0, 1], before anything is written."""
    cdef xent_probs_args a
    cdef xent_plan plan
    cdef cnp.ndarray target = in_c_order(call.target)
    cdef int bad = 0
    a.size, a.dtype, a.data, a.bad = cnp.PyArray_SIZE(target), dtype_code(target), data(target), &bad
    plan = xent_plan_probs(&a)
    run(xent_check_probs, &a, &plan, a.size)
    if bad:
        raise _check.bad_binary(_check.as_array(call.given, "target"), None)
    return 0


# Rows of fewer elements are copied to lie behind each other: they do not fill a group of vectors (`AHEAD` in points.h).
# Those of 7 take a tenth of the time for it, those of 100 two thirds.
cdef Py_ssize_t SHORT_ROW = 256


@cython.final
cdef class ElementOperands:
    """The arrays of a loss of elements, in the order of the data in memory, which the kernel likes best."""

    cdef list arrays  # x, target, weight, upstream, gradient, losses; None where there are none
    cdef tuple order  # of their axes; None: as they came
    cdef object grad  # where the gradient belongs, in this order

    cdef int deliver(self, LossCall call, cnp.ndarray grad) except -1:
        """Put results that were made elsewhere where they belong."""
        if self.arrays[4] is not self.grad:
            put(self.arrays[4], self.grad)
        if call.losses is not None:
            call.losses = in_order_again(self.arrays[5], self.order)
        return 0


cdef ElementOperands walk_elements(LossCall call, xent_element_losses_args *a, cnp.ndarray x, cnp.ndarray grad):
    """Find out how the arrays lie, or make copies that lie in C order."""
    cdef ElementOperands o = ElementOperands.__new__(ElementOperands)
    o.arrays = [x, call.target, call.weight, call.upstream, grad, call.losses]
    if not cnp.PyArray_IS_C_CONTIGUOUS(x):
        o.order = order_in_memory(x)
        o.arrays = [in_order(array, o.order) for array in o.arrays]
        if call.losses is not None:
            o.arrays[5] = empty_in_c_order(o.arrays[5])
    o.grad = o.arrays[4]
    if lie_well(a, o.arrays) and (a.length >= SHORT_ROW or a.rows == 1):
        return o
    o.arrays[:4] = [in_c_order(array) for array in o.arrays[:4]]
    if not lie_well(a, o.arrays):
        o.arrays[4] = empty_in_c_order(o.arrays[4])
        if not lie_well(a, o.arrays):
            raise RuntimeError("arrays in C order were refused: a bug in xent, please report it")
    return o


cdef bint lie_well(xent_element_losses_args *a, list arrays):
    cdef xent_array slot[XENT_LOSS_OPERANDS]
    cdef const xent_array *operand[XENT_LOSS_OPERANDS]
    cdef int k
    for k in range(XENT_LOSS_OPERANDS):
        operand[k] = seen(<cnp.ndarray>arrays[k], slot + k)
    return xent_walk_elements(a, operand)


# ---- distillation ----

# Beyond these temperatures floats, and squares of them, could overflow or vanish where a loss does not.
cdef double LOWEST_PLAIN = 2.0**-10, HIGHEST_PLAIN = 2.0**10
# And beyond these, squares of quotients, or of the temperature, where a loss does not.
cdef double LOWEST_IN_DOUBLES = 2.0**-200, HIGHEST_IN_DOUBLES = 2.0**200
cdef double LARGEST = np.finfo(np.float64).max


def distillation_loss(student_logits, teacher_logits, out, grad_output, int wants, axis, temperature, reduction):
    cdef xent_distillation_args a
    cdef xent_loss loss
    cdef LossCall call = LossCall.__new__(LossCall)
    cdef double t
    if not (inert(teacher_logits) and inert(grad_output) and inert(axis) and inert(temperature) and inert(reduction)):
        student_logits, teacher_logits, grad_output = private(student_logits), private(teacher_logits), private(grad_output)
    call.open(student_logits, b"student_logits", wants)
    call.take_axis(axis)
    call.take_floats(teacher_logits, b"teacher_logits")
    if call.classes == 0 and positions_of(call.x, call.axis):
        raise _check.no_class("student_logits", (<object>call.x).shape)
    t = positive(temperature, "temperature")
    call.take_reduction(reduction)
    fill_loss(call, &loss, XENT_KL_DIV, out, grad_output, 0, None, XENT_F64)
    if cnp.PyArray_SIZE(call.x) == 0:
        return call.finish(0)
    call.options.temperature, call.options.cap, call.options.z_loss = 1 / t, 0, 0  # of a gradient that is times t
    arithmetic = arithmetic_for(call, False)
    if arithmetic == EXACTLY or not LOWEST_IN_DOUBLES <= t <= HIGHEST_IN_DOUBLES:
        call.exact_divisor, positions = call.divisor, np.arange(positions_of(call.x, call.axis))
        call.exact_total = exact_divergences(call, t, positions, call.grad, call.losses)
        return call.finish(0)
    a.factor, a.gradient_scale = t * t, loss.gradient_scale * t
    return call.finish(run_distillation(call, &a, t, arithmetic == AS_DOUBLES))


cdef exact_divergences(LossCall call, double t, positions, grad, losses):
    """Fill in the results of some positions; return the sum of their losses."""
    return exact_arithmetic().distillation(
        call.x, call.target, call.axis, t, call.upstream, call.factor, call.exact_divisor, losses, grad, positions
    )


cdef double run_distillation(LossCall call, xent_distillation_args *a, double t, bint as_doubles) except? -1:
    """Fill in the results; return the sum of the losses."""
    cdef xent_plan plan
    cdef cnp.ndarray x, grad, teacher = call.target, losses = call.losses
    cdef double total
    x = call.working()
    grad = call.working_grad(x)
    a.temperature = t
    if dtype_code(x) != XENT_F64 and (as_doubles or not LOWEST_PLAIN <= t <= HIGHEST_PLAIN):
        x, teacher = widened(x), widened(teacher)
        grad = None if grad is None else x
    if losses is not None and is_wider(x, call.dtype):
        losses = one_per_position(call.x, call.axis, cnp.NPY_FLOAT64)
    copies = walk_or_copy(&a.positions, x, teacher, grad, None, call.axis)
    a.upstream, a.losses = <double *>data(call.upstream), data(losses)
    plan = xent_plan_distillation(a, dtype_code(x))
    left = run_leaving(table.distillation[dtype_code(x)], &a.positions, &plan, cnp.PyArray_SIZE(x), &total)
    if left is not None:
        call.exact_divisor = call.divisor
        made = grad if copies is None else copies[2]
        call.exact_total = exact_arithmetic().added(exact_divergences(call, t, left, made, losses), total)
    deliver(copies, grad, None)
    if losses is not call.losses:
        call.losses = narrowed(losses, call.dtype)
    call.narrow(grad)
    return total


cdef cnp.ndarray cooled(cnp.ndarray x, int axis, double temperature):
    """(x - max x) / temperature in float64, in which no temperature overflows."""
    with np.errstate(all="ignore"):
        scaled = (<object>x).astype(np.float64)
        most = scaled.max(axis=axis, keepdims=True)
        quotients = (scaled - np.where(np.isfinite(most), most, 0.0)) / temperature
        # what overflows is no infinite logit
        return np.where(np.isneginf(quotients) & np.isfinite(scaled), -LARGEST, quotients)
