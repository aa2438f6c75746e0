# softmax.pxi: softmax, log-softmax, log-sum-exp and their vector-Jacobian products.

cdef int map_positions(const xent_kernel *kernels, cnp.ndarray x, cnp.ndarray grad_in, cnp.ndarray out, int axis, int exps,
                       double temperature=1, bint logits_again=False) except -1:
    """Run a kernel of the family that writes to `out`, and looks at the logits again for that or not."""
    cdef xent_softmax_args a
    cdef xent_plan plan
    if cnp.PyArray_SIZE(x) == 0:
        return 0
    copies = walk_or_copy(&a.positions, x, grad_in, out, None, axis)
    a.positions.temperature, a.positions.transformed = temperature, temperature != 1
    a.positions.keeps_logits = logits_again and a.positions.inner > 1  # rows are in the cache still
    a.result = NULL
    plan = xent_plan_positions(&a.positions, dtype_code(x), exps)
    run(kernels[dtype_code(x)], &a, &plan, cnp.PyArray_SIZE(x))
    deliver(copies, out, None)
    return 0


cdef forward(const xent_kernel *kernels, x, axis, temperature, out, int exps, bint logits_again=False):
    cdef cnp.ndarray logits = floats(x, b"x"), result
    cdef int k = axis_of(axis, logits)
    cdef double t = positive(temperature, "temperature")
    result = empty_like(logits) if out is None else result_like(out, logits, "x", ())
    map_positions(kernels, logits, None, result, k, exps, t, logits_again)
    return result


def softmax(x, axis, temperature, out):
    return forward(table.softmax, x, axis, temperature, out, XENT_REUSED_EXPS)


def log_softmax(x, axis, temperature, out):
    return forward(table.log_softmax, x, axis, temperature, out, XENT_SUMMED_EXPS, logits_again=True)


cdef backward(const xent_kernel *kernels, grad, y, axis, out):
    cdef cnp.ndarray g = floats(grad, b"grad"), x = floats(y, b"y"), result
    cdef int k
    if cnp.PyArray_TYPE(g) != cnp.PyArray_TYPE(x):
        g, x = _check.common_floats((g, "grad"), (x, "y"))
    if not same_shape(g, x):
        _check.same_shape(g, (<object>x).shape, "grad", "y")
    k = axis_of(axis, x)
    result = empty_like(x) if out is None else result_like(out, x, "y", ((g, "grad"),), in_place=2)
    map_positions(kernels, x, g, result, k, XENT_SUMMED_EXPS)
    return result


def softmax_backward(grad, y, axis, out):
    return backward(table.softmax_backward, grad, y, axis, out)


def log_softmax_backward(grad, y, axis, out):
    return backward(table.log_softmax_backward, grad, y, axis, out)


def logsumexp(x, axis, keepdims, out):
    """Over one axis, a tuple of axes, or None: all."""
    cdef xent_softmax_args a
    cdef xent_plan plan
    cdef cnp.ndarray given = floats(x, b"x"), logits = given, result
    cdef int k
    if type(axis) is int:
        k = axis_of(axis, logits)
        axes = (k,)
    else:
        axes = _check.axes_of(axis, cnp.PyArray_NDIM(logits))
        logits, k = one_axis(logits, axes)
    if out is None and not keepdims:
        result = one_per_position(logits, k, real_type(dtype_code(logits)))
    else:
        shape = tuple(1 if j in axes else n for j, n in enumerate((<object>given).shape) if keepdims or j not in axes)
        result = empty(shape, F64 if dtype_code(logits) == XENT_F64 else F32)
        if out is not None:
            _check.output(out, shape, result.dtype, ((given, "x"),))
            if cnp.PyArray_ISCARRAY(<cnp.ndarray>out):
                result = out
    copies = walk_or_copy(&a.positions, logits, None, None, None, k)
    a.result = data(result)
    plan = xent_plan_positions(&a.positions, dtype_code(logits), XENT_SUMMED_EXPS)
    run(table.logsumexp[dtype_code(logits)], &a, &plan, cnp.PyArray_SIZE(logits))
    if out is None:
        return unpacked(result)
    if out is not result:
        out[...] = result
    return out


cdef tuple one_axis(cnp.ndarray x, tuple axes):
    """See the axes to sum over as one, with its number; a copy only where they do not lie side by side."""
    if len(axes) == 1:
        return x, axes[0]
    shape = (<object>x).shape
    kept = [k for k in range(len(shape)) if k not in axes]
    size = math.prod([shape[k] for k in axes])
    return x.transpose(kept + list(axes)).reshape([shape[k] for k in kept] + [size]), len(kept)


# ---- log-probabilities of some classes ----

def token_log_probs(logits, ids, axis, temperature, logit_cap, prior, bint ranks, bint entropy):
    """Return the log-probabilities, the ranks or None, and the entropies of the positions or None."""
    cdef xent_token_args a
    cdef xent_plan plan
    # a view, which no code of the caller's, run by what follows, can reshape
    cdef cnp.ndarray x = (<object>floats(logits, b"logits")).view()
    cdef cnp.ndarray log_probs, places = None, entropies = None, offset, chosen
    cdef int k = axis_of(axis, x), dtype = dtype_code(x)
    cdef double t = positive(temperature, "temperature"), cap = 0 if logit_cap is None else positive(logit_cap, "logit_cap")
    offset = log_prior(prior, cnp.PyArray_DIM(x, k), dtype)
    chosen = class_ids(ids, x, k)
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
