# sparse_distillation.pxi: distillation from k probabilities of a teacher at each position.

def sparse_distillation_loss(
    student_logits, teacher_ids, teacher_log_probs, out, grad_output, int wants, temperature, tail, sample_weight, reduction,
):
    cdef xent_sparse_distillation_args a
    cdef LossCall call = LossCall.__new__(LossCall)
    cdef cnp.ndarray ids
    cdef double t
    if not (
        inert(teacher_ids) and inert(teacher_log_probs) and inert(grad_output) and inert(temperature) and inert(tail)
        and inert(sample_weight) and inert(reduction)
    ):
        student_logits, teacher_ids, teacher_log_probs = map(private, (student_logits, teacher_ids, teacher_log_probs))
        grad_output, sample_weight = private(grad_output), private(sample_weight)
    call.open(student_logits, b"student_logits", wants)
    if cnp.PyArray_NDIM(call.x) == 0:
        raise _check.no_class("student_logits", ())
    call.take_axis(-1)
    shape = shape_without(call.x, call.axis)
    if call.classes == 0 and positions_of(call.x, call.axis):
        raise _check.no_class("student_logits", (<object>call.x).shape)
    ids = _check.teacher_ids(teacher_ids, shape)
    call.given, call.target_name = teacher_log_probs, b"teacher_log_probs"
    call.target = _check.teacher_log_probs(teacher_log_probs, (<object>ids).shape)
    t = positive(temperature, "temperature")
    a.rule = _check.tail_rule(tail)
    if sample_weight is not None:
        call.sample_weight = _check.sample_weights(sample_weight, shape)
    call.take_reduction(reduction)
    check_teacher_ids(ids, call.classes)
    call.count(None, None)
    call.reduce(grad_output)
    call.make_results(out)
    if out is not None and not no_overlap(call.grad, ids):
        _check.output(out, (<object>call.x).shape, call.x.dtype, ((ids, "teacher_ids"),))
    if call.divisor == 0 or cnp.PyArray_SIZE(call.x) == 0:
        return call.finish(0)
    a.k = cnp.PyArray_DIM(ids, call.axis)
    a.ids, a.log_probs = <int64_t *>data(ids), data(call.target)
    a.single = dtype_code(call.target) == XENT_F32
    a.sample_weight, a.upstream = <double *>data(call.sample_weight), <double *>data(call.upstream)
    a.gradient_scale = call.factor / call.divisor / t
    a.losses.data, a.losses.single = data(call.losses), call.dtype != XENT_F64
    return call.finish(run_sparse_distillation(call, &a, t))


cdef double run_sparse_distillation(LossCall call, xent_sparse_distillation_args *a, double t) except? -1:
    """Fill in the results; return the sum of the losses."""
    cdef xent_positions *p = &a.positions
    cdef xent_plan plan
    cdef double total
    cdef cnp.ndarray x = call.x, grad = call.grad
    copies = walk_or_copy(p, x, None, grad, None, call.axis)
    if p.inner > 1:  # the kernel takes rows
        copies = in_c_order(x), None, empty_in_c_order(grad), None
        walk(p, <cnp.ndarray>copies[0], None, <cnp.ndarray>copies[2], None, call.axis)
    p.temperature, p.transformed = t, t != 1
    plan = xent_plan_sparse_distillation(a, call.dtype)
    run_sums(table.sparse_distillation[call.dtype], p, &plan, cnp.PyArray_SIZE(x), 1, &total)
    deliver(copies, grad, None)
    return total


cdef int check_teacher_ids(cnp.ndarray ids, Py_ssize_t classes) except -1:
    """Raise for the first id that is no class, or was there before at its position."""
    cdef Py_ssize_t bad, n = cnp.PyArray_SIZE(ids), k = cnp.PyArray_DIM(ids, cnp.PyArray_NDIM(ids) - 1)
    cdef int repeated
    cdef int64_t *numbers = <int64_t *>data(ids)
    cdef void *seen
    if n == 0:
        return 0
    seen = PyMem_Calloc(<size_t>(classes // 8 + 1), 1)
    if seen == NULL:
        raise MemoryError(f"no memory for {classes} bits")
    with nogil:
        bad = xent_scan_classes(numbers, n // k, k, classes, <uint8_t *>seen, &repeated)
    PyMem_Free(seen)
    if bad >= 0:
        raise _check.bad_teacher_id(ids, bad, classes, repeated)
    return 0
