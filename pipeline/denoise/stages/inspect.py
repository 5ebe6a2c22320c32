"""raw -> mean grey level and texture of every cell of every slice, uint8; and the levels of the slices."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from pipeline.denoise.ops.cells import inspected
from pipeline.denoise.ops.slices import tile_levels
from pipeline.engine.stage import BlockResult, Stopwatch
from pipeline.geometry import Box, Vec3, vec3
from pipeline.grid import Block, BlockGrid
from pipeline.image.grey import GreyScale, grey_levels, require_finite
from pipeline.store.identity import digest
from pipeline.store.tables import BlockTables
from pipeline.store.volume import Volume


@dataclass(frozen=True)
class InspectStage:
    """Two numbers for every cell; for every slice of a block level and spread of its tiles, and its cells with tissue.

    ``grid`` is in cells; ``count`` of a result is the number of cells that are not empty.
    """

    source: Volume
    source_fingerprint: str
    grey: GreyScale
    cell: Vec3
    mean: Volume
    texture: Volume
    levels: BlockTables
    grid: BlockGrid

    name = "inspect"
    version = 2

    @property
    def fingerprint(self) -> str:
        """Of the raw volume, its grey scale and the cell."""
        return digest(
            {
                "stage": self.name,
                "version": self.version,
                "source": self.source_fingerprint,
                "grey": self.grey.model_dump(),
                "cell": self.cell,
                "grid": asdict(self.grid),
            }
        )

    def warm_up(self) -> None:
        """Nothing to load."""

    def __call__(self, block: Block) -> BlockResult:
        """Inspect one block."""
        watch = Stopwatch()
        core = block.core
        start, stop = (vec3(n * c for n, c in zip(at, self.cell, strict=True)) for at in (core.start, core.stop))
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
        return watch.result(block.number, int(np.count_nonzero(mean)))
