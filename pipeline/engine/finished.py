"""Arrays that a run has written, read by somebody else: an array with a block missing must not pass for a whole one.

A missing chunk reads as zeros, so nothing in the array itself tells. The ledger of the stage that writes the array
does; it is only read here, because a run may be going on there. The array's attributes name its stage. An array of an
earlier version, or a renamed array, does not; then its folder and its name decide the stage.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.engine.ledger import Record, read_record
from pipeline.errors import BadInput
from pipeline.geometry import FloatVec3, vec3
from pipeline.grid import BlockGrid
from pipeline.store.formats.address import is_remote
from pipeline.store.formats.writer import Writer, writer_of_image, writer_of_mip
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
"""The stage that writes each array of a run; for arrays that do not state it."""
OF_CELLS = ("mean", "texture", "damage")
"""Those with a grid of their own, of cells."""
SHOWN = 3


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

    Any other volume passes. Reads what the array states, ``RUN/run.json`` and one ledger. Links are followed.

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
    places = [_place_in_run(url, volume.path) for url in (given, given.resolve())]
    found = next((held for place in places if place is not None and (held := _held_to(place))), None)
    if found is None:
        return
    root, writer, record = found
    missing = _missing(writer.grid, record.done, volume)
    if len(missing):
        raise _incomplete(address or str(volume), root, writer, (record, missing))


def remedy_of(unreadable: Iterable[str]) -> str:
    """What to do about blocks that failed because they could not read what a stage of a run had stored.

    Args:
        unreadable: the paths or URLs of what they could not read.

    Returns:
        One line for each damaged array, each after a line break; nothing where none is an array of a run.
    """
    places = (_place_in_run(Path(url)) for url in set(unreadable) if not is_remote(url))
    stages = {place.path: (place, stage) for place in places if place is not None and (stage := place.stage_of_array())}
    return "".join(
        f"\n{path} is damaged: to make it again, delete {place.ledger(stage)} (or in it "
        "the lines of the damaged blocks alone) and run the command of that run again."
        for path, (place, stage) in sorted(stages.items())
    )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an array lies in a run: ``root/folder/name``, and the mip of a layer."""

    root: Path
    folder: str
    name: str
    mip: str

    @property
    def path(self) -> Path:
        return self.root / self.folder / self.name

    def ledger(self, stage: str) -> Path:
        return self.root / "ledgers" / f"{stage}.ledger"

    def stage_of_array(self) -> str | None:
        """The stage that writes an array of the run, not a layer; also where ``run.json`` is gone."""
        if self.folder != "arrays":
            return None
        stated = self.stated()
        return WRITERS.get(self.name) if stated is None else stated.stage

    def is_somebodys_own(self) -> bool:
        """True for a layer that the run does not export: somebody has put it there."""
        facts = _facts(self.root / "run.json")
        return self.folder == "precomputed" and bool(facts) and self.name not in _layers(facts)

    def stated(self) -> Writer | None:
        """What the array states; None where it states nothing, or was made under another name."""
        is_array = self.folder == "arrays"
        found = writer_of_image(self.path) if is_array else writer_of_mip(self.path, self.mip)
        return found if found is not None and found.array == self.name else None

    def named(self) -> Writer | None:
        """What its place, its name and ``run.json`` tell; None where no stage of the run writes such an array."""
        facts = _facts(self.root / "run.json")
        if self.folder == "precomputed":
            stage, grid = f"export-{self.name}-mip0" if self.name in _layers(facts) else None, _export_grid(facts)
        else:
            stage = WRITERS.get(self.name)
            grid = _grid(facts.get("cells", {}) if self.name in OF_CELLS else facts)
        return Writer(stage, self.name, grid) if stage and grid else None


def _held_to(place: _Place) -> tuple[Path, Writer, Record] | None:
    """The run, the stage that writes an array and what its ledger says; None where no stage of the run does.

    Nothing is done where there is no ledger, or one of another grid.
    """
    stated, named = place.stated(), place.named()
    writer = stated or named
    if writer is None or place.is_somebodys_own():
        return None
    ledger = place.ledger(writer.stage)
    found = read_record(ledger) if ledger.exists() else None
    record = None if found is None else found[1]
    if record is not None and record.size != len(writer.grid) and named is not None and named.stage == writer.stage:
        writer = named  # the array of another run, with other blocks, was put in its place
    if record is None or record.size != len(writer.grid):
        record = Record(len(writer.grid))
    return place.root, writer, record


def _place_in_run(url: Path, mip: str = "") -> _Place | None:
    """The place of an array in the run that it lies in, if it lies in one."""
    for folder in url.parents:
        if folder.name in ("arrays", "precomputed") and (folder.parent / "ledgers").is_dir():
            return _Place(folder.parent, folder.name, url.relative_to(folder).parts[0], mip)
    return None


def _facts(manifest: Path) -> dict[str, Any]:
    """What ``run.json`` says; nothing where it cannot be read."""
    try:
        facts = json.loads(manifest.read_bytes())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def _layers(facts: dict[str, Any]) -> list[str]:
    return list(facts.get("settings", {}).get("export", {}).get("layers", ()))


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


def _incomplete(address: str, root: Path, writer: Writer, found: tuple[Record, npt.NDArray[np.intp]]) -> BadInput:
    (record, missing), grid, stage = found, writer.grid, writer.stage
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
