"""Block-local labels -> global instance ids, uint64."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.engine.stage import BlockResult, Stopwatch
from pipeline.grid import Block, BlockGrid
from pipeline.instances.ops.fragments import painted
from pipeline.instances.ops.relabel import narrowed
from pipeline.instances.stored.labels import StoredLabels
from pipeline.store.identity import digest
from pipeline.store.tables import open_table
from pipeline.store.volume import Volume


@dataclass(frozen=True)
class RelabelStage:
    """The final ids of each block; reads only its own slice of the table. ``count`` is the labels that kept an id."""

    labels: StoredLabels
    offsets: Path
    table: Path
    upstream: str
    segmentation: Volume
    grid: BlockGrid

    name = "relabel"
    version = 3

    @property
    def fingerprint(self) -> str:
        """Of the labels and the table."""
        return digest({"stage": self.name, "version": self.version, "source": self.upstream, "grid": asdict(self.grid)})

    def warm_up(self) -> None:
        """Nothing to load."""

    def __call__(self, block: Block) -> BlockResult:
        """Relabel one block."""
        watch = Stopwatch()
        offsets = open_table(self.offsets)
        ids = np.asarray(open_table(self.table)[int(offsets[block.number]) : int(offsets[block.number + 1])])
        if not ids.any():  # all dropped or none there: no chunks to write, and none from an attempt before
            return watch.result(block.number)
        with watch("read"):
            found = self.labels.runs(block.number)
        with watch("op"):
            final = painted(found, narrowed(ids)[found.label - 1], block.core.shape)
        with watch("write"):
            self.segmentation.write(block.core, final)
        return watch.result(block.number, int(np.count_nonzero(ids)))
