"""What a user sets of the way from maps to instances."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.settings import Probability, Reach, Settings, Voxels


class InstanceSettings(Settings):
    """From the two probability maps to instances. Fields left empty come from the preset."""

    preset: Literal["default", "published", "bc_watershed"] = Field(
        "default",
        description="published: T1 0.9, T2 0.8, 6-connected, 1x7x7 dilation, < 128 voxels dropped; bc_watershed: the "
        "MitoEM baseline, 26-connected seeds of 32 voxels and more flooded to semantic > 0.85, < 128 voxels dropped.",
    )
    seed_above: Probability | None = Field(None, description="T1: seeds have a semantic probability above this.")
    boundary_below: Probability | None = Field(None, description="T2: and a boundary probability below this.")
    connectivity: Literal[6, 18, 26] | None = Field(
        None, description="Voxels of one seed touch by faces, edges, corners."
    )
    minimum_seed_voxels: Voxels | None = Field(
        None, description="Whole seeds with fewer voxels are dropped, before growing."
    )
    grow: Literal["mask", "dilate", "watershed", "none"] | None = Field(
        None,
        description="mask: seeds grow through the mask; dilate: the published 1x7x7 dilation; watershed: the mask is "
        "flooded from the seeds by falling semantic probability, without a bound: identical for every block shape only "
        "as far as watershed_halo_nm decides it.",
    )
    mask_above: Probability | None = Field(
        None, description="Growth and flooding stay where the semantic probability is above this."
    )
    grow_nm: Reach | None = Field(None, description="How far seeds grow through the mask, nm along its voxels' faces.")
    watershed_halo_nm: Reach | None = Field(
        None, description="How far beyond a block the watershed looks, nm; more costs time and leaves fewer seams."
    )
    fill_holes_nm: Reach | None = Field(
        None, description="Holes inside one instance, of at most this extent along each axis, are filled; 0: off."
    )
    minimum_voxels: Voxels | None = Field(
        None, description="Whole instances with fewer voxels are dropped, after growing."
    )
    minimum_um3: Reach | None = Field(None, description="The same as a volume in um^3; give one of the two.")
    drop_border: bool = Field(False, description="Drop instances that touch the border of the volume.")
    tissue_mask: str | None = Field(
        None, description="Path or URL of a mask of the tissue: as large as the volume, or coarser by whole factors."
    )
    tissue_fraction: Probability = Field(
        0.5, description="Instances with a smaller share of their voxels inside the tissue mask are dropped."
    )
    join_gap: Annotated[int, Field(ge=0)] = Field(
        0, description="Join pieces of one mitochondrion across this many bad slices in z; 0: off."
    )
    join_overlap: Probability = Field(
        0.5, description="Share of the smaller of two faces that must overlap across the gap to be joined."
    )

    @model_validator(mode="after")
    def _one_minimum(self) -> InstanceSettings:
        if self.minimum_voxels is not None and self.minimum_um3 is not None:
            raise ValueError("minimum_voxels and minimum_um3 are two ways to say the same: give one of them")
        return self
