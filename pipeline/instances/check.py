"""What verification asks of the segmentation and of the instance table."""

from __future__ import annotations

import numpy as np

from pipeline.engine.directory import RunDirectory, counts_of
from pipeline.engine.status import spread
from pipeline.errors import BadInput
from pipeline.instances.stages.relabel import RelabelStage
from pipeline.instances.table import highest_id, table_problems
from pipeline.store.tables import open_table


def segmentation_problems(directory: RunDirectory, relabel: RelabelStage) -> list[str]:
    """What is wrong with the instance table, and with sampled blocks of the segmentation."""
    problems = table_problems(directory.instances, highest_id(relabel.table))
    filled = np.flatnonzero(counts_of(directory, relabel))
    for number in spread(filled):
        problems += _block_problems(relabel, number)
    return problems


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
