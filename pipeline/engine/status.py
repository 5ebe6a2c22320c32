"""How far the steps and stages of a run are, read from its ledgers; also while a run works in the directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.engine.directory import RunDirectory, open_ledger
from pipeline.engine.ledger import read_record
from pipeline.engine.stage import Stage

SPOT_CHECKS = 16


@dataclass(frozen=True, slots=True)
class StageStatus:
    """How far a stage is; ``seconds`` are read, op and write, summed over its blocks; ``failures`` why by block."""

    stage: str
    blocks: int
    done: int
    failed: int
    seconds: tuple[float, float, float]
    failures: Mapping[int, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class StepStatus:
    """How far a step is: the stages that a person sees as one; of the export one layer.

    Attributes:
        step: its name, ``export raw`` for a layer.
        stages: those that have begun, in order.
        planned: how many stages it has, as far as they were known when the run was planned.
        is_passed: a later step has begun, so that a step without stages is done.
    """

    step: str
    stages: tuple[StageStatus, ...]
    planned: int
    is_passed: bool = False

    @property
    def blocks(self) -> int:
        """Blocks of the stages that have begun."""
        return sum(stage.blocks for stage in self.stages)

    @property
    def done(self) -> int:
        """Blocks that are done."""
        return sum(stage.done for stage in self.stages)

    @property
    def failed(self) -> int:
        """Blocks that failed and were not done since."""
        return sum(stage.failed for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Read, op and write, summed over all blocks of all workers."""
        return sum(sum(stage.seconds) for stage in self.stages)

    @property
    def state(self) -> str:
        """``done``, ``failed``, ``begun`` or ``waiting``."""
        if self.failed:
            return "failed"
        complete = len(self.stages) >= self.planned and self.done == self.blocks
        if self.stages:
            return "done" if complete else "begun"
        # A ledger that was deleted means blocks to compute again, whatever has begun after it.
        return "done" if self.is_passed and not self.planned else "waiting"


def status_of(directory: RunDirectory, planned: Mapping[str, Sequence[str]] | None = None) -> list[StageStatus]:
    """How far each stage that has started is, in the order of work.

    Args:
        directory: of the run.
        planned: the stages of every step; None takes what ``run.json`` states. Stages of no known step follow, by when
            their ledgers were last written to, which a copy of the directory keeps.
    """
    planned = planned_stages(directory) if planned is None else planned
    ledgers = sorted((directory.root / "ledgers").glob("*.ledger"), key=lambda path: path.stat().st_mtime_ns)
    found = [status for path in ledgers if (status := _status(path)) is not None]
    return sorted(found, key=lambda status: _place(status.stage, planned))


def steps_of(directory: RunDirectory, planned: Mapping[str, Sequence[str]] | None = None) -> list[StepStatus]:
    """How far each step is, in the order of work: all that were planned, else those that have begun; as above."""
    planned = planned_stages(directory) if planned is None else planned
    found = status_of(directory, planned)
    names = {name: len(stages) for name, stages in _grouped(planned).items()}
    begun: dict[str, list[StageStatus]] = {}
    for status in found:
        begun.setdefault(_shown_step(_step_of(status.stage, planned), status.stage), []).append(status)
    order = [*names, *(name for name in begun if name not in names)]
    last = max((number for number, name in enumerate(order) if name in begun), default=-1)
    return [
        StepStatus(name, tuple(begun.get(name, ())), names.get(name, 0), number < last)
        for number, name in enumerate(order)
    ]


def planned_stages(directory: RunDirectory) -> dict[str, list[str]]:
    """The stages of every step, as ``run.json`` states them; nothing in one of an earlier version."""
    try:
        steps = json.loads(directory.manifest.read_bytes()).get("steps", {})
    except (FileNotFoundError, ValueError, AttributeError):
        return {}
    return steps if isinstance(steps, dict) else {}


def _step_of(stage: str, planned: Mapping[str, Sequence[str]]) -> str:
    """The step of a stage. One that only earlier results decided is named after it: ``merge-0``."""
    for step, stages in planned.items():
        if stage in stages:
            return step
    return stage.partition("-")[0]


def _place(stage: str, planned: Mapping[str, Sequence[str]]) -> tuple[int, int, int]:
    """Where a stage stands in the order of work; those of an earlier version keep the order they are given in."""
    step = _step_of(stage, planned)
    if step not in planned:
        return len(planned), 0, 0
    stages, level = planned[step], stage.rpartition("-")[2]
    known = stages.index(stage) if stage in stages else len(stages)
    return list(planned).index(step), known, int(level) if level.isdecimal() else 0


def _shown_step(step: str, stage: str) -> str:
    """The line a stage is counted in: its step, or the layer where every mip is a stage, ``export-raw-mip0``."""
    layer, found, _ = stage.removeprefix(f"{step}-").rpartition("-mip")
    return f"{step} {layer}" if found else step


def _grouped(planned: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The planned stages by the line they are counted in."""
    grouped: dict[str, list[str]] = {}
    for step, stages in planned.items():
        for stage in stages:
            grouped.setdefault(_shown_step(step, stage), []).append(stage)
        if not stages:
            grouped[step] = []
    return grouped


def _status(path: Path) -> StageStatus | None:
    found = read_record(path)
    if found is None:
        return None
    header, record = found
    read, op, write = (round(float(part), 2) for part in record.seconds)
    failures = dict(sorted(record.failures.items()))
    return StageStatus(header["stage"], record.size, record.done_count, len(failures), (read, op, write), failures)


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
