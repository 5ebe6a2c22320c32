"""What a user sets of the network's pass over the volume."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.settings import NaturalTriple, PositiveTriple, Settings


class PredictSettings(Settings):
    """The network over the volume."""

    scale: PositiveTriple | None = Field(
        None, description="Average this many voxels (z y x) before the network; from the voxel sizes if empty."
    )
    patch: PositiveTriple | None = Field(
        None, description="Input of the network in voxels after scaling, z y x; y and x multiples of 16."
    )
    overlap: NaturalTriple | None = Field(None, description="Voxels two neighbouring patches share, z y x.")
    weights: Literal["bump", "gaussian", "crop"] = Field(
        "bump", description="How overlapping patches are blended; gaussian is the published one."
    )
    batch: Annotated[int, Field(ge=1)] = Field(1, description="Patches a network call; 1 is fastest on a CPU.")
    tta: Literal[0, 4, 8, 16] = Field(
        0,
        description="Test-time augmentation: average this many mirrored and transposed variants of each patch, at that "
        "many times the cost. 4: z-flip, transpose; 8: y-flip, x-flip, transpose; 16: all; 0: off.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one.")
