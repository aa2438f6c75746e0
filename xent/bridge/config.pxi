# config.pxi: the instruction set, chosen once at import, and what was built.

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
    #ifndef XENT_FLAGS
    #define XENT_FLAGS "unknown"
    #endif
    """
    const int XENT_OPENMP
    const char *XENT_COMPILER
    const char *XENT_FLAGS  # of setup.py


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


def config():
    """Return what was built and what is in use, for `show_config`."""
    built, runs = isas()
    return {
        "compiler": XENT_COMPILER.decode(),
        "flags": XENT_FLAGS.decode(),
        "isa": table.name.decode(),
        "isa_built": built,
        "isa_usable": runs,
        "openmp": bool(XENT_OPENMP),
        "result_cache": xent_results_bound(),
        "cache_held": xent_results_held(),
        "scratch_held": scratch_held(),
    }


def offered_threads():
    """Return the number of threads that OpenMP offers now."""
    return xent_offered_threads()


def thread_limit():
    """Return the number of threads that a call can have at most, whatever a user has set."""
    return xent_thread_limit()


def vmath(name, cnp.ndarray x):
    """Evaluate exp, log or log1p of simd/ on an array in C order: with the same bits on every machine, unlike NumPy's, and
    by themselves, for the tests.
    """
    cdef cnp.ndarray y = x.copy()
    cdef bint single = dtype_code(x) == XENT_F32
    cdef void *source = cnp.PyArray_DATA(x)
    cdef void *target = cnp.PyArray_DATA(y)
    cdef Py_ssize_t n = cnp.PyArray_SIZE(x)
    if name == "exp" and single:
        table.arithmetic.exp_f32(<const float *>source, <float *>target, n)
    elif name == "exp":
        table.arithmetic.exp_f64(<const double *>source, <double *>target, n)
    elif name == "log" and single:
        table.arithmetic.log_f32(<const float *>source, <float *>target, n)
    elif name == "log":
        table.arithmetic.log_f64(<const double *>source, <double *>target, n)
    elif single:
        table.arithmetic.log1p_f32(<const float *>source, <float *>target, n)
    else:
        table.arithmetic.log1p_f64(<const double *>source, <double *>target, n)
    return y
