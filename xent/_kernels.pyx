# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, freethreading_compatible=True
"""The bridge: check -> plan -> run -> reduce, one flow for calls of all sizes.

Arrays become pointers, a plan in C says how the work is cut, chunks are spread over threads without the GIL, and sums are
reduced. The parts; every kernel runs from `run.pxi`:

    arrays.pxi     what a caller gave, as arrays that the kernels take          results.pxi   memory for results
    run.pxi        walk, run, sum                                               call.pxi      what all losses have in common
    reach.pxi      which arithmetic a softmax loss needs
    softmax.pxi    the softmax family                                           loss.pxi      softmax loss, losses of labels
    elements.pxi   losses of probabilities                                      sigmoid.pxi   sigmoid cross-entropy
    sparse_distillation.pxi   distillation from the k largest                   images.pxi    convolution and pooling

No size, no scratch formula and no arithmetic of a plan is here (csrc/), no error message but for lack of memory
(`_check.py`), and no number of threads is decided here (`_threads.py`).
"""

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport PyObject
from libc.math cimport INFINITY, ceil, isfinite, ldexp, signbit
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset, strcpy

import math
import os

import numpy as np

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewLikeArray(cnp.ndarray prototype, cnp.NPY_ORDER order, void *descr, int subok)

cdef extern from *:
    Py_ssize_t PY_SSIZE_T_MAX
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1

cdef object F32 = np.dtype(np.float32), F64 = np.dtype(np.float64), INT64 = np.dtype(np.int64), UINT8 = np.dtype(np.uint8)

include "bridge/config.pxi"

choose_isa()
if xent_start_threads() != 0 or xent_start_results() != 0:
    raise ImportError("pthread_atfork failed: out of memory")

from . import _check, _reduction, _threads  # after what these ask of this module: what OpenMP offers

cdef Py_ssize_t WORTH_A_THREAD = _threads.WORTH_A_THREAD, WORTH_AN_AWAKE_THREAD = _threads.WORTH_AN_AWAKE_THREAD
cdef Py_ssize_t PRODUCTS_PER_ELEMENT = _threads.PRODUCTS_PER_ELEMENT

include "bridge/results.pxi"
include "bridge/arrays.pxi"
include "bridge/run.pxi"
include "bridge/call.pxi"
include "bridge/reach.pxi"
include "bridge/softmax.pxi"
include "bridge/loss.pxi"
include "bridge/elements.pxi"
include "bridge/sparse_distillation.pxi"
include "bridge/sigmoid.pxi"
include "bridge/images.pxi"
