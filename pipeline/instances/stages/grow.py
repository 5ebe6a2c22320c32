"""Seed labels -> grown labels without holes, block-local again, with the rows of what each block now holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.geometry import Box, Vec3
from pipeline.grid import Block
from pipeline.image.mask import CoarseMask
from pipeline.image.quantise import to_uint8
from pipeline.instances.ops.fragments import Rows, Runs, rows_of_runs, runs
from pipeline.instances.ops.growth import filled, grown, growth_halo, holes_halo, needs_semantic, whole_halo
from pipeline.instances.ops.relabel import compact
from pipeline.instances.plan import InstancePlan
from pipeline.instances.stored.collars import Collars, Surroundings
from pipeline.instances.stored.labels import StoredLabels
from pipeline.instances.stored.provisional import Provisional
from pipeline.store.volume import Volume


@dataclass(frozen=True)
class GrowStage(BlockStage):
    """Growth and hole filling of provisional instances; ``count`` of a result is the number of instances in the block.

    ``grown`` takes, block-local 1..n again, the labels of every block that holds any, with the instance id of each
    (``ids``) and its ``FRAGMENT`` row (``rows``), for the selection and the instance table. With a tissue mask the rows
    hold the voxels inside it; for that alone the stage runs without growth too.
    """

    labels: StoredLabels
    semantic: Volume
    offsets: Path
    table: Path
    grown: StoredLabels
    extent: Vec3
    plan: InstancePlan
    tissue: CoarseMask | None = None
    tissue_fingerprint: str = ""
    collars: Collars | None = None

    name = "grow"
    version = 4

    @property
    def halo(self) -> Vec3:
        """Voxels beyond the core that decide it: those that decide its holes, and the growth there."""
        return whole_halo(self.plan)

    def parameters(self) -> dict[str, Any]:
        """The growth, the holes and the tissue mask."""
        plan = self.plan
        return {
            "growth": (plan.grow, plan.mask_above, plan.grow_nm, plan.voxel_size_nm, plan.watershed_halo),
            "holes": holes_halo(plan),
            "tissue": (self.tissue_fingerprint, None if self.tissue is None else self.tissue.factor),
        }

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Grow one block."""
        extent, core = Box.of_shape(self.extent), block.core
        around_holes = core.grown(holes_halo(self.plan)).clipped(extent)
        box = around_holes.grown(growth_halo(self.plan)).clipped(extent)
        with watch("read"):
            seeds = Provisional(self.labels, self.grid, self.offsets, self.table)
            around = None if self.collars is None else Surroundings(core, self.labels, self.semantic, self.collars)
            labels, ids = seeds.read_compact(box, None if around is None else around.local)
            if not labels.any():  # nothing grows into the core
                return 0
            seen = box if needs_semantic(self.plan) else core
            semantic = to_uint8(self.semantic.read(seen)) if around is None else around.semantic(seen)
        with watch("op"):
            whole = grown(labels, semantic, self.plan)[around_holes.slices(box.start)]
            local, present = compact(filled(whole, self.plan)[core.slices(around_holes.start)])
            found = runs(local)
            rows = self._rows(found, len(present), block, semantic[core.slices(seen.start)])
        with watch("write"):
            if len(present):
                own = {"ids": ids[present.astype(np.intp) - 1], "rows": rows}
                self.grown.write(block.number, local, found, own)
        return len(present)

    def _rows(self, found: Runs, n: int, block: Block, semantic: NDArray[np.uint8]) -> Rows:
        tissue = None if self.tissue is None else self.tissue.read(block.core)
        return rows_of_runs(found, n, block.core, self.extent, np.ascontiguousarray(semantic), tissue)
