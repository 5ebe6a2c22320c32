"""Small arrays beside the big ones: per-block tables (fragment rows, faces, pairs) and the global tables of a run."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numcodecs import Zstd
from numpy.typing import NDArray

from pipeline.arrays import Array
from pipeline.errors import Unreadable
from pipeline.store.files import write_whole

_HEAD = 2**15  # bytes that are read at first; rows and faces of most blocks lie in them
_FOLDER_SIZE = 1000  # files a folder; folders of 10^6 files are slow on every network file system
_ZSTD = Zstd(level=1, checksum=True)
# What np.save writes before a 1-D table of numbers; it is padded to 128 bytes.
_PLAIN_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00\x76\x00\{'descr': '([<|][biuf]\d+)', 'fortran_order': False, 'shape': \((\d+),\), \} *\n"
)
# What zstd, json and numpy raise for a file that is cut short, overwritten or gone.
_TORN = (OSError, ValueError, RuntimeError, EOFError, KeyError, TypeError)


@dataclass(frozen=True, slots=True)
class BlockTables:
    """Named arrays of each block of a stage, one file a block under ``folder``; written by workers, whole or not."""

    folder: Path

    def write(self, number: int, arrays: dict[str, Array]) -> None:
        """Store the arrays of a block, each compressed by itself, replacing what was there."""
        packed = [bytes(_ZSTD.encode(_bytes_of(np.ascontiguousarray(array)))) for array in arrays.values()]
        described = [
            (name, np.lib.format.dtype_to_descr(array.dtype), array.shape, len(data))
            for (name, array), data in zip(arrays.items(), packed, strict=True)
        ]
        write_whole(self._path(number), b"".join([json.dumps(described).encode(), b"\n", *packed]))

    def read(self, number: int) -> dict[str, Array]:
        """The arrays of a block.

        Raises:
            Unreadable: the file is torn or gone; names it and what makes it again.
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
        return self.folder / f"{number // _FOLDER_SIZE:05d}" / f"{number}.arrays"


class StoredArrays(Mapping[str, Array]):
    """The arrays in one file of ``BlockTables``; ``remedy`` says what makes a torn one again.

    A file is read to its end only where an array there is asked for: merging needs the first kB of a block's. The first
    line is JSON: name, dtype, shape and stored bytes of each; the arrays follow, compressed one by one. (npz takes 110
    us more an array, which were 0.45 s of the 4.5 s of labelling 512^3 in 64 blocks.)
    """

    def __init__(self, path: Path, remedy: str) -> None:
        self._path, self._remedy = path, remedy
        with self._torn():
            with path.open("rb", buffering=0) as file:
                self._head = memoryview(file.read(_HEAD))
                size = os.fstat(file.fileno()).st_size
            first_line = bytes(self._head).partition(b"\n")[0]
            at = len(first_line) + 1
            self._stored: dict[str, tuple[Any, tuple[int, ...], int, int]] = {}
            for name, dtype, shape, length in json.loads(first_line):
                self._stored[name] = dtype, tuple(shape), at, at + length
                at += length
            if at != size:
                raise ValueError(f"{size} bytes instead of {at}")

    def __getitem__(self, name: str) -> Array:
        with self._torn():
            dtype, shape, start, stop = self._stored[name]
            array = np.empty(shape, _dtype(dtype))
            if array.size:  # zstd refuses to decode a frame of nothing
                _ZSTD.decode(self._bytes(start, stop), _bytes_of(array))
        return array

    def _bytes(self, start: int, stop: int) -> memoryview:
        if stop > len(self._head):
            self._head = memoryview(self._path.read_bytes())
            if stop > len(self._head):
                raise ValueError(f"{len(self._head)} bytes instead of {stop} at least")
        return self._head[start:stop]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    @contextmanager
    def _torn(self) -> Iterator[None]:
        try:
            yield
        except _TORN as error:
            rule = "a table of a block must be there whole"
            place = str(self._path)
            raise Unreadable(place, rule, _cause(error), self._remedy, path=place) from error


def _bytes_of(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)


def _dtype(described: Any) -> np.dtype[Any]:
    """From JSON, which makes lists of the tuples that describe fields."""
    if isinstance(described, str):
        return np.dtype(described)
    return np.dtype([(name, kind, *(tuple(shape) for shape in rest)) for name, kind, *rest in described])


def write_table(path: Path, table: Array) -> None:
    """Store one 1-D table as .npy, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    write_whole(path, buffer.getvalue())


def open_table(path: Path) -> Array:
    """A table mapped from disk: reading a slice reads only that slice.

    Raises:
        Unreadable: the file is torn or gone; names it and what makes it again.
    """
    try:
        mapped = _mapped(path)
    except _TORN as error:
        remedy = "Delete it and run the same command: it is made again from the tables of the blocks."
        rule = "a table of a run must be there whole"
        raise Unreadable(str(path), rule, _cause(error), remedy, path=str(path)) from error
    return mapped


def _mapped(path: Path) -> Array:
    """As np.load, which parses the header as Python: CPython 3.11 can fail at that where another thread does too."""
    with path.open("rb") as file:
        head = file.read(128)
    plain = _PLAIN_HEADER.match(head)
    if plain is None:
        loaded: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return loaded
    return np.memmap(path, np.dtype(plain[1].decode()), "r", plain.end(), (int(plain[2]),))


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(". ")


class TableWriter:
    """A 1-D uint64 .npy written piece by piece, there whole or not at all. A context manager.

    Args:
        path: the file.
        length: entries it will have; those never written are 0.
    """

    def __init__(self, path: Path, length: int) -> None:
        self._path, self._temporary = path, path.with_name(f".{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._temporary.open("wb")
        header = {"descr": "<u8", "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()
        self._file.truncate(self._start + 8 * length)

    def append(self, values: NDArray[np.uint64]) -> None:
        """Write values after those written last."""
        self._file.write(values.astype("<u8", copy=False).tobytes())

    def put(self, at: int, values: NDArray[np.uint64]) -> None:
        """Write values from entry ``at`` on."""
        self._file.seek(self._start + 8 * at)
        self.append(values)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.flush()
        if kind is None:
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink(missing_ok=True)
