"""A configuration held against the real stores: everything chosen, everything checked, nothing written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.denoise.plan import DenoisePlan, denoise_warnings, plan_denoising
from pipeline.engine.blocks import block_shape, chunk_shape
from pipeline.geometry import FloatVec3, Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.image.grey import GreyScale, require_grey, sample_grey
from pipeline.instances.plan import InstancePlan
from pipeline.instances.presets import instance_plan
from pipeline.instances.settings import InstanceSettings
from pipeline.model.ensemble import Member, load_members, scale_warnings
from pipeline.model.spec import ModelSpec
from pipeline.predict.op import PredictOp
from pipeline.predict.plan import planned_op
from pipeline.run.config import RunConfig
from pipeline.store.volume import Volume, open_volume, required_voxel_size


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run needs, resolved. ``members`` are averaged in their order; the first one leads.

    ``denoising`` comes before them, None where it is off. ``warnings`` are for the user; none of them stops the run.
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
    warnings: tuple[str, ...] = ()

    @property
    def voxel_size_nm(self) -> FloatVec3:
        """z, y, x."""
        return required_voxel_size(self.source, self.config.input)


def make_plan(config: RunConfig) -> Plan:
    """Check a configuration against the volume and the model, and choose what it leaves open.

    Raises:
        BadInput: one line for everything that cannot work.
    """
    specs = load_members(config.models)
    source = open_volume(config.input, config.voxel_size_nm)
    require_grey(source, config.input)
    size = required_voxel_size(source, config.input)
    op = planned_op(config.predict, config.models, specs, source, size, config.input)
    patch = vec3(p * s for p, s in zip(op.patch, op.scale, strict=True))
    grid = BlockGrid(source.shape, block_shape(config.block.shape, source.shape, patch))
    grey, histogram = sample_grey(source)
    denoising = plan_denoising(config.denoise, source, size, config.input, config.predict.batch)
    return Plan(
        config=config,
        source=source,
        members=tuple(
            Member(model, spec, spec.normalisation.statistics(histogram))
            for model, spec in zip(config.models, specs, strict=True)
        ),
        op=op,
        grey=grey,
        grid=grid,
        chunks=chunk_shape(grid.block),
        instances=instance_plan(config.instances, size, specs[0]),
        denoising=denoising,
        warnings=(
            *scale_warnings(op.scale, size, specs),
            *_threshold_warnings(config.instances, size, specs),
            *denoise_warnings(denoising, size),
        ),
    )


def _threshold_warnings(settings: InstanceSettings, size: FloatVec3, specs: Sequence[ModelSpec]) -> Iterator[str]:
    plans = [instance_plan(settings, size, spec) for spec in specs]
    others = [spec.name for spec, plan in zip(specs, plans, strict=True) if plan != plans[0]]
    if others:
        yield (
            f"the models recommend different thresholds: those of {specs[0].name}, the first, are used, not those of "
            f"{', '.join(others)}. Set instances.* to choose."
        )
