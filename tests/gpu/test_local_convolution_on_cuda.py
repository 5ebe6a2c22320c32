"""The adaptive separable convolution on a real GPU; needs torch alone, and skips without CUDA."""

from __future__ import annotations

import importlib.util

import pytest

torch = pytest.importorskip("torch")

from pipeline.model.local_convolution import local_convolution, triton_kernels  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU")
SHAPES = [(2, 1, 5, 7), (3, 15, 64, 96), (2, 51, 33, 131), (1, 51, 256, 256)]


def inputs(n, taps, height, width, dtype=torch.float32):
    random = torch.Generator().manual_seed(0)
    frame = torch.rand(n, 1, height, width, generator=random, dtype=dtype)
    return frame, *(torch.randn(n, taps, height, width, generator=random, dtype=dtype) for _ in range(2))


def with_gradients(frame, vertical, horizontal, also_frame):
    """The result and the gradients, on the CPU."""
    wanted = (frame, vertical, horizontal) if also_frame else (vertical, horizontal)
    for each in wanted:
        each.requires_grad_()
    out = local_convolution(frame, vertical, horizontal)
    return [each.detach().cpu() for each in (out, *torch.autograd.grad(out.square().sum(), wanted))]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("taps", [1, 3, 15, 51])
def test_the_triton_kernels_pass_their_check(taps):
    assert triton_kernels(torch.device("cuda", 0), taps) is not None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("also_frame", [False, True])
def test_it_gives_what_the_cpu_gives(shape, also_frame):
    expected = with_gradients(*inputs(*shape), also_frame)
    found = with_gradients(*(each.cuda() for each in inputs(*shape)), also_frame)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_float64_goes_through_matrix_products():
    expected = with_gradients(*inputs(1, 5, 40, 50, torch.float64), True)
    found = with_gradients(*(each.cuda() for each in inputs(1, 5, 40, 50, torch.float64)), True)
    torch.testing.assert_close(found, expected)


def test_nothing_of_the_size_of_all_neighbourhoods_is_held():
    frame, vertical, horizontal = (each.cuda() for each in inputs(4, 51, 256, 256))
    local_convolution(frame, vertical, horizontal)  # so that the check is over
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    local_convolution(frame, vertical, horizontal)
    assert torch.cuda.max_memory_allocated() - before < 32 * 2**20
