# images.pxi: convolution and pooling. All arrays are in C order. A window is the tuple `_window.Window`.

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


cdef int known_code(cnp.ndarray a) except -1:
    """The element type of an array that `_check.floats` let through."""
    if dtype_code(a) < 0:
        know_bfloat16(a.dtype)
    return dtype_code(a)


cdef Py_ssize_t work_of(const xent_conv_args *a) noexcept:
    """The products of a convolution, in the unit of `threads_for`. An output takes the time of some 24 products more: short
    sums of 256 small images took 0.8 ns each.
    """
    cdef double taps = <double>a.window.kernel_h * a.window.kernel_w * a.in_channels + 24
    cdef double outputs = <double>a.images * a.groups * a.out_channels * a.window.out_h * a.window.out_w
    return <Py_ssize_t>min(outputs * taps / PRODUCTS_PER_ELEMENT, <double>PY_SSIZE_T_MAX // 2)


cdef int pack(xent_conv_args *a, const xent_plan *plan, int code, void *memory) except -1:
    """Pack weights that are kept, into memory for plan.packed bytes and a cache line."""
    cdef xent_plan pack
    memset(&pack, 0, sizeof(pack))
    pack.chunks = plan.pack_chunks - a.patch_chunks
    a.packed = on_a_line(memory)
    cdef Py_ssize_t patches = a.patch_chunks
    a.patch_chunks = 0  # all are of weights
    run(table.conv2d_pack[code], a, &pack, plan.packed // <Py_ssize_t>sizeof(float))
    a.patch_chunks = patches
    return 0


cdef xent_kernel place_made(xent_conv_args *a, const xent_plan *plan, void *memory, int code) noexcept:
    """Tell where that lies which is made once, patches and, if they are not kept, packed weights: memory for both and two
    cache lines. Returns what makes them.
    """
    a.patches = on_a_line(memory)
    if plan.packed:
        a.packed = on_a_line(<char *>a.patches + a.patch_bytes)
    return table.conv2d_pack[code]


def conv2d(
    cnp.ndarray x, cnp.ndarray weight, cnp.ndarray bias, cnp.ndarray out, window, Py_ssize_t groups, bint relu, place, order,
    dict packed=None, Reserve reserve=None
):
    """Convolve. `place` says where output pixels go (out_... of xent_conv_args), `order` where weights lie (weight_...). The
    bias is of the type computed with. `packed` has the packed forms of these weights, by all that they depend on beside
    the weights, their order, the groups and the instruction set; what is missing is added. `reserve` has the memory.
    """
    cdef xent_conv_args a
    cdef xent_plan plan
    cdef void *memory = NULL
    cdef xent_kernel first = NULL
    cdef Py_ssize_t made
    cdef int code = known_code(x)
    conv_args(&a, x, out, window, groups)
    a.weight, a.bias, a.out, a.relu = data(weight), data(bias), data(out), relu
    a.out_size = cnp.PyArray_DIM(out, 2) * cnp.PyArray_DIM(out, 3)
    a.out_first, a.out_row, a.out_step = place
    a.weight_first, a.weight_group, a.weight_out, a.weight_in, a.weight_i, a.weight_j = order
    a.weights_kept = packed is not None
    plan = xent_plan_conv2d(&a, table, code)
    if plan.chunks == 0:
        return
    if plan.packed < 0:
        raise MemoryError("packed weights of this size cannot be addressed")
    if packed is not None and not a.weights_in_place:
        key = code, a.lanes_are_groups, a.weights_in_rows, a.width
        form = packed.get(key)
        if form is None:
            form = empty((plan.packed + CACHE_LINE,), np.dtype(np.uint8))
            pack(&a, &plan, code, data(form))
            form = packed.setdefault(key, form)  # another thread may have been first
        a.packed = on_a_line(data(form))
        plan.packed, plan.pack_chunks = 0, a.patch_chunks
    made = plan.packed + a.patch_bytes
    if reserve is not None:
        if reserve.open:
            reserve.packed = at_least(reserve.packed, made + 2 * CACHE_LINE)
        elif made:
            first = place_made(&a, &plan, data(reserve.packed), code)
        run(table.conv2d[code], &a, &plan, work_of(&a), reserve, first)
        return
    if made:
        memory = take_scratch(XENT_OF_ALL, <size_t>made + 2 * CACHE_LINE)
        if memory == NULL:
            raise MemoryError(f"no memory for {made} bytes that are made once for all threads")
        first = place_made(&a, &plan, memory, code)
    try:
        run(table.conv2d[code], &a, &plan, work_of(&a), None, first)
    finally:
        give_scratch(XENT_OF_ALL, memory)


def conv2d_grad_weight(
    cnp.ndarray grad, cnp.ndarray x, cnp.ndarray out, window, Py_ssize_t groups, Reserve reserve=None
):
    """Put the gradient by the weights into `out`."""
    cdef xent_conv_args a
    cdef xent_merge_args m
    cdef xent_plan plan
    cdef cnp.ndarray partials
    cdef int code = known_code(x)
    if cnp.PyArray_SIZE(out) == 0:
        return
    conv_args(&a, x, grad, window, groups)
    a.grad = data(grad)
    plan = xent_plan_grad_weight(&a, table, code)
    if plan.chunks == 0:
        if reserve is None or not reserve.open:
            out[...] = 0
        return
    partials = out
    if plan.partials > 1:  # of the type computed with
        partials = None if reserve is None else reserve.partials
        if partials is None:
            partials = empty((plan.partials,) + (<object>out).shape, F64 if code == XENT_F64 else F32)
    a.out = data(partials)
    run(table.conv2d_grad_weight[code], &a, &plan, work_of(&a), reserve)
    if reserve is not None and reserve.open:
        reserve.partials = partials
        return
    if plan.partials > 1:
        m.size, m.partials, m.x, m.out = cnp.PyArray_SIZE(out), plan.partials, data(partials), data(out)
        plan = xent_plan_merge(&m)
        run(table.conv2d_merge[code], &m, &plan, work_of(&a))


def conv2d_grad_bias(cnp.ndarray grad, cnp.ndarray out):
    """Put the sums over the images and pixels of each channel into `out`."""
    cdef xent_conv_args a
    cdef xent_plan plan
    memset(&a, 0, sizeof(a))
    memset(&plan, 0, sizeof(plan))
    a.images, a.groups, a.out_channels = cnp.PyArray_DIM(grad, 0), 1, cnp.PyArray_DIM(grad, 1)
    a.window.out_h, a.window.out_w = cnp.PyArray_DIM(grad, 2), cnp.PyArray_DIM(grad, 3)
    a.grad, a.out = data(grad), data(out)
    plan.chunks = a.out_channels
    run(table.conv2d_grad_bias[known_code(grad)], &a, &plan, cnp.PyArray_SIZE(grad))


def im2col(cnp.ndarray x, cnp.ndarray out, Py_ssize_t planes, window):
    """`planes` counts the channels of all images, here and below."""
    cdef xent_im2col_args a
    cdef xent_plan plan
    fill_window(&a.window, window)
    a.x, a.out, a.planes = data(x), data(out), planes
    plan = xent_plan_im2col(&a)
    run(table.im2col[known_code(x)], &a, &plan, cnp.PyArray_SIZE(out))


def col2im(cnp.ndarray cols, cnp.ndarray out, Py_ssize_t planes, window):
    cdef xent_im2col_args a
    cdef xent_plan plan
    cdef int code = known_code(cols)
    fill_window(&a.window, window)
    a.x, a.out, a.planes = data(cols), data(out), planes
    plan = xent_plan_col2im(&a, code)
    run(table.col2im[code], &a, &plan, cnp.PyArray_SIZE(cols))


cdef int run_pool(const xent_kernel *kernels, xent_pool_args *a, cnp.ndarray x, cnp.ndarray out, window) except -1:
    """`x` gives the planes (N, C, H, W), of which some backward passes need only the shape."""
    cdef xent_plan plan
    if dtype_code(out) < 0:  # the first bfloat16 that comes here
        know_bfloat16(out.dtype)
    fill_window(&a.window, window)
    a.bottom, a.right = window.bottom, window.right
    a.planes = cnp.PyArray_DIM(x, 0) * cnp.PyArray_DIM(x, 1)
    a.x, a.out = data(x), data(out)
    plan = xent_plan_pool(a, dtype_code(out))
    return run(kernels[dtype_code(out)], a, &plan, cnp.PyArray_SIZE(x))


def max_pool2d(cnp.ndarray x, cnp.ndarray out, cnp.ndarray places, window):
    """`places` (or None) gets the number of the cell of each window where its maximum is."""
    cdef xent_pool_args a
    memset(&a, 0, sizeof(a))
    if places is not None:
        a.places, a.place_size = data(places), <int>cnp.PyArray_ITEMSIZE(places)
    run_pool(table.max_pool2d, &a, x, out, window)


def max_pool2d_backward(cnp.ndarray grad, cnp.ndarray x, cnp.ndarray out, cnp.ndarray places, window):
    """With `places`, `x` is not read."""
    cdef xent_pool_args a
    memset(&a, 0, sizeof(a))
    a.grad = data(grad)
    if places is not None:
        a.places, a.place_size = data(places), <int>cnp.PyArray_ITEMSIZE(places)
    run_pool(table.max_pool2d_backward, &a, x, out, window)


def avg_pool2d(cnp.ndarray x, cnp.ndarray out, window, bint count_include_pad, Py_ssize_t divisor):
    """A `divisor` of 0 is the number of cells."""
    cdef xent_pool_args a
    memset(&a, 0, sizeof(a))
    a.average, a.count_include_pad, a.divisor = True, count_include_pad, divisor
    run_pool(table.avg_pool2d, &a, x, out, window)


def avg_pool2d_backward(
    cnp.ndarray grad, cnp.ndarray x, cnp.ndarray out, window, bint count_include_pad, Py_ssize_t divisor
):
    """`x` is not read."""
    cdef xent_pool_args a
    memset(&a, 0, sizeof(a))
    a.average, a.count_include_pad, a.divisor, a.grad = True, count_include_pad, divisor, data(grad)
    run_pool(table.avg_pool2d_backward, &a, x, out, window)
