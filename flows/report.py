"""The result of a job for people: a markdown page and where to look."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flows.progress import duration
from pipeline.export import neuroglancer_state
from pipeline.formats import Kind
from pipeline.job import Job
from pipeline.stages.export import ExportStage
from pipeline.tables import write_whole


def markdown_of(job: Job, report: Mapping[str, Any]) -> str:
    """A report as markdown: what came out, where it lies, how long each stage took."""
    root = job.directory.root
    size = " x ".join(f"{value:g}" for value in report["voxel_size_nm"])
    lines = [
        f"# {report['instances']} mitochondria instances",
        "",
        f"Input `{report.get('input', report.get('semantic'))}`, {' x '.join(map(str, report['extent']))} voxels of "
        f"{size} nm (z, y, x). Verified: every block of every stage is there.",
        "",
        f"* Neuroglancer layers: `{job.directory.precomputed}`",
        f"* Instance table: `{job.directory.instances}`",
        f"* Open it in a browser: `teramito view {root}`",
        "",
        "| stage | blocks | read | compute | write |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += [_stage_row(stage) for stage in report["stages"]]
    warnings = report.get("warnings", [])
    return "\n".join([*lines, "", *(f"> {warning}" for warning in warnings)])


def _stage_row(stage: Mapping[str, Any]) -> str:
    read, op, write = (duration(seconds) for seconds in stage["seconds"])
    return f"| {stage['stage']} | {stage['blocks']} | {read} | {op} | {write} |"


def write_neuroglancer_state(job: Job, base_url: str) -> dict[str, Any]:
    """The Neuroglancer state of a job's export as seen through ``base_url``."""
    levels = [s.level for step in job.steps for s in step.stages if isinstance(s, ExportStage) and s.level.mip == 0]
    kinds: dict[str, Kind] = {level.layer: level.kind for level in levels}
    volume = levels[0].target
    size = volume.voxel_size_nm or (1.0, 1.0, 1.0)
    z, y, x = (o / s + n / 2 for o, s, n in zip(volume.offset_nm, size, volume.shape, strict=True))
    state = neuroglancer_state(base_url, kinds, size, (z, y, x))
    write_whole(job.directory.root / "neuroglancer.json", json.dumps(state, indent=2).encode())
    return state
