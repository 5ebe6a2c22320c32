"""From two probability maps to instances: each step maps the record of the labels to the next.

label, stitch, merge -> grow -> bridge, select -> relabel, measure.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipeline.engine.arrays import create_arrays, stored_volume
from pipeline.engine.directory import RunDirectory, counts_of
from pipeline.engine.part import Exportable, Part
from pipeline.engine.step import Step
from pipeline.image.frame import Frame
from pipeline.image.maps import Maps
from pipeline.image.mask import CoarseMask
from pipeline.instances.check import segmentation_problems
from pipeline.instances.choosing import grown, selected
from pipeline.instances.joining import joined
from pipeline.instances.labelling import Labelled, Labelling
from pipeline.instances.plan import InstancePlan
from pipeline.instances.stages.measure import MeasureStage
from pipeline.instances.stages.relabel import RelabelStage
from pipeline.instances.table import Counted, Parts, Space, write_instance_table
from pipeline.store.identity import identity
from pipeline.store.volume import Volume


def instances_part(frame: Frame, settings: InstancePlan, tissue: CoarseMask | None, maps: Maps) -> Part:
    """The steps that make instances of the maps, and the segmentation they end with."""
    work = Labelling(frame.directory, frame.grid, frame.chunks, settings, tissue)
    steps, segmentation, fingerprint = instance_steps(work, maps)
    return Part(
        steps=tuple(steps),
        layers={"segmentation": Exportable("segmentation", segmentation, fingerprint)},
        identities={} if tissue is None else {"tissue": identity(tissue.volume)},
    )


def instance_steps(work: Labelling, maps: Maps) -> tuple[list[Step], Volume, str]:
    """The steps, the segmentation that they end with, and its fingerprint."""
    steps, found = joined(work, maps)
    if work.grows:
        more, found = grown(work, found, maps)
        steps += more
    if work.selects:
        more, found = selected(work, found)
        steps += more
    return _relabelled(work, steps, found, maps.semantic)


def _relabelled(work: Labelling, steps: list[Step], found: Labelled, like: Volume) -> tuple[list[Step], Volume, str]:
    """The last step: final ids in every voxel, and the instance table."""
    assert isinstance(found.ids, Path)
    directory, grid = work.directory, work.grid
    segmentation = stored_volume(directory.array("segmentation"), grid, "uint64", like, work.chunks)
    relabel = RelabelStage(found.labels, found.offsets, found.ids, found.fingerprint, segmentation, grid)
    pairs = directory.block_tables("measure-pairs")
    measure = MeasureStage(found.labels, found.offsets, found.ids, pairs, relabel.fingerprint, grid)
    step = Step(
        "relabel",
        (relabel, measure),
        arrays=(segmentation,),
        tables=(directory.instances,),
        prepare=partial(create_arrays, (segmentation,), grid),
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
