"""label, stitch, merge: the fragments of every block, joined into provisional instances."""

from __future__ import annotations

from functools import partial
from math import prod
from pathlib import Path

import numpy as np

from pipeline.engine.directory import counts_of
from pipeline.engine.step import Step
from pipeline.image.maps import Maps
from pipeline.instances.ids import write_merge, write_offsets, write_supermerge
from pipeline.instances.labelling import Labelled, Labelling
from pipeline.instances.ops.growth import whole_halo
from pipeline.instances.ops.supermerge import super_grids
from pipeline.instances.stages.label import LabelStage
from pipeline.instances.stages.stitch import StitchStage
from pipeline.instances.stages.supermerge import SuperMergeStage, UnionTables, fitting_side
from pipeline.instances.stored.collars import Collars, are_worth_it
from pipeline.instances.stored.labels import StoredLabels
from pipeline.store.identity import digest
from pipeline.store.tables import open_table


def join_steps(work: Labelling, maps: Maps) -> tuple[list[Step], Labelled]:
    """The steps label, stitch and merge: the provisional id of every fragment, in a table."""
    directory = work.directory
    label = label_stage(work, maps)
    stitch = _stitch_stage(work, label)
    minimum = _minimum(work)
    merged = digest({"stitch": stitch.fingerprint, "minimum": minimum})
    table = directory.table("merge", merged)
    pair_offsets = directory.table("pair-offsets", stitch.fingerprint)
    fragments = partial(counts_of, directory, label)
    touching = partial(counts_of, directory, stitch)
    levels = partial(_super_levels, work, label, stitch, pair_offsets)

    def merge() -> None:
        if chosen := levels():
            write_supermerge(table, chosen, int(fragments().sum()), prod(work.grid.extent))
        else:
            write_merge(table, label.labels.tables, stitch.pairs, fragments(), touching(), minimum)

    steps = [
        Step("label", (label,), tables=(stitch.offsets,), finish=lambda: write_offsets(stitch.offsets, fragments())),
        Step("stitch", (stitch,), tables=(pair_offsets,), finish=lambda: write_offsets(pair_offsets, touching())),
        Step("merge", (), tables=(table,), planned=levels, finish=merge),
    ]
    return steps, Labelled(label.labels, label, stitch.offsets, table, table, merged)


def label_stage(work: Labelling, maps: Maps) -> LabelStage:
    """The stage that labels the seeds of each block."""
    settings = work.settings
    return LabelStage(
        semantic=maps.semantic,
        boundary=maps.boundary,
        upstream=maps.fingerprint,
        labels=StoredLabels(work.directory.block_tables("label"), work.grid),
        grid=work.grid,
        extent=work.grid.extent,
        semantic_above=settings.seed_above,
        boundary_below=settings.boundary_below,
        connectivity=settings.connectivity,
        collars=collars_of(work),
    )


def collars_of(work: Labelling) -> Collars | None:
    """The collars of the blocks, where growth or hole filling looks beyond them, but not far."""
    thickness = whole_halo(work.settings)
    if not are_worth_it(work.grid, thickness):
        return None
    return Collars(thickness, work.grid, work.directory.block_tables("label-collars"))


def _stitch_stage(work: Labelling, label: LabelStage) -> StitchStage:
    return StitchStage(
        labels=label.labels,
        offsets=work.directory.table("offsets", label.fingerprint),
        pairs=work.directory.block_tables("stitch-pairs"),
        upstream=label.fingerprint,
        grid=work.grid,
        connectivity=label.connectivity,
    )


def _minimum(work: Labelling) -> int:
    """Voxels of the smallest provisional instance: of a seed, or, where nothing follows, of a whole instance."""
    seed = work.settings.minimum_seed_voxels
    return seed if work.selects else max(seed, work.settings.minimum_voxels)


def _super_levels(
    work: Labelling, label: LabelStage, stitch: StitchStage, pair_offsets: Path
) -> tuple[SuperMergeStage, ...]:
    """The levels of super-blocks, finest first; none before the labels are there, or where one process joins all."""
    directory, grid = work.directory, work.grid
    if not stitch.offsets.exists():
        return ()
    offsets = open_table(stitch.offsets)
    if offsets[-1] <= work.merge_at_once:
        return ()
    side = fitting_side(np.diff(offsets).reshape(grid.shape), work.merge_at_once)
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
                upstream=levels[-1].fingerprint if levels else stitch.fingerprint,
                connectivity=label.connectivity,
                minimum_voxels=_minimum(work),
            )
        )
    return tuple(levels)
