# softmax.pxi: softmax, log-softmax, log-sum-exp and their vector-Jacobian products.

cdef int map_positions(const xent_kernel *kernels, cnp.ndarray x, cnp.ndarray grad_in, cnp.ndarray out, int axis, int exps,
                       double temperature=1, bint logits_again=False) except -1:
    """Run a kernel of the family that writes to `out`, and looks at the logits again for that or not."""
    cdef xent_softmax_args a
    cdef xent_plan plan
    if cnp.PyArray_SIZE(x) == 0:
        return 0
    if cnp.PyArray_NDIM(x) > 2 and not cnp.PyArray_IS_C_CONTIGUOUS(x):
        x, grad_in, out, axis = with_axes_by_stride(x, grad_in, out, axis)
    copies = walk_or_copy(&a.positions, x, grad_in, out, None, axis, grad_in is None)
    a.positions.temperature = temperature
    a.positions.transformed |= temperature != 1
    a.positions.keeps_logits = logits_again and a.positions.inner > 1  # rows are in the cache still
    a.result = NULL
    plan = xent_plan_positions(&a.positions, dtype_code(x), exps)
    run(kernels[dtype_code(x)], &a, &plan, cnp.PyArray_SIZE(x))
    deliver(copies, out, None)
    return 0


cdef tuple with_axes_by_stride(cnp.ndarray x, cnp.ndarray grad_in, cnp.ndarray out, int axis):
    """The same arrays with axes in the order in which they lie in memory, as it does not matter which position comes first:
    more of them are evenly spaced then, and count as one.
    """
    cdef int k, ndim = cnp.PyArray_NDIM(x)
    cdef const Py_ssize_t *strides = <const Py_ssize_t *>cnp.PyArray_STRIDES(x)
    cdef bint ordered = True
    for k in range(1, ndim):
        ordered = ordered and (strides[k - 1] if strides[k - 1] >= 0 else -strides[k - 1]) >= (
            strides[k] if strides[k] >= 0 else -strides[k])
    if ordered:
        return x, grad_in, out, axis
    order = in_order_of_memory(x, tuple(range(ndim)))
    if grad_in is not None:
        grad_in = (<object>grad_in).transpose(order)
    return (<object>x).transpose(order), grad_in, (<object>out).transpose(order), order.index(axis)


cdef forward(const xent_kernel *kernels, x, axis, temperature, out, int exps, bint logits_again=False):
    cdef cnp.ndarray logits = floats(x if inert(axis) and inert(temperature) else private(x), b"x"), result
    cdef int k = 0
    cdef double t
    if are_axes(axis):
        axis = _check.axes_of(axis, cnp.PyArray_NDIM(logits))
    else:
        k = axis_of(axis, logits)
    t = positive(temperature, "temperature")
    if type(axis) is tuple:
        if out is not None:
            out = result_like(out, logits, "x", ())
        return returned(map_axes(kernels, logits, None, out, axis, exps, t, logits_again), out)
    result = empty_like(logits) if out is None else result_like(out, logits, "x", ())
    map_positions(kernels, logits, None, result, k, exps, t, logits_again)
    return result


cdef inline bint are_axes(axis) noexcept:
    """Whether this names axes, not one axis."""
    return axis is None or isinstance(axis, tuple)


cdef map_axes(const xent_kernel *kernels, cnp.ndarray x, cnp.ndarray grad_in, out, tuple axes, int exps,
              double temperature=1, bint logits_again=False):
    """The same over several axes, which the kernels see as one. `out` may be None. Where x cannot be seen so, a copy can;
    then the result is a view of that, with its axes in the order of x.
    """
    cdef tuple order = in_order_of_memory(x, axes)
    cdef cnp.ndarray logits = one_axis(x, order), result = out, place
    cdef bint copied = cnp.PyArray_DATA(logits) != cnp.PyArray_DATA(x)
    if out is None and not copied:
        result = empty_like(x)
    place = logits if result is None else one_axis(result, order)
    if result is not None and cnp.PyArray_DATA(place) != cnp.PyArray_DATA(result):
        place = logits if copied else empty_like(logits)
        result = None
    if grad_in is not None:
        grad_in = one_axis(grad_in, order)
    map_positions(kernels, logits, grad_in, place, cnp.PyArray_NDIM(logits) - 1, exps, temperature, logits_again)
    if result is not None:
        return result
    result = all_axes(place, (<object>x).shape, order)
    if out is None:
        return result
    put(result, out)
    return out


def softmax(x, axis, temperature, out):
    return forward(table.softmax, x, axis, temperature, out, XENT_REUSED_EXPS)


def log_softmax(x, axis, temperature, out):
    return forward(table.log_softmax, x, axis, temperature, out, XENT_SUMMED_EXPS, logits_again=True)


cdef backward(const xent_kernel *kernels, grad, y, axis, out):
    cdef cnp.ndarray g, x, result
    cdef int k
    if not (inert(y) and inert(axis)):
        grad, y = private(grad), private(y)
    g, x = floats(grad, b"grad"), floats(y, b"y")
    if cnp.PyArray_TYPE(g) != cnp.PyArray_TYPE(x):
        g, x = _check.common_floats((g, "grad"), (x, "y"))
    if not same_shape(g, x):
        _check.same_shape(g, (<object>x).shape, "grad", "y")
    if are_axes(axis):
        axis = _check.axes_of(axis, cnp.PyArray_NDIM(x))
        if out is not None:
            out = result_like(out, x, "y", ((g, "grad"),), in_place=2)
        return returned(map_axes(kernels, x, g, out, axis, XENT_ROW_SUMS), out)
    k = axis_of(axis, x)
    result = empty_like(x) if out is None else result_like(out, x, "y", ((g, "grad"),), in_place=2)
    map_positions(kernels, x, g, result, k, XENT_ROW_SUMS)
    return result


def softmax_backward(grad, y, axis, out):
    return backward(table.softmax_backward, grad, y, axis, out)


def log_softmax_backward(grad, y, axis, out):
    return backward(table.log_softmax_backward, grad, y, axis, out)


cdef bint takes_log_sums(value, cnp.ndarray x, int axis) noexcept:
    """Whether this can take a number of each position, at a quick look."""
    cdef cnp.ndarray out
    if not cnp.PyArray_CheckExact(value):
        return False
    out = <cnp.ndarray>value
    if cnp.PyArray_TYPE(out) != real_type(dtype_code(x)) or not cnp.PyArray_ISCARRAY(out):
        return False
    return is_shape_of_positions(out, x, axis) and no_overlap(out, x)


def logsumexp(x, axis, keepdims, out):
    """Over one axis, a tuple of axes, or None: all."""
    cdef xent_softmax_args a
    cdef xent_plan plan
    cdef cnp.ndarray given = floats(x if inert(axis) else private(x), b"x"), logits = given, result
    cdef int k
    if type(axis) is int:
        k = axis_of(axis, logits)
        axes = (k,)
    else:
        axes = _check.axes_of(axis, cnp.PyArray_NDIM(logits))
        k = axes[0] if len(axes) == 1 else cnp.PyArray_NDIM(logits) - len(axes)
        logits = given if len(axes) == 1 else one_axis(given, in_order_of_memory(given, axes))
    if out is None and not keepdims:
        result = one_per_position(logits, k, real_type(dtype_code(logits)))
    elif not keepdims and takes_log_sums(out, logits, k):
        result = out
    else:
        shape = tuple(1 if j in axes else n for j, n in enumerate((<object>given).shape) if keepdims or j not in axes)
        result = empty(shape, F64 if dtype_code(logits) == XENT_F64 else F32)
        if out is not None:
            _check.output(out, shape, result.dtype, ((given, "x"),))
            if cnp.PyArray_ISCARRAY(<cnp.ndarray>out):
                result = out
    copies = walk_or_copy(&a.positions, logits, None, None, None, k, True)
    a.result = data(result)
    plan = xent_plan_positions(&a.positions, dtype_code(logits), XENT_SUMMED_EXPS)
    run(table.logsumexp[dtype_code(logits)], &a, &plan, cnp.PyArray_SIZE(logits))
    if out is not None and out is not result:
        out[...] = result
    return returned(result, out)


def weighted_logsumexp(cnp.ndarray x, cnp.ndarray b, tuple axes, bint with_sign):
    """Return the log-sum-exps over some axes with factors b, of the shape and type of x, and the signs of the sums or None;
    and the numbers of the positions that are left, in the order of the other axes, or None.
    """
    cdef xent_softmax_args a
    cdef xent_plan plan
    cdef double total
    cdef int k = cnp.PyArray_NDIM(x) - len(axes), dtype
    x, b = floats(x, b"x"), floats(b, b"b")  # which makes bfloat16 known
    dtype = dtype_code(x)
    order = in_order_of_memory(x, axes)
    x, b = one_axis(x, order), one_axis(b, order)
    cdef cnp.ndarray result = one_per_position(x, k, real_type(dtype)), sign = None
    if with_sign:
        sign = one_per_position(x, k, real_type(dtype))
    if positions_of(x, k) == 0:
        return result, sign, None
    if cnp.PyArray_SIZE(x) == 0:
        return result, sign, np.arange(positions_of(x, k))
    copies = walk_or_copy(&a.positions, x, b, None, None, k)
    a.result, a.sign, a.positions.transformed = data(result), data(sign), XENT_DISTANCES
    plan = xent_plan_positions(&a.positions, dtype, XENT_SUMMED_EXPS)
    left = run_leaving(table.weighted_logsumexp[dtype], &a.positions, &plan, cnp.PyArray_SIZE(x), &total)
    return result, sign, left


def logsumexp_backward(grad, x, y, axis, out):
    """`grad` and `y` have one number per position."""
    cdef xent_softmax_args a
    cdef xent_plan plan
    cdef cnp.ndarray logits, result, place, log_sums, upstream
    cdef tuple order, shape
    if not (inert(grad) and inert(x) and inert(y) and inert(axis)):
        grad, x, y = private(grad), private(x), private(y)
    logits = floats(x, b"x")
    order = in_order_of_memory(logits, _check.axes_of(axis, cnp.PyArray_NDIM(logits)))
    shape = (<object>logits).shape
    upstream, log_sums = _check.per_position(grad, "grad", shape, order), _check.per_position(y, "y", shape, order)
    result = empty_like(logits) if out is None else result_like(out, logits, "x", ((upstream, "grad"), (log_sums, "y")))
    if cnp.PyArray_SIZE(logits) == 0:
        return result  # not 0-d
    upstream, log_sums = as_doubles(upstream), as_doubles(log_sums)
    x, place = one_axis(logits, order), one_axis(result, order)
    axis = cnp.PyArray_NDIM(<cnp.ndarray>x) - 1
    copies = walk_or_copy(&a.positions, x, None, place, None, axis)
    a.result, a.log_sums, a.upstream = NULL, <double *>data(log_sums), <double *>data(upstream)
    plan = xent_plan_positions(&a.positions, dtype_code(logits), XENT_REUSED_EXPS)
    run(table.logsumexp_backward[dtype_code(logits)], &a, &plan, cnp.PyArray_SIZE(logits))
    deliver(copies, place, None)
    if cnp.PyArray_DATA(place) != cnp.PyArray_DATA(result):
        put(all_axes(place, shape, order), result)
    return returned(result, out)


cdef cnp.ndarray as_doubles(cnp.ndarray array):
    """The same in C order, of doubles."""
    return cnp.PyArray_FROMANY(array, cnp.NPY_FLOAT64, 0, 0, cnp.NPY_ARRAY_CARRAY_RO)


cdef tuple in_order_of_memory(cnp.ndarray x, tuple axes):
    """Axes in an order in which they can be seen as one, if there is one."""
    strides = (<object>x).strides
    return tuple(sorted(axes, key=lambda k: -abs(strides[k])))


cdef cnp.ndarray one_axis(cnp.ndarray x, tuple axes):
    """See axes as one, the last; a copy only where they do not lie side by side. Of no axes it has the length 1."""
    shape = (<object>x).shape
    kept = [k for k in range(len(shape)) if k not in axes]
    size = math.prod([shape[k] for k in axes])
    return (<object>x).transpose(kept + list(axes)).reshape([shape[k] for k in kept] + [size])


cdef cnp.ndarray all_axes(cnp.ndarray x, tuple shape, tuple axes):
    """See the last axis as the axes of a shape again."""
    kept = [k for k in range(len(shape)) if k not in axes]
    order = kept + list(axes)
    return in_order_again((<object>x).reshape([shape[k] for k in order]), order)


# ---- log-probabilities of some classes ----

def token_log_probs(logits, ids, axis, temperature, logit_cap, prior, bint ranks, bint entropy):
    """Return the log-probabilities, the ranks or None, and the entropies of the positions or None."""
    cdef xent_token_args a
    cdef xent_plan plan
    cdef cnp.ndarray x, log_probs, places = None, entropies = None, offset, chosen
    cdef int k, dtype
    cdef double t, cap
    if not (inert(ids) and inert(axis) and inert(temperature) and inert(logit_cap) and inert(prior)):
        logits, ids, prior = private(logits), private(ids), private(prior)
    x = floats(logits, b"logits")
    k, dtype = axis_of(axis, x), dtype_code(x)
    t, cap = positive(temperature, "temperature"), 0 if logit_cap is None else positive(logit_cap, "logit_cap")
    offset = log_prior(class_numbers(prior, cnp.PyArray_DIM(x, k), "prior", True), dtype)
    chosen = class_ids(ids, x, k)
    if cap != 0 and leaves_range(t, cap, dtype):
        return capped_token_log_probs(x, chosen, k, t, cap, prior, ranks, entropy)
    shape, real = (<object>chosen).shape, F64 if dtype == XENT_F64 else F32
    log_probs = empty(shape, real)
    if ranks:
        places = empty(shape, INT64)
    if entropy:
        entropies = one_per_position(x, k, real_type(dtype))
    if cnp.PyArray_SIZE(x):
        a.per_position = cnp.PyArray_DIM(chosen, k) if cnp.PyArray_NDIM(chosen) == cnp.PyArray_NDIM(x) else 1
        a.inner = math.prod((<object>x).shape[k + 1 :])
        a.ids, a.log_probs = <int64_t *>data(chosen), data(log_probs)
        a.rank, a.entropy = <int64_t *>data(places), data(entropies)
        copies = walk_or_copy(&a.positions, x, None, None, None, k)
        a.positions.temperature, a.positions.cap, a.positions.offset = t, cap, data(offset)
        a.positions.transformed = t != 1 or cap != 0 or offset is not None
        plan = xent_plan_positions(&a.positions, dtype, XENT_REUSED_EXPS if entropy else XENT_SUMMED_EXPS)
        run(table.token_log_probs[dtype], &a, &plan, cnp.PyArray_SIZE(x))
    return unpacked(log_probs), unpacked(places) if ranks else None, unpacked(entropies) if entropy else None


cdef tuple capped_token_log_probs(
    cnp.ndarray x, cnp.ndarray chosen, int axis, double t, double cap, prior, bint ranks, bint entropy,
):
    """The same with logits that are capped by NumPy, in float64, and rounded at the end."""
    cdef cnp.ndarray at
    with np.errstate(all="ignore"):
        given = exact_arithmetic().capped(x, t, cap)
    made = token_log_probs(given, chosen, axis, 1.0, None, prior, ranks, entropy)
    log_probs, places, entropies = [None if v is None else np.asarray(v) for v in made]
    if ranks and prior is None:  # the cap keeps the order, but makes equal what lies beyond it
        at = chosen if chosen.ndim == x.ndim else np.expand_dims(chosen, axis)
        logits = (<object>x).astype(F64)
        larger = [
            (logits > np.take_along_axis(logits, np.take(at, [n], axis), axis)).sum(axis=axis, keepdims=True)
            for n in range(at.shape[axis])
        ]
        places = np.concatenate(larger, axis=axis).reshape((<object>chosen).shape)
        places = np.where(np.isnan(log_probs), x.shape[axis], places)
    return (
        unpacked(narrowed(log_probs, dtype_code(x))), unpacked(places) if ranks else None,
        unpacked(narrowed(entropies, dtype_code(x))) if entropy else None,
    )


cdef cnp.ndarray class_ids(ids, cnp.ndarray x, int axis):
    """Numbers of classes, one or several for each position, as int64 in C order."""
    cdef xent_labels found
    cdef Py_ssize_t counted = 0, bad, n, classes = cnp.PyArray_DIM(x, axis)
    cdef cnp.ndarray array
    if cnp.PyArray_CheckExact(ids) and cnp.PyArray_TYPE(<cnp.ndarray>ids) == cnp.NPY_INT64:
        array = <cnp.ndarray>ids
        if cnp.PyArray_ISCARRAY_RO(array) and is_shape_of_ids(array, x, axis):
            n = cnp.PyArray_SIZE(array)
            found.data, found.ignore_index = <int64_t *>data(array), -1
            with nogil:
                bad = xent_scan_labels(found, n, classes, &counted)
            if bad < 0 and counted == n:
                return array
    return _check.class_ids(ids, (<object>x).shape, axis)


cdef bint is_shape_of_ids(cnp.ndarray ids, cnp.ndarray x, int axis) noexcept:
    """Whether this has the shape of the positions, or that of x but for the length of the class axis."""
    cdef int k
    if cnp.PyArray_NDIM(ids) != cnp.PyArray_NDIM(x):
        return is_shape_of_positions(ids, x, axis)
    for k in range(cnp.PyArray_NDIM(x)):
        if k != axis and cnp.PyArray_DIM(ids, k) != cnp.PyArray_DIM(x, k):
            return False
    return True
