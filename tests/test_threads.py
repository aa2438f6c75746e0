"""Threads: the same bits for any number of them and from run to run, and who decides how many there are."""

import asyncio
import concurrent.futures
import contextvars
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from compiled import CSRC, USABLE, compile_program
from helpers import (
    ROOT,
    assert_same_bits,
    control_group,
    random_labels,
    random_logits,
    random_probabilities,
    random_weights,
    run_in_group,
    run_python,
)

import xent

TASKS = Path("/proc/self/task")
WITH_OPENMP = xent.show_config(mode="dicts")["openmp"]
with_openmp = pytest.mark.skipif(not WITH_OPENMP, reason="built without OpenMP")
on_linux = pytest.mark.skipif(not TASKS.exists(), reason="no Linux")

# (positions, classes) and axis that are cut in different ways: few classes, whole rows, few long rows, one
# very long row, strided classes
SHAPES = [((60_001, 9), -1), ((1_003, 500), -1), ((7, 70_001), -1), ((1, 600_001), -1), ((3, 11, 130, 97), 1)]


def softmax_calls(shape, axis, dtype):
    x = random_logits(shape, dtype)
    g = random_logits(shape, dtype, seed=1)
    y, sums = xent.softmax(x, axis), xent.logsumexp(x, axis)
    yield "softmax", lambda: xent.softmax(x, axis)
    yield "log_softmax", lambda: xent.log_softmax(x, axis, temperature=0.7)
    yield "logsumexp", lambda: xent.logsumexp(x, axis)
    yield "logsumexp, factors", lambda: xent.logsumexp(x, axis, b=g)
    yield "logsumexp of all", lambda: xent.logsumexp(x, None)
    yield "logsumexp_backward", lambda: xent.logsumexp_backward(sums, x, sums, axis)
    yield "softmax of all", lambda: xent.softmax(x, None)
    yield "softmax_backward", lambda: xent.softmax_backward(g, y, axis)
    yield "log_softmax_backward", lambda: xent.log_softmax_backward(g, -y, axis)
    yield "sigmoid", lambda: xent.sigmoid(x)
    yield "log_sigmoid", lambda: xent.log_sigmoid(x)
    yield "sigmoid_backward", lambda: xent.sigmoid_backward(g, y)


def loss_calls(shape, axis, dtype):
    x = random_logits(shape, dtype)
    classes = shape[axis]
    labels = random_labels(tuple(np.delete(shape, axis)), classes, ignored=0.1)
    soft = random_probabilities(shape, dtype, axis)
    weight = random_weights(classes, dtype)
    for name, target, options in [
        ("labels", labels, {}),
        ("weights and smoothing", labels, {"weight": weight, "label_smoothing": 0.1}),
        ("probabilities", soft, {"weight": weight}),
        ("sum", labels, {"reduction": "sum"}),
        ("none", labels, {"reduction": "none"}),
    ]:
        for function in [xent.cross_entropy, xent.cross_entropy_grad, xent.cross_entropy_value_and_grad]:
            yield (
                f"{function.__name__}, {name}",
                lambda f=function, t=target, o=options: f(x, t, axis=axis, **o),
            )
    for function in [xent.nll_loss, xent.nll_loss_value_and_grad]:
        yield function.__name__, lambda f=function: f(-np.abs(x), labels, axis=axis, weight=weight)


# (x shape, weight shape, options) that are cut in different ways: over images, rows, tiles or channels
CONVOLUTIONS = [
    ((5, 12, 61, 59), (20, 12, 3, 3), {"padding": 1}),
    ((5, 12, 61, 59), (33, 12, 1, 1), {}),
    ((5, 12, 61, 59), (8, 12, 7, 7), {"stride": 2, "padding": 3}),
    ((5, 12, 61, 59), (12, 1, 3, 3), {"groups": 12}),
    ((1, 3, 224, 223), (17, 3, 3, 3), {"stride": 2, "padding": 1}),
    ((9, 65, 7, 7), (70, 65, 3, 3), {"padding": 1}),
    ((4, 33, 14, 14), (129, 33, 1, 1), {"stride": 2}),
    ((2, 500, 7, 7), (40, 500, 3, 3), {"padding": 1}),
    ((64, 300, 1, 1), (257, 300, 1, 1), {}),
    ((1, 4, 2, 5000), (9, 4, 2, 31), {"dilation": (1, 50)}),
    ((2, 40, 57, 55), (80, 1, 5, 5), {"groups": 40, "stride": 2, "padding": 2}),
    ((1, 20, 90, 91), (20, 1, 3, 3), {"groups": 20, "padding": 2, "dilation": 2}),
    ((3, 24, 31, 33), (30, 4, 3, 3), {"groups": 6, "stride": (2, 3), "padding": ((0, 2), (1, 3))}),
    ((2, 6, 200, 300), (16, 6, 5, 5), {"stride": 20}),
]


def convolution_calls(dtype, shapes=CONVOLUTIONS):
    for x_shape, w_shape, options in shapes:
        x = random_logits(x_shape, dtype)
        weight = random_logits(w_shape, dtype, seed=2)
        grad = random_logits(xent.conv2d(x, weight, **options).shape, dtype, seed=3)
        bias, name = weight[:, 0, 0, 0], f"{x_shape} {w_shape} {options}"
        yield (
            f"conv2d {name}",
            lambda x=x, w=weight, b=bias, o=options: xent.conv2d(x, w, b, activation="relu", **o),
        )
        yield (
            f"conv2d_backward {name}",
            lambda g=grad, x=x, w=weight, o=options: xent.conv2d_backward(g, x, w, **o),
        )


def transposed_calls(dtype):
    """The transposes of the same: from their outputs back to their images."""
    for x_shape, w_shape, options in CONVOLUTIONS:
        weight = random_logits(w_shape, dtype, seed=2)
        shape = xent.conv2d(np.zeros(x_shape, dtype), weight, **options).shape
        y = random_logits(shape, dtype, seed=3)
        bias = random_logits(x_shape[1:2], dtype, seed=4)
        yield (
            f"conv_transpose2d {shape} {w_shape} {options}",
            lambda y=y, w=weight, b=bias, o=options: xent.conv_transpose2d(y, w, b, **o),
        )


def image_calls(dtype):
    yield from convolution_calls(dtype, CONVOLUTIONS[:4])
    x = random_logits((5, 12, 61, 59), dtype)
    columns = xent.im2col(x, 3)
    yield "im2col", lambda: xent.im2col(x, 3)
    yield "col2im", lambda: xent.col2im(columns, (61, 59), 3)
    for name in ["max_pool2d", "avg_pool2d"]:
        forward, backward = getattr(xent, name), getattr(xent, f"{name}_backward")
        grad = forward(x, 3, stride=1)
        yield name, lambda f=forward: f(x, 3, stride=1)
        yield f"{name}_backward", lambda f=backward, g=grad: f(g, x, 3, stride=1)


def assert_reproducible(calls):
    for name, function in calls:
        with xent.num_threads(1):
            expected = function()
        for n in [1, 2, 3, 2]:
            with xent.num_threads(n):
                assert_same_bits(function(), expected, f"{name} on {n} threads")


@pytest.mark.parametrize("shape, axis", SHAPES)
def test_softmax_has_the_same_bits(shape, axis, dtype):
    assert_reproducible(softmax_calls(shape, axis, dtype))


@pytest.mark.parametrize("shape, axis", SHAPES)
def test_cross_entropy_has_the_same_bits(shape, axis, dtype):
    assert_reproducible(loss_calls(shape, axis, dtype))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("shape, axis", [((700, 1000), -1), ((9, 21_001), 0)])
def test_sixteen_bits_have_the_same_bits(shape, axis, name):
    assert_reproducible(softmax_calls(shape, axis, np.dtype(name)))
    assert_reproducible(loss_calls(shape, axis, np.dtype(name)))


def test_images_have_the_same_bits(dtype):
    assert_reproducible(image_calls(dtype))


def test_convolutions_have_the_same_bits(dtype):
    assert_reproducible(convolution_calls(dtype, CONVOLUTIONS[4:]))


def test_transposed_convolutions_have_the_same_bits(dtype):
    assert_reproducible(transposed_calls(dtype))


def test_calls_from_several_python_threads(dtype):
    calls = [*softmax_calls((5_003, 40), -1, dtype), *loss_calls((5_003, 40), -1, dtype), *image_calls(dtype)]
    expected = [function() for _, function in calls]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(function) for _, function in calls * 3]
        for (name, _), future, value in zip(calls * 3, futures, expected * 3, strict=True):
            assert_same_bits(future.result(timeout=60), value, name)


def test_num_threads_restores_what_was():
    before = xent.get_num_threads()
    with xent.num_threads(3):
        assert xent.get_num_threads() == 3
        with xent.num_threads(1):
            assert xent.get_num_threads() == 1
        assert xent.get_num_threads() == 3
    assert xent.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), xent.num_threads(before + 1):
        raise ZeroDivisionError
    assert xent.get_num_threads() == before


def test_setting_the_number_inside_a_block_lasts_until_its_end():
    before = xent.get_num_threads()
    with xent.num_threads(3):
        xent.set_num_threads(2)
        assert xent.get_num_threads() == 2
    assert xent.get_num_threads() == before


SETTING = """
import numpy, xent
for n in [numpy.int64(2), numpy.uint8(1), 3, 5]:
    xent.set_num_threads(n)
    print(xent.get_num_threads())
with xent.num_threads(2):
    pass
print(xent.get_num_threads())
print(xent.show_config(mode="dicts")["threads"])
"""


def test_set_num_threads_takes_any_integer():
    done = run_python("-c", SETTING)
    assert done.stdout.split() == ["2", "1", "3", "5", "5", "5"], done.stderr


LIMITS = """
import threadpoolctl, xent
print(xent.get_num_threads())
with threadpoolctl.threadpool_limits(1, user_api="openmp"):
    print(xent.get_num_threads())
with xent.num_threads(2):
    pass
with threadpoolctl.threadpool_limits(1, user_api="openmp"):
    print(xent.get_num_threads())
print(xent.get_num_threads())
print(xent.show_config(mode="dicts")["threads"])
"""


@with_openmp
def test_limits_from_outside_are_honoured():
    # in a process of its own, where nobody has called set_num_threads; num_threads must leave no trace either
    done = run_python("-c", LIMITS, OMP_NUM_THREADS="3")
    assert done.stdout.split() == ["3", "1", "1", "3", "3"], done.stderr


@with_openmp
def test_no_more_threads_than_openmp_allows():
    code = "import xent; n = xent.get_num_threads; print(n()); xent.set_num_threads(5); print(n()); "
    code += "print(xent.show_config(mode='dicts')['thread_limit'])"
    done = run_python("-c", code, OMP_NUM_THREADS="4", OMP_THREAD_LIMIT="3")
    assert done.stdout.split() == ["3", "3", "3"], done.stderr


# A region of GNU's OpenMP, made as a compiler makes it, in which Python code runs.
IN_A_REGION = """
import ctypes, re, numpy, xent
found = re.findall(r"/\\S*/libgomp[^/\\s]*", open("/proc/self/maps").read())
if not found:
    raise SystemExit("no libgomp")
x = numpy.random.default_rng(0).standard_normal((300, 1000))
expected = xent.softmax(x)
seen = []
def region(_):
    seen.append((xent.get_num_threads(), numpy.array_equal(xent.softmax(x), expected)))
function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(region)
gomp = ctypes.CDLL(found[0])
gomp.omp_set_max_active_levels(3)
with xent.num_threads(2):
    gomp.GOMP_parallel(function, None, 2, 0)
print(seen, xent.get_num_threads())
"""


@on_linux
@with_openmp
def test_one_thread_in_the_region_of_somebody_else():
    done = run_python("-c", IN_A_REGION, OMP_NUM_THREADS="3")
    if "no libgomp" in done.stderr:
        pytest.skip("another OpenMP than GNU's")
    assert done.stdout.strip() == "[(1, True), (1, True)] 3", done.stderr


@on_linux
def test_calls_of_few_and_of_many_chunks_keep_their_threads():
    image, x = random_logits((1, 3, 300, 300), np.float32), random_logits((256, 1000), np.float32)
    with xent.num_threads(5):
        xent.softmax(x)
        before = set(os.listdir(TASKS))
        for _ in range(5):
            xent.max_pool2d(image, 2)
            xent.logsumexp(x[:1], None)
            xent.softmax(x)
        assert set(os.listdir(TASKS)) == before


def test_calls_that_follow_each_other_have_the_same_bits():
    # of a size that is worth a thread only if it is awake, often enough to wake it
    x = random_logits((100, 1000), np.float32)
    with xent.num_threads(1):
        expected = xent.softmax(x)
    out = np.empty_like(x)
    with xent.num_threads(2):
        for _ in range(50):
            out[...] = 0
            assert_same_bits(xent.softmax(x, out=out), expected, "")


# Limits on the number of threads are not for root, who runs this, but for a user that nobody else is.
FEW_THREADS = """
import os, resource, sys, numpy, xent
room, threads = map(int, sys.argv[1:])
x = numpy.random.default_rng(0).standard_normal((300, 1000))
with xent.num_threads(1):
    expected = xent.softmax(x)
os.setuid(20000 + os.getpid() % 40000)
count = lambda: len(os.listdir("/proc/self/task"))
before = count()
resource.setrlimit(resource.RLIMIT_NPROC, (before + room, before + room))
xent.set_num_threads(threads)
for _ in range(3):
    assert numpy.array_equal(xent.softmax(x), expected)
    print(xent.get_num_threads(), count() - before)
"""


@on_linux
@with_openmp
@pytest.mark.skipif(hasattr(os, "getuid") and os.getuid() != 0, reason="needs a user of its own")
@pytest.mark.parametrize("room", [0, 1, 3, 9])
def test_where_threads_cannot_be_created_a_call_runs_on_those_it_gets(room):
    done = run_python("-c", FEW_THREADS, str(room), "6", OPENBLAS_NUM_THREADS="1")
    got = min(room, 5)
    assert done.stdout.split("\n")[:3] == [f"{got + 1} {got}"] * 3, done.stderr
    assert done.returncode == 0


@on_linux
@with_openmp
def test_a_control_group_without_room_for_threads():
    code = "import xent, numpy; x = numpy.ones((300, 1000)); xent.set_num_threads(6); xent.softmax(x); "
    group = control_group("pids", {"pids.max": "3"})
    done = run_in_group(group, "-c", code + "print(xent.get_num_threads())", OPENBLAS_NUM_THREADS="1")
    assert done.stdout.split() == ["3"], done.stderr


@on_linux
@with_openmp
def test_a_control_group_with_a_quota():
    code = "import xent; print(xent.get_num_threads(), xent.show_config(mode='dicts')['cpu_quota'])"
    code += "; xent.set_num_threads(4); print(xent.get_num_threads())"
    version_2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    files = {"cpu.max": "150000 100000"} if version_2 else {"cpu.cfs_quota_us": "150000"}
    group = control_group("cpu", files)
    done = run_in_group(group, "-c", code, OMP_NUM_THREADS="7")
    assert done.stdout.split() == ["2", "1.5", "4"], done.stderr


def test_a_block_holds_for_the_thread_that_enters_it():
    before = xent.get_num_threads()
    with xent.num_threads(before + 1), concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(xent.get_num_threads).result() == before
        context = contextvars.copy_context()  # what a Python that hands it on to new threads does
        assert pool.submit(context.run, xent.get_num_threads).result() == before
        assert xent.get_num_threads() == before + 1
    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        def in_worker():
            with xent.num_threads(before + 2):
                return xent.get_num_threads()

        assert pool.submit(in_worker).result() == before + 2
        assert pool.submit(xent.get_num_threads).result() == before


def test_a_block_holds_for_the_task_that_enters_it():
    async def limited(n):
        with xent.num_threads(n):
            await asyncio.sleep(0.01)
            return xent.get_num_threads()

    async def both():
        return await asyncio.gather(limited(2), limited(3))

    assert asyncio.run(both()) == [2, 3]


@pytest.mark.parametrize(
    "settings, expected",
    [({}, "1000"), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_idle_threads_soon_sleep(settings, expected):
    code = "import os, xent; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        code = code if name in settings else f"import os; os.environ.pop({name!r}, None); {code}"
    done = run_python("-c", code, OMP_DISPLAY_ENV="verbose", **settings)
    before = settings.get("GOMP_SPINCOUNT"), settings.get("OMP_WAIT_POLICY")
    assert done.stdout.split() == [str(value) for value in before]
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("another OpenMP than GNU's")
    if expected is not None:
        assert f"GOMP_SPINCOUNT = '{expected}'" in done.stderr
    else:
        assert "GOMP_SPINCOUNT = '1000'" not in done.stderr


@pytest.mark.slow
def test_kernels_of_images_on_threads_of_their_own(tmp_path):
    """The program of `make races`, without the sanitizer: the bits of one thread, every way to cut work."""
    images = [CSRC / folder / f"{name}.c" for folder in ("images", "pools") for name in ("kernels", "plan")]
    sources = [ROOT / "tests" / "image_races.c", *images, CSRC / "reorder.c"]
    program = compile_program(tmp_path, USABLE[-1], sources, "-O1", "-DXENT_ISA=kernels")
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@with_openmp
def test_threads_that_are_awake_take_smaller_calls():
    """Calls in close order share what a sleeping thread would not be woken for, and have the same bits."""
    code = """if True:
        import numpy as np, xent
        x = np.random.default_rng(0).standard_normal((50, 1000)).astype(np.float32)  # too little for that
        alone = xent.softmax(x)
        large = np.zeros((512, 1000), np.float32)
        with xent.num_threads(2):
            for _ in range(20):
                xent.softmax(large)
                for _ in range(200):
                    assert xent.softmax(x).tobytes() == alone.tobytes()
        """
    done = run_python("-c", code, GOMP_SPINCOUNT="1000")
    assert done.returncode == 0, done.stderr
