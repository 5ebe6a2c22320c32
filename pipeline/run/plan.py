"""A configuration held against the real stores: everything chosen, everything checked, nothing written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.denoise.plan import DenoisePlan, plan_denoising
from pipeline.engine.blocks import block_shape, chunk_shape
from pipeline.geometry import FloatVec3, Vec3
from pipeline.grid import BlockGrid
from pipeline.image.grey import GreyScale, require_grey, sample_grey
from pipeline.image.mask import CoarseMask
from pipeline.instances.plan import InstancePlan
from pipeline.instances.presets import instance_plan, threshold_warnings
from pipeline.model.ensemble import Member, load_members
from pipeline.predict.op import PredictOp
from pipeline.predict.plan import planned_op
from pipeline.run.config import RunConfig
from pipeline.run.recorded import tissue_mask, with_absolute_addresses
from pipeline.store.volume import Volume, open_volume, required_voxel_size


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run needs, resolved. ``members`` are averaged in their order; the first one leads.

    ``denoising`` runs before the members; None where it is off. ``warnings`` are those that no part can give alone.
    All addresses are absolute.
    """

    config: RunConfig
    source: Volume
    members: tuple[Member, ...]
    op: PredictOp
    grey: GreyScale
    grid: BlockGrid
    chunks: Vec3
    instances: InstancePlan
    denoising: DenoisePlan | None = None
    tissue: CoarseMask | None = None
    warnings: tuple[str, ...] = ()

    @property
    def voxel_size_nm(self) -> FloatVec3:
        """z, y, x."""
        return required_voxel_size(self.source, self.config.input)


def make_plan(config: RunConfig) -> Plan:
    """Check a configuration against the volume and the model, and choose what it leaves open.

    Refusals name paths as they were given.

    Raises:
        BadInput: one line for everything that cannot work.
    """
    specs = load_members(config.models)
    source = open_volume(config.input, config.voxel_size_nm)
    require_grey(source, config.input)
    size = required_voxel_size(source, config.input)
    op = planned_op(config.predict, config.models, specs, source, size, config.input)
    grid = BlockGrid(source.shape, block_shape(config.block.shape, source.shape, op.patch * op.scale))
    grey, histogram = sample_grey(source)
    denoising = plan_denoising(config.denoise, source, size, config.input, config.predict.batch)
    found = with_absolute_addresses(config)
    return Plan(
        config=found,
        source=source,
        members=tuple(
            Member(model, spec, spec.normalisation.statistics(histogram))
            for model, spec in zip(found.models, specs, strict=True)
        ),
        op=op,
        grey=grey,
        grid=grid,
        chunks=chunk_shape(grid.block),
        instances=instance_plan(config.instances, size, specs[0]),
        denoising=None if denoising is None else replace(denoising, settings=found.denoise),
        tissue=tissue_mask(config, source),
        warnings=(*source.notes, *threshold_warnings(config.instances, size, specs)),
    )
