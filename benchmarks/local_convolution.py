"""What does the adaptive separable convolution cost, against doing it plainly?

``python -m benchmarks.local_convolution``: a pair of frames of 256 x 256, as the interpolation network has them, with
kernels of 51 and 15 taps. ``product``: `pipeline.model.local_convolution`. ``unfold``: torch's copy of every
neighbourhood, then one sum. ``tap by tap``: one product of whole images a tap. Milliseconds are the least of as many
runs as fit in some seconds; memory is what a run adds at its peak to what was held before (Linux, glibc).
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import report
from pipeline.model.local_convolution import local_convolution

Convolution = Callable[[Tensor, Tensor, Tensor], Tensor]


def unfold(frame: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """As `local_convolution`, with a copy (N, T * T, H * W) of all neighbourhoods."""
    n, taps, height, width = vertical.shape
    windows = functional.unfold(_padded(frame, taps), taps).view(n, taps, taps, height, width)
    return ((windows * horizontal.unsqueeze(1)).sum(2) * vertical).sum(1, keepdim=True)


def tap_by_tap(frame: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """As `local_convolution`, in T * T products of (N, H, W)."""
    _, taps, height, width = vertical.shape
    padded = _padded(frame, taps)[:, 0]
    total = torch.zeros_like(vertical[:, 0])
    along = horizontal.unbind(1)
    for i, down in enumerate(vertical.unbind(1)):
        row = torch.zeros_like(total)
        for j, kernel in enumerate(along):
            row = torch.addcmul(row, padded[:, i : i + height, j : j + width], kernel)
        total = torch.addcmul(total, row, down)
    return total.unsqueeze(1)


METHODS: dict[str, Convolution] = {"product": local_convolution, "unfold": unfold, "tap by tap": tap_by_tap}


def main(
    size: int = 256,
    taps: Sequence[int] = (51, 15),
    seconds: float = 3,
    device: str = "cpu",
    results: Path = report.RESULTS,
) -> list[dict[str, Any]]:
    """Measure, print the table, write the JSON.

    Args:
        size: rows and columns of a frame.
        taps: kernel sizes, each odd.
        seconds: of each measurement; one run where it takes longer.
        device: where; CPU threads are those of torch.
        results: where the JSON goes.

    Returns:
        One row a kernel size and method.
    """
    rows = [
        {
            "device": torch.cuda.get_device_name(device) if device != "cpu" else "cpu",
            "threads": torch.get_num_threads(),
            "taps": count,
            "method": name,
            **measured(method, *pair(size, count, device), seconds),
        }
        for count in taps
        for name, method in METHODS.items()
    ]
    print(report.table(rows))
    report.write("local_convolution", rows, results)
    return rows


def pair(size: int, taps: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Two random frames (2, 1, size, size) and the kernels (2, taps, size, size) of each; float32."""
    random = torch.Generator().manual_seed(0)
    frames = torch.rand(2, 1, size, size, generator=random).to(device)
    vertical, horizontal = (torch.randn(2, taps, size, size, generator=random).to(device) for _ in range(2))
    return frames, vertical.requires_grad_(), horizontal.requires_grad_()


def measured(
    method: Convolution, frames: Tensor, vertical: Tensor, horizontal: Tensor, seconds: float
) -> dict[str, Any]:
    """Milliseconds and MiB of the forward pass alone, and of it and the gradient of the kernels."""

    def forward() -> None:
        with torch.no_grad():
            method(frames, vertical, horizontal)

    def both() -> None:
        torch.autograd.grad(method(frames, vertical, horizontal).sum(), (vertical, horizontal))

    made: dict[str, Any] = {}
    for name, work in (("forward", forward), ("with_gradient", both)):
        work()
        made[f"{name}_ms"] = round(1000 * _least_seconds(work, frames.device, seconds), 2)
        made[f"{name}_mib"] = round(_added_bytes(work, frames.device) / 2**20, 1)
    return made


def _padded(frame: Tensor, taps: int) -> Tensor:
    return functional.pad(frame, (taps // 2,) * 4, mode="replicate")


def _least_seconds(work: Callable[[], None], device: torch.device, seconds: float) -> float:
    taken: list[float] = []
    while sum(taken) < seconds:
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return min(taken)


def _added_bytes(work: Callable[[], None], device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    ctypes.CDLL(None).malloc_trim(0)  # what the allocator keeps of earlier runs would hide what this one takes
    before = report.resident_bytes()
    report.reset_peak()
    work()
    return max(report.peak_bytes() - before, 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--taps", type=int, nargs="+", default=(51, 15))
    parser.add_argument("--seconds", type=float, default=3, help="of each measurement")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    main(given.size, given.taps, given.seconds, given.device)
