"""Where damage is: the steps inspect, compare and damage, or the mask that stands for them.

inspect (small statistics of all slices), compare (how damage shows against the whole volume), damage (the map of it).
With a hand-made mask there is nothing to compare, and nothing to inspect unless slices are evened out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.denoise.cell_arrays import cell_grid, cell_volume, write_slice_table
from pipeline.denoise.plan import DenoisePlan
from pipeline.denoise.stages.compare import CompareStage, StoredCells, write_limits
from pipeline.denoise.stages.damage import DamageStage
from pipeline.denoise.stages.inspect import InspectStage
from pipeline.engine.arrays import create_arrays
from pipeline.engine.step import Step
from pipeline.image.frame import Frame
from pipeline.image.mask import CoarseMask
from pipeline.store.identity import digest, mask_identity


@dataclass(frozen=True, slots=True)
class Found:
    """Where damage is, None for everywhere; the table that evens out slices and the stage that found it, if any."""

    damage: CoarseMask | None
    fingerprint: str
    slices: Path | None
    stage: DamageStage | None = None


def found_damage(frame: Frame, denoising: DenoisePlan, source: str) -> tuple[list[Step], Found]:
    """The steps that find damage, or none of them with a mask or a restorer that takes everything."""
    settings = denoising.settings
    grid = cell_grid(frame.source.shape, denoising.cell)
    inspect = _inspect_stage(frame, denoising, source)
    alike = frame.directory.table("slices", inspect.fingerprint)
    slices = alike if settings.normalise_slices else None
    steps = [_inspect_step(inspect, alike)] if denoising.detects or settings.normalise_slices else []
    if denoising.everywhere:
        return steps, Found(None, "everywhere", slices)
    if denoising.mask is not None:
        volume = denoising.mask.volume
        return steps, Found(denoising.mask, digest({"url": str(volume), **mask_identity(volume)}), slices)
    # Slices are compared as if they were alike, whether they are to be made so or not: a jump is no damage.
    cells = StoredCells(inspect.mean, inspect.texture, alike)
    compare = CompareStage(
        cells=cells,
        histograms=frame.directory.block_tables("compare"),
        upstream=inspect.fingerprint,
        grid=grid,
        max_gap=settings.max_gap,
    )
    limits = _limits(frame, compare, settings.sensitivity)
    damage = DamageStage(
        cells=cells,
        limits=limits,
        upstream=compare.fingerprint,
        damage=cell_volume(frame.directory.array("damage"), frame.source, denoising.cell),
        kinds=frame.directory.block_tables("damage"),
        grid=grid,
        max_gap=settings.max_gap,
        sensitivity=settings.sensitivity,
    )
    write = partial(write_limits, compare.histograms, grid, settings.sensitivity, limits)
    prepare = partial(create_arrays, (damage.damage,), grid, damage.name)
    steps += [
        Step("compare", (compare,), tables=(limits,), finish=write),
        Step("damage", (damage,), arrays=(damage.damage,), prepare=prepare),
    ]
    mask = CoarseMask(damage.damage, frame.source.shape, denoising.cell)
    return steps, Found(mask, damage.fingerprint, slices, damage)


def _limits(frame: Frame, compare: CompareStage, sensitivity: float) -> Path:
    return frame.directory.table("limits", digest({"compare": compare.fingerprint, "sensitivity": sensitivity}))


def _inspect_stage(frame: Frame, denoising: DenoisePlan, source: str) -> InspectStage:
    mean, texture = (
        cell_volume(frame.directory.array(name), frame.source, denoising.cell) for name in ("mean", "texture")
    )
    return InspectStage(
        source=frame.source,
        upstream=source,
        grey=frame.grey,
        cell=denoising.cell,
        mean=mean,
        texture=texture,
        levels=frame.directory.block_tables("inspect"),
        grid=cell_grid(frame.source.shape, denoising.cell),
    )


def _inspect_step(stage: InspectStage, slices: Path) -> Step:
    arrays = (stage.mean, stage.texture)
    prepare = partial(create_arrays, arrays, stage.grid, stage.name)
    write = partial(write_slice_table, stage.levels, stage.grid, slices)
    return Step("inspect", (stage,), arrays=arrays, tables=(slices,), prepare=prepare, finish=write)
