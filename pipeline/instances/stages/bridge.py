"""Provisional instances -> where they face each other across a few slices, and from that the pairs to join."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.arrays import Counts
from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.geometry import Box
from pipeline.grid import Block, BlockGrid
from pipeline.instances.ops.bridge import OVERLAP, Pairs, SectionSums, bridges, overlaps, sections, summed
from pipeline.instances.ops.fragments import Rows
from pipeline.instances.stored.provisional import Provisional
from pipeline.store.tables import BlockTables

MOST_ROWS = 2**20  # overlaps of blocks that are gathered before equal ones are added up: 40 MB


@dataclass(frozen=True)
class BridgeStage(BlockStage):
    """Overlaps across gaps of up to ``gap`` slices; ``count`` is the block's sections (an instance in a slice).

    A block looks upwards (z) from its core, ``gap + 1`` slices beyond it. It stores its ``overlaps`` and ``sections``,
    both sums over voxels: ``bridged_pairs`` adds them up, so the pairs do not depend on the blocks.
    """

    provisional: Provisional
    tables: BlockTables
    gap: int
    grid: BlockGrid = field(init=False)

    name = "bridge"
    version = 1

    def __post_init__(self) -> None:
        """The blocks are those of the provisional instances."""
        object.__setattr__(self, "grid", self.provisional.grid)

    def parameters(self) -> dict[str, Any]:
        """The gap."""
        return {"gap": self.gap}

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Look upwards from one block."""
        with watch("read"):
            if not self.provisional.ids_of(block.number).any():
                return 0
            labels, ids = self.provisional.read_compact(self._seen(block))
        depth = block.core.shape[0]
        with watch("op"):
            found = overlaps(labels, depth, self.gap, block.core.start[0])
            held = sections(labels[:depth], block.core.start[0])
            for rows, names in ((found, ("lower", "upper")), (held, ("id",))):
                for name in names:  # ids ascend with the labels, and so do the rows
                    rows[name] = ids[rows[name].astype(np.intp) - 1]
        with watch("write"):
            self.tables.write(block.number, {"overlaps": found, "sections": held})
        return len(held)

    def _seen(self, block: Block) -> Box:
        z, y, x = block.core.stop
        return Box(block.core.start, (min(z + self.gap + 1, self.grid.extent[0]), y, x))


def bridged_pairs(stage: BridgeStage, counts: Counts, overlap: float) -> Iterator[Pairs]:
    """The provisional ids to join, from the stored tables of a finished stage.

    One layer of blocks after the other, each with only its overlaps and the sections beside them: memory does not
    grow with the volume's depth.

    Args:
        stage: every block of it is done.
        counts: of each block, as the stage returned them.
        overlap: 0..1, share of the smaller of two sections (see ``pipeline.instances.ops.bridge.bridges``).

    Yields:
        (k, 2) int64 ids for each layer, in which a pair may come again.
    """
    extent, depth = stage.grid.extent[0], stage.grid.block[0]
    for low in range(0, extent, depth):
        high = min(low + depth, extent)
        found = _overlaps(stage, _filled(stage.grid, counts, low, high))
        areas = SectionSums(found)
        if len(found):
            for number in _filled(stage.grid, counts, low, high + stage.gap + 1):
                areas.add(stage.tables.opened(number)["sections"])
        yield bridges(found, areas, overlap)


def _overlaps(stage: BridgeStage, numbers: Iterator[int]) -> Rows:
    """The overlaps of some blocks, added up; gathered and added in turns, so that few equal keys are held."""
    total = np.zeros(0, OVERLAP)
    parts, gathered = [total], 0
    for number in numbers:
        parts.append(stage.tables.opened(number)["overlaps"])
        gathered += len(parts[-1])
        if gathered > max(MOST_ROWS, len(total)):
            total = summed(np.concatenate(parts))
            parts, gathered = [total], 0
    return summed(np.concatenate(parts))


def _filled(grid: BlockGrid, counts: Counts, low: int, high: int) -> Iterator[int]:
    """The blocks with a count that meet the slices ``low`` to ``high``."""
    seen = Box((low, 0, 0), (high, *grid.extent[1:]))
    return (block.number for block in grid.covering(seen) if counts[block.number])
