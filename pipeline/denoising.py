"""From the raw volume to the one that the network is shown: the steps, and how their fingerprints chain.

inspect (small statistics of all slices), compare (how damage shows against the whole volume), damage (the map of it),
restore. With a hand-made mask there is nothing to compare, and nothing to inspect unless slices are evened out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.coarse_mask import CoarseMask
from pipeline.denoise_plan import DenoisePlan
from pipeline.files import write_whole
from pipeline.formats import Kind
from pipeline.ops.damage import BITS
from pipeline.plan import Plan
from pipeline.restoration_summary import restoration_summary, totals
from pipeline.restored_sheet import write_restored_sheet
from pipeline.run import RunDirectory, create_arrays, mask_identity, source_fingerprint, stored_volume
from pipeline.stage import digest
from pipeline.stages.compare import CompareStage, StoredCells, write_limits
from pipeline.stages.damage import DamageStage
from pipeline.stages.inspect import InspectStage, cell_grid, cell_volume, write_slice_table
from pipeline.stages.relevel import Relevelling
from pipeline.stages.restore import RestoreStage
from pipeline.statistics import GreyScale, sample_grey
from pipeline.step import Step
from pipeline.tables import write_table
from pipeline.volume import Volume

LAYERS = ("restored", "damage")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the network is shown: the raw volume or a restored one.

    ``layers`` are what of a restored one can be exported, ``levels`` the table of its histogram, 256 counts.
    """

    volume: Volume
    fingerprint: str
    grey: GreyScale
    layers: Mapping[str, tuple[Kind, Volume, str]]
    levels: Path | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """Where damage is, None for everywhere; the table that evens out slices and the stage that found it, if any."""

    damage: CoarseMask | None
    fingerprint: str
    slices: Path | None
    stage: DamageStage | None = None


def denoise_steps(plan: Plan, directory: RunDirectory) -> tuple[list[Step], Seen]:
    """The steps before predict, none where denoising is off, and what predict reads."""
    source = source_fingerprint(plan.source)
    if plan.denoising is None:
        return [], Seen(plan.source, source, plan.grey, {})
    steps, found = _found(plan, plan.denoising, directory, source)
    restore, stage = _restore_step(plan, plan.denoising, directory, source, found)
    layers: dict[str, tuple[Kind, Volume, str]] = {
        "restored": ("image", stage.restored, stage.fingerprint),
        "damage": ("image", stage.replaced, stage.fingerprint),
    }
    levels = _levels_table(directory, stage)
    return [*steps, restore], Seen(stage.restored, stage.fingerprint, GreyScale(), layers, levels)


def denoising_facts(plan: Plan) -> dict[str, Any]:
    """What a run's record says of its denoising; nothing where it is off."""
    if plan.denoising is None:
        return {}
    grid = cell_grid(plan.source.shape, plan.denoising.cell)
    spec = plan.denoising.spec
    cells = {"cell": list(plan.denoising.cell), "extent": list(grid.extent), "block": list(grid.block)}
    return {"restorer": spec.name, "restorer_sha256": spec.sha256, "cells": cells}


def _found(plan: Plan, denoising: DenoisePlan, directory: RunDirectory, source: str) -> tuple[list[Step], _Found]:
    """The steps that find damage, or none of them with a mask or a restorer that takes everything."""
    settings = denoising.settings
    grid = cell_grid(plan.source.shape, denoising.cell)
    inspect = _inspect_stage(plan, denoising, directory, source)
    alike = directory.table("slices", inspect.fingerprint)
    slices = alike if settings.normalise_slices else None
    steps = [_inspect_step(inspect, alike)] if denoising.detects or settings.normalise_slices else []
    if denoising.everywhere:
        return steps, _Found(None, "everywhere", slices)
    if denoising.mask is not None:
        volume = denoising.mask.volume
        return steps, _Found(denoising.mask, digest({"url": str(volume), **mask_identity(volume)}), slices)
    # Slices are compared as if they were alike, whether they are to be made so or not: a jump is no damage.
    cells = StoredCells(inspect.mean, inspect.texture, alike)
    compare = CompareStage(cells, inspect.fingerprint, directory.block_tables("compare"), grid, settings.max_gap)
    limits = directory.table("limits", digest({"compare": compare.fingerprint, "sensitivity": settings.sensitivity}))
    damage = DamageStage(
        cells=cells,
        limits=limits,
        upstream=compare.fingerprint,
        damage=cell_volume(directory.array("damage"), plan.source, denoising.cell),
        kinds=directory.block_tables("damage"),
        grid=grid,
        max_gap=settings.max_gap,
        sensitivity=settings.sensitivity,
    )
    write = partial(write_limits, compare.histograms, grid, settings.sensitivity, limits)
    steps += [
        Step("compare", (compare,), tables=(limits,), finish=write),
        Step("damage", (damage,), arrays=(damage.damage,), prepare=partial(create_arrays, (damage.damage,), grid)),
    ]
    mask = CoarseMask(damage.damage, plan.source.shape, denoising.cell)
    return steps, _Found(mask, damage.fingerprint, slices, damage)


def _inspect_stage(plan: Plan, denoising: DenoisePlan, directory: RunDirectory, source: str) -> InspectStage:
    mean, texture = (cell_volume(directory.array(name), plan.source, denoising.cell) for name in ("mean", "texture"))
    return InspectStage(
        source=plan.source,
        source_fingerprint=source,
        grey=plan.grey,
        cell=denoising.cell,
        mean=mean,
        texture=texture,
        levels=directory.block_tables("inspect"),
        grid=cell_grid(plan.source.shape, denoising.cell),
    )


def _inspect_step(stage: InspectStage, slices: Path) -> Step:
    arrays = (stage.mean, stage.texture)
    prepare = partial(create_arrays, arrays, stage.grid)
    write = partial(write_slice_table, stage.levels, stage.grid, slices)
    return Step("inspect", (stage,), arrays=arrays, tables=(slices,), prepare=prepare, finish=write)


def _restore_step(
    plan: Plan, denoising: DenoisePlan, directory: RunDirectory, source: str, found: _Found
) -> tuple[Step, RestoreStage]:
    restored, replaced = (
        stored_volume(directory.array(name), plan.grid, "uint8", plan.source, plan.chunks)
        for name in ("restored", "replaced")
    )
    stage = RestoreStage(
        source=plan.source,
        source_fingerprint=source,
        grey=plan.grey,
        damage=found.damage,
        damage_fingerprint=found.fingerprint,
        slices=found.slices,
        restored=restored,
        replaced=replaced,
        tables=directory.block_tables("restore"),
        grid=plan.grid,
        op=denoising.op,
        model=denoising.settings.model,
        spec=denoising.spec,
        device=plan.config.predict.device,
        kinds=denoising.kinds if denoising.detects else None,
        relevelling=_relevelling(denoising, found),
    )
    arrays = (restored, replaced)
    prepare, finish = partial(create_arrays, arrays, plan.grid), partial(_summarise, directory, stage, found.stage)
    tables = (directory.restoration, _levels_table(directory, stage))
    return Step("restore", (stage,), arrays=arrays, tables=tables, prepare=prepare, finish=finish), stage


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


def cells_of(stage: DamageStage) -> dict[str, int]:
    """Damaged cells of each kind that a finished detection found, by name; a cell may have several."""
    total = sum(stage.kinds.read(number)["kinds"] for number in range(len(stage.grid)))
    return {name: int(count) for name, count in zip(BITS, np.asarray(total), strict=True)}


def restoration_of(directory: RunDirectory) -> dict[str, Any]:
    """What a run's restoration replaced; empty where it has none or has not finished it."""
    try:
        found = json.loads(directory.restoration.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
