"""How instances are made of two probability maps, as the ops take it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.geometry import ORIGIN, FloatVec3, Vec3
from pipeline.instances.ops.label import Connectivity


@dataclass(frozen=True, slots=True)
class InstancePlan:
    """The instance settings resolved: thresholds as uint8 levels, sizes in voxels, everything z y x.

    Attributes:
        seed_above, boundary_below: seeds are where semantic > seed_above and boundary < boundary_below.
        connectivity: of the seeds: 6, 18 or 26.
        grow: "mask", "dilate", "watershed" or "none".
        mask_above: growth and flooding stay where semantic > this.
        grow_nm: reach of growth through the mask; 0 for any other kind of growth.
        voxel_size_nm: of the volume.
        watershed_halo: voxels the watershed looks beyond a block; 0 for any other kind of growth.
        fill_holes: largest extent of a hole along each axis, voxels; holes are filled where all three are 1 and more.
        minimum_voxels: smaller instances are dropped, at the end.
        minimum_seed_voxels: smaller seeds are dropped, before growth.
        drop_border: drop instances that touch the border of the volume.
        tissue_fraction: drop instances with a smaller share of their voxels inside the tissue mask, where there is one.
        join_gap: slices across which pieces are joined; 0 is off.
        join_overlap: share of the smaller face that must overlap for it.
    """

    seed_above: int
    boundary_below: int
    connectivity: Connectivity = 6
    grow: str = "none"
    mask_above: int = 0
    grow_nm: float = 0.0
    voxel_size_nm: FloatVec3 = (1.0, 1.0, 1.0)
    watershed_halo: Vec3 = ORIGIN
    fill_holes: Vec3 = ORIGIN
    minimum_voxels: int = 0
    minimum_seed_voxels: int = 1
    drop_border: bool = False
    tissue_fraction: float = 0.5
    join_gap: int = 0
    join_overlap: float = 0.5
