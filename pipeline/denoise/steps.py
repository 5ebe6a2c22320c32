"""From the raw volume to the one that the network is shown: the steps, and how their fingerprints chain.

inspect (small statistics of all slices), compare (how damage shows against the whole volume), damage (the map of it),
restore. With a hand-made mask there is nothing to compare, and nothing to inspect unless slices are evened out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.denoise.cell_arrays import cell_grid, cell_volume, write_slice_table
from pipeline.denoise.check import restored_problems
from pipeline.denoise.plan import DenoisePlan, denoise_warnings
from pipeline.denoise.relevelling import Relevelling
from pipeline.denoise.sheet import write_restored_sheet
from pipeline.denoise.stages.compare import CompareStage, StoredCells, write_limits
from pipeline.denoise.stages.damage import DamageStage
from pipeline.denoise.stages.inspect import InspectStage
from pipeline.denoise.stages.restore import RestoreStage
from pipeline.denoise.summary import cells_of, restoration_of, restoration_summary, totals
from pipeline.engine.arrays import create_arrays, stored_volume
from pipeline.engine.directory import RunDirectory
from pipeline.engine.part import Exportable, Part
from pipeline.engine.step import Step
from pipeline.geometry import Vec3
from pipeline.image.frame import Frame
from pipeline.image.grey import GreyScale, sample_grey
from pipeline.image.mask import CoarseMask
from pipeline.image.seen import Seen
from pipeline.store.files import write_whole
from pipeline.store.identity import digest, mask_identity, source_fingerprint
from pipeline.store.tables import write_table


@dataclass(frozen=True, slots=True)
class _Found:
    """Where damage is, None for everywhere; the table that evens out slices and the stage that found it, if any."""

    damage: CoarseMask | None
    fingerprint: str
    slices: Path | None
    stage: DamageStage | None = None


def denoise_part(frame: Frame, denoising: DenoisePlan | None, device: str) -> tuple[Part, Seen]:
    """The steps before predict, none where denoising is off, and what predict reads."""
    source = source_fingerprint(frame.source)
    if denoising is None:
        return Part(), Seen(frame.source, source, frame.grey)
    steps, found = _found(frame, denoising, source)
    restore, stage = _restore_step(frame, denoising, source, found, device)
    mask = {} if denoising.mask is None else {"damage": mask_identity(denoising.mask.volume)}
    part = Part(
        steps=(*steps, restore),
        layers={
            "restored": Exportable("image", stage.restored, stage.fingerprint),
            "damage": Exportable("image", stage.replaced, stage.fingerprint),
        },
        facts=_facts(denoising, frame.source.shape),
        identities={"restorer_sha256": denoising.spec.sha256, **mask},
        warnings=tuple(denoise_warnings(denoising, frame.voxel_size_nm)),
    )
    return part, Seen(stage.restored, stage.fingerprint, GreyScale(), _levels_table(frame.directory, stage))


def _facts(denoising: DenoisePlan, extent: Vec3) -> dict[str, Any]:
    """What a run's record says of its denoising."""
    grid = cell_grid(extent, denoising.cell)
    cells = {"cell": list(denoising.cell), "extent": list(grid.extent), "block": list(grid.block)}
    return {"restorer": denoising.spec.name, "restorer_sha256": denoising.spec.sha256, "cells": cells}


def _found(frame: Frame, denoising: DenoisePlan, source: str) -> tuple[list[Step], _Found]:
    """The steps that find damage, or none of them with a mask or a restorer that takes everything."""
    settings = denoising.settings
    grid = cell_grid(frame.source.shape, denoising.cell)
    inspect = _inspect_stage(frame, denoising, source)
    alike = frame.directory.table("slices", inspect.fingerprint)
    slices = alike if settings.normalise_slices else None
    steps = [_inspect_step(inspect, alike)] if denoising.detects or settings.normalise_slices else []
    if denoising.everywhere:
        return steps, _Found(None, "everywhere", slices)
    if denoising.mask is not None:
        volume = denoising.mask.volume
        return steps, _Found(denoising.mask, digest({"url": str(volume), **mask_identity(volume)}), slices)
    # Slices are compared as if they were alike, whether they are to be made so or not: a jump is no damage.
    cells = StoredCells(inspect.mean, inspect.texture, alike)
    compare = CompareStage(cells, inspect.fingerprint, frame.directory.block_tables("compare"), grid, settings.max_gap)
    limits = frame.directory.table(
        "limits", digest({"compare": compare.fingerprint, "sensitivity": settings.sensitivity})
    )
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
    steps += [
        Step("compare", (compare,), tables=(limits,), finish=write),
        Step("damage", (damage,), arrays=(damage.damage,), prepare=partial(create_arrays, (damage.damage,), grid)),
    ]
    mask = CoarseMask(damage.damage, frame.source.shape, denoising.cell)
    return steps, _Found(mask, damage.fingerprint, slices, damage)


def _inspect_stage(frame: Frame, denoising: DenoisePlan, source: str) -> InspectStage:
    mean, texture = (
        cell_volume(frame.directory.array(name), frame.source, denoising.cell) for name in ("mean", "texture")
    )
    return InspectStage(
        source=frame.source,
        source_fingerprint=source,
        grey=frame.grey,
        cell=denoising.cell,
        mean=mean,
        texture=texture,
        levels=frame.directory.block_tables("inspect"),
        grid=cell_grid(frame.source.shape, denoising.cell),
    )


def _inspect_step(stage: InspectStage, slices: Path) -> Step:
    arrays = (stage.mean, stage.texture)
    prepare = partial(create_arrays, arrays, stage.grid)
    write = partial(write_slice_table, stage.levels, stage.grid, slices)
    return Step("inspect", (stage,), arrays=arrays, tables=(slices,), prepare=prepare, finish=write)


def _restore_step(
    frame: Frame, denoising: DenoisePlan, source: str, found: _Found, device: str
) -> tuple[Step, RestoreStage]:
    restored, replaced = (
        stored_volume(frame.directory.array(name), frame.grid, "uint8", frame.source, frame.chunks)
        for name in ("restored", "replaced")
    )
    stage = RestoreStage(
        source=frame.source,
        source_fingerprint=source,
        grey=frame.grey,
        damage=found.damage,
        damage_fingerprint=found.fingerprint,
        slices=found.slices,
        restored=restored,
        replaced=replaced,
        tables=frame.directory.block_tables("restore"),
        grid=frame.grid,
        op=denoising.op,
        model=denoising.settings.model,
        spec=denoising.spec,
        device=device,
        kinds=denoising.kinds if denoising.detects else None,
        relevelling=_relevelling(denoising, found),
    )
    arrays = (restored, replaced)
    prepare, finish = (
        partial(create_arrays, arrays, frame.grid),
        partial(_summarise, frame.directory, stage, found.stage),
    )
    tables = (frame.directory.restoration, _levels_table(frame.directory, stage))
    check = partial(restored_problems, frame.directory, stage)
    step = Step("restore", (stage,), arrays=arrays, tables=tables, prepare=prepare, finish=finish, check=check)
    return step, stage


def _relevelling(denoising: DenoisePlan, found: _Found) -> Relevelling | None:
    """The levels of detected damage, made those of its neighbours as they are shown to the network."""
    if found.stage is None or not denoising.relevelled:
        return None
    return Relevelling(
        mean=found.stage.cells.mean,
        damage=found.stage.damage,
        slices=found.slices,
        side=denoising.cell[1],
        kinds=denoising.relevelled,
        not_of=denoising.kinds,
        max_gap=denoising.settings.max_gap,
    )


def _summarise(directory: RunDirectory, stage: RestoreStage, damage: DamageStage | None) -> None:
    """Write the histogram of what the network is shown, and what was replaced, in numbers and pictures; once."""
    levels = _levels_table(directory, stage)
    if not levels.exists():
        write_table(levels, sample_grey(stage.restored)[1])
    known = restoration_of(directory)
    drawn = directory.restored_sheet.exists() or not known.get("replaced_voxels")
    if known.get("fingerprint") == stage.fingerprint and drawn:
        return
    sums = totals(stage)
    write_restored_sheet(stage, directory.restored_sheet, sums)
    cells = {} if damage is None else cells_of(damage)
    summary = {"fingerprint": stage.fingerprint, **restoration_summary(stage, sums, cells)}
    write_whole(directory.restoration, json.dumps(summary, indent=2).encode())


def _levels_table(directory: RunDirectory, stage: RestoreStage) -> Path:
    return directory.table("levels", stage.fingerprint)
