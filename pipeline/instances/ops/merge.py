"""The one global step: fragments joined across block faces become instances with canonical ids."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.errors import BadInput
from pipeline.instances.ops.fragments import LAST_UINT64, Rows, reduced

MOST_FRAGMENTS = 2**31 - 1  # scipy's csgraph counts nodes in int32


def merge(count: int, pairs: NDArray[np.int64], rows: Rows, minimum_voxels: int = 0) -> NDArray[np.uint64]:
    """The canonical instance id of every fragment.

    Args:
        count: the number of fragments.
        pairs: (k, 2) global fragment numbers 0..count-1 that touch; any order, repeats allowed.
        rows: ``count`` ``FRAGMENT`` rows (``first`` and ``voxels`` are used).
        minimum_voxels: instances of fewer voxels, over all their fragments, get id 0.

    Returns:
        uint64 table of length ``count``: ids 1..N in order of each instance's first voxel, 0 for a dropped one.

    Raises:
        BadInput: more fragments than one merge can hold.
    """
    n_groups, group = components(count, pairs)
    return canonical_ids(group, rows["first"], large_enough(group, rows["voxels"], n_groups, minimum_voxels))


def components(count: int, pairs: NDArray[np.int64]) -> tuple[int, NDArray[np.int32]]:
    """Number the connected groups of ``count`` fragments joined by ``pairs`` (k, 2): how many, and each one's group."""
    if count > MOST_FRAGMENTS:
        raise BadInput(f"{count} fragments", f"one merge holds at most {MOST_FRAGMENTS}", "scipy counts them in int32")
    if len(pairs) == 0:
        return count, np.arange(count, dtype=np.int32)
    ends = pairs.astype(np.int32)
    weights = np.ones(len(ends))  # float64 is what csgraph works in: no conversion, and repeats add up without wrapping
    graph = coo_array((weights, (ends[:, 0], ends[:, 1])), shape=(count, count))
    n_groups, group = connected_components(graph, directed=False)
    return int(n_groups), group


def large_enough(
    group: NDArray[np.integer[Any]], voxels: NDArray[np.uint64], n_groups: int, minimum_voxels: int
) -> NDArray[np.bool_]:
    """For each group, whether its fragments' voxels together reach ``minimum_voxels``."""
    if minimum_voxels <= 1:
        return np.ones(n_groups, np.bool_)
    return reduced(np.add, voxels, group.astype(np.intp, copy=False), n_groups, 0) >= minimum_voxels


def canonical_ids(
    group: NDArray[np.integer[Any]], first: NDArray[np.uint64], keep: NDArray[np.bool_]
) -> NDArray[np.uint64]:
    """Ids 1..N for the kept groups in order of their first voxels, 0 for the others.

    Args:
        group: the group number of each fragment, 0..len(keep)-1.
        first: the global linear index of each fragment's first voxel; no two fragments share one.
        keep: for each group, whether it stays.

    Returns:
        uint64 id of each fragment. It depends on the voxels alone, not on how blocks or groups were numbered.
    """
    index = group.astype(np.intp, copy=False)
    first_of_group = reduced(np.minimum, first, index, len(keep), LAST_UINT64)
    kept = np.flatnonzero(keep)
    ordered = kept[np.argsort(first_of_group[kept])]
    id_of_group = np.zeros(len(keep), np.uint64)
    id_of_group[ordered] = np.arange(1, len(ordered) + 1, dtype=np.uint64)
    return id_of_group[index]
