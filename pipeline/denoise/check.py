"""What verification asks of a restored volume."""

from __future__ import annotations

import numpy as np

from pipeline.denoise.stages.restore import RestoreStage
from pipeline.denoise.summary import restoration_of
from pipeline.engine.directory import RunDirectory, counts_of
from pipeline.engine.status import spread
from pipeline.errors import BadInput


def restored_problems(directory: RunDirectory, stage: RestoreStage) -> list[str]:
    """Sampled blocks in which the mask of replaced voxels, or a voxel behind it, is no longer what was written."""
    counts, problems = counts_of(directory, stage), []
    if restoration_of(directory).get("fingerprint") != stage.fingerprint:
        problems.append(f"restored: {directory.restoration}, the counts of what was replaced, is damaged or gone")
    for number in spread(np.flatnonzero(counts)):
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
