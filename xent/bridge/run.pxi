# run.pxi: from arrays to results: walk, run, sum, reduce. Every operator goes through here, for calls of all sizes.

cdef enum:
    STACK_PARTIALS = 64  # partial sums that need no memory of their own
    FEW_FLAGS = 1024  # and flags
    # Elements: some microseconds of work, below which to release the GIL would cost more than it gives.
    SMALL = 4096


# ---- the kernels of a call ----

cdef inline int threads_for(Py_ssize_t work) except -1:
    """The number of threads that a call which touches `work` elements may use."""
    if work < WORTH_A_THREAD and (work < WORTH_AN_AWAKE_THREAD or not xent_is_team_awake()):
        return 1
    return _threads.get_num_threads()


cdef inline void *on_a_line(void *memory) noexcept:
    """The first cache line that begins behind `memory`."""
    return <char *>memory + (CACHE_LINE - <size_t>memory % CACHE_LINE)


@cython.final
cdef class Reserve:
    """Memory for several kernels that write results of one call, had before the first of them runs: while it is `open`, what
    comes to `run` is not worked, but says what it would need.
    """
    cdef public bint open
    cdef public object made  # a result that no kernel writes
    cdef cnp.ndarray scratch, packed  # bytes, as many as any of them needs
    cdef cnp.ndarray partials  # of the one that makes some

    def __cinit__(self):
        self.open, self.scratch, self.packed = True, empty((0,), UINT8), empty((0,), UINT8)


cdef cnp.ndarray at_least(cnp.ndarray memory, Py_ssize_t size):
    """Some memory, or more."""
    return memory if cnp.PyArray_SIZE(memory) >= size else empty((size,), UINT8)


cdef inline int workers_of(const xent_plan *plan, int threads) noexcept:
    """How many of the threads have chunks to work."""
    cdef Py_ssize_t workers = min(<Py_ssize_t>threads, plan.chunks)
    return <int>(min(workers, <Py_ssize_t>plan.threads) if plan.threads else workers)


cdef inline Py_ssize_t scratch_of(const xent_plan *plan, int workers) except -1:
    """Bytes of scratch for each of them, whole cache lines."""
    if plan.scratch_size < 0 or plan.scratch_size > (PY_SSIZE_T_MAX - CACHE_LINE) // max(workers, 1) - CACHE_LINE:
        raise MemoryError("scratch memory of this size cannot be addressed")
    return (plan.scratch_size + CACHE_LINE - 1) // CACHE_LINE * CACHE_LINE if plan.chunks else 0


cdef int run(
    xent_kernel kernel, const void *args, const xent_plan *plan, Py_ssize_t work, Reserve reserve=None,
    xent_kernel first=NULL
) except -1:
    """Work all chunks of a call that touches `work` elements; before, those of what is to be made once, by `first`."""
    cdef Py_ssize_t i, size, chunks = plan.chunks, first_chunks = plan.pack_chunks if first != NULL else 0
    cdef int threads = threads_for(work) if reserve is None or not reserve.open else _threads.get_num_threads()
    cdef int workers = workers_of(plan, threads)
    cdef void *memory = NULL
    cdef char *scratch = NULL
    size = scratch_of(plan, workers)
    if reserve is not None and reserve.open:
        reserve.scratch = at_least(reserve.scratch, size * max(workers, 1) + CACHE_LINE)
        return 0
    if size and reserve is not None and cnp.PyArray_SIZE(reserve.scratch) >= size * max(workers, 1) + CACHE_LINE:
        scratch = <char *>on_a_line(data(reserve.scratch))
    elif size:
        memory = take_scratch(XENT_OF_THREADS, <size_t>(size * max(workers, 1) + CACHE_LINE))
        if memory == NULL:
            raise MemoryError(f"no memory for {workers} x {size} bytes of scratch")
        scratch = <char *>on_a_line(memory)
    if work <= SMALL:
        for i in range(first_chunks):
            first(args, i, NULL)
        for i in range(chunks):
            kernel(args, i, scratch)
    else:
        with nogil:
            xent_run(kernel, args, chunks, threads, workers, scratch, size, first, first_chunks)
    give_scratch(XENT_OF_THREADS, memory)
    return 0


cdef double *room_for(Py_ssize_t numbers, double *few) except NULL:
    """Memory for the partial sums of chunks: `few` of STACK_PARTIALS numbers, or fresh memory."""
    cdef double *partial = few
    if numbers > STACK_PARTIALS:
        if <size_t>numbers > <size_t>PY_SSIZE_T_MAX // sizeof(double):
            raise MemoryError("partial sums of this number cannot be addressed")
        partial = <double *>memory_of(<size_t>numbers * sizeof(double))
        if partial == NULL:
            raise MemoryError(f"no memory for {numbers} partial sums")
    return partial


cdef int run_sums(xent_kernel kernel, xent_positions *positions, const xent_plan *plan, Py_ssize_t work, int sums,
                  double *totals) except -1:
    """Run a kernel of the softmax family, whose arguments begin with `positions`; its sums, added up over the chunks in
    index order, go to `totals`.
    """
    cdef double few[STACK_PARTIALS]
    cdef int k
    cdef double *partial = room_for(plan.chunks * sums, few)
    positions.partial, positions.sums = partial, sums
    try:
        run(kernel, positions, plan, work)
        for k in range(sums):
            totals[k] = xent_ordered_sum(partial + k, plan.chunks, sums)
    finally:
        if partial != few:
            PyMem_Free(partial)
    return 0


cdef run_leaving(xent_kernel kernel, xent_positions *positions, const xent_plan *plan, Py_ssize_t work, double *total):
    """As `run_sums`, of one sum, with a kernel that may leave positions: their numbers, or None."""
    cdef Py_ssize_t few_counts[STACK_PARTIALS]
    cdef uint8_t few_flags[FEW_FLAGS]
    cdef Py_ssize_t *left = few_counts
    cdef uint8_t *is_left = few_flags
    cdef Py_ssize_t k, p, found = 0
    cdef list numbers
    if plan.chunks > STACK_PARTIALS:
        left = <Py_ssize_t *>memory_of(<size_t>plan.chunks * sizeof(Py_ssize_t))
    if positions.count > FEW_FLAGS:
        is_left = <uint8_t *>memory_of(<size_t>positions.count)
    try:
        if left == NULL or is_left == NULL:
            raise MemoryError(f"no memory for notes on {positions.count} positions")
        positions.left, positions.is_left = left, is_left
        run_sums(kernel, positions, plan, work, 1, total)
        for k in range(plan.chunks):
            found += left[k]
        if found == 0:
            return None
        numbers = []
        for p in range(positions.count):
            if left[p // positions.chunk] and is_left[p]:
                numbers.append(p)
        return np.array(numbers)
    finally:
        if left != few_counts:
            PyMem_Free(left)
        if is_left != few_flags:
            PyMem_Free(is_left)


def add_to(cnp.ndarray total, cnp.ndarray part):
    """total += part, of contiguous arrays of the same size and of floats or doubles, on all threads."""
    cdef xent_add_args a
    cdef xent_plan plan
    a.size, a.single = cnp.PyArray_SIZE(total), dtype_code(total) == XENT_F32
    a.total, a.part = data(total), data(part)
    plan = xent_plan_add(&a)
    run(xent_add, &a, &plan, a.size)


def reorder(cnp.ndarray source, cnp.ndarray target):
    """target[...] = source, of arrays of one shape and dtype that do not overlap, on all threads. Whether that was done: in
    one of them numbers must be neighbours.
    """
    cdef xent_reorder_args a
    cdef xent_plan plan
    cdef xent_array slot[2]
    if not cnp.PyArray_SIZE(source) or not cnp.PyArray_ISBEHAVED_RO(source) or not cnp.PyArray_ISBEHAVED(target):
        return False
    if cnp.PyArray_TYPE(source) != cnp.PyArray_TYPE(target):
        return False
    if not xent_see_order(&a, seen(source, slot), seen(target, slot + 1)):
        return False
    plan = xent_plan_reorder(&a)
    run(xent_reorder, &a, &plan, cnp.PyArray_SIZE(source))
    return True


# ---- walks ----

cdef inline const xent_array *seen(cnp.ndarray array, xent_array *slot) noexcept:
    """An array as the walks take it; None is NULL."""
    if array is None:
        return NULL
    slot.data, slot.itemsize, slot.ndim = cnp.PyArray_DATA(array), cnp.PyArray_ITEMSIZE(array), cnp.PyArray_NDIM(array)
    slot.shape, slot.strides = <const Py_ssize_t *>cnp.PyArray_DIMS(array), <const Py_ssize_t *>cnp.PyArray_STRIDES(array)
    return slot


cdef inline bint walk(
    xent_positions *p, cnp.ndarray x, cnp.ndarray target, cnp.ndarray out, cnp.ndarray hess, int axis, bint apart=False
) noexcept:
    cdef xent_array slot[4]
    if apart:
        return xent_walk_apart(p, seen(x, slot), seen(target, slot + 1), seen(out, slot + 2), seen(hess, slot + 3), axis)
    return xent_walk_positions(p, seen(x, slot), seen(target, slot + 1), seen(out, slot + 2), seen(hess, slot + 3), axis)


cdef tuple walk_or_copy(
    xent_positions *p, cnp.ndarray x, cnp.ndarray target, cnp.ndarray out, cnp.ndarray hess, int axis, bint apart=False
):
    """Find out how the arrays lie. None if a kernel takes them as they are; else copies in C order (x, target, out, hess)
    which are taken instead, to be kept until they are delivered. `apart`: whether classes of x may lie a few numbers apart.
    """
    if walk(p, x, target, out, hess, axis, apart):
        return None
    return copies_in_c_order(p, x, target, out, hess, axis)


cdef tuple walk_labels_or_copy(xent_positions *p, cnp.ndarray x, cnp.ndarray out, int axis):
    """The same for losses that look at one class of each position."""
    cdef xent_array slot[2]
    if xent_walk_labels(p, seen(x, slot), seen(out, slot + 1), axis):
        return None
    return copies_in_c_order(p, x, None, out, None, axis)


cdef tuple copies_in_c_order(
    xent_positions *p, cnp.ndarray x, cnp.ndarray target, cnp.ndarray out, cnp.ndarray hess, int axis
):
    """Copies of what does not lie as it should, which are taken instead."""
    x, target = in_c_order(x), in_c_order(target)
    if walk(p, x, target, out, hess, axis):  # it may have been the inputs alone
        return x, target, out, hess
    copies = x, target, empty_in_c_order(out), empty_in_c_order(hess)
    if not walk(p, x, target, <cnp.ndarray>copies[2], <cnp.ndarray>copies[3], axis):
        raise RuntimeError("arrays in C order were refused: a bug in xent, please report it")
    return copies


cdef inline int deliver(tuple copies, cnp.ndarray out, cnp.ndarray hess) except -1:
    """Put results that were made in copies where they belong."""
    if copies is not None:
        for copy, to in ((copies[2], out), (copies[3], hess)):
            if copy is not to:
                put(copy, to)
    return 0


cdef int put(cnp.ndarray source, cnp.ndarray target) except -1:
    """target[...] = source, of arrays of one shape that do not overlap."""
    if cnp.PyArray_SIZE(source) <= SMALL or not reorder(source, target):
        (<object>target)[...] = source
    return 0


cdef cnp.ndarray in_c_order(cnp.ndarray array):
    """The same, or a copy, in C order; None for None."""
    cdef cnp.ndarray copy
    if array is None or cnp.PyArray_IS_C_CONTIGUOUS(array):
        return array
    if cnp.PyArray_SIZE(array) <= SMALL:
        return np.asarray(array, order="C")
    copy = empty_in_c_order(array)
    put(array, copy)
    return copy


# ---- reductions ----

cdef object float32_like = np.zeros((), np.float32), float64_like = np.zeros((), np.float64)


cdef inline scalar(double value, int dtype):
    """A NumPy scalar of the type of losses."""
    cdef float single = <float>value
    if dtype == XENT_F64:
        return cnp.PyArray_ToScalar(&value, float64_like)
    return cnp.PyArray_ToScalar(&single, float32_like)


cdef inline unpacked(array):
    """A NumPy scalar for 0-d."""
    return array[()] if cnp.PyArray_NDIM(<cnp.ndarray>array) == 0 else array


cdef inline returned(result, out):
    """What a call returns: the caller's `out`, as it came, or a new result."""
    return unpacked(result) if out is None else out


# ---- sums at places: bins, classes, sequences ----

cdef cnp.ndarray new_sums(tuple shape, bint weighted):
    """Zeros for sums, and behind them for what these lose (Knuth's TwoSum) where they are not of counts, which are exact.
    """
    return np.zeros((2 if weighted else 1, *shape))


cdef inline void add_at(double *sums, Py_ssize_t place, Py_ssize_t lost, double value) noexcept nogil:
    """Add to one of `new_sums`. What it loses lies `lost` numbers behind it; 0 of counts."""
    if lost:
        two_sum_add(sums + place, sums + lost + place, value)
    else:
        sums[place] += value


cdef cnp.ndarray settled(cnp.ndarray sums):
    """The sums with what they have lost; None of None."""
    if sums is None:
        return None
    if cnp.PyArray_DIM(sums, 0) == 2:
        xent_settle(<double *>data(sums), cnp.PyArray_SIZE(sums) // 2)
    return sums[0]


def sums_at(place, values, Py_ssize_t size):
    """Return the sums of the values at each place, float64; those of ones, integers, if `values` is None.

    They are right to the last bit or so: bincount's sum of 10^5 equal numbers is off by 10^3 roundings.
    """
    cdef cnp.ndarray where = np.ascontiguousarray(place, INT64).reshape(-1), numbers, sums
    cdef Py_ssize_t n = cnp.PyArray_SIZE(where)
    cdef int64_t *at
    cdef double *terms
    cdef double *into
    if values is None:
        return np.bincount(where, None, size)[:size]
    numbers = np.ascontiguousarray(values, F64).reshape(-1)
    if cnp.PyArray_SIZE(numbers) != n:
        raise ValueError(f"values must be as many as places, {n}, got {len(numbers)}")
    sums = new_sums((size,), True)
    at, terms, into = <int64_t *>data(where), <double *>data(numbers), <double *>data(sums)
    with nogil:
        xent_sum_at(at, terms, n, size, into)
    return settled(sums)
