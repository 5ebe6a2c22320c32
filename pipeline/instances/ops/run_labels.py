"""Block-local labels from runs: what ``label`` finds, without visiting the voxels of a run one by one.

With a tenth of a 128^3 block inside mitochondria it takes 2.6 ms where cc3d and the runs of its labels take 6.8.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import Vec3, vec3
from pipeline.instances.ops.fragments import Runs, runs
from pipeline.instances.ops.label import Connectivity, label
from pipeline.instances.ops.merge import canonical_ids, components
from pipeline.instances.ops.stitch import forward_offsets

FEW = 0.01  # runs a voxel; cc3d is faster above twice as many, or as many with 26-connectivity


def label_runs(seeds: NDArray[np.bool_], connectivity: Connectivity) -> tuple[Runs, int]:
    """Connected components of one block, as the runs of its labels.

    Args:
        seeds: z, y, x.
        connectivity: 6 (faces), 18 (and edges) or 26 (and corners).

    Returns:
        ``runs(labels)`` in the narrowest dtype, and n, for the ``labels, n`` that ``label`` returns.
    """
    shape = vec3(seeds.shape)
    found = runs(np.ascontiguousarray(seeds).view(np.uint8))
    if len(found.start) > FEW * seeds.size:
        labels, n = label(seeds, connectivity)
        return runs(labels.astype(np.min_scalar_type(n))), n
    n, group = components(len(found.start), _touching(found, shape, connectivity))
    numbers = canonical_ids(group, found.start.astype(np.uint64), np.ones(n, np.bool_))
    return Runs(numbers.astype(np.min_scalar_type(n)), found.start, found.length), n


def _touching(found: Runs, shape: Vec3, connectivity: Connectivity) -> NDArray[np.int64]:
    """(k, 2) numbers of runs that are connected."""
    reaches: dict[int, int] = {}
    for dz, dy, dx in forward_offsets(connectivity):
        if (dz, dy) != (0, 0):  # two runs of a row have a gap between them
            row = row_step(dz, dy, shape)
            reaches[row] = max(abs(dx), reaches.get(row, 0))
    padded = padded_runs(found, shape)
    pairs = [np.stack(opposite_runs(padded, row, reach), axis=1) for row, reach in reaches.items()]
    return np.concatenate(pairs)


def padded_runs(found: Runs, shape: Vec3) -> Runs:
    """The same runs where every row and every plane is one longer, in 32 bits where they suffice.

    A step beyond an edge of the block then meets nothing.
    """
    _, y, x = shape
    line, at = np.divmod(found.start, x)
    plane, line = np.divmod(line, y)
    index = np.int32 if prod(n + 2 for n in shape) < 2**31 else np.int64
    return Runs(
        found.label, (line * (x + 1) + at + plane * row_step(1, 0, shape)).astype(index), found.length.astype(index)
    )


def row_step(dz: int, dy: int, shape: Vec3) -> int:
    """From a padded row to the one ``dz`` planes and ``dy`` rows on."""
    _, y, x = shape
    return (dz * (y + 1) + dy) * (x + 1)


def opposite_runs(padded: Runs, row: int, reach: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers of the runs of each pair that overlap, or (``reach`` 1) touch, once the first is moved on by ``row``."""
    stop = padded.start + padded.length
    first = np.searchsorted(stop, padded.start + (row - reach), side="right")
    after = np.searchsorted(padded.start, stop + (row + reach), side="left")
    many = np.maximum(after - first, 0)
    mine = np.repeat(np.arange(len(many)), many)
    return mine, np.arange(len(mine)) + np.repeat(first - (np.cumsum(many) - many), many)
