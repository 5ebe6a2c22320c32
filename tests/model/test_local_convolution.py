"""The adaptive separable convolution gives the sum it is defined by, and its gradient, in whatever order it is done."""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import BadInput
from pipeline.model.local_convolution import local_convolution, triton_kernels

KERNELS = "pipeline.model.local_convolution_triton"
CPU = torch.device("cpu")


def made(n: int, taps: int, height: int, width: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(taps)
    frame = torch.rand(n, 1, height, width, generator=random, dtype=dtype)
    return frame, *(torch.randn(n, taps, height, width, generator=random, dtype=dtype) for _ in range(2))


def one_by_one(frame: Tensor, vertical: Tensor, horizontal: Tensor) -> np.ndarray:
    n, taps, height, width = vertical.shape
    radius = taps // 2
    padded = np.pad(frame.numpy()[:, 0], ((0, 0), (radius, radius), (radius, radius)), mode="edge")
    out = np.zeros((n, 1, height, width))
    for image, y, x in np.ndindex(n, height, width):
        window = padded[image, y : y + taps, x : x + taps]
        out[image, 0, y, x] = vertical[image, :, y, x].numpy() @ window @ horizontal[image, :, y, x].numpy()
    return out


def unfolded(frame: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    n, taps, height, width = vertical.shape
    padded = functional.pad(frame, (taps // 2,) * 4, mode="replicate")
    windows = functional.unfold(padded, taps).view(n, taps, taps, height, width)
    return torch.einsum("nijyx,niyx,njyx->nyx", windows, vertical, horizontal).unsqueeze(1)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("n", "taps", "height", "width"),
    [(1, 1, 1, 1), (2, 1, 5, 7), (3, 3, 2, 33), (2, 5, 67, 3), (1, 7, 65, 40), (2, 15, 9, 31), (1, 51, 5, 37)],
)
def test_it_is_the_sum_done_pixel_by_pixel(n: int, taps: int, height: int, width: int) -> None:
    inputs = made(n, taps, height, width)
    out = local_convolution(*inputs)
    assert out.shape == (n, 1, height, width) and out.dtype == torch.float64
    np.testing.assert_allclose(out.numpy(), one_by_one(*inputs), atol=1e-11)


def test_a_delta_in_both_kernels_is_the_frame_itself() -> None:
    frame, vertical, _ = made(2, 51, 40, 70, torch.float32)
    delta = torch.zeros_like(vertical)
    delta[:, 25] = 1
    assert torch.equal(local_convolution(frame, delta, delta), frame)


def test_inputs_may_lie_in_memory_as_they_like() -> None:
    frame, vertical, horizontal = made(2, 5, 36, 70)
    strewn = frame.transpose(2, 3).contiguous().transpose(2, 3), vertical.to(memory_format=torch.channels_last)
    wide = torch.cat([horizontal, horizontal], 3)[..., :70]
    torch.testing.assert_close(local_convolution(*strewn, wide), local_convolution(frame, vertical, horizontal))


@pytest.mark.parametrize(("taps", "height", "width"), [(1, 3, 4), (3, 2, 3), (5, 3, 2), (3, 1, 34)])
def test_its_gradient_is_that_of_finite_differences(taps: int, height: int, width: int) -> None:
    inputs = [each.requires_grad_() for each in made(2, taps, height, width)]
    assert torch.autograd.gradcheck(local_convolution, inputs)


@pytest.mark.parametrize("taps", [7, 51])
def test_its_gradient_over_many_tiles_is_that_of_the_plain_sum(taps: int) -> None:
    inputs = [each.requires_grad_() for each in made(2, taps, 66, 35)]
    weights = torch.linspace(-1, 1, 66 * 35, dtype=torch.float64).view(66, 35)
    found = torch.autograd.grad((local_convolution(*inputs) * weights).sum(), inputs)
    expected = torch.autograd.grad((unfolded(*inputs) * weights).sum(), inputs)
    torch.testing.assert_close(found, expected)


def test_a_frame_that_needs_no_gradient_gets_none() -> None:
    frame, *kernels = made(1, 3, 4, 5)
    local_convolution(frame, *(each.requires_grad_() for each in kernels)).sum().backward()
    assert frame.grad is None and all(each.grad is not None for each in kernels)


@pytest.mark.parametrize(("taps", "height", "width"), [(51, 70, 100), (15, 130, 65), (5, 256, 256)])
def test_an_image_has_the_same_bits_in_every_batch_and_with_any_number_of_threads(
    threads: None, taps: int, height: int, width: int
) -> None:
    inputs = made(4, taps, height, width, torch.float32)
    torch.set_num_threads(1)
    alone = torch.cat([local_convolution(*(each[n : n + 1].clone() for each in inputs)) for n in range(4)])
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert torch.equal(local_convolution(*inputs), alone)


def test_under_autocast_the_sum_and_its_gradient_keep_the_precision_of_the_frame() -> None:
    frame, *kernels = made(1, 5, 8, 40, torch.float32)
    halved = [each.bfloat16().requires_grad_() for each in kernels]
    exact = [each.detach().float().requires_grad_() for each in halved]
    expected = local_convolution(frame, *exact)
    with torch.autocast("cpu", torch.bfloat16):
        found = local_convolution(frame, *halved)
        found.sum().backward()
    expected.sum().backward()
    assert torch.equal(found, expected)
    assert all(torch.equal(a.grad, b.grad.bfloat16()) for a, b in zip(halved, exact, strict=True))


def test_an_even_number_of_taps_is_refused() -> None:
    frame, vertical, horizontal = made(1, 4, 6, 6)
    with pytest.raises(BadInput, match=r"kernels of shape \(1, 4, 6, 6\).*an odd T.*The nearest is 5 taps"):
        local_convolution(frame, vertical, horizontal)


@pytest.mark.parametrize("wrong", ["frame", "horizontal", "channels"])
def test_shapes_that_do_not_fit_are_refused(wrong: str) -> None:
    frame, vertical, horizontal = made(2, 3, 6, 7)
    if wrong == "frame":
        frame = frame[..., 1:]
    elif wrong == "horizontal":
        horizontal = horizontal[:1]
    else:
        frame = frame.expand(2, 3, 6, 7)
    with pytest.raises(BadInput, match=r"frame \(.*both kernels are \(N, T, H, W\) of the same N, H and W"):
        local_convolution(frame, vertical, horizontal)


def test_kernels_without_a_batch_are_refused() -> None:
    frame, vertical, horizontal = made(1, 3, 6, 7)
    with pytest.raises(BadInput, match=r"kernels of shape \(3, 6, 7\)"):
        local_convolution(frame, vertical[0], horizontal[0])


def offered(monkeypatch: pytest.MonkeyPatch, forward: object) -> SimpleNamespace:
    """Stand-ins of the Triton kernels whose gradients are right."""

    def gradients(gradient: Tensor, padded: Tensor, vertical: Tensor, horizontal: Tensor) -> tuple[Tensor, ...]:
        kernels = vertical.requires_grad_(), horizontal.requires_grad_()
        return torch.autograd.grad(summed(padded, *kernels), kernels, gradient)

    kernels = SimpleNamespace(forward=forward, gradients=gradients, FAILURES=(OSError,))
    monkeypatch.setitem(sys.modules, KERNELS, kernels)  # type: ignore[arg-type]
    triton_kernels.cache_clear()
    return kernels


def summed(padded: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    n, taps, height, width = vertical.shape
    windows = functional.unfold(padded, taps).view(n, taps, taps, height, width)
    return torch.einsum("nijyx,niyx,njyx->nyx", windows, vertical, horizontal).unsqueeze(1)


def test_triton_kernels_are_taken_where_they_agree_with_the_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = offered(monkeypatch, summed)
    assert triton_kernels(CPU, 5) is kernels
    triton_kernels.cache_clear()


@pytest.mark.parametrize("scale", [1.01, float("nan")])
def test_triton_kernels_that_are_wrong_are_left_out_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, scale: float
) -> None:
    offered(monkeypatch, lambda *inputs: summed(*inputs) * scale)
    with caplog.at_level(logging.WARNING):
        assert triton_kernels(CPU, 5) is None
    assert "of 5 taps on cpu run without Triton: they do not give what matrix products give" in caplog.text
    triton_kernels.cache_clear()


def test_triton_kernels_that_do_not_start_are_left_out_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forward(*_: Tensor) -> Tensor:
        raise OSError("no compiler")

    offered(monkeypatch, forward)
    with caplog.at_level(logging.WARNING):
        assert triton_kernels(CPU, 3) is None
    assert "OSError: no compiler" in caplog.text
    triton_kernels.cache_clear()


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed: its kernels not run")
def test_the_triton_kernels_interpreted_on_a_cpu_agree_with_the_matrix_products() -> None:
    script = """
import torch
from pipeline.model.local_convolution import triton_kernels
assert all(triton_kernels(torch.device("cpu"), taps) for taps in (1, 3, 9))
"""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}  # read when triton is imported, so in a process of its own
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
