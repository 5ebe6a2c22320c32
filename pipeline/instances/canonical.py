"""Canonical ids out of core: 1..N in order of first voxels, for any number of instances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.store.partitions import Partitions, even_bounds
from pipeline.store.tables import TableWriter

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


def counted(parts: Iterator[NDArray[np.uint64]]) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
    """Number the first voxels of consecutive parts 0, 1, 2 ...: as ``write_canonical`` takes them."""
    before = 0
    for part in parts:
        yield np.arange(before, before + len(part), dtype=np.uint64), part
        before += len(part)
