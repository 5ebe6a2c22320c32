"""Super-blocks: fragments joined level by level, each super-block from the tables of those below it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.arrays import Array
from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.geometry import Box, Vec3
from pipeline.grid import Block, BlockGrid
from pipeline.instances.ops.label import Connectivity
from pipeline.instances.ops.stitch import forward_offsets
from pipeline.instances.ops.supermerge import Nodes, Union, union
from pipeline.store.tables import BlockTables, open_table

FIELDS = ("group", "voxels", "first", "finished", "crossing", "crossing_group")


@dataclass(frozen=True)
class UnionTables:
    """The stored ``Union`` of each super-block of one level."""

    tables: BlockTables

    def write(self, number: int, found: Union) -> None:
        """Store one."""
        self.tables.write(number, {name: getattr(found, name) for name in FIELDS})

    def read(self, number: int) -> Union:
        """The one of a super-block."""
        return Union(**self.tables.read(number))


@dataclass(frozen=True)
class SuperMergeStage(BlockStage):
    """One level of super-blocks; ``count`` of a result is its groups that are open, kept or dropped.

    ``grid`` counts blocks (level 0) of ``blocks``; ``below`` is the stage of the level below, None at level 0, where
    ``rows`` and ``pairs`` are the blocks' own tables, with ``offsets`` and ``pair_offsets`` their cumulated counts.
    ``upstream`` is the fingerprint of ``below``; at level 0 that of the pairs.
    """

    level: int
    below: SuperMergeStage | None
    blocks: BlockGrid
    rows: BlockTables
    pairs: BlockTables
    offsets: Path
    pair_offsets: Path
    unions: UnionTables
    connectivity: Connectivity
    minimum_voxels: int

    version = 1

    @property
    def name(self) -> str:
        """One a level."""
        return f"merge-{self.level}"

    def parameters(self) -> dict[str, Any]:
        """Which pairs there may be, and the size filter."""
        return {"parameters": (self.connectivity, self.minimum_voxels)}

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Join one super-block."""
        with watch("read"):
            nodes = self._fragments(block.core) if self.below is None else self._open_groups(self.below, block.core)
        with watch("op"):
            found = union(nodes, self.minimum_voxels)
        with watch("write"):
            self.unions.write(block.number, found)
        return found.open_count + len(found.finished)

    def members(self, core: Box) -> Iterator[Block]:
        """The super-blocks below (at level 0: the blocks) inside a super-block."""
        return (self.blocks_of_level() if self.below is None else self.below.grid).covering(core)

    def blocks_of_level(self) -> BlockGrid:
        """The blocks as a grid of single blocks, in the coordinates of ``grid``."""
        return BlockGrid(self.blocks.shape, (1, 1, 1))

    def _fragments(self, core: Box) -> Nodes:
        offsets = open_table(self.offsets)
        numbers = [block.number for block in self.members(core)]
        spans = np.array([(offsets[n], offsets[n + 1]) for n in numbers if offsets[n] < offsets[n + 1]], np.int64)
        filled = [n for n in numbers if offsets[n] < offsets[n + 1]]
        rows = [self.rows.opened(n)["rows"] for n in filled]
        voxels, first = (np.concatenate([np.zeros(0, np.uint64), *(r[name] for r in rows)]) for name in KEPT)
        return Nodes.of_fragments(voxels, first, spans.reshape(-1, 2), self._pairs(core))

    def _pairs(self, core: Box) -> Array:
        """The pairs with an end in a super-block: those of its own blocks, and of neighbours that point into it."""
        counts = open_table(self.pair_offsets)
        steps = forward_offsets(self.connectivity)
        found = [np.zeros((0, 2), np.int64)]
        for block in self.blocks_of_level().covering(core.grown((1, 1, 1))):
            own = core.contains(block.core)
            if counts[block.number] < counts[block.number + 1] and (own or _points_into(block.index, core, steps)):
                found.append(self.pairs.opened(block.number)["pairs"])
        return np.concatenate(found)

    def _open_groups(self, below: SuperMergeStage, core: Box) -> Nodes:
        return Nodes.of_open_groups([below.unions.read(block.number) for block in self.members(core)])


KEPT = ("voxels", "first")


def _points_into(index: Vec3, core: Box, steps: list[Vec3]) -> bool:
    return any(core.contains(Box(index + step, index + step + 1)) for step in steps)


def super_side(fragments: int, blocks: int, at_once: int) -> int:
    """Blocks a side of the lowest super-blocks, so that one holds about ``at_once`` fragments on average."""
    side = 1
    while (side + 1) ** 3 * fragments <= at_once * blocks:
        side += 1
    return side


def fitting_side(counts: npt.NDArray[np.int64], at_once: int) -> int:
    """Blocks a side of the lowest super-blocks, so that none holds more than ``at_once`` fragments.

    Fragments may all lie in one corner of the volume, so the fullest super-block decides and not the average.

    Args:
        counts: fragments of each block, in a grid z, y, x.
        at_once: a block may hold more by itself; then the side is 1.
    """
    fragments = int(counts.sum())
    if fragments <= at_once:
        return int(max(counts.shape))
    side = min(super_side(fragments, counts.size, at_once), int(max(counts.shape)))
    while side > 1 and _fullest(counts, side) > at_once:
        side -= 1
    return side


def _fullest(counts: npt.NDArray[np.int64], side: int) -> int:
    for axis in range(3):
        counts = np.add.reduceat(counts, np.arange(0, counts.shape[axis], side), axis=axis)
    return int(counts.max())
