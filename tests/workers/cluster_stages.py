"""Toy stages for a real cluster: they count their executions in files, and can kill the process that runs them."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.engine.stage import BlockResult
from pipeline.errors import Unreadable
from pipeline.grid import Block, BlockGrid


@dataclass(frozen=True)
class Recorder:
    """Each block sleeps, leaves a file ``number.pid.time`` and counts its number doubled.

    ``raises`` raise; ``kills_once`` kill their process when they run first; ``kills`` kill it every time.
    """

    folder: Path
    blocks: int = 20
    name: str = "record"
    seconds: float = 0.0
    raises: frozenset[int] = frozenset()
    kills_once: frozenset[int] = frozenset()
    kills: frozenset[int] = frozenset()
    fingerprint: str = field(default="recorder")

    @property
    def grid(self) -> BlockGrid:
        return BlockGrid((self.blocks, 1, 1), (1, 1, 1))

    def warm_up(self) -> None:
        (self.folder / f"warm.{os.getpid()}.{time.monotonic_ns()}").touch()

    def __call__(self, block: Block) -> BlockResult:
        number = block.number
        if number in self.kills or (number in self.kills_once and not self._killed_before(number)):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        if number in self.raises:
            raise ValueError(f"block {number} is not to be had")
        (self.folder / f"ran.{number}.{os.getpid()}.{time.monotonic_ns()}").touch()
        return BlockResult(number, 2 * number)

    def _killed_before(self, number: int) -> bool:
        mark = self.folder / f"killed.{number}"
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            return True
        return False

    def runs(self) -> list[int]:
        """The numbers of all executions that came to their end, sorted."""
        return sorted(int(path.name.split(".")[1]) for path in self.folder.glob("ran.*"))

    def warmed(self) -> list[int]:
        """The process of every warm-up, sorted."""
        return sorted(int(path.name.split(".")[1]) for path in self.folder.glob("warm.*"))


@dataclass(frozen=True)
class ColdStage(Recorder):
    """A stage whose model cannot be loaded."""

    def warm_up(self) -> None:
        raise FileNotFoundError("weights.pt is not there")


@dataclass(frozen=True)
class TornStage(Recorder):
    """A stage whose every block finds what it reads torn; its start does too, where ``kills`` holds block 0."""

    def warm_up(self) -> None:
        if 0 in self.kills:
            raise self.torn()

    def __call__(self, block: Block) -> BlockResult:
        raise self.torn()

    def torn(self) -> Unreadable:
        return Unreadable(f"{self.folder} [0:1]", "it must be readable", path=str(self.folder), box=self.grid[0].core)


@dataclass(frozen=True)
class SlowTail(Recorder):
    """The last eight blocks are long."""

    tail_seconds: float = 0.6

    def __call__(self, block: Block) -> BlockResult:
        if block.number >= self.blocks - 8:
            time.sleep(self.tail_seconds)
        return super().__call__(block)

    def ends(self, number: int) -> float:
        """When a block ended, seconds of the monotonic clock of this machine."""
        (path,) = self.folder.glob(f"ran.{number}.*")
        return int(path.name.split(".")[3]) / 1e9


@dataclass(frozen=True)
class ThreadCounter(Recorder):
    """Counts the threads that torch would use."""

    def __call__(self, block: Block) -> BlockResult:
        import torch

        return BlockResult(block.number, torch.get_num_threads())
