"""Simulated fragments and pairs, stored as labelling and stitching store them, whose instances are known beforehand.

Every block holds the same number of fragments, one for each of its slots. Slot by slot, the blocks are tiled by cells
of 4x4x4 blocks, displaced differently for each slot, and all fragments of a slot in one cell are one instance: they
touch those in the next blocks of the cell over faces and over three of the edges. So there are somewhat more than
three pairs a fragment, near each other as in a volume, and instances cross the border of any super-block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.engine.stage import BlockResult
from pipeline.geometry import Vec3, vec3
from pipeline.grid import Block, BlockGrid
from pipeline.instances.ops.fragments import FRAGMENT, Rows
from pipeline.store.tables import BlockTables

STEPS = tuple(map(vec3, ((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0))))
CONNECTIVITY = 18  # edges too
CELL = 4
MOST_VOXELS = 1000

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fragments:
    """``slots`` fragments in every block of ``grid``; block b holds those from ``b * slots`` on."""

    grid: BlockGrid
    slots: int

    def rows(self, block: Block) -> Rows:
        """The ``FRAGMENT`` rows of a block: sizes and first voxels, all else 0."""
        rng = np.random.default_rng(block.number)
        rows = np.zeros(self.slots, FRAGMENT)
        rows["voxels"] = rng.integers(1, MOST_VOXELS, self.slots)
        room = np.prod(block.core.shape) // self.slots
        first = np.arange(self.slots) * room + rng.integers(0, room, self.slots)
        at = np.unravel_index(first, block.core.shape)
        z, y, x = (a + start for a, start in zip(at, block.core.start, strict=True))
        rows["first"] = (z * self.grid.extent[1] + y) * self.grid.extent[2] + x
        return rows

    def pairs(self, block: Block) -> Int64:
        """(k, 2) global fragment numbers that touch, the first in this block, the second in one after it."""
        slots, own = np.arange(self.slots), self.cells(block.index)
        found = [np.zeros((0, 2), np.int64)]
        for index in self.neighbours(block.index):
            same = slots[(self.cells(index) == own).all(axis=0)]
            bases = np.array([block.number, self.grid.number_of(index)]) * self.slots
            found.append(same[:, None] + bases)
        return np.concatenate(found)

    def neighbours(self, index: Vec3) -> list[Vec3]:
        """The block indices that ``pairs`` of a block lead to."""
        steps = [vec3(i + d for i, d in zip(index, step, strict=True)) for step in STEPS]
        return [step for step in steps if self.grid.has(step)]

    def cells(self, index: Vec3) -> Int64:
        """(3, slots): the cell in which each slot of a block lies."""
        cells: Int64 = (np.array(index)[:, None] + self._shifts()) // CELL
        return cells

    def instances(self) -> int:
        """How many there are."""
        last = np.array(self.grid.shape)[:, None] - 1
        return int(np.prod((last + self._shifts()) // CELL + 1, axis=0).sum())

    def _shifts(self) -> Int64:
        slots = np.arange(self.slots)
        return np.stack([slots // CELL**axis % CELL for axis in range(3)])


@dataclass(frozen=True, slots=True)
class StoreStage:
    """In the place of the label stage (rows) or the stitch stage (pairs), under its name and fingerprint."""

    name: str
    fingerprint: str
    fragments: Fragments
    tables: BlockTables

    @property
    def grid(self) -> BlockGrid:
        """That of the fragments."""
        return self.fragments.grid

    def warm_up(self) -> None:
        """Nothing to load."""

    def __call__(self, block: Block) -> BlockResult:
        """Store the table of one block."""
        if self.name == "label":
            self.tables.write(block.number, {"rows": self.fragments.rows(block)})
            return BlockResult(block.number, self.fragments.slots)
        pairs = self.fragments.pairs(block)
        if len(pairs):
            self.tables.write(block.number, {"pairs": pairs})
        return BlockResult(block.number, len(pairs))
