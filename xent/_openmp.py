"""Loads the kernels, and with them OpenMP, whose idle threads shall not stand in the way of others.

GNU's OpenMP reads its settings from the environment when it is loaded. By default an idle thread of it spins
for milliseconds before it sleeps: the next matrix product of NumPy, whose BLAS has threads of its own, then
waits for a processor, and so do other libraries. A linear_cross_entropy_value_and_grad of 256 positions and
1000 classes on two cores took 3.6 to 8 milliseconds like that, and takes 0.8 with threads that sleep after
some ten microseconds; a product of 256 x 512 x 1000 and a softmax of its result, in turn, 8 and 1.2. What a
user has set, and an OpenMP that is there already, stay as they are; nothing of this is left in the
environment.

A wheel carries an OpenMP of its own, which nobody else sees. With the system's, which LightGBM uses too, all
idle threads sleep that soon if xent is imported first: its `fit` took as long as before, and a product after
it 2.5 milliseconds instead of 7.
"""

import os

# Turns of a waiting loop. From 100 to 1000 the time above is the same, at 10000 half as long again; calls of
# one kernel after another gain from 1000 on (0.11 instead of 0.16 milliseconds).
_SPIN_COUNT = "1000"


if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
    from . import _kernels
else:
    os.environ["GOMP_SPINCOUNT"] = _SPIN_COUNT
    try:
        from . import _kernels  # noqa: F401
    finally:
        del os.environ["GOMP_SPINCOUNT"]
