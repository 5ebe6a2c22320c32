"""A configuration of instances from stored maps, held against the maps."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.engine.blocks import block_shape, chunk_shape
from pipeline.engine.directory import RunDirectory
from pipeline.grid import BlockGrid
from pipeline.image.frame import Frame
from pipeline.image.grey import GreyScale
from pipeline.image.maps import Maps
from pipeline.image.mask import CoarseMask
from pipeline.instances.maps import open_maps
from pipeline.instances.plan import InstancePlan
from pipeline.instances.presets import instance_plan
from pipeline.run.config import InstancesConfig
from pipeline.run.recorded import tissue_mask
from pipeline.store.volume import required_voxel_size


@dataclass(frozen=True, slots=True)
class MapsPlan:
    """All that instances from stored maps need, resolved."""

    config: InstancesConfig
    maps: Maps
    grid: BlockGrid
    instances: InstancePlan
    tissue: CoarseMask | None = None

    def frame(self, directory: RunDirectory) -> Frame:
        """What all parts of the run share; the semantic map stands for the volume."""
        return Frame(directory, self.maps.semantic, self.grid, chunk_shape(self.grid.block), GreyScale())


def plan_of_maps(config: InstancesConfig) -> MapsPlan:
    """Check a configuration against two stored maps, and choose what it leaves open.

    Raises:
        BadInput: the maps differ in shape, are no probability maps, or have no voxel size.
    """
    maps = open_maps(config.semantic, config.boundary, config.voxel_size_nm)
    size = required_voxel_size(maps.semantic, config.semantic)
    grid = BlockGrid(maps.semantic.shape, block_shape(config.block.shape, maps.semantic.shape))
    instances = instance_plan(config.instances, size, None)
    return MapsPlan(config, maps, grid, instances, tissue_mask(config, maps.semantic))
