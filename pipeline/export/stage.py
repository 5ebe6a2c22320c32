"""One resolution of one layer -> Neuroglancer precomputed, whole chunks, cropped to the true extent."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pipeline.engine.stage import BlockResult, Stopwatch
from pipeline.export.levels import ExportLevel, downsampled
from pipeline.grid import Block, BlockGrid
from pipeline.store.identity import digest


@dataclass(frozen=True)
class ExportStage:
    """The blocks of one export level; the grid is the layer's own, of whole chunks, independent of the run's blocks."""

    level: ExportLevel
    upstream: str
    version = 1

    @property
    def name(self) -> str:
        """For example ``export-segmentation-mip0``."""
        return f"export-{self.level.layer}-mip{self.level.mip}"

    @property
    def grid(self) -> BlockGrid:
        """Blocks of whole chunks of this level."""
        return self.level.grid

    @property
    def fingerprint(self) -> str:
        """Of the source array, the factor and the chunks."""
        level = self.level
        return digest(
            {
                "stage": self.name,
                "version": self.version,
                "source": self.upstream,
                "parameters": (level.kind, level.factor, level.lead, level.target.chunks, level.target.dtype),
                "grid": asdict(level.grid),
            }
        )

    def warm_up(self) -> None:
        """Nothing to load."""

    def __call__(self, block: Block) -> BlockResult:
        """Copy one block."""
        watch = Stopwatch()
        with watch("read"):
            array = self.level.source.read(self.level.source_box(block.core))
        with watch("op"):
            stored = downsampled(self.level, block, array)
        with watch("write"):
            self.level.target.write(block.core, stored)
        return watch.result(block.number)
