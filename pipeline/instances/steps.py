"""From two probability maps to instances: the steps, what each reads and writes, and how their fingerprints chain."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engine.arrays import create_arrays, stored_volume
from pipeline.engine.directory import RunDirectory, counts_of
from pipeline.engine.step import Step
from pipeline.geometry import Vec3
from pipeline.grid import BlockGrid
from pipeline.image.mask import CoarseMask
from pipeline.instances.ids import Fragments, write_final, write_merge, write_offsets, write_supermerge
from pipeline.instances.ops.growth import whole_halo
from pipeline.instances.ops.select import kept
from pipeline.instances.ops.supermerge import super_grids
from pipeline.instances.plan import InstancePlan
from pipeline.instances.stages.bridge import BridgeStage, bridged_pairs
from pipeline.instances.stages.grow import GrowStage
from pipeline.instances.stages.label import LabelStage
from pipeline.instances.stages.measure import MeasureStage
from pipeline.instances.stages.relabel import RelabelStage
from pipeline.instances.stages.stitch import StitchStage
from pipeline.instances.stages.supermerge import SuperMergeStage, UnionTables, fitting_side
from pipeline.instances.stored.collars import Collars, are_worth_it
from pipeline.instances.stored.labels import StoredLabels
from pipeline.instances.stored.provisional import Provisional
from pipeline.instances.table import Counted, Parts, Space, write_instance_table
from pipeline.store.identity import digest, source_fingerprint
from pipeline.store.tables import open_table
from pipeline.store.volume import Volume

# Fragments joined in one process, about 300 bytes each with their pairs; above, super-blocks of about as many.
MERGE_AT_ONCE = 2**22


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
    tissue: CoarseMask | None = None
    merge_at_once: int = MERGE_AT_ONCE


def instance_steps(labelling: Labelling, maps: Maps) -> tuple[list[Step], Volume, str]:
    """label, stitch, merge, where chosen grow, bridge, select, then relabel; the segmentation and its fingerprint."""
    directory, grid, settings = labelling.directory, labelling.grid, labelling.settings
    label = _label_stage(labelling, maps)
    offsets = directory.table("offsets", label.fingerprint)
    stitch = StitchStage(
        labels=label.labels,
        offsets=offsets,
        pairs=directory.block_tables("stitch-pairs"),
        upstream=label.fingerprint,
        grid=grid,
        connectivity=label.connectivity,
    )
    steps, table, merged = _joined(labelling, label, stitch)
    if not (_grows(labelling) or _selects(settings)):
        relabel, segmentation = _relabel_step(labelling, label, offsets, table, merged)
        return [*steps, relabel], segmentation, relabel.stages[0].fingerprint
    source: LabelStage | GrowStage = label
    found, upstream = Provisional(label.labels, grid, offsets, table), merged
    if _grows(labelling):
        source = grow = _grow_stage(labelling, maps, label, (offsets, table, merged))
        found = Provisional(grow.grown, grid, directory.table("offsets", grow.fingerprint), grow.grown.tables)
        upstream = grow.fingerprint
        steps.append(_grow_step(labelling, grow, found.offsets))
    bridge = BridgeStage(found, upstream, directory.block_tables("bridge"), settings.join_gap)
    if settings.join_gap:
        steps.append(Step("bridge", (bridge,)))
    final = digest({"source": upstream, "chosen": _chosen_by(labelling)})
    final_table = directory.table("final", final)
    select = partial(_select, labelling, source, found, bridge, table, final_table)
    steps.append(Step("select", (), tables=(final_table,), finish=select))
    relabel, segmentation = _relabel_step(labelling, source, found.offsets, final_table, final)
    return [*steps, relabel], segmentation, relabel.stages[0].fingerprint


def _grows(labelling: Labelling) -> bool:
    """Whether labels change after the merge; then their rows are made again, and only then inside a tissue mask."""
    settings = labelling.settings
    return settings.grow != "none" or all(settings.fill_holes) or labelling.tissue is not None


def _selects(settings: InstancePlan) -> bool:
    """Whether more than a size decides which instances there are."""
    return settings.drop_border or settings.join_gap > 0


def _chosen_by(labelling: Labelling) -> dict[str, Any]:
    """What decides which provisional instances stay and which are one."""
    names = ("minimum_voxels", "drop_border", "tissue_fraction", "join_gap", "join_overlap")
    return {name: getattr(labelling.settings, name) for name in names}


def _joined(labelling: Labelling, label: LabelStage, stitch: StitchStage) -> tuple[list[Step], Path, str]:
    """label, stitch and merge: the provisional id of every fragment, in a table; and its fingerprint."""
    directory, grid, settings = labelling.directory, labelling.grid, labelling.settings
    provisional = _grows(labelling) or _selects(settings)
    minimum = settings.minimum_seed_voxels
    minimum = minimum if provisional else max(minimum, settings.minimum_voxels)
    merged = digest({"stitch": stitch.fingerprint, "minimum": minimum})
    table = directory.table("merge", merged)
    pair_offsets = directory.table("pair-offsets", stitch.fingerprint)
    fragments = partial(counts_of, directory, label)
    touching = partial(counts_of, directory, stitch)
    levels = partial(_super_levels, labelling, label, stitch, minimum, pair_offsets)

    def merge() -> None:
        if chosen := levels():
            write_supermerge(table, chosen, int(fragments().sum()), prod(grid.extent))
        else:
            write_merge(table, label.labels.tables, stitch.pairs, fragments(), touching(), minimum)

    return (
        [
            Step(
                "label",
                (label,),
                tables=(stitch.offsets,),
                finish=lambda: write_offsets(stitch.offsets, fragments()),
            ),
            Step("stitch", (stitch,), tables=(pair_offsets,), finish=lambda: write_offsets(pair_offsets, touching())),
            Step("merge", (), tables=(table,), planned=levels, finish=merge),
        ],
        table,
        merged,
    )


def _super_levels(
    labelling: Labelling, label: LabelStage, stitch: StitchStage, minimum: int, pair_offsets: Path
) -> tuple[SuperMergeStage, ...]:
    """The levels of super-blocks, finest first; none before the labels are there, or where one process joins all."""
    directory, grid = labelling.directory, labelling.grid
    if not stitch.offsets.exists():
        return ()
    offsets = open_table(stitch.offsets)
    if offsets[-1] <= labelling.merge_at_once:
        return ()
    side = fitting_side(np.diff(offsets).reshape(grid.shape), labelling.merge_at_once)
    levels: list[SuperMergeStage] = []
    for level, supers in enumerate(super_grids(grid.shape, side)):
        levels.append(
            SuperMergeStage(
                level=level,
                grid=supers,
                below=levels[-1] if levels else None,
                blocks=grid,
                rows=label.labels.tables,
                pairs=stitch.pairs,
                offsets=stitch.offsets,
                pair_offsets=pair_offsets,
                unions=UnionTables(directory.block_tables(f"merge-{level}")),
                upstream=stitch.fingerprint,
                connectivity=label.connectivity,
                minimum_voxels=minimum,
            )
        )
    return tuple(levels)


def _label_stage(labelling: Labelling, maps: Maps) -> LabelStage:
    directory, grid, settings = labelling.directory, labelling.grid, labelling.settings
    return LabelStage(
        semantic=maps.semantic,
        boundary=maps.boundary,
        upstream=maps.fingerprint,
        labels=StoredLabels(directory.block_tables("label"), grid),
        grid=grid,
        extent=grid.extent,
        semantic_above=settings.seed_above,
        boundary_below=settings.boundary_below,
        connectivity=settings.connectivity,
        collars=_collars(labelling),
    )


def _collars(labelling: Labelling) -> Collars | None:
    """The collars of the blocks, where growth or hole filling looks beyond them, but not far."""
    thickness = whole_halo(labelling.settings)
    if not are_worth_it(labelling.grid, thickness):
        return None
    return Collars(thickness, labelling.grid, labelling.directory.block_tables("label-collars"))


def _grow_stage(labelling: Labelling, maps: Maps, label: LabelStage, seeds: tuple[Path, Path, str]) -> GrowStage:
    directory, grid, settings = labelling.directory, labelling.grid, labelling.settings
    offsets, table, fingerprint = seeds
    return GrowStage(
        labels=label.labels,
        semantic=maps.semantic,
        offsets=offsets,
        table=table,
        upstream=fingerprint,
        grown=StoredLabels(directory.block_tables("grow"), grid),
        grid=grid,
        extent=grid.extent,
        plan=settings,
        tissue=labelling.tissue,
        tissue_fingerprint="" if labelling.tissue is None else source_fingerprint(labelling.tissue.volume),
        collars=label.collars,
    )


def _grow_step(labelling: Labelling, grow: GrowStage, offsets: Path) -> Step:
    def finish() -> None:
        write_offsets(offsets, counts_of(labelling.directory, grow))

    return Step("grow", (grow,), tables=(offsets,), finish=finish)


def _relabel_step(
    labelling: Labelling, source: LabelStage | GrowStage, offsets: Path, table: Path, fingerprint: str
) -> tuple[Step, Volume]:
    directory, grid = labelling.directory, labelling.grid
    labels = _labels_of(source)
    segmentation = stored_volume(directory.array("segmentation"), grid, "uint64", source.semantic, labelling.chunks)
    stage = RelabelStage(labels, offsets, table, fingerprint, segmentation, grid)
    pairs = directory.block_tables("measure-pairs")
    measure = MeasureStage(labels, offsets, table, pairs, stage.fingerprint, grid)

    def finish() -> None:
        counted = partial(counts_of, directory)
        parts = Parts(Counted(labels.tables, counted(source)), offsets, table, Counted(pairs, counted(measure)))
        space = Space(grid.extent, segmentation.voxel_size_nm or (1.0, 1.0, 1.0), segmentation.offset_nm)
        write_instance_table(directory.instances, parts, space)

    prepare = partial(create_arrays, (segmentation,), grid)
    return Step(
        "relabel",
        (stage, measure),
        arrays=(segmentation,),
        tables=(directory.instances,),
        prepare=prepare,
        finish=finish,
    ), segmentation


def _labels_of(source: LabelStage | GrowStage) -> StoredLabels:
    return source.grown if isinstance(source, GrowStage) else source.labels


def _select(
    labelling: Labelling,
    source: LabelStage | GrowStage,
    found: Provisional,
    bridge: BridgeStage,
    merged: Path,
    table: Path,
) -> None:
    """Write the final ids: pieces joined, whole instances kept or dropped."""
    directory, settings, extent = labelling.directory, labelling.settings, labelling.grid.extent
    fragments = Fragments(
        _labels_of(source).tables, counts_of(directory, source), found.offsets, merged, isinstance(source, GrowStage)
    )
    joined = None
    if settings.join_gap and not table.exists():
        joined = np.concatenate(list(bridged_pairs(bridge, counts_of(directory, bridge), settings.join_overlap)))
    stays = partial(kept, extent=extent, plan=settings, tissue=labelling.tissue is not None)
    write_final(table, fragments, stays, joined, extent)
