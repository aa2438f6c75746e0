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
    cdef xent_sigmoid_args a
    cdef LossCall call = LossCall.__new__(LossCall)
    cdef cnp.ndarray x, t, w, c, upstream, place, grad
    cdef Py_ssize_t count
    cdef double total = 0
    cdef bint transposed, checked, of_counted
    # ---- check ----
    if not (
        inert(target) and inert(grad_output) and inert(weight) and inert(pos_weight) and inert(label_smoothing)
        and inert(gamma) and inert(alpha) and inert(ignore_index) and inert(reduction)
    ):
        logits, target, grad_output = private(logits), private(target), private(grad_output)
        weight, pos_weight = private(weight), private(pos_weight)
    call.open(logits, b"logits", wants)
    ignored = take_binary_target(call, target, ignore_index)
    call.weight = element_factors(weight, "weight", call.x)
    call.pos_weight = element_factors(pos_weight, "pos_weight", call.x)
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

    # ---- plan: the kernel walks contiguous arrays that all lie in the order of the logits ----
    transposed = cnp.PyArray_IS_F_CONTIGUOUS(call.x) and not cnp.PyArray_IS_C_CONTIGUOUS(call.x)
    x, t = arranged(call.x, transposed), arranged(call.target, transposed)
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
    if checked:
        count = run_sigmoid(&a, call, &total)
    if of_counted:
        call.divisor = count
    a.gradient_scale = call.factor / (call.divisor or 1)
    a.value = wants != GRAD
    if call.losses is not None:
        call.losses = empty_in_c_order(call.losses.T) if transposed else call.losses
        a.losses = data(call.losses)
    place = call.grad.T if call.grad is not None and transposed else call.grad
    grad = place if place is None or cnp.PyArray_ISCARRAY(place) else empty_in_c_order(x)
    a.out = data(grad)
    count = run_sigmoid(&a, call, &total)
    if of_counted:
        call.divisor = count
    if grad is not place:
        (<object>place)[...] = grad
    if call.losses is not None and transposed:
        call.losses = call.losses.T
    result = call.finish(total)
    if wants == VALUE or out is not None or cnp.PyArray_NDIM(call.x):
        return result
    return unpacked(result) if wants == GRAD else (result[0], unpacked(result[1]))


cdef Py_ssize_t run_sigmoid(xent_sigmoid_args *a, LossCall call, double *total) except -1:
    """Return how many elements count, and the sum of their losses in `total`; raise for a bad target."""
    cdef double few[STACK_PARTIALS]
    cdef Py_ssize_t k, count = 0
    cdef xent_plan plan = xent_plan_sigmoid(a)
    cdef double *partial = room_for(2 * plan.chunks, few)
    a.partial, a.counted = partial, <int64_t *>(partial + plan.chunks)  # numbers of the same size
    try:
        run(table.sigmoid_cross_entropy[call.dtype], a, &plan, a.size)
        total[0] = xent_ordered_sum(partial, plan.chunks, 1)
        for k in range(plan.chunks):
            count = -1 if count < 0 or a.counted[k] < 0 else count + a.counted[k]
    finally:
        if partial != few:
            PyMem_Free(partial)
    if count < 0:
        raise _check.bad_binary(call.target, a.ignore_index if a.ignoring else None)
    return count


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


cdef cnp.ndarray element_factors(value, str name, cnp.ndarray x):
    """Factors that broadcast to x, in the type of its losses: finite and not negative; or None."""
    cdef cnp.ndarray array
    if value is None:
        return None
    if is_floats(value) and is_trailing_shape(<cnp.ndarray>value, x):
        array = <cnp.ndarray>value
        if dtype_code(array) == real_dtype_code(dtype_code(x)) and are_factors(array, False):
            return array
    return _check.factors(value, name, (<object>x).shape, x.dtype)


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
