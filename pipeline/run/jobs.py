"""The two kinds of job: the whole way from a volume, and instances from two stored maps."""

from __future__ import annotations

from pipeline.denoise.steps import denoise_part
from pipeline.engine.directory import local_directory
from pipeline.engine.part import Exportable, Part
from pipeline.image.frame import Frame
from pipeline.instances.steps import instances_part
from pipeline.predict.steps import predict_part
from pipeline.run.config import InstancesConfig, RunConfig
from pipeline.run.job import Job, sum_of
from pipeline.run.maps_plan import plan_of_maps
from pipeline.run.plan import Plan, make_plan
from pipeline.store.identity import identity, source_fingerprint

COPY_AFTERWARDS = "Run into a directory and copy RUN/precomputed to the bucket afterwards: teramito convert."


def run_job(config: RunConfig) -> tuple[Job, Plan]:
    """The whole way: restore, predict, instances, export.

    Raises:
        BadInput: the configuration cannot work on this volume.
    """
    directory = local_directory(config.output, COPY_AFTERWARDS)
    plan = make_plan(config)
    frame = Frame(directory, plan.source, plan.grid, plan.chunks, plan.grey)
    denoising, seen = denoise_part(frame, plan.denoising, plan.config.predict.device)
    predicting, maps = predict_part(frame, plan.members, plan.op, plan.config.predict.device, seen)
    instances = instances_part(frame, plan.instances, plan.tissue, maps)
    source = Exportable("image", plan.source, source_fingerprint(plan.source))
    given = Part(
        layers={"raw": source},
        facts={"input": plan.config.input},
        identities={"source": identity(plan.source)},
        warnings=plan.warnings,
    )
    return sum_of(frame, plan.config, given, denoising, predicting, instances), plan


def instances_job(config: InstancesConfig) -> Job:
    """From two stored probability maps to instances.

    Raises:
        BadInput: the maps differ in shape, are no probability maps, or have no voxel size.
    """
    directory = local_directory(config.output, COPY_AFTERWARDS)
    plan = plan_of_maps(config)
    frame = plan.frame(directory)
    maps = plan.maps
    given = Part(
        facts={"semantic": config.semantic, "boundary": config.boundary},
        identities={"maps": [identity(maps.semantic), identity(maps.boundary)]},
        warnings=tuple(dict.fromkeys((*maps.semantic.notes, *maps.boundary.notes))),
    )
    return sum_of(frame, plan.config, given, instances_part(frame, plan.instances, plan.tissue, maps))
