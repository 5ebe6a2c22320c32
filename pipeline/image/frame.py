"""The frame of a run: the one volume, the blocks and the directory that all parts of the run share."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.engine.directory import RunDirectory
from pipeline.geometry import FloatVec3, Vec3
from pipeline.grid import BlockGrid
from pipeline.image.grey import GreyScale
from pipeline.store.volume import Volume, required_voxel_size


@dataclass(frozen=True, slots=True)
class Frame:
    """What every part of a run works on and in.

    Attributes:
        directory: of the run.
        source: the volume that the user gave, or the semantic map where there is no raw volume.
        grid: the blocks of all stages at the resolution of the source.
        chunks: of the intermediate arrays, voxels z y x; they divide the blocks.
        grey: the grey levels of the source.
    """

    directory: RunDirectory
    source: Volume
    grid: BlockGrid
    chunks: Vec3
    grey: GreyScale

    @property
    def voxel_size_nm(self) -> FloatVec3:
        """Of the source, nm, z y x."""
        return required_voxel_size(self.source, str(self.source))
