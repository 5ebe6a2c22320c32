"""A run: a directory with the resolved configuration, arrays, tables, ledgers and the result.

``run.json`` (configuration and what was planned), ``arrays/`` (OME-Zarr, any viewer opens them), ``tables/`` (what is
no image: block-local labels as runs, fragments, pairs, ids), ``ledgers/`` (which blocks are done), ``precomputed/``
(the result for Neuroglancer), ``instances.parquet/`` (parts of the table), ``report.json`` (written by verification
alone: a run without it is not complete); where denoising is on, ``restored.json`` and ``restored.png`` (what it
replaced).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import BadInput, RunConflict
from pipeline.files import write_whole
from pipeline.formats import ome_zarr
from pipeline.formats.address import is_remote
from pipeline.geometry import Vec3
from pipeline.grid import BlockGrid
from pipeline.ledger import Ledger
from pipeline.lock import run_lock
from pipeline.stage import Stage, digest
from pipeline.tables import BlockTables
from pipeline.volume import Volume


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of a run."""

    root: Path

    @property
    def manifest(self) -> Path:
        """The resolved configuration."""
        return self.root / "run.json"

    @property
    def report(self) -> Path:
        """Written last, by verification."""
        return self.root / "report.json"

    @property
    def instances(self) -> Path:
        """The instance table, a folder of Parquet parts."""
        return self.root / "instances.parquet"

    @property
    def restoration(self) -> Path:
        """What denoising replaced, in numbers."""
        return self.root / "restored.json"

    @property
    def restored_sheet(self) -> Path:
        """Pictures of it, before and after."""
        return self.root / "restored.png"

    @property
    def precomputed(self) -> Path:
        """The Neuroglancer layers."""
        return self.root / "precomputed"

    def array(self, name: str) -> str:
        """Address of an intermediate array."""
        return str(self.root / "arrays" / name)

    def ledger(self, stage: str) -> Path:
        """The ledger of a stage."""
        return self.root / "ledgers" / f"{stage}.ledger"

    def block_tables(self, name: str) -> BlockTables:
        """Per-block tables."""
        return BlockTables(self.root / "tables" / name)

    def table(self, name: str, fingerprint: str) -> Path:
        """A global table, named by what it was made for."""
        return self.root / "tables" / f"{name}-{fingerprint}.npy"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The right to work in this directory."""
        with run_lock(self.root):
            yield


def local_directory(output: str, remedy: str) -> RunDirectory:
    """The directory at the local path ``output``; nothing is made or looked for.

    Raises:
        BadInput: it is a URL; says ``remedy``.
    """
    if is_remote(output):
        raise BadInput(
            f"output {output}",
            "the output directory is a local or network-mounted path",
            "its ledgers are append-only files and its lock is a file lock",
            remedy,
        )
    return RunDirectory(Path(output).expanduser().absolute())


def open_ledger(directory: RunDirectory, stage: Stage) -> Ledger:
    """The ledger of a stage, bound to its fingerprint."""
    return Ledger(directory.ledger(stage.name), stage.name, stage.fingerprint, len(stage.grid))


def counts_of(directory: RunDirectory, stage: Stage) -> Any:
    """The counts in a finished stage's ledger, int64, one a block."""
    with open_ledger(directory, stage) as ledger:
        return ledger.counts


def stored_volume(url: str, grid: BlockGrid, dtype: str, like: Volume, chunks: Vec3) -> Volume:
    """The address of an intermediate array over ``grid``, with the voxel size and offset of ``like``."""
    return Volume(url, "", "zarr", grid.extent, dtype, chunks, like.voxel_size_nm, like.offset_nm)


def create_if_missing(volume: Volume, grid: BlockGrid) -> None:
    """Create an intermediate array unless it is there whole; its metadata are written last by the library."""
    if not is_whole_json(Path(volume.url) / "0" / "zarr.json"):
        ome_zarr.create(
            volume.url,
            grid.extent,
            grid.padded_extent,
            volume.chunks,
            volume.dtype,
            volume.voxel_size_nm,
            volume.offset_nm,
        )


def create_arrays(volumes: Sequence[Volume], grid: BlockGrid) -> None:
    """Create each intermediate array that is not there."""
    for volume in volumes:
        create_if_missing(volume, grid)


def is_whole_json(path: Path) -> bool:
    """False for a file that is not there, and for one that a full disk or a kill has left empty or torn."""
    try:
        json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return True


def claim(directory: RunDirectory, manifest: Mapping[str, Any]) -> bool:
    """Make a new run directory or recognise the same run in an existing one; True when it was there already.

    Raises:
        RunConflict: see ``recognised``.
    """
    if recognised(directory, manifest):
        return True
    write_whole(directory.manifest, json.dumps(manifest, indent=2).encode())
    return False


def recognised(directory: RunDirectory, manifest: Mapping[str, Any]) -> bool:
    """True when the directory holds this very run, False when it is new or empty; writes nothing.

    Raises:
        RunConflict: it holds a run of another configuration (names the fields) or other files.
    """
    if not directory.manifest.exists():
        others = sorted(entry.name for entry in _entries(directory.root) if not _is_ours(entry.name))
        if others:
            raise RunConflict(
                f"{directory.root}: this directory is not empty and holds no run ({', '.join(others[:5])}). "
                "Choose an empty or a new directory."
            )
        return False
    changes = list(differences(recorded(directory)["settings"], manifest["settings"]))
    if changes:
        raise RunConflict(
            f"{directory.root}: this directory holds a run of another configuration; changed: {'; '.join(changes)}. "
            "Use a new output directory, or go back to the old values to resume."
        )
    return True


def recorded(directory: RunDirectory) -> dict[str, Any]:
    """The content of ``run.json``.

    Raises:
        RunConflict: it was not written by a run.
    """
    try:
        found = json.loads(directory.manifest.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
        raise RunConflict(
            f"{directory.manifest}: this file does not hold the configuration of a run. Choose another directory."
        )
    return found


def _entries(root: Path) -> list[Path]:
    if root.exists() and not root.is_dir():
        raise RunConflict(f"{root}: the output of a run is a directory, and this is a file. Choose another name.")
    return list(root.iterdir()) if root.exists() else []


def _is_ours(name: str) -> bool:
    # What stands in a directory before run.json does; the last is run.json half written, when a run was killed then.
    return name in ("lock", "prefect") or name.startswith(".run.json.")


def differences(old: Any, new: Any, key: str = "") -> Iterator[str]:
    """The keys in which two nested mappings differ, as ``key: old -> new``."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in sorted({*old, *new}):
            yield from differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield f"{key}: {old} -> {new}"


def identity(volume: Volume) -> dict[str, Any]:
    """What tells that an input is still the same: shape, dtype, geometry and, for local files, size and time."""
    facts = {key: value for key, value in asdict(volume).items() if key not in ("url", "path", "chunks")}
    return json.loads(json.dumps({**facts, "file": _file_state(volume)}))  # type: ignore[no-any-return]


def source_fingerprint(volume: Volume) -> str:
    """The fingerprint of an input."""
    return digest({"url": str(volume), **identity(volume)})


def mask_identity(volume: Volume) -> dict[str, Any]:
    """The same of a mask, which people mend in place: of a local folder also number, bytes and newest time of files."""
    path = Path(volume.url)
    if is_remote(volume.url) or not path.is_dir():
        return identity(volume)
    states = [entry.stat() for entry in path.rglob("*") if entry.is_file()]
    newest = max((state.st_mtime_ns for state in states), default=0)
    return {**identity(volume), "files": [len(states), sum(state.st_size for state in states), newest]}


def _file_state(volume: Volume) -> list[int]:
    if is_remote(volume.url):
        return []
    path = Path(volume.url)
    for name in ("info", "zarr.json", ".zarray", ".zgroup"):
        if (path / name).exists():
            path = path / name
            break
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def require_space(directory: Path, needed: int) -> None:
    """Refuse a run that the disk cannot hold."""
    path = directory
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    if free < needed:
        raise BadInput(
            f"output {directory}",
            f"the disk must hold the run: about {needed / 1e9:.1f} GB, free are {free / 1e9:.1f} GB",
            "a run that fills the disk stops half-way",
            "Free space, choose another disk, or export fewer layers: --set export.layers=[segmentation].",
        )
