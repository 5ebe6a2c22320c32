"""Cells and limits -> the damage map: uint8, one voxel a cell, 0 sound, else bits of what was found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.arrays import Bool
from pipeline.denoise.ops.damage import BITS, MISSING, damage, damage_halo, long_gaps, lost
from pipeline.denoise.stages.compare import StoredCells
from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.geometry import Box
from pipeline.grid import Block
from pipeline.store.tables import BlockTables, open_table
from pipeline.store.volume import Volume


@dataclass(frozen=True)
class DamageStage(BlockStage):
    """The damage of each block; ``count`` of a result is its damaged cells.

    ``kinds`` takes for every block the cells with each bit, int64 (bits,), in the order of ``BITS``.
    """

    cells: StoredCells
    limits: Path
    damage: Volume
    kinds: BlockTables
    max_gap: int
    sensitivity: float

    name = "damage"
    version = 2

    def parameters(self) -> dict[str, Any]:
        """The longest gap and the sensitivity."""
        return {"parameters": (self.max_gap, self.sensitivity)}

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Find the damage of one block."""
        with watch("read"):
            cells = self.cells.read(block.core, damage_halo(self.max_gap))
            gaps = list(self._long_gaps(block.core))
        with watch("op"):
            found = damage(cells, self.max_gap, np.asarray(open_table(self.limits)))
            for box, gone in gaps:
                found[box.slices(block.core.start)] |= np.where(gone, np.uint8(MISSING), np.uint8(0))
            kinds = np.array([np.count_nonzero(found & bit) for bit in BITS.values()], np.int64)
        with watch("write"):
            self.damage.write(block.core, found)
            self.kinds.write(block.number, {"kinds": kinds})
        return int(np.count_nonzero(found))

    def _long_gaps(self, core: Box) -> Iterator[tuple[Box, Bool]]:
        """The parts of a core in runs of missing slices that no halo spans, and which of their cells are lost."""
        tissue = np.asarray(open_table(self.cells.slices))[:, 2] > 0
        for low, high in long_gaps(tissue, self.max_gap):
            box = core.clipped(_slices(core, low + 1, high))
            if not box.is_empty:
                parts = (box, _slices(core, low, low + 1), _slices(core, high, high + 1))
                yield box, lost(*(self.cells.read(part, (0, 1, 1)).present for part in parts))


def _slices(core: Box, start: int, stop: int) -> Box:
    return Box((start, *core.start[1:]), (stop, *core.stop[1:]))
