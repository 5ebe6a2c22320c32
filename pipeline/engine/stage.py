"""What a stage is: one block in, one small result out. The only kind of thing that does I/O."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

from pipeline.errors import Unreadable, kind_of
from pipeline.grid import Block, BlockGrid
from pipeline.store.identity import digest


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What the driver learns of a finished block: a count, the seconds it took, or why it failed.

    ``count`` is what the stage counts (patches computed, fragments, pairs, instances in the block). ``error`` is None
    for a block whose arrays are stored; otherwise one line saying why it failed, and nothing of it counts as done.
    ``unreadable`` is the path or URL of the stored array or file that it could not read, if it failed for that.
    """

    number: int
    count: int = 0
    read_s: float = 0.0
    op_s: float = 0.0
    write_s: float = 0.0
    error: str | None = None
    unreadable: str | None = None


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


@dataclass(frozen=True, kw_only=True)
class BlockStage(ABC):
    """What all stages of a run have in common. Each states its ``name``, its ``version``, its fields and its ``work``.

    Ledgers and tables of old runs are bound to the fingerprint: keys and values that go into it stay as they are.

    Attributes:
        version: raised when the same inputs give another result.
        upstream: fingerprint of what the stage reads.
        grid: the blocks this stage writes.
    """

    upstream: str
    grid: BlockGrid

    version: ClassVar[int]

    @property
    @abstractmethod
    def name(self) -> str:
        """One word, unique in the run: an attribute of the class, or a property where a run has several of it."""

    def parameters(self) -> dict[str, Any]:
        """What else decides the result, JSON-able. ``version`` or ``source`` given here replaces the common one."""
        return {}

    @property
    def fingerprint(self) -> str:
        """Hash of the name, the version, what is read, the grid and the parameters; 16 hex digits."""
        common = {"stage": self.name, "version": self.version, "source": self.upstream, "grid": asdict(self.grid)}
        return digest(common | self.parameters())

    def warm_up(self) -> None:  # noqa: B027  no abstract method: most stages have nothing to load
        """Load what every block needs; nothing, unless the stage says otherwise."""

    def __call__(self, block: Block) -> BlockResult:
        """Do one block and time its parts."""
        watch = Stopwatch()
        return watch.result(block.number, self.work(block, watch))

    @abstractmethod
    def work(self, block: Block, watch: Stopwatch) -> int:
        """Read, compute and write one block, each under ``watch``; what the stage counts in it."""


def run_block(stage: Stage, number: int) -> BlockResult:
    """Run one block of a stage; the worker's border, where any failure becomes a recorded result.

    A process that dies here (kill -9, out of memory) returns nothing: that is the executor's to notice.
    """
    try:
        return stage(stage.grid[number])
    except Exception as error:  # noqa: BLE001  a failed block is recorded, whatever broke
        return failed(number, _one_line(error), unreadable_in(error))


def failed(number: int, error: str, unreadable: str | None = None) -> BlockResult:
    """The result of a block that failed, or was lost outside ``run_block``, for example with its worker."""
    return BlockResult(number, error=error, unreadable=unreadable)


def unreadable_in(error: BaseException) -> str | None:
    """The path of what is stored and could not be read, where that is what an error says."""
    return error.path if isinstance(error, Unreadable) else None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{kind_of(error)}: {text}" if text else kind_of(error)
