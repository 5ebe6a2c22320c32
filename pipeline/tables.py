"""Small arrays beside the big ones: per-block tables (fragment rows, faces, pairs) and the global tables of a run."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numcodecs import Zstd

from pipeline.errors import BadInput
from pipeline.formats import Array

_FOLDER_SIZE = 1000  # files a folder; folders of 10^6 files are slow on every network file system
_ZSTD = Zstd(level=1)
# What zstd, zip and numpy raise for a file that is cut short, overwritten or gone.
_TORN = (OSError, ValueError, RuntimeError, EOFError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True)
class BlockTables:
    """Named arrays of each block of a stage, one file a block under ``folder``; written by workers, whole or not."""

    folder: Path

    def write(self, number: int, arrays: dict[str, Array]) -> None:
        """Store the arrays of a block, replacing what was there."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_whole(self._path(number), bytes(_ZSTD.encode(buffer.getbuffer())))

    def read(self, number: int) -> dict[str, Array]:
        """The arrays of a block.

        Raises:
            BadInput: the file is torn or gone; names it and what makes it again.
        """
        path = self._path(number)
        try:
            with np.load(io.BytesIO(_ZSTD.decode(path.read_bytes())), allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except _TORN as error:
            rule = "a table of a block must be there whole"
            lines = f"{self._ledger} (or in it the lines of block {number} alone)"
            remedy = f"To make it again, delete {lines} and run the same command."
            raise BadInput(str(path), rule, _cause(error), remedy) from error

    @property
    def _ledger(self) -> Path:
        """Of the stage that writes the tables: its name, or the part of their name before a dash."""
        ledgers, name = self.folder.parent.parent / "ledgers", self.folder.name
        own = ledgers / f"{name}.ledger"
        return own if own.exists() else ledgers / f"{name.partition('-')[0]}.ledger"

    def _path(self, number: int) -> Path:
        return self.folder / f"{number // _FOLDER_SIZE:05d}" / f"{number}.npz.zst"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, also when the process is killed or the disk is full."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_table(path: Path, table: Array) -> None:
    """Store one 1-D table as .npy, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    write_whole(path, buffer.getvalue())


def open_table(path: Path) -> Array:
    """A table mapped from disk: reading a slice reads only that slice.

    Raises:
        BadInput: the file is torn or gone; names it and what makes it again.
    """
    try:
        mapped: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _TORN as error:
        remedy = "Delete it and run the same command: it is made again from the tables of the blocks."
        raise BadInput(str(path), "a table of a run must be there whole", _cause(error), remedy) from error
    return mapped


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(". ")
