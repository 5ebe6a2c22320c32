"""The steps of a run, in order: which arrays each reads and writes, and how their fingerprints chain."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from pipeline.engine.arrays import create_arrays, is_whole_json, stored_volume
from pipeline.engine.directory import RunDirectory
from pipeline.engine.stage import Stage
from pipeline.engine.step import Step
from pipeline.export.levels import ExportLevel, Layer, create_layers, export_levels
from pipeline.export.stage import ExportStage
from pipeline.geometry import Vec3
from pipeline.image.seen import Seen
from pipeline.instances.steps import Maps
from pipeline.predict.stage import PredictStage
from pipeline.run.plan import Plan
from pipeline.store.formats import Kind
from pipeline.store.volume import Volume


def predict_step(plan: Plan, directory: RunDirectory, seen: Seen) -> tuple[Step, Maps]:
    """The network over what it is shown; its two maps."""
    semantic, boundary = (
        stored_volume(directory.array(name), plan.grid, "uint8", plan.source, plan.chunks)
        for name in ("semantic", "boundary")
    )
    first, *others = plan.members
    stage = PredictStage(
        source=seen.volume,
        source_fingerprint=seen.fingerprint,
        semantic=semantic,
        boundary=boundary,
        grid=plan.grid,
        op=plan.op,
        model=first.model,
        spec=first.spec,
        grey=seen.grey,
        statistics=first.statistics,
        device=plan.config.predict.device,
        others=tuple(others),
        levels=seen.levels,
    )
    maps = (semantic, boundary)
    step = Step("predict", (stage,), arrays=maps, prepare=partial(create_arrays, maps, plan.grid))
    return step, Maps(semantic, boundary, stage.fingerprint)


def export_step(directory: RunDirectory, layers: dict[str, tuple[Kind, Volume, str]], chunk: Vec3) -> Step:
    """Every layer at every mip, fine to coarse."""
    wanted = [Layer(name, kind, source) for name, (kind, source, _) in layers.items()]
    levels = export_levels(str(directory.precomputed), wanted, chunk)
    stages = tuple(ExportStage(level, layers[level.layer][2]) for level in levels)
    return Step("export", stages, prepare=partial(_create_layers, levels))


def _create_layers(levels: Sequence[ExportLevel]) -> None:
    missing = [level for level in levels if level.mip == 0 and not is_whole_json(Path(level.target.url) / "info")]
    names = {level.layer for level in missing}
    create_layers([level for level in levels if level.layer in names])


def stages_of(steps: Sequence[Step]) -> list[Stage]:
    """All block stages that are known by now, in order."""
    return [stage for step in steps for stage in step.all_stages()]
