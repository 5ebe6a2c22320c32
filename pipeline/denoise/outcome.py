"""What a finished restoration leaves beside its arrays: a histogram, counts and pictures."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.denoise.sheet import write_restored_sheet
from pipeline.denoise.stages.damage import DamageStage
from pipeline.denoise.stages.restore import RestoreStage
from pipeline.denoise.summary import cells_of, restoration_of, restoration_summary, restored_totals
from pipeline.engine.directory import RunDirectory
from pipeline.image.grey import sample_grey
from pipeline.store.files import write_whole
from pipeline.store.tables import write_table


def summarise(directory: RunDirectory, stage: RestoreStage, damage: DamageStage | None) -> None:
    """Write the histogram of what the network is shown, and what was replaced, in numbers and pictures; once."""
    levels = levels_table(directory, stage)
    if not levels.exists():
        write_table(levels, sample_grey(stage.restored)[1])
    known = restoration_of(directory)
    drawn = directory.restored_sheet.exists() or not known.get("replaced_voxels")
    if known.get("fingerprint") == stage.fingerprint and drawn:
        return
    sums = restored_totals(stage)
    write_restored_sheet(stage, directory.restored_sheet, sums)
    cells = {} if damage is None else cells_of(damage)
    summary = {"fingerprint": stage.fingerprint, **restoration_summary(stage, sums, cells)}
    write_whole(directory.restoration, json.dumps(summary, indent=2).encode())


def levels_table(directory: RunDirectory, stage: RestoreStage) -> Path:
    """The table of the histogram of what the network is shown."""
    return directory.table("levels", stage.fingerprint)
