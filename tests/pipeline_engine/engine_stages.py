"""A toy stage that counts its executions in files."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.engine.stage import BlockResult, Stopwatch
from pipeline.errors import Unreadable
from pipeline.grid import Block, BlockGrid


@dataclass(frozen=True)
class Tally:
    """Each block leaves a file ``number.time`` and counts its number doubled; those in ``raises`` raise."""

    folder: Path
    blocks: int = 12
    name: str = "tally"
    fingerprint: str = "tally-1"
    seconds: float = 0.0
    raises: frozenset[int] = frozenset()

    @property
    def grid(self) -> BlockGrid:
        return BlockGrid((2 * self.blocks, 3, 3), (2, 3, 3))

    def warm_up(self) -> None:
        (self.folder / f"warm.{time.monotonic_ns()}").touch()

    def __call__(self, block: Block) -> BlockResult:
        watch = Stopwatch()
        with watch("op"):
            time.sleep(self.seconds)
        if block.number in self.raises:
            raise ValueError(f"two\nlines of block {block.number}")
        (self.folder / f"ran.{block.number}.{time.monotonic_ns()}").touch()
        return watch.result(block.number, 2 * block.number)

    def runs(self) -> list[int]:
        """The numbers of all executions, sorted."""
        return sorted(int(path.name.split(".")[1]) for path in self.folder.glob("ran.*"))


@dataclass(frozen=True)
class Torn(Tally):
    """Those in ``raises`` find the array of their block torn."""

    def __call__(self, block: Block) -> BlockResult:
        if block.number in self.raises:
            path = str(self.folder / f"{block.number}")
            raise Unreadable(f"{path} {block.core}", "it must be readable", path=path, box=block.core)
        return super().__call__(block)


@dataclass(frozen=True)
class Meeting(Tally):
    """Each block waits until four are under way at the same time."""

    together: threading.Barrier = field(default_factory=lambda: threading.Barrier(4, timeout=60))

    def __call__(self, block: Block) -> BlockResult:
        self.together.wait()
        return super().__call__(block)
