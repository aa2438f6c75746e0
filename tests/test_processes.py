"""What else a process does meanwhile: signals, forks, other interpreters, its end; and what may run out.

Each test is a program of its own, as what it is about could end it.
"""

import sys
from pathlib import Path

import pytest
from helpers import control_group, run_in_group, run_python

import xent

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the limits of Linux")
CONFIG = xent.show_config(mode="dicts")


def some(first, *others):
    """Parameters of which the suite runs the first; the others take a second or three each and are slow."""
    return [first, *(pytest.param(*o, marks=pytest.mark.slow) for o in others)]


OTHERS = [(isa,) for isa in CONFIG["isa_usable"] if isa != CONFIG["isa"]]

# Calls of every kind, large enough for threads and scratch, and what they give.
WORK = """
import hashlib, warnings
import numpy as np
import xent

rng = np.random.default_rng(0)
X, LABELS = rng.standard_normal((300, 1000)).astype("f4"), rng.integers(0, 1000, 300)
WIDE = rng.standard_normal((40, 9000)).astype("f8")
COLUMNS = rng.standard_normal((8, 30, 300))
SHARES = rng.dirichlet(np.ones(30), (8, 300)).transpose(0, 2, 1).copy()
IMAGE = rng.standard_normal((2, 8, 40, 40)).astype("f4")
KERNEL = rng.standard_normal((16, 8, 3, 3)).astype("f4")
ROWS, WEIGHT = rng.standard_normal((300, 64)).astype("f4"), rng.standard_normal((500, 64)).astype("f4")
HALF = X.astype("f2")

def calls():
    yield xent.softmax(X)
    yield xent.softmax(WIDE, 0, temperature=0.7)
    yield xent.log_softmax(HALF)
    yield xent.logsumexp(X, None, b=X)
    yield from xent.cross_entropy_value_and_grad(X, LABELS, label_smoothing=0.1, temperature=2.0)
    yield xent.cross_entropy_grad(X, LABELS, z_loss=0.1, gamma=2.0, logit_cap=30.0)
    yield from xent.cross_entropy_grad_hess(X, LABELS)
    yield xent.cross_entropy_hvp(X, LABELS, X)
    yield xent.cross_entropy_hvp(X, np.abs(X), X, gamma=1.5, logit_cap=30.0)
    yield from xent.cross_entropy_grad_hess(COLUMNS, SHARES, axis=1, gamma=2.0, z_loss=0.1)
    yield from xent.cross_entropy_grad_hess(COLUMNS, SHARES, axis=1)
    yield xent.compare(WIDE, WIDE[::-1].copy(), np.arange(40)).kl
    yield np.asarray(xent.evaluate(X, LABELS, top_k=(1, 5), calibration_bins=10, confusion="per_class").loss)
    yield xent.token_log_probs(X, LABELS, ranks=True)[1]
    yield xent.nll_loss_grad(X, LABELS)
    yield xent.sigmoid_cross_entropy_grad(X, np.abs(X) % 1)
    yield xent.kl_div_grad(X, np.abs(X))
    yield xent.distillation_loss_grad(X, X[::-1].copy())
    yield xent.sparse_distillation_loss_grad(X, LABELS[:, None], np.full((300, 1), -1.0))
    yield xent.sparse_distillation_loss_grad(WIDE, LABELS[:40, None] % 9000, np.full((40, 1), -1.0))
    yield xent.distillation_loss_grad(WIDE, WIDE[::-1].copy())
    yield xent.linear_cross_entropy_value_and_grad(ROWS, WEIGHT, LABELS % 500, chunk_bytes=100_000)[1][1]
    yield xent.nce_loss(ROWS, WEIGHT, LABELS % 500, LABELS[:20] % 500, np.zeros(500))
    yield xent.conv2d(IMAGE, KERNEL, padding=1)
    yield from xent.conv2d_backward(xent.conv2d(IMAGE, KERNEL), IMAGE, KERNEL)
    yield xent.conv2d(IMAGE.astype("f8"), KERNEL.astype("f8"), stride=2)
    yield xent.conv_transpose2d(IMAGE, KERNEL.transpose(1, 0, 2, 3).copy(), stride=2)
    yield xent.im2col(IMAGE, 3)
    yield xent.max_pool2d(IMAGE, 2)
    yield xent.avg_pool2d_backward(xent.avg_pool2d(IMAGE, 2), IMAGE, 2)

def digest():
    whole = hashlib.sha256()
    for result in calls():
        whole.update(np.asarray(result).tobytes())
    return whole.hexdigest()
"""


@pytest.fixture(scope="module")
def expected():
    done = run_python("-c", WORK + "print(digest())")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def assert_same(done, expected, times=1):
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert done.stdout.split() == [expected] * times, done.stderr


# ---- what runs beside a call ----


def test_a_storm_of_signals(expected):
    """A handler in Python each millisecond, and one that raises."""
    code = """
import signal
count = 0
def handler(*_):
    global count
    count += 1
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
xent.set_num_threads(3)
for _ in range(4):
    print(digest())
signal.setitimer(signal.ITIMER_REAL, 0)
assert count > 10, count

class Stop(Exception): pass
def stop(*_): raise Stop
signal.signal(signal.SIGALRM, stop)
for k in range(40):
    signal.setitimer(signal.ITIMER_REAL, 0.0005 * (k + 1))
    try:
        while True: digest()
    except Stop:
        pass
print(digest())
"""
    assert_same(run_python("-c", WORK + code), expected, 5)


def test_forks_in_the_middle_of_calls(expected):
    code = """
import os, threading
warnings.simplefilter("ignore")
xent.set_num_threads(2)
print(digest())
going = True
def busy():
    while going: digest()
threads = [threading.Thread(target=busy) for _ in range(3)]
for t in threads: t.start()
bad = 0
for _ in range(4):
    child = os.fork()
    if child == 0:
        os._exit(0 if digest() == EXPECTED else 1)
    bad += os.waitpid(child, 0)[1] != 0
going = False
for t in threads: t.join()
assert not bad, bad
"""
    assert_same(run_python("-c", WORK + f"EXPECTED = {expected!r}\n" + code), expected)


@pytest.mark.parametrize("method", some("spawn", ("forkserver",), ("fork",)))
def test_multiprocessing(expected, method, tmp_path):
    if method not in __import__("multiprocessing").get_all_start_methods():
        pytest.skip(f"no {method} here")
    code = f"""
import multiprocessing
if __name__ == "__main__":
    warnings.simplefilter("ignore")
    digest()
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        for result in pool.starmap(digest, [()] * 4):
            print(result)
"""
    program = tmp_path / "program.py"
    program.write_text(WORK + code)
    assert_same(run_python(str(program), PYTHONSAFEPATH=""), expected, 4)


def test_threads_tasks_and_changing_labels(expected):
    """Eight threads and an event loop; another thread changes labels and arrays that are read."""
    code = """
import asyncio, threading
from concurrent.futures import ThreadPoolExecutor
xent.set_num_threads(2)
with ThreadPoolExecutor(8) as pool:
    for future in [pool.submit(digest) for _ in range(8)]:
        assert future.result() == EXPECTED
async def main():
    return await asyncio.gather(*(asyncio.to_thread(digest) for _ in range(4)))
assert set(asyncio.run(main())) == {EXPECTED}

labels, ids = LABELS.copy(), LABELS[:, None].copy()
probs = np.full((300, 1000), 0.001, "f4")
going = True
def change():
    while going:
        for array in (labels, ids):
            array[:] = 2**40
            array[:] = -(2**62)
            array[:] = 3
threads = [threading.Thread(target=change) for _ in range(2)]
for t in threads: t.start()
for _ in range(4):
    for call in (
        lambda: xent.cross_entropy_value_and_grad(X, labels, weight=np.ones(1000)),
        lambda: xent.cross_entropy_grad_hess(X, labels),
        lambda: xent.cross_entropy_hvp(X, labels, X),
        lambda: xent.cross_entropy_grad(X, labels, gamma=2.0, label_smoothing=0.1),
        lambda: xent.cross_entropy(X[:9], labels[:9], temperature=1e-300),
        lambda: xent.nll_loss_value_and_grad(X, labels),
        lambda: xent.cross_entropy_probs_value_and_grad(probs, labels),
        lambda: xent.evaluate(X, labels, confusion=True, calibration_bins=5),
        lambda: xent.evaluate_sequences(X, labels, labels),
        lambda: xent.compare(X, X, labels),
        lambda: xent.token_log_probs(X, ids, ranks=True),
        lambda: xent.linear_token_log_probs(ROWS, WEIGHT, labels),
        lambda: xent.linear_cross_entropy_value_and_grad(ROWS, WEIGHT, labels, class_weight=np.ones(500)),
        lambda: xent.nce_loss_value_and_grad(ROWS, WEIGHT, labels, labels[:9], np.zeros(500)),
        lambda: xent.sampled_softmax_cross_entropy(ROWS, WEIGHT, labels, labels[:9], np.zeros(500)),
        lambda: xent.sparse_distillation_loss_value_and_grad(X, ids, np.full((300, 1), -1.0)),
    ):
        try:
            call()
        except ValueError:
            pass
going = False
for t in threads: t.join()
print(digest())
"""
    assert_same(run_python("-c", WORK + f"EXPECTED = {expected!r}\n" + code), expected)


def test_another_interpreter():
    """It works there, or says in an ImportError why not; and goes on working here."""
    code = """
import sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
xent.softmax(X)
other = interpreters.create()
inside = "try:\\n import xent\\n xent.softmax([1.0])\\nexcept ImportError as error:\\n assert str(error)"
try:
    failed = interpreters.run_string(other, inside)
    assert failed is None, failed
finally:
    interpreters.destroy(other)
print(digest())
"""
    done = run_python("-W", "ignore", "-c", WORK + code)
    if "No module named" in done.stderr:
        pytest.skip("this Python has no interpreters module")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("end", some("pass", ("raise SystemExit(0)",), ("os._exit(0)",)))
def test_an_end_with_busy_threads(end):
    code = """
import os, sys, threading, time
xent.set_num_threads(2)
def busy():
    while True: digest()
for _ in range(4): threading.Thread(target=busy, daemon=True).start()
time.sleep(0.3)
"""
    done = run_python("-c", WORK + code + end, timeout=60)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr}"


@pytest.mark.parametrize(
    "options, environment",
    some(
        (["-X", "dev", "-W", "error"], {}),
        (["-bb", "-W", "error"], {"PYTHONMALLOC": "debug"}),
        (["-OO"], {"PYTHONMALLOC": "malloc", "MALLOC_PERTURB_": "165"}),
        ([], {"PYTHONHASHSEED": "7", "LC_ALL": "C", "PYTHONUTF8": "0"}),
    ),
)
def test_modes_of_python(expected, options, environment):
    assert_same(run_python(*options, "-c", WORK + "print(digest())", **environment), expected)


# ---- what may run out ----


@pytest.mark.parametrize("isa", some(CONFIG["isa"], *OTHERS))
def test_stacks_of_128_kib_suffice(isa):
    """Of threads of Python, of the threads of OpenMP and of the main thread.

    Eight less are tried: what lies above a call is not the same for each Python, nor for each process.
    """
    code = """
import threading
threading.stack_size(120 * 1024)
xent.set_num_threads(3)
found = []
thread = threading.Thread(target=lambda: found.append(digest()))
thread.start()
thread.join()
print(found[0])
"""
    expected = run_python("-c", WORK + "print(digest())", XENT_ISA=isa).stdout.strip()
    assert_same(run_python("-c", WORK + code, XENT_ISA=isa, OMP_STACKSIZE="120k"), expected)


@on_linux
@pytest.mark.parametrize("room", some(16, (1,), (60,)))
def test_an_address_space_that_is_used_up(expected, room):
    """Threads that cannot be created, and memory that cannot be had: the same result, or a MemoryError."""
    code = f"""
import resource
xent.softmax([1.0, 2.0])
WIDEST = np.ones((3000, 1000), "f4")  # before there is no room for it
ROWS @ WEIGHT.T  # OpenBLAS (NumPy 1.26) asks for its memory until it gets it
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (size + {room} * 2**20, hard))
xent.set_num_threads(16)
try:
    got = digest()
    assert got == EXPECTED
except MemoryError:
    pass
for _ in range(3):
    try:
        xent.softmax(WIDEST)
    except MemoryError:
        pass
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
print(digest())
"""
    done = run_python("-c", WORK + f"EXPECTED = {expected!r}\n" + code, OPENBLAS_NUM_THREADS="1")
    if "OpenBLAS" in done.stderr:
        pytest.skip("OpenBLAS ends the process")
    assert_same(done, expected)


@on_linux
def test_a_control_group_that_runs_out_of_memory(expected):
    """What is kept stays within it; a child that the system ends takes nobody with it."""
    code = """
import os, signal
print(digest())
LARGE = np.ones((1000, 10_000), "f4")
for k in range(30):
    xent.softmax(LARGE[k:])
print(digest())
child = os.fork()
if child == 0:
    made = []
    try:
        while True: made.append(xent.softmax(LARGE))
    except MemoryError:
        os._exit(7)
status = os.waitpid(child, 0)[1]
assert status in (signal.SIGKILL, 7 << 8), status
print(digest())
"""
    version_1 = Path("/sys/fs/cgroup/memory/cgroup.procs").exists()
    most = str(500 * 2**20)
    group = control_group("memory", {"memory.limit_in_bytes" if version_1 else "memory.max": most})
    assert_same(run_in_group(group, "-W", "ignore", "-c", WORK + code), expected, 3)


@on_linux
def test_no_file_descriptor_is_left():
    code = """
import os
digest()
before = sorted(os.listdir("/proc/self/fd"))
for _ in range(3):
    digest()
assert sorted(os.listdir("/proc/self/fd")) == before
"""
    assert run_python("-c", WORK + code).returncode == 0
