"""What may call a run complete, and what it says of itself meanwhile."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline import __version__
from pipeline.denoise.summary import restoration_of
from pipeline.engine.directory import RunDirectory
from pipeline.engine.status import StageStatus, missing_blocks, status_of
from pipeline.engine.step import Step, stage_names, stages_of
from pipeline.errors import BadInput, StageFailed
from pipeline.instances.table import table_totals
from pipeline.store.files import write_whole


def verify(steps: Sequence[Step], directory: RunDirectory) -> list[str]:
    """Everything that is missing or wrong in a run; empty when it is complete.

    Counts every block of every stage in the ledgers; where all are there, every step checks what it has made: samples
    of the segmentation against the table it was made with, the instance table, restored voxels, chunks and samples of
    the exported layers.
    """
    try:
        missing = [problem for stage in stages_of(steps) for problem in missing_blocks(directory, stage)]
        return missing or [problem for step in steps for problem in step.check()]
    except BadInput as torn:  # a table is torn or gone
        return [str(torn)]


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


def write_report(directory: RunDirectory, facts: Mapping[str, Any], steps: Sequence[Step]) -> dict[str, Any]:
    """Write ``report.json`` of a verified run and return it; ``facts`` say what was run on what.

    Its stages stand in the order of ``steps``, also where ``run.json`` is of a version that did not state it.
    """
    instances, voxels = table_totals(directory.instances)
    report = {
        "complete": True,
        "teramito": __version__,
        **facts,
        "instances": instances,
        "instance_voxels": voxels,
        **({"restored": restored} if (restored := restoration_of(directory)) else {}),
        "stages": [_stage_facts(status) for status in status_of(directory, stage_names(steps))],
    }
    write_whole(directory.report, json.dumps(report, indent=2).encode())
    return report


def _stage_facts(status: StageStatus) -> dict[str, Any]:
    return {name: value for name, value in asdict(status).items() if name != "failures"}


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
