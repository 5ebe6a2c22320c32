"""What runs inside a worker process: a few blocks of one stage, after one warm-up a process and stage."""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

import cloudpickle  # type: ignore[import-untyped]

from pipeline.engine.stage import BlockResult, Stage, run_block

# A Dask task costs the driver and the scheduler 1 to 2 ms, so that short blocks travel together up to about this long.
TASK_SECONDS = 0.25

# A process that dies before its nanny has heard of it may never be restarted (a worker stayed lost once, at load 10).
_FIRST_BLOCK_AFTER_S = 0.5

_started = time.monotonic()
_warmed: set[str] = set()
_warming = threading.Lock()
_thread = threading.local()


@dataclass(frozen=True, slots=True)
class Shipment:
    """A stage as it travels: by value, a few hundred bytes; ``client.scatter`` lost it on a second run."""

    name: str
    fingerprint: str
    pickled: bytes

    @classmethod
    def of(cls, stage: Stage) -> Shipment:
        """Pack a stage; cloudpickle also carries classes of the main script."""
        return cls(stage.name, stage.fingerprint, cloudpickle.dumps(stage))

    def unpacked(self) -> Stage:
        """The stage, made anew: two runs with one fingerprint may write to different places."""
        stage: Stage = pickle.loads(self.pickled)
        return stage


@dataclass(frozen=True, slots=True)
class Task:
    """Some blocks of a stage, to be run one after another in one thread."""

    shipment: Shipment
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """Results of the first blocks of a task, and the seconds all of them took together."""

    results: tuple[BlockResult, ...]
    seconds: float


def run_blocks(task: Task) -> Reply:
    """Run the blocks of a task until ``TASK_SECONDS`` have passed; at least one, and the rest goes back.

    So a batch sized by short, empty blocks never holds up a worker with a row of long ones.

    Raises:
        Exception: whatever the stage's warm-up raises; a failing block never raises.
    """
    time.sleep(max(0.0, _started + _FIRST_BLOCK_AFTER_S - time.monotonic()))
    stage = task.shipment.unpacked()
    warm_up(stage, task.shipment.fingerprint)
    _settle_thread()
    results: list[BlockResult] = []
    started = time.perf_counter()
    for number in task.numbers:
        results.append(run_block(stage, number))
        if time.perf_counter() - started > TASK_SECONDS:
            break
    return Reply(tuple(results), time.perf_counter() - started)


def warm_up(stage: Stage, fingerprint: str) -> None:
    """Warm a stage up once in this process; other threads of the process wait for it."""
    if fingerprint in _warmed:
        return
    with _warming:
        if fingerprint not in _warmed:
            stage.warm_up()
            _warmed.add(fingerprint)


async def warm_up_here(shipment: Shipment) -> None:
    """The same from the worker's event loop, which goes on answering heartbeats while a model loads."""
    await asyncio.to_thread(lambda: warm_up(shipment.unpacked(), shipment.fingerprint))


def _settle_thread() -> None:
    """Flush denormals in this thread, where the stage has loaded torch (the flag belongs to a thread).

    Networks decay into denormals at black borders; x86 computes those many times more slowly.
    """
    torch: Any = sys.modules.get("torch")
    if torch is not None and not getattr(_thread, "settled", False):
        torch.set_flush_denormal(True)
        _thread.settled = True
