# sigmoid.pxi: the cross-entropy of independent classes.

cdef int target_code_of(cnp.ndarray target) noexcept:
    """The code of integers by their size, or of floats; -1 where there is none."""
    cdef int kind = cnp.PyArray_TYPE(target)
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(target)
    if not cnp.PyTypeNum_ISINTEGER(kind) and not cnp.PyTypeNum_ISBOOL(kind):
        return dtype_code_of(kind)
    return XENT_I8 if size == 1 else XENT_I16 if size == 2 else XENT_I32 if size == 4 else XENT_I64


def sigmoid_cross_entropy(
    logits, target, out, grad_output, int wants, weight, pos_weight, label_smoothing, gamma, alpha, ignore_index, reduction,
):
    return sigmoid_loss(
        logits, target, out, grad_output, wants, XENT_NO_CURVATURE, weight, pos_weight, label_smoothing, gamma, alpha,
        ignore_index, reduction,
    )


def sigmoid_cross_entropy_grad_hess(
    logits, target, out, hessian, weight, pos_weight, label_smoothing, gamma, alpha, ignore_index, reduction,
):
    cdef int curvature = XENT_EXACT
    if not inert(hessian):
        logits, target, weight, pos_weight = map(private, (logits, target, weight, pos_weight))
    if not is_word(hessian, "diagonal"):
        curvature = {"diagonal": XENT_EXACT, "gauss_newton": XENT_GAUSS_NEWTON, "absolute": XENT_ABSOLUTE}[
            _check.binary_hessian(hessian)
        ]
    return sigmoid_loss(
        logits, target, out, None, GRAD_AND_HESS, curvature, weight, pos_weight, label_smoothing, gamma, alpha,
        ignore_index, reduction,
    )


cdef sigmoid_loss(
    logits, target, out, grad_output, int wants, int curvature, weight, pos_weight, label_smoothing, gamma, alpha,
    ignore_index, reduction,
):
    cdef xent_sigmoid_args a
    cdef LossCall call = LossCall.__new__(LossCall)
    cdef cnp.ndarray x, t, w, c, upstream, grad_place, hess_place, grad, hess
    cdef Py_ssize_t count
    cdef double total = 0
    cdef int dtype
    cdef bint transposed, checked, of_counted, odd = False
    # ---- check ----
    if not (
        inert(target) and inert(grad_output) and inert(weight) and inert(pos_weight) and inert(label_smoothing)
        and inert(gamma) and inert(alpha) and inert(ignore_index) and inert(reduction)
    ):
        logits, target, grad_output = private(logits), private(target), private(grad_output)
        weight, pos_weight = private(weight), private(pos_weight)
    call.open(logits, b"logits", wants)
    ignored = take_binary_target(call, target, ignore_index)
    call.weight = element_weights(weight, "weight", call.x, "logits", &odd)
    call.pos_weight = element_weights(pos_weight, "pos_weight", call.x, "logits", &odd, signed=False)
    memset(&a, 0, sizeof(a))
    a.base = real(label_smoothing, "label_smoothing", 0, 1)
    a.mix, a.base = 1 - a.base, a.base / 2
    a.gamma = min(real(gamma, "gamma", 0), 1e30)  # finite as a float; the powers are 0 or 1 from far below on
    a.alpha_1 = 1 if alpha is None else real(alpha, "alpha", 0, 1)
    a.alpha_0 = 1 if alpha is None else 1 - a.alpha_1
    call.take_reduction(reduction)
    call.count(None, None)
    call.reduce(grad_output, real_dtype_code(call.dtype))
    call.make_results(out)
    x, t, dtype = call.x, call.target, call.dtype
    a.careful = odd
    wide = dtype != XENT_F64 and needs_doubles(call, grad_output)
    if wide or (dtype != XENT_F64 and target_code_of(t) == XENT_F64 and float32_rounds(t)):
        x, dtype, a.careful = widened(x), XENT_F64, wide or odd
        if not cnp.PyTypeNum_ISINTEGER(cnp.PyArray_TYPE(t)) and not cnp.PyTypeNum_ISBOOL(cnp.PyArray_TYPE(t)):
            t = widened(t)
        call.weight, call.pos_weight = widened(call.weight), widened(call.pos_weight)
        call.upstream = widened(call.upstream)

    # ---- plan: the kernel walks contiguous arrays that all lie in the order of the logits ----
    transposed = cnp.PyArray_IS_F_CONTIGUOUS(call.x) and not cnp.PyArray_IS_C_CONTIGUOUS(call.x)
    x, t = arranged(x, transposed), arranged(t, transposed)
    w = fill_factor(&a.weight, call.weight, call.x, transposed)
    c = fill_factor(&a.pos_weight, call.pos_weight, call.x, transposed)
    if call.upstream is not None:
        upstream = arranged(call.upstream, transposed)
        a.upstream.data, a.upstream.repeat, a.upstream.count = data(upstream), 1, cnp.PyArray_SIZE(x)
    a.size, a.x, a.target, a.target_code = cnp.PyArray_SIZE(x), data(x), data(t), target_code_of(t)
    if ignored is not None:
        a.ignoring, a.ignore_index = True, ignored

    # ---- run ----
    # The targets are checked on the way, unless something that the caller can see is overwritten, or the gradient needs to
    # know how many count.
    count, of_counted = a.size, call.reduction == "mean" or call.reduction == "mean_valid"
    checked = wants != VALUE and (out is not None or (of_counted and ignored is not None))
    call.divisor = count if of_counted else call.divisor
    if checked:
        run_sigmoid(&a, call, dtype, of_counted)
    a.factor, a.divisor, a.gradient_scale = call.factor, call.divisor, call.factor / (call.divisor or 1)
    a.careful |= is_odd_scale(a.gradient_scale, a.factor, dtype)
    a.value, a.curvature = wants == VALUE or wants == VALUE_AND_GRAD, curvature
    if call.losses is not None and (transposed or dtype != call.dtype):
        call.losses = one_per_position(x, -1, real_type(dtype))
    a.losses = data(call.losses)
    grad_place, hess_place = turned(call.grad, transposed), turned(call.hess, transposed)
    grad, hess = writable_like(grad_place, x), writable_like(hess_place, x)
    a.out, a.hess = data(grad), data(hess)
    total = run_sigmoid(&a, call, dtype, of_counted)
    if call.losses is not None:
        call.losses = narrowed(turned(call.losses, transposed), call.dtype)
    if grad is not grad_place or hess is not hess_place:
        put_narrowed(grad_place, grad, hess_place, hess)
    return call.finish(total)


cdef bint float32_rounds(cnp.ndarray target) except -1:
    """Whether float32 would round some of float64 numbers from 0 to 1."""
    cdef xent_sigmoid_args a
    cdef xent_plan plan
    cdef double few[STACK_PARTIALS]
    cdef double *partial
    cdef Py_ssize_t k
    cdef bint found = False
    target = arranged(target, cnp.PyArray_IS_F_CONTIGUOUS(target) and not cnp.PyArray_IS_C_CONTIGUOUS(target))
    memset(&a, 0, sizeof(a))
    a.size, a.x, a.target, a.target_code = cnp.PyArray_SIZE(target), data(target), data(target), XENT_F64
    plan = xent_plan_sigmoid(&a, XENT_F32)
    partial = room_for(5 * plan.chunks, few)
    a.partial, a.counted = partial, <int64_t *>(partial + plan.chunks)
    a.wide = <xent_wide_sum *>(partial + 2 * plan.chunks)
    try:
        run(table.sigmoid_cross_entropy[XENT_F32], &a, &plan, a.size)
        for k in range(plan.chunks):
            found |= a.counted[k] == XENT_ROUNDED_TARGET
        return found
    finally:
        if partial != few:
            PyMem_Free(partial)


cdef bint needs_doubles(LossCall call, grad_output) except -1:
    """Whether floats cannot hold a factor."""
    for factors in (call.weight, call.pos_weight):
        if factors is not None and dtype_code(<cnp.ndarray>factors) == XENT_F64:
            take_wide_upstream(call, grad_output)
            return True
    return take_wide_upstream(call, grad_output)


cdef cnp.ndarray turned(cnp.ndarray array, bint transposed):
    """An array (or None), or its transpose."""
    return (<object>array).T if transposed and array is not None else array


cdef cnp.ndarray writable_like(cnp.ndarray place, cnp.ndarray x):
    """Where to make a result (or None) that belongs to `place`: there, if it lies as x does."""
    if place is None or (cnp.PyArray_ISCARRAY(place) and cnp.PyArray_TYPE(place) == cnp.PyArray_TYPE(x)):
        return place
    return empty_in_c_order(x)


cdef double run_sigmoid(xent_sigmoid_args *a, LossCall call, int dtype, bint of_counted) except? -1:
    """Return the sum of the losses; raise for a bad target. `of_counted`: it is divided by how many elements count."""
    cdef double few[STACK_PARTIALS]
    cdef Py_ssize_t k, count = 0
    cdef xent_plan plan = xent_plan_sigmoid(a, dtype)
    cdef double *partial = room_for(5 * plan.chunks, few)
    a.partial, a.counted = partial, <int64_t *>(partial + plan.chunks)  # numbers of the same size
    a.wide = <xent_wide_sum *>(partial + 2 * plan.chunks)
    try:
        run(table.sigmoid_cross_entropy[dtype], a, &plan, a.size)
        for k in range(plan.chunks):
            count = XENT_BAD_TARGET if count < 0 or a.counted[k] < 0 else count + a.counted[k]
        if count < 0:
            raise _check.bad_binary(call.target, a.ignore_index if a.ignoring else None)
        if of_counted:
            call.divisor = count
        return total_of(call, partial, a.wide, plan.chunks, 1)
    finally:
        if partial != few:
            PyMem_Free(partial)


cdef take_binary_target(LossCall call, target, ignore_index):
    """Take integers as they are, or floats that the kernel takes beside the data; return the label to ignore, or None."""
    cdef int kind
    if ignore_index is None and cnp.PyArray_CheckExact(target) and same_shape(<cnp.ndarray>target, call.x):
        kind = target_code_of(<cnp.ndarray>target)
        known = kind == call.dtype or kind in (XENT_F32, XENT_F64) or kind >= XENT_I8
        if known and cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>target):
            call.target = target
            return None
    call.target, ignore_index = _check.binary_target(target, (<object>call.x).shape, call.x.dtype, ignore_index)
    return ignore_index


cdef bint is_trailing_shape(cnp.ndarray array, cnp.ndarray x) noexcept:
    """Whether this has no gaps, and the last axes of x."""
    cdef int k, ndim = cnp.PyArray_NDIM(array), skipped = cnp.PyArray_NDIM(x) - ndim
    if skipped < 0 or not cnp.PyArray_ISCARRAY_RO(array):
        return False
    for k in range(ndim):
        if cnp.PyArray_DIM(array, k) != cnp.PyArray_DIM(x, k + skipped):
            return False
    return True


cdef cnp.ndarray fill_factor(xent_factor *f, cnp.ndarray factors, cnp.ndarray x, bint transposed):
    """Return the memory of factors such that that of element i is flat[i // repeat % count]; None for no factors."""
    f.data = NULL
    if factors is None:
        return None
    if not transposed and is_trailing_shape(factors, x):
        array, f.repeat, f.count = factors, 1, max(cnp.PyArray_SIZE(factors), 1)
    else:
        array, f.repeat, f.count = pattern(factors, (<object>x).shape, transposed)
    f.data = data(<cnp.ndarray>array)
    return array


cdef tuple pattern(cnp.ndarray factors, tuple shape, bint transposed):
    own = (1,) * (len(shape) - cnp.PyArray_NDIM(factors)) + (<object>factors).shape
    array = (<object>factors).reshape(own)
    if transposed:
        array, own, shape = array.T, tuple(reversed(own)), tuple(reversed(shape))
    varied = [k for k, n in enumerate(own) if n != 1]
    if not varied:
        return arranged(array, False), 1, 1
    first, last = varied[0], varied[len(varied) - 1]
    if own[first : last + 1] != shape[first : last + 1]:  # varies with some axes, but not with one between
        array, first, last = np.broadcast_to(array, shape), 0, len(shape) - 1
    return arranged(array, False), math.prod(shape[last + 1 :]), math.prod(shape[first : last + 1])


cdef cnp.ndarray arranged(cnp.ndarray array, bint transposed):
    """An array as a contiguous one in C order, or its transpose."""
    return in_c_order((<object>array).T if transposed else array)
