# arrays.pxi: what a caller gave, as arrays that the kernels take.
#
# Each argument has a quick "yes" of some ten nanoseconds: an aligned native array of a type that the kernels know, int64
# labels in C order, a Python float in its range, a result that lies apart from what is read. Where it says no, `_check.py`
# converts or explains that argument, and that argument alone.

cdef inline void *data(cnp.ndarray a) noexcept:
    return NULL if a is None else cnp.PyArray_DATA(a)


cdef int bfloat16 = -1  # NumPy's number of the dtype of ml_dtypes, once one was seen; it may be any that is registered later


cdef inline int dtype_code_of(int kind) noexcept:
    """The element type of NumPy's type number; -1 where there are no kernels for it."""
    if kind == cnp.NPY_FLOAT32:
        return XENT_F32
    if kind == cnp.NPY_FLOAT64:
        return XENT_F64
    if kind == cnp.NPY_FLOAT16:
        return XENT_F16
    return XENT_BF16 if kind == bfloat16 else -1


cdef inline int dtype_code(cnp.ndarray a) noexcept:
    return dtype_code_of(cnp.PyArray_TYPE(a))


cdef inline int real_dtype_code(int dtype) noexcept:
    """The type that is computed with, which losses and log-sum-exps have."""
    return XENT_F64 if dtype == XENT_F64 else XENT_F32


cdef inline int real_type(int dtype) noexcept:
    """NumPy's number of that type."""
    return cnp.NPY_FLOAT64 if dtype == XENT_F64 else cnp.NPY_FLOAT32


# ---- what runs code of the caller ----
#
# An option that is asked for its number, or an argument for its array, may do anything before it answers: reshape an array
# that was checked, for one. Where all that comes after an array is inert, as it mostly is, nothing can; else the call works
# on views of its own. Results are checked last.

cdef inline bint is_plain(value) noexcept:
    """Whether no code of the caller's runs when this is converted."""
    return (
        value is None or type(value) is float or type(value) is int or type(value) is str or type(value) is bool
        or cnp.PyArray_CheckExact(value)
    )


cdef inline bint inert(value) noexcept:
    """The same, of a tuple as well."""
    if is_plain(value):
        return True
    if type(value) is not tuple:
        return False
    for item in <tuple>value:
        if not is_plain(item):
            return False
    return True


def are_of_types(items, types):
    """Whether all items of a list or tuple are of some types. Neighbours mostly are of the same."""
    last = None
    for item in items:
        if type(item) is last:
            continue
        last = type(item)
        if last not in types:
            return False
    return True


cdef private(value):
    """A view of an array, which nobody else can reshape; the same for anything else, which becomes an array of ours."""
    return value.view() if cnp.PyArray_CheckExact(value) else value


# ---- data ----

cdef inline bint is_floats(value) noexcept:
    """Whether this is an ndarray that the kernels can take as it is: aligned, native, of a type that they know."""
    if not cnp.PyArray_CheckExact(value):
        return False
    return dtype_code(<cnp.ndarray>value) >= 0 and cnp.PyArray_ISBEHAVED_RO(<cnp.ndarray>value)


cdef cnp.ndarray floats(value, const char *name):
    """An aligned array of native floats that the kernels know; integers and bools become float64."""
    cdef cnp.ndarray array
    if is_floats(value):
        return <cnp.ndarray>value
    array = _check.floats(value, name.decode())
    if dtype_code(array) < 0:  # NumPy gives this dtype a number when ml_dtypes is imported
        know_bfloat16(array.dtype)
    return array


cdef int know_bfloat16(dtype) except -1:
    """From now on, take arrays of this dtype for bfloat16: `_check.floats` lets no other through."""
    global bfloat16
    bfloat16 = dtype.num
    return 0


cdef cnp.ndarray target_like(target, cnp.ndarray x, const char *of, const char *name):
    """Floats of the shape and dtype of `x`; where those would lose bits, float32 beside 16-bit floats, or float64."""
    cdef cnp.ndarray narrow
    if is_floats(target) and same_shape(<cnp.ndarray>target, x):
        if cnp.PyArray_TYPE(<cnp.ndarray>target) == cnp.PyArray_TYPE(x):
            return <cnp.ndarray>target
        if cnp.PyArray_TYPE(<cnp.ndarray>target) == cnp.NPY_FLOAT64 and cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>target):
            narrow = exactly_as_floats(<cnp.ndarray>target)
            return <cnp.ndarray>target if narrow is None else narrow
    return floats(_check.target_like(target, (<object>x).shape, x.dtype, of.decode(), name.decode(), True), name)


cdef cnp.ndarray exactly_as_floats(cnp.ndarray doubles):
    """The same numbers, in C order; None where some would lose bits, of which mostly one is among the first."""
    cdef const double *numbers = <const double *>data(doubles)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(doubles)
    cdef cnp.ndarray result
    cdef float *to
    cdef bint exact
    if not xent_narrow_exactly(numbers, NULL, min(n, SMALL)):
        return None
    result = empty((<object>doubles).shape, F32)
    to = <float *>data(result)
    with nogil:
        exact = xent_narrow_exactly(numbers, to, n)
    return result if exact else None


cdef bint same_shape(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef int k, ndim = cnp.PyArray_NDIM(a)
    if ndim != cnp.PyArray_NDIM(b):
        return False
    for k in range(ndim):
        if cnp.PyArray_DIM(a, k) != cnp.PyArray_DIM(b, k):
            return False
    return True


cdef int axis_of(axis, cnp.ndarray x) except -1:
    """`axis` counted from the front."""
    cdef int too_large, ndim = cnp.PyArray_NDIM(x)
    cdef long long k
    if type(axis) is int:
        k = PyLong_AsLongLongAndOverflow(axis, &too_large)
        if -ndim <= k < ndim and not too_large:
            return <int>(k + ndim if k < 0 else k)
    return _check.axis_of(axis, ndim)


cdef bint is_shape_of_positions(cnp.ndarray array, cnp.ndarray x, int axis) noexcept:
    cdef int k, ndim = cnp.PyArray_NDIM(x)
    if cnp.PyArray_NDIM(array) != ndim - 1:
        return False
    for k in range(ndim - 1):
        if cnp.PyArray_DIM(array, k) != cnp.PyArray_DIM(x, k + (k >= axis)):
            return False
    return True


cdef Py_ssize_t positions_of(cnp.ndarray x, int axis) noexcept:
    """How many positions there are."""
    cdef Py_ssize_t count = 1
    cdef int k
    for k in range(cnp.PyArray_NDIM(x)):
        if k != axis:
            count *= cnp.PyArray_DIM(x, k)
    return count


cdef tuple shape_without(cnp.ndarray x, int axis):
    """The shape of the positions."""
    shape = (<object>x).shape
    return shape[:axis] + shape[axis + 1 :]


cdef cnp.ndarray one_per_position(cnp.ndarray x, int axis, int type_number):
    """A new array for a number of each position, or, without an axis, of each element."""
    cdef cnp.npy_intp shape[XENT_MOST_AXES]
    cdef int k, n = 0
    if cnp.PyArray_NBYTES(x) >= XENT_LARGE_RESULT:
        return empty((<object>x).shape if axis < 0 else shape_without(x, axis), cnp.PyArray_DescrFromType(type_number))
    for k in range(cnp.PyArray_NDIM(x)):
        if k != axis:
            shape[n] = cnp.PyArray_DIM(x, k)
            n += 1
    return cnp.PyArray_EMPTY(n, shape, type_number, 0)


# ---- options ----

cdef inline double real(value, str name, double low, double high=INFINITY) except? -1:
    """A finite float in [low, high]."""
    cdef double number
    if type(value) is float:
        number = value
        if low <= number <= high and number < INFINITY:
            return number
    return _check.real(value, name, low, high)


cdef inline double positive(value, str name) except? -1:
    """A finite float greater than 0."""
    cdef double number
    if type(value) is float:
        number = value
        if 0 < number < INFINITY:
            return number
    return _check.real(value, name, 0.0, open_low=True)


cdef inline bint is_word(value, str word):
    """Whether this is a str, and the word."""
    return type(value) is str and <str>value == word


cdef inline ignored(value):
    """An int that a label can have; for a tuple, see `_check.ignored`."""
    cdef int too_large
    if type(value) is int:
        PyLong_AsLongLongAndOverflow(value, &too_large)
        if not too_large:
            return value
    return _check.ignored(value)


cdef inline one_ignored(values):
    """The one that stands for all in labels that were taken."""
    return (<tuple>values)[0] if type(values) is tuple else values


cdef cnp.ndarray class_numbers(value, Py_ssize_t classes, str name, bint positive=False):
    """One float64 number per class, finite, or even positive; or None."""
    cdef cnp.ndarray array
    if value is None:
        return None
    if cnp.PyArray_CheckExact(value) and cnp.PyArray_NDIM(<cnp.ndarray>value) == 1:
        if cnp.PyArray_DIM(<cnp.ndarray>value, 0) == classes:
            array = plain_numbers(<cnp.ndarray>value, positive)
            if array is not None:
                return array
    return _check.per_class(value, classes, name, positive)


cdef cnp.ndarray position_numbers(value, cnp.ndarray x, int axis, str name):
    """One float64 number per position, finite; or None."""
    cdef cnp.ndarray array
    if value is None:
        return None
    if cnp.PyArray_CheckExact(value) and is_shape_of_positions(<cnp.ndarray>value, x, axis):
        array = plain_numbers(<cnp.ndarray>value, False)
        if array is not None:
            return array
    return _check.sample_weights(value, shape_without(x, axis))


cdef cnp.ndarray plain_numbers(cnp.ndarray array, bint positive):
    """Floats or doubles, all of them finite, or even positive, as doubles in C order; None: look closer."""
    cdef int low, high
    cdef Py_ssize_t n
    cdef int type_number = cnp.PyArray_TYPE(array)
    if type_number != cnp.NPY_FLOAT64 and type_number != cnp.NPY_FLOAT32:
        return None
    if type_number != cnp.NPY_FLOAT64 or not cnp.PyArray_ISCARRAY_RO(array):
        array = cnp.PyArray_FROMANY(array, cnp.NPY_FLOAT64, 0, 0, cnp.NPY_ARRAY_CARRAY_RO)
    if are_factors(array, positive):
        return array
    n = cnp.PyArray_SIZE(array)
    return None if positive or xent_find_exponents(<double *>data(array), n, &low, &high) != n else array


cdef bint are_factors(cnp.ndarray array, bint positive):
    """Whether contiguous floats or doubles are finite and not negative, or even positive."""
    cdef const void *numbers = data(array)
    cdef int dtype = dtype_code(array)
    cdef Py_ssize_t good, n = cnp.PyArray_SIZE(array)
    if n <= SMALL:
        return xent_count_factors(numbers, dtype, n, positive) == n
    with nogil:
        good = xent_count_factors(numbers, dtype, n, positive)
    return good == n


cdef cnp.ndarray narrowed(cnp.ndarray array, int dtype):
    """Numbers (or None) in the type of losses; what is too large for it becomes infinite."""
    if array is None or dtype_code(array) == real_dtype_code(dtype):
        return array
    return _check.narrowed(array, F64 if dtype == XENT_F64 else F32)


cdef cnp.ndarray in_two(cnp.ndarray numbers, int dtype):
    """Float64 numbers (or None) as rows of the type computed with: the numbers, and what rounding left of them."""
    cdef cnp.npy_intp shape[2]
    cdef cnp.npy_intp k, n
    cdef cnp.ndarray both
    cdef double *number
    if numbers is None:
        return None
    n = cnp.PyArray_SIZE(numbers)
    number = <double *>cnp.PyArray_DATA(numbers)
    shape[0], shape[1] = 2, n
    both = cnp.PyArray_EMPTY(2, shape, real_type(dtype), 0)
    for k in range(n):
        if dtype == XENT_F64:
            (<double *>data(both))[k], (<double *>data(both))[n + k] = number[k], 0
        else:
            (<float *>data(both))[k] = <float>number[k]
            (<float *>data(both))[n + k] = <float>(number[k] - (<float *>data(both))[k])
    return both


# ---- labels ----

cdef bint is_labels(value, cnp.ndarray x, int axis, ignore_index) noexcept:
    """Whether this is an int64 ndarray in C order with the shape of x without its class axis, to be taken as it is."""
    if type(ignore_index) is tuple or not cnp.PyArray_CheckExact(value):
        return False
    if cnp.PyArray_TYPE(<cnp.ndarray>value) != cnp.NPY_INT64:
        return False
    return cnp.PyArray_ISCARRAY_RO(<cnp.ndarray>value) and is_shape_of_positions(<cnp.ndarray>value, x, axis)


cdef cnp.ndarray labels_of(target, cnp.ndarray x, int axis, ignore_index):
    """Labels as an aligned int64 array in C order, of the positions' shape."""
    if is_labels(target, x, axis, ignore_index):
        return <cnp.ndarray>target
    return _check.labels_of(target, (<object>x).shape, axis, ignore_index)


cdef tuple target_of(target, cnp.ndarray x, int axis, ignore_index, str name):
    """(labels, None), or (None, probabilities)."""
    if is_floats(target) and cnp.PyArray_TYPE(<cnp.ndarray>target) == cnp.PyArray_TYPE(x):
        if same_shape(<cnp.ndarray>target, x) and cnp.PyArray_DIM(x, axis) > 0:
            return None, target
    labels, probs = _check.target_of(target, (<object>x).shape, x.dtype, axis, ignore_index, name)
    return labels, None if probs is None else floats(probs, b"target")


cdef double count_labels(cnp.ndarray labels, xent_labels *found, Py_ssize_t classes, ignore_index, cnp.ndarray weight,
                         cnp.ndarray sample_weight, cnp.ndarray per_label, Py_ssize_t *counted) except? -1:
    """Fill in `found` and how many labels are not ignored; return the sum of their weights. Raises for the first bad one.

    `weight` per class and `sample_weight` per label are float64 in C order, or None: their product is the weight of a
    label. To `per_label`, `new_sums` of the classes, the sample weights of each label are added. Nothing is ignored if
    `ignore_index` is None.
    """
    cdef Py_ssize_t n = cnp.PyArray_SIZE(labels), bad
    cdef double *w = <double *>data(weight)
    cdef double *s = <double *>data(sample_weight)
    cdef double *each = <double *>data(per_label)
    cdef double mass
    found.data, found.ignore_index = <int64_t *>data(labels), -1 if ignore_index is None else ignore_index
    if n <= SMALL:
        bad = xent_scan_labels(found[0], n, classes, counted)
    else:
        with nogil:
            bad = xent_scan_labels(found[0], n, classes, counted)
    if ignore_index is None and counted[0] != n:  # the first of all bad ones, be it -1 or another
        bad = ((<object>labels).view(np.uint64) >= classes).argmax()
    if bad >= 0:
        raise _check.bad_label(labels, bad, classes, ignore_index)
    if weight is None and sample_weight is None and per_label is None:
        return counted[0]
    with nogil:
        mass = xent_weigh_labels(found[0], n, classes, w, s, each)
    return mass


# ---- results ----

cdef bint no_overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    """Whether two arrays without gaps lie apart; False where a closer look is needed."""
    cdef size_t first, second
    if b is None:
        return True
    first, second = <size_t>cnp.PyArray_DATA(a), <size_t>cnp.PyArray_DATA(b)
    if not cnp.PyArray_ISONESEGMENT(a) or not cnp.PyArray_ISONESEGMENT(b):
        return False
    return first + cnp.PyArray_NBYTES(a) <= second or second + cnp.PyArray_NBYTES(b) <= first


cdef bint is_valid_out(value, cnp.ndarray x) noexcept:
    """Whether this can take a result like x: is x itself or lies apart from it."""
    cdef cnp.ndarray out
    if not cnp.PyArray_CheckExact(value):
        return False
    out = <cnp.ndarray>value
    if value is x:
        return cnp.PyArray_ISWRITEABLE(x) and lies_apart(x)
    if cnp.PyArray_TYPE(out) != cnp.PyArray_TYPE(x) or not cnp.PyArray_ISBEHAVED(out) or not same_shape(out, x):
        return False
    return no_overlap(out, x)


cdef cnp.ndarray result_like(out, cnp.ndarray x, str name, tuple others, int in_place=1):
    """`out`, if it can take a result like x. `others` are (array or None, name) pairs, none of which it may overlap; it may
    be x itself, or one of the first `in_place` - 1 of them.
    """
    if not is_valid_out(out, x) or not all_apart(<cnp.ndarray>out, others, in_place - 1):
        _check.output(out, (<object>x).shape, x.dtype, ((x, name), *others), in_place)
    return <cnp.ndarray>out


cdef bint all_apart(cnp.ndarray out, tuple others, int in_place):
    """Whether this lies apart from all of `others`, but that it may be one of the first `in_place`."""
    cdef int k
    for k, (array, _) in enumerate(others):
        if array is None or (k < in_place and array is out):
            continue
        if not (cnp.PyArray_Check(array) and no_overlap(out, <cnp.ndarray>array)):
            return False
    return True
