"""relabel and measure: final ids in every voxel, and the instance table."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipeline.engine.arrays import create_arrays, stored_volume
from pipeline.engine.directory import RunDirectory, counts_of
from pipeline.engine.step import Step
from pipeline.instances.check import segmentation_problems
from pipeline.instances.labelling import Labelled, Labelling
from pipeline.instances.stages.measure import MeasureStage
from pipeline.instances.stages.relabel import RelabelStage
from pipeline.instances.table import Counted, Parts, Space, write_instance_table
from pipeline.store.volume import Volume


def relabel_steps(work: Labelling, steps: list[Step], found: Labelled, like: Volume) -> tuple[list[Step], Volume, str]:
    """The last step: final ids in every voxel, and the instance table."""
    assert isinstance(found.ids, Path)
    directory, grid = work.directory, work.grid
    segmentation = stored_volume(directory.array("segmentation"), grid, "uint64", like, work.chunks)
    stored = (found.labels, found.offsets, found.ids)
    relabel = RelabelStage(*stored, segmentation, upstream=found.fingerprint, grid=grid)
    pairs = directory.block_tables("measure-pairs")
    measure = MeasureStage(*stored, pairs, upstream=relabel.fingerprint, grid=grid)
    step = Step(
        "relabel",
        (relabel, measure),
        arrays=(segmentation,),
        tables=(directory.instances,),
        prepare=partial(create_arrays, (segmentation,), grid, relabel.name),
        finish=partial(_write_table, directory, found, measure, segmentation),
        check=partial(segmentation_problems, directory, relabel),
    )
    return [*steps, step], segmentation, relabel.fingerprint


def _write_table(directory: RunDirectory, found: Labelled, measure: MeasureStage, segmentation: Volume) -> None:
    assert isinstance(found.ids, Path)
    rows = Counted(found.labels.tables, found.counts(directory))
    pairs = Counted(measure.pairs, counts_of(directory, measure))
    space = Space(measure.grid.extent, segmentation.voxel_size_nm or (1.0, 1.0, 1.0), segmentation.offset_nm)
    write_instance_table(directory.instances, Parts(rows, found.offsets, found.ids, pairs), space)
