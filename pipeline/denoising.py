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

from pipeline.coarse_mask import CoarseMask
from pipeline.denoise_plan import DenoisePlan
from pipeline.files import write_whole
from pipeline.formats import Kind
from pipeline.plan import Plan
from pipeline.restoration_summary import restoration_summary
from pipeline.restored_sheet import write_restored_sheet
from pipeline.run import RunDirectory, create_arrays, source_fingerprint, stored_volume
from pipeline.stages.restore import RestoreStage
from pipeline.statistics import GreyScale
from pipeline.step import Step
from pipeline.volume import Volume

LAYERS = ("restored", "damage")


@dataclass(frozen=True, slots=True)
class Seen:
    """What the network is shown: the raw volume or a restored one; ``layers`` are what of it can be exported."""

    volume: Volume
    fingerprint: str
    grey: GreyScale
    layers: Mapping[str, tuple[Kind, Volume, str]]


@dataclass(frozen=True, slots=True)
class _Found:
    """Where damage is, None for everywhere, and the table that evens out slices, None for none."""

    damage: CoarseMask | None
    fingerprint: str
    slices: Path | None


def denoise_steps(plan: Plan, directory: RunDirectory) -> tuple[list[Step], Seen]:
    """The steps before predict, none where denoising is off, and what predict reads."""
    source = source_fingerprint(plan.source)
    if plan.denoising is None:
        return [], Seen(plan.source, source, plan.grey, {})
    steps, found = _found(plan, plan.denoising, directory, source)
    restore, stage = _restore_step(plan, plan.denoising, directory, found)
    layers: dict[str, tuple[Kind, Volume, str]] = {
        "restored": ("image", stage.restored, stage.fingerprint),
        "damage": ("image", stage.replaced, stage.fingerprint),
    }
    return [*steps, restore], Seen(stage.restored, stage.fingerprint, GreyScale(), layers)


def denoising_facts(plan: DenoisePlan | None) -> dict[str, Any]:
    """What a run's record says of its denoising; nothing where it is off."""
    if plan is None:
        return {}
    return {"restorer": plan.spec.name, "restorer_sha256": plan.spec.sha256}


def _found(plan: Plan, denoising: DenoisePlan, directory: RunDirectory, source: str) -> tuple[list[Step], _Found]:
    mask = denoising.mask
    return [], _Found(mask, "everywhere" if mask is None else source_fingerprint(mask.volume), None)


def _restore_step(
    plan: Plan, denoising: DenoisePlan, directory: RunDirectory, found: _Found
) -> tuple[Step, RestoreStage]:
    restored, replaced = (
        stored_volume(directory.array(name), plan.grid, "uint8", plan.source, plan.chunks)
        for name in ("restored", "replaced")
    )
    stage = RestoreStage(
        source=plan.source,
        source_fingerprint=source_fingerprint(plan.source),
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
    )
    arrays = (restored, replaced)
    prepare, finish = partial(create_arrays, arrays, plan.grid), partial(_summarise, directory, stage)
    return Step("restore", (stage,), arrays=arrays, prepare=prepare, finish=finish), stage


def _summarise(directory: RunDirectory, stage: RestoreStage) -> None:
    """Write what was replaced: numbers for the report, and pictures; once for these very blocks."""
    if restoration_of(directory).get("fingerprint") == stage.fingerprint:
        return
    write_restored_sheet(stage, directory.restored_sheet)
    summary = {"fingerprint": stage.fingerprint, **restoration_summary(stage)}
    write_whole(directory.restoration, json.dumps(summary, indent=2).encode())


def restoration_of(directory: RunDirectory) -> dict[str, Any]:
    """What a run's restoration replaced; empty where it has none or has not finished it."""
    try:
        found = json.loads(directory.restoration.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
