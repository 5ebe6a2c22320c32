"""A job: a checked configuration with its directory and steps; a whole run, or instances from two stored maps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline import __version__
from pipeline.denoise.steps import denoise_part
from pipeline.engine.directory import RunDirectory, local_directory
from pipeline.engine.manifest import claim, recognised
from pipeline.engine.part import Exportable, Part, together
from pipeline.engine.settings import ClusterSettings
from pipeline.engine.step import Step
from pipeline.export.steps import export_part
from pipeline.image.frame import Frame
from pipeline.instances.steps import instances_part
from pipeline.predict.steps import predict_part
from pipeline.run.config import InstancesConfig, RunConfig
from pipeline.run.plan import MapsPlan, Plan, make_plan, plan_of_maps
from pipeline.run.recorded import recorded_settings
from pipeline.run.verify import is_finished
from pipeline.store.identity import identity, source_fingerprint

COPY_AFTERWARDS = "Run into a directory and copy RUN/precomputed to the bucket afterwards: teramito convert."


@dataclass(frozen=True)
class Job:
    """What there is to do and where; ``manifest`` becomes ``run.json``, ``facts`` go into the report."""

    directory: RunDirectory
    steps: tuple[Step, ...]
    cluster: ClusterSettings
    manifest: Mapping[str, Any]
    facts: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def require_place(self) -> None:
        """Refuse a directory that holds anything but this run; writes nothing.

        Raises:
            RunConflict: see ``pipeline.engine.manifest.recognised``.
        """
        recognised(self.directory, self.manifest)

    @contextmanager
    def opened(self) -> Iterator[bool]:
        """Hold the directory; yields True when the job was finished before and there is nothing to do.

        Raises:
            RunConflict: another process works there, or the directory holds another configuration.
        """
        self.require_place()  # before the lock, which is a file, goes into somebody else's directory
        with self.directory.locked():
            claim(self.directory, self.manifest)
            yield is_finished(self.directory)


def run_job(config: RunConfig) -> tuple[Job, Plan]:
    """The whole way: restore, predict, instances, export.

    Raises:
        BadInput: the configuration cannot work on this volume.
    """
    directory = local_directory(config.output, COPY_AFTERWARDS)
    plan = make_plan(config)
    frame = plan.frame(directory)
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
    return _job(plan, frame, given, denoising, predicting, instances), plan


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
    )
    return _job(plan, frame, given, instances_part(frame, plan.instances, plan.tissue, maps))


def _job(plan: Plan | MapsPlan, frame: Frame, *parts: Part) -> Job:
    """The sum of the parts, exported."""
    whole = together(parts)
    exported = export_part(frame.directory, whole.layers, plan.config.export)
    facts = {
        **whole.facts,
        "extent": list(frame.source.shape),
        "voxel_size_nm": list(frame.voxel_size_nm),
        "block": list(frame.grid.block),
        "warnings": list(whole.warnings),
    }
    settings = json.loads(json.dumps({**recorded_settings(plan.config), **whole.identities}))
    manifest = {"teramito": __version__, "settings": settings, **facts}
    steps = (*whole.steps, *exported.steps)
    return Job(frame.directory, steps, plan.config.cluster, manifest, facts, whole.warnings)
