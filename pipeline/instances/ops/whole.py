"""Instances of a volume in memory, in one go: what the stages give block by block, at any size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.arrays import Labels
from pipeline.geometry import Box, vec3
from pipeline.image.quantise import to_uint8
from pipeline.instances.ops.fragments import Rows, fragment_table
from pipeline.instances.ops.growth import filled, grown
from pipeline.instances.ops.label import label, seeds
from pipeline.instances.ops.select import kept
from pipeline.instances.plan import InstancePlan


def whole_instances(
    semantic: NDArray[np.generic],
    boundary: NDArray[np.generic],
    plan: InstancePlan,
    tissue: NDArray[np.bool_] | None = None,
) -> NDArray[np.uint64]:
    """Two probability maps to instances: seeds, growth, holes, joining across bad slices, selection.

    The blockwise stages give the same ids voxel for voxel; with the watershed, as far as its halo decides it.

    Args:
        semantic, boundary: z, y, x; uint8, or float in 0..1.
        plan: all of it is used.
        tissue: mask of the tissue, same shape.

    Returns:
        uint64 ids 1..N in order of each instance's first voxel, same shape; 0 is background.

    Raises:
        BadInput: a map is no probability map.
    """
    semantic = to_uint8(semantic)
    labels, n = _compact(whole_labels(whole_seeds(semantic, boundary, plan), semantic, plan))
    extent = vec3(labels.shape)
    rows = fragment_table(labels, n, Box.of_shape(extent), extent, tissue=tissue)
    return _canonical(rows, kept(rows, extent, plan, tissue=tissue is not None))[labels]


def whole_seeds(semantic: NDArray[np.generic], boundary: NDArray[np.generic], plan: InstancePlan) -> Labels:
    """The first step of ``whole_instances``: labels of the seeds that are large enough; of growth nothing is used."""
    found, _ = label(seeds(semantic, boundary, plan.seed_above, plan.boundary_below), plan.connectivity)
    return _large(found, plan.minimum_seed_voxels)


def whole_labels(labels: Labels, semantic: NDArray[np.uint8], plan: InstancePlan) -> Labels:
    """The second step: seeds grown, filled and joined; any labels, before anything is dropped or numbered."""
    labels = filled(grown(labels, semantic, plan), plan)
    return labels if plan.join_gap == 0 else _joined(_compact(labels)[0], plan)


def _large(labels: Labels, minimum_voxels: int) -> Labels:
    """Labels without those of fewer voxels."""
    if minimum_voxels <= 1:
        return labels
    sizes = np.bincount(labels.reshape(-1))
    return np.where(sizes >= minimum_voxels, np.arange(len(sizes), dtype=np.uint32), np.uint32(0))[labels]


def _compact(labels: Labels) -> tuple[Labels, int]:
    """Labels 1..n in the same order, and n: a dilation may overwrite all of an id."""
    present = np.bincount(labels.reshape(-1), minlength=1) > 0
    present[0] = False
    numbers = np.cumsum(present, dtype=np.uint32)
    return np.where(present, numbers, np.uint32(0))[labels], int(numbers[-1])


def _joined(labels: Labels, plan: InstancePlan) -> Labels:
    from pipeline.instances.ops.bridge import bridged, joined  # they need scipy, which a machine for training may lack

    pairs = bridged(labels.astype(np.uint64), plan.join_gap, plan.join_overlap)
    smallest: Labels = joined(int(labels.max(initial=0)), pairs).astype(np.uint32)
    return smallest[labels]


def _canonical(rows: Rows, stays: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """The final id of each label 0..n: those that stay are numbered by their first voxels."""
    ids = np.zeros(len(rows) + 1, np.uint64)
    order = np.flatnonzero(stays)
    order = order[np.argsort(rows["first"][order])]
    ids[order + 1] = np.arange(1, len(order) + 1, dtype=np.uint64)
    return ids
