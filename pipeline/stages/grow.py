"""Seed labels and the mask -> grown labels, block-local again, with the rows of what each block now holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.geometry import Box, Vec3
from pipeline.grid import Block, BlockGrid
from pipeline.ops.fragments import fragment_table
from pipeline.ops.grow import dilate, grow
from pipeline.ops.label import to_uint8
from pipeline.ops.relabel import compact
from pipeline.stage import BlockResult, Stopwatch, digest
from pipeline.stages.provisional import Provisional
from pipeline.tables import BlockTables
from pipeline.volume import Volume

PUBLISHED_DILATION = (1, 7, 7)


@dataclass(frozen=True)
class GrowStage:
    """Growth of provisional instances; ``count`` of a result is the number of instances in the block.

    The stored labels are block-local 1..n (uint32 compresses and moves faster than uint64 ids); the instance id of each
    and its ``FRAGMENT`` row stand in ``rows``, for the size filter and the instance table.
    """

    labels: Volume
    semantic: Volume
    offsets: Path
    table: Path
    upstream: str
    grown: Volume
    rows: BlockTables
    grid: BlockGrid
    extent: Vec3
    kind: Literal["mask", "dilate"]
    mask_above: int
    radius: Vec3

    name = "grow"
    version = 2

    @property
    def halo(self) -> Vec3:
        """Voxels beyond the core that decide it."""
        return self.radius if self.kind == "mask" else (0, PUBLISHED_DILATION[1] // 2, PUBLISHED_DILATION[2] // 2)

    @property
    def fingerprint(self) -> str:
        """Of the provisional instances and the growth."""
        return digest(
            {
                "stage": self.name,
                "version": self.version,
                "source": self.upstream,
                "parameters": (self.kind, self.mask_above, self.radius),
                "grid": asdict(self.grid),
            }
        )

    def warm_up(self) -> None:
        """Nothing to load."""

    def __call__(self, block: Block) -> BlockResult:
        """Grow one block."""
        watch = Stopwatch()
        box = block.core.grown(self.halo).clipped(Box.of_shape(self.extent))
        with watch("read"):
            ids = Provisional(self.labels, self.grid, self.offsets, self.table).read(box)
            if not ids.any():  # nothing grows into the core: no chunks to write, and none from an attempt before
                return watch.result(block.number)
            semantic = to_uint8(self.semantic.read(box))
        inner = block.core.slices(box.start)
        with watch("op"):
            grown = grow(ids, semantic > self.mask_above, self.radius) if self.kind == "mask" else dilate(ids)
            local, present = compact(np.ascontiguousarray(grown[inner]))
            rows = fragment_table(local, len(present), block.core, self.extent, np.ascontiguousarray(semantic[inner]))
        with watch("write"):
            if len(present):
                self.grown.write(block.core, local)
                self.rows.write(block.number, {"ids": present, "rows": rows})
        return watch.result(block.number, len(present))
