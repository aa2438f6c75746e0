# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""The bridge: array buffers become pointers, the GIL is released, and chunks of work are spread over threads.

Nothing is checked here that a user can get wrong (that is `_check.py`), no default is known here (that is the API layer),
and no number of threads is decided here (that is `_threads.py`). The only parallel loop of the library is `run`.
"""

cimport numpy as cnp
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY, isfinite
from libc.stdint cimport int64_t
from libc.string cimport memset

import os

import numpy as np

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewLikeArray(cnp.ndarray prototype, cnp.NPY_ORDER order, void *descr, int subok)

cdef extern from *:
    """
    #ifdef _OPENMP
    #define XENT_OPENMP 1
    #else
    #define XENT_OPENMP 0
    #endif
    #if defined(__clang__)
    #define XENT_COMPILER "clang " __clang_version__
    #elif defined(__GNUC__)
    #define XENT_COMPILER "gcc " __VERSION__
    #else
    #define XENT_COMPILER "unknown"
    #endif
    """
    const int XENT_OPENMP
    const char *XENT_COMPILER


# ---- the instruction set, chosen once at import ----

cdef xent_table *table = NULL


def isas():
    """Return (names of the instruction sets that were built, those of them that this machine can run), the best last."""
    cdef int index = 0, usable = 0
    cdef const char *name = xent_isa_name(0, &usable)
    built, runs = [], []
    while name != NULL:
        built.append(name.decode())
        if usable:
            runs.append(name.decode())
        index += 1
        name = xent_isa_name(index, &usable)
    return built, runs


cdef int choose_isa() except -1:
    global table
    built, runs = isas()
    name = os.environ.get("XENT_ISA") or runs[len(runs) - 1]
    if name not in runs:
        reason = "this machine cannot run it" if name in built else "no such instruction set was built"
        raise ImportError(f"XENT_ISA={name}: {reason}; usable here: {', '.join(runs)}")
    table = <xent_table *>xent_find(name.encode())
    return 0


choose_isa()
if xent_watch_forks() != 0:
    raise ImportError("pthread_atfork failed: out of memory")


def config():
    """Return what was built and what is in use, for `show_config`."""
    built, runs = isas()
    return {
        "compiler": XENT_COMPILER.decode(),
        "isa": table.name.decode(),
        "isa_built": built,
        "isa_usable": runs,
        "openmp": bool(XENT_OPENMP),
    }


def max_threads():
    """Return the number of threads that OpenMP offers now; 1 in a forked child."""
    return xent_max_threads()


def forked():
    """Return whether this process is the child of a fork()."""
    return bool(xent_forked())


# ---- the parallel loop ----

cdef enum:
    LINE = 64  # bytes of a cache line, to which scratch is aligned


cdef int run(xent_kernel kernel, const void *args, Py_ssize_t chunks, int threads, size_t scratch_bytes) except -1:
    """Work all chunks. Which thread takes which is left open: nothing depends on it. `scratch_bytes` is per thread."""
    cdef Py_ssize_t i
    cdef char *memory = NULL
    cdef char *scratch = NULL
    if threads > chunks:
        threads = <int>chunks
    if scratch_bytes != 0 and chunks != 0:
        scratch_bytes = (scratch_bytes + LINE - 1) // LINE * LINE
        if scratch_bytes > (<size_t>PY_SSIZE_T_MAX - LINE) // threads:
            raise MemoryError("scratch memory of this size cannot be addressed")
        memory = <char *>PyMem_Malloc(scratch_bytes * threads + LINE)
        if memory == NULL:
            raise MemoryError(f"no memory for {threads} x {scratch_bytes} bytes of scratch")
        scratch = memory + (LINE - <size_t>memory % LINE)
    with nogil:
        if threads <= 1:
            for i in range(chunks):
                kernel(args, i, scratch)
        else:
            for i in prange(chunks, num_threads=threads, schedule="dynamic"):
                kernel(args, i, scratch + threadid() * scratch_bytes)
    PyMem_Free(memory)
    return 0


cdef extern from *:
    Py_ssize_t PY_SSIZE_T_MAX


cdef inline void *data(cnp.ndarray a) noexcept:
    return NULL if a is None else cnp.PyArray_DATA(a)


cdef int bfloat16 = -1  # NumPy's number of the dtype of ml_dtypes, once one was seen; it may be any that is registered later


def know_bfloat16(dtype):
    """From now on, take arrays of this dtype for bfloat16."""
    global bfloat16
    bfloat16 = dtype.num


cdef inline int code_of(int kind) noexcept:
    """The element type of NumPy's type number; -1 where there are no kernels for it."""
    if kind == cnp.NPY_FLOAT32:
        return XENT_F32
    if kind == cnp.NPY_FLOAT64:
        return XENT_F64
    if kind == cnp.NPY_FLOAT16:
        return XENT_F16
    return XENT_BF16 if kind == bfloat16 else -1


cdef inline int code(cnp.ndarray a) noexcept:
    return code_of(cnp.PyArray_TYPE(a))


# ---- quick answers for _check.py ----
# "Yes" for the plain cases, at the price of some ten nanoseconds; on a "no" the checks look closer, and find the words.

cpdef bint are_floats(value) noexcept:
    """Whether this is an ndarray that the kernels can take as it is: aligned, native, of a type that they know."""
    if not cnp.PyArray_CheckExact(value):
        return False
    return code(<cnp.ndarray>value) >= 0 and cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>value)


cpdef bint are_labels(value, cnp.ndarray x, int axis) noexcept:
    """Whether this is an int64 ndarray in C order with the shape of x without its class axis."""
    cdef cnp.ndarray labels
    cdef int k, ndim = cnp.PyArray_NDIM(x)
    if not cnp.PyArray_CheckExact(value):
        return False
    labels = <cnp.ndarray>value
    if cnp.PyArray_TYPE(labels) != cnp.NPY_INT64 or not cnp.PyArray_ISCARRAY_RO(labels):
        return False
    if cnp.PyArray_NDIM(labels) != ndim - 1:
        return False
    for k in range(ndim - 1):
        if cnp.PyArray_DIM(labels, k) != cnp.PyArray_DIM(x, k + (k >= axis)):
            return False
    return True


def in_range(cnp.ndarray x, bint positive):
    """Whether this has no gaps, and all its numbers, float64 or float32, are finite and not negative, or even positive."""
    cdef Py_ssize_t good, n = cnp.PyArray_SIZE(x)
    cdef const void *numbers = cnp.PyArray_DATA(x)
    cdef int kind = code(x)
    if not cnp.PyArray_ISONESEGMENT(x):
        return False
    with nogil:
        good = xent_count_factors(numbers, kind, n, positive)
    return good == n


cpdef empty_like(cnp.ndarray x):
    """A new array of the shape, dtype and order in memory of x."""
    return PyArray_NewLikeArray(x, cnp.NPY_KEEPORDER, NULL, 0)


cdef bint apart(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two arrays without gaps lie apart; False where a closer look is needed."""
    cdef size_t first = <size_t>cnp.PyArray_DATA(a), second = <size_t>cnp.PyArray_DATA(b)
    if not cnp.PyArray_ISONESEGMENT(a) or not cnp.PyArray_ISONESEGMENT(b):
        return False
    return first + cnp.PyArray_NBYTES(a) <= second or second + cnp.PyArray_NBYTES(b) <= first


cdef bint takes(value, cnp.ndarray x) noexcept:
    """Whether this can take a result like x: is x itself or lies apart from it."""
    cdef cnp.ndarray out
    cdef int k, ndim = cnp.PyArray_NDIM(x)
    if not cnp.PyArray_CheckExact(value):
        return False
    out = <cnp.ndarray>value
    if value is x:
        return cnp.PyArray_ISWRITEABLE(x)
    if cnp.PyArray_TYPE(out) != cnp.PyArray_TYPE(x) or not cnp.PyArray_ISBEHAVED(out) or cnp.PyArray_NDIM(out) != ndim:
        return False
    for k in range(ndim):
        if cnp.PyArray_DIM(out, k) != cnp.PyArray_DIM(x, k):
            return False
    return apart(out, x)


def fits(value, cnp.ndarray x, *others):
    """Whether this can take a result like x, and lies apart from the others (or None)."""
    if not takes(value, x):
        return False
    for other in others:
        if other is not None and not apart(<cnp.ndarray>value, <cnp.ndarray>other):
            return False
    return True


cdef int plain_axis(axis, int ndim) noexcept:
    """`axis` counted from the front; -1 where it is no int in range."""
    cdef long k
    if type(axis) is not int:
        return -1
    if not -ndim <= axis < ndim:
        return -1
    k = <long>axis
    return <int>(k + ndim if k < 0 else k)


# ---- arrays that are walked together ----

cdef enum:
    FEW = 64  # partial sums that need no memory of their own


cdef inline const xent_array *seen(cnp.ndarray array, xent_array *room) noexcept:
    """An array as C sees it; None is none."""
    if array is None:
        return NULL
    room.data, room.itemsize, room.ndim = cnp.PyArray_DATA(array), cnp.PyArray_ITEMSIZE(array), cnp.PyArray_NDIM(array)
    room.shape, room.strides = <const Py_ssize_t *>cnp.PyArray_DIMS(array), <const Py_ssize_t *>cnp.PyArray_STRIDES(array)
    return room


cdef bint walk(xent_positions *p, cnp.ndarray x, cnp.ndarray target, cnp.ndarray out, int axis, cnp.ndarray hess=None) noexcept:
    cdef xent_array room[4]
    return xent_walk_positions(p, seen(x, room), seen(target, room + 1), seen(out, room + 2), seen(hess, room + 3), axis)


cdef bint run_softmax(xent_kernel *kernels, cnp.ndarray x, cnp.ndarray grad_in, cnp.ndarray out, int axis, void *result,
                      int threads, int exps=XENT_SUMMED_EXPS, double temperature=1) except -1:
    """Run one kernel of the softmax family; False if the arrays do not lie in a way that the kernels know."""
    cdef xent_softmax_args a
    cdef xent_plan plan
    if not walk(&a.positions, x, grad_in, out, axis):
        return False
    a.result = result
    a.positions.transformed, a.positions.temperature = temperature != 1, temperature
    plan = xent_plan_positions(&a.positions, code(x), exps)
    run(kernels[code(x)], &a, plan.chunks, threads, plan.scratch)
    return True


cdef enum:
    QUICK = 4096  # elements: some microseconds of work, below which to release the GIL would cost more than it gives


cdef int run_small(xent_kernel kernel, xent_positions *p, const xent_plan *plan, cnp.ndarray x) except -1:
    """Run all chunks of a small call on this thread."""
    cdef Py_ssize_t i
    if p.transformed or cnp.PyArray_SIZE(x) > QUICK:
        return run(kernel, p, plan.chunks, 1, plan.scratch)
    for i in range(plan.chunks):
        kernel(p, i, NULL)
    return 0


def quick_softmax(bint logarithm, value, axis, temperature, out, Py_ssize_t most):
    """Return softmax or log_softmax of a plain array of less than `most` elements; None: look closer."""
    cdef xent_softmax_args a
    cdef xent_plan plan
    cdef cnp.ndarray x
    cdef int k
    if not are_floats(value) or not is_temperature(temperature):
        return None
    x = <cnp.ndarray>value
    k = plain_axis(axis, cnp.PyArray_NDIM(x))
    if k < 0 or not 0 < cnp.PyArray_SIZE(x) < most:
        return None
    if out is None:
        out = empty_like(x)
    elif not takes(out, x):
        return None
    if not walk(&a.positions, x, None, <cnp.ndarray>out, k):
        return None
    a.positions.temperature, a.positions.transformed = temperature, temperature != 1
    plan = xent_plan_positions(&a.positions, code(x), XENT_NO_EXPS)
    run_small(table.log_softmax[code(x)] if logarithm else table.softmax[code(x)], &a.positions, &plan, x)
    return out


def softmax(cnp.ndarray x, cnp.ndarray out, int axis, double temperature, int threads):
    return run_softmax(table.softmax, x, None, out, axis, NULL, threads, XENT_REUSED_EXPS, temperature)


def log_softmax(cnp.ndarray x, cnp.ndarray out, int axis, double temperature, int threads):
    return run_softmax(table.log_softmax, x, None, out, axis, NULL, threads, XENT_SUMMED_EXPS, temperature)


def logsumexp(cnp.ndarray x, cnp.ndarray out, int axis, cnp.ndarray result, int threads):
    """`result` has one element per position, in C order; `out` is None."""
    return run_softmax(table.logsumexp, x, None, None, axis, cnp.PyArray_DATA(result), threads)


def softmax_backward(cnp.ndarray grad, cnp.ndarray y, cnp.ndarray out, int axis, int threads):
    return run_softmax(table.softmax_backward, y, grad, out, axis, NULL, threads)


def log_softmax_backward(cnp.ndarray grad, cnp.ndarray y, cnp.ndarray out, int axis, int threads):
    return run_softmax(table.log_softmax_backward, y, grad, out, axis, NULL, threads)


# ---- cross-entropy ----

cdef void plain_cross_entropy(xent_cross_entropy_args *a, bint double_precision) noexcept:
    """The arguments of a loss without options, but for its positions and labels."""
    memset(<char *>a + sizeof(xent_positions), 0, sizeof(a[0]) - sizeof(xent_positions))
    a.losses.single = not double_precision


def quick_cross_entropy(logits, target, out, bint want_grad, Py_ssize_t most, axis, weight, sample_weight, ignore_index,
                        label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction):
    """Return (loss, gradient or None) of plain arrays of less than `most` elements; None: look closer.

    For the reductions "mean" and "sum"; the only other options are label smoothing, a temperature and ignored labels.
    """
    cdef xent_cross_entropy_args a
    cdef xent_plan plan
    cdef double partial[FEW]
    cdef cnp.ndarray x
    cdef Py_ssize_t size, counted = 0
    cdef int k
    cdef double smoothing, divisor, total
    if not (weight is None and sample_weight is None and logit_cap is None and prior is None):
        return None
    if not (is_float(z_loss, 0) and is_float(gamma, 0) and is_temperature(temperature)):
        return None
    if not are_floats(logits):
        return None
    x = <cnp.ndarray>logits
    k = plain_axis(axis, cnp.PyArray_NDIM(x))
    size = cnp.PyArray_SIZE(x)
    if k < 0 or not 0 < size < most or not are_labels(target, x, k):
        return None
    if type(ignore_index) is not int or type(label_smoothing) is not float or not -2**63 <= ignore_index < 2**63:
        return None
    smoothing = label_smoothing
    if not 0 <= smoothing <= 1:
        return None
    if not want_grad:
        out = None
    elif out is None:
        out = empty_like(x)
    elif not takes(out, x) or not apart(<cnp.ndarray>out, <cnp.ndarray>target):
        return None
    if not walk(&a.positions, x, None, <cnp.ndarray>out, k):
        return None
    plain_cross_entropy(&a, code(x) == XENT_F64)
    a.labels.data = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>target)
    a.labels.ignore_index = ignore_index
    if xent_scan_labels(a.labels, a.positions.count, a.positions.classes, &counted) >= 0 or counted == 0:
        return None
    divisor = counted if reduction == "mean" else 1 if reduction == "sum" else 0
    if divisor == 0:
        return None
    a.positions.temperature, a.positions.transformed = temperature, temperature != 1
    a.dense.base, a.peak = smoothing / a.positions.classes, 1 - smoothing
    a.positions.packs = a.positions.packs or a.dense.base != 0
    a.gradient_scale = 1 / divisor / a.positions.temperature
    plan = xent_plan_positions(&a.positions, code(x), XENT_NO_EXPS)
    if plan.chunks > FEW:
        return None
    a.positions.partial, a.positions.sums = partial, 1
    run_small(table.cross_entropy[code(x)], &a.positions, &plan, x)
    total = xent_ordered_sum(partial, plan.chunks, 1) / divisor
    return loss_scalar(total, code(x) == XENT_F64), out


def quick_evaluate(logits, target, Py_ssize_t most, axis, ignore_index):
    """Return (number of labels that are not ignored, sums of losses, squares, entropies and first places, number of each
    label as float64) of plain arrays of less than `most` elements; None: look closer.
    """
    cdef xent_evaluate_args a
    cdef xent_plan plan
    cdef double partial[FEW]
    cdef cnp.ndarray x
    cdef int k
    if not are_floats(logits):
        return None
    x = <cnp.ndarray>logits
    k = plain_axis(axis, cnp.PyArray_NDIM(x))
    if k < 0 or not 0 < cnp.PyArray_SIZE(x) < most or not are_labels(target, x, k):
        return None
    if type(ignore_index) is not int or not -2**63 <= ignore_index < 2**63 or not walk(&a.positions, x, None, None, k):
        return None
    a.labels.data = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>target)
    a.labels.ignore_index, a.positions.keeps_logits, a.most, a.rank, a.sample_weight = ignore_index, True, 1, NULL, NULL
    plan = xent_plan_positions(&a.positions, code(x), XENT_NO_EXPS)
    if 4 * plan.chunks > FEW:
        return None
    each = np.zeros(a.positions.classes)
    bad, counted, _ = scan_labels(target, a.positions.classes, a.labels.ignore_index, None, None, each)
    if bad >= 0:
        return None
    a.positions.partial, a.positions.sums = partial, 4
    run_small(table.evaluate[code(x)], &a.positions, &plan, x)
    return counted, [xent_ordered_sum(partial + k, plan.chunks, 4) for k in range(4)], each


cdef inline bint is_float(value, double wanted):
    return type(value) is float and <double>value == wanted


cdef inline bint is_temperature(value):
    return type(value) is float and 0 < <double>value < INFINITY


cdef object float32_like = np.zeros((), np.float32), float64_like = np.zeros((), np.float64)


cdef loss_scalar(double value, bint double_precision):
    """A NumPy scalar."""
    cdef float single = <float>value
    if double_precision:
        return cnp.PyArray_ToScalar(&value, float64_like)
    return cnp.PyArray_ToScalar(&single, float32_like)


def scan_labels(cnp.ndarray labels, Py_ssize_t classes, int64_t ignore_index, cnp.ndarray weight, cnp.ndarray sample,
                cnp.ndarray per_label=None):
    """Return (index of the first bad label or -1, labels that are not ignored, sum of their weights).

    `labels` are int64 in C order; `weight` per class and `sample` per label are float64 in C order, or None: their product
    is the weight of a label. `per_label`, if not None, are zeros, one per class: the sum of the samples of each is added.
    """
    cdef xent_labels given
    cdef double *w = <double *>data(weight)
    cdef double *s = <double *>data(sample)
    cdef double *each = <double *>data(per_label)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(labels), bad, counted = 0
    cdef double total = 0
    given.data, given.ignore_index = <int64_t *>data(labels), ignore_index
    with nogil:
        bad = xent_scan_labels(given, n, classes, &counted)
        if bad < 0 and (w != NULL or s != NULL or each != NULL):
            total = xent_weigh_labels(given, n, classes, w, s, each)
    return bad, counted, total if w != NULL or s != NULL else <double>counted


def cross_entropy(cnp.ndarray x, cnp.ndarray probs, cnp.ndarray out, second, int axis, cnp.ndarray labels,
                  int64_t ignore_index, cnp.ndarray weight, cnp.ndarray label_weight, double mix, double base, double peak,
                  double z_loss, double gamma, double temperature, double cap, cnp.ndarray offset,
                  cnp.ndarray sample, double gradient_scale, double curvature, cnp.ndarray upstream, cnp.ndarray losses,
                  int threads):
    """Return the sum of the losses, or None if the arrays do not lie in a way that the kernels know.

    `weight` and `offset` (two rows: sums) have the dtype that is computed with; `label_weight`, `sample` and `upstream` are
    float64; all are contiguous. `second` are the second derivatives or None.
    """
    cdef xent_cross_entropy_args a
    cdef xent_plan plan
    if not walk(&a.positions, x, probs, out, axis, second):
        return None
    plain_cross_entropy(&a, code(x) == XENT_F64)
    a.labels.data, a.labels.ignore_index = <int64_t *>data(labels), ignore_index
    a.dense.weight, a.dense.mix, a.dense.base = data(weight), mix, base
    a.label_weight = <double *>data(label_weight)
    a.peak, a.gradient_scale, a.curvature = peak, gradient_scale, curvature
    a.z_loss, a.gamma, a.positions.temperature, a.positions.cap, a.positions.offset = z_loss, gamma, temperature, cap, data(offset)
    a.positions.transformed = temperature != 1 or cap != 0 or offset is not None
    a.positions.packs = a.positions.packs or mix != 0 or base != 0
    a.sample_weight = <double *>data(sample)
    a.upstream = <double *>data(upstream)
    a.losses.data = data(losses)
    plan = xent_plan_positions(&a.positions, code(x), XENT_REUSED_EXPS if out is not None else XENT_SUMMED_EXPS)
    return run_sums(table.cross_entropy[code(x)], &a.positions, threads, &plan, 1)[0]


def evaluate(cnp.ndarray x, out, int axis, cnp.ndarray labels, int64_t ignore_index, cnp.ndarray offset, cnp.ndarray sample,
             cnp.ndarray rank, int64_t most, int threads):
    """Return the sums of losses, squares, entropies and first places, and fill in the int64 `rank` (or None), at most
    `most`, of each label; None if the logits do not lie in a way that the kernels know. `out` is None.
    """
    cdef xent_evaluate_args a
    cdef xent_plan plan
    if not walk(&a.positions, x, None, None, axis):
        return None
    a.labels.data, a.labels.ignore_index = <int64_t *>data(labels), ignore_index
    a.positions.transformed, a.positions.offset = offset is not None, data(offset)
    a.sample_weight = <double *>data(sample)
    a.positions.keeps_logits, a.rank, a.most = True, <int64_t *>data(rank), most
    plan = xent_plan_positions(&a.positions, code(x), XENT_REUSED_EXPS)
    return run_sums(table.evaluate[code(x)], &a.positions, threads, &plan, 4)


cdef double *room_for(Py_ssize_t numbers, double *few) except NULL:
    """Memory for the partial sums of chunks: `few` of FEW numbers, or fresh memory."""
    cdef double *partial = few
    if numbers > FEW:
        partial = <double *>PyMem_Malloc(<size_t>numbers * sizeof(double))
        if partial == NULL:
            raise MemoryError(f"no memory for {numbers} partial sums")
    return partial


cdef list run_sums(xent_kernel kernel, xent_positions *p, int threads, const xent_plan *plan, int sums):
    """Run a kernel and return its sums, added up over the chunks in index order."""
    cdef double few[FEW]
    cdef double *partial = room_for(plan.chunks * sums, few)
    p.partial, p.sums = partial, sums
    try:
        run(kernel, p, plan.chunks, threads, plan.scratch)
        return [xent_ordered_sum(partial + k, plan.chunks, sums) for k in range(sums)]
    finally:
        if partial != few:
            PyMem_Free(partial)


# ---- elementwise ----

cdef run_map(xent_kernel *kernels, cnp.ndarray x, cnp.ndarray out, int threads):
    """`x` and `out` are contiguous, in the same order."""
    cdef xent_map_args a
    a.size = cnp.PyArray_SIZE(x)
    a.x = cnp.PyArray_DATA(x)
    a.out = cnp.PyArray_DATA(out)
    run(kernels[code(x)], &a, xent_plan_map(&a).chunks, threads, 0)


def sigmoid(cnp.ndarray x, cnp.ndarray out, int threads):
    run_map(table.sigmoid, x, out, threads)


def log_sigmoid(cnp.ndarray x, cnp.ndarray out, int threads):
    run_map(table.log_sigmoid, x, out, threads)


# ---- sigmoid cross-entropy ----

cdef int code_of_target(cnp.ndarray target) noexcept:
    """The code of integers by their size, or of floats; -1 where there is none."""
    cdef int kind = cnp.PyArray_TYPE(target)
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(target)
    if not cnp.PyTypeNum_ISINTEGER(kind) and not cnp.PyTypeNum_ISBOOL(kind):
        return code_of(kind)
    return XENT_I8 if size == 1 else XENT_I16 if size == 2 else XENT_I32 if size == 4 else XENT_I64


cdef void sigmoid_options(xent_sigmoid_args *a, double smoothing, double gamma, alpha) noexcept:
    a.mix, a.base = 1 - smoothing, smoothing / 2
    a.gamma = min(gamma, 1e30)  # finite as a float; the powers are 0 or 1 from far below on
    a.alpha_1 = a.alpha_0 = 1
    if alpha is not None:
        a.alpha_1 = alpha
        a.alpha_0 = 1 - a.alpha_1


cdef Py_ssize_t run_sigmoid(xent_sigmoid_args *a, int kind, int threads, double *total) except -2:
    """Return how many elements count, -1 if there is a bad target; the sum of their losses in `total`."""
    cdef double few[FEW]
    cdef Py_ssize_t k, chunks = xent_plan_sigmoid(a).chunks, count = 0
    cdef double *partial = room_for(2 * chunks, few)
    a.partial, a.counted = partial, <int64_t *>(partial + chunks)  # numbers of the same size
    try:
        if a.size <= QUICK:  # one chunk, and not worth giving up the GIL
            for k in range(chunks):
                table.sigmoid_cross_entropy[kind](a, k, NULL)
        else:
            run(table.sigmoid_cross_entropy[kind], a, chunks, threads, 0)
        total[0] = xent_ordered_sum(partial, chunks, 1)
        for k in range(chunks):
            count = -1 if count < 0 or a.counted[k] < 0 else count + a.counted[k]
    finally:
        if partial != few:
            PyMem_Free(partial)
    return count


def quick_sigmoid_cross_entropy(logits, target, label_smoothing, gamma, alpha, reduction, out, bint want_value,
                                bint want_grad, Py_ssize_t most):
    """Return (loss or None, gradient or None) of plain arrays of less than `most` elements; None: look closer.

    Without weights, ignored elements and upstream gradients, for the reductions "mean" and "sum".
    """
    cdef xent_sigmoid_args a
    cdef cnp.ndarray x, t
    cdef double divisor, smoothing, power, total = 0
    cdef int k
    if not are_floats(logits) or not cnp.PyArray_CheckExact(target):
        return None
    x, t = <cnp.ndarray>logits, <cnp.ndarray>target
    memset(&a, 0, sizeof(a))
    a.size, a.target_code = cnp.PyArray_SIZE(x), code_of_target(t)
    if not 0 < a.size < most or cnp.PyArray_NDIM(x) == 0 or not cnp.PyArray_ISCARRAY_RO(x) or not cnp.PyArray_ISCARRAY_RO(t):
        return None
    if a.target_code < XENT_DTYPES and a.target_code != code(x) or cnp.PyArray_NDIM(t) != cnp.PyArray_NDIM(x):
        return None
    for k in range(cnp.PyArray_NDIM(x)):
        if cnp.PyArray_DIM(t, k) != cnp.PyArray_DIM(x, k):
            return None
    if type(label_smoothing) is not float or type(gamma) is not float or alpha is not None and type(alpha) is not float:
        return None
    smoothing, power = label_smoothing, gamma
    divisor = a.size if reduction == "mean" else 1 if reduction == "sum" else 0
    if not 0 <= smoothing <= 1 or not 0 <= power or not isfinite(power) or divisor == 0:
        return None
    if alpha is not None and not 0 <= <double>alpha <= 1:
        return None
    sigmoid_options(&a, smoothing, power, alpha)
    a.x, a.target, a.gradient_scale = cnp.PyArray_DATA(x), cnp.PyArray_DATA(t), 1 / divisor
    if want_grad and out is not None:
        if not cnp.PyArray_CheckExact(out) or not takes(out, x) or not cnp.PyArray_ISCARRAY(<cnp.ndarray>out):
            return None
        if not apart(<cnp.ndarray>out, t) or run_sigmoid(&a, code(x), 1, &total) < 0:  # nothing is written yet
            return None
    elif want_grad:
        out = empty_like(x)
    a.out, a.value = data(<cnp.ndarray>out if want_grad else None), want_value
    if run_sigmoid(&a, code(x), 1, &total) < 0:
        return None
    return loss_scalar(total / divisor, code(x) == XENT_F64) if want_value else None, out if want_grad else None


cdef int fill_factor(xent_factor *f, given) except -1:
    """`given` is (array, repeat, count), or None."""
    f.data = NULL
    if given is not None:
        f.data, f.repeat, f.count = data(<cnp.ndarray>given[0]), given[1], given[2]
    return 0


def sigmoid_cross_entropy(cnp.ndarray x, cnp.ndarray target, cnp.ndarray out, cnp.ndarray losses, bint value, weight,
                          pos_weight, cnp.ndarray upstream, double smoothing, double gamma, alpha, ignore_index,
                          double gradient_scale, int threads):
    """Return (sum of the losses, how many elements count, or -1 if there is a bad target).

    All arrays are contiguous, in the same order. `weight` and `pos_weight` are (array, repeat, count) as in xent_factor.
    Without `value` and `out` the targets are checked, and that is all.
    """
    cdef xent_sigmoid_args a
    cdef double total = 0
    memset(&a, 0, sizeof(a))
    a.size, a.x, a.target, a.target_code = cnp.PyArray_SIZE(x), data(x), data(target), code_of_target(target)
    a.out, a.losses, a.value = data(out), data(losses), value
    if ignore_index is not None:
        a.ignoring, a.ignore_index = True, ignore_index
    fill_factor(&a.weight, weight)
    fill_factor(&a.pos_weight, pos_weight)
    fill_factor(&a.upstream, None if upstream is None else (upstream, 1, a.size))
    sigmoid_options(&a, smoothing, gamma, alpha)
    a.gradient_scale = gradient_scale
    count = run_sigmoid(&a, code(x), threads, &total)
    return total, count


def vmath(name, cnp.ndarray x):
    """Evaluate exp, log or log1p of vmath.h on a contiguous array: the tests measure these by themselves."""
    cdef cnp.ndarray y = x.copy()
    cdef bint single = code(x) == XENT_F32
    cdef void *source = cnp.PyArray_DATA(x)
    cdef void *target = cnp.PyArray_DATA(y)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    if name == "exp" and single:
        table.exp_f32(<const float *>source, <float *>target, n)
    elif name == "exp":
        table.exp_f64(<const double *>source, <double *>target, n)
    elif name == "log" and single:
        table.log_f32(<const float *>source, <float *>target, n)
    elif name == "log":
        table.log_f64(<const double *>source, <double *>target, n)
    elif single:
        table.log1p_f32(<const float *>source, <float *>target, n)
    else:
        table.log1p_f64(<const double *>source, <double *>target, n)
    return y


# ---- losses of probabilities ----

MSE, BINARY_CROSS_ENTROPY, CROSS_ENTROPY = XENT_MSE, XENT_BINARY_CROSS_ENTROPY, XENT_CROSS_ENTROPY
KL_DIV, KL_DIV_LOG, ENTROPY = XENT_KL_DIV, XENT_KL_DIV_LOG, XENT_ENTROPY

def element_losses(cnp.ndarray x, cnp.ndarray target, cnp.ndarray weight, cnp.ndarray upstream, cnp.ndarray out,
                   cnp.ndarray losses, int loss, double unit, double clip, double gradient_scale, bint value, int threads):
    """Return the sum of the losses of all elements in nats (0 without `value`), or None if arrays do not lie in a way that
    the kernels know.

    `target` and `out` have the dtype of x, the others that of its losses; all are of one shape.
    """
    cdef xent_element_losses_args a
    cdef xent_array room[XENT_LOSS_OPERANDS]
    cdef const xent_array *operands[XENT_LOSS_OPERANDS]
    cdef double few[FEW]
    cdef double *partial
    cdef Py_ssize_t chunks
    cdef double total = 0
    operands[0], operands[1], operands[2] = seen(x, room), seen(target, room + 1), seen(weight, room + 2)
    operands[3], operands[4], operands[5] = seen(upstream, room + 3), seen(out, room + 4), seen(losses, room + 5)
    if not xent_walk_elements(&a, operands):
        return None
    a.loss.kind, a.loss.unit, a.loss.clip, a.loss.gradient_scale = loss, unit, clip, gradient_scale
    chunks = xent_plan_elements(&a).chunks
    partial = room_for(chunks, few)
    try:
        a.partial = partial if value else NULL
        run(table.element_losses[code(x)], &a, chunks, threads, 0)
        if value:
            total = xent_ordered_sum(partial, chunks, 1)
    finally:
        if partial != few:
            PyMem_Free(partial)
    return total


def position_losses(cnp.ndarray x, cnp.ndarray target, cnp.ndarray out, int axis, cnp.ndarray losses,
                    cnp.ndarray upstream, int loss, double unit, double clip, double gradient_scale, int threads):
    """Write the loss of each position to `losses`, or return None if the arrays do not lie in a way that the kernels know.

    `target` (None for the entropy) and `out` have the dtype of x; `upstream` is float64 in C order.
    """
    cdef xent_position_losses_args a
    cdef xent_plan plan
    if not walk(&a.positions, x, target, out, axis):
        return None
    a.positions.packs = True
    a.losses = data(losses)
    a.upstream = <double *>data(upstream)
    a.loss.kind, a.loss.unit, a.loss.clip, a.loss.gradient_scale = loss, unit, clip, gradient_scale
    plan = xent_plan_positions(&a.positions, code(x), XENT_NO_EXPS)
    run(table.position_losses[code(x)], &a, plan.chunks, threads, plan.scratch)
    return True


def distillation(cnp.ndarray student, cnp.ndarray teacher, cnp.ndarray out, int axis, cnp.ndarray losses,
                 cnp.ndarray upstream, double temperature, double factor, double gradient_scale, int threads):
    """Return the sum of the losses, or None if the arrays do not lie in a way that the kernels know.

    `upstream` is float64 in C order; `factor` multiplies the losses, of which `losses` takes one per position.
    """
    cdef xent_distillation_args a
    cdef xent_plan plan
    if not walk(&a.positions, student, teacher, out, axis):
        return None
    a.losses = data(losses)
    a.upstream = <double *>data(upstream)
    a.temperature, a.factor, a.gradient_scale = temperature, factor, gradient_scale
    plan = xent_plan_distillation(&a, code(student))
    return run_sums(table.distillation[code(student)], &a.positions, threads, &plan, 1)[0]


# ---- convolution and pooling ----
# All arrays are in C order. A window is the tuple `_check.Window`.

cdef int fill_window(xent_window *w, window) except -1:
    (w.height, w.width, w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, w.dilation_h, w.dilation_w, w.top, w.left,
     w.out_h, w.out_w) = window[:12]
    return 0


cdef int conv_args(xent_conv_args *a, cnp.ndarray x, cnp.ndarray out, window, Py_ssize_t groups) except -1:
    """Fill in the geometry: `x` (N, C, H, W) is read through the window, `out` has as many outputs as `window` says."""
    memset(a, 0, sizeof(a[0]))
    fill_window(&a.window, window)
    a.images, a.groups = cnp.PyArray_DIM(x, 0), groups
    a.in_channels, a.out_channels = cnp.PyArray_DIM(x, 1) // groups, cnp.PyArray_DIM(out, 1) // groups
    a.x = data(x)
    return 0


def conv2d(cnp.ndarray x, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray out, window, Py_ssize_t groups, bint relu,
           place, order, int threads, int pack_threads):
    """Convolve. `place` says where output pixels go (out_... of xent_conv_args), `order` where weights lie (weight_...)."""
    cdef xent_conv_args a
    cdef xent_plan plan
    cdef void *memory
    conv_args(&a, x, out, window, groups)
    a.weight, a.bias, a.out, a.relu = data(weight), data(bias), data(out), relu
    a.out_size = cnp.PyArray_DIM(out, 2) * cnp.PyArray_DIM(out, 3)
    a.out_first, a.out_row, a.out_step = place
    a.weight_first, a.weight_group, a.weight_out, a.weight_in, a.weight_i, a.weight_j = order
    plan = xent_plan_conv2d(&a, table, code(x))
    if plan.chunks == 0:
        return
    memory = PyMem_Malloc(plan.packed + LINE)
    if memory == NULL:
        raise MemoryError(f"no memory for {plan.packed} bytes of packed weights")
    a.packed = <char *>memory + (LINE - <size_t>memory % LINE)
    try:
        run(table.conv2d_pack[code(x)], &a, plan.pack_chunks, pack_threads, 0)
        run(table.conv2d[code(x)], &a, plan.chunks, threads, plan.scratch)
    finally:
        PyMem_Free(memory)


def conv2d_grad_weight(cnp.ndarray grad, cnp.ndarray x, cnp.ndarray weight, window, Py_ssize_t groups, int threads):
    """Return the gradient of the shape of `weight`."""
    cdef xent_conv_args a
    cdef xent_plan plan
    cdef cnp.ndarray out, result
    conv_args(&a, x, grad, window, groups)
    a.grad = data(grad)
    plan = xent_plan_grad_weight(&a, table, code(x))
    if plan.chunks == 0:
        return np.zeros_like(weight)
    out = np.empty((plan.partials,) + (<object>weight).shape, x.dtype)
    a.out = data(out)
    run(table.conv2d_grad_weight[code(x)], &a, plan.chunks, threads, plan.scratch)
    if plan.partials == 1:
        return out[0]
    result = np.empty_like(weight)
    merge(out, result, threads)
    return result


cdef int merge(cnp.ndarray partials, cnp.ndarray out, int threads) except -1:
    cdef xent_merge_args a
    cdef xent_plan plan
    a.size, a.partials = cnp.PyArray_SIZE(out), cnp.PyArray_DIM(partials, 0)
    a.x, a.out = data(partials), data(out)
    plan = xent_plan_merge(&a)
    return run(table.conv2d_merge[code(out)], &a, plan.chunks, min(threads, <int>plan.threads), 0)


def conv2d_grad_bias(cnp.ndarray grad, cnp.ndarray out, int threads):
    cdef xent_conv_args a
    memset(&a, 0, sizeof(a))
    a.images, a.groups, a.out_channels = cnp.PyArray_DIM(grad, 0), 1, cnp.PyArray_DIM(grad, 1)
    a.window.out_h, a.window.out_w = cnp.PyArray_DIM(grad, 2), cnp.PyArray_DIM(grad, 3)
    a.grad, a.out = data(grad), data(out)
    run(table.conv2d_grad_bias[code(grad)], &a, a.out_channels, threads, 0)


cdef int run_im2col(xent_kernel *kernels, cnp.ndarray x, cnp.ndarray out, Py_ssize_t channels, window,
                    int threads) except -1:
    """`channels` counts those of all images."""
    cdef xent_im2col_args a
    fill_window(&a.window, window)
    a.x, a.out = data(x), data(out)
    return run(kernels[code(x)], &a, channels, threads, 0)


def im2col(cnp.ndarray x, cnp.ndarray out, Py_ssize_t channels, window, int threads):
    run_im2col(table.im2col, x, out, channels, window, threads)


def col2im(cnp.ndarray cols, cnp.ndarray out, Py_ssize_t channels, window, int threads):
    run_im2col(table.col2im, cols, out, channels, window, threads)


cdef int run_pool(xent_kernel *kernels, cnp.ndarray grad, cnp.ndarray x, cnp.ndarray out, window, bint count_include_pad,
                  int threads) except -1:
    """`x` gives the planes (N, C, H, W), of which avg_pool2d_backward needs only the shape."""
    cdef xent_pool_args a
    cdef xent_plan plan
    memset(&a, 0, sizeof(a))
    fill_window(&a.window, window)
    a.bottom, a.right = window.bottom, window.right
    a.planes = cnp.PyArray_DIM(x, 0) * cnp.PyArray_DIM(x, 1)
    a.x, a.grad, a.out = data(x), data(grad), data(out)
    a.count_include_pad = count_include_pad
    plan = xent_plan_pool(&a, code(out))
    return run(kernels[code(out)], &a, plan.chunks, threads, plan.scratch)


def max_pool2d(cnp.ndarray x, cnp.ndarray out, window, int threads):
    run_pool(table.max_pool2d, None, x, out, window, False, threads)


def max_pool2d_backward(cnp.ndarray grad, cnp.ndarray x, cnp.ndarray out, window, int threads):
    run_pool(table.max_pool2d_backward, grad, x, out, window, False, threads)


def avg_pool2d(cnp.ndarray x, cnp.ndarray out, window, bint count_include_pad, int threads):
    run_pool(table.avg_pool2d, None, x, out, window, count_include_pad, threads)


def avg_pool2d_backward(cnp.ndarray grad, cnp.ndarray x, cnp.ndarray out, window, bint count_include_pad, int threads):
    run_pool(table.avg_pool2d_backward, grad, x, out, window, count_include_pad, threads)
