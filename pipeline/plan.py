"""A configuration held against the real stores: everything chosen, everything checked, nothing written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from pipeline.config import InstanceSettings, RunConfig
from pipeline.denoise_plan import DenoisePlan, denoise_warnings, plan_denoising
from pipeline.ensemble import Member, common_multiple, common_scale, load_members, scale_warnings
from pipeline.errors import BadInput, raise_all
from pipeline.geometry import FloatVec3, Vec3, vec3
from pipeline.grid import BlockGrid
from pipeline.model.spec import ModelSpec
from pipeline.ops.predict import PredictOp
from pipeline.ops.resample import coarse_extent
from pipeline.ops.settings import InstancePlan
from pipeline.ops.tta import variants
from pipeline.presets import instance_plan
from pipeline.statistics import GreyScale, require_grey, sample_grey
from pipeline.volume import Volume, open_volume

# Growth, the hungriest stage, holds about 40 bytes a voxel of a block: 1.3 GB for each thread of a worker.
DEFAULT_BLOCK_VOXELS = 2**25
DEFAULT_PATCH = (32, 128, 128)
LARGEST_BLOCK_VOXELS = 2**31  # at most half are fragments, a checkerboard: a quarter of what uint32 labels count
CHUNK_LIMIT = 128
HALVED_FOUR_TIMES = (1, 16, 16)


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
    op = _predict_op(config, source, specs, size)
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


def required_voxel_size(volume: Volume, address: str) -> FloatVec3:
    """The voxel size of a volume, or a BadInput that says how to give it."""
    if volume.voxel_size_nm is None:
        raise BadInput(
            address,
            "the voxel size must be known",
            "this file does not state one, and the model and every measurement need it",
            "Give it in nanometres, z y x: --voxel-size-nm 30,8,8.",
        )
    return volume.voxel_size_nm


def chunk_shape(block: Vec3) -> Vec3:
    """Chunks that divide the blocks: per axis the largest divisor of at most 128, or the whole block."""
    return vec3(_chunk_length(length) for length in block)


def default_block(extent: Vec3, patch: Vec3 = DEFAULT_PATCH) -> Vec3:
    """The fewest blocks of at most 2^25 voxels: the axis with the most patches is halved again and again.

    Every block face costs patches that both neighbours compute, so blocks are as large as memory allows, and as many
    patches long on each axis. Sides of more than one block are multiples of 64.

    Args:
        extent: voxels z y x.
        patch: the network's patch in the volume's voxels, z y x.
    """
    parts = [1, 1, 1]
    while prod(map(min, block := _sides(extent, parts), extent)) > DEFAULT_BLOCK_VOXELS:
        longest = max(range(3), key=lambda axis: block[axis] / patch[axis])
        parts[longest] += 1
    return block


def _sides(extent: Vec3, parts: list[int]) -> Vec3:
    steps = [16 if n == 1 else 64 for n in parts]
    return vec3(-(-e // (n * s)) * s for e, n, s in zip(extent, parts, steps, strict=True))


def _predict_op(config: RunConfig, source: Volume, specs: Sequence[ModelSpec], size: FloatVec3) -> PredictOp:
    given = config.predict
    scale = given.scale or common_scale(config.models, specs, size)
    extent = coarse_extent(source.shape, scale)
    multiple = common_multiple(specs, any(variant.transposed for variant in variants(given.tta)))
    _require_room(extent, multiple, config.input)
    patch = given.patch or _default_patch(specs[0].patch, extent, multiple)
    overlap = given.overlap
    if overlap is None:
        overlap = vec3(min(o, p // 2) for o, p in zip(specs[0].overlap, patch, strict=True))
    # One patch spans the axis: there is nothing to overlap with, and a smaller stride would only compute it twice.
    overlap = vec3(o if p < e else 0 for o, p, e in zip(overlap, patch, extent, strict=True))
    raise_all(_patch_problems(patch, overlap, extent, multiple))
    return PredictOp(source.shape, scale, patch, overlap, given.weights, given.batch, given.tta)


def _require_room(extent: Vec3, multiple: Vec3, address: str) -> None:
    if any(e < m for e, m in zip(extent, multiple, strict=True)):
        least = "16 voxels in y and x" if multiple == HALVED_FOUR_TIMES else f"{list(multiple)} voxels"
        raise BadInput(
            f"{address} of {extent[0]}x{extent[1]}x{extent[2]} voxels at the model's resolution",
            f"a volume must be at least one patch, and a patch at least {least}",
            _why(multiple),
            "Give a larger volume, or predict at its own resolution: --set predict.scale=[1,1,1].",
        )


def _default_patch(patch: Vec3, extent: Vec3, multiple: Vec3) -> Vec3:
    return vec3(min(p, e // m * m) for p, e, m in zip(patch, extent, multiple, strict=True))


def _patch_problems(patch: Vec3, overlap: Vec3, extent: Vec3, multiple: Vec3) -> list[BadInput]:
    problems = []
    legal = vec3(_legal_side(*sides) for sides in zip(patch, extent, multiple, strict=True))
    if legal != patch:
        rule = (
            "y and x multiples of 16" if multiple == HALVED_FOUR_TIMES else f"its sides multiples of {list(multiple)}"
        )
        problems.append(
            BadInput(
                f"predict.patch={list(patch)}",
                f"a patch must fit into the volume {list(extent)} (at the model's resolution), {rule}",
                _why(multiple),
                f"The nearest legal patch is {list(legal)}.",
            )
        )
    if any(o >= p for o, p in zip(overlap, patch, strict=True)):
        nearest = [min(o, p - 1) for o, p in zip(overlap, patch, strict=True)]
        problems.append(
            BadInput(
                f"predict.overlap={list(overlap)}",
                f"patches of {list(patch)} must overlap by less than their size",
                "they would never advance",
                f"The largest legal overlap is {nearest}.",
            )
        )
    return problems


def _legal_side(side: int, extent: int, multiple: int) -> int:
    return min(max(multiple, round(side / multiple) * multiple), extent // multiple * multiple)


def _why(multiple: Vec3) -> str:
    if multiple == HALVED_FOUR_TIMES:
        return "the network halves y and x four times"
    return "every network takes such patches only, also with y and x swapped where tta does that"


def block_shape(given: Vec3 | None, extent: Vec3, patch: Vec3 = DEFAULT_PATCH) -> Vec3:
    """The block the user gave, or the default for this extent; refused when its labels would not fit."""
    block = given or default_block(extent, patch)
    if prod(block) > LARGEST_BLOCK_VOXELS:
        raise BadInput(
            f"block.shape={list(block)}",
            f"a block holds at most 2^31 voxels, this one {prod(block):,}",
            "the fragments of a block are counted in 32 bits",
            f"For example {list(default_block(extent, patch))}.",
        )
    return block


def _chunk_length(length: int) -> int:
    if length <= CHUNK_LIMIT:
        return length
    divisors = [n for n in range(CHUNK_LIMIT, 0, -1) if length % n == 0]
    # A prime of more than 128 has no useful divisor: the whole block becomes the chunk.
    return divisors[0] if divisors[0] >= 16 else length


def _threshold_warnings(settings: InstanceSettings, size: FloatVec3, specs: Sequence[ModelSpec]) -> Iterator[str]:
    plans = [instance_plan(settings, size, spec) for spec in specs]
    others = [spec.name for spec, plan in zip(specs, plans, strict=True) if plan != plans[0]]
    if others:
        yield (
            f"the models recommend different thresholds: those of {specs[0].name}, the first, are used, not those of "
            f"{', '.join(others)}. Set instances.* to choose."
        )
