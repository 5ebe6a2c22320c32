"""A job: a checked configuration with its directory and steps; a whole run, or instances from two stored maps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline import __version__
from pipeline.engine.directory import RunDirectory
from pipeline.engine.manifest import claim, recognised
from pipeline.engine.part import Part, together
from pipeline.engine.settings import ClusterSettings
from pipeline.engine.step import Step, stage_names
from pipeline.export.steps import export_part
from pipeline.image.frame import Frame
from pipeline.run.config import InstancesConfig, RunConfig
from pipeline.run.recorded import old_layer_names, recorded_settings
from pipeline.run.verify import is_finished


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


def sum_of(frame: Frame, config: RunConfig | InstancesConfig, *parts: Part) -> Job:
    """The sum of the parts, exported; the configuration with absolute addresses."""
    whole = together(parts)
    old_names = old_layer_names(frame.directory)
    exported = export_part(frame.directory, whole.layers, config.export, old_names)
    facts = {
        **whole.facts,
        "extent": list(frame.source.shape),
        "voxel_size_nm": list(frame.voxel_size_nm),
        "block": list(frame.grid.block),
        "warnings": list(whole.warnings),
    }
    settings = json.loads(json.dumps({**recorded_settings(config, old_names), **whole.identities}))
    steps = (*whole.steps, *exported.steps)
    manifest = {"teramito": __version__, "settings": settings, **facts, "steps": stage_names(steps)}
    return Job(frame.directory, steps, config.cluster, manifest, facts, whole.warnings)
