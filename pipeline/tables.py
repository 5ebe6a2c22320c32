"""Small arrays beside the big ones: per-block tables (fragment rows, faces, pairs) and the global tables of a run."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
        """Store the arrays of a block, each compressed by itself, replacing what was there."""
        buffer = io.BytesIO()
        packed = {name: np.frombuffer(_ZSTD.encode(_npy(array)), np.uint8) for name, array in arrays.items()}
        np.savez(buffer, allow_pickle=False, **packed)
        write_whole(self._path(number), buffer.getvalue())

    def read(self, number: int) -> dict[str, Array]:
        """The arrays of a block.

        Raises:
            BadInput: the file is torn or gone; names it and what makes it again.
        """
        return dict(self.opened(number))

    def opened(self, number: int) -> StoredArrays:
        """The arrays of a block, each decoded when it is asked for; errors as ``read``, then too."""
        path = self._path(number)
        lines = f"{self._ledger} (or in it the lines of block {number} alone)"
        return StoredArrays(path, f"To make it again, delete {lines} and run the same command.")

    @property
    def _ledger(self) -> Path:
        """Of the stage that writes the tables: its name, or the part of their name before a dash."""
        ledgers, name = self.folder.parent.parent / "ledgers", self.folder.name
        own = ledgers / f"{name}.ledger"
        return own if own.exists() else ledgers / f"{name.partition('-')[0]}.ledger"

    def _path(self, number: int) -> Path:
        return self.folder / f"{number // _FOLDER_SIZE:05d}" / f"{number}.npz"


class StoredArrays(Mapping[str, Array]):
    """The arrays in one file of ``BlockTables``; ``remedy`` says what makes a torn one again."""

    def __init__(self, path: Path, remedy: str) -> None:
        self._path, self._remedy = path, remedy
        with self._torn():
            self._stored = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)

    def __getitem__(self, name: str) -> Array:
        if name not in self._stored.files:
            raise KeyError(name)
        with self._torn():
            array: Array = np.load(io.BytesIO(_ZSTD.decode(self._stored[name])), allow_pickle=False)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored.files)

    def __len__(self) -> int:
        return len(self._stored.files)

    @contextmanager
    def _torn(self) -> Iterator[None]:
        try:
            yield
        except _TORN as error:
            rule = "a table of a block must be there whole"
            raise BadInput(str(self._path), rule, _cause(error), self._remedy) from error


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
    write_whole(path, bytes(_npy(table)))


def _npy(array: Array) -> memoryview:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getbuffer()


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
