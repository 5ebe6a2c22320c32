"""The Prefect flow: one task a step in the driver, progress and result as artifacts. Blocks are plain Dask tasks.

Thousands of Prefect tasks stall its server and its pages (prefect issues 8934, 12877, 18883), and a task on a Dask
worker starts a server of its own there: so Prefect sees steps, Dask sees blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact
from prefect.states import Cancelled

from flows.drive import drive
from flows.terminal.interrupts import interruptible
from flows.terminal.pace import Watcher
from flows.terminal.watchers import Both
from flows.tracking.artifacts import ArtifactWatcher
from flows.tracking.pages import publish_restored, publish_result
from flows.tracking.stale import close_stale_runs
from flows.tracking.tasks import as_task, cancellable, run_name
from pipeline.engine.directory import RunDirectory
from pipeline.engine.executor import Executor
from pipeline.errors import RunCancelled
from pipeline.run.config import InstancesConfig, RunConfig
from pipeline.run.job import Job
from pipeline.run.jobs import instances_job, run_job
from workers.cluster import open_executor

_CANCELLED = "cancelled; finished blocks are kept, the same run resumes"
# What a person at a terminal sees beside Prefect's pages; none where a Prefect worker runs the flow.
TERMINAL: ContextVar[Watcher | None] = ContextVar("TERMINAL", default=None)
# The job of a run that a command has planned already, and starts as a flow in its own process.
PLANNED: ContextVar[Job | None] = ContextVar("PLANNED", default=None)


@flow(name="segment-volume", flow_run_name=run_name, persist_result=False, validate_parameters=True)
def segment_volume(config: RunConfig) -> Any:
    """A volume to mitochondria instances: predict, label, stitch, merge, grow, select, relabel, export, verify.

    With denoising on, inspect, compare, damage and restore come first.

    The same output directory again resumes; a finished one returns at once.
    """
    return _run(PLANNED.get() or run_job(config)[0])


@flow(name="instances-from-maps", flow_run_name=run_name, persist_result=False, validate_parameters=True)
def instances_from_maps(config: InstancesConfig) -> Any:
    """Two stored probability maps to instances: label, stitch, merge, grow, select, relabel, export, verify.

    The same output directory again resumes; a finished one returns at once.
    """
    return _run(PLANNED.get() or instances_job(config))


def _run(job: Job) -> Any:
    """The report of the job, or the Cancelled state."""
    logger = get_run_logger()
    for warning in job.warnings:
        logger.warning(warning)
    with job.opened() as finished:
        if finished:
            logger.info("%s is finished and verified; nothing to do", job.directory.root)
            return None
        close_stale_runs(job.directory.root)
        try:
            report = _driven(job)
        except RunCancelled as cancelled:
            return Cancelled(message=str(cancelled))
    publish_result(job, report)
    logger.info("%s instances in %s, complete and verified", report["instances"], job.directory.precomputed)
    return report


def _driven(job: Job) -> dict[str, Any]:
    watcher = ArtifactWatcher(job.steps, job.directory.root.name)
    with interruptible(_CANCELLED), cancellable(), open_executor(job.cluster) as executor:
        _show_dashboard(executor)
        report = drive(job, executor, Both(watcher, TERMINAL.get()), partial(_as_task, job.directory))
    watcher.finished()
    return report


def _as_task(directory: RunDirectory, name: str, work: Callable[[], None]) -> None:
    as_task(name, work, _CANCELLED)
    if name == "restore":
        publish_restored(directory)


def _show_dashboard(executor: Executor) -> None:
    """A link to the page on which Dask shows its blocks, where there is one."""
    link = getattr(getattr(executor, "client", None), "dashboard_link", None)
    if link:
        create_link_artifact(link, "Dask's dashboard: every block", key="dask-dashboard", description="Blocks at work")
