"""Cells -> how far they lie outside what the slices around them allow, counted; and from that the limits of damage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.denoise.ops.measures import Cells, histograms, limits, measures_halo
from pipeline.denoise.ops.slices import normalised
from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.geometry import Box, Triple
from pipeline.grid import Block, BlockGrid
from pipeline.store.tables import BlockTables, open_table, write_table
from pipeline.store.volume import Volume


@dataclass(frozen=True)
class StoredCells:
    """Where the cells of a volume lie; ``slices`` is the table that makes them alike."""

    mean: Volume
    texture: Volume
    slices: Path

    def read(self, core: Box, halo: Triple) -> Cells:
        """The cells of ``core`` grown by ``halo``; nothing is outside the volume."""
        box = core.grown(halo)
        inside = box.clipped(self.mean.box)
        mean, texture = self.mean.read(box), self.texture.read(box)
        exists = np.zeros(len(mean), bool)
        there = slice(inside.start[0] - box.start[0], inside.stop[0] - box.start[0])
        exists[there] = True
        mean[there] = normalised(mean[there], open_table(self.slices)[inside.start[0] : inside.stop[0]])
        return Cells(mean, texture, exists)


@dataclass(frozen=True)
class CompareStage(BlockStage):
    """Histograms of all measures over the cells of each block; ``count`` of a result is the cells with tissue."""

    cells: StoredCells
    histograms: BlockTables
    max_gap: int

    name = "compare"
    version = 1

    def parameters(self) -> dict[str, Any]:
        """The longest gap."""
        return {"parameters": self.max_gap}

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Compare one block."""
        halo = measures_halo(self.max_gap)
        with watch("read"):
            cells = self.cells.read(block.core, halo)
        with watch("op"):
            counts = histograms(cells, self.max_gap)
            present = int(np.count_nonzero(cells.present[block.core.slices(block.core.grown(halo).start)]))
        with watch("write"):
            self.histograms.write(block.number, {"counts": counts})
        return present


def write_limits(histograms: BlockTables, grid: BlockGrid, sensitivity: float, path: Path) -> None:
    """The limits of damage from the histograms of all blocks, unless the table is there already."""
    if path.exists():
        return
    counts = sum(histograms.read(number)["counts"] for number in range(len(grid)))
    write_table(path, limits(np.asarray(counts, np.int64), sensitivity))
