"""Block-local labels -> global instance ids, uint64; and what their surfaces are measured from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.grid import Block, BlockGrid
from pipeline.ops.fragments import painted, runs
from pipeline.ops.relabel import narrowed, numbered
from pipeline.ops.stitch import rim
from pipeline.ops.surface import pairs_of_runs
from pipeline.stage import BlockResult, Stopwatch, digest
from pipeline.tables import BlockTables, open_table
from pipeline.volume import Volume


@dataclass(frozen=True)
class RelabelStage:
    """The final ids of each block; reads only its own slice of the table. ``count`` is the labels that kept an id.

    ``pairs`` takes, for every block that holds an instance, its ``ids`` (ascending), their counts of neighbouring
    voxels in 13 directions (``pairs``, one row an id) and the block's rim in local labels, for ``MeasureStage``.
    """

    labels: Volume
    offsets: Path
    table: Path
    upstream: str
    segmentation: Volume
    pairs: BlockTables
    grid: BlockGrid

    name = "relabel"
    version = 2

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
            labels = self.labels.read(block.core)
        with watch("op"):
            labels = labels.astype(np.min_scalar_type(len(ids)))
            found = runs(labels)
            final = painted(found, narrowed(ids)[found.label - 1], block.core.shape)
            present, group = numbered(ids)
            pairs = pairs_of_runs(found, block.core.shape, group, len(present))
        with watch("write"):
            self.segmentation.write(block.core, final)
            self.pairs.write(block.number, {"ids": present, "pairs": pairs, **rim(labels).to_arrays()})
        return watch.result(block.number, int(np.count_nonzero(ids)))
