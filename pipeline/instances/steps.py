"""From two probability maps to instances: each step maps the record of the labels to the next.

label, stitch, merge -> grow -> bridge, select -> relabel, measure.
"""

from __future__ import annotations

from pipeline.engine.part import Exportable, Part
from pipeline.engine.step import Step
from pipeline.image.frame import Frame
from pipeline.image.maps import Maps
from pipeline.image.mask import CoarseMask
from pipeline.instances.choosing import grow_steps, select_steps
from pipeline.instances.joining import join_steps
from pipeline.instances.labelling import Labelling
from pipeline.instances.numbering import relabel_steps
from pipeline.instances.plan import InstancePlan
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
    steps, found = join_steps(work, maps)
    if work.grows:
        more, found = grow_steps(work, found, maps)
        steps += more
    if work.selects:
        more, found = select_steps(work, found)
        steps += more
    return relabel_steps(work, steps, found, maps.semantic)
