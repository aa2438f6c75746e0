# results.pxi: new arrays for results. Large ones take the memory of earlier ones that are gone (csrc/results.c).
#
# NumPy lets an array bring its own allocator (NEP 49) and remembers it. So such an array owns its data, can be resized,
# pickled and traced like any other, and gives its memory back to where it came from. Whoever asks for an array here
# writes all of it, or drops it.

cdef extern from "numpy/arrayobject.h":
    ctypedef struct PyDataMemAllocator:
        void *ctx
        void *(*malloc)(void *, size_t) noexcept
        void *(*calloc)(void *, size_t, size_t) noexcept
        void *(*realloc)(void *, void *, size_t) noexcept
        void (*free)(void *, void *, size_t) noexcept

    ctypedef struct PyDataMem_Handler:
        char name[127]
        uint8_t version
        PyDataMemAllocator allocator

    object PyDataMem_SetHandler(object handler)
    object PyDataMem_GetHandler()
    PyObject *PyDataMem_DefaultHandler


cdef PyDataMem_Handler allocator  # static: arrays call it until the process ends
strcpy(allocator.name, b"xent_results")
allocator.version = 1
allocator.allocator.ctx = NULL
allocator.allocator.malloc, allocator.allocator.calloc = xent_result_malloc, xent_result_calloc
allocator.allocator.realloc, allocator.allocator.free = xent_result_realloc, xent_result_free

cdef object results_handler = PyCapsule_New(&allocator, b"mem_handler", NULL)


cdef cnp.ndarray empty_like(cnp.ndarray x):
    """A new array of the shape, dtype and order in memory of x; one that repeats its elements has no order."""
    if repeats(x):
        return empty_in_c_order(x)
    if cnp.PyArray_NBYTES(x) < XENT_LARGE_RESULT:
        return PyArray_NewLikeArray(x, cnp.NPY_KEEPORDER, NULL, 0)
    return large(cnp.PyArray_NBYTES(x), np.empty_like, (x, None, "K", False))


cdef inline bint repeats(cnp.ndarray x) noexcept:
    """Whether elements along an axis are the same: NumPy would make that axis the innermost one of a new array."""
    cdef int k
    for k in range(cnp.PyArray_NDIM(x)):
        if cnp.PyArray_STRIDE(x, k) == 0 and cnp.PyArray_DIM(x, k) > 1:
            return True
    return False


cpdef bint lies_apart(cnp.ndarray x) noexcept:
    """Whether elements of x share no memory: whether, from the shortest steps to the longest, each leads beyond all that
    those before it reach. So it is in every part of an array whose elements lie apart. Arrays made by `as_strided` may be
    woven into each other without meeting; to find that out is hard, and they count as if they met.
    """
    cdef Py_ssize_t step[XENT_MOST_AXES]
    cdef Py_ssize_t count[XENT_MOST_AXES]
    cdef Py_ssize_t distance, reach = cnp.PyArray_ITEMSIZE(x)
    cdef int i, k, axes = 0
    if cnp.PyArray_ISONESEGMENT(x) or cnp.PyArray_SIZE(x) == 0:
        return True
    for k in range(cnp.PyArray_NDIM(x)):
        if cnp.PyArray_DIM(x, k) == 1:
            continue
        distance, i, axes = abs(cnp.PyArray_STRIDE(x, k)), axes, axes + 1
        while i > 0 and step[i - 1] > distance:
            step[i], count[i] = step[i - 1], count[i - 1]
            i -= 1
        step[i], count[i] = distance, cnp.PyArray_DIM(x, k)
    for k in range(axes):
        if step[k] < reach or step[k] > (PY_SSIZE_T_MAX - reach) // (count[k] - 1):
            return False
        reach += (count[k] - 1) * step[k]
    return True


cdef cnp.ndarray empty_in_c_order(cnp.ndarray x):
    """The same in C order; None for None."""
    if x is None:
        return None
    if cnp.PyArray_NBYTES(x) < XENT_LARGE_RESULT:
        return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cnp.PyArray_TYPE(x), 0)
    return large(cnp.PyArray_NBYTES(x), np.empty, ((<object>x).shape, (<object>x).dtype))


cpdef cnp.ndarray empty(tuple shape, dtype):
    """A new array in C order."""
    cdef double size = dtype.itemsize
    for n in shape:
        size *= n
    return np.empty(shape, dtype) if size < XENT_LARGE_RESULT else large(size, np.empty, (shape, dtype))


cdef cnp.ndarray large(double size, make, tuple args):
    """make(*args), in memory of an earlier result if the bound allows that size and nobody chose another allocator."""
    handler = PyDataMem_GetHandler()
    if size > xent_results_bound() or <PyObject *>handler != PyDataMem_DefaultHandler:
        try:
            return make(*args)
        except MemoryError:
            if not drop_kept():
                raise
            return make(*args)
    PyDataMem_SetHandler(results_handler)
    try:
        return make(*args)
    finally:
        PyDataMem_SetHandler(handler)


cdef void *memory_of(size_t size) noexcept:
    """PyMem_Malloc, which may have what is kept here if nothing else is left."""
    cdef void *memory = PyMem_Malloc(size)
    return PyMem_Malloc(size) if memory == NULL and drop_kept() else memory


# Scratch, kept for the next call. malloc gives the end of its heap back to the system, which clears it anew: softmax of
# 128,256 classes took five to six times as long beside a result of its own. One block of each kind is kept, and of calls at
# the same time one gets it. Before what a block is for, a cache line has its size.

cdef inline size_t room_of(void *scratch) noexcept:
    return (<size_t *>(<char *>scratch - CACHE_LINE))[0]


cdef void free_block(void *scratch) noexcept:
    if scratch != NULL:
        PyMem_Free(<char *>scratch - CACHE_LINE)


cdef void *take_scratch(xent_scratch kind, size_t size) noexcept:
    """At least so many bytes, for give_scratch; NULL: there are none."""
    cdef void *scratch = xent_spare(kind, NULL)
    if scratch != NULL and room_of(scratch) >= size:
        return scratch
    free_block(scratch)
    cdef char *memory = <char *>(memory_of(CACHE_LINE + size) if size <= <size_t>PY_SSIZE_T_MAX - CACHE_LINE else NULL)
    if memory == NULL:
        return NULL
    (<size_t *>memory)[0] = size
    return memory + CACHE_LINE


cdef void give_scratch(xent_scratch kind, void *scratch) noexcept:
    """Keep it for the next call, in the place of what is kept, or let it go."""
    if scratch != NULL and room_of(scratch) <= min(<size_t>XENT_MOST_UNMARKED, xent_results_bound()):
        scratch = xent_spare(kind, scratch)
    free_block(scratch)


cdef bint drop_kept() noexcept:
    """Give all that is kept to the system; whether there was any."""
    cdef bint any_results = xent_drop_results() != 0
    cdef bint any_scratch = drop_scratch()
    return any_results or any_scratch


cdef bint drop_scratch() noexcept:
    cdef bint found = False
    cdef void *scratch
    cdef int kind
    for kind in range(<int>XENT_SCRATCHES):
        scratch = xent_spare(<xent_scratch>kind, NULL)
        found = found or scratch != NULL
        free_block(scratch)
    return found


cdef size_t scratch_held() noexcept:
    cdef size_t held = 0
    cdef void *scratch
    cdef int kind
    for kind in range(<int>XENT_SCRATCHES):
        scratch = xent_spare(<xent_scratch>kind, NULL)
        if scratch != NULL:
            held += room_of(scratch)
        give_scratch(<xent_scratch>kind, scratch)
    return held


def bound_results(size_t most, bint huge):
    """Keep no more than `most` bytes; `huge`: in huge pages."""
    with nogil:
        xent_bound_results(most, huge)
    if most < XENT_MOST_UNMARKED:
        drop_scratch()
