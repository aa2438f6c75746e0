"""Calls from several Python threads at once give what each gives alone, bit for bit.

They share the team of threads, the memory of results, and what is known of bfloat16. Without the global lock
nothing else keeps them apart."""

import threading

import ml_dtypes
import numpy as np
import pytest

import xent

THREADS, CALLS = 4, 150  # calls of each


def cases(dtype):
    """(function, arguments, options), from small arrays to those of several chunks and of kept memory."""
    rng = np.random.default_rng(0)

    def numbers(*shape):
        return (20 * rng.standard_normal(shape)).astype(dtype)

    for n in [7, 1110, 1 << 20]:
        x = numbers(n)
        yield from [(xent.sigmoid, (x,), {}), (xent.log_sigmoid, (x,), {})]
    for shape, axis in [((300, 10), -1), ((64, 1000), -1), ((2, 21, 60, 60), 1), ((256, 2000), -1)]:
        x, labels = numbers(*shape), rng.integers(0, shape[axis], np.delete(shape, axis))
        p = xent.softmax(x, axis=axis)
        yield from [
            (xent.softmax, (x,), {"axis": axis}),
            (xent.softmax_backward, (x, p), {"axis": axis}),
            (xent.cross_entropy_value_and_grad, (x, labels), {"axis": axis}),
            (xent.cross_entropy, (x, labels), {"axis": axis, "label_smoothing": 0.1, "temperature": 0.7}),
            (xent.cross_entropy_grad_hess, (x, labels), {"axis": axis}),
            (xent.kl_div, (x, p), {"axis": axis}),
            (xent.evaluate, (x, labels), {"axis": axis}),
        ]
    images, weight = numbers(2, 16, 28, 28), numbers(24, 16, 3, 3)
    grad = xent.conv2d(images, weight, padding=1)
    yield from [
        (xent.conv2d, (images, weight), {"padding": 1}),
        (xent.conv2d_backward, (grad, images, weight), {"padding": 1}),
        (xent.max_pool2d, (images, 3), {"stride": 2}),
        (xent.avg_pool2d, (images, 2), {}),
    ]


def bits(result):
    if isinstance(result, tuple):
        return [bits(part) for part in result]
    return repr(result.as_dict()) if isinstance(result, xent.Evaluation) else np.asarray(result).tobytes()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", ml_dtypes.bfloat16])
def test_the_bits_of_a_call_alone(dtype):
    known = list(cases(dtype))
    expected = [bits(function(*arguments, **options)) for function, arguments, options in known]
    kept, wrong = xent.show_config(mode="dicts")["result_cache"], []

    def work(seed):
        rng = np.random.default_rng(seed)
        for i in rng.integers(0, len(known), CALLS):
            function, arguments, options = known[i]
            if rng.random() < 0.02:
                xent.set_result_cache(int(rng.integers(0, 1 << 26)))
            with xent.num_threads(int(rng.integers(1, 4))):
                if bits(function(*arguments, **options)) != expected[i]:
                    wrong.append(f"{function.__name__} of {arguments[0].shape}")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    xent.set_result_cache(kept)
    assert not wrong
