"""Block-local labels -> global instance ids, uint64."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.grid import Block
from pipeline.instances.ops.fragments import painted
from pipeline.instances.ops.relabel import narrowed
from pipeline.instances.stored.labels import StoredLabels
from pipeline.store.tables import open_table
from pipeline.store.volume import Volume


@dataclass(frozen=True)
class RelabelStage(BlockStage):
    """The final ids of each block; reads only its own slice of the table. ``count`` is the labels that kept an id."""

    labels: StoredLabels
    offsets: Path
    table: Path
    segmentation: Volume

    name = "relabel"
    version = 3

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Relabel one block."""
        offsets = open_table(self.offsets)
        ids = np.asarray(open_table(self.table)[int(offsets[block.number]) : int(offsets[block.number + 1])])
        if not ids.any():  # all dropped or none there: no chunks to write, and none from an attempt before
            return 0
        with watch("read"):
            found = self.labels.runs(block.number)
        with watch("op"):
            final = painted(found, narrowed(ids)[found.label - 1], block.core.shape)
        with watch("write"):
            self.segmentation.write(block.core, final)
        return int(np.count_nonzero(ids))
