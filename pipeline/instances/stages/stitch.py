"""Faces of neighbouring blocks -> pairs of fragments that touch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.arrays import Array
from pipeline.engine.stage import BlockStage, Stopwatch
from pipeline.grid import Block
from pipeline.instances.ops.label import Connectivity
from pipeline.instances.ops.stitch import forward_offsets, global_pairs, touching_pairs
from pipeline.instances.stored.labels import StoredLabels
from pipeline.store.tables import BlockTables, open_table


@dataclass(frozen=True)
class StitchStage(BlockStage):
    """Pairs of global fragment numbers across each block's forward faces (edges, corners); ``count`` is how many.

    ``offsets`` is a table of length ``len(grid) + 1``: block b holds fragments ``offsets[b] .. offsets[b + 1]``.
    """

    labels: StoredLabels
    offsets: Path
    pairs: BlockTables
    connectivity: Connectivity

    name = "stitch"
    version = 1

    def parameters(self) -> dict[str, Any]:
        """The connectivity."""
        return {"connectivity": self.connectivity}

    def work(self, block: Block, watch: Stopwatch) -> int:
        """Stitch one block to its forward neighbours."""
        with watch("op"):
            pairs = self._pairs(block)
        with watch("write"):
            if len(pairs):
                self.pairs.write(block.number, {"pairs": pairs})
        return len(pairs)

    def _pairs(self, block: Block) -> Array:
        offsets = open_table(self.offsets)
        found = [np.zeros((0, 2), np.int64)]
        if offsets[block.number] == offsets[block.number + 1]:
            return found[0]
        own = self.labels.rim(block.number)
        for step in forward_offsets(self.connectivity):
            index = block.index + step
            if not self.grid.has(index):
                continue
            other = self.grid.number_of(index)
            if offsets[other] == offsets[other + 1]:
                continue
            pairs = touching_pairs(own, self.labels.rim(other), step, self.connectivity)
            found.append(global_pairs(pairs, int(offsets[block.number]), int(offsets[other])))
        return np.concatenate(found)
