"""The adaptive separable convolution and its gradient in one pass each on a CUDA device, without temporary memory.

Importing this needs triton, which the CUDA builds of torch for Linux bring along.
"""

# ruff: noqa: N803

from __future__ import annotations

import subprocess
from typing import Any

import torch
import triton  # type: ignore[import-not-found, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, unused-ignore]
from torch import Tensor
from triton.errors import TritonError  # type: ignore[import-not-found, unused-ignore]

# Of starting a kernel: triton builds its launcher with a C compiler, which may be missing or fail.
FAILURES = (TritonError, RuntimeError, OSError, subprocess.SubprocessError)
_BLOCK = 128


def forward(padded: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """(N, 1, H + T - 1, W + T - 1) and two kernels (N, T, H, W), all float32 -> (N, 1, H, W)."""
    padded, vertical, horizontal = padded.contiguous(), vertical.contiguous(), horizontal.contiguous()
    made = torch.empty_like(vertical[:, :1], memory_format=torch.contiguous_format)
    _launch(_weighted_sum, padded, vertical, horizontal, made)
    return made


def gradients(gradient: Tensor, padded: Tensor, vertical: Tensor, horizontal: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients (N, T, H, W) of the two kernels, of the gradient (N, 1, H, W) of `forward`."""
    gradient, padded = gradient.contiguous(), padded.contiguous()
    line = padded.shape[-1]
    return (
        _gradient(gradient, padded, horizontal.contiguous(), line, 1),
        _gradient(gradient, padded, vertical.contiguous(), 1, line),
    )


def _gradient(gradient: Tensor, padded: Tensor, other: Tensor, outer: int, inner: int) -> Tensor:
    made = torch.empty_like(other)
    _launch(_products, padded, other, gradient, made, outer, inner)
    return made


def _launch(kernel: Any, padded: Tensor, kernels: Tensor, *others: Tensor | int) -> None:
    """Start the kernel with one thread a pixel of every image."""
    n, taps, height, width = kernels.shape
    sizes = height * width, width, padded.shape[-1], padded[0].numel()
    grid = triton.cdiv(height * width, _BLOCK), n
    with torch.cuda.device_of(padded):  # type: ignore[no-untyped-call]
        kernel[grid](padded, kernels, *others, *sizes, TAPS=taps, BLOCK=_BLOCK)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _weighted_sum(  # type: ignore[no-untyped-def]
    frame, vertical, horizontal, made, pixels, width, line, area, TAPS: tl.constexpr, BLOCK: tl.constexpr
):
    """Each pixel's sum over rows i of vertical[i] x (sum over j of frame[i, j] x horizontal[j])."""
    n = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    corner = frame + n * area + pixel // width * line + pixel % width
    down = vertical + n * TAPS * pixels + pixel
    along = horizontal + n * TAPS * pixels + pixel
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(TAPS):
        row = tl.zeros((BLOCK,), tl.float32)
        for j in tl.static_range(TAPS):
            row += tl.load(corner + i * line + j, inside, 0.0) * tl.load(along + j * pixels, inside, 0.0)
        total += row * tl.load(down + i * pixels, inside, 0.0)
    tl.store(made + n * pixels + pixel, total, inside)


@triton.jit  # type: ignore[untyped-decorator, unused-ignore]
def _products(  # type: ignore[no-untyped-def]
    frame, kernels, gradient, made, outer, inner, pixels, width, line, area, TAPS: tl.constexpr, BLOCK: tl.constexpr
):
    """Each pixel's gradient x (sum over j of frame[outer i + inner j] x kernels[j]) for every tap i."""
    n = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    corner = frame + n * area + pixel // width * line + pixel % width
    first = n * TAPS * pixels + pixel
    scale = tl.load(gradient + n * pixels + pixel, inside, 0.0)
    for i in range(TAPS):
        total = tl.zeros((BLOCK,), tl.float32)
        for j in tl.static_range(TAPS):
            values = tl.load(corner + i * outer + j * inner, inside, 0.0)
            total += values * tl.load(kernels + first + j * pixels, inside, 0.0)
        tl.store(made + first + i * pixels, scale * total, inside)
