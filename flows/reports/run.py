"""The result of a job for people: a markdown page and where to look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from flows.terminal.pace import duration
from pipeline.run.job import Job


def markdown_of(job: Job, report: Mapping[str, Any]) -> str:
    """A report as markdown: what came out, where it lies, how long each stage took."""
    root = job.directory.root
    size = " x ".join(f"{value:g}" for value in report["voxel_size_nm"])
    lines = [
        f"# {report['instances']} mitochondria instances",
        "",
        f"Input `{report.get('input', report.get('semantic'))}`, {' x '.join(map(str, report['extent']))} voxels of "
        f"{size} nm (z, y, x). Verified: every block of every stage is there.",
        *_network_lines(report),
        "",
        f"* Neuroglancer layers: `{job.directory.precomputed}`",
        f"* Instance table: `{job.directory.instances}`",
        f"* Open it in a browser: `teramito view {root}`",
        "",
        "| stage | blocks | read | compute | write |",
        "|---|---:|---:|---:|---:|",
    ]
    lines += _rows(report["stages"])
    warnings = report.get("warnings", [])
    return "\n".join([*lines, "", *(f"> {warning}" for warning in warnings)])


def _network_lines(report: Mapping[str, Any]) -> list[str]:
    """Which networks, and how often each saw a patch; nothing where the maps were given."""
    if "model" not in report:
        return []
    given = report["model"]
    models = [given] if isinstance(given, str) else list(given)
    named = " and ".join(f"`{model}`" for model in models)
    mean = f"the mean of {len(models)} models, {named}" if len(models) > 1 else named
    variants = f", averaged over {report['tta']} mirrored and transposed variants" if report["tta"] else ""
    return ["", f"Network: {mean}{variants}."]


def _rows(stages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A row a stage; the levels of one exported layer make one row."""
    for name, levels in groupby(stages, key=lambda stage: stage["stage"].rpartition("-mip")[0] or stage["stage"]):
        parts = list(levels)
        read, op, write = (duration(sum(part["seconds"][i] for part in parts)) for i in range(3))
        yield f"| {name} | {sum(part['blocks'] for part in parts)} | {read} | {op} | {write} |"
