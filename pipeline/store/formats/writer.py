"""What an array of a run states of itself: which stage writes it, under which name and in which blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.geometry import Vec3, vec3
from pipeline.grid import BlockGrid

KEY = "teramito"
"""Of the attributes of an array, and of an info file; other readers pass over keys they do not know."""


@dataclass(frozen=True, slots=True)
class Writer:
    """The stage that writes an array.

    Attributes:
        stage: its name, that of its ledger.
        array: the name of the array's folder when it was made; a copy may lie under another.
        grid: the stage's blocks, voxels z y x of the array.
    """

    stage: str
    array: str
    grid: BlockGrid

    def stated(self) -> dict[str, Any]:
        """As it stands in the attributes; the extent stands there already."""
        return {"stage": self.stage, "array": self.array, "block": list(self.grid.block)}


def writer_from(stated: Any, extent: Vec3) -> Writer | None:
    """The writer that an array of ``extent`` voxels (z y x) states; None where it states none, or no whole one."""
    if not isinstance(stated, Mapping):
        return None
    stage, array, block = (stated.get(key) for key in ("stage", "array", "block"))
    if not isinstance(stage, str) or not isinstance(array, str) or not isinstance(block, list):
        return None
    if len(block) != 3 or not all(isinstance(side, int) and side > 0 for side in block):
        return None
    return Writer(stage, array, BlockGrid(extent, vec3(block)))
