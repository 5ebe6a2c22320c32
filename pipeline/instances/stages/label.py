"""Probability maps -> block-local labels of the seeds, their fragment rows and the block's faces, in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.geometry import Vec3
from pipeline.grid import Block
from pipeline.image.quantise import to_uint8
from pipeline.instances.ops.fragments import painted, rows_of_runs
from pipeline.instances.ops.label import Connectivity, seeds
from pipeline.instances.ops.run_labels import label_runs
from pipeline.instances.stored.collars import Collars
from pipeline.instances.stored.labels import StoredLabels
from pipeline.store.volume import Volume


@dataclass(frozen=True)
class LabelStage(BlockStage):
    """Seeds of each block labelled 1..n; ``count`` of a result is n.

    ``semantic_above`` and ``boundary_below`` are on the 0..255 scale. ``labels`` take every block with n > 0, with its
    ``rows``; ``collars``, where there are any, its outermost voxels, so that growth reads no whole neighbours.
    """

    semantic: Volume
    boundary: Volume
    labels: StoredLabels
    extent: Vec3
    semantic_above: int
    boundary_below: int
    connectivity: Connectivity
    collars: Collars | None = None

    name = "label"
    version = 3

    def parameters(self) -> dict[str, Any]:
        """Thresholds, connectivity, and how thick the collars are."""
        return {
            "parameters": (self.semantic_above, self.boundary_below, self.connectivity),
            "collars": None if self.collars is None else self.collars.thickness,
        }

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Label one block."""
        with watch("read"):
            semantic, boundary = self.semantic.read(block.core), self.boundary.read(block.core)
        with watch("op"):
            semantic = to_uint8(semantic, f"{self.semantic}")
            boundary = to_uint8(boundary, f"{self.boundary}")
            inside = seeds(semantic, boundary, self.semantic_above, self.boundary_below)
            found, n = label_runs(inside, self.connectivity)
            labels = painted(found, found.label, block.core.shape)
            rows = rows_of_runs(found, n, block.core, self.extent, semantic)
        with watch("write"):
            if n:
                self.labels.write(block.number, labels, found, {"rows": rows})
            if self.collars is not None:
                self.collars.write(block, labels, semantic)
        return n
