"""Rows spilled to disk by ranges of a key: what is larger than memory is sorted or summed one range at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]
BUFFER_BYTES = 2**26


@dataclass(frozen=True)
class Partition:
    """The rows whose keys lie in ``low <= key < high``, in the order in which they were appended."""

    low: int
    high: int
    keys: Keys
    rows: npt.NDArray[Any]


class Partitions:
    """Rows by key range, in files under ``folder``, which is emptied first and removed at the end. A context manager.

    Memory: ``BUFFER_BYTES`` while appending, then one partition at a time. What a killed process leaves behind is
    removed by the next one: the rows are derived from stored tables and cheap to spill again.

    Args:
        folder: one process at a time; on the disk of the run.
        bounds: k + 1 ascending keys; partition i holds ``bounds[i] <= key < bounds[i + 1]``.
        dtype: of a row; ``np.dtype((base, shape))`` for rows that are arrays.
        most: rows in a partition when it is read; a range with more is cut again, down to a single key.
    """

    def __init__(self, folder: Path, bounds: npt.ArrayLike, dtype: npt.DTypeLike, most: int | None = None) -> None:
        self._folder, self._bounds = folder, np.asarray(bounds, np.uint64)
        self._dtype, self._most = np.dtype(dtype), most
        self._record = np.dtype([("key", np.uint64), ("row", dtype)])
        self._buffers: list[list[npt.NDArray[Any]]] = [[] for _ in self._bounds[1:]]
        self._buffered = 0
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def append(self, keys: npt.NDArray[np.integer[Any]], rows: npt.NDArray[Any]) -> None:
        """Put rows in, in any order of keys.

        Raises:
            ValueError: a key lies outside the bounds.
        """
        if not len(keys):
            return
        records = np.empty(len(keys), self._record)
        records["key"], records["row"] = keys, rows
        place = np.searchsorted(self._bounds, records["key"], side="right") - 1
        if place.min() < 0 or place.max() >= len(self._buffers):
            raise ValueError(f"keys {keys.min()}..{keys.max()} outside {self._bounds[0]}..{self._bounds[-1]}")
        order = np.argsort(place, kind="stable")
        cuts = np.searchsorted(place[order], np.arange(len(self._buffers) + 1))
        for number in np.flatnonzero(np.diff(cuts)):
            self._buffers[number].append(records[order[cuts[number] : cuts[number + 1]]])
        self._buffered += records.nbytes
        if self._buffered > BUFFER_BYTES:
            self._flush()

    def __iter__(self) -> Iterator[Partition]:
        """Every partition in rising order of keys, the empty ones too."""
        self._flush()
        for number in range(len(self._buffers)):
            if self._most is not None and self._count(number) > self._most:
                yield from self._cut_again(number, self._most)
            else:
                yield self._loaded(number)

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cut_again(self, number: int, most: int) -> Iterator[Partition]:
        low, high = (int(bound) for bound in self._bounds[number : number + 2])
        if high - low == 1:
            yield self._loaded(number)
            return
        parts = min(high - low, 2 * -(-self._count(number) // most))
        bounds = even_bounds(low, high, -(-(high - low) // parts))
        with Partitions(self._folder / f"{number:06d}", bounds, self._dtype, most) as finer:
            for at in range(0, self._count(number), most):
                stored = np.fromfile(self._path(number), self._record, most, offset=at * self._record.itemsize)
                finer.append(stored["key"], stored["row"])
            yield from finer

    def _count(self, number: int) -> int:
        path = self._path(number)
        return path.stat().st_size // self._record.itemsize if path.exists() else 0

    def _loaded(self, number: int) -> Partition:
        path = self._path(number)
        stored = np.fromfile(path, self._record) if path.exists() else np.zeros(0, self._record)
        low, high = (int(bound) for bound in self._bounds[number : number + 2])
        return Partition(low, high, np.ascontiguousarray(stored["key"]), np.ascontiguousarray(stored["row"]))

    def _flush(self) -> None:
        for number, parts in enumerate(self._buffers):
            if parts:
                with self._path(number).open("ab") as file:
                    np.concatenate(parts).tofile(file)
                parts.clear()
        self._buffered = 0

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.rows"


def even_bounds(low: int, high: int, size: int) -> Keys:
    """Bounds from ``low`` to ``high`` in steps of ``size``; the last step may be shorter."""
    return np.append(np.arange(low, max(high, low + 1), size, dtype=np.uint64), np.uint64(max(high, low + 1)))
