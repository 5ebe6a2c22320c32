"""What may call a run complete, and what it says of itself meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline import __version__
from pipeline.denoising import restoration_of
from pipeline.errors import BadInput, StageFailed
from pipeline.export import ExportLevel, probe
from pipeline.files import write_whole
from pipeline.instance_table import highest_id, table_problems, totals
from pipeline.ledger import read_record
from pipeline.run import RunDirectory, counts_of, open_ledger
from pipeline.stage import Stage
from pipeline.stages.export import ExportStage
from pipeline.stages.relabel import RelabelStage
from pipeline.stages.restore import RestoreStage
from pipeline.step import Step
from pipeline.steps import stages_of
from pipeline.tables import open_table

PROBES = 8
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


def verify(steps: Sequence[Step], directory: RunDirectory) -> list[str]:
    """Everything that is missing or wrong in a run; empty when it is complete.

    Counts every block of every stage in the ledgers and every chunk of the exported layers, reads sampled blocks of
    the segmentation back against the table they were made with, checks the instance table against it, and probes
    every exported layer.
    """
    try:
        return _problems(stages_of(steps), directory)
    except BadInput as torn:  # a table is torn or gone
        return [str(torn)]


def _problems(stages: Sequence[Stage], directory: RunDirectory) -> list[str]:
    problems = [problem for stage in stages for problem in _missing_blocks(directory, stage)]
    if problems:
        return problems
    relabel = next(stage for stage in stages if isinstance(stage, RelabelStage))
    problems += _segmentation_problems(directory, relabel)
    for stage in stages:
        if isinstance(stage, RestoreStage):
            problems += _restored_problems(directory, stage)
        if isinstance(stage, ExportStage):
            problems += [f"{stage.name}: {problem}" for problem in _export_problems(stage.level)]
    return problems


def require_verified(steps: Sequence[Step], directory: RunDirectory) -> None:
    """Raise what is wrong with a run, if anything; its report is withdrawn then, so that it is not called finished."""
    problems = verify(steps, directory)
    if problems:
        directory.report.unlink(missing_ok=True)
        raise Incomplete(directory, problems)


class Incomplete(StageFailed):
    """Verification found ``problems``; the message names them and the remedy."""

    def __init__(self, directory: RunDirectory, problems: list[str]) -> None:
        self.problems = problems
        super().__init__(
            "the run is not complete:\n  "
            + "\n  ".join(problems)
            + f"\nTo make it again, delete the stage's ledger in {directory.root / 'ledgers'} (or the damaged table "
            "itself) and run the same command."
        )


def write_report(directory: RunDirectory, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``report.json`` of a verified run and return it; ``facts`` say what was run on what."""
    instances, voxels = totals(directory.instances)
    report = {
        "complete": True,
        "teramito": __version__,
        **facts,
        "instances": instances,
        "instance_voxels": voxels,
        **({"restored": restored} if (restored := restoration_of(directory)) else {}),
        "stages": [asdict(status) for status in status_of(directory)],
    }
    write_whole(directory.report, json.dumps(report, indent=2).encode())
    return report


def is_finished(directory: RunDirectory) -> bool:
    """True when verification has found this run complete, and no table or picture of it was taken away since."""
    try:
        restored = json.loads(directory.report.read_bytes()).get("restored", {})
    except (FileNotFoundError, ValueError):
        return False
    wanted = [directory.instances]
    wanted += [directory.restoration] if restored else []
    wanted += [directory.restored_sheet] if restored.get("replaced_voxels") else []
    return all(path.exists() for path in wanted)


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


def _missing_blocks(directory: RunDirectory, stage: Stage) -> list[str]:
    if not directory.ledger(stage.name).exists():
        return [f"{stage.name}: not started, {len(stage.grid)} blocks missing"]
    with open_ledger(directory, stage) as ledger:
        if ledger.is_complete:
            return []
        boxes = ", ".join(str(stage.grid[number].core) for number in islice(ledger.pending(), 3))
        return [f"{stage.name}: {ledger.size - ledger.done_count} of {ledger.size} blocks missing, the first {boxes}"]


def _segmentation_problems(directory: RunDirectory, relabel: RelabelStage) -> list[str]:
    problems = table_problems(directory.instances, highest_id(relabel.table))
    filled = np.flatnonzero(counts_of(directory, relabel))
    for number in _some(filled):
        problems += _block_problems(relabel, number)
    return problems


def _restored_problems(directory: RunDirectory, stage: RestoreStage) -> list[str]:
    """Sampled blocks in which the mask of replaced voxels, or a voxel behind it, is no longer what was written."""
    counts, problems = counts_of(directory, stage), []
    if restoration_of(directory).get("fingerprint") != stage.fingerprint:
        problems.append(f"restored: {directory.restoration}, the counts of what was replaced, is damaged or gone")
    for number in _some(np.flatnonzero(counts)):
        core = stage.grid[number].core
        try:
            replaced = stage.replaced.read(core) > 0
            whole = np.count_nonzero(replaced) == counts[number] and bool(stage.restored.read(core)[replaced].all())
        except BadInput as torn:
            problems.append(f"restored: block {number} {torn}")
            continue
        if not whole:
            problems.append(
                f"restored: block {number} {core} does not hold what was replaced; its chunks are damaged or gone"
            )
    return problems


def _some(numbers: npt.NDArray[np.intp]) -> list[int]:
    """Up to ``SPOT_CHECKS`` of the numbers, evenly from the first to the last."""
    if not len(numbers):
        return []
    return [int(numbers[n]) for n in np.unique(np.linspace(0, len(numbers) - 1, SPOT_CHECKS).astype(int))]


def _export_problems(level: ExportLevel) -> list[str]:
    """Chunks that are not there, at any mip; at the finest, what a probe through cloud-volume finds."""
    folder = Path(level.target.url)
    try:
        key = json.loads((folder / "info").read_bytes())["scales"][level.mip]["key"]
        # Chunks of zeros are stored too. One is named x0-x1_y0-y1_z0-z1, perhaps with .gz.
        stored = {entry.name.removesuffix(".gz") for entry in os.scandir(folder / key) if entry.name.count("_") == 2}
    except (OSError, ValueError, LookupError) as error:
        return [f"{folder}: its info or chunks are missing ({error})"]
    chunks = prod(-(-n // c) for n, c in zip(level.target.shape, level.target.chunks, strict=True))
    if len(stored) < chunks:
        return [f"{chunks - len(stored)} of {chunks} chunks are missing in {folder / key}"]
    return probe(level.source, level.target, PROBES) if level.mip == 0 else []


def _block_problems(relabel: RelabelStage, number: int) -> list[str]:
    offsets = open_table(relabel.offsets)
    table = np.asarray(open_table(relabel.table)[int(offsets[number]) : int(offsets[number + 1])])
    core = relabel.grid[number].core
    expected = np.unique(table[table > 0])
    try:
        found = np.unique(relabel.segmentation.read(core))
    except BadInput as torn:
        return [f"segmentation: block {number} {torn}"]
    if np.array_equal(found[found > 0], expected):
        return []
    return [
        f"segmentation: block {number} {core} does not hold the instances it was given; its chunks are damaged or gone"
    ]
