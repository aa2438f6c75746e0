"""Memory of large results: it is used again, bounded, given back, and never shows what was there before."""

import ctypes
import gc
import importlib.util
import os
import pickle
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from helpers import raises, random_labels, random_logits, run_python

import xent
from xent import _kernels, _results

MIB = 2**20
SHAPE = 1024, 700  # float32: 2.7 MiB, just more than what counts as large
BYTES = 1024 * 700 * 4


@pytest.fixture(autouse=True)
def cache():
    """An empty cache of 64 MiB, whatever this machine has."""
    xent.set_result_cache(0)
    xent.set_result_cache(64 * MIB)
    yield
    xent.set_result_cache(0)
    xent.set_result_cache(None)


@pytest.fixture
def x():
    return random_logits(SHAPE, np.float32)


def held():
    return xent.show_config(mode="dicts")["cache_held"]


def place(array):
    return array.ctypes.data


def scratch_held():
    return xent.show_config(mode="dicts")["scratch_held"]


# ---- the memory of an array that is gone is used again ----


def test_memory_is_used_again(x):
    y = xent.softmax(x)
    expected, where = y.copy(), place(y)
    assert held() == 0
    del y
    assert BYTES <= held() < BYTES + 2**16
    y = xent.softmax(x)
    assert place(y) == where
    assert held() == 0
    np.testing.assert_array_equal(y, expected)


def test_a_loop_has_two_blocks(x):
    y, places = None, set()
    for _ in range(10):
        y = xent.log_softmax(x)
        places.add(place(y))
    assert len(places) == 2


def test_another_function_and_shape_of_about_the_size(x):
    y = xent.softmax(x)
    where = place(y)
    del y
    _, grad = xent.cross_entropy_value_and_grad(x[:900], random_labels((900,), 700))
    assert place(grad) == where
    del grad
    half = xent.softmax(x[:800].T.astype(np.float32))  # four fifths are 819 rows
    assert place(half) != where
    more = xent.softmax(random_logits((1100, 700), np.float32))
    assert place(more) != where


def test_order_and_dtype_are_those_of_the_input():
    for dtype in ("float64", "float32", "float16"):
        for x in (np.ones((2000, 1000), dtype), np.ones((2000, 1000), dtype, order="F")):
            y = xent.softmax(x)
            assert y.dtype == dtype
            assert y.strides == x.strides
            assert is_ours(y)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert is_ours(xent.softmax(np.ones((2000, 1000), ml_dtypes.bfloat16)))


def test_small_results_are_numpys_own(x):
    y = xent.softmax(x[:10])
    assert not is_ours(y)
    del y
    assert held() == 0


def multiarray():
    """NumPy's module of that name, which NumPy 2 moved."""
    core = "numpy._core" if importlib.util.find_spec("numpy._core") else "numpy.core"
    return importlib.import_module(core + ".multiarray")


def is_ours(array):
    return multiarray().get_handler_name(array) == "xent_results"


# ---- the bound ----


def test_no_more_is_kept_than_the_bound():
    xent.set_result_cache(10 * MIB)
    big = random_logits((1500, 700), np.float32)  # 4 MiB
    results = [xent.softmax(big) for _ in range(4)]
    first, last = place(results[0]), place(results[-1])
    while results:
        del results[0]
        assert held() <= 10 * MIB
    assert held() > 8 * MIB  # two of them: the last, not the first
    kept = [xent.softmax(big) for _ in range(2)]
    assert last in map(place, kept)
    assert first not in map(place, kept)
    xent.set_result_cache(5 * MIB)
    del kept
    assert 4 * MIB < held() <= 5 * MIB
    xent.set_result_cache(MIB)
    assert held() == 0


def test_zero_turns_it_off(x):
    xent.set_result_cache(0)
    y = xent.softmax(x)
    assert not is_ours(y)
    del y
    assert held() == 0
    assert xent.show_config(mode="dicts")["result_cache"] == 0


def test_results_above_the_bound_are_numpys_own(x):
    xent.set_result_cache(BYTES - 1)
    assert not is_ours(xent.softmax(x))
    xent.set_result_cache(BYTES)
    assert is_ours(xent.softmax(x))


def test_arrays_outlive_the_cache(x):
    y = xent.softmax(x)
    expected = y.copy()
    xent.set_result_cache(0)
    np.testing.assert_array_equal(y, expected)
    del y
    assert held() == 0


def test_many_blocks_are_not_all_kept(x):
    xent.set_result_cache(2**40)
    results = [xent.softmax(x) for _ in range(70)]
    del results
    assert held() <= 64 * (BYTES + 2**16)


def lazily_free():
    """Bytes of this process that the system may take without asking."""
    with open("/proc/self/smaps_rollup") as file:
        return 1024 * next(int(line.split()[1]) for line in file if line.startswith("LazyFree:"))


MARKS = _results._has_huge_pages() and os.path.exists("/proc/self/smaps_rollup")


@pytest.mark.skipif(not MARKS, reason="no transparent huge pages")
def test_the_system_can_take_all_but_64_mib():
    xent.set_result_cache(256 * MIB)
    x, before = np.zeros((8, MIB), np.float32), lazily_free()
    for count, marked in [(1, 0), (2, 0), (3, 32 * MIB), (4, 64 * MIB), (1, 64 * MIB)]:
        results = [xent.softmax(x) for _ in range(count)]
        del results
        assert abs(lazily_free() - before - marked) < MIB, count
    large = xent.softmax(np.zeros((17, MIB), np.float32))
    del large
    assert abs(lazily_free() - before - (64 + 68) * MIB) < MIB


def test_the_bound_is_checked():
    for bad in (1.5, "1", True):
        with raises(TypeError, "max_bytes", "integer"):
            xent.set_result_cache(bad)
    with raises(ValueError, "max_bytes", "-1"):
        xent.set_result_cache(-1)
    xent.set_result_cache(2**100)
    assert xent.show_config(mode="dicts")["result_cache"] == sys.maxsize
    xent.set_result_cache(np.int64(5))
    assert xent.show_config(mode="dicts")["result_cache"] == 5


# ---- arrays like any other ----


def test_owned_copied_pickled_viewed(x):
    y = xent.softmax(x)
    assert y.flags.owndata
    assert y.base is None
    assert place(y) % 64 == 0
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(y, protocol=5)), y)
    assert not is_ours(y.copy())
    view, expected = y[5:7], y[5:7].copy()
    del y
    assert held() == 0  # the view keeps it
    xent.log_softmax(x)
    np.testing.assert_array_equal(view, expected)
    del view
    assert held() > 0


class Named(np.ndarray):
    """A subclass."""


def test_a_view_of_a_subclass_keeps_it(x):
    named = xent.softmax(x).view(Named)
    assert held() == 0
    np.testing.assert_array_equal(named, xent.softmax(x))
    del named
    assert held() > 0


@pytest.mark.parametrize("rows", [0, 1, 3, 900, 1024, 1500, 4000])
def test_resize(x, rows):
    poison = xent.softmax(random_logits((4000, 700), np.float32))
    poison[...] = np.nan
    del poison
    y = xent.softmax(x)
    expected = np.zeros((rows, 700), np.float32)
    expected[: min(rows, 1024)] = y[:rows]
    y.resize((rows, 700), refcheck=False)
    np.testing.assert_array_equal(y, expected)
    y.resize(SHAPE, refcheck=False)
    np.testing.assert_array_equal(y[:rows], expected[:1024])
    assert not y[rows:].any()


def test_tracemalloc_sees_arrays_and_not_what_is_kept(x):
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        y = xent.softmax(x)
        during, _ = tracemalloc.get_traced_memory()
        del y
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert BYTES <= during - before < BYTES + 2**16
    assert after - before < 2**16


def test_another_allocator_is_respected(x):
    # NumPy's own, in a capsule of its own: what a user's allocator looks like
    api = ctypes.pythonapi
    api.PyCapsule_New.restype = ctypes.py_object
    api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    address = api.PyCapsule_GetPointer(multiarray()._ARRAY_API, None)
    table = ctypes.cast(address, ctypes.POINTER(ctypes.c_void_p))
    default = ctypes.cast(table[306], ctypes.POINTER(ctypes.py_object)).contents.value
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[304])
    own = api.PyCapsule_New(api.PyCapsule_GetPointer(default, b"mem_handler"), b"mem_handler", None)
    set_handler(own)
    try:
        assert not is_ours(xent.softmax(x))
    finally:
        set_handler(default)
    assert is_ours(xent.softmax(x))


# ---- nothing of an older result ----

BIG = random_logits((600, 900), np.float64)  # 4 MiB, and 2 in float32
SQUARE = random_logits((900, 900), np.float64)
LABELS = random_labels((600,), 900, ignored=0.3)
IMAGES = random_logits((4, 8, 130, 130), np.float64)
KERNELS = random_logits((8, 8, 3, 3), np.float64)
PROBS = xent.softmax(BIG)
CALLS = {
    "softmax": lambda: xent.softmax(BIG),
    "softmax, axis 0": lambda: xent.softmax(BIG, axis=0),
    "softmax, every second": lambda: xent.softmax(np.repeat(BIG, 2, axis=1)[:, ::2]),
    "log_softmax": lambda: xent.log_softmax(BIG),
    "softmax_backward": lambda: xent.softmax_backward(BIG, PROBS),
    "log_softmax_backward": lambda: xent.log_softmax_backward(BIG, BIG),
    "logsumexp": lambda: xent.logsumexp(np.broadcast_to(BIG[:1, :2], (300_000, 2))),
    "sigmoid": lambda: xent.sigmoid(BIG),
    "log_sigmoid": lambda: xent.log_sigmoid(BIG.T),
    "sigmoid_backward": lambda: xent.sigmoid_backward(BIG, BIG),
    "cross_entropy": lambda: xent.cross_entropy_value_and_grad(BIG, LABELS)[1],
    "all ignored": lambda: xent.cross_entropy_grad(BIG, np.full(600, -100)),
    "probabilities": lambda: xent.cross_entropy_grad(BIG, PROBS, label_smoothing=0.1),
    "of no weight": lambda: xent.cross_entropy_grad(BIG, LABELS, weight=np.zeros(900)),
    "losses": lambda: xent.cross_entropy(
        np.broadcast_to(BIG[:1, :2], (300_000, 2)), np.zeros(300_000, np.int64), reduction="none"
    ),
    "grad_hess": lambda: np.stack(xent.cross_entropy_grad_hess(BIG, LABELS)),
    "hvp": lambda: xent.cross_entropy_hvp(BIG, LABELS, BIG),
    "nll_loss": lambda: xent.nll_loss_grad(BIG, LABELS),
    "sigmoid_cross_entropy": lambda: xent.sigmoid_cross_entropy_grad(BIG, BIG > 0),
    "sigmoid, ignored": lambda: xent.sigmoid_cross_entropy_grad(
        BIG, np.where(BIG > 1, -1, 1), ignore_index=-1
    ),
    "sigmoid, second derivatives": lambda: xent.sigmoid_cross_entropy_grad_hess(BIG, BIG > 0)[1],
    "probs of labels": lambda: xent.cross_entropy_probs_grad(PROBS, np.zeros(600, np.int64)),
    "probs": lambda: xent.cross_entropy_probs_grad(PROBS, PROBS),
    "binary": lambda: xent.binary_cross_entropy_grad(PROBS, PROBS),
    "kl_div": lambda: xent.kl_div_grad(np.log(PROBS), PROBS),
    "kl_div, each": lambda: xent.kl_div_grad(np.log(PROBS), PROBS, reduction="none"),
    "distillation": lambda: xent.distillation_loss_grad(BIG, BIG[::-1]),
    "mse_loss": lambda: xent.mse_loss_grad(BIG, BIG[::-1]),
    "conv2d": lambda: xent.conv2d(IMAGES, KERNELS, padding=1),
    "conv2d_backward": lambda: xent.conv2d_backward(
        IMAGES, IMAGES, KERNELS, padding=1, needs=(True, False, False)
    )[0],
    "conv_transpose2d": lambda: xent.conv_transpose2d(IMAGES[:, :, ::2, ::2], KERNELS[..., :2, :2], stride=3),
    "infinite": lambda: xent.conv_transpose2d(IMAGES[..., :60, :60], KERNELS[..., :1, :1] * np.inf, stride=3),
    "im2col": lambda: xent.im2col(IMAGES, 3, padding=2),
    "col2im": lambda: xent.col2im(xent.im2col(IMAGES, 2, stride=3), (130, 130), 2, stride=3),
    "max_pool2d": lambda: xent.max_pool2d(IMAGES, 3, stride=1, padding=1),
    "max_pool2d_backward": lambda: xent.max_pool2d_backward(
        IMAGES[:, :, ::3, ::3], IMAGES, 3, stride=3, padding=1
    ),
    "avg_pool2d": lambda: xent.avg_pool2d(IMAGES, 3, stride=1, padding=1),
    "avg_pool2d_backward": lambda: xent.avg_pool2d_backward(
        IMAGES[:, :, ::3, ::3], IMAGES, 3, stride=3, padding=1
    ),
    "linear": lambda: xent.linear_cross_entropy_value_and_grad(BIG, SQUARE, LABELS)[1][1],
    "linear, of x": lambda: xent.linear_cross_entropy_value_and_grad(BIG, SQUARE, np.abs(LABELS))[1][0],
}


COPIED = ["grad_hess"]  # by the test


@pytest.mark.parametrize("name", CALLS)
def test_nothing_old_in_a_new_result(name):
    call = CALLS[name]
    xent.set_result_cache(0)
    expected = call()
    assert not is_ours(expected)
    xent.set_result_cache(64 * MIB)
    mark = 1.2345e300
    for _ in range(2):
        old = [_kernels.empty(expected.shape, expected.dtype) for _ in range(4)]
        for array in old:
            array.fill(mark)
        del old, array
        result = call()
        np.testing.assert_array_equal(result, expected)
        owner = result if result.base is None else result.base
        assert is_ours(owner) or expected.nbytes < 2 * MIB or name in COPIED


def test_an_error_gives_the_memory_back():
    target = np.zeros((1024, 700))
    target[-1, -1] = 2  # found when everything is written
    with pytest.raises(ValueError, match="target"):
        xent.sigmoid_cross_entropy_value_and_grad(np.ones((1024, 700)), target)
    gc.collect()
    assert held() >= 1024 * 700 * 8


# ---- threads, forks, failures, the end ----


def test_threads(x):
    expected = xent.softmax(x)
    failures = []

    def hammer(seed):
        rng, alive = np.random.default_rng(seed), []
        for _ in range(60):
            rows = int(rng.integers(760, 1025))
            y = xent.softmax(x[:rows])
            if not np.array_equal(y, expected[:rows]):
                failures.append(rows)
            y.fill(seed)
            alive.append((y, rows))
            if len(alive) > 2:
                array, rows = alive.pop(0)
                if not (array == seed).all():
                    failures.append(rows)
            if rng.random() < 0.1:
                xent.set_result_cache(int(rng.integers(0, 16 * MIB)))

    threads = [threading.Thread(target=hammer, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_starts_empty(x):
    y = xent.softmax(x)
    alive = xent.log_softmax(x)
    del y
    before = held()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert held() == 0
            np.testing.assert_array_equal(alive, xent.log_softmax(x))
            del alive
            status = 0 if held() > 0 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert held() == before > 0


FAILING = """
import resource, numpy as np, xent
xent.set_num_threads(1)
x = np.zeros((10_000, 1000), np.float32)  # 40 MB
xent.softmax(x[:1000])
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
# room for five of them, of which four are kept, as one block
resource.setrlimit(resource.RLIMIT_AS, (used + 210_000_000, resource.RLIM_INFINITY))
held = lambda: xent.show_config(mode="dicts")["cache_held"]
for bound in (200_000_000, 170_000_000):
    xent.set_result_cache(bound)
    xent.conv2d(x.reshape(1, 1, 10_000, 1000), np.ones((4, 1, 1, 1), np.float32))  # 160 MB
    assert held() >= 160_000_000, held()
    results = [xent.softmax(x) for _ in range(3)]  # the third finds no room but that of the block
    assert held() == 0, held()
    try:
        results += [xent.softmax(x) for _ in range(9)]
    except MemoryError:
        pass
    else:
        raise AssertionError
    del results
    xent.set_result_cache(0)
print("good", end="")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_kept_is_given_back_before_a_memory_error():
    done = run_python("-c", FAILING)
    assert (done.returncode, done.stdout) == (0, "good"), done.stderr


def test_arrays_may_be_freed_at_exit():
    code = """if True:
        import sys, numpy as np, xent
        xent.set_result_cache(2**26)
        sys.kept = xent.softmax(np.ones((1024, 1000)))  # freed with the last module
        class Late:
            def __init__(self):
                self.y = xent.softmax(np.ones((1024, 1000)))
            def __del__(self):
                self.y[0, 0]
        late = Late()
        late.self = late
        del xent
        print("good", end="")"""
    done = run_python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "good", "")


# ---- the default ----


def write(root, path, text):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


# Where the two versions of control groups usually are.
MOUNTS = """30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw
31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
"""


def test_default_is_a_share_of_what_there_is(monkeypatch, tmp_path):
    monkeypatch.setattr(_results, "_has_limited_addresses", lambda: False)
    monkeypatch.setattr(_results, "_machine_bytes", lambda: [2**34])
    assert _results._default(tmp_path) == 2**30
    monkeypatch.setattr(_results, "_machine_bytes", lambda: [2**30])
    assert _results._default(tmp_path) == 2**27
    monkeypatch.setattr(_results, "_has_limited_addresses", lambda: True)
    assert _results._default(tmp_path) == 0


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/a/b\n", {"cgroup/a/b/memory.max": "max\n", "cgroup/a/memory.max": "800\n"}, [800]),
        ("0::/a\n", {"cgroup/a/memory.max": "900\n", "cgroup/a/memory.high": "700\n"}, [900, 700]),
        ("0::/\n", {"cgroup/memory.max": "500"}, [500]),
        ("0::/../x\n", {"cgroup/memory.max": "500"}, [500]),  # a namespace seen from inside
        ("4:memory:/docker/1\n0::/\n", {"cgroup/memory/memory.limit_in_bytes": "300\n"}, [300]),
        ("5:cpu,cpuacct:/\n3:cpu,memory:/u\n", {"cgroup/memory/u/memory.limit_in_bytes": "200\n"}, [200]),
        ("nonsense\n\n", {}, []),
        (None, {"cgroup/memory.max": "500"}, []),
    ],
)
def test_control_groups(tmp_path, cgroup, files, expected):
    if cgroup is not None:
        write(tmp_path, "proc/self/cgroup", cgroup)
        write(tmp_path, "proc/self/mountinfo", MOUNTS)
    for name, text in files.items():
        write(tmp_path, "sys/fs/" + name, text)
    assert list(_results._group_limits(tmp_path)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("always [madvise] never", True), ("[always] madvise never", True), ("always madvise [never]", False)],
)
def test_huge_pages(tmp_path, text, expected, monkeypatch):
    write(tmp_path, "sys/kernel/mm/transparent_hugepage/enabled", text)
    monkeypatch.delenv("NUMPY_MADVISE_HUGEPAGE", raising=False)
    assert _results._has_huge_pages(tmp_path) is expected
    monkeypatch.setenv("NUMPY_MADVISE_HUGEPAGE", "0")
    assert _results._has_huge_pages(tmp_path) is False
    assert _results._has_huge_pages(tmp_path / "nowhere") is False


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v")
def test_off_where_addresses_are_limited():
    code = """if True:
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (2**34, resource.RLIM_INFINITY))
        import xent
        print(xent.show_config(mode="dicts")["result_cache"], end="")"""
    done = run_python("-c", code)
    assert (done.returncode, done.stdout) == (0, "0"), done.stderr


# ---- scratch ----


def test_scratch_is_kept_for_the_next_call():
    """Of two calls the second finds what the first worked with, and the bound holds for it too."""
    assert scratch_held() == 0
    x = random_logits((1, 32000), np.float32)
    expected = xent.softmax(x)
    held_then = scratch_held()
    assert held_then >= x.nbytes
    np.testing.assert_array_equal(xent.softmax(x), expected)
    assert scratch_held() == held_then
    xent.set_result_cache(x.nbytes // 2)
    assert scratch_held() == 0
    np.testing.assert_array_equal(xent.softmax(x), expected)
    assert scratch_held() == 0


def test_scratch_is_not_cleared_by_the_system_again():
    """A result that lies behind the scratch at the end of malloc's heap: both were given back, and came as
    fresh pages."""
    resource = pytest.importorskip("resource")
    x = random_logits((1, 128256), np.float32)
    for _ in range(3):
        xent.softmax(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        xent.softmax(x, out=x)
    pages = 20 * x.nbytes // 4096
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < pages / 10


def test_scratch_of_calls_at_the_same_time():
    x = random_logits((4, 20000), np.float32)
    expected, wrong = xent.softmax(x), []

    def work():
        for _ in range(20):
            if not np.array_equal(xent.softmax(x), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
