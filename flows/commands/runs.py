"""What several commands do with runs: execute one, find one, read its configuration back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from flows.commands.options import show
from flows.terminal.progress import terminal_watcher
from pipeline.engine.directory import RunDirectory
from pipeline.engine.manifest import recorded
from pipeline.errors import BadInput, TeramitoError
from pipeline.run.config import InstancesConfig, RunConfig
from pipeline.run.job import Job
from pipeline.run.jobs import instances_job, run_job
from pipeline.run.recorded import configured
from pipeline.run.verify import is_finished


def execute(
    job: Job, settings: RunConfig | InstancesConfig, flow_name: str, no_prefect: bool, as_json: bool
) -> dict[str, Any] | None:
    """Run a job, with Prefect unless told otherwise, and print where to look."""
    from flows.drive import run_bare  # it loads Dask, which looking at a run needs not

    for warning in job.warnings:
        typer.echo(f"warning: {warning}", err=True)
    if no_prefect or is_finished(job.directory):
        with terminal_watcher(steps=job.steps) as watcher:
            report = run_bare(job, watcher)
    else:
        from flows.tracking.launch import run_with_prefect

        report = run_with_prefect(job, settings, flow_name, lambda line: typer.echo(line, err=True))
    if report is None:
        message = f"{job.directory.root} is finished and verified; nothing to do"
        show({"complete": True, "nothing_to_do": True}, as_json, [message])
        return None
    show({**report, "directory": str(job.directory.root)}, as_json, _result_lines(job, report))
    return report


def recorded_job(directory: RunDirectory) -> Job:
    """The job that made a run directory, from its ``run.json``."""
    settings = recorded(directory)["settings"]
    if "truth" in settings:
        raise BadInput(
            str(directory.root),
            "this is the directory of a comparison, not of a run",
            "teramito evaluate made it",
            "Give the same evaluate command again to check that every block is compared.",
        )
    config = configured(settings, str(directory.root))
    job = instances_job(config) if isinstance(config, InstancesConfig) else run_job(config)[0]
    if unknown := sorted(set(settings) - set(job.manifest["settings"])):
        raise BadInput(
            f"{directory.manifest}: {', '.join(unknown)}",
            "there is no such setting",
            "another version of teramito made this run",
            "Use that version.",
        )
    return job


def rebuilt_job(directory: RunDirectory) -> Job | None:
    """The same, or None where it cannot be made again: the input is gone, another version wrote the settings."""
    try:
        return recorded_job(directory)
    except TeramitoError:
        return None


def existing_run(directory: Path) -> RunDirectory:
    """A run's directory, or a BadInput where there is none."""
    found = RunDirectory(directory.expanduser().absolute())
    if not found.manifest.exists():
        raise BadInput(
            str(directory),
            "this is no run directory",
            "it holds no run.json",
            "Give the directory that was the --output of a run.",
        )
    return found


def _result_lines(job: Job, report: dict[str, Any]) -> list[str]:
    directory = job.directory
    return [
        f"{report['instances']} instances, every block counted and sampled back",
        f"  layers      {directory.precomputed}",
        f"  instances   {directory.instances}",
        f"  look at it  teramito view {directory.root}",
    ]


def instances_run(directory: Path) -> RunDirectory:
    """The directory of a run that makes instances.

    Raises:
        BadInput: there is no run, or the directory is that of a comparison.
    """
    run = existing_run(directory)
    if "truth" in recorded(run)["settings"]:
        raise BadInput(
            str(directory),
            "this is the directory of a comparison, not of a run",
            "teramito evaluate made it, and it holds no instances",
            "Give the directory that was the --output of a run.",
        )
    return run
