# loss.pxi: the softmax loss, its second derivatives and its evaluation; the losses of labels, which look at one class.

def cross_entropy(
    logits, target, out, grad_output, int wants, axis, weight, sample_weight, ignore_index, label_smoothing, z_loss, gamma,
    temperature, logit_cap, prior, reduction,
):
    return softmax_loss(
        logits, target, out, grad_output, wants, None, axis, weight, sample_weight, ignore_index, label_smoothing, z_loss,
        gamma, temperature, logit_cap, prior, reduction,
    )


def cross_entropy_grad_hess(
    logits, target, out, hessian, axis, weight, sample_weight, ignore_index, label_smoothing, temperature, prior, reduction,
):
    if not is_word(hessian, "diagonal"):
        _check.hessian_name(hessian)
    return softmax_loss(
        logits, target, out, None, GRAD_AND_HESS, hessian, axis, weight, sample_weight, ignore_index,
        label_smoothing, 0.0, 0.0, temperature, None, prior, reduction,
    )


cdef softmax_loss(
    logits, target, out, grad_output, int wants, hessian, axis, weight, sample_weight, ignore_index,
    label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction,
):
    cdef xent_cross_entropy_args a
    cdef LossCall call = LossCall.__new__(LossCall)
    cdef softmax_options *given = &call.options
    cdef int arithmetic
    call.open(logits, b"logits", wants)
    call.take_axis(axis)
    ignore_index = label_value(ignore_index, "ignore_index")
    given.smoothing = real(label_smoothing, "label_smoothing", 0, 1)
    given.z_loss, given.gamma = real(z_loss, "z_loss", 0), real(gamma, "gamma", 0)
    given.temperature = positive(temperature, "temperature")
    given.cap = 0 if logit_cap is None else positive(logit_cap, "logit_cap")
    call.weight = class_numbers(weight, call.classes, "weight")
    call.sample_weight = position_numbers(sample_weight, call.x, call.axis, "sample_weight")
    call.prior = class_numbers(prior, call.classes, "prior", True)
    call.take_target(target, ignore_index)
    if given.gamma != 0 and (call.labels is None or given.smoothing != 0):
        raise _check.gamma_without_labels(call.labels is None)
    call.hessian = hessian
    given.curvature = 0 if wants != GRAD_AND_HESS else curvature_of(hessian, call.classes)
    call.take_reduction(reduction)
    call.count(ignore_index, None)
    call.reduce(grad_output)
    call.make_results(out)
    arithmetic = arithmetic_of(call)
    if arithmetic == EXACTLY or (call.divisor == 0 and weighs_something(call)):
        return run_exactly(call)
    if call.divisor == 0:
        return call.finish(0)
    if arithmetic == AS_DOUBLES:
        return run_as_doubles(call, grad_output, ignore_index)
    return call.finish(run_softmax_loss(call, &a))


cdef double run_softmax_loss(LossCall call, xent_cross_entropy_args *a) except? -1:
    """Fill in the results; return the sum of the losses."""
    cdef xent_positions *p = &a.positions
    cdef xent_plan plan
    cdef double total, smoothing = call.options.smoothing, t = call.options.temperature
    cdef cnp.ndarray x, grad, hess = call.hess, dense_weight = None, offset = log_prior(call.prior, call.dtype)
    x = call.working()
    grad = call.working_grad(x)
    if hess is not None and x is not call.x:
        hess = empty_like(x)
    a.z_loss, a.gamma = call.options.z_loss, call.options.gamma
    a.upstream, a.gradient_scale = <double *>data(call.upstream), call.factor / call.divisor / t
    a.curvature = call.options.curvature / t
    # The target of a position is u_c = w_c (mix t_c + base) for all classes, and peak * w_y at the label.
    a.dense.mix = 0 if call.target is None else 1 - smoothing
    a.peak = 1 - smoothing if call.target is None else 0
    a.dense.base = smoothing / call.classes if call.classes else 0
    if call.weight is not None and (a.dense.mix != 0 or a.dense.base != 0):
        dense_weight = narrowed(call.weight, call.dtype)
    a.labels, a.dense.weight, a.label_weight = call.found, data(dense_weight), <double *>data(call.weight)
    a.sample_weight = <double *>data(call.sample_weight)
    a.losses.data, a.losses.single = data(call.losses), call.dtype != XENT_F64
    copies = walk_or_copy(p, x, call.target, grad, hess, call.axis)
    p.packs |= a.dense.mix != 0 or a.dense.base != 0
    p.temperature, p.cap, p.offset = t, call.options.cap, data(offset)
    p.transformed = t != 1 or call.options.cap != 0 or offset is not None
    plan = xent_plan_positions(p, dtype_code(x), XENT_SUMMED_EXPS if grad is None else XENT_REUSED_EXPS)
    left = run_leaving(table.cross_entropy[dtype_code(x)], p, &plan, cnp.PyArray_SIZE(x), &total)
    if left is not None:
        call.exact_divisor = call.divisor
        made = (grad, hess) if copies is None else copies[2:]
        call.exact_total = exact_arithmetic().added(exact_losses(call, left, made[0], made[1]), total)
    deliver(copies, grad, hess)
    call.narrow(grad)
    if hess is not call.hess:
        put_narrowed(call.hess, hess)
    return total


# ---- what the kernels cannot do: see reach.pxi ----

cdef exact_arithmetic():
    """`_exact`, which few programs ever load."""
    from . import _exact
    return _exact


cdef options_of(LossCall call):
    """The options, checked, as `_options` has them."""
    from ._options import Options
    return Options(
        call.axis, call.weight, call.sample_weight, call.found.ignore_index, call.options.smoothing, call.options.z_loss,
        call.options.gamma, call.options.temperature, call.options.cap or None, call.prior, call.reduction,
    )


cdef exact_losses(LossCall call, positions, grad, hess):
    """Fill in the results of some positions; return the sum of their losses."""
    return exact_arithmetic().softmax_losses(
        call.x, call.labels, call.target, options_of(call), call.found.ignore_index, call.upstream, call.factor,
        call.exact_divisor, call.losses, grad, hess, call.options.curvature, positions,
    )


cdef bint weighs_something(LossCall call) except -1:
    """Whether weights whose sum is 0 are not all 0: they cancel, or their sum underflows."""
    if call.reduction != "mean" or not call.counted or (call.weight is None and call.sample_weight is None):
        return False
    return exact_divisor(call)[1]


cdef tuple exact_divisor(LossCall call):
    """The divisor as a number of `_exact`, and whether a weight is not 0."""
    if call.reduction != "mean" or (call.sample_weight is None and (call.labels is None or call.weight is None)):
        return exact_arithmetic().Scaled(call.divisor), True
    return exact_arithmetic().weights_of(options_of(call), call.labels)


cdef run_exactly(LossCall call):
    """All positions of a call, one number after the other."""
    call.exact_divisor, some = exact_divisor(call)
    if not some:
        call.divisor = 0
        return call.finish(0)
    call.exact_total = exact_losses(call, np.arange(positions_of(call.x, call.axis)), call.grad, call.hess)
    return call.finish(0)


cdef run_as_doubles(LossCall call, grad_output, ignore_index):
    """A call with floats of which all is made of doubles, and rounded at the end."""
    cdef softmax_options *given = &call.options
    x = (<object>call.x).astype(F64)
    target = call.labels if call.target is None else (<object>call.target).astype(F64)
    grad = None if call.grad is None else np.empty_like(x)
    hess = None if call.hess is None else np.empty_like(x)
    made = softmax_loss(
        x, target, grad if hess is None else (grad, hess), grad_output, call.wants, call.hessian, call.axis, call.weight,
        call.sample_weight, ignore_index, given.smoothing, given.z_loss, given.gamma, given.temperature, given.cap or None,
        call.prior, call.reduction,
    )
    for result, to in ((grad, call.grad), (hess, call.hess)):
        if result is not None:
            put_narrowed(to, result)
    if call.wants == GRAD:
        return call.grad
    if call.wants == GRAD_AND_HESS:
        return call.grad, call.hess
    if call.wants == TOTAL:
        return made
    loss = made if call.wants == VALUE else made[0]
    loss = unpacked(narrowed(np.asarray(loss), call.dtype))
    return loss if call.wants == VALUE else (loss, call.grad)


def cross_entropy_scratch(Py_ssize_t classes, dtype, bint dense, bint transformed, bint want_grad):
    """Return the bytes that each thread of a call needs, for logits whose classes lie side by side."""
    cdef xent_positions p
    cdef xent_plan plan
    cdef char some
    cdef int exps = XENT_REUSED_EXPS if want_grad else XENT_SUMMED_EXPS
    memset(&p, 0, sizeof(p))
    p.count, p.inner, p.classes, p.transformed = PY_SSIZE_T_MAX // 2, 1, classes, transformed
    if dense:
        p.target.data = &some
    plan = xent_plan_positions(&p, XENT_F64 if dtype == F64 else XENT_F32, exps)
    return plan.scratch_size + CACHE_LINE


cdef inline double curvature_of(hessian, Py_ssize_t classes) except? -1:
    """The factor of p (1 - p) in the second derivatives; 0 for the size of the gradient."""
    return 1 if is_word(hessian, "diagonal") else _check.curvature(hessian, classes)


cdef inline cnp.ndarray log_prior(cnp.ndarray frequencies, int dtype):
    """The logarithm of a prior, in the two rows of xent_positions; or None."""
    return None if frequencies is None else in_two(vmath("log", frequencies), dtype)


# ---- evaluation ----

def evaluate(logits, target, axis, ignore_index, sample_weight, top_k, prior, base):
    """Return the arguments of an Evaluation."""
    cdef xent_evaluate_args a
    cdef xent_plan plan
    cdef LossCall call = LossCall.__new__(LossCall)
    cdef double sums[4]
    cdef cnp.ndarray offset, rank = None, per_label
    call.open(logits, b"logits", VALUE)
    call.take_axis(axis)
    ignore_index = label_value(ignore_index, "ignore_index")
    call.sample_weight = position_numbers(sample_weight, call.x, call.axis, "sample_weight")
    offset = log_prior(class_numbers(prior, call.classes, "prior", True), call.dtype)
    if type(top_k) is not tuple or top_k != (1,) or type(top_k[0]) is not int:
        top_k = _check.top_k(top_k)
    if base is not None:
        base = _check.real(base, "base", 1.0, open_low=True)
    call.labels = labels_of(target, call.x, call.axis, ignore_index)
    per_label = np.zeros(call.classes)
    call.count(ignore_index, per_label)
    most = min(max(top_k, default=1), max(call.classes, 1))
    if most > 1:
        rank = one_per_position(call.x, call.axis, cnp.NPY_INT64)
    copies = walk_or_copy(&a.positions, call.x, None, None, None, call.axis)
    a.positions.keeps_logits = True
    a.positions.transformed, a.positions.offset = offset is not None, data(offset)
    a.labels, a.sample_weight, a.rank, a.most = call.found, <double *>data(call.sample_weight), <int64_t *>data(rank), most
    plan = xent_plan_positions(&a.positions, call.dtype, XENT_REUSED_EXPS)
    run_sums(table.evaluate[call.dtype], &a.positions, &plan, cnp.PyArray_SIZE(call.x), 4, sums)
    hits = (sums[3],)
    if rank is not None:  # of the ranks 0 to most - 1; ignored positions have `most`
        counts = np.bincount(rank.reshape(-1), None if sample_weight is None else call.sample_weight.reshape(-1), most + 1)
        hits = counts[:most].cumsum()
    top_k_sums = tuple([float(hits[min(k, most) - 1]) for k in top_k])
    return call.counted, call.mass, sums[0], sums[3], top_k, top_k_sums, sums[1], sums[2], per_label, base


# ---- losses of labels ----

def nll_loss(log_probs, target, out, grad_output, int wants, axis, weight, ignore_index, reduction):
    cdef xent_label_losses_args a
    cdef LossCall call = LossCall.__new__(LossCall)
    call.open(log_probs, b"log_probs", wants)
    call.take_axis(axis)
    ignore_index = label_value(ignore_index, "ignore_index")
    call.weight = class_numbers(weight, call.classes, "weight")
    call.labels = labels_of(target, call.x, call.axis, ignore_index)
    call.take_reduction(reduction)
    fill_loss(call, &a.loss, XENT_NLL, out, grad_output, 0, None, XENT_F64, ignore_index)
    return call.finish(label_losses(call, &a))


cdef double label_losses(LossCall call, xent_label_losses_args *a) except? -1:
    """Fill in the results; return the sum of the losses. `a.loss` is there already."""
    cdef xent_plan plan
    cdef double total
    if call.divisor == 0:
        return 0
    copies = walk_or_copy(&a.positions, call.x, None, call.grad, None, call.axis)
    a.labels, a.label_weight, a.upstream = call.found, <double *>data(call.weight), <double *>data(call.upstream)
    a.losses.data, a.losses.single = data(call.losses), call.dtype != XENT_F64
    plan = xent_plan_positions(&a.positions, call.dtype, XENT_NO_EXPS)
    run_sums(table.label_losses[call.dtype], &a.positions, &plan, cnp.PyArray_SIZE(call.x), 1, &total)
    deliver(copies, call.grad, None)
    return total / a.loss.unit


def scan_labels(cnp.ndarray labels, Py_ssize_t classes, ignore_index, cnp.ndarray weight, cnp.ndarray sample_weight):
    """Return how many labels are not ignored, and the sum of their weights; raise for the first bad one."""
    cdef xent_labels found
    cdef Py_ssize_t counted = 0
    mass = count_labels(labels, &found, classes, ignore_index, weight, sample_weight, None, &counted)
    return counted, mass
