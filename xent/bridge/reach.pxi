# reach.pxi: how far the factors of a softmax loss go, and by which arithmetic it is computed therefore.
#
# The kernels take factors whose products stay within bounds: they multiply them in doubles, one after the other, and what
# they make of exponentials counts down to a certain size. Beyond these, floats are computed as doubles, and beyond those
# `_exact.py` has numbers with exponents of their own.

cdef enum:
    IN_KERNELS
    AS_DOUBLES
    EXACTLY

cdef enum:
    # Exponentials of floats are there down to 2^-166 of the largest (HEADROOM of stats.h), results down to 2^-149; of
    # doubles 2^-1278 and 2^-1074. So a factor may be:
    MOST_GAIN_OF_FLOATS = 17
    MOST_GAIN_OF_DOUBLES = 200
    # Exponents of factors, added up whatever their signs: no product of some of them leaves the range.
    MOST_REACH_OF_FLOATS = 100
    MOST_REACH_OF_DOUBLES = 900

ctypedef struct exponents:
    int low, high  # of the smallest and the largest of some numbers that are not 0


cdef inline exponents exponents_of(double number) noexcept:
    cdef exponents found
    found.low = found.high = 0
    if number != 1:  # as most are
        xent_find_exponents(&number, 1, &found.low, &found.high)
    return found


cdef inline bint are_plain(cnp.ndarray numbers) noexcept:
    """Whether nothing of float64 numbers (or None) is out of what people use as weights."""
    if numbers is None:
        return True
    return xent_count_plain(<double *>data(numbers), cnp.PyArray_SIZE(numbers)) == cnp.PyArray_SIZE(numbers)


cdef exponents exponents_in(cnp.ndarray numbers, bint plain) noexcept:
    """Those of float64 numbers (or None); of plain ones without a look at each."""
    cdef exponents found
    found.low = found.high = 0
    if numbers is not None and plain:
        found.low, found.high = XENT_PLAIN_LOW, XENT_PLAIN_HIGH
    elif numbers is not None:
        xent_find_exponents(<double *>data(numbers), cnp.PyArray_SIZE(numbers), &found.low, &found.high)
    return found


cdef inline void times(exponents *product, int *reach, exponents by) noexcept:
    product.low, product.high = product.low + by.low, product.high + by.high
    reach[0] += max(abs(by.low), abs(by.high))


cdef inline void over(exponents *product, int *reach, double by) noexcept:
    cdef exponents e = exponents_of(by)
    product.low, product.high = product.low - e.high, product.high - e.low
    reach[0] += max(abs(e.low), abs(e.high))


cdef int arithmetic_of(LossCall call) except -1:
    """By which arithmetic a softmax loss with the factors of a call is computed."""
    cdef bint plain
    cdef int kind
    if (
        call.weight is None and call.sample_weight is None and call.upstream is None and call.options.temperature == 1
        and call.wants != PRODUCT
    ):
        if call.options.cap == 0 and call.options.z_loss == 0 and call.factor == 1 and call.divisor >= 1:  # the quick yes
            return IN_KERNELS
    if cnp.PyArray_SIZE(call.x) == 0:
        return IN_KERNELS
    plain = are_plain(call.weight) and are_plain(call.sample_weight) and are_plain(call.upstream)
    kind = arithmetic_for(call, plain)
    return arithmetic_for(call, False) if plain and kind != IN_KERNELS else kind


cdef bint leaves_range(double t, double cap, int dtype) noexcept:
    """Whether what a temperature and a cap make of logits may leave the range of the kernels' arithmetic on the way."""
    cdef exponents of_t = exponents_of(t), of_cap = exponents_of(cap)
    cdef int reach = max(abs(of_t.low), abs(of_t.high)) + max(abs(of_cap.low), abs(of_cap.high))
    return reach > (MOST_REACH_OF_DOUBLES if dtype == XENT_F64 else MOST_REACH_OF_FLOATS)


cdef exponents exponents_of_vector(LossCall call) except *:
    """Those of the vector of a product; of floats the ends of their range."""
    cdef exponents found
    if call.dtype == XENT_F64:
        return exponents_in(in_c_order(call.vector), are_plain(in_c_order(call.vector)))
    found.low, found.high = -149, 128
    return found


cdef int arithmetic_for(LossCall call, bint plain) except -1:
    cdef exponents loss, grad, e
    cdef int reach = 0, gain, k, logits
    cdef double t = call.options.temperature, cap = call.options.cap
    loss.low = loss.high = 0
    times(&loss, &reach, exponents_in(call.weight, plain))
    times(&loss, &reach, exponents_in(call.sample_weight, plain))
    if not isfinite(call.divisor):
        return EXACTLY
    over(&loss, &reach, call.divisor)
    e = exponents_of(call.options.z_loss)
    reach += max(abs(e.low), abs(e.high))
    gain = loss.high
    if call.wants != VALUE and (call.wants != TOTAL or call.grad is not None):
        grad = loss
        times(&grad, &reach, exponents_in(call.upstream, plain))
        times(&grad, &reach, exponents_of(call.factor))
        if call.wants == PRODUCT:
            times(&grad, &reach, exponents_of_vector(call))
        for k in range(2 if call.wants == GRAD_AND_HESS or call.wants == PRODUCT else 1):
            over(&grad, &reach, t)
            gain = max(gain, grad.high)
    e = exponents_of(t)
    logits = max(abs(e.low), abs(e.high))
    if cap != 0:
        e = exponents_of(cap)
        logits += max(abs(e.low), abs(e.high))
    if call.dtype != XENT_F64 and call.wants != PRODUCT:  # a product is made of doubles whatever it is of
        if gain <= MOST_GAIN_OF_FLOATS and reach <= MOST_REACH_OF_FLOATS and logits <= MOST_REACH_OF_FLOATS:
            return IN_KERNELS
        return AS_DOUBLES
    if cap == 0:
        logits = 0  # the temperature alone may be anything
    if gain <= MOST_GAIN_OF_DOUBLES and reach <= MOST_REACH_OF_DOUBLES and logits <= MOST_REACH_OF_DOUBLES:
        return IN_KERNELS
    return EXACTLY if call.dtype == XENT_F64 else AS_DOUBLES
