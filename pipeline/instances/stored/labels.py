"""Block-local labels as they are stored: the runs of each block, in its table, and never as an array.

Runs are what labels are made as and what relabelling paints ids from. A 128^3 block with a tenth of its voxels inside
mitochondria has 20 000: reading them takes 0.2 ms, decoding a chunk of labels and finding its runs 2.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import Array
from pipeline.geometry import Box, vec3
from pipeline.grid import BlockGrid
from pipeline.instances.ops.fragments import Runs, painted
from pipeline.instances.ops.relabel import narrowed
from pipeline.instances.ops.stitch import Rim, rim
from pipeline.store.tables import BlockTables


@dataclass(frozen=True)
class StoredLabels:
    """Labels 1..n of each block of ``grid`` that holds any; asking for another block is an error, not zeros."""

    tables: BlockTables
    grid: BlockGrid

    def write(self, number: int, labels: NDArray[np.unsignedinteger[Any]], found: Runs, own: dict[str, Array]) -> None:
        """Store a block: ``labels`` (z, y, x) as their runs and as their rim, after the writer's ``own`` arrays.

        Args:
            number: of the block.
            labels: 1..n with n > 0, of any unsigned dtype.
            found: ``runs(labels)``.
            own: by name; a reader of these and the rim reads no runs.
        """
        gap = found.start.copy()  # zeros before each run
        gap[1:] -= found.start[:-1] + found.length[:-1]
        stored = {"label": narrowed(found.label), "gap": narrowed(gap), "length": narrowed(found.length)}
        self.tables.write(number, {**own, **rim(labels).to_arrays(), **stored})

    def rim(self, number: int) -> Rim:
        """The outermost planes of a block's labels, each read when it is asked for; errors as ``runs``."""
        return Rim.from_arrays(self.tables.opened(number))

    def runs(self, number: int) -> Runs:
        """What ``runs(labels)`` gives for the labels of a block, in the narrowest dtype of labels.

        Raises:
            BadInput: the table is torn or gone; names it and what makes it again.
        """
        stored = self.tables.opened(number)
        length = stored["length"].astype(np.int64)
        stop = np.cumsum(length + stored["gap"], dtype=np.int64)
        return Runs(stored["label"], stop - length, length)

    def read(self, part: Box) -> NDArray[np.uint32]:
        """The labels of a box inside one block, C-contiguous; errors as ``runs``."""
        (block,) = self.grid.covering(part)
        z, y, x = part.slices(block.core.start)
        found, plane = self.runs(block.number), block.core.shape[1] * block.core.shape[2]
        low, high = np.searchsorted(found.start, (z.start * plane, z.stop * plane))
        slab = Runs(found.label[low:high], found.start[low:high] - z.start * plane, found.length[low:high])
        labels = painted(slab, slab.label, vec3((part.shape[0], *block.core.shape[1:])))
        return np.ascontiguousarray(labels[:, y, x], np.uint32)
