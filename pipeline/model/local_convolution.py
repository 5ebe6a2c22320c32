"""The adaptive separable convolution: every pixel has kernels of its own, one down the column and one along the row.

Niklaus, Mai, Liu, "Video Frame Interpolation via Adaptive Separable Convolution" (ICCV 2017); with the published 51
taps 2,601 products a pixel. Here they are matrix products: a tile of one row and w pixels has the kernels along the row
on the diagonals of a band (w + T - 1, w), and the window (T, w + T - 1) of the frame times that band is the sum along
the row for each of the T rows. No copy of the frame's neighbourhoods is made.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from pipeline.errors import BadInput, raise_all

log = logging.getLogger(__name__)

# One thread of a Xeon (AVX-512) and 256x256: 14 ms at 51 taps, 3.5 ms at 15; 16 and 64 columns were slower.
_COLUMNS = 32
# Rows a product on a CPU: 4 MB of temporary memory at 51 taps, 10 MB with the gradient.
_ROWS = 64


def local_convolution(frame: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Each pixel's T x T neighbourhood, weighted by the outer product of that pixel's two kernels.

    ``out[n, 0, y, x] = sum over i, j of frame[n, 0, y + i - T // 2, x + j - T // 2] * vertical[n, i, y, x] *
    horizontal[n, j, y, x]``; beyond the border the frame repeats its border. On a CPU an image has the same bits in
    every batch and with every number of threads. Differentiable once, in all three.

    Args:
        frame: (N, 1, H, W) floats.
        vertical, horizontal: (N, T, H, W), T odd; the sum is done in the dtype of ``frame``, under autocast too.

    Returns:
        (N, 1, H, W) of the dtype of ``frame``.

    Raises:
        BadInput: the shapes do not fit, or T is even.
    """
    _check(frame, vertical, horizontal)
    with torch.autocast(frame.device.type, enabled=False):
        padded = functional.pad(frame, (vertical.shape[1] // 2,) * 4, mode="replicate")
        made: Tensor = _Products.apply(padded, vertical.to(frame.dtype), horizontal.to(frame.dtype))  # type: ignore[no-untyped-call]
    return made


class _Products(torch.autograd.Function):
    """Of frames (N, 1, H + T - 1, W + T - 1) and two kernels (N, T, H, W) -> (N, 1, H, W)."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
        ctx.save_for_backward(padded, vertical, horizontal)
        fused = _fused(padded, vertical.shape[1])
        return (fused.forward if fused else _sums)(padded, vertical, horizontal)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        padded, vertical, horizontal = ctx.saved_tensors
        to_frame = ctx.needs_input_grad[0]
        fused = None if to_frame else _fused(padded, vertical.shape[1])
        with torch.autocast(padded.device.type, enabled=False):
            if fused:
                return None, *fused.gradients(gradient, padded, vertical, horizontal)
            return _gradients(gradient, padded, vertical, horizontal, to_frame)


def _fused(padded: Tensor, taps: int) -> ModuleType | None:
    """The Triton kernels where these inputs can have them."""
    return triton_kernels(padded.device, taps) if padded.is_cuda and padded.dtype == torch.float32 else None


@cache
def triton_kernels(device: torch.device, taps: int) -> ModuleType | None:
    """`local_convolution_triton`, checked: None where it is missing, or gives there what the products do not give."""
    try:
        fused = import_module("pipeline.model.local_convolution_triton")
    except ImportError:
        return None
    problem = _problem(fused, device, taps)
    if problem:
        log.warning("Local convolutions of %d taps on %s run without Triton: %s", taps, device, problem)
    return None if problem else fused


def _problem(fused: ModuleType, device: torch.device, taps: int) -> str:
    """What the kernels do wrong on a small input, in one line; empty where nothing is."""
    random = torch.Generator().manual_seed(0)
    n, height, width = 2, 9, 35
    padded = torch.rand(n, 1, height + taps - 1, width + taps - 1, generator=random)
    down, along, gradient = (torch.randn(n, size, height, width, generator=random) for size in (taps, taps, 1))
    expected = [_sums(padded, down, along), *_gradients(gradient, padded, down, along, False)[1:]]
    there = [each.to(device) for each in (padded, down, along)]
    try:
        made = [fused.forward(*there), *fused.gradients(gradient.to(device), *there)]
    except fused.FAILURES as error:
        return f"{type(error).__name__}: {error}"
    agree = (torch.allclose(a.cpu(), b, 0, 1e-4 * float(b.abs().max())) for a, b in zip(made, expected, strict=True))
    return "" if all(agree) else "they do not give what matrix products give"


def _sums(padded: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """(N, 1, H, W), the sums themselves."""
    made = torch.empty_like(vertical[:, :1])
    for n, (down, along) in enumerate(zip(vertical, horizontal, strict=True)):
        for rows, columns, window, band in _tiles(padded[n, 0], along):
            sums = torch.bmm(window, band).mul_(_by_row(down, rows, columns))
            made[n, 0, rows, columns] = sums.sum(1)
    return made


def _gradients(
    gradient: Tensor, padded: Tensor, vertical: Tensor, horizontal: Tensor, to_frame: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of the padded frame, where asked for, and of the two kernels."""
    to_padded = torch.zeros_like(padded) if to_frame else None
    to_vertical, to_horizontal = torch.empty_like(vertical), torch.empty_like(horizontal)
    for n, (down, along) in enumerate(zip(vertical, horizontal, strict=True)):
        for rows, columns, window, band in _tiles(padded[n, 0], along):
            outer = gradient[n, 0, rows, columns].unsqueeze(1)
            inner = outer * _by_row(down, rows, columns)
            _by_row(to_vertical[n], rows, columns).copy_(torch.bmm(window, band).mul_(outer))
            _by_row(to_horizontal[n], rows, columns).copy_(_diagonals(torch.bmm(window.mT, inner)))
            if to_padded is not None:
                _add_windows(to_padded[n, 0], rows, columns, torch.bmm(inner, band.mT))
    return to_padded, to_vertical, to_horizontal


def _tiles(padded: Tensor, along: Tensor) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Rows, columns, windows (rows, T, K) of the frame and bands (rows, K, columns) of one image; K = columns + T - 1.

    The bands are overwritten by the next tile. The frame is copied, so that no sum depends on where it lies in a batch.
    """
    padded = padded.clone(memory_format=torch.contiguous_format)
    taps, height, width = along.shape
    step = _ROWS if along.device.type == "cpu" else height
    for left in range(0, width, _COLUMNS):
        columns = slice(left, min(left + _COLUMNS, width))
        reach = columns.stop - left + taps - 1
        bands = along.new_zeros(min(step, height), reach, columns.stop - left)
        for top in range(0, height, step):
            rows = slice(top, min(top + step, height))
            band = bands[: rows.stop - top]
            _diagonals(band).copy_(_by_row(along, rows, columns))
            line = padded.stride(0)
            windows = padded.as_strided((len(band), taps, reach), (line, line, 1), top * line + left)
            yield rows, columns, windows, band


def _by_row(kernels: Tensor, rows: slice, columns: slice) -> Tensor:
    """View (rows, T, columns) of kernels (T, H, W)."""
    return kernels[:, rows, columns].transpose(0, 1)


def _diagonals(band: Tensor) -> Tensor:
    """View (rows, T, columns) of the T diagonals of contiguous (rows, columns + T - 1, columns)."""
    rows, reach, columns = band.shape
    return band.as_strided((rows, reach - columns + 1, columns), (reach * columns, columns, columns + 1))


def _add_windows(padded: Tensor, rows: slice, columns: slice, windows: Tensor) -> None:
    """Add windows (rows, T, K) of a tile to the padded frame they were taken from."""
    height, taps, reach = windows.shape
    for tap in range(taps):
        padded[rows.start + tap : rows.start + tap + height, columns.start : columns.start + reach] += windows[:, tap]


def _check(frame: Tensor, vertical: Tensor, horizontal: Tensor) -> None:
    problems = []
    taps = vertical.shape[1] if vertical.ndim == 4 else 0
    if taps % 2 == 0:
        problems.append(
            BadInput(
                f"kernels of shape {tuple(vertical.shape)}",
                "they are (N, T, H, W) with an odd T",
                "the middle tap is the pixel itself",
                f"The nearest is {taps + 1} taps." if vertical.ndim == 4 else "",
            )
        )
    n, _, height, width = (*vertical.shape, *(0,) * 4)[:4]
    if frame.shape != (n, 1, height, width) or horizontal.shape != vertical.shape:
        problems.append(
            BadInput(
                f"frame {tuple(frame.shape)}, kernels {tuple(vertical.shape)} and {tuple(horizontal.shape)}",
                "a frame is (N, 1, H, W), and both kernels are (N, T, H, W) of the same N, H and W",
                "each pixel has its own two kernels",
            )
        )
    raise_all(problems)
