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
    logits, target, out, hessian, axis, weight, sample_weight, ignore_index, label_smoothing, z_loss, gamma, temperature,
    logit_cap, prior, reduction,
):
    if not is_word(hessian, "diagonal"):
        hessian = _check.hessian_name(hessian)
    return softmax_loss(
        logits, target, out, None, GRAD_AND_HESS, hessian, axis, weight, sample_weight, ignore_index,
        label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction,
    )


def cross_entropy_hvp(
    logits, target, vector, axis, weight, sample_weight, ignore_index, label_smoothing, z_loss, gamma, temperature,
    logit_cap, prior, reduction,
):
    return softmax_loss(
        logits, target, None, None, PRODUCT, "diagonal", axis, weight, sample_weight, ignore_index, label_smoothing, z_loss,
        gamma, temperature, logit_cap, prior, reduction, vector,
    )


cdef softmax_loss(
    logits, target, out, grad_output, int wants, hessian, axis, weight, sample_weight, ignore_index,
    label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction, vector=None,
):
    cdef xent_cross_entropy_args a
    cdef LossCall call = LossCall.__new__(LossCall)
    cdef softmax_options *given = &call.options
    cdef int arithmetic
    if not (
        inert(target) and inert(grad_output) and inert(hessian) and inert(axis) and inert(weight) and inert(sample_weight)
        and inert(ignore_index) and inert(label_smoothing) and inert(z_loss) and inert(gamma) and inert(temperature)
        and inert(logit_cap) and inert(prior) and inert(reduction) and inert(vector)
    ):
        logits, target, grad_output, vector = private(logits), private(target), private(grad_output), private(vector)
        weight, sample_weight, prior = private(weight), private(sample_weight), private(prior)
    call.open(logits, b"logits", wants)
    call.take_axis(axis)
    ignore_index = ignored(ignore_index)
    given.smoothing = real(label_smoothing, "label_smoothing", 0, 1)
    given.z_loss, given.gamma = real(z_loss, "z_loss", 0), real(gamma, "gamma", 0)
    given.temperature = positive(temperature, "temperature")
    given.cap = 0 if logit_cap is None else positive(logit_cap, "logit_cap")
    call.weight = class_numbers(weight, call.classes, "weight")
    call.sample_weight = position_numbers(sample_weight, call.x, call.axis, "sample_weight")
    call.prior = class_numbers(prior, call.classes, "prior", True)
    if wants == PRODUCT:
        call.vector = floats(vector, b"vector")
        _check.same_shape(call.vector, (<object>call.x).shape, "vector", "logits")
        if call.dtype == XENT_F64 and dtype_code(call.vector) != XENT_F64:
            call.vector = (<object>call.vector).astype(F64)
    call.take_target(target, ignore_index)
    call.hessian = hessian
    given.curvature = curvature_of(hessian, call.classes) if wants == GRAD_AND_HESS or wants == PRODUCT else 0
    call.take_reduction(reduction)
    call.count(one_ignored(ignore_index), None)
    call.reduce(grad_output)
    call.make_results(out)
    arithmetic = arithmetic_of(call)
    if arithmetic == EXACTLY or (call.divisor == 0 and weighs_something(call)):
        return run_exactly(call)
    if call.divisor == 0:
        return call.finish(0)
    if call.vector is not None and call.dtype != XENT_F64:
        if call.dtype != XENT_F32 or not are_alike(call.x, call.vector, call.target):
            arithmetic = AS_DOUBLES
    if arithmetic == AS_DOUBLES:
        return run_as_doubles(call, grad_output)
    return call.finish(run_softmax_loss(call, &a))


cdef bint are_alike(cnp.ndarray x, cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether all are of the same type; b may be None."""
    cdef int code = cnp.PyArray_TYPE(x)
    return cnp.PyArray_TYPE(a) == code and (b is None or cnp.PyArray_TYPE(b) == code)


cdef inline bint is_curved(LossCall call) noexcept:
    """Whether softmax/curved.h has a part in this: the focal loss of a distribution, second derivatives that are no multiple
    of p (1 - p), and products.
    """
    cdef softmax_options *given = &call.options
    if call.wants == PRODUCT or (given.gamma != 0 and (call.labels is None or given.smoothing != 0)):
        return True
    if call.wants != GRAD_AND_HESS:
        return False
    return given.cap != 0 or given.z_loss != 0 or (given.gamma != 0 and is_word(call.hessian, "diagonal"))


cdef double run_softmax_loss(LossCall call, xent_cross_entropy_args *a) except? -1:
    """Fill in the results; return the sum of the losses."""
    cdef xent_positions *p = &a.positions
    cdef xent_plan plan
    cdef double total, smoothing = call.options.smoothing, t = call.options.temperature
    cdef int real = XENT_F64 if call.vector is not None else call.dtype
    cdef cnp.ndarray x, grad, hess = call.hess, dense_weight = None, offset = log_prior(call.prior, real)
    x = call.working()
    grad = call.working_grad(x)
    if hess is not None and x is not call.x:
        hess = empty_like(x)
    if call.vector is not None:  # which lies in the place of second derivatives
        hess = call.vector
    a.z_loss, a.gamma = call.options.z_loss, call.options.gamma
    a.upstream, a.gradient_scale = <double *>data(call.upstream), call.factor / call.divisor / t
    a.curvature, a.exact = call.options.curvature / t, is_word(call.hessian, "diagonal")
    # The target of a position is u_c = w_c (mix t_c + base) for all classes, and peak * w_y at the label.
    a.dense.mix = 0 if call.target is None else 1 - smoothing
    a.peak = 1 - smoothing if call.target is None else 0
    a.dense.base = smoothing / call.classes if call.classes else 0
    if call.weight is not None and (a.dense.mix != 0 or a.dense.base != 0):
        dense_weight = narrowed(call.weight, real)
    a.labels, a.dense.weight, a.label_weight = call.found, data(dense_weight), <double *>data(call.weight)
    a.sample_weight = <double *>data(call.sample_weight)
    a.losses.data, a.losses.single = data(call.losses), call.dtype != XENT_F64
    copies = walk_or_copy(p, x, call.target, grad, hess, call.axis, call.vector is None)
    if copies is not None and call.vector is not None and copies[3] is not hess:
        copies[3][...], hess = hess, copies[3]
    p.curved, p.reads_hess = is_curved(call), call.vector is not None
    p.packs |= a.dense.mix != 0 or a.dense.base != 0
    p.temperature, p.cap, p.offset = t, call.options.cap, data(offset)
    p.transformed |= t != 1 or call.options.cap != 0 or offset is not None or p.curved
    if call.vector is None:
        plan = xent_plan_positions(p, dtype_code(x), XENT_SUMMED_EXPS if grad is None else XENT_REUSED_EXPS)
        left = run_leaving(table.cross_entropy[dtype_code(x)], p, &plan, cnp.PyArray_SIZE(x), &total)
    else:
        plan = xent_plan_product(p, dtype_code(x))
        left = run_leaving(table.cross_entropy_product[dtype_code(x)], p, &plan, cnp.PyArray_SIZE(x), &total)
    if left is not None:
        call.exact_divisor = call.divisor
        made = (grad, hess) if copies is None else copies[2:]
        call.exact_total = exact_arithmetic().added(
            exact_losses(call, left, made[0], None if call.hess is None else made[1]), total
        )
    deliver(copies, grad, hess)
    call.narrow(grad, call.hess if call.hess is None else hess)
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
        call.exact_divisor, call.losses, grad, hess, call.options.curvature, is_word(call.hessian, "diagonal"), call.vector,
        positions,
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


cdef run_as_doubles(LossCall call, grad_output):
    """A call with floats of which all is made of doubles, and rounded at the end."""
    cdef softmax_options *given = &call.options
    x = (<object>call.x).astype(F64)
    target = call.labels if call.target is None else (<object>call.target).astype(F64)
    grad = None if call.grad is None or call.wants == PRODUCT else np.empty_like(x)
    hess = None if call.hess is None else np.empty_like(x)
    made = softmax_loss(
        x, target, grad if hess is None else (grad, hess), grad_output, call.wants, call.hessian, call.axis, call.weight,
        call.sample_weight, call.found.ignore_index, given.smoothing, given.z_loss, given.gamma, given.temperature,
        given.cap or None, call.prior, call.reduction, call.vector,
    )
    loss = made[0] if call.wants == VALUE_AND_GRAD else made
    if call.wants == VALUE or call.wants == VALUE_AND_GRAD:
        loss = unpacked(narrowed(np.asarray(loss), call.dtype))
    if call.wants == PRODUCT:
        grad = made
    put_narrowed(call.grad, grad, call.hess, hess)
    if call.wants == GRAD or call.wants == PRODUCT:
        return call.grad
    if call.wants == GRAD_AND_HESS:
        return call.grad, call.hess
    return (loss, call.grad) if call.wants == VALUE_AND_GRAD else loss


def cross_entropy_scratch(Py_ssize_t classes, dtype, bint dense, bint transformed, double cap, bint curved, bint want_grad):
    """Return the bytes that each thread of a call needs, for logits whose classes lie side by side."""
    cdef xent_positions p
    cdef xent_plan plan
    cdef char some
    cdef int exps = XENT_REUSED_EXPS if want_grad else XENT_SUMMED_EXPS
    memset(&p, 0, sizeof(p))
    p.count, p.inner, p.classes = PY_SSIZE_T_MAX // 2, 1, classes
    p.transformed, p.cap, p.curved = transformed or curved, cap, curved
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

cdef enum:
    EVALUATED = 9  # sums of the kernel
    MOST_BINS = 1 << 24  # of confidence: each as wide as the distance of two floats just below 1


def evaluate(
    logits, target, axis, ignore_index, sample_weight, top_k, prior, base, temperature, calibration_bins, confusion,
):
    """Return the arguments of an Evaluation."""
    cdef xent_evaluate_args a
    cdef LossCall call = LossCall.__new__(LossCall)
    cdef double sums[EVALUATED]
    cdef cnp.ndarray offset, rank = None, per_label, report = None
    cdef double t
    if not (
        inert(target) and inert(axis) and inert(ignore_index) and inert(sample_weight) and inert(top_k) and inert(prior)
        and inert(base) and inert(temperature) and inert(calibration_bins) and inert(confusion)
    ):
        logits, target, sample_weight, prior = map(private, (logits, target, sample_weight, prior))
    call.open(logits, b"logits", VALUE)
    call.take_axis(axis)
    call.sample_weight = position_numbers(sample_weight, call.x, call.axis, "sample_weight")
    offset = log_prior(class_numbers(prior, call.classes, "prior", True), call.dtype)
    t = positive(temperature, "temperature")
    if type(top_k) is not tuple or top_k != (1,) or type(top_k[0]) is not int:
        top_k = _check.top_k(top_k)
    base = base_of(base)
    bins = 0 if calibration_bins is None else _check.integer(calibration_bins, "calibration_bins", 1, MOST_BINS)
    if confusion is not False:
        confusion = _check.confusion(confusion)
    left_out = call.take_labels(target, ignore_index)
    per_label = new_sums((call.classes,), call.sample_weight is not None)
    call.count(left_out, per_label)
    memset(&a, 0, sizeof(a))
    most = min(max(top_k, default=1), max(call.classes, 1))
    if most > 1:
        rank = one_per_position(call.x, call.axis, cnp.NPY_INT64)
    if bins or confusion:
        report = empty((4, positions_of(call.x, call.axis)), F64)
        put_report(&a, report, XENT_RIGHT)
        put_report(&a, report, XENT_CONFIDENCE if bins else XENT_RIGHT)
        put_report(&a, report, XENT_PREDICTED if confusion else XENT_RIGHT)
    a.rank, a.most = <int64_t *>data(rank), most
    run_evaluation(call, &a, offset, t, sums)
    hits = (sums[3],)
    if rank is not None:  # of the ranks 0 to most - 1; ignored positions have `most`
        counts = sums_at(rank, call.sample_weight, most + 1)
        hits = counts[:most].cumsum()
    top_k_sums = tuple([float(hits[min(k, most) - 1]) for k in top_k])
    if sample_weight is None:
        second = float(call.counted), float(call.counted), sums[0], sums[4], sums[3]
    else:
        second = sums[5], sums[6], sums[7], sums[4], sums[8]
    return (
        call.counted, call.mass, sums[0], sums[3], top_k, top_k_sums, sums[1], sums[2], settled(per_label), base, second,
        *details(call, report, bins, confusion),
    )


cdef int put_report(xent_evaluate_args *a, cnp.ndarray report, int row) except -1:
    """Ask for what belongs into a row of a report."""
    a.report[row] = <double *>cnp.PyArray_DATA(report) + row * cnp.PyArray_DIM(report, 1)
    return 0


cdef int run_evaluation(LossCall call, xent_evaluate_args *a, cnp.ndarray offset, double t, double *sums) except -1:
    """Fill in the sums and what else `a` asks for."""
    cdef xent_plan plan
    copies = walk_or_copy(&a.positions, call.x, None, None, None, call.axis, True)
    a.positions.keeps_logits = not a.brief
    a.positions.temperature, a.positions.offset = t, data(offset)
    a.positions.transformed |= t != 1 or offset is not None
    a.labels, a.sample_weight = call.found, <double *>data(call.sample_weight)
    plan = xent_plan_positions(&a.positions, call.dtype, XENT_SUMMED_EXPS if a.brief else XENT_REUSED_EXPS)
    return run_sums(table.evaluate[call.dtype], &a.positions, &plan, cnp.PyArray_SIZE(call.x), EVALUATED, sums)


cdef tuple details(LossCall call, cnp.ndarray report, bins, confusion):
    """Sums of the bins of confidence, of the classes and of pairs of classes, each None where it is not wanted."""
    cdef Py_ssize_t bin_count = bins, classes = call.classes
    cdef const double *weight = <const double *>data(call.sample_weight)
    cdef const double *rows = <const double *>data(report)
    cdef const double *right
    cdef const double *confidence
    cdef const double *predicted
    cdef double *bin_sums
    cdef double *class_sums
    cdef double w
    cdef int64_t label
    cdef bint square
    cdef Py_ssize_t p, k, n, bins_lost, classes_lost  # how far behind sums lies what they have lost; 0 of counts
    cdef cnp.ndarray bin_array = None, class_array = None
    if report is None:
        return None, None, None
    n = cnp.PyArray_DIM(report, 1)
    right, confidence, predicted = rows + XENT_RIGHT * n, rows + XENT_CONFIDENCE * n, rows + XENT_PREDICTED * n
    if bins:
        bin_array = new_sums((3, bins), True)
    square = confusion and confusion != "per_class"
    if confusion:
        class_array = new_sums((classes if square else 2, classes), weight != NULL)
    bins_lost = classes_lost = 0
    if weight != NULL:
        bins_lost, classes_lost = 3 * bin_count, (classes if square else 2) * classes
    bin_sums, class_sums = <double *>data(bin_array), <double *>data(class_array)
    with nogil:
        for p in range(n):
            label = call.found.data[p]
            if label < 0 or label >= classes or label == call.found.ignore_index:
                continue
            w = weight[p] if weight != NULL else 1
            if w == 0:
                continue
            if bin_sums != NULL:  # (k / bins, (k + 1) / bins]; where there are no probabilities, the first is NaN
                k = <Py_ssize_t>ceil(min(confidence[p], 1.0) * bin_count) - 1 if confidence[p] > 0 else 0
                k = max(0, min(k, bin_count - 1))
                add_at(bin_sums, k, bins_lost, w)
                add_at(bin_sums, bin_count + k, 3 * bin_count, w * confidence[p])
                add_at(bin_sums, 2 * bin_count + k, bins_lost, w * right[p])
            if class_sums != NULL and 0 <= predicted[p] < classes:  # labels may have changed meanwhile
                k = <Py_ssize_t>predicted[p]
                if square:
                    add_at(class_sums, label * classes + k, classes_lost, w)
                else:
                    add_at(class_sums, k, classes_lost, w)
                    add_at(class_sums, classes + k, classes_lost, w if k == label else 0)
    bin_array, class_array = settled(bin_array), settled(class_array)
    if class_array is not None and call.sample_weight is None:
        class_array = class_array.astype(INT64)
    return bin_array, None if square else class_array, class_array if square else None


cdef base_of(base):
    """A base of units, greater than 1, or None."""
    return None if base is None else _check.real(base, "base", 1.0, open_low=True)


def evaluate_sequences(logits, target, groups, axis, ignore_index, prior, base, temperature):
    """Return the arguments of a SequenceEvaluation."""
    cdef xent_evaluate_args a
    cdef LossCall call = LossCall.__new__(LossCall)
    cdef double sums[EVALUATED]
    cdef cnp.ndarray offset, report
    cdef double t
    if not (
        inert(target) and inert(groups) and inert(axis) and inert(ignore_index) and inert(prior) and inert(base)
        and inert(temperature)
    ):
        logits, target, groups, prior = map(private, (logits, target, groups, prior))
    call.open(logits, b"logits", VALUE)
    call.take_axis(axis)
    offset = log_prior(class_numbers(prior, call.classes, "prior", True), call.dtype)
    t = positive(temperature, "temperature")
    base = base_of(base)
    left_out = call.take_labels(target, ignore_index)
    groups = _check.groups(groups, shape_without(call.x, call.axis))
    call.count(left_out, None)
    memset(&a, 0, sizeof(a))
    a.brief = True
    report = np.zeros((2, positions_of(call.x, call.axis)))
    put_report(&a, report, XENT_LOSSES)
    put_report(&a, report, XENT_RIGHT)
    run_evaluation(call, &a, offset, t, sums)
    names, place = np.unique(groups.reshape(-1), return_inverse=True)
    here, size = counted_of(call, left_out), len(names)
    log_probs = 0.0 - sums_at(place, report[XENT_LOSSES], size)
    tokens = sums_at(place[here], None, size)
    missed = sums_at(place[here & (report[XENT_RIGHT] == 0)], None, size)
    return names, log_probs, tokens.astype(np.int64, copy=False), missed == 0, base


cdef tuple compared(LossCall call, xent_comparison_args *a, cnp.ndarray x, cnp.ndarray teacher):
    """The divergences of all positions, and what is said of them beside."""
    cdef xent_plan plan
    cdef cnp.ndarray divergence = one_per_position(x, call.axis, real_type(dtype_code(x)))
    cdef Py_ssize_t row, positions = cnp.PyArray_SIZE(divergence)
    cdef cnp.ndarray report = empty((1 + (XENT_COMPARED if a.labels.data else 0), positions), F64)
    a.divergence, a.same = data(divergence), <double *>cnp.PyArray_DATA(report)
    for row in range(XENT_COMPARED):  # unless there are labels they are not looked at
        a.report[row] = a.same + (row + 1) * positions
    if positions:
        copies = walk_or_copy(&a.positions, x, teacher, None, None, call.axis)
        plan = xent_plan_comparison(a, dtype_code(x))
        run(table.comparison[dtype_code(x)], a, &plan, cnp.PyArray_SIZE(x))
    return (<object>divergence).reshape(-1), report


def compare(logits_a, logits_b, target, axis, ignore_index, base, temperature):
    """Return the arguments of a Comparison. To the kernel b is a student, a the teacher."""
    cdef xent_comparison_args a
    cdef LossCall call = LossCall.__new__(LossCall)
    cdef cnp.ndarray x, teacher
    if not (
        inert(logits_b) and inert(target) and inert(axis) and inert(ignore_index) and inert(base) and inert(temperature)
    ):
        logits_a, logits_b, target = map(private, (logits_a, logits_b, target))
    logits_a, logits_b = _check.common_floats((logits_a, "logits_a"), (logits_b, "logits_b"))
    call.open(logits_b, b"logits_b", VALUE)
    call.take_axis(axis)
    call.take_floats(logits_a, b"logits_a")
    if call.classes == 0 and positions_of(call.x, call.axis):
        raise _check.no_class("logits_b", (<object>call.x).shape)
    memset(&a, 0, sizeof(a))
    a.temperature = positive(temperature, "temperature")
    base = base_of(base)
    if target is not None:
        left_out = call.take_labels(target, ignore_index)
        call.count(left_out, None)
        a.labels = call.found
    x, teacher = call.x, call.target
    if dtype_code(x) != XENT_F64 and not LOWEST_PLAIN <= a.temperature <= HIGHEST_PLAIN:
        x, teacher = widened(x), widened(teacher)
    if not LOWEST_IN_DOUBLES <= a.temperature <= HIGHEST_IN_DOUBLES:
        x, teacher, a.temperature = cooled(x, call.axis, a.temperature), cooled(teacher, call.axis, a.temperature), 1
    divergence, report = compared(call, &a, x, teacher)
    if dtype_code(x) != XENT_F64 and math.frexp(a.temperature)[0] != 0.5:
        lost = ~(np.isfinite(divergence) & np.isfinite(report).all(axis=0))
        if lost.any():  # differences that leave floats before they are divided
            wide, wide_report = compared(call, &a, widened(x), widened(teacher))
            divergence = np.where(lost, wide, divergence)
            report = np.where(lost, wide_report, report)
    divergence = narrowed(divergence, call.dtype)
    if target is None:
        return divergence, int(report[0].sum()), base, None
    if call.counted == cnp.PyArray_SIZE(divergence):
        return divergence, int(report[0].sum()), base, sums_of_labels(report)
    counted = counted_of(call, left_out)
    return divergence[counted], int(report[0, counted].sum()), base, sums_of_labels(report)


cdef enum:
    STRETCH = 64  # positions that are added up before they reach a sum of two numbers: an error of some 2^-48 at most


cdef tuple sums_of_labels(cnp.ndarray report):
    """The sums of a Comparison, of which ignored positions have 0. Stretches are added up before they reach the sums."""
    cdef double sums[10]  # the second half is what the first has lost
    cdef double here[5]
    cdef double gap, change
    cdef Py_ssize_t p, k, block, n = cnp.PyArray_DIM(report, 1)
    cdef const double *loss_b = <const double *>data(report) + (1 + XENT_STUDENT_LOSS) * n
    cdef const double *loss_a = <const double *>data(report) + (1 + XENT_TEACHER_LOSS) * n
    cdef const double *p_b = <const double *>data(report) + (1 + XENT_STUDENT_P) * n
    cdef const double *p_a = <const double *>data(report) + (1 + XENT_TEACHER_P) * n
    memset(sums, 0, sizeof(sums))
    with nogil:
        for block in range((n + STRETCH - 1) // STRETCH):
            for k in range(5):
                here[k] = 0
            for p in range(block * STRETCH, min(block * STRETCH + STRETCH, n)):
                gap = loss_b[p] - loss_a[p]
                # numbers with a minus are less by 1: between two of these, no 1 comes in to round them
                change = p_b[p] - p_a[p] + ((1 if signbit(p_b[p]) else 0) - (1 if signbit(p_a[p]) else 0))
                here[0] += loss_a[p]
                here[1] += loss_b[p]
                here[2] += gap * gap
                here[3] += change
                here[4] += change * change
            for k in range(5):
                two_sum_add(sums + k, sums + 5 + k, here[k])
        xent_settle(sums, 5)
    return tuple([sums[k] for k in range(5)])


cdef counted_of(LossCall call, left_out):
    """Which positions have a label that is not ignored."""
    labels = call.labels.reshape(-1)
    return (labels >= 0) & (labels < call.classes) & (labels != left_out)


# ---- losses of labels ----

def nll_loss(log_probs, target, out, grad_output, int wants, axis, weight, ignore_index, reduction):
    cdef xent_label_losses_args a
    cdef LossCall call = LossCall.__new__(LossCall)
    if not (
        inert(target) and inert(grad_output) and inert(axis) and inert(weight) and inert(ignore_index) and inert(reduction)
    ):
        log_probs, target, grad_output, weight = map(private, (log_probs, target, grad_output, weight))
    call.open(log_probs, b"log_probs", wants)
    call.take_axis(axis)
    ignore_index = ignored(ignore_index)
    call.weight = class_numbers(weight, call.classes, "weight")
    call.labels = labels_of(target, call.x, call.axis, ignore_index)
    left_out = one_ignored(ignore_index)
    call.take_reduction(reduction)
    if call.reduction == "mean" and are_odd_weights(call.weight):
        balance_weights(call, left_out)
    fill_loss(call, &a.loss, XENT_NLL, out, grad_output, 0, None, XENT_F64, left_out)
    if call.divisor == 0 and call.weight is not None and call.counted and call.reduction == "mean":
        return over_zero(call, &a, left_out)
    return call.finish(label_losses(call, &a))


cdef int balance_weights(LossCall call, ignore_index) except? -1:
    """Divide the weights of classes by a power of two, so that no sum of those in use leaves the range of doubles."""
    cdef cnp.ndarray per_label = new_sums((call.classes,), call.sample_weight is not None)
    call.count(ignore_index, per_label)
    weights = np.where(settled(per_label), call.weight, 0.0)
    exponent = min(max(math.frexp(abs(weights).max(initial=0.0))[1], -1000), 1000)  # 2^-1000 is a normal number
    with np.errstate(all="ignore"):
        call.weight = np.ldexp(weights, -exponent)
    return 0


cdef over_zero(LossCall call, xent_label_losses_args *a, left_out):
    """A mean over weights whose sum is 0: all of them are, or they cancel, and IEEE arithmetic divides by that sum."""
    cdef cnp.ndarray here, labels, shares, slopes
    here = counted_of(call, left_out).reshape((<object>call.labels).shape)
    labels = np.where(here, call.labels, 0)
    shares = np.where(here, (<object>call.weight)[labels], 0.0)
    if not shares.any():
        return call.finish(0)
    call.divisor = a.loss.divisor = 1
    total = np.float64(label_losses(call, a))
    with np.errstate(all="ignore"):
        if call.grad is not None:
            slopes = np.where(np.expand_dims(here, call.axis), np.zeros((<object>call.x).shape) / 0.0, 0.0)
            shares = np.where(here, -call.factor * shares / 0.0, 0.0)
            np.put_along_axis(slopes, np.expand_dims(labels, call.axis), np.expand_dims(shares, call.axis), call.axis)
            put_narrowed(call.grad, slopes)
        return call.finish(total / 0.0)


cdef enum:
    BEYOND = 1060  # octaves: LOSSES_HALFWAY of label_losses.h, twice


cdef double label_losses(LossCall call, xent_label_losses_args *a) except? -1:
    """Fill in the results; return the sum of the losses, not divided by their unit. `a.loss` is there. Where terms are so
    large that a sum might be infinite, it is divided at once.
    """
    cdef xent_plan plan
    cdef double totals[2]  # the second of large terms, times 2^-BEYOND
    cdef double total, mantissa
    cdef int exponent
    if call.divisor == 0:
        return 0
    copies = walk_labels_or_copy(&a.positions, call.x, call.grad, call.axis)
    a.labels, a.label_weight, a.upstream = call.found, <double *>data(call.weight), <double *>data(call.upstream)
    a.losses.data, a.losses.single = data(call.losses), call.dtype != XENT_F64
    plan = xent_plan_positions(&a.positions, call.dtype, XENT_ONE_CLASS)
    run_sums(table.label_losses[call.dtype], &a.positions, &plan, cnp.PyArray_SIZE(call.x), 2, totals)
    deliver(copies, call.grad, None)
    if totals[1] == 0:
        return totals[0]
    mantissa, exponent = math.frexp(totals[1])
    total = totals[0] / call.divisor + ldexp(mantissa / call.divisor, exponent + BEYOND)
    call.divisor = 1
    return total


def scan_labels(cnp.ndarray labels, Py_ssize_t classes, ignore_index, cnp.ndarray weight, cnp.ndarray sample_weight):
    """Return how many labels are not ignored, and the sum of their weights; raise for the first bad one."""
    cdef xent_labels found
    cdef Py_ssize_t counted = 0
    mass = count_labels(labels, &found, classes, ignore_index, weight, sample_weight, None, &counted)
    return counted, mass
