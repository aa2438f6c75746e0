# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""The bridge: array buffers become pointers, the GIL is released, and chunks of work are spread over threads.

Nothing is checked here that a user can get wrong (that is `_check.py`), no default is known here (that is the API layer),
and no number of threads is decided here (that is `_threads.py`). The only parallel loop of the library is `run`.
"""

cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY, isfinite
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

import os

import numpy as np

cnp.import_array()

cdef extern from "csrc/table.h" nogil:
    enum:
        XENT_F32
        XENT_F64
        XENT_F16
        XENT_BF16
        XENT_DTYPES
        XENT_I8
        XENT_I16
        XENT_I32
        XENT_I64

    ctypedef void (*xent_kernel)(const void *args, Py_ssize_t chunk, void *scratch) noexcept nogil

    ctypedef struct xent_table:
        const char *name
        int vector_bytes, strip_bytes
        xent_kernel softmax[4]
        xent_kernel log_softmax[4]
        xent_kernel logsumexp[4]
        xent_kernel softmax_backward[4]
        xent_kernel log_softmax_backward[4]
        xent_kernel cross_entropy[4]
        xent_kernel evaluate[4]
        xent_kernel sigmoid[4]
        xent_kernel log_sigmoid[4]
        xent_kernel sigmoid_cross_entropy[4]
        xent_kernel element_losses[4]
        xent_kernel position_losses[4]
        xent_kernel distillation[4]
        xent_kernel im2col[4]
        xent_kernel col2im[4]
        xent_kernel conv2d_pack[4]
        xent_kernel conv2d[4]
        xent_kernel conv2d_grad_weight[4]
        xent_kernel conv2d_merge[4]
        xent_kernel conv2d_grad_bias[4]
        xent_kernel max_pool2d[4]
        xent_kernel max_pool2d_backward[4]
        xent_kernel avg_pool2d[4]
        xent_kernel avg_pool2d_backward[4]
        void (*exp_f32)(const float *, float *, Py_ssize_t) noexcept nogil
        void (*exp_f64)(const double *, double *, Py_ssize_t) noexcept nogil
        void (*log_f32)(const float *, float *, Py_ssize_t) noexcept nogil
        void (*log_f64)(const double *, double *, Py_ssize_t) noexcept nogil
        void (*log1p_f32)(const float *, float *, Py_ssize_t) noexcept nogil
        void (*log1p_f64)(const double *, double *, Py_ssize_t) noexcept nogil

    const xent_table *xent_find(const char *name)
    const char *xent_isa_name(int index, int *usable)
    int xent_max_threads()
    int xent_forked()
    int xent_watch_forks()

    ctypedef struct xent_operand:
        void *data
        Py_ssize_t far, outer, stride

    ctypedef struct xent_softmax_args:
        Py_ssize_t positions, inner, per, classes, chunk, room
        xent_operand x, aux, out, second
        void *per_position
        int single
        double *partial
        int sums
        int transformed
        double temperature, cap
        void *offset
        int64_t *label
        int64_t ignore_index
        void *weight
        double *label_weight
        double mix, base, peak
        double z_loss, gamma
        double *sample
        double gradient_scale
        double *upstream
        double curvature
        int evaluates
        int64_t *rank
        int64_t most
        int loss
        double unit, clip, factor

    enum:
        XENT_MSE
        XENT_BINARY_CROSS_ENTROPY
        XENT_CROSS_ENTROPY
        XENT_KL_DIV
        XENT_KL_DIV_LOG
        XENT_ENTROPY

    ctypedef struct xent_loss_args:
        Py_ssize_t rows, per, length, piece, chunk
        xent_operand x, target, out, weight, upstream, losses
        double *partial
        int loss
        double unit, clip, gradient_scale

    ctypedef struct xent_map_args:
        Py_ssize_t size, chunk
        void *x
        void *out

    ctypedef struct xent_factor:
        void *data
        Py_ssize_t repeat, count

    ctypedef struct xent_sigmoid_args:
        Py_ssize_t size, chunk
        void *x
        void *target
        int target_code, ignoring
        int64_t ignore_index
        xent_factor weight, pos_weight, upstream
        double mix, base, gamma, alpha_1, alpha_0, gradient_scale
        int value
        void *out
        void *losses
        double *partial
        int64_t *counted

    ctypedef struct xent_window:
        Py_ssize_t height, width, kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left, out_h, out_w

    ctypedef struct xent_im2col_args:
        xent_window window
        void *x
        void *out

    ctypedef struct xent_conv_args:
        xent_window window
        Py_ssize_t images, groups, in_channels, out_channels
        void *x
        void *weight
        void *bias
        void *grad
        void *packed
        void *out
        int relu
        Py_ssize_t out_size, out_first, out_row, out_step
        Py_ssize_t weight_first, weight_group, weight_out, weight_in, weight_i, weight_j
        Py_ssize_t width

    ctypedef struct xent_plan:
        Py_ssize_t chunks, scratch, partials

    ctypedef struct xent_merge_args:
        Py_ssize_t size, partials, chunk
        void *x
        void *out

    xent_plan xent_plan_conv2d(xent_conv_args *a, const xent_table *table, int dtype)
    xent_plan xent_plan_grad_weight(xent_conv_args *a, const xent_table *table, int dtype)

    ctypedef struct xent_pool_args:
        xent_window window
        Py_ssize_t planes
        void *x
        void *grad
        void *out
        int count_include_pad
        Py_ssize_t bottom, right, chunk
        Py_ssize_t first_tap, taps, phases, before, after, span, line

    ctypedef struct xent_tap:
        pass

    enum:
        HELD

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


ctypedef fused real:
    float
    double


cdef Py_ssize_t good_factors(const real *number, Py_ssize_t n, bint positive) noexcept nogil:
    """How many are finite and not negative, or even positive."""
    cdef Py_ssize_t i, good = 0
    for i in range(n):  # without a branch: the compiler makes vectors of it
        good += (number[i] > 0 or (not positive and number[i] == 0)) and number[i] < INFINITY
    return good


def in_range(cnp.ndarray x, bint positive):
    """Whether this has no gaps, and all its numbers, float64 or float32, are finite and not negative, or even positive."""
    cdef Py_ssize_t good, n = cnp.PyArray_SIZE(x)
    if not cnp.PyArray_ISONESEGMENT(x):
        return False
    with nogil:
        if cnp.PyArray_TYPE(x) == cnp.NPY_DOUBLE:
            good = good_factors(<const double *>cnp.PyArray_DATA(x), n, positive)
        else:
            good = good_factors(<const float *>cnp.PyArray_DATA(x), n, positive)
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


cdef inline Py_ssize_t ceil_div(Py_ssize_t a, Py_ssize_t b) noexcept:
    return (a + b - 1) // b


# ---- arrays that are walked together ----

cdef enum:
    OPERANDS = 6
    MOST_AXES = 64  # of a NumPy array


cdef struct walked:  # arrays of one shape, where a kernel wants to find them, and the axes that they are walked along
    int arrays, axes
    PyObject *array[OPERANDS]
    xent_operand *operand[OPERANDS]
    Py_ssize_t count[MOST_AXES]
    Py_ssize_t step[OPERANDS][MOST_AXES]  # bytes between neighbours


cdef inline void add_operand(walked *w, cnp.ndarray array, xent_operand *operand) noexcept:
    """None is no operand."""
    if array is None:
        return
    w.array[w.arrays], w.operand[w.arrays] = <PyObject *>array, operand
    w.arrays += 1


cdef bint merge_axes(walked *w, int axis, int most) noexcept:
    """Find the axes besides `axis`. Neighbours that are evenly spaced in all arrays count as one, an axis of one element as
    none. False where there are more than `most`, or steps are no whole elements.
    """
    cdef cnp.ndarray first = <cnp.ndarray>w.array[0], array
    cdef Py_ssize_t size
    cdef int k, n
    cdef bint mergeable
    w.axes = 0
    for k in range(cnp.PyArray_NDIM(first)):
        size = cnp.PyArray_DIM(first, k)
        if k == axis or size == 1:
            continue
        mergeable = w.axes > 0
        for n in range(w.arrays):
            mergeable = mergeable and w.step[n][w.axes - 1] == cnp.PyArray_STRIDE(<cnp.ndarray>w.array[n], k) * size
        if not mergeable:
            w.count[w.axes] = 1
            w.axes += 1
        w.count[w.axes - 1] *= size
        for n in range(w.arrays):
            w.step[n][w.axes - 1] = cnp.PyArray_STRIDE(<cnp.ndarray>w.array[n], k)
    for n in range(w.arrays):
        array = <cnp.ndarray>w.array[n]
        if not cnp.PyArray_ISALIGNED(array):
            return False
        for k in range(w.axes):
            if w.step[n][k] % cnp.PyArray_ITEMSIZE(array):
                return False
    return w.axes <= most


cdef inline void fill_operand(walked *w, int n, int inner) noexcept:
    """Where array n begins and its steps along two axes, of which `inner` is the second; axes that it lacks have none."""
    cdef cnp.ndarray array = <cnp.ndarray>w.array[n]
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(array)
    w.operand[n].data = cnp.PyArray_DATA(array)
    w.operand[n].outer = w.step[n][inner] // item if inner >= 0 else 0
    w.operand[n].far = w.step[n][inner - 1] // item if inner >= 1 else 0


cdef bint describe(xent_softmax_args *a, walked *w, int axis) noexcept:
    """See arrays of one type as (far, per, classes, inner), all in the same way; False where they do not lie so."""
    cdef cnp.ndarray first = <cnp.ndarray>w.array[0]
    cdef Py_ssize_t item = cnp.PyArray_ITEMSIZE(first), stride
    cdef int k, n, axes
    cdef bint rows = True, columns
    a.classes = cnp.PyArray_DIM(first, axis)
    a.positions = a.inner = a.per = 1
    for k in range(cnp.PyArray_NDIM(first)):
        if k != axis:
            a.positions *= cnp.PyArray_DIM(first, k)
    if cnp.PyArray_SIZE(first) == 0:  # nothing to walk, and strides that mean nothing
        a.per = max(a.positions, 1)
        return True
    if not merge_axes(w, axis, 3):
        return False
    axes = w.axes
    columns = axes > 0
    for n in range(w.arrays):
        stride = cnp.PyArray_STRIDE(<cnp.ndarray>w.array[n], axis)
        if stride % item:
            return False
        rows = rows and (a.classes <= 1 or stride == item)
        columns = columns and w.step[n][axes - 1] == item
        w.operand[n].stride = stride // item
    if not rows:
        if not columns:
            return False
        axes -= 1
        a.inner = w.count[axes]
    if axes > 2:
        return False
    a.per = w.count[axes - 1] if axes else 1
    for n in range(w.arrays):
        fill_operand(w, n, axes - 1)
    return True


# A chunk is about this many logits: large enough that handing it out costs nothing, small enough for an even load.
cdef enum:
    CHUNK = 16384
    FEW = 64  # partial sums that need no memory of their own
    TILE = 128  # of position.h
    EXPS_BYTES = 32768  # of tile.h: exponentials of shorter rows lie on the stack
    LINE_COLUMNS = 16  # of tile.h: positions of whole cache lines
    MOST_EXPS_BYTES = 1 << 20  # of the size of an L2 cache: at 512 KiB, its size, a gain of 15 %
    ROW_PADDING = 128  # GROUP of position.h times the numbers in the widest vector
    FEW_ROWS = 8  # or tiles of columns: for fewer, fresh memory costs as much as it saves
    TRANSFORMED_BYTES = 16384  # of each array of a tile of transformed logits: together within an L1 cache


cdef Py_ssize_t tile_of_columns(Py_ssize_t positions) noexcept:
    """A chunk of columns of many classes: a tile, for long stretches of memory, but four chunks at least."""
    return TILE if positions >= 4 * TILE else max(positions // 4 // LINE_COLUMNS * LINE_COLUMNS, LINE_COLUMNS)


cdef bint prepare(xent_softmax_args *a, cnp.ndarray x, cnp.ndarray aux, cnp.ndarray out, int axis,
                  cnp.ndarray second=None) noexcept:
    """Describe the arrays and cut the positions into chunks, by shapes alone."""
    cdef walked w
    cdef Py_ssize_t chunk
    memset(a, 0, sizeof(a[0]))
    w.arrays = 0
    add_operand(&w, x, &a.x)
    add_operand(&w, aux, &a.aux)
    add_operand(&w, out, &a.out)
    add_operand(&w, second, &a.second)
    a.temperature = 1
    a.single = code(x) != XENT_F64
    if not describe(a, &w, axis):
        return False
    chunk = CHUNK // max(a.classes, 1)
    if chunk >= TILE:
        chunk = chunk // TILE * TILE
    else:
        chunk = tile_of_columns(a.positions) if a.inner > 1 else max(chunk, 1)
    a.chunk = chunk
    return True


cdef size_t make_room(xent_softmax_args *a, cnp.ndarray x, bint exps) noexcept:
    """Set the exponentials of long rows, or columns, that a thread keeps in scratch memory; 0 where that would not pay.

    `exps`: the result is made of them. Columns gain in any case: they are looked at once. Returns the size of the memory.
    """
    cdef Py_ssize_t item = 8 if code(x) == XENT_F64 else 4
    cdef Py_ssize_t room = a.classes + ROW_PADDING, share = 1, arrays = 2
    if a.transformed:
        arrays += (a.aux.data != NULL) + (a.second.data != NULL)
        room = a.classes * (LINE_COLUMNS if a.inner > 1 else 1) + ROW_PADDING
        a.room = arrays * max(room, TRANSFORMED_BYTES // item)
        return a.room * item
    if a.inner > 1:
        share = TILE
        room = min(a.classes * TILE * (2 if a.evaluates else 1), MOST_EXPS_BYTES // item)
    if (exps or a.inner > 1) and a.positions >= FEW_ROWS * share and EXPS_BYTES < room * item <= MOST_EXPS_BYTES:
        a.room = room
    return a.room * item


cdef bint run_softmax(xent_kernel *kernels, cnp.ndarray x, cnp.ndarray aux, cnp.ndarray out, int axis,
                      void *per_position, int threads, bint exps=False, double temperature=1) except -1:
    """Run one kernel of the softmax family; False if the arrays do not lie in a way that the kernels know.

    `exps`: it makes its result of the exponentials.
    """
    cdef xent_softmax_args a
    if not prepare(&a, x, aux, out, axis):
        return False
    a.per_position = per_position
    a.transformed, a.temperature = temperature != 1, temperature
    run(kernels[code(x)], &a, ceil_div(a.positions, a.chunk), threads, make_room(&a, x, exps))
    return True


cdef enum:
    QUICK = 4096  # elements: some microseconds of work, below which to release the GIL would cost more than it gives


cdef int run_small(xent_kernel kernel, xent_softmax_args *a, cnp.ndarray x) except -1:
    """Run all chunks of a small call on this thread."""
    cdef Py_ssize_t i, chunks = ceil_div(a.positions, a.chunk)
    if a.transformed or cnp.PyArray_SIZE(x) > QUICK:
        return run(kernel, a, chunks, 1, make_room(a, x, False) if a.transformed else 0)
    for i in range(chunks):
        kernel(a, i, NULL)
    return 0


def quick_softmax(bint logarithm, value, axis, temperature, out, Py_ssize_t most):
    """Return softmax or log_softmax of a plain array of less than `most` elements; None: look closer."""
    cdef xent_softmax_args a
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
    if not prepare(&a, x, None, <cnp.ndarray>out, k):
        return None
    a.temperature, a.transformed = temperature, temperature != 1
    run_small(table.log_softmax[code(x)] if logarithm else table.softmax[code(x)], &a, x)
    return out


def softmax(cnp.ndarray x, cnp.ndarray out, int axis, double temperature, int threads):
    return run_softmax(table.softmax, x, None, out, axis, NULL, threads, True, temperature)


def log_softmax(cnp.ndarray x, cnp.ndarray out, int axis, double temperature, int threads):
    return run_softmax(table.log_softmax, x, None, out, axis, NULL, threads, False, temperature)


def logsumexp(cnp.ndarray x, cnp.ndarray out, int axis, cnp.ndarray result, int threads):
    """`result` has one element per position, in C order; `out` is None."""
    return run_softmax(table.logsumexp, x, None, None, axis, cnp.PyArray_DATA(result), threads)


def softmax_backward(cnp.ndarray grad, cnp.ndarray y, cnp.ndarray out, int axis, int threads):
    return run_softmax(table.softmax_backward, y, grad, out, axis, NULL, threads)


def log_softmax_backward(cnp.ndarray grad, cnp.ndarray y, cnp.ndarray out, int axis, int threads):
    return run_softmax(table.log_softmax_backward, y, grad, out, axis, NULL, threads)


# ---- cross-entropy ----

cdef inline void add(double *total, double *error, double term) noexcept nogil:
    """Add to a sum, and the rounding error of the addition to its own (Knuth's TwoSum)."""
    cdef double new = total[0] + term
    cdef double back = new - total[0]
    error[0] += (total[0] - (new - back)) + (term - back)
    total[0] = new


def quick_cross_entropy(logits, target, out, bint want_grad, Py_ssize_t most, axis, weight, sample_weight, ignore_index,
                        label_smoothing, z_loss, gamma, temperature, logit_cap, prior, reduction):
    """Return (loss, gradient or None) of plain arrays of less than `most` elements; None: look closer.

    For the reductions "mean" and "sum"; the only other options are label smoothing, a temperature and ignored labels.
    """
    cdef xent_softmax_args a
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
    if not prepare(&a, x, None, <cnp.ndarray>out, k) or ceil_div(a.positions, a.chunk) > FEW:
        return None
    a.label = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>target)
    a.ignore_index = ignore_index
    if first_bad(a.label, a.positions, a.classes, a.ignore_index, &counted) >= 0 or counted == 0:
        return None
    divisor = counted if reduction == "mean" else 1 if reduction == "sum" else 0
    if divisor == 0:
        return None
    a.temperature, a.transformed = temperature, temperature != 1
    a.base, a.peak, a.gradient_scale = smoothing / a.classes, 1 - smoothing, 1 / divisor / a.temperature
    a.partial, a.sums = partial, 1
    run_small(table.cross_entropy[code(x)], &a, x)
    total = ordered_sum(partial, ceil_div(a.positions, a.chunk), 1) / divisor
    return loss_scalar(total, code(x) == XENT_F64), out


def quick_evaluate(logits, target, Py_ssize_t most, axis, ignore_index):
    """Return (number of labels that are not ignored, sums of losses, squares, entropies and first places, number of each
    label as float64) of plain arrays of less than `most` elements; None: look closer.
    """
    cdef xent_softmax_args a
    cdef double partial[FEW]
    cdef cnp.ndarray x
    cdef Py_ssize_t chunks
    cdef int k
    if not are_floats(logits):
        return None
    x = <cnp.ndarray>logits
    k = plain_axis(axis, cnp.PyArray_NDIM(x))
    if k < 0 or not 0 < cnp.PyArray_SIZE(x) < most or not are_labels(target, x, k):
        return None
    if type(ignore_index) is not int or not -2**63 <= ignore_index < 2**63 or not prepare(&a, x, None, None, k):
        return None
    chunks = ceil_div(a.positions, a.chunk)
    a.label = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>target)
    a.ignore_index, a.peak, a.evaluates, a.most = ignore_index, 1, True, 1
    if 4 * chunks > FEW:
        return None
    each = np.zeros(a.classes)
    bad, counted, _ = scan_labels(target, a.classes, a.ignore_index, None, None, each)
    if bad >= 0:
        return None
    a.partial, a.sums = partial, 4
    run_small(table.evaluate[code(x)], &a, x)
    return counted, [ordered_sum(partial + k, chunks, 4) for k in range(4)], each


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


cdef Py_ssize_t first_bad(const int64_t *label, Py_ssize_t n, Py_ssize_t classes, int64_t ignore_index,
                          Py_ssize_t *counted) noexcept nogil:
    """The index of the first bad label, or -1 and the number of those that are not ignored."""
    cdef Py_ssize_t i, good = 0, ignored = 0
    for i in range(n):  # without a branch: the compiler makes vectors of it
        good += <uint64_t>label[i] < <uint64_t>classes and label[i] != ignore_index
        ignored += label[i] == ignore_index
    counted[0] = good
    if good + ignored == n:
        return -1
    for i in range(n):
        if label[i] != ignore_index and <uint64_t>label[i] >= <uint64_t>classes:
            return i
    return -1  # another thread has written to the labels meanwhile


def scan_labels(cnp.ndarray labels, Py_ssize_t classes, int64_t ignore_index, cnp.ndarray weight, cnp.ndarray sample,
                cnp.ndarray per_label=None):
    """Return (index of the first bad label or -1, labels that are not ignored, sum of their weights).

    `labels` are int64 in C order; `weight` per class and `sample` per label are float64 in C order, or None: their product
    is the weight of a label. `per_label`, if not None, are zeros, one per class: the sum of the samples of each is added.
    """
    cdef int64_t *label = <int64_t *>data(labels)
    cdef double *w = <double *>data(weight)
    cdef double *s = <double *>data(sample)
    cdef double *each = <double *>data(per_label)
    cdef Py_ssize_t i, n = cnp.PyArray_SIZE(labels), bad, counted = 0
    cdef int64_t y
    cdef double total = 0, error = 0, factor
    with nogil:
        bad = first_bad(label, n, classes, ignore_index, &counted)
        if bad < 0 and (w != NULL or s != NULL or each != NULL):
            for i in range(n):
                y = label[i]
                if y == ignore_index or <uint64_t>y >= <uint64_t>classes:
                    continue
                factor = 1 if s == NULL else s[i]
                if each != NULL:
                    each[y] += factor
                if w != NULL or s != NULL:
                    add(&total, &error, factor if w == NULL else w[y] * factor)
    return bad, counted, total + error if w != NULL or s != NULL else <double>counted


def cross_entropy(cnp.ndarray x, cnp.ndarray probs, cnp.ndarray out, second, int axis, cnp.ndarray labels,
                  int64_t ignore_index, cnp.ndarray weight, cnp.ndarray label_weight, double mix, double base, double peak,
                  double z_loss, double gamma, double temperature, double cap, cnp.ndarray offset,
                  cnp.ndarray sample, double gradient_scale, double curvature, cnp.ndarray upstream, cnp.ndarray losses,
                  int threads):
    """Return the sum of the losses, or None if the arrays do not lie in a way that the kernels know.

    `weight` and `offset` (two rows: sums) have the dtype that is computed with; `label_weight`, `sample` and `upstream` are
    float64; all are contiguous. `second` are the second derivatives or None.
    """
    cdef xent_softmax_args a
    if not prepare(&a, x, probs, out, axis, second):
        return None
    a.label = <int64_t *>data(labels)
    a.ignore_index = ignore_index
    a.weight = data(weight)
    a.label_weight = <double *>data(label_weight)
    a.mix, a.base, a.peak, a.gradient_scale, a.curvature = mix, base, peak, gradient_scale, curvature
    a.z_loss, a.gamma, a.temperature, a.cap, a.offset = z_loss, gamma, temperature, cap, data(offset)
    a.transformed = temperature != 1 or cap != 0 or offset is not None
    a.sample = <double *>data(sample)
    a.upstream = <double *>data(upstream)
    a.per_position = data(losses)
    return run_sums(table.cross_entropy[code(x)], &a, threads, make_room(&a, x, out is not None), 1)[0]


def evaluate(cnp.ndarray x, out, int axis, cnp.ndarray labels, int64_t ignore_index, cnp.ndarray offset, cnp.ndarray sample,
             cnp.ndarray rank, int64_t most, int threads):
    """Return the sums of losses, squares, entropies and first places, and fill in the int64 `rank` (or None), at most
    `most`, of each label; None if the logits do not lie in a way that the kernels know. `out` is None.
    """
    cdef xent_softmax_args a
    if not prepare(&a, x, None, None, axis):
        return None
    a.label = <int64_t *>data(labels)
    a.ignore_index = ignore_index
    a.peak = 1
    a.transformed, a.offset = offset is not None, data(offset)
    a.sample = <double *>data(sample)
    a.evaluates, a.rank, a.most = True, <int64_t *>data(rank), most
    return run_sums(table.evaluate[code(x)], &a, threads, make_room(&a, x, True), 4)


cdef double *room_for(Py_ssize_t numbers, double *few) except NULL:
    """Memory for the partial sums of chunks: `few` of FEW numbers, or fresh memory."""
    cdef double *partial = few
    if numbers > FEW:
        partial = <double *>PyMem_Malloc(<size_t>numbers * sizeof(double))
        if partial == NULL:
            raise MemoryError(f"no memory for {numbers} partial sums")
    return partial


cdef list run_sums(xent_kernel kernel, xent_softmax_args *a, int threads, size_t scratch, int sums):
    """Run a kernel and return its sums, added up over the chunks in index order."""
    cdef double few[FEW]
    cdef Py_ssize_t chunks = ceil_div(a.positions, a.chunk)
    cdef double *partial = room_for(chunks * sums, few)
    a.partial, a.sums = partial, sums
    try:
        run(kernel, a, chunks, threads, scratch)
        return [ordered_sum(partial + k, chunks, sums) for k in range(sums)]
    finally:
        if partial != few:
            PyMem_Free(partial)


cdef double ordered_sum(const double *terms, Py_ssize_t n, int step) noexcept nogil:
    """The sum of every `step`th of the terms, n of them, in index order."""
    cdef double total = 0, error = 0
    cdef Py_ssize_t k
    for k in range(n):
        add(&total, &error, terms[k * step])
    return total + error if isfinite(total) else total


# ---- elementwise ----

cdef run_map(xent_kernel *kernels, cnp.ndarray x, cnp.ndarray out, int threads):
    """`x` and `out` are contiguous, in the same order."""
    cdef xent_map_args a
    a.size = cnp.PyArray_SIZE(x)
    a.chunk = CHUNK
    a.x = cnp.PyArray_DATA(x)
    a.out = cnp.PyArray_DATA(out)
    run(kernels[code(x)], &a, (a.size + CHUNK - 1) // CHUNK, threads, 0)


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
    cdef Py_ssize_t k, chunks = ceil_div(a.size, CHUNK), count = 0
    cdef double *partial = room_for(2 * chunks, few)
    a.chunk = CHUNK
    a.partial, a.counted = partial, <int64_t *>(partial + chunks)  # numbers of the same size
    try:
        if a.size <= QUICK:  # one chunk, and not worth giving up the GIL
            for k in range(chunks):
                table.sigmoid_cross_entropy[kind](a, k, NULL)
        else:
            run(table.sigmoid_cross_entropy[kind], a, chunks, threads, 0)
        total[0] = ordered_sum(partial, chunks, 1)
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

cdef enum:
    SCRATCH = 2048  # numbers of each array that distillation works on: four of them fit an L1 cache


cdef bint describe_rows(xent_loss_args *a, walked *w) noexcept:
    """See arrays of one shape as rows; False where they do not lie so. The stride along the rows is one element, or, of the
    weights, none at all.
    """
    cdef int n, last
    if not merge_axes(w, -1, 3):
        return False
    last = w.axes - 1
    a.length = w.count[last] if last >= 0 else 1
    a.per = w.count[last - 1] if last >= 1 else 1
    a.rows = a.per * (w.count[last - 2] if last >= 2 else 1)
    for n in range(w.arrays):
        w.operand[n].stride = w.step[n][last] // cnp.PyArray_ITEMSIZE(<cnp.ndarray>w.array[n]) if last >= 0 else 1
        fill_operand(w, n, last - 1)
        if w.operand[n].stride != 1 and not (w.operand[n] == &a.weight and w.operand[n].stride == 0):
            return False
    return True


def element_losses(cnp.ndarray x, cnp.ndarray target, cnp.ndarray weight, cnp.ndarray upstream, cnp.ndarray out,
                   cnp.ndarray losses, int loss, double unit, double clip, double gradient_scale, bint value, int threads):
    """Return the sum of the losses of all elements in nats (0 without `value`), or None if arrays do not lie in a way that
    the kernels know.

    `target` and `out` have the dtype of x, the others that of its losses; all are of one shape.
    """
    cdef xent_loss_args a
    cdef walked w
    cdef double few[FEW]
    cdef double *partial
    cdef Py_ssize_t chunks
    cdef double total = 0
    memset(&a, 0, sizeof(a))
    w.arrays = 0
    add_operand(&w, x, &a.x)
    add_operand(&w, target, &a.target)
    add_operand(&w, weight, &a.weight)
    add_operand(&w, upstream, &a.upstream)
    add_operand(&w, out, &a.out)
    add_operand(&w, losses, &a.losses)
    if cnp.PyArray_SIZE(x) == 0:
        return 0.0
    if not describe_rows(&a, &w):
        return None
    a.piece, a.chunk = CHUNK, max(CHUNK // a.length, 1)
    a.loss, a.unit, a.clip, a.gradient_scale = loss, unit, clip, gradient_scale
    chunks = ceil_div(a.rows, a.chunk) * ceil_div(a.length, a.piece)
    partial = room_for(chunks, few)
    try:
        a.partial = partial if value else NULL
        run(table.element_losses[code(x)], &a, chunks, threads, 0)
        if value:
            total = ordered_sum(partial, chunks, 1)
    finally:
        if partial != few:
            PyMem_Free(partial)
    return total


def position_losses(cnp.ndarray x, cnp.ndarray target, cnp.ndarray out, int axis, cnp.ndarray losses,
                    cnp.ndarray upstream, int loss, double unit, double clip, double gradient_scale, int threads):
    """Write the loss of each position to `losses`, or return None if the arrays do not lie in a way that the kernels know.

    `target` (None for the entropy) and `out` have the dtype of x; `upstream` is float64 in C order.
    """
    cdef xent_softmax_args a
    if not prepare(&a, x, target, out, axis):
        return None
    a.mix = 1  # not a function of the logits alone: short rows become columns (tile.h)
    a.per_position = data(losses)
    a.upstream = <double *>data(upstream)
    a.loss, a.unit, a.clip, a.gradient_scale = loss, unit, clip, gradient_scale
    run(table.position_losses[code(x)], &a, ceil_div(a.positions, a.chunk), threads, 0)
    return True


def distillation(cnp.ndarray student, cnp.ndarray teacher, cnp.ndarray out, int axis, cnp.ndarray losses,
                 cnp.ndarray upstream, double temperature, double factor, double gradient_scale, int threads):
    """Return the sum of the losses, or None if the arrays do not lie in a way that the kernels know.

    `upstream` is float64 in C order; `factor` multiplies the losses, of which `losses` takes one per position.
    """
    cdef xent_softmax_args a
    cdef size_t item = 8 if code(student) == XENT_F64 else 4
    if not prepare(&a, student, teacher, out, axis):
        return None
    a.per_position = data(losses)
    a.upstream = <double *>data(upstream)
    a.temperature, a.factor, a.unit, a.gradient_scale = temperature, factor, 1, gradient_scale
    a.room = max(a.classes * LINE_COLUMNS if a.inner > 1 else a.classes + ROW_PADDING, SCRATCH)
    return run_sums(table.distillation[code(student)], &a, threads, 4 * a.room * item, 1)[0]


# ---- convolution and pooling ----
# All arrays are in C order. A window is the tuple `_check.Window`.

cdef int fill_window(xent_window *w, window) except -1:
    (w.height, w.width, w.kernel_h, w.kernel_w, w.stride_h, w.stride_w, w.dilation_h, w.dilation_w, w.top, w.left,
     w.out_h, w.out_w) = window[:12]
    return 0


cdef enum:
    MERGE = 262144  # additions that are worth a thread: some 100 us


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
    cdef Py_ssize_t strips
    cdef size_t size = cnp.PyArray_ITEMSIZE(x)
    cdef void *memory
    conv_args(&a, x, out, window, groups)
    a.weight, a.bias, a.out, a.relu = data(weight), data(bias), data(out), relu
    a.out_size = cnp.PyArray_DIM(out, 2) * cnp.PyArray_DIM(out, 3)
    a.out_first, a.out_row, a.out_step = place
    a.weight_first, a.weight_group, a.weight_out, a.weight_in, a.weight_i, a.weight_j = order
    plan = xent_plan_conv2d(&a, table, code(x))
    if plan.chunks == 0:
        return
    strips = groups * ceil_div(a.out_channels, a.width)
    size *= strips * a.width * a.in_channels * a.window.kernel_h * a.window.kernel_w
    memory = PyMem_Malloc(size + LINE)
    if memory == NULL:
        raise MemoryError(f"no memory for {size} bytes of packed weights")
    a.packed = <char *>memory + (LINE - <size_t>memory % LINE)
    try:
        run(table.conv2d_pack[code(x)], &a, strips, pack_threads, 0)
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
    a.size, a.partials, a.chunk = cnp.PyArray_SIZE(out), cnp.PyArray_DIM(partials, 0), CHUNK
    a.x, a.out = data(partials), data(out)
    threads = min(threads, <int>(a.size * a.partials // MERGE))
    return run(table.conv2d_merge[code(out)], &a, ceil_div(a.size, CHUNK), threads, 0)


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


cdef enum:
    VECTOR = 16  # numbers: no instruction set has longer vectors


cdef size_t lay_out(xent_pool_args *a, size_t itemsize) except 0:
    """Lay out the rows of pool.h in scratch. Return its size in bytes."""
    cdef xent_window *w = &a.window
    cdef Py_ssize_t last = (w.out_w - 1) * w.stride_w - w.left  # where the last window begins
    cdef Py_ssize_t end = min(w.kernel_w, ceil_div(w.width + w.left, w.dilation_w))
    a.first_tap = ceil_div(-last, w.dilation_w) if last < 0 else 0
    a.taps = max(end - a.first_tap, 0)
    a.phases = w.stride_w if w.stride_w <= max(a.taps, 2) else a.taps
    a.before = max(0, ceil_div(w.left - a.first_tap * w.dilation_w, w.stride_w))
    a.after = max(0, ((a.first_tap + a.taps) * w.dilation_w - w.left) // w.stride_w + 1)
    a.span = a.before + a.after + ceil_div(max(w.out_w, ceil_div(w.width, w.stride_w)), VECTOR) * VECTOR
    a.line = ceil_div(w.width, 2 * VECTOR) * 2 * VECTOR
    return 2 * a.taps * sizeof(xent_tap) + (a.line + (HELD * a.phases + 4) * a.span) * itemsize


cdef int run_pool(xent_kernel *kernels, cnp.ndarray grad, cnp.ndarray x, cnp.ndarray out, window, bint count_include_pad,
                  int threads) except -1:
    """`x` gives the planes (N, C, H, W), of which avg_pool2d_backward needs only the shape."""
    cdef xent_pool_args a
    memset(&a, 0, sizeof(a))
    fill_window(&a.window, window)
    a.bottom, a.right = window.bottom, window.right
    a.planes = cnp.PyArray_DIM(x, 0) * cnp.PyArray_DIM(x, 1)
    a.x, a.grad, a.out = data(x), data(grad), data(out)
    a.count_include_pad = count_include_pad
    a.chunk = max(1, CHUNK // (a.window.height * a.window.width))
    return run(kernels[code(out)], &a, ceil_div(a.planes, a.chunk), threads, lay_out(&a, cnp.PyArray_ITEMSIZE(out)))


def max_pool2d(cnp.ndarray x, cnp.ndarray out, window, int threads):
    run_pool(table.max_pool2d, None, x, out, window, False, threads)


def max_pool2d_backward(cnp.ndarray grad, cnp.ndarray x, cnp.ndarray out, window, int threads):
    run_pool(table.max_pool2d_backward, grad, x, out, window, False, threads)


def avg_pool2d(cnp.ndarray x, cnp.ndarray out, window, bint count_include_pad, int threads):
    run_pool(table.avg_pool2d, None, x, out, window, count_include_pad, threads)


def avg_pool2d_backward(cnp.ndarray grad, cnp.ndarray x, cnp.ndarray out, window, bint count_include_pad, int threads):
    run_pool(table.avg_pool2d_backward, grad, x, out, window, count_include_pad, threads)
