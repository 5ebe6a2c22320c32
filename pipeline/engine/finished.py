"""Arrays that a run has written, read by somebody else: an array with a block missing must not pass for a whole one.

A missing chunk reads as zeros, so nothing in the array itself tells. The ledger of the stage that writes it does; it is
only read here, because a run may be going on there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.engine.ledger import Record, read_record
from pipeline.errors import BadInput
from pipeline.geometry import FloatVec3, vec3
from pipeline.grid import BlockGrid
from pipeline.store.formats.address import is_remote
from pipeline.store.volume import Volume, open_volume

WRITERS = {
    "mean": "inspect",
    "texture": "inspect",
    "damage": "damage",
    "restored": "restore",
    "replaced": "restore",
    "semantic": "predict",
    "boundary": "predict",
    "segmentation": "relabel",
}
"""The stage that writes each array of a run."""
OF_CELLS = ("mean", "texture", "damage")
"""Those with a grid of their own, of cells."""
SHOWN = 3
_STORED = re.compile(r"(/\S.*?)/arrays/(\w+) \[[\d:,]+\]: the stored voxels must be readable")


def open_complete(address: str, voxel_size_nm: FloatVec3 | None = None) -> Volume:
    """``open_volume``, and refuse an array in a run's directory that its run has not finished.

    Raises:
        BadInput: see ``pipeline.store.volume.open_volume`` and ``require_complete_array``.
    """
    volume = open_volume(address, voxel_size_nm)
    require_complete_array(volume, address)
    return volume


def require_complete_array(volume: Volume, address: str = "") -> None:
    """Refuse ``RUN/arrays/NAME`` or ``RUN/precomputed/NAME`` when blocks of it (of its crop, if cropped) are missing.

    Any other volume passes. Reads ``RUN/run.json`` and one ledger. Links are followed.

    Args:
        volume: as opened; its crop counts.
        address: how the user named it, for the message.

    Raises:
        BadInput: names how many blocks are missing, the first boxes, and the remedy.
        RunConflict: a line of the ledger cannot be read.
    """
    if is_remote(volume.url):
        return
    given = Path(volume.url)
    # As named, too: a run's arrays/ may itself be a link to another disk, with no ledgers beside.
    found = _place_in_run(given) or _place_in_run(given.resolve())
    if found is None:
        return
    root, stage, grid = found
    if grid is None:
        return
    record = _record(_ledger(root, stage), len(grid))
    missing = _missing(grid, record.done, volume)
    if len(missing):
        raise _incomplete(address or str(volume), root, stage, grid, (record, missing))


def damage_remedy(failures: Iterable[str]) -> str:
    """What to do about blocks that failed because they could not read what a stage of a run had stored.

    Args:
        failures: the reasons, as ``Volume.read`` words them.

    Returns:
        One line for each damaged array, each after a line break; nothing where no array of a run is named.
    """
    found = {match.groups() for text in failures for match in _STORED.finditer(text)}
    return "".join(
        f"\n{root}/arrays/{name} is damaged: to make it again, delete {_ledger(Path(root), WRITERS[name])} (or in it "
        "the lines of the damaged blocks alone) and run the command of that run again."
        for root, name in sorted(found)
        if name in WRITERS and (Path(root) / "ledgers").is_dir()
    )


def _ledger(root: Path, stage: str) -> Path:
    return root / "ledgers" / f"{stage}.ledger"


def _record(path: Path, blocks: int) -> Record:
    """What a ledger says of so many blocks; nothing is done where there is none, or one of another grid."""
    found = read_record(path) if path.exists() else None
    return Record(blocks) if found is None or found[1].size != blocks else found[1]


def _place_in_run(url: Path) -> tuple[Path, str, BlockGrid | None] | None:
    """The run an array lies in, the stage that writes it and that stage's grid."""
    for folder in url.parents:
        root, name = folder.parent, url.relative_to(folder).parts[0]
        if folder.name not in ("arrays", "precomputed") or not (root / "ledgers").is_dir():
            continue
        facts = _facts(root / "run.json")
        if facts is None:
            return None
        export = facts.get("settings", {}).get("export", {})
        if folder.name == "precomputed":  # where somebody may have put a layer of his own
            return (root, f"export-{name}-mip0", _export_grid(facts)) if name in export.get("layers", ()) else None
        gridded = facts.get("cells", {}) if name in OF_CELLS else facts
        return (root, WRITERS[name], _grid(gridded)) if name in WRITERS else None
    return None


def _facts(manifest: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def _grid(facts: dict[str, Any]) -> BlockGrid | None:
    extent, block = facts.get("extent"), facts.get("block")
    return BlockGrid(vec3(extent), vec3(block)) if extent and block else None


def _export_grid(facts: dict[str, Any]) -> BlockGrid | None:
    extent, chunk = facts.get("extent"), facts.get("settings", {}).get("export", {}).get("chunk")
    return BlockGrid(vec3(extent), vec3(2 * side for side in chunk)) if extent and chunk else None


def _missing(grid: BlockGrid, done: npt.NDArray[np.bool_], volume: Volume) -> npt.NDArray[np.intp]:
    """Numbers of the blocks that are not done and hold voxels of the volume."""
    numbers = np.flatnonzero(~done)
    inside = np.ones(len(numbers), np.bool_)
    for index, origin, length, block in zip(
        np.unravel_index(numbers, grid.shape), volume.origin, volume.shape, grid.block, strict=True
    ):
        inside &= (index * block < origin + length) & ((index + 1) * block > origin)
    return numbers[inside]


def _incomplete(
    address: str, root: Path, stage: str, grid: BlockGrid, found: tuple[Record, npt.NDArray[np.intp]]
) -> BadInput:
    record, missing = found
    boxes = ", ".join(str(grid[int(number)].core) for number in missing[:SHOWN])
    more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
    failed = [record.failures[number] for number in missing.tolist() if number in record.failures]
    reason = f" One failed with: {failed[0].rstrip('.')}." if failed else ""
    return BadInput(
        f"{address}: {len(missing)} of {len(grid)} blocks of stage {stage} are missing in {root} ({boxes}{more})",
        "an array of a run must be whole",
        "a missing block reads as zeros, and every mitochondrion in it would be lost or cut without a word",
        f"Finish that run with the same command (teramito status {root} shows how far it is), or crop to what is there."
        f"{reason}",
    )
