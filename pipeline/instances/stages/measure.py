"""Labels with their final ids -> how many neighbouring voxels each instance has, what its surface is measured from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.arrays import Array
from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.geometry import Vec3
from pipeline.grid import Block
from pipeline.instances.ops.relabel import numbered
from pipeline.instances.ops.stitch import contact, forward_offsets, opposite
from pipeline.instances.ops.surface import DIRECTIONS, pairs_across, pairs_of_runs
from pipeline.instances.stored.labels import StoredLabels
from pipeline.store.tables import BlockTables, open_table


@dataclass(frozen=True)
class MeasureStage(BlockStage):
    """Pairs of neighbouring voxels of one instance: inside each block, and across its forward faces, edges and corners.

    Every pair is counted once, whatever the blocks. Reads the runs of the block's labels, rims of its neighbours and
    the blocks' slices of the table, no voxels. ``pairs`` takes, for every block that holds an instance, its ``ids``
    (ascending) and their counts in 13 directions (``pairs``, one row an id); ``count`` is how many rows.
    """

    labels: StoredLabels
    offsets: Path
    table: Path
    pairs: BlockTables

    name = "measure"
    version = 2

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Count inside one block and across its borders."""
        ids = FinalIds(open_table(self.offsets), open_table(self.table))
        present, group = numbered(ids.of(block.number))
        if not len(present):
            return 0
        with watch("read"):
            found = self.labels.runs(block.number)
        with watch("op"):
            pairs = pairs_of_runs(found, block.core.shape, group, len(present))
            pairs += self._across(block, ids, present, group)
        with watch("write"):
            self.pairs.write(block.number, {"ids": present, "pairs": pairs})
        return len(present)

    def _across(self, block: Block, ids: FinalIds, present: Array, group: Array) -> Array:
        counts = np.zeros((len(present), len(DIRECTIONS)), np.uint64)
        own = self.labels.rim(block.number)
        for step, other in self._neighbours(block):
            ours = _looked_up(contact(own, step), group)
            theirs = _found(ids.of(other), present)
            if ours.any() and theirs.any():
                across = contact(self.labels.rim(other), opposite(step))
                counts += pairs_across(ours, _looked_up(across, theirs), step, len(present))
        return counts

    def _neighbours(self, block: Block) -> Iterator[tuple[Vec3, int]]:
        for step in forward_offsets(26):
            index = block.index + step
            if self.grid.has(index):
                yield step, self.grid.number_of(index)


@dataclass(frozen=True)
class FinalIds:
    """The mapped tables: opening one takes as long as reading a block's slice of it ten times."""

    offsets: Array
    table: Array

    def of(self, number: int) -> Array:
        """The ids of a block's labels 1..n."""
        return np.asarray(self.table[int(self.offsets[number]) : int(self.offsets[number + 1])])


def _looked_up(labels: Array, group: Array) -> Array:
    return np.concatenate((np.zeros(1, group.dtype), group))[labels]


def _found(ids: Array, present: Array) -> Array:
    """For each label of a neighbour, the number (from 1) of its id among this block's; 0 where it is not there."""
    place = np.searchsorted(present, ids).clip(max=len(present) - 1)
    return np.where(present[place] == ids, place + 1, 0)
