"""Batches made ahead of the training step by threads of their own, and how long the step had to wait for them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from pipeline.training.segmentation.samples import Samples

Batch = tuple[Tensor, Tensor]


class Loader:
    """Makes the batches of the given shards for steps `first`, `first + 1`, ... `last - 1`, a few ahead, in order.

    Crops follow from seed, step and shard alone, so threads change nothing. On a GPU windows travel as uint8 and are
    augmented there, on a stream of the thread's own.

    Attributes:
        waited: seconds that `batch` has waited so far.
    """

    def __init__(
        self, samples: Samples, shards: Sequence[int], steps: range, device: torch.device, threads: int, ahead: int
    ) -> None:
        self._samples, self._device, self._ahead = samples, device, ahead * len(shards)
        self._order = iter([(step, shard) for step in steps for shard in shards])
        self._pool = ThreadPoolExecutor(threads, "loader", initializer=_single_threaded)
        self._made: dict[tuple[int, int], Future[Batch]] = {}
        self._of_thread = threading.local()
        self.waited = 0.0

    def batch(self, step: int, shard: int) -> Batch:
        """Inputs (N, 1, D, H, W) and targets (N, 2, D, H, W), float32, on the device; each can be had once."""
        self._submit()
        started = time.monotonic()
        made = self._made.pop((step, shard)).result()
        self.waited += time.monotonic() - started
        self._submit()
        if self._device.type == "cuda":
            for tensor in made:
                tensor.record_stream(torch.cuda.current_stream(self._device))
        return made

    def close(self) -> None:
        """Drop what was made ahead."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        while len(self._made) < self._ahead and (following := next(self._order, None)) is not None:
            self._made[following] = self._pool.submit(self._make, *following)

    def _make(self, step: int, shard: int) -> Batch:
        if self._device.type != "cuda":
            return self._samples.batch(step, shard)
        if not hasattr(self._of_thread, "stream"):  # memory is kept for each stream that used it: as few as can be
            self._of_thread.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream: torch.cuda.Stream = self._of_thread.stream
        with torch.cuda.stream(stream):
            made = self._samples.batch(step, shard, device=self._device)
        stream.synchronize()
        return made


def default_threads(device: torch.device, processes: int) -> int:
    """One beside the arithmetic of a CPU; on a GPU the cores this process may count on, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device.type == "cpu" else max(1, min(8, cores // processes - 1))


def _single_threaded() -> None:
    torch.set_num_threads(1)
