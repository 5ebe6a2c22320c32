"""The outermost voxels of blocks, stored apart: the halo of a block without reading its 26 neighbours whole.

Growth of a 128^3 block with a halo of 6 voxels spent two thirds of its time on decoding 27 chunks of the semantic map
and as many of labels, which were chunks then, for 1.3 times the voxels of one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import Array, Labels
from pipeline.geometry import Box, Vec3, vec3
from pipeline.grid import Block, BlockGrid
from pipeline.image.quantise import to_uint8
from pipeline.instances.stored.labels import StoredLabels
from pipeline.store.tables import BlockTables
from pipeline.store.volume import Volume

LARGEST_SHARE = 0.5  # of a block's voxels: thicker collars cost as much as whole neighbours

Semantic = NDArray[np.uint8]


@dataclass(frozen=True)
class Collars:
    """Labels and semantic probability within ``thickness`` (z, y, x) of each face of each block.

    A neighbour reads one face of the six in a block's table.
    """

    thickness: Vec3
    grid: BlockGrid
    tables: BlockTables

    def write(self, block: Block, labels: Labels, semantic: Semantic) -> None:
        """Store the collar of a block: all of it, so that a missing file is an error and not a hole."""
        arrays: dict[str, Array] = {}
        for face, slab in enumerate(self._slabs(block.core)):
            at = slab.slices(block.core.start)
            arrays |= {f"labels_{face}": labels[at], f"semantic_{face}": semantic[at]}
        self.tables.write(block.number, arrays)

    def read(self, part: Box) -> tuple[Labels, Semantic]:
        """Labels and probability of a box inside one block and within ``thickness`` of one of its faces."""
        (block,) = self.grid.covering(part)
        face, slab = next(
            (face, slab)
            for face, slab in enumerate(self._slabs(block.core))
            if not slab.is_empty and slab.contains(part)
        )
        stored, at = self.tables.opened(block.number), part.slices(slab.start)
        return stored[f"labels_{face}"][at], stored[f"semantic_{face}"][at]

    def _slabs(self, core: Box) -> list[Box]:
        slabs = []
        for axis, thick in enumerate(self.thickness):
            low, high = list(core.stop), list(core.start)
            low[axis] = min(core.start[axis] + thick, core.stop[axis])
            high[axis] = max(core.stop[axis] - thick, core.start[axis])
            slabs += [Box(core.start, vec3(low)), Box(vec3(high), core.stop)]
        return slabs


def are_worth_it(grid: BlockGrid, thickness: Vec3) -> bool:
    """Whether collars of this thickness hold less than ``LARGEST_SHARE`` of a block, and have a neighbour to serve."""
    inside = np.prod([max(0, side - 2 * thick) / side for side, thick in zip(grid.block, thickness, strict=True)])
    return len(grid) > 1 and any(thickness) and bool(1 - inside <= LARGEST_SHARE)


@dataclass(frozen=True)
class Surroundings:
    """A block from its runs and chunks, and the voxels around it from the collars of its neighbours."""

    core: Box
    labels: StoredLabels
    probability: Volume
    collars: Collars
    _read: dict[Box, tuple[Labels, Semantic]] = field(default_factory=dict)

    def local(self, part: Box) -> Labels:
        """The block-local labels of a box inside one block."""
        return self.labels.read(part) if self.core.contains(part) else self._beside(part)[0]

    def semantic(self, box: Box) -> Semantic:
        """The semantic probability of a box that may reach over several blocks."""
        whole = np.zeros(box.shape, np.uint8)
        for block in self.collars.grid.covering(box):
            part = block.core.clipped(box)
            own = self.core.contains(part)
            here = to_uint8(self.probability.read(part), f"{self.probability}") if own else self._beside(part)[1]
            whole[part.slices(box.start)] = here
        return whole

    def _beside(self, part: Box) -> tuple[Labels, Semantic]:
        if part not in self._read:
            self._read[part] = self.collars.read(part)
        return self._read[part]
