"""A run: a directory with the resolved configuration, arrays, tables, ledgers and the result.

``run.json`` (configuration and what was planned), ``arrays/`` (OME-Zarr, any viewer opens them), ``tables/`` (what is
no image: block-local labels as runs, fragments, pairs, ids), ``ledgers/`` (which blocks are done), ``precomputed/``
(the result for Neuroglancer), ``instances.parquet/`` (parts of the table), ``report.json`` (written by verification
alone: a run without it is not complete); where denoising is on, ``restored.json`` and ``restored.png`` (what it
replaced).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.engine.ledger import Ledger
from pipeline.engine.lock import run_lock
from pipeline.engine.stage import Stage
from pipeline.errors import BadInput
from pipeline.store.formats.address import is_remote
from pipeline.store.tables import BlockTables


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
