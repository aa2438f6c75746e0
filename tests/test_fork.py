"""A child forked after a parallel call computes the right answer and does not hang, as OpenMP would."""

import multiprocessing
import os
import signal
import sys
import time
import traceback
import warnings

import numpy as np
import pytest
from helpers import random_labels, random_logits

import xent

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

PATIENCE = 30  # seconds; the work takes milliseconds


@pytest.fixture(autouse=True)
def fork_is_meant():
    """Python 3.12 and later warn of a fork in a process with threads, which is what is tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def work():
    """Calls of each kind that are large enough to be parallel."""
    x = random_logits((400, 1000), np.float32)
    labels = random_labels((400,), 1000)
    image = random_logits((4, 8, 40, 40), np.float32)
    kernel = random_logits((8, 8, 3, 3), np.float32)
    loss, grad = xent.cross_entropy_value_and_grad(x, labels)
    return [xent.softmax(x), loss, grad, xent.conv2d(image, kernel), xent.max_pool2d(image, 2)]


def same(results, expected):
    return all(np.array_equal(r, e) for r, e in zip(results, expected, strict=True))


def wait(pid):
    """Exit code of a child, which is killed if it does not come to an end."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pytest.fail(f"the child did nothing for {PATIENCE} s")


def run_in_child(function):
    """Exit code of a forked child: 0 if function() is true there."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if function() else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return wait(pid)


@pytest.mark.parametrize("threads_in_child", [None, 1, 2])
def test_fork(threads_in_child):
    with xent.num_threads(2):
        expected = work()

        def child():
            if threads_in_child is not None:
                xent.set_num_threads(threads_in_child)
            return same(work(), expected)

        assert run_in_child(child) == 0
        assert run_in_child(child) == 0  # and a second one
        assert same(work(), expected)  # and the parent goes on


def test_fork_in_a_child():
    with xent.num_threads(2):
        expected = work()
        assert (
            run_in_child(lambda: same(work(), expected) and run_in_child(lambda: same(work(), expected)) == 0)
            == 0
        )


def test_fork_before_the_first_parallel_call():
    assert run_in_child(lambda: same(work(), work())) == 0


def put_work(queue):
    queue.put(work())


def test_multiprocessing():
    with xent.num_threads(2):
        expected = work()
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        child = context.Process(target=put_work, args=(queue,))
        child.start()
        try:
            deadline = time.monotonic() + PATIENCE
            while queue.empty() and child.is_alive() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not queue.empty(), "the child did not answer"
            assert same(queue.get(), expected)
            child.join(PATIENCE)
            assert child.exitcode == 0
        finally:
            if child.is_alive():
                child.kill()
            child.join()
