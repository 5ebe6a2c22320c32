"""raw -> mean grey level and texture of every cell of every slice, uint8; and the levels of the slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.denoise.ops.cells import inspected
from pipeline.denoise.ops.slices import tile_levels
from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.geometry import Box, Vec3
from pipeline.grid import Block
from pipeline.image.grey import GreyScale, grey_levels, require_finite
from pipeline.store.tables import BlockTables
from pipeline.store.volume import Volume


@dataclass(frozen=True)
class InspectStage(BlockStage):
    """Two numbers for every cell; for every slice of a block level and spread of its tiles, and its cells with tissue.

    ``grid`` is in cells; ``count`` of a result is the number of cells that are not empty.
    """

    source: Volume
    grey: GreyScale
    cell: Vec3
    mean: Volume
    texture: Volume
    levels: BlockTables

    name = "inspect"
    version = 2

    def parameters(self) -> dict[str, Any]:
        """The grey scale and the cell."""
        return {"grey": self.grey.model_dump(), "cell": self.cell}

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Inspect one block."""
        core = block.core
        start, stop = (at * self.cell for at in (core.start, core.stop))
        box = Box(start, stop).clipped(self.source.box)
        with watch("read"):
            raw = self.source.read(box)
        require_finite(self.source, box, raw)
        with watch("op"):
            mean, texture = inspected(grey_levels(self.grey, raw), self.cell)
            levels, tissue = tile_levels(mean), np.count_nonzero((mean > 0) & (texture > 0), axis=(1, 2))
        with watch("write"):
            self.mean.write(core, mean)
            self.texture.write(core, texture)
            self.levels.write(block.number, {"levels": levels, "tissue": tissue})
        return int(np.count_nonzero(mean))
