"""Two segmentations -> which of their ids share how many voxels, block by block."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.evaluation.overlaps import Contingency
from pipeline.grid import Block
from pipeline.store.tables import BlockTables
from pipeline.store.volume import Volume


@dataclass(frozen=True)
class OverlapStage(BlockStage):
    """The table of overlaps of each block; ``count`` of a result is its rows.

    Voxels that are background in both are left out: a block without any other takes no file. A negative value becomes
    an id above 2^63, for the whole table to be checked.
    """

    prediction: Volume
    truth: Volume
    tables: BlockTables

    name = "overlap"
    version = 1

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Count the overlaps in one block."""
        with watch("read"):
            prediction, truth = self.prediction.read(block.core), self.truth.read(block.core)
        with watch("op"):
            table = Contingency.of(prediction, truth).without_background()
        with watch("write"):
            if len(table):
                arrays = {"prediction": table.prediction, "truth": table.truth, "voxels": table.voxels}
                self.tables.write(block.number, arrays)
        return len(table)
