"""From the raw volume to the one that the network is shown: the steps, and how their fingerprints chain."""

from __future__ import annotations

from functools import partial
from typing import Any

from pipeline.denoise.cell_arrays import cell_grid
from pipeline.denoise.check import restored_problems
from pipeline.denoise.finding import Found, found_damage
from pipeline.denoise.outcome import levels_table, summarise
from pipeline.denoise.plan import DenoisePlan, denoise_warnings
from pipeline.denoise.relevelling import Relevelling
from pipeline.denoise.stages.restore import RestoreStage
from pipeline.engine.arrays import create_arrays, stored_volume
from pipeline.engine.part import Exportable, Part
from pipeline.engine.step import Step
from pipeline.geometry import Vec3
from pipeline.image.frame import Frame
from pipeline.image.grey import GreyScale
from pipeline.image.seen import Seen
from pipeline.store.identity import mask_identity, source_fingerprint


def denoise_part(frame: Frame, denoising: DenoisePlan | None, device: str) -> tuple[Part, Seen]:
    """The steps before predict, none where denoising is off, and what predict reads."""
    source = source_fingerprint(frame.source)
    if denoising is None:
        return Part(), Seen(frame.source, source, frame.grey)
    steps, found = found_damage(frame, denoising, source)
    restore, stage = _restore_step(frame, denoising, source, found, device)
    mask = {} if denoising.mask is None else {"damage": mask_identity(denoising.mask.volume)}
    part = Part(
        steps=(*steps, restore),
        layers={
            "restored": Exportable("image", stage.restored, stage.fingerprint),
            "replaced": Exportable("image", stage.replaced, stage.fingerprint),
        },
        facts=_facts(denoising, frame.source.shape),
        identities={"restorer_sha256": denoising.spec.sha256, **mask},
        warnings=tuple(denoise_warnings(denoising, frame.voxel_size_nm)),
    )
    return part, Seen(stage.restored, stage.fingerprint, GreyScale(), levels_table(frame.directory, stage))


def _facts(denoising: DenoisePlan, extent: Vec3) -> dict[str, Any]:
    """What a run's record says of its denoising."""
    grid = cell_grid(extent, denoising.cell)
    cells = {"cell": list(denoising.cell), "extent": list(grid.extent), "block": list(grid.block)}
    return {"restorer": denoising.spec.name, "restorer_sha256": denoising.spec.sha256, "cells": cells}


def _restore_step(
    frame: Frame, denoising: DenoisePlan, source: str, found: Found, device: str
) -> tuple[Step, RestoreStage]:
    restored, replaced = (
        stored_volume(frame.directory.array(name), frame.grid, "uint8", frame.source, frame.chunks)
        for name in ("restored", "replaced")
    )
    stage = RestoreStage(
        source=frame.source,
        upstream=source,
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
        partial(create_arrays, arrays, frame.grid, stage.name),
        partial(summarise, frame.directory, stage, found.stage),
    )
    tables = (frame.directory.restoration, levels_table(frame.directory, stage))
    check = partial(restored_problems, frame.directory, stage)
    step = Step("restore", (stage,), arrays=arrays, tables=tables, prepare=prepare, finish=finish, check=check)
    return step, stage


def _relevelling(denoising: DenoisePlan, found: Found) -> Relevelling | None:
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
