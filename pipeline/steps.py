"""The steps of a run, in order: which arrays each reads and writes, and how their fingerprints chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from pipeline.export import ExportLevel, Layer, create_layers, export_levels
from pipeline.formats import Kind
from pipeline.geometry import Vec3
from pipeline.grid import BlockGrid
from pipeline.ops.fragments import Rows
from pipeline.ops.grow import halo
from pipeline.ops.instances import instance_table
from pipeline.plan import InstancePlan, Plan
from pipeline.run import (
    RunDirectory,
    Step,
    counts_of,
    create_if_missing,
    is_whole_json,
    source_fingerprint,
    stored_volume,
)
from pipeline.stage import Stage, digest
from pipeline.stages.export import ExportStage
from pipeline.stages.grow import GrowStage
from pipeline.stages.label import LabelStage
from pipeline.stages.merge import final_rows, write_merge, write_offsets, write_regroup
from pipeline.stages.predict import PredictStage
from pipeline.stages.relabel import RelabelStage
from pipeline.stages.stitch import StitchStage
from pipeline.tables import write_whole
from pipeline.volume import Volume


@dataclass(frozen=True, slots=True)
class Maps:
    """The two probability maps that instances are made from, and what they depend on."""

    semantic: Volume
    boundary: Volume
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Labelling:
    """Where and how instances are made: the part of a plan that needs no network."""

    directory: RunDirectory
    grid: BlockGrid
    chunks: Vec3
    settings: InstancePlan


def predict_step(plan: Plan, directory: RunDirectory) -> tuple[Step, Maps]:
    """The network; its two maps."""
    semantic, boundary = (
        stored_volume(directory.array(name), plan.grid, "uint8", plan.source, plan.chunks)
        for name in ("semantic", "boundary")
    )
    first, *others = plan.members
    stage = PredictStage(
        source=plan.source,
        source_fingerprint=source_fingerprint(plan.source),
        semantic=semantic,
        boundary=boundary,
        grid=plan.grid,
        op=plan.op,
        model=first.model,
        spec=first.spec,
        grey=plan.grey,
        statistics=first.statistics,
        device=plan.config.predict.device,
        others=tuple(others),
    )
    step = Step("predict", (stage,), prepare=partial(_create, (semantic, boundary), plan.grid))
    return step, Maps(semantic, boundary, stage.fingerprint)


def instance_steps(labelling: Labelling, maps: Maps) -> tuple[list[Step], Volume, str]:
    """label, stitch and merge, grow (where chosen), relabel; with the segmentation and its fingerprint."""
    directory, grid, settings = labelling.directory, labelling.grid, labelling.settings
    label = _label_stage(labelling, maps)
    offsets = directory.table("offsets", label.fingerprint)
    stitch = StitchStage(
        rims=label.rims,
        offsets=offsets,
        pairs=directory.block_tables("stitch-pairs"),
        upstream=label.fingerprint,
        grid=grid,
        connectivity=label.connectivity,
    )
    grows = settings.grow != "none"
    minimum = settings.minimum_seed_voxels if grows else settings.minimum_voxels
    merged = digest({"stitch": stitch.fingerprint, "minimum": minimum})
    table = directory.table("merge", merged)
    steps = [
        Step(
            "label",
            (label,),
            prepare=partial(_create, (label.labels,), grid),
            finish=lambda: write_offsets(offsets, counts_of(directory, label)),
        ),
        Step(
            "stitch",
            (stitch,),
            finish=lambda: write_merge(
                table, label.rows, stitch.pairs, counts_of(directory, label), counts_of(directory, stitch), minimum
            ),
        ),
    ]
    if not grows:
        relabel, segmentation = _relabel_step(labelling, label, offsets, table, merged)
        return [*steps, relabel], segmentation, relabel.stages[0].fingerprint
    grow, final_offsets, final_table, final = _grow_step(labelling, maps, label, (offsets, table, merged))
    relabel, segmentation = _relabel_step(labelling, grow, final_offsets, final_table, final)
    growing = Step(
        "grow",
        (grow,),
        prepare=partial(_create, (grow.grown,), grid),
        finish=lambda: _finish_growing(directory, grow, final_offsets, final_table, settings.minimum_voxels),
    )
    return [*steps, growing, relabel], segmentation, relabel.stages[0].fingerprint


def export_step(directory: RunDirectory, layers: dict[str, tuple[Kind, Volume, str]], chunk: Vec3) -> Step:
    """Every layer at every mip, fine to coarse."""
    wanted = [Layer(name, kind, source) for name, (kind, source, _) in layers.items()]
    levels = export_levels(str(directory.precomputed), wanted, chunk)
    stages = tuple(ExportStage(level, layers[level.layer][2]) for level in levels)
    return Step("export", stages, prepare=partial(_create_layers, levels))


def _label_stage(labelling: Labelling, maps: Maps) -> LabelStage:
    directory, grid, settings = labelling.directory, labelling.grid, labelling.settings
    return LabelStage(
        semantic=maps.semantic,
        boundary=maps.boundary,
        upstream=maps.fingerprint,
        labels=stored_volume(directory.array("labels"), grid, "uint32", maps.semantic, labelling.chunks),
        rows=directory.block_tables("label-rows"),
        rims=directory.block_tables("label-rims"),
        grid=grid,
        extent=grid.extent,
        semantic_above=settings.seed_above,
        boundary_below=settings.boundary_below,
        connectivity=settings.connectivity,
    )


def _grow_step(
    labelling: Labelling, maps: Maps, label: LabelStage, seeds: tuple[Path, Path, str]
) -> tuple[GrowStage, Path, Path, str]:
    directory, grid, settings = labelling.directory, labelling.grid, labelling.settings
    offsets, table, fingerprint = seeds
    stage = GrowStage(
        labels=label.labels,
        semantic=maps.semantic,
        offsets=offsets,
        table=table,
        upstream=fingerprint,
        grown=stored_volume(directory.array("grown"), grid, "uint32", maps.semantic, labelling.chunks),
        rows=directory.block_tables("grow-rows"),
        grid=grid,
        extent=grid.extent,
        kind="dilate" if settings.grow == "dilate" else "mask",
        mask_above=settings.mask_above,
        radius=halo(settings.grow_nm, settings.voxel_size_nm),
    )
    final = digest({"grow": stage.fingerprint, "minimum": settings.minimum_voxels})
    return stage, directory.table("offsets", stage.fingerprint), directory.table("regroup", final), final


def _relabel_step(
    labelling: Labelling, source: LabelStage | GrowStage, offsets: Path, table: Path, fingerprint: str
) -> tuple[Step, Volume]:
    directory, grid = labelling.directory, labelling.grid
    labels = source.grown if isinstance(source, GrowStage) else source.labels
    segmentation = stored_volume(directory.array("segmentation"), grid, "uint64", labels, labelling.chunks)
    stage = RelabelStage(labels, offsets, table, fingerprint, segmentation, grid)

    def finish() -> None:
        found = final_rows(table, source.rows, counts_of(directory, source))
        _write_instances(directory.instances, found, grid, segmentation)

    return Step("relabel", (stage,), prepare=partial(_create, (segmentation,), grid), finish=finish), segmentation


def _finish_growing(directory: RunDirectory, grow: GrowStage, offsets: Path, table: Path, minimum: int) -> None:
    counts = counts_of(directory, grow)
    write_offsets(offsets, counts)
    write_regroup(table, grow.rows, counts, minimum)


def _write_instances(path: Path, rows: Rows, grid: BlockGrid, segmentation: Volume) -> None:
    if path.exists():
        return
    table = instance_table(rows, grid.extent, segmentation.voxel_size_nm or (1.0, 1.0, 1.0), segmentation.offset_nm)
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink)
    write_whole(path, sink.getvalue().to_pybytes())


def _create(volumes: Sequence[Volume], grid: BlockGrid) -> None:
    for volume in volumes:
        create_if_missing(volume, grid)


def _create_layers(levels: Sequence[ExportLevel]) -> None:
    missing = [level for level in levels if level.mip == 0 and not is_whole_json(Path(level.target.url) / "info")]
    names = {level.layer for level in missing}
    create_layers([level for level in levels if level.layer in names])


def stages_of(steps: Sequence[Step]) -> list[Stage]:
    """All block stages, in order."""
    return [stage for step in steps for stage in step.stages]
