"""The provisional instance ids of any box: the stored block-local labels with the ids that their blocks give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.arrays import Ids
from pipeline.geometry import Box
from pipeline.grid import BlockGrid
from pipeline.instances.ops.relabel import looked_up, relabel
from pipeline.instances.stored.labels import StoredLabels
from pipeline.store.tables import BlockTables, open_table

Local = Callable[[Box], npt.NDArray[np.uint32]]


@dataclass(frozen=True)
class Provisional:
    """Provisional instances as stored: seeds after the merge, or what growth made of them.

    Attributes:
        labels: block-local labels 1..n.
        grid: the blocks they are local to.
        offsets: table of length ``len(grid) + 1``; block b holds ``offsets[b + 1] - offsets[b]`` labels.
        source: where the ids stand: the merge's table (block b: ``table[offsets[b]:offsets[b + 1]]``), or the blocks'
            tables of the growth (``ids``).
    """

    labels: StoredLabels
    grid: BlockGrid
    offsets: Path
    source: Path | BlockTables

    def ids_of(self, number: int) -> Ids:
        """The instance id of each label of a block, uint64; 0 for a dropped one."""
        return self.look_up()(number)

    def read(self, box: Box) -> Ids:
        """Instance ids of a box inside the extent, which may reach over several blocks: uint64, z, y, x."""
        ids = np.zeros(box.shape, np.uint64)
        for part, of_labels in self._parts(box):
            ids[part.slices(box.start)] = relabel(self.labels.read(part), of_labels)
        return ids

    def read_compact(self, box: Box, local: Local | None = None) -> tuple[npt.NDArray[np.uint32], Ids]:
        """As ``read``, as labels 1..n and the ids of these, ascending: uint32, which takes half the time in most ops.

        The ids are those of all blocks that the box meets; not every one needs to occur in the box. ``local`` reads
        the stored labels of a box inside one block, where there is a faster way than from all of its runs.
        """
        parts = list(self._parts(box))
        labels = np.zeros(box.shape, np.uint32)
        ids = np.unique(np.concatenate([of_labels for _, of_labels in parts] or [np.zeros(0, np.uint64)]))
        ids = ids[ids > 0]
        local = local or self.labels.read
        for part, of_labels in parts:
            numbers = np.zeros(len(of_labels) + 1, np.uint32)
            numbers[1:] = (np.searchsorted(ids, of_labels) + 1) * (of_labels > 0)
            labels[part.slices(box.start)] = looked_up(numbers, local(part))
        return labels, ids

    def _parts(self, box: Box) -> Iterator[tuple[Box, Ids]]:
        """The parts of a box in blocks that hold an instance, with the ids of their labels."""
        ids_of = self.look_up()
        for block in self.grid.covering(box):
            ids = ids_of(block.number)
            if ids.any():
                yield block.core.clipped(box), ids

    def look_up(self) -> Callable[[int], Ids]:
        """``ids_of`` with its tables open: opening them takes longer than a look."""
        offsets = open_table(self.offsets)
        source = self.source if isinstance(self.source, BlockTables) else open_table(self.source)

        def ids_of(number: int) -> Ids:
            start, stop = int(offsets[number]), int(offsets[number + 1])
            if start == stop:
                return np.zeros(0, np.uint64)
            if isinstance(source, BlockTables):
                return source.opened(number)["ids"]
            return np.asarray(source[start:stop])

        return ids_of
