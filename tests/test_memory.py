"""Extra memory of the convolutions: a few MiB a thread and one packed copy of the weights, for any input.

Measured as the peak of tracemalloc, which the kernels' scratch goes through, less the bytes of the results;
once also as resident memory of a process, which nothing escapes.
"""

import sys

import numpy as np
import pytest
from helpers import peak_bytes, run_python

import xent

MIB = 2**20
# Of scratch, and of partial sums of grad_weight.
PER_THREAD = 4 * MIB
# Python objects of a call.
SLACK = 64 * 1024

# (x shape, weight shape, options): each would need far more in one direction if a scratch grew with it; in
# brackets what the im2col matrix of float32 takes
CASES = {
    "3x3 [55 MiB]": ((8, 64, 56, 56), (64, 64, 3, 3), {"padding": 1}),
    "7x7, large image [556 MiB]": ((1, 3, 2000, 2000), (8, 3, 7, 7), {"stride": 2, "padding": 3}),
    "one long line [12 MiB]": ((1, 1, 1, 100_000), (1, 1, 1, 31), {"dilation": (1, 50)}),
    "301x301, stride 400 [3 MiB]": ((1, 1, 1500, 1500), (1, 1, 301, 301), {"stride": 400}),
    "512 channels": ((2, 512, 7, 7), (512, 512, 3, 3), {"padding": 1}),
    "2048 channels, 1x1": ((1, 2048, 20, 20), (64, 2048, 1, 1), {}),
    "2048 outputs, 1x1": ((1, 64, 20, 20), (2048, 64, 1, 1), {}),
    "depthwise": ((1, 64, 300, 300), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
    "groups": ((1, 64, 200, 200), (64, 4, 3, 3), {"padding": 1, "groups": 16}),
    "256 channels, 1x1": ((1, 256, 200, 200), (16, 256, 1, 1), {}),
    "1x1, stride 2": ((1, 256, 200, 200), (16, 256, 1, 1), {"stride": 2}),
    "wide padding": ((1, 16, 3, 3), (8, 16, 3, 3), {"padding": 300}),
    "many images": ((400, 16, 7, 7), (16, 16, 3, 3), {"padding": 1}),
    "one channel, 1x1": ((1, 1, 340, 380), (24, 1, 1, 1), {}),
}


def arrays(name, dtype):
    """grad, x and weight; of ones, as only their sizes matter."""
    x_shape, w_shape, options = CASES[name]
    stride, padding, dilation = (
        np.broadcast_to(options.get(key, value), 2)
        for key, value in [("stride", 1), ("padding", 0), ("dilation", 1)]
    )
    size = (x_shape[2:] + 2 * padding - (np.array(w_shape[2:]) - 1) * dilation - 1) // stride + 1
    grad_shape = x_shape[0], w_shape[0], *size.tolist()
    return [np.ones(shape, dtype) for shape in (grad_shape, x_shape, w_shape)]


def assert_extra(call, allowed, what):
    kept = []
    extra = peak_bytes(lambda: kept.append(call()))
    results = kept[0] if isinstance(kept[0], tuple) else kept
    extra -= sum(result.nbytes for result in results if result is not None)
    assert extra <= allowed + SLACK, f"{what}: {extra / MIB:.2f} MiB, allowed {allowed / MIB:.2f}"


def packed(name, weight):
    """Bytes of a copy of the weights that rounds the output channels of a group up to vectors.

    Twice the weights where they are few, and never more.
    """
    outputs = weight.shape[0] // CASES[name][2].get("groups", 1)
    return 2 * weight.nbytes if outputs < 32 else weight.nbytes * (-(-outputs // 32) * 32) // outputs


# Scratch grows with the threads and with the size of a number, and not otherwise with either of them.
@pytest.fixture(params=[("float32", 2), ("float64", 1)], ids=["float32-2threads", "float64-1thread"])
def dtype(request):
    """Run the test on the number of threads that belongs to the dtype."""
    with xent.num_threads(request.param[1]):
        yield np.dtype(request.param[0])


@pytest.fixture
def threads(dtype):
    """The number that `dtype` has set."""
    return xent.get_num_threads()


@pytest.mark.parametrize("name", CASES)
def test_conv2d(name, dtype, threads):
    _, x, weight = arrays(name, dtype)
    options = CASES[name][2]
    assert_extra(
        lambda: xent.conv2d(x, weight, weight[:, 0, 0, 0].copy(), activation="relu", **options),
        threads * PER_THREAD + packed(name, weight),
        "conv2d",
    )


def test_shared_patches_of_sixteen_bits():
    """Beside weights that are packed, patches that threads share are part of what one thread may have."""
    x, weight = np.ones((3, 1332, 15, 15), np.float16), np.ones((1332, 1332, 1, 1), np.float16)
    with xent.num_threads(1):
        assert_extra(lambda: xent.conv2d(x, weight), PER_THREAD + 2 * weight.nbytes, "conv2d")


@pytest.mark.parametrize("name", ["3x3 [55 MiB]", "depthwise", "256 channels, 1x1"])
def test_conv2d_with_out(name, dtype, threads):
    # nothing is allocated for the result, so all of the peak counts
    grad, x, weight = arrays(name, dtype)
    extra = peak_bytes(lambda: xent.conv2d(x, weight, out=grad, **CASES[name][2]))
    assert extra <= threads * PER_THREAD + packed(name, weight) + SLACK


@pytest.mark.parametrize("which", range(3), ids=["grad_x", "grad_weight", "grad_bias"])
@pytest.mark.parametrize("name", CASES)
def test_each_gradient(name, which, dtype, threads):
    grad, x, weight = arrays(name, dtype)
    options, needs = CASES[name][2], tuple(k == which for k in range(3))
    partial_sums = threads * PER_THREAD if which == 1 else 0
    assert_extra(
        lambda: xent.conv2d_backward(grad, x, weight, needs=needs, **options),
        threads * PER_THREAD + packed(name, weight) + partial_sums,
        "conv2d_backward",
    )


# Without the case whose gradient by the image takes two seconds, as each of its 160,000 strides is planned
# alone: `test_each_gradient` measures it, and the two tests below go the same way.
SHORT = [name for name in CASES if "stride 400" not in name]


@pytest.mark.parametrize("name", SHORT)
def test_conv2d_backward(name, dtype, threads):
    grad, x, weight = arrays(name, dtype)
    allowed = 2 * threads * PER_THREAD + packed(name, weight)
    options = CASES[name][2]
    assert_extra(lambda: xent.conv2d_backward(grad, x, weight, **options), allowed, "conv2d_backward")


@pytest.mark.parametrize("name", SHORT)
def test_conv_transpose2d(name, dtype, threads):
    grad, _, weight = arrays(name, dtype)
    options = CASES[name][2]
    allowed = threads * PER_THREAD + packed(name, weight)
    assert_extra(lambda: xent.conv_transpose2d(grad, weight, **options), allowed, "conv_transpose2d")


@pytest.mark.parametrize("which", range(3), ids=["grad_x", "grad_weight", "grad_bias"])
@pytest.mark.parametrize("name", SHORT)
def test_conv_transpose2d_backward(name, which, dtype, threads):
    x, grad, weight = arrays(name, dtype)  # the convolution the other way round
    options, needs = CASES[name][2], tuple(k == which for k in range(3))
    options = options | {"output_size": grad.shape[2:]}
    partial_sums = threads * PER_THREAD if which == 1 else 0
    assert_extra(
        lambda: xent.conv_transpose2d_backward(grad, x, weight, needs=needs, **options),
        threads * PER_THREAD + packed(name, weight) + partial_sums,
        "conv_transpose2d_backward",
    )


RESIDENT = """
import numpy, xent
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
x = numpy.ones((1, 3, 1500, 1500), numpy.float32)
weight = numpy.ones((8, 3, 7, 7), numpy.float32)
grad = numpy.ones((1, 8, 750, 750), numpy.float32)
out = numpy.ones_like(grad)
with xent.num_threads(2):
    xent.conv2d(x[..., :99, :99], weight)  # starts the threads
    before = resident()
    xent.conv2d(x, weight, stride=2, padding=3, out=out)
    forward = resident()
    xent.conv2d_backward(grad, x, weight, stride=2, padding=3)
print((forward - before) // 1024, (resident() - forward) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_memory():
    # beside grad_x, of 26 MiB; im2col would take 315 MiB
    done = run_python("-c", RESIDENT)
    assert done.returncode == 0, done.stderr
    forward, backward = (int(word) for word in done.stdout.split())
    assert forward <= 2 * 4 + 4, f"conv2d: {forward} MiB"
    assert backward <= 26 + 2 * 2 * 4 + 4, f"conv2d_backward: {backward} MiB"
