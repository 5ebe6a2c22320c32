"""Pieces of one instance on both sides of a bad slice: found by how far their sections overlap across the gap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import Ids
from pipeline.instances.ops.fragments import Rows, reduced, runs
from pipeline.instances.ops.merge import components
from pipeline.instances.ops.select import share

OVERLAP = np.dtype(
    [
        ("lower", np.uint64),  # instance below the gap, in slice z
        ("upper", np.uint64),  # another one above it, in slice z + gap + 1
        ("z", np.int64),
        ("gap", np.int64),  # slices between them
        ("voxels", np.uint64),  # columns in which lower, nothing but background and upper follow each other
    ]
)
SECTION = np.dtype([("id", np.uint64), ("z", np.int64), ("voxels", np.uint64)])

# An overlap of less than this share of the larger section joins nothing: a speck between two mitochondria would chain
# them. Measured: specks of 1 and 2 voxels in thresholded maps have mostly < 0.02; true pieces of a section >= 0.06.
LEAST_OF_LARGER = 1 / 32

Pairs = NDArray[np.int64]


def overlaps(ids: NDArray[Any], depth: int, gap: int, z: int = 0) -> Rows:
    """Where two instances face each other across background, along z.

    Args:
        ids: instance ids, z, y, x, an unsigned dtype; the slices to look upwards from, then up to ``gap + 1`` more.
        depth: how many slices to look upwards from.
        gap: most slices of background between two instances.
        z: global index of the first slice.

    Returns:
        ``OVERLAP`` rows, ascending, each key once. Those of blocks cut from one volume add up to those of the volume.
    """
    flat, plane = np.ascontiguousarray(ids).reshape(-1), ids.shape[1] * ids.shape[2]
    start = flat[: min(depth, len(ids) - 1) * plane]
    at = np.flatnonzero((start != 0) & (flat[plane : plane + len(start)] == 0))
    found = [np.zeros(0, OVERLAP)]
    for slices in range(1, gap + 1):
        step = (slices + 1) * plane
        at = at[: np.searchsorted(at, flat.size - step)]
        lower, upper = flat[at], flat[at + step]
        met = np.flatnonzero((upper != 0) & (upper != lower))
        rows = np.zeros(len(met), OVERLAP)
        rows["lower"], rows["upper"], rows["z"] = lower[met], upper[met], z + at[met] // plane
        rows["gap"], rows["voxels"] = slices, 1
        found.append(summed(rows))
        at = at[upper == 0]
    return summed(np.concatenate(found))


def sections(ids: NDArray[Any], z: int = 0) -> Rows:
    """``SECTION`` rows of the ids (z, y, x): how many voxels each has in each slice; ``z`` is that of the first."""
    found = runs(np.ascontiguousarray(ids))
    rows = np.zeros(len(found.label), SECTION)
    rows["id"], rows["voxels"] = found.label, found.length
    rows["z"] = z + found.start // max(ids.shape[1] * ids.shape[2], 1)
    return summed(rows)


def summed(rows: Rows) -> Rows:
    """``OVERLAP`` or ``SECTION`` rows, ascending, each key once, with the voxels of equal keys added up."""
    if len(rows) == 0:
        return rows
    *keys, _ = rows.dtype.names or ()
    ordered = rows[np.lexsort([rows[key] for key in reversed(keys)])]
    fresh = np.ones(len(ordered), np.bool_)
    fresh[1:] = np.any([ordered[key][1:] != ordered[key][:-1] for key in keys], axis=0)
    firsts = np.flatnonzero(fresh)
    result = ordered[firsts]
    result["voxels"] = np.add.reduceat(ordered["voxels"], firsts)
    return result


class SectionSums:
    """The voxels of the sections on both sides of some overlaps, over all blocks; others are not held.

    Args:
        found: ``OVERLAP`` rows.
    """

    def __init__(self, found: Rows) -> None:
        ids = np.concatenate((found["lower"], found["upper"]))
        z = np.concatenate((found["z"], found["z"] + found["gap"] + 1))
        self._ids = np.unique(ids)
        self._low, self._span = (int(z.min()), int(np.ptp(z)) + 1) if len(z) else (0, 0)
        self._keys = np.unique(self._packed(ids, z))
        self._voxels = np.zeros(len(self._keys), np.uint64)

    def add(self, rows: Rows) -> None:
        """Add ``SECTION`` rows of a block."""
        near = rows[(rows["z"] >= self._low) & (rows["z"] < self._low + self._span)]
        near = near[_present(self._ids, near["id"])]
        keys = self._packed(near["id"], near["z"])
        wanted = _present(self._keys, keys)
        at = np.searchsorted(self._keys, keys[wanted])
        self._voxels += reduced(np.add, near["voxels"][wanted], at, len(self._keys), 0)

    def of(self, ids: Ids, z: NDArray[np.int64]) -> Ids:
        """The voxels of each id in each slice."""
        return self._voxels[np.searchsorted(self._keys, self._packed(ids, z))]

    def _packed(self, ids: Ids, z: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._ids, ids).astype(np.int64) * self._span + (z - self._low)


def bridges(found: Rows, areas: SectionSums, overlap: float) -> Pairs:
    """The instances to join.

    Two are joined where, across some gap, the columns in which they face each other number at least ``overlap`` of the
    smaller of their two whole sections there, and ``LEAST_OF_LARGER`` of the larger.

    Args:
        found: ``OVERLAP`` rows of the whole volume, each key once; or all of those that start in some of its slices.
        areas: of the same rows, with the sections of all blocks added.
        overlap: 0..1.

    Returns:
        (k, 2) int64 ids, the smaller first, ascending, each pair once.

    Raises:
        ValueError: a section has fewer voxels than lie in an overlap: those of some block were not added.
    """
    below = areas.of(found["lower"], found["z"])
    above = areas.of(found["upper"], found["z"] + found["gap"] + 1)
    if np.any(found["voxels"] > np.minimum(below, above)):
        raise ValueError("an overlap is larger than its sections: a block's sections are missing")
    enough = found["voxels"] >= share(np.minimum(below, above), overlap)
    enough &= found["voxels"] >= share(np.maximum(below, above), LEAST_OF_LARGER)
    pairs = np.stack((found["lower"][enough], found["upper"][enough]), axis=1).astype(np.int64)
    return np.unique(np.sort(pairs, axis=1), axis=0)


def bridged(ids: NDArray[Any], gap: int, overlap: float) -> Pairs:
    """The pairs of instances to join (see ``bridges``) in a volume in memory.

    Args:
        ids: instance ids, z, y, x, an unsigned dtype; 0 is background.
        gap: most slices between two pieces; 0 joins nothing.
        overlap: 0..1, share of the smaller section.
    """
    found = overlaps(ids, len(ids), gap)
    areas = SectionSums(found)
    if len(found):
        areas.add(sections(ids))
    return bridges(found, areas, overlap)


def joined(n_instances: int, pairs: Pairs) -> Ids:
    """For each of the instances 1..n the smallest id of those it is joined with, directly or by others.

    Args:
        n_instances: n; memory is 8 bytes for each, and some for those in ``pairs``.
        pairs: (k, 2) ids that are one instance.

    Returns:
        uint64 of length ``n + 1``, to be indexed by id: background stays 0.
    """
    smallest = np.arange(n_instances + 1, dtype=np.uint64)
    ids, number = np.unique(pairs, return_inverse=True)
    n_groups, group = components(len(ids), number.reshape(-1, 2))
    least = reduced(np.minimum, ids, group.astype(np.intp), n_groups, np.iinfo(np.int64).max)
    smallest[ids] = least[group]
    return smallest


def _present(values: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of ``wanted`` are among the ascending ``values``."""
    at = np.searchsorted(values, wanted)
    inside = at < len(values)
    inside[inside] = values[at[inside]] == wanted[inside]
    return inside
