"""Canonical ids out of core: 1..N in order of first voxels, for any number of instances."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.partitions import Partitions, even_bounds

PARTITION = 2**18  # owners a partition on average: some MB each

# Owners (uint64 numbers, each at most once in all) and the linear index of the first voxel of each.
Firsts = Iterable[tuple[NDArray[np.integer[Any]], NDArray[np.uint64]]]


def write_canonical(path: Path, firsts: Firsts, owners: int, voxels: int) -> int:
    """Write the canonical id of every owner as a table, whole or not at all.

    First spilled by first voxel, numbered range by range, then spilled back by owner: memory is that of one range, also
    where first voxels crowd in a corner of the volume.

    Args:
        path: .npy of ``owners`` uint64, 0 where an owner is not among ``firsts``.
        firsts: parts of (owner 0..owners-1, its first voxel); no two share a first voxel.
        owners: how many there are.
        voxels: first voxels are below this.

    Returns:
        N, the highest id.
    """
    scratch = path.with_name(f"{path.name}.ranges")
    by_first = even_bounds(0, voxels, -(-voxels // max(1, owners // PARTITION)))
    by_owner = even_bounds(0, owners, PARTITION)
    highest = 0
    with (
        Partitions(scratch / "first", by_first, np.uint64, most=4 * PARTITION) as ordered,
        Partitions(scratch / "owner", by_owner, np.uint64) as returned,
        TableWriter(path, owners) as table,
    ):
        for owner, first in firsts:
            ordered.append(first, owner)
        for part in ordered:
            ids = highest + 1 + np.arange(len(part.keys), dtype=np.uint64)
            returned.append(part.rows[np.argsort(part.keys)], ids)
            highest += len(ids)
        for part in returned:
            ids = np.zeros(min(part.high, owners) - part.low, np.uint64)
            ids[(part.keys - np.uint64(part.low)).astype(np.intp)] = part.rows
            table.append(ids)
    scratch.rmdir()
    return highest


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


def counted(parts: Iterator[NDArray[np.uint64]]) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """Number the first voxels of consecutive parts 0, 1, 2 ...: as ``write_canonical`` takes them."""
    before = 0
    for part in parts:
        yield np.arange(before, before + len(part), dtype=np.uint64), part
        before += len(part)
