"""What an array of a run states of itself: which stage writes it, under which name and in which blocks.

Read here as the JSON that it is, without the libraries of the formats: it is asked of every input.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.geometry import Vec3, vec3
from pipeline.grid import BlockGrid

KEY = "teramito"
"""Of the attributes of an array, and of an info file; other readers pass over keys they do not know."""
_MALFORMED = (OSError, ValueError, LookupError, TypeError, AttributeError)


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
        """As it stands under ``KEY``; the names say the order of the axes, as an info file has its own."""
        extent, block = list(self.grid.extent), list(self.grid.block)
        return {"stage": self.stage, "array": self.array, "extent_zyx": extent, "block_zyx": block}


def writer_of_image(image: Path) -> Writer | None:
    """The writer that a local image of ``ome_zarr.create`` states; None where it states none, or no whole one."""
    try:
        return _writer(json.loads((image / "0" / "zarr.json").read_bytes())["attributes"][KEY])
    except _MALFORMED:
        return None


def writer_of_mip(layer: Path, path: str) -> Writer | None:
    """The same of one mip of a local layer of ``create_precomputed``; ``path`` as in the address of a volume."""
    try:
        return _writer(json.loads((layer / "info").read_bytes())[KEY][int(path or 0)])
    except _MALFORMED:
        return None


def _writer(stated: Any) -> Writer:
    stage, array = stated["stage"], stated["array"]
    if not isinstance(stage, str) or not isinstance(array, str):
        raise TypeError(f"stage {stage!r}, array {array!r}")
    return Writer(stage, array, BlockGrid(_shape(stated["extent_zyx"]), _shape(stated["block_zyx"])))


def _shape(sides: Any) -> Vec3:
    if not isinstance(sides, list) or not all(isinstance(side, int) and side > 0 for side in sides):
        raise TypeError(f"{sides!r} is no shape")
    return vec3(sides)
