"""From seeds to whole objects as a plan says it: growth, dilation or watershed, then holes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry import ORIGIN, Vec3, vec3
from pipeline.instances.ops.grow import dilate, grow, halo
from pipeline.instances.ops.holes import fill_holes
from pipeline.instances.ops.watershed import flood
from pipeline.instances.plan import InstancePlan

PUBLISHED_DILATION = vec3((1, 7, 7))


def growth_halo(plan: InstancePlan) -> Vec3:
    """Voxels beyond a block, z y x, that decide how its seeds grow; for the watershed only nearly (see ``flood``)."""
    if plan.grow == "mask":
        return halo(plan.grow_nm, plan.voxel_size_nm)
    if plan.grow == "dilate":
        return PUBLISHED_DILATION // 2
    return vec3(plan.watershed_halo) if plan.grow == "watershed" else ORIGIN


def holes_halo(plan: InstancePlan) -> Vec3:
    """Voxels beyond a block, z y x, whose grown labels decide which holes are filled."""
    return vec3(plan.fill_holes) if all(plan.fill_holes) else ORIGIN


def whole_halo(plan: InstancePlan) -> Vec3:
    """Voxels beyond a block, z y x, that decide its grown labels without holes."""
    return growth_halo(plan) + holes_halo(plan)


def needs_semantic(plan: InstancePlan) -> bool:
    """Whether growth looks at the semantic probability, in the halo too."""
    return plan.grow in ("mask", "watershed")


def grown(labels: NDArray[np.uint32], semantic: NDArray[np.uint8], plan: InstancePlan) -> NDArray[np.uint32]:
    """Seeds grown by ``plan.grow``; holes are not filled yet.

    Args:
        labels: ids of seeds, z, y, x; 0 is none. Their order decides equal distances, and what a dilation overwrites.
        semantic: probability, same shape; not looked at unless ``needs_semantic``.
        plan: ``grow``, ``mask_above``, ``grow_nm`` and ``voxel_size_nm`` are used.
    """
    if plan.grow == "mask":
        return grow(labels, semantic > plan.mask_above, plan.grow_nm, plan.voxel_size_nm)
    if plan.grow == "dilate":
        return dilate(labels, PUBLISHED_DILATION)
    return flood(labels, semantic, plan.mask_above) if plan.grow == "watershed" else labels


def filled(labels: NDArray[np.uint32], plan: InstancePlan) -> NDArray[np.uint32]:
    """Grown labels with their holes of at most ``plan.fill_holes`` filled."""
    return fill_holes(labels, plan.fill_holes)
