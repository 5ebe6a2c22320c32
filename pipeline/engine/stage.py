"""What a stage is: one block in, one small result out. The only kind of thing that does I/O."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.grid import Block, BlockGrid


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What the driver learns of a finished block: a count, the seconds it took, or why it failed.

    ``count`` is what the stage counts (patches computed, fragments, pairs, instances in the block). ``error`` is None
    for a block whose arrays are stored; otherwise one line saying why it failed, and nothing of it counts as done.
    """

    number: int
    count: int = 0
    read_s: float = 0.0
    op_s: float = 0.0
    write_s: float = 0.0
    error: str | None = None


class Stage(Protocol):
    """A picklable description of the work on any block of ``grid``; holds addresses, never open handles."""

    @property
    def name(self) -> str:
        """One word, unique in the run."""
        ...

    @property
    def grid(self) -> BlockGrid:
        """The blocks this stage writes."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of everything that decides the result: op, version, parameters, sources, grid, dtype."""
        ...

    def warm_up(self) -> None:
        """Load what every block needs (the model) once in this process, before the first block."""
        ...

    def __call__(self, block: Block) -> BlockResult:
        """Read, compute, write one block. Doing it again writes the same voxels."""
        ...


@dataclass(slots=True)
class Stopwatch:
    """Seconds spent in the named parts of one block: ``with watch("read"): ...``."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the seconds inside the context to a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started

    def result(self, number: int, count: int = 0) -> BlockResult:
        """A result with the seconds of ``read``, ``op`` and ``write``."""
        read, op, write = (self.seconds.get(part, 0.0) for part in ("read", "op", "write"))
        return BlockResult(number, count, read, op, write)


def run_block(stage: Stage, number: int) -> BlockResult:
    """Run one block of a stage; the worker's border, where any failure becomes a recorded result.

    A process that dies here (kill -9, out of memory) returns nothing: that is the executor's to notice.
    """
    try:
        return stage(stage.grid[number])
    except Exception as error:  # noqa: BLE001  the project's only one: a failed block is recorded, whatever broke
        return BlockResult(number, error=_one_line(error))


def failed(number: int, error: str) -> BlockResult:
    """The result of a block that was lost outside ``run_block``, for example with its worker."""
    return replace(BlockResult(number), error=error)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
