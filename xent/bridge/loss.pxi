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
    cdef double smoothing, t, cap, curvature
    cdef cnp.ndarray offset
    call.open(logits, b"logits", wants)
    call.take_axis(axis)
    ignore_index = label_value(ignore_index, "ignore_index")
    smoothing = real(label_smoothing, "label_smoothing", 0, 1)
    a.z_loss, a.gamma = real(z_loss, "z_loss", 0), real(gamma, "gamma", 0)
    t = positive(temperature, "temperature")
    cap = 0 if logit_cap is None else positive(logit_cap, "logit_cap")
    call.weight = class_numbers(weight, call.classes, "weight")
    call.sample_weight = position_numbers(sample_weight, call.x, call.axis, "sample_weight")
    offset = log_prior(prior, call.classes, call.dtype)
    call.take_target(target, ignore_index)
    if a.gamma != 0 and (call.labels is None or smoothing != 0):
        raise _check.gamma_without_labels(call.labels is None)
    curvature = 0 if wants != GRAD_AND_HESS else curvature_of(hessian, call.classes)
    call.take_reduction(reduction)
    call.count(ignore_index, None)
    call.reduce(grad_output)
    call.make_results(out)
    if call.divisor == 0:
        return call.finish(0)
    a.upstream, a.gradient_scale, a.curvature = <double *>data(call.upstream), call.factor / call.divisor / t, curvature / t
    return call.finish(run_softmax_loss(call, &a, smoothing, t, cap, offset))


cdef double run_softmax_loss(LossCall call, xent_cross_entropy_args *a, double smoothing, double t, double cap,
                             cnp.ndarray offset) except? -1:
    """Fill in the results; return the sum of the losses."""
    cdef xent_positions *p = &a.positions
    cdef xent_plan plan
    cdef double total
    cdef cnp.ndarray x, grad, hess = call.hess, dense_weight = None
    x = call.working()
    grad = call.working_grad(x)
    if hess is not None and x is not call.x:
        hess = empty_like(x)
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
    p.temperature, p.cap, p.offset = t, cap, data(offset)
    p.transformed = t != 1 or cap != 0 or offset is not None
    plan = xent_plan_positions(p, dtype_code(x), XENT_SUMMED_EXPS if grad is None else XENT_REUSED_EXPS)
    run_sums(table.cross_entropy[dtype_code(x)], p, &plan, cnp.PyArray_SIZE(x), 1, &total)
    deliver(copies, grad, hess)
    call.narrow(grad)
    if hess is not call.hess:
        put_narrowed(call.hess, hess)
    return total


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


cdef inline cnp.ndarray log_prior(prior, Py_ssize_t classes, int dtype):
    """The logarithm of a prior, in the two rows of xent_positions; or None."""
    return None if prior is None else in_two(vmath("log", class_numbers(prior, classes, "prior", True)), dtype)


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
    offset = log_prior(prior, call.classes, call.dtype)
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
    cdef int shift = 0
    cdef double total
    call.open(log_probs, b"log_probs", wants)
    call.take_axis(axis)
    ignore_index = label_value(ignore_index, "ignore_index")
    call.weight = signed_class_numbers(weight, call.classes, "weight")
    call.labels = labels_of(target, call.x, call.axis, ignore_index)
    call.take_reduction(reduction)
    if are_odd_weights(call.weight):
        shift = balance_weights(call, ignore_index)
    fill_loss(call, &a.loss, XENT_NLL, out, grad_output, 0, None, XENT_F64, ignore_index)
    if shift and call.reduction != "mean":  # whose divisor has the same power of two
        a.loss.unit = 2.0**-shift
        a.loss.gradient_scale = call.factor / (a.loss.unit * (call.divisor or 1))
        total = label_losses(call, &a) / (call.divisor or 1) / a.loss.unit
        call.divisor = 1 if call.divisor else 0
        return call.finish(total)
    return call.finish(label_losses(call, &a))


cdef cnp.ndarray signed_class_numbers(value, Py_ssize_t classes, str name):
    """One finite float64 number per class; or None."""
    cdef cnp.ndarray array = None
    if value is None:
        return None
    if cnp.PyArray_CheckExact(value) and (<object>value).shape == (classes,):
        array = plain_numbers(<cnp.ndarray>value, False)
    return _check.per_class(value, classes, name, signed=True) if array is None else array


cdef int balance_weights(LossCall call, ignore_index) except? -1:
    """Divide the weights of classes by a power of two, so that no sum of those in use leaves the range of doubles;
    return its exponent.
    """
    cdef cnp.ndarray per_label = np.zeros(call.classes)
    call.count(ignore_index, per_label)
    weights = np.where(per_label, call.weight, 0.0)
    exponent = min(max(math.frexp(abs(weights).max(initial=0.0))[1], -1000), 1000)  # 2^-1000 is a normal number
    with np.errstate(all="ignore"):
        call.weight = np.ldexp(weights, -exponent)
    return exponent


cdef double label_losses(LossCall call, xent_label_losses_args *a) except? -1:
    """Fill in the results; return the sum of the losses, not divided by their unit. `a.loss` is there."""
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
    return total


def scan_labels(cnp.ndarray labels, Py_ssize_t classes, ignore_index, cnp.ndarray weight, cnp.ndarray sample_weight):
    """Return how many labels are not ignored, and the sum of their weights; raise for the first bad one."""
    cdef xent_labels found
    cdef Py_ssize_t counted = 0
    mass = count_labels(labels, &found, classes, ignore_index, weight, sample_weight, None, &counted)
    return counted, mass
