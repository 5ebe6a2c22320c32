"""How far the stages of a run are, read from their ledgers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.engine.directory import RunDirectory, open_ledger
from pipeline.engine.ledger import read_record
from pipeline.engine.stage import Stage

SPOT_CHECKS = 16
ORDER = (
    *("inspect", "compare", "damage", "restore", "predict"),
    *("label", "stitch", "merge", "grow", "bridge", "relabel", "measure"),
)


@dataclass(frozen=True, slots=True)
class StageStatus:
    """How far a stage is; ``seconds`` are read, op and write, summed over its blocks."""

    stage: str
    blocks: int
    done: int
    failed: int
    seconds: tuple[float, float, float]


def status_of(directory: RunDirectory) -> list[StageStatus]:
    """How far each stage that has started is, oldest first; reads only, also while a run works in the directory."""
    ledgers = sorted((directory.root / "ledgers").glob("*.ledger"), key=lambda path: path.stat().st_ctime_ns)
    ordered = [status for path in ledgers if (status := _status(path)) is not None]
    return sorted(ordered, key=lambda status: _order(status.stage))


def _order(stage: str) -> tuple[int, str]:
    name, _, level = stage.partition("-")
    return (ORDER.index(name), level) if name in ORDER else (len(ORDER), stage)


def _status(path: Path) -> StageStatus | None:
    found = read_record(path)
    if found is None:
        return None
    header, record = found
    read, op, write = (round(float(part), 2) for part in record.seconds)
    return StageStatus(header["stage"], record.size, record.done_count, len(record.failures), (read, op, write))


def missing_blocks(directory: RunDirectory, stage: Stage) -> list[str]:
    """One line where blocks of a stage are missing, with the first of their boxes."""
    if not directory.ledger(stage.name).exists():
        return [f"{stage.name}: not started, {len(stage.grid)} blocks missing"]
    with open_ledger(directory, stage) as ledger:
        if ledger.is_complete:
            return []
        boxes = ", ".join(str(stage.grid[number].core) for number in islice(ledger.pending(), 3))
        return [f"{stage.name}: {ledger.size - ledger.done_count} of {ledger.size} blocks missing, the first {boxes}"]


def spread(numbers: npt.NDArray[np.intp]) -> list[int]:
    """Up to ``SPOT_CHECKS`` of the numbers, evenly from the first to the last."""
    if not len(numbers):
        return []
    return [int(numbers[n]) for n in np.unique(np.linspace(0, len(numbers) - 1, SPOT_CHECKS).astype(int))]
