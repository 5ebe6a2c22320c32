"""One resolution of one layer -> Neuroglancer precomputed, whole chunks, cropped to the true extent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.export.levels import ExportLevel, downsampled
from pipeline.grid import Block, BlockGrid


@dataclass(frozen=True)
class ExportStage(BlockStage):
    """The blocks of one export level; the grid is the layer's own, of whole chunks, independent of the run's blocks."""

    level: ExportLevel
    grid: BlockGrid = field(init=False)

    version = 1

    def __post_init__(self) -> None:
        """The blocks are those of the level, of whole chunks."""
        object.__setattr__(self, "grid", self.level.grid)

    @property
    def name(self) -> str:
        """For example ``export-segmentation-mip0``."""
        return f"export-{self.level.layer}-mip{self.level.mip}"

    def parameters(self) -> dict[str, Any]:
        """The kind of layer, the factor and where its cells begin, the chunks and the dtype."""
        level = self.level
        return {"parameters": (level.kind, level.factor, level.lead, level.target.chunks, level.target.dtype)}

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Copy one block."""
        with watch("read"):
            array = self.level.source.read(self.level.source_box(block.core))
        with watch("op"):
            stored = downsampled(self.level, block, array)
        with watch("write"):
            self.level.target.write(block.core, stored)
        return 0
