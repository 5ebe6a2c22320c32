"""Several processes that train one network, one on each GPU (or, for tests, on shares of a CPU)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, distributed
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from pipeline.errors import TeramitoError
from pipeline.model.device import device_of
from pipeline.training.segmentation.config import TrainConfig
from pipeline.training.segmentation.shards import process_count

_RANK, _PORT = "TERAMITO_TRAIN_RANK", "TERAMITO_TRAIN_PORT"
_LONG = timedelta(days=1)
_START_SECONDS = 0.05


class Group:
    """All processes of a training; alone it is one process that talks to nobody.

    Attributes:
        rank: number of this process, 0 for the one that validates, logs and saves.
        size: how many there are.
        device: what this one computes on.
    """

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1, store: Store | None = None) -> None:
        self.device, self.rank, self.size, self._store = device, rank, size, store
        self._waits = 0

    def mean(self, own: Sequence[Tensor]) -> Tensor:
        """Mean over the shards of all processes, of equally long vectors; every process holds as many shards.

        Summed in the order of the shards, so the number of processes does not show in the result.
        """
        mine = torch.stack(list(own))
        if self.size == 1:
            return mine.sum(0) / len(own)
        everywhere = [torch.empty_like(mine) for _ in range(self.size)]
        distributed.all_gather(everywhere, mine)
        every = torch.cat(everywhere)  # shard s is number s // size of process s % size
        ordered = every.reshape(self.size, len(own), -1).transpose(0, 1).reshape(len(every), -1)
        return ordered.sum(0) / len(every)

    def shards(self, count: int) -> list[int]:
        """The shards that this process computes."""
        return list(range(self.rank, count, self.size))

    def released(self) -> None:
        """The first process says that the others may go on; they wait for it here, however long it validates."""
        if self._store is None:
            return
        self._waits += 1
        key = f"go-{self._waits}"
        if self.rank == 0:
            self._store.set(key, "1")
        else:
            self._store.wait([key], _LONG)


@contextmanager
def processes(config: TrainConfig, directory: Path) -> Iterator[Group]:
    """The group of this training; the first process starts the others and ends them.

    Raises:
        TeramitoError: another process failed; its output is in DIRECTORY/process-N.log.
    """
    device, size = device_of(config.device), process_count(config)
    rank = int(os.environ.get(_RANK, "0"))
    if size == 1:
        yield Group(device)
        return
    with ExitStack() as stack:
        store = _store(rank)
        if rank == 0:
            path = directory / "processes.json"
            path.write_text(config.model_dump_json())
            _wait_for(stack.enter_context(_others(path, size, store.port)), store, directory)
        else:
            store.set(_here(rank), "1")
        own = torch.device("cuda", rank) if device.type == "cuda" else device
        if own.type == "cuda":
            torch.cuda.set_device(own)
        distributed.init_process_group(
            "nccl" if own.type == "cuda" else "gloo", store=store, rank=rank, world_size=size
        )
        stack.callback(distributed.destroy_process_group)
        yield Group(own, rank, size, store)


def _store(rank: int) -> TCPStore:
    port = int(os.environ.get(_PORT, "0"))
    return TCPStore("127.0.0.1", port, is_master=rank == 0, timeout=_LONG, wait_for_workers=False)


@contextmanager
def _others(config: Path, size: int, port: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes 1 ... size - 1; they end with this one, whatever ends it."""
    started: list[subprocess.Popen[bytes]] = []
    command = [sys.executable, "-m", "pipeline.training.segmentation.participant", str(config)]
    with ExitStack() as files:
        for rank in range(1, size):
            log = files.enter_context((config.parent / f"process-{rank}.log").open("wb"))
            env = {**os.environ, _RANK: str(rank), _PORT: str(port)}
            started.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
        try:
            yield started
        except RuntimeError as error:  # torch.distributed: the connection to another process broke
            failed = [rank for rank, process in enumerate(started, 1) if _failed(process)]
            if not failed:
                raise
            raise _told(failed, size, config.parent) from error
        finally:
            for process in started:
                _ended(process)


def _wait_for(others: Sequence[subprocess.Popen[bytes]], store: Store, directory: Path) -> None:
    """Until all have read their volumes; one that ends instead would be waited for in vain."""
    missing = dict(enumerate(others, 1))
    while missing:
        missing = {rank: process for rank, process in missing.items() if not store.check([_here(rank)])}
        if ended := [rank for rank, process in missing.items() if process.poll() is not None]:
            raise _told(ended, len(others) + 1, directory)
        time.sleep(_START_SECONDS)


def _here(rank: int) -> str:
    return f"here-{rank}"


def _told(failed: Sequence[int], size: int, directory: Path) -> TeramitoError:
    where = ", ".join(str(directory / f"process-{rank}.log") for rank in failed)
    return TeramitoError(f"training process {failed[0]} of {size} failed, see {where}; checkpoints are kept")


def _failed(process: subprocess.Popen[bytes]) -> bool:
    try:
        return process.wait(timeout=5) != 0
    except subprocess.TimeoutExpired:
        return False


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=10)  # the normal end: it comes to its last step as we do
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
